//! Checkpoints: how far every chain is, signed, so that a copy kept elsewhere proves what was there.
//!
//! Takes the heads of all chains now and then, gives a statement (compact JWS) that follows the one before it; stored once,
//! by whichever node is first, and written to a file beside the store by each. `docs/audit-log.md` has the format.

use std::fmt;
use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use countersign_resource_server::time::{Clock, UnixTime};
use countersign_resource_server::token::jwks::KeySet;
use countersign_resource_server::token::jws::{self, Expectation, JwsError, KeyChoice, SigningAlgorithm, Untyped};
use futures_util::future::BoxFuture;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::{MissedTickBehavior, interval};

use super::chain::{ChainId, Head, LogId, Position, RecordHash};
use crate::mint::{Mint, MintRefusal};
use crate::registry::StoreUnavailable;
use crate::telemetry;

/// The `typ` of a checkpoint: it can be taken for no token.
pub const CHECKPOINT_TYPE: &str = "countersign-audit-checkpoint+jwt";

/// Where each node keeps the newest checkpoint it has seen, in its data directory.
pub const CHECKPOINT_FILE: &str = "audit-checkpoint.jwt";

/// The longest checkpoint that is read: some ten thousand chains.
pub const MAX_CHECKPOINT_BYTES: usize = 2 * 1024 * 1024;

/// A checkpoint as it is stored.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StoredCheckpoint {
    /// Its number, from 1.
    pub number: i64,
    /// When it was made.
    pub at: UnixTime,
    /// The compact JWS.
    pub statement: String,
}

/// Storage for checkpoints, and the heads they name.
pub trait CheckpointStore: fmt::Debug + Send + Sync + 'static {
    /// The newest checkpoint.
    fn last_checkpoint(&self) -> BoxFuture<'_, Result<Option<StoredCheckpoint>, StoreUnavailable>>;

    /// Which log it is, and how far each of its chains is, in order of the chains: at or after the moment of asking.
    fn heads(&self) -> BoxFuture<'_, Result<(LogId, Vec<Head>), StoreUnavailable>>;

    /// Whether this very statement is stored under this number, or was removed with all before it.
    fn stands_behind<'a>(&'a self, number: i64, statement: &'a str) -> BoxFuture<'a, Result<bool, StoreUnavailable>>;

    /// Keeps a checkpoint, if its number is the next. Whether it was kept.
    fn put_checkpoint<'a>(&'a self, checkpoint: &'a StoredCheckpoint) -> BoxFuture<'a, Result<bool, StoreUnavailable>>;
}

/// What a checkpoint states.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Checkpoint {
    /// Who states it.
    pub issuer: String,
    /// Of which log.
    pub log: LogId,
    /// Its number, from 1.
    pub number: i64,
    /// When it was made.
    pub at: UnixTime,
    /// The hash of the checkpoint before it; none for the first.
    pub before: Option<RecordHash>,
    /// How far each chain is, in order.
    pub heads: Vec<Head>,
}

/// Why octets are no checkpoint.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NoCheckpoint {
    /// The signature does not hold, or it is a JWS of another kind.
    #[error("it is not signed as a checkpoint of this server: {0}")]
    Unsigned(JwsError),
    /// Not what a checkpoint says.
    #[error("it is malformed: {0}")]
    Malformed(&'static str),
}

/// The payload, as written.
#[derive(Serialize, Deserialize)]
struct Payload {
    iss: String,
    log: String,
    number: i64,
    at: UnixTime,
    #[serde(skip_serializing_if = "Option::is_none")]
    before: Option<String>,
    chains: Vec<ChainHead>,
}

#[derive(Serialize, Deserialize)]
struct ChainHead {
    chain: i64,
    sequence: i64,
    hash: String,
}

impl Checkpoint {
    /// The one that follows `last`, over these heads.
    fn following(last: Option<&StoredCheckpoint>, issuer: &str, log: LogId, heads: Vec<Head>, at: UnixTime) -> Self {
        Self {
            issuer: issuer.to_owned(),
            log,
            number: last.map_or(1, |last| last.number.saturating_add(1)),
            at,
            before: last.map(|last| statement_hash(&last.statement)),
            heads,
        }
    }

    fn payload(&self) -> Payload {
        let chain = |head: &Head| ChainHead {
            chain: head.chain().number(),
            sequence: head.position.sequence(),
            hash: head.hash.to_string(),
        };
        Payload {
            iss: self.issuer.clone(),
            log: self.log.to_string(),
            number: self.number,
            at: self.at,
            before: self.before.as_ref().map(ToString::to_string),
            chains: self.heads.iter().map(chain).collect(),
        }
    }

    /// Reads what a statement says, whoever signed it.
    ///
    /// # Errors
    /// [`NoCheckpoint`].
    pub fn read(compact: &str) -> Result<Self, NoCheckpoint> {
        if compact.len() > MAX_CHECKPOINT_BYTES {
            return Err(NoCheckpoint::Malformed("it is too long"));
        }
        let unverified = jws::peek_within(compact, MAX_CHECKPOINT_BYTES).map_err(NoCheckpoint::Unsigned)?;
        if !unverified.header.is_of_type(CHECKPOINT_TYPE) {
            return Err(NoCheckpoint::Malformed("its `typ` is another"));
        }
        let claims = unverified.claims().map_err(NoCheckpoint::Unsigned)?;
        let payload = serde_json::from_value(claims.into());
        Self::of(payload.map_err(|_| NoCheckpoint::Malformed("a member is missing or of another type"))?)
    }

    /// Reads what a statement says that was signed with one of `keys`.
    ///
    /// # Errors
    /// [`NoCheckpoint`].
    pub fn verify(compact: &str, keys: &KeySet) -> Result<Self, NoCheckpoint> {
        let expected = Expectation {
            algorithms: &[SigningAlgorithm::ES256],
            types: &[CHECKPOINT_TYPE],
            untyped: Untyped::Refuse,
            key: KeyChoice::ByKid,
            max_bytes: MAX_CHECKPOINT_BYTES,
        };
        let verified = jws::verify(compact, keys, &expected).map_err(NoCheckpoint::Unsigned)?;
        Self::of(verified.claims().map_err(NoCheckpoint::Unsigned)?)
    }

    fn of(payload: Payload) -> Result<Self, NoCheckpoint> {
        let malformed = NoCheckpoint::Malformed;
        let head = |head: &ChainHead| {
            let position = Position::of(ChainId::new(head.chain)?, head.sequence)?;
            Some(Head { position, hash: RecordHash::parse(&head.hash)? })
        };
        let heads: Vec<Head> = payload.chains.iter().map(head).collect::<Option<_>>().ok_or(malformed("a chain"))?;
        if !heads.is_sorted_by(|one, next| one.chain() < next.chain()) {
            return Err(malformed("the chains are not in order"));
        }
        let before = payload.before.as_deref().map(|hash| RecordHash::parse(hash).ok_or(malformed("`before`")));
        let checkpoint = Self {
            issuer: payload.iss,
            log: LogId::parse(&payload.log).ok_or(malformed("`log`"))?,
            number: payload.number,
            at: payload.at,
            before: before.transpose()?,
            heads,
        };
        match checkpoint.number {
            ..=0 => Err(malformed("`number`")),
            1 if checkpoint.before.is_some() => Err(malformed("the first has none before it")),
            2.. if checkpoint.before.is_none() => Err(malformed("`before` is missing")),
            _ => Ok(checkpoint),
        }
    }

    /// How far `chain` is, if it is known.
    pub fn head_of(&self, chain: ChainId) -> Option<&Head> {
        let index = self.heads.binary_search_by_key(&chain, Head::chain).ok()?;
        self.heads.get(index)
    }

    /// How many records it covers that `earlier` does not.
    fn records_since(&self, earlier: &[Head]) -> i64 {
        let before = |chain| earlier.iter().find(|head| head.chain() == chain);
        let new =
            |head: &Head| head.position.sequence() - before(head.chain()).map_or(0, |head| head.position.sequence());
        self.heads.iter().map(new).fold(0, i64::saturating_add)
    }
}

/// What the next checkpoint says of this one: the hash of its octets.
pub fn statement_hash(statement: &str) -> RecordHash {
    RecordHash::of_octets(Sha256::digest(statement).into())
}

/// When a checkpoint is due: records there are, and so long after the last, or so many.
#[derive(Clone, Copy, Debug)]
pub struct CheckpointLimits {
    /// How long the newest records are without one at most, while a node serves.
    pub every: Duration,
    /// And how many at most, looked at once a second.
    pub records: i64,
}

impl Default for CheckpointLimits {
    fn default() -> Self {
        Self { every: Duration::from_secs(30), records: 100_000 }
    }
}

/// How often it is looked whether one is due.
const LOOK: Duration = Duration::from_secs(1);

/// Makes checkpoints, and has the newest at hand.
#[derive(Debug)]
pub struct Checkpoints {
    store: Arc<dyn CheckpointStore>,
    mint: Mint,
    clock: Arc<dyn Clock>,
    file: PathBuf,
    limits: CheckpointLimits,
    newest: watch::Sender<Option<Arc<StoredCheckpoint>>>,
}

/// Why there is no checkpoint now.
#[derive(Debug, thiserror::Error)]
enum CheckpointFailure {
    #[error(transparent)]
    Store(#[from] StoreUnavailable),
    #[error("it cannot be signed: {}", .0.reason())]
    Mint(MintRefusal),
}

impl Checkpoints {
    /// Over the log in `store`, signed by `mint`, the newest kept in `directory`.
    pub fn new(
        store: Arc<dyn CheckpointStore>,
        mint: Mint,
        clock: Arc<dyn Clock>,
        directory: &Path,
        limits: CheckpointLimits,
    ) -> Self {
        let file = directory.join(CHECKPOINT_FILE);
        Self { store, mint, clock, file, limits, newest: watch::Sender::new(None) }
    }

    /// The newest checkpoint this node has seen.
    pub fn newest(&self) -> Option<Arc<StoredCheckpoint>> {
        self.newest.borrow().clone()
    }

    /// Begins to make checkpoints, until the task is aborted.
    pub fn keep(self: &Arc<Self>) -> JoinHandle<()> {
        let checkpoints = Arc::clone(self);
        tokio::spawn(async move {
            let mut look = interval(LOOK);
            look.set_missed_tick_behavior(MissedTickBehavior::Delay);
            let mut failing = false;
            loop {
                look.tick().await;
                let looked = checkpoints.look().await;
                if let (Err(error), false) = (&looked, failing) {
                    tracing::warn!(%error, "no checkpoint of the audit log could be made");
                }
                failing = looked.is_err();
            }
        })
    }

    /// Makes a last checkpoint, however young the one before it is: for a node that stops, after its last record.
    pub async fn close(&self) {
        if let Err(error) = self.look_with(CheckpointLimits { every: Duration::ZERO, records: 1 }).await {
            tracing::warn!(%error, "the last records have no checkpoint yet: whichever node serves next makes one");
        }
    }

    /// Makes a checkpoint if one is due.
    async fn look(&self) -> Result<(), CheckpointFailure> {
        self.look_with(self.limits).await
    }

    async fn look_with(&self, limits: CheckpointLimits) -> Result<(), CheckpointFailure> {
        // In this order: what the heads are at or after the last checkpoint is never behind what that one says.
        let last = self.store.last_checkpoint().await?;
        let (log, heads) = self.store.heads().await?;
        self.see(last.clone()).await?;
        let now = self.clock.now();
        let next = Checkpoint::following(last.as_ref(), self.mint.issuer(), log, heads, now);
        let covered = match &last {
            // One that cannot be read covers nothing: what follows it says so, and `audit verify` says why.
            Some(last) => Checkpoint::read(&last.statement).map(|last| last.heads).unwrap_or_default(),
            None => Vec::new(),
        };
        let records = next.records_since(&covered);
        let is_old = last.as_ref().is_none_or(|last| {
            let age = now.as_millis().saturating_sub(last.at.as_millis());
            // A clock that was set back makes it wait no longer.
            !(0..i64::try_from(limits.every.as_millis()).unwrap_or(i64::MAX)).contains(&age)
        });
        if records > 0 && (is_old || records >= limits.records) {
            self.make(&next).await?;
        }
        Ok(())
    }

    async fn make(&self, next: &Checkpoint) -> Result<(), CheckpointFailure> {
        let statement = self.mint.sign_checkpoint(&next.payload(), next.at).map_err(CheckpointFailure::Mint)?;
        let made = StoredCheckpoint { number: next.number, at: next.at, statement };
        // Otherwise another node was faster, and its one is seen with the next look.
        if self.store.put_checkpoint(&made).await? {
            self.see(Some(made)).await?;
        }
        Ok(())
    }

    /// Takes note of the newest checkpoint in the store, and writes it down outside of it.
    async fn see(&self, newest: Option<StoredCheckpoint>) -> Result<(), StoreUnavailable> {
        if self.newest.borrow().as_deref() == newest.as_ref() {
            return Ok(());
        }
        let Some(newest) = newest else { return Ok(()) };
        let file = self.file.clone();
        let read = move || std::fs::read_to_string(file).ok();
        let kept = tokio::task::spawn_blocking(read).await.ok().flatten();
        let kept = kept.as_deref().map(str::trim).and_then(|kept| Some((Checkpoint::read(kept).ok()?.number, kept)));
        let is_current = match kept {
            Some((number, statement)) => self.store.stands_behind(number, statement).await?,
            None => true,
        };
        if is_current {
            metrics::gauge!(telemetry::AUDIT_BEHIND_CHECKPOINT).set(0.0);
            let (file, statement) = (self.file.clone(), newest.statement.clone());
            let written = tokio::task::spawn_blocking(move || write(&file, &statement)).await;
            if let Err(error) = written.unwrap_or_else(|error| Err(std::io::Error::other(error))) {
                tracing::warn!(file = %self.file.display(), %error, "the audit log's checkpoint could not be written down");
            }
        } else {
            // Whoever put an older store in place of this one put no older file there. It is left as evidence, whatever
            // numbers the store comes to from here on.
            metrics::gauge!(telemetry::AUDIT_BEHIND_CHECKPOINT).set(1.0);
            tracing::error!(
                kept.number = kept.map(|(number, _)| number),
                stored.number = newest.number,
                file = %self.file.display(),
                "the audit log does not have the checkpoint that was kept of it: it was put back or changed. \
                 `countersign audit verify` says more; after a restore that was meant, remove the file"
            );
        }
        metrics::gauge!(telemetry::AUDIT_CHECKPOINT).set(newest.number as f64);
        self.newest.send_replace(Some(Arc::new(newest)));
        Ok(())
    }
}

/// In place whole or not at all.
fn write(file: &Path, statement: &str) -> std::io::Result<()> {
    let beside = file.with_extension(format!("{}.new", std::process::id()));
    let mut open = std::fs::OpenOptions::new();
    let mut new = open.write(true).create(true).truncate(true).mode(0o600).open(&beside)?;
    new.write_all(statement.as_bytes())?;
    new.write_all(b"\n")?;
    new.sync_all()?;
    std::fs::rename(&beside, file)
}

#[cfg(test)]
mod tests {
    use countersign_resource_server::time::ManualClock;

    use super::*;
    use crate::audit::{AuditStore, Batch, Entry, Lease};
    use crate::mint::fixture::{self, NOW};
    use crate::store::contract::Bench;

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
    struct Scene {
        bench: Bench,
        clock: Arc<ManualClock>,
        checkpoints: Checkpoints,
        directory: tempfile::TempDir,
        lease: Lease,
    }

    impl Scene {
        async fn on(bench: Bench) -> Self {
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
            let entry = |_| Entry { at: NOW, body: "{}".to_owned(), assertion: None };
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

    async fn checkpoints_follow_the_records(bench: Bench) {
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
        // Ten are enough at any time; and so is one where the clock was set back.
        scene.record(10).await;
        assert_eq!(scene.looked().await.unwrap().number, 3);
        scene.record(1).await;
        scene.clock.step_to(NOW);
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

    async fn one_checkpoint_of_each_number(bench: Bench) {
        let scene = Scene::on(bench).await;
        let other = StoredCheckpoint { number: 1, at: NOW, statement: "another node's".to_owned() };
        let (last, heads) =
            (scene.bench.store.last_checkpoint().await.unwrap(), scene.bench.store.heads().await.unwrap());
        assert_eq!(last, None);
        let next = Checkpoint::following(None, "https://as.example", heads.0, heads.1, NOW);
        assert!(scene.bench.store.put_checkpoint(&other).await.unwrap());
        scene.checkpoints.make(&next).await.unwrap();
        assert_eq!(scene.bench.store.last_checkpoint().await.unwrap(), Some(other), "whoever was first");
    }

    async fn a_log_that_was_put_back_is_noticed_and_the_evidence_is_kept(bench: Bench) {
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

    async fn a_number_that_was_removed_does_not_come_back(bench: Bench) {
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

    mod sqlite {
        use super::Bench;

        #[tokio::test]
        async fn checkpoints_follow_the_records() {
            super::checkpoints_follow_the_records(Bench::sqlite().await).await;
        }

        #[tokio::test]
        async fn one_checkpoint_of_each_number() {
            super::one_checkpoint_of_each_number(Bench::sqlite().await).await;
        }

        #[tokio::test]
        async fn a_number_that_was_removed_does_not_come_back() {
            super::a_number_that_was_removed_does_not_come_back(Bench::sqlite().await).await;
        }

        #[tokio::test]
        async fn a_log_that_was_put_back_is_noticed_and_the_evidence_is_kept() {
            super::a_log_that_was_put_back_is_noticed_and_the_evidence_is_kept(Bench::sqlite().await).await;
        }
    }

    mod postgres {
        use super::Bench;

        #[tokio::test]
        async fn a_number_that_was_removed_does_not_come_back() {
            if let Some(bench) = Bench::postgres("a_number_that_was_removed_does_not_come_back").await {
                super::a_number_that_was_removed_does_not_come_back(bench).await;
            }
        }

        #[tokio::test]
        async fn a_log_that_was_put_back_is_noticed_and_the_evidence_is_kept() {
            if let Some(bench) = Bench::postgres("a_log_that_was_put_back_is_noticed").await {
                super::a_log_that_was_put_back_is_noticed_and_the_evidence_is_kept(bench).await;
            }
        }

        #[tokio::test]
        async fn checkpoints_follow_the_records() {
            if let Some(bench) = Bench::postgres("checkpoints_follow_the_records").await {
                super::checkpoints_follow_the_records(bench).await;
            }
        }

        #[tokio::test]
        async fn one_checkpoint_of_each_number() {
            if let Some(bench) = Bench::postgres("one_checkpoint_of_each_number").await {
                super::one_checkpoint_of_each_number(bench).await;
            }
        }
    }
}
