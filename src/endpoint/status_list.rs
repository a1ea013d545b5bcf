//! `GET /status-lists` and `GET /status-lists/{id}` (draft-ietf-oauth-status-list-20 §8, §9).
//!
//! Takes an id and what the asker can read, gives the Status List Token with it; without an id, where all of them are. It
//! knows nothing of what is in a list.

use std::sync::Arc;

use axum::body::Body;
use axum::extract::{Path, State};
use axum::http::header::ACCESS_CONTROL_ALLOW_ORIGIN;
use axum::http::{HeaderMap, HeaderValue, Response, Uri};
use bytes::Bytes;

use super::observe;
use super::preference::accepts;
use super::response::{self, Compressed, Document, Text};
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
    let text = Compressed { text: &list.compact, gzip: &list.gzip, etag: &list.etag };
    let response = response::compressed(&headers, &text, "application/statuslist+jwt", "public, max-age=1"); // §8.2
    let response = readable_anywhere(response);
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
