//! How commands answer: tables for people, JSON for machines.

use std::io::{self, Write};

use countersign_resource_server::time::UnixTime;
use serde::Serialize;

use super::session::Failure;

/// Where and how a command answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Output {
    /// One JSON value a command; lists are arrays.
    Json,
    /// Tables and sentences.
    People,
}

impl Output {
    /// What was done: a sentence for people, the record for machines.
    ///
    /// # Errors
    /// Standard output cannot be written.
    pub(super) fn done(self, sentence: &str, record: &impl Serialize) -> Result<(), Failure> {
        match self {
            Self::Json => line(&json(record)?),
            Self::People => line(sentence),
        }
    }

    /// One record, field by field.
    ///
    /// # Errors
    /// Standard output cannot be written.
    pub(super) fn record(self, record: &impl Serialize) -> Result<(), Failure> {
        match self {
            Self::Json => line(&json(record)?),
            Self::People => {
                let value = serde_json::to_value(record)?;
                let mut rows = Vec::new();
                flatten("", &value, &mut rows);
                line(&table(&["field", "value"], rows))
            }
        }
    }

    /// Many records.
    ///
    /// # Errors
    /// Standard output cannot be written.
    pub(super) fn list<R: Serialize, const N: usize>(
        self,
        records: &[R],
        columns: [&str; N],
        row: impl Fn(&R) -> [String; N],
    ) -> Result<(), Failure> {
        match self {
            Self::Json => line(&json(&records)?),
            Self::People if records.is_empty() => line("none"),
            Self::People => line(&table(&columns, records.iter().map(|record| row(record).to_vec()).collect())),
        }
    }

    /// Text that is laid out already.
    ///
    /// # Errors
    /// Standard output cannot be written.
    pub(super) fn text(self, text: &str) -> Result<(), Failure> {
        line(text)
    }

    /// What only people are told.
    ///
    /// # Errors
    /// Standard output cannot be written.
    pub(super) fn note(self, text: &str) -> Result<(), Failure> {
        match self {
            Self::Json => Ok(()),
            Self::People => line(text),
        }
    }
}

/// JSON for machines, laid out: instants in RFC 3339, as people have them. Records have them in milliseconds, in stores and
/// wherever servers talk to each other.
pub(super) fn json(value: &impl Serialize) -> serde_json::Result<String> {
    let mut value = serde_json::to_value(value)?;
    write_instants("", &mut value);
    serde_json::to_string_pretty(&value)
}

fn write_instants(name: &str, value: &mut serde_json::Value) {
    match value {
        serde_json::Value::Object(members) => {
            for (name, member) in members {
                write_instants(name, member);
            }
        }
        serde_json::Value::Array(items) => items.iter_mut().for_each(|item| write_instants(name, item)),
        serde_json::Value::Number(number) if is_instant(name) => {
            if let Some(milliseconds) = number.as_i64() {
                *value = UnixTime::from_millis(milliseconds).to_string().into();
            }
        }
        _ => {}
    }
}

fn line(text: &str) -> Result<(), Failure> {
    let written = writeln!(io::stdout().lock(), "{text}");
    match written {
        // `… | head` has seen enough.
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
        other => Ok(other?),
    }
}

fn flatten(prefix: &str, value: &serde_json::Value, rows: &mut Vec<Vec<String>>) {
    match value {
        serde_json::Value::Object(members) => {
            for (name, member) in members {
                let path = if prefix.is_empty() { name.clone() } else { format!("{prefix}.{name}") };
                flatten(&path, member, rows);
            }
        }
        serde_json::Value::Null => {}
        serde_json::Value::Number(number) if is_instant(prefix) => {
            let instant = number.as_i64().map(UnixTime::from_millis);
            rows.push(vec![prefix.to_owned(), instant.map_or_else(|| number.to_string(), |at| at.to_string())]);
        }
        serde_json::Value::String(text) => rows.push(vec![prefix.to_owned(), text.clone()]),
        serde_json::Value::Array(items) if items.iter().all(serde_json::Value::is_string) => {
            let texts: Vec<&str> = items.iter().filter_map(serde_json::Value::as_str).collect();
            rows.push(vec![prefix.to_owned(), texts.join(", ")]);
        }
        other => rows.push(vec![prefix.to_owned(), other.to_string()]),
    }
}

/// Whether the member at `path` of a record is an instant: records have them as milliseconds, nobody who reads them does.
fn is_instant(path: &str) -> bool {
    let name = path.rsplit('.').next().unwrap_or(path);
    matches!(name, "at" | "not_before" | "not_after")
        || ["_at", "_seen", "_from", "_update"].iter().any(|end| name.ends_with(end))
}

/// A table for people, without the line feed at its end.
pub(super) fn table(columns: &[&str], rows: Vec<Vec<String>>) -> String {
    let width = |index: usize| {
        rows.iter()
            .filter_map(|row| row.get(index))
            .map(|cell| printable(cell).chars().count())
            .chain(columns.get(index).map(|column| column.chars().count()))
            .max()
            .unwrap_or(0)
    };
    let widths: Vec<usize> = (0..columns.len()).map(width).collect();
    let written = |cells: Vec<String>| {
        let padded: Vec<String> =
            cells.iter().zip(&widths).map(|(cell, width)| format!("{:<width$}", printable(cell))).collect();
        padded.join("  ").trim_end().to_owned()
    };
    let head = written(columns.iter().map(|column| (*column).to_owned()).collect());
    let lines: Vec<String> = std::iter::once(head).chain(rows.into_iter().map(written)).collect();
    lines.join("\n")
}

/// Names come out of certificates: what a terminal would obey is shown, not sent.
pub(super) fn printable(cell: &str) -> String {
    cell.chars()
        .flat_map(
            |character| {
                if is_obeyed(character) { character.escape_unicode().collect::<Vec<_>>() } else { vec![character] }
            },
        )
        .collect()
}

/// The same for a text in JSON, which stays one of the same value (RFC 8259 section 7): what is not ASCII stands in strings only,
/// and so do control characters, but for the white space between.
pub(super) fn printable_json(text: &str) -> String {
    let mut printable = String::with_capacity(text.len());
    for character in text.chars() {
        match character {
            '\n' => printable.push(character),
            '\r' | '\t' => printable.push(' '),
            _ if is_obeyed(character) => {
                let mut units = [0; 2];
                for unit in character.encode_utf16(&mut units) {
                    printable.push_str(&format!("\\u{unit:04x}"));
                }
            }
            _ => printable.push(character),
        }
    }
    printable
}

/// Control characters, and what turns the direction of writing.
fn is_obeyed(character: char) -> bool {
    let turns =
        matches!(character, '\u{61C}' | '\u{200E}' | '\u{200F}' | '\u{202A}'..='\u{202E}' | '\u{2066}'..='\u{2069}');
    character.is_control() || turns
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_cannot_steer_the_terminal() {
        assert_eq!(printable("a\u{1b}[2Jb\u{202e}c\n"), "a\\u{1b}[2Jb\\u{202e}c\\u{a}");
        assert_eq!(printable("Zürich"), "Zürich");
    }

    #[test]
    fn json_cannot_either_and_says_the_same() {
        let obeyed = "a\u{7f}\u{9b}2J\u{61c}\u{202e}\u{2066}b\\\"\u{1b}";
        let json = serde_json::to_string_pretty(&serde_json::json!({ obeyed: ["Zürich \u{10FFFF}", obeyed] })).unwrap();
        let json = format!("\t{json}\r\n");
        let printed = printable_json(&json);
        let value: serde_json::Value = serde_json::from_str(&printed).unwrap();
        assert_eq!(value, serde_json::from_str::<serde_json::Value>(&json).unwrap());
        assert!(!printed.chars().any(|character| is_obeyed(character) && character != '\n'), "{printed:?}");
        assert!(printed.contains("Zürich") && printed.contains("\\u009b2J\\u061c\\u202e"), "{printed}");
    }

    #[test]
    fn records_are_flattened_without_what_is_not_there() {
        let mut rows = Vec::new();
        flatten("", &serde_json::json!({"a": {"b": "x", "c": null}, "d": ["y", "z"], "e": 1}), &mut rows);
        assert_eq!(rows, [["a.b", "x"], ["d", "y, z"], ["e", "1"]]);
    }

    #[test]
    fn machines_read_the_same_dates() {
        let record = serde_json::json!({
            "keys": [{"signs_from": 1_000, "next": [{"at": -1}]}],
            "at": null, "sequence": 3, "that": 4, "created_at": "text", "expires_at": 1.5,
        });
        let written: serde_json::Value = serde_json::from_str(&json(&record).unwrap()).unwrap();
        let expected = serde_json::json!({
            "keys": [{"signs_from": "1970-01-01T00:00:01.000Z", "next": [{"at": "1969-12-31T23:59:59.999Z"}]}],
            "at": null, "sequence": 3, "that": 4, "created_at": "text", "expires_at": 1.5,
        });
        assert_eq!(written, expected);
    }

    #[test]
    fn people_read_dates() {
        let mut rows = Vec::new();
        let record = serde_json::json!({"not_after": 1_000, "state": {"at": 2_000}, "flat": 3, "last_seen": null});
        flatten("", &record, &mut rows);
        let second = |text: &str| text.replace('?', "1970-01-01T00:00:0");
        assert_eq!(rows, [["not_after", &second("?1.000Z")], ["state.at", &second("?2.000Z")], ["flat", "3"]]);
    }
}
