//! Security event tokens (RFC 8417): what the server tells others by itself, signed with the keys of its tokens.
//!
//! Takes an event, gives a compact JWS that anybody with `/jwks` can verify. It can be taken for no access token: its `typ`
//! is another, and it has no `exp` (RFC 8417 §4.2).

use countersign_resource_server::time::UnixTime;
use countersign_resource_server::token::jws::SigningAlgorithm;
use serde::Serialize;
use serde_json::{Map, Value};

use super::{Mint, MintRefusal};
use crate::audit::checkpoint::CHECKPOINT_TYPE;

/// The `typ` of a security event token (RFC 8417 §2.3).
pub const SECURITY_EVENT_TYPE: &str = "secevent+jwt";

/// Something that happened, for one recipient.
#[derive(Clone, Debug, PartialEq)]
pub struct SecurityEvent {
    /// The recipient: a participant's id, which is no URI and so no audience of an access token.
    pub audience: String,
    /// The same each time this event is told.
    pub jti: String,
    /// When it was noticed.
    pub issued_at: UnixTime,
    /// The URI that says what kind of event it is.
    pub event: String,
    /// What there is to know about it.
    pub body: Value,
}

/// RFC 8417 §2.2.
#[derive(Serialize)]
struct Claims<'a> {
    iss: &'a str,
    aud: &'a str,
    iat: i64,
    jti: &'a str,
    events: Map<String, Value>,
}

/// The `typ` of a signed answer about a token (RFC 9701 §5): no access token, whoever shows it.
pub const INTROSPECTION_TYPE: &str = "token-introspection+jwt";

impl Mint {
    /// Signs `event` with the key that signs ES256 tokens at `now`.
    ///
    /// # Errors
    /// [`MintRefusal::NoSigningKey`] or [`MintRefusal::SigningFailed`].
    pub fn sign_security_event(&self, event: &SecurityEvent, now: UnixTime) -> Result<String, MintRefusal> {
        let claims = Claims {
            iss: &self.issuer,
            aud: &event.audience,
            iat: event.issued_at.as_seconds(),
            jti: &event.jti,
            events: Map::from_iter([(event.event.clone(), event.body.clone())]),
        };
        self.sign_as(SECURITY_EVENT_TYPE, &claims, now)
    }

    /// Signs a checkpoint of the audit log with the key that signs ES256 tokens at `now`.
    ///
    /// # Errors
    /// [`MintRefusal::NoSigningKey`] or [`MintRefusal::SigningFailed`].
    pub(crate) fn sign_checkpoint(&self, payload: &impl Serialize, now: UnixTime) -> Result<String, MintRefusal> {
        self.sign_as(CHECKPOINT_TYPE, payload, now)
    }

    /// Signs an answer about a token for the resource server that `audience` names (RFC 9701 §5), with the key that signs its
    /// algorithm at `now`.
    ///
    /// # Errors
    /// [`MintRefusal::NoSigningKey`] or [`MintRefusal::SigningFailed`].
    pub fn sign_introspection(
        &self,
        answer: &impl Serialize,
        audience: &str,
        algorithm: SigningAlgorithm,
        now: UnixTime,
    ) -> Result<String, MintRefusal> {
        /// Neither `sub` nor `exp` at the top: nobody can take it for an access token (RFC 9701 §5).
        #[derive(Serialize)]
        struct Introspection<'a, T> {
            iss: &'a str,
            aud: &'a str,
            iat: i64,
            token_introspection: &'a T,
        }
        let iat = now.as_seconds();
        let claims = Introspection { iss: &self.issuer, aud: audience, iat, token_introspection: answer };
        self.sign_with(algorithm, INTROSPECTION_TYPE, &claims, now)
    }

    fn sign_as(&self, typ: &str, payload: &impl Serialize, now: UnixTime) -> Result<String, MintRefusal> {
        self.sign_with(SigningAlgorithm::ES256, typ, payload, now)
    }

    fn sign_with(
        &self,
        algorithm: SigningAlgorithm,
        typ: &str,
        payload: &impl Serialize,
        now: UnixTime,
    ) -> Result<String, MintRefusal> {
        let keys = self.keys.current();
        let key = keys.signing(algorithm, now).ok_or(MintRefusal::NoSigningKey { algorithm })?;
        let payload = serde_json::to_vec(payload).map_err(|_| MintRefusal::SigningFailed)?;
        key.sign(typ, &payload).map_err(|_| MintRefusal::SigningFailed)
    }

    /// Whose events and tokens they are.
    pub fn issuer(&self) -> &str {
        &self.issuer
    }
}
