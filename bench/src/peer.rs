//! npm's `oidc-provider` beside ours: the same certificates, the same load, the same kind of token.
//!
//! Takes the population, installs what its lock file names into a cache and starts it with `node`, or says why it is left out.
//! Its program is `bench/peer/server.mjs`.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use crate::Failure;
use crate::load::Target;
use crate::machine::free_address;
use crate::population::Population;
use crate::site::{Probe, Server};

/// Its name in the report.
pub(crate) const NAME: &str = "oidc-provider";

const PACKAGE: &str = include_str!("../peer/package.json");
const LOCK: &str = include_str!("../peer/package-lock.json");
const PROGRAM: &str = include_str!("../peer/server.mjs");

/// Starts it, or says why it cannot be.
pub(crate) fn start(
    population: &Population,
    cache: Option<&Path>,
    clients: u32,
    log: &Path,
) -> Result<Result<(Server, Target), String>, Failure> {
    let Some(node) = said_by("node", &["--version"]) else {
        return Ok(Err(format!("{NAME} is left out: there is no node here")));
    };
    let directory = match cache {
        Some(directory) => directory.to_owned(),
        None => cache_directory()?,
    };
    if let Err(why) = install(&directory) {
        return Ok(Err(format!("{NAME} is left out: npm ci in {} failed: {why}", directory.display())));
    }
    let address = free_address()?;
    let mut command = Command::new("node");
    command.arg(directory.join("server.mjs")).arg(population.directory());
    command.args([&address.port().to_string(), &clients.to_string()]).env("NODE_ENV", "production");
    let mut server = Server::start(command, log.to_owned(), Probe::Listens(address))?;
    if let Err(why) = server.ready() {
        return Ok(Err(format!("{NAME} is left out: it does not start on node {}: {why}", node.trim())));
    }
    let target = Target {
        name: NAME,
        addresses: vec![address],
        processes: vec![server.process()],
        beside: None,
        path: "/token",
        parameters: "&scope=accounts%3Aread",
        renews_tickets: false,
    };
    Ok(Ok((server, target)))
}

/// The version of `node` that it runs on.
pub(crate) fn node_version() -> Option<String> {
    said_by("node", &["--version"]).map(|version| version.trim().to_owned())
}

fn said_by(program: &str, words: &[&str]) -> Option<String> {
    let output = Command::new(program).args(words).stdin(Stdio::null()).output().ok()?;
    output.status.success().then(|| String::from_utf8_lossy(&output.stdout).into_owned())
}

fn cache_directory() -> Result<PathBuf, Failure> {
    let cache = std::env::var_os("XDG_CACHE_HOME").map(PathBuf::from);
    let home = || std::env::var_os("HOME").map(|home| PathBuf::from(home).join(".cache"));
    let base = cache.or_else(home).ok_or("neither XDG_CACHE_HOME nor HOME says where a cache may be")?;
    Ok(base.join("countersign-bench").join("peer"))
}

/// What the lock file names, and nothing else: no scripts of packages are run.
fn install(directory: &Path) -> Result<(), Failure> {
    fs::create_dir_all(directory)?;
    fs::write(directory.join("server.mjs"), PROGRAM)?;
    fs::write(directory.join("package.json"), PACKAGE)?;
    let installed = directory.join("installed.json");
    if fs::read_to_string(&installed).is_ok_and(|lock| lock == LOCK) {
        return Ok(());
    }
    fs::write(directory.join("package-lock.json"), LOCK)?;
    let mut npm = Command::new("npm");
    npm.args(["ci", "--ignore-scripts", "--no-audit", "--no-fund"]).current_dir(directory).stdin(Stdio::null());
    let output = npm.output()?;
    if !output.status.success() {
        return Err(String::from_utf8_lossy(&output.stderr).trim().to_owned().into());
    }
    // Written last: what was cut short is installed anew.
    Ok(fs::write(installed, LOCK)?)
}
