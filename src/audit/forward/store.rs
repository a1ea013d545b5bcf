//! What sending on asks of storage.

use std::fmt;

use countersign_resource_server::time::UnixTime;
use futures_util::future::BoxFuture;

use crate::audit::AuditEntry;
use crate::audit::chain::{Head, Position};
use crate::audit::checkpoint::StoredCheckpoint;
use crate::registry::StoreUnavailable;

/// How much is read at once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RunSize {
    /// How many records at most.
    pub records: usize,
    /// And how many octets of bodies, but for a single record that is longer.
    pub bytes: usize,
}

/// The right to send to a sink, until somebody has a later one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Turn {
    /// Which of the sink's turns: each is one more than the one before.
    pub lease: i64,
    /// The last record of each chain that was sent; of a chain that is not here, none.
    pub sent: Vec<Head>,
    /// The last checkpoint that was sent; 0 before the first.
    pub checkpoint: i64,
}

/// What a sink has not got yet.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Backlog {
    /// How many records.
    pub records: i64,
    /// When the oldest of them was decided.
    pub oldest: Option<UnixTime>,
}

/// Storage for how far each sink is, and the records it gets.
pub trait ForwardStore: fmt::Debug + Send + Sync + 'static {
    /// Takes the turn of `sink` for `holder` until `until`, unless somebody else has it at `now`.
    fn take_turn<'a>(
        &'a self,
        sink: &'a str,
        holder: &'a str,
        now: UnixTime,
        until: UnixTime,
    ) -> BoxFuture<'a, Result<Option<Turn>, StoreUnavailable>>;

    /// Keeps a turn until `until`, or gives it back where that is the past. Whether it was still the latest.
    fn keep_turn<'a>(
        &'a self,
        sink: &'a str,
        lease: i64,
        until: UnixTime,
    ) -> BoxFuture<'a, Result<bool, StoreUnavailable>>;

    /// Notes how far the sink is: the last record of these chains, and the last checkpoint if one was sent; unless somebody
    /// else has the turn now. Whether it was noted.
    fn note_sent<'a>(
        &'a self,
        sink: &'a str,
        lease: i64,
        sent: &'a [Head],
        checkpoint: Option<i64>,
    ) -> BoxFuture<'a, Result<bool, StoreUnavailable>>;

    /// Where each chain was cut, in order of the chains: number 0, and its first hash, where it was not.
    fn cuts(&self) -> BoxFuture<'_, Result<Vec<Head>, StoreUnavailable>>;

    /// The records of a chain in order, from this place on, the one there included.
    fn records_from(&self, first: Position, size: RunSize) -> BoxFuture<'_, Result<Vec<AuditEntry>, StoreUnavailable>>;

    /// The first checkpoint after the one of this number.
    fn checkpoint_after(&self, number: i64) -> BoxFuture<'_, Result<Option<StoredCheckpoint>, StoreUnavailable>>;

    /// What `sink` has not got yet, as far as is noted.
    fn backlog<'a>(&'a self, sink: &'a str) -> BoxFuture<'a, Result<Backlog, StoreUnavailable>>;
}
