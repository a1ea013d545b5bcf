//! The log, sent on as it grows: to a file, to syslog, as OTLP.
//!
//! Takes the records of each chain after the last that a sink has got, gives them to that [`Sink`], and notes how far it is:
//! in order, each at least once, none left out. A sink that is away falls behind and delays nobody. It knows nothing of
//! what a record says, and changes nothing of it: `docs/audit-log.md` says what is promised.

/// Where records are sent, one kind of place each.
mod file;
mod otlp;
mod syslog;

/// The text of a record for a place that takes text.
mod line;

/// The task that sends to one sink.
mod forwarder;

/// What sending on asks of storage.
mod store;

#[cfg(test)]
mod tests;

pub use file::FileSink;
pub use otlp::OtlpSink;
pub use store::{Backlog, ForwardStore, RunSize, Turn};
pub use syslog::SyslogSink;

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use countersign_resource_server::time::Clock;
use futures_util::FutureExt;
use futures_util::future::{BoxFuture, join_all};
use tokio::sync::oneshot;
use tokio::task::JoinHandle;

use super::AuditEntry;
use super::checkpoint::StoredCheckpoint;
use forwarder::Forwarder;

/// What is sent at once.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Run {
    /// A checkpoint: of what was sent before it.
    Checkpoint(StoredCheckpoint),
    /// Records of one chain, in order.
    Records(Vec<AuditEntry>),
}

/// Where records are sent.
pub trait Sink: fmt::Debug + Send + 'static {
    /// What it is called in the store, in metrics and in the log.
    fn name(&self) -> &'static str;

    /// Sends a run; returns when the place has it, as far as that can be known.
    ///
    /// # Errors
    /// [`SinkFailure`]: then some of it may have arrived, and all of it is sent again.
    fn send<'a>(&'a mut self, run: &'a Run) -> BoxFuture<'a, Result<(), SinkFailure>>;

    /// How long after it was sent a run may still turn out to be lost; until then the cursor stays before it.
    fn settles_after(&self) -> Duration {
        Duration::ZERO
    }

    /// Whether what was sent a moment ago may be lost. Asked before it is taken for sent.
    ///
    /// # Errors
    /// [`SinkFailure`]: then everything that was not taken for sent yet is sent again.
    fn look(&mut self) -> BoxFuture<'_, Result<(), SinkFailure>> {
        async { Ok(()) }.boxed()
    }
}

/// Why a run was not sent, for the log.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{reason}")]
pub struct SinkFailure {
    /// One line.
    pub reason: String,
    /// How long the place asked to be left alone.
    pub retry_after: Option<Duration>,
}

impl SinkFailure {
    /// A failure for this reason.
    pub fn because(reason: impl fmt::Display) -> Self {
        Self { reason: reason.to_string(), retry_after: None }
    }
}

/// The bounds of sending on.
#[derive(Clone, Copy, Debug)]
pub struct ForwardLimits {
    /// How much is sent at once.
    pub run: RunSize,
    /// How often it is looked for new records.
    pub look: Duration,
    /// How long a turn lasts; it is kept three times as often. What a node leaves behind is taken over after that.
    pub turn: Duration,
    /// How long after a first failure it is tried again; each one after it doubles that.
    pub first_pause: Duration,
    /// Up to this.
    pub longest_pause: Duration,
    /// How often it is measured how far a sink is behind.
    pub measure: Duration,
}

impl Default for ForwardLimits {
    fn default() -> Self {
        Self {
            run: RunSize { records: 500, bytes: 1 << 20 },
            look: Duration::from_millis(500),
            turn: Duration::from_secs(30),
            first_pause: Duration::from_secs(1),
            longest_pause: Duration::from_secs(60),
            measure: Duration::from_secs(5),
        }
    }
}

/// Sending on, until it is stopped or dropped.
#[derive(Debug)]
pub struct Forwarding {
    tasks: Vec<(oneshot::Sender<()>, JoinHandle<()>)>,
}

impl Forwarding {
    /// Begins to send what `store` has, and will have, to each of `sinks`: a task each, so that none waits for another.
    pub fn begin(
        store: &Arc<dyn ForwardStore>,
        sinks: Vec<Box<dyn Sink>>,
        node: &str,
        clock: &Arc<dyn Clock>,
        limits: ForwardLimits,
    ) -> Self {
        let begin = |sink: Box<dyn Sink>| {
            let (stop, stopped) = oneshot::channel();
            let measuring = forwarder::measure(Arc::clone(store), sink.name(), Arc::clone(clock), limits);
            let mut forwarder = Forwarder::new(Arc::clone(store), sink, node, Arc::clone(clock), limits);
            let task = tokio::spawn(async move {
                tokio::select! {
                    () = forwarder.run() => {}
                    () = measuring => {}
                    // Told, or dropped. What was being sent is sent again by whoever is next.
                    _ = stopped => forwarder.give_back().await,
                }
            });
            (stop, task)
        };
        Self { tasks: sinks.into_iter().map(begin).collect() }
    }

    /// Stops, and leaves the sinks to the other nodes at once. What was not sent is sent by them, or after the next start.
    pub async fn stop(self) {
        let stop = |(stop, task): (oneshot::Sender<()>, JoinHandle<()>)| {
            drop(stop);
            task
        };
        join_all(self.tasks.into_iter().map(stop)).await;
    }
}
