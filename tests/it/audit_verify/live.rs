//! A log that is written while it is read: nothing is found that is not so.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use countersign::audit::chain::{ChainId, Head, Position};
use countersign::audit::checkpoint::StoredCheckpoint;
use countersign::audit::export::{self, Interruption};
use countersign::audit::verify::{self, AuditReading, Outline, Run};
use countersign::audit::{HistoryPlace, HistoryRow};
use countersign::registry::StoreUnavailable;
use countersign::store::Store;
use countersign_resource_server::time::UnixTime;
use futures_util::future::BoxFuture;

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

/// A log whose checkpoints are read one by one, and the first of them removed after that.
#[derive(Debug)]
struct PrunedMeanwhile {
    store: Store,
    before: i64,
    is_removed: AtomicBool,
}

impl AuditReading for PrunedMeanwhile {
    fn outline(&self) -> BoxFuture<'_, Result<Outline, StoreUnavailable>> {
        self.store.outline()
    }

    fn statements(&self, after: i64, limit: u32) -> BoxFuture<'_, Result<Vec<StoredCheckpoint>, StoreUnavailable>> {
        Box::pin(async move {
            // The second page of them.
            if limit > 1 && after > 0 && !self.is_removed.swap(true, Ordering::Relaxed) {
                self.store.forget_statements(self.before).await?;
            }
            self.store.statements(after, 1).await
        })
    }

    fn run(&self, after: Position, last: Position, limit: u32) -> BoxFuture<'_, Result<Run, StoreUnavailable>> {
        self.store.run(after, last, limit)
    }

    fn last(&self, chain: ChainId) -> BoxFuture<'_, Result<Option<Position>, StoreUnavailable>> {
        self.store.last(chain)
    }

    fn between(&self, after: i64, before: i64) -> BoxFuture<'_, Result<Option<i64>, StoreUnavailable>> {
        self.store.between(after, before)
    }

    fn history(&self, after: HistoryPlace, limit: u32) -> BoxFuture<'_, Result<Vec<HistoryRow>, StoreUnavailable>> {
        self.store.history(after, limit)
    }

    fn cut(&self, from: Head, to: Position, limit: u32) -> BoxFuture<'_, Result<Option<Head>, StoreUnavailable>> {
        self.store.cut(from, to, limit)
    }

    fn restored(&self) -> BoxFuture<'_, Result<Vec<String>, StoreUnavailable>> {
        self.store.restored()
    }

    fn forget_statements(&self, before: i64) -> BoxFuture<'_, Result<(), StoreUnavailable>> {
        self.store.forget_statements(before)
    }
}

/// A prune moves every cut before it removes a checkpoint: nothing else tells that it came to its end meanwhile.
#[tokio::test]
async fn nothing_is_found_where_a_prune_ends_while_checkpoints_are_read() {
    for engine in Engine::every() {
        let scene = Scene::on(&engine, 40).await;
        let all = UnixTime::from_millis(i64::MAX);
        let selected = export::select(&scene.source(), all, &scene.signer.keys()).await.unwrap();
        let file = scene.directory.path().join("all.gz");
        let exported = export::write(&scene.source(), &selected, &file, &Arc::default()).await.unwrap();
        // Three chains of one transaction each: what is left are the checkpoints.
        scene.prune(&exported, Interruption::After(3)).await;
        let before = exported.checkpoint;
        assert_eq!(scene.store.statements(0, 10).await.unwrap().len() as i64, before, "all are still there");
        let source = PrunedMeanwhile { store: scene.store.clone(), before, is_removed: AtomicBool::new(false) };
        let source: Arc<dyn AuditReading> = Arc::new(source);
        let report = verify::verify(&source, &scene.signer.keys(), &scene.kept(), &Arc::default()).await.unwrap();
        assert_eq!((told(&report), report.checkpoints), (Vec::new(), 1), "{engine:?}: {report:?}");
    }
}
