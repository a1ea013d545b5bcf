//! `countersign history`: every change of the registry, who made it and why.

use clap::Args;

use super::output::Output;
use super::session::{Failure, Session};
use crate::registry::RegistryVersion;
use crate::registry::history::{Actor, HistoryEntry};

/// Lists changes of the registry, oldest first.
#[derive(Debug, Args)]
pub(super) struct HistoryArguments {
    /// Changes after this registry version.
    #[arg(long, default_value_t = 0)]
    since: i64,
    /// Changes of one record: its kind, a colon and its id, for example client:payments.
    #[arg(long, value_parser = subject)]
    subject: Option<String>,
    /// At most so many.
    #[arg(long, default_value_t = 1000, value_parser = clap::value_parser!(u32).range(1..))]
    limit: u32,
}

/// Runs the command.
///
/// # Errors
/// The store does not answer.
pub(super) async fn run(arguments: HistoryArguments, session: &Session) -> Result<(), Failure> {
    let since = RegistryVersion(arguments.since);
    let entries = session.registry.history(since, arguments.subject, arguments.limit).await?;
    session.output.list(&entries, ["version", "at", "by", "action", "subject", "why"], |entry: &HistoryEntry| {
        [
            entry.version.to_string(),
            entry.at.to_string(),
            by(&entry.actor),
            entry.action.clone(),
            entry.subject.clone(),
            entry.why.clone().unwrap_or_default(),
        ]
    })?;
    // More than asked for, where the last version has several entries.
    if session.output == Output::People && entries.len() >= usize::try_from(arguments.limit).unwrap_or(usize::MAX) {
        let last = entries.last().map_or(since, |entry| entry.version);
        session.output.note(&format!("there may be more: --since {last}"))?;
    }
    Ok(())
}

fn subject(text: &str) -> Result<String, String> {
    match text.split_once(':') {
        Some((kind, id)) if !kind.is_empty() && !id.is_empty() => Ok(text.to_owned()),
        _ => Err("the kind of a record, a colon and its id, as the column `subject` has them".to_owned()),
    }
}

fn by(actor: &Actor) -> String {
    match actor {
        Actor::Operator { system_user, stated_name: Some(name) } => format!("{name} ({system_user})"),
        Actor::Operator { system_user, stated_name: None } => system_user.clone(),
        Actor::Server { node } => format!("server {node}"),
    }
}
