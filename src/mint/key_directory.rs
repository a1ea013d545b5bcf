//! Signing keys as files: `ALG-KID.pem` (PKCS#8) and `ALG-KID.json` (what is known of it) in one directory.
//!
//! Takes and gives [`StoredKey`]s. Files are written under another name, synchronised and renamed, so that a reader sees
//! all or nothing; a key that anybody but its owner may read is not taken. It knows nothing of what the keys are for.

use std::fs::{self, DirBuilder, File, OpenOptions, Permissions};
use std::hash::{DefaultHasher, Hash, Hasher};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

use zeroize::Zeroizing;

use super::key_ring::{KeyAnswer, KeyRecord, KeyStore, KeyStoreError, KeyWrite, SetAside, StoredKey, StoredKeys};

/// A directory of key files.
#[derive(Clone, Debug)]
pub struct KeyDirectory {
    path: PathBuf,
}

impl KeyDirectory {
    /// The directory at `path`, made if it is not there (mode 0700).
    ///
    /// # Errors
    /// [`KeyStoreError`] if it cannot be made, or others may write to it.
    pub fn open(path: &Path) -> Result<Self, KeyStoreError> {
        DirBuilder::new().recursive(true).mode(0o700).create(path).map_err(|error| failure("make", path, &error))?;
        let mode = fs::metadata(path).map_err(|error| failure("read", path, &error))?.mode();
        if mode & 0o022 != 0 {
            return Err(KeyStoreError(format!(
                "{}: others may write to it (mode {:04o}), so its keys are not trusted: chmod 700 it",
                path.display(),
                mode & 0o7777
            )));
        }
        Ok(Self { path: path.to_owned() })
    }

    /// Whether there are keys in the directory at `path`, which may not be there, or cannot be looked into.
    pub fn has_keys(path: &Path) -> bool {
        let is_record = |entry: io::Result<fs::DirEntry>| {
            entry.is_ok_and(|entry| Path::new(&entry.file_name()).extension().is_some_and(|kind| kind == "json"))
        };
        match fs::read_dir(path) {
            Ok(mut entries) => entries.any(is_record),
            Err(error) => error.kind() != io::ErrorKind::NotFound,
        }
    }

    fn write(&self, name: &str, content: &[u8]) -> Result<(), KeyStoreError> {
        let target = self.path.join(name);
        let written = self.path.join(format!(".{name}.new"));
        let attempt = || -> io::Result<()> {
            match fs::remove_file(&written) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
                _ => {}
            }
            // create_new: never through a link that somebody left there.
            let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&written)?;
            // The mode of `open` is subject to the umask, which may take more away than is meant.
            file.set_permissions(Permissions::from_mode(0o600))?;
            file.write_all(content)?;
            file.sync_all()?;
            fs::rename(&written, &target)?;
            File::open(&self.path)?.sync_all()
        };
        attempt().map_err(|error| failure("write", &target, &error))
    }

    fn read_record(&self, stem: &str) -> Result<KeyRecord, String> {
        let record = fs::read(self.path.join(format!("{stem}.json"))).map_err(|error| error.to_string())?;
        let record: KeyRecord = serde_json::from_slice(&record).map_err(|error| error.to_string())?;
        if file_stem(&record) != stem {
            return Err(format!("its record is about {}", file_stem(&record)));
        }
        Ok(record)
    }

    fn read_pem(&self, stem: &str) -> Result<Zeroizing<String>, String> {
        let path = self.path.join(format!("{stem}.pem"));
        let mode = fs::metadata(&path).map_err(|error| format!("{}: {error}", path.display()))?.mode();
        if mode & 0o077 != 0 {
            return Err(format!(
                "{}: others may read it (mode {:04o}): chmod 600 it, or retire it if they have",
                path.display(),
                mode & 0o7777
            ));
        }
        fs::read_to_string(&path).map(Zeroizing::new).map_err(|error| error.to_string())
    }
}

/// All of it blocks.
impl KeyDirectory {
    /// Does `work` where it keeps nobody waiting.
    fn apart<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Self) -> Result<T, KeyStoreError> + Send + 'static,
    ) -> KeyAnswer<'_, T> {
        let directory = self.clone();
        Box::pin(async move {
            let worked = tokio::task::spawn_blocking(move || work(&directory)).await;
            worked.unwrap_or_else(|ended| Err(KeyStoreError(ended.to_string())))
        })
    }

    fn read_all(&self) -> Result<StoredKeys, KeyStoreError> {
        let mut stored = StoredKeys { fingerprint: self.look()?, ..StoredKeys::default() };
        for entry in fs::read_dir(&self.path).map_err(|error| failure("read", &self.path, &error))? {
            let entry = entry.map_err(|error| failure("read", &self.path, &error))?;
            let Some(name) = entry.file_name().to_str().map(str::to_owned) else { continue };
            // A key without its record was never finished: the record is written last.
            let Some(stem) = name.strip_suffix(".json").filter(|stem| !stem.starts_with('.')) else { continue };
            let (record, why) = match self.read_record(stem) {
                Ok(record) => match self.read_pem(stem) {
                    Ok(pem) => {
                        stored.keys.push(StoredKey { record, pem });
                        continue;
                    }
                    Err(why) => (Some(record), why),
                },
                Err(why) => (None, why),
            };
            // By its id, so that a key that was read before can be told from one that never was.
            let kid = stem.split_once('-').map_or(stem, |(_, kid)| kid);
            stored.set_aside.push(SetAside { name: kid.to_owned(), why, record, is_unproven: false });
        }
        Ok(stored)
    }

    fn add(&self, key: &StoredKey) -> Result<(), KeyStoreError> {
        let stem = file_stem(&key.record);
        self.write(&format!("{stem}.pem"), key.pem.as_bytes())?;
        self.update(&key.record)
    }

    fn update(&self, record: &KeyRecord) -> Result<(), KeyStoreError> {
        let json = serde_json::to_vec_pretty(record).map_err(|error| KeyStoreError(error.to_string()))?;
        self.write(&format!("{}.json", file_stem(record)), &json)
    }

    fn write_all(&self, seen: u64, writes: &[KeyWrite]) -> Result<bool, KeyStoreError> {
        let path = self.path.join(".lock");
        let open = || OpenOptions::new().write(true).create(true).truncate(false).mode(0o600).open(&path);
        let lock = open().map_err(|error| failure("open", &path, &error))?;
        // Released when the file is closed, on every way out.
        lock.lock().map_err(|error| failure("lock", &path, &error))?;
        if self.look()? != seen {
            return Ok(false);
        }
        for write in writes {
            match write {
                KeyWrite::Add(key) => self.add(key)?,
                KeyWrite::Update(record) => self.update(record)?,
            }
        }
        Ok(true)
    }

    fn look(&self) -> Result<u64, KeyStoreError> {
        let mut files = Vec::new();
        for entry in fs::read_dir(&self.path).map_err(|error| failure("read", &self.path, &error))? {
            let entry = entry.map_err(|error| failure("read", &self.path, &error))?;
            let name = entry.file_name();
            if name.to_str().is_none_or(|name| name.starts_with('.')) {
                continue;
            }
            // A file may be renamed away between the two calls: then the next look sees it.
            let Ok(metadata) = entry.metadata() else { continue };
            files.push((
                name,
                metadata.ino(),
                metadata.mode(),
                metadata.size(),
                metadata.mtime(),
                metadata.mtime_nsec(),
            ));
        }
        files.sort_unstable();
        let mut hasher = DefaultHasher::new();
        files.hash(&mut hasher);
        Ok(hasher.finish())
    }
}

impl KeyStore for KeyDirectory {
    fn read(&self) -> KeyAnswer<'_, StoredKeys> {
        self.apart(Self::read_all)
    }

    fn write(&self, seen: u64, writes: Vec<KeyWrite>) -> KeyAnswer<'_, bool> {
        // In the task itself: commands write, and a server before it serves.
        Box::pin(async move { self.write_all(seen, &writes) })
    }

    fn fingerprint(&self) -> KeyAnswer<'_, u64> {
        self.apart(Self::look)
    }

    fn is_shared(&self) -> bool {
        // Whoever shares a directory sees a change as soon as it is made, or cannot read it, which is told.
        false
    }
}

fn file_stem(record: &KeyRecord) -> String {
    format!("{}-{}", record.alg.as_str().to_ascii_lowercase(), record.kid)
}

fn failure(verb: &str, path: &Path, error: &io::Error) -> KeyStoreError {
    KeyStoreError(format!("cannot {verb} {}: {error}", path.display()))
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;
    use std::sync::Arc;

    use countersign_resource_server::token::jws::SigningAlgorithm;

    use super::*;
    use crate::mint::KeyRing;
    use crate::mint::fixture::{MemoryKeys, NOW};
    use crate::mint::key_ring::{KeyRingError, When, retire, rotate};

    fn done<T>(answer: impl Future<Output = T>) -> T {
        tokio::runtime::Builder::new_current_thread().build().unwrap().block_on(answer)
    }

    /// A directory with the keys of a server that began at `NOW`.
    fn begun() -> (tempfile::TempDir, PathBuf) {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("keys");
        let store = KeyDirectory::open(&path).unwrap();
        for key in done(MemoryKeys::begun().read()).unwrap().keys {
            store.add(&key).unwrap();
        }
        (directory, path)
    }

    fn ring(path: &Path) -> Arc<KeyRing> {
        Arc::new(done(KeyRing::open(Arc::new(KeyDirectory::open(path).unwrap()), NOW)).unwrap())
    }

    fn pem_of_signing_key(ring: &KeyRing, path: &Path) -> PathBuf {
        let keys = ring.current();
        path.join(format!("es256-{}.pem", keys.signing(SigningAlgorithm::ES256, NOW).unwrap().kid()))
    }

    #[test]
    fn what_is_added_is_read_back() {
        let (_directory, path) = begun();
        let mut read = done(KeyDirectory::open(&path).unwrap().read()).unwrap();
        let mut added = done(MemoryKeys::begun().read()).unwrap();
        read.keys.sort_by(|a, b| a.record.kid.cmp(&b.record.kid));
        added.keys.sort_by(|a, b| a.record.kid.cmp(&b.record.kid));
        assert_eq!(read.set_aside, []);
        for (read, added) in read.keys.iter().zip(&added.keys) {
            assert_eq!((&read.record, &read.pem), (&added.record, &added.pem));
        }
    }

    #[test]
    fn only_the_owner_can_read_what_is_written() {
        let (_directory, path) = begun();
        assert_eq!(fs::metadata(&path).unwrap().mode() & 0o777, 0o700);
        for entry in fs::read_dir(&path).unwrap() {
            assert_eq!(entry.unwrap().metadata().unwrap().mode() & 0o777, 0o600);
        }
    }

    #[test]
    fn a_directory_others_may_write_to_is_refused() {
        let (_directory, path) = begun();
        fs::set_permissions(&path, Permissions::from_mode(0o720)).unwrap();
        let refused = KeyDirectory::open(&path).unwrap_err().to_string();
        assert!(refused.contains("chmod 700"), "{refused}");
    }

    #[test]
    fn a_key_others_may_read_is_set_aside_with_a_clear_line() {
        let (_directory, path) = begun();
        let pem = pem_of_signing_key(&ring(&path), &path);
        fs::set_permissions(&pem, Permissions::from_mode(0o640)).unwrap();
        let keys = ring(&path).current();
        assert_eq!(keys.set_aside().len(), 1);
        assert!(keys.set_aside()[0].why.contains("chmod 600"), "{:?}", keys.set_aside());
        assert!(keys.signing(SigningAlgorithm::ES256, NOW).is_none(), "no other key steps in unseen");
    }

    #[test]
    fn a_key_that_breaks_while_the_server_runs_stays_in_use() {
        let (_directory, path) = begun();
        let ring = ring(&path);
        let before = ring.current().signing(SigningAlgorithm::ES256, NOW).unwrap().kid().clone();
        fs::write(pem_of_signing_key(&ring, &path), "garbage").unwrap();
        assert!(done(ring.reload()).unwrap());
        assert_eq!(*ring.current().signing(SigningAlgorithm::ES256, NOW).unwrap().kid(), before);
        fs::remove_file(pem_of_signing_key(&ring, &path)).unwrap();
        assert!(done(ring.reload()).unwrap());
        assert_eq!(*ring.current().signing(SigningAlgorithm::ES256, NOW).unwrap().kid(), before);
        assert_eq!(ring.current().set_aside().len(), 1);
    }

    #[test]
    fn a_key_that_is_withdrawn_and_wiped_at_once_is_withdrawn() {
        let (_directory, path) = begun();
        let ring = ring(&path);
        let (pem, after) = (pem_of_signing_key(&ring, &path), NOW.after(std::time::Duration::from_millis(1)));
        let kid = ring.current().signing(SigningAlgorithm::ES256, NOW).unwrap().kid().clone();
        let retirement = done(retire(&KeyDirectory::open(&path).unwrap(), &kid, NOW)).unwrap();
        fs::remove_file(pem).unwrap();
        assert!(done(ring.reload()).unwrap());
        let signing = ring.current().signing(SigningAlgorithm::ES256, after).map(|signer| signer.kid().to_string());
        assert_eq!(signing, retirement.successor);
        assert!(!ring.published(after).body.contains(&*kid));
    }

    #[test]
    fn a_key_that_others_may_have_read_can_be_withdrawn() {
        let (_directory, path) = begun();
        let ring = ring(&path);
        let (pem, after) = (pem_of_signing_key(&ring, &path), NOW.after(std::time::Duration::from_millis(1)));
        let kid = ring.current().signing(SigningAlgorithm::ES256, NOW).unwrap().kid().clone();
        fs::set_permissions(pem, Permissions::from_mode(0o644)).unwrap();
        let commands = KeyDirectory::open(&path).unwrap();
        let retirement = done(retire(&commands, &kid, NOW)).unwrap();
        assert!(done(ring.reload()).unwrap());
        let signing = ring.current().signing(SigningAlgorithm::ES256, after).map(|signer| signer.kid().to_string());
        assert_eq!(signing, retirement.successor);
        assert!(signing.is_some() && !ring.published(after).body.contains(&*kid));
        assert_eq!(
            done(retire(&commands, &kid, after)),
            Err(KeyRingError::AlreadyRetired { kid: kid.to_string(), at: NOW })
        );
    }

    #[test]
    fn a_record_about_another_key_is_set_aside() {
        let (_directory, path) = begun();
        let ring = ring(&path);
        let pem = pem_of_signing_key(&ring, &path);
        fs::copy(pem.with_extension("json"), path.join("es256-other.json")).unwrap();
        assert!(done(ring.reload()).unwrap());
        assert_eq!(ring.current().set_aside()[0].name, "other");
        assert_eq!(ring.current().all().len(), 6);
    }

    #[test]
    fn a_running_ring_follows_the_commands() {
        let (_directory, path) = begun();
        let ring = ring(&path);
        let commands = KeyDirectory::open(&path).unwrap();
        assert!(!done(ring.reload()).unwrap());
        let later = NOW.after(std::time::Duration::from_secs(600));
        let rotation = done(rotate(&commands, &[SigningAlgorithm::ES256], When::Now, later)).unwrap().remove(0);
        assert!(done(ring.reload()).unwrap());
        assert_eq!(**ring.current().signing(SigningAlgorithm::ES256, later).unwrap().kid(), *rotation.kid);
        done(retire(&commands, &rotation.kid, later)).unwrap();
        assert!(done(ring.reload()).unwrap());
        let after = later.after(std::time::Duration::from_millis(1));
        assert_eq!(**ring.current().signing(SigningAlgorithm::ES256, after).unwrap().kid(), *rotation.next);
        assert!(!ring.published(after).body.contains(&rotation.kid));
    }

    #[test]
    fn a_link_left_in_the_way_is_not_written_through() {
        let (directory, path) = begun();
        let victim = directory.path().join("victim");
        fs::write(&victim, "untouched").unwrap();
        let store = KeyDirectory::open(&path).unwrap();
        let record = done(store.read()).unwrap().keys[0].record.clone();
        symlink(&victim, path.join(format!(".{}.json.new", file_stem(&record)))).unwrap();
        store.update(&record).unwrap();
        assert_eq!(fs::read_to_string(victim).unwrap(), "untouched");
    }

    #[test]
    fn what_was_not_finished_is_not_there() {
        let (_directory, path) = begun();
        let store = KeyDirectory::open(&path).unwrap();
        fs::write(path.join(".es256-x.json.new"), "{").unwrap();
        fs::write(path.join("es256-x.pem"), "half").unwrap();
        let read = done(store.read()).unwrap();
        assert_eq!((read.keys.len(), read.set_aside), (6, Vec::new()));
    }
}
