//! `POST /introspect`: a resource server asks about tokens that are meant for it (RFC 7662, RFC 9701).

use std::time::Duration;

use countersign::registry::client::ClientState;
use countersign::registry::{ClientId, ResourceServerId};
use countersign_conformance::forge::{Signature, compact};
use countersign_conformance::pki::{Credential, Name, Template};
use countersign_conformance::{JwsAlgorithm, Key, KeyKind};
use countersign_resource_server::time::Clock;
use countersign_resource_server::token::jws::SigningAlgorithm;
use serde_json::{Value, json};

use crate::circle::{call, calls};
use crate::rig::{Engine, Rig, Time, thumbprint};
use crate::token;
use crate::wire::{Answer, Request};
use crate::world::ACCOUNTS;

/// A resource server with a certificate of its own, issued by nobody that anybody here knows.
struct Api {
    credential: Credential,
}

impl Api {
    /// The API [`ACCOUNTS`], enrolled.
    async fn accounts(rig: &Rig) -> Self {
        let api = Self { credential: self_signed(rig.world.now) };
        api.enrolled(rig, "accounts", SigningAlgorithm::ES256).await;
        api
    }

    async fn enrolled(&self, rig: &Rig, id: &str, algorithm: SigningAlgorithm) {
        let id = ResourceServerId::parse(id).unwrap();
        let mut record = rig.app.registry.resource_server(&id).await.unwrap().unwrap();
        record.certificates.push(thumbprint(&self.credential));
        record.introspection_signed_response_alg = algorithm;
        rig.app.registry.change_resource_server(record, rig.explanation()).await.unwrap();
    }

    async fn asks(&self, rig: &Rig, request: &Request) -> Answer {
        rig.peer(&self.credential).ask(rig.address, request).await.unwrap()
    }
}

fn self_signed(now: i64) -> Credential {
    Credential::self_signed(&Template::client(Name::common("accounts"), now), KeyKind::P256)
}

fn about(token: &str) -> Request {
    Request::form("/introspect", &[("token", token)])
}

/// Inactive, and nothing else; with this reason on record.
async fn inactive(rig: &Rig, answer: &Answer, reason: &str) {
    assert_eq!((answer.status, answer.json()), (200, json!({ "active": false })), "{reason}: {answer}");
    let record = rig.last_record().await;
    assert_eq!((record["kind"].as_str(), record["outcome"].as_str()), (Some("introspection"), Some("inactive")));
    assert_eq!(record["reason"].as_str(), Some(reason), "{record}");
}

#[tokio::test]
async fn a_token_of_its_own_audience_is_told_whole() {
    for engine in Engine::every() {
        let rig = Rig::on(&engine, Time::Standing).await;
        let api = Api::accounts(&rig).await;
        let party = &rig.world.a_dn;
        let issued = rig.ask(party).await.token();
        let claims = token::read(&rig, &issued).await.claims;
        let answer = api.asks(&rig, &about(&issued)).await;
        assert_eq!((answer.status, answer.header("content-type")), (200, Some("application/json")), "{answer}");
        assert_eq!(answer.header("cache-control"), Some("no-store"));
        let mut told = answer.json();
        assert_eq!(told["cnf"]["x5t#S256"], party.credential.thumbprint());
        let own = told.as_object_mut().unwrap();
        assert_eq!((own.remove("active"), own.remove("token_type")), (Some(true.into()), Some("Bearer".into())));
        assert_eq!(told, claims, "everything that the token says");
        let record = rig.last_record().await;
        assert_eq!(
            (record["kind"].as_str(), record["outcome"].as_str(), record["resource_server"].as_str()),
            (Some("introspection"), Some("active"), Some("accounts"))
        );
        assert_eq!((&record["token"]["jti"], record["client_id"].as_str()), (&claims["jti"], Some(party.id)));
        assert!(!record.to_string().contains(&issued));
        // Each question is a record of its own, however often it is asked.
        for _ in 0..3 {
            api.asks(&rig, &about(&issued)).await;
        }
        assert_eq!(rig.records(4).await.iter().filter(|record| record["kind"] == "introspection").count(), 4);
        rig.stop().await;
    }
}

#[tokio::test]
async fn the_answer_is_signed_where_that_is_asked_for() {
    let rig = Rig::on(&Engine::Sqlite, Time::Machine).await;
    for (id, algorithm, party) in [
        ("accounts", SigningAlgorithm::ES256, &rig.world.a_dn),
        ("vault", SigningAlgorithm::PS256, &rig.world.a_dn),
        ("payments", SigningAlgorithm::EdDSA, &rig.world.a_dn),
    ] {
        let api = Api { credential: self_signed(rig.world.now) };
        api.enrolled(&rig, id, algorithm).await;
        let issued = rig.ask(party).await.token();
        let request =
            about(&issued).without_header("Accept").with_header("Accept", "application/token-introspection+jwt");
        let answer = api.asks(&rig, &request).await;
        assert_eq!(answer.header("content-type"), Some("application/token-introspection+jwt"), "{answer}");
        let compact = String::from_utf8(answer.body).unwrap();
        let read = token::read(&rig, &compact).await;
        assert_eq!((&read.header["typ"], &read.header["alg"]), (&json!("token-introspection+jwt"), &json!(algorithm)));
        let resource = rig.app.registry.resource_server(&ResourceServerId::parse(id).unwrap()).await.unwrap().unwrap();
        assert_eq!(read.claims["aud"], resource.resource.as_str());
        assert_eq!(read.claims["iss"], rig.world.issuer);
        assert!(read.claims["iat"].is_i64());
        let top: Vec<&String> = read.claims.as_object().unwrap().keys().collect();
        assert_eq!(top.len(), 4, "nothing that could be replayed as a token: {top:?}");
        let told = &read.claims["token_introspection"];
        if id == "accounts" {
            assert_eq!(told["active"], true);
            assert_eq!(told["cnf"]["x5t#S256"], party.credential.thumbprint());
            // It is no access token, whoever shows it.
            let guarded = rig.guarded_api().await;
            assert_eq!(calls(&rig, &guarded, &party.credential, &call(&compact)).await.status, 401);
            inactive(&rig, &api.asks(&rig, &about(&compact)).await, "token_type").await;
        } else {
            assert_eq!(told, &json!({ "active": false }), "inactive is signed as well");
        }
    }
}

#[tokio::test]
async fn every_other_token_is_inactive_and_nothing_is_said_of_it() {
    let rig = Rig::start().await;
    let api = Api::accounts(&rig).await;
    let elsewhere = Api { credential: self_signed(rig.world.now) };
    elsewhere.enrolled(&rig, "vault", SigningAlgorithm::ES256).await;
    let good = rig.ask(&rig.world.a_dn).await.token();
    inactive(&rig, &elsewhere.asks(&rig, &about(&good)).await, "token_audience").await;
    let claims = token::read(&rig, &good).await.claims;
    let sign = |typ: &str, claims: &Value| {
        let keys = rig.app.mint.keys().current();
        keys.signing(SigningAlgorithm::ES256, rig.clock.now())
            .unwrap()
            .sign(typ, claims.to_string().as_bytes())
            .unwrap()
    };
    let with = |name: &str, value: Value| {
        let mut claims = claims.clone();
        claims[name] = value;
        sign("at+jwt", &claims)
    };
    let kid = token::read(&rig, &good).await.header["kid"].as_str().unwrap().to_owned();
    let stranger = Key::generate(KeyKind::P256);
    let header = |alg: &str| json!({ "typ": "at+jwt", "alg": alg, "kid": kid }).to_string();
    let text = claims.to_string();
    for (token, reason) in [
        ("x".to_owned(), "token_malformed"),
        ("A".repeat(15_000), "token_malformed"),
        (compact(header("none"), &text, Signature::None), "token_algorithm"),
        (compact(header("ES256"), &text, Signature::By(JwsAlgorithm::Es256, &stranger)), "token_signature"),
        (with("iss", "https://another.example".into()), "token_issuer"),
        (with("aud", json!([ACCOUNTS])), "token_claims"),
        (with("client_id", "nobody".into()), "client_unknown"),
        (sign("JWT", &claims), "token_type"),
    ] {
        inactive(&rig, &api.asks(&rig, &about(&token)).await, reason).await;
    }
    assert_eq!(api.asks(&rig, &about(&good)).await.json()["active"], true);
}

#[tokio::test]
async fn active_until_its_last_second_and_not_one_longer() {
    let rig = Rig::start().await;
    let api = Api::accounts(&rig).await;
    let answer = rig.ask(&rig.world.a_dn).await;
    let lives = u64::try_from(answer.json()["expires_in"].as_i64().unwrap()).unwrap();
    let token = answer.token();
    rig.clock.advance(Duration::from_secs(lives - 1));
    rig.app.status.renew().await.unwrap();
    assert_eq!(api.asks(&rig, &about(&token)).await.json()["active"], true);
    rig.clock.advance(Duration::from_secs(1));
    inactive(&rig, &api.asks(&rig, &about(&token)).await, "token_expired").await;
}

#[tokio::test]
async fn what_is_revoked_is_inactive_at_once() {
    for engine in Engine::every() {
        let rig = Rig::on(&engine, Time::Standing).await;
        let api = Api::accounts(&rig).await;
        let party = &rig.world.a_dn;
        let (one, other) = (rig.ask(party).await.token(), rig.ask(party).await.token());
        let revoke = Request::form("/revoke", &[("client_id", party.id), ("token", &one)]);
        assert_eq!(rig.peer(&party.credential).ask(rig.address, &revoke).await.unwrap().status, 200);
        inactive(&rig, &api.asks(&rig, &about(&one)).await, "revoked_jti").await;
        assert_eq!(api.asks(&rig, &about(&other)).await.json()["active"], true);
        // A suspension is in force here before it returns: the record says so, whether or not the list is another yet.
        let client = || ClientId::parse(party.id).unwrap();
        rig.app.registry.set_client_state(client(), ClientState::Suspended, rig.explanation()).await.unwrap();
        assert_eq!(api.asks(&rig, &about(&other)).await.json(), json!({ "active": false }));
        // What was reinstated brings no old token back.
        let version =
            rig.app.registry.set_client_state(client(), ClientState::Active, rig.explanation()).await.unwrap();
        assert!(rig.app.status.has_come_to(version, Duration::from_secs(10)).await);
        inactive(&rig, &api.asks(&rig, &about(&other)).await, "revoked_client").await;
        rig.stop().await;
    }
}

/// When in doubt, no answer: a list that could not be renewed does not say that anything is good.
#[tokio::test]
async fn a_stale_list_says_nothing() {
    let rig = Rig::start().await;
    let api = Api::accounts(&rig).await;
    let token = rig.ask(&rig.world.a_dn).await.token();
    rig.app.status.renew().await.unwrap();
    rig.clock.advance(Duration::from_secs(30));
    assert_eq!(api.asks(&rig, &about(&token)).await.status, 200);
    rig.app.status.renew().await.unwrap();
    rig.clock.advance(Duration::from_millis(30_001));
    let answer = api.asks(&rig, &about(&token)).await;
    // Signed anew in the background meanwhile, perhaps.
    if answer.status != 200 {
        assert_eq!((answer.status, answer.error().as_str()), (503, "temporarily_unavailable"), "{answer}");
        assert_eq!(rig.last_record().await["reason"], "introspection_unavailable");
    }
}

#[tokio::test]
async fn nobody_but_an_enrolled_resource_server_is_answered() {
    let rig = Rig::start().await;
    let api = Api::accounts(&rig).await;
    let party = &rig.world.a_dn;
    let token = rig.ask(party).await.token();
    let expired = {
        let template =
            Template { not_after: rig.world.now - 1, ..Template::client(Name::common("old"), rig.world.now) };
        let api = Api { credential: Credential::self_signed(&template, KeyKind::P256) };
        api.enrolled(&rig, "accounts", SigningAlgorithm::ES256).await;
        api.credential
    };
    let revoked = {
        let api = Api { credential: self_signed(rig.world.now) };
        api.enrolled(&rig, "accounts", SigningAlgorithm::ES256).await;
        let leaf = countersign::pki::ParsedCertificate::read(api.credential.certificate()).unwrap();
        rig.app.registry.revoke_key(*leaf.key_hash(), rig.explanation()).await.unwrap();
        api.credential
    };
    let retired = {
        let api = Api { credential: self_signed(rig.world.now) };
        api.enrolled(&rig, "payments", SigningAlgorithm::ES256).await;
        let id = ResourceServerId::parse("payments").unwrap();
        rig.app.registry.retire_resource_server(id, rig.explanation()).await.unwrap();
        api.credential
    };
    for (what, credential, reason) in [
        ("a client", Some(party.credential.clone()), "resource_server_unknown"),
        ("a stranger", Some(rig.world.stranger_root.client("accounts")), "resource_server_unknown"),
        ("its own name in another certificate", Some(self_signed(rig.world.now)), "resource_server_unknown"),
        ("its certificate rewritten", api.credential.rewritten(), "resource_server_unknown"),
        ("a certificate that was over a second ago", Some(expired), "resource_server_certificate_out_of_date"),
        ("a revoked key", Some(revoked), "resource_server_key_revoked"),
        ("a retired one", Some(retired), "resource_server_unknown"),
        ("nobody", None, "resource_server_no_certificate"),
    ] {
        let peer = credential.as_ref().map_or_else(|| rig.anonymous(), |credential| rig.peer(credential));
        let answer = peer.ask(rig.address, &about(&token)).await.unwrap();
        assert_eq!((answer.status, answer.error().as_str()), (400, "invalid_client"), "{what}: {answer}");
        let record = rig.last_record().await;
        assert_eq!((record["kind"].as_str(), record["reason"].as_str()), (Some("refusals"), Some(reason)), "{what}");
        assert_eq!(record["first"]["kind"], "introspection", "{what}");
    }
    assert_eq!(api.asks(&rig, &about(&token)).await.json()["active"], true);
}

/// A client of ours is never a resource server by accident, nor the other way round.
#[tokio::test]
async fn a_client_is_no_resource_server_by_any_way() {
    let rig = Rig::start().await;
    let party = &rig.world.a_dn;
    let token = rig.ask(party).await.token();
    let id = || ResourceServerId::parse("accounts").unwrap();
    let mut record = rig.app.registry.resource_server(&id()).await.unwrap().unwrap();
    record.certificates.push(thumbprint(&party.credential));
    assert!(rig.app.registry.change_resource_server(record.clone(), rig.explanation()).await.is_err());
    // Another DER of the client's certificate, whose thumbprint nobody has: the key is the client's.
    let twin = Api { credential: party.credential.rewritten().unwrap() };
    rig.app.registry.flush_seen().await.unwrap();
    let file = rig.file("twin.pem", &twin.credential.chain_pem()).display().to_string();
    let refused = rig.command(&["resource-server", "change", "accounts", "--certificate", &file]).await;
    assert!(String::from_utf8_lossy(&refused.stderr).contains("has a client's key"), "{refused:?}");
    twin.enrolled(&rig, "accounts", SigningAlgorithm::ES256).await;
    let answer = twin.asks(&rig, &about(&token)).await;
    assert_eq!((answer.status, answer.error().as_str()), (400, "invalid_client"), "{answer}");
    assert_eq!(rig.last_record().await["reason"], "resource_server_is_a_client");
    // A resource server's certificate that also has a client's name authenticates no client.
    let template = Template::client(crate::world::subject_of_a("a-dn"), rig.world.now);
    let api = Api { credential: rig.world.a_issuing().issue(&template, KeyKind::P256) };
    api.enrolled(&rig, "vault", SigningAlgorithm::ES256).await;
    let answer = rig.peer(&api.credential).ask(rig.address, &party.request()).await.unwrap();
    assert_eq!((answer.status, answer.error().as_str()), (400, "invalid_client"), "{answer}");
}

#[tokio::test]
async fn requests_with_a_defect() {
    let rig = Rig::start().await;
    let api = Api::accounts(&rig).await;
    let token = rig.ask(&rig.world.a_dn).await.token();
    let method = |method: &str| Request { method: method.to_owned(), ..about(&token) };
    let in_query = Request { target: format!("/introspect?token={token}"), ..Request::form("/introspect", &[]) };
    for (what, request, status, error) in [
        ("no token", Request::form("/introspect", &[("token_type_hint", "access_token")]), 400, "invalid_request"),
        (
            "the token twice",
            Request::form("/introspect", &[("token", &token), ("token", &token)]),
            400,
            "invalid_request",
        ),
        ("the token in the query", in_query, 400, "invalid_request"),
        ("GET", Request::get(&format!("/introspect?token={token}")), 405, "invalid_request"),
        ("PUT", method("PUT"), 405, "invalid_request"),
        (
            "the Authorization header",
            about(&token).with_header("Authorization", &format!("Bearer {token}")),
            401,
            "invalid_client",
        ),
        ("a token larger than a body may be", about(&"x".repeat(20_000)), 413, "invalid_request"),
    ] {
        let answer = api.asks(&rig, &request).await;
        assert_eq!((answer.status, answer.error().as_str()), (status, error), "{what}: {answer}");
    }
    let hinted = Request::form("/introspect", &[("token", &token), ("token_type_hint", "refresh_token")]);
    assert_eq!(api.asks(&rig, &hinted).await.json()["active"], true);
}

/// By the command line, and one certificate after the other.
#[tokio::test]
async fn a_certificate_takes_over_from_another() {
    let rig = Rig::on(&Engine::Sqlite, Time::Machine).await;
    let token = rig.ask(&rig.world.a_dn).await.token();
    let (old, new) = (Api { credential: self_signed(rig.world.now) }, Api { credential: self_signed(rig.world.now) });
    for (name, api) in [("old.pem", &old), ("new.pem", &new)] {
        let file = rig.file(name, &api.credential.chain_pem()).display().to_string();
        let command = ["resource-server", "change", "accounts", "--certificate", &file, "--introspection-alg", "PS256"];
        let done = rig.command(&command).await;
        assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
        assert_eq!(api.asks(&rig, &about(&token)).await.json()["active"], true);
    }
    assert_eq!(old.asks(&rig, &about(&token)).await.json()["active"], true, "both for a while");
    let gone = thumbprint(&old.credential).to_string();
    let command = ["resource-server", "change", "accounts", "--without-certificate", &gone];
    assert!(rig.command(&command).await.status.success());
    rig.app.registry.catch_up().await.unwrap();
    assert_eq!(old.asks(&rig, &about(&token)).await.error(), "invalid_client");
    assert_eq!(new.asks(&rig, &about(&token)).await.json()["active"], true);
    assert_eq!(rig.command(&command).await.status.code(), Some(1), "it has it no more");
    let metadata = rig.anonymous().ask(rig.address, &Request::get("/.well-known/oauth-authorization-server")).await;
    let metadata = metadata.unwrap().json();
    assert_eq!(metadata["introspection_endpoint"], format!("{}/introspect", rig.world.issuer));
    assert_eq!(metadata["introspection_signing_alg_values_supported"], json!(["ES256", "EdDSA", "PS256"]));
}
