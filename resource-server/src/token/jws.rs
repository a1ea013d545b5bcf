//! Is this compact JWS signed by one of these keys? (RFC 7515)
//!
//! Takes a compact serialization, a key set and what is expected of the header, gives the header and the payload of a
//! signature that holds. It is the one file of this crate that names josekit and aws-lc-rs, and it knows nothing of
//! what the payload says.
//!
//! aws-lc-rs does the arithmetic, behind josekit's [`JwsVerifier`]. The framing is read here, once: josekit's compact form
//! lets an empty `crit` and a doubled `alg` pass, so that all of it had to be judged before josekit read it again.

use std::fmt;
use std::sync::Arc;

use aws_lc_rs::signature::{self, ParsedPublicKey};
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use josekit::JoseError;
use josekit::jws::{JwsAlgorithm, JwsVerifier};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Deserializer, Serialize};
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

    /// The payload, a JSON object with every member named once.
    ///
    /// # Errors
    /// [`JwsError::Payload`] if it is no such object.
    pub fn members(&self) -> Result<Map<String, Value>, JwsError> {
        json::parse_object(&self.payload).map_err(|_| JwsError::Payload)
    }

    /// The same, read into a structure.
    ///
    /// # Errors
    /// [`JwsError::Payload`] if it is no such object, [`JwsError::Claims`] if the object is no `T`.
    pub fn claims<T: DeserializeOwned>(&self) -> Result<T, JwsError> {
        serde_json::from_value(Value::Object(self.members()?)).map_err(|_| JwsError::Claims)
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
    peek_within(compact, MAX_TOKEN_BYTES)
}

/// The same for an object of at most `max_bytes`.
///
/// # Errors
/// As [`peek`].
pub fn peek_within(compact: &str, max_bytes: usize) -> Result<Unverified, JwsError> {
    let parts = Parts::parse(compact, max_bytes)?;
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
    verifier.verify(parts.signed.as_bytes(), &parts.signature).map_err(|_| JwsError::Signature)?;
    Ok(Verified { header, payload: parts.payload, algorithm, key: Arc::clone(key) })
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

struct Parts<'a> {
    header: Vec<u8>,
    payload: Vec<u8>,
    signature: Vec<u8>,
    /// What the signature is over (RFC 7515 §5.2, step 8): header and payload as they were sent, with the dot between them.
    signed: &'a str,
}

impl<'a> Parts<'a> {
    // RFC 7515 §7.1. The engine refuses padding, white space, other alphabets and bits that no octet uses.
    fn parse(compact: &'a str, max_bytes: usize) -> Result<Self, JwsError> {
        if compact.len() > max_bytes {
            return Err(JwsError::TooLong);
        }
        let (signed, signature) = compact.rsplit_once('.').ok_or(JwsError::Framing)?;
        // A third dot would be in the header or the payload, whose alphabet has none.
        let (header, payload) = signed.split_once('.').ok_or(JwsError::Framing)?;
        let decode = |part: &str| URL_SAFE_NO_PAD.decode(part).map_err(|_| JwsError::Framing);
        Ok(Self { header: decode(header)?, payload: decode(payload)?, signature: decode(signature)?, signed })
    }

    fn header(&self) -> Result<Header, JwsError> {
        let names = json::member_names(&self.header).map_err(|_| JwsError::Header)?;
        let has = |name: &str| names.binary_search_by(|known| known.as_ref().cmp(name)).is_ok();
        // RFC 7515 §4.1.11: "crit" is refused whatever it lists, since nothing it could list is implemented.
        if has("crit") {
            return Err(JwsError::Critical);
        }
        if has("b64") {
            return Err(JwsError::UnencodedPayload);
        }
        let Members { alg, kid, typ } = serde_json::from_slice(&self.header).map_err(|_| JwsError::Header)?;
        Ok(Header { algorithm: alg, kid, typ })
    }
}

/// The members of a header that are read. Each is text where it is there: `null` is none.
#[derive(Deserialize)]
struct Members {
    alg: String, // RFC 7515 §4.1.1: MUST be present
    #[serde(default, deserialize_with = "text")]
    kid: Option<String>,
    #[serde(default, deserialize_with = "text")]
    typ: Option<String>,
}

fn text<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<String>, D::Error> {
    String::deserialize(deserializer).map(Some)
}

fn bare_type(typ: &str) -> &str {
    const PREFIX: &str = "application/";
    match typ.split_at_checked(PREFIX.len()) {
        Some((prefix, rest)) if prefix.eq_ignore_ascii_case(PREFIX) && !rest.contains('/') => rest,
        _ => typ,
    }
}

#[cfg(test)]
mod vectors;

#[cfg(test)]
mod tests {
    use countersign_conformance::forge::{self, Members, Signature, Token};
    use countersign_conformance::{JwsAlgorithm as Alg, Key, KeyKind};
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    const EXPECTED: Expectation<'static> = Expectation {
        algorithms: SigningAlgorithm::ALL,
        types: &["at+jwt"],
        untyped: Untyped::Refuse,
        key: KeyChoice::ByKid,
        max_bytes: MAX_TOKEN_BYTES,
    };

    struct Signer {
        key: Key,
        keys: KeySet,
    }

    impl Signer {
        fn new(kind: KeyKind) -> Self {
            let key = Key::generate(kind);
            let mut jwk = key.jwk();
            jwk["kid"] = "k1".into();
            let keys = KeySet::parse(json!({ "keys": [jwk] }).to_string().as_bytes()).unwrap();
            Self { key, keys }
        }

        fn token(&self, algorithm: Alg) -> Token<'_> {
            Token {
                header: Members::new().with("typ", "at+jwt").with("alg", algorithm.as_str()).with("kid", "k1"),
                claims: Members::new().with("sub", "c"),
                algorithm,
                key: &self.key,
            }
        }

        fn verdict(&self, change: impl FnOnce(Members) -> Members) -> Result<Verified, JwsError> {
            verify(&self.token(Alg::Es256).header(change).compact(), &self.keys, &EXPECTED)
        }

        fn refusal(&self, change: impl FnOnce(Members) -> Members) -> JwsError {
            self.verdict(change).unwrap_err()
        }
    }

    #[test]
    fn every_algorithm_is_verified_by_its_kind_of_key() {
        for (kind, algorithm, name) in [
            (KeyKind::P256, Alg::Es256, "ES256"),
            (KeyKind::Ed25519, Alg::EdDsa, "EdDSA"),
            (KeyKind::Ed25519, Alg::EdDsa, "Ed25519"),
            (KeyKind::Rsa2048, Alg::Ps256, "PS256"),
        ] {
            let signer = Signer::new(kind);
            let token = signer.token(algorithm).header(|header| header.with("alg", name));
            let verified = verify(&token.compact(), &signer.keys, &EXPECTED).unwrap();
            assert_eq!(verified.algorithm().as_str(), name);
            assert_eq!(verified.key().kid(), Some("k1"));
            assert_eq!(verified.members().unwrap()["sub"], "c");
            // The same for a reader that does not allow it.
            let others: Vec<_> =
                SigningAlgorithm::ALL.iter().copied().filter(|algorithm| algorithm.as_str() != name).collect();
            let expected = Expectation { algorithms: &others, ..EXPECTED };
            assert_eq!(verify(&token.compact(), &signer.keys, &expected).unwrap_err(), JwsError::Algorithm);
        }
    }

    #[test]
    fn algorithms_that_are_not_used_here() {
        let signer = Signer::new(KeyKind::P256);
        for name in
            ["none", "None", "NONE", "", "es256", "ES256 ", "ES384", "ES256K", "RS256", "PS384", "HS256", "Ed448"]
        {
            assert_eq!(signer.refusal(|header| header.with("alg", name)), JwsError::Algorithm, "{name:?}");
        }
        let rsa = Signer::new(KeyKind::Rsa2048);
        assert_eq!(verify(&rsa.token(Alg::Rs256).compact(), &rsa.keys, &EXPECTED).unwrap_err(), JwsError::Algorithm);
    }

    #[test]
    fn none_without_signature() {
        let signer = Signer::new(KeyKind::P256);
        let token = signer.token(Alg::Es256).header(|header| header.with("alg", "none"));
        assert_eq!(verify(&token.signed(Signature::None), &signer.keys, &EXPECTED).unwrap_err(), JwsError::Algorithm);
        let token = signer.token(Alg::Es256);
        assert_eq!(verify(&token.signed(Signature::None), &signer.keys, &EXPECTED).unwrap_err(), JwsError::Signature);
    }

    #[test]
    fn the_public_key_is_no_shared_secret() {
        let signer = Signer::new(KeyKind::P256);
        for secret in [signer.key.spki(), signer.key.jwk().to_string().into_bytes()] {
            let token = signer.token(Alg::Es256).header(|header| header.with("alg", "HS256"));
            let token = token.signed(Signature::Hs256(&secret));
            assert_eq!(verify(&token, &signer.keys, &EXPECTED).unwrap_err(), JwsError::Algorithm);
        }
    }

    #[test]
    fn a_key_serves_no_algorithm_of_another_kind() {
        let signer = Signer::new(KeyKind::P256);
        for name in ["EdDSA", "Ed25519", "PS256"] {
            assert_eq!(signer.refusal(|header| header.with("alg", name)), JwsError::KeyMismatch, "{name}");
        }
    }

    #[test]
    fn any_crit_is_refused() {
        let signer = Signer::new(KeyKind::P256);
        for value in [json!([]), json!(["exp"]), json!(["b64"]), json!("b64"), json!(null), json!({})] {
            assert_eq!(signer.refusal(|header| header.with("crit", value.clone())), JwsError::Critical, "{value}");
        }
    }

    #[test]
    fn b64_is_refused() {
        let signer = Signer::new(KeyKind::P256);
        for value in [json!(false), json!(true), json!(null)] {
            assert_eq!(signer.refusal(|header| header.with("b64", value.clone())), JwsError::UnencodedPayload);
        }
    }

    #[test]
    fn members_named_twice_are_refused() {
        let signer = Signer::new(KeyKind::P256);
        for name in ["alg", "kid", "typ", "x"] {
            for header in [
                signer.token(Alg::Es256).header(|header| header.and("x", 1).and(name, "ES256")),
                signer.token(Alg::Es256).header(|header| header.and("x", 1).preceded_by(name, "none")),
            ] {
                let twice = header.header.to_json().matches(&format!("\"{name}\"")).count() == 2;
                assert!(twice, "{name}");
                assert_eq!(verify(&header.compact(), &signer.keys, &EXPECTED).unwrap_err(), JwsError::Header, "{name}");
            }
        }
    }

    #[test]
    fn members_that_nobody_acts_on_may_be_anything() {
        let signer = Signer::new(KeyKind::P256);
        for name in ["jku", "jwk", "x5u", "x5c", "x5t", "x5t#S256", "cty", "url", "nonce", "other"] {
            for value in [json!(1), json!(null), json!("!"), json!(["!"]), json!({ "kty": "none" })] {
                assert!(signer.verdict(|header| header.with(name, value.clone())).is_ok(), "{name} {value}");
            }
        }
    }

    #[test]
    fn members_of_the_wrong_type_are_refused() {
        let signer = Signer::new(KeyKind::P256);
        for name in ["alg", "kid", "typ"] {
            for value in [json!(1), json!(null), json!(["ES256"]), json!({})] {
                assert_eq!(
                    signer.refusal(|header| header.with(name, value.clone())),
                    JwsError::Header,
                    "{name} {value}"
                );
            }
        }
        assert_eq!(signer.refusal(|header| header.without("alg")), JwsError::Header);
    }

    #[test]
    fn a_key_in_the_header_is_not_followed() {
        let signer = Signer::new(KeyKind::P256);
        let thief = Key::generate(KeyKind::P256);
        let mut jwk = thief.jwk();
        jwk["kid"] = "k1".into();
        for (name, value) in [
            ("jwk", jwk),
            ("jku", json!("https://thief.example/jwks")),
            ("x5u", json!("https://thief.example/c")),
            ("x5c", json!(["MIIB"])),
        ] {
            let token = Token { key: &thief, ..signer.token(Alg::Es256) }.header(|header| header.with(name, value));
            assert_eq!(verify(&token.compact(), &signer.keys, &EXPECTED).unwrap_err(), JwsError::Signature, "{name}");
        }
    }

    #[test]
    fn kid_names_one_key_exactly() {
        let signer = Signer::new(KeyKind::P256);
        for kid in ["", "K1", "k1 ", " k1", "k1\0", "k", "../k1", "k1' OR '1'='1", "\u{212a}1"] {
            assert_eq!(signer.refusal(|header| header.with("kid", kid)), JwsError::KeyUnknown, "{kid:?}");
        }
        assert_eq!(signer.refusal(|header| header.without("kid")), JwsError::KidMissing);
    }

    #[test]
    fn without_kid_only_the_only_key_counts() {
        let signer = Signer::new(KeyKind::P256);
        let expected = Expectation { key: KeyChoice::ByKidOrOnly, ..EXPECTED };
        let token = signer.token(Alg::Es256).header(|header| header.without("kid")).compact();
        assert!(verify(&token, &signer.keys, &expected).is_ok());
        let keys = |kinds: &[KeyKind]| {
            let others = kinds.iter().map(|kind| Key::generate(*kind).jwk());
            let set: Vec<Value> = std::iter::once(signer.key.jwk()).chain(others).collect();
            KeySet::parse(json!({ "keys": set }).to_string().as_bytes()).unwrap()
        };
        assert!(verify(&token, &keys(&[KeyKind::Ed25519]), &expected).is_ok());
        assert_eq!(verify(&token, &keys(&[KeyKind::P256]), &expected).unwrap_err(), JwsError::KidMissing);
        let none = KeySet::default();
        assert_eq!(verify(&token, &none, &expected).unwrap_err(), JwsError::KeyMismatch);
    }

    #[test]
    fn typ_is_compared_as_a_media_type() {
        let signer = Signer::new(KeyKind::P256);
        for typ in ["at+jwt", "AT+JWT", "application/at+jwt", "Application/At+Jwt"] {
            assert!(signer.verdict(|header| header.with("typ", typ)).is_ok(), "{typ}");
        }
        for typ in [
            "JWT",
            "",
            "at+jwt ",
            "at",
            "jwt",
            "text/at+jwt",
            "application/application/at+jwt",
            "application/",
            "application/x/at+jwt",
            "at+jwt;charset=utf-8",
            "countersign-revocations+jwt",
            "\u{0430}t+jwt",
        ] {
            assert_eq!(signer.refusal(|header| header.with("typ", typ)), JwsError::Type, "{typ:?}");
        }
        assert_eq!(signer.refusal(|header| header.without("typ")), JwsError::Type);
        let untyped = Expectation { untyped: Untyped::Accept, ..EXPECTED };
        let token = signer.token(Alg::Es256).header(|header| header.without("typ")).compact();
        assert!(verify(&token, &signer.keys, &untyped).is_ok());
    }

    #[test]
    fn framing_has_one_form() {
        let signer = Signer::new(KeyKind::P256);
        let good = signer.token(Alg::Es256).compact();
        let [header, payload, signature] = good.split('.').collect::<Vec<_>>().try_into().unwrap();
        for wrong in [
            String::new(),
            ".".to_owned(),
            format!("{header}.{payload}"),
            format!("{good}."),
            format!("{good}.{signature}"),
            format!(".{good}"),
            format!("{header}=.{payload}.{signature}"),
            format!("{header}.{payload}.{signature}=="),
            format!(" {good}"),
            format!("{good}\n"),
            good.replace('.', ". "),
            good.replace('.', ":"),
            json!({ "protected": header, "payload": payload, "signature": signature }).to_string(),
        ] {
            assert_eq!(verify(&wrong, &signer.keys, &EXPECTED).unwrap_err(), JwsError::Framing, "{wrong:?}");
        }
        // Bits that no octet uses: 64 octets leave four in the last character of their 86.
        let stray: Vec<String> = ('A'..='Z').map(|last| format!("{}{last}", &good[..good.len() - 1])).collect();
        let verdicts = stray.iter().map(|token| verify(token, &signer.keys, &EXPECTED)).collect::<Vec<_>>();
        assert!(verdicts.iter().filter(|verdict| verdict.is_ok()).count() <= 1);
        assert!(verdicts.iter().any(|verdict| matches!(verdict, Err(JwsError::Framing))));
    }

    #[test]
    fn length_ends_at_the_limit() {
        let signer = Signer::new(KeyKind::P256);
        let token = |padding: usize| {
            let text = signer.token(Alg::Es256).claims(|claims| claims.with("x", "x".repeat(padding))).compact();
            (text.len(), text)
        };
        let (length, text) = token(100);
        let exact = Expectation { max_bytes: length, ..EXPECTED };
        assert!(verify(&text, &signer.keys, &exact).is_ok());
        let shorter = Expectation { max_bytes: length - 1, ..EXPECTED };
        assert_eq!(verify(&text, &signer.keys, &shorter).unwrap_err(), JwsError::TooLong);
        assert_eq!(peek(&token(MAX_TOKEN_BYTES).1).unwrap_err(), JwsError::TooLong);
    }

    #[test]
    fn an_ecdsa_signature_in_der_is_refused() {
        let signer = Signer::new(KeyKind::P256);
        let token = signer.token(Alg::Es256);
        let fixed = URL_SAFE_NO_PAD.decode(token.compact().rsplit_once('.').unwrap().1).unwrap();
        let integer = |octets: &[u8]| {
            let magnitude: Vec<u8> = octets.iter().copied().skip_while(|octet| *octet == 0).collect();
            let padded = if magnitude[0] > 0x7F { [&[0], &magnitude[..]].concat() } else { magnitude };
            [&[2, padded.len() as u8], &padded[..]].concat()
        };
        let parts = [integer(&fixed[..32]), integer(&fixed[32..])].concat();
        let der = [&[0x30, parts.len() as u8], &parts[..]].concat();
        let refused = verify(&token.signed(Signature::Octets(&der)), &signer.keys, &EXPECTED);
        assert_eq!(refused.unwrap_err(), JwsError::Signature);
    }

    #[test]
    fn every_bit_of_the_signed_text_counts() {
        let signer = Signer::new(KeyKind::Ed25519);
        let good = signer.token(Alg::EdDsa).compact();
        assert!(verify(&good, &signer.keys, &EXPECTED).is_ok());
        for at in 0..good.len() {
            let mut bent = good.clone().into_bytes();
            bent[at] = if bent[at] == b'A' { b'B' } else { b'A' };
            assert!(verify(std::str::from_utf8(&bent).unwrap(), &signer.keys, &EXPECTED).is_err(), "{at}");
        }
    }

    #[test]
    fn claims_named_twice_are_refused_after_the_signature() {
        let signer = Signer::new(KeyKind::P256);
        let token = signer.token(Alg::Es256).claims(|claims| claims.and("sub", "d")).compact();
        let verified = verify(&token, &signer.keys, &EXPECTED).unwrap();
        assert_eq!(verified.members().unwrap_err(), JwsError::Payload);
        assert_eq!(peek(&token).unwrap().claims().unwrap_err(), JwsError::Payload);
    }

    #[test]
    fn peeking_proves_nothing_but_reads_the_same() {
        let signer = Signer::new(KeyKind::P256);
        let seen = peek(&signer.token(Alg::Es256).signed(Signature::None)).unwrap();
        assert_eq!(seen.header.kid.as_deref(), Some("k1"));
        assert_eq!(seen.claims().unwrap()["sub"], "c");
    }

    proptest! {
        #[test]
        fn hostile_text_is_answered(text in "[A-Za-z0-9_=.-]{0,80}") {
            let keys = KeySet::default();
            prop_assert!(verify(&text, &keys, &EXPECTED).is_err());
        }

        #[test]
        fn hostile_headers_are_answered(header in prop::collection::vec(any::<u8>(), 0..60)) {
            let text = forge::compact(&header, "{}", Signature::None);
            if let Ok(seen) = peek(&text) {
                let object: Map<String, Value> = serde_json::from_slice(&header).unwrap();
                prop_assert_eq!(object["alg"].as_str(), Some(seen.header.algorithm.as_str()));
            }
        }
    }
}
