//! Which token does the request carry? (RFC 6750 §2)
//!
//! Takes header fields and the query string, gives a [`BearerToken`]: the text of exactly one token, from the
//! `Authorization` header and nowhere else. It knows nothing of what the text means.

use http::header::AUTHORIZATION;
use http::{HeaderMap, Uri};

use crate::error::BearerRefusal;

/// The parts of a request in which a token may be, or may wrongly be.
#[derive(Clone, Copy, Debug)]
pub struct Credentials<'a> {
    headers: &'a HeaderMap,
    query: Option<&'a str>,
}

impl<'a> Credentials<'a> {
    /// Those of a request with these header fields for this target.
    pub fn of(headers: &'a HeaderMap, target: &'a Uri) -> Self {
        Self { headers, query: target.query() }
    }
}

/// The text of one token, by the grammar of RFC 6750 §2.1.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct BearerToken<'a>(&'a str);

impl<'a> BearerToken<'a> {
    /// The text.
    pub const fn as_str(self) -> &'a str {
        self.0
    }
}

/// A token is a secret of sorts: it is never printed.
impl std::fmt::Debug for BearerToken<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("BearerToken")
    }
}

/// Takes the one token out of a request.
///
/// # Errors
/// Every [`BearerRefusal`].
pub fn extract<'a>(credentials: &Credentials<'a>) -> Result<BearerToken<'a>, BearerRefusal> {
    // RFC 6750 §2.3 and §5.3: URLs are logged, so a token in one is refused even where a good one is in the header, and
    // RFC 6750 §2 lets a request use one method only. A token in a form body is never looked for.
    if credentials.query.is_some_and(names_access_token) {
        return Err(BearerRefusal::InQuery);
    }
    let mut fields = credentials.headers.get_all(AUTHORIZATION).iter();
    let field = fields.next().ok_or(BearerRefusal::Missing)?;
    if fields.next().is_some() {
        return Err(BearerRefusal::Repeated);
    }
    let text = field.to_str().map_err(|_| BearerRefusal::Malformed)?;
    let (scheme, rest) = text.split_once(' ').unwrap_or((text, ""));
    // RFC 9110 §11.1: the scheme is compared without case.
    if !scheme.eq_ignore_ascii_case("Bearer") {
        return Err(BearerRefusal::OtherScheme);
    }
    let token = rest.trim_start_matches(' '); // RFC 6750 §2.1: "Bearer" 1*SP b64token
    if is_b64token(token) { Ok(BearerToken(token)) } else { Err(BearerRefusal::Malformed) }
}

// b64token = 1*( ALPHA / DIGIT / "-" / "." / "_" / "~" / "+" / "/" ) *"="
fn is_b64token(text: &str) -> bool {
    let body = text.trim_end_matches('=');
    // To the end, and by a table: the letters of a token are random, and a processor that guesses at each is wrong at every other.
    !body.is_empty() && body.bytes().fold(true, |good, byte| good & IS_OF_B64TOKEN[usize::from(byte)])
}

const IS_OF_B64TOKEN: [bool; 256] = {
    let mut is = [false; 256];
    let mut byte = 0;
    while byte < 128 {
        let letter = byte as u8;
        is[byte] = letter.is_ascii_alphanumeric() || matches!(letter, b'-' | b'.' | b'_' | b'~' | b'+' | b'/');
        byte += 1;
    }
    is
};

fn names_access_token(query: &str) -> bool {
    query.split(['&', ';']).any(|pair| {
        let name = pair.split_once('=').map_or(pair, |(name, _)| name);
        percent_decoded(name).eq(*b"access_token")
    })
}

// Octets that are no valid escape stand for themselves, as they do for most frameworks.
fn percent_decoded(text: &str) -> impl Iterator<Item = u8> {
    let mut rest = text.as_bytes();
    std::iter::from_fn(move || match rest {
        [b'%', high, low, tail @ ..] => {
            let escaped = hex_digit(*high).zip(hex_digit(*low)).map(|(high, low)| high << 4 | low);
            rest = if escaped.is_some() { tail } else { &rest[1..] };
            Some(escaped.unwrap_or(b'%'))
        }
        [first, tail @ ..] => {
            rest = tail;
            Some(*first)
        }
        [] => None,
    })
}

fn hex_digit(digit: u8) -> Option<u8> {
    char::from(digit).to_digit(16).and_then(|value| u8::try_from(value).ok())
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;
    use proptest::prelude::*;

    use super::*;

    fn from_fields(fields: &[&[u8]], target: &'static str) -> Result<String, BearerRefusal> {
        let mut headers = HeaderMap::new();
        for field in fields {
            headers.append(AUTHORIZATION, HeaderValue::from_bytes(field).unwrap());
        }
        let target = Uri::from_static(target);
        extract(&Credentials::of(&headers, &target)).map(|token| token.as_str().to_owned())
    }

    fn from_field(field: &str) -> Result<String, BearerRefusal> {
        from_fields(&[field.as_bytes()], "/accounts")
    }

    #[test]
    fn the_scheme_is_compared_without_case() {
        for scheme in ["Bearer", "bearer", "BEARER", "bEARER"] {
            assert_eq!(from_field(&format!("{scheme} a.b-c_d~e+f/g==")).as_deref(), Ok("a.b-c_d~e+f/g=="));
        }
        assert_eq!(from_field("Bearer   abc").as_deref(), Ok("abc"));
    }

    #[test]
    fn no_header() {
        assert_eq!(from_fields(&[], "/"), Err(BearerRefusal::Missing));
    }

    #[test]
    fn another_scheme() {
        for field in ["Basic YTpi", "DPoP abc", "Bearerabc", "Bearer: abc", "", "Beare r", "Bearer\tabc", "Bearer,abc"]
        {
            assert_eq!(from_field(field), Err(BearerRefusal::OtherScheme), "{field:?}");
        }
    }

    #[test]
    fn two_headers() {
        assert_eq!(from_fields(&[b"Bearer a", b"Bearer a"], "/"), Err(BearerRefusal::Repeated));
        assert_eq!(from_fields(&[b"Basic a", b"Bearer a"], "/"), Err(BearerRefusal::Repeated));
    }

    #[test]
    fn not_a_token() {
        for field in [
            "Bearer",
            "Bearer ",
            "Bearer =",
            "Bearer a b",
            "Bearer a,b",
            "Bearer a, Bearer b",
            "Bearer a=b",
            "Bearer \"a\"",
            "Bearer a%20",
            "Bearer a\t",
            "bearer access_token=a",
        ] {
            assert_eq!(from_field(field), Err(BearerRefusal::Malformed), "{field:?}");
        }
        assert_eq!(from_fields(&["Bearer é".as_bytes()], "/"), Err(BearerRefusal::Malformed));
    }

    #[test]
    fn the_grammar_holds_over_all_of_ascii() {
        for byte in 0x21..=0x7E_u8 {
            let allowed = byte.is_ascii_alphanumeric() || b"-._~+/".contains(&byte);
            assert_eq!(from_field(&format!("Bearer {}", char::from(byte))).is_ok(), allowed, "{byte:#04x}");
        }
    }

    #[test]
    fn a_token_in_the_query_is_refused_whatever_else_comes() {
        for target in [
            "/a?access_token=x",
            "/a?b=c&access_token=x",
            "/a?access_token",
            "/a?access%5Ftoken=x",
            "/a?%61ccess_token=x&b",
            "/a?b;access_token=x",
        ] {
            assert_eq!(from_fields(&[b"Bearer x"], target), Err(BearerRefusal::InQuery), "{target}");
            assert_eq!(from_fields(&[], target), Err(BearerRefusal::InQuery), "{target}");
        }
        for target in ["/access_token=x", "/a?not_access_token=x", "/a?b=access_token=x", "/a?access_tokens=x", "/a?%"]
        {
            assert!(from_fields(&[b"Bearer x"], target).is_ok(), "{target}");
        }
    }

    proptest! {
        #[test]
        fn any_field_is_answered(field in prop::collection::vec(0x20..=0xFF_u8, 0..40)) {
            prop_assume!(!field.contains(&0x7F));
            if let Ok(token) = from_fields(&[&field], "/") {
                prop_assert!(field.ends_with(token.as_bytes()));
                prop_assert!(field[..7].eq_ignore_ascii_case(b"bearer "));
            }
        }
    }
}
