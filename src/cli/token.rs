//! `countersign token …`: single tokens.

use clap::Subcommand;
use countersign_resource_server::time::UnixTime;
use countersign_resource_server::token::claims::StatusReference;
use serde::{Deserialize, Serialize};

use super::session::{Failure, Session};
use crate::audit::AuditEntry;
use crate::audit::index::TermKind;
use crate::audit::query::{Filter, search};
use crate::registry::token::{AskedBy, KnownToken, TokenRevocation};
use crate::registry::{ClientId, ParticipantId, RegistryVersion, ResourceIndicator};

/// Tokens: revoke.
#[derive(Debug, Subcommand)]
pub(super) enum TokenCommand {
    /// End one token before its time, without having it
    Revoke {
        /// Its `jti`, as the audit log and a resource server's own log have it
        #[arg(long, value_parser = jti)]
        jti: String,
        /// Why, for the history
        #[arg(long, alias = "reason")]
        why: Option<String>,
    },
}

/// How many records name one token: it is issued once, and withheld or shown a few times.
const RECORDS: usize = 1_000;

/// What became of it, for machines.
#[derive(Serialize)]
struct Revoked<'a> {
    jti: &'a str,
    registry_version: RegistryVersion,
    #[serde(flatten)]
    token: Option<&'a KnownToken>,
}

/// Runs the command.
///
/// # Errors
/// What the registry refuses, as a sentence.
pub(super) async fn run(command: TokenCommand, session: &Session) -> Result<(), Failure> {
    let TokenCommand::Revoke { jti, why } = command;
    // Its end is when the mark may be forgotten. Where the log cannot tell it, the mark stays as long as any token lives.
    // A log that cannot be searched must not keep a token alive.
    let found = search(session.store(), &Filter::naming(TermKind::Jti, &jti), RECORDS).await;
    let unsearched = found.as_ref().err().map(ToString::to_string);
    let token = found.ok().and_then(|found| found.entries.iter().find_map(|entry| issued(entry, &jti)));
    let revocation = TokenRevocation { jti: jti.clone(), token: token.clone(), asked_by: AskedBy::Operator };
    let version = session.registry.revoke_token(revocation, session.explain(why)).await?;
    let sentence = match &token {
        Some(token) if token.expires_at <= session.now => format!(
            "token {jti} is revoked, registry version {version}; it was issued to {} for {} and expired at {}",
            token.client_id, token.aud, token.expires_at
        ),
        Some(token) => format!(
            "token {jti} is revoked, registry version {version}; it was issued to {} for {} and would have expired at {}",
            token.client_id, token.aud, token.expires_at
        ),
        None if let Some(why) = &unsearched => format!(
            "token {jti} is revoked, registry version {version}; the audit log could not be searched for it ({why})"
        ),
        None => format!(
            "token {jti} is revoked, registry version {version}; the audit log does not say that it was issued: check the jti"
        ),
    };
    session.output.done(&sentence, &Revoked { jti: &jti, registry_version: version, token: token.as_ref() })
}

/// What the record of its decision says of a token.
fn issued(entry: &AuditEntry, jti: &str) -> Option<KnownToken> {
    #[derive(Deserialize)]
    struct Decision {
        kind: String,
        outcome: String,
        client_id: ClientId,
        participant_id: ParticipantId,
        token: Token,
    }
    #[derive(Deserialize)]
    struct Token {
        jti: String,
        aud: ResourceIndicator,
        exp: i64,
        status_list: Option<StatusReference>,
    }
    let decision: Decision = serde_json::from_str(&entry.body).ok()?;
    let is_it = decision.kind == "decision" && decision.outcome == "issued" && decision.token.jti == jti;
    is_it.then(|| KnownToken {
        client_id: decision.client_id,
        participant_id: decision.participant_id,
        aud: decision.token.aud,
        expires_at: UnixTime::from_seconds(decision.token.exp),
        status_list: decision.token.status_list,
    })
}

/// How long a `jti` may be: this server's have 28 characters.
const LONGEST_JTI_BYTES: usize = 256;

fn jti(text: &str) -> Result<String, String> {
    let is_one =
        !text.is_empty() && text.len() <= LONGEST_JTI_BYTES && text.bytes().all(|byte| byte.is_ascii_graphic());
    if is_one { Ok(text.to_owned()) } else { Err("the jti claim of a token, not the token".to_owned()) }
}
