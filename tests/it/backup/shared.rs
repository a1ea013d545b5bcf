//! Servers that share a store which is put in the place of another under them.

use std::sync::Arc;
use std::time::Duration;

use sqlx::{Connection, Executor};

use super::circle::answers;
use super::{backed_up, done, text};
use crate::operations::get;
use crate::rig::{Engine, Rig, Time};
use crate::token;

/// The database is lost and restored under its name: nodes that run on notice it by themselves, issue nothing, tell the
/// resource servers, and go on once it is confirmed.
#[tokio::test(flavor = "multi_thread")]
async fn a_node_that_runs_on_notices_that_its_database_was_restored() {
    let Some(engine) = Engine::every().into_iter().find(|engine| *engine != Engine::Sqlite) else { return };
    let rig = Rig::on(&engine, Time::Machine).await;
    let world = Arc::clone(&rig.world);
    let api = rig.guarded_api().await;
    let party = &world.a_dn;
    let of_before = rig.ask(party).await.token();
    let version = token::read(&rig, &of_before).await.claims["registry_version"].as_i64().unwrap();
    answers(&rig, &api, &party.credential, &of_before, 200).await;
    let (file, _) = backed_up(&rig, "backup.gz").await;

    let mut connection = sqlx::PgConnection::connect(rig.store.as_str()).await.unwrap();
    connection.execute("DROP SCHEMA public CASCADE; CREATE SCHEMA public").await.unwrap();
    assert_ne!(rig.ask(party).await.status, 200, "the store is gone");
    done(&rig, &rig.store, &["restore", "--from", &text(&file)]).await;

    // It hands out the new list, by which everything of before is dead, and no token.
    answers(&rig, &api, &party.credential, &of_before, 401).await;
    let held = rig.app.status.current();
    assert!(held.epoch > 1 && held.number > version, "{held:?}");
    for _ in 0..10 {
        assert_eq!(rig.ask(party).await.status, 503);
    }
    assert_eq!(get(&rig, "/readyz").await.0, 503);
    let count: i64 = sqlx::query_scalar("SELECT COUNT(*) FROM audit_record WHERE body LIKE '%\"outcome\":\"issued\"%'")
        .fetch_one(&mut connection)
        .await
        .unwrap();
    assert_eq!(count, 1, "what the backup had, and no more");

    done(&rig, &rig.store, &["restore", "confirm", "--why", "nothing was revoked"]).await;
    let waited = tokio::time::timeout(Duration::from_secs(10), async {
        loop {
            let answer = rig.ask(party).await;
            if answer.status == 200 {
                break answer.token();
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    });
    let new = waited.await.expect("it serves again without a restart");
    let claims = token::read(&rig, &new).await.claims;
    assert!(claims["registry_version"].as_i64().unwrap() > version + (1 << 40));
    answers(&rig, &api, &party.credential, &new, 200).await;
    answers(&rig, &api, &party.credential, &of_before, 401).await;
    rig.app.audit.flush().await;
    let verified = done(&rig, &rig.store, &["audit", "verify"]).await;
    assert!(verified.contains("Nothing was changed"), "{verified}");
    rig.stop().await;
}
