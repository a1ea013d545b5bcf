//! What a line enters: the record that `add` would make of the same particulars.
//!
//! Takes the text of a line, gives entries, or a sentence that says what is wrong with it. Everything that can be said of a line
//! by itself is said here; what only the store can tell is left to it.

use std::num::NonZeroU32;

use countersign_resource_server::time::UnixTime;
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::Value;
use serde_json::value::RawValue;

use super::super::session::Failure;
use super::super::{client, participant, resource_server};
use super::line::{
    AnchorLine, CertificateLine, CertificateStateLine, ClientLine, EntitlementLine, GrantLine, Line, MethodLine,
    NamesLine, ParticipantLine, ResourceServerLine, RevokedKeyLine, SubjectLine, TrustDomainLine,
};
use crate::client_auth;
use crate::fetch::is_allowed;
use crate::pki::anchor::check_anchor;
use crate::pki::bundle::Bundle;
use crate::pki::bundle::refresh::endpoint_of;
use crate::pki::certificate::{KeyStrength, ParsedCertificate};
use crate::pki::identity;
use crate::registry::certificate::{Certificate, CertificateFacts, CertificateState, Replacement};
use crate::registry::client::{Client, ClientAuthentication, Environment, SubjectAttribute, SubjectRule};
use crate::registry::edit::RecordKind;
use crate::registry::entitlement::Entitlement;
use crate::registry::import::{Entry, RevokedKey};
use crate::registry::participant::Participant;
use crate::registry::resource_server::{ResourceServer, StatusClaim};
use crate::registry::trust_anchor::{
    AnchorGrant, AnchorMaterial, AnchorOwner, AnchorState, BundleEndpoint, NameSpace, RevocationSources, TrustAnchor,
    Unknown,
};
use crate::registry::{AnchorId, EntitlementId, ParticipantId, PathIssuer};

/// What a line does not say itself.
#[derive(Clone, Copy, Debug)]
pub(super) struct Context {
    /// When the import began.
    pub(super) now: UnixTime,
    /// Where this server acts.
    pub(super) environment: Environment,
}

/// Most lines enter one record.
type Entries = Vec<Entry>;

/// Reads a line.
///
/// # Errors
/// A sentence.
pub(super) fn read(text: &[u8], number: u64, context: Context) -> Result<Entries, Failure> {
    let line: Line = serde_json::from_slice(text).map_err(|error| in_words(&error))?;
    Ok(match line {
        Line::Participant(line) => vec![Entry::Participant(read_participant(line)?)],
        Line::Anchor(line) => read_anchor(line, context.now)?,
        Line::TrustDomain(line) => read_trust_domain(line)?,
        Line::Grant(line) => {
            let GrantLine { participant_id, anchor_id, any, dn_suffixes, dns_suffixes, uri_prefixes } = line;
            let names = NamesLine { participant_id, any, dn_suffixes, dns_suffixes, uri_prefixes };
            vec![grant(names, anchor_id)?]
        }
        Line::ResourceServer(line) => vec![Entry::ResourceServer(read_resource_server(line)?)],
        Line::Client(line) => vec![read_client(*line, context)?],
        Line::Certificate(line) => vec![Entry::Certificate(Box::new(read_certificate(*line, context.now)?))],
        Line::Entitlement(line) => vec![Entry::Entitlement(read_entitlement(line, number, context.now)?)],
        Line::RevokedKey(line) => {
            let RevokedKeyLine { key_hash, revoked_at, reason } = line;
            let revoked_at = revoked_at.map_or(context.now, |at| at.0);
            vec![Entry::RevokedKey(RevokedKey { key_hash, revoked_at, reason })]
        }
    })
}

/// What the parser says. It counts lines of its own: there is one.
fn in_words(error: &serde_json::Error) -> String {
    let text = error.to_string();
    match text.rsplit_once(" at line ") {
        Some((what, _)) => format!("{what} (column {})", error.column()),
        None => text,
    }
}

/// The record that a line is about which cannot be read, as far as others may refer to it.
pub(super) fn subject(text: &[u8]) -> Option<(RecordKind, String)> {
    let line: Value = serde_json::from_slice(text).ok()?;
    let (kind, record) = line.as_object()?.iter().next()?;
    let kind = match kind.as_str() {
        "client" => RecordKind::Client,
        "participant" => RecordKind::Participant,
        "resource_server" => RecordKind::ResourceServer,
        _ => return None,
    };
    Some((kind, record.get("id")?.as_str()?.to_owned()))
}

fn read_participant(line: ParticipantLine) -> Result<Participant, Failure> {
    Ok(Participant {
        id: line.id,
        legal_name: participant::legal_name(&line.legal_name)?,
        registration_number: line.registration_number,
        country: line.country.as_deref().map(participant::country).transpose()?,
        roles: line.roles,
        contacts: {
            let contacts = crate::registry::participant::Contacts::from(line.contacts);
            contacts.webhook.as_deref().map(participant::webhook).transpose()?;
            contacts
        },
        state: line.state,
    })
}

fn read_anchor(line: AnchorLine, now: UnixTime) -> Result<Entries, Failure> {
    // One that is out of date vouches for nothing, and may be entered all the same: an export has those too.
    let not_after = ParsedCertificate::read(&line.der)?.not_after();
    let facts = check_anchor(&line.der, now.min(not_after))?;
    let (revocation, unknown_revocation) = sources(line.revocation, line.unknown_revocation)?;
    let anchor = TrustAnchor {
        id: facts.id.clone(),
        material: AnchorMaterial::X509 { certificate_der: line.der },
        subject: facts.subject,
        owner: owner(line.owner),
        eku_policy: line.eku_policy,
        unknown_revocation,
        revocation,
        state: line.state,
    };
    with_grants(Entry::Anchor { anchor, subject_der: facts.subject_der }, line.grants, &facts.id)
}

fn read_trust_domain(line: TrustDomainLine) -> Result<Entries, Failure> {
    let endpoint = match line.endpoint {
        None => BundleEndpoint::File,
        Some(value) => exactly(&value)?,
    };
    let checked = match &endpoint {
        BundleEndpoint::File => BundleEndpoint::File,
        BundleEndpoint::HttpsWeb { url } => endpoint_of(url, None)?,
        BundleEndpoint::HttpsSpiffe { url, endpoint_spiffe_id } => endpoint_of(url, Some(endpoint_spiffe_id.as_str()))?,
    };
    if Bundle::parse(line.bundle.as_bytes(), &line.trust_domain)?.is_empty() && line.state == AnchorState::Active {
        return Err("the bundle has no key that can be used: nothing could be believed of this trust domain".into());
    }
    let (revocation, unknown_revocation) = sources(line.revocation, line.unknown_revocation)?;
    let id = AnchorId::of_trust_domain(&line.trust_domain);
    let own = line.trust_domain.prefix();
    let subject = format!("spiffe://{}", line.trust_domain);
    let anchor = TrustAnchor {
        id: id.clone(),
        subject: subject.clone(),
        owner: owner(line.owner),
        eku_policy: line.eku_policy,
        unknown_revocation,
        revocation,
        state: line.state,
        material: AnchorMaterial::TrustDomain {
            trust_domain: line.trust_domain,
            endpoint: checked,
            bundle: line.bundle,
        },
    };
    let entries = with_grants(Entry::Anchor { anchor, subject_der: subject.into_bytes() }, line.grants, &id)?;
    let is_own = |prefix: &String| prefix.starts_with(&own);
    let is_elsewhere =
        |entry: &Entry| matches!(entry, Entry::Grant(grant) if !grant.name_space.uri_prefixes.iter().all(is_own));
    if entries.iter().any(is_elsewhere) {
        return Err(format!("a trust domain vouches for ids of its own only: prefixes begin with {own}").into());
    }
    Ok(entries)
}

fn owner(owner: Option<ParticipantId>) -> AnchorOwner {
    owner.map_or(AnchorOwner::Operator, AnchorOwner::Participant)
}

fn with_grants(anchor: Entry, grants: Vec<NamesLine>, id: &AnchorId) -> Result<Entries, Failure> {
    let mut entries = vec![anchor];
    for names in grants {
        entries.push(grant(names, id.clone())?);
    }
    Ok(entries)
}

fn grant(names: NamesLine, anchor_id: AnchorId) -> Result<Entry, Failure> {
    let NamesLine { participant_id, any, dn_suffixes, dns_suffixes, uri_prefixes } = names;
    let name_space = identity::name_space(&NameSpace { any, dn_suffixes, dns_suffixes, uri_prefixes })?;
    Ok(Entry::Grant(AnchorGrant { participant_id, anchor_id, name_space }))
}

/// Where revocations are, and what it means that they are not known.
fn sources(given: Option<Box<RawValue>>, unknown: Option<Unknown>) -> Result<(RevocationSources, Unknown), Failure> {
    let sources: RevocationSources = given.as_deref().map(exactly).transpose()?.unwrap_or_default();
    let url = "an http or https URL with a whole host and a slash after it";
    let ocsp = sources.ocsp.as_ref();
    let prefixes = sources.crl_url_prefixes.iter().chain(ocsp.into_iter().flat_map(|ocsp| &ocsp.url_prefixes));
    for prefix in prefixes.chain(ocsp.and_then(|ocsp| ocsp.responder_url.as_ref())) {
        if !is_allowed(prefix, std::slice::from_ref(prefix)) {
            return Err(format!("{prefix} must be {url}").into());
        }
    }
    if ocsp.is_some_and(|ocsp| ocsp.responder_url.is_some() != ocsp.url_prefixes.is_empty()) {
        return Err("revocation.ocsp says whom to ask, by responder_url or by url_prefixes".into());
    }
    for source in &sources.crls {
        let location = source.location.as_str();
        let is_url = location.starts_with("http://") || location.starts_with("https://");
        if !is_url && (location.contains("://") || !location.starts_with('/')) {
            return Err(
                format!("{location} must be the whole path of a file or directory, or an http or https URL").into()
            );
        }
        if let Some(der) = &source.issuer_der {
            ParsedCertificate::read(der)?;
        }
    }
    // Without a source there is nothing that could be unknown.
    let unknown = unknown.unwrap_or(if sources.is_empty() { Unknown::Accept } else { Unknown::Refuse });
    Ok((sources, unknown))
}

/// A value of this type, with no member that the type does not have.
fn exactly<T: DeserializeOwned + Serialize>(given: &RawValue) -> Result<T, Failure> {
    // From the text itself: a `Value` has the last of two members of one name.
    let read: T = serde_json::from_str(given.get()).map_err(|error| in_words(&error))?;
    let value: Value = serde_json::from_str(given.get()).map_err(|error| in_words(&error))?;
    match stranger(&value, &serde_json::to_value(&read)?) {
        Some(name) => Err(format!("unknown field `{name}`").into()),
        None => Ok(read),
    }
}

fn stranger(given: &Value, read: &Value) -> Option<String> {
    match (given, read) {
        (Value::Object(given), Value::Object(read)) => given.iter().find_map(|(name, value)| match read.get(name) {
            Some(read) => stranger(value, read),
            // What is not there is not written either.
            None if value.is_null() => None,
            None => Some(name.clone()),
        }),
        (Value::Array(given), Value::Array(read)) => {
            given.iter().zip(read).find_map(|(given, read)| stranger(given, read))
        }
        _ => None,
    }
}

fn read_resource_server(line: ResourceServerLine) -> Result<ResourceServer, Failure> {
    if line.scopes.is_empty() {
        return Err("a resource server knows at least one scope".into());
    }
    let subject = match line.subject {
        None => None,
        Some(names) => Some(rule(&names)?.ok_or("subject has one of the names that a client can have")?),
    };
    Ok(ResourceServer {
        id: line.id,
        resource: resource_server::absolute(line.resource.as_str())?,
        scopes: line.scopes,
        owner: line.owner,
        access_token_lifetime_seconds: lifetime(line.access_token_lifetime_seconds)?,
        subject,
        certificates: line.certificates,
        introspection_signed_response_alg: resource_server::signing_algorithm(
            line.introspection_signed_response_alg.as_str(),
        )?,
        status: if line.status_list { StatusClaim::StatusList } else { StatusClaim::Absent },
        state: line.state,
    })
}

fn read_client(line: ClientLine, context: Context) -> Result<Entry, Failure> {
    let names = SubjectLine {
        tls_client_auth_subject_dn: line.tls_client_auth_subject_dn,
        tls_client_auth_san_dns: line.tls_client_auth_san_dns,
        tls_client_auth_san_uri: line.tls_client_auth_san_uri,
        tls_client_auth_san_ip: line.tls_client_auth_san_ip,
        tls_client_auth_san_email: line.tls_client_auth_san_email,
    };
    let name = rule(&names)?;
    let jwks = line.jwks.as_deref().map(|raw| key_set(raw.get())).transpose()?;
    if line.token_endpoint_auth_signing_alg.is_some() && line.token_endpoint_auth_method != MethodLine::PrivateKeyJwt {
        return Err("token_endpoint_auth_signing_alg goes with private_key_jwt".into());
    }
    let mut certificates = Vec::new();
    let method = line.token_endpoint_auth_method;
    let authentication = match (method, name, jwks, &line.spiffe_id) {
        (MethodLine::TlsClientAuth, Some(subject), None, None) => ClientAuthentication::TlsClientAuth { subject },
        (MethodLine::TlsClientAuth, ..) => {
            return Err("tls_client_auth goes with one name (tls_client_auth_san_dns, …), and with no jwks".into());
        }
        (MethodLine::SelfSignedTlsClientAuth, None, Some(jwks), None) => {
            let registered = client_auth::registered_certificates(&jwks)?;
            if registered.is_empty() {
                return Err("a client with self_signed_tls_client_auth has certificates in its jwks, as x5c".into());
            }
            if !line.certificates_follow {
                let announced = |one: &ParsedCertificate| one.for_enrolment().announced(line.id.clone(), context.now);
                certificates = registered.iter().map(announced).collect();
            }
            ClientAuthentication::SelfSignedTlsClientAuth { jwks }
        }
        (MethodLine::SelfSignedTlsClientAuth, ..) => {
            return Err("self_signed_tls_client_auth goes with jwks, and with no name".into());
        }
        (MethodLine::PrivateKeyJwt, subject, Some(jwks), None) => {
            let signing_alg = line.token_endpoint_auth_signing_alg;
            let signing_alg = signing_alg.unwrap_or(countersign_resource_server::token::jws::SigningAlgorithm::ES256);
            client_auth::check_keys(&jwks, signing_alg)?;
            ClientAuthentication::PrivateKeyJwt { jwks, signing_alg, subject }
        }
        (MethodLine::PrivateKeyJwt, ..) => return Err("private_key_jwt goes with jwks".into()),
        (MethodLine::SpiffeX509 | MethodLine::SpiffeJwt, None, None, given) => {
            let subject = client::spiffe_rule_of(&line.id, given.as_ref())?;
            if method == MethodLine::SpiffeX509 {
                ClientAuthentication::SpiffeX509 { subject }
            } else {
                ClientAuthentication::SpiffeJwt { subject }
            }
        }
        (MethodLine::SpiffeX509 | MethodLine::SpiffeJwt, ..) => {
            return Err("spiffe_x509 and spiffe_jwt go with spiffe_id, and with no other name and no jwks".into());
        }
    };
    if line.certificates_follow && method != MethodLine::SelfSignedTlsClientAuth {
        return Err("certificates_follow goes with self_signed_tls_client_auth".into());
    }
    let client = Client {
        id: line.id,
        participant_id: line.participant_id,
        environment: line.environment.unwrap_or(context.environment),
        contact: line.contact,
        authentication,
        access_token_signing_alg: resource_server::signing_algorithm(line.access_token_signing_alg.as_str())?,
        access_token_lifetime_seconds: lifetime(line.access_token_lifetime_seconds)?,
        enrolment: line.enrolment,
        renewal_overlap_seconds: line.renewal_overlap_seconds,
        requests_per_second: line.requests_per_second.map(requests).transpose()?,
        software_id: line.software_id,
        state: line.state,
    };
    if client.renewal_overlap_seconds.is_some_and(|overlap| overlap > LONGEST_OVERLAP_SECONDS) {
        return Err("renewal_overlap_seconds is ten years at most".into());
    }
    if client.renewal_overlap_seconds.is_some() && !client.enrols_on_first_use() {
        return Err("renewal_overlap_seconds goes with certificates that are enrolled when first seen".into());
    }
    Ok(Entry::Client(Box::new(client), certificates))
}

/// As the command line has it, in hours.
const LONGEST_OVERLAP_SECONDS: u64 = 87_600 * 3_600;

/// The one name that is given, if there is one.
fn rule(names: &SubjectLine) -> Result<Option<SubjectRule>, Failure> {
    let given = [
        (SubjectAttribute::TlsClientAuthSubjectDn, &names.tls_client_auth_subject_dn),
        (SubjectAttribute::TlsClientAuthSanDns, &names.tls_client_auth_san_dns),
        (SubjectAttribute::TlsClientAuthSanUri, &names.tls_client_auth_san_uri),
        (SubjectAttribute::TlsClientAuthSanIp, &names.tls_client_auth_san_ip),
        (SubjectAttribute::TlsClientAuthSanEmail, &names.tls_client_auth_san_email),
    ];
    let mut given = given.iter().filter_map(|(attribute, value)| Some((*attribute, value.as_ref()?)));
    let Some((attribute, value)) = given.next() else { return Ok(None) };
    if let Some((other, _)) = given.next() {
        return Err(format!("{} and {}: one name is registered", attribute.as_str(), other.as_str()).into());
    }
    Ok(Some(identity::subject_rule(attribute, value)?))
}

/// A JWK Set, as an object or as its text.
fn key_set(raw: &str) -> Result<String, Failure> {
    match raw.as_bytes().first() {
        Some(b'{') => Ok(raw.to_owned()),
        Some(b'"') => Ok(serde_json::from_str(raw)?),
        _ => Err("jwks is a JWK Set, as an object or as a text".into()),
    }
}

fn lifetime(seconds: Option<i64>) -> Result<Option<i64>, Failure> {
    match seconds {
        Some(seconds) if !(1..=3_600).contains(&seconds) => {
            Err("access_token_lifetime_seconds is from 1 to 3600".into())
        }
        within => Ok(within),
    }
}

fn requests(count: u32) -> Result<NonZeroU32, Failure> {
    client::requests(&count.to_string()).map_err(|problem| format!("requests_per_second is {problem}").into())
}

fn read_certificate(line: CertificateLine, now: UnixTime) -> Result<Certificate, Failure> {
    let is_fact = line.thumbprint.is_some()
        || line.key_hash.is_some()
        || line.issuer_key.is_some()
        || line.serial.is_some()
        || line.subject.is_some()
        || !line.subject_alt_names.is_empty()
        || line.not_before.is_some()
        || line.not_after.is_some()
        || line.anchor.is_some()
        || !line.issuers.is_empty();
    let state = match (line.state, line.state_at, line.reason) {
        (CertificateStateLine::Announced, None, None) => CertificateState::Announced,
        (CertificateStateLine::Active, None, None) => CertificateState::Active,
        (CertificateStateLine::Superseded, Some(at), None) => CertificateState::Superseded { at: at.0 },
        (CertificateStateLine::Revoked, Some(at), Some(reason)) => CertificateState::Revoked { at: at.0, reason },
        _ => {
            return Err(
                "superseded goes with state_at, revoked with state_at and reason, other states with neither".into()
            );
        }
    };
    let announced_at = line.announced_at.map(|at| at.0);
    let is_new = matches!(line.state, CertificateStateLine::Announced | CertificateStateLine::Revoked)
        && line.first_seen.is_none()
        && line.last_seen.is_none();
    let (facts, announced_at) = match (&line.der, is_fact) {
        // Who issued it is learnt when it is first seen, and that is the one moment: whatever was seen already would stay out of
        // reach of what its issuer revokes.
        (Some(_), false) if !is_new => {
            return Err("with der a certificate is announced or revoked, and was not seen yet".into());
        }
        (Some(der), false) => {
            let leaf = ParsedCertificate::read(der)?;
            if leaf.key_strength() != KeyStrength::Sufficient {
                return Err(
                    "its key is none that a handshake takes: RSA 2048 to 4096, P-256, P-384, P-521 or Ed25519".into()
                );
            }
            (leaf.for_enrolment(), Some(announced_at.unwrap_or(now)))
        }
        (None, true) => {
            let (Some(thumbprint), Some(key_hash), Some(serial), Some(not_before), Some(not_after)) =
                (line.thumbprint, line.key_hash, line.serial, line.not_before, line.not_after)
            else {
                return Err("without der, thumbprint, key_hash, serial, not_before and not_after are given".into());
            };
            let facts = CertificateFacts {
                thumbprint,
                key_hash,
                issuer_key: line.issuer_key,
                serial: serial_number(serial)?,
                subject: line.subject.unwrap_or_default(),
                subject_alt_names: line.subject_alt_names,
                not_before: not_before.0,
                not_after: not_after.0,
                anchor: line.anchor,
            };
            (facts, announced_at)
        }
        (Some(_), true) => {
            return Err("der says all that there is to know of a certificate: nothing else is said of it".into());
        }
        (None, false) => return Err("give der, or everything the registry keeps of a certificate".into()),
    };
    let mut issuers = Vec::with_capacity(line.issuers.len());
    for issuer in line.issuers {
        issuers.push(PathIssuer {
            key_hash: issuer.key_hash,
            issuer_key: issuer.issuer_key,
            serial: serial_number(issuer.serial)?,
            not_after: issuer.not_after.0,
        });
    }
    let replaces = line.replaces.map(Replacement::from);
    if replaces.is_some_and(|replaces| replaces.overlap_seconds > LONGEST_OVERLAP_SECONDS) {
        return Err("overlap_seconds is ten years at most".into());
    }
    // It would end its own time when it is first seen.
    if replaces.is_some_and(|replaces| replaces.thumbprint == facts.thumbprint) {
        return Err("a certificate does not replace itself".into());
    }
    Ok(Certificate {
        issuers,
        state,
        announced_at,
        replaces,
        first_seen: line.first_seen.map(|at| at.0),
        last_seen: line.last_seen.map(|at| at.0),
        ..facts.announced(line.client_id, now)
    })
}

/// As records have it: content octets in lower-case hexadecimal, 21 at most.
fn serial_number(text: String) -> Result<String, Failure> {
    let good = (2..=42).contains(&text.len())
        && text.len().is_multiple_of(2)
        && text.bytes().all(|digit| matches!(digit, b'0'..=b'9' | b'a'..=b'f'));
    if good { Ok(text) } else { Err("a serial number is written in whole octets of lower-case hexadecimal".into()) }
}

fn read_entitlement(line: EntitlementLine, number: u64, now: UnixTime) -> Result<Entitlement, Failure> {
    let id = match line.id {
        Some(id) => id,
        None => EntitlementId::parse(&format!("import.{}.{number}", now.as_millis()))?,
    };
    Ok(Entitlement {
        id,
        client_id: line.client_id,
        resource_server_id: line.resource_server_id,
        scopes: line.scopes,
        starts_at: line.starts_at.map_or(now, |at| at.0),
        ends_at: line.ends_at.map(|at| at.0),
        reason: line.reason,
        ended_at: line.ended_at.map(|at| at.0),
    })
}
