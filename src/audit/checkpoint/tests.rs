//! What a checkpoint states, when one is made, and what is kept of it.

use countersign_resource_server::time::ManualClock;

use super::*;
use crate::audit::{AuditStore, Batch, Entry, Lease};
use crate::mint::fixture::{self, NOW};
use crate::store::contract::{Bench, contract};

contract!(
    checkpoints_follow_the_records,
    one_checkpoint_of_each_number,
    a_number_that_was_removed_does_not_come_back,
    a_log_that_was_put_back_is_noticed_and_the_evidence_is_kept,
    a_checkpoint_is_dated_later_than_the_restore_before_it,
);

fn keys() -> KeySet {
    KeySet::parse(fixture::ring().published(NOW).body.as_bytes()).unwrap()
}

fn head(chain: i64, sequence: i64) -> Head {
    let position = Position::of(ChainId::new(chain).unwrap(), sequence).unwrap();
    Head { position, hash: statement_hash(&format!("{chain} {sequence}")) }
}

fn log() -> LogId {
    LogId::parse("000102030405060708090a0b0c0d0e0f").unwrap()
}

fn signed(checkpoint: &Checkpoint) -> String {
    fixture::mint().sign_checkpoint(&checkpoint.payload(), NOW).unwrap()
}

fn second() -> Checkpoint {
    let first = Checkpoint::following(None, "https://as.example", log(), vec![head(1, 3)], NOW);
    let first = StoredCheckpoint { number: 1, at: NOW, statement: signed(&first) };
    Checkpoint::following(Some(&first), "https://as.example", log(), vec![head(1, 5), head(2, 0)], NOW)
}

#[test]
fn what_is_stated_is_read_back() {
    let second = second();
    let compact = signed(&second);
    assert_eq!(Checkpoint::verify(&compact, &keys()).as_ref(), Ok(&second));
    assert_eq!(Checkpoint::read(&compact).as_ref(), Ok(&second));
    assert_eq!(second.records_since(&[head(1, 3)]), 2);
}

#[test]
fn one_defect_each() {
    let read = |change: &dyn Fn(&mut serde_json::Value)| {
        let mut payload = serde_json::to_value(second().payload()).unwrap();
        change(&mut payload);
        Checkpoint::verify(&fixture::mint().sign_checkpoint(&payload, NOW).unwrap(), &keys())
    };
    assert!(read(&|_| ()).is_ok());
    let defects: [&dyn Fn(&mut serde_json::Value); 9] = [
        &|payload| payload["log"] = "00".into(),
        &|payload| payload["number"] = 0.into(),
        &|payload| payload["number"] = 1.into(),
        &|payload| payload["before"] = serde_json::Value::Null,
        &|payload| payload["before"] = "AA".into(),
        &|payload| payload["chains"][0]["hash"] = "00".into(),
        &|payload| payload["chains"][0]["sequence"] = (-1).into(),
        &|payload| payload["chains"][1]["chain"] = 1.into(),
        &|payload| payload["chains"][0]["chain"] = 3.into(),
    ];
    for (number, defect) in defects.iter().enumerate() {
        assert!(matches!(read(defect), Err(NoCheckpoint::Malformed(_) | NoCheckpoint::Unsigned(_))), "{number}");
    }
}

#[test]
fn only_a_checkpoint_of_a_known_key_is_one() {
    let compact = signed(&second());
    let none = KeySet::parse(br#"{"keys":[]}"#).unwrap();
    assert!(matches!(Checkpoint::verify(&compact, &none), Err(NoCheckpoint::Unsigned(_))));
    let event = crate::mint::SecurityEvent {
        audience: "acme".to_owned(),
        jti: "1".to_owned(),
        issued_at: NOW,
        event: "https://as.example/event".to_owned(),
        body: serde_json::json!({}),
    };
    let event = fixture::mint().sign_security_event(&event, NOW).unwrap();
    assert!(Checkpoint::verify(&event, &keys()).is_err());
    assert!(Checkpoint::read(&event).is_err());
}

/// A log with one record, and who makes checkpoints of it.
struct Scene<'a> {
    bench: &'a Bench,
    clock: Arc<ManualClock>,
    checkpoints: Checkpoints,
    directory: tempfile::TempDir,
    lease: Lease,
}

impl<'a> Scene<'a> {
    async fn on(bench: &'a Bench) -> Self {
        let clock = Arc::new(ManualClock::at(NOW));
        let directory = tempfile::tempdir().unwrap();
        let limits = CheckpointLimits { every: Duration::from_secs(30), records: 10 };
        let store = Arc::new(bench.store.clone());
        let time = Arc::<ManualClock>::clone(&clock);
        let checkpoints = Checkpoints::new(store, fixture::mint(), time, directory.path(), limits);
        let until = NOW.after(Duration::from_secs(86_400));
        let lease = AuditStore::lease(&bench.store, "node", NOW, until).await.unwrap();
        let mut scene = Self { bench, clock, checkpoints, directory, lease };
        scene.record(1).await;
        scene
    }

    async fn record(&mut self, count: usize) {
        let entry = |_| Entry::new(NOW, "{}".to_owned());
        let entries = (0..count).map(entry).collect();
        let batch = Batch { lease: self.lease, entries, given_back: Vec::new(), history: None };
        self.lease.head = AuditStore::append(&self.bench.store, Arc::new(batch)).await.unwrap().head;
    }

    async fn looked(&self) -> Option<Checkpoint> {
        self.checkpoints.look().await.unwrap();
        let newest = self.checkpoints.newest()?;
        let checkpoint = Checkpoint::verify(&newest.statement, &keys()).unwrap();
        assert_eq!((checkpoint.number, checkpoint.at), (newest.number, newest.at));
        Some(checkpoint)
    }

    fn file(&self) -> String {
        std::fs::read_to_string(self.directory.path().join(CHECKPOINT_FILE)).unwrap()
    }
}

async fn checkpoints_follow_the_records(bench: &Bench) {
    let mut scene = Scene::on(bench).await;
    let first = scene.looked().await.unwrap();
    assert_eq!((first.number, first.before, first.heads.as_slice()), (1, None, [scene.lease.head].as_slice()));
    assert_eq!(scene.file().trim(), scene.checkpoints.newest().unwrap().statement);
    let kept = scene.file();
    // Nothing new, however late; and one more before its time.
    scene.clock.advance(Duration::from_secs(3600));
    assert_eq!(scene.looked().await.unwrap().number, 1);
    scene.clock.step_to(NOW);
    scene.record(9).await;
    scene.clock.advance(Duration::from_millis(29_999));
    assert_eq!(scene.looked().await.unwrap().number, 1);
    scene.clock.advance(Duration::from_millis(1));
    let second = scene.looked().await.unwrap();
    assert_eq!((second.number, second.before), (2, Some(statement_hash(kept.trim()))));
    assert_eq!(second.heads, [scene.lease.head]);
    // Ten are enough at any time; and where the clock was set back one waits as long as ever, from when it was seen.
    scene.record(10).await;
    assert_eq!(scene.looked().await.unwrap().number, 3);
    scene.record(1).await;
    scene.clock.step_to(NOW.before(Duration::from_secs(3_600)));
    assert_eq!(scene.looked().await.unwrap().number, 3);
    scene.clock.advance(Duration::from_millis(29_999));
    assert_eq!(scene.looked().await.unwrap().number, 3);
    scene.clock.advance(Duration::from_millis(1));
    assert_eq!(scene.looked().await.unwrap().number, 4);
    // The last of a node that stops waits for nothing; and where there is nothing new there is none.
    scene.record(1).await;
    scene.checkpoints.close().await;
    assert_eq!(scene.looked().await.unwrap().heads, [scene.lease.head]);
    scene.checkpoints.close().await;
    assert_eq!(scene.looked().await.unwrap().number, 5);
    // A chain without records is listed as well.
    let empty = AuditStore::lease(&scene.bench.store, "other", NOW, NOW).await.unwrap();
    scene.clock.advance(Duration::from_secs(30));
    scene.record(1).await;
    assert_eq!(scene.looked().await.unwrap().heads, [scene.lease.head, empty.head]);
}

async fn one_checkpoint_of_each_number(bench: &Bench) {
    let scene = Scene::on(bench).await;
    let other = StoredCheckpoint { number: 1, at: NOW, statement: "another node's".to_owned() };
    let (last, heads) = (scene.bench.store.last_checkpoint().await.unwrap(), scene.bench.store.heads().await.unwrap());
    assert_eq!(last, None);
    let next = Checkpoint::following(None, "https://as.example", heads.0, heads.1, NOW);
    assert!(scene.bench.store.put_checkpoint(&other).await.unwrap());
    scene.checkpoints.make(&next, NOW).await.unwrap();
    assert_eq!(scene.bench.store.last_checkpoint().await.unwrap(), Some(other), "whoever was first");
}

async fn a_log_that_was_put_back_is_noticed_and_the_evidence_is_kept(bench: &Bench) {
    let mut scene = Scene::on(bench).await;
    scene.looked().await.unwrap();
    scene.clock.advance(Duration::from_secs(30));
    scene.record(1).await;
    scene.looked().await.unwrap();
    let kept = scene.file();
    // As a node that starts on an older store, and goes on until it has as many checkpoints and more.
    scene.bench.tamper("DELETE FROM audit_checkpoint WHERE number = 2").await;
    let again = Checkpoints::new(
        Arc::new(scene.bench.store.clone()),
        fixture::mint(),
        Arc::<ManualClock>::clone(&scene.clock),
        scene.directory.path(),
        CheckpointLimits { every: Duration::from_secs(30), records: 10 },
    );
    for expected in [2, 3, 4] {
        scene.record(10).await;
        again.look().await.unwrap();
        assert_eq!(again.newest().unwrap().number, expected);
        assert_eq!(scene.file(), kept, "checkpoint {expected}");
    }
    // Where everything up to it was exported and removed, it is no evidence of anything.
    scene.bench.tamper("DELETE FROM audit_checkpoint WHERE number < 4").await;
    scene.record(10).await;
    again.look().await.unwrap();
    assert_eq!(scene.file().trim(), again.newest().unwrap().statement);
}

async fn a_number_that_was_removed_does_not_come_back(bench: &Bench) {
    let scene = Scene::on(bench).await;
    let made = |number| StoredCheckpoint { number, at: NOW, statement: format!("number {number}") };
    for number in [1, 2, 3] {
        assert!(scene.bench.store.put_checkpoint(&made(number)).await.unwrap());
    }
    scene.bench.tamper("DELETE FROM audit_checkpoint WHERE number < 3").await;
    for (number, expected) in [(2, false), (3, false), (5, false), (4, true)] {
        assert_eq!(scene.bench.store.put_checkpoint(&made(number)).await.unwrap(), expected, "{number}");
    }
}

/// Where the clock was ahead that it was restored by: what is made afterwards is no part of what was lost.
async fn a_checkpoint_is_dated_later_than_the_restore_before_it(bench: &Bench) {
    let mut scene = Scene::on(bench).await;
    let ahead = NOW.after(Duration::from_secs(3_600));
    let restoration = serde_json::json!({
        "epoch": ahead.as_seconds(), "first_version": 1, "at": ahead, "actor": { "kind": "server", "node": "n" },
        "origin": {
            "file": "f", "sha256": "", "at": NOW, "node": "n",
            "registry": { "epoch": 1, "version": 0, "changed_at": null }
        },
        "unproven": [], "lost": null, "confirmed": null
    });
    let mut restoration: crate::backup::Restoration = serde_json::from_value(restoration).unwrap();
    for restored in [ahead, NOW] {
        restoration.at = restored;
        restoration.epoch += 1;
        let (epoch, record) = (restoration.epoch, serde_json::to_string(&restoration).unwrap());
        let row = format!("({epoch}, 'confirmed', '{record}', NULL)");
        bench.tamper(&format!("INSERT INTO restoration (epoch, state, record, statement) VALUES {row}")).await;
    }
    let newest = async |scene: &Scene<'_>| {
        scene.checkpoints.look().await.unwrap();
        let newest = CheckpointStore::last_checkpoint(&bench.store).await.unwrap().unwrap();
        let stated = Checkpoint::verify(&newest.statement, &keys()).unwrap();
        assert_eq!((stated.at, stated.number), (newest.at, newest.number));
        (newest.number, newest.at)
    };
    let later = ahead.after(Duration::from_millis(1));
    assert_eq!(newest(&scene).await, (1, later));
    scene.record(1).await;
    // A busy hour has no more of them than any other.
    for seconds in 1..=30 {
        assert_eq!(newest(&scene).await.0, 1, "after {seconds} s");
        scene.clock.advance(Duration::from_secs(1));
    }
    assert_eq!(newest(&scene).await, (2, later), "those of the same hour");
    scene.record(1).await;
    scene.clock.advance(Duration::from_secs(3_700));
    assert_eq!(newest(&scene).await, (3, NOW.after(Duration::from_secs(3_730))));
}
