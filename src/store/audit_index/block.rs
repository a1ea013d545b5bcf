//! A row of the index: the places of one term that lie together.
//!
//! A busy client is in a thousand records a second, and each row costs more to write than a hundred places in it. Takes places in the
//! order in which the log has them, gives rows; takes a row, gives its places. It knows nothing of who stores them.

use std::collections::HashMap;

use countersign_resource_server::time::UnixTime;

use crate::audit::index::{Place, Term};

/// The places of a row were decided within less than so many milliseconds: whoever looks for an instant begins so much before it. Longer
/// rows are fewer where somebody is in hundreds of records a second, and each instant is looked for among more where he is in a few.
pub(super) const SPAN: i64 = 128;

/// Octets of the places of a row, some two for each. Four rows of a page are what SQLite wants of them at most.
const MOST_OCTETS: usize = 800;

/// Places of one term, of one chain, in the order of their positions: at least one.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Block {
    pub(super) kind: i64,
    pub(super) value: i64,
    /// When the earliest was decided, in milliseconds since 1970.
    pub(super) at: i64,
    /// The first one.
    pub(super) position: i64,
    /// How much later the latest was decided, in milliseconds.
    pub(super) span: i64,
    /// How much further the last one is.
    pub(super) reach: i64,
    /// Nothing where it is one place. Otherwise how much later than the earliest the first was decided, and of each that follows how
    /// much further it is than the one before, and how much later it was decided: numbers as in [`put`], the last zigzag.
    pub(super) places: Vec<u8>,
}

/// A row that nobody here wrote.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the places of a row of the audit log's index cannot be read")]
pub(super) struct Malformed;

impl Block {
    /// Its places, in the order of their positions.
    pub(super) fn places(&self) -> Result<Vec<Place>, Malformed> {
        let place = |at, position| Place { at: UnixTime::from_millis(at), position };
        if self.places.is_empty() {
            return Ok(vec![place(self.at, self.position)]);
        }
        let mut octets = self.places.as_slice();
        let mut at = self.at.checked_add_unsigned(take(&mut octets)?).ok_or(Malformed)?;
        let mut position = self.position;
        let mut places = vec![place(at, position)];
        while !octets.is_empty() {
            position = position.checked_add_unsigned(take(&mut octets)?).ok_or(Malformed)?;
            at = at.checked_add(unfolded(take(&mut octets)?)).ok_or(Malformed)?;
            places.push(place(at, position));
        }
        Ok(places)
    }
}

/// Rows in the making.
#[derive(Debug, Default)]
pub(super) struct Blocks {
    open: HashMap<(i64, i64), Open>,
    done: Vec<Block>,
}

/// One to which places may still come.
#[derive(Debug)]
struct Open {
    first: (i64, i64),
    last: (i64, i64),
    earliest: i64,
    latest: i64,
    following: Vec<u8>,
}

impl Blocks {
    /// A term of the record at `position`, in each chain one record after the other.
    pub(super) fn add(&mut self, position: i64, at: UnixTime, term: Term) {
        self.add_to((term.kind as i64, term.value), position, at.as_millis());
    }

    /// The same with the numbers of the term.
    pub(super) fn add_to(&mut self, key: (i64, i64), position: i64, at: i64) {
        match self.open.get_mut(&key) {
            // Two texts of a record may share a term.
            Some(open) if open.last.0 == position => {}
            Some(open) if open.takes(position, at) => open.add(position, at),
            Some(open) => self.done.push(std::mem::replace(open, Open::new(position, at)).row(key)),
            None => drop(self.open.insert(key, Open::new(position, at))),
        }
    }

    /// All rows, those that are neighbours in the index one after the other.
    pub(super) fn rows(self) -> Vec<Block> {
        let mut rows = self.done;
        rows.extend(self.open.into_iter().map(|(key, open)| open.row(key)));
        rows.sort_unstable();
        rows
    }
}

impl Open {
    const fn new(position: i64, at: i64) -> Self {
        Self { first: (position, at), last: (position, at), earliest: at, latest: at, following: Vec::new() }
    }

    fn takes(&self, position: i64, at: i64) -> bool {
        let (earliest, latest) = (self.earliest.min(at), self.latest.max(at));
        position > self.last.0
            && position >> 40 == self.last.0 >> 40
            && latest.checked_sub(earliest).is_some_and(|span| span < SPAN)
            && self.following.len() < MOST_OCTETS
    }

    fn add(&mut self, position: i64, at: i64) {
        put(&mut self.following, position.abs_diff(self.last.0));
        put(&mut self.following, folded(at - self.last.1));
        self.last = (position, at);
        self.earliest = self.earliest.min(at);
        self.latest = self.latest.max(at);
    }

    fn row(self, (kind, value): (i64, i64)) -> Block {
        let mut places = Vec::new();
        if !self.following.is_empty() {
            places.reserve_exact(self.following.len() + 2);
            put(&mut places, self.first.1.abs_diff(self.earliest));
            places.extend_from_slice(&self.following);
        }
        let (at, span) = (self.earliest, self.latest - self.earliest);
        Block { kind, value, at, position: self.first.0, span, reach: self.last.0 - self.first.0, places }
    }
}

/// Seven bits an octet, the lowest first; all but the last have the eighth.
fn put(octets: &mut Vec<u8>, mut number: u64) {
    while number >= 0x80 {
        octets.push(u8::try_from(number & 0x7F).unwrap_or_default() | 0x80);
        number >>= 7;
    }
    octets.push(u8::try_from(number).unwrap_or_default());
}

fn take(octets: &mut &[u8]) -> Result<u64, Malformed> {
    let mut number = 0;
    for shift in (0..63).step_by(7) {
        let (&octet, rest) = octets.split_first().ok_or(Malformed)?;
        *octets = rest;
        number |= u64::from(octet & 0x7F) << shift;
        if octet & 0x80 == 0 {
            return Ok(number);
        }
    }
    Err(Malformed)
}

/// 0, -1, 1, -2, … as 0, 1, 2, 3, …
const fn folded(number: i64) -> u64 {
    ((number << 1) ^ (number >> 63)).cast_unsigned()
}

const fn unfolded(number: u64) -> i64 {
    (number >> 1).cast_signed() ^ -((number & 1).cast_signed())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::audit::index::TermKind;

    const CHAIN: i64 = 1 << 40;

    fn term(kind: TermKind, value: i64) -> Term {
        Term { kind, value }
    }

    fn rows(places: &[(i64, i64)]) -> Vec<Block> {
        let mut blocks = Blocks::default();
        for (position, at) in places {
            blocks.add(*position, UnixTime::from_millis(*at), term(TermKind::Client, 7));
        }
        blocks.rows()
    }

    /// What is in rows that keep what they promise.
    fn read(rows: &[Block]) -> Vec<(i64, i64)> {
        let mut all = Vec::new();
        for row in rows {
            let places: Vec<_> = row.places().unwrap().iter().map(|one| (one.position, one.at.as_millis())).collect();
            assert_eq!(row.position, places[0].0);
            assert_eq!(row.position + row.reach, places.last().unwrap().0);
            assert!(places.is_sorted() && places.iter().all(|(position, _)| position >> 40 == row.position >> 40));
            assert_eq!(places.iter().map(|(_, at)| *at).min(), Some(row.at));
            assert_eq!(places.iter().map(|(_, at)| *at).max(), Some(row.at + row.span));
            assert!((0..SPAN).contains(&row.span) && row.places.len() <= MOST_OCTETS + 32);
            all.extend(places);
        }
        all.sort_unstable();
        all
    }

    #[test]
    fn one_place_is_a_row_without_octets() {
        let row = Block { kind: 4, value: 7, at: 5, position: CHAIN + 1, ..Block::default() };
        assert_eq!(rows(&[(CHAIN + 1, 5)]), [row]);
    }

    #[test]
    fn what_lies_together_is_one_row_whatever_the_clock_did() {
        let together = [(CHAIN + 1, 5), (CHAIN + 2, 2), (CHAIN + 9, SPAN + 1), (CHAIN + 70_000, 2)];
        let rows = rows(&together);
        assert_eq!(read(&rows), together);
        assert_eq!(rows.len(), 1);
        assert_eq!((rows[0].at, rows[0].span, rows[0].reach), (2, SPAN - 1, 69_999));
    }

    #[test]
    fn another_row_begins_where_one_is_too_long_too_large_or_of_another_chain() {
        for (places, expected) in [
            (vec![(CHAIN + 1, 0), (CHAIN + 2, SPAN - 1), (CHAIN + 3, SPAN)], 2),
            (vec![(CHAIN + 1, 0), (CHAIN + 2, -SPAN)], 2),
            (vec![(CHAIN + 1, 0), (2 * CHAIN + 1, 0), (2 * CHAIN + 2, 0)], 2),
            (vec![(CHAIN + 2, 0), (CHAIN + 1, 0)], 2),
            (vec![(CHAIN + 1, i64::MIN), (CHAIN + 2, i64::MAX), (CHAIN + 3, i64::MAX)], 2),
            ((1..=1_000).map(|number| (CHAIN + number, number / 20)).collect(), 3),
        ] {
            let rows = rows(&places);
            let mut sorted = places.clone();
            sorted.sort_unstable();
            assert_eq!(read(&rows), sorted);
            assert_eq!(rows.len(), expected, "{places:?}");
        }
    }

    #[test]
    fn each_term_has_its_own_and_neighbours_follow_each_other() {
        let mut blocks = Blocks::default();
        let of = [(TermKind::Outcome, 1), (TermKind::Client, 9), (TermKind::Client, -9)];
        for number in 1..=30 {
            for (kind, value) in of {
                blocks.add(CHAIN + number, UnixTime::from_millis(number), term(kind, value));
            }
        }
        let rows = blocks.rows();
        assert_eq!(rows.iter().map(|row| (row.kind, row.value)).collect::<Vec<_>>(), [(4, -9), (4, 9), (7, 1)]);
        assert!(rows.iter().all(|row| row.places().unwrap().len() == 30));
    }

    #[test]
    fn a_term_that_a_record_has_twice_is_one_place() {
        assert_eq!(rows(&[(CHAIN + 1, 5), (CHAIN + 1, 5)]), rows(&[(CHAIN + 1, 5)]));
        let twice = [(CHAIN + 1, 5), (CHAIN + 2, 6), (CHAIN + 2, 6), (CHAIN + 3, 7)];
        assert_eq!(read(&rows(&twice)), [(CHAIN + 1, 5), (CHAIN + 2, 6), (CHAIN + 3, 7)]);
    }

    #[test]
    fn random_places_come_back() {
        let mut state = 0x9E37_79B9_7F4A_7C15_u64;
        let mut random = |below: u64| {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            i64::try_from((state >> 33) % below).unwrap()
        };
        for _ in 0..200 {
            let (mut position, mut at) = (CHAIN, 1_800_000_000_000);
            let places: Vec<_> = (0..random(2_000))
                .map(|_| {
                    position += 1 + if random(50) == 0 { random(1 << 30) } else { random(300) };
                    at += if random(100) == 0 { random(5_000) - 2_500 } else { random(8) - 1 };
                    (position, at)
                })
                .collect();
            assert_eq!(read(&rows(&places)), places);
        }
    }

    #[test]
    fn octets_of_somebody_elses_are_refused_or_read_and_never_more_than_they_are() {
        let row = |places: &[u8]| Block {
            at: i64::MAX - 1,
            position: i64::MAX - 1,
            places: places.to_vec(),
            ..Block::default()
        };
        for places in [&[0x80][..], &[0, 1], &[2], &[0, 2, 0], &[0, 1, 4], &[0x80; 10], &[0xFF; 800]] {
            assert_eq!(row(places).places(), Err(Malformed), "{places:?}");
        }
        assert_eq!(row(&[1, 1, 1]).places().unwrap().len(), 2);
        for number in [0, 1, -1, 63, -64, 64, i64::MAX, i64::MIN] {
            assert_eq!(unfolded(folded(number)), number);
        }
        for number in [0, 127, 128, 1 << 40, (1 << 63) - 1] {
            let mut octets = Vec::new();
            put(&mut octets, number);
            assert_eq!((take(&mut octets.as_slice()), octets.len() <= 9), (Ok(number), true));
        }
    }
}
