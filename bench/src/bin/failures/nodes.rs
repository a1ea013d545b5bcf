//! Two nodes of one installation, as an operator has them: a directory, a name and a process each, and one database.
//!
//! Takes the server's program and the database's URL, gives nodes that are started, killed and stopped, and the command line
//! beside them. It knows nothing of what goes wrong.

use std::fs::{self, File, OpenOptions};
use std::io::{BufWriter, Write};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::Arc;
use std::time::{Duration, Instant};

use rustix::process::Signal;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::process::{Child, Command};
use tokio::time::{sleep, timeout};

use crate::machine::{Process, free_address};
use crate::population::Population;
use crate::{Failure, PATIENCE, registry};

/// How many clients there are at least: the load's, and those that an operator changes.
pub(crate) const CLIENTS: u32 = 64;

/// What an installation has beside the usual.
#[derive(Clone, Copy, Default)]
pub(crate) struct Wishes {
    /// `require_synchronous`.
    pub(crate) synchronous: bool,
    /// The first node writes the audit log into a file as it grows.
    pub(crate) export: bool,
    /// So many clients more, whom no node has in memory until they ask.
    pub(crate) strangers: u32,
}

/// An installation with two nodes.
pub(crate) struct Site {
    directory: PathBuf,
    pub(crate) population: Arc<Population>,
    pub(crate) nodes: [Node; 2],
}

impl Site {
    /// Makes it in `directory` on an empty database: schema, shared keys, and everybody enrolled. Nothing is started.
    pub(crate) async fn make(directory: &Path, program: &Path, store: &str, wishes: Wishes) -> Result<Self, Failure> {
        fs::create_dir_all(directory)?;
        let clients = CLIENTS + wishes.strangers;
        let population = Population::open(&directory.join("clients"), clients)?;
        let nodes = [Node::new(directory, program, 0)?, Node::new(directory, program, 1)?];
        let site = Self { directory: directory.to_owned(), population: Arc::new(population), nodes };
        for node in &site.nodes {
            site.configure(node, store, wishes)?;
        }
        let kek = site.kek();
        let kek = kek.to_str().ok_or("a path that is no UTF-8")?;
        let [first, _] = &site.nodes;
        // Before there is one, no configuration that names it can be read.
        let typed = first.command_line();
        let made = typed.bare().args(["key", "make-encryption-key", kek]).output().await?;
        if !made.status.success() {
            return Err(format!("no key-encryption key: {}", String::from_utf8_lossy(&made.stderr)).into());
        }
        typed.done(&["init"]).await?;
        let lines = directory.join("registry.jsonl");
        registry::write(&site.population, clients, &mut BufWriter::new(File::create(&lines)?))?;
        typed.done(&["registry", "import", lines.to_str().ok_or("a path that is no UTF-8")?]).await?;
        Ok(site)
    }

    fn kek(&self) -> PathBuf {
        self.directory.join("kek")
    }

    fn configure(&self, node: &Node, store: &str, wishes: Wishes) -> Result<(), Failure> {
        let [first, _] = &self.nodes;
        let mut text = format!(
            "issuer = \"https://localhost:{issuer}\"\n\
             listen = \"{address}\"\n\
             operations.listen = \"{operations}\"\n\
             node = \"{name}\"\n\
             data_directory = \"data\"\n\
             store = {store:?}\n\
             key_encryption_key = {kek:?}\n\
             tls.certificate = {certificate:?}\n\
             tls.key = {key:?}\n\
             drain_seconds = 1\n",
            issuer = first.address.port(),
            address = node.address,
            operations = node.operations,
            name = node.name,
            kek = self.kek(),
            certificate = self.population.server_certificate(),
            key = self.population.server_key(),
        );
        if wishes.synchronous {
            text.push_str("require_synchronous = true\n");
        }
        if wishes.export && node.number == 0 {
            text.push_str(&format!("[audit.export.file]\npath = {:?}\n", self.exported()));
        }
        fs::create_dir_all(&node.directory)?;
        Ok(fs::write(node.directory.join("countersign.toml"), text)?)
    }

    /// The file that the audit log is written into as it grows.
    pub(crate) fn exported(&self) -> PathBuf {
        self.directory.join("audit.jsonl")
    }

    /// Starts both and waits until they are ready.
    pub(crate) async fn serve(&mut self) -> Result<(), Failure> {
        for node in &mut self.nodes {
            node.start()?;
        }
        for node in &mut self.nodes {
            node.ready().await?;
        }
        Ok(())
    }

    /// Stops both in good order.
    pub(crate) async fn stop(&mut self) -> Result<(), Failure> {
        for node in &mut self.nodes {
            node.stop().await?;
        }
        Ok(())
    }

    /// Where both are asked for tokens.
    pub(crate) fn addresses(&self) -> [SocketAddr; 2] {
        self.nodes.each_ref().map(|node| node.address)
    }
}

/// One node, whether it runs or not.
pub(crate) struct Node {
    number: usize,
    name: &'static str,
    directory: PathBuf,
    program: PathBuf,
    pub(crate) address: SocketAddr,
    operations: SocketAddr,
    running: Option<Child>,
}

impl Node {
    fn new(directory: &Path, program: &Path, number: usize) -> Result<Self, Failure> {
        let name = if number == 0 { "node-1" } else { "node-2" };
        Ok(Self {
            number,
            name,
            directory: directory.join(name),
            program: program.to_owned(),
            address: free_address()?,
            operations: free_address()?,
            running: None,
        })
    }

    fn log(&self) -> PathBuf {
        self.directory.join("log")
    }

    /// The command line with this node's configuration.
    pub(crate) fn command_line(&self) -> CommandLine {
        CommandLine { program: self.program.clone(), directory: self.directory.clone() }
    }

    /// Starts it, and returns before it is ready.
    pub(crate) fn start(&mut self) -> Result<(), Failure> {
        let log = OpenOptions::new().create(true).append(true).open(self.log())?;
        let mut command = self.command_line().command(&["serve"]);
        self.running = Some(command.stdout(log.try_clone()?).stderr(log).spawn()?);
        Ok(())
    }

    /// Waits until it says that it can issue tokens.
    pub(crate) async fn ready(&mut self) -> Result<(), Failure> {
        let begun = Instant::now();
        while begun.elapsed() < PATIENCE {
            if self.says("/readyz").await.is_some_and(|answer| answer.starts_with("HTTP/1.1 200")) {
                return Ok(());
            }
            self.still_runs()?;
            sleep(LOOK_EVERY).await;
        }
        Err(format!("{} was not ready within {PATIENCE:?}: see {}", self.name, self.log().display()).into())
    }

    /// An error where it has ended by itself.
    pub(crate) fn still_runs(&mut self) -> Result<(), Failure> {
        match self.running.as_mut().ok_or("a node that was not started")?.try_wait()? {
            None => Ok(()),
            Some(status) => Err(format!("{} ended with {status}: see {}", self.name, self.log().display()).into()),
        }
    }

    /// The newest checkpoint that it tells of.
    pub(crate) async fn checkpoint(&self) -> Option<String> {
        let answer = self.says("/audit/checkpoint").await.filter(|answer| answer.starts_with("HTTP/1.1 200"))?;
        Some(answer.split_once("\r\n\r\n")?.1.trim().to_owned())
    }

    /// What its listener for operations says.
    async fn says(&self, path: &str) -> Option<String> {
        let asked = async {
            let mut stream = TcpStream::connect(self.operations).await.ok()?;
            let request = format!("GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n");
            stream.write_all(request.as_bytes()).await.ok()?;
            let mut answer = String::new();
            stream.read_to_string(&mut answer).await.ok()?;
            Some(answer)
        };
        timeout(Duration::from_secs(5), asked).await.ok().flatten()
    }

    /// SIGKILL, whatever it is doing.
    pub(crate) async fn kill(&mut self) -> Result<(), Failure> {
        let mut running = self.running.take().ok_or("a node that was not started")?;
        running.start_kill()?;
        running.wait().await?;
        Ok(())
    }

    /// Stops it in good order.
    pub(crate) async fn stop(&mut self) -> Result<(), Failure> {
        let mut running = self.running.take().ok_or("a node that was not started")?;
        Process(running.id().ok_or("a node that has ended")?).signal(Signal::TERM)?;
        match timeout(PATIENCE, running.wait()).await {
            Ok(status) if status.as_ref().is_ok_and(std::process::ExitStatus::success) => Ok(()),
            Ok(status) => Err(format!("{} ended with {status:?}: see {}", self.name, self.log().display()).into()),
            Err(_) => Err(format!("{} does not stop", self.name).into()),
        }
    }

    /// Runs another program from now on, once it is started again.
    pub(crate) fn upgrade(&mut self, program: PathBuf) {
        self.program = program;
    }

    /// What must never be in its log, and is.
    pub(crate) fn panics(&self) -> Result<usize, Failure> {
        let said = fs::read_to_string(self.log())?;
        Ok(said.matches("panicked at").count())
    }

    /// A file of its own with this content.
    pub(crate) fn file(&self, name: &str, content: &str) -> Result<PathBuf, Failure> {
        let path = self.directory.join(name);
        let mut file = File::create(&path)?;
        file.write_all(content.as_bytes())?;
        Ok(path)
    }
}

/// What an operator types on a node, whether it runs or not.
#[derive(Clone)]
pub(crate) struct CommandLine {
    program: PathBuf,
    directory: PathBuf,
}

impl CommandLine {
    /// The program without any configuration.
    fn bare(&self) -> Command {
        let mut command = Command::new(&self.program);
        command.current_dir(&self.directory).stdin(Stdio::null()).kill_on_drop(true);
        command
    }

    /// With this node's configuration.
    pub(crate) fn command(&self, words: &[&str]) -> Command {
        let mut command = self.bare();
        command.arg("--config").arg(self.directory.join("countersign.toml")).args(words);
        command
    }

    /// Runs one command that has to succeed.
    pub(crate) async fn done(&self, words: &[&str]) -> Result<(), Failure> {
        let output = self.command(words).output().await?;
        if output.status.success() {
            return Ok(());
        }
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        Err(format!("countersign {words:?} ended with {}: {said}", output.status).into())
    }
}

const LOOK_EVERY: Duration = Duration::from_millis(10);
