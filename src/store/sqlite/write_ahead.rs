//! What is written ahead, carried over into the file beside whoever writes.
//!
//! SQLite has a commit do it that finds many pages written ahead: that one takes ten times as long as the others, and with it
//! every request whose record it holds. Here a task looks how many there are, whoever wrote them, carries them over on a
//! connection of its own and syncs the file, a little at a time: the disk does one thing after the other, and a commit waits for
//! whatever it is at. Once much was written ahead the task has a writer's turn for what came meanwhile: whoever writes then
//! begins the file of what is written ahead anew. It knows nothing of what is in it.

use std::fs::File;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;

use sqlx::{Row, SqlitePool};
use tokio::task::{JoinHandle, spawn_blocking};
use tokio::time::sleep;

use crate::store::{Engine, Store};

/// How often it is looked how much is written ahead; and where nobody has written for a while.
const LOOK: Duration = Duration::from_millis(20);
const SELDOM: Duration = Duration::from_millis(100);

/// After so many looks that found little.
const QUIET: u32 = 50;

/// How many pages are carried over at a time, at least: half a megabyte.
const SOME: i64 = 128;

/// From how many pages on the file of what is written ahead is begun anew: 16 megabytes.
const ENOUGH: i64 = 4_096;

/// So few that whoever waits for a turn does not notice.
const LITTLE: i64 = 64;

/// How often it is tried beside the writers to come to so few. Where they are faster, they wait for the rest.
const PASSES: u32 = 4;

/// Who carries over.
#[derive(Debug)]
pub(in crate::store) struct WriteAhead {
    carrier: SqlitePool,
    /// From how many pages on it is begun anew the next time: more than [`ENOUGH`] where a reader was in the way.
    anew_from: AtomicI64,
}

/// Pages written ahead, and how many of them are in the file already.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Pages {
    ahead: i64,
    carried: i64,
}

impl Pages {
    const fn left(self) -> i64 {
        self.ahead - self.carried
    }
}

impl WriteAhead {
    /// `carrier` has one connection, which writes through to the disk as the writers' do.
    pub(super) const fn new(carrier: SqlitePool) -> Self {
        Self { carrier, anew_from: AtomicI64::new(ENOUGH) }
    }

    pub(in crate::store) async fn close(&self) {
        self.carrier.close().await;
    }

    /// How much there is (<https://sqlite.org/c3ref/wal_checkpoint_v2.html>, `SQLITE_CHECKPOINT_NOOP`).
    async fn look(&self) -> Result<Option<Pages>, sqlx::Error> {
        self.checkpoint("PRAGMA wal_checkpoint(NOOP)").await
    }

    /// Carries over what was written ahead up to now, and waits for nobody (`SQLITE_CHECKPOINT_PASSIVE`): neither for pages that
    /// somebody still reads as they were, nor for another process that does the same.
    async fn carry_over(&self) -> Result<Option<Pages>, sqlx::Error> {
        self.checkpoint("PRAGMA wal_checkpoint(PASSIVE)").await
    }

    async fn checkpoint(&self, pragma: &'static str) -> Result<Option<Pages>, sqlx::Error> {
        let row = sqlx::query(pragma).fetch_one(&self.carrier).await?;
        let is_busy: i64 = row.try_get(0)?;
        if is_busy != 0 {
            // Somebody else is at it: how far it has come is looked at the next time.
            return Ok(None);
        }
        Ok(Some(Pages { ahead: row.try_get(1)?, carried: row.try_get(2)? }))
    }
}

impl Store {
    /// Carries over what is written ahead (SQLite), for as long as a node serves.
    pub(crate) fn keep_carried_over(&self) -> Option<JoinHandle<()>> {
        let Engine::Sqlite { write_ahead, path, .. } = &self.engine else { return None };
        let (store, ahead) = (self.clone(), Arc::clone(write_ahead));
        // Never closed: that would drop the locks that SQLite holds on the file in this process
        // (<https://sqlite.org/howtocorrupt.html>, section 2.2).
        let file = File::open(path).map(|file| &*Box::leak(Box::new(file)));
        let file = file.inspect_err(|error| tracing::warn!(%error, "the store's file is synced by its writers")).ok();
        Some(tokio::spawn(async move {
            let mut failing = false;
            let mut quiet = 0;
            loop {
                sleep(if quiet < QUIET { LOOK } else { SELDOM }).await;
                match carry_over_all(&store, &ahead, file).await {
                    Ok(was_some) => {
                        failing = false;
                        quiet = if was_some { 0 } else { quiet + 1 };
                    }
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

/// Carries over what is written ahead, if there is some, and says so; and where there was enough of it, has it begun anew.
async fn carry_over_all(store: &Store, ahead: &WriteAhead, file: Option<&'static File>) -> Result<bool, sqlx::Error> {
    let Some(written) = ahead.look().await? else { return Ok(true) };
    if written.ahead < ENOUGH {
        ahead.anew_from.store(ENOUGH, Ordering::Relaxed);
    }
    if written.left() < SOME {
        return Ok(false);
    }
    let begins_anew = written.ahead >= ahead.anew_from.load(Ordering::Relaxed);
    for _ in 0..if begins_anew { PASSES } else { 1 } {
        if ahead.carry_over().await?.is_none_or(|pages| pages.left() > LITTLE) {
            // Somebody reads what was long ago, and nothing is gained by a turn. (Somebody who reads what was just now is nearly always
            // there where much is read: that must not keep the file from being begun anew.)
            return Ok(true);
        }
        if !begins_anew || ahead.look().await?.is_some_and(|pages| pages.left() <= LITTLE) {
            break;
        }
    }
    // SQLite syncs the file only where nothing was written ahead meanwhile: that would be under the turn, with all of it.
    if let Some(file) = file {
        spawn_blocking(|| file.sync_data()).await.map_err(std::io::Error::other)??;
    }
    if !begins_anew {
        return Ok(true);
    }
    // Whether or not somebody reads just now: a turn is not asked for again before much more is written.
    let ask_again_from = |pages: Pages| ahead.anew_from.store(pages.ahead + ENOUGH / 4, Ordering::Relaxed);
    ask_again_from(written);
    // Nobody of this process writes: when all is carried over, the next to write begins from the start of the file.
    let _turn = store.turn_to_write().await;
    if let Some(pages) = ahead.carry_over().await? {
        ask_again_from(pages);
    }
    Ok(true)
}

#[cfg(test)]
mod tests {
    use countersign_resource_server::time::UnixTime;
    use sqlx::Executor;
    use tokio::time::timeout;

    use super::*;
    use crate::audit::{AuditStore, Batch, Entry, Lease};
    use crate::store::contract::Bench;
    use crate::store::{Migrate, open};

    const NOW: UnixTime = UnixTime::from_millis(1_767_225_600_000);

    const ENOUGH_OCTETS: u64 = ENOUGH as u64 * 4_096;

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
        let entry = |_| Entry::new(NOW, "x".repeat(8 << 10));
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
        for _ in 0..3 * ENOUGH_OCTETS / BATCH {
            append(&bench.store, &mut lease).await;
            let carried = async {
                while write_ahead(&bench.store).look().await.unwrap().unwrap().left() >= SOME {
                    sleep(Duration::from_millis(1)).await;
                }
            };
            timeout(Duration::from_secs(10), carried).await.unwrap();
        }
        assert!(length(&bench.store) < 2 * ENOUGH_OCTETS, "{} octets", length(&bench.store));
        assert_eq!(bench.store.recent(u32::MAX).await.unwrap().len() as u64, 3 * ENOUGH_OCTETS / BATCH * 64);
        keeping.abort();
    }

    #[tokio::test]
    async fn a_little_is_carried_over_without_a_turn() {
        let bench = Bench::sqlite().await;
        let (store, ahead) = (&bench.store, write_ahead(&bench.store));
        let mut lease = leased(store).await;
        append(store, &mut lease).await;
        let written = ahead.look().await.unwrap().unwrap();
        assert!((SOME..ENOUGH).contains(&written.left()), "{written:?}");
        let turn = store.turn_to_write().await;
        let carrying = timeout(Duration::from_secs(10), carry_over_all(store, ahead, None));
        assert!(carrying.await.expect("it waits for no turn").unwrap());
        drop(turn);
        assert_eq!(ahead.look().await.unwrap().unwrap(), Pages { carried: written.ahead, ..written });
        // Less than that is left alone.
        store.renew(lease.head.chain(), lease.number, NOW.after(Duration::from_secs(60))).await.unwrap();
        let written = ahead.look().await.unwrap().unwrap();
        assert!(!carry_over_all(store, ahead, None).await.unwrap());
        assert_eq!(ahead.look().await.unwrap().unwrap(), written);
    }

    #[tokio::test]
    async fn no_commit_carries_it_over_by_itself() {
        let bench = Bench::sqlite().await;
        let mut lease = leased(&bench.store).await;
        for _ in 0..3 * ENOUGH_OCTETS / BATCH {
            append(&bench.store, &mut lease).await;
        }
        assert!(length(&bench.store) > 3 * ENOUGH_OCTETS);
    }

    #[tokio::test]
    async fn whoever_reads_keeps_nobody_waiting_and_goes_on_with_what_was() {
        let bench = Bench::sqlite().await;
        let (store, ahead) = (&bench.store, write_ahead(&bench.store));
        let mut lease = leased(store).await;
        append(store, &mut lease).await;
        let mut reading = store.begin_look().await.unwrap();
        let count = "SELECT COUNT(*) FROM audit_record";
        assert_eq!(sqlx::query_scalar::<_, i64>(count).fetch_one(&mut *reading).await.unwrap(), 64);
        for _ in 0..ENOUGH_OCTETS / BATCH + 1 {
            append(store, &mut lease).await;
        }
        // With a turn that somebody else has: it is not asked for.
        let turn = store.turn_to_write().await;
        carry_over_all(store, ahead, None).await.unwrap();
        drop(turn);
        assert!(ahead.look().await.unwrap().unwrap().left() >= ENOUGH, "what is read is not written over");
        append(store, &mut lease).await;
        assert_eq!(sqlx::query_scalar::<_, i64>(count).fetch_one(&mut *reading).await.unwrap(), 64);
        reading.rollback().await.unwrap();
        carry_over_all(store, ahead, None).await.unwrap();
        assert_eq!(ahead.look().await.unwrap().unwrap().left(), 0);
        let length = length(store);
        append(store, &mut lease).await;
        assert_eq!(self::length(store), length, "the file of what is written ahead is begun anew");
        assert_eq!(store.recent(u32::MAX).await.unwrap().len() as u64, 64 * (ENOUGH_OCTETS / BATCH + 4));
    }

    #[tokio::test]
    async fn whoever_reads_what_was_just_now_does_not_keep_it_from_being_carried_over() {
        let bench = Bench::sqlite().await;
        let (store, ahead) = (&bench.store, write_ahead(&bench.store));
        let mut lease = leased(store).await;
        for _ in 0..ENOUGH_OCTETS / BATCH + 1 {
            append(store, &mut lease).await;
        }
        let mut reading = store.begin_look().await.unwrap();
        sqlx::query("SELECT COUNT(*) FROM audit_record").fetch_one(&mut *reading).await.unwrap();
        // A few pages more than the reader sees.
        store.renew(lease.head.chain(), lease.number, NOW.after(Duration::from_secs(60))).await.unwrap();
        let turn = store.turn_to_write().await;
        let carrying = carry_over_all(store, ahead, None);
        let waited = timeout(Duration::from_millis(200), carrying).await;
        assert!(waited.is_err(), "it waits for a turn");
        drop(turn);
        let left = ahead.look().await.unwrap().unwrap().left();
        assert!((1..=LITTLE).contains(&left), "{left} pages");
        reading.rollback().await.unwrap();
        // It is not asked for again at once. Where nobody reads it is not needed either: all is carried over, and whoever writes
        // next begins anew.
        append(store, &mut lease).await;
        let turn = store.turn_to_write().await;
        let carrying = timeout(Duration::from_secs(10), carry_over_all(store, ahead, None));
        assert!(carrying.await.expect("it waits for no turn").unwrap());
        drop(turn);
        append(store, &mut lease).await;
        assert!(ahead.look().await.unwrap().unwrap().ahead < ENOUGH);
    }

    #[tokio::test]
    async fn what_another_process_wrote_ahead_is_carried_over_too() {
        let bench = Bench::sqlite().await;
        let another = open(&bench.url, Migrate::Check).await.unwrap();
        let mut lease = leased(&another).await;
        for _ in 0..ENOUGH_OCTETS / BATCH + 1 {
            append(&another, &mut lease).await;
        }
        let ahead = write_ahead(&bench.store);
        assert!(ahead.look().await.unwrap().unwrap().left() >= ENOUGH);
        carry_over_all(&bench.store, ahead, None).await.unwrap();
        assert_eq!(ahead.look().await.unwrap().unwrap().left(), 0);
        another.close().await;
    }

    #[tokio::test]
    async fn a_commit_carries_over_by_itself_late_and_where_somebody_serves_later() {
        let bench = Bench::sqlite().await;
        let another = open(&bench.url, Migrate::Check).await.unwrap();
        for (store, pages) in [(&another, 16_000), (&bench.store, 262_144)] {
            let Engine::Sqlite { appender, .. } = &store.engine else { panic!("it is on SQLite") };
            let mut native = appender.take().await.unwrap();
            let of_appender = native.fetch_one("PRAGMA wal_autocheckpoint").await.unwrap();
            assert_eq!(of_appender.get::<i64, _>(0), pages);
            appender.keep(native);
            let of_writers: i64 =
                sqlx::query_scalar("PRAGMA wal_autocheckpoint").fetch_one(&store.writers).await.unwrap();
            assert_eq!(of_writers, pages);
        }
        another.close().await;
    }

    /// Before 3.51.3 whoever carried over could lose what a writer wrote who began the file anew at that moment
    /// (<https://sqlite.org/releaselog/3_51_3.html>).
    #[tokio::test]
    async fn sqlite_is_one_in_which_carrying_over_beside_writers_is_safe() {
        let bench = Bench::sqlite().await;
        let version: String =
            sqlx::query_scalar("SELECT sqlite_version()").fetch_one(&bench.store.readers).await.unwrap();
        let numbers: Vec<u32> = version.split('.').map(|number| number.parse().unwrap()).collect();
        assert!(numbers >= vec![3, 51, 3], "{version}");
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
