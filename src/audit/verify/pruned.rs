//! What a `pruned` record says: up to which checkpoint records were exported and removed.

use countersign_resource_server::time::UnixTime;
use serde::{Deserialize, Serialize};

use super::run::Record;
use crate::audit::HistoryPlace;
use crate::registry::history::Actor;

/// A `pruned` record.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Pruned {
    /// `pruned`
    pub kind: String,
    /// When.
    pub at: UnixTime,
    /// Where the command ran.
    pub node: String,
    /// Who gave it.
    pub actor: Actor,
    /// The checkpoint that the export ends with and the log begins after.
    pub checkpoint: i64,
    /// The export's name.
    pub file: String,
    /// Its SHA-256 hash, in hexadecimal digits.
    pub sha256: String,
    /// How many records are in it.
    pub records: u64,
    /// The last row of the registry's history whose `change` is in this export or one before it.
    pub history: HistoryPlace,
}

impl Pruned {
    /// Reads one; none where it is no such record.
    pub(in crate::audit) fn of(record: &Record<'_>) -> Option<Self> {
        serde_json::from_str(record.body).ok()
    }
}
