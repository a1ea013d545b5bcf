//! Has the trust domain published another bundle?
//!
//! Takes a trust domain of the registry, asks its endpoint as its profile says (SPIFFE Federation §5.2), and puts a bundle
//! that follows on the one held in its place: a change of the registry like any other. Whatever fails leaves the held
//! bundle as it is. It knows nothing of what is in a bundle but which of two is newer.

use std::collections::HashMap;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::Duration;

use countersign_resource_server::time::{Clock, UnixTime};
use futures_util::FutureExt;
use tokio::task::JoinHandle;

use super::{Bundle, LARGEST_BUNDLE_BYTES, MalformedBundle, Succession, endpoint};
use crate::fetch::{Bounds, FetchError, Fetcher};
use crate::pki::spiffe::{MalformedSpiffeId, SpiffeId, TrustDomain};
use crate::registry::history::{Actor, Explanation};
use crate::registry::trust_anchor::{AnchorMaterial, AnchorState, BundleEndpoint, TrustAnchor};
use crate::registry::{AnchorId, EditRefusal, Page, Registry, RegistryVersion, StoreUnavailable};
use crate::telemetry;

/// SPIFFE Federation §4.1: where the bundle does not say.
const DEFAULT_INTERVAL: Duration = Duration::from_secs(300);

/// A hint is a hint: never more often than this, never more seldom than a day.
const SHORTEST_INTERVAL: Duration = Duration::from_secs(60);
const LONGEST_INTERVAL: Duration = Duration::from_secs(86_400);

/// An endpoint that keeps failing is asked twice as seldom each time, down to once an hour or its own interval.
const LONGEST_BACK_OFF: Duration = Duration::from_secs(3_600);

/// How often it is looked which trust domains are due.
const LOOK_EVERY: Duration = Duration::from_secs(15);

const BOUNDS: Bounds = Bounds { bytes: LARGEST_BUNDLE_BYTES, time: Duration::from_secs(10) };

/// What came of a refresh.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Refreshed {
    /// Another bundle took the place of the one that was held.
    Replaced {
        /// The registry version that it made.
        version: RegistryVersion,
    },
    /// The bundle held is the latest; or somebody else has just replaced it.
    Unchanged,
}

/// Why a bundle was not refreshed.
#[derive(Clone, Debug, thiserror::Error)]
pub enum RefreshError {
    /// The anchor is no trust domain, is retired, or has no endpoint.
    #[error(
        "it is retired, or has no bundle endpoint: its next bundle is brought with `countersign trust-domain refresh --bundle FILE`"
    )]
    NoEndpoint,
    /// Nothing came.
    #[error("the bundle could not be fetched: {0}")]
    Fetch(#[from] FetchError),
    /// The endpoint's own trust domain is not in the registry, or no longer vouches.
    #[error(
        "trust domain {0}, of the endpoint's SPIFFE ID, is not in the registry: its bundle says who the endpoint is"
    )]
    EndpointUnknown(TrustDomain),
    /// The endpoint cannot be asked.
    #[error("the endpoint cannot be asked: {0}")]
    Endpoint(String),
    /// What came is no bundle.
    #[error("what came is not taken: {0}")]
    Malformed(#[from] MalformedBundle),
    /// What came is older than what is held.
    #[error("what came has spiffe_sequence {came}, and {held} is held: an older bundle is not taken")]
    Older {
        /// The sequence that came.
        came: u64,
        /// The sequence that is held.
        held: u64,
    },
    /// The registry did not take it.
    #[error(transparent)]
    Registry(#[from] EditRefusal),
}

impl From<StoreUnavailable> for RefreshError {
    fn from(error: StoreUnavailable) -> Self {
        Self::Registry(error.into())
    }
}

/// An endpoint as an operator writes it: a URL, and the SPIFFE ID of the server where it is believed by that.
///
/// # Errors
/// The sentence that says what is wrong.
pub fn endpoint_of(url: &str, endpoint_spiffe_id: Option<&str>) -> Result<BundleEndpoint, MalformedEndpoint> {
    // SPIFFE Federation §5.2.1.1, §5.2.2.1: https, without user information.
    let uri: http::Uri = url.parse().map_err(|_| MalformedEndpoint::Url)?;
    let has_host =
        uri.authority().is_some_and(|authority| !authority.as_str().contains('@') && !authority.host().is_empty());
    if uri.scheme_str() != Some("https") || !has_host {
        return Err(MalformedEndpoint::Url);
    }
    let url = url.to_owned();
    match endpoint_spiffe_id {
        None => Ok(BundleEndpoint::HttpsWeb { url }),
        Some(id) => {
            let endpoint_spiffe_id = SpiffeId::parse(id)?;
            if endpoint_spiffe_id.has_path() {
                Ok(BundleEndpoint::HttpsSpiffe { url, endpoint_spiffe_id })
            } else {
                Err(MalformedEndpoint::NoWorkload)
            }
        }
    }
}

/// An endpoint that is none.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum MalformedEndpoint {
    /// The SPIFFE ID has no path.
    #[error("the endpoint's SPIFFE ID is a trust domain's and no server's: it has no path")]
    NoWorkload,
    /// The SPIFFE ID is none.
    #[error("the endpoint's SPIFFE ID: {0}")]
    SpiffeId(#[from] MalformedSpiffeId),
    /// The URL is none of https, or has user information.
    #[error("a bundle URL begins with https:// and has a host and no user name")]
    Url,
}

/// The bundle of `trust_domain` that its endpoint serves now. `self_held` is the bundle's own trust domain as it is held, for
/// an endpoint that serves itself.
///
/// # Errors
/// [`RefreshError`].
pub async fn fetch(
    registry: &Registry,
    fetcher: &Fetcher,
    endpoint: &BundleEndpoint,
    self_held: Option<&TrustAnchor>,
    now: UnixTime,
) -> Result<String, RefreshError> {
    let fetched = match endpoint {
        BundleEndpoint::File => return Err(RefreshError::NoEndpoint),
        BundleEndpoint::HttpsWeb { url } => fetcher.get(url, ACCEPT, BOUNDS).await?,
        BundleEndpoint::HttpsSpiffe { url, endpoint_spiffe_id } => {
            let trust_domain = endpoint_spiffe_id.trust_domain();
            // SPIFFE Federation §5.2.2.4: by the latest bundle of the trust domain that the endpoint's id resides in.
            let held = match self_held {
                Some(held) if held.material.trust_domain() == Some(&trust_domain) => Some(held.clone()),
                _ => registry.anchor(&AnchorId::of_trust_domain(&trust_domain)).await?,
            };
            let held = held.filter(|held| held.state == AnchorState::Active);
            let held = held.ok_or(RefreshError::EndpointUnknown(trust_domain))?;
            let tls = endpoint::client_config(endpoint_spiffe_id, &held, now);
            let tls = tls.map_err(|error| RefreshError::Endpoint(error.to_string()))?;
            Fetcher::new(&Arc::new(tls)).get(url, ACCEPT, BOUNDS).await?
        }
    };
    // §5.2.1.3: encoded as UTF-8; the content type is a SHOULD, and nothing hangs on it.
    String::from_utf8(fetched.body.to_vec()).map_err(|_| MalformedBundle::Json.into())
}

const ACCEPT: &str = "application/json";

/// Asks the endpoint of `anchor`, and takes what follows on the bundle it holds.
///
/// # Errors
/// [`RefreshError`]; the held bundle stays.
pub async fn refresh(
    registry: &Registry,
    fetcher: &Fetcher,
    anchor: &TrustAnchor,
    explanation: Explanation,
) -> Result<Refreshed, RefreshError> {
    let AnchorMaterial::TrustDomain { trust_domain, endpoint, bundle: held } = &anchor.material else {
        return Err(RefreshError::NoEndpoint);
    };
    if anchor.state != AnchorState::Active {
        return Err(RefreshError::NoEndpoint);
    }
    let came = fetch(registry, fetcher, endpoint, Some(anchor), explanation.at).await?;
    let next = Bundle::parse(came.as_bytes(), trust_domain)?;
    if let Ok(before) = Bundle::parse(held.as_bytes(), trust_domain) {
        match next.succession(&before) {
            Succession::Newer => {}
            Succession::Same => return Ok(Refreshed::Unchanged),
            Succession::Older => {
                return Err(RefreshError::Older {
                    came: next.sequence.unwrap_or_default(),
                    held: before.sequence.unwrap_or_default(),
                });
            }
        }
    }
    match registry.replace_bundle(anchor.id.clone(), held.clone(), came, explanation).await {
        Ok(version) => Ok(Refreshed::Replaced { version }),
        Err(EditRefusal::BundleOvertaken) => Ok(Refreshed::Unchanged), // another node was faster
        Err(refusal) => Err(refusal.into()),
    }
}

/// How long after a bundle came its endpoint is asked again.
pub fn interval(refresh_hint: Option<Duration>) -> Duration {
    refresh_hint.unwrap_or(DEFAULT_INTERVAL).clamp(SHORTEST_INTERVAL, LONGEST_INTERVAL)
}

/// SPIFFE Federation §6.2: after a failure at the next interval, not sooner; and with each further one twice as late.
fn back_off(interval: Duration, failures: u32) -> Duration {
    let doubled = interval.saturating_mul(1 << failures.saturating_sub(1).min(16));
    doubled.min(interval.max(LONGEST_BACK_OFF))
}

/// Keeps the bundles of every trust domain with an endpoint up to date until the registry is dropped.
pub fn keep(registry: &Arc<Registry>, fetcher: Fetcher, clock: Arc<dyn Clock>, node: &str) -> JoinHandle<()> {
    let (registry, node) = (Arc::downgrade(registry), node.to_owned());
    tokio::spawn(async move {
        let mut schedule = Schedule::default();
        loop {
            let Some(registry) = registry.upgrade() else { return };
            match all_with_endpoint(&registry).await {
                Ok(anchors) => {
                    // A fault of this program in one round is on record through the panic itself, and the next is another.
                    let round = round(&registry, &fetcher, &*clock, &node, anchors, &mut schedule);
                    drop(AssertUnwindSafe(round).catch_unwind().await);
                }
                Err(error) => tracing::debug!(%error, "which bundles are due cannot be read"),
            }
            drop(registry);
            tokio::time::sleep(LOOK_EVERY).await;
        }
    })
}

async fn all_with_endpoint(registry: &Registry) -> Result<Vec<TrustAnchor>, StoreUnavailable> {
    const PAGE: u32 = 100;
    let mut all: Vec<TrustAnchor> = Vec::new();
    let mut page = Page::first(PAGE);
    loop {
        let read = registry.trust_domains(page).await?;
        let Some(last) = read.last() else { return Ok(all) };
        page = Page::after(last.id.as_str(), PAGE);
        all.extend(read.into_iter().filter(|anchor| anchor.state == AnchorState::Active && url_of(anchor).is_some()));
    }
}

fn url_of(anchor: &TrustAnchor) -> Option<&str> {
    match &anchor.material {
        AnchorMaterial::TrustDomain { endpoint, .. } => endpoint.url(),
        AnchorMaterial::X509 { .. } => None,
    }
}

/// When each endpoint is to be asked next, in monotonic time.
#[derive(Debug, Default)]
struct Schedule(HashMap<AnchorId, Due>);

#[derive(Debug)]
struct Due {
    endpoint: BundleEndpoint,
    at: Duration,
    failures: u32,
    /// When the endpoint last confirmed the bundle that is held; at first, when this node began to ask.
    confirmed: Duration,
}

impl Schedule {
    /// Whether `anchor` is due. One with a new endpoint always is.
    fn is_due(&mut self, anchor: &TrustAnchor, endpoint: &BundleEndpoint, now: Duration) -> bool {
        let due = self.0.entry(anchor.id.clone()).or_insert_with(|| Due {
            endpoint: endpoint.clone(),
            at: now,
            failures: 0,
            confirmed: now,
        });
        if due.endpoint != *endpoint {
            *due = Due { endpoint: endpoint.clone(), at: now, failures: 0, confirmed: due.confirmed };
        }
        due.at <= now
    }

    /// Notes what came of it; says how often it has failed before.
    fn settle(&mut self, id: &AnchorId, interval: Duration, worked: bool, now: Duration) -> u32 {
        let Some(due) = self.0.get_mut(id) else { return 0 };
        let before = due.failures;
        if worked {
            (due.failures, due.confirmed, due.at) = (0, now, now.saturating_add(interval));
        } else {
            due.failures = before.saturating_add(1);
            due.at = now.saturating_add(back_off(interval, due.failures));
        }
        before
    }
}

async fn round(
    registry: &Arc<Registry>,
    fetcher: &Fetcher,
    clock: &dyn Clock,
    node: &str,
    anchors: Vec<TrustAnchor>,
    schedule: &mut Schedule,
) {
    schedule.0.retain(|id, _| anchors.iter().any(|anchor| anchor.id == *id));
    let mut asked = Vec::new();
    for anchor in &anchors {
        let AnchorMaterial::TrustDomain { trust_domain, endpoint, bundle } = &anchor.material else { continue };
        if schedule.is_due(anchor, endpoint, clock.monotonic()) {
            let explanation = Explanation {
                actor: Actor::Server { node: node.to_owned() },
                at: clock.now(),
                why: Some("the trust domain published another bundle".to_owned()),
            };
            // A task of its own: whatever foreign octets bring about ends there, and no endpoint waits for another.
            let (registry, fetcher, anchor) = (Arc::clone(registry), fetcher.clone(), anchor.clone());
            let asking = tokio::spawn(async move { refresh(&registry, &fetcher, &anchor, explanation).await });
            asked.push((trust_domain, bundle, asking));
        }
    }
    for (trust_domain, bundle, asking) in asked {
        let outcome = match asking.await {
            Ok(outcome) => outcome.map_err(|error| error.to_string()),
            Err(error) => Err(error.to_string()),
        };
        let held = Bundle::parse(bundle.as_bytes(), trust_domain).ok();
        let interval = interval(held.and_then(|held| held.refresh_hint));
        let id = AnchorId::of_trust_domain(trust_domain);
        let failures = schedule.settle(&id, interval, outcome.is_ok(), clock.monotonic());
        let name = trust_domain.as_str();
        let told = match &outcome {
            Ok(Refreshed::Replaced { version }) => {
                tracing::info!(trust_domain = name, registry.version = %version, "another bundle is held");
                "replaced"
            }
            Ok(Refreshed::Unchanged) => "unchanged",
            Err(reason) if failures == 0 => {
                tracing::warn!(trust_domain = name, %reason, "the bundle could not be refreshed: the one held stays");
                "failed"
            }
            Err(_) => "failed",
        };
        if outcome.is_ok() && failures > 0 {
            tracing::info!(trust_domain = name, "the bundle can be refreshed again");
        }
        metrics::counter!(telemetry::BUNDLE_REFRESHES, "trust_domain" => name.to_owned(), "outcome" => told)
            .increment(1);
    }
    for anchor in &anchors {
        let AnchorMaterial::TrustDomain { trust_domain, bundle, .. } = &anchor.material else { continue };
        let name = trust_domain.as_str().to_owned();
        if let Some(due) = schedule.0.get(&anchor.id) {
            let age = clock.monotonic().saturating_sub(due.confirmed);
            metrics::gauge!(telemetry::BUNDLE_AGE, "trust_domain" => name.clone()).set(age.as_secs_f64());
        }
        let sequence = Bundle::parse(bundle.as_bytes(), trust_domain).ok().and_then(|held| held.sequence);
        if let Some(sequence) = sequence {
            metrics::gauge!(telemetry::BUNDLE_SEQUENCE, "trust_domain" => name).set(sequence as f64);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hints_are_bounded() {
        let seconds = |hint: u64| interval(Some(Duration::from_secs(hint))).as_secs();
        assert_eq!(interval(None).as_secs(), 300);
        assert_eq!((seconds(0), seconds(59), seconds(60), seconds(61)), (60, 60, 60, 61));
        assert_eq!((seconds(86_400), seconds(86_401), seconds(u64::MAX)), (86_400, 86_400, 86_400));
    }

    #[test]
    fn an_endpoint_that_fails_is_asked_ever_more_seldom_and_never_never() {
        let minutes = |interval: u64, failures| back_off(Duration::from_secs(interval * 60), failures).as_secs() / 60;
        assert_eq!([1, 2, 3, 4, 5, 6, 40].map(|failures| minutes(5, failures)), [5, 10, 20, 40, 60, 60, 60]);
        assert_eq!([1, 2, 40].map(|failures| minutes(24 * 60, failures)), [24 * 60; 3]);
    }

    #[test]
    fn who_is_due() {
        let web = |url: &str| BundleEndpoint::HttpsWeb { url: url.to_owned() };
        let (one, other) = (web("https://one.example/"), web("https://other.example/"));
        let anchor = crate::registry::fixture::anchor("a");
        let second = Duration::from_secs(1);
        let (mut schedule, interval) = (Schedule::default(), 60 * second);
        assert!(schedule.is_due(&anchor, &one, second));
        assert_eq!(schedule.settle(&anchor.id, interval, true, second), 0);
        assert!(!schedule.is_due(&anchor, &one, 60 * second));
        assert!(schedule.is_due(&anchor, &one, 61 * second));
        assert_eq!(schedule.settle(&anchor.id, interval, false, 61 * second), 0);
        assert_eq!(schedule.settle(&anchor.id, interval, false, 121 * second), 1);
        assert!(!schedule.is_due(&anchor, &one, 240 * second));
        // The operator has corrected the URL.
        assert!(schedule.is_due(&anchor, &other, 240 * second));
        assert_eq!(schedule.settle(&anchor.id, interval, true, 240 * second), 0);
    }

    #[test]
    fn endpoints_as_an_operator_writes_them() {
        assert_eq!(endpoint_of("https://a.example/b.json", None).unwrap().profile(), "https_web");
        let id = "spiffe://a.example/bundle";
        assert_eq!(endpoint_of("https://192.0.2.1:8443/", Some(id)).unwrap().profile(), "https_spiffe");
        for wrong in [
            "",
            "a.example",
            "http://a.example/",
            "https:///b",
            "https://u@a.example/",
            "https://u:p@a.example/",
            "ftp://a.example/",
            "/b",
        ] {
            assert_eq!(endpoint_of(wrong, None), Err(MalformedEndpoint::Url), "{wrong}");
        }
        let url = "https://a.example/";
        assert_eq!(endpoint_of(url, Some("spiffe://a.example")), Err(MalformedEndpoint::NoWorkload));
        assert!(matches!(endpoint_of(url, Some("https://a.example/x")), Err(MalformedEndpoint::SpiffeId(_))));
    }
}
