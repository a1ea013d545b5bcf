//! Does this JSON mean one thing only?
//!
//! Takes bytes, gives an object in which every member name occurs once, at every depth: two readers of it cannot come to
//! two answers (RFC 8259 §4 leaves doubled names open; RFC 7515 §4 and RFC 7519 §4 let a reader refuse them, and this one
//! does). It knows nothing of what the members mean. Whoever reads into a structure of its own asks [`member_names`] first,
//! which keeps nothing but names.

use std::borrow::Cow;
use std::fmt;

use serde::Deserialize;
use serde::de::{self, DeserializeSeed, MapAccess, SeqAccess, Visitor};
use serde_json::{Map, Number, Value};

/// How deep objects and arrays may nest; the outermost object is the first level.
pub const MAX_DEPTH: usize = 16;

/// How many members the outermost object has room for from the start: as many as a token says. It counts where maps keep the order
/// of their members, as josekit has them do in every program that has it.
const CLAIMS: usize = 16;

/// Reads one JSON object and nothing after it.
///
/// # Errors
/// [`AmbiguousJson`] if the bytes are not one JSON object in UTF-8, nest deeper than [`MAX_DEPTH`], or name a member
/// twice (names are compared after their escapes are resolved).
pub fn parse_object(bytes: &[u8]) -> Result<Map<String, Value>, AmbiguousJson> {
    let mut deserializer = serde_json::Deserializer::from_slice(bytes);
    let value = Strict { depth: MAX_DEPTH }.deserialize(&mut deserializer).map_err(|_| AmbiguousJson)?;
    deserializer.end().map_err(|_| AmbiguousJson)?;
    match value {
        Value::Object(object) => Ok(object),
        _ => Err(AmbiguousJson),
    }
}

/// The names of an object's members, sorted: of JSON that [`parse_object`] takes, and of no other.
///
/// # Errors
/// As [`parse_object`].
pub(super) fn member_names(bytes: &[u8]) -> Result<Vec<Cow<'_, str>>, AmbiguousJson> {
    let mut deserializer = serde_json::Deserializer::from_slice(bytes);
    let names = Scan { depth: MAX_DEPTH }.deserialize(&mut deserializer).map_err(|_| AmbiguousJson)?;
    deserializer.end().map_err(|_| AmbiguousJson)?;
    names.ok_or(AmbiguousJson)
}

/// The bytes are not one JSON object with every member named once.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not one JSON object with every member named once")]
pub struct AmbiguousJson;

fn one_level_less<E: de::Error>(depth: usize) -> Result<usize, E> {
    depth.checked_sub(1).ok_or_else(|| E::custom("nested too deep"))
}

struct Strict {
    depth: usize,
}

impl Strict {
    fn deeper<E: de::Error>(&self) -> Result<Self, E> {
        one_level_less(self.depth).map(|depth| Self { depth })
    }
}

impl<'de> DeserializeSeed<'de> for Strict {
    type Value = Value;

    fn deserialize<D: de::Deserializer<'de>>(self, deserializer: D) -> Result<Value, D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Strict {
    type Value = Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("JSON with every member named once")
    }

    fn visit_bool<E>(self, value: bool) -> Result<Value, E> {
        Ok(Value::Bool(value))
    }

    fn visit_i64<E>(self, value: i64) -> Result<Value, E> {
        Ok(Value::Number(value.into()))
    }

    fn visit_u64<E>(self, value: u64) -> Result<Value, E> {
        Ok(Value::Number(value.into()))
    }

    fn visit_f64<E: de::Error>(self, value: f64) -> Result<Value, E> {
        Number::from_f64(value).map(Value::Number).ok_or_else(|| E::custom("not a number"))
    }

    fn visit_str<E>(self, value: &str) -> Result<Value, E> {
        Ok(Value::String(value.to_owned()))
    }

    fn visit_string<E>(self, value: String) -> Result<Value, E> {
        Ok(Value::String(value))
    }

    fn visit_unit<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut access: A) -> Result<Value, A::Error> {
        let mut values = Vec::new();
        while let Some(value) = access.next_element_seed(self.deeper()?)? {
            values.push(value);
        }
        Ok(Value::Array(values))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut access: A) -> Result<Value, A::Error> {
        let mut members = Map::with_capacity(if self.depth == MAX_DEPTH { CLAIMS } else { 0 });
        while let Some(name) = access.next_key::<String>()? {
            let value = access.next_value_seed(self.deeper()?)?;
            if members.insert(name, value).is_some() {
                return Err(de::Error::custom("member named twice"));
            }
        }
        Ok(Value::Object(members))
    }
}

/// Passes over JSON by the rules of [`Strict`]; gives the names where it is an object.
struct Scan {
    depth: usize,
}

impl Scan {
    fn deeper<E: de::Error>(&self) -> Result<Self, E> {
        one_level_less(self.depth).map(|depth| Self { depth })
    }
}

impl<'de> DeserializeSeed<'de> for Scan {
    type Value = Option<Vec<Cow<'de, str>>>;

    fn deserialize<D: de::Deserializer<'de>>(self, deserializer: D) -> Result<Self::Value, D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Scan {
    type Value = Option<Vec<Cow<'de, str>>>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("JSON with every member named once")
    }

    fn visit_bool<E>(self, _: bool) -> Result<Self::Value, E> {
        Ok(None)
    }

    fn visit_i64<E>(self, _: i64) -> Result<Self::Value, E> {
        Ok(None)
    }

    fn visit_u64<E>(self, _: u64) -> Result<Self::Value, E> {
        Ok(None)
    }

    fn visit_f64<E: de::Error>(self, value: f64) -> Result<Self::Value, E> {
        if value.is_finite() { Ok(None) } else { Err(E::custom("not a number")) }
    }

    fn visit_str<E>(self, _: &str) -> Result<Self::Value, E> {
        Ok(None)
    }

    fn visit_unit<E>(self) -> Result<Self::Value, E> {
        Ok(None)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut access: A) -> Result<Self::Value, A::Error> {
        while access.next_element_seed(self.deeper()?)?.is_some() {}
        Ok(None)
    }

    fn visit_map<A: MapAccess<'de>>(self, mut access: A) -> Result<Self::Value, A::Error> {
        let mut names = Vec::with_capacity(if self.depth == MAX_DEPTH { CLAIMS } else { 0 });
        while let Some(Name(name)) = access.next_key()? {
            access.next_value_seed(self.deeper()?)?;
            names.push(name);
        }
        // Sorted, because somebody may send thousands.
        names.sort_unstable();
        if names.is_sorted_by(|one, next| one < next) {
            Ok(Some(names))
        } else {
            Err(de::Error::custom("member named twice"))
        }
    }
}

/// A name as it stands in the text, unless it has escapes.
struct Name<'de>(Cow<'de, str>);

impl<'de> Deserialize<'de> for Name<'de> {
    fn deserialize<D: de::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Text;

        impl<'de> Visitor<'de> for Text {
            type Value = Name<'de>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a name")
            }

            fn visit_borrowed_str<E>(self, name: &'de str) -> Result<Self::Value, E> {
                Ok(Name(Cow::Borrowed(name)))
            }

            fn visit_str<E>(self, name: &str) -> Result<Self::Value, E> {
                Ok(Name(Cow::Owned(name.to_owned())))
            }
        }
        deserializer.deserialize_str(Text)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn doubled_members_are_refused_at_every_depth() {
        for wrong in [
            r#"{"a":1,"a":1}"#,
            r#"{"a":1,"\u0061":2}"#,
            r#"{"x":{"a":1,"a":2}}"#,
            r#"{"x":[{"a":1,"b":0,"a":2}]}"#,
            r#"{"x":[[{"a":null,"a":null}]]}"#,
        ] {
            assert_eq!(parse_object(wrong.as_bytes()), Err(AmbiguousJson), "{wrong}");
            assert_eq!(member_names(wrong.as_bytes()), Err(AmbiguousJson), "{wrong}");
        }
        let names = br#"{"a":{"a":{"a":1}},"A":2,"a ":3}"#;
        assert!(parse_object(names).is_ok());
        assert_eq!(member_names(names).unwrap(), ["A", "a", "a "]);
    }

    #[test]
    fn only_one_object_is_taken() {
        for wrong in [
            "",
            " ",
            "[]",
            "1",
            "null",
            "\"a\"",
            "{}{}",
            "{} x",
            "{",
            "{\"a\":}",
            "{\"a\":1,}",
            "{'a':1}",
            "\u{feff}{}",
            "{\"a\":NaN}",
            "{\"a\":01}",
            "{\"a\":\"\\ud800\"}",
            "{\"a\":\"\n\"}",
            "// c\n{}",
        ] {
            assert_eq!(parse_object(wrong.as_bytes()), Err(AmbiguousJson), "{wrong:?}");
            assert_eq!(member_names(wrong.as_bytes()), Err(AmbiguousJson), "{wrong:?}");
        }
        for wrong in [b"{\"a\":\"\xff\"}".as_slice(), b"{\"\xc0\x80\":1}", b"{\"a\":1e999}"] {
            assert_eq!(parse_object(wrong), Err(AmbiguousJson), "{wrong:?}");
            assert_eq!(member_names(wrong), Err(AmbiguousJson), "{wrong:?}");
        }
        assert_eq!(parse_object(b" \t\r\n{ } \n").unwrap().len(), 0);
    }

    #[test]
    fn nesting_ends_at_the_limit() {
        let nested = |levels: usize| format!("{}{}{}", "{\"a\":".repeat(levels), 1, "}".repeat(levels));
        assert!(parse_object(nested(MAX_DEPTH).as_bytes()).is_ok());
        assert!(member_names(nested(MAX_DEPTH).as_bytes()).is_ok());
        for deep in [nested(MAX_DEPTH + 1), format!("{{\"a\":{}", "[".repeat(100_000))] {
            assert_eq!(parse_object(deep.as_bytes()), Err(AmbiguousJson));
            assert_eq!(member_names(deep.as_bytes()), Err(AmbiguousJson));
        }
    }

    fn any_json() -> impl Strategy<Value = Value> {
        let leaf = prop_oneof![
            Just(Value::Null),
            any::<bool>().prop_map(Value::from),
            any::<i64>().prop_map(Value::from),
            any::<u64>().prop_map(Value::from),
            ".{0,12}".prop_map(Value::from),
        ];
        leaf.prop_recursive(4, 32, 4, |inner| {
            prop_oneof![
                prop::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
                prop::collection::btree_map(".{0,6}", inner, 0..4)
                    .prop_map(|members| members.into_iter().collect::<Value>()),
            ]
        })
    }

    proptest! {
        #[test]
        fn what_serde_json_writes_is_read_back(members in prop::collection::btree_map(".{0,6}", any_json(), 0..5)) {
            let object: Map<String, Value> = members.into_iter().collect();
            let text = serde_json::to_vec(&object).unwrap();
            let mut names: Vec<String> = object.keys().cloned().collect();
            names.sort_unstable();
            prop_assert_eq!(member_names(&text).unwrap(), names);
            prop_assert_eq!(parse_object(&text), Ok(object));
        }

        #[test]
        fn hostile_bytes_are_answered(bytes in prop::collection::vec(any::<u8>(), 0..64)) {
            if let Ok(object) = parse_object(&bytes) {
                // What is taken here is taken by any JSON reader, and means the same to it.
                prop_assert_eq!(serde_json::from_slice::<Map<String, Value>>(&bytes).unwrap(), object);
            }
            prop_assert_eq!(member_names(&bytes).is_ok(), parse_object(&bytes).is_ok());
        }

        /// Text that is nearly an object, with few letters, so that names meet.
        #[test]
        fn names_are_told_of_what_is_taken_and_of_nothing_else(text in r#"\{("[ab]{0,2}|"\\u0061|[:,\[\]{}1.e-]|"|null){0,24}\}"#) {
            let taken = parse_object(text.as_bytes()).map(|object| {
                let mut names: Vec<String> = object.keys().cloned().collect();
                names.sort_unstable();
                names
            });
            let told = member_names(text.as_bytes());
            prop_assert_eq!(told.map(|names| names.into_iter().map(Cow::into_owned).collect()), taken);
        }
    }
}
