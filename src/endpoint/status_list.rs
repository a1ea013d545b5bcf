//! `GET /status-lists` and `GET /status-lists/{id}` (draft-ietf-oauth-status-list-20 §8, §9).
//!
//! Takes an id and what the asker can read, gives the Status List Token with it; without an id, where all of them are. It
//! knows nothing of what is in a list.

use std::sync::Arc;

use axum::body::Body;
use axum::extract::{Path, State};
use axum::http::header::{ACCEPT, ACCESS_CONTROL_ALLOW_ORIGIN};
use axum::http::{HeaderMap, HeaderValue, Response, Uri};
use bytes::Bytes;

use super::observe;
use super::response::{self, Document};
use super::revocations::{Text, accepts_gzip};
use crate::app::App;
use crate::error::Refusal;
use crate::registry::LookupRefusal;
use crate::request::RequestRefusal;

/// The one form there is (§8.1). The CWT form is not offered.
const STATUS_LIST_JWT: (&str, &str) = ("application", "statuslist+jwt");

/// Serves one list.
pub(super) async fn list(
    State(app): State<Arc<App>>,
    id: Option<Path<String>>,
    uri: Uri,
    headers: HeaderMap,
) -> Response<Body> {
    let list = match find(&app, id.as_ref().map_or("", |id| id.as_str()), &uri, &headers).await {
        Ok(list) => list,
        Err(refusal) => {
            let response = response::refusal(&refusal);
            observe("status_list", refusal.reason(), &response, None);
            return response;
        }
    };
    let gzip = accepts_gzip(&headers);
    // RFC 9110 §8.8.3.3: another coding is another representation, under a tag of its own.
    let etag =
        if gzip { list.etag.trim_end_matches('"').to_owned() + "-gzip\"" } else { list.etag.as_ref().to_owned() };
    let Ok(etag) = HeaderValue::try_from(etag) else { return response::failure() };
    let document = Document {
        body: if gzip { Bytes::from_owner(list.gzip.clone()) } else { Bytes::from_owner(Text(list.compact.clone())) },
        content_type: HeaderValue::from_static("application/statuslist+jwt"), // §8.2
        content_encoding: gzip.then(|| HeaderValue::from_static("gzip")),
        cache_control: HeaderValue::from_static("public, max-age=1"),
        etag,
        varies: true,
    };
    let response = readable_anywhere(response::document(&headers, &document));
    observe("status_list", "ok", &response, None);
    response
}

async fn find(
    app: &App,
    id: &str,
    uri: &Uri,
    headers: &HeaderMap,
) -> Result<Arc<crate::status_list::SignedList>, Refusal> {
    // §8.4: what is not supported is said to be, and not answered with something else.
    let asks_for_history = |pair: &str| pair.split('=').next() == Some("time");
    if uri.query().is_some_and(|query| query.split('&').any(asks_for_history)) {
        return Err(RequestRefusal::HistoryNotOffered.into());
    }
    if !accepts(headers, STATUS_LIST_JWT) {
        return Err(RequestRefusal::NotAcceptable.into());
    }
    match app.status_lists.list(id).await {
        Ok(Some(list)) => Ok(list),
        Ok(None) => Err(RequestRefusal::UnknownPath.into()),
        Err(_) => Err(LookupRefusal::RegistryUnavailable.into()),
    }
}

/// Serves the URIs of all lists (§9.3: always `application/json`).
pub(super) async fn aggregation(State(app): State<Arc<App>>, headers: HeaderMap) -> Response<Body> {
    let aggregation = app.status_lists.aggregation();
    let Ok(etag) = HeaderValue::try_from(aggregation.etag.as_ref()) else { return response::failure() };
    let document = Document {
        body: Bytes::from_owner(Text(aggregation.json.clone())),
        content_type: HeaderValue::from_static("application/json"),
        content_encoding: None,
        cache_control: HeaderValue::from_static("public, max-age=1"),
        etag,
        varies: false,
    };
    let response = readable_anywhere(response::document(&headers, &document));
    observe("status_lists", "ok", &response, None);
    response
}

/// §8.1: readable by scripts of any origin. What is served is public, and no credentials change it.
fn readable_anywhere(mut response: Response<Body>) -> Response<Body> {
    response.headers_mut().insert(ACCESS_CONTROL_ALLOW_ORIGIN, HeaderValue::from_static("*"));
    response
}

/// RFC 9110 §12.5.1: whether this media type is acceptable. The closest range that matches decides; without the header,
/// everything is.
fn accepts(headers: &HeaderMap, (kind, subtype): (&str, &str)) -> bool {
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
        let refused = parts.any(|weight| {
            let weight = weight.strip_prefix("q=").or_else(|| weight.strip_prefix("Q="));
            weight.is_some_and(|weight| weight.bytes().all(|byte| matches!(byte, b'0' | b'.')))
        });
        match closest {
            Some((before, _)) if before > closeness => {}
            // Said twice: acceptable if it once is.
            Some((before, acceptable)) if before == closeness => closest = Some((closeness, acceptable || !refused)),
            _ => closest = Some((closeness, !refused)),
        }
    }
    closest.map_or(!any, |(_, acceptable)| acceptable)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_closest_range_decides() {
        let accepted = |values: &[&str]| {
            let mut headers = HeaderMap::new();
            for value in values {
                headers.append(ACCEPT, value.parse().unwrap());
            }
            accepts(&headers, STATUS_LIST_JWT)
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
