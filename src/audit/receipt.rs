//! What died with a change: tokens that were issued under something, and have not expired.
//!
//! Takes what was revoked, suspended or ended, and the log through its index; gives the tokens one by one, and how many for
//! each resource server. A token whose answer was withheld never left and does not count; one that an earlier mark had ended
//! is told apart. The log has every token that left (the record comes first), and the fence issues none after the change: so
//! the count is complete. It decides nothing.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::time::Duration;

use countersign_resource_server::status::MarkKind;
use countersign_resource_server::time::UnixTime;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::index::{AuditIndex, TermKind};
use super::query::{self, Filter};
use super::store::AuditEntry;
use crate::registry::{
    AnchorId, ClientId, KeyHash, Mark, ParticipantId, ResourceIndicator, StoreUnavailable, Thumbprint,
};

/// How far back a token that lives may have been issued: the longest life, and a node whose clock is behind by an hour.
const LOOK_BACK: Duration = Duration::from_secs(2 * 3_600);

/// Records that are read together.
const PAGE: usize = 2_000;

/// Under what tokens were issued that are dead now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Concerned {
    /// A trust anchor.
    Anchor(AnchorId),
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
    /// A key, whoever has it.
    Key(KeyHash),
    /// A participant.
    Participant(ParticipantId),
    /// An API.
    ResourceServer(ResourceIndicator),
    /// A key of the server itself, by its `kid`.
    SigningKey(String),
}

/// What died.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Receipt {
    /// How many tokens were issued, have not expired and were good until then.
    pub tokens: usize,
    /// How many for each resource server.
    pub resource_servers: BTreeMap<String, usize>,
    /// How many more have not expired, and were dead already.
    pub dead_already: usize,
}

/// The marks that stood before the change.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct EarlierMarks(HashMap<MarkKind, HashMap<String, i64>>);

impl EarlierMarks {
    /// These.
    pub fn of(marks: Vec<Mark>) -> Self {
        let mut kinds: HashMap<MarkKind, HashMap<String, i64>> = HashMap::new();
        for mark in marks {
            kinds.entry(mark.kind).or_default().insert(mark.id, mark.version.0);
        }
        Self(kinds)
    }

    /// Whether one of them ends the token of this record: the rule by which resource servers read the list.
    fn end(&self, decision: &Decision) -> bool {
        if self.0.is_empty() {
            return false;
        }
        let token = &decision.token;
        let entitlement = format!("{} {}", decision.client_id, token.aud);
        let certificate = decision.peer.certificate.as_ref();
        let names = [
            (MarkKind::Issuer, Some(MarkKind::ANY_ISSUER)),
            (MarkKind::Participant, Some(decision.participant_id.as_str())),
            (MarkKind::Client, Some(decision.client_id.as_str())),
            (MarkKind::Certificate, decision.peer.thumbprint.as_deref()),
            (MarkKind::Key, certificate.map(|certificate| certificate.key_hash.as_str())),
            (MarkKind::Anchor, decision.anchor.as_deref()),
            (MarkKind::Entitlement, Some(entitlement.as_str())),
            (MarkKind::ResourceServer, Some(token.aud.as_str())),
            (MarkKind::SigningKey, token.kid.as_deref()),
            (MarkKind::Jti, Some(token.jti.as_str())),
        ];
        names.into_iter().any(|(kind, id)| {
            let version = id.and_then(|id| self.0.get(&kind)?.get(id));
            version.is_some_and(|version| {
                kind == MarkKind::SigningKey || decision.registry_version.is_some_and(|issued| issued < *version)
            })
        })
    }
}

/// Looks up what died at `now`: the `jti` of each token is handed over in the order they were issued and not kept, for there may
/// be a million. What was counted before a failure stands in `receipt`.
///
/// # Errors
/// [`StoreUnavailable`].
pub async fn look_up(
    index: &dyn AuditIndex,
    concerned: &Concerned,
    earlier: &EarlierMarks,
    now: UnixTime,
    receipt: &mut Receipt,
    mut died: impl FnMut(&str),
) -> Result<(), StoreUnavailable> {
    let since = now.before(LOOK_BACK);
    let mut withheld = HashSet::new();
    each(index, vec![(TermKind::Kind, "withheld".to_owned())], since, |entry| {
        let jti = serde_json::from_str::<Withheld>(&entry.body).ok().and_then(|body| body.jti);
        withheld.extend(jti);
    })
    .await?;
    let mut names = vec![(TermKind::Outcome, "issued".to_owned())];
    names.extend(concerned.term());
    each(index, names, since, |entry| {
        let Some(decision) = live(&entry.body, concerned, now) else { return };
        if withheld.contains(&decision.token.jti) {
            return;
        }
        if earlier.end(&decision) {
            receipt.dead_already += 1;
            return;
        }
        receipt.tokens += 1;
        *receipt.resource_servers.entry(decision.token.aud).or_default() += 1;
        died(&decision.token.jti);
    })
    .await
}

impl Concerned {
    /// What every record of such a token names, where records are found by that. All that were issued are looked through
    /// otherwise.
    fn term(&self) -> Option<(TermKind, String)> {
        match self {
            Self::Certificate { client, key: Some(_), .. }
            | Self::Client(client)
            | Self::Entitlement { client, .. } => Some((TermKind::Client, client.to_string())),
            Self::Certificate { thumbprint, key: None, .. } => Some((TermKind::Thumbprint, thumbprint.to_string())),
            Self::Participant(participant) => Some((TermKind::Participant, participant.to_string())),
            Self::Anchor(_) | Self::Key(_) | Self::ResourceServer(_) | Self::SigningKey(_) => None,
        }
    }

    /// What was asked, for the record of the look-up.
    pub fn asked(&self) -> Value {
        match self {
            Self::Anchor(id) => json!({ "anchor": id }),
            Self::Key(key) => json!({ "key_hash": key }),
            Self::ResourceServer(resource) => json!({ "aud": resource }),
            Self::SigningKey(kid) => json!({ "kid": kid }),
            Self::Certificate { .. } | Self::Client(_) | Self::Entitlement { .. } | Self::Participant(_) => {
                self.term().map_or(Value::Null, |(kind, text)| json!({ kind.as_str(): text }))
            }
        }
    }

    fn is_of(&self, decision: &Decision) -> bool {
        let key_hash = decision.peer.certificate.as_ref().map(|certificate| certificate.key_hash.as_str());
        match self {
            Self::Anchor(id) => decision.anchor.as_deref() == Some(id.as_str()),
            Self::Certificate { thumbprint, key, .. } => {
                decision.peer.thumbprint.as_deref() == Some(thumbprint.to_string().as_str())
                    || key.as_ref().is_some_and(|key| key_hash == Some(key.to_string().as_str()))
            }
            Self::Client(client) => decision.client_id == client.as_str(),
            Self::Entitlement { client, resource } => {
                decision.client_id == client.as_str() && decision.token.aud == resource.as_str()
            }
            Self::Key(key) => key_hash == Some(key.to_string().as_str()),
            Self::Participant(participant) => decision.participant_id == participant.as_str(),
            Self::ResourceServer(resource) => decision.token.aud == resource.as_str(),
            Self::SigningKey(kid) => decision.token.kid.as_deref() == Some(kid),
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
    anchor: Option<String>,
    registry_version: Option<i64>,
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
    kid: Option<String>,
}

/// The record of a token that lives at `now` and was issued under `concerned`, if this is one.
fn live(body: &str, concerned: &Concerned, now: UnixTime) -> Option<Decision> {
    let decision: Decision = serde_json::from_str(body).ok()?;
    // RFC 7519 §4.1.4: not at or after its `exp`.
    let is_live = decision.kind == "decision"
        && decision.outcome == "issued"
        && now < UnixTime::from_seconds(decision.token.exp)
        && concerned.is_of(&decision);
    is_live.then_some(decision)
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
    use crate::registry::RegistryVersion;
    use crate::registry::fixture::{NOW, client_id, participant_id};

    fn body() -> serde_json::Value {
        json!({
            "kind": "decision", "outcome": "issued", "client_id": "acme-1", "participant_id": "acme",
            "anchor": "anchor", "registry_version": 7,
            "peer": { "thumbprint": Thumbprint::from_octets([1; 32]), "certificate": { "key_hash": KeyHash::of(b"key") } },
            "token": { "jti": "j", "aud": "https://api.example/", "exp": NOW.as_seconds() + 1, "kid": "kid" },
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
            (Concerned::Anchor(AnchorId::parse("anchor").unwrap()), true),
            (Concerned::Anchor(AnchorId::parse("other").unwrap()), false),
            (Concerned::Key(KeyHash::of(b"key")), true),
            (Concerned::Key(KeyHash::of(b"other")), false),
            (Concerned::ResourceServer(at("https://api.example/")), true),
            (Concerned::ResourceServer(at("https://other.example/")), false),
            (Concerned::SigningKey("kid".to_owned()), true),
            (Concerned::SigningKey("other".to_owned()), false),
        ] {
            assert_eq!(is_live(&body(), &concerned, NOW), expected, "{concerned:?}");
        }
        assert!(body()["peer"]["thumbprint"] == json!(thumbprint));
    }

    #[test]
    fn a_token_was_dead_already_by_each_kind_of_mark_and_only_by_a_later_one() {
        let decision: Decision = serde_json::from_value(body()).unwrap();
        let ends = |decision: &Decision, kind, id: &str, version| {
            let mark = Mark { kind, id: id.to_owned(), version: RegistryVersion(version) };
            EarlierMarks::of(vec![mark]).end(decision)
        };
        let (thumbprint, key) = (Thumbprint::from_octets([1; 32]).to_string(), KeyHash::of(b"key").to_string());
        for (kind, id) in [
            (MarkKind::Anchor, "anchor"),
            (MarkKind::Certificate, thumbprint.as_str()),
            (MarkKind::Client, "acme-1"),
            (MarkKind::Entitlement, "acme-1 https://api.example/"),
            (MarkKind::Issuer, "*"),
            (MarkKind::Jti, "j"),
            (MarkKind::Key, key.as_str()),
            (MarkKind::Participant, "acme"),
            (MarkKind::ResourceServer, "https://api.example/"),
        ] {
            assert!(ends(&decision, kind, id, 8), "{kind:?}");
            assert!(!ends(&decision, kind, id, 7), "{kind:?}: issued after that");
            assert!(!ends(&decision, kind, "other", 8), "{kind:?}");
        }
        assert!(ends(&decision, MarkKind::SigningKey, "kid", 1), "whatever the version: the key is in other hands");
        let unknown = Decision { registry_version: None, ..decision };
        assert!(!ends(&unknown, MarkKind::Client, "acme-1", 8), "a record that does not tell: it is counted");
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
