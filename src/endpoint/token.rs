//! `POST /token` (RFC 6749 §3.2).
//!
//! Makes one call to [`issuance`], gives what was recorded. It decides nothing about the client.

use std::sync::Arc;

use axum::Extension;
use axum::body::Body;
use axum::extract::{Request, State};
use axum::http::Response;

use super::decision::{Question, decided};
use super::{Places, response};
use crate::app::App;
use crate::issuance;
use crate::pki::PresentedChain;

/// Answers a token request.
pub(super) async fn token(
    State(state): State<(Arc<App>, Places)>,
    Extension(peer): Extension<Arc<PresentedChain>>,
    request: Request,
) -> Response<Body> {
    let path = |Question { app, peer, parameters, request_id, now }| async move {
        issuance::issue(&app, &peer, parameters, request_id, now).await
    };
    decided("token", state, peer, request, path, |token| response::token(&token)).await
}
