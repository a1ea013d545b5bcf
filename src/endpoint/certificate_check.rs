//! `GET` and `POST /certificate-check` (design §8): would the certificate on this connection be let in, and if not, why?
//!
//! Takes a `client_id` in the query or in a form, makes one call to [`explanation::check`], gives what was recorded. It
//! decides nothing: what a peer may know is said there.

use std::sync::Arc;

use axum::Extension;
use axum::body::Body;
use axum::extract::{Request, State};
use axum::http::request::Parts;
use axum::http::{Method, Response, StatusCode};
use tokio::time::{Instant, sleep_until};

use super::{Places, form, observe, response};
use crate::app::App;
use crate::audit::RequestId;
use crate::config::Limits;
use crate::explanation::{self, Answer, STRANGERS_WAIT};
use crate::pki::PresentedChain;
use crate::request::{Parameters, RequestRefusal};

/// Answers a peer that asks about its own certificate.
pub(super) async fn certificate_check(
    State((app, places)): State<(Arc<App>, Places)>,
    Extension(peer): Extension<Arc<PresentedChain>>,
    request: Request,
) -> Response<Body> {
    let (began, arrived) = (app.clock.monotonic(), Instant::now());
    let (head, body) = request.into_parts();
    let request_id = RequestId::random(app.clock.now());
    // Before any work, the reading of the body included.
    let let_in = app
        .rates
        .count_check(peer.handshake.remote.ip(), peer.thumbprint())
        .and_then(|()| places.look(began, app.audit.commit_time()));
    let parameters = match let_in {
        Ok(()) => parameters(head, body, &app.config.limits).await,
        Err(refusal) => Err(refusal),
    };
    let question = parameters.and_then(|parameters| Ok((parameters, places.take(app.clock.monotonic())?)));
    let (parameters, place) =
        question.map_or_else(|refusal| (Err(refusal), None), |(parameters, place)| (Ok(parameters), Some(place)));
    // As a token request: whoever hangs up still leaves a record.
    let checking = tokio::spawn({
        let (app, request_id) = (app.clone(), request_id.clone());
        async move {
            let now = app.clock.now();
            let recorded = explanation::check(&app, &peer, parameters, request_id, now).await;
            drop(place); // not held while a stranger waits
            recorded
        }
    });
    let (reason, response) = match checking.await {
        Ok(recorded) => match recorded.into_answer() {
            Ok(Answer::Told(explanation)) => {
                let reason = explanation.refusal.as_ref().map_or("ok", crate::error::Refusal::reason);
                (reason, response::told(StatusCode::OK, &explanation))
            }
            Ok(Answer::NotKnown(answer)) => {
                let response = response::told(StatusCode::OK, &answer);
                sleep_until(next_tick(arrived, Instant::now())).await;
                ("not_known", response)
            }
            Ok(Answer::NoCertificate(answer)) => ("peer_no_certificate", response::told(StatusCode::OK, &answer)),
            Err(refusal) => (refusal.reason(), response::refusal(&refusal)),
        },
        Err(error) => {
            tracing::error!(request.id = %request_id, %error, "a certificate was not checked");
            ("undecided", response::failure())
        }
    };
    let response = response::with_request_id(response, &request_id);
    observe("certificate_check", reason, &response, Some(app.clock.monotonic().saturating_sub(began)));
    response
}

/// The first multiple of [`STRANGERS_WAIT`] after `arrived` that is not over.
fn next_tick(arrived: Instant, now: Instant) -> Instant {
    let over = now.saturating_duration_since(arrived).as_nanos() / STRANGERS_WAIT.as_nanos();
    arrived + STRANGERS_WAIT * u32::try_from(over).unwrap_or(u32::MAX - 1).saturating_add(1)
}

/// In the query of a `GET`, in the body of a `POST`; never in both.
async fn parameters(head: Parts, body: Body, limits: &Limits) -> Result<Parameters, RequestRefusal> {
    form::check_host(&head)?;
    let query = head.uri.query().unwrap_or_default();
    if head.method != Method::POST {
        return form::parse(query.as_bytes());
    }
    if !query.is_empty() {
        return Err(RequestRefusal::ParameterInQuery);
    }
    form::read(head, body, limits).await
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[tokio::test]
    async fn a_strangers_answer_leaves_on_the_tick() {
        let arrived = Instant::now();
        for (took, leaves) in [(0, 100), (1, 100), (99, 100), (100, 200), (101, 200), (250, 300)] {
            let tick = next_tick(arrived, arrived + Duration::from_millis(took));
            assert_eq!(tick - arrived, Duration::from_millis(leaves), "{took}");
        }
    }
}
