//! Storage of how far the audit log has been sent on, in SQL that both engines accept.
//!
//! Takes a sink's name, gives its turn, the records after its cursors, and moves those. Whoever moves a cursor has the
//! latest turn, which is looked at in the transaction that moves it. It knows nothing of where records are sent.

use std::time::Duration;

use countersign_resource_server::time::UnixTime;
use futures_util::TryStreamExt;
use futures_util::future::BoxFuture;
use sqlx::Row;
use sqlx::any::AnyRow;

use super::{Store, in_time};
use crate::audit::AuditEntry;
use crate::audit::chain::{ChainId, Head, Position, RecordHash};
use crate::audit::checkpoint::StoredCheckpoint;
use crate::audit::forward::{Backlog, ForwardStore, RunSize, Turn};
use crate::registry::StoreUnavailable;

/// Longer than a run takes to be read on a busy disk. A connection that a network has forgotten answers nothing, ever: what was to be
/// noted there is sent once more.
const PATIENCE: Duration = Duration::from_secs(10);

impl ForwardStore for Store {
    fn take_turn<'a>(
        &'a self,
        sink: &'a str,
        holder: &'a str,
        now: UnixTime,
        until: UnixTime,
    ) -> BoxFuture<'a, Result<Option<Turn>, StoreUnavailable>> {
        in_time(PATIENCE, async move {
            // Whoever waits for a turn asks all the time: for that nobody waits to write.
            let taken: Option<i64> = sqlx::query_scalar("SELECT leased_until FROM audit_forward WHERE sink = $1")
                .bind(sink)
                .fetch_optional(&self.readers)
                .await?;
            if taken.is_some_and(|until| until > now.as_millis()) {
                return Ok(None);
            }
            let _turn = self.turn_to_write().await;
            let mut transaction = self.begin_write().await?;
            sqlx::query(
                "INSERT INTO audit_forward (sink, lease, holder, leased_until, checkpoint) VALUES ($1, 0, '', 0, 0) \
                 ON CONFLICT (sink) DO NOTHING",
            )
            .bind(sink)
            .execute(&mut *transaction)
            .await?;
            let taken: Option<(i64, i64)> = sqlx::query_as(
                "UPDATE audit_forward SET lease = lease + 1, holder = $2, leased_until = $4 \
                 WHERE sink = $1 AND leased_until <= $3 RETURNING lease, checkpoint",
            )
            .bind(sink)
            .bind(holder)
            .bind(now.as_millis())
            .bind(until.as_millis())
            .fetch_optional(&mut *transaction)
            .await?;
            // Read under the lock of that row: the holder before has moved its last cursor.
            let sent =
                sqlx::query("SELECT chain, sequence, hash FROM audit_forward_cursor WHERE sink = $1 ORDER BY chain")
                    .bind(sink)
                    .fetch_all(&mut *transaction)
                    .await?;
            transaction.commit().await?;
            let Some((lease, checkpoint)) = taken else { return Ok(None) };
            let sent = sent.iter().map(head).collect::<Result<_, _>>()?;
            Ok(Some(Turn { lease, sent, checkpoint }))
        })
    }

    fn keep_turn<'a>(
        &'a self,
        sink: &'a str,
        lease: i64,
        until: UnixTime,
    ) -> BoxFuture<'a, Result<bool, StoreUnavailable>> {
        in_time(PATIENCE, async move {
            let _turn = self.turn_to_write().await;
            let mut transaction = self.begin_write().await?;
            let kept = sqlx::query("UPDATE audit_forward SET leased_until = $3 WHERE sink = $1 AND lease = $2")
                .bind(sink)
                .bind(lease)
                .bind(until.as_millis())
                .execute(&mut *transaction)
                .await?;
            transaction.commit().await?;
            Ok(kept.rows_affected() > 0)
        })
    }

    fn note_sent<'a>(
        &'a self,
        sink: &'a str,
        lease: i64,
        sent: &'a [Head],
        checkpoint: Option<i64>,
    ) -> BoxFuture<'a, Result<bool, StoreUnavailable>> {
        in_time(PATIENCE, async move {
            let _turn = self.turn_to_write().await;
            let mut transaction = self.begin_write().await?;
            // Locks the row: nobody takes the turn until the cursors are moved.
            let held = sqlx::query(
                "UPDATE audit_forward SET checkpoint = COALESCE($3, checkpoint) WHERE sink = $1 AND lease = $2",
            )
            .bind(sink)
            .bind(lease)
            .bind(checkpoint)
            .execute(&mut *transaction)
            .await?;
            if held.rows_affected() == 0 {
                return Ok(false);
            }
            for head in sent {
                sqlx::query(
                    "INSERT INTO audit_forward_cursor (sink, chain, sequence, hash) VALUES ($1, $2, $3, $4) \
                     ON CONFLICT (sink, chain) DO UPDATE SET sequence = excluded.sequence, hash = excluded.hash",
                )
                .bind(sink)
                .bind(head.chain().number())
                .bind(head.position.sequence())
                .bind(head.hash.octets().as_slice())
                .execute(&mut *transaction)
                .await?;
            }
            transaction.commit().await?;
            Ok(true)
        })
    }

    fn cuts(&self) -> BoxFuture<'_, Result<Vec<Head>, StoreUnavailable>> {
        in_time(PATIENCE, async move {
            let cuts = sqlx::query("SELECT id, cut_sequence, cut_hash FROM audit_chain ORDER BY id")
                .fetch_all(&self.readers)
                .await?;
            Ok(cuts.iter().map(head).collect::<Result<_, _>>()?)
        })
    }

    fn records_from(&self, first: Position, size: RunSize) -> BoxFuture<'_, Result<Vec<AuditEntry>, StoreUnavailable>> {
        in_time(PATIENCE, async move {
            let mut rows = sqlx::query(
                "SELECT position, at, hash, body FROM audit_record WHERE position BETWEEN $1 AND $2 \
                 ORDER BY position LIMIT $3",
            )
            .bind(first.number())
            .bind(last_place(first.chain()))
            // The one at `first` itself is there to be compared: it uses nothing up.
            .bind(i64::try_from(size.records).unwrap_or(i64::MAX).saturating_add(1))
            .fetch(&self.readers);
            let (mut entries, mut records, mut bytes) = (Vec::new(), 0, 0);
            while let Some(row) = rows.try_next().await? {
                let entry = entry(&row)?;
                if entry.position != first {
                    bytes += entry.body.len();
                    if records == size.records || (bytes > size.bytes && records > 0) {
                        break;
                    }
                    records += 1;
                }
                entries.push(entry);
            }
            Ok(entries)
        })
    }

    fn checkpoint_after(&self, number: i64) -> BoxFuture<'_, Result<Option<StoredCheckpoint>, StoreUnavailable>> {
        in_time(PATIENCE, async move {
            let next: Option<(i64, i64, String)> = sqlx::query_as(
                "SELECT number, at, statement FROM audit_checkpoint WHERE number > $1 ORDER BY number LIMIT 1",
            )
            .bind(number)
            .fetch_optional(&self.readers)
            .await?;
            let stored =
                |(number, at, statement)| StoredCheckpoint { number, at: UnixTime::from_millis(at), statement };
            Ok(next.map(stored))
        })
    }

    fn backlog<'a>(&'a self, sink: &'a str) -> BoxFuture<'a, Result<Backlog, StoreUnavailable>> {
        in_time(PATIENCE, async move {
            let chains: Vec<(i64, i64)> = sqlx::query_as(
                "SELECT chain.id, CASE WHEN chain.cut_sequence > COALESCE(sent.sequence, 0) THEN chain.cut_sequence \
                     ELSE COALESCE(sent.sequence, 0) END \
                 FROM audit_chain AS chain \
                 LEFT JOIN audit_forward_cursor AS sent ON sent.chain = chain.id AND sent.sink = $1 ORDER BY chain.id",
            )
            .bind(sink)
            .fetch_all(&self.readers)
            .await?;
            let mut backlog = Backlog::default();
            for (id, sent) in chains {
                let chain = ChainId::new(id).ok_or_else(|| damaged("there is no chain of that number"))?;
                let sent = Position::of(chain, sent).ok_or_else(|| damaged("a cursor is out of its chain"))?;
                let head: i64 = sqlx::query_scalar(
                    "SELECT COALESCE(MAX(position), CAST(0 AS BIGINT)) FROM audit_record WHERE position BETWEEN $1 AND $2",
                )
                .bind(sent.number() + 1)
                .bind(last_place(chain))
                .fetch_one(&self.readers)
                .await?;
                let oldest: Option<i64> = sqlx::query_scalar(
                    "SELECT at FROM audit_record WHERE position BETWEEN $1 AND $2 ORDER BY position LIMIT 1",
                )
                .bind(sent.number() + 1)
                .bind(last_place(chain))
                .fetch_optional(&self.readers)
                .await?;
                backlog.records += (head - sent.number()).max(0);
                let oldest = oldest.map(UnixTime::from_millis);
                backlog.oldest = backlog.oldest.into_iter().chain(oldest).min();
            }
            Ok(backlog)
        })
    }
}

/// The last place that a record of this chain may have.
fn last_place(chain: ChainId) -> i64 {
    (chain.number() << 40) + (1 << 40) - 1
}

/// A chain, a number in it and a hash.
fn head(row: &AnyRow) -> Result<Head, sqlx::Error> {
    let (chain, sequence, hash): (i64, i64, Vec<u8>) = (row.try_get(0)?, row.try_get(1)?, row.try_get(2)?);
    let position = ChainId::new(chain).and_then(|chain| Position::of(chain, sequence));
    Ok(Head {
        position: position.ok_or_else(|| damaged("a position is out of its chain"))?,
        hash: RecordHash::from_octets(&hash).ok_or_else(|| damaged("a hash has not 32 octets"))?,
    })
}

fn entry(row: &AnyRow) -> Result<AuditEntry, sqlx::Error> {
    let hash: Vec<u8> = row.try_get(2)?;
    Ok(AuditEntry {
        position: Position::from_number(row.try_get(0)?).ok_or_else(|| damaged("a position is of no chain"))?,
        at: UnixTime::from_millis(row.try_get(1)?),
        hash: RecordHash::from_octets(&hash).ok_or_else(|| damaged("a hash has not 32 octets"))?,
        body: row.try_get(3)?,
    })
}

fn damaged(what: &str) -> sqlx::Error {
    sqlx::Error::Decode(format!("the audit log is damaged: {what}").into())
}
