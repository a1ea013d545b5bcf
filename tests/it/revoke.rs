//! `POST /revoke`: a client ends tokens of its own, and nobody else's (RFC 7009).

use std::time::Duration;

use countersign::registry::token::{AskedBy, KnownToken, REVOKED_TOKENS, TokenRevocation};
use countersign::registry::{ClientId, ParticipantId, ResourceIndicator};
use countersign_conformance::forge::{Members, Signature, compact};
use countersign_conformance::pki::{Credential, Template};
use countersign_conformance::{JwsAlgorithm, Key, KeyKind};
use countersign_resource_server::status::MarkKind;
use countersign_resource_server::time::Clock;
use countersign_resource_server::token::jws::SigningAlgorithm;
use serde_json::Value;

use crate::circle::{call, calls};
use crate::rig::{Engine, Rig, Time};
use crate::token;
use crate::wire::{Answer, Request};
use crate::world::{ACCOUNTS, ASSERTION_TYPE, Party, subject_of_a};

/// `party` wants `token` dead.
fn revoke(party: &Party, token: &str) -> Request {
    Request::form("/revoke", &[("client_id", party.id), ("token", token)])
}

async fn revoked(rig: &Rig, party: &Party, token: &str) -> Answer {
    rig.peer(&party.credential).ask(rig.address, &revoke(party, token)).await.unwrap()
}

/// The marks of single tokens.
async fn marks(rig: &Rig) -> Vec<String> {
    let marks = rig.app.registry.marks(rig.app.clock.now()).await.unwrap().marks;
    marks.into_iter().filter(|mark| mark.kind == MarkKind::Jti).map(|mark| mark.id).collect()
}

/// The claims of a token, and its header.
fn bent(token: &str, change: impl FnOnce(&mut Value, &mut Value)) -> (Value, Value) {
    use base64::Engine;
    use base64::engine::general_purpose::URL_SAFE_NO_PAD;
    let mut parts = token.split('.').map(|part| URL_SAFE_NO_PAD.decode(part).unwrap());
    let mut part = || serde_json::from_slice(&parts.next().unwrap()).unwrap();
    let (mut header, mut claims): (Value, Value) = (part(), part());
    change(&mut header, &mut claims);
    (header, claims)
}

/// What was answered, and what is on record of it.
async fn told(rig: &Rig, answer: &Answer, status: u16, error: &str, outcome: &str, reason: Option<&str>) -> Value {
    assert_eq!((answer.status, answer.error().as_str()), (status, error), "{answer}");
    assert_eq!(answer.header("cache-control"), Some("no-store"), "{answer}");
    let record = rig.last_record().await;
    assert_eq!((record["kind"].as_str(), record["outcome"].as_str()), (Some("revocation"), Some(outcome)), "{record}");
    assert_eq!(record["reason"].as_str(), reason, "{record}");
    assert_eq!(record["request_id"].as_str(), answer.header("x-request-id"), "{record}");
    record
}

#[tokio::test]
async fn a_revoked_token_opens_nothing_any_more() {
    for engine in Engine::every() {
        let rig = Rig::on(&engine, Time::Machine).await;
        let api = rig.guarded_api().await;
        let party = &rig.world.a_dn;
        let (token, other) = (rig.ask(party).await.token(), rig.ask(party).await.token());
        for good in [&token, &other] {
            assert_eq!(calls(&rig, &api, &party.credential, &call(good)).await.status, 200);
        }
        let answer = revoked(&rig, party, &token).await;
        assert_eq!((answer.status, answer.body.len()), (200, 0), "{answer}");
        let dead = tokio::time::timeout(Duration::from_secs(1), async {
            while calls(&rig, &api, &party.credential, &call(&token)).await.status != 401 {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        });
        assert!(dead.await.is_ok(), "alive a second later on {engine:?}");
        assert_eq!(calls(&rig, &api, &party.credential, &call(&other)).await.status, 200, "this one alone");
        assert_eq!(rig.ask(party).await.status, 200, "and no new one is hindered");
        rig.stop().await;
    }
}

#[tokio::test]
async fn it_is_on_record_and_on_this_nodes_list_before_the_answer() {
    for engine in Engine::every() {
        let rig = Rig::on(&engine, Time::Standing).await;
        let party = &rig.world.a_dn;
        let answer = rig.ask(party).await.token();
        let jti = token::read(&rig, &answer).await.claims["jti"].as_str().unwrap().to_owned();
        let before = rig.app.status.current().number;
        let revoked = revoked(&rig, party, &answer).await;
        assert!(rig.app.status.current().number > before, "the list is another by then");
        let record = told(&rig, &revoked, 200, "", "revoked", None).await;
        assert_eq!((record["token"]["jti"].as_str(), record["authenticated"].as_bool()), (Some(&*jti), Some(true)));
        assert!(!record.to_string().contains(&answer), "the token itself is not on record");
        assert_eq!(marks(&rig).await, std::slice::from_ref(&jti));
        let history = rig.app.registry.history(countersign::registry::RegistryVersion(0), None, 1_000).await.unwrap();
        let last = history.last().unwrap();
        assert_eq!((last.action.as_str(), last.subject.as_str()), ("token.revoke", format!("token:{jti}").as_str()));
        rig.stop().await;
    }
}

#[tokio::test]
async fn by_every_way_to_authenticate() {
    let rig = Rig::start().await;
    let world = &rig.world;
    for party in [&world.a_dn, &world.a_dns, &world.a_self, &world.a_required] {
        let token = rig.ask(party).await.token();
        told(&rig, &revoked(&rig, party, &token).await, 200, "", "revoked", None).await;
    }
    let party = &world.a_jwt;
    let peer = rig.peer(&party.credential);
    let asked = party.request_with(&party.assertion(world, "one").compact());
    let token = peer.ask(rig.address, &asked).await.unwrap().token();
    let with = |jti: &str| {
        let assertion = party.assertion(world, jti).compact();
        Request::form(
            "/revoke",
            &[("token", &token), ("client_assertion_type", ASSERTION_TYPE), ("client_assertion", &assertion)],
        )
    };
    let replayed = peer.ask(rig.address, &with("one")).await.unwrap();
    told(&rig, &replayed, 400, "invalid_client", "refused", Some("assertion_replayed")).await;
    assert_eq!(marks(&rig).await.len(), 4, "a replayed assertion kills nothing");
    let answer = peer.ask(rig.address, &with("two")).await.unwrap();
    let record = told(&rig, &answer, 200, "", "revoked", None).await;
    assert_eq!(record["token"]["assertion_jti"], "two");
    let without = peer.ask(rig.address, &revoke(party, &token)).await.unwrap();
    assert_eq!(without.error(), "invalid_client", "{without}");
}

/// RFC 7009 §2.1 asks for the client, not for the certificate of the token.
#[tokio::test]
async fn under_another_certificate_of_the_same_client() {
    let rig = Rig::start().await;
    let party = &rig.world.a_dn;
    let token = rig.ask(party).await.token();
    let template = Template::client(subject_of_a(party.id), rig.world.now);
    let renewed = Party { credential: rig.world.a_issuing().issue(&template, KeyKind::P256), ..party.clone() };
    told(&rig, &revoked(&rig, &renewed, &token).await, 200, "", "revoked", None).await;
}

#[tokio::test]
async fn the_token_of_another_client_lives_on() {
    let rig = Rig::start().await;
    let (own, other) = (&rig.world.a_dn, &rig.world.a_two);
    let token = rig.ask(other).await.token();
    let answer = revoked(&rig, own, &token).await;
    let record = told(&rig, &answer, 400, "invalid_grant", "refused", Some("token_of_another_client")).await;
    assert_eq!((record["client_id"].as_str(), record["token"]["client_id"].as_str()), (Some("a-dn"), Some("a-two")));
    // Nor with its name on somebody else's certificate.
    let borrowed = Request::form("/revoke", &[("client_id", other.id), ("token", &token)]);
    let answer = rig.peer(&own.credential).ask(rig.address, &borrowed).await.unwrap();
    assert_eq!((answer.status, answer.error().as_str()), (400, "invalid_client"));
    let record = rig.last_record().await;
    assert_eq!((record["kind"].as_str(), record["first"]["kind"].as_str()), (Some("refusals"), Some("revocation")));
    assert_eq!(marks(&rig).await, [""; 0]);
}

#[tokio::test]
async fn what_is_no_token_is_answered_like_a_dead_one() {
    let rig = Rig::start().await;
    let party = &rig.world.a_dn;
    let good = rig.ask(party).await.token();
    let stranger = Key::generate(KeyKind::P256);
    let signing = |typ: &str, claims: &Value| {
        let keys = rig.app.mint.keys().current();
        let key = keys.signing(SigningAlgorithm::ES256, rig.clock.now()).unwrap();
        key.sign(typ, claims.to_string().as_bytes()).unwrap()
    };
    let (header, claims) = bent(&good, |_, _| {});
    let (header_text, claims_text) = (header.to_string(), claims.to_string());
    let foreign = bent(&good, |_, claims| claims["iss"] = "https://another.example".into()).1;
    let none = bent(&good, |header, _| header["alg"] = "none".into()).0.to_string();
    let hs256 = bent(&good, |header, _| header["alg"] = "HS256".into()).0.to_string();
    let unknown = bent(&good, |header, _| header["kid"] = "another".into()).0.to_string();
    let huge = format!("{}.{}", good, "A".repeat(12_000));
    for (what, token, reason) in [
        ("a word", "x".to_owned(), "token_malformed"),
        ("two dots", "..".to_owned(), "token_header"),
        ("a huge one", huge, "token_malformed"),
        ("a name of one", claims["jti"].as_str().unwrap().to_owned(), "token_malformed"),
        (
            "a stranger's signature under our kid",
            compact(&header_text, &claims_text, Signature::By(JwsAlgorithm::Es256, &stranger)),
            "token_signature",
        ),
        ("no signature", compact(&none, &claims_text, Signature::None), "token_algorithm"),
        ("a shared secret", compact(&hs256, &claims_text, Signature::Hs256(b"kid")), "token_algorithm"),
        (
            "a stranger's key",
            compact(&unknown, &claims_text, Signature::By(JwsAlgorithm::Es256, &stranger)),
            "token_kid_unknown",
        ),
        ("another issuer's by our key", signing("at+jwt", &foreign), "token_issuer"),
        ("another object of ours", signing("token-introspection+jwt", &claims), "token_type"),
        ("a revocation list", rig.app.status.current().compact.to_string(), "token_type"),
        ("claims that are none", signing("at+jwt", &Value::Null), "token_claims"),
        ("no cnf", signing("at+jwt", &serde_json::json!({"iss": rig.world.issuer, "jti": "x"})), "token_cnf_missing"),
        (
            "the claims twice over",
            {
                let twice = Members::new().with("iss", rig.world.issuer.as_str()).and("iss", "x").to_json();
                let keys = rig.app.mint.keys().current();
                keys.signing(SigningAlgorithm::ES256, rig.clock.now())
                    .unwrap()
                    .sign("at+jwt", twice.as_bytes())
                    .unwrap()
            },
            "token_claims",
        ),
    ] {
        println!("{what}");
        let record = told(&rig, &revoked(&rig, party, &token).await, 200, "", "nothing_to_revoke", Some(reason)).await;
        assert_eq!(record["client_id"], "a-dn");
        assert!(record.get("token").is_none(), "nothing of it is believed: {record}");
    }
    assert_eq!(marks(&rig).await, [""; 0]);
}

/// RFC 7519 §4.1.4: on or after `exp`; resource servers grant ten seconds more, and until then somebody may take it.
#[tokio::test]
async fn an_expired_token_needs_no_mark() {
    for (past, outcome, reason) in [(9, "revoked", None), (10, "nothing_to_revoke", Some("token_expired"))] {
        let rig = Rig::start().await;
        let party = &rig.world.a_dn;
        let answer = rig.ask(party).await;
        let lives = u64::try_from(answer.json()["expires_in"].as_i64().unwrap()).unwrap();
        let token = answer.token();
        rig.clock.advance(Duration::from_secs(lives + past));
        let record = told(&rig, &revoked(&rig, party, &token).await, 200, "", outcome, reason).await;
        assert!(record["token"]["jti"].is_string(), "{record}");
        assert_eq!(marks(&rig).await.len(), usize::from(reason.is_none()));
        rig.stop().await;
    }
}

/// A calendar that is stepped back makes a token's `iat` lie ahead. It will be good again when the calendar is right.
#[tokio::test]
async fn a_token_of_later_is_revoked_all_the_same() {
    let rig = Rig::start().await;
    let party = &rig.world.a_dn;
    rig.clock.advance(Duration::from_secs(120));
    let token = rig.ask(party).await.token();
    rig.clock.step_to(rig.clock.now().before(Duration::from_secs(60)));
    assert_eq!(revoked(&rig, party, &token).await.status, 200);
    assert_eq!(marks(&rig).await.len(), 1);
}

#[tokio::test]
async fn a_dead_token_gets_no_second_mark() {
    let rig = Rig::start().await;
    let party = &rig.world.a_dn;
    let token = rig.ask(party).await.token();
    told(&rig, &revoked(&rig, party, &token).await, 200, "", "revoked", None).await;
    let version = rig.app.registry.version();
    told(&rig, &revoked(&rig, party, &token).await, 200, "", "already_dead", Some("revoked_jti")).await;
    assert_eq!(rig.app.registry.version(), version);
}

#[tokio::test]
async fn a_token_twice_at_the_same_moment() {
    for engine in Engine::every() {
        let rig = Rig::on(&engine, Time::Standing).await;
        let another = rig.another_node().await;
        let party = &rig.world.a_dn;
        let token = rig.ask(party).await.token();
        let before = rig.app.registry.version().0;
        let (peer, request) = (rig.peer(&party.credential), revoke(party, &token));
        let asked = (0..8).map(|turn| {
            let address = if turn % 2 == 0 { rig.address } else { another.address };
            peer.ask(address, &request)
        });
        for answer in futures_util::future::join_all(asked).await {
            assert_eq!(answer.unwrap().status, 200, "on {engine:?}");
        }
        assert_eq!(marks(&rig).await.len(), 1);
        assert_eq!(rig.app.registry.catch_up().await.unwrap().0, before + 1, "one change of the registry");
        another.stop().await;
        rig.stop().await;
    }
}

#[tokio::test]
async fn the_thousand_and_first_token() {
    let rig = Rig::start().await;
    let party = &rig.world.a_dn;
    let known = KnownToken {
        client_id: ClientId::parse(party.id).unwrap(),
        participant_id: ParticipantId::parse("partner-a").unwrap(),
        aud: ResourceIndicator::parse(ACCOUNTS).unwrap(),
        expires_at: rig.clock.now().after(Duration::from_secs(300)),
        status_list: None,
    };
    for number in 1..REVOKED_TOKENS {
        let revocation =
            TokenRevocation { jti: format!("jti-{number}"), token: Some(known.clone()), asked_by: AskedBy::Client };
        rig.app.registry.revoke_token(revocation, rig.explanation()).await.unwrap();
    }
    let (last, beyond) = (rig.ask(party).await.token(), rig.ask(party).await.token());
    told(&rig, &revoked(&rig, party, &last).await, 200, "", "revoked", None).await;
    let answer = revoked(&rig, party, &beyond).await;
    // RFC 7009 §2.2.1: 503 says that the token still exists.
    told(&rig, &answer, 503, "temporarily_unavailable", "refused", Some("revocation_limit_reached")).await;
    assert_eq!(answer.header("retry-after"), Some("60"));
    assert_eq!(marks(&rig).await.len(), REVOKED_TOKENS);
    // It gets tokens as before, another client is not held up, and room comes with time.
    assert_eq!(rig.ask(party).await.status, 200);
    let other = &rig.world.a_two;
    let token = rig.ask(other).await.token();
    told(&rig, &revoked(&rig, other, &token).await, 200, "", "revoked", None).await;
    rig.clock.advance(Duration::from_secs(361));
    let token = rig.ask(party).await.token();
    told(&rig, &revoked(&rig, party, &token).await, 200, "", "revoked", None).await;
}

#[tokio::test]
async fn a_hint_changes_nothing() {
    let rig = Rig::start().await;
    let party = &rig.world.a_dn;
    for hint in ["access_token", "refresh_token", "whatever", "", "\u{1F600}"] {
        let token = rig.ask(party).await.token();
        let pairs = [("client_id", party.id), ("token", token.as_str()), ("token_type_hint", hint)];
        let answer = rig.peer(&party.credential).ask(rig.address, &Request::form("/revoke", &pairs)).await.unwrap();
        told(&rig, &answer, 200, "", "revoked", None).await;
    }
}

/// Requests with one defect each: refused, and the token lives.
#[tokio::test]
async fn no_request_with_a_defect_kills_a_token() {
    let rig = Rig::start().await;
    let party = &rig.world.a_dn;
    let token = rig.ask(party).await.token();
    let right = [("client_id", party.id), ("token", token.as_str())];
    let and = |name, value| Request::form("/revoke", &[&right[..], &[(name, value)]].concat());
    let in_query =
        Request { target: format!("/revoke?token={token}"), ..Request::form("/revoke", &[("client_id", party.id)]) };
    let method = |method: &str| Request { method: method.to_owned(), ..revoke(party, &token) };
    let authorization = revoke(party, &token).with_header("Authorization", "Basic YTpi");
    let as_json = Request::post("/revoke", b"{}".to_vec()).with_header("Content-Type", "application/json");
    let large = Request::form("/revoke", &[("client_id", party.id), ("token", &"x".repeat(20_000))]);
    for (what, request, status, error) in [
        ("no token", Request::form("/revoke", &[("client_id", party.id)]), 400, "invalid_request"),
        ("an empty token", Request::form("/revoke", &[("client_id", party.id), ("token", "")]), 400, "invalid_request"),
        ("no client", Request::form("/revoke", &[("token", &token)]), 400, "invalid_request"),
        ("the token twice", and("token", &token), 400, "invalid_request"),
        ("the client twice", and("client_id", party.id), 400, "invalid_request"),
        (
            "the hint twice",
            Request::form("/revoke", &[&right[..], &[("token_type_hint", "a"); 2]].concat()),
            400,
            "invalid_request",
        ),
        ("a secret", and("client_secret", "x"), 400, "invalid_request"),
        ("an assertion", and("client_assertion", "x"), 400, "invalid_request"),
        ("the token in the query", in_query, 400, "invalid_request"),
        ("GET", method("GET"), 405, "invalid_request"),
        ("PUT", method("PUT"), 405, "invalid_request"),
        ("DELETE", method("DELETE"), 405, "invalid_request"),
        ("JSON", as_json, 415, "invalid_request"),
        ("a token larger than a body may be", large, 413, "invalid_request"),
        ("the Authorization header", authorization, 401, "invalid_client"),
    ] {
        let answer = rig.peer(&party.credential).ask(rig.address, &request).await.unwrap();
        assert_eq!((answer.status, answer.error().as_str()), (status, error), "{what}: {answer}");
    }
    for (what, credential) in [
        ("a stranger's certificate", Some(rig.world.stranger_root.client("a-dn"))),
        ("another client's certificate", Some(rig.world.a_two.credential.clone())),
        ("the certificate rewritten", party.credential.rewritten()),
        ("no certificate", None::<Credential>),
    ] {
        let peer = credential.as_ref().map_or_else(|| rig.anonymous(), |credential| rig.peer(credential));
        let answer = peer.ask(rig.address, &revoke(party, &token)).await.unwrap();
        assert_eq!((answer.status, answer.error().as_str()), (400, "invalid_client"), "{what}: {answer}");
    }
    for party in [&rig.world.a_suspended, &rig.world.a_revoked, &rig.world.d_dn] {
        let answer = revoked(&rig, party, &token).await;
        assert_eq!((answer.status, answer.error().as_str()), (400, "invalid_client"), "{}: {answer}", party.id);
    }
    assert_eq!(marks(&rig).await, [""; 0]);
}

#[tokio::test]
async fn the_endpoint_is_in_the_metadata() {
    let rig = Rig::start().await;
    let metadata = rig.anonymous().ask(rig.address, &Request::get("/.well-known/oauth-authorization-server")).await;
    let metadata = metadata.unwrap().json();
    assert_eq!(metadata["revocation_endpoint"], format!("{}/revoke", rig.world.issuer));
    for what in ["auth_methods_supported", "auth_signing_alg_values_supported"] {
        assert_eq!(metadata[format!("revocation_endpoint_{what}")], metadata[format!("token_endpoint_{what}")]);
    }
}

/// An operator has a `jti` out of a log, and not the token.
#[tokio::test]
async fn an_operator_ends_a_token_by_its_name() {
    for engine in Engine::every() {
        let rig = Rig::on(&engine, Time::Machine).await;
        let api = rig.guarded_api().await;
        let party = &rig.world.a_dn;
        let answer = rig.ask(party).await;
        let (token, request_id) = (answer.token(), answer.header("x-request-id").unwrap().to_owned());
        let jti = token::read(&rig, &token).await.claims["jti"].as_str().unwrap().to_owned();
        assert_eq!(calls(&rig, &api, &party.credential, &call(&token)).await.status, 200);
        let command = ["--json", "token", "revoke", "--jti", &jti, "--why", "found in a log"];
        let done = rig.command(&command).await;
        assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
        let told: Value = serde_json::from_slice(&done.stdout).unwrap();
        assert_eq!((told["client_id"].as_str(), told["aud"].as_str()), (Some(party.id), Some(ACCOUNTS)), "{told}");
        let dead = tokio::time::timeout(Duration::from_secs(1), async {
            while calls(&rig, &api, &party.credential, &call(&token)).await.status != 401 {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        });
        assert!(dead.await.is_ok(), "alive a second later on {engine:?}");
        let again = rig.command(&command).await;
        assert_eq!(again.status.code(), Some(1));
        assert!(String::from_utf8_lossy(&again.stderr).contains("is revoked already"));
        // The history says why, and the log tells the whole story of the token.
        let history = rig.command(&["history", "--subject", &format!("token:{jti}")]).await;
        assert!(String::from_utf8_lossy(&history.stdout).contains("found in a log"));
        rig.app.audit.flush().await;
        let story = rig.command(&["--json", "audit", "query", "--jti", &jti]).await;
        let story = String::from_utf8_lossy(&story.stdout).into_owned();
        assert!(story.contains(&request_id) && story.contains("token.revoke"), "{story}");
        rig.stop().await;
    }
}

#[tokio::test]
async fn an_operator_ends_a_token_that_nobody_has_a_record_of() {
    let rig = Rig::start().await;
    let done = rig.command(&["token", "revoke", "--jti", "01a3185c507bUnknown"]).await;
    assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
    assert!(String::from_utf8_lossy(&done.stdout).contains("check the jti"));
    assert_eq!(marks(&rig).await, ["01a3185c507bUnknown"]);
    for none in ["", "two words", "line\nend", &"x".repeat(257)] {
        assert_eq!(rig.command(&["token", "revoke", "--jti", none]).await.status.code(), Some(2), "{none:?}");
    }
}

/// `countersign key retire --now`: what the key has signed is dead at a resource server that still holds the key.
#[tokio::test]
async fn a_withdrawn_signing_key_takes_its_tokens_along() {
    for engine in Engine::every() {
        let rig = Rig::on(&engine, Time::Machine).await;
        let api = rig.guarded_api().await;
        let party = &rig.world.a_dn;
        let token = rig.ask(party).await.token();
        assert_eq!(calls(&rig, &api, &party.credential, &call(&token)).await.status, 200);
        let kid = token::read(&rig, &token).await.header["kid"].as_str().unwrap().to_owned();
        let done = rig.command(&["key", "retire", "--now", &kid, "--why", "stolen"]).await;
        assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
        let dead = tokio::time::timeout(Duration::from_secs(1), async {
            while calls(&rig, &api, &party.credential, &call(&token)).await.status != 401 {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        });
        assert!(dead.await.is_ok(), "alive a second later on {engine:?}");
        let gone = tokio::time::timeout(Duration::from_secs(10), async {
            while rig
                .app
                .mint
                .keys()
                .current()
                .signing(SigningAlgorithm::ES256, rig.app.clock.now())
                .unwrap()
                .kid()
                .as_ref()
                == kid
            {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        });
        assert!(gone.await.is_ok(), "it still signs");
        // The next key's tokens are good, and so are its lists.
        let next = rig.ask(party).await.token();
        assert_eq!(calls(&rig, &api, &party.credential, &call(&next)).await.status, 200);
        // A token of a withdrawn key is none any more.
        let answer = revoked(&rig, party, &token).await;
        told(&rig, &answer, 200, "", "nothing_to_revoke", Some("token_kid_unknown")).await;
        let history = rig.command(&["history", "--subject", &format!("signing_key:{kid}")]).await;
        let history = String::from_utf8_lossy(&history.stdout).into_owned();
        assert!(history.contains("signing_key.withdraw") && history.contains("stolen"), "{history}");
        let again = rig.command(&["key", "retire", "--now", &kid]).await;
        assert!(String::from_utf8_lossy(&again.stderr).contains("was retired at"), "{again:?}");
        rig.stop().await;
    }
}
