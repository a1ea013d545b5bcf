//! What a command that ends something prints: what it did, what died with it, and who has taken that in.

use std::collections::BTreeMap;
use std::io::{self, Write};
use std::pin::pin;
use std::time::Duration;

use countersign_resource_server::time::{Clock, SystemClock, UnixTime};
use serde::Serialize;
use serde_json::json;

use super::output::{Output, json, printable};
use super::session::{Failure, Session};
use crate::audit::command::record_reading;
use crate::audit::index::catch_up;
use crate::audit::receipt::{self, Concerned, EarlierMarks, Receipt};
use crate::followers::spread::{GONE_AFTER, Spread, spread};
use crate::followers::store::FollowerStore;
use crate::registry::{RegistryVersion, StoreUnavailable};

/// What the index may be behind for a look-up to begin.
const CLOSE: i64 = 4_096;

/// How many resource servers a sentence names; `--json` has more.
const MOST_NAMED: usize = 8;

/// How much of the answer is written at once.
const PIECE_BYTES: usize = 64 * 1_024;

/// What was dead before a change. Look before it is made: the change may raise the marks that say so.
pub(super) async fn before(session: &Session) -> EarlierMarks {
    match session.registry.marks(time_of_the_nodes(session).await).await {
        Ok(state) => EarlierMarks::of(state.marks),
        // The change is what matters. What was dead already counts as if it had died with it.
        Err(error) => {
            tracing::warn!(%error, "what was dead before cannot be read");
            EarlierMarks::default()
        }
    }
}

/// How far ahead of its clock a node that serves notes that it does, at most.
const LEASE: Duration = Duration::from_secs(30);

/// Now, as those see it who issue tokens, as far as that is known.
async fn time_of_the_nodes(session: &Session) -> UnixTime {
    let store = session.store();
    let (served, rows) = tokio::join!(store.served_until(), store.followers());
    let somebody_serves = rows.is_ok_and(|rows| rows.iter().any(|row| row.age < GONE_AFTER));
    by_the_nodes(SystemClock::new().now(), served.ok().flatten().filter(|_| somebody_serves))
}

/// This clock's `now`, unless it is ahead of what nodes that serve have noted: every token would have expired by it. Behind, it counts
/// some that have: what was noted never goes back, and may be from a clock that was set right since.
fn by_the_nodes(now: UnixTime, served: Option<UnixTime>) -> UnixTime {
    served.filter(|served| now > *served).map_or(now, |served| served.before(LEASE))
}

/// A change that ended something.
pub(super) struct Ended<'a> {
    /// What died with it.
    pub(super) concerned: Concerned,
    /// What was dead before.
    pub(super) earlier: EarlierMarks,
    /// The version it made.
    pub(super) version: RegistryVersion,
    /// What was done, for people.
    pub(super) sentence: &'a str,
}

/// Who has taken in what was done.
#[derive(Serialize)]
struct Taken {
    #[serde(flatten)]
    spread: Spread,
    /// Resource servers with tokens that died, of which no node has heard by their own certificate.
    unheard: Vec<String>,
}

/// Tells what was done, then what died with it, then who has taken that in. The change stands whatever becomes of the rest.
///
/// # Errors
/// Standard output cannot be written.
pub(super) async fn done(session: &Session, ended: Ended<'_>, record: &impl Serialize) -> Result<(), Failure> {
    let (store, clock) = (session.store(), SystemClock::new());
    // Whoever watches sees at once that it is done.
    session.output.note(ended.sentence)?;
    let mut receipt = Receipt::default();
    if session.output == Output::Json {
        let mut answer = Answer::begin(record)?;
        let (looked_up, spread) = tokio::join!(
            look_up(session, &ended, &mut receipt, |jti| answer.jti(jti)),
            spread(store, ended.version, &clock)
        );
        return answer.end(&receipt, looked_up.is_ok(), spread.ok().map(|spread| taken(spread, &receipt, &ended)));
    }
    // Whatever is known first is told first: with very many tokens it is who has taken it in.
    let mut spreading = pin!(spread(store, ended.version, &clock));
    let (looked_up, heard) = {
        let mut looking_up = pin!(look_up(session, &ended, &mut receipt, |_| {}));
        tokio::select! {
            looked_up = &mut looking_up => (looked_up, None),
            spread = &mut spreading => {
                session.output.note(&spread_in_words(spread.as_ref()))?;
                (looking_up.await, Some(spread))
            }
        }
    };
    session.output.note(&match looked_up {
        Ok(()) => died_in_words(&receipt),
        Err(error) => format!("It is done; what died with it could not be looked up: {error}"),
    })?;
    let spread = match heard {
        Some(spread) => spread,
        None => {
            let spread = spreading.await;
            session.output.note(&spread_in_words(spread.as_ref()))?;
            spread
        }
    };
    match spread.ok().filter(|spread| spread.nodes > 0).map(|spread| taken(spread, &receipt, &ended).unheard) {
        Some(unheard) if !unheard.is_empty() => session.output.note(&unheard_in_words(&unheard)),
        // Where nobody hands lists out that has been said.
        _ => Ok(()),
    }
}

async fn look_up(
    session: &Session,
    ended: &Ended<'_>,
    receipt: &mut Receipt,
    died: impl FnMut(&str),
) -> Result<(), StoreUnavailable> {
    let store = session.store();
    // Later than the change: no token under what ended was decided after that.
    let now = time_of_the_nodes(session).await;
    let asked = ended.concerned.asked();
    record_reading(store, session.config.node.as_str(), now, session.actor(), "receipt", &asked).await?;
    // Where the index cannot be written the look-up takes longer, and that is all.
    let _ = catch_up(store, CLOSE, |_| {}).await;
    receipt::look_up(store, &ended.concerned, &ended.earlier, now, receipt, died).await
}

fn taken(spread: Spread, receipt: &Receipt, ended: &Ended<'_>) -> Taken {
    let is_gone =
        |resource: &str| matches!(&ended.concerned, Concerned::ResourceServer(gone) if gone.as_str() == resource);
    let concerned = receipt.resource_servers.keys();
    let unheard =
        concerned.filter(|resource| !spread.has_heard_from(resource) && !is_gone(resource)).cloned().collect();
    Taken { spread, unheard }
}

fn died_in_words(receipt: &Receipt) -> String {
    let dead_already = match receipt.dead_already {
        0 => String::new(),
        1 => " 1 more was dead already.".to_owned(),
        more => format!(" {more} more were dead already."),
    };
    if receipt.tokens == 0 {
        return format!("No token died with it: none was issued that had not expired and was good.{dead_already}");
    }
    format!(
        "{} issued and not expired died with it, for {}; --json has each by its jti.{dead_already}",
        counted(receipt.tokens, "token"),
        servers(&receipt.resource_servers)
    )
}

fn servers(resource_servers: &BTreeMap<String, usize>) -> String {
    listed(resource_servers.iter().map(|(resource, tokens)| format!("{} ({tokens})", printable(resource))))
}

fn spread_in_words(spread: Result<&Spread, &StoreUnavailable>) -> String {
    match spread {
        Ok(spread) => taken_in_words(spread),
        Err(error) => format!("Who has taken that in could not be looked up: {error}"),
    }
}

fn unheard_in_words(unheard: &[String]) -> String {
    let unheard = listed(unheard.iter().map(|resource| printable(resource)));
    format!("Nothing is known of {unheard}: it does not ask, or not by its own certificate.")
}

fn taken_in_words(spread: &Spread) -> String {
    if spread.nodes == 0 {
        return "No server hands out the revocation list just now: a resource server that reaches none refuses every call once its list is too old.".to_owned();
    }
    let mut said = Vec::new();
    let (all, waited) = (spread.resource_servers, spread.waited_milliseconds);
    if all > 0 {
        said.push(format!(
            "{} of {} that {} taken it in (registry version {}), after {waited} ms.",
            spread.taken,
            counted(all, "resource server"),
            if all == 1 { "names itself has" } else { "name themselves have" },
            spread.registry_version,
        ));
    }
    if !spread.behind.is_empty() {
        let behind = spread.behind.iter();
        let behind =
            listed(behind.map(|one| format!("{} (last heard of {} s ago)", printable(&one.id), one.silent_seconds)));
        said.push(format!("Not yet: {behind}."));
    }
    if !spread.nodes_behind.is_empty() {
        let nodes = listed(spread.nodes_behind.iter().map(|node| printable(node)));
        said.push(format!("Not known to hand it out yet: node {nodes}."));
    }
    match spread.others {
        0 if all == 0 => said.push("Nobody asks for the revocation list.".to_owned()),
        0 => {}
        others => said.push(format!("{others} more ask for the list and do not name themselves.")),
    }
    said.push(
        "Whoever reaches a server takes it in within a second, and whoever does not refuses once its list is too old."
            .to_owned(),
    );
    said.join(" ")
}

/// A few of them, and how many more there are.
fn listed(items: impl ExactSizeIterator<Item = String>) -> String {
    let more = items.len().saturating_sub(MOST_NAMED);
    let mut text = items.take(MOST_NAMED).collect::<Vec<_>>().join(", ");
    if more > 0 {
        text.push_str(&format!(" and {more} more"));
    }
    text
}

fn counted(number: usize, thing: &str) -> String {
    if number == 1 { format!("1 {thing}") } else { format!("{number} {thing}s") }
}

/// The answer for machines: one object, written as it becomes known, for a million `jti`s need not be held for it.
struct Answer<W: Write = io::Stdout> {
    out: W,
    pending: String,
    jtis: usize,
    failed: Option<io::Error>,
}

impl Answer {
    fn begin(record: &impl Serialize) -> Result<Self, Failure> {
        Self::to(io::stdout(), record)
    }
}

impl<W: Write> Answer<W> {
    /// Begins with the record's own members.
    fn to(out: W, record: &impl Serialize) -> Result<Self, Failure> {
        let mut pending = json(record)?;
        let inner = pending.strip_suffix("\n}").ok_or("a record that is no object, or has no members")?.len();
        pending.truncate(inner);
        pending.push(',');
        Ok(Self { out, pending, jtis: 0, failed: None })
    }

    fn jti(&mut self, jti: &str) {
        let begin = if self.jtis == 0 { "\n  \"ended\": {\n    \"jtis\": [" } else { "," };
        self.jtis += 1;
        self.pending.push_str(begin);
        self.pending.push_str("\n      ");
        self.pending.push_str(&serde_json::Value::from(jti).to_string());
        if self.pending.len() >= PIECE_BYTES {
            self.write();
        }
    }

    /// Ends with what became of the look-up, and with who has taken it in.
    fn end(mut self, receipt: &Receipt, is_complete: bool, taken: Option<Taken>) -> Result<(), Failure> {
        if self.jtis == 0 && !is_complete {
            self.pending.push_str("\n  \"ended\": null");
        } else {
            let jtis = if self.jtis == 0 { "\n  \"ended\": {\n    \"jtis\": []," } else { "\n    ]," };
            self.pending.push_str(jtis);
            let mut rest = serde_json::to_value(receipt)?;
            // Not, where the log failed on the way: then there may be more.
            rest["complete"] = is_complete.into();
            self.pending.push_str(&members(&rest, 4)?);
            self.pending.push_str("\n  }");
        }
        self.pending.push(',');
        self.pending.push_str(&members(&json!({ "revocation_list": taken }), 2)?);
        self.pending.push_str("\n}\n");
        self.write();
        match self.failed {
            // `… | head` has seen enough.
            Some(error) if error.kind() != io::ErrorKind::BrokenPipe => Err(error.into()),
            _ => Ok(()),
        }
    }

    fn write(&mut self) {
        if self.failed.is_none() {
            self.failed = self.out.write_all(self.pending.as_bytes()).and_then(|()| self.out.flush()).err();
        }
        self.pending.clear();
    }
}

/// The members of an object, indented so far, without the braces around them.
fn members(object: &serde_json::Value, indent: usize) -> Result<String, Failure> {
    let text = json(object)?;
    let inner = text.trim_start_matches('{').trim_end_matches('}').trim_end();
    Ok(inner.replace("\n  ", &format!("\n{:indent$}", "")))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::followers::store::Behind;

    /// What is written for these tokens, whether or not the look-up came to its end.
    fn written(jtis: &[&str], is_complete: bool) -> serde_json::Value {
        let record = json!({ "id": "a", "nested": { "at": 0, "more": {} } });
        let mut out = Vec::new();
        let mut answer = Answer::to(&mut out, &record).unwrap();
        jtis.iter().for_each(|jti| answer.jti(jti));
        let mut receipt = Receipt { tokens: jtis.len(), dead_already: 2, ..Receipt::default() };
        receipt.resource_servers.insert("https://api.example/\"}".to_owned(), jtis.len());
        answer.end(&receipt, is_complete, None).unwrap();
        let written: serde_json::Value = serde_json::from_slice(&out).unwrap();
        assert_eq!(written["nested"], json!({ "at": "1970-01-01T00:00:00.000Z", "more": {} }));
        // As it is laid out where it is made at once.
        assert_eq!(String::from_utf8(out).unwrap().lines().count(), json(&written).unwrap().lines().count());
        written
    }

    #[test]
    fn an_answer_that_is_written_piece_by_piece_is_one_object() {
        for jtis in [&[][..], &["one"], &["one", "\"two\"\\\n"]] {
            let written = written(jtis, true);
            assert_eq!((&written["id"], &written["revocation_list"]), (&json!("a"), &json!(null)));
            let servers = json!({ "https://api.example/\"}": jtis.len() });
            let expected = json!({
                "jtis": jtis, "tokens": jtis.len(), "dead_already": 2, "resource_servers": servers, "complete": true,
            });
            assert_eq!(written["ended"], expected);
        }
    }

    #[test]
    fn a_log_that_fails_on_the_way_leaves_an_object_that_says_so() {
        assert_eq!(written(&[], false)["ended"], json!(null));
        let ended = &written(&["one"], false)["ended"];
        assert_eq!((&ended["jtis"], &ended["complete"]), (&json!(["one"]), &json!(false)));
    }

    #[test]
    fn what_is_no_object_is_no_record() {
        for record in [json!("text"), json!({}), json!([])] {
            assert!(Answer::to(Vec::new(), &record).is_err(), "{record}");
        }
    }

    /// Takes so many octets and then fails like this.
    struct Full(usize, io::ErrorKind);

    impl Write for Full {
        fn write(&mut self, octets: &[u8]) -> io::Result<usize> {
            self.0 = self.0.checked_sub(octets.len()).ok_or(self.1)?;
            Ok(octets.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn an_answer_that_cannot_be_written_is_held_by_nobody() {
        for (kind, is_told) in [(io::ErrorKind::StorageFull, true), (io::ErrorKind::BrokenPipe, false)] {
            let mut answer = Answer::to(Full(100_000, kind), &json!({ "id": "a" })).unwrap();
            for _ in 0..20_000 {
                answer.jti("0123456789012345678901234567");
                assert!(answer.pending.len() < PIECE_BYTES);
            }
            assert_eq!(answer.end(&Receipt::default(), true, None).is_err(), is_told, "{kind:?}");
        }
    }

    fn taken_of(change: impl FnOnce(&mut Spread)) -> String {
        let mut spread = Spread::default();
        (spread.registry_version, spread.nodes, spread.resource_servers, spread.taken) = (9, 1, 3, 3);
        change(&mut spread);
        taken_in_words(&spread)
    }

    #[test]
    fn the_time_is_this_clocks_unless_it_is_ahead_of_the_nodes() {
        let at = UnixTime::from_seconds;
        assert_eq!(by_the_nodes(at(1_000), None), at(1_000), "nobody serves");
        assert_eq!(by_the_nodes(at(1_000), Some(at(1_000))), at(1_000));
        assert_eq!(by_the_nodes(at(1_001), Some(at(1_000))), at(970), "or every token had expired");
        assert_eq!(by_the_nodes(at(1_000), Some(at(999_999))), at(1_000), "noted by a clock that was set right since");
    }

    #[test]
    fn people_are_told_who_has_taken_it_in() {
        assert!(taken_of(|_| {}).starts_with("3 of 3 resource servers that name themselves have taken it in"));
        let behind = |id: &str| Behind { id: id.to_owned(), resource: String::new(), silent_seconds: 12 };
        let said = taken_of(|spread| {
            (spread.taken, spread.behind) = (2, vec![behind("claims-api")]);
        });
        assert!(said.contains("2 of 3") && said.contains("Not yet: claims-api (last heard of 12 s ago)."), "{said}");
        let many = taken_of(|spread| spread.behind = (0..10).map(|_| behind("api")).collect());
        assert!(many.contains(" and 2 more."), "{many}");
        assert!(taken_of(|spread| spread.nodes_behind = vec!["two".to_owned()]).contains("node two."));
        let one = taken_of(|spread| (spread.taken, spread.resource_servers) = (1, 1));
        assert!(one.starts_with("1 of 1 resource server that names itself has taken it in"), "{one}");
        let unheard = unheard_in_words(&["https://x.example/\u{1b}[2J".to_owned()]);
        assert!(unheard.contains("Nothing is known of https://x.example/") && !unheard.contains('\u{1b}'), "{unheard}");
        let nobody = taken_of(|spread| (spread.taken, spread.resource_servers) = (0, 0));
        assert!(nobody.starts_with("Nobody asks"), "{nobody}");
        assert!(taken_of(|spread| spread.nodes = 0).starts_with("No server hands out"));
    }
}
