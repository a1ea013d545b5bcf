//! Measures a running authorization server from outside: what a token costs it in CPU time (by the operating system's
//! own accounting), how long a client waits, how much memory it holds, and beside it what the signatures alone cost on
//! this machine in the same minute, so that every figure is also a ratio.

#![expect(clippy::print_stdout, reason = "the figures are this program's output")]
#![expect(clippy::disallowed_methods, reason = "a benchmark reads clocks")]

use std::error::Error;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair};
use bytes::Bytes;
use clap::Parser;
use http_body_util::{BodyExt, Full};
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use rustls::client::Resumption;
use rustls::{ClientConfig, RootCertStore};
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

type Failure = Box<dyn Error + Send + Sync>;

/// Drives token requests at one server and reports what they cost it.
#[derive(Clone, Parser)]
struct Arguments {
    /// host:port of the token endpoint.
    #[arg(long, default_value = "localhost:8443")]
    address: String,
    /// Path of the token endpoint.
    #[arg(long, default_value = "/token")]
    path: String,
    /// PEM of the authority that issued the server's certificate.
    #[arg(long)]
    ca: PathBuf,
    /// PEM of the client's certificate.
    #[arg(long)]
    certificate: PathBuf,
    /// PEM of the client's key.
    #[arg(long)]
    key: PathBuf,
    /// The client's id.
    #[arg(long)]
    client_id: String,
    /// Process id of the server: its CPU time and memory are read from /proc.
    #[arg(long)]
    pid: u32,
    /// Connections kept busy at once.
    #[arg(long, default_value_t = 16)]
    connections: usize,
    /// How long each measurement lasts, in seconds.
    #[arg(long, default_value_t = 5)]
    seconds: u64,
    /// Measurements; the median is reported.
    #[arg(long, default_value_t = 3)]
    rounds: usize,
    /// A new connection, with a full handshake, for every token.
    #[arg(long)]
    fresh: bool,
}

struct Round {
    tokens: usize,
    wall: Duration,
    server_cpu: Duration,
    latencies: Vec<Duration>,
}

impl Round {
    fn tokens_per_cpu_second(&self) -> f64 {
        self.tokens as f64 / self.server_cpu.as_secs_f64()
    }
}

#[tokio::main]
async fn main() -> Result<(), Failure> {
    let arguments = Arguments::parse();
    let tls = Arc::new(client_config(&arguments)?);
    let floor_before = signatures_per_second()?;
    drive(&arguments, &tls, Duration::from_millis(500)).await?;
    let mut rounds = Vec::new();
    for _ in 0..arguments.rounds {
        rounds.push(drive(&arguments, &tls, Duration::from_secs(arguments.seconds)).await?);
    }
    let floor = f64::midpoint(floor_before, signatures_per_second()?);
    rounds.sort_by(|one, other| one.tokens_per_cpu_second().total_cmp(&other.tokens_per_cpu_second()));
    let Some(median) = rounds.get_mut(arguments.rounds / 2) else { return Err("no rounds".into()) };
    median.latencies.sort_unstable();
    let quantile = |share: f64| {
        let last = median.latencies.len().saturating_sub(1);
        median.latencies.get((last as f64 * share) as usize).copied().unwrap_or_default()
    };
    println!("tokens                        {}", median.tokens);
    println!("tokens per wall second        {:.0}", median.tokens as f64 / median.wall.as_secs_f64());
    println!("server CPU per 1,000 tokens   {:.1} ms", median.server_cpu.as_secs_f64() * 1e6 / median.tokens as f64);
    println!("tokens per server CPU second  {:.0}", median.tokens_per_cpu_second());
    println!("ES256 signatures a core       {floor:.0} per second");
    println!("share of that floor           {:.3}", median.tokens_per_cpu_second() / floor);
    println!("latency p50 / p99 / p99.9     {:?} / {:?} / {:?}", quantile(0.5), quantile(0.99), quantile(0.999));
    println!(
        "server memory now / peak      {} / {} kB",
        memory(arguments.pid, "VmRSS")?,
        memory(arguments.pid, "VmHWM")?
    );
    Ok(())
}

async fn drive(arguments: &Arguments, tls: &Arc<ClientConfig>, time: Duration) -> Result<Round, Failure> {
    let cpu_before = cpu_time(arguments.pid)?;
    let start = Instant::now();
    let workers: Vec<_> = (0..arguments.connections)
        .map(|_| tokio::spawn(worker(arguments.clone(), Arc::clone(tls), start + time)))
        .collect();
    let mut latencies = Vec::new();
    for worker in workers {
        latencies.extend(worker.await??);
    }
    Ok(Round {
        tokens: latencies.len(),
        wall: start.elapsed(),
        server_cpu: cpu_time(arguments.pid)?.saturating_sub(cpu_before),
        latencies,
    })
}

async fn worker(arguments: Arguments, tls: Arc<ClientConfig>, until: Instant) -> Result<Vec<Duration>, Failure> {
    let body = Bytes::from(format!("grant_type=client_credentials&client_id={}", arguments.client_id));
    let mut latencies = Vec::new();
    let mut connection = None;
    while Instant::now() < until {
        let start = Instant::now();
        let mut sender = match connection.take() {
            Some(sender) => sender,
            None => connect(&arguments, &tls).await?,
        };
        let request = http::Request::post(&arguments.path)
            .header("host", &arguments.address)
            .header("content-type", "application/x-www-form-urlencoded")
            .body(Full::new(body.clone()))?;
        let response = sender.send_request(request).await?;
        let status = response.status();
        let answer = response.into_body().collect().await?.to_bytes();
        if status != http::StatusCode::OK {
            return Err(format!("{status}: {}", String::from_utf8_lossy(&answer)).into());
        }
        latencies.push(start.elapsed());
        if !arguments.fresh {
            connection = Some(sender);
        }
    }
    Ok(latencies)
}

async fn connect(arguments: &Arguments, tls: &Arc<ClientConfig>) -> Result<http1::SendRequest<Full<Bytes>>, Failure> {
    let host = arguments.address.rsplit_once(':').map_or(arguments.address.as_str(), |(host, _)| host);
    let socket = TcpStream::connect(&arguments.address).await?;
    socket.set_nodelay(true)?;
    let stream = TlsConnector::from(Arc::clone(tls)).connect(ServerName::try_from(host.to_owned())?, socket).await?;
    let (sender, connection) = http1::handshake(TokioIo::new(stream)).await?;
    tokio::spawn(connection);
    Ok(sender)
}

fn client_config(arguments: &Arguments) -> Result<ClientConfig, Failure> {
    let mut roots = RootCertStore::empty();
    for root in CertificateDer::pem_file_iter(&arguments.ca)? {
        roots.add(root?)?;
    }
    let chain = CertificateDer::pem_file_iter(&arguments.certificate)?.collect::<Result<Vec<_>, _>>()?;
    let key = PrivateKeyDer::from_pem_file(&arguments.key)?;
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let mut config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()?
        .with_root_certificates(roots)
        .with_client_auth_cert(chain, key)?;
    config.resumption = Resumption::disabled();
    Ok(config)
}

/// What one core does when it does nothing else.
fn signatures_per_second() -> Result<f64, Failure> {
    let random = SystemRandom::new();
    let document = EcdsaKeyPair::generate_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, &random)?;
    let key = EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, document.as_ref())?;
    let message = [0x5a_u8; 700];
    let start = Instant::now();
    let mut count = 0_u32;
    while start.elapsed() < Duration::from_secs(1) {
        for _ in 0..100 {
            key.sign(&random, &message)?;
        }
        count += 100;
    }
    Ok(f64::from(count) / start.elapsed().as_secs_f64())
}

/// User and system time of a process and its threads (proc(5), fields 14 and 15 of `stat`, in ticks of 10 ms).
fn cpu_time(pid: u32) -> Result<Duration, Failure> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat"))?;
    let after_name = stat.rsplit_once(") ").ok_or("unreadable /proc/PID/stat")?.1;
    let mut fields = after_name.split(' ').skip(11);
    let mut ticks = || -> Result<u64, Failure> { Ok(fields.next().ok_or("unreadable /proc/PID/stat")?.parse()?) };
    Ok(Duration::from_millis((ticks()? + ticks()?) * 10))
}

fn memory(pid: u32, field: &str) -> Result<String, Failure> {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status"))?;
    let line = status.lines().find(|line| line.starts_with(field)).ok_or("unreadable /proc/PID/status")?;
    Ok(line.trim_start_matches(field).trim_matches([':', ' ', '\t']).trim_end_matches(" kB").to_owned())
}
