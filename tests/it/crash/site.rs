//! A server as an operator has it: a directory with a configuration file, certificate, keys and store, everybody of
//! [`World`] enrolled, and the real binary serving from it.
//!
//! Takes a directory and a store, gives processes that are started, awaited and killed. What a server says goes to
//! whoever follows its addresses: they change with every start.

use std::net::SocketAddr;
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use countersign::app::App;
use countersign::config::{Config, StoreUrl};
use countersign_resource_server::time::{Clock, SystemClock};
use serde_json::Value;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::TcpStream;
use tokio::process::{Child, Command};
use tokio::sync::watch;
use tokio::time::{sleep, timeout};

use crate::rig;
use crate::world::World;

/// Longer than anything takes that is not measured against a promise.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);

/// What the server calls itself, and whom it names in tokens; it listens elsewhere, on whatever port is free.
const ISSUER: &str = "https://localhost:8443";

/// A directory that a server serves from.
#[derive(Debug)]
pub(crate) struct Site {
    pub(crate) world: Arc<World>,
    pub(crate) config: Config,
    pub(crate) clock: SystemClock,
    directory: PathBuf,
    /// What is configured otherwise than in the file.
    environment: Vec<(&'static str, String)>,
    /// Where the server listens, while it does.
    addresses: watch::Sender<Option<Addresses>>,
}

/// Where a server listens.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Addresses {
    pub(crate) mtls: SocketAddr,
    pub(crate) operations: SocketAddr,
}

impl Site {
    /// Writes all of it into `directory`; `store` as the configuration file has it.
    pub(crate) async fn at(directory: &Path, store: &str) -> Self {
        let clock = SystemClock::new();
        let world = Arc::new(World::new(clock.now().as_seconds(), ISSUER));
        rig::write(directory, "server.pem", &world.server.chain_pem());
        rig::write(directory, "server-key.pem", &world.server.key.to_pem());
        let text = format!(
            "issuer = \"{ISSUER}\"\ndata_directory = \"data\"\nstore = \"{store}\"\nlisten = \"127.0.0.1:0\"\n\
             drain_seconds = 1\n\
             [operations]\nlisten = \"127.0.0.1:0\"\n\
             [tls]\ncertificate = \"server.pem\"\nkey = \"server-key.pem\"\n\
             [log]\nformat = \"json\"\n"
        );
        let file = rig::write(directory, "countersign.toml", &text);
        let config = Config::load(Some(&file), []).unwrap();
        rig::signing_keys(&config.keys_directory).await;
        let app = App::open(config.clone(), Arc::new(SystemClock::new())).await.unwrap();
        rig::enrol(&app.registry, &world).await;
        app.close().await;
        let (addresses, _) = watch::channel(None);
        Self { world, config, clock, directory: directory.to_owned(), environment: Vec::new(), addresses }
    }

    /// Another node beside it: the same store and signing keys, a name and a data directory of its own.
    pub(crate) fn another_node(&self) -> Self {
        let (addresses, _) = watch::channel(None);
        let keys = self.config.keys_directory.display().to_string();
        Self {
            world: Arc::clone(&self.world),
            config: self.config.clone(),
            clock: SystemClock::new(),
            directory: self.directory.clone(),
            environment: vec![
                ("COUNTERSIGN_NODE", "another".to_owned()),
                ("COUNTERSIGN_DATA_DIRECTORY", "data-of-another".to_owned()),
                ("COUNTERSIGN_KEYS_DIRECTORY", keys),
            ],
            addresses,
        }
    }

    /// The same with one setting more, as the environment says it.
    pub(crate) fn with(mut self, variable: &'static str, value: &str) -> Self {
        self.environment.push((variable, value.to_owned()));
        self
    }

    /// Where all of it is.
    pub(crate) fn directory(&self) -> &Path {
        &self.directory
    }

    /// The store.
    pub(crate) const fn store(&self) -> &StoreUrl {
        &self.config.store
    }

    /// Where the server listens, from now on.
    pub(crate) fn addresses(&self) -> watch::Receiver<Option<Addresses>> {
        self.addresses.subscribe()
    }

    /// The binary with these arguments and this site's configuration, its answers piped; killed when dropped.
    pub(crate) fn command(&self, arguments: &[&str]) -> Command {
        self.command_under(&[], arguments)
    }

    /// The same, begun by another program: its name and arguments.
    pub(crate) fn command_under(&self, program: &[&str], arguments: &[&str]) -> Command {
        let words: Vec<&str> = [program, &[env!("CARGO_BIN_EXE_countersign")], arguments].concat();
        let mut command = Command::new(words[0]);
        command
            .args(&words[1..])
            .current_dir(&self.directory)
            .envs(self.environment.iter().map(|(name, value)| (name, value)))
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .kill_on_drop(true);
        command
    }

    /// Starts the server.
    pub(crate) fn serve(&self) -> Server {
        let started = self.clock.monotonic();
        let mut child = self.command(&["serve"]).stdout(Stdio::null()).spawn().unwrap();
        let said = Arc::new(Mutex::new(Vec::new()));
        let mut lines = BufReader::new(child.stderr.take().unwrap()).lines();
        let (addresses, kept) = (self.addresses.clone(), Arc::clone(&said));
        let reading = tokio::spawn(async move {
            while let Ok(Some(line)) = lines.next_line().await {
                if let Some(listening) = addresses_in(&line) {
                    addresses.send_replace(Some(listening));
                }
                kept.lock().unwrap().push(line);
            }
        });
        Server { child, started, said, addresses: self.addresses.clone(), reading }
    }
}

/// What the line says that a server logs once it listens.
fn addresses_in(line: &str) -> Option<Addresses> {
    let line: Value = serde_json::from_str(line).ok()?;
    let address = |name: &str| line[name].as_str()?.parse().ok();
    (line["message"] == "serving").then_some(Addresses { mtls: address("listen")?, operations: address("operations")? })
}

/// A process that serves, or is about to.
#[derive(Debug)]
pub(crate) struct Server {
    child: Child,
    started: Duration,
    said: Arc<Mutex<Vec<String>>>,
    addresses: watch::Sender<Option<Addresses>>,
    reading: tokio::task::JoinHandle<()>,
}

impl Server {
    /// Waits until `/readyz` says 200: how long after the start that was.
    pub(crate) async fn ready(&mut self, clock: &SystemClock) -> Duration {
        let mut addresses = self.addresses.subscribe();
        let answered = timeout(PATIENCE, async {
            let address = addresses.wait_for(Option::is_some).await.unwrap().unwrap().operations;
            while readiness(address).await != Some(200) {
                sleep(Duration::from_millis(5)).await;
            }
        });
        tokio::select! {
            answered = answered => assert!(answered.is_ok(), "not ready within {PATIENCE:?}: {}", self.said()),
            ended = self.child.wait() => panic!("ended instead of serving: {ended:?}: {}", self.said()),
        }
        clock.monotonic() - self.started
    }

    /// SIGKILL, whatever it is doing.
    pub(crate) async fn kill(mut self) {
        self.child.start_kill().unwrap();
        let status = self.child.wait().await.unwrap();
        assert_eq!(status.signal(), Some(9), "it ended by itself: {status}: {}", self.said());
        self.gone().await;
    }

    /// Stops it in good order.
    pub(crate) async fn stop(mut self) {
        signal(self.id(), "TERM").await;
        let status = timeout(PATIENCE, self.child.wait()).await.expect("it stops when told").unwrap();
        assert!(status.success(), "{status}: {}", self.said());
        self.gone().await;
    }

    /// Its process id.
    pub(crate) fn id(&self) -> u32 {
        self.child.id().expect("it has not ended")
    }

    /// How much memory it holds, in bytes.
    pub(crate) fn memory(&self) -> u64 {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.id())).unwrap();
        let resident = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).expect(&status);
        resident.trim().trim_end_matches(" kB").parse::<u64>().unwrap() * 1024
    }

    /// What it said so far.
    pub(crate) fn said(&self) -> String {
        self.said.lock().unwrap().join("\n")
    }

    /// What it said last is not taken for the next one's words.
    async fn gone(mut self) {
        (&mut self.reading).await.unwrap();
        self.addresses.send_replace(None);
        let said = self.said();
        for never in ["panicked at", "it was put back"] {
            assert!(!said.contains(never), "{said}");
        }
    }
}

/// Sends a signal to a process of this test.
pub(crate) async fn signal(process: u32, name: &str) {
    assert!(Command::new("kill").args(["-s", name, &process.to_string()]).status().await.unwrap().success());
}

/// The status of `/readyz`, if there is an answer.
pub(crate) async fn readiness(address: SocketAddr) -> Option<u16> {
    let asked = async {
        let mut stream = TcpStream::connect(address).await.ok()?;
        stream.write_all(b"GET /readyz HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n").await.ok()?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.ok()?;
        answer.split(' ').nth(1)?.parse().ok()
    };
    timeout(Duration::from_secs(5), asked).await.ok().flatten()
}
