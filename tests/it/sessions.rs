//! Connections outlive certificates and admissions: on every kind of connection that is kept or resumed, the request
//! after a change is refused.

use std::time::Duration;

use countersign::registry::certificate::RevocationReason;
use countersign::registry::client::ClientState;
use countersign::registry::edit::CertificateSelector;
use countersign::registry::participant::ParticipantState;
use countersign::registry::{AnchorId, ClientId, EntitlementId, ParticipantId, ResourceServerId};
use countersign_conformance::KeyKind;
use countersign_conformance::pki::{Credential, Template};

use crate::rig::{Engine, Rig, Time, thumbprint};
use crate::wire::{Answer, Connection, H2, Peer, Tls};
use crate::world::{Party, subject_of_a};

/// A way to keep what a handshake once proved.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Kept {
    Http1,
    Http2,
    Resumed(Tls),
}

pub(crate) const EVERY_WAY: [Kept; 4] = [Kept::Http1, Kept::Http2, Kept::Resumed(Tls::V1_2), Kept::Resumed(Tls::V1_3)];

/// A connection, or the memory of one.
pub(crate) enum Line {
    Http1(Box<Connection>),
    Http2(H2),
    Resuming(Peer),
}

impl Line {
    pub(crate) async fn open(rig: &Rig, credential: &Credential, kept: Kept) -> Self {
        match kept {
            Kept::Http1 => Self::Http1(Box::new(rig.peer(credential).connect(rig.address).await.unwrap())),
            Kept::Http2 => {
                let peer = rig.peer_with(credential, Tls::V1_3, &[b"h2"]);
                Self::Http2(peer.connect_h2(rig.address).await.unwrap())
            }
            Kept::Resumed(tls) => Self::Resuming(rig.peer_with(credential, tls, &[b"http/1.1"])),
        }
    }

    pub(crate) async fn ask(&mut self, rig: &Rig, party: &Party, resumed: bool) -> Answer {
        let request = party.request();
        match self {
            Self::Http1(connection) => connection.ask(&request).await.unwrap(),
            Self::Http2(connection) => connection.ask(&request).await.unwrap(),
            Self::Resuming(peer) => {
                let mut connection = peer.connect(rig.address).await.unwrap();
                let answer = connection.ask(&request).await.unwrap();
                assert_eq!(connection.resumed(), resumed, "whether the session was resumed");
                answer
            }
        }
    }
}

/// What happens between two requests.
#[derive(Clone, Copy, Debug)]
enum Event {
    AnchorRetired,
    CertificateExpires,
    CertificateRevoked,
    CertificateSuperseded,
    ClientRetired,
    ClientSuspended,
    EntitlementEnded,
    KeyRevoked,
    ParticipantSuspended,
    ParticipantWithdrawn,
    ResourceServerRetired,
}

const EVERY_EVENT: [(Event, &str, &str); 11] = [
    (Event::AnchorRetired, "invalid_client", "peer_anchor_retired"),
    (Event::CertificateExpires, "invalid_client", "peer_expired"),
    (Event::CertificateRevoked, "invalid_client", "certificate_revoked"),
    (Event::CertificateSuperseded, "invalid_client", "certificate_superseded"),
    (Event::ClientRetired, "invalid_client", "client_retired"),
    (Event::ClientSuspended, "invalid_client", "client_suspended"),
    (Event::EntitlementEnded, "invalid_target", "resource_entitlement_ended"),
    (Event::KeyRevoked, "invalid_client", "certificate_revoked"),
    (Event::ParticipantSuspended, "invalid_client", "participant_suspended"),
    (Event::ParticipantWithdrawn, "invalid_client", "participant_withdrawn"),
    (Event::ResourceServerRetired, "invalid_target", "resource_retired"),
];

impl Event {
    async fn happen(self, rig: &Rig, credential: &Credential) {
        let registry = &rig.app.registry;
        let why = rig.explanation();
        let client = ClientId::parse("a-dn").unwrap();
        let participant = ParticipantId::parse("partner-a").unwrap();
        let selected = CertificateSelector::Thumbprint(thumbprint(credential));
        let done = match self {
            Self::CertificateExpires => {
                rig.clock.advance(Duration::from_secs(61));
                return;
            }
            Self::AnchorRetired => {
                let anchors = registry.anchors(countersign::registry::Page::first(16)).await.unwrap();
                let own = anchors.into_iter().find(|anchor| anchor.material.octets() == rig.world.a_root.certificate);
                let id: AnchorId = own.unwrap().id;
                registry.retire_anchor(id, why).await
            }
            Self::CertificateRevoked => {
                registry.revoke_certificate(selected, RevocationReason::CessationOfOperation, why).await
            }
            Self::CertificateSuperseded => {
                registry.supersede_certificate(thumbprint(credential), rig.app.clock.now(), why).await
            }
            Self::ClientRetired => registry.set_client_state(client, ClientState::Retired, why).await,
            Self::ClientSuspended => registry.set_client_state(client, ClientState::Suspended, why).await,
            Self::EntitlementEnded => {
                registry.end_entitlement(EntitlementId::parse("a-dn-accounts").unwrap(), why).await
            }
            Self::KeyRevoked => registry.revoke_key(crate::rig::facts(credential).key_hash, why).await,
            Self::ParticipantSuspended => {
                registry.set_participant_state(participant, ParticipantState::Suspended, why).await
            }
            Self::ParticipantWithdrawn => {
                registry.set_participant_state(participant, ParticipantState::Withdrawn, why).await
            }
            Self::ResourceServerRetired => {
                registry.retire_resource_server(ResourceServerId::parse("accounts").unwrap(), why).await
            }
        };
        done.unwrap();
    }
}

#[tokio::test]
async fn the_request_after_a_change_is_refused_on_every_kept_connection() {
    for (event, error, reason) in EVERY_EVENT {
        let rig = Rig::start().await;
        let party = &rig.world.a_dn;
        let template =
            Template { not_after: rig.world.now + 60, ..Template::client(subject_of_a("a-dn"), rig.world.now) };
        let credential = rig.world.a_root.issue(&template, KeyKind::P256);
        let mut lines = Vec::new();
        for kept in EVERY_WAY {
            let mut line = Line::open(&rig, &credential, kept).await;
            for resumed in [false, true] {
                let answer = line.ask(&rig, party, resumed).await;
                assert_eq!(answer.status, 200, "{kept:?} before {event:?}: {answer}");
            }
            lines.push((kept, line));
        }
        event.happen(&rig, &credential).await;
        for (kept, mut line) in lines {
            let answer = line.ask(&rig, party, true).await;
            assert_eq!((answer.status, answer.error().as_str()), (400, error), "{kept:?} after {event:?}: {answer}");
            assert_eq!(rig.last_record().await["reason"], reason, "{kept:?} after {event:?}");
        }
    }
}

/// A reinstated client's kept connections serve again: nothing was remembered that should not be.
#[tokio::test]
async fn a_reinstated_client_goes_on_where_it_was() {
    for engine in Engine::every() {
        let rig = Rig::on(&engine, Time::Standing).await;
        let party = &rig.world.a_dn;
        let client = || ClientId::parse("a-dn").unwrap();
        let mut line = Line::open(&rig, &party.credential, Kept::Http1).await;
        for (to, status) in [
            (ClientState::Suspended, 400),
            (ClientState::Active, 200),
            (ClientState::Suspended, 400),
            (ClientState::Active, 200),
        ] {
            rig.app.registry.set_client_state(client(), to, rig.explanation()).await.unwrap();
            assert_eq!(line.ask(&rig, party, false).await.status, status, "{to:?}");
        }
        rig.stop().await;
    }
}

/// One connection, many clients' names: the certificate is asked about for each of them.
#[tokio::test]
async fn a_kept_connection_serves_only_its_own_client() {
    let rig = Rig::start().await;
    let world = &rig.world;
    let mut line = Line::open(&rig, &world.a_dn.credential, Kept::Http1).await;
    for (party, status) in [(&world.a_dn, 200), (&world.a_two, 400), (&world.b_dn, 400), (&world.a_dn, 200)] {
        assert_eq!(line.ask(&rig, party, false).await.status, status, "{}", party.id);
    }
    let mut line = Line::open(&rig, &world.a_dn.credential, Kept::Http2).await;
    for (party, status) in [(&world.a_two, 400), (&world.a_dn, 200), (&world.b_dn, 400), (&world.a_dn, 200)] {
        assert_eq!(line.ask(&rig, party, false).await.status, status, "{} over HTTP/2", party.id);
    }
}

/// A session belongs to whoever made it: resumed, it carries the first certificate and no other.
#[tokio::test]
async fn a_resumed_session_is_bound_to_the_first_certificate() {
    let rig = Rig::start().await;
    let party = &rig.world.a_dn;
    for tls in [Tls::V1_2, Tls::V1_3] {
        let mut line = Line::open(&rig, &party.credential, Kept::Resumed(tls)).await;
        line.ask(&rig, party, false).await;
        let answer = line.ask(&rig, party, true).await;
        let token = crate::token::read(&rig, &answer.token()).await;
        assert_eq!(token.claims["cnf"]["x5t#S256"], party.credential.thumbprint(), "{tls:?}");
        assert!(rig.last_record().await.to_string().contains("true"), "the record says that it was resumed");
    }
}
