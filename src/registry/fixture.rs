//! Records to test with: each stands for itself and would be admitted; break one thing at a time.

use std::sync::Arc;

use countersign_resource_server::scope::Scope;
use countersign_resource_server::time::UnixTime;
use countersign_resource_server::token::jws::SigningAlgorithm;
use tempfile::TempDir;

use super::certificate::{CertificateFacts, Sighting};
use super::client::{Client, ClientAuthentication, ClientState, Enrolment, Environment, SubjectAttribute, SubjectRule};
use super::entitlement::Entitlement;
use super::history::{Actor, Explanation};
use super::participant::{Contacts, Participant, ParticipantState};
use super::resource_server::{ResourceServer, ResourceServerState, StatusClaim};
use super::trust_anchor::{
    AnchorMaterial, AnchorOwner, AnchorState, EkuPolicy, NameSpace, RevocationSources, TrustAnchor, Unknown,
};
use super::{
    AnchorId, ClientId, EntitlementId, KeyHash, MemorySize, ParticipantId, Registry, ResourceIndicator,
    ResourceServerId, Thumbprint,
};
use crate::store::{Migrate, open};

/// When everything here happens.
pub(crate) const NOW: UnixTime = UnixTime::from_seconds(1_800_000_000);

/// An empty registry in a file of its own, for as long as the directory is kept.
pub(crate) async fn registry() -> (TempDir, Arc<Registry>) {
    let directory = tempfile::tempdir().unwrap();
    let url = format!("sqlite:{}", directory.path().join("registry.db").display());
    let store = open(&url, Migrate::Apply).await.unwrap();
    let registry = Registry::new(Arc::new(store), MemorySize::default(), "test").await.unwrap();
    (directory, registry)
}

/// A change made by an operator at [`NOW`].
pub(crate) fn because(why: &str) -> Explanation {
    because_at(why, NOW)
}

/// A change made by an operator at `at`.
pub(crate) fn because_at(why: &str, at: UnixTime) -> Explanation {
    let actor = Actor::Operator { system_user: "root".to_owned(), stated_name: Some("Ada".to_owned()) };
    Explanation { actor, at, why: Some(why.to_owned()) }
}

pub(crate) fn participant_id(id: &str) -> ParticipantId {
    ParticipantId::parse(id).unwrap()
}

pub(crate) fn client_id(id: &str) -> ClientId {
    ClientId::parse(id).unwrap()
}

pub(crate) fn anchor_id(id: &str) -> AnchorId {
    AnchorId::parse(id).unwrap()
}

pub(crate) fn resource_server_id(id: &str) -> ResourceServerId {
    ResourceServerId::parse(id).unwrap()
}

pub(crate) fn entitlement_id(id: &str) -> EntitlementId {
    EntitlementId::parse(id).unwrap()
}

/// An active organisation.
pub(crate) fn participant(id: &str) -> Participant {
    Participant {
        id: participant_id(id),
        legal_name: format!("{id} Ltd"),
        registration_number: None,
        country: Some("NL".to_owned()),
        roles: vec!["supplier".to_owned()],
        contacts: Contacts::default(),
        state: ParticipantState::Active,
    }
}

/// The operator's anchor.
pub(crate) fn anchor(id: &str) -> TrustAnchor {
    TrustAnchor {
        id: anchor_id(id),
        material: AnchorMaterial::X509 { certificate_der: id.as_bytes().to_vec() },
        subject: format!("CN={id}"),
        owner: AnchorOwner::Operator,
        eku_policy: EkuPolicy::Required,
        unknown_revocation: Unknown::Accept,
        revocation: RevocationSources::default(),
        state: AnchorState::Active,
    }
}

/// Every name.
pub(crate) fn any_name() -> NameSpace {
    NameSpace { any: true, ..NameSpace::default() }
}

/// A DNS name.
pub(crate) fn dns(name: &str) -> SubjectRule {
    SubjectRule { attribute: SubjectAttribute::TlsClientAuthSanDns, value: name.to_owned(), canonical: name.to_owned() }
}

/// An active client that proves itself by the DNS name `ID.example` and enrols on first use.
pub(crate) fn client(id: &str, participant: &str) -> Client {
    Client {
        id: client_id(id),
        participant_id: participant_id(participant),
        environment: Environment::Production,
        contact: None,
        authentication: ClientAuthentication::TlsClientAuth { subject: dns(&format!("{id}.example")) },
        access_token_signing_alg: SigningAlgorithm::ES256,
        access_token_lifetime_seconds: None,
        enrolment: Enrolment::OnFirstUse,
        renewal_overlap_seconds: None,
        requests_per_second: None,
        software_id: None,
        state: ClientState::Active,
    }
}

/// Certificate number `number`: key, serial and thumbprint of its own, good for a day, issued by one key.
pub(crate) fn facts(number: u32) -> CertificateFacts {
    CertificateFacts {
        thumbprint: Thumbprint::of(format!("certificate {number}").as_bytes()),
        key_hash: KeyHash::of(format!("key {number}").as_bytes()),
        issuer_key: Some(KeyHash::of(b"issuer")),
        serial: format!("{number:04x}"),
        subject: format!("CN={number}"),
        subject_alt_names: vec![format!("DNS:{number}.example")],
        not_before: UnixTime::from_seconds(NOW.as_seconds() - 3_600),
        not_after: UnixTime::from_seconds(NOW.as_seconds() + 86_400),
        anchor: None,
    }
}

/// Certificate number `number`, authenticated under anchor `anchor`.
pub(crate) fn sighting(number: u32, anchor: &str) -> Sighting {
    let facts = facts(number);
    Sighting {
        thumbprint: facts.thumbprint,
        key_hash: facts.key_hash,
        issuer_key: facts.issuer_key,
        serial: facts.serial,
        subject: facts.subject,
        subject_alt_names: facts.subject_alt_names,
        not_before: facts.not_before,
        not_after: facts.not_after,
        anchor: Some(anchor_id(anchor)),
        issuers: Vec::new(),
    }
}

/// An API with scopes `read` and `write`.
pub(crate) fn resource_server(id: &str) -> ResourceServer {
    ResourceServer {
        id: resource_server_id(id),
        resource: ResourceIndicator::parse(&format!("https://{id}.example/")).unwrap(),
        scopes: Scope::parse("read write").unwrap(),
        owner: None,
        access_token_lifetime_seconds: None,
        subject: None,
        status: StatusClaim::Absent,
        certificates: Vec::new(),
        introspection_signed_response_alg: SigningAlgorithm::ES256,
        state: ResourceServerState::Active,
    }
}

/// `read` at `resource_server`, since an hour and without end.
pub(crate) fn entitlement(id: &str, client: &str, resource_server: &str) -> Entitlement {
    Entitlement {
        id: entitlement_id(id),
        client_id: client_id(client),
        resource_server_id: resource_server_id(resource_server),
        scopes: Scope::parse("read").unwrap(),
        starts_at: UnixTime::from_seconds(NOW.as_seconds() - 3_600),
        ends_at: None,
        reason: "contract 17".to_owned(),
        ended_at: None,
    }
}
