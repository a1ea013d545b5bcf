//! A restore that was only tried out, with the keys of the log it is a copy of.

use std::path::{Path, PathBuf};

use countersign::config::StoreUrl;
use countersign_resource_server::time::{Clock, SystemClock};
use serde_json::Value;
use sqlx::{AssertSqlSafe, Connection, Executor, SqliteConnection};

use super::circle::fresh;
use super::{backed_up, command, done, text};
use crate::rig::{Engine, Rig, Time};

/// SQLite's file.
fn file(store: &StoreUrl) -> &str {
    store.as_str().trim_start_matches("sqlite:")
}

async fn copied(store: &StoreUrl, to: &Path) {
    let mut connection = SqliteConnection::connect(store.as_str()).await.unwrap();
    connection.execute(AssertSqlSafe(format!("VACUUM INTO '{}'", to.display()))).await.unwrap();
    connection.close().await.unwrap();
}

/// A log that was backed up, went on, and was restored elsewhere after that, with the same keys.
struct Scene {
    rig: Rig,
    /// The log as it was when it was backed up.
    older: StoreUrl,
    /// The newest checkpoint of it, which the older state has not.
    kept: PathBuf,
    drill: StoreUrl,
    backup: PathBuf,
}

impl Scene {
    async fn new() -> Self {
        let mut rig = Rig::on(&Engine::Sqlite, Time::Machine).await;
        assert_eq!(rig.ask(&rig.world.a_dn).await.status, 200);
        // Each time it is stopped it makes a checkpoint of all there is.
        rig.go_down().await;
        let older = fresh(&rig, &Engine::Sqlite, "older").await;
        copied(&rig.store, Path::new(file(&older))).await;
        let (backup, _) = backed_up(&rig, "backup.gz").await;
        let store = rig.store.clone();
        rig.come_up_on(store).await;
        assert_eq!(rig.ask(&rig.world.a_dn).await.status, 200);
        rig.go_down().await;
        let kept = std::fs::read_to_string(rig.directory().join("audit-checkpoint.jwt")).unwrap();
        let kept = rig.file("kept.jwt", &kept);
        let drill = fresh(&rig, &Engine::Sqlite, "drill").await;
        done(&rig, &drill, &["restore", "--from", &text(&backup)]).await;
        Self { rig, older, kept, drill, backup }
    }

    /// Notes in the keys directory that every key was withdrawn then.
    fn withdraw_keys(&self, at: i64) {
        for entry in std::fs::read_dir(&self.rig.app.config.keys_directory).unwrap() {
            let path = entry.unwrap().path();
            if path.extension().is_some_and(|extension| extension == "json") {
                let mut record: Value = serde_json::from_slice(&std::fs::read(&path).unwrap()).unwrap();
                record["retired_at"] = at.into();
                std::fs::write(&path, record.to_string()).unwrap();
            }
        }
    }

    async fn in_the_older(&self, statements: &[&str]) {
        let mut connection = SqliteConnection::connect(self.older.as_str()).await.unwrap();
        let attach = format!("ATTACH DATABASE '{}' AS drill", file(&self.drill));
        connection.execute(AssertSqlSafe(attach)).await.unwrap();
        for statement in statements {
            connection.execute(AssertSqlSafe((*statement).to_owned())).await.unwrap();
        }
        connection.close().await.unwrap();
    }
}

/// Everything a command that has to be refused said: what `audit verify` finds is its output.
async fn found(rig: &Rig, store: &StoreUrl, arguments: &[&str]) -> String {
    let output = command(rig, store, arguments).await;
    let said = [output.stdout, output.stderr].map(|said| String::from_utf8_lossy(&said).into_owned()).concat();
    assert_eq!(output.status.code(), Some(1), "{arguments:?}: {said}");
    said
}

const STATEMENT: &str = "INSERT INTO restoration SELECT epoch, 'confirmed', record, statement FROM drill.restoration";

#[tokio::test]
async fn its_statement_excuses_no_older_state_of_the_log_itself() {
    let scene = Scene::new().await;
    let (rig, verify) = (&scene.rig, ["audit", "verify", "--checkpoint", &text(&scene.kept)]);
    let said = found(rig, &scene.older, &verify).await;
    assert!(said.contains("rolled_back"), "{said}");
    // Where it was tried out, it is what it says.
    let said = done(rig, &scene.drill, &verify).await;
    assert!(said.contains("1 copies kept elsewhere are of what was lost before a restore"), "{said}");

    scene.in_the_older(&[STATEMENT]).await;
    let said = found(rig, &scene.older, &verify).await;
    assert!(said.contains("rolled_back") && said.contains("is another store's, and explains nothing"), "{said}");
    scene.rig.stop().await;
}

/// The key may have been a thief's already: what it signed before that is told, and what it signed later is nothing.
#[tokio::test]
async fn a_withdrawn_key_vouches_for_no_later_restore_or_backup() {
    let scene = Scene::new().await;
    let rig = &scene.rig;
    let kept = text(&scene.kept);
    let verify = ["audit", "verify", "--checkpoint", &kept];
    let restore = ["restore", "--from", &text(&scene.backup)];

    scene.withdraw_keys(SystemClock::new().now().as_millis());
    let said = done(rig, &scene.drill, &verify).await;
    assert!(said.contains("restored at") && said.contains("vouched for by key"), "{said}");
    let store = fresh(rig, &Engine::Sqlite, "before").await;
    let said = done(rig, &store, &restore).await;
    assert!(said.contains("Not proven, and accepted: it is vouched for by key"), "{said}");

    scene.withdraw_keys(1);
    let said = found(rig, &scene.drill, &verify).await;
    assert!(said.contains("rolled_back") && said.contains("it explains nothing"), "{said}");
    let store = fresh(rig, &Engine::Sqlite, "after").await;
    let said = found(rig, &store, &restore).await;
    assert!(said.contains("nobody can say") && said.contains("had been withdrawn at"), "{said}");
    scene.rig.stop().await;
}
