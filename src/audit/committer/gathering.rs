//! How long decisions that wait are held back, because others are about to be made.

use std::time::Duration;

use tokio::sync::mpsc;
use tokio::task::yield_now;

use super::{Committer, Item};

/// How many decisions are worth waiting for: with so many a commit's own cost is a small part of each.
const ENOUGH: usize = 64;

/// Rounds of everything else that can run, before a commit begins: at most, and so many in a row that bring nothing.
const ROUNDS: usize = 32;
const IDLE_ROUNDS: usize = 8;

/// What that may take, whatever a commit takes.
const SHORTEST_GATHERING: Duration = Duration::from_micros(200);
const LONGEST_GATHERING: Duration = Duration::from_millis(1);

impl Committer {
    /// Lets whatever else can run do so first, as long as that brings more decisions and takes no longer than a commit: that
    /// costs as much as deciding several requests, and those that are being decided may share it. Nothing sleeps here; where
    /// nothing else can run, a round is over at once, and where others never run out of work it is the last one.
    pub(super) async fn gather(&self, taken: &mut Vec<Item>, items: &mut mpsc::Receiver<Item>) {
        let enough = ENOUGH.min(self.limits.batch);
        let until = self.clock.monotonic() + self.health.commit_time().clamp(SHORTEST_GATHERING, LONGEST_GATHERING);
        let mut idle = 0;
        for _ in 0..ROUNDS {
            if taken.len() >= enough || idle >= IDLE_ROUNDS || self.clock.monotonic() >= until {
                return;
            }
            yield_now().await;
            let before = taken.len();
            while taken.len() < enough
                && let Ok(item) = items.try_recv()
            {
                taken.push(item);
            }
            idle = if taken.len() > before { 0 } else { idle + 1 };
        }
    }
}
