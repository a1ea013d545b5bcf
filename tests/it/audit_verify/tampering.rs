//! Changes to a log made by SQL, as somebody who can write to the database would.

use countersign::audit::chain::{ChainId, Head, LogId, Position, RecordHash};
use countersign::audit::checkpoint::Checkpoint;
use countersign_resource_server::time::UnixTime;
use sqlx::{AnyConnection, AssertSqlSafe, Connection, Row};

use super::scene::Signer;

/// A database behind the program's back.
pub(super) struct Tampering {
    connection: AnyConnection,
}

/// A record as it is stored.
#[derive(Clone, Debug)]
pub(super) struct Stored {
    pub(super) position: i64,
    pub(super) at: i64,
    pub(super) hash: Vec<u8>,
    pub(super) body: String,
}

impl Tampering {
    pub(super) async fn at(url: &str) -> Self {
        let connection = AnyConnection::connect(url).await.unwrap();
        let drop = if url.starts_with("sqlite") {
            "DROP TRIGGER audit_record_is_never_changed"
        } else {
            "DROP TRIGGER audit_record_is_never_changed ON audit_record"
        };
        let mut log = Self { connection };
        if url.starts_with("sqlite") {
            log.run("PRAGMA synchronous = OFF").await;
        }
        log.run("BEGIN").await;
        log.run(drop).await;
        log
    }

    pub(super) async fn close(mut self) {
        self.run("COMMIT").await;
        self.connection.close().await.unwrap();
    }

    pub(super) async fn run(&mut self, statement: &str) -> u64 {
        let done = sqlx::query(AssertSqlSafe(statement.to_owned())).execute(&mut self.connection).await;
        done.unwrap_or_else(|error| panic!("{statement}: {error}")).rows_affected()
    }

    pub(super) async fn log(&mut self) -> LogId {
        let id: String = sqlx::query_scalar("SELECT id FROM audit_log").fetch_one(&mut self.connection).await.unwrap();
        LogId::parse(&id).unwrap()
    }

    /// The records of a chain, in order.
    pub(super) async fn records(&mut self, chain: i64) -> Vec<Stored> {
        let rows = sqlx::query(
            "SELECT position, at, hash, body FROM audit_record WHERE position > $1 AND position < $2 ORDER BY position",
        )
        .bind(chain << 40)
        .bind((chain + 1) << 40)
        .fetch_all(&mut self.connection)
        .await
        .unwrap();
        let stored = |row: &sqlx::any::AnyRow| Stored {
            position: row.get(0),
            at: row.get(1),
            hash: row.get(2),
            body: row.get(3),
        };
        rows.iter().map(stored).collect()
    }

    pub(super) async fn remove(&mut self, position: i64) {
        assert_eq!(self.run(&format!("DELETE FROM audit_record WHERE position = {position}")).await, 1);
    }

    pub(super) async fn insert(&mut self, record: &Stored) {
        sqlx::query("INSERT INTO audit_record (position, at, hash, body) VALUES ($1, $2, $3, $4)")
            .bind(record.position)
            .bind(record.at)
            .bind(record.hash.as_slice())
            .bind(&record.body)
            .execute(&mut self.connection)
            .await
            .unwrap();
    }

    /// Writes `record` in place of the one that has its position.
    pub(super) async fn replace(&mut self, record: &Stored) {
        self.remove(record.position).await;
        self.insert(record).await;
    }

    /// Says that a chain begins after this record.
    pub(super) async fn cut(&mut self, chain: i64, sequence: i64, hash: &[u8]) {
        let cut = sqlx::query("UPDATE audit_chain SET cut_sequence = $1, cut_hash = $2 WHERE id = $3")
            .bind(sequence)
            .bind(hash)
            .bind(chain)
            .execute(&mut self.connection)
            .await
            .unwrap();
        assert_eq!(cut.rows_affected(), 1);
    }

    /// Moves every record of a chain from `from` on by `by` places.
    pub(super) async fn shift(&mut self, from: i64, by: i64) {
        let end = ((from >> 40) + 1) << 40;
        // By way of negative ones, for a place is taken once.
        self.run(&format!(
            "UPDATE audit_record SET position = -(position + {by}) WHERE position >= {from} AND position < {end}"
        ))
        .await;
        self.run("UPDATE audit_record SET position = -position WHERE position < 0").await;
    }

    /// Makes every hash from record `from` on follow from what is there.
    pub(super) async fn hash_again(&mut self, chain: i64, from: i64) {
        let log = self.log().await;
        let records = self.records(chain).await;
        let mut before = ChainId::new(chain).unwrap().first_hash(log);
        for mut record in records {
            let position = Position::from_number(record.position).unwrap();
            if position.sequence() >= from {
                let hash = before.followed_by(position, UnixTime::from_millis(record.at), &record.body);
                record.hash = hash.octets().to_vec();
                self.replace(&record).await;
            }
            before = RecordHash::from_octets(&record.hash).unwrap();
        }
    }

    /// The checkpoints, in order.
    pub(super) async fn statements(&mut self) -> Vec<(i64, String)> {
        sqlx::query_as("SELECT number, statement FROM audit_checkpoint ORDER BY number")
            .fetch_all(&mut self.connection)
            .await
            .unwrap()
    }

    pub(super) async fn set_statement(&mut self, number: i64, statement: &str) {
        let set = sqlx::query("UPDATE audit_checkpoint SET statement = $1 WHERE number = $2")
            .bind(statement)
            .bind(number)
            .execute(&mut self.connection)
            .await
            .unwrap();
        assert_eq!(set.rows_affected(), 1);
    }

    /// Signs every checkpoint anew, over what the records are now.
    pub(super) async fn sign_again(&mut self, signer: &Signer) {
        let log = self.log().await;
        let mut before: Option<String> = None;
        for (number, statement) in self.statements().await {
            let checkpoint = Checkpoint::read(&statement).unwrap();
            let mut heads = Vec::new();
            for head in &checkpoint.heads {
                let records = self.records(head.chain().number()).await;
                let place = head.position.number();
                let last = records.iter().rfind(|record| record.position <= place);
                heads.push(last.map_or_else(
                    || Head::before_first(log, head.chain()),
                    |last| Head {
                        position: Position::from_number(last.position).unwrap(),
                        hash: RecordHash::from_octets(&last.hash).unwrap(),
                    },
                ));
            }
            let signed = signer.sign(number, checkpoint.at, &log.to_string(), before.as_deref(), &heads);
            self.set_statement(number, &signed).await;
            before = Some(signed);
        }
    }
}
