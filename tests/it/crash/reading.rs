//! Reads the whole log and the registry's history out of a store, by SQL of its own, and follows the chains by the text of
//! `docs/audit-log.md`: what the product says about itself is not taken for it.

use std::collections::HashMap;
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use countersign::config::StoreUrl;
use countersign_resource_server::time::UnixTime;
use futures_util::TryStreamExt;
use serde_json::Value;
use sha2::{Digest, Sha256};
use sqlx::{AnyConnection, Connection, Row};
use tokio::time::{sleep, timeout};

use super::ledger::{About, Change, Log, Record};
use super::site::PATIENCE;

/// Everything that is on record. Nobody writes meanwhile.
pub(crate) async fn read(store: &StoreUrl) -> Log {
    sqlx::any::install_default_drivers();
    let mut connection = AnyConnection::connect(store.as_str()).await.unwrap();
    let mut chains = Chains::begin(&mut connection).await;
    let records = records(&mut connection, &mut chains).await;
    let history = history(&mut connection).await;
    connection.close().await.unwrap();
    Log { records, history, broken: chains.broken() }
}

/// Waits until a serving node has put the registry's history into a chain, as far as it goes now.
pub(crate) async fn settled(store: &StoreUrl) {
    sqlx::any::install_default_drivers();
    let mut connection = AnyConnection::connect(store.as_str()).await.unwrap();
    let waited = timeout(PATIENCE, async {
        let left = "SELECT registry_state.version - audit_log.history_version FROM registry_state, audit_log";
        while sqlx::query_scalar::<_, i64>(left).fetch_one(&mut connection).await.unwrap() > 0 {
            sleep(Duration::from_millis(20)).await;
        }
    });
    assert!(waited.await.is_ok(), "the registry's history is not in a chain within {PATIENCE:?}");
    connection.close().await.unwrap();
}

/// The chains as far as they have been followed.
struct Chains {
    log: Vec<u8>,
    /// The hash of the last record, by chain.
    last: HashMap<i64, Vec<u8>>,
    /// What checkpoints say and has not been found yet: hashes, by chain and number.
    stated: HashMap<(i64, i64), String>,
    broken: Vec<String>,
}

impl Chains {
    async fn begin(connection: &mut AnyConnection) -> Self {
        let log: String = sqlx::query_scalar("SELECT id FROM audit_log").fetch_one(&mut *connection).await.unwrap();
        let mut chains =
            Self { log: hex::decode(log).unwrap(), last: HashMap::new(), stated: HashMap::new(), broken: Vec::new() };
        let checkpoints: Vec<(i64, String)> =
            sqlx::query_as("SELECT number, statement FROM audit_checkpoint ORDER BY number")
                .fetch_all(connection)
                .await
                .unwrap();
        let mut before = Value::Null;
        for ((number, statement), expected) in checkpoints.iter().zip(1..) {
            let payload = statement.split('.').nth(1).unwrap();
            let payload: Value = serde_json::from_slice(&URL_SAFE_NO_PAD.decode(payload).unwrap()).unwrap();
            if *number != expected || payload["number"] != expected || payload["before"] != before {
                chains.broken.push(format!("checkpoint {number} does not follow the one before it"));
            }
            before = hex::encode(Sha256::digest(statement)).into();
            for head in payload["chains"].as_array().unwrap() {
                let place = (head["chain"].as_i64().unwrap(), head["sequence"].as_i64().unwrap());
                let hash = head["hash"].as_str().unwrap();
                if place.1 > 0 && chains.stated.insert(place, hash.to_owned()).is_some_and(|other| other != hash) {
                    chains.broken.push(format!("checkpoints say two things of {}/{}", place.0, place.1));
                }
            }
        }
        chains
    }

    /// The next record of a chain.
    fn follow(&mut self, (chain, sequence): (i64, i64), at: i64, hash: &[u8], body: &str) {
        let first = || {
            let text = Sha256::new().chain_update(b"countersign audit chain 1").chain_update(&self.log);
            text.chain_update(chain.to_be_bytes()).finalize().to_vec()
        };
        let mut text = Sha256::new().chain_update(self.last.remove(&chain).unwrap_or_else(first));
        for number in [chain, sequence, at, i64::try_from(body.len()).unwrap()] {
            text = text.chain_update(number.to_be_bytes());
        }
        if text.chain_update(body).finalize().as_slice() != hash {
            self.broken.push(format!("the hash of {chain}/{sequence} is another"));
        }
        if self.stated.remove(&(chain, sequence)).is_some_and(|stated| stated != hex::encode(hash)) {
            self.broken.push(format!("a checkpoint says something else of {chain}/{sequence}"));
        }
        self.last.insert(chain, hash.to_owned());
    }

    fn broken(mut self) -> Vec<String> {
        let missing = self.stated.keys().map(|(chain, sequence)| format!("{chain}/{sequence} is gone"));
        self.broken.extend(missing);
        self.broken
    }
}

async fn records(connection: &mut AnyConnection, chains: &mut Chains) -> Vec<Record> {
    let mut rows = sqlx::query("SELECT position, at, hash, body FROM audit_record ORDER BY position").fetch(connection);
    let mut records = Vec::new();
    while let Some(row) = rows.try_next().await.unwrap() {
        let (position, at, hash, body): (i64, i64, Vec<u8>, String) = (row.get(0), row.get(1), row.get(2), row.get(3));
        let (chain, sequence) = (position >> 40, position & ((1 << 40) - 1));
        chains.follow((chain, sequence), at, &hash, &body);
        let about = about(&serde_json::from_str(&body).unwrap());
        records.push(Record { chain, sequence, at: UnixTime::from_millis(at), about });
    }
    records
}

async fn history(connection: &mut AnyConnection) -> Vec<Change> {
    let rows = sqlx::query("SELECT version, action, subject, why FROM history ORDER BY version, step")
        .fetch_all(connection)
        .await
        .unwrap();
    let change = |row: &sqlx::any::AnyRow| Change {
        version: row.get(0),
        action: row.get(1),
        subject: row.get(2),
        why: row.get(3),
    };
    rows.iter().map(change).collect()
}

/// What a record is about, by its body.
fn about(body: &Value) -> About {
    let text = |value: &Value| value.as_str().unwrap().to_owned();
    match (body["kind"].as_str().unwrap(), body["outcome"].as_str()) {
        ("decision", Some("issued")) => About::Issued {
            jti: text(&body["token"]["jti"]),
            client: text(&body["client_id"]),
            thumbprint: text(&body["peer"]["thumbprint"]),
            expires_at: body["token"]["exp"].as_i64().unwrap(),
            registry_version: body["registry_version"].as_i64().unwrap(),
        },
        ("withheld", _) if body.get("jti").is_some() => About::Withheld { jti: text(&body["jti"]) },
        ("change", _) => About::Change { version: body["registry_version"].as_i64().unwrap() },
        _ => About::Other,
    }
}
