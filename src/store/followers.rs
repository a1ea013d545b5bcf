//! Storage of who follows the revocation list, in SQL that both engines accept but for the clock.
//!
//! Takes a node's summary, gives those of all nodes. A row is its node's own and is written over; one that nobody has
//! written for an hour is removed by the next who writes.

use std::time::Duration;

use sqlx::Row as _;
use sqlx::any::AnyRow;

use super::{Engine, Store, in_time};
use crate::followers::store::{FollowerStore, Heard, Row, Summary};
use crate::registry::StoreUnavailable;
use crate::registry::store::Answer;

/// A command waits for two seconds in all.
const PATIENCE: Duration = Duration::from_millis(1_500);

/// The statements, by the clock of the engine: in milliseconds.
struct Statements {
    note: &'static str,
    clean: &'static str,
    read: &'static str,
}

macro_rules! statements {
    ($clock:literal) => {
        Statements {
            note: concat!(
                "INSERT INTO list_follower (id, node, epoch, number, taken, others, behind, heard, seen_at) \
                 VALUES ($1, $2, $3, $4, $5, $6, $7, $8, ",
                $clock,
                ") ON CONFLICT (id) DO UPDATE SET epoch = excluded.epoch, number = excluded.number, \
                     taken = excluded.taken, others = excluded.others, behind = excluded.behind, \
                     heard = COALESCE(excluded.heard, list_follower.heard), seen_at = excluded.seen_at"
            ),
            clean: concat!("DELETE FROM list_follower WHERE seen_at < ", $clock, " - 3600000"),
            read: concat!(
                "SELECT follower.node, ",
                $clock,
                " - follower.seen_at, CASE WHEN follower.epoch = state.epoch THEN 1 ELSE 0 END, follower.epoch, \
                     follower.number, follower.taken, follower.others, follower.behind, follower.heard \
                 FROM list_follower AS follower CROSS JOIN registry_state AS state ORDER BY follower.node, follower.id"
            ),
        }
    };
}

const SQLITE: Statements = statements!("CAST(unixepoch('subsec') * 1000 AS INTEGER)");

const POSTGRES: Statements = statements!("CAST(EXTRACT(EPOCH FROM clock_timestamp()) * 1000 AS BIGINT)");

impl Store {
    const fn follower_statements(&self) -> &'static Statements {
        match self.engine {
            Engine::Postgres { .. } => &POSTGRES,
            Engine::Sqlite { .. } => &SQLITE,
        }
    }
}

impl FollowerStore for Store {
    fn note_followers<'a>(
        &'a self,
        id: &'a str,
        node: &'a str,
        summary: &'a Summary,
        has_other_heard: bool,
    ) -> Answer<'a, ()> {
        in_time(PATIENCE, async move {
            let heard: Option<Vec<u8>> =
                has_other_heard.then(|| summary.heard.iter().flat_map(|heard| heard.0).collect());
            let behind = serde_json::to_string(&summary.behind).map_err(StoreUnavailable::because)?;
            let statements = self.follower_statements();
            let _turn = self.turn_to_write().await;
            let mut transaction = self.begin_write().await?;
            sqlx::query(statements.note)
                .bind(id)
                .bind(node)
                .bind(summary.epoch)
                .bind(summary.number)
                .bind(counted(summary.taken))
                .bind(counted(summary.others))
                .bind(behind)
                .bind(heard)
                .execute(&mut *transaction)
                .await?;
            sqlx::query(statements.clean).execute(&mut *transaction).await?;
            transaction.commit().await?;
            Ok(())
        })
    }

    fn forget_followers<'a>(&'a self, id: &'a str) -> Answer<'a, ()> {
        in_time(PATIENCE, async move {
            let _turn = self.turn_to_write().await;
            let mut transaction = self.begin_write().await?;
            sqlx::query("DELETE FROM list_follower WHERE id = $1").bind(id).execute(&mut *transaction).await?;
            transaction.commit().await?;
            Ok(())
        })
    }

    fn followers(&self) -> Answer<'_, Vec<Row>> {
        in_time(PATIENCE, async move {
            let rows = sqlx::query(self.follower_statements().read).fetch_all(&self.readers).await?;
            rows.iter().map(row).collect()
        })
    }
}

fn row(row: &AnyRow) -> Result<Row, StoreUnavailable> {
    let (age, is_of_this_epoch): (i64, i64) = (row.try_get(1)?, row.try_get(2)?);
    let behind: String = row.try_get(7)?;
    let heard: Option<Vec<u8>> = row.try_get(8)?;
    let (heard, rest) = heard.as_deref().unwrap_or_default().as_chunks::<{ Heard::OCTETS }>();
    if !rest.is_empty() {
        return Err(StoreUnavailable::because("a list of resource servers has another length than it was written in"));
    }
    Ok(Row {
        node: row.try_get(0)?,
        // A clock that was set back makes no row older.
        age: Duration::from_millis(u64::try_from(age).unwrap_or(0)),
        is_of_this_epoch: is_of_this_epoch == 1,
        summary: Summary {
            epoch: row.try_get(3)?,
            number: row.try_get(4)?,
            taken: count(row.try_get(5)?),
            others: count(row.try_get(6)?),
            behind: serde_json::from_str(&behind).map_err(StoreUnavailable::because)?,
            heard: heard.iter().map(|octets| Heard(*octets)).collect(),
        },
    })
}

fn counted(number: usize) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}

fn count(number: i64) -> usize {
    usize::try_from(number).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::followers::store::Behind;
    use crate::store::contract::{Bench, contract};

    contract!(
        a_node_has_one_row_and_writes_over_it,
        what_was_heard_stays_where_it_has_not_changed,
        a_run_that_is_over_is_forgotten,
        a_row_of_another_epoch_says_so,
        a_row_that_nobody_writes_grows_old_and_is_removed,
    );

    fn summary(number: i64) -> Summary {
        let behind = Behind { id: "api".to_owned(), resource: "https://api.example".to_owned(), silent_seconds: 3 };
        Summary {
            epoch: 1,
            number,
            taken: 2,
            behind: vec![behind],
            heard: vec![Heard([1; 8]), Heard([2; 8]), Heard([3; 8])],
            others: 4,
        }
    }

    async fn summaries(bench: &Bench) -> Vec<(String, Summary)> {
        bench.store.followers().await.unwrap().into_iter().map(|row| (row.node, row.summary)).collect()
    }

    async fn a_node_has_one_row_and_writes_over_it(bench: &Bench) {
        for number in [5, 6] {
            bench.store.note_followers("run", "one", &summary(number), true).await.unwrap();
        }
        bench.store.note_followers("other", "two", &Summary::default(), true).await.unwrap();
        let expected = [("one".to_owned(), summary(6)), ("two".to_owned(), Summary::default())];
        assert_eq!(summaries(bench).await, expected);
    }

    async fn what_was_heard_stays_where_it_has_not_changed(bench: &Bench) {
        let later = Summary { heard: Vec::new(), ..summary(6) };
        bench.store.note_followers("run", "one", &later, false).await.unwrap();
        assert_eq!(summaries(bench).await, [("one".to_owned(), later.clone())], "none so far");
        bench.store.note_followers("run", "one", &summary(5), true).await.unwrap();
        bench.store.note_followers("run", "one", &later, false).await.unwrap();
        assert_eq!(summaries(bench).await, [("one".to_owned(), summary(6))]);
        bench.store.note_followers("run", "one", &later, true).await.unwrap();
        assert_eq!(summaries(bench).await, [("one".to_owned(), later)], "they are gone");
    }

    async fn a_run_that_is_over_is_forgotten(bench: &Bench) {
        for run in ["run", "other"] {
            bench.store.note_followers(run, "one", &summary(5), true).await.unwrap();
        }
        bench.store.forget_followers("run").await.unwrap();
        bench.store.forget_followers("unknown").await.unwrap();
        assert_eq!(summaries(bench).await.len(), 1);
    }

    async fn a_row_of_another_epoch_says_so(bench: &Bench) {
        bench.store.note_followers("run", "one", &summary(5), true).await.unwrap();
        assert!(bench.store.followers().await.unwrap()[0].is_of_this_epoch);
        bench.run("UPDATE registry_state SET epoch = 2").await;
        assert!(!bench.store.followers().await.unwrap()[0].is_of_this_epoch);
    }

    async fn a_row_that_nobody_writes_grows_old_and_is_removed(bench: &Bench) {
        bench.store.note_followers("run", "one", &summary(5), true).await.unwrap();
        bench.run("UPDATE list_follower SET seen_at = seen_at - 20000").await;
        let age = bench.store.followers().await.unwrap()[0].age;
        assert!(age >= Duration::from_secs(20) && age < Duration::from_secs(200), "{age:?}");
        bench.run("UPDATE list_follower SET seen_at = seen_at + 900000").await;
        assert_eq!(bench.store.followers().await.unwrap()[0].age, Duration::ZERO, "a clock that was set back");
        bench.run("UPDATE list_follower SET seen_at = seen_at - 8000000").await;
        bench.store.note_followers("other", "two", &summary(5), true).await.unwrap();
        assert_eq!(summaries(bench).await.len(), 1, "an hour later");
    }
}
