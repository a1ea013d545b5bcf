//! HTTP and nothing else: the route table.
//!
//! Takes requests, makes one call each, gives responses. No decision is taken here, and no status code is chosen outside
//! [`response`]; whatever the framework would answer by itself is answered in JSON instead.

/// `GET` and `POST /certificate-check`.
mod certificate_check;

/// What the endpoints that decide have in common.
mod decision;

/// Form bodies to pairs.
mod form;

/// `GET /healthz`, `/readyz`, `/metrics`.
mod health;

/// `POST /introspect`.
mod introspection;

/// `GET /jwks`.
mod jwks;

/// `GET /.well-known/oauth-authorization-server`.
mod metadata;

/// What an asker can read.
mod preference;

/// Bodies, status codes, no-store.
mod response;

/// `POST /revoke`.
mod revocation;

/// `GET /revocations`.
mod revocations;

/// `GET /status-lists` and what is below.
mod status_list;

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
use crate::capacity;
use crate::error::Refusal;
use crate::request::RequestRefusal;
use crate::telemetry;

/// Where the endpoints are, below the issuer's path.
pub mod path {
    /// Design §8.
    pub const CERTIFICATE_CHECK: &str = "/certificate-check";
    /// RFC 7662 §2.
    pub const INTROSPECT: &str = "/introspect";
    /// RFC 7517 §5.
    pub const JWKS: &str = "/jwks";
    /// RFC 8414 §3; the issuer's path goes behind it.
    pub const METADATA: &str = "/.well-known/oauth-authorization-server";
    /// The signed list of design §6.
    pub const REVOCATIONS: &str = "/revocations";
    /// RFC 7009 §2.
    pub const REVOKE: &str = "/revoke";
    /// The aggregation of draft-ietf-oauth-status-list-20 §9; the lists are below it.
    pub const STATUS_LISTS: &str = crate::status_list::STATUS_LISTS;
    /// RFC 6749 §3.2.
    pub const TOKEN: &str = "/token";
}

/// The routes that strangers reach.
pub fn router(app: Arc<App>) -> Router {
    let metadata = Arc::new(metadata::document(&app.config));
    let places = capacity::Places::new(&app.config.limits);
    let endpoints = |base: &str| {
        Router::new()
            .route(&format!("{base}{}", path::TOKEN), post(token::token).with_state((app.clone(), places.clone())))
            .route(
                &format!("{base}{}", path::REVOKE),
                post(revocation::revoke).with_state((app.clone(), places.clone())),
            )
            .route(
                &format!("{base}{}", path::INTROSPECT),
                post(introspection::introspect).with_state((app.clone(), places.clone())),
            )
            .route(
                &format!("{base}{}", path::CERTIFICATE_CHECK),
                get(certificate_check::certificate_check)
                    .post(certificate_check::certificate_check)
                    .with_state((app.clone(), places.clone())),
            )
            .route(&format!("{base}{}", path::JWKS), get(jwks::jwks).with_state(app.clone()))
            .route(&format!("{base}{}", path::REVOCATIONS), get(revocations::revocations).with_state(app.clone()))
            .route(&format!("{base}{}", path::STATUS_LISTS), get(status_list::aggregation).with_state(app.clone()))
            .route(&format!("{base}{}/{{id}}", path::STATUS_LISTS), get(status_list::list).with_state(app.clone()))
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

/// Shared by whatever is decided: tokens, their ends, questions about them and checks.
type Places = Arc<capacity::Places>;

/// The routes of the operations listener.
pub fn operations(app: Arc<App>, metrics: PrometheusHandle) -> Router {
    Router::new()
        .route("/healthz", get(health::healthz))
        .route("/readyz", get(health::readyz).with_state(app.clone()))
        .route("/audit/checkpoint", get(health::audit_checkpoint).with_state(app.clone()))
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

#[cfg(test)]
mod tests {
    use std::path::{Path, PathBuf};

    use axum::http::{HeaderMap, Method, Request, StatusCode, header};
    use countersign_resource_server::time::{Clock, SystemClock};
    use http_body_util::BodyExt;
    use serde_json::Value;
    use tokio::sync::OnceCell;
    use tower::ServiceExt;

    use super::*;
    use crate::config::Config;
    use crate::mint::key_directory::KeyDirectory;
    use crate::mint::key_ring;
    use crate::pki::{Handshake, PresentedChain};

    struct Rig {
        app: Arc<App>,
        router: Router,
        _directory: tempfile::TempDir,
    }

    struct Answer {
        status: StatusCode,
        headers: HeaderMap,
        body: Vec<u8>,
    }

    impl Rig {
        async fn start(change: impl FnOnce(&mut Config)) -> Self {
            let directory = tempfile::tempdir().unwrap();
            let mut config = Config::embedded(directory.path());
            config.keys_directory = keys().await;
            change(&mut config);
            let app = App::open(config, Arc::new(SystemClock::new())).await.unwrap();
            Self { router: router(app.clone()), app, _directory: directory }
        }

        async fn send(&self, request: Request<Body>) -> Answer {
            let mut request = request;
            let handshake = Handshake { remote: ([127, 0, 0, 1], 1).into(), protocol: "TLSv1.3", resumed: false };
            request.extensions_mut().insert(Arc::new(PresentedChain::new(handshake, Vec::new())));
            let response = self.router.clone().oneshot(request).await.unwrap();
            let (head, body) = response.into_parts();
            Answer {
                status: head.status,
                headers: head.headers,
                body: body.collect().await.unwrap().to_bytes().to_vec(),
            }
        }

        async fn get(&self, path: &str) -> Answer {
            self.send(Request::get(path).body(Body::empty()).unwrap()).await
        }

        async fn post(&self, headers: &[(&str, &str)], body: impl Into<Body>) -> Answer {
            let request =
                headers.iter().fold(Request::post("/token").header("host", "as.example"), |request, (name, value)| {
                    request.header(*name, *value)
                });
            self.send(request.body(body.into()).unwrap()).await
        }
    }

    /// Signing keys that the tests share: RSA keys take their time to make.
    async fn keys() -> PathBuf {
        static KEYS: OnceCell<tempfile::TempDir> = OnceCell::const_new();
        let make = async || {
            let directory = tempfile::tempdir().unwrap();
            let keys = KeyDirectory::open(directory.path()).unwrap();
            key_ring::complete(&keys, SystemClock::new().now()).await.unwrap();
            directory
        };
        KEYS.get_or_init(make).await.path().to_owned()
    }

    impl Answer {
        /// The error code, after checking what every failure has in common.
        fn error(&self) -> String {
            assert_eq!(self.headers[header::CACHE_CONTROL], "no-store");
            assert_eq!(self.headers[header::CONTENT_TYPE], "application/json");
            let body: Value = serde_json::from_slice(&self.body).unwrap();
            let description = body["error_description"].as_str().unwrap();
            assert!(description.is_ascii() && !description.contains(['"', '\\']));
            body["error"].as_str().unwrap().to_owned()
        }
    }

    const FORM: (&str, &str) = ("content-type", "application/x-www-form-urlencoded");

    #[tokio::test]
    async fn every_failure_is_json_with_the_status_that_http_has_for_it() {
        let rig = Rig::start(|config| config.limits.body_bytes = 64).await;
        let large = "a=".to_owned() + &"b".repeat(64);
        for (answer, status, code) in [
            (rig.get("/").await, 404, "invalid_request"),
            (rig.get("/token/").await, 404, "invalid_request"),
            (rig.get("//token").await, 404, "invalid_request"),
            (rig.get("/%74oken").await, 404, "invalid_request"),
            (rig.get("/token").await, 405, "invalid_request"),
            (rig.get("/revoke").await, 405, "invalid_request"),
            (rig.post(&[], "a=b").await, 415, "invalid_request"),
            (rig.post(&[("content-type", "application/json")], "{}").await, 415, "invalid_request"),
            (rig.post(&[FORM], large).await, 413, "invalid_request"),
            (rig.post(&[FORM], "a=%zz").await, 400, "invalid_request"),
            (rig.post(&[FORM], "grant_type=client_credentials").await, 400, "invalid_request"),
            (rig.post(&[FORM], "grant_type=client_credentials&client_id=x").await, 400, "invalid_client"),
            (rig.get("/revocations?wait=x").await, 400, "invalid_request"),
            (rig.get("/certificate-check").await, 400, "invalid_request"),
        ] {
            assert_eq!((answer.status.as_u16(), answer.error().as_str()), (status, code));
        }
    }

    #[tokio::test]
    async fn another_method_is_told_which_ones_there_are() {
        let rig = Rig::start(|_| {}).await;
        for (path, allowed) in [
            ("/token", "POST"),
            ("/revoke", "POST"),
            ("/introspect", "POST"),
            ("/certificate-check", "GET,HEAD,POST"),
            ("/jwks", "GET,HEAD"),
            ("/revocations", "GET,HEAD"),
        ] {
            for method in [Method::PUT, Method::DELETE, Method::OPTIONS, Method::TRACE, Method::PATCH] {
                let answer = rig.send(Request::builder().method(method).uri(path).body(Body::empty()).unwrap()).await;
                assert_eq!((answer.status.as_u16(), answer.error().as_str()), (405, "invalid_request"));
                assert_eq!(answer.headers[header::ALLOW], allowed);
            }
        }
        let overridden = [FORM, ("x-http-method-override", "GET")];
        assert_eq!(rig.post(&overridden, "grant_type=client_credentials&client_id=x").await.status, 400);
    }

    #[tokio::test]
    async fn the_authorization_header_gets_a_challenge_of_its_own_scheme() {
        let rig = Rig::start(|_| {}).await;
        let form = "grant_type=client_credentials&client_id=x";
        for (value, challenge) in [
            ("Basic eDp5", "Basic realm=\"countersign\""),
            ("bEARER x", "Bearer realm=\"countersign\""),
            ("Unheard of", "Basic realm=\"countersign\""),
        ] {
            let answer = rig.post(&[FORM, ("authorization", value)], form).await;
            assert_eq!((answer.status.as_u16(), answer.error().as_str()), (401, "invalid_client"));
            assert_eq!(answer.headers[header::WWW_AUTHENTICATE], challenge);
        }
        let two = format!("{form}&client_assertion=x");
        let answer = rig.post(&[FORM, ("authorization", "Basic eDp5")], two).await;
        assert_eq!((answer.status.as_u16(), answer.error().as_str()), (400, "invalid_request"));
        assert_eq!(answer.headers.get(header::WWW_AUTHENTICATE), None);
    }

    #[tokio::test]
    async fn a_request_without_host_or_with_two_is_refused() {
        let rig = Rig::start(|_| {}).await;
        for hosts in [&[][..], &["as.example", "as.example"]] {
            let request = Request::post("/token").header(FORM.0, FORM.1);
            let request = hosts.iter().fold(request, |request, host| request.header(header::HOST, *host));
            let form = "grant_type=client_credentials&client_id=x";
            let answer = rig.send(request.body(form.into()).unwrap()).await;
            assert_eq!((answer.status.as_u16(), answer.error().as_str()), (400, "invalid_request"));
        }
    }

    #[tokio::test]
    async fn parameters_in_the_query_are_refused() {
        let rig = Rig::start(|_| {}).await;
        let query = Request::post("/token?grant_type=client_credentials&client_id=x")
            .header(FORM.0, FORM.1)
            .header("host", "as.example");
        let answer = rig.send(query.body(Body::empty()).unwrap()).await;
        assert_eq!((answer.status.as_u16(), answer.error().as_str()), (400, "invalid_request"));
    }

    #[tokio::test]
    async fn every_token_answer_names_its_request_and_the_record_knows_it() {
        let rig = Rig::start(|_| {}).await;
        let answer = rig.post(&[FORM], "grant_type=client_credentials&client_id=x").await;
        let id = answer.headers["x-request-id"].to_str().unwrap();
        assert!(id.len() == 32 && id.bytes().all(|byte| byte.is_ascii_hexdigit()));
        rig.app.audit.flush().await;
        let bodies: Vec<_> = rig.app.audit.recent(10).await.unwrap().into_iter().map(|entry| entry.body).collect();
        assert!(bodies.iter().any(|body| body.contains("client_unknown")), "{bodies:?}");
    }

    #[tokio::test]
    async fn a_server_that_is_full_says_so() {
        let rig = Rig::start(|config| config.limits.requests = 0).await;
        let answer = rig.post(&[FORM], "grant_type=client_credentials&client_id=x").await;
        assert_eq!((answer.status.as_u16(), answer.error().as_str()), (503, "temporarily_unavailable"));
        assert_eq!(answer.headers[header::RETRY_AFTER], "1");
    }

    #[tokio::test]
    async fn documents_are_known_by_their_tags() {
        let rig = Rig::start(|_| {}).await;
        for path in [path::METADATA, path::JWKS, path::REVOCATIONS] {
            let whole = rig.get(path).await;
            assert_eq!(whole.status, 200);
            assert!(!whole.body.is_empty());
            let tag = &whole.headers[header::ETAG];
            for (asked, status) in [(tag.to_str().unwrap(), 304), ("*", 304), ("\"other\"", 200)] {
                let asking = Request::get(path).header(header::IF_NONE_MATCH, asked).body(Body::empty()).unwrap();
                let answer = rig.send(asking).await;
                assert_eq!(answer.status.as_u16(), status);
                assert_eq!(answer.body.is_empty(), status == 304);
                assert_eq!(&answer.headers[header::ETAG], tag);
            }
        }
    }

    #[tokio::test]
    async fn an_issuer_with_a_path_has_its_endpoints_below_it() {
        let config = Config::read("issuer = \"https://as.example/tenant\"", Path::new(""), []).unwrap();
        let rig = Rig::start(|own| own.issuer = config.issuer).await;
        for (path, status) in [
            ("/.well-known/oauth-authorization-server/tenant", 200),
            ("/tenant/.well-known/oauth-authorization-server", 404),
            ("/.well-known/oauth-authorization-server", 404),
            ("/tenant/jwks", 200),
            ("/jwks", 404),
            ("/tenant/token", 405),
            ("/tenant/certificate-check", 400),
            ("/certificate-check", 404),
        ] {
            assert_eq!(rig.get(path).await.status.as_u16(), status, "{path}");
        }
    }

    #[tokio::test]
    async fn the_list_is_compressed_for_those_who_ask() {
        let rig = Rig::start(|_| {}).await;
        let plain = rig.get(path::REVOCATIONS).await;
        assert_eq!(plain.headers[header::CONTENT_TYPE], "application/jwt");
        assert_eq!(plain.body.iter().filter(|&&byte| byte == b'.').count(), 2);
        let asking =
            Request::get(path::REVOCATIONS).header(header::ACCEPT_ENCODING, "gzip").body(Body::empty()).unwrap();
        let packed = rig.send(asking).await;
        assert_eq!(packed.headers[header::CONTENT_ENCODING], "gzip");
        assert_eq!(packed.body[..2], [0x1F, 0x8B]);
        assert_ne!(packed.headers[header::ETAG], plain.headers[header::ETAG]);
    }

    #[tokio::test]
    async fn operations_tell_whether_tokens_can_be_issued() {
        let rig = Rig::start(|_| {}).await;
        let operations = Rig { router: operations(rig.app.clone(), telemetry::start_metrics()), ..rig };
        assert_eq!(operations.get("/healthz").await.status, 200);
        let ready = operations.get("/readyz").await;
        assert_eq!(ready.status, 200);
        assert_eq!(
            serde_json::from_slice::<Value>(&ready.body).unwrap(),
            serde_json::json!({ "ready": true, "missing": [] })
        );
        let metrics = operations.get("/metrics").await;
        assert!(String::from_utf8(metrics.body).unwrap().contains(telemetry::REVOCATION_LIST_AGE));
        operations.app.audit.close().await;
        let ready = operations.get("/readyz").await;
        assert_eq!(ready.status, 503);
        assert_eq!(
            serde_json::from_slice::<Value>(&ready.body).unwrap(),
            serde_json::json!({ "ready": false, "missing": ["audit_log"] })
        );
        operations.app.close().await;
        assert_eq!(operations.get("/readyz").await.status, 503);
    }
}
