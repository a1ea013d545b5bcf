//! `${…}` in a case's texts.
//!
//! Takes a text and whoever knows the names, gives the value: of any type where the whole text is one name, else text. It
//! knows nothing of where a value is used.

use std::fmt;

use aws_lc_rs::digest::{SHA1_FOR_LEGACY_USE_ONLY, digest};
use base64::Engine;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use serde_json::Value;

/// What knows the names.
pub(crate) trait Names {
    /// The value of this name, or nothing.
    fn value(&self, name: &str) -> Option<Value>;
}

/// Why a text could not be filled in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Unfilled {
    /// `${name?}`, and nothing of that name: whatever it stands in is left out.
    LeftOut,
    /// Nothing of that name.
    Unknown(String),
    /// No such filter, or nothing it could be applied to.
    Filter(String),
    /// `${` without `}`.
    Open,
}

impl fmt::Display for Unfilled {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::LeftOut => f.write_str("an optional name that the target does not have"),
            Self::Unknown(name) => write!(f, "nothing is named {name:?}"),
            Self::Filter(filter) => write!(f, "the filter {filter:?} cannot be applied"),
            Self::Open => f.write_str("a `${` without its `}`"),
        }
    }
}

/// Fills in a text.
pub(crate) fn fill(text: &str, names: &dyn Names) -> Result<Value, Unfilled> {
    if let Some(inner) = text.strip_prefix("${").and_then(|rest| rest.strip_suffix('}'))
        && !inner.contains("${")
        && !inner.contains('}')
    {
        return one(inner, names);
    }
    let mut out = String::new();
    let mut rest = text;
    while let Some((before, after)) = rest.split_once("${") {
        let (inner, after) = after.split_once('}').ok_or(Unfilled::Open)?;
        out.push_str(before);
        out.push_str(&plain(&one(inner, names)?));
        rest = after;
    }
    out.push_str(rest);
    Ok(out.into())
}

/// Fills in a text that has to stay one.
pub(crate) fn fill_text(text: &str, names: &dyn Names) -> Result<String, Unfilled> {
    fill(text, names).map(|value| plain(&value))
}

/// Fills in every text of a JSON value; members and elements that are left out vanish.
pub(crate) fn fill_value(value: &Value, names: &dyn Names) -> Result<Value, Unfilled> {
    match value {
        Value::String(text) => fill(text, names),
        Value::Array(elements) => {
            let filled = elements.iter().map(|element| fill_value(element, names));
            filled.filter(|result| *result != Err(Unfilled::LeftOut)).collect()
        }
        Value::Object(members) => members
            .iter()
            .map(|(name, value)| Ok((name.clone(), fill_value(value, names)?)))
            .filter(|result| !matches!(result, Err(Unfilled::LeftOut)))
            .collect::<Result<serde_json::Map<_, _>, _>>()
            .map(Value::Object),
        other => Ok(other.clone()),
    }
}

/// A value as text: a string without its quotes, everything else as JSON.
pub(crate) fn plain(value: &Value) -> String {
    value.as_str().map_or_else(|| value.to_string(), str::to_owned)
}

fn one(inner: &str, names: &dyn Names) -> Result<Value, Unfilled> {
    let mut parts = inner.split('|').map(str::trim);
    let name = parts.next().unwrap_or_default();
    let (name, optional) = name.strip_suffix('?').map_or((name, false), |name| (name, true));
    let unknown = || if optional { Unfilled::LeftOut } else { Unfilled::Unknown(name.to_owned()) };
    let mut value = names.value(name).ok_or_else(unknown)?;
    for filter in parts {
        value = filtered(&value, filter).ok_or_else(|| Unfilled::Filter(filter.to_owned()))?.into();
    }
    Ok(value)
}

fn filtered(value: &Value, filter: &str) -> Option<String> {
    let text = plain(value);
    // The last five are of a thumbprint: other ways to write it, or to take it.
    let octets = |text: &str| URL_SAFE_NO_PAD.decode(text).ok();
    Some(match filter {
        "upper" => text.to_uppercase(),
        "lower" => text.to_lowercase(),
        "swap_case" => text.chars().map(swapped).collect(),
        "drop_first" => text.chars().skip(1).collect(),
        "drop_last" => text.chars().take(text.chars().count().checked_sub(1)?).collect(),
        "shorten" => text.chars().take(text.chars().count() / 2).collect(),
        "percent" => text.bytes().map(|octet| format!("%{octet:02X}")).collect(),
        "json" => value.to_string(),
        "base64url" => URL_SAFE_NO_PAD.encode(&text),
        "without_signature" => format!("{}.", text.rsplit_once('.')?.0),
        "flip_signature" => flipped(&text, 2)?,
        "flip_payload" => flipped(&text, 1)?,
        "jwt_header" => text.split('.').next()?.to_owned(),
        "hex" => hex::encode(octets(&text)?),
        "colons" => octets(&text)?.iter().map(|octet| format!("{octet:02X}")).collect::<Vec<_>>().join(":"),
        "base64" => STANDARD.encode(octets(&text)?),
        "padded" => format!("{text}="),
        "sha1" => URL_SAFE_NO_PAD.encode(digest(&SHA1_FOR_LEGACY_USE_ONLY, &STANDARD.decode(&text).ok()?)),
        _ => return None,
    })
}

/// What every filter that a case may apply to a token makes of this one, alone or after its signature is gone.
pub(crate) fn bent(token: &str) -> Vec<String> {
    const FILTERS: [&str; 12] = [
        "upper",
        "lower",
        "swap_case",
        "drop_first",
        "drop_last",
        "shorten",
        "percent",
        "base64url",
        "without_signature",
        "flip_signature",
        "flip_payload",
        "padded",
    ];
    let all = |text: &str| FILTERS.iter().filter_map(|filter| filtered(&text.into(), filter)).collect::<Vec<_>>();
    let mut bent = all(token);
    if let Some(unsigned) = filtered(&token.into(), "without_signature") {
        bent.extend(all(&unsigned));
    }
    bent
}

fn swapped(character: char) -> char {
    if character.is_ascii_lowercase() { character.to_ascii_uppercase() } else { character.to_ascii_lowercase() }
}

/// A compact JWS with another character in the middle of one of its parts: never one of the last, whose low bits may mean
/// nothing. Of another token, the middle of the whole.
fn flipped(token: &str, part: usize) -> Option<String> {
    let mut parts: Vec<String> = token.split('.').map(str::to_owned).collect();
    if parts.len() != 3 {
        parts = vec![token.to_owned()];
    }
    let part = part.min(parts.len() - 1);
    let chosen = parts.get_mut(part)?;
    let middle = chosen.len() / 2;
    let other = if chosen.get(middle..=middle)? == "A" { "B" } else { "A" };
    chosen.replace_range(middle..=middle, other);
    Some(parts.join("."))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    struct Known;

    impl Names for Known {
        fn value(&self, name: &str) -> Option<Value> {
            match name {
                "issuer" => Some("https://as.example".into()),
                "now" => Some(1_000.into()),
                "token" => Some("aaaa.bbbb.cccc".into()),
                _ => None,
            }
        }
    }

    #[test]
    fn a_name_alone_keeps_its_type_and_among_others_becomes_text() {
        assert_eq!(fill("${now}", &Known), Ok(json!(1_000)));
        assert_eq!(fill("at ${now}.", &Known), Ok(json!("at 1000.")));
        assert_eq!(fill("${now}${now}", &Known), Ok(json!("10001000")));
    }

    #[test]
    fn what_is_unknown_is_an_error_and_what_is_optional_is_left_out() {
        assert_eq!(fill("${nobody}", &Known), Err(Unfilled::Unknown("nobody".to_owned())));
        assert_eq!(fill("x${nobody?}", &Known), Err(Unfilled::LeftOut));
        assert_eq!(fill("${now", &Known), Err(Unfilled::Open));
        assert_eq!(fill_value(&json!({"a": "${nobody?}", "b": ["${nobody?}", 1]}), &Known), Ok(json!({"b": [1]})));
    }

    #[test]
    fn filters() {
        assert_eq!(fill("${issuer|upper}/", &Known), Ok(json!("HTTPS://AS.EXAMPLE/")));
        assert_eq!(fill("${issuer|drop_last}", &Known), Ok(json!("https://as.exampl")));
        assert_eq!(fill("${token|flip_signature}", &Known), Ok(json!("aaaa.bbbb.ccAc")));
        assert_eq!(filtered(&"opaque".into(), "flip_signature").as_deref(), Some("opaAue"));
        assert_eq!(filtered(&"".into(), "flip_signature"), None);
        assert_eq!(fill("${token|without_signature}", &Known), Ok(json!("aaaa.bbbb.")));
        assert_eq!(fill("${now|nonsense}", &Known), Err(Unfilled::Filter("nonsense".to_owned())));
    }
}
