//! Writing the index: each step is one transaction, progress and rows together.
//!
//! Whoever has the index's lock takes the next stretch of the log; another one that comes meanwhile leaves it to him.

use std::collections::HashMap;
use std::sync::{Arc, LazyLock};

use countersign_resource_server::time::UnixTime;
use sqlx::any::AnyRow;
use sqlx::{Any, AssertSqlSafe, FromRow, Postgres, QueryBuilder, Row, Sqlite, Transaction};

use super::block::{Block, Blocks};
use super::recent::Stretch;
use super::{FORMAT, LogChain, Looked, position};
use crate::audit::chain::Head;
use crate::audit::index::{Advanced, Named};
use crate::audit::verify::AuditReading;
use crate::store::{Engine, Store, sqlite};

/// Records that are read at once. The longest is some 130 KB.
const READ: usize = 256;

/// Rows that share one statement, a power of two.
const CHUNK: usize = 128;

/// The same with PostgreSQL, whose statements have a time-out.
const CHUNK_POSTGRES: usize = 4_000;

/// What one step adds.
#[derive(Default)]
struct Step {
    blocks: Blocks,
    /// The last record of each chain, with its hash, and up to where the chain is removed.
    progress: Vec<(i64, i64, Vec<u8>, i64)>,
    records: usize,
}

impl Step {
    fn add(&mut self, position: i64, at: UnixTime, body: &str) {
        for term in Named::of(body).rows(at) {
            self.blocks.add(position, at, term);
        }
        self.records += 1;
    }

    fn add_all(&mut self, stretch: &Stretch) {
        for (position, at, term) in stretch.terms() {
            self.blocks.add(position, at, term);
        }
        self.records += stretch.records;
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
            let records = step.records;
            insert_sqlite(&mut transaction, step).await?;
            transaction.commit().await?;
            Ok(Advanced::By(records))
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
                emptied(&mut transaction).await?;
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
            let records = step.records;
            insert_postgres(&mut transaction, step).await?;
            transaction.commit().await?;
            Ok(Advanced::By(records))
        }
    }
}

/// PostgreSQL's is another one from now on, and empty, unless it is of a later format.
pub(super) async fn empty(store: &Store) -> Result<(), sqlx::Error> {
    let Engine::Postgres { pool, .. } = &store.engine else { return Ok(()) };
    let mut transaction = pool.begin().await?;
    let format: i64 =
        sqlx::query_scalar("SELECT format FROM audit_index FOR UPDATE").fetch_one(&mut *transaction).await?;
    if format <= FORMAT {
        emptied(&mut transaction).await?;
    }
    transaction.commit().await
}

async fn emptied(transaction: &mut Transaction<'_, Postgres>) -> Result<(), sqlx::Error> {
    for statement in [
        "TRUNCATE audit_index_term, audit_index_progress, audit_index_sweep",
        "UPDATE audit_index SET id = gen_random_uuid()::text",
    ] {
        sqlx::query(statement).execute(&mut **transaction).await?;
    }
    set_format(transaction).await
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
            recent.into_iter().for_each(|stretch| step.add_all(&stretch));
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

/// One text for each power of two up to [`CHUNK`], the largest first, and how many rows it writes: any number is written by these.
///
/// What was indexed before, and lost the note of how far, is written over.
static INSERT: LazyLock<Vec<(usize, Arc<str>)>> = LazyLock::new(|| {
    let of = |rows: usize| {
        let mut insert: QueryBuilder<Sqlite> = QueryBuilder::new(
            "INSERT OR REPLACE INTO audit_index_term (kind, value, at, position, span, reach, places) ",
        );
        insert.push_values(0..rows, |mut row, _| {
            for _ in 0..7 {
                row.push("?");
            }
        });
        (rows, insert.sql().as_str().into())
    };
    (0..=CHUNK.ilog2()).rev().map(|power| of(1 << power)).collect()
});

/// What is removed before a chain is first indexed leaves no rows to sweep.
const PROGRESS: &str = "INSERT INTO audit_index_progress (chain, position, hash, swept, sweeping) \
     VALUES ($1, $2, $3, $4, $4) ON CONFLICT (chain) DO UPDATE SET position = excluded.position, hash = excluded.hash";

async fn insert_sqlite(transaction: &mut Transaction<'_, Sqlite>, step: Step) -> Result<(), sqlx::Error> {
    let mut rows = step.blocks.rows().into_iter();
    for (at_once, statement) in INSERT.iter() {
        while rows.len() >= *at_once {
            let mut query = sqlx::query(AssertSqlSafe(Arc::clone(statement)));
            for row in rows.by_ref().take(*at_once) {
                let Block { kind, value, at, position, span, reach, places } = row;
                query = query.bind(kind).bind(value).bind(at).bind(position).bind(span).bind(reach).bind(places);
            }
            query.execute(&mut **transaction).await?;
        }
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

async fn insert_postgres(transaction: &mut Transaction<'_, Postgres>, step: Step) -> Result<(), sqlx::Error> {
    for chunk in step.blocks.rows().chunks(CHUNK_POSTGRES) {
        let column = |column: fn(&Block) -> i64| chunk.iter().map(column).collect::<Vec<i64>>();
        sqlx::query(
            "INSERT INTO audit_index_term (kind, value, at, position, span, reach, places) \
             SELECT * FROM UNNEST($1::bigint[], $2::bigint[], $3::bigint[], $4::bigint[], $5::bigint[], $6::bigint[], $7::bytea[]) \
             ON CONFLICT (kind, value, at, position) \
             DO UPDATE SET span = excluded.span, reach = excluded.reach, places = excluded.places",
        )
        .bind(column(|row| row.kind))
        .bind(column(|row| row.value))
        .bind(column(|row| row.at))
        .bind(column(|row| row.position))
        .bind(column(|row| row.span))
        .bind(column(|row| row.reach))
        .bind(chunk.iter().map(|row| row.places.as_slice()).collect::<Vec<_>>())
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

/// Where a row is: its term, when its earliest place was decided, and its first position.
type Key = (i64, i64, i64, i64);

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
    let begun: Option<Key> = sqlx::query_as("SELECT kind, value, at, position FROM audit_index_sweep")
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
    let to: Option<Key> = sqlx::query_as(
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
    remove_swept(&mut transaction, from, end).await?;
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

/// A row of which some places are removed: those up to one.
struct RemovedFrom {
    block: Block,
    up_to: i64,
}

impl RemovedFrom {
    /// What of it is not.
    fn left(&self) -> Result<Vec<Block>, sqlx::Error> {
        let mut left = Blocks::default();
        for place in self.block.places()?.iter().filter(|place| place.position > self.up_to) {
            left.add_to((self.block.kind, self.block.value), place.position, place.at.as_millis());
        }
        Ok(left.rows())
    }
}

impl FromRow<'_, AnyRow> for RemovedFrom {
    fn from_row(row: &AnyRow) -> Result<Self, sqlx::Error> {
        let block = Block { kind: row.try_get("kind")?, value: row.try_get("value")?, ..Block::from_row(row)? };
        Ok(Self { block, up_to: row.try_get("sweeping")? })
    }
}

/// Of the rows after one and up to another those whose places are all removed, and from the others what is removed of them.
async fn remove_swept(transaction: &mut Transaction<'_, Any>, from: Key, to: Key) -> Result<(), sqlx::Error> {
    let rows = "(row.kind, row.value, row.at, row.position) > ($1, $2, $3, $4) \
                AND (row.kind, row.value, row.at, row.position) <= ($5, $6, $7, $8)";
    let of_chain = "chain.chain = row.position / 1099511627776";
    let all = format!(
        "DELETE FROM audit_index_term AS row WHERE {rows} AND EXISTS (SELECT 1 FROM audit_index_progress AS chain \
         WHERE {of_chain} AND row.position + row.reach <= chain.sweeping)"
    );
    let some = format!(
        "SELECT row.at, row.position, row.places, row.kind, row.value, chain.sweeping \
         FROM audit_index_term AS row JOIN audit_index_progress AS chain ON {of_chain} \
         AND row.position <= chain.sweeping WHERE {rows}"
    );
    let ends = [from.0, from.1, from.2, from.3, to.0, to.1, to.2, to.3];
    let bound = ends.iter().fold(sqlx::query(AssertSqlSafe(all)), |query, end| query.bind(*end));
    bound.execute(&mut **transaction).await?;
    let bound = ends.iter().fold(sqlx::query(AssertSqlSafe(some)), |query, end| query.bind(*end));
    for row in bound.fetch_all(&mut **transaction).await? {
        let row = RemovedFrom::from_row(&row)?;
        sqlx::query("DELETE FROM audit_index_term WHERE kind = $1 AND value = $2 AND at = $3 AND position = $4")
            .bind(row.block.kind)
            .bind(row.block.value)
            .bind(row.block.at)
            .bind(row.block.position)
            .execute(&mut **transaction)
            .await?;
        // One that begins there already is of another step: the longer one has all that the other has.
        for left in row.left()? {
            sqlx::query(
                "INSERT INTO audit_index_term (kind, value, at, position, span, reach, places) \
                 VALUES ($1, $2, $3, $4, $5, $6, $7) ON CONFLICT (kind, value, at, position) \
                 DO UPDATE SET span = excluded.span, reach = excluded.reach, places = excluded.places \
                 WHERE excluded.reach > audit_index_term.reach",
            )
            .bind(left.kind)
            .bind(left.value)
            .bind(left.at)
            .bind(left.position)
            .bind(left.span)
            .bind(left.reach)
            .bind(left.places)
            .execute(&mut **transaction)
            .await?;
        }
    }
    Ok(())
}
