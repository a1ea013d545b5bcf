//! Each case of the judge can fail: a server that is right passes all, and each of its defects is noticed by the cases that
//! are there for it and by no other.
//!
//! `src/bin/broken-server/cases.toml` says which. By default every case is asked where it is expected to fail at the defect
//! that the fewest cases notice, and each defect meets a few more of its cases and a few of the others; with `CAN_FAIL=all`
//! it meets every case (half an hour), with `CAN_FAIL=DEFECT,DEFECT` these do; what does not agree is told in the words of
//! that file.

#![expect(clippy::unwrap_used, reason = "test code, of which clippy knows only what stands in test functions")]

use std::collections::{BTreeMap, BTreeSet};
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{LazyLock, Mutex};

use countersign_conformance::judge::{Catalogue, Choice, Progress, run};
use serde::Deserialize;

/// Runs at a time: each waits for the other end half of its time.
const WORKERS: usize = 4;

/// How many more of its cases a defect meets.
const MORE: usize = 3;

/// Every so many of all cases is asked too.
const SAMPLE: usize = 350;

/// The cases, read once.
static CATALOGUE: LazyLock<Catalogue> = LazyLock::new(|| Catalogue::built_in().unwrap());

/// What `cases.toml` says.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Table {
    /// Cases that the server without a defect does not meet, with the reason.
    skipped: BTreeMap<String, String>,
    /// Cases that no defect makes fail, with the reason.
    never: BTreeMap<String, String>,
    /// The cases that each defect makes fail: these and no others.
    fails: BTreeMap<String, BTreeSet<String>>,
    /// Of the cases of a defect, those that it leaves nothing to ask with: another shows that they can fail.
    unasked: BTreeMap<String, BTreeSet<String>>,
    /// Defects under which hardly anything works: these cases fail, and others may.
    fails_among_others: BTreeMap<String, BTreeSet<String>>,
}

impl Table {
    fn read() -> Self {
        toml::from_str(include_str!("../src/bin/broken-server/cases.toml")).unwrap()
    }

    /// Every defect with its cases.
    fn defects(&self) -> impl Iterator<Item = (&String, &BTreeSet<String>)> {
        self.fails.iter().chain(&self.fails_among_others)
    }

    /// The defect's own of these cases: those that no narrower defect makes fail.
    fn own(&self, defect: &str, cases: &BTreeSet<String>) -> BTreeSet<String> {
        let is_its_own = |case: &&String| {
            let is_unasked = |name: &String| self.unasked.get(name).is_some_and(|cases| cases.contains(*case));
            let others = self.defects().filter(|(name, cases)| cases.contains(*case) && !is_unasked(name));
            others.min_by_key(|(name, cases)| (cases.len(), *name)).is_some_and(|(name, _)| name == defect)
        };
        cases.iter().filter(is_its_own).cloned().collect()
    }

    /// The cases of this defect that are asked by default: its own, and a few.
    fn asked(&self, defect: &str, cases: &BTreeSet<String>) -> BTreeSet<String> {
        let own = self.own(defect, cases);
        let others = cases.difference(&own).take(MORE).cloned();
        others.chain(own.iter().cloned()).collect()
    }

    /// Every case that fails for some defect.
    fn failing(&self) -> BTreeSet<String> {
        self.defects().flat_map(|(_, cases)| cases).cloned().collect()
    }
}

/// A server, until it is dropped.
struct Server {
    child: Child,
    target: PathBuf,
    _open_while_it_is_needed: Option<ChildStdin>,
}

impl Server {
    fn start(defect: Option<&str>) -> Self {
        let directory = Path::new(env!("CARGO_TARGET_TMPDIR")).join("can_fail").join(defect.unwrap_or("none"));
        let mut command = Command::new(env!("CARGO_BIN_EXE_broken-server"));
        command.arg("--directory").arg(&directory).arg("--while-input");
        command.args(defect.map(|defect| format!("--break={defect}")));
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
        let mut line = String::new();
        BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
        assert!(line.starts_with("ready"), "{defect:?}: {line}");
        Self { _open_while_it_is_needed: child.stdin.take(), child, target: directory.join("target.toml") }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _it_may_have_ended = self.child.kill();
        let _and_is_gone = self.child.wait();
    }
}

/// How each case ended, and why.
#[derive(Default)]
struct Outcomes(BTreeMap<String, (String, String)>);

impl Progress for Outcomes {
    fn begins(&mut self, _done: usize, _of: usize, _id: &str) {}

    fn ended(&mut self, outcome: &str, _place: &str, id: &str, why: &str) {
        self.0.insert(id.to_owned(), (outcome.to_owned(), why.to_owned()));
    }
}

impl Outcomes {
    /// Judges a server with this defect by these cases; by all where there are none.
    fn of(defect: Option<&str>, only: Vec<String>) -> Self {
        let server = Server::start(defect);
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let mut outcomes = Self::default();
        let choice = Choice { only, ..Choice::default() };
        runtime.block_on(run(&server.target, &CATALOGUE, &choice, &mut outcomes)).unwrap();
        outcomes
    }

    fn that_ended(&self, outcome: &str) -> BTreeSet<String> {
        self.0.iter().filter(|(_, (own, _))| own == outcome).map(|(id, _)| id.clone()).collect()
    }

    fn told(&self, id: &str) -> String {
        self.0.get(id).map_or_else(|| "not asked".to_owned(), |(outcome, why)| format!("{outcome}: {why}"))
    }
}

fn all_cases() -> Vec<String> {
    CATALOGUE.ids().map(str::to_owned).collect()
}

fn listed_defects() -> Vec<String> {
    let listed = Command::new(env!("CARGO_BIN_EXE_broken-server")).arg("--list").output().unwrap();
    let text = String::from_utf8(listed.stdout).unwrap();
    text.lines().filter_map(|line| line.split_whitespace().next()).map(str::to_owned).collect()
}

#[test]
fn a_server_without_defect_passes() {
    let table = Table::read();
    let outcomes = Outcomes::of(None, Vec::new());
    for outcome in ["fail", "error", "excepted"] {
        let ended: Vec<String> =
            outcomes.that_ended(outcome).iter().map(|id| format!("{id}: {}", outcomes.told(id))).collect();
        assert!(ended.is_empty(), "{outcome}:\n{}", ended.join("\n"));
    }
    let skipped = outcomes.that_ended("skipped");
    assert_eq!(
        skipped,
        table.skipped.keys().cloned().collect(),
        "the cases that are skipped are not those of cases.toml"
    );
}

#[test]
fn each_defect_is_noticed_by_its_cases_alone() {
    let table = Table::read();
    let cases = all_cases();
    let defects: Vec<(&String, &BTreeSet<String>)> = table.defects().collect();
    let wanted = std::env::var("CAN_FAIL").unwrap_or_default();
    let is_named = |defect: &str| wanted.split(',').any(|name| name == defect);
    let defects: Vec<_> = match wanted.as_str() {
        "" | "all" => defects,
        _ => defects.into_iter().filter(|(defect, _)| is_named(defect)).collect(),
    };
    let everything = !wanted.is_empty();
    let next = AtomicUsize::new(0);
    let mistakes = Mutex::new(BTreeMap::new());
    std::thread::scope(|scope| {
        for _ in 0..WORKERS {
            scope.spawn(|| {
                while let at = next.fetch_add(1, Ordering::Relaxed)
                    && let Some((defect, expected)) = defects.get(at)
                {
                    // Each defect meets another sample.
                    let sample: BTreeSet<String> = cases.iter().skip(at % SAMPLE).step_by(SAMPLE).cloned().collect();
                    let asked = &table.asked(defect, expected) | &sample;
                    let (only, expected) = match everything {
                        true => (Vec::new(), &(*expected).clone()),
                        false => (asked.iter().cloned().collect(), &(*expected & &asked)),
                    };
                    let outcomes = Outcomes::of(Some(defect), only);
                    // A case that could not be asked has noticed something too; at the defect that it is there for it has to
                    // be asked, or nothing shows that it can fail.
                    let unasked = &outcomes.that_ended("error") - &table.own(defect, expected);
                    let mut failed = &outcomes.that_ended("fail") | &unasked;
                    if table.fails_among_others.contains_key(*defect) {
                        failed = &failed & expected;
                    }
                    if failed != *expected {
                        let missed =
                            expected.difference(&failed).map(|id| format!("  missed {id}: {}", outcomes.told(id)));
                        let spurious =
                            failed.difference(expected).map(|id| format!("  other  {id}: {}", outcomes.told(id)));
                        let lines: Vec<String> = missed.chain(spurious).collect();
                        let found = format!("{defect} = {failed:?}\n{}", lines.join("\n"));
                        mistakes.lock().unwrap().insert(at, found);
                    }
                }
            });
        }
    });
    let mistakes: Vec<String> = mistakes.into_inner().unwrap().into_values().collect();
    assert!(mistakes.is_empty(), "{}", mistakes.join("\n"));
}

#[test]
fn the_table_knows_every_defect_and_every_case() {
    let table = Table::read();
    let cases: BTreeSet<String> = all_cases().into_iter().collect();
    let named: BTreeSet<String> =
        table.failing().iter().chain(table.never.keys()).chain(table.skipped.keys()).cloned().collect();
    assert_eq!(named.difference(&cases).collect::<Vec<_>>(), Vec::<&String>::new(), "no such case");
    let defects: BTreeSet<String> = listed_defects().into_iter().collect();
    let in_table: BTreeSet<String> = table.defects().map(|(defect, _)| defect.clone()).collect();
    assert_eq!(in_table, defects, "cases.toml and --list differ");
    let unnoticed: Vec<&String> =
        table.defects().filter(|(_, cases)| cases.is_empty()).map(|(defect, _)| defect).collect();
    assert_eq!(unnoticed, Vec::<&String>::new(), "no case notices these defects");
}

/// The other way round: a case that nothing makes fail would be worth nothing.
#[test]
fn each_case_can_fail() {
    let table = Table::read();
    let failing = table.failing();
    let cases: BTreeSet<String> = all_cases().into_iter().collect();
    let never: BTreeSet<String> = table.never.keys().cloned().collect();
    println!(
        "{} cases, {} defects, {} cases that none of them makes fail:",
        cases.len(),
        table.fails.len(),
        never.len()
    );
    for (case, why) in &table.never {
        println!("  {case}: {why}");
    }
    assert_eq!(&cases - &failing, never, "cases that no defect makes fail, and those that cases.toml says so of");
}
