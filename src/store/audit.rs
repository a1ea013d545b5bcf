//! The audit log's storage: batches through each engine's own connections, reading in SQL that both accept.
//!
//! Takes batches, gives what became of them: which assertions had been used before, and the registry's version read as
//! late as each engine allows. It knows nothing of what a record says.

use std::collections::HashSet;
use std::sync::{Arc, LazyLock};

use countersign_resource_server::time::UnixTime;
use futures_util::future::BoxFuture;
use sha2::{Digest, Sha256};
use sqlx::{AssertSqlSafe, FromRow, Postgres, QueryBuilder, Row, Sqlite, Transaction};

use super::{Engine, Store};
use crate::audit::{Appended, AssertionUse, AuditEntry, AuditStore, Batch, RequestId};
use crate::registry::{RegistryVersion, StoreUnavailable};

impl AuditStore for Store {
    fn lease_writer<'a>(&'a self, node: &'a str) -> BoxFuture<'a, Result<String, StoreUnavailable>> {
        Box::pin(async move {
            let _turn = self.turn_to_write().await;
            let mut transaction = self.begin_write().await?;
            let starts: i64 = sqlx::query_scalar(
                "INSERT INTO audit_writer (node, starts) VALUES ($1, 1) \
                 ON CONFLICT (node) DO UPDATE SET starts = audit_writer.starts + 1 RETURNING starts",
            )
            .bind(node)
            .fetch_one(&mut *transaction)
            .await?;
            transaction.commit().await?;
            Ok(format!("{node}#{starts}"))
        })
    }

    fn append(&self, batch: Arc<Batch>) -> BoxFuture<'static, Result<Appended, StoreUnavailable>> {
        let store = self.clone();
        Box::pin(async move {
            let appended = match &store.engine {
                Engine::Sqlite { writer, .. } => {
                    let _turn = store.turn_to_write().await;
                    append_sqlite(writer.begin_with("BEGIN IMMEDIATE").await?, &batch).await
                }
                Engine::Postgres { pool } => append_postgres(pool, &batch).await,
            };
            Ok(appended?)
        })
    }

    fn last_sequence<'a>(&'a self, writer: &'a str) -> BoxFuture<'a, Result<Option<i64>, StoreUnavailable>> {
        Box::pin(async move {
            // What is still being written is waited for, not overlooked: on SQLite by beginning to write, on PostgreSQL by
            // trying the number that would have come next, which waits for whoever has it.
            let _turn = self.turn_to_write().await;
            let mut transaction = self.begin_write().await?;
            sqlx::query(
                "INSERT INTO audit_record (writer, sequence, at, body) \
                 SELECT $1, COALESCE(MAX(sequence), 0) + 1, 0, '' FROM audit_record WHERE writer = $1 \
                 ON CONFLICT (writer, sequence) DO NOTHING",
            )
            .bind(writer)
            .execute(&mut *transaction)
            .await?;
            // A record has a body; the trial has none.
            let last = sqlx::query_scalar(
                "SELECT sequence FROM audit_record WHERE writer = $1 AND body <> '' ORDER BY sequence DESC LIMIT 1",
            )
            .bind(writer)
            .fetch_optional(&mut *transaction)
            .await?;
            transaction.rollback().await?;
            Ok(last)
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
            let rows: Vec<EntryRow> =
                sqlx::query_as("SELECT writer, sequence, at, body FROM audit_record ORDER BY position DESC LIMIT $1")
                    .bind(i64::from(limit))
                    .fetch_all(&self.readers)
                    .await?;
            Ok(rows.into_iter().map(|row| row.0).collect())
        })
    }

    fn of_request<'a>(&'a self, request: &'a RequestId) -> BoxFuture<'a, Result<Vec<AuditEntry>, StoreUnavailable>> {
        Box::pin(async move {
            // Until records have search indexes: the latest ones only, so that the question stays cheap.
            let rows: Vec<EntryRow> = sqlx::query_as(
                "SELECT writer, sequence, at, body FROM audit_record \
                 WHERE position > (SELECT COALESCE(MAX(position), 0) FROM audit_record) - 100000 AND body LIKE $1 \
                 ORDER BY position",
            )
            .bind(format!("%\"request_id\":\"{request}\"%"))
            .fetch_all(&self.readers)
            .await?;
            Ok(rows.into_iter().map(|row| row.0).collect())
        })
    }
}

struct EntryRow(AuditEntry);

impl FromRow<'_, sqlx::any::AnyRow> for EntryRow {
    fn from_row(row: &sqlx::any::AnyRow) -> Result<Self, sqlx::Error> {
        Ok(Self(AuditEntry {
            writer: row.try_get(0)?,
            sequence: row.try_get(1)?,
            at: UnixTime::from_millis(row.try_get(2)?),
            body: row.try_get(3)?,
        }))
    }
}

/// The most rows that share one statement.
const CHUNK: usize = 64;

/// The last statements of a batch, by the number of rows that are left: these rows, then the registry's version. One text
/// for each number, so that each is prepared once and found again; two statements in one, because a connection to SQLite
/// is another thread, and each call costs two switches.
static LAST: LazyLock<[Arc<str>; CHUNK]> = LazyLock::new(|| {
    std::array::from_fn(|rows| {
        let insert = if rows == 0 { String::new() } else { format!("{}; ", insert_statement(rows)) };
        format!("{insert}SELECT version FROM registry_state").into()
    })
});

/// A full chunk.
static FULL: LazyLock<Arc<str>> = LazyLock::new(|| insert_statement(CHUNK).into());

fn insert_statement(rows: usize) -> String {
    let mut insert: QueryBuilder<Sqlite> = QueryBuilder::new("INSERT INTO audit_record (writer, sequence, at, body) ");
    insert.push_values(0..rows, |mut row, _| {
        row.push("?").push("?").push("?").push("?");
    });
    insert.sql().as_str().to_owned()
}

/// The write lock is held from the first statement, so the registry's version cannot change before the commit.
async fn append_sqlite(mut transaction: Transaction<'static, Sqlite>, batch: &Batch) -> Result<Appended, sqlx::Error> {
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
    let rows: Vec<_> = rows(batch, &replayed).collect();
    let full = rows.chunks_exact(CHUNK);
    let rest = full.remainder();
    for chunk in full {
        let mut query = sqlx::query(AssertSqlSafe(Arc::clone(&FULL)));
        for (sequence, at, body) in chunk {
            query = query.bind(&*batch.writer).bind(*sequence).bind(*at).bind(*body);
        }
        query.execute(&mut *transaction).await?;
    }
    let last = LAST.get(rest.len()).ok_or_else(|| sqlx::Error::Protocol("a chunk is full".to_owned()))?;
    let mut query = sqlx::query_scalar(AssertSqlSafe(Arc::clone(last)));
    for (sequence, at, body) in rest {
        query = query.bind(&*batch.writer).bind(*sequence).bind(*at).bind(*body);
    }
    let version: i64 = query.fetch_one(&mut *transaction).await?;
    transaction.commit().await?;
    Ok(Appended { replayed, version: RegistryVersion(version) })
}

/// The registry's version is read after the commit: one that was committed, and may have been acknowledged, while the
/// records were being written is seen, which a read within the transaction could miss.
async fn append_postgres(pool: &sqlx::PgPool, batch: &Batch) -> Result<Appended, sqlx::Error> {
    let mut connection = pool.acquire().await?;
    let uses = Uses::of(batch);
    let replayed = if uses.first.is_empty() && batch.given_back.is_empty() {
        // One statement is a transaction of its own, and a round trip fewer.
        insert_postgres(&mut *connection, batch, &[]).await?;
        Vec::new()
    } else {
        let mut transaction = sqlx::Connection::begin(&mut *connection).await?;
        if !batch.given_back.is_empty() {
            let digests: Vec<Vec<u8>> = batch.given_back.iter().map(digest).collect();
            sqlx::query("DELETE FROM used_assertion WHERE digest = ANY($1)")
                .bind(digests)
                .execute(&mut *transaction)
                .await?;
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
        .fetch_all(&mut *transaction)
        .await?;
        let replayed = uses.replayed(&fresh.into_iter().collect());
        insert_postgres(&mut *transaction, batch, &replayed).await?;
        transaction.commit().await?;
        replayed
    };
    let version: i64 = sqlx::query_scalar("SELECT version FROM registry_state").fetch_one(&mut *connection).await?;
    Ok(Appended { replayed, version: RegistryVersion(version) })
}

async fn insert_postgres<'c, E>(executor: E, batch: &Batch, replayed: &[usize]) -> Result<(), sqlx::Error>
where
    E: sqlx::Executor<'c, Database = Postgres>,
{
    let mut sequences = Vec::with_capacity(batch.entries.len());
    let mut instants = Vec::with_capacity(batch.entries.len());
    let mut bodies = Vec::with_capacity(batch.entries.len());
    for (sequence, at, body) in rows(batch, replayed) {
        sequences.push(sequence);
        instants.push(at);
        bodies.push(body);
    }
    sqlx::query(
        "INSERT INTO audit_record (writer, sequence, at, body) \
         SELECT $1, sequence, at, body FROM UNNEST($2::bigint[], $3::bigint[], $4::text[]) AS row (sequence, at, body)",
    )
    .bind(&*batch.writer)
    .bind(sequences)
    .bind(instants)
    .bind(bodies)
    .execute(executor)
    .await
    .map(drop)
}

/// The rows of a batch, now that it is known whose assertion had been used before.
fn rows<'a>(batch: &'a Batch, replayed: &'a [usize]) -> impl Iterator<Item = (i64, i64, &'a str)> {
    batch.entries.iter().zip(batch.first_sequence..).enumerate().map(|(index, (entry, sequence))| {
        let body = match &entry.assertion {
            Some((_, if_replayed)) if replayed.binary_search(&index).is_ok() => if_replayed,
            _ => &entry.body,
        };
        (sequence, entry.at.as_millis(), body.as_str())
    })
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
    use crate::store::contract::Bench;

    macro_rules! contract {
        ($($name:ident),* $(,)?) => {
            mod sqlite {
                use super::Bench;
                $(
                    #[tokio::test]
                    async fn $name() {
                        super::$name(&Bench::sqlite().await).await;
                    }
                )*
            }

            mod postgres {
                use super::Bench;
                $(
                    #[tokio::test]
                    async fn $name() {
                        match Bench::postgres(stringify!($name)).await {
                            Some(bench) => super::$name(&bench).await,
                            None => println!("skipped: COUNTERSIGN_TEST_POSTGRES names no database"),
                        }
                    }
                )*
            }
        };
    }

    contract!(
        a_writers_id_is_never_given_twice,
        a_batch_is_written_in_order_and_numbered,
        a_number_is_never_written_twice,
        what_is_still_being_written_is_not_overlooked,
        the_version_is_the_one_at_the_commit,
        an_assertion_is_used_once_across_batches_and_within_one,
        an_assertion_given_back_may_be_used_again,
        a_used_assertion_is_forgotten_only_after_its_time,
        any_jti_is_one_the_store_takes,
        two_writers_race_for_an_assertion_and_one_wins,
        a_record_is_never_changed,
        the_whole_log_works_on_it,
        a_suspension_between_decision_and_commit_withholds_the_token,
        a_change_of_another_client_withholds_nothing,
    );

    fn entry(body: &str) -> Entry {
        Entry { at: NOW, body: body.to_owned(), assertion: None }
    }

    fn assertion(jti: &str) -> AssertionUse {
        let client_id = ClientId::parse("client").unwrap();
        AssertionUse { client_id, jti: jti.to_owned(), expires_at: NOW.after(Duration::from_secs(60)) }
    }

    fn using(jti: &str, body: &str) -> Entry {
        Entry { at: NOW, body: body.to_owned(), assertion: Some((assertion(jti), format!("{body} replayed"))) }
    }

    fn batch(first_sequence: i64, entries: Vec<Entry>) -> Arc<Batch> {
        Arc::new(Batch { writer: "writer".into(), first_sequence, entries, given_back: Vec::new() })
    }

    /// Every body, oldest first.
    async fn bodies(store: &Store) -> Vec<String> {
        let mut entries = store.recent(10_000).await.unwrap();
        entries.reverse();
        entries.into_iter().map(|entry| entry.body).collect()
    }

    async fn a_writers_id_is_never_given_twice(bench: &Bench) {
        let mut ids = HashSet::new();
        for _ in 0..3 {
            assert!(ids.insert(bench.store.lease_writer("node").await.unwrap()));
        }
        assert!(ids.insert(bench.store.lease_writer("other").await.unwrap()));
    }

    async fn a_batch_is_written_in_order_and_numbered(bench: &Bench) {
        assert_eq!(bench.store.last_sequence("writer").await.unwrap(), None);
        // Each size of chunk is needed at least once.
        let texts: Vec<String> = (0..350).map(|index| format!("{{\"index\":{index}}}")).collect();
        bench.store.append(batch(1, texts.iter().map(|text| entry(text)).collect())).await.unwrap();
        assert_eq!(bodies(&bench.store).await, texts);
        assert_eq!(bench.store.last_sequence("writer").await.unwrap(), Some(350));
        let latest = bench.store.recent(1).await.unwrap().remove(0);
        assert_eq!((latest.writer.as_str(), latest.sequence, latest.at), ("writer", 350, NOW));
    }

    async fn a_number_is_never_written_twice(bench: &Bench) {
        bench.store.append(batch(1, vec![entry("a"), entry("b")])).await.unwrap();
        bench.store.append(batch(2, vec![using("jti", "c")])).await.unwrap_err();
        assert_eq!(bodies(&bench.store).await, ["a", "b"]);
        // And nothing else of that batch is left behind.
        let appended = bench.store.append(batch(3, vec![using("jti", "d")])).await.unwrap();
        assert_eq!(appended.replayed, [0_usize; 0]);
    }

    async fn what_is_still_being_written_is_not_overlooked(bench: &Bench) {
        // As where the connection was lost while the database goes on with what it was told last.
        let turn = bench.store.turn_to_write().await;
        let mut under_way = bench.store.begin_write().await.unwrap();
        sqlx::query("INSERT INTO audit_record (writer, sequence, at, body) VALUES ('writer', 1, 0, 'a')")
            .execute(&mut *under_way)
            .await
            .unwrap();
        let store = bench.store.clone();
        let asked = tokio::spawn(async move { store.last_sequence("writer").await });
        tokio::time::sleep(Duration::from_millis(200)).await;
        assert!(!asked.is_finished());
        under_way.commit().await.unwrap();
        drop(turn);
        assert_eq!(asked.await.unwrap().unwrap(), Some(1));
        assert_eq!(bodies(&bench.store).await, ["a"], "and asking leaves nothing");
    }

    async fn the_version_is_the_one_at_the_commit(bench: &Bench) {
        let before = bench.store.append(batch(1, vec![entry("a")])).await.unwrap().version;
        let changed = bench.registry.add_participant(participant("acme"), because("joins")).await.unwrap();
        assert!(changed > before);
        assert_eq!(bench.store.append(batch(2, vec![entry("b")])).await.unwrap().version, changed);
        assert_eq!(bench.store.append(batch(3, vec![using("jti", "c")])).await.unwrap().version, changed);
    }

    async fn an_assertion_is_used_once_across_batches_and_within_one(bench: &Bench) {
        let entries = vec![using("a", "1"), entry("2"), using("a", "3"), using("b", "4")];
        assert_eq!(bench.store.append(batch(1, entries)).await.unwrap().replayed, [2]);
        let entries = vec![using("b", "5"), using("c", "6")];
        assert_eq!(bench.store.append(batch(5, entries)).await.unwrap().replayed, [0]);
        assert_eq!(bodies(&bench.store).await, ["1", "2", "3 replayed", "4", "5 replayed", "6"]);
    }

    async fn an_assertion_given_back_may_be_used_again(bench: &Bench) {
        bench.store.append(batch(1, vec![using("a", "1"), using("b", "2")])).await.unwrap();
        let withheld = Batch {
            writer: "writer".into(),
            first_sequence: 3,
            entries: vec![entry("3")],
            given_back: vec![assertion("a")],
        };
        bench.store.append(Arc::new(withheld)).await.unwrap();
        let entries = vec![using("a", "4"), using("b", "5")];
        assert_eq!(bench.store.append(batch(4, entries)).await.unwrap().replayed, [1]);
    }

    async fn a_used_assertion_is_forgotten_only_after_its_time(bench: &Bench) {
        bench.store.append(batch(1, vec![using("a", "1")])).await.unwrap();
        let expires_at = assertion("a").expires_at;
        bench.store.forget_assertions(expires_at).await.unwrap();
        assert_eq!(bench.store.append(batch(2, vec![using("a", "2")])).await.unwrap().replayed, [0]);
        bench.store.forget_assertions(UnixTime::from_millis(expires_at.as_millis() + 1)).await.unwrap();
        assert_eq!(bench.store.append(batch(3, vec![using("a", "3")])).await.unwrap().replayed, [0_usize; 0]);
    }

    async fn any_jti_is_one_the_store_takes(bench: &Bench) {
        let long = "x".repeat(100_000);
        let odd = ["", "\0", "a\0b", "\u{10FFFF}", "'; DROP TABLE audit_record; --", &long];
        let entries: Vec<Entry> = odd.iter().map(|jti| using(jti, "{}")).collect();
        assert_eq!(bench.store.append(batch(1, entries)).await.unwrap().replayed, [0_usize; 0]);
        let again = odd.iter().map(|jti| using(jti, "{}")).collect();
        assert_eq!(bench.store.append(batch(7, again)).await.unwrap().replayed, [0, 1, 2, 3, 4, 5]);
    }

    async fn two_writers_race_for_an_assertion_and_one_wins(bench: &Bench) {
        let other =
            |entries| Arc::new(Batch { writer: "other".into(), first_sequence: 1, entries, given_back: Vec::new() });
        let jtis: Vec<String> = (0..50).map(|index| format!("jti{index}")).collect();
        let forward = jtis.iter().map(|jti| using(jti, "{}")).collect();
        let backward = jtis.iter().rev().map(|jti| using(jti, "{}")).collect();
        let (one, two) = tokio::join!(bench.store.append(batch(1, forward)), bench.store.append(other(backward)));
        assert_eq!(one.unwrap().replayed.len() + two.unwrap().replayed.len(), 50);
    }

    async fn a_record_is_never_changed(bench: &Bench) {
        bench.store.append(batch(1, vec![entry("a")])).await.unwrap();
        let mut transaction = bench.store.begin_write().await.unwrap();
        let refused = sqlx::query("UPDATE audit_record SET body = 'b'").execute(&mut *transaction).await.unwrap_err();
        assert!(refused.to_string().contains("never changed"), "{refused}");
    }

    async fn the_whole_log_works_on_it(bench: &Bench) {
        let log = log(bench).await;
        log.refused_handshake(&crate::audit::RefusedHandshake {
            remote: "192.0.2.1:4711".parse().unwrap(),
            reason: "handshake_timeout",
            claimed: None,
        });
        log.close().await;
        let written = bench.store.recent(10).await.unwrap();
        assert_eq!((written.len(), written[0].writer.as_str(), written[0].sequence), (1, "node#1", 1));
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
        let mut trail = Trail::begin(&peer, RequestId::random(), NOW);
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
