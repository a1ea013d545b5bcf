//! HTTP and nothing else: the route table.
//!
//! Takes requests, makes one call each, gives responses. No decision is taken here, and no status code is chosen outside
//! [`response`]; whatever the framework would answer by itself is answered in JSON instead.

/// Form bodies to pairs.
mod form;

/// `GET /healthz`, `/readyz`, `/metrics`.
mod health;

/// `GET /jwks`.
mod jwks;

/// `GET /.well-known/oauth-authorization-server`.
mod metadata;

/// Bodies, status codes, no-store.
mod response;

/// `GET /revocations`.
mod revocations;

/// `POST /token`.
mod token;

use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::http::{HeaderMap, Response};
use axum::routing::{get, post};
use metrics_exporter_prometheus::PrometheusHandle;

use crate::app::App;
use crate::error::Refusal;
use crate::request::RequestRefusal;
use crate::telemetry;

/// Where the endpoints are, below the issuer's path.
pub mod path {
    /// RFC 7517 §5.
    pub const JWKS: &str = "/jwks";
    /// RFC 8414 §3; the issuer's path goes behind it.
    pub const METADATA: &str = "/.well-known/oauth-authorization-server";
    /// The signed list of design §6.
    pub const REVOCATIONS: &str = "/revocations";
    /// RFC 6749 §3.2.
    pub const TOKEN: &str = "/token";
}

/// The routes that strangers reach.
pub fn router(app: Arc<App>) -> Router {
    let metadata = Arc::new(metadata::document(&app.config));
    let endpoints = |base: &str| {
        Router::new()
            .route(&format!("{base}{}", path::TOKEN), post(token::token).with_state(app.clone()))
            .route(&format!("{base}{}", path::JWKS), get(jwks::jwks).with_state(app.clone()))
            .route(&format!("{base}{}", path::REVOCATIONS), get(revocations::revocations).with_state(app.clone()))
    };
    let base = app.config.issuer.path();
    // RFC 8414 §3: the issuer's path is inserted behind the well-known segment.
    let well_known = format!("{}{base}", path::METADATA);
    let mut router = endpoints(base).route(
        &well_known,
        get(move |headers: HeaderMap| async move {
            let response = response::document(&headers, &metadata);
            observe("metadata", "ok", &response, None);
            response
        }),
    );
    if let Some(face) = &app.config.public
        && face.mtls_url.path() != base
    {
        router = router.merge(endpoints(face.mtls_url.path()));
    }
    router.method_not_allowed_fallback(method_not_allowed).fallback(unknown_path)
}

/// The routes of the operations listener.
pub fn operations(app: Arc<App>, metrics: PrometheusHandle) -> Router {
    Router::new()
        .route("/healthz", get(health::healthz))
        .route("/readyz", get(health::readyz).with_state(app.clone()))
        .route("/metrics", get(health::metrics).with_state((app, metrics)))
        .method_not_allowed_fallback(method_not_allowed)
        .fallback(unknown_path)
}

/// axum adds the `Allow` of the route.
async fn method_not_allowed() -> Response<Body> {
    unreadable(RequestRefusal::MethodNotAllowed)
}

async fn unknown_path() -> Response<Body> {
    unreadable(RequestRefusal::UnknownPath)
}

/// Refused before there was anything to decide: counted, but no decision to put on record.
fn unreadable(refusal: RequestRefusal) -> Response<Body> {
    let reason = refusal.reason();
    let response = response::refusal(&Refusal::Request(refusal));
    observe("none", reason, &response, None);
    response
}

/// Counts an answer, and how long it took where that is worth knowing.
fn observe(endpoint: &'static str, reason: &'static str, response: &Response<Body>, took: Option<Duration>) {
    let status = response.status().as_u16();
    // Constant labels: what a peer sends never becomes the name of a time series.
    let class = match status {
        200..=299 => "2xx",
        300..=399 => "3xx",
        400..=499 => "4xx",
        _ => "5xx",
    };
    metrics::counter!(telemetry::REQUESTS, "endpoint" => endpoint, "status" => class, "reason" => reason).increment(1);
    if let Some(took) = took {
        metrics::histogram!(telemetry::REQUEST_SECONDS, "endpoint" => endpoint).record(took.as_secs_f64());
    }
}
