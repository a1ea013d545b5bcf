//! HTTP around the path: the tower layer that guards a route, the axum extractor, the metadata route (RFC 9728).
//!
//! Takes requests whose extensions hold the [`PeerCertificate`] of their connection, gives the handler only those that
//! [`verification::decide`] lets through, with the [`AuthorizedCall`] in their extensions; answers the others by
//! RFC 6750 §3. It decides nothing itself, and waits where that is what was decided.

use std::fmt;
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
use crate::token::access_token::VerifiedToken;
use crate::verification::{self, AuthorizedCall, Binding, Decision, Requirement, Revocation};

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
    S: Service<Request<B>, Response = Response<R>> + Clone,
{
    type Response = Response<GuardedBody<R>>;
    type Error = S::Error;
    type Future = GuardedFuture<S, B>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(context)
    }

    fn call(&mut self, mut request: Request<B>) -> Self::Future {
        let Route { guard, required } = &*self.route;
        let mut shown = None;
        let peer = request.extensions().get::<PeerCertificate>();
        let decision = verification::decide(
            &guard.judgement,
            required,
            peer,
            &Credentials::of(request.headers(), request.uri()),
            guard.clock.now(),
            &mut shown,
        );
        let state = match decision {
            Ok(Decision::Permitted(call)) => {
                pass(call, &mut request);
                State::Passed { inner: self.inner.call(request) }
            }
            Ok(Decision::Undecided(call)) => {
                // The one that said it is ready waits with the call; another takes its place.
                let another = self.inner.clone();
                let inner = std::mem::replace(&mut self.inner, another);
                let waiting = Waiting { route: Arc::clone(&self.route), inner, request, shown };
                State::Asking { asking: Box::pin(call.settle()), waiting: Some(waiting) }
            }
            Err(refusal) => State::Refused { answer: Some(self.route.refuse(refusal, peer, shown.as_deref())) },
        };
        GuardedFuture { state }
    }
}

/// What the handler is given.
fn pass<B>(call: AuthorizedCall, request: &mut Request<B>) {
    metrics::counter!("countersign_guard_calls_total").increment(1);
    tracing::debug!(token.jti = call.claims().jti, client.id = call.client_id(), "call authorized");
    request.extensions_mut().insert(call);
}

impl Route {
    fn refuse(
        &self,
        refusal: Refusal,
        peer: Option<&PeerCertificate>,
        shown: Option<&VerifiedToken>,
    ) -> Response<Full<Bytes>> {
        metrics::counter!("countersign_guard_refusals_total", "reason" => refusal.reason()).increment(1);
        let (reason, stage) = (refusal.reason(), refusal.stage());
        // Somebody's good token in the wrong hands, or a revoked one, is worth a line; what anybody can send is not.
        if let Some(token) = shown {
            let thumbprint = peer.map(|peer| tracing::field::display(peer.thumbprint()));
            let jti = &token.claims().jti;
            tracing::info!(token.jti = jti, peer.thumbprint = thumbprint, refusal = reason, stage, "call refused");
        } else {
            tracing::debug!(refusal = reason, stage, "call refused");
        }
        self.response(refusal)
    }

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
    pub struct GuardedFuture<S, B>
    where
        S: Service<Request<B>>,
    {
        #[pin]
        state: State<S, B>,
    }
}

pin_project! {
    #[project = StateProjection]
    enum State<S, B>
    where
        S: Service<Request<B>>,
    {
        // The authorization server is asked; then the call goes on.
        Asking { asking: Asking, waiting: Option<Waiting<S, B>> },
        // The inner service answers.
        Passed { #[pin] inner: S::Future },
        // The call was refused: what the caller is told, until it is told.
        Refused { answer: Option<Response<Full<Bytes>>> },
    }
}

type Asking = Pin<Box<dyn Future<Output = Result<AuthorizedCall, Refusal>> + Send>>;

/// A call that waits, and the service that will answer it.
struct Waiting<S, B> {
    route: Arc<Route>,
    inner: S,
    request: Request<B>,
    shown: Option<Arc<VerifiedToken>>,
}

impl<S: Service<Request<B>>, B> Waiting<S, B> {
    fn decided(mut self, decision: Result<AuthorizedCall, Refusal>) -> State<S, B> {
        match decision {
            Ok(call) => {
                pass(call, &mut self.request);
                State::Passed { inner: self.inner.call(self.request) }
            }
            Err(refusal) => {
                let peer = self.request.extensions().get::<PeerCertificate>();
                State::Refused { answer: Some(self.route.refuse(refusal, peer, self.shown.as_deref())) }
            }
        }
    }
}

impl<S, B, R> Future for GuardedFuture<S, B>
where
    S: Service<Request<B>, Response = Response<R>>,
{
    type Output = Result<Response<GuardedBody<R>>, S::Error>;

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        let mut state = self.project().state;
        loop {
            match state.as_mut().project() {
                StateProjection::Asking { asking, waiting } => {
                    if waiting.is_none() {
                        return Poll::Pending; // polled again after the handler panicked: what was asked has ended
                    }
                    let decision = ready!(asking.as_mut().poll(context));
                    if let Some(waiting) = waiting.take() {
                        state.set(waiting.decided(decision));
                    }
                }
                StateProjection::Passed { inner } => {
                    let answer = ready!(inner.poll(context));
                    return Poll::Ready(answer.map(|response| response.map(Either::Left)));
                }
                StateProjection::Refused { answer } => {
                    return match answer.take() {
                        Some(answer) => Poll::Ready(Ok(answer.map(Either::Right))),
                        None => Poll::Pending, // polled again after it was ready, which the contract of futures forbids
                    };
                }
            }
        }
    }
}

impl<S: Service<Request<B>>, B> fmt::Debug for GuardedFuture<S, B> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("GuardedFuture")
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

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use axum::body::Body;
    use base64::Engine;
    use base64::engine::general_purpose::URL_SAFE_NO_PAD;
    use countersign_conformance::forge::Members;
    use http_body_util::BodyExt;
    use serde_json::{Value, json};
    use tokio::runtime::Handle;

    use super::*;
    use crate::double::{Double, ISSUER, KID, RESOURCE};
    use crate::status::WhenStale;
    use crate::status::introspection::{Answering, Line};

    const METADATA: &str = "https://api.example/.well-known/oauth-protected-resource/bank";

    fn app(guard: &Guard) -> Router {
        let who = |call: AuthorizedCall| async move { call.client_id().to_owned() };
        Router::new()
            .route("/accounts", get(who).layer(guard.require("accounts:read").unwrap()))
            .route("/admin", get(who).layer(guard.require("accounts:admin").unwrap()))
            .route("/any", get(who).layer(guard.require("").unwrap()))
            .route("/loose", get(who).layer(guard.require("").unwrap().danger_accept_any_certificate()))
            .route("/late", get(who).layer(guard.require("").unwrap().danger_ignore_revocation()))
            .route("/forgotten", get(who))
            .merge(guard.metadata_route())
    }

    struct Answered {
        status: u16,
        challenge: Option<String>,
        headers: http::HeaderMap,
        body: String,
    }

    async fn ask(double: &Double, peer: Option<&PeerCertificate>, target: &str, authorization: &[&str]) -> Answered {
        let mut request = Request::get(target);
        for field in authorization {
            request = request.header("authorization", *field);
        }
        let mut request = request.body(Body::empty()).unwrap();
        if let Some(peer) = peer {
            request.extensions_mut().insert(peer.clone());
        }
        let response = app(&double.guard).call(request).await.unwrap();
        let (parts, body) = response.into_parts();
        let body = String::from_utf8(body.collect().await.unwrap().to_bytes().to_vec()).unwrap();
        let challenge = parts.headers.get(WWW_AUTHENTICATE).map(|field| field.to_str().unwrap().to_owned());
        Answered { status: parts.status.as_u16(), challenge, headers: parts.headers, body }
    }

    async fn with_token(double: &Double, target: &str, change: impl FnOnce(Members) -> Members) -> Answered {
        let field = format!("Bearer {}", double.claiming(change));
        ask(double, Some(&double.peer), target, &[&field]).await
    }

    #[tokio::test]
    async fn a_good_call_reaches_the_handler() {
        let double = Double::new();
        for target in ["/accounts", "/any", "/accounts?page=2"] {
            let answer = with_token(&double, target, |claims| claims).await;
            assert_eq!((answer.status, answer.body.as_str()), (200, "client-1"), "{target}");
            assert_eq!(answer.challenge, None);
        }
    }

    #[tokio::test]
    async fn no_token() {
        let double = Double::new();
        for fields in [&[][..], &["Basic YTpi"]] {
            for peer in [None, Some(&double.peer)] {
                let answer = ask(&double, peer, "/accounts", fields).await;
                assert_eq!((answer.status, answer.body.as_str()), (401, "{}"));
                assert_eq!(answer.challenge.unwrap(), format!("Bearer resource_metadata=\"{METADATA}\""));
                assert_eq!(answer.headers[CACHE_CONTROL], "no-store");
            }
        }
    }

    #[tokio::test]
    async fn a_bad_token() {
        let double = Double::new();
        let answer = with_token(&double, "/accounts", |claims| claims.with("exp", 0)).await;
        let text = "The access token is not good for this call, on this connection, now.";
        assert_eq!(answer.status, 401);
        assert_eq!(
            answer.challenge.unwrap(),
            format!(r#"Bearer error="invalid_token", error_description="{text}", resource_metadata="{METADATA}""#)
        );
        let body: Value = serde_json::from_str(&answer.body).unwrap();
        assert_eq!(body, json!({ "error": "invalid_token", "error_description": text }));
        assert_eq!(answer.headers[CONTENT_TYPE], "application/json");
    }

    #[tokio::test]
    async fn malformed_requests() {
        let double = Double::new();
        let field = format!("Bearer {}", double.token().compact());
        for (target, fields) in [
            ("/accounts?access_token=x", &[field.as_str()][..]),
            ("/accounts?access_token=x", &[]),
            ("/accounts", &[&field, &field]),
            ("/accounts", &["Bearer"]),
            ("/accounts", &["Bearer a b"]),
        ] {
            let answer = ask(&double, Some(&double.peer), target, fields).await;
            assert_eq!(answer.status, 400, "{target} {fields:?}");
            assert!(answer.challenge.unwrap().starts_with(r#"Bearer error="invalid_request", "#));
        }
    }

    #[tokio::test]
    async fn too_little_scope() {
        let double = Double::new();
        let answer = with_token(&double, "/admin", |claims| claims).await;
        assert_eq!(answer.status, 403);
        let challenge = answer.challenge.unwrap();
        assert!(challenge.starts_with(r#"Bearer error="insufficient_scope", "#), "{challenge}");
        assert!(challenge.contains(r#", scope="accounts:admin", "#), "{challenge}");
    }

    #[tokio::test]
    async fn a_list_too_old() {
        let double = Double::new();
        double.wait(Duration::from_secs(31));
        let answer = with_token(&double, "/accounts", |claims| claims).await;
        assert_eq!((answer.status, answer.challenge), (503, None));
        assert_eq!(answer.headers[RETRY_AFTER], "1");
        assert!(answer.body.contains("temporarily_unavailable"));
        assert_eq!(with_token(&double, "/late", |claims| claims).await.status, 200);
    }

    /// Tells all that a token says, and whether it is active.
    struct Tells {
        active: bool,
    }

    impl Line for Tells {
        fn ask(&self, token: Arc<str>) -> Answering {
            let payload = URL_SAFE_NO_PAD.decode(token.split('.').nth(1).unwrap()).unwrap();
            let mut told: Value = serde_json::from_slice(&payload).unwrap();
            told["active"] = self.active.into();
            Box::pin(async move {
                tokio::task::yield_now().await;
                Ok(told.to_string().into())
            })
        }
    }

    /// A guard that has no list, and asks.
    fn asking(active: bool) -> Double {
        let double = Double::new();
        let builder = Guard::builder(ISSUER, RESOURCE).clock(Arc::clone(&double.clock) as _);
        let line = Some((Tells { active }, Handle::current(), Duration::from_secs(10)));
        let guard = builder.when_stale(WhenStale::Introspect).built(line).unwrap();
        guard.keys().take(double.jwks(KID).as_bytes()).unwrap();
        Double { guard, ..double }
    }

    #[tokio::test]
    async fn a_call_waits_for_what_is_told_of_its_token() {
        let double = asking(true);
        for target in ["/accounts", "/any", "/loose", "/late"] {
            let answer = with_token(&double, target, |claims| claims).await;
            assert_eq!((answer.status, answer.body.as_str()), (200, "client-1"), "{target}");
        }
        assert_eq!(with_token(&double, "/admin", |claims| claims).await.status, 403);
    }

    #[tokio::test]
    async fn a_token_that_is_not_active_is_refused_in_the_same_words() {
        let double = asking(false);
        let dead = with_token(&double, "/accounts", |claims| claims).await;
        let expired = with_token(&double, "/accounts", |claims| claims.with("exp", 0)).await;
        assert_eq!((dead.status, &dead.challenge, &dead.body), (401, &expired.challenge, &expired.body));
        assert_eq!(with_token(&double, "/loose", |claims| claims).await.status, 401);
        assert_eq!(with_token(&double, "/late", |claims| claims).await.status, 200);
    }

    #[tokio::test]
    async fn the_extension_alone_says_who_is_there() {
        let double = Double::new();
        let field = format!("Bearer {}", double.token().compact());
        let mut request = Request::get("/accounts").header("authorization", &field);
        let thumbprint = double.credential.thumbprint();
        for name in ["client-cert", "x-client-cert", "x-forwarded-client-cert", "x-ssl-client-cert", "x5t-s256"] {
            request = request.header(name, &thumbprint);
        }
        let response = app(&double.guard).call(request.body(Body::empty()).unwrap()).await.unwrap();
        assert_eq!(response.status(), 401);
    }

    #[tokio::test]
    async fn opting_out_is_per_route() {
        let double = Double::new();
        let field = format!("Bearer {}", double.token().compact());
        for (target, status) in [("/loose", 200), ("/any", 401), ("/late", 401)] {
            assert_eq!(ask(&double, None, target, &[&field]).await.status, status, "{target}");
        }
    }

    #[tokio::test]
    async fn an_unguarded_handler_answers_nobody() {
        let double = Double::new();
        let answer = with_token(&double, "/forgotten", |claims| claims).await;
        assert_eq!((answer.status, answer.body.as_str()), (500, r#"{"error":"server_error"}"#));
    }

    #[tokio::test]
    async fn metadata() {
        let double = Double::new();
        let answer = ask(&double, None, "/.well-known/oauth-protected-resource/bank", &[]).await;
        assert_eq!(answer.status, 200);
        let metadata: Value = serde_json::from_str(&answer.body).unwrap();
        assert_eq!(
            metadata,
            json!({
                "resource": RESOURCE,
                "authorization_servers": ["https://as.example"],
                "bearer_methods_supported": ["header"],
                "tls_client_certificate_bound_access_tokens": true,
            })
        );
        assert_eq!(ask(&double, None, "/.well-known/oauth-protected-resource", &[]).await.status, 404);
    }
}
