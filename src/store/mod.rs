//! SQL and nothing else.
//!
//! [`open`] takes a URL, gives a [`Store`] whose schema is the one this build was made for. The store's other files
//! implement the traits that stand beside the domain, with SQL that both engines accept; what really differs is in
//! `sqlite.rs` and `postgres.rs`. It knows no rule of the domain but the ones only a transaction can keep.

use std::path::{Path, PathBuf};
use std::sync::{Arc, Once};
use std::time::Duration;

use futures_util::future::BoxFuture;
use sqlx::any::AnyPoolOptions;
use sqlx::{Any, AnyPool, Executor, PgConnection, PgPool, SqliteConnection, SqlitePool, Transaction};
use tokio::sync::{Mutex, OwnedMutexGuard};

use appender::Appender;
use audit_index::IndexFile;

pub use durability::{Durability, Standby, Weakness};

use crate::audit::AppendRefusal;
use crate::registry::{EditRefusal, StoreUnavailable};

mod appender;

mod audit;

mod audit_forward;

mod audit_index;

mod audit_reading;

mod backup;

mod durability;

mod expiry;

mod followers;

mod postgres;

mod registry;

mod schema;

mod signing_keys;

mod sqlite;

mod status_list;

#[cfg(test)]
pub(crate) mod contract;

/// How long a connection is waited for: shorter than the 2 s in which an audit record has to be written or refused.
const ACQUIRE_TIMEOUT: Duration = Duration::from_millis(1_800);

/// How long closing may take. A connection that a network has swallowed never says good-bye.
const CLOSING: Duration = Duration::from_secs(5);

/// Reading or writing everything takes longer than anything else may.
const PATIENT: &str =
    "SET LOCAL statement_timeout = 0; SET LOCAL idle_in_transaction_session_timeout = 0; SET LOCAL lock_timeout = 0;";

/// How many connections read at the same time.
const READERS: u32 = 4;

/// A database with the schema of this build. Clones share its connections.
#[derive(Clone, Debug)]
pub struct Store {
    engine: Engine,
    /// SQL that both engines accept: reading.
    readers: AnyPool,
    /// SQL that both engines accept: writing.
    writers: AnyPool,
    /// Whose turn it is to write. SQLite lets waiting writers race, and one that commits all the time wins; here they
    /// queue. PostgreSQL needs no such queue, and there nobody waits for it.
    turn: Option<Arc<Mutex<()>>>,
    /// What has just been appended to the audit log, for its index.
    recent: Arc<audit_index::Recent>,
    /// Whether it is served only while no fail-over can lose what was acknowledged.
    standby: Standby,
}

/// The engine, with its own kind of connections for what really differs: bulk inserts, locks, notification.
#[derive(Clone, Debug)]
enum Engine {
    Postgres {
        pool: PgPool,
        /// Appends to the audit log.
        appender: Arc<Appender<PgConnection>>,
    },
    Sqlite {
        path: PathBuf,
        /// The index of the audit log: a file of its own.
        index: Arc<IndexFile>,
        /// Appends to the audit log. Begin with [`Store::turn_to_write`].
        appender: Arc<Appender<SqliteConnection>>,
        /// Read-only connections.
        readers: SqlitePool,
        /// What is written ahead of the file.
        write_ahead: Arc<sqlite::WriteAhead>,
    },
}

/// A writer's turn, until it is dropped.
type Turn = Option<OwnedMutexGuard<()>>;

/// Whether to bring an older schema up to date.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Migrate {
    /// Create or update it, under a lock: `serve`, `init`, `quickstart`.
    Apply,
    /// Refuse one that is not up to date: every other command.
    Check,
}

/// Why a database cannot be used. Each is one line that says what to do.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// The schema or the file is not what this program wrote.
    #[error(
        "the database at {place} is damaged ({what}): restore it from a backup, this program changes nothing in it"
    )]
    Damaged {
        /// Which database.
        place: String,
        /// What is wrong with it.
        what: String,
    },
    /// It cannot write every letter.
    #[error(
        "the database at {place} has encoding {encoding}, which cannot write every name: make one with ENCODING 'UTF8'"
    )]
    Encoding {
        /// Which database.
        place: String,
        /// The encoding it has.
        encoding: String,
    },
    /// There is nothing there.
    #[error("there is no database at {place}: run `countersign init` first")]
    Missing {
        /// Which database.
        place: String,
    },
    /// Written by a later release.
    #[error(
        "the database at {place} has schema {found}, newer than the {known} this program knows: run the release that wrote it, or a later one"
    )]
    SchemaNewer {
        /// Which database.
        place: String,
        /// The schema it has.
        found: i64,
        /// The latest this build knows.
        known: i64,
    },
    /// Written by an earlier release.
    #[error(
        "the database at {place} has schema {found}, this program needs {known}: start `countersign serve` of this release, or run `countersign init`, to bring it up to date"
    )]
    SchemaOlder {
        /// Which database.
        place: String,
        /// The schema it has.
        found: i64,
        /// The latest this build knows.
        known: i64,
    },
    /// It follows another server.
    #[error("the database at {place} is a standby: name the primary, authority is never read from a replica")]
    Standby {
        /// Which database.
        place: String,
    },
    /// It does not answer.
    #[error("the database at {place} cannot be opened: {source}")]
    Unreachable {
        /// Which database.
        place: String,
        /// What the driver says.
        source: sqlx::Error,
    },
    /// Not a URL of a database.
    #[error("{url:?} names no database: write sqlite:PATH or postgres://USER@HOST/DATABASE")]
    UnknownUrl {
        /// What was given, without a password.
        url: String,
    },
}

/// Opens the database at `url`: `sqlite:PATH` or `postgres://…`.
///
/// # Errors
/// [`OpenError`].
pub async fn open(url: &str, migrate: Migrate) -> Result<Store, OpenError> {
    open_with(url, migrate, Standby::Optional).await
}

/// The same, where a standby may be required. SQLite has none: [`Store::durability`] tells.
///
/// # Errors
/// [`OpenError`].
pub async fn open_with(url: &str, migrate: Migrate, standby: Standby) -> Result<Store, OpenError> {
    static DRIVERS: Once = Once::new();
    DRIVERS.call_once(sqlx::any::install_default_drivers);
    if let Some(path) = url.strip_prefix("sqlite:") {
        let path = path.strip_prefix("//").unwrap_or(path);
        if path.is_empty() || path.starts_with(':') {
            return Err(OpenError::UnknownUrl { url: url.to_owned() });
        }
        Ok(Store { standby, ..sqlite::open(Path::new(path), migrate).await? })
    } else if url.starts_with("postgres://") || url.starts_with("postgresql://") {
        postgres::open(url, migrate, standby).await
    } else {
        let scheme = url.split_once(':').map_or("", |(scheme, _)| scheme);
        Err(OpenError::UnknownUrl { url: format!("{scheme}:…") })
    }
}

impl Store {
    /// Waits until it is this writer's turn. Hold what it gives until the transaction has ended.
    async fn turn_to_write(&self) -> Turn {
        match &self.turn {
            Some(turn) => Some(Arc::clone(turn).lock_owned().await),
            None => None,
        }
    }

    /// Begins a transaction that writes, in the SQL both engines accept.
    async fn begin_write(&self) -> Result<Transaction<'static, Any>, sqlx::Error> {
        match &self.engine {
            // A deferred transaction that turns into a writer late fails at once where another has written meanwhile.
            Engine::Sqlite { .. } => {
                let mut tried = 1;
                loop {
                    match self.writers.begin_with("BEGIN IMMEDIATE").await {
                        Err(error) if tried < sqlite::BEGIN_TRIES && sqlite::is_busy(&error) => tried += 1,
                        begun => return begun,
                    }
                }
            }
            Engine::Postgres { .. } => self.writers.begin().await,
        }
    }

    /// Begins a transaction that sees everything as it is at one moment, for as long as it takes.
    async fn begin_look(&self) -> Result<Transaction<'static, Any>, sqlx::Error> {
        match &self.engine {
            Engine::Postgres { .. } => {
                let mut transaction =
                    self.readers.begin_with("BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY").await?;
                transaction.execute(PATIENT).await?;
                Ok(transaction)
            }
            // Sees the file as it is at the first statement; a writer goes on beside it in the WAL.
            Engine::Sqlite { .. } => self.readers.begin_with("BEGIN DEFERRED").await,
        }
    }

    /// Whether servers on several machines can have it open.
    pub(crate) const fn is_shared(&self) -> bool {
        matches!(self.engine, Engine::Postgres { .. })
    }

    /// Closes every connection; what is under way is finished first, if it is in time.
    pub async fn close(&self) {
        // Side by side, so that each is told, whichever of them has to be waited for.
        let own = async {
            match &self.engine {
                Engine::Postgres { pool, appender } => {
                    tokio::join!(pool.close(), appender.close());
                }
                Engine::Sqlite { appender, readers, index, write_ahead, .. } => {
                    let appended = async {
                        // Whoever appends has it until the batch is written.
                        let _turn = self.turn_to_write().await;
                        appender.close().await;
                    };
                    tokio::join!(index.close(), readers.close(), write_ahead.close(), appended);
                }
            }
        };
        let closing = async { tokio::join!(self.readers.close(), self.writers.close(), own) };
        if tokio::time::timeout(CLOSING, closing).await.is_err() {
            tracing::warn!("not every connection to the database was closed in time: it is slow, or nobody answers");
        }
    }
}

/// What `work` answers, if it does so in time: a network that swallows everything keeps nobody waiting.
fn in_time<'a, T: Send + 'a, E: From<StoreUnavailable> + Send + 'a>(
    patience: Duration,
    work: impl Future<Output = Result<T, E>> + Send + 'a,
) -> BoxFuture<'a, Result<T, E>> {
    Box::pin(async move {
        let answered = tokio::time::timeout(patience, work).await;
        answered.unwrap_or_else(|_| Err(StoreUnavailable::because("no answer in time").into()))
    })
}

/// Options every pool has in common.
fn pool_options(connections: u32) -> AnyPoolOptions {
    AnyPoolOptions::new()
        .max_connections(connections)
        .acquire_timeout(ACQUIRE_TIMEOUT)
        .idle_timeout(None)
        .max_lifetime(None)
}

impl From<sqlx::Error> for StoreUnavailable {
    fn from(error: sqlx::Error) -> Self {
        Self::because(error)
    }
}

impl From<sqlx::Error> for EditRefusal {
    fn from(error: sqlx::Error) -> Self {
        Self::Unavailable(error.into())
    }
}

impl From<sqlx::Error> for AppendRefusal {
    fn from(error: sqlx::Error) -> Self {
        Self::Unavailable(error.into())
    }
}
