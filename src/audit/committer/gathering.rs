//! How long decisions that wait are held back, because others are about to be made.

use std::time::Duration;

use tokio::sync::mpsc;
use tokio::task::yield_now;
use tokio::time::{Instant, timeout_at};

use super::{Committer, Item};

/// How many decisions are worth waiting for: with so many a commit's own cost is a small part of each.
const ENOUGH: usize = 64;

/// Rounds of everything else that can run, before a commit begins: at most, and so many in a row that bring nothing.
const ROUNDS: usize = 32;
const IDLE_ROUNDS: usize = 8;

/// What that may take, whatever a commit takes.
const SHORTEST_GATHERING: Duration = Duration::from_micros(200);
const LONGEST_GATHERING: Duration = Duration::from_millis(1);

/// Peers that are expected, from so many on, are waited for: they come one by one, as fast as their handshakes are computed.
const SIBLINGS: usize = 4;

/// With so many decisions nobody is waited for any more.
const SHARED: usize = 8;

/// How long they are waited for; a handshake takes as long, and a timer is no finer.
const WAIT: Duration = Duration::from_millis(1);

impl Committer {
    /// Lets whatever else can run do so first, as long as that brings more decisions and takes no longer than a commit: that
    /// costs as much as deciding several requests, and those that are being decided may share it. Nothing sleeps for that; where
    /// nothing else can run, a round is over at once, and where others never run out of work it is the last one.
    ///
    /// Only where several peers are shaking hands is there a wait, as long as such waits bring anything, whoever it comes from: strangers
    /// who only begin to, by the dozens a second, can cost the others that millisecond.
    pub(super) async fn gather(&mut self, taken: &mut Vec<Item>, items: &mut mpsc::Receiver<Item>) {
        self.let_others_run(taken, items).await;
        let enough = SHARED.min(self.limits.batch);
        if taken.len() >= enough || !self.is_anyone_expected(taken) || !self.worth_waiting.tries() {
            return;
        }
        let before = taken.len();
        let until = Instant::now() + WAIT;
        while taken.len() < enough
            && self.is_anyone_expected(taken)
            && let Ok(Some(item)) = timeout_at(until, items.recv()).await
        {
            taken.push(item);
        }
        self.worth_waiting.learn(taken.len() > before);
    }

    /// Beside those whose decisions are taken, who are announced still if it was not long ago. Whoever is on a connection that is
    /// kept never was: then fewer are seen than there are.
    fn is_anyone_expected(&self, taken: &[Item]) -> bool {
        self.expected.count().saturating_sub(taken.len()) >= SIBLINGS
    }

    async fn let_others_run(&self, taken: &mut Vec<Item>, items: &mut mpsc::Receiver<Item>) {
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
