//! `POST /introspect` (RFC 7662 §2, RFC 9701).
//!
//! Makes one call to [`introspection`], gives what was recorded, in the form that `Accept` asks for. It decides nothing.

use std::sync::Arc;

use axum::Extension;
use axum::body::Body;
use axum::extract::{Request, State};
use axum::http::header::ACCEPT;
use axum::http::{HeaderMap, Response, StatusCode};

use super::decision::{Question, decided};
use super::preference::is_named;
use super::{Places, response};
use crate::app::App;
use crate::introspection::{self, Answer, Form};
use crate::pki::PresentedChain;

/// Answers a resource server that asks about a token.
pub(super) async fn introspect(
    State(state): State<(Arc<App>, Places)>,
    Extension(peer): Extension<Arc<PresentedChain>>,
    request: Request,
) -> Response<Body> {
    let form = form(request.headers());
    let path = move |Question { app, peer, parameters, request_id, now }| async move {
        introspection::introspect(&app, &peer, parameters, form, request_id, now).await
    };
    let answer = |answer| match answer {
        Answer::Plain(introspection) => response::told(StatusCode::OK, &introspection),
        Answer::Signed(compact) => response::signed_introspection(compact),
    };
    decided("introspect", state, peer, request, path, answer).await
}

/// RFC 9701 §4: signed where the media type is named, and not with weight zero. A wildcard gets JSON, as RFC 7662 has it.
fn form(headers: &HeaderMap) -> Form {
    if is_named(headers, ACCEPT, "application/token-introspection+jwt") { Form::Signed } else { Form::Plain }
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
