//! For tests: an authorization server's signing hand, a client's certificate, and a guard that holds keys and a list.
//!
//! Everything is good as it comes, at second [`NOW`]; a test bends one thing.

use std::sync::Arc;
use std::time::Duration;

use countersign_conformance::forge::{Members, Token};
use countersign_conformance::pki::{Authority, Credential, Name, Template};
use countersign_conformance::{JwsAlgorithm, Key, KeyKind};
use http::header::AUTHORIZATION;
use http::{HeaderMap, HeaderValue, Uri};
use serde_json::json;

use crate::bearer::Credentials;
use crate::error::Refusal;
use crate::guard::Guard;
use crate::peer::PeerCertificate;
use crate::scope::Scope;
use crate::status::{MarkHash, MarkKind};
use crate::time::{Clock, ManualClock, UnixTime};
use crate::token::access_token::VerifiedToken;
use crate::verification::{self, AuthorizedCall, Binding, Requirement, Revocation};

pub(crate) const NOW: i64 = 1_800_000_000;
pub(crate) const ISSUER: &str = "https://as.example";
pub(crate) const RESOURCE: &str = "https://api.example/bank";
pub(crate) const SALT: &str = "pepper";
pub(crate) const KID: &str = "k1";

pub(crate) struct Double {
    pub(crate) key: Key,
    pub(crate) credential: Credential,
    pub(crate) peer: PeerCertificate,
    pub(crate) clock: Arc<ManualClock>,
    pub(crate) guard: Guard,
}

impl Double {
    pub(crate) fn new() -> Self {
        let credential = Authority::root("Partner CA", NOW).client("client");
        let peer = PeerCertificate::parse(credential.certificate()).unwrap();
        let clock = Arc::new(ManualClock::at(UnixTime::from_seconds(NOW)));
        let guard = Guard::builder(ISSUER, RESOURCE).clock(Arc::<ManualClock>::clone(&clock)).idle().unwrap();
        let double = Self { key: Key::generate(KeyKind::P256), credential, peer, clock, guard };
        double.guard.keys().take(double.jwks(KID).as_bytes()).unwrap();
        double.take(&double.list());
        double
    }

    pub(crate) fn jwks(&self, kid: &str) -> String {
        let mut jwk = self.key.jwk();
        jwk["kid"] = kid.into();
        json!({ "keys": [jwk] }).to_string()
    }

    pub(crate) fn token(&self) -> Token<'_> {
        Token {
            header: Members::new().with("typ", "at+jwt").with("alg", "ES256").with("kid", KID),
            claims: Members::new()
                .with("iss", ISSUER)
                .with("sub", "client-1")
                .with("aud", RESOURCE)
                .with("exp", NOW + 300)
                .with("iat", NOW)
                .with("jti", "jti-1")
                .with("client_id", "client-1")
                .with("scope", "accounts:read accounts:write")
                .with("cnf", json!({ "x5t#S256": self.credential.thumbprint() }))
                .with("participant_id", "participant-1")
                .with("roles", json!(["bank"]))
                .with("environment", "sandbox")
                .with("anchor", "anchor-1")
                .with("registry_version", 41),
            algorithm: JwsAlgorithm::Es256,
            key: &self.key,
        }
    }

    /// The same with the claims changed.
    pub(crate) fn claiming(&self, change: impl FnOnce(Members) -> Members) -> String {
        self.token().claims(change).compact()
    }

    pub(crate) fn list(&self) -> Token<'_> {
        Token {
            header: Members::new()
                .with("typ", crate::status::REVOCATION_LIST_TYPE)
                .with("alg", "ES256")
                .with("kid", KID),
            claims: Members::new()
                .with("iss", ISSUER)
                .with("iat", NOW)
                .with("exp", NOW + 60)
                .with("epoch", 1)
                .with("number", 41)
                .with("salt", SALT)
                .with("marks", json!({})),
            algorithm: JwsAlgorithm::Es256,
            key: &self.key,
        }
    }

    /// A list, a second later and of a later version, with these marks.
    pub(crate) fn marking(&self, marks: &[(MarkKind, &str, i64)]) -> Token<'_> {
        let marks: serde_json::Map<_, _> = marks
            .iter()
            .map(|(kind, id, version)| {
                let hash = serde_json::to_value(MarkHash::of(SALT, *kind, id)).unwrap();
                (hash.as_str().unwrap().to_owned(), json!(version))
            })
            .collect();
        self.list().claims(|claims| claims.with("iat", NOW + 1).with("number", 42).with("marks", marks))
    }

    pub(crate) fn take(&self, list: &Token<'_>) {
        self.guard.revocations().take(&list.compact()).unwrap();
    }

    /// The call with this token on the client's own connection, as of the clock.
    pub(crate) fn call(&self, token: &str) -> Result<AuthorizedCall, Refusal> {
        self.call_from(Some(&self.peer), token, &self.required("accounts:read"))
    }

    pub(crate) fn call_from(
        &self,
        peer: Option<&PeerCertificate>,
        token: &str,
        required: &Requirement,
    ) -> Result<AuthorizedCall, Refusal> {
        self.call_showing(peer, token, required, &mut None)
    }

    /// The same, and which token was shown.
    pub(crate) fn call_showing(
        &self,
        peer: Option<&PeerCertificate>,
        token: &str,
        required: &Requirement,
        shown: &mut Option<Arc<VerifiedToken>>,
    ) -> Result<AuthorizedCall, Refusal> {
        let mut headers = HeaderMap::new();
        headers.insert(AUTHORIZATION, HeaderValue::try_from(format!("Bearer {token}")).unwrap());
        let target = Uri::from_static("/accounts");
        let credentials = Credentials::of(&headers, &target);
        verification::authorize(&self.guard.judgement, required, peer, &credentials, self.clock.now(), shown)
    }

    /// The short reason why this token is refused.
    pub(crate) fn reason(&self, token: &str) -> &'static str {
        self.call(token).unwrap_err().reason()
    }

    pub(crate) fn required(&self, scope: &str) -> Requirement {
        Requirement { scope: Scope::parse(scope).unwrap(), binding: Binding::Required, revocation: Revocation::Checked }
    }

    /// Puts the calendar at this second; the monotonic time stays.
    pub(crate) fn at(&self, second: i64) -> &Self {
        self.clock.step_to(UnixTime::from_seconds(second));
        self
    }

    pub(crate) fn wait(&self, duration: Duration) -> &Self {
        self.clock.advance(duration);
        self
    }

    /// Another client's certificate.
    pub(crate) fn stranger() -> PeerCertificate {
        let credential = Credential::self_signed(&Template::client(Name::common("stranger"), NOW), KeyKind::P256);
        PeerCertificate::parse(credential.certificate()).unwrap()
    }
}
