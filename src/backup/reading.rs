//! Reading a backup: is it whole, who signed it, and what is in it?
//!
//! Takes a file, gives its first line and its parts. It is read to its end before anything is done with it, and again while
//! a store is filled: both times it has to be the same. One page of rows is in memory. Blocks.

use std::fs::File;
use std::io::{BufRead, BufReader, Read};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use countersign_resource_server::token::jws::{self, Expectation, JwsError, KeyChoice, SigningAlgorithm, Untyped};
use flate2::bufread::GzDecoder;
use sha2::{Digest, Sha256};

use super::BackupFailure;
use super::format::{BACKUP_TYPE, Cell, EndLine, FORMAT, Header, Signed, TableLine};
use super::store::Part;
use crate::audit::believed::BelievedKeys;

/// The longest line that is read.
const LINE_BYTES: u64 = 64 * 1024 * 1024;

/// How many rows, and how many octets of lines, are handed over together.
const PAGE_ROWS: usize = 512;
const PAGE_BYTES: usize = 1024 * 1024;

/// The longest signature that is looked at.
const SIGNATURE_BYTES: usize = 16 * 1024;

/// A backup that was read to its end.
#[derive(Clone, Debug)]
pub struct Inspected {
    /// Which file.
    pub path: PathBuf,
    /// Its first line.
    pub header: Header,
    /// The hash of its lines but the last.
    pub sha256: String,
    /// How many rows.
    pub rows: u64,
    /// Why nobody can say that it was not changed; none where a known key signed it.
    pub doubt: Option<String>,
    /// What has become of the key that signed it: nothing that could be refused, and nothing that could be passed over.
    pub warning: Option<String>,
}

/// Reads the file at `path` to its end. Blocks.
///
/// # Errors
/// [`BackupFailure::File`] or [`BackupFailure::Malformed`].
pub fn inspect(path: &Path, keys: &BelievedKeys, progress: &Arc<AtomicU64>) -> Result<Inspected, BackupFailure> {
    let mut lines = Lines::open(path)?;
    let header = lines.header()?;
    while let Some(part) = lines.next()? {
        if let Part::Rows(_) = part {
            progress.store(lines.rows, Ordering::Relaxed);
        }
    }
    let end = lines.end.clone().ok_or_else(|| lines.malformed("the file ends before its last line"))?;
    let doubt = match &end.signature {
        None => Some("it is not signed".to_owned()),
        Some(signature) => doubt(signature, &header, &end.sha256, keys),
    };
    let key = end.signature.as_deref().and_then(|signature| keys.withdrawal(signature)).filter(|_| doubt.is_none());
    let warning = key.map(|key| format!("it is {}", key.warning()));
    Ok(Inspected { path: path.to_owned(), header, sha256: end.sha256, rows: end.rows, doubt, warning })
}

fn doubt(signature: &str, header: &Header, sha256: &str, keys: &BelievedKeys) -> Option<String> {
    let expected = Expectation {
        algorithms: &[SigningAlgorithm::ES256],
        types: &[BACKUP_TYPE],
        untyped: Untyped::Refuse,
        key: KeyChoice::ByKid,
        max_bytes: SIGNATURE_BYTES,
    };
    let signed: Signed = match jws::verify(signature, keys.keys(), &expected).and_then(|verified| verified.claims()) {
        Ok(signed) => signed,
        Err(JwsError::KeyUnknown) => return Some("the key that signed it is not known".to_owned()),
        Err(error) => return Some(format!("its signature does not hold: {error}")),
    };
    let is_so = (signed.sha256.as_str(), signed.iss.as_str(), signed.at) == (sha256, &header.issuer, header.at);
    if !is_so {
        return Some("its signature is another backup's".to_owned());
    }
    let key = keys.withdrawal(signature).filter(|key| key.is_before(signed.at))?;
    Some(format!("the key that signed it, {}, had been withdrawn at {}", key.kid, key.at))
}

/// The lines of a backup, one after the other.
pub(super) struct Lines {
    path: PathBuf,
    from: BufReader<GzDecoder<BufReader<File>>>,
    hash: Sha256,
    number: u64,
    tables: u64,
    rows: u64,
    columns: Option<usize>,
    /// A line that was read and not handed over yet.
    ahead: Option<Part>,
    end: Option<EndLine>,
}

impl Lines {
    pub(super) fn open(path: &Path) -> Result<Self, BackupFailure> {
        let file = File::open(path).map_err(|error| BackupFailure::File(path.to_owned(), error))?;
        Ok(Self {
            path: path.to_owned(),
            from: BufReader::new(GzDecoder::new(BufReader::new(file))),
            hash: Sha256::new(),
            number: 0,
            tables: 0,
            rows: 0,
            columns: None,
            ahead: None,
            end: None,
        })
    }

    /// The first line.
    pub(super) fn header(&mut self) -> Result<Header, BackupFailure> {
        let line = self.line()?;
        let header: Option<Header> = serde_json::from_slice(&line).ok();
        match header.filter(|header| header.format == FORMAT) {
            Some(header) => {
                self.take(&line);
                Ok(header)
            }
            None => Err(self.malformed(format!("it does not begin as a {FORMAT:?}"))),
        }
    }

    /// The next part; none once the file has come to its end, and is whole.
    pub(super) fn next(&mut self) -> Result<Option<Part>, BackupFailure> {
        if let Some(part) = self.ahead.take() {
            return Ok(Some(part));
        }
        if self.end.is_some() {
            return Ok(None);
        }
        let mut rows = Vec::new();
        let mut bytes = 0;
        while rows.len() < PAGE_ROWS && bytes < PAGE_BYTES {
            let line = self.line()?;
            if line.first() == Some(&b'[') {
                let row: Vec<Cell> =
                    serde_json::from_slice(&line).map_err(|error| self.malformed(format!("no row: {error}")))?;
                if self.columns != Some(row.len()) {
                    return Err(self.malformed("the row has not as many values as its table has columns"));
                }
                self.take(&line);
                self.rows += 1;
                bytes += line.len();
                rows.push(row);
                continue;
            }
            if let Ok(TableLine { table, columns }) = serde_json::from_slice(&line) {
                self.take(&line);
                self.tables += 1;
                self.columns = Some(columns.len());
                self.ahead = Some(Part::Table { name: table, columns });
            } else if let Ok(end) = serde_json::from_slice::<EndLine>(&line) {
                self.finish(end)?;
            } else {
                return Err(self.malformed("it is neither a table, nor a row, nor the end"));
            }
            break;
        }
        if rows.is_empty() { Ok(self.ahead.take()) } else { Ok(Some(Part::Rows(rows))) }
    }

    /// What the last line said.
    pub(super) fn sha256(&self) -> Option<&str> {
        self.end.as_ref().map(|end| end.sha256.as_str())
    }

    fn finish(&mut self, end: EndLine) -> Result<(), BackupFailure> {
        let hash = hex::encode(self.hash.clone().finalize());
        if end.sha256 != hash {
            return Err(self.malformed("the lines before it are not those that were written: their hash is another"));
        }
        if (end.tables, end.rows) != (self.tables, self.rows) {
            return Err(self.malformed("there are not as many tables and rows as it says"));
        }
        let mut octet = [0];
        match self.from.read(&mut octet) {
            Ok(0) => {}
            Ok(_) => return Err(self.malformed("there is more after the last line")),
            Err(error) => return Err(self.malformed(format!("it cannot be decompressed: {error}"))),
        }
        // Nor in the file, behind what was compressed.
        match self.from.get_mut().get_mut().read(&mut octet) {
            Ok(0) => {}
            _ => return Err(self.malformed("there is more after its end")),
        }
        self.end = Some(end);
        Ok(())
    }

    fn take(&mut self, line: &[u8]) {
        self.hash.update(line);
        self.hash.update(b"\n");
    }

    fn line(&mut self) -> Result<Vec<u8>, BackupFailure> {
        self.number += 1;
        let mut line = Vec::new();
        match self.from.by_ref().take(LINE_BYTES).read_until(b'\n', &mut line) {
            Ok(0) => Err(self.malformed("the file ends before its last line")),
            Ok(_) if line.pop() == Some(b'\n') => Ok(line),
            Ok(_) => Err(self.malformed("the line has no end")),
            Err(error) => Err(self.malformed(format!("it cannot be decompressed: {error}"))),
        }
    }

    pub(super) fn malformed(&self, what: impl Into<String>) -> BackupFailure {
        BackupFailure::Malformed { line: self.number, what: what.into() }
    }
}

impl std::fmt::Debug for Lines {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Lines").field("path", &self.path).field("number", &self.number).finish_non_exhaustive()
    }
}
