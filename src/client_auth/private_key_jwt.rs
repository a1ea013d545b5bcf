//! Did the client sign this assertion, for this server, just now? (RFC 7523 §3, draft-ietf-oauth-rfc7523bis)
//!
//! Takes the assertion, the client's own JWK Set and registered algorithm, gives a [`UsedAssertion`]: what has to be
//! remembered so that it is good once. It does not remember it itself: that happens last, in the transaction of the
//! audit record, so that a refusal further on costs the client no assertion.

use std::time::Duration;

use countersign_resource_server::time::UnixTime;
use countersign_resource_server::token::jwks::{KeySet, MalformedKeySet};
use countersign_resource_server::token::jws::{
    self, Expectation, JwsError, KeyChoice, MAX_TOKEN_BYTES, SigningAlgorithm, Untyped,
};
use serde_json::{Map, Value};

use super::ClientAuthRefusal;
use crate::registry::ClientId;

/// An assertion that held, and may hold only once (RFC 7523 §3 item 7).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UsedAssertion {
    /// Whose `jti` it is: two clients may choose the same.
    pub client_id: ClientId,
    /// The `jti` claim.
    pub jti: String,
    /// Its `exp`: from then on it is refused for that.
    pub expires_at: UnixTime,
}

/// How far ahead `exp` may lie: so long every `jti` is remembered.
const LONGEST_LIFE: Duration = Duration::from_secs(600);

/// How far ahead `iat` and `nbf` may lie: clocks differ.
pub(super) const LEEWAY: Duration = Duration::from_secs(10);

/// The longest `jti`, in octets.
const LONGEST_JTI_BYTES: usize = 256;

/// Whether a JWK Set can serve a client whose assertions are signed with `algorithm`: asked when it is registered.
///
/// # Errors
/// [`UnfitKeys`], in words for the operator.
pub fn check_keys(jwks: &str, algorithm: SigningAlgorithm) -> Result<(), UnfitKeys> {
    let keys = KeySet::parse(jwks.as_bytes()).map_err(UnfitKeys::Malformed)?;
    let mut serving = keys.keys().iter().filter(|key| key.serves(algorithm));
    match (serving.next(), serving.next()) {
        (None, _) => Err(UnfitKeys::None(algorithm.as_str())),
        (Some(_), None) => Ok(()),
        (Some(_), Some(_)) if keys.keys().iter().all(|key| key.kid().is_some()) => Ok(()),
        (Some(_), Some(_)) => Err(UnfitKeys::Nameless),
    }
}

/// Why a JWK Set cannot serve a client.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum UnfitKeys {
    /// It is none.
    #[error("the JWK Set cannot be used: {0}")]
    Malformed(MalformedKeySet),
    /// Several keys, and assertions could not say which.
    #[error(
        "the JWK Set has several keys and one of them no kid: name each, so that an assertion can say which signed it"
    )]
    Nameless,
    /// No key for the algorithm.
    #[error("the JWK Set has no key for {0}")]
    None(&'static str),
}

pub(super) fn check(
    assertion: &str,
    keys: &KeySet,
    algorithm: SigningAlgorithm,
    client_id: &ClientId,
    issuer: &str,
    remembered_from: UnixTime,
    now: UnixTime,
) -> Result<UsedAssertion, ClientAuthRefusal> {
    let expected = Expectation {
        algorithms: &[algorithm], // RFC 8725 §3.1: the registered one, whatever the key could do
        types: &["JWT", "client-authentication+jwt"], // rfc7523bis §4: the explicit type; JWT as RFC 7519 §5.1 had it
        untyped: Untyped::Accept,
        key: KeyChoice::ByKidOrOnly, // without `kid` only where there is nothing to choose
        max_bytes: MAX_TOKEN_BYTES,
    };
    let verified = jws::verify(assertion, keys, &expected).map_err(refusal_of)?;
    let claims = verified.members().map_err(refusal_of)?;
    let text = |name: &str| claims.get(name).and_then(Value::as_str);

    // RFC 7523 §3 items 1 and 2.B: the client is issuer and subject.
    if text("iss") != Some(client_id.as_str()) {
        return Err(ClientAuthRefusal::AssertionIssuerWrong);
    }
    if text("sub") != Some(client_id.as_str()) {
        return Err(ClientAuthRefusal::AssertionSubjectWrong);
    }
    // rfc7523bis §4: the issuer identifier "as its sole value", as a string and not as an array.
    if text("aud") != Some(issuer) {
        return Err(ClientAuthRefusal::AssertionAudienceWrong);
    }
    // RFC 7523 §3 item 4: exp is required; RFC 7519 §4.1.4: "on or after" it, the assertion is not taken.
    let expires_at = date(&claims, "exp")?.ok_or(ClientAuthRefusal::AssertionExpiryMissing)?;
    if now >= expires_at {
        return Err(ClientAuthRefusal::AssertionExpired);
    }
    if expires_at > now.after(LONGEST_LIFE) {
        return Err(ClientAuthRefusal::AssertionLivesTooLong);
    }
    // RFC 7523 §3 items 5 and 6.
    let (not_before, issued_at) = (date(&claims, "nbf")?, date(&claims, "iat")?);
    if not_before.is_some_and(|not_before| not_before > now.after(LEEWAY)) {
        return Err(ClientAuthRefusal::AssertionNotYetValid);
    }
    if issued_at.is_some_and(|issued_at| issued_at > now.after(LEEWAY)) {
        return Err(ClientAuthRefusal::AssertionFromTheFuture);
    }
    // RFC 7523 §3 item 7 leaves jti optional; here it is what makes the assertion good for one use.
    let jti = match claims.get("jti") {
        None => return Err(ClientAuthRefusal::AssertionJtiMissing),
        Some(Value::String(jti)) if is_storable(jti) => jti.clone(),
        Some(_) => return Err(ClientAuthRefusal::AssertionJtiMalformed),
    };
    // Item 7 again: which of them were used between a backup and the restore nobody knows. By the rules above none was taken
    // before an instant that is dated so much later, or ends so much later; so what is dated by neither claim waits for `exp`.
    let is_dated_later = not_before.max(issued_at).is_some_and(|dated| dated >= remembered_from.after(LEEWAY));
    if !is_dated_later && expires_at < remembered_from.after(LONGEST_LIFE) {
        return Err(ClientAuthRefusal::AssertionOfBeforeRestore);
    }
    Ok(UsedAssertion { client_id: client_id.clone(), jti, expires_at })
}

/// Both stores keep it as text: no NUL, and nothing that two of them could compare differently for want of visibility.
fn is_storable(jti: &str) -> bool {
    !jti.is_empty() && jti.len() <= LONGEST_JTI_BYTES && !jti.chars().any(char::is_control)
}

/// A NumericDate (RFC 7519 §2): seconds, fractions allowed.
pub(super) fn date(claims: &Map<String, Value>, name: &str) -> Result<Option<UnixTime>, ClientAuthRefusal> {
    let Some(value) = claims.get(name) else { return Ok(None) };
    let instant = match (value.as_i64(), value.as_f64()) {
        (Some(seconds), _) => UnixTime::from_seconds(seconds),
        // Beyond the range of milliseconds a conversion saturates, which keeps the date on its side of `now`.
        (None, Some(seconds)) => UnixTime::from_millis((seconds * 1000.0) as i64),
        (None, None) => return Err(ClientAuthRefusal::AssertionClaimsMalformed),
    };
    Ok(Some(instant))
}

pub(super) const fn refusal_of(error: JwsError) -> ClientAuthRefusal {
    match error {
        JwsError::TooLong | JwsError::Framing | JwsError::Header | JwsError::Critical | JwsError::UnencodedPayload => {
            ClientAuthRefusal::AssertionUnreadable
        }
        JwsError::Algorithm => ClientAuthRefusal::AssertionAlgorithmWrong,
        JwsError::Type => ClientAuthRefusal::AssertionTypeWrong,
        JwsError::KidMissing | JwsError::KeyUnknown | JwsError::KeyMismatch => ClientAuthRefusal::AssertionKeyUnknown,
        JwsError::Signature => ClientAuthRefusal::AssertionSignatureInvalid,
        JwsError::Payload | JwsError::Claims => ClientAuthRefusal::AssertionClaimsMalformed,
    }
}
