//! What the registry asks of storage.
//!
//! Takes questions and [`Edit`]s, gives records and versions; each method is one transaction, and none leaves the store.
//! It knows nothing of which engine answers: both pass one contract suite.

use std::fmt;
use std::sync::Arc;

use countersign_resource_server::time::UnixTime;
use futures_util::future::BoxFuture;

use super::certificate::Certificate;
use super::client::SubjectAttribute;
use super::edit::{Applied, Edit, EditRefusal};
use super::history::{Change, Explanation, HistoryEntry};
use super::resource_server::Asker;
use super::{ClientId, ClientRecord, KeyHash, Page, RegistryVersion, RevocationState, Selection, Sighting, Thumbprint};

/// Storage of the registry.
pub trait RegistryStore: fmt::Debug + Send + Sync + 'static {
    /// Where the registry stands.
    fn head(&self) -> Answer<'_, Head>;

    /// Everything a decision about `client` rests on, and where the registry stood when it was read.
    fn client_record<'a>(&'a self, client: &'a ClientId) -> Answer<'a, (Head, Option<ClientRecord>)>;

    /// The changes of the first `reach` versions after `version`, in order, and where the registry stood when they were read.
    fn changes_since(&self, version: RegistryVersion, reach: u32) -> Answer<'_, Since>;

    /// Makes one change: its rows, its history, the next version, what it touches and what it revokes, or nothing at all.
    fn apply(&self, edit: Edit, explanation: Explanation) -> BoxFuture<'_, Result<Applied, EditRefusal>>;

    /// Puts a certificate that just authenticated on record. Nothing is written, and no version taken, where it already is.
    fn sighted<'a>(
        &'a self,
        client: &'a ClientId,
        sighting: &'a Sighting,
        explanation: Explanation,
    ) -> BoxFuture<'a, Result<Applied, EditRefusal>>;

    /// The certificate as [`RegistryStore::sighted`] would put it on record at `now`; none, where it would leave all as it
    /// is. Writes nothing and takes no lock.
    fn would_be_sighted<'a>(
        &'a self,
        client: &'a ClientId,
        sighting: &'a Sighting,
        now: UnixTime,
    ) -> BoxFuture<'a, Result<Option<Certificate>, EditRefusal>>;

    /// Notes when certificates were last seen; takes no version.
    fn touch_last_seen(&self, seen: Vec<(Thumbprint, UnixTime)>) -> Answer<'_, ()>;

    /// Records of one kind, in order of their ids.
    fn list(&self, selection: Selection, page: Page) -> Answer<'_, Vec<Document>>;

    /// Thumbprint and serial number of the certificates that `issuer_key` issued and that are not revoked, in order of the
    /// latter and after the one that is `after`.
    fn live_serials<'a>(
        &'a self,
        issuer_key: &'a KeyHash,
        after: String,
        limit: u32,
    ) -> Answer<'a, Vec<(Thumbprint, String)>>;

    /// The certificate that `issuer_key` issued under this serial number, whatever state it is in.
    fn certificate_of<'a>(&'a self, issuer_key: &'a KeyHash, serial: &'a str) -> Answer<'a, Option<Thumbprint>>;

    /// Whether a certificate maps to anybody: enrolled and not revoked itself, a resource server's, or one of `names` is
    /// the rule of an active resource server or of an active client that enrols on first use.
    fn knows<'a>(&'a self, thumbprint: &'a Thumbprint, names: &'a [(SubjectAttribute, String)]) -> Answer<'a, bool>;

    /// The history after `since`, oldest first, of one subject or of all.
    fn history(&self, since: RegistryVersion, subject: Option<String>, limit: u32) -> Answer<'_, Vec<HistoryEntry>>;

    /// From when a node has served this epoch, by that node's clock, where it began with a restore and one has.
    fn served_from(&self, epoch: i64) -> Answer<'_, Option<UnixTime>>;

    /// The marks not yet to be forgotten at `now`.
    fn marks(&self, now: UnixTime) -> Answer<'_, RevocationState>;

    /// Whose the certificate with this thumbprint and this key is, where somebody asks about a token with it.
    fn asker<'a>(&'a self, thumbprint: &'a Thumbprint, key: &'a KeyHash) -> Answer<'a, Asker>;

    /// How many tokens `client` has had revoked that would be live otherwise.
    fn revoked_tokens<'a>(&'a self, client: &'a ClientId, now: UnixTime) -> Answer<'a, usize>;

    /// A source of hints that somebody may have changed the registry.
    fn watch(&self) -> Box<dyn Watch>;
}

/// Hints that the registry may have changed. A hint may be wrong; silence is never longer than the engine's poll.
pub trait Watch: fmt::Debug + Send + 'static {
    /// Resolves when it is time to look.
    ///
    /// # Errors
    /// [`StoreUnavailable`] if the store cannot be asked; the next call tries again.
    fn changed(&mut self) -> Answer<'_, ()>;
}

/// What the store answers, once it does.
pub type Answer<'a, T> = BoxFuture<'a, Result<T, StoreUnavailable>>;

/// Where the registry stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Head {
    /// Which of its pasts it stands in: versions of different ones do not compare.
    pub past: Past,
    /// How many changes it has seen.
    pub version: RegistryVersion,
}

/// What tells the registry's pasts apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Past {
    /// Grows with a restore.
    pub epoch: i64,
    /// The database's process: another one after each fail-over, whether or not that lost changes. The same for a file.
    pub server: i64,
}

/// What has happened since a version, read at one moment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Since {
    /// Where the registry stood.
    pub head: Head,
    /// What made the version that was asked about.
    pub since: Origin,
    /// What made the version of `head`.
    pub newest: Origin,
    /// The changes after the former, in order.
    pub changes: Vec<Change>,
}

/// What made a version: when, what, and whose, for a database that is put back while one and the same process serves it: others have
/// the numbers of what was lost, and no two are made alike. Empty where nothing is on record.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Origin(pub String);

/// A record as it is kept.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Document {
    /// The record, as JSON.
    pub record: String,
    /// For a certificate: when it was last seen.
    pub last_seen: Option<UnixTime>,
}

/// The store did not answer, or holds something that cannot be read. Opaque: nobody decides by what went wrong.
#[derive(Clone, Debug, thiserror::Error)]
#[error("the store did not answer: {0}")]
pub struct StoreUnavailable(Arc<str>);

impl StoreUnavailable {
    /// Unavailable for this reason, told to whoever reads the log.
    pub fn because(reason: impl fmt::Display) -> Self {
        Self(reason.to_string().into())
    }
}
