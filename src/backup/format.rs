//! The lines of a backup.

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use countersign_resource_server::time::UnixTime;
use serde::de::Error as _;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// The first member of the first line; its number changes if the format ever does.
pub(super) const FORMAT: &str = "countersign backup 1";

/// The `typ` of the signature at a backup's end: it can be taken for no token.
pub(super) const BACKUP_TYPE: &str = "countersign-backup+jwt";

/// The first line.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Header {
    pub(super) format: String,
    /// Which schema the tables are of.
    pub schema: i64,
    /// When the look was taken.
    pub at: UnixTime,
    /// Whose registry it is.
    pub issuer: String,
    /// Where the command ran.
    pub node: String,
    /// How far the registry was.
    pub registry: RegistryAt,
    /// Which audit log is in it.
    pub log: String,
    /// Its newest checkpoint: number and instant.
    pub checkpoint: Option<(i64, UnixTime)>,
}

/// How far a registry is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RegistryAt {
    /// Its epoch.
    pub epoch: i64,
    /// Its version.
    pub version: i64,
    /// When it was last changed.
    pub changed_at: Option<UnixTime>,
}

/// Where a table begins: its rows follow, an array each.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct TableLine {
    pub(super) table: String,
    pub(super) columns: Vec<String>,
}

/// The last line.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct EndLine {
    pub(super) tables: u64,
    pub(super) rows: u64,
    /// Of every octet of the lines before, in hexadecimal digits.
    pub(super) sha256: String,
    /// A compact JWS over [`Signed`]; none where no key was at hand.
    pub(super) signature: Option<String>,
}

/// What the signature at the end is over.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Signed {
    pub(super) iss: String,
    pub(super) at: UnixTime,
    pub(super) sha256: String,
}

/// One value of a row: a number, a string, `{"octets": …}` in base64url, or `null`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Cell {
    /// A 64-bit integer.
    Integer(i64),
    /// Nothing.
    Null,
    /// Octets.
    Octets(Vec<u8>),
    /// Text.
    Text(String),
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct OctetsCell {
    octets: String,
}

impl Serialize for Cell {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::Integer(number) => serializer.serialize_i64(*number),
            Self::Null => serializer.serialize_none(),
            Self::Octets(octets) => OctetsCell { octets: URL_SAFE_NO_PAD.encode(octets) }.serialize(serializer),
            Self::Text(text) => serializer.serialize_str(text),
        }
    }
}

impl<'de> Deserialize<'de> for Cell {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        #[derive(Deserialize)]
        #[serde(untagged)]
        enum Value {
            Integer(i64),
            Text(String),
            Octets(OctetsCell),
        }
        Ok(match Option::<Value>::deserialize(deserializer)? {
            None => Self::Null,
            Some(Value::Integer(number)) => Self::Integer(number),
            Some(Value::Text(text)) => Self::Text(text),
            Some(Value::Octets(OctetsCell { octets })) => {
                Self::Octets(URL_SAFE_NO_PAD.decode(octets).map_err(D::Error::custom)?)
            }
        })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn cells() -> impl Strategy<Value = Cell> {
        prop_oneof![
            any::<i64>().prop_map(Cell::Integer),
            Just(Cell::Null),
            any::<Vec<u8>>().prop_map(Cell::Octets),
            any::<String>().prop_map(Cell::Text),
        ]
    }

    proptest! {
        #[test]
        fn a_row_is_read_as_it_was_written(row in proptest::collection::vec(cells(), 0..6)) {
            let line = serde_json::to_string(&row).unwrap();
            prop_assert!(!line.contains('\n'));
            prop_assert_eq!(serde_json::from_str::<Vec<Cell>>(&line).unwrap(), row);
        }
    }

    #[test]
    fn what_is_no_cell_is_refused() {
        for bad in ["1.5", "true", "9223372036854775808", "[]", r#"{"octets":"="}"#, r#"{"octets":"","more":1}"#, "{}"]
        {
            assert!(serde_json::from_str::<Cell>(bad).is_err(), "{bad}");
        }
    }
}
