//! Where lists come from: a file, a directory, an address.
//!
//! Takes a place, gives every list there, verified, or why it is not taken. Reading foreign octets is contained: it happens on
//! a thread of its own, within a size and a time, and a fault in it is an answer like any other.

use std::collections::HashSet;
use std::fs::File;
use std::io::Read;
use std::os::unix::fs::MetadataExt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use countersign_resource_server::time::UnixTime;
use rustls_pki_types::CertificateRevocationListDer;
use rustls_pki_types::pem::PemObject;
use sha2::{Digest, Sha256};
use tokio::sync::Semaphore;

use super::ListRefusal;
use super::verification::{ListIssuer, Verified, verify};
use crate::fetch::{Bounds, Fetcher};

/// More files in a directory than this are not looked at.
const MOST_FILES: usize = 1024;

/// Nor are more lists in one file, nor more lists of one anchor held.
pub(super) const MOST_LISTS: usize = 512;

/// How long a list may take to come.
const FETCH_TIME: Duration = Duration::from_secs(60);

/// Where lists are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Place {
    Path(PathBuf),
    Url(String),
}

impl Place {
    pub(super) fn of(location: &str) -> Self {
        if location.starts_with("http://") || location.starts_with("https://") {
            Self::Url(location.to_owned())
        } else {
            Self::Path(PathBuf::from(location))
        }
    }
}

/// What lists are judged by.
#[derive(Clone, Debug)]
pub(super) struct Judging {
    /// Whose lists are taken.
    pub(super) issuers: Vec<Arc<ListIssuer>>,
    /// The digests of those that are held: they need not be read again.
    pub(super) held: Arc<HashSet<[u8; 32]>>,
    pub(super) longest_bytes: usize,
    pub(super) now: UnixTime,
}

/// One list at a place.
#[derive(Debug)]
pub(super) enum Found {
    /// The one with this digest, which is held.
    Held([u8; 32]),
    /// Another one.
    New { verified: Verified, der: Bytes },
}

/// What a file, or the files of a directory, looked like: changes whenever one of them does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Fingerprint([u8; 32]);

/// Looks at `place` and hands every list there, with where it was, to `sink`. A path that looks as it did before,
/// by `before`, is not read. What is read waits for `reading`: each list may take as much memory as its limit allows. Gives
/// what the path looks like now.
pub(super) async fn look(
    place: Place,
    before: Option<Fingerprint>,
    fetcher: &Fetcher,
    reading: &Semaphore,
    judging: Judging,
    mut sink: impl FnMut(&str, Result<Found, ListRefusal>) + Send + 'static,
) -> Option<Fingerprint> {
    match place {
        Place::Url(url) => {
            let bounds = Bounds { bytes: judging.longest_bytes, time: FETCH_TIME };
            match fetcher.get(&url, "application/pkix-crl, */*;q=0.1", bounds).await {
                Ok(fetched) => {
                    let _reading = reading.acquire().await;
                    on_own_thread(move || read_all(&fetched.body, &url, &judging, &mut sink)).await;
                }
                Err(error) => on_own_thread(move || sink(&url, Err(error.into()))).await,
            }
            None
        }
        Place::Path(path) => {
            let _reading = reading.acquire().await;
            on_own_thread(move || look_at_path(&path, before, &judging, &mut sink)).await.flatten()
        }
    }
}

/// Runs `work` where it keeps no request waiting.
async fn on_own_thread<T: Default + Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> T {
    // Faults in reading are caught closer; one in here is on record through the panic itself.
    tokio::task::spawn_blocking(work).await.unwrap_or_default()
}

type Sink<'a> = &'a mut dyn FnMut(&str, Result<Found, ListRefusal>);

fn look_at_path(
    path: &Path,
    before: Option<Fingerprint>,
    judging: &Judging,
    sink: Sink<'_>,
) -> Option<Option<Fingerprint>> {
    let origin = path.display().to_string();
    let files = match files_at(path) {
        Ok(files) => files,
        Err(refusal) => {
            sink(&origin, Err(refusal));
            return Some(None);
        }
    };
    let mut hash = Sha256::new();
    for (file, metadata) in &files {
        hash.update(file.as_os_str().as_encoded_bytes());
        for number in [metadata.ino() as i64, metadata.size() as i64, metadata.mtime(), metadata.mtime_nsec()] {
            hash.update(number.to_be_bytes());
        }
    }
    let fingerprint = Fingerprint(hash.finalize().into());
    if before == Some(fingerprint) {
        return Some(Some(fingerprint));
    }
    if files.is_empty() {
        sink(&origin, Err(ListRefusal::Nothing));
    }
    for (file, _) in files {
        let origin = file.display().to_string();
        match read_file(&file, judging.longest_bytes) {
            Ok(octets) => read_all(&octets.into(), &origin, judging, sink),
            Err(refusal) => sink(&origin, Err(refusal)),
        }
    }
    Some(Some(fingerprint))
}

/// The file, or the files of the directory but hidden ones, in order of their names.
fn files_at(path: &Path) -> Result<Vec<(PathBuf, std::fs::Metadata)>, ListRefusal> {
    let unreadable = |error: std::io::Error| ListRefusal::Unreadable(error.to_string());
    let metadata = std::fs::metadata(path).map_err(unreadable)?;
    if !metadata.is_dir() {
        return Ok(vec![(path.to_owned(), metadata)]);
    }
    let mut files = Vec::new();
    for entry in std::fs::read_dir(path).map_err(unreadable)? {
        let entry = entry.map_err(unreadable)?;
        // What is being written has a name that begins with a dot, by custom.
        if entry.file_name().as_encoded_bytes().starts_with(b".") {
            continue;
        }
        // One that is gone by now is gone.
        let Ok(metadata) = std::fs::metadata(entry.path()) else { continue };
        if metadata.is_file() {
            files.push((entry.path(), metadata));
        }
        if files.len() > MOST_FILES {
            return Err(ListRefusal::TooMany);
        }
    }
    files.sort_by(|(one, _), (other, _)| one.cmp(other));
    Ok(files)
}

/// A whole file of at most `longest` octets.
pub(super) fn read_file(path: &Path, longest: usize) -> Result<Vec<u8>, ListRefusal> {
    let unreadable = |error: std::io::Error| ListRefusal::Unreadable(error.to_string());
    // Looked at before it is opened: a pipe would be waited for.
    let metadata = std::fs::metadata(path).map_err(unreadable)?;
    if !metadata.is_file() {
        return Err(ListRefusal::Unreadable("it is no regular file".to_owned()));
    }
    if metadata.len() > longest as u64 {
        return Err(ListRefusal::TooLong);
    }
    let mut octets = Vec::with_capacity(usize::try_from(metadata.len()).unwrap_or_default());
    File::open(path).and_then(|file| file.take(longest as u64 + 1).read_to_end(&mut octets)).map_err(unreadable)?;
    if octets.len() > longest { Err(ListRefusal::TooLong) } else { Ok(octets) }
}

/// Every list in `octets`: one in DER, or several in PEM.
fn read_all(octets: &Bytes, origin: &str, judging: &Judging, sink: Sink<'_>) {
    if octets.first() == Some(&crate::pki::der::SEQUENCE) {
        sink(origin, judge(octets.clone(), judging));
        return;
    }
    let mut found = false;
    for (place, list) in CertificateRevocationListDer::pem_slice_iter(octets).enumerate() {
        found = true;
        // Others wait for this reader, and each list may cost a signature.
        if place == MOST_LISTS {
            sink(origin, Err(ListRefusal::TooMany));
            return;
        }
        match list {
            Ok(list) => sink(origin, judge(Bytes::copy_from_slice(&list), judging)),
            Err(_) => {
                sink(origin, Err(ListRefusal::Malformed));
                return;
            }
        }
    }
    if !found {
        sink(origin, Err(ListRefusal::Nothing));
    }
}

fn judge(der: Bytes, judging: &Judging) -> Result<Found, ListRefusal> {
    let digest: [u8; 32] = Sha256::digest(&der).into();
    if judging.held.contains(&digest) {
        return Ok(Found::Held(digest));
    }
    let verified = contained(|| verify(&der, &judging.issuers, judging.now))?;
    Ok(Found::New { verified, der })
}

/// Foreign octets are read in here: a fault that they lay open ends the reading and nothing else.
pub(super) fn contained<T>(work: impl FnOnce() -> Result<T, ListRefusal>) -> Result<T, ListRefusal> {
    // Nothing that `work` could leave half done outlives it.
    catch_unwind(AssertUnwindSafe(work)).unwrap_or(Err(ListRefusal::Panicked))
}

#[cfg(test)]
mod tests {
    use std::fmt::Write;

    use super::*;

    #[test]
    fn one_file_has_so_many_lists_and_no_more() {
        let judging =
            Judging { issuers: Vec::new(), held: Arc::default(), longest_bytes: 0, now: UnixTime::from_seconds(0) };
        let read = |count: usize| {
            let mut pem = String::new();
            for _ in 0..count {
                write!(pem, "-----BEGIN X509 CRL-----\nMAA=\n-----END X509 CRL-----\n").unwrap();
            }
            let mut found = Vec::new();
            read_all(&pem.into(), "lists.pem", &judging, &mut |_, one| found.push(one.err()));
            found
        };
        assert_eq!(read(MOST_LISTS), vec![Some(ListRefusal::Malformed); MOST_LISTS]);
        let found = read(10 * MOST_LISTS);
        assert_eq!((found.len(), found.last()), (MOST_LISTS + 1, Some(&Some(ListRefusal::TooMany))));
    }
}
