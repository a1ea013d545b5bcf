//! What died with a change: tokens that were issued under something, and have not expired.
//!
//! Takes what was revoked, suspended or ended, and the log through its index; gives the tokens by `jti` and by resource
//! server. A token whose answer was withheld never left and does not count. The log has every token that left (the record
//! comes first), and the fence issues none after the change: so the count is complete. It decides nothing.

use std::collections::{BTreeMap, HashSet};
use std::time::Duration;

use countersign_resource_server::time::UnixTime;
use serde::{Deserialize, Serialize};

use super::index::{AuditIndex, TermKind};
use super::query::{self, Filter};
use super::store::AuditEntry;
use crate::registry::{ClientId, KeyHash, ParticipantId, ResourceIndicator, StoreUnavailable, Thumbprint};

/// How far back a token that lives may have been issued: the longest life, and a node whose clock is behind by an hour.
const LOOK_BACK: Duration = Duration::from_secs(2 * 3_600);

/// Records that are read together.
const PAGE: usize = 2_000;

/// Under what tokens were issued that are dead now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Concerned {
    /// A certificate of a client, and every certificate of that client with its key, where that was revoked too.
    Certificate {
        /// Whose.
        client: ClientId,
        /// Which.
        thumbprint: Thumbprint,
        /// Its key, where that was revoked.
        key: Option<KeyHash>,
    },
    /// A client.
    Client(ClientId),
    /// A client at one resource server.
    Entitlement {
        /// Whose.
        client: ClientId,
        /// Where.
        resource: ResourceIndicator,
    },
    /// A participant.
    Participant(ParticipantId),
}

/// What died.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Receipt {
    /// How many tokens were issued and have not expired.
    pub tokens: usize,
    /// How many for each resource server.
    pub resource_servers: BTreeMap<String, usize>,
    /// Their `jti`s, in the order they were issued.
    pub jtis: Vec<String>,
}

/// Looks up what died at `now`.
///
/// # Errors
/// [`StoreUnavailable`].
pub async fn receipt(
    index: &dyn AuditIndex,
    concerned: &Concerned,
    now: UnixTime,
) -> Result<Receipt, StoreUnavailable> {
    let since = now.before(LOOK_BACK);
    let mut withheld = HashSet::new();
    each(index, vec![(TermKind::Kind, "withheld".to_owned())], since, |entry| {
        let jti = serde_json::from_str::<Withheld>(&entry.body).ok().and_then(|body| body.jti);
        withheld.extend(jti);
    })
    .await?;
    let mut receipt = Receipt::default();
    let names = vec![concerned.name(), (TermKind::Outcome, "issued".to_owned())];
    each(index, names, since, |entry| {
        let Some(token) = live(&entry.body, concerned, now) else { return };
        if withheld.contains(&token.jti) {
            return;
        }
        receipt.tokens += 1;
        *receipt.resource_servers.entry(token.aud).or_default() += 1;
        receipt.jtis.push(token.jti);
    })
    .await?;
    Ok(receipt)
}

impl Concerned {
    /// What every record of such a token names.
    pub fn name(&self) -> (TermKind, String) {
        match self {
            Self::Certificate { client, key: Some(_), .. }
            | Self::Client(client)
            | Self::Entitlement { client, .. } => (TermKind::Client, client.to_string()),
            Self::Certificate { thumbprint, key: None, .. } => (TermKind::Thumbprint, thumbprint.to_string()),
            Self::Participant(participant) => (TermKind::Participant, participant.to_string()),
        }
    }

    fn is_of(&self, decision: &Decision) -> bool {
        match self {
            Self::Certificate { thumbprint, key, .. } => {
                let key_hash = decision.peer.certificate.as_ref().map(|certificate| &certificate.key_hash);
                decision.peer.thumbprint.as_deref() == Some(thumbprint.to_string().as_str())
                    || key.as_ref().is_some_and(|key| key_hash == Some(&key.to_string()))
            }
            Self::Client(client) => decision.client_id == client.as_str(),
            Self::Entitlement { client, resource } => {
                decision.client_id == client.as_str() && decision.token.aud == resource.as_str()
            }
            Self::Participant(participant) => decision.participant_id == participant.as_str(),
        }
    }
}

#[derive(Deserialize)]
struct Withheld {
    jti: Option<String>,
}

/// What is read of the record of a token; the rest is skipped.
#[derive(Deserialize)]
struct Decision {
    kind: String,
    outcome: String,
    client_id: String,
    participant_id: String,
    peer: Peer,
    token: Token,
}

#[derive(Deserialize)]
struct Peer {
    thumbprint: Option<String>,
    certificate: Option<Certificate>,
}

#[derive(Deserialize)]
struct Certificate {
    key_hash: String,
}

#[derive(Deserialize)]
struct Token {
    jti: String,
    aud: String,
    exp: i64,
}

/// The token that a record is about, if it lives at `now` and was issued under `concerned`.
fn live(body: &str, concerned: &Concerned, now: UnixTime) -> Option<Token> {
    let decision: Decision = serde_json::from_str(body).ok()?;
    // RFC 7519 §4.1.4: not at or after its `exp`.
    let is_live = decision.kind == "decision"
        && decision.outcome == "issued"
        && now < UnixTime::from_seconds(decision.token.exp)
        && concerned.is_of(&decision);
    is_live.then_some(decision.token)
}

/// Hands over every record that names these, page by page.
async fn each(
    index: &dyn AuditIndex,
    names: Vec<(TermKind, String)>,
    since: UnixTime,
    mut take: impl FnMut(&AuditEntry),
) -> Result<(), StoreUnavailable> {
    let mut filter = Filter { names, since, ..Filter::default() };
    let mut limit = PAGE;
    // Those of the last instant come again with the next page.
    let mut taken: HashSet<i64> = HashSet::new();
    loop {
        let found = query::search(index, &filter, limit).await?;
        for entry in &found.entries {
            if !taken.contains(&entry.position.number()) {
                take(entry);
            }
        }
        let Some(last) = found.entries.last().filter(|_| found.more) else { return Ok(()) };
        // A page of one instant alone: a longer one gets past it.
        limit = if last.at == filter.since { limit.saturating_mul(2) } else { PAGE };
        filter.since = last.at;
        taken = found.entries.iter().filter(|entry| entry.at == last.at).map(|entry| entry.position.number()).collect();
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::registry::fixture::{NOW, client_id, participant_id};

    fn body() -> serde_json::Value {
        json!({
            "kind": "decision", "outcome": "issued", "client_id": "acme-1", "participant_id": "acme",
            "peer": { "thumbprint": Thumbprint::from_octets([1; 32]), "certificate": { "key_hash": "key" } },
            "token": { "jti": "j", "aud": "https://api.example/", "exp": NOW.as_seconds() + 1 },
        })
    }

    fn is_live(body: &serde_json::Value, concerned: &Concerned, now: UnixTime) -> bool {
        live(&body.to_string(), concerned, now).is_some()
    }

    #[test]
    fn a_token_counts_until_it_expires() {
        let client = Concerned::Client(client_id("acme-1"));
        let second = Duration::from_secs(1);
        assert!(is_live(&body(), &client, NOW));
        assert!(is_live(&body(), &client, NOW.after(second).before(Duration::from_millis(1))));
        assert!(!is_live(&body(), &client, NOW.after(second)));
    }

    #[test]
    fn a_token_counts_where_it_was_issued_under_what_ended() {
        let client = client_id("acme-1");
        let thumbprint = Thumbprint::from_octets([1; 32]);
        let at = |resource: &str| ResourceIndicator::parse(resource).unwrap();
        let certificate = |octet: u8| Concerned::Certificate {
            client: client_id("acme-1"),
            thumbprint: Thumbprint::from_octets([octet; 32]),
            key: None,
        };
        let entitlement =
            |resource: &str| Concerned::Entitlement { client: client_id("acme-1"), resource: at(resource) };
        for (concerned, expected) in [
            (Concerned::Client(client), true),
            (Concerned::Client(client_id("acme-2")), false),
            (Concerned::Participant(participant_id("acme")), true),
            (Concerned::Participant(participant_id("other")), false),
            (certificate(1), true),
            (certificate(2), false),
            (entitlement("https://api.example/"), true),
            (entitlement("https://other.example/"), false),
        ] {
            assert_eq!(is_live(&body(), &concerned, NOW), expected, "{concerned:?}");
        }
        assert!(body()["peer"]["thumbprint"] == json!(thumbprint));
    }

    #[test]
    fn what_was_refused_is_no_token() {
        let client = Concerned::Client(client_id("acme-1"));
        for (member, value) in [("outcome", "refused"), ("kind", "check")] {
            let mut body = body();
            body[member] = value.into();
            assert!(!is_live(&body, &client, NOW), "{member}");
        }
    }
}
