//! What is different with SQLite: a file of our own, pragmas, one writer, and how to notice that somebody wrote.
//!
//! Takes a path, gives a [`Store`]. The file and its companions can be read by their owner alone.

use std::io::ErrorKind;
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::Path;
use std::str::FromStr;
use std::sync::Arc;
use std::time::Duration;

use futures_util::FutureExt;
use sqlx::any::AnyConnectOptions;
use sqlx::sqlite::{SqliteConnectOptions, SqliteConnection, SqlitePoolOptions};
use sqlx::{ConnectOptions, Connection, Executor, Row, Sqlite};
use tokio::sync::Mutex;

use super::appender::Appender;
use super::audit_index::IndexFile;
use super::schema::{self, Applied, Migrations, NextStep, Standing};
use super::{ACQUIRE_TIMEOUT, Engine, Migrate, OpenError, READERS, Standby, Store, pool_options};
use crate::registry::StoreUnavailable;
use crate::registry::store::{Answer, Watch};

mod write_ahead;

pub(super) use write_ahead::WriteAhead;

pub(super) const MIGRATIONS: Migrations = &[
    (1, "registry", include_str!("../../migrations/sqlite/0001_registry.sql")),
    (2, "audit", include_str!("../../migrations/sqlite/0002_audit.sql")),
    (3, "certificate_anchor", include_str!("../../migrations/sqlite/0003_certificate_anchor.sql")),
    (4, "notice", include_str!("../../migrations/sqlite/0004_notice.sql")),
    (5, "audit_chain", include_str!("../../migrations/sqlite/0005_audit_chain.sql")),
    (6, "audit_index", include_str!("../../migrations/sqlite/0006_audit_index.sql")),
    (7, "audit_forward", include_str!("../../migrations/sqlite/0007_audit_forward.sql")),
    (8, "token_revocation", include_str!("../../migrations/sqlite/0008_token_revocation.sql")),
    (9, "restoration", include_str!("../../migrations/sqlite/0009_restoration.sql")),
    (10, "status_list", include_str!("../../migrations/sqlite/0010_status_list.sql")),
    (11, "list_follower", include_str!("../../migrations/sqlite/0011_list_follower.sql")),
    (12, "served_until", include_str!("../../migrations/sqlite/0012_served_until.sql")),
    (13, "signing_key", include_str!("../../migrations/sqlite/0013_signing_key.sql")),
    (14, "registry_import", include_str!("../../migrations/sqlite/0014_registry_import.sql")),
    (15, "registry_head", include_str!("../../migrations/sqlite/0015_registry_head.sql")),
    (16, "audit_index_places", include_str!("../../migrations/sqlite/0016_audit_index_places.sql")),
];

/// The schema that they make.
pub(super) const SCHEMA: i64 = schema::known(MIGRATIONS);

/// WAL, so that readers never wait for the writer; FULL, so that what was acknowledged survives a power cut.
const WRITER_PRAGMAS: &str =
    "PRAGMA busy_timeout = 1000; PRAGMA journal_mode = WAL; PRAGMA synchronous = FULL; PRAGMA foreign_keys = ON;";

/// For a connection whose transactions are begun anew where the file is busy, as by [`Store::begin_write`]. SQLite asks for a lock ever less often the longer
/// it waits; where another process writes all the time, asking anew and often finds the gap between two transactions.
///
/// A commit carries over what is written ahead only where there are so many pages. What is longer than 64 MiB is cut off once it is
/// begun anew. Half a megabyte of pages for each connection: what is read again and again lies in the registry's own memory, and the
/// rest in the operating system's.
macro_rules! patient_writer_pragmas {
    ($pages:literal) => {
        concat!(
            "PRAGMA busy_timeout = 20; PRAGMA journal_mode = WAL; PRAGMA synchronous = FULL; PRAGMA foreign_keys = ON; \
             PRAGMA cache_size = -512; PRAGMA journal_size_limit = 67108864; PRAGMA wal_autocheckpoint = ",
            $pages,
            ";"
        )
    };
}

/// For a command: from 64 MiB on.
const PATIENT_WRITER_PRAGMAS: &str = patient_writer_pragmas!(16000);

/// For whoever serves, and has it done beside the commits: from 1 GiB on, should that fail.
const SERVING_WRITER_PRAGMAS: &str = patient_writer_pragmas!(262144);

/// Together with that busy time-out: one second.
pub(super) const BEGIN_TRIES: usize = 50;

/// How often the journal mode is tried, where somebody else has the file open at the same moment.
const JOURNAL_TRIES: usize = 250;

/// How long to wait between two of these tries: five seconds in all.
const JOURNAL_PAUSE: Duration = Duration::from_millis(20);

/// Nothing that would change a file before it is known to be ours.
const CHECK_PRAGMAS: &str = "PRAGMA busy_timeout = 1000;";

const READER_PRAGMAS: &str = "PRAGMA busy_timeout = 1000; PRAGMA query_only = ON; PRAGMA cache_size = -512;";

/// How often to look whether another process wrote.
const POLL: Duration = Duration::from_millis(100);

pub(super) async fn open(path: &Path, migrate: Migrate) -> Result<Store, OpenError> {
    let place = path.display().to_string();
    let unreachable = |source: sqlx::Error| explain(&place, source);
    prepare_file(path, migrate).map_err(|source| match source.kind() {
        ErrorKind::NotFound if migrate == Migrate::Check => OpenError::Missing { place: place.clone() },
        _ => unreachable(source.into()),
    })?;

    let options = SqliteConnectOptions::new().filename(path).create_if_missing(false);
    let mut connection = connect(&options, CHECK_PRAGMAS).await.map_err(unreachable)?;
    check(&mut connection, &place, migrate).await?;
    if migrate == Migrate::Apply {
        // The journal mode stays with the file. It is set before there are readers, which it would have to wait for.
        set_journal_mode(&mut connection, WRITER_PRAGMAS).await.map_err(unreachable)?;
    }
    connection.close().await.map_err(unreachable)?;

    let writer_pragmas = match migrate {
        Migrate::Apply => SERVING_WRITER_PRAGMAS,
        Migrate::Check => PATIENT_WRITER_PRAGMAS,
    };
    let native = |connections: u32, pragmas: &'static str| {
        SqlitePoolOptions::new()
            .max_connections(connections)
            .acquire_timeout(ACQUIRE_TIMEOUT)
            .idle_timeout(None)
            .max_lifetime(None)
            .after_connect(move |connection, _| async move { connection.execute(pragmas).await.map(drop) }.boxed())
            .before_acquire(|connection, _| std::future::ready(Ok(is_usable(connection))).boxed())
            .connect_lazy_with(options.clone())
    };
    let any_options = AnyConnectOptions::from_str(options.to_url_lossy().as_str()).map_err(unreachable)?;
    let any = |connections: u32, pragmas: &'static str| {
        pool_options(connections)
            .after_connect(move |connection, _| async move { connection.execute(pragmas).await.map(drop) }.boxed())
            .before_acquire(|connection, _| std::future::ready(Ok(is_usable(connection))).boxed())
            .connect_lazy_with(any_options.clone())
    };
    Ok(Store {
        engine: Engine::Sqlite {
            path: path.to_owned(),
            index: Arc::new(IndexFile::beside(path)),
            appender: Arc::new(Appender::new({
                let options = options.clone();
                move || {
                    let options = options.clone();
                    async move { connect(&options, writer_pragmas).await }.boxed()
                }
            })),
            readers: native(READERS, READER_PRAGMAS),
            write_ahead: Arc::new(WriteAhead::new(native(1, writer_pragmas))),
        },
        readers: any(READERS, READER_PRAGMAS),
        writers: any(1, writer_pragmas),
        turn: Some(Arc::new(Mutex::new(()))),
        recent: Arc::default(),
        standby: Standby::Optional,
    })
}

/// Makes the file before SQLite does, so that nobody else can read it from its first moment on; its companions get the
/// same mode from SQLite. A file that is there is never opened here: closing it again would drop the locks that SQLite
/// holds on it in this process (<https://sqlite.org/howtocorrupt.html>, section 2.2).
pub(super) fn prepare_file(path: &Path, migrate: Migrate) -> std::io::Result<()> {
    match (std::fs::metadata(path), migrate) {
        (Ok(found), Migrate::Apply) if found.permissions().mode() & 0o077 != 0 => {
            std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o600))
        }
        (Ok(_), _) => Ok(()),
        (Err(error), Migrate::Apply) if error.kind() == ErrorKind::NotFound => {
            match std::fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(path) {
                Err(error) if error.kind() != ErrorKind::AlreadyExists => Err(error),
                // Somebody else was faster.
                _ => Ok(()),
            }
        }
        (Err(error), _) => Err(error),
    }
}

async fn connect(options: &SqliteConnectOptions, pragmas: &'static str) -> Result<SqliteConnection, sqlx::Error> {
    let mut connection = options.connect().await?;
    connection.execute(pragmas).await?;
    Ok(connection)
}

/// Whether a transaction can begin on a connection that nobody uses. Where the disk is full or does not answer, SQLite ends
/// the transaction by itself (<https://sqlite.org/lang_transaction.html>, "Response To Errors Within A Transaction"); the
/// driver's own rollback then fails, and it counts the transaction as open for ever and begins no other. Such a connection
/// is closed, and another one opened in its place.
fn is_usable(connection: &impl Connection) -> bool {
    !connection.is_in_transaction()
}

/// Turns the file to WAL. For that SQLite reads its first page and then wants the file to itself; a connection that reads
/// already is not made to wait (it could be what the other one waits for), so no busy time-out applies, and whoever else is
/// opening the same new file has it fail at once. Once one of them has done it there is nothing left to do.
pub(super) async fn set_journal_mode(
    connection: &mut SqliteConnection,
    pragmas: &'static str,
) -> Result<(), sqlx::Error> {
    let mut tried = 1;
    loop {
        match connection.execute(pragmas).await {
            Err(error) if tried < JOURNAL_TRIES && is_busy(&error) => tried += 1,
            set => return set.map(drop),
        }
        tokio::time::sleep(JOURNAL_PAUSE).await;
    }
}

/// Checks the schema and, where asked, brings it up to date under the write lock of the file. Checking takes no lock that
/// a busy server would have to give up first.
async fn check(connection: &mut SqliteConnection, place: &str, migrate: Migrate) -> Result<(), OpenError> {
    let explained = |source: sqlx::Error| explain(place, source);
    let standing = look(connection, place).await?;
    match schema::next_step(place, MIGRATIONS, standing, migrate)? {
        NextStep::Nothing => Ok(()),
        NextStep::Migrate => {
            let mut locked = connection.begin_with("BEGIN IMMEDIATE").await.map_err(explained)?;
            look(&mut locked, place).await?;
            schema::migrator(MIGRATIONS)
                .run_direct(None, &mut *locked, false)
                .await
                .map_err(|error| OpenError::Damaged { place: place.to_owned(), what: error.to_string() })?;
            locked.commit().await.map_err(explained)
        }
    }
}

async fn look(connection: &mut SqliteConnection, place: &str) -> Result<Standing, OpenError> {
    let explained = |source: sqlx::Error| explain(place, source);
    let present: Vec<String> = sqlx::query_scalar("SELECT name FROM sqlite_schema WHERE type = 'table'")
        .fetch_all(&mut *connection)
        .await
        .map_err(explained)?;
    let applied = if present.iter().any(|table| table == schema::APPLIED) {
        sqlx::query("SELECT version, checksum, success FROM _sqlx_migrations ORDER BY version")
            .try_map(|row: sqlx::sqlite::SqliteRow| {
                Ok(Applied { version: row.try_get(0)?, checksum: row.try_get(1)?, succeeded: row.try_get(2)? })
            })
            .fetch_all(&mut *connection)
            .await
            .map_err(explained)?
    } else if present.is_empty() {
        Vec::new()
    } else {
        let what = "it holds tables of another program".to_owned();
        return Err(OpenError::Damaged { place: place.to_owned(), what });
    };
    schema::standing(place, MIGRATIONS, &applied, &present)
}

/// SQLite says what is wrong with a file by its result code (<https://sqlite.org/rescode.html>).
fn explain(place: &str, source: sqlx::Error) -> OpenError {
    let code = match &source {
        sqlx::Error::Database(error) => error.code().and_then(|code| code.parse::<i64>().ok()),
        _ => None,
    };
    // The low octet is the primary code: 11 is SQLITE_CORRUPT, 26 SQLITE_NOTADB.
    match code.map(|code| code & 0xFF) {
        Some(11 | 26) => OpenError::Damaged { place: place.to_owned(), what: source.to_string() },
        _ => OpenError::Unreachable { place: place.to_owned(), source },
    }
}

/// Whether somebody else holds the write lock.
pub(super) fn is_busy(error: &sqlx::Error) -> bool {
    let sqlx::Error::Database(error) = error else { return false };
    // 5 is SQLITE_BUSY.
    error.try_downcast_ref::<sqlx::sqlite::SqliteError>().is_some()
        && error.code().and_then(|code| code.parse::<i64>().ok()).is_some_and(|code| code & 0xFF == 5)
}

/// Watches `PRAGMA data_version`, which changes when another connection has committed, whichever process it is in.
pub(super) struct DataVersionWatch {
    options: SqliteConnectOptions,
    connection: Option<(SqliteConnection, i64)>,
}

impl DataVersionWatch {
    pub(super) fn new(path: &Path) -> Self {
        let options = SqliteConnectOptions::new().filename(path).create_if_missing(false);
        Self { options, connection: None }
    }

    async fn look(&mut self) -> Result<(), sqlx::Error> {
        loop {
            match &mut self.connection {
                None => {
                    let mut connection = connect(&self.options, READER_PRAGMAS).await?;
                    let version = data_version(&mut connection).await?;
                    self.connection = Some((connection, version));
                    // Whatever happened until now has not been looked at.
                    return Ok(());
                }
                Some((connection, last)) => {
                    tokio::time::sleep(POLL).await;
                    let version = data_version(connection).await?;
                    if version != *last {
                        *last = version;
                        return Ok(());
                    }
                }
            }
        }
    }
}

impl std::fmt::Debug for DataVersionWatch {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("DataVersionWatch").finish_non_exhaustive()
    }
}

impl Watch for DataVersionWatch {
    fn changed(&mut self) -> Answer<'_, ()> {
        async move {
            let looked = self.look().await;
            if looked.is_err() {
                self.connection = None;
            }
            looked.map_err(StoreUnavailable::from)
        }
        .boxed()
    }
}

async fn data_version(connection: &mut SqliteConnection) -> Result<i64, sqlx::Error> {
    sqlx::query_scalar::<Sqlite, i64>("PRAGMA data_version").fetch_one(connection).await
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::contract::Bench;

    #[tokio::test]
    async fn a_connection_whose_transaction_sqlite_ended_by_itself_is_not_used_again() {
        let bench = Bench::sqlite().await;
        let Engine::Sqlite { appender, .. } = &bench.store.engine else { panic!("it is on SQLite") };
        for _ in 0..3 {
            // What a full disk does, behind the driver's back.
            let mut native = appender.take().await.unwrap();
            let mut transaction = native.begin_with("BEGIN IMMEDIATE").await.unwrap();
            transaction.execute("ROLLBACK").await.unwrap();
            drop(transaction);
            appender.keep(native);
            let mut any = bench.store.begin_write().await.unwrap();
            any.execute("ROLLBACK").await.unwrap();
            drop(any);
        }
    }
}
