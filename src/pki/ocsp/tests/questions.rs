//! Who is asked, how often, and what is made of it: against a responder on the loopback interface.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, mpsc};
use std::time::Duration;

use countersign_conformance::ocsp::{self, HttpResponder, Reply, Status as Says};
use countersign_conformance::pki::{Authority, Credential};
use countersign_resource_server::time::ManualClock;
use futures_util::future::{BoxFuture, FutureExt, join_all};
use rustls::ClientConfig;

use super::second;
use crate::fetch::Fetcher;
use crate::pki::ocsp::{Consequences, FoundRevoked, QUESTIONS_AT_A_TIME, Responders};
use crate::pki::revocation::{CrlReason, Question, Status, StatusSource};
use crate::pki::scene::{NOW, anchor_id};
use crate::registry::trust_anchor::{NoncePolicy, OcspPolicy, Unknown};
use crate::registry::{AnchorId, KeyHash, StoreUnavailable};

/// An issuer, and who asks its responder.
struct Scene {
    issuer: Authority,
    responders: Arc<Responders>,
    clock: Arc<ManualClock>,
    anchor: AnchorId,
}

const GOOD: Status = Status::Good;
const REVOKED: Status = Status::Revoked { at: second(-100), reason: CrlReason::KeyCompromise };

impl Scene {
    fn new() -> Self {
        let tls = ClientConfig::builder_with_provider(rustls::crypto::aws_lc_rs::default_provider().into())
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_root_certificates(rustls::RootCertStore::empty())
            .with_no_client_auth();
        let clock = Arc::new(ManualClock::at(second(0)));
        let fetcher = Fetcher::new(&Arc::new(tls));
        let issuer = Authority::root("Partner A CA", NOW);
        Self {
            anchor: anchor_id(&issuer.certificate),
            issuer,
            responders: Arc::new(Responders::new(fetcher, Arc::<ManualClock>::clone(&clock))),
            clock,
        }
    }

    /// The issuer's responder, which says the same of every certificate, of this minute by the clock of this scene.
    fn responder(&self, says: &Says) -> HttpResponder {
        HttpResponder::start(self.says(says)).unwrap()
    }

    fn says(&self, says: &Says) -> impl Fn(&ocsp::Asked) -> Reply + Send + Sync + 'static {
        let (issuer, clock, says) = (self.issuer.clone(), Arc::clone(&self.clock), says.clone());
        move |asked| {
            use countersign_resource_server::time::Clock;
            let now = clock.now().as_seconds();
            let (id, nonce) = (asked.ids[0].clone(), asked.nonce.clone());
            Reply::Octets(ocsp::Response::by_issuer(&issuer, id, says.clone(), nonce, now).signed(&issuer.key))
        }
    }

    async fn ask(&self, leaf: &Credential, policy: &OcspPolicy, named: &[String], at: i64) -> Status {
        let serial = hex::encode(ocsp::serial_of(leaf.certificate()));
        let (name, spki) = (self.issuer.name.to_der(), self.issuer.key.spki());
        let question = Question {
            anchor: &self.anchor,
            serial: &serial,
            is_authority: false,
            issuer_name_der: &name,
            issuer_spki_der: &spki,
            issuer_key: &KeyHash::of(&spki),
            responder_urls: named,
        };
        self.responders.status(question, policy, second(at)).await
    }
}

fn at(responder: &HttpResponder) -> OcspPolicy {
    OcspPolicy { responder_url: Some(responder.url()), ..allowing(&[]) }
}

fn allowing(prefixes: &[String]) -> OcspPolicy {
    OcspPolicy {
        responder_url: None,
        url_prefixes: prefixes.to_vec(),
        unknown: Unknown::Refuse,
        unreachable: Unknown::Refuse,
        nonce: NoncePolicy::Required,
    }
}

/// Waits for what goes on in the background.
async fn within_ten_seconds(what: &str, mut done: impl FnMut() -> bool) {
    let waited = tokio::time::timeout(Duration::from_secs(10), async {
        while !done() {
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    });
    assert!(waited.await.is_ok(), "not within ten seconds: {what}");
}

#[tokio::test]
async fn all_who_wait_share_one_exchange_and_its_answer_is_remembered() {
    let scene = Scene::new();
    let (leaf, responder) = (scene.issuer.client("client"), scene.responder(&Says::Good));
    let policy = at(&responder);
    let answers = join_all((0..20).map(|_| scene.ask(&leaf, &policy, &[], 0))).await;
    assert!(answers.iter().all(|status| *status == GOOD), "{answers:?}");
    assert_eq!(scene.ask(&leaf, &policy, &[], 299).await, GOOD);
    assert_eq!(responder.asked().len(), 1);
    let asked = &responder.asked()[0];
    assert_eq!(asked.ids, [ocsp::CertId::of(leaf.certificate(), &scene.issuer)]);
    assert_eq!(asked.nonce.as_ref().map(Vec::len), Some(32));
    // Another certificate is another question, with another nonce.
    assert_eq!(scene.ask(&scene.issuer.client("other"), &policy, &[], 0).await, GOOD);
    assert_eq!(responder.asked().len(), 2);
    assert_ne!(responder.asked()[1].nonce, asked.nonce);
}

#[tokio::test]
async fn a_good_answer_is_renewed_in_the_background_and_then_found_revoked() {
    let scene = Scene::new();
    let (leaf, responder) = (scene.issuer.client("client"), scene.responder(&Says::Good));
    let policy = at(&responder);
    assert_eq!(scene.ask(&leaf, &policy, &[], 0).await, GOOD);
    responder.reply(scene.says(&Says::Revoked { at: NOW - 100, reason: Some(1) }));
    scene.clock.advance(Duration::from_secs(300));
    // Nobody waits for it.
    assert_eq!(scene.ask(&leaf, &policy, &[], 300).await, GOOD);
    within_ten_seconds("the renewal", || scene.ask(&leaf, &policy, &[], 300).now_or_never() == Some(REVOKED)).await;
    assert_eq!(responder.asked().len(), 2);
    // Neither silence nor another word brings it back.
    responder.reply(scene.says(&Says::Good));
    assert_eq!(scene.ask(&leaf, &policy, &[], 100_000).await, REVOKED);
    drop(responder);
    assert_eq!(scene.ask(&leaf, &policy, &[], 1_000_000).await, REVOKED);
}

#[tokio::test]
async fn unknown_is_asked_again_after_ten_seconds() {
    let scene = Scene::new();
    let (leaf, responder) = (scene.issuer.client("client"), scene.responder(&Says::Unknown));
    let policy = at(&responder);
    assert_eq!(scene.ask(&leaf, &policy, &[], 0).await, Status::Unknown);
    responder.reply(scene.says(&Says::Good));
    assert_eq!(scene.ask(&leaf, &policy, &[], 9).await, Status::Unknown);
    assert_eq!(scene.ask(&leaf, &policy, &[], 10).await, GOOD);
    assert_eq!(responder.asked().len(), 2);
}

#[tokio::test]
async fn who_does_not_answer_rightly_is_unreachable() {
    let scene = Scene::new();
    let responder = scene.responder(&Says::Good);
    let policy = at(&responder);
    let good = scene.says(&Says::Good);
    let replies: Vec<(&str, Reply)> = vec![
        ("an error", Reply::Http(500)),
        ("a redirect", Reply::Http(302)),
        ("tryLater", Reply::Octets(ocsp::unsuccessful(3))),
        ("unauthorized", Reply::Octets(ocsp::unsuccessful(6))),
        ("internalError", Reply::Octets(ocsp::unsuccessful(2))),
        ("nothing", Reply::Octets(Vec::new())),
        ("text", Reply::Octets(b"<html></html>".to_vec())),
        ("more than is read", Reply::Octets(vec![0x30; 64 * 1024 + 1])),
    ];
    for (defect, reply) in replies {
        responder.reply(move |_| reply.clone());
        let leaf = scene.issuer.client(defect);
        assert_eq!(scene.ask(&leaf, &policy, &[], 0).await, Status::Unreachable, "{defect}");
    }
    // An answer to somebody else's request, replayed.
    let replayed = Arc::new(Mutex::new(None));
    let leaf = scene.issuer.client("replayed");
    responder.reply(move |asked| replayed.lock().unwrap().get_or_insert_with(|| good(asked)).clone());
    assert_eq!(scene.ask(&leaf, &policy, &[], 0).await, GOOD);
    let later = Scene { responders: Scene::new().responders, ..scene };
    assert_eq!(later.ask(&leaf, &policy, &[], 0).await, Status::Unreachable);
    // And nobody there at all.
    drop(responder);
    assert_eq!(later.ask(&later.issuer.client("refused"), &policy, &[], 0).await, Status::Unreachable);
}

/// One wait of two seconds each, whatever the number of requests; and a slow responder is asked no more than it is given
/// places.
#[tokio::test]
async fn a_silent_responder_costs_one_wait_per_client() {
    let scene = Scene::new();
    let responder = HttpResponder::start(|_| Reply::Silence).unwrap();
    let policy = at(&responder);
    let leaves: Vec<_> = (0..QUESTIONS_AT_A_TIME + 4).map(|at| scene.issuer.client(&at.to_string())).collect();
    let begun = tokio::time::Instant::now();
    let asking = join_all(leaves.iter().chain(&leaves).map(|leaf| scene.ask(leaf, &policy, &[], 0)));
    let watching = async {
        within_ten_seconds("the questions", || responder.asked().len() == QUESTIONS_AT_A_TIME).await;
        let places = scene.responders.0.places.iter().next().map(|(_, places)| places.available_permits());
        assert_eq!(places, Some(0));
    };
    let (answers, ()) = tokio::join!(asking, watching);
    let waited = begun.elapsed();
    assert!(answers.iter().all(|status| *status == Status::Unreachable));
    assert!(waited >= Duration::from_millis(1_900) && waited < Duration::from_secs(4), "{waited:?}");
    // Nobody waits again while that stands: not for a single turn of the executor.
    for leaf in &leaves {
        assert_eq!(scene.ask(leaf, &policy, &[], 9).now_or_never(), Some(Status::Unreachable));
    }
    responder.reply(scene.says(&Says::Good));
    assert_eq!(scene.ask(&leaves[0], &policy, &[], 10).await, GOOD);
}

#[tokio::test]
async fn an_answer_that_comes_too_late_is_nobodys() {
    let scene = Scene::new();
    let (release, released) = mpsc::channel::<()>();
    let (released, good) = (Mutex::new(released), scene.says(&Says::Good));
    let responder = HttpResponder::start(move |asked| {
        let _ = released.lock().unwrap().recv();
        good(asked)
    })
    .unwrap();
    let (leaf, policy) = (scene.issuer.client("client"), at(&responder));
    assert_eq!(scene.ask(&leaf, &policy, &[], 0).await, Status::Unreachable);
    drop(release);
    assert_eq!(scene.ask(&leaf, &policy, &[], 9).await, Status::Unreachable);
    assert_eq!(scene.ask(&leaf, &policy, &[], 10).await, GOOD);
}

#[tokio::test]
async fn an_exchange_goes_on_when_its_request_is_gone() {
    let scene = Scene::new();
    let (leaf, responder) = (scene.issuer.client("client"), scene.responder(&Says::Good));
    let policy = at(&responder);
    assert_eq!(scene.ask(&leaf, &policy, &[], 0).now_or_never(), None); // dropped after its first poll
    within_ten_seconds("the answer", || scene.ask(&leaf, &policy, &[], 0).now_or_never() == Some(GOOD)).await;
    assert_eq!(responder.asked().len(), 1);
}

#[tokio::test]
async fn only_who_is_allowed_is_asked() {
    let scene = Scene::new();
    let (one, other) = (scene.responder(&Says::Good), scene.responder(&Says::Good));
    let named = [one.url(), other.url()];
    let ask = async |policy: &OcspPolicy| scene.ask(&scene.issuer.client("client"), policy, &named, 0).await;
    // What a certificate names counts only under an allowed prefix.
    assert_eq!(ask(&allowing(&[])).await, Status::Unreachable);
    assert_eq!(ask(&allowing(&["http://127.0.0.1".to_owned()])).await, Status::Unreachable, "not a whole host");
    assert_eq!((one.asked().len(), other.asked().len()), (0, 0));
    assert_eq!(ask(&allowing(&[other.url()])).await, GOOD);
    assert_eq!((one.asked().len(), other.asked().len()), (0, 1));
    // Beside the anchor's own responder it does not count at all.
    let third = scene.responder(&Says::Good);
    assert_eq!(ask(&OcspPolicy { responder_url: Some(third.url()), ..allowing(&named) }).await, GOOD);
    assert_eq!((one.asked().len(), other.asked().len(), third.asked().len()), (0, 1, 1));
    // One after the other, until one answers.
    one.reply(|_| Reply::Http(503));
    assert_eq!(ask(&allowing(&named)).await, GOOD);
    assert_eq!((one.asked().len(), other.asked().len()), (1, 2));
}

/// Notes what it is told; the first time it cannot.
#[derive(Debug, Default)]
struct Notes {
    told: Mutex<Vec<FoundRevoked>>,
    refused: AtomicBool,
}

impl Consequences for Notes {
    fn draw<'a>(&'a self, found: &'a FoundRevoked) -> BoxFuture<'a, Result<(), StoreUnavailable>> {
        let first = !self.refused.swap(true, Ordering::SeqCst);
        let result = if first { Err(StoreUnavailable::because("it is away")) } else { Ok(()) };
        if result.is_ok() {
            self.told.lock().unwrap().push(found.clone());
        }
        async { result }.boxed()
    }
}

#[tokio::test]
async fn a_revocation_is_put_on_record_once_also_if_that_fails_at_first() {
    let scene = Scene::new();
    let (leaf, responder) = (scene.issuer.client("client"), scene.responder(&Says::Good));
    let policy = at(&responder);
    let notes = Arc::new(Notes::default());
    assert_eq!(scene.ask(&leaf, &policy, &[], 0).await, GOOD);
    responder.reply(scene.says(&Says::Revoked { at: NOW - 100, reason: Some(1) }));
    scene.clock.advance(Duration::from_secs(300));
    // Nobody asks.
    let watching = scene.responders.keep_current(Arc::<Notes>::clone(&notes));
    within_ten_seconds("what was found", || !notes.told.lock().unwrap().is_empty()).await;
    let expected = FoundRevoked {
        anchor: scene.anchor.clone(),
        issuer_key: KeyHash::of(&scene.issuer.key.spki()),
        serial: hex::encode(ocsp::serial_of(leaf.certificate())),
        is_authority: false,
        at: second(-100),
        reason: CrlReason::KeyCompromise,
    };
    for _ in 0..3 {
        scene.responders.0.look_through(&*notes).await;
    }
    assert_eq!(*notes.told.lock().unwrap(), [expected]);
    watching.abort();
}

#[tokio::test]
async fn a_hold_is_told_each_time_it_begins() {
    let scene = Scene::new();
    let (leaf, responder) = (scene.issuer.client("client"), scene.responder(&Says::Good));
    let policy = at(&responder);
    let notes = Notes { refused: AtomicBool::new(true), ..Notes::default() };
    let hold = Says::Revoked { at: NOW - 100, reason: Some(6) };
    // Its responder may give another date each time.
    let again = Says::Revoked { at: NOW - 50, reason: Some(6) };
    let mut told = Vec::new();
    for says in [&Says::Good, &hold, &again, &Says::Good, &hold] {
        responder.reply(scene.says(says));
        let asked = responder.asked().len();
        scene.ask(&leaf, &policy, &[], 0).await;
        scene.responders.0.look_through(&notes).await;
        within_ten_seconds("a renewal", || responder.asked().len() > asked).await;
        within_ten_seconds("its end", || scene.responders.0.lines.iter().all(|(_, line)| line.lock().asking.is_none()))
            .await;
        scene.responders.0.look_through(&notes).await;
        told.push(notes.told.lock().unwrap().len());
        scene.clock.advance(Duration::from_secs(300));
    }
    assert_eq!(told, [0, 1, 1, 1, 2]);
}

#[tokio::test]
async fn certificates_are_watched_for_as_long_as_their_tokens_live_and_forgotten_then() {
    let scene = Scene::new();
    let (good, revoked) = (scene.issuer.client("good"), scene.issuer.client("revoked"));
    let responder = scene.responder(&Says::Good);
    let policy = at(&responder);
    let notes = Notes { refused: AtomicBool::new(true), ..Notes::default() };
    assert_eq!(scene.ask(&good, &policy, &[], 0).await, GOOD);
    responder.reply(scene.says(&Says::Revoked { at: NOW - 100, reason: Some(1) }));
    assert_eq!(scene.ask(&revoked, &policy, &[], 0).await, REVOKED);
    responder.reply(scene.says(&Says::Good));
    let settled = || scene.responders.0.lines.iter().all(|(_, line)| line.lock().asking.is_none());
    scene.clock.advance(Duration::from_secs(3_659));
    scene.responders.0.look_through(&notes).await;
    within_ten_seconds("the last renewal", || responder.asked().len() == 3 && settled()).await;
    scene.clock.advance(Duration::from_secs(1));
    scene.responders.0.look_through(&notes).await;
    assert_eq!(scene.responders.0.lines.iter().count(), 1, "what is revoked is kept");
    assert_eq!(responder.asked().len(), 3);
}

/// However much is due at once, a second has its number of questions.
#[tokio::test]
async fn renewals_are_spread() {
    let scene = Scene::new();
    let responder = scene.responder(&Says::Good);
    let policy = at(&responder);
    let leaves: Vec<_> = (0..40).map(|at| scene.issuer.client(&at.to_string())).collect();
    join_all(leaves.iter().map(|leaf| scene.ask(leaf, &policy, &[], 0))).await;
    scene.clock.advance(Duration::from_secs(300));
    let notes = Notes::default();
    let begun = AtomicUsize::new(responder.asked().len());
    scene.responders.0.look_through(&notes).await;
    let settled = || scene.responders.0.lines.iter().all(|(_, line)| line.lock().asking.is_none());
    within_ten_seconds("the first renewals", settled).await;
    assert_eq!(responder.asked().len() - begun.swap(0, Ordering::SeqCst), 32);
}

/// Who has many certificates that are due holds up its own.
#[tokio::test]
async fn anchors_are_renewed_in_turn() {
    let scene = Scene::new();
    let responder = scene.responder(&Says::Good);
    let policy = at(&responder);
    let leaves: Vec<_> = (0..200).map(|at| scene.issuer.client(&at.to_string())).collect();
    for leaves in leaves.chunks(10) {
        join_all(leaves.iter().map(|leaf| scene.ask(leaf, &policy, &[], 0))).await;
    }
    let other = Scene {
        issuer: scene.issuer.clone(),
        responders: Arc::clone(&scene.responders),
        clock: Arc::clone(&scene.clock),
        anchor: AnchorId::parse("other").unwrap(),
    };
    let few: Vec<_> = (0..3).map(|at| scene.issuer.client(&format!("other {at}"))).collect();
    join_all(few.iter().map(|leaf| other.ask(leaf, &policy, &[], 0))).await;
    scene.clock.advance(Duration::from_secs(300));
    let begun = responder.asked().len();
    scene.responders.0.look_through(&Notes::default()).await;
    let settled = || scene.responders.0.lines.iter().all(|(_, line)| line.lock().asking.is_none());
    within_ten_seconds("the first renewals", settled).await;
    let asked = responder.asked();
    assert_eq!(asked.len() - begun, 32);
    for leaf in &few {
        let id = ocsp::CertId::of(leaf.certificate(), &scene.issuer);
        assert!(asked[begun..].iter().any(|asked| asked.ids.contains(&id)));
    }
}
