//! Who has taken the revocation list?
//!
//! Takes the questions for it, each of which says what list its asker holds, gives a [`Summary`] that every command can read.
//! Whoever asks with a resource server's own certificate speaks for that resource server, and can lie of no other; the rest
//! are counted. Nobody waits for it: whose a certificate is is looked up behind the answer. It decides nothing.

/// What it asks of storage.
pub mod store;

/// Waiting until a list has been taken.
pub mod spread;

/// The task that looks up, counts and writes down.
mod keeper;

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::Duration;

use countersign_resource_server::time::{Clock, UnixTime};

use crate::mint::random_octets;
use crate::pki::PresentedChain;
use crate::registry::history::{Change, Touched};
use crate::registry::resource_server::ResourceServer;
use crate::registry::{KeyHash, ResourceServerId};
use crate::status::ListVersion;
use store::{Behind, Heard, Summary};

/// How many connections are followed; those of strangers count as well, and are fewer than the listeners let in.
const MOST: usize = 16_384;

/// How many of one resource server; the next one is one of those who do not say who they are.
const MOST_OF_ONE: usize = 64;

/// How many that are behind are named.
const MOST_NAMED: usize = 64;

/// Whoever says nothing for so long is forgotten: a question is held for ten seconds at most.
pub const FORGOTTEN_AFTER: Duration = Duration::from_secs(60);

/// Those who follow the list of this node.
#[derive(Debug)]
pub struct Followers {
    /// Names this run among the nodes' rows.
    id: String,
    clock: Arc<dyn Clock>,
    /// By the address of what their connection presented, which is taken as long as the entry is there.
    table: Mutex<HashMap<usize, Follower>>,
}

/// One connection on which the list was asked for.
#[derive(Debug)]
struct Follower {
    connection: Weak<PresentedChain>,
    who: Who,
    /// The version it said it holds.
    said: (i64, i64),
    /// When it said so, by the monotonic clock.
    heard: Duration,
}

/// Whose connection it is.
#[derive(Clone, Debug)]
enum Who {
    /// Not looked up yet.
    Unknown,
    /// Nobody's that would be a resource server's.
    Other,
    /// A resource server's.
    Server(Arc<Server>),
}

/// A resource server, by a certificate of its own.
#[derive(Debug)]
struct Server {
    id: ResourceServerId,
    resource: String,
    key: KeyHash,
    /// When that certificate is no longer good.
    until: UnixTime,
}

impl Server {
    /// The one whose certificate this is, if it has one.
    fn of(resource_server: &ResourceServer, peer: &PresentedChain) -> Option<Self> {
        let leaf = peer.leaf()?;
        Some(Self {
            id: resource_server.id.clone(),
            resource: resource_server.resource.to_string(),
            key: *leaf.key_hash(),
            // RFC 5280 §4.1.2.5: the second of notAfter is the last that it is good in.
            until: leaf.not_after().after(Duration::from_secs(1)),
        })
    }
}

impl Follower {
    fn server(&self) -> Option<&Arc<Server>> {
        match &self.who {
            Who::Server(server) => Some(server),
            Who::Other | Who::Unknown => None,
        }
    }

    fn is_connected(&self) -> bool {
        self.connection.strong_count() > 0
    }
}

impl Followers {
    /// Nobody so far.
    pub fn new(clock: Arc<dyn Clock>) -> Self {
        Self { id: hex::encode(random_octets::<16>()), clock, table: Mutex::default() }
    }

    /// What this run is called in the store.
    pub fn id(&self) -> &str {
        &self.id
    }

    /// Whoever is connected as `peer` asks for the list, and says which it holds.
    pub fn asked(&self, peer: &Arc<PresentedChain>, said: (i64, i64)) {
        let heard = self.clock.monotonic();
        let mut table = self.table.lock().unwrap_or_else(PoisonError::into_inner);
        let has_room = table.len() < MOST;
        match table.get_mut(&Arc::as_ptr(peer).addr()) {
            Some(follower) => (follower.said, follower.heard) = (said, heard),
            None if has_room => {
                let who = if peer.certificates().is_empty() { Who::Other } else { Who::Unknown };
                let follower = Follower { connection: Arc::downgrade(peer), who, said, heard };
                table.insert(Arc::as_ptr(peer).addr(), follower);
            }
            None => {}
        }
    }

    /// Some connections of which it is not known whose they are.
    fn unknown(&self, limit: usize) -> Vec<Arc<PresentedChain>> {
        let table = self.table.lock().unwrap_or_else(PoisonError::into_inner);
        let unknown = table.values().filter(|follower| matches!(follower.who, Who::Unknown));
        unknown.filter_map(|follower| follower.connection.upgrade()).take(limit).collect()
    }

    /// Whose these connections are.
    fn known(&self, answers: Vec<(Arc<PresentedChain>, Option<Server>)>) {
        let mut table = self.table.lock().unwrap_or_else(PoisonError::into_inner);
        // Of each resource server: how many connections, and of those that are gone the one that was heard of last.
        let mut held: HashMap<ResourceServerId, (usize, Vec<(Duration, usize)>)> = HashMap::new();
        for (key, follower) in &*table {
            if let Some(server) = follower.server() {
                let (count, gone) = held.entry(server.id.clone()).or_default();
                *count += 1;
                if !follower.is_connected() {
                    gone.push((follower.heard, *key));
                }
            }
        }
        held.values_mut().for_each(|(_, gone)| gone.sort_unstable());
        for (peer, server) in answers {
            let Some(follower) = table.get_mut(&Arc::as_ptr(&peer).addr()) else { continue };
            let Some(server) = server else {
                follower.who = Who::Other;
                continue;
            };
            let (count, gone) = held.entry(server.id.clone()).or_default();
            if *count < MOST_OF_ONE || !gone.is_empty() {
                follower.who = Who::Server(Arc::new(server));
                *count += 1;
                // Whoever has lost its connection makes another, and that takes the place of the one that is gone.
                if let Some((_, key)) = gone.pop() {
                    table.remove(&key);
                    *count -= 1;
                }
            } else {
                follower.who = Who::Other;
            }
        }
    }

    /// After these changes, or after any where it is not known which, whose a connection is is looked up again where it may
    /// be another's now.
    fn doubt(&self, changes: Option<&[Change]>) {
        let touches = |who: &Who| {
            let Some(changes) = changes else { return true };
            changes.iter().any(|change| match (&change.touched, who) {
                (Touched::ResourceServer(id), Who::Server(server)) => *id == server.id,
                // It may have got this certificate just now.
                (Touched::ResourceServer(_), Who::Other) => true,
                (Touched::Key(key), Who::Server(server)) => *key == server.key,
                _ => false,
            })
        };
        let mut table = self.table.lock().unwrap_or_else(PoisonError::into_inner);
        for follower in table.values_mut() {
            let has_certificate = follower.connection.upgrade().is_some_and(|peer| !peer.certificates().is_empty());
            if has_certificate && touches(&follower.who) {
                follower.who = Who::Unknown;
            }
        }
        // What is gone cannot be looked up again.
        table.retain(|_, follower| follower.is_connected() || !touches(&follower.who));
    }

    /// Who has the list of this version at `now`, and who has not. Forgets who is gone.
    fn summary(&self, list: ListVersion, now: UnixTime) -> Summary {
        /// One resource server.
        struct One {
            server: Arc<Server>,
            /// Since when one of its connections is behind.
            behind: Option<Duration>,
        }
        let monotonic = self.clock.monotonic();
        let silent = |heard: Duration| monotonic.saturating_sub(heard);
        let mut table = self.table.lock().unwrap_or_else(PoisonError::into_inner);
        table.retain(|_, follower| {
            // A resource server whose connection is gone is behind until it makes another.
            let may_come_back = follower.is_connected() || follower.server().is_some();
            may_come_back && silent(follower.heard) < FORGOTTEN_AFTER
        });
        let mut servers: BTreeMap<&ResourceServerId, One> = BTreeMap::new();
        let mut others = 0;
        for follower in table.values() {
            let Some(server) = follower.server().filter(|server| now < server.until) else {
                others += 1;
                continue;
            };
            let one = servers.entry(&server.id).or_insert_with(|| One { server: Arc::clone(server), behind: None });
            if !list.is_held_by(follower.said) {
                one.behind = one.behind.max(Some(silent(follower.heard)));
            }
        }
        let mut heard: Vec<Heard> = servers.values().map(|one| Heard::of(&one.server.resource)).collect();
        heard.sort_unstable();
        let behind = servers.values().filter_map(|one| Some((&one.server, one.behind?)));
        Summary {
            epoch: list.epoch,
            number: list.number,
            taken: servers.len() - behind.clone().count(),
            behind: behind
                .take(MOST_NAMED)
                .map(|(server, silent)| Behind {
                    id: server.id.to_string(),
                    resource: server.resource.clone(),
                    silent_seconds: silent.as_secs(),
                })
                .collect(),
            heard,
            others,
        }
    }
}

#[cfg(test)]
mod tests;
