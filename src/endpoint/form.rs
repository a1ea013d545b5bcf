//! Form bodies to pairs (RFC 6749 appendix B: `application/x-www-form-urlencoded` in UTF-8).
//!
//! Takes the head and the body of a request, gives [`Parameters`] in the order they came, or the refusal that says why
//! not. It knows no parameter by name.

use axum::body::Body;
use axum::http::header::{CONTENT_ENCODING, CONTENT_LENGTH, CONTENT_TYPE, HOST};
use axum::http::request::Parts;
use axum::http::uri::Authority;
use axum::http::{HeaderMap, Version};
use bytes::{Bytes, BytesMut};
use http_body_util::{BodyExt, LengthLimitError, Limited};

use crate::config::Limits;
use crate::request::{Parameters, RequestRefusal};
use crate::tls::{BodyHeld, BodyRoom};

/// More pairs than any request of ours has: what comes after is work without end for whoever looks for doubles.
const MOST_PAIRS: usize = 64;

/// Reads the pairs of a form body of at most `limits.body_bytes` that is complete within `limits.body`. The head is gone by
/// the time the body is waited for: a peer that lets many bodies be waited for has no heads kept for it.
///
/// # Errors
/// `UnsupportedMediaType`, `BodyTooLarge`, `BodiesTooLarge`, `BodyIncomplete` or `BodyMalformed`.
pub(super) async fn read(mut head: Parts, body: Body, limits: &Limits) -> Result<Parameters, RequestRefusal> {
    if !is_form(&head.headers) {
        return Err(RequestRefusal::UnsupportedMediaType);
    }
    // Refused unread where its length is announced, so that nobody who asks with `Expect` sends it (RFC 9110 §10.1.1).
    let announced = head.headers.get(CONTENT_LENGTH).and_then(|length| length.to_str().ok()?.parse::<u64>().ok());
    if announced.is_some_and(|length| length > limits.body_bytes as u64) {
        return Err(RequestRefusal::BodyTooLarge);
    }
    let held = head.extensions.remove::<BodyRoom>().map(BodyRoom::begin);
    drop(head);
    let body = Limited::new(body, limits.body_bytes);
    let read = async {
        match held {
            Some(held) => beside_others(body, held).await,
            None => Ok(body.collect().await.map_err(unread)?.to_bytes()),
        }
    };
    let body = tokio::time::timeout(limits.body, read).await.map_err(|_| RequestRefusal::BodyIncomplete)??;
    parse(&body)
}

/// A body on a connection that others are sent on at the same time.
async fn beside_others(mut body: Limited<Body>, mut held: BodyHeld) -> Result<Bytes, RequestRefusal> {
    let mut whole = BytesMut::new();
    while let Some(frame) = body.frame().await {
        let Ok(data) = frame.map_err(unread)?.into_data() else { continue };
        if !held.grow(data.len()) {
            return Err(RequestRefusal::BodiesTooLarge);
        }
        whole.extend_from_slice(&data);
    }
    Ok(whole.freeze())
}

#[expect(clippy::needless_pass_by_value, reason = "handed to map_err as it is")]
fn unread(error: axum::BoxError) -> RequestRefusal {
    if error.is::<LengthLimitError>() { RequestRefusal::BodyTooLarge } else { RequestRefusal::BodyIncomplete }
}

/// RFC 9112 §3.2: one `Host`, and one that is a host. hyper lets none, two, or another pass; two could be read as two
/// different servers on the way here.
///
/// # Errors
/// `HostMalformed`.
pub(super) fn check_host(head: &Parts) -> Result<(), RequestRefusal> {
    let mut hosts = head.headers.get_all(HOST).iter();
    let host_is_one = match (hosts.next(), hosts.next()) {
        (Some(host), None) => {
            Authority::try_from(host.as_bytes()).is_ok_and(|authority| !authority.as_str().contains('@'))
        }
        (None, None) => head.version != Version::HTTP_11,
        _ => false,
    };
    if host_is_one { Ok(()) } else { Err(RequestRefusal::HostMalformed) }
}

/// Whether the one `Content-Type` is a form in UTF-8, sent as it is.
fn is_form(headers: &HeaderMap) -> bool {
    let mut types = headers.get_all(CONTENT_TYPE).iter();
    let (Some(content_type), None) = (types.next(), types.next()) else { return false };
    // RFC 9110 §8.4.1: a coding nobody undoes would be read as the form itself.
    let coded =
        headers.get_all(CONTENT_ENCODING).iter().any(|coding| !coding.as_bytes().eq_ignore_ascii_case(b"identity"));
    !coded && content_type.to_str().is_ok_and(is_form_type)
}

/// RFC 9110 §8.3.1: type, subtype and parameter names without regard to case.
fn is_form_type(content_type: &str) -> bool {
    let mut parts = content_type.split(';').map(|part| part.trim_matches([' ', '\t']));
    if !parts.next().is_some_and(|essence| essence.eq_ignore_ascii_case("application/x-www-form-urlencoded")) {
        return false;
    }
    let mut charset = None;
    for parameter in parts.filter(|parameter| !parameter.is_empty()) {
        let Some((name, value)) = parameter.split_once('=') else { return false };
        if name.eq_ignore_ascii_case("charset") && charset.replace(value).is_some() {
            return false;
        }
    }
    // A token or the same in quotation marks (RFC 9110 §5.6.6).
    charset.is_none_or(|value| {
        let value = value.strip_prefix('"').and_then(|value| value.strip_suffix('"')).unwrap_or(value);
        value.eq_ignore_ascii_case("utf-8")
    })
}

/// The pairs of a body or a query. Empty ones between two `&` are passed over; a name without `=` has the empty value.
pub(super) fn parse(body: &[u8]) -> Result<Parameters, RequestRefusal> {
    let mut pairs = Vec::new();
    for pair in body.split(|&byte| byte == b'&').filter(|pair| !pair.is_empty()) {
        if pairs.len() == MOST_PAIRS {
            return Err(RequestRefusal::BodyMalformed);
        }
        let equals = pair.iter().position(|&byte| byte == b'=');
        let (name, value) = equals.map_or((pair, &[][..]), |at| (&pair[..at], &pair[at + 1..]));
        let name = decode(name)?;
        if name.is_empty() {
            return Err(RequestRefusal::BodyMalformed);
        }
        pairs.push((name, decode(value)?));
    }
    Ok(Parameters(pairs))
}

/// Undoes `+` and `%XX`. A `%` without two hexadecimal digits, a raw control character, or what is then no UTF-8 is refused
/// rather than repaired: two readers could repair it differently.
fn decode(text: &[u8]) -> Result<String, RequestRefusal> {
    let mut decoded = Vec::with_capacity(text.len());
    let mut bytes = text.iter();
    while let Some(&byte) = bytes.next() {
        decoded.push(match byte {
            b'+' => b' ',
            b'%' => match (bytes.next().and_then(hex_digit), bytes.next().and_then(hex_digit)) {
                (Some(high), Some(low)) => high << 4 | low,
                _ => return Err(RequestRefusal::BodyMalformed),
            },
            byte if byte.is_ascii_control() => return Err(RequestRefusal::BodyMalformed),
            byte => byte,
        });
    }
    String::from_utf8(decoded).map_err(|_| RequestRefusal::BodyMalformed)
}

fn hex_digit(byte: &u8) -> Option<u8> {
    char::from(*byte).to_digit(16).and_then(|digit| u8::try_from(digit).ok())
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use proptest::prelude::*;

    use super::*;

    fn encode(text: &str) -> String {
        text.bytes()
            .map(|byte| match byte {
                b' ' => "+".to_owned(),
                byte if byte.is_ascii_alphanumeric() => char::from(byte).to_string(),
                byte => format!("%{byte:02X}"),
            })
            .collect()
    }

    proptest! {
        #[test]
        fn what_is_encoded_is_read_back(pairs in proptest::collection::vec((".{1,20}", ".{0,40}"), 0..20)) {
            let body = pairs.iter().map(|(name, value)| format!("{}={}", encode(name), encode(value))).collect::<Vec<_>>().join("&");
            prop_assert_eq!(parse(body.as_bytes()), Ok(Parameters(pairs)));
        }

        #[test]
        fn no_bytes_make_it_panic(body in proptest::collection::vec(any::<u8>(), 0..300)) {
            let _ = parse(&body);
        }
    }

    #[test]
    fn every_byte_alone_is_itself_or_refused() {
        for byte in 0..=u8::MAX {
            let expected = match byte {
                b'+' => Some(" ".to_owned()),
                b'&' => None,
                b'=' => Some("=".to_owned()),
                0x20..=0x24 | 0x26..=0x7E => Some(char::from(byte).to_string()),
                _ => Some("refused".to_owned()),
            };
            let read = parse(&[b'a', b'=', byte]);
            match expected.as_deref() {
                Some("refused") => assert_eq!(read, Err(RequestRefusal::BodyMalformed), "{byte:#x}"),
                Some(value) => assert_eq!(read, Ok(Parameters(vec![("a".to_owned(), value.to_owned())])), "{byte:#x}"),
                None => assert_eq!(read, Ok(Parameters(vec![("a".to_owned(), String::new())]))),
            }
        }
    }

    #[test]
    fn broken_encodings_are_refused() {
        for body in
            ["a=%", "a=%4", "a=%4g", "a=%g4", "a=%%41", "a=%ff", "a=%C3", "a=%ED%A0%80", "=b", "a=%u0041", "a=b\r\n"]
        {
            assert_eq!(parse(body.as_bytes()), Err(RequestRefusal::BodyMalformed), "{body}");
        }
        assert_eq!(parse(b"a=\xff"), Err(RequestRefusal::BodyMalformed));
    }

    #[test]
    fn pairs_are_bounded() {
        let body = |count: usize| vec!["a"; count].join("&");
        assert!(parse(body(MOST_PAIRS).as_bytes()).is_ok());
        assert_eq!(parse(body(MOST_PAIRS + 1).as_bytes()), Err(RequestRefusal::BodyMalformed));
    }

    #[test]
    fn forms_are_told_by_their_type() {
        for good in [
            "application/x-www-form-urlencoded",
            "APPLICATION/X-WWW-FORM-URLENCODED",
            "application/x-www-form-urlencoded;charset=UTF-8",
            "application/x-www-form-urlencoded; charset=utf-8",
            "application/x-www-form-urlencoded ;\tCharset=\"Utf-8\"",
            "application/x-www-form-urlencoded;",
            "application/x-www-form-urlencoded; boundary=x",
        ] {
            assert!(is_form_type(good), "{good}");
        }
        for bad in [
            "",
            "application/json",
            "application/x-www-form-urlencodedx",
            "application/x-www-form-urlencoded, application/json",
            "application/x-www-form-urlencoded; charset=iso-8859-1",
            "application/x-www-form-urlencoded; charset=utf-8; charset=utf-8",
            "application/x-www-form-urlencoded; charset",
            "application/x-www-form-urlencoded; charset=\"utf-8",
            "multipart/form-data; boundary=x",
            "text/plain",
        ] {
            assert!(!is_form_type(bad), "{bad}");
        }
    }

    #[test]
    fn a_second_content_type_or_a_coding_is_no_form() {
        let form = "application/x-www-form-urlencoded".parse().unwrap();
        let mut headers = HeaderMap::new();
        assert!(!is_form(&headers));
        headers.insert(CONTENT_TYPE, form);
        assert!(is_form(&headers));
        headers.insert(CONTENT_ENCODING, "identity".parse().unwrap());
        assert!(is_form(&headers));
        headers.insert(CONTENT_ENCODING, "gzip".parse().unwrap());
        assert!(!is_form(&headers));
        headers.remove(CONTENT_ENCODING);
        headers.append(CONTENT_TYPE, "application/json".parse().unwrap());
        assert!(!is_form(&headers));
    }

    fn head(headers: &HeaderMap) -> Parts {
        let (mut head, ()) = axum::http::Request::new(()).into_parts();
        head.headers.clone_from(headers);
        head
    }

    #[tokio::test]
    async fn bodies_end_in_size_and_time() {
        let mut headers = HeaderMap::new();
        headers.insert(CONTENT_TYPE, "application/x-www-form-urlencoded".parse().unwrap());
        let limits = Limits { body_bytes: 4, body: Duration::from_millis(20), ..Limits::default() };
        let read = async |headers: &HeaderMap, body: Body| read(head(headers), body, &limits).await;
        let fits = read(&headers, Body::from("a=12")).await;
        assert_eq!(fits, Ok(Parameters(vec![("a".to_owned(), "12".to_owned())])));
        assert_eq!(read(&headers, Body::from("a=123")).await, Err(RequestRefusal::BodyTooLarge));
        let never = Body::from_stream(futures_util::stream::pending::<Result<bytes::Bytes, std::io::Error>>());
        assert_eq!(read(&headers, never).await, Err(RequestRefusal::BodyIncomplete));
        let broken = Body::from_stream(futures_util::stream::iter([
            Ok(bytes::Bytes::from("a")),
            Err(std::io::Error::other("reset")),
        ]));
        assert_eq!(read(&headers, broken).await, Err(RequestRefusal::BodyIncomplete));
        headers.insert(CONTENT_LENGTH, "5".parse().unwrap());
        let unread = Body::from_stream(futures_util::stream::pending::<Result<bytes::Bytes, std::io::Error>>());
        assert_eq!(read(&headers, unread).await, Err(RequestRefusal::BodyTooLarge));
    }
}
