//! The audit log's storage: batches through each engine's own connections, reading in SQL that both accept.
//!
//! Takes batches, gives what became of them: which assertions had been used before, where the chain is, and the registry's
//! version read as late as each engine allows. A chain is written under its latest lease only, which is looked at in the
//! transaction that writes. It knows nothing of what a record says.

use std::collections::HashSet;
use std::sync::{Arc, LazyLock};

use countersign_resource_server::time::UnixTime;
use futures_util::future::BoxFuture;
use sha2::{Digest, Sha256};
use sqlx::any::AnyRow;
use sqlx::{
    AnyConnection, AssertSqlSafe, Connection, FromRow, Postgres, QueryBuilder, Row, Sqlite, SqliteConnection,
    Transaction,
};

use super::backup::note_served_from;
use super::{Engine, Store, sqlite};
use crate::audit::chain::{ChainId, Head, LogId, Position, RecordHash};
use crate::audit::checkpoint::{CheckpointStore, StoredCheckpoint};
use crate::audit::index::TermKind;
use crate::audit::query::{self, Filter};
use crate::audit::{
    AppendRefusal, Appended, AssertionUse, AuditEntry, AuditStore, Batch, HistoryLeft, HistoryRow, Lease, Recovered,
    RequestId, Sealed,
};
use crate::backup::Standing;
use crate::registry::{RegistryVersion, StoreUnavailable};

impl AuditStore for Store {
    fn lease<'a>(
        &'a self,
        holder: &'a str,
        now: UnixTime,
        until: UnixTime,
    ) -> BoxFuture<'a, Result<Lease, StoreUnavailable>> {
        Box::pin(async move {
            loop {
                let _turn = self.turn_to_write().await;
                let mut transaction = self.begin_write().await?;
                // Waits for whoever is writing under the lease before it, and nobody writes under that one afterwards.
                let taken = sqlx::query(
                    "UPDATE audit_chain SET lease = lease + 1, holder = $1, leased_until = $2 WHERE leased_until <= $3 \
                     AND id = (SELECT MIN(id) FROM audit_chain WHERE leased_until <= $3) RETURNING id, lease",
                )
                .bind(holder)
                .bind(until.as_millis())
                .bind(now.as_millis())
                .fetch_optional(&mut *transaction)
                .await?;
                if let Some(taken) = taken {
                    let chain = chain_id(taken.try_get(0)?)?;
                    let lease = Lease { number: taken.try_get(1)?, head: head(&mut transaction, chain).await? };
                    transaction.commit().await?;
                    return Ok(lease);
                }
                let (free, next): (i64, i64) = sqlx::query_as(
                    "SELECT COUNT(CASE WHEN leased_until <= $1 THEN 1 END), COALESCE(MAX(id), 0) + 1 FROM audit_chain",
                )
                .bind(now.as_millis())
                .fetch_one(&mut *transaction)
                .await?;
                if free > 0 {
                    // Another node took the one that was looked for, and there are more.
                    continue;
                }
                let head = Head::before_first(log_id(&mut transaction).await?, chain_id(next)?);
                let made = sqlx::query(
                    "INSERT INTO audit_chain (id, lease, holder, leased_until, cut_sequence, cut_hash) \
                     VALUES ($1, 1, $2, $3, 0, $4) ON CONFLICT (id) DO NOTHING",
                )
                .bind(next)
                .bind(holder)
                .bind(until.as_millis())
                .bind(head.hash.octets().as_slice())
                .execute(&mut *transaction)
                .await?;
                transaction.commit().await?;
                if made.rows_affected() > 0 {
                    return Ok(Lease { number: 1, head });
                }
                // Another node was faster: one number more.
            }
        })
    }

    fn may_serve(&self, known: RegistryVersion) -> BoxFuture<'_, Result<(), StoreUnavailable>> {
        Box::pin(async move {
            match self.restoration_standing().await? {
                Standing::Served => {
                    let version: i64 =
                        sqlx::query_scalar("SELECT version FROM registry_state").fetch_one(&self.readers).await?;
                    if version < known.0 {
                        return Err(StoreUnavailable::because("an older store was put in the place of this one"));
                    }
                    self.is_as_durable_as_wanted().await
                }
                Standing::Loading => Err(StoreUnavailable::because(Standing::HALF_FILLED)),
                Standing::Unconfirmed(_) => Err(StoreUnavailable::because(Standing::NOT_CONFIRMED)),
            }
        })
    }

    fn renew(&self, chain: ChainId, lease: i64, until: UnixTime) -> BoxFuture<'_, Result<bool, StoreUnavailable>> {
        Box::pin(async move {
            // Where that cannot be said it is not so.
            if !matches!(self.lacks().await, Ok(None)) {
                return Ok(false);
            }
            let _turn = self.turn_to_write().await;
            let mut transaction = self.begin_write().await?;
            let renewed = sqlx::query("UPDATE audit_chain SET leased_until = $3 WHERE id = $1 AND lease = $2")
                .bind(chain.number())
                .bind(lease)
                .bind(until.as_millis())
                .execute(&mut *transaction)
                .await?;
            transaction.commit().await?;
            Ok(renewed.rows_affected() > 0)
        })
    }

    fn serves_until(&self, now: UnixTime, until: UnixTime) -> BoxFuture<'_, Result<UnixTime, StoreUnavailable>> {
        Box::pin(async move {
            let _turn = self.turn_to_write().await;
            let mut transaction = self.begin_write().await?;
            note_served_from(&mut transaction, now, until).await?;
            // Never back, where a clock is: what was issued before that lives on.
            sqlx::query("UPDATE audit_log SET served_until = $1 WHERE served_until < $1")
                .bind(until.as_millis())
                .execute(&mut *transaction)
                .await?;
            let noted: i64 =
                sqlx::query_scalar("SELECT served_until FROM audit_log").fetch_one(&mut *transaction).await?;
            transaction.commit().await?;
            Ok(UnixTime::from_millis(noted))
        })
    }

    fn recover(&self, doubt: Arc<Batch>) -> BoxFuture<'_, Result<Recovered, StoreUnavailable>> {
        Box::pin(async move {
            self.is_as_durable_as_wanted().await?;
            let chain = doubt.lease.head.chain();
            let _turn = self.turn_to_write().await;
            let mut transaction = self.begin_write().await?;
            // What is still being written is waited for, and what has not begun yet never will.
            let taken: Option<i64> = sqlx::query_scalar(
                "UPDATE audit_chain SET lease = lease + 1 WHERE id = $1 AND lease = $2 RETURNING lease",
            )
            .bind(chain.number())
            .bind(doubt.lease.number)
            .fetch_optional(&mut *transaction)
            .await?;
            let first: Option<String> = sqlx::query_scalar("SELECT body FROM audit_record WHERE position = $1")
                .bind(doubt.lease.head.position.number() + 1)
                .fetch_optional(&mut *transaction)
                .await?;
            let lease = match taken {
                Some(number) => Some(Lease { number, head: head(&mut transaction, chain).await? }),
                None => None,
            };
            transaction.commit().await?;
            Ok(Recovered { lease, is_written: first.is_some_and(|body| doubt.may_begin_with(&body)) })
        })
    }

    fn append(&self, batch: Arc<Batch>) -> BoxFuture<'static, Result<Appended, AppendRefusal>> {
        let store = self.clone();
        Box::pin(async move {
            let appended = match &store.engine {
                Engine::Sqlite { appender, .. } => {
                    let _turn = store.turn_to_write().await;
                    let mut connection = appender.take().await?;
                    let appended = append_sqlite(&mut connection, &batch).await;
                    if !matches!(appended, Err(AppendRefusal::Unavailable(_))) {
                        appender.keep(connection);
                    }
                    appended
                }
                Engine::Postgres { appender, .. } => {
                    let mut connection = appender.take().await?;
                    let appended = append_postgres(&mut connection, &batch).await;
                    if !matches!(appended, Err(AppendRefusal::Unavailable(_))) {
                        appender.keep(connection);
                    }
                    appended
                }
            }?;
            store.recent.note(batch, &appended);
            Ok(appended)
        })
    }

    fn history_left(&self, limit: u32) -> BoxFuture<'_, Result<HistoryLeft, StoreUnavailable>> {
        Box::pin(async move {
            let mut connection = self.readers.acquire().await?;
            let after: (i64, i64) = sqlx::query_as("SELECT history_version, history_step FROM audit_log")
                .fetch_one(&mut *connection)
                .await?;
            // Versions are taken from one locked row: what becomes visible later has a later one.
            let rows = sqlx::query(
                "SELECT version, step, at, actor, action, subject, record_before, record_after, why FROM history \
                 WHERE version > $1 OR (version = $1 AND step > $2) ORDER BY version, step LIMIT $3",
            )
            .bind(after.0)
            .bind(after.1)
            .bind(i64::from(limit))
            .fetch_all(&mut *connection)
            .await?;
            let rows = rows.iter().map(history_row).collect::<Result<_, _>>()?;
            Ok(HistoryLeft { after, rows })
        })
    }

    fn forget_assertions(&self, before: UnixTime) -> BoxFuture<'_, Result<(), StoreUnavailable>> {
        Box::pin(async move {
            loop {
                let _turn = self.turn_to_write().await;
                let mut transaction = self.begin_write().await?;
                let forgotten = sqlx::query(
                    "DELETE FROM used_assertion WHERE digest IN \
                     (SELECT digest FROM used_assertion WHERE expires_at < $1 ORDER BY expires_at LIMIT 1000)",
                )
                .bind(before.as_millis())
                .execute(&mut *transaction)
                .await?;
                transaction.commit().await?;
                if forgotten.rows_affected() < 1_000 {
                    return Ok(());
                }
            }
        })
    }

    fn recent(&self, limit: u32) -> BoxFuture<'_, Result<Vec<AuditEntry>, StoreUnavailable>> {
        Box::pin(async move {
            let mut entries = Vec::new();
            for chain in self.chain_ids().await? {
                let (first, last) = places(chain);
                let rows: Vec<EntryRow> = sqlx::query_as(
                    "SELECT position, at, hash, body FROM audit_record WHERE position BETWEEN $1 AND $2 \
                     ORDER BY position DESC LIMIT $3",
                )
                .bind(first)
                .bind(last)
                .bind(i64::from(limit))
                .fetch_all(&self.readers)
                .await?;
                entries.extend(rows.into_iter().map(|row| row.0));
            }
            entries.sort_by_key(|entry| std::cmp::Reverse((entry.at, entry.position)));
            entries.truncate(usize::try_from(limit).unwrap_or(usize::MAX));
            Ok(entries)
        })
    }

    fn of_request<'a>(&'a self, request: &'a RequestId) -> BoxFuture<'a, Result<Vec<AuditEntry>, StoreUnavailable>> {
        Box::pin(async move {
            let filter = Filter::naming(TermKind::Request, request.as_str());
            Ok(query::search(self, &filter, MOST_OF_REQUEST).await?.entries)
        })
    }
}

/// A request has a decision for each time it was taken, and what became of them.
const MOST_OF_REQUEST: usize = 1_000;

impl CheckpointStore for Store {
    fn last_checkpoint(&self) -> BoxFuture<'_, Result<Option<StoredCheckpoint>, StoreUnavailable>> {
        Box::pin(async move {
            let last: Option<(i64, i64, String)> =
                sqlx::query_as("SELECT number, at, statement FROM audit_checkpoint ORDER BY number DESC LIMIT 1")
                    .fetch_optional(&self.readers)
                    .await?;
            let stored =
                |(number, at, statement)| StoredCheckpoint { number, at: UnixTime::from_millis(at), statement };
            Ok(last.map(stored))
        })
    }

    fn heads(&self) -> BoxFuture<'_, Result<(LogId, Vec<Head>), StoreUnavailable>> {
        Box::pin(async move {
            let chains = self.chain_ids().await?;
            let mut connection = self.readers.acquire().await?;
            let log = log_id(&mut connection).await?;
            let mut heads = Vec::with_capacity(chains.len());
            for chain in chains {
                heads.push(head(&mut connection, chain).await?);
            }
            Ok((log, heads))
        })
    }

    fn stands_behind<'a>(&'a self, number: i64, statement: &'a str) -> BoxFuture<'a, Result<bool, StoreUnavailable>> {
        Box::pin(async move {
            let (first, same): (Option<i64>, i64) = sqlx::query_as(
                "SELECT MIN(number), COUNT(CASE WHEN number = $1 AND statement = $2 THEN 1 END) FROM audit_checkpoint",
            )
            .bind(number)
            .bind(statement)
            .fetch_one(&self.readers)
            .await?;
            Ok(same > 0 || first.is_some_and(|first| number < first))
        })
    }

    fn restored_at(&self) -> BoxFuture<'_, Result<Option<UnixTime>, StoreUnavailable>> {
        Box::pin(async move { Ok(self.all_restorations().await?.into_iter().map(|restoration| restoration.at).max()) })
    }

    fn put_checkpoint<'a>(&'a self, checkpoint: &'a StoredCheckpoint) -> BoxFuture<'a, Result<bool, StoreUnavailable>> {
        Box::pin(async move {
            let _turn = self.turn_to_write().await;
            let mut transaction = self.begin_write().await?;
            // A number that was removed does not come back, whatever a node has thought of for how long.
            let put = sqlx::query(
                "INSERT INTO audit_checkpoint (number, at, statement) \
                 SELECT CAST($1 AS BIGINT), CAST($2 AS BIGINT), CAST($3 AS TEXT) \
                 WHERE $1 = (SELECT COALESCE(MAX(number), 0) + 1 FROM audit_checkpoint) ON CONFLICT (number) DO NOTHING",
            )
            .bind(checkpoint.number)
            .bind(checkpoint.at.as_millis())
            .bind(&checkpoint.statement)
            .execute(&mut *transaction)
            .await?;
            transaction.commit().await?;
            Ok(put.rows_affected() > 0)
        })
    }
}

impl Store {
    async fn chain_ids(&self) -> Result<Vec<ChainId>, StoreUnavailable> {
        let ids: Vec<i64> =
            sqlx::query_scalar("SELECT id FROM audit_chain ORDER BY id").fetch_all(&self.readers).await?;
        Ok(ids.into_iter().map(chain_id).collect::<Result<_, _>>()?)
    }
}

/// The places that the records of a chain may have: the first and the last.
fn places(chain: ChainId) -> (i64, i64) {
    let before_first = chain.number() << 40;
    (before_first + 1, before_first + (1 << 40) - 1)
}

/// Where a chain is.
async fn head(connection: &mut AnyConnection, chain: ChainId) -> Result<Head, sqlx::Error> {
    let (first, last) = places(chain);
    let latest: Option<(i64, Vec<u8>)> = sqlx::query_as(
        "SELECT position, hash FROM audit_record WHERE position BETWEEN $1 AND $2 ORDER BY position DESC LIMIT 1",
    )
    .bind(first)
    .bind(last)
    .fetch_optional(&mut *connection)
    .await?;
    let (position, hash) = match latest {
        Some(latest) => latest,
        None => {
            let cut: (i64, Vec<u8>) = sqlx::query_as("SELECT cut_sequence, cut_hash FROM audit_chain WHERE id = $1")
                .bind(chain.number())
                .fetch_one(&mut *connection)
                .await?;
            {
                let position = cut.0.checked_add(first - 1).ok_or_else(|| damaged("a cut is out of its chain"))?;
                (position, cut.1)
            }
        }
    };
    let position = Position::from_number(position).filter(|position| position.chain() == chain);
    Ok(Head {
        position: position.ok_or_else(|| damaged("a position is out of its chain"))?,
        hash: RecordHash::from_octets(&hash).ok_or_else(|| damaged("a hash has not 32 octets"))?,
    })
}

async fn log_id(connection: &mut AnyConnection) -> Result<LogId, sqlx::Error> {
    let id: String = sqlx::query_scalar("SELECT id FROM audit_log").fetch_one(connection).await?;
    LogId::parse(&id).ok_or_else(|| damaged("the log's id has not 32 hexadecimal digits"))
}

pub(super) fn chain_id(number: i64) -> Result<ChainId, sqlx::Error> {
    ChainId::new(number).ok_or_else(|| damaged("there is no chain of that number"))
}

pub(super) fn damaged(what: &str) -> sqlx::Error {
    sqlx::Error::Decode(format!("the audit log is damaged: {what}").into())
}

pub(super) fn history_row(row: &AnyRow) -> Result<HistoryRow, sqlx::Error> {
    Ok(HistoryRow {
        place: (row.try_get(0)?, row.try_get(1)?),
        at: UnixTime::from_millis(row.try_get(2)?),
        actor: row.try_get(3)?,
        action: row.try_get(4)?,
        subject: row.try_get(5)?,
        before: row.try_get(6)?,
        after: row.try_get(7)?,
        why: row.try_get(8)?,
    })
}

pub(super) struct EntryRow(pub(super) AuditEntry);

impl FromRow<'_, AnyRow> for EntryRow {
    fn from_row(row: &AnyRow) -> Result<Self, sqlx::Error> {
        let hash: Vec<u8> = row.try_get(2)?;
        Ok(Self(AuditEntry {
            position: Position::from_number(row.try_get(0)?).ok_or_else(|| damaged("a position is of no chain"))?,
            at: UnixTime::from_millis(row.try_get(1)?),
            hash: RecordHash::from_octets(&hash).ok_or_else(|| damaged("a hash has not 32 octets"))?,
            body: row.try_get(3)?,
        }))
    }
}

/// The most rows that share one statement.
const CHUNK: usize = 64;

/// The last statements of a batch, by the number of rows that are left: these rows, then the registry's version and the
/// chain's latest lease. One text for each number, so that each is prepared once and found again; two statements in one,
/// because a connection to SQLite is another thread, and each call costs two switches.
static LAST: LazyLock<[Arc<str>; CHUNK]> = LazyLock::new(|| {
    std::array::from_fn(|rows| {
        let insert = if rows == 0 { String::new() } else { format!("{}; ", insert_statement(rows)) };
        format!("{insert}SELECT version, (SELECT lease FROM audit_chain WHERE id = ?) FROM registry_state").into()
    })
});

/// A full chunk.
static FULL: LazyLock<Arc<str>> = LazyLock::new(|| insert_statement(CHUNK).into());

fn insert_statement(rows: usize) -> String {
    let mut insert: QueryBuilder<Sqlite> = QueryBuilder::new("INSERT INTO audit_record (position, at, hash, body) ");
    insert.push_values(0..rows, |mut row, _| {
        row.push("?").push("?").push("?").push("?");
    });
    insert.sql().as_str().to_owned()
}

/// A batch of decisions and nothing else, by how many rows follow the first: one statement that is a transaction of its own, writes under
/// the chain's lease alone, and is followed by how many rows it wrote and the registry's version.
static WHOLE: LazyLock<[Arc<str>; CHUNK]> = LazyLock::new(|| {
    std::array::from_fn(|more| {
        let mut insert: QueryBuilder<Sqlite> =
            QueryBuilder::new("INSERT INTO audit_record (position, at, hash, body) SELECT * FROM (");
        insert.push_values(0..=more, |mut row, _| {
            row.push("?").push("?").push("?").push("?");
        });
        insert.push(
            ") WHERE (SELECT lease FROM audit_chain WHERE id = ?) = ?; SELECT version, changes() FROM registry_state",
        );
        insert.sql().as_str().into()
    })
});

/// In one call to SQLite's thread where that can be.
async fn append_sqlite(connection: &mut SqliteConnection, batch: &Batch) -> Result<Appended, AppendRefusal> {
    let alone = batch.history.is_none()
        && batch.given_back.is_empty()
        && batch.entries.iter().all(|entry| entry.assertion.is_none());
    match batch.entries.len().checked_sub(1).and_then(|more| WHOLE.get(more)) {
        Some(whole) if alone => append_whole(connection, batch, whole).await,
        _ => {
            let mut tried = 1;
            loop {
                match connection.begin_with("BEGIN IMMEDIATE").await {
                    Ok(transaction) => return append_in_steps(transaction, batch).await,
                    Err(error) if tried < sqlite::BEGIN_TRIES && sqlite::is_busy(&error) => tried += 1,
                    Err(error) => return Err(error.into()),
                }
            }
        }
    }
}

/// SQLite takes the write lock before it looks at the lease. The registry's version is read after the commit: nothing that
/// was acknowledged while the records were being written is missed.
async fn append_whole(
    connection: &mut SqliteConnection,
    batch: &Batch,
    statements: &Arc<str>,
) -> Result<Appended, AppendRefusal> {
    let Lease { number: lease, head } = batch.lease;
    let sealed = sealed(batch, &[])?;
    let mut tried = 1;
    let (version, written): (i64, i64) = loop {
        let mut query = sqlx::query_as(AssertSqlSafe(Arc::clone(statements)));
        for Sealed { head, at, body } in &sealed {
            let hash = head.hash.octets().as_slice();
            query = query.bind(head.position.number()).bind(at.as_millis()).bind(hash).bind(*body);
        }
        match query.bind(head.chain().number()).bind(lease).fetch_one(&mut *connection).await {
            Ok(written) => break written,
            // Nothing is written yet: another process has the file. Asked anew and often, as `begin_write` does.
            Err(error) if tried < sqlite::BEGIN_TRIES && sqlite::is_busy(&error) => tried += 1,
            Err(error) => return Err(why_refused(connection, batch, error).await),
        }
    };
    if written == 0 {
        return Err(AppendRefusal::LeaseLost);
    }
    let head = sealed.last().map_or(head, |last| last.head);
    Ok(Appended { replayed: Vec::new(), version: RegistryVersion(version), head })
}

/// The write lock is held from the first statement, so neither the registry's version nor the lease can change before the
/// commit.
async fn append_in_steps(mut transaction: Transaction<'_, Sqlite>, batch: &Batch) -> Result<Appended, AppendRefusal> {
    if let Some((after, to)) = batch.history {
        let taken = sqlx::query(HISTORY_TAKEN)
            .bind(to.0)
            .bind(to.1)
            .bind(after.0)
            .bind(after.1)
            .execute(&mut *transaction)
            .await?;
        if taken.rows_affected() == 0 {
            return Err(AppendRefusal::HistoryTaken);
        }
    }
    for used in &batch.given_back {
        sqlx::query("DELETE FROM used_assertion WHERE digest = ?")
            .bind(digest(used))
            .execute(&mut *transaction)
            .await?;
    }
    let uses = Uses::of(batch);
    let mut fresh = HashSet::new();
    for (digest, expires_at) in &uses.first {
        let inserted = sqlx::query(
            "INSERT INTO used_assertion (digest, expires_at) VALUES (?, ?) ON CONFLICT (digest) DO NOTHING",
        )
        .bind(digest.as_slice())
        .bind(*expires_at)
        .execute(&mut *transaction)
        .await?;
        if inserted.rows_affected() > 0 {
            fresh.insert(digest.clone());
        }
    }
    let replayed = uses.replayed(&fresh);
    let sealed = sealed(batch, &replayed)?;
    let full = sealed.chunks_exact(CHUNK);
    let rest = full.remainder();
    let chain = batch.lease.head.chain().number();
    for chunk in full {
        let mut query = sqlx::query(AssertSqlSafe(Arc::clone(&FULL)));
        for Sealed { head, at, body } in chunk {
            let hash = head.hash.octets().as_slice();
            query = query.bind(head.position.number()).bind(at.as_millis()).bind(hash).bind(*body);
        }
        if let Err(error) = query.execute(&mut *transaction).await {
            return Err(why_refused(&mut transaction, batch, error).await);
        }
    }
    let last = LAST.get(rest.len()).ok_or_else(|| sqlx::Error::Protocol("a chunk is full".to_owned()))?;
    let mut query = sqlx::query_as(AssertSqlSafe(Arc::clone(last)));
    for Sealed { head, at, body } in rest {
        let hash = head.hash.octets().as_slice();
        query = query.bind(head.position.number()).bind(at.as_millis()).bind(hash).bind(*body);
    }
    let (version, lease): (i64, Option<i64>) = match query.bind(chain).fetch_one(&mut *transaction).await {
        Ok(found) => found,
        Err(error) => return Err(why_refused(&mut transaction, batch, error).await),
    };
    if lease != Some(batch.lease.number) {
        return Err(AppendRefusal::LeaseLost);
    }
    transaction.commit().await?;
    let head = sealed.last().map_or(batch.lease.head, |last| last.head);
    Ok(Appended { replayed, version: RegistryVersion(version), head })
}

/// Whoever has taken the chain may have gone on with it: then it is a number that was given already which is refused, before
/// the lease is looked at.
async fn why_refused(connection: &mut SqliteConnection, batch: &Batch, error: sqlx::Error) -> AppendRefusal {
    if error.as_database_error().is_some_and(sqlx::error::DatabaseError::is_unique_violation) {
        let lease: Result<Option<i64>, _> = sqlx::query_scalar("SELECT lease FROM audit_chain WHERE id = ?")
            .bind(batch.lease.head.chain().number())
            .fetch_optional(connection)
            .await;
        if lease.is_ok_and(|lease| lease != Some(batch.lease.number)) {
            return AppendRefusal::LeaseLost;
        }
    }
    error.into()
}

/// Takes a part of the history, unless somebody else has it. In the SQL both engines accept.
const HISTORY_TAKEN: &str = "UPDATE audit_log SET history_version = $1, history_step = $2 \
     WHERE history_version = $3 AND history_step = $4";

fn sealed<'a>(batch: &'a Batch, replayed: &[usize]) -> Result<Vec<Sealed<'a>>, StoreUnavailable> {
    batch.sealed(replayed).ok_or_else(|| StoreUnavailable::because("the chain is full"))
}

/// The registry's version is read after the commit: one that was committed, and may have been acknowledged, while the
/// records were being written is seen, which a read within the transaction could miss.
async fn append_postgres(connection: &mut sqlx::PgConnection, batch: &Batch) -> Result<Appended, AppendRefusal> {
    let uses = Uses::of(batch);
    let (replayed, head) = if uses.first.is_empty() && batch.given_back.is_empty() && batch.history.is_none() {
        // One statement is a transaction of its own, and a round trip fewer.
        (Vec::new(), insert_postgres(&mut *connection, batch, &[]).await?)
    } else {
        let mut transaction = sqlx::Connection::begin(&mut *connection).await?;
        match append_beside(&mut transaction, batch, &uses).await {
            Ok(appended) => {
                transaction.commit().await?;
                appended
            }
            Err(refusal @ AppendRefusal::Unavailable(_)) => return Err(refusal),
            Err(refusal) => {
                // At once: dropped, it would be rolled back with the next statement, and lock what it has touched until then.
                transaction.rollback().await?;
                return Err(refusal);
            }
        }
    };
    let version: i64 = sqlx::query_scalar("SELECT version FROM registry_state").fetch_one(&mut *connection).await?;
    Ok(Appended { replayed, version: RegistryVersion(version), head })
}

/// The rows, and what changes beside them: what of the history is in a chain, and which assertions are used.
async fn append_beside(
    transaction: &mut Transaction<'_, Postgres>,
    batch: &Batch,
    uses: &Uses,
) -> Result<(Vec<usize>, Head), AppendRefusal> {
    if let Some((after, to)) = batch.history {
        let taken = sqlx::query(HISTORY_TAKEN)
            .bind(to.0)
            .bind(to.1)
            .bind(after.0)
            .bind(after.1)
            .execute(&mut **transaction)
            .await?;
        if taken.rows_affected() == 0 {
            return Err(AppendRefusal::HistoryTaken);
        }
    }
    if !batch.given_back.is_empty() {
        let digests: Vec<Vec<u8>> = batch.given_back.iter().map(digest).collect();
        sqlx::query("DELETE FROM used_assertion WHERE digest = ANY($1)")
            .bind(digests)
            .execute(&mut **transaction)
            .await?;
    }
    if uses.first.is_empty() {
        return Ok((Vec::new(), insert_postgres(&mut **transaction, batch, &[]).await?));
    }
    let (digests, expiries): (Vec<Vec<u8>>, Vec<i64>) = uses.first.iter().cloned().unzip();
    // In order of their digests, so that two nodes with the same ones wait for each other in one direction.
    let fresh: Vec<Vec<u8>> = sqlx::query_scalar(
        "INSERT INTO used_assertion (digest, expires_at) \
         SELECT * FROM UNNEST($1::bytea[], $2::bigint[]) \
         ON CONFLICT (digest) DO NOTHING RETURNING digest",
    )
    .bind(digests)
    .bind(expiries)
    .fetch_all(&mut **transaction)
    .await?;
    let replayed = uses.replayed(&fresh.into_iter().collect());
    let head = insert_postgres(&mut **transaction, batch, &replayed).await?;
    Ok((replayed, head))
}

/// Writes the rows under the chain's lease, whose row is locked against being taken until they are committed.
async fn insert_postgres<'c, E>(executor: E, batch: &Batch, replayed: &[usize]) -> Result<Head, AppendRefusal>
where
    E: sqlx::Executor<'c, Database = Postgres>,
{
    let sealed = sealed(batch, replayed)?;
    let positions: Vec<i64> = sealed.iter().map(|record| record.head.position.number()).collect();
    let instants: Vec<i64> = sealed.iter().map(|record| record.at.as_millis()).collect();
    let hashes: Vec<&[u8]> = sealed.iter().map(|record| record.head.hash.octets().as_slice()).collect();
    let bodies: Vec<&str> = sealed.iter().map(|record| record.body).collect();
    let written = sqlx::query(
        "WITH held AS (SELECT id FROM audit_chain WHERE id = $1 AND lease = $2 FOR SHARE) \
         INSERT INTO audit_record (position, at, hash, body) \
         SELECT position, at, hash, body FROM held, \
         UNNEST($3::bigint[], $4::bigint[], $5::bytea[], $6::text[]) AS row (position, at, hash, body)",
    )
    .bind(batch.lease.head.chain().number())
    .bind(batch.lease.number)
    .bind(positions)
    .bind(instants)
    .bind(hashes)
    .bind(bodies)
    .execute(executor)
    .await?;
    match sealed.last() {
        Some(_) if written.rows_affected() == 0 => Err(AppendRefusal::LeaseLost),
        Some(last) => Ok(last.head),
        None => Ok(batch.lease.head),
    }
}

/// The assertions a batch uses: one entry of each may be the first.
struct Uses {
    /// Digests with their expiry, in order.
    first: Vec<(Vec<u8>, i64)>,
    /// Which entry uses which, in order of entries.
    entries: Vec<(usize, Vec<u8>)>,
}

impl Uses {
    fn of(batch: &Batch) -> Self {
        let mut first = Vec::new();
        let mut entries = Vec::new();
        for (index, entry) in batch.entries.iter().enumerate() {
            if let Some((used, _)) = &entry.assertion {
                let digest = digest(used);
                first.push((digest.clone(), used.expires_at.as_millis()));
                entries.push((index, digest));
            }
        }
        first.sort_unstable();
        // The latest expiry stays: of two with one jti, whichever is kept must be remembered for as long as either.
        first.reverse();
        first.dedup_by(|later, earlier| later.0 == earlier.0);
        first.reverse();
        Self { first, entries }
    }

    /// The entries that are not the first use, in order.
    fn replayed(&self, fresh: &HashSet<Vec<u8>>) -> Vec<usize> {
        let mut seen = HashSet::new();
        let replayed = |(_, digest): &&(usize, Vec<u8>)| !fresh.contains(digest) || !seen.insert(digest.clone());
        self.entries.iter().filter(replayed).map(|(index, _)| *index).collect()
    }
}

/// Client and `jti` under one hash, whatever they consist of: of bounded length, and nothing an engine could refuse.
fn digest(used: &AssertionUse) -> Vec<u8> {
    let client_id = used.client_id.as_str();
    Sha256::new()
        .chain_update(u64::try_from(client_id.len()).unwrap_or(u64::MAX).to_be_bytes())
        .chain_update(client_id)
        .chain_update(&used.jti)
        .finalize()
        .to_vec()
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use countersign_resource_server::time::ManualClock;

    use super::*;
    use crate::audit::{AuditLimits, AuditLog, Entry, Fenced, Trail};
    use crate::mint::fixture as mint_fixture;
    use crate::pki::{Handshake, PresentedChain};
    use crate::registry::ClientId;
    use crate::registry::fixture::{NOW, because, client_id, participant, participant_id};
    use crate::registry::participant::ParticipantState;
    use crate::store::contract::{Bench, contract};

    contract!(
        a_chain_has_one_writer,
        a_lease_that_has_run_out_is_another_ones,
        many_take_chains_at_once_and_each_gets_its_own,
        nothing_is_written_under_an_earlier_lease,
        each_record_follows_the_one_before_it,
        the_history_is_taken_once,
        a_batch_that_was_refused_locks_nothing,
        a_batch_is_written_in_order_and_numbered,
        a_number_is_never_written_twice,
        a_batch_in_doubt_was_written_or_never_will_be,
        what_is_still_being_written_is_not_overlooked,
        the_version_is_the_one_at_the_commit,
        an_assertion_is_used_once_across_batches_and_within_one,
        an_assertion_given_back_may_be_used_again,
        a_used_assertion_is_forgotten_only_after_its_time,
        any_jti_is_one_the_store_takes,
        two_writers_race_for_an_assertion_and_one_wins,
        a_record_is_never_changed,
        a_command_leaves_its_record_and_the_chain,
        the_whole_log_works_on_it,
        a_suspension_between_decision_and_commit_withholds_the_token,
        a_change_of_another_client_withholds_nothing,
    );

    fn entry(body: &str) -> Entry {
        Entry::new(NOW, body.to_owned())
    }

    fn assertion(jti: &str) -> AssertionUse {
        let client_id = ClientId::parse("client").unwrap();
        AssertionUse { client_id, jti: jti.to_owned(), expires_at: NOW.after(Duration::from_secs(60)) }
    }

    fn using(jti: &str, body: &str) -> Entry {
        Entry { assertion: Some((assertion(jti), format!("{body} replayed"))), ..Entry::new(NOW, body.to_owned()) }
    }

    /// A chain for one test, written batch by batch.
    struct Chain<'a> {
        store: &'a Store,
        lease: Lease,
    }

    impl<'a> Chain<'a> {
        async fn of(bench: &'a Bench) -> Self {
            Self::held_by(&bench.store, "node").await
        }

        async fn held_by(store: &'a Store, holder: &str) -> Self {
            Self { store, lease: store.lease(holder, NOW, NOW.after(Duration::from_secs(30))).await.unwrap() }
        }

        fn batch(&self, entries: Vec<Entry>) -> Batch {
            Batch { lease: self.lease, entries, given_back: Vec::new(), history: None }
        }

        async fn append_batch(&mut self, batch: Batch) -> Result<Appended, AppendRefusal> {
            let appended = self.store.append(Arc::new(batch)).await?;
            self.lease.head = appended.head;
            Ok(appended)
        }

        async fn append(&mut self, entries: Vec<Entry>) -> Appended {
            let batch = self.batch(entries);
            self.append_batch(batch).await.unwrap()
        }
    }

    /// Every body, oldest first, but for what a log writes by itself.
    async fn bodies(store: &Store) -> Vec<String> {
        let mut entries = store.recent(10_000).await.unwrap();
        entries.reverse();
        let own = [r#"{"kind":"opened""#, r#"{"kind":"change""#];
        entries
            .into_iter()
            .map(|entry| entry.body)
            .filter(|body| !own.iter().any(|own| body.starts_with(own)))
            .collect()
    }

    async fn a_chain_has_one_writer(bench: &Bench) {
        let (one, other) = (Chain::of(bench).await, Chain::of(bench).await);
        assert_ne!(one.lease.head.chain(), other.lease.head.chain());
        assert_eq!((one.lease.number, one.lease.head.position.sequence()), (1, 0));
        // Given back, it is taken again, under the next lease; the other one is not.
        let chain = one.lease.head.chain();
        assert!(bench.store.renew(chain, 1, UnixTime::from_millis(0)).await.unwrap());
        let next = Chain::of(bench).await;
        assert_eq!((next.lease.head, next.lease.number), (one.lease.head, 2));
        assert!(!bench.store.renew(chain, 1, NOW).await.unwrap(), "the earlier lease is over");
        assert_ne!(Chain::of(bench).await.lease.head.chain(), chain);
    }

    async fn a_lease_that_has_run_out_is_another_ones(bench: &Bench) {
        let end = NOW.after(Duration::from_secs(30));
        let first = bench.store.lease("node", NOW, end).await.unwrap();
        let before = UnixTime::from_millis(end.as_millis() - 1);
        let second = bench.store.lease("other", before, end.after(Duration::from_secs(1))).await.unwrap();
        assert_ne!(second.head.chain(), first.head.chain());
        let third = bench.store.lease("third", end, end.after(Duration::from_secs(1))).await.unwrap();
        assert_eq!((third.head, third.number), (first.head, 2));
    }

    async fn many_take_chains_at_once_and_each_gets_its_own(bench: &Bench) {
        for round in 0..2 {
            let now = NOW.after(Duration::from_secs(60 * round));
            let take = |_| bench.store.lease("node", now, now.after(Duration::from_secs(30)));
            let taken = futures_util::future::join_all((0..6).map(take)).await;
            let chains: HashSet<ChainId> = taken.iter().map(|lease| lease.as_ref().unwrap().head.chain()).collect();
            assert_eq!(chains.len(), 6);
            assert!(chains.iter().all(|chain| chain.number() <= 6), "none is made where one is free: {chains:?}");
        }
    }

    async fn nothing_is_written_under_an_earlier_lease(bench: &Bench) {
        let mut chain = Chain::of(bench).await;
        chain.append(vec![entry("a")]).await;
        assert!(bench.store.renew(chain.lease.head.chain(), 1, NOW).await.unwrap());
        let mut next = Chain::of(bench).await;
        assert_eq!(next.lease.head, chain.lease.head, "it goes on where the other one was");
        // As a node that was away for longer than its lease: with an assertion, and without.
        for entries in [vec![using("jti", "b")], vec![entry("b")]] {
            let batch = chain.batch(entries);
            let refused = chain.append_batch(batch).await.unwrap_err();
            assert!(matches!(refused, AppendRefusal::LeaseLost), "{refused}");
        }
        let appended = next.append(vec![using("jti", "c")]).await;
        assert_eq!(appended.replayed, [0_usize; 0], "nor is anything used by it");
        // And the same once the other one has gone on with the chain.
        for count in [1, 3, CHUNK + 1] {
            let batch = chain.batch((0..count).map(|_| entry("b")).collect());
            let refused = chain.append_batch(batch).await.unwrap_err();
            assert!(matches!(refused, AppendRefusal::LeaseLost), "{count}: {refused}");
        }
        assert_eq!(bodies(&bench.store).await, ["a", "c"]);
    }

    async fn each_record_follows_the_one_before_it(bench: &Bench) {
        let mut chain = Chain::of(bench).await;
        chain.append(vec![entry("1"), using("a", "2"), using("a", "3")]).await;
        chain.append(vec![entry("4")]).await;
        let mut entries = bench.store.recent(10).await.unwrap();
        entries.reverse();
        let log: String = sqlx::query_scalar("SELECT id FROM audit_log").fetch_one(&bench.store.readers).await.unwrap();
        let mut head = Head::before_first(LogId::parse(&log).unwrap(), chain.lease.head.chain());
        for (entry, body) in entries.iter().zip(["1", "2", "3 replayed", "4"]) {
            head = head.followed_by(NOW, body).unwrap();
            assert_eq!((entry.position, entry.hash), (head.position, head.hash), "{body}");
        }
        assert_eq!((entries.len(), chain.lease.head), (4, head));
    }

    async fn the_history_is_taken_once(bench: &Bench) {
        for name in ["one", "two", "three"] {
            bench.registry.add_participant(participant(name), because("joins")).await.unwrap();
        }
        let (mut one, mut other) = (Chain::of(bench).await, Chain::of(bench).await);
        let left = bench.store.history_left(2).await.unwrap();
        assert_eq!((left.after, left.rows.len()), ((0, 0), 2));
        assert_eq!((left.rows[0].subject.as_str(), left.rows[0].why.as_deref()), ("participant:one", Some("joins")));
        let history = Some((left.after, left.rows[1].place));
        let taking = |chain: &Chain<'_>| Batch { history, ..chain.batch(vec![entry("1"), entry("2")]) };
        let batch = taking(&one);
        one.append_batch(batch).await.unwrap();
        for chain in [&mut one, &mut other] {
            let batch = taking(chain);
            let refused = chain.append_batch(batch).await.unwrap_err();
            assert!(matches!(refused, AppendRefusal::HistoryTaken), "{refused}");
        }
        let rest = bench.store.history_left(10).await.unwrap();
        assert_eq!(rest.after, left.rows[1].place);
        let subjects: Vec<&str> = rest.rows.iter().map(|row| row.subject.as_str()).collect();
        assert_eq!(subjects, ["participant:three"]);
        assert_eq!(bodies(&bench.store).await, ["1", "2"]);
    }

    async fn a_batch_that_was_refused_locks_nothing(bench: &Bench) {
        bench.registry.add_participant(participant("one"), because("joins")).await.unwrap();
        let mut chain = Chain::of(bench).await;
        assert!(bench.store.renew(chain.lease.head.chain(), 1, NOW).await.unwrap());
        let _next = Chain::of(bench).await;
        let left = bench.store.history_left(1).await.unwrap();
        let taking = Batch { history: Some((left.after, left.rows[0].place)), ..chain.batch(vec![entry("a")]) };
        let refused = chain.append_batch(taking).await.unwrap_err();
        assert!(matches!(refused, AppendRefusal::LeaseLost), "{refused}");
        // Every node that keeps its lease writes the row that says how far the history is taken.
        let noting = bench.store.serves_until(NOW, NOW.after(Duration::from_secs(3600)));
        tokio::time::timeout(Duration::from_secs(1), noting).await.expect("nobody is waited for").unwrap();
        assert_eq!(bench.store.history_left(1).await.unwrap(), left);
    }

    async fn a_batch_is_written_in_order_and_numbered(bench: &Bench) {
        let mut chain = Chain::of(bench).await;
        // Each size of chunk is needed at least once.
        let texts: Vec<String> = (0..350).map(|index| format!("{{\"index\":{index}}}")).collect();
        chain.append(texts.iter().map(|text| entry(text)).collect()).await;
        assert_eq!(bodies(&bench.store).await, texts);
        let latest = bench.store.recent(1).await.unwrap().remove(0);
        assert_eq!((latest.position.to_string().as_str(), latest.at), ("1/350", NOW));
        assert_eq!((latest.position, latest.hash), (chain.lease.head.position, chain.lease.head.hash));
    }

    async fn a_number_is_never_written_twice(bench: &Bench) {
        let mut chain = Chain::of(bench).await;
        let before = chain.lease;
        chain.append(vec![entry("a"), entry("b")]).await;
        let again = Batch { lease: before, ..chain.batch(vec![using("jti", "c")]) };
        bench.store.append(Arc::new(again)).await.unwrap_err();
        assert_eq!(bodies(&bench.store).await, ["a", "b"]);
        // And nothing else of that batch is left behind.
        assert_eq!(chain.append(vec![using("jti", "d")]).await.replayed, [0_usize; 0]);
    }

    async fn a_batch_in_doubt_was_written_or_never_will_be(bench: &Bench) {
        let mut chain = Chain::of(bench).await;
        let doubt = Arc::new(chain.batch(vec![entry("a"), entry("b")]));
        let recovered = bench.store.recover(Arc::clone(&doubt)).await.unwrap();
        assert_eq!(recovered, Recovered { lease: Some(Lease { number: 2, ..chain.lease }), is_written: false });
        // It comes late, as over a connection that was given up.
        let late = bench.store.append(Arc::clone(&doubt)).await.unwrap_err();
        assert!(matches!(late, AppendRefusal::LeaseLost), "{late}");
        chain.lease = recovered.lease.unwrap();
        for entries in [vec![entry("a"), entry("b")], vec![using("jti", "c")], vec![using("jti", "d")]] {
            let doubt = Arc::new(chain.batch(entries));
            let appended = bench.store.append(Arc::clone(&doubt)).await.unwrap();
            let recovered = bench.store.recover(doubt).await.unwrap();
            let lease = Lease { number: chain.lease.number + 1, head: appended.head };
            assert_eq!(recovered, Recovered { lease: Some(lease), is_written: true });
            chain.lease = lease;
        }
        // Another one has the chain by now, and has gone on with it.
        let doubt = Arc::new(chain.batch(vec![entry("e")]));
        let number = chain.lease.number;
        assert!(bench.store.renew(chain.lease.head.chain(), number, NOW).await.unwrap());
        let mut other = Chain::held_by(&bench.store, "other").await;
        other.append(vec![entry("f")]).await;
        let recovered = bench.store.recover(doubt).await.unwrap();
        assert_eq!(recovered, Recovered { lease: None, is_written: false });
        assert_eq!(bodies(&bench.store).await, ["a", "b", "c", "d replayed", "f"]);
    }

    async fn what_is_still_being_written_is_not_overlooked(bench: &Bench) {
        let chain = Chain::of(bench).await;
        let doubt = Arc::new(chain.batch(vec![entry("a")]));
        // As where the connection was lost while the database goes on with what it was told last.
        let turn = bench.store.turn_to_write().await;
        let mut under_way = bench.store.begin_write().await.unwrap();
        let locked = if matches!(bench.store.engine, Engine::Postgres { .. }) { " FOR SHARE" } else { "" };
        sqlx::query(AssertSqlSafe(format!("SELECT id FROM audit_chain{locked}")))
            .fetch_all(&mut *under_way)
            .await
            .unwrap();
        let sealed = doubt.sealed(&[]).unwrap()[0];
        sqlx::query("INSERT INTO audit_record (position, at, hash, body) VALUES ($1, $2, $3, $4)")
            .bind(sealed.head.position.number())
            .bind(sealed.at.as_millis())
            .bind(sealed.head.hash.octets().as_slice())
            .bind(sealed.body)
            .execute(&mut *under_way)
            .await
            .unwrap();
        let store = bench.store.clone();
        let recovering = Arc::clone(&doubt);
        let asked = tokio::spawn(async move { store.recover(recovering).await });
        tokio::time::sleep(Duration::from_millis(200)).await;
        assert!(!asked.is_finished());
        under_way.commit().await.unwrap();
        drop(turn);
        let recovered = asked.await.unwrap().unwrap();
        assert_eq!(recovered, Recovered { lease: Some(Lease { number: 2, head: sealed.head }), is_written: true });
    }

    async fn the_version_is_the_one_at_the_commit(bench: &Bench) {
        let mut chain = Chain::of(bench).await;
        let before = chain.append(vec![entry("a")]).await.version;
        let changed = bench.registry.add_participant(participant("acme"), because("joins")).await.unwrap();
        assert!(changed > before);
        assert_eq!(chain.append(vec![entry("b")]).await.version, changed);
        assert_eq!(chain.append(vec![using("jti", "c")]).await.version, changed);
    }

    async fn an_assertion_is_used_once_across_batches_and_within_one(bench: &Bench) {
        let mut chain = Chain::of(bench).await;
        let entries = vec![using("a", "1"), entry("2"), using("a", "3"), using("b", "4")];
        assert_eq!(chain.append(entries).await.replayed, [2]);
        assert_eq!(chain.append(vec![using("b", "5"), using("c", "6")]).await.replayed, [0]);
        assert_eq!(bodies(&bench.store).await, ["1", "2", "3 replayed", "4", "5 replayed", "6"]);
    }

    async fn an_assertion_given_back_may_be_used_again(bench: &Bench) {
        let mut chain = Chain::of(bench).await;
        chain.append(vec![using("a", "1"), using("b", "2")]).await;
        let withheld = Batch { given_back: vec![assertion("a")], ..chain.batch(vec![entry("3")]) };
        chain.append_batch(withheld).await.unwrap();
        assert_eq!(chain.append(vec![using("a", "4"), using("b", "5")]).await.replayed, [1]);
    }

    async fn a_used_assertion_is_forgotten_only_after_its_time(bench: &Bench) {
        let mut chain = Chain::of(bench).await;
        chain.append(vec![using("a", "1")]).await;
        let expires_at = assertion("a").expires_at;
        bench.store.forget_assertions(expires_at).await.unwrap();
        assert_eq!(chain.append(vec![using("a", "2")]).await.replayed, [0]);
        bench.store.forget_assertions(UnixTime::from_millis(expires_at.as_millis() + 1)).await.unwrap();
        assert_eq!(chain.append(vec![using("a", "3")]).await.replayed, [0_usize; 0]);
    }

    async fn any_jti_is_one_the_store_takes(bench: &Bench) {
        let mut chain = Chain::of(bench).await;
        let long = "x".repeat(100_000);
        let odd = ["", "\0", "a\0b", "\u{10FFFF}", "'; DROP TABLE audit_record; --", &long];
        let all = || odd.iter().map(|jti| using(jti, "{}")).collect();
        assert_eq!(chain.append(all()).await.replayed, [0_usize; 0]);
        assert_eq!(chain.append(all()).await.replayed, [0, 1, 2, 3, 4, 5]);
    }

    async fn two_writers_race_for_an_assertion_and_one_wins(bench: &Bench) {
        let (mut one, mut other) = (Chain::of(bench).await, Chain::of(bench).await);
        let jtis: Vec<String> = (0..50).map(|index| format!("jti{index}")).collect();
        let forward = jtis.iter().map(|jti| using(jti, "{}")).collect();
        let backward = jtis.iter().rev().map(|jti| using(jti, "{}")).collect();
        let (one, other) = tokio::join!(one.append(forward), other.append(backward));
        assert_eq!(one.replayed.len() + other.replayed.len(), 50);
    }

    async fn a_record_is_never_changed(bench: &Bench) {
        Chain::of(bench).await.append(vec![entry("a")]).await;
        let mut transaction = bench.store.begin_write().await.unwrap();
        let refused = sqlx::query("UPDATE audit_record SET body = 'b'").execute(&mut *transaction).await.unwrap_err();
        assert!(refused.to_string().contains("never changed"), "{refused}");
    }

    async fn a_command_leaves_its_record_and_the_chain(bench: &Bench) {
        let actor = because("x").actor;
        for asked in ["acme-1", "acme-2"] {
            let asked = serde_json::json!({ "client": asked });
            crate::audit::command::record_reading(&bench.store, "node", NOW, &actor, "audit query", &asked)
                .await
                .unwrap();
        }
        let read: Vec<serde_json::Value> =
            bodies(&bench.store).await.iter().map(|body| serde_json::from_str(body).unwrap()).collect();
        assert_eq!(read.len(), 2);
        assert_eq!((&read[1]["kind"], &read[1]["asked"]["client"]), (&"reading".into(), &"acme-2".into()));
        assert_eq!(read[1]["actor"]["stated_name"], "Ada");
        assert_eq!(bench.store.chain_ids().await.unwrap().len(), 1, "each gave it back");
    }

    async fn the_whole_log_works_on_it(bench: &Bench) {
        bench.registry.add_participant(participant("acme"), because("joins")).await.unwrap();
        let log = log(bench).await;
        log.refused_handshake(&crate::audit::RefusedHandshake {
            remote: "192.0.2.1:4711".parse().unwrap(),
            reason: "handshake_timeout",
            claimed: None,
        });
        log.close().await;
        let again = self::log(bench).await;
        again.close().await;
        let kinds: Vec<(String, String)> = bench
            .store
            .recent(10)
            .await
            .unwrap()
            .into_iter()
            .rev()
            .map(|entry| {
                let body: serde_json::Value = serde_json::from_str(&entry.body).unwrap();
                (entry.position.to_string(), body["kind"].as_str().unwrap().to_owned())
            })
            .collect();
        let expected = [("1/1", "opened"), ("1/2", "refusals"), ("1/3", "change"), ("1/4", "opened")];
        assert_eq!(kinds, expected.map(|(place, kind)| (place.to_owned(), kind.to_owned())));
    }

    async fn log(bench: &Bench) -> AuditLog {
        let clock = Arc::new(ManualClock::at(NOW));
        let (store, changes) = (Arc::new(bench.store.clone()), Arc::clone(&bench.registry));
        AuditLog::open(store, changes, "node", clock, AuditLimits::default()).await.unwrap()
    }

    /// Decides on a token for `acme-1`, lets `meanwhile` happen, and puts the decision on record.
    async fn decide_then(bench: &Bench, log: &AuditLog, meanwhile: impl AsyncFnOnce()) -> Fenced {
        let found = bench.registry.client(&client_id("acme-1")).await.unwrap();
        let handshake = Handshake { remote: "192.0.2.1:4711".parse().unwrap(), protocol: "TLSv1.3", resumed: false };
        let peer = Arc::new(PresentedChain::new(handshake, Vec::new()));
        let mut trail = Trail::begin(&peer, RequestId::random(NOW), NOW);
        trail.authenticated(&found);
        let token = mint_fixture::mint().sign_grant(mint_fixture::grant(found), mint_fixture::NOW).unwrap();
        meanwhile().await;
        log.record(trail, Ok(token)).await
    }

    async fn a_suspension_between_decision_and_commit_withholds_the_token(bench: &Bench) {
        bench.populate().await;
        let log = log(bench).await;
        let fenced = decide_then(bench, &log, async || {
            let suspended = ParticipantState::Suspended;
            bench.registry.set_participant_state(participant_id("acme"), suspended, because("breach")).await.unwrap();
        })
        .await;
        assert!(matches!(fenced, Fenced::Stale), "{fenced:?}");
        let written = bodies(&bench.store).await;
        assert!(written[0].contains("\"issued\"") && written[1].contains("registry_changed"), "{written:?}");
    }

    async fn a_change_of_another_client_withholds_nothing(bench: &Bench) {
        bench.populate().await;
        bench.registry.add_participant(participant("other"), because("joins")).await.unwrap();
        let log = log(bench).await;
        let fenced = decide_then(bench, &log, async || {
            let suspended = ParticipantState::Suspended;
            bench.registry.set_participant_state(participant_id("other"), suspended, because("breach")).await.unwrap();
        })
        .await;
        let Fenced::Held(recorded) = fenced else { panic!("stale") };
        recorded.into_answer().unwrap();
        assert_eq!(bodies(&bench.store).await.len(), 1);
    }
}
