//! What sending on promises, on both engines, with a sink in memory.

use std::sync::Mutex;

use countersign_resource_server::time::{ManualClock, UnixTime};

use super::*;
use crate::audit::chain::{ChainId, Head, Position};
use crate::audit::checkpoint::{CheckpointStore, statement_hash};
use crate::audit::{AuditStore, Batch, Entry, Lease};
use crate::store::Store;
use crate::store::contract::{Bench, contract};

pub(super) const NOW: UnixTime = UnixTime::from_millis(1_800_000_000_000);

/// A record that follows none.
pub(super) fn entry(chain: i64, sequence: i64, body: &str) -> AuditEntry {
    let position = Position::of(ChainId::new(chain).unwrap(), sequence).unwrap();
    AuditEntry { position, at: NOW, hash: statement_hash(body), body: body.to_owned() }
}

pub(super) fn checkpoint(number: i64, statement: &str) -> StoredCheckpoint {
    StoredCheckpoint { number, at: NOW, statement: statement.to_owned() }
}

contract!(
    every_record_is_sent_once_in_the_order_of_its_chain,
    runs_are_bounded_in_records_and_octets,
    a_record_longer_than_a_run_is_sent_alone,
    a_sink_that_is_away_gets_everything_when_it_is_back,
    a_failure_halfway_repeats_nothing_that_arrived,
    what_was_sent_but_not_noted_is_sent_again,
    what_has_not_settled_is_sent_again_where_it_was_lost,
    a_sink_that_hangs_holds_up_nobody,
    one_node_sends_and_another_goes_on,
    a_node_that_was_away_moves_no_cursor,
    a_turn_that_was_not_given_back_runs_out,
    a_checkpoint_comes_after_what_it_covers,
    a_checkpoint_that_cannot_be_read_is_sent_all_the_same,
    after_a_prune_it_goes_on_at_the_cut,
    a_log_that_was_put_back_is_sent_again,
    a_missing_record_stops_nothing,
    a_row_before_the_first_stops_nothing,
    a_chain_that_was_pruned_whole_stops_no_other,
    the_backlog_is_what_is_not_noted,
);

/// What a sink in memory has been sent, and what it answers.
#[derive(Clone, Debug, Default)]
struct Place(Arc<Mutex<Behaviour>>);

#[derive(Debug, Default)]
struct Behaviour {
    /// `chain/sequence`, or `checkpoint N`, in the order they came.
    arrived: Vec<String>,
    runs: Vec<usize>,
    /// How many runs are taken until one fails; none where all are.
    takes: Option<usize>,
    attempts: usize,
    settles_after: Duration,
    is_lost: bool,
}

#[derive(Debug)]
struct MemorySink(Place);

impl Place {
    fn change(&self, change: impl FnOnce(&mut Behaviour)) {
        change(&mut self.0.lock().unwrap());
    }

    fn arrived(&self) -> Vec<String> {
        self.0.lock().unwrap().arrived.clone()
    }

    /// Waits until so many runs were sent, whatever came of them.
    async fn is_tried(&self, times: usize) {
        while self.0.lock().unwrap().attempts < times {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }

    /// Waits until exactly this has arrived.
    async fn has(&self, expected: &[&str]) {
        let waited = tokio::time::timeout(Duration::from_secs(10), async {
            while self.arrived() != expected {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        });
        assert!(waited.await.is_ok(), "{:?} instead of {expected:?}", self.arrived());
    }
}

impl Sink for MemorySink {
    fn name(&self) -> &'static str {
        "memory"
    }

    fn send<'a>(&'a mut self, run: &'a Run) -> BoxFuture<'a, Result<(), SinkFailure>> {
        async move {
            let mut place = self.0.0.lock().unwrap();
            place.attempts += 1;
            let items: Vec<String> = match run {
                Run::Checkpoint(checkpoint) => vec![format!("checkpoint {}", checkpoint.number)],
                Run::Records(entries) => entries.iter().map(|entry| entry.position.to_string()).collect(),
            };
            if let Some(left) = place.takes {
                if left == 0 {
                    return Err(SinkFailure::because("away"));
                }
                place.takes = Some(left - 1);
            }
            place.runs.push(items.len());
            place.arrived.extend(items);
            Ok(())
        }
        .boxed()
    }

    fn settles_after(&self) -> Duration {
        self.0.0.lock().unwrap().settles_after
    }

    fn look(&mut self) -> BoxFuture<'_, Result<(), SinkFailure>> {
        let is_lost = std::mem::take(&mut self.0.0.lock().unwrap().is_lost);
        async move { if is_lost { Err(SinkFailure::because("lost")) } else { Ok(()) } }.boxed()
    }
}

const LIMITS: ForwardLimits = ForwardLimits {
    run: RunSize { records: 3, bytes: 1_000 },
    look: Duration::from_millis(10),
    turn: Duration::from_secs(30),
    first_pause: Duration::from_millis(10),
    longest_pause: Duration::from_millis(40),
    measure: Duration::from_secs(5),
};

fn forwarding(store: &Store, place: &Place, node: &str, clock: &Arc<dyn Clock>) -> Forwarding {
    let store: Arc<dyn ForwardStore> = Arc::new(store.clone());
    Forwarding::begin(&store, vec![Box::new(MemorySink(place.clone()))], node, clock, LIMITS)
}

fn clock() -> Arc<dyn Clock> {
    Arc::new(ManualClock::at(NOW))
}

/// A chain, written for a test.
struct Chain<'a> {
    store: &'a Store,
    lease: Lease,
}

impl<'a> Chain<'a> {
    async fn of(bench: &'a Bench) -> Self {
        let store = &bench.store;
        Self { store, lease: store.lease("writer", NOW, NOW.after(Duration::from_secs(3600))).await.unwrap() }
    }

    async fn write(&mut self, bodies: &[&str]) {
        let entries = bodies.iter().map(|body| Entry::new(NOW, (*body).to_owned())).collect();
        let batch = Batch { lease: self.lease, entries, given_back: Vec::new(), history: None };
        self.lease.head = self.store.append(Arc::new(batch)).await.unwrap().head;
    }

    async fn number(&mut self, count: usize) {
        for _ in 0..count {
            self.write(&[r#"{"kind":"decision"}"#]).await;
        }
    }
}

async fn noted(bench: &Bench) -> Vec<String> {
    let later = NOW.after(Duration::from_secs(86_400));
    let turn = bench.store.take_turn("memory", "test", later, later).await.unwrap().unwrap();
    assert!(bench.store.keep_turn("memory", turn.lease, UnixTime::from_millis(0)).await.unwrap());
    turn.sent.iter().map(|head| head.position.to_string()).collect()
}

async fn every_record_is_sent_once_in_the_order_of_its_chain(bench: &Bench) {
    let place = Place::default();
    let (mut one, mut other) = (Chain::of(bench).await, Chain::of(bench).await);
    one.number(4).await;
    let forwarding = forwarding(&bench.store, &place, "node", &clock());
    place.has(&["1/1", "1/2", "1/3", "1/4"]).await;
    other.number(1).await;
    place.has(&["1/1", "1/2", "1/3", "1/4", "2/1"]).await;
    one.number(1).await;
    place.has(&["1/1", "1/2", "1/3", "1/4", "2/1", "1/5"]).await;
    forwarding.stop().await;
    // Stopped in good order, the next one begins where it ended.
    other.number(1).await;
    let forwarding = self::forwarding(&bench.store, &place, "node", &clock());
    place.has(&["1/1", "1/2", "1/3", "1/4", "2/1", "1/5", "2/2"]).await;
    forwarding.stop().await;
}

async fn runs_are_bounded_in_records_and_octets(bench: &Bench) {
    let mut chain = Chain::of(bench).await;
    let long = format!(r#"{{"long":"{}"}}"#, "a".repeat(489)); // 500 octets
    chain.write(&["1", "2", "3", "4", &long, &long, &long]).await;
    let read = async |from: i64, records| {
        let place = Position::of(chain.lease.head.chain(), from).unwrap();
        let size = RunSize { records, bytes: 1_000 };
        let entries = bench.store.records_from(place, size).await.unwrap();
        entries.iter().map(|entry| entry.position.sequence()).collect::<Vec<_>>()
    };
    assert_eq!(read(0, 3).await, [1, 2, 3]);
    assert_eq!(read(1, 3).await, [1, 2, 3, 4], "the one that is there already is beside the count");
    assert_eq!(read(4, 9).await, [4, 5, 6]);
    assert_eq!(read(5, 9).await, [5, 6, 7], "nor do its octets count");
    assert_eq!(read(3, 9).await, [3, 4, 5], "one octet too many");
}

async fn a_record_longer_than_a_run_is_sent_alone(bench: &Bench) {
    let place = Place::default();
    let long = format!(r#"{{"long":"{}"}}"#, "a".repeat(100_000));
    Chain::of(bench).await.write(&["1", &long, &long, "4"]).await;
    let forwarding = forwarding(&bench.store, &place, "node", &clock());
    place.has(&["1/1", "1/2", "1/3", "1/4"]).await;
    place.change(|place| assert_eq!(place.runs, [1, 1, 1, 1]));
    forwarding.stop().await;
}

async fn a_sink_that_is_away_gets_everything_when_it_is_back(bench: &Bench) {
    let place = Place::default();
    place.change(|place| place.takes = Some(0));
    let mut chain = Chain::of(bench).await;
    let forwarding = forwarding(&bench.store, &place, "node", &clock());
    chain.number(5).await;
    place.is_tried(4).await;
    let backlog = bench.store.backlog("memory").await.unwrap();
    assert_eq!(backlog, Backlog { records: 5, oldest: Some(NOW) });
    place.change(|place| place.takes = None);
    place.has(&["1/1", "1/2", "1/3", "1/4", "1/5"]).await;
    forwarding.stop().await;
    assert_eq!(bench.store.backlog("memory").await.unwrap(), Backlog::default());
}

async fn a_failure_halfway_repeats_nothing_that_arrived(bench: &Bench) {
    let place = Place::default();
    place.change(|place| place.takes = Some(1));
    Chain::of(bench).await.number(5).await;
    let forwarding = forwarding(&bench.store, &place, "node", &clock());
    place.is_tried(2).await;
    place.change(|place| place.takes = None);
    place.has(&["1/1", "1/2", "1/3", "1/4", "1/5"]).await;
    place.change(|place| assert_eq!(place.runs[..2], [3, 1], "a smaller one after a failure"));
    forwarding.stop().await;
}

/// As after `kill -9` between sending and moving the cursor.
async fn what_was_sent_but_not_noted_is_sent_again(bench: &Bench) {
    let place = Place::default();
    place.change(|place| place.settles_after = Duration::from_secs(3600));
    Chain::of(bench).await.number(4).await;
    let first = forwarding(&bench.store, &place, "node", &clock());
    place.has(&["1/1", "1/2", "1/3", "1/4"]).await;
    first.stop().await;
    assert_eq!(noted(bench).await, [""; 0]);
    place.change(|place| place.settles_after = Duration::ZERO);
    let second = forwarding(&bench.store, &place, "node", &clock());
    place.has(&["1/1", "1/2", "1/3", "1/4", "1/1", "1/2", "1/3", "1/4"]).await;
    second.stop().await;
    assert_eq!(noted(bench).await, ["1/4"]);
}

async fn what_has_not_settled_is_sent_again_where_it_was_lost(bench: &Bench) {
    let place = Place::default();
    place.change(|place| place.settles_after = Duration::from_secs(3600));
    Chain::of(bench).await.number(2).await;
    let forwarding = forwarding(&bench.store, &place, "node", &clock());
    place.has(&["1/1", "1/2"]).await;
    place.change(|place| place.is_lost = true);
    place.has(&["1/1", "1/2", "1/1", "1/2"]).await;
    place.change(|place| place.settles_after = Duration::ZERO);
    while bench.store.backlog("memory").await.unwrap().records > 0 {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    forwarding.stop().await;
    assert_eq!(noted(bench).await, ["1/2"]);
}

/// A sink that never comes back.
#[derive(Debug)]
struct HangingSink(Place);

impl Sink for HangingSink {
    fn name(&self) -> &'static str {
        "hanging"
    }

    fn send<'a>(&'a mut self, _: &'a Run) -> BoxFuture<'a, Result<(), SinkFailure>> {
        self.0.change(|place| place.attempts += 1);
        std::future::pending().boxed()
    }
}

async fn a_sink_that_hangs_holds_up_nobody(bench: &Bench) {
    let (place, hanging) = (Place::default(), Place::default());
    let mut chain = Chain::of(bench).await;
    chain.number(1).await;
    let store: Arc<dyn ForwardStore> = Arc::new(bench.store.clone());
    let sinks: Vec<Box<dyn Sink>> = vec![Box::new(HangingSink(hanging.clone())), Box::new(MemorySink(place.clone()))];
    let forwarding = Forwarding::begin(&store, sinks, "node", &clock(), LIMITS);
    place.has(&["1/1"]).await;
    chain.number(1).await;
    place.has(&["1/1", "1/2"]).await;
    hanging.is_tried(1).await;
    // Nor the end of the process; and the other nodes may try it at once.
    forwarding.stop().await;
    assert_eq!(bench.store.backlog("hanging").await.unwrap().records, 2);
    assert!(bench.store.take_turn("hanging", "another", NOW, NOW.after(LIMITS.turn)).await.unwrap().is_some());
}

async fn one_node_sends_and_another_goes_on(bench: &Bench) {
    let (place, clock) = (Place::default(), clock());
    let mut chain = Chain::of(bench).await;
    let one = forwarding(&bench.store, &place, "node-1", &clock);
    chain.number(1).await;
    place.has(&["1/1"]).await;
    let other = forwarding(&bench.store, &place, "node-2", &clock);
    chain.number(5).await;
    place.has(&["1/1", "1/2", "1/3", "1/4", "1/5", "1/6"]).await;
    one.stop().await;
    chain.number(1).await;
    place.has(&["1/1", "1/2", "1/3", "1/4", "1/5", "1/6", "1/7"]).await;
    other.stop().await;
}

async fn a_node_that_was_away_moves_no_cursor(bench: &Bench) {
    let mut chain = Chain::of(bench).await;
    chain.number(2).await;
    let (store, end) = (&bench.store, NOW.after(Duration::from_secs(30)));
    let first = store.take_turn("memory", "node-1", NOW, end).await.unwrap().unwrap();
    let before = UnixTime::from_millis(end.as_millis() - 1);
    assert_eq!(store.take_turn("memory", "node-2", before, end).await.unwrap(), None);
    assert!(store.take_turn("another", "node-2", before, end).await.unwrap().is_some(), "each sink has its own");
    let second = store.take_turn("memory", "node-2", end, end.after(Duration::from_secs(30))).await.unwrap().unwrap();
    assert_eq!((first.lease, second.lease), (1, 2));
    assert!(!store.note_sent("memory", first.lease, &[chain.lease.head], Some(7)).await.unwrap());
    assert!(!store.keep_turn("memory", first.lease, end).await.unwrap());
    assert_eq!(noted(bench).await, [""; 0]);
}

async fn a_turn_that_was_not_given_back_runs_out(bench: &Bench) {
    let (place, clock) = (Place::default(), Arc::new(ManualClock::at(NOW)));
    Chain::of(bench).await.number(1).await;
    let until = NOW.after(Duration::from_secs(30));
    bench.store.take_turn("memory", "killed", NOW, until).await.unwrap().unwrap();
    let shared: Arc<dyn Clock> = Arc::<ManualClock>::clone(&clock);
    let forwarding = forwarding(&bench.store, &place, "node", &shared);
    clock.step_to(UnixTime::from_millis(until.as_millis() - 1));
    tokio::time::sleep(LIMITS.look * 5).await;
    place.has(&[]).await;
    clock.step_to(until);
    place.has(&["1/1"]).await;
    forwarding.stop().await;
}

/// A checkpoint of these heads, signed by nobody: only what it says is looked at.
fn stating(number: i64, heads: &[Head]) -> StoredCheckpoint {
    use base64::Engine as _;
    let encode = |value: &serde_json::Value| {
        base64::engine::general_purpose::URL_SAFE_NO_PAD.encode(serde_json::to_string(value).unwrap())
    };
    let header = serde_json::json!({ "alg": "ES256", "kid": "k", "typ": crate::audit::checkpoint::CHECKPOINT_TYPE });
    let chains: Vec<_> = heads
        .iter()
        .map(|head| {
            let (chain, sequence) = (head.chain().number(), head.position.sequence());
            serde_json::json!({ "chain": chain, "sequence": sequence, "hash": head.hash.to_string() })
        })
        .collect();
    let payload = serde_json::json!({
        "iss": "https://as.example", "log": "000102030405060708090a0b0c0d0e0f", "number": number, "at": NOW,
        "before": (number > 1).then(|| "a".repeat(64)), "chains": chains,
    });
    checkpoint(number, &format!("{}.{}.{}", encode(&header), encode(&payload), "A".repeat(86)))
}

async fn a_checkpoint_comes_after_what_it_covers(bench: &Bench) {
    let place = Place::default();
    let (mut one, mut other) = (Chain::of(bench).await, Chain::of(bench).await);
    one.number(2).await;
    bench.store.put_checkpoint(&stating(1, &[one.lease.head, other.lease.head])).await.unwrap();
    other.number(2).await;
    bench.store.put_checkpoint(&stating(2, &[one.lease.head, other.lease.head])).await.unwrap();
    let forwarding = forwarding(&bench.store, &place, "node", &clock());
    place.has(&["1/1", "1/2", "2/1", "2/2", "checkpoint 1", "checkpoint 2"]).await;
    one.number(1).await;
    bench.store.put_checkpoint(&stating(3, &[one.lease.head, other.lease.head])).await.unwrap();
    place.has(&["1/1", "1/2", "2/1", "2/2", "checkpoint 1", "checkpoint 2", "1/3", "checkpoint 3"]).await;
    forwarding.stop().await;
}

async fn a_checkpoint_that_cannot_be_read_is_sent_all_the_same(bench: &Bench) {
    let place = Place::default();
    Chain::of(bench).await.number(1).await;
    let beyond = Head { position: entry(1, 1_000, "").position, hash: entry(1, 1_000, "").hash };
    bench.store.put_checkpoint(&checkpoint(1, "no checkpoint")).await.unwrap();
    bench.store.put_checkpoint(&stating(2, &[beyond])).await.unwrap();
    let forwarding = forwarding(&bench.store, &place, "node", &clock());
    place.has(&["1/1", "checkpoint 1", "checkpoint 2"]).await;
    forwarding.stop().await;
}

/// As a prune does: the cut moves up, and what is before it is gone.
async fn prune(bench: &Bench, to: i64) {
    let place = Position::of(ChainId::new(1).unwrap(), to).unwrap();
    let hash = bench.store.records_from(place, RunSize { records: 1, bytes: 1 }).await.unwrap()[0].hash;
    bench
        .tamper(&format!(
            "UPDATE audit_chain SET cut_sequence = {to}, cut_hash = {} WHERE id = 1",
            bench.octets(hash.octets())
        ))
        .await;
    bench.tamper(&format!("DELETE FROM audit_record WHERE position <= {}", place.number())).await;
}

async fn after_a_prune_it_goes_on_at_the_cut(bench: &Bench) {
    let place = Place::default();
    let mut chain = Chain::of(bench).await;
    chain.number(4).await;
    let first = forwarding(&bench.store, &place, "node", &clock());
    place.has(&["1/1", "1/2", "1/3", "1/4"]).await;
    // Up to what was sent, and no further.
    prune(bench, 4).await;
    chain.number(1).await;
    place.has(&["1/1", "1/2", "1/3", "1/4", "1/5"]).await;
    first.stop().await;
    chain.number(3).await;
    prune(bench, 7).await;
    assert_eq!(bench.store.backlog("memory").await.unwrap().records, 1);
    let second = forwarding(&bench.store, &place, "node", &clock());
    place.has(&["1/1", "1/2", "1/3", "1/4", "1/5", "1/8"]).await;
    second.stop().await;
}

async fn a_log_that_was_put_back_is_sent_again(bench: &Bench) {
    let place = Place::default();
    let mut chain = Chain::of(bench).await;
    chain.number(1).await;
    let before = chain.lease;
    chain.number(2).await;
    let forwarding = forwarding(&bench.store, &place, "node", &clock());
    place.has(&["1/1", "1/2", "1/3"]).await;
    // An older state, in which other things happened since, under the same numbers.
    bench.tamper(&format!("DELETE FROM audit_record WHERE position > {}", before.head.position.number())).await;
    place.has(&["1/1", "1/2", "1/3", "1/1"]).await;
    chain.lease = before;
    chain.write(&[r#"{"kind":"other"}"#, r#"{"kind":"other"}"#]).await;
    place.has(&["1/1", "1/2", "1/3", "1/1", "1/2", "1/3"]).await;
    forwarding.stop().await;
}

async fn a_missing_record_stops_nothing(bench: &Bench) {
    let place = Place::default();
    Chain::of(bench).await.number(6).await;
    let gone = Position::of(ChainId::new(1).unwrap(), 2).unwrap().number();
    bench.tamper(&format!("DELETE FROM audit_record WHERE position = {gone}")).await;
    let forwarding = forwarding(&bench.store, &place, "node", &clock());
    place.has(&["1/1", "1/3", "1/4", "1/5", "1/6"]).await;
    forwarding.stop().await;
}

async fn a_row_before_the_first_stops_nothing(bench: &Bench) {
    let place = Place::default();
    Chain::of(bench).await.number(2).await;
    let before = Position::of(ChainId::new(1).unwrap(), 0).unwrap().number();
    let hash = bench.octets(&[7; 32]);
    bench
        .tamper(&format!("INSERT INTO audit_record (position, at, hash, body) VALUES ({before}, 0, {hash}, 'x')"))
        .await;
    let forwarding = forwarding(&bench.store, &place, "node", &clock());
    place.has(&["1/1", "1/2"]).await;
    forwarding.stop().await;
}

async fn a_chain_that_was_pruned_whole_stops_no_other(bench: &Bench) {
    let place = Place::default();
    let (mut one, mut other) = (Chain::of(bench).await, Chain::of(bench).await);
    one.number(3).await;
    prune(bench, 3).await;
    other.number(2).await;
    let forwarding = forwarding(&bench.store, &place, "node", &clock());
    place.has(&["2/1", "2/2"]).await;
    one.number(1).await;
    place.has(&["2/1", "2/2", "1/4"]).await;
    forwarding.stop().await;
    assert_eq!(noted(bench).await, ["1/4", "2/2"]);
}

async fn the_backlog_is_what_is_not_noted(bench: &Bench) {
    let backlog = async || bench.store.backlog("memory").await.unwrap();
    assert_eq!(backlog().await, Backlog::default());
    let (mut one, mut other) = (Chain::of(bench).await, Chain::of(bench).await);
    one.number(3).await;
    other.number(2).await;
    assert_eq!(backlog().await, Backlog { records: 5, oldest: Some(NOW) });
    let turn = bench.store.take_turn("memory", "node", NOW, NOW.after(LIMITS.turn)).await.unwrap().unwrap();
    assert!(bench.store.note_sent("memory", turn.lease, &[one.lease.head], None).await.unwrap());
    assert_eq!(backlog().await, Backlog { records: 2, oldest: Some(NOW) });
    assert!(bench.store.note_sent("memory", turn.lease, &[other.lease.head], Some(1)).await.unwrap());
    assert_eq!(backlog().await, Backlog::default());
}
