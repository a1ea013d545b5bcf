//! The `Bearer` challenge in `WWW-Authenticate` (RFC 9110 §11.6.1, RFC 6750 §3).

use std::collections::BTreeMap;

use super::{Response, list};

/// Its parameters, names in lower case; nothing where no such challenge is there.
pub(super) fn bearer(response: &Response) -> Option<BTreeMap<String, String>> {
    let value = response.header("www-authenticate")?;
    let mut found = None;
    let mut scheme = String::new();
    for part in list::elements(&value) {
        let part = part.trim();
        // A part is a parameter, or a scheme with or without its first parameter behind a space.
        let parameter = match part.split_once(' ') {
            Some((name, rest)) if !name.contains('=') => {
                scheme = name.to_ascii_lowercase();
                rest.trim()
            }
            None if !part.contains('=') && !part.is_empty() => {
                scheme = part.to_ascii_lowercase();
                ""
            }
            _ => part,
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
}
