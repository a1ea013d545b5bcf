//! What was found, and exactly where.

use countersign_resource_server::time::UnixTime;
use serde::Serialize;

use crate::audit::chain::ChainId;

/// Which kind of tampering or damage the evidence points to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum FindingKind {
    /// A checkpoint knows a chain that is not there, or records stand in one that is not listed.
    ChainMissing,
    /// A record does not have the content its hash covers.
    Changed,
    /// A checkpoint is missing, changed, or does not follow the one before it.
    Checkpoint,
    /// A chain begins after its first record, and nothing says that what was before was exported.
    Cut,
    /// The registry's history is not what the `change` records say.
    History,
    /// A record that was not written by the log.
    Inserted,
    /// An export cannot be read as one.
    Malformed,
    /// Records stand in each other's places.
    Moved,
    /// A log with another id than the evidence.
    OtherLog,
    /// Records are missing.
    Removed,
    /// The hashes agree with each other, but not with what a checkpoint says.
    Rewritten,
    /// The store is older than a copy kept elsewhere.
    RolledBack,
    /// A signature does not hold, or nobody is known to have made it.
    Signature,
    /// A chain ends before a record that a checkpoint knows.
    Truncated,
}

impl FindingKind {
    /// Its name.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::ChainMissing => "chain_missing",
            Self::Changed => "changed",
            Self::Checkpoint => "checkpoint",
            Self::Cut => "cut",
            Self::History => "history",
            Self::Inserted => "inserted",
            Self::Malformed => "malformed",
            Self::Moved => "moved",
            Self::OtherLog => "other_log",
            Self::Removed => "removed",
            Self::Rewritten => "rewritten",
            Self::RolledBack => "rolled_back",
            Self::Signature => "signature",
            Self::Truncated => "truncated",
        }
    }
}

/// One finding.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Finding {
    /// Which kind.
    pub kind: FindingKind,
    /// In which chain.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub chain: Option<i64>,
    /// From which record on.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub first: Option<i64>,
    /// Up to which.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub last: Option<i64>,
    /// Which checkpoint it is about, or says so.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub checkpoint: Option<i64>,
    /// The instant of the record or checkpoint.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub at: Option<UnixTime>,
    /// What was expected, and what is there.
    pub explanation: String,
}

impl Finding {
    /// A finding about the log as a whole.
    pub(in crate::audit) fn new(kind: FindingKind, explanation: impl Into<String>) -> Self {
        let explanation = explanation.into();
        Self { kind, chain: None, first: None, last: None, checkpoint: None, at: None, explanation }
    }

    /// About a chain.
    #[must_use]
    pub(in crate::audit) fn in_chain(self, chain: ChainId) -> Self {
        Self { chain: Some(chain.number()), ..self }
    }

    /// About these records.
    #[must_use]
    pub(in crate::audit) fn of_records(self, first: i64, last: i64) -> Self {
        Self { first: Some(first), last: Some(last), ..self }
    }

    /// About a checkpoint.
    #[must_use]
    pub(in crate::audit) fn of_checkpoint(self, number: i64) -> Self {
        Self { checkpoint: Some(number), ..self }
    }

    /// When.
    #[must_use]
    pub(in crate::audit) fn at(self, at: UnixTime) -> Self {
        Self { at: Some(at), ..self }
    }

    /// Where, for people: `1/17`, `1/17-20`, `chain 1`, `checkpoint 3`.
    pub fn place(&self) -> String {
        match (self.chain, self.first, self.last, self.checkpoint) {
            (Some(chain), Some(first), Some(last), _) if first != last => format!("{chain}/{first}-{last}"),
            (Some(chain), Some(first), ..) => format!("{chain}/{first}"),
            (Some(chain), ..) => format!("chain {chain}"),
            (None, _, _, Some(number)) => format!("checkpoint {number}"),
            _ => String::new(),
        }
    }
}
