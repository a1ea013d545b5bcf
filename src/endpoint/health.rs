//! `GET /healthz`, `/readyz`, `/metrics`, `/audit/checkpoint`: for the operator, over plain HTTP on a listener of its own.
//!
//! Takes what the parts of the server say of themselves, gives it to probes and to Prometheus. It is served on loopback
//! by default, because it tells what no stranger needs to know.

use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use axum::extract::State;
use axum::http::{Response, StatusCode};
use countersign_resource_server::token::jws::SigningAlgorithm;
use metrics_exporter_prometheus::PrometheusHandle;
use serde_json::json;

use super::response;
use crate::app::App;
use crate::telemetry;

/// The process runs.
pub(super) async fn healthz() -> Response<Body> {
    response::text(StatusCode::OK, "ok\n".to_owned())
}

/// The server can issue tokens: 200, or 503 with what is missing.
pub(super) async fn readyz(State(app): State<Arc<App>>) -> Response<Body> {
    let now = app.clock.now();
    let mut missing = Vec::new();
    if !matches!(tokio::time::timeout(PATIENCE, app.registry.catch_up()).await, Ok(Ok(_))) {
        missing.push("registry");
    }
    if !app.audit.is_written() {
        missing.push("audit_log");
    }
    let keys = app.mint.keys();
    if !keys.may_sign() || keys.current().signing(SigningAlgorithm::ES256, now).is_none() {
        missing.push("signing_key");
    }
    if list_age(&app) > STALE_AFTER {
        missing.push("revocation_list");
    }
    let status = if missing.is_empty() { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    response::json(status, &json!({ "ready": missing.is_empty(), "missing": missing }))
}

/// The newest checkpoint of the audit log, for whoever keeps a copy elsewhere: a compact JWS, or 404 before the first. It says
/// how much is recorded, which is nothing for strangers.
pub(super) async fn audit_checkpoint(State(app): State<Arc<App>>) -> Response<Body> {
    match app.checkpoints.newest() {
        Some(newest) => response::jwt(newest.statement.clone()),
        None => response::json(StatusCode::NOT_FOUND, &json!({ "error": "not_found" })),
    }
}

/// Everything that is counted.
pub(super) async fn metrics(State((app, handle)): State<(Arc<App>, PrometheusHandle)>) -> Response<Body> {
    metrics::gauge!(telemetry::REVOCATION_LIST_AGE).set(list_age(&app).as_secs_f64());
    response::text(StatusCode::OK, handle.render())
}

fn list_age(app: &App) -> Duration {
    app.clock.now().since(app.status.current().signed_at)
}

/// How long the registry may take to answer a probe.
const PATIENCE: Duration = Duration::from_secs(1);

/// Resource servers refuse everything under a list older than this, by default (design §6).
const STALE_AFTER: Duration = Duration::from_secs(30);
