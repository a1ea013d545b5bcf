//! More than a server can take, of each kind: whoever behaves is served, and whoever does not costs little.

use std::net::Ipv4Addr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use countersign_conformance::KeyKind;
use countersign_conformance::pki::{Credential, Name, Template};
use serde_json::Value;
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;

use crate::operations;
use crate::rig::{Engine, Rig, Time, within};
use crate::wire::{Answer, Connection, Peer, Request, dial_from};

/// No place for any request.
async fn full() -> Rig {
    Rig::configured(&Engine::Sqlite, Time::Standing, |config| config.limits.requests = 0).await
}

fn assert_overloaded(answer: &Answer) {
    assert_eq!((answer.status, answer.error().as_str()), (503, "temporarily_unavailable"), "{answer}");
    assert_eq!(answer.header("retry-after"), Some("1"), "{answer}");
    assert_eq!(answer.header("cache-control"), Some("no-store"), "{answer}");
    assert!(answer.header("x-request-id").is_some(), "{answer}");
}

/// What is asked of the endpoints that decide, by a client that would get it.
fn questions(rig: &Rig) -> Vec<Request> {
    let party = &rig.world.a_dn;
    vec![
        party.request(),
        Request::form("/revoke", &[("client_id", party.id), ("token", "no.such.token")]),
        Request::form("/introspect", &[("token", "no.such.token")]),
        Request::get(&format!("/certificate-check?client_id={}", party.id)),
    ]
}

#[tokio::test]
async fn without_a_place_whatever_is_decided_is_refused_at_once() {
    let rig = full().await;
    let peer = rig.peer(&rig.world.a_dn.credential);
    for question in questions(&rig) {
        assert_overloaded(&peer.ask(rig.address, &question).await.unwrap());
    }
    let records = rig.records(64).await;
    let overloaded: Vec<&Value> = records.iter().filter(|record| record["reason"] == "overloaded").collect();
    assert!(overloaded.iter().all(|record| record["count"].is_u64() && record["stage"] == "request"), "{records:?}");
    let told: u64 = overloaded.iter().map(|record| record["count"].as_u64().unwrap()).sum();
    assert_eq!(told, 4, "counted, and on record: {records:?}");
}

#[tokio::test]
async fn what_is_refused_for_want_of_a_place_is_refused_before_its_body_comes() {
    let rig = full().await;
    let party = &rig.world.a_dn;
    let mut connection = rig.peer(&party.credential).connect(rig.address).await.unwrap();
    let head = "POST /token HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/x-www-form-urlencoded\r\n\
                Content-Length: 100\r\n\r\n";
    connection.send(head.as_bytes()).await.unwrap();
    assert_overloaded(&connection.read_answer(false).await.unwrap());
}

#[tokio::test]
async fn without_a_place_whatever_needs_none_is_served() {
    let rig = full().await;
    let peer = rig.peer(&rig.world.a_dn.credential);
    for path in ["/.well-known/oauth-authorization-server", "/jwks", "/revocations", "/status-lists"] {
        assert_eq!(peer.ask(rig.address, &Request::get(path)).await.unwrap().status, 200, "{path}");
    }
    for path in ["/healthz", "/readyz", "/metrics"] {
        assert_eq!(operations::get(&rig, path).await.0, 200, "{path}");
    }
}

/// On a kept connection, when there are places again.
#[tokio::test]
async fn a_connection_goes_on_after_a_refusal_for_want_of_a_place() {
    let rig = full().await;
    let party = &rig.world.a_dn;
    let mut connection = rig.peer(&party.credential).connect(rig.address).await.unwrap();
    for _ in 0..100 {
        assert_overloaded(&connection.ask(&party.request()).await.unwrap());
    }
    let answer = connection.ask(&Request::get("/jwks")).await.unwrap();
    assert_eq!(answer.status, 200);
}

/// Bodies that do not come hold no place.
#[tokio::test]
async fn a_body_that_is_waited_for_holds_no_place() {
    let rig = Rig::configured(&Engine::Sqlite, Time::Standing, |config| {
        config.limits.requests = 1;
        config.limits.body = Duration::from_secs(60);
    })
    .await;
    let party = &rig.world.a_dn;
    let mut waiting = Vec::new();
    for _ in 0..8 {
        let mut connection = rig.peer(&party.credential).connect(rig.address).await.unwrap();
        let head = "POST /token HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/x-www-form-urlencoded\r\n\
                    Content-Length: 100\r\nExpect: 100-continue\r\n\r\n";
        connection.send(head.as_bytes()).await.unwrap();
        waiting.push(connection);
    }
    for _ in 0..8 {
        assert_eq!(rig.ask(party).await.status, 200);
    }
}

/// So many of each flood.
const FLOOD: usize = 200;

/// Where the flood's connections come from: not the honest client's address.
fn elsewhere(at: usize) -> Ipv4Addr {
    Ipv4Addr::new(127, 9, 9, u8::try_from(1 + at % 20).unwrap())
}

/// Somebody who behaves is served, on a kept connection and on new ones.
async fn assert_honest_are_served(rig: &Rig) {
    let party = &rig.world.a_dn;
    let mut kept = rig.peer(&party.credential).connect(rig.address).await.unwrap();
    for _ in 0..20 {
        assert_eq!(kept.ask(&party.request()).await.unwrap().status, 200);
        assert_eq!(rig.ask(party).await.status, 200);
    }
}

async fn by_the_machines_time() -> Rig {
    Rig::on(&Engine::Sqlite, Time::Machine).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn beside_silent_sockets_whoever_behaves_is_served() {
    let rig = by_the_machines_time().await;
    let mut silent: Vec<TcpStream> = Vec::new();
    for at in 0..FLOOD {
        silent.push(dial_from(elsewhere(at), rig.address).await.unwrap());
    }
    assert_honest_are_served(&rig).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn beside_handshakes_that_stall_whoever_behaves_is_served() {
    let rig = by_the_machines_time().await;
    let hello = rig.anonymous().client_hello();
    let mut stalled: Vec<TcpStream> = Vec::new();
    for at in 0..FLOOD {
        let mut stream = dial_from(elsewhere(at), rig.address).await.unwrap();
        // Half of them stop in the middle of it.
        let octets = if at % 2 == 0 { &hello[..] } else { &hello[..hello.len() / 2] };
        stream.write_all(octets).await.unwrap();
        stalled.push(stream);
    }
    assert_honest_are_served(&rig).await;
}

/// Connections of strangers that have sent these octets and no more.
async fn open(rig: &Rig, octets: &[u8]) -> Vec<Connection> {
    let peer = rig.anonymous();
    let mut open = Vec::new();
    for at in 0..FLOOD {
        let mut connection = peer.connect_from(elsewhere(at), rig.address).await.unwrap();
        connection.send(octets).await.unwrap();
        open.push(connection);
    }
    open
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn beside_slow_heads_whoever_behaves_is_served() {
    let rig = by_the_machines_time().await;
    let _open = open(&rig, b"POST /token HTTP/1.1\r\nHost: localhost\r\nX-").await;
    assert_honest_are_served(&rig).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn beside_slow_bodies_whoever_behaves_is_served() {
    let rig = by_the_machines_time().await;
    let head = b"POST /token HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/x-www-form-urlencoded\r\n\
        Content-Length: 9000\r\n\r\nx";
    let _open = open(&rig, head).await;
    assert_honest_are_served(&rig).await;
}

/// Somebody who does nothing but handshakes, on so many connections at a time, until told to stop.
struct Handshakes {
    over: Arc<AtomicBool>,
    done: Arc<AtomicUsize>,
}

impl Handshakes {
    fn flood(rig: &Rig, peer: Peer) -> Self {
        let (over, done) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicUsize::new(0)));
        for at in 0..FLOOD {
            let (over, done, peer, address) = (Arc::clone(&over), Arc::clone(&done), peer.clone(), rig.address);
            tokio::spawn(async move {
                while !over.load(Ordering::Relaxed) {
                    let connected = peer.connect_from(elsewhere(at), address).await.is_ok();
                    done.fetch_add(usize::from(connected), Ordering::Relaxed);
                }
            });
        }
        Self { over, done }
    }
}

impl Drop for Handshakes {
    fn drop(&mut self) {
        self.over.store(true, Ordering::Relaxed);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn beside_handshakes_without_a_certificate_whoever_behaves_is_served() {
    let rig = by_the_machines_time().await;
    let flood = Handshakes::flood(&rig, rig.anonymous());
    within(Duration::from_secs(30), "the flood is there", || flood.done.load(Ordering::Relaxed) > FLOOD).await;
    assert_honest_are_served(&rig).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn beside_handshakes_with_a_certificate_of_nobody_whoever_behaves_is_served() {
    let rig = by_the_machines_time().await;
    let nobody = Credential::self_signed(&Template::client(Name::common("nobody"), rig.world.now), KeyKind::P256);
    let flood = Handshakes::flood(&rig, rig.peer(&nobody));
    within(Duration::from_secs(30), "the flood is there", || flood.done.load(Ordering::Relaxed) > FLOOD).await;
    assert_honest_are_served(&rig).await;
}

/// What an address has used up it has used up for whoever shares it: new connections from there are closed, those that are
/// open go on, and other addresses notice nothing.
#[tokio::test]
async fn from_the_same_address_connections_that_are_open_go_on() {
    let rig = Rig::configured(&Engine::Sqlite, Time::Machine, |config| config.limits.connections_per_address = 8).await;
    let party = &rig.world.a_dn;
    let mut kept = rig.peer(&party.credential).connect(rig.address).await.unwrap();
    let mut silent = Vec::new();
    for _ in 0..7 {
        silent.push(dial_from(Ipv4Addr::LOCALHOST, rig.address).await.unwrap());
    }
    assert!(rig.peer(&party.credential).ask(rig.address, &party.request()).await.is_err());
    assert_eq!(kept.ask(&party.request()).await.unwrap().status, 200);
    let from_elsewhere = rig.peer(&party.credential).ask_from(elsewhere(0), rig.address, &party.request()).await;
    assert_eq!(from_elsewhere.unwrap().status, 200);
}
