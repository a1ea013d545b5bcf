//! The connection that appends to the audit log, kept from one batch to the next.
//!
//! It is in no pool: a pool asks a connection whether it lives each time it is taken and each time it is given back, and every
//! question is a round trip, to SQLite's thread or to the database. Takes a way to connect, gives a connection for one batch at a
//! time. It knows nothing of what is written.

use std::fmt;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use futures_util::future::BoxFuture;
use sqlx::Connection;
use tokio::time::{Instant, timeout};

use super::ACQUIRE_TIMEOUT;

/// For how long nobody asks whether it lives.
const FRESH: Duration = Duration::from_secs(1);

/// How long it has to answer.
const ANSWER: Duration = Duration::from_millis(500);

/// Makes a connection that is ready to write.
type Connect<C> = Box<dyn Fn() -> BoxFuture<'static, Result<C, sqlx::Error>> + Send + Sync>;

pub(super) struct Appender<C> {
    connect: Connect<C>,
    held: Mutex<Held<C>>,
}

enum Held<C> {
    Nothing,
    Connection { connection: C, used: Instant },
    Closed,
}

impl<C: Connection> Appender<C> {
    pub(super) fn new(
        connect: impl Fn() -> BoxFuture<'static, Result<C, sqlx::Error>> + Send + Sync + 'static,
    ) -> Self {
        Self { connect: Box::new(connect), held: Mutex::new(Held::Nothing) }
    }

    /// The connection, for one batch. Have a turn to write first; whoever does not [`Appender::keep`] it closes it.
    pub(super) async fn take(&self) -> Result<C, sqlx::Error> {
        let held = {
            let mut held = self.held.lock().unwrap_or_else(PoisonError::into_inner);
            if matches!(*held, Held::Closed) {
                return Err(sqlx::Error::PoolClosed);
            }
            std::mem::replace(&mut *held, Held::Nothing)
        };
        let ready = async {
            if let Held::Connection { mut connection, used } = held {
                // A server that was restarted meanwhile, or a network that has forgotten it, fails no batch.
                if used.elapsed() < FRESH || matches!(timeout(ANSWER, connection.ping()).await, Ok(Ok(()))) {
                    return Ok(connection);
                }
            }
            (self.connect)().await
        };
        timeout(ACQUIRE_TIMEOUT, ready).await.unwrap_or(Err(sqlx::Error::PoolTimedOut))
    }

    /// Keeps it for the next batch, if one can begin on it.
    pub(super) fn keep(&self, connection: C) {
        let mut held = self.held.lock().unwrap_or_else(PoisonError::into_inner);
        if !connection.is_in_transaction() && matches!(*held, Held::Nothing) {
            *held = Held::Connection { connection, used: Instant::now() };
        }
    }

    /// Closes it for good. Whoever has it meanwhile closes it by himself: where that matters, have a turn to write first.
    pub(super) async fn close(&self) {
        let held = std::mem::replace(&mut *self.held.lock().unwrap_or_else(PoisonError::into_inner), Held::Closed);
        if let Held::Connection { connection, .. } = held {
            let _ = connection.close().await; // nothing is open on it that could be lost
        }
    }
}

impl<C> fmt::Debug for Appender<C> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Appender").finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use sqlx::PgConnection;

    use super::*;
    use crate::store::Engine;
    use crate::store::contract::Bench;

    async fn backend(connection: &mut PgConnection) -> i32 {
        sqlx::query_scalar("SELECT pg_backend_pid()").fetch_one(connection).await.unwrap()
    }

    async fn on_postgres(name: &str, test: impl AsyncFnOnce(&Bench, &Appender<PgConnection>)) {
        let Some(bench) = Bench::postgres(name).await else {
            println!("skipped: COUNTERSIGN_TEST_POSTGRES names no database");
            return;
        };
        let Engine::Postgres { appender, .. } = &bench.store.engine else { panic!("it is on PostgreSQL") };
        test(&bench, appender).await;
    }

    #[tokio::test]
    async fn one_connection_writes_batch_after_batch() {
        on_postgres("appender_keeps", async |_, appender| {
            let mut connection = appender.take().await.unwrap();
            let first = backend(&mut connection).await;
            // Whoever comes meanwhile has another; one of the two is kept.
            let mut beside = appender.take().await.unwrap();
            assert_ne!(backend(&mut beside).await, first);
            appender.keep(connection);
            appender.keep(beside);
            let mut again = appender.take().await.unwrap();
            assert_eq!(backend(&mut again).await, first);
        })
        .await;
    }

    #[tokio::test]
    async fn one_whose_server_went_away_while_nobody_wrote_is_not_used_again() {
        on_postgres("appender_idle", async |bench, appender| {
            let mut connection = appender.take().await.unwrap();
            let first = backend(&mut connection).await;
            appender.keep(connection);
            bench.tamper(&format!("SELECT pg_terminate_backend({first})")).await;
            tokio::time::sleep(FRESH).await;
            let mut another = appender.take().await.unwrap();
            assert_ne!(backend(&mut another).await, first);
        })
        .await;
    }

    #[tokio::test]
    async fn one_in_a_transaction_is_not_kept_and_none_is_given_once_it_is_closed() {
        on_postgres("appender_closed", async |_, appender| {
            let mut connection = appender.take().await.unwrap();
            let first = backend(&mut connection).await;
            std::mem::forget(sqlx::Connection::begin(&mut connection).await.unwrap());
            appender.keep(connection);
            let mut another = appender.take().await.unwrap();
            assert_ne!(backend(&mut another).await, first);
            appender.keep(another);
            appender.close().await;
            assert!(matches!(appender.take().await, Err(sqlx::Error::PoolClosed)));
        })
        .await;
    }
}
