//! Which client does it prove?
//!
//! Takes a found client, a verified peer and the assertion of the request, if it has one, gives an [`AuthenticatedClient`]: proof that the caller is that
//! client, by the one method it is registered for, with a certificate that is on record as its own. It knows nothing of
//! whether the client may act.

use std::sync::Arc;

use countersign_resource_server::time::UnixTime;
use countersign_resource_server::token::jwks::KeySet;

use crate::error::{Refusal, refusals};
use crate::pki::bundle::Bundle;
use crate::pki::identity::Names;
use crate::pki::spiffe::SpiffeId;
use crate::pki::{Standing, VerifiedPeer};
use crate::rates::Rates;
use crate::registry::certificate::{Certificate, CertificateState};
use crate::registry::client::{ClientAuthentication, Enrolment, SubjectRule};
use crate::registry::trust_anchor::{AnchorMaterial, AnchorState};
use crate::registry::{AnchorId, AnchorSetId, ClientRecord, FoundClient, KeyHash, Registry, Sighting};
use crate::request::ClientAssertion;

/// RFC 8705 §2.1.
mod tls_client_auth;

/// RFC 8705 §2.2.
mod self_signed_tls_client_auth;

/// RFC 7523 §2.2 and §3.
mod private_key_jwt;

/// draft-schwenkschuster-oauth-spiffe-client-auth §3.2.
mod spiffe_x509;

/// draft-schwenkschuster-oauth-spiffe-client-auth §3.1.
mod spiffe_jwt;

#[cfg(test)]
mod tests;

#[cfg(test)]
mod spiffe_tests;

pub use private_key_jwt::{UnfitKeys, UsedAssertion, check_keys};
pub use self_signed_tls_client_auth::{NoJwk, jwks_of, registered_certificates};
pub use spiffe_jwt::ALGORITHMS as JWT_SVID_ALGORITHMS;

refusals! {
    /// Why the caller is not the client it claims to be.
    pub enum ClientAuthRefusal at "client_auth" {
        /// An assertion from a client that is not registered for one.
        AssertionUnexpected => "assertion_unexpected",
        /// No assertion from a client that is registered for one. Its certificate does not stand in for it.
        AssertionMissing => "assertion_missing",
        /// The assertion's framing or header cannot be read, or asks for an extension.
        AssertionUnreadable => "assertion_unreadable",
        /// It is of another type.
        AssertionTypeWrong => "assertion_type_wrong",
        /// It is signed with another algorithm than the registered one.
        AssertionAlgorithmWrong => "assertion_algorithm_wrong",
        /// Its key is not in the client's JWK Set, or not named, or none for this algorithm.
        AssertionKeyUnknown => "assertion_key_unknown",
        /// Its signature does not hold.
        AssertionSignatureInvalid => "assertion_signature_invalid",
        /// Its claims cannot be read.
        AssertionClaimsMalformed => "assertion_claims_malformed",
        /// `iss` is not the client.
        AssertionIssuerWrong => "assertion_issuer_wrong",
        /// `sub` is not the client.
        AssertionSubjectWrong => "assertion_subject_wrong",
        /// `aud` is not this server's issuer identifier as one string.
        AssertionAudienceWrong => "assertion_audience_wrong",
        /// No `exp`.
        AssertionExpiryMissing => "assertion_expiry_missing",
        /// `exp` has passed.
        AssertionExpired => "assertion_expired",
        /// `exp` is too far ahead.
        AssertionLivesTooLong => "assertion_lives_too_long",
        /// `iat` lies ahead.
        AssertionFromTheFuture => "assertion_from_the_future",
        /// `nbf` lies ahead.
        AssertionNotYetValid => "assertion_not_yet_valid",
        /// No `jti`.
        AssertionJtiMissing => "assertion_jti_missing",
        /// `jti` is empty, too long or not plain text.
        AssertionJtiMalformed => "assertion_jti_malformed",
        /// It has been used before (RFC 7523 §3, item 7): found when its use is put on record.
        AssertionReplayed => "assertion_replayed",
        /// It may have been used before the store was restored: what was used since the backup is not known any more.
        AssertionOfBeforeRestore => "assertion_of_before_restore",
        /// The client's registered JWK Set cannot be used.
        JwksUnusable => "client_jwks_unusable",
        /// The certificate does not carry the registered name.
        NameMismatch => "certificate_name_mismatch",
        /// The certificate is in no `x5c` of the client's JWK Set.
        CertificateNotInJwks => "certificate_not_in_jwks",
        /// The certificate was not enrolled beforehand, and this client's have to be.
        CertificateNotEnrolled => "certificate_not_enrolled",
        /// Another DER of an enrolled certificate: same issuer key and serial number.
        CertificateTwin => "certificate_twin",
        /// What is on record of the certificate is not what it says: another key, serial number or issuer.
        CertificateRecordWrong => "certificate_record_wrong",
        /// The assertion came under another `client_assertion_type` than its client's method goes with.
        AssertionKindWrong => "assertion_kind_wrong",
        /// The header of a JWT-SVID has a member that it must not have.
        AssertionHeaderForeign => "assertion_header_foreign",
        /// The trust domain of the registered SPIFFE ID is not granted to the client's participant, or no longer vouches.
        TrustDomainUnknown => "trust_domain_unknown",
    }
}

/// What authentication rests on besides the records.
#[derive(Debug)]
pub struct Context<'a> {
    /// This server's issuer identifier: what an assertion's `aud` has to be.
    pub issuer: &'a str,
    /// Where a certificate that is seen for the first time is put on record.
    pub registry: &'a Registry,
    /// The clients' JWK Sets, parsed.
    pub keys: &'a RegisteredKeys,
    /// What counts the request for the client it proves; none where it is counted already.
    pub rates: Option<&'a Rates>,
}

/// A client that proved itself. Made by [`authenticate`] alone.
#[derive(Debug)]
pub struct AuthenticatedClient {
    client: FoundClient,
    peer: VerifiedPeer,
    assertion: Option<UsedAssertion>,
    is_first_seen: bool,
}

impl AuthenticatedClient {
    /// The client's record, with the certificate in it.
    pub const fn client(&self) -> &FoundClient {
        &self.client
    }

    /// The certificate on the connection.
    pub const fn peer(&self) -> &VerifiedPeer {
        &self.peer
    }

    /// Whether its certificate was put on record just now.
    pub const fn is_first_seen(&self) -> bool {
        self.is_first_seen
    }

    /// The assertion, still to be used up: with the audit record of the decision, last of all.
    pub const fn assertion(&self) -> Option<&UsedAssertion> {
        self.assertion.as_ref()
    }
}

/// Whether the caller is `client`, by the method of its registration and no other.
///
/// # Errors
/// A [`ClientAuthRefusal`]; that the client it proves has to wait ([`RateRefusal`](crate::rates::RateRefusal)); or why the
/// certificate could not be put on record ([`SightingRefusal`](crate::registry::SightingRefusal)).
pub async fn authenticate(
    client: FoundClient,
    peer: VerifiedPeer,
    assertion: Option<&ClientAssertion>,
    context: &Context<'_>,
    now: UnixTime,
) -> Result<AuthenticatedClient, Refusal> {
    let remembered_from = context.registry.epoch_begun(now);
    let assertion = check_assertion(&client.record, assertion, context.issuer, context.keys, remembered_from, now)?;
    let sighting = examine(&client.record, &peer, context.keys)?;
    // The proof is complete: from here on it is the client's own request, and what it may cost is bounded before it costs the
    // store anything. A client that shows ever new certificates is one client.
    if let Some(rates) = context.rates {
        rates.count_client(&client.record.client)?;
    }
    context.registry.note_seen(*peer.thumbprint(), now);
    let is_first_seen = sighting.is_some();
    let client = match sighting {
        None => client,
        Some(sighting) => context.registry.sighted(&client, &sighting, now).await?,
    };
    Ok(AuthenticatedClient { client, peer, assertion, is_first_seen })
}

/// The certificate's part of the proof alone, and what is to be put on record of it: nothing, where it is there already.
/// Puts nothing on record and proves nothing by itself: an assertion that is asked for may still be missing.
///
/// # Errors
/// A [`ClientAuthRefusal`].
pub fn examine(
    record: &ClientRecord,
    peer: &VerifiedPeer,
    keys: &RegisteredKeys,
) -> Result<Option<Sighting>, ClientAuthRefusal> {
    check_certificate(record, peer, keys)?;
    enrolment(record, peer)
}

/// RFC 8705 §2: the method is the registered one. What else the request brings neither helps nor is passed over.
fn check_assertion(
    record: &ClientRecord,
    assertion: Option<&ClientAssertion>,
    issuer: &str,
    keys: &RegisteredKeys,
    remembered_from: UnixTime,
    now: UnixTime,
) -> Result<Option<UsedAssertion>, ClientAuthRefusal> {
    match (&record.client.authentication, assertion) {
        (
            ClientAuthentication::TlsClientAuth { .. }
            | ClientAuthentication::SelfSignedTlsClientAuth { .. }
            | ClientAuthentication::SpiffeX509 { .. },
            None,
        ) => Ok(None),
        (
            ClientAuthentication::TlsClientAuth { .. }
            | ClientAuthentication::SelfSignedTlsClientAuth { .. }
            | ClientAuthentication::SpiffeX509 { .. },
            Some(_),
        ) => Err(ClientAuthRefusal::AssertionUnexpected),
        (ClientAuthentication::PrivateKeyJwt { .. } | ClientAuthentication::SpiffeJwt { .. }, None) => {
            Err(ClientAuthRefusal::AssertionMissing)
        }
        (ClientAuthentication::PrivateKeyJwt { .. }, Some(ClientAssertion::JwtSpiffe(_)))
        | (ClientAuthentication::SpiffeJwt { .. }, Some(ClientAssertion::JwtBearer(_))) => {
            Err(ClientAuthRefusal::AssertionKindWrong)
        }
        (ClientAuthentication::SpiffeJwt { subject }, Some(ClientAssertion::JwtSpiffe(assertion))) => {
            let keys = keys.of_trust_domain(record, subject)?;
            spiffe_jwt::check(assertion, &keys, &subject.canonical, issuer, now)?;
            // Reusable by design (JWT-SVID §7.1): nothing is used up.
            Ok(None)
        }
        (ClientAuthentication::PrivateKeyJwt { signing_alg, .. }, Some(ClientAssertion::JwtBearer(assertion))) => {
            let client_id = &record.client.id;
            private_key_jwt::check(assertion, &*keys.of(record)?, *signing_alg, client_id, issuer, remembered_from, now)
                .map(Some)
        }
    }
}

/// Whether the certificate is the client's, by the registered method.
fn check_certificate(
    record: &ClientRecord,
    peer: &VerifiedPeer,
    keys: &RegisteredKeys,
) -> Result<(), ClientAuthRefusal> {
    match &record.client.authentication {
        ClientAuthentication::TlsClientAuth { subject } => tls_client_auth::check(subject, peer),
        ClientAuthentication::SelfSignedTlsClientAuth { .. } => {
            self_signed_tls_client_auth::check(&*keys.of(record)?, peer)
        }
        ClientAuthentication::SpiffeX509 { subject } => spiffe_x509::check(subject, peer),
        // Design §3: the token is bound all the same, to a certificate that is enrolled or carries the registered name. One that
        // was enrolled on an anchor's word was so under a name, which may be another one by now.
        ClientAuthentication::PrivateKeyJwt { .. } | ClientAuthentication::SpiffeJwt { .. }
            if *peer.standing() == Standing::Registered =>
        {
            Ok(())
        }
        ClientAuthentication::SpiffeJwt { subject } => spiffe_x509::check(subject, peer),
        ClientAuthentication::PrivateKeyJwt { subject: Some(subject), .. } => tls_client_auth::check(subject, peer),
        // Without a name there is none that could be another.
        ClientAuthentication::PrivateKeyJwt { subject: None, .. } => {
            record.certificate(peer.thumbprint()).map(drop).ok_or(ClientAuthRefusal::NameMismatch)
        }
    }
}

/// Whether the certificate has to be put on record, by the client's enrolment policy (design §3).
fn enrolment(record: &ClientRecord, peer: &VerifiedPeer) -> Result<Option<Sighting>, ClientAuthRefusal> {
    match record.certificate(peer.thumbprint()) {
        // Keys are revoked by what is on record (design §3). An import takes an operator's word for it (docs/registry-import.md).
        Some(certificate) if !is_of(certificate, peer) => return Err(ClientAuthRefusal::CertificateRecordWrong),
        Some(certificate) if certificate.state == CertificateState::Announced => {}
        // What its state means is admission's business.
        Some(_) => return Ok(None),
        None => {
            // An ECDSA signature can be rewritten into another valid DER: the same certificate under another thumbprint.
            let twin = peer
                .issuer_key()
                .and_then(|issuer| record.certificate_by_serial(issuer, peer.serial(), peer.key_hash()));
            if twin.is_some() {
                return Err(ClientAuthRefusal::CertificateTwin);
            }
            match record.client.enrolment {
                Enrolment::OnFirstUse => {}
                Enrolment::Required => return Err(ClientAuthRefusal::CertificateNotEnrolled),
            }
        }
    }
    let facts = peer.leaf().for_enrolment();
    Ok(Some(Sighting {
        // Of a certificate that is registered itself no path is known.
        issuer_key: peer.issuer_key().copied(),
        thumbprint: facts.thumbprint,
        key_hash: facts.key_hash,
        serial: facts.serial,
        subject: facts.subject,
        subject_alt_names: facts.subject_alt_names,
        not_before: facts.not_before,
        not_after: facts.not_after,
        anchor: peer.anchor().cloned(),
        issuers: peer.issuers(),
    }))
}

/// Whether what is on record of a certificate is so, as far as it can be told by looking at it and at who has signed it.
fn is_of(certificate: &Certificate, peer: &VerifiedPeer) -> bool {
    let is_issued_by = |own: &KeyHash| peer.issuer_key().is_none_or(|issuer| issuer == own);
    certificate.key_hash == *peer.key_hash()
        && certificate.serial == peer.serial()
        && certificate.issuer_key.as_ref().is_none_or(is_issued_by)
}

/// The clients' registered JWK Sets, parsed once and not for each request. Bounded.
#[derive(Debug)]
pub struct RegisteredKeys {
    /// By their text: a client and a version do not say which it is, where another history has the same ones.
    parsed: moka::sync::Cache<String, Arc<KeySet>>,
    /// JWT authorities by the anchors they were read from, which change with the bundle.
    of_trust_domains: moka::sync::Cache<(AnchorSetId, AnchorId), Arc<KeySet>>,
}

/// How many trust domains' keys are remembered: each some kilobytes.
const REMEMBERED_TRUST_DOMAINS: u64 = 1024;

/// What all remembered JWK Sets may take, counted by the length of their text.
const REMEMBERED_JWKS_BYTES: u64 = 8 * 1024 * 1024;

impl RegisteredKeys {
    /// None yet.
    pub fn new() -> Self {
        Self {
            parsed: moka::sync::Cache::builder()
                .max_capacity(REMEMBERED_JWKS_BYTES)
                .weigher(|jwks: &String, keys: &Arc<KeySet>| {
                    let octets = |key: &Arc<countersign_resource_server::token::jwks::PublicKey>| {
                        512 + 3 * key.spki().len() + key.x5c().iter().map(Vec::len).sum::<usize>()
                    };
                    let parsed = keys.keys().iter().map(octets).sum::<usize>();
                    u32::try_from(jwks.len() + parsed).unwrap_or(u32::MAX)
                })
                .build(),
            of_trust_domains: moka::sync::Cache::new(REMEMBERED_TRUST_DOMAINS),
        }
    }

    /// The JWT authorities of the trust domain that the registered SPIFFE ID resides in, if it vouches for this client's
    /// participant, and for this id.
    fn of_trust_domain(&self, record: &ClientRecord, subject: &SubjectRule) -> Result<Arc<KeySet>, ClientAuthRefusal> {
        let id = SpiffeId::parse(&subject.canonical).map_err(|_| ClientAuthRefusal::TrustDomainUnknown)?;
        let found = record.anchors.iter().find_map(|granted| match &granted.anchor.material {
            AnchorMaterial::TrustDomain { trust_domain, bundle, .. } if id.is_of(trust_domain) => {
                Some((granted, trust_domain, bundle))
            }
            AnchorMaterial::TrustDomain { .. } | AnchorMaterial::X509 { .. } => None,
        });
        let (granted, trust_domain, bundle) = found.ok_or(ClientAuthRefusal::TrustDomainUnknown)?;
        let space = &granted.name_space;
        let vouches = space.any || Names::is_under_a_prefix(id.as_str(), space);
        if granted.anchor.state != AnchorState::Active || !vouches {
            return Err(ClientAuthRefusal::TrustDomainUnknown);
        }
        let key = (record.anchor_set, granted.anchor.id.clone());
        if let Some(keys) = self.of_trust_domains.get(&key) {
            return Ok(keys);
        }
        let bundle = Bundle::parse(bundle.as_bytes(), trust_domain).map_err(|reason| {
            tracing::warn!(anchor.id = %granted.anchor.id, %reason, "bundle unusable");
            ClientAuthRefusal::TrustDomainUnknown
        })?;
        let keys = Arc::new(bundle.jwt_authorities);
        self.of_trust_domains.insert(key, Arc::clone(&keys));
        Ok(keys)
    }

    fn of(&self, record: &ClientRecord) -> Result<Arc<KeySet>, ClientAuthRefusal> {
        let jwks = record.client.authentication.jwks().ok_or(ClientAuthRefusal::JwksUnusable)?;
        if let Some(keys) = self.parsed.get(jwks) {
            return Ok(keys);
        }
        let keys = Arc::new(KeySet::parse(jwks.as_bytes()).map_err(|reason| {
            tracing::warn!(client.id = %record.client.id, %reason, "registered JWK Set unusable");
            ClientAuthRefusal::JwksUnusable
        })?);
        self.parsed.insert(jwks.to_owned(), Arc::clone(&keys));
        Ok(keys)
    }
}

impl Default for RegisteredKeys {
    fn default() -> Self {
        Self::new()
    }
}
