//! One line of an import or export, as it is written: docs/registry-import.md.
//!
//! Names and shapes only. What a line means, and whether it may mean that, is for `reading.rs`; how a record is written as one,
//! for `writing.rs`.

use std::fmt;

use countersign_resource_server::scope::Scope;
use countersign_resource_server::time::UnixTime;
use countersign_resource_server::token::jws::SigningAlgorithm;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use serde_json::value::RawValue;
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

use crate::pki::spiffe::{SpiffeId, TrustDomain};
use crate::registry::certificate::{Replacement, RevocationReason};
use crate::registry::client::{ClientState, Enrolment, Environment};
use crate::registry::participant::{Contacts, ParticipantState};
use crate::registry::resource_server::ResourceServerState;
use crate::registry::trust_anchor::{AnchorState, EkuPolicy, Unknown, base64_der, optional_base64_der};
use crate::registry::{
    AnchorId, ClientId, EntitlementId, KeyHash, ParticipantId, ResourceIndicator, ResourceServerId, Thumbprint,
};

/// A line.
#[derive(Debug, Deserialize, Serialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Line {
    Anchor(AnchorLine),
    Certificate(Box<CertificateLine>),
    Client(Box<ClientLine>),
    Entitlement(EntitlementLine),
    Grant(GrantLine),
    Participant(ParticipantLine),
    ResourceServer(ResourceServerLine),
    RevokedKey(RevokedKeyLine),
    TrustDomain(TrustDomainLine),
}

/// An instant by RFC 3339, to the millisecond.
#[derive(Clone, Copy, Debug)]
pub(super) struct Instant(pub(super) UnixTime);

impl Serialize for Instant {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(&self.0)
    }
}

impl<'de> Deserialize<'de> for Instant {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Text;
        impl serde::de::Visitor<'_> for Text {
            type Value = Instant;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an instant by RFC 3339, for example 2027-01-01T00:00:00Z")
            }

            fn visit_str<E: serde::de::Error>(self, text: &str) -> Result<Self::Value, E> {
                instant(text).map(Instant).ok_or_else(|| E::invalid_value(serde::de::Unexpected::Str(text), &self))
            }
        }
        deserializer.deserialize_str(Text)
    }
}

fn instant(text: &str) -> Option<UnixTime> {
    // Where the year has no four digits, as records have it.
    if let Some(number) = text.strip_suffix("ms") {
        return number.parse().ok().map(UnixTime::from_millis);
    }
    let parsed = OffsetDateTime::parse(text, &Rfc3339).ok()?;
    let milliseconds = parsed.unix_timestamp_nanos().div_euclid(1_000_000);
    i64::try_from(milliseconds).ok().map(UnixTime::from_millis)
}

#[derive(Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub(super) struct ParticipantLine {
    pub(super) id: ParticipantId,
    pub(super) legal_name: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) registration_number: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) country: Option<String>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(super) roles: Vec<String>,
    #[serde(default, skip_serializing_if = "ContactsLine::is_empty")]
    pub(super) contacts: ContactsLine,
    #[serde(default = "participant_state")]
    pub(super) state: ParticipantState,
}

#[derive(Debug, Default, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub(super) struct ContactsLine {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    technical: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    business: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    security: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    webhook: Option<String>,
}

impl ContactsLine {
    const fn is_empty(&self) -> bool {
        self.technical.is_none() && self.business.is_none() && self.security.is_none() && self.webhook.is_none()
    }
}

impl From<ContactsLine> for Contacts {
    fn from(line: ContactsLine) -> Self {
        let ContactsLine { technical, business, security, webhook } = line;
        Self { technical, business, security, webhook }
    }
}

impl From<Contacts> for ContactsLine {
    fn from(contacts: Contacts) -> Self {
        let Contacts { technical, business, security, webhook } = contacts;
        Self { technical, business, security, webhook }
    }
}

#[derive(Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub(super) struct AnchorLine {
    #[serde(with = "base64_der")]
    pub(super) der: Vec<u8>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) owner: Option<ParticipantId>,
    #[serde(default = "eku_policy")]
    pub(super) eku_policy: EkuPolicy,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) unknown_revocation: Option<Unknown>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) revocation: Option<Box<RawValue>>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(super) grants: Vec<NamesLine>,
    #[serde(default = "anchor_state")]
    pub(super) state: AnchorState,
}

#[derive(Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub(super) struct TrustDomainLine {
    pub(super) trust_domain: TrustDomain,
    pub(super) bundle: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) endpoint: Option<Box<RawValue>>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) owner: Option<ParticipantId>,
    #[serde(default = "eku_policy_of_trust_domain")]
    pub(super) eku_policy: EkuPolicy,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) unknown_revocation: Option<Unknown>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) revocation: Option<Box<RawValue>>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(super) grants: Vec<NamesLine>,
    #[serde(default = "anchor_state")]
    pub(super) state: AnchorState,
}

/// Names of a participant, for the anchor that it stands with.
#[derive(Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub(super) struct NamesLine {
    pub(super) participant_id: ParticipantId,
    #[serde(default)]
    pub(super) any: bool,
    #[serde(default)]
    pub(super) dn_suffixes: Vec<String>,
    #[serde(default)]
    pub(super) dns_suffixes: Vec<String>,
    #[serde(default)]
    pub(super) uri_prefixes: Vec<String>,
}

#[derive(Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub(super) struct GrantLine {
    pub(super) participant_id: ParticipantId,
    pub(super) anchor_id: AnchorId,
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub(super) any: bool,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(super) dn_suffixes: Vec<String>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(super) dns_suffixes: Vec<String>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(super) uri_prefixes: Vec<String>,
}

#[derive(Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub(super) struct ResourceServerLine {
    pub(super) id: ResourceServerId,
    pub(super) resource: ResourceIndicator,
    pub(super) scopes: Scope,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) owner: Option<ParticipantId>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) access_token_lifetime_seconds: Option<i64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) subject: Option<SubjectLine>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(super) certificates: Vec<Thumbprint>,
    #[serde(default = "es256")]
    pub(super) introspection_signed_response_alg: SigningAlgorithm,
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub(super) status_list: bool,
    #[serde(default = "resource_server_state")]
    pub(super) state: ResourceServerState,
}

/// A name, under the client metadata of RFC 8705 §2.1.2.
#[derive(Debug, Default, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub(super) struct SubjectLine {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) tls_client_auth_subject_dn: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) tls_client_auth_san_dns: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) tls_client_auth_san_uri: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) tls_client_auth_san_ip: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) tls_client_auth_san_email: Option<String>,
}

/// How a client proves itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum MethodLine {
    TlsClientAuth,
    SelfSignedTlsClientAuth,
    PrivateKeyJwt,
    #[serde(rename = "spiffe_x509")]
    SpiffeX509,
    SpiffeJwt,
}

#[derive(Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub(super) struct ClientLine {
    pub(super) id: ClientId,
    pub(super) participant_id: ParticipantId,
    pub(super) token_endpoint_auth_method: MethodLine,
    // The five of `SubjectLine`: serde refuses unknown members only where none is flattened.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) tls_client_auth_subject_dn: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) tls_client_auth_san_dns: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) tls_client_auth_san_uri: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) tls_client_auth_san_ip: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) tls_client_auth_san_email: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) spiffe_id: Option<SpiffeId>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) jwks: Option<Box<RawValue>>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) token_endpoint_auth_signing_alg: Option<SigningAlgorithm>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) environment: Option<Environment>,
    #[serde(default = "es256")]
    pub(super) access_token_signing_alg: SigningAlgorithm,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) access_token_lifetime_seconds: Option<i64>,
    #[serde(default = "enrolment")]
    pub(super) enrolment: Enrolment,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) renewal_overlap_seconds: Option<u64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) requests_per_second: Option<u32>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) contact: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) software_id: Option<String>,
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub(super) certificates_follow: bool,
    #[serde(default = "client_state")]
    pub(super) state: ClientState,
}

/// The states of a certificate, without what belongs to each.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum CertificateStateLine {
    Announced,
    Active,
    Superseded,
    Revoked,
}

#[derive(Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub(super) struct CertificateLine {
    pub(super) client_id: ClientId,
    #[serde(default, skip_serializing_if = "Option::is_none", with = "optional_base64_der")]
    pub(super) der: Option<Vec<u8>>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) thumbprint: Option<Thumbprint>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) key_hash: Option<KeyHash>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) issuer_key: Option<KeyHash>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) serial: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) subject: Option<String>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(super) subject_alt_names: Vec<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) not_before: Option<Instant>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) not_after: Option<Instant>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) anchor: Option<AnchorId>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(super) issuers: Vec<IssuerLine>,
    #[serde(default = "certificate_state")]
    pub(super) state: CertificateStateLine,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) state_at: Option<Instant>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) reason: Option<RevocationReason>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) announced_at: Option<Instant>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) replaces: Option<ReplacementLine>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) first_seen: Option<Instant>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) last_seen: Option<Instant>,
}

#[derive(Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub(super) struct IssuerLine {
    pub(super) key_hash: KeyHash,
    pub(super) issuer_key: KeyHash,
    pub(super) serial: String,
    pub(super) not_after: Instant,
}

#[derive(Clone, Copy, Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub(super) struct ReplacementLine {
    thumbprint: Thumbprint,
    overlap_seconds: u64,
}

impl From<ReplacementLine> for Replacement {
    fn from(line: ReplacementLine) -> Self {
        Self { thumbprint: line.thumbprint, overlap_seconds: line.overlap_seconds }
    }
}

impl From<Replacement> for ReplacementLine {
    fn from(replaces: Replacement) -> Self {
        Self { thumbprint: replaces.thumbprint, overlap_seconds: replaces.overlap_seconds }
    }
}

#[derive(Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub(super) struct EntitlementLine {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) id: Option<EntitlementId>,
    pub(super) client_id: ClientId,
    pub(super) resource_server_id: ResourceServerId,
    pub(super) scopes: Scope,
    pub(super) reason: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) starts_at: Option<Instant>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) ends_at: Option<Instant>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) ended_at: Option<Instant>,
}

#[derive(Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RevokedKeyLine {
    pub(super) key_hash: KeyHash,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) revoked_at: Option<Instant>,
    #[serde(default = "key_compromise")]
    pub(super) reason: RevocationReason,
}

// What is not said is what `add` would make of it.

const fn participant_state() -> ParticipantState {
    ParticipantState::Active
}

const fn anchor_state() -> AnchorState {
    AnchorState::Active
}

const fn resource_server_state() -> ResourceServerState {
    ResourceServerState::Active
}

const fn client_state() -> ClientState {
    ClientState::Active
}

const fn certificate_state() -> CertificateStateLine {
    CertificateStateLine::Announced
}

const fn eku_policy() -> EkuPolicy {
    EkuPolicy::Required
}

/// SVIDs need not have one (X509-SVID §4.4).
const fn eku_policy_of_trust_domain() -> EkuPolicy {
    EkuPolicy::IfPresent
}

const fn enrolment() -> Enrolment {
    Enrolment::OnFirstUse
}

const fn es256() -> SigningAlgorithm {
    SigningAlgorithm::ES256
}

const fn key_compromise() -> RevocationReason {
    RevocationReason::KeyCompromise
}
