//! Signing keys that several nodes share: rows of a store, sealed with the key-encryption key.
//!
//! Takes and gives [`StoredKey`]s, keeps [`SealedKey`]s. Whoever can write to these tables, and has no key-encryption key, can destroy
//! what is there, and no more: he reads no key, and makes none, puts none back and moves no date without that being seen. All of it
//! can be put back as it was before whoever has not seen it later, and, by whoever can write the registry's epoch too, before everybody.
//! It knows nothing of SQL, and nothing of what the keys are for.

use std::cmp::Ordering;
use std::collections::BTreeMap;
use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};

use countersign_resource_server::time::UnixTime;
use sha2::{Digest, Sha256};

use super::key_encryption::{EncryptionKeySource, EncryptionKeys, KeyEncryptionKey, NoEncryptionKey, NotAuthentic};
use super::key_ring::{KeyAnswer, KeyRecord, KeyStore, KeyStoreError, KeyWrite, SetAside, StoredKey, StoredKeys};
use crate::registry::StoreUnavailable;
use crate::registry::store::Answer;

/// A key as a row: anybody may have written it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SealedKey {
    /// The id it claims to have.
    pub kid: String,
    /// How it claims to sign.
    pub alg: String,
    /// When it claims to be made.
    pub created_at: UnixTime,
    /// From when it claims to sign.
    pub signs_from: Option<UnixTime>,
    /// When it claims to be withdrawn.
    pub retired_at: Option<UnixTime>,
    /// In which revision it claims to be written.
    pub revision: i64,
    /// The private key, with which all of that is proven.
    pub sealed: Vec<u8>,
}

/// Which keys there are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RingRow {
    /// Grows by one with every change.
    pub revision: i64,
    /// The id of the key-encryption key.
    pub encrypted_by: String,
    /// What proves it.
    pub proof: Vec<u8>,
}

/// Everything there is, read at one moment.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SealedRing {
    /// The epoch of the registry beside it: it grows where the store was restored, and then revisions may go back.
    pub epoch: i64,
    /// None where there are no keys yet.
    pub ring: Option<RingRow>,
    /// The keys.
    pub keys: Vec<SealedKey>,
    /// Those of them that were withdrawn by the registry's history, and when.
    pub withdrawn: BTreeMap<String, UnixTime>,
    /// The latest version in which that history is about one of them; zero where it never is.
    pub told: i64,
}

/// Which state of the keys a store holds. Two that are read differently are never the same.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RingState {
    /// As of [`SealedRing`].
    pub epoch: i64,
    /// That of the ring; zero where there is none.
    pub revision: i64,
    /// That of the ring; empty where there is none.
    pub proof: Vec<u8>,
    /// Which keys there are, whatever the ring says, and the revision that each claims to be written in; in order.
    pub members: Vec<(String, i64)>,
    /// As of [`SealedRing`].
    pub told: i64,
}

/// Storage of sealed keys.
pub trait SealedKeyStore: fmt::Debug + Send + Sync + 'static {
    /// Everything there is.
    fn sealed_keys(&self) -> Answer<'_, SealedRing>;

    /// Which state it is in.
    fn sealed_state(&self) -> Answer<'_, RingState>;

    /// Puts `ring` in the place of the one with the revision before it, and writes `keys`, in one transaction; nothing where it is
    /// not that revision any more, and says so.
    fn write_sealed(&self, ring: RingRow, keys: Vec<SealedKey>) -> Answer<'_, bool>;
}

/// The keys of a store, as whoever has the key-encryption key reads and writes them.
#[derive(Debug)]
pub struct SharedKeys {
    store: Arc<dyn SealedKeyStore>,
    source: EncryptionKeySource,
    known: Mutex<EncryptionKeys>,
    /// The latest state that was read: none before it, and no other of the same revision, is put in its place unseen.
    seen: Mutex<RingState>,
}

impl SharedKeys {
    /// The keys in `store`, by the key-encryption keys of `source`.
    ///
    /// # Errors
    /// [`NoEncryptionKey`].
    pub fn new(store: Arc<dyn SealedKeyStore>, source: EncryptionKeySource) -> Result<Self, NoEncryptionKey> {
        let known = Mutex::new(source.read()?);
        Ok(Self { store, source, known, seen: Mutex::default() })
    }

    /// Encrypts all keys with the newest key-encryption key that is known. Gives their ids, and those of the key-encryption key before and
    /// after; none where they are encrypted with it already, or there are none.
    ///
    /// # Errors
    /// [`KeyStoreError`]: then nothing was changed.
    pub async fn change_encryption_key(&self) -> Result<Option<ChangedEncryption>, KeyStoreError> {
        let (ring, stored) = self.read_ring().await?;
        if let Some(aside) = stored.set_aside.first() {
            return Err(KeyStoreError(format!("{}: {}: retire it first", aside.name, aside.why)));
        }
        let Some(before) = ring.ring else { return Ok(None) };
        let newest = self.known().newest().cloned().ok_or_else(no_key)?;
        if newest.id() == before.encrypted_by {
            return Ok(None);
        }
        let revision = before.revision + 1;
        let keys: Vec<SealedKey> =
            stored.keys.iter().map(|key| sealed(&newest, &key.record, revision, &key.pem)).collect::<Result<_, _>>()?;
        let members: BTreeMap<&str, i64> = keys.iter().map(|key| (key.kid.as_str(), revision)).collect();
        let proof = newest.prove(revision, members);
        let changed = ChangedEncryption {
            kids: keys.iter().map(|key| key.kid.clone()).collect(),
            before: before.encrypted_by,
            after: newest.id().to_owned(),
        };
        let ring = RingRow { revision, encrypted_by: changed.after.clone(), proof };
        match self.store.write_sealed(ring, keys).await? {
            true => Ok(Some(changed)),
            false => {
                Err(KeyStoreError("the signing keys were changed by somebody else: give the command again".to_owned()))
            }
        }
    }

    /// What `ring` says, by one of the keys that are known.
    ///
    /// # Errors
    /// [`KeyStoreError`]: it is encrypted by none of them, or is not what was written last.
    pub fn open_sealed(ring: &SealedRing, keys: &EncryptionKeys) -> Result<StoredKeys, KeyStoreError> {
        let mut stored = StoredKeys { fingerprint: ring.state().fingerprint(), ..StoredKeys::default() };
        let Some(RingRow { revision, encrypted_by, proof }) = &ring.ring else {
            return if ring.keys.is_empty() { Ok(stored) } else { Err(altered("their ring was removed")) };
        };
        let key = keys.with_id(encrypted_by).ok_or_else(|| {
            KeyStoreError(format!(
                "the signing keys in the store are encrypted by key-encryption key {encrypted_by}, and the one configured is {}",
                keys.ids()
            ))
        })?;
        // In the order of their octets, whatever an engine sorts by.
        let members: BTreeMap<&str, i64> = ring.keys.iter().map(|row| (row.kid.as_str(), row.revision)).collect();
        if members.len() != ring.keys.len() || !key.has_proven(proof, *revision, members) {
            return Err(altered("a key was added, removed or put back"));
        }
        for row in &ring.keys {
            let withdrawn = ring.withdrawn.get(&row.kid).copied();
            match opened(key, row) {
                Ok(mut opened) => {
                    // A withdrawal is as durable as the registry's word for it.
                    opened.record.retired_at = opened.record.retired_at.or(withdrawn);
                    stored.keys.push(opened);
                }
                Err(NotAuthentic) => stored.set_aside.push(SetAside {
                    name: row.kid.clone(),
                    why: "its row in the store was changed by somebody who does not have the key-encryption key"
                        .to_owned(),
                    record: withdrawn.map(|at| KeyRecord::withdrawn(&row.kid, at)),
                    is_unproven: true,
                }),
            }
        }
        Ok(stored)
    }

    fn known(&self) -> EncryptionKeys {
        self.known.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Those that are known, or those in the file now where the one that `ring` is encrypted by is not among them.
    fn keys_for(&self, ring: &SealedRing) -> Result<EncryptionKeys, KeyStoreError> {
        let known = self.known();
        if ring.ring.as_ref().is_none_or(|row| known.with_id(&row.encrypted_by).is_some()) {
            return Ok(known);
        }
        let read = self.source.read().map_err(|error| KeyStoreError(format!("key_encryption_key: {error}")))?;
        *self.known.lock().unwrap_or_else(PoisonError::into_inner) = read.clone();
        Ok(read)
    }

    async fn read_ring(&self) -> Result<(SealedRing, StoredKeys), KeyStoreError> {
        let ring = self.store.sealed_keys().await?;
        let keys = self.keys_for(&ring)?;
        let stored = Self::open_sealed(&ring, &keys)?;
        let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        let state = ring.state();
        match (state.epoch, state.revision).cmp(&(seen.epoch, seen.revision)) {
            Ordering::Less => return Err(altered("an older state of them was put back")),
            // Both are proven: somebody went on from an older state, as whoever has the key-encryption key can.
            Ordering::Equal if state.proof != seen.proof => {
                return Err(altered("another state of the same revision was put in its place"));
            }
            Ordering::Equal if state.told < seen.told => {
                return Err(altered("the registry's word about them was taken back"));
            }
            _ => *seen = state,
        }
        drop(seen);
        Ok((ring, stored))
    }

    async fn write_changes(&self, seen: u64, writes: Vec<KeyWrite>) -> Result<bool, KeyStoreError> {
        let (ring, stored) = self.read_ring().await?;
        if stored.fingerprint != seen {
            return Ok(false);
        }
        let known = self.known();
        let key = match &ring.ring {
            Some(row) => known.with_id(&row.encrypted_by),
            None => known.newest(),
        };
        let key = key.ok_or_else(no_key)?;
        let revision = ring.state().revision + 1;
        let mut pems: BTreeMap<&str, &str> = BTreeMap::new();
        let held = stored.keys.iter();
        let added = writes.iter().filter_map(|write| match write {
            KeyWrite::Add(key) => Some(key),
            KeyWrite::Update(_) => None,
        });
        pems.extend(held.chain(added).map(|key| (key.record.kid.as_str(), key.pem.as_str())));
        let mut rows: BTreeMap<&str, SealedKey> = BTreeMap::new();
        for write in &writes {
            let (KeyWrite::Add(StoredKey { record, .. }) | KeyWrite::Update(record)) = write;
            // One that cannot be opened any more is only ever withdrawn: nothing is left of it.
            let pem = pems.get(record.kid.as_str()).copied().unwrap_or_default();
            rows.insert(&record.kid, sealed(key, record, revision, pem)?);
        }
        let mut members: BTreeMap<&str, i64> = ring.keys.iter().map(|row| (row.kid.as_str(), row.revision)).collect();
        members.extend(rows.keys().map(|kid| (*kid, revision)));
        let proof = key.prove(revision, members);
        let ring = RingRow { revision, encrypted_by: key.id().to_owned(), proof };
        Ok(self.store.write_sealed(ring, rows.into_values().collect()).await?)
    }
}

/// All keys are encrypted by another key-encryption key now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ChangedEncryption {
    /// The ids of the signing keys.
    pub kids: Vec<String>,
    /// The id of the key-encryption key they were encrypted by.
    pub before: String,
    /// And of the one they are.
    pub after: String,
}

impl SealedRing {
    /// What of it a glance can tell.
    pub fn state(&self) -> RingState {
        let mut members: Vec<_> = self.keys.iter().map(|key| (key.kid.clone(), key.revision)).collect();
        members.sort_unstable();
        RingState {
            epoch: self.epoch,
            revision: self.ring.as_ref().map_or(0, |ring| ring.revision),
            proof: self.ring.as_ref().map_or_else(Vec::new, |ring| ring.proof.clone()),
            members,
            told: self.told,
        }
    }
}

impl RingState {
    fn fingerprint(&self) -> u64 {
        let Self { epoch, revision, proof, members, told } = self;
        let count = i64::try_from(members.len()).unwrap_or(i64::MAX);
        let mut digest = Sha256::new();
        for number in [*epoch, *revision, *told, count] {
            digest.update(number.to_be_bytes());
        }
        for (kid, revision) in members {
            digest.update(u64::try_from(kid.len()).unwrap_or(u64::MAX).to_be_bytes());
            digest.update(kid);
            digest.update(revision.to_be_bytes());
        }
        digest.update(proof);
        let digest = digest.finalize();
        digest.first_chunk().map_or(0, |octets| u64::from_be_bytes(*octets))
    }
}

fn sealed(key: &KeyEncryptionKey, record: &KeyRecord, revision: i64, pem: &str) -> Result<SealedKey, KeyStoreError> {
    let octets = key
        .seal(record, revision, pem)
        .ok_or_else(|| KeyStoreError(format!("{}: the cryptographic library would not encrypt it", record.kid)))?;
    Ok(SealedKey {
        kid: record.kid.clone(),
        alg: record.alg.as_str().to_owned(),
        created_at: record.created_at,
        signs_from: record.signs_from,
        retired_at: record.retired_at,
        revision,
        sealed: octets,
    })
}

/// The key of a row.
fn opened(key: &KeyEncryptionKey, row: &SealedKey) -> Result<StoredKey, NotAuthentic> {
    let alg = super::ALGORITHMS.into_iter().find(|alg| alg.as_str() == row.alg).ok_or(NotAuthentic)?;
    let SealedKey { kid, created_at, signs_from, retired_at, .. } = row.clone();
    let record = KeyRecord { kid, alg, created_at, signs_from, retired_at };
    let pem = key.open(&record, row.revision, &row.sealed)?;
    Ok(StoredKey { record, pem })
}

fn altered(how: &str) -> KeyStoreError {
    KeyStoreError(format!("the signing keys in the store are not those that were written last: {how}"))
}

fn no_key() -> KeyStoreError {
    KeyStoreError("no key-encryption key is known".to_owned())
}

impl From<StoreUnavailable> for KeyStoreError {
    fn from(error: StoreUnavailable) -> Self {
        Self(error.to_string())
    }
}

impl KeyStore for SharedKeys {
    fn read(&self) -> KeyAnswer<'_, StoredKeys> {
        Box::pin(async { Ok(self.read_ring().await?.1) })
    }

    fn write(&self, seen: u64, writes: Vec<KeyWrite>) -> KeyAnswer<'_, bool> {
        Box::pin(self.write_changes(seen, writes))
    }

    fn fingerprint(&self) -> KeyAnswer<'_, u64> {
        Box::pin(async { Ok(self.store.sealed_state().await?.fingerprint()) })
    }

    fn is_shared(&self) -> bool {
        true
    }
}
