//! Signing keys: which one signs now, and which are published.
//!
//! Takes keys from a [`KeyStore`], gives [`SigningKeys`], a snapshot that is swapped whole while the server runs. For each
//! algorithm one key signs and the next is published already, so that nobody meets a signature by a key that is not
//! in `/jwks`. It knows nothing of files or of what is signed.

/// How they change.
mod rotation;

pub use rotation::{KeyRingError, Retirement, Rotation, When, complete, retire, rotate};

use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use arc_swap::{ArcSwap, ArcSwapOption};
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use countersign_resource_server::time::{Clock, UnixTime};
use countersign_resource_server::token::jws::SigningAlgorithm;
use futures_util::future::BoxFuture;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use tokio::sync::{Mutex, watch};
use tokio::time::MissedTickBehavior;
use zeroize::Zeroizing;

use super::signer::{ALGORITHMS, Signer};
use crate::policy::LONGEST_LIFETIME;

/// How long a key is published before it signs: several times the `max-age` of `/jwks`.
pub const PUBLISHED_BEFORE_SIGNING: Duration = Duration::from_secs(600);

/// How long a key stays published after its successor took over: the longest life of a token, the leeway of whoever
/// checks it, and the time until every node has noticed.
pub const PUBLISHED_AFTER_SIGNING: Duration = Duration::from_secs(LONGEST_LIFETIME.as_secs() + 120);

/// How long keys that others change as well may sign without another look at them: far less than [`PUBLISHED_BEFORE_SIGNING`], in which
/// every node that signs has then published a new key. Looks are more frequent; whoever was stopped for longer looks first.
const UNCONFIRMED: Duration = Duration::from_secs(5);

/// How long to wait after a hint, so that those which come together are followed once.
const SETTLE: Duration = Duration::from_millis(50);

/// What is known of a key beside the key itself.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct KeyRecord {
    /// The RFC 7638 thumbprint of its public half.
    pub kid: String,
    /// How it signs.
    pub alg: SigningAlgorithm,
    /// When it was made, and published.
    pub created_at: UnixTime,
    /// From when on it signs; not said for a key that waits for its rotation.
    pub signs_from: Option<UnixTime>,
    /// When it was withdrawn: it neither signs nor is published.
    pub retired_at: Option<UnixTime>,
}

impl KeyRecord {
    /// What is put down of a key of which nobody vouches for more than its id: that it is withdrawn.
    pub(super) fn withdrawn(kid: &str, at: UnixTime) -> Self {
        // Nothing goes by the algorithm of a key that has no date to sign from; one has to be said.
        Self { kid: kid.to_owned(), alg: ALGORITHMS[0], created_at: at, signs_from: None, retired_at: Some(at) }
    }
}

/// A key as it is stored.
pub struct StoredKey {
    /// What is known of it.
    pub record: KeyRecord,
    /// PKCS#8 PEM.
    pub pem: Zeroizing<String>,
}

impl fmt::Debug for StoredKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("StoredKey").field("record", &self.record).finish_non_exhaustive()
    }
}

/// A key that cannot be used, and why.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SetAside {
    /// What the store calls it.
    pub name: String,
    /// One line for the operator.
    pub why: String,
    /// What is known of it, where that much can be read: it may have been withdrawn.
    pub record: Option<KeyRecord>,
    /// Whether anybody may have written what stands beside it: then nothing of that is believed, and its name is the id that it is
    /// withdrawn by.
    pub is_unproven: bool,
}

/// Everything a store holds.
#[derive(Debug, Default)]
pub struct StoredKeys {
    /// What can be read.
    pub keys: Vec<StoredKey>,
    /// What cannot.
    pub set_aside: Vec<SetAside>,
    /// As [`KeyStore::fingerprint`] says it, no later than what was read.
    pub fingerprint: u64,
}

/// One step of a change.
#[derive(Debug)]
pub enum KeyWrite {
    /// A new key is kept.
    Add(StoredKey),
    /// What is known of a key that is held is replaced.
    Update(KeyRecord),
}

/// What a store of keys answers, once it does.
pub type KeyAnswer<'a, T> = BoxFuture<'a, Result<T, KeyStoreError>>;

/// Where signing keys are kept. Called seldom.
pub trait KeyStore: fmt::Debug + Send + Sync + 'static {
    /// Everything held. One broken key is set aside; only a store that cannot be read at all is an error.
    fn read(&self) -> KeyAnswer<'_, StoredKeys>;

    /// Makes these changes, in this order, if what is held is still what `seen` was said of; otherwise none, and says so.
    fn write(&self, seen: u64, writes: Vec<KeyWrite>) -> KeyAnswer<'_, bool>;

    /// Differs whenever what is held differs.
    fn fingerprint(&self) -> KeyAnswer<'_, u64>;

    /// Whether others change it who may be anywhere: then nobody signs who does not hear of that.
    fn is_shared(&self) -> bool;
}

/// The store cannot be read or written: one line for the operator.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct KeyStoreError(pub String);

/// A key that can be used.
#[derive(Clone, Debug)]
pub struct SigningKey {
    /// What is known of it.
    pub record: KeyRecord,
    /// The key.
    pub signer: Signer,
}

/// Keys as they stand: immutable, swapped whole.
#[derive(Debug, Default)]
pub struct SigningKeys {
    keys: Vec<SigningKey>,
    set_aside: Vec<SetAside>,
}

/// What a key does at an instant.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum KeyStage {
    /// Published, does not sign yet.
    Next,
    /// Signs.
    Signing,
    /// Published until the last token it signed has expired.
    Outgoing,
    /// Neither.
    Ended,
    /// Withdrawn before its time.
    Retired,
}

impl From<StoredKeys> for SigningKeys {
    fn from(stored: StoredKeys) -> Self {
        Self::load(stored, None)
    }
}

impl SigningKeys {
    fn load(stored: StoredKeys, before: Option<&Self>) -> Self {
        let StoredKeys { keys: stored, mut set_aside, .. } = stored;
        let mut keys: Vec<SigningKey> = Vec::new();
        for StoredKey { record, pem } in stored {
            // What was read before is not read again: parsing an RSA key checks it, which takes its time.
            let known = before.and_then(|before| before.find(&record.kid)).map(|key| key.signer.clone());
            let signer = known.map_or_else(|| Signer::from_pem(record.alg, &pem), Ok);
            let why = match signer {
                Ok(signer) if **signer.kid() == *record.kid => {
                    keys.push(SigningKey { record, signer });
                    continue;
                }
                Ok(_) => "the key has another id".to_owned(),
                Err(error) => error.to_string(),
            };
            set_aside.push(SetAside { name: record.kid.clone(), why, record: Some(record), is_unproven: false });
        }
        keys.sort_by(|a, b| (a.record.created_at, &a.record.kid).cmp(&(b.record.created_at, &b.record.kid)));
        Self { keys, set_aside }
    }

    /// The key that signs with `algorithm` at `now`.
    pub fn signing(&self, algorithm: SigningAlgorithm, now: UnixTime) -> Option<&Signer> {
        self.key_that_signs(algorithm, now).map(|key| &key.signer)
    }

    fn key_that_signs(&self, algorithm: SigningAlgorithm, now: UnixTime) -> Option<&SigningKey> {
        let own = || self.keys.iter().filter(move |key| key.record.alg == algorithm);
        let scheduled = || own().filter_map(|key| key.record.signs_from.map(|from| (from, key)));
        let good = || scheduled().filter(|(_, key)| key.record.retired_at.is_none());
        // The latest whose time has come. A calendar stepped back before the first of them changes nothing: it signs.
        let latest = scheduled().filter(|(from, _)| *from <= now).max_by_key(|(from, _)| *from);
        let (_, key) = match latest {
            Some((_, key)) if key.record.retired_at.is_none() => return Some(key),
            // A key that was withdrawn has no stand-in but the one that comes after it: its predecessor may be gone from /jwks
            // before its tokens expire. That one does not wait for its time, which is by the clock of whoever withdrew the
            // other, and that may be ahead of this one.
            Some((of, _)) => good().filter(|(from, _)| *from >= of).min_by_key(|(from, _)| *from)?,
            None => good().min_by_key(|(from, _)| *from)?,
        };
        Some(key)
    }

    /// What `key` does at `now`.
    pub fn stage(&self, key: &KeyRecord, now: UnixTime) -> KeyStage {
        if key.retired_at.is_some() {
            return KeyStage::Retired;
        }
        if self.signing(key.alg, now).is_some_and(|signer| **signer.kid() == *key.kid) {
            return KeyStage::Signing;
        }
        let Some(from) = key.signs_from.filter(|from| *from <= now) else {
            return KeyStage::Next;
        };
        match self.successor(key.alg, from) {
            Some(taken_over) if now >= taken_over.after(PUBLISHED_AFTER_SIGNING) => KeyStage::Ended,
            _ => KeyStage::Outgoing,
        }
    }

    fn successor(&self, algorithm: SigningAlgorithm, from: UnixTime) -> Option<UnixTime> {
        let own = self.keys.iter().filter(|key| key.record.alg == algorithm);
        own.filter_map(|key| key.record.signs_from).filter(|other| *other > from).min()
    }

    /// The keys in `/jwks` at `now`.
    pub fn published(&self, now: UnixTime) -> impl Iterator<Item = &SigningKey> {
        self.keys.iter().filter(move |key| {
            matches!(self.stage(&key.record, now), KeyStage::Next | KeyStage::Signing | KeyStage::Outgoing)
        })
    }

    /// All of them, oldest first.
    pub fn all(&self) -> &[SigningKey] {
        &self.keys
    }

    /// What cannot be used, and why.
    pub fn set_aside(&self) -> &[SetAside] {
        &self.set_aside
    }

    fn find(&self, kid: &str) -> Option<&SigningKey> {
        self.keys.iter().find(|key| key.record.kid == kid)
    }

    /// The key of `algorithm` that takes over next: the one a rotation has scheduled, else the one that has been published
    /// longest.
    fn next(&self, algorithm: SigningAlgorithm, now: UnixTime) -> Option<&SigningKey> {
        let waiting = |key: &&SigningKey| key.record.alg == algorithm && self.stage(&key.record, now) == KeyStage::Next;
        self.keys.iter().filter(waiting).min_by_key(|key| key.record.signs_from.map_or(i64::MAX, UnixTime::as_millis))
    }
}

/// The JWK Set as it is served (RFC 7517 §5).
#[derive(Debug)]
pub struct PublishedKeys {
    /// `application/jwk-set+json`
    pub body: Arc<str>,
    /// A strong entity tag, with its quotes.
    pub etag: Arc<str>,
    keys: Arc<SigningKeys>,
    kids: Vec<Arc<str>>,
}

/// The keys of a running server.
#[derive(Debug)]
pub struct KeyRing {
    store: Arc<dyn KeyStore>,
    current: ArcSwap<SigningKeys>,
    published: ArcSwapOption<PublishedKeys>,
    changed: watch::Sender<u64>,
    reloading: Mutex<()>,
    confirmed: Confirmed,
}

/// When the keys were last known to be those of a store that others change, by the clock of whoever watches it.
#[derive(Debug, Default)]
struct Confirmed {
    clock: OnceLock<Arc<dyn Clock>>,
    /// The monotonic millisecond, plus one, in which the last look began that went well; zero where the last one did not.
    at: AtomicU64,
}

impl Confirmed {
    /// The monotonic millisecond, plus one; zero where nobody watches.
    fn instant(&self) -> u64 {
        self.clock.get().map_or(0, |clock| u64::try_from(clock.monotonic().as_millis()).unwrap_or(u64::MAX - 1) + 1)
    }

    fn is_recent(&self) -> bool {
        let at = self.at.load(Ordering::Acquire);
        self.clock.get().is_none()
            || (at != 0 && self.instant().saturating_sub(at) <= u64::try_from(UNCONFIRMED.as_millis()).unwrap_or(0))
    }
}

impl KeyRing {
    /// Reads the keys of `store` as they are.
    ///
    /// # Errors
    /// [`KeyStoreError`] if it cannot be read.
    pub(crate) async fn reading(store: Arc<dyn KeyStore>) -> Result<Self, KeyStoreError> {
        let stored = store.read().await?;
        let (changed, _) = watch::channel(stored.fingerprint);
        let keys = SigningKeys::load(stored, None);
        for SetAside { name, why, .. } in keys.set_aside() {
            tracing::error!(key.file = %name, reason = %why, "a signing key is set aside");
        }
        Ok(Self {
            store,
            current: ArcSwap::from_pointee(keys),
            published: ArcSwapOption::empty(),
            changed,
            reloading: Mutex::default(),
            confirmed: Confirmed::default(),
        })
    }

    /// What `store` holds, to look at.
    ///
    /// # Errors
    /// [`KeyStoreError`] if it cannot be read.
    pub async fn read(store: &dyn KeyStore) -> Result<SigningKeys, KeyStoreError> {
        Ok(SigningKeys::load(store.read().await?, None))
    }

    /// The keys as they stand.
    pub fn current(&self) -> Arc<SigningKeys> {
        self.current.load_full()
    }

    /// Whether what is held may sign: a node that does not hear of changes others make to the same keys might sign with one that was
    /// withdrawn, or be the first to sign with one that not everybody has published.
    pub fn may_sign(&self) -> bool {
        !self.store.is_shared() || self.confirmed.is_recent()
    }

    /// `/jwks` at `now`: made when it changes, not when it is asked for.
    pub fn published(&self, now: UnixTime) -> Arc<PublishedKeys> {
        let keys = self.current();
        if let Some(held) = self.published.load_full()
            && Arc::ptr_eq(&held.keys, &keys)
            && keys.published(now).map(|key| key.signer.kid()).eq(held.kids.iter())
        {
            return held;
        }
        let kids = keys.published(now).map(|key| Arc::clone(key.signer.kid())).collect();
        let jwks: Vec<_> = keys.published(now).map(|key| key.signer.public_jwk()).collect();
        let body: Arc<str> = serde_json::json!({ "keys": jwks }).to_string().into();
        let etag = format!("\"{}\"", URL_SAFE_NO_PAD.encode(&Sha256::digest(body.as_bytes())[..16])).into();
        let made = Arc::new(PublishedKeys { body, etag, keys, kids });
        self.published.store(Some(Arc::clone(&made)));
        made
    }

    /// Reads the store again if it changed. What was read before and is broken now is kept, unless it was withdrawn: no good
    /// token is refused because somebody edits a file.
    ///
    /// # Errors
    /// [`KeyStoreError`] if the store cannot be read: then everything stays as it was.
    pub async fn reload(&self) -> Result<bool, KeyStoreError> {
        // One after the other: what was read first must not take the place of what was read last.
        let _one = self.reloading.lock().await;
        let begun = self.confirmed.instant();
        let reloaded = self.look().await;
        self.confirmed.at.store(if reloaded.is_ok() { begun } else { 0 }, Ordering::Release);
        reloaded
    }

    async fn look(&self) -> Result<bool, KeyStoreError> {
        if self.store.fingerprint().await? == *self.changed.borrow() {
            return Ok(false);
        }
        let before = self.current();
        let stored = self.store.read().await?;
        let fingerprint = stored.fingerprint;
        let mut keys = SigningKeys::load(stored, Some(&before));
        for SetAside { name, why, .. } in &keys.set_aside {
            tracing::error!(key.file = %name, reason = %why, "a signing key is set aside");
        }
        let kept = |key: &SigningKey| {
            let aside = keys.set_aside.iter().find(|aside| aside.name == key.record.kid)?;
            let record = aside.record.as_ref().unwrap_or(&key.record).clone();
            Some(SigningKey { record, signer: key.signer.clone() })
        };
        let kept: Vec<SigningKey> = before.keys.iter().filter_map(kept).collect();
        keys.keys.extend(kept);
        self.current.store(Arc::new(keys));
        self.changed.send_replace(fingerprint);
        Ok(true)
    }

    /// Changes whenever the keys do.
    pub fn subscribe(&self) -> watch::Receiver<u64> {
        self.changed.subscribe()
    }

    /// Begins to go by `clock` for how long ago the keys were known to be those of the store, and looks.
    ///
    /// # Errors
    /// [`KeyStoreError`] if the store cannot be read.
    pub async fn follow(&self, clock: Arc<dyn Clock>) -> Result<(), KeyStoreError> {
        self.confirmed.clock.get_or_init(|| clock);
        self.reload().await.map(drop)
    }

    /// Watches the store until the ring is dropped: every so often, and whenever `hints` says that somebody changed something.
    pub fn watch<T: Send + Sync + 'static>(
        self: &Arc<Self>,
        every: Duration,
        mut hints: watch::Receiver<T>,
    ) -> tokio::task::JoinHandle<()> {
        let ring = Arc::downgrade(self);
        tokio::spawn(async move {
            let mut failing = false;
            let mut ticks = tokio::time::interval(every);
            ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
            loop {
                tokio::select! {
                    _ = ticks.tick() => {}
                    Ok(()) = hints.changed() => {
                        // Whoever changes something all the time makes nobody ask all the time.
                        tokio::time::sleep(SETTLE).await;
                        hints.mark_unchanged();
                    }
                }
                let Some(ring) = ring.upgrade() else { return };
                let reloaded = ring.reload().await;
                match &reloaded {
                    Ok(true) => tracing::info!("the signing keys were read anew"),
                    Err(error) if !failing => tracing::error!(%error, "the signing keys cannot be read"),
                    _ => {}
                }
                failing = reloaded.is_err();
            }
        })
    }
}

#[cfg(test)]
mod tests;
