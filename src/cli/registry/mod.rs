//! `countersign registry …`: the whole registry as lines of JSON.

mod export;

mod import;

mod line;

mod reading;

mod writing;

#[cfg(test)]
mod tests;

use std::path::PathBuf;

use clap::{Args, Subcommand};

use super::session::{Failure, Session};

/// The registry as a whole: out of it, and into it.
#[derive(Debug, Subcommand)]
pub(super) enum RegistryCommand {
    /// Write every record as a line of JSON (docs/registry-import.md): what `import` takes.
    Export {
        /// The file, for its owner alone, never one that is there; standard output, where none is named.
        file: Option<PathBuf>,
    },
    /// Enter every record of a file at one moment, or none; servers go on meanwhile.
    Import(ImportArguments),
}

/// From where.
#[derive(Debug, Args)]
pub(super) struct ImportArguments {
    /// The file (docs/registry-import.md); standard input, where it is `-`.
    file: PathBuf,
    /// Why, for the history.
    #[arg(long)]
    why: Option<String>,
}

/// Runs the command.
///
/// # Errors
/// A sentence: what is wrong with the file, or what the registry refuses.
pub(super) async fn run(command: RegistryCommand, session: &Session) -> Result<(), Failure> {
    match command {
        RegistryCommand::Export { file } => export::run(file.as_deref(), session).await,
        RegistryCommand::Import(arguments) => import::run(arguments, session).await,
    }
}
