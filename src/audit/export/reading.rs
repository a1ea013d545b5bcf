//! Reading an export: is it whole, and is everything in it what the log wrote?
//!
//! Takes a file, the keys that sign, and copies of checkpoints kept elsewhere; gives a report as the store's verification
//! does, and where the export ends. One thread decompresses, another hashes. It reads no store.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, BufRead, BufReader, Read};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};

use flate2::bufread::GzDecoder;
use sha2::{Digest, Sha256};

use super::line::{ChainLine, CheckpointLine, End, FORMAT, Header, RecordLine, parse};
use crate::audit::HistoryPlace;
use crate::audit::believed::BelievedKeys;
use crate::audit::chain::{ChainId, Head, LogId, Position};
use crate::audit::verify::{
    Announced, Change, Evidence, Finding, FindingKind, Ledger, Mark, Pruned, Report, Run, Statements, Walk,
};

/// The longest line that is read.
const LINE_BYTES: u64 = 64 * 1024 * 1024;

/// How many octets of bodies are handed over together.
const RUN_BYTES: usize = 1024 * 1024;

/// An export as it was read.
#[derive(Debug)]
pub struct ReadExport {
    /// What was found.
    pub report: Report,
    /// The SHA-256 hash of the file, in hexadecimal digits.
    pub sha256: String,
    /// The checkpoint it ends with, if it could be read.
    pub checkpoint: Option<i64>,
    pub(super) log: Option<LogId>,
    /// Where its chains end.
    pub(super) heads: Vec<Head>,
    pub(super) changes: Vec<Change>,
    pruned: Vec<Pruned>,
}

impl ReadExport {
    /// The last row of the registry's history whose change is in it, or in an export before it.
    pub fn history(&self) -> HistoryPlace {
        let before = self.pruned.iter().map(|pruned| pruned.history);
        self.changes.iter().map(|change| change.place).chain(before).max().unwrap_or_default()
    }
}

/// Reads and verifies the file at `path`. Blocks.
///
/// # Errors
/// It cannot be opened or read. That it is no export is a finding.
pub fn read(path: &Path, keys: &BelievedKeys, copies: &[String], progress: &Arc<AtomicU64>) -> io::Result<ReadExport> {
    let file = Hashed { file: File::open(path)?, hash: Sha256::new() };
    let mut lines = Lines { from: BufReader::new(GzDecoder::new(BufReader::new(file))), line: Vec::new(), number: 0 };
    let mut ledger = Ledger::new(Vec::new());
    let mut scene = Scene {
        header: None,
        evidence: None,
        ends: BTreeMap::new(),
        changes: Vec::new(),
        announced: Vec::new(),
        chains: 0,
    };
    if let Err(Stop(what)) = walk(&mut lines, keys, copies, progress, &mut scene, &mut ledger) {
        ledger.tell(Finding::new(FindingKind::Malformed, format!("line {}: {what}", lines.number)));
    }
    let mut rest = lines.from.into_inner().into_inner();
    let after_end = io::copy(&mut rest, &mut io::sink())?;
    if after_end > 0 && ledger.is_empty() {
        ledger.tell(Finding::new(FindingKind::Malformed, format!("{after_end} octets follow its end")));
    }
    let hashed = rest.into_inner().hash;
    let mut pruned = Vec::new();
    let log = scene.header.as_ref().and_then(|header| LogId::parse(&header.log));
    if let (Some(log), Some(evidence)) = (log, &scene.evidence) {
        let (proven, findings) = Announced::sorted(std::mem::take(&mut scene.announced), keys, log, evidence);
        ledger.add(0, findings, 0);
        pruned = proven;
    }
    let newest = scene.evidence.as_ref().and_then(|evidence| evidence.newest.as_ref());
    let heads = newest.map(|newest| newest.heads.clone()).unwrap_or_default();
    let report = ledger.report(
        log.map_or_else(String::new, |log| log.to_string()),
        scene.chains,
        scene.evidence.as_ref(),
        Vec::new(),
    );
    Ok(ReadExport {
        report,
        sha256: hex::encode(hashed.finalize()),
        checkpoint: newest.map(|newest| newest.number),
        log,
        heads,
        changes: scene.changes,
        pruned,
    })
}

/// What has been read so far.
struct Scene {
    header: Option<Header>,
    evidence: Option<Evidence>,
    /// Where each chain ended.
    ends: BTreeMap<ChainId, Head>,
    changes: Vec<Change>,
    announced: Vec<Announced>,
    chains: u64,
}

/// Why the rest cannot be read.
struct Stop(String);

fn stop<T>(what: impl Into<String>) -> Result<T, Stop> {
    Err(Stop(what.into()))
}

fn walk(
    lines: &mut Lines,
    keys: &BelievedKeys,
    copies: &[String],
    progress: &Arc<AtomicU64>,
    scene: &mut Scene,
    ledger: &mut Ledger,
) -> Result<(), Stop> {
    let first = lines.next()?;
    let Some(header) = parse::<Header>(&first).filter(|header| header.format == FORMAT) else {
        return stop(format!("it does not begin as a {FORMAT:?}"));
    };
    let Some(log) = LogId::parse(&header.log) else { return stop("the log's id has not 32 hexadecimal digits") };
    scene.header = Some(header.clone());

    let mut statements = Statements::new(keys, copies);
    let mut checkpoints = 0;
    let mut line = lines.next()?;
    while let Some(CheckpointLine { checkpoint }) = parse(&line) {
        checkpoints += 1;
        statements.take_one(&checkpoint);
        line = lines.next()?;
    }
    let mut evidence = statements.end(true);
    for finding in std::mem::take(&mut evidence.findings) {
        ledger.tell(finding);
    }
    ends_of_checkpoints(&header, log, &evidence, ledger);
    let starts = Starts { log, header: &header, evidence: &evidence };
    let end = chains(lines, line, &starts, progress, scene, ledger);
    let newest = evidence.newest.clone();
    scene.evidence = Some(evidence);
    let end = end?;
    if let Some(newest) = newest {
        for head in newest.heads {
            match scene.ends.remove(&head.chain()) {
                None => {
                    let what = format!("checkpoint {} knows it, and it is not in the file", newest.number);
                    ledger.tell(Finding::new(FindingKind::ChainMissing, what).in_chain(head.chain()));
                }
                Some(found) if found.position > head.position => {
                    let what = format!("its last checkpoint knows records up to {} only", head.position.sequence());
                    let (from, to) = (head.position.sequence() + 1, found.position.sequence());
                    ledger.tell(Finding::new(FindingKind::Inserted, what).in_chain(head.chain()).of_records(from, to));
                }
                // What is missing was told by the walk.
                Some(_) => {}
            }
        }
        for chain in std::mem::take(&mut scene.ends).into_keys() {
            let what = format!("checkpoint {} does not know it", newest.number);
            ledger.tell(Finding::new(FindingKind::Inserted, what).in_chain(chain));
        }
    }
    let counted = End { checkpoints, chains: scene.chains, records: ledger.records };
    if end != counted {
        return stop(format!("it says {end:?}, and it has {counted:?}"));
    }
    lines.end()
}

fn ends_of_checkpoints(header: &Header, log: LogId, evidence: &Evidence, ledger: &mut Ledger) {
    let (Some(first), Some(newest)) = (&evidence.first, &evidence.newest) else {
        ledger.tell(Finding::new(FindingKind::Checkpoint, "there is none in the file"));
        return;
    };
    let mut tell = |number: i64, what: String| {
        ledger.tell(Finding::new(FindingKind::Checkpoint, what).of_checkpoint(number));
    };
    let begins = header.cut.unwrap_or(1);
    if first.number != begins {
        tell(first.number, format!("the file begins with it, and should with {begins}"));
    }
    if newest.number != header.checkpoint {
        tell(newest.number, format!("the file ends with it, and should with {}", header.checkpoint));
    }
    if newest.log != log {
        let what = format!("the file says it is of log {log}, its checkpoints are of log {}", newest.log);
        ledger.tell(Finding::new(FindingKind::OtherLog, what));
    }
}

/// Where chains may begin.
struct Starts<'a> {
    log: LogId,
    header: &'a Header,
    evidence: &'a Evidence,
}

impl Starts<'_> {
    fn of(&self, chain: ChainId) -> Head {
        let cut = self.evidence.first.as_ref().filter(|_| self.header.cut.is_some());
        let cut = cut.and_then(|first| first.head_of(chain)).copied();
        cut.unwrap_or_else(|| Head::before_first(self.log, chain))
    }

    fn marks(&self, chain: ChainId) -> Arc<[Mark]> {
        self.evidence.marks.get(&chain).cloned().unwrap_or_default()
    }
}

/// Hands chains and runs over to the thread that hashes.
enum Step {
    Chain(Head, Arc<[Mark]>),
    Records(Run),
}

fn chains(
    lines: &mut Lines,
    line: String,
    starts: &Starts<'_>,
    progress: &Arc<AtomicU64>,
    scene: &mut Scene,
    ledger: &mut Ledger,
) -> Result<End, Stop> {
    let (steps, taken) = sync_channel(8);
    std::thread::scope(|scope| {
        let hashing = scope.spawn(move || hash(&taken, scene, ledger));
        let end = hand_over(lines, line, starts, progress, &steps);
        drop(steps);
        // A panic there is one here.
        hashing.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic));
        end
    })
}

/// Reads lines until the last one.
fn hand_over(
    lines: &mut Lines,
    mut line: String,
    starts: &Starts<'_>,
    progress: &Arc<AtomicU64>,
    steps: &SyncSender<Step>,
) -> Result<End, Stop> {
    // The other side is gone only where it has panicked.
    let hand = |step: Step| steps.send(step).map_err(|_| Stop("the rest was not looked at".to_owned()));
    let mut chain: Option<ChainId> = None;
    let mut run = Run::default();
    loop {
        if RecordLine::is_one(&line) {
            let Some(record) = RecordLine::parse(&line) else { return stop("it is no record") };
            let Some(position) = chain.and_then(|chain| Position::of(chain, record.sequence)) else {
                return stop("the record is in no chain");
            };
            run.push(position, record.at, record.hash.octets(), record.body.as_bytes());
            if run.bytes() > RUN_BYTES {
                progress.fetch_add(u64::try_from(run.len()).unwrap_or(0), Ordering::Relaxed);
                hand(Step::Records(std::mem::take(&mut run)))?;
            }
            lines.next_into(&mut line)?;
            continue;
        }
        progress.fetch_add(u64::try_from(run.len()).unwrap_or(0), Ordering::Relaxed);
        hand(Step::Records(std::mem::take(&mut run)))?;
        if let Some(end) = parse::<End>(&line) {
            return Ok(end);
        }
        let Some(start) = parse::<ChainLine>(&line).and_then(|line| line.head()) else {
            return stop("it is neither a chain, nor a record, nor the end");
        };
        if chain.is_some_and(|before| before >= start.chain()) {
            return stop("the chains are not in order");
        }
        let expected = starts.of(start.chain());
        if start != expected {
            let (has, wants) = (start.position, expected.position);
            return stop(format!(
                "it begins after {has} with hash {}, and should after {wants} with {}",
                start.hash, expected.hash
            ));
        }
        chain = Some(start.chain());
        hand(Step::Chain(start, starts.marks(start.chain())))?;
        lines.next_into(&mut line)?;
    }
}

fn hash(steps: &Receiver<Step>, scene: &mut Scene, ledger: &mut Ledger) {
    let mut walk: Option<Walk> = None;
    let mut settle = |walk: Option<Walk>| {
        let Some(walk) = walk else { return };
        if let Some(head) = walk.head() {
            scene.ends.insert(head.chain(), head);
        }
        let found = walk.end();
        scene.chains += 1;
        scene.changes.extend(found.changes);
        scene.announced.extend(found.pruned);
        ledger.add(found.records, found.findings, found.untold);
    };
    for step in steps {
        match step {
            Step::Chain(start, marks) => settle(walk.replace(Walk::new(start.chain(), marks, Some(start)))),
            Step::Records(run) => {
                if let Some(walk) = &mut walk {
                    walk.take_all(&run);
                }
            }
        }
    }
    settle(walk);
}

struct Lines {
    from: BufReader<GzDecoder<BufReader<Hashed>>>,
    line: Vec<u8>,
    number: u64,
}

impl Lines {
    fn next(&mut self) -> Result<String, Stop> {
        let mut line = String::new();
        self.next_into(&mut line)?;
        Ok(line)
    }

    fn next_into(&mut self, line: &mut String) -> Result<(), Stop> {
        self.number += 1;
        self.line.clear();
        let read = self.from.by_ref().take(LINE_BYTES).read_until(b'\n', &mut self.line);
        match read {
            Ok(0) => return stop("the file ends before its last line"),
            Ok(_) if self.line.pop() == Some(b'\n') => {}
            Ok(_) => return stop("the line has no end"),
            Err(error) => return stop(format!("it cannot be decompressed: {error}")),
        }
        let Ok(text) = std::str::from_utf8(&self.line) else { return stop("it is not UTF-8") };
        line.clear();
        line.push_str(text);
        Ok(())
    }

    /// Nothing follows.
    fn end(&mut self) -> Result<(), Stop> {
        let mut octet = [0];
        match self.from.read(&mut octet) {
            Ok(0) => Ok(()),
            Ok(_) => {
                self.number += 1;
                stop("there is more after the last line")
            }
            Err(error) => stop(format!("it cannot be decompressed: {error}")),
        }
    }
}

/// A file that is hashed as it is read.
struct Hashed {
    file: File,
    hash: Sha256,
}

impl Read for Hashed {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        let read = self.file.read(into)?;
        self.hash.update(into.get(..read).unwrap_or_default());
        Ok(read)
    }
}
