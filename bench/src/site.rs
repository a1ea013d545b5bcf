//! An installation of the server in a directory of its own, and the process that serves it.
//!
//! Takes a directory and the server's program, makes configuration, schema, signing keys and registry there, starts the
//! server and says when it is ready. It knows nothing of what is measured.

use std::fs::{self, File};
use std::io::{BufWriter, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use rustix::process::Signal;

use crate::Failure;
use crate::load::Target;
use crate::machine::{Process, free_address};
use crate::population::Population;
use crate::registry;

/// How long a server may take until it is ready, or gone.
const PATIENCE: Duration = Duration::from_secs(120);

/// How often it is looked at meanwhile.
const LOOK_EVERY: Duration = Duration::from_millis(2);

/// An installation, or one node of it.
pub(crate) struct Site {
    directory: PathBuf,
    program: PathBuf,
    /// Where tokens are asked for.
    pub(crate) address: SocketAddr,
    operations: SocketAddr,
    /// How many clients are in its registry.
    pub(crate) clients: u32,
    /// What the server calls itself.
    issuer: String,
    node: &'static str,
    /// The store's URL.
    store: String,
    keys: PathBuf,
}

impl Site {
    /// The installation in `directory` with the first `clients` clients of the population, on SQLite; made where it is not
    /// there.
    pub(crate) fn open(
        directory: &Path,
        program: &Path,
        population: &Population,
        clients: u32,
    ) -> Result<Self, Failure> {
        let store = format!("sqlite:{}", directory.join("countersign.db").display());
        let site = Self::new(directory, program, clients, store)?;
        let authority = fs::read_to_string(population.client_authority())?;
        if fs::read_to_string(site.path(FILLED)).ok().as_ref() != Some(&authority) {
            if directory.exists() {
                // Made by a run that was cut short, or for others.
                fs::remove_dir_all(directory)?;
            }
            site.make(population)?;
        }
        // Its addresses are new each time.
        site.configure(population)?;
        Ok(site)
    }

    /// The same on an empty PostgreSQL database.
    pub(crate) fn on_postgres(
        directory: &Path,
        program: &Path,
        population: &Population,
        clients: u32,
        store: &str,
    ) -> Result<Self, Failure> {
        let site = Self::new(directory, program, clients, store.to_owned())?;
        site.make(population)?;
        Ok(site)
    }

    /// Another node of the same installation.
    pub(crate) fn another_node(&self, directory: &Path, population: &Population) -> Result<Self, Failure> {
        let site = Self {
            issuer: self.issuer.clone(),
            node: "node-2",
            keys: self.keys.clone(),
            ..Self::new(directory, &self.program, self.clients, self.store.clone())?
        };
        site.configure(population)?;
        Ok(site)
    }

    fn new(directory: &Path, program: &Path, clients: u32, store: String) -> Result<Self, Failure> {
        let (address, operations) = (free_address()?, free_address()?);
        Ok(Self {
            directory: directory.to_owned(),
            program: program.to_owned(),
            address,
            operations,
            clients,
            issuer: format!("https://localhost:{}", address.port()),
            node: "node-1",
            store,
            keys: directory.join("keys"),
        })
    }

    fn make(&self, population: &Population) -> Result<(), Failure> {
        self.configure(population)?;
        self.command(&["init"])?;
        self.import(population)?;
        // Written last: what was cut short is made anew.
        fs::copy(population.client_authority(), self.path(FILLED))?;
        Ok(())
    }

    fn import(&self, population: &Population) -> Result<(), Failure> {
        let log = self.path("import.log");
        let said = File::create(&log)?;
        let mut command = self.prepare(&["registry", "import", "-"]);
        command.stdin(Stdio::piped()).stdout(said.try_clone()?).stderr(said);
        let mut child = command.spawn()?;
        let lines = child.stdin.take().ok_or("nowhere to write to")?;
        // Where it refuses a line, that is why nothing more can be written: its own words come first.
        let written = registry::write(population, self.clients, &mut BufWriter::with_capacity(1 << 20, lines));
        let status = child.wait()?;
        if status.success() {
            return written;
        }
        Err(format!("the import ended with {status}: {}", last_words(&log)).into())
    }

    fn configure(&self, population: &Population) -> Result<(), Failure> {
        fs::create_dir_all(&self.directory)?;
        Ok(fs::write(self.path("countersign.toml"), self.configuration(population))?)
    }

    /// What the server calls itself.
    pub(crate) fn issuer(&self) -> &str {
        &self.issuer
    }

    /// Starts the server, and returns before it is ready.
    pub(crate) fn start(&self) -> Result<Server, Failure> {
        Server::start(self.prepare(&["serve"]), self.path("server.log"), Probe::Operations(self.operations))
    }

    /// Starts the server and waits until it can issue tokens.
    pub(crate) fn serve(&self) -> Result<Server, Failure> {
        let mut server = self.start()?;
        server.ready()?;
        Ok(server)
    }

    /// How its server is asked for tokens.
    pub(crate) fn target(&self, server: &Server) -> Target {
        Target {
            name: OURS,
            addresses: vec![self.address],
            processes: vec![server.process()],
            beside: None,
            path: "/token",
            parameters: "",
            renews_tickets: true,
        }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.directory.join(name)
    }

    fn prepare(&self, words: &[&str]) -> Command {
        let mut command = Command::new(&self.program);
        command.arg("--config").arg(self.path("countersign.toml")).args(words).stdin(Stdio::null());
        command
    }

    fn command(&self, words: &[&str]) -> Result<(), Failure> {
        let output = self.prepare(words).output()?;
        if output.status.success() {
            return Ok(());
        }
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        Err(format!("countersign {words:?} ended with {}: {said}", output.status).into())
    }

    /// As an operator would have it, but for the limits: everybody comes from one address here, at all the speed there is.
    fn configuration(&self, population: &Population) -> String {
        format!(
            "issuer = \"{issuer}\"\n\
             listen = \"{address}\"\n\
             operations.listen = \"{operations}\"\n\
             node = \"{node}\"\n\
             data_directory = \".\"\n\
             store = {store:?}\n\
             keys_directory = {keys:?}\n\
             tls.certificate = {certificate:?}\n\
             tls.key = {key:?}\n\
             [limits]\n\
             connections = {CONNECTIONS}\n\
             connections_per_address = {CONNECTIONS}\n\
             requests_per_address = {REQUESTS}\n\
             requests_per_client = {REQUESTS}\n",
            issuer = self.issuer,
            node = self.node,
            store = self.store,
            keys = self.keys,
            address = self.address,
            operations = self.operations,
            certificate = population.server_certificate(),
            key = population.server_key(),
        )
    }
}

/// The file that says that an installation is complete, and whose clients it has.
const FILLED: &str = "filled";

/// What ours is called in the report.
pub(crate) const OURS: &str = "countersign";

/// More than are opened.
const CONNECTIONS: u32 = 18_000;

/// The most that can be said: no limit in practice.
const REQUESTS: u32 = 1_000_000;

/// How a server says that it is ready.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Probe {
    /// By its own word, at the address of its operations.
    Operations(SocketAddr),
    /// By listening here.
    Listens(SocketAddr),
}

/// A server that runs. It is killed however this ends.
pub(crate) struct Server {
    child: Child,
    probe: Probe,
    log: PathBuf,
}

impl Server {
    /// Starts this command, which says whatever it says into the file `log`.
    pub(crate) fn start(mut command: Command, log: PathBuf, probe: Probe) -> Result<Self, Failure> {
        let said = File::create(&log)?;
        command.stdin(Stdio::null()).stdout(said.try_clone()?).stderr(said);
        Ok(Self { child: command.spawn()?, probe, log })
    }

    /// The process.
    pub(crate) fn process(&self) -> Process {
        Process(self.child.id())
    }

    /// Waits until it is ready.
    pub(crate) fn ready(&mut self) -> Result<(), Failure> {
        let begun = Instant::now();
        while begun.elapsed() < PATIENCE {
            let ready = match self.probe {
                Probe::Operations(address) => {
                    get(address, "/readyz").is_ok_and(|answer| answer.starts_with("HTTP/1.1 200"))
                }
                Probe::Listens(address) => TcpStream::connect(address).is_ok(),
            };
            if ready {
                return Ok(());
            }
            self.still_runs()?;
            std::thread::sleep(LOOK_EVERY);
        }
        Err(format!("the server was not ready within {PATIENCE:?}: {}", last_words(&self.log)).into())
    }

    /// An error with what it said, if it has ended.
    pub(crate) fn still_runs(&mut self) -> Result<(), Failure> {
        match self.child.try_wait()? {
            None => Ok(()),
            Some(status) => Err(format!("the server ended with {status}: {}", last_words(&self.log)).into()),
        }
    }

    /// The median time of a commit to its store, as it measures that itself, of about the last minute.
    pub(crate) fn commit_median(&self) -> Result<Duration, Failure> {
        let Probe::Operations(operations) = self.probe else { return Err("this server measures no commits".into()) };
        let metrics = get(operations, "/metrics")?;
        let line = metrics
            .lines()
            .find_map(|line| line.strip_prefix("countersign_audit_commit_seconds{quantile=\"0.5\"} "))
            .ok_or("the server's metrics do not say how long a commit takes")?;
        Ok(Duration::from_secs_f64(line.trim().parse()?))
    }

    /// Asks it to end, and waits until it has.
    pub(crate) fn stop(mut self) -> Result<(), Failure> {
        self.process().signal(Signal::TERM)?;
        let begun = Instant::now();
        while self.child.try_wait()?.is_none() {
            if begun.elapsed() > PATIENCE {
                return Err("the server did not end".into());
            }
            std::thread::sleep(LOOK_EVERY);
        }
        Ok(())
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // Where it has ended already there is nothing to kill.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The end of what a program said.
fn last_words(log: &Path) -> String {
    let said = fs::read_to_string(log).unwrap_or_default();
    let mut lines: Vec<&str> = said.lines().rev().take(5).collect();
    lines.reverse();
    lines.join("\n")
}

/// What plain HTTP answers, head and body.
fn get(address: SocketAddr, path: &str) -> Result<String, Failure> {
    let mut stream = TcpStream::connect(address)?;
    stream.set_read_timeout(Some(Duration::from_secs(5)))?;
    stream.write_all(format!("GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n").as_bytes())?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    Ok(answer)
}
