//! A log that is written while it is read: nothing is found that is not so.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use countersign::audit::export::{self, Interruption};
use countersign_resource_server::time::UnixTime;

use super::scene::{Scene, told, verified};
use crate::rig::Engine;

/// How many rounds are written meanwhile, at least: the last but one of four prunes is over by then.
const ROUNDS: usize = 42;

#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_found_in_a_log_that_is_being_written_and_pruned() {
    for engine in Engine::every() {
        let mut scene = Scene::on(&engine, 400).await;
        let (store, keys, kept) = (scene.store.clone(), scene.signer.keys(), scene.kept());
        let is_over = Arc::new(AtomicBool::new(false));
        let over = Arc::clone(&is_over);
        let written = Arc::new(AtomicUsize::new(0));
        let rounds = Arc::clone(&written);
        let writing = tokio::spawn(async move {
            let mut round;
            while !over.load(Ordering::Relaxed) {
                round = rounds.fetch_add(1, Ordering::Relaxed) + 1;
                scene.write(round % 3, 20).await;
                if round.is_multiple_of(3) {
                    scene.join(&format!("p{round}")).await;
                    scene.put_history_in_a_chain().await;
                }
                if round.is_multiple_of(4) {
                    scene.checkpoint().await;
                }
                if round.is_multiple_of(10) {
                    let source = scene.source();
                    let selected = export::select(&source, UnixTime::from_millis(i64::MAX), &scene.signer.keys()).await;
                    let file = scene.directory.path().join(format!("{round}.gz"));
                    let exported = export::write(&source, &selected.unwrap(), &file, &Arc::default()).await.unwrap();
                    scene.prune(&exported, Interruption::None).await;
                }
            }
            scene
        });
        // Another one's view of the store, as a command has.
        let mut times = 0;
        while written.load(Ordering::Relaxed) < ROUNDS {
            let report = verified(&store, &keys, &kept).await;
            assert_eq!(told(&report), [""; 0], "{engine:?}, {times}: {report:?}");
            times += 1;
        }
        is_over.store(true, Ordering::Relaxed);
        let scene = writing.await.unwrap();
        let report = scene.verified().await;
        assert_eq!(told(&report), [""; 0]);
        assert!(report.checkpoints >= 1 && report.records > 0 && times > 1, "{times}: {report:?}");
    }
}
