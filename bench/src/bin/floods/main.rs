//! Measures what a server does that more is asked of than it can give: open connections, requests beyond its capacity, and
//! floods, while an honest client goes on asking.
//!
//! `idle`: so many connections with a client certificate, one token each and then nothing: the server's memory for each.
//!
//! `overload`: so many tokens a second asked for on so many kept connections, whatever comes back: how many are served, how
//! soon, and what a refusal costs.
//!
//! `flood`: an honest client asks for 200 tokens a second, a fifth of them on new connections with a full handshake, while
//! others hold connections that say nothing, stall, dribble, shake hands as fast as they can, or misuse HTTP/2.
//!
//! Takes a directory in which `countersign quickstart --exit` has been run, and starts the server there.

#![expect(clippy::print_stdout, reason = "the figures are this program's output")]
#![expect(clippy::disallowed_methods, reason = "a benchmark reads clocks")]

#[path = "../../machine.rs"]
#[expect(dead_code, reason = "the programme uses the rest of it")]
mod machine;

/// Frames.
mod http2;

use std::error::Error;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use clap::{Parser, Subcommand, ValueEnum};
use countersign_conformance::key::KeyKind;
use countersign_conformance::pki::{Credential, Name, Template};
use futures_util::FutureExt;
use rustls::client::Resumption;
use rustls::{ClientConfig, ClientConnection, RootCertStore};
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer, ServerName};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpSocket, TcpStream};
use tokio::time::{MissedTickBehavior, interval, interval_at, timeout};
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use http2::Misuse;
use machine::{Process, RESIDENT};

type Failure = Box<dyn Error + Send + Sync>;

const CLIENT: &str = "birch-claims";
const PATIENCE: Duration = Duration::from_secs(30);

/// Where the honest client is.
const HONEST: Ipv4Addr = Ipv4Addr::new(127, 0, 0, 1);
/// What it asks for: so many a second, the fifth of them on connections of their own.
const HONEST_RATE: u64 = 200;
const HONEST_FRESH: u64 = 40;
const HONEST_CONNECTIONS: u64 = 16;

/// What `limits.connections` has to be for floods and crowds; the server's default is 8,192.
const CONNECTIONS: &str = "20000";

#[derive(Parser)]
struct Arguments {
    /// Where `countersign quickstart --exit` was run
    #[arg(long)]
    directory: PathBuf,
    /// The program to run
    #[arg(long)]
    binary: PathBuf,
    /// Where the server listens meanwhile; its operations one higher
    #[arg(long, default_value_t = 18_453)]
    port: u16,
    #[command(subcommand)]
    measure: Measure,
}

#[derive(Subcommand)]
enum Measure {
    /// What connections cost that say nothing
    Idle {
        #[arg(long, default_value_t = 10_000)]
        connections: usize,
        /// Over HTTP/2
        #[arg(long)]
        http2: bool,
    },
    /// What becomes of more requests than can be decided
    Overload {
        #[arg(long, default_value_t = 2_000)]
        connections: usize,
        /// Requests a second in all; 0: as fast as answers come
        #[arg(long, default_value_t = 40_000)]
        rate: u64,
        #[arg(long, default_value_t = 10)]
        seconds: u64,
    },
    /// What becomes of an honest client meanwhile
    Flood {
        kind: Kind,
        /// Connections at one time
        #[arg(long, default_value_t = 5_000)]
        connections: usize,
        #[arg(long, default_value_t = 15)]
        seconds: u64,
        /// From so many addresses; 0: from the honest client's own
        #[arg(long, default_value_t = 50)]
        addresses: usize,
    },
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Kind {
    /// None
    None,
    /// Connections that say nothing
    Silent,
    /// A `ClientHello`, and nothing after the server's answer
    Stalled,
    /// An octet of a head now and then
    Heads,
    /// An octet of a body now and then
    Bodies,
    /// One handshake after the other, without a certificate
    Handshakes,
    /// With one that nobody has enrolled
    Unregistered,
    /// HTTP/2: requests that are taken back at once
    Resets,
    /// HTTP/2: a head that never ends
    Continuations,
}

/// Stops the server however this ends.
struct Server(Child);

impl Drop for Server {
    fn drop(&mut self) {
        let _killed = self.0.kill();
        let _gone = self.0.wait();
    }
}

fn main() -> Result<(), Failure> {
    let arguments = Arguments::parse();
    let (directory, binary) = (arguments.directory.canonicalize()?, arguments.binary.canonicalize()?);
    let mut command = Command::new(binary);
    command.arg("serve").current_dir(&directory).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    command.env("COUNTERSIGN_ISSUER", format!("https://localhost:{}", arguments.port));
    command.env("COUNTERSIGN_LISTEN", format!("127.0.0.1:{}", arguments.port));
    command.env("COUNTERSIGN_OPERATIONS__LISTEN", format!("127.0.0.1:{}", arguments.port + 1));
    command.env("COUNTERSIGN_LIMITS__CONNECTIONS", CONNECTIONS);
    if matches!(arguments.measure, Measure::Idle { .. }) {
        // The first are to be there still when the last comes.
        command.env("COUNTERSIGN_LIMITS__IDLE_SECONDS", "3600");
    }
    if !matches!(arguments.measure, Measure::Flood { .. }) {
        // All of them come from one address here.
        command.env("COUNTERSIGN_LIMITS__CONNECTIONS_PER_ADDRESS", CONNECTIONS);
        command.env("COUNTERSIGN_LIMITS__REQUESTS_PER_ADDRESS", "1000000");
        command.env("COUNTERSIGN_LIMITS__REQUESTS_PER_CERTIFICATE", "1000000");
        command.env("COUNTERSIGN_LIMITS__REQUESTS_PER_CLIENT", "1000000");
    }
    let server = Server(command.spawn()?);
    let data = directory.join("countersign-data");
    let site =
        Arc::new(Site { address: SocketAddr::from((HONEST, arguments.port)), process: Process(server.0.id()), data });
    let runtime = tokio::runtime::Runtime::new()?;
    runtime.block_on(site.ready())?;
    println!("load of the machine             {}", machine::load_average()?);
    match arguments.measure {
        Measure::Idle { connections, http2 } => runtime.block_on(measure_idle(&site, connections, http2)),
        Measure::Overload { connections, rate, seconds } => {
            runtime.block_on(measure_overload(&site, connections, rate, Duration::from_secs(seconds)))
        }
        Measure::Flood { kind, connections, seconds, addresses } => {
            measure_flood(&site, &runtime, kind, connections, addresses, Duration::from_secs(seconds))
        }
    }
}

/// What the operating system counts memory in.
const KILOBYTE: u64 = 1_024;

/// A server, and what is needed to reach it.
struct Site {
    address: SocketAddr,
    process: Process,
    data: PathBuf,
}

impl Site {
    async fn ready(&self) -> Result<(), Failure> {
        let (tls, began) = (self.enrolled(&[])?, Instant::now());
        while began.elapsed() < PATIENCE {
            if let Ok(mut connection) = connect(HONEST, self.address, &tls).await
                && matches!(ask(&mut connection, &token_request()).await, Ok(200))
            {
                return Ok(());
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        Err("the server is not ready".into())
    }

    fn enrolled(&self, protocols: &[&[u8]]) -> Result<Arc<ClientConfig>, Failure> {
        let file = |ending: &str| self.data.join("clients").join(format!("{CLIENT}.{ending}"));
        let chain = CertificateDer::pem_file_iter(file("pem"))?.collect::<Result<Vec<_>, _>>()?;
        self.tls(Some((chain, PrivateKeyDer::from_pem_file(file("key"))?)), protocols)
    }

    fn unregistered(&self) -> Result<Arc<ClientConfig>, Failure> {
        let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH)?.as_secs();
        let template = Template::client(Name::common("nobody"), i64::try_from(now)?);
        let credential = Credential::self_signed(&template, KeyKind::P256);
        let key = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(credential.key.pkcs8().to_vec()));
        let chain = credential.chain.into_iter().map(CertificateDer::from).collect();
        self.tls(Some((chain, key)), &[])
    }

    fn tls(
        &self,
        own: Option<(Vec<CertificateDer<'static>>, PrivateKeyDer<'static>)>,
        protocols: &[&[u8]],
    ) -> Result<Arc<ClientConfig>, Failure> {
        let mut roots = RootCertStore::empty();
        for root in CertificateDer::pem_file_iter(self.data.join("server-ca.pem"))? {
            roots.add(root?)?;
        }
        let builder = ClientConfig::builder_with_provider(Arc::new(rustls::crypto::aws_lc_rs::default_provider()))
            .with_safe_default_protocol_versions()?
            .with_root_certificates(roots);
        let mut config = match own {
            Some((chain, key)) => builder.with_client_auth_cert(chain, key)?,
            None => builder.with_no_client_auth(),
        };
        config.resumption = Resumption::disabled();
        config.alpn_protocols = protocols.iter().map(|protocol| protocol.to_vec()).collect();
        Ok(Arc::new(config))
    }
}

type Connection = TlsStream<TcpStream>;

async fn connect(source: Ipv4Addr, server: SocketAddr, tls: &Arc<ClientConfig>) -> Result<Connection, Failure> {
    let stream = dial(source, server).await?;
    Ok(TlsConnector::from(Arc::clone(tls)).connect(ServerName::try_from("localhost")?, stream).await?)
}

async fn dial(source: Ipv4Addr, server: SocketAddr) -> Result<TcpStream, Failure> {
    let socket = TcpSocket::new_v4()?;
    socket.set_reuseaddr(true)?;
    socket.bind((IpAddr::V4(source), 0).into())?;
    let stream = socket.connect(server).await?;
    stream.set_nodelay(true)?;
    Ok(stream)
}

fn token_request() -> Vec<u8> {
    let form = format!("grant_type=client_credentials&client_id={CLIENT}");
    format!(
        "POST /token HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/x-www-form-urlencoded\r\ncontent-length: {}\r\n\r\n{form}",
        form.len()
    )
    .into_bytes()
}

/// Sends a request and reads the answer to its end: its status.
async fn ask(connection: &mut Connection, request: &[u8]) -> Result<u16, Failure> {
    connection.write_all(request).await?;
    // Otherwise what a busy task could not write at once stays where it is.
    connection.flush().await?;
    let (mut answer, mut filled) = ([0; 4096], 0);
    loop {
        match connection.read(answer.get_mut(filled..).ok_or("a long answer")?).await? {
            0 => return Err("closed".into()),
            count => filled += count,
        }
        let text = String::from_utf8_lossy(answer.get(..filled).unwrap_or_default());
        let Some((head, body)) = text.split_once("\r\n\r\n") else { continue };
        let length = head
            .lines()
            .find_map(|line| line.strip_prefix("content-length: "))
            .ok_or("an answer without a length")?
            .parse::<usize>()?;
        if body.len() >= length {
            return Ok(head.split(' ').nth(1).ok_or("no status")?.parse()?);
        }
    }
}

async fn measure_idle(site: &Site, connections: usize, http2: bool) -> Result<(), Failure> {
    let protocols: &[&[u8]] = if http2 { &[b"h2"] } else { &[b"http/1.1"] };
    let tls = site.enrolled(protocols)?;
    let before = site.process.memory(RESIDENT)? / KILOBYTE;
    let mut open = Vec::new();
    let cpu = site.process.cpu_time()?;
    while open.len() < connections {
        let batch = (0..BATCH.min(connections - open.len())).map(|_| async {
            let mut connection = connect(HONEST, site.address, &tls).await?;
            if http2 {
                // RFC 9113 §3.4 and §6.5: the preface and empty settings; the server's own settings are left unread.
                connection.write_all(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0").await?;
                connection.flush().await?;
            } else if ask(&mut connection, &token_request()).await? != 200 {
                return Err("no token".into());
            }
            Ok::<_, Failure>(connection)
        });
        open.extend(futures_util::future::try_join_all(batch).await?);
    }
    let cpu = site.process.cpu_time()?.saturating_sub(cpu);
    let opened = site.process.memory(RESIDENT)? / KILOBYTE;
    tokio::time::sleep(Duration::from_secs(5)).await;
    let idle = site.process.memory(RESIDENT)? / KILOBYTE;
    for connection in &mut open {
        // Unconstrained: tokio would say of most of them that nothing has come, without having looked.
        let mut octet = [0];
        let read = tokio::task::unconstrained(connection.read(&mut octet)).now_or_never();
        if matches!(read, Some(Ok(0) | Err(_))) {
            return Err("the server closed a connection that was to be idle".into());
        }
    }
    let each = |now: u64| now.saturating_sub(before) as f64 / connections as f64;
    println!("connections with a certificate  {connections}");
    println!("server CPU for each             {:.0} µs", cpu.as_secs_f64() * 1e6 / connections as f64);
    println!("server memory before            {} kB", before);
    println!("when all are open               {opened} kB, {:.1} kB each", each(opened));
    println!("five seconds later              {idle} kB, {:.1} kB each", each(idle));
    drop(open);
    tokio::time::sleep(Duration::from_secs(3)).await;
    println!("when all are closed             {} kB", site.process.memory(RESIDENT)? / KILOBYTE);
    Ok(())
}

/// Handshakes at a time.
const BATCH: usize = 32;

/// What came back, and when.
#[derive(Default)]
struct Answers {
    served: Vec<Duration>,
    refused: Vec<Duration>,
    failed: usize,
}

impl Answers {
    fn add(&mut self, began: Instant, outcome: &Result<u16, Failure>) {
        match outcome {
            Ok(200) => self.served.push(began.elapsed()),
            Ok(503 | 429) => self.refused.push(began.elapsed()),
            _ => self.failed += 1,
        }
    }

    fn take(&mut self, mut others: Self) {
        self.served.append(&mut others.served);
        self.refused.append(&mut others.refused);
        self.failed += others.failed;
    }
}

async fn measure_overload(site: &Arc<Site>, connections: usize, rate: u64, time: Duration) -> Result<(), Failure> {
    let tls = site.enrolled(&[b"http/1.1"])?;
    let mut open = Vec::new();
    while open.len() < connections {
        let batch = (0..BATCH.min(connections - open.len())).map(|_| connect(HONEST, site.address, &tls));
        open.extend(futures_util::future::try_join_all(batch).await?);
    }
    let (cpu, began) = (site.process.cpu_time()?, Instant::now());
    let warm = began + Duration::from_secs(1);
    let every = Duration::from_secs(connections as u64).checked_div(u32::try_from(rate)?);
    let tasks: Vec<_> = open
        .into_iter()
        .enumerate()
        .map(|(at, mut connection)| {
            tokio::spawn(async move {
                let (request, mut early, mut late) = (token_request(), Answers::default(), Answers::default());
                let first = began + every.unwrap_or_default() * u32::try_from(at).unwrap_or(0) / connections as u32;
                let mut ticks = every.map(|every| interval_at(first.into(), every));
                if let Some(ticks) = &mut ticks {
                    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
                }
                while began.elapsed() < time {
                    if let Some(ticks) = &mut ticks {
                        ticks.tick().await;
                    }
                    let asked = Instant::now();
                    let outcome = ask(&mut connection, &request).await;
                    if asked < warm {
                        early.add(asked, &outcome)
                    } else {
                        late.add(asked, &outcome)
                    }
                    if outcome.is_err() {
                        break;
                    }
                }
                (early, late)
            })
        })
        .collect();
    let (mut early, mut late) = (Answers::default(), Answers::default());
    for task in tasks {
        let (one, other) = task.await?;
        early.take(one);
        late.take(other);
    }
    let (took, cpu) = (began.elapsed(), site.process.cpu_time()?.saturating_sub(cpu));
    let counted = took.as_secs_f64() - 1.0;
    println!("connections, wanted a second    {connections}, {rate}");
    println!("asked a second, after the first {:.0}", (late.served.len() + late.refused.len()) as f64 / counted);
    println!("served a second                 {:.0}", late.served.len() as f64 / counted);
    println!("  p50 / p99 / maximum           {}", quantiles(&mut late.served));
    println!("refused a second                {:.0}", late.refused.len() as f64 / counted);
    println!("  p50 / p99 / maximum           {}", quantiles(&mut late.refused));
    println!("failed                          {}", early.failed + late.failed);
    println!("in the first second: served     {}", early.served.len());
    println!("  p50 / p99 / maximum           {}", quantiles(&mut early.served));
    let served = early.served.len() + late.served.len();
    println!("server CPU                      {:.2} cores", cpu.as_secs_f64() / took.as_secs_f64());
    println!("server CPU for each served      {:.0} µs, refusals included", cpu.as_secs_f64() * 1e6 / served as f64);
    println!("server memory                   {} kB", site.process.memory(RESIDENT)? / KILOBYTE);
    Ok(())
}

fn measure_flood(
    site: &Arc<Site>,
    runtime: &tokio::runtime::Runtime,
    kind: Kind,
    connections: usize,
    addresses: usize,
    time: Duration,
) -> Result<(), Failure> {
    let before = site.process.memory(RESIDENT)? / KILOBYTE;
    let over = Arc::new(AtomicBool::new(false));
    let counts = Arc::new(Counts::default());
    let flooding = {
        let (site, over, counts) = (Arc::clone(site), Arc::clone(&over), Arc::clone(&counts));
        move || -> Result<(), Failure> {
            // A thread of its own: the honest client's times are not to be those of this program's own queue.
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
            runtime.block_on(flood(&site, kind, connections, addresses, &over, &counts))
        }
    };
    let flooding = std::thread::spawn(flooding);
    // Until the flood is there.
    std::thread::sleep(Duration::from_secs(3));
    let (cpu, began, hands) = (site.process.cpu_time()?, Instant::now(), counts.done.load(Ordering::Relaxed));
    let mut answers = runtime.block_on(honest(site, time))?;
    let busy = site.process.cpu_time()?.saturating_sub(cpu).as_secs_f64() / began.elapsed().as_secs_f64();
    let hands = (counts.done.load(Ordering::Relaxed) - hands) as f64 / began.elapsed().as_secs_f64();
    let full = site.process.memory(RESIDENT)? / KILOBYTE;
    println!("flood                           {kind:?}, {connections} connections from {addresses} addresses");
    println!("connections of it held          {}", counts.held.load(Ordering::Relaxed));
    println!("handshakes of it done a second  {hands:.0}");
    println!("attempts of it refused, in all  {}", counts.refused.load(Ordering::Relaxed));
    if matches!(kind, Kind::Resets | Kind::Continuations) {
        let (told, ended) = (counts.told.load(Ordering::Relaxed), counts.ended.load(Ordering::Relaxed));
        println!("ended by the server with GOAWAY {told} of {ended}");
    }
    println!("server CPU                      {busy:.2} cores");
    println!("server memory before / during   {before} / {full} kB");
    for (what, answers) in [("on kept connections", &mut answers.0), ("on new connections", &mut answers.1)] {
        let asked = answers.served.len() + answers.refused.len() + answers.failed;
        let share = answers.served.len() as f64 * 100.0 / asked as f64;
        println!("honest, {what:<20}    {} of {asked} served, {share:.2} %", answers.served.len());
        println!("  p50 / p99 / maximum           {}", quantiles(&mut answers.served));
    }
    over.store(true, Ordering::Relaxed);
    flooding.join().map_err(|_| "the flood failed")??;
    Ok(())
}

/// What became of a flood's connections.
#[derive(Default)]
struct Counts {
    held: AtomicUsize,
    done: AtomicUsize,
    refused: AtomicUsize,
    /// Those that the server ended, of the ones that misuse HTTP/2.
    ended: AtomicUsize,
    /// Of these, those that were told why.
    told: AtomicUsize,
}

async fn flood(
    site: &Arc<Site>,
    kind: Kind,
    connections: usize,
    addresses: usize,
    over: &Arc<AtomicBool>,
    counts: &Arc<Counts>,
) -> Result<(), Failure> {
    if kind == Kind::None {
        return Ok(());
    }
    let tls = match kind {
        Kind::Unregistered => site.unregistered()?,
        Kind::None | Kind::Silent | Kind::Stalled | Kind::Handshakes => site.tls(None, &[])?,
        Kind::Heads | Kind::Bodies => site.enrolled(&[b"http/1.1"])?,
        Kind::Resets | Kind::Continuations => site.enrolled(&[b"h2"])?,
    };
    let tasks: Vec<_> = (0..connections)
        .map(|at| {
            let source = match u32::try_from(at % addresses.max(1)) {
                Ok(number) if addresses > 0 => Ipv4Addr::from(u32::from(Ipv4Addr::new(127, 1, 0, 1)) + number),
                _ => HONEST,
            };
            let (site, tls, over, counts) = (Arc::clone(site), Arc::clone(&tls), Arc::clone(over), Arc::clone(counts));
            tokio::spawn(async move {
                while !over.load(Ordering::Relaxed) {
                    let one = attack(&site, kind, source, &tls, &over, &counts);
                    if one.await.is_err() {
                        counts.refused.fetch_add(1, Ordering::Relaxed);
                        // Whoever is refused tries again soon, but not in a loop that is all this program does.
                        tokio::time::sleep(Duration::from_millis(20)).await;
                    }
                }
            })
        })
        .collect();
    while !over.load(Ordering::Relaxed) {
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    for task in tasks {
        task.abort();
    }
    Ok(())
}

/// Counts what is held as long as it is.
struct Held<'a>(&'a Counts);

impl<'a> Held<'a> {
    fn one(counts: &'a Counts) -> Self {
        counts.held.fetch_add(1, Ordering::Relaxed);
        Self(counts)
    }
}

impl Drop for Held<'_> {
    fn drop(&mut self) {
        self.0.held.fetch_sub(1, Ordering::Relaxed);
    }
}

/// One connection of a flood, until the server ends it.
async fn attack(
    site: &Site,
    kind: Kind,
    source: Ipv4Addr,
    tls: &Arc<ClientConfig>,
    over: &AtomicBool,
    counts: &Counts,
) -> Result<(), Failure> {
    match kind {
        Kind::None => Ok(()),
        Kind::Silent | Kind::Stalled => {
            let mut stream = dial(source, site.address).await?;
            let _held = Held::one(counts);
            if kind == Kind::Stalled {
                let mut hello = Vec::new();
                ClientConnection::new(Arc::clone(tls), ServerName::try_from("localhost")?)?.write_tls(&mut hello)?;
                stream.write_all(&hello).await?;
            }
            let mut octets = [0; 4096];
            while stream.read(&mut octets).await? > 0 {}
            Ok(())
        }
        Kind::Handshakes | Kind::Unregistered => {
            let connection = timeout(PATIENCE, connect(source, site.address, tls)).await??;
            counts.done.fetch_add(1, Ordering::Relaxed);
            drop(connection);
            Ok(())
        }
        Kind::Resets | Kind::Continuations => {
            let connection = timeout(PATIENCE, connect(source, site.address, tls)).await??;
            let _held = Held::one(counts);
            counts.done.fetch_add(1, Ordering::Relaxed);
            let how = if kind == Kind::Resets { Misuse::RapidReset } else { Misuse::Continuations };
            let is_told = http2::misuse(connection, how).await?;
            counts.ended.fetch_add(1, Ordering::Relaxed);
            if is_told {
                counts.told.fetch_add(1, Ordering::Relaxed);
            }
            Ok(())
        }
        Kind::Heads | Kind::Bodies => {
            let mut connection = connect(source, site.address, tls).await?;
            let _held = Held::one(counts);
            counts.done.fetch_add(1, Ordering::Relaxed);
            let begin: &[u8] = match kind {
                Kind::Heads => b"POST /token HTTP/1.1\r\nhost: localhost\r\nx-",
                _ => {
                    b"POST /token HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/x-www-form-urlencoded\r\ncontent-length: 9000\r\n\r\n"
                }
            };
            connection.write_all(begin).await?;
            connection.flush().await?;
            let mut every = interval(Duration::from_secs(1));
            while !over.load(Ordering::Relaxed) {
                every.tick().await;
                connection.write_all(b"x").await?;
                connection.flush().await?;
            }
            Ok(())
        }
    }
}

/// What becomes of somebody who behaves: on kept connections, and on new ones.
async fn honest(site: &Arc<Site>, time: Duration) -> Result<(Answers, Answers), Failure> {
    let tls = site.enrolled(&[b"http/1.1"])?;
    let until = Instant::now() + time;
    let kept = (0..HONEST_CONNECTIONS).map(|at| {
        let (site, tls) = (Arc::clone(site), Arc::clone(&tls));
        tokio::spawn(async move {
            let (request, mut answers) = (token_request(), Answers::default());
            let every = Duration::from_secs(HONEST_CONNECTIONS) / u32::try_from(HONEST_RATE - HONEST_FRESH)?;
            let first = Instant::now() + every * u32::try_from(at)? / u32::try_from(HONEST_CONNECTIONS)?;
            let mut ticks = interval_at(first.into(), every);
            let mut connection = None;
            while Instant::now() < until {
                let scheduled = ticks.tick().await.into_std();
                let outcome = timeout(PATIENCE, async {
                    let mut open = match connection.take() {
                        Some(open) => open,
                        None => connect(HONEST, site.address, &tls).await?,
                    };
                    let status = ask(&mut open, &request).await?;
                    connection = Some(open);
                    Ok::<_, Failure>(status)
                });
                answers.add(scheduled, &outcome.await.unwrap_or_else(|_| Err("never".into())));
            }
            Ok::<_, Failure>(answers)
        })
    });
    let kept: Vec<_> = kept.collect();
    let mut ticks = interval(Duration::from_secs(1) / u32::try_from(HONEST_FRESH)?);
    let mut fresh = Vec::new();
    while Instant::now() < until {
        let scheduled = ticks.tick().await.into_std();
        let (site, tls) = (Arc::clone(site), Arc::clone(&tls));
        fresh.push(tokio::spawn(async move {
            let mut answers = Answers::default();
            let outcome = timeout(PATIENCE, async {
                let mut open = connect(HONEST, site.address, &tls).await?;
                ask(&mut open, &token_request()).await
            });
            answers.add(scheduled, &outcome.await.unwrap_or_else(|_| Err("never".into())));
            answers
        }));
    }
    let (mut on_kept, mut on_fresh) = (Answers::default(), Answers::default());
    for one in kept {
        on_kept.take(one.await??);
    }
    for one in fresh {
        on_fresh.take(one.await?);
    }
    Ok((on_kept, on_fresh))
}

fn quantiles(of: &mut [Duration]) -> String {
    of.sort_unstable();
    let quantile = |share: f64| {
        let place = (of.len().saturating_sub(1) as f64 * share) as usize;
        of.get(place).copied().unwrap_or_default()
    };
    format!("{:.1?} / {:.1?} / {:.1?}", quantile(0.5), quantile(0.99), quantile(1.0))
}
