//! Was the log changed? Every record, every checkpoint, every row of the history, from the store or from an export.
//!
//! Takes the log through [`AuditReading`], the keys that sign, and copies of checkpoints that were kept elsewhere; gives a
//! [`Report`], which says exactly where something was found. It knows nothing of SQL, files or terminals.

mod changes;

mod finding;

mod online;

mod pruned;

mod run;

mod source;

mod statement;

mod walk;

pub use finding::{Finding, FindingKind};
pub use online::verify;
pub use pruned::{PRUNE_TYPE, Pruned};
pub use run::{PackedColumns, Run, SEPARATOR};
pub use source::{AuditReading, Outline};

pub(in crate::audit) use changes::{Change, Comparison};
pub(in crate::audit) use pruned::Announced;
pub(in crate::audit) use statement::{Evidence, Statements};
pub(in crate::audit) use walk::{Mark, Walk};

use countersign_resource_server::time::UnixTime;
use serde::Serialize;

/// How many findings are told.
const TOLD: usize = 1_000;

/// What a verification came to.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Report {
    /// Which log.
    pub log: String,
    /// How many chains.
    pub chains: u64,
    /// How many records were walked.
    pub records: u64,
    /// How many checkpoints.
    pub checkpoints: u64,
    /// The newest of them.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub newest: Option<NewestCheckpoint>,
    /// Earlier ones whose keys are not known any more: the hash in the one after each vouches for them.
    pub unproven_signatures: u64,
    /// Copies kept elsewhere that are in it, octet by octet.
    pub copies_compared: u64,
    /// What is good to know.
    pub notes: Vec<String>,
    /// What was found.
    pub findings: Vec<Finding>,
    /// How many more there are.
    pub findings_untold: u64,
}

/// The newest checkpoint: everything up to it is proven.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct NewestCheckpoint {
    /// Its number.
    pub number: i64,
    /// Its instant.
    pub at: UnixTime,
}

/// Findings as they come in.
#[derive(Debug)]
pub(in crate::audit) struct Ledger {
    pub(in crate::audit) records: u64,
    findings: Vec<Finding>,
    untold: u64,
}

impl Ledger {
    pub(in crate::audit) fn new(findings: Vec<Finding>) -> Self {
        let mut ledger = Self { records: 0, findings: Vec::new(), untold: 0 };
        ledger.add(0, findings, 0);
        ledger
    }

    pub(in crate::audit) fn add(&mut self, records: u64, findings: Vec<Finding>, untold: u64) {
        self.records += records;
        self.untold += untold;
        for finding in findings {
            self.tell(finding);
        }
    }

    pub(in crate::audit) fn tell(&mut self, finding: Finding) {
        if self.findings.len() < TOLD {
            self.findings.push(finding);
        } else {
            self.untold += 1;
        }
    }

    pub(in crate::audit) fn is_empty(&self) -> bool {
        self.findings.is_empty()
    }

    pub(in crate::audit) fn report(
        self,
        log: String,
        chains: u64,
        evidence: Option<&Evidence>,
        notes: Vec<String>,
    ) -> Report {
        let newest = evidence.and_then(|evidence| evidence.newest.as_ref());
        Report {
            log,
            chains,
            records: self.records,
            checkpoints: evidence.map_or(0, |evidence| evidence.count),
            newest: newest.map(|newest| NewestCheckpoint { number: newest.number, at: newest.at }),
            unproven_signatures: evidence.map_or(0, |evidence| evidence.unproven),
            copies_compared: evidence.map_or(0, |evidence| evidence.compared),
            notes,
            findings: self.findings,
            findings_untold: self.untold,
        }
    }
}
