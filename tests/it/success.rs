//! What has to be granted: every method, attribute, algorithm and protocol, and both edges of every date.

use std::time::Duration;

use countersign_conformance::forge::Members;
use countersign_conformance::pki::{AltName, Attribute, Name, Template, purpose};
use countersign_conformance::{KeyKind, der};
use countersign_resource_server::time::UnixTime;
use serde_json::json;

use crate::rig::{Engine, Rig, Time};
use crate::token;
use crate::wire::{Peer, Request, Tls};
use crate::world::{ACCOUNTS, PAYMENTS, Party, form_request, subject_of_a};

/// RFC 9068 §2.2, RFC 8705 §3.1, design §4, for every method and attribute, on every engine.
#[tokio::test]
async fn every_method_gets_a_token_that_says_who_what_and_with_which_certificate() {
    for engine in Engine::every() {
        let rig = Rig::on(&engine, Time::Standing).await;
        let world = &rig.world;
        let parties = [
            (&world.a_dn, "partner-a", "ES256"),
            (&world.a_dns, "partner-a", "ES256"),
            (&world.a_uri, "partner-a", "ES256"),
            (&world.a_email, "partner-a", "ES256"),
            (&world.c_ip, "partner-c", "ES256"),
            (&world.a_self, "partner-a", "ES256"),
            (&world.a_jwt, "partner-a", "ES256"),
            (&world.a_jwt_eddsa, "partner-a", "EdDSA"),
            (&world.a_jwt_ps256, "partner-a", "PS256"),
            (&world.a_required, "partner-a", "ES256"),
            (&world.b_dn, "partner-b", "ES256"),
        ];
        for (party, participant, algorithm) in parties {
            let request = match party.signs {
                Some(_) => party.request_with(&party.assertion(world, "first").compact()),
                None => party.request(),
            };
            let answer = rig.peer(&party.credential).ask(rig.address, &request).await.unwrap();
            assert_eq!(answer.status, 200, "{}: {answer}", party.id);
            assert_eq!(answer.header("cache-control"), Some("no-store"));
            assert_eq!(answer.header("pragma"), Some("no-cache"));
            assert_eq!(answer.header("content-type"), Some("application/json"));
            assert!(answer.header("date").is_some());
            let body = answer.json();
            assert_eq!(body["token_type"], "Bearer");
            assert_eq!(body["expires_in"], 300);
            assert_eq!(body["scope"], "accounts:read");

            let token = token::read(&rig, &answer.token()).await;
            assert_eq!(token.header["typ"], "at+jwt", "RFC 9068 §2.1");
            assert_eq!(token.header["alg"], algorithm);
            let claims = &token.claims;
            assert_eq!(claims["iss"], world.issuer);
            assert_eq!(claims["sub"], party.id);
            assert_eq!(claims["client_id"], party.id);
            assert_eq!(claims["aud"], ACCOUNTS);
            assert_eq!(claims["iat"], world.now);
            assert_eq!(claims["exp"], world.now + 300);
            assert_eq!(claims["scope"], "accounts:read");
            assert_eq!(claims["cnf"], json!({ "x5t#S256": party.credential.thumbprint() }), "RFC 8705 §3.1");
            assert_eq!(claims["participant_id"], participant);
            assert_eq!(claims["roles"], json!(["data_consumer"]));
            assert_eq!(claims["environment"], "sandbox");
            assert!(claims["registry_version"].as_i64().unwrap() > 0);
            assert_eq!(claims.get("anchor").is_some(), party.id != "a-self", "{}", party.id);

            let record = rig.last_record().await;
            assert_eq!(record["outcome"], "issued", "{record}");
            assert_eq!(record["token"]["jti"], claims["jti"], "{record}");
            assert!(record.to_string().contains(&party.credential.thumbprint()), "{record}");
        }
        rig.stop().await;
    }
}

#[tokio::test]
async fn every_protocol_and_version_gets_a_token() {
    let rig = Rig::start().await;
    let party = &rig.world.a_dn;
    for tls in [Tls::V1_2, Tls::V1_3] {
        let answer =
            rig.peer_with(&party.credential, tls, &[b"http/1.1"]).ask(rig.address, &party.request()).await.unwrap();
        assert_eq!(answer.status, 200, "{tls:?}: {answer}");
        let mut h2 = rig.peer_with(&party.credential, tls, &[b"h2"]).connect_h2(rig.address).await.unwrap();
        let answer = h2.ask(&party.request()).await.unwrap();
        assert_eq!(answer.status, 200, "{tls:?} over HTTP/2: {answer}");
    }
    // Neither protocol is negotiated: HTTP/1.1 it is.
    let answer = rig.peer_with(&party.credential, Tls::V1_3, &[]).ask(rig.address, &party.request()).await.unwrap();
    assert_eq!(answer.status, 200, "{answer}");
    // A version 1 certificate, in both versions of TLS: possession is proven by the raw key.
    let party = &rig.world.a_self;
    for tls in [Tls::V1_2, Tls::V1_3] {
        let peer = rig.peer_with(&party.credential, tls, &[b"http/1.1"]);
        let answer = peer.ask(rig.address, &party.request()).await.unwrap();
        assert_eq!(answer.status, 200, "version 1 on {tls:?}: {answer}");
    }
}

#[tokio::test]
async fn the_record_says_who_was_at_the_other_end() {
    let rig = Rig::start().await;
    let party = &rig.world.a_dns;
    for (tls, protocol) in [(Tls::V1_2, "TLSv1.2"), (Tls::V1_3, "TLSv1.3")] {
        let peer = rig.peer_with(&party.credential, tls, &[b"http/1.1"]);
        for resumed in [false, true] {
            assert_eq!(peer.ask(rig.address, &party.request()).await.unwrap().status, 200);
            let facts = rig.last_record().await["peer"].take();
            assert_eq!((&facts["protocol"], &facts["resumed"]), (&protocol.into(), &resumed.into()), "{facts}");
            assert!(facts["remote"].as_str().unwrap().starts_with("127.0.0.1:"), "{facts}");
            assert_eq!(facts["thumbprint"], party.credential.thumbprint());
            let certificate = &facts["certificate"];
            assert_eq!((&certificate["subject"], &certificate["issuer"]), (&"".into(), &"CN=Partner Root".into()));
            assert_eq!(certificate["subject_alt_names"], json!(["DNS:client.partner-a.example"]));
        }
    }
}

#[tokio::test]
async fn every_kind_of_key_may_be_a_clients() {
    let rig = Rig::start().await;
    let party = &rig.world.a_dn;
    for kind in [KeyKind::P256, KeyKind::P384, KeyKind::P521, KeyKind::Ed25519, KeyKind::Rsa2048, KeyKind::Rsa4096] {
        for tls in [Tls::V1_2, Tls::V1_3] {
            let credential = rig.world.a_root.issue(&Template::client(subject_of_a("a-dn"), rig.world.now), kind);
            let answer = rig.peer_with(&credential, tls, &[]).ask(rig.address, &party.request()).await;
            let answer = answer.unwrap_or_else(|error| panic!("{kind:?} on {tls:?}: {error}"));
            assert_eq!(answer.status, 200, "{kind:?} on {tls:?}: {answer} {}", rig.last_record().await);
        }
    }
}

#[tokio::test]
async fn forms_that_mean_the_same_are_the_same() {
    let rig = Rig::start().await;
    let party = &rig.world.a_dn;
    let bare = party.request().without_header("Content-Type");
    for media_type in [
        "application/x-www-form-urlencoded",
        "application/x-www-form-urlencoded;charset=UTF-8",
        "application/x-www-form-urlencoded; charset=utf-8",
        "application/x-www-form-urlencoded; charset=\"UTF-8\"",
        "Application/X-WWW-Form-URLEncoded",
    ] {
        granted(&rig, party, media_type, &bare.clone().with_header("Content-Type", media_type)).await;
    }
    let body = "grant_type=client_credentials&client_id=a-dn";
    for (what, body) in [
        ("no scope, no resource", body.to_owned()),
        ("an empty scope", format!("{body}&scope=")),
        ("an empty resource", format!("{body}&resource=")),
        ("an unknown parameter", format!("{body}&note=1&other")),
        ("escapes where none are needed", body.replace("client_id=a", "%63lient_id=%61")),
        ("small letters in escapes", format!("{body}&scope=accounts%3aread")),
        ("an ampersand behind", format!("{body}&")),
        ("two ampersands", body.replace('&', "&&")),
        ("a client_secret without value", format!("{body}&client_secret=")),
    ] {
        let request =
            Request::post("/token", body.into_bytes()).with_header("Content-Type", "application/x-www-form-urlencoded");
        granted(&rig, party, what, &request).await;
    }
    let two = &rig.world.a_two;
    for (scope, resource, audience) in [
        (Some("accounts:read"), None, ACCOUNTS),
        (Some("payments:initiate"), None, PAYMENTS),
        (None, Some(PAYMENTS), PAYMENTS),
        (Some("payments:initiate"), Some(PAYMENTS), PAYMENTS),
    ] {
        let mut form = vec![("grant_type", "client_credentials".to_owned()), ("client_id", two.id.to_owned())];
        form.extend(scope.map(|scope| ("scope", scope.to_owned())));
        form.extend(resource.map(|resource| ("resource", resource.to_owned())));
        let answer = rig.peer(&two.credential).ask(rig.address, &form_request(&form)).await.unwrap();
        let token = token::read(&rig, &answer.token()).await;
        assert_eq!(token.claims["aud"], audience, "RFC 8707 §2");
    }
}

/// A date is good in its first and in its last second (RFC 5280 §4.1.2.5), and not one before or behind: the negative
/// table has those.
#[tokio::test]
async fn certificates_are_good_in_their_first_and_last_second() {
    let rig = Rig::start().await;
    let now = rig.world.now;
    let template = Template::client(subject_of_a("a-dn"), now);
    for (edge, template) in [
        ("first second", Template { not_before: now, ..template.clone() }),
        ("last second", Template { not_after: now, ..template.clone() }),
    ] {
        let credential = rig.world.a_root.issue(&template, KeyKind::P256);
        let answer = rig.peer(&credential).ask(rig.address, &rig.world.a_dn.request()).await.unwrap();
        if edge == "last second" {
            // The certificate is good; a token that ends with it would be dead on arrival, and is refused as such.
            assert_eq!(answer.status, 400, "{edge}: {answer}");
            assert_eq!(answer.json()["error"], "invalid_client", "{edge}");
            assert!(rig.last_record().await.to_string().contains("certificate_ending"), "{edge}");
        } else {
            assert_eq!(answer.status, 200, "{edge}: {answer}");
        }
    }
    // The token ends with the certificate.
    let short = rig.world.a_root.issue(&Template { not_after: now + 60, ..template }, KeyKind::P256);
    let answer = rig.peer(&short).ask(rig.address, &rig.world.a_dn.request()).await.unwrap();
    let token = token::read(&rig, &answer.token()).await;
    assert_eq!(token.claims["exp"], now + 60);
}

/// RFC 5280 §7.1: what compares equal is equal, in whatever string type, case and white space it is written.
#[tokio::test]
async fn names_that_compare_equal_are_the_registered_one() {
    let rig = Rig::start().await;
    let now = rig.world.now;
    let printable = |value: &str| {
        let mut name = Name::of(&[("C", "DE"), ("O", "Partner A")]);
        name.0.push(vec![Attribute::new("CN", value).tagged(der::tag::PRINTABLE_STRING)]);
        name
    };
    for (what, name) in [
        ("as PrintableString", printable("a-dn")),
        ("in capitals", subject_of_a("A-DN")),
        ("the organisation in capitals", Name::of(&[("C", "DE"), ("O", "PARTNER A"), ("CN", "a-dn")])),
        ("the country in small letters", Name::of(&[("C", "de"), ("O", "Partner A"), ("CN", "a-dn")])),
        ("two spaces within", Name::of(&[("C", "DE"), ("O", "Partner  A"), ("CN", "a-dn")])),
        ("spaces around", subject_of_a(" a-dn ")),
    ] {
        let credential = rig.world.a_root.issue(&Template::client(name, now), KeyKind::P256);
        let answer = rig.peer(&credential).ask(rig.address, &rig.world.a_dn.request()).await.unwrap();
        assert_eq!(answer.status, 200, "{what}: {answer} {}", rig.last_record().await);
    }
    let dns = |name: &str| AltName::Dns(name.to_owned());
    for (what, names) in [
        ("in capitals", vec![dns("CLIENT.Partner-A.example")]),
        ("beside another of its own", vec![dns("other.partner-a.example"), dns("client.partner-a.example")]),
    ] {
        let template = Template::client(Name::default(), now).with_alt_names(names);
        let credential = rig.world.a_root.issue(&template, KeyKind::P256);
        let answer = rig.peer(&credential).ask(rig.address, &rig.world.a_dns.request()).await.unwrap();
        assert_eq!(answer.status, 200, "{what}: {answer} {}", rig.last_record().await);
    }
    // A host below another purpose: client and server authentication in one certificate is what many partners have.
    let mut both = Template::client(subject_of_a("a-dn"), now);
    both.purposes.push(purpose::SERVER_AUTH.to_vec());
    let credential = rig.world.a_root.issue(&both, KeyKind::P256);
    let answer = rig.peer(&credential).ask(rig.address, &rig.world.a_dn.request()).await.unwrap();
    assert_eq!(answer.status, 200, "{answer}");
}

#[tokio::test]
async fn paths_that_lead_to_the_anchor_are_taken() {
    let rig = Rig::start().await;
    let world = &rig.world;
    let leaf = Template::client(subject_of_a("a-dn"), world.now);
    let mut four = world.a_root.clone();
    for level in 0..4 {
        four = four.intermediate(&format!("Level {level}"));
    }
    let mut with_root = world.a_issuing().issue(&leaf, KeyKind::P256);
    with_root.chain.push(world.a_root.certificate.clone());
    let crossed = world.stranger_root.cross_signed_by(&world.a_root);
    let paths = [
        ("right under the root", world.a_root.issue(&leaf, KeyKind::P256)),
        ("four intermediates", four.issue(&leaf, KeyKind::P256)),
        ("the root sent along", with_root),
        ("a cross-signed authority", crossed.issue(&leaf, KeyKind::P256)),
    ];
    for (what, credential) in paths {
        let answer = rig.peer(&credential).ask(rig.address, &world.a_dn.request()).await.unwrap();
        assert_eq!(answer.status, 200, "{what}: {answer} {}", rig.last_record().await);
    }
}

/// Both sides of every date of an assertion: the good side is here, the bad one in the negative table.
#[tokio::test]
async fn assertions_are_good_at_every_edge() {
    let rig = Rig::start().await;
    let world = &rig.world;
    let now = world.now;
    let party = &world.a_jwt;
    let claims: [(&str, &dyn Fn(Members) -> Members); 7] = [
        ("exp in a second", &|claims| claims.with("exp", now + 1)),
        ("exp 600 seconds ahead", &|claims| claims.with("exp", now + 600)),
        ("iat 10 seconds ahead", &|claims| claims.with("iat", now + 10)),
        ("nbf 10 seconds ahead", &|claims| claims.with("nbf", now + 10)),
        ("no iat", &|claims| claims.without("iat")),
        ("exp with a fraction", &|claims| claims.with_raw("exp", &format!("{}.5", now + 60))),
        ("a claim nobody knows", &|claims| claims.with("note", json!({ "a": 1 }))),
    ];
    for (what, change) in claims {
        let assertion = party.assertion(world, what).claims(change);
        granted(&rig, party, what, &party.request_with(&assertion.compact())).await;
    }
    let headers: [(&str, &dyn Fn(Members) -> Members); 5] = [
        ("typ JWT", &|header| header.with("typ", "JWT")),
        ("typ in small letters", &|header| header.with("typ", "jwt")),
        ("typ client-authentication+jwt", &|header| header.with("typ", "client-authentication+jwt")),
        ("typ with its prefix", &|header| header.with("typ", "application/client-authentication+jwt")),
        ("no kid, with one key to choose from", &|header| header.without("kid")),
    ];
    for (what, change) in headers {
        let assertion = party.assertion(world, what).header(change);
        granted(&rig, party, what, &party.request_with(&assertion.compact())).await;
    }
    // RFC 7523 §3, RFC 7521 §4.2: the assertion's `sub` names the client where the form does not.
    let assertion = party.assertion(world, "no client_id").compact();
    let form: Vec<_> = party.form_with(&assertion).into_iter().filter(|(name, _)| *name != "client_id").collect();
    granted(&rig, party, "no client_id", &form_request(&form)).await;
}

/// RFC 7523 §3 item 7: good once, on every engine; a refusal further on costs the client no assertion.
#[tokio::test]
async fn an_assertion_is_good_once() {
    for engine in Engine::every() {
        let rig = Rig::on(&engine, Time::Standing).await;
        let world = &rig.world;
        let party = &world.a_jwt;
        let assertion = party.assertion(world, "once").compact();
        let peer = rig.peer(&party.credential);

        let mut refused = party.form_with(&assertion);
        refused.iter_mut().find(|(name, _)| *name == "scope").unwrap().1 = "unknown".to_owned();
        let answer = peer.ask(rig.address, &form_request(&refused)).await.unwrap();
        assert_eq!((answer.status, answer.error().as_str()), (400, "invalid_scope"));

        let request = party.request_with(&assertion);
        assert_eq!(peer.ask(rig.address, &request).await.unwrap().status, 200);
        let answer = peer.ask(rig.address, &request).await.unwrap();
        assert_eq!((answer.status, answer.error().as_str()), (400, "invalid_client"), "{answer}");
        assert_eq!(rig.last_record().await["reason"], "assertion_replayed");
        // Signed anew, the `jti` is the same.
        let again = party.assertion(world, "once").claims(|claims| claims.with("note", "again")).compact();
        let answer = peer.ask(rig.address, &party.request_with(&again)).await.unwrap();
        assert_eq!((answer.status, answer.error().as_str()), (400, "invalid_client"), "{answer}");
        // Another client's `jti` is another one.
        let other = &world.a_jwt_eddsa;
        let request = other.request_with(&other.assertion(world, "once").compact());
        assert_eq!(rig.peer(&other.credential).ask(rig.address, &request).await.unwrap().status, 200);
        rig.stop().await;
    }
}

/// Sixteen connections show the same assertion at once: one of them gets a token.
#[tokio::test]
async fn an_assertion_shown_many_times_at_once_is_good_once() {
    for engine in Engine::every() {
        let rig = Rig::on(&engine, Time::Standing).await;
        let party = &rig.world.a_jwt;
        let request = party.request_with(&party.assertion(&rig.world, "raced").compact());
        let mut connections = Vec::new();
        for _ in 0..16 {
            connections.push(rig.peer(&party.credential).connect(rig.address).await.unwrap());
        }
        let tasks: Vec<_> = connections
            .into_iter()
            .map(|mut connection| {
                let request = request.clone();
                tokio::spawn(async move { connection.ask(&request).await.unwrap().status })
            })
            .collect();
        let mut statuses = Vec::new();
        for task in tasks {
            statuses.push(task.await.unwrap());
        }
        assert_eq!(statuses.iter().filter(|status| **status == 200).count(), 1, "{statuses:?}");
        assert!(statuses.iter().all(|status| [200, 400].contains(status)), "{statuses:?}");
        rig.stop().await;
    }
}

/// A job scheduler starts sixteen workers with a certificate nobody has seen: each of them gets its token.
#[tokio::test]
async fn a_certificate_first_seen_on_many_connections_at_once_is_enrolled_once() {
    for engine in Engine::every() {
        let rig = Rig::on(&engine, Time::Standing).await;
        let party = &rig.world.a_dn;
        for round in 0..4 {
            let template = Template::client(subject_of_a("a-dn"), rig.world.now);
            let credential = rig.world.a_root.issue(&template, KeyKind::P256);
            let mut connections = Vec::new();
            for _ in 0..16 {
                connections.push(rig.peer(&credential).connect(rig.address).await.unwrap());
            }
            let tasks: Vec<_> = connections
                .into_iter()
                .map(|mut connection| {
                    let request = party.request();
                    tokio::spawn(async move { connection.ask(&request).await.unwrap() })
                })
                .collect();
            for task in tasks {
                let answer = task.await.unwrap();
                if answer.status != 200 {
                    panic!("round {round} on {engine:?}: {answer} {:#?}", rig.records(60).await);
                }
            }
        }
        rig.stop().await;
    }
}

/// A certificate never seen before that carries the registered name is enrolled when it is first seen.
#[tokio::test]
async fn a_new_certificate_under_the_registered_name_is_enrolled_on_first_use() {
    let rig = Rig::start().await;
    let world = &rig.world;
    let new = world.a_root.issue(&Template::client(subject_of_a("a-dn"), world.now), KeyKind::P256);
    assert!(rig_certificate(&rig, &crate::rig::thumbprint(&new)).await.is_none());
    let answer = rig.peer(&new).ask(rig.address, &world.a_dn.request()).await.unwrap();
    assert_eq!(answer.status, 200, "{answer}");
    let enrolled = rig_certificate(&rig, &crate::rig::thumbprint(&new)).await.expect("it is on record");
    assert_eq!(enrolled.client_id.as_str(), "a-dn");
    assert_eq!(enrolled.first_seen, Some(UnixTime::from_seconds(world.now)));
    // The second DER of it is not another certificate, and not this one.
    let twin = new.rewritten().unwrap();
    let answer = rig.peer(&twin).ask(rig.address, &world.a_dn.request()).await.unwrap();
    assert_eq!((answer.status, answer.error().as_str()), (400, "invalid_client"));
    assert_eq!(rig.last_record().await["reason"], "certificate_twin");
}

async fn rig_certificate(
    rig: &Rig,
    thumbprint: &countersign::registry::Thumbprint,
) -> Option<countersign::registry::certificate::Certificate> {
    rig.app.registry.certificate(thumbprint).await.unwrap()
}

/// The clock moves: the assertion's and the certificate's ends come by themselves.
#[tokio::test]
async fn time_alone_ends_what_has_an_end() {
    let rig = Rig::start().await;
    let world = &rig.world;
    let party = &world.a_jwt;
    let peer = rig.peer(&party.credential);
    let early = party.assertion(world, "kept for later").compact();
    rig.clock.advance(Duration::from_secs(59));
    assert_eq!(peer.ask(rig.address, &party.request_with(&early)).await.unwrap().status, 200);
    let late = party.assertion(world, "kept too long").compact();
    rig.clock.advance(Duration::from_secs(1));
    let answer = peer.ask(rig.address, &party.request_with(&late)).await.unwrap();
    assert_eq!((answer.status, answer.error().as_str()), (400, "invalid_client"));
    assert_eq!(rig.last_record().await["reason"], "assertion_expired");
    // The entitlement that has not started does, and the one that will end ends.
    let party = &world.a_not_started;
    assert_eq!(rig.ask(party).await.status, 400);
    rig.clock.advance(Duration::from_secs(86_400));
    let answer = rig.ask(party).await;
    assert_eq!(answer.status, 200, "{answer}");
}

async fn granted(rig: &Rig, party: &Party, what: &str, request: &Request) {
    let peer: Peer = rig.peer(&party.credential);
    let answer = peer.ask(rig.address, request).await.unwrap();
    assert_eq!(answer.status, 200, "{what}: {answer} {}", rig.last_record().await);
}
