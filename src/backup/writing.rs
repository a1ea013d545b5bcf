//! Writing a backup: row by row, compressed, hashed, signed.
//!
//! Takes a look at a store, gives a file that is complete and on disk under another name; it is placed once that is on
//! record. What is in memory is a page of rows, however much there is.

use std::fs::File;
use std::io::{self, BufWriter, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use countersign_resource_server::time::UnixTime;
use countersign_resource_server::token::jws::SigningAlgorithm;
use flate2::Compression;
use flate2::write::GzEncoder;
use serde::Serialize;
use sha2::{Digest, Sha256};

use super::BackupFailure;
use super::format::{BACKUP_TYPE, EndLine, FORMAT, Header, Signed, TableLine};
use super::store::{Part, Snapshot};
use crate::audit::export::Beside;
use crate::mint::SigningKeys;
use crate::registry::StoreUnavailable;

/// Whose backup it is.
#[derive(Clone, Debug)]
pub struct Origins {
    /// The issuer.
    pub issuer: String,
    /// The node.
    pub node: String,
    /// When.
    pub at: UnixTime,
}

/// A backup that is written, and not placed yet.
pub struct Written {
    /// Its first line.
    pub header: Header,
    /// The SHA-256 hash of its lines but the last.
    pub sha256: String,
    /// How many tables.
    pub tables: u64,
    /// How many rows.
    pub rows: u64,
    /// Whether it is signed.
    pub is_signed: bool,
    beside: Beside,
    to: PathBuf,
}

impl Written {
    /// Gives the file its name, unless that is taken.
    ///
    /// # Errors
    /// [`BackupFailure::Exists`] or [`BackupFailure::File`]: then there is no file.
    pub fn place(self) -> Result<PathBuf, BackupFailure> {
        self.beside.place(&self.to).map_err(|error| failed(&self.to, error))?;
        Ok(self.to)
    }
}

/// Writes everything a look at a store sees, signed with one of `keys` where there is one.
///
/// # Errors
/// [`BackupFailure`]: then there is no file.
pub async fn prepare(
    mut snapshot: Box<dyn Snapshot>,
    origins: &Origins,
    keys: Option<&SigningKeys>,
    to: &Path,
    progress: &Arc<AtomicU64>,
) -> Result<Written, BackupFailure> {
    if to.symlink_metadata().is_ok() {
        return Err(BackupFailure::Exists(to.to_owned()));
    }
    let beside = Beside::of(to).map_err(|error| failed(to, error))?;
    let summary = snapshot.summary().await?;
    let header = Header {
        format: FORMAT.to_owned(),
        schema: summary.schema,
        at: origins.at,
        issuer: origins.issuer.clone(),
        node: origins.node.clone(),
        registry: summary.registry,
        log: summary.log,
        checkpoint: summary.checkpoint,
    };
    let mut file = Lines {
        file: GzEncoder::new(BufWriter::new(beside.open().map_err(|error| failed(to, error))?), Compression::new(3)),
        hash: Sha256::new(),
        tables: 0,
        rows: 0,
    };
    file.line(&header).map_err(|error| failed(to, error))?;
    let mut next = snapshot.next().await?;
    while let Some(part) = next {
        // The next page is read while this one is compressed.
        let writing = tokio::task::spawn_blocking(move || file.part(&part).map(|()| file));
        let (wrote, read) = tokio::join!(writing, snapshot.next());
        file = wrote.map_err(StoreUnavailable::because)?.map_err(|error| failed(to, error))?;
        progress.store(file.rows, Ordering::Relaxed);
        next = read?;
    }
    drop(snapshot);
    let (tables, rows) = (file.tables, file.rows);
    let sha256 = hex::encode(file.hash.clone().finalize());
    let signed = Signed { iss: header.issuer.clone(), at: header.at, sha256: sha256.clone() };
    let signature = keys.and_then(|keys| sign(keys, BACKUP_TYPE, &signed, origins.at));
    let is_signed = signature.is_some();
    let end = EndLine { tables, rows, sha256: sha256.clone(), signature };
    let finishing = tokio::task::spawn_blocking(move || file.end(&end));
    finishing.await.map_err(StoreUnavailable::because)?.map_err(|error| failed(to, error))?;
    Ok(Written { header, sha256, tables, rows, is_signed, beside, to: to.to_owned() })
}

/// Signs with the key that signs ES256 tokens at `now`; nothing where none does.
pub(super) fn sign(keys: &SigningKeys, typ: &str, payload: &impl Serialize, now: UnixTime) -> Option<String> {
    let payload = serde_json::to_vec(payload).ok()?;
    keys.signing(SigningAlgorithm::ES256, now)?.sign(typ, &payload).ok()
}

fn failed(to: &Path, error: io::Error) -> BackupFailure {
    match error.kind() {
        io::ErrorKind::AlreadyExists => BackupFailure::Exists(to.to_owned()),
        _ => BackupFailure::File(to.to_owned(), error),
    }
}

struct Lines {
    file: GzEncoder<BufWriter<File>>,
    hash: Sha256,
    tables: u64,
    rows: u64,
}

impl Lines {
    fn line(&mut self, what: &impl Serialize) -> io::Result<()> {
        let mut line = serde_json::to_vec(what)?;
        line.push(b'\n');
        self.hash.update(&line);
        self.file.write_all(&line)
    }

    fn part(&mut self, part: &Part) -> io::Result<()> {
        match part {
            Part::Table { name, columns } => {
                self.tables += 1;
                self.line(&TableLine { table: name.clone(), columns: columns.clone() })
            }
            Part::Rows(rows) => {
                self.rows += u64::try_from(rows.len()).unwrap_or(0);
                rows.iter().try_for_each(|row| self.line(row))
            }
        }
    }

    fn end(mut self, end: &EndLine) -> io::Result<()> {
        self.line(end)?;
        let file = self.file.finish()?.into_inner().map_err(io::IntoInnerError::into_error)?;
        file.sync_all()
    }
}
