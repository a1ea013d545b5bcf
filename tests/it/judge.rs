//! What a FAPI 2.0 client-credentials judge looks at (FAPI 2.0 Security Profile Final §5.3.2, RFC 8414, RFC 8705 §3.3).

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::rig::Rig;
use crate::wire::Request;

#[tokio::test]
async fn the_metadata_says_what_is_so() {
    let rig = Rig::start().await;
    let issuer = &rig.world.issuer;
    let answer =
        rig.anonymous().ask(rig.address, &Request::get("/.well-known/oauth-authorization-server")).await.unwrap();
    assert_eq!(answer.status, 200);
    assert_eq!(answer.header("content-type"), Some("application/json"), "RFC 8414 §3.2");
    let metadata = answer.json();
    assert_eq!(metadata["issuer"], *issuer, "RFC 8414 §3.3");
    assert_eq!(metadata["token_endpoint"], format!("{issuer}/token"));
    assert_eq!(metadata["jwks_uri"], format!("{issuer}/jwks"));
    assert_eq!(metadata["tls_client_certificate_bound_access_tokens"], true, "RFC 8705 §3.3");
    assert_eq!(metadata["grant_types_supported"], serde_json::json!(["client_credentials"]));
    assert_eq!(metadata["response_types_supported"], serde_json::json!([]));
    let listed = |name: &str| -> Vec<String> {
        metadata[name].as_array().unwrap().iter().map(|value| value.as_str().unwrap().to_owned()).collect()
    };
    let methods = listed("token_endpoint_auth_methods_supported");
    for method in ["tls_client_auth", "self_signed_tls_client_auth", "private_key_jwt"] {
        assert!(methods.iter().any(|own| own == method), "{methods:?}");
    }
    let algorithms = listed("token_endpoint_auth_signing_alg_values_supported");
    assert!(!algorithms.iter().any(|own| own.starts_with("RS") || own == "none"), "FAPI 2.0 §5.4.1: {algorithms:?}");
    for algorithm in ["ES256", "PS256", "EdDSA"] {
        assert!(algorithms.iter().any(|own| own == algorithm), "{algorithms:?}");
    }
}

#[tokio::test]
async fn the_keys_are_public_and_only_that() {
    let rig = Rig::start().await;
    let answer = rig.anonymous().ask(rig.address, &Request::get("/jwks")).await.unwrap();
    assert_eq!(answer.status, 200);
    assert!(answer.header("cache-control").unwrap().contains("max-age=60"), "{answer}");
    let keys = answer.json();
    let keys = keys["keys"].as_array().unwrap();
    let mut kids = std::collections::BTreeSet::new();
    for key in keys {
        for private in ["d", "p", "q", "dp", "dq", "qi", "k"] {
            assert!(key.get(private).is_none(), "a private member: {private}");
        }
        assert!(kids.insert(key["kid"].as_str().unwrap().to_owned()), "a kid twice");
    }
    assert!(keys.len() >= 2, "two keys from the start");
}

#[tokio::test]
async fn refusals_are_json_without_a_hint() {
    let rig = Rig::start().await;
    let world = &rig.world;
    // Nobody learns which check of identity failed: one text, to the octet.
    let mut texts = std::collections::BTreeSet::new();
    let form = |id: &str| {
        crate::world::form_request(&[("grant_type", "client_credentials".to_owned()), ("client_id", id.to_owned())])
    };
    for id in ["nobody", "a-two", "b-dn", "a-self", "a-jwt", "a-suspended", "d-dn"] {
        let answer = rig.peer(&world.a_dn.credential).ask(rig.address, &form(id)).await.unwrap();
        assert_eq!((answer.status, answer.error().as_str()), (400, "invalid_client"), "{id}: {answer}");
        assert_eq!(answer.header("content-type"), Some("application/json"));
        assert!(answer.header("date").is_some());
        texts.insert(String::from_utf8(answer.body).unwrap());
    }
    let anonymous = rig.anonymous().ask(rig.address, &form("a-dn")).await.unwrap();
    assert_eq!(anonymous.status, 400);
    texts.insert(String::from_utf8(anonymous.body).unwrap());
    let suspended = rig.ask(&world.a_suspended).await;
    texts.insert(String::from_utf8(suspended.body).unwrap());
    assert_eq!(texts.len(), 1, "{texts:?}");
}

#[tokio::test]
async fn a_client_that_used_the_authorization_header_is_challenged() {
    let rig = Rig::start().await;
    let party = &rig.world.a_dn;
    let request = party.request().with_header("Authorization", "Basic YS1kbjp4");
    let answer = rig.peer(&party.credential).ask(rig.address, &request).await.unwrap();
    assert_eq!(answer.status, 401, "RFC 6749 §5.2");
    assert!(answer.header("www-authenticate").unwrap().starts_with("Basic"), "the scheme that was used: {answer}");
}

#[tokio::test]
async fn a_wrong_method_is_told_the_right_one() {
    let rig = Rig::start().await;
    let answer = rig.anonymous().ask(rig.address, &Request::get("/token")).await.unwrap();
    assert_eq!((answer.status, answer.header("allow")), (405, Some("POST")), "RFC 9110 §15.5.6");
    let head = Request { method: "HEAD".to_owned(), ..Request::get("/jwks") };
    let answer = rig.anonymous().ask(rig.address, &head).await.unwrap();
    assert_eq!(answer.status, 200, "HEAD where there is GET: {answer}");
}

/// FAPI 2.0 §5.2.1, RFC 9325 §3.1.1: TLS 1.1 and older are refused, and by an alert.
#[tokio::test]
async fn old_versions_of_tls_are_refused_by_an_alert() {
    let rig = Rig::start().await;
    for (minor, name) in [(0, "SSL 3.0"), (1, "TLS 1.0"), (2, "TLS 1.1")] {
        let mut stream = TcpStream::connect(rig.address).await.unwrap();
        stream.write_all(&client_hello(minor)).await.unwrap();
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer).await.unwrap();
        // RFC 5246 §7.2: record type 21, level fatal; 70 is protocol_version, 40 handshake_failure.
        assert_eq!(answer.first(), Some(&21), "{name}: {answer:02x?}");
        assert_eq!(answer.get(5), Some(&2), "{name}: {answer:02x?}");
        assert!(matches!(answer.get(6), Some(70 | 40)), "{name}: {answer:02x?}");
    }
}

/// A ClientHello of an old version (RFC 4346 §7.4.1.2): two suites every server of its day knew, no extensions.
fn client_hello(minor: u8) -> Vec<u8> {
    let mut body = vec![3, minor];
    body.extend([7; 32]);
    body.push(0);
    body.extend([0, 4, 0x00, 0x2F, 0xC0, 0x13]);
    body.extend([1, 0]);
    let mut handshake = vec![1, 0, 0, body.len() as u8];
    handshake.extend(body);
    let mut record = vec![22, 3, minor.min(1), 0, handshake.len() as u8];
    record.extend(handshake);
    record
}

#[tokio::test]
async fn plain_http_on_the_tls_port_gets_no_answer_of_ours() {
    let rig = Rig::start().await;
    let mut stream = TcpStream::connect(rig.address).await.unwrap();
    stream.write_all(&rig.world.a_dn.request().to_bytes()).await.unwrap();
    let mut answer = Vec::new();
    // Closed, perhaps with what was not read unread.
    drop(stream.read_to_end(&mut answer).await);
    assert!(!String::from_utf8_lossy(&answer).contains("access_token"));
    assert!(!answer.starts_with(b"HTTP/"), "{answer:?}");
}
