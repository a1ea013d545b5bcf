//! More than a server can take, of each kind: whoever behaves is served, and whoever does not costs little.

use std::time::Duration;

use serde_json::Value;

use crate::operations;
use crate::rig::{Engine, Rig, Time};
use crate::wire::{Answer, Request};

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
