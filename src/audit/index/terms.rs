//! What a record can be found by.
//!
//! Takes a record's body, gives the texts it names under each [`TermKind`], and their 64 bits in the index. It is the one
//! reader of bodies for both: what the index leads to is judged by the same texts again. Of a decision that is just made it takes
//! what the body is made of instead, and goes the same way from there.

use std::borrow::Cow;
use std::fmt;
use std::marker::PhantomData;

use serde::de::value::MapAccessDeserializer;
use serde::de::{IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde::{Deserialize, Deserializer};
use sha2::{Digest, Sha256};

/// The kinds of terms. Their numbers are those in the index, and their order is that in which they are expected to tell
/// records apart, the best first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum TermKind {
    /// A token's `jti`.
    Jti = 1,
    /// A request's id.
    Request = 2,
    /// A certificate's thumbprint.
    Thumbprint = 3,
    /// A client, found or claimed.
    Client = 4,
    /// A participant.
    Participant = 5,
    /// Why something was refused or withheld.
    Reason = 6,
    /// What became of it.
    Outcome = 7,
    /// The kind of record.
    Kind = 8,
    /// That it is a record, of whatever kind.
    Any = 9,
}

impl TermKind {
    /// The name in records of who asked for what.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Jti => "jti",
            Self::Request => "request",
            Self::Thumbprint => "thumbprint",
            Self::Client => "client",
            Self::Participant => "participant",
            Self::Reason => "reason",
            Self::Outcome => "outcome",
            Self::Kind => "kind",
            Self::Any => "any",
        }
    }
}

/// A term in the index.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Term {
    /// What it is.
    pub kind: TermKind,
    /// 64 bits of what it says. Two texts may share them: records are looked at before they are shown.
    pub value: i64,
}

impl Term {
    /// Of this text. One that begins with its time, as a `jti` and a request's id do, keeps it, so that new ones are
    /// written to the end of the index; of every other it is SHA-256, cut.
    pub fn of(kind: TermKind, text: &str) -> Self {
        let hash = cut(Sha256::digest(text).into());
        let begins_with_its_time = matches!(kind, TermKind::Jti | TermKind::Request);
        let value = match time_in(text).filter(|_| begins_with_its_time) {
            Some(time) => (time << 16) | (hash & 0xFFFF),
            None => hash,
        };
        Self { kind, value }
    }

    /// What records have that have no other that tells.
    pub const fn any() -> Self {
        Self { kind: TermKind::Any, value: 0 }
    }
}

/// 48 bits of milliseconds.
const TIME_DIGITS: usize = 12;

/// The milliseconds that a `jti` or a request's id begins with.
pub(super) fn time_in(text: &str) -> Option<i64> {
    let text = text.get(..TIME_DIGITS)?;
    let is_digits = text.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'));
    is_digits.then(|| i64::from_str_radix(text, 16).ok()).flatten()
}

fn cut(hash: [u8; 32]) -> i64 {
    let [a, b, c, d, e, f, g, h, ..] = hash;
    i64::from_be_bytes([a, b, c, d, e, f, g, h])
}

/// What a record names.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Named<'a> {
    /// Kind and text, each pair once.
    texts: Vec<(TermKind, Cow<'a, str>)>,
}

impl<'a> Named<'a> {
    /// What the record with this body names; nothing where it is none of ours.
    pub fn of(body: &'a str) -> Self {
        let mut named = Self { texts: Vec::with_capacity(8) };
        if let Ok(body) = serde_json::from_str(body) {
            named.add_body(body);
        }
        named
    }

    /// The same of a record that is known without its body.
    pub(in crate::audit) fn by(facts: Facts<'a>) -> Self {
        let some = |text: Option<&'a str>| Text(text.map(Cow::Borrowed));
        let mut named = Self { texts: Vec::with_capacity(8) };
        named.add_body(Body {
            kind: some(Some(facts.kind)),
            outcome: some(Some(facts.outcome)),
            reason: some(facts.reason),
            request_id: some(Some(facts.request_id)),
            client_id: some(facts.client_id),
            participant_id: some(facts.participant_id),
            peer: Part(Peer { thumbprint: Text(facts.thumbprint.map(Cow::Owned)) }),
            asked: Part(Asked { client_id: some(facts.asked_client_id) }),
            token: Part(Token { jti: some(facts.jti) }),
            ..Body::default()
        });
        named
    }

    /// Whether it names this.
    pub fn has(&self, kind: TermKind, text: &str) -> bool {
        kind == TermKind::Any || self.texts.iter().any(|(one, named)| *one == kind && named == text)
    }

    /// The first text of a kind.
    pub fn first(&self, kind: TermKind) -> Option<&str> {
        self.texts.iter().find(|(one, _)| *one == kind).map(|(_, text)| text.as_ref())
    }

    /// All of it.
    pub(super) fn texts(&self) -> impl Iterator<Item = (TermKind, &str)> {
        self.texts.iter().map(|(kind, text)| (*kind, text.as_ref()))
    }

    fn add(&mut self, kind: TermKind, text: Text<'a>) {
        if let Some(text) = text.0
            && !self.has(kind, &text)
        {
            self.texts.push((kind, text));
        }
    }

    fn add_body(&mut self, body: Body<'a>) {
        let kind = body.kind.0.as_deref();
        let is_withheld = kind == Some("withheld");
        let is_refusals = kind == Some("refusals");
        if let Some((subject, id)) = body.subject.0.as_deref().and_then(|subject| subject.split_once(':')) {
            let kind = match subject {
                "certificate" => Some(TermKind::Thumbprint),
                "client" => Some(TermKind::Client),
                "participant" => Some(TermKind::Participant),
                "token" => Some(TermKind::Jti),
                _ => None,
            };
            if let Some(kind) = kind {
                self.add(kind, Text(Some(Cow::Owned(id.to_owned()))));
            }
        }
        self.add(TermKind::Kind, body.kind);
        match body.outcome {
            // These two say it by their kind.
            Text(None) if is_withheld => self.add(TermKind::Outcome, Text(Some(Cow::Borrowed("withheld")))),
            Text(None) if is_refusals => self.add(TermKind::Outcome, Text(Some(Cow::Borrowed("refused")))),
            outcome => self.add(TermKind::Outcome, outcome),
        }
        self.add(TermKind::Reason, body.reason);
        self.add(TermKind::Jti, body.jti);
        self.add(TermKind::Jti, body.token.0.jti);
        self.add(TermKind::Thumbprint, body.thumbprint);
        self.add(TermKind::Client, body.claimed_client_id);
        self.add_occasion(Occasion {
            request_id: body.request_id,
            client_id: body.client_id,
            participant_id: body.participant_id,
            peer: body.peer,
            asked: body.asked,
        });
        // Alike refusals are one record; the first of them stands in it whole.
        self.add_occasion(body.first.0);
        for document in [body.before.0, body.after.0] {
            self.add(TermKind::Client, document.client_id);
            self.add(TermKind::Participant, document.participant_id);
            self.add(TermKind::Thumbprint, document.thumbprint);
        }
    }

    fn add_occasion(&mut self, occasion: Occasion<'a>) {
        self.add(TermKind::Request, occasion.request_id);
        self.add(TermKind::Client, occasion.client_id);
        self.add(TermKind::Client, occasion.asked.0.client_id);
        self.add(TermKind::Participant, occasion.participant_id);
        self.add(TermKind::Thumbprint, occasion.peer.0.thumbprint);
    }
}

/// What the record of a decision names, by the members of its body.
pub(in crate::audit) struct Facts<'a> {
    pub(in crate::audit) kind: &'a str,
    pub(in crate::audit) outcome: &'a str,
    pub(in crate::audit) reason: Option<&'a str>,
    pub(in crate::audit) request_id: &'a str,
    pub(in crate::audit) client_id: Option<&'a str>,
    pub(in crate::audit) participant_id: Option<&'a str>,
    pub(in crate::audit) thumbprint: Option<String>,
    pub(in crate::audit) asked_client_id: Option<&'a str>,
    pub(in crate::audit) jti: Option<&'a str>,
}

/// What is read of a body; the rest is skipped.
#[derive(Default, Deserialize)]
struct Body<'a> {
    #[serde(borrow, default)]
    kind: Text<'a>,
    #[serde(borrow, default)]
    outcome: Text<'a>,
    #[serde(borrow, default)]
    reason: Text<'a>,
    #[serde(borrow, default)]
    jti: Text<'a>,
    #[serde(borrow, default)]
    thumbprint: Text<'a>,
    #[serde(borrow, default)]
    claimed_client_id: Text<'a>,
    #[serde(borrow, default)]
    request_id: Text<'a>,
    #[serde(borrow, default)]
    client_id: Text<'a>,
    #[serde(borrow, default)]
    participant_id: Text<'a>,
    #[serde(borrow, default)]
    subject: Text<'a>,
    #[serde(borrow, default)]
    peer: Part<Peer<'a>>,
    #[serde(borrow, default)]
    asked: Part<Asked<'a>>,
    #[serde(borrow, default)]
    token: Part<Token<'a>>,
    #[serde(borrow, default)]
    first: Part<Occasion<'a>>,
    #[serde(borrow, default)]
    before: Part<Document<'a>>,
    #[serde(borrow, default)]
    after: Part<Document<'a>>,
}

/// What decisions and checks say of their request.
#[derive(Default, Deserialize)]
struct Occasion<'a> {
    #[serde(borrow, default)]
    request_id: Text<'a>,
    #[serde(borrow, default)]
    client_id: Text<'a>,
    #[serde(borrow, default)]
    participant_id: Text<'a>,
    #[serde(borrow, default)]
    peer: Part<Peer<'a>>,
    #[serde(borrow, default)]
    asked: Part<Asked<'a>>,
}

#[derive(Default, Deserialize)]
struct Peer<'a> {
    #[serde(borrow, default)]
    thumbprint: Text<'a>,
}

#[derive(Default, Deserialize)]
struct Asked<'a> {
    #[serde(borrow, default)]
    client_id: Text<'a>,
}

#[derive(Default, Deserialize)]
struct Token<'a> {
    #[serde(borrow, default)]
    jti: Text<'a>,
}

/// A record of the registry, before or after a change.
#[derive(Default, Deserialize)]
struct Document<'a> {
    #[serde(borrow, default)]
    client_id: Text<'a>,
    #[serde(borrow, default)]
    participant_id: Text<'a>,
    #[serde(borrow, default)]
    thumbprint: Text<'a>,
}

/// A text, borrowed where it has no escapes. What is no text is none: another release may write something else there.
#[derive(Default)]
struct Text<'a>(Option<Cow<'a, str>>);

impl<'de: 'a, 'a> Deserialize<'de> for Text<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(TextVisitor).map(Self)
    }
}

struct TextVisitor;

impl<'de> Visitor<'de> for TextVisitor {
    type Value = Option<Cow<'de, str>>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("anything")
    }

    fn visit_borrowed_str<E>(self, text: &'de str) -> Result<Self::Value, E> {
        Ok(Some(Cow::Borrowed(text)))
    }

    fn visit_str<E>(self, text: &str) -> Result<Self::Value, E> {
        Ok(Some(Cow::Owned(text.to_owned())))
    }

    fn visit_bool<E>(self, _: bool) -> Result<Self::Value, E> {
        Ok(None)
    }

    fn visit_i64<E>(self, _: i64) -> Result<Self::Value, E> {
        Ok(None)
    }

    fn visit_u64<E>(self, _: u64) -> Result<Self::Value, E> {
        Ok(None)
    }

    fn visit_f64<E>(self, _: f64) -> Result<Self::Value, E> {
        Ok(None)
    }

    fn visit_unit<E>(self) -> Result<Self::Value, E> {
        Ok(None)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Self::Value, A::Error> {
        while items.next_element::<IgnoredAny>()?.is_some() {}
        Ok(None)
    }

    fn visit_map<A: MapAccess<'de>>(self, mut members: A) -> Result<Self::Value, A::Error> {
        while members.next_entry::<IgnoredAny, IgnoredAny>()?.is_some() {}
        Ok(None)
    }
}

/// An object. What is none has nothing in it.
#[derive(Default)]
struct Part<T>(T);

impl<'de, T: Default + Deserialize<'de>> Deserialize<'de> for Part<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(PartVisitor(PhantomData)).map(Self)
    }
}

struct PartVisitor<T>(PhantomData<T>);

impl<'de, T: Default + Deserialize<'de>> Visitor<'de> for PartVisitor<T> {
    type Value = T;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("anything")
    }

    fn visit_map<A: MapAccess<'de>>(self, members: A) -> Result<T, A::Error> {
        T::deserialize(MapAccessDeserializer::new(members))
    }

    fn visit_str<E>(self, _: &str) -> Result<T, E> {
        Ok(T::default())
    }

    fn visit_bool<E>(self, _: bool) -> Result<T, E> {
        Ok(T::default())
    }

    fn visit_i64<E>(self, _: i64) -> Result<T, E> {
        Ok(T::default())
    }

    fn visit_u64<E>(self, _: u64) -> Result<T, E> {
        Ok(T::default())
    }

    fn visit_f64<E>(self, _: f64) -> Result<T, E> {
        Ok(T::default())
    }

    fn visit_unit<E>(self) -> Result<T, E> {
        Ok(T::default())
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<T, A::Error> {
        while items.next_element::<IgnoredAny>()?.is_some() {}
        Ok(T::default())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn named(body: &serde_json::Value) -> Vec<(TermKind, String)> {
        let text = body.to_string();
        let mut texts: Vec<_> =
            Named::of(&text).texts.into_iter().map(|(kind, text)| (kind, text.into_owned())).collect();
        texts.sort();
        texts
    }

    fn expected(texts: &[(TermKind, &str)]) -> Vec<(TermKind, String)> {
        texts.iter().map(|(kind, text)| (*kind, (*text).to_owned())).collect()
    }

    #[test]
    fn a_decision_is_found_by_all_it_names() {
        let body = serde_json::json!({
            "kind": "decision", "at": 1, "node": "n", "request_id": "r",
            "peer": { "remote": "192.0.2.1:1", "thumbprint": "t", "certificate": { "subject": "client_id" } },
            "asked": { "grant_type": "client_credentials", "client_id": "c", "with_assertion": false },
            "authenticated": true, "client_id": "c", "participant_id": "p", "outcome": "issued",
            "token": { "jti": "j", "aud": "https://api.example/", "assertion_jti": "no" },
        });
        let all = [
            (TermKind::Jti, "j"),
            (TermKind::Request, "r"),
            (TermKind::Thumbprint, "t"),
            (TermKind::Client, "c"),
            (TermKind::Participant, "p"),
            (TermKind::Outcome, "issued"),
            (TermKind::Kind, "decision"),
        ];
        assert_eq!(named(&body), expected(&all));
    }

    #[test]
    fn alike_refusals_are_found_by_what_they_share_and_by_the_first() {
        let body = serde_json::json!({
            "kind": "refusals", "at": 1, "until": 2, "node": "n", "count": 3, "stage": "client_auth", "reason": "x",
            "address": "192.0.2.1", "thumbprint": "t", "claimed_client_id": "claimed",
            "first": { "kind": "decision", "request_id": "r", "peer": { "thumbprint": "t" }, "outcome": "refused",
                "asked": { "client_id": "claimed" }, "client_id": "found", "participant_id": "p" },
        });
        let all = [
            (TermKind::Request, "r"),
            (TermKind::Thumbprint, "t"),
            (TermKind::Client, "claimed"),
            (TermKind::Client, "found"),
            (TermKind::Participant, "p"),
            (TermKind::Reason, "x"),
            (TermKind::Outcome, "refused"),
            (TermKind::Kind, "refusals"),
        ];
        assert_eq!(named(&body), expected(&all));
    }

    #[test]
    fn what_was_withheld_names_the_token() {
        let body = serde_json::json!({ "kind": "withheld", "request_id": "r", "jti": "j", "reason": "not_delivered" });
        let all = [
            (TermKind::Jti, "j"),
            (TermKind::Request, "r"),
            (TermKind::Reason, "not_delivered"),
            (TermKind::Outcome, "withheld"),
            (TermKind::Kind, "withheld"),
        ];
        assert_eq!(named(&body), expected(&all));
    }

    #[test]
    fn a_change_names_its_subject_and_whose_it_is() {
        let body = serde_json::json!({
            "kind": "change", "subject": "certificate:t", "before": null,
            "after": { "thumbprint": "t", "client_id": "c", "state": { "state": "active" } },
        });
        let all = [(TermKind::Thumbprint, "t"), (TermKind::Client, "c"), (TermKind::Kind, "change")];
        assert_eq!(named(&body), expected(&all));
        let body = serde_json::json!({ "kind": "change", "subject": "client:a:b", "after": { "participant_id": "p" } });
        let all = [(TermKind::Client, "a:b"), (TermKind::Participant, "p"), (TermKind::Kind, "change")];
        assert_eq!(named(&body), expected(&all));
        let body = serde_json::json!({ "kind": "change", "subject": "entitlement:e", "after": { "bytes": 70_000 } });
        assert_eq!(named(&body), expected(&[(TermKind::Kind, "change")]));
    }

    #[test]
    fn what_another_release_writes_otherwise_takes_nothing_else_along() {
        for odd in ["1", "-1", "1.5", "true", "null", "[1,{\"a\":[]}]", "{\"jti\":{\"jti\":1}}", "\"text\""] {
            let body = format!(
                r#"{{"kind":"decision","peer":{odd},"first":{odd},"before":{odd},"token":{odd},"new":{odd},"reason":"x"}}"#
            );
            let named = Named::of(&body);
            assert!(named.has(TermKind::Kind, "decision") && named.has(TermKind::Reason, "x"), "{body}");
            assert_eq!(named.first(TermKind::Thumbprint), None);
        }
        for none in ["", "[]", "1", "{", "{\"kind\":\"a\"} b", "\u{0}"] {
            assert_eq!(Named::of(none), Named::default(), "{none}");
        }
    }

    #[test]
    fn escapes_are_read() {
        let named = Named::of(r#"{"claimed_client_id":"a\"\u001b[2J\ud83d\ude00","kind":"refusals"}"#);
        assert!(named.has(TermKind::Client, "a\"\u{1b}[2J\u{1F600}"));
    }

    #[test]
    fn what_begins_with_its_time_keeps_its_order() {
        let jti = |time: i64, rest: &str| Term::of(TermKind::Jti, &format!("{time:012x}{rest}")).value;
        let now = 1_800_000_000_000;
        assert!(jti(now, "zzzz") < jti(now + 1, "AAAA"));
        assert_ne!(jti(now, "AAAA"), jti(now, "AAAB"));
        assert_eq!(jti(now, "AAAA") >> 16, now);
        // Only there, and only what is written as ours are.
        assert_ne!(Term::of(TermKind::Client, "01a3185c507b").value >> 16, 0x01a3_185c_507b);
        for foreign in ["", "01A3185C507B", "01a3185c507", "+1a3185c507b", "äääääää"] {
            assert_eq!(Term::of(TermKind::Jti, foreign).value, Term::of(TermKind::Reason, foreign).value, "{foreign}");
        }
    }

    /// Texts as strangers write them, and none.
    const TEXTS: [Option<&str>; 5] = [None, Some(""), Some("acme-1"), Some("\"\\\u{0}\n"), Some("\u{202e}ü…\u{1f512}")];

    #[test]
    fn what_a_decision_is_made_of_leads_to_it_as_its_body_does() {
        let body = |one: Option<&str>, other: Option<&str>, kind: &str, outcome: &str| {
            serde_json::json!({
                "kind": kind, "outcome": outcome, "reason": other, "request_id": "0123456789abcdef", "client_id": one,
                "participant_id": other, "peer": { "thumbprint": one }, "asked": { "client_id": other },
                "token": { "jti": one },
            })
            .to_string()
        };
        for one in TEXTS {
            for other in TEXTS {
                for (kind, outcome) in [("decision", "issued"), ("revocation", "refused"), ("withheld", "issued")] {
                    let facts = Facts {
                        kind,
                        outcome,
                        reason: other,
                        request_id: "0123456789abcdef",
                        client_id: one,
                        participant_id: other,
                        thumbprint: one.map(str::to_owned),
                        asked_client_id: other,
                        jti: one,
                    };
                    assert_eq!(Named::by(facts), Named::of(&body(one, other, kind, outcome)), "{one:?} {other:?}");
                }
            }
        }
    }
}
