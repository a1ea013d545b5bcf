//! A server that only signs and answers: mutual TLS, a JWT as long as ours, nothing looked up, nothing recorded.
//!
//! For orientation: what the libraries under the server cost by themselves (hyper, rustls, aws-lc-rs). It is the same program
//! as the benchmark, run as a process of its own so that its CPU time is counted alone.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;

use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::signature::EcdsaKeyPair;
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use bytes::Bytes;
use clap::Args;
use countersign::config::Config;
use http::{Request, Response};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use tokio::net::{TcpListener, TcpStream};
use tokio::runtime::Builder;
use tokio_rustls::TlsAcceptor;

use crate::Failure;
use crate::floor;
use crate::load::Target;
use crate::machine::free_address;
use crate::population::Population;
use crate::site::{Probe, Server};

/// Serves the bare server; the programme starts it.
#[derive(Args)]
pub(crate) struct Arguments {
    /// Where the population is.
    #[arg(long)]
    population: PathBuf,
    /// How many it is.
    #[arg(long)]
    size: u32,
    /// Where to listen.
    #[arg(long)]
    listen: SocketAddr,
}

/// Starts it beside the programme.
pub(crate) fn start(population: &Population, log: &Path) -> Result<(Server, Target), Failure> {
    let address = free_address()?;
    let mut command = Command::new(std::env::current_exe()?);
    command.arg("bare").arg("--population").arg(population.directory());
    command.args(["--size", &population.size().to_string(), "--listen", &address.to_string()]);
    let mut server = Server::start(command, log.to_owned(), Probe::Listens(address))?;
    server.ready()?;
    let target = Target {
        name: "bare",
        addresses: vec![address],
        processes: vec![server.process()],
        beside: None,
        path: "/token",
        parameters: "",
        renews_tickets: true,
    };
    Ok((server, target))
}

/// Serves until it is killed, with as many threads as the server has by default.
pub(crate) fn run(arguments: Arguments) -> Result<(), Failure> {
    let cores = std::thread::available_parallelism()?.get();
    let workers = Config::workers_beside(cores);
    Builder::new_multi_thread().worker_threads(workers).enable_all().build()?.block_on(serve(arguments))
}

async fn serve(arguments: Arguments) -> Result<(), Failure> {
    let population = Population::open(&arguments.population, arguments.size)?;
    let tls = TlsAcceptor::from(floor::settings_with_path(&population)?);
    let key = Arc::new(floor::new_signer()?);
    let listener = TcpListener::bind(arguments.listen).await?;
    loop {
        let (socket, _) = listener.accept().await?;
        let (tls, key) = (tls.clone(), Arc::clone(&key));
        // What a client does wrong ends its own connection.
        tokio::spawn(async move { answer_all(socket, tls, key).await.ok() });
    }
}

async fn answer_all(socket: TcpStream, tls: TlsAcceptor, key: Arc<EcdsaKeyPair>) -> Result<(), Failure> {
    socket.set_nodelay(true)?;
    let stream = tls.accept(socket).await?;
    let service = service_fn(move |request: Request<Incoming>| {
        let key = Arc::clone(&key);
        async move { Ok::<_, Infallible>(answer(request, &key).await) }
    });
    hyper::server::conn::http1::Builder::new().serve_connection(TokioIo::new(stream), service).await?;
    Ok(())
}

async fn answer(request: Request<Incoming>, key: &EcdsaKeyPair) -> Response<Full<Bytes>> {
    let refused = || {
        let mut response = Response::new(Full::default());
        *response.status_mut() = http::StatusCode::INTERNAL_SERVER_ERROR;
        response
    };
    if request.into_body().collect().await.is_err() {
        return refused();
    }
    let header = URL_SAFE_NO_PAD.encode(HEADER);
    let input = format!("{header}.{}", URL_SAFE_NO_PAD.encode([b'x'; CLAIMS_BYTES]));
    let Ok(signature) = key.sign(&SystemRandom::new(), input.as_bytes()) else { return refused() };
    let token = format!("{input}.{}", URL_SAFE_NO_PAD.encode(signature));
    let body = format!("{{\"access_token\":\"{token}\",\"token_type\":\"Bearer\",\"expires_in\":300}}");
    let mut response = Response::new(Full::from(body));
    response.headers_mut().insert("content-type", http::HeaderValue::from_static("application/json"));
    response
}

const HEADER: &str = r#"{"typ":"at+jwt","kid":"9h47DEQpj8HBSa-_TImW-5JCeuQeRkm5NMpJWZG3hQY","alg":"ES256"}"#;

/// As many as ours has of claims.
const CLAIMS_BYTES: usize = 480;
