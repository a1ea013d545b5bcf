//! How long a mark lasts, by whose clock.

use countersign_resource_server::time::ManualClock;

use super::expiry::Log;
use super::*;
use crate::audit::{AuditLimits, AuditLog, AuditStore};
use crate::store::registry::MARK_LIFETIME;

contract!(
    a_command_whose_clock_is_behind_ends_tokens_as_long_as_they_live,
    a_command_whose_clock_is_ahead_keeps_its_mark_a_day_longer_at_most,
    a_command_whose_clock_is_a_year_ahead_takes_no_mark_away,
    a_node_whose_clock_is_set_back_shortens_no_mark,
    a_mark_lasts_though_every_node_was_stopped,
    a_mark_waits_for_whoever_notes_a_later_end,
    a_node_far_behind_what_was_issued_says_so_when_it_starts,
    an_epoch_has_begun_when_it_says_or_when_it_was_first_seen,
);

const HOUR: Duration = Duration::from_secs(3_600);
const YEAR: Duration = Duration::from_secs(365 * 86_400);

/// When the mark of a client is over, to the millisecond: its own or none.
async fn is_over_at(bench: &Bench, id: &str, end: UnixTime) -> bool {
    let is_there = async |at| {
        let marks = bench.registry.marks(at).await.unwrap().marks;
        marks.iter().any(|mark| mark.kind == MarkKind::Client && mark.id == id)
    };
    is_there(end.before(Duration::from_millis(1))).await && !is_there(end).await
}

async fn a_command_whose_clock_is_behind_ends_tokens_as_long_as_they_live(bench: &Bench) {
    bench.populate().await;
    bench.join("bolt", &["bolt-1", "bolt-2", "bolt-3"], "other-ca").await;
    let leased = NOW.after(HOUR + Duration::from_secs(30));
    bench.store.serves_until(NOW, leased).await.unwrap();
    // Two from each host, so that the change before it helps none of them; the first two have a right one before them.
    let hosts = [("acme-1", HOUR), ("bolt-1", HOUR), ("bolt-2", YEAR), ("bolt-3", YEAR)];
    for (id, behind) in hosts {
        let at = NOW.after(HOUR).before(behind);
        bench.registry.set_client_state(client_id(id), ClientState::Suspended, because_at("x", at)).await.unwrap();
    }
    for (id, _) in hosts {
        assert!(is_over_at(bench, id, leased.after(MARK_LIFETIME)).await, "{id}");
    }
    // Nor do changes where the clock is right take away what was made where it is not.
    for state in [ClientState::Active, ClientState::Suspended, ClientState::Active, ClientState::Suspended] {
        bench.registry.set_client_state(client_id("acme-1"), state, because_at("x", NOW.after(HOUR))).await.unwrap();
    }
    assert!(is_over_at(bench, "bolt-3", leased.after(MARK_LIFETIME)).await);
}

async fn a_command_whose_clock_is_ahead_keeps_its_mark_a_day_longer_at_most(bench: &Bench) {
    bench.populate().await;
    bench.join("bolt", &["bolt-1"], "other-ca").await;
    bench.store.serves_until(NOW, NOW).await.unwrap();
    let day = Duration::from_secs(86_400);
    for (id, ahead, counted) in [("acme-1", HOUR, HOUR), ("bolt-1", YEAR, day)] {
        let at = NOW.after(ahead);
        bench.registry.set_client_state(client_id(id), ClientState::Suspended, because_at("x", at)).await.unwrap();
        assert!(is_over_at(bench, id, NOW.after(counted).after(MARK_LIFETIME)).await, "{id}");
    }
}

async fn a_command_whose_clock_is_a_year_ahead_takes_no_mark_away(bench: &Bench) {
    bench.populate().await;
    bench.join("bolt", &["bolt-1", "bolt-2"], "other-ca").await;
    bench.store.serves_until(NOW, NOW).await.unwrap();
    let suspend = |id, at| bench.registry.set_client_state(client_id(id), ClientState::Suspended, because_at("x", at));
    let first = suspend("acme-1", NOW).await.unwrap();
    for id in ["bolt-1", "bolt-2"] {
        suspend(id, NOW.after(YEAR)).await.unwrap();
    }
    assert_eq!(bench.mark_of(MarkKind::Client, "acme-1").await, Some(first));
}

/// What it issued while it was ahead lives on, and it is another's clock that is asked when that has to end.
async fn a_node_whose_clock_is_set_back_shortens_no_mark(bench: &Bench) {
    bench.populate().await;
    for until in [NOW.after(HOUR), NOW] {
        bench.store.serves_until(NOW, until).await.unwrap();
    }
    bench.registry.set_client_state(client_id("acme-1"), ClientState::Suspended, because("x")).await.unwrap();
    assert!(is_over_at(bench, "acme-1", NOW.after(HOUR).after(MARK_LIFETIME)).await);
}

async fn a_mark_lasts_though_every_node_was_stopped(bench: &Bench) {
    bench.populate().await;
    let (store, changes) = (Arc::new(bench.store.clone()), Arc::clone(&bench.registry));
    let clock = Arc::new(ManualClock::at(NOW));
    let log = AuditLog::open(store, changes, "node-1", clock, AuditLimits::default()).await.unwrap();
    // Every chain is given back.
    log.close().await;
    let behind = because_at("x", NOW.before(YEAR));
    bench.registry.set_client_state(client_id("acme-1"), ClientState::Suspended, behind).await.unwrap();
    let leased = NOW.after(Duration::from_secs(30));
    assert!(is_over_at(bench, "acme-1", leased.after(MARK_LIFETIME)).await);
}

/// An epoch is the second of a restore, by a clock that may have been ahead.
async fn an_epoch_has_begun_when_it_says_or_when_it_was_first_seen(bench: &Bench) {
    assert_eq!(bench.registry.epoch_begun(NOW), UnixTime::from_seconds(2), "the first");
    let begin = async |epoch: i64| {
        bench.tamper(&format!("UPDATE registry_state SET epoch = {epoch}, version = version + 1")).await;
        bench.registry.catch_up().await.unwrap();
    };
    let second = Duration::from_secs(1);
    begin(NOW.as_seconds() - 1).await;
    assert_eq!(bench.registry.epoch_begun(NOW), NOW);
    assert_eq!(bench.registry.epoch_begun(NOW.after(HOUR)), NOW);
    begin(NOW.as_seconds()).await;
    assert_eq!(bench.registry.epoch_begun(NOW), NOW, "its second is not over");
    begin(NOW.after(HOUR).as_seconds()).await;
    assert_eq!(bench.registry.epoch_begun(NOW.after(second)), NOW.after(second));
    assert_eq!(bench.registry.epoch_begun(NOW.after(2 * second)), NOW.after(second), "not later with each request");
    // Its second comes an hour later, and is no beginning then: whoever was let in is not refused once more.
    for passed in [NOW.after(HOUR), NOW.after(HOUR + second), NOW.after(HOUR + 2 * second)] {
        assert_eq!(bench.registry.epoch_begun(passed), NOW.after(second), "{passed}");
    }
    begin(NOW.after(HOUR).as_seconds() + 7).await;
    assert_eq!(bench.registry.epoch_begun(NOW.after(3 * second)), NOW.after(3 * second), "another one");
}

async fn a_node_far_behind_what_was_issued_says_so_when_it_starts(bench: &Bench) {
    let started = async |ahead: Duration| {
        bench.store.serves_until(NOW, NOW.after(ahead)).await.unwrap();
        let lines = Log::default();
        let writer = lines.clone();
        let subscriber = tracing_subscriber::fmt().with_writer(move || writer.clone());
        let _guard = tracing::subscriber::set_default(subscriber.finish());
        let (store, changes) = (Arc::new(bench.store.clone()), Arc::clone(&bench.registry));
        let clock = Arc::new(ManualClock::at(NOW));
        let log = AuditLog::open(store, changes, "node-1", clock, AuditLimits::default()).await.unwrap();
        log.close().await;
        String::from_utf8(lines.0.lock().unwrap().clone()).unwrap().matches("far ahead of this node's").count()
    };
    let day = Duration::from_secs(86_400);
    for (ahead, expected) in [(HOUR, 0), (day, 0), (day + Duration::from_millis(1), 1), (YEAR, 1)] {
        assert_eq!(started(ahead).await, expected, "{ahead:?}");
    }
}

/// A node whose clock was set forward notes that, and issues a token, while a change is being made that has looked before.
async fn a_mark_waits_for_whoever_notes_a_later_end(bench: &Bench) {
    bench.populate().await;
    bench.store.serves_until(NOW, NOW).await.unwrap();
    let later = NOW.after(2 * HOUR);
    let mut noting = bench.store.begin_write().await.unwrap();
    sqlx::query("UPDATE audit_log SET served_until = $1").bind(later.as_millis()).execute(&mut *noting).await.unwrap();
    let mut suspending =
        Box::pin(bench.registry.set_client_state(client_id("acme-1"), ClientState::Suspended, because("x")));
    let early = tokio::time::timeout(Duration::from_millis(300), suspending.as_mut()).await;
    assert!(early.is_err(), "it did not wait: {early:?}");
    noting.commit().await.unwrap();
    suspending.await.unwrap();
    assert!(is_over_at(bench, "acme-1", later.after(MARK_LIFETIME)).await);
}
