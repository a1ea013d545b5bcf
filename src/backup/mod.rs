//! The whole store as one file, and a store from such a file.
//!
//! [`write`] takes one consistent look at a store, gives a file; [`inspect`] takes a file, says what is in it and whether
//! it is whole; [`restore`] fills an empty store with it, all or nothing, and begins a new epoch there. The file is the same
//! for both engines: `docs/backup.md` has the format line by line. It knows nothing of SQL or of the command line.

mod format;

mod reading;

mod restoration;

mod signing_keys;

mod store;

mod writing;

pub use format::{Cell, Header, RegistryAt};
pub use reading::{Inspected, inspect};
pub use restoration::{Confirmed, Origin, Restoration, Restoring, Standing, TokensOfBefore, Unproven, restore};
pub use signing_keys::signing_keys;
pub use store::{BackupStore, Loading, Part, Snapshot, Summary};
pub use writing::{Origins, Written, prepare};

use std::path::PathBuf;

use crate::registry::StoreUnavailable;

/// Why there is no backup, or why one is not restored. Each is a sentence that says what to do.
#[derive(Debug, thiserror::Error)]
pub enum BackupFailure {
    /// The clock cannot be right: what is begun now would not come after what there was.
    #[error("the clock of this machine is wrong, or the backup's was: {0}")]
    Clock(String),
    /// Another file has that name.
    #[error("{} is there already", .0.display())]
    Exists(PathBuf),
    /// The file cannot be written or read.
    #[error("{}: {}", .0.display(), .1)]
    File(PathBuf, #[source] std::io::Error),
    /// It is no backup, or not the one that was written.
    #[error("line {line} of the backup: {what}; nothing was restored")]
    Malformed {
        /// Where.
        line: u64,
        /// What is wrong.
        what: String,
    },
    /// Something is in the store.
    #[error(
        "the store is not empty: there is something in {0}. A backup is restored into a store of its own: move the old one away, or name another"
    )]
    NotEmpty(String),
    /// Its log or its rows do not fit together.
    #[error("what is in the backup does not hold together, and nothing of it was kept: {0}")]
    Refused(String),
    /// Another release's.
    #[error(
        "the backup has schema {found}, and this program {known}: restore it with the release that wrote it, and bring it up to date then"
    )]
    Schema {
        /// The backup's.
        found: i64,
        /// This build's.
        known: i64,
    },
    /// Nobody known has signed it.
    #[error(
        "nobody can say that this backup was not changed: {0}. Put the signing keys back first, or name the keys of /jwks with --jwks; --danger-unproven restores it all the same"
    )]
    Unproven(String),
    /// The store does not answer.
    #[error(transparent)]
    Store(#[from] StoreUnavailable),
}
