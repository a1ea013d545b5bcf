//! The challenges in `WWW-Authenticate` (RFC 9110 §11.6.1), and what the `Bearer` one says (RFC 6750 §3).

use std::collections::BTreeMap;

use super::{Response, list};

/// The parameters of the `Bearer` challenge, names in lower case; nothing where no such challenge is there.
pub(super) fn bearer(response: &Response) -> Option<BTreeMap<String, String>> {
    let value = response.header("www-authenticate")?;
    let mut found = None;
    let mut scheme = String::new();
    for part in list::elements(&value) {
        let parameter = match begun(part) {
            Some((name, rest)) => {
                scheme = name.to_ascii_lowercase();
                rest
            }
            None => part.trim(),
        };
        if scheme == "bearer" {
            let parameters: &mut BTreeMap<String, String> = found.get_or_insert_default();
            if let Some((name, value)) = parameter.split_once('=') {
                parameters.insert(name.trim().to_ascii_lowercase(), unquoted(value.trim()));
            }
        }
    }
    found
}

/// Whether one of the challenges of a field's value is of this scheme, in any case (RFC 9110 §11.1).
pub(super) fn is_of(value: &str, scheme: &str) -> bool {
    let begun = list::elements(value).into_iter().filter_map(begun);
    // RFC 9110 §11.2: what has a `=` behind it is a parameter's name, with a space between them too.
    begun.filter(|(_, rest)| !rest.starts_with('=')).any(|(own, _)| own.eq_ignore_ascii_case(scheme))
}

/// The scheme that an element begins with, and what follows; nothing where it is a parameter of a challenge before it.
fn begun(element: &str) -> Option<(&str, &str)> {
    let element = element.trim();
    let (scheme, rest) = element.split_once(' ').unwrap_or((element, ""));
    (!scheme.is_empty() && !scheme.contains('=')).then(|| (scheme, rest.trim()))
}

/// RFC 9110 §5.6.4.
fn unquoted(value: &str) -> String {
    let Some(inner) = value.strip_prefix('"').and_then(|rest| rest.strip_suffix('"')) else { return value.to_owned() };
    let mut out = String::new();
    let mut escaped = false;
    for character in inner.chars() {
        if character == '\\' && !escaped {
            escaped = true;
        } else {
            out.push(character);
            escaped = false;
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(value: &str) -> Option<BTreeMap<String, String>> {
        let headers = vec![("WWW-Authenticate".to_owned(), value.to_owned())];
        bearer(&Response { headers, ..Response::default() })
    }

    #[test]
    fn parameters_of_the_bearer_challenge_alone() {
        let found =
            of(r#"Basic realm="a, b", bearer error="invalid_token", error_description="a \"b\", c", Digest x=y"#);
        let found = found.unwrap();
        assert_eq!(found.len(), 2);
        assert_eq!(found["error"], "invalid_token");
        assert_eq!(found["error_description"], "a \"b\", c");
        assert_eq!(of("Bearer"), Some(BTreeMap::new()));
        assert_eq!(of("Basic realm=\"Bearer\""), None);
        assert_eq!(of(""), None);
    }

    #[test]
    fn a_challenge_is_of_the_scheme_that_it_begins_with() {
        for value in [
            "Basic",
            "basic realm=\"a\"",
            "BASIC  realm=\"a, b\", charset=\"UTF-8\"",
            "Bearer, Basic",
            "Bearer realm=\"a, b\", error=\"c\" ,basic realm=\"d\"",
            "Negotiate dG9rZW4=, Basic realm=a",
        ] {
            assert!(is_of(value, "Basic"), "{value}");
        }
        for value in [
            "",
            "Bearer realm=\"Basic\"",
            "Bearer realm=\"a, Basic realm=b\"",
            "Bearer realm=\"\\\", Basic\"",
            "Bearer realm=\"a, Basic",
            "Bearer Basic",
            "Bearer realm=a, Basic=b",
            "Bearer realm=a, Basic =b",
            "Bearer realm=a, Basic = b",
            "Basically realm=\"a\"",
            "\"Basic\" realm=a",
        ] {
            assert!(!is_of(value, "Basic"), "{value}");
        }
    }
}
