//! What is different with PostgreSQL: time-outs of the session, locks, and notification.
//!
//! Takes a URL, gives a [`Store`]. Every statement gives up before those who wait for it do.

use std::str::FromStr;
use std::sync::Arc;
use std::time::Duration;

use futures_util::FutureExt;
use sqlx::any::AnyConnectOptions;
use sqlx::postgres::{PgConnectOptions, PgConnection, PgListener, PgPoolOptions};
use sqlx::{Any, ColumnIndex, ConnectOptions, Connection, Database, Decode, Executor, PgPool, Postgres, Row, Type};

use super::appender::Appender;
use super::schema::{self, Applied, Migrations, NextStep, Standing};
use super::{ACQUIRE_TIMEOUT, Engine, Migrate, OpenError, READERS, Standby, Store, pool_options};
use crate::registry::StoreUnavailable;
use crate::registry::store::{Answer, Watch};

pub(super) const MIGRATIONS: Migrations = &[
    (1, "registry", include_str!("../../migrations/postgres/0001_registry.sql")),
    (2, "audit", include_str!("../../migrations/postgres/0002_audit.sql")),
    (3, "certificate_anchor", include_str!("../../migrations/postgres/0003_certificate_anchor.sql")),
    (4, "notice", include_str!("../../migrations/postgres/0004_notice.sql")),
    (5, "audit_chain", include_str!("../../migrations/postgres/0005_audit_chain.sql")),
    (6, "audit_index", include_str!("../../migrations/postgres/0006_audit_index.sql")),
    (7, "audit_forward", include_str!("../../migrations/postgres/0007_audit_forward.sql")),
    (8, "token_revocation", include_str!("../../migrations/postgres/0008_token_revocation.sql")),
    (9, "restoration", include_str!("../../migrations/postgres/0009_restoration.sql")),
    (10, "status_list", include_str!("../../migrations/postgres/0010_status_list.sql")),
    (11, "list_follower", include_str!("../../migrations/postgres/0011_list_follower.sql")),
    (12, "served_until", include_str!("../../migrations/postgres/0012_served_until.sql")),
    (13, "signing_key", include_str!("../../migrations/postgres/0013_signing_key.sql")),
    (14, "registry_import", include_str!("../../migrations/postgres/0014_registry_import.sql")),
    (15, "registry_head", include_str!("../../migrations/postgres/0015_registry_head.sql")),
    (16, "audit_index_places", include_str!("../../migrations/postgres/0016_audit_index_places.sql")),
];

/// The schema that they make.
pub(super) const SCHEMA: i64 = schema::known(MIGRATIONS);

/// Session settings, whatever the database has by default. Time-outs are shorter than the 2 s in which an audit record has
/// to be written or refused; rules are checked by statements that each see what was committed before them; and a
/// commit is on disk before it is acknowledged. Whether it has to be on a standby's as well is the database's to say, unless
/// that is [`Standby::Required`]: `synchronous_commit` stays what it is when the session begins, but for off. A reload of the
/// server's configuration changes nothing in a session that has set it. And nothing is compiled: a table that was never counted is
/// guessed to be so large that a statement which reads one row of it is compiled first, for a second of CPU each time.
const SESSION: &str = "SET statement_timeout = '1500ms'; SET lock_timeout = '1500ms'; \
                       SET idle_in_transaction_session_timeout = '5s'; SET client_min_messages = warning; \
                       SET default_transaction_isolation = 'read committed'; SET jit = off; \
                       SELECT set_config('synchronous_commit', CASE current_setting('synchronous_commit') \
                           WHEN 'off' THEN 'on' ELSE current_setting('synchronous_commit') END, false);";

/// Where a standby is required: every commit waits for its disk, or for more.
const WAIT_FOR_STANDBY: &str = "SELECT set_config('synchronous_commit', 'on', false) \
                                WHERE current_setting('synchronous_commit') <> 'remote_apply'";

/// Whom a change is told to. Notification comes with the commit of the change's transaction.
pub(super) const CHANNEL: &str = "countersign_registry";

/// How often to look without having been told.
const POLL: Duration = Duration::from_millis(500);

/// How many connections may write at the same time.
const WRITERS: u32 = 4;

pub(super) async fn open(url: &str, migrate: Migrate, standby: Standby) -> Result<Store, OpenError> {
    let unknown = |_| OpenError::UnknownUrl { url: "postgres://…".to_owned() };
    let options = PgConnectOptions::from_str(url).map_err(unknown)?;
    let any_options = AnyConnectOptions::from_str(url).map_err(unknown)?;
    // No password and no user: this is printed.
    let place = format!(
        "postgres://{}:{}/{}",
        options.get_host(),
        options.get_port(),
        options.get_database().unwrap_or_default()
    );
    let unreachable = |source: sqlx::Error| OpenError::Unreachable { place: place.clone(), source };

    let connected = tokio::time::timeout(ACQUIRE_TIMEOUT, options.connect()).await;
    let mut connection = connected.unwrap_or_else(|_| Err(sqlx::Error::PoolTimedOut)).map_err(unreachable)?;
    check(&mut connection, &place, migrate).await?;
    connection.close().await.map_err(unreachable)?;

    let pool = PgPoolOptions::new()
        .max_connections(WRITERS)
        .acquire_timeout(ACQUIRE_TIMEOUT)
        .after_connect(move |connection, _| async move { begin_session::<Postgres>(connection, standby).await }.boxed())
        .after_release(|connection, _| is_good(connection).boxed())
        .connect_lazy_with(options.clone());
    let appender = Appender::new(move || {
        let options = options.clone();
        let connecting = async move {
            let mut connection = options.connect().await?;
            begin_session::<Postgres>(&mut connection, standby).await?;
            Ok(connection)
        };
        connecting.boxed()
    });
    let any = |connections: u32| {
        pool_options(connections)
            .after_connect(move |connection, _| async move { begin_session::<Any>(connection, standby).await }.boxed())
            .after_release(|connection, _| is_good(connection).boxed())
            .connect_lazy_with(any_options.clone())
    };
    Ok(Store {
        engine: Engine::Postgres { pool, appender: Arc::new(appender) },
        readers: any(READERS),
        writers: any(WRITERS),
        turn: None,
        recent: Arc::default(),
        standby,
    })
}

/// Makes a connection one to work with. A standby's is none: what it has is as old as it is behind, and whoever may read
/// there might go on by what was revoked since. A primary becomes a standby only by a restart, which ends its connections.
async fn begin_session<D: Database>(connection: &mut D::Connection, standby: Standby) -> Result<(), sqlx::Error>
where
    for<'a> &'a mut D::Connection: Executor<'a, Database = D>,
    bool: Type<D> + for<'a> Decode<'a, D>,
    usize: ColumnIndex<D::Row>,
{
    (&mut *connection).execute(SESSION).await?;
    if standby == Standby::Required {
        (&mut *connection).execute(WAIT_FOR_STANDBY).await?;
    }
    let is_standby: bool = connection.fetch_one(IS_STANDBY).await?.try_get(0)?;
    if is_standby { Err(sqlx::Error::Configuration(STANDBY.into())) } else { Ok(()) }
}

/// Whether a connection that is given back answers. Whoever gave it back may have left a statement behind, which ends by its
/// time-out. One that was forgotten on the way never answers, and sqlx by itself waits for it for good, in the place of one that
/// would: where all were in use when that happened there was none left. sqlx asks the same once more, without an end, right after:
/// one more round trip for each connection that is given back.
async fn is_good(connection: &mut impl Connection) -> Result<bool, sqlx::Error> {
    let answered = tokio::time::timeout(GIVEN_BACK, connection.ping()).await;
    answered.unwrap_or(Err(sqlx::Error::PoolTimedOut)).map(|()| true)
}

/// Longer than a statement of a session may take; what may take longer gives its connection back when it is done.
const GIVEN_BACK: Duration = Duration::from_secs(2);

const IS_STANDBY: &str = "SELECT pg_is_in_recovery()";
const STANDBY: &str = "this PostgreSQL server is a standby: authority is read from the primary alone";

/// Checks the schema and, where asked, brings it up to date. The migrator takes an advisory lock first, and looks again
/// under it.
async fn check(connection: &mut PgConnection, place: &str, migrate: Migrate) -> Result<(), OpenError> {
    let unreachable = |source: sqlx::Error| OpenError::Unreachable { place: place.to_owned(), source };
    let encoding: String =
        sqlx::query_scalar("SHOW server_encoding").fetch_one(&mut *connection).await.map_err(unreachable)?;
    if encoding != "UTF8" {
        // Names in certificates are in any script. One that cannot be written would refuse the whole batch it is in.
        return Err(OpenError::Encoding { place: place.to_owned(), encoding });
    }
    let is_standby: bool = sqlx::query_scalar(IS_STANDBY).fetch_one(&mut *connection).await.map_err(unreachable)?;
    if is_standby {
        return Err(OpenError::Standby { place: place.to_owned() });
    }
    let standing = look(connection, place).await?;
    match schema::next_step(place, MIGRATIONS, standing, migrate)? {
        NextStep::Nothing => Ok(()),
        NextStep::Migrate => {
            // An index over a million rows takes longer than anything else may; a lock is waited for no longer than ever. The
            // connection serves nothing afterwards.
            connection
                .execute("SET client_min_messages = warning; SET statement_timeout = 0")
                .await
                .map_err(unreachable)?;
            schema::migrator(MIGRATIONS)
                .run_direct(None, connection, false)
                .await
                .map_err(|error| OpenError::Damaged { place: place.to_owned(), what: error.to_string() })
        }
    }
}

async fn look(connection: &mut PgConnection, place: &str) -> Result<Standing, OpenError> {
    let unreachable = |source: sqlx::Error| OpenError::Unreachable { place: place.to_owned(), source };
    let present: Vec<String> =
        sqlx::query_scalar("SELECT tablename::text FROM pg_catalog.pg_tables WHERE schemaname = current_schema()")
            .fetch_all(&mut *connection)
            .await
            .map_err(unreachable)?;
    let applied = if present.iter().any(|table| table == schema::APPLIED) {
        sqlx::query("SELECT version, checksum, success FROM _sqlx_migrations ORDER BY version")
            .try_map(|row: sqlx::postgres::PgRow| {
                Ok(Applied { version: row.try_get(0)?, checksum: row.try_get(1)?, succeeded: row.try_get(2)? })
            })
            .fetch_all(&mut *connection)
            .await
            .map_err(unreachable)?
    } else {
        Vec::new()
    };
    schema::standing(place, MIGRATIONS, &applied, &present)
}

/// Waits for a notification, and looks every now and then where none came: one can be lost with its connection.
#[derive(Debug)]
pub(super) struct NotificationWatch {
    pool: PgPool,
    listener: Option<PgListener>,
}

impl NotificationWatch {
    /// Listens on a connection of its own: those of `pool` are for work.
    pub(super) fn new(pool: &PgPool) -> Self {
        let options = PgConnectOptions::clone(&pool.connect_options());
        let pool = PgPoolOptions::new()
            .max_connections(1)
            .acquire_timeout(ACQUIRE_TIMEOUT)
            .idle_timeout(None)
            .max_lifetime(None)
            .connect_lazy_with(options);
        Self { pool, listener: None }
    }

    async fn wait(&mut self) -> Result<(), sqlx::Error> {
        match &mut self.listener {
            None => {
                let listening = async {
                    let mut listener = PgListener::connect_with(&self.pool).await?;
                    listener.listen(CHANNEL).await?;
                    Ok::<_, sqlx::Error>(listener)
                };
                // A network that swallows everything must not keep the watcher from looking.
                let listening = tokio::time::timeout(ACQUIRE_TIMEOUT, listening).await;
                self.listener = Some(listening.unwrap_or(Err(sqlx::Error::PoolTimedOut))?);
                // Whatever happened until now has not been looked at.
                Ok(())
            }
            // `recv` connects and listens again by itself where the connection is lost.
            Some(listener) => match tokio::time::timeout(POLL, listener.recv()).await {
                Ok(received) => received.map(drop),
                Err(_) => Ok(()),
            },
        }
    }
}

impl Watch for NotificationWatch {
    fn changed(&mut self) -> Answer<'_, ()> {
        async move {
            let waited = self.wait().await;
            if waited.is_err() {
                self.listener = None;
            }
            waited.map_err(StoreUnavailable::from)
        }
        .boxed()
    }
}
