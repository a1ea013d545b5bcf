//! `countersign audit query`: the records that name a certificate, a client, a token, in order of time.

use std::io::{IsTerminal, Write};
use std::time::Duration;

use clap::Args;
use clap::builder::PossibleValuesParser;
use countersign_resource_server::time::UnixTime;
use serde::Serialize;
use serde_json::value::RawValue;
use serde_json::{Map, Value, json};
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

use crate::audit::AuditEntry;
use crate::audit::command::record_reading;
use crate::audit::index::{KINDS, Named, TermKind, catch_up};
use crate::audit::query::{Filter, search};
use crate::cli::expiring;
use crate::cli::output::{Output, printable_json};
use crate::cli::session::{Failure, Session};
use crate::registry::Thumbprint;

/// What records have to name; all of it, where several are given.
#[derive(Debug, Args)]
pub(in crate::cli) struct QueryArguments {
    /// A certificate: its SHA-256 hash in base64url, or in hexadecimal as `openssl x509 -fingerprint -sha256` writes it.
    #[arg(long, allow_hyphen_values = true, value_parser = thumbprint)]
    thumbprint: Option<Thumbprint>,
    /// A client, found or only claimed.
    #[arg(long, allow_hyphen_values = true, value_parser = text)]
    client: Option<String>,
    /// A participant.
    #[arg(long, value_parser = text)]
    participant: Option<String>,
    /// A token.
    #[arg(long, allow_hyphen_values = true, value_parser = text)]
    jti: Option<String>,
    /// A request: its `X-Request-Id`.
    #[arg(long, value_parser = text)]
    request: Option<String>,
    /// What became of it.
    #[arg(long, value_parser = PossibleValuesParser::new(OUTCOMES))]
    outcome: Option<String>,
    /// Why it was refused or withheld, for example `client_suspended`.
    #[arg(long, value_parser = text)]
    reason: Option<String>,
    /// The kind of record.
    #[arg(long, value_parser = PossibleValuesParser::new(KINDS))]
    kind: Option<String>,
    /// From then on: an instant by RFC 3339, a date (UTC), or how long ago (12h, 30d, 8w).
    #[arg(long, value_name = "WHEN", value_parser = when)]
    since: Option<When>,
    /// Before then.
    #[arg(long, value_name = "WHEN", value_parser = when)]
    until: Option<When>,
    /// At most so many, the earliest.
    #[arg(long, default_value_t = 1000, value_parser = clap::value_parser!(u32).range(1..))]
    limit: u32,
}

const OUTCOMES: [&str; 4] = ["issued", "refused", "withheld", "checked"];

/// The longest that may be looked for. Records keep less.
const LONGEST: usize = 1_024;

/// An instant, as it is told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum When {
    At(UnixTime),
    Ago(Duration),
}

impl When {
    fn by(self, now: UnixTime) -> UnixTime {
        match self {
            Self::At(at) => at,
            Self::Ago(ago) => now.before(ago),
        }
    }
}

impl QueryArguments {
    fn filter(&self, now: UnixTime) -> Filter {
        let thumbprint = self.thumbprint.as_ref().map(ToString::to_string);
        let names = [
            (TermKind::Jti, &self.jti),
            (TermKind::Request, &self.request),
            (TermKind::Thumbprint, &thumbprint),
            (TermKind::Client, &self.client),
            (TermKind::Participant, &self.participant),
            (TermKind::Reason, &self.reason),
            (TermKind::Outcome, &self.outcome),
            (TermKind::Kind, &self.kind),
        ];
        let all = Filter::default();
        Filter {
            names: names.into_iter().filter_map(|(kind, text)| Some((kind, text.clone()?))).collect(),
            since: self.since.map_or(all.since, |since| since.by(now)),
            until: self.until.map_or(all.until, |until| until.by(now)),
        }
    }

    /// For the record.
    fn asked(&self, filter: &Filter) -> Value {
        let names = filter.names.iter().map(|(kind, text)| (kind.as_str().to_owned(), Value::from(text.as_str())));
        let mut asked: Map<String, Value> = names.collect();
        asked.extend(self.since.map(|_| ("since".to_owned(), json!(filter.since))));
        asked.extend(self.until.map(|_| ("until".to_owned(), json!(filter.until))));
        asked.insert("limit".to_owned(), self.limit.into());
        Value::Object(asked)
    }
}

/// What the index may be behind for a search to begin: so many records are looked at one by one in no time.
const CLOSE: i64 = 4_096;

/// From so many on it takes long enough to say so.
const WORTH_TELLING: i64 = 200_000;

/// Runs the command. That it was run is on record before anything is shown.
///
/// # Errors
/// The store does not answer, or the reading cannot be put on record.
pub(super) async fn run(arguments: QueryArguments, session: &Session) -> Result<(), Failure> {
    let store = session.store();
    let filter = arguments.filter(session.now);
    let (node, asked) = (session.config.node.as_str(), arguments.asked(&filter));
    record_reading(store, node, session.now, session.actor(), "audit query", &asked).await?;
    let mut told = false;
    let caught_up = catch_up(store, CLOSE, |behind| {
        if behind >= WORTH_TELLING && !std::mem::replace(&mut told, true) {
            aside(&format!("{behind} records are not indexed yet: this takes a while, once"));
        }
    });
    if let Err(error) = caught_up.await {
        aside(&format!("the index cannot be written, and searching takes longer: {error}"));
    }
    let found = search(store, &filter, usize::try_from(arguments.limit).unwrap_or(usize::MAX)).await?;
    let stories: Vec<Story> = found.entries.into_iter().map(Story::of).collect();
    let columns = ["time", "kind", "what", "client", "certificate", "token", "request", "from", "place"];
    match session.output {
        Output::Json => session.output.text(&verbatim(&stories, std::io::stdout().is_terminal())?)?,
        Output::People => session.output.list(&stories, columns, Story::row)?,
    }
    if found.more {
        let since = stories.last().map(|last| last.at.clone()).unwrap_or_default();
        let sentence = format!("there are more: --since {since}, or a larger --limit");
        match session.output {
            Output::Json => aside(&sentence),
            Output::People => session.output.note(&sentence)?,
        }
    }
    Ok(())
}

/// Not as other commands write JSON: nothing in a record is written anew. Only a terminal, which takes no hash, is given
/// escapes in the place of what it would obey.
fn verbatim(stories: &[Story], is_terminal: bool) -> serde_json::Result<String> {
    let text = serde_json::to_string_pretty(stories)?;
    Ok(if is_terminal { printable_json(&text) } else { text })
}

/// Says something beside the answer.
fn aside(sentence: &str) {
    // There is nobody left to tell where standard error is closed.
    let _ = writeln!(std::io::stderr(), "countersign: {sentence}");
}

/// A record as it is shown.
#[derive(Serialize)]
struct Story {
    chain: i64,
    sequence: i64,
    at: String,
    hash: String,
    record: Record,
}

/// The text that the hash covers.
#[derive(Serialize)]
#[serde(untagged)]
enum Record {
    Whole(Box<RawValue>),
    /// None of ours, then; it is shown as the text it is.
    NoJson(String),
}

impl Story {
    fn of(entry: AuditEntry) -> Self {
        Self {
            chain: entry.position.chain().number(),
            sequence: entry.position.sequence(),
            at: entry.at.to_string(),
            hash: entry.hash.to_string(),
            record: match serde_json::from_str(&entry.body) {
                Ok(whole) => Record::Whole(whole),
                Err(_) => Record::NoJson(entry.body),
            },
        }
    }

    fn row(&self) -> [String; 9] {
        let body = match &self.record {
            Record::Whole(whole) => whole.get(),
            Record::NoJson(text) => text,
        };
        let value: Value = serde_json::from_str(body).unwrap_or_default();
        let named = Named::of(body);
        let short = |kind, most| named.first(kind).map(|text| cut(text, most)).unwrap_or_default();
        let kind = named.first(TermKind::Kind).unwrap_or("?").to_owned();
        let mut client = short(TermKind::Client, 40);
        let is_claimed = value["first"].is_object() || value["authenticated"] == false;
        if is_claimed && !client.is_empty() {
            client.push_str(" (claimed)");
        }
        [
            self.at.clone(),
            kind,
            what(&value, &named),
            client,
            short(TermKind::Thumbprint, 12),
            short(TermKind::Jti, 40),
            short(TermKind::Request, 40),
            from(&value),
            format!("{}/{}", self.chain, self.sequence),
        ]
    }
}

/// What became of it, and why; of what nobody decided, what it is about.
fn what(value: &Value, named: &Named<'_>) -> String {
    let text = |value: &Value| value.as_str().map(|text| cut(text, 60));
    if let Some(action) = text(&value["action"]) {
        return [action, text(&value["subject"]).unwrap_or_default()].join(" ");
    }
    let mut parts: Vec<String> = Vec::new();
    parts.extend(named.first(TermKind::Outcome).map(ToOwned::to_owned));
    parts.extend(named.first(TermKind::Reason).map(|reason| cut(reason, 60)));
    let mut what = parts.join(": ");
    if let Some(count) = value["count"].as_u64().filter(|count| *count != 1) {
        what.push_str(&format!(", {count} times"));
    }
    if what.is_empty() {
        let by = match (text(&value["actor"]["stated_name"]), text(&value["actor"]["system_user"])) {
            (Some(name), Some(user)) => Some(format!("by {name} ({user})")),
            (None, Some(user)) => Some(format!("by {user}")),
            _ => text(&value["node"]).map(|node| format!("node {node}")),
        };
        what = [text(&value["command"]), by].into_iter().flatten().collect::<Vec<_>>().join(" ");
    }
    what
}

/// The address a request came from.
fn from(value: &Value) -> String {
    let places = [&value["peer"]["remote"], &value["first"]["peer"]["remote"], &value["first"]["remote"]];
    let remote = places.into_iter().chain([&value["address"]]).find_map(Value::as_str);
    remote.map(|remote| cut(remote, 64)).unwrap_or_default()
}

/// The beginning of a text, marked where there is more.
fn cut(text: &str, most: usize) -> String {
    match text.char_indices().nth(most) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text.to_owned(),
    }
}

fn text(text: &str) -> Result<String, String> {
    if text.is_empty() || text.len() > LONGEST {
        return Err(format!("must be 1 to {LONGEST} octets"));
    }
    Ok(text.to_owned())
}

fn thumbprint(text: &str) -> Result<Thumbprint, String> {
    let digits: String = text.chars().filter(|character| *character != ':').collect();
    match <[u8; 32]>::try_from(hex::decode(&digits).unwrap_or_default()) {
        Ok(octets) => Ok(Thumbprint::from_octets(octets)),
        Err(_) => Thumbprint::parse(text).map_err(|error| error.to_string()),
    }
}

fn when(text: &str) -> Result<When, String> {
    let instant = |text: &str| OffsetDateTime::parse(text, &Rfc3339).ok();
    let parsed = instant(text).or_else(|| instant(&format!("{text}T00:00:00Z")));
    if let Some(at) = parsed {
        let milliseconds = at.unix_timestamp_nanos().div_euclid(1_000_000);
        return Ok(When::At(UnixTime::from_millis(i64::try_from(milliseconds).unwrap_or(i64::MAX))));
    }
    expiring::span(text).map(When::Ago).map_err(|_| {
        "must be an instant by RFC 3339 (2027-01-01T00:00:00Z), a date (2027-01-01) or how long ago (12h, 30d, 8w)"
            .to_owned()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(body: &str) -> AuditEntry {
        use crate::audit::chain::{ChainId, Position, RecordHash};
        AuditEntry {
            position: Position::of(ChainId::new(2).unwrap(), 7).unwrap(),
            at: UnixTime::from_millis(1_800_000_000_123),
            hash: RecordHash::from_octets(&[0xab; 32]).unwrap(),
            body: body.to_owned(),
        }
    }

    #[test]
    fn an_instant_a_date_or_how_long_ago() {
        let at = |millis| Ok(When::At(UnixTime::from_millis(millis)));
        assert_eq!(when("1970-01-01T00:00:01.234Z"), at(1_234));
        assert_eq!(when("1970-01-01T01:00:00+01:00"), at(0));
        assert_eq!(when("1969-12-31T23:59:59.999Z"), at(-1));
        assert_eq!(when("1970-01-02"), at(86_400_000));
        assert_eq!(when("1h"), Ok(When::Ago(Duration::from_secs(3_600))));
        let now = UnixTime::from_seconds(10_000);
        assert_eq!(When::Ago(Duration::from_secs(3_600)).by(now), UnixTime::from_seconds(6_400));
        for bad in ["", "1970-01-32", "1970-01-01T00:00:00", "1970-1-1", "yesterday", "1970-01-01T00:00:00Z "] {
            assert!(when(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn a_thumbprint_in_either_writing() {
        let octets: [u8; 32] = std::array::from_fn(|index| u8::try_from(index * 8).unwrap());
        let expected = Thumbprint::from_octets(octets);
        let digits = hex::encode(octets);
        let colons: Vec<String> = octets.iter().map(|octet| format!("{octet:02X}")).collect();
        for text in [expected.to_string(), digits.clone(), digits.to_uppercase(), colons.join(":")] {
            assert_eq!(thumbprint(&text), Ok(expected), "{text}");
        }
        for bad in ["", ":", &digits[2..], &format!("{digits}00"), "none"] {
            assert!(thumbprint(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn a_record_is_verbatim_in_json() {
        let body = r#"{"kind": "decision",  "b":1.50,"a":"\u00e9","a":2}"#;
        let text = verbatim(&[Story::of(entry(body))], false).unwrap();
        assert!(text.contains(body), "{text}");
        assert!(text.contains(&"ab".repeat(32)) && text.contains("\"sequence\": 7"), "{text}");
        let text = serde_json::to_string(&Story::of(entry("no json"))).unwrap();
        assert!(text.contains(r#""record":"no json""#), "{text}");
    }

    #[test]
    fn a_terminal_is_given_escapes_and_a_file_the_very_text() {
        let body = "{\"kind\":\"refusals\",\r\"claimed_client_id\":\"a\u{9b}2J\u{202e}\\u001b\u{7f}\"}";
        let file = verbatim(&[Story::of(entry(body))], false).unwrap();
        assert!(file.contains(body), "{file:?}");
        let terminal = verbatim(&[Story::of(entry(body))], true).unwrap();
        assert!(terminal.contains(r"a\u009b2J\u202e\u001b\u007f"), "{terminal:?}");
        assert!(!terminal.chars().any(|character| character.is_control() && character != '\n'), "{terminal:?}");
        let values = [file, terminal].map(|text| serde_json::from_str::<Value>(&text).unwrap());
        assert_eq!(values[0], values[1]);
    }

    #[test]
    fn a_stranger_cannot_steer_the_terminal_nor_widen_the_table_without_end() {
        let claimed = format!("\u{1b}]0;x\u{7}\u{9b}2J{}", "y".repeat(10_000));
        let body = json!({
            "kind": "refusals", "reason": "client_unknown", "count": 3, "address": "192.0.2.1",
            "claimed_client_id": claimed, "first": { "peer": { "remote": "192.0.2.1:1" } },
        });
        let row = Story::of(entry(&body.to_string())).row();
        let table = crate::cli::output::table(&["a", "b", "c", "d"], vec![row.to_vec()]);
        assert!(!table.chars().any(|character| character.is_control() && character != '\n'), "{table:?}");
        assert!(table.len() < 700, "{table}");
        assert_eq!((row[2].as_str(), row[7].as_str()), ("refused: client_unknown, 3 times", "192.0.2.1:1"));
        assert!(row[3].ends_with("… (claimed)"));
    }

    #[test]
    fn every_kind_has_its_line() {
        let what = |body: Value| Story::of(entry(&body.to_string())).row()[2].clone();
        assert_eq!(what(json!({ "kind": "decision", "outcome": "issued" })), "issued");
        assert_eq!(what(json!({ "kind": "withheld", "reason": "not_delivered" })), "withheld: not_delivered");
        let change = json!({ "kind": "change", "action": "client.suspend", "subject": "client:acme" });
        assert_eq!(what(change), "client.suspend client:acme");
        let actor = json!({ "kind": "operator", "system_user": "root", "stated_name": "ann" });
        let reading = json!({ "kind": "reading", "actor": actor, "command": "audit query" });
        assert_eq!(what(reading), "audit query by ann (root)");
        assert_eq!(what(json!({ "kind": "pruned", "actor": actor })), "by ann (root)");
        assert_eq!(what(json!({ "kind": "opened", "node": "n" })), "node n");
        assert_eq!(what(json!([1])), "");
    }
}
