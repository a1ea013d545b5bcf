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
use tokio::task::{JoinError, JoinHandle};
use tokio::time::{Instant, MissedTickBehavior, interval, timeout};

use super::chain::Position;
use super::record::{self, Withheld};
use super::store::{
    AppendRefusal, Appended, AssertionUse, AuditStore, Batch, ChangeFeed, Entry, HistoryLeft, HistoryPlace, Lease,
};
use super::tally::Tally;
use super::{AuditLimits, RequestId};
use crate::registry::{FoundClient, RegistryVersion, StoreUnavailable};

/// A decision on its way to the log.
pub(super) struct Item {
    pub(super) request_id: RequestId,
    pub(super) at: UnixTime,
    pub(super) body: String,
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
}

impl Health {
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

/// How long a chain is leased; it is renewed three times as often. What was lost with a node is taken over after that.
const LEASE: Duration = Duration::from_secs(30);

type Reading = JoinHandle<Result<HistoryLeft, StoreUnavailable>>;

/// Rows of the history that share one transaction.
const HISTORY_PER_COMMIT: u32 = 16;

/// How long they are remembered after that: as long as any assertion lives, should the calendar be stepped back.
const REMEMBERED_LONGER: Duration = Duration::from_secs(600);

pub(super) struct Committer {
    store: Arc<dyn AuditStore>,
    changes: Arc<dyn ChangeFeed>,
    clock: Arc<dyn Clock>,
    node: Arc<str>,
    tally: Arc<Tally>,
    limits: AuditLimits,
    /// The chain that is written, and where it is; none before the first, and where somebody else has it now.
    lease: Option<Lease>,
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
    health: Arc<Health>,
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
            doubt: None,
            undelivered: Vec::new(),
            undelivered_sender,
            undelivered_receiver,
            refusals: VecDeque::new(),
            tallied_at,
            history: None,
            history_at: tallied_at,
            health: Arc::default(),
        }
    }

    pub(super) fn health(&self) -> Arc<Health> {
        Arc::clone(&self.health)
    }

    /// Takes a chain.
    pub(super) async fn open(&mut self) -> Result<(), StoreUnavailable> {
        self.settle().await.map(drop)
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
                    metrics::gauge!(QUEUE_DEPTH).set(as_gauge(items.len()));
                    self.commit(std::mem::take(&mut taken)).await;
                    // Under constant load the arms below never get their turn: one small round between batches.
                    if !self.undelivered_receiver.is_empty() {
                        self.write_undelivered().await;
                    }
                    self.write_refusals_if_due().await;
                    self.write_history_if_read().await;
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
        // Others may have the chain at once. Where that cannot be said, they wait until the lease has run out.
        if let Some(lease) = self.lease {
            let given_back = self.store.renew(lease.head.chain(), lease.number, GIVEN_BACK);
            let _ = within(self.limits.hang, given_back).await;
        }
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
            entries.push(Entry { at: item.at, body: item.body, assertion: item.assertion });
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
            Some(oldest) => Some(self.changes.changes_since(oldest).await),
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
                Entry {
                    at: now,
                    body: record::withheld(&self.node, now, &waiting.request_id, *position, jti.as_deref(), *why),
                    assertion: None,
                }
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

    /// Writes entries in one transaction. `about` says whose decisions they are, in the same order. Gives the place before
    /// the first of them.
    async fn append(
        &mut self,
        entries: Vec<Entry>,
        given_back: Vec<AssertionUse>,
        about: Vec<(RequestId, Option<String>)>,
    ) -> Result<(Position, Appended), StoreUnavailable> {
        self.append_batch(Written { entries, given_back, ..Written::default() }, about).await.map_err(|refusal| {
            match refusal {
                AppendRefusal::Unavailable(error) => error,
                other => StoreUnavailable::because(other),
            }
        })
    }

    async fn append_batch(
        &mut self,
        written: Written,
        about: Vec<(RequestId, Option<String>)>,
    ) -> Result<(Position, Appended), AppendRefusal> {
        let Written { mut entries, given_back, history, undelivered } = written;
        loop {
            let lease = match self.settle().await {
                Ok(lease) => lease,
                Err(error) => {
                    self.tally.drop_decisions(count_of(&about));
                    return Err(error.into());
                }
            };
            let batch = Arc::new(Batch { lease, entries, given_back: given_back.clone(), history });
            match self.write(&batch).await {
                Ok(appended) => {
                    self.lease = Some(Lease { head: appended.head, ..lease });
                    if self.health.failing.swap(false, Ordering::Relaxed) {
                        tracing::info!("the audit log is written again");
                    }
                    return Ok((lease.head.position, appended));
                }
                Err(AppendRefusal::LeaseLost) => {
                    tracing::warn!(chain = %lease.head.chain(), "another node writes this chain of the audit log now");
                    self.lease = None;
                    // Nobody else holds the batch any more: it was not written, and is written to the next chain.
                    let batch =
                        Arc::into_inner(batch).ok_or_else(|| StoreUnavailable::because("still being written"))?;
                    entries = batch.entries;
                }
                Err(AppendRefusal::HistoryTaken) => return Err(AppendRefusal::HistoryTaken),
                Err(error) => {
                    if !self.health.failing.swap(true, Ordering::Relaxed) {
                        tracing::error!(%error, "the audit log cannot be written: no token is issued until it can");
                    }
                    let numbered = about.into_iter().zip(after(lease.head.position));
                    let of = |((request_id, jti), position)| OnRecord { request_id, position, jti };
                    self.doubt = Some(Doubt { batch, about: numbered.map(of).collect(), undelivered });
                    return Err(error);
                }
            }
        }
    }

    async fn write(&self, batch: &Arc<Batch>) -> Result<Appended, AppendRefusal> {
        let begun = self.clock.monotonic();
        let millis = u64::try_from(begun.as_millis()).unwrap_or(u64::MAX - 1);
        self.health.begun.store(millis + 1, Ordering::Relaxed);
        // A task of its own: nothing here cancels a transaction whose outcome somebody has to know.
        let mut writing = tokio::spawn(self.store.append(Arc::clone(batch)));
        let written = match timeout(self.limits.hang, &mut writing).await {
            Ok(joined) => joined.unwrap_or_else(|_| Err(StoreUnavailable::because("the writing task ended").into())),
            Err(_elapsed) => {
                // Requesters have left long ago. The connection goes with the task; `settle` learns what became of it.
                writing.abort();
                let hang = self.limits.hang.as_secs();
                Err(StoreUnavailable::because(format!("no answer within {hang} s")).into())
            }
        };
        metrics::histogram!(COMMIT_SECONDS).record((self.clock.monotonic() - begun).as_secs_f64());
        self.health.begun.store(0, Ordering::Relaxed);
        written
    }
}

/// What is to be written, before it is known under which lease.
#[derive(Default)]
struct Written {
    entries: Vec<Entry>,
    given_back: Vec<AssertionUse>,
    history: Option<(HistoryPlace, HistoryPlace)>,
    /// How many of [`Committer::undelivered`] it follows with their records, the first of them.
    undelivered: usize,
}

/// What was being written when the store failed.
struct Doubt {
    batch: Arc<Batch>,
    /// Whose decisions it had.
    about: Vec<OnRecord>,
    undelivered: usize,
}

/// The places after `before`, as far as its chain goes.
fn after(before: Position) -> impl Iterator<Item = Position> {
    (before.sequence() + 1..).map_while(move |sequence| Position::of(before.chain(), sequence))
}

/// The past, whatever the clock says.
const GIVEN_BACK: UnixTime = UnixTime::from_millis(0);

/// The chain.
impl Committer {
    /// Learns what became of what was being written when the store failed, and takes a chain where there is none: numbers are
    /// never given twice, and what is on record after all was answered 503, and what is not is counted as such.
    async fn settle(&mut self) -> Result<Lease, StoreUnavailable> {
        if let Some(Doubt { batch, about, undelivered }) = &mut self.doubt {
            let recovered = within(self.limits.hang, self.store.recover(Arc::clone(batch))).await?;
            if recovered.is_written {
                self.undelivered.drain(..*undelivered);
                self.undelivered.append(about);
            } else {
                self.tally.drop_decisions(count_of(about));
            }
            self.doubt = None;
            self.lease = recovered.lease;
        }
        if let Some(lease) = self.lease {
            return Ok(lease);
        }
        let now = self.clock.now();
        let lease = within(self.limits.hang, self.store.lease(&self.node, now, now.after(LEASE))).await?;
        let entries = vec![Entry { at: now, body: record::opened(&self.node, now, &lease), assertion: None }];
        let batch = Arc::new(Batch { lease, entries, given_back: Vec::new(), history: None });
        match self.write(&batch).await {
            Ok(appended) => Ok(*self.lease.insert(Lease { head: appended.head, ..lease })),
            Err(AppendRefusal::Unavailable(error)) => {
                self.doubt = Some(Doubt { batch, about: Vec::new(), undelivered: 0 });
                Err(error)
            }
            Err(error) => Err(StoreUnavailable::because(error)),
        }
    }

    async fn renew(&mut self) {
        // A doubt is settled with the next write.
        let Some(lease) = self.lease.filter(|_| self.doubt.is_none()) else { return };
        let until = self.clock.now().after(LEASE);
        match within(self.limits.hang, self.store.renew(lease.head.chain(), lease.number, until)).await {
            Ok(true) => {}
            Ok(false) => {
                self.lease = None;
                let _ = self.settle().await;
            }
            // The next write will tell.
            Err(error) => tracing::warn!(%error, "the lease of the audit log's chain could not be renewed"),
        }
    }

    /// Begins to read what the registry changed. Nothing waits for it: the store's readers may be busy.
    fn read_history(&mut self) {
        if self.history.is_none() {
            self.history_at = self.clock.monotonic();
            let store = Arc::clone(&self.store);
            self.history = Some(tokio::spawn(async move { store.history_left(HISTORY_PER_COMMIT).await }));
        }
    }

    /// Under constant load: one small transaction, if something has been read.
    async fn write_history_if_read(&mut self) {
        if let Some(reading) = self.history.take_if(|reading| reading.is_finished()) {
            let read = reading.await;
            self.write_history(read).await;
        }
        if self.clock.monotonic() - self.history_at >= self.limits.tally {
            self.read_history();
        }
    }

    /// Puts rows of the history in the chain. Where there may be more, they are read next.
    async fn write_history(&mut self, read: Result<Result<HistoryLeft, StoreUnavailable>, JoinError>) {
        let left = match read {
            Ok(Ok(left)) => left,
            Ok(Err(error)) => {
                tracing::warn!(%error, "the registry's history could not be read: it will be in the audit log later");
                return;
            }
            // The panic is on record; it is read again.
            Err(_) => return,
        };
        let Some(last) = left.rows.last() else { return };
        let history = Some((left.after, last.place));
        let now = self.clock.now();
        let entry = |row| Entry { at: now, body: record::change(&self.node, now, row), assertion: None };
        let entries = left.rows.iter().map(entry).collect();
        match self.append_batch(Written { entries, history, ..Written::default() }, Vec::new()).await {
            // Where another node has it, there is what that one left.
            Ok(_) | Err(AppendRefusal::HistoryTaken) => self.read_history(),
            Err(_) => {}
        }
    }
}

/// What has been read; never, where nothing is being read.
async fn finished(reading: &mut Option<Reading>) -> Result<Result<HistoryLeft, StoreUnavailable>, JoinError> {
    match reading {
        Some(task) => {
            let read = task.await;
            *reading = None;
            read
        }
        None => std::future::pending().await,
    }
}

async fn within<T>(
    patience: Duration,
    work: impl Future<Output = Result<T, StoreUnavailable>>,
) -> Result<T, StoreUnavailable> {
    timeout(patience, work).await.unwrap_or_else(|_| Err(StoreUnavailable::because("no answer")))
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
                Entry { at: now, body, assertion: None }
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
    fn forget_assertions(&self) {
        let (store, before) = (Arc::clone(&self.store), self.clock.now().before(REMEMBERED_LONGER));
        tokio::spawn(async move {
            if let Err(error) = store.forget_assertions(before).await {
                tracing::warn!(%error, "expired assertions could not be forgotten");
            }
        });
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
        let count = self.refusals.len().min(REFUSALS_PER_COMMIT);
        if count == 0 {
            return false;
        }
        let entry = |(at, body): &(UnixTime, String)| Entry { at: *at, body: body.clone(), assertion: None };
        let entries = self.refusals.iter().take(count).map(entry).collect();
        if self.append(entries, Vec::new(), Vec::new()).await.is_err() {
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
