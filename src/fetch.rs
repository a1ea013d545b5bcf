//! What others publish, fetched within bounds: revocation lists, status answers, trust bundles.
//!
//! Takes an address and bounds, gives the whole body or why there is none. No redirects, no proxies, no cookies, and never more
//! than asked for in size or time. Whether an address may be asked at all is its caller's to know; what comes back is
//! believed by nobody before its signature was checked.

use std::fmt;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::header::{ACCEPT, CONTENT_TYPE, HeaderMap, RETRY_AFTER};
use http::{Method, Request, StatusCode, Uri};
use http_body_util::{BodyExt, Full, Limited};
use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use rustls::ClientConfig;

/// How much of an answer is taken, and how long it is waited for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Bounds {
    /// The longest body, in octets.
    pub bytes: usize,
    /// From the first attempt to connect to the last octet.
    pub time: Duration,
}

/// An answer: 200, or another 2xx.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fetched {
    /// Its status.
    pub status: u16,
    /// Its `Content-Type`, as sent; absent where it is none or no text.
    pub content_type: Option<String>,
    /// All of its body.
    pub body: Bytes,
}

/// Fetches over HTTP and HTTPS. Plain HTTP is for what is signed itself (RFC 5280 §8, RFC 6960 appendix A.1).
#[derive(Clone)]
pub struct Fetcher {
    client: Client<HttpsConnector<HttpConnector>, Full<Bytes>>,
}

impl Fetcher {
    /// A fetcher that trusts, over HTTPS, what `tls` trusts.
    pub fn new(tls: &Arc<ClientConfig>) -> Self {
        let mut tls = ClientConfig::clone(tls);
        tls.alpn_protocols.clear(); // hyper-rustls sets its own, and insists on it
        let connector =
            HttpsConnectorBuilder::new().with_tls_config(tls).https_or_http().enable_http1().enable_http2().build();
        Self { client: Client::builder(TokioExecutor::new()).build(connector) }
    }

    /// What is at `url`.
    ///
    /// # Errors
    /// [`FetchError`].
    pub async fn get(&self, url: &str, accept: &str, bounds: Bounds) -> Result<Fetched, FetchError> {
        self.exchange(Method::GET, url, accept, None, bounds).await
    }

    /// What `url` answers to `body`.
    ///
    /// # Errors
    /// [`FetchError`].
    pub async fn post(
        &self,
        url: &str,
        accept: &str,
        content_type: &str,
        body: Bytes,
        bounds: Bounds,
    ) -> Result<Fetched, FetchError> {
        self.exchange(Method::POST, url, accept, Some((content_type, body)), bounds).await
    }

    async fn exchange(
        &self,
        method: Method,
        url: &str,
        accept: &str,
        body: Option<(&str, Bytes)>,
        bounds: Bounds,
    ) -> Result<Fetched, FetchError> {
        let address = address(url).ok_or(FetchError::Address)?;
        let request = Request::builder().method(method).uri(address).header(ACCEPT, accept);
        let request = match body {
            Some((content_type, body)) => request.header(CONTENT_TYPE, content_type).body(Full::new(body)),
            None => request.body(Full::default()),
        }
        .map_err(|_| FetchError::Address)?;
        let exchange = async {
            let answer = self.client.request(request).await.map_err(|error| FetchError::Connection(cause(&error)))?;
            // A redirect leads where nobody has allowed us to go: it is an answer like any other that is not 2xx.
            if !answer.status().is_success() || answer.status() == StatusCode::PARTIAL_CONTENT {
                let status = answer.status().as_u16();
                return Err(match retry_after(answer.headers()) {
                    Some(after) if matches!(status, 429 | 503) => FetchError::Later { status, after },
                    _ => FetchError::Status(status),
                });
            }
            let status = answer.status().as_u16();
            let content_type =
                answer.headers().get(CONTENT_TYPE).and_then(|value| value.to_str().ok()).map(str::to_owned);
            // Neither a body that is cut short nor one that never ends is a body.
            let body = Limited::new(answer.into_body(), bounds.bytes).collect().await.map_err(|_| FetchError::Body)?;
            Ok(Fetched { status, content_type, body: body.to_bytes() })
        };
        tokio::time::timeout(bounds.time, exchange).await.unwrap_or(Err(FetchError::TimedOut))
    }
}

/// RFC 9110 §10.2.3, in seconds; as a date it is passed over.
fn retry_after(headers: &HeaderMap) -> Option<Duration> {
    headers.get(RETRY_AFTER)?.to_str().ok()?.parse().map(Duration::from_secs).ok()
}

/// An absolute `http` or `https` address without user information.
fn address(url: &str) -> Option<Uri> {
    let uri: Uri = url.parse().ok()?;
    let good = matches!(uri.scheme_str(), Some("http" | "https"))
        && uri.authority().is_some_and(|authority| !authority.as_str().contains('@') && !authority.host().is_empty());
    good.then_some(uri)
}

/// Whether `url` may be where a participant is told things: `https`, or plain HTTP to this machine itself, without user
/// information or a fragment.
pub fn is_webhook(url: &str) -> bool {
    let Some(uri) = address(url) else { return false };
    let plain = url.bytes().all(|octet| matches!(octet, 0x21..=0x7E) && !b"\\#".contains(&octet));
    let host = uri.host().unwrap_or_default().trim_matches(['[', ']']);
    let loopback = host == "localhost" || host.parse::<IpAddr>().is_ok_and(|address| address.is_loopback());
    // RFC 8935 §5.1: TLS. Without it there is nobody on the way only where there is no way.
    plain && url.len() <= LONGEST_WEBHOOK_BYTES && (uri.scheme_str() == Some("https") || loopback)
}

/// The longest URL that is taken for a webhook.
const LONGEST_WEBHOOK_BYTES: usize = 1024;

/// Whether `url` begins with one of `prefixes` in a way that no other host can: each prefix names at least a whole host, and
/// nothing that could be read as leading elsewhere follows it.
pub fn is_allowed(url: &str, prefixes: &[String]) -> bool {
    let Some(uri) = address(url) else { return false };
    let plain = url.bytes().all(|octet| matches!(octet, 0x21..=0x7E) && octet != b'\\');
    let climbs = uri.path().split('/').any(|segment| {
        let segment = segment.to_ascii_lowercase().replace("%2e", ".");
        segment == "." || segment == ".."
    });
    plain
        && !climbs
        && prefixes.iter().any(|prefix| {
            let names_a_host = address(prefix).is_some_and(|prefix| prefix.path_and_query().is_some())
                && prefix.splitn(4, '/').nth(3).is_some();
            names_a_host && url.starts_with(prefix.as_str())
        })
}

/// What is at the bottom of an error: above it is only that a connection failed.
fn cause(mut error: &dyn std::error::Error) -> String {
    while let Some(source) = error.source() {
        error = source;
    }
    error.to_string()
}

impl fmt::Debug for Fetcher {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Fetcher")
    }
}

/// Why nothing was fetched.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum FetchError {
    /// The address is none that can be asked.
    #[error("not an http or https address")]
    Address,
    /// The body was cut short or is longer than the limit.
    #[error("the body was cut short or is too long")]
    Body,
    /// No connection, or it broke, or the server's certificate is not trusted: with the innermost cause.
    #[error("no connection: {0}")]
    Connection(String),
    /// 429 or 503, with a time after which to ask again.
    #[error("the answer was {status}")]
    Later {
        /// The status.
        status: u16,
        /// How long to wait.
        after: Duration,
    },
    /// Any other answer that is not 2xx.
    #[error("the answer was {0}")]
    Status(u16),
    /// No whole answer in time.
    #[error("no whole answer in time")]
    TimedOut,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_begins_with_a_whole_allowed_prefix_is_asked() {
        let allowed = |url: &str, prefix: &str| is_allowed(url, &[prefix.to_owned()]);
        assert!(allowed("http://crl.partner.example/a.crl", "http://crl.partner.example/"));
        assert!(allowed("http://crl.partner.example/lists/a.crl", "http://crl.partner.example/lists/"));
        for (url, prefix) in [
            ("http://crl.partner.example.evil.example/a.crl", "http://crl.partner.example"), // names no whole host
            ("http://crl.partner.example@evil.example/a.crl", "http://crl.partner.example"),
            ("http://crl.partner.example@evil.example/", "http://crl.partner.example/"),
            ("https://crl.partner.example/a.crl", "http://crl.partner.example/"),
            ("http://crl.partner.example/lists/../admin", "http://crl.partner.example/lists/"),
            ("http://crl.partner.example/lists/%2E%2e/admin", "http://crl.partner.example/lists/"),
            ("http://crl.partner.example/lists\\..\\admin", "http://crl.partner.example/"),
            ("http://crl.partner.example/a b", "http://crl.partner.example/"),
            ("file:///etc/passwd", "file:///etc/"),
            ("ldap://crl.partner.example/x", "ldap://crl.partner.example/"),
            ("/a.crl", "/"),
            ("", ""),
        ] {
            assert!(!allowed(url, prefix), "{url} under {prefix}");
        }
        assert!(!is_allowed("http://crl.partner.example/a.crl", &[]));
    }

    #[test]
    fn a_webhook_is_https_or_on_this_machine() {
        for good in [
            "https://hooks.partner.example/countersign?for=acme",
            "https://10.0.0.1:8443/",
            "http://127.0.0.1:9000/hook",
            "http://[::1]/hook",
            "http://localhost/hook",
        ] {
            assert!(is_webhook(good), "{good}");
        }
        let long = format!("https://hooks.partner.example/{}", "a".repeat(1024));
        for bad in [
            "http://hooks.partner.example/",
            "http://localhost.partner.example/",
            "http://127.0.0.1.partner.example/",
            "http://localhost@partner.example/",
            "https://user@hooks.partner.example/",
            "https://hooks.partner.example/#fragment",
            "https://hooks.partner.example/a b",
            "ftp://hooks.partner.example/",
            "hooks.partner.example",
            "",
            &long,
        ] {
            assert!(!is_webhook(bad), "{bad}");
        }
    }

    #[test]
    fn a_time_to_ask_again_is_in_seconds() {
        let read = |value: &'static str| {
            let mut headers = HeaderMap::new();
            headers.insert(RETRY_AFTER, http::HeaderValue::from_static(value));
            retry_after(&headers)
        };
        assert_eq!(read("120"), Some(Duration::from_secs(120)));
        assert_eq!(read("0"), Some(Duration::ZERO));
        for other in ["", "-1", "1.5", "99999999999999999999", "Fri, 31 Dec 1999 23:59:59 GMT"] {
            assert_eq!(read(other), None, "{other}");
        }
    }

    #[tokio::test]
    async fn what_is_no_address_is_not_asked() {
        let roots = rustls::RootCertStore::empty();
        let tls = ClientConfig::builder_with_provider(rustls::crypto::aws_lc_rs::default_provider().into())
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_root_certificates(roots)
            .with_no_client_auth();
        let fetcher = Fetcher::new(&Arc::new(tls));
        let bounds = Bounds { bytes: 1, time: Duration::from_secs(1) };
        for url in ["", "a", "ftp://a.example/", "http://user@a.example/", "http:///a"] {
            assert_eq!(fetcher.get(url, "*/*", bounds).await, Err(FetchError::Address), "{url}");
        }
    }
}
