//! The lines of an export: one way to write each, and nothing else is read.
//!
//! Takes a line, gives what it says. Whoever reads it writes it again and compares, so that two different files never say the same.

use countersign_resource_server::time::UnixTime;
use serde::{Deserialize, Serialize};

use crate::audit::chain::{ChainId, Head, LogId, Position, RecordHash};

/// The first member of the first line; its number changes if the format ever does.
pub(super) const FORMAT: &str = "countersign audit export 1";

/// The first line.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Header {
    pub(super) format: String,
    pub(super) log: String,
    /// The checkpoint it begins after; none where nothing was removed before.
    pub(super) cut: Option<i64>,
    /// The checkpoint it ends with.
    pub(super) checkpoint: i64,
}

/// A checkpoint.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct CheckpointLine {
    pub(super) checkpoint: String,
}

/// Where a chain begins: its records follow.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct ChainLine {
    pub(super) chain: i64,
    pub(super) after: i64,
    pub(super) hash: String,
}

/// The last line.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct End {
    pub(super) checkpoints: u64,
    pub(super) chains: u64,
    pub(super) records: u64,
}

/// One record, its body as it is stored.
#[derive(Clone, Copy, Debug)]
pub(super) struct RecordLine<'a> {
    pub(super) sequence: i64,
    pub(super) at: UnixTime,
    pub(super) hash: RecordHash,
    pub(super) body: &'a str,
}

/// Reads a line; none where this is not exactly how it is written.
pub(super) fn parse<'a, T: Serialize + Deserialize<'a>>(line: &'a str) -> Option<T> {
    let read = serde_json::from_str(line).ok()?;
    (written(&read) == line).then_some(read)
}

/// Writes a line, without the line feed at its end.
#[expect(clippy::expect_used, reason = "strings and numbers always have a JSON form")]
pub(super) fn written<T: Serialize>(line: &T) -> String {
    serde_json::to_string(line).expect("a line has a JSON form")
}

impl Header {
    pub(super) fn new(log: LogId, cut: Option<i64>, checkpoint: i64) -> Self {
        Self { format: FORMAT.to_owned(), log: log.to_string(), cut, checkpoint }
    }
}

impl ChainLine {
    pub(super) fn of(head: &Head) -> Self {
        Self { chain: head.chain().number(), after: head.position.sequence(), hash: head.hash.to_string() }
    }

    pub(super) fn head(&self) -> Option<Head> {
        let position = Position::of(ChainId::new(self.chain)?, self.after)?;
        Some(Head { position, hash: RecordHash::parse(&self.hash)? })
    }
}

const SEQUENCE: &str = r#"{"sequence":"#;
const AT: &str = r#","at":"#;
const HASH: &str = r#","hash":""#;
const BODY: &str = r#"","body":"#;

impl<'a> RecordLine<'a> {
    /// Whether a line is to be one.
    pub(super) fn is_one(line: &str) -> bool {
        line.starts_with(SEQUENCE)
    }

    /// Reads a line. Its body is whatever the hash covers: nothing has to be believed of it here.
    pub(super) fn parse(line: &'a str) -> Option<Self> {
        let (sequence, rest) = line.strip_prefix(SEQUENCE)?.split_once(AT)?;
        let (at, rest) = rest.split_once(HASH)?;
        let (hash, rest) = rest.split_at_checked(64)?;
        let body = rest.strip_prefix(BODY)?.strip_suffix('}')?;
        Some(Self {
            sequence: number(sequence)?,
            at: UnixTime::from_millis(number(at)?),
            hash: RecordHash::parse(hash)?,
            body,
        })
    }

    /// Writes it, with the line feed at its end.
    pub(super) fn write(&self, to: &mut impl std::io::Write) -> std::io::Result<()> {
        let Self { sequence, at, hash, body } = self;
        writeln!(to, "{SEQUENCE}{sequence}{AT}{}{HASH}{hash}{BODY}{body}}}", at.as_millis())
    }
}

/// A number in the one way it is written.
fn number(text: &str) -> Option<i64> {
    let number: i64 = text.parse().ok()?;
    (number.to_string() == text).then_some(number)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_record_has_one_form() {
        let hash = "ab".repeat(32);
        let line = format!(r#"{{"sequence":7,"at":-5,"hash":"{hash}","body":{{"kind":"x","at":1}}}}"#);
        let read = RecordLine::parse(&line).unwrap();
        assert_eq!((read.sequence, read.at.as_millis(), read.body), (7, -5, r#"{"kind":"x","at":1}"#));
        let mut again = Vec::new();
        read.write(&mut again).unwrap();
        assert_eq!(again, format!("{line}\n").as_bytes());
        for (from, to) in [
            ("7", "07"),
            ("7", "+7"),
            ("-5", "-05"),
            (":7", ": 7"),
            ("sequence", "Sequence"),
            ("\"hash\"", " \"hash\""),
            ("abab", "ABab"),
            ("abab", "ab"),
            ("body", "bodY"),
        ] {
            let other = line.replacen(from, to, 1);
            assert!(RecordLine::parse(&other).is_none(), "{other}");
        }
        assert!(
            RecordLine::parse(line.strip_suffix('}').unwrap()).is_some_and(|read| read.body.ends_with("1")),
            "the hash says no"
        );
    }

    #[test]
    fn other_lines_have_one_form_as_well() {
        let line = r#"{"checkpoints":1,"chains":2,"records":3}"#;
        assert_eq!(parse::<End>(line), Some(End { checkpoints: 1, chains: 2, records: 3 }));
        for other in [
            r#"{"checkpoints":1,"chains":2,"records":3} "#,
            r#"{"checkpoints":1,"records":3,"chains":2}"#,
            r#"{"checkpoints":1,"chains":2,"records":3,"more":1}"#,
            r#"{"checkpoints":1,"chains":2,"records":3.0}"#,
            r#"{"checkpoints":1,"chains":2}"#,
        ] {
            assert_eq!(parse::<End>(other), None, "{other}");
        }
    }
}
