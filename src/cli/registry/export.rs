//! `countersign registry export`: one look, line by line, never more than a page of it in memory.

use std::io::{self, BufWriter, Write};
use std::path::Path;
use std::sync::atomic::Ordering;

use serde_json::json;

use super::super::audit::progress::Progress;
use super::super::session::{Failure, Session};
use super::writing::line;
use crate::audit::export::Beside;
use crate::registry::export::ExportStore;

/// Octets that are written at once.
const BUFFER: usize = 256 * 1024;

/// Runs the command.
///
/// # Errors
/// The file is there already or cannot be written, or the store does not answer.
pub(super) async fn run(file: Option<&Path>, session: &Session) -> Result<(), Failure> {
    let named = |path: &Path, error: io::Error| format!("{}: {error}", path.display());
    // Under its name once it is whole: one that was broken off between two records is a file that an import takes, without the
    // keys that were revoked.
    let new = match file {
        None => None,
        Some(path) if path.symlink_metadata().is_ok() => {
            return Err(named(path, io::ErrorKind::AlreadyExists.into()).into());
        }
        Some(path) => {
            let beside = Beside::of(path).map_err(|error| named(path, error))?;
            let file = beside.open().map_err(|error| named(path, error))?;
            Some((path, beside, file))
        }
    };
    let out: Box<dyn Write + Send> = match &new {
        None => Box::new(io::stdout()),
        Some((path, _, file)) => Box::new(file.try_clone().map_err(|error| named(path, error))?),
    };
    let mut out = BufWriter::with_capacity(BUFFER, out);
    let mut look = session.store().look().await?;
    let progress = Progress::of("written");
    let mut lines: u64 = 0;
    loop {
        let entries = look.next().await?;
        if entries.is_empty() {
            break;
        }
        for entry in entries {
            serde_json::to_writer(&mut out, &line(entry)?)?;
            out.write_all(b"\n")?;
            lines += 1;
        }
        progress.count().store(lines, Ordering::Relaxed);
    }
    out.flush()?;
    drop((out, progress));
    let Some((path, beside, file)) = new else { return Ok(()) };
    file.sync_all().map_err(|error| named(path, error))?;
    beside.place(path).map_err(|error| named(path, error))?;
    let version = look.version();
    let sentence = format!("{lines} records of registry version {version} written to {}", path.display());
    session.output.done(&sentence, &json!({ "file": path, "records": lines, "registry_version": version }))
}
