//! Which issued tokens are still good: the signed list of what is dead before its time.
//!
//! Takes the registry's marks, gives a [`Snapshot`] that any resource server can verify and any cache may carry: signed
//! anew at least every ten seconds, and at once when a mark is made. It knows nothing of HTTP; whoever waits for news
//! waits here.

use std::collections::BTreeMap;
use std::fmt;
use std::io::Write;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use countersign_resource_server::status::{MarkHash, MarkKind, REVOCATION_LIST_TYPE, RevocationListClaims};
use countersign_resource_server::time::{Clock, UnixTime};
use countersign_resource_server::token::access_token::VerifiedToken;
use countersign_resource_server::token::jws::SigningAlgorithm;
use flate2::Compression;
use flate2::write::GzEncoder;
use futures_util::future::BoxFuture;
use tokio::sync::watch;
use tokio::task::spawn_blocking;
use tokio::time::{MissedTickBehavior, interval, sleep, timeout};

use crate::mint::{KeyRing, random_octets};
use crate::registry::{Registry, RegistryVersion, RevocationState, StoreUnavailable};

/// How often the list is signed anew though nothing changed; resource servers refuse one that is 30 s old.
pub const SIGNED_EVERY: Duration = Duration::from_secs(5);

/// Older than this it says nothing any more: the default limit of resource servers (design §6).
const STALE_AFTER: Duration = Duration::from_secs(30);

/// How long a list may be taken for after it was signed.
const LIFETIME_SECONDS: i64 = 60;

/// How many may wait for news at the same time; the next is answered with what there is.
const MOST_WAITING: usize = 16_384;

/// Changes that come within this time share one signature.
const SETTLE: Duration = Duration::from_millis(20);

/// How long to wait where it could not be signed: there may be a mark that nobody has heard of.
const RETRY: Duration = Duration::from_millis(500);

/// Where marks come from.
pub trait MarkSource: fmt::Debug + Send + Sync + 'static {
    /// The marks that may still have live tokens at `now`.
    fn marks(&self, now: UnixTime) -> BoxFuture<'_, Result<RevocationState, StoreUnavailable>>;

    /// Changes whenever they may have.
    fn subscribe(&self) -> watch::Receiver<RegistryVersion>;
}

impl MarkSource for Registry {
    fn marks(&self, now: UnixTime) -> BoxFuture<'_, Result<RevocationState, StoreUnavailable>> {
        Box::pin(self.marks(now))
    }

    fn subscribe(&self) -> watch::Receiver<RegistryVersion> {
        self.subscribe()
    }
}

/// A signed list, ready to be sent.
#[derive(Debug)]
pub struct Snapshot {
    /// First part of its version.
    pub epoch: i64,
    /// Second part of its version: the registry version it was drawn up at, the same on every node.
    pub number: i64,
    /// When it was signed.
    pub signed_at: UnixTime,
    /// The compact JWS: `application/jwt`.
    pub compact: Arc<str>,
    /// The same, gzipped.
    pub gzip: Arc<[u8]>,
    /// A strong entity tag, with its quotes.
    pub etag: Arc<str>,
    claims: RevocationListClaims,
    /// The first registry version this node has seen these marks at.
    unchanged_since: i64,
}

/// The version of a list, and since which one its marks are the same.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ListVersion {
    /// First part.
    pub epoch: i64,
    /// Second part.
    pub number: i64,
    /// The first registry version that these marks were seen at.
    pub unchanged_since: i64,
}

impl ListVersion {
    /// Whether whoever holds the list of version `said` knows all that this one says. Of a later one than this it cannot be told
    /// here: there may be no such list.
    pub const fn is_held_by(self, said: (i64, i64)) -> bool {
        said.0 == self.epoch && said.1 >= self.unchanged_since && said.1 <= self.number
    }
}

impl Snapshot {
    /// Its version.
    pub const fn version(&self) -> ListVersion {
        ListVersion { epoch: self.epoch, number: self.number, unchanged_since: self.unchanged_since }
    }

    /// What kind of mark says that `token` is dead, if one does.
    pub fn mark_on(&self, token: &VerifiedToken) -> Option<MarkKind> {
        // The key of a certificate never stands on the list without the certificates that have it, and tokens are bound to
        // certificates on record.
        self.claims.mark_on(token, None)
    }

    /// Whether it says something that whoever holds the list of version `known` may not know. Most changes of the
    /// registry make no mark; and whoever has a later list from another node learns nothing here.
    fn is_news_to(&self, (epoch, number): (i64, i64)) -> bool {
        epoch != self.epoch || number < self.unchanged_since
    }
}

/// The list of a running server.
#[derive(Debug)]
pub struct RevocationList {
    issuer: Arc<str>,
    source: Arc<dyn MarkSource>,
    keys: Arc<KeyRing>,
    clock: Arc<dyn Clock>,
    salt: String,
    held: watch::Sender<Arc<Snapshot>>,
    waiting: AtomicUsize,
}

/// The list cannot be made.
#[derive(Clone, Debug, thiserror::Error)]
pub enum ListUnavailable {
    /// No key signs it.
    #[error("there is no ES256 key to sign the revocation list with")]
    NoSigningKey,
    /// The registry is not where it was: an older state was put back, or it is being restored.
    #[error("the registry went back: an older state of it was put in its place, or it is being restored")]
    WentBack,
    /// The registry was not read: what is held ages, and is not signed anew.
    #[error(transparent)]
    Store(#[from] StoreUnavailable),
}

impl RevocationList {
    /// The first list.
    ///
    /// # Errors
    /// [`ListUnavailable`] if the registry cannot be read or no key signs.
    pub async fn open(
        issuer: impl Into<Arc<str>>,
        source: Arc<dyn MarkSource>,
        keys: Arc<KeyRing>,
        clock: Arc<dyn Clock>,
    ) -> Result<Self, ListUnavailable> {
        let issuer = issuer.into();
        // One node's own: a list is complete in itself, and says what it is salted with.
        let salt = URL_SAFE_NO_PAD.encode(random_octets::<16>());
        let now = clock.now();
        let first = draw_up(&issuer, &salt, &keys, &source.marks(now).await?, None, now)?;
        let (held, _) = watch::channel(Arc::new(first));
        Ok(Self { issuer, source, keys, clock, salt, held, waiting: AtomicUsize::new(0) })
    }

    /// The list as it is held.
    pub fn current(&self) -> Arc<Snapshot> {
        Arc::clone(&self.held.borrow())
    }

    /// Follows [`RevocationList::current`].
    pub fn subscribe(&self) -> watch::Receiver<Arc<Snapshot>> {
        self.held.subscribe()
    }

    /// The list, as soon as it says something that version `known` may not, and after `wait` at the latest.
    pub async fn wait_for_news(&self, known: Option<(i64, i64)>, wait: Duration) -> Arc<Snapshot> {
        let Some(known) = known else { return self.current() };
        let Some(_seat) = Seat::take(&self.waiting) else { return self.current() };
        let mut held = self.held.subscribe();
        let news = held.wait_for(|snapshot| snapshot.is_news_to(known));
        let _ = timeout(wait, news).await;
        self.current()
    }

    /// Waits until the list held here is one of registry version `version` or later; says whether it came to that within
    /// `patience`.
    pub async fn has_come_to(&self, version: RegistryVersion, patience: Duration) -> bool {
        let mut held = self.held.subscribe();
        matches!(timeout(patience, held.wait_for(|snapshot| snapshot.number >= version.0)).await, Ok(Ok(_)))
    }

    /// The list as it is held, if it is no older than a resource server would take it for by its own: for whoever answers by
    /// it instead of handing it out.
    pub fn fresh(&self) -> Option<Arc<Snapshot>> {
        let held = self.current();
        (self.clock.now().since(held.signed_at) <= STALE_AFTER).then_some(held)
    }

    /// Draws the list up anew. What is held stays where that fails, and ages. One at a time.
    ///
    /// # Errors
    /// [`ListUnavailable`].
    pub async fn renew(&self) -> Result<(), ListUnavailable> {
        let now = self.clock.now();
        let state = self.source.marks(now).await?;
        let held = self.current();
        // Nobody takes a list that goes back, and one that was signed all the same would reach those who hold none yet.
        if (state.epoch, state.version.0) < (held.epoch, held.number) {
            return Err(ListUnavailable::WentBack);
        }
        let (issuer, salt, keys) = (Arc::clone(&self.issuer), self.salt.clone(), Arc::clone(&self.keys));
        // A long one takes a core for a while, and requests have few.
        let drawing = spawn_blocking(move || draw_up(&issuer, &salt, &keys, &state, Some(&held), now));
        let snapshot = drawing.await.map_err(StoreUnavailable::because)??;
        self.held.send_replace(Arc::new(snapshot));
        Ok(())
    }

    /// Keeps the list fresh until it is dropped by everybody else.
    pub fn keep_fresh(self: &Arc<Self>) -> tokio::task::JoinHandle<()> {
        let list = Arc::downgrade(self);
        let mut changes = self.source.subscribe();
        let mut keys = self.keys.subscribe();
        tokio::spawn(async move {
            let mut ticks = interval(SIGNED_EVERY);
            ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
            let mut failing = false;
            loop {
                tokio::select! {
                    _ = ticks.tick() => {}
                    changed = changes.changed() => {
                        if changed.is_err() {
                            return;
                        }
                        sleep(SETTLE).await;
                        changes.mark_unchanged();
                    }
                    // A key that was withdrawn signs nothing any more, this list first of all.
                    changed = keys.changed() => if changed.is_err() { return },
                }
                let Some(list) = list.upgrade() else { return };
                match list.renew().await {
                    Ok(()) => failing = false,
                    Err(error) => {
                        if !std::mem::replace(&mut failing, true) {
                            tracing::error!(%error, "the revocation list cannot be renewed: the one held ages");
                        }
                        ticks.reset_after(RETRY);
                    }
                }
            }
        })
    }
}

/// Writes and signs a list of what `state` says.
fn draw_up(
    issuer: &str,
    salt: &str,
    keys: &KeyRing,
    state: &RevocationState,
    before: Option<&Snapshot>,
    now: UnixTime,
) -> Result<Snapshot, ListUnavailable> {
    let mut marks = BTreeMap::new();
    for mark in &state.marks {
        let dead_below = marks.entry(MarkHash::of(salt, mark.kind, &mark.id)).or_insert(mark.version.0);
        *dead_below = (*dead_below).max(mark.version.0);
    }
    let same = before.filter(|before| before.epoch == state.epoch && before.claims.marks == marks);
    let number = state.version.0;
    let unchanged_since = same.map_or(number, |before| before.unchanged_since);
    let iat = now.as_seconds();
    let claims = RevocationListClaims {
        iss: issuer.to_owned(),
        iat,
        exp: iat.saturating_add(LIFETIME_SECONDS),
        epoch: state.epoch,
        number,
        salt: salt.to_owned(),
        marks,
    };
    let ring = keys.current();
    let key = ring.signing(SigningAlgorithm::ES256, now).ok_or(ListUnavailable::NoSigningKey)?;
    let payload = serde_json::to_vec(&claims).map_err(StoreUnavailable::because)?;
    let compact = key.sign(REVOCATION_LIST_TYPE, &payload).map_err(|_| ListUnavailable::NoSigningKey)?;
    let mut gzip = GzEncoder::new(Vec::new(), Compression::default());
    let gzip = gzip.write_all(compact.as_bytes()).and_then(|()| gzip.finish()).map_err(StoreUnavailable::because)?;
    let etag = format!("\"{}-{number}-{}\"", state.epoch, now.as_millis()).into();
    Ok(Snapshot {
        epoch: state.epoch,
        number,
        signed_at: now,
        compact: compact.into(),
        gzip: gzip.into(),
        etag,
        unchanged_since,
        claims,
    })
}

/// One of those who wait.
struct Seat<'a>(&'a AtomicUsize);

impl<'a> Seat<'a> {
    fn take(waiting: &'a AtomicUsize) -> Option<Self> {
        let seat = Self(waiting);
        // Dropped again, and with it given back, where there is no room.
        (waiting.fetch_add(1, Ordering::Relaxed) < MOST_WAITING).then_some(seat)
    }
}

impl Drop for Seat<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use std::io::Read;
    use std::sync::Mutex;

    use countersign_resource_server::time::ManualClock;
    use countersign_resource_server::token::jwks::KeySet;
    use countersign_resource_server::token::jws::{Expectation, KeyChoice, Untyped, verify};
    use flate2::read::GzDecoder;

    use super::*;
    use crate::mint::fixture::{self, ISSUER, NOW};
    use crate::registry::Mark;

    /// Marks as a test says; `None` is a registry that does not answer.
    #[derive(Debug)]
    struct FakeMarks {
        state: Mutex<Option<RevocationState>>,
        versions: watch::Sender<RegistryVersion>,
    }

    impl FakeMarks {
        fn new() -> Arc<Self> {
            let state = RevocationState { epoch: 1, version: RegistryVersion(5), marks: Vec::new() };
            Arc::new(Self { state: Mutex::new(Some(state)), versions: watch::channel(RegistryVersion(5)).0 })
        }

        fn set(&self, epoch: i64, version: i64, marks: &[(MarkKind, &str, i64)]) {
            let mark = |&(kind, id, version): &(MarkKind, &str, i64)| Mark {
                kind,
                id: id.to_owned(),
                version: RegistryVersion(version),
            };
            let version = RegistryVersion(version);
            *self.state.lock().unwrap() =
                Some(RevocationState { epoch, version, marks: marks.iter().map(mark).collect() });
            self.versions.send_replace(version);
        }
    }

    impl MarkSource for FakeMarks {
        fn marks(&self, _now: UnixTime) -> BoxFuture<'_, Result<RevocationState, StoreUnavailable>> {
            let state = self.state.lock().unwrap().clone();
            Box::pin(async move { state.ok_or_else(|| StoreUnavailable::because("told to")) })
        }

        fn subscribe(&self) -> watch::Receiver<RegistryVersion> {
            self.versions.subscribe()
        }
    }

    async fn list(source: &Arc<FakeMarks>) -> (Arc<RevocationList>, Arc<ManualClock>) {
        let clock = Arc::new(ManualClock::at(NOW));
        let source = Arc::<FakeMarks>::clone(source);
        let time = Arc::<ManualClock>::clone(&clock);
        (Arc::new(RevocationList::open(ISSUER, source, fixture::ring(), time).await.unwrap()), clock)
    }

    fn claims(snapshot: &Snapshot) -> RevocationListClaims {
        let keys = KeySet::parse(fixture::ring().published(NOW).body.as_bytes()).unwrap();
        let expected = Expectation {
            algorithms: &[SigningAlgorithm::ES256],
            types: &[REVOCATION_LIST_TYPE],
            untyped: Untyped::Refuse,
            key: KeyChoice::ByKid,
            max_bytes: countersign_resource_server::status::MAX_LIST_BYTES,
        };
        verify(&snapshot.compact, &keys, &expected).unwrap().claims().unwrap()
    }

    /// Longer than a test is patient: it ends before, or it hangs.
    const LONG: Duration = Duration::from_secs(600);

    #[tokio::test]
    async fn a_list_says_what_the_registry_marks_and_names_nobody() {
        let source = FakeMarks::new();
        source.set(3, 9, &[(MarkKind::Client, "partner-client", 8), (MarkKind::Participant, "partner", 9)]);
        let (list, _) = list(&source).await;
        let snapshot = list.current();
        let claims = claims(&snapshot);
        assert_eq!((claims.iss.as_str(), claims.epoch, claims.number), (ISSUER, 3, 9));
        assert_eq!((claims.iat, claims.exp), (NOW.as_seconds(), NOW.as_seconds() + 60));
        let hash = |kind, id| MarkHash::of(&claims.salt, kind, id);
        let expected = [(hash(MarkKind::Client, "partner-client"), 8), (hash(MarkKind::Participant, "partner"), 9)];
        assert_eq!(claims.marks, BTreeMap::from(expected));
        assert!(!serde_json::to_string(&claims).unwrap().contains("partner"));
    }

    #[tokio::test]
    async fn the_gzipped_list_is_the_same_list() {
        let (list, _) = list(&FakeMarks::new()).await;
        let snapshot = list.current();
        let mut text = String::new();
        GzDecoder::new(&snapshot.gzip[..]).read_to_string(&mut text).unwrap();
        assert_eq!(text, *snapshot.compact);
    }

    #[tokio::test]
    async fn a_list_is_signed_anew_though_nothing_changed() {
        let (list, clock) = list(&FakeMarks::new()).await;
        let before = list.current();
        clock.advance(SIGNED_EVERY);
        list.renew().await.unwrap();
        let after = list.current();
        assert_eq!(claims(&after).iat, claims(&before).iat + 5);
        assert_eq!((after.epoch, after.number), (before.epoch, before.number));
        assert_ne!(after.etag, before.etag);
    }

    #[tokio::test]
    async fn a_registry_that_does_not_answer_lets_the_list_age() {
        let source = FakeMarks::new();
        let (list, clock) = list(&source).await;
        let before = list.current();
        *source.state.lock().unwrap() = None;
        clock.advance(SIGNED_EVERY);
        assert!(matches!(list.renew().await, Err(ListUnavailable::Store(_))));
        assert!(Arc::ptr_eq(&before, &list.current()));
    }

    #[tokio::test]
    async fn whoever_waits_is_told_of_a_mark_at_once() {
        let source = FakeMarks::new();
        let (list, _) = list(&source).await;
        let _keeper = list.keep_fresh();
        let waiting = tokio::spawn({
            let list = Arc::clone(&list);
            async move { list.wait_for_news(Some((1, 5)), LONG).await }
        });
        source.set(1, 6, &[(MarkKind::Client, "client", 6)]);
        let news = waiting.await.unwrap();
        assert_eq!((news.number, news.claims.marks.len()), (6, 1));
    }

    #[tokio::test]
    async fn a_mark_that_could_not_be_read_at_once_is_read_soon() {
        let source = FakeMarks::new();
        let (list, _) = list(&source).await;
        let _keeper = list.keep_fresh();
        sleep(Duration::from_millis(100)).await;
        *source.state.lock().unwrap() = None;
        source.versions.send_replace(RegistryVersion(6));
        sleep(Duration::from_millis(100)).await;
        let mark = Mark { kind: MarkKind::Client, id: "client".to_owned(), version: RegistryVersion(6) };
        *source.state.lock().unwrap() =
            Some(RevocationState { epoch: 1, version: RegistryVersion(6), marks: vec![mark] });
        let news = list.wait_for_news(Some((1, 5)), Duration::from_millis(700)).await;
        assert_eq!(news.number, 6);
    }

    #[tokio::test]
    async fn a_change_that_makes_no_mark_is_no_news() {
        let source = FakeMarks::new();
        let (list, _) = list(&source).await;
        source.set(1, 6, &[]);
        list.renew().await.unwrap();
        assert_eq!(list.current().number, 6, "the number is the registry's version on every node");
        assert!(!list.current().is_news_to((1, 5)));
        let held = list.wait_for_news(Some((1, 5)), Duration::from_millis(1)).await;
        assert_eq!(held.number, 6, "after the wait there is the list as it is now");
    }

    #[tokio::test]
    async fn whoever_knows_nothing_or_less_does_not_wait() {
        let source = FakeMarks::new();
        source.set(2, 6, &[]);
        let (list, _) = list(&source).await;
        for known in [None, Some((2, 5)), Some((1, 9))] {
            assert_eq!(list.wait_for_news(known, LONG).await.number, 6);
        }
    }

    #[tokio::test]
    async fn one_more_than_may_wait_is_answered_at_once() {
        let (list, _) = list(&FakeMarks::new()).await;
        list.waiting.store(MOST_WAITING, Ordering::SeqCst);
        list.wait_for_news(Some((1, 5)), LONG).await;
        assert_eq!(list.waiting.load(Ordering::SeqCst), MOST_WAITING, "and its seat is given back");
    }
}
