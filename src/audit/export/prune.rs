//! Removing what was exported, so that a crash between any two steps leaves a log that verifies.
//!
//! First the `pruned` record, durable: from then on the log says where its older part went. Then each chain's cut moves up,
//! together with the removal of the records it passes, some at a time: whatever was reached, the chain begins after a
//! record whose hash leads to the checkpoint's. Last the checkpoints before that one. Where it was interrupted, the record
//! says up to where it goes on, and the file it names is complete: it was read again before the record was written. It
//! knows nothing of files.

use std::sync::Arc;

use super::ExportFailure;
use crate::audit::AuditStore;
use crate::audit::believed::BelievedKeys;
use crate::audit::chain::{Head, Position};
use crate::audit::checkpoint::{Checkpoint, statement_hash};
use crate::audit::command::record_pruned;
use crate::audit::verify::{Announced, AuditReading, Finding, FindingKind, Outline, Pruned};

/// Records that are removed in one transaction: some milliseconds, in which SQLite lets nobody else write.
const REMOVED_AT_ONCE: u32 = 1_000;

/// Records that are read together.
const RUN: u32 = 2_048;

/// Where to stop, for a test: as a crash there would.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Interruption {
    /// Nowhere.
    None,
    /// After this many transactions.
    After(u32),
}

/// Puts on record that everything up to checkpoint `pruned.checkpoint` was exported, and removes it.
///
/// # Errors
/// [`ExportFailure`]: what was not removed yet is removed by [`finish`].
pub async fn prune(
    source: &Arc<dyn AuditReading>,
    store: &dyn AuditStore,
    pruned: &Pruned,
    interruption: Interruption,
) -> Result<u64, ExportFailure> {
    record_pruned(store, pruned).await?;
    remove(source, pruned.checkpoint, interruption).await
}

/// The prune that was interrupted, if one was: its `pruned` record, which one of `keys` has signed. What nobody signed removes
/// nothing.
///
/// # Errors
/// [`ExportFailure`] if the store does not answer, or what is cut was never announced.
pub async fn unfinished(source: &Arc<dyn AuditReading>, keys: &BelievedKeys) -> Result<Option<Pruned>, ExportFailure> {
    let first = source.statements(i64::MIN, 1).await?;
    let first = first.first().and_then(|first| Checkpoint::read(&first.statement).ok());
    let outline = source.outline().await?;
    let cuts: Vec<Head> = outline.chains().filter_map(|(_, cut)| cut).collect();
    let is_cut = cuts.iter().any(|cut| cut.position.sequence() > 0);
    let is_there = |cut: &Head| {
        let begins = Head::before_first(outline.log, cut.chain());
        let said = first.as_ref().and_then(|first| first.head_of(cut.chain())).copied().unwrap_or(begins);
        *cut == said
    };
    if !is_cut || cuts.iter().all(is_there) {
        return Ok(None);
    }
    let newest = announced(source, &outline, keys).await?.into_iter().max_by_key(|pruned| pruned.checkpoint);
    newest.map(Some).ok_or_else(|| unannounced("the log was cut"))
}

/// What was cut, and no record that counts says so.
pub(super) fn unannounced(what: &str) -> ExportFailure {
    let what = format!("{what}, and no `pruned` record that is signed says so: `countersign audit verify` says more");
    ExportFailure::Tampered(Box::new(Finding::new(FindingKind::Cut, what)))
}

/// Every `pruned` record in the log that is signed and whose checkpoint is there. Others say nothing: whoever can write to the
/// store could keep the log from ever being pruned again with one, until the disk is full.
///
/// # Errors
/// [`ExportFailure`] if the store does not answer.
pub(super) async fn announced(
    source: &Arc<dyn AuditReading>,
    outline: &Outline,
    keys: &BelievedKeys,
) -> Result<Vec<Pruned>, ExportFailure> {
    let mut proven = Vec::new();
    for (chain, cut) in outline.chains() {
        let mut after = cut.unwrap_or_else(|| Head::before_first(outline.log, chain)).position;
        loop {
            let run = source.run(after, Position::last_of(chain), RUN).await?;
            let Some(end) = run.end() else { break };
            after = end;
            let records = run.iter().filter(|record| record.body.starts_with(r#"{"kind":"pruned""#));
            for announced in records.filter_map(|record| Announced::of(&record)) {
                let number = announced.checkpoint();
                let stored = source.statements(number.saturating_sub(1), 1).await?;
                let Some(stored) = stored.first().filter(|stored| stored.number == number) else { continue };
                let statement = statement_hash(&stored.statement);
                proven.extend(announced.proven(keys, outline.log, Some(statement)).ok());
            }
        }
    }
    Ok(proven)
}

/// Goes on with a prune that was interrupted.
///
/// # Errors
/// [`ExportFailure`]: it can be repeated.
pub async fn finish(source: &Arc<dyn AuditReading>, pruned: &Pruned) -> Result<u64, ExportFailure> {
    remove(source, pruned.checkpoint, Interruption::None).await
}

async fn remove(
    source: &Arc<dyn AuditReading>,
    checkpoint: i64,
    interruption: Interruption,
) -> Result<u64, ExportFailure> {
    let mut steps = 0;
    let mut is_over = || {
        steps += 1;
        matches!(interruption, Interruption::After(most) if steps > most)
    };
    let stored = source.statements(checkpoint.saturating_sub(1), 1).await?;
    let stored = stored.first().filter(|stored| stored.number == checkpoint);
    let Some(target) = stored.and_then(|stored| Checkpoint::read(&stored.statement).ok()) else {
        let what = "a `pruned` record names it, and it is not there";
        let finding = Finding::new(FindingKind::Checkpoint, what).of_checkpoint(checkpoint);
        return Err(ExportFailure::Tampered(Box::new(finding)));
    };
    let outline = source.outline().await?;
    let mut removed = 0;
    for (chain, cut) in outline.chains() {
        let (Some(mut cut), Some(head)) = (cut, target.head_of(chain)) else { continue };
        while cut.position < head.position {
            if is_over() {
                return Ok(removed);
            }
            let Some(moved) = source.cut(cut, head.position, REMOVED_AT_ONCE).await? else {
                let what = "it was cut by somebody else meanwhile, or records are missing";
                let finding = Finding::new(FindingKind::Cut, what).in_chain(chain);
                return Err(ExportFailure::Tampered(Box::new(finding)));
            };
            removed += u64::try_from(moved.position.sequence() - cut.position.sequence()).unwrap_or(0);
            cut = moved;
        }
    }
    if !is_over() {
        source.forget_statements(checkpoint).await?;
    }
    Ok(removed)
}
