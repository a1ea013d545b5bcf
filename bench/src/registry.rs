//! The registry that the clients are in.
//!
//! Takes the population and a store, enters participants, their authority, one resource server and so many clients through the
//! registry's own operations. It knows nothing of servers.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use countersign::pki::anchor::check_anchor;
use countersign::pki::identity;
use countersign::registry::client::{
    Client, ClientAuthentication, ClientState, Enrolment, Environment, SubjectAttribute,
};
use countersign::registry::entitlement::Entitlement;
use countersign::registry::history::{Actor, Explanation};
use countersign::registry::participant::{Contacts, Participant, ParticipantState};
use countersign::registry::resource_server::{ResourceServer, ResourceServerState, StatusClaim};
use countersign::registry::trust_anchor::{
    AnchorMaterial, AnchorOwner, AnchorState, EkuPolicy, NameSpace, RevocationSources, TrustAnchor, Unknown,
};
use countersign::registry::{
    AnchorId, ClientId, EntitlementId, MemorySize, ParticipantId, Registry, ResourceIndicator, ResourceServerId,
};
use countersign::store::{self, Migrate};
use countersign_resource_server::scope::Scope;
use countersign_resource_server::time::{Clock, SystemClock, UnixTime};
use countersign_resource_server::token::jws::SigningAlgorithm;
use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::PemObject;

use crate::Failure;
use crate::population::{CLIENTS_OF_ONE, Identity, domain, identity as identity_of, participant};

/// The one API.
pub(crate) const API: &str = "bench-api";

/// What its tokens are good for.
pub(crate) const SCOPE: &str = "accounts:read";

/// Enters the first `clients` clients into the store at `url`, which has its schema already. Their certificates are put on
/// record when they are first seen.
pub(crate) async fn enter(url: &str, authority: &Path, resource: &str, clients: u32) -> Result<(), Failure> {
    let store = store::open(url, Migrate::Check).await?;
    let registry = Registry::new(Arc::new(store.clone()), MemorySize::default(), "bench").await?;
    let entering = Entering { registry: &registry, now: SystemClock::new().now() };
    let anchor = entering.anchor(&CertificateDer::from_pem_file(authority)?).await?;
    entering.api(resource).await?;
    for number in 0..clients.div_ceil(CLIENTS_OF_ONE) {
        entering.participant(&participant(number), &anchor).await?;
    }
    for number in 0..clients {
        entering.client(&identity_of(number)).await?;
    }
    store.close().await;
    Ok(())
}

struct Entering<'a> {
    registry: &'a Registry,
    now: UnixTime,
}

impl Entering<'_> {
    fn why(&self) -> Explanation {
        let actor = Actor::Operator { system_user: "bench".to_owned(), stated_name: None };
        Explanation { actor, at: self.now, why: Some("a benchmark".to_owned()) }
    }

    async fn anchor(&self, certificate: &CertificateDer<'_>) -> Result<AnchorId, Failure> {
        let facts = check_anchor(certificate, self.now)?;
        let anchor = TrustAnchor {
            id: facts.id.clone(),
            material: AnchorMaterial::X509 { certificate_der: certificate.to_vec() },
            subject: facts.subject,
            owner: AnchorOwner::Operator,
            eku_policy: EkuPolicy::Required,
            unknown_revocation: Unknown::Accept,
            revocation: RevocationSources::default(),
            state: AnchorState::Active,
        };
        self.registry.add_anchor(anchor, facts.subject_der, self.why()).await?;
        Ok(facts.id)
    }

    async fn api(&self, resource: &str) -> Result<(), Failure> {
        let api = ResourceServer {
            id: ResourceServerId::parse(API)?,
            resource: ResourceIndicator::parse(resource)?,
            scopes: Scope::parse(SCOPE)?,
            owner: None,
            access_token_lifetime_seconds: None,
            subject: None,
            status: StatusClaim::Absent,
            certificates: Vec::new(),
            introspection_signed_response_alg: SigningAlgorithm::ES256,
            state: ResourceServerState::Active,
        };
        self.registry.add_resource_server(api, self.why()).await?;
        Ok(())
    }

    async fn participant(&self, id: &str, anchor: &AnchorId) -> Result<(), Failure> {
        let participant = Participant {
            id: ParticipantId::parse(id)?,
            legal_name: format!("{id} Ltd"),
            registration_number: None,
            country: None,
            roles: vec!["partner".to_owned()],
            contacts: Contacts::default(),
            state: ParticipantState::Active,
        };
        let id = participant.id.clone();
        self.registry.add_participant(participant, self.why()).await?;
        let names = NameSpace {
            dn_suffixes: vec![format!("O={id}")],
            dns_suffixes: vec![domain(id.as_str())],
            ..NameSpace::default()
        };
        self.registry.grant_anchor(id, anchor.clone(), identity::name_space(&names)?, self.why()).await?;
        Ok(())
    }

    async fn client(&self, whose: &Identity) -> Result<(), Failure> {
        let id = ClientId::parse(&whose.id)?;
        let client = Client {
            id: id.clone(),
            participant_id: ParticipantId::parse(&whose.participant)?,
            environment: Environment::Sandbox,
            contact: None,
            authentication: ClientAuthentication::TlsClientAuth {
                subject: identity::subject_rule(SubjectAttribute::TlsClientAuthSanDns, &whose.dns)?,
            },
            access_token_signing_alg: SigningAlgorithm::ES256,
            access_token_lifetime_seconds: None,
            enrolment: Enrolment::OnFirstUse,
            renewal_overlap_seconds: None,
            requests_per_second: None,
            software_id: None,
            state: ClientState::Active,
        };
        self.registry.add_client(client, Vec::new(), self.why()).await?;
        let entitlement = Entitlement {
            id: EntitlementId::parse(&format!("{}.{API}", whose.id))?,
            client_id: id,
            resource_server_id: ResourceServerId::parse(API)?,
            scopes: Scope::parse(SCOPE)?,
            starts_at: self.now.before(Duration::from_secs(60)),
            ends_at: None,
            reason: "a benchmark".to_owned(),
            ended_at: None,
        };
        self.registry.add_entitlement(entitlement, self.why()).await?;
        Ok(())
    }
}
