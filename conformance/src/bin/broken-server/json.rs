//! JSON that may name something twice.
//!
//! RFC 7515 §4 and RFC 7519 §4 leave a choice: refuse, or take the last. This server takes the last; by a defect, the first.

use std::fmt;

use serde::de::{Deserialize, Deserializer, Error, MapAccess, SeqAccess, Visitor};
use serde_json::{Map, Value};

/// Which of two members of one name counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Twice {
    /// The first.
    First,
    /// The last.
    Last,
}

/// The object that these octets are.
pub(crate) fn object(octets: &[u8], twice: Twice) -> Option<Map<String, Value>> {
    match serde_json::from_slice::<Tree>(octets).ok()?.value(twice) {
        Value::Object(object) => Some(object),
        _ => None,
    }
}

/// A value with every member of every object in it, however often it is named.
#[derive(Debug)]
enum Tree {
    Leaf(Value),
    Array(Vec<Self>),
    Object(Vec<(String, Self)>),
}

impl Tree {
    fn value(self, twice: Twice) -> Value {
        match self {
            Self::Leaf(value) => value,
            Self::Array(items) => items.into_iter().map(|item| item.value(twice)).collect(),
            Self::Object(pairs) => {
                let mut object = Map::new();
                for (name, value) in pairs {
                    if twice == Twice::Last || !object.contains_key(&name) {
                        object.insert(name, value.value(twice));
                    }
                }
                Value::Object(object)
            }
        }
    }
}

impl<'de> Deserialize<'de> for Tree {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(TreeVisitor)
    }
}

struct TreeVisitor;

impl<'de> Visitor<'de> for TreeVisitor {
    type Value = Tree;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("JSON")
    }

    fn visit_bool<E: Error>(self, value: bool) -> Result<Tree, E> {
        Ok(Tree::Leaf(value.into()))
    }

    fn visit_i64<E: Error>(self, value: i64) -> Result<Tree, E> {
        Ok(Tree::Leaf(value.into()))
    }

    fn visit_u64<E: Error>(self, value: u64) -> Result<Tree, E> {
        Ok(Tree::Leaf(value.into()))
    }

    fn visit_f64<E: Error>(self, value: f64) -> Result<Tree, E> {
        Ok(Tree::Leaf(value.into()))
    }

    fn visit_str<E: Error>(self, value: &str) -> Result<Tree, E> {
        Ok(Tree::Leaf(value.into()))
    }

    fn visit_unit<E: Error>(self) -> Result<Tree, E> {
        Ok(Tree::Leaf(Value::Null))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Tree, A::Error> {
        let mut all = Vec::new();
        while let Some(item) = items.next_element()? {
            all.push(item);
        }
        Ok(Tree::Array(all))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut members: A) -> Result<Tree, A::Error> {
        let mut all = Vec::new();
        while let Some(member) = members.next_entry()? {
            all.push(member);
        }
        Ok(Tree::Object(all))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn of_two_members_one_counts_at_every_depth() {
        let octets = br#"{"a":{"b":1,"b":"x"},"c":[{"d":null,"d":true}],"a2":-1,"e":1.5}"#;
        let last = Value::Object(object(octets, Twice::Last).unwrap());
        assert_eq!(last, serde_json::from_slice::<Value>(octets).unwrap());
        let first = Value::Object(object(octets, Twice::First).unwrap());
        assert_eq!(first["a"]["b"], 1);
        assert_eq!(first["c"][0]["d"], Value::Null);
        assert!(object(b"[]", Twice::Last).is_none());
        assert!(object(b"{} {}", Twice::Last).is_none());
    }
}
