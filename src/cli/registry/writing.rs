//! A record as the line that enters it again.

use serde_json::value::to_raw_value;

use super::super::session::Failure;
use super::line::{
    AnchorLine, CertificateLine, CertificateStateLine, ClientLine, EntitlementLine, GrantLine, Instant, IssuerLine,
    Line, MethodLine, ParticipantLine, ResourceServerLine, RevokedKeyLine, SubjectLine, TrustDomainLine,
};
use crate::pki::spiffe::SpiffeId;
use crate::registry::certificate::{Certificate, CertificateState};
use crate::registry::client::{Client, ClientAuthentication, SubjectAttribute, SubjectRule};
use crate::registry::import::Entry;
use crate::registry::resource_server::StatusClaim;
use crate::registry::trust_anchor::{AnchorMaterial, AnchorOwner, BundleEndpoint, TrustAnchor};

/// The line of a record.
///
/// # Errors
/// The record is none that this release writes.
pub(super) fn line(entry: Entry) -> Result<Line, Failure> {
    Ok(match entry {
        Entry::Participant(participant) => Line::Participant(ParticipantLine {
            id: participant.id,
            legal_name: participant.legal_name,
            registration_number: participant.registration_number,
            country: participant.country,
            roles: participant.roles,
            contacts: participant.contacts.into(),
            state: participant.state,
        }),
        Entry::Anchor { anchor, .. } => anchor_line(anchor)?,
        Entry::Grant(grant) => Line::Grant(GrantLine {
            participant_id: grant.participant_id,
            anchor_id: grant.anchor_id,
            any: grant.name_space.any,
            dn_suffixes: grant.name_space.dn_suffixes,
            dns_suffixes: grant.name_space.dns_suffixes,
            uri_prefixes: grant.name_space.uri_prefixes,
        }),
        Entry::ResourceServer(server) => Line::ResourceServer(ResourceServerLine {
            id: server.id,
            resource: server.resource,
            scopes: server.scopes,
            owner: server.owner,
            access_token_lifetime_seconds: server.access_token_lifetime_seconds,
            subject: server.subject.as_ref().map(names),
            certificates: server.certificates,
            introspection_signed_response_alg: server.introspection_signed_response_alg,
            status_list: server.status == StatusClaim::StatusList,
            state: server.state,
        }),
        Entry::Client(client, _) => client_line(*client)?,
        Entry::Certificate(certificate) => Line::Certificate(Box::new(certificate_line(*certificate))),
        Entry::Entitlement(entitlement) => Line::Entitlement(EntitlementLine {
            id: Some(entitlement.id),
            client_id: entitlement.client_id,
            resource_server_id: entitlement.resource_server_id,
            scopes: entitlement.scopes,
            reason: entitlement.reason,
            starts_at: Some(Instant(entitlement.starts_at)),
            ends_at: entitlement.ends_at.map(Instant),
            ended_at: entitlement.ended_at.map(Instant),
        }),
        Entry::RevokedKey(key) => Line::RevokedKey(RevokedKeyLine {
            key_hash: key.key_hash,
            revoked_at: Some(Instant(key.revoked_at)),
            reason: key.reason,
        }),
    })
}

fn anchor_line(anchor: TrustAnchor) -> Result<Line, Failure> {
    let owner = match anchor.owner {
        AnchorOwner::Operator => None,
        AnchorOwner::Participant(owner) => Some(owner),
    };
    let revocation = if anchor.revocation.is_empty() { None } else { Some(to_raw_value(&anchor.revocation)?) };
    let unknown_revocation = Some(anchor.unknown_revocation);
    Ok(match anchor.material {
        AnchorMaterial::X509 { certificate_der } => Line::Anchor(AnchorLine {
            der: certificate_der,
            owner,
            eku_policy: anchor.eku_policy,
            unknown_revocation,
            revocation,
            grants: Vec::new(),
            state: anchor.state,
        }),
        AnchorMaterial::TrustDomain { trust_domain, endpoint, bundle } => Line::TrustDomain(TrustDomainLine {
            trust_domain,
            bundle,
            endpoint: if endpoint == BundleEndpoint::File { None } else { Some(to_raw_value(&endpoint)?) },
            owner,
            eku_policy: anchor.eku_policy,
            unknown_revocation,
            revocation,
            grants: Vec::new(),
            state: anchor.state,
        }),
    })
}

fn names(rule: &SubjectRule) -> SubjectLine {
    let mut names = SubjectLine::default();
    let name = match rule.attribute {
        SubjectAttribute::TlsClientAuthSubjectDn => &mut names.tls_client_auth_subject_dn,
        SubjectAttribute::TlsClientAuthSanDns => &mut names.tls_client_auth_san_dns,
        SubjectAttribute::TlsClientAuthSanUri => &mut names.tls_client_auth_san_uri,
        SubjectAttribute::TlsClientAuthSanIp => &mut names.tls_client_auth_san_ip,
        SubjectAttribute::TlsClientAuthSanEmail => &mut names.tls_client_auth_san_email,
    };
    *name = Some(rule.value.clone());
    names
}

fn client_line(client: Client) -> Result<Line, Failure> {
    let text = |jwks: &String| to_raw_value(jwks).map(Some);
    let (method, subject, spiffe_id, jwks, signing_alg) = match &client.authentication {
        ClientAuthentication::TlsClientAuth { subject } => (MethodLine::TlsClientAuth, Some(subject), None, None, None),
        ClientAuthentication::SelfSignedTlsClientAuth { jwks } => {
            (MethodLine::SelfSignedTlsClientAuth, None, None, text(jwks)?, None)
        }
        ClientAuthentication::PrivateKeyJwt { jwks, signing_alg, subject } => {
            (MethodLine::PrivateKeyJwt, subject.as_ref(), None, text(jwks)?, Some(*signing_alg))
        }
        ClientAuthentication::SpiffeX509 { subject } => {
            (MethodLine::SpiffeX509, None, Some(SpiffeId::parse(&subject.value)?), None, None)
        }
        ClientAuthentication::SpiffeJwt { subject } => {
            (MethodLine::SpiffeJwt, None, Some(SpiffeId::parse(&subject.value)?), None, None)
        }
    };
    let names = subject.map(names).unwrap_or_default();
    Ok(Line::Client(Box::new(ClientLine {
        id: client.id,
        participant_id: client.participant_id,
        token_endpoint_auth_method: method,
        tls_client_auth_subject_dn: names.tls_client_auth_subject_dn,
        tls_client_auth_san_dns: names.tls_client_auth_san_dns,
        tls_client_auth_san_uri: names.tls_client_auth_san_uri,
        tls_client_auth_san_ip: names.tls_client_auth_san_ip,
        tls_client_auth_san_email: names.tls_client_auth_san_email,
        spiffe_id,
        jwks,
        token_endpoint_auth_signing_alg: signing_alg,
        environment: Some(client.environment),
        access_token_signing_alg: client.access_token_signing_alg,
        access_token_lifetime_seconds: client.access_token_lifetime_seconds,
        enrolment: client.enrolment,
        renewal_overlap_seconds: client.renewal_overlap_seconds,
        requests_per_second: client.requests_per_second.map(std::num::NonZeroU32::get),
        contact: client.contact,
        software_id: client.software_id,
        certificates_follow: method == MethodLine::SelfSignedTlsClientAuth,
        state: client.state,
    })))
}

fn certificate_line(certificate: Certificate) -> CertificateLine {
    let (state, state_at, reason) = match certificate.state {
        CertificateState::Announced => (CertificateStateLine::Announced, None, None),
        CertificateState::Active => (CertificateStateLine::Active, None, None),
        CertificateState::Superseded { at } => (CertificateStateLine::Superseded, Some(Instant(at)), None),
        CertificateState::Revoked { at, reason } => (CertificateStateLine::Revoked, Some(Instant(at)), Some(reason)),
    };
    let issuer = |issuer: crate::registry::PathIssuer| IssuerLine {
        key_hash: issuer.key_hash,
        issuer_key: issuer.issuer_key,
        serial: issuer.serial,
        not_after: Instant(issuer.not_after),
    };
    CertificateLine {
        client_id: certificate.client_id,
        der: None,
        thumbprint: Some(certificate.thumbprint),
        key_hash: Some(certificate.key_hash),
        issuer_key: certificate.issuer_key,
        serial: Some(certificate.serial),
        subject: Some(certificate.subject),
        subject_alt_names: certificate.subject_alt_names,
        not_before: Some(Instant(certificate.not_before)),
        not_after: Some(Instant(certificate.not_after)),
        anchor: certificate.anchor,
        issuers: certificate.issuers.into_iter().map(issuer).collect(),
        state,
        state_at,
        reason,
        announced_at: certificate.announced_at.map(Instant),
        replaces: certificate.replaces.map(Into::into),
        first_seen: certificate.first_seen.map(Instant),
        last_seen: certificate.last_seen.map(Instant),
    }
}
