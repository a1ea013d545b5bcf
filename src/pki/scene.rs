//! A client, its participant and its anchors in memory: what the tests of this module and of `client_auth` start from.
//!
//! Takes certificates of the conformance crate's factory, gives records and connections. It is compiled for tests only.

use std::sync::Arc;

use countersign_conformance::pki::{Authority, Credential};
use countersign_conformance::spiffe::Domain;
use countersign_resource_server::time::UnixTime;
use countersign_resource_server::token::jws::SigningAlgorithm;
use futures_util::FutureExt;
use rustls_pki_types::CertificateDer;

use super::identity;
use super::spiffe::TrustDomain;
use super::{Handshake, ParsedCertificate, PeerRefusal, PresentedChain, VerifiedPeer, Verifier};
use crate::registry::certificate::{Certificate, CertificateState};
use crate::registry::client::{Client, ClientAuthentication, ClientState, Enrolment, Environment, SubjectAttribute};
use crate::registry::participant::{Contacts, Participant, ParticipantState};
use crate::registry::trust_anchor::{
    AnchorMaterial, AnchorOwner, AnchorState, BundleEndpoint, EkuPolicy, NameSpace, RevocationSources, TrustAnchor,
    Unknown,
};
use crate::registry::{
    AnchorId, AnchorSetId, ClientId, ClientRecord, FoundClient, GrantedAnchor, KeyHash, ParticipantId, RegistryVersion,
};

/// 2027-01-15, in seconds: the tests' present.
pub(crate) const NOW: i64 = 1_800_000_000;

pub(crate) const fn now() -> UnixTime {
    UnixTime::from_seconds(NOW)
}

/// A record to bend. As it is made: one active client, registered for `tls_client_auth` with `CN=client`.
#[derive(Clone, Debug)]
pub(crate) struct Scene {
    pub(crate) record: ClientRecord,
}

impl Scene {
    /// A client of `participant` that trusts nobody yet.
    pub(crate) fn new(participant: &str) -> Self {
        let participant_id = ParticipantId::parse(participant).unwrap();
        let subject = identity::subject_rule(SubjectAttribute::TlsClientAuthSubjectDn, "CN=client").unwrap();
        Self {
            record: ClientRecord {
                as_of: RegistryVersion(1),
                client: Client {
                    id: ClientId::parse("client").unwrap(),
                    participant_id: participant_id.clone(),
                    environment: Environment::Sandbox,
                    contact: None,
                    authentication: ClientAuthentication::TlsClientAuth { subject },
                    access_token_signing_alg: SigningAlgorithm::ES256,
                    access_token_lifetime_seconds: None,
                    enrolment: Enrolment::OnFirstUse,
                    renewal_overlap_seconds: None,
                    requests_per_second: None,
                    software_id: None,
                    state: ClientState::Active,
                },
                participant: Arc::new(Participant {
                    id: participant_id,
                    legal_name: participant.to_owned(),
                    registration_number: None,
                    country: None,
                    roles: Vec::new(),
                    contacts: Contacts::default(),
                    state: ParticipantState::Active,
                }),
                anchors: Vec::new(),
                anchor_set: AnchorSetId::of(&[]),
                certificates: Vec::new(),
                entitlements: Vec::new(),
            },
        }
    }

    /// With an anchor that may vouch for every name.
    pub(crate) fn trusting(self, authority: &Authority) -> Self {
        self.trusting_within(authority, NameSpace { any: true, ..NameSpace::default() })
    }

    /// With an anchor that may vouch for these names.
    pub(crate) fn trusting_within(self, authority: &Authority, name_space: NameSpace) -> Self {
        self.granting(&authority.certificate, |_| {}, name_space)
    }

    /// With an anchor bent by `change`.
    pub(crate) fn granting(
        mut self,
        certificate: &[u8],
        change: impl FnOnce(&mut TrustAnchor),
        name_space: NameSpace,
    ) -> Self {
        let mut anchor = TrustAnchor {
            id: anchor_id(certificate),
            material: AnchorMaterial::X509 { certificate_der: certificate.to_owned() },
            subject: String::new(),
            owner: AnchorOwner::Participant(self.record.participant.id.clone()),
            eku_policy: EkuPolicy::Required,
            unknown_revocation: Unknown::Accept,
            revocation: RevocationSources::default(),
            state: AnchorState::Active,
        };
        change(&mut anchor);
        let name_space = identity::name_space(&name_space).unwrap();
        self.record.anchors.push(GrantedAnchor { anchor: Arc::new(anchor), name_space });
        self.record.anchors.sort_by(|one, other| one.anchor.id.cmp(&other.anchor.id));
        self.record.anchor_set = AnchorSetId::of(&self.record.anchors);
        self
    }

    /// With a trust domain that may vouch for all of its ids.
    pub(crate) fn trusting_domain(self, domain: &Domain) -> Self {
        let prefix = format!("spiffe://{}/", domain.name);
        self.trusting_bundle(
            &domain.name,
            &domain.bundle(1),
            NameSpace { uri_prefixes: vec![prefix], ..NameSpace::default() },
        )
    }

    /// With this bundle of the trust domain of this name, which may vouch for these names.
    pub(crate) fn trusting_bundle(self, name: &str, bundle: &str, name_space: NameSpace) -> Self {
        let trust_domain = TrustDomain::parse(name).unwrap();
        let id = AnchorId::of_trust_domain(&trust_domain);
        let material =
            AnchorMaterial::TrustDomain { trust_domain, endpoint: BundleEndpoint::File, bundle: bundle.to_owned() };
        // Whose certificate would be there otherwise does not matter.
        let root = Authority::root("placeholder", NOW);
        let change = |anchor: &mut TrustAnchor| {
            (anchor.id, anchor.material, anchor.eku_policy) = (id, material, EkuPolicy::IfPresent);
        };
        self.granting(&root.certificate, change, name_space)
    }

    /// Registered for `tls_client_auth` under another name.
    pub(crate) fn named(mut self, attribute: SubjectAttribute, value: &str) -> Self {
        let subject = identity::subject_rule(attribute, value).unwrap();
        self.record.client.authentication = ClientAuthentication::TlsClientAuth { subject };
        self
    }

    /// Registered to authenticate so.
    pub(crate) fn authenticating(mut self, authentication: ClientAuthentication) -> Self {
        self.record.client.authentication = authentication;
        self
    }

    /// With this certificate on record as the client's, announced unless `change` says otherwise.
    pub(crate) fn enrolled(mut self, der: &[u8], change: impl FnOnce(&mut Certificate)) -> Self {
        let facts = ParsedCertificate::read(der).unwrap().for_enrolment();
        let mut certificate = facts.announced(self.record.client.id.clone(), now());
        certificate.state = CertificateState::Active;
        change(&mut certificate);
        self.record.certificates.push(certificate);
        self
    }

    /// What the registry would give.
    pub(crate) fn client(&self) -> FoundClient {
        FoundClient { record: Arc::new(self.record.clone()), version: RegistryVersion(1) }
    }
}

/// The id of the anchor that this certificate makes.
pub(crate) fn anchor_id(certificate: &[u8]) -> AnchorId {
    let key: KeyHash = *ParsedCertificate::read(certificate).unwrap().key_hash();
    AnchorId::parse(&key.to_string()).unwrap()
}

/// A connection on which this credential was presented.
pub(crate) fn presented(credential: &Credential) -> Arc<PresentedChain> {
    presented_list(&credential.chain)
}

/// A connection on which these certificates were presented.
pub(crate) fn presented_list(chain: &[Vec<u8>]) -> Arc<PresentedChain> {
    let handshake = Handshake { remote: ([192, 0, 2, 1], 50_000).into(), protocol: "TLSv1.3", resumed: false };
    Arc::new(PresentedChain::new(handshake, chain.iter().map(|der| CertificateDer::from(der.clone())).collect()))
}

impl Verifier {
    /// [`Verifier::verify`], where nobody elsewhere has to be asked.
    pub(crate) fn verify_at_once(
        &self,
        peer: &Arc<PresentedChain>,
        client: &FoundClient,
        now: UnixTime,
    ) -> Result<VerifiedPeer, PeerRefusal> {
        self.verify(peer, client, now).now_or_never().expect("nobody was to be asked")
    }
}
