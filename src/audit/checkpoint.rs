//! Checkpoints: how far every chain is, signed, so that a copy kept elsewhere proves what was there.
//!
//! Takes the heads of all chains now and then, gives a statement (compact JWS) that follows the one before it; stored once,
//! by whichever node is first, and written to a file beside the store by each. `docs/audit-log.md` has the format.

use std::fmt;
use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
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

    /// When this store was last restored, by the clock that it was done by.
    fn restored_at(&self) -> BoxFuture<'_, Result<Option<UnixTime>, StoreUnavailable>>;

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
    /// The monotonic millisecond that it was first seen in.
    seen: AtomicU64,
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
        Self { store, mint, clock, file, limits, newest: watch::Sender::new(None), seen: AtomicU64::new(0) }
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
            // One that is dated ahead, by another clock or before this one was set back, is as old as it is known here.
            let age = if last.at > now {
                self.monotonic().saturating_sub(self.seen.load(Ordering::Relaxed))
            } else {
                u64::try_from(now.as_millis().saturating_sub(last.at.as_millis())).unwrap_or(0)
            };
            u128::from(age) >= limits.every.as_millis()
        });
        if records > 0 && (is_old || records >= limits.records) {
            // Later than any that was lost before a restore, whatever clock that was dated by: nobody is to take it for one.
            let restored = self.store.restored_at().await?.map(|restored| restored.after(Duration::from_millis(1)));
            self.make(&Checkpoint { at: restored.map_or(now, |restored| restored.max(now)), ..next }, now).await?;
        }
        Ok(())
    }

    fn monotonic(&self) -> u64 {
        u64::try_from(self.clock.monotonic().as_millis()).unwrap_or(u64::MAX)
    }

    async fn make(&self, next: &Checkpoint, now: UnixTime) -> Result<(), CheckpointFailure> {
        let statement = self.mint.sign_checkpoint(&next.payload(), now).map_err(CheckpointFailure::Mint)?;
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
        self.seen.store(self.monotonic(), Ordering::Relaxed);
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
mod tests;
