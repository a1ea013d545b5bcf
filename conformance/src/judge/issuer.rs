//! The issuer that the judge plays, and the trap.
//!
//! The issuer serves metadata and keys over TLS for an API that trusts it (`[forged]`). The trap is an address that stands in
//! `jku` and the like: whoever connects to it followed what a stranger wrote.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use http_body_util::Full;
use hyper::body::{Bytes, Incoming};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;
use tokio_rustls::TlsAcceptor;

use super::certificate::Identity;
use super::target::Forged;
use crate::key::{Key, KeyKind};
use crate::pki::{Credential, Name, Template};
use crate::well_known;

/// How long a peer may take to ask.
const PATIENCE: Duration = Duration::from_secs(5);

/// The judge's own keys, fresh for each run.
#[derive(Debug)]
pub(crate) struct Keys {
    /// Published by the issuer that the judge plays: ES256.
    pub(crate) forged: Identity,
    /// Published by it too: PS256.
    pub(crate) forged_rsa: Identity,
    /// Known to nobody.
    pub(crate) stranger: Identity,
    /// A certificate of the stranger's key that it signed itself.
    pub(crate) certificate: Vec<u8>,
}

/// Made once in a process: it takes longer than all the other keys of a run together.
static RSA: OnceLock<Arc<Key>> = OnceLock::new();

impl Keys {
    pub(crate) fn generate(now: i64) -> Self {
        let stranger =
            Credential::self_signed(&Template::client(Name::common("stranger.judge.invalid"), now), KeyKind::P256);
        let certificate = stranger.certificate().to_vec();
        Self {
            forged: identity(Key::generate(KeyKind::P256).into()),
            forged_rsa: identity(Arc::clone(RSA.get_or_init(|| Key::generate(KeyKind::Rsa2048).into()))),
            stranger: identity(stranger.key),
            certificate,
        }
    }

    /// The issuer's JWK set (RFC 7517 §5).
    fn published(&self) -> Value {
        json!({ "keys": [public(&self.forged), public(&self.forged_rsa)] })
    }
}

fn identity(key: Arc<Key>) -> Identity {
    let algorithm = key.jws_algorithm().unwrap_or(crate::JwsAlgorithm::Es256);
    Identity { kid: key.jwk_thumbprint(), alg: algorithm.as_str().to_owned(), algorithm, key }
}

fn public(identity: &Identity) -> Value {
    let mut jwk = identity.key.jwk();
    jwk["kid"] = identity.kid.as_str().into();
    jwk["alg"] = identity.alg.as_str().into();
    jwk["use"] = "sig".into();
    jwk
}

/// Begins to serve the issuer.
///
/// # Errors
/// In words, where the address is taken or the certificate cannot be used.
pub(crate) async fn serve(forged: &Forged, keys: &Keys) -> Result<(), String> {
    let listener =
        TcpListener::bind(forged.listen).await.map_err(|error| format!("forged.listen {}: {error}", forged.listen))?;
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let config = rustls::ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .and_then(|builder| {
            builder.with_no_client_auth().with_single_cert(forged.chain.clone(), forged.key.clone_key())
        })
        .map_err(|error| format!("forged.certificate: {error}"))?;
    let acceptor = TlsAcceptor::from(Arc::new(config));
    let issuer = forged.issuer.trim_end_matches('/');
    let metadata = json!({
        "issuer": forged.issuer,
        "token_endpoint": format!("{issuer}/token"),
        "jwks_uri": format!("{issuer}/jwks"),
        "response_types_supported": [],
        "grant_types_supported": ["client_credentials"],
        "token_endpoint_auth_methods_supported": ["tls_client_auth"],
        "tls_client_certificate_bound_access_tokens": true,
    });
    let path = |url: &str| super::wire::Address::parse(url).map(|address| address.path).unwrap_or_default();
    let documents = Arc::new([
        (path(&well_known::url(issuer, "oauth-authorization-server")), metadata.to_string()),
        (path(&format!("{issuer}/.well-known/openid-configuration")), metadata.to_string()),
        (path(&format!("{issuer}/jwks")), keys.published().to_string()),
    ]);
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let (acceptor, documents) = (acceptor.clone(), Arc::clone(&documents));
            tokio::spawn(async move {
                let Ok(Ok(stream)) = tokio::time::timeout(PATIENCE, acceptor.accept(stream)).await else { return };
                let service = service_fn(move |request| {
                    let answer = document(&request, &documents[..]);
                    async move { answer }
                });
                // A peer that leaves early is no matter of ours.
                let _ended = http1::Builder::new()
                    .timer(TokioTimer::new())
                    .header_read_timeout(PATIENCE)
                    .serve_connection(TokioIo::new(stream), service)
                    .await;
            });
        }
    });
    Ok(())
}

fn document(
    request: &hyper::Request<Incoming>,
    documents: &[(String, String)],
) -> Result<hyper::Response<Full<Bytes>>, hyper::http::Error> {
    let found = documents.iter().find(|(path, _)| path == request.uri().path());
    let (status, body) = found.map_or((404, "{}".to_owned()), |(_, body)| (200, body.clone()));
    hyper::Response::builder()
        .status(status)
        .header("content-type", "application/json")
        .body(Full::new(Bytes::from(body)))
}

/// An address to which nobody has a reason to connect.
#[derive(Debug)]
pub(crate) struct Trap {
    address: SocketAddr,
    touched: Arc<AtomicUsize>,
}

impl Trap {
    /// Sets it up on a port of loopback. Whoever comes and asks in plain HTTP is given the stranger's key.
    pub(crate) async fn set(keys: &Keys) -> Result<Self, String> {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await.map_err(|error| format!("the trap: {error}"))?;
        let address = listener.local_addr().map_err(|error| format!("the trap: {error}"))?;
        let touched = Arc::new(AtomicUsize::new(0));
        let count = Arc::clone(&touched);
        let body = json!({ "keys": [public(&keys.stranger)] }).to_string();
        let answer = format!(
            "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: {}\r\nconnection: close\r\n\r\n{body}",
            body.len()
        );
        tokio::spawn(async move {
            while let Ok((mut stream, _)) = listener.accept().await {
                count.fetch_add(1, Ordering::SeqCst);
                let answer = answer.clone();
                tokio::spawn(async move {
                    let mut asked = [0; 1_024];
                    if let Ok(Ok(1..)) = tokio::time::timeout(PATIENCE, stream.read(&mut asked)).await {
                        // That somebody came is all that counts.
                        let _gone = stream.write_all(answer.as_bytes()).await;
                    }
                });
            }
        });
        Ok(Self { address, touched })
    }

    pub(crate) const fn address(&self) -> SocketAddr {
        self.address
    }

    /// How often somebody connected so far.
    pub(crate) fn touched(&self) -> usize {
        self.touched.load(Ordering::SeqCst)
    }
}
