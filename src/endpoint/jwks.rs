//! `GET /jwks`: the public keys tokens are verified with (RFC 7517 §5).
//!
//! Takes what the key ring publishes now, gives it with an `ETag` and a minute to keep it (design §4): a key is published
//! ten minutes before it signs, so nobody who asks every minute misses one. It knows no key.

use std::sync::Arc;

use axum::body::Body;
use axum::extract::State;
use axum::http::{HeaderMap, HeaderValue, Response};

use super::observe;
use super::response::{self, Document};
use crate::app::App;

/// Serves the keys.
pub(super) async fn jwks(State(app): State<Arc<App>>, headers: HeaderMap) -> Response<Body> {
    let published = app.mint.keys().published(app.clock.now());
    let Ok(etag) = HeaderValue::from_str(&published.etag) else { return response::failure() };
    let document = Document {
        body: published.body.to_string().into(),
        content_type: HeaderValue::from_static("application/jwk-set+json"),
        content_encoding: None,
        cache_control: HeaderValue::from_static("public, max-age=60"),
        etag,
        varies: false,
    };
    let response = response::document(&headers, &document);
    observe("jwks", "ok", &response, None);
    response
}
