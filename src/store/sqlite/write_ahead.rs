//! What is written ahead, carried over into the file beside whoever writes.
//!
//! SQLite has a commit do it that finds a thousand pages written ahead: that one takes ten times as long as the others, and with
//! it every request whose record it holds. Here a task does it on a connection of its own, and has a writer's turn only for
//! what came meanwhile: whoever writes then begins the file of what is written ahead anew. It takes what was appended, by its
//! length, and knows nothing of what that says.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use sqlx::{Row, SqlitePool};
use tokio::sync::Notify;
use tokio::task::JoinHandle;

use crate::store::{Engine, Store};

/// How much is written ahead before it is carried over.
const ENOUGH: u64 = 4 << 20;

/// So little that whoever waits for a turn does not notice: some milliseconds' worth.
const LITTLE: u64 = 256 << 10;

/// How often it is tried beside the writers to come to so little. Where they are faster, they wait for the rest.
const PASSES: u32 = 4;

/// What a commit writes beside its records: the inner pages, and the last one again.
const PAGES_BESIDE: u64 = 4 * 4_096;

/// How much has been written ahead, and who carries it over.
#[derive(Debug)]
pub(in crate::store) struct WriteAhead {
    written: AtomicU64,
    is_enough: Notify,
    carrier: SqlitePool,
}

impl WriteAhead {
    /// `carrier` has one connection, which writes through to the disk as the writers' do.
    pub(super) fn new(carrier: SqlitePool) -> Self {
        Self { written: AtomicU64::new(0), is_enough: Notify::new(), carrier }
    }

    /// Notes a commit of records of so many octets.
    pub(in crate::store) fn note(&self, octets: u64) {
        let more = octets + PAGES_BESIDE;
        if self.written.fetch_add(more, Ordering::Relaxed) + more >= ENOUGH {
            self.is_enough.notify_one();
        }
    }

    pub(in crate::store) async fn close(&self) {
        self.carrier.close().await;
    }

    /// Carries over what was written ahead up to now, and waits for nobody (<https://sqlite.org/c3ref/wal_checkpoint_v2.html>,
    /// `SQLITE_CHECKPOINT_PASSIVE`). Pages that somebody still reads as they were are left for the next time.
    async fn carry_over(&self) -> Result<(), sqlx::Error> {
        self.written.store(0, Ordering::Relaxed);
        let done = sqlx::query("PRAGMA wal_checkpoint(PASSIVE)").fetch_one(&self.carrier).await?;
        let (ahead, carried): (i64, i64) = (done.try_get(1)?, done.try_get(2)?);
        tracing::trace!(ahead, carried, "pages written ahead were carried over");
        Ok(())
    }
}

impl Store {
    /// Carries over what is written ahead (SQLite), for as long as a node serves. Without it a commit does, once much is.
    pub(crate) fn keep_carried_over(&self) -> Option<JoinHandle<()>> {
        let Engine::Sqlite { write_ahead, .. } = &self.engine else { return None };
        let (store, ahead) = (self.clone(), Arc::clone(write_ahead));
        Some(tokio::spawn(async move {
            let mut failing = false;
            loop {
                ahead.is_enough.notified().await;
                match carry_over_all(&store, &ahead).await {
                    Ok(()) => failing = false,
                    Err(error) => {
                        if !std::mem::replace(&mut failing, true) {
                            tracing::warn!(%error, "what is written ahead cannot be carried over into the store's file: it grows");
                        }
                    }
                }
            }
        }))
    }
}

async fn carry_over_all(store: &Store, ahead: &WriteAhead) -> Result<(), sqlx::Error> {
    for _ in 0..PASSES {
        ahead.carry_over().await?;
        if ahead.written.load(Ordering::Relaxed) <= LITTLE {
            break;
        }
    }
    // Nobody of this process writes: when all is carried over, the next to write begins from the start of the file.
    let _turn = store.turn_to_write().await;
    ahead.carry_over().await
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use countersign_resource_server::time::UnixTime;
    use sqlx::Executor;
    use tokio::time::{sleep, timeout};

    use super::*;
    use crate::audit::{AuditStore, Batch, Entry, Lease};
    use crate::store::contract::Bench;

    const NOW: UnixTime = UnixTime::from_millis(1_767_225_600_000);

    /// How many octets one batch of [`append`] has.
    const BATCH: u64 = 512 << 10;

    fn write_ahead(store: &Store) -> &WriteAhead {
        let Engine::Sqlite { write_ahead, .. } = &store.engine else { panic!("it is on SQLite") };
        write_ahead
    }

    fn length(store: &Store) -> u64 {
        let Engine::Sqlite { path, .. } = &store.engine else { panic!("it is on SQLite") };
        std::fs::metadata(format!("{}-wal", path.display())).unwrap().len()
    }

    async fn append(store: &Store, lease: &mut Lease) {
        let entry = |_| Entry { at: NOW, body: "x".repeat(8 << 10), assertion: None };
        let entries = (0..64).map(entry).collect();
        let batch = Batch { lease: *lease, entries, given_back: Vec::new(), history: None };
        lease.head = store.append(Arc::new(batch)).await.unwrap().head;
    }

    async fn leased(store: &Store) -> Lease {
        store.lease("node", NOW, NOW.after(Duration::from_secs(30))).await.unwrap()
    }

    #[tokio::test]
    async fn what_is_written_ahead_begins_anew_once_it_is_carried_over() {
        let bench = Bench::sqlite().await;
        let mut lease = leased(&bench.store).await;
        let keeping = bench.store.keep_carried_over().unwrap();
        for _ in 0..6 * ENOUGH / BATCH {
            append(&bench.store, &mut lease).await;
            let carried = async {
                while write_ahead(&bench.store).written.load(Ordering::Relaxed) >= ENOUGH {
                    sleep(Duration::from_millis(1)).await;
                }
            };
            timeout(Duration::from_secs(10), carried).await.unwrap();
        }
        assert!(length(&bench.store) < 3 * ENOUGH, "{} octets", length(&bench.store));
        assert_eq!(bench.store.recent(u32::MAX).await.unwrap().len() as u64, 6 * ENOUGH / BATCH * 64);
        keeping.abort();
    }

    #[tokio::test]
    async fn no_commit_carries_it_over_by_itself() {
        let bench = Bench::sqlite().await;
        let mut lease = leased(&bench.store).await;
        for _ in 0..6 * ENOUGH / BATCH {
            append(&bench.store, &mut lease).await;
        }
        assert!(length(&bench.store) > 6 * ENOUGH);
    }

    #[tokio::test]
    async fn whoever_reads_keeps_nobody_waiting_and_goes_on_with_what_was() {
        let bench = Bench::sqlite().await;
        let mut lease = leased(&bench.store).await;
        append(&bench.store, &mut lease).await;
        let mut reading = bench.store.begin_look().await.unwrap();
        let count = "SELECT COUNT(*) FROM audit_record";
        assert_eq!(sqlx::query_scalar::<_, i64>(count).fetch_one(&mut *reading).await.unwrap(), 64);
        append(&bench.store, &mut lease).await;
        carry_over_all(&bench.store, write_ahead(&bench.store)).await.unwrap();
        append(&bench.store, &mut lease).await;
        assert_eq!(sqlx::query_scalar::<_, i64>(count).fetch_one(&mut *reading).await.unwrap(), 64);
        reading.rollback().await.unwrap();
        carry_over_all(&bench.store, write_ahead(&bench.store)).await.unwrap();
        assert_eq!(bench.store.recent(u32::MAX).await.unwrap().len(), 192);
    }

    #[tokio::test]
    async fn the_carrier_writes_through_to_the_disk() {
        let bench = Bench::sqlite().await;
        let carrier = &write_ahead(&bench.store).carrier;
        let synchronous = carrier.fetch_one("PRAGMA synchronous").await.unwrap();
        // 2 is FULL (<https://sqlite.org/pragma.html#pragma_synchronous>).
        assert_eq!(synchronous.get::<i64, _>(0), 2);
    }
}
