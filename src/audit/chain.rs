//! The chain that records stand in: each record's hash covers the one before it, so none can be changed, removed,
//! inserted or moved unnoticed.
//!
//! Takes a record and the hash before it, gives its hash. `docs/audit-log.md` has the encoding octet by octet, and
//! `tests/vectors/audit/` has examples. It reads and writes nothing.

use std::fmt;

use countersign_resource_server::time::UnixTime;
use sha2::{Digest, Sha256};

/// Which log: 128 bits, the same for as long as the store lives.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct LogId([u8; 16]);

impl LogId {
    /// Reads 32 hexadecimal digits in lower case.
    pub fn parse(text: &str) -> Option<Self> {
        let mut octets = [0; 16];
        hex::decode_to_slice(text, &mut octets).ok()?;
        Some(Self(octets)).filter(|id| id.to_string() == text)
    }
}

impl fmt::Display for LogId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&hex::encode(self.0))
    }
}

impl fmt::Debug for LogId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "LogId({self})")
    }
}

/// Which chain of a log. From 1.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ChainId(i64);

impl ChainId {
    /// The largest id: a position has 63 bits.
    pub const LARGEST: Self = Self((1 << (63 - SEQUENCE_BITS)) - 1);

    /// The chain of this number, if there can be one.
    pub fn new(number: i64) -> Option<Self> {
        (1..=Self::LARGEST.0).contains(&number).then_some(Self(number))
    }

    /// Its number.
    pub const fn number(self) -> i64 {
        self.0
    }

    /// The hash that its first record follows.
    pub fn first_hash(self, log: LogId) -> RecordHash {
        let hash = Sha256::new().chain_update(b"countersign audit chain 1").chain_update(log.0);
        RecordHash(hash.chain_update(self.0.to_be_bytes()).finalize().into())
    }
}

impl fmt::Display for ChainId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// How many bits of a position number the record.
const SEQUENCE_BITS: u32 = 40;

/// A record's place in the log: its chain, and its number in it, as one number that is ordered by both.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Position(i64);

impl Position {
    /// The place of the record with this number, from 1; 0 is the place before the first.
    pub fn of(chain: ChainId, sequence: i64) -> Option<Self> {
        (0..1 << SEQUENCE_BITS).contains(&sequence).then_some(Self((chain.0 << SEQUENCE_BITS) | sequence))
    }

    /// The last place of a chain.
    pub const fn last_of(chain: ChainId) -> Self {
        Self((chain.0 << SEQUENCE_BITS) | ((1 << SEQUENCE_BITS) - 1))
    }

    /// The place with this number, if there can be one.
    pub fn from_number(number: i64) -> Option<Self> {
        ChainId::new(number >> SEQUENCE_BITS).map(|_| Self(number))
    }

    /// As one number.
    pub const fn number(self) -> i64 {
        self.0
    }

    /// The chain.
    pub const fn chain(self) -> ChainId {
        ChainId(self.0 >> SEQUENCE_BITS)
    }

    /// The number in it.
    pub const fn sequence(self) -> i64 {
        self.0 & ((1 << SEQUENCE_BITS) - 1)
    }
}

impl fmt::Display for Position {
    /// `chain/sequence`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.chain(), self.sequence())
    }
}

/// The SHA-256 hash of a record and everything before it in its chain.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct RecordHash([u8; 32]);

impl RecordHash {
    /// These octets as a hash, if they are as many.
    pub fn from_octets(octets: &[u8]) -> Option<Self> {
        octets.try_into().ok().map(Self)
    }

    /// These octets as a hash.
    pub const fn of_octets(octets: [u8; 32]) -> Self {
        Self(octets)
    }

    /// Reads 64 hexadecimal digits in lower case.
    pub fn parse(text: &str) -> Option<Self> {
        let mut octets = [0; 32];
        hex::decode_to_slice(text, &mut octets).ok()?;
        Some(Self(octets)).filter(|hash| hash.to_string() == text)
    }

    /// Its 32 octets.
    pub const fn octets(&self) -> &[u8; 32] {
        &self.0
    }

    /// The hash of the record that follows: this hash, chain, sequence number, instant, length of the body (each eight octets,
    /// the most significant first), and the body as it is stored.
    #[must_use]
    pub fn followed_by(&self, position: Position, at: UnixTime, body: &str) -> Self {
        let mut head = [0; 64];
        let length = u64::try_from(body.len()).unwrap_or(u64::MAX);
        let fields = [
            position.chain().0.to_be_bytes(),
            position.sequence().to_be_bytes(),
            at.as_millis().to_be_bytes(),
            length.to_be_bytes(),
        ];
        let (before, rest) = head.split_at_mut(32);
        before.copy_from_slice(&self.0);
        for (place, field) in rest.chunks_exact_mut(8).zip(fields) {
            place.copy_from_slice(&field);
        }
        Self(Sha256::new().chain_update(head).chain_update(body).finalize().into())
    }
}

impl fmt::Display for RecordHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&hex::encode(self.0))
    }
}

impl fmt::Debug for RecordHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "RecordHash({self})")
    }
}

/// How far a chain is: the last record's place and hash. A chain without records has sequence number 0 and its first hash.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Head {
    /// The last record's place.
    pub position: Position,
    /// Its hash.
    pub hash: RecordHash,
}

impl Head {
    /// Of a chain that has no record yet.
    pub fn before_first(log: LogId, chain: ChainId) -> Self {
        Self { position: Position(chain.0 << SEQUENCE_BITS), hash: chain.first_hash(log) }
    }

    /// The chain.
    pub const fn chain(&self) -> ChainId {
        self.position.chain()
    }

    /// The head after one record more; none where the chain is full.
    #[must_use]
    pub fn followed_by(&self, at: UnixTime, body: &str) -> Option<Self> {
        let position = Position::of(self.chain(), self.position.sequence() + 1)?;
        Some(Self { position, hash: self.hash.followed_by(position, at, body) })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const BODY: &str = r#"{"kind":"opened","at":1800000000000,"node":"node-1"}"#;

    fn log() -> LogId {
        LogId::parse("000102030405060708090a0b0c0d0e0f").unwrap()
    }

    fn chain(number: i64) -> ChainId {
        ChainId::new(number).unwrap()
    }

    #[test]
    fn every_field_counts() {
        let at = UnixTime::from_millis(1_800_000_000_000);
        let head = Head::before_first(log(), chain(1));
        let position = Position::of(chain(1), 1).unwrap();
        let hash = head.hash.followed_by(position, at, BODY);
        let other_log = LogId::parse("000102030405060708090a0b0c0d0e00").unwrap();
        let mut others = vec![
            chain(1).first_hash(other_log).followed_by(position, at, BODY),
            chain(2).first_hash(log()).followed_by(position, at, BODY),
            head.hash.followed_by(Position::of(chain(2), 1).unwrap(), at, BODY),
            head.hash.followed_by(Position::of(chain(1), 2).unwrap(), at, BODY),
            head.hash.followed_by(position, UnixTime::from_millis(at.as_millis() + 1), BODY),
            head.hash.followed_by(position, at, &BODY[1..]),
            head.hash.followed_by(position, at, &format!("{BODY}\0")),
            hash,
        ];
        others.sort_by_key(|hash| *hash.octets());
        others.dedup();
        assert_eq!(others.len(), 8);
    }

    /// Computed by another program, in another language, from the text of the format alone.
    #[test]
    fn the_published_vectors() {
        let vectors: serde_json::Value =
            serde_json::from_str(include_str!("../../tests/vectors/audit/chain.json")).unwrap();
        let log = LogId::parse(vectors["log"].as_str().unwrap()).unwrap();
        let mut compared = 0;
        for published in vectors["chains"].as_array().unwrap() {
            let mut head = Head::before_first(log, chain(published["chain"].as_i64().unwrap()));
            assert_eq!(head.hash.to_string(), published["first_hash"].as_str().unwrap());
            for record in published["records"].as_array().unwrap() {
                let at = UnixTime::from_millis(record["at"].as_i64().unwrap());
                head = head.followed_by(at, record["body"].as_str().unwrap()).unwrap();
                assert_eq!(head.position.sequence(), record["sequence"].as_i64().unwrap());
                assert_eq!(head.hash.to_string(), record["hash"].as_str().unwrap());
                compared += 1;
            }
        }
        assert_eq!(compared, 6);
    }

    #[test]
    fn a_position_is_chain_and_number() {
        let last = (1 << SEQUENCE_BITS) - 1;
        for (number, sequence) in [(1, 0), (1, 1), (7, last), (ChainId::LARGEST.number(), last)] {
            let position = Position::of(chain(number), sequence).unwrap();
            assert_eq!((position.chain(), position.sequence()), (chain(number), sequence));
            assert_eq!(Position::from_number(position.number()), Some(position));
        }
        for number in [0, -1, ChainId::LARGEST.number() + 1] {
            assert_eq!(ChainId::new(number), None, "{number}");
        }
        assert_eq!(Position::of(chain(1), last + 1), None);
        assert_eq!(Position::of(chain(1), -1), None);
        for number in [0, last, -1] {
            assert_eq!(Position::from_number(number), None, "{number}");
        }
        assert!(Position::of(chain(1), last) < Position::of(chain(2), 0));
    }

    #[test]
    fn a_full_chain_takes_no_more() {
        let position = Position::of(chain(1), (1 << SEQUENCE_BITS) - 1).unwrap();
        let head = Head { position, hash: chain(1).first_hash(log()) };
        assert_eq!(head.followed_by(UnixTime::from_seconds(0), BODY), None);
    }

    #[test]
    fn only_the_canonical_form_is_read() {
        assert_eq!(LogId::parse("000102030405060708090A0B0C0D0E0F"), None);
        assert_eq!(LogId::parse("00"), None);
        assert_eq!(RecordHash::parse(&"A".repeat(64)), None);
        assert!(RecordHash::parse(&"a".repeat(64)).is_some());
    }
}
