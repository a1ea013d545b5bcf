//! The commands: what an operator types.
//!
//! Takes the command line, reads the configuration it names, runs one command, and gives the process's exit code: 0, 1
//! where the command was refused or failed, 2 where it could not be understood. The commands know nothing of HTTP.

pub mod anchor;

mod audit;

mod backup;

pub mod certificate;

mod check_config;

pub mod client;

pub mod entitlement;

mod expiring;

pub mod history;

mod init;

mod key;

mod keys_at_hand;

pub mod output;

pub mod participant;

pub mod quickstart;

mod receipt;

pub mod registry;

pub mod resource_server;

mod restore;

mod serve;

pub mod session;

mod token;

pub mod trust_domain;

use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::{Parser, Subcommand};
use tokio::runtime::{Builder, Runtime};

use countersign_resource_server::time::{Clock, SystemClock};
use output::Output;
use session::Session;
pub use session::{Failure, system_user};

use crate::config::{Config, ConfigMistakes};
use crate::registry::{Page, StoreUnavailable};

/// A partner's certificate in, a token out that only that certificate can use.
#[derive(Debug, Parser)]
#[command(name = "countersign", version, propagate_version = true)]
struct CommandLine {
    /// The configuration file; otherwise ./countersign.toml, otherwise the embedded default in ./countersign-data
    #[arg(long, global = true, env = "COUNTERSIGN_CONFIG", value_name = "FILE")]
    config: Option<PathBuf>,
    /// Who gives the command, for the history: stated, not proven
    #[arg(long, global = true, env = "COUNTERSIGN_OPERATOR", value_name = "NAME")]
    operator: Option<String>,
    /// Answer in JSON, dates in RFC 3339
    #[arg(long, global = true)]
    json: bool,
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Everything on one machine, nothing to prepare: a token used, stolen and revoked before your eyes
    Quickstart(quickstart::QuickstartArguments),
    /// Make the data directory, the schema and the signing keys, where they are missing
    Init,
    /// Run the authorization server
    Serve,
    /// Check the configuration and the server's certificate: every mistake at once
    CheckConfig,
    /// Organisations that take part
    #[command(subcommand)]
    Participant(participant::ParticipantCommand),
    /// Certificate authorities that vouch for names
    #[command(subcommand)]
    Anchor(anchor::AnchorCommand),
    /// SPIFFE trust domains that vouch for ids
    #[command(subcommand)]
    TrustDomain(trust_domain::TrustDomainCommand),
    /// Applications of participants
    #[command(subcommand)]
    Client(client::ClientCommand),
    /// Certificates of clients
    #[command(subcommand)]
    Certificate(certificate::CertificateCommand),
    /// APIs that accept the tokens
    #[command(subcommand)]
    ResourceServer(resource_server::ResourceServerCommand),
    /// Who may call what
    #[command(subcommand)]
    Entitlement(entitlement::EntitlementCommand),
    /// Single tokens
    #[command(subcommand)]
    Token(token::TokenCommand),
    /// Signing keys
    Key(key::KeyArgs),
    /// What happened: the audit log
    #[command(subcommand)]
    Audit(audit::AuditCommand),
    /// The whole registry as lines of JSON, out and in
    #[command(subcommand)]
    Registry(registry::RegistryCommand),
    /// Every change of the registry
    History(history::HistoryArguments),
    /// The whole store as one file, while servers run
    Backup(backup::BackupArguments),
    /// An empty store from such a file, and what has to be looked at before it is served
    Restore(restore::RestoreArguments),
}

/// Runs the command that the process was started with.
pub fn run() -> ExitCode {
    // Usage that cannot be understood ends here, with 2.
    let line = CommandLine::parse();
    let config = configuration(line.config.as_deref());
    let outcome = match runtime(&line.command, &config) {
        Ok(runtime) => runtime.block_on(execute(line, config)),
        Err(error) => Err(error.into()),
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            // There is nobody left to tell where standard error is closed.
            // It may quote what somebody else has written.
            let text: Vec<String> = failure.to_string().lines().map(output::printable).collect();
            let _ = writeln!(std::io::stderr(), "countersign: {}", text.join("\n"));
            ExitCode::FAILURE
        }
    }
}

/// A server has as many threads as are configured; a command has what there is. One alone has nobody to share with, and
/// needs no queue that others can take from.
fn runtime(command: &Command, config: &Result<Config, ConfigMistakes>) -> std::io::Result<Runtime> {
    let workers = match (command, config) {
        (Command::Serve, Ok(config)) => Some(config.workers),
        _ => None,
    };
    let mut builder = match workers {
        Some(1) => Builder::new_current_thread(),
        _ => Builder::new_multi_thread(),
    };
    if let Some(workers) = workers {
        builder.worker_threads(workers);
    }
    builder.enable_all().build()
}

async fn execute(line: CommandLine, config: Result<Config, ConfigMistakes>) -> Result<(), Failure> {
    let output = if line.json { Output::Json } else { Output::People };
    let command = match line.command {
        Command::Quickstart(arguments) => return quickstart::run(arguments).await,
        Command::CheckConfig => return check_config::run(config, output),
        Command::Init => return init::run(config?, output).await,
        Command::Serve => return serve::run(config?).await,
        Command::Key(arguments) => {
            return key::run(arguments, config?, line.operator, SystemClock::new().now(), output).await;
        }
        Command::Audit(command) if command.is_about_a_file() => {
            return audit::run_on_file(command, config, line.operator, output).await;
        }
        Command::Restore(arguments) if arguments.is_about_an_empty_store() => {
            return restore::run_on_empty(arguments, config?, line.operator, output).await;
        }
        command => command,
    };
    let session = Session::open(config?, line.operator, output).await?;
    let outcome = match command {
        Command::Participant(command) => participant::run(command, &session).await,
        Command::Anchor(command) => anchor::run(command, &session).await,
        Command::TrustDomain(command) => trust_domain::run(command, &session).await,
        Command::Client(command) => client::run(command, &session).await,
        Command::Certificate(command) => certificate::run(command, &session).await,
        Command::ResourceServer(command) => resource_server::run(command, &session).await,
        Command::Entitlement(command) => entitlement::run(command, &session).await,
        Command::Token(command) => token::run(command, &session).await,
        Command::Audit(command) => audit::run(command, &session).await,
        Command::Registry(command) => registry::run(command, &session).await,
        Command::History(arguments) => history::run(arguments, &session).await,
        Command::Backup(arguments) => backup::run(&arguments, &session).await,
        Command::Restore(arguments) => restore::run(arguments, &session).await,
        // Taken above: they open the store in ways of their own.
        Command::CheckConfig | Command::Init | Command::Key(_) | Command::Quickstart(_) | Command::Serve => Ok(()),
    };
    session.close().await;
    outcome
}

fn configuration(file: Option<&Path>) -> Result<Config, ConfigMistakes> {
    // A value that is no UTF-8 turns into one that its key does not take.
    let environment = std::env::vars_os()
        .map(|(name, value)| (name.to_string_lossy().into_owned(), value.to_string_lossy().into_owned()));
    Config::load(file, environment)
}

/// How many records a command reads at a time.
const PAGE: u32 = 500;

/// All records of a list, page by page.
async fn every<R>(
    mut list: impl AsyncFnMut(Page) -> Result<Vec<R>, StoreUnavailable>,
    id: impl Fn(&R) -> String,
) -> Result<Vec<R>, Failure> {
    let mut all: Vec<R> = Vec::new();
    loop {
        let page = match all.last() {
            Some(last) => Page::after(id(last), PAGE),
            None => Page::first(PAGE),
        };
        let read = list(page).await?;
        if read.is_empty() {
            return Ok(all);
        }
        all.extend(read);
    }
}

fn found<R>(record: Option<R>, kind: &str, id: &impl std::fmt::Display) -> Result<R, Failure> {
    record.ok_or_else(|| format!("there is no {kind} {id}").into())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// One hash in 64 begins with the hyphen of base64url.
    #[test]
    fn a_hash_may_begin_with_a_hyphen() {
        let hash = "-9h47DEQpj8HBSa-_TImW-5JCeuQeRkm5NMpJWZG3hQ";
        for line in [
            vec!["anchor", "show", hash],
            vec!["anchor", "change", hash, "--no-crl"],
            vec!["anchor", "check-revocation", hash, "--json"],
            vec!["anchor", "grant", hash, "--participant", "acme", "--any-name"],
            vec!["anchor", "withdraw", hash, "--participant", "acme"],
            vec!["anchor", "retire", "--why", "x", hash],
            vec!["certificate", "show", hash],
            vec!["certificate", "supersede", hash],
            vec!["certificate", "revoke", hash, "--reason", "superseded"],
            vec!["certificate", "revoke", "--issuer-key", hash, "--serial", "01"],
            vec!["certificate", "revoke-key", hash],
            vec!["key", "retire", "--now", hash],
            vec!["resource-server", "change", "api", "--without-certificate", hash],
            vec!["key", "retire", hash, "--now"],
            vec!["certificate", "add", "next.pem", "--client", "acme-1", "--replaces", hash],
        ] {
            let parsed = CommandLine::try_parse_from(["countersign"].iter().chain(&line));
            assert!(parsed.is_ok(), "{line:?}: {}", parsed.err().map(|error| error.to_string()).unwrap_or_default());
        }
        for line in [["anchor", "show", "-h"], ["certificate", "show", "--help"]] {
            let told = CommandLine::try_parse_from(["countersign"].iter().chain(&line)).unwrap_err();
            assert_eq!(told.kind(), clap::error::ErrorKind::DisplayHelp, "{line:?}");
        }
        let unknown = CommandLine::try_parse_from(["countersign", "anchor", "change", hash, "--no-clr"]).unwrap_err();
        assert_eq!(unknown.kind(), clap::error::ErrorKind::UnknownArgument);
    }
}
