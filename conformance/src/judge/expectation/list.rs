//! The elements of a field's value that is a list (RFC 9110 §5.6.1).

/// What stands between the commas: one within a quoted-string is part of it (§5.6.4), and a string that does not
/// end takes the rest.
pub(super) fn elements(text: &str) -> Vec<&str> {
    let mut parts = Vec::new();
    let (mut quoted, mut escaped, mut from) = (false, false, 0);
    for (at, character) in text.char_indices() {
        match character {
            _ if escaped => escaped = false,
            '\\' if quoted => escaped = true,
            '"' => quoted = !quoted,
            ',' if !quoted => {
                parts.push(&text[from..at]);
                from = at + 1;
            }
            _ => {}
        }
    }
    parts.push(&text[from..]);
    parts
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_comma_in_quotes_is_part_of_its_element() {
        assert_eq!(elements("a,b, c"), ["a", "b", " c"]);
        assert_eq!(elements(r#"a="b, c", d"#), [r#"a="b, c""#, " d"]);
        assert_eq!(elements(r#"a="b\", c", d"#), [r#"a="b\", c""#, " d"]);
        assert_eq!(elements(r#"a="b\\", d"#), [r#"a="b\\""#, " d"]);
        assert_eq!(elements(r#"a="b, c"#), [r#"a="b, c"#]);
        assert_eq!(elements(""), [""]);
    }
}
