//! What the registry changed: each row of its history in a chain, once, whichever node puts it there.

use std::sync::Arc;

use tokio::task::{JoinError, JoinHandle};

use super::Committer;
use super::writing::{Written, within};
use crate::audit::record;
use crate::audit::store::{AppendRefusal, Entry, HistoryLeft};
use crate::registry::StoreUnavailable;

/// The history, while it is being read.
pub(super) type Reading = JoinHandle<Result<HistoryLeft, StoreUnavailable>>;

/// Rows of the history that share one transaction.
const HISTORY_PER_COMMIT: u32 = 16;

impl Committer {
    /// Begins to read what the registry changed. Nothing waits for it: the store's readers may be busy.
    pub(super) fn read_history(&mut self) {
        if self.history.is_none() {
            self.history_at = self.clock.monotonic();
            let store = Arc::clone(&self.store);
            let hang = self.limits.hang;
            self.history =
                Some(tokio::spawn(async move { within(hang, store.history_left(HISTORY_PER_COMMIT)).await }));
        }
    }

    /// Under constant load: one small transaction, if something has been read.
    pub(super) async fn write_history_if_read(&mut self) {
        if let Some(reading) = self.history.take_if(|reading| reading.is_finished()) {
            let read = reading.await;
            self.write_history(read).await;
        }
        if self.clock.monotonic() - self.history_at >= self.limits.tally {
            self.read_history();
        }
    }

    /// Puts rows of the history in the chain. Where there may be more, they are read next.
    pub(super) async fn write_history(&mut self, read: Result<Result<HistoryLeft, StoreUnavailable>, JoinError>) {
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
        let entry = |row| Entry::new(now, record::change(&self.node, now, row));
        let entries = left.rows.iter().map(entry).collect();
        match self.append_batch(Written { entries, history, ..Written::default() }, Vec::new()).await {
            // Where another node has it, there is what that one left.
            Ok(_) | Err(AppendRefusal::HistoryTaken) => self.read_history(),
            Err(_) => {}
        }
    }
}

/// What has been read; never, where nothing is being read.
pub(super) async fn finished(
    reading: &mut Option<Reading>,
) -> Result<Result<HistoryLeft, StoreUnavailable>, JoinError> {
    match reading {
        Some(task) => {
            let read = task.await;
            *reading = None;
            read
        }
        None => std::future::pending().await,
    }
}
