//! A guard whose list is too old, and an authorization server at the other end of a line that is no network.

use std::sync::Mutex as StdMutex;
use std::sync::atomic::AtomicUsize;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use http::header::AUTHORIZATION;
use http::{HeaderMap, HeaderValue, Uri};
use tokio::task::JoinSet;

use super::*;
use crate::Guard;
use crate::bearer::Credentials;
use crate::double::{Double, ISSUER, KID, RESOURCE};
use crate::status::WhenStale;
use crate::verification::{self, AuthorizedCall, Decision, Undecided};

pub(super) const MILLISECOND: Duration = Duration::from_millis(1);

/// The authorization server at the other end of the line.
pub(super) struct Server {
    pub(super) says: StdMutex<Says>,
    pub(super) asked: AtomicUsize,
    /// Has a permit for each answer that may leave.
    pub(super) gate: Semaphore,
}

#[derive(Clone)]
pub(super) enum Says {
    /// That whatever it is asked about is active.
    Active,
    Body(String),
    Fails(FetchError),
    Nothing,
}

struct Telephone(Arc<Server>);

impl Line for Telephone {
    fn ask(&self, token: Arc<str>) -> Answering {
        let server = Arc::clone(&self.0);
        Box::pin(async move {
            server.asked.fetch_add(1, Ordering::SeqCst);
            server.gate.acquire().await.unwrap().forget();
            let says = server.says.lock().unwrap().clone();
            match says {
                Says::Active => {
                    let claims = URL_SAFE_NO_PAD.decode(token.split('.').nth(1).unwrap()).unwrap();
                    let mut told: Value = serde_json::from_slice(&claims).unwrap();
                    told["active"] = true.into();
                    Ok(told.to_string().into())
                }
                Says::Body(body) => Ok(body.into()),
                Says::Fails(error) => Err(error),
                Says::Nothing => std::future::pending().await,
            }
        })
    }
}

/// A guard whose list is a millisecond too old, and whom it asks.
pub(super) struct Scene {
    pub(super) double: Double,
    pub(super) server: Arc<Server>,
    pub(super) token: String,
}

impl Scene {
    pub(super) fn new() -> Self {
        Self::with_patience(10 * SECOND)
    }

    pub(super) fn with_patience(patience: Duration) -> Self {
        let scene = Self::without_a_list(patience);
        scene.double.take(&scene.double.list());
        scene.double.wait(30 * SECOND + MILLISECOND);
        scene
    }

    pub(super) fn without_a_list(patience: Duration) -> Self {
        let double = Double::new();
        let server = Arc::new(Server {
            says: StdMutex::new(Says::Body(String::new())),
            asked: AtomicUsize::new(0),
            gate: Semaphore::new(Semaphore::MAX_PERMITS),
        });
        let line = Some((Telephone(Arc::clone(&server)), Handle::current(), patience));
        let builder = Guard::builder(ISSUER, RESOURCE).clock(Arc::clone(&double.clock) as _);
        let guard = builder.when_stale(WhenStale::Introspect).built(line).unwrap();
        guard.keys().take(double.jwks(KID).as_bytes()).unwrap();
        let token = double.token().compact();
        let scene = Self { double: Double { guard, ..double }, server, token };
        scene.says(&scene.active());
        scene
    }

    /// What the server says of the double's token, as long as it is good.
    pub(super) fn active(&self) -> Value {
        let mut told: Value = serde_json::from_str(&self.double.token().claims.to_json()).unwrap();
        told["active"] = true.into();
        told["token_type"] = "Bearer".into();
        told
    }

    pub(super) fn says(&self, told: &Value) {
        self.says_raw(&told.to_string());
    }

    pub(super) fn says_raw(&self, body: &str) {
        *self.server.says.lock().unwrap() = Says::Body(body.to_owned());
    }

    pub(super) fn fails(&self, says: Says) {
        *self.server.says.lock().unwrap() = says;
    }

    pub(super) fn asked(&self) -> usize {
        self.server.asked.load(Ordering::SeqCst)
    }

    /// Decides without waiting: what a call of this token needs is told by the last.
    pub(super) fn begun(&self, token: &str, scope: &str) -> Result<Decision, crate::error::Refusal> {
        let mut headers = HeaderMap::new();
        headers.insert(AUTHORIZATION, HeaderValue::try_from(format!("Bearer {token}")).unwrap());
        let target = Uri::from_static("/accounts");
        let credentials = Credentials::of(&headers, &target);
        let Double { guard, peer, clock, .. } = &self.double;
        let required = self.double.required(scope);
        verification::decide(&guard.judgement, &required, Some(peer), &credentials, clock.now(), &mut None)
    }

    /// A call of this token that waits for an answer.
    pub(super) fn undecided(&self, token: &str) -> Undecided {
        match self.begun(token, "accounts:read") {
            Ok(Decision::Undecided(call)) => *call,
            other => panic!("not to be asked about: {other:?}"),
        }
    }

    /// Begins a call of each of these tokens; all of them wait for answers.
    pub(super) fn begin(
        &self,
        tokens: impl IntoIterator<Item = impl AsRef<str>>,
    ) -> JoinSet<Result<AuthorizedCall, crate::error::Refusal>> {
        tokens.into_iter().map(|token| self.undecided(token.as_ref()).settle()).collect()
    }

    pub(super) async fn call(&self, token: &str) -> Result<AuthorizedCall, crate::error::Refusal> {
        match self.begun(token, "accounts:read")? {
            Decision::Permitted(call) => Ok(call),
            Decision::Undecided(call) => call.settle().await,
        }
    }

    /// The call of the double's token: how it ends, and with what status.
    pub(super) async fn ends(&self) -> Option<(&'static str, u16)> {
        let refusal = self.call(&self.token).await.err()?;
        Some((refusal.reason(), refusal.code().status()))
    }
}

/// The `n`th token of the `client`th client.
pub(super) fn of_client(scene: &Scene, client: usize, n: usize) -> String {
    let client = format!("client-{client}");
    scene.double.claiming(|claims| {
        claims.with("jti", format!("jti-{n}")).with("client_id", client.as_str()).with("sub", client.as_str())
    })
}

/// The `n`th token of the same client.
pub(super) fn nth(scene: &Scene, n: usize) -> String {
    scene.double.claiming(|claims| claims.with("jti", format!("jti-{n}")))
}

/// What may come in the place of an answer.
pub(super) fn failures_of_a_server() -> [FetchError; 7] {
    [
        FetchError::Body,
        FetchError::Connection("reset".to_owned()),
        FetchError::MediaType,
        FetchError::Status(302),
        FetchError::Status(400),
        FetchError::Status(429),
        FetchError::Status(503),
    ]
}

pub(super) const INACTIVE: Option<(&str, u16)> = Some(("introspection_inactive", 401));
pub(super) const UNAVAILABLE: Option<(&str, u16)> = Some(("introspection_unavailable", 503));
pub(super) const OF_ANOTHER: Option<(&str, u16)> = Some(("introspection_of_another_token", 503));
