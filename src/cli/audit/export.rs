//! `countersign audit export`: the older part of the log as a file, and out of the store.

use std::path::PathBuf;
use std::sync::Arc;

use clap::Args;
use countersign_resource_server::time::{Clock, SystemClock, UnixTime};
use serde::Serialize;
use serde_json::json;
use time::format_description::well_known::Rfc3339;
use time::macros::format_description;
use time::{Date, OffsetDateTime};

use super::evidence;
use super::progress::Progress;
use crate::audit::believed::BelievedKeys;
use crate::audit::command::record_reading;
use crate::audit::export::{self, ExportFailure, Exported, Interruption, ReadExport};
use crate::audit::verify::{AuditReading, Pruned};
use crate::cli::keys_at_hand::KeysAtHand;
use crate::cli::output::printable;
use crate::cli::session::{Failure, Session};

/// What is exported, and where to.
#[derive(Debug, Args)]
pub(in crate::cli) struct ExportArguments {
    /// Up to the newest checkpoint that is not later: an instant by RFC 3339, or a date (its beginning, UTC)
    #[arg(long, value_name = "INSTANT", value_parser = instant)]
    before: UnixTime,
    /// The file: JSON lines, compressed with gzip. Never one that is there
    #[arg(long, value_name = "FILE")]
    to: PathBuf,
    /// Read the file again, and then remove from the store what is in it
    #[arg(long)]
    prune: bool,
}

#[derive(Serialize)]
struct Done<'a> {
    #[serde(flatten)]
    exported: &'a Exported,
    #[serde(skip_serializing_if = "Option::is_none")]
    sha256: Option<&'a str>,
    removed: u64,
}

/// Runs the command.
///
/// # Errors
/// [`ExportFailure`], as a sentence.
pub(super) async fn run(arguments: &ExportArguments, session: &Session) -> Result<(), Failure> {
    let store = session.store();
    let source: Arc<dyn AuditReading> = Arc::new(store.clone());
    // Before anything is read or written: without it nothing can be removed.
    let at_hand = KeysAtHand::of(&session.config, Some(store)).await?;
    let signer = if arguments.prune { Some(evidence::signer(&at_hand, session.now).await?) } else { None };
    let keys = evidence::own(&at_hand).await?;
    let node = session.config.node.as_str();
    let asked =
        json!({ "before": arguments.before, "to": arguments.to.display().to_string(), "prune": arguments.prune });
    record_reading(store, node, session.now, session.actor(), "audit export", &asked).await?;
    if let Some(before) = export::unfinished(&source, &keys).await? {
        if !arguments.prune {
            return Err(ExportFailure::Unfinished(before.checkpoint).into());
        }
        let removed = export::finish(&source, &before).await?;
        session.output.note(&format!(
            "Finished the prune to checkpoint {} that was interrupted: {removed} records removed, which are in {}.",
            before.checkpoint,
            printable(&before.file)
        ))?;
    }
    let selected = export::select(&source, arguments.before, &keys).await?;
    let progress = Progress::of("exported");
    let exported = export::write(&source, &selected, &arguments.to, progress.count()).await?;
    drop(progress);
    let Some(signer) = signer else {
        let done = Done { exported: &exported, sha256: None, removed: 0 };
        return session.output.done(&sentence(&exported), &done);
    };
    let read = read_again(&exported, keys).await?;
    let pruned = Pruned {
        kind: "pruned".to_owned(),
        at: SystemClock::new().now(),
        node: node.to_owned(),
        actor: session.actor().clone(),
        checkpoint: exported.checkpoint,
        file: file_name(&exported),
        sha256: read.sha256.clone(),
        records: exported.records,
        history: read.history(),
        proof: String::new(),
    };
    let pruned = pruned.signed(session.config.issuer.as_str(), selected.log(), selected.statement(), &signer)?;
    let removed = export::prune(&source, store, &pruned, Interruption::None).await?;
    let done = Done { exported: &exported, sha256: Some(&read.sha256), removed };
    let text = format!(
        "{} It was read again (SHA-256 {}), and {removed} records are out of the store.",
        sentence(&exported),
        read.sha256
    );
    session.output.done(&text, &done)
}

/// The file as it is on disk: only what can be read there is removed here.
async fn read_again(exported: &Exported, keys: BelievedKeys) -> Result<ReadExport, Failure> {
    let progress = Progress::of("read again");
    let (file, count) = (exported.file.clone(), Arc::clone(progress.count()));
    let read = tokio::task::spawn_blocking(move || export::read(&file, &keys, &[], &count)).await?;
    drop(progress);
    let read = read.map_err(|error| ExportFailure::File(exported.file.clone(), error))?;
    if let Some(finding) = read.report.findings.first() {
        return Err(ExportFailure::Unreadable(Box::new(finding.clone())).into());
    }
    if (read.checkpoint, read.report.records) != (Some(exported.checkpoint), exported.records) {
        return Err(format!("{} is not what was written", exported.file.display()).into());
    }
    Ok(read)
}

fn file_name(exported: &Exported) -> String {
    exported.file.file_name().unwrap_or_default().to_string_lossy().into_owned()
}

fn sentence(exported: &Exported) -> String {
    format!(
        "Exported {} records of {} chains up to checkpoint {} of {} to {}.",
        exported.records,
        exported.chains,
        exported.checkpoint,
        exported.until,
        exported.file.display()
    )
}

fn instant(text: &str) -> Result<UnixTime, String> {
    let problem = || "an instant by RFC 3339, for example 2027-01-01T00:00:00Z, or a date".to_owned();
    let at = match Date::parse(text, format_description!("[year]-[month]-[day]")) {
        Ok(date) => date.midnight().assume_utc(),
        Err(_) => OffsetDateTime::parse(text, &Rfc3339).map_err(|_| problem())?,
    };
    let millis = at.unix_timestamp_nanos().div_euclid(1_000_000);
    i64::try_from(millis).map(UnixTime::from_millis).map_err(|_| problem())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_instant_or_a_date() {
        assert_eq!(instant("2027-01-15"), Ok(UnixTime::from_seconds(1_799_971_200)));
        assert_eq!(instant("2027-01-15T08:00:00.5Z"), Ok(UnixTime::from_millis(1_800_000_000_500)));
        for bad in ["", "2027", "2027-13-01", "2027-01-15T08:00:00", "yesterday"] {
            assert!(instant(bad).is_err(), "{bad}");
        }
    }
}
