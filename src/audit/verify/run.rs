//! A run of records as they were read: many bodies in one text, because reading row by row costs more than hashing.
//!
//! Takes what a source read, gives records one after the other. A packed run comes out of one row of SQL, in which the
//! bodies are joined by U+001E. JSON never has that character unescaped, but somebody who writes into the store may: so a
//! packed run is taken only where it splits into exactly as many bodies as rows were counted. Each of `n` rows brings its
//! body and `n - 1` separators stand between them; a separator within a body makes a piece more, and there is no way to
//! make a piece fewer. What does not fit is read again row by row.

use countersign_resource_server::time::UnixTime;

use crate::audit::chain::{Position, RecordHash};

/// What joins the bodies of a packed run.
pub const SEPARATOR: &str = "\u{1e}";

/// The same: one character is found much faster than a text of one.
const JOINT: char = '\u{1e}';

/// The columns of a packed run, each row's value joined to the next one's.
#[derive(Debug, Default)]
pub struct PackedColumns {
    /// Positions, with a space between them.
    pub positions: String,
    /// Instants in Unix milliseconds, with a space between them.
    pub instants: String,
    /// Hashes of 32 octets, with nothing between them.
    pub hashes: Vec<u8>,
    /// Bodies, with a [`SEPARATOR`] between them.
    pub bodies: String,
}

/// One record.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Record<'a> {
    pub(crate) position: Position,
    pub(crate) at: UnixTime,
    pub(crate) hash: RecordHash,
    pub(crate) body: &'a str,
    /// Whether it could be read as what a record consists of. Otherwise its content is none of the log's.
    pub(crate) is_whole: bool,
}

/// Records of one chain, in order of their numbers.
#[derive(Debug, Default)]
pub struct Run {
    records: Vec<Placed>,
    bodies: String,
}

#[derive(Clone, Copy, Debug)]
struct Placed {
    position: Position,
    at: UnixTime,
    hash: RecordHash,
    start: usize,
    end: usize,
    is_whole: bool,
}

impl Run {
    /// A packed run. None where it is not exactly `count` records, in order.
    pub fn packed(count: usize, columns: PackedColumns) -> Option<Self> {
        let PackedColumns { positions, instants, hashes, bodies } = columns;
        let mut records = Vec::with_capacity(count);
        let (mut positions, mut instants) = (positions.split(' '), instants.split(' '));
        let (hashes, []) = hashes.as_chunks::<32>() else { return None };
        let mut hashes = hashes.iter();
        let mut start = 0;
        for body in bodies.split(JOINT) {
            let position = Position::from_number(positions.next()?.parse().ok()?)?;
            let at = UnixTime::from_millis(instants.next()?.parse().ok()?);
            let hash = RecordHash::of_octets(*hashes.next()?);
            let end = start + body.len();
            records.push(Placed { position, at, hash, start, end, is_whole: true });
            start = end + JOINT.len_utf8();
        }
        let is_over = positions.next().is_none() && instants.next().is_none() && hashes.next().is_none();
        let is_exact = is_over && records.len() == count;
        (is_exact && records.is_sorted_by(|one, next| one.position < next.position)).then_some(Self { records, bodies })
    }

    /// Adds one record as it is stored, whatever it consists of.
    pub fn push(&mut self, position: Position, at: UnixTime, hash: &[u8], body: &[u8]) {
        let hash = RecordHash::from_octets(hash);
        let text = std::str::from_utf8(body).ok();
        let start = self.bodies.len();
        self.bodies.push_str(text.unwrap_or_default());
        self.records.push(Placed {
            position,
            at,
            is_whole: hash.is_some() && text.is_some(),
            hash: hash.unwrap_or(RecordHash::of_octets([0; 32])),
            start,
            end: self.bodies.len(),
        });
    }

    /// Whether there is no record in it.
    pub fn is_empty(&self) -> bool {
        self.records.is_empty()
    }

    /// How many.
    pub fn len(&self) -> usize {
        self.records.len()
    }

    /// The octets of their bodies.
    pub(in crate::audit) fn bytes(&self) -> usize {
        self.bodies.len()
    }

    /// The place of the last one.
    pub fn end(&self) -> Option<Position> {
        self.records.last().map(|record| record.position)
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = Record<'_>> {
        self.records.iter().map(|placed| Record {
            position: placed.position,
            at: placed.at,
            hash: placed.hash,
            body: self.bodies.get(placed.start..placed.end).unwrap_or_default(),
            is_whole: placed.is_whole,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const FIRST: i64 = (1 << 40) + 1;

    /// Whole but for the bodies.
    fn columns(positions: &[i64], bodies: &str) -> PackedColumns {
        let texts: Vec<String> = positions.iter().map(ToString::to_string).collect();
        PackedColumns {
            positions: texts.join(" "),
            instants: vec!["5"; positions.len()].join(" "),
            hashes: vec![0xAB; 32 * positions.len()],
            bodies: bodies.to_owned(),
        }
    }

    #[test]
    fn a_packed_run_is_as_many_records_as_were_counted() {
        let run = Run::packed(3, columns(&[FIRST, FIRST + 1, FIRST + 2], "a\u{1e}\u{1e}ü")).unwrap();
        let bodies: Vec<&str> = run.iter().map(|record| record.body).collect();
        assert_eq!(bodies, ["a", "", "ü"]);
        assert_eq!(run.iter().next().unwrap().hash.to_string(), "ab".repeat(32));
        assert_eq!(run.end().unwrap().number(), FIRST + 2);
    }

    #[test]
    fn a_separator_in_a_body_hides_nothing() {
        // Two rows; the first one's body has a separator in it.
        assert!(Run::packed(2, columns(&[FIRST, FIRST + 1], "a\u{1e}b\u{1e}c")).is_none());
        // One row that looks like two.
        assert!(Run::packed(1, columns(&[FIRST], "a\u{1e}b")).is_none());
        assert!(Run::packed(2, columns(&[FIRST, FIRST + 1], "a")).is_none());
        assert!(Run::packed(1, columns(&[FIRST, FIRST + 1], "a")).is_none());
    }

    #[test]
    fn what_does_not_come_apart_is_read_row_by_row() {
        let whole = || columns(&[FIRST, FIRST + 1], "a\u{1e}b");
        assert!(Run::packed(2, whole()).is_some());
        let with = |positions: &str, instants: &str, hashes: usize| PackedColumns {
            positions: positions.to_owned(),
            instants: instants.to_owned(),
            hashes: vec![0; hashes],
            ..whole()
        };
        let positions = whole().positions;
        for (broken, why) in [
            (with("", "5 5", 64), "no position"),
            (with("1 2", "5 5", 64), "a position of no chain"),
            (with("x y", "5 5", 64), "a position that is no number"),
            (with(&format!("{FIRST}"), "5 5", 64), "a position short"),
            (with(&format!("{positions} {}", FIRST + 2), "5 5", 64), "a position too many"),
            (with(&positions, "5", 64), "an instant short"),
            (with(&positions, "5 5.0", 64), "an instant that is no whole number"),
            (with(&positions, "5 5 5", 64), "an instant too many"),
            (with(&positions, "5 5", 32), "a hash short"),
            (with(&positions, "5 5", 63), "an octet short"),
            (with(&positions, "5 5", 65), "an octet too many"),
            (with(&positions, "5 5", 96), "a hash too many"),
        ] {
            assert!(Run::packed(2, broken).is_none(), "{why}");
        }
        assert!(Run::packed(2, columns(&[FIRST, FIRST], "a\u{1e}b")).is_none(), "a place twice");
        assert!(Run::packed(2, columns(&[FIRST + 1, FIRST], "a\u{1e}b")).is_none(), "out of order");
    }

    #[test]
    fn a_row_that_is_no_record_is_not_whole() {
        let mut run = Run::default();
        let position = Position::from_number(FIRST).unwrap();
        let at = UnixTime::from_millis(5);
        run.push(position, at, &[0; 32], b"a\x1eb");
        run.push(position, at, &[0; 31], b"a");
        run.push(position, at, &[0; 32], b"\xff");
        let whole: Vec<bool> = run.iter().map(|record| record.is_whole).collect();
        assert_eq!(whole, [true, false, false]);
        assert_eq!(run.iter().next().unwrap().body, "a\u{1e}b");
    }
}
