//! What the log asks of storage and of the registry.

use std::fmt;
use std::sync::Arc;

use countersign_resource_server::time::UnixTime;
use futures_util::future::BoxFuture;

use super::RequestId;
use crate::registry::history::Change;
use crate::registry::{ClientId, Registry, RegistryVersion, StoreUnavailable};

/// Storage for the records of all writers. A method that fails may have done its work all the same.
pub trait AuditStore: fmt::Debug + Send + Sync + 'static {
    /// A writer's id that no other process, nor an earlier start of this one, ever had.
    fn lease_writer<'a>(&'a self, node: &'a str) -> BoxFuture<'a, Result<String, StoreUnavailable>>;

    /// Writes a batch in one transaction: the assertions it uses first, then each entry under the body that follows from
    /// it. Reads the registry's version so late that a change acknowledged before the answer leaves is seen.
    fn append(&self, batch: Arc<Batch>) -> BoxFuture<'static, Result<Appended, StoreUnavailable>>;

    /// The last sequence number on record for a writer; none before its first.
    fn last_sequence<'a>(&'a self, writer: &'a str) -> BoxFuture<'a, Result<Option<i64>, StoreUnavailable>>;

    /// Forgets used assertions that expired before `before`: they are refused by their date.
    fn forget_assertions(&self, before: UnixTime) -> BoxFuture<'_, Result<(), StoreUnavailable>>;

    /// The latest records of all writers, newest first.
    fn recent(&self, limit: u32) -> BoxFuture<'_, Result<Vec<AuditEntry>, StoreUnavailable>>;

    /// The records that name a request, in the order they were written.
    fn of_request<'a>(&'a self, request: &'a RequestId) -> BoxFuture<'a, Result<Vec<AuditEntry>, StoreUnavailable>>;
}

/// What the registry has changed, for the fence.
pub trait ChangeFeed: fmt::Debug + Send + Sync + 'static {
    /// Every change after `version`.
    fn changes_since(&self, version: RegistryVersion) -> BoxFuture<'_, Result<Vec<Change>, StoreUnavailable>>;
}

/// What shares one commit.
#[derive(Debug)]
pub struct Batch {
    /// Who writes.
    pub writer: Arc<str>,
    /// The number of the first entry; the others follow without a gap.
    pub first_sequence: i64,
    /// In the order they are numbered.
    pub entries: Vec<Entry>,
    /// Assertions whose decision was withheld and is taken again: they count as unused.
    pub given_back: Vec<AssertionUse>,
}

/// One record to write.
#[derive(Debug)]
pub struct Entry {
    /// When it was decided.
    pub at: UnixTime,
    /// JSON.
    pub body: String,
    /// The assertion it uses up, with the body to write instead if that was used before.
    pub assertion: Option<(AssertionUse, String)>,
}

/// One use of an assertion (RFC 7523 §3, item 7): a client, and a `jti` of its own choice.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct AssertionUse {
    /// Whose assertion.
    pub client_id: ClientId,
    /// Its `jti`.
    pub jti: String,
    /// When it is refused by its date, leeway included.
    pub expires_at: UnixTime,
}

/// What became of a batch.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Appended {
    /// Which entries (by index) used an assertion that had been used before.
    pub replayed: Vec<usize>,
    /// The registry's version, read with the commit.
    pub version: RegistryVersion,
}

/// One record as it was written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AuditEntry {
    /// Who wrote it.
    pub writer: String,
    /// Its number among the writer's.
    pub sequence: i64,
    /// When it was decided.
    pub at: UnixTime,
    /// JSON.
    pub body: String,
}

impl ChangeFeed for Registry {
    fn changes_since(&self, version: RegistryVersion) -> BoxFuture<'_, Result<Vec<Change>, StoreUnavailable>> {
        Box::pin(self.changes_since(version))
    }
}
