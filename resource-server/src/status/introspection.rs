//! Is this token still good, in the authorization server's own words? (RFC 7662)
//!
//! Takes a token that is good as far as anybody here can say, but for a revocation list that is too old to say it, and asks;
//! gives a [`LiveToken`] or the refusal. An answer counts for a second, and for everybody who waited for it. It knows nothing
//! of HTTP, and does not decide when to ask.

/// Who has how many questions.
mod shares;

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use arc_swap::ArcSwap;
use bytes::Bytes;
use serde_json::Value;
use tokio::runtime::Handle;
use tokio::sync::{Mutex, Semaphore, SemaphorePermit};

use self::shares::Shares;
use super::{HeldList, LiveToken};
use crate::confirmation::{Confirmation, ConfirmedToken};
use crate::error::StatusRefusal;
use crate::follower::{FetchError, Fetcher};
use crate::time::{Clock, UnixTime};
use crate::token::access_token::{LEEWAY, VerifiedToken};
use crate::token::json;

/// How long an answer is waited for, and how long a call waits in all.
pub const PATIENCE: Duration = Duration::from_secs(2);

/// How long it counts that a token is active, from when it was asked for: a revoked one is let through for as long at most, or
/// for as long as the answer took to come.
pub const ANSWER_COUNTS: Duration = Duration::from_secs(1);

/// How many questions may be under way at one time.
pub const MOST_QUESTIONS: usize = 256;

/// How many calls may wait at one time, for answers of their own or of others.
pub const MOST_WAITING: usize = 4_096;

/// How many questions about the tokens of one client may be under way at one time.
pub const MOST_QUESTIONS_OF_A_CLIENT: usize = 32;

/// How many calls of one client may wait at one time.
pub const MOST_WAITING_OF_A_CLIENT: usize = 512;

/// The longest answer that is looked at.
const MAX_ANSWER_BYTES: usize = 64 * 1024;

/// How soon after it was told of trouble is told of again: each call could bring news, and the next call other news.
const TELL_AGAIN: Duration = Duration::from_secs(60);

/// How often it is asked about what is no token: while the list is too old and calls wait for answers; while it is fresh and
/// questions are not answered; while nothing is the matter.
const SOUND_WHILE_STALE: Duration = Duration::from_secs(5);
const SOUND_IN_TROUBLE: Duration = Duration::from_secs(30);
const SOUND_AT_EASE: Duration = Duration::from_secs(300);
const SECOND: Duration = Duration::from_secs(1);

/// What is no token, whoever looks at it.
const NO_TOKEN: &str = "countersign-guard";

/// Asks the authorization server about tokens.
pub struct Introspection {
    line: Box<dyn Line>,
    revocations: Arc<HeldList>,
    clock: Arc<dyn Clock>,
    runtime: Handle,
    patience: Duration,
    waiting: Semaphore,
    /// Of those that wait, each client's: no client is to take all the places.
    waiting_of: Shares,
    questions: Semaphore,
    questions_of: Shares,
    /// The one question that may be under way to a server that gives no answers.
    probe: Semaphore,
    /// Whether the last question brought no answer, of whatever kind.
    failing: AtomicBool,
    /// Whether the last question that was asked led to an answer that could be used.
    answered: AtomicBool,
    /// When trouble was last told of, by the monotonic clock in milliseconds from 1, or 0 if never; and whether its end has not been yet.
    told_at: AtomicU64,
    told: AtomicBool,
}

impl Introspection {
    pub(crate) fn new(
        line: impl Line,
        revocations: Arc<HeldList>,
        clock: Arc<dyn Clock>,
        runtime: Handle,
        patience: Duration,
    ) -> Self {
        Self {
            line: Box::new(line),
            revocations,
            clock,
            runtime,
            patience,
            waiting: Semaphore::new(MOST_WAITING),
            waiting_of: Shares::of(MOST_WAITING_OF_A_CLIENT),
            questions: Semaphore::new(MOST_QUESTIONS),
            questions_of: Shares::of(MOST_QUESTIONS_OF_A_CLIENT),
            probe: Semaphore::new(1),
            failing: AtomicBool::new(false),
            answered: AtomicBool::new(false),
            told_at: AtomicU64::new(0),
            told: AtomicBool::new(false),
        }
    }

    /// Asks whether `token`, whose text is `text`, is still good.
    ///
    /// # Errors
    /// [`StatusRefusal::IntrospectionInactive`] if it is not, [`StatusRefusal::IntrospectionOfAnotherToken`] or
    /// [`StatusRefusal::IntrospectionUnavailable`] if that was not to be learned, or the mark that came meanwhile.
    pub(crate) async fn ask(
        self: Arc<Self>,
        token: ConfirmedToken,
        text: Arc<str>,
    ) -> Result<LiveToken, StatusRefusal> {
        let client = &token.token().claims().client_id;
        let _share = self.waiting_of.take(client).ok_or(StatusRefusal::IntrospectionUnavailable)?;
        let _waiting = self.waiting.try_acquire().map_err(|_| StatusRefusal::IntrospectionUnavailable)?;
        let told = tokio::time::timeout(self.patience, self.told(Arc::clone(token.token()), text)).await;
        told.unwrap_or(Err(StatusRefusal::IntrospectionUnavailable))?;
        self.revocations.find_mark(&token)?; // of a list that came meanwhile
        Ok(LiveToken(token))
    }

    /// What time it is here.
    pub(crate) fn now(&self) -> UnixTime {
        self.clock.now()
    }

    /// Whether the last question was answered: before the first, nobody knows.
    pub(crate) fn is_answered(&self) -> bool {
        self.answered.load(Ordering::Relaxed)
    }

    /// What is told of a token: lately, or by the question that is under way, or by one of its own.
    async fn told(self: &Arc<Self>, token: Arc<VerifiedToken>, text: Arc<str>) -> Verdict {
        let came = self.clock.monotonic();
        let mut note = Arc::clone(&token.told.0).lock_owned().await;
        if let Some(told) = note.as_ref().filter(|told| self.counts(told, came, &token)) {
            return told.verdict;
        }
        // On a task of its own: a caller that goes away takes neither the answer from those who wait for it, nor the
        // connection.
        let asker = Arc::clone(self);
        let asking = self.runtime.spawn(async move {
            let (asked_at, asked_on) = (asker.clock.monotonic(), asker.clock.now());
            let is_new = asked_on.since(UnixTime::from_seconds(token.claims().iat)) < LEEWAY;
            let verdict = asker.question(&token, text).await;
            *note = Some(Told { asked_at, answered_at: asker.clock.monotonic(), is_new, verdict });
            verdict
        });
        asking.await.unwrap_or(Err(StatusRefusal::IntrospectionUnavailable))
    }

    fn counts(&self, told: &Told, came: Duration, token: &VerifiedToken) -> bool {
        let lasts = match told.verdict {
            Ok(()) => ANSWER_COUNTS,
            // Nothing revives a token. But one that has only just been issued may not have come to the node that was asked,
            // nor its key, or the clocks may differ by as much.
            Err(StatusRefusal::IntrospectionInactive) if told.is_new => ANSWER_COUNTS,
            Err(StatusRefusal::IntrospectionInactive) => ANSWER_COUNTS.max(self.revocations.staleness_limit()),
            Err(_) => Duration::ZERO,
        };
        let is_recent = self.clock.monotonic().saturating_sub(told.asked_at) < lasts
            // RFC 7662 §4: "MUST NOT be cached beyond" its exp.
            && self.clock.now() < UnixTime::from_seconds(token.claims().exp);
        // Who waited shares the answer, and a failure too: otherwise one would wait for another's failure after the other.
        told.answered_at > came || is_recent
    }

    async fn question(&self, token: &VerifiedToken, text: Arc<str>) -> Verdict {
        let answer = match self.questions_of.take(&token.claims().client_id) {
            None => self.tell(Err(NoAnswer::NotAsked)),
            Some(_share) => self.answer(text, |body| read(body, token)).await,
        };
        match answer {
            Ok(Word::Active) => Ok(()),
            Ok(Word::Inactive | Word::NoToken) => Err(StatusRefusal::IntrospectionInactive),
            Err(NoAnswer::AnotherToken) => Err(StatusRefusal::IntrospectionOfAnotherToken),
            Err(_) => Err(StatusRefusal::IntrospectionUnavailable),
        }
    }

    /// Asks for ever about a text that is no token: who says that it is not active is there, and knows this API. So it is known
    /// before the first call has to be asked about, and that trouble is over before the next has.
    pub(crate) async fn sound_out(self: Arc<Self>) {
        let mut asked_at = None;
        loop {
            let pause = match (self.revocations.is_fresh(), self.is_answered()) {
                (false, _) => SOUND_WHILE_STALE,
                (true, false) => SOUND_IN_TROUBLE,
                (true, true) => SOUND_AT_EASE,
            };
            let now = self.clock.monotonic();
            if asked_at.is_none_or(|before| now.saturating_sub(before) >= pause) {
                asked_at = Some(now);
                let _told = self.answer(NO_TOKEN.into(), read_of_no_token).await;
            }
            tokio::time::sleep(SECOND).await;
        }
    }

    /// The answer to one question, if it may be asked and one comes; counted and told of.
    async fn answer(
        &self,
        text: Arc<str>,
        read: impl FnOnce(&[u8]) -> Result<Word, NoAnswer>,
    ) -> Result<Word, NoAnswer> {
        let Some(_place) = self.place() else { return self.tell(Err(NoAnswer::NotAsked)) };
        let came = tokio::time::timeout(self.patience, self.line.ask(text)).await;
        let came = came.unwrap_or(Err(FetchError::TimedOut));
        if matches!(came, Err(FetchError::Body | FetchError::Connection(_) | FetchError::TimedOut)) {
            self.line.hang_up();
        }
        self.failing.store(came.is_err(), Ordering::Relaxed);
        self.tell(came.map_err(NoAnswer::Fetch).and_then(|body| read(&body)))
    }

    /// Leave to ask, if there is any. A server that is silent, away or overloaded, or will have nothing to do with this API, is
    /// asked one at a time until it answers: calls are not to wait, all of them, for what does not come, nor to add to it.
    fn place(&self) -> Option<SemaphorePermit<'_>> {
        let places = if self.failing.load(Ordering::Relaxed) { &self.probe } else { &self.questions };
        places.try_acquire().ok()
    }

    /// Counts an answer, and tells of trouble and of its end, once in a while.
    fn tell(&self, answer: Result<Word, NoAnswer>) -> Result<Word, NoAnswer> {
        let result = match &answer {
            Ok(Word::Active) => "active",
            Ok(Word::Inactive) => "inactive",
            Ok(Word::NoToken) => "no_token",
            Err(NoAnswer::AnotherToken) => "another_token",
            Err(NoAnswer::NotAsked) => "not_asked",
            Err(NoAnswer::Fetch(_) | NoAnswer::Malformed) => "failed",
        };
        metrics::counter!("countersign_guard_introspections_total", "result" => result).increment(1);
        if answer == Err(NoAnswer::NotAsked) {
            return answer; // a matter of load, or of trouble that was told of
        }
        self.answered.store(answer.is_ok(), Ordering::Relaxed);
        metrics::gauge!("countersign_guard_introspection_answered").set(f64::from(u8::from(answer.is_ok())));
        match &answer {
            Ok(_) => {
                if self.told.load(Ordering::Relaxed) && self.told.swap(false, Ordering::Relaxed) {
                    tracing::info!("the authorization server answers questions about tokens again");
                }
            }
            Err(error) => {
                let now = u64::try_from(self.clock.monotonic().as_millis()).unwrap_or(u64::MAX).max(1);
                let before = self.told_at.load(Ordering::Relaxed);
                let is_time = before == 0 || Duration::from_millis(now.saturating_sub(before)) >= TELL_AGAIN;
                let relaxed = Ordering::Relaxed;
                if is_time && self.told_at.compare_exchange(before, now, relaxed, relaxed).is_ok() {
                    self.told.store(true, Ordering::Relaxed);
                    tracing::warn!(%error, "asked about a token, the authorization server gives no usable answer");
                }
            }
        }
        answer
    }
}

impl fmt::Debug for Introspection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Introspection")
    }
}

/// What an answer says of `token`, if it is about that one.
fn read(body: &[u8], token: &VerifiedToken) -> Result<Word, NoAnswer> {
    let told = json::parse_object(body).map_err(|_| NoAnswer::Malformed)?;
    // RFC 7662 §2.2: a boolean, and the one member that is always there.
    match told.get("active") {
        Some(Value::Bool(true)) => {}
        Some(Value::Bool(false)) => return Ok(Word::Inactive),
        _ => return Err(NoAnswer::Malformed),
    }
    let claims = token.claims();
    let says = |name: &str, expected: &str| told.get(name).and_then(Value::as_str) == Some(expected);
    // RFC 7662 §2.2 leaves them open; our server tells all that the token says, `cnf` too (RFC 8705 §3.2).
    let confirmation = told.get("cnf").and_then(|cnf| serde_json::from_value::<Confirmation>(cnf.clone()).ok());
    let is_this_one = says("jti", &claims.jti)
        && says("iss", &claims.iss)
        && says("aud", &claims.aud)
        && says("client_id", &claims.client_id)
        && confirmation == Some(claims.cnf);
    if is_this_one { Ok(Word::Active) } else { Err(NoAnswer::AnotherToken) }
}

/// What an answer says of what is no token.
fn read_of_no_token(body: &[u8]) -> Result<Word, NoAnswer> {
    let told = json::parse_object(body).map_err(|_| NoAnswer::Malformed)?;
    // RFC 7662 §2.2. Whoever calls it active would call anything so.
    if told.get("active") == Some(&Value::Bool(false)) { Ok(Word::NoToken) } else { Err(NoAnswer::Malformed) }
}

type Verdict = Result<(), StatusRefusal>;

/// What a token was last told to be: `Introspection`'s note to itself on a remembered token. Held while it is asked about, so
/// that there is one question about a token at a time.
#[derive(Debug, Default)]
pub(crate) struct Note(Arc<Mutex<Option<Told>>>);

#[derive(Debug)]
struct Told {
    /// By the monotonic clock, as is the other.
    asked_at: Duration,
    answered_at: Duration,
    /// Whether the token had only just been issued then.
    is_new: bool,
    verdict: Verdict,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Word {
    Active,
    Inactive,
    NoToken,
}

/// Why nothing was learned.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
enum NoAnswer {
    #[error("it told of another token")]
    AnotherToken,
    #[error(transparent)]
    Fetch(FetchError),
    #[error("what it said is no answer by RFC 7662")]
    Malformed,
    #[error("it was not asked: too many questions are under way, or it gives no answers")]
    NotAsked,
}

/// Carries a question about a token to the authorization server, and brings the answer's body.
pub(crate) trait Line: Send + Sync + 'static {
    fn ask(&self, token: Arc<str>) -> Answering;

    /// A question led to nothing: what this one has of connections may be as dead as the one that it went over.
    fn hang_up(&self) {}
}

pub(crate) type Answering = Pin<Box<dyn Future<Output = Result<Bytes, FetchError>> + Send>>;

/// The line that there is: the endpoint, over HTTPS.
pub(crate) struct Endpoint {
    fetcher: ArcSwap<Fetcher>,
    url: Arc<str>,
}

impl Endpoint {
    pub(crate) fn new(fetcher: Fetcher, url: String) -> Self {
        Self { fetcher: ArcSwap::from_pointee(fetcher), url: url.into() }
    }
}

impl Line for Endpoint {
    fn ask(&self, token: Arc<str>) -> Answering {
        let (fetcher, url) = (self.fetcher.load_full(), Arc::clone(&self.url));
        Box::pin(async move {
            // RFC 7662 §2.1. A token's characters are unreserved (RFC 7515 §2): they stand for themselves in a form.
            fetcher.post_form(&url, format!("token={token}"), MAX_ANSWER_BYTES).await
        })
    }

    fn hang_up(&self) {
        self.fetcher.store(Arc::new(self.fetcher.load().afresh()));
    }
}

#[cfg(test)]
mod scene;

#[cfg(test)]
mod tests;
