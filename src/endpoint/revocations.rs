//! `GET /revocations`: the signed list of what is dead (design §6).
//!
//! Takes the version the asker holds and how long it would wait for another, gives the list as it then stands: signed,
//! public, compressed where that is understood. Who asked is noted, and changes nothing. It knows nothing of marks.

use std::sync::Arc;
use std::time::Duration;

use axum::Extension;
use axum::body::Body;
use axum::extract::State;
use axum::http::{HeaderMap, Response, Uri};

use super::observe;
use super::response::{self, Compressed};
use crate::app::App;
use crate::error::Refusal;
use crate::pki::PresentedChain;
use crate::request::RequestRefusal;

/// The longest anybody may wait.
const LONGEST_WAIT: u64 = 10;

/// Serves the list, at once or as soon as it is another than the asker's.
pub(super) async fn revocations(
    State(app): State<Arc<App>>,
    Extension(peer): Extension<Arc<PresentedChain>>,
    uri: Uri,
    headers: HeaderMap,
) -> Response<Body> {
    let Some(asked) = Asked::parse(uri.query().unwrap_or_default()) else {
        let response = response::refusal(&Refusal::Request(RequestRefusal::ParameterMalformed));
        observe("revocations", RequestRefusal::ParameterMalformed.reason(), &response, None);
        return response;
    };
    if let Some(known) = asked.known {
        app.followers.asked(&peer, known);
    }
    // Not for as long as it waits: who is gone is known by that nobody holds it.
    drop(peer);
    let list = app.status.wait_for_news(asked.known, asked.wait).await;
    // An answer to "is there anything newer than this" is nobody else's.
    let caching = if asked.known.is_some() { "no-store" } else { "public, max-age=1" };
    let text = Compressed { text: &list.compact, gzip: &list.gzip, etag: &list.etag };
    let response = response::compressed(&headers, &text, "application/jwt", caching);
    observe("revocations", "ok", &response, None);
    response
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
}
