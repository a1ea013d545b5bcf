//! Imports: entered in short transactions, visible with one row, and removed again where they were given up.
//!
//! Every record carries the number of the import that entered it, and of those that have one the views show what belongs to an
//! import that is published. So what makes a million records visible is one row that says `published`. Between two transactions others
//! have their turn.

use std::collections::HashSet;
use std::time::Duration;

use countersign_resource_server::time::{Clock, SystemClock, UnixTime};
use futures_util::FutureExt;
use sqlx::{Any, AssertSqlSafe, Executor, Row, Transaction};

use super::super::{Engine, Store, Turn};
use super::CHANGE_TRIES;
use super::edit::{Staging, Writing, unavailable};
use crate::registry::RegistryVersion;
use crate::registry::edit::RecordKind;
use crate::registry::history::{Explanation, Touched};
use crate::registry::import::{
    CONCERNED, Contents, ImportId, ImportRefusal, ImportStore, Lease, Numbered, Origin, Staged, Work,
};
use crate::registry::store::{Answer, StoreUnavailable};

/// 64 MiB for pages of SQLite's one writer, in this process and for as long as it lasts. Keys that are hashes come in no order: with
/// less, pages are read again for every lot, and written before its transaction ends.
const ROOM: &str = "PRAGMA cache_size = -65536";

/// What PostgreSQL is told where an import writes. A session's time-outs are for what a request waits for: a statement of a hundred rows
/// takes longer on a busy machine, and what cannot be entered once is the end of the whole import. These are shorter than its lease.
/// And a statement is planned once, when the tables are still empty and reading all of one is the cheapest: that plan stays for the
/// million, so the indexes are used from the first row on.
const PATIENT: &str = "SET LOCAL statement_timeout = '5s'; SET LOCAL lock_timeout = '5s'; \
                       SET LOCAL idle_in_transaction_session_timeout = '20s'; SET LOCAL enable_seqscan = off;";

/// Rows that are looked at together where an import has left some.
const LOOKED_AT: i64 = 5_000;

/// Rows that are removed in one transaction: others wait to write meanwhile.
const REMOVED: usize = 200;

/// The shortest rest after each such transaction: as long as a server's append to the audit log may take.
const SHORTEST_REST: Duration = Duration::from_millis(20);

impl ImportStore for Store {
    fn begin_import(&self, origin: Origin, until: UnixTime) -> Work<'_, Lease> {
        async move {
            if let Engine::Sqlite { .. } = &self.engine {
                sqlx::query(ROOM).execute(&self.writers).await.map_err(StoreUnavailable::from)?;
            }
            loop {
                self.sweep(|other| other.until <= origin.begun_at).await?;
                let (turn, mut transaction) = self.begin_patiently().await.map_err(StoreUnavailable::from)?;
                let begun = begin(&mut transaction, &origin, until).await?;
                let Some(import) = begun else { continue };
                transaction.commit().await.map_err(StoreUnavailable::from)?;
                drop(turn);
                return Ok(Lease { import, until });
            }
        }
        .boxed()
    }

    fn stage(
        &self,
        lease: Lease,
        entries: Vec<Numbered>,
        explanation: Explanation,
        until: UnixTime,
    ) -> Work<'_, Staged> {
        async move {
            let (turn, transaction) = self.begin_patiently().await.map_err(StoreUnavailable::from)?;
            let mut staging = Staging::begin(transaction, lease, explanation, until).await?;
            staging.enter_all(entries).await.map_err(unavailable)?;
            let staged = staging.commit().await?;
            drop(turn);
            Ok(staged)
        }
        .boxed()
    }

    fn publish<'a>(
        &'a self,
        lease: Lease,
        contents: &'a Contents,
        concerns: HashSet<Touched>,
        explanation: Explanation,
    ) -> Work<'a, RegistryVersion> {
        async move {
            // Nothing in memory rests on an anchor that comes along.
            let participants = concerns.iter().filter(|touched| matches!(touched, Touched::Participant(_))).count();
            if participants > CONCERNED {
                return Err(ImportRefusal::ConcernsTooMany { limit: CONCERNED });
            }
            let (turn, transaction) = self.begin_patiently().await.map_err(StoreUnavailable::from)?;
            let mut writing = Writing::begin(transaction, explanation).await.map_err(unavailable)?;
            writing.publish(lease, contents, concerns).await?;
            let applied = writing.commit(&self.engine).await.map_err(unavailable)?;
            drop(turn);
            applied.version.ok_or_else(|| StoreUnavailable::because("an import without a version").into())
        }
        .boxed()
    }

    fn abandon(&self, import: ImportId) -> Work<'_, Option<RegistryVersion>> {
        async move {
            let turn = self.turn_to_write().await;
            let mut transaction = self.begin_write().await.map_err(StoreUnavailable::from)?;
            sqlx::query("UPDATE registry_import SET state = 'abandoned' WHERE id = $1 AND state = 'staging'")
                .bind(import.0)
                .execute(&mut *transaction)
                .await
                .map_err(StoreUnavailable::from)?;
            // Whoever gave up while the last transaction was being committed has not learnt what came of it.
            let published: Option<i64> =
                sqlx::query_scalar("SELECT version FROM registry_import WHERE id = $1 AND state = 'published'")
                    .bind(import.0)
                    .fetch_optional(&mut *transaction)
                    .await
                    .map_err(StoreUnavailable::from)?;
            transaction.commit().await.map_err(StoreUnavailable::from)?;
            drop(turn);
            Ok(published.map(RegistryVersion))
        }
        .boxed()
    }

    fn import_under_way(&self) -> Answer<'_, Option<Lease>> {
        async move {
            let statement = "SELECT id, leased_until FROM registry_import WHERE state = 'staging'";
            let under_way: Option<(i64, i64)> = sqlx::query_as(statement).fetch_optional(&self.readers).await?;
            Ok(under_way.map(|(id, until)| lease(id, until)))
        }
        .boxed()
    }

    fn sweep_imports(&self, silent: Option<Lease>) -> Answer<'_, bool> {
        self.sweep(move |under_way| silent == Some(under_way)).boxed()
    }
}

/// Puts a new import on record; none where one that was given up is still there.
async fn begin(
    transaction: &mut Transaction<'static, Any>,
    origin: &Origin,
    until: UnixTime,
) -> Result<Option<ImportId>, ImportRefusal> {
    // One at a time: whoever else begins waits here, and then finds this one.
    let version: i64 = sqlx::query_scalar("UPDATE registry_state SET version = version RETURNING version")
        .fetch_one(&mut **transaction)
        .await
        .map_err(StoreUnavailable::from)?;
    let under_way =
        sqlx::query("SELECT state, leased_until, record FROM registry_import WHERE state IN ('staging', 'abandoned')")
            .fetch_optional(&mut **transaction)
            .await
            .map_err(StoreUnavailable::from)?;
    if let Some(row) = under_way {
        let state: String = row.try_get(0).map_err(StoreUnavailable::from)?;
        let leased_until: i64 = row.try_get(1).map_err(StoreUnavailable::from)?;
        let record: String = row.try_get(2).map_err(StoreUnavailable::from)?;
        if state == "staging" && leased_until > origin.begun_at.as_millis() {
            let other: Origin = serde_json::from_str(&record).map_err(StoreUnavailable::because)?;
            let seconds = until.since(origin.begun_at).as_secs();
            return Err(ImportRefusal::AnotherUnderWay { file: other.file, begun_at: other.begun_at, seconds });
        }
        return Ok(None);
    }
    // No number is given twice, so that whoever slept through being given up enters nothing under another's.
    let id: i64 = sqlx::query_scalar(
        "INSERT INTO registry_import (id, state, leased_until, version, record) \
         SELECT COALESCE(MAX(id), 0) + 1, 'staging', $1, $2, $3 FROM registry_import RETURNING id",
    )
    .bind(until.as_millis())
    .bind(version)
    .bind(serde_json::to_string(origin).map_err(StoreUnavailable::because)?)
    .fetch_one(&mut **transaction)
    .await
    .map_err(StoreUnavailable::from)?;
    Ok(Some(ImportId(id)))
}

impl Store {
    /// The import that a record came with, as histories name it; nothing for one that came by itself. `subject` names it.
    pub(super) async fn import_of(&self, subject: &str) -> Result<String, StoreUnavailable> {
        let Some((kind, id)) = subject.split_once(':') else { return Ok(String::new()) };
        let statement = match kind {
            "anchor" => "SELECT import_id FROM visible_trust_anchor WHERE id = $1 AND $2 = ''",
            "anchor_grant" => "SELECT import_id FROM visible_anchor_grant WHERE participant_id = $1 AND anchor_id = $2",
            "certificate" => "SELECT import_id FROM visible_certificate WHERE thumbprint = $1 AND $2 = ''",
            "client" => "SELECT import_id FROM visible_client WHERE id = $1 AND $2 = ''",
            "entitlement" => "SELECT import_id FROM visible_entitlement WHERE id = $1 AND $2 = ''",
            "key" => "SELECT import_id FROM visible_revoked_key WHERE key_hash = $1 AND $2 = ''",
            "participant" => "SELECT import_id FROM visible_participant WHERE id = $1 AND $2 = ''",
            "resource_server" => "SELECT import_id FROM visible_resource_server WHERE id = $1 AND $2 = ''",
            _ => return Ok(String::new()),
        };
        let (id, second) = if kind == "anchor_grant" { id.split_once(' ').unwrap_or((id, "")) } else { (id, "") };
        let import: Option<i64> =
            sqlx::query_scalar(statement).bind(id).bind(second).fetch_optional(&self.readers).await?;
        Ok(match import {
            None | Some(0) => String::new(),
            Some(import) => RecordKind::Import.subject(&import.to_string()),
        })
    }

    /// Begins a transaction in which an import writes.
    async fn begin_patiently(&self) -> Result<(Turn, Transaction<'static, Any>), sqlx::Error> {
        let (turn, mut transaction) = self.begin_registry_write(CHANGE_TRIES).await?;
        if let Engine::Postgres { .. } = &self.engine {
            transaction.execute(PATIENT).await?;
        }
        Ok((turn, transaction))
    }

    /// Removes what was given up, or is silent. Asks for nothing but a row or two where nothing was.
    async fn sweep(&self, is_silent: impl Fn(Lease) -> bool + Send) -> Result<bool, StoreUnavailable> {
        let unpublished: Vec<(i64, String, i64)> = sqlx::query_as(
            "SELECT id, state, leased_until FROM registry_import WHERE state IN ('staging', 'abandoned')",
        )
        .fetch_all(&self.readers)
        .await?;
        let mut found = false;
        for (id, state, until) in &unpublished {
            if state == "staging" {
                if !is_silent(lease(*id, *until)) {
                    continue;
                }
                let turn = self.turn_to_write().await;
                let mut transaction = self.begin_write().await?;
                let given_up = sqlx::query(
                    "UPDATE registry_import SET state = 'abandoned' \
                     WHERE id = $1 AND state = 'staging' AND leased_until = $2",
                )
                .bind(id)
                .bind(until)
                .execute(&mut *transaction)
                .await?;
                transaction.commit().await?;
                drop(turn);
                if given_up.rows_affected() == 0 {
                    // It has given a sign of life, or somebody else has given it up.
                    continue;
                }
            }
            found = true;
            for table in LEFT {
                self.sweep_table(table, *id).await?;
            }
            let turn = self.turn_to_write().await;
            let mut transaction = self.begin_write().await?;
            sqlx::query("UPDATE registry_import SET state = 'swept' WHERE id = $1 AND state = 'abandoned'")
                .bind(id)
                .execute(&mut *transaction)
                .await?;
            transaction.commit().await?;
            drop(turn);
        }
        Ok(found)
    }

    /// There is no index of what an import has entered: it would be as large as the registry, and of use on the day alone that
    /// one fails. The whole table is walked along its key.
    async fn sweep_table(&self, table: &Left, import: i64) -> Result<(), StoreUnavailable> {
        let (name, key) = (table.name, table.key);
        let mut after = String::new();
        loop {
            let walk = format!(
                "SELECT {key}, MAX(CASE WHEN import_id = $2 THEN CAST(1 AS BIGINT) ELSE CAST(0 AS BIGINT) END) FROM {name} WHERE {key} > $1 \
                 GROUP BY {key} ORDER BY {key} LIMIT $3"
            );
            let query = sqlx::query(AssertSqlSafe(walk)).bind(after).bind(import).bind(LOOKED_AT);
            let rows = query.fetch_all(&self.readers).await?;
            let mut keys = Vec::new();
            for row in &rows {
                if row.try_get::<i64, _>(1)? > 0 {
                    keys.push(row.try_get::<String, _>(0)?);
                }
            }
            for keys in keys.chunks(REMOVED) {
                self.remove(table, keys, import).await?;
            }
            let Some(last) = rows.last() else { return Ok(()) };
            after = last.try_get(0)?;
        }
    }

    /// Removes some, and rests: whoever else writes has at least half of the time, also where no queue sees to that.
    async fn remove(&self, table: &Left, keys: &[String], import: i64) -> Result<(), StoreUnavailable> {
        let clock = SystemClock::new();
        let begun = clock.monotonic();
        self.remove_at_once(table, keys, import).await?;
        tokio::time::sleep(clock.monotonic().saturating_sub(begun).max(SHORTEST_REST)).await;
        Ok(())
    }

    async fn remove_at_once(&self, table: &Left, keys: &[String], import: i64) -> Result<(), StoreUnavailable> {
        let places: Vec<String> = (2..=keys.len() + 1).map(|number| format!("${number}")).collect();
        let places = places.join(", ");
        let (turn, mut transaction) = self.begin_patiently().await?;
        let condition = format!("{} IN ({places}) AND import_id = $1", table.key);
        let own = format!("FROM {} WHERE {condition}", table.name);
        let dependents = table.dependents.map(|(dependent, refers)| {
            format!("DELETE FROM {dependent} WHERE {refers} IN (SELECT {} {own})", table.key)
        });
        for statement in dependents.into_iter().chain([format!("DELETE {own}")]) {
            let mut query = sqlx::query(AssertSqlSafe(statement)).bind(import);
            for key in keys {
                query = query.bind(key.clone());
            }
            query.execute(&mut *transaction).await?;
        }
        transaction.commit().await?;
        drop(turn);
        Ok(())
    }
}

const fn lease(id: i64, until: i64) -> Lease {
    Lease { import: ImportId(id), until: UnixTime::from_millis(until) }
}

/// A table with rows of imports.
struct Left {
    name: &'static str,
    /// What it is walked along.
    key: &'static str,
    /// A table whose rows go with them, and the column that names them.
    dependents: Option<(&'static str, &'static str)>,
}

const fn left(name: &'static str, key: &'static str) -> Left {
    Left { name, key, dependents: None }
}

/// Each before those that it refers to.
const LEFT: &[Left] = &[
    left("entitlement", "id"),
    Left { dependents: Some(("path_issuer", "thumbprint")), ..left("certificate", "thumbprint") },
    left("client", "id"),
    Left { dependents: Some(("resource_server_certificate", "resource_server_id")), ..left("resource_server", "id") },
    left("revoked_key", "key_hash"),
    left("anchor_grant", "participant_id"),
    left("trust_anchor", "id"),
    left("participant", "id"),
];

#[cfg(test)]
mod tests {
    use crate::store::contract::Bench;

    /// What a request waits for gives up in time; an import of a million records does not end with one slow statement.
    #[tokio::test]
    async fn an_import_is_more_patient_than_a_request() {
        let Some(bench) = Bench::postgres("an_import_is_more_patient_than_a_request").await else {
            println!("skipped: COUNTERSIGN_TEST_POSTGRES names no database");
            return;
        };
        let (_turn, mut transaction) = bench.store.begin_patiently().await.unwrap();
        let patience: String = sqlx::query_scalar("SHOW statement_timeout").fetch_one(&mut *transaction).await.unwrap();
        assert_eq!(patience, "5s");
        let lock: String = sqlx::query_scalar("SHOW lock_timeout").fetch_one(&mut *transaction).await.unwrap();
        assert_eq!(lock, "5s");
        let reads_whole: String = sqlx::query_scalar("SHOW enable_seqscan").fetch_one(&mut *transaction).await.unwrap();
        assert_eq!(reads_whole, "off");
        transaction.rollback().await.unwrap();
        for connections in [&bench.store.writers, &bench.store.readers] {
            let patience: String = sqlx::query_scalar("SHOW statement_timeout").fetch_one(connections).await.unwrap();
            assert_eq!(patience, "1500ms");
            let reads_whole: String = sqlx::query_scalar("SHOW enable_seqscan").fetch_one(connections).await.unwrap();
            assert_eq!(reads_whole, "on");
        }
    }
}
