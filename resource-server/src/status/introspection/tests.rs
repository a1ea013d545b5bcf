//! Answers that can be used, answers that cannot, and for how long they count.

mod bounds;

use countersign_conformance::KeyKind;
use countersign_conformance::pki::{Authority, Name, Template};
use serde_json::json;

use super::scene::{INACTIVE, MILLISECOND, OF_ANOTHER, Says, Scene, UNAVAILABLE, failures_of_a_server, nth, of_client};
use super::*;
use crate::double::{Double, ISSUER, NOW, RESOURCE};
use crate::status::{MarkKind, WhenStale};
use crate::verification::Decision;
use crate::{Guard, GuardError, PeerCertificate};

#[tokio::test]
async fn active() {
    let scene = Scene::new();
    let call = scene.call(&scene.token).await.unwrap();
    assert_eq!((call.client_id(), scene.asked()), ("client-1", 1));
}

#[tokio::test]
async fn inactive() {
    let scene = Scene::new();
    scene.says(&json!({ "active": false }));
    assert_eq!(scene.ends().await, INACTIVE);
}

#[tokio::test]
async fn a_fresh_list_asks_nobody_and_neither_does_one_that_is_fresh_again() {
    let scene = Scene::without_a_list(SECOND);
    scene.says(&json!({ "active": false }));
    scene.double.take(&scene.double.list());
    scene.double.wait(30 * SECOND);
    assert_eq!((scene.ends().await, scene.asked()), (None, 0), "at the limit");
    scene.double.wait(MILLISECOND);
    assert_eq!((scene.ends().await, scene.asked()), (INACTIVE, 1), "a millisecond beyond it");
    let list = |iat: i64| scene.double.list().claims(|claims| claims.with("iat", iat).with("exp", iat + 60));
    scene.double.take(&list(NOW + 30));
    assert_eq!((scene.ends().await, scene.asked()), (None, 1), "fresh again");
}

#[tokio::test]
async fn without_any_list() {
    let scene = Scene::without_a_list(SECOND);
    assert_eq!((scene.ends().await, scene.asked()), (None, 1));
    scene.double.wait(SECOND);
    scene.says(&json!({ "active": false }));
    assert_eq!(scene.ends().await, INACTIVE);
}

/// One of the clocks is an hour off: lists cannot be dated, and answers need no date.
#[tokio::test]
async fn a_list_of_another_time() {
    let scene = Scene::new();
    let ahead = scene.double.list().claims(|claims| claims.with("iat", NOW + 3_600).with("exp", NOW + 3_660));
    scene.double.guard.revocations().take(&ahead.compact()).unwrap_err();
    assert_eq!((scene.ends().await, scene.asked()), (None, 1));
}

#[tokio::test]
async fn what_the_old_list_marks_is_dead_unasked() {
    let scene = Scene::without_a_list(SECOND);
    scene.double.take(&scene.double.marking(&[(MarkKind::Client, "client-1", 42)]));
    scene.double.wait(60 * SECOND);
    assert_eq!((scene.ends().await, scene.asked()), (Some(("revoked_client", 401)), 0));
}

#[tokio::test]
async fn what_is_marked_while_it_is_asked_about_is_dead() {
    let scene = Scene::new();
    let call = scene.undecided(&scene.token);
    scene.double.take(&scene.double.marking(&[(MarkKind::Jti, "jti-1", 42)]));
    assert_eq!(call.settle().await.unwrap_err().reason(), "revoked_jti");
}

/// Whoever takes [`verification::authorize`] for an answer has one: yes or no.
#[tokio::test]
async fn what_is_undecided_is_not_authorized() {
    let scene = Scene::new();
    let refusal = scene.double.call(&scene.token).unwrap_err();
    assert_eq!((refusal.reason(), refusal.code().status(), scene.asked()), ("introspection_unavailable", 503, 0));
}

#[tokio::test]
async fn what_goes_out_of_date_while_it_is_asked_about_is_refused() {
    let now = NOW + 31;
    let scene = Scene::new();
    scene.double.at(now);
    let expiring = scene.double.claiming(|claims| claims.with("exp", now));
    for (later, reason) in [(9, None), (10, Some("token_expired"))] {
        scene.fails(Says::Active);
        let call = scene.undecided(&expiring);
        scene.double.at(now + later);
        assert_eq!(call.settle().await.err().map(|refusal| refusal.reason()), reason, "{later}");
        scene.double.at(now);
    }
    // The certificate's last second, and the one after it.
    let root = Authority::root("Partner CA", NOW);
    let template = Template { not_after: now, ..Template::client(Name::common("client"), NOW) };
    let brief = root.issue(&template, KeyKind::P256);
    let peer = PeerCertificate::parse(brief.certificate()).unwrap();
    let token = scene.double.claiming(|claims| claims.with("cnf", json!({ "x5t#S256": brief.thumbprint() })));
    let scene = Scene { double: Double { peer, ..scene.double }, ..scene };
    for (later, reason) in [(0, None), (1, Some("connection_certificate_expired"))] {
        scene.double.at(now);
        let call = scene.undecided(&token);
        scene.double.at(now + later);
        assert_eq!(call.settle().await.err().map(|refusal| refusal.reason()), reason, "{later}");
    }
}

#[tokio::test]
async fn nothing_else_is_asked_about() {
    let scene = Scene::new();
    let double = &scene.double;
    for (token, reason) in [
        (double.claiming(|claims| claims.with("aud", "https://other.example")), "token_audience"),
        (double.claiming(|claims| claims.with("exp", NOW)), "token_expired"),
        (double.claiming(|claims| claims.with("cnf", json!({ "x5t#S256": "A".repeat(43) }))), "confirmation_mismatch"),
        (format!("{}A", double.token().compact()), "token_signature"),
    ] {
        assert_eq!(scene.call(&token).await.unwrap_err().reason(), reason);
    }
    assert_eq!(scene.asked(), 0);
}

#[tokio::test]
async fn an_active_token_still_needs_its_scope() {
    let scene = Scene::new();
    let Ok(Decision::Undecided(call)) = scene.begun(&scene.token, "accounts:admin") else { panic!("not asked about") };
    assert_eq!(call.settle().await.unwrap_err().reason(), "insufficient_scope");
}

#[tokio::test]
async fn an_answer_about_another_token() {
    for name in ["jti", "iss", "aud", "client_id", "cnf"] {
        let scene = Scene::new();
        for other in [json!("other"), json!(null), json!([scene.active()[name]]), json!(41)] {
            let mut told = scene.active();
            told[name] = other.clone();
            scene.says(&told);
            assert_eq!(scene.ends().await, OF_ANOTHER, "{name}: {other}");
            scene.double.wait(MILLISECOND);
        }
        let mut told = scene.active();
        told.as_object_mut().unwrap().remove(name);
        scene.says(&told);
        assert_eq!(scene.ends().await, OF_ANOTHER, "no {name}");
    }
    let scene = Scene::new();
    let own = scene.double.credential.thumbprint();
    for cnf in [
        json!({}),
        json!({ "x5t#S256": "A".repeat(43) }),
        json!({ "x5t#S256": own, "jkt": "x" }),
        json!({ "x5t#S256": format!("{own}=") }),
        json!(own),
    ] {
        let mut told = scene.active();
        told["cnf"] = cnf.clone();
        scene.says(&told);
        assert_eq!(scene.ends().await, OF_ANOTHER, "{cnf}");
        scene.double.wait(MILLISECOND);
    }
}

#[tokio::test]
async fn what_is_no_answer() {
    let scene = Scene::new();
    let told = scene.active().to_string();
    for active in ["\"true\"", "1", "null", "[true]", "{}"] {
        scene.says_raw(&told.replace("\"active\":true", &format!("\"active\":{active}")));
        assert_eq!(scene.ends().await, UNAVAILABLE, "active: {active}");
        scene.double.wait(MILLISECOND);
    }
    let twice = told.replace("\"active\":true", "\"active\":false,\"active\":true");
    let not_said = told.replace("\"active\":true,", "");
    assert!(twice != told && not_said != told);
    for garbage in
        ["", "garbage", "{}", "null", "true", "[]", "{\"active\":true", &twice, &not_said, &format!("{told}x")]
    {
        scene.says_raw(garbage);
        assert_eq!(scene.ends().await, UNAVAILABLE, "{garbage}");
        scene.double.wait(MILLISECOND);
    }
    assert_eq!(scene.asked(), 15, "what failed is asked again");
}

#[tokio::test]
async fn failures() {
    let scene = Scene::new();
    for error in failures_of_a_server() {
        scene.fails(Says::Fails(error.clone()));
        assert_eq!(scene.ends().await, UNAVAILABLE, "{error}");
        assert!(!scene.double.guard.is_ready(), "{error}");
        scene.double.wait(MILLISECOND);
    }
    scene.double.wait(MILLISECOND);
    scene.says(&scene.active());
    assert_eq!(scene.ends().await, None);
    assert!(scene.double.guard.is_ready());
}

#[tokio::test]
async fn trouble_is_told_of_once_in_a_while() {
    let scene = Scene::new();
    let introspection = Arc::clone(scene.double.guard.judgement.introspection.as_ref().unwrap());
    let told = || (introspection.told_at.load(Ordering::Relaxed), introspection.told.load(Ordering::Relaxed));
    let began = 30_001;
    for status in [503, 400, 503] {
        scene.fails(Says::Fails(FetchError::Status(status)));
        assert_eq!(scene.ends().await, UNAVAILABLE);
        assert_eq!(told(), (began, true));
        scene.double.wait(MILLISECOND);
    }
    scene.says(&scene.active());
    assert_eq!((scene.ends().await, told()), (None, (began, false)), "and of its end");
    scene.fails(Says::Fails(FetchError::Status(503)));
    scene.double.wait(TELL_AGAIN - 4 * MILLISECOND);
    assert_eq!((scene.ends().await, told()), (UNAVAILABLE, (began, false)), "not yet again");
    scene.double.wait(MILLISECOND);
    assert_eq!((scene.ends().await, told()), (UNAVAILABLE, (began + 60_000, true)));
}

#[tokio::test]
async fn an_answer_counts_for_a_second_and_not_a_millisecond_longer() {
    let scene = Scene::new();
    assert_eq!(scene.ends().await, None);
    scene.says(&json!({ "active": false }));
    scene.double.wait(SECOND - MILLISECOND);
    assert_eq!((scene.ends().await, scene.asked()), (None, 1));
    scene.double.wait(MILLISECOND);
    assert_eq!((scene.ends().await, scene.asked()), (INACTIVE, 2));
}

/// Nothing revives a token, unless it was too new to be known everywhere.
#[tokio::test]
async fn a_token_that_is_dead_is_asked_about_again_after_the_staleness_limit() {
    for (age, lasts) in [(9_999, SECOND), (10_000, 30 * SECOND)] {
        let scene = Scene::new();
        scene.double.clock.step_to(UnixTime::from_seconds(NOW).after(age * MILLISECOND));
        scene.says(&json!({ "active": false }));
        assert_eq!(scene.ends().await, INACTIVE);
        scene.says(&scene.active());
        scene.double.wait(lasts - MILLISECOND);
        assert_eq!((scene.ends().await, scene.asked()), (INACTIVE, 1), "{age}");
        scene.double.wait(MILLISECOND);
        assert_eq!((scene.ends().await, scene.asked()), (None, 2), "{age}");
    }
}

/// RFC 7662 §4
#[tokio::test]
async fn an_answer_does_not_outlive_the_token() {
    let scene = Scene::new();
    let expiring = scene.double.claiming(|claims| claims.with("exp", NOW + 31));
    scene.double.at(NOW + 30);
    assert!(scene.call(&expiring).await.is_ok());
    assert!(scene.call(&expiring).await.is_ok());
    assert_eq!(scene.asked(), 1);
    scene.says(&json!({ "active": false }));
    scene.double.at(NOW + 31); // within the leeway of ten seconds
    assert_eq!(scene.call(&expiring).await.unwrap_err().reason(), "introspection_inactive");
}

#[tokio::test]
async fn calls_of_one_token_share_a_question_and_its_answer() {
    let scene = Scene::new();
    for fails in [false, true] {
        if fails {
            scene.fails(Says::Fails(FetchError::Status(500)));
        }
        scene.double.wait(SECOND);
        scene.server.gate.forget_permits(Semaphore::MAX_PERMITS);
        let before = scene.asked();
        let mut calls = scene.begin([&scene.token; 50]);
        while scene.asked() == before {
            tokio::task::yield_now().await;
        }
        for _ in 0..1_000 {
            tokio::task::yield_now().await; // all of them wait by now
        }
        scene.double.wait(MILLISECOND);
        scene.server.gate.add_permits(1_000);
        while let Some(call) = calls.join_next().await {
            assert_eq!(call.unwrap().is_err(), fails);
        }
        assert_eq!(scene.asked(), before + 1);
    }
}

#[tokio::test]
async fn a_caller_that_goes_away_takes_no_answer_with_it() {
    let scene = Scene::new();
    scene.server.gate.forget_permits(Semaphore::MAX_PERMITS);
    let call = scene.undecided(&scene.token);
    let first = tokio::spawn(call.settle());
    while scene.asked() == 0 {
        tokio::task::yield_now().await;
    }
    first.abort();
    assert!(first.await.unwrap_err().is_cancelled());
    scene.server.gate.add_permits(1);
    assert_eq!((scene.ends().await, scene.asked()), (None, 1));
}

/// With nobody calling, it is known whether there is anybody to ask.
#[tokio::test]
async fn readiness_is_asked_for_and_not_taken_for_granted() {
    for (says, ready) in [
        (Says::Body(json!({ "active": false }).to_string()), true),
        (Says::Body(json!({ "active": true }).to_string()), false), // whoever says so says it of anything
        (Says::Body("garbage".to_owned()), false),
        (Says::Fails(FetchError::Status(400)), false), // not enrolled
    ] {
        let scene = Scene::without_a_list(SECOND);
        assert!(!scene.double.guard.is_ready(), "nobody knows");
        scene.fails(says);
        let introspection = Arc::clone(scene.double.guard.judgement.introspection.as_ref().unwrap());
        let sounding = tokio::spawn(introspection.sound_out());
        while scene.asked() == 0 {
            tokio::task::yield_now().await;
        }
        for _ in 0..100 {
            tokio::task::yield_now().await;
        }
        assert_eq!((scene.double.guard.is_ready(), scene.asked()), (ready, 1));
        sounding.abort();
    }
}

#[tokio::test]
async fn nobody_to_ask() {
    let builder = || Guard::builder(ISSUER, RESOURCE).when_stale(WhenStale::Introspect);
    assert_eq!(builder().idle().unwrap_err(), GuardError::Introspection);
    let root = Authority::root("CA", NOW);
    let builder = || builder().roots_pem(root.to_pem().as_bytes()).unwrap();
    assert_eq!(builder().start().unwrap_err(), GuardError::Introspection, "no certificate");
    let own = root.client("api");
    let builder = || builder().client_certificate_pem(own.chain_pem().as_bytes(), own.key.to_pem().as_bytes()).unwrap();
    assert!(builder().start().is_ok());
    for wrong in ["", "as.example/introspect", "http://as.example/introspect", "https://as.example/#introspect"] {
        assert_eq!(builder().introspect_at(wrong).start().unwrap_err(), GuardError::Introspection, "{wrong}");
    }
}
