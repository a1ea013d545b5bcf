//! The bodies of records: JSON, one `kind` per occasion.
//!
//! Takes what the log was given, gives the text it keeps. Times are milliseconds, as everywhere in the stores; nothing a
//! stranger wrote is kept at more than a bounded length. Tokens, assertions and keys are never part of it.

use std::borrow::Cow;
use std::net::{IpAddr, SocketAddr};

use countersign_resource_server::time::UnixTime;
use countersign_resource_server::token::access_token::VerifiedToken;
use countersign_resource_server::token::claims::StatusReference;
use serde::Serialize;
use serde_json::value::RawValue;
use sha2::{Digest, Sha256};

use super::chain::Position;
use super::index::{Facts, Named, Term};
use super::store::{HistoryRow, Lease};
use super::trail::{Trail, shortened};
use super::verify::Pruned;
use super::{Asked as AskedAbout, Finding, RequestId};
use crate::client_auth::{ClientAuthRefusal, UsedAssertion};
use crate::error::Refusal;
use crate::mint::SignedToken;
use crate::pki::{ParsedCertificate, PresentedChain};
use crate::registry::history::Actor;
use crate::registry::{KeyHash, ResourceServerId, Thumbprint};

/// One decision, with everything it rests on.
#[derive(Serialize)]
struct Decision<'a> {
    kind: &'static str,
    at: UnixTime,
    node: &'a str,
    request_id: &'a str,
    peer: Peer<'a>,
    #[serde(skip_serializing_if = "Option::is_none")]
    asked: Option<Asked<'a>>,
    authenticated: bool,
    /// Which API asks about a token.
    #[serde(skip_serializing_if = "Option::is_none")]
    resource_server: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    client_id: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    participant_id: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    environment: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    authentication: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    anchor: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    registry_version: Option<i64>,
    outcome: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    stage: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    reason: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    token: Option<Token<'a>>,
}

#[derive(Serialize)]
struct Peer<'a> {
    remote: SocketAddr,
    protocol: &'static str,
    resumed: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    thumbprint: Option<&'a Thumbprint>,
    #[serde(skip_serializing_if = "Option::is_none")]
    certificate: Option<Cow<'a, RawValue>>,
}

/// What the leaf says: claimed, unless the client was authenticated.
#[derive(Serialize)]
struct Certificate<'a> {
    subject: Cow<'a, str>,
    issuer: Cow<'a, str>,
    subject_alt_names: Vec<Cow<'a, str>>,
    serial: Cow<'a, str>,
    key_hash: &'a KeyHash,
    not_before: UnixTime,
    not_after: UnixTime,
}

#[derive(Serialize)]
struct Asked<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    grant_type: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    client_id: Option<&'a str>,
    with_assertion: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    scope: Option<&'a str>,
    #[serde(skip_serializing_if = "<[String]>::is_empty")]
    resource: &'a [String],
}

#[derive(Serialize)]
struct Token<'a> {
    jti: &'a str,
    aud: &'a str,
    scope: String,
    exp: i64,
    kid: &'a str,
    /// As the token says it: a single token is found in its list by this alone.
    #[serde(skip_serializing_if = "Option::is_none")]
    status_list: Option<&'a StatusReference>,
    #[serde(skip_serializing_if = "Option::is_none")]
    assertion_jti: Option<&'a str>,
    /// Whose it is, where it was shown and need not be the asker's.
    #[serde(skip_serializing_if = "Option::is_none")]
    client_id: Option<&'a str>,
}

impl<'a> Token<'a> {
    /// One that was shown.
    fn shown(token: &'a VerifiedToken, used: Option<&'a UsedAssertion>) -> Self {
        let claims = token.claims();
        Self {
            jti: &claims.jti,
            aud: &claims.aud,
            scope: claims.scope.to_string(),
            exp: claims.exp,
            kid: token.kid(),
            status_list: claims.status.as_ref().map(|status| &status.status_list),
            assertion_jti: used.map(|used| used.jti.as_str()),
            client_id: Some(&claims.client_id),
        }
    }
}

impl Decision<'_> {
    /// Its body, and the terms that lead to it: known here, they need not be read from the body again.
    #[expect(clippy::expect_used, reason = "it has a JSON form, as every record, and JSON is UTF-8")]
    fn told(&self) -> Told {
        let mut body = Vec::with_capacity(USUAL_BYTES);
        serde_json::to_writer(&mut body, self).expect("a decision has a JSON form");
        let body = String::from_utf8(body).expect("JSON is UTF-8");
        let told = Told { body, terms: self.named().rows(self.at).collect() };
        debug_assert_eq!(told.terms, Named::of(&told.body).rows(self.at).collect::<Vec<_>>(), "{}", told.body);
        told
    }

    fn named(&self) -> Named<'_> {
        Named::by(Facts {
            kind: self.kind,
            outcome: self.outcome,
            reason: self.reason,
            request_id: self.request_id,
            client_id: self.client_id,
            participant_id: self.participant_id,
            thumbprint: self.peer.thumbprint.map(Thumbprint::to_string),
            asked_client_id: self.asked.as_ref().and_then(|asked| asked.client_id),
            jti: self.token.as_ref().map(|token| token.jti),
        })
    }
}

/// What the record of a decision takes, mostly.
const USUAL_BYTES: usize = 1_536;

/// A record, and by what it is found.
#[derive(Debug)]
pub(super) struct Told {
    /// JSON.
    pub(super) body: String,
    /// What it has rows of in the index.
    pub(super) terms: Vec<Term>,
}

/// The record of a decision.
pub(super) fn decision(node: &str, trail: &Trail, decision: Result<&SignedToken, &Refusal>) -> Told {
    facts(node, trail, decision).told()
}

/// The same, as part of another record.
pub(super) fn sample(node: &str, trail: &Trail, occasion: Occasion, refusal: &Refusal) -> serde_json::Value {
    let facts = match occasion {
        Occasion::Check => checked(node, trail, Some(refusal)),
        Occasion::Refusal => facts(node, trail, Err(refusal)),
        Occasion::Introspection => Decision { kind: "introspection", ..unrevoked(node, trail, refusal, None) },
        Occasion::Revocation => unrevoked(node, trail, refusal, None),
    };
    serde_json::to_value(facts).unwrap_or_default()
}

fn facts<'a>(node: &'a str, trail: &'a Trail, decision: Result<&'a SignedToken, &'a Refusal>) -> Decision<'a> {
    let refusal = decision.err();
    Decision {
        kind: "decision",
        outcome: if refusal.is_some() { "refused" } else { "issued" },
        stage: refusal.map(Refusal::stage),
        reason: refusal.map(Refusal::reason),
        token: decision.ok().map(|token| Token {
            jti: token.jti(),
            aud: token.resource().as_str(),
            scope: token.scope().to_string(),
            exp: token.expires_at(),
            kid: token.kid(),
            status_list: token.status().map(|status| &status.status_list),
            assertion_jti: token.assertion().map(|used| used.jti.as_str()),
            client_id: None,
        }),
        ..about(node, trail)
    }
}

/// The same of an assertion that turns out to have been used before: seldom written, so what leads to it is read from it then.
pub(super) fn replayed(node: &str, trail: &Trail) -> String {
    text(&facts(node, trail, Err(&ClientAuthRefusal::AssertionReplayed.into())))
}

/// The record of a check of a client's own certificate: what would have been refused first, if anything.
pub(super) fn check(node: &str, trail: &Trail, found: Option<&Refusal>) -> Told {
    checked(node, trail, found).told()
}

fn checked<'a>(node: &'a str, trail: &'a Trail, found: Option<&'a Refusal>) -> Decision<'a> {
    Decision {
        kind: "check",
        outcome: "checked",
        stage: found.map(Refusal::stage),
        reason: found.map(Refusal::reason),
        ..about(node, trail)
    }
}

/// The record of what becomes of a token that its client wants dead.
pub(super) fn revocation(node: &str, trail: &Trail, finding: &Finding<'_>, used: Option<&UsedAssertion>) -> Told {
    let about = about(node, trail);
    let token = finding.token.map(|token| Token::shown(token, used));
    Decision { kind: "revocation", outcome: finding.outcome, reason: finding.reason, token, ..about }.told()
}

/// The record of what a resource server was told of a token, or of why it was told nothing. Client and participant are the
/// token's.
pub(super) fn introspection(
    node: &str,
    trail: &Trail,
    resource_server: &ResourceServerId,
    told: Result<&AskedAbout<'_>, &Refusal>,
) -> Told {
    let about = Decision {
        kind: "introspection",
        authenticated: true,
        resource_server: Some(resource_server.as_str()),
        ..about(node, trail)
    };
    match told {
        Ok(asked) => {
            let claims = asked.token.map(VerifiedToken::claims);
            Decision {
                outcome: if asked.inactive.is_none() { "active" } else { "inactive" },
                reason: asked.inactive,
                client_id: claims.map(|claims| claims.client_id.as_str()),
                participant_id: claims.map(|claims| claims.participant_id.as_str()),
                token: asked.token.map(|token| Token::shown(token, None)),
                ..about
            }
        }
        Err(refusal) => {
            Decision { outcome: "refused", stage: Some(refusal.stage()), reason: Some(refusal.reason()), ..about }
        }
    }
    .told()
}

/// The same of an assertion that turns out to have been used before.
pub(super) fn replayed_to_revoke(node: &str, trail: &Trail) -> String {
    text(&unrevoked(node, trail, &ClientAuthRefusal::AssertionReplayed.into(), None))
}

/// The record of a token that a client wanted dead, and that it was refused.
pub(super) fn not_revoked(node: &str, trail: &Trail, refusal: &Refusal, token: Option<&VerifiedToken>) -> Told {
    unrevoked(node, trail, refusal, token).told()
}

fn unrevoked<'a>(
    node: &'a str,
    trail: &'a Trail,
    refusal: &'a Refusal,
    token: Option<&'a VerifiedToken>,
) -> Decision<'a> {
    Decision {
        kind: "revocation",
        outcome: "refused",
        stage: Some(refusal.stage()),
        reason: Some(refusal.reason()),
        token: token.map(|token| Token::shown(token, None)),
        ..about(node, trail)
    }
}

/// What a record says whatever came of it.
fn about<'a>(node: &'a str, trail: &'a Trail) -> Decision<'a> {
    let client = trail.client().map(|found| &*found.record);
    Decision {
        kind: "decision",
        at: trail.now(),
        node,
        request_id: trail.request_id().as_str(),
        peer: peer(trail.peer()),
        asked: trail.what_was_asked().map(|asked| Asked {
            grant_type: asked.grant_type.as_deref(),
            client_id: asked.client_id.as_deref(),
            with_assertion: asked.with_assertion,
            scope: asked.scope.as_deref(),
            resource: &asked.resources,
        }),
        authenticated: trail.is_authenticated(),
        resource_server: None,
        client_id: client.map(|record| record.client.id.as_str()),
        participant_id: client.map(|record| record.participant.id.as_str()),
        environment: client.map(|record| record.client.environment.as_str()),
        authentication: client.map(|record| record.client.authentication.method()),
        anchor: trail.anchor().map(|anchor| anchor.as_str()),
        registry_version: trail.client().map(|found| found.version.0),
        outcome: "",
        stage: None,
        reason: None,
        token: None,
    }
}

fn peer(chain: &PresentedChain) -> Peer<'_> {
    Peer {
        remote: chain.handshake.remote,
        protocol: chain.handshake.protocol,
        resumed: chain.handshake.resumed,
        thumbprint: chain.thumbprint(),
        // Half of a decision's record, and the same for every one of the connection.
        certificate: chain.account(certificate),
    }
}

#[expect(clippy::expect_used, reason = "strings, numbers and structs of them always have a JSON form")]
fn certificate(leaf: &ParsedCertificate) -> Box<RawValue> {
    serde_json::value::to_raw_value(&Certificate {
        subject: shortened(leaf.subject_text()),
        issuer: shortened(leaf.issuer_text()),
        subject_alt_names: leaf.subject_alt_names_text().iter().take(NAMES).map(|name| shortened(name)).collect(),
        serial: shortened(leaf.serial()),
        key_hash: leaf.key_hash(),
        not_before: leaf.not_before(),
        not_after: leaf.not_after(),
    })
    .expect("a certificate has a JSON form")
}

/// A leaf has as many names as fit 16 KB; the record keeps so many.
const NAMES: usize = 16;

/// Why the answer was not what a decision's record says.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Withheld {
    /// A record the decision rests on had changed.
    RegistryChanged,
    /// It could not be learned whether one had.
    RegistryUnread,
    /// Nobody waited any more, or was told 503 before.
    NotDelivered,
}

/// The record that follows a decision whose answer was another.
pub(super) fn withheld(
    node: &str,
    at: UnixTime,
    request_id: &RequestId,
    of: Position,
    jti: Option<&str>,
    why: Withheld,
) -> String {
    #[derive(Serialize)]
    struct Body<'a> {
        kind: &'static str,
        at: UnixTime,
        node: &'a str,
        request_id: &'a str,
        of_chain: i64,
        of_sequence: i64,
        #[serde(skip_serializing_if = "Option::is_none")]
        jti: Option<&'a str>,
        reason: Withheld,
    }
    text(&Body {
        kind: "withheld",
        at,
        node,
        request_id: request_id.as_str(),
        of_chain: of.chain().number(),
        of_sequence: of.sequence(),
        jti,
        reason: why,
    })
}

/// What nobody authenticated for: a token that was asked for, or about, a check, or the end of a token.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum Occasion {
    Check,
    Introspection,
    Refusal,
    Revocation,
}

/// What is told apart among refusals nobody authenticated for.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize)]
pub(super) struct RefusalKey {
    #[serde(skip)]
    pub(super) occasion: Occasion,
    pub(super) stage: &'static str,
    pub(super) reason: &'static str,
    pub(super) address: IpAddr,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) thumbprint: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) claimed_client_id: Option<String>,
}

/// Alike refusals: how many, from when to when, and the first of them whole.
pub(super) fn refusals(
    node: &str,
    key: &RefusalKey,
    count: u64,
    first: UnixTime,
    last: UnixTime,
    sample: &serde_json::Value,
) -> String {
    #[derive(Serialize)]
    struct Body<'a> {
        kind: &'static str,
        at: UnixTime,
        until: UnixTime,
        node: &'a str,
        count: u64,
        #[serde(skip_serializing_if = "Option::is_none")]
        outcome: Option<&'static str>,
        #[serde(flatten)]
        key: &'a RefusalKey,
        first: &'a serde_json::Value,
    }
    let (kind, outcome) = match key.occasion {
        Occasion::Check => ("checks", Some("checked")),
        Occasion::Introspection | Occasion::Refusal | Occasion::Revocation => ("refusals", None),
    };
    text(&Body { kind, at: first, until: last, node, count, outcome, key, first: sample })
}

/// What was refused but not told apart, for want of room; and decisions nobody waited for that were never written.
pub(super) fn dropped(node: &str, at: UnixTime, refusals: u64, decisions: u64) -> String {
    #[derive(Serialize)]
    struct Body<'a> {
        kind: &'static str,
        at: UnixTime,
        node: &'a str,
        refusals: u64,
        decisions: u64,
    }
    text(&Body { kind: "dropped", at, node, refusals, decisions })
}

/// A node has begun to write a chain: what follows is its own.
pub(super) fn opened(node: &str, at: UnixTime, lease: &Lease) -> String {
    #[derive(Serialize)]
    struct Body<'a> {
        kind: &'static str,
        at: UnixTime,
        node: &'a str,
        lease: i64,
        program: &'static str,
    }
    text(&Body { kind: "opened", at, node, lease: lease.number, program: env!("CARGO_PKG_VERSION") })
}

/// An operator reads the log.
pub(super) fn reading(node: &str, at: UnixTime, actor: &Actor, command: &str, asked: &impl Serialize) -> String {
    #[derive(Serialize)]
    struct Body<'a, T> {
        kind: &'static str,
        at: UnixTime,
        node: &'a str,
        actor: &'a Actor,
        command: &'a str,
        asked: &'a T,
    }
    text(&Body { kind: "reading", at, node, actor, command, asked })
}

/// A row of the registry's history: what was changed, by whom, before and after.
pub(super) fn change(node: &str, at: UnixTime, row: &HistoryRow) -> String {
    #[derive(Serialize)]
    struct Body<'a> {
        kind: &'static str,
        at: UnixTime,
        node: &'a str,
        registry_version: i64,
        step: i64,
        changed_at: UnixTime,
        actor: Document<'a>,
        action: &'a str,
        subject: &'a str,
        #[serde(skip_serializing_if = "Option::is_none")]
        before: Option<Document<'a>>,
        #[serde(skip_serializing_if = "Option::is_none")]
        after: Option<Document<'a>>,
        #[serde(skip_serializing_if = "Option::is_none")]
        why: Option<&'a str>,
    }
    text(&Body {
        kind: "change",
        at,
        node,
        registry_version: row.place.0,
        step: row.place.1,
        changed_at: row.at,
        actor: Document::of(&row.actor),
        action: &row.action,
        subject: &row.subject,
        before: row.before.as_deref().map(Document::of),
        after: row.after.as_deref().map(Document::of),
        why: row.why.as_deref(),
    })
}

/// A record of the registry that is longer stands in the log as its hash: the history has it whole.
const DOCUMENT_BYTES: usize = 64 * 1024;

/// A JSON text of the registry, as it is stored.
#[derive(Serialize)]
#[serde(untagged)]
enum Document<'a> {
    Whole(&'a RawValue),
    Hash { bytes: usize, sha256: String },
}

impl<'a> Document<'a> {
    fn of(text: &'a str) -> Self {
        match serde_json::from_str(text) {
            Ok(whole) if text.len() <= DOCUMENT_BYTES => Self::Whole(whole),
            // What is no JSON was written by nobody of ours; it is named all the same.
            _ => Self::Hash { bytes: text.len(), sha256: hex::encode(Sha256::digest(text)) },
        }
    }
}

/// A JSON text of the registry as it stands in a record.
pub(super) fn document(stored: &str) -> String {
    text(&Document::of(stored))
}

/// What `audit export --prune` puts on record before it removes anything.
pub(super) fn pruned(record: &Pruned) -> String {
    text(record)
}

#[expect(clippy::expect_used, reason = "strings, numbers and structs of them always have a JSON form")]
fn text<T: Serialize>(body: &T) -> String {
    serde_json::to_string(body).expect("a record has a JSON form")
}
