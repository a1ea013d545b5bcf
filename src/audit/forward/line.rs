//! The text of a record for a place that takes text.
//!
//! Takes a record or a checkpoint, gives one line of JSON with the record's own text in it, octet for octet, so that the
//! copy can be held against its hash.

use std::borrow::Cow;

use countersign_resource_server::time::UnixTime;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use super::Run;
use crate::audit::AuditEntry;
use crate::audit::checkpoint::StoredCheckpoint;

/// One thing to send.
pub(super) enum Item<'a> {
    Checkpoint(&'a StoredCheckpoint),
    Record(&'a AuditEntry),
}

/// What a place files it under.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Weight {
    /// Something was done as it was asked for.
    Informational,
    /// Something was refused, withheld or left out.
    Notice,
}

#[derive(Serialize)]
struct RecordLine<'a> {
    chain: i64,
    sequence: i64,
    at: UnixTime,
    hash: String,
    // Last, so that its text is what is between this name and the line's last brace.
    #[serde(skip_serializing_if = "Option::is_none")]
    record: Option<&'a RawValue>,
    #[serde(skip_serializing_if = "Option::is_none")]
    text: Option<&'a str>,
}

#[derive(Serialize)]
struct CheckpointLine<'a> {
    checkpoint: CheckpointFacts<'a>,
}

#[derive(Serialize)]
struct CheckpointFacts<'a> {
    number: i64,
    at: UnixTime,
    statement: &'a str,
}

/// What is looked at in a record's body.
#[derive(Default, Deserialize)]
struct Named<'a> {
    #[serde(borrow, default)]
    kind: Cow<'a, str>,
    #[serde(borrow, default)]
    outcome: Cow<'a, str>,
}

impl Run {
    /// What is in it, in order.
    pub(super) fn items(&self) -> Vec<Item<'_>> {
        match self {
            Self::Checkpoint(checkpoint) => vec![Item::Checkpoint(checkpoint)],
            Self::Records(entries) => entries.iter().map(Item::Record).collect(),
        }
    }

    /// One line for each, every one with its end.
    pub(super) fn lines(&self) -> String {
        self.items().iter().fold(String::new(), |lines, item| lines + &item.line() + "\n")
    }
}

impl Item<'_> {
    pub(super) fn at(&self) -> UnixTime {
        match self {
            Self::Checkpoint(checkpoint) => checkpoint.at,
            Self::Record(entry) => entry.at,
        }
    }

    /// One line of JSON, without its end.
    pub(super) fn line(&self) -> String {
        match self {
            Self::Checkpoint(StoredCheckpoint { number, at, statement }) => {
                text(&CheckpointLine { checkpoint: CheckpointFacts { number: *number, at: *at, statement } })
            }
            Self::Record(entry) => {
                let record = verbatim(&entry.body);
                text(&RecordLine {
                    chain: entry.position.chain().number(),
                    sequence: entry.position.sequence(),
                    at: entry.at,
                    hash: entry.hash.to_string(),
                    record,
                    text: record.is_none().then_some(&entry.body),
                })
            }
        }
    }

    /// Its kind, and what to file it under.
    pub(super) fn kind(&self) -> (Cow<'_, str>, Weight) {
        let Self::Record(entry) = self else { return (Cow::Borrowed("checkpoint"), Weight::Informational) };
        let Named { kind, outcome } = serde_json::from_str(&entry.body).unwrap_or_default();
        let is_notice = matches!(&*kind, "refusals" | "withheld" | "dropped" | "pruned") || outcome == "refused";
        (kind, if is_notice { Weight::Notice } else { Weight::Informational })
    }
}

/// The body as JSON in one line, if it is that; every one that this program writes is.
fn verbatim(body: &str) -> Option<&RawValue> {
    let read: &RawValue = serde_json::from_str(body).ok()?;
    // What surrounds a value is not part of it, and what is written in several lines does not fit one.
    (read.get().len() == body.len() && !body.contains(['\n', '\r'])).then_some(read)
}

#[expect(clippy::expect_used, reason = "strings, numbers and structs of them always have a JSON form")]
fn text<T: Serialize>(line: &T) -> String {
    serde_json::to_string(line).expect("a line has a JSON form")
}
