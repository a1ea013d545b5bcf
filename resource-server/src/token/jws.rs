//! Is this compact JWS signed by one of these keys? (RFC 7515)
//!
//! Takes a compact serialization, a key set and what is expected of the header, gives the header and the payload of a
//! signature that holds. It is the one file of this crate that names josekit and aws-lc-rs, and it knows nothing of
//! what the payload says.
//!
//! josekit does the framing and aws-lc-rs the arithmetic, but the header is judged here first: josekit's compact form
//! lets an empty `crit` and a doubled `alg` pass.

use std::fmt;
use std::sync::Arc;

use aws_lc_rs::signature::{self, ParsedPublicKey};
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use josekit::JoseError;
use josekit::jws::{JwsAlgorithm, JwsContext, JwsVerifier};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::json;
use super::jwks::{KeySet, PublicKey};

/// The longest token or assertion that is looked at.
pub const MAX_TOKEN_BYTES: usize = 16 * 1024;

/// A signing algorithm by its JOSE name (RFC 7518 §3.1, RFC 8037 §3.1, RFC 9864 §2.2).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum SigningAlgorithm {
    /// ECDSA on P-256 with SHA-256.
    ES256,
    /// Ed25519, by its older polymorphic name.
    EdDSA,
    /// Ed25519, fully specified (RFC 9864).
    Ed25519,
    /// RSASSA-PSS with SHA-256 and MGF1 with SHA-256.
    PS256,
}

impl SigningAlgorithm {
    /// Every algorithm there is. RS256 is not among them, nor is any with a shared secret, nor `none`.
    pub const ALL: &'static [Self] = &[Self::ES256, Self::EdDSA, Self::Ed25519, Self::PS256];

    /// The name on the wire.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::ES256 => "ES256",
            Self::EdDSA => "EdDSA",
            Self::Ed25519 => "Ed25519",
            Self::PS256 => "PS256",
        }
    }

    /// The algorithm of this name. Names are compared with case (RFC 7515 §4.1.1).
    pub fn parse(name: &str) -> Option<Self> {
        Self::ALL.iter().copied().find(|algorithm| algorithm.as_str() == name)
    }
}

impl fmt::Display for SigningAlgorithm {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// So that josekit knows it, `Ed25519` included, which josekit has no name for.
impl JwsAlgorithm for SigningAlgorithm {
    fn name(&self) -> &str {
        self.as_str()
    }

    fn box_clone(&self) -> Box<dyn JwsAlgorithm> {
        Box::new(*self)
    }
}

/// What is expected of a signed object besides its signature.
#[derive(Clone, Copy, Debug)]
pub struct Expectation<'a> {
    /// The algorithms that may have signed it: an allow-list (RFC 8725 §3.1).
    pub algorithms: &'a [SigningAlgorithm],
    /// The values `typ` may have (RFC 8725 §3.11), without the `application/` that may be left out (RFC 7515 §4.1.9).
    pub types: &'a [&'a str],
    /// What an absent `typ` means.
    pub untyped: Untyped,
    /// How the key is chosen.
    pub key: KeyChoice,
    /// The longest serialization that is looked at: [`MAX_TOKEN_BYTES`] for tokens and assertions.
    pub max_bytes: usize,
}

/// What an absent `typ` means.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Untyped {
    /// It is taken for one of the expected types.
    Accept,
    /// It is refused.
    Refuse,
}

/// How the key is chosen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum KeyChoice {
    /// By the header's `kid`, which has to be there.
    ByKid,
    /// By the header's `kid`; without one, the only key of the set that can serve the algorithm.
    ByKidOrOnly,
}

/// The members of a JOSE header that anybody acts on. `jwk`, `jku`, `x5c` and `x5u` are ignored: a key is taken from the
/// key set, never from the object it is to judge.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Header {
    /// `alg`, as written.
    pub algorithm: String,
    /// `kid`
    pub kid: Option<String>,
    /// `typ`, as written.
    pub typ: Option<String>,
}

impl Header {
    /// Whether `typ` is `expected`: media types are compared without case, and `application/` may be left out where no
    /// other `/` follows (RFC 7515 §4.1.9).
    pub fn is_of_type(&self, expected: &str) -> bool {
        self.typ.as_deref().is_some_and(|typ| bare_type(typ).eq_ignore_ascii_case(bare_type(expected)))
    }
}

/// A signed object of which nothing is proven: for finding the record that says which keys to ask.
#[derive(Clone, Debug)]
pub struct Unverified {
    /// The header.
    pub header: Header,
    /// The payload's octets.
    pub payload: Vec<u8>,
}

impl Unverified {
    /// The payload as a JSON object with every member named once.
    ///
    /// # Errors
    /// [`JwsError::Payload`] if it is none.
    pub fn claims(&self) -> Result<Map<String, Value>, JwsError> {
        json::parse_object(&self.payload).map_err(|_| JwsError::Payload)
    }
}

/// A signed object whose signature holds.
#[derive(Clone, Debug)]
pub struct Verified {
    header: Header,
    payload: Vec<u8>,
    algorithm: SigningAlgorithm,
    key: Arc<PublicKey>,
}

impl Verified {
    /// The header.
    pub const fn header(&self) -> &Header {
        &self.header
    }

    /// The payload's octets.
    pub fn payload(&self) -> &[u8] {
        &self.payload
    }

    /// The algorithm it was signed with.
    pub const fn algorithm(&self) -> SigningAlgorithm {
        self.algorithm
    }

    /// The key that signed it.
    pub const fn key(&self) -> &Arc<PublicKey> {
        &self.key
    }

    /// The payload, a JSON object with every member named once, read into `T`: a structure, or `Map<String, Value>`.
    ///
    /// # Errors
    /// [`JwsError::Payload`] if it is no such object, [`JwsError::Claims`] if the object is no `T`.
    pub fn claims<T: DeserializeOwned>(&self) -> Result<T, JwsError> {
        let object = json::parse_object(&self.payload).map_err(|_| JwsError::Payload)?;
        serde_json::from_value(Value::Object(object)).map_err(|_| JwsError::Claims)
    }
}

/// Why a signed object is not taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum JwsError {
    /// It is longer than the limit.
    #[error("too long")]
    TooLong,
    /// It is not three parts of base64url without padding or stray bits, separated by two dots.
    #[error("not a compact serialization")]
    Framing,
    /// The header is not a JSON object with every member named once, or a member has the wrong type.
    #[error("the header cannot be read")]
    Header,
    /// The header has `crit`: no extension is understood here, and an empty list is malformed (RFC 7515 §4.1.11).
    #[error("the header names critical extensions")]
    Critical,
    /// The header has `b64` (RFC 7797), which is only good together with `crit`.
    #[error("the header has b64")]
    UnencodedPayload,
    /// `alg` is not among those expected.
    #[error("signed with an algorithm that is not allowed")]
    Algorithm,
    /// `typ` is not among those expected.
    #[error("an object of another type")]
    Type,
    /// The header has no `kid`, and the key cannot be chosen without.
    #[error("the header names no key")]
    KidMissing,
    /// No key of the set has this `kid`.
    #[error("signed with a key that is not in the set")]
    KeyUnknown,
    /// The key named cannot serve this algorithm (RFC 8725 §3.1).
    #[error("the key is not one for this algorithm")]
    KeyMismatch,
    /// The signature does not hold.
    #[error("the signature does not hold")]
    Signature,
    /// The payload is not a JSON object with every member named once.
    #[error("the payload cannot be read")]
    Payload,
    /// The payload lacks a claim, or has one of the wrong type.
    #[error("a claim is missing or of the wrong type")]
    Claims,
}

/// Reads header and payload without asking whether the signature holds.
///
/// # Errors
/// [`JwsError::TooLong`], [`JwsError::Framing`], [`JwsError::Header`], [`JwsError::Critical`],
/// [`JwsError::UnencodedPayload`].
pub fn peek(compact: &str) -> Result<Unverified, JwsError> {
    let parts = Parts::parse(compact, MAX_TOKEN_BYTES)?;
    Ok(Unverified { header: parts.header()?, payload: parts.payload })
}

/// Takes the header and the payload of a compact JWS that one of `keys` signed as `expected`.
///
/// # Errors
/// Any [`JwsError`] but [`JwsError::Payload`] and [`JwsError::Claims`]: the payload may be anything.
pub fn verify(compact: &str, keys: &KeySet, expected: &Expectation<'_>) -> Result<Verified, JwsError> {
    let parts = Parts::parse(compact, expected.max_bytes)?;
    let header = parts.header()?;
    // RFC 8725 §3.1: the algorithm is one of those allowed here, whatever the key could also do.
    let algorithm = SigningAlgorithm::parse(&header.algorithm)
        .filter(|algorithm| expected.algorithms.contains(algorithm))
        .ok_or(JwsError::Algorithm)?;
    // RFC 8725 §3.11
    match &header.typ {
        Some(_) if expected.types.iter().any(|typ| header.is_of_type(typ)) => {}
        None if expected.untyped == Untyped::Accept => {}
        Some(_) | None => return Err(JwsError::Type),
    }
    let key = match (&header.kid, expected.key) {
        (Some(kid), _) => keys.by_kid(kid).ok_or(JwsError::KeyUnknown)?,
        (None, KeyChoice::ByKid) => return Err(JwsError::KidMissing),
        (None, KeyChoice::ByKidOrOnly) => {
            let mut able = keys.keys().iter().filter(|key| key.serves(algorithm));
            match (able.next(), able.next()) {
                (Some(only), None) => only,
                (None, _) => return Err(JwsError::KeyMismatch),
                (Some(_), Some(_)) => return Err(JwsError::KidMissing),
            }
        }
    };
    if !key.serves(algorithm) {
        return Err(JwsError::KeyMismatch);
    }
    let verification = key.verification().ok_or(JwsError::KeyMismatch)?;
    let verifier = Verifier { algorithm, key: Arc::clone(verification) };
    let (payload, _) = JwsContext::new().deserialize_compact(compact, &verifier).map_err(|_| JwsError::Signature)?;
    Ok(Verified { header, payload, algorithm, key: Arc::clone(key) })
}

/// A public key, parsed and ready for any number of verifications on any number of threads.
pub(super) struct VerificationKey(ParsedPublicKey);

impl VerificationKey {
    /// The key of a SubjectPublicKeyInfo on P-256; `None` if the point is not on the curve.
    pub(super) fn p256(spki: &[u8]) -> Option<Self> {
        // RFC 7518 §3.4: R and S as 32 octets each, not as DER.
        ParsedPublicKey::new(&signature::ECDSA_P256_SHA256_FIXED, spki).ok().map(Self)
    }

    /// The key of a SubjectPublicKeyInfo for Ed25519.
    pub(super) fn ed25519(spki: &[u8]) -> Option<Self> {
        ParsedPublicKey::new(&signature::ED25519, spki).ok().map(Self)
    }

    /// The key of a SubjectPublicKeyInfo for RSA.
    pub(super) fn rsa_pss(spki: &[u8]) -> Option<Self> {
        // RFC 7518 §3.5: the salt is as long as the hash, which is what aws-lc-rs demands.
        ParsedPublicKey::new(&signature::RSA_PSS_2048_8192_SHA256, spki).ok().map(Self)
    }
}

impl fmt::Debug for VerificationKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("VerificationKey")
    }
}

#[derive(Clone, Debug)]
struct Verifier {
    algorithm: SigningAlgorithm,
    key: Arc<VerificationKey>,
}

impl JwsVerifier for Verifier {
    fn algorithm(&self) -> &dyn JwsAlgorithm {
        &self.algorithm
    }

    fn key_id(&self) -> Option<&str> {
        None // chosen by `kid` already
    }

    fn verify(&self, message: &[u8], signature: &[u8]) -> Result<(), JoseError> {
        self.key.0.verify_sig(message, signature).map_err(|unspecified| JoseError::InvalidSignature(unspecified.into()))
    }

    fn box_clone(&self) -> Box<dyn JwsVerifier> {
        Box::new(self.clone())
    }
}

struct Parts {
    header: Vec<u8>,
    payload: Vec<u8>,
}

impl Parts {
    // RFC 7515 §7.1. The engine refuses padding, white space, other alphabets and bits that no octet uses.
    fn parse(compact: &str, max_bytes: usize) -> Result<Self, JwsError> {
        if compact.len() > max_bytes {
            return Err(JwsError::TooLong);
        }
        let mut parts = compact.split('.');
        let (Some(header), Some(payload), Some(signature), None) =
            (parts.next(), parts.next(), parts.next(), parts.next())
        else {
            return Err(JwsError::Framing);
        };
        let decode = |part: &str| URL_SAFE_NO_PAD.decode(part).map_err(|_| JwsError::Framing);
        decode(signature)?;
        Ok(Self { header: decode(header)?, payload: decode(payload)? })
    }

    fn header(&self) -> Result<Header, JwsError> {
        let mut members = json::parse_object(&self.header).map_err(|_| JwsError::Header)?;
        // RFC 7515 §4.1.11: "crit" is refused whatever it lists, since nothing it could list is implemented.
        if members.contains_key("crit") {
            return Err(JwsError::Critical);
        }
        if members.contains_key("b64") {
            return Err(JwsError::UnencodedPayload);
        }
        let mut text = |name: &str| match members.remove(name) {
            None => Ok(None),
            Some(Value::String(text)) => Ok(Some(text)),
            Some(_) => Err(JwsError::Header),
        };
        let algorithm = text("alg")?.ok_or(JwsError::Header)?; // RFC 7515 §4.1.1: MUST be present
        Ok(Header { algorithm, kid: text("kid")?, typ: text("typ")? })
    }
}

fn bare_type(typ: &str) -> &str {
    const PREFIX: &str = "application/";
    match typ.split_at_checked(PREFIX.len()) {
        Some((prefix, rest)) if prefix.eq_ignore_ascii_case(PREFIX) && !rest.contains('/') => rest,
        _ => typ,
    }
}
