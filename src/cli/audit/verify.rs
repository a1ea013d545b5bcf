//! `countersign audit verify`: is the log still what was written?

use std::path::{Path, PathBuf};
use std::sync::Arc;

use clap::Args;
use countersign_resource_server::time::{Clock, SystemClock};
use serde::Serialize;
use serde_json::json;

use super::evidence::{Evidence, EvidenceArguments};
use super::progress::Progress;
use crate::audit::command::record_reading;
use crate::audit::export::{self, ReadExport};
use crate::audit::verify::{self, AuditReading, Finding, Report};
use crate::cli::output::{Output, printable};
use crate::cli::session::{Failure, Session};
use crate::config::{Config, ConfigMistakes};

/// What is verified, and against what.
#[derive(Debug, Args)]
pub(in crate::cli) struct VerifyArguments {
    /// An export, instead of the store; where the store is at hand, also whether it goes on where the export ends.
    #[arg(long, value_name = "FILE")]
    file: Option<PathBuf>,
    #[command(flatten)]
    evidence: EvidenceArguments,
}

impl VerifyArguments {
    pub(super) const fn is_about_a_file(&self) -> bool {
        self.file.is_some()
    }
}

/// Verifies the log in the store.
///
/// # Errors
/// The store does not answer, or something was found.
pub(super) async fn run(arguments: &VerifyArguments, session: &Session) -> Result<(), Failure> {
    let Evidence { keys, copies } = arguments.evidence.read(Some(&session.config), Some(session.store())).await?;
    let source: Arc<dyn AuditReading> = Arc::new(session.store().clone());
    let progress = Progress::of("verified");
    let mut report = verify::verify(&source, &keys, &copies, progress.count()).await?;
    report.notes.extend(keys.doubt().map(str::to_owned));
    drop(progress);
    // Now that it has been read as it was, and before anything is shown.
    put_on_record(session, json!({ "findings": report.findings.len() })).await?;
    told(session.output, &report, &report)
}

/// A log that is damaged may take no record: what was found is told all the same.
async fn put_on_record(session: &Session, asked: serde_json::Value) -> Result<(), Failure> {
    // Not when the command began: that may be long ago, and a record that is older than a checkpoint is suspect.
    let (node, now) = (session.config.node.as_str(), SystemClock::new().now());
    let recorded = record_reading(session.store(), node, now, session.actor(), "audit verify", &asked).await;
    if let Err(error) = recorded {
        session.output.note(&format!("That the log was read could not be put on record: {error}"))?;
    }
    Ok(())
}

#[derive(Serialize)]
struct FileReport<'a> {
    file: &'a Path,
    sha256: &'a str,
    #[serde(flatten)]
    report: &'a Report,
}

/// Verifies an export, and whether it fits the store, where there is one.
///
/// # Errors
/// The file cannot be read, or something was found.
pub(super) async fn run_on_file(
    arguments: &VerifyArguments,
    config: Result<Config, ConfigMistakes>,
    operator: Option<String>,
    output: Output,
) -> Result<(), Failure> {
    let Some(file) = arguments.file.clone() else { return Ok(()) };
    let known = config.as_ref().ok().cloned();
    let session = match config {
        Ok(config) => Session::open(config, operator, output).await,
        Err(mistakes) => Err(mistakes.into()),
    };
    let store = session.as_ref().ok().map(Session::store);
    let evidence = arguments.evidence.read(known.as_ref(), store).await?;
    let doubt = evidence.keys.doubt().map(str::to_owned);
    let mut read = read(file.clone(), evidence).await?;
    read.report.notes.extend(doubt);
    let mut unmet = None;
    match session {
        Ok(session) => {
            let source: Arc<dyn AuditReading> = Arc::new(session.store().clone());
            let met = export::meet(&mut read, &source).await;
            let asked = json!({ "file": file.display().to_string(), "findings": read.report.findings.len() });
            let recorded = put_on_record(&session, asked).await;
            session.close().await;
            recorded?;
            unmet = met.err();
        }
        Err(error) => read.report.notes.push(format!("no store at hand to compare with: {error}")),
    }
    let whole = FileReport { file: &file, sha256: &read.sha256, report: &read.report };
    // What was found in the file is told whatever became of the store.
    told(output, &whole, &read.report)?;
    unmet.map_or(Ok(()), |error| Err(format!("the store could not be compared with: {error}").into()))
}

async fn read(file: PathBuf, evidence: Evidence) -> Result<ReadExport, Failure> {
    let progress = Progress::of("verified");
    let count = Arc::clone(progress.count());
    let name = file.display().to_string();
    let read =
        tokio::task::spawn_blocking(move || export::read(&file, &evidence.keys, &evidence.copies, &count)).await?;
    drop(progress);
    read.map_err(|error| format!("{name}: {error}").into())
}

fn told(output: Output, whole: &impl Serialize, report: &Report) -> Result<(), Failure> {
    match output {
        Output::Json => output.record(whole)?,
        Output::People => {
            output.note(&summary(report))?;
            for note in &report.notes {
                output.note(&printable(&format!("Note: {note}.")))?;
            }
            if !report.findings.is_empty() {
                output.list(&report.findings, ["what", "where", "at", "why"], |finding: &Finding| {
                    [
                        finding.kind.as_str().to_owned(),
                        finding.place(),
                        finding.at.map(|at| at.to_string()).unwrap_or_default(),
                        finding.explanation.clone(),
                    ]
                })?;
            }
            if report.findings_untold > 0 {
                output.note(&format!("and {} more", report.findings_untold))?;
            }
        }
    }
    match report.findings.len() {
        0 => Ok(()),
        1 => Err("the audit log is not what was written: one finding".into()),
        count => Err(format!("the audit log is not what was written: {count} findings").into()),
    }
}

fn summary(report: &Report) -> String {
    let Report { log, chains, records, checkpoints, copies_compared, unproven_signatures, .. } = report;
    let mut text = format!("Log {log}: {records} records in {chains} chains, {checkpoints} checkpoints");
    if let Some(newest) = &report.newest {
        text.push_str(&format!(", the newest {} of {}", newest.number, newest.at));
    }
    text.push_str(&format!("; {copies_compared} copies kept elsewhere are in it."));
    if *unproven_signatures > 0 {
        text.push_str(&format!(
            " {unproven_signatures} earlier checkpoints are signed with keys that are not at hand, or had been withdrawn by then: the hash in the next one vouches for each."
        ));
    }
    if report.findings.is_empty() {
        text.push_str(" Nothing was changed.");
    }
    text
}
