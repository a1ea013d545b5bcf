//! Everything that is registered, read in one transaction, page by page.

use countersign_resource_server::time::UnixTime;
use futures_util::FutureExt;
use sqlx::any::AnyRow;
use sqlx::{Any, Row, Transaction};

use super::super::Store;
use super::document;
use crate::registry::export::{ExportStore, Look};
use crate::registry::import::{Entry, RevokedKey};
use crate::registry::store::{Answer, StoreUnavailable};
use crate::registry::{KeyHash, Record, RegistryVersion};

/// Records that are read together.
const PAGE: i64 = 500;

impl ExportStore for Store {
    fn look(&self) -> Answer<'_, Box<dyn Look>> {
        async move {
            let mut transaction = self.begin_look().await?;
            let version: i64 =
                sqlx::query_scalar("SELECT version FROM registry_state").fetch_one(&mut *transaction).await?;
            let after = [String::new(), String::new()];
            Ok(Box::new(Looking { transaction, version: RegistryVersion(version), kind: 0, after }) as Box<dyn Look>)
        }
        .boxed()
    }
}

/// A registry at one moment, and how far it was read.
struct Looking {
    transaction: Transaction<'static, Any>,
    version: RegistryVersion,
    /// Which of [`KINDS`] is next.
    kind: usize,
    /// The key of the last record before that.
    after: [String; 2],
}

impl Look for Looking {
    fn version(&self) -> RegistryVersion {
        self.version
    }

    fn next(&mut self) -> Answer<'_, Vec<Entry>> {
        async move {
            while let Some(kind) = KINDS.get(self.kind) {
                let [first, second] = &self.after;
                let rows = sqlx::query(kind.statement)
                    .bind(first.clone())
                    .bind(second.clone())
                    .bind(PAGE)
                    .fetch_all(&mut *self.transaction)
                    .await?;
                if let Some(last) = rows.last() {
                    self.after = [last.try_get(2)?, last.try_get(3)?];
                    return rows.iter().map(kind.read).collect();
                }
                self.kind += 1;
                self.after = [String::new(), String::new()];
            }
            Ok(Vec::new())
        }
        .boxed()
    }
}

/// One kind of records.
struct Kind {
    /// Gives record, last sighting, and the key in two columns; begins after the key `$1`, `$2` and gives `$3` at most.
    statement: &'static str,
    read: fn(&AnyRow) -> Result<Entry, StoreUnavailable>,
}

macro_rules! by {
    ($table:literal, $key:literal, $last_seen:literal) => {
        concat!(
            "SELECT record, ",
            $last_seen,
            ", ",
            $key,
            ", '' FROM visible_",
            $table,
            " WHERE ",
            $key,
            " > $1 AND $2 = '' ORDER BY ",
            $key,
            " LIMIT $3"
        )
    };
}

/// Each after those that it refers to.
const KINDS: &[Kind] = &[
    Kind {
        statement: by!("participant", "id", "CAST(-1 AS BIGINT)"),
        read: |row| Ok(Entry::Participant(Record::read(&document(row, 0, 1)?)?)),
    },
    Kind {
        statement: by!("trust_anchor", "id", "CAST(-1 AS BIGINT)"),
        read: |row| Ok(Entry::Anchor { anchor: Record::read(&document(row, 0, 1)?)?, subject_der: Vec::new() }),
    },
    Kind {
        statement: "SELECT record, CAST(-1 AS BIGINT), participant_id, anchor_id FROM visible_anchor_grant \
                    WHERE (participant_id, anchor_id) > ($1, $2) AND state = 'granted' \
                    ORDER BY participant_id, anchor_id LIMIT $3",
        read: |row| Ok(Entry::Grant(Record::read(&document(row, 0, 1)?)?)),
    },
    Kind {
        statement: by!("resource_server", "id", "CAST(-1 AS BIGINT)"),
        read: |row| Ok(Entry::ResourceServer(Record::read(&document(row, 0, 1)?)?)),
    },
    Kind {
        statement: by!("client", "id", "CAST(-1 AS BIGINT)"),
        read: |row| Ok(Entry::Client(Box::new(Record::read(&document(row, 0, 1)?)?), Vec::new())),
    },
    Kind {
        statement: by!("certificate", "thumbprint", "last_seen"),
        read: |row| Ok(Entry::Certificate(Box::new(Record::read(&document(row, 0, 1)?)?))),
    },
    Kind {
        statement: by!("entitlement", "id", "CAST(-1 AS BIGINT)"),
        read: |row| Ok(Entry::Entitlement(Record::read(&document(row, 0, 1)?)?)),
    },
    Kind {
        statement: "SELECT reason, revoked_at, key_hash, '' FROM visible_revoked_key WHERE key_hash > $1 AND $2 = '' \
                    ORDER BY key_hash LIMIT $3",
        read: revoked_key,
    },
];

fn revoked_key(row: &AnyRow) -> Result<Entry, StoreUnavailable> {
    let (reason, key_hash): (String, String) = (row.try_get(0)?, row.try_get(2)?);
    let reason = serde_json::from_value(serde_json::Value::String(reason)).map_err(StoreUnavailable::because)?;
    let key_hash = KeyHash::parse(&key_hash).ok_or_else(|| StoreUnavailable::because("a revoked key is no hash"))?;
    Ok(Entry::RevokedKey(RevokedKey { key_hash, revoked_at: UnixTime::from_millis(row.try_get(1)?), reason }))
}
