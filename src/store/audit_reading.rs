//! Reading the whole log, and removing what was exported.
//!
//! From SQLite many records come as one row, aggregated by the engine: a row of its own costs the driver several times what
//! hashing it does. Each statement is a transaction of its own. It knows nothing of what a record says, nor whether it is right.

use countersign_resource_server::time::UnixTime;
use futures_util::future::BoxFuture;
use sqlx::any::AnyRow;
use sqlx::{AssertSqlSafe, Row, SqlitePool};

use super::audit::{damaged, history_row};
use super::{Engine, Store};
use crate::audit::chain::{ChainId, Head, LogId, Position, RecordHash};
use crate::audit::checkpoint::StoredCheckpoint;
use crate::audit::verify::{AuditReading, Outline, PackedColumns, Run, SEPARATOR};
use crate::audit::{HistoryPlace, HistoryRow};
use crate::registry::StoreUnavailable;

impl AuditReading for Store {
    fn outline(&self) -> BoxFuture<'_, Result<Outline, StoreUnavailable>> {
        Box::pin(async move {
            // One statement, so that all of it is of one moment.
            let rows = sqlx::query(
                "SELECT audit_log.id, history_version, history_step, audit_chain.id, cut_sequence, cut_hash \
                 FROM audit_log LEFT JOIN audit_chain ON 1 = 1 ORDER BY audit_chain.id",
            )
            .fetch_all(&self.readers)
            .await?;
            let first = rows.first().ok_or_else(|| damaged("its id is gone"))?;
            let log = LogId::parse(&first.try_get::<String, _>(0)?);
            let log = log.ok_or_else(|| damaged("its id has not 32 hexadecimal digits"))?;
            let history = (first.try_get(1)?, first.try_get(2)?);
            let cut = |row: &AnyRow| {
                let chain: Option<i64> = row.try_get(3)?;
                Ok(match chain {
                    Some(chain) => Some((chain, row.try_get(4)?, row.try_get(5)?)),
                    None => None,
                })
            };
            let cuts = rows.iter().filter_map(|row| cut(row).transpose()).collect::<Result<_, sqlx::Error>>()?;
            Ok(Outline { log, history, cuts })
        })
    }

    fn statements(&self, after: i64, limit: u32) -> BoxFuture<'_, Result<Vec<StoredCheckpoint>, StoreUnavailable>> {
        Box::pin(async move {
            let rows = sqlx::query(
                "SELECT number, at, statement FROM audit_checkpoint WHERE number > $1 ORDER BY number LIMIT $2",
            )
            .bind(after)
            .bind(i64::from(limit))
            .fetch_all(&self.readers)
            .await?;
            let stored = |row: &AnyRow| {
                let at = UnixTime::from_millis(row.try_get(1)?);
                Ok(StoredCheckpoint { number: row.try_get(0)?, at, statement: row.try_get(2)? })
            };
            Ok(rows.iter().map(stored).collect::<Result<_, sqlx::Error>>()?)
        })
    }

    fn run(&self, after: Position, last: Position, limit: u32) -> BoxFuture<'_, Result<Run, StoreUnavailable>> {
        Box::pin(async move {
            match self.whole(after, last, limit).await {
                Ok(Some(run)) => Ok(run),
                // A body with a separator in it, a hash of another length, a text that is none, or too much for one row.
                Ok(None)
                | Err(sqlx::Error::ColumnDecode { .. } | sqlx::Error::Decode(_) | sqlx::Error::Database(_)) => {
                    Ok(self.row_by_row(after, last, limit).await?)
                }
                Err(error) => Err(error.into()),
            }
        })
    }

    fn last(&self, chain: ChainId) -> BoxFuture<'_, Result<Option<Position>, StoreUnavailable>> {
        Box::pin(async move {
            let last: Option<i64> = sqlx::query_scalar(
                "SELECT position FROM audit_record WHERE position > $1 AND position <= $2 ORDER BY position DESC LIMIT 1",
            )
            .bind(chain.number() << 40)
            .bind(Position::last_of(chain).number())
            .fetch_optional(&self.readers)
            .await?;
            Ok(last.and_then(Position::from_number))
        })
    }

    fn between(&self, after: i64, before: i64) -> BoxFuture<'_, Result<Option<i64>, StoreUnavailable>> {
        Box::pin(async move {
            let found = sqlx::query_scalar(
                "SELECT position FROM audit_record WHERE position > $1 AND position < $2 ORDER BY position LIMIT 1",
            )
            .bind(after)
            .bind(before)
            .fetch_optional(&self.readers)
            .await?;
            Ok(found)
        })
    }

    fn history(&self, after: HistoryPlace, limit: u32) -> BoxFuture<'_, Result<Vec<HistoryRow>, StoreUnavailable>> {
        Box::pin(async move {
            let rows = sqlx::query(
                "SELECT version, step, at, actor, action, subject, record_before, record_after, why FROM history \
                 WHERE version > $1 OR (version = $1 AND step > $2) ORDER BY version, step LIMIT $3",
            )
            .bind(after.0)
            .bind(after.1)
            .bind(i64::from(limit))
            .fetch_all(&self.readers)
            .await?;
            Ok(rows.iter().map(history_row).collect::<Result<_, _>>()?)
        })
    }

    fn cut(&self, from: Head, to: Position, limit: u32) -> BoxFuture<'_, Result<Option<Head>, StoreUnavailable>> {
        Box::pin(async move {
            let _turn = self.turn_to_write().await;
            let mut transaction = self.begin_write().await?;
            let new: Option<(i64, Vec<u8>)> = sqlx::query_as(
                "SELECT position, hash FROM audit_record WHERE position > $1 AND position <= $2 AND position <= $1 + $3 \
                 ORDER BY position DESC LIMIT 1",
            )
            .bind(from.position.number())
            .bind(to.number())
            .bind(i64::from(limit))
            .fetch_optional(&mut *transaction)
            .await?;
            let Some((number, hash)) = new else { return Ok(None) };
            let position = Position::from_number(number).filter(|position| position.chain() == from.chain());
            let position = position.ok_or_else(|| damaged("a position is out of its chain"))?;
            let hash = RecordHash::from_octets(&hash).ok_or_else(|| damaged("a hash has not 32 octets"))?;
            let moved = sqlx::query(
                "UPDATE audit_chain SET cut_sequence = $1, cut_hash = $2 WHERE id = $3 AND cut_sequence = $4",
            )
            .bind(position.sequence())
            .bind(hash.octets().as_slice())
            .bind(from.chain().number())
            .bind(from.position.sequence())
            .execute(&mut *transaction)
            .await?;
            if moved.rows_affected() == 0 {
                return Ok(None);
            }
            sqlx::query("DELETE FROM audit_record WHERE position > $1 AND position <= $2")
                .bind(from.position.number())
                .bind(number)
                .execute(&mut *transaction)
                .await?;
            transaction.commit().await?;
            Ok(Some(Head { position, hash }))
        })
    }

    fn restored(&self) -> BoxFuture<'_, Result<Vec<String>, StoreUnavailable>> {
        Box::pin(async move {
            let statements =
                sqlx::query_scalar("SELECT statement FROM restoration WHERE statement IS NOT NULL ORDER BY epoch")
                    .fetch_all(&self.readers)
                    .await?;
            Ok(statements)
        })
    }

    fn forget_statements(&self, before: i64) -> BoxFuture<'_, Result<(), StoreUnavailable>> {
        Box::pin(async move {
            loop {
                // Some at a time: years of them are more than one statement may take, and tokens wait behind it.
                let _turn = self.turn_to_write().await;
                let mut transaction = self.begin_write().await?;
                let forgotten = sqlx::query(
                    "DELETE FROM audit_checkpoint WHERE number IN \
                     (SELECT number FROM audit_checkpoint WHERE number < $1 ORDER BY number LIMIT 500)",
                )
                .bind(before)
                .execute(&mut *transaction)
                .await?;
                transaction.commit().await?;
                if forgotten.rows_affected() < 500 {
                    return Ok(());
                }
            }
        })
    }
}

/// All aggregates see the rows in one order, whichever it is; that it is the right one is looked at.
const PACKED: &str = "SELECT COUNT(*), COUNT(*) FILTER (WHERE at IS NOT NULL AND body IS NOT NULL AND length(hash) = 32), \
     string_agg(position, ' '), string_agg(at, ' '), CAST(string_agg(hash, '') AS BLOB), string_agg(body, $4) \
     FROM (SELECT position, at, hash, body FROM audit_record \
     WHERE position > $1 AND position <= $2 ORDER BY position LIMIT $3) AS run";

const PLAIN: &str = "SELECT position, at, hash, body FROM audit_record \
     WHERE position > $1 AND position <= $2 ORDER BY position LIMIT $3";

impl Store {
    /// Records as they should be; none where they are not. Through the engine's own driver: `Any` copies each text once more.
    async fn whole(&self, after: Position, last: Position, limit: u32) -> Result<Option<Run>, sqlx::Error> {
        match &self.engine {
            // PostgreSQL sends rows as they come; joining them first costs it more than that.
            Engine::Postgres { pool, .. } => {
                let rows = sqlx::query(PLAIN).bind(after.number()).bind(last.number()).bind(i64::from(limit));
                let mut run = Run::default();
                for row in rows.fetch_all(pool).await? {
                    let Some(position) = Position::from_number(row.try_get(0)?) else { return Ok(None) };
                    let (at, hash, body): (i64, &[u8], &str) = (row.try_get(1)?, row.try_get(2)?, row.try_get(3)?);
                    run.push(position, UnixTime::from_millis(at), hash, body.as_bytes());
                }
                Ok(Some(run))
            }
            Engine::Sqlite { readers, .. } => packed(readers, after, last, limit).await,
        }
    }

    /// Whatever is stored, as it is.
    async fn row_by_row(&self, after: Position, last: Position, limit: u32) -> Result<Run, sqlx::Error> {
        let octets = match &self.engine {
            Engine::Postgres { .. } => "convert_to(body, 'UTF8')",
            Engine::Sqlite { .. } => "CAST(body AS BLOB)",
        };
        let statement = format!(
            "SELECT position, at, hash, {octets} FROM audit_record \
             WHERE position > $1 AND position <= $2 ORDER BY position LIMIT $3"
        );
        let rows = sqlx::query(AssertSqlSafe(statement))
            .bind(after.number())
            .bind(last.number())
            .bind(i64::from(limit))
            .fetch_all(&self.readers)
            .await?;
        let mut run = Run::default();
        for row in rows {
            let position =
                Position::from_number(row.try_get(0)?).ok_or_else(|| damaged("a position is of no chain"))?;
            // What is of another type than the column says is no record.
            let hash: Vec<u8> = row.try_get(2).unwrap_or_default();
            let body: Option<Vec<u8>> = row.try_get(3).ok();
            let (hash, body) = body.map_or((Vec::new(), Vec::new()), |body| (hash, body));
            run.push(position, UnixTime::from_millis(row.try_get(1).unwrap_or(0)), &hash, &body);
        }
        Ok(run)
    }
}

/// Many records of SQLite as one row; none where they do not come apart again as they were.
async fn packed(readers: &SqlitePool, after: Position, last: Position, limit: u32) -> Result<Option<Run>, sqlx::Error> {
    let row = sqlx::query(PACKED).bind(after.number()).bind(last.number()).bind(i64::from(limit)).bind(SEPARATOR);
    let row = row.fetch_one(readers).await?;
    let (count, fit): (i64, i64) = (row.try_get(0)?, row.try_get(1)?);
    if count == 0 {
        return Ok(Some(Run::default()));
    }
    // What is NULL is left out of an aggregate, and hashes of other lengths run into each other: then they are read one by one.
    let columns = (row.try_get(2)?, row.try_get(3)?, row.try_get(4)?, row.try_get(5)?);
    let (Some(positions), Some(instants), Some(hashes), Some(bodies)) = columns else { return Ok(None) };
    let Some(count) = usize::try_from(count).ok().filter(|_| fit == count) else { return Ok(None) };
    let run = Run::packed(count, PackedColumns { positions, instants, hashes, bodies });
    Ok(run.filter(|run| run.end().is_some_and(|end| end <= last)))
}
