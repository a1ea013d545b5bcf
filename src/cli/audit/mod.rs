//! `countersign audit`: what happened.

mod query;

use clap::Subcommand;

use super::session::{Failure, Session};

/// What can be done with the audit log.
#[derive(Debug, Subcommand)]
pub(super) enum AuditCommand {
    /// Find records: what a certificate, a client or a token did, in order of time
    Query(query::QueryArguments),
}

/// Runs the command.
///
/// # Errors
/// A sentence.
pub(super) async fn run(command: AuditCommand, session: &Session) -> Result<(), Failure> {
    match command {
        AuditCommand::Query(arguments) => query::run(arguments, session).await,
    }
}
