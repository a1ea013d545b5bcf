//! System calls that write fail, one at a time: during a token, a change of the registry, a rotation of the keys. Afterwards
//! the store opens, what was told is on record, and tokens are issued again.
//!
//! strace makes them fail (`inject=`): the first, the second, and so on of each thread, until none is left to fail. Each
//! time the server is killed as well, so that what a failed call left on the disk is what the next start finds.

use std::path::{Path, PathBuf};
use std::process::{Output, Stdio};
use std::sync::Arc;
use std::time::Duration;

use countersign_resource_server::time::Clock;
use serde_json::Value;
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::process::{Child, Command};
use tokio::time::{sleep, timeout};

use super::load::{Load, Told, acknowledgement, ask, request};
use super::site::{PATIENCE, Server, Site, signal};
use super::{eventually, judge, reading};
use crate::rig;
use crate::wire::Peer;

/// Kinds of calls that fail, by every name they have: strace passes over a name with `?` that the machine does not know.
const WRITES: &str = "?write,?writev,pwrite64,?pwritev";
const SYNCS: &str = "fsync,fdatasync";
const NAMES: &str = "?rename,?renameat,renameat2";

/// How many calls of a thread fail in turn, at most.
const MOST: usize = 12;

/// As after a full disk.
const AGAIN: Duration = Duration::from_secs(10);

/// One call that fails with EIO, of each thread.
struct Fault<'a> {
    calls: &'a str,
    /// Which one, from 1.
    number: usize,
    /// Only calls on these files; on any where there are none.
    files: &'a [PathBuf],
}

impl Fault<'_> {
    /// strace and its arguments; what it traces goes to `trace`.
    fn strace(&self, trace: &Path) -> Vec<String> {
        let Self { calls, number, .. } = self;
        let mut words: Vec<String> = ["strace", "-f", "-o"].map(str::to_owned).into();
        words.push(trace.display().to_string());
        words.extend(["-e".to_owned(), format!("trace={calls}")]);
        words.extend(["-e".to_owned(), format!("inject={calls}:error=EIO:when={number}")]);
        for file in self.files {
            words.extend(["-P".to_owned(), file.display().to_string()]);
        }
        words
    }
}

/// Whether there is a strace that may do this, to a process that is not its child either. Says why not.
async fn strace_works() -> bool {
    let sleeper = Command::new("sleep").arg("600").kill_on_drop(true).spawn().unwrap();
    let fault = Fault { calls: SYNCS, number: 1, files: &[] };
    match attached(&fault, sleeper.id().unwrap(), Path::new("/dev/null")).await {
        Ok(strace) => {
            let_go(strace).await;
            true
        }
        Err(complaint) => {
            println!("SKIPPED, there is no strace that works here (Debian: strace): {complaint}");
            false
        }
    }
}

/// How many calls were made to fail.
fn failed(trace: &Path) -> usize {
    let text = std::fs::read_to_string(trace).unwrap();
    text.lines().filter(|line| line.ends_with("(INJECTED)")).count()
}

/// A site on SQLite, and what it told.
struct Scene {
    site: Arc<Site>,
    told: Told,
    trace: PathBuf,
    /// The database and what SQLite keeps beside it.
    database: [PathBuf; 3],
    _directory: tempfile::TempDir,
}

impl Scene {
    async fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let site = Arc::new(Site::at(directory.path(), "sqlite:countersign.db").await);
        let path = directory.path().canonicalize().unwrap();
        let database = ["countersign.db", "countersign.db-wal", "countersign.db-journal"].map(|name| path.join(name));
        Self { site, told: Told::default(), trace: path.join("trace"), database, _directory: directory }
    }

    async fn serving(&self) -> Server {
        let mut server = self.site.serve();
        server.ready(&self.site.clock).await;
        server
    }

    /// A token by a client that uses up an assertion with it.
    async fn ask(&self) -> u16 {
        ask(&self.site, &self.site.world.a_jwt, &self.told).await
    }

    /// Tokens are issued again, by the same server.
    async fn served_again(&self, after: &str) {
        let again = timeout(AGAIN, async {
            while self.ask().await != 200 {
                sleep(Duration::from_millis(5)).await;
            }
        });
        assert!(again.await.is_ok(), "not serving within {AGAIN:?} after {after}");
    }

    /// Kills the server; what it left is whole, and another one serves from it.
    async fn killed_and_started_again(&self, server: Server, after: &str) -> Server {
        server.kill().await;
        let server = self.serving().await;
        assert_eq!(self.ask().await, 200, "after {after} and a restart");
        reading::settled(self.site.store()).await;
        judge(&self.site, &self.told.journal()).await;
        server
    }
}

/// A strace that makes calls of a running process fail, or what it says instead.
async fn attached(fault: &Fault<'_>, process: u32, trace: &Path) -> Result<Child, String> {
    taken(&fault.strace(trace), process).await
}

/// A strace that has got hold of a running process, or what it says instead.
async fn taken(strace: &[String], process: u32) -> Result<Child, String> {
    let mut strace = Command::new(&strace[0])
        .args(&strace[1..])
        .args(["-p", &process.to_string()])
        .stderr(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .map_err(|error| error.to_string())?;
    let mut lines = BufReader::new(strace.stderr.as_mut().unwrap()).lines();
    let line = timeout(PATIENCE, lines.next_line()).await.unwrap().unwrap().unwrap_or_default();
    if line.contains("attached") { Ok(strace) } else { Err(line) }
}

/// Lets go of the process.
async fn let_go(mut strace: Child) {
    signal(strace.id().unwrap(), "INT").await;
    strace.wait().await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_call_that_fails_during_a_token() {
    if !strace_works().await {
        return;
    }
    let scene = Scene::new().await;
    let mut server = scene.serving().await;
    for (kind, calls) in [("write", WRITES), ("fsync", SYNCS)] {
        let mut seen = Vec::new();
        for number in 1..=MOST {
            let fault = Fault { calls, number, files: &scene.database };
            let strace = attached(&fault, server.id(), &scene.trace).await.unwrap();
            let status = scene.ask().await;
            let_go(strace).await;
            assert!(matches!(status, 200 | 503), "{status} when {kind} {number} failed");
            if failed(&scene.trace) == 0 {
                break;
            }
            seen.push(status);
            let what = format!("{kind} {number} failed during a token");
            scene.served_again(&what).await;
            server = scene.killed_and_started_again(server, &what).await;
        }
        println!("a token, {kind} fails: {seen:?}");
        assert!(!seen.is_empty(), "no {kind} was made to fail");
    }
    reading::settled(scene.site.store()).await;
    server.stop().await;
    judge(&scene.site, &scene.told.journal()).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_call_that_fails_during_a_change_of_the_registry() {
    if !strace_works().await {
        return;
    }
    let scene = Scene::new().await;
    let mut server = scene.serving().await;
    let mut suspended = false;
    for (kind, calls) in [("write", WRITES), ("fsync", SYNCS)] {
        let mut seen = Vec::new();
        for number in 1..=MOST {
            let verb = if suspended { "reinstate" } else { "suspend" };
            let what = format!("{kind} {number} failed during {verb}");
            let fault = Fault { calls, number, files: &scene.database };
            let output = scene.change(&fault.strace(&scene.trace), verb, &what).await;
            let done = output.status.success();
            // A change that was not acknowledged may have been made all the same.
            suspended = scene.is_suspended().await;
            assert!(!done || suspended == (verb == "suspend"), "acknowledged and not made: {what}");
            if failed(&scene.trace) == 0 {
                assert!(done, "{}", String::from_utf8_lossy(&output.stderr));
                break;
            }
            seen.push(if done { "done" } else { "refused" });
            scene.served_again(&what).await;
            server = scene.killed_and_started_again(server, &what).await;
        }
        println!("a change, {kind} fails: {seen:?}");
        assert!(!seen.is_empty(), "no {kind} was made to fail");
    }
    reading::settled(scene.site.store()).await;
    server.stop().await;
    judge(&scene.site, &scene.told.journal()).await;
}

/// What is in the write-ahead log goes into the database now and then; that may fail too.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_call_that_fails_while_the_log_is_moved_into_the_database() {
    if !strace_works().await {
        return;
    }
    let scene = Scene::new().await;
    let mut server = scene.serving().await;
    for (kind, calls) in [("write", WRITES), ("fsync", SYNCS)] {
        for number in [1, 2] {
            let what = format!("{kind} {number} failed on the database");
            let fault = Fault { calls, number, files: &scene.database[..1] };
            let strace = attached(&fault, server.id(), &scene.trace).await.unwrap();
            let load = Load::of_clients(&scene.site);
            eventually(&what, || failed(&scene.trace) > 0).await;
            let_go(strace).await;
            let journal = load.end().await;
            scene.told.take(journal);
            scene.served_again(&what).await;
            server = scene.killed_and_started_again(server, &what).await;
        }
    }
    reading::settled(scene.site.store()).await;
    server.stop().await;
    judge(&scene.site, &scene.told.journal()).await;
}

impl Scene {
    /// Suspends or reinstates a client, under strace; what was acknowledged is taken down.
    async fn change(&self, strace: &[String], verb: &str, why: &str) -> Output {
        let strace: Vec<&str> = strace.iter().map(String::as_str).collect();
        let arguments = ["client", verb, self.site.world.a_dns.id, "--why", why];
        let output = timeout(PATIENCE, self.site.command_under(&strace, &arguments).output()).await.unwrap().unwrap();
        if output.status.success() {
            let said = String::from_utf8_lossy(&output.stdout);
            self.told.acknowledged(acknowledgement(&said, why, self.site.clock.now()));
        }
        output
    }

    /// As another command finds it.
    async fn is_suspended(&self) -> bool {
        let arguments = ["client", "show", self.site.world.a_dns.id, "--json"];
        let output = self.site.command(&arguments).output().await.unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        let client: Value = serde_json::from_slice(&output.stdout).unwrap();
        client["state"] == "suspended"
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_call_that_fails_during_a_rotation() {
    if !strace_works().await {
        return;
    }
    let scene = Scene::new().await;
    for (kind, calls) in [("write", WRITES), ("fsync", SYNCS), ("rename", NAMES)] {
        scene.keys_never_rotated().await;
        let watched = scene.rotate(&["-e", &format!("trace={calls}")]).await.expect("it ends");
        assert!(watched.status.success(), "{}", String::from_utf8_lossy(&watched.stderr));
        let numbers = numbers_on_keys(&scene.trace);
        let mut seen = Vec::new();
        for number in numbers.into_iter().take(MOST) {
            let what = format!("{kind} {number} failed during a rotation");
            let mut tries = 0;
            let (server, output) = loop {
                scene.keys_never_rotated().await;
                let server = scene.serving().await;
                // In another run the runtime wakes its threads more often, or less: it is looked for round about.
                let when =
                    if tries % 2 == 0 { number.saturating_sub(tries / 2).max(1) } else { number + tries / 2 + 1 };
                let inject = format!("inject={calls}:error=EIO:when={when}");
                let output = scene.rotate(&["-e", &format!("trace={calls}"), "-e", &inject]).await;
                if failed_on_keys(&scene.trace) {
                    assert_eq!(failed(&scene.trace), 1, "{what}");
                    break (server, output.expect("it ends"));
                }
                // One of the calls that wake has failed, and whoever was to be woken may sleep for ever; or there were fewer.
                server.stop().await;
                tries += 1;
                assert!(tries < 20, "{what}: never on the keys");
            };
            assert!(!output.status.success(), "acknowledged, though {what}");
            seen.push(number);
            scene.served_again(&what).await;
            let server = scene.killed_and_started_again(server, &what).await;
            scene.keys_are_whole(&what).await;
            server.stop().await;
        }
        println!("a rotation, {kind} fails: {seen:?}");
        assert!(!seen.is_empty(), "no {kind} was made to fail");
    }
}

/// Which calls of its kind, from 1, were made on the keys: a runtime writes to other things as well, to wake its threads.
fn numbers_on_keys(trace: &Path) -> Vec<usize> {
    let text = std::fs::read_to_string(trace).unwrap();
    let calls = text.lines().filter(|line| line.contains('('));
    calls.zip(1..).filter(|(line, _)| line.contains("data/keys")).map(|(_, number)| number).collect()
}

/// Whether the call that failed was one on the keys.
fn failed_on_keys(trace: &Path) -> bool {
    let text = std::fs::read_to_string(trace).unwrap();
    text.lines().any(|line| line.ends_with("(INJECTED)") && line.contains("data/keys"))
}

impl Scene {
    /// A rotation is scheduled once: each has keys to itself.
    async fn keys_never_rotated(&self) {
        let keys = self.site.directory().join(&self.site.config.keys_directory);
        std::fs::remove_dir_all(&keys).unwrap();
        rig::signing_keys(&keys).await;
    }

    /// Rotates, under a strace that follows the first thread alone, which is the one that does it; none where that does not end.
    async fn rotate(&self, how: &[&str]) -> Option<Output> {
        let trace = self.trace.display().to_string();
        let strace = [&["strace", "-y", "-o", trace.as_str()], how].concat();
        let rotate = ["key", "rotate", "--alg", "ES256"];
        // A group of its own: strace that is killed leaves what it traces alive.
        let rotating = self.site.command_under(&strace, &rotate).process_group(0).spawn().unwrap();
        let group = rotating.id().unwrap();
        let rotated = timeout(PATIENCE, rotating.wait_with_output()).await;
        if rotated.is_err() {
            // It fails where both have ended meanwhile.
            Command::new("kill").args(["-KILL", "--", &format!("-{group}")]).output().await.unwrap();
        }
        rotated.ok().map(|output| output.unwrap())
    }

    /// Every key that is listed can be used, one of each algorithm signs, and the next is there or comes with the next try.
    async fn keys_are_whole(&self, after: &str) {
        let rotated = self.site.command(&["key", "rotate", "--alg", "ES256"]).output().await.unwrap();
        let complained = String::from_utf8_lossy(&rotated.stderr);
        assert!(rotated.status.success() || complained.contains("already"), "after {after}: {complained}");
        let listed = self.site.command(&["key", "list", "--json"]).output().await.unwrap();
        assert!(listed.status.success(), "after {after}: {}", String::from_utf8_lossy(&listed.stderr));
        let listed: Value = serde_json::from_slice(&listed.stdout).unwrap();
        assert_eq!(listed["set_aside"], serde_json::json!([]), "after {after}");
        for algorithm in ["ES256", "EdDSA", "PS256"] {
            let keys = listed["keys"].as_array().unwrap().iter().filter(|key| key["alg"] == algorithm);
            let stages: Vec<&Value> = keys.map(|key| &key["stage"]).collect();
            let count = |stage: &str| stages.iter().filter(|own| **own == stage).count();
            assert!(count("signing") == 1 && count("next") >= 1, "after {after}: {algorithm}: {stages:?}");
        }
    }
}

/// A process that is killed leaves what it wrote to the system; a machine that is switched off only what was synchronised.
/// So the order of the calls is looked at: the record is written, then synchronised, and only then is there an answer.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_record_is_on_the_disk_before_its_answer_leaves() {
    if !strace_works().await {
        return;
    }
    let scene = Scene::new().await;
    let server = scene.serving().await;
    let (world, party) = (&scene.site.world, &scene.site.world.a_jwt);
    let mtls = scene.site.addresses().borrow().unwrap().mtls;
    let peer = Peer::new(&world.server_authority.certificate, Some(&party.credential));
    let mut connection = peer.connect(mtls).await.unwrap();
    let request = || request(party, world, scene.site.clock.now());
    // The first one is enrolled on the way.
    assert_eq!(connection.ask(&request()).await.unwrap().status, 200);

    let trace = scene.trace.display().to_string();
    let calls = "trace=pwrite64,fsync,fdatasync,write,writev,sendto,sendmsg";
    let words = ["strace", "-f", "-y", "-o", &trace, "-e", calls].map(str::to_owned);
    let strace = taken(&words, server.id()).await.unwrap();
    assert_eq!(connection.ask(&request()).await.unwrap().status, 200);
    let_go(strace).await;

    let text = std::fs::read_to_string(&scene.trace).unwrap();
    let lines: Vec<&str> = text.lines().collect();
    let on = |line: &str, calls: &[&str], file: &str| {
        let (_, call) = line.split_once(' ').unwrap_or_default();
        calls.iter().any(|name| call.trim_start().starts_with(&format!("{name}("))) && line.contains(file)
    };
    let log = "countersign.db-wal>";
    let sent = lines.iter().position(|line| on(line, &["write", "writev", "sendto", "sendmsg"], "<socket:"));
    let before = &lines[..sent.expect(&text)];
    let written = before.iter().rposition(|line| on(line, &["pwrite64"], log)).expect(&text);
    let begun = before.iter().rposition(|line| on(line, &["fsync", "fdatasync"], log)).expect(&text);
    assert!(written < begun, "{text}");
    // Another thread's call may have come between its beginning and its end.
    let thread = lines[begun].split(' ').next().unwrap();
    let ended = !lines[begun].contains("<unfinished")
        || before[begun + 1..].iter().any(|line| line.starts_with(thread) && line.contains("sync resumed>"));
    assert!(ended, "{text}");
    server.stop().await;
}
