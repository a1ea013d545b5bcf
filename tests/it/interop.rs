//! Clients that nobody here wrote get a token over mutual TLS and call the guarded API (`tests/interop/`).
//!
//! Each runs where its tool is present and its dependencies can be had; elsewhere the test says plainly that it was
//! skipped, and why. What is installed goes to `target/interop/`, from lock files.

use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use tokio::process::Command;

use crate::rig::{Engine, GuardedApi, Rig, Time};
use crate::world::ACCOUNTS;

/// Why a client did not run.
#[derive(Debug)]
struct Skipped(String);

/// Long enough for a first installation over a slow line.
const PATIENCE: Duration = Duration::from_secs(300);

#[tokio::test]
async fn curl() {
    let stage = Stage::set().await;
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/interop/curl/client.sh");
    let ready = present("curl", &["--version"]).await;
    stage.run("curl", ready.map(|()| Command::new("sh").arg(script).into_ours())).await;
}

#[tokio::test]
async fn openid_client() {
    let stage = Stage::set().await;
    stage.run("openid-client", openid_client_command().await).await;
}

async fn openid_client_command() -> Result<Command, Skipped> {
    present("node", &["--version"]).await?;
    let directory = installed("node", &["package.json", "package-lock.json", "client.mjs"]);
    if !directory.join("node_modules/openid-client/package.json").exists() {
        let install = Command::new("npm")
            .args(["ci", "--ignore-scripts", "--no-audit", "--no-fund"])
            .current_dir(&directory)
            .into_ours();
        done("npm ci", install).await?;
    }
    Ok(Command::new("node").arg("client.mjs").current_dir(directory).into_ours())
}

#[tokio::test]
async fn authlib() {
    let stage = Stage::set().await;
    stage.run("Authlib", python("authlib_client.py").await).await;
}

#[tokio::test]
async fn requests_oauthlib() {
    let stage = Stage::set().await;
    stage.run("requests-oauthlib", python("requests_oauthlib_client.py").await).await;
}

async fn python(script: &str) -> Result<Command, Skipped> {
    // Two tests share one environment: whoever comes first makes it.
    static MAKING: tokio::sync::Mutex<()> = tokio::sync::Mutex::const_new(());
    let _turn = MAKING.lock().await;
    present("python3", &["-m", "venv", "--help"]).await?;
    let directory = installed("python", &["requirements.txt", "authlib_client.py", "requests_oauthlib_client.py"]);
    let interpreter = directory.join("venv/bin/python");
    let complete = directory.join("venv/complete");
    if !complete.exists() {
        done(
            "python3 -m venv",
            Command::new("python3").args(["-m", "venv", "venv"]).current_dir(&directory).into_ours(),
        )
        .await?;
        let install = Command::new(&interpreter)
            .args(["-m", "pip", "install", "--quiet", "--disable-pip-version-check"])
            .args(["--require-hashes", "--only-binary=:all:", "-r", "requirements.txt"])
            .current_dir(&directory)
            .into_ours();
        done("pip install", install).await?;
        std::fs::write(complete, "").unwrap();
    }
    Ok(Command::new(interpreter).arg(script).current_dir(directory).into_ours())
}

#[tokio::test]
async fn golang_oauth2() {
    let stage = Stage::set().await;
    stage.run("golang.org/x/oauth2", golang_command().await).await;
}

async fn golang_command() -> Result<Command, Skipped> {
    present("go", &["version"]).await?;
    let directory = installed("go", &["go.mod", "go.sum", "main.go"]);
    let build = Command::new("go")
        .args(["build", "-mod=readonly", "-o", "client", "."])
        .env("GOTOOLCHAIN", "local")
        .current_dir(&directory)
        .into_ours();
    done("go build", build).await?;
    Ok(Command::new(directory.join("client")).into_ours())
}

/// A server, a guarded API, and a client's files.
struct Stage {
    rig: Rig,
    /// Serves as long as the stage stands.
    _api: GuardedApi,
    environment: Vec<(&'static str, String)>,
}

impl Stage {
    async fn set() -> Self {
        let rig = Rig::on(&Engine::Sqlite, Time::Machine).await;
        let api = rig.guarded_api().await;
        let party = &rig.world.a_dn;
        let path = |name: &str, content: &str| rig.file(name, content).display().to_string();
        let environment = vec![
            ("COUNTERSIGN_ISSUER", rig.world.issuer.clone()),
            ("COUNTERSIGN_CA", path("authority.pem", &rig.world.server_authority.to_pem())),
            ("COUNTERSIGN_CERTIFICATE", path("client.pem", &party.credential.chain_pem())),
            ("COUNTERSIGN_KEY", path("client-key.pem", &party.credential.key.to_pem())),
            ("COUNTERSIGN_CLIENT_ID", party.id.to_owned()),
            ("COUNTERSIGN_SCOPE", "accounts:read".to_owned()),
            ("COUNTERSIGN_RESOURCE", ACCOUNTS.to_owned()),
            ("COUNTERSIGN_API", format!("https://localhost:{}/accounts", api.address.port())),
        ];
        Self { rig, _api: api, environment }
    }

    /// Runs a client to its last line, or says why it is skipped.
    async fn run(&self, name: &str, command: Result<Command, Skipped>) {
        let mut command = match command {
            Ok(command) => command,
            Err(Skipped(why)) => {
                println!("SKIPPED {name}: {why}");
                return;
            }
        };
        command.envs(self.environment.iter().cloned());
        let output = tokio::time::timeout(PATIENCE, command.output()).await.expect("in time").unwrap();
        let said = String::from_utf8_lossy(&output.stdout);
        println!("{name}: {}", said.trim().replace('\n', "; "));
        assert!(output.status.success(), "{name}: {said}\n{}", String::from_utf8_lossy(&output.stderr));
        assert_eq!(said.lines().last(), Some("API 200"), "{name}");
        let record = self.rig.last_record().await;
        assert_eq!(
            (record["outcome"].as_str(), record["client_id"].as_str()),
            (Some("issued"), Some("a-dn")),
            "{record}"
        );
    }
}

/// What every command here has in common.
trait Ours {
    fn into_ours(&mut self) -> Command;
}

impl Ours for Command {
    fn into_ours(&mut self) -> Command {
        self.stdin(Stdio::null()).kill_on_drop(true);
        std::mem::replace(self, Command::new("false"))
    }
}

async fn present(tool: &str, arguments: &[&str]) -> Result<(), Skipped> {
    let answer = Command::new(tool).args(arguments).stdin(Stdio::null()).output().await;
    match answer {
        Ok(output) if output.status.success() => Ok(()),
        Ok(_) => Err(Skipped(format!("{tool} {} does not run here", arguments.join(" ")))),
        Err(error) => Err(Skipped(format!("{tool} is not installed here ({error})"))),
    }
}

/// The client's files, copied to where it may install things.
fn installed(name: &str, files: &[&str]) -> PathBuf {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let directory = root.join("target/interop").join(name);
    std::fs::create_dir_all(&directory).unwrap();
    for file in files {
        std::fs::copy(root.join("tests/interop").join(name).join(file), directory.join(file)).unwrap();
    }
    directory
}

/// Runs a step of an installation: one that fails skips the client, for it may only be offline.
async fn done(what: &str, mut command: Command) -> Result<(), Skipped> {
    let output = tokio::time::timeout(PATIENCE, command.output())
        .await
        .map_err(|_| Skipped(format!("{what} took more than {} s", PATIENCE.as_secs())))?
        .map_err(|error| Skipped(format!("{what} does not run here ({error})")))?;
    if output.status.success() {
        return Ok(());
    }
    let said = String::from_utf8_lossy(&output.stderr);
    Err(Skipped(format!("{what} failed, offline perhaps: {}", said.lines().next_back().unwrap_or_default())))
}
