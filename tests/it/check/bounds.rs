//! What a check takes and how often: parameters, methods, rates.

use std::time::Duration;

use countersign_conformance::KeyKind;
use countersign_conformance::pki::Template;

use super::{about, rig_without_bounds};
use crate::rig::Rig;
use crate::wire::Request;
use crate::world::subject_of_a;

#[tokio::test]
async fn requests_with_one_defect_are_refused_and_on_record() {
    let rig = rig_without_bounds().await;
    let peer = rig.peer(&rig.world.a_dn.credential);
    let get = |query: &str| Request::get(&format!("/certificate-check{query}"));
    let form = |pairs: &[(&str, &str)]| Request::form("/certificate-check", pairs);
    let long = "x".repeat(300);
    let cases: Vec<(&str, Request, u16, &str)> = vec![
        ("no client_id", get(""), 400, "client_id_missing"),
        ("an empty client_id", get("?client_id="), 400, "client_id_missing"),
        ("client_id twice", get("?client_id=a-dn&client_id=a-dn"), 400, "parameter_repeated"),
        ("client_id twice, one empty", get("?client_id=a-dn&client_id="), 400, "parameter_repeated"),
        ("another parameter twice", get("?client_id=a-dn&x=1&x=2"), 400, "parameter_repeated"),
        ("a client_id that cannot be one", get("?client_id=a%20b"), 400, "client_id_malformed"),
        ("a client_id that is too long", get(&format!("?client_id={long}")), 400, "client_id_malformed"),
        ("a query that is no form", get("?client_id=%zz"), 400, "body_malformed"),
        ("NUL in the query", get("?client_id=a%00"), 400, "client_id_malformed"),
        ("no host", about("a-dn").without_header("Host"), 400, "host_malformed"),
        ("two hosts", about("a-dn").with_header("Host", "evil.example"), 400, "host_malformed"),
        ("a form without client_id", form(&[("x", "1")]), 400, "client_id_missing"),
        ("client_id twice in a form", form(&[("client_id", "a-dn"), ("client_id", "b")]), 400, "parameter_repeated"),
        (
            "client_id in the query of a POST",
            Request { target: "/certificate-check?client_id=a-dn".to_owned(), ..form(&[("client_id", "a-dn")]) },
            400,
            "parameter_in_query",
        ),
        ("a POST of JSON", Request::post("/certificate-check", b"{}".to_vec()), 415, "unsupported_media_type"),
        ("a large form", form(&[("client_id", "a-dn"), ("x", &"y".repeat(17_000))]), 413, "body_too_large"),
    ];
    for (defect, request, status, reason) in cases {
        let answer = peer.ask(rig.address, &request).await.unwrap();
        assert_eq!((answer.status, answer.error().as_str()), (status, "invalid_request"), "{defect}: {answer}");
        assert_eq!(answer.header("cache-control"), Some("no-store"), "{defect}");
        let record = rig.last_record().await;
        assert_eq!((&record["kind"], &record["reason"]), (&"checks".into(), &reason.into()), "{defect}");
        assert_eq!(record["outcome"], "checked", "{defect}");
    }
    for method in ["PUT", "DELETE", "PATCH", "OPTIONS", "TRACE"] {
        let request = Request { method: method.to_owned(), ..about("a-dn") };
        let answer = peer.ask(rig.address, &request).await.unwrap();
        assert_eq!((answer.status, answer.header("allow")), (405, Some("GET,HEAD,POST")), "{method}: {answer}");
    }
    for path in ["/certificate-check/", "//certificate-check", "/Certificate-Check"] {
        let answer = peer.ask(rig.address, &Request::get(&format!("{path}?client_id=a-dn"))).await.unwrap();
        assert_eq!(answer.status, 404, "{path}: {answer}");
    }
}

/// Certificates in headers gain nothing.
#[tokio::test]
async fn a_certificate_in_a_header_is_none() {
    let rig = rig_without_bounds().await;
    let pem = rig.world.a_dn.credential.chain_pem().replace('\n', " ");
    let request = about("a-dn").with_header("X-Client-Cert", &pem).with_header("Client-Cert", ":AAAA:");
    let answer = rig.anonymous().ask(rig.address, &request).await.unwrap();
    assert!(String::from_utf8_lossy(&answer.body).contains("No certificate came"), "{answer}");
}

#[tokio::test]
async fn a_certificate_may_ask_ten_times_a_minute() {
    let rig = Rig::start().await;
    let peer = rig.peer(&rig.world.a_dn.credential);
    let mut connection = peer.connect(rig.address).await.unwrap();
    for _ in 0..10 {
        assert_eq!(connection.ask(&about("a-dn")).await.unwrap().status, 200);
    }
    let refused = connection.ask(&about("a-dn")).await.unwrap();
    assert_eq!((refused.status, refused.error().as_str()), (429, "invalid_request"), "{refused}");
    assert_eq!(refused.header("retry-after"), Some("6"));
    let record = rig.last_record().await;
    assert_eq!((&record["kind"], &record["reason"]), (&"checks".into(), &"too_many_requests".into()));
    // On a new connection it is the same certificate; about another client too; and a token is none of its business.
    assert_eq!(peer.ask(rig.address, &about("a-two")).await.unwrap().status, 429);
    assert_eq!(rig.ask(&rig.world.a_dn).await.status, 200);
    // Both edges of the six seconds after which there is one more.
    rig.clock.advance(Duration::from_millis(5_999));
    let refused = peer.ask(rig.address, &about("a-dn")).await.unwrap();
    assert_eq!((refused.status, refused.header("retry-after")), (429, Some("1")), "{refused}");
    rig.clock.advance(Duration::from_millis(1));
    assert_eq!(peer.ask(rig.address, &about("a-dn")).await.unwrap().status, 200);
    assert_eq!(peer.ask(rig.address, &about("a-dn")).await.unwrap().status, 429);
    // Another certificate has an allowance of its own.
    let other = rig.peer(&rig.world.a_two.credential);
    assert_eq!(other.ask(rig.address, &about("a-two")).await.unwrap().status, 200);
}

#[tokio::test]
async fn an_address_may_ask_sixty_times_a_minute_whatever_it_shows() {
    let rig = Rig::start().await;
    let world = &rig.world;
    // Without a certificate the address alone counts, and with a new one each time as well.
    let mut connection = rig.anonymous().connect(rig.address).await.unwrap();
    for _ in 0..58 {
        assert_eq!(connection.ask(&about("a-dn")).await.unwrap().status, 200);
    }
    for status in [200, 200, 429, 429] {
        let new = world.a_root.issue(&Template::client(subject_of_a("a-dn"), world.now), KeyKind::P256);
        let answer = rig.peer(&new).ask(rig.address, &about("a-dn")).await.unwrap();
        assert_eq!(answer.status, status, "{answer}");
    }
    rig.clock.advance(Duration::from_millis(999));
    assert_eq!(connection.ask(&about("a-dn")).await.unwrap().status, 429);
    rig.clock.advance(Duration::from_millis(1));
    assert_eq!(connection.ask(&about("a-dn")).await.unwrap().status, 200);
}

/// Before any work: a body that never comes is not waited for.
#[tokio::test]
async fn whoever_asks_too_often_is_refused_before_the_body_is_read() {
    let rig = Rig::start().await;
    let peer = rig.peer(&rig.world.a_dn.credential);
    let mut connection = peer.connect(rig.address).await.unwrap();
    for _ in 0..10 {
        assert_eq!(connection.ask(&about("a-dn")).await.unwrap().status, 200);
    }
    let mut request = Request::form("/certificate-check", &[("client_id", "a-dn")]).to_bytes();
    request.truncate(request.len() - 4);
    connection.send(&request).await.unwrap();
    assert_eq!(connection.read_answer(false).await.unwrap().status, 429);
}
