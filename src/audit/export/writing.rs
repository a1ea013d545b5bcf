//! Writing an export: read, verified and compressed in one go.
//!
//! Takes the log up to a checkpoint, gives a file that is complete and on disk, or none. It is written beside its place under
//! another name, for nobody but its owner, and never takes the place of a file that is there.

use std::fs::{File, OpenOptions};
use std::io::{self, BufWriter, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use countersign_resource_server::time::UnixTime;
use flate2::Compression;
use flate2::write::GzEncoder;
use serde::Serialize;

use super::ExportFailure;
use super::line::{ChainLine, CheckpointLine, End, Header, RecordLine, written};
use super::prune::{announced, unannounced};
use crate::audit::believed::BelievedKeys;
use crate::audit::chain::{Head, LogId, Position, RecordHash};
use crate::audit::checkpoint::{Checkpoint, statement_hash};
use crate::audit::verify::{AuditReading, Evidence, Finding, FindingKind, Mark, Run, Statements, Walk};
use crate::registry::StoreUnavailable;

/// Records that are read together: some megabytes.
const RUN: u32 = 2_048;

/// Checkpoints that are read together.
const PAGE: u32 = 200;

/// What is exported.
#[derive(Debug)]
pub struct Selected {
    log: LogId,
    /// The checkpoint the log was cut at before.
    cut: Option<i64>,
    /// Where each chain begins and how far it goes.
    chains: Vec<(Head, Head)>,
    /// What was verified of the checkpoints: their hashes, not what they say, for there may be a great many.
    evidence: Evidence,
    /// The one it ends with, and its hash.
    checkpoint: Checkpoint,
    statement: RecordHash,
}

impl Selected {
    /// Of which log.
    pub const fn log(&self) -> LogId {
        self.log
    }

    /// The hash of the checkpoint it ends with.
    pub const fn statement(&self) -> RecordHash {
        self.statement
    }
}

/// What was exported.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Exported {
    /// The file.
    pub file: PathBuf,
    /// The checkpoint it ends with.
    pub checkpoint: i64,
    /// That one's instant.
    #[serde(rename = "checkpoint_at")]
    pub until: UnixTime,
    /// How many checkpoints are in it.
    pub checkpoints: u64,
    /// How many chains.
    pub chains: u64,
    /// How many records.
    pub records: u64,
}

/// Finds what to export: everything up to the newest checkpoint that is not later than `before`.
///
/// # Errors
/// [`ExportFailure`]: nothing is that old, or a checkpoint is not what it was.
pub async fn select(
    source: &Arc<dyn AuditReading>,
    before: UnixTime,
    keys: &BelievedKeys,
) -> Result<Selected, ExportFailure> {
    let mut statements = Statements::new(keys, &[]);
    let mut chosen = None;
    let mut after = i64::MIN;
    loop {
        let page = source.statements(after, PAGE).await?;
        let Some(last) = page.last() else { break };
        after = last.number;
        // To the newest one, whose key is known: it vouches for those before it where theirs are not any more.
        for stored in &page {
            statements.take(stored);
        }
        chosen = page.into_iter().rfind(|stored| stored.at <= before).or(chosen);
    }
    let chosen = chosen.ok_or(ExportFailure::NoCheckpoint)?;
    let outline = source.outline().await?;
    let mut evidence = statements.end(true);
    if !evidence.findings.is_empty() {
        return Err(ExportFailure::Tampered(Box::new(evidence.findings.swap_remove(0))));
    }
    let checkpoint = Checkpoint::read(&chosen.statement).map_err(StoreUnavailable::because)?;
    if checkpoint.log != outline.log {
        let what = format!("this is log {}, and its checkpoints are of log {}", outline.log, checkpoint.log);
        return Err(ExportFailure::Tampered(Box::new(Finding::new(FindingKind::OtherLog, what))));
    }
    let mut chains = Vec::new();
    for head in &checkpoint.heads {
        let cut = outline.chains().find(|(chain, _)| *chain == head.chain()).and_then(|(_, cut)| cut);
        let Some(cut) = cut else {
            let what = "its checkpoints know it, and it is not there";
            let finding = Finding::new(FindingKind::ChainMissing, what).in_chain(head.chain());
            return Err(ExportFailure::Tampered(Box::new(finding)));
        };
        chains.push((cut, *head));
    }
    let is_cut = chains.iter().any(|(cut, _)| cut.position.sequence() > 0);
    let first = evidence.first.as_ref().map(|first| first.number);
    if is_cut && chains.iter().all(|(cut, head)| cut == head) {
        return Err(ExportFailure::Nothing(checkpoint.number));
    }
    // Otherwise a cut that nobody announced would be one that the next prune explains.
    if is_cut && !announced(source, &outline, keys).await?.iter().any(|pruned| Some(pruned.checkpoint) == first) {
        return Err(unannounced("the log begins after a cut"));
    }
    let (cut, statement) = (first.filter(|_| is_cut), statement_hash(&chosen.statement));
    Ok(Selected { log: outline.log, cut, chains, evidence, checkpoint, statement })
}

/// Writes the file at `to`.
///
/// # Errors
/// [`ExportFailure`]: then there is no file.
pub async fn write(
    source: &Arc<dyn AuditReading>,
    selected: &Selected,
    to: &Path,
    progress: &Arc<AtomicU64>,
) -> Result<Exported, ExportFailure> {
    if to.symlink_metadata().is_ok() {
        return Err(ExportFailure::Exists(to.to_owned()));
    }
    let failed = |error: io::Error| match error.kind() {
        io::ErrorKind::AlreadyExists => ExportFailure::Exists(to.to_owned()),
        _ => ExportFailure::File(to.to_owned(), error),
    };
    let beside = Beside::of(to).map_err(failed)?;
    let end = content(source, selected, &beside, progress).await.map_err(|error| match error {
        ContentFailure::File(error) => failed(error),
        ContentFailure::Other(error) => error,
    })?;
    beside.place(to).map_err(failed)?;
    Ok(Exported {
        file: to.to_owned(),
        checkpoint: selected.checkpoint.number,
        until: selected.checkpoint.at,
        checkpoints: end.checkpoints,
        chains: end.chains,
        records: end.records,
    })
}

#[derive(Debug)]
enum ContentFailure {
    File(io::Error),
    Other(ExportFailure),
}

impl From<io::Error> for ContentFailure {
    fn from(error: io::Error) -> Self {
        Self::File(error)
    }
}

impl From<StoreUnavailable> for ContentFailure {
    fn from(error: StoreUnavailable) -> Self {
        Self::Other(error.into())
    }
}

type Compressed = GzEncoder<BufWriter<File>>;

async fn content(
    source: &Arc<dyn AuditReading>,
    selected: &Selected,
    beside: &Beside,
    progress: &Arc<AtomicU64>,
) -> Result<End, ContentFailure> {
    let mut file: Compressed = GzEncoder::new(BufWriter::new(beside.open()?), Compression::new(3));
    writeln!(file, "{}", written(&Header::new(selected.log, selected.cut, selected.checkpoint.number)))?;
    let checkpoints = write_statements(&mut file, source, selected).await?;
    let mut records = 0;
    for (start, head) in &selected.chains {
        writeln!(file, "{}", written(&ChainLine::of(start)))?;
        let marks = selected.evidence.marks.get(&start.chain()).cloned().unwrap_or_default();
        let is_covered = |mark: &&Mark| mark.checkpoint <= selected.checkpoint.number;
        let up_to = marks.iter().filter(is_covered).copied().collect();
        let mut walk = Walk::new(start.chain(), up_to, Some(*start));
        let mut run = source.run(start.position, head.position, RUN).await?;
        while let Some(after) = run.end() {
            progress.fetch_add(u64::try_from(run.len()).unwrap_or(0), Ordering::Relaxed);
            let writing = tokio::task::spawn_blocking(move || {
                walk.take_all(&run);
                write_run(&mut file, &run).map(|()| (file, walk))
            });
            let (wrote, next) = tokio::join!(writing, source.run(after, head.position, RUN));
            (file, walk) = wrote.map_err(StoreUnavailable::because)??;
            run = next?;
        }
        let found = walk.end();
        records += found.records;
        if let Some(finding) = found.findings.into_iter().next() {
            return Err(ContentFailure::Other(ExportFailure::Tampered(Box::new(finding))));
        }
    }
    let end = End { checkpoints, chains: u64::try_from(selected.chains.len()).unwrap_or(u64::MAX), records };
    writeln!(file, "{}", written(&end))?;
    let file = file.finish()?.into_inner().map_err(io::IntoInnerError::into_error)?;
    file.sync_all()?;
    Ok(end)
}

/// Writes the checkpoints up to the last one, a page at a time: octet by octet those that were verified. How many there were.
async fn write_statements(
    file: &mut Compressed,
    source: &Arc<dyn AuditReading>,
    selected: &Selected,
) -> Result<u64, ContentFailure> {
    let last = selected.checkpoint.number;
    let mut expected = selected.evidence.statements().take_while(|(number, _)| *number <= last);
    let mut after = i64::MIN;
    let mut count = 0;
    loop {
        let mut page = source.statements(after, PAGE).await?;
        page.retain(|stored| stored.number <= last);
        let Some(end) = page.last() else { break };
        after = end.number;
        for stored in page {
            if expected.next() != Some((stored.number, statement_hash(&stored.statement))) {
                return Err(changed_meanwhile(stored.number));
            }
            writeln!(file, "{}", written(&CheckpointLine { checkpoint: stored.statement }))?;
            count += 1;
        }
    }
    match expected.next() {
        Some((number, _)) => Err(changed_meanwhile(number)),
        None => Ok(count),
    }
}

fn changed_meanwhile(number: i64) -> ContentFailure {
    let what = "it was removed, inserted or changed since it was verified a moment ago";
    let finding = Finding::new(FindingKind::Checkpoint, what).of_checkpoint(number);
    ContentFailure::Other(ExportFailure::Tampered(Box::new(finding)))
}

fn write_run(file: &mut Compressed, run: &Run) -> io::Result<()> {
    for record in run.iter() {
        // One line each. JSON as the log writes it has no line feed.
        if record.body.contains('\n') {
            let what = format!("record {} has a line feed in it, which the log never writes", record.position);
            return Err(io::Error::new(io::ErrorKind::InvalidData, what));
        }
        let line = RecordLine {
            sequence: Position::sequence(record.position),
            at: record.at,
            hash: record.hash,
            body: record.body,
        };
        line.write(file)?;
    }
    Ok(())
}

/// The file while it is written: gone again unless it is placed.
pub(crate) struct Beside {
    path: PathBuf,
    directory: PathBuf,
}

impl Beside {
    pub(crate) fn of(to: &Path) -> io::Result<Self> {
        let name = to.file_name().ok_or(io::ErrorKind::InvalidFilename)?;
        let directory = match to.parent() {
            Some(parent) if !parent.as_os_str().is_empty() => parent.to_owned(),
            _ => PathBuf::from("."),
        };
        let mut hidden = std::ffi::OsString::from(".");
        hidden.push(name);
        hidden.push(format!(".{}.new", std::process::id()));
        Ok(Self { path: directory.join(hidden), directory })
    }

    pub(crate) fn open(&self) -> io::Result<File> {
        OpenOptions::new().write(true).create_new(true).mode(0o600).open(&self.path)
    }

    /// A second name, which is refused where it is taken; then the first one goes.
    pub(crate) fn place(self, to: &Path) -> io::Result<()> {
        std::fs::hard_link(&self.path, to)?;
        std::fs::remove_file(&self.path)?;
        File::open(&self.directory)?.sync_all()
    }
}

impl Drop for Beside {
    fn drop(&mut self) {
        // What was placed is not there under this name any more.
        let _ = std::fs::remove_file(&self.path);
    }
}
