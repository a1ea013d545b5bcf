//! Keeps the authorization server's keys and revocation list at hand.
//!
//! Takes the server's addresses and a TLS configuration, gives [`HeldKeys`] and [`HeldList`] whatever it can fetch, for
//! as long as it runs. What cannot be used is counted and changes nothing: what is held stays, and the list ages. It
//! decides on no call, and no call waits for it.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::time::Duration;

use bytes::Bytes;
use http::header::{ACCEPT, CONTENT_TYPE};
use http::{HeaderMap, Request, StatusCode, Uri};
use http_body_util::{BodyExt, Full, Limited};
use hyper::body::Incoming;
use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::{TokioExecutor, TokioTimer};
use rustls::ClientConfig;
use tokio::time::Instant;

use crate::status::{HeldList, MAX_LIST_BYTES};
use crate::time::Clock;
use crate::token::held_keys::HeldKeys;
use crate::token::jwks::MAX_KEY_SET_BYTES;

/// How often the keys are fetched when nothing calls for them.
pub const KEYS_INTERVAL: Duration = Duration::from_secs(60);

/// How soon after a fetch an unknown `kid` can cause the next.
pub const KEYS_PAUSE: Duration = Duration::from_secs(10);

/// How long the server is asked to hold a long poll open, at most.
pub const POLL_WAIT: Duration = Duration::from_secs(10);

/// Fetches over HTTPS: no redirects, no plain HTTP, bounded bodies, bounded time.
#[derive(Clone)]
pub struct Fetcher {
    connector: HttpsConnector<HttpConnector>,
    client: Client<HttpsConnector<HttpConnector>, Full<Bytes>>,
    other: Option<Arc<Other>>,
}

/// The fetcher for when connections with the certificate fail.
struct Other {
    fetcher: Fetcher,
    /// How many fetches it still makes before the certificate is tried again, which may be enrolled by then: who fetches with it
    /// is known to have taken a list.
    turns: AtomicU32,
    /// Whether that it is needed was told of.
    told: AtomicBool,
}

impl Fetcher {
    /// A fetcher that trusts what `tls` trusts. Each fetch has a connection to itself: one that is given up takes a connection
    /// with it that may have gone silent, and the next begins with another.
    pub fn new(mut tls: ClientConfig) -> Self {
        tls.alpn_protocols.clear(); // hyper-rustls sets its own, and insists on it
        let mut tcp = HttpConnector::new();
        tcp.enforce_http(false); // https is what is connected to
        tcp.set_nodelay(true);
        tcp.set_connect_timeout(Some(CONNECT_PATIENCE));
        // A long poll is silent by its nature: that the other side is still there is asked for below it.
        tcp.set_keepalive(Some(PROBE_AFTER));
        tcp.set_keepalive_interval(Some(SECOND));
        tcp.set_keepalive_retries(Some(PROBES));
        let connector = HttpsConnectorBuilder::new().with_tls_config(tls).https_only().enable_http1();
        Self::over(connector.wrap_connector(tcp))
    }

    /// The same without the connections that this one has.
    #[must_use]
    pub fn afresh(&self) -> Self {
        Self { other: self.other.clone(), ..Self::over(self.connector.clone()) }
    }

    fn over(connector: HttpsConnector<HttpConnector>) -> Self {
        let client = Client::builder(TokioExecutor::new())
            .pool_timer(TokioTimer::new())
            .pool_idle_timeout(IDLE)
            .pool_max_idle_per_host(MOST_IDLE)
            .build(connector.clone());
        Self { connector, client, other: None }
    }

    /// The same with another to get things with where a connection fails twice in a row: one without a certificate, since a server may close
    /// connections with one that is not enrolled there, and then would not tell what it tells everybody.
    #[must_use]
    pub fn or_else(self, fetcher: Self) -> Self {
        Self {
            other: Some(Arc::new(Other { fetcher, turns: AtomicU32::new(0), told: AtomicBool::new(false) })),
            ..self
        }
    }

    /// The whole body of a 200 answer, got within `patience` and not longer than `max_bytes`.
    ///
    /// # Errors
    /// [`FetchError`]
    pub async fn get(&self, url: &str, max_bytes: usize, patience: Duration) -> Result<Bytes, FetchError> {
        let exchange = self.got(url, max_bytes);
        tokio::time::timeout(patience, exchange).await.unwrap_or(Err(FetchError::TimedOut))
    }

    async fn got(&self, url: &str, max_bytes: usize) -> Result<Bytes, FetchError> {
        let Some(other) = &self.other else { return self.get_once(url, max_bytes).await };
        let turn = other.turns.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |turns| turns.checked_sub(1));
        if turn.is_ok() {
            let got = other.fetcher.get_once(url, max_bytes).await;
            if matches!(got, Err(FetchError::Connection(_))) {
                other.turns.store(0, Ordering::Relaxed);
            }
            return got;
        }
        let mut got = self.get_once(url, max_bytes).await;
        if matches!(got, Err(FetchError::Connection(_))) {
            // One connection that broke says nothing of the certificate: a server that is started anew breaks them all.
            got = self.get_once(url, max_bytes).await;
        }
        let Err(FetchError::Connection(cause)) = &got else {
            if got.is_ok() && other.told.swap(false, Ordering::Relaxed) {
                tracing::info!("the authorization server takes connections with the API's certificate");
            }
            return got;
        };
        let Ok(body) = other.fetcher.get_once(url, max_bytes).await else { return got };
        other.turns.store(TURNS_WITHOUT, Ordering::Relaxed);
        if !other.told.swap(true, Ordering::Relaxed) {
            tracing::warn!(
                cause,
                "the authorization server closes connections with the API's certificate, and takes them without: is it enrolled?"
            );
        }
        Ok(body)
    }

    async fn get_once(&self, url: &str, max_bytes: usize) -> Result<Bytes, FetchError> {
        let request = Request::get(address(url)?).body(Full::default()).map_err(|_| FetchError::Address)?;
        body_of(self.send(request).await?.1, max_bytes).await
    }

    /// The whole JSON body, not longer than `max_bytes`, of a 200 answer to this form. Waits as long as it takes.
    ///
    /// # Errors
    /// [`FetchError`]
    pub async fn post_form(&self, url: &str, form: String, max_bytes: usize) -> Result<Bytes, FetchError> {
        let request = Request::post(address(url)?)
            .header(CONTENT_TYPE, "application/x-www-form-urlencoded")
            .header(ACCEPT, JSON)
            .body(Full::from(form))
            .map_err(|_| FetchError::Address)?;
        let (headers, body) = self.send(request).await?;
        if is_json(&headers) { body_of(body, max_bytes).await } else { Err(FetchError::MediaType) }
    }

    async fn send(&self, request: Request<Full<Bytes>>) -> Result<(HeaderMap, Incoming), FetchError> {
        let response = self.client.request(request).await.map_err(|error| FetchError::Connection(cause(&error)))?;
        let (parts, body) = response.into_parts();
        if parts.status == StatusCode::OK {
            Ok((parts.headers, body))
        } else {
            Err(FetchError::Status(parts.status.as_u16()))
        }
    }
}

fn address(url: &str) -> Result<Uri, FetchError> {
    url.parse().map_err(|_| FetchError::Address)
}

/// Neither a body that is cut short nor one that never ends is a body.
async fn body_of(body: Incoming, max_bytes: usize) -> Result<Bytes, FetchError> {
    let body = Limited::new(body, max_bytes).collect().await.map_err(|_| FetchError::Body)?;
    Ok(body.to_bytes())
}

/// RFC 9110 §8.3.1: without regard to case, and whatever its parameters.
fn is_json(headers: &HeaderMap) -> bool {
    let mut types = headers.get_all(CONTENT_TYPE).iter();
    let (first, more) = (types.next().and_then(|field| field.to_str().ok()), types.next());
    let essence = first.and_then(|field| field.split(';').next()).map(str::trim);
    more.is_none() && essence.is_some_and(|essence| essence.eq_ignore_ascii_case(JSON))
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
    /// The address is none.
    #[error("not an address")]
    Address,
    /// The body was cut short or is longer than the limit.
    #[error("the body was cut short or is too long")]
    Body,
    /// No connection, or it broke, or the server's certificate is not trusted: with the innermost cause.
    #[error("no connection to the authorization server: {0}")]
    Connection(String),
    /// The answer is of another media type.
    #[error("the answer is not application/json")]
    MediaType,
    /// An answer other than 200.
    #[error("the authorization server answered {0}")]
    Status(u16),
    /// No whole answer in time.
    #[error("no whole answer in time")]
    TimedOut,
}

/// Fetches the keys for ever: until the first are held four times a second, then every [`KEYS_INTERVAL`], and when an unknown
/// `kid` was met or the last fetch failed, every [`KEYS_PAUSE`].
pub async fn follow_keys(fetcher: Fetcher, url: String, keys: Arc<HeldKeys>) {
    let mut outcomes = Outcomes::of("keys");
    loop {
        let outcome = match fetcher.get(&url, MAX_KEY_SET_BYTES, PATIENCE).await {
            Ok(body) => keys.take(&body).map_err(|error| error.to_string()),
            Err(error) => Err(error.to_string()),
        };
        outcomes.note(&outcome);
        if keys.current().is_none() {
            tokio::time::sleep(RETRY_FIRST).await;
            continue;
        }
        tokio::time::sleep(KEYS_PAUSE).await;
        if outcome.is_err() {
            continue;
        }
        // An unknown `kid` met during the pause is heard now: the note is kept until somebody waits for it.
        let rest = KEYS_INTERVAL.saturating_sub(KEYS_PAUSE);
        let _either = tokio::time::timeout(rest, keys.wanted()).await;
    }
}

/// Long-polls the revocation list for ever, as soon as there are keys to verify it with. Whoever answers at once, as a mirror
/// that knows no long poll does, is asked once a second where it has no news.
pub async fn follow_revocations(fetcher: Fetcher, url: String, list: Arc<HeldList>) {
    // Three polls within the staleness limit, so that one may fail.
    let wait = (list.staleness_limit() / 3).clamp(Duration::from_secs(1), POLL_WAIT);
    let mut retry = RETRY_FIRST;
    let mut is_away = false;
    let mut outcomes = Outcomes::of("revocations");
    loop {
        if !list.can_be_verified() {
            tokio::time::sleep(BREATH).await;
            continue;
        }
        // Whoever was away is asked what there is, and not to wait: the sooner is it known that he is back.
        let wait = if is_away { Duration::ZERO } else { wait };
        let before = list.version();
        let asked_at = Instant::now();
        let outcome = poll(&fetcher, &url, &list, wait).await;
        outcomes.note(&outcome);
        is_away = outcome.is_err();
        let pause = match outcome {
            // News came: ask on at once, but never in a tight circle.
            Ok(()) if list.version() != before => BREATH,
            Ok(()) => SECOND.saturating_sub(asked_at.elapsed()).max(BREATH_WITHOUT_NEWS),
            Err(_) => retry,
        };
        retry = if outcome.is_ok() { RETRY_FIRST } else { retry.saturating_mul(2).min(RETRY_LAST) };
        tokio::time::sleep(pause).await;
    }
}

/// Asks the authorization server itself for the list, once a second for as long as whoever else was to bring it does not, or
/// brings one that is past half of what it may age: a mirror is nothing to switch an API off with.
pub async fn relieve_the_mirror(fetcher: Fetcher, url: String, list: Arc<HeldList>) {
    let mut outcomes = Outcomes::of("revocations");
    loop {
        tokio::time::sleep(SECOND.min(list.staleness_limit() / 4).max(BREATH_WITHOUT_NEWS)).await;
        if list.can_be_verified() && list.age().is_none_or(|age| age > list.staleness_limit() / 2) {
            outcomes.note(&poll(&fetcher, &url, &list, Duration::ZERO).await);
        }
    }
}

/// Asks once for the list, to be held for as long as this where there is no other than the one held.
async fn poll(fetcher: &Fetcher, url: &str, list: &Arc<HeldList>, wait: Duration) -> Result<(), String> {
    let target = match list.version() {
        None => url.to_owned(),
        Some((epoch, number)) => {
            let and = if url.contains('?') { '&' } else { '?' };
            format!("{url}{and}epoch={epoch}&number={number}&wait={}", wait.as_secs())
        }
    };
    match fetcher.get(&target, MAX_LIST_BYTES, wait + PATIENCE).await {
        Ok(body) => taken(Arc::clone(list), body).await,
        Err(error) => Err(error.to_string()),
    }
}

/// Takes a list in. On a thread of its own: a long one keeps a processor busy for a while, and calls are not to wait.
async fn taken(list: Arc<HeldList>, body: Bytes) -> Result<(), String> {
    let taking = tokio::task::spawn_blocking(move || {
        let compact = std::str::from_utf8(&body).map_err(|_| "not text".to_owned())?;
        list.take(compact).map_err(|error| error.to_string())
    });
    taking.await.unwrap_or_else(|error| Err(error.to_string()))
}

/// Reports the age of the list held, for ever.
pub async fn report_age(list: Arc<HeldList>, clock: Arc<dyn Clock>) {
    loop {
        // Before the first list the age is the time spent without one.
        let age = list.age().unwrap_or_else(|| clock.monotonic());
        metrics::gauge!("countersign_guard_revocation_list_age_seconds").set(age.as_secs_f64());
        tokio::time::sleep(Duration::from_secs(1)).await;
    }
}

/// What became of the fetches of one thing.
#[derive(Debug)]
struct Outcomes {
    what: &'static str,
    /// The trouble that was told of last, while it lasts.
    trouble: Option<String>,
}

impl Outcomes {
    const fn of(what: &'static str) -> Self {
        Self { what, trouble: None }
    }

    /// Counts an outcome, and tells of it where it is another than the last one: fetches are many, and a server that is
    /// away is away for a while.
    fn note(&mut self, outcome: &Result<(), String>) {
        let what = self.what;
        let result = if outcome.is_ok() { "taken" } else { "failed" };
        metrics::counter!("countersign_guard_fetches_total", "what" => what, "result" => result).increment(1);
        match outcome {
            Ok(()) => {
                if self.trouble.take().is_some() {
                    tracing::info!(what, "fetched from the authorization server again");
                }
            }
            Err(error) => {
                if self.trouble.as_ref() != Some(error) {
                    tracing::warn!(what, error, "nothing usable fetched from the authorization server");
                    self.trouble = Some(error.clone());
                }
            }
        }
    }
}

const JSON: &str = "application/json";
const PATIENCE: Duration = Duration::from_secs(5);
const CONNECT_PATIENCE: Duration = Duration::from_secs(2);
// A machine that is gone is known to be after five seconds.
const PROBE_AFTER: Duration = Duration::from_secs(3);
const PROBES: u32 = 2;
// Short: what nobody has used for a while may be dead, and is found to be so by a question that somebody waits for.
const IDLE: Duration = Duration::from_secs(5);
const MOST_IDLE: usize = 8;
const RETRY_FIRST: Duration = Duration::from_millis(250);
const RETRY_LAST: Duration = Duration::from_secs(4);
// Some minutes of polls.
const TURNS_WITHOUT: u32 = 30;
const BREATH: Duration = Duration::from_millis(20);
const SECOND: Duration = Duration::from_secs(1);
const BREATH_WITHOUT_NEWS: Duration = Duration::from_millis(200);

#[cfg(test)]
mod tests;
