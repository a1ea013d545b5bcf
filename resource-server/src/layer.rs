//! HTTP around the path: the tower layer that guards a route, the axum extractor, the metadata route (RFC 9728).
//!
//! Takes requests whose extensions hold the [`PeerCertificate`] of their connection, gives the handler only those that
//! [`verification::authorize`] lets through, with the [`AuthorizedCall`] in their extensions; answers the others by
//! RFC 6750 §3. It decides nothing itself.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use axum::Router;
use axum::extract::FromRequestParts;
use axum::response::IntoResponse;
use axum::routing::get;
use bytes::Bytes;
use http::header::{CACHE_CONTROL, CONTENT_TYPE, RETRY_AFTER, WWW_AUTHENTICATE};
use http::request::Parts;
use http::{HeaderValue, Request, Response, StatusCode};
use http_body_util::{Either, Full};
use pin_project_lite::pin_project;
use tower_layer::Layer;
use tower_service::Service;

use crate::bearer::Credentials;
use crate::error::{Answer, Refusal};
use crate::guard::Guard;
use crate::peer::PeerCertificate;
use crate::verification::{self, AuthorizedCall, Binding, Requirement, Revocation};

/// A tower layer: behind it are only calls with a good token. For axum, tonic, or any other tower service over HTTP.
#[derive(Clone, Debug)]
pub struct RequireToken(Arc<Route>);

#[derive(Clone, Debug)]
struct Route {
    guard: Guard,
    required: Requirement,
}

impl RequireToken {
    pub(crate) fn new(guard: Guard, required: Requirement) -> Self {
        Self(Arc::new(Route { guard, required }))
    }

    /// Danger: lets whoever holds a token use it, from any connection, with any certificate or none. A stolen token is
    /// then as good as an own one.
    #[must_use]
    pub fn danger_accept_any_certificate(self) -> Self {
        let mut route = Arc::unwrap_or_clone(self.0);
        route.required.binding = Binding::DangerUnbound;
        Self(Arc::new(route))
    }

    /// Danger: lets revoked tokens through until they expire, and no longer needs a fresh revocation list.
    #[must_use]
    pub fn danger_ignore_revocation(self) -> Self {
        let mut route = Arc::unwrap_or_clone(self.0);
        route.required.revocation = Revocation::DangerIgnored;
        Self(Arc::new(route))
    }
}

impl<S> Layer<S> for RequireToken {
    type Service = Guarded<S>;

    fn layer(&self, inner: S) -> Guarded<S> {
        Guarded { route: Arc::clone(&self.0), inner }
    }
}

/// A service behind [`RequireToken`].
#[derive(Clone, Debug)]
pub struct Guarded<S> {
    route: Arc<Route>,
    inner: S,
}

/// The inner service's body, or that of a refusal.
pub type GuardedBody<B> = Either<B, Full<Bytes>>;

impl<S, B, R> Service<Request<B>> for Guarded<S>
where
    S: Service<Request<B>, Response = Response<R>>,
{
    type Response = Response<GuardedBody<R>>;
    type Error = S::Error;
    type Future = GuardedFuture<S::Future>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(context)
    }

    fn call(&mut self, mut request: Request<B>) -> Self::Future {
        let Route { guard, required } = &*self.route;
        let decision = verification::authorize(
            &guard.judgement,
            required,
            request.extensions().get::<PeerCertificate>(),
            &Credentials::of(request.headers(), request.uri()),
            guard.clock.now(),
        );
        match decision {
            Ok(call) => {
                metrics::counter!("countersign_guard_calls_total").increment(1);
                request.extensions_mut().insert(call);
                GuardedFuture { state: State::Passed { inner: self.inner.call(request) } }
            }
            Err(refusal) => {
                metrics::counter!("countersign_guard_refusals_total", "reason" => refusal.reason()).increment(1);
                tracing::debug!(refusal = refusal.reason(), stage = refusal.stage(), "call refused");
                GuardedFuture { state: State::Refused { answer: Some(self.route.response(refusal)) } }
            }
        }
    }
}

impl Route {
    fn response(&self, refusal: Refusal) -> Response<Full<Bytes>> {
        let Answer { status, www_authenticate, retry_after_seconds, body } =
            refusal.answer(&self.guard.description.url, &self.required.scope);
        let mut response = Response::new(Full::from(body));
        *response.status_mut() = StatusCode::from_u16(status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        let headers = response.headers_mut();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
        headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
        // Scopes and resource identifiers are printable ASCII, so this always is a field value.
        if let Some(challenge) = www_authenticate.and_then(|text| HeaderValue::try_from(text).ok()) {
            headers.insert(WWW_AUTHENTICATE, challenge);
        }
        if let Some(seconds) = retry_after_seconds {
            headers.insert(RETRY_AFTER, seconds.into());
        }
        response
    }
}

pin_project! {
    /// The answer of a guarded service.
    #[derive(Debug)]
    pub struct GuardedFuture<F> {
        #[pin]
        state: State<F>,
    }
}

pin_project! {
    #[project = StateProjection]
    #[derive(Debug)]
    enum State<F> {
        // The inner service answers.
        Passed { #[pin] inner: F },
        // The call was refused: what the caller is told, until it is told.
        Refused { answer: Option<Response<Full<Bytes>>> },
    }
}

impl<F, R, E> Future for GuardedFuture<F>
where
    F: Future<Output = Result<Response<R>, E>>,
{
    type Output = Result<Response<GuardedBody<R>>, E>;

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        match self.project().state.project() {
            StateProjection::Passed { inner } => {
                let answer = ready!(inner.poll(context));
                Poll::Ready(answer.map(|response| response.map(Either::Left)))
            }
            StateProjection::Refused { answer } => match answer.take() {
                Some(answer) => Poll::Ready(Ok(answer.map(Either::Right))),
                None => Poll::Pending, // polled again after it was ready, which the contract of futures forbids
            },
        }
    }
}

/// The extractor: a handler that takes an [`AuthorizedCall`] cannot be reached without one.
impl<S: Sync> FromRequestParts<S> for AuthorizedCall {
    type Rejection = Unguarded;

    async fn from_request_parts(parts: &mut Parts, _state: &S) -> Result<Self, Unguarded> {
        parts.extensions.get::<Self>().cloned().ok_or(Unguarded)
    }
}

/// A handler asked for an [`AuthorizedCall`] on a route without [`RequireToken`]: a mistake in the program, answered 500.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("this route has no RequireToken layer")]
pub struct Unguarded;

impl IntoResponse for Unguarded {
    fn into_response(self) -> axum::response::Response {
        tracing::error!("{self}");
        let headers = [(CONTENT_TYPE, "application/json"), (CACHE_CONTROL, "no-store")];
        (StatusCode::INTERNAL_SERVER_ERROR, headers, r#"{"error":"server_error"}"#).into_response()
    }
}

impl Guard {
    /// The route of the metadata, `/.well-known/oauth-protected-resource` with the resource's own path behind it
    /// (RFC 9728 §3.1). Open to anybody.
    pub fn metadata_route<S: Clone + Send + Sync + 'static>(&self) -> Router<S> {
        let description = Arc::clone(&self.description);
        let path = description.path.split('?').next().unwrap_or_default().to_owned();
        let handler = move || {
            let json = description.json.clone();
            async move { ([(CONTENT_TYPE, "application/json"), (CACHE_CONTROL, "max-age=3600")], json) }
        };
        Router::new().route(&path, get(handler))
    }
}
