//! On PostgreSQL: the server is killed, the database is killed, the database is stopped in the midst of things, and both at
//! once. What was told is on record, and the server goes on by itself once the database is back.
//!
//! The database is a cluster of the test's own in a throw-away directory, with a socket there and no port, because it is
//! going to be killed. As root it runs as the user `postgres`: PostgreSQL refuses to run as root.

use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::Arc;
use std::time::Duration;

use countersign_resource_server::time::Clock;
use sqlx::Connection;
use tokio::process::{Child, Command};
use tokio::time::{sleep, timeout};

use super::load::Load;
use super::site::{PATIENCE, Server, Site, readiness};
use super::{Moments, Starts, WORK, crashes, judge, reading};

/// What happens in a round.
const EVENTS: [Event; 4] = [Event::ServerKilled, Event::DatabaseStopped, Event::DatabaseKilled, Event::BothKilled];

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Event {
    BothKilled,
    DatabaseKilled,
    /// `pg_ctl stop -m immediate`.
    DatabaseStopped,
    ServerKilled,
}

/// A cluster is slower to come back than a file: so many rounds fewer.
const FEWER: usize = 5;

/// As after a full disk.
const AGAIN: Duration = Duration::from_secs(10);

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_that_was_told_is_lost_when_the_server_or_its_postgresql_is_killed() {
    let directory = tempfile::tempdir().unwrap();
    let mut cluster = match Cluster::make(directory.path()).await {
        Ok(cluster) => cluster,
        Err(why) => return println!("SKIPPED, no PostgreSQL can be started here: {why}"),
    };
    cluster.start().await;
    let place = tempfile::tempdir().unwrap();
    let site = Arc::new(Site::at(place.path(), &cluster.url()).await);
    let (mut moments, mut starts, mut resumed) = (Moments::new(), Starts::default(), Vec::new());
    let load = Load::begin(&site);
    let mut server = started(&site, &mut starts).await;
    for event in EVENTS.iter().cycle().take(crashes().div_ceil(FEWER)) {
        sleep(moments.below(WORK)).await;
        if moments.one_in(2) {
            load.kill_command();
        }
        server = match event {
            Event::ServerKilled => {
                server.kill().await;
                started(&site, &mut starts).await
            }
            Event::BothKilled => {
                cluster.kill().await;
                server.kill().await;
                cluster.start().await;
                started(&site, &mut starts).await
            }
            Event::DatabaseKilled | Event::DatabaseStopped => {
                match event {
                    Event::DatabaseKilled => cluster.kill().await,
                    _ => cluster.stop().await,
                }
                // Requests come in while there is no database.
                sleep(moments.below(WORK)).await;
                cluster.start().await;
                resumed.push(served_again(&site, &load).await);
                server
            }
        };
    }
    let journal = load.end().await;
    reading::settled(site.store()).await;
    server.stop().await;
    starts.hold("PostgreSQL, kill -9 and stop -m immediate");
    println!("served again after the database was back: {resumed:.0?}");
    judge(&site, &journal).await;
    cluster.stop().await;
}

async fn started(site: &Site, starts: &mut Starts) -> Server {
    let mut server = site.serve();
    starts.0.push(server.ready(&site.clock).await);
    server
}

/// Each node writes a chain of its own; a change goes into one of them, once, whichever node is killed.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_that_was_told_is_lost_when_one_of_two_nodes_is_killed() {
    let directory = tempfile::tempdir().unwrap();
    let mut cluster = match Cluster::make(directory.path()).await {
        Ok(cluster) => cluster,
        Err(why) => return println!("SKIPPED, no PostgreSQL can be started here: {why}"),
    };
    cluster.start().await;
    let place = tempfile::tempdir().unwrap();
    let site = Arc::new(Site::at(place.path(), &cluster.url()).await);
    let another = Arc::new(site.another_node());
    let (mut moments, mut starts) = (Moments::new(), Starts::default());
    let (load, load_of_another) = (Load::begin(&site), Load::of_clients(&another));
    let mut nodes = [started(&site, &mut starts).await, started(&another, &mut starts).await];
    for _ in 0..crashes().div_ceil(FEWER) {
        sleep(moments.below(WORK)).await;
        let [node, other] = nodes;
        nodes = if moments.one_in(2) {
            node.kill().await;
            [started(&site, &mut starts).await, other]
        } else {
            other.kill().await;
            [node, started(&another, &mut starts).await]
        };
    }
    let mut journal = load.end().await;
    let of_another = load_of_another.end().await;
    assert!(!of_another.tokens.is_empty());
    journal.tokens.extend(of_another.tokens);
    reading::settled(site.store()).await;
    for node in nodes {
        node.stop().await;
    }
    starts.hold("PostgreSQL, one of two nodes killed");
    judge(&site, &journal).await;
    cluster.stop().await;
}

/// The server that has been running all the time issues tokens again, and says that it is ready: after how long.
async fn served_again(site: &Site, load: &Load) -> Duration {
    let (back, at) = (site.clock.now(), site.clock.monotonic());
    let operations = site.addresses().borrow().unwrap().operations;
    let served = timeout(AGAIN, async {
        while load.told().served_since(back).is_empty() || readiness(operations).await != Some(200) {
            sleep(Duration::from_millis(5)).await;
        }
    });
    assert!(served.await.is_ok(), "not served within {AGAIN:?}: {:?}", load.told().counts());
    site.clock.monotonic() - at
}

/// A PostgreSQL of this test's own.
#[derive(Debug)]
struct Cluster {
    programs: PathBuf,
    directory: PathBuf,
    running: Option<Child>,
}

impl Cluster {
    /// Makes it, or says why that cannot be done here.
    async fn make(directory: &Path) -> Result<Self, String> {
        let programs = programs().ok_or("there is neither initdb nor pg_ctl (Debian: postgresql)")?;
        let cluster = Self { programs, directory: directory.to_owned(), running: None };
        if is_root() {
            output(Command::new("chown").arg("postgres").arg(directory)).await?;
        }
        let words = ["--username=postgres", "--auth=trust", "--encoding=UTF8", "--no-locale", "--no-instructions"];
        output(cluster.program("initdb").arg("--pgdata").arg(cluster.data()).args(words)).await?;
        Ok(cluster)
    }

    /// One of PostgreSQL's programs, as a user that may run it.
    fn program(&self, name: &str) -> Command {
        let program = self.programs.join(name);
        let mut command = if is_root() {
            let mut command = Command::new("setpriv");
            command.args(["--reuid=postgres", "--regid=postgres", "--init-groups", "--"]).arg(program);
            command
        } else {
            Command::new(program)
        };
        command.current_dir("/").env("HOME", &self.directory).stdin(Stdio::null()).kill_on_drop(true);
        command
    }

    fn data(&self) -> PathBuf {
        self.directory.join("data")
    }

    /// The database that every cluster has.
    fn url(&self) -> String {
        format!("postgres://postgres@localhost/postgres?host={}", self.directory.display())
    }

    /// Starts it and waits until it answers. What is left of one that was killed may hold on for a moment.
    async fn start(&mut self) {
        let answers = timeout(PATIENCE, async {
            loop {
                let mut running = self.spawn();
                loop {
                    if let Ok(connection) = sqlx::PgConnection::connect(&self.url()).await {
                        connection.close().await.unwrap();
                        return running;
                    }
                    if running.try_wait().unwrap().is_some() {
                        break;
                    }
                    sleep(Duration::from_millis(10)).await;
                }
                sleep(Duration::from_millis(50)).await;
            }
        });
        match answers.await {
            Ok(running) => self.running = Some(running),
            Err(_) => panic!("PostgreSQL does not start: {}", self.said()),
        }
    }

    fn spawn(&self) -> Child {
        let log = std::fs::OpenOptions::new().create(true).append(true).open(self.log()).unwrap();
        self.program("postgres")
            .arg("-D")
            .arg(self.data())
            .args(["-c", "listen_addresses="])
            .arg("-c")
            .arg(format!("unix_socket_directories={}", self.directory.display()))
            .stdout(Stdio::null())
            .stderr(log)
            .spawn()
            .unwrap()
    }

    fn log(&self) -> PathBuf {
        self.directory.join("log")
    }

    fn said(&self) -> String {
        std::fs::read_to_string(self.log()).unwrap_or_default()
    }

    /// SIGKILL to the process that all others of it belong to; they end by themselves when they notice.
    async fn kill(&mut self) {
        let mut running = self.running.take().expect("it runs");
        running.start_kill().unwrap();
        running.wait().await.unwrap();
    }

    /// `pg_ctl stop -m immediate`: every process of it ends at once, and nothing is written down.
    async fn stop(&mut self) {
        let mut running = self.running.take().expect("it runs");
        let words = ["stop", "--mode=immediate", "--wait", "--silent"];
        output(self.program("pg_ctl").arg("--pgdata").arg(self.data()).args(words)).await.unwrap();
        running.wait().await.unwrap();
    }
}

/// Where PostgreSQL's programs are: the newest that Debian has, or what is in the search path.
fn programs() -> Option<PathBuf> {
    let debian = std::fs::read_dir("/usr/lib/postgresql").into_iter().flatten().flatten();
    let path = std::env::var_os("PATH").unwrap_or_default();
    let mut versions: Vec<PathBuf> = debian.map(|version| version.path().join("bin")).collect();
    versions.sort_by_key(|bin| bin.iter().rev().nth(1).and_then(|version| version.to_str()?.parse::<u32>().ok()));
    versions.reverse();
    versions.extend(std::env::split_paths(&path));
    versions.into_iter().find(|bin| ["initdb", "pg_ctl", "postgres"].iter().all(|name| bin.join(name).exists()))
}

fn is_root() -> bool {
    std::fs::metadata("/proc/self").is_ok_and(|own| own.uid() == 0)
}

/// Runs a program to its end; what it complains about, where it fails.
async fn output(command: &mut Command) -> Result<(), String> {
    let output = command.output().await.map_err(|error| error.to_string())?;
    if output.status.success() {
        return Ok(());
    }
    Err(String::from_utf8_lossy(&output.stderr).trim().to_owned())
}
