//! The log as a file, and what may be removed once it is one.
//!
//! [`write`] takes the log up to a checkpoint and gives a file of JSON lines; [`read`] takes such a file and says what was
//! found in it; [`prune`] removes from the store what is in it. `docs/audit-log.md` has the format line by line.

mod line;

mod meeting;

mod prune;

mod reading;

mod writing;

pub use meeting::meet;
pub use prune::{Interruption, finish, prune, unfinished};
pub use reading::{ReadExport, read};
pub(crate) use writing::Beside;
pub use writing::{Exported, Selected, select, write};

use std::path::PathBuf;

use super::verify::Finding;
use crate::registry::StoreUnavailable;

/// Why there is no export.
#[derive(Debug, thiserror::Error)]
pub enum ExportFailure {
    /// Another file has that name.
    #[error("{} is there already", .0.display())]
    Exists(PathBuf),
    /// The file cannot be written or read.
    #[error("{}: {}", .0.display(), .1)]
    File(PathBuf, #[source] std::io::Error),
    /// No checkpoint is that old.
    #[error("there is no checkpoint that is old enough")]
    NoCheckpoint,
    /// What is that old was exported and removed before.
    #[error("everything up to checkpoint {0} was exported and removed before: nothing after it is old enough")]
    Nothing(i64),
    /// The log is not what it was.
    #[error("the log does not verify, so it is not exported: {} {}: {}", .0.place(), .0.kind.as_str(), .0.explanation)]
    Tampered(Box<Finding>),
    /// What was written is not what was read.
    #[error("the file was read again and does not verify, so nothing is removed: {} {}", .0.place(), .0.explanation)]
    Unreadable(Box<Finding>),
    /// A prune was interrupted.
    #[error("a prune to checkpoint {0} was interrupted: `countersign audit export … --prune` finishes it first")]
    Unfinished(i64),
    /// The store does not answer.
    #[error(transparent)]
    Store(#[from] StoreUnavailable),
}
