//! A guard whose list is too old, and an authorization server at the other end of a line that is no network.

use std::sync::Mutex as StdMutex;
use std::sync::atomic::AtomicUsize;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use countersign_conformance::KeyKind;
use countersign_conformance::pki::{Authority, Name, Template};
use http::header::AUTHORIZATION;
use http::{HeaderMap, HeaderValue, Uri};
use serde_json::json;

use super::*;
use crate::bearer::Credentials;
use crate::double::{Double, ISSUER, KID, NOW, RESOURCE};
use crate::status::{MarkKind, WhenStale};
use crate::verification::{self, AuthorizedCall, Decision, Undecided};
use crate::{Guard, GuardError, PeerCertificate};

const SECOND: Duration = Duration::from_secs(1);
const MILLISECOND: Duration = Duration::from_millis(1);

/// The authorization server at the other end of the line.
struct Server {
    says: StdMutex<Says>,
    asked: AtomicUsize,
    /// Has a permit for each answer that may leave.
    gate: Semaphore,
}

#[derive(Clone)]
enum Says {
    /// That whatever it is asked about is active.
    Active,
    Body(String),
    Fails(FetchError),
    Nothing,
}

struct Telephone(Arc<Server>);

impl Line for Telephone {
    fn ask(&self, token: Arc<str>) -> Answering {
        let server = Arc::clone(&self.0);
        Box::pin(async move {
            server.asked.fetch_add(1, Ordering::SeqCst);
            server.gate.acquire().await.unwrap().forget();
            let says = server.says.lock().unwrap().clone();
            match says {
                Says::Active => {
                    let claims = URL_SAFE_NO_PAD.decode(token.split('.').nth(1).unwrap()).unwrap();
                    let mut told: Value = serde_json::from_slice(&claims).unwrap();
                    told["active"] = true.into();
                    Ok(told.to_string().into())
                }
                Says::Body(body) => Ok(body.into()),
                Says::Fails(error) => Err(error),
                Says::Nothing => std::future::pending().await,
            }
        })
    }
}

/// A guard whose list is a millisecond too old, and whom it asks.
struct Scene {
    double: Double,
    server: Arc<Server>,
    token: String,
}

impl Scene {
    fn new() -> Self {
        Self::with_patience(10 * SECOND)
    }

    fn with_patience(patience: Duration) -> Self {
        let scene = Self::without_a_list(patience);
        scene.double.take(&scene.double.list());
        scene.double.wait(30 * SECOND + MILLISECOND);
        scene
    }

    fn without_a_list(patience: Duration) -> Self {
        let double = Double::new();
        let server = Arc::new(Server {
            says: StdMutex::new(Says::Body(String::new())),
            asked: AtomicUsize::new(0),
            gate: Semaphore::new(Semaphore::MAX_PERMITS),
        });
        let line = Some((Telephone(Arc::clone(&server)), Handle::current(), patience));
        let builder = Guard::builder(ISSUER, RESOURCE).clock(Arc::clone(&double.clock) as _);
        let guard = builder.when_stale(WhenStale::Introspect).built(line).unwrap();
        guard.keys().take(double.jwks(KID).as_bytes()).unwrap();
        let token = double.token().compact();
        let scene = Self { double: Double { guard, ..double }, server, token };
        scene.says(&scene.active());
        scene
    }

    /// What the server says of the double's token, as long as it is good.
    fn active(&self) -> Value {
        let mut told: Value = serde_json::from_str(&self.double.token().claims.to_json()).unwrap();
        told["active"] = true.into();
        told["token_type"] = "Bearer".into();
        told
    }

    fn says(&self, told: &Value) {
        self.says_raw(&told.to_string());
    }

    fn says_raw(&self, body: &str) {
        *self.server.says.lock().unwrap() = Says::Body(body.to_owned());
    }

    fn fails(&self, says: Says) {
        *self.server.says.lock().unwrap() = says;
    }

    fn asked(&self) -> usize {
        self.server.asked.load(Ordering::SeqCst)
    }

    /// Decides without waiting: what a call of this token needs is told by the last.
    fn begun(&self, token: &str, scope: &str) -> Result<Decision, crate::error::Refusal> {
        let mut headers = HeaderMap::new();
        headers.insert(AUTHORIZATION, HeaderValue::try_from(format!("Bearer {token}")).unwrap());
        let target = Uri::from_static("/accounts");
        let credentials = Credentials::of(&headers, &target);
        let Double { guard, peer, clock, .. } = &self.double;
        let required = self.double.required(scope);
        verification::decide(&guard.judgement, &required, Some(peer), &credentials, clock.now(), &mut None)
    }

    /// A call of this token that waits for an answer.
    fn undecided(&self, token: &str) -> Undecided {
        match self.begun(token, "accounts:read") {
            Ok(Decision::Undecided(call)) => *call,
            other => panic!("not to be asked about: {other:?}"),
        }
    }

    async fn call(&self, token: &str) -> Result<AuthorizedCall, crate::error::Refusal> {
        match self.begun(token, "accounts:read")? {
            Decision::Permitted(call) => Ok(call),
            Decision::Undecided(call) => call.settle().await,
        }
    }

    /// The call of the double's token: how it ends, and with what status.
    async fn ends(&self) -> Option<(&'static str, u16)> {
        let refusal = self.call(&self.token).await.err()?;
        Some((refusal.reason(), refusal.code().status()))
    }
}

const INACTIVE: Option<(&str, u16)> = Some(("introspection_inactive", 401));
const UNAVAILABLE: Option<(&str, u16)> = Some(("introspection_unavailable", 503));
const OF_ANOTHER: Option<(&str, u16)> = Some(("introspection_of_another_token", 503));

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
    for error in [
        FetchError::Body,
        FetchError::Connection("refused".to_owned()),
        FetchError::MediaType,
        FetchError::Status(302),
        FetchError::Status(400),
        FetchError::Status(503),
    ] {
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

/// Whatever comes in the place of an answer: a server in trouble is not asked by everybody at once.
#[tokio::test]
async fn a_server_that_fails_is_asked_one_at_a_time() {
    for error in [
        FetchError::Body,
        FetchError::Connection("reset".to_owned()),
        FetchError::MediaType,
        FetchError::Status(400),
        FetchError::Status(429),
        FetchError::Status(503),
    ] {
        let scene = Scene::new();
        scene.fails(Says::Fails(error.clone()));
        assert_eq!(scene.ends().await, UNAVAILABLE);
        scene.double.wait(MILLISECOND);
        scene.server.gate.forget_permits(Semaphore::MAX_PERMITS);
        let mut calls = tokio::task::JoinSet::new();
        for n in 0..20 {
            let call = scene.undecided(&nth(&scene, n));
            calls.spawn(call.settle());
        }
        for _ in 0..19 {
            let refused = calls.join_next().await.unwrap().unwrap().unwrap_err();
            assert_eq!(refused.reason(), "introspection_unavailable");
        }
        assert_eq!(scene.asked(), 2, "{error}: one of twenty asked");
        scene.says(&json!({ "active": false }));
        scene.server.gate.add_permits(1_000);
        assert_eq!(calls.join_next().await.unwrap().unwrap().unwrap_err().reason(), "introspection_inactive");
        let introspection = scene.double.guard.judgement.introspection.as_ref().unwrap();
        assert!(!introspection.failing.load(Ordering::Relaxed), "{error}: it is over");
    }
    // An answer that is none says nothing against the next one.
    let scene = Scene::new();
    scene.says_raw("garbage");
    assert_eq!(scene.ends().await, UNAVAILABLE);
    let introspection = scene.double.guard.judgement.introspection.as_ref().unwrap();
    assert!(!introspection.failing.load(Ordering::Relaxed));
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
        let mut calls = tokio::task::JoinSet::new();
        for _ in 0..50 {
            let call = scene.undecided(&scene.token);
            calls.spawn(call.settle());
        }
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

/// The `n`th token of the `client`th client.
fn of_client(scene: &Scene, client: usize, n: usize) -> String {
    let client = format!("client-{client}");
    scene.double.claiming(|claims| {
        claims.with("jti", format!("jti-{n}")).with("client_id", client.as_str()).with("sub", client.as_str())
    })
}

#[tokio::test]
async fn no_client_takes_all_the_questions() {
    let scene = Scene::new();
    scene.fails(Says::Active);
    scene.server.gate.forget_permits(Semaphore::MAX_PERMITS);
    let mut calls = tokio::task::JoinSet::new();
    for n in 0..MOST_QUESTIONS_OF_A_CLIENT {
        let call = scene.undecided(&of_client(&scene, 1, n));
        calls.spawn(call.settle());
    }
    while scene.asked() < MOST_QUESTIONS_OF_A_CLIENT {
        tokio::task::yield_now().await;
    }
    let refused = scene.call(&of_client(&scene, 1, MOST_QUESTIONS_OF_A_CLIENT)).await.unwrap_err();
    assert_eq!((refused.reason(), scene.asked()), ("introspection_unavailable", MOST_QUESTIONS_OF_A_CLIENT));
    let other = scene.undecided(&of_client(&scene, 2, 0));
    calls.spawn(other.settle());
    while scene.asked() == MOST_QUESTIONS_OF_A_CLIENT {
        tokio::task::yield_now().await; // another's is asked
    }
    scene.server.gate.add_permits(1_000);
    while let Some(call) = calls.join_next().await {
        assert!(call.unwrap().is_ok());
    }
    scene.double.wait(MILLISECOND);
    assert!(scene.call(&of_client(&scene, 1, MOST_QUESTIONS_OF_A_CLIENT)).await.is_ok(), "there is room again");
}

#[tokio::test]
async fn no_client_takes_all_the_places_to_wait() {
    let scene = Scene::new();
    scene.fails(Says::Active);
    scene.server.gate.forget_permits(Semaphore::MAX_PERMITS);
    let mut calls = tokio::task::JoinSet::new();
    for _ in 0..MOST_WAITING_OF_A_CLIENT {
        let call = scene.undecided(&scene.token);
        calls.spawn(call.settle());
    }
    let introspection = scene.double.guard.judgement.introspection.as_ref().unwrap();
    while introspection.waiting.available_permits() > MOST_WAITING - MOST_WAITING_OF_A_CLIENT {
        tokio::task::yield_now().await;
    }
    assert_eq!(scene.ends().await, UNAVAILABLE);
    let other = scene.undecided(&of_client(&scene, 2, 0));
    calls.spawn(other.settle());
    scene.server.gate.add_permits(1_000);
    while let Some(call) = calls.join_next().await {
        assert!(call.unwrap().is_ok());
    }
}

/// The `n`th token of the same client.
fn nth(scene: &Scene, n: usize) -> String {
    scene.double.claiming(|claims| claims.with("jti", format!("jti-{n}")))
}

#[tokio::test]
async fn one_question_too_many() {
    let scene = Scene::new();
    scene.fails(Says::Active);
    scene.server.gate.forget_permits(Semaphore::MAX_PERMITS);
    let mut calls = tokio::task::JoinSet::new();
    for n in 0..MOST_QUESTIONS {
        let call = scene.undecided(&of_client(&scene, n / MOST_QUESTIONS_OF_A_CLIENT, n));
        calls.spawn(call.settle());
    }
    while scene.asked() < MOST_QUESTIONS {
        tokio::task::yield_now().await;
    }
    let refused = scene.call(&of_client(&scene, 99, 0)).await.unwrap_err();
    assert_eq!((refused.reason(), scene.asked()), ("introspection_unavailable", MOST_QUESTIONS));
    // The 256th was asked; and with a place free there is one more.
    scene.server.gate.add_permits(1_000);
    while calls.join_next().await.is_some() {}
    scene.double.wait(MILLISECOND);
    scene.call(&of_client(&scene, 99, 0)).await.unwrap();
    assert_eq!(scene.asked(), MOST_QUESTIONS + 1);
}

#[tokio::test]
async fn one_call_too_many() {
    let scene = Scene::new();
    scene.fails(Says::Active);
    scene.server.gate.forget_permits(Semaphore::MAX_PERMITS);
    let mut calls = tokio::task::JoinSet::new();
    for client in 0..MOST_WAITING / MOST_WAITING_OF_A_CLIENT {
        let token = of_client(&scene, 10 + client, 0);
        for _ in 0..MOST_WAITING_OF_A_CLIENT {
            let call = scene.undecided(&token);
            calls.spawn(call.settle());
        }
    }
    let introspection = scene.double.guard.judgement.introspection.as_ref().unwrap();
    while introspection.waiting.available_permits() > 0 {
        tokio::task::yield_now().await;
    }
    assert_eq!(scene.ends().await, UNAVAILABLE);
    scene.server.gate.add_permits(1_000);
    while let Some(call) = calls.join_next().await {
        assert!(call.unwrap().is_ok());
    }
    assert_eq!((scene.ends().await, scene.asked()), (None, 9), "one for each client, and this");
}

#[tokio::test]
async fn a_server_that_never_answers_is_asked_one_at_a_time() {
    let scene = Scene::with_patience(Duration::from_millis(20));
    assert_eq!(scene.ends().await, None);
    assert!(scene.double.guard.is_ready());
    scene.double.wait(SECOND);
    scene.fails(Says::Nothing);
    assert_eq!(scene.ends().await, UNAVAILABLE);
    let introspection = scene.double.guard.judgement.introspection.as_ref().unwrap();
    while introspection.is_answered() {
        tokio::task::yield_now().await; // the caller's patience ends just before the question's
    }
    assert!(!scene.double.guard.is_ready());
    assert_eq!(scene.asked(), 2);
    let mut calls = tokio::task::JoinSet::new();
    for n in 0..100 {
        let call = scene.undecided(&nth(&scene, n));
        calls.spawn(call.settle());
    }
    while let Some(call) = calls.join_next().await {
        assert_eq!(call.unwrap().unwrap_err().reason(), "introspection_unavailable");
    }
    assert_eq!(scene.asked(), 3, "one of a hundred asked");
    scene.says(&scene.active());
    while introspection.probe.available_permits() == 0 {
        tokio::task::yield_now().await;
    }
    assert_eq!(scene.ends().await, None);
    assert!(!introspection.failing.load(Ordering::Relaxed));
    assert!(scene.double.guard.is_ready());
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
