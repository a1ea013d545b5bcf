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
use countersign_resource_server::status::{MarkHash, REVOCATION_LIST_TYPE, RevocationListClaims};
use countersign_resource_server::time::{Clock, UnixTime};
use countersign_resource_server::token::jws::SigningAlgorithm;
use flate2::Compression;
use flate2::write::GzEncoder;
use futures_util::future::BoxFuture;
use tokio::sync::watch;
use tokio::time::{MissedTickBehavior, interval, sleep, timeout};

use crate::mint::{KeyRing, random_octets};
use crate::registry::{Registry, RegistryVersion, RevocationState, StoreUnavailable};

/// How often the list is signed anew though nothing changed; resource servers refuse one that is 30 s old.
pub const SIGNED_EVERY: Duration = Duration::from_secs(5);

/// How long a list may be taken for after it was signed.
const LIFETIME_SECONDS: i64 = 60;

/// How many may wait for news at the same time; the next is answered with what there is.
const MOST_WAITING: usize = 16_384;

/// Changes that come within this time share one signature.
const SETTLE: Duration = Duration::from_millis(20);

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
    marks: BTreeMap<MarkHash, i64>,
    /// The first registry version this node has seen these marks at.
    unchanged_since: i64,
}

impl Snapshot {
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

    /// The list, as soon as it says something that version `known` may not, and after `wait` at the latest.
    pub async fn wait_for_news(&self, known: Option<(i64, i64)>, wait: Duration) -> Arc<Snapshot> {
        let Some(known) = known else { return self.current() };
        let Some(_seat) = Seat::take(&self.waiting) else { return self.current() };
        let mut held = self.held.subscribe();
        let news = held.wait_for(|snapshot| snapshot.is_news_to(known));
        let _ = timeout(wait, news).await;
        self.current()
    }

    /// Draws the list up anew. What is held stays where that fails, and ages.
    ///
    /// # Errors
    /// [`ListUnavailable`].
    pub async fn renew(&self) -> Result<(), ListUnavailable> {
        let now = self.clock.now();
        let state = self.source.marks(now).await?;
        let snapshot = draw_up(&self.issuer, &self.salt, &self.keys, &state, Some(&self.current()), now)?;
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
    let same = before.filter(|before| before.epoch == state.epoch && before.marks == marks);
    let number = state.version.0;
    let iat = now.as_seconds();
    let claims = RevocationListClaims {
        iss: issuer.to_owned(),
        iat,
        exp: iat.saturating_add(LIFETIME_SECONDS),
        epoch: state.epoch,
        number,
        salt: salt.to_owned(),
        marks: marks.clone(),
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
        unchanged_since: same.map_or(number, |before| before.unchanged_since),
        marks,
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
