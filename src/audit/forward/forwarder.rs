//! The task that sends to one sink.
//!
//! Takes its turn, sends what comes after the cursors, and moves them once what was sent is taken for arrived. Whatever fails,
//! it begins again at the cursors: duplicates are allowed, gaps are not.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use countersign_resource_server::time::{Clock, UnixTime};
use tokio::time::{Instant, sleep};

use super::store::{ForwardStore, RunSize, Turn};
use super::{ForwardLimits, Run, Sink, SinkFailure};
use crate::audit::AuditEntry;
use crate::audit::chain::{ChainId, Head};
use crate::audit::checkpoint::{Checkpoint, StoredCheckpoint};
use crate::registry::StoreUnavailable;
use crate::telemetry;

/// How many runs of one chain are sent before the next chain has its turn, and the cursor is moved.
const RUNS_IN_A_ROW: usize = 16;

/// A run is made smaller where sending fails, down to this.
const SMALLEST: RunSize = RunSize { records: 1, bytes: 16 * 1024 };

/// How long a place may ask to be left alone.
const LONGEST_RETRY_AFTER: Duration = Duration::from_secs(600);

/// How long giving back the turn may take at the end.
const GIVE_BACK: Duration = Duration::from_secs(2);

/// Sends to one sink.
pub(super) struct Forwarder {
    store: Arc<dyn ForwardStore>,
    sink: Box<dyn Sink>,
    node: Arc<str>,
    clock: Arc<dyn Clock>,
    limits: ForwardLimits,
    /// How much is sent at once now.
    size: RunSize,
    held: Option<Held>,
    failures: u32,
    /// What was last said about a chain that is not what was sent, so that it is said once.
    complained: BTreeMap<ChainId, Head>,
}

/// The turn, and how far the sink is.
struct Held {
    lease: i64,
    kept: Instant,
    /// The last record of each chain that was given to the sink.
    sent: BTreeMap<ChainId, Head>,
    checkpoint: i64,
    /// What was given to the sink and is not taken for arrived yet, oldest first.
    unsettled: VecDeque<(Instant, Sent)>,
}

#[derive(Clone, Copy)]
enum Sent {
    Checkpoint(i64),
    Records(Head),
}

/// What a round came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Round {
    /// Everything there was is sent, or it is another node's turn.
    Done,
    /// There is more.
    More,
}

/// What comes next of a chain.
enum Next {
    /// The log was pruned meanwhile.
    Again,
    Nothing,
    Records(Vec<AuditEntry>),
}

/// Why a round ended early.
#[derive(Debug, thiserror::Error)]
enum Failure {
    #[error(transparent)]
    Sink(#[from] SinkFailure),
    #[error(transparent)]
    Store(#[from] StoreUnavailable),
    #[error("another node has the turn")]
    TurnLost,
}

impl Forwarder {
    pub(super) fn new(
        store: Arc<dyn ForwardStore>,
        sink: Box<dyn Sink>,
        node: &str,
        clock: Arc<dyn Clock>,
        limits: ForwardLimits,
    ) -> Self {
        Self {
            store,
            sink,
            node: node.into(),
            clock,
            limits,
            size: limits.run,
            held: None,
            failures: 0,
            complained: BTreeMap::new(),
        }
    }

    pub(super) async fn run(&mut self) {
        loop {
            let round = self.round().await;
            let pause = match round {
                Ok(Round::More) => Duration::ZERO,
                Ok(Round::Done) => self.limits.look,
                Err(Failure::TurnLost) => {
                    self.held = None;
                    self.limits.look
                }
                Err(failure) => self.failed(&failure).await,
            };
            sleep(pause).await;
        }
    }

    /// Notes what has arrived and leaves the sink to the other nodes.
    pub(super) async fn give_back(&mut self) {
        let giving_back = async {
            // Where it fails that much is sent again, and the turn runs out by itself.
            let _ = self.settle().await;
            if let Some(held) = &self.held {
                let past = UnixTime::from_millis(0);
                let _ = self.store.keep_turn(self.sink.name(), held.lease, past).await;
            }
        };
        let _ = tokio::time::timeout(GIVE_BACK, giving_back).await;
        self.held = None;
    }

    /// Sends what there is, within bounds.
    async fn round(&mut self) -> Result<Round, Failure> {
        if !self.has_turn().await? {
            return Ok(Round::Done);
        }
        // In this order: what the checkpoint covers is there when the chains are read.
        let after = self.held.as_ref().map_or(0, |held| held.checkpoint);
        let checkpoint = self.store.checkpoint_after(after).await?;
        let mut round = Round::Done;
        for cut in self.store.cuts().await? {
            if self.send_chain(cut).await? == Round::More {
                round = Round::More;
            }
            self.settle().await?;
        }
        if let Some(checkpoint) = checkpoint
            && (round == Round::Done || self.covers(&checkpoint))
        {
            let number = checkpoint.number;
            self.send(Run::Checkpoint(checkpoint), Sent::Checkpoint(number)).await?;
            round = Round::More;
        }
        self.settle().await?;
        Ok(round)
    }

    async fn send_chain(&mut self, cut: Head) -> Result<Round, Failure> {
        for _ in 0..RUNS_IN_A_ROW {
            if !self.has_turn().await? {
                return Err(Failure::TurnLost);
            }
            let entries = match self.next(cut).await? {
                Next::Again => return Ok(Round::More),
                Next::Nothing => return Ok(Round::Done),
                Next::Records(entries) => entries,
            };
            let Some(last) = entries.last().map(|entry| Head { position: entry.position, hash: entry.hash }) else {
                return Ok(Round::Done);
            };
            // Less than may be taken is all there was: what comes meanwhile waits for the next round, or each few records would
            // be a commit of their own, beside those that tokens wait for.
            let bytes: usize = entries.iter().map(|entry| entry.body.len()).sum();
            let is_all = entries.len() < self.size.records && bytes < self.size.bytes / 2;
            self.send(Run::Records(entries), Sent::Records(last)).await?;
            if is_all {
                return Ok(Round::Done);
            }
        }
        Ok(Round::More)
    }

    async fn send(&mut self, run: Run, sent: Sent) -> Result<(), Failure> {
        self.sink.send(&run).await?;
        if let Run::Records(entries) = &run {
            metrics::counter!(telemetry::AUDIT_EXPORTED, "sink" => self.sink.name()).increment(entries.len() as u64);
        }
        if self.failures > 0 {
            tracing::info!(sink = self.sink.name(), "the audit log is being sent on again");
        }
        self.failures = 0;
        self.size = RunSize {
            records: self.size.records.saturating_mul(2).min(self.limits.run.records),
            bytes: self.size.bytes.saturating_mul(2).min(self.limits.run.bytes),
        };
        if let Some(held) = &mut self.held {
            match sent {
                Sent::Checkpoint(number) => held.checkpoint = number,
                Sent::Records(head) => drop(held.sent.insert(head.chain(), head)),
            }
            held.unsettled.push_back((Instant::now(), sent));
        }
        Ok(())
    }

    /// What comes after the last record of this chain that was sent. What is missing in the store, or was put in place of
    /// what was sent, is said, and stops nothing: the copy has to show it.
    async fn next(&mut self, cut: Head) -> Result<Next, Failure> {
        let chain = cut.chain();
        let Some(held) = &mut self.held else { return Err(Failure::TurnLost) };
        let sent = held.sent.get(&chain).copied();
        let from = match sent {
            Some(sent) if sent.position >= cut.position => sent,
            _ => {
                let before = sent.map_or(0, |sent| sent.position.sequence());
                if cut.position.sequence() > before {
                    tracing::warn!(
                        sink = self.sink.name(), chain = %chain, first = before + 1, last = cut.position.sequence(),
                        "records of the audit log were removed before they were sent on: they are in the file they were exported to"
                    );
                    held.unsettled.push_back((Instant::now(), Sent::Records(cut)));
                }
                held.sent.insert(chain, cut);
                cut
            }
        };
        let mut entries = self.store.records_from(from.position, self.size).await?;
        let at_cursor = entries.first().filter(|entry| entry.position == from.position).map(|entry| entry.hash);
        if at_cursor.is_some() {
            entries.remove(0);
        }
        // Of the place before the first record, and of the last one that was removed, the chain's row has the hash, whatever
        // somebody may have put there.
        let found = if from.position == cut.position { Some(cut.hash) } else { at_cursor };
        let follows = entries.first().is_none_or(|next| next.position.number() == from.position.number() + 1);
        if found == Some(from.hash) && follows && is_without_gap(&entries) {
            return Ok(if entries.is_empty() { Next::Nothing } else { Next::Records(entries) });
        }
        if self.store.cuts().await?.iter().find(|now| now.chain() == chain) != Some(&cut) {
            return Ok(Next::Again);
        }
        let is_new = self.complained.insert(chain, from) != Some(from);
        if entries.is_empty() || found.is_some_and(|found| found != from.hash) {
            if is_new {
                tracing::error!(
                    sink = self.sink.name(), chain = %chain, sequence = from.position.sequence(),
                    "the audit log in the store is not what was sent on: it was changed or put back. All that is there of the \
                     chain is sent again. `countersign audit verify` says more"
                );
            }
            if let Some(held) = &mut self.held {
                held.sent.insert(chain, cut);
                held.unsettled.push_back((Instant::now(), Sent::Records(cut)));
            }
            return Ok(if is_new { Next::Again } else { Next::Nothing });
        }
        if is_new {
            tracing::error!(
                sink = self.sink.name(), chain = %chain, after = from.position.sequence(),
                "records of the audit log are missing in the store: what is there is sent on. `countersign audit verify` says more"
            );
        }
        Ok(Next::Records(entries))
    }

    /// Whether everything that a checkpoint covers was sent. One that cannot be read covers nothing.
    fn covers(&self, checkpoint: &StoredCheckpoint) -> bool {
        let heads = Checkpoint::read(&checkpoint.statement).map(|read| read.heads).unwrap_or_default();
        let sent = |chain: ChainId| self.held.as_ref().and_then(|held| held.sent.get(&chain));
        heads.iter().all(|head| sent(head.chain()).is_some_and(|sent| sent.position >= head.position))
    }

    /// Takes what was sent long enough ago for arrived, and moves the cursors.
    async fn settle(&mut self) -> Result<(), Failure> {
        let settles_after = self.sink.settles_after();
        if self.held.as_ref().is_none_or(|held| held.unsettled.is_empty()) {
            return Ok(());
        }
        self.sink.look().await?;
        let Some(held) = &mut self.held else { return Ok(()) };
        let settled = held.unsettled.iter().take_while(|(at, _)| at.elapsed() >= settles_after).count();
        if settled == 0 {
            return Ok(());
        }
        let mut checkpoint = None;
        let mut heads: BTreeMap<ChainId, Head> = BTreeMap::new();
        for (_, sent) in held.unsettled.iter().take(settled) {
            match sent {
                Sent::Checkpoint(number) => checkpoint = Some(*number),
                Sent::Records(head) => drop(heads.insert(head.chain(), *head)),
            }
        }
        let heads: Vec<Head> = heads.into_values().collect();
        if !self.store.note_sent(self.sink.name(), held.lease, &heads, checkpoint).await? {
            return Err(Failure::TurnLost);
        }
        held.unsettled.drain(..settled);
        Ok(())
    }

    /// Takes the turn or keeps it. Whether it is this node's.
    async fn has_turn(&mut self) -> Result<bool, StoreUnavailable> {
        let now = self.clock.now();
        let until = now.after(self.limits.turn);
        let sink = self.sink.name();
        if let Some(held) = &mut self.held {
            if held.kept.elapsed() < self.limits.turn / 3 {
                return Ok(true);
            }
            if self.store.keep_turn(sink, held.lease, until).await? {
                held.kept = Instant::now();
                return Ok(true);
            }
            self.held = None;
        }
        let kept = Instant::now();
        let turn = self.store.take_turn(sink, &self.node, now, until).await?;
        self.held = turn.map(|Turn { lease, sent, checkpoint }| Held {
            lease,
            kept,
            sent: sent.into_iter().map(|head| (head.chain(), head)).collect(),
            checkpoint,
            unsettled: VecDeque::new(),
        });
        Ok(self.held.is_some())
    }

    /// Leaves the sink to others for a while, who may reach it. How long.
    async fn failed(&mut self, failure: &Failure) -> Duration {
        self.failures = self.failures.saturating_add(1);
        if self.failures == 1 {
            tracing::warn!(
                sink = self.sink.name(), %failure,
                "the audit log cannot be sent on: it stays in the store, and this is tried again"
            );
        }
        metrics::counter!(telemetry::AUDIT_EXPORT_FAILURES, "sink" => self.sink.name()).increment(1);
        self.size = RunSize {
            records: (self.size.records / 2).max(SMALLEST.records),
            bytes: (self.size.bytes / 2).max(SMALLEST.bytes),
        };
        if !self.sink.settles_after().is_zero()
            && let Some(held) = &mut self.held
        {
            // What was not taken for arrived may be lost with what failed now.
            held.unsettled.clear();
        }
        self.give_back().await;
        let doubled = 1_u32.checked_shl(self.failures.min(16) - 1).unwrap_or(u32::MAX);
        let pause = self.limits.first_pause.saturating_mul(doubled).min(self.limits.longest_pause);
        let asked = match failure {
            Failure::Sink(failure) => failure.retry_after.unwrap_or_default().min(LONGEST_RETRY_AFTER),
            Failure::Store(_) | Failure::TurnLost => Duration::ZERO,
        };
        pause.max(asked)
    }
}

/// Measures how far a sink is behind, whoever sends to it and however long that hangs. Never ends.
pub(super) async fn measure(
    store: Arc<dyn ForwardStore>,
    sink: &'static str,
    clock: Arc<dyn Clock>,
    limits: ForwardLimits,
) {
    loop {
        // Where the store does not answer, others say so.
        if let Ok(backlog) = store.backlog(sink).await {
            let age = backlog.oldest.map_or(Duration::ZERO, |oldest| clock.now().since(oldest));
            metrics::gauge!(telemetry::AUDIT_EXPORT_BEHIND, "sink" => sink).set(backlog.records as f64);
            metrics::gauge!(telemetry::AUDIT_EXPORT_OLDEST, "sink" => sink).set(age.as_secs_f64());
        }
        sleep(limits.measure).await;
    }
}

fn is_without_gap(entries: &[AuditEntry]) -> bool {
    entries.is_sorted_by(|one, next| one.position.number() + 1 == next.position.number())
}
