//! A log to tamper with: a few hundred records in several chains, several checkpoints, a history.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::time::Duration;

use countersign::audit::believed::BelievedKeys;
use countersign::audit::chain::Head;
use countersign::audit::checkpoint::{CHECKPOINT_TYPE, CheckpointStore, StoredCheckpoint, statement_hash};
use countersign::audit::verify::{self, AuditReading, Finding, FindingKind, Report};
use countersign::audit::{AuditLimits, AuditLog, AuditStore, Batch, Entry, Lease};
use countersign::registry::history::{Actor, Explanation};
use countersign::registry::participant::{Contacts, Participant, ParticipantState};
use countersign::registry::{MemorySize, ParticipantId, Registry};
use countersign::store::{Migrate, Store, open};
use countersign_conformance::forge::{Members, Token};
use countersign_conformance::{JwsAlgorithm, Key, KeyKind};
use countersign_resource_server::time::{ManualClock, UnixTime};
use countersign_resource_server::token::jwks::KeySet;
use serde_json::{Value, json};

use crate::rig::Engine;

/// When the log begins.
pub(super) const BEGUN: UnixTime = UnixTime::from_seconds(1_800_000_000);

/// Who signs checkpoints.
pub(super) struct Signer {
    key: Key,
    kid: String,
}

impl Signer {
    pub(super) fn new() -> Self {
        let key = Key::generate(KeyKind::P256);
        let kid = key.jwk_thumbprint();
        Self { key, kid }
    }

    /// With another key under the same name.
    pub(super) fn impostor(&self) -> Self {
        Self { key: Key::generate(KeyKind::P256), kid: self.kid.clone() }
    }

    pub(super) fn keys(&self) -> BelievedKeys {
        let mut jwk = self.key.jwk();
        jwk["kid"] = self.kid.as_str().into();
        KeySet::parse(json!({ "keys": [jwk] }).to_string().as_bytes()).unwrap().into()
    }

    /// The same, withdrawn at this instant.
    pub(super) fn withdrawn(&self, at: UnixTime) -> BelievedKeys {
        BelievedKeys::new(self.keys().keys().clone(), [(self.kid.clone(), at)].into())
    }

    /// A checkpoint, made from the text of the format alone.
    pub(super) fn sign(&self, number: i64, at: UnixTime, log: &str, before: Option<&str>, heads: &[Head]) -> String {
        let chains: Vec<Value> = heads
            .iter()
            .map(|head| {
                let (chain, sequence) = (head.chain().number(), head.position.sequence());
                json!({ "chain": chain, "sequence": sequence, "hash": head.hash.to_string() })
            })
            .collect();
        let claims = Members::new()
            .with("iss", "https://as.example")
            .with("log", log)
            .with("number", number)
            .with("at", at.as_millis());
        let claims = match before {
            Some(before) => claims.with("before", statement_hash(before).to_string()),
            None => claims,
        };
        let token = Token {
            header: Members::new().with("typ", CHECKPOINT_TYPE).with("alg", "ES256").with("kid", self.kid.as_str()),
            claims: claims.with("chains", chains),
            algorithm: JwsAlgorithm::Es256,
            key: &self.key,
        };
        token.compact()
    }
}

impl Signer {
    /// The proof of a `pruned` record, made from the text of the format alone.
    pub(super) fn prove(&self, record: &Value, log: &str, statement: &str) -> String {
        let mut claims = Members::new()
            .with("iss", "https://as.example")
            .with("log", log)
            .with("statement", statement_hash(statement).to_string());
        for (name, value) in record.as_object().unwrap().iter().filter(|(name, _)| *name != "proof") {
            claims = claims.with(name, value.clone());
        }
        let header = Members::new()
            .with("typ", "countersign-audit-prune+jwt")
            .with("alg", "ES256")
            .with("kid", self.kid.as_str());
        Token { header, claims, algorithm: JwsAlgorithm::Es256, key: &self.key }.compact()
    }
}

/// A log, its keys, and the checkpoint that was kept elsewhere.
pub(super) struct Scene {
    pub(super) url: String,
    pub(super) signer: Signer,
    pub(super) store: Store,
    pub(super) registry: Arc<Registry>,
    leases: Vec<Lease>,
    pub(super) now: UnixTime,
    pub(super) statements: Vec<String>,
    /// SQLite: the file as it was after each checkpoint but the last.
    pub(super) older: Vec<PathBuf>,
    pub(super) directory: tempfile::TempDir,
}

impl Scene {
    /// A log with four checkpoints, which cover all of it, and three chains of `records` records each, more or less.
    pub(super) async fn on(engine: &Engine, records: usize) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let url = engine.fresh(directory.path()).await.as_str().to_owned();
        let store = open(&url, Migrate::Apply).await.unwrap();
        let registry = Registry::new(Arc::new(store.clone()), MemorySize::default(), "node").await.unwrap();
        let mut scene = Self {
            url,
            signer: Signer::new(),
            store,
            registry,
            leases: Vec::new(),
            now: BEGUN,
            statements: Vec::new(),
            older: Vec::new(),
            directory,
        };
        for name in ["one", "two", "three", "four"] {
            scene.join(name).await;
            scene.put_history_in_a_chain().await;
        }
        let until = scene.now.after(Duration::from_secs(86_400));
        for node in ["a", "b", "c"] {
            let lease = scene.store.lease(node, scene.now, until).await.unwrap();
            scene.leases.push(lease);
        }
        for number in 0..4 {
            for chain in 0..3 {
                scene.write(chain, records / 4).await;
            }
            scene.checkpoint().await;
            if number < 3 && matches!(engine, Engine::Sqlite) {
                let copy = scene.directory.path().join(format!("older-{number}.db"));
                scene.copy_to(&copy).await;
                scene.older.push(copy);
            }
        }
        scene
    }

    /// The whole database as one file.
    pub(super) async fn copy_to(&self, path: &Path) {
        use sqlx::{Connection, Executor};
        let mut connection = sqlx::SqliteConnection::connect(&self.url).await.unwrap();
        connection.execute(sqlx::AssertSqlSafe(format!("VACUUM INTO '{}'", path.display()))).await.unwrap();
        connection.close().await.unwrap();
    }

    pub(super) async fn join(&self, name: &str) {
        let participant = Participant {
            id: ParticipantId::parse(name).unwrap(),
            legal_name: format!("{name} \"Ltd\" ü"),
            registration_number: None,
            country: None,
            roles: Vec::new(),
            contacts: Contacts::default(),
            state: ParticipantState::Active,
        };
        let actor = Actor::Operator { system_user: "root".to_owned(), stated_name: None };
        let because = Explanation { actor, at: self.now, why: Some("joins".to_owned()) };
        self.registry.add_participant(participant, because).await.unwrap();
    }

    /// As a node that begins and ends.
    pub(super) async fn put_history_in_a_chain(&self) {
        let (store, changes) = (Arc::new(self.store.clone()), Arc::clone(&self.registry));
        let clock = Arc::new(ManualClock::at(self.now));
        AuditLog::open(store, changes, "node", clock, AuditLimits::default()).await.unwrap().close().await;
    }

    /// Writes records to the chain that was leased as the `chain`th.
    pub(super) async fn write(&mut self, chain: usize, count: usize) {
        let lease = self.leases[chain];
        let entries = (0..count)
            .map(|index| {
                self.now = self.now.after(Duration::from_millis(7));
                let number = lease.head.position.sequence() + 1 + i64::try_from(index).unwrap();
                let body = format!(
                    r#"{{"kind":"decision","at":{},"node":"n{chain}","number":{number},"outcome":"issued"}}"#,
                    self.now.as_millis()
                );
                Entry::new(self.now, body)
            })
            .collect();
        self.append(chain, entries).await;
    }

    pub(super) async fn append(&mut self, chain: usize, entries: Vec<Entry>) {
        let lease = self.leases[chain];
        let batch = Batch { lease, entries, given_back: Vec::new(), history: None };
        self.leases[chain].head = self.store.append(Arc::new(batch)).await.unwrap().head;
    }

    pub(super) async fn checkpoint(&mut self) {
        self.now = self.now.after(Duration::from_secs(3600));
        let (log, heads) = self.store.heads().await.unwrap();
        let number = i64::try_from(self.statements.len()).unwrap() + 1;
        let before = self.statements.last().map(String::as_str);
        let statement = self.signer.sign(number, self.now, &log.to_string(), before, &heads);
        let stored = StoredCheckpoint { number, at: self.now, statement: statement.clone() };
        assert!(self.store.put_checkpoint(&stored).await.unwrap());
        self.statements.push(statement);
    }

    pub(super) fn source(&self) -> Arc<dyn AuditReading> {
        Arc::new(self.store.clone())
    }

    /// What was kept elsewhere: the newest checkpoint.
    pub(super) fn kept(&self) -> Vec<String> {
        self.statements.last().cloned().into_iter().collect()
    }

    pub(super) async fn verified(&self) -> Report {
        verified(&self.store, &self.signer.keys(), &self.kept()).await
    }
}

pub(super) async fn verified(store: &Store, keys: &BelievedKeys, copies: &[String]) -> Report {
    let source: Arc<dyn AuditReading> = Arc::new(store.clone());
    verify::verify(&source, keys, copies, &Arc::new(AtomicU64::new(0))).await.unwrap()
}

/// Every finding as `kind place`.
pub(super) fn told(report: &Report) -> Vec<String> {
    report.findings.iter().map(|finding: &Finding| format!("{} {}", finding.kind.as_str(), finding.place())).collect()
}

pub(super) fn has(report: &Report, kind: FindingKind) -> bool {
    report.findings.iter().any(|finding| finding.kind == kind)
}
