//! Which places do terms lead to?
//!
//! Takes terms and a span, reads the rows that can have places in it, gives these in order of time. A row is where its earliest place is, so
//! it is looked for from [`SPAN`] before an instant on, and what is read of a term is whole up to where the next row begins. Where several
//! terms are wanted, rows that are beside none of the others stay in the database.

use std::ops::Range;

use countersign_resource_server::time::UnixTime;
use sqlx::any::AnyRow;
use sqlx::{AnyPool, AssertSqlSafe, FromRow, Row};

use super::block::{Block, Malformed, SPAN};
use crate::audit::index::{Place, Seen, Term};
use crate::store::{Engine, Store};

/// Rows that are read at once, twice as many each time: of a busy term one has hundreds of places, of another each is one.
const FIRST_ROWS: usize = 16;

/// Half a megabyte.
const MOST_ROWS: usize = 512;

/// Instants that another term is asked for in one statement.
const INSTANTS: usize = 256;

/// Instants so close together are asked for as one: a row of a busy term is no longer.
const CLOSE: i64 = 16;

/// What there is after `after` and before `until` of places that all of `terms` lead to, and how far was looked.
pub(super) async fn seen(
    store: &Store,
    readers: &AnyPool,
    terms: &[Term],
    after: Place,
    until: UnixTime,
    limit: u32,
) -> Result<Seen, sqlx::Error> {
    let Some((first, others)) = terms.split_first() else { return Ok((Vec::new(), None)) };
    let limit = usize::try_from(limit).unwrap_or(usize::MAX);
    if others.is_empty() {
        return next(readers, *first, after, until, limit).await;
    }
    let (mut places, looked_at) = near_all(readers, *first, others, after, until).await?;
    for other in others {
        places = shared_with(store, readers, *other, &places).await?;
    }
    Ok((places, looked_at))
}

/// About how many places a term has in a span, but no more than `most`: as many as its rows would have of two octets each.
pub(super) async fn count(readers: &AnyPool, term: Term, span: Range<UnixTime>, most: u32) -> Result<u32, sqlx::Error> {
    let count: i64 = sqlx::query_scalar(
        "SELECT CAST(COALESCE(SUM(CASE octets WHEN 0 THEN 1 ELSE (octets + 1) / 2 END), 0) AS BIGINT) FROM \
         (SELECT LENGTH(places) AS octets FROM audit_index_term WHERE kind = $1 AND value = $2 \
         AND at > $3 AND at < $4 AND at + span >= $5 LIMIT $6) AS counted",
    )
    .bind(term.kind as i64)
    .bind(term.value)
    .bind(span.start.as_millis().saturating_sub(SPAN))
    .bind(span.end.as_millis())
    .bind(span.start.as_millis())
    .bind(i64::from(most))
    .fetch_one(readers)
    .await?;
    Ok(u32::try_from(count).unwrap_or(most).min(most))
}

/// The next `limit` places of one term.
async fn next(readers: &AnyPool, term: Term, after: Place, until: UnixTime, limit: usize) -> Result<Seen, sqlx::Error> {
    let mut rows = Rows::of(term, after, until, FIRST_ROWS);
    let mut places: Vec<Place> = Vec::new();
    loop {
        places.extend(rows.read(readers, &[]).await?);
        // What was read before is in order: so is most of what was read now.
        places.sort();
        places.dedup();
        let whole =
            rows.looked_at.map_or(places.len(), |looked_at| places.partition_point(|place| *place <= looked_at));
        if whole >= limit {
            places.truncate(limit);
            let last = places.last().copied();
            return Ok((places, last));
        }
        if rows.looked_at.is_none() {
            return Ok((places, None));
        }
    }
}

/// The places of the next rows of a term which are near places of all the others.
async fn near_all(
    readers: &AnyPool,
    term: Term,
    others: &[Term],
    after: Place,
    until: UnixTime,
) -> Result<Seen, sqlx::Error> {
    let mut rows = Rows::of(term, after, until, MOST_ROWS);
    let mut places = Vec::new();
    loop {
        places.extend(rows.read(readers, others).await?);
        // Rows that begin before `after` can have places behind it; further than that it has to come.
        if rows.looked_at.is_none_or(|looked_at| looked_at > after) {
            break;
        }
    }
    places.sort();
    places.dedup();
    if let Some(looked_at) = rows.looked_at {
        places.truncate(places.partition_point(|place| *place <= looked_at));
    }
    Ok((places, rows.looked_at))
}

/// The rows of a term that may have places after one and before an instant.
struct Rows {
    term: Term,
    after: Place,
    until: UnixTime,
    /// Where the last row was that was read, or where the first may be: all places up to there have been read. None where all have.
    looked_at: Option<Place>,
    at_once: usize,
}

impl Rows {
    fn of(term: Term, after: Place, until: UnixTime, at_once: usize) -> Self {
        let earliest = UnixTime::from_millis(after.at.as_millis().saturating_sub(SPAN));
        Self { term, after, until, looked_at: Some(Place::before(earliest)), at_once }
    }

    /// The places of the next rows that are after and before; of those rows which are beside rows of all of `others`, and maybe of others.
    async fn read(&mut self, readers: &AnyPool, others: &[Term]) -> Result<Vec<Place>, sqlx::Error> {
        let Some(last) = self.looked_at else { return Ok(Vec::new()) };
        let mut query = sqlx::query_as(AssertSqlSafe(rows_statement(others.len())))
            .bind(self.term.kind as i64)
            .bind(self.term.value)
            .bind(last.at.as_millis())
            .bind(last.position)
            .bind(self.until.as_millis())
            .bind(self.after.at.as_millis())
            .bind(i64::try_from(self.at_once).unwrap_or(i64::MAX));
        for other in others {
            query = query.bind(other.kind as i64).bind(other.value);
        }
        let rows: Vec<OneOf> = query.fetch_all(readers).await?;
        let is_whole = |row: &&OneOf| usize::try_from(row.rows).is_ok_and(|rows| rows >= self.at_once);
        self.looked_at = rows
            .last()
            .filter(is_whole)
            .map(|row| Place { at: UnixTime::from_millis(row.block.at), position: row.block.position });
        self.at_once = MOST_ROWS.min(2 * self.at_once);
        let mut places = Vec::with_capacity(rows.len());
        for row in &rows {
            let within = |place: &Place| *place > self.after && place.at < self.until;
            places.extend(row.block.places()?.into_iter().filter(within));
        }
        Ok(places)
    }
}

/// A row, of so many that were looked at.
struct OneOf {
    block: Block,
    rows: i64,
}

impl FromRow<'_, AnyRow> for OneOf {
    fn from_row(row: &AnyRow) -> Result<Self, sqlx::Error> {
        Ok(Self { block: Block::from_row(row)?, rows: row.try_get("looked_at")? })
    }
}

/// The next rows of a term beside which there are rows of so many others, which are found by the instants and positions that both span;
/// and the last of the rows that were looked at in any case, to go on after. With an offset PostgreSQL looks for each row, and does not
/// join all the rows of a term with all of another: that took seconds. The numbers of the placeholders depend on how many others
/// there are; nothing else of the text does.
fn rows_statement(others: usize) -> String {
    let beside = (0..others).map(|other| {
        let (kind, value) = (2 * other + 8, 2 * other + 9);
        format!(
            "EXISTS (SELECT 1 FROM audit_index_term AS other WHERE other.kind = ${kind} AND other.value = ${value} \
             AND other.at > one.at - {SPAN} AND other.at <= one.at + one.span AND other.at + other.span >= one.at \
             AND other.position <= one.position + one.reach AND other.position + other.reach >= one.position \
             LIMIT 1 OFFSET 0)"
        )
    });
    let beside = beside.chain(std::iter::once("1 = 1".to_owned())).collect::<Vec<_>>().join(" AND ");
    format!(
        "WITH stretch AS MATERIALIZED (SELECT at, position, span, reach, places FROM audit_index_term \
         WHERE kind = $1 AND value = $2 AND (at, position) > ($3, $4) AND at < $5 AND at + span >= $6 \
         ORDER BY at, position LIMIT $7) \
         SELECT one.at, one.position, one.places, (SELECT COUNT(*) FROM stretch) AS looked_at FROM stretch AS one \
         WHERE ({beside}) OR (one.at, one.position) = \
         (SELECT at, position FROM stretch ORDER BY at DESC, position DESC LIMIT 1) ORDER BY one.at, one.position"
    )
}

/// Those of `places`, which are in order, that another term leads to as well.
async fn shared_with(
    store: &Store,
    readers: &AnyPool,
    term: Term,
    places: &[Place],
) -> Result<Vec<Place>, sqlx::Error> {
    let statement = match store.engine {
        Engine::Sqlite { .. } => {
            "SELECT at, position, places FROM \
             (SELECT value ->> 0 AS earliest, value ->> 1 AS since, value ->> 2 AS until FROM json_each('[' || $3 || ']')) \
             AS instants CROSS JOIN audit_index_term WHERE kind = $1 AND value = $2 \
             AND at > instants.earliest AND at <= instants.until AND at + span >= instants.since"
        }
        Engine::Postgres { .. } => {
            "SELECT at, position, places FROM \
             (SELECT (instant ->> 0)::bigint AS earliest, (instant ->> 1)::bigint AS since, (instant ->> 2)::bigint AS until \
             FROM json_array_elements(('[' || $3 || ']')::json) AS instant) AS instants \
             CROSS JOIN LATERAL (SELECT at, position, places FROM audit_index_term WHERE kind = $1 AND value = $2 \
             AND at > instants.earliest AND at <= instants.until AND at + span >= instants.since OFFSET 0) AS near"
        }
    };
    let mut shared = Vec::new();
    for instants in instants(places).chunks(INSTANTS) {
        let list = |(since, until): &(i64, i64)| format!("[{},{since},{until}]", since.saturating_sub(SPAN));
        let rows: Vec<Block> = sqlx::query_as(statement)
            .bind(term.kind as i64)
            .bind(term.value)
            .bind(instants.iter().map(list).collect::<Vec<_>>().join(","))
            .fetch_all(readers)
            .await?;
        for row in &rows {
            shared.extend(row.places()?.into_iter().filter(|place| places.binary_search(place).is_ok()));
        }
        // A row comes once for each instant that it has places of.
        shared.sort_unstable();
        shared.dedup();
    }
    Ok(shared)
}

/// When `places` were decided, which are in order: from one millisecond to another.
fn instants(places: &[Place]) -> Vec<(i64, i64)> {
    let mut instants: Vec<(i64, i64)> = Vec::new();
    for at in places.iter().map(|place| place.at.as_millis()) {
        match instants.last_mut() {
            Some((_, until)) if at.saturating_sub(*until) <= CLOSE => *until = at,
            _ => instants.push((at, at)),
        }
    }
    instants
}

impl From<Malformed> for sqlx::Error {
    fn from(malformed: Malformed) -> Self {
        Self::ColumnDecode { index: "places".to_owned(), source: Box::new(malformed) }
    }
}

impl FromRow<'_, AnyRow> for Block {
    /// What its places are read from; nothing else of it is asked for.
    fn from_row(row: &AnyRow) -> Result<Self, sqlx::Error> {
        let (at, position, places) = (row.try_get("at")?, row.try_get("position")?, row.try_get("places")?);
        Ok(Self { at, position, places, ..Self::default() })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn instants_that_are_close_are_one() {
        let places = [0, 0, 16, 33, 33, 50, i64::MAX].map(|at| Place { at: UnixTime::from_millis(at), position: at });
        assert_eq!(instants(&places), [(0, 16), (33, 33), (50, 50), (i64::MAX, i64::MAX)]);
        assert_eq!(instants(&[]), []);
    }
}
