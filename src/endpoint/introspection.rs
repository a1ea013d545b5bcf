//! `POST /introspect` (RFC 7662 §2, RFC 9701).
//!
//! Takes a form and the certificate of a connection, makes one call to [`introspection`], gives what was recorded, in the
//! form that `Accept` asks for. It decides nothing.

use std::sync::Arc;

use axum::Extension;
use axum::body::Body;
use axum::extract::{Request, State};
use axum::http::header::ACCEPT;
use axum::http::{HeaderMap, Response, StatusCode};

use super::token::{parameters, refused};
use super::{Places, observe, response};
use crate::app::App;
use crate::audit::RequestId;
use crate::introspection::{self, Answer, Form};
use crate::pki::PresentedChain;
use crate::request::RequestRefusal;

/// Answers a resource server that asks about a token.
pub(super) async fn introspect(
    State((app, places)): State<(Arc<App>, Places)>,
    Extension(peer): Extension<Arc<PresentedChain>>,
    request: Request,
) -> Response<Body> {
    let began = app.clock.monotonic();
    let (head, body) = request.into_parts();
    let parameters = parameters(&head, body, &app.config.limits).await;
    let form = form(&head.headers);
    let request_id = RequestId::random(app.clock.now());
    let place = places.take();
    let parameters = if place.is_some() { parameters } else { Err(RequestRefusal::Overloaded) };
    let asking = tokio::spawn({
        let (app, request_id) = (app.clone(), request_id.clone());
        async move {
            let now = app.clock.now();
            let recorded = introspection::introspect(&app, &peer, parameters, form, request_id, now).await;
            drop(place);
            recorded
        }
    });
    let (reason, response) = match asking.await {
        Ok(recorded) => match recorded.into_answer() {
            Ok(Answer::Plain(introspection)) => ("ok", response::told(StatusCode::OK, &introspection)),
            Ok(Answer::Signed(compact)) => ("ok", response::signed_introspection(compact)),
            Err(refusal) => {
                let reason = refusal.reason();
                tracing::debug!(request.id = %request_id, refusal = reason, "a question about a token not answered");
                (reason, refused(&head.headers, &refusal))
            }
        },
        Err(error) => {
            tracing::error!(request.id = %request_id, %error, "a question about a token was not decided");
            ("undecided", response::failure())
        }
    };
    let response = response::with_request_id(response, &request_id);
    observe("introspect", reason, &response, Some(app.clock.monotonic().saturating_sub(began)));
    response
}

/// RFC 9701 §4: signed where the media type is named, and not with weight zero. A wildcard gets JSON, as RFC 7662 has it.
fn form(headers: &HeaderMap) -> Form {
    let is_asked_for =
        headers.get_all(ACCEPT).iter().filter_map(|value| value.to_str().ok()).flat_map(|value| value.split(',')).any(
            |range| {
                let mut parts = range.split(';').map(str::trim);
                let named =
                    parts.next().is_some_and(|name| name.eq_ignore_ascii_case("application/token-introspection+jwt"));
                let refused = parts.any(|weight| {
                    let zero = weight.strip_prefix("q=").or_else(|| weight.strip_prefix("Q="));
                    zero.is_some_and(|zero| zero.bytes().all(|byte| matches!(byte, b'0' | b'.')))
                });
                named && !refused
            },
        );
    if is_asked_for { Form::Signed } else { Form::Plain }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn signed_only_where_the_type_is_named() {
        for (accept, expected) in [
            ("application/token-introspection+jwt", Form::Signed),
            ("Application/Token-Introspection+JWT; q=0.5, application/json", Form::Signed),
            ("application/json, application/token-introspection+jwt", Form::Signed),
            ("application/token-introspection+jwt;q=0", Form::Plain),
            ("application/token-introspection+jwt; q=0.000", Form::Plain),
            ("application/jwt", Form::Plain),
            ("application/*", Form::Plain),
            ("*/*", Form::Plain),
            ("", Form::Plain),
        ] {
            let headers = HeaderMap::from_iter([(ACCEPT, accept.parse().unwrap())]);
            assert_eq!(form(&headers), expected, "{accept}");
        }
        assert_eq!(form(&HeaderMap::new()), Form::Plain);
    }
}
