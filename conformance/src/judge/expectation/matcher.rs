//! One value against what is wanted of it.

use serde_json::{Map, Value};

use super::{challenge, list, shown};

/// What a table of a matcher may say.
const WORDS: &[&str] = &[
    "present",
    "equals",
    "not",
    "any_of",
    "contains",
    "lacks",
    "lists",
    "challenge",
    "media_type",
    "type",
    "starts_with",
    "ends_with",
    "at_least",
    "at_most",
    "longer_than",
    "grammar",
    "near_now",
    "after_now",
    "each",
    "some",
    "member",
    "unique",
    "unique_by",
    "scope_within",
    "scope_equals",
    "scope_lacks",
    "optional",
];

/// Whether a matcher can be read.
pub(crate) fn check(wanted: &Value) -> Result<(), String> {
    let Value::Object(words) = wanted else { return Ok(()) };
    if words.is_empty() {
        return Err("a matcher that always holds".to_owned());
    }
    for (word, argument) in words {
        if !WORDS.contains(&word.as_str()) {
            return Err(format!("no matcher {word:?}"));
        }
        match word.as_str() {
            "optional" if words.len() == 1 => return Err("a matcher that always holds".to_owned()),
            "present" | "optional" if !argument.is_boolean() => return Err(format!("{word} takes true or false")),
            "unique" | "after_now" if *argument != Value::Bool(true) => return Err(format!("{word} takes true")),
            "lacks" | "unique_by" if !argument.is_string() => return Err(format!("{word} takes a text")),
            // Every text contains the empty one, begins and ends with it.
            "contains" | "starts_with" | "ends_with" | "challenge" if argument.as_str().is_none_or(str::is_empty) => {
                return Err(format!("{word} takes a text that is not empty"));
            }
            "each" | "some" => check(argument)?,
            "member" => {
                let members = argument.as_object().filter(|members| !members.is_empty());
                members.ok_or("member takes a table that is not empty")?.values().try_for_each(check)?;
            }
            "grammar" => {
                grammar(argument.as_str().unwrap_or_default(), "")?;
            }
            "scope_lacks" if !(argument["of"].is_string() && argument["but"].is_string()) => {
                return Err("scope_lacks takes { of = \"…\", but = \"…\" }".to_owned());
            }
            "scope_lacks" if lacking(argument).is_empty() => {
                return Err(format!("scope_lacks: no token in {} that is none of {}", argument["of"], argument["but"]));
            }
            _ => {}
        }
    }
    Ok(())
}

/// Says why the value is not what is wanted; nothing where it is.
pub(crate) fn matches(wanted: &Value, value: Option<&Value>, now: i64) -> Result<(), String> {
    let Value::Object(words) = wanted else {
        return match value {
            Some(value) if equal(value, wanted) => Ok(()),
            Some(value) => Err(format!("{} in place of {}", shown(value), shown(wanted))),
            None => Err(format!("missing; {} was expected", shown(wanted))),
        };
    };
    if let Some(present) = words.get("present").and_then(Value::as_bool)
        && present != value.is_some()
    {
        return Err(if present { "missing".to_owned() } else { "present".to_owned() });
    }
    let optional = words.get("optional") == Some(&Value::Bool(true));
    let others = words.iter().filter(|(word, _)| !matches!(word.as_str(), "present" | "optional"));
    for (word, argument) in others {
        let Some(value) = value else {
            // What is not there has no part that should not be there.
            if optional || matches!(word.as_str(), "lacks" | "not") {
                continue;
            }
            return Err("missing".to_owned());
        };
        if !holds(word, argument, value, now)? {
            return Err(format!("{} does not hold: {word} {}", shown(value), shown(&Value::clone(argument))));
        }
    }
    Ok(())
}

fn holds(word: &str, argument: &Value, value: &Value, now: i64) -> Result<bool, String> {
    let text = value.as_str();
    let number = value.as_f64();
    let limit = argument.as_f64();
    Ok(match word {
        "equals" => equal(value, argument),
        "not" => !equal(value, argument),
        "any_of" => argument.as_array().is_some_and(|any| any.iter().any(|one| equal(value, one))),
        "contains" => contains(value, argument),
        "lacks" => (value.is_array() || text.is_some()) && !contains(value, argument),
        // RFC 9110 §5.6.1
        "lists" => text.is_some_and(|text| list::elements(text).iter().any(|element| is_word(element, argument))),
        "challenge" => text.zip(argument.as_str()).is_some_and(|(text, scheme)| challenge::is_of(text, scheme)),
        // RFC 9110 §8.3.1: whatever parameters follow.
        "media_type" => text.and_then(|text| text.split(';').next()).is_some_and(|own| is_word(own, argument)),
        "type" => match argument.as_str() {
            Some("string") => value.is_string(),
            Some("number") => value.is_number(),
            Some("integer") => value.is_i64() || value.is_u64(),
            Some("boolean") => value.is_boolean(),
            Some("array") => value.is_array(),
            Some("object") => value.is_object(),
            _ => return Err(format!("no type {argument}")),
        },
        "starts_with" => text.zip(argument.as_str()).is_some_and(|(text, start)| text.starts_with(start)),
        "ends_with" => text.zip(argument.as_str()).is_some_and(|(text, end)| text.ends_with(end)),
        "at_least" => number.zip(limit).is_some_and(|(number, limit)| number >= limit),
        "at_most" => number.zip(limit).is_some_and(|(number, limit)| number <= limit),
        "longer_than" => {
            let length = text.map(|text| text.chars().count()).or_else(|| Some(value.as_array()?.len()));
            length.zip(argument.as_u64()).is_some_and(|(length, limit)| length as u64 > limit)
        }
        "grammar" => match text {
            Some(text) => grammar(argument.as_str().unwrap_or_default(), text)?,
            None => false,
        },
        "near_now" => number.zip(limit).is_some_and(|(number, limit)| (number - now as f64).abs() <= limit),
        "after_now" => number.is_some_and(|number| number > now as f64),
        "each" => match value.as_array() {
            Some(elements) => elements.iter().all(|element| matches(argument, Some(element), now).is_ok()),
            None => false,
        },
        "some" => match value.as_array() {
            Some(elements) => elements.iter().any(|element| matches(argument, Some(element), now).is_ok()),
            None => false,
        },
        "member" => members(argument.as_object(), value, now),
        "unique" => {
            value.as_array().is_some_and(|all| all.iter().enumerate().all(|(at, one)| !all[..at].contains(one)))
        }
        "unique_by" => value.as_array().is_some_and(|all| {
            let values: Vec<&Value> = all.iter().filter_map(|one| one.get(argument.as_str()?)).collect();
            values.iter().enumerate().all(|(at, one)| !values[..at].contains(one))
        }),
        "scope_within" => scope(value).iter().all(|token| scope(argument).contains(token)) && text.is_some(),
        "scope_equals" => {
            let (mut one, mut other) = (scope(value), scope(argument));
            one.sort_unstable();
            other.sort_unstable();
            one == other && text.is_some()
        }
        "scope_lacks" => text.is_some() && !lacking(argument).iter().any(|token| scope(value).contains(token)),
        other => return Err(format!("no matcher {other:?}")),
    })
}

fn members(wanted: Option<&Map<String, Value>>, value: &Value, now: i64) -> bool {
    let Some(object) = value.as_object() else { return false };
    wanted.into_iter().flatten().all(|(name, wanted)| matches(wanted, object.get(name), now).is_ok())
}

/// 300 and 300.0 are the same number to JSON (RFC 8259 §6).
fn equal(one: &Value, other: &Value) -> bool {
    one == other || one.as_f64().zip(other.as_f64()).is_some_and(|(one, other)| one == other)
}

/// An element of an array, or a part of a text.
fn contains(value: &Value, argument: &Value) -> bool {
    match value {
        Value::Array(elements) => elements.iter().any(|element| equal(element, argument)),
        Value::String(text) => argument.as_str().is_some_and(|part| text.contains(part)),
        _ => false,
    }
}

/// The same word without regard to case and to the space around it.
fn is_word(text: &str, argument: &Value) -> bool {
    argument.as_str().is_some_and(|word| text.trim().eq_ignore_ascii_case(word))
}

fn scope(value: &Value) -> Vec<&str> {
    value.as_str().unwrap_or_default().split(' ').filter(|token| !token.is_empty()).collect()
}

/// The tokens that `scope_lacks` forbids.
fn lacking(argument: &Value) -> Vec<&str> {
    let allowed = scope(&argument["but"]);
    scope(&argument["of"]).into_iter().filter(|token| !allowed.contains(token)).collect()
}

/// Grammars of RFC 6749 appendix A and a few more.
fn grammar(name: &str, text: &str) -> Result<bool, String> {
    let nqchar = |octet: u8| matches!(octet, 0x21 | 0x23..=0x5B | 0x5D..=0x7E);
    let token = |text: &str| !text.is_empty() && text.bytes().all(nqchar);
    Ok(match name {
        "scope_token" | "nqchar" => token(text),
        // RFC 6749 §3.3: tokens with one space between them.
        "scope" => text.split(' ').all(token),
        // RFC 6749 §A: %x20-21 / %x23-5B / %x5D-7E
        "nqschar" => text.bytes().all(|octet| octet == 0x20 || nqchar(octet)),
        "vschar" => !text.is_empty() && text.bytes().all(|octet| (0x20..=0x7E).contains(&octet)),
        "base64url" => {
            !text.is_empty() && text.bytes().all(|octet| octet.is_ascii_alphanumeric() || matches!(octet, b'-' | b'_'))
        }
        // RFC 6750 §2.1: b64token
        "b64token" => {
            let body = text.trim_end_matches('=');
            !body.is_empty() && body.bytes().all(|octet| octet.is_ascii_alphanumeric() || b"-._~+/".contains(&octet))
        }
        "https_uri" => crate::judge::wire::Address::parse(text).is_some(),
        // RFC 8414 §2: no query, no fragment.
        "issuer" => crate::judge::wire::Address::parse(text).is_some() && !text.contains('?'),
        "jwt" => crate::judge::jws::decode(text).is_some(),
        other => return Err(format!("no grammar {other:?}")),
    })
}
