//! A revocation list that comes no more: an API whose guard introspects goes on by the word of the server itself.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use countersign::registry::client::ClientState;
use countersign::registry::{ClientId, ResourceServerId};
use countersign_conformance::KeyKind;
use countersign_conformance::pki::{Credential, Name, Template};
use countersign_resource_server::status::WhenStale;
use countersign_resource_server::time::{Clock, SystemClock};
use countersign_resource_server::{Guard, PeerAcceptor, peer};
use rustls::pki_types::{CertificateDer, PrivatePkcs8KeyDer};

use crate::circle::call;
use crate::https::HttpsServer;
use crate::rig::{Engine, Rig, Time, guarded_routes, thumbprint, within};
use crate::wire::{Answer, Request};
use crate::world::{ACCOUNTS, Party};

const PATIENCE: Duration = Duration::from_secs(10);

/// The API [`ACCOUNTS`], whose list comes from a mirror.
struct Api {
    address: SocketAddr,
    guard: Guard,
    mirror: HttpsServer,
}

impl Api {
    /// With a certificate of its own that is enrolled for it, or not. It has taken a list, and the next will not come.
    async fn cut_off(rig: &Rig, enrolled: bool) -> Self {
        let own = Credential::self_signed(&Template::client(Name::common("accounts"), rig.world.now), KeyKind::P256);
        if enrolled {
            let id = ResourceServerId::parse("accounts").unwrap();
            let mut record = rig.app.registry.resource_server(&id).await.unwrap().unwrap();
            record.certificates.push(thumbprint(&own));
            let version = rig.app.registry.change_resource_server(record, rig.explanation()).await.unwrap();
            assert!(rig.app.status.has_come_to(version, PATIENCE).await, "the list is signed in this moment");
        }
        let server = &rig.world.server;
        let mirror = HttpsServer::start(server, rig.app.status.current().compact.as_bytes()).await;
        let roots = rig.world.server_authority.to_pem();
        let guard = Guard::builder(&rig.world.issuer, ACCOUNTS)
            .roots_pem(roots.as_bytes())
            .and_then(|guard| guard.client_certificate_pem(own.chain_pem().as_bytes(), own.key.to_pem().as_bytes()))
            .unwrap()
            .revocations_from(mirror.url("revocations"))
            .mirror_alone()
            .staleness_limit(Duration::from_secs(4))
            .when_stale(WhenStale::Introspect)
            .start()
            .unwrap();
        within(PATIENCE, "the list is taken", || guard.revocations().version().is_some()).await;
        mirror.says("503 Service Unavailable", "");
        let chain = server.chain.iter().map(|der| CertificateDer::from(der.clone())).collect();
        let key = PrivatePkcs8KeyDer::from(server.key.pkcs8().to_vec()).into();
        let tls = PeerAcceptor::new(Arc::new(peer::server_config(chain, key).unwrap()));
        let listener = std::net::TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        listener.set_nonblocking(true).unwrap();
        let address = listener.local_addr().unwrap();
        let routes = guarded_routes(&guard).into_make_service();
        tokio::spawn(axum_server::from_tcp(listener).unwrap().acceptor(tls).serve(routes));
        Self { address, guard, mirror }
    }

    async fn called(&self, rig: &Rig, party: &Party, token: &str) -> Answer {
        rig.peer(&party.credential).ask(self.address, &call(token)).await.unwrap()
    }
}

/// What the server has on record of the questions about tokens, oldest first.
async fn questions(rig: &Rig) -> Vec<String> {
    let records = rig.records(64).await;
    let asked = records.iter().filter(|record| record["kind"] == "introspection");
    // The guard asks about what is no token, too, to know whether anybody is there.
    let asked = asked.filter(|record| record["reason"] != "token_malformed");
    asked.map(|record| format!("{} {}", record["outcome"], record["reason"]).replace('"', "")).collect()
}

#[tokio::test]
async fn while_the_list_is_cut_off_the_server_is_asked_and_a_suspension_bites() {
    for engine in Engine::every() {
        let rig = Rig::on(&engine, Time::Machine).await;
        let (party, other) = (&rig.world.a_dn, &rig.world.b_dn);
        let (token, others) = (rig.ask(party).await.token(), rig.ask(other).await.token());
        let api = Api::cut_off(&rig, true).await;
        assert_eq!(api.called(&rig, party, &token).await.status, 200);
        assert_eq!(questions(&rig).await, [""; 0], "the list is fresh, and nobody is asked");
        within(PATIENCE, "the list is too old", || !api.guard.revocations().is_fresh()).await;
        let held = api.guard.revocations().version();

        let answer = api.called(&rig, party, &token).await;
        assert_eq!((answer.status, answer.json()["client_id"].as_str()), (200, Some(party.id)), "{answer}");
        assert_eq!(questions(&rig).await, ["active null"]);
        let client = ClientId::parse(party.id).unwrap();
        rig.app.registry.set_client_state(client.clone(), ClientState::Suspended, rig.explanation()).await.unwrap();
        // What was told counts for a second: no call that begins later is let through.
        let clock = SystemClock::new();
        loop {
            let began = clock.monotonic();
            if api.called(&rig, party, &token).await.status != 200 {
                break;
            }
            assert!(began < Duration::from_secs(1), "what was told is remembered for too long: {began:?}");
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        let refused = api.called(&rig, party, &token).await;
        assert_eq!((refused.status, refused.error().as_str()), (401, "invalid_token"), "{refused}");
        assert_eq!(api.called(&rig, other, &others).await.status, 200, "nobody else is concerned");
        assert_eq!(api.guard.revocations().version(), held, "no list has come meanwhile");
        let asked = questions(&rig).await;
        assert!(asked[1].starts_with("inactive "), "{asked:?}");

        // The list is back, and nobody is asked any more, whoever calls.
        let version = rig.app.registry.set_client_state(client, ClientState::Active, rig.explanation()).await.unwrap();
        assert!(rig.app.status.has_come_to(version, PATIENCE).await);
        api.mirror.says("200 OK", rig.app.status.current().compact.as_bytes());
        within(PATIENCE, "the list is fresh again", || api.guard.revocations().is_fresh()).await;
        let before = questions(&rig).await.len();
        assert_eq!(api.called(&rig, party, &token).await.status, 401, "marked");
        assert_eq!(api.called(&rig, other, &others).await.status, 200);
        assert_eq!(questions(&rig).await.len(), before);
        rig.stop().await;
    }
}

#[tokio::test]
async fn an_api_that_is_not_enrolled_is_told_nothing_and_lets_nobody_in() {
    let rig = Rig::on(&Engine::Sqlite, Time::Machine).await;
    let party = &rig.world.a_dn;
    let token = rig.ask(party).await.token();
    let api = Api::cut_off(&rig, false).await;
    within(PATIENCE, "the list is too old", || !api.guard.revocations().is_fresh()).await;
    let answer = api.called(&rig, party, &token).await;
    assert_eq!((answer.status, answer.error().as_str()), (503, "temporarily_unavailable"), "{answer}");
    let record = rig.last_record().await;
    assert_eq!(
        (&record["first"]["kind"], &record["reason"]),
        (&"introspection".into(), &"resource_server_unknown".into())
    );
    assert!(!api.guard.is_ready(), "the guard knows that it is told nothing");
}

/// A server that has gone altogether: nothing is let through, and what comes back is believed at once.
#[tokio::test]
async fn a_server_that_is_gone_lets_nobody_in_and_is_believed_when_it_is_back() {
    let mut rig = Rig::on(&Engine::Sqlite, Time::Machine).await;
    let token = rig.ask(&rig.world.a_dn).await.token();
    let api = Api::cut_off(&rig, true).await;
    within(PATIENCE, "the list is too old", || !api.guard.revocations().is_fresh()).await;
    assert_eq!(api.called(&rig, &rig.world.a_dn, &token).await.status, 200);
    let store = rig.store.clone();
    rig.go_down().await;
    tokio::time::timeout(PATIENCE, async {
        while api.called(&rig, &rig.world.a_dn, &token).await.status == 200 {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    })
    .await
    .expect("what was told is remembered for too long");
    assert_eq!(api.called(&rig, &rig.world.a_dn, &token).await.status, 503);
    rig.come_up_on(store).await;
    tokio::time::timeout(PATIENCE, async {
        while api.called(&rig, &rig.world.a_dn, &token).await.status != 200 {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    })
    .await
    .expect("it is not believed again");
    let none = rig.peer(&rig.world.a_dn.credential).ask(api.address, &Request::get("/accounts")).await.unwrap();
    assert_eq!(none.status, 401);
}
