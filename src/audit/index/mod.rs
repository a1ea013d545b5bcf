//! By what a record is found: an index that follows behind the log.
//!
//! Takes records as they become durable, gives the places of those that name a certificate, a client, a token. Nobody waits
//! for it and nothing rests on it: what it leads to is read from the log and looked at there, what it has not reached
//! yet is read from the log too, and it is built again wherever it is missing, damaged or another log's. It knows nothing
//! of who asks.

/// What a record can be found by.
mod terms;

/// Which of that has rows, and how the rest is found by them.
mod ways;

/// The task that keeps up.
mod keeper;

pub use keeper::{catch_up, keep};
pub(in crate::audit) use terms::Facts;
pub use terms::{Named, Term, TermKind};
pub(in crate::audit) use ways::ways;
pub use ways::{KINDS, Way};

use std::fmt;
use std::ops::Range;

use countersign_resource_server::time::UnixTime;
use futures_util::future::BoxFuture;

use super::chain::{ChainId, Position};
use super::store::AuditEntry;
use crate::registry::StoreUnavailable;

/// Storage for the index, beside the records. Several may write it at once: each stretch of the log is the work of one.
pub trait AuditIndex: fmt::Debug + Send + Sync + 'static {
    /// How far the log is, and how far the index is. One that belongs to another log, or to another past of this one, is
    /// nowhere.
    fn standing(&self) -> BoxFuture<'_, Result<Standing, StoreUnavailable>>;

    /// Looks through what this process has just appended to the log, if it keeps that for the index: the sooner, the less
    /// memory it takes.
    fn look_through(&self);

    /// Brings some `limit` records more into the index.
    fn advance(&self, limit: usize) -> BoxFuture<'_, Result<Advanced, StoreUnavailable>>;

    /// Looks at `limit` rows of the index and removes those whose records are removed. Whether there may be more.
    fn sweep(&self, limit: u32) -> BoxFuture<'_, Result<bool, StoreUnavailable>>;

    /// About how many records a term leads to in a span, but no more than `most`.
    fn count(&self, term: Term, span: Range<UnixTime>, most: u32) -> BoxFuture<'_, Result<u32, StoreUnavailable>>;

    /// Looks at some `limit` places that the first of `terms` leads to, or fewer, after `after` and before `until`. Gives those that
    /// all lead to, in order of time, and how far it has looked.
    fn places<'a>(
        &'a self,
        terms: &'a [Term],
        after: Place,
        until: UnixTime,
        limit: u32,
    ) -> BoxFuture<'a, Result<Seen, StoreUnavailable>>;

    /// The records at these places, in the order of their positions. A place whose record is removed, or is none, gives none.
    fn records<'a>(&'a self, positions: &'a [Position]) -> BoxFuture<'a, Result<Vec<AuditEntry>, StoreUnavailable>>;

    /// The records of a chain after one place and up to another, in order, and the last place that was read: none where
    /// there are no more. What is no record is left out.
    fn stretch(&self, after: Position, to: Position, limit: u32) -> BoxFuture<'_, Result<Stretch, StoreUnavailable>>;
}

/// Records one after the other, and the place up to which they were read.
pub type Stretch = (Vec<AuditEntry>, Option<Position>);

/// Places, and the one up to which there are no others: none where there are no others at all.
pub type Seen = (Vec<Place>, Option<Place>);

/// Where a record is, and when it was decided: what stories are ordered by.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Place {
    /// When.
    pub at: UnixTime,
    /// Where, as a number; 0 is before all that are.
    pub position: i64,
}

impl Place {
    /// Before every record that was decided at `at`.
    pub const fn before(at: UnixTime) -> Self {
        Self { at, position: 0 }
    }
}

impl AuditEntry {
    /// Where it stands in a story.
    pub const fn place(&self) -> Place {
        Place { at: self.at, position: self.position.number() }
    }
}

/// How far the log and the index are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Standing {
    /// Which index this is. It changes when one is thrown away, so that nobody takes half of his answer from one and half
    /// from the next.
    pub index: String,
    /// Every chain of the log, in order.
    pub chains: Vec<ChainStanding>,
    /// Whether the index has rows of removed records.
    pub has_removed: bool,
}

impl Standing {
    /// How many records the index has not reached.
    pub fn behind(&self) -> i64 {
        self.chains.iter().map(|chain| chain.last.sequence() - chain.indexed.sequence()).sum()
    }

    /// Whether the index has reached this place.
    pub fn is_indexed(&self, position: Position) -> bool {
        let chain = self.chains.iter().find(|chain| chain.id == position.chain());
        chain.is_some_and(|chain| position <= chain.indexed)
    }
}

/// How far one chain is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ChainStanding {
    /// Which.
    pub id: ChainId,
    /// The last record that is in the index, or removed.
    pub indexed: Position,
    /// The last record.
    pub last: Position,
}

/// What an advance came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Advanced {
    /// Somebody else is at it.
    Busy,
    /// So many records are in the index that were not before.
    By(usize),
    /// It was another log's, another past's or damaged, and begins anew.
    Emptied,
}
