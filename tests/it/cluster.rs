//! A PostgreSQL of a test's own, in a throw-away directory, with a socket there and no port. As root it runs as the user
//! `postgres`: PostgreSQL refuses to run as root.

use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use sqlx::{Connection, Executor};
use tokio::process::{Child, Command};
use tokio::time::{sleep, timeout};

use crate::crash::site::PATIENCE;

/// A PostgreSQL of this test's own.
#[derive(Debug)]
pub(crate) struct Cluster {
    programs: PathBuf,
    directory: PathBuf,
    running: Option<Child>,
}

impl Cluster {
    /// Makes it, or says why that cannot be done here.
    pub(crate) async fn make(directory: &Path) -> Result<Self, String> {
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
    pub(crate) fn url(&self) -> String {
        format!("postgres://postgres@localhost/postgres?host={}", self.directory.display())
    }

    /// Starts it and waits until it answers. What is left of one that was killed may hold on for a moment.
    pub(crate) async fn start(&mut self) {
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

    /// A standby of it in `directory`, under that name; it is not started yet.
    pub(crate) async fn standby(&self, directory: &Path, name: &str) -> Self {
        let standby = Self { programs: self.programs.clone(), directory: directory.to_owned(), running: None };
        if is_root() {
            output(Command::new("chown").arg("postgres").arg(directory)).await.unwrap();
        }
        let primary = format!("host={} user=postgres application_name={name}", self.directory.display());
        let words = ["--write-recovery-conf", "--wal-method=stream", "--checkpoint=fast"];
        output(
            self.program("pg_basebackup").arg("--dbname").arg(primary).arg("--pgdata").arg(standby.data()).args(words),
        )
        .await
        .unwrap();
        standby
    }

    /// Runs one statement.
    pub(crate) async fn execute(&self, statement: &'static str) {
        let mut connection = sqlx::PgConnection::connect(&self.url()).await.unwrap();
        connection.execute(statement).await.unwrap();
        connection.close().await.unwrap();
    }

    /// What a setting is for a new connection.
    pub(crate) async fn shows(&self, setting: &'static str) -> String {
        let mut connection = sqlx::PgConnection::connect(&self.url()).await.unwrap();
        let shown: String =
            sqlx::query_scalar("SELECT current_setting($1)").bind(setting).fetch_one(&mut connection).await.unwrap();
        connection.close().await.unwrap();
        shown
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
    pub(crate) async fn kill(&mut self) {
        let mut running = self.running.take().expect("it runs");
        running.start_kill().unwrap();
        running.wait().await.unwrap();
    }

    /// `pg_ctl stop -m immediate`: every process of it ends at once, and nothing is written down.
    pub(crate) async fn stop(&mut self) {
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
