//! Is this certificate still good, as its issuer's responder says? (RFC 6960)
//!
//! Takes questions after certificates and an anchor's policy, gives a status: remembered if it is known, asked for over HTTP
//! if not, within two seconds. An answer counts only under the signature of the issuer or its delegate, whoever sent it. It
//! knows nothing of clients; what a status means for a request is `revocation`'s to say.

use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use countersign_resource_server::time::{Clock, UnixTime};
use futures_util::FutureExt;
use futures_util::future::{BoxFuture, Shared};
use sha2::{Digest, Sha256};
use tokio::sync::{Notify, Semaphore};

use super::der;
use super::revocation::{CrlReason, Question, Status, StatusSource};
use super::signature::Signer;
use crate::fetch::{self, Bounds, FetchError, Fetcher};
use crate::mint::random_octets;
use crate::registry::trust_anchor::{NoncePolicy, OcspPolicy};
use crate::registry::{AnchorId, KeyHash};
use crate::telemetry;

/// Where a certificate says that it can be asked after.
pub(super) mod access;

/// What of an answer can be believed, and for how long.
mod answer;

/// What is known of one certificate's status.
mod memory;

/// What is asked.
mod request;

/// What was answered, taken apart.
mod response;

/// Who may answer.
mod signer;

/// What goes on when nobody asks.
mod watch;

/// What a revocation means for certificates on record.
mod consequence;

#[cfg(test)]
mod tests;

pub use consequence::OnRecord;
pub use watch::{Consequences, FoundRevoked};

use answer::Answer;
use memory::{Known, Standing};
use request::CertId;
use response::CertStatus;

/// A whole question, from the first attempt to connect to the last octet of the last responder's answer.
const LONGEST_WAIT: Duration = Duration::from_secs(2);

/// The longest answer that is read. Usual ones have one or two kilobytes.
const LONGEST_ANSWER_BYTES: usize = 64 * 1024;

/// Certificates that are remembered: about a kilobyte each, with what it takes to ask again.
const REMEMBERED_CERTIFICATES: u64 = 16 * 1024;

/// Questions that one responder is asked at the same time, so that a slow one holds up its own certificates and no others.
const QUESTIONS_AT_A_TIME: usize = 16;

/// Responders whose questions are counted.
const REMEMBERED_RESPONDERS: u64 = 1024;

/// What `octets` say at `now` of the certificate with this serial number (in hexadecimal) of this issuer (name and key in DER),
/// whichever request they answer: how a responder's answer is judged, without asking anybody.
///
/// # Errors
/// Why they say nothing that counts, in words.
pub fn judge(
    octets: &[u8],
    issuer_name_der: &[u8],
    issuer_spki_der: &[u8],
    serial: &str,
    now: UnixTime,
) -> Result<Status, String> {
    let issuer = Signer { name_der: issuer_name_der.to_owned(), spki_der: issuer_spki_der.to_owned() };
    let serial = hex::decode(serial).map_err(|error| error.to_string())?;
    let id = CertId::new(&issuer, &serial).map_err(|_| "the issuer's key cannot be read".to_owned())?;
    let response = response::Response::read(octets, &id).map_err(|why| why.to_string())?;
    let nonce = response.nonce.and_then(|nonce| nonce.try_into().ok()).unwrap_or_default();
    let answer = answer::read(octets, &id, &issuer, &nonce, NoncePolicy::IfPresent, now);
    match answer.map_err(|why| why.to_string())?.status {
        CertStatus::Good => Ok(Status::Good),
        CertStatus::Revoked { at, reason } => Ok(Status::Revoked { at, reason }),
        CertStatus::Unknown => Ok(Status::Unknown),
    }
}

/// Asks responders, and remembers what they said.
#[derive(Debug)]
pub struct Responders(Arc<Asking>);

/// What questions share with the tasks that ask.
struct Asking {
    fetcher: Fetcher,
    clock: Arc<dyn Clock>,
    lines: moka::sync::Cache<LineId, Arc<Line>>,
    /// By responder: how many more questions it may be asked now.
    places: moka::sync::Cache<String, Arc<Semaphore>>,
    /// Told when a certificate is found revoked.
    found: Notify,
}

/// SHA-256 over all that an answer depends on: the certificate, and who is asked how.
type LineId = [u8; 32];

/// One certificate that was asked after.
struct Line {
    /// Under which anchor it was presented.
    anchor: AnchorId,
    issuer: Signer,
    issuer_key: KeyHash,
    /// As the registry has it.
    serial: String,
    is_authority: bool,
    id: CertId,
    /// The responders, in the order in which they are asked.
    urls: Vec<String>,
    nonce: NoncePolicy,
    state: Mutex<State>,
}

struct State {
    known: Known,
    /// The exchange that is under way.
    asking: Option<Shared<BoxFuture<'static, ()>>>,
    /// When a request last wanted to know.
    wanted_at: UnixTime,
    /// Whether what is known to be revoked is on record.
    is_on_record: bool,
}

impl Responders {
    /// Asks with `fetcher`, and judges what it remembers of its own accord by `clock`.
    pub fn new(fetcher: Fetcher, clock: Arc<dyn Clock>) -> Self {
        let recent = |capacity| moka::sync::Cache::builder().max_capacity(capacity);
        Self(Arc::new(Asking {
            fetcher,
            clock,
            // Whoever has many certificates pushes out who was not seen for longest, not what is in use.
            lines: recent(REMEMBERED_CERTIFICATES).eviction_policy(moka::policy::EvictionPolicy::lru()).build(),
            places: moka::sync::Cache::new(REMEMBERED_RESPONDERS),
            found: Notify::new(),
        }))
    }
}

impl StatusSource for Responders {
    fn status<'a>(&'a self, question: Question<'a>, policy: &'a OcspPolicy, now: UnixTime) -> BoxFuture<'a, Status> {
        async move {
            let Some(line) = self.0.line(&question, policy, now) else { return Status::Unreachable };
            let asking = match line.wanted(now) {
                Standing::Stands { status, is_due: false } => return status,
                Standing::Stands { status, is_due: true } => {
                    drop(self.0.ask(&line, now)); // goes on by itself
                    return status;
                }
                Standing::Nothing => self.0.ask(&line, now),
            };
            if let Some(asking) = asking {
                asking.await;
            }
            match line.lock().known.at(now) {
                Standing::Stands { status, .. } => status,
                Standing::Nothing => Status::Unreachable,
            }
        }
        .boxed()
    }
}

impl Asking {
    /// The line of this certificate; none if nobody may be asked after it.
    fn line(&self, question: &Question<'_>, policy: &OcspPolicy, now: UnixTime) -> Option<Arc<Line>> {
        let allowed = |url: &&String| fetch::is_allowed(url, &policy.url_prefixes);
        let named = question.responder_urls.iter().filter(allowed);
        let urls: Vec<&String> = match &policy.responder_url {
            // The operator's word about this anchor: what certificates say does not count beside it.
            Some(url) => vec![url],
            None => named.collect(),
        };
        if urls.is_empty() {
            return None;
        }
        let mut hash = Sha256::new();
        let mut add = |part: &[u8]| {
            hash.update((part.len() as u64).to_be_bytes());
            hash.update(part);
        };
        add(question.anchor.as_str().as_bytes());
        add(question.issuer_name_der);
        add(question.issuer_spki_der);
        add(question.serial.as_bytes());
        add(&[u8::from(question.is_authority), u8::from(policy.nonce == NoncePolicy::Required)]);
        for url in &urls {
            add(url.as_bytes());
        }
        let id: LineId = hash.finalize().into();
        if let Some(line) = self.lines.get(&id) {
            return Some(line);
        }
        let issuer =
            Signer { name_der: question.issuer_name_der.to_owned(), spki_der: question.issuer_spki_der.to_owned() };
        let line = Arc::new(Line {
            id: CertId::new(&issuer, &hex::decode(question.serial).ok()?).ok()?,
            anchor: question.anchor.clone(),
            issuer,
            issuer_key: *question.issuer_key,
            serial: question.serial.to_owned(),
            is_authority: question.is_authority,
            urls: urls.into_iter().cloned().collect(),
            nonce: policy.nonce,
            state: Mutex::new(State { known: Known::default(), asking: None, wanted_at: now, is_on_record: false }),
        });
        Some(self.lines.get_with(id, || line))
    }

    /// The exchange about this certificate: the one that is under way, or a new one; none if one has just ended. It goes on
    /// if nobody waits for it.
    fn ask(self: &Arc<Self>, line: &Arc<Line>, now: UnixTime) -> Option<Shared<BoxFuture<'static, ()>>> {
        let mut state = line.lock();
        if state.asking.is_some() {
            return state.asking.clone();
        }
        if matches!(state.known.at(now), Standing::Stands { is_due: false, .. }) {
            return None;
        }
        let (own, asked) = (Arc::clone(self), Arc::clone(line));
        let task = tokio::spawn(async move {
            let begun = own.clock.monotonic();
            // What others send is taken apart here: should that ever panic, it is one answer that could not be read.
            let exchange = std::panic::AssertUnwindSafe(own.exchange(&asked, now)).catch_unwind();
            let led_to = match tokio::time::timeout(LONGEST_WAIT, exchange).await {
                Ok(led_to) => led_to.unwrap_or(Err(NoAnswer::Unusable(Unusable::Malformed))),
                Err(_) => Err(NoAnswer::Fetch(FetchError::TimedOut)),
            };
            let took = own.clock.monotonic().saturating_sub(begun);
            own.take(&asked, led_to, now, took);
        });
        let asking = task.map(drop).boxed().shared();
        state.asking = Some(asking.clone());
        Some(asking)
    }

    /// Takes in where an exchange led.
    fn take(&self, line: &Line, led_to: Result<Answer, NoAnswer>, now: UnixTime, took: Duration) {
        let outcome = led_to.as_ref().map_or_else(NoAnswer::reason, |answer| match answer.status {
            CertStatus::Good => "good",
            CertStatus::Revoked { .. } => "revoked",
            CertStatus::Unknown => "unknown",
        });
        metrics::counter!(telemetry::OCSP_ANSWERS, "outcome" => outcome).increment(1);
        metrics::histogram!(telemetry::OCSP_SECONDS).record(took.as_secs_f64());
        if let Err(why) = &led_to {
            tracing::info!(certificate.serial = line.serial, %why, "certificate status not learnt");
        }
        let mut state = line.lock();
        state.asking = None;
        // The date of a hold is its responder's to change with every answer: that ends no more tokens.
        let is_on_hold = |known: &Known| known.revocation().map(|(_, reason)| reason == CrlReason::CertificateHold);
        let before = is_on_hold(&state.known);
        if state.known.take(led_to.ok(), now) && is_on_hold(&state.known) != before {
            state.is_on_record = false;
            self.found.notify_one();
        }
    }

    /// Asks one responder after the other, until one gives an answer that counts.
    async fn exchange(&self, line: &Line, now: UnixTime) -> Result<Answer, NoAnswer> {
        let shares = u32::try_from(line.urls.len()).unwrap_or(u32::MAX).max(1);
        let bounds = Bounds { bytes: LONGEST_ANSWER_BYTES, time: LONGEST_WAIT / shares };
        let mut failure = NoAnswer::Fetch(FetchError::Address);
        for url in &line.urls {
            match tokio::time::timeout(bounds.time, self.exchange_with(url, line, bounds, now)).await {
                Ok(Ok(answer)) => return Ok(answer),
                Ok(Err(why)) => failure = why,
                Err(_) => failure = NoAnswer::Fetch(FetchError::TimedOut),
            }
        }
        Err(failure)
    }

    // RFC 6960 appendix A.1: POST, application/ocsp-request. Over plain HTTP as well: the answer is signed.
    async fn exchange_with(&self, url: &str, line: &Line, bounds: Bounds, now: UnixTime) -> Result<Answer, NoAnswer> {
        let responder = url.split('/').nth(2).unwrap_or_default().to_owned();
        let places = self.places.get_with(responder, || Arc::new(Semaphore::new(QUESTIONS_AT_A_TIME)));
        // Never closed; and were it, there would be no place.
        let _place = places.acquire().await.map_err(|_| NoAnswer::Fetch(FetchError::TimedOut))?;
        let nonce = random_octets();
        let request = Bytes::from(request::request(&line.id, &nonce));
        let post = || {
            let (accept, content_type) = ("application/ocsp-response", "application/ocsp-request");
            self.fetcher.post(url, accept, content_type, request.clone(), bounds)
        };
        let answer = match post().await {
            // A connection that was kept from before may have been closed by the other side meanwhile: once more.
            Err(FetchError::Connection(_)) => post().await,
            answer => answer,
        }
        .map_err(NoAnswer::Fetch)?;
        answer::read(&answer.body, &line.id, &line.issuer, &nonce, line.nonce, now).map_err(NoAnswer::Unusable)
    }
}

impl Line {
    /// What stands at `now`, for a request.
    fn wanted(&self, now: UnixTime) -> Standing {
        let mut state = self.lock();
        state.wanted_at = state.wanted_at.max(now);
        state.known.at(now)
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // Nothing that is done under the lock can be left half done.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl fmt::Debug for Asking {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Asking").field("certificates", &self.lines.entry_count()).finish_non_exhaustive()
    }
}

/// Why an exchange led to no answer.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
enum NoAnswer {
    #[error("no answer: {0}")]
    Fetch(FetchError),
    #[error("an answer that does not count: {0}")]
    Unusable(Unusable),
}

impl NoAnswer {
    /// The name in metrics.
    const fn reason(&self) -> &'static str {
        match self {
            Self::Fetch(FetchError::Address) => "address",
            Self::Fetch(FetchError::Body) => "body",
            Self::Fetch(FetchError::Connection(_)) => "no_connection",
            Self::Fetch(FetchError::Later { .. } | FetchError::Status(_)) => "http_status",
            Self::Fetch(FetchError::TimedOut) => "timed_out",
            Self::Unusable(why) => why.reason(),
        }
    }
}

/// Why an answer does not count.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
enum Unusable {
    #[error("it answers the same question twice")]
    Ambiguous,
    #[error("it has a critical extension that is not understood")]
    CriticalExtensionUnknown,
    #[error("its time has not come: the responder's clock is ahead, or ours behind")]
    FromTheFuture,
    #[error("it cannot be read, or in more than one way")]
    Malformed,
    #[error("it does not repeat the nonce of its request, as the anchor demands")]
    NonceMissing,
    #[error("it is about other certificates")]
    OtherCertificate,
    #[error("it is of a kind that is not read here")]
    OtherKind,
    #[error("it answers another request: the nonce is not ours")]
    OtherNonce,
    #[error("its signature does not hold")]
    SignatureInvalid,
    #[error("its signer's certificate is not for OCSP signing")]
    SignerNotDelegated,
    #[error("its signer's certificate is not from the certificate's own issuer")]
    SignerOfAnotherIssuer,
    #[error("its signer's certificate is not in date")]
    SignerOutOfDate,
    #[error("its signer's certificate may be revoked itself: it lacks id-pkix-ocsp-nocheck")]
    SignerUnchecked,
    #[error("its signer's certificate or key is not fit to sign")]
    SignerUnfit,
    #[error("its signer is neither the issuer nor one whose certificate came along")]
    SignerUnknown,
    #[error("it is out of date")]
    Stale,
    #[error("the responder refuses: OCSPResponseStatus {0}")]
    Unsuccessful(u8),
}

impl Unusable {
    /// The name in metrics.
    const fn reason(self) -> &'static str {
        match self {
            Self::Ambiguous => "ambiguous",
            Self::CriticalExtensionUnknown => "critical_extension_unknown",
            Self::FromTheFuture => "from_the_future",
            Self::Malformed => "malformed",
            Self::NonceMissing => "nonce_missing",
            Self::OtherCertificate => "other_certificate",
            Self::OtherKind => "other_kind",
            Self::OtherNonce => "other_nonce",
            Self::SignatureInvalid => "signature_invalid",
            Self::SignerNotDelegated => "signer_not_delegated",
            Self::SignerOfAnotherIssuer => "signer_of_another_issuer",
            Self::SignerOutOfDate => "signer_out_of_date",
            Self::SignerUnchecked => "signer_unchecked",
            Self::SignerUnfit => "signer_unfit",
            Self::SignerUnknown => "signer_unknown",
            Self::Stale => "stale",
            Self::Unsuccessful(_) => "unsuccessful",
        }
    }
}

impl From<der::NotDer> for Unusable {
    fn from(_: der::NotDer) -> Self {
        Self::Malformed
    }
}
