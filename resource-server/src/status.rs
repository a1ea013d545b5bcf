//! Which issued tokens are dead before their time?
//!
//! Takes the authorization server's signed revocation list, gives a verdict on a token: by what it names (participant,
//! client, certificate, key, anchor, entitlement, resource server, signing key, `jti`) and its registry version. It does
//! not fetch the list. Where the list is too old to say anything, `introspection` asks.

/// The words of the list.
mod marks;

pub mod introspection;

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use arc_swap::ArcSwapOption;

pub use introspection::Introspection;
pub(crate) use introspection::Note;
pub use marks::{MarkHash, MarkKind, REVOCATION_LIST_TYPE, RevocationListClaims};

use crate::confirmation::ConfirmedToken;
use crate::error::StatusRefusal;
use crate::time::{Clock, UnixTime};
use crate::token::access_token::{LEEWAY, VerifiedToken};
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

#[derive(Debug)]
struct Held {
    claims: RevocationListClaims,
    /// Counts the lists that said something new, from 1.
    generation: u64,
    age: Age,
}

/// How old a list was, and when by the monotonic clock. Not the instant it was signed at: that may lie before the clock's
/// start.
#[derive(Clone, Copy, Debug)]
struct Age {
    then: Duration,
    at: Duration,
}

impl Age {
    const fn now(self, monotonic: Duration) -> Duration {
        self.then.saturating_add(monotonic.saturating_sub(self.at))
    }
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

impl Held {
    /// What is held once `next` has come, if it may.
    fn followed_by(&self, next: RevocationListClaims, age: Age) -> Result<Self, UnusableList> {
        let held = &self.claims;
        let newer = next.iat > held.iat;
        let forward = match next.epoch.cmp(&held.epoch) {
            std::cmp::Ordering::Equal => next.number >= held.number,
            // A restore or a fail-over may have lost numbers, so a new epoch says only that it comes later.
            std::cmp::Ordering::Greater => newer,
            std::cmp::Ordering::Less => false,
        };
        if !forward {
            return Err(UnusableList::RolledBack);
        }
        // All that a verdict rests on. The number grows with every change of the registry, few of which end a token.
        let says_the_same = (&next.salt, &next.marks) == (&held.salt, &held.marks);
        Ok(Self {
            generation: if says_the_same { self.generation } else { self.generation.saturating_add(1) },
            // Only a later signature proves that the server was there later: the same list again does not.
            age: if newer && age.then < self.age.now(age.at) { age } else { self.age },
            claims: RevocationListClaims { iat: next.iat.max(held.iat), ..next },
        })
    }

    fn find_mark(&self, token: &ConfirmedToken) -> Result<(), StatusRefusal> {
        match token.peer() {
            // The verdict depends on the token, the key of the one certificate it is bound to, and the list: so it is
            // noted on the remembered token and holds until a list says something new.
            Some(peer) => {
                let note = &token.token().found_alive_in;
                if note.load(Ordering::Relaxed) != self.generation {
                    self.judge(token.token(), Some(peer.certificate().key_hash()))?;
                    note.store(self.generation, Ordering::Relaxed);
                }
                Ok(())
            }
            None => self.judge(token.token(), None),
        }
    }

    fn judge(&self, token: &VerifiedToken, key_hash: Option<&str>) -> Result<(), StatusRefusal> {
        self.claims.mark_on(token, key_hash).map_or(Ok(()), |kind| Err(StatusRefusal::revoked(kind)))
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

/// Why a revocation list was not taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum UnusableList {
    /// It is past its `exp`.
    #[error("past its exp")]
    Expired,
    /// It is another issuer's.
    #[error("of another issuer")]
    Issuer,
    /// There are no keys yet to verify it with.
    #[error("no keys are held yet")]
    KeysNotHeld,
    /// It is signed with a key that the list held marks as withdrawn.
    #[error("signed with a withdrawn key")]
    KeyWithdrawn,
    /// Its version is before the one held.
    #[error("older than the list held")]
    RolledBack,
    /// It is not signed as a revocation list by a key of the authorization server, or does not say what one says.
    #[error(transparent)]
    Signature(JwsError),
    /// Its `iat` lies in the future.
    #[error("signed in the future")]
    SignedInFuture,
}

#[cfg(test)]
mod tests {
    use countersign_conformance::forge::{Signature, Token};
    use countersign_conformance::{Key, KeyKind};

    use super::*;
    use crate::double::{Double, KID, NOW, RESOURCE};

    const SECOND: Duration = Duration::from_secs(1);

    fn refusal(double: &Double, list: &Token<'_>) -> UnusableList {
        double.guard.revocations().take(&list.compact()).unwrap_err()
    }

    #[test]
    fn a_list_that_ends_no_token_leaves_verdicts_alone() {
        let double = Double::new();
        let generation = || double.guard.revocations().current.load().as_ref().unwrap().generation;
        let before = generation();
        double.take(&double.list().claims(|claims| claims.with("iat", NOW + 1).with("number", 42)));
        assert_eq!((double.guard.revocations().version(), generation()), (Some((1, 42)), before));
        double.take(&double.marking(&[(MarkKind::Client, "client-2", 43)]).claims(|claims| claims.with("number", 43)));
        assert!(generation() > before);
    }

    #[test]
    fn each_kind_of_mark_kills_and_says_so() {
        for (kind, reason) in [
            (MarkKind::Anchor, "revoked_anchor"),
            (MarkKind::Certificate, "revoked_certificate"),
            (MarkKind::Client, "revoked_client"),
            (MarkKind::Entitlement, "revoked_entitlement"),
            (MarkKind::Issuer, "revoked_issuer"),
            (MarkKind::Jti, "revoked_jti"),
            (MarkKind::Key, "revoked_key"),
            (MarkKind::Participant, "revoked_participant"),
            (MarkKind::ResourceServer, "revoked_resource_server"),
            (MarkKind::SigningKey, "revoked_signing_key"),
        ] {
            let double = Double::new();
            let id = match kind {
                MarkKind::Anchor => "anchor-1".to_owned(),
                MarkKind::Certificate => double.credential.thumbprint(),
                MarkKind::Client => "client-1".to_owned(),
                MarkKind::Entitlement => format!("client-1 {RESOURCE}"),
                MarkKind::Issuer => MarkKind::ANY_ISSUER.to_owned(),
                MarkKind::Jti => "jti-1".to_owned(),
                MarkKind::Key => double.peer.key_hash().to_owned(),
                MarkKind::Participant => "participant-1".to_owned(),
                MarkKind::ResourceServer => RESOURCE.to_owned(),
                MarkKind::SigningKey => KID.to_owned(),
            };
            let token = double.token().compact();
            double.call(&token).unwrap(); // remembered, and dead all the same
            double.take(&double.marking(&[(kind, &id, 42)]));
            let refusal = double.call(&token).unwrap_err();
            assert_eq!((refusal.reason(), refusal.code().status()), (reason, 401));
        }
    }

    #[test]
    fn a_mark_concerns_only_what_it_names() {
        let double = Double::new();
        let token = double.token().compact();
        double.take(&double.marking(&[
            (MarkKind::Client, "client-2", 42),
            (MarkKind::Client, "participant-1", 42), // another kind under the same text
            (MarkKind::Participant, "client-1", 42),
            (MarkKind::Entitlement, "client-1 https://other.example", 42),
            (MarkKind::Entitlement, "client-1", 42),
            (MarkKind::Jti, "jti-10", 42),
        ]));
        assert!(double.call(&token).is_ok());
    }

    #[test]
    fn a_mark_concerns_only_earlier_versions() {
        let double = Double::new();
        double.take(&double.marking(&[(MarkKind::Client, "client-1", 42)]));
        let of_version = |version: i64| double.claiming(|claims| claims.with("registry_version", version));
        assert_eq!(double.reason(&of_version(41)), "revoked_client");
        assert!(double.call(&of_version(42)).is_ok());
        assert!(double.call(&of_version(43)).is_ok());
    }

    #[test]
    fn a_verdict_holds_until_a_list_says_something_new() {
        let double = Double::new();
        let token = double.token().compact();
        for _ in 0..3 {
            double.call(&token).unwrap();
        }
        // Signed anew with nothing new, then with a mark.
        double.take(&double.list().claims(|claims| claims.with("iat", NOW + 1)));
        double.call(&token).unwrap();
        double.take(&double.marking(&[(MarkKind::Client, "client-1", 42)]));
        assert_eq!(double.reason(&token), "revoked_client");
        assert_eq!(double.reason(&token), "revoked_client");
        // Forgotten, because it has expired by then, or so the server says.
        double.take(&double.list().claims(|claims| claims.with("iat", NOW + 2).with("number", 43)));
        assert!(double.call(&token).is_ok());
    }

    /// Whoever has stolen the key writes whatever version he likes.
    #[test]
    fn a_mark_of_a_signing_key_concerns_every_version() {
        let double = Double::new();
        double.take(&double.marking(&[(MarkKind::SigningKey, KID, 42)]));
        for version in [41, 42, i64::MAX] {
            let token = double.claiming(|claims| claims.with("registry_version", version));
            assert_eq!(double.reason(&token), "revoked_signing_key", "{version}");
        }
    }

    #[test]
    fn marks_that_change_under_the_same_version_count() {
        let double = Double::new();
        let token = double.token().compact();
        double.call(&token).unwrap();
        let marked = double.marking(&[(MarkKind::Client, "client-1", 42)]).claims(|claims| claims.with("number", 41));
        double.take(&marked);
        assert_eq!(double.reason(&token), "revoked_client");
    }

    #[test]
    fn too_old_is_refused_to_the_millisecond() {
        let double = Double::new();
        let token = double.token().compact();
        double.wait(30 * SECOND);
        assert!(double.call(&token).is_ok());
        double.wait(Duration::from_millis(1));
        let refusal = double.call(&token).unwrap_err();
        assert_eq!((refusal.reason(), refusal.code().status()), ("revocation_list_stale", 503));
        assert!(!double.guard.is_ready());
    }

    fn with_grace(grace: Duration) -> Double {
        let double = Double::new();
        let clock = Arc::clone(&double.clock);
        let builder = crate::Guard::builder(crate::double::ISSUER, RESOURCE).clock(clock);
        let guard = builder.when_stale(WhenStale::AcceptFor(grace)).idle().unwrap();
        guard.keys().take(double.jwks(KID).as_bytes()).unwrap();
        let double = Double { guard, ..double };
        double.take(&double.list());
        double
    }

    /// The authorization server is gone for ten minutes (issue 5).
    #[test]
    fn while_the_server_is_gone_the_grace_is_kept_and_not_a_millisecond_more() {
        let double = with_grace(120 * SECOND);
        let (token, dead) = (
            double.claiming(|claims| claims.with("exp", NOW + 3_600)),
            double.claiming(|claims| {
                claims.with("exp", NOW + 3_600).with("client_id", "client-2").with("sub", "client-2")
            }),
        );
        double.take(&double.marking(&[(MarkKind::Client, "client-2", 42)]));
        for second in 0..600 {
            let expected = if second <= 150 { None } else { Some("revocation_list_stale") };
            assert_eq!(double.call(&token).err().map(|refusal| refusal.reason()), expected, "{second}");
            assert_eq!(double.guard.is_ready(), expected.is_none(), "{second}");
            assert_eq!(double.guard.revocations().is_fresh(), second <= 30, "{second}");
            // What is on the list held is dead all along.
            assert_eq!(double.reason(&dead), expected.unwrap_or("revoked_client"), "{second}");
            if second == 150 {
                double.wait(Duration::from_millis(1));
                assert_eq!(double.reason(&token), "revocation_list_stale");
                double.wait(Duration::from_millis(999));
            } else {
                double.wait(SECOND);
            }
        }
        // It is back, and says what happened meanwhile.
        double.take(
            &double.list().claims(|claims| claims.with("iat", NOW + 600).with("exp", NOW + 660).with("number", 43)),
        );
        assert!(double.call(&token).is_ok());
    }

    #[test]
    fn without_any_list_there_is_no_grace() {
        let double = Double::new();
        let builder = crate::Guard::builder(crate::double::ISSUER, RESOURCE).clock(Arc::clone(&double.clock) as _);
        let guard = builder.when_stale(WhenStale::AcceptFor(Duration::MAX)).idle().unwrap();
        guard.keys().take(double.jwks(KID).as_bytes()).unwrap();
        let double = Double { guard, ..double };
        assert_eq!(double.reason(&double.token().compact()), "revocation_list_not_held");
        assert!(!double.guard.is_ready());
    }

    /// The calendar of one side is an hour off (issue 5): nobody is let through by a list that cannot be dated, the reason is
    /// told apart, and with the clock right again the next list is taken.
    #[test]
    fn clocks_an_hour_apart_are_told_apart_from_silence() {
        let long = |double: &Double| double.claiming(|claims| claims.with("exp", NOW + 7_200));
        let signed = |double: &Double, at: i64| {
            double.list().claims(|claims| claims.with("iat", at).with("exp", at + 60)).compact()
        };
        let at_the_server = [(-3_600, UnusableList::Expired), (3_600, UnusableList::SignedInFuture)];
        for (step, why) in at_the_server {
            let double = Double::new();
            let token = long(&double);
            double.wait(31 * SECOND);
            let list = signed(&double, NOW + 31 + step);
            assert_eq!(double.guard.revocations().take(&list), Err(why));
            assert_eq!(double.reason(&token), "revocation_list_of_another_time");
            double.guard.revocations().take(&signed(&double, NOW + 31)).unwrap();
            assert!(double.call(&token).is_ok(), "{step}");
            double.take(
                &double.list().claims(|claims| claims.with("iat", NOW + 31).with("exp", NOW + 91).with("number", 42)),
            );
            // Silence after that is silence, and so is an old copy that somebody sends again.
            double.wait(3_600 * SECOND);
            assert_eq!(double.guard.revocations().take(&signed(&double, NOW + 31)), Err(UnusableList::Expired));
            assert_eq!(double.reason(&token), "revocation_list_stale");
        }
        for (step, why) in [(3_600, UnusableList::Expired), (-3_600, UnusableList::SignedInFuture)] {
            let double = Double::new();
            let token = long(&double);
            double.wait(31 * SECOND).at(NOW + 31 + step);
            assert_eq!(double.guard.revocations().take(&signed(&double, NOW + 31)), Err(why));
            assert!(double.call(&token).is_err(), "{step}");
            double.at(NOW + 31);
            assert_eq!(double.reason(&token), "revocation_list_of_another_time");
            double.guard.revocations().take(&signed(&double, NOW + 31)).unwrap();
            assert!(double.call(&token).is_ok(), "{step}");
        }
    }

    #[test]
    fn a_stepped_calendar_makes_no_list_younger() {
        let double = Double::new();
        let token = double.token().compact();
        double.wait(31 * SECOND).at(NOW);
        assert_eq!(double.reason(&token), "revocation_list_stale");
    }

    #[test]
    fn only_a_later_signature_renews_the_age() {
        let double = Double::new();
        let list = |iat: i64| double.list().claims(|claims| claims.with("iat", iat));
        double.wait(20 * SECOND);
        double.take(&list(NOW)); // the same again: taken, and no younger
        assert_eq!(double.guard.revocations().age(), Some(20 * SECOND));
        double.take(&list(NOW + 20));
        assert_eq!(double.guard.revocations().age(), Some(Duration::ZERO));
        double.wait(5 * SECOND);
        double.take(&list(NOW + 15)); // of another node, whose clock is behind
        assert_eq!(double.guard.revocations().age(), Some(5 * SECOND));
        double.take(&list(NOW + 20));
        assert_eq!(double.guard.revocations().age(), Some(5 * SECOND));
    }

    #[test]
    fn a_list_held_back_on_its_way_is_as_old_as_it_says() {
        let double = Double::new();
        double.wait(45 * SECOND);
        // Signed 25 s ago.
        let list = double.list().claims(|claims| claims.with("iat", NOW + 20));
        double.take(&list);
        assert_eq!(double.guard.revocations().age(), Some(25 * SECOND));
        // The same for a guard whose monotonic clock has only just begun.
        let clock = Arc::new(crate::time::ManualClock::at(UnixTime::from_seconds(NOW + 45)));
        let late = crate::Guard::builder("https://as.example", RESOURCE).clock(clock).idle().unwrap();
        late.keys().take(double.jwks(KID).as_bytes()).unwrap();
        late.revocations().take(&list.compact()).unwrap();
        assert_eq!(late.revocations().age(), Some(25 * SECOND));
    }

    /// The server signs anew every 10 s, and a poll is held for 10 s: with 30 s there is room for clocks that differ by 9.
    #[test]
    fn held_back_or_not_a_list_is_believed_until_it_is_as_old_as_the_limit() {
        let double = Double::new();
        let token = double.token().compact();
        double.wait(29 * SECOND);
        double.take(&double.list().claims(|claims| claims.with("iat", NOW + 9)));
        double.wait(10 * SECOND);
        assert!(double.call(&token).is_ok(), "30 s after it was signed");
        double.wait(Duration::from_millis(1));
        assert_eq!(double.reason(&token), "revocation_list_stale");
        // One of a server whose clock is behind by nine seconds: the next comes before that one is too old.
        let double = Double::new();
        for round in 1..5 {
            let iat = NOW + 10 * round;
            double.wait(20 * SECOND).at(iat + 9 + 10);
            double.take(&double.list().claims(|claims| claims.with("iat", iat).with("exp", iat + 60)));
            double.wait(10 * SECOND).at(iat + 9 + 20);
            assert!(double.guard.revocations().is_fresh(), "{round}");
        }
    }

    #[test]
    fn no_list_yet() {
        let double = Double::new();
        let fresh = crate::Guard::builder("https://as.example", RESOURCE).idle().unwrap();
        fresh.keys().take(double.jwks(KID).as_bytes()).unwrap();
        let double = Double { guard: fresh, ..double };
        let refusal = double.call(&double.token().compact()).unwrap_err();
        assert_eq!((refusal.reason(), refusal.code().status()), ("revocation_list_not_held", 503));
    }

    #[test]
    fn versions_never_go_back() {
        let double = Double::new();
        let list = |epoch: i64, number: i64, iat: i64| {
            double.list().claims(|claims| claims.with("epoch", epoch).with("number", number).with("iat", iat))
        };
        assert_eq!(refusal(&double, &list(1, 40, NOW + 1)), UnusableList::RolledBack);
        assert_eq!(refusal(&double, &list(0, 99, NOW + 1)), UnusableList::RolledBack);
        assert_eq!(refusal(&double, &list(2, 1, NOW)), UnusableList::RolledBack); // a new epoch, no later iat
        assert_eq!(refusal(&double, &list(2, 99, NOW - 1)), UnusableList::RolledBack);
        double.take(&list(1, 42, NOW));
        double.take(&list(2, 1, NOW + 1));
        assert_eq!(double.guard.revocations().version(), Some((2, 1)));
        assert_eq!(refusal(&double, &list(1, 100, NOW + 2)), UnusableList::RolledBack);
    }

    #[test]
    fn a_list_that_went_back_takes_no_mark_away() {
        let double = Double::new();
        let token = double.token().compact();
        double.take(&double.marking(&[(MarkKind::Client, "client-1", 42)]));
        assert_eq!(
            refusal(&double, &double.list().claims(|claims| claims.with("iat", NOW + 5))),
            UnusableList::RolledBack
        );
        assert_eq!(double.reason(&token), "revoked_client");
    }

    #[test]
    fn dates_to_the_second() {
        let double = Double::new();
        let list = double.list().claims(|claims| claims.with("iat", NOW + 1));
        assert_eq!(refusal(double.at(NOW + 70), &list), UnusableList::Expired);
        assert_eq!(refusal(double.at(NOW - 10), &list), UnusableList::SignedInFuture);
        assert!(double.at(NOW - 9).guard.revocations().take(&list.compact()).is_ok());
        assert!(double.at(NOW + 69).guard.revocations().take(&list.compact()).is_ok());
    }

    #[test]
    fn what_is_not_signed_as_a_list_is_not_one() {
        let double = Double::new();
        let signature = UnusableList::Signature;
        assert_eq!(refusal(&double, &double.token()), signature(JwsError::Type));
        for typ in ["JWT", "at+jwt", "countersign-revocations"] {
            let list = double.list().header(|header| header.with("typ", typ));
            assert_eq!(refusal(&double, &list), signature(JwsError::Type), "{typ}");
        }
        let list = double.list().header(|header| header.with("kid", "k2"));
        assert_eq!(refusal(&double, &list), signature(JwsError::KeyUnknown));
        let thief = Key::generate(KeyKind::P256);
        assert_eq!(refusal(&double, &Token { key: &thief, ..double.list() }), signature(JwsError::Signature));
        let unsigned = double.list().signed(Signature::None);
        assert_eq!(double.guard.revocations().take(&unsigned).unwrap_err(), signature(JwsError::Signature));
        assert_eq!(double.guard.revocations().take("garbage").unwrap_err(), signature(JwsError::Framing));
        let long = "A".repeat(MAX_LIST_BYTES + 1);
        assert_eq!(double.guard.revocations().take(&long).unwrap_err(), signature(JwsError::TooLong));
        let list = double.list().claims(|claims| claims.with("iss", "https://other.example"));
        assert_eq!(refusal(&double, &list), UnusableList::Issuer);
        for name in ["iss", "iat", "exp", "epoch", "number", "salt", "marks"] {
            let list = double.list().claims(|claims| claims.without(name));
            assert_eq!(refusal(&double, &list), signature(JwsError::Claims), "{name}");
        }
        for (name, wrong) in
            [("marks", "[]"), ("marks", r#"{"a":"1"}"#), ("number", "1.5"), ("epoch", "\"1\""), ("iat", "1e9")]
        {
            let list = double.list().claims(|claims| claims.with_raw(name, wrong));
            assert_eq!(refusal(&double, &list), signature(JwsError::Claims), "{name} {wrong}");
        }
        let list = double.list().claims(|claims| claims.with_raw("marks", r#"{"a":1,"a":2}"#));
        assert_eq!(refusal(&double, &list), signature(JwsError::Payload));
        assert_eq!(double.guard.revocations().age(), Some(Duration::ZERO));
    }

    #[test]
    fn a_list_is_no_access_token() {
        let double = Double::new();
        assert_eq!(double.reason(&double.list().compact()), "token_type");
    }

    #[test]
    fn a_withdrawn_key_signs_no_list() {
        let double = Double::new();
        double.take(&double.marking(&[(MarkKind::SigningKey, KID, 42)]));
        let forged = double.list().claims(|claims| claims.with("number", 99).with("iat", NOW + 5));
        assert_eq!(refusal(&double, &forged), UnusableList::KeyWithdrawn);
    }

    /// Two who take one list each, at the same instant, round after round; whether each was taken.
    fn at_one_time(list: &HeldList, rounds: &[[String; 2]]) -> Vec<[bool; 2]> {
        let instant = std::sync::Barrier::new(2);
        let [ours, theirs] = std::thread::scope(|scope| {
            let takers = [0, 1].map(|taker| {
                let instant = &instant;
                scope.spawn(move || {
                    let take = |round: &[String; 2]| {
                        instant.wait();
                        list.take(&round[taker]).is_ok()
                    };
                    rounds.iter().map(take).collect::<Vec<_>>()
                })
            });
            takers.map(|taker| taker.join().unwrap())
        });
        ours.into_iter().zip(theirs).map(<[bool; 2]>::from).collect()
    }

    /// Marks enough that it takes a while to see in what they differ: in the last.
    fn many_marks(last: i64) -> serde_json::Value {
        let mut marks: serde_json::Map<_, _> = (0..2_000).map(|n| (format!("a{n:04}"), 1.into())).collect();
        marks.insert("b".to_owned(), last.into());
        marks.into()
    }

    #[test]
    fn lists_that_are_taken_at_one_time_follow_each_other() {
        let double = Double::new();
        let list = double.guard.revocations();
        let of_number = |number: i64| {
            double.list().claims(|claims| claims.with("number", number).with("marks", many_marks(number))).compact()
        };
        let rounds: Vec<_> = (50..100).map(|round| [of_number(2 * round), of_number(2 * round + 1)]).collect();
        let done = AtomicBool::new(false);
        let (taken, seen) = std::thread::scope(|scope| {
            let observer = scope.spawn(|| {
                let (mut seen, mut version) = (std::collections::BTreeMap::new(), None);
                while !done.load(Ordering::Relaxed) {
                    let held = list.current.load_full().unwrap();
                    let next = Some((held.claims.epoch, held.claims.number));
                    assert!(next >= version, "{next:?} after {version:?}");
                    version = next;
                    let first = seen.entry(held.generation).or_insert_with(|| held.claims.marks.clone());
                    assert!(*first == held.claims.marks, "two lists are both of generation {}", held.generation);
                }
                seen
            });
            let taken = at_one_time(list, &rounds);
            done.store(true, Ordering::Relaxed);
            (taken, observer.join().unwrap())
        });
        assert!(!seen.is_empty());
        // Each list that was taken says something new, and the later of each two is always taken.
        let lists = taken.iter().flatten().filter(|taken| **taken).count();
        assert_eq!(list.current.load().as_ref().unwrap().generation, 1 + u64::try_from(lists).unwrap());
        assert!(taken.iter().all(|[_, later]| *later));
        assert_eq!(list.version(), Some((1, 199)));
    }

    #[test]
    fn a_key_that_is_withdrawn_at_the_same_time_does_not_sign_what_follows() {
        let double = Double::new();
        let stolen = Key::generate(KeyKind::P256);
        let mut jwks: serde_json::Value = serde_json::from_str(&double.jwks(KID)).unwrap();
        let mut jwk = stolen.jwk();
        jwk["kid"] = "stolen".into();
        jwks["keys"].as_array_mut().unwrap().push(jwk);
        let withdrawal = MarkHash::of(crate::double::SALT, MarkKind::SigningKey, "stolen");
        let withdrawal = serde_json::to_value(withdrawal).unwrap();
        let listing = |number: i64, marks: serde_json::Value| {
            double.list().claims(|claims| claims.with("number", number).with("marks", marks))
        };
        let mut withdrawn = many_marks(1);
        withdrawn[withdrawal.as_str().unwrap()] = 42.into();
        let withdrawn = listing(42, withdrawn).compact();
        let forged = Token { key: &stolen, ..listing(99, many_marks(2)) };
        let forged = forged.header(|header| header.with("kid", "stolen")).compact();
        let before = listing(41, many_marks(1)).compact();
        for _ in 0..50 {
            let keys = Arc::new(HeldKeys::default());
            keys.take(jwks.to_string().as_bytes()).unwrap();
            let clock = Arc::clone(&double.clock) as Arc<dyn Clock>;
            let list = HeldList::new(crate::double::ISSUER.to_owned(), 30 * SECOND, keys, clock);
            list.take(&before).unwrap();
            let [taken] = at_one_time(&list, &[[withdrawn.clone(), forged.clone()]])[..] else { panic!("no round") };
            assert!(taken != [true, true], "the forged list came first, or not at all");
        }
    }

    #[test]
    fn a_list_longer_than_a_token_is_taken() {
        let double = Double::new();
        let ids: Vec<String> = (0..2_000).map(|id| format!("client-{id}")).collect();
        let marks: Vec<_> = ids.iter().map(|id| (MarkKind::Client, id.as_str(), 42)).collect();
        let list = double.marking(&marks);
        assert!(list.compact().len() > jws::MAX_TOKEN_BYTES);
        double.take(&list);
        assert_eq!(double.reason(&double.token().compact()), "revoked_client");
    }

    #[test]
    fn the_hash_of_a_mark_is_what_the_text_says() {
        // SHA-256("pepper" || "client" || 0x00 || "client-1"), first 16 octets; computed with Python's hashlib.
        let hash = serde_json::to_value(MarkHash::of("pepper", MarkKind::Client, "client-1")).unwrap();
        assert_eq!(hash, "uob8j1rR4UhCWF-mPiG5qA");
    }
}
