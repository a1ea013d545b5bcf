//! `countersign resource-server …`: the APIs tokens are for.

use std::path::PathBuf;

use clap::{Args, Subcommand, ValueEnum};
use countersign_resource_server::scope::{Scope, ScopeToken};
use countersign_resource_server::token::jws::SigningAlgorithm;

use super::certificate::{read_leaf, thumbprint};
use super::receipt::{self, Ended};
use super::session::{Failure, Session};
use super::{every, found};
use crate::audit::receipt::Concerned;
use crate::mint::ALGORITHMS;
use crate::registry::resource_server::{ResourceServer, ResourceServerState, StatusClaim};
use crate::registry::{ParticipantId, ResourceIndicator, ResourceServerId, Thumbprint};

/// APIs: enter, change, list, retire.
#[derive(Debug, Subcommand)]
pub(super) enum ResourceServerCommand {
    /// Enter an API.
    Add(Add),
    /// List all.
    List,
    /// Change by which certificates an API proves itself, how answers to it are signed, and whether its tokens name a status list.
    Change(Change),
    /// Show one.
    Show {
        /// Its id.
        id: ResourceServerId,
    },
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
    /// A certificate of its own, in PEM or DER, by which it proves itself where it asks about tokens; may be repeated.
    #[arg(long = "certificate", value_name = "FILE")]
    certificates: Vec<PathBuf>,
    /// How signed answers to it are signed.
    #[arg(long, default_value = "ES256", value_parser = signing_algorithm)]
    introspection_alg: SigningAlgorithm,
    /// Its tokens say where their status is in a Token Status List (docs/status-list.md), for an API that does not embed the
    /// crate.
    #[arg(long)]
    status_list: bool,
    /// Why, for the history.
    #[arg(long)]
    why: Option<String>,
}

/// What changes of an API.
#[derive(Debug, Args)]
pub(super) struct Change {
    /// Its id.
    id: ResourceServerId,
    /// One more certificate of its own, in PEM or DER; may be repeated.
    #[arg(long = "certificate", value_name = "FILE")]
    certificates: Vec<PathBuf>,
    /// A certificate that is its own no more, by thumbprint; may be repeated.
    #[arg(long = "without-certificate", value_name = "THUMBPRINT", value_parser = thumbprint, allow_hyphen_values = true)]
    without: Vec<Thumbprint>,
    /// How signed answers to it are signed.
    #[arg(long, value_parser = signing_algorithm)]
    introspection_alg: Option<SigningAlgorithm>,
    /// Whether its tokens say where their status is in a Token Status List.
    #[arg(long)]
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
                certificates: own_certificates(&add.certificates, session).await?,
                introspection_signed_response_alg: add.introspection_alg,
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
        ResourceServerCommand::Change(change) => {
            let id = &change.id;
            let mut changed = found(session.registry.resource_server(id).await?, "resource server", id)?;
            for thumbprint in &change.without {
                if !changed.certificates.contains(thumbprint) {
                    return Err(format!("resource server {id} has no certificate {thumbprint}").into());
                }
            }
            changed.certificates.retain(|thumbprint| !change.without.contains(thumbprint));
            changed.certificates.extend(own_certificates(&change.certificates, session).await?);
            if let Some(algorithm) = change.introspection_alg {
                changed.introspection_signed_response_alg = algorithm;
            }
            if let Some(switch) = change.status_list {
                changed.status = if switch == Switch::On { StatusClaim::StatusList } else { StatusClaim::Absent };
            }
            let version = session.registry.change_resource_server(changed.clone(), session.explain(change.why)).await?;
            session.output.done(&format!("resource server {id} changed, registry version {version}"), &changed)
        }
        ResourceServerCommand::Show { id } => {
            session.output.record(&found(session.registry.resource_server(&id).await?, "resource server", &id)?)
        }
        ResourceServerCommand::Retire { id, why } => {
            let earlier = receipt::before(session).await;
            let version = session.registry.retire_resource_server(id.clone(), session.explain(why)).await?;
            let after = found(session.registry.resource_server(&id).await?, "resource server", &id)?;
            let sentence = format!("resource server {id} is retired, registry version {version}");
            let concerned = Concerned::ResourceServer(after.resource.clone());
            receipt::done(session, Ended { concerned, earlier, version, sentence: &sentence }, &after).await
        }
    }
}

/// The certificates in these files. The registry takes none that is a client's; nor is one taken whose key a client has.
async fn own_certificates(files: &[PathBuf], session: &Session) -> Result<Vec<Thumbprint>, Failure> {
    let mut certificates = Vec::new();
    for file in files {
        let leaf = read_leaf(file)?;
        let asker = session.registry.asker(leaf.thumbprint(), leaf.key_hash()).await?;
        if asker.is_a_client || asker.key_is_revoked {
            let what = if asker.is_a_client { "is a client's, or has a client's key" } else { "has a revoked key" };
            let file = file.display();
            return Err(format!("{file}: this certificate {what}: a resource server needs one of its own").into());
        }
        certificates.push(*leaf.thumbprint());
    }
    Ok(certificates)
}

pub(super) fn signing_algorithm(text: &str) -> Result<SigningAlgorithm, String> {
    let known = SigningAlgorithm::parse(text).filter(|algorithm| ALGORITHMS.contains(algorithm));
    known.ok_or_else(|| format!("one of {}", ALGORITHMS.map(SigningAlgorithm::as_str).join(", ")))
}

fn scope_token(text: &str) -> Result<ScopeToken, String> {
    ScopeToken::parse(text).map_err(|_| "one scope, without spaces, quotes and backslashes (RFC 6749 §3.3)".to_owned())
}

/// RFC 8707 §2: an absolute URI.
pub(super) fn absolute(text: &str) -> Result<ResourceIndicator, String> {
    let scheme = text.split_once(':').map_or("", |(scheme, _)| scheme);
    let absolute = scheme.starts_with(|first: char| first.is_ascii_alphabetic())
        && scheme.chars().all(|other| other.is_ascii_alphanumeric() || matches!(other, '+' | '-' | '.'));
    if !absolute {
        return Err("an absolute URI, for example https://api.example".to_owned());
    }
    ResourceIndicator::parse(text).map_err(|error| error.to_string())
}
