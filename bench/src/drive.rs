//! A server that runs already: tokens at it, and what they cost it.
//!
//! Takes its address, its process id and one client's files, prints tokens per CPU second beside the signatures that this
//! machine makes in the same minute. The programme of `all` is about servers of its own; this is for one that is being
//! worked on.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use clap::Args;
use http_body_util::{BodyExt, Full};
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use rustls::client::Resumption;
use rustls::{ClientConfig, RootCertStore};
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

use crate::Failure;
use crate::floor::signatures_per_second;
use crate::machine::{self, Process};
use crate::session::Tickets;

/// Drives token requests at one server and reports what they cost it.
#[derive(Clone, Args)]
pub(crate) struct Arguments {
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
    /// A new connection for every token, with a session that is resumed where the last one left a ticket.
    #[arg(long, conflicts_with = "fresh")]
    resumed: bool,
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

/// Runs it and prints the figures.
///
/// # Errors
/// Whatever the server or this machine refuses.
#[tokio::main]
pub(crate) async fn run(arguments: Arguments) -> Result<(), Failure> {
    let server = Process(arguments.pid);
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
        server.memory(machine::RESIDENT)? / 1_024,
        server.memory(machine::PEAK)? / 1_024
    );
    Ok(())
}

async fn drive(arguments: &Arguments, tls: &Arc<ClientConfig>, time: Duration) -> Result<Round, Failure> {
    let cpu_before = Process(arguments.pid).cpu_time()?;
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
        server_cpu: Process(arguments.pid).cpu_time()?.saturating_sub(cpu_before),
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
        if !(arguments.fresh || arguments.resumed) {
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
    config.resumption = if arguments.resumed {
        let tickets = Arc::new(Tickets::default());
        tickets.use_them();
        Resumption::store(tickets)
    } else {
        Resumption::disabled()
    };
    Ok(config)
}
