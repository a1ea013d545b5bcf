//! The registry's history beside the `change` records: each row in a chain exactly once, and still what it was.

use std::borrow::Cow;
use std::collections::BTreeMap;

use countersign_resource_server::time::UnixTime;
use serde::Deserialize;
use serde_json::value::RawValue;
use sha2::{Digest, Sha256};

use super::finding::{Finding, FindingKind};
use super::run::Record;
use crate::audit::chain::Position;
use crate::audit::record::document;
use crate::audit::{HistoryPlace, HistoryRow};

/// A `change` record: which row it is about, and the hash of what it says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::audit) struct Change {
    pub(in crate::audit) place: HistoryPlace,
    content: [u8; 32],
    position: Position,
}

impl Change {
    /// Reads one; none where it is no such record.
    pub(in crate::audit) fn of(record: &Record<'_>) -> Option<Self> {
        #[derive(Deserialize)]
        struct Body<'a> {
            registry_version: i64,
            step: i64,
            changed_at: UnixTime,
            #[serde(borrow)]
            actor: &'a RawValue,
            #[serde(borrow)]
            action: Cow<'a, str>,
            #[serde(borrow)]
            subject: Cow<'a, str>,
            #[serde(borrow)]
            before: Option<&'a RawValue>,
            #[serde(borrow)]
            after: Option<&'a RawValue>,
            #[serde(borrow)]
            why: Option<Cow<'a, str>>,
        }
        let body: Body<'_> = serde_json::from_str(record.body).ok()?;
        let content = content(
            body.changed_at,
            [
                Some(body.actor.get()),
                Some(&body.action),
                Some(&body.subject),
                body.before.map(RawValue::get),
                body.after.map(RawValue::get),
                body.why.as_deref(),
            ],
        );
        Some(Self { place: (body.registry_version, body.step), content, position: record.position })
    }
}

/// One hash of everything a row says, in which no two fields can run into each other.
fn content(at: UnixTime, fields: [Option<&str>; 6]) -> [u8; 32] {
    let mut hash = Sha256::new().chain_update(at.as_millis().to_be_bytes());
    for field in fields {
        hash.update(field.map_or(-1, |field| i64::try_from(field.len()).unwrap_or(i64::MAX)).to_be_bytes());
        hash.update(field.unwrap_or_default());
    }
    hash.finalize().into()
}

fn content_of_row(row: &HistoryRow) -> [u8; 32] {
    // White space around a document is not in its record, and not in a row that the registry wrote.
    let exactly =
        |stored: &str| Some(document(stored)).filter(|written| written != stored.trim()).unwrap_or(stored.to_owned());
    let (actor, before, after) =
        (exactly(&row.actor), row.before.as_deref().map(exactly), row.after.as_deref().map(exactly));
    let fields = [
        Some(actor.as_str()),
        Some(&row.action),
        Some(&row.subject),
        before.as_deref(),
        after.as_deref(),
        row.why.as_deref(),
    ];
    content(row.at, fields)
}

/// Compares rows with records, both in order.
#[derive(Debug, Default)]
pub(in crate::audit) struct Comparison {
    changes: BTreeMap<HistoryPlace, Change>,
    findings: Vec<Finding>,
}

impl Comparison {
    /// Of these records.
    pub(in crate::audit) fn of(changes: impl IntoIterator<Item = Change>) -> Self {
        let mut comparison = Self::default();
        for change in changes {
            if let Some(before) = comparison.changes.insert(change.place, change) {
                let what = format!("the change {} is on record twice: {}", named(change.place), before.position);
                comparison.tell(what, Some(change));
            }
        }
        comparison
    }

    /// The last row that is on record.
    pub(in crate::audit) fn last(&self) -> Option<HistoryPlace> {
        self.changes.last_key_value().map(|(place, _)| *place)
    }

    /// A row. Those up to `in_chains` have to be on record, but for those up to `exported`, which may be.
    pub(in crate::audit) fn row(&mut self, row: &HistoryRow, in_chains: HistoryPlace, exported: HistoryPlace) {
        match self.changes.remove(&row.place) {
            Some(change) if change.content == content_of_row(row) => {}
            Some(change) => {
                let what = format!("row {} of the history is not what its change record says", named(row.place));
                self.tell(what, Some(change));
            }
            None if row.place <= exported || row.place > in_chains => {}
            None => {
                let what = format!(
                    "row {} of the history, {} {}, has no change record",
                    named(row.place),
                    row.action,
                    row.subject
                );
                self.tell(what, None);
            }
        }
    }

    /// All rows were seen: whatever record is left has none.
    pub(in crate::audit) fn end(mut self, in_chains: HistoryPlace) -> Vec<Finding> {
        for (place, change) in std::mem::take(&mut self.changes) {
            let what = if place > in_chains {
                format!(
                    "the change {} is on record, but the log says it comes after {}",
                    named(place),
                    named(in_chains)
                )
            } else {
                format!("row {} of the history is gone", named(place))
            };
            self.tell(what, Some(change));
        }
        self.findings
    }

    fn tell(&mut self, what: String, change: Option<Change>) {
        let found = Finding::new(FindingKind::History, what);
        self.findings.push(match change {
            Some(change) => {
                let sequence = change.position.sequence();
                found.in_chain(change.position.chain()).of_records(sequence, sequence)
            }
            None => found,
        });
    }
}

fn named(place: HistoryPlace) -> String {
    format!("{}.{}", place.0, place.1)
}
