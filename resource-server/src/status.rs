//! Which issued tokens are dead before their time?
//!
//! Takes the authorization server's signed revocation list, gives a verdict on a token: by what it names (participant,
//! client, certificate, key, anchor, entitlement, resource server, signing key, `jti`) and its registry version. It does
//! not fetch the list. Where the list is too old to say anything, `introspection` asks.

/// What is held of a list.
mod held;

/// The words of the list.
mod marks;

pub mod introspection;

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use arc_swap::ArcSwapOption;

pub use held::UnusableList;
pub use introspection::Introspection;
pub(crate) use introspection::Note;
pub use marks::{MarkHash, MarkKind, REVOCATION_LIST_TYPE, RevocationListClaims};

use self::held::{Age, Held};
use crate::confirmation::ConfirmedToken;
use crate::error::StatusRefusal;
use crate::time::{Clock, UnixTime};
use crate::token::access_token::LEEWAY;
use crate::token::held_keys::HeldKeys;
use crate::token::jws::{self, Expectation, JwsError, KeyChoice, SigningAlgorithm, Untyped};

/// The longest revocation list that is looked at, as a signed text.
pub const MAX_LIST_BYTES: usize = 8 * 1024 * 1024;

/// The revocation list held, and how old it may become.
#[derive(Debug)]
pub struct HeldList {
    issuer: String,
    staleness_limit: Duration,
    when_stale: WhenStale,
    keys: Arc<HeldKeys>,
    clock: Arc<dyn Clock>,
    current: ArcSwapOption<Held>,
    /// Held by whoever takes a list, from before it is judged by the one held until it is in its place: the authorization
    /// server and a mirror of it may bring lists at one time. Calls do not wait for it.
    taking: Mutex<()>,
    /// Whether the list that came last was of another time than this machine's.
    clocks_disagree: AtomicBool,
    /// Whether calls are let through by a list that is too old, so that the log says it once.
    in_grace: AtomicBool,
}

/// What becomes of calls while the list held is older than its limit: the authorization server is away, or what it sends
/// cannot be used.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum WhenStale {
    /// They are refused.
    #[default]
    Refuse,
    /// For this long beyond the limit they are judged by the list held: what was revoked since is let through. Then they are
    /// refused.
    AcceptFor(Duration),
    /// The authorization server is asked about each token (RFC 7662), by the API's own certificate, and its answer counts for
    /// a second. Also where no list has come yet, and where the clocks disagree: an answer is of now, whatever the clocks say.
    /// What the list held says is dead is refused unasked, and while there is no answer, calls are refused.
    Introspect,
}

impl HeldList {
    /// No list yet; lists of `issuer` signed by `keys` will be taken, and are believed for `staleness_limit`.
    pub const fn new(issuer: String, staleness_limit: Duration, keys: Arc<HeldKeys>, clock: Arc<dyn Clock>) -> Self {
        Self {
            issuer,
            staleness_limit,
            when_stale: WhenStale::Refuse,
            keys,
            clock,
            current: ArcSwapOption::const_empty(),
            taking: Mutex::new(()),
            clocks_disagree: AtomicBool::new(false),
            in_grace: AtomicBool::new(false),
        }
    }

    /// The same with this choice for when the list is older than that.
    #[must_use]
    pub const fn when_stale(mut self, choice: WhenStale) -> Self {
        self.when_stale = choice;
        self
    }

    /// Takes a signed list in the place of the one held, which stays and ages where the new one is refused.
    ///
    /// # Errors
    /// [`UnusableList`]
    pub fn take(&self, compact: &str) -> Result<(), UnusableList> {
        // Whoever panicked with it has put a whole list in the place, or none.
        let _taking = self.taking.lock().unwrap_or_else(PoisonError::into_inner);
        let claims = self.verify(compact)?;
        // One of a version before the one held is somebody's old copy, and says nothing of clocks. Of the same version it may
        // be either.
        let version = (claims.epoch, claims.number);
        let is_current = self.version().is_none_or(|held| version >= held);
        let taken = self.take_verified(claims);
        match taken {
            Ok(()) => self.clocks_disagree.store(false, Ordering::Relaxed),
            Err(UnusableList::Expired | UnusableList::SignedInFuture) if is_current => {
                self.clocks_disagree.store(true, Ordering::Relaxed);
            }
            Err(_) => {}
        }
        taken
    }

    fn take_verified(&self, claims: RevocationListClaims) -> Result<(), UnusableList> {
        let now = self.clock.now();
        let signed_at = UnixTime::from_seconds(claims.iat);
        // RFC 7519 §4.1.4
        if now >= UnixTime::from_seconds(claims.exp).after(LEEWAY) {
            return Err(UnusableList::Expired);
        }
        if now.after(LEEWAY) < signed_at {
            return Err(UnusableList::SignedInFuture);
        }
        // A list that was held back on its way is as old as it says. Without a leeway: where this clock is ahead, lists are taken
        // for older than they are, which refuses sooner and lets nothing through.
        let late = now.since(signed_at);
        if late > self.staleness_limit / 2 {
            tracing::warn!(
                ?late,
                "the revocation list came late: is this machine's clock right, or a cache in between?"
            );
        }
        let age = Age { then: late, at: self.clock.monotonic() };
        let held = self.current.load();
        let next = match held.as_deref() {
            None => Held { claims, generation: 1, age },
            Some(held) => held.followed_by(claims, age)?,
        };
        self.current.store(Some(Arc::new(next)));
        Ok(())
    }

    /// How old the list may become.
    pub const fn staleness_limit(&self) -> Duration {
        self.staleness_limit
    }

    /// Whether there are keys to verify a list with.
    pub fn can_be_verified(&self) -> bool {
        self.keys.current().is_some()
    }

    /// The version held, (epoch, number): what a long poll names.
    pub fn version(&self) -> Option<(i64, i64)> {
        self.current.load().as_ref().map(|held| (held.claims.epoch, held.claims.number))
    }

    /// How long ago the list held was fresh, by the monotonic clock.
    pub fn age(&self) -> Option<Duration> {
        self.current.load().as_ref().map(|held| held.age.now(self.clock.monotonic()))
    }

    /// Whether a list is held that is fresh enough.
    pub fn is_fresh(&self) -> bool {
        self.age().is_some_and(|age| age <= self.staleness_limit)
    }

    /// Whether a list is held that calls can be judged by now.
    pub fn is_usable(&self) -> bool {
        self.age().is_some_and(|age| age <= self.longest_age())
    }

    const fn longest_age(&self) -> Duration {
        match self.when_stale {
            WhenStale::Refuse | WhenStale::Introspect => self.staleness_limit,
            WhenStale::AcceptFor(grace) => self.staleness_limit.saturating_add(grace),
        }
    }

    /// What to judge by while the list is of this age, or while there is none.
    fn basis(&self, age: Option<Duration>) -> Result<Basis, StatusRefusal> {
        match age {
            Some(age) if age <= self.longest_age() => {
                self.note_grace(age, age > self.staleness_limit);
                Ok(Basis::List)
            }
            _ if self.when_stale == WhenStale::Introspect => {
                if !self.in_grace.swap(true, Ordering::Relaxed) {
                    match age {
                        Some(age) => tracing::warn!(
                            ?age,
                            "the revocation list is too old: the authorization server is asked about each token"
                        ),
                        None => tracing::info!(
                            "no revocation list has come yet: the authorization server is asked about each token"
                        ),
                    }
                }
                Ok(Basis::Question)
            }
            None => Err(StatusRefusal::ListNotHeld),
            Some(_) if self.clocks_disagree.load(Ordering::Relaxed) => Err(StatusRefusal::ListOfAnotherTime),
            Some(_) => Err(StatusRefusal::ListStale),
        }
    }

    /// Tells once when calls begin to be judged by a list that is too old, and once when they no longer are.
    fn note_grace(&self, age: Duration, in_grace: bool) {
        if in_grace {
            metrics::counter!("countersign_guard_calls_by_stale_list_total").increment(1);
            if !self.in_grace.swap(true, Ordering::Relaxed) {
                tracing::warn!(
                    ?age,
                    "the revocation list is too old: calls are judged by it for as long as was configured"
                );
            }
        } else if self.in_grace.load(Ordering::Relaxed) && self.in_grace.swap(false, Ordering::Relaxed) {
            tracing::info!("the revocation list is fresh again");
        }
    }

    /// Asks whether a token is still good, as far as the list held can say.
    ///
    /// # Errors
    /// Every [`StatusRefusal`] but those of introspection.
    pub fn check(&self, token: ConfirmedToken) -> Result<Standing, StatusRefusal> {
        let held = self.current.load();
        let held = held.as_deref();
        let basis = self.basis(held.map(|held| held.age.now(self.clock.monotonic())))?;
        if let Some(held) = held {
            held.find_mark(&token)?; // what is dead stays dead, however old the list
        }
        Ok(match basis {
            Basis::List => Standing::Live(LiveToken(token)),
            Basis::Question => Standing::Unknown(token),
        })
    }

    /// Looks for a mark on the list held, however old it is.
    fn find_mark(&self, token: &ConfirmedToken) -> Result<(), StatusRefusal> {
        self.current.load().as_ref().map_or(Ok(()), |held| held.find_mark(token))
    }

    fn verify(&self, compact: &str) -> Result<RevocationListClaims, UnusableList> {
        let keys = self.keys.current();
        let keys = keys.as_ref().ok_or(UnusableList::KeysNotHeld)?;
        let expected = Expectation {
            algorithms: SigningAlgorithm::ALL,
            types: &[REVOCATION_LIST_TYPE], // RFC 8725 §3.11
            untyped: Untyped::Refuse,
            key: KeyChoice::ByKid,
            max_bytes: MAX_LIST_BYTES,
        };
        let verified = jws::verify(compact, keys, &expected)
            .inspect_err(|error| {
                if *error == JwsError::KeyUnknown {
                    self.keys.ask_for_news();
                }
            })
            .map_err(UnusableList::Signature)?;
        let claims: RevocationListClaims = verified.claims().map_err(UnusableList::Signature)?;
        if claims.iss != self.issuer {
            return Err(UnusableList::Issuer);
        }
        // A key that was withdrawn cannot speak for the list that withdrew it.
        let kid = verified.key().kid().unwrap_or_default();
        if self.current.load().as_ref().is_some_and(|held| held.claims.mark(MarkKind::SigningKey, kid).is_some()) {
            return Err(UnusableList::KeyWithdrawn);
        }
        Ok(claims)
    }
}

/// What a call is judged by.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Basis {
    List,
    Question,
}

/// What the list held has to say of a token that it does not mark.
#[derive(Clone, Debug)]
pub enum Standing {
    /// It is alive.
    Live(LiveToken),
    /// Nothing, because the list is too old, or none has come: the authorization server has to be asked.
    Unknown(ConfirmedToken),
}

/// A token that nothing on a fresh list concerns, or that the authorization server says is active.
#[derive(Clone, Debug)]
pub struct LiveToken(ConfirmedToken);

impl LiveToken {
    /// The token.
    pub const fn confirmed(&self) -> &ConfirmedToken {
        &self.0
    }

    /// A token whose status nobody asked about: it is good until it expires.
    pub(crate) const fn danger_unchecked(token: ConfirmedToken) -> Self {
        Self(token)
    }
}

#[cfg(test)]
mod tests;
