//! One chain, record by record: does each follow the one before it, and is what a checkpoint says of it true?
//!
//! Takes records in the order they are stored, gives findings. Each record's hash is compared with the one that follows
//! from the hash *stored* before it: where all agree, the chain is whole by induction, and where one does not, the rest is
//! still judged. A stretch can therefore be walked by itself and joined to the one before it afterwards. It reads
//! nothing.

use std::sync::Arc;

use countersign_resource_server::time::UnixTime;

use super::changes::Change;
use super::finding::{Finding, FindingKind};
use super::pruned::Announced;
use super::run::{Record, Run};
use crate::audit::chain::{ChainId, Head, Position, RecordHash};

/// What a checkpoint says of a chain.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::audit) struct Mark {
    pub(in crate::audit) sequence: i64,
    pub(in crate::audit) hash: RecordHash,
    /// Which checkpoint.
    pub(in crate::audit) checkpoint: i64,
}

/// How many records that do not fit are looked at together.
const WINDOW: usize = 64;

/// How many findings of one chain are told.
const TOLD: usize = 200;

/// A stretch of a chain, as far as it was walked.
#[derive(Debug)]
pub(in crate::audit) struct Walk {
    chain: ChainId,
    /// In order of their numbers.
    marks: Arc<[Mark]>,
    next_mark: usize,
    /// The last mark that was true.
    vouched: Option<i64>,
    is_rewritten: bool,
    /// The last record that was walked, by what is stored; none where the stretch begins in the middle and nothing was.
    last: Option<Head>,
    /// What its hash should have been, where it did not fit.
    instead: Option<RecordHash>,
    /// The first record of a stretch that begins in the middle: judged when it is joined.
    first: Option<Stray>,
    /// Records one after the other that do not fit.
    misfits: Vec<Stray>,
    /// The hash and number before the first of them.
    before_misfits: Option<Head>,
    /// The last misfit, where there are more than fit the window.
    last_misfit: i64,
    /// Whether what follows the last of them follows from what it should have been.
    only_hash: bool,
    found: Found,
}

/// What a walk brings home.
#[derive(Debug, Default)]
pub(in crate::audit) struct Found {
    pub(in crate::audit) records: u64,
    pub(in crate::audit) findings: Vec<Finding>,
    /// Findings beyond those that are told.
    pub(in crate::audit) untold: u64,
    pub(in crate::audit) changes: Vec<Change>,
    pub(in crate::audit) pruned: Vec<Announced>,
    /// The oldest record of those that are never written late, and its number.
    pub(in crate::audit) oldest: Option<(UnixTime, i64)>,
}

#[derive(Clone, Debug)]
struct Stray {
    position: Position,
    at: UnixTime,
    hash: RecordHash,
    body: String,
    is_whole: bool,
}

impl Stray {
    fn of(record: &Record<'_>) -> Self {
        let Record { position, at, hash, body, is_whole } = *record;
        Self { position, at, hash, body: body.to_owned(), is_whole }
    }

    fn record(&self) -> Record<'_> {
        Record { position: self.position, at: self.at, hash: self.hash, body: &self.body, is_whole: self.is_whole }
    }

    fn sequence(&self) -> i64 {
        self.position.sequence()
    }
}

impl Walk {
    /// A walk that begins after `start`, or wherever its first record is.
    pub(in crate::audit) fn new(chain: ChainId, marks: Arc<[Mark]>, start: Option<Head>) -> Self {
        let mut walk = Self {
            chain,
            marks,
            next_mark: 0,
            vouched: None,
            is_rewritten: false,
            last: start,
            instead: None,
            first: None,
            misfits: Vec::new(),
            before_misfits: None,
            last_misfit: 0,
            only_hash: false,
            found: Found::default(),
        };
        if let Some(start) = start {
            walk.compare_marks(start.position.sequence(), start.hash, true);
        }
        walk
    }

    /// Walks a run.
    pub(in crate::audit) fn take_all(&mut self, run: &Run) {
        for record in run.iter() {
            self.take(&record);
        }
    }

    /// Walks one record.
    pub(in crate::audit) fn take(&mut self, record: &Record<'_>) {
        self.found.records += 1;
        self.note(record);
        let head = Head { position: record.position, hash: record.hash };
        if self.last.is_none() {
            self.first = Some(Stray::of(record));
            self.last = Some(head);
            self.compare_marks(record.position.sequence(), record.hash, true);
            return;
        }
        let fits = self.judge(record);
        self.compare_marks(record.position.sequence(), record.hash, fits);
    }

    /// Whether a record follows the one before it.
    fn judge(&mut self, record: &Record<'_>) -> bool {
        let Some(last) = self.last else { return true };
        let sequence = record.position.sequence();
        if sequence <= last.position.sequence() {
            // Only an export can be out of order: a store has each place once.
            self.settle();
            let what = format!("it stands after record {}", last.position.sequence());
            self.tell(Finding::new(FindingKind::Moved, what).of_records(sequence, sequence).at(record.at));
            return false;
        }
        let head = Head { position: record.position, hash: record.hash };
        if sequence > last.position.sequence() + 1 {
            self.settle();
            let (from, to) = (last.position.sequence() + 1, sequence - 1);
            let what = format!("{} missing between records {} and {sequence}", are(to - from + 1), from - 1);
            self.tell(Finding::new(FindingKind::Removed, what).of_records(from, to).at(record.at));
            // What the first one after a gap should follow is not known; a mark or the records after it judge its hash.
            self.last = Some(head);
            self.instead = None;
            return record.is_whole;
        }
        let follows = |before: RecordHash| {
            record.is_whole && before.followed_by(record.position, record.at, record.body) == record.hash
        };
        let fits = follows(last.hash);
        if fits {
            self.settle();
            self.instead = None;
        } else if self.instead.is_some_and(follows) {
            self.only_hash = true;
            self.settle();
            self.instead = None;
        } else {
            if self.misfits.is_empty() {
                self.before_misfits = Some(last);
            }
            self.last_misfit = sequence;
            if self.misfits.len() < WINDOW {
                self.misfits.push(Stray::of(record));
            }
            let before = self.instead.unwrap_or(last.hash);
            self.instead = record.is_whole.then(|| before.followed_by(record.position, record.at, record.body));
        }
        self.last = Some(head);
        self.misfits.is_empty()
    }

    /// Says what the records that did not fit look like.
    fn settle(&mut self) {
        let only_hash = std::mem::take(&mut self.only_hash);
        let misfits = std::mem::take(&mut self.misfits);
        let (Some(first), Some(before)) = (misfits.first(), self.before_misfits.take()) else { return };
        let (from, to, at) = (first.sequence(), self.last_misfit, first.at);
        let (kind, places, what) = explained(&misfits, before, only_hash);
        let (from, to) = places.unwrap_or((from, to));
        self.tell(Finding::new(kind, what).at(at).of_records(from, to));
    }

    /// Compares what checkpoints say of this number. A record that does not fit is told of already.
    fn compare_marks(&mut self, sequence: i64, hash: RecordHash, fits: bool) {
        while let Some(mark) = self.marks.get(self.next_mark).copied().filter(|mark| mark.sequence <= sequence) {
            self.next_mark += 1;
            // Before this stretch, or in a gap that is told of.
            if mark.sequence < sequence {
                continue;
            }
            if mark.hash == hash {
                self.vouched = Some(sequence);
                self.is_rewritten = false;
            } else if fits && !self.is_rewritten {
                self.is_rewritten = true;
                let since = self.vouched.map_or_else(String::new, |vouched| format!(" after record {vouched}"));
                let what = format!(
                    "something up to here{since} is not what it was: checkpoint {} has hash {}, the record {hash}",
                    mark.checkpoint, mark.hash
                );
                let found = Finding::new(FindingKind::Rewritten, what).of_checkpoint(mark.checkpoint);
                let from = self.vouched.map_or(sequence, |vouched| (vouched + 1).min(sequence));
                self.tell(found.of_records(from, sequence));
            }
        }
    }

    /// Joins the stretch that follows.
    pub(in crate::audit) fn join(&mut self, mut next: Self) {
        let Some(first) = next.first.take() else { return };
        if self.last.is_none() {
            next.first = Some(first);
            *self = next;
            return;
        }
        self.judge(&first.record());
        self.settle();
        next.settle();
        let vouched = self.vouched;
        self.last = next.last;
        self.instead = None;
        self.next_mark = self.next_mark.max(next.next_mark);
        self.vouched = next.vouched.or(self.vouched);
        self.is_rewritten = next.is_rewritten;
        let Found { records, findings, untold, changes, pruned, oldest } = next.found;
        self.found.records += records;
        self.found.untold += untold;
        for mut finding in findings {
            // The stretch itself knew of nothing before it that was vouched for.
            if finding.kind == FindingKind::Rewritten && finding.first == finding.last {
                finding.first = vouched.map(|vouched| vouched + 1).or(finding.first);
            }
            self.tell(finding);
        }
        self.found.changes.extend(changes);
        self.found.pruned.extend(pruned);
        self.found.oldest = [self.found.oldest, oldest].into_iter().flatten().min();
    }

    /// Ends the chain: no checkpoint may know of more.
    pub(in crate::audit) fn end(mut self) -> Found {
        self.settle();
        let last = self.last.map_or(0, |last| last.position.sequence());
        let beyond = self.marks.iter().filter(|mark| mark.sequence > last).max_by_key(|mark| mark.sequence).copied();
        if let Some(mark) = beyond {
            let what = format!(
                "it ends with record {last}; checkpoint {} knows record {}, with hash {}",
                mark.checkpoint, mark.sequence, mark.hash
            );
            let found = Finding::new(FindingKind::Truncated, what).of_checkpoint(mark.checkpoint);
            self.tell(found.of_records(last + 1, mark.sequence));
        }
        self.found
    }

    /// Where it is: what is stored of the last record.
    pub(in crate::audit) const fn head(&self) -> Option<Head> {
        self.last
    }

    fn tell(&mut self, finding: Finding) {
        if self.found.findings.len() < TOLD {
            self.found.findings.push(finding.in_chain(self.chain));
        } else {
            self.found.untold += 1;
        }
    }

    fn note(&mut self, record: &Record<'_>) {
        let Some(kind) = record.body.strip_prefix(r#"{"kind":""#).and_then(|rest| rest.split('"').next()) else {
            return;
        };
        match kind {
            "change" => self.found.changes.extend(Change::of(record)),
            "pruned" => self.found.pruned.extend(Announced::of(record)),
            _ => {}
        }
        // These are written as late as an outage of the store lasts.
        if !matches!(kind, "refusals" | "checks" | "dropped") {
            let this = (record.at, record.position.sequence());
            self.found.oldest = Some(self.found.oldest.map_or(this, |oldest| oldest.min(this)));
        }
    }
}

fn are(count: i64) -> String {
    if count == 1 { "a record is".to_owned() } else { format!("{count} records are") }
}

/// How many numbers a chain may have been moved up by, for it to be said how many.
const CLOSED_GAP: i64 = 1_000;

/// What records that do not follow each other look like, as well as they tell.
/// And where exactly, if that is known better than by which records do not fit.
fn explained(misfits: &[Stray], before: Head, only_hash: bool) -> (FindingKind, Option<(i64, i64)>, String) {
    let changed = |what: &str| (FindingKind::Changed, None, what.to_owned());
    let [first, rest @ ..] = misfits else { return changed("") };
    if only_hash && rest.is_empty() {
        return changed("its hash is not the one of its content; the record after it follows from the right one");
    }
    let fits = |hash: RecordHash, sequence: i64, content: &Stray, wanted: RecordHash| {
        Position::of(content.position.chain(), sequence)
            .is_some_and(|place| hash.followed_by(place, content.at, &content.body) == wanted)
    };
    // Content of another record, under the hash that stands here or that came along with it.
    for (index, here) in misfits.iter().enumerate() {
        let hash_before = index.checked_sub(1).and_then(|index| misfits.get(index)).map_or(before.hash, |one| one.hash);
        let belongs = |other: &&Stray| {
            other.position != here.position
                && (fits(hash_before, here.sequence(), other, here.hash)
                    || fits(hash_before, here.sequence(), other, other.hash))
        };
        let Some(other) = misfits.iter().find(belongs) else { continue };
        // Of two that are swapped the other one belongs here as well; of what stands after an inserted one it does not.
        let hashes = [here.hash, other.hash];
        let is_swapped =
            hashes.iter().any(|before| hashes.iter().any(|wanted| fits(*before, other.sequence(), here, *wanted)));
        if index == 0 && other.sequence() == here.sequence() + 1 && !is_swapped {
            let what =
                "it was not there when the record after it was written: what stands after it has been renumbered";
            return (FindingKind::Inserted, Some((here.sequence(), here.sequence())), what.to_owned());
        }
        let what = format!("the content of record {} belongs where record {} is", other.sequence(), here.sequence());
        let places = (here.sequence().min(other.sequence()), here.sequence().max(other.sequence()));
        return (FindingKind::Moved, Some(places), what);
    }
    // What was record n + 1 + gap stands as n + 1: whatever the hash before it was, it is the one that is stored.
    if let [second, ..] = rest {
        let gap = (1..=CLOSED_GAP).find(|gap| fits(first.hash, second.sequence() + gap, second, second.hash));
        if let Some(gap) = gap {
            let what = format!("{} missing before it, and what stood after that has been renumbered", are(gap));
            return (FindingKind::Removed, Some((first.sequence(), first.sequence())), what);
        }
    }
    if !first.is_whole {
        return changed("it is no record: its hash has not 32 octets, or its body is not UTF-8");
    }
    changed("its hash does not follow from the one before it and its content")
}
