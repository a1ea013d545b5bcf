//! Storage of status lists, in SQL that both engines accept.
//!
//! Takes reservations, gives places: counted in the row of their list, so that none is given out twice. What is dead is
//! read in one statement, from blocks and marks as they stand. It knows nothing of tokens.

use std::time::Duration;

use countersign_resource_server::time::UnixTime;
use sqlx::Row;
use sqlx::any::AnyRow;

use super::{Store, in_time};
use crate::registry::StoreUnavailable;
use crate::registry::store::Answer;
use crate::status_list::scatter::SIZE;
use crate::status_list::store::{DeadBlock, ListsState, Reservation, Reserved, StatusListStore, StoredList};

/// Longer than the engines' own limits, shorter than a token waits.
const PATIENCE: Duration = Duration::from_millis(1_900);

/// How many rows are removed in one transaction: others wait to write meanwhile.
const FORGOTTEN_AT_ONCE: i64 = 1_000;

/// How long a dead block, or a mark, is drawn after its end: as long as the rows of blocks are kept.
const DRAWN_LONGER: Duration = Duration::from_secs(3_600);

/// The blocks that a mark is about. A mark without tokens costs one look into an index.
const DEAD: &str = "\
    SELECT CAST(0 AS BIGINT) AS part, '' AS list_id, epoch AS place, CAST(0 AS BIGINT) AS places FROM registry_state \
    UNION SELECT CAST(1 AS BIGINT), block.list_id, block.place, block.places \
        FROM revocation_mark AS mark JOIN status_block AS block ON block.participant_id = mark.id \
        WHERE mark.kind = 'participant' AND mark.forget_after > $1 AND block.ends_at > $1 AND block.version < mark.version \
    UNION SELECT CAST(1 AS BIGINT), block.list_id, block.place, block.places \
        FROM revocation_mark AS mark JOIN status_block AS block ON block.client_id = mark.id \
        WHERE mark.kind = 'client' AND mark.forget_after > $1 AND block.ends_at > $1 AND block.version < mark.version \
    UNION SELECT CAST(1 AS BIGINT), block.list_id, block.place, block.places \
        FROM revocation_mark AS mark JOIN status_block AS block ON block.certificate = mark.id \
        WHERE mark.kind = 'certificate' AND mark.forget_after > $1 AND block.ends_at > $1 AND block.version < mark.version \
    UNION SELECT CAST(1 AS BIGINT), block.list_id, block.place, block.places \
        FROM revocation_mark AS mark JOIN status_block AS block ON block.key_hash = mark.id \
        WHERE mark.kind = 'key' AND mark.forget_after > $1 AND block.ends_at > $1 AND block.version < mark.version \
    UNION SELECT CAST(1 AS BIGINT), block.list_id, block.place, block.places \
        FROM revocation_mark AS mark JOIN status_block AS block ON block.anchor_id = mark.id \
        WHERE mark.kind = 'anchor' AND mark.forget_after > $1 AND block.ends_at > $1 AND block.version < mark.version \
    UNION SELECT CAST(1 AS BIGINT), block.list_id, block.place, block.places \
        FROM revocation_mark AS mark JOIN status_block AS block ON block.entitlement = mark.id \
        WHERE mark.kind = 'entitlement' AND mark.forget_after > $1 AND block.ends_at > $1 AND block.version < mark.version \
    UNION SELECT CAST(1 AS BIGINT), block.list_id, block.place, block.places \
        FROM revocation_mark AS mark JOIN status_block AS block ON block.signing_key = mark.id \
        WHERE mark.kind = 'signing_key' AND mark.forget_after > $1 AND block.ends_at > $1 AND block.version < mark.version \
    UNION SELECT CAST(1 AS BIGINT), block.list_id, block.place, block.places \
        FROM revocation_mark AS mark JOIN status_list AS list ON list.audience = mark.id \
            JOIN status_block AS block ON block.list_id = list.id \
        WHERE mark.kind = 'resource_server' AND mark.forget_after > $1 AND block.ends_at > $1 AND block.version < mark.version \
    UNION SELECT CAST(2 AS BIGINT), status_list_id, status_index, CAST(0 AS BIGINT) FROM revocation_mark \
        WHERE kind = 'jti' AND forget_after > $1 AND status_list_id IS NOT NULL AND status_index IS NOT NULL \
    ORDER BY 1, 2, 3";

impl StatusListStore for Store {
    fn reserve<'a>(&'a self, reservation: &'a Reservation) -> Answer<'a, Reserved> {
        in_time(PATIENCE, async move {
            let _turn = self.turn_to_write().await;
            let mut transaction = self.begin_write().await?;
            let facts = &reservation.facts;
            let places = i64::from(reservation.places);
            // The latest list with room, which is counted up where it is found: whoever comes at the same time waits for
            // the row, and looks again whether there is room.
            let found = sqlx::query(
                "UPDATE status_list SET placed = placed + $2, \
                     ends_at = CASE WHEN ends_at < $3 THEN $3 ELSE ends_at END \
                 WHERE placed + $2 <= capacity AND id = (SELECT id FROM status_list \
                     WHERE audience = $1 AND opened_at > $4 AND placed + $2 <= capacity \
                         AND epoch = (SELECT epoch FROM registry_state) \
                     ORDER BY opened_at DESC, id LIMIT 1) \
                 RETURNING id, epoch, scatter, placed",
            )
            .bind(&facts.audience)
            .bind(places)
            .bind(reservation.ends_at.as_millis())
            .bind(reservation.begun_after.as_millis())
            .fetch_optional(&mut *transaction)
            .await?;
            let row = match found {
                Some(row) => row,
                None => {
                    sqlx::query(
                        "INSERT INTO status_list (id, audience, epoch, scatter, placed, capacity, opened_at, ends_at) \
                         SELECT $1, $2, epoch, $3, $4, $5, $6, $7 FROM registry_state RETURNING id, epoch, scatter, placed",
                    )
                    .bind(&reservation.new_list.id)
                    .bind(&facts.audience)
                    .bind(reservation.new_list.scatter.as_slice())
                    .bind(places)
                    .bind(i64::from(reservation.new_list.capacity))
                    .bind(reservation.at.as_millis())
                    .bind(reservation.ends_at.as_millis())
                    .fetch_one(&mut *transaction)
                    .await?
                }
            };
            let list = list(&row)?;
            let place = list
                .placed
                .checked_sub(reservation.places)
                .ok_or_else(|| StoreUnavailable::because("a status list has fewer places than were given out"))?;
            sqlx::query(
                "INSERT INTO status_block (list_id, place, places, version, ends_at, participant_id, client_id, \
                     certificate, key_hash, anchor_id, entitlement, signing_key) \
                 VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12)",
            )
            .bind(&list.id)
            .bind(i64::from(place))
            .bind(places)
            .bind(reservation.version.0)
            .bind(reservation.ends_at.as_millis())
            .bind(&facts.participant_id)
            .bind(&facts.client_id)
            .bind(&facts.certificate)
            .bind(&facts.key_hash)
            .bind(&facts.anchor_id)
            // As a mark writes it.
            .bind(format!("{} {}", facts.client_id, facts.audience))
            .bind(&facts.signing_key)
            .execute(&mut *transaction)
            .await?;
            transaction.commit().await?;
            Ok(Reserved { list, place })
        })
    }

    fn status_list_ids(&self, now: UnixTime) -> Answer<'_, Vec<String>> {
        in_time(PATIENCE, async move {
            let ids = sqlx::query_scalar("SELECT id FROM status_list WHERE ends_at > $1 ORDER BY id")
                .bind(now.as_millis())
                .fetch_all(&self.readers)
                .await?;
            Ok(ids)
        })
    }

    fn status_lists(&self, now: UnixTime) -> Answer<'_, ListsState> {
        in_time(PATIENCE, async move {
            // First the lists: one that is begun between the two statements has nothing dead in it yet.
            let lists =
                sqlx::query("SELECT id, epoch, scatter, placed FROM status_list WHERE ends_at > $1 ORDER BY id")
                    .bind(now.as_millis())
                    .fetch_all(&self.readers)
                    .await?;
            let lists = lists.iter().map(list).collect::<Result<_, _>>()?;
            let mut state = ListsState { lists, ..ListsState::default() };
            // A calendar that runs ahead makes nobody alive: what has ended since is drawn dead for a while still.
            let ended = now.before(DRAWN_LONGER).as_millis();
            for row in &sqlx::query(DEAD).bind(ended).fetch_all(&self.readers).await? {
                let (list, place): (String, i64) = (row.try_get(1)?, row.try_get(2)?);
                match row.try_get(0)? {
                    0_i64 => state.epoch = place,
                    1 => state.dead.push(DeadBlock { list, place: small(place)?, places: small(row.try_get(3)?)? }),
                    _ => state.dead_indexes.push((list, small(place)?)),
                }
            }
            Ok(state)
        })
    }

    fn forget_status(&self, ended_before: UnixTime) -> Answer<'_, bool> {
        in_time(PATIENCE, async move {
            // Most of the time there is nothing: for that nobody waits to write.
            let ended: i64 = sqlx::query_scalar(
                "SELECT (SELECT COUNT(*) FROM (SELECT 1 FROM status_block WHERE ends_at <= $1 LIMIT 1) AS block) \
                     + (SELECT COUNT(*) FROM (SELECT 1 FROM status_list WHERE ends_at <= $1 LIMIT 1) AS list)",
            )
            .bind(ended_before.as_millis())
            .fetch_one(&self.readers)
            .await?;
            if ended == 0 {
                return Ok(false);
            }
            let _turn = self.turn_to_write().await;
            let mut transaction = self.begin_write().await?;
            sqlx::query(
                "DELETE FROM status_block WHERE (list_id, place) IN \
                     (SELECT list_id, place FROM status_block WHERE ends_at <= $1 ORDER BY ends_at LIMIT $2)",
            )
            .bind(ended_before.as_millis())
            .bind(FORGOTTEN_AT_ONCE)
            .execute(&mut *transaction)
            .await?;
            // A list ends with the last of its blocks, and is not taken up again while its row is locked.
            sqlx::query(
                "DELETE FROM status_list WHERE ends_at <= $1 \
                 AND NOT EXISTS (SELECT 1 FROM status_block WHERE status_block.list_id = status_list.id)",
            )
            .bind(ended_before.as_millis())
            .execute(&mut *transaction)
            .await?;
            transaction.commit().await?;
            let left: i64 = sqlx::query_scalar(
                "SELECT COUNT(*) FROM (SELECT 1 FROM status_block WHERE ends_at <= $1 LIMIT 1) AS block",
            )
            .bind(ended_before.as_millis())
            .fetch_one(&self.readers)
            .await?;
            Ok(left > 0)
        })
    }
}

fn list(row: &AnyRow) -> Result<StoredList, StoreUnavailable> {
    Ok(StoredList {
        id: row.try_get(0)?,
        epoch: row.try_get(1)?,
        scatter: row.try_get(2)?,
        placed: small(row.try_get(3)?)?,
    })
}

/// A place, an index or how many of them: what this program wrote lies within a list.
fn small(number: i64) -> Result<u32, StoreUnavailable> {
    u32::try_from(number)
        .ok()
        .filter(|number| *number <= SIZE)
        .ok_or_else(|| StoreUnavailable::because("a status list has no such place"))
}
