//! One caller, with one certificate: an HTTPS client as a partner would have it. It trusts the development CA only.

use bytes::Bytes;
use http::header::{AUTHORIZATION, CONTENT_TYPE, WWW_AUTHENTICATE};
use http::{Request, StatusCode};
use http_body_util::{BodyExt, Full, Limited};
use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;

use super::development_pki::LeafFiles;
use crate::cli::Failure;
use crate::tls;

/// The longest answer that is read.
const LONGEST_ANSWER_BYTES: usize = 64 * 1024;

/// A client with a certificate. It keeps its connections.
pub(super) struct Caller {
    client: Client<HttpsConnector<HttpConnector>, Full<Bytes>>,
}

/// What came back.
#[derive(Debug)]
pub(super) struct Answer {
    /// The status.
    pub(super) status: StatusCode,
    /// The `WWW-Authenticate` header; empty where there is none.
    pub(super) challenge: String,
    /// The body.
    pub(super) text: String,
}

impl Answer {
    /// A member of the JSON object in the body, as text.
    pub(super) fn member(&self, name: &str) -> Option<String> {
        let body: serde_json::Value = serde_json::from_str(&self.text).ok()?;
        match body.get(name)? {
            serde_json::Value::String(text) => Some(text.clone()),
            other => Some(other.to_string()),
        }
    }
}

impl Caller {
    /// A caller that trusts `roots` (PEM) and presents `leaf`.
    pub(super) fn new(roots: &[u8], leaf: &LeafFiles) -> Result<Self, Failure> {
        let config = tls::client_config(roots, &std::fs::read(&leaf.certificate)?, &std::fs::read(&leaf.key)?)?;
        let connector = HttpsConnectorBuilder::new().with_tls_config(config).https_only().enable_http1().build();
        Ok(Self { client: Client::builder(TokioExecutor::new()).build(connector) })
    }

    pub(super) async fn post(&self, url: &str, form: &str) -> Result<Answer, Failure> {
        let request = Request::post(url)
            .header(CONTENT_TYPE, "application/x-www-form-urlencoded")
            .body(Full::new(Bytes::copy_from_slice(form.as_bytes())))?;
        self.send(request).await
    }

    pub(super) async fn get(&self, url: &str, token: &str) -> Result<Answer, Failure> {
        let request = Request::get(url).header(AUTHORIZATION, format!("Bearer {token}")).body(Full::default())?;
        self.send(request).await
    }

    async fn send(&self, request: Request<Full<Bytes>>) -> Result<Answer, Failure> {
        let (head, body) = self.client.request(request).await?.into_parts();
        let body = Limited::new(body, LONGEST_ANSWER_BYTES).collect().await?.to_bytes();
        let challenge = head.headers.get(WWW_AUTHENTICATE).and_then(|value| value.to_str().ok()).unwrap_or_default();
        Ok(Answer {
            status: head.status,
            challenge: challenge.to_owned(),
            text: String::from_utf8_lossy(&body).into_owned(),
        })
    }
}
