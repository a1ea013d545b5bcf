//! Changing the keys of a store: one takes over, one is withdrawn, what is missing is made.
//!
//! Takes what a [`KeyStore`] holds, plans what is to become of it and writes that in one step, planned anew where others were
//! faster. A key is published for ten minutes before it signs, unless it has to stand in for one that was withdrawn.

use std::sync::Arc;

use countersign_resource_server::time::UnixTime;
use countersign_resource_server::token::jws::SigningAlgorithm;
use serde::Serialize;

use super::{
    KeyRecord, KeyRing, KeyStage, KeyStore, KeyStoreError, KeyWrite, PUBLISHED_BEFORE_SIGNING, SetAside, SigningKeys,
    StoredKey,
};
use crate::mint::signer::{self, ALGORITHMS, KeyError, Signer};

/// How often a change is planned anew because others have changed the keys meanwhile.
const ATTEMPTS: usize = 8;

/// A key operation that cannot be done: one line for the operator each.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum KeyRingError {
    /// The next key is to take over at a time that was fixed before.
    #[error("key {kid} already takes over at {from}: nothing was changed")]
    AlreadyScheduled {
        /// The next key.
        kid: String,
        /// When.
        from: UnixTime,
    },
    /// It was withdrawn before.
    #[error("key {kid} was retired at {at}")]
    AlreadyRetired {
        /// Which.
        kid: String,
        /// When.
        at: UnixTime,
    },
    /// Others change the keys all the time.
    #[error("the signing keys were changed by others meanwhile, again and again: nothing was changed")]
    Contended,
    /// The key cannot be made or read.
    #[error("{algorithm}: {error}", algorithm = .algorithm.as_str())]
    Key {
        /// Of which algorithm.
        algorithm: SigningAlgorithm,
        /// Why.
        error: KeyError,
    },
    /// The next key has not been published for long enough.
    #[error(
        "key {kid} has been published since {since} and may sign from {from}: a resource server may not know it yet. Leave --now away to let it take over then"
    )]
    NotPublishedLongEnough {
        /// The next key.
        kid: String,
        /// Since when it has been published.
        since: UnixTime,
        /// When it may sign.
        from: UnixTime,
    },
    /// The store.
    #[error(transparent)]
    Store(#[from] KeyStoreError),
    /// No such key.
    #[error("no key has the id {kid}: `countersign key list` shows them")]
    Unknown {
        /// What was asked for.
        kid: String,
    },
}

impl KeyRing {
    /// Reads the keys of `store`, and makes what is missing: for each algorithm one that signs and the next.
    ///
    /// # Errors
    /// [`KeyRingError`] if the store cannot be used or a key not be made.
    pub async fn open(store: Arc<dyn KeyStore>, now: UnixTime) -> Result<Self, KeyRingError> {
        complete(&*store, now).await?;
        Ok(Self::reading(store).await?)
    }
}

impl SigningKeys {
    /// What is known of the key with this id, whether or not it can be used.
    fn record(&self, kid: &str) -> Option<KeyRecord> {
        let aside = self.set_aside.iter().filter_map(|aside| aside.record.as_ref());
        self.keys.iter().map(|key| &key.record).chain(aside).find(|record| record.kid == kid).cloned()
    }

    /// Whether there is a key with this id, and nobody vouches for more than that.
    fn is_unproven(&self, kid: &str) -> bool {
        self.set_aside.iter().any(|aside| aside.is_unproven && aside.name == kid)
    }

    /// What a key that is set aside would do.
    fn stage_if_usable(&self, key: &KeyRecord, now: UnixTime) -> KeyStage {
        match key.signs_from {
            Some(from) if from <= now => match self.successor(key.alg, from) {
                Some(taken_over) if taken_over <= now => KeyStage::Outgoing,
                _ => KeyStage::Signing,
            },
            _ => KeyStage::Next,
        }
    }
}

/// What is to become of the keys of a store.
struct Plan {
    keys: SigningKeys,
    writes: Vec<KeyWrite>,
}

impl Plan {
    fn update(&mut self, record: KeyRecord) {
        self.writes.push(KeyWrite::Update(record));
    }

    /// Where no key signs with `algorithm` at `now`, lets the next one take over; makes another next where there is none any more.
    fn succeed(&mut self, algorithm: SigningAlgorithm, now: UnixTime) -> Result<Option<String>, KeyRingError> {
        let next = self.keys.next(algorithm, now).map(|next| next.record.clone());
        if self.keys.signing(algorithm, now).is_some() {
            if next.is_none() {
                self.make(algorithm, now, None)?;
            }
            return Ok(None);
        }
        // After every key of that algorithm whose time is known: it is one of those that keeps the others from signing.
        let own = self.keys.keys.iter().filter(|key| key.record.alg == algorithm);
        let last = own.filter_map(|key| key.record.signs_from).max();
        let from = last.map_or(now, |last| now.max(UnixTime::from_millis(last.as_millis().saturating_add(1))));
        let kid = match next {
            Some(next) => {
                let kid = next.kid.clone();
                self.update(KeyRecord { signs_from: Some(from), ..next });
                kid
            }
            None => self.make(algorithm, now, Some(from))?.kid,
        };
        self.make(algorithm, now, None)?;
        Ok(Some(kid))
    }

    fn make(
        &mut self,
        algorithm: SigningAlgorithm,
        now: UnixTime,
        signs_from: Option<UnixTime>,
    ) -> Result<KeyRecord, KeyRingError> {
        let of = |error| KeyRingError::Key { algorithm, error };
        let pem = signer::generate(algorithm).map_err(of)?;
        let signer = Signer::from_pem(algorithm, &pem).map_err(of)?;
        let record =
            KeyRecord { kid: signer.kid().to_string(), alg: algorithm, created_at: now, signs_from, retired_at: None };
        self.writes.push(KeyWrite::Add(StoredKey { record: record.clone(), pem }));
        Ok(record)
    }
}

/// Plans a change of what `store` holds, and makes it; where somebody else was faster, plans it anew from what that left. Nobody has
/// to wait while a key is made.
async fn change<T>(
    store: &dyn KeyStore,
    plan: impl Fn(&mut Plan) -> Result<T, KeyRingError>,
) -> Result<T, KeyRingError> {
    for _ in 0..ATTEMPTS {
        let stored = store.read().await?;
        let seen = stored.fingerprint;
        let mut planned = Plan { keys: SigningKeys::load(stored, None), writes: Vec::new() };
        let told = plan(&mut planned)?;
        if planned.writes.is_empty() || store.write(seen, planned.writes).await? {
            return Ok(told);
        }
    }
    Err(KeyRingError::Contended)
}

/// Makes what is missing: for each algorithm a key that signs and the next. The very first signs at once.
///
/// # Errors
/// [`KeyRingError`] if the store cannot be used or a key not be made.
pub async fn complete(store: &dyn KeyStore, now: UnixTime) -> Result<Vec<KeyRecord>, KeyRingError> {
    change(store, |plan| {
        let mut made = Vec::new();
        for algorithm in ALGORITHMS {
            // A broken key may be the one that signs: whoever repairs it decides, not a restart.
            let is_withdrawn =
                |aside: &SetAside| aside.record.as_ref().is_some_and(|record| record.retired_at.is_some());
            let broken = !plan.keys.set_aside.iter().all(is_withdrawn);
            let none = !plan.keys.keys.iter().any(|key| key.record.alg == algorithm && key.record.signs_from.is_some());
            if none && !broken {
                made.push(plan.make(algorithm, now, Some(now))?);
            }
            if plan.keys.next(algorithm, now).is_none() {
                made.push(plan.make(algorithm, now, None)?);
            }
        }
        Ok(made)
    })
    .await
}

/// When a rotation takes effect.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum When {
    /// As soon as the next key has been published long enough.
    OncePublished,
    /// At once, or not at all.
    Now,
}

/// What a rotation did for one algorithm.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Rotation {
    /// Which.
    pub alg: SigningAlgorithm,
    /// The key that takes over.
    pub kid: String,
    /// When it does.
    pub signs_from: UnixTime,
    /// The next after it, published from now on.
    pub next: String,
}

/// Lets the next key of each of `algorithms` take over, and makes another next.
///
/// # Errors
/// [`KeyRingError::NotPublishedLongEnough`] (only with [`When::Now`]) and [`KeyRingError::AlreadyScheduled`], before
/// anything is changed; [`KeyRingError::Store`].
pub async fn rotate(
    store: &dyn KeyStore,
    algorithms: &[SigningAlgorithm],
    when: When,
    now: UnixTime,
) -> Result<Vec<Rotation>, KeyRingError> {
    change(store, |plan| {
        let mut scheduled = Vec::new();
        for algorithm in algorithms {
            let Some(next) = plan.keys.next(*algorithm, now) else { continue };
            let mut record = next.record.clone();
            let kid = record.kid.clone();
            if let Some(from) = record.signs_from {
                return Err(KeyRingError::AlreadyScheduled { kid, from });
            }
            let allowed = record.created_at.after(PUBLISHED_BEFORE_SIGNING);
            if when == When::Now && now < allowed {
                return Err(KeyRingError::NotPublishedLongEnough { kid, since: record.created_at, from: allowed });
            }
            record.signs_from = Some(now.max(allowed));
            scheduled.push(record);
        }
        let mut rotations = Vec::new();
        for record in scheduled {
            plan.update(record.clone());
            let next = plan.make(record.alg, now, None)?.kid;
            let signs_from = record.signs_from.unwrap_or(now);
            rotations.push(Rotation { alg: record.alg, kid: record.kid, signs_from, next });
        }
        Ok(rotations)
    })
    .await
}

/// What a withdrawal did.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Retirement {
    /// The key that is gone.
    pub kid: String,
    /// The key that signs in its place, where it signed. It may have been published for less than ten minutes.
    pub successor: Option<String>,
}

/// Withdraws a key at once: it leaves `/jwks` and never signs again. Where it signed the next key takes over, however
/// long that has been published: tokens by a key that is not trusted would be worse than tokens checked a little late.
///
/// # Errors
/// [`KeyRingError::Unknown`], [`KeyRingError::AlreadyRetired`], [`KeyRingError::Store`].
pub async fn retire(store: &dyn KeyStore, kid: &str, now: UnixTime) -> Result<Retirement, KeyRingError> {
    change(store, |plan| {
        let mut retirement = Retirement { kid: kid.to_owned(), successor: None };
        let unknown = || KeyRingError::Unknown { kid: kid.to_owned() };
        if plan.keys.is_unproven(kid) {
            // Its dates and its algorithm are anybody's word: what it leaves open is seen by what is left.
            plan.update(KeyRecord::withdrawn(kid, now));
            for algorithm in ALGORITHMS {
                if let Some(successor) = plan.succeed(algorithm, now)? {
                    retirement.successor.get_or_insert(successor);
                }
            }
            return Ok(retirement);
        }
        // One that cannot be used any more can still be withdrawn: somebody else may be able to.
        let mut record = plan.keys.record(kid).ok_or_else(unknown)?;
        let algorithm = record.alg;
        let stage = match (record.retired_at, plan.keys.find(kid)) {
            // Only the mark could be made, while the keys could not be read: what it left undone is done now.
            (Some(_), _) if plan.keys.signing(algorithm, now).is_none() => KeyStage::Signing,
            (Some(at), _) => return Err(KeyRingError::AlreadyRetired { kid: kid.to_owned(), at }),
            (None, Some(key)) => plan.keys.stage(&key.record, now),
            (None, None) => plan.keys.stage_if_usable(&record, now),
        };
        if stage == KeyStage::Signing {
            let mut successor = match plan.keys.next(algorithm, now) {
                Some(next) => next.record.clone(),
                None => plan.make(algorithm, now, None)?,
            };
            // One millisecond on, so that of two keys with one date the right one is the later.
            let earliest = record.signs_from.map_or(now, |from| UnixTime::from_millis(from.as_millis() + 1));
            successor.signs_from = Some(now.max(earliest));
            plan.update(successor.clone());
            retirement.successor = Some(successor.kid);
        }
        record.retired_at = record.retired_at.or(Some(now));
        if stage == KeyStage::Next {
            // It never signed, so its time must not come: whoever signs goes on. Where it has come already by the clock of a
            // node, that of this command is behind, and its predecessor is still published.
            record.signs_from = None;
        }
        plan.update(record);
        if matches!(stage, KeyStage::Signing | KeyStage::Next) {
            plan.make(algorithm, now, None)?;
        }
        Ok(retirement)
    })
    .await
}
