//! What may come back, and whether it did.
//!
//! Takes an expectation as a case writes it and an [`Answer`], gives nothing or, in words, what did not hold. Of alternatives
//! one has to hold; in a table everything. It knows nothing of how the answer was got.

/// Matchers of single values.
pub(crate) mod matcher;

/// `WWW-Authenticate`.
mod challenge;

/// Lists in fields.
mod list;

use std::collections::BTreeMap;

use serde::Deserialize;
use serde_json::Value;

use super::case::Words;
use super::jws;
use super::wire::hello::Heard;
use super::wire::{Answer, Response};
use matcher::matches;

/// Everything that has to hold.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Expectation {
    #[serde(default)]
    is: Vec<String>,
    status: Option<Value>,
    tls: Option<String>,
    #[serde(default)]
    headers: BTreeMap<String, Value>,
    challenge: Option<BTreeMap<String, Value>>,
    json: Option<BTreeMap<String, Value>>,
    body: Option<Value>,
    jwt: Option<Jwt>,
    fetched: Option<bool>,
    hello: Option<Hello>,
}

/// A token in the answer.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Jwt {
    of: String,
    #[serde(default)]
    signed: bool,
    #[serde(default)]
    header: BTreeMap<String, Value>,
    #[serde(default)]
    claims: BTreeMap<String, Value>,
}

/// What a ServerHello says.
#[derive(Debug, Deserialize)]
#[serde(untagged)]
enum Hello {
    Refused(String),
    Chosen(Chosen),
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Chosen {
    version: Option<Value>,
    cipher: Option<Value>,
}

/// What an expectation is judged with.
pub(crate) struct Sight<'a> {
    pub(crate) words: &'a Words,
    /// The target's published keys.
    pub(crate) jwks: &'a Value,
    /// The judge's clock, in seconds.
    pub(crate) now: i64,
    /// Whether anybody connected to the trap since the case began.
    pub(crate) fetched: bool,
}

/// Why an expectation is not met.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Unmet {
    /// Something else came back.
    Failed(String),
    /// It could not be judged: with what was filled in it cannot be read or always holds, or there was nothing to fill in.
    Unjudged(String),
}

impl From<String> for Unmet {
    fn from(why: String) -> Self {
        Self::Failed(why)
    }
}

/// Says what did not hold. `fill` puts values into `${…}`.
pub(crate) fn judge(
    expected: &Value,
    answer: &Answer,
    sight: &Sight<'_>,
    fill: &dyn Fn(&Value) -> Result<Value, String>,
) -> Result<(), Unmet> {
    match expected {
        Value::String(name) => {
            let unknown = || Unmet::Unjudged(format!("no expectation {name:?}"));
            let named = sight.words.expect.get(name).ok_or_else(unknown)?;
            judge(named, answer, sight, fill)
        }
        Value::Array(alternatives) => {
            let mut whys = Vec::new();
            for alternative in alternatives {
                match judge(alternative, answer, sight, fill) {
                    Ok(()) => return Ok(()),
                    Err(Unmet::Failed(why)) if whys.contains(&why) => {}
                    Err(Unmet::Failed(why)) => whys.push(why),
                    Err(unjudged) => return Err(unjudged),
                }
            }
            Err(Unmet::Failed(whys.join("; nor: ")))
        }
        // Read again: what says something as it is written may say nothing with the values of this target.
        other => {
            let filled = fill(other).map_err(Unmet::Unjudged)?;
            if is_displaced(other, &filled) {
                return Err(Unmet::Unjudged("an object was filled in where a value was to be compared".to_owned()));
            }
            table(&read(&filled).map_err(Unmet::Unjudged)?, answer, sight, fill)
        }
    }
}

/// Whether an expectation, with every other that it names, can be read: asked when cases are loaded, so that a misspelt one
/// never runs.
pub(crate) fn check(expected: &Value, words: &Words) -> Result<(), String> {
    check_within(expected, words, &[])
}

/// `within` are the names that led here: one that comes back to itself would be judged for ever.
fn check_within(expected: &Value, words: &Words, within: &[&str]) -> Result<(), String> {
    let named = |name: &str| {
        let meaning = words.expect.get(name).ok_or_else(|| format!("no expectation {name:?}"))?;
        if within.contains(&name) {
            return Err(format!("the expectation {name:?} rests on itself"));
        }
        check_within(meaning, words, &[within, &[name]].concat())
    };
    match expected {
        Value::String(name) => named(name),
        Value::Array(alternatives) => {
            alternatives.iter().try_for_each(|alternative| check_within(alternative, words, within))
        }
        other => read(other)?.is.iter().try_for_each(|name| named(name)),
    }
}

/// Whether an object stands where a text was written: one that the target chose would be read as a matcher.
fn is_displaced(written: &Value, filled: &Value) -> bool {
    match (written, filled) {
        (Value::String(_), Value::Object(_)) => true,
        (Value::Object(written), Value::Object(filled)) => {
            written.iter().any(|(name, written)| filled.get(name).is_some_and(|filled| is_displaced(written, filled)))
        }
        _ => false,
    }
}

fn is_empty(value: &Value) -> bool {
    value.as_array().is_some_and(Vec::is_empty) || value.as_object().is_some_and(serde_json::Map::is_empty)
}

/// A table, of which no part always holds.
fn read(value: &Value) -> Result<Expectation, String> {
    let expectation =
        Expectation::deserialize(value).map_err(|error| format!("an expectation that cannot be read: {error}"))?;
    let members = value.as_object().ok_or("an expectation is a table")?;
    if members.is_empty() || ["is", "headers"].iter().any(|name| members.get(*name).is_some_and(is_empty)) {
        return Err("an expectation that always holds".to_owned());
    }
    // There is no response that anything else could be asked of.
    let of_the_connection = |name: &String| matches!(name.as_str(), "tls" | "hello");
    let beside = |name: &String| matches!(name.as_str(), "is" | "fetched");
    if members.keys().any(of_the_connection) && members.keys().filter(|name| !beside(name)).count() > 1 {
        return Err("tls and hello stand beside is and fetched alone".to_owned());
    }
    if let Some(status) = &expectation.status {
        status_is(status, 0)?;
    }
    if expectation.tls.as_deref().is_some_and(|word| word != "refused") {
        return Err("tls: only \"refused\" can be asked for".to_owned());
    }
    let mut matchers: Vec<&Value> = expectation.headers.values().chain(&expectation.body).collect();
    matchers.extend(expectation.challenge.iter().chain(&expectation.json).flat_map(BTreeMap::values));
    matchers.extend(expectation.jwt.iter().flat_map(|jwt| jwt.header.values().chain(jwt.claims.values())));
    match &expectation.hello {
        Some(Hello::Chosen(chosen)) => matchers.extend(chosen.version.iter().chain(&chosen.cipher)),
        Some(Hello::Refused(word)) if word != "refused" => return Err(format!("hello: {word:?}")),
        _ => {}
    }
    matchers.into_iter().try_for_each(matcher::check)?;
    Ok(expectation)
}

fn table(
    expected: &Expectation,
    answer: &Answer,
    sight: &Sight<'_>,
    fill: &dyn Fn(&Value) -> Result<Value, String>,
) -> Result<(), Unmet> {
    for name in &expected.is {
        judge(&Value::from(name.as_str()), answer, sight, fill)?;
    }
    if expected.fetched.is_some_and(|fetched| fetched != sight.fetched) {
        return Err(Unmet::Failed("the target connected to an address that stood in what it was sent".to_owned()));
    }
    if let Some(hello) = &expected.hello {
        return Ok(heard(hello, answer, sight)?);
    }
    if expected.tls.is_some() {
        return match answer {
            Answer::Refused(_) => Ok(()),
            other => Err(format!("the connection was to be refused, but {}", told(other)).into()),
        };
    }
    let asks_for_a_response = expected.status.is_some()
        || !expected.headers.is_empty()
        || expected.challenge.is_some()
        || expected.json.is_some()
        || expected.body.is_some()
        || expected.jwt.is_some();
    if !asks_for_a_response {
        return Ok(());
    }
    let Answer::Response(response) = answer else {
        return Err(format!("a response was expected, but {}", told(answer)).into());
    };
    if let Some(status) = &expected.status
        && !status_is(status, response.status)?
    {
        return Err(format!("status {} in place of {}", response.status, shown(status)).into());
    }
    Ok(response_holds(expected, response, sight)?)
}

fn response_holds(expected: &Expectation, response: &Response, sight: &Sight<'_>) -> Result<(), String> {
    for (name, wanted) in &expected.headers {
        let value = response.header(name).map(Value::from);
        matches(wanted, value.as_ref(), sight.now).map_err(|why| format!("header {name}: {why}"))?;
    }
    if let Some(parameters) = &expected.challenge {
        let found = challenge::bearer(response).ok_or("no Bearer challenge in WWW-Authenticate")?;
        for (name, wanted) in parameters {
            let value = found.get(name).map(|value| Value::from(value.as_str()));
            matches(wanted, value.as_ref(), sight.now).map_err(|why| format!("challenge parameter {name}: {why}"))?;
        }
    }
    let body: Result<Value, _> = serde_json::from_str(&response.body);
    if let Some(members) = &expected.json {
        let object = body.as_ref().ok().filter(|value| value.is_object());
        let object = object.ok_or("the body is not a JSON object")?;
        members_hold(members, object, sight.now)?;
    }
    if let Some(wanted) = &expected.body {
        matches(wanted, Some(&response.body.as_str().into()), sight.now).map_err(|why| format!("body: {why}"))?;
    }
    if let Some(jwt) = &expected.jwt {
        let token = match jwt.of.as_str() {
            "body" => Some(response.body.trim()),
            pointer if pointer.starts_with('/') => {
                body.as_ref().ok().and_then(|body| body.pointer(pointer)).and_then(Value::as_str)
            }
            token => Some(token),
        };
        let token = token.ok_or_else(|| format!("the answer has no {}", jwt.of))?;
        let (header, claims) = jws::decode(token).ok_or("the token is not a JWT")?;
        members_hold(&jwt.header, &header, sight.now).map_err(|why| format!("JWT header: {why}"))?;
        members_hold(&jwt.claims, &claims, sight.now).map_err(|why| format!("JWT claims: {why}"))?;
        if jwt.signed {
            jws::verify(token, sight.jwks)?;
        }
    }
    Ok(())
}

/// A matcher for each member: by name, or by JSON pointer where it begins with `/`.
fn members_hold(members: &BTreeMap<String, Value>, object: &Value, now: i64) -> Result<(), String> {
    for (name, wanted) in members {
        let value = if name.starts_with('/') { object.pointer(name) } else { object.get(name) };
        matches(wanted, value, now).map_err(|why| format!("{name}: {why}"))?;
    }
    Ok(())
}

/// A number, a list of them, or a class like `4xx`.
fn status_is(wanted: &Value, status: u16) -> Result<bool, String> {
    match wanted {
        Value::Number(number) => Ok(number.as_u64() == Some(status.into())),
        Value::Array(any) => any.iter().try_fold(false, |held, one| Ok(held || status_is(one, status)?)),
        Value::String(class) => match class.strip_suffix("xx").and_then(|digit| digit.parse::<u16>().ok()) {
            Some(digit) => Ok(status / 100 == digit),
            None => Err(format!("no class of status codes {class:?}")),
        },
        other => Err(format!("no status code {other}")),
    }
}

fn heard(expected: &Hello, answer: &Answer, sight: &Sight<'_>) -> Result<(), String> {
    match (expected, answer) {
        (Hello::Refused(_), Answer::Hello(Heard::Refused(_))) => Ok(()),
        (Hello::Chosen(chosen), Answer::Hello(Heard::Chosen { version, cipher })) => {
            let fields = [
                ("version", &chosen.version, Heard::version(*version)),
                ("cipher suite", &chosen.cipher, Heard::cipher(*cipher)),
            ];
            for (name, wanted, found) in fields {
                if let Some(wanted) = wanted {
                    matches(wanted, Some(&found.into()), sight.now).map_err(|why| format!("{name}: {why}"))?;
                }
            }
            Ok(())
        }
        (Hello::Refused(_), other) => Err(format!("the offer was to be refused, but {}", told(other))),
        (Hello::Chosen(_), other) => Err(format!("a ServerHello was expected, but {}", told(other))),
    }
}

/// An answer in a few words.
pub(crate) fn told(answer: &Answer) -> String {
    match answer {
        Answer::Response(response) => format!("the answer was {}", response.status),
        Answer::Hello(Heard::Chosen { version, cipher }) => {
            format!("the server chose TLS {} with {}", Heard::version(*version), Heard::cipher(*cipher))
        }
        Answer::Hello(Heard::Refused(why)) => format!("the server refused: {why}"),
        Answer::Hello(Heard::Unfit(why)) => why.clone(),
        Answer::Refused(why) => format!("the connection was refused: {why}"),
        Answer::Unfit(why) => why.clone(),
    }
}

/// A value in a sentence, no longer than a line.
pub(crate) fn shown(value: &Value) -> String {
    let text = value.to_string();
    match text.char_indices().nth(160) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text,
    }
}

#[cfg(test)]
mod tests;
