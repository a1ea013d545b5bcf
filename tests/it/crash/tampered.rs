//! What reads the store finds what was done to it: each tampering alone, on a copy of a store that is good.

use std::path::Path;
use std::sync::Arc;

use countersign::config::StoreUrl;
use sqlx::{Connection, Executor};

use super::ledger::{Violation, check};
use super::load::{Told, ask};
use super::site::Site;
use super::{eventually, judge, reading};

/// What is done to record number 2 of the first chain, which is not its last, or to all of it: the first checkpoint, which is
/// the only one so soon, names its first record.
const TAMPERINGS: [(&str, &str); 7] = [
    ("its body changed", "UPDATE audit_record SET body = body || ' ' WHERE position = 1 << 40 | 2"),
    ("its instant changed", "UPDATE audit_record SET at = at + 1 WHERE position = 1 << 40 | 2"),
    ("its hash changed", "UPDATE audit_record SET hash = zeroblob(32) WHERE position = 1 << 40 | 2"),
    ("removed", "DELETE FROM audit_record WHERE position = 1 << 40 | 2"),
    ("the whole chain removed", "DELETE FROM audit_record WHERE position >> 40 = 1"),
    (
        "changed places with the next",
        "UPDATE audit_record SET position = 0 WHERE position = 1 << 40 | 2; \
         UPDATE audit_record SET position = 1 << 40 | 2 WHERE position = 1 << 40 | 3; \
         UPDATE audit_record SET position = 1 << 40 | 3 WHERE position = 0",
    ),
    ("the log's id changed", "UPDATE audit_log SET id = '00000000000000000000000000000000'"),
];

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_done_to_a_store_is_found() {
    let directory = tempfile::tempdir().unwrap();
    let site = Arc::new(Site::at(directory.path(), "sqlite:countersign.db").await);
    let told = Told::default();
    let mut server = site.serve();
    server.ready(&site.clock).await;
    assert_eq!(ask(&site, &site.world.a_jwt, &told).await, 200);
    reading::settled(site.store()).await;
    // The first checkpoint.
    let kept = directory.path().join("data").join(countersign::audit::checkpoint::CHECKPOINT_FILE);
    eventually("a checkpoint", || kept.exists()).await;
    server.stop().await;
    let journal = told.journal();
    judge(&site, &journal).await;

    for (what, tampering) in TAMPERINGS {
        let copy = tempfile::tempdir().unwrap();
        let store = tampered(directory.path(), copy.path(), tampering).await;
        let found = check(&journal, &reading::read(&store).await);
        let chains =
            |violation: &Violation| matches!(violation, Violation::ChainBroken(_) | Violation::SequenceBroken { .. });
        assert!(found.iter().any(chains), "{what}: {found:?}");
    }
}

/// A copy of the store in `from`, with this done to it.
async fn tampered(from: &Path, to: &Path, tampering: &'static str) -> StoreUrl {
    // The server that was stopped last has moved everything into this one file.
    std::fs::copy(from.join("countersign.db"), to.join("countersign.db")).unwrap();
    let store = StoreUrl::sqlite(&to.join("countersign.db"));
    let mut connection = sqlx::SqliteConnection::connect(store.as_str()).await.unwrap();
    connection.execute("DROP TRIGGER audit_record_is_never_changed").await.unwrap();
    connection.execute(tampering).await.unwrap();
    connection.close().await.unwrap();
    store
}
