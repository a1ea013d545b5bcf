//! `countersign registry import`: read and judged on one core, entered on another, visible at the end.
//!
//! Lines are read in lots. While one lot is written, the next is parsed. Certificates are held back, and entered in the order of
//! their thumbprints. Between two transactions on SQLite, which has one writer at a time, it rests about as long as the last one
//! took, so that whoever else writes has at least half of the time.

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
use crate::registry::certificate::Certificate;
use crate::registry::edit::{EditRefusal, RecordKind};
use crate::registry::history::{Explanation, Touched};
use crate::registry::import::{Contents, Entry, ImportId, ImportStore, Lease, Numbered, Origin, Refused};
use crate::registry::{ParticipantId, PathIssuer, RegistryVersion};
use crate::store::Store;

/// Records that are read together, and the most that are entered in one transaction.
const LOT: usize = 500;

/// The least that are entered in one transaction, however long it takes.
const SMALLEST_LOT: usize = 50;

/// How long a transaction may take before the next one is made smaller: a request gives up after two seconds, and on SQLite what it is
/// recorded with waits for this transaction. On a busy machine 500 certificates take longer than that.
const SHORT: Duration = Duration::from_millis(150);

/// Octets of lines after which a lot is full.
const LOT_BYTES: usize = 1024 * 1024;

/// The longest line.
const LINE_BYTES: u64 = 256 * 1024;

/// Lots that wait to be entered.
const WAITING: usize = 2;

/// Certificates that are held back before they are entered. A thumbprint is a hash: in the order of the file each one lies on another
/// page of the indexes that it is in, and every such page is read and written for it alone.
const HELD: usize = 100_000;

/// Or so many octets.
const HELD_OCTETS: usize = 128 << 20;

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
        held: Vec::new(),
        held_octets: 0,
        // It grows by itself where the store is quick. Operators wait to write meanwhile, for a second and a half.
        lot: SMALLEST_LOT,
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
    /// Certificates that were read and are not entered yet, each with its line.
    held: Vec<(u64, Box<Certificate>)>,
    /// What they take, in octets.
    held_octets: usize,
    /// How many records the next transaction enters.
    lot: usize,
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
            let others = self.hold_certificates(entries);
            // One line may enter thousands: the grants of an anchor. Where there is none, it says that it is alive.
            self.enter_in_lots(others).await?;
            if self.held.len() >= HELD || self.held_octets >= HELD_OCTETS {
                self.enter_held().await?;
            }
            progress.count().store(self.contents.lines, Ordering::Relaxed);
            if self.has_enough() {
                break;
            }
        }
        self.enter_held().await?;
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

    /// Keeps the certificates for later, and gives everything else. Nothing refers to a certificate but another one, which may come
    /// before it or after it.
    fn hold_certificates(&mut self, entries: Vec<Numbered>) -> Vec<Numbered> {
        let mut others = Vec::with_capacity(entries.len());
        for Numbered { line, entry } in entries {
            match entry {
                Entry::Certificate(certificate) => {
                    self.held_octets += octets(&certificate);
                    self.held.push((line, certificate));
                }
                entry => others.push(Numbered { line, entry }),
            }
        }
        others
    }

    /// Enters what is held back, as far as mistakes are still looked for.
    async fn enter_held(&mut self) -> Result<(), Failure> {
        self.held_octets = 0;
        let held = in_order(std::mem::take(&mut self.held));
        self.enter_in_lots(held).await
    }

    /// Enters these, in as many transactions as it takes, and begins one at least.
    async fn enter_in_lots(&mut self, entries: impl IntoIterator<Item = Numbered>) -> Result<(), Failure> {
        let mut entries = entries.into_iter().peekable();
        loop {
            self.enter(entries.by_ref().take(self.lot).collect()).await?;
            if entries.peek().is_none() || self.has_enough() {
                return Ok(());
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
        self.lot = next_lot(self.lot, took);
        for refused in staged.refused {
            self.note(refused);
        }
        self.concerns.extend(staged.concerns);
        if let Some(newcomer) = staged.newcomer {
            self.newcomer.get_or_insert(newcomer);
        }
        // PostgreSQL has others write at the same time, and keeps a queue of those who want to change the registry.
        if !self.store.is_shared() {
            tokio::time::sleep(took.min(LONGEST_REST)).await;
        }
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

/// What a certificate takes, of which a line may say more than its own length: an empty name is three octets there.
fn octets(certificate: &Certificate) -> usize {
    let names: usize = certificate.subject_alt_names.iter().map(|name| size_of::<String>() + name.len()).sum();
    let issuers: usize = certificate.issuers.iter().map(|issuer| size_of::<PathIssuer>() + issuer.serial.len()).sum();
    size_of::<Certificate>() + certificate.subject.len() + names + issuers
}

/// How many records the transaction after one of `lot` enters that took so long.
fn next_lot(lot: usize, took: Duration) -> usize {
    if took > SHORT {
        (lot / 2).max(SMALLEST_LOT)
    } else if took < SHORT / 2 {
        (lot + SMALLEST_LOT).min(LOT)
    } else {
        lot
    }
}

/// In the order of their thumbprints. Of two that are the same, the one that comes later in the file comes later here, and is refused.
fn in_order(mut certificates: Vec<(u64, Box<Certificate>)>) -> impl Iterator<Item = Numbered> {
    certificates.sort_by_key(|(_, one)| one.thumbprint);
    certificates.into_iter().map(|(line, certificate)| Numbered { line, entry: Entry::Certificate(certificate) })
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
    use crate::registry::fixture::{NOW, because, client, client_id, facts, participant};
    use crate::store::contract::Bench;

    fn under_way<'a>(store: &'a Store, clock: &'a SystemClock, lease: Lease) -> UnderWay<'a> {
        UnderWay {
            store,
            clock,
            lease,
            explanation: because("bulk"),
            held: Vec::new(),
            held_octets: 0,
            lot: LOT,
            mistakes: BTreeMap::new(),
            missing: HashSet::new(),
            concerns: HashSet::new(),
            newcomer: None,
            contents: Contents::default(),
            may_be_published: false,
        }
    }

    async fn begin(store: &Store) -> Lease {
        let origin = Origin { actor: because("x").actor, begun_at: NOW, file: "bulk.jsonl".to_owned() };
        store.begin_import(origin, NOW.after(LEASE)).await.unwrap()
    }

    fn a_certificate(line: u64, number: u32) -> Numbered {
        let certificate = facts(number).announced(client_id("acme-1"), NOW);
        Numbered { line, entry: Entry::Certificate(Box::new(certificate)) }
    }

    #[test]
    fn certificates_are_entered_in_the_order_of_their_thumbprints() {
        let mut certificates = Vec::new();
        for (line, number) in (1..).zip([1, 2, 3, 4, 2, 5]) {
            let Numbered { line, entry: Entry::Certificate(certificate) } = a_certificate(line, number) else {
                panic!()
            };
            certificates.push((line, certificate));
        }
        let mut entered = Vec::new();
        for Numbered { line, entry } in in_order(certificates) {
            let Entry::Certificate(certificate) = entry else { panic!() };
            entered.push((certificate.thumbprint, line));
        }
        assert_eq!(entered.len(), 6);
        // By line where the thumbprint is the same: lines 2 and 5.
        assert!(entered.is_sorted(), "{entered:?}");
    }

    #[test]
    fn names_without_letters_and_issuers_count_as_held() {
        let mut certificate = facts(1).announced(client_id("acme-1"), NOW);
        (certificate.subject_alt_names, certificate.issuers) = (Vec::new(), Vec::new());
        let plain = octets(&certificate);
        certificate.subject_alt_names = vec![String::new(); 87_000];
        assert_eq!(octets(&certificate) - plain, 87_000 * size_of::<String>());
        certificate.subject_alt_names.clear();
        let issuer = PathIssuer {
            key_hash: facts(1).key_hash,
            issuer_key: facts(1).key_hash,
            serial: "01".to_owned(),
            not_after: NOW,
        };
        certificate.issuers = vec![issuer; 1_300];
        assert_eq!(octets(&certificate) - plain, 1_300 * (size_of::<PathIssuer>() + 2));
    }

    #[test]
    fn a_transaction_that_took_long_is_followed_by_a_smaller_one() {
        let longer = SHORT + Duration::from_nanos(1);
        assert_eq!([500, 300, 99, 50].map(|lot| next_lot(lot, longer)), [250, 150, 50, 50]);
        assert_eq!([500, 300, 50].map(|lot| next_lot(lot, SHORT)), [500, 300, 50]);
        assert_eq!([50, 300, 480, 500].map(|lot| next_lot(lot, Duration::from_millis(74))), [100, 350, 500, 500]);
    }

    #[tokio::test]
    async fn a_certificate_is_entered_after_the_client_of_a_later_line_of_its_lot() {
        let bench = Bench::sqlite().await;
        bench.registry.add_participant(participant("acme"), because("x")).await.unwrap();
        let clock = SystemClock::new();
        let mut under_way = under_way(&bench.store, &clock, begin(&bench.store).await);
        let client = Entry::Client(Box::new(client("acme-1", "acme")), vec![]);
        let client = Numbered { line: 3, entry: client };
        let others =
            under_way.hold_certificates(vec![a_certificate(1, 1), a_certificate(2, 2), client, a_certificate(4, 1)]);
        assert_eq!(others.iter().map(|numbered| numbered.line).collect::<Vec<_>>(), [3]);
        under_way.enter_in_lots(others).await.unwrap();
        under_way.enter_held().await.unwrap();
        // The fourth line has the certificate of the first.
        assert_eq!(under_way.mistakes.keys().collect::<Vec<_>>(), [&4]);
        under_way.mistakes.clear();
        assert!(under_way.held.is_empty());
        under_way.enter_held().await.unwrap();
        assert!(under_way.mistakes.is_empty());
    }

    /// Whoever writes one certificate every nine seconds is alive, though nothing is entered before the end.
    #[tokio::test]
    async fn a_lot_of_nothing_but_certificates_says_that_the_import_is_alive() {
        let bench = Bench::sqlite().await;
        let clock = SystemClock::new();
        let lease = begin(&bench.store).await;
        let mut under_way = under_way(&bench.store, &clock, lease);
        let others = under_way.hold_certificates(vec![a_certificate(1, 1)]);
        under_way.enter_in_lots(others).await.unwrap();
        assert!(under_way.lease.until > lease.until);
        assert_eq!(bench.store.import_under_way().await.unwrap(), Some(under_way.lease));
        assert_eq!(under_way.held.len(), 1);
    }

    /// A million clients of one participant whose line is bad are a million strings.
    #[tokio::test]
    async fn what_is_missing_on_account_of_one_mistake_is_remembered_up_to_a_limit() {
        let bench = Bench::sqlite().await;
        let clock = SystemClock::new();
        let lease = Lease { import: ImportId(1), until: NOW };
        let mut under_way = UnderWay {
            mistakes: BTreeMap::from([(1, "it has no name".to_owned())]),
            missing: HashSet::from([(RecordKind::Participant, "p".to_owned())]),
            ..under_way(&bench.store, &clock, lease)
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
        for (length, end, is_taken) in
            [(limit, "", true), (limit + 1, "", false), (limit - 1, "\n", true), (limit, "\n", false)]
        {
            let line = [&vec![b'x'; length], end.as_bytes()].concat();
            let source: Box<dyn Read + Send> = Box::new(io::Cursor::new(line.clone()));
            let mut lines = Lines { source: BufReader::new(source), hash: Sha256::new(), number: 0 };
            let mut read = Vec::new();
            assert_eq!(lines.next(&mut read).is_ok(), is_taken, "{length} and {end:?}");
            assert!(!is_taken || read == line, "its end counts");
        }
    }
}
