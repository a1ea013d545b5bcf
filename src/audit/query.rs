//! Which records say something about this certificate, this client, this token?
//!
//! Takes a [`Filter`], gives the records that meet all of it in order of time, across chains. What the index leads to is
//! read from the log and looked at there; what the index has not reached is read from the log too. It knows nothing of
//! how the index is stored.

use countersign_resource_server::time::UnixTime;

use super::chain::Position;
use super::index::{AuditIndex, Named, Place, Standing, TermKind, Way, ways};
use super::store::AuditEntry;
use crate::registry::StoreUnavailable;

/// What is looked for: records that meet all of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Filter {
    /// What they name.
    pub names: Vec<(TermKind, String)>,
    /// Decided at this instant or later.
    pub since: UnixTime,
    /// Decided before this one.
    pub until: UnixTime,
}

impl Default for Filter {
    /// All there are.
    fn default() -> Self {
        Self { names: Vec::new(), since: UnixTime::from_millis(i64::MIN), until: UnixTime::from_millis(i64::MAX) }
    }
}

impl Filter {
    /// Records that name this.
    pub fn naming(kind: TermKind, text: &str) -> Self {
        Self { names: vec![(kind, text.to_owned())], ..Self::default() }
    }

    /// Whether it meets this record.
    pub fn meets(&self, entry: &AuditEntry) -> bool {
        if entry.at < self.since || entry.at >= self.until {
            return false;
        }
        self.names.is_empty() || {
            let named = Named::of(&entry.body);
            self.names.iter().all(|(kind, text)| named.has(*kind, text))
        }
    }
}

/// What was found.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Found {
    /// In order of time, and of their places where that is the same.
    pub entries: Vec<AuditEntry>,
    /// Whether there are more.
    pub more: bool,
}

/// How often a search begins anew because the index was thrown away meanwhile.
const TRIES: usize = 5;

/// How many places the index looks at at once: a statement's worth, far from any time-out.
const PLACES: u32 = 10_000;

/// The same where every one of them is a record to read.
const PLACES_OF_ONE: u32 = 1_000;

/// How many records are read at once.
const RECORDS: usize = 250;

/// Of a term that leads to more records than this it does not matter how many there are.
const MOST_COUNTED: u32 = 20_000;

/// The first `limit` records that meet `filter`.
///
/// # Errors
/// [`StoreUnavailable`]
pub async fn search(index: &dyn AuditIndex, filter: &Filter, limit: usize) -> Result<Found, StoreUnavailable> {
    for _ in 0..TRIES {
        // First how far both are: what the log gets after that is not asked for, and what the index gets twice over is seen.
        let standing = index.standing().await?;
        let mut met = unindexed(index, &standing, filter, limit).await?;
        met.extend(indexed(index, &standing, filter, limit).await?);
        if index.standing().await?.index == standing.index {
            met.sort_by_key(AuditEntry::place);
            let more = met.len() > limit;
            met.truncate(limit);
            return Ok(Found { entries: met, more });
        }
    }
    Err(StoreUnavailable::because("the index of the audit log was thrown away again and again"))
}

/// What the index leads to: the first `limit` and one more.
async fn indexed(
    index: &dyn AuditIndex,
    standing: &Standing,
    filter: &Filter,
    limit: usize,
) -> Result<Vec<AuditEntry>, StoreUnavailable> {
    let mut walks = Vec::new();
    for way in ways(&filter.names, &(filter.since..filter.until)) {
        walks.push(Walk::along(plan(index, way).await?));
    }
    let mut met = Vec::new();
    loop {
        let Some(places) = next_places(index, &mut walks).await? else { return Ok(met) };
        let positions: Vec<Position> = places
            .iter()
            .filter_map(|place| Position::from_number(place.position))
            .filter(|position| standing.is_indexed(*position))
            .collect();
        // No more at once than may still be shown: a record is a kilobyte, a place in the index is nothing.
        for positions in positions.chunks(RECORDS.min(limit.saturating_add(1))) {
            let mut records = index.records(positions).await?;
            records.sort_by_key(AuditEntry::place);
            // Two texts can share a term, and a way leads to more than was asked for.
            met.extend(records.into_iter().filter(|record| filter.meets(record)));
            if met.len() > limit {
                met.truncate(limit.saturating_add(1));
                return Ok(met);
            }
        }
    }
}

/// A way, and how far along it.
struct Walk {
    way: Way,
    looked_at: Place,
    /// What was seen and has not been gone to.
    ahead: Vec<Place>,
    is_at_its_end: bool,
}

impl Walk {
    fn along(way: Way) -> Self {
        Self { looked_at: Place::before(way.span.start), way, ahead: Vec::new(), is_at_its_end: false }
    }

    async fn look(&mut self, index: &dyn AuditIndex) -> Result<(), StoreUnavailable> {
        let limit = if self.way.terms.len() == 1 { PLACES_OF_ONE } else { PLACES };
        let (ahead, looked_at) = index.places(&self.way.terms, self.looked_at, self.way.span.end, limit).await?;
        self.ahead = ahead;
        match looked_at {
            Some(looked_at) => self.looked_at = looked_at,
            None => self.is_at_its_end = true,
        }
        Ok(())
    }
}

/// The next places that any of the ways leads to, in order and each once; none where there are no more.
async fn next_places(index: &dyn AuditIndex, walks: &mut [Walk]) -> Result<Option<Vec<Place>>, StoreUnavailable> {
    loop {
        for walk in walks.iter_mut().filter(|walk| walk.ahead.is_empty() && !walk.is_at_its_end) {
            walk.look(index).await?;
        }
        // Beyond where one of them has looked it may yet find an earlier one.
        let horizon = walks.iter().filter(|walk| !walk.is_at_its_end).map(|walk| walk.looked_at).min();
        let mut next = Vec::new();
        for walk in &mut *walks {
            let near =
                horizon.map_or(walk.ahead.len(), |horizon| walk.ahead.partition_point(|place| *place <= horizon));
            next.extend(walk.ahead.drain(..near));
        }
        if !next.is_empty() || horizon.is_none() {
            next.sort_unstable();
            next.dedup();
            return Ok((!next.is_empty()).then_some(next));
        }
    }
}

/// The terms of a way in the order to ask the index for them: the one that leads to the fewest records first.
async fn plan(index: &dyn AuditIndex, Way { mut terms, span }: Way) -> Result<Way, StoreUnavailable> {
    terms.sort_unstable();
    terms.dedup();
    if terms.len() > 1 {
        let mut counted = Vec::with_capacity(terms.len());
        let mut most = MOST_COUNTED;
        for term in terms {
            let count = index.count(term, span.clone(), most).await?;
            // Another one has to lead to fewer to be any better.
            most = most.min(count.saturating_add(1));
            counted.push((count, term));
        }
        // Where that is the same, the kind that tells records apart better: they are in that order.
        counted.sort_by_key(|(count, _)| *count);
        terms = counted.into_iter().map(|(_, term)| term).collect();
    }
    Ok(Way { terms, span })
}

/// What the index has not reached: the first `limit` and one more.
async fn unindexed(
    index: &dyn AuditIndex,
    standing: &Standing,
    filter: &Filter,
    limit: usize,
) -> Result<Vec<AuditEntry>, StoreUnavailable> {
    let kept = limit.saturating_add(1);
    let mut met: Vec<AuditEntry> = Vec::new();
    for chain in &standing.chains {
        let mut after = chain.indexed;
        while after < chain.last {
            let (records, end) = index.stretch(after, chain.last, PLACES_OF_ONE).await?;
            let Some(end) = end else { break };
            after = end;
            met.extend(records.into_iter().filter(|record| filter.meets(record)));
            if met.len() >= kept.saturating_mul(2).saturating_add(1_000) {
                met.sort_by_key(AuditEntry::place);
                met.truncate(kept);
            }
        }
    }
    met.sort_by_key(AuditEntry::place);
    met.truncate(kept);
    Ok(met)
}
