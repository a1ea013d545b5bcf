//! Listeners, reload, graceful shutdown.
//!
//! Takes an [`App`], or any routes, gives a [`Running`] server that is told to stop by its caller. It knows nothing of
//! what the routes do.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum_server::{Handle, Server};
use countersign_resource_server::time::{Clock, UnixTime};
use hyper_util::rt::TokioTimer;
use metrics_exporter_prometheus::PrometheusHandle;
use tokio::net::{TcpListener, TcpSocket};
use tokio::sync::Notify;
use tokio::task::JoinHandle;

use crate::app::App;
use crate::config::{Config, Limits, Perimeter};
use crate::endpoint;
use crate::expiry::{Dated, Kind};
use crate::tls::{
    ClientCertificates, HandshakeObserver, PerimeterGuard, Permits, PlainAcceptor, ServerCertificate,
    ServerCertificateError, TlsAcceptor, server_config,
};

/// Serves `app` on every address its configuration names.
///
/// # Errors
/// [`StartError`]; then nothing is served.
pub async fn serve(app: &Arc<App>, metrics: PrometheusHandle) -> Result<Running, StartError> {
    let config = &app.config;
    let certificate = ServerCertificate::load(config.tls.clone(), config.host_names(), app.clock.now())?;
    app.expiry
        .also(Arc::new(OwnCertificate { node: config.node.as_str().to_owned(), certificate: certificate.clone() }));
    let site = Site {
        public: endpoint::router(Arc::clone(app)),
        operations: endpoint::operations(Arc::clone(app), metrics),
        certificate,
        observer: Arc::<App>::clone(app),
        perimeter: match config.perimeter {
            Perimeter::Json => None,
            Perimeter::Strict => Some(Arc::<App>::clone(app)),
        },
        clock: Arc::clone(&app.clock),
    };
    start(config, site).await
}

/// The certificate of this node, for the watch over what runs out.
#[derive(Debug)]
struct OwnCertificate {
    node: String,
    certificate: Arc<ServerCertificate>,
}

impl Dated for OwnCertificate {
    fn kind(&self) -> Kind {
        Kind::Server
    }

    fn ends(&self) -> Vec<(String, UnixTime)> {
        // RFC 5280 §4.1.2.5: `notAfter` names the last second.
        vec![(self.node.clone(), self.certificate.not_after().after(Duration::from_secs(1)))]
    }
}

/// What is served.
pub struct Site {
    /// The routes that strangers reach, over TLS.
    pub public: Router,
    /// The routes of the operations listener, over plain HTTP.
    pub operations: Router,
    /// The server's certificate.
    pub certificate: Arc<ServerCertificate>,
    /// Who is told of refused handshakes.
    pub observer: Arc<dyn HandshakeObserver>,
    /// Who is asked about certificates where the perimeter is strict.
    pub perimeter: Option<Arc<dyn PerimeterGuard>>,
    /// The time the certificate is judged by when its files change.
    pub clock: Arc<dyn Clock>,
}

/// Why the server did not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// An address cannot be listened on.
    #[error("{key} = \"{address}\": cannot listen there: {error}")]
    Listen {
        /// The key of the configuration.
        key: &'static str,
        /// The address.
        address: SocketAddr,
        /// Why.
        error: io::Error,
    },
    /// The server's certificate cannot be used.
    #[error("the server's certificate cannot be used: {0}")]
    Certificate(#[from] ServerCertificateError),
    /// TLS cannot be set up.
    #[error("TLS cannot be set up: {0}")]
    Tls(#[from] rustls::Error),
}

/// A server that listens until it is told to stop, or dropped.
#[derive(Debug)]
pub struct Running {
    addresses: Addresses,
    handles: Vec<Handle<SocketAddr>>,
    serving: Vec<JoinHandle<io::Result<()>>>,
    watching: JoinHandle<()>,
    reload: Arc<Notify>,
}

/// Where a server listens: with the ports it was given where the configuration says 0.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Addresses {
    /// TLS with client certificates.
    pub mtls: SocketAddr,
    /// TLS without, where configured.
    pub public: Option<SocketAddr>,
    /// Plain HTTP, for the operator.
    pub operations: SocketAddr,
}

/// Binds every address, then serves.
///
/// # Errors
/// [`StartError`]; then nothing is served.
pub async fn start(config: &Config, site: Site) -> Result<Running, StartError> {
    let limits = &bounded_by_files(&config.limits);
    let (mtls, mtls_address) = listen("listen", config.listen)?;
    let public = match &config.public {
        Some(face) => Some(listen("public.listen", face.listen)?),
        None => None,
    };
    let (operations, operations_address) = listen("operations.listen", config.operations)?;
    let addresses =
        Addresses { mtls: mtls_address, public: public.as_ref().map(|(_, at)| *at), operations: operations_address };

    let permits = Permits::new(limits);
    let mut handles = Vec::new();
    let mut serving = Vec::new();
    let acceptor = |client_certificates, perimeter| {
        let tls = server_config(site.certificate.clone(), client_certificates)?;
        Ok::<_, rustls::Error>(TlsAcceptor::new(tls, limits, permits.clone(), site.observer.clone(), perimeter))
    };
    let mut serve_tls = |listener, acceptor| {
        let handle = Handle::new();
        let mut server = Server::from_listener(listener).acceptor(acceptor).handle(handle.clone());
        bound_http(server.http_builder(), limits);
        handles.push(handle);
        serving.push(tokio::spawn(server.serve(site.public.clone().into_make_service())));
    };
    let mtls_acceptor = acceptor(ClientCertificates::Asked, site.perimeter.clone())?;
    if let Some((listener, _)) = public {
        serve_tls(listener, acceptor(ClientCertificates::NotAsked, None)?);
    }
    serve_tls(mtls, mtls_acceptor);

    let handle = Handle::new();
    let mut server =
        Server::from_listener(operations).acceptor(PlainAcceptor::new(limits)).handle(handle.clone()).http1_only();
    bound_http(server.http_builder(), limits);
    handles.push(handle);
    serving.push(tokio::spawn(server.serve(site.operations.into_make_service())));

    let reload = Arc::new(Notify::new());
    let watching = tokio::spawn(site.certificate.watch(site.clock, reload.clone()));
    Ok(Running { addresses, handles, serving, watching, reload })
}

impl Running {
    /// Where it listens.
    pub const fn addresses(&self) -> Addresses {
        self.addresses
    }

    /// Notified, it looks at the files of the server's certificate at once.
    pub fn reload(&self) -> Arc<Notify> {
        self.reload.clone()
    }

    /// Stops listening at once, gives requests under way `drain`, then closes every connection.
    pub async fn stop(mut self, drain: Duration) {
        for handle in &self.handles {
            handle.graceful_shutdown(Some(drain));
        }
        for serving in std::mem::take(&mut self.serving) {
            match serving.await {
                Ok(Ok(())) => {}
                Ok(Err(error)) => tracing::error!(%error, "a listener ended with an error"),
                Err(error) => tracing::error!(%error, "a listener's task failed"),
            }
        }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.watching.abort();
        for handle in &self.handles {
            handle.shutdown();
        }
    }
}

fn listen(key: &'static str, address: SocketAddr) -> Result<(TcpListener, SocketAddr), StartError> {
    let bound = || {
        let socket = if address.is_ipv4() { TcpSocket::new_v4() } else { TcpSocket::new_v6() }?;
        socket.set_reuseaddr(true)?; // as TcpListener::bind does: a restart does not wait for connections of before
        socket.bind(address)?;
        let listener = socket.listen(BACKLOG)?;
        let bound = listener.local_addr()?;
        Ok((listener, bound))
    };
    bound().map_err(|error| StartError::Listen { key, address, error })
}

/// Connections that wait to be accepted: as many as the system allows by default. Beyond that a peer's first packet is dropped,
/// and it comes again after a second: in a flood of connections that second is the honest client's.
const BACKLOG: u32 = 4_096;

/// Fewer connections, where the process may not open as many files: an accept that fails for want of a descriptor would
/// hit the store and the audit log as well.
fn bounded_by_files(limits: &Limits) -> Limits {
    let table = std::fs::read_to_string("/proc/self/limits").unwrap_or_default();
    let most = open_files(&table).map_or(usize::MAX, |files| files.saturating_sub(OTHER_FILES).max(1));
    if most < limits.connections {
        tracing::warn!(
            limits.connections = limits.connections,
            connections = most,
            "fewer connections than configured: the process may not open more files (ulimit -n)"
        );
    }
    Limits { connections: limits.connections.min(most), ..limits.clone() }
}

/// Descriptors for everything that is no stranger's connection: the store, keys, listeners, the operator.
const OTHER_FILES: usize = 128;

/// The soft limit of open files out of Linux' `/proc/self/limits`; none where there is none.
fn open_files(table: &str) -> Option<usize> {
    table.lines().find_map(|line| line.strip_prefix("Max open files")?.split_whitespace().next()?.parse().ok())
}

/// The limits hyper has knobs for. Its own deadlines stay off: `tls/connection.rs` holds them for both versions.
fn bound_http(builder: &mut hyper_util::server::conn::auto::Builder<hyper_util::rt::TokioExecutor>, limits: &Limits) {
    let head_bytes = u32::try_from(limits.request_head_bytes).unwrap_or(u32::MAX);
    builder
        .http1()
        .timer(TokioTimer::new())
        .header_read_timeout(None)
        .max_buf_size(limits.request_head_bytes)
        .max_headers(64)
        .http2()
        .max_header_list_size(head_bytes)
        .max_concurrent_streams(limits.http2_streams)
        // RFC 9113 §10.5: a peer that makes this side reset streams (CVE-2023-44487, CVE-2025-8671) gets a GOAWAY.
        .max_local_error_reset_streams(limits.http2_local_resets)
        .max_pending_accept_reset_streams(20)
        // What a peer may have sent that nobody has read is bounded by them: bodies are read as they come.
        .initial_stream_window_size(32 * 1024)
        .initial_connection_window_size(64 * 1024)
        .max_send_buf_size(16 * 1024);
}

/// What the tests of listeners and handshakes have served.
#[cfg(test)]
pub(crate) mod served {
    use std::sync::Arc;
    use std::time::Duration;

    use axum::body::Bytes;
    use axum::routing::{get, post};
    use axum::{Extension, Router};

    use crate::pki::PresentedChain;

    /// `GET /` answers with what the connection is; `POST /slow` after 50 ms with what it was sent.
    pub(crate) fn router() -> Router {
        Router::new().route("/", get(who)).route("/slow", post(slow))
    }

    async fn who(Extension(peer): Extension<Arc<PresentedChain>>) -> String {
        let thumbprint = peer.thumbprint().map(ToString::to_string).unwrap_or_default();
        format!("{} resumed={} {thumbprint}", peer.handshake.protocol, peer.handshake.resumed)
    }

    async fn slow(body: Bytes) -> Bytes {
        tokio::time::sleep(Duration::from_millis(50)).await;
        body
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_limit_of_open_files_is_read_or_absent() {
        let table = "Limit                     Soft Limit           Hard Limit           Units     \n\
                     Max processes             127                  127                  processes \n\
                     Max open files            1024                 1048576              files     \n";
        assert_eq!(open_files(table), Some(1024));
        assert_eq!(open_files(&table.replace("1024 ", "unlimited ")), None);
        assert_eq!(open_files(""), None);
    }
}
