//! `countersign audit`: what happened, and whether the log still says so.

pub(super) mod evidence;

mod export;

pub(super) mod progress;

mod query;

mod verify;

use clap::Subcommand;

use super::output::Output;
use super::session::{Failure, Session};
use crate::config::{Config, ConfigMistakes};

/// What can be done with the audit log.
#[derive(Debug, Subcommand)]
pub(super) enum AuditCommand {
    /// Find records: what a certificate, a client or a token did, in order of time
    Query(query::QueryArguments),
    /// Check every record, every checkpoint and the history: was anything changed, removed, inserted, moved or put back?
    Verify(verify::VerifyArguments),
    /// Write everything up to a checkpoint into a file, and remove it from the store if that is asked for
    Export(export::ExportArguments),
}

impl AuditCommand {
    /// Whether it can do without a store.
    pub(super) const fn is_about_a_file(&self) -> bool {
        matches!(self, Self::Verify(arguments) if arguments.is_about_a_file())
    }
}

/// Runs the command.
///
/// # Errors
/// A sentence.
pub(super) async fn run(command: AuditCommand, session: &Session) -> Result<(), Failure> {
    match command {
        AuditCommand::Query(arguments) => query::run(arguments, session).await,
        AuditCommand::Verify(arguments) => verify::run(&arguments, session).await,
        AuditCommand::Export(arguments) => export::run(&arguments, session).await,
    }
}

/// Runs a command that [is about a file](AuditCommand::is_about_a_file), where there may be no store.
///
/// # Errors
/// A sentence.
pub(super) async fn run_on_file(
    command: AuditCommand,
    config: Result<Config, ConfigMistakes>,
    operator: Option<String>,
    output: Output,
) -> Result<(), Failure> {
    let AuditCommand::Verify(arguments) = command else { return Ok(()) };
    verify::run_on_file(&arguments, config, operator, output).await
}
