//! Is this one of the authorization server's access tokens, for us, and good now? (RFC 9068 §4)
//!
//! Takes the text of a token, gives a [`VerifiedToken`]. A token that was verified once is remembered under its whole
//! text, so its signature is checked once; that its key is still held and its dates are asked every time. It knows
//! nothing of certificates or revocation.

use std::hash::{Hash, Hasher};
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::time::Duration;

use moka::Equivalent;
use moka::sync::Cache;
use serde::Deserialize;
use serde_json::Value;

use super::claims::{ACCESS_TOKEN_TYPE, AccessTokenClaims};
use super::held_keys::HeldKeys;
use super::json;
use super::jwks::{KeySet, PublicKey};
use super::jws::{self, Expectation, JwsError, KeyChoice, SigningAlgorithm, Untyped, Verified};
use crate::bearer::BearerToken;
use crate::confirmation::Confirmation;
use crate::error::TokenRefusal;
use crate::status::Note;
use crate::time::UnixTime;

/// How far the clocks of the two servers may differ.
pub const LEEWAY: Duration = Duration::from_secs(10);

/// Verifies access tokens of one issuer for one audience.
#[derive(Debug)]
pub struct AccessTokens {
    issuer: String,
    audience: String,
    algorithms: Vec<SigningAlgorithm>,
    keys: Arc<HeldKeys>,
    remembered: Cache<WholeToken, Arc<VerifiedToken>>,
}

impl AccessTokens {
    /// Tokens of `issuer` for `audience`, both compared as exact text, signed by `keys`; at most about
    /// `remembered_bytes` of tokens are remembered.
    pub fn new(issuer: String, audience: String, keys: Arc<HeldKeys>, remembered_bytes: u64) -> Self {
        // Only tokens whose signature held come in, so a stranger cannot push others out.
        let remembered = Cache::builder()
            .weigher(|token: &WholeToken, _: &Arc<VerifiedToken>| {
                u32::try_from(token.0.len().saturating_mul(2).saturating_add(OVERHEAD_BYTES)).unwrap_or(u32::MAX)
            })
            .max_capacity(remembered_bytes)
            .time_to_live(LONGEST_LIFETIME)
            .build();
        Self { issuer, audience, algorithms: SigningAlgorithm::ALL.to_vec(), keys, remembered }
    }

    /// Verifies one token as of `now`.
    ///
    /// # Errors
    /// Every [`TokenRefusal`].
    pub fn verify(&self, bearer: BearerToken<'_>, now: UnixTime) -> Result<Arc<VerifiedToken>, TokenRefusal> {
        let keys = self.keys.current();
        let keys = keys.as_ref().ok_or(TokenRefusal::KeysNotHeld)?;
        if let Some(token) = self.remembered.get(&Asked(bearer.as_str())) {
            if token.key_is_in(keys) {
                token.judge_dates(now)?;
                return Ok(token);
            }
            // Withdrawn, or another key under the same name: judged anew, which says which.
            self.remembered.invalidate(&Asked(bearer.as_str()));
        }
        let token = Arc::new(self.read(bearer.as_str(), keys)?);
        token.judge_dates(now)?;
        self.remembered.insert(WholeToken(bearer.as_str().into()), Arc::clone(&token));
        Ok(token)
    }

    fn read(&self, text: &str, keys: &KeySet) -> Result<VerifiedToken, TokenRefusal> {
        read(text, keys, &self.algorithms, &self.issuer, Some(&self.audience)).inspect_err(|refusal| {
            if *refusal == TokenRefusal::KidUnknown {
                self.keys.ask_for_news();
            }
        })
    }
}

/// Reads a token that `issuer` says it has signed with one of `keys`, for any audience: for the issuer itself, which
/// revokes tokens and answers questions about them. Its dates are not judged, and a resource server has to ask
/// [`AccessTokens`].
///
/// # Errors
/// Every [`TokenRefusal`] but those about audience and dates.
pub fn read_own(text: &str, keys: &KeySet, issuer: &str) -> Result<VerifiedToken, TokenRefusal> {
    read(text, keys, SigningAlgorithm::ALL, issuer, None)
}

/// A token of `issuer`, for `audience` where one is said, whose signature holds.
fn read(
    text: &str,
    keys: &KeySet,
    algorithms: &[SigningAlgorithm],
    issuer: &str,
    audience: Option<&str>,
) -> Result<VerifiedToken, TokenRefusal> {
    let expected = Expectation {
        algorithms,
        types: &[ACCESS_TOKEN_TYPE], // RFC 9068 §4: at+jwt or application/at+jwt, nothing else
        untyped: Untyped::Refuse,
        key: KeyChoice::ByKid,
        max_bytes: jws::MAX_TOKEN_BYTES,
    };
    let verified = jws::verify(text, keys, &expected)?;
    let (claims, not_before) = match as_ours_says_it(&verified) {
        // RFC 9068 §4: "iss" exactly the issuer; "aud" this resource server. A token for several would be good at each of them.
        Some(claims) if claims.iss != issuer => return Err(TokenRefusal::Issuer),
        Some(claims) if audience.is_some_and(|audience| claims.aud != audience) => return Err(TokenRefusal::Audience),
        Some(claims) => (claims, None),
        None => said_otherwise(&verified, issuer, audience)?,
    };
    let key = Arc::clone(verified.key());
    Ok(VerifiedToken { claims, not_before, key, found_alive_in: AtomicU64::new(0), told: Note::default() })
}

/// The claims where they are written as our server writes them: read once, without a copy of what they are not. Where there is
/// anything else to them, [`said_otherwise`] finds out what.
fn as_ours_says_it(verified: &Verified) -> Option<AccessTokenClaims> {
    let names = json::member_names(verified.payload()).ok()?;
    if names.iter().any(|name| name == "nbf") {
        return None;
    }
    serde_json::from_slice(verified.payload()).ok()
}

/// The claims however they are written, and "nbf".
fn said_otherwise(
    verified: &Verified,
    issuer: &str,
    audience: Option<&str>,
) -> Result<(AccessTokenClaims, Option<i64>), TokenRefusal> {
    let mut members = verified.members()?;
    // RFC 7519 §4.1.3: an array of one says what the string says. The issuer, which writes none, knows none as its own.
    if audience.is_some()
        && let Some(said) = members.get_mut("aud")
        && let Some([only]) = said.as_array_mut().map(Vec::as_mut_slice)
    {
        *said = only.take();
    }
    if members.get("iss").and_then(Value::as_str) != Some(issuer) {
        return Err(TokenRefusal::Issuer);
    }
    if audience.is_some() && members.get("aud").and_then(Value::as_str) != audience {
        return Err(TokenRefusal::Audience);
    }
    // RFC 8705 §3.1, RFC 7800 §3.1
    let confirmation = members.get("cnf").ok_or(TokenRefusal::ConfirmationMissing)?;
    Confirmation::deserialize(confirmation).map_err(|_| TokenRefusal::ConfirmationMalformed)?;
    let not_before = match members.get("nbf") {
        None => None,
        Some(value) => Some(value.as_i64().ok_or(TokenRefusal::Claims)?),
    };
    let claims = serde_json::from_value(Value::Object(members)).map_err(|_| TokenRefusal::Claims)?;
    Ok((claims, not_before))
}

/// An access token of our issuer, for us, that was in date when it was handed out; or one of [`read_own`].
#[derive(Debug)]
pub struct VerifiedToken {
    claims: AccessTokenClaims,
    not_before: Option<i64>,
    key: Arc<PublicKey>,
    /// The revocation list, by its generation, in which nothing concerns this token: `status`'s note to itself.
    pub(crate) found_alive_in: AtomicU64,
    /// What the authorization server said of it when it was asked.
    pub(crate) told: Note,
}

impl VerifiedToken {
    /// What it says.
    pub const fn claims(&self) -> &AccessTokenClaims {
        &self.claims
    }

    /// The name of the key that signed it.
    pub fn kid(&self) -> &str {
        self.key.kid().unwrap_or_default() // chosen by its name, so it has one
    }

    fn key_is_in(&self, keys: &KeySet) -> bool {
        keys.by_kid(self.kid()).is_some_and(|held| Arc::ptr_eq(held, &self.key) || *held == self.key)
    }

    /// Judges its dates as of `now`: they are all that changes of itself.
    pub(crate) fn judge_dates(&self, now: UnixTime) -> Result<(), TokenRefusal> {
        // RFC 7519 §4.1.4: on or after "exp" it MUST NOT be accepted, but for a small leeway.
        if now >= UnixTime::from_seconds(self.claims.exp).after(LEEWAY) {
            return Err(TokenRefusal::Expired);
        }
        // RFC 7519 §4.1.5
        if self.not_before.is_some_and(|not_before| now.after(LEEWAY) < UnixTime::from_seconds(not_before)) {
            return Err(TokenRefusal::NotYetValid);
        }
        // RFC 7519 §4.1.6 leaves "iat" open; one that lies ahead was not written by a server whose clock agrees.
        if now.after(LEEWAY) < UnixTime::from_seconds(self.claims.iat) {
            return Err(TokenRefusal::IssuedInFuture);
        }
        Ok(())
    }
}

/// A remembered token: compared whole, found by its end. The end is the signature's, as random as a hash, and only tokens
/// whose signature held are keys, so nobody can make many of one hash.
#[derive(Debug, PartialEq, Eq)]
struct WholeToken(Box<str>);

impl Hash for WholeToken {
    fn hash<H: Hasher>(&self, state: &mut H) {
        Asked(&self.0).hash(state);
    }
}

/// A token that is asked for.
struct Asked<'a>(&'a str);

impl Hash for Asked<'_> {
    fn hash<H: Hasher>(&self, state: &mut H) {
        let octets = self.0.as_bytes();
        octets.last_chunk::<HASHED_BYTES>().map_or(octets, |end| end).hash(state);
    }
}

impl Equivalent<WholeToken> for Asked<'_> {
    fn equivalent(&self, key: &WholeToken) -> bool {
        *self.0 == *key.0
    }
}

impl From<JwsError> for TokenRefusal {
    fn from(error: JwsError) -> Self {
        match error {
            JwsError::TooLong | JwsError::Framing => Self::Malformed,
            JwsError::Header => Self::Header,
            JwsError::Critical | JwsError::UnencodedPayload => Self::Critical,
            JwsError::Algorithm => Self::Algorithm,
            JwsError::Type => Self::Type,
            JwsError::KidMissing => Self::KidMissing,
            JwsError::KeyUnknown => Self::KidUnknown,
            JwsError::KeyMismatch => Self::KeyMismatch,
            JwsError::Signature => Self::Signature,
            JwsError::Payload | JwsError::Claims => Self::Claims,
        }
    }
}

// 192 bits of the signature.
const HASHED_BYTES: usize = 32;

// The claims again, and what the cache keeps beside them.
const OVERHEAD_BYTES: usize = 1024;

// The authorization server's hard limit on token lifetimes: nothing is worth remembering longer.
const LONGEST_LIFETIME: Duration = Duration::from_secs(3600);

#[cfg(test)]
mod tests {
    use countersign_conformance::forge::{Members, Token};
    use countersign_conformance::{JwsAlgorithm, Key, KeyKind};
    use serde_json::json;

    use super::*;

    const ISSUER: &str = "https://as.example";
    const RESOURCE: &str = "https://api.example";

    fn good() -> Vec<(&'static str, Value)> {
        vec![
            ("iss", json!(ISSUER)),
            ("sub", json!("c")),
            ("aud", json!(RESOURCE)),
            ("exp", json!(1_800_000_300)),
            ("iat", json!(1_800_000_000)),
            ("jti", json!("t")),
            ("client_id", json!("c")),
            ("scope", json!("read")),
            ("cnf", json!({ "x5t#S256": "AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA" })),
            ("participant_id", json!("p")),
            ("roles", json!(["bank"])),
            ("environment", json!("sandbox")),
            ("anchor", json!("a")),
            ("registry_version", json!(41)),
            ("status", json!({ "status_list": { "idx": 1, "uri": "https://as.example/s" } })),
            ("other", json!({ "deep": [1, 2] })),
        ]
    }

    /// Both ways to read a token agree, whatever it says: the quick one takes nothing that the thorough one takes otherwise.
    #[test]
    fn what_is_read_as_ours_says_it_is_read_the_same_however_it_is_said() {
        let key = Key::generate(KeyKind::P256);
        let mut jwk = key.jwk();
        jwk["kid"] = "k".into();
        let keys = KeySet::parse(json!({ "keys": [jwk] }).to_string().as_bytes()).unwrap();
        let expected = Expectation {
            algorithms: SigningAlgorithm::ALL,
            types: &[ACCESS_TOKEN_TYPE],
            untyped: Untyped::Refuse,
            key: KeyChoice::ByKid,
            max_bytes: jws::MAX_TOKEN_BYTES,
        };
        let others = [
            None,
            Some(json!(null)),
            Some(json!(true)),
            Some(json!(-1)),
            Some(json!(1.5)),
            Some(json!(u64::MAX)),
            Some(json!("")),
            Some(json!([])),
            Some(json!([RESOURCE])),
            Some(json!({})),
            Some(json!([["AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA"]])),
            Some(json!([[1, "https://as.example/s"]])),
        ];
        let (mut quick, mut thorough) = (0, 0);
        for (name, _) in good().into_iter().chain([("nbf", json!(null))]) {
            for other in &others {
                let mut claims = Members::new();
                for (known, value) in good().into_iter().filter(|(known, _)| *known != name) {
                    claims = claims.with(known, value);
                }
                if let Some(other) = other {
                    claims = claims.with(name, other.clone());
                }
                let header = Members::new().with("typ", ACCESS_TOKEN_TYPE).with("alg", "ES256").with("kid", "k");
                let token = Token { header, claims, algorithm: JwsAlgorithm::Es256, key: &key }.compact();
                let verified = jws::verify(&token, &keys, &expected).unwrap();
                match as_ours_says_it(&verified) {
                    Some(claims) => {
                        quick += 1;
                        let (issuer, audience) = (claims.iss.clone(), claims.aud.clone());
                        let otherwise = said_otherwise(&verified, &issuer, Some(&audience));
                        assert_eq!(otherwise, Ok((claims, None)), "{name}: {other:?}");
                    }
                    None => {
                        thorough += 1;
                        let otherwise = said_otherwise(&verified, ISSUER, Some(RESOURCE));
                        let is_otherwise = otherwise.is_err() || matches!((name, other), ("aud" | "nbf", Some(_)));
                        assert!(is_otherwise, "{name}: {other:?}");
                    }
                }
            }
        }
        assert!(quick > 20 && thorough > 100, "{quick} and {thorough}");
    }
}
