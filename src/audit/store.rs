//! What the log asks of storage and of the registry.

use std::fmt;
use std::sync::Arc;

use countersign_resource_server::time::UnixTime;
use futures_util::future::BoxFuture;

use super::RequestId;
use super::chain::{ChainId, Head, Position, RecordHash};
use super::index::Term;
use crate::registry::history::Change;
use crate::registry::{ClientId, Registry, RegistryVersion, StoreUnavailable};

/// Storage for the records of all chains. A method that fails may have done its work all the same.
pub trait AuditStore: fmt::Debug + Send + Sync + 'static {
    /// Leases a chain that nobody writes at `now`, or a new one, to `holder` until `until`. Whoever held it before can write
    /// nothing more, whatever is still under way.
    fn lease<'a>(
        &'a self,
        holder: &'a str,
        now: UnixTime,
        until: UnixTime,
    ) -> BoxFuture<'a, Result<Lease, StoreUnavailable>>;

    /// Whether decisions may be put on record at all: not in a store that was restored and waits to be confirmed, nor in one
    /// that is behind what was `known` of it, for another one was put in its place.
    fn may_serve(&self, known: RegistryVersion) -> BoxFuture<'_, Result<(), StoreUnavailable>>;

    /// Keeps a lease until `until`, or gives it back where that is the past. Whether it was still the chain's latest, and may be
    /// kept.
    fn renew(&self, chain: ChainId, lease: i64, until: UnixTime) -> BoxFuture<'_, Result<bool, StoreUnavailable>>;

    /// Notes, before a lease until `until` is taken or kept, that tokens may be issued as long as that: by the clock of a
    /// node that serves, for those who end tokens by another. A command notes nothing. The first of all after a restore
    /// lengthens the marks made since. Gives the latest end that was ever noted.
    fn serves_until(&self, now: UnixTime, until: UnixTime) -> BoxFuture<'_, Result<UnixTime, StoreUnavailable>>;

    /// Takes the same chain under a new lease after a failure, so that nothing of before can still be written, and says
    /// whether `doubt` was.
    fn recover(&self, doubt: Arc<Batch>) -> BoxFuture<'_, Result<Recovered, StoreUnavailable>>;

    /// Writes a batch in one transaction: the assertions it uses first, then each entry under the body that follows from
    /// it. Reads the registry's version so late that a change acknowledged before the answer leaves is seen.
    fn append(&self, batch: Arc<Batch>) -> BoxFuture<'static, Result<Appended, AppendRefusal>>;

    /// The rows of the registry's history that are in no chain yet, oldest first.
    fn history_left(&self, limit: u32) -> BoxFuture<'_, Result<HistoryLeft, StoreUnavailable>>;

    /// Forgets used assertions that expired before `before`: they are refused by their date.
    fn forget_assertions(&self, before: UnixTime) -> BoxFuture<'_, Result<(), StoreUnavailable>>;

    /// The latest records of all chains, newest first.
    fn recent(&self, limit: u32) -> BoxFuture<'_, Result<Vec<AuditEntry>, StoreUnavailable>>;

    /// The records that name a request, in order of time.
    fn of_request<'a>(&'a self, request: &'a RequestId) -> BoxFuture<'a, Result<Vec<AuditEntry>, StoreUnavailable>>;
}

/// What the registry has changed, for the fence.
pub trait ChangeFeed: fmt::Debug + Send + Sync + 'static {
    /// Every change after `version`.
    fn changes_since(&self, version: RegistryVersion) -> BoxFuture<'_, Result<Vec<Change>, StoreUnavailable>>;
}

/// The right to write one chain, until somebody has a later one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Lease {
    /// Which of the chain's leases: each is one more than the one before.
    pub number: i64,
    /// Where the chain is.
    pub head: Head,
}

/// What was learned after a failure.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Recovered {
    /// The new lease; none where somebody else has the chain.
    pub lease: Option<Lease>,
    /// Whether the batch in doubt is on record.
    pub is_written: bool,
}

/// Why a batch was not written.
#[derive(Debug, thiserror::Error)]
pub enum AppendRefusal {
    /// Somebody else has the chain: nothing was written.
    #[error("the lease of the chain is no longer the latest")]
    LeaseLost,
    /// Somebody else has put that part of the history in a chain: nothing was written.
    #[error("that part of the history is in a chain already")]
    HistoryTaken,
    /// The store failed: it may have been written.
    #[error(transparent)]
    Unavailable(#[from] StoreUnavailable),
}

/// A row of the registry's history by its number: version, and step within it.
pub type HistoryPlace = (i64, i64);

/// What of the history is in no chain yet.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct HistoryLeft {
    /// The last row that is.
    pub after: HistoryPlace,
    /// The next rows.
    pub rows: Vec<HistoryRow>,
}

/// One row of the registry's history, the records in it as the text they are stored as.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HistoryRow {
    /// Its number.
    pub place: HistoryPlace,
    /// When.
    pub at: UnixTime,
    /// Who, as JSON.
    pub actor: String,
    /// What was done.
    pub action: String,
    /// To which record.
    pub subject: String,
    /// The record before, as JSON.
    pub before: Option<String>,
    /// And after.
    pub after: Option<String>,
    /// Why.
    pub why: Option<String>,
}

/// What shares one commit.
#[derive(Debug)]
pub struct Batch {
    /// Under which lease.
    pub lease: Lease,
    /// In the order they are numbered, the first after the lease's head.
    pub entries: Vec<Entry>,
    /// Assertions whose decision was withheld and is taken again: they count as unused.
    pub given_back: Vec<AssertionUse>,
    /// The part of the history that the entries are: after which row, and up to which.
    pub history: Option<(HistoryPlace, HistoryPlace)>,
}

/// A record as it is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sealed<'a> {
    /// Its place and its hash.
    pub head: Head,
    /// When it was decided.
    pub at: UnixTime,
    /// JSON.
    pub body: &'a str,
}

impl Batch {
    /// The records to write, now that it is known which entries use an assertion that had been used before; none where the
    /// chain is full.
    pub fn sealed(&self, replayed: &[usize]) -> Option<Vec<Sealed<'_>>> {
        let mut sealed = Vec::with_capacity(self.entries.len());
        let mut head = self.lease.head;
        for (at, body, _) in self.records(replayed) {
            head = head.followed_by(at, body)?;
            sealed.push(Sealed { head, at, body });
        }
        Some(sealed)
    }

    /// What each record says, with its instant, and its terms where they are known.
    pub fn records<'a>(&'a self, replayed: &[usize]) -> impl Iterator<Item = (UnixTime, &'a str, Option<&'a [Term]>)> {
        self.entries.iter().enumerate().map(move |(index, entry)| match &entry.assertion {
            Some((_, if_replayed)) if replayed.binary_search(&index).is_ok() => (entry.at, if_replayed.as_str(), None),
            _ => (entry.at, entry.body.as_str(), entry.terms.as_deref()),
        })
    }

    /// Whether a record with this body may be the first of this batch.
    pub fn may_begin_with(&self, body: &str) -> bool {
        let first = self.entries.first();
        first.is_some_and(|first| {
            first.body == body || first.assertion.as_ref().is_some_and(|(_, if_replayed)| if_replayed == body)
        })
    }
}

/// One record to write.
#[derive(Debug)]
pub struct Entry {
    /// When it was decided.
    pub at: UnixTime,
    /// JSON.
    pub body: String,
    /// What it has rows of in the index, where that is known without reading the body.
    pub terms: Option<Vec<Term>>,
    /// The assertion it uses up, with the body to write instead if that was used before.
    pub assertion: Option<(AssertionUse, String)>,
}

impl Entry {
    /// A record that says `body`, and uses nothing up.
    pub const fn new(at: UnixTime, body: String) -> Self {
        Self { at, body, terms: None, assertion: None }
    }
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
    /// Where the chain is now.
    pub head: Head,
}

/// One record as it was written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AuditEntry {
    /// Its chain and its number in it.
    pub position: Position,
    /// When it was decided.
    pub at: UnixTime,
    /// The hash of it and all before it in its chain.
    pub hash: RecordHash,
    /// JSON.
    pub body: String,
}

impl ChangeFeed for Registry {
    fn changes_since(&self, version: RegistryVersion) -> BoxFuture<'_, Result<Vec<Change>, StoreUnavailable>> {
        Box::pin(self.changes_since(version))
    }
}
