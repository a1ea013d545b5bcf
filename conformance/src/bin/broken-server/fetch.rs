//! Gets a document by HTTPS: for the resource whose issuer the judge plays, and for what ought never to be fetched.

use std::sync::Arc;
use std::time::Duration;

use countersign_conformance::well_known;
use http_body_util::{BodyExt, Empty, Limited};
use hyper::Request;
use hyper::body::Bytes;
use hyper::header::HOST;
use hyper::http::Uri;
use hyper_util::rt::TokioIo;
use rustls::{ClientConfig, RootCertStore};
use rustls_pki_types::{CertificateDer, ServerName};
use serde_json::Value;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

use crate::Failure;

/// Nobody is waited for longer.
const PATIENCE: Duration = Duration::from_secs(5);
/// A longer document is not read.
const LARGEST_DOCUMENT_BYTES: usize = 256 * 1024;

/// The keys of this issuer, by its metadata (RFC 8414 §3).
pub(crate) async fn keys_of(issuer: &str, root: &CertificateDer<'static>) -> Option<Vec<Value>> {
    if !issuer.contains("://") {
        return None;
    }
    let url = well_known::url(issuer, "oauth-authorization-server");
    let metadata: Value = serde_json::from_slice(&get(&url, root).await?).ok()?;
    // RFC 8414 §3.3.
    if metadata["issuer"] != issuer {
        return None;
    }
    keys_at(metadata["jwks_uri"].as_str()?, root).await
}

/// The keys in this JWK set.
pub(crate) async fn keys_at(url: &str, root: &CertificateDer<'static>) -> Option<Vec<Value>> {
    let set: Value = serde_json::from_slice(&get(url, root).await?).ok()?;
    set["keys"].as_array().cloned()
}

/// The document there, if it comes in time with status 200.
pub(crate) async fn get(url: &str, root: &CertificateDer<'static>) -> Option<Vec<u8>> {
    let url = url.parse().ok()?;
    tokio::time::timeout(PATIENCE, try_get(&url, root)).await.ok()?.ok()
}

async fn try_get(url: &Uri, root: &CertificateDer<'static>) -> Result<Vec<u8>, Failure> {
    let host = url.host().ok_or("no host")?.to_owned();
    let is_tls = url.scheme_str() == Some("https");
    let stream = TcpStream::connect((host.as_str(), url.port_u16().unwrap_or(if is_tls { 443 } else { 80 }))).await?;
    if !is_tls {
        return exchange(stream, url).await;
    }
    let mut roots = RootCertStore::empty();
    roots.add(root.clone())?;
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()?
        .with_root_certificates(roots)
        .with_no_client_auth();
    let stream = TlsConnector::from(Arc::new(config)).connect(ServerName::try_from(host)?, stream).await?;
    exchange(stream, url).await
}

async fn exchange<S: AsyncRead + AsyncWrite + Unpin + Send + 'static>(
    stream: S,
    url: &Uri,
) -> Result<Vec<u8>, Failure> {
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await?;
    let connection = tokio::spawn(connection);
    let authority = url.authority().map(ToString::to_string).unwrap_or_default();
    let target = url.path_and_query().map_or("/", |target| target.as_str());
    let request = Request::get(target).header(HOST, authority).body(Empty::<Bytes>::new())?;
    let answer = sender.send_request(request).await?;
    if answer.status() != 200 {
        return Err("not there".into());
    }
    let body = Limited::new(answer.into_body(), LARGEST_DOCUMENT_BYTES).collect().await?.to_bytes();
    connection.abort();
    Ok(body.to_vec())
}
