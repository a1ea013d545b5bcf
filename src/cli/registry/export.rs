//! `countersign registry export`: one look, line by line, never more than a page of it in memory.

use std::fs::OpenOptions;
use std::io::{self, BufWriter, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::sync::atomic::Ordering;

use serde_json::json;

use super::super::audit::progress::Progress;
use super::super::session::{Failure, Session};
use super::writing::line;
use crate::registry::export::ExportStore;

/// Octets that are written at once.
const BUFFER: usize = 256 * 1024;

/// Runs the command.
///
/// # Errors
/// The file is there already or cannot be written, or the store does not answer.
pub(super) async fn run(file: Option<&Path>, session: &Session) -> Result<(), Failure> {
    let named = |path: &Path, error: io::Error| format!("{}: {error}", path.display());
    let out: Box<dyn Write + Send> = match file {
        Some(path) => Box::new(
            OpenOptions::new()
                .write(true)
                .create_new(true)
                .mode(0o600)
                .open(path)
                .map_err(|error| named(path, error))?,
        ),
        None => Box::new(io::stdout()),
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
    let Some(path) = file else { return Ok(()) };
    std::fs::File::open(path)?.sync_all()?;
    let version = look.version();
    let sentence = format!("{lines} records of registry version {version} written to {}", path.display());
    session.output.done(&sentence, &json!({ "file": path, "records": lines, "registry_version": version }))
}
