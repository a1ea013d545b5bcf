//! Holds what clients, operators and an outside copy were told against what the database has on record.
//!
//! Takes a [`Told`] and a [`Record`], gives everything that is missing or says something else. [`compare`] is a pure function, so
//! that each loss can be planted where all was well. It knows nothing of nodes and failures.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::path::Path;

use futures_util::TryStreamExt;
use serde_json::Value;
use sqlx::{Connection, PgConnection, Row};

use crate::Failure;
use crate::clients::Token;

/// A change of the registry that an operator was told of.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Change {
    pub(crate) version: i64,
    /// The words the operator gave for it: no two changes have the same.
    pub(crate) why: String,
}

/// A record of the audit log as it left: its chain, its number, and its hash in hexadecimal digits.
type Copied = (i64, i64, String);

/// What was told to somebody outside.
#[derive(Clone, Debug, Default)]
pub(crate) struct Told {
    pub(crate) tokens: Vec<Token>,
    pub(crate) changes: Vec<Change>,
    pub(crate) copied: Vec<Copied>,
}

/// What the database has.
#[derive(Clone, Debug, Default)]
pub(crate) struct Record {
    /// By `jti`: whose token, and by which request.
    issued: HashMap<String, (String, String)>,
    issued_twice: Vec<String>,
    withheld: HashSet<String>,
    /// By version: the words given for it.
    changes: BTreeMap<i64, Vec<String>>,
    hashes: HashMap<(i64, i64), String>,
}

/// What must not be.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Loss {
    /// An operator was told of a change that is not there.
    Change(i64),
    /// A record that was sent elsewhere is not there, or is another one.
    Copied(i64, i64),
    /// Two decisions to issue the same token.
    IssuedTwice(String),
    /// Two clients hold the same token.
    ReceivedTwice(String),
    /// The record is about another client or request.
    RecordOfAnother(String),
    /// A record was not sent on, and one after it in its chain was.
    Skipped(i64, i64),
    /// A client holds a token that no record has.
    TokenWithoutRecord(String),
    /// A client holds a token that was recorded as withheld.
    WithheldReceived(String),
}

impl Loss {
    const fn kind(&self) -> &'static str {
        match self {
            Self::Change(_) => "changes of the registry that were acknowledged and are not there",
            Self::Copied(..) => "records that were sent on and are not there, or are others",
            Self::IssuedTwice(_) => "tokens with two records",
            Self::ReceivedTwice(_) => "tokens that two clients hold",
            Self::RecordOfAnother(_) => "tokens whose record is about another client or request",
            Self::Skipped(..) => "records that were not sent on, and those after them were",
            Self::TokenWithoutRecord(_) => "tokens without a record",
            Self::WithheldReceived(_) => "tokens that were recorded as withheld, and are held",
        }
    }
}

/// How many of each kind there are, in words.
pub(crate) fn counted(losses: &[Loss]) -> Vec<String> {
    let mut counts: BTreeMap<&'static str, usize> = BTreeMap::new();
    for loss in losses {
        *counts.entry(loss.kind()).or_default() += 1;
    }
    counts.into_iter().map(|(kind, count)| format!("{count} {kind}")).collect()
}

/// Everything that must not be, in order.
pub(crate) fn compare(told: &Told, record: &Record) -> Vec<Loss> {
    let mut found: Vec<Loss> = record.issued_twice.iter().cloned().map(Loss::IssuedTwice).collect();
    let mut received = HashSet::new();
    for Token { jti, client, request, .. } in &told.tokens {
        if !received.insert(jti) {
            found.push(Loss::ReceivedTwice(jti.clone()));
        }
        if record.withheld.contains(jti) {
            found.push(Loss::WithheldReceived(jti.clone()));
        }
        match record.issued.get(jti) {
            None => found.push(Loss::TokenWithoutRecord(jti.clone())),
            Some((whose, by)) if whose != client || by != request => found.push(Loss::RecordOfAnother(jti.clone())),
            Some(_) => {}
        }
    }
    for Change { version, why } in &told.changes {
        if !record.changes.get(version).is_some_and(|reasons| reasons.contains(why)) {
            found.push(Loss::Change(*version));
        }
    }
    for (chain, sequence, hash) in &told.copied {
        if record.hashes.get(&(*chain, *sequence)) != Some(hash) {
            found.push(Loss::Copied(*chain, *sequence));
        }
    }
    let copied: BTreeSet<(i64, i64)> = told.copied.iter().map(|(chain, sequence, _)| (*chain, *sequence)).collect();
    let next = copied.iter().zip(copied.iter().skip(1)).filter(|((chain, _), (of, _))| chain == of);
    for ((chain, before), (_, after)) in next {
        found.extend((before + 1..*after).map(|sequence| Loss::Skipped(*chain, sequence)));
    }
    found.sort();
    found.dedup();
    found
}

impl Record {
    /// Reads all of it, by SQL of its own: what the product says about itself is not taken for it.
    pub(crate) async fn read(store: &str) -> Result<Self, Failure> {
        let mut connection = PgConnection::connect(store).await?;
        let mut record = Self::default();
        let mut rows = sqlx::query("SELECT position, encode(hash, 'hex'), body FROM audit_record ORDER BY position")
            .fetch(&mut connection);
        while let Some(row) = rows.try_next().await? {
            let (position, hash, body): (i64, String, String) = (row.try_get(0)?, row.try_get(1)?, row.try_get(2)?);
            record.hashes.insert((position >> 40, position & ((1 << 40) - 1)), hash);
            record.take(&serde_json::from_str(&body)?);
        }
        drop(rows);
        let changes: Vec<(i64, Option<String>)> =
            sqlx::query_as("SELECT version, why FROM history ORDER BY version, step")
                .fetch_all(&mut connection)
                .await?;
        for (version, why) in changes {
            record.changes.entry(version).or_default().extend(why);
        }
        connection.close().await?;
        Ok(record)
    }

    /// How many tokens it says were issued.
    pub(crate) fn issued(&self) -> usize {
        self.issued.len()
    }

    fn take(&mut self, body: &Value) {
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        match (body["kind"].as_str(), body["outcome"].as_str()) {
            (Some("decision"), Some("issued")) => {
                let jti = text(&body["token"]["jti"]);
                let of = (text(&body["client_id"]), text(&body["request_id"]));
                if self.issued.insert(jti.clone(), of).is_some() {
                    self.issued_twice.push(jti);
                }
            }
            (Some("withheld"), _) => drop(self.withheld.insert(text(&body["jti"]))),
            _ => {}
        }
    }
}

/// What a file has that the log was written into as it grew. A last line that does not end has not been sent.
pub(crate) fn copied(file: &Path) -> Result<Vec<Copied>, Failure> {
    // Octets: a line may end within a letter.
    read_copied(&std::fs::read(file)?)
}

fn read_copied(octets: &[u8]) -> Result<Vec<Copied>, Failure> {
    let mut copied = Vec::new();
    for (number, line) in (1..).zip(octets.split_inclusive(|octet| *octet == b'\n')) {
        let Some(whole) = line.strip_suffix(b"\n") else { break };
        let line: Value = serde_json::from_slice(whole).map_err(|error| format!("line {number}: {error}"))?;
        match (line["chain"].as_i64(), line["sequence"].as_i64(), line["hash"].as_str()) {
            (Some(chain), Some(sequence), Some(hash)) => copied.push((chain, sequence, hash.to_owned())),
            _ if line["checkpoint"].is_object() => {}
            _ => return Err(format!("line {number} is neither a record nor a checkpoint").into()),
        }
    }
    Ok(copied)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn told() -> Told {
        let token =
            |jti: &str| Token { jti: jti.into(), client: "a".into(), request: format!("r-{jti}"), issued_at: 1 };
        Told {
            tokens: vec![token("1"), token("2")],
            changes: vec![Change { version: 7, why: "because".into() }],
            copied: vec![(1, 1, "aa".into())],
        }
    }

    fn issued(jti: &str) -> Value {
        json!({ "kind": "decision", "outcome": "issued", "client_id": "a", "request_id": format!("r-{jti}"),
                "token": { "jti": jti } })
    }

    fn record() -> Record {
        let mut record = Record::default();
        record.take(&issued("1"));
        record.take(&issued("2"));
        // Written, and its client hung up.
        record.take(&issued("3"));
        record.take(&json!({ "kind": "withheld", "jti": "3" }));
        record.changes.insert(7, vec!["because".into()]);
        record.hashes.insert((1, 1), "aa".into());
        record
    }

    #[test]
    fn nothing_is_found_where_all_is_well() {
        assert_eq!(compare(&told(), &record()), []);
    }

    #[test]
    fn each_loss_is_found() {
        type Planted = (fn(&mut Told, &mut Record), Loss);
        let planted: [Planted; 11] = [
            (|_, record| drop(record.issued.remove("1")), Loss::TokenWithoutRecord("1".into())),
            (|_, record| record.take(&issued("2")), Loss::IssuedTwice("2".into())),
            (|_, record| record.take(&json!({ "kind": "withheld", "jti": "2" })), Loss::WithheldReceived("2".into())),
            (|told, _| told.tokens.push(told.tokens[0].clone()), Loss::ReceivedTwice("1".into())),
            (|told, _| told.tokens[0].client = "b".into(), Loss::RecordOfAnother("1".into())),
            (|told, _| told.tokens[0].request = "r-2".into(), Loss::RecordOfAnother("1".into())),
            (|_, record| drop(record.changes.remove(&7)), Loss::Change(7)),
            (|told, _| told.changes[0].why = "another".into(), Loss::Change(7)),
            (|_, record| drop(record.hashes.remove(&(1, 1))), Loss::Copied(1, 1)),
            (|told, _| told.copied[0].2 = "bb".into(), Loss::Copied(1, 1)),
            (
                |told, record| {
                    told.copied.push((1, 3, "cc".into()));
                    record.hashes.insert((1, 3), "cc".into());
                },
                Loss::Skipped(1, 2),
            ),
        ];
        for (plant, expected) in planted {
            let (mut told, mut record) = (told(), record());
            plant(&mut told, &mut record);
            assert_eq!(compare(&told, &record), [expected]);
        }
    }

    #[test]
    fn a_copy_may_end_within_a_line_and_nowhere_else() {
        let (one, other) = (r#"{"chain":1,"sequence":1,"hash":"aa"}"#, r#"{"chain":1,"sequence":2,"hash":"bb"}"#);
        let checkpoint = r#"{"checkpoint":{"number":2,"at":1,"statement":"a.b.c"}}"#;
        let of = |text: &str| read_copied(text.as_bytes()).map_err(|error| error.to_string());
        let expected = vec![(1, 1, "aa".to_owned()), (1, 2, "bb".to_owned())];
        assert_eq!(of(&format!("{one}\n{checkpoint}\n{other}\n")), Ok(expected));
        let first = vec![(1, 1, "aa".to_owned())];
        // Whole, as it seems, but its end was never written.
        for torn in ["", "{", r#"{"chain":1,"#, other] {
            assert_eq!(of(&format!("{one}\n{torn}")), Ok(first.clone()), "{torn}");
        }
        assert_eq!(read_copied(b"\xc3").ok(), Some(Vec::new()));
        for torn in ["", r#"{"chain":1,"#, r#"{"chain":1,"sequence":2}"#, "{}", r#"{"checkpoint":1}"#] {
            assert!(of(&format!("{one}\n{torn}\n{other}\n")).is_err_and(|said| said.starts_with("line 2")), "{torn}");
        }
    }
}
