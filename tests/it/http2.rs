//! HTTP/2: the same answers as HTTP/1.1, on streams that share a connection.

use crate::rig::Rig;
use crate::wire::{Request, Tls};
use crate::world::World;

/// A request of each family of the negative table that HTTP/2 can carry, and what comes back.
fn refused(world: &World) -> Vec<(&'static str, Request, u16, &'static str)> {
    let good = world.a_dn.request();
    let large = Request { body: vec![b'x'; 16 * 1024 + 1], ..good.clone() };
    vec![
        ("another method", Request { method: "PUT".to_owned(), ..good.clone() }, 405, "invalid_request"),
        ("another path", Request { target: "/tokens".to_owned(), ..good.clone() }, 404, "invalid_request"),
        (
            "a parameter in the URI",
            Request { target: "/token?scope=x".to_owned(), ..good.clone() },
            400,
            "invalid_request",
        ),
        ("no media type", good.clone().without_header("content-type"), 415, "invalid_request"),
        ("a large body", large, 413, "invalid_request"),
        ("a broken escape", Request { body: b"client_id=%".to_vec(), ..good.clone() }, 400, "invalid_request"),
        ("no body", Request { body: Vec::new(), ..good.clone() }, 400, "invalid_request"),
        ("an Authorization header", good.with_header("authorization", "Basic YTpi"), 401, "invalid_client"),
        ("another client's id", world.a_two.request(), 400, "invalid_client"),
        (
            "an unknown client's id",
            Request { body: b"grant_type=x&client_id=nobody".to_vec(), ..world.a_dn.request() },
            400,
            "invalid_client",
        ),
    ]
}

#[tokio::test]
async fn refusals_are_the_same_and_the_connection_goes_on() {
    let rig = Rig::start().await;
    let party = &rig.world.a_dn;
    let mut connection = rig.peer_with(&party.credential, Tls::V1_3, &[b"h2"]).connect_h2(rig.address).await.unwrap();
    for (what, request, status, error) in refused(&rig.world) {
        let answer = connection.ask(&request).await.unwrap();
        assert_eq!((answer.status, answer.error().as_str()), (status, error), "{what}: {answer}");
        assert_eq!(answer.header("cache-control"), Some("no-store"), "{what}");
        assert_eq!(connection.ask(&party.request()).await.unwrap().status, 200, "after {what}");
    }
}

#[tokio::test]
async fn sixty_four_streams_at_once_are_each_decided() {
    let rig = Rig::start().await;
    let (own, other) = (&rig.world.a_dn, &rig.world.a_two);
    let connection = rig.peer_with(&own.credential, Tls::V1_3, &[b"h2"]).connect_h2(rig.address).await.unwrap();
    let streams: Vec<_> = (0..64)
        .map(|at| {
            let mut stream = connection.clone();
            let (request, status) = if at % 2 == 0 { (own.request(), 200) } else { (other.request(), 400) };
            tokio::spawn(async move { (stream.ask(&request).await.unwrap().status, status) })
        })
        .collect();
    for stream in streams {
        let (status, expected) = stream.await.unwrap();
        assert_eq!(status, expected);
    }
}

/// A head of 20 KB is the library's to refuse, and nothing is issued for it.
#[tokio::test]
async fn a_head_beyond_the_limit_is_refused() {
    let rig = Rig::start().await;
    let party = &rig.world.a_dn;
    let mut connection = rig.peer_with(&party.credential, Tls::V1_3, &[b"h2"]).connect_h2(rig.address).await.unwrap();
    let answer = connection.ask(&party.request().with_header("x-long", &"x".repeat(20 * 1024))).await;
    assert!(answer.as_ref().map_or(true, |answer| answer.status == 431), "{answer:?}");
    let mut connection = rig.peer_with(&party.credential, Tls::V1_3, &[b"h2"]).connect_h2(rig.address).await.unwrap();
    assert_eq!(connection.ask(&party.request()).await.unwrap().status, 200);
}
