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
    /// A packed run: `POSITION AT HASH;…` and the bodies, joined by [`SEPARATOR`]. None where it is not exactly `count` of
    /// both.
    pub fn packed(count: usize, heads: &str, bodies: String) -> Option<Self> {
        let mut records = Vec::with_capacity(count);
        let mut heads = heads.split(';');
        let mut start = 0;
        for body in bodies.split(JOINT) {
            let mut fields = heads.next()?.split(' ');
            let position = Position::from_number(fields.next()?.parse().ok()?)?;
            let at = UnixTime::from_millis(fields.next()?.parse().ok()?);
            let mut hash = [0; 32];
            hex::decode_to_slice(fields.next()?, &mut hash).ok()?;
            if fields.next().is_some() {
                return None;
            }
            let end = start + body.len();
            let hash = RecordHash::of_octets(hash);
            records.push(Placed { position, at, hash, start, end, is_whole: true });
            start = end + JOINT.len_utf8();
        }
        let is_exact = heads.next().is_none() && records.len() == count;
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

    const HASH: &str = "00000000000000000000000000000000000000000000000000000000000000AB";

    fn heads(positions: &[i64]) -> String {
        let heads: Vec<String> = positions.iter().map(|position| format!("{position} 5 {HASH}")).collect();
        heads.join(";")
    }

    const FIRST: i64 = (1 << 40) + 1;

    #[test]
    fn a_packed_run_is_as_many_records_as_were_counted() {
        let run = Run::packed(3, &heads(&[FIRST, FIRST + 1, FIRST + 2]), "a\u{1e}\u{1e}ü".to_owned()).unwrap();
        let bodies: Vec<&str> = run.iter().map(|record| record.body).collect();
        assert_eq!(bodies, ["a", "", "ü"]);
        assert_eq!(run.iter().next().unwrap().hash.to_string(), HASH.to_lowercase());
        assert_eq!(run.end().unwrap().number(), FIRST + 2);
    }

    #[test]
    fn a_separator_in_a_body_hides_nothing() {
        // Two rows; the first one's body has a separator in it.
        assert!(Run::packed(2, &heads(&[FIRST, FIRST + 1]), "a\u{1e}b\u{1e}c".to_owned()).is_none());
        // One row that looks like two.
        assert!(Run::packed(1, &heads(&[FIRST]), "a\u{1e}b".to_owned()).is_none());
        assert!(Run::packed(2, &heads(&[FIRST, FIRST + 1]), "a".to_owned()).is_none());
        assert!(Run::packed(1, &heads(&[FIRST, FIRST + 1]), "a".to_owned()).is_none());
    }

    #[test]
    fn what_is_no_head_is_read_row_by_row() {
        for heads in ["", "1 5", "x 5 00", &format!("{FIRST} 5 {}", &HASH[2..]), &format!("{FIRST} 5 {HASH} 1")] {
            assert!(Run::packed(1, heads, "a".to_owned()).is_none(), "{heads}");
        }
        assert!(Run::packed(2, &heads(&[FIRST, FIRST]), "a\u{1e}b".to_owned()).is_none(), "a place twice");
        assert!(Run::packed(2, &heads(&[FIRST + 1, FIRST]), "a\u{1e}b".to_owned()).is_none(), "out of order");
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
