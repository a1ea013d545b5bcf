//! Writing the index: each step is one transaction, progress and rows together.
//!
//! Whoever has the index's lock takes the next stretch of the log; another one that comes meanwhile leaves it to him.

use std::collections::HashMap;
use std::sync::{Arc, LazyLock};

use countersign_resource_server::time::UnixTime;
use sqlx::{AssertSqlSafe, Postgres, QueryBuilder, Sqlite, Transaction};

use super::recent::Stretch;
use super::{FORMAT, LogChain, Looked, position};
use crate::audit::chain::Head;
use crate::audit::index::{Advanced, Named, Term};
use crate::audit::verify::AuditReading;
use crate::store::{Engine, Store, sqlite};

/// Records that are read at once. The longest is some 130 KB.
const READ: usize = 256;

/// Rows that share one statement.
const CHUNK: usize = 250;

/// The same with PostgreSQL, whose statements have a time-out.
const CHUNK_POSTGRES: usize = 4_000;

/// A row of the index: kind, value, at, position.
pub(super) type TermRow = (i64, i64, i64, i64);

/// The row of one term of a record.
pub(super) const fn row(position: i64, at: UnixTime, Term { kind, value }: Term) -> TermRow {
    (kind as i64, value, at.as_millis(), position)
}

/// What one step adds.
#[derive(Default)]
struct Step {
    rows: Vec<TermRow>,
    /// The last record of each chain, with its hash, and up to where the chain is removed.
    progress: Vec<(i64, i64, Vec<u8>, i64)>,
    records: usize,
}

impl Step {
    fn add(&mut self, position: i64, at: UnixTime, body: &str) {
        self.rows.extend(Named::of(body).rows(at).map(|term| row(position, at, term)));
        self.records += 1;
    }

    /// Neighbours in the index are written one after the other.
    fn sort(&mut self) {
        self.rows.sort_unstable();
    }
}

pub(super) async fn advance(store: &Store, looked: &Looked, limit: usize) -> Result<Advanced, sqlx::Error> {
    match &store.engine {
        Engine::Sqlite { index, .. } => {
            let opened = index.opened().await?;
            let mut transaction = match opened.writer.begin_with("BEGIN IMMEDIATE").await {
                Err(error) if sqlite::is_busy(&error) => return Ok(Advanced::Busy),
                begun => begun?,
            };
            let id: String = sqlx::query_scalar("SELECT id FROM audit_index").fetch_one(&mut *transaction).await?;
            if id != looked.index {
                return Ok(Advanced::Busy);
            }
            if !looked.is_of_this_past {
                // Another file: to empty this one would take minutes.
                drop(transaction);
                index.replace(&opened).await?;
                return Ok(Advanced::Emptied);
            }
            let progress: Vec<Come> = sqlx::query_as(COME).fetch_all(&mut *transaction).await?;
            let step = read_step(store, looked, progress, limit).await?;
            insert_sqlite(&mut transaction, &step).await?;
            transaction.commit().await?;
            Ok(Advanced::By(step.records))
        }
        Engine::Postgres { pool, .. } => {
            let mut transaction = pool.begin().await?;
            // What a crash takes away is indexed again.
            sqlx::query("SET LOCAL synchronous_commit = off").execute(&mut *transaction).await?;
            let held: Option<(i64, String)> =
                sqlx::query_as("SELECT format, id FROM audit_index FOR UPDATE SKIP LOCKED")
                    .fetch_optional(&mut *transaction)
                    .await?;
            let Some((format, id)) = held else { return Ok(Advanced::Busy) };
            if format > FORMAT || id != looked.index {
                return Ok(Advanced::Busy);
            }
            let is_without_rows = looked.progress.is_empty();
            if !looked.is_of_this_past || (format < FORMAT && !is_without_rows) {
                for statement in [
                    "TRUNCATE audit_index_term, audit_index_progress, audit_index_sweep",
                    "UPDATE audit_index SET id = gen_random_uuid()::text",
                ] {
                    sqlx::query(statement).execute(&mut *transaction).await?;
                }
                set_format(&mut transaction).await?;
                transaction.commit().await?;
                return Ok(Advanced::Emptied);
            }
            let progress: Vec<Come> = sqlx::query_as(COME).fetch_all(&mut *transaction).await?;
            if format < FORMAT {
                if !progress.is_empty() {
                    return Ok(Advanced::Busy);
                }
                set_format(&mut transaction).await?;
            }
            let step = read_step(store, looked, progress, limit).await?;
            insert_postgres(&mut transaction, &step).await?;
            transaction.commit().await?;
            Ok(Advanced::By(step.records))
        }
    }
}

async fn set_format(transaction: &mut Transaction<'_, Postgres>) -> Result<(), sqlx::Error> {
    sqlx::query("UPDATE audit_index SET format = $1").bind(FORMAT).execute(&mut **transaction).await.map(drop)
}

/// How far the index has come: chain, place and hash.
type Come = (i64, i64, Vec<u8>);

const COME: &str = "SELECT chain, position, hash FROM audit_index_progress";

/// The next records of the log, chain by chain, and where the index is with them: from memory what this process has just
/// written, and what is not there from the log.
async fn read_step(store: &Store, looked: &Looked, come: Vec<Come>, limit: usize) -> Result<Step, sqlx::Error> {
    let come: HashMap<i64, (i64, Vec<u8>)> =
        come.into_iter().map(|(chain, position, hash)| (chain, (position, hash))).collect();
    let mut step = Step::default();
    // The one that is furthest behind first: a busy chain keeps no other waiting for ever.
    let mut chains: Vec<&LogChain> = looked.log.iter().collect();
    chains
        .sort_by_key(|chain| std::cmp::Reverse(chain.last.0 - chain.indexed(looked.progress.get(&chain.id.number()))));
    for chain in chains {
        let id = chain.id.number();
        // Somebody else may have come further since.
        let from = come.get(&id).filter(|come| come.0 >= chain.cut.0).unwrap_or(&chain.cut);
        let recent = recent(store, from, chain, limit.saturating_sub(step.records));
        if let Some(last) = recent.last().map(|stretch| stretch.last)
            && is_in_the_log(store, last).await?
        {
            step.records += recent.iter().map(|stretch| stretch.records).sum::<usize>();
            // Under load they are megabytes, of which no more is taken than they are.
            step.rows.reserve_exact(recent.iter().map(|stretch| stretch.rows.len()).sum());
            step.rows.extend(recent.into_iter().flat_map(|stretch| stretch.rows));
            // What was appended since is there the next time, if it is not there now.
            step.progress.push((id, last.position.number(), last.hash.octets().to_vec(), chain.cut.0));
            continue;
        }
        let (mut read, mut last) = (from.0, None);
        while read < chain.last.0 && step.records < limit {
            let most = u32::try_from(READ.min(limit - step.records)).unwrap_or(u32::MAX);
            let (after, to) = (position(read)?, position(chain.last.0)?);
            // Whatever is the matter with the log, it is not the index that is damaged.
            let run = store.run(after, to, most).await.map_err(|error| sqlx::Error::Protocol(error.to_string()))?;
            for record in run.iter() {
                read = record.position.number();
                // What is none, `audit verify` finds: it keeps no other from being found here.
                if record.is_whole {
                    step.add(read, record.at, record.body);
                    last = Some((read, record.hash.octets().to_vec()));
                }
            }
            if run.is_empty() {
                break;
            }
            tokio::task::yield_now().await;
        }
        if let Some((position, hash)) = last {
            step.progress.push((id, position, hash, chain.cut.0));
        }
    }
    step.sort();
    Ok(step)
}

/// What this process has appended to this chain after `from`, a place and its hash: some `limit` records.
fn recent(store: &Store, from: &(i64, Vec<u8>), chain: &LogChain, limit: usize) -> Vec<Stretch> {
    let mut stretches: Vec<Stretch> = Vec::new();
    let mut records = 0;
    while records < limit {
        let after = stretches.last().map_or((from.0, from.1.as_slice()), |stretch| {
            (stretch.last.position.number(), stretch.last.hash.octets().as_slice())
        });
        let Some(stretch) = store.recent.after(after, (chain.last.0, &chain.last.1)) else { break };
        records += stretch.records;
        stretches.push(stretch);
    }
    stretches
}

/// Whether the log has this record: what this process appended may have been lost since, and others be in its place.
async fn is_in_the_log(store: &Store, last: Head) -> Result<bool, sqlx::Error> {
    let hash: Option<Vec<u8>> = sqlx::query_scalar("SELECT hash FROM audit_record WHERE position = $1")
        .bind(last.position.number())
        .fetch_optional(&store.readers)
        .await?;
    Ok(hash.is_some_and(|hash| hash == last.hash.octets()))
}

/// One text for every chunk: the last one is filled up with its last row again, which changes nothing.
static INSERT: LazyLock<Arc<str>> = LazyLock::new(|| {
    let mut insert: QueryBuilder<Sqlite> =
        QueryBuilder::new("INSERT OR IGNORE INTO audit_index_term (kind, value, at, position) ");
    insert.push_values(0..CHUNK, |mut row, _| {
        row.push("?").push("?").push("?").push("?");
    });
    insert.sql().as_str().into()
});

/// What is removed before a chain is first indexed leaves no rows to sweep.
const PROGRESS: &str = "INSERT INTO audit_index_progress (chain, position, hash, swept, sweeping) \
     VALUES ($1, $2, $3, $4, $4) ON CONFLICT (chain) DO UPDATE SET position = excluded.position, hash = excluded.hash";

async fn insert_sqlite(transaction: &mut Transaction<'_, Sqlite>, step: &Step) -> Result<(), sqlx::Error> {
    for chunk in step.rows.chunks(CHUNK) {
        let mut query = sqlx::query(AssertSqlSafe(Arc::clone(&INSERT)));
        let filler = chunk.iter().rev().take(1).cycle().take(CHUNK - chunk.len());
        for (kind, value, at, position) in chunk.iter().chain(filler) {
            query = query.bind(*kind).bind(*value).bind(*at).bind(*position);
        }
        query.execute(&mut **transaction).await?;
    }
    for (chain, position, hash, cut) in &step.progress {
        sqlx::query(PROGRESS)
            .bind(*chain)
            .bind(*position)
            .bind(hash.as_slice())
            .bind(*cut)
            .execute(&mut **transaction)
            .await?;
    }
    Ok(())
}

async fn insert_postgres(transaction: &mut Transaction<'_, Postgres>, step: &Step) -> Result<(), sqlx::Error> {
    for chunk in step.rows.chunks(CHUNK_POSTGRES) {
        let column = |column: fn(&TermRow) -> i64| chunk.iter().map(column).collect::<Vec<i64>>();
        sqlx::query(
            "INSERT INTO audit_index_term (kind, value, at, position) \
             SELECT * FROM UNNEST($1::bigint[], $2::bigint[], $3::bigint[], $4::bigint[]) ON CONFLICT DO NOTHING",
        )
        .bind(column(|row| row.0))
        .bind(column(|row| row.1))
        .bind(column(|row| row.2))
        .bind(column(|row| row.3))
        .execute(&mut **transaction)
        .await?;
    }
    for (chain, position, hash, cut) in &step.progress {
        sqlx::query(PROGRESS)
            .bind(*chain)
            .bind(*position)
            .bind(hash.as_slice())
            .bind(*cut)
            .execute(&mut **transaction)
            .await?;
    }
    Ok(())
}

/// Looks at the next `limit` rows of the index, whatever they lead to, and removes those of removed records.
pub(super) async fn sweep(store: &Store, looked: &Looked, limit: u32) -> Result<bool, sqlx::Error> {
    let mut transaction = match &store.engine {
        Engine::Sqlite { index, .. } => match index.opened().await?.sweeper.begin_with("BEGIN IMMEDIATE").await {
            Err(error) if sqlite::is_busy(&error) => return Ok(true),
            begun => begun?,
        },
        Engine::Postgres { .. } => {
            let mut transaction = store.writers.begin().await?;
            sqlx::query("SET LOCAL synchronous_commit = off").execute(&mut *transaction).await?;
            sqlx::query("SELECT singleton FROM audit_index FOR UPDATE").execute(&mut *transaction).await?;
            transaction
        }
    };
    let id: String = sqlx::query_scalar("SELECT id FROM audit_index").fetch_one(&mut *transaction).await?;
    if id != looked.index {
        return Ok(true);
    }
    let begun: Option<(i64, i64, i64, i64)> = sqlx::query_as("SELECT kind, value, at, position FROM audit_index_sweep")
        .fetch_optional(&mut *transaction)
        .await?;
    let from = match begun {
        Some(from) => from,
        None => {
            for chain in &looked.log {
                sqlx::query("UPDATE audit_index_progress SET sweeping = $2 WHERE chain = $1")
                    .bind(chain.id.number())
                    .bind(chain.cut.0)
                    .execute(&mut *transaction)
                    .await?;
            }
            (0, i64::MIN, i64::MIN, 0)
        }
    };
    let to: Option<(i64, i64, i64, i64)> = sqlx::query_as(
        "SELECT kind, value, at, position FROM audit_index_term WHERE (kind, value, at, position) > ($1, $2, $3, $4) \
         ORDER BY kind, value, at, position LIMIT 1 OFFSET $5",
    )
    .bind(from.0)
    .bind(from.1)
    .bind(from.2)
    .bind(from.3)
    .bind(i64::from(limit.saturating_sub(1)))
    .fetch_optional(&mut *transaction)
    .await?;
    let end = to.unwrap_or((i64::MAX, i64::MAX, i64::MAX, i64::MAX));
    sqlx::query(
        "DELETE FROM audit_index_term WHERE (kind, value, at, position) > ($1, $2, $3, $4) \
         AND (kind, value, at, position) <= ($5, $6, $7, $8) AND EXISTS (SELECT 1 FROM audit_index_progress AS chain \
         WHERE chain.chain = audit_index_term.position / 1099511627776 AND audit_index_term.position <= chain.sweeping)",
    )
    .bind(from.0)
    .bind(from.1)
    .bind(from.2)
    .bind(from.3)
    .bind(end.0)
    .bind(end.1)
    .bind(end.2)
    .bind(end.3)
    .execute(&mut *transaction)
    .await?;
    sqlx::query("DELETE FROM audit_index_sweep").execute(&mut *transaction).await?;
    match to {
        Some(to) => {
            sqlx::query(
                "INSERT INTO audit_index_sweep (singleton, kind, value, at, position) VALUES (1, $1, $2, $3, $4)",
            )
            .bind(to.0)
            .bind(to.1)
            .bind(to.2)
            .bind(to.3)
            .execute(&mut *transaction)
            .await?;
        }
        None => {
            sqlx::query("UPDATE audit_index_progress SET swept = sweeping").execute(&mut *transaction).await?;
        }
    }
    transaction.commit().await?;
    Ok(to.is_some())
}
