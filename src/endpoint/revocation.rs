//! `POST /revoke` (RFC 7009 §2).
//!
//! Takes a form and the connection's certificates, makes one call to [`revocation`], gives what was recorded. It decides
//! nothing: the parameters travel as those of a token request do.

use std::sync::Arc;

use axum::Extension;
use axum::body::Body;
use axum::extract::{Request, State};
use axum::http::Response;

use super::token::{parameters, refused};
use super::{Places, observe, response};
use crate::app::App;
use crate::audit::RequestId;
use crate::pki::PresentedChain;
use crate::request::RequestRefusal;
use crate::revocation;

/// Answers a client that wants a token dead.
pub(super) async fn revoke(
    State((app, places)): State<(Arc<App>, Places)>,
    Extension(peer): Extension<Arc<PresentedChain>>,
    request: Request,
) -> Response<Body> {
    let began = app.clock.monotonic();
    let (head, body) = request.into_parts();
    let parameters = parameters(&head, body, &app.config.limits).await;
    let request_id = RequestId::random(app.clock.now());
    let place = places.take();
    let parameters = if place.is_some() { parameters } else { Err(RequestRefusal::Overloaded) };
    // As a token request: what has begun is done, whoever hangs up.
    let revoking = tokio::spawn({
        let (app, request_id) = (app.clone(), request_id.clone());
        async move {
            let now = app.clock.now();
            let recorded = revocation::revoke(&app, &peer, parameters, request_id, now).await;
            drop(place);
            recorded
        }
    });
    let (reason, response) = match revoking.await {
        Ok(recorded) => match recorded.into_answer() {
            Ok(()) => ("ok", response::revoked()),
            Err(refusal) => {
                let reason = refusal.reason();
                tracing::debug!(request.id = %request_id, refusal = reason, "token not revoked");
                (reason, refused(&head.headers, &refusal))
            }
        },
        Err(error) => {
            tracing::error!(request.id = %request_id, %error, "a revocation was not decided");
            ("undecided", response::failure())
        }
    };
    let response = response::with_request_id(response, &request_id);
    observe("revoke", reason, &response, Some(app.clock.monotonic().saturating_sub(began)));
    response
}
