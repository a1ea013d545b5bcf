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

use super::key_ring::{KeyRecord, KeyRingError, KeyStore, KeyStoreError, SetAside, StoredKey, StoredKeys};

/// A directory of key files.
#[derive(Debug)]
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

    fn read_key(&self, stem: &str) -> Result<StoredKey, String> {
        let record = fs::read(self.path.join(format!("{stem}.json"))).map_err(|error| error.to_string())?;
        let record: KeyRecord = serde_json::from_slice(&record).map_err(|error| error.to_string())?;
        if file_stem(&record) != stem {
            return Err(format!("its record is about {}", file_stem(&record)));
        }
        let path = self.path.join(format!("{stem}.pem"));
        let mode = fs::metadata(&path).map_err(|error| format!("{}: {error}", path.display()))?.mode();
        if mode & 0o077 != 0 {
            return Err(format!(
                "{}: others may read it (mode {:04o}): chmod 600 it, or retire it if they have",
                path.display(),
                mode & 0o7777
            ));
        }
        let pem = fs::read_to_string(&path).map(Zeroizing::new).map_err(|error| error.to_string())?;
        Ok(StoredKey { record, pem })
    }
}

impl KeyStore for KeyDirectory {
    fn read(&self) -> Result<StoredKeys, KeyStoreError> {
        let mut stored = StoredKeys::default();
        for entry in fs::read_dir(&self.path).map_err(|error| failure("read", &self.path, &error))? {
            let entry = entry.map_err(|error| failure("read", &self.path, &error))?;
            let Some(name) = entry.file_name().to_str().map(str::to_owned) else { continue };
            // A key without its record was never finished: the record is written last.
            let Some(stem) = name.strip_suffix(".json").filter(|stem| !stem.starts_with('.')) else { continue };
            match self.read_key(stem) {
                Ok(key) => stored.keys.push(key),
                // By its id, so that a key that was read before can be told from one that never was.
                Err(why) => {
                    let kid = stem.split_once('-').map_or(stem, |(_, kid)| kid);
                    stored.set_aside.push(SetAside { name: kid.to_owned(), why });
                }
            }
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

    fn exclusively(&self, change: &mut dyn FnMut() -> Result<(), KeyRingError>) -> Result<(), KeyRingError> {
        let path = self.path.join(".lock");
        let open = || OpenOptions::new().write(true).create(true).truncate(false).mode(0o600).open(&path);
        let lock = open().map_err(|error| failure("open", &path, &error))?;
        lock.lock().map_err(|error| failure("lock", &path, &error))?;
        // Released when the file is closed, on every way out.
        change()
    }

    fn fingerprint(&self) -> Result<u64, KeyStoreError> {
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

fn file_stem(record: &KeyRecord) -> String {
    format!("{}-{}", record.alg.as_str().to_ascii_lowercase(), record.kid)
}

fn failure(verb: &str, path: &Path, error: &io::Error) -> KeyStoreError {
    KeyStoreError(format!("cannot {verb} {}: {error}", path.display()))
}
