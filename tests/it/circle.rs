//! The full circle: a token out of this server, into the guarded API of the examples.

use std::time::Duration;

use countersign::registry::certificate::RevocationReason;
use countersign::registry::client::ClientState;
use countersign::registry::edit::CertificateSelector;
use countersign::registry::participant::ParticipantState;
use countersign::registry::{ClientId, ParticipantId};
use countersign_conformance::KeyKind;
use countersign_conformance::forge::{Signature, compact};
use countersign_conformance::pki::Credential;
use countersign_conformance::{JwsAlgorithm, Key};

use crate::rig::{Engine, GuardedApi, Rig, Time, thumbprint};
use crate::token;
use crate::wire::{Answer, Request};
use crate::world::Party;

/// How soon a change has to be in force at a connected resource server (design §6).
const A_SECOND: Duration = Duration::from_secs(1);

async fn token_of(rig: &Rig, party: &Party, jti: &str) -> String {
    let request = match party.signs {
        Some(_) => party.request_with(&party.assertion(&rig.world, jti).compact()),
        None => party.request(),
    };
    rig.peer(&party.credential).ask(rig.address, &request).await.unwrap().token()
}

pub(crate) fn call(token: &str) -> Request {
    Request::get("/accounts").with_header("Authorization", &format!("Bearer {token}"))
}

pub(crate) async fn calls(rig: &Rig, api: &GuardedApi, credential: &Credential, request: &Request) -> Answer {
    rig.peer(credential).ask(api.address, request).await.unwrap()
}

#[tokio::test]
async fn every_kind_of_token_opens_the_guarded_api() {
    let rig = Rig::on(&Engine::Sqlite, Time::Machine).await;
    let api = rig.guarded_api().await;
    let world = &rig.world;
    for party in [
        &world.a_dn,
        &world.a_dns,
        &world.a_uri,
        &world.a_email,
        &world.a_self,
        &world.a_required,
        &world.b_dn,
        &world.c_ip,
        &world.a_jwt,
        &world.a_jwt_eddsa,
        &world.a_jwt_ps256,
    ] {
        let token = token_of(&rig, party, "circle").await;
        let answer = calls(&rig, &api, &party.credential, &call(&token)).await;
        assert_eq!(answer.status, 200, "{}: {answer}", party.id);
        assert_eq!(answer.json()["client_id"], party.id);
        assert_eq!(answer.json()["certificate"], party.credential.thumbprint());
    }
    let token = token_of(&rig, &world.a_dn, "").await;
    for scheme in ["bEARER", "bearer", "BEARER"] {
        let request = Request::get("/accounts").with_header("Authorization", &format!("{scheme} {token}"));
        let answer = calls(&rig, &api, &world.a_dn.credential, &request).await;
        assert_eq!(answer.status, 200, "{scheme}: {answer}");
    }
}

#[tokio::test]
async fn a_stolen_token_opens_nothing() {
    let rig = Rig::on(&Engine::Sqlite, Time::Machine).await;
    let api = rig.guarded_api().await;
    let world = &rig.world;
    let token = token_of(&rig, &world.a_dn, "").await;
    let thieves = [
        ("another client of the same partner", world.a_two.credential.clone()),
        ("another partner's client", world.b_dn.credential.clone()),
        ("a stranger", world.stranger_root.client("stranger")),
        ("the same client's new certificate", {
            let template =
                countersign_conformance::pki::Template::client(crate::world::subject_of_a("a-dn"), world.now);
            world.a_root.issue(&template, KeyKind::P256)
        }),
        ("the same certificate with its signature rewritten", world.a_dn.credential.rewritten().unwrap()),
    ];
    for (who, credential) in thieves {
        let answer = calls(&rig, &api, &credential, &call(&token)).await;
        refused(&answer, 401, "invalid_token", who);
    }
    let answer = rig.anonymous().ask(api.address, &call(&token)).await.unwrap();
    refused(&answer, 401, "invalid_token", "nobody");
    // The token itself is none the worse for it.
    assert_eq!(calls(&rig, &api, &world.a_dn.credential, &call(&token)).await.status, 200);
}

#[tokio::test]
async fn a_token_is_taken_from_the_header_and_from_nowhere_else() {
    let rig = Rig::on(&Engine::Sqlite, Time::Machine).await;
    let api = rig.guarded_api().await;
    let party = &rig.world.a_dn;
    let token = token_of(&rig, party, "").await;
    let query = Request::get(&format!("/accounts?access_token={token}"));
    let answer = calls(&rig, &api, &party.credential, &query).await;
    assert!([400, 401].contains(&answer.status), "{answer}");
    let both = Request { target: format!("/accounts?access_token={token}"), ..call(&token) };
    let answer = calls(&rig, &api, &party.credential, &both).await;
    assert_eq!(answer.status, 400, "{answer}");
    let twice = call(&token).with_header("Authorization", &format!("Bearer {token}"));
    let answer = calls(&rig, &api, &party.credential, &twice).await;
    assert_eq!(answer.status, 400, "{answer}");
    let none = Request::get("/accounts");
    let answer = calls(&rig, &api, &party.credential, &none).await;
    assert_eq!(answer.status, 401);
    let challenge = answer.header("www-authenticate").unwrap();
    assert!(challenge.starts_with("Bearer") && !challenge.contains("error"), "RFC 6750 §3.1: {challenge}");
    assert!(challenge.contains("resource_metadata"), "RFC 9728 §5.1: {challenge}");
    for value in ["Basic YTpi", "DPoP abc", "Bearer", "Bearer ", "Bearer a b", "Bearer \"abc\"", "Bearerabc"] {
        let request = Request::get("/accounts").with_header("Authorization", value);
        let answer = calls(&rig, &api, &party.credential, &request).await;
        assert!([400, 401].contains(&answer.status), "{value:?}: {answer}");
    }
}

/// Tokens bent at one place, from the real one: none of them opens the API.
#[tokio::test]
async fn a_bent_token_opens_nothing() {
    let rig = Rig::on(&Engine::Sqlite, Time::Machine).await;
    let api = rig.guarded_api().await;
    let party = &rig.world.a_dn;
    let good = token_of(&rig, party, "").await;
    let read = token::read(&rig, &good).await;
    let header = read.header.to_string();
    let claims = read.claims.to_string();
    let attacker = Key::generate(KeyKind::P256);
    let by_attacker = Signature::By(JwsAlgorithm::Es256, &attacker);
    let octets: Vec<&str> = good.split('.').collect();
    let assertion = {
        let party = &rig.world.a_jwt;
        party.assertion(&rig.world, "no access token").compact()
    };
    let bent = [
        ("signed by another key", compact(&header, &claims, by_attacker)),
        ("unsigned", compact(&header, &claims, Signature::None)),
        ("alg none", compact(header.replace("ES256", "none"), &claims, Signature::None)),
        ("an empty signature", format!("{}.{}.", octets[0], octets[1])),
        ("other claims under the same signature", {
            let raised = compact(&header, claims.replace("accounts:read", "accounts:write"), Signature::None);
            format!("{}{}", raised, octets[2])
        }),
        ("an assertion", assertion),
        ("a padded signature", format!("{good}=")),
        ("a part too many", format!("{good}.x")),
    ];
    for (what, token) in bent {
        let answer = calls(&rig, &api, &party.credential, &call(&token)).await;
        refused(&answer, 401, "invalid_token", what);
    }
    // Signed by the server itself, and no access token: its revocation list.
    let list = rig.anonymous().ask(rig.address, &Request::get("/revocations")).await.unwrap();
    assert_eq!(list.status, 200);
    let list = String::from_utf8(list.body).unwrap();
    let answer = calls(&rig, &api, &party.credential, &call(&list)).await;
    refused(&answer, 401, "invalid_token", "the revocation list");
}

/// What the registry takes back is dead at the API within a second (design §6).
#[tokio::test]
async fn what_is_revoked_is_dead_at_the_api_within_a_second() {
    for engine in Engine::every() {
        let rig = Rig::on(&engine, Time::Machine).await;
        let api = rig.guarded_api().await;
        let world = &rig.world;
        let registry = &rig.app.registry;

        let party = &world.a_dn;
        let token = token_of(&rig, party, "").await;
        assert_eq!(calls(&rig, &api, &party.credential, &call(&token)).await.status, 200);
        let selected = CertificateSelector::Thumbprint(thumbprint(&party.credential));
        registry.revoke_certificate(selected, RevocationReason::KeyCompromise, rig.explanation()).await.unwrap();
        dead_within_a_second(&rig, &api, party, &token, "the certificate was revoked").await;

        let party = &world.a_two;
        let token = token_of(&rig, party, "").await;
        assert_eq!(calls(&rig, &api, &party.credential, &call(&token)).await.status, 200);
        let client = || ClientId::parse(party.id).unwrap();
        registry.set_client_state(client(), ClientState::Suspended, rig.explanation()).await.unwrap();
        dead_within_a_second(&rig, &api, party, &token, "the client was suspended").await;
        // Reinstated: the old token stays dead, a new one lives.
        registry.set_client_state(client(), ClientState::Active, rig.explanation()).await.unwrap();
        let new = token_of(&rig, party, "").await;
        assert_eq!(calls(&rig, &api, &party.credential, &call(&new)).await.status, 200, "reinstated");
        assert_eq!(calls(&rig, &api, &party.credential, &call(&token)).await.status, 401, "the old token");

        let party = &world.b_dn;
        let token = token_of(&rig, party, "").await;
        assert_eq!(calls(&rig, &api, &party.credential, &call(&token)).await.status, 200);
        let participant = ParticipantId::parse("partner-b").unwrap();
        registry.set_participant_state(participant, ParticipantState::Suspended, rig.explanation()).await.unwrap();
        dead_within_a_second(&rig, &api, party, &token, "the participant was suspended").await;
        rig.stop().await;
    }
}

async fn dead_within_a_second(rig: &Rig, api: &GuardedApi, party: &Party, token: &str, why: &str) {
    let dead = tokio::time::timeout(A_SECOND, async {
        loop {
            let answer = calls(rig, api, &party.credential, &call(token)).await;
            if answer.status == 401 {
                return answer;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    });
    let answer = dead.await.unwrap_or_else(|_| panic!("alive a second after {why}"));
    refused(&answer, 401, "invalid_token", why);
}

fn refused(answer: &Answer, status: u16, error: &str, what: &str) {
    assert_eq!(answer.status, status, "{what}: {answer}");
    let challenge = answer.header("www-authenticate").unwrap_or_default();
    assert!(challenge.contains(&format!("error=\"{error}\"")), "{what}: {challenge}");
}
