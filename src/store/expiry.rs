//! Storage of what expires and of who was told, in SQL that both engines accept.
//!
//! Reads along the indexes on the ends of certificates; a notice is one row, put there by whichever node is first and taken
//! by one node at a time with a single statement.

use std::collections::HashSet;

use countersign_resource_server::time::UnixTime;
use futures_util::FutureExt;
use sqlx::any::AnyRow;
use sqlx::query::Query;
use sqlx::{Any, Row};

use super::Store;
use super::registry::document;
use crate::expiry::store::{
    Claimed, ExpiringIssuer, ExpiringLeaf, ExpiryStore, LeafPage, NewNotice, Place, Settled, Soonest,
};
use crate::expiry::{Notice, NoticeId, Window};
use crate::registry::certificate::Certificate;
use crate::registry::participant::Participant;
use crate::registry::store::Answer;
use crate::registry::{ClientId, KeyHash, ParticipantId, Record, StoreUnavailable};

/// Leaves in the order of their ends (what a visible record refers to is visible), each once for every certificate of its client that expires later.
pub(super) const LEAVES: &str = "\
    SELECT leaf.record, leaf.last_seen, client.record, participant.record, next.record, \
            COALESCE(next.last_seen, CAST(-1 AS BIGINT)), leaf.thumbprint, \
            leaf.expires_at \
        FROM ( \
            SELECT thumbprint, client_id, expires_at, last_seen, record FROM visible_certificate \
                WHERE expires_at > $1 AND expires_at <= $2 AND expires_at >= $3 \
                    AND (expires_at > $3 OR thumbprint > $4) AND state IN ('announced', 'active') \
                ORDER BY expires_at, thumbprint LIMIT $5) AS leaf \
        JOIN client ON client.id = leaf.client_id \
        JOIN participant ON participant.id = client.participant_id \
        LEFT JOIN visible_certificate AS next ON next.client_id = leaf.client_id \
            AND next.expires_at > leaf.expires_at AND next.state IN ('announced', 'active') \
        ORDER BY leaf.expires_at, leaf.thumbprint, next.thumbprint";

/// Intermediates in the order of their ends, once for each participant whose active certificates depend on them.
pub(super) const PATH_ISSUERS: &str = "\
    SELECT issuer.issuer_key, issuer.serial, issuer.expires_at, participant.record, MIN(client.id), COUNT(*), \
            MAX(certificate.last_seen) \
        FROM path_issuer AS issuer \
        JOIN visible_certificate AS certificate ON certificate.thumbprint = issuer.thumbprint \
            AND certificate.state = 'active' AND certificate.expires_at > $1 \
        JOIN client ON client.id = certificate.client_id AND client.state <> 'retired' \
        JOIN participant ON participant.id = client.participant_id \
        WHERE issuer.expires_at > $1 AND issuer.expires_at <= $2 \
        GROUP BY issuer.issuer_key, issuer.serial, issuer.expires_at, participant.id, participant.record \
        ORDER BY issuer.expires_at, issuer.issuer_key, issuer.serial, participant.id LIMIT $3";

/// How many ids are looked for with one statement.
const IDS: usize = 16;

/// Which of them are there; the statement takes [`IDS`], some of them empty.
const KNOWN: &str = "SELECT id FROM notice WHERE id IN \
    ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $16)";

/// How many are put on record in one transaction: others wait to write meanwhile.
const RAISED_AT_ONCE: usize = 100;

/// How many rows are dropped in one transaction, for the same reason.
const DROPPED_AT_ONCE: u64 = 1_000;

impl ExpiryStore for Store {
    fn leaves(&self, window: Window, after: Option<Place>, limit: u32) -> Answer<'_, LeafPage> {
        async move {
            let after = after.unwrap_or(Place { expires_at: window.from, thumbprint: String::new() });
            let rows = sqlx::query(LEAVES)
                .bind(window.from.as_millis())
                .bind(window.until.as_millis())
                .bind(after.expires_at.as_millis())
                .bind(after.thumbprint)
                .bind(i64::from(limit))
                .fetch_all(&self.readers)
                .await?;
            let mut page = LeafPage::default();
            let mut read = 0;
            for rows in rows.chunk_by(|one, other| thumbprint(one).ok() == thumbprint(other).ok()) {
                let Some(first) = rows.first() else { continue };
                read += 1;
                page.next = Some(Place {
                    expires_at: UnixTime::from_millis(first.try_get(7)?),
                    thumbprint: thumbprint(first)?,
                });
                match leaf(first, rows) {
                    Ok(leaf) => page.leaves.push(leaf),
                    Err(error) => tracing::error!(%error, "when a certificate expires cannot be told"),
                }
            }
            page.next = page.next.filter(|_| read >= limit);
            Ok(page)
        }
        .boxed()
    }

    fn path_issuers(&self, window: Window, limit: u32) -> Answer<'_, Vec<ExpiringIssuer>> {
        async move {
            let rows = sqlx::query(PATH_ISSUERS)
                .bind(window.from.as_millis())
                .bind(window.until.as_millis())
                .bind(i64::from(limit))
                .fetch_all(&self.readers)
                .await?;
            rows.iter().map(issuer).collect()
        }
        .boxed()
    }

    fn soonest(&self, now: UnixTime) -> Answer<'_, Soonest> {
        async move {
            let leaf = first(
                sqlx::query(
                    "SELECT certificate.expires_at FROM visible_certificate AS certificate \
                         JOIN client ON client.id = certificate.client_id AND client.state <> 'retired' \
                         WHERE certificate.expires_at > $1 AND certificate.state IN ('announced', 'active') \
                         ORDER BY certificate.expires_at LIMIT 1",
                ),
                self,
                now,
            );
            let intermediate = first(
                sqlx::query(
                    "SELECT issuer.expires_at FROM path_issuer AS issuer \
                         JOIN visible_certificate AS certificate ON certificate.thumbprint = issuer.thumbprint \
                             AND certificate.state = 'active' AND certificate.expires_at > $1 \
                         JOIN client ON client.id = certificate.client_id AND client.state <> 'retired' \
                         WHERE issuer.expires_at > $1 ORDER BY issuer.expires_at LIMIT 1",
                ),
                self,
                now,
            );
            Ok(Soonest { leaf: leaf.await?, intermediate: intermediate.await? })
        }
        .boxed()
    }

    fn raise(&self, notices: Vec<NewNotice>) -> Answer<'_, Vec<NoticeId>> {
        async move {
            // Nearly all have been there since the last look: nobody waits for a lock on their account.
            let mut known = HashSet::new();
            for some in notices.chunks(IDS) {
                let ids = some.iter().map(|new| new.notice.id.as_str()).chain(std::iter::repeat("")).take(IDS);
                let query = ids.fold(sqlx::query(KNOWN), |query, id| query.bind(id.to_owned()));
                for row in query.fetch_all(&self.readers).await? {
                    known.insert(row.try_get::<String, _>(0)?);
                }
            }
            let new: Vec<NewNotice> =
                notices.into_iter().filter(|new| !known.contains(new.notice.id.as_str())).collect();
            if new.is_empty() {
                return Ok(Vec::new());
            }
            let mut raised = Vec::new();
            for some in new.chunks(RAISED_AT_ONCE) {
                let _turn = self.turn_to_write().await;
                let mut transaction = self.begin_write().await?;
                for NewNotice { notice, addressed } in some {
                    let participant = notice.expiring.participant.as_ref();
                    let made = sqlx::query(
                        "INSERT INTO notice (id, participant_id, state, raised_at, attempts, next_attempt_at, record) \
                         VALUES ($1, $2, $3, $4, 0, $4, $5) ON CONFLICT (id) DO NOTHING",
                    )
                    .bind(notice.id.as_str())
                    .bind(participant.map(ToString::to_string).unwrap_or_default())
                    .bind(if *addressed { "waiting" } else { "unaddressed" })
                    .bind(notice.raised_at.as_millis())
                    .bind(serde_json::to_string(notice).map_err(StoreUnavailable::because)?)
                    .execute(&mut *transaction)
                    .await?;
                    if made.rows_affected() == 1 {
                        raised.push(notice.id.clone());
                    }
                }
                transaction.commit().await?;
            }
            Ok(raised)
        }
        .boxed()
    }

    fn due(&self, now: UnixTime, limit: u32) -> Answer<'_, Vec<ParticipantId>> {
        async move {
            let rows = sqlx::query(
                "SELECT participant_id FROM notice WHERE state = 'waiting' AND next_attempt_at <= $1 \
                 GROUP BY participant_id ORDER BY MIN(attempts), MIN(next_attempt_at), participant_id LIMIT $2",
            )
            .bind(now.as_millis())
            .bind(i64::from(limit))
            .fetch_all(&self.readers)
            .await?;
            let ids = rows.iter().map(|row| row.try_get::<String, _>(0)).collect::<Result<Vec<_>, _>>()?;
            // What is no id names nobody who could be told.
            Ok(ids.iter().filter_map(|id| ParticipantId::parse(id).ok()).collect())
        }
        .boxed()
    }

    fn claim<'a>(
        &'a self,
        participant: &'a ParticipantId,
        now: UnixTime,
        until: UnixTime,
    ) -> Answer<'a, Option<Claimed>> {
        async move {
            let _turn = self.turn_to_write().await;
            let mut transaction = self.begin_write().await?;
            // Where two nodes choose the same one, the later finds that it is no longer due.
            let row = sqlx::query(
                "UPDATE notice SET attempts = attempts + 1, next_attempt_at = $3 \
                 WHERE id = (SELECT id FROM notice WHERE state = 'waiting' AND participant_id = $1 \
                         AND next_attempt_at <= $2 ORDER BY attempts, raised_at, id LIMIT 1) \
                     AND state = 'waiting' AND next_attempt_at <= $2 \
                 RETURNING record, attempts",
            )
            .bind(participant.as_str())
            .bind(now.as_millis())
            .bind(until.as_millis())
            .fetch_optional(&mut *transaction)
            .await?;
            let Some(row) = row else { return Ok(None) };
            let webhook = sqlx::query("SELECT record FROM visible_participant WHERE id = $1 AND state <> 'withdrawn'")
                .bind(participant.as_str())
                .fetch_optional(&mut *transaction)
                .await?
                .map(|row| read::<Participant>(&row, 0))
                .transpose()?
                .and_then(|participant| participant.contacts.webhook);
            let notice: Result<Notice, _> = serde_json::from_str(&row.try_get::<String, _>(0)?);
            let attempt = row.try_get(1)?;
            // Also of one that cannot be read: the next one is another.
            transaction.commit().await?;
            match notice {
                Ok(notice) => Ok(Some(Claimed { notice, attempt, webhook })),
                Err(error) => {
                    tracing::error!(%error, participant.id = %participant, "a notice cannot be read");
                    Ok(None)
                }
            }
        }
        .boxed()
    }

    fn settle<'a>(&'a self, claimed: &'a Claimed, outcome: Settled) -> Answer<'a, ()> {
        async move {
            let (state, next_attempt_at) = match outcome {
                Settled::Again(at) => ("waiting", Some(at.as_millis())),
                Settled::Delivered => ("delivered", None),
                Settled::GivenUp => ("given_up", None),
                Settled::Unaddressed => ("unaddressed", None),
            };
            let _turn = self.turn_to_write().await;
            let mut transaction = self.begin_write().await?;
            // Whoever has taken it since says what became of it; what was delivered stays so, whoever did it.
            sqlx::query(
                "UPDATE notice SET state = $3, next_attempt_at = COALESCE($4, next_attempt_at) \
                 WHERE id = $1 AND state = 'waiting' AND (attempts = $2 OR $3 = 'delivered')",
            )
            .bind(claimed.notice.id.as_str())
            .bind(claimed.attempt)
            .bind(state)
            .bind(next_attempt_at)
            .execute(&mut *transaction)
            .await?;
            transaction.commit().await?;
            Ok(())
        }
        .boxed()
    }

    fn forget(&self, before: UnixTime) -> Answer<'_, ()> {
        async move {
            loop {
                let old = sqlx::query("SELECT id FROM notice WHERE raised_at < $1 LIMIT 1")
                    .bind(before.as_millis())
                    .fetch_optional(&self.readers)
                    .await?;
                if old.is_none() {
                    return Ok(());
                }
                let _turn = self.turn_to_write().await;
                let mut transaction = self.begin_write().await?;
                let dropped = sqlx::query(
                    "DELETE FROM notice WHERE id IN \
                     (SELECT id FROM notice WHERE raised_at < $1 ORDER BY raised_at LIMIT $2)",
                )
                .bind(before.as_millis())
                .bind(i64::try_from(DROPPED_AT_ONCE).unwrap_or(i64::MAX))
                .execute(&mut *transaction)
                .await?;
                transaction.commit().await?;
                if dropped.rows_affected() < DROPPED_AT_ONCE {
                    return Ok(());
                }
            }
        }
        .boxed()
    }
}

type Asked = Query<'static, Any, <Any as sqlx::Database>::Arguments>;

async fn first(query: Asked, store: &Store, now: UnixTime) -> Result<Option<UnixTime>, StoreUnavailable> {
    let row = query.bind(now.as_millis()).fetch_optional(&store.readers).await?;
    Ok(row.map(|row| row.try_get(0).map(UnixTime::from_millis)).transpose()?)
}

fn read<R: Record>(row: &AnyRow, column: usize) -> Result<R, StoreUnavailable> {
    let record = row.try_get(column)?;
    R::read(&crate::registry::store::Document { record, last_seen: None })
}

fn thumbprint(row: &AnyRow) -> Result<String, StoreUnavailable> {
    Ok(row.try_get(6)?)
}

/// One certificate from its rows, of which each has one that expires later, or the only one none.
fn leaf(first: &AnyRow, rows: &[AnyRow]) -> Result<ExpiringLeaf, StoreUnavailable> {
    let mut later = Vec::new();
    for row in rows {
        if row.try_get::<Option<String>, _>(4)?.is_some() {
            match Certificate::read(&document(row, 4, 5)?) {
                Ok(certificate) => later.push(certificate),
                // Its own turn comes, and the log says then that it cannot be read.
                Err(error) => tracing::debug!(%error, "a certificate that expires later cannot be read"),
            }
        }
    }
    Ok(ExpiringLeaf {
        certificate: Record::read(&document(first, 0, 1)?)?,
        client: read(first, 2)?,
        participant: read(first, 3)?,
        later,
    })
}

fn issuer(row: &AnyRow) -> Result<ExpiringIssuer, StoreUnavailable> {
    let key: String = row.try_get(0)?;
    let client: String = row.try_get(4)?;
    let last_seen: i64 = row.try_get(6)?;
    Ok(ExpiringIssuer {
        issuer_key: KeyHash::parse(&key).ok_or_else(|| StoreUnavailable::because("an issuer's key cannot be read"))?,
        serial: row.try_get(1)?,
        expires_at: UnixTime::from_millis(row.try_get(2)?),
        participant: read(row, 3)?,
        client: ClientId::parse(&client).map_err(StoreUnavailable::because)?,
        certificates: row.try_get(5)?,
        last_seen: (last_seen > 0).then_some(UnixTime::from_millis(last_seen)),
    })
}
