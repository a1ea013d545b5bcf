//! `POST /revoke` (RFC 7009 §2).
//!
//! Makes one call to [`revocation`], gives what was recorded. It decides nothing.

use std::sync::Arc;

use axum::Extension;
use axum::body::Body;
use axum::extract::{Request, State};
use axum::http::Response;

use super::decision::{Question, decided};
use super::{Places, response};
use crate::app::App;
use crate::pki::PresentedChain;
use crate::revocation;

/// Answers a client that wants a token dead.
pub(super) async fn revoke(
    State(state): State<(Arc<App>, Places)>,
    Extension(peer): Extension<Arc<PresentedChain>>,
    request: Request,
) -> Response<Body> {
    let path = |Question { app, peer, parameters, request_id, now }| async move {
        revocation::revoke(&app, &peer, parameters, request_id, now).await
    };
    decided("revoke", state, peer, request, path, |()| response::revoked()).await
}
