//! Checkpoints: what each says, whether it follows the one before it, and who signed it.
//!
//! Takes compact JWS in the order of their numbers, and the copies kept elsewhere; gives what they say of each chain, and
//! findings. It reads nothing.

use std::collections::BTreeMap;
use std::sync::Arc;

use countersign_resource_server::time::UnixTime;
use countersign_resource_server::token::jws::JwsError;

use super::finding::{Finding, FindingKind};
use super::walk::Mark;
use crate::audit::believed::{BelievedKeys, Withdrawal};
use crate::audit::chain::{ChainId, RecordHash};
use crate::audit::checkpoint::{Checkpoint, NoCheckpoint, StoredCheckpoint, statement_hash};
use crate::audit::restored::RestoredLog;

/// Who signed a checkpoint.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Signature {
    Holds,
    KeyUnknown,
    /// It holds, and whoever could make it was not believed any more.
    KeyWithdrawn(Withdrawal),
    Fails(JwsError),
}

impl Signature {
    /// Whether one of `keys` signed it. That it can be read is known.
    fn of(compact: &str, keys: &BelievedKeys) -> Self {
        match Checkpoint::verify(compact, keys.keys()) {
            Ok(read) => match keys.withdrawal(compact).filter(|key| key.is_before(read.at)) {
                Some(key) => Self::KeyWithdrawn(key),
                None => Self::Holds,
            },
            Err(NoCheckpoint::Unsigned(JwsError::KeyUnknown)) => Self::KeyUnknown,
            Err(NoCheckpoint::Unsigned(error)) => Self::Fails(error),
            Err(NoCheckpoint::Malformed(_)) => Self::Fails(JwsError::Claims),
        }
    }
}

/// All checkpoints of a log, one after the other.
#[derive(Debug)]
pub(in crate::audit) struct Statements<'a> {
    keys: &'a BelievedKeys,
    /// Copies kept elsewhere, by number; those that were compared are gone.
    copies: BTreeMap<i64, Vec<(Checkpoint, &'a str)>>,
    first: Option<Checkpoint>,
    newest: Option<(Checkpoint, RecordHash, Signature)>,
    /// Whether the next one's number and `before` cannot be known, for the one before it cannot be read.
    is_broken: bool,
    marks: BTreeMap<ChainId, Vec<Mark>>,
    hashes: BTreeMap<i64, RecordHash>,
    count: u64,
    unproven: u64,
    compared: u64,
    findings: Vec<Finding>,
    /// What restores say, and what was found that one of them may explain.
    restored: Vec<RestoredLog>,
    /// Statements of restores that say nothing to whoever has these keys.
    unread: usize,
    excused: Vec<(Checkpoint, Finding)>,
}

/// What the checkpoints of a log say.
#[derive(Debug)]
pub(in crate::audit) struct Evidence {
    pub(in crate::audit) first: Option<Checkpoint>,
    pub(in crate::audit) newest: Option<Checkpoint>,
    pub(in crate::audit) marks: BTreeMap<ChainId, Arc<[Mark]>>,
    /// The hash of each.
    hashes: BTreeMap<i64, RecordHash>,
    pub(in crate::audit) count: u64,
    /// Those whose key is not known any more, or had been withdrawn by then.
    pub(in crate::audit) unproven: u64,
    /// Copies kept elsewhere that are in it, octet by octet.
    pub(in crate::audit) compared: u64,
    pub(in crate::audit) findings: Vec<Finding>,
    /// What restores say, whether they are on record or not; and the copies that are no findings if they are.
    pub(in crate::audit) restored: Vec<RestoredLog>,
    unread: usize,
    excused: Vec<(Checkpoint, Finding)>,
}

impl<'a> Statements<'a> {
    /// For comparing with `copies`, which have to be checkpoints themselves.
    pub(in crate::audit) fn new(keys: &'a BelievedKeys, copies: &'a [String]) -> Self {
        let mut statements = Self {
            keys,
            copies: BTreeMap::new(),
            first: None,
            newest: None,
            is_broken: false,
            marks: BTreeMap::new(),
            hashes: BTreeMap::new(),
            count: 0,
            unproven: 0,
            compared: 0,
            findings: Vec::new(),
            restored: Vec::new(),
            unread: 0,
            excused: Vec::new(),
        };
        for copy in copies {
            let Ok(read) = Checkpoint::read(copy) else {
                let what = "a copy kept elsewhere cannot be read as a checkpoint";
                statements.findings.push(Finding::new(FindingKind::Checkpoint, what));
                continue;
            };
            match Signature::of(copy, keys) {
                Signature::Holds => {}
                // It is what it is compared with that has to be proven then.
                Signature::KeyUnknown | Signature::KeyWithdrawn(_) => {}
                Signature::Fails(error) => {
                    let what = format!("a copy kept elsewhere is not signed by the key it names: {error}");
                    statements.findings.push(Finding::new(FindingKind::Signature, what).of_checkpoint(read.number));
                }
            }
            statements.copies.entry(read.number).or_default().push((read, copy.as_str()));
        }
        statements
    }

    /// Copies of what was lost before a restore are no findings, where the restore is signed, and on record.
    pub(in crate::audit) fn knowing(mut self, restored: &[String]) -> Self {
        for statement in restored {
            let Some(restored) = RestoredLog::verify(statement, self.keys) else {
                self.unread += 1;
                continue;
            };
            match restored.withdrawal.as_ref().filter(|key| key.is_before(restored.at)) {
                Some(key) => {
                    let what = format!(
                        "the statement of a restore at {} is signed with key {}, which had been withdrawn at {}: it explains nothing",
                        restored.at, key.kid, key.at
                    );
                    self.findings.push(Finding::new(FindingKind::Signature, what).at(restored.at));
                }
                None => self.restored.push(restored),
            }
        }
        self
    }

    /// Tells that a copy is not in the log, or waits with it until it is known which restores are on record.
    fn tell_of_copy(&mut self, copy: Checkpoint, finding: Finding) {
        if self.restored.iter().any(|restored| restored.explains(&copy)) {
            self.excused.push((copy, finding));
        } else {
            self.findings.push(finding);
            self.add_marks(&copy, true);
        }
    }

    /// The next one, as an export has it.
    pub(in crate::audit) fn take_one(&mut self, compact: &str) {
        let (number, at) = match Checkpoint::read(compact) {
            Ok(read) => (read.number, read.at),
            // It is told of as what follows the one before it.
            Err(_) => (self.newest.as_ref().map_or(1, |(newest, ..)| newest.number + 1), UnixTime::from_millis(0)),
        };
        self.take(&StoredCheckpoint { number, at, statement: compact.to_owned() });
    }

    /// The next one.
    pub(in crate::audit) fn take(&mut self, stored: &StoredCheckpoint) {
        let StoredCheckpoint { number, at, statement: compact } = stored;
        let number = *number;
        self.count += 1;
        for (copy, text) in self.copies.remove(&number).unwrap_or_default() {
            if text == compact {
                self.compared += 1;
            } else {
                let what = "it is not the one of this number that was kept elsewhere: it was replaced";
                let finding = Finding::new(FindingKind::Checkpoint, what).of_checkpoint(number).at(copy.at);
                self.tell_of_copy(copy, finding);
            }
        }
        let tell = |what: String| Finding::new(FindingKind::Checkpoint, what).of_checkpoint(number).at(*at);
        let read = match Checkpoint::read(compact) {
            Ok(read) => read,
            Err(error) => {
                self.findings.push(tell(error.to_string()));
                self.is_broken = true;
                return;
            }
        };
        let signature = Signature::of(compact, self.keys);
        match &signature {
            Signature::Holds => {}
            Signature::KeyUnknown | Signature::KeyWithdrawn(_) => self.unproven += 1,
            Signature::Fails(error) => {
                let what = format!("it is not signed by the key it names: {error}");
                self.findings.push(Finding::new(FindingKind::Signature, what).of_checkpoint(number).at(*at));
            }
        }
        if (read.number, read.at) != (number, *at) {
            self.findings.push(tell(format!("its statement is of checkpoint {} at {}", read.number, read.at)));
        }
        if let Some((before, hash, _)) = &self.newest {
            let mut wrong = Vec::new();
            if read.log != before.log {
                wrong.push(format!("it is of log {}, the one before it of {}", read.log, before.log));
            }
            if number != before.number + 1 {
                wrong.push(format!("it follows checkpoint {}", before.number));
            }
            if !self.is_broken && read.before != Some(*hash) {
                let has = read.before.map_or_else(|| "none".to_owned(), |has| has.to_string());
                wrong.push(format!("the hash before it is {has}, that of checkpoint {} is {hash}", before.number));
            }
            wrong.extend(before.heads.iter().filter_map(|head| {
                let chain = head.chain();
                match read.head_of(chain) {
                    None => Some(format!("chain {chain} is missing in it")),
                    Some(now)
                        if now.position < head.position || (now.position == head.position && now.hash != head.hash) =>
                    {
                        Some(format!("chain {chain} goes back in it, from {} to {}", head.position, now.position))
                    }
                    Some(_) => None,
                }
            }));
            self.findings.extend(wrong.into_iter().map(tell));
        }
        self.is_broken = false;
        self.add_marks(&read, false);
        if self.first.is_none() {
            self.first = Some(read.clone());
        }
        let hash = statement_hash(compact);
        self.hashes.insert(number, hash);
        self.newest = Some((read, hash, signature));
    }

    fn add_marks(&mut self, read: &Checkpoint, is_copy: bool) {
        for head in &read.heads {
            let mark = Mark { sequence: head.position.sequence(), hash: head.hash, checkpoint: read.number };
            let marks = self.marks.entry(head.chain()).or_default();
            let is_same = |last: &Mark| (last.sequence, last.hash) == (mark.sequence, mark.hash);
            if is_copy || !marks.last().is_some_and(is_same) {
                marks.push(mark);
            }
        }
    }

    /// The end. Copies that are newer say that there were more; those that are older than the first one here say nothing
    /// that could be compared, unless nothing here is older than they are.
    pub(in crate::audit) fn end(mut self, copies_may_be_newer: bool) -> Evidence {
        let newest = self.newest.as_ref().map(|(newest, ..)| newest.number);
        let first = self.first.as_ref().map(|first| first.number);
        for (number, copies) in std::mem::take(&mut self.copies) {
            for (copy, _) in copies {
                if let Some((newest, ..)) = &self.newest
                    && newest.log != copy.log
                {
                    let what = format!("a copy kept elsewhere is of log {}, this is log {}", copy.log, newest.log);
                    self.findings.push(Finding::new(FindingKind::OtherLog, what).of_checkpoint(number).at(copy.at));
                    continue;
                }
                if newest.is_none_or(|newest| number > newest) {
                    if copies_may_be_newer {
                        continue;
                    }
                    let has = newest.map_or_else(|| "none".to_owned(), |newest| format!("checkpoint {newest}"));
                    let what =
                        format!("it was kept elsewhere, and the newest here is {has}: an older state was put back");
                    let finding = Finding::new(FindingKind::RolledBack, what).of_checkpoint(number).at(copy.at);
                    self.tell_of_copy(copy, finding);
                } else if first.is_none_or(|first| number > first) {
                    let what = "it was kept elsewhere, and is not here";
                    self.findings.push(Finding::new(FindingKind::Checkpoint, what).of_checkpoint(number).at(copy.at));
                    self.add_marks(&copy, true);
                }
            }
        }
        let newest_by = match &self.newest {
            Some((read, _, Signature::KeyUnknown)) => {
                Some((read, "a key that is not known: give the keys with --jwks".to_owned()))
            }
            Some((read, _, Signature::KeyWithdrawn(key))) => {
                Some((read, format!("key {}, which had been withdrawn at {}", key.kid, key.at)))
            }
            Some((_, _, Signature::Holds | Signature::Fails(_))) | None => None,
        };
        if let Some((read, key)) = newest_by {
            let what = format!("the newest checkpoint is signed with {key}");
            self.findings.push(Finding::new(FindingKind::Signature, what).of_checkpoint(read.number).at(read.at));
        }
        let marks = self.marks.into_iter().map(|(chain, mut marks)| {
            marks.sort_by_key(|mark| (mark.sequence, mark.checkpoint));
            (chain, marks.into())
        });
        Evidence {
            restored: self.restored,
            unread: self.unread,
            excused: self.excused,
            marks: marks.collect(),
            hashes: self.hashes,
            first: self.first,
            newest: self.newest.map(|(newest, ..)| newest),
            count: self.count,
            unproven: self.unproven,
            compared: self.compared,
            findings: self.findings,
        }
    }
}

impl Evidence {
    /// What is to be known of the restores that are on record, and the copies that none of them explains.
    pub(in crate::audit) fn judged(&mut self, on_record: &[RestoredLog]) -> (Vec<String>, Vec<Finding>) {
        let mut notes: Vec<String> = on_record.iter().map(RestoredLog::note).collect();
        let excused = std::mem::take(&mut self.excused);
        let is_explained = |(copy, _): &(Checkpoint, Finding)| on_record.iter().any(|restored| restored.explains(copy));
        let (explained, found): (Vec<_>, Vec<_>) = excused.into_iter().partition(is_explained);
        if !explained.is_empty() {
            notes.push(format!("{} copies kept elsewhere are of what was lost before a restore", explained.len()));
        }
        if self.unread > 0 {
            notes.push(format!(
                "the store has {} statements of restores that are not signed with a key that is known here, or are of an earlier \
                 build: they explain nothing",
                self.unread
            ));
        }
        (notes, found.into_iter().map(|(_, finding)| finding).collect())
    }

    /// Whether checkpoint `number` is among these.
    pub(in crate::audit) fn is_held(&self, number: i64) -> bool {
        self.first.as_ref().is_some_and(|first| first.number <= number)
            && self.newest.as_ref().is_some_and(|newest| newest.number >= number)
    }

    /// The hash of checkpoint `number`, if it is among these.
    pub(in crate::audit) fn statement(&self, number: i64) -> Option<RecordHash> {
        self.hashes.get(&number).copied()
    }

    /// The number and the hash of each, in order.
    pub(in crate::audit) fn statements(&self) -> impl Iterator<Item = (i64, RecordHash)> {
        self.hashes.iter().map(|(number, hash)| (*number, *hash))
    }

    /// What checkpoint `number` says of `chain`, if that is known here.
    pub(in crate::audit) fn said_by(&self, number: i64, chain: ChainId) -> Option<Mark> {
        let marks = self.marks.get(&chain).filter(|_| self.is_held(number))?;
        marks.iter().filter(|mark| mark.checkpoint <= number).max_by_key(|mark| mark.checkpoint).copied()
    }
}
