//! The index of the audit log: small steps behind the records, reading in SQL that both engines accept.
//!
//! With PostgreSQL it is tables beside the others; with SQLite a file beside the store, because writing it there would
//! take the store's one write lock from tokens. How far it is stands in the transaction of its rows, with the hash of
//! the last record: an index that belongs to another past is noticed and begins anew.

/// What a row is.
mod block;

/// The file of its own that it is with SQLite.
mod file;

/// Looking for places in rows.
mod places;

/// What has just been written.
mod recent;

/// Writing, engine by engine.
mod write;

pub(super) use file::IndexFile;
pub(super) use recent::Recent;

use std::collections::HashMap;
use std::ops::Range;

use countersign_resource_server::time::UnixTime;
use futures_util::future::BoxFuture;
use sqlx::any::AnyRow;
use sqlx::error::DatabaseError;
use sqlx::{AnyPool, Row};

use super::audit::{EntryRow, chain_id, damaged};
use super::{Engine, Store};
use crate::audit::AuditEntry;
use crate::audit::chain::{ChainId, Position};
use crate::audit::index::{Advanced, AuditIndex, ChainStanding, Place, Seen, Standing, Stretch, Term};
use crate::audit::verify::{AuditReading, Run};
use crate::registry::StoreUnavailable;

/// What terms are made of, which of them have rows, and what a row is. Another number begins the index anew. 1 had a row for every
/// name, 2 for every place.
const FORMAT: i64 = 3;

/// Of so many records that lie together all are read where one of them is wanted: 64 of them are some 50 KB.
const DENSE: i64 = 64;

impl AuditIndex for Store {
    fn standing(&self) -> BoxFuture<'_, Result<Standing, StoreUnavailable>> {
        Box::pin(async move { Ok(self.looked_at().await?.standing()?) })
    }

    fn advance(&self, limit: usize) -> BoxFuture<'_, Result<Advanced, StoreUnavailable>> {
        Box::pin(async move {
            self.recent.look_through();
            let looked = self.looked_at().await?;
            self.recent.forget(&looked.indexed());
            if looked.is_of_this_past && looked.standing()?.behind() <= 0 {
                return Ok(Advanced::By(0));
            }
            let advanced = write::advance(self, &looked, limit).await;
            self.unless_damaged(advanced, Advanced::Emptied).await
        })
    }

    fn look_through(&self) {
        self.recent.look_through();
    }

    fn sweep(&self, limit: u32) -> BoxFuture<'_, Result<bool, StoreUnavailable>> {
        Box::pin(async move {
            let looked = self.looked_at().await?;
            if !looked.is_of_this_past || !looked.standing()?.has_removed {
                return Ok(false);
            }
            let swept = write::sweep(self, &looked, limit).await;
            self.unless_damaged(swept, true).await
        })
    }

    fn count(&self, term: Term, span: Range<UnixTime>, most: u32) -> BoxFuture<'_, Result<u32, StoreUnavailable>> {
        Box::pin(async move {
            let count = async { places::count(&self.index_readers().await?, term, span, most).await };
            self.unless_damaged(count.await, 0).await
        })
    }

    fn places<'a>(
        &'a self,
        terms: &'a [Term],
        after: Place,
        until: UnixTime,
        limit: u32,
    ) -> BoxFuture<'a, Result<Seen, StoreUnavailable>> {
        Box::pin(async move {
            let seen = async { places::seen(self, &self.index_readers().await?, terms, after, until, limit).await };
            self.unless_damaged(seen.await, (Vec::new(), None)).await
        })
    }

    fn records<'a>(&'a self, positions: &'a [Position]) -> BoxFuture<'a, Result<Vec<AuditEntry>, StoreUnavailable>> {
        Box::pin(async move {
            let list: Vec<String> = positions.iter().map(|position| position.number().to_string()).collect();
            let (first, last) = (positions.iter().min(), positions.iter().max());
            let (Some(first), Some(last)) = (first, last) else { return Ok(Vec::new()) };
            let among = (last.number() - first.number()) / i64::try_from(positions.len()).unwrap_or(i64::MAX);
            let statement = match &self.engine {
                // One after the other they are read from the disk in long pieces, those between as well.
                Engine::Sqlite { .. } if among <= DENSE => {
                    "SELECT position, at, hash, body FROM audit_record WHERE position BETWEEN $2 AND $3 AND +position IN \
                     (SELECT value FROM json_each('[' || $1 || ']')) ORDER BY position"
                }
                Engine::Sqlite { .. } => {
                    "SELECT position, at, hash, body FROM audit_record WHERE position IN \
                     (SELECT value FROM json_each('[' || $1 || ']')) AND position BETWEEN $2 AND $3 ORDER BY position"
                }
                Engine::Postgres { .. } => {
                    "SELECT position, at, hash, body FROM audit_record \
                     WHERE position = ANY(string_to_array($1, ',')::bigint[]) AND position BETWEEN $2 AND $3 \
                     ORDER BY position"
                }
            };
            let rows: Result<Vec<EntryRow>, sqlx::Error> = sqlx::query_as(statement)
                .bind(list.join(","))
                .bind(first.number())
                .bind(last.number())
                .fetch_all(&self.readers)
                .await;
            match rows {
                Ok(rows) => Ok(rows.into_iter().map(|row| row.0).collect()),
                // One that is none among them hides no other.
                Err(sqlx::Error::ColumnDecode { .. } | sqlx::Error::Decode(_)) => {
                    let mut records = Vec::new();
                    for position in positions {
                        if let Some(before) = Position::from_number(position.number() - 1) {
                            records.extend(whole(&self.run(before, *position, 1).await?));
                        }
                    }
                    records.sort_unstable_by_key(|record| record.position);
                    Ok(records)
                }
                Err(error) => Err(error.into()),
            }
        })
    }

    fn stretch(&self, after: Position, to: Position, limit: u32) -> BoxFuture<'_, Result<Stretch, StoreUnavailable>> {
        Box::pin(async move {
            let run = self.run(after, to, limit).await?;
            Ok((whole(&run).collect(), run.end()))
        })
    }
}

/// What is a record.
fn whole(run: &Run) -> impl Iterator<Item = AuditEntry> {
    run.iter().filter(|record| record.is_whole).map(|record| AuditEntry {
        position: record.position,
        at: record.at,
        hash: record.hash,
        body: record.body.to_owned(),
    })
}

/// The log and its index as they were found.
struct Looked {
    index: String,
    log: Vec<LogChain>,
    progress: HashMap<i64, Progress>,
    /// Whether what the index says of the log is so.
    is_of_this_past: bool,
}

/// A chain of the log: how far it is and what of it is removed, each with its hash.
struct LogChain {
    id: ChainId,
    cut: (i64, Vec<u8>),
    last: (i64, Vec<u8>),
}

/// How far the index is with a chain.
#[derive(Clone)]
struct Progress {
    position: i64,
    hash: Vec<u8>,
    swept: i64,
}

impl LogChain {
    /// The last record that needs no indexing: it is indexed, or removed.
    fn indexed(&self, progress: Option<&Progress>) -> i64 {
        progress.map_or(self.cut.0, |progress| progress.position.max(self.cut.0))
    }
}

impl Looked {
    /// How far the index is with each chain.
    fn indexed(&self) -> HashMap<i64, i64> {
        let of = |chain: &LogChain| (chain.id.number(), chain.indexed(self.progress.get(&chain.id.number())));
        self.log.iter().map(of).collect()
    }

    fn standing(&self) -> Result<Standing, sqlx::Error> {
        let chains = self.log.iter().map(|chain| {
            let progress = self.progress.get(&chain.id.number()).filter(|_| self.is_of_this_past);
            let indexed = position(chain.indexed(progress))?;
            Ok(ChainStanding { id: chain.id, indexed, last: position(chain.last.0)? })
        });
        let chains = chains.collect::<Result<_, sqlx::Error>>()?;
        let has_removed = self
            .log
            .iter()
            .any(|chain| self.progress.get(&chain.id.number()).is_some_and(|progress| progress.swept < chain.cut.0));
        Ok(Standing { index: self.index.clone(), chains, has_removed })
    }
}

impl Store {
    /// First the index, then the log, so that the log is never the one that is behind.
    async fn looked_at(&self) -> Result<Looked, StoreUnavailable> {
        let index = self.index_looked_at().await;
        let (index, progress) = self.unless_damaged(index, (String::new(), HashMap::new())).await?;
        let rows = sqlx::query(
            "SELECT chain.id, chain.cut_sequence, chain.cut_hash, last.position, last.hash FROM audit_chain AS chain \
             LEFT JOIN audit_record AS last ON last.position = (SELECT MAX(position) FROM audit_record \
             WHERE position > chain.id * 1099511627776 AND position < (chain.id + 1) * 1099511627776) ORDER BY chain.id",
        )
        .fetch_all(&self.readers)
        .await?;
        let log = rows.iter().map(log_chain).collect::<Result<Vec<_>, _>>()?;
        let is_of_this_past = self.is_of_this_past(&log, &progress).await?;
        Ok(Looked { index, log, progress, is_of_this_past })
    }

    async fn index_looked_at(&self) -> Result<(String, HashMap<i64, Progress>), sqlx::Error> {
        let readers = self.index_readers().await?;
        let (format, index): (i64, String) =
            sqlx::query_as("SELECT format, id FROM audit_index").fetch_one(&readers).await?;
        if format > FORMAT {
            // Its terms are not ours. What is not indexed is found all the same.
            return Ok((index, HashMap::new()));
        }
        let rows: Vec<(i64, i64, Vec<u8>, i64)> =
            sqlx::query_as("SELECT chain, position, hash, swept FROM audit_index_progress").fetch_all(&readers).await?;
        let progress = |(chain, position, hash, swept)| (chain, Progress { position, hash, swept });
        Ok((index, rows.into_iter().map(progress).collect()))
    }

    /// Whether the records that the index came to are those of the log. A store that was put back has others there, or none.
    async fn is_of_this_past(
        &self,
        log: &[LogChain],
        progress: &HashMap<i64, Progress>,
    ) -> Result<bool, StoreUnavailable> {
        for (id, Progress { position, hash, .. }) in progress {
            let Some(chain) = log.iter().find(|chain| chain.id.number() == *id) else { return Ok(false) };
            let is_known = match position {
                position if *position == chain.last.0 => *hash == chain.last.1,
                position if *position == chain.cut.0 => *hash == chain.cut.1,
                // Removed, and with it all that the index knows of this chain.
                position if *position < chain.cut.0 => true,
                position if *position > chain.last.0 => false,
                position => {
                    let there: Option<Vec<u8>> =
                        sqlx::query_scalar("SELECT hash FROM audit_record WHERE position = $1")
                            .bind(*position)
                            .fetch_optional(&self.readers)
                            .await?;
                    // Removed this moment, it is noticed with the next look.
                    there.is_none_or(|there| there == *hash)
                }
            };
            if !is_known {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// Connections that read the index.
    async fn index_readers(&self) -> Result<AnyPool, sqlx::Error> {
        match &self.engine {
            Engine::Sqlite { index, .. } => Ok(index.opened().await?.readers.clone()),
            Engine::Postgres { .. } => Ok(self.readers.clone()),
        }
    }

    /// Where it turns out to be damaged another one takes its place, and `otherwise` is what the damaged one said. Whoever asked
    /// sees that it is another one.
    async fn unless_damaged<T>(&self, done: Result<T, sqlx::Error>, otherwise: T) -> Result<T, StoreUnavailable> {
        match (done, &self.engine) {
            (Err(error), Engine::Sqlite { index, .. }) if file::is_damage(&error) => {
                tracing::warn!(%error, "the index of the audit log is damaged: it is built anew");
                index.replace_damaged().await?;
                Ok(otherwise)
            }
            (Err(error), Engine::Postgres { .. }) if is_odd(&error) => {
                tracing::warn!(%error, "the index of the audit log is damaged: it is built anew");
                write::empty(self).await?;
                Ok(otherwise)
            }
            (done, _) => Ok(done?),
        }
    }
}

/// Whether a row of PostgreSQL's has what nobody here wrote. 22003 is a number that is out of range.
fn is_odd(error: &sqlx::Error) -> bool {
    let is_out_of_range = |error: &dyn DatabaseError| error.code().is_some_and(|code| code == "22003");
    matches!(error, sqlx::Error::ColumnDecode { .. }) || error.as_database_error().is_some_and(is_out_of_range)
}

fn position(number: i64) -> Result<Position, sqlx::Error> {
    Position::from_number(number).ok_or_else(|| damaged("a position is of no chain"))
}

fn log_chain(row: &AnyRow) -> Result<LogChain, sqlx::Error> {
    let id = chain_id(row.try_get(0)?)?;
    let cut = (id.number() * (1 << 40) + row.try_get::<i64, _>(1)?, row.try_get(2)?);
    let last = match (row.try_get(3)?, row.try_get(4)?) {
        (Some(position), Some(hash)) => (position, hash),
        _ => cut.clone(),
    };
    Ok(LogChain { id, cut, last })
}

#[cfg(test)]
mod tests;
