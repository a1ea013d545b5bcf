//! `countersign resource-server …`: the APIs tokens are for.

use clap::{Args, Subcommand, ValueEnum};
use countersign_resource_server::scope::{Scope, ScopeToken};

use super::session::{Failure, Session};
use super::{every, found};
use crate::registry::resource_server::{ResourceServer, ResourceServerState, StatusClaim};
use crate::registry::{ParticipantId, ResourceIndicator, ResourceServerId};

/// APIs: enter, list, change, retire.
#[derive(Debug, Subcommand)]
pub(super) enum ResourceServerCommand {
    /// Enter an API.
    Add(Add),
    /// List all.
    List,
    /// Show one.
    Show {
        /// Its id.
        id: ResourceServerId,
    },
    /// Change it: what is not said stays as it is.
    Change(Change),
    /// Issue no more tokens for it, for good; the live ones are revoked.
    Retire {
        /// Its id.
        id: ResourceServerId,
        /// Why, for the history.
        #[arg(long)]
        why: Option<String>,
    },
}

/// A new API.
#[derive(Debug, Args)]
pub(super) struct Add {
    /// Its id here.
    id: ResourceServerId,
    /// The URI clients name in `resource` and tokens in `aud` (RFC 8707); compared as text.
    #[arg(long, value_parser = absolute)]
    resource: ResourceIndicator,
    /// A scope it knows; may be repeated.
    #[arg(long = "scope", required = true, value_parser = scope_token)]
    scopes: Vec<ScopeToken>,
    /// The participant that runs it; the operator, where nobody is named.
    #[arg(long)]
    owner: Option<ParticipantId>,
    /// The longest life of a token for it, in seconds.
    #[arg(long, value_parser = clap::value_parser!(i64).range(1..=3600))]
    lifetime_seconds: Option<i64>,
    /// Its tokens say where their status is in a Token Status List (docs/status-list.md), for an API that does not embed the
    /// crate.
    #[arg(long)]
    status_list: bool,
    /// Why, for the history.
    #[arg(long)]
    why: Option<String>,
}

/// An API as it is to be.
#[derive(Debug, Args)]
pub(super) struct Change {
    /// Its id here.
    id: ResourceServerId,
    /// Whether its tokens say where their status is in a Token Status List.
    #[arg(long, required = true)]
    status_list: Option<Switch>,
    /// Why, for the history.
    #[arg(long)]
    why: Option<String>,
}

/// Whether something is done.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Switch {
    On,
    Off,
}

/// Runs the command.
///
/// # Errors
/// What the registry refuses, as a sentence.
pub(super) async fn run(command: ResourceServerCommand, session: &Session) -> Result<(), Failure> {
    match command {
        ResourceServerCommand::Add(add) => {
            let resource_server = ResourceServer {
                id: add.id,
                resource: add.resource,
                scopes: add.scopes.into_iter().collect::<Scope>(),
                owner: add.owner,
                access_token_lifetime_seconds: add.lifetime_seconds,
                subject: None,
                certificate: None,
                status: if add.status_list { StatusClaim::StatusList } else { StatusClaim::Absent },
                state: ResourceServerState::Active,
            };
            let version =
                session.registry.add_resource_server(resource_server.clone(), session.explain(add.why)).await?;
            let sentence = format!("resource server {} entered, registry version {version}", resource_server.id);
            session.output.done(&sentence, &resource_server)
        }
        ResourceServerCommand::List => {
            let id = |one: &ResourceServer| one.id.to_string();
            let all = every(|page| session.registry.resource_servers(page), id).await?;
            session.output.list(&all, ["id", "state", "resource", "scopes"], |one| {
                [one.id.to_string(), one.state.as_str().to_owned(), one.resource.to_string(), one.scopes.to_string()]
            })
        }
        ResourceServerCommand::Show { id } => {
            session.output.record(&found(session.registry.resource_server(&id).await?, "resource server", &id)?)
        }
        ResourceServerCommand::Change(Change { id, status_list, why }) => {
            let before = found(session.registry.resource_server(&id).await?, "resource server", &id)?;
            let status = match status_list {
                Some(Switch::On) => StatusClaim::StatusList,
                Some(Switch::Off) => StatusClaim::Absent,
                None => before.status,
            };
            let after = ResourceServer { status, ..before };
            let version = session.registry.change_resource_server(after.clone(), session.explain(why)).await?;
            session.output.done(&format!("resource server {id} changed, registry version {version}"), &after)
        }
        ResourceServerCommand::Retire { id, why } => {
            let version = session.registry.retire_resource_server(id.clone(), session.explain(why)).await?;
            let after = found(session.registry.resource_server(&id).await?, "resource server", &id)?;
            session.output.done(&format!("resource server {id} is retired, registry version {version}"), &after)
        }
    }
}

fn scope_token(text: &str) -> Result<ScopeToken, String> {
    ScopeToken::parse(text).map_err(|_| "one scope, without spaces, quotes and backslashes (RFC 6749 §3.3)".to_owned())
}

/// RFC 8707 §2: an absolute URI.
fn absolute(text: &str) -> Result<ResourceIndicator, String> {
    let scheme = text.split_once(':').map_or("", |(scheme, _)| scheme);
    let absolute = scheme.starts_with(|first: char| first.is_ascii_alphabetic())
        && scheme.chars().all(|other| other.is_ascii_alphanumeric() || matches!(other, '+' | '-' | '.'));
    if !absolute {
        return Err("an absolute URI, for example https://api.example".to_owned());
    }
    ResourceIndicator::parse(text).map_err(|error| error.to_string())
}
