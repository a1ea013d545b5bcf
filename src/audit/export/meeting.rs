//! Does an export belong before this store?
//!
//! Takes an export that was read and the store; gives findings and notes: whether the export's chains end where the store's
//! begin, and whether the history still is what the exported `change` records say.

use std::sync::Arc;

use super::reading::ReadExport;
use crate::audit::chain::{Head, Position};
use crate::audit::verify::{AuditReading, Comparison, Finding, FindingKind};
use crate::registry::StoreUnavailable;

/// Rows of the history that are read together.
const ROWS: u32 = 500;

/// Adds to the report of `export` how it fits the store.
///
/// # Errors
/// [`StoreUnavailable`] if the store does not answer.
pub async fn meet(export: &mut ReadExport, source: &Arc<dyn AuditReading>) -> Result<(), StoreUnavailable> {
    let outline = source.outline().await?;
    if export.log != Some(outline.log) {
        let what = format!("the store has log {}", outline.log);
        export.report.findings.push(Finding::new(FindingKind::OtherLog, what));
        return Ok(());
    }
    let (mut met, mut held, mut later) = (0_u32, 0_u32, 0_u32);
    for head in &export.heads {
        let cut = outline.chains().find(|(chain, _)| *chain == head.chain()).and_then(|(_, cut)| cut);
        let tell = |what: String| {
            let sequence = head.position.sequence();
            Finding::new(FindingKind::Cut, what).in_chain(head.chain()).of_records(sequence, sequence)
        };
        let Some(cut) = cut else {
            export.report.findings.push(tell("the store does not have this chain".to_owned()));
            continue;
        };
        if cut.position > head.position {
            later += 1;
        } else if cut.position == head.position {
            if cut.hash == head.hash {
                met += 1;
            } else {
                let what = format!("the export ends with hash {}, the store begins after {}", head.hash, cut.hash);
                export.report.findings.push(tell(what));
            }
        } else if holds(source, *head).await? {
            held += 1;
        } else {
            let what = "the export ends with a record that the store should have, and has not";
            export.report.findings.push(tell(what.to_owned()));
        }
    }
    export.report.notes.extend(
        [
            (met, "chains go on in the store where the export ends"),
            (held, "chains of the export are, or are in part, still in the store"),
            (later, "chains begin later in the store: what is between is in later exports"),
        ]
        .into_iter()
        .filter(|(count, _)| *count > 0)
        .map(|(count, what)| format!("{count} {what}")),
    );
    history(export, source).await
}

async fn holds(source: &Arc<dyn AuditReading>, head: Head) -> Result<bool, StoreUnavailable> {
    let before = Position::of(head.chain(), head.position.sequence().saturating_sub(1));
    let Some(before) = before else { return Ok(false) };
    let run = source.run(before, head.position, 1).await?;
    Ok(run.iter().any(|record| record.position == head.position && record.hash == head.hash))
}

async fn history(export: &mut ReadExport, source: &Arc<dyn AuditReading>) -> Result<(), StoreUnavailable> {
    let last = export.changes.iter().map(|change| change.place).max().unwrap_or_default();
    let mut comparison = Comparison::of(export.changes.iter().copied());
    let mut after = (i64::MIN, i64::MIN);
    'pages: loop {
        let rows = source.history(after, ROWS).await?;
        let Some(end) = rows.last() else { break };
        after = end.place;
        for row in &rows {
            if row.place > last {
                break 'pages;
            }
            // Those that have no record in this export have one in another, or in the store.
            comparison.row(row, (i64::MIN, i64::MIN), last);
        }
    }
    export.report.findings.extend(comparison.end(last));
    Ok(())
}
