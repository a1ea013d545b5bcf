//! The task behind the questions: looks up whose connections they come on, and writes down who has the list.
//!
//! Wakes when the list says something new, and then looks often until everybody has it; otherwise every few seconds, so that
//! commands see that this node is there. What cannot be written is written later: a command says then what it does not know.

use std::sync::Arc;
use std::time::Duration;

use countersign_resource_server::time::Clock;
use tokio::task::JoinHandle;
use tokio::time::{MissedTickBehavior, interval, sleep};

use super::store::{FollowerStore, Summary};
use super::{Followers, Server};
use crate::introspection::{self, IntrospectionRefusal};
use crate::registry::{Registry, Stand};
use crate::status::{ListVersion, RevocationList};

/// How often it is written that this node is there, whether or not anything has changed.
pub(super) const BEAT: Duration = Duration::from_secs(5);

/// How often is looked while a new list is being taken …
const GLANCE: Duration = Duration::from_millis(50);

/// … and for how long: commands wait no longer than two seconds.
const SPREADING: Duration = Duration::from_secs(3);

/// Connections that are looked up together.
const BATCH: usize = 256;

/// How long looking up may take at once: a new list is counted by those who are known already.
const LOOKING_UP: Duration = Duration::from_millis(300);

/// What the task rests on.
struct Keeper {
    followers: Arc<Followers>,
    store: Arc<dyn FollowerStore>,
    list: Arc<RevocationList>,
    registry: Arc<Registry>,
    clock: Arc<dyn Clock>,
    node: String,
    /// Whose connections are whose is known as of this version.
    known_at: Stand,
    /// What was written last.
    written: Option<Summary>,
    is_failing: bool,
}

impl Followers {
    /// Counts and writes down until the task is aborted.
    pub fn keep(
        self: &Arc<Self>,
        store: Arc<dyn FollowerStore>,
        list: &Arc<RevocationList>,
        registry: &Arc<Registry>,
    ) -> JoinHandle<()> {
        let mut keeper = Keeper {
            followers: Arc::clone(self),
            store,
            list: Arc::clone(list),
            registry: Arc::clone(registry),
            clock: Arc::clone(&self.clock),
            node: registry.node().to_owned(),
            known_at: registry.stand(),
            written: None,
            is_failing: false,
        };
        let mut lists = list.subscribe();
        tokio::spawn(async move {
            let mut beats = interval(BEAT);
            beats.set_missed_tick_behavior(MissedTickBehavior::Delay);
            let mut last = lists.borrow().version();
            loop {
                tokio::select! {
                    _ = beats.tick() => keeper.look().await,
                    changed = lists.changed() => {
                        if changed.is_err() {
                            return;
                        }
                        let version = lists.borrow_and_update().version();
                        if is_other(last, version) {
                            keeper.follow_spread().await;
                            beats.reset();
                        }
                        last = version;
                    }
                }
            }
        })
    }
}

/// Whether a list says something that the one before it did not: most are the same, signed anew.
const fn is_other(before: ListVersion, after: ListVersion) -> bool {
    before.epoch != after.epoch || before.unchanged_since != after.unchanged_since
}

impl Keeper {
    /// Looks often, until everybody has the list.
    async fn follow_spread(&mut self) {
        let begun = self.clock.monotonic();
        loop {
            self.look_up().await;
            self.count(false).await;
            let is_complete = self.written.as_ref().is_some_and(|written| written.taken == written.heard.len());
            if is_complete || self.clock.monotonic().saturating_sub(begun) >= SPREADING {
                return;
            }
            sleep(GLANCE).await;
        }
    }

    /// Looks whose connections there are, counts and writes that down.
    async fn look(&mut self) {
        self.look_up().await;
        self.count(true).await;
    }

    /// Counts once, and writes that down if it is another number than before, or due.
    async fn count(&mut self, is_due: bool) {
        let summary = self.followers.summary(self.list.current().version(), self.clock.now());
        // With each beat as well: a row that was taken for an old one, and removed, comes back whole.
        let has_other_heard = is_due || self.written.as_ref().is_none_or(|written| written.heard != summary.heard);
        if !is_due && self.written.as_ref().is_some_and(|written| says_the_same(written, &summary)) {
            return;
        }
        match self.store.note_followers(self.followers.id(), &self.node, &summary, has_other_heard).await {
            Ok(()) => {
                self.is_failing = false;
                self.written = Some(summary);
            }
            Err(error) => {
                // It may have been written all the same: what is there is not known, so that all of it is written again.
                self.written = None;
                if !std::mem::replace(&mut self.is_failing, true) {
                    tracing::warn!(%error, "who has taken the revocation list cannot be written down");
                }
            }
        }
    }

    /// Whose connections they are, by the rule of `/introspect`: once for each, and again when something has changed.
    async fn look_up(&mut self) {
        let seen = self.registry.stand();
        if seen != self.known_at {
            let changes = self.registry.changes_after(self.known_at).await.ok();
            self.followers.doubt(changes.as_deref());
            let last = changes.and_then(|changes| changes.last().map(|change| change.version));
            self.known_at = Stand { version: last.unwrap_or(seen.version), ..seen };
        }
        let begun = self.clock.monotonic();
        while self.clock.monotonic().saturating_sub(begun) < LOOKING_UP {
            let unknown = self.followers.unknown(BATCH);
            if unknown.is_empty() {
                return;
            }
            let now = self.clock.now();
            let mut answers = Vec::with_capacity(unknown.len());
            for peer in unknown {
                if self.clock.monotonic().saturating_sub(begun) >= LOOKING_UP {
                    return self.followers.known(answers);
                }
                match introspection::authenticate(&self.registry, &peer, now).await {
                    Ok(resource_server) => {
                        let server = Server::of(&resource_server, &peer);
                        answers.push((peer, server));
                    }
                    // Later: they are among those who do not say who they are until then.
                    Err(IntrospectionRefusal::StateUnknown) => return self.followers.known(answers),
                    Err(_) => answers.push((peer, None)),
                }
            }
            self.followers.known(answers);
        }
    }
}

/// Whether two summaries differ in nothing that a command waits for.
fn says_the_same(one: &Summary, other: &Summary) -> bool {
    (one.epoch, one.number, one.taken) == (other.epoch, other.number, other.taken)
        && one.heard == other.heard
        && one.behind.iter().map(|behind| &behind.id).eq(other.behind.iter().map(|behind| &behind.id))
}
