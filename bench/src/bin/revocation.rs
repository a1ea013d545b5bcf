//! Measures how soon a token is dead everywhere, and what it costs to have ten thousand resource servers wait for it.
//!
//! `rounds`: an operator's command suspends a client while three resource servers are being called with its token on kept
//! connections, and the last call that was still let through is timed. Ends with exit code 1 where that was later than a
//! second after the command had said that it was done (issue 5); it returns later, with its receipt.
//!
//! `waiting`: so many connections long-poll the list; the server's memory and CPU time meanwhile, and how long a change takes
//! to reach all of them.
//!
//! `tokens`: what it costs the server to be asked about a token by a resource server, and to be told by a client that one of its
//! own is dead.
//!
//! Takes a directory in which `countersign quickstart --exit` has been run, and starts the server there.

#![expect(clippy::print_stdout, reason = "the figures are this program's output")]
#![expect(clippy::disallowed_methods, reason = "a benchmark reads clocks")]

#[path = "../../../resource-server/examples/guarded_api.rs"]
#[expect(unreachable_pub, reason = "the file is an example first")]
mod guarded_api;

#[path = "../machine.rs"]
#[expect(dead_code, reason = "the programme uses the rest of it")]
mod machine;

use std::error::Error;
use std::io::{BufRead, BufReader};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use bytes::Bytes;
use clap::{Parser, Subcommand};
use countersign_resource_server::Guard;
use countersign_resource_server::status::HeldList;
use countersign_resource_server::time::{Clock, SystemClock};
use countersign_resource_server::token::held_keys::HeldKeys;
use http_body_util::{BodyExt, Full};
use hyper::client::conn::http1::{self, SendRequest};
use hyper_util::rt::TokioIo;
use machine::{Process, RESIDENT};
use rustls::client::WantsClientCert;
use rustls::{ClientConfig, ConfigBuilder, RootCertStore};
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use tokio::net::TcpStream;
use tokio::sync::oneshot;
use tokio_rustls::TlsConnector;

type Failure = Box<dyn Error + Send + Sync>;

const CLIENT: &str = "birch-claims";
const API: &str = "example-api";
/// What the operating system counts memory in.
const KILOBYTE: u64 = 1_024;

const LIMIT: Duration = Duration::from_secs(1);
const PATIENCE: Duration = Duration::from_secs(30);

/// Calls that have to be refused one after the other before a resource server counts as having understood.
const REFUSED_IN_A_ROW: usize = 20;

#[derive(Parser)]
struct Arguments {
    /// Where `countersign quickstart --exit` was run
    #[arg(long)]
    directory: PathBuf,
    /// The program to run
    #[arg(long)]
    binary: PathBuf,
    /// Where the server listens meanwhile; its operations one higher
    #[arg(long, default_value_t = 18_443)]
    port: u16,
    #[command(subcommand)]
    measure: Measure,
}

#[derive(Subcommand)]
enum Measure {
    /// How soon a revoked token is refused
    Rounds {
        #[arg(long, default_value_t = 1_000)]
        rounds: usize,
        #[arg(long, default_value_t = 3)]
        resource_servers: usize,
    },
    /// What resource servers that wait for the list cost
    Waiting {
        #[arg(long, default_value_t = 10_000)]
        connections: usize,
        #[arg(long, default_value_t = 30)]
        seconds: u64,
    },
    /// What `/introspect` and `/revoke` cost
    Tokens {
        #[arg(long, default_value_t = 16)]
        connections: usize,
        #[arg(long, default_value_t = 10)]
        seconds: u64,
        /// Tokens to revoke; a client may have a thousand
        #[arg(long, default_value_t = 960)]
        revoked: usize,
        /// A certificate in PEM that becomes the quickstart API's own
        #[arg(long)]
        certificate: PathBuf,
        /// Its key
        #[arg(long)]
        key: PathBuf,
    },
}

/// An installation, and the program that serves it.
struct Site {
    directory: PathBuf,
    binary: PathBuf,
    port: u16,
}

impl Site {
    /// host:port.
    fn address(&self) -> String {
        format!("localhost:{}", self.port)
    }

    fn issuer(&self) -> String {
        format!("https://{}", self.address())
    }

    fn data(&self) -> PathBuf {
        self.directory.join("countersign-data")
    }

    fn command(&self, words: &[&str]) -> Command {
        let mut command = Command::new(&self.binary);
        command.current_dir(&self.directory).args(words).stdin(Stdio::null()).stdout(Stdio::null());
        command
    }

    fn serve(&self) -> Result<Server, Failure> {
        let mut command = self.command(&["serve"]);
        command.env("COUNTERSIGN_ISSUER", self.issuer());
        command.env("COUNTERSIGN_LISTEN", format!("127.0.0.1:{}", self.port));
        command.env("COUNTERSIGN_OPERATIONS__LISTEN", format!("127.0.0.1:{}", self.port + 1));
        // All of them come from one address here.
        for limit in ["COUNTERSIGN_LIMITS__CONNECTIONS", "COUNTERSIGN_LIMITS__CONNECTIONS_PER_ADDRESS"] {
            command.env(limit, "20000");
        }
        Ok(Server(command.stderr(Stdio::null()).spawn()?))
    }

    /// Runs a command of an operator: when it had said that it was done. What it then waits for to print a receipt is not
    /// part of that.
    async fn operate(&self, words: &[&str]) -> Result<Instant, Failure> {
        let mut command = self.command(words);
        command.stdout(Stdio::piped());
        let ran = tokio::task::spawn_blocking(move || {
            let mut child = command.spawn()?;
            let mut said = BufReader::new(child.stdout.take().ok_or("no output")?);
            let mut first = String::new();
            said.read_line(&mut first)?;
            let done = Instant::now();
            std::io::copy(&mut said, &mut std::io::sink())?;
            Ok::<_, Failure>((child.wait()?, done))
        });
        let (status, done) = ran.await??;
        if status.success() { Ok(done) } else { Err(format!("{words:?} ended with {status}").into()) }
    }
}

/// Stops the server however this ends.
struct Server(Child);

impl Drop for Server {
    fn drop(&mut self) {
        let _killed = self.0.kill();
        let _gone = self.0.wait();
    }
}

#[tokio::main]
async fn main() -> Result<(), Failure> {
    let arguments = Arguments::parse();
    let site = Site {
        directory: arguments.directory.canonicalize()?,
        binary: arguments.binary.canonicalize()?,
        port: arguments.port,
    };
    let server = site.serve()?;
    match arguments.measure {
        Measure::Rounds { rounds, resource_servers } => measure_rounds(&site, rounds, resource_servers).await,
        Measure::Waiting { connections, seconds } => {
            measure_waiting(&site, Process(server.0.id()), connections, Duration::from_secs(seconds)).await
        }
        Measure::Tokens { connections, seconds, revoked, certificate, key } => {
            let api = config_of(&site.data(), &certificate, &key)?;
            let certificate = certificate.canonicalize()?;
            let certificate = certificate.to_str().ok_or("a path that is no text")?;
            site.operate(&["resource-server", "change", API, "--certificate", certificate]).await?;
            let process = Process(server.0.id());
            measure_asking(&site, process, &Arc::new(api), connections, Duration::from_secs(seconds)).await?;
            measure_revoking(&site, process, connections, revoked).await
        }
    }
}

async fn measure_rounds(site: &Site, rounds: usize, resource_servers: usize) -> Result<(), Failure> {
    let (data, address) = (site.data(), site.address());
    let tls = Arc::new(client_config(&data)?);
    let mut apis = Vec::new();
    for _ in 0..resource_servers {
        apis.push(resource_server(&data, site.issuer()).await?);
    }
    for (_, guard, _) in &apis {
        within(PATIENCE, || guard.is_ready()).await?;
    }
    let mut token_endpoint = connect(&tls, &address).await?;
    let mut connections = Vec::new();
    for (api, _, _) in &apis {
        connections.push(connect(&tls, &format!("localhost:{}", api.port())).await?);
    }
    let mut late = Vec::new();
    for _ in 0..rounds {
        let token = token(&mut token_endpoint).await?;
        let callers: Vec<_> = std::mem::take(&mut connections)
            .into_iter()
            .map(|connection| tokio::spawn(call_until_refused(connection, token.clone())))
            .collect();
        // All of them are being let through.
        tokio::time::sleep(Duration::from_millis(5)).await;
        let done = site.operate(&["client", "suspend", CLIENT, "--why", "benchmark"]).await?;
        for caller in callers {
            let (connection, last) = caller.await??;
            let last = last.ok_or("a token was not let through before it was revoked")?;
            late.push(last.saturating_duration_since(done));
            connections.push(connection);
        }
        site.operate(&["client", "reinstate", CLIENT, "--why", "benchmark"]).await?;
    }
    let over = late.iter().filter(|late| **late > LIMIT).count();
    println!("rounds, resource servers        {rounds}, {resource_servers}");
    println!("last call let through, after the command had said that it was done");
    println!("  p50 / p99 / maximum           {}", quantiles(&mut late));
    println!("  later than a second           {over}");
    if over > 0 {
        return Err("a call was let through later than a second after the revocation".into());
    }
    Ok(())
}

fn quantiles(of: &mut [Duration]) -> String {
    of.sort_unstable();
    let quantile = |share: f64| {
        let place = (of.len().saturating_sub(1) as f64 * share) as usize;
        of.get(place).copied().unwrap_or_default()
    };
    format!("{:.1?} / {:.1?} / {:.1?}", quantile(0.5), quantile(0.99), quantile(1.0))
}

async fn measure_waiting(site: &Site, process: Process, connections: usize, time: Duration) -> Result<(), Failure> {
    let address = site.address();
    let tls = Arc::new(anonymous_config(&site.data())?);
    let mut first = connect(&tls, &address).await?;
    let keys = Arc::new(HeldKeys::default());
    keys.take(&get(&mut first, "/jwks").await?)?;
    let before = process.memory(RESIDENT)? / KILOBYTE;
    // Whoever waits learns the version from what was signed, as a resource server does.
    let clock: Arc<dyn Clock> = Arc::new(SystemClock::new());
    let list = HeldList::new(site.issuer(), Duration::from_secs(30), Arc::clone(&keys), clock);
    list.take(std::str::from_utf8(&get(&mut first, "/revocations").await?)?)?;
    let version = list.version().ok_or("no version")?;
    let (answered, wanted) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
    let mut waiting = Vec::new();
    for batch in 0..connections.div_ceil(BATCH) {
        let count = BATCH.min(connections - batch * BATCH);
        let opened = futures_util::future::try_join_all((0..count).map(|_| connect(&tls, &address))).await?;
        waiting.extend(
            opened
                .into_iter()
                .map(|connection| tokio::spawn(wait(connection, version, Arc::clone(&answered), Arc::clone(&wanted)))),
        );
    }
    println!("connections that wait           {connections}");
    println!(
        "server memory before / waiting  {} / {} MB",
        before / 1_000,
        process.memory(RESIDENT)? / KILOBYTE / 1_000
    );
    let (cpu, polls, began) = (process.cpu_time()?, answered.load(Ordering::Relaxed), Instant::now());
    tokio::time::sleep(time).await;
    let busy = process.cpu_time()?.saturating_sub(cpu).as_secs_f64() / began.elapsed().as_secs_f64();
    let polls = (answered.load(Ordering::Relaxed) - polls) as f64 / began.elapsed().as_secs_f64();
    println!("server CPU while nothing changes {:.1} % of a core, at {polls:.0} polls answered a second", busy * 100.0);
    wanted.store(1, Ordering::Relaxed);
    let cpu = process.cpu_time()?;
    let done = site.operate(&["client", "suspend", CLIENT, "--why", "benchmark"]).await?;
    let mut late = Vec::new();
    for waiter in waiting {
        late.push(waiter.await??.saturating_duration_since(done));
    }
    println!("told of a change, after the command had said that it was done");
    println!("  p50 / p99 / maximum           {}", quantiles(&mut late));
    println!("  server CPU for it             {:.1?}", process.cpu_time()?.saturating_sub(cpu));
    println!("server memory at the end        {} MB", process.memory(RESIDENT)? / KILOBYTE / 1_000);
    site.operate(&["client", "reinstate", CLIENT, "--why", "benchmark"]).await?;
    Ok(())
}

/// Handshakes at a time.
const BATCH: usize = 32;

/// Long-polls until the list says something new once that is wanted: when it came.
async fn wait(
    mut connection: SendRequest<Full<Bytes>>,
    (epoch, number): (i64, i64),
    answered: Arc<AtomicUsize>,
    wanted: Arc<AtomicUsize>,
) -> Result<Instant, Failure> {
    loop {
        let asked = Instant::now();
        get(&mut connection, &format!("/revocations?epoch={epoch}&number={number}&wait=10")).await?;
        answered.fetch_add(1, Ordering::Relaxed);
        // Answered before its time: there is news.
        if wanted.load(Ordering::Relaxed) > 0 && asked.elapsed() < Duration::from_millis(9_900) {
            return Ok(Instant::now());
        }
    }
}

/// Asks about one token on so many kept connections at once.
async fn measure_asking(
    site: &Site,
    process: Process,
    api: &Arc<ClientConfig>,
    connections: usize,
    time: Duration,
) -> Result<(), Failure> {
    let (address, client) = (site.address(), Arc::new(client_config(&site.data())?));
    let token = token(&mut connect(&client, &address).await?).await?;
    let mut askers = Vec::new();
    for _ in 0..connections {
        askers.push(connect(api, &address).await?);
    }
    let (cpu, until) = (process.cpu_time()?, Instant::now() + time);
    let asking: Vec<_> = askers
        .into_iter()
        .map(|mut connection| {
            let token = token.clone();
            tokio::spawn(async move {
                let mut waited = Vec::new();
                while Instant::now() < until {
                    let asked = Instant::now();
                    let answer = post(&mut connection, "/introspect", format!("token={token}")).await?;
                    if !answer.starts_with(b"{\"active\":true") {
                        return Err(format!("not active: {}", String::from_utf8_lossy(&answer)).into());
                    }
                    waited.push(asked.elapsed());
                }
                Ok::<_, Failure>(waited)
            })
        })
        .collect();
    report("/introspect, one live token", process, cpu, asking).await
}

/// Has so many tokens revoked by their client, each once.
async fn measure_revoking(site: &Site, process: Process, connections: usize, revoked: usize) -> Result<(), Failure> {
    let (address, client) = (site.address(), Arc::new(client_config(&site.data())?));
    let mut shares = Vec::new();
    for _ in 0..connections {
        let mut connection = connect(&client, &address).await?;
        let mut tokens = Vec::new();
        for _ in 0..revoked / connections {
            tokens.push(token(&mut connection).await?);
        }
        shares.push((connection, tokens));
    }
    let cpu = process.cpu_time()?;
    let revoking: Vec<_> = shares
        .into_iter()
        .map(|(mut connection, tokens)| {
            tokio::spawn(async move {
                let mut waited = Vec::new();
                for token in tokens {
                    let asked = Instant::now();
                    post(&mut connection, "/revoke", format!("client_id={CLIENT}&token={token}")).await?;
                    waited.push(asked.elapsed());
                }
                Ok::<_, Failure>(waited)
            })
        })
        .collect();
    report("/revoke, a live token each", process, cpu, revoking).await
}

async fn report(
    what: &str,
    process: Process,
    cpu: Duration,
    asking: Vec<tokio::task::JoinHandle<Result<Vec<Duration>, Failure>>>,
) -> Result<(), Failure> {
    let (began, connections) = (Instant::now(), asking.len());
    let mut waited = Vec::new();
    for one in asking {
        waited.extend(one.await??);
    }
    let (took, cpu) = (began.elapsed().as_secs_f64(), process.cpu_time()?.saturating_sub(cpu).as_secs_f64());
    let count = waited.len() as f64;
    println!("{what}, {connections} connections");
    println!("  answered                      {count}, {:.0} a second", count / took);
    println!("  server CPU for a thousand     {:.0} ms", cpu * 1e6 / count);
    println!("  p50 / p99 / maximum           {}", quantiles(&mut waited));
    println!("  server memory                 {} MB", process.memory(RESIDENT)? / KILOBYTE / 1_000);
    Ok(())
}

async fn post(connection: &mut SendRequest<Full<Bytes>>, target: &str, form: String) -> Result<Bytes, Failure> {
    let request = http::Request::post(target)
        .header("host", "localhost")
        .header("content-type", "application/x-www-form-urlencoded")
        .body(Full::from(form))?;
    connection.ready().await?;
    let answer = connection.send_request(request).await?;
    let status = answer.status();
    let body = answer.into_body().collect().await?.to_bytes();
    if status.is_success() {
        Ok(body)
    } else {
        Err(format!("{target}: {status} {}", String::from_utf8_lossy(&body)).into())
    }
}

async fn get(connection: &mut SendRequest<Full<Bytes>>, target: &str) -> Result<Bytes, Failure> {
    let request = http::Request::get(target).header("host", "localhost").body(Full::default())?;
    connection.ready().await?;
    let answer = connection.send_request(request).await?;
    let status = answer.status();
    let body = answer.into_body().collect().await?.to_bytes();
    if status.is_success() { Ok(body) } else { Err(format!("{target}: {status}").into()) }
}

type Api = (SocketAddr, Guard, oneshot::Sender<()>);

/// One more instance of the quickstart's API, with keys and a list of its own.
async fn resource_server(data: &Path, issuer: String) -> Result<Api, Failure> {
    let settings = guarded_api::Settings {
        listen: SocketAddr::from(([127, 0, 0, 1], 0)),
        issuer,
        resource: "https://localhost:8444".to_owned(),
        certificate_pem: std::fs::read(data.join("tls/server.pem"))?,
        key_pem: std::fs::read(data.join("tls/server-key.pem"))?,
        roots_pem: std::fs::read(data.join("server-ca.pem"))?,
    };
    let ((ready, told), (stop, stopped)) = (oneshot::channel(), oneshot::channel::<()>());
    tokio::spawn(guarded_api::serve(settings, ready, async {
        let _stopped = stopped.await;
    }));
    let (address, guard) = told.await?;
    Ok((address, guard, stop))
}

async fn within(patience: Duration, mut so: impl FnMut() -> bool) -> Result<(), Failure> {
    let began = Instant::now();
    while !so() {
        if began.elapsed() > patience {
            return Err("the server or an API is not ready".into());
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    Ok(())
}

/// A token, as soon as there is one again.
async fn token(connection: &mut SendRequest<Full<Bytes>>) -> Result<String, Failure> {
    let began = Instant::now();
    loop {
        let request = http::Request::post("/token")
            .header("host", "localhost")
            .header("content-type", "application/x-www-form-urlencoded")
            .body(Full::from(format!("grant_type=client_credentials&client_id={CLIENT}")))?;
        connection.ready().await?;
        let answer = connection.send_request(request).await?;
        let is_good = answer.status().is_success();
        let body = answer.into_body().collect().await?.to_bytes();
        let text = String::from_utf8_lossy(&body);
        if is_good {
            let token = text.split("\"access_token\":\"").nth(1).and_then(|rest| rest.split('"').next());
            return Ok(token.ok_or("an answer without a token")?.to_owned());
        }
        if began.elapsed() > PATIENCE {
            return Err(format!("no token: {text}").into());
        }
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
}

/// Calls without a pause, until the token has been refused again and again: when the last call was answered that was let
/// through.
async fn call_until_refused(
    mut connection: SendRequest<Full<Bytes>>,
    token: String,
) -> Result<(SendRequest<Full<Bytes>>, Option<Instant>), Failure> {
    let (mut last, mut refused, began) = (None, 0, Instant::now());
    while refused < REFUSED_IN_A_ROW {
        let request = http::Request::get("/accounts")
            .header("host", "localhost")
            .header("authorization", format!("Bearer {token}"))
            .body(Full::default())?;
        connection.ready().await?;
        let answer = connection.send_request(request).await?;
        let status = answer.status().as_u16();
        answer.into_body().collect().await?;
        match status {
            200 => (last, refused) = (Some(Instant::now()), 0),
            401 => refused += 1,
            other => return Err(format!("an API answered {other}").into()),
        }
        if began.elapsed() > PATIENCE {
            return Err("a token is let through half a minute after it was revoked".into());
        }
        tokio::time::sleep(Duration::from_micros(500)).await;
    }
    Ok((connection, last))
}

async fn connect(tls: &Arc<ClientConfig>, address: &str) -> Result<SendRequest<Full<Bytes>>, Failure> {
    let began = Instant::now();
    let socket = loop {
        match TcpStream::connect(address).await {
            Ok(socket) => break socket,
            Err(error) if began.elapsed() > PATIENCE => return Err(error.into()),
            Err(_) => tokio::time::sleep(Duration::from_millis(20)).await,
        }
    };
    socket.set_nodelay(true)?;
    let stream = TlsConnector::from(Arc::clone(tls)).connect(ServerName::try_from("localhost")?, socket).await?;
    let (sender, connection) = http1::handshake(TokioIo::new(stream)).await?;
    tokio::spawn(connection);
    Ok(sender)
}

fn client_config(data: &Path) -> Result<ClientConfig, Failure> {
    let file = |ending: &str| data.join("clients").join(format!("{CLIENT}.{ending}"));
    config_of(data, &file("pem"), &file("key"))
}

fn config_of(data: &Path, certificate: &Path, key: &Path) -> Result<ClientConfig, Failure> {
    let chain = CertificateDer::pem_file_iter(certificate)?.collect::<Result<Vec<_>, _>>()?;
    Ok(trusting(data)?.with_client_auth_cert(chain, PrivateKeyDer::from_pem_file(key)?)?)
}

fn anonymous_config(data: &Path) -> Result<ClientConfig, Failure> {
    Ok(trusting(data)?.with_no_client_auth())
}

fn trusting(data: &Path) -> Result<ConfigBuilder<ClientConfig, WantsClientCert>, Failure> {
    let mut roots = RootCertStore::empty();
    for root in CertificateDer::pem_file_iter(data.join("server-ca.pem"))? {
        roots.add(root?)?;
    }
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    Ok(ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()?
        .with_root_certificates(roots))
}
