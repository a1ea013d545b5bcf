//! A case as it is written, and the words it may use.
//!
//! Takes TOML, gives [`Case`]s: one of every row of `each`. It refuses what it does not know, so that a misspelt expectation
//! is an error and never one that always holds. `cases/README.md` says what each word means.

use std::collections::BTreeMap;
use std::fmt;

use serde::Deserialize;
use serde_json::{Map, Value};

use super::certificate::Mint;
use super::template::{self, Names, Unfilled};
use super::token::Forge;
use super::wire::hello::Offer;

/// How much a sentence demands (RFC 2119).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Deserialize)]
pub(crate) enum Level {
    /// A failure fails the run.
    #[serde(rename = "MUST")]
    Must,
    /// A failure is told.
    #[serde(rename = "SHOULD")]
    Should,
}

impl Level {
    pub(crate) const fn as_str(self) -> &'static str {
        match self {
            Self::Must => "MUST",
            Self::Should => "SHOULD",
        }
    }
}

/// Which cases a run asks.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Profile {
    /// Every case.
    #[default]
    Full,
    /// Those that stand for the others.
    Short,
}

/// One requirement.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Case {
    pub(crate) id: String,
    pub(crate) specification: String,
    pub(crate) section: String,
    pub(crate) level: Level,
    pub(crate) title: String,
    pub(crate) sentence: String,
    #[serde(default)]
    pub(crate) profile: Profile,
    #[serde(default)]
    pub(crate) needs: Vec<String>,
    pub(crate) control: Option<String>,
    #[serde(rename = "step")]
    pub(crate) steps: Vec<Step>,
}

/// Something made, sent and judged.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Step {
    #[serde(rename = "use")]
    pub(crate) begins_as: Option<String>,
    pub(crate) to: Option<String>,
    #[serde(rename = "as")]
    pub(crate) party: Option<String>,
    pub(crate) method: Option<String>,
    #[serde(default)]
    pub(crate) query: Vec<(String, String)>,
    pub(crate) form: Option<Vec<(String, String)>>,
    #[serde(default)]
    pub(crate) set: BTreeMap<String, String>,
    #[serde(default)]
    pub(crate) add: Vec<(String, String)>,
    #[serde(default)]
    pub(crate) drop: Vec<String>,
    #[serde(default)]
    pub(crate) headers: BTreeMap<String, OneOrMany>,
    pub(crate) body: Option<String>,
    pub(crate) content_type: Option<String>,
    #[serde(default)]
    pub(crate) mint: BTreeMap<String, Mint>,
    #[serde(default)]
    pub(crate) forge: BTreeMap<String, Forge>,
    pub(crate) hello: Option<Offer>,
    pub(crate) expect: Option<Value>,
    /// Asked again until it holds, for so many seconds.
    pub(crate) within: Option<u64>,
    #[serde(default)]
    pub(crate) capture: BTreeMap<String, String>,
}

/// A field's value, or its values.
#[derive(Clone, Debug, Deserialize)]
#[serde(untagged)]
pub(crate) enum OneOrMany {
    /// Sent once.
    One(String),
    /// Sent as often.
    Many(Vec<String>),
}

impl OneOrMany {
    pub(crate) fn values(&self) -> &[String] {
        match self {
            Self::One(value) => std::slice::from_ref(value),
            Self::Many(values) => values,
        }
    }
}

impl Step {
    /// This step with what it begins as filled in.
    pub(crate) fn upon(&self, words: &Words) -> Result<Self, String> {
        let mut step = self.clone();
        if let Some(name) = &self.begins_as {
            let base = words.request.get(name).ok_or_else(|| format!("no request {name:?} in words.toml"))?;
            step.to = step.to.or_else(|| base.to.clone());
            step.party = step.party.or_else(|| base.party.clone());
            step.method = step.method.or_else(|| base.method.clone());
            step.form = step.form.or_else(|| base.form.clone());
            step.body = step.body.or_else(|| base.body.clone());
            step.content_type = step.content_type.or_else(|| base.content_type.clone());
            for (field, value) in &base.headers {
                step.headers.entry(field.clone()).or_insert_with(|| value.clone());
            }
        }
        Ok(step)
    }

    /// Whether `${name}`, filtered or not, stands in it, in what it begins as, or in a token that it forges from.
    pub(crate) fn mentions(&self, words: &Words, name: &str) -> bool {
        let own = format!("{:?}", self.upon(words));
        let tokens = self.forge.values().filter_map(|forge| words.token.get(forge.from.as_deref()?));
        let texts = tokens.map(|token| format!("{token:?}")).chain([own]);
        let is_named = |inner: &str| inner.split(['}', '|', '?']).next().map(str::trim) == Some(name);
        texts.into_iter().any(|text| text.split("${").skip(1).any(is_named))
    }
}

/// The requests, tokens and expectations that cases name.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Words {
    #[serde(default)]
    pub(crate) request: BTreeMap<String, Step>,
    #[serde(default)]
    pub(crate) token: BTreeMap<String, Forge>,
    #[serde(default)]
    pub(crate) expect: BTreeMap<String, Value>,
}

/// What is wrong with a file of cases.
#[derive(Debug)]
pub(crate) struct CaseError(pub(crate) String);

impl fmt::Display for CaseError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// The cases of one file, one of every row.
pub(crate) fn parse(file: &str, text: &str) -> Result<Vec<Case>, CaseError> {
    #[derive(Deserialize)]
    #[serde(deny_unknown_fields)]
    struct File {
        case: Vec<Map<String, Value>>,
    }
    let read: File = toml::from_str(text).map_err(|error| CaseError(format!("{file}: {error}")))?;
    let mut cases = Vec::new();
    for mut written in read.case {
        let id = written.get("id").and_then(Value::as_str).unwrap_or("a case without id").to_owned();
        let wrong = |why: &dyn fmt::Display| CaseError(format!("{file}: {id}: {why}"));
        let rows = match written.remove("each") {
            None => vec![Map::new()],
            Some(rows) => serde_json::from_value(rows).map_err(|error| wrong(&error))?,
        };
        for row in rows {
            let filled = expand(&Value::Object(written.clone()), &row).map_err(|why| wrong(&why))?;
            cases.push(serde_json::from_value(filled).map_err(|error| wrong(&error))?);
        }
    }
    Ok(cases)
}

/// The words of `words.toml`.
pub(crate) fn parse_words(text: &str) -> Result<Words, CaseError> {
    toml::from_str(text).map_err(|error| CaseError(format!("words.toml: {error}")))
}

/// A case with one row of `each` put in. Every other `${…}` stays as it is.
fn expand(value: &Value, row: &Map<String, Value>) -> Result<Value, Unfilled> {
    Ok(match value {
        Value::String(text) if text.contains("${each.") => expand_text(text, row)?,
        Value::Array(elements) => {
            elements.iter().map(|element| expand(element, row)).collect::<Result<Vec<_>, _>>()?.into()
        }
        Value::Object(members) => {
            let mut filled = Map::new();
            for (name, value) in members {
                let name = template::plain(&expand_text(name, row)?);
                filled.insert(name, expand(value, row)?);
            }
            filled.into()
        }
        other => other.clone(),
    })
}

fn expand_text(text: &str, row: &Map<String, Value>) -> Result<Value, Unfilled> {
    struct Row<'a>(&'a Map<String, Value>);
    impl Names for Row<'_> {
        fn value(&self, name: &str) -> Option<Value> {
            self.0.get(name.strip_prefix("each.")?).cloned()
        }
    }
    // Whole: the value as it is. Else one `${each.…}` after the other, the rest untouched.
    if let Some(inner) = text.strip_prefix("${each.").and_then(|rest| rest.strip_suffix('}'))
        && !inner.contains(['{', '}'])
    {
        return template::fill(text, &Row(row));
    }
    let mut out = String::new();
    let mut rest = text;
    while let Some((before, after)) = rest.split_once("${each.") {
        let (name, after) = after.split_once('}').ok_or(Unfilled::Open)?;
        out.push_str(before);
        out.push_str(&template::fill_text(&format!("${{each.{name}}}"), &Row(row))?);
        rest = after;
    }
    out.push_str(rest);
    Ok(out.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    const HEAD: &str = "[[case]]\nid = \"a-${each.name}\"\nspecification = \"RFC 1\"\nsection = \"1\"\nlevel = \"MUST\"\n\
        title = \"t\"\nsentence = \"s\"\n";

    #[test]
    fn each_row_is_a_case_and_keeps_the_types_of_its_members() {
        let text = format!(
            "{HEAD}each = [{{ name = \"x\", value = 7 }}, {{ name = \"y\", value = \"${{now}}\" }}]\n[[case.step]]\n\
             expect = {{ json = {{ a = \"${{each.value}}\", b = \"${{each.value}}-${{issuer}}\" }} }}\n"
        );
        let cases = parse("f", &text).unwrap();
        assert_eq!(cases.iter().map(|case| case.id.as_str()).collect::<Vec<_>>(), ["a-x", "a-y"]);
        let expected = |case: usize| cases[case].steps[0].expect.clone().unwrap()["json"].clone();
        assert_eq!(expected(0)["a"], 7);
        assert_eq!(expected(0)["b"], "7-${issuer}");
        assert_eq!(expected(1)["a"], "${now}");
    }

    #[test]
    fn a_step_mentions_what_stands_in_its_words_too() {
        let words = "request.a = { body = \"${trap|upper}\" }\ntoken.b.claims.set = { jku = [\"https://${trap}/\"] }";
        let words = parse_words(words).unwrap();
        let mentions = |step: &str| toml::from_str::<Step>(step).unwrap().mentions(&words, "trap");
        for step in ["use = \"a\"", "forge.x.from = \"b\"", "headers = { a = \"${trap?}\" }", "to = \"${trap}\""] {
            assert!(mentions(step), "{step}");
        }
        for step in ["to = \"trap\"", "body = \"${trapped} ${random}\"", "forge.x.from = \"${b}\""] {
            assert!(!mentions(step), "{step}");
        }
    }

    #[test]
    fn what_is_misspelt_is_refused() {
        for text in [
            "[[case]]\nid = \"a\"\n".to_owned(),
            format!("{HEAD}each = [{{ name = \"x\" }}]\nmay = 1\n[[case.step]]\n"),
            format!("{HEAD}each = [{{ name = \"x\" }}]\n[[case.step]]\nexpects = \"refused\"\n"),
            format!("{HEAD}each = [{{ other = \"x\" }}]\n[[case.step]]\n"),
            format!("{HEAD}[[case.step]]\n"),
        ] {
            assert!(parse("f", &text).is_err(), "{text}");
        }
    }
}
