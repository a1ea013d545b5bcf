//! What verification and export ask of the store.

use std::fmt;

use futures_util::future::BoxFuture;

use super::run::Run;
use crate::audit::chain::{ChainId, Head, LogId, Position};
use crate::audit::checkpoint::StoredCheckpoint;
use crate::audit::{HistoryPlace, HistoryRow};
use crate::registry::StoreUnavailable;

/// The log as it is stored, read in short statements: none keeps SQLite's WAL from being written back, nor PostgreSQL from
/// tidying up, however long the log is.
pub trait AuditReading: fmt::Debug + Send + Sync + 'static {
    /// Which log, what of the history is in it, and where each chain begins: in one look.
    fn outline(&self) -> BoxFuture<'_, Result<Outline, StoreUnavailable>>;

    /// Checkpoints after number `after`, in order.
    fn statements(&self, after: i64, limit: u32) -> BoxFuture<'_, Result<Vec<StoredCheckpoint>, StoreUnavailable>>;

    /// Records after `after`, up to and including `last`, in order. None are left out but for `limit`.
    fn run(&self, after: Position, last: Position, limit: u32) -> BoxFuture<'_, Result<Run, StoreUnavailable>>;

    /// The place of the last record of a chain.
    fn last(&self, chain: ChainId) -> BoxFuture<'_, Result<Option<Position>, StoreUnavailable>>;

    /// The first record between two places, neither of which counts.
    fn between(&self, after: i64, before: i64) -> BoxFuture<'_, Result<Option<i64>, StoreUnavailable>>;

    /// Rows of the registry's history after `after`, in order.
    fn history(&self, after: HistoryPlace, limit: u32) -> BoxFuture<'_, Result<Vec<HistoryRow>, StoreUnavailable>>;

    /// Moves a chain's cut from one record to a later one and removes what is before, in one transaction; at most `limit`
    /// records. Gives the new cut; none where the chain was cut by somebody else meanwhile.
    fn cut(&self, from: Head, to: Position, limit: u32) -> BoxFuture<'_, Result<Option<Head>, StoreUnavailable>>;

    /// What restores say of the log, as they signed it.
    fn restored(&self) -> BoxFuture<'_, Result<Vec<String>, StoreUnavailable>>;

    /// Removes the checkpoints before number `before`.
    fn forget_statements(&self, before: i64) -> BoxFuture<'_, Result<(), StoreUnavailable>>;
}

/// What a log consists of.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Outline {
    /// Which log.
    pub log: LogId,
    /// The last row of the history that is in a chain.
    pub history: HistoryPlace,
    /// Where each chain was cut, in order: number 0 and its first hash where it was not. As it is stored, whatever that is.
    pub cuts: Vec<(i64, i64, Vec<u8>)>,
}

impl Outline {
    /// The chains that can be ones, and their cuts.
    pub(in crate::audit) fn chains(&self) -> impl Iterator<Item = (ChainId, Option<Head>)> {
        self.cuts.iter().filter_map(|(chain, sequence, hash)| {
            let chain = ChainId::new(*chain)?;
            let hash = crate::audit::chain::RecordHash::from_octets(hash);
            let position = Position::of(chain, *sequence);
            Some((chain, position.zip(hash).map(|(position, hash)| Head { position, hash })))
        })
    }
}
