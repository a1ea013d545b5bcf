//! How far a long command is: a line a second, where somebody sees it.

use std::io::{IsTerminal, Write};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use tokio::task::JoinHandle;

/// A count that is shown while it grows.
#[derive(Debug)]
pub(in crate::cli) struct Progress {
    count: Arc<AtomicU64>,
    shown: Option<JoinHandle<()>>,
}

impl Progress {
    /// Of records that are `done`: "verified", "exported".
    pub(in crate::cli) fn of(done: &'static str) -> Self {
        let count = Arc::new(AtomicU64::new(0));
        let counted = Arc::clone(&count);
        let shown = std::io::stderr().is_terminal().then(|| {
            tokio::spawn(async move {
                loop {
                    tokio::time::sleep(Duration::from_secs(1)).await;
                    let count = counted.load(Ordering::Relaxed);
                    let _ = write!(std::io::stderr(), "\r{count} records {done} ");
                }
            })
        });
        Self { count, shown }
    }

    /// What counts.
    pub(in crate::cli) const fn count(&self) -> &Arc<AtomicU64> {
        &self.count
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        if let Some(shown) = self.shown.take() {
            shown.abort();
            let _ = write!(std::io::stderr(), "\r\x1b[K");
        }
    }
}
