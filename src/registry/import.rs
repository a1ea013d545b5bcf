//! Many records entered at one moment: all of a file, or nothing.
//!
//! Takes [`Entry`]s in short transactions, each checked by the rules of a single change; what they enter is there for whoever
//! looks for conflicts and for nobody else, until [`ImportStore::publish`] makes all of it visible under one version. It knows
//! nothing of lines and files but their numbers and names.

use std::collections::HashSet;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use countersign_resource_server::time::UnixTime;
use serde::{Deserialize, Serialize};
use tokio::task::JoinHandle;

use super::certificate::{Certificate, RevocationReason};
use super::client::Client;
use super::edit::{EditRefusal, RecordKind};
use super::entitlement::Entitlement;
use super::history::{Actor, Explanation, Touched};
use super::participant::Participant;
use super::resource_server::ResourceServer;
use super::store::{Answer, StoreUnavailable};
use super::trust_anchor::{AnchorGrant, TrustAnchor};
use super::{KeyHash, ParticipantId, RegistryVersion};

/// How many participants that are in the registry already one import may concern: what rests on them is read anew by every node.
pub const CONCERNED: usize = 50_000;

/// One record to be entered.
#[derive(Clone, Debug)]
pub enum Entry {
    /// A trust anchor.
    Anchor {
        /// The anchor.
        anchor: TrustAnchor,
        /// The DER of its subject.
        subject_der: Vec<u8>,
    },
    /// A certificate of a client.
    Certificate(Box<Certificate>),
    /// A client, with the certificates it is known by from the start.
    Client(Box<Client>, Vec<Certificate>),
    /// What a client may use.
    Entitlement(Entitlement),
    /// What an anchor may vouch for.
    Grant(AnchorGrant),
    /// An organisation.
    Participant(Participant),
    /// An API.
    ResourceServer(ResourceServer),
    /// A key that no certificate of any client may have.
    RevokedKey(RevokedKey),
}

impl Entry {
    /// The record that it enters: its kind and its id.
    pub fn subject(&self) -> (RecordKind, String) {
        match self {
            Self::Anchor { anchor, .. } => (RecordKind::TrustAnchor, anchor.id.to_string()),
            Self::Certificate(certificate) => (RecordKind::Certificate, certificate.thumbprint.to_string()),
            Self::Client(client, _) => (RecordKind::Client, client.id.to_string()),
            Self::Entitlement(entitlement) => (RecordKind::Entitlement, entitlement.id.to_string()),
            Self::Grant(grant) => (RecordKind::AnchorGrant, format!("{} {}", grant.participant_id, grant.anchor_id)),
            Self::Participant(participant) => (RecordKind::Participant, participant.id.to_string()),
            Self::ResourceServer(server) => (RecordKind::ResourceServer, server.id.to_string()),
            Self::RevokedKey(key) => (RecordKind::Key, key.key_hash.to_string()),
        }
    }
}

/// A key that was revoked for every client.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RevokedKey {
    /// Which.
    pub key_hash: KeyHash,
    /// When.
    pub revoked_at: UnixTime,
    /// Why.
    pub reason: RevocationReason,
}

/// An entry, and the number of the line that it stands on.
#[derive(Clone, Debug)]
pub struct Numbered {
    /// Counted from 1.
    pub line: u64,
    /// What it enters.
    pub entry: Entry,
}

/// Names an import.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct ImportId(pub i64);

impl fmt::Display for ImportId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// An import under way, and the sign of life that it gave last. What was entered between two signs is there for as long as the
/// store has the later one: a database that lost a transaction has another (a fail-over, a restore).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Lease {
    /// Which import.
    pub import: ImportId,
    /// When others may take it for given up.
    pub until: UnixTime,
}

/// Who imports, and from where.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Origin {
    /// By whom: observed and stated, as in the history.
    pub actor: Actor,
    /// When it began.
    pub begun_at: UnixTime,
    /// The file, or `-`.
    pub file: String,
}

/// What an import has entered, as the history has it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Contents {
    /// The file, or `-`.
    pub file: String,
    /// The SHA-256 of all that was read, in hexadecimal.
    pub sha256: String,
    /// Lines that enter something.
    pub lines: u64,
    /// Participants.
    pub participants: u64,
    /// Trust anchors.
    pub anchors: u64,
    /// Grants of anchors.
    pub grants: u64,
    /// Resource servers.
    pub resource_servers: u64,
    /// Clients.
    pub clients: u64,
    /// Certificates.
    pub certificates: u64,
    /// Entitlements.
    pub entitlements: u64,
    /// Revoked keys.
    pub revoked_keys: u64,
}

impl Contents {
    /// Counts one entry.
    pub const fn count(&mut self, entry: &Entry) {
        match entry {
            Entry::Anchor { .. } => self.anchors += 1,
            Entry::Certificate(_) => self.certificates += 1,
            Entry::Client(_, certificates) => {
                self.clients += 1;
                self.certificates += certificates.len() as u64;
            }
            Entry::Entitlement(_) => self.entitlements += 1,
            Entry::Grant(_) => self.grants += 1,
            Entry::Participant(_) => self.participants += 1,
            Entry::ResourceServer(_) => self.resource_servers += 1,
            Entry::RevokedKey(_) => self.revoked_keys += 1,
        }
    }
}

/// An entry that was refused.
#[derive(Debug)]
pub struct Refused {
    /// The number of its line.
    pub line: u64,
    /// The record that it would have entered.
    pub subject: (RecordKind, String),
    /// Why.
    pub refusal: EditRefusal,
}

/// What came of some entries.
#[derive(Debug, Default)]
pub struct Staged {
    /// Those that were refused.
    pub refused: Vec<Refused>,
    /// What of the registry they concern that is there already, and which anchors they enter.
    pub concerns: HashSet<Touched>,
    /// The participant of one of the clients that were entered: whoever remembers that there is no such client goes by it.
    pub newcomer: Option<ParticipantId>,
}

/// Why an import does not go on.
#[derive(Clone, Debug, thiserror::Error)]
pub enum ImportRefusal {
    /// One at a time.
    #[error(
        "an import of {file} is under way, begun at {begun_at}: wait until it is done. One that was killed is given up {seconds} seconds after its last sign of life"
    )]
    AnotherUnderWay {
        /// Its file.
        file: String,
        /// When it began.
        begun_at: UnixTime,
        /// How long one is waited for.
        seconds: u64,
    },
    /// It concerns too much.
    #[error("it changes what more than {limit} participants may do that are registered already: import it in parts")]
    ConcernsTooMany {
        /// How many it may.
        limit: usize,
    },
    /// Somebody else has given it up.
    #[error(
        "this import was given up by another command or node, for it gave no sign of life for too long, or by a client that showed a certificate which is in it and was enrolled on first use: do it again"
    )]
    GivenUp,
    /// The database has lost some of it.
    #[error("the database has lost some of what was imported already, as in a fail-over: do it again")]
    Lost,
    /// A key was revoked meanwhile that one of its certificates has.
    #[error(
        "while it was under way a key was revoked that certificate {certificate} in it has: take that certificate out of the file"
    )]
    KeyRevoked {
        /// Which certificate.
        certificate: String,
    },
    /// The store did not answer.
    #[error(transparent)]
    Unavailable(#[from] StoreUnavailable),
}

/// Storage of imports.
pub trait ImportStore: fmt::Debug + Send + Sync + 'static {
    /// Begins an import, once nothing is left of one that was given up by `origin.begun_at`. Others may give this one up from
    /// `until` on.
    fn begin_import(&self, origin: Origin, until: UnixTime) -> Work<'_, Lease>;

    /// Enters some, in one short transaction, as far as the rules allow, where `lease` is what the store has. Where it
    /// succeeds, the lease is until `until`.
    fn stage(
        &self,
        lease: Lease,
        entries: Vec<Numbered>,
        explanation: Explanation,
        until: UnixTime,
    ) -> Work<'_, Staged>;

    /// Makes everything visible that the import has entered, under the next version, in one short transaction, where `lease`
    /// is what the store has.
    fn publish<'a>(
        &'a self,
        lease: Lease,
        contents: &'a Contents,
        concerns: HashSet<Touched>,
        explanation: Explanation,
    ) -> Work<'a, RegistryVersion>;

    /// Gives an import up. What it has entered is nobody's, and is removed by [`ImportStore::sweep_imports`]. One that is published
    /// stays so: gives the version under which it is in force.
    fn abandon(&self, import: ImportId) -> Work<'_, Option<RegistryVersion>>;

    /// The import that is under way, with its last sign of life.
    fn import_under_way(&self) -> Answer<'_, Option<Lease>>;

    /// Removes what imports have left that were given up, in short transactions, and gives up `silent` before, where that is still
    /// its last sign of life. Says whether there was something.
    fn sweep_imports(&self, silent: Option<Lease>) -> Answer<'_, bool>;
}

/// How often a node looks whether an import was given up. Whoever imports gives signs of life three times as often, at least.
const SWEPT_EVERY: Duration = Duration::from_secs(60);

/// Removes what killed imports have left, for as long as a node serves. One that gives no sign of life between two looks was
/// killed: no other machine's calendar is compared with this one's.
pub fn keep_swept(store: Arc<dyn ImportStore>) -> JoinHandle<()> {
    tokio::spawn(async move {
        let mut silent = None;
        loop {
            tokio::time::sleep(SWEPT_EVERY).await;
            match look(&*store, silent).await {
                Ok(under_way) => silent = under_way,
                Err(error) => {
                    silent = None;
                    tracing::debug!(%error, "whether an import was given up cannot be told");
                }
            }
        }
    })
}

/// Removes what was given up, `silent` too where it has been silent since the last look; gives what is under way now.
async fn look(store: &dyn ImportStore, silent: Option<Lease>) -> Result<Option<Lease>, StoreUnavailable> {
    if store.sweep_imports(silent).await? {
        tracing::warn!("what an import had left that was given up is removed");
    }
    store.import_under_way().await
}

/// What the store answers to whoever imports.
pub type Work<'a, T> = futures_util::future::BoxFuture<'a, Result<T, ImportRefusal>>;
