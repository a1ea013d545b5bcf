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
use axum::routing::{get, post};
use bytes::Bytes;
use countersign_conformance::forge::{Members, Token};
use countersign_conformance::pki::{Authority, Credential, Name, Template};
use countersign_conformance::{JwsAlgorithm, Key, KeyKind};
use countersign_resource_server::status::{MarkHash, MarkKind, REVOCATION_LIST_TYPE, WhenStale};
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
use tokio::sync::{oneshot, watch};

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
    /// With what query.
    queries: Mutex<Vec<String>>,
    /// Who asked for it last.
    asker: Mutex<Option<PeerCertificate>>,
    /// What a mirror says, and with what query and by whom it was asked.
    mirrored: Mutex<List>,
    at_the_mirror: Mutex<Vec<(String, Option<PeerCertificate>)>>,
    answer: Mutex<Answer>,
    /// What was asked about a token, and who asked.
    questions: Mutex<Vec<(String, Option<PeerCertificate>)>>,
}

/// What is said of a token.
#[derive(Clone)]
enum Answer {
    /// This, as JSON.
    Says(Value),
    /// This, with this status and these fields.
    Raw(u16, Vec<(&'static str, String)>, String),
    CutShort,
    /// Two gigabytes.
    Endless,
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
        issuer.queries.lock().unwrap().push(request.uri().query().unwrap_or_default().to_owned());
        issuer.asked.fetch_add(1, Ordering::Relaxed);
        let list = issuer.list.lock().unwrap().clone();
        issuer.says(list)
    }

    async fn asked_at_the_mirror(State(issuer): State<Arc<Self>>, request: Request<Body>) -> Response<Body> {
        let peer = request.extensions().get::<PeerCertificate>().cloned();
        issuer.at_the_mirror.lock().unwrap().push((request.uri().query().unwrap_or_default().to_owned(), peer));
        let list = issuer.mirrored.lock().unwrap().clone();
        issuer.says(list)
    }

    fn says(&self, list: List) -> Response<Body> {
        let text = |text: String| Response::new(Body::from(text));
        let status = |status: u16| Response::builder().status(status).body(Body::empty()).unwrap();
        let chunk = || Ok(Bytes::from_static(&[b'x'; 65_536]));
        match list {
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

    async fn asked_about_a_token(State(issuer): State<Arc<Self>>, request: Request<Body>) -> Response<Body> {
        let peer = request.extensions().get::<PeerCertificate>().cloned();
        let (head, body) = request.into_parts();
        let body = String::from_utf8(body.collect().await.unwrap().to_bytes().to_vec()).unwrap();
        let kind = head.headers["content-type"].to_str().unwrap();
        if body == "token=countersign-guard" {
            // What is no token: the guard wants to know whether anybody is there.
            if let Answer::Says(_) = &*issuer.answer.lock().unwrap() {
                let told = Response::builder().header("content-type", "application/json");
                return told.body(Body::from(r#"{"active":false}"#)).unwrap();
            }
        } else {
            issuer.questions.lock().unwrap().push((format!("{} {kind} {body}", head.method), peer));
        }
        let said = Response::builder().header("content-type", "Application/JSON; charset=utf-8");
        let chunk = || Ok::<_, std::io::Error>(Bytes::from_static(&[b' '; 65_536]));
        match issuer.answer.lock().unwrap().clone() {
            Answer::Says(told) => said.body(Body::from(told.to_string())).unwrap(),
            Answer::Raw(status, fields, body) => {
                let response = fields
                    .iter()
                    .fold(Response::builder().status(status), |response, (name, value)| response.header(*name, value));
                response.body(Body::from(body)).unwrap()
            }
            Answer::CutShort => {
                let broken = Err(std::io::Error::other("cut"));
                said.body(Body::from_stream(futures_util::stream::iter([chunk(), broken]))).unwrap()
            }
            Answer::Endless => {
                let chunks = (0..32_768).map(move |_| chunk());
                said.body(Body::from_stream(futures_util::stream::iter(chunks))).unwrap()
            }
        }
    }

    fn token(&self, credential: &Credential) -> String {
        self.sign("at+jwt", self.claims(credential))
    }

    /// What is told of that token, as long as it is good.
    fn told(&self, credential: &Credential) -> Value {
        serde_json::from_str(&self.claims(credential).with("active", true).to_json()).unwrap()
    }

    fn claims(&self, credential: &Credential) -> Members {
        Members::new()
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
            .with("registry_version", 1)
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
            queries: Mutex::new(Vec::new()),
            asker: Mutex::new(None),
            mirrored: Mutex::new(List::Unavailable),
            at_the_mirror: Mutex::new(Vec::new()),
            answer: Mutex::new(Answer::Says(json!({ "active": false }))),
            questions: Mutex::new(Vec::new()),
        });
        let app = Router::new()
            .route("/jwks", get(|State(issuer): State<Arc<Issuer>>| async move { issuer.jwks() }))
            .route("/revocations", get(Issuer::asked_for_the_list))
            .route("/mirror", get(Issuer::asked_at_the_mirror))
            .route("/introspect", post(Issuer::asked_about_a_token))
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

    /// Serves the same API behind this guard.
    fn serving(&self, guard: Guard) -> Self {
        let authority = Authority::root("Server CA", now());
        let server = authority.issue(&Template::server(&["localhost"], now()), KeyKind::P256);
        let chain = server.chain.iter().cloned().map(CertificateDer::from).collect();
        let key = PrivatePkcs8KeyDer::from(server.key.pkcs8().to_vec()).into();
        let tls = PeerAcceptor::new(Arc::new(peer::server_config(chain, key).unwrap()));
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        listener.set_nonblocking(true).unwrap();
        let api = listener.local_addr().unwrap();
        let served = guarded_api::routes(&guard).unwrap().into_make_service();
        tokio::spawn(axum_server::from_tcp(listener).unwrap().acceptor(tls).serve(served));
        let mut roots = RootCertStore::empty();
        roots.add_parsable_certificates(CertificateDer::pem_slice_iter(authority.to_pem().as_bytes()).flatten());
        let (issuer, partner, roots_pem) = (Arc::clone(&self.issuer), self.partner.clone(), self.roots_pem.clone());
        Self { issuer, partner, roots_pem, roots, api, guard, stop: None }
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

/// Stands between two parties, and carries what they say until it is told to go mute: then it closes nothing and carries
/// nothing, on the connections that there are. Those that come later are carried again.
struct Wire {
    address: SocketAddr,
    mute: watch::Sender<()>,
    carried: Arc<AtomicUsize>,
}

impl Wire {
    async fn to(server: SocketAddr) -> Self {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (mute, carried) = (watch::Sender::new(()), Arc::new(AtomicUsize::new(0)));
        let (told, count) = (mute.clone(), Arc::clone(&carried));
        tokio::spawn(async move {
            while let Ok((mut near, _)) = listener.accept().await {
                let mut muted = told.subscribe();
                count.fetch_add(1, Ordering::SeqCst);
                tokio::spawn(async move {
                    let mut far = tokio::net::TcpStream::connect(server).await.unwrap();
                    tokio::select! {
                        _ended = tokio::io::copy_bidirectional(&mut near, &mut far) => return,
                        _muted = muted.changed() => {}
                    }
                    std::future::pending::<()>().await; // with both ends in hand
                });
            }
        });
        Self { address, mute, carried }
    }

    fn go_mute(&self) {
        self.mute.send_replace(());
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

impl World {
    /// A wire to the authorization server, which is known by the wire's address from now on.
    async fn behind_a_wire(&self) -> Wire {
        let port = self.issuer.url.lock().unwrap().rsplit_once(':').unwrap().1.parse().unwrap();
        let wire = Wire::to(SocketAddr::from(([127, 0, 0, 1], port))).await;
        *self.issuer.url.lock().unwrap() = format!("https://localhost:{}", wire.address.port());
        wire
    }
}

/// A firewall that forgot them, or a man in the middle: nobody closes them, and nobody answers on them.
#[tokio::test]
async fn connections_that_go_mute_are_left_for_others() {
    let world = World::new().await;
    let wire = world.behind_a_wire().await;
    let guard = world.guard().staleness_limit(Duration::from_secs(3)).start().unwrap(); // polls are held for a second
    eventually("the list is taken", || guard.revocations().version() == Some((1, 1))).await;
    wire.go_mute();
    world.issuer.mark(MarkKind::Client, "client-1");
    let (clock, before) = (SystemClock::new(), wire.carried.load(Ordering::SeqCst));
    while guard.revocations().version() != Some((1, 2)) {
        assert!(clock.monotonic() < Duration::from_secs(12), "the list never comes again");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    assert!(wire.carried.load(Ordering::SeqCst) > before);
    // Not to wait, after a failure; and as ever after a success.
    let asked = || world.issuer.queries.lock().unwrap().clone();
    eventually("it waits again", || {
        let asked = asked();
        let away = asked.iter().position(|query| query.ends_with("&wait=0"));
        away.is_some_and(|at| asked[at..].iter().any(|query| query.ends_with("&wait=1")))
    })
    .await;
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

/// Nobody can get a list, so everything is asked about.
async fn asking() -> (World, Credential) {
    let world = World::new().await;
    *world.issuer.list.lock().unwrap() = List::Unavailable;
    let own = world.partner.client("api");
    let guard = world.guard().client_certificate_pem(own.chain_pem().as_bytes(), own.key.to_pem().as_bytes()).unwrap();
    let guard = guard.when_stale(WhenStale::Introspect).start().unwrap();
    eventually("the guard has keys and answers", || guard.is_ready()).await;
    (world.serving(guard), own)
}

#[tokio::test]
async fn without_a_fresh_list_the_authorization_server_is_asked() {
    let (world, own) = asking().await;
    let client = world.partner.client("client");
    for version in [Version::HTTP_11, Version::HTTP_2] {
        world.issuer.questions.lock().unwrap().clear();
        let caller = world.caller(Some(&client), version);
        let token = world.issuer.token(&client);
        *world.issuer.answer.lock().unwrap() = Answer::Says(world.issuer.told(&client));
        assert_eq!(caller.status(&token).await, 200);
        let question = format!("POST application/x-www-form-urlencoded token={token}");
        let shown = PeerCertificate::parse(own.certificate()).unwrap();
        assert_eq!(*world.issuer.questions.lock().unwrap(), [(question, Some(shown))]);
        *world.issuer.answer.lock().unwrap() = Answer::Says(json!({ "active": false }));
        let clock = SystemClock::new();
        while caller.status(&token).await == 200 {
            assert!(clock.monotonic() < Duration::from_secs(5), "what was told is remembered for ever");
        }
        assert_eq!(caller.status(&token).await, 401);
        assert_eq!(world.caller(Some(&world.partner.client("thief")), version).status(&token).await, 401);
    }
}

#[tokio::test]
async fn what_comes_instead_of_an_answer() {
    let (world, _) = asking().await;
    let client = world.partner.client("client");
    let caller = world.caller(Some(&client), Version::HTTP_11);
    let told = world.issuer.told(&client).to_string();
    let json = || ("content-type", "application/json".to_owned());
    let elsewhere = format!("{}/introspect", world.issuer.url.lock().unwrap());
    for (what, answer) in [
        ("created", Answer::Raw(201, vec![json()], told.clone())),
        ("no content", Answer::Raw(204, vec![], String::new())),
        ("a redirect", Answer::Raw(307, vec![json(), ("location", elsewhere.clone())], told.clone())),
        ("another redirect", Answer::Raw(302, vec![json(), ("location", elsewhere)], told.clone())),
        ("not enrolled", Answer::Raw(400, vec![json()], told.clone())),
        ("out of order", Answer::Raw(500, vec![json()], told.clone())),
        ("overloaded", Answer::Raw(503, vec![json()], told.clone())),
        ("no type", Answer::Raw(200, vec![], told.clone())),
        ("a page", Answer::Raw(200, vec![("content-type", "text/html".to_owned())], told.clone())),
        ("nearly the type", Answer::Raw(200, vec![("content-type", "application/jsonp".to_owned())], told.clone())),
        ("two types", Answer::Raw(200, vec![json(), json()], told.clone())),
        ("garbage", Answer::Raw(200, vec![json()], "garbage".to_owned())),
        ("cut in the middle", Answer::CutShort),
        ("two gigabytes", Answer::Endless),
    ] {
        *world.issuer.answer.lock().unwrap() = answer;
        let before = world.issuer.questions.lock().unwrap().len();
        let refused = caller.get("/accounts", Some(&format!("Bearer {}", world.issuer.token(&client)))).await;
        assert_eq!(refused.status(), 503, "{what}");
        assert!(refused.headers().get("www-authenticate").is_none(), "{what}");
        assert_eq!(world.issuer.questions.lock().unwrap().len(), before + 1, "{what}: asked once");
    }
    *world.issuer.answer.lock().unwrap() = Answer::Says(world.issuer.told(&client));
    assert_eq!(caller.status(&world.issuer.token(&client)).await, 200);
}

/// It accepts connections, and says not even hello.
#[tokio::test]
async fn an_endpoint_that_is_silent_is_not_waited_for() {
    let world = World::new().await;
    *world.issuer.list.lock().unwrap() = List::Unavailable;
    let silent = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let own = world.partner.client("api");
    let guard = world.guard().client_certificate_pem(own.chain_pem().as_bytes(), own.key.to_pem().as_bytes()).unwrap();
    let guard = guard.introspect_at(format!("https://localhost:{}/", silent.local_addr().unwrap().port()));
    let guard = guard.when_stale(WhenStale::Introspect).start().unwrap();
    eventually("the guard has keys", || guard.keys().current().is_some()).await;
    assert!(!guard.is_ready(), "nobody answers");
    let world = world.serving(guard);
    let client = world.partner.client("client");
    let (caller, token) = (world.caller(Some(&client), Version::HTTP_2), world.issuer.token(&client));
    let callers = (0..20).map(|_| caller.status(&token));
    let answers = tokio::time::timeout(Duration::from_secs(10), futures_util::future::join_all(callers)).await;
    assert_eq!(answers.expect("calls are kept waiting"), [503; 20]);
    assert!(!world.guard.is_ready());
}

/// Several connections at once go mute, and one question finds it out for all of them.
#[tokio::test]
async fn one_question_is_lost_to_connections_that_went_mute() {
    let world = World::new().await;
    let wire = world.behind_a_wire().await;
    *world.issuer.list.lock().unwrap() = List::Unavailable;
    let own = world.partner.client("api");
    let guard = world.guard().client_certificate_pem(own.chain_pem().as_bytes(), own.key.to_pem().as_bytes()).unwrap();
    let guard = guard.when_stale(WhenStale::Introspect).start().unwrap();
    eventually("the guard has keys", || guard.keys().current().is_some()).await;
    let world = world.serving(guard);
    let client = world.partner.client("client");
    let caller = world.caller(Some(&client), Version::HTTP_2);
    let before = wire.carried.load(Ordering::SeqCst);
    let tokens: Vec<String> = (0..8).map(|_| world.issuer.token(&client)).collect();
    let calls = tokens.iter().map(|token| caller.status(token));
    assert_eq!(futures_util::future::join_all(calls).await, [401; 8]);
    assert!(wire.carried.load(Ordering::SeqCst) > before + 1, "several connections are kept");
    wire.go_mute();
    assert_eq!(caller.status(&world.issuer.token(&client)).await, 503);
    eventually("it is known", || !world.guard.is_ready()).await;
    assert_eq!(caller.status(&world.issuer.token(&client)).await, 401, "asked over a connection of this moment");
}

/// The list comes from a mirror that anybody may run, with a certificate of the API's own for the authorization server.
async fn mirrored(list: List, staleness_limit: Duration) -> World {
    let world = World::new().await;
    *world.issuer.list.lock().unwrap() = List::Unavailable;
    *world.issuer.mirrored.lock().unwrap() = list;
    let own = world.partner.client("api");
    let mirror = format!("{}/mirror?of=us", world.issuer.url.lock().unwrap());
    let guard = world.guard().client_certificate_pem(own.chain_pem().as_bytes(), own.key.to_pem().as_bytes()).unwrap();
    let guard = guard.revocations_from(mirror).when_stale(WhenStale::Introspect).staleness_limit(staleness_limit);
    world.serving(guard.start().unwrap())
}

#[tokio::test]
async fn a_mirror_is_believed_what_is_signed_and_shown_no_certificate() {
    let world = mirrored(List::Marks { number: 1, marks: json!({}) }, Duration::from_secs(30)).await;
    eventually("the list is taken", || world.guard.revocations().version() == Some((1, 1))).await;
    let client = world.partner.client("client");
    let (caller, token) = (world.caller(Some(&client), Version::HTTP_11), world.issuer.token(&client));
    assert_eq!(caller.status(&token).await, 200);
    *world.issuer.mirrored.lock().unwrap() = List::Forged;
    let asked = || world.issuer.at_the_mirror.lock().unwrap().len();
    let before = asked();
    eventually("what is forged comes", || asked() > before + 1).await;
    assert_eq!(world.guard.revocations().version(), Some((1, 1)));
    world.issuer.mark(MarkKind::Client, "client-1");
    let marked = std::mem::replace(&mut *world.issuer.list.lock().unwrap(), List::Unavailable);
    *world.issuer.mirrored.lock().unwrap() = marked;
    eventually("the mark comes", || world.guard.revocations().version() == Some((1, 2))).await;
    assert_eq!(caller.status(&token).await, 401);
    let asked = world.issuer.at_the_mirror.lock().unwrap();
    assert!(asked.iter().all(|(_, peer)| peer.is_none()), "it is nobody's business who asks");
    assert_eq!(asked[0].0, "of=us");
    assert!(asked.iter().any(|(query, _)| query == "of=us&epoch=1&number=1&wait=10"), "{asked:?}");
    assert_eq!(*world.issuer.questions.lock().unwrap(), [], "a fresh list is a fresh list, whoever brought it");
}

/// A mirror that lets the list grow old switches no API off.
#[tokio::test]
async fn the_authorization_server_stands_in_for_a_mirror_that_stands_still() {
    for mute in [false, true] {
        let world = mirrored(List::Unavailable, Duration::from_secs(3)).await;
        if !mute {
            let list = world.issuer.sign(REVOCATION_LIST_TYPE, world.issuer.list(1, json!({})));
            *world.issuer.mirrored.lock().unwrap() = List::Replayed(list);
            eventually("the list is taken", || world.guard.revocations().version() == Some((1, 1))).await;
        }
        world.issuer.mark(MarkKind::Client, "client-1");
        eventually("the mark comes", || world.guard.revocations().version() == Some((1, 2))).await;
        assert!(!world.issuer.at_the_mirror.lock().unwrap().is_empty());
    }
}

/// Whom the mirror's root vouches for can carry lists, and pass himself off as nobody else.
#[tokio::test]
async fn roots_of_the_mirror_are_roots_of_nothing_else() {
    let world = World::new().await;
    let elsewhere = Authority::root("Mirror CA", now()).to_pem();
    let mirror = format!("{}/mirror", world.issuer.url.lock().unwrap());
    // The server is not of the mirror's root: its keys are taken, and its list as the mirror's is not.
    let guard = world.guard().revocations_from(&mirror).mirror_roots_pem(elsewhere.as_bytes()).unwrap();
    let guard = guard.mirror_alone().start().unwrap();
    eventually("there are keys", || guard.keys().current().is_some()).await;
    // And the other way round: the mirror's root does for the mirror alone.
    *world.issuer.mirrored.lock().unwrap() = List::Marks { number: 1, marks: json!({}) };
    let issuer = world.issuer.url.lock().unwrap().clone();
    let other = Guard::builder(issuer, RESOURCE).roots_pem(elsewhere.as_bytes()).unwrap().revocations_from(&mirror);
    let other = other.mirror_roots_pem(world.roots_pem.as_bytes()).unwrap().start().unwrap();
    let both = world.guard().revocations_from(&mirror).mirror_roots_pem(world.roots_pem.as_bytes()).unwrap();
    let both = both.mirror_alone().start().unwrap();
    eventually("the mirror is believed where its root is given", || both.is_ready()).await;
    assert!(other.keys().current().is_none());
    assert!(guard.revocations().version().is_none());
}

/// It knows no long poll.
#[tokio::test]
async fn a_mirror_that_answers_at_once_is_asked_once_a_second() {
    let world = mirrored(List::Marks { number: 1, marks: json!({}) }, Duration::from_secs(30)).await;
    eventually("the list is taken", || world.guard.revocations().version().is_some()).await;
    let clock = SystemClock::new();
    let asked = || world.issuer.at_the_mirror.lock().unwrap().len();
    let before = asked();
    eventually("it is asked again", || asked() >= before + 3).await;
    // The first of the three may have been under way.
    assert!(clock.monotonic() > Duration::from_millis(1_900), "three times in {:?}", clock.monotonic());
}

/// An older list than the one held, or the same for ever: it ages out, and then the authorization server is asked.
#[tokio::test]
async fn a_mirror_that_stands_still() {
    for older in [false, true] {
        let world = mirrored(List::Unavailable, Duration::from_millis(1_500)).await;
        let list =
            |number| List::Replayed(world.issuer.sign(REVOCATION_LIST_TYPE, world.issuer.list(number, json!({}))));
        let (one, two) = (list(1), list(2));
        *world.issuer.mirrored.lock().unwrap() = two;
        eventually("the list is taken", || world.guard.revocations().version() == Some((1, 2))).await;
        if older {
            *world.issuer.mirrored.lock().unwrap() = one;
        }
        let client = world.partner.client("client");
        let (caller, token) = (world.caller(Some(&client), Version::HTTP_11), world.issuer.token(&client));
        eventually("it is too old", || !world.guard.revocations().is_fresh()).await;
        assert_eq!(world.guard.revocations().version(), Some((1, 2)));
        assert_eq!(caller.status(&token).await, 401, "it is told to be inactive");
        assert_eq!(world.issuer.questions.lock().unwrap().len(), 1);
    }
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
