//! A PostgreSQL of this program's own, in a throw-away directory. As root it runs as the user `postgres`: PostgreSQL refuses to
//! run as root.
//!
//! Takes PostgreSQL's programs and a directory, gives a server that is started, stopped, killed, frozen and promoted. It knows
//! nothing of who uses it.

use std::fs::OpenOptions;
use std::net::SocketAddr;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::{Duration, Instant};

use rustix::process::Signal;
use sqlx::{AssertSqlSafe, Connection, Executor, PgConnection};
use tokio::process::{Child, Command};
use tokio::time::{sleep, timeout};

use crate::machine::{Process, free_address};
use crate::{Failure, PATIENCE};

/// PostgreSQL as it is installed, and how it is to be configured.
#[derive(Clone)]
pub(crate) struct Programs {
    pub(crate) directory: PathBuf,
    /// Beside its own defaults, each `NAME=VALUE`.
    pub(crate) settings: Vec<String>,
}

/// A PostgreSQL server.
pub(crate) struct Cluster {
    programs: Programs,
    directory: PathBuf,
    /// Where it listens.
    pub(crate) address: SocketAddr,
    running: Option<Child>,
}

impl Cluster {
    /// Makes one in `directory`, which must not be there yet; it is not started.
    pub(crate) async fn make(programs: &Programs, directory: &Path) -> Result<Self, Failure> {
        let cluster = Self::in_directory(programs, directory).await?;
        let words = ["--username=postgres", "--auth=trust", "--encoding=UTF8", "--no-locale", "--no-instructions"];
        run(cluster.program("initdb").arg("--pgdata").arg(cluster.data()).args(words)).await?;
        Ok(cluster)
    }

    async fn in_directory(programs: &Programs, directory: &Path) -> Result<Self, Failure> {
        std::fs::create_dir_all(directory)?;
        if is_root() {
            run(Command::new("chown").arg("postgres").arg(directory)).await?;
        }
        Ok(Self {
            programs: programs.clone(),
            directory: directory.to_owned(),
            address: free_address()?,
            running: None,
        })
    }

    /// A standby of it in `directory` that follows it through `primary`; it is not started yet.
    pub(crate) async fn standby(&self, directory: &Path, primary: SocketAddr) -> Result<Self, Failure> {
        let standby = Self::in_directory(&self.programs, directory).await?;
        let words = ["--wal-method=stream", "--checkpoint=fast", "--no-sync"];
        let here = format!("host=127.0.0.1 port={} user=postgres", self.address.port());
        run(standby.program("pg_basebackup").arg("--dbname").arg(here).arg("--pgdata").arg(standby.data()).args(words))
            .await?;
        let there = format!("host=127.0.0.1 port={} user=postgres application_name={STANDBY}", primary.port());
        let settings = standby.data().join("postgresql.auto.conf");
        let mut text = std::fs::read_to_string(&settings)?;
        // The last word counts.
        text.push_str(&format!("primary_conninfo = '{there}'\nwal_retrieve_retry_interval = '200ms'\n"));
        std::fs::write(&settings, text)?;
        std::fs::write(standby.data().join("standby.signal"), "")?;
        Ok(standby)
    }

    /// One of PostgreSQL's programs, as a user that may run it.
    fn program(&self, name: &str) -> Command {
        let program = self.programs.directory.join(name);
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

    /// The database that every cluster has, at this address: its own, or a network's before it.
    pub(crate) fn url_at(address: SocketAddr) -> String {
        format!("postgres://postgres@{address}/postgres?sslmode=disable")
    }

    /// The database that every cluster has.
    pub(crate) fn url(&self) -> String {
        Self::url_at(self.address)
    }

    /// Starts it and waits until it answers. What is left of one that was killed may hold on for a moment.
    pub(crate) async fn start(&mut self) -> Result<(), Failure> {
        let begun = Instant::now();
        while begun.elapsed() < PATIENCE {
            let mut running = self.spawn()?;
            while begun.elapsed() < PATIENCE {
                if let Ok(Ok(connection)) = timeout(ANSWER, PgConnection::connect(&self.url())).await {
                    connection.close().await?;
                    self.running = Some(running);
                    return Ok(());
                }
                if running.try_wait()?.is_some() {
                    break;
                }
                sleep(LOOK_EVERY).await;
            }
            sleep(LOOK_EVERY).await;
        }
        Err(format!("PostgreSQL does not start: see {}", self.log().display()).into())
    }

    fn spawn(&self) -> Result<Child, Failure> {
        let log = OpenOptions::new().create(true).append(true).open(self.log())?;
        let mut command = self.program("postgres");
        command.arg("-D").arg(self.data());
        for setting in [
            "listen_addresses=127.0.0.1".to_owned(),
            format!("port={}", self.address.port()),
            format!("unix_socket_directories={}", self.directory.display()),
            "max_connections=200".to_owned(),
        ]
        .iter()
        .chain(&self.programs.settings)
        {
            command.arg("-c").arg(setting);
        }
        Ok(command.stdout(Stdio::null()).stderr(log).spawn()?)
    }

    fn log(&self) -> PathBuf {
        self.directory.join("log")
    }

    /// Runs one statement.
    pub(crate) async fn execute(&self, statement: &str) -> Result<(), Failure> {
        let mut connection = PgConnection::connect(&self.url()).await?;
        connection.execute(AssertSqlSafe(statement.to_owned())).await?;
        Ok(connection.close().await?)
    }

    /// What one statement says.
    pub(crate) async fn says(&self, query: &'static str) -> Result<String, Failure> {
        let mut connection = PgConnection::connect(&self.url()).await?;
        let said = sqlx::query_scalar(query).fetch_one(&mut connection).await?;
        connection.close().await?;
        Ok(said)
    }

    /// Waits until it says so.
    pub(crate) async fn until(&self, query: &'static str, expected: &str) -> Result<(), Failure> {
        let begun = Instant::now();
        while begun.elapsed() < PATIENCE {
            if self.says(query).await.is_ok_and(|said| said == expected) {
                return Ok(());
            }
            sleep(LOOK_EVERY).await;
        }
        Err(format!("PostgreSQL does not come to say {expected:?} to {query:?}").into())
    }

    /// Makes a primary of a standby, and waits until it is one.
    pub(crate) async fn promote(&self) -> Result<(), Failure> {
        run(self.program("pg_ctl").arg("--pgdata").arg(self.data()).args(["promote", "--no-wait", "--silent"])).await?;
        self.until("SELECT pg_is_in_recovery()::text", "false").await
    }

    /// `pg_ctl stop -m immediate`: every process of it ends at once, and nothing is written down.
    pub(crate) async fn stop(&mut self) -> Result<(), Failure> {
        let mut running = self.running.take().ok_or("PostgreSQL does not run")?;
        let words = ["stop", "--mode=immediate", "--wait", "--silent"];
        run(self.program("pg_ctl").arg("--pgdata").arg(self.data()).args(words)).await?;
        running.wait().await?;
        Ok(())
    }

    /// SIGKILL to every process of it, as when its machine is gone.
    pub(crate) async fn kill(&mut self) -> Result<(), Failure> {
        // What is frozen can neither begin another process nor acknowledge anything while the others are killed.
        let all = self.freeze()?;
        for process in all {
            process.signal(Signal::KILL)?;
        }
        let mut running = self.running.take().ok_or("PostgreSQL does not run")?;
        running.wait().await?;
        Ok(())
    }

    /// SIGSTOP to every process of it.
    pub(crate) fn freeze(&self) -> Result<Vec<Process>, Failure> {
        let first = self.process()?;
        // It begins the others, and can begin none from here on.
        first.signal(Signal::STOP)?;
        let mut all = first.children()?;
        for process in &all {
            process.signal(Signal::STOP)?;
        }
        all.push(first);
        Ok(all)
    }

    /// SIGCONT to every process of it.
    pub(crate) fn thaw(&self) -> Result<(), Failure> {
        let first = self.process()?;
        for process in first.children()? {
            process.signal(Signal::CONT)?;
        }
        first.signal(Signal::CONT)
    }

    fn process(&self) -> Result<Process, Failure> {
        let running = self.running.as_ref().and_then(Child::id).ok_or("PostgreSQL does not run")?;
        Ok(Process(running))
    }

    /// Removes what is left of one that was killed.
    pub(crate) fn discard(self) -> Result<(), Failure> {
        Ok(std::fs::remove_dir_all(&self.directory)?)
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        // However this program ends, nothing of it is left frozen or running.
        if self.running.is_some()
            && let Ok(all) = self.freeze()
        {
            for process in all {
                let _ = process.signal(Signal::KILL);
            }
        }
    }
}

/// What a standby calls itself.
pub(crate) const STANDBY: &str = "standby";

const LOOK_EVERY: Duration = Duration::from_millis(20);

/// How long one attempt to connect may take.
const ANSWER: Duration = Duration::from_secs(5);

fn is_root() -> bool {
    std::fs::metadata("/proc/self").is_ok_and(|own| own.uid() == 0)
}

/// Runs a program to its end; what it complains about, where it fails.
async fn run(command: &mut Command) -> Result<(), Failure> {
    let output = command.output().await?;
    if output.status.success() {
        return Ok(());
    }
    Err(String::from_utf8_lossy(&output.stderr).trim().to_owned().into())
}
