//! What backups ask of the store.

use std::fmt;

use countersign_resource_server::time::UnixTime;
use futures_util::future::BoxFuture;

use super::BackupFailure;
use super::format::{Cell, RegistryAt};
use super::restoration::{Restoration, Standing, TokensOfBefore};
use crate::registry::history::Explanation;
use crate::registry::{RegistryVersion, StoreUnavailable};

/// A store that can be copied and filled.
pub trait BackupStore: fmt::Debug + Send + Sync + 'static {
    /// The schema of this build, which it has.
    fn schema(&self) -> i64;

    /// Takes one consistent look at everything. Nobody who writes waits for it.
    fn snapshot(&self) -> BoxFuture<'_, Result<Box<dyn Snapshot>, StoreUnavailable>>;

    /// Notes that the store is being filled, so that nobody serves it as it is. One that was left half filled is emptied.
    ///
    /// # Errors
    /// [`BackupFailure::NotEmpty`] where anything else is in it.
    fn begin_to_load<'a>(&'a self, restoration: &'a Restoration) -> BoxFuture<'a, Result<(), BackupFailure>>;

    /// Fills the store, in one transaction.
    fn load(&self) -> BoxFuture<'_, Result<Box<dyn Loading>, StoreUnavailable>>;

    /// Empties a store again that was filled and is not to be used.
    fn clear(&self) -> BoxFuture<'_, Result<(), BackupFailure>>;

    /// The restoration that was loaded is all there and waits to be confirmed: puts it on record.
    fn finish<'a>(
        &'a self,
        restoration: &'a Restoration,
        statement: Option<String>,
        explanation: Explanation,
    ) -> BoxFuture<'a, Result<(), StoreUnavailable>>;

    /// Whether what is in the store may be served.
    fn standing(&self) -> BoxFuture<'_, Result<Standing, StoreUnavailable>>;

    /// Every restoration, oldest first.
    fn restorations(&self) -> BoxFuture<'_, Result<Vec<Restoration>, StoreUnavailable>>;

    /// Lets the store be served: puts the confirmation on record, and does with tokens of before as it says. The version
    /// it made; none where there was nothing to confirm.
    fn confirm(
        &self,
        tokens: TokensOfBefore,
        explanation: Explanation,
    ) -> BoxFuture<'_, Result<Option<RegistryVersion>, StoreUnavailable>>;
}

/// A store at one moment.
pub trait Snapshot: Send {
    /// How far it is. Before any part.
    fn summary(&mut self) -> BoxFuture<'_, Result<Summary, StoreUnavailable>>;

    /// The next part; none after the last.
    fn next(&mut self) -> BoxFuture<'_, Result<Option<Part>, StoreUnavailable>>;
}

/// How far a store is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Summary {
    /// Its schema.
    pub schema: i64,
    /// Its registry.
    pub registry: RegistryAt,
    /// Its audit log.
    pub log: String,
    /// That one's newest checkpoint.
    pub checkpoint: Option<(i64, UnixTime)>,
}

/// A piece of a store, in order: each table, then its rows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Part {
    /// These rows of the table that was named last.
    Rows(Vec<Vec<Cell>>),
    /// A table begins.
    Table {
        /// Its name.
        name: String,
        /// Its columns, in the order of its rows' values.
        columns: Vec<String>,
    },
}

/// A store while it is being filled. Dropped, it leaves nothing.
pub trait Loading: Send {
    /// Takes the next part in.
    fn take(&mut self, part: Part) -> BoxFuture<'_, Result<(), BackupFailure>>;

    /// Makes what was taken in last, as the beginning of the restoration's epoch: its first version, no lease of before,
    /// and every token of before dead.
    fn commit(self: Box<Self>, restoration: &Restoration) -> BoxFuture<'_, Result<(), BackupFailure>>;
}
