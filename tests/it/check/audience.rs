//! Who is told what: a client everything about itself, its organisation the name, everybody else one answer.

use std::time::Duration;

use countersign::config::Perimeter;
use countersign::explanation::STRANGERS_WAIT;
use countersign::registry::client::{ClientAuthentication, SubjectAttribute};
use countersign::registry::{ClientId, Thumbprint};
use countersign_conformance::KeyKind;
use countersign_conformance::pki::{Credential, Name, Template};
use serde_json::Value;

use super::{about, check, refused, rig_without_bounds};
use crate::rig::{Engine, Rig, Time, client_of, rule, thumbprint};
use crate::wire::{Answer, Request, Tls};
use crate::world::subject_of_a;

/// What a peer sees of an answer, without what is every request's own.
fn seen(answer: &Answer) -> (u16, Vec<(String, String)>, String) {
    let own = |name: &str| matches!(name, "x-request-id" | "date");
    let headers = answer.headers.iter().filter(|(name, _)| !own(name)).cloned().collect();
    (answer.status, headers, String::from_utf8(answer.body.clone()).unwrap())
}

fn finding<'a>(answer: &'a Value, reason: &str) -> Option<&'a Value> {
    answer["besides"].as_array()?.iter().find(|finding| finding["reason"] == reason)
}

#[tokio::test]
async fn a_client_that_would_be_let_in_is_told_each_step_and_leaves_no_trace() {
    for engine in Engine::every() {
        let rig = super::rig_on(&engine).await;
        let version = rig.app.registry.catch_up().await.unwrap();
        let answer = check(&rig, &rig.world.a_dn.credential, "a-dn").await.json();
        assert_eq!(answer["would_be_let_in"], true, "{answer:#}");
        assert_eq!(answer["certificate"]["thumbprint"], rig.world.a_dn.credential.thumbprint());
        let steps: Vec<_> =
            answer["steps"].as_array().unwrap().iter().map(|step| step["step"].as_str().unwrap()).collect();
        assert_eq!(steps, ["client", "certificate", "proof", "enrolment", "admission", "entitlement"]);
        assert!(answer["steps"].as_array().unwrap().iter().all(|step| step["outcome"] == "passed"), "{answer:#}");
        // Nothing is enrolled, no version taken, no sighting noted.
        assert_eq!(rig.app.registry.catch_up().await.unwrap(), version);
        rig.app.registry.flush_seen().await.unwrap();
        let enrolled = async |thumbprint: &Thumbprint| rig.app.registry.certificate(thumbprint).await.unwrap();
        assert_eq!(enrolled(&thumbprint(&rig.world.a_dn.credential)).await, None);
        // On record before the answer left, as a check and not as a decision about a token.
        let record = rig.last_record().await;
        assert_eq!((&record["kind"], &record["outcome"]), (&"check".into(), &"checked".into()));
        assert_eq!((&record["client_id"], record.get("reason"), record.get("token")), (&"a-dn".into(), None, None));
        assert_eq!(rig.ask(&rig.world.a_dn).await.status, 200);
    }
}

#[tokio::test]
async fn an_announced_certificate_stays_announced() {
    let rig = rig_without_bounds().await;
    let party = &rig.world.a_required;
    let answer = check(&rig, &party.credential, party.id).await.json();
    assert_eq!(answer["would_be_let_in"], true, "{answer:#}");
    let stored = rig.app.registry.certificate(&thumbprint(&party.credential)).await.unwrap().unwrap();
    assert_eq!((stored.state.as_str(), stored.first_seen, stored.last_seen), ("announced", None, None));
}

#[tokio::test]
async fn of_a_client_that_signs_assertions_the_certificates_part_is_told() {
    let rig = rig_without_bounds().await;
    let party = &rig.world.a_jwt;
    let answer = check(&rig, &party.credential, party.id).await.json();
    assert_eq!(answer["would_be_let_in"], true, "{answer:#}");
    let steps = answer["steps"].as_array().unwrap();
    let assertion = steps.iter().find(|step| step["step"] == "assertion").unwrap();
    assert_eq!(assertion["outcome"], "not_examined");
    assert_eq!(rig.last_record().await["authenticated"], false, "a certificate alone proves no such client");
}

#[tokio::test]
async fn get_and_post_say_the_same_on_every_protocol() {
    let rig = rig_without_bounds().await;
    let credential = &rig.world.a_dn.credential;
    let got = seen(&check(&rig, credential, "a-dn").await);
    let form = Request::form("/certificate-check", &[("client_id", "a-dn")]);
    let posted = rig.peer(credential).ask(rig.address, &form).await.unwrap();
    assert_eq!(seen(&posted), got);
    let mut h2 = rig.peer_with(credential, Tls::V1_3, &[b"h2"]).connect_h2(rig.address).await.unwrap();
    assert_eq!(h2.ask(&about("a-dn")).await.unwrap().json().to_string(), got.2);
}

/// Every stranger there is: the same answer to the octet for clients that exist in every state and for one that does not.
#[tokio::test]
async fn a_stranger_gets_one_answer_whether_or_not_there_is_such_a_client() {
    let rig = rig_without_bounds().await;
    let world = &rig.world;
    let now = world.now;
    let name_of_a = Template::client(subject_of_a("a-dn"), now);
    let expired = Template { not_after: now - 1, ..name_of_a.clone() };
    let strangers: Vec<(&str, Credential, &[&str])> = vec![
        ("a stranger's", world.stranger_root.client("x"), &["a-dn", "a-self", "a-jwt", "a-suspended", "d-dn"]),
        ("a same-named CA's", world.b_root.issue(&name_of_a, KeyKind::P256), &["a-dn", "a-two", "a-revoked"]),
        ("a same-named CA's, expired", world.stranger_root.issue(&expired, KeyKind::P256), &["a-dn"]),
        ("another participant's", world.b_dn.credential.clone(), &["a-dn", "a-required", "a-pending"]),
        ("another's under a shared CA", world.d_dn.credential.clone(), &["e-dn", "f-dn", "a-dn"]),
        ("signed by itself", Credential::self_signed(&name_of_a, KeyKind::P256), &["a-dn", "a-self"]),
        ("under a retired CA", world.a_orphan.credential.clone(), &["a-orphan", "a-dn"]),
        ("a broken signature", world.a_root.issue(&name_of_a, KeyKind::P256).with_broken_signature(), &["a-dn"]),
    ];
    for (whose, credential, clients) in strangers {
        let nobody = check(&rig, &credential, "nobody").await;
        let told = nobody.json();
        assert_eq!((&told["known_here"], &told["would_be_let_in"]), (&false.into(), &false.into()), "{whose}");
        assert_eq!(told["certificate"]["thumbprint"], credential.thumbprint(), "{whose}");
        assert_eq!(told.get("steps"), None, "{whose}");
        for client_id in clients {
            let answer = check(&rig, &credential, client_id).await;
            assert_eq!(seen(&answer), seen(&nobody), "{whose}, about {client_id}");
            // Named by nobody but a certificate that carries it itself.
            let text = String::from_utf8_lossy(&answer.body).into_owned();
            assert!(whose != "a stranger's" || !text.contains(client_id), "{whose}, about {client_id}");
        }
    }
}

/// The certificates' facts alone are told, and they help: an expired certificate is called one.
#[tokio::test]
async fn a_stranger_learns_what_its_own_certificate_says() {
    let rig = rig_without_bounds().await;
    let expired = Template { not_after: rig.world.now - 60, ..Template::client(Name::common("x"), rig.world.now) };
    let credential = rig.world.stranger_root.issue(&expired, KeyKind::P256);
    let answer = check(&rig, &credential, "a-dn").await.json();
    assert_eq!(answer["findings"][0]["reason"], "peer_expired", "{answer:#}");
    assert_eq!(answer["certificate"]["subject"], "CN=x");
}

#[tokio::test]
async fn a_strangers_answer_leaves_on_the_tick() {
    let rig = rig_without_bounds().await;
    let stranger = rig.world.stranger_root.client("x");
    for client_id in ["a-dn", "nobody"] {
        let began = tokio::time::Instant::now();
        check(&rig, &stranger, client_id).await;
        assert!(began.elapsed() >= STRANGERS_WAIT, "{client_id}");
    }
}

#[tokio::test]
async fn without_a_certificate_there_is_one_answer() {
    let rig = rig_without_bounds().await;
    let mut answers = std::collections::BTreeSet::new();
    for client_id in ["a-dn", "a-suspended", "nobody"] {
        let answer = rig.anonymous().ask(rig.address, &about(client_id)).await.unwrap();
        assert_eq!(answer.status, 200, "{answer}");
        answers.insert(String::from_utf8(answer.body).unwrap());
        let record = rig.last_record().await;
        assert_eq!((&record["kind"], &record["reason"]), (&"checks".into(), &"peer_no_certificate".into()));
    }
    assert_eq!(answers.len(), 1, "{answers:?}");
    assert!(answers.first().unwrap().contains("No certificate came"));
}

/// The most frequent mistake there is: a DN in the other order is refused, and said to be one.
#[tokio::test]
async fn a_name_in_the_other_order_is_explained() {
    let rig = rig_without_bounds().await;
    let reversed = Name::of(&[("CN", "a-dn"), ("O", "Partner A"), ("C", "DE")]);
    let credential = rig.world.a_root.issue(&Template::client(reversed, rig.world.now), KeyKind::P256);
    let answer = check(&rig, &credential, "a-dn").await.json();
    assert_eq!(refused(&answer).unwrap().1, "peer_outside_name_space", "{answer:#}");
    let mismatch = finding(&answer, "certificate_name_mismatch").unwrap_or_else(|| panic!("{answer:#}"));
    assert!(mismatch["says"].as_str().unwrap().contains("in the other order"), "{mismatch}");
    assert_eq!(mismatch["facts"]["attribute"], "tls_client_auth_subject_dn");
    assert_eq!(mismatch["facts"]["registered"], "cn=a-dn,o=partner a,c=de");
    assert_eq!(mismatch["facts"]["presented"], "c=de,o=partner a,cn=a-dn");
    let outside = answer["steps"].as_array().unwrap().iter().find(|step| step["outcome"] == "refused").unwrap();
    assert_eq!(outside["facts"]["outside"], "c=de,o=partner a,cn=a-dn");
    assert!(outside["facts"]["name_space"].as_str().unwrap().contains("o=partner a,c=de"), "{outside}");
}

#[tokio::test]
async fn a_client_is_told_of_its_own_certificate_whatever_its_state() {
    let rig = rig_without_bounds().await;
    let world = &rig.world;
    let expired = Template { not_after: world.now - 90, ..Template::client(subject_of_a("a-suspended"), world.now) };
    let expired = world.a_root.issue(&expired, KeyKind::P256);
    let answer = check(&rig, &expired, "a-suspended").await.json();
    assert_eq!(refused(&answer).unwrap().1, "peer_expired");
    let step = answer["steps"].as_array().unwrap().iter().find(|step| step["outcome"] == "refused").unwrap();
    assert!(step["says"].as_str().unwrap().contains("1 minute 30 seconds ago"), "{step}");
    assert!(finding(&answer, "client_suspended").is_some(), "{answer:#}");

    let answer = check(&rig, &world.a_revoked.credential, "a-revoked").await.json();
    let step = answer["steps"].as_array().unwrap().iter().find(|step| step["outcome"] == "refused").unwrap();
    assert_eq!(
        (&step["reason"], &step["facts"]["revocation_reason"]),
        (&"certificate_revoked".into(), &"key_compromise".into())
    );
    let record = rig.last_record().await;
    assert_eq!((&record["kind"], &record["reason"]), (&"check".into(), &"certificate_revoked".into()), "durable");
}

/// Another client of the same organisation learns that the name is another, and which; not how the other client stands.
#[tokio::test]
async fn another_client_of_the_participant_is_told_the_name_and_no_state() {
    let rig = rig_without_bounds().await;
    let world = &rig.world;
    for id in ["a-suspended", "a-retired", "a-unentitled", "a-dn"] {
        let answer = check(&rig, &world.a_two.credential, id).await.json();
        assert_eq!(refused(&answer).unwrap().1, "certificate_name_mismatch", "{id}: {answer:#}");
        assert_eq!(answer["besides"], serde_json::json!([]), "{id}");
        let text = answer.to_string();
        assert!(text.contains("cn=a-two") && text.contains(&format!("cn={id}")), "{id}: {text}");
        assert!(
            !text.contains("suspended") || id == "a-suspended" && !text.contains("client_suspended"),
            "{id}: {text}"
        );
    }
    let expired = Template { not_after: world.now - 1, ..Template::client(subject_of_a("a-two"), world.now) };
    let expired = world.a_root.issue(&expired, KeyKind::P256);
    let answer = check(&rig, &expired, "a-suspended").await.json();
    assert!(finding(&answer, "client_suspended").is_none(), "{answer:#}");
    let record = rig.last_record().await;
    assert_eq!((&record["kind"], &record["count"]), (&"checks".into(), &1.into()), "counted, not one by one");
}

/// Its thumbprints are a client's own business.
#[tokio::test]
async fn another_client_of_the_participant_sees_no_certificates() {
    let rig = rig_without_bounds().await;
    let enrolled = rig.world.a_self.credential.thumbprint();
    let answer = check(&rig, &rig.world.a_two.credential, "a-self").await.json();
    assert_eq!(refused(&answer).unwrap().1, "peer_not_registered", "{answer:#}");
    assert!(!answer.to_string().contains(&enrolled), "{answer:#}");
}

/// Under an anchor that participants share, a client's own name is told it all the same.
#[tokio::test]
async fn under_a_shared_anchor_the_registered_name_is_told() {
    let rig = rig_without_bounds().await;
    let answer = check(&rig, &rig.world.d_dn.credential, "d-dn").await.json();
    assert_eq!(refused(&answer).unwrap().1, "participant_suspended", "{answer:#}");
}

#[tokio::test]
async fn a_strict_perimeter_closes_before_anybody_is_told() {
    let rig = Rig::configured(&Engine::Sqlite, Time::Standing, |config| config.perimeter = Perimeter::Strict).await;
    let stranger = rig.world.stranger_root.client("x");
    assert!(rig.peer(&stranger).ask(rig.address, &about("a-dn")).await.is_err());
    assert_eq!(check(&rig, &rig.world.a_dn.credential, "a-dn").await.json()["would_be_let_in"], true);
}

/// A check uses up nothing of what a token request does.
#[tokio::test]
async fn a_check_does_not_take_the_last_place_of_a_certificate() {
    let rig = rig_without_bounds().await;
    let subject = rule(SubjectAttribute::TlsClientAuthSubjectDn, "CN=many,O=Partner A,C=DE");
    let many = client_of("many", "partner-a", ClientAuthentication::TlsClientAuth { subject });
    rig.app.registry.add_client(many, Vec::new(), rig.explanation()).await.unwrap();
    for _ in 0..20 {
        let new = rig.world.a_root.issue(&Template::client(subject_of_a("many"), rig.world.now), KeyKind::P256);
        let answer = check(&rig, &new, "many").await.json();
        assert_eq!(refused(&answer).unwrap().1, "no_entitlement", "{answer:#}");
    }
    let record = rig.app.registry.client(&ClientId::parse("many").unwrap()).await.unwrap().record;
    assert_eq!(record.certificates.len(), 0);
    // Seconds later, as now.
    rig.clock.advance(Duration::from_secs(5));
    let new = rig.world.a_root.issue(&Template::client(subject_of_a("many"), rig.world.now), KeyKind::P256);
    assert_eq!(refused(&check(&rig, &new, "many").await.json()).unwrap().1, "no_entitlement");
}
