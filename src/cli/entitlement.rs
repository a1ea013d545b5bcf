//! `countersign entitlement …`: which client may use which API for what.

use clap::{Args, Subcommand};
use countersign_resource_server::scope::{Scope, ScopeToken};
use countersign_resource_server::time::UnixTime;
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

use super::receipt::{self, Ended};
use super::session::{Failure, Session};
use super::{every, found};
use crate::audit::receipt::Concerned;
use crate::registry::entitlement::Entitlement;
use crate::registry::{ClientId, EntitlementId, ResourceServerId};

/// Entitlements: give, list, end.
#[derive(Debug, Subcommand)]
pub(super) enum EntitlementCommand {
    /// Entitle a client to scopes of an API.
    Add(Add),
    /// List all, or one client's.
    List {
        /// Whose.
        #[arg(long)]
        client: Option<ClientId>,
    },
    /// End one, for good; the client's live tokens for that API are revoked.
    End {
        /// Its id.
        id: EntitlementId,
        /// Why, for the history.
        #[arg(long)]
        why: Option<String>,
    },
}

/// A new entitlement.
#[derive(Debug, Args)]
pub(super) struct Add {
    /// Its id; made from client and API where it is not given.
    #[arg(long)]
    id: Option<EntitlementId>,
    /// Who may.
    #[arg(long)]
    client: ClientId,
    /// Where.
    #[arg(long)]
    resource_server: ResourceServerId,
    /// What; may be repeated.
    #[arg(long = "scope", required = true, value_parser = scope_token)]
    scopes: Vec<ScopeToken>,
    /// Why it is given.
    #[arg(long)]
    reason: String,
    /// From when on, by RFC 3339; now, where it is not given.
    #[arg(long, value_parser = instant)]
    from: Option<UnixTime>,
    /// Until when, by RFC 3339; for ever, where it is not given.
    #[arg(long, value_parser = instant)]
    until: Option<UnixTime>,
}

/// Runs the command.
///
/// # Errors
/// What the registry refuses, as a sentence.
pub(super) async fn run(command: EntitlementCommand, session: &Session) -> Result<(), Failure> {
    match command {
        EntitlementCommand::Add(add) => {
            let id = match add.id {
                Some(id) => id,
                None => EntitlementId::parse(&proposed_id(&add.client, &add.resource_server, session.now))?,
            };
            let entitlement = Entitlement {
                id,
                client_id: add.client,
                resource_server_id: add.resource_server,
                scopes: add.scopes.into_iter().collect::<Scope>(),
                starts_at: add.from.unwrap_or(session.now),
                ends_at: add.until,
                reason: add.reason,
                ended_at: None,
            };
            let version = session.registry.add_entitlement(entitlement.clone(), session.explain(None)).await?;
            let sentence = format!("entitlement {} given, registry version {version}", entitlement.id);
            session.output.done(&sentence, &entitlement)
        }
        EntitlementCommand::List { client } => {
            if let Some(client) = &client {
                super::client::stored(client, session).await?;
            }
            let id = |one: &Entitlement| one.id.to_string();
            let all = every(|page| session.registry.entitlements(client.as_ref(), page), id).await?;
            session.output.list(&all, ["id", "client", "resource server", "scopes", "from", "until", "reason"], |one| {
                [
                    one.id.to_string(),
                    one.client_id.to_string(),
                    one.resource_server_id.to_string(),
                    one.scopes.to_string(),
                    one.starts_at.to_string(),
                    one.end().map(|end| end.to_string()).unwrap_or_default(),
                    one.reason.clone(),
                ]
            })
        }
        EntitlementCommand::End { id, why } => {
            let earlier = receipt::before(session).await;
            let version = session.registry.end_entitlement(id.clone(), session.explain(why)).await?;
            let after = found(session.registry.entitlement(&id).await?, "entitlement", &id)?;
            let sentence = format!("entitlement {id} has ended, registry version {version}");
            let resource_server = session.registry.resource_server(&after.resource_server_id).await?;
            let resource_server = found(resource_server, "resource server", &after.resource_server_id)?;
            let concerned =
                Concerned::Entitlement { client: after.client_id.clone(), resource: resource_server.resource };
            receipt::done(session, Ended { concerned, earlier, version, sentence: &sentence }, &after).await
        }
    }
}

/// Client and API for people, the millisecond so that a second one gets another id. A `client_id` may have characters
/// an id may not.
fn proposed_id(client: &ClientId, resource_server: &ResourceServerId, now: UnixTime) -> String {
    let plain = |text: &str| -> String {
        text.chars().map(|letter| if letter.is_ascii_alphanumeric() { letter } else { '-' }).take(20).collect()
    };
    format!("{}.{}.{}", plain(client.as_str()), plain(resource_server.as_str()), now.as_millis())
}

fn scope_token(text: &str) -> Result<ScopeToken, String> {
    ScopeToken::parse(text).map_err(|error| error.to_string())
}

pub(super) fn instant(text: &str) -> Result<UnixTime, String> {
    let parsed = OffsetDateTime::parse(text, &Rfc3339)
        .map_err(|_| "an instant by RFC 3339, for example 2027-01-01T00:00:00Z".to_owned())?;
    Ok(UnixTime::from_seconds(parsed.unix_timestamp()))
}
