//! How a store stands that was restored: half filled, waiting to be confirmed, or served.
//!
//! Takes a [`Restoration`], keeps it as a row of its own, and makes the changes of the registry that go with it, each in one
//! transaction.

use countersign_resource_server::status::MarkKind;
use countersign_resource_server::time::UnixTime;
use serde::Serialize;
use sqlx::{Any, AssertSqlSafe, Executor, Transaction};

use super::super::registry::{MARK_LIFETIME, no_token_lives_after, served_until};
use super::super::{Engine, Store, postgres};
use super::{BORN_WITH_A_ROW, PATIENT, TABLES, empty, refused};
use crate::audit::restored::RESTORE;
use crate::backup::{BackupFailure, Confirmed, Restoration, Standing, TokensOfBefore};
use crate::registry::history::Explanation;
use crate::registry::{RegistryVersion, StoreUnavailable};

impl Store {
    pub(in crate::store) async fn restoration_standing(&self) -> Result<Standing, StoreUnavailable> {
        let rows: Vec<(String, String)> =
            sqlx::query_as("SELECT state, record FROM restoration WHERE state <> 'confirmed' ORDER BY epoch")
                .fetch_all(&self.readers)
                .await?;
        if rows.iter().any(|(state, _)| state == "loading") {
            return Ok(Standing::Loading);
        }
        if rows.is_empty() {
            return Ok(Standing::Served);
        }
        Ok(Standing::Unconfirmed(rows.iter().map(|(_, record)| read(record)).collect::<Result<_, _>>()?))
    }

    pub(in crate::store) async fn all_restorations(&self) -> Result<Vec<Restoration>, StoreUnavailable> {
        let rows: Vec<String> =
            sqlx::query_scalar("SELECT record FROM restoration ORDER BY epoch").fetch_all(&self.readers).await?;
        rows.iter().map(|record| read(record)).collect()
    }

    /// Notes what is begun in a store that is empty, or was left half filled.
    pub(super) async fn note_loading(&self, restoration: &Restoration) -> Result<(), BackupFailure> {
        let _turn = self.turn_to_write().await;
        let mut transaction = self.begin_write().await.map_err(StoreUnavailable::from)?;
        let half: i64 = sqlx::query_scalar("SELECT COUNT(*) FROM restoration WHERE state = 'loading'")
            .fetch_one(&mut *transaction)
            .await
            .map_err(StoreUnavailable::from)?;
        if half == 0 {
            if let Some(table) = occupied(&mut transaction).await.map_err(StoreUnavailable::from)? {
                return Err(BackupFailure::NotEmpty(table));
            }
        } else {
            self.be_patient(&mut transaction).await?;
            empty(&mut transaction).await.map_err(StoreUnavailable::from)?;
        }
        put(&mut transaction, "loading", restoration, None).await?;
        transaction.commit().await.map_err(StoreUnavailable::from)?;
        Ok(())
    }

    /// Back to an empty store, which knows that it was to be filled.
    pub(super) async fn clear_loading(&self) -> Result<(), BackupFailure> {
        let _turn = self.turn_to_write().await;
        let mut transaction = self.begin_write().await.map_err(StoreUnavailable::from)?;
        let half: Option<String> = sqlx::query_scalar("SELECT record FROM restoration WHERE state = 'loading'")
            .fetch_optional(&mut *transaction)
            .await
            .map_err(StoreUnavailable::from)?;
        let Some(record) = half else { return Err(refused("the store is not being filled".to_owned())) };
        let restoration = read(&record)?;
        self.be_patient(&mut transaction).await?;
        empty(&mut transaction).await.map_err(StoreUnavailable::from)?;
        put(&mut transaction, "loading", &restoration, None).await?;
        transaction.commit().await.map_err(StoreUnavailable::from)?;
        Ok(())
    }

    /// Puts a restoration on record: a change of the registry like any other, so that it is in the history and in a chain.
    pub(super) async fn put_on_record(
        &self,
        restoration: &Restoration,
        statement: Option<String>,
        explanation: Explanation,
    ) -> Result<(), StoreUnavailable> {
        let _turn = self.turn_to_write().await;
        let mut transaction = self.begin_write().await?;
        let version = restoration.first_version;
        let of_before = &restoration.origin.registry;
        note(&mut transaction, version, RESTORE, restoration, &explanation, Some(of_before)).await?;
        put(&mut transaction, "unconfirmed", restoration, statement).await?;
        transaction.commit().await?;
        Ok(())
    }

    pub(super) async fn confirm_restorations(
        &self,
        tokens: TokensOfBefore,
        explanation: Explanation,
    ) -> Result<Option<RegistryVersion>, StoreUnavailable> {
        let _turn = self.turn_to_write().await;
        let mut transaction = self.begin_write().await?;
        // Locks the row that puts changes in order, before anything is looked at.
        let version: i64 = sqlx::query_scalar("UPDATE registry_state SET version = version + 1 RETURNING version")
            .fetch_one(&mut *transaction)
            .await?;
        let rows: Vec<String> =
            sqlx::query_scalar("SELECT record FROM restoration WHERE state = 'unconfirmed' ORDER BY epoch")
                .fetch_all(&mut *transaction)
                .await?;
        let mut steps = Vec::new();
        for record in &rows {
            let mut restoration = read(record)?;
            restoration.confirmed = Some(Confirmed {
                at: explanation.at,
                actor: explanation.actor.clone(),
                why: explanation.why.clone(),
                tokens,
            });
            steps.push(restoration);
        }
        let ended: Vec<String> = sqlx::query_scalar("SELECT record FROM restoration WHERE state = 'confirmed'")
            .fetch_all(&mut *transaction)
            .await?;
        // What an earlier confirmation has ended stays dead.
        let mut ended_below = None;
        for record in &ended {
            let before = read(record)?;
            if before.confirmed.as_ref().is_some_and(|confirmed| confirmed.tokens == TokensOfBefore::End) {
                ended_below = ended_below.max(Some(before.first_version));
            }
        }
        // Each is confirmed with those before it, under the last one's name in the history.
        let Some(last) = steps.last() else { return Ok(None) };
        note(&mut transaction, version, "registry.confirm_restore", last, &explanation, None::<&()>).await?;
        for restoration in &steps {
            sqlx::query("UPDATE restoration SET state = 'confirmed', record = $2 WHERE epoch = $1")
                .bind(restoration.epoch)
                .bind(json(restoration)?)
                .execute(&mut *transaction)
                .await?;
        }
        match tokens {
            TokensOfBefore::End => mark(&mut transaction, last.first_version, explanation.at).await?,
            TokensOfBefore::Live if ended_below.is_some() => {
                sqlx::query("UPDATE revocation_mark SET version = $1 WHERE kind = $2")
                    .bind(ended_below)
                    .bind(MarkKind::Issuer.as_str())
                    .execute(&mut *transaction)
                    .await?;
            }
            TokensOfBefore::Live => {
                sqlx::query("DELETE FROM revocation_mark WHERE kind = $1")
                    .bind(MarkKind::Issuer.as_str())
                    .execute(&mut *transaction)
                    .await?;
            }
        }
        if let Engine::Postgres { .. } = self.engine {
            notify(&mut transaction, version).await?;
        }
        transaction.commit().await?;
        Ok(Some(RegistryVersion(version)))
    }

    async fn be_patient(&self, transaction: &mut Transaction<'static, Any>) -> Result<(), StoreUnavailable> {
        if let Engine::Postgres { .. } = self.engine {
            transaction.execute(PATIENT).await?;
        }
        Ok(())
    }
}

/// A table that has rows which a new schema has not.
async fn occupied(transaction: &mut Transaction<'static, Any>) -> Result<Option<String>, sqlx::Error> {
    // Whoever would send the log on has noted that in a database that was made anew under a running node.
    for table in TABLES.iter().filter(|table| table.name != "audit_forward") {
        let born_with = i64::from(BORN_WITH_A_ROW.contains(&table.name));
        let statement = format!("SELECT COUNT(*) FROM (SELECT 1 FROM {} LIMIT {}) AS found", table.name, born_with + 1);
        let rows: i64 = sqlx::query_scalar(AssertSqlSafe(statement)).fetch_one(&mut **transaction).await?;
        if rows > born_with {
            return Ok(Some(table.name.to_owned()));
        }
    }
    let version: i64 = sqlx::query_scalar("SELECT version FROM registry_state").fetch_one(&mut **transaction).await?;
    Ok((version != 0).then(|| "registry_state".to_owned()))
}

/// Makes what was loaded the beginning of an epoch of its own.
pub(super) async fn begin_epoch(
    transaction: &mut Transaction<'static, Any>,
    restoration: &Restoration,
) -> Result<(), StoreUnavailable> {
    sqlx::query("UPDATE registry_state SET epoch = $1, version = $2")
        .bind(restoration.epoch)
        .bind(restoration.first_version)
        .execute(&mut **transaction)
        .await?;
    // Whoever has held a lease of the lost store writes nothing here: no lease of it can have had this number.
    for table in ["audit_chain", "audit_forward"] {
        let statement = format!("UPDATE {table} SET lease = $1, holder = '', leased_until = 0");
        sqlx::query(AssertSqlSafe(statement)).bind(restoration.first_version).execute(&mut **transaction).await?;
    }
    // Nor does an import go on of which some may be lost.
    sqlx::query("UPDATE registry_import SET state = 'abandoned' WHERE state = 'staging'")
        .execute(&mut **transaction)
        .await?;
    // How far the lost store has served after the backup is for the first lease to say: this clock serves nothing.
    mark(transaction, restoration.first_version, restoration.at).await?;
    put(transaction, "loading", restoration, None).await
}

/// Whatever was issued under an earlier version is dead.
async fn mark(
    transaction: &mut Transaction<'static, Any>,
    version: i64,
    now: UnixTime,
) -> Result<(), StoreUnavailable> {
    let served = served_until(transaction).await?;
    sqlx::query(
        "INSERT INTO revocation_mark (kind, id, version, forget_after) VALUES ($1, $2, $3, $4) \
         ON CONFLICT (kind, id) DO UPDATE SET version = excluded.version, forget_after = CASE \
             WHEN excluded.forget_after > revocation_mark.forget_after THEN excluded.forget_after \
             ELSE revocation_mark.forget_after END",
    )
    .bind(MarkKind::Issuer.as_str())
    .bind(MarkKind::ANY_ISSUER)
    .bind(version)
    .bind(no_token_lives_after(now, served).as_millis())
    .execute(&mut **transaction)
    .await?;
    Ok(())
}

/// Where nobody has served yet what was restored: notes from when it is, and lengthens every mark made since, for they were made
/// where a node's clock had said nothing yet. The lost store may have issued tokens until this very moment, whatever the hosts
/// say that it was restored and confirmed on.
pub(in crate::store) async fn note_served_from(
    transaction: &mut Transaction<'static, Any>,
    now: UnixTime,
    until: UnixTime,
) -> Result<(), StoreUnavailable> {
    if unserved(transaction).await?.is_empty() {
        return Ok(());
    }
    // As every change does, and before it: what is looked at now is no longer being changed, by another node either.
    sqlx::query("UPDATE registry_state SET version = version").execute(&mut **transaction).await?;
    let restorations = unserved(transaction).await?;
    let Some(since) = restorations.iter().map(|restoration| restoration.first_version).min() else { return Ok(()) };
    // Not those of clients' own tokens: their end is the token's.
    sqlx::query(
        "UPDATE revocation_mark SET forget_after = $1 WHERE version >= $2 AND forget_after < $1 AND client_id IS NULL",
    )
    .bind(until.after(MARK_LIFETIME).as_millis())
    .bind(since)
    .execute(&mut **transaction)
    .await?;
    for restoration in restorations {
        let epoch = restoration.epoch;
        sqlx::query("UPDATE restoration SET record = $2 WHERE epoch = $1")
            .bind(epoch)
            .bind(json(&Restoration { served_from: Some(now), ..restoration })?)
            .execute(&mut **transaction)
            .await?;
    }
    Ok(())
}

/// From when a node has served this epoch, by that node's clock; none where nobody has, and where it began with no restore.
pub(in crate::store) async fn served_from(store: &Store, epoch: i64) -> Result<Option<UnixTime>, StoreUnavailable> {
    let record: Option<String> = sqlx::query_scalar("SELECT record FROM restoration WHERE epoch = $1")
        .bind(epoch)
        .fetch_optional(&store.readers)
        .await?;
    Ok(record.map(|record| read(&record)).transpose()?.and_then(|restoration| restoration.served_from))
}

/// What was restored and confirmed, and no node has taken a lease of. A lease is one more than the one before it, and a restore
/// gives every chain its own first version: where there is a later one, an earlier build has served what it restored.
async fn unserved(transaction: &mut Transaction<'static, Any>) -> Result<Vec<Restoration>, StoreUnavailable> {
    let rows: Vec<String> = sqlx::query_scalar("SELECT record FROM restoration WHERE state = 'confirmed'")
        .fetch_all(&mut **transaction)
        .await?;
    let mut restorations = rows.iter().map(|record| read(record)).collect::<Result<Vec<_>, _>>()?;
    restorations.retain(|restoration| restoration.served_from.is_none());
    if !restorations.is_empty() {
        let latest: Option<i64> =
            sqlx::query_scalar("SELECT MAX(lease) FROM audit_chain").fetch_one(&mut **transaction).await?;
        restorations.retain(|restoration| latest.is_none_or(|latest| latest <= restoration.first_version));
    }
    Ok(restorations)
}

async fn put(
    transaction: &mut Transaction<'static, Any>,
    state: &'static str,
    restoration: &Restoration,
    statement: Option<String>,
) -> Result<(), StoreUnavailable> {
    sqlx::query(
        "INSERT INTO restoration (epoch, state, record, statement) VALUES ($1, $2, $3, $4) \
         ON CONFLICT (epoch) DO UPDATE SET state = excluded.state, record = excluded.record, \
             statement = excluded.statement",
    )
    .bind(restoration.epoch)
    .bind(state)
    .bind(json(restoration)?)
    .bind(statement)
    .execute(&mut **transaction)
    .await?;
    Ok(())
}

async fn note(
    transaction: &mut Transaction<'static, Any>,
    version: i64,
    action: &'static str,
    restoration: &Restoration,
    explanation: &Explanation,
    before: Option<&impl Serialize>,
) -> Result<(), StoreUnavailable> {
    sqlx::query(
        "INSERT INTO history (version, step, at, actor, action, subject, record_before, record_after, why) \
         VALUES ($1, 0, $2, $3, $4, $5, $6, $7, $8)",
    )
    .bind(version)
    .bind(explanation.at.as_millis())
    .bind(json(&explanation.actor)?)
    .bind(action)
    .bind(format!("registry:{}", restoration.epoch))
    .bind(before.map(json).transpose()?)
    .bind(json(restoration)?)
    .bind(explanation.why.clone())
    .execute(&mut **transaction)
    .await?;
    Ok(())
}

/// Tells whoever watches, with the commit.
pub(super) async fn notify(transaction: &mut Transaction<'static, Any>, version: i64) -> Result<(), StoreUnavailable> {
    sqlx::query("SELECT pg_notify($1, $2)")
        .bind(postgres::CHANNEL)
        .bind(version.to_string())
        .execute(&mut **transaction)
        .await?;
    Ok(())
}

fn read(record: &str) -> Result<Restoration, StoreUnavailable> {
    serde_json::from_str(record).map_err(StoreUnavailable::because)
}

fn json(value: &impl Serialize) -> Result<String, StoreUnavailable> {
    serde_json::to_string(value).map_err(StoreUnavailable::because)
}
