//! What others publish over HTTPS: a server with a certificate of an authority that stands for the public ones, and a
//! server under test that believes it.
//!
//! Takes a certificate and what is to be said, gives an address and how often it was asked. It knows nothing of what is
//! published.

use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use countersign_conformance::KeyKind;
use countersign_conformance::pki::{Authority, Credential, Template};
use rustls::ServerConfig;
use rustls::pki_types::{CertificateDer, PrivatePkcs8KeyDer};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;
use tokio_rustls::TlsAcceptor;

use crate::rig::{Engine, Rig, Time};

/// What the server answers: a status line and headers, then the body.
type Said = Arc<Mutex<(String, Vec<u8>)>>;

/// An HTTPS server that says the same thing to everybody.
pub(crate) struct HttpsServer {
    address: SocketAddr,
    said: Said,
    /// How many have connected.
    pub(crate) reached: Arc<AtomicUsize>,
    /// How many of them have asked for something.
    pub(crate) asked: Arc<AtomicUsize>,
}

impl HttpsServer {
    /// With this certificate; it says 200 and `body` until told otherwise.
    pub(crate) async fn start(credential: &Credential, body: impl AsRef<[u8]>) -> Self {
        let chain = credential.chain.iter().map(|der| CertificateDer::from(der.clone())).collect();
        let key = PrivatePkcs8KeyDer::from(credential.key.pkcs8().to_vec()).into();
        let config = ServerConfig::builder_with_provider(Arc::new(rustls::crypto::aws_lc_rs::default_provider()))
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(chain, key)
            .unwrap();
        let acceptor = TlsAcceptor::from(Arc::new(config));
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        let address = listener.local_addr().unwrap();
        let said: Said = Arc::new(Mutex::new(("200 OK".to_owned(), body.as_ref().to_vec())));
        let (reached, asked) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
        let (words, connections, requests) = (Arc::clone(&said), Arc::clone(&reached), Arc::clone(&asked));
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                connections.fetch_add(1, Ordering::SeqCst);
                let (acceptor, words, requests) = (acceptor.clone(), Arc::clone(&words), Arc::clone(&requests));
                tokio::spawn(async move {
                    let mut stream = acceptor.accept(stream).await.ok()?;
                    let mut head = Vec::new();
                    while !head.ends_with(b"\r\n\r\n") {
                        head.push(stream.read_u8().await.ok()?);
                    }
                    requests.fetch_add(1, Ordering::SeqCst);
                    let (status, body) = words.lock().unwrap().clone();
                    let answer =
                        format!("HTTP/1.1 {status}\r\ncontent-length: {}\r\nconnection: close\r\n\r\n", body.len());
                    stream.write_all(&[answer.as_bytes(), &body].concat()).await.ok()?;
                    stream.shutdown().await.ok()
                });
            }
        });
        Self { address, said, reached, asked }
    }

    /// From now on.
    pub(crate) fn says(&self, status: &str, body: impl AsRef<[u8]>) {
        *self.said.lock().unwrap() = (status.to_owned(), body.as_ref().to_vec());
    }

    /// Where that is under this name.
    pub(crate) fn url(&self, name: &str) -> String {
        format!("https://localhost:{}/{name}", self.address.port())
    }
}

/// A server that believes HTTPS servers of this authority.
pub(crate) async fn rig_believing(engine: &Engine, time: Time, web: &Authority) -> (Rig, tempfile::TempDir) {
    let directory = tempfile::tempdir().unwrap();
    let roots: PathBuf = directory.path().join("roots.pem");
    std::fs::write(&roots, web.to_pem()).unwrap();
    let rig = Rig::configured(engine, time, |config| config.fetch_roots = Some(roots)).await;
    (rig, directory)
}

/// Now, as whoever checks a web server's certificate reads the clock.
pub(crate) fn seconds() -> i64 {
    use countersign_resource_server::time::{Clock, SystemClock};
    SystemClock::new().now().as_seconds()
}

/// Whom [`rig_believing`] is to believe.
pub(crate) fn web_authority() -> Authority {
    Authority::root("A public CA", seconds())
}

/// A server of the name that this machine has for itself.
pub(crate) fn web_server(web: &Authority) -> Credential {
    web.issue(&Template::server(&["localhost"], seconds()), KeyKind::P256)
}
