//! What to do about a refusal, and who has to do it.
//!
//! Takes a refusal, gives one text. Every `match` here is without `_`: a reason that nobody can act on does not compile.
//! `docs/advice.md` is the same list, held against this file by a test.

use serde::Serialize;

use crate::admission::AdmissionRefusal;
use crate::audit::AuditUnavailable;
use crate::client_auth::ClientAuthRefusal;
use crate::error::Refusal;
use crate::introspection::IntrospectionRefusal;
use crate::mint::MintRefusal;
use crate::pki::PeerRefusal;
use crate::policy::PolicyRefusal;
use crate::rates::RateRefusal;
use crate::registry::{LookupRefusal, SightingRefusal};
use crate::request::RequestRefusal;
use crate::revocation::RevocationRefusal;
use crate::tls::HandshakeRefusal;

/// What to do, and whose turn it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Advice {
    /// Who can do it.
    #[serde(rename = "for")]
    pub whose: Whose,
    /// What, in words.
    pub text: &'static str,
}

/// Whose turn it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Whose {
    /// The CA that issues the partner's certificates.
    Authority,
    /// The operator of this server.
    Operator,
    /// The partner's engineer.
    Partner,
}

impl Whose {
    /// For lists.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Authority => "authority",
            Self::Operator => "operator",
            Self::Partner => "partner",
        }
    }
}

const fn authority(text: &'static str) -> Advice {
    Advice { whose: Whose::Authority, text }
}

const fn operator(text: &'static str) -> Advice {
    Advice { whose: Whose::Operator, text }
}

const fn partner(text: &'static str) -> Advice {
    Advice { whose: Whose::Partner, text }
}

/// What to do about a refusal of any stage.
pub const fn on(refusal: &Refusal) -> Advice {
    match refusal {
        Refusal::Request(refusal) => on_request(refusal),
        Refusal::Lookup(refusal) => on_lookup(refusal),
        Refusal::Peer(refusal) => on_peer(refusal),
        Refusal::ClientAuth(refusal) => on_client_auth(refusal),
        Refusal::Sighting(refusal) => on_sighting(refusal),
        Refusal::Rate(refusal) => on_rate(refusal),
        Refusal::Admission(refusal) => on_admission(refusal),
        Refusal::Policy(refusal) => on_policy(refusal),
        Refusal::Mint(refusal) => on_mint(refusal),
        Refusal::Revocation(refusal) => on_revocation(refusal),
        Refusal::Introspection(refusal) => on_introspection(refusal),
        Refusal::Audit(refusal) => on_audit(refusal),
    }
}

/// About a handshake that failed: told by the operator, who alone sees it.
pub const fn on_handshake(refusal: &HandshakeRefusal) -> Advice {
    match refusal {
        HandshakeRefusal::PerimeterClosed => operator(
            "Enrol the certificate, or register its name with a client that enrols on first use; or leave the perimeter open (perimeter = json), so that partners are told where they stand.",
        ),
        HandshakeRefusal::CertificateMalformed => {
            authority("Issue a certificate in strict DER: what was sent first is none that can be read.")
        }
        HandshakeRefusal::ChainTooLong => {
            partner("Send the certificate and the CAs between it and the enrolled one, four at most, and nothing else.")
        }
        HandshakeRefusal::ChainTooLarge => partner(
            "Send the certificate and its issuers only: all of them together have 16 KB at most. Leave the root out.",
        ),
        HandshakeRefusal::KeyNotAccepted => partner(
            "Make a new key of RSA 2048 to 4096 bits, P-256, P-384, P-521 or Ed25519, and have a certificate issued for it.",
        ),
        HandshakeRefusal::PossessionNotProven => partner(
            "Configure the private key that belongs to the certificate: the one that is used signs for another.",
        ),
        HandshakeRefusal::NoSharedVersion => partner("Let the client speak TLS 1.3, or 1.2 at least."),
        HandshakeRefusal::NoSharedParameters => partner(
            "Let the client offer the cipher suites of RFC 9325 section 4.2, with P-256 or X25519, extended master secret, and http/1.1 or h2.",
        ),
        HandshakeRefusal::NotTls => partner("Use https: this port speaks TLS only."),
        HandshakeRefusal::AlertReceived => {
            partner("Let the client trust the CA of this server's certificate, and use the name that is in it.")
        }
        HandshakeRefusal::ProtocolViolated => {
            partner("Look for something between client and server that changes TLS, or use another TLS library.")
        }
        HandshakeRefusal::Disconnected => {
            partner("Look why the client, or something on the way, hung up in the handshake.")
        }
        HandshakeRefusal::TimedOut => {
            partner("Look for packet loss on the way, or for a client that waits in the handshake.")
        }
        HandshakeRefusal::AddressLimit => {
            partner("Keep connections open and use them again, instead of opening one for each request.")
        }
        HandshakeRefusal::ConnectionLimit => operator("Raise limits.connections, or add a node: this one is full."),
        HandshakeRefusal::NoTurn => {
            operator("Somebody floods this node with handshakes: see which address, or raise limits.handshakes.")
        }
        HandshakeRefusal::Failed => operator("Look into the server's log: TLS failed on its own side."),
    }
}

const fn on_request(refusal: &RequestRefusal) -> Advice {
    match refusal {
        RequestRefusal::MethodNotAllowed => partner("Use a method that the Allow header of the answer names."),
        RequestRefusal::UnsupportedMediaType => {
            partner("Send the parameters as application/x-www-form-urlencoded, in UTF-8 and without a content coding.")
        }
        RequestRefusal::NotAcceptable => {
            partner("Ask for application/statuslist+jwt, or leave the Accept header out: no other form is served here.")
        }
        RequestRefusal::HistoryNotOffered => {
            partner("Leave the parameter time out: a status list is served as it is now.")
        }
        RequestRefusal::BodyTooLarge => {
            partner("Send the parameters only: the body has 16 KB at most unless configured otherwise.")
        }
        RequestRefusal::BodyIncomplete => {
            partner("Send the whole body, as long as Content-Length says, without a pause.")
        }
        RequestRefusal::HostMalformed => partner("Send one Host header with the name of this server."),
        RequestRefusal::ParameterInQuery => partner("Move the parameters from the URL into the body."),
        RequestRefusal::ParameterMalformed => {
            partner("Correct the parameter in the query: it is not what it has to be.")
        }
        RequestRefusal::BodyMalformed => {
            partner("Encode the form by RFC 6749 appendix B: UTF-8, percent signs followed by two hexadecimal digits.")
        }
        RequestRefusal::TooManyRequests { .. } => partner("Wait as long as Retry-After says, then try again."),
        RequestRefusal::BodiesTooLarge => {
            partner("Send fewer bodies at one time on a connection, or on more connections.")
        }
        RequestRefusal::Overloaded => partner("Wait as long as Retry-After says, then try again."),
        RequestRefusal::UnknownPath => {
            partner("Take the URL from the server's metadata: there is nothing at this path.")
        }
        RequestRefusal::ParameterRepeated { .. } => partner("Send each parameter once."),
        RequestRefusal::GrantTypeMissing => partner("Send grant_type=client_credentials."),
        RequestRefusal::AuthorizationHeader => partner(
            "Leave the Authorization header out: a client authenticates by its certificate, or by client_assertion.",
        ),
        RequestRefusal::ClientIdMissing => partner("Send the client_id you were given at enrolment."),
        RequestRefusal::ClientIdMalformed => partner("Send the client_id exactly as you were given it."),
        RequestRefusal::ClientSecretPresented => {
            partner("Leave client_secret out, and treat what was sent as known to others: no client here has a secret.")
        }
        RequestRefusal::TwoAuthenticationMethods => partner("Use the one method you are registered for."),
        RequestRefusal::AssertionTypeMalformed => partner(
            "Send client_assertion together with client_assertion_type=urn:ietf:params:oauth:client-assertion-type:jwt-bearer.",
        ),
        RequestRefusal::AssertionMalformed => {
            partner("Send the assertion as a compact JWS whose sub claim is your client_id.")
        }
        RequestRefusal::ClientIdContradicted => {
            partner("Let client_id and the assertion's sub be the same, or leave client_id out.")
        }
        RequestRefusal::TokenMissing => partner("Send the token as the parameter token, in the body."),
    }
}

const fn on_lookup(refusal: &LookupRefusal) -> Advice {
    match refusal {
        LookupRefusal::ClientUnknown => {
            partner("Check client_id, and that this is the server it was given for: sandbox and production are two.")
        }
        LookupRefusal::RegistryUnavailable => {
            operator("Look into the server's log: the registry's database does not answer, or a record cannot be read.")
        }
    }
}

const fn on_peer(refusal: &PeerRefusal) -> Advice {
    match refusal {
        PeerRefusal::NoCertificate => partner(
            "Configure certificate and key in the client (curl: --cert and --key). If they are: something between client and server ends TLS; go round it.",
        ),
        PeerRefusal::Malformed => {
            authority("Issue the certificate anew in strict DER, with an issuer name and each extension once.")
        }
        PeerRefusal::VersionUnsupported => authority(
            "Issue an X.509 version 3 certificate. (Versions 1 and 2 are taken only where the certificate itself is registered.)",
        ),
        PeerRefusal::KeyTooWeak => partner(
            "Make a new key of RSA 2048 to 4096 bits, P-256, P-384, P-521 or Ed25519, and have a certificate issued for it.",
        ),
        PeerRefusal::IsAuthority => authority(
            "Issue an end-entity certificate: basic constraints without CA:TRUE, no name constraints, key usage without keyCertSign. If this one is a CA's: use the client's own.",
        ),
        PeerRefusal::KeyUsageForbids => authority("Issue the certificate with digitalSignature in its key usage."),
        PeerRefusal::PurposeMissing => authority(
            "Issue the certificate with clientAuth in its extended key usage; the CAs above it must not exclude it. Many public CAs no longer do: then use a private one.",
        ),
        PeerRefusal::CriticalExtensionUnknown => {
            authority("Issue certificates without that extension, or with it marked as not critical.")
        }
        PeerRefusal::NameMalformed => authority(
            "Issue the certificate with names that can be read in one way: strings of their type, no control or invisible characters, nothing twice in one relative name.",
        ),
        PeerRefusal::SpiffeIdAmbiguous => {
            authority("Issue the certificate with one URI in all, if that is a SPIFFE ID.")
        }
        PeerRefusal::NotYetValid => partner(
            "Use the certificate from the first second of its validity on. If that has come: correct the clock of whoever issued it.",
        ),
        PeerRefusal::Expired => {
            partner("Renew the certificate, and use the new one: the same name, a new serial number.")
        }
        PeerRefusal::NotRegistered => partner(
            "Use the certificate that is registered for this client; if it was replaced, have the operator register the new one first.",
        ),
        PeerRefusal::IssuerUnknown => partner(
            "Send every CA between the certificate and the enrolled one along with it. If they are all sent: have the operator enrol the CA that issued it.",
        ),
        PeerRefusal::AnchorRetired => partner("Use a certificate of a CA that is enrolled now: this one was retired."),
        PeerRefusal::AnchorOutOfDate => operator("Enrol the CA's new certificate: the enrolled one is not in date."),
        PeerRefusal::IssuerOutOfDate => partner(
            "Send the CA's current certificate along: the one that is sent between leaf and root is not in date.",
        ),
        PeerRefusal::IssuerNotAuthority => authority(
            "Let certificates be issued by a CA's certificate: basic constraints CA:TRUE, key usage keyCertSign.",
        ),
        PeerRefusal::IssuerKeyTooWeak => authority("Issue from a CA whose key is of RSA 2048 bits or P-256 at least."),
        PeerRefusal::SignatureInvalid => partner(
            "Send the CA's certificate that really signed this one: the enrolled or the sent CA has the same name but another key. SHA-1 and RSA below 2048 bits are not taken either.",
        ),
        PeerRefusal::NameConstraintViolated => {
            authority("Issue from a CA whose name constraints permit the names in the certificate.")
        }
        PeerRefusal::OutsideNameSpace { .. } => authority(
            "Issue the certificate with no other names than were agreed. If the name is right, the operator can widen what this CA may vouch for.",
        ),
        PeerRefusal::PathTooLong => {
            authority("Issue from a CA that is allowed so many CAs below it (pathLenConstraint).")
        }
        PeerRefusal::PathTooComplex => partner(
            "Send the certificate and its issuers only, each once: finding a path among those sent took too much work.",
        ),
        PeerRefusal::Revoked { .. } => partner(
            "Use another certificate, with a new key if this one's may be in other hands: its CA has revoked it.",
        ),
        PeerRefusal::IssuerRevoked => authority(
            "Issue from a CA whose own certificate stands: one between this certificate and the enrolled CA is revoked or on hold.",
        ),
        PeerRefusal::OnHold => authority(
            "Take the certificate off hold and publish a new revocation list, or revoke it and issue another.",
        ),
        PeerRefusal::SpiffeIdMissing => authority(
            "Issue an X509-SVID: one URI among the subject alternative names, and that the SPIFFE ID this client is registered under.",
        ),
        PeerRefusal::SpiffeIdMalformed => authority(
            "Write the SPIFFE ID as spiffe://trust-domain/path: lower case, no port, no query, no empty or dot segments, and a path for a workload.",
        ),
        PeerRefusal::SvidExtensionWrong => authority(
            "Issue the SVID with a critical key usage of digitalSignature, and with critical subject alternative names where it has no subject.",
        ),
        PeerRefusal::TrustDomainUnknown => operator(
            "Enrol the trust domain of this SPIFFE ID for the client's participant (trust-domain add), if it is the right one.",
        ),
        PeerRefusal::IssuerSpiffeIdWrong => {
            authority("Let signing certificates carry no SPIFFE ID, or that of the same trust domain without a path.")
        }
        PeerRefusal::RevocationUnknown { .. } => operator(
            "Look at the revocation sources of its anchor (anchor check-revocation): the CA's list is missing, past its nextUpdate or not about this certificate, or its responder does not answer. Often it is the CA that has to publish anew.",
        ),
    }
}

const fn on_client_auth(refusal: &ClientAuthRefusal) -> Advice {
    match refusal {
        ClientAuthRefusal::AssertionUnexpected => {
            partner("Leave client_assertion out: this client authenticates by its certificate.")
        }
        ClientAuthRefusal::AssertionMissing => partner(
            "Send a client_assertion: this client is registered for private_key_jwt, and its certificate does not stand in for it.",
        ),
        ClientAuthRefusal::AssertionUnreadable => {
            partner("Send the assertion as a compact JWS, with a header that names no extension in crit.")
        }
        ClientAuthRefusal::AssertionTypeWrong => {
            partner("Let typ be client-authentication+jwt or JWT, or leave it out.")
        }
        ClientAuthRefusal::AssertionAlgorithmWrong => {
            partner("Sign the assertion with the algorithm that is registered for this client.")
        }
        ClientAuthRefusal::AssertionKeyUnknown => partner(
            "Name in kid the registered key that signs. If the key is new: have the operator register it first.",
        ),
        ClientAuthRefusal::AssertionSignatureInvalid => {
            partner("Sign with the private key whose public half is registered under this kid.")
        }
        ClientAuthRefusal::AssertionClaimsMalformed => {
            partner("Let the claims be one JSON object, each member once, dates as numbers of seconds.")
        }
        ClientAuthRefusal::AssertionIssuerWrong => partner("Let iss be your client_id."),
        ClientAuthRefusal::AssertionSubjectWrong => partner("Let sub be your client_id."),
        ClientAuthRefusal::AssertionAudienceWrong => partner(
            "Let aud be this server's issuer identifier, as one string: not the token endpoint's URL, and no array.",
        ),
        ClientAuthRefusal::AssertionExpiryMissing => partner("Give the assertion an exp."),
        ClientAuthRefusal::AssertionExpired => {
            partner("Make a new assertion for each request; if it was new, set the clock.")
        }
        ClientAuthRefusal::AssertionLivesTooLong => partner("Let exp be at most 600 seconds ahead."),
        ClientAuthRefusal::AssertionFromTheFuture => partner("Set the clock: iat lies ahead of this server's time."),
        ClientAuthRefusal::AssertionNotYetValid => partner("Set the clock: nbf lies ahead of this server's time."),
        ClientAuthRefusal::AssertionJtiMissing => partner("Give each assertion a jti of its own."),
        ClientAuthRefusal::AssertionJtiMalformed => {
            partner("Let jti be a string of 1 to 256 octets without control characters.")
        }
        ClientAuthRefusal::AssertionReplayed => {
            partner("Make a new assertion with a new jti for each request, also for a repeated one.")
        }
        ClientAuthRefusal::AssertionOfBeforeRestore => partner(
            "Make a new assertion, with iat: the server was restored, and one of before that may have been used already. If it was new, set the clock.",
        ),
        ClientAuthRefusal::JwksUnusable => {
            operator("Register the client's JWK Set anew: the one on record cannot be used.")
        }
        ClientAuthRefusal::NameMismatch => partner(
            "Use the certificate that carries the registered name. If this one is right, have the operator register its name.",
        ),
        ClientAuthRefusal::CertificateNotInJwks => {
            operator("Register the client's JWK Set with this certificate as the first in x5c of its key.")
        }
        ClientAuthRefusal::CertificateNotEnrolled => operator(
            "Enrol this certificate (certificate add): each of this client's has to be, before it is first used.",
        ),
        ClientAuthRefusal::AssertionKindWrong => partner(
            "Send the client_assertion_type of the registered method: jwt-bearer for private_key_jwt, jwt-spiffe for spiffe_jwt.",
        ),
        ClientAuthRefusal::AssertionHeaderForeign => {
            partner("Send the JWT-SVID as its issuer made it: its header has alg, kid and typ and nothing else.")
        }
        ClientAuthRefusal::TrustDomainUnknown => operator(
            "Enrol the trust domain of the registered SPIFFE ID for the client's participant (trust-domain add).",
        ),
        ClientAuthRefusal::CertificateRecordWrong => operator(
            "Revoke what is on record of this certificate (certificate revoke): it was imported with another key, serial number or issuer than it has. Then have the client use a new one.",
        ),
        ClientAuthRefusal::CertificateTwin => partner(
            "Use the certificate as its CA issued it: this is another encoding of one that is enrolled. If two were issued with one serial number, the CA has to issue one of them anew.",
        ),
    }
}

const fn on_sighting(refusal: &SightingRefusal) -> Advice {
    match refusal {
        SightingRefusal::CertificateTaken => {
            partner("Have a certificate issued for this client alone: this one is enrolled for another, or for an API.")
        }
        SightingRefusal::LimitReached => operator(
            "Supersede or revoke certificates of this client that are no longer used: it has as many live ones as it may.",
        ),
        SightingRefusal::Required => operator(
            "Enrol this certificate (certificate add): each of this client's has to be, before it is first used.",
        ),
        SightingRefusal::KeyRevoked => {
            partner("Make a new key, not only a new certificate: this one was revoked for good.")
        }
        SightingRefusal::SerialTaken => {
            authority("Issue the certificate anew with a serial number of its own (RFC 5280 section 4.1.2.2).")
        }
        SightingRefusal::ClientUnknown => {
            operator("Look into the registry's history: the client was there a moment ago.")
        }
        SightingRefusal::RegistryUnavailable => {
            operator("Look into the server's log: the registry's database does not answer.")
        }
    }
}

const fn on_admission(refusal: &AdmissionRefusal) -> Advice {
    match refusal {
        AdmissionRefusal::ParticipantPending => {
            operator("Admit the participant (participant activate), once it may take part.")
        }
        AdmissionRefusal::ParticipantSuspended => {
            partner("Ask the operator why your organisation is suspended, and what has to happen.")
        }
        AdmissionRefusal::ParticipantWithdrawn => partner("Ask the operator: your organisation no longer takes part."),
        AdmissionRefusal::ClientPending => operator("Admit the client (client activate), once it may act."),
        AdmissionRefusal::ClientSuspended => {
            partner("Ask the operator why this client is suspended, and what has to happen.")
        }
        AdmissionRefusal::ClientRetired => {
            partner("Use the client that took its place: a retired one does not return.")
        }
        AdmissionRefusal::EnvironmentMismatch => {
            partner("Use this client at the server of its own environment, or another client here.")
        }
        AdmissionRefusal::CertificateNotOnRecord => {
            operator("Look into the audit log and the server's log: a certificate that authenticated is not on record.")
        }
        AdmissionRefusal::CertificateSuperseded { .. } => {
            partner("Use the certificate that replaced this one: their overlap is over.")
        }
        AdmissionRefusal::CertificateRevoked { .. } => partner(
            "Use another certificate, with another key unless the operator says that this one is still good. If nobody in your organisation had it revoked, ask the operator at once.",
        ),
        AdmissionRefusal::AnchorRetired => {
            partner("Use a certificate of a CA that is enrolled now: the one that vouched for this was retired.")
        }
    }
}

const fn on_policy(refusal: &PolicyRefusal) -> Advice {
    match refusal {
        PolicyRefusal::GrantTypeUnsupported => partner("Send grant_type=client_credentials: there is no other here."),
        PolicyRefusal::NoEntitlement => operator("Entitle the client to an API (entitlement add)."),
        PolicyRefusal::EntitlementEnded => operator("Entitle the client anew (entitlement add), if it still may."),
        PolicyRefusal::EntitlementNotStarted => {
            partner("Wait until the entitlement begins, or ask the operator for an earlier date.")
        }
        PolicyRefusal::CertificateEnding => {
            partner("Renew the certificate: it, or a CA above it, ends this very second.")
        }
        PolicyRefusal::EntitlementEnding => {
            operator("Entitle the client anew (entitlement add), if it still may: this one ends this very second.")
        }
        PolicyRefusal::ResourceEntitlementEnded => {
            operator("Entitle the client to this API anew (entitlement add), if it still may.")
        }
        PolicyRefusal::ResourceEntitlementNotStarted => {
            partner("Wait until the entitlement for this API begins, or ask the operator for an earlier date.")
        }
        PolicyRefusal::ResourceSeveral => partner("Ask for one resource at a time: each token is for one API."),
        PolicyRefusal::ResourceNotEntitled => {
            partner("Check the resource, character by character; if it is right, ask the operator for an entitlement.")
        }
        PolicyRefusal::ResourceRetired => partner("Ask the operator which API took its place: this one is retired."),
        PolicyRefusal::EveryResourceRetired => {
            operator("Entitle the client to the APIs that took the place of the retired ones.")
        }
        PolicyRefusal::ResourceAmbiguous => partner("Send resource: the client is entitled to several APIs."),
        PolicyRefusal::ScopeMalformed => {
            partner("Write scope as words separated by single spaces (RFC 6749 section 3.3).")
        }
        PolicyRefusal::ScopeMixed => partner("Ask for the scopes of one API at a time."),
        PolicyRefusal::ScopeNotEntitled => partner(
            "Ask for no more than you are entitled to, or leave scope out to get all of it; for more, ask the operator.",
        ),
    }
}

const fn on_mint(refusal: &MintRefusal) -> Advice {
    match refusal {
        MintRefusal::NoSigningKey { .. } => {
            operator("Make a signing key of the client's algorithm (key rotate), or register another algorithm for it.")
        }
        MintRefusal::KeysNotConfirmed => operator(
            "Look whether the database answers: this node cannot read there whether its signing keys are still the right ones.",
        ),
        MintRefusal::NothingLeft => operator(
            "Raise access_token_lifetime_seconds of the client or the API: what bounds the token leaves it less than a second.",
        ),
        MintRefusal::SigningFailed => operator("Look into the server's log: the signing key would not sign."),
        MintRefusal::StatusIndexUnavailable => {
            operator("Look whether the database answers: tokens for this API need a place in a status list from it.")
        }
    }
}

const fn on_revocation(refusal: &RevocationRefusal) -> Advice {
    match refusal {
        RevocationRefusal::TokenOfAnother => {
            partner("Revoke it as the client it was issued to, or ask the operator to (token revoke --jti).")
        }
        RevocationRefusal::LimitReached => {
            partner("Wait until tokens that were revoked have expired, or ask the operator to suspend the client.")
        }
        RevocationRefusal::MarkUnavailable => {
            partner("Try again: the token may still be good. If it goes on, tell the operator.")
        }
    }
}

const fn on_rate(refusal: &RateRefusal) -> Advice {
    match refusal {
        RateRefusal::ClientExceeded { .. } => partner(
            "Use a token until it expires instead of asking for one each time, and wait as long as Retry-After says; or ask the operator for more (client change --requests-per-second).",
        ),
        RateRefusal::ResourceServerExceeded { .. } => partner(
            "Ask about a token once and remember the answer for a while, or follow the revocation list; and wait as long as Retry-After says.",
        ),
    }
}

const fn on_introspection(refusal: &IntrospectionRefusal) -> Advice {
    match refusal {
        IntrospectionRefusal::NoCertificate => {
            partner("Let the resource server ask with its client certificate: it proves itself by nothing else.")
        }
        IntrospectionRefusal::Malformed => {
            authority("Issue a certificate in strict DER: the one that was presented is none that can be read.")
        }
        IntrospectionRefusal::OutOfDate => partner("Renew the resource server's certificate, or look at the clocks."),
        IntrospectionRefusal::Unknown => {
            operator("Enrol the certificate for the API (resource-server change --certificate), if it is its own.")
        }
        IntrospectionRefusal::IsAClient => {
            partner("Let the resource server have a key and a certificate of its own: this one is a client's.")
        }
        IntrospectionRefusal::KeyRevoked => partner(
            "Make a new key for the resource server and have a certificate issued for it: this one was revoked.",
        ),
        IntrospectionRefusal::StateUnknown => {
            operator("Look into the server's log: what was revoked cannot be read, and no token is told to be good.")
        }
    }
}

const fn on_audit(refusal: &AuditUnavailable) -> Advice {
    match refusal {
        AuditUnavailable::QueueFull => partner("Wait as long as Retry-After says, then try again."),
        AuditUnavailable::Unavailable => operator(
            "Look into the server's log: the audit log cannot be written, and without a record there is no token.",
        ),
        AuditUnavailable::Overtaken => partner("Try again: the registry was being changed."),
    }
}

#[cfg(test)]
mod tests {
    use std::fmt::Write;

    use super::*;
    use crate::error::each_stage;

    const PUBLISHED: &str = include_str!("../../docs/advice.md");

    /// Every reason there is with its advice, in the order of the path.
    fn table() -> Vec<(&'static str, &'static str, Advice)> {
        let mut table: Vec<_> = HandshakeRefusal::one_of_each()
            .iter()
            .map(|refusal| (HandshakeRefusal::STAGE, refusal.reason(), on_handshake(refusal)))
            .collect();
        macro_rules! stages {
            ($($refusal:ident),*) => {
                $(table.extend($refusal::one_of_each().into_iter().map(|refusal| {
                    let refusal = Refusal::from(refusal);
                    (refusal.stage(), refusal.reason(), on(&refusal))
                }));)*
            };
        }
        each_stage!(stages);
        table
    }

    #[test]
    fn the_published_list_is_this_one() {
        let mut expected = String::from("| stage | reason | who | what to do |\n| --- | --- | --- | --- |\n");
        for (stage, reason, advice) in table() {
            writeln!(expected, "| {stage} | `{reason}` | {} | {} |", advice.whose.as_str(), advice.text).unwrap();
        }
        assert!(PUBLISHED.contains(&expected), "docs/advice.md lacks this table:\n{expected}");
    }

    #[test]
    fn every_text_is_a_sentence_that_goes_anywhere() {
        for (_, reason, advice) in table() {
            let text = advice.text;
            assert!(text.len() >= 20 && text.len() <= 240, "{reason}: {}", text.len());
            assert!(
                text.starts_with(|first: char| first.is_ascii_uppercase()) && text.ends_with(['.', ')']),
                "{reason}"
            );
            assert!(text.is_ascii() && !text.contains(['"', '\\', '|']), "{reason}");
        }
    }
}
