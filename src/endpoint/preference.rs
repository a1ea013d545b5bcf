//! What an asker can read, by its `Accept` headers (RFC 9110 §12.5).

use axum::http::header::{ACCEPT, ACCEPT_ENCODING};
use axum::http::{HeaderMap, HeaderName};

/// `name` is named in this header, and not with weight zero. A wildcard names nothing.
pub(super) fn is_named(headers: &HeaderMap, header: HeaderName, name: &str) -> bool {
    let values = headers.get_all(header).iter().filter_map(|value| value.to_str().ok());
    values.flat_map(|value| value.split(',')).any(|one| {
        let mut parts = one.split(';').map(str::trim);
        parts.next().is_some_and(|own| own.eq_ignore_ascii_case(name)) && !parts.any(is_zero)
    })
}

/// RFC 9110 §12.5.3: `gzip` named, and not with weight zero. A bare `*` gets the text as it is.
pub(super) fn accepts_gzip(headers: &HeaderMap) -> bool {
    is_named(headers, ACCEPT_ENCODING, "gzip")
}

/// RFC 9110 §12.5.1: whether this media type is acceptable. The closest range that matches decides; without the header,
/// everything is.
pub(super) fn accepts(headers: &HeaderMap, (kind, subtype): (&str, &str)) -> bool {
    let mut closest: Option<(u8, bool)> = None;
    let mut any = false;
    let ranges = headers.get_all(ACCEPT).iter().flat_map(|value| value.as_bytes().split(|&byte| byte == b','));
    for range in ranges.map(|range| range.trim_ascii()).filter(|range| !range.is_empty()) {
        any = true;
        let Ok(range) = std::str::from_utf8(range) else { continue };
        let mut parts = range.split(';').map(str::trim);
        let Some((own_kind, own_subtype)) = parts.next().and_then(|name| name.split_once('/')) else { continue };
        let closeness = match (own_kind, own_subtype) {
            ("*", "*") => 0,
            (own, "*") if own.eq_ignore_ascii_case(kind) => 1,
            (own, sub) if own.eq_ignore_ascii_case(kind) && sub.eq_ignore_ascii_case(subtype) => 2,
            _ => continue,
        };
        let refused = parts.any(is_zero);
        match closest {
            Some((before, _)) if before > closeness => {}
            // Said twice: acceptable if it once is.
            Some((before, acceptable)) if before == closeness => closest = Some((closeness, acceptable || !refused)),
            _ => closest = Some((closeness, !refused)),
        }
    }
    closest.map_or(!any, |(_, acceptable)| acceptable)
}

/// RFC 9110 §12.4.2: a weight of zero is "not acceptable".
fn is_zero(parameter: &str) -> bool {
    let weight = parameter.strip_prefix("q=").or_else(|| parameter.strip_prefix("Q="));
    weight.is_some_and(|weight| weight.bytes().all(|byte| matches!(byte, b'0' | b'.')))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn gzip_is_sent_to_those_who_name_it() {
        let accepts = |value: &str| {
            let mut headers = HeaderMap::new();
            headers.insert(ACCEPT_ENCODING, value.parse().unwrap());
            accepts_gzip(&headers)
        };
        for yes in ["gzip", "deflate, gzip;q=1.0, *;q=0.5", "GZIP", "gzip;q=0.001"] {
            assert!(accepts(yes), "{yes}");
        }
        for no in ["", "identity", "gzip;q=0", "gzip; q=0.000", "*", "br", "xgzip"] {
            assert!(!accepts(no), "{no}");
        }
        assert!(!accepts_gzip(&HeaderMap::new()));
    }

    #[test]
    fn the_closest_range_decides() {
        let accepted = |values: &[&str]| {
            let mut headers = HeaderMap::new();
            for value in values {
                headers.append(ACCEPT, value.parse().unwrap());
            }
            accepts(&headers, ("application", "statuslist+jwt"))
        };
        for yes in [
            "application/statuslist+jwt",
            "Application/StatusList+JWT",
            "application/statuslist+jwt;q=0.001",
            "application/statuslist+cwt, application/statuslist+jwt;q=0.5",
            "*/*",
            "application/*",
            "text/html, application/*;q=0.1",
            "*/*;q=0, application/statuslist+jwt",
            "",
            " , ",
        ] {
            assert!(accepted(&[yes]), "{yes}");
        }
        for no in [
            "application/statuslist+cwt",
            "application/jwt",
            "application/json",
            "text/*",
            "*/*;q=0",
            "*/*, application/statuslist+jwt;q=0",
            "application/*, application/statuslist+jwt;q=0.000",
            "application",
            "*",
        ] {
            assert!(!accepted(&[no]), "{no}");
        }
        assert!(accepted(&[]));
        assert!(accepted(&["text/html", "application/statuslist+jwt"]));
        assert!(!accepted(&["text/html", "application/statuslist+cwt"]));
    }
}
