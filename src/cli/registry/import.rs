//! `countersign registry import`: read and judged on one core, entered on another, visible at the end.
//!
//! Lines are read in lots. While one lot is written, the next is parsed. Between two transactions it rests about as long as the
//! last one took, so that whoever else writes has at least half of the time.

use std::collections::{BTreeMap, HashSet};
use std::fs::File;
use std::io::{self, BufReader, Read};
use std::path::Path;
use std::sync::atomic::Ordering;
use std::time::Duration;

use countersign_resource_server::time::{Clock, SystemClock};
use serde::Serialize;
use sha2::{Digest, Sha256};
use tokio::sync::mpsc;

use super::super::audit::progress::Progress;
use super::super::session::{Failure, Session};
use super::ImportArguments;
use super::reading::{self, Context};
use crate::registry::edit::{EditRefusal, RecordKind};
use crate::registry::history::{Explanation, Touched};
use crate::registry::import::{Contents, ImportId, ImportStore, Lease, Numbered, Origin, Refused};
use crate::registry::{ParticipantId, RegistryVersion};
use crate::store::Store;

/// Records that are entered in one transaction.
const LOT: usize = 500;

/// Octets of lines after which a lot is full.
const LOT_BYTES: usize = 1024 * 1024;

/// The longest line.
const LINE_BYTES: u64 = 256 * 1024;

/// Lots that wait to be entered.
const WAITING: usize = 2;

/// How many mistakes are looked for.
const MISTAKES: usize = 20;

/// How many records that were refused are remembered, for what refers to them to be told as no mistake of its own.
const REMEMBERED: usize = 100_000;

/// How long an import that gives no sign of life is waited for by others.
const LEASE: Duration = Duration::from_secs(30);

/// How long it waits for lines before it says that it is alive.
const RENEWED_AFTER: Duration = Duration::from_secs(10);

/// The longest rest between two transactions.
const LONGEST_REST: Duration = Duration::from_millis(250);

#[derive(Serialize)]
struct Done<'a> {
    registry_version: RegistryVersion,
    import: ImportId,
    #[serde(flatten)]
    contents: &'a Contents,
}

/// Runs the command.
///
/// # Errors
/// A sentence for each mistake, up to [`MISTAKES`]; or why the store does not take it. Nothing of it is left then.
pub(super) async fn run(arguments: ImportArguments, session: &Session) -> Result<(), Failure> {
    let ImportArguments { file, why } = arguments;
    let source: Box<dyn Read + Send> = if file == Path::new("-") {
        Box::new(io::stdin())
    } else {
        Box::new(File::open(&file).map_err(|error| format!("{}: {error}", file.display()))?)
    };
    let clock = SystemClock::new();
    let store = session.store();
    let begun_at = clock.now();
    let name = file.display().to_string();
    let origin = Origin { actor: session.actor().clone(), begun_at, file: name.clone() };
    let lease = store.begin_import(origin, begun_at.after(LEASE)).await?;
    let import = lease.import;
    let context = Context { now: begun_at, environment: session.config.environment };
    let mut under_way = UnderWay {
        store,
        clock: &clock,
        lease,
        explanation: Explanation { at: begun_at, ..session.explain(why) },
        mistakes: BTreeMap::new(),
        missing: HashSet::new(),
        concerns: HashSet::new(),
        newcomer: None,
        contents: Contents { file: name, ..Contents::default() },
        may_be_published: false,
    };
    let outcome = tokio::select! {
        outcome = under_way.work(source, context) => outcome,
        _ = tokio::signal::ctrl_c() => Err("interrupted".into()),
    };
    let UnderWay { contents, may_be_published, .. } = under_way;
    let done = |version| {
        let sentence = in_words(&contents, version);
        session.output.done(&sentence, &Done { registry_version: version, import, contents: &contents })
    };
    let failure = match outcome {
        Ok(version) => return done(version),
        Err(failure) => failure,
    };
    let not_removed =
        |error: String| format!("nothing was imported; what it has left is removed by the next command ({error})");
    let left = match store.abandon(import).await {
        // It was committed, and that was not heard.
        Ok(Some(version)) => return done(version),
        // Where that does not succeed, another command or a node does it.
        Ok(None) => match store.sweep_imports(None).await {
            Ok(_) => "nothing was imported".to_owned(),
            Err(error) => not_removed(error.to_string()),
        },
        Err(error) if may_be_published => format!(
            "whether it was imported is not known ({error}): `countersign history --subject import:{import}` has an entry where it was, and otherwise nothing was imported"
        ),
        Err(error) => not_removed(error.to_string()),
    };
    Err(format!("{failure}\n{left}").into())
}

/// An import under way.
struct UnderWay<'a> {
    store: &'a Store,
    clock: &'a SystemClock,
    lease: Lease,
    explanation: Explanation,
    mistakes: BTreeMap<u64, String>,
    /// Records that were refused: what is missing on their account is no mistake of its own.
    missing: HashSet<(RecordKind, String)>,
    concerns: HashSet<Touched>,
    newcomer: Option<ParticipantId>,
    /// What was read.
    contents: Contents,
    /// Whether the last transaction was begun.
    may_be_published: bool,
}

impl UnderWay<'_> {
    async fn work(&mut self, source: Box<dyn Read + Send>, context: Context) -> Result<RegistryVersion, Failure> {
        let (sender, mut lots) = mpsc::channel(WAITING);
        // A thread of its own, which nobody waits for: it may be waiting for input that never comes.
        std::thread::spawn(move || read_lots(source, context, &sender));
        let progress = Progress::of("read");
        let mut sha256 = None;
        while let Some(Lot { entries, mistakes, lines, ended }) = self.next(&mut lots).await? {
            sha256 = ended;
            for Mistake { line, subject, sentence } in mistakes {
                self.mistakes.insert(line, sentence);
                self.missing.extend(subject);
            }
            for numbered in &entries {
                self.contents.count(&numbered.entry);
            }
            self.contents.lines += lines;
            // One line may enter thousands: the grants of an anchor.
            let mut rest = entries;
            while rest.len() > LOT {
                let later = rest.split_off(LOT);
                self.enter(std::mem::replace(&mut rest, later)).await?;
            }
            self.enter(rest).await?;
            progress.count().store(self.contents.lines, Ordering::Relaxed);
            if self.has_enough() {
                break;
            }
        }
        drop(progress);
        if !self.mistakes.is_empty() {
            return Err(self.listed().into());
        }
        self.contents.sha256 = sha256.ok_or("the file was not read to its end")?;
        if self.contents.lines == 0 {
            return Err("there is no line in it".into());
        }
        let mut concerns = std::mem::take(&mut self.concerns);
        if !concerns.iter().any(|touched| matches!(touched, Touched::Participant(_))) {
            concerns.extend(self.newcomer.take().map(Touched::Participant));
        }
        let explanation = Explanation { at: self.clock.now(), ..self.explanation.clone() };
        self.may_be_published = true;
        Ok(self.store.publish(self.lease, &self.contents, concerns, explanation).await?)
    }

    /// The next lot. Whoever waits for lines is alive.
    async fn next(&mut self, lots: &mut mpsc::Receiver<Lot>) -> Result<Option<Lot>, Failure> {
        loop {
            match tokio::time::timeout(RENEWED_AFTER, lots.recv()).await {
                Ok(lot) => return Ok(lot),
                Err(_) => self.enter(Vec::new()).await?,
            }
        }
    }

    async fn enter(&mut self, entries: Vec<Numbered>) -> Result<(), Failure> {
        let begun = self.clock.monotonic();
        // Never the same twice: one of two lots may be lost.
        let until = self.clock.now().after(LEASE).max(self.lease.until.after(Duration::from_millis(1)));
        let staged = self.store.stage(self.lease, entries, self.explanation.clone(), until).await?;
        self.lease.until = until;
        let took = self.clock.monotonic().saturating_sub(begun);
        for refused in staged.refused {
            self.note(refused);
        }
        self.concerns.extend(staged.concerns);
        if let Some(newcomer) = staged.newcomer {
            self.newcomer.get_or_insert(newcomer);
        }
        tokio::time::sleep(took.min(LONGEST_REST)).await;
        Ok(())
    }

    fn note(&mut self, refused: Refused) {
        let Refused { line, subject, refusal } = refused;
        let follows = match &refusal {
            EditRefusal::NotFound { kind, id } => self.missing.contains(&(*kind, id.clone())),
            _ => false,
        };
        self.missing.insert(subject);
        if !follows {
            self.mistakes.insert(line, refusal.to_string());
        }
    }

    /// Whether it looks no further for mistakes.
    fn has_enough(&self) -> bool {
        self.mistakes.len() >= MISTAKES || self.missing.len() >= REMEMBERED
    }

    fn listed(&self) -> String {
        let lines: Vec<String> =
            self.mistakes.iter().take(MISTAKES).map(|(line, mistake)| format!("line {line}: {mistake}")).collect();
        let more = if self.has_enough() { "\nthere may be more" } else { "" };
        format!("{}{more}", lines.join("\n"))
    }
}

/// Some lines, read.
struct Lot {
    entries: Vec<Numbered>,
    mistakes: Vec<Mistake>,
    lines: u64,
    /// With the last lot: the SHA-256 of everything.
    ended: Option<String>,
}

/// A line that cannot be entered, whatever is registered.
struct Mistake {
    line: u64,
    /// The record that it is about, where that can be told.
    subject: Option<(RecordKind, String)>,
    sentence: String,
}

/// Reads and parses to the end, or until nobody listens any more.
fn read_lots(source: Box<dyn Read + Send>, context: Context, lots: &mpsc::Sender<Lot>) {
    let mut lines = Lines { source: BufReader::with_capacity(LOT_BYTES, source), hash: Sha256::new(), number: 0 };
    let mut text = Vec::new();
    loop {
        let mut lot = Lot { entries: Vec::with_capacity(LOT), mistakes: Vec::new(), lines: 0, ended: None };
        let (mut octets, mut ended) = (0, false);
        while lot.entries.len() < LOT && octets < LOT_BYTES && lot.mistakes.len() < MISTAKES {
            match lines.next(&mut text) {
                Ok(true) => {}
                Ok(false) => {
                    ended = true;
                    break;
                }
                Err(sentence) => {
                    lot.mistakes.push(Mistake { line: lines.number, subject: None, sentence });
                    ended = true;
                    break;
                }
            }
            octets += text.len();
            if text.iter().all(u8::is_ascii_whitespace) {
                continue;
            }
            lot.lines += 1;
            let line = lines.number;
            match reading::read(&text, line, context) {
                Ok(entries) => lot.entries.extend(entries.into_iter().map(|entry| Numbered { line, entry })),
                Err(mistake) => {
                    let (subject, sentence) = (reading::subject(&text), mistake.to_string());
                    lot.mistakes.push(Mistake { line, subject, sentence });
                }
            }
        }
        if ended {
            lot.ended = Some(hex::encode(lines.hash.clone().finalize()));
        }
        if lots.blocking_send(lot).is_err() || ended {
            return;
        }
    }
}

/// Lines, and the hash of all that was read.
struct Lines {
    source: BufReader<Box<dyn Read + Send>>,
    hash: Sha256,
    number: u64,
}

impl Lines {
    /// The next line, with its end, which counts; false where there is none.
    fn next(&mut self, text: &mut Vec<u8>) -> Result<bool, String> {
        use io::BufRead;
        text.clear();
        self.number += 1;
        let read = (&mut self.source).take(LINE_BYTES + 1).read_until(b'\n', text);
        read.map_err(|error| format!("it cannot be read: {error}"))?;
        self.hash.update(&text[..]);
        if u64::try_from(text.len()).unwrap_or(u64::MAX) > LINE_BYTES {
            return Err(format!(
                "it has more than {LINE_BYTES} octets: it is no line of an import, and nothing after it was read"
            ));
        }
        Ok(!text.is_empty())
    }
}

fn in_words(contents: &Contents, version: RegistryVersion) -> String {
    let counts = [
        (contents.participants, "participants"),
        (contents.anchors, "trust anchors"),
        (contents.grants, "grants"),
        (contents.resource_servers, "resource servers"),
        (contents.clients, "clients"),
        (contents.certificates, "certificates"),
        (contents.entitlements, "entitlements"),
        (contents.revoked_keys, "revoked keys"),
    ];
    let counted: Vec<String> =
        counts.iter().filter(|(count, _)| *count > 0).map(|(count, what)| format!("{count} {what}")).collect();
    format!("imported {}, registry version {version}\n  SHA-256 of the file: {}", counted.join(", "), contents.sha256)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::registry::fixture::{NOW, because};
    use crate::store::contract::Bench;

    /// A million clients of one participant whose line is bad are a million strings.
    #[tokio::test]
    async fn what_is_missing_on_account_of_one_mistake_is_remembered_up_to_a_limit() {
        let bench = Bench::sqlite().await;
        let clock = SystemClock::new();
        let mut under_way = UnderWay {
            store: &bench.store,
            clock: &clock,
            lease: Lease { import: ImportId(1), until: NOW },
            explanation: because("bulk"),
            mistakes: BTreeMap::from([(1, "it has no name".to_owned())]),
            missing: HashSet::from([(RecordKind::Participant, "p".to_owned())]),
            concerns: HashSet::new(),
            newcomer: None,
            contents: Contents::default(),
            may_be_published: false,
        };
        let mut line = 1;
        while under_way.missing.len() < REMEMBERED {
            assert!(!under_way.has_enough() && !under_way.listed().contains("there may be more"));
            line += 1;
            let subject = (RecordKind::Client, format!("c{line}"));
            let refusal = EditRefusal::NotFound { kind: RecordKind::Participant, id: "p".to_owned() };
            under_way.note(Refused { line, subject, refusal });
        }
        assert!(under_way.has_enough());
        assert_eq!(under_way.listed(), "line 1: it has no name\nthere may be more");
    }

    #[test]
    fn a_line_is_as_long_as_it_may_be_and_not_an_octet_longer() {
        let limit = usize::try_from(LINE_BYTES).unwrap();
        for (length, is_taken) in [(limit, true), (limit + 1, false)] {
            let source: Box<dyn Read + Send> = Box::new(io::Cursor::new(vec![b'x'; length]));
            let mut lines = Lines { source: BufReader::new(source), hash: Sha256::new(), number: 0 };
            assert_eq!(lines.next(&mut Vec::new()).is_ok(), is_taken, "{length}");
        }
    }
}
