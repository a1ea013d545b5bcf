//! What happened, durable before it is answered.
//!
//! Takes a [`Trail`] (what each stage learned) and a decision, gives [`Fenced`]: only a [`Recorded`] becomes an answer,
//! and only this module makes one. The commit that makes decisions durable is also the fence: with it the registry's
//! version is read, and a token decided under an older one is withheld where a record it rests on has changed. It knows
//! nothing of HTTP or SQL.

/// What each stage learned about one request, gathered for its record.
mod trail;

/// The bodies of records: JSON, one kind per occasion.
mod record;

/// Refusals nobody authenticated for: counted, thinned, written at most a second late.
mod tally;

/// Revocations by clients.
mod revocation;

/// Questions about tokens.
mod introspection;

/// The one task that writes, and the fence.
mod committer;

/// Each record's hash covers the one before it.
pub mod chain;

/// How far every chain is, signed.
pub mod checkpoint;

/// Whose word counts.
pub mod believed;

/// Records of commands.
pub mod command;

/// By what a record is found: an index that follows behind.
pub mod index;

/// Which records say something about a certificate, a client, a token?
pub mod query;

/// What died with a change.
pub mod receipt;

/// The log, sent on as it grows: to a file, to syslog, as OTLP.
pub mod forward;

/// What the log asks of storage and of the registry.
mod store;

/// What a restore says of the log.
pub mod restored;

/// Was the log changed?
pub mod verify;

/// The log as a file, and what may be removed once it is one.
pub mod export;

pub use committer::Announced;
pub use introspection::Asked;
pub use revocation::Finding;
pub use store::{
    AppendRefusal, Appended, AssertionUse, AuditEntry, AuditStore, Batch, ChangeFeed, Entry, HistoryLeft, HistoryPlace,
    HistoryRow, Lease, Recovered, Sealed,
};
pub use tally::RefusedHandshake;
pub use trail::{RequestId, Trail};

use std::sync::Arc;
use std::time::Duration;

use countersign_resource_server::time::Clock;
use tokio::sync::{Mutex, mpsc, oneshot};
use tokio::task::JoinHandle;
use tokio::time::{Instant, timeout_at};

use crate::client_auth::ClientAuthRefusal;
use crate::error::{Refusal, refusals};
use crate::mint::{AccessToken, SignedToken};
use crate::registry::StoreUnavailable;
use committer::{Committer, Control, Expected, Health, Issued, Item, Verdict};
use record::Occasion;
use tally::Tally;

refusals! {
    /// Why a decision could not be put on record: then there is no token.
    pub enum AuditUnavailable at "audit" {
        /// More decisions wait for the log than it can take.
        QueueFull => "audit_queue_full",
        /// The record could not be written in time.
        Unavailable => "audit_unavailable",
        /// What the decision rests on changed each time it was taken.
        Overtaken => "decision_overtaken",
    }
}

/// What has been put on record, or refused for want of one. Only the log makes it; only it becomes an answer.
#[derive(Debug)]
pub struct Recorded<T>(T);

impl<T> Recorded<T> {
    /// What may now be answered.
    pub fn into_answer(self) -> T {
        self.0
    }

    /// The same, to look at.
    pub const fn answer(&self) -> &T {
        &self.0
    }
}

/// Proof that the record of a decision is durable: what [`SignedToken::release`] asks for. Only the log makes it.
#[derive(Debug)]
pub struct Durable(());

/// What became of a decision at the fence.
#[derive(Debug)]
pub enum Fenced {
    /// It stands, or the log refused it.
    Held(Recorded<Result<AccessToken, Refusal>>),
    /// A record it rests on changed meanwhile: withheld, which is on record too. Decide again.
    Stale,
}

/// The bounds of the log.
#[derive(Clone, Copy, Debug)]
pub struct AuditLimits {
    /// How many decisions may wait for the log; more are refused.
    pub queue: usize,
    /// How many decisions share one commit at most.
    pub batch: usize,
    /// How long a request waits for its record at most.
    pub patience: Duration,
    /// How long the committer waits to learn what became of a commit before it gives up that connection.
    pub hang: Duration,
    /// How long refusals before authentication are gathered.
    pub tally: Duration,
    /// How many different ones are told apart meanwhile.
    pub tally_rows: usize,
}

impl Default for AuditLimits {
    fn default() -> Self {
        Self {
            queue: 8_192,
            batch: 512,
            // Design §4 has two seconds for the answer, which has to be written and sent after that.
            patience: Duration::from_millis(1_900),
            hang: Duration::from_secs(5),
            tally: Duration::from_millis(500),
            tally_rows: 512,
        }
    }
}

/// The audit log of one node.
#[derive(Debug)]
pub struct AuditLog {
    queue: mpsc::Sender<Item>,
    control: mpsc::Sender<Control>,
    tally: Arc<Tally>,
    store: Arc<dyn AuditStore>,
    clock: Arc<dyn Clock>,
    node: Arc<str>,
    patience: Duration,
    health: Arc<Health>,
    expected: Expected,
    task: Mutex<Option<JoinHandle<()>>>,
}

impl AuditLog {
    /// Leases a chain to `node` and begins to write.
    ///
    /// # Errors
    /// [`StoreUnavailable`] if the store does not answer.
    pub async fn open(
        store: Arc<dyn AuditStore>,
        changes: Arc<dyn ChangeFeed>,
        node: &str,
        clock: Arc<dyn Clock>,
        limits: AuditLimits,
    ) -> Result<Self, StoreUnavailable> {
        let node: Arc<str> = node.into();
        let (queue, items) = mpsc::channel(limits.queue);
        let (control, orders) = mpsc::channel(8);
        let tally = Arc::new(Tally::new(limits.tally_rows));
        let mut committer = Committer::new(
            Arc::clone(&store),
            changes,
            Arc::clone(&clock),
            Arc::clone(&node),
            Arc::clone(&tally),
            limits,
        );
        committer.open().await?;
        let (health, expected) = (committer.health(), committer.expected());
        let task = tokio::spawn(committer.run(items, orders));
        let task = Mutex::new(Some(task));
        Ok(Self { queue, control, tally, store, clock, node, patience: limits.patience, health, expected, task })
    }

    /// Says that a peer is about to ask for something, until what is given is dropped: where several are, their decisions share a
    /// commit.
    pub fn announce(&self) -> Announced {
        self.expected.one_more()
    }

    /// Puts a decision on record, at the fence. A refusal before authentication is counted and answered at once; everything
    /// else waits until it is durable, or for [`AuditLimits::patience`] at most.
    ///
    /// Once this has been called the record is written whatever becomes of the caller; where the answer then was not
    /// what the record says, a `withheld` record follows.
    pub async fn record(&self, trail: Trail, decision: Result<SignedToken, Refusal>) -> Fenced {
        if !trail.is_authenticated() {
            // Nothing that went past client authentication may go this way, least of all a token.
            return match decision {
                Err(refusal) => {
                    self.tally.count(&self.node, &trail, Occasion::Refusal, &refusal);
                    Fenced::Held(Recorded(Err(refusal)))
                }
                Ok(_) => unavailable(AuditUnavailable::Unavailable),
            };
        }
        let verdict = self.hand_over(|deadline, reply| self.item(&trail, &decision, deadline, reply)).await;
        match (verdict, decision) {
            (Ok(Verdict::Durable), Ok(token)) => Fenced::Held(Recorded(Ok(token.release(&Durable(()))))),
            (Ok(Verdict::Durable), Err(refusal)) => Fenced::Held(Recorded(Err(refusal))),
            (Ok(Verdict::Replayed), _) => Fenced::Held(Recorded(Err(ClientAuthRefusal::AssertionReplayed.into()))),
            (Ok(Verdict::Stale), _) => Fenced::Stale,
            (Ok(Verdict::Unavailable), _) => unavailable(AuditUnavailable::Unavailable),
            (Err(why), _) => unavailable(why),
        }
    }

    /// Puts on record that a client's own certificate was checked, and what would have been refused first: durable before
    /// `answer` leaves.
    pub async fn record_check<T>(
        &self,
        trail: Trail,
        found: Option<&Refusal>,
        answer: T,
    ) -> Recorded<Result<T, Refusal>> {
        let item = |deadline, reply| Item {
            request_id: trail.request_id().clone(),
            at: trail.now(),
            told: record::check(&self.node, &trail, found),
            assertion: None,
            token: None,
            deadline,
            reply,
        };
        Recorded(match self.hand_over(item).await {
            Ok(Verdict::Durable) => Ok(answer),
            Ok(Verdict::Replayed | Verdict::Stale | Verdict::Unavailable) => Err(AuditUnavailable::Unavailable.into()),
            Err(why) => Err(why.into()),
        })
    }

    /// Counts a check of a certificate that is not known to be the client's own, and what was refused first. Never waits.
    pub fn count_check<T>(
        &self,
        trail: &Trail,
        found: &Refusal,
        answer: Result<T, Refusal>,
    ) -> Recorded<Result<T, Refusal>> {
        self.tally.count(&self.node, trail, Occasion::Check, found);
        Recorded(answer)
    }

    /// Hands an item to the committer and waits until it is durable, or for [`AuditLimits::patience`] at most.
    async fn hand_over(
        &self,
        item: impl FnOnce(Instant, oneshot::Sender<committer::Reply>) -> Item,
    ) -> Result<Verdict, AuditUnavailable> {
        self.deliver(item).await.map(committer::Reply::accept)
    }

    /// The same, without accepting what comes back: dropped like that, a `withheld` record follows a durable one.
    async fn deliver(
        &self,
        item: impl FnOnce(Instant, oneshot::Sender<committer::Reply>) -> Item,
    ) -> Result<committer::Reply, AuditUnavailable> {
        let deadline = Instant::now() + self.patience;
        let (reply, mut answer) = oneshot::channel();
        self.queue.try_send(item(deadline, reply)).map_err(|refused| match refused {
            mpsc::error::TrySendError::Full(_) => AuditUnavailable::QueueFull,
            mpsc::error::TrySendError::Closed(_) => AuditUnavailable::Unavailable,
        })?;
        let replied = match timeout_at(deadline, &mut answer).await {
            Ok(replied) => replied.ok(),
            Err(_elapsed) => {
                // From here on the committer's reply fails, and it knows; what it sent before that still counts.
                answer.close();
                answer.try_recv().ok()
            }
        };
        replied.ok_or(AuditUnavailable::Unavailable)
    }

    /// Counts a handshake that failed. Never waits.
    pub fn refused_handshake(&self, handshake: &RefusedHandshake) {
        self.tally.count_handshake(handshake, self.clock.now());
    }

    /// Whether decisions are being put on record: what was written last is durable, nothing hangs, and there is room for
    /// more. After an outage that is found out within [`AuditLimits::tally`], whether or not anybody asks for a token.
    pub fn is_written(&self) -> bool {
        // A closed queue has room for ever.
        !self.queue.is_closed()
            && self.queue.capacity() > 0
            && self.health.is_good(self.clock.monotonic(), self.patience)
    }

    /// What a commit takes at present: an average of the last few.
    pub fn commit_time(&self) -> Duration {
        self.health.commit_time()
    }

    /// What this node calls itself in its records.
    pub fn node(&self) -> &str {
        &self.node
    }

    /// Waits until everything that was handed over before is durable, refusals before authentication included; gives up
    /// where the store does not answer.
    pub async fn flush(&self) {
        let (done, flushed) = oneshot::channel();
        if self.control.send(Control::Flush(done)).await.is_ok() {
            let _ = flushed.await;
        }
    }

    /// Writes what is left and stops: what comes after is refused. For the end of the process.
    pub async fn close(&self) {
        let (done, closed) = oneshot::channel();
        if self.control.send(Control::Close(done)).await.is_ok() {
            let _ = closed.await;
        }
        if let Some(task) = self.task.lock().await.take() {
            let _ = task.await;
        }
    }

    /// The latest records of all writers, newest first.
    ///
    /// # Errors
    /// [`StoreUnavailable`] if the store does not answer.
    pub async fn recent(&self, limit: u32) -> Result<Vec<AuditEntry>, StoreUnavailable> {
        self.store.recent(limit).await
    }

    /// The records of one request, in the order they were written.
    ///
    /// # Errors
    /// [`StoreUnavailable`] if the store does not answer.
    pub async fn of_request(&self, request: &RequestId) -> Result<Vec<AuditEntry>, StoreUnavailable> {
        self.store.of_request(request).await
    }

    fn item(
        &self,
        trail: &Trail,
        decision: &Result<SignedToken, Refusal>,
        deadline: Instant,
        reply: oneshot::Sender<committer::Reply>,
    ) -> Item {
        let told = record::decision(&self.node, trail, decision.as_ref());
        let token = decision.as_ref().ok();
        let assertion =
            token.and_then(SignedToken::assertion).map(|used| (used.clone(), record::replayed(&self.node, trail)));
        Item {
            request_id: trail.request_id().clone(),
            at: trail.now(),
            told,
            assertion,
            token: token.map(|token| Issued { rests_on: token.rests_on().clone(), jti: token.jti().to_owned() }),
            deadline,
            reply,
        }
    }
}

const fn unavailable(why: AuditUnavailable) -> Fenced {
    Fenced::Held(Recorded(Err(Refusal::Audit(why))))
}

#[cfg(test)]
mod tests;
