//! The one task that writes, and the fence.
//!
//! Takes decisions from a queue, writes all that wait in one transaction, and answers each: durable, replayed, stale or
//! unavailable. Nothing it has begun is cancelled by a requester that leaves; what it made durable for nobody is
//! followed by a `withheld` record. What the registry changed goes into the same chain, each row of its history once. It
//! knows nothing of tokens but what they rest on.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use countersign_resource_server::time::{Clock, UnixTime};
use tokio::sync::{mpsc, oneshot};
use tokio::time::{Instant, MissedTickBehavior, interval};

/// Who is about to come.
mod expected;

/// Waiting for more.
mod gathering;

/// One transaction after the other, in one chain.
mod writing;

/// What the registry changed, once.
mod history;

use super::chain::Position;
use super::record::{self, Told, Withheld};
use super::store::{Appended, AssertionUse, AuditStore, ChangeFeed, Entry, Lease};
use super::tally::Tally;
use super::{AuditLimits, RequestId};
use crate::registry::{FoundClient, RegistryVersion, StoreUnavailable};
pub use expected::Announced;
pub(super) use expected::Expected;
use expected::Worth;
use history::{Reading, finished};
use writing::{Doubt, LEASE, Written, after, within};

/// A decision on its way to the log.
pub(super) struct Item {
    pub(super) request_id: RequestId,
    pub(super) at: UnixTime,
    pub(super) told: Told,
    /// The assertion it uses up, with its body if that was used before.
    pub(super) assertion: Option<(AssertionUse, String)>,
    /// Present where a token was signed.
    pub(super) token: Option<Issued>,
    /// When its requester stops waiting.
    pub(super) deadline: Instant,
    pub(super) reply: oneshot::Sender<Reply>,
}

/// What the fence has to know of a token.
pub(super) struct Issued {
    pub(super) rests_on: FoundClient,
    pub(super) jti: String,
}

/// What became of a decision.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    Durable,
    Replayed,
    Stale,
    Unavailable,
}

/// A verdict on its way back. If nobody accepts it, a `withheld` record follows the durable one.
pub(super) struct Reply {
    verdict: Verdict,
    undelivered: Option<Undelivered>,
}

struct Undelivered {
    decision: OnRecord,
    committer: mpsc::UnboundedSender<OnRecord>,
}

/// A decision that is, or may be, on record.
#[derive(Clone, Debug)]
struct OnRecord {
    request_id: RequestId,
    position: Position,
    jti: Option<String>,
}

impl Reply {
    /// What became of it.
    pub(super) const fn verdict(&self) -> Verdict {
        self.verdict
    }

    /// Takes the verdict: the requester will act by it.
    pub(super) fn accept(mut self) -> Verdict {
        self.undelivered = None;
        self.verdict
    }
}

impl Drop for Reply {
    fn drop(&mut self) {
        if let Some(Undelivered { decision, committer }) = self.undelivered.take() {
            // Unbounded, but never more than one entry for each decision that was made durable; the committer writes
            // them before it takes more. It is gone only when the process ends.
            let _ = committer.send(decision);
        }
    }
}

/// How writing goes, for whoever asks.
#[derive(Debug, Default)]
pub(super) struct Health {
    failing: AtomicBool,
    /// The monotonic millisecond that the commit under way began in, plus one; zero while there is none.
    begun: AtomicU64,
    /// Microseconds that a commit takes at present.
    commit_micros: AtomicU64,
}

impl Health {
    fn begin(&self, now: Duration) {
        let millis = u64::try_from(now.as_millis()).unwrap_or(u64::MAX - 1);
        self.begun.store(millis + 1, Ordering::Relaxed);
    }

    fn end(&self) {
        self.begun.store(0, Ordering::Relaxed);
    }

    /// Only the committer calls it.
    fn took(&self, time: Duration) {
        let micros = u64::try_from(time.as_micros()).unwrap_or(u64::MAX / 4);
        let before = self.commit_micros.load(Ordering::Relaxed);
        self.commit_micros.store(before - before / 4 + micros / 4, Ordering::Relaxed);
    }

    pub(super) fn commit_time(&self) -> Duration {
        Duration::from_micros(self.commit_micros.load(Ordering::Relaxed))
    }

    /// Whether the last commit went through, and none has been under way for longer than `patience`.
    pub(super) fn is_good(&self, now: Duration, patience: Duration) -> bool {
        let begun = self.begun.load(Ordering::Relaxed).checked_sub(1).map(Duration::from_millis);
        !self.failing.load(Ordering::Relaxed) && begun.is_none_or(|begun| now.saturating_sub(begun) <= patience)
    }
}

/// What can be asked of the committer beside decisions.
pub(super) enum Control {
    Flush(oneshot::Sender<()>),
    Close(oneshot::Sender<()>),
}

/// Rows of refusals that share one small transaction, so that tokens never wait long behind them.
const REFUSALS_PER_COMMIT: usize = 128;

/// How often used assertions that have expired are forgotten.
const FORGET_EVERY: Duration = Duration::from_secs(60);

/// How long they are remembered after that: as long as any assertion lives, should the calendar be stepped back.
const REMEMBERED_LONGER: Duration = Duration::from_secs(600);

/// How far clocks may be apart without being taken for broken.
const CLOCKS_APART: Duration = Duration::from_secs(86_400);

pub(super) struct Committer {
    store: Arc<dyn AuditStore>,
    changes: Arc<dyn ChangeFeed>,
    clock: Arc<dyn Clock>,
    node: Arc<str>,
    tally: Arc<Tally>,
    limits: AuditLimits,
    /// The chain that is written, and where it is; none before the first, and where somebody else has it now.
    lease: Option<Lease>,
    /// How far it is noted in the store that tokens are issued.
    noted: UnixTime,
    /// The latest version of the registry that a commit was made at.
    known: RegistryVersion,
    /// What was being written when the store last failed: it may be on record or not.
    doubt: Option<Doubt>,
    /// What has to be followed by a `withheld` record, for nobody took the answer.
    undelivered: Vec<OnRecord>,
    undelivered_sender: mpsc::UnboundedSender<OnRecord>,
    undelivered_receiver: mpsc::UnboundedReceiver<OnRecord>,
    /// Refusals taken from the tally and not written yet.
    refusals: VecDeque<(UnixTime, String)>,
    tallied_at: Duration,
    /// The history, while it is being read; and when that began last.
    history: Option<Reading>,
    history_at: Duration,
    renewed_at: Duration,
    forgotten_at: Duration,
    health: Arc<Health>,
    expected: Expected,
    worth_waiting: Worth,
}

impl Committer {
    pub(super) fn new(
        store: Arc<dyn AuditStore>,
        changes: Arc<dyn ChangeFeed>,
        clock: Arc<dyn Clock>,
        node: Arc<str>,
        tally: Arc<Tally>,
        limits: AuditLimits,
    ) -> Self {
        let (undelivered_sender, undelivered_receiver) = mpsc::unbounded_channel();
        let tallied_at = clock.monotonic();
        Self {
            store,
            changes,
            clock,
            node,
            tally,
            limits,
            lease: None,
            noted: UnixTime::from_millis(0),
            known: RegistryVersion(0),
            doubt: None,
            undelivered: Vec::new(),
            undelivered_sender,
            undelivered_receiver,
            refusals: VecDeque::new(),
            tallied_at,
            history: None,
            history_at: tallied_at,
            renewed_at: tallied_at,
            forgotten_at: tallied_at,
            health: Arc::default(),
            expected: Expected::default(),
            worth_waiting: Worth::default(),
        }
    }

    pub(super) fn expected(&self) -> Expected {
        self.expected.clone()
    }

    pub(super) fn health(&self) -> Arc<Health> {
        Arc::clone(&self.health)
    }

    /// Takes a chain.
    pub(super) async fn open(&mut self) -> Result<(), StoreUnavailable> {
        self.settle().await?;
        let now = self.clock.now();
        if self.noted > now.after(CLOCKS_APART) {
            tracing::warn!(
                served_until = %self.noted,
                %now,
                "tokens were issued by a clock that is far ahead of this node's: revocation marks stay on the list until then"
            );
        }
        Ok(())
    }

    pub(super) async fn run(mut self, mut items: mpsc::Receiver<Item>, mut orders: mpsc::Receiver<Control>) {
        let mut taken = Vec::with_capacity(self.limits.batch);
        let mut round = interval(self.limits.tally);
        round.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut forgetting = interval(FORGET_EVERY);
        forgetting.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut renewing = interval(LEASE / 3);
        renewing.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut closing: Option<oneshot::Sender<()>> = None;
        loop {
            tokio::select! {
                // In this order: what tokens wait for goes first, always.
                biased;
                count = items.recv_many(&mut taken, self.limits.batch) => {
                    if count == 0 {
                        break;
                    }
                    self.gather(&mut taken, &mut items).await;
                    metrics::gauge!(QUEUE_DEPTH).set(as_gauge(items.len()));
                    self.commit(std::mem::take(&mut taken)).await;
                    // Under constant load the arms below never get their turn: one small round between batches.
                    if !self.undelivered_receiver.is_empty() {
                        self.write_undelivered().await;
                    }
                    self.write_refusals_if_due().await;
                    self.write_history_if_read().await;
                    self.renew_and_forget_if_due().await;
                }
                Some(decision) = self.undelivered_receiver.recv() => {
                    self.undelivered.push(decision);
                    self.write_undelivered().await;
                }
                _ = round.tick() => {
                    // Found out now, not when the next token is asked for: there may be none until this node is ready.
                    self.write_undelivered().await;
                    self.take_refusals();
                    self.write_refusals(&items).await;
                    self.read_history();
                }
                read = finished(&mut self.history) => self.write_history(read).await,
                _ = renewing.tick() => self.renew().await,
                _ = forgetting.tick() => self.forget_assertions(),
                Some(order) = orders.recv() => match order {
                    Control::Flush(done) => {
                        self.write_everything().await;
                        let _ = done.send(());
                    }
                    Control::Close(done) => {
                        // What is in the queue by now is still written; what comes later is refused.
                        items.close();
                        closing = Some(done);
                    }
                },
            }
        }
        self.write_everything().await;
        self.give_back().await;
        if let Some(done) = closing {
            let _ = done.send(());
        }
    }

    /// One batch of decisions: durable together, then answered one by one.
    async fn commit(&mut self, items: Vec<Item>) {
        let now = Instant::now();
        let (items, late): (Vec<Item>, Vec<Item>) = items.into_iter().partition(|item| now < item.deadline);
        if !late.is_empty() {
            // Their requesters were told 503 while the store was away: no record, no token.
            self.tally.drop_decisions(count_of(&late));
            drop(late);
        }
        if items.is_empty() {
            return;
        }
        if self.undelivered.len() > self.limits.queue {
            // Only a store that fails again and again can bring it here: memory stays bounded.
            self.write_undelivered().await;
        }
        let mut entries = Vec::with_capacity(items.len());
        let mut waiting = Vec::with_capacity(items.len());
        for item in items {
            let used = item.assertion.as_ref().map(|(used, _)| used.clone());
            let Told { body, terms } = item.told;
            entries.push(Entry { at: item.at, body, terms: Some(terms), assertion: item.assertion });
            waiting.push(Waiting { request_id: item.request_id, token: item.token, used, reply: item.reply });
        }
        metrics::histogram!(BATCH_SIZE).record(as_gauge(waiting.len()));
        let about = waiting.iter().map(|waiting| (waiting.request_id.clone(), waiting.jti())).collect();
        let appended = if self.undelivered.len() > self.limits.queue {
            Err(StoreUnavailable::because("too many withheld records wait"))
        } else {
            self.append(entries, Vec::new(), about).await
        };
        match appended {
            Ok((first, appended)) => self.fence(waiting, first, &appended).await,
            Err(_) => {
                for Waiting { reply, .. } in waiting {
                    let _ = reply.send(Reply { verdict: Verdict::Unavailable, undelivered: None });
                }
            }
        }
    }

    /// Answers what is durable, after a look at what the registry changed since it was decided.
    async fn fence(&mut self, waiting: Vec<Waiting>, before: Position, appended: &Appended) {
        let mut replayed = vec![false; waiting.len()];
        for index in &appended.replayed {
            if let Some(flag) = replayed.get_mut(*index) {
                *flag = true;
            }
        }
        // A version above the registry's own means that the store was put back: such a decision does not stand either.
        let older =
            waiting.iter().filter_map(|waiting| waiting.version()).filter(|version| *version != appended.version);
        let changes = match older.min() {
            Some(oldest) => {
                self.health.begin(self.clock.monotonic());
                let changes = within(self.limits.hang, self.changes.changes_since(oldest)).await;
                self.health.end();
                Some(changes)
            }
            None => None,
        };
        let mut stale = Vec::new();
        for ((position, waiting), replayed) in after(before).zip(waiting).zip(replayed) {
            if replayed {
                self.reply(waiting, position, Verdict::Replayed);
                continue;
            }
            let why = match (&waiting.token, &changes) {
                (None, _) | (Some(_), None) => None,
                (Some(token), Some(Ok(changes))) => {
                    let FoundClient { record, version } = &token.rests_on;
                    let touched =
                        changes.iter().any(|change| change.version > *version && record.rests_on(&change.touched));
                    (touched || *version > appended.version).then_some(Withheld::RegistryChanged)
                }
                (Some(token), Some(Err(_))) => {
                    (token.rests_on.version != appended.version).then_some(Withheld::RegistryUnread)
                }
            };
            match why {
                None => self.reply(waiting, position, Verdict::Durable),
                Some(why) => stale.push((waiting, position, why)),
            }
        }
        if !stale.is_empty() {
            self.withhold(stale).await;
        }
    }

    /// Puts on record that these decisions are withheld, and only then says so.
    async fn withhold(&mut self, stale: Vec<(Waiting, Position, Withheld)>) {
        metrics::counter!(WITHHELD).increment(u64::try_from(stale.len()).unwrap_or(u64::MAX));
        let now = self.clock.now();
        let entries = stale
            .iter()
            .map(|(waiting, position, why)| {
                let jti = waiting.jti();
                let jti = jti.as_deref();
                Entry::new(now, record::withheld(&self.node, now, &waiting.request_id, *position, jti, *why))
            })
            .collect();
        // The decision is taken again with the same assertion, and no token was issued for it.
        let given_back = stale.iter().filter_map(|(waiting, ..)| waiting.used.clone()).collect();
        let withheld = self.append(entries, given_back, Vec::new()).await.is_ok();
        for (waiting, position, why) in stale {
            let on_record = OnRecord { request_id: waiting.request_id.clone(), position, jti: waiting.jti() };
            let verdict = match why {
                Withheld::RegistryChanged if withheld => Verdict::Stale,
                _ => Verdict::Unavailable,
            };
            if !withheld {
                self.undelivered.push(on_record);
            }
            let _ = waiting.reply.send(Reply { verdict, undelivered: None });
        }
    }

    fn reply(&self, waiting: Waiting, position: Position, verdict: Verdict) {
        let decision = OnRecord { position, jti: waiting.jti(), request_id: waiting.request_id };
        let undelivered = Some(Undelivered { decision, committer: self.undelivered_sender.clone() });
        // Where the requester is gone the reply comes back and is dropped, which is what notes it.
        let _ = waiting.reply.send(Reply { verdict, undelivered });
    }
}

/// What nobody waits for.
impl Committer {
    /// Follows what was made durable for nobody with its `withheld` record; keeps it where that fails.
    async fn write_undelivered(&mut self) {
        while let Ok(decision) = self.undelivered_receiver.try_recv() {
            self.undelivered.push(decision);
        }
        loop {
            // First of all: it may turn out that some of them have their record already.
            if self.settle().await.is_err() || self.undelivered.is_empty() {
                return;
            }
            let count = self.undelivered.len().min(self.limits.batch);
            let now = self.clock.now();
            let entry = |decision: &OnRecord| {
                let OnRecord { request_id, position, jti } = decision;
                let why = Withheld::NotDelivered;
                let body = record::withheld(&self.node, now, request_id, *position, jti.as_deref(), why);
                Entry::new(now, body)
            };
            let entries = self.undelivered.iter().take(count).map(entry).collect();
            let written = Written { entries, undelivered: count, ..Written::default() };
            if self.append_batch(written, Vec::new()).await.is_err() {
                return;
            }
            self.undelivered.drain(..count);
        }
    }

    /// Beside the batches: nobody waits for it.
    fn forget_assertions(&mut self) {
        self.forgotten_at = self.clock.monotonic();
        let (store, before) = (Arc::clone(&self.store), self.clock.now().before(REMEMBERED_LONGER));
        tokio::spawn(async move {
            if let Err(error) = store.forget_assertions(before).await {
                tracing::warn!(%error, "expired assertions could not be forgotten");
            }
        });
    }

    /// Under constant load, what otherwise has its own turn.
    async fn renew_and_forget_if_due(&mut self) {
        let now = self.clock.monotonic();
        if now - self.renewed_at >= LEASE / 3 {
            self.renew().await;
        }
        if now - self.forgotten_at >= FORGET_EVERY {
            self.forget_assertions();
        }
    }

    fn take_refusals(&mut self) {
        // While the store is away the tally keeps counting, within its bounds; nothing is taken that cannot be written.
        if self.refusals.is_empty() && !self.tally.is_empty() {
            self.refusals = self.tally.take(&self.node, self.clock.now()).into();
        }
        self.tallied_at = self.clock.monotonic();
    }

    /// One small transaction, if a round is due.
    async fn write_refusals_if_due(&mut self) {
        if self.refusals.is_empty() && self.clock.monotonic() - self.tallied_at >= self.limits.tally {
            self.take_refusals();
        }
        self.write_some_refusals().await;
    }

    /// The whole round, but no further once a decision waits.
    async fn write_refusals(&mut self, items: &mpsc::Receiver<Item>) {
        while items.is_empty() && self.write_some_refusals().await {}
    }

    /// Whether there may be more.
    async fn write_some_refusals(&mut self) -> bool {
        // First of all: it may turn out that some of them are written already.
        if !self.refusals.is_empty() && self.settle().await.is_err() {
            return false;
        }
        let count = self.refusals.len().min(REFUSALS_PER_COMMIT);
        if count == 0 {
            return false;
        }
        let entry = |(at, body): &(UnixTime, String)| Entry::new(*at, body.clone());
        let entries = self.refusals.iter().take(count).map(entry).collect();
        let written = Written { entries, refusals: count, ..Written::default() };
        if self.append_batch(written, Vec::new()).await.is_err() {
            return false;
        }
        self.refusals.drain(..count);
        true
    }

    async fn write_everything(&mut self) {
        self.write_undelivered().await;
        while self.write_some_refusals().await {}
        self.take_refusals();
        while self.write_some_refusals().await {}
        if self.history.is_some() {
            // Begun too early, perhaps, for what was changed before this.
            let read = finished(&mut self.history).await;
            self.write_history(read).await;
        }
        self.read_history();
        while self.history.is_some() {
            let read = finished(&mut self.history).await;
            self.write_history(read).await;
        }
    }
}

/// A decision that is being written, and who waits for it.
struct Waiting {
    request_id: RequestId,
    token: Option<Issued>,
    used: Option<AssertionUse>,
    reply: oneshot::Sender<Reply>,
}

impl Waiting {
    fn jti(&self) -> Option<String> {
        self.token.as_ref().map(|token| token.jti.clone())
    }

    fn version(&self) -> Option<RegistryVersion> {
        self.token.as_ref().map(|token| token.rests_on.version)
    }
}

fn count_of<T>(some: &[T]) -> u64 {
    u64::try_from(some.len()).unwrap_or(u64::MAX)
}

const fn as_gauge(count: usize) -> f64 {
    count as f64
}

const QUEUE_DEPTH: &str = "countersign_audit_queue_depth";
const BATCH_SIZE: &str = "countersign_audit_batch_size";
const COMMIT_SECONDS: &str = "countersign_audit_commit_seconds";
const WITHHELD: &str = "countersign_audit_withheld_total";
