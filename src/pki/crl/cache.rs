//! The lists of before a restart: one file each, the list with the certificates that its issuer is known by.
//!
//! Takes lists that were verified and writes them down; gives them back as foreign octets, to be verified again. A file is
//! put in place whole or not at all. It knows nothing of anchors.

use std::io::Write;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

use bytes::Bytes;
use sha2::{Digest, Sha256};

use super::index::{RevocationList, Scope};
use super::source::read_file;
use crate::pki::der;
use crate::registry::KeyHash;

/// More octets of certificates than this are in no file.
const LONGEST_CHAIN_BYTES: usize = 256 * 1024;

/// The directory of the files.
#[derive(Clone, Debug)]
pub(super) struct Cache(PathBuf);

/// A file as it was found.
#[derive(Debug)]
pub(super) struct Kept {
    pub(super) path: PathBuf,
    pub(super) list: Bytes,
    /// The certificate of its issuer and those above it, the anchor's own left out.
    pub(super) chain: Vec<Vec<u8>>,
}

impl Cache {
    /// The files in `directory`, which is made where it is missing, for this user alone.
    pub(super) fn open(directory: PathBuf) -> std::io::Result<Self> {
        std::fs::DirBuilder::new().recursive(true).mode(0o700).create(&directory)?;
        Ok(Self(directory))
    }

    /// The files in `directory`, to be read only; none, where there is no such directory.
    pub(super) const fn at(directory: PathBuf) -> Self {
        Self(directory)
    }

    /// Every file that can be read, in order of their names, each when it is asked for: all of them may be more than memory
    /// has room for.
    pub(super) fn read(&self, longest_bytes: usize) -> impl Iterator<Item = Kept> {
        let entries = std::fs::read_dir(&self.0).into_iter().flatten();
        let mut paths: Vec<PathBuf> = entries.filter_map(|entry| Some(entry.ok()?.path())).collect();
        paths.sort();
        paths.into_iter().filter(|path| path.extension().is_some_and(|name| name == "crl")).filter_map(move |path| {
            let octets = Bytes::from(read_file(&path, longest_bytes.saturating_add(LONGEST_CHAIN_BYTES)).ok()?);
            let mut rest = &octets[..];
            der::expect(&mut rest, der::SEQUENCE).ok()?;
            let list = octets.slice(..octets.len() - rest.len());
            let mut chain = Vec::new();
            while !rest.is_empty() {
                chain.push(der::expect_whole(&mut rest, der::SEQUENCE).ok()?.0.to_vec());
            }
            Some(Kept { path, list, chain })
        })
    }

    /// Puts a list in the place of the one before it.
    pub(super) fn write(&self, name: &str, list: &[u8], chain: &[Vec<u8>]) -> std::io::Result<()> {
        // A name of its own: another process may write the same list in the same directory.
        static WRITTEN: AtomicU64 = AtomicU64::new(0);
        let own = (std::process::id(), WRITTEN.fetch_add(1, Ordering::Relaxed));
        let beside = self.0.join(format!(".{name}.{}.{}", own.0, own.1));
        let mut file = std::fs::OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&beside)?;
        file.write_all(list)?;
        for certificate in chain {
            file.write_all(certificate)?;
        }
        file.sync_all()?;
        std::fs::rename(&beside, self.0.join(format!("{name}.crl")))
    }

    /// Lets go of a file that nobody wants any more.
    pub(super) fn remove(path: &Path) {
        if let Err(error) = std::fs::remove_file(path) {
            tracing::debug!(path = %path.display(), %error, "a revocation list that nobody wants could not be removed");
        }
    }
}

/// The name of a list's file: the same for every list of one issuer and scope.
pub(super) fn name_of(list: &RevocationList) -> String {
    short_name(&list.issuer_key, &list.scope, 32)
}

/// A short name of a list's issuer and scope, for metrics and logs.
pub(super) fn short_name(issuer_key: &KeyHash, scope: &Scope, digits: usize) -> String {
    let mut hash = Sha256::new();
    hash.update(issuer_key.to_string());
    hash.update([scope.kind as u8, u8::from(scope.points.is_some())]);
    for point in scope.points.iter().flatten() {
        hash.update((point.len() as u64).to_be_bytes());
        hash.update(point);
    }
    let mut name = hex::encode(hash.finalize());
    name.truncate(digits);
    name
}
