//! One transaction after the other, in one chain: under which lease, and what became of what was in doubt.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use countersign_resource_server::time::UnixTime;
use tokio::time::timeout;

use super::{COMMIT_SECONDS, Committer, OnRecord, count_of};
use crate::audit::RequestId;
use crate::audit::chain::Position;
use crate::audit::record;
use crate::audit::store::{AppendRefusal, Appended, AssertionUse, Batch, Entry, HistoryPlace, Lease};
use crate::registry::StoreUnavailable;

/// How long a chain is leased; it is renewed three times as often. What was lost with a node is taken over after that.
pub(super) const LEASE: Duration = Duration::from_secs(30);

/// What is to be written, before it is known under which lease.
#[derive(Default)]
pub(super) struct Written {
    pub(super) entries: Vec<Entry>,
    pub(super) given_back: Vec<AssertionUse>,
    pub(super) history: Option<(HistoryPlace, HistoryPlace)>,
    /// How many of [`Committer::undelivered`] it follows with their records, the first of them.
    pub(super) undelivered: usize,
    /// How many of [`Committer::refusals`] it is, the first of them.
    pub(super) refusals: usize,
}

/// What was being written when the store failed.
pub(super) struct Doubt {
    pub(super) batch: Arc<Batch>,
    /// Whose decisions it had.
    pub(super) about: Vec<OnRecord>,
    pub(super) undelivered: usize,
    pub(super) refusals: usize,
}

/// The places after `before`, as far as its chain goes.
pub(super) fn after(before: Position) -> impl Iterator<Item = Position> {
    (before.sequence() + 1..).map_while(move |sequence| Position::of(before.chain(), sequence))
}

/// The past, whatever the clock says.
const GIVEN_BACK: UnixTime = UnixTime::from_millis(0);

impl Committer {
    /// Writes entries in one transaction. `about` says whose decisions they are, in the same order. Gives the place before
    /// the first of them.
    pub(super) async fn append(
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

    pub(super) async fn append_batch(
        &mut self,
        written: Written,
        about: Vec<(RequestId, Option<String>)>,
    ) -> Result<(Position, Appended), AppendRefusal> {
        let Written { mut entries, given_back, history, undelivered, refusals } = written;
        loop {
            let settled = match self.settle().await {
                Ok(lease) => self.note_time(&entries).await.map(|()| lease),
                Err(error) => Err(error),
            };
            let lease = match settled {
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
                    self.known = self.known.max(appended.version);
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
                    self.note_failure(&error);
                    let numbered = about.into_iter().zip(after(lease.head.position));
                    let of = |((request_id, jti), position)| OnRecord { request_id, position, jti };
                    self.doubt = Some(Doubt { batch, about: numbered.map(of).collect(), undelivered, refusals });
                    return Err(error);
                }
            }
        }
    }

    /// Notes how far tokens are issued where this node's clock has gone past what was noted, as it does that is set forward: a
    /// mark made meanwhile would end before they do.
    async fn note_time(&mut self, entries: &[Entry]) -> Result<(), StoreUnavailable> {
        // A token was signed before it came here, and the clock may have been set back since.
        let latest = entries.iter().map(|entry| entry.at).fold(self.clock.now(), UnixTime::max);
        if latest < self.noted {
            return Ok(());
        }
        let noting = self.note_until(latest).await;
        if let Err(error) = &noting {
            self.note_failure(error);
        }
        noting
    }

    /// Notes that tokens may be issued as long as a lease runs that is taken or kept at `now`.
    async fn note_until(&mut self, now: UnixTime) -> Result<(), StoreUnavailable> {
        self.noted = within(self.limits.hang, self.store.serves_until(now, now.after(LEASE))).await?;
        Ok(())
    }

    async fn write(&self, batch: &Arc<Batch>) -> Result<Appended, AppendRefusal> {
        let begun = self.clock.monotonic();
        self.health.begin(begun);
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
        let took = self.clock.monotonic() - begun;
        metrics::histogram!(COMMIT_SECONDS).record(took.as_secs_f64());
        self.health.took(took);
        self.health.end();
        written
    }

    /// Learns what became of what was being written when the store failed, and takes a chain where there is none: numbers are
    /// never given twice, and what is on record after all was answered 503, and what is not is counted as such.
    pub(super) async fn settle(&mut self) -> Result<Lease, StoreUnavailable> {
        if let Some(Doubt { batch, about, undelivered, refusals }) = &mut self.doubt {
            let recovered = within(self.limits.hang, self.store.recover(Arc::clone(batch))).await?;
            if recovered.is_written {
                self.undelivered.drain(..*undelivered);
                self.refusals.drain(..*refusals);
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
        let taken = self.take_chain().await;
        match &taken {
            Ok(_) => self.health.failing.store(false, Ordering::Relaxed),
            Err(error) => self.note_failure(error),
        }
        taken
    }

    fn note_failure(&self, error: &dyn std::fmt::Display) {
        if !self.health.failing.swap(true, Ordering::Relaxed) {
            tracing::error!(%error, "the audit log cannot be written: no token is issued until it can");
        }
    }

    /// Takes a chain that nobody writes, and says so in it.
    async fn take_chain(&mut self) -> Result<Lease, StoreUnavailable> {
        // Whoever is in a store that was put in the place of another has lost the lease and comes by here.
        within(self.limits.hang, self.store.may_serve(self.known)).await?;
        let now = self.clock.now();
        // First: under a lease there may be tokens at once.
        self.note_until(now).await?;
        let lease = within(self.limits.hang, self.store.lease(&self.node, now, now.after(LEASE))).await?;
        let entries = vec![Entry::new(now, record::opened(&self.node, now, &lease))];
        let batch = Arc::new(Batch { lease, entries, given_back: Vec::new(), history: None });
        match self.write(&batch).await {
            Ok(appended) => {
                self.known = self.known.max(appended.version);
                Ok(*self.lease.insert(Lease { head: appended.head, ..lease }))
            }
            Err(AppendRefusal::Unavailable(error)) => {
                self.doubt = Some(Doubt { batch, about: Vec::new(), undelivered: 0, refusals: 0 });
                Err(error)
            }
            Err(error) => Err(StoreUnavailable::because(error)),
        }
    }

    pub(in crate::audit) async fn renew(&mut self) {
        self.renewed_at = self.clock.monotonic();
        // A doubt is settled with the next write.
        let Some(lease) = self.lease.filter(|_| self.doubt.is_none()) else { return };
        let now = self.clock.now();
        let renewing = match self.note_until(now).await {
            Ok(()) => {
                let renewing = self.store.renew(lease.head.chain(), lease.number, now.after(LEASE));
                within(self.limits.hang, renewing).await
            }
            Err(error) => Err(error),
        };
        match renewing {
            // There is no doubt: whatever was failing does not any more.
            Ok(true) => self.health.failing.store(false, Ordering::Relaxed),
            Ok(false) => {
                self.lease = None;
                let _ = self.settle().await;
            }
            Err(error) => {
                tracing::warn!(%error, "the lease of the audit log's chain could not be renewed");
                // Where there are no requests no write tells, and none would go through after this end.
                if self.clock.now() >= self.noted {
                    self.note_failure(&error);
                }
            }
        }
    }

    /// Others may have the chain at once. Where that cannot be said, they wait until the lease has run out.
    pub(super) async fn give_back(&self) {
        if let Some(lease) = self.lease {
            let given_back = self.store.renew(lease.head.chain(), lease.number, GIVEN_BACK);
            let _ = within(self.limits.hang, given_back).await;
        }
    }
}

pub(super) async fn within<T>(
    patience: Duration,
    work: impl Future<Output = Result<T, StoreUnavailable>>,
) -> Result<T, StoreUnavailable> {
    timeout(patience, work).await.unwrap_or_else(|_| Err(StoreUnavailable::because("no answer")))
}
