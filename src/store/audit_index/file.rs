//! The index of the audit log as a file beside the store, for SQLite.
//!
//! Takes the store's path, gives connections to the index that is current. It can be thrown away at any time: a damaged
//! one is left where it is for whoever still has it open, and another takes its place under the next number, so that no
//! file is ever opened together with another one's journal.

use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::sync::Arc;

use futures_util::FutureExt;
use sqlx::any::AnyConnectOptions;
use sqlx::sqlite::{SqliteConnectOptions, SqlitePoolOptions};
use sqlx::{AnyPool, ConnectOptions, Connection, Executor, SqlitePool};
use tokio::sync::Mutex;

use super::FORMAT;
use crate::store::sqlite::{self, prepare_file};
use crate::store::{ACQUIRE_TIMEOUT, Migrate, pool_options};

/// A power cut may take the last steps away, rows and progress together; it damages nothing. Each step is written ahead
/// and the file itself now and then.
const WRITER: &str = "PRAGMA busy_timeout = 1000; PRAGMA journal_mode = WAL; PRAGMA synchronous = NORMAL; \
                      PRAGMA wal_autocheckpoint = 16000; PRAGMA journal_size_limit = 67108864; \
                      PRAGMA cache_size = -2048; PRAGMA temp_store = MEMORY;";

const READER: &str = "PRAGMA busy_timeout = 1000; PRAGMA query_only = ON; PRAGMA cache_size = -512;";

/// The tables that PostgreSQL has by migrations 6 and 16, the rows of the index in the order of their key.
const TABLES: &str = "
    CREATE TABLE IF NOT EXISTS audit_index (
        singleton INTEGER NOT NULL PRIMARY KEY CHECK (singleton = 1), format INTEGER NOT NULL, id TEXT NOT NULL
    ) STRICT;
    CREATE TABLE IF NOT EXISTS audit_index_progress (
        chain INTEGER NOT NULL PRIMARY KEY, position INTEGER NOT NULL, hash BLOB NOT NULL, swept INTEGER NOT NULL,
        sweeping INTEGER NOT NULL
    ) STRICT;
    CREATE TABLE IF NOT EXISTS audit_index_term (
        kind INTEGER NOT NULL, value INTEGER NOT NULL, at INTEGER NOT NULL, position INTEGER NOT NULL,
        span INTEGER NOT NULL, reach INTEGER NOT NULL, places BLOB NOT NULL,
        PRIMARY KEY (kind, value, at, position)
    ) STRICT, WITHOUT ROWID;
    CREATE TABLE IF NOT EXISTS audit_index_sweep (
        singleton INTEGER NOT NULL PRIMARY KEY CHECK (singleton = 1),
        kind INTEGER NOT NULL, value INTEGER NOT NULL, at INTEGER NOT NULL, position INTEGER NOT NULL
    ) STRICT;
    INSERT OR IGNORE INTO audit_index (singleton, format, id) VALUES (1, $1, lower(hex(randomblob(16))));";

/// The index beside one store.
#[derive(Debug)]
pub(in crate::store) struct IndexFile {
    store: PathBuf,
    current: Mutex<Option<Arc<Opened>>>,
}

/// One file, while it is open.
#[derive(Debug)]
pub(in crate::store) struct Opened {
    number: u64,
    /// Which file it was when it was opened: it may have been removed since.
    identity: (u64, u64),
    pub(super) readers: AnyPool,
    pub(super) writer: SqlitePool,
    /// One that writes in the SQL both engines accept.
    pub(super) sweeper: AnyPool,
}

impl IndexFile {
    pub(in crate::store) fn beside(store: &Path) -> Self {
        Self { store: store.to_owned(), current: Mutex::new(None) }
    }

    /// The current file, opened, and made where there is none.
    pub(super) async fn opened(&self) -> Result<Arc<Opened>, sqlx::Error> {
        let mut current = self.current.lock().await;
        let number = self.newest()?.unwrap_or(1);
        if let Some(opened) = &*current
            && opened.number == number
            && identity(&self.path(FORMAT, number)).is_ok_and(|identity| identity == opened.identity)
        {
            return Ok(Arc::clone(opened));
        }
        let opened = match self.open(number).await {
            Err(error) if is_damage(&error) => {
                tracing::warn!(%error, "the index of the audit log is damaged: it is built anew");
                self.open(number + 1).await?
            }
            opened => opened?,
        };
        self.remove_before(opened.number);
        self.remove_of_earlier_formats();
        Ok(Arc::clone(current.insert(Arc::new(opened))))
    }

    /// Another one in the place of `old`.
    pub(super) async fn replace(&self, old: &Opened) -> Result<(), sqlx::Error> {
        let mut current = self.current.lock().await;
        let newest = self.newest()?.unwrap_or(0);
        if newest > old.number {
            // Somebody else has replaced it.
            return Ok(());
        }
        let opened = self.open(newest + 1).await?;
        self.remove_before(opened.number);
        *current = Some(Arc::new(opened));
        Ok(())
    }

    /// Another one in the place of the one that is open now, which was found damaged.
    pub(super) async fn replace_damaged(&self) -> Result<(), sqlx::Error> {
        let current = self.current.lock().await.clone();
        match current {
            Some(current) => self.replace(&current).await,
            None => Ok(()),
        }
    }

    pub(in crate::store) async fn close(&self) {
        if let Some(opened) = self.current.lock().await.take() {
            opened.readers.close().await;
            opened.sweeper.close().await;
            opened.writer.close().await;
        }
    }

    async fn open(&self, number: u64) -> Result<Opened, sqlx::Error> {
        let path = self.path(FORMAT, number);
        prepare_file(&path, Migrate::Apply)?;
        let options = SqliteConnectOptions::new().filename(&path).create_if_missing(false);
        // Not by a pool, which would try again and again where the file is none.
        let mut connection = options.connect().await?;
        sqlite::set_journal_mode(&mut connection, WRITER).await?;
        let mut making = connection.begin_with("BEGIN IMMEDIATE").await?;
        for statement in TABLES.split_inclusive(';') {
            let query = sqlx::query(statement);
            if statement.contains("$1") { query.bind(FORMAT) } else { query }.execute(&mut *making).await?;
        }
        making.commit().await?;
        connection.close().await?;
        let writer = SqlitePoolOptions::new()
            .max_connections(1)
            .acquire_timeout(ACQUIRE_TIMEOUT)
            .idle_timeout(None)
            .max_lifetime(None)
            .after_connect(|connection, _| async move { connection.execute(WRITER).await.map(drop) }.boxed())
            .connect_lazy_with(options.clone());
        let any_options = AnyConnectOptions::from_str(options.to_url_lossy().as_str())?;
        let any = |connections: u32, pragmas: &'static str| {
            pool_options(connections)
                .after_connect(move |connection, _| async move { connection.execute(pragmas).await.map(drop) }.boxed())
                .connect_lazy_with(any_options.clone())
        };
        let (readers, sweeper) = (any(READERS, READER), any(1, WRITER));
        Ok(Opened { number, identity: identity(&path)?, readers, writer, sweeper })
    }

    /// `countersign.db-audit-index-3-7`: the format of the index, and which file of it.
    fn path(&self, format: i64, number: u64) -> PathBuf {
        let mut name = self.store.file_name().unwrap_or_default().to_owned();
        name.push(format!("{PREFIX}{format}-{number}"));
        self.store.with_file_name(name)
    }

    /// The highest number of those that are there.
    fn newest(&self) -> Result<Option<u64>, sqlx::Error> {
        Ok(self.all(FORMAT)?.into_iter().max())
    }

    fn all(&self, format: i64) -> Result<Vec<u64>, sqlx::Error> {
        let mut prefix = self.store.file_name().unwrap_or_default().to_owned();
        prefix.push(format!("{PREFIX}{format}-"));
        let directory = self.store.parent().filter(|parent| !parent.as_os_str().is_empty());
        let mut numbers = Vec::new();
        for entry in std::fs::read_dir(directory.unwrap_or(Path::new(".")))? {
            let name = entry?.file_name();
            let number = name.as_encoded_bytes().strip_prefix(prefix.as_encoded_bytes());
            numbers.extend(number.and_then(|digits| std::str::from_utf8(digits).ok()?.parse::<u64>().ok()));
        }
        Ok(numbers)
    }

    /// Best effort: what stays is not opened again.
    fn remove_before(&self, number: u64) {
        for earlier in self.all(FORMAT).unwrap_or_default() {
            if earlier < number {
                remove(&self.path(FORMAT, earlier));
            }
        }
    }

    /// Nobody takes them up again: an earlier release that still runs begins anew.
    fn remove_of_earlier_formats(&self) {
        for format in 1..FORMAT {
            for number in self.all(format).unwrap_or_default() {
                remove(&self.path(format, number));
            }
        }
    }
}

/// A database with its companions.
fn remove(path: &Path) {
    for companion in ["-wal", "-shm", ""] {
        let mut name = path.as_os_str().to_owned();
        name.push(companion);
        drop(std::fs::remove_file(name));
    }
}

const PREFIX: &str = "-audit-index-";

/// Connections that read it at the same time.
const READERS: u32 = 2;

fn identity(path: &Path) -> std::io::Result<(u64, u64)> {
    let found = std::fs::metadata(path)?;
    Ok((found.dev(), found.ino()))
}

/// Whether the file is not what it should be. The low octet is SQLite's primary code: 11 is SQLITE_CORRUPT, 26
/// SQLITE_NOTADB. 522 is a file that ends too early. Tables that are not ours have no code of their own.
pub(super) fn is_damage(error: &sqlx::Error) -> bool {
    match error {
        sqlx::Error::Database(error) => {
            let code = error.code().and_then(|code| code.parse::<i64>().ok());
            let is_other = || {
                ["no such table", "no such column", "has no column"].iter().any(|what| error.message().contains(what))
            };
            code.is_some_and(|code| code == 522 || matches!(code & 0xFF, 11 | 26) || (code == 1 && is_other()))
        }
        // A row that should be there, or a value that is none of ours.
        sqlx::Error::RowNotFound | sqlx::Error::ColumnDecode { .. } => true,
        _ => false,
    }
}
