//! Which places do terms lead to?
//!
//! Takes terms and a span, reads the rows that can have places in it, gives these in order of time. A row is where its earliest place is, so
//! it is looked for from [`SPAN`] before an instant on, and what is read of a term is whole up to where the next row begins.

use std::ops::Range;

use countersign_resource_server::time::UnixTime;
use sqlx::any::AnyRow;
use sqlx::{AnyPool, FromRow, Row};

use super::block::{Block, Malformed, SPAN};
use crate::audit::index::{Place, Term};
use crate::store::{Engine, Store};

/// Rows that are read at once, twice as many each time: of a busy term one has hundreds of places, of another each is one.
const FIRST_ROWS: usize = 16;

/// Half a megabyte.
const MOST_ROWS: usize = 512;

/// Instants that another term is asked for in one statement.
const INSTANTS: usize = 256;

/// Instants so close together are asked for as one: a row of a busy term is no longer.
const CLOSE: i64 = 16;

/// The next `limit` places of the first term, after `after` and before `until`, that lead to the others as well; and the last of them in any
/// case, to go on after.
pub(super) async fn with_all(
    store: &Store,
    readers: &AnyPool,
    terms: &[Term],
    after: Place,
    until: UnixTime,
    limit: u32,
) -> Result<Vec<Place>, sqlx::Error> {
    let Some((first, others)) = terms.split_first() else { return Ok(Vec::new()) };
    let limit = usize::try_from(limit).unwrap_or(usize::MAX);
    let mut places = next(readers, *first, after, until, limit).await?;
    let last = places.last().copied();
    for other in others {
        places = shared_with(store, readers, *other, &places).await?;
    }
    if places.last() != last.as_ref() {
        places.extend(last);
    }
    Ok(places)
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

async fn next(
    readers: &AnyPool,
    term: Term,
    after: Place,
    until: UnixTime,
    limit: usize,
) -> Result<Vec<Place>, sqlx::Error> {
    let mut rows = Rows::of(term, after, until);
    let mut places = Vec::new();
    loop {
        let read = rows.read(readers).await?;
        let is_all = read.is_none();
        places.extend(read.into_iter().flatten().filter(|place| *place > after && place.at < until));
        // What was read before is in order: so is most of what was read now.
        places.sort();
        places.dedup();
        if is_all || places.partition_point(|place| *place <= rows.after) >= limit {
            places.truncate(limit);
            return Ok(places);
        }
    }
}

/// The rows of a term that may have places after one and before an instant.
struct Rows {
    term: Term,
    since: UnixTime,
    until: UnixTime,
    /// Where the last row was that was read: all places before it have been read, and it itself.
    after: Place,
    at_once: usize,
    is_at_its_end: bool,
}

impl Rows {
    fn of(term: Term, after: Place, until: UnixTime) -> Self {
        let earliest = UnixTime::from_millis(after.at.as_millis().saturating_sub(SPAN));
        let after_row = Place::before(earliest);
        Self { term, since: after.at, until, after: after_row, at_once: FIRST_ROWS, is_at_its_end: false }
    }

    /// The places of the next rows; none where there are no more.
    async fn read(&mut self, readers: &AnyPool) -> Result<Option<Vec<Place>>, sqlx::Error> {
        if self.is_at_its_end {
            return Ok(None);
        }
        let rows: Vec<Block> = sqlx::query_as(
            "SELECT at, position, places FROM audit_index_term WHERE kind = $1 AND value = $2 AND (at, position) > ($3, $4) AND at < $5 AND at + span >= $6 ORDER BY at, position LIMIT $7",
        )
        .bind(self.term.kind as i64)
        .bind(self.term.value)
        .bind(self.after.at.as_millis())
        .bind(self.after.position)
        .bind(self.until.as_millis())
        .bind(self.since.as_millis())
        .bind(i64::try_from(self.at_once).unwrap_or(i64::MAX))
        .fetch_all(readers)
        .await?;
        self.is_at_its_end = rows.len() < self.at_once;
        self.at_once = MOST_ROWS.min(2 * self.at_once);
        if let Some(last) = rows.last() {
            self.after = Place { at: UnixTime::from_millis(last.at), position: last.position };
        }
        places_of(&rows).map(Some)
    }
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
             JOIN audit_index_term ON kind = $1 AND value = $2 \
             AND at > instants.earliest AND at <= instants.until AND at + span >= instants.since"
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

fn places_of(rows: &[Block]) -> Result<Vec<Place>, sqlx::Error> {
    let mut places = Vec::with_capacity(rows.len());
    for row in rows {
        places.extend(row.places()?);
    }
    Ok(places)
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
