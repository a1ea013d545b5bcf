//! What a restore says of the log: up to where it goes on, and what of it was lost.
//!
//! Takes the signed statement (compact JWS) that every restore leaves in the store, says whether a copy of a checkpoint
//! that is not in the log is of what was lost then. It is signed with the keys of checkpoints: whoever puts an older file
//! in the place of the store can make none, and one of an earlier restore excuses nothing that came after that. One that
//! was made where a restore was tried out names an epoch that this log does not know.

use countersign_resource_server::time::UnixTime;
use countersign_resource_server::token::jws::{self, Expectation, KeyChoice, SigningAlgorithm, Untyped};
use serde::{Deserialize, Serialize};

use super::believed::{BelievedKeys, Withdrawal};
use super::checkpoint::Checkpoint;
use super::{HistoryPlace, HistoryRow};

/// The `typ` of such a statement: it can be taken for no token.
pub const RESTORED_TYPE: &str = "countersign-audit-restored+jwt";

/// The longest that is read.
const MAX_BYTES: usize = 2 * 1024 * 1024;

/// What was restored, as far as the log is concerned.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RestoredLog {
    /// Who states it.
    pub iss: String,
    /// Of which log.
    pub log: String,
    /// When it was restored.
    pub at: UnixTime,
    /// By whom: observed and stated, as in the history.
    pub by: String,
    /// The epoch that the registry began with it.
    pub epoch: i64,
    /// The first registry version of that epoch: the one that the history has the restore under.
    pub version: i64,
    /// The newest checkpoint of the backup; none where it had none.
    pub checkpoint: Option<i64>,
    /// The newest of what was lost, as far as that is known.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub lost: Option<Lost>,
    /// What has become of the key that signed it.
    #[serde(skip)]
    pub(crate) withdrawal: Option<Withdrawal>,
}

/// The newest checkpoint that is known of what was lost.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Lost {
    /// Its number.
    pub checkpoint: i64,
    /// Its instant.
    pub at: UnixTime,
    /// Its hash.
    pub hash: String,
    /// The records it knew that are not in the store.
    pub chains: Vec<LostChain>,
}

/// Records of one chain that are not in the store.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LostChain {
    /// Which chain.
    pub chain: i64,
    /// The first that is missing.
    pub first: i64,
    /// The last that is known to have been there.
    pub last: i64,
}

/// What the history calls a restore.
pub const RESTORE: &str = "registry.restore";

impl RestoredLog {
    /// Where it is in the history of the store that was restored.
    pub(super) const fn place(&self) -> HistoryPlace {
        (self.version, 0)
    }

    /// Whether this row of the history is about it.
    pub(super) fn is_told_by(&self, row: &HistoryRow) -> bool {
        row.place == self.place() && row.action == RESTORE && row.subject == format!("registry:{}", self.epoch)
    }

    /// Reads a statement that was signed with one of `keys`, withdrawn later or not.
    pub(super) fn verify(compact: &str, keys: &BelievedKeys) -> Option<Self> {
        let expected = Expectation {
            algorithms: &[SigningAlgorithm::ES256],
            types: &[RESTORED_TYPE],
            untyped: Untyped::Refuse,
            key: KeyChoice::ByKid,
            max_bytes: MAX_BYTES,
        };
        let read: Self = jws::verify(compact, keys.keys(), &expected).ok()?.claims().ok()?;
        Some(Self { withdrawal: keys.withdrawal(compact), ..read })
    }

    /// Whether a copy of a checkpoint is of what was lost.
    pub(super) fn explains(&self, copy: &Checkpoint) -> bool {
        self.log == copy.log.to_string() && copy.number > self.checkpoint.unwrap_or(0) && copy.at <= self.at
    }

    /// For people.
    pub(super) fn note(&self) -> String {
        let Self { at, by, checkpoint, lost, .. } = self;
        let ends = match checkpoint {
            Some(checkpoint) => format!("ends with checkpoint {checkpoint}"),
            None => "has no checkpoint".to_owned(),
        };
        let gone = match lost {
            Some(lost) => {
                let chains: Vec<String> =
                    lost.chains.iter().map(|gone| format!("{}/{}-{}", gone.chain, gone.first, gone.last)).collect();
                format!(
                    "of the log that was lost, known up to checkpoint {} of {}, these records are not here: {}",
                    lost.checkpoint,
                    lost.at,
                    if chains.is_empty() { "none".to_owned() } else { chains.join(", ") }
                )
            }
            None => "what came after that is not here, and nobody has said what it was".to_owned(),
        };
        let vouched = self.withdrawal.as_ref().map_or_else(String::new, |key| format!("; {}", key.warning()));
        format!("restored at {at} by {by} from a backup that {ends}: {gone}{vouched}")
    }
}
