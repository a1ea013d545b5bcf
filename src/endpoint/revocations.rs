//! `GET /revocations`: the signed list of what is dead (design §6).
//!
//! Takes the version the asker holds and how long it would wait for another, gives the list as it then stands: signed,
//! public, compressed where that is understood. It knows nothing of marks.

use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use axum::extract::State;
use axum::http::header::ACCEPT_ENCODING;
use axum::http::{HeaderMap, HeaderValue, Response, Uri};
use bytes::Bytes;

use super::observe;
use super::response::{self, Document};
use crate::app::App;
use crate::error::Refusal;
use crate::request::RequestRefusal;

/// The longest anybody may wait.
const LONGEST_WAIT: u64 = 10;

/// Serves the list, at once or as soon as it is another than the asker's.
pub(super) async fn revocations(State(app): State<Arc<App>>, uri: Uri, headers: HeaderMap) -> Response<Body> {
    let Some(asked) = Asked::parse(uri.query().unwrap_or_default()) else {
        let response = response::refusal(&Refusal::Request(RequestRefusal::ParameterMalformed));
        observe("revocations", RequestRefusal::ParameterMalformed.reason(), &response, None);
        return response;
    };
    let list = app.status.wait_for_news(asked.known, asked.wait).await;
    let gzip = accepts_gzip(&headers);
    // RFC 9110 §8.8.3.3: another coding is another representation, under a tag of its own.
    let etag =
        if gzip { list.etag.trim_end_matches('"').to_owned() + "-gzip\"" } else { list.etag.as_ref().to_owned() };
    let Ok(etag) = HeaderValue::try_from(etag) else { return response::failure() };
    let document = Document {
        // Shared, not copied: thousands may be told of one change at once.
        body: if gzip { Bytes::from_owner(list.gzip.clone()) } else { Bytes::from_owner(Text(list.compact.clone())) },
        content_type: HeaderValue::from_static("application/jwt"),
        content_encoding: gzip.then(|| HeaderValue::from_static("gzip")),
        // An answer to "is there anything newer than this" is nobody else's.
        cache_control: HeaderValue::from_static(if asked.known.is_some() { "no-store" } else { "public, max-age=1" }),
        etag,
        varies: true,
    };
    let response = response::document(&headers, &document);
    observe("revocations", "ok", &response, None);
    response
}

/// Text that several answers share.
pub(super) struct Text(pub(super) Arc<str>);

impl AsRef<[u8]> for Text {
    fn as_ref(&self) -> &[u8] {
        self.0.as_bytes()
    }
}

#[derive(Debug, PartialEq, Eq)]
struct Asked {
    known: Option<(i64, i64)>,
    wait: Duration,
}

impl Asked {
    /// `epoch` and `number` together or neither, `wait` in whole seconds; none twice, others are ignored.
    fn parse(query: &str) -> Option<Self> {
        let (mut epoch, mut number, mut wait) = (None, None, None);
        for pair in query.split('&').filter(|pair| !pair.is_empty()) {
            let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
            let slot = match name {
                "epoch" => &mut epoch,
                "number" => &mut number,
                "wait" => &mut wait,
                _ => continue,
            };
            if slot.replace(decimal(value)?).is_some() {
                return None;
            }
        }
        let known = match (epoch, number) {
            (Some(epoch), Some(number)) => Some((epoch, number)),
            (None, None) => None,
            _ => return None,
        };
        let wait = u64::try_from(wait.unwrap_or(0)).ok()?.min(LONGEST_WAIT);
        Some(Self { known, wait: Duration::from_secs(wait) })
    }
}

fn decimal(text: &str) -> Option<i64> {
    text.bytes().all(|byte| byte.is_ascii_digit()).then(|| text.parse().ok()).flatten()
}

/// RFC 9110 §12.5.3: `gzip` named, and not with weight zero. A bare `*` gets the list as it is.
pub(super) fn accepts_gzip(headers: &HeaderMap) -> bool {
    headers
        .get_all(ACCEPT_ENCODING)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .any(|coding| {
            let mut parts = coding.split(';').map(str::trim);
            let named = parts.next().is_some_and(|name| name.eq_ignore_ascii_case("gzip"));
            let refused = parts.any(|weight| {
                let zero = weight.strip_prefix("q=").or_else(|| weight.strip_prefix("Q="));
                zero.is_some_and(|zero| zero.bytes().all(|byte| matches!(byte, b'0' | b'.')))
            });
            named && !refused
        })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn questions_are_read_strictly() {
        let asked = |known, seconds| Some(Asked { known, wait: Duration::from_secs(seconds) });
        assert_eq!(Asked::parse(""), asked(None, 0));
        assert_eq!(Asked::parse("epoch=1&number=22&wait=9"), asked(Some((1, 22)), 9));
        assert_eq!(Asked::parse("wait=99999"), asked(None, LONGEST_WAIT));
        assert_eq!(Asked::parse("other=x"), asked(None, 0));
        for bad in [
            "epoch=1",
            "number=1",
            "epoch=&number=1",
            "epoch=-1&number=1",
            "epoch=1&epoch=1&number=1",
            "epoch=1&number=9223372036854775808",
            "wait=1s",
            "wait=+1",
            "wait=1&wait=1",
            "wait",
        ] {
            assert_eq!(Asked::parse(bad), None, "{bad}");
        }
    }

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
}
