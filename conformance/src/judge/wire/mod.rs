//! One request on one connection of its own, and what came back.
//!
//! Takes a [`Request`] and the certificate of the connection, gives an [`Answer`]. It tells a refusal (the peer ended it) from
//! trouble (nobody is there), and bounds what a hostile target can make it wait for or hold. It knows nothing of cases.

/// A ClientHello written octet by octet.
pub(crate) mod hello;

use std::sync::Arc;
use std::time::Duration;

use http_body_util::{BodyExt, Full, Limited};
use hyper::body::Bytes;
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use rustls::client::{ClientConfig, ResolvesClientCert, Resumption};
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::sign::CertifiedKey;
use rustls::{RootCertStore, SignatureScheme};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use super::certificate::Party;

/// How long a connection may take.
const CONNECT: Duration = Duration::from_secs(10);

/// What a target may make the judge wait for and hold.
#[derive(Clone, Copy, Debug)]
struct Limits {
    /// For the handshake.
    handshake: Duration,
    /// For the whole answer after it.
    answer: Duration,
    head_bytes: usize,
    body_bytes: usize,
}

const LIMITS: Limits = Limits {
    handshake: Duration::from_secs(10),
    answer: Duration::from_secs(15),
    head_bytes: 64 * 1_024,
    body_bytes: 256 * 1_024,
};

/// Where a request goes: an https URL taken apart.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Address {
    pub(crate) host: String,
    pub(crate) port: u16,
    /// Path and query.
    pub(crate) path: String,
}

impl Address {
    /// Nothing for what is not an https URL.
    pub(crate) fn parse(url: &str) -> Option<Self> {
        let uri: hyper::Uri = url.parse().ok()?;
        if uri.scheme_str() != Some("https") || url.contains('#') {
            return None;
        }
        Some(Self {
            host: uri.host()?.to_owned(),
            port: uri.port_u16().unwrap_or(443),
            path: uri.path_and_query().map_or("/", |path| path.as_str()).to_owned(),
        })
    }

    /// The host as it stands in `Host` (RFC 9110 §7.2).
    fn authority(&self) -> String {
        if self.port == 443 { self.host.clone() } else { format!("{}:{}", self.host, self.port) }
    }

    pub(crate) async fn connect(&self) -> Result<TcpStream, String> {
        let host = self.host.trim_start_matches('[').trim_end_matches(']');
        let connecting = TcpStream::connect((host, self.port));
        match tokio::time::timeout(CONNECT, connecting).await {
            Ok(Ok(stream)) => Ok(stream),
            Ok(Err(error)) => Err(format!("no connection to {host}:{}: {error}", self.port)),
            Err(_) => Err(format!("no connection to {host}:{} within {CONNECT:?}", self.port)),
        }
    }
}

/// What is sent.
#[derive(Clone, Debug)]
pub(crate) struct Request {
    pub(crate) method: String,
    pub(crate) url: String,
    pub(crate) headers: Vec<(String, String)>,
    pub(crate) body: Option<String>,
}

/// What came back.
#[derive(Clone, Debug)]
pub(crate) enum Answer {
    /// A response.
    Response(Response),
    /// A ServerHello, or an alert in place of one.
    Hello(hello::Heard),
    /// The peer ended it before any response: during the handshake, or with an alert or a close straight after.
    Refused(String),
    /// It took too long, or what came was not HTTP, or too much of it.
    Unfit(String),
}

/// A response, headers in their order.
#[derive(Clone, Debug, Default)]
pub(crate) struct Response {
    pub(crate) status: u16,
    pub(crate) headers: Vec<(String, String)>,
    pub(crate) body: String,
}

impl Response {
    /// The values of a field, in order, joined as RFC 9110 §5.3 allows.
    pub(crate) fn header(&self, name: &str) -> Option<String> {
        let values: Vec<&str> = self
            .headers
            .iter()
            .filter(|(own, _)| own.eq_ignore_ascii_case(name))
            .map(|(_, value)| value.as_str())
            .collect();
        (!values.is_empty()).then(|| values.join(", "))
    }
}

/// Sends it.
///
/// # Errors
/// In words, where the target cannot be reached, is not the one it should be, or the request cannot be written.
pub(crate) async fn send(
    request: &Request,
    party: Option<&Party>,
    roots: &[CertificateDer<'static>],
) -> Result<Answer, String> {
    send_within(request, party, roots, LIMITS).await
}

async fn send_within(
    request: &Request,
    party: Option<&Party>,
    roots: &[CertificateDer<'static>],
    limits: Limits,
) -> Result<Answer, String> {
    let address = Address::parse(&request.url).ok_or_else(|| format!("{}: not an https URL", request.url))?;
    let mut builder = hyper::Request::builder().method(request.method.as_str()).uri(address.path.as_str());
    if !request.headers.iter().any(|(name, _)| name.eq_ignore_ascii_case("host")) {
        builder = builder.header("host", address.authority());
    }
    for (name, value) in &request.headers {
        builder = builder.header(name.as_str(), value.as_str());
    }
    let body = Full::new(Bytes::from(request.body.clone().unwrap_or_default()));
    let message = builder.body(body).map_err(|error| format!("a request that cannot be written: {error}"))?;
    let stream = match handshake(&address, party, roots, limits.handshake).await? {
        Ok(stream) => stream,
        Err(answer) => return Ok(answer),
    };
    match tokio::time::timeout(limits.answer, exchange(stream, message, limits)).await {
        Ok(answer) => Ok(answer),
        Err(_) => Ok(Answer::Unfit(format!("no whole answer within {:?}", limits.answer))),
    }
}

/// The handshake: a stream, or the peer's refusal.
async fn handshake(
    address: &Address,
    party: Option<&Party>,
    roots: &[CertificateDer<'static>],
    patience: Duration,
) -> Result<Result<TlsStream<TcpStream>, Answer>, String> {
    let config = client_config(party, roots)?;
    let name = ServerName::try_from(address.host.trim_start_matches('[').trim_end_matches(']').to_owned())
        .map_err(|error| format!("{}: {error}", address.host))?;
    let stream = address.connect().await?;
    // A request is one write, and its answer is waited for.
    let _kept_slow = stream.set_nodelay(true);
    match tokio::time::timeout(patience, TlsConnector::from(Arc::new(config)).connect(name, stream)).await {
        Ok(Ok(stream)) => Ok(Ok(stream)),
        Ok(Err(error)) => match error.get_ref().and_then(|inner| inner.downcast_ref::<rustls::Error>()) {
            Some(rustls::Error::InvalidCertificate(why)) => {
                Err(format!("the certificate of {} is not good under the target's roots: {why:?}", address.host))
            }
            Some(rustls::Error::AlertReceived(_)) | None => Ok(Err(Answer::Refused(error.to_string()))),
            Some(other) => Ok(Err(Answer::Unfit(format!("the handshake went wrong: {other}")))),
        },
        Err(_) => Ok(Err(Answer::Unfit(format!("no handshake within {patience:?}")))),
    }
}

async fn exchange(stream: TlsStream<TcpStream>, message: hyper::Request<Full<Bytes>>, limits: Limits) -> Answer {
    let begun = http1::Builder::new().max_buf_size(limits.head_bytes).handshake(TokioIo::new(stream)).await;
    let (mut sender, connection) = match begun {
        Ok(pair) => pair,
        Err(error) => return Answer::Refused(described(&error)),
    };
    let driven = tokio::spawn(connection);
    let answer = match sender.send_request(message).await {
        Ok(response) => {
            let (head, body) = response.into_parts();
            match Limited::new(body, limits.body_bytes).collect().await {
                Ok(body) => Answer::Response(Response {
                    status: head.status.as_u16(),
                    headers: head
                        .headers
                        .iter()
                        .map(|(name, value)| {
                            (name.as_str().to_owned(), String::from_utf8_lossy(value.as_bytes()).into_owned())
                        })
                        .collect(),
                    body: String::from_utf8_lossy(&body.to_bytes()).into_owned(),
                }),
                Err(error) => Answer::Unfit(format!("the body could not be read: {error}")),
            }
        }
        Err(error) if error.is_parse() => Answer::Unfit(described(&error)),
        // hyper gives a request back unsent where the connection ended before it: why, the connection's own end tells.
        Err(error) => Answer::Refused(described(&error)),
    };
    driven.abort();
    answer
}

/// An error with what lies under it: an alert, where TLS ended it.
fn described(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut below = error.source();
    while let Some(inner) = below {
        text.push_str(&format!(": {inner}"));
        below = inner.source();
    }
    text
}

fn client_config(party: Option<&Party>, roots: &[CertificateDer<'static>]) -> Result<ClientConfig, String> {
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let mut store = RootCertStore::empty();
    for root in roots {
        store.add(root.clone()).map_err(|error| format!("one of the target's roots: {error}"))?;
    }
    let builder = ClientConfig::builder_with_provider(Arc::clone(&provider))
        .with_safe_default_protocol_versions()
        .map_err(|error| error.to_string())?
        .with_root_certificates(store);
    let mut config = match party {
        None => builder.with_no_client_auth(),
        Some(party) => {
            let key = provider
                .key_provider
                .load_private_key(party.key.clone_key())
                .map_err(|error| format!("a private key: {error}"))?;
            let chain = party.chain.iter().map(|der| CertificateDer::from(der.clone())).collect();
            builder.with_client_cert_resolver(Arc::new(Always(Arc::new(CertifiedKey::new(chain, key)))))
        }
    };
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    // Every request shows its certificate.
    config.resumption = Resumption::disabled();
    Ok(config)
}

/// Presents its certificate whatever is asked for and whatever is wrong with it.
#[derive(Debug)]
struct Always(Arc<CertifiedKey>);

impl ResolvesClientCert for Always {
    fn resolve(&self, _: &[&[u8]], _: &[SignatureScheme]) -> Option<Arc<CertifiedKey>> {
        Some(Arc::clone(&self.0))
    }

    fn has_certs(&self) -> bool {
        true
    }
}

#[cfg(test)]
mod tests;
