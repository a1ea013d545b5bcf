//! Verification of the log in a store, while servers write to it or not.
//!
//! The order in which it reads makes sure that nothing is found that is not so. Copies kept elsewhere were read before
//! anything here, and a checkpoint is stored before it is copied: the store has every one of them. Then checkpoints: what
//! they know of is in the store already, for the records were durable before the checkpoint was made. Then the outline: each
//! chain a checkpoint knows was there before. Then records: at least as far as both say, since a record and the row of the
//! history it stands for count in one transaction. Then the history: a row is there before its record. Whatever came
//! later on the way is judged as far as it was seen. Only a prune takes something away: where one moved a cut meanwhile,
//! and something was found, all is read again.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use futures_util::{StreamExt, TryStreamExt, stream};

use super::changes::{Change, Comparison};
use super::finding::{Finding, FindingKind};
use super::pruned::{Announced, Pruned};
use super::source::{AuditReading, Outline};
use super::statement::{Evidence, Statements};
use super::walk::{Found, Mark, Walk};
use super::{Ledger, Report};
use crate::audit::believed::BelievedKeys;
use crate::audit::chain::{ChainId, Head, Position};
use crate::audit::restored::RestoredLog;
use crate::registry::StoreUnavailable;

/// How many stretches are walked at the same time. A run goes through three threads, one of which always waits for the next:
/// with as many as the store has connections for, two cores have something to do nearly all the time.
const AT_ONCE: usize = 4;

/// From how many records on a chain is walked in more than one stretch.
const STRETCH: i64 = 20_000;

/// Into how many.
const STRETCHES: i64 = 8;

/// How many records are asked for first; then as many as have [`RUN_BYTES`].
const FIRST_RUN: u32 = 256;

/// Copied several times on its way: it is to stay in the processor's own memory. And SQLite's memory comes from the C library,
/// which maps large pieces anew each time: with twice as many octets half of all the time went into empty pages.
const RUN_BYTES: usize = 160 * 1024;

const LONGEST_RUN: u32 = 8_192;

/// Checkpoints that are read together.
const PAGE: u32 = 200;

/// Rows of the history that are read together.
const ROWS: u32 = 500;

/// How often all is read again, for records are being removed.
const TRIES: usize = 4;

/// How old a record may look that is in a chain no checkpoint knows yet.
const LATE: Duration = Duration::from_secs(60);

/// Verifies the whole log.
///
/// `progress` counts the records that were walked.
///
/// # Errors
/// [`StoreUnavailable`] if the store does not answer.
pub async fn verify(
    source: &Arc<dyn AuditReading>,
    keys: &BelievedKeys,
    copies: &[String],
    progress: &Arc<AtomicU64>,
) -> Result<Report, StoreUnavailable> {
    let mut tried = 1;
    loop {
        let first = first_statement(source).await?;
        let (report, outline) = once(source, keys, copies, progress).await?;
        // Cuts move first and statements go last: only where neither did has nothing been removed meanwhile.
        let is_still =
            source.outline().await?.cuts_of(&outline) == outline.cuts && first_statement(source).await? == first;
        if report.findings.is_empty() || is_still {
            return Ok(report);
        }
        if tried == TRIES {
            return Err(StoreUnavailable::because(
                "records are being removed all the time: verify again once that is done",
            ));
        }
        tried += 1;
        progress.store(0, Ordering::Relaxed);
    }
}

/// The number of the first checkpoint there is.
async fn first_statement(source: &Arc<dyn AuditReading>) -> Result<Option<i64>, StoreUnavailable> {
    Ok(source.statements(0, 1).await?.first().map(|statement| statement.number))
}

impl Outline {
    /// The cuts of the chains that are in `other`.
    fn cuts_of(&self, other: &Self) -> Vec<(i64, i64, Vec<u8>)> {
        let known: BTreeSet<i64> = other.cuts.iter().map(|cut| cut.0).collect();
        self.cuts.iter().filter(|cut| known.contains(&cut.0)).cloned().collect()
    }
}

async fn once(
    source: &Arc<dyn AuditReading>,
    keys: &BelievedKeys,
    copies: &[String],
    progress: &Arc<AtomicU64>,
) -> Result<(Report, Outline), StoreUnavailable> {
    let mut evidence = statements(source, keys, copies).await?;
    let outline = source.outline().await?;
    let mut ledger = Ledger::new(std::mem::take(&mut evidence.findings));
    another_log(&outline, &evidence, &mut ledger);

    let mut changes = Vec::new();
    let mut announced = Vec::new();
    let mut chains = 0;
    for (chain, cut) in outline.chains() {
        chains += 1;
        let marks = evidence.marks.get(&chain).cloned().unwrap_or_default();
        let start = cut.unwrap_or_else(|| Head::before_first(outline.log, chain));
        let found = chain_of(source, marks, start, progress).await?;
        if let (Some(newest), Some((at, sequence))) = (&evidence.newest, found.oldest)
            && newest.head_of(chain).is_none()
            && at < newest.at.before(LATE)
        {
            let what = format!("it is older than checkpoint {}, which does not know this chain", newest.number);
            let finding = Finding::new(FindingKind::Inserted, what).in_chain(chain).of_records(sequence, sequence);
            ledger.tell(finding.of_checkpoint(newest.number).at(at));
        }
        changes.extend(found.changes);
        announced.extend(found.pruned);
        ledger.add(found.records, found.findings, found.untold);
    }
    let (pruned, unproven) = Announced::sorted(announced, keys, outline.log, &evidence);
    ledger.add(0, unproven, 0);
    cuts(&outline, &evidence, &pruned, &mut ledger);
    strays(source, &outline, &evidence, &mut ledger).await?;
    let latest_prune = pruned.iter().max_by_key(|pruned| pruned.checkpoint);
    let exported = pruned.iter().map(|pruned| pruned.history).max().unwrap_or_default();
    let on_record = restores(source, &outline, &mut evidence, &changes, exported, &mut ledger).await?;
    history(source, &outline, changes, exported, &mut ledger).await?;

    let (mut notes, unexplained) = evidence.judged(&on_record);
    ledger.add(0, unexplained, 0);
    if evidence.newest.is_none() && ledger.records > 0 {
        notes.push("there is no checkpoint yet: nothing is signed".to_owned());
    }
    if let Some(pruned) = latest_prune {
        notes.push(format!(
            "records up to checkpoint {} were exported to {} (SHA-256 {}), and removed",
            pruned.checkpoint, pruned.file, pruned.sha256
        ));
    }
    notes.extend(pruned.iter().filter_map(|pruned| {
        let key = keys.withdrawal(&pruned.proof)?;
        Some(format!("the prune to checkpoint {} is {}", pruned.checkpoint, key.warning()))
    }));
    Ok((ledger.report(outline.log.to_string(), chains, Some(&evidence), notes), outline))
}

async fn statements(
    source: &Arc<dyn AuditReading>,
    keys: &BelievedKeys,
    copies: &[String],
) -> Result<Evidence, StoreUnavailable> {
    let mut statements = Statements::new(keys, copies).knowing(&source.restored().await?);
    let mut after = i64::MIN;
    loop {
        let page = source.statements(after, PAGE).await?;
        let Some(last) = page.last() else { return Ok(statements.end(false)) };
        after = last.number;
        // Some 60 microseconds each: this task has nothing else to do.
        tokio::task::yield_now().await;
        for stored in &page {
            statements.take(stored);
        }
    }
}

fn another_log(outline: &Outline, evidence: &Evidence, ledger: &mut Ledger) {
    if let Some(newest) = evidence.newest.as_ref().filter(|newest| newest.log != outline.log) {
        let what = format!("this is log {}, and its checkpoints are of log {}", outline.log, newest.log);
        ledger.tell(Finding::new(FindingKind::OtherLog, what).of_checkpoint(newest.number).at(newest.at));
    }
    for (chain, sequence, hash) in &outline.cuts {
        let is_one = ChainId::new(*chain).is_some_and(|chain| Position::of(chain, *sequence).is_some());
        if !is_one || hash.len() != 32 {
            let what =
                format!("chain {chain} was cut at {sequence}, with a hash of {} octets: that cannot be", hash.len());
            ledger.tell(Finding::new(FindingKind::Cut, what));
        }
    }
    let listed: BTreeSet<i64> = outline.cuts.iter().map(|cut| cut.0).collect();
    for (chain, marks) in evidence.marks.iter().filter(|(chain, _)| !listed.contains(&chain.number())) {
        let what = match marks.iter().max_by_key(|mark| mark.sequence) {
            Some(mark) => format!("checkpoint {} knows it up to record {}", mark.checkpoint, mark.sequence),
            None => continue,
        };
        ledger.tell(Finding::new(FindingKind::ChainMissing, what).in_chain(*chain));
    }
}

/// Walks a chain from where it was cut, in stretches where it is long.
async fn chain_of(
    source: &Arc<dyn AuditReading>,
    marks: Arc<[Mark]>,
    start: Head,
    progress: &Arc<AtomicU64>,
) -> Result<Found, StoreUnavailable> {
    let chain = start.chain();
    let whole = Walk::new(chain, Arc::clone(&marks), Some(start));
    let Some(last) = source.last(chain).await? else { return Ok(whole.end()) };
    let (from, to) = (start.position.sequence(), last.sequence());
    if to - from < STRETCH {
        return Ok(stretch(source, whole, start.position, last, progress).await?.end());
    }
    let bounds: Vec<Position> = (0..=STRETCHES)
        .filter_map(|part| {
            Position::of(
                chain,
                from + i64::try_from(i128::from(to - from) * i128::from(part) / i128::from(STRETCHES)).ok()?,
            )
        })
        .collect();
    let stretches = bounds.windows(2).enumerate().filter_map(|(index, bounds)| {
        let [after, last] = *bounds else { return None };
        let walk = Walk::new(chain, Arc::clone(&marks), (index == 0).then_some(start));
        Some(stretch(source, walk, after, last, progress))
    });
    let mut walks = stream::iter(stretches).buffered(AT_ONCE).try_collect::<Vec<Walk>>().await?.into_iter();
    let mut all = walks.next().unwrap_or(whole);
    for next in walks {
        all.join(next);
    }
    Ok(all.end())
}

/// Walks the records after `after` up to `last`: a run is read while the one before it is hashed.
async fn stretch(
    source: &Arc<dyn AuditReading>,
    mut walk: Walk,
    mut after: Position,
    last: Position,
    progress: &Arc<AtomicU64>,
) -> Result<Walk, StoreUnavailable> {
    let mut run = source.run(after, last, FIRST_RUN).await?;
    while let Some(end) = run.end() {
        after = end;
        progress.fetch_add(u64::try_from(run.len()).unwrap_or(0), Ordering::Relaxed);
        let limit = next_length(run.len(), run.bytes());
        let walked = tokio::task::spawn_blocking(move || {
            walk.take_all(&run);
            walk
        });
        let (walked, next) = tokio::join!(walked, source.run(after, last, limit));
        walk = walked.map_err(StoreUnavailable::because)?;
        run = next?;
    }
    Ok(walk)
}

fn next_length(records: usize, bytes: usize) -> u32 {
    let each = (bytes / records.max(1)).max(1);
    let fit = u32::try_from(RUN_BYTES / each).unwrap_or(LONGEST_RUN);
    fit.clamp(16, LONGEST_RUN)
}

/// Is each cut one that a `pruned` record, which is proven, and a checkpoint speak of?
fn cuts(outline: &Outline, evidence: &Evidence, pruned: &[Pruned], ledger: &mut Ledger) {
    let latest =
        pruned.iter().filter(|pruned| evidence.is_held(pruned.checkpoint)).max_by_key(|pruned| pruned.checkpoint);
    for (chain, cut) in outline.chains() {
        let Some(cut) = cut else { continue };
        let sequence = cut.position.sequence();
        let tell =
            |what: String| Finding::new(FindingKind::Cut, what).in_chain(chain).of_records(1.min(sequence), sequence);
        if sequence == 0 {
            if cut != Head::before_first(outline.log, chain) {
                ledger.tell(tell("the hash it begins with is not the one of this chain of this log".to_owned()));
            }
            continue;
        }
        let Some(pruned) = latest else {
            ledger.tell(tell(format!(
                "records up to {sequence} are gone, and no `pruned` record that is signed says where they went"
            )));
            continue;
        };
        match evidence.said_by(pruned.checkpoint, chain) {
            // A prune goes on from here to there; the records between were walked, up to the hash that is signed.
            Some(said) if said.sequence > sequence => {}
            Some(said) if said.sequence == sequence && said.hash == cut.hash => {}
            Some(said) => ledger.tell(tell(format!(
                "it was cut at record {sequence} with hash {}; checkpoint {}, which the `pruned` record names, has record {} with hash {}",
                cut.hash, pruned.checkpoint, said.sequence, said.hash
            ))),
            None => ledger.tell(tell(format!(
                "it was cut at record {sequence}; checkpoint {}, which the `pruned` record names, does not know it",
                pruned.checkpoint
            ))),
        }
    }
    if let Some(first) = evidence.first.as_ref().filter(|first| first.number != 1)
        && !pruned.iter().any(|pruned| pruned.checkpoint >= first.number)
    {
        let what = "those before it are gone, and no `pruned` record that is signed says that they were exported";
        ledger.tell(Finding::new(FindingKind::Checkpoint, what).of_checkpoint(first.number).at(first.at));
    }
}

/// Records where none may be: before a cut, and in chains that are not listed.
async fn strays(
    source: &Arc<dyn AuditReading>,
    outline: &Outline,
    evidence: &Evidence,
    ledger: &mut Ledger,
) -> Result<(), StoreUnavailable> {
    let mut found = Vec::new();
    let mut after = i64::MIN;
    for (chain, cut) in outline.chains() {
        let start = cut.unwrap_or_else(|| Head::before_first(outline.log, chain)).position.number();
        found.extend(source.between(after, start.saturating_add(1)).await?);
        after = Position::last_of(chain).number();
    }
    found.extend(source.between(after, i64::MAX).await?);
    // Chains that were made meanwhile are listed by now.
    let listed: BTreeSet<i64> = source.outline().await?.cuts.iter().map(|cut| cut.0).collect();
    let before: BTreeSet<i64> = outline.cuts.iter().map(|cut| cut.0).collect();
    for number in found {
        let position = Position::from_number(number);
        let finding = match position {
            Some(position) if before.contains(&position.chain().number()) => {
                let what = "it stands before the record that its chain begins after";
                Finding::new(FindingKind::Inserted, what)
                    .in_chain(position.chain())
                    .of_records(position.sequence(), position.sequence())
            }
            Some(position) if listed.contains(&position.chain().number()) => continue,
            Some(position) => {
                // What a checkpoint knows is told of already.
                if evidence.marks.contains_key(&position.chain()) {
                    continue;
                }
                let what = "records stand in a chain that is not listed, and that no checkpoint knows";
                Finding::new(FindingKind::ChainMissing, what)
                    .in_chain(position.chain())
                    .of_records(position.sequence(), position.sequence())
            }
            None => Finding::new(FindingKind::Inserted, format!("a record stands at {number}, which is no place")),
        };
        ledger.tell(finding);
    }
    Ok(())
}

/// The restores that this log has on record: in a chain, among what was exported, or next to be put in a chain. Whoever signs
/// the statement of one where it is only tried out puts it in that store's history, and in no other's.
async fn restores(
    source: &Arc<dyn AuditReading>,
    outline: &Outline,
    evidence: &mut Evidence,
    changes: &[Change],
    exported: crate::audit::HistoryPlace,
    ledger: &mut Ledger,
) -> Result<Vec<RestoredLog>, StoreUnavailable> {
    let mut on_record = Vec::new();
    for restored in std::mem::take(&mut evidence.restored) {
        let place = restored.place();
        // The row itself is compared with its record below.
        let is_told = source.history((place.0, place.1 - 1), 1).await?.iter().any(|row| restored.is_told_by(row));
        let is_placed =
            place <= exported || place > outline.history || changes.iter().any(|change| change.place == place);
        if is_told && is_placed {
            on_record.push(restored);
        } else {
            let what = format!(
                "the statement of a restore that began epoch {} at {} is in the store, and no such restore is on record: it is \
                 another store's, and explains nothing",
                restored.epoch, restored.at
            );
            ledger.tell(Finding::new(FindingKind::History, what).at(restored.at));
        }
    }
    Ok(on_record)
}

/// Compares the history with the `change` records.
async fn history(
    source: &Arc<dyn AuditReading>,
    outline: &Outline,
    changes: Vec<Change>,
    exported: crate::audit::HistoryPlace,
    ledger: &mut Ledger,
) -> Result<(), StoreUnavailable> {
    let mut comparison = Comparison::of(changes);
    let on_record = comparison.last().unwrap_or_default().max(exported);
    if outline.history > on_record {
        let what = format!("it is said to be on record up to {:?}, and is up to {on_record:?}", outline.history);
        ledger.tell(Finding::new(FindingKind::History, what));
    }
    let end = comparison.last().unwrap_or_default().max(outline.history);
    let mut after = (i64::MIN, i64::MIN);
    'pages: loop {
        let rows = source.history(after, ROWS).await?;
        let Some(last) = rows.last() else { break };
        after = last.place;
        for row in &rows {
            if row.place > end {
                break 'pages;
            }
            comparison.row(row, outline.history, exported);
        }
    }
    // No record is written before the log says how far the history is in it.
    let in_chains = source.outline().await?.history;
    if on_record > in_chains {
        let what = format!("it is on record up to {on_record:?}, and is said to be up to {in_chains:?} only");
        ledger.tell(Finding::new(FindingKind::History, what));
    }
    if in_chains < outline.history {
        let what = "how far the history is in the log went back while this was read";
        ledger.tell(Finding::new(FindingKind::History, what));
    }
    ledger.add(0, comparison.end(in_chains), 0);
    Ok(())
}
