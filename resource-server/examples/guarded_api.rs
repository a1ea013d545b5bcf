//! An API that is called with certificate-bound access tokens: `GET /accounts` needs the scope `accounts:read`, and
//! answers who called.
//!
//! `cargo run -p countersign-resource-server --example guarded_api -- ISSUER CERTIFICATE KEY ROOTS` serves it on
//! <https://localhost:8444>, which is also its resource identifier; `… ROOTS LISTEN RESOURCE` elsewhere and by another name.
//! `countersign quickstart` serves this very file.

use std::future::Future;
use std::io::{self, IsTerminal};
use std::net::{SocketAddr, TcpListener};
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::http::header::CONTENT_TYPE;
use axum::response::IntoResponse;
use axum::routing::get;
use countersign_resource_server::{AuthorizedCall, Guard, PeerAcceptor, peer};
use hyper_util::rt::TokioTimer;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio::sync::oneshot;

/// What the API has to be told.
#[derive(Debug)]
pub struct Settings {
    /// Where to listen.
    pub listen: SocketAddr,
    /// The authorization server.
    pub issuer: String,
    /// This API's name: the audience of its tokens.
    pub resource: String,
    /// Its own certificate and the chain above it, in PEM.
    pub certificate_pem: Vec<u8>,
    /// The private key of that certificate, in PEM.
    pub key_pem: Vec<u8>,
    /// What the authorization server's certificate leads to, in PEM.
    pub roots_pem: Vec<u8>,
}

impl Settings {
    /// Reads what the command line says.
    ///
    /// # Errors
    /// If it says too much or too little, or names a file that cannot be read.
    pub fn from_arguments(mut arguments: Vec<String>) -> io::Result<Self> {
        const USAGE: &str = "usage: ISSUER CERTIFICATE.pem KEY.pem ROOTS.pem [LISTEN RESOURCE]";
        let wrong = || io::Error::new(io::ErrorKind::InvalidInput, USAGE);
        if arguments.len() == 4 {
            arguments.extend(["127.0.0.1:8444".to_owned(), "https://localhost:8444".to_owned()]);
        }
        let [issuer, certificate, key, roots, listen, resource] = arguments.try_into().map_err(|_| wrong())?;
        Ok(Self {
            listen: listen.parse().map_err(|_| wrong())?,
            issuer,
            resource,
            certificate_pem: std::fs::read(certificate)?,
            key_pem: std::fs::read(key)?,
            roots_pem: std::fs::read(roots)?,
        })
    }
}

/// The routes: one behind the guard, and the metadata that tells clients where tokens come from.
///
/// # Errors
/// If the scope is none.
pub fn routes(guard: &Guard) -> io::Result<Router> {
    let accounts = get(accounts).layer(guard.require("accounts:read").map_err(io::Error::other)?);
    Ok(Router::new().route("/accounts", accounts).merge(guard.metadata_route()))
}

async fn accounts(call: AuthorizedCall) -> impl IntoResponse {
    let body = serde_json::json!({
        "client_id": call.client_id(),
        "participant_id": call.participant_id(),
        "scope": call.scope(),
        "certificate": call.certificate_thumbprint(),
        "accounts": ["DE02120300000000202051", "DE02500105170137075030"],
    });
    ([(CONTENT_TYPE, "application/json")], body.to_string())
}

/// Serves the API until `shutdown` is done, and tells `ready` where and through which guard.
///
/// # Errors
/// If the settings cannot be used or the address is taken.
pub async fn serve(
    settings: Settings,
    ready: oneshot::Sender<(SocketAddr, Guard)>,
    shutdown: impl Future<Output = ()> + Send + 'static,
) -> io::Result<()> {
    let guard = Guard::builder(settings.issuer.clone(), settings.resource.clone())
        .scopes_supported(["accounts:read"])
        .roots_pem(&settings.roots_pem)
        .and_then(countersign_resource_server::GuardBuilder::start)
        .map_err(io::Error::other)?;
    serve_behind(guard, settings, ready, shutdown).await
}

/// Serves the API behind this guard, whichever issuer it trusts.
///
/// # Errors
/// As [`serve`].
pub async fn serve_behind(
    guard: Guard,
    settings: Settings,
    ready: oneshot::Sender<(SocketAddr, Guard)>,
    shutdown: impl Future<Output = ()> + Send + 'static,
) -> io::Result<()> {
    let chain = CertificateDer::pem_slice_iter(&settings.certificate_pem)
        .collect::<Result<_, _>>()
        .map_err(io::Error::other)?;
    let key = PrivateKeyDer::from_pem_slice(&settings.key_pem).map_err(io::Error::other)?;
    let tls = peer::server_config(chain, key).map_err(io::Error::other)?;

    let listener = TcpListener::bind(settings.listen)?;
    listener.set_nonblocking(true)?;
    let address = listener.local_addr()?;

    let handle = axum_server::Handle::new();
    let stopping = handle.clone();
    tokio::spawn(async move {
        shutdown.await;
        stopping.graceful_shutdown(Some(Duration::from_secs(5)));
    });
    let app = routes(&guard)?;
    // Whoever waits may have gone; the API is served all the same.
    let _told = ready.send((address, guard));
    let mut server = axum_server::from_tcp(listener)?.acceptor(PeerAcceptor::new(Arc::new(tls))).handle(handle);
    // A caller that never finishes its request head is not waited for.
    server.http_builder().http1().timer(TokioTimer::new()).header_read_timeout(Duration::from_secs(10));
    server.serve(app.into_make_service()).await
}

#[tokio::main]
async fn main() -> io::Result<()> {
    let settings = Settings::from_arguments(std::env::args().skip(1).collect())?;
    tracing_subscriber::fmt().with_writer(io::stderr).with_ansi(io::stderr().is_terminal()).init();
    let (ready, serving) = oneshot::channel::<(SocketAddr, Guard)>();
    tokio::spawn(async move {
        let Ok((address, guard)) = serving.await else { return };
        tracing::info!(%address, "listening: calls are answered 503 until keys and revocation list are here");
        while !guard.is_ready() {
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        tracing::info!("ready: GET /accounts needs a token with the scope accounts:read");
    });
    serve(settings, ready, async {
        // Without a way to hear Ctrl-C the API stops at once rather than never.
        let _pressed = tokio::signal::ctrl_c().await;
    })
    .await
}

// Where this file is a module of another program, its `main` and the command line are spare.
const _: fn() -> io::Result<()> = main;
const _: fn(Vec<String>) -> io::Result<Settings> = Settings::from_arguments;
