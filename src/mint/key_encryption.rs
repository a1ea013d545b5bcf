//! The key-encryption key: what is in the store of signing keys, nobody reads or changes without it.
//!
//! Takes 32 octets from a file or the environment, gives [`KeyEncryptionKey`], which seals a private key together with what
//! is known of it, and proves which keys there are. It knows nothing of where the result is kept.

use std::fmt;
use std::fs;
use std::io::{self, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt, chown};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use aws_lc_rs::aead::{AES_256_GCM, Aad, LessSafeKey, NONCE_LEN, Nonce, UnboundKey};
use aws_lc_rs::hkdf::{HKDF_SHA256, KeyType, Salt};
use aws_lc_rs::hmac;
use base64::Engine;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use zeroize::Zeroizing;

use super::key_ring::KeyRecord;
use super::signer::random_octets;

/// How many octets it has.
const OCTETS: usize = 32;

/// How many a node may know: the one in use, and the one that takes its place; and one more, for who changes his mind.
const MOST: usize = 3;

/// What each key is derived for. Another format of what is sealed or proven gets other words.
const SEALING: &[u8] = b"countersign signing key 1: sealing";
const PROVING: &[u8] = b"countersign signing key 1: proving";
const NAMING: &[u8] = b"countersign signing key 1: naming";

/// A key-encryption key, ready to use.
pub struct KeyEncryptionKey {
    id: String,
    sealing: LessSafeKey,
    proving: hmac::Key,
}

impl fmt::Debug for KeyEncryptionKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("KeyEncryptionKey").field("id", &self.id).finish_non_exhaustive()
    }
}

/// What was sealed is not what was sealed with this key, or not with these facts beside it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct NotAuthentic;

impl KeyEncryptionKey {
    fn of(octets: &[u8; OCTETS]) -> Option<Self> {
        // RFC 5869: the octets are random already; what is derived says what for, so that no use helps another.
        let derived = Salt::new(HKDF_SHA256, &[]).extract(octets);
        let sealing = UnboundKey::from(derived.expand(&[SEALING], &AES_256_GCM).ok()?);
        let proving = hmac::Key::from(derived.expand(&[PROVING], hmac::HMAC_SHA256).ok()?);
        let mut name = [0; Named::OCTETS];
        derived.expand(&[NAMING], Named).ok()?.fill(&mut name).ok()?;
        Some(Self { id: URL_SAFE_NO_PAD.encode(name), sealing: LessSafeKey::new(sealing), proving })
    }

    /// Names it, and says nothing of it.
    pub fn id(&self) -> &str {
        &self.id
    }

    /// Encrypts the private key that `record` is about, so that it opens with exactly this record and `revision`.
    pub(super) fn seal(&self, record: &KeyRecord, revision: i64, pem: &str) -> Option<Vec<u8>> {
        let nonce = random_octets::<NONCE_LEN>();
        let mut octets = Zeroizing::new(pem.as_bytes().to_vec());
        let facts = Aad::from(facts(record, revision));
        let tag = self
            .sealing
            .seal_in_place_separate_tag(Nonce::assume_unique_for_key(nonce), facts, octets.as_mut_slice())
            .ok()?;
        Some([&nonce[..], &octets, tag.as_ref()].concat())
    }

    /// Decrypts what [`Self::seal`] made, if nothing of it and of what stands beside it was changed.
    pub(super) fn open(
        &self,
        record: &KeyRecord,
        revision: i64,
        sealed: &[u8],
    ) -> Result<Zeroizing<String>, NotAuthentic> {
        let (nonce, sealed) = sealed.split_first_chunk::<NONCE_LEN>().ok_or(NotAuthentic)?;
        let mut octets = Zeroizing::new(sealed.to_vec());
        let facts = Aad::from(facts(record, revision));
        let opened = self.sealing.open_in_place(Nonce::assume_unique_for_key(*nonce), facts, octets.as_mut_slice());
        let opened = opened.map_err(|_| NotAuthentic)?;
        std::str::from_utf8(opened).map(|pem| Zeroizing::new(pem.to_owned())).map_err(|_| NotAuthentic)
    }

    /// Says that revision `revision` has exactly these keys, each as it was written in the revision beside it; `members` in order of
    /// their ids.
    pub(super) fn prove<'a>(&self, revision: i64, members: impl IntoIterator<Item = (&'a str, i64)>) -> Vec<u8> {
        hmac::sign(&self.proving, &statement(revision, members)).as_ref().to_vec()
    }

    /// Whether [`Self::prove`] has said so.
    pub(super) fn has_proven<'a>(
        &self,
        proof: &[u8],
        revision: i64,
        members: impl IntoIterator<Item = (&'a str, i64)>,
    ) -> bool {
        hmac::verify(&self.proving, &statement(revision, members), proof).is_ok()
    }
}

/// Of an id.
struct Named;

impl Named {
    const OCTETS: usize = 9;
}

impl KeyType for Named {
    fn len(&self) -> usize {
        Self::OCTETS
    }
}

/// What is known of a key, in octets that say one thing only: a text has its length before it.
fn facts(record: &KeyRecord, revision: i64) -> Vec<u8> {
    let KeyRecord { kid, alg, created_at, signs_from, retired_at } = record;
    let mut octets = Vec::new();
    for text in [kid.as_str(), alg.as_str()] {
        put(&mut octets, text);
    }
    octets.extend(created_at.as_millis().to_be_bytes());
    for instant in [signs_from, retired_at] {
        octets.push(u8::from(instant.is_some()));
        octets.extend(instant.map_or(0, |instant| instant.as_millis()).to_be_bytes());
    }
    octets.extend(revision.to_be_bytes());
    octets
}

fn statement<'a>(revision: i64, members: impl IntoIterator<Item = (&'a str, i64)>) -> Vec<u8> {
    let mut octets = revision.to_be_bytes().to_vec();
    for (kid, written) in members {
        put(&mut octets, kid);
        octets.extend(written.to_be_bytes());
    }
    octets
}

fn put(octets: &mut Vec<u8>, text: &str) {
    octets.extend(u64::try_from(text.len()).unwrap_or(u64::MAX).to_be_bytes());
    octets.extend(text.as_bytes());
}

/// The key-encryption keys that a node knows. What is in the store says by which it is encrypted; the last is the newest.
#[derive(Clone, Debug)]
pub struct EncryptionKeys(Vec<Arc<KeyEncryptionKey>>);

impl EncryptionKeys {
    /// Reads one key or several, in base64 with white space between them.
    ///
    /// # Errors
    /// The sentence that says what is wrong with it.
    pub fn parse(text: &str) -> Result<Self, &'static str> {
        let mut keys: Vec<Arc<KeyEncryptionKey>> = Vec::new();
        for word in text.split_ascii_whitespace() {
            const PROBLEM: &str =
                "must be 32 octets in base64, as `countersign key make-encryption-key` makes them, or several of these";
            let octets = Zeroizing::new(STANDARD.decode(word).map_err(|_| PROBLEM)?);
            let octets: &[u8; OCTETS] = octets.as_slice().try_into().map_err(|_| PROBLEM)?;
            let key = KeyEncryptionKey::of(octets).ok_or("cannot be used: the cryptographic library refused")?;
            if keys.iter().any(|known| known.id == key.id) {
                return Err("has the same key twice");
            }
            keys.push(Arc::new(key));
        }
        match keys.len() {
            0 => Err("has no key in it"),
            1..=MOST => Ok(Self(keys)),
            _ => Err("has more than three keys"),
        }
    }

    /// The one with this id.
    pub fn with_id(&self, id: &str) -> Option<&Arc<KeyEncryptionKey>> {
        self.0.iter().find(|key| key.id == id)
    }

    /// The newest.
    pub fn newest(&self) -> Option<&Arc<KeyEncryptionKey>> {
        self.0.last()
    }

    /// Their ids, for whoever has to be told.
    pub fn ids(&self) -> String {
        let ids: Vec<&str> = self.0.iter().map(|key| key.id()).collect();
        ids.join(", ")
    }
}

/// Where the key-encryption keys come from.
#[derive(Clone, Debug)]
pub enum EncryptionKeySource {
    /// A file, read again where the store is encrypted by a key that was not in it.
    File(PathBuf),
    /// The environment.
    Value(EncryptionKeys),
}

/// Why there are no key-encryption keys: one line for the operator.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{place}: {problem}")]
pub struct NoEncryptionKey {
    /// The file.
    pub place: String,
    /// What is wrong with it.
    pub problem: String,
}

impl EncryptionKeySource {
    /// The keys as they are there now.
    ///
    /// # Errors
    /// [`NoEncryptionKey`]: the file cannot be read, others may read it, or it is none.
    pub fn read(&self) -> Result<EncryptionKeys, NoEncryptionKey> {
        match self {
            Self::File(path) => {
                read_file(path).map_err(|problem| NoEncryptionKey { place: path.display().to_string(), problem })
            }
            Self::Value(keys) => Ok(keys.clone()),
        }
    }
}

fn read_file(path: &Path) -> Result<EncryptionKeys, String> {
    let mode = fs::metadata(path).map_err(|error| error.to_string())?.mode();
    if mode & 0o077 != 0 {
        return Err(format!(
            "others may read it (mode {:04o}): chmod 600 it, or change the key if they have",
            mode & 0o7777
        ));
    }
    let text = fs::read_to_string(path).map(Zeroizing::new).map_err(|error| error.to_string())?;
    EncryptionKeys::parse(&text).map_err(|problem| format!("it {problem}"))
}

/// What becomes of a file that is there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Existing {
    /// The new key comes after those in it.
    Append,
    /// It is left alone.
    Refuse,
}

/// Makes a new key in the file at `path`, for its owner alone, and gives its id.
///
/// # Errors
/// [`NoEncryptionKey`].
pub fn make_encryption_key(path: &Path, existing: Existing) -> Result<String, NoEncryptionKey> {
    let refused = |problem: String| NoEncryptionKey { place: path.display().to_string(), problem };
    let octets = Zeroizing::new(random_octets::<OCTETS>());
    let key = KeyEncryptionKey::of(&octets).ok_or_else(|| refused("the cryptographic library refused".to_owned()))?;
    let line = Zeroizing::new(format!("{}\n", STANDARD.encode(octets.as_slice())));
    let unwritten = |error: io::Error| refused(format!("it cannot be written: {error}"));
    match existing {
        Existing::Append => {
            let known = read_file(path).map_err(refused)?;
            if known.0.len() >= MOST {
                return Err(refused("it has three keys already: remove those that nothing is encrypted by".to_owned()));
            }
            let before = fs::read_to_string(path).map(Zeroizing::new).map_err(unwritten)?;
            // Whoever made the file may have left the last line without its end.
            let text = Zeroizing::new(format!("{}\n{}", before.trim_end(), line.as_str()));
            replace(path, text.as_bytes()).map_err(unwritten)?;
        }
        Existing::Refuse => write_new(path, line.as_bytes()).and_then(|()| sync_directory(path)).map_err(unwritten)?,
    }
    // What is told is what is there: nothing must come to be encrypted by a key that nobody can read again.
    match read_file(path).map_err(refused)?.newest() {
        Some(newest) if newest.id() == key.id => Ok(key.id),
        _ => Err(refused("it has not the key that was written to it: somebody else has changed it".to_owned())),
    }
}

/// Puts `content` in the place of the file at `path`, so that whoever reads it finds all of the one or all of the other.
fn replace(path: &Path, content: &[u8]) -> io::Result<()> {
    // The file itself, where `path` is a link to it: that is what every reader finds.
    let path = &fs::canonicalize(path)?;
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    let written = path.with_file_name(format!(".{name}.new"));
    match fs::remove_file(&written) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    write_new(&written, content)?;
    // Whoever adds a key, the server goes on reading the file.
    let owner = fs::metadata(path)?;
    chown(&written, Some(owner.uid()), Some(owner.gid()))?;
    fs::rename(&written, path)?;
    sync_directory(path)
}

fn write_new(path: &Path, content: &[u8]) -> io::Result<()> {
    // create_new: never through a link that somebody left there.
    let mut file = fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(path)?;
    file.write_all(content)?;
    file.sync_all()
}

/// Its name is not on the disk before the directory is.
fn sync_directory(path: &Path) -> io::Result<()> {
    let directory = path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
    fs::File::open(directory)?.sync_all()
}

#[cfg(test)]
mod tests {
    use std::fs::Permissions;
    use std::os::unix::fs::PermissionsExt;

    use countersign_resource_server::time::UnixTime;
    use countersign_resource_server::token::jws::SigningAlgorithm;

    use super::*;
    use crate::mint::fixture::NOW;

    fn key(octet: u8) -> KeyEncryptionKey {
        KeyEncryptionKey::of(&[octet; OCTETS]).unwrap()
    }

    fn record() -> KeyRecord {
        KeyRecord {
            kid: "kid".to_owned(),
            alg: SigningAlgorithm::ES256,
            created_at: NOW,
            signs_from: Some(NOW),
            retired_at: None,
        }
    }

    #[test]
    fn what_is_sealed_opens_with_the_same_key_and_facts_only() {
        let (own, sealed) = (key(1), key(1).seal(&record(), 7, "pem").unwrap());
        assert_eq!(own.open(&record(), 7, &sealed).unwrap().as_str(), "pem");
        assert_eq!(key(2).open(&record(), 7, &sealed), Err(NotAuthentic), "another key");
        assert_eq!(own.open(&record(), 6, &sealed), Err(NotAuthentic), "another revision");
        let later = UnixTime::from_millis(NOW.as_millis() + 1);
        for other in [
            KeyRecord { kid: "other".to_owned(), ..record() },
            KeyRecord { alg: SigningAlgorithm::EdDSA, ..record() },
            KeyRecord { created_at: later, ..record() },
            KeyRecord { signs_from: Some(later), ..record() },
            KeyRecord { signs_from: None, ..record() },
            KeyRecord { signs_from: None, retired_at: Some(NOW), ..record() },
            KeyRecord { retired_at: Some(UnixTime::from_millis(0)), ..record() },
        ] {
            assert_eq!(own.open(&other, 7, &sealed), Err(NotAuthentic), "{other:?}");
        }
    }

    #[test]
    fn no_octet_of_it_can_be_changed_or_left_out() {
        let (own, sealed) = (key(1), key(1).seal(&record(), 7, "pem").unwrap());
        for index in 0..sealed.len() {
            let mut changed = sealed.clone();
            changed[index] ^= 1;
            assert_eq!(own.open(&record(), 7, &changed), Err(NotAuthentic), "octet {index}");
            assert_eq!(own.open(&record(), 7, &sealed[..index]), Err(NotAuthentic), "only {index} octets");
        }
    }

    #[test]
    fn the_same_is_sealed_differently_each_time() {
        assert_ne!(key(1).seal(&record(), 7, "pem"), key(1).seal(&record(), 7, "pem"));
    }

    #[test]
    fn a_proof_is_of_one_revision_of_one_set_of_keys() {
        let proof = key(1).prove(3, [("a", 1), ("b", 3)]);
        assert!(key(1).has_proven(&proof, 3, [("a", 1), ("b", 3)]));
        assert!(!key(2).has_proven(&proof, 3, [("a", 1), ("b", 3)]));
        assert!(!key(1).has_proven(&proof, 2, [("a", 1), ("b", 3)]));
        assert!(!key(1).has_proven(&proof, 3, [("a", 1), ("b", 2)]));
        assert!(!key(1).has_proven(&proof, 3, [("a", 1)]));
        assert!(!key(1).has_proven(&proof, 3, [("a", 1), ("b", 3), ("c", 3)]));
        assert!(!key(1).has_proven(&[], 3, [("a", 1), ("b", 3)]));
    }

    #[test]
    fn a_key_is_32_octets_in_base64() {
        let good = STANDARD.encode([7; 32]);
        let other = STANDARD.encode([8; 32]);
        assert_eq!(EncryptionKeys::parse(&format!("\n{good}\n{other} \n")).unwrap().0.len(), 2);
        for bad in ["", " \n", "secret", &STANDARD.encode([7; 31]), &STANDARD.encode([7; 33]), &good[1..]] {
            assert!(EncryptionKeys::parse(bad).is_err(), "{bad:?}");
        }
        assert_eq!(EncryptionKeys::parse(&format!("{good} {good}")).unwrap_err(), "has the same key twice");
        let four = (0..4_u8).map(|octet| STANDARD.encode([octet; 32])).collect::<Vec<_>>().join(" ");
        assert_eq!(EncryptionKeys::parse(&four).unwrap_err(), "has more than three keys");
    }

    #[test]
    fn nothing_of_a_key_is_in_its_debug() {
        let keys = EncryptionKeys::parse(&STANDARD.encode([7; 32])).unwrap();
        let told = format!("{:?}", EncryptionKeySource::Value(keys.clone()));
        assert!(told.contains(&keys.ids()) && !told.contains("BwcH") && !told.contains("7, 7"), "{told}");
    }

    #[test]
    fn a_key_is_made_for_its_owner_alone_and_never_in_the_place_of_another() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("kek");
        let id = make_encryption_key(&path, Existing::Refuse).unwrap();
        assert_eq!(fs::metadata(&path).unwrap().mode() & 0o777, 0o600);
        let source = EncryptionKeySource::File(path.clone());
        assert_eq!(source.read().unwrap().ids(), id);
        assert!(make_encryption_key(&path, Existing::Refuse).unwrap_err().to_string().contains("exists"));
        let next = make_encryption_key(&path, Existing::Append).unwrap();
        assert_eq!(source.read().unwrap().newest().unwrap().id(), next);
        assert!(source.read().unwrap().with_id(&id).is_some());
        make_encryption_key(&path, Existing::Append).unwrap();
        assert!(make_encryption_key(&path, Existing::Append).is_err());
        fs::set_permissions(&path, Permissions::from_mode(0o640)).unwrap();
        assert!(source.read().unwrap_err().to_string().contains("chmod 600"));
    }
    #[test]
    fn a_key_comes_after_a_line_that_has_no_end() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("kek");
        let id = make_encryption_key(&path, Existing::Refuse).unwrap();
        let text = fs::read_to_string(&path).unwrap();
        fs::write(&path, text.trim_end()).unwrap();
        let next = make_encryption_key(&path, Existing::Append).unwrap();
        assert_eq!(EncryptionKeySource::File(path.clone()).read().unwrap().ids(), format!("{id}, {next}"));
        assert_eq!(fs::metadata(&path).unwrap().mode() & 0o777, 0o600);
        assert_eq!(fs::read_dir(directory.path()).unwrap().count(), 1, "nothing is left beside it");
    }

    #[test]
    fn a_key_is_added_to_the_file_that_a_link_names_and_what_was_left_of_another_attempt_is_in_nobodys_way() {
        let directory = tempfile::tempdir().unwrap();
        let (path, link) = (directory.path().join("kek"), directory.path().join("link"));
        make_encryption_key(&path, Existing::Refuse).unwrap();
        std::os::unix::fs::symlink(&path, &link).unwrap();
        fs::write(directory.path().join(".kek.new"), "half").unwrap();
        let next = make_encryption_key(&link, Existing::Append).unwrap();
        assert!(fs::symlink_metadata(&link).unwrap().is_symlink());
        assert_eq!(EncryptionKeySource::File(path).read().unwrap().newest().unwrap().id(), next);
    }

    /// A file without any of its keys is nobody's to add to.
    #[test]
    fn a_key_is_not_added_to_what_is_none() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("kek");
        write_new(&path, b"half a key").unwrap();
        assert!(make_encryption_key(&path, Existing::Append).is_err());
        assert_eq!(fs::read(&path).unwrap(), b"half a key");
    }
}
