//! Storage of the signing keys that nodes share, in SQL that both engines accept.
//!
//! Takes and gives rows, whatever is sealed in them; a change is made by the revision it was planned for, or not at all.

use std::collections::BTreeMap;
use std::time::Duration;

use countersign_resource_server::time::UnixTime;
use sqlx::Row as _;
use sqlx::any::AnyRow;

use super::{Store, in_time};
use crate::mint::shared_keys::{RingRow, RingState, SealedKey, SealedKeyStore, SealedRing};
use crate::registry::StoreUnavailable;
use crate::registry::store::Answer;

/// How long a node waits that only asks whether anything has changed: it asks again, and signs nothing until then.
const GLANCE: Duration = Duration::from_secs(2);

/// How long somebody waits who reads all of it, or changes it.
const PATIENCE: Duration = Duration::from_secs(5);

/// One statement, and so one moment: the proof of the ring is over what the keys were then.
const READ: &str = "SELECT state.epoch, ring.revision, ring.encrypted_by, ring.proof, own.kid, own.alg, own.created_at, \
                        own.signs_from, own.retired_at, own.revision, own.sealed, \
                        (SELECT MIN(history.at) FROM history WHERE history.subject = 'signing_key:' || own.kid \
                             AND history.action = 'signing_key.withdraw'), \
                        (SELECT MAX(history.version) FROM history WHERE history.subject = 'signing_key:' || own.kid) \
                    FROM registry_state AS state LEFT JOIN signing_key_ring AS ring ON 1 = 1 \
                        LEFT JOIN signing_key AS own ON 1 = 1";

/// For each key one probe of the history's index, and nothing that grows with the history.
const STATE: &str = "SELECT state.epoch, COALESCE(ring.revision, 0), ring.proof, own.kid, own.revision, \
                         (SELECT MAX(history.version) FROM history WHERE history.subject = 'signing_key:' || own.kid) \
                     FROM registry_state AS state LEFT JOIN signing_key_ring AS ring ON 1 = 1 \
                         LEFT JOIN signing_key AS own ON 1 = 1";

const FIRST: &str = "INSERT INTO signing_key_ring (singleton, revision, encrypted_by, proof) VALUES (1, $1, $2, $3) \
                     ON CONFLICT (singleton) DO NOTHING";

/// Two who change the same revision wait for each other here, and the second changes nothing.
const NEXT: &str = "UPDATE signing_key_ring SET revision = $1, encrypted_by = $2, proof = $3 WHERE revision = $1 - 1";

const KEY: &str = "INSERT INTO signing_key (kid, alg, created_at, signs_from, retired_at, revision, sealed) \
                   VALUES ($1, $2, $3, $4, $5, $6, $7) ON CONFLICT (kid) DO UPDATE SET alg = excluded.alg, \
                       created_at = excluded.created_at, signs_from = excluded.signs_from, \
                       retired_at = excluded.retired_at, revision = excluded.revision, sealed = excluded.sealed";

impl SealedKeyStore for Store {
    fn sealed_keys(&self) -> Answer<'_, SealedRing> {
        in_time(PATIENCE, async move {
            let rows = sqlx::query(READ).fetch_all(&self.readers).await?;
            let first = rows.first().ok_or_else(|| StoreUnavailable::because("it has no registry"))?;
            let ring = match first.try_get(1)? {
                Some(revision) => Some(RingRow { revision, encrypted_by: first.try_get(2)?, proof: first.try_get(3)? }),
                None => None,
            };
            let (mut withdrawn, mut told) = (BTreeMap::new(), 0);
            let mut keys = Vec::new();
            for row in &rows {
                let Some(kid) = row.try_get::<Option<String>, _>(4)? else { continue };
                if let Some(at) = row.try_get(11)? {
                    withdrawn.insert(kid.clone(), UnixTime::from_millis(at));
                }
                told = told.max(row.try_get::<Option<i64>, _>(12)?.unwrap_or(0));
                keys.push(key(kid, row)?);
            }
            Ok(SealedRing { epoch: first.try_get(0)?, ring, keys, withdrawn, told })
        })
    }

    fn sealed_state(&self) -> Answer<'_, RingState> {
        in_time(GLANCE, async move {
            let rows = sqlx::query(STATE).fetch_all(&self.readers).await?;
            let first = rows.first().ok_or_else(|| StoreUnavailable::because("it has no registry"))?;
            let (mut members, mut told) = (Vec::new(), 0);
            for row in &rows {
                let Some(kid) = row.try_get::<Option<String>, _>(3)? else { continue };
                members.push((kid, row.try_get::<i64, _>(4)?));
                told = told.max(row.try_get::<Option<i64>, _>(5)?.unwrap_or(0));
            }
            members.sort_unstable();
            Ok(RingState {
                epoch: first.try_get(0)?,
                revision: first.try_get(1)?,
                proof: first.try_get::<Option<Vec<u8>>, _>(2)?.unwrap_or_default(),
                members,
                told,
            })
        })
    }

    fn write_sealed(&self, ring: RingRow, keys: Vec<SealedKey>) -> Answer<'_, bool> {
        in_time(PATIENCE, async move {
            let _turn = self.turn_to_write().await;
            let mut transaction = self.begin_write().await?;
            let statement = if ring.revision == 1 { FIRST } else { NEXT };
            let replaced = sqlx::query(statement)
                .bind(ring.revision)
                .bind(ring.encrypted_by)
                .bind(ring.proof)
                .execute(&mut *transaction)
                .await?;
            if replaced.rows_affected() != 1 {
                transaction.rollback().await?;
                return Ok(false);
            }
            for key in keys {
                sqlx::query(KEY)
                    .bind(key.kid)
                    .bind(key.alg)
                    .bind(key.created_at.as_millis())
                    .bind(key.signs_from.map(UnixTime::as_millis))
                    .bind(key.retired_at.map(UnixTime::as_millis))
                    .bind(key.revision)
                    .bind(key.sealed)
                    .execute(&mut *transaction)
                    .await?;
            }
            transaction.commit().await?;
            Ok(true)
        })
    }
}

fn key(kid: String, row: &AnyRow) -> Result<SealedKey, sqlx::Error> {
    let instant = |index: usize| Ok::<_, sqlx::Error>(row.try_get::<Option<i64>, _>(index)?.map(UnixTime::from_millis));
    Ok(SealedKey {
        kid,
        alg: row.try_get(5)?,
        created_at: UnixTime::from_millis(row.try_get(6)?),
        signs_from: instant(7)?,
        retired_at: instant(8)?,
        revision: row.try_get(9)?,
        sealed: row.try_get(10)?,
    })
}

#[cfg(test)]
mod tests;
