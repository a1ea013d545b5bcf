//! The example, over real TLS, with an authorization server's double behind it: what a caller meets from outside.

#![expect(clippy::unwrap_used, reason = "test code, of which clippy knows only what stands in test functions")]

#[path = "../examples/guarded_api.rs"]
#[expect(unreachable_pub, reason = "the file is an example first")]
mod guarded_api;

use std::net::SocketAddr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::extract::State;
use axum::routing::get;
use bytes::Bytes;
use countersign_conformance::forge::{Members, Token};
use countersign_conformance::pki::{Authority, Credential, Name, Template};
use countersign_conformance::{JwsAlgorithm, Key, KeyKind};
use countersign_resource_server::status::{MarkHash, MarkKind, REVOCATION_LIST_TYPE};
use countersign_resource_server::time::{Clock, SystemClock};
use countersign_resource_server::{Guard, GuardBuilder, PeerAcceptor, PeerCertificate, peer};
use http::{Request, Response, Version};
use http_body_util::{BodyExt, Empty};
use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer};
use rustls::{ClientConfig, RootCertStore};
use serde_json::{Value, json};
use tokio::sync::oneshot;

const RESOURCE: &str = "https://localhost:8444";

fn now() -> i64 {
    SystemClock::new().now().as_seconds()
}

/// What the authorization server's double says at present.
struct Issuer {
    key: Key,
    url: Mutex<String>,
    list: Mutex<List>,
    /// How often a list was asked for.
    asked: AtomicUsize,
    /// Who asked for it last.
    asker: Mutex<Option<PeerCertificate>>,
}

#[derive(Clone)]
enum List {
    Marks {
        number: i64,
        marks: Value,
    },
    Garbage,
    /// One that was signed before, once more.
    Replayed(String),
    /// Signed with another key under the same name.
    Forged,
    CutShort,
    /// Two gigabytes.
    Endless,
    NotModified,
    Unavailable,
}

impl Issuer {
    fn jwks(&self) -> String {
        let mut jwk = self.key.jwk();
        jwk["kid"] = "k1".into();
        json!({ "keys": [jwk] }).to_string()
    }

    fn sign(&self, typ: &str, claims: Members) -> String {
        let header = Members::new().with("typ", typ).with("alg", "ES256").with("kid", "k1");
        Token { header, claims, algorithm: JwsAlgorithm::Es256, key: &self.key }.compact()
    }

    fn list(&self, number: i64, marks: Value) -> Members {
        Members::new()
            .with("iss", self.url.lock().unwrap().as_str())
            .with("iat", now())
            .with("exp", now() + 60)
            .with("epoch", 1)
            .with("number", number)
            .with("salt", "s")
            .with("marks", marks)
    }

    async fn asked_for_the_list(State(issuer): State<Arc<Self>>, request: Request<Body>) -> Response<Body> {
        *issuer.asker.lock().unwrap() = request.extensions().get::<PeerCertificate>().cloned();
        issuer.revocations()
    }

    fn revocations(&self) -> Response<Body> {
        self.asked.fetch_add(1, Ordering::Relaxed);
        let text = |text: String| Response::new(Body::from(text));
        let status = |status: u16| Response::builder().status(status).body(Body::empty()).unwrap();
        let chunk = || Ok(Bytes::from_static(&[b'x'; 65_536]));
        match self.list.lock().unwrap().clone() {
            List::Garbage => text("garbage".to_owned()),
            List::Marks { number, marks } => text(self.sign(REVOCATION_LIST_TYPE, self.list(number, marks))),
            List::Replayed(list) => text(list),
            List::Forged => {
                let thief = Key::generate(KeyKind::P256);
                let header = Members::new().with("typ", REVOCATION_LIST_TYPE).with("alg", "ES256").with("kid", "k1");
                let claims = self.list(9, json!({}));
                text(Token { header, claims, algorithm: JwsAlgorithm::Es256, key: &thief }.compact())
            }
            List::CutShort => {
                let broken = Err(std::io::Error::other("cut"));
                Response::new(Body::from_stream(futures_util::stream::iter([chunk(), broken])))
            }
            List::Endless => {
                let chunks = (0..32_768).map(move |_| chunk().map_err(|error: std::io::Error| error));
                Response::new(Body::from_stream(futures_util::stream::iter(chunks)))
            }
            List::NotModified => status(304),
            List::Unavailable => status(503),
        }
    }

    fn token(&self, credential: &Credential) -> String {
        let claims = Members::new()
            .with("iss", self.url.lock().unwrap().as_str())
            .with("sub", "client-1")
            .with("aud", RESOURCE)
            .with("exp", now() + 300)
            .with("iat", now())
            .with("jti", "jti-1")
            .with("client_id", "client-1")
            .with("scope", "accounts:read")
            .with("cnf", json!({ "x5t#S256": credential.thumbprint() }))
            .with("participant_id", "participant-1")
            .with("roles", json!([]))
            .with("environment", "sandbox")
            .with("registry_version", 1);
        self.sign("at+jwt", claims)
    }

    fn mark(&self, kind: MarkKind, id: &str) {
        let hash = serde_json::to_value(MarkHash::of("s", kind, id)).unwrap();
        let marks = json!({ hash.as_str().unwrap(): 2 });
        *self.list.lock().unwrap() = List::Marks { number: 2, marks };
    }
}

/// The double, the example and everything to call it with.
struct World {
    issuer: Arc<Issuer>,
    partner: Authority,
    roots_pem: String,
    roots: RootCertStore,
    api: SocketAddr,
    guard: Guard,
    stop: Option<oneshot::Sender<()>>,
}

impl World {
    async fn new() -> Self {
        let authority = Authority::root("Server CA", now());
        let server = authority.issue(&Template::server(&["localhost"], now()), KeyKind::P256);
        let issuer = Arc::new(Issuer {
            key: Key::generate(KeyKind::P256),
            url: Mutex::new(String::new()),
            list: Mutex::new(List::Marks { number: 1, marks: json!({}) }),
            asked: AtomicUsize::new(0),
            asker: Mutex::new(None),
        });
        let app = Router::new()
            .route("/jwks", get(|State(issuer): State<Arc<Issuer>>| async move { issuer.jwks() }))
            .route("/revocations", get(Issuer::asked_for_the_list))
            .with_state(Arc::clone(&issuer));
        let chain = server.chain.iter().cloned().map(CertificateDer::from).collect();
        let key = PrivatePkcs8KeyDer::from(server.key.pkcs8().to_vec()).into();
        let tls = PeerAcceptor::new(Arc::new(peer::server_config(chain, key).unwrap()));
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        listener.set_nonblocking(true).unwrap();
        let port = listener.local_addr().unwrap().port();
        *issuer.url.lock().unwrap() = format!("https://localhost:{port}");
        tokio::spawn(axum_server::from_tcp(listener).unwrap().acceptor(tls).serve(app.into_make_service()));

        let settings = guarded_api::Settings {
            listen: SocketAddr::from(([127, 0, 0, 1], 0)),
            issuer: format!("https://localhost:{port}"),
            resource: RESOURCE.to_owned(),
            certificate_pem: server.chain_pem().into_bytes(),
            key_pem: server.key.to_pem().into_bytes(),
            roots_pem: authority.to_pem().into_bytes(),
        };
        let ((ready, told), (stop, stopped)) = (oneshot::channel(), oneshot::channel::<()>());
        tokio::spawn(guarded_api::serve(settings, ready, async {
            let _stopped = stopped.await;
        }));
        let (api, guard) = told.await.unwrap();
        eventually("the guard is ready", || guard.is_ready()).await;
        let mut roots = RootCertStore::empty();
        roots.add_parsable_certificates(CertificateDer::pem_slice_iter(authority.to_pem().as_bytes()).flatten());
        let partner = Authority::root("Partner CA", now());
        Self { issuer, partner, roots_pem: authority.to_pem(), roots, api, guard, stop: Some(stop) }
    }

    /// Another guard of the same API, to be bent.
    fn guard(&self) -> GuardBuilder {
        let issuer = self.issuer.url.lock().unwrap().clone();
        Guard::builder(issuer, RESOURCE).roots_pem(self.roots_pem.as_bytes()).unwrap()
    }

    /// A caller with one pool of connections.
    fn caller(&self, credential: Option<&Credential>, version: Version) -> Caller {
        self.caller_trusting(&self.roots, credential, version)
    }

    fn client_config(&self, roots: &RootCertStore, credential: Option<&Credential>) -> ClientConfig {
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let config = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_root_certificates(roots.clone());
        match credential {
            None => config.with_no_client_auth(),
            Some(credential) => {
                let chain = credential.chain.iter().cloned().map(CertificateDer::from).collect();
                let key = PrivateKeyDer::from_pem_slice(credential.key.to_pem().as_bytes()).unwrap();
                config.with_client_auth_cert(chain, key).unwrap()
            }
        }
    }

    fn caller_trusting(&self, roots: &RootCertStore, credential: Option<&Credential>, version: Version) -> Caller {
        let config = self.client_config(roots, credential);
        let connector = HttpsConnectorBuilder::new().with_tls_config(config).https_only();
        let connector = match version {
            Version::HTTP_2 => connector.enable_http2().build(),
            _ => connector.enable_http1().build(),
        };
        let client = Client::builder(TokioExecutor::new()).http2_only(version == Version::HTTP_2).build(connector);
        Caller { client, api: self.api }
    }
}

impl Drop for World {
    fn drop(&mut self) {
        if let Some(stop) = self.stop.take() {
            let _stopped = stop.send(());
        }
    }
}

struct Caller {
    client: Client<HttpsConnector<HttpConnector>, Empty<Bytes>>,
    api: SocketAddr,
}

impl Caller {
    async fn get(&self, target: &str, authorization: Option<&str>) -> Response<Bytes> {
        let mut request = Request::get(format!("https://localhost:{}{target}", self.api.port()));
        if let Some(field) = authorization {
            request = request.header("authorization", field);
        }
        let (parts, body) = self.client.request(request.body(Empty::new()).unwrap()).await.unwrap().into_parts();
        Response::from_parts(parts, body.collect().await.unwrap().to_bytes())
    }

    async fn status(&self, token: &str) -> u16 {
        self.get("/accounts", Some(&format!("bEARER {token}"))).await.status().as_u16()
    }
}

/// Waits until it is so, for a while.
async fn eventually(what: &str, mut so: impl FnMut() -> bool) {
    let clock = SystemClock::new();
    while !so() {
        assert!(clock.monotonic() < Duration::from_secs(5), "{what}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

#[tokio::test]
async fn a_bound_token_on_its_own_connection_and_on_others() {
    let world = World::new().await;
    let client = world.partner.client("client");
    let token = world.issuer.token(&client);
    for version in [Version::HTTP_11, Version::HTTP_2] {
        let own = world.caller(Some(&client), version);
        let answer = own.get("/accounts", Some(&format!("Bearer {token}"))).await;
        assert_eq!((answer.status().as_u16(), answer.version()), (200, version));
        let body: Value = serde_json::from_slice(answer.body()).unwrap();
        assert_eq!(body["client_id"], "client-1");
        assert_eq!(body["certificate"], client.thumbprint());

        let thief = world.caller(Some(&world.partner.client("thief")), version);
        assert_eq!(thief.status(&token).await, 401);
        let twin = world.partner.issue_for(&Template::client(Name::common("client"), now()), Arc::clone(&client.key));
        assert_eq!(world.caller(Some(&twin), version).status(&token).await, 401);
        assert_eq!(world.caller(None, version).status(&token).await, 401);
        assert_eq!(own.get(&format!("/accounts?access_token={token}"), None).await.status(), 400);
        let none = own.get("/accounts", None).await;
        assert_eq!(none.status(), 401);
        assert!(!none.headers()["www-authenticate"].to_str().unwrap().contains("error"));
        // The connection that was refused something is still good for what is right.
        assert_eq!(own.status(&token).await, 200);
    }
}

#[tokio::test]
async fn a_revoked_certificate_on_a_kept_connection_within_a_second() {
    let world = World::new().await;
    let client = world.partner.client("client");
    let token = world.issuer.token(&client);
    let callers = [Version::HTTP_11, Version::HTTP_2].map(|version| world.caller(Some(&client), version));
    for caller in &callers {
        assert_eq!(caller.status(&token).await, 200);
    }
    let clock = SystemClock::new();
    world.issuer.mark(MarkKind::Certificate, &client.thumbprint());
    for caller in &callers {
        while caller.status(&token).await == 200 {
            assert!(clock.monotonic() < Duration::from_secs(1), "not refused within a second");
        }
        assert_eq!(caller.status(&token).await, 401);
    }
}

#[tokio::test]
async fn garbage_instead_of_a_list_leaves_the_one_held() {
    let world = World::new().await;
    let client = world.partner.client("client");
    let token = world.issuer.token(&client);
    let caller = world.caller(Some(&client), Version::HTTP_11);
    *world.issuer.list.lock().unwrap() = List::Garbage;
    let before = world.guard.revocations().age().unwrap();
    eventually("the list ages", || world.guard.revocations().age().unwrap() > before + Duration::from_millis(600))
        .await;
    assert_eq!(caller.status(&token).await, 200);
    world.issuer.mark(MarkKind::Client, "client-1");
    eventually("the next good list is taken", || world.guard.revocations().version() == Some((1, 2))).await;
    assert_eq!(caller.status(&token).await, 401);
}

/// A man in the middle, or a mirror that is wrong, can hold the list back and nothing else (issue 5).
#[tokio::test]
async fn whoever_sits_between_can_only_let_the_list_grow_old() {
    let world = World::new().await;
    let (client, other) = (world.partner.client("client"), world.partner.client("other"));
    let (dead, alive) = (world.issuer.token(&client), world.issuer.token(&other));
    let (caller, another) =
        (world.caller(Some(&client), Version::HTTP_11), world.caller(Some(&other), Version::HTTP_11));
    let before = world.issuer.sign(REVOCATION_LIST_TYPE, world.issuer.list(1, json!({})));
    let revocations = world.guard.revocations();
    world.issuer.mark(MarkKind::Certificate, &client.thumbprint());
    let (honest, clock) = (world.issuer.list.lock().unwrap().clone(), SystemClock::new());
    for (what, hostile) in [
        ("an older list", List::Replayed(before)),
        ("another key", List::Forged),
        ("cut in the middle", List::CutShort),
        ("two gigabytes", List::Endless),
        ("never modified", List::NotModified),
        ("unavailable", List::Unavailable),
    ] {
        *world.issuer.list.lock().unwrap() = honest.clone();
        let fresh = || revocations.version() == Some((1, 2)) && revocations.age().unwrap() < Duration::from_secs(1);
        let (began, asked) = (clock.monotonic(), world.issuer.asked.load(Ordering::Relaxed));
        while !(fresh() && world.issuer.asked.load(Ordering::Relaxed) > asked) {
            assert!(clock.monotonic() - began < Duration::from_secs(5), "{what}: it does not recover within 5 s");
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        assert_eq!((caller.status(&dead).await, another.status(&alive).await), (401, 200), "{what}: before");
        *world.issuer.list.lock().unwrap() = hostile;
        let (began, asked) = (clock.monotonic(), world.issuer.asked.load(Ordering::Relaxed));
        // Two whole attempts, and the third begun: the first may have been under way.
        while world.issuer.asked.load(Ordering::Relaxed) < asked + 3 {
            assert!(clock.monotonic() - began < Duration::from_secs(30), "{what}: it is not asked any more");
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        assert_eq!(revocations.version(), Some((1, 2)), "{what}");
        assert!(revocations.age().unwrap() > Duration::from_millis(500), "{what}: {:?}", revocations.age());
        assert_eq!((caller.status(&dead).await, another.status(&alive).await), (401, 200), "{what}: meanwhile");
    }
}

#[tokio::test]
async fn the_api_shows_its_own_certificate_and_none_unless_told() {
    let world = World::new().await;
    let own = world.partner.client("api");
    // The example's guard has none, and asks in this moment too.
    assert_eq!(*world.issuer.asker.lock().unwrap(), None);
    let guard = world.guard().client_certificate_pem(own.chain_pem().as_bytes(), own.key.to_pem().as_bytes()).unwrap();
    let guard = guard.start().unwrap();
    let shown = PeerCertificate::parse(own.certificate()).unwrap();
    eventually("the list is asked for with the certificate", || {
        world.issuer.asker.lock().unwrap().as_ref() == Some(&shown)
    })
    .await;
    eventually("and it is taken", || guard.is_ready()).await;
}

#[tokio::test]
async fn the_metadata_is_open_to_anybody() {
    let world = World::new().await;
    let caller = world.caller(None, Version::HTTP_11);
    let answer = caller.get("/.well-known/oauth-protected-resource", None).await;
    assert_eq!(answer.status(), 200);
    let metadata: Value = serde_json::from_slice(answer.body()).unwrap();
    assert_eq!(metadata["resource"], RESOURCE);
    assert_eq!(metadata["scopes_supported"], json!(["accounts:read"]));
}

#[tokio::test]
async fn one_connection_too_many() {
    let world = World::new().await;
    let client = world.partner.client("client");
    let authority = Authority::root("Server CA", now());
    let server = authority.issue(&Template::server(&["localhost"], now()), KeyKind::P256);
    let chain = server.chain.iter().cloned().map(CertificateDer::from).collect();
    let key = PrivatePkcs8KeyDer::from(server.key.pkcs8().to_vec()).into();
    let acceptor = PeerAcceptor::new(Arc::new(peer::server_config(chain, key).unwrap())).with_max_connections(1);
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    listener.set_nonblocking(true).unwrap();
    let api = listener.local_addr().unwrap();
    let server = axum_server::from_tcp(listener).unwrap().acceptor(acceptor);
    tokio::spawn(server.serve(guarded_api::routes(&world.guard).unwrap().into_make_service()));
    let mut roots = RootCertStore::empty();
    roots.add_parsable_certificates(CertificateDer::pem_slice_iter(authority.to_pem().as_bytes()).flatten());
    let caller = || Caller { api, ..world.caller_trusting(&roots, Some(&client), Version::HTTP_11) };
    let first = caller();
    assert_eq!(first.status(&world.issuer.token(&client)).await, 200);
    let request = Request::get(format!("https://localhost:{}/accounts", api.port())).body(Empty::new()).unwrap();
    assert!(caller().client.request(request.clone()).await.is_err());
    drop(first); // and its connection with it
    let clock = SystemClock::new();
    while caller().client.request(request.clone()).await.is_err() {
        assert!(clock.monotonic() < Duration::from_secs(5), "the place was not given back");
    }
}

#[tokio::test]
async fn a_silent_caller_is_not_waited_for() {
    let authority = Authority::root("Server CA", now());
    let server = authority.issue(&Template::server(&["localhost"], now()), KeyKind::P256);
    let chain = server.chain.iter().cloned().map(CertificateDer::from).collect();
    let key = PrivatePkcs8KeyDer::from(server.key.pkcs8().to_vec()).into();
    let acceptor = PeerAcceptor::new(Arc::new(peer::server_config(chain, key).unwrap()))
        .with_handshake_timeout(Duration::from_millis(50));
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    listener.set_nonblocking(true).unwrap();
    let address = listener.local_addr().unwrap();
    let server = axum_server::from_tcp(listener).unwrap().acceptor(acceptor);
    tokio::spawn(server.serve(Router::<()>::new().into_make_service()));
    let mut stream = tokio::net::TcpStream::connect(address).await.unwrap();
    let mut octets = [0; 16];
    let closed = tokio::io::AsyncReadExt::read(&mut stream, &mut octets);
    let closed = tokio::time::timeout(Duration::from_secs(5), closed).await.expect("the connection was left open");
    assert!(matches!(closed, Ok(0) | Err(_)));
}

#[tokio::test]
async fn an_answer_that_is_never_fetched_is_not_kept_ready() {
    let world = World::new().await;
    let authority = Authority::root("Server CA", now());
    let server = authority.issue(&Template::server(&["localhost"], now()), KeyKind::P256);
    let chain = server.chain.iter().cloned().map(CertificateDer::from).collect();
    let key = PrivatePkcs8KeyDer::from(server.key.pkcs8().to_vec()).into();
    let acceptor = PeerAcceptor::new(Arc::new(peer::server_config(chain, key).unwrap()))
        .with_idle_timeout(Duration::from_millis(100));
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    listener.set_nonblocking(true).unwrap();
    let api = listener.local_addr().unwrap();
    let server = axum_server::from_tcp(listener).unwrap().acceptor(acceptor);
    tokio::spawn(server.serve(guarded_api::routes(&world.guard).unwrap().into_make_service()));
    let mut roots = RootCertStore::empty();
    roots.add_parsable_certificates(CertificateDer::pem_slice_iter(authority.to_pem().as_bytes()).flatten());
    let config = world.client_config(&roots, None);
    let connector = HttpsConnectorBuilder::new().with_tls_config(config).https_only().enable_http2().build();
    // RFC 9113 §6.9.2: with a window of 0 the answer's head comes, and its body never does.
    let client =
        Client::builder(TokioExecutor::new()).http2_only(true).http2_initial_stream_window_size(0).build(connector);
    let request =
        Request::get(format!("https://localhost:{}/accounts", api.port())).body(Empty::<Bytes>::new()).unwrap();
    let answer = client.request(request).await.unwrap();
    assert_eq!(answer.status(), 401);
    let body = tokio::time::timeout(Duration::from_secs(5), answer.into_body().collect()).await;
    assert!(body.expect("the connection was left open").is_err());
}
