//! What the store finds of what expires, and how notices are raised, taken and delivered by several nodes.

use std::collections::BTreeMap;
use std::sync::Mutex;

use countersign_resource_server::token::jwks::KeySet;
use countersign_resource_server::token::jws::{Expectation, KeyChoice, SigningAlgorithm, Untyped, verify};
use serde_json::Value;
use tokio::sync::Barrier;

use super::*;
use crate::expiry::store::{Claimed, ExpiryStore, NewNotice, Place, Settled};
use crate::expiry::{
    Dated, Deliver, DeliveryFailure, Kind, Notice, NoticeId, Round, Successor, Survey, Threshold, Watch, WatchSettings,
    Window,
};
use crate::mint::fixture::{ISSUER, mint, ring};
use crate::registry::certificate::CertificateFacts;
use crate::registry::participant::{Contacts, Participant};
use crate::registry::{PathIssuer, Replacement};

contract!(
    leaves_come_in_the_order_of_their_ends_and_in_pages,
    a_leaf_comes_with_what_is_to_take_its_place,
    a_leaf_that_cannot_be_read_hides_no_other,
    an_intermediate_comes_once_for_each_participant,
    what_ends_first_is_found_beyond_every_threshold,
    a_survey_has_everything_soonest_first,
    each_threshold_is_told_of_once,
    what_was_met_late_is_told_of_by_its_closest_threshold,
    what_is_told_is_signed_and_named,
    a_restart_tells_nothing_twice,
    two_nodes_tell_once,
    a_notice_left_by_a_node_that_died_is_delivered_by_another,
    a_node_that_was_overtaken_does_not_undo_what_the_other_did,
    a_notice_that_is_not_taken_is_tried_again_with_growing_pauses,
    a_notice_is_given_up_after_five_days,
    a_receiver_that_does_not_answer_delays_nobody_else,
    one_that_failed_makes_way_for_those_that_were_not_tried,
    a_notice_that_cannot_be_read_holds_up_no_other,
    nobody_is_told_where_there_is_no_webhook,
    a_webhook_that_was_changed_is_used_from_then_on,
    a_participant_that_has_withdrawn_is_not_told,
    the_ends_of_anchors_and_of_what_is_elsewhere_are_raised,
    notices_are_forgotten_when_they_are_long_over,
    intermediates_that_were_on_record_before_are_found_after_the_migration,
);

const SECOND: Duration = Duration::from_secs(1);
const MINUTE: Duration = Duration::from_secs(60);
const DAY: Duration = Duration::from_secs(86_400);
const MILLISECOND: Duration = Duration::from_millis(1);

/// Sixty days from now.
fn end() -> UnixTime {
    NOW.after(60 * DAY)
}

/// Certificate `number`, three hundred days old, that expires at `end`.
fn ending(number: u32, end: UnixTime) -> CertificateFacts {
    CertificateFacts { not_before: NOW.before(300 * DAY), not_after: end.before(SECOND), ..facts(number) }
}

fn seen(number: u32, end: UnixTime) -> Sighting {
    let facts = ending(number, end);
    Sighting { not_before: facts.not_before, not_after: facts.not_after, ..sighting(number, "ca") }
}

fn window(from: UnixTime, until: UnixTime) -> Window {
    Window { from, until }
}

fn number_of(thumbprint: &str) -> u32 {
    (0..100).find(|number| facts(*number).thumbprint.to_string() == thumbprint).unwrap()
}

/// Whoever is pushed to: what came where, and who takes nothing.
#[derive(Debug, Default)]
struct Receivers {
    taken: Mutex<Vec<(String, String)>>,
    tried: Mutex<Vec<String>>,
    dead: Mutex<BTreeSet<String>>,
    /// Nobody answers before so many are being asked.
    together: Option<Barrier>,
}

impl Receivers {
    fn kill(&self, url: &str) {
        self.dead.lock().unwrap().insert(url.to_owned());
    }

    fn revive(&self, url: &str) {
        self.dead.lock().unwrap().remove(url);
    }

    fn taken(&self) -> usize {
        self.taken.lock().unwrap().len()
    }

    fn tried(&self) -> usize {
        self.tried.lock().unwrap().len()
    }

    fn events(&self) -> Vec<Value> {
        self.taken.lock().unwrap().iter().map(|(_, token)| claims(token)).collect()
    }
}

impl Deliver for Receivers {
    fn push<'a>(&'a self, url: &'a str, token: String) -> BoxFuture<'a, Result<(), DeliveryFailure>> {
        Box::pin(async move {
            self.tried.lock().unwrap().push(url.to_owned());
            if let Some(together) = &self.together {
                together.wait().await;
            }
            if self.dead.lock().unwrap().contains(url) {
                return Err(DeliveryFailure("dead".to_owned()));
            }
            self.taken.lock().unwrap().push((url.to_owned(), token));
            Ok(())
        })
    }
}

/// What a token says, once its signature held by the keys that are published.
fn claims(token: &str) -> Value {
    let keys = KeySet::parse(ring().published(crate::mint::fixture::NOW).body.as_bytes()).unwrap();
    let expected = Expectation {
        algorithms: &[SigningAlgorithm::ES256],
        types: &["secevent+jwt"],
        untyped: Untyped::Refuse,
        key: KeyChoice::ByKid,
        max_bytes: 8192,
    };
    verify(token, &keys, &expected).unwrap().claims().unwrap()
}

fn event(claims: &Value) -> &Value {
    &claims["events"][format!("{ISSUER}/events/expiring")]
}

fn hook(id: &str) -> String {
    format!("https://{id}.example/hook")
}

/// A watch of one node.
fn watch(bench: &Bench, receivers: &Arc<Receivers>) -> Watch {
    watch_of(&bench.store, &bench.registry, receivers)
}

fn watch_of(store: &Store, registry: &Arc<Registry>, receivers: &Arc<Receivers>) -> Watch {
    let settings = WatchSettings { every: Duration::from_secs(3_600), notice_days: vec![1, 3, 7, 14, 30] };
    let receivers: Arc<Receivers> = Arc::clone(receivers);
    Watch::new(Arc::clone(registry), Arc::new(store.clone()), mint(), settings, receivers)
}

/// A participant with a webhook and one client, whose certificate was seen and expires at `end`.
async fn partner(bench: &Bench, id: &str, number: u32, end: UnixTime) {
    let client = format!("{id}-1");
    bench.join(id, &[&client], &format!("{id}-ca")).await;
    tell(bench, id, Some(hook(id))).await;
    bench.sighted(&client, &Sighting { anchor: None, ..seen(number, end) }, NOW).await.unwrap();
}

async fn tell(bench: &Bench, id: &str, webhook: Option<String>) {
    let contacts = Contacts { technical: Some(format!("ops@{id}.example")), webhook, ..Contacts::default() };
    let changed = Participant { contacts, ..participant(id) };
    bench.registry.change_participant(changed, because("contacts")).await.unwrap();
}

async fn rows(bench: &Bench, state: &'static str) -> i64 {
    let row = sqlx::query("SELECT COUNT(*) FROM notice WHERE state = $1")
        .bind(state)
        .fetch_one(&bench.store.readers)
        .await
        .unwrap();
    row.try_get(0).unwrap()
}

async fn leaves_come_in_the_order_of_their_ends_and_in_pages(bench: &Bench) {
    bench.populate().await;
    let at = |days: u32| NOW.after(days * DAY);
    for (number, days) in [(1, 5), (2, 3), (3, 3), (4, 9), (5, 1), (6, 10), (7, 4), (8, 4)] {
        bench.registry.add_certificate(client_id("acme-1"), ending(number, at(days)), because("x")).await.unwrap();
    }
    revoke(bench, 7, RevocationReason::Superseded).await;
    bench.registry.supersede_certificate(facts(8).thumbprint, at(2), because("x")).await.unwrap();
    let list = async |window, limit| {
        let (mut all, mut after): (Vec<u32>, Option<Place>) = (Vec::new(), None);
        loop {
            let page = bench.store.leaves(window, after, limit).await.unwrap();
            assert!(page.leaves.len() <= usize::try_from(limit).unwrap());
            all.extend(page.leaves.iter().map(|leaf| number_of(&leaf.certificate.thumbprint.to_string())));
            after = page.next;
            if after.is_none() {
                return all;
            }
        }
    };
    let mut tie = [2, 3];
    tie.sort_by_key(|number| facts(*number).thumbprint.to_string());
    // After the one end, up to and with the other.
    let expected = [&tie[..], &[1, 4]].concat();
    for limit in [1, 2, 3, 100] {
        assert_eq!(list(window(at(1), at(9)), limit).await, expected, "{limit} at a time");
    }
    assert_eq!(list(window(at(1), at(9).before(MILLISECOND)), 100).await, expected[..3]);
    assert_eq!(list(window(at(1).before(MILLISECOND), at(9)), 100).await[0], 5);
}

async fn a_leaf_comes_with_what_is_to_take_its_place(bench: &Bench) {
    partner(bench, "acme", 1, end()).await;
    let survey = Survey::new(Arc::clone(&bench.registry), Arc::new(bench.store.clone()));
    let successor = async || {
        let all = survey.within(window(NOW, end())).await.unwrap();
        let leaf = all.into_iter().find(|one| one.id == facts(1).thumbprint.to_string()).unwrap();
        assert_eq!(leaf.client, Some(client_id("acme-1")));
        assert_eq!(leaf.contact.as_deref(), Some("ops@acme.example"));
        leaf.successor
    };
    assert_eq!(successor().await, None);
    let replaces = Replacement { thumbprint: facts(1).thumbprint, overlap_seconds: 60 * 86_400 };
    let next = ending(2, end().after(DAY));
    bench.registry.announce_replacement(client_id("acme-1"), next, replaces, because("next")).await.unwrap();
    let thumbprint = facts(2).thumbprint;
    assert_eq!(successor().await, Some(Successor::Announced { thumbprint, announced_at: Some(NOW) }));
    // Of another client: nothing to do with it.
    bench.join("bolt", &["bolt-1"], "ca").await;
    bench.sighted("bolt-1", &seen(3, end().after(DAY)), NOW).await.unwrap();
    assert!(matches!(successor().await, Some(Successor::Announced { .. })));
    // Seen, it supersedes the old one, which then is nobody's concern any more.
    bench.sighted("acme-1", &seen(2, end().after(DAY)), NOW).await.unwrap();
    let all = survey.within(window(NOW, end())).await.unwrap();
    assert!(all.is_empty(), "{all:?}");
}

async fn a_leaf_that_cannot_be_read_hides_no_other(bench: &Bench) {
    bench.populate().await;
    for number in 1..=4 {
        let end = end().after(number * SECOND);
        bench.registry.add_certificate(client_id("acme-1"), ending(number, end), because("x")).await.unwrap();
    }
    bench.run("UPDATE certificate SET record = '{}' WHERE serial = '0003'").await;
    for limit in [1, 100] {
        let (mut read, mut after) = (Vec::new(), None);
        loop {
            let page = bench.store.leaves(window(NOW, end().after(DAY)), after, limit).await.unwrap();
            read.extend(page.leaves.iter().map(|leaf| number_of(&leaf.certificate.thumbprint.to_string())));
            after = page.next;
            if after.is_none() {
                break;
            }
        }
        assert_eq!(read, [1, 2, 4], "{limit} at a time");
    }
}

fn issuer(name: &str, end: UnixTime) -> PathIssuer {
    PathIssuer {
        key_hash: KeyHash::of(name.as_bytes()),
        issuer_key: KeyHash::of(b"root"),
        serial: name.to_owned(),
        not_after: end.before(SECOND),
    }
}

async fn an_intermediate_comes_once_for_each_participant(bench: &Bench) {
    bench.populate().await;
    bench.join("bolt", &["bolt-1"], "ca").await;
    let soon = NOW.after(DAY);
    let under = |number, issuers: &[PathIssuer]| Sighting { issuers: issuers.to_vec(), ..seen(number, end()) };
    let (shared, far) = (issuer("aa", soon), issuer("bb", end().after(DAY)));
    // Seen as announced, enrolled on first use, and with the same intermediate twice.
    bench.registry.add_certificate(client_id("acme-1"), ending(1, end()), because("x")).await.unwrap();
    bench.sighted("acme-1", &under(1, &[shared.clone(), far.clone()]), NOW).await.unwrap();
    bench.sighted("acme-1", &under(2, &[shared.clone(), shared.clone()]), NOW).await.unwrap();
    bench.sighted("bolt-1", &under(3, std::slice::from_ref(&shared)), NOW).await.unwrap();
    bench.sighted("bolt-1", &under(4, std::slice::from_ref(&shared)), NOW).await.unwrap();
    revoke(bench, 4, RevocationReason::Superseded).await;
    let found = bench.store.path_issuers(window(NOW, soon), 10).await.unwrap();
    let told: Vec<_> = found
        .iter()
        .map(|one| (one.serial.as_str(), one.participant.id.as_str(), one.client.as_str(), one.certificates))
        .collect();
    assert_eq!(told, [("aa", "acme", "acme-1", 2), ("aa", "bolt", "bolt-1", 1)]);
    assert!(found.iter().all(|one| one.expires_at == soon && one.last_seen == Some(NOW)), "{found:?}");
    assert!(bench.store.path_issuers(window(NOW, soon.before(MILLISECOND)), 10).await.unwrap().is_empty());
    assert!(bench.store.path_issuers(window(soon, end()), 10).await.unwrap().is_empty());
}

async fn what_ends_first_is_found_beyond_every_threshold(bench: &Bench) {
    bench.populate().await;
    let soonest = async |now| {
        let soonest = bench.store.soonest(now).await.unwrap();
        (soonest.leaf, soonest.intermediate)
    };
    assert_eq!(soonest(NOW).await, (None, None));
    let (far, farther) = (NOW.after(500 * DAY), NOW.after(700 * DAY));
    let under = Sighting { issuers: vec![issuer("aa", far.before(DAY))], ..seen(1, far) };
    bench.sighted("acme-1", &under, NOW).await.unwrap();
    bench.registry.add_certificate(client_id("acme-1"), ending(2, farther), because("x")).await.unwrap();
    assert_eq!(soonest(NOW).await, (Some(far), Some(far.before(DAY))));
    assert_eq!(soonest(far.before(MILLISECOND)).await, (Some(far), None));
    assert_eq!(soonest(far).await, (Some(farther), None));
    bench.registry.set_client_state(client_id("acme-1"), ClientState::Retired, because("gone")).await.unwrap();
    assert_eq!(soonest(NOW).await, (None, None));
}

async fn a_survey_has_everything_soonest_first(bench: &Bench) {
    bench.populate().await;
    let certificate = countersign_conformance::pki::Authority::root("Partner CA", NOW.as_seconds());
    let mut real = anchor("real");
    real.material =
        crate::registry::trust_anchor::AnchorMaterial::X509 { certificate_der: certificate.certificate.to_vec() };
    real.owner = AnchorOwner::Participant(participant_id("acme"));
    let (_, anchor_end) = crate::pki::anchor::validity(&real).unwrap();
    bench.registry.add_anchor(real, b"real".to_vec(), because("x")).await.unwrap();
    let leaf_end = anchor_end.after(DAY);
    let under = Sighting { issuers: vec![issuer("aa", anchor_end.before(DAY))], ..seen(1, leaf_end) };
    bench.sighted("acme-1", &under, NOW).await.unwrap();
    let survey = Survey::new(Arc::clone(&bench.registry), Arc::new(bench.store.clone()));
    let all = survey.within(window(NOW, leaf_end)).await.unwrap();
    let kinds: Vec<_> = all.iter().map(|one| one.kind).collect();
    assert_eq!(kinds, [Kind::Intermediate, Kind::Anchor, Kind::Leaf]);
    assert!(all.iter().all(|one| one.participant == Some(participant_id("acme"))));
    bench.registry.retire_anchor(anchor_id("real"), because("x")).await.unwrap();
    assert_eq!(survey.within(window(NOW, leaf_end)).await.unwrap().len(), 2);
}

async fn each_threshold_is_told_of_once(bench: &Bench) {
    partner(bench, "acme", 1, end()).await;
    let receivers = Arc::new(Receivers::default());
    let watch = watch(bench, &receivers);
    let mut told = 0;
    for days in [30, 14, 7, 3, 1, 0] {
        let threshold = end().before(days * DAY);
        watch.tick(threshold.before(MILLISECOND)).await.unwrap();
        assert_eq!(receivers.taken(), told, "{days} days and a millisecond");
        for _ in 0..2 {
            watch.tick(threshold).await.unwrap();
            assert_eq!(receivers.taken(), told + 1, "{days} days");
        }
        told += 1;
    }
    for later in [SECOND, 6 * DAY, 300 * DAY] {
        watch.tick(end().after(later)).await.unwrap();
    }
    assert_eq!(receivers.taken(), told);
    let within: Vec<_> = receivers.events().iter().map(|claims| event(claims)["within_days"].clone()).collect();
    assert_eq!(within, [30.into(), 14.into(), 7.into(), 3.into(), 1.into(), Value::Null]);
    let jtis: BTreeSet<_> = receivers.events().iter().map(|claims| claims["jti"].to_string()).collect();
    assert_eq!(jtis.len(), told);
}

async fn what_was_met_late_is_told_of_by_its_closest_threshold(bench: &Bench) {
    partner(bench, "acme", 1, end()).await;
    partner(bench, "bolt", 2, end().before(8 * DAY)).await;
    let receivers = Arc::new(Receivers::default());
    // The server was not running for a while: one has five days left, the other is three days over.
    watch(bench, &receivers).tick(end().before(5 * DAY)).await.unwrap();
    let mut told: Vec<_> = receivers
        .events()
        .iter()
        .map(|claims| (claims["aud"].as_str().unwrap().to_owned(), event(claims)["within_days"].as_i64()))
        .collect();
    told.sort();
    assert_eq!(told, [("acme".to_owned(), Some(7)), ("bolt".to_owned(), None)]);
    // And one that ended more than a week ago is no news.
    let later = Arc::new(Receivers::default());
    bench.sighted("acme-1", &Sighting { anchor: None, ..seen(3, NOW.after(DAY)) }, NOW).await.unwrap();
    watch(bench, &later).tick(NOW.after(8 * DAY)).await.unwrap();
    assert_eq!(later.taken(), 0);
}

async fn what_is_told_is_signed_and_named(bench: &Bench) {
    partner(bench, "acme", 1, end()).await;
    let next = ending(2, end().after(300 * DAY));
    bench.registry.add_certificate(client_id("acme-1"), next, because("next")).await.unwrap();
    let receivers = Arc::new(Receivers::default());
    let now = end().before(DAY);
    watch(bench, &receivers).tick(now).await.unwrap();
    let (url, token) = receivers.taken.lock().unwrap()[0].clone();
    assert_eq!(url, "https://acme.example/hook");
    let claims = claims(&token);
    assert_eq!(claims["iss"], ISSUER);
    assert_eq!(claims["aud"], "acme");
    assert_eq!(claims["iat"], now.as_seconds());
    assert_eq!(claims["jti"].as_str().unwrap().len(), 43);
    assert_eq!(
        *event(&claims),
        serde_json::json!({
            "kind": "leaf",
            "id": facts(1).thumbprint.to_string(),
            "subject": "CN=1",
            "expires_at": end().as_seconds(),
            "expired": false,
            "within_days": 1,
            "participant_id": "acme",
            "contact": "ops@acme.example",
            "client_id": "acme-1",
            "last_seen": NOW.as_seconds(),
            "successor": { "state": "announced", "x5t#S256": facts(2).thumbprint.to_string() },
        })
    );
    let names: BTreeSet<_> = claims.as_object().unwrap().keys().map(String::as_str).collect();
    // RFC 8417 §4.2: no `exp`; and nothing else an access token has to have.
    assert_eq!(names, ["aud", "events", "iat", "iss", "jti"].into());
}

async fn a_restart_tells_nothing_twice(bench: &Bench) {
    partner(bench, "acme", 1, end()).await;
    let receivers = Arc::new(Receivers::default());
    receivers.kill(&hook("acme"));
    let now = end().before(DAY);
    assert_eq!(watch(bench, &receivers).tick(now).await.unwrap(), Round { failed: 1, ..Round::default() });
    // What was raised and not delivered is on record: the process that starts next delivers it, once.
    receivers.revive(&hook("acme"));
    let store = open(&bench.url, Migrate::Check).await.unwrap();
    let restarted = watch_of(&store, &bench.another().await, &receivers);
    for second in 0..180 {
        restarted.tick(now.after(second * SECOND)).await.unwrap();
    }
    assert_eq!((receivers.taken(), receivers.tried()), (1, 2));
}

async fn two_nodes_tell_once(bench: &Bench) {
    for number in 0..6 {
        partner(bench, &format!("p{number}"), number, end()).await;
    }
    let receivers = Arc::new(Receivers::default());
    let store = open(&bench.url, Migrate::Check).await.unwrap();
    let nodes = [watch(bench, &receivers), watch_of(&store, &bench.another().await, &receivers)];
    for days in [30, 14, 7] {
        let now = end().before(days * DAY);
        let rounds = join_all(nodes.iter().map(|node| node.tick(now))).await;
        assert!(rounds.iter().all(Result::is_ok), "{rounds:?}");
        // Whatever one left to the other in the middle of a round is due in the next.
        join_all(nodes.iter().map(|node| node.tick(now))).await;
    }
    assert_eq!(receivers.taken(), 18);
    let jtis: BTreeSet<_> = receivers.events().iter().map(|claims| claims["jti"].to_string()).collect();
    assert_eq!(jtis.len(), 18);
}

/// One notice on record, and the node that was to deliver it has taken it.
async fn taken(bench: &Bench, now: UnixTime) -> (Claimed, UnixTime) {
    partner(bench, "acme", 1, end()).await;
    let dead = Arc::new(Receivers::default());
    dead.kill(&hook("acme"));
    watch(bench, &dead).tick(now).await.unwrap();
    let (due, until) = (now.after(MINUTE), now.after(6 * MINUTE));
    let claimed = bench.store.claim(&participant_id("acme"), due, until).await.unwrap().unwrap();
    assert!(bench.store.claim(&participant_id("acme"), due, until).await.unwrap().is_none(), "it is taken");
    (claimed, until)
}

async fn a_notice_left_by_a_node_that_died_is_delivered_by_another(bench: &Bench) {
    let (_, until) = taken(bench, end().before(DAY)).await;
    let receivers = Arc::new(Receivers::default());
    let other = watch(bench, &receivers);
    other.tick(until.before(MILLISECOND)).await.unwrap();
    assert_eq!(receivers.taken(), 0);
    other.tick(until).await.unwrap();
    assert_eq!(receivers.taken(), 1);
}

async fn a_node_that_was_overtaken_does_not_undo_what_the_other_did(bench: &Bench) {
    let (slow, until) = taken(bench, end().before(DAY)).await;
    let receivers = Arc::new(Receivers::default());
    watch(bench, &receivers).tick(until).await.unwrap();
    assert_eq!(rows(bench, "delivered").await, 1);
    for outcome in [Settled::Again(until), Settled::GivenUp, Settled::Unaddressed] {
        bench.store.settle(&slow, outcome).await.unwrap();
        assert_eq!(rows(bench, "delivered").await, 1, "{outcome:?}");
    }
}

async fn a_notice_that_is_not_taken_is_tried_again_with_growing_pauses(bench: &Bench) {
    partner(bench, "acme", 1, end()).await;
    let receivers = Arc::new(Receivers::default());
    receivers.kill(&hook("acme"));
    let watch = watch(bench, &receivers);
    let mut now = end().before(DAY);
    watch.tick(now).await.unwrap();
    for (attempt, minutes) in [1, 2, 4, 8, 16, 32, 64, 128, 256, 360, 360].into_iter().enumerate() {
        let next = now.after(minutes * MINUTE);
        watch.tick(next.before(MILLISECOND)).await.unwrap();
        assert_eq!(receivers.tried(), attempt + 1, "before {minutes} minutes");
        // The expiry itself comes within this time: one more notice, not tried before.
        if next >= end() {
            break;
        }
        watch.tick(next).await.unwrap();
        assert_eq!(receivers.tried(), attempt + 2, "after {minutes} minutes");
        now = next;
    }
    assert_eq!(receivers.taken(), 0);
    receivers.revive(&hook("acme"));
    watch.tick(now.after(360 * MINUTE)).await.unwrap();
    assert!(receivers.taken() > 0);
}

async fn a_notice_is_given_up_after_five_days(bench: &Bench) {
    partner(bench, "acme", 1, end()).await;
    let receivers = Arc::new(Receivers::default());
    receivers.kill(&hook("acme"));
    let watch = watch(bench, &receivers);
    let raised = end().before(30 * DAY);
    let mut hours = 0;
    while hours <= 6 * 24 {
        watch.tick(raised.after(hours * 60 * MINUTE)).await.unwrap();
        hours += 1;
    }
    assert_eq!((rows(bench, "waiting").await, rows(bench, "given_up").await), (0, 1));
    let tried = receivers.tried();
    assert!((20..40).contains(&tried), "{tried}");
    receivers.revive(&hook("acme"));
    watch.tick(raised.after(7 * DAY)).await.unwrap();
    assert_eq!(receivers.taken(), 0, "the next threshold tells it anew");
}

async fn a_receiver_that_does_not_answer_delays_nobody_else(bench: &Bench) {
    for (id, number) in [("acme", 1), ("bolt", 2), ("cord", 3)] {
        partner(bench, id, number, end()).await;
    }
    // All three are being asked before any has answered, or this never ends.
    let receivers = Arc::new(Receivers { together: Some(Barrier::new(3)), ..Receivers::default() });
    receivers.kill(&hook("bolt"));
    let round = watch(bench, &receivers).tick(end().before(DAY)).await.unwrap();
    assert_eq!(round, Round { delivered: 2, failed: 1, more: false });
}

async fn one_that_failed_makes_way_for_those_that_were_not_tried(bench: &Bench) {
    for (id, number) in [("acme", 1), ("bolt", 2)] {
        partner(bench, id, number, end()).await;
    }
    let receivers = Arc::new(Receivers::default());
    receivers.kill(&hook("acme"));
    let now = end().before(DAY);
    let watch = watch(bench, &receivers);
    watch.tick(now).await.unwrap();
    bench.sighted("bolt-1", &Sighting { anchor: None, ..seen(3, end()) }, NOW).await.unwrap();
    let later = now.after(2 * MINUTE);
    receivers.kill(&hook("bolt"));
    watch.tick(later).await.unwrap();
    let due = bench.store.due(later.after(30 * MINUTE), 1).await.unwrap();
    assert_eq!(due, [participant_id("bolt")], "tried once, the other twice");
}

async fn a_notice_that_cannot_be_read_holds_up_no_other(bench: &Bench) {
    partner(bench, "acme", 1, end()).await;
    bench.sighted("acme-1", &Sighting { anchor: None, ..seen(2, end()) }, NOW).await.unwrap();
    bench
        .run(
            "INSERT INTO notice (id, participant_id, state, raised_at, attempts, next_attempt_at, record) \
             VALUES ('of a later release', 'acme', 'waiting', 0, 0, 0, '{}')",
        )
        .await;
    let receivers = Arc::new(Receivers::default());
    let watch = watch(bench, &receivers);
    let now = end().before(DAY);
    watch.tick(now).await.unwrap();
    watch.tick(now.after(MINUTE)).await.unwrap();
    assert_eq!(receivers.taken(), 2);
}

async fn nobody_is_told_where_there_is_no_webhook(bench: &Bench) {
    partner(bench, "acme", 1, end()).await;
    tell(bench, "acme", None).await;
    let receivers = Arc::new(Receivers::default());
    let watch = watch(bench, &receivers);
    watch.tick(end().before(30 * DAY)).await.unwrap();
    assert_eq!((rows(bench, "unaddressed").await, receivers.tried()), (1, 0));
    // From then on, and not what was said before.
    tell(bench, "acme", Some(hook("acme"))).await;
    watch.tick(end().before(20 * DAY)).await.unwrap();
    assert_eq!(receivers.tried(), 0);
    watch.tick(end().before(14 * DAY)).await.unwrap();
    assert_eq!(receivers.taken(), 1);
}

async fn a_webhook_that_was_changed_is_used_from_then_on(bench: &Bench) {
    partner(bench, "acme", 1, end()).await;
    let receivers = Arc::new(Receivers::default());
    receivers.kill(&hook("acme"));
    let watch = watch(bench, &receivers);
    let now = end().before(DAY);
    watch.tick(now).await.unwrap();
    tell(bench, "acme", Some("https://elsewhere.example/hook".to_owned())).await;
    watch.tick(now.after(MINUTE)).await.unwrap();
    assert_eq!(receivers.taken.lock().unwrap()[0].0, "https://elsewhere.example/hook");
    tell(bench, "acme", None).await;
    watch.tick(end()).await.unwrap();
    assert_eq!(rows(bench, "unaddressed").await, 1);
}

async fn a_participant_that_has_withdrawn_is_not_told(bench: &Bench) {
    partner(bench, "acme", 1, end()).await;
    let receivers = Arc::new(Receivers::default());
    receivers.kill(&hook("acme"));
    let watch = watch(bench, &receivers);
    let now = end().before(DAY);
    watch.tick(now).await.unwrap();
    let gone = ParticipantState::Withdrawn;
    bench.registry.set_participant_state(participant_id("acme"), gone, because("left")).await.unwrap();
    receivers.revive(&hook("acme"));
    watch.tick(now.after(MINUTE)).await.unwrap();
    watch.tick(end()).await.unwrap();
    assert_eq!((receivers.taken(), rows(bench, "unaddressed").await), (0, 1));
}

#[derive(Debug)]
struct Lists(Kind, UnixTime);

impl Dated for Lists {
    fn kind(&self) -> Kind {
        self.0
    }

    fn ends(&self) -> Vec<(String, UnixTime)> {
        vec![("one".to_owned(), self.1)]
    }
}

async fn the_ends_of_anchors_and_of_what_is_elsewhere_are_raised(bench: &Bench) {
    bench.join("acme", &[], "ca").await;
    tell(bench, "acme", Some(hook("acme"))).await;
    let root = countersign_conformance::pki::Authority::root("Partner CA", NOW.as_seconds());
    let material = crate::registry::trust_anchor::AnchorMaterial::X509 { certificate_der: root.certificate.to_vec() };
    let owners = [AnchorOwner::Operator, AnchorOwner::Participant(participant_id("acme"))];
    for (number, owner) in owners.into_iter().enumerate() {
        let id = format!("root-{number}");
        let own = crate::registry::trust_anchor::TrustAnchor { material: material.clone(), owner, ..anchor(&id) };
        bench.registry.add_anchor(own, id.as_bytes().to_vec(), because("x")).await.unwrap();
    }
    let (_, anchors_end) =
        crate::pki::anchor::validity(&bench.registry.anchor(&anchor_id("root-0")).await.unwrap().unwrap()).unwrap();
    let receivers = Arc::new(Receivers::default());
    let watch = watch(bench, &receivers);
    let now = anchors_end.before(DAY);
    watch.also(Arc::new(Lists(Kind::Server, now.after(14 * DAY))));
    // A list is close to its next update most of the time: only one that is over is worth a word.
    watch.also(Arc::new(Lists(Kind::Crl, now.after(MILLISECOND))));
    watch.tick(now).await.unwrap();
    assert_eq!((rows(bench, "delivered").await, rows(bench, "unaddressed").await), (1, 2));
    assert_eq!(event(&receivers.events()[0])["kind"], "anchor");
    watch.tick(now.after(MILLISECOND)).await.unwrap();
    assert_eq!(rows(bench, "unaddressed").await, 3);
}

async fn notices_are_forgotten_when_they_are_long_over(bench: &Bench) {
    partner(bench, "acme", 1, end()).await;
    let receivers = Arc::new(Receivers::default());
    let watch = watch(bench, &receivers);
    watch.tick(end()).await.unwrap();
    watch.tick(end().after(400 * DAY)).await.unwrap();
    assert_eq!(rows(bench, "delivered").await, 1);
    watch.tick(end().after(400 * DAY).after(MILLISECOND)).await.unwrap();
    assert_eq!(rows(bench, "delivered").await, 0);
}

async fn intermediates_that_were_on_record_before_are_found_after_the_migration(bench: &Bench) {
    bench.populate().await;
    let under =
        Sighting { issuers: vec![issuer("aa", end()), issuer("bb", end()), issuer("aa", end())], ..seen(1, end()) };
    bench.sighted("acme-1", &under, NOW).await.unwrap();
    bench.sighted("acme-1", &seen(2, end()), NOW).await.unwrap();
    let found = bench.store.path_issuers(window(NOW, end()), 10).await.unwrap();
    assert_eq!(found.len(), 2);
    // The state before the migration.
    bench.undo_audit_chain().await;
    for statement in [
        "DROP TABLE path_issuer",
        "DROP TABLE notice",
        "DROP INDEX certificate_by_expiry",
        "DELETE FROM _sqlx_migrations WHERE version = 4",
    ] {
        bench.run(statement).await;
    }
    bench.reopened(Migrate::Apply).await.unwrap();
    assert_eq!(bench.store.path_issuers(window(NOW, end()), 10).await.unwrap(), found);
}

/// What is raised again, with others, is not raised: told apart by id alone, whatever else it says.
#[tokio::test]
async fn many_notices_are_raised_once_each() {
    let bench = Bench::sqlite().await;
    let leaf = {
        partner(&bench, "acme", 1, end()).await;
        let survey = Survey::new(Arc::clone(&bench.registry), Arc::new(bench.store.clone()));
        survey.within(window(NOW, end())).await.unwrap().remove(0)
    };
    let new = |number: usize| NewNotice {
        notice: Notice {
            id: NoticeId::from_store(format!("id-{number}")),
            threshold: Threshold::Expired,
            raised_at: NOW,
            expiring: leaf.clone(),
        },
        addressed: true,
    };
    let mut counted = BTreeMap::new();
    for round in [0..17, 0..40, 39..41] {
        let raised = bench.store.raise(round.clone().map(new).collect()).await.unwrap();
        for id in raised {
            *counted.entry(id).or_insert(0) += 1;
        }
    }
    assert_eq!(counted.len(), 41);
    assert!(counted.values().all(|count| *count == 1));
}

/// Looking what expires is no walk through all certificates.
#[tokio::test]
async fn what_expires_is_found_by_its_index() {
    let bench = Bench::sqlite().await;
    for (statement, index) in [
        (crate::store::expiry::LEAVES, "certificate_by_expiry"),
        (crate::store::expiry::PATH_ISSUERS, "path_issuer_by_expiry"),
    ] {
        let plan = sqlx::query(sqlx::AssertSqlSafe(format!("EXPLAIN QUERY PLAN {statement}")));
        let steps: Vec<String> = plan
            .fetch_all(&bench.store.readers)
            .await
            .unwrap()
            .iter()
            .map(|row| row.try_get("detail").unwrap())
            .collect();
        assert!(steps.iter().any(|step| step.contains(index)), "{steps:?}");
        assert!(
            !steps.iter().any(|step| step.starts_with("SCAN certificate") || step.starts_with("SCAN path")),
            "{steps:?}"
        );
    }
}

/// Where a test's log goes.
#[derive(Clone, Debug, Default)]
pub(super) struct Log(pub(super) Arc<Mutex<Vec<u8>>>);

impl std::io::Write for Log {
    fn write(&mut self, octets: &[u8]) -> std::io::Result<usize> {
        self.0.lock().unwrap().extend_from_slice(octets);
        Ok(octets.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

/// One event for each certificate and threshold, on the node that was first; who is late is named.
#[tokio::test]
async fn each_threshold_is_one_event_in_the_log() {
    let bench = Bench::sqlite().await;
    partner(&bench, "acme", 1, end()).await;
    let next = ending(2, end().after(300 * DAY));
    bench.registry.add_certificate(client_id("acme-1"), next, because("next")).await.unwrap();
    let receivers = Arc::new(Receivers::default());
    let nodes = [watch(&bench, &receivers), watch(&bench, &receivers)];
    let log = Log::default();
    let lines = {
        let writer = log.clone();
        let subscriber = tracing_subscriber::fmt().json().flatten_event(true).with_writer(move || writer.clone());
        let _guard = tracing::subscriber::set_default(subscriber.finish());
        for days in [30, 30, 14, 0] {
            for node in &nodes {
                node.tick(end().before(days * DAY)).await.unwrap();
            }
        }
        String::from_utf8(log.0.lock().unwrap().clone()).unwrap()
    };
    let events: Vec<Value> = lines
        .lines()
        .map(|line| serde_json::from_str::<Value>(line).unwrap())
        .filter(|event| event.get("expiry.kind").is_some())
        .collect();
    let thresholds: Vec<_> = events.iter().map(|event| event["expiry.threshold"].as_str().unwrap()).collect();
    assert_eq!(thresholds, ["30d", "14d", "expired"]);
    for event in &events {
        assert_eq!(event["level"], "WARN");
        assert_eq!((&event["client.id"], &event["participant.id"]), (&"acme-1".into(), &"acme".into()));
        assert_eq!(event["participant.contact"], "ops@acme.example");
        assert_eq!(event["expiry.id"], facts(1).thumbprint.to_string());
        assert!(event["message"].as_str().unwrap().contains("was never seen"), "{event}");
    }
}
