//! Which public keys are these? (RFC 7517, RFC 7518 §6, RFC 8037 §2)
//!
//! Takes a JWK Set, gives a [`KeySet`]: the keys that can be used, each with its `kid`, the algorithms it may serve, its
//! certificates, and its SubjectPublicKeyInfo. A key that cannot be used is set aside with its reason and stops nothing.
//! It knows nothing of whose keys they are.

use std::fmt;
use std::sync::Arc;

use base64::Engine;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use serde_json::{Map, Value};
use sha2::{Digest, Sha256};

use super::json;
use super::jws::{SigningAlgorithm, VerificationKey};
use crate::peer;

/// The most keys a set may hold.
pub const MAX_KEYS: usize = 64;

/// The most bytes of JSON that are looked at.
pub const MAX_KEY_SET_BYTES: usize = 256 * 1024;

/// Keys, each `kid` once.
#[derive(Clone, Debug, Default)]
pub struct KeySet {
    keys: Vec<Arc<PublicKey>>,
    set_aside: Vec<SetAside>,
}

impl KeySet {
    /// Reads a JWK Set (RFC 7517 §5). Members it does not know are ignored.
    ///
    /// # Errors
    /// [`MalformedKeySet`] if the whole set cannot be trusted to mean one thing: see its variants.
    pub fn parse(text: &[u8]) -> Result<Self, MalformedKeySet> {
        if text.len() > MAX_KEY_SET_BYTES {
            return Err(MalformedKeySet::TooLarge);
        }
        let mut set = json::parse_object(text).map_err(|_| MalformedKeySet::Json)?;
        let Some(Value::Array(members)) = set.remove("keys") else {
            return Err(MalformedKeySet::Json);
        };
        if members.len() > MAX_KEYS {
            return Err(MalformedKeySet::TooLarge);
        }
        let mut keys = Self::default();
        let mut kids: Vec<String> = Vec::new();
        for (index, member) in members.into_iter().enumerate() {
            let Value::Object(jwk) = member else {
                keys.set_aside.push(SetAside { index, kid: None, reason: UnusableKey::Malformed });
                continue;
            };
            let kid = jwk.get("kid").and_then(Value::as_str).map(str::to_owned);
            if let Some(kid) = &kid {
                // RFC 7517 §4.5 only says SHOULD; two keys of one name would make the choice of key a matter of luck.
                if kids.contains(kid) {
                    return Err(MalformedKeySet::KidRepeated { kid: kid.clone() });
                }
                kids.push(kid.clone());
            }
            match PublicKey::from_jwk(&jwk) {
                Ok(key) => keys.keys.push(Arc::new(key)),
                // RFC 7517 §9.2: whoever wrote this has published a private key. That must not go unnoticed.
                Err(UnusableKey::Private) => return Err(MalformedKeySet::PrivateKey { kid }),
                // RFC 7517 §5: keys that are not understood, or lack something, SHOULD be ignored.
                Err(reason) => keys.set_aside.push(SetAside { index, kid, reason }),
            }
        }
        Ok(keys)
    }

    /// A set of these keys.
    ///
    /// # Errors
    /// [`MalformedKeySet::KidRepeated`], [`MalformedKeySet::TooLarge`].
    pub fn of(keys: impl IntoIterator<Item = PublicKey>) -> Result<Self, MalformedKeySet> {
        let mut set = Self::default();
        for key in keys {
            if let Some(kid) = key.kid().filter(|kid| set.by_kid(kid).is_some()) {
                return Err(MalformedKeySet::KidRepeated { kid: kid.to_owned() });
            }
            set.keys.push(Arc::new(key));
        }
        if set.keys.len() > MAX_KEYS { Err(MalformedKeySet::TooLarge) } else { Ok(set) }
    }

    /// The keys that can be used.
    pub fn keys(&self) -> &[Arc<PublicKey>] {
        &self.keys
    }

    /// The keys that cannot, and why.
    pub fn set_aside(&self) -> &[SetAside] {
        &self.set_aside
    }

    /// The key of this `kid`, compared with case (RFC 7517 §4.5).
    pub fn by_kid(&self, kid: &str) -> Option<&Arc<PublicKey>> {
        self.keys.iter().find(|key| key.kid() == Some(kid))
    }

    /// The set as JSON, ready to be served as `application/jwk-set+json`: public members only.
    pub fn to_json(&self) -> Value {
        let keys = self.keys.iter().map(|key| Value::Object(key.to_jwk())).collect::<Vec<_>>();
        Value::Object(Map::from_iter([("keys".to_owned(), Value::Array(keys))]))
    }
}

/// A key of a set that cannot be used.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SetAside {
    /// Its place in `keys`, from 0.
    pub index: usize,
    /// Its `kid`, if it has one.
    pub kid: Option<String>,
    /// Why.
    pub reason: UnusableKey,
}

/// Why a whole set is refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum MalformedKeySet {
    /// Not a JSON object with every member named once and an array `keys` (RFC 7517 §5.1).
    #[error("not a JWK Set: a JSON object with every member named once and an array \"keys\" is expected")]
    Json,
    /// Two keys share a `kid`.
    #[error("two keys have the kid {kid:?}")]
    KidRepeated {
        /// The name they share.
        kid: String,
    },
    /// A key comes with its private part: it is no longer private.
    #[error("the key {kid:?} comes with its private part: replace the key, and publish public members only")]
    PrivateKey {
        /// Its name, if it has one.
        kid: Option<String>,
    },
    /// More than [`MAX_KEYS`] keys or [`MAX_KEY_SET_BYTES`] bytes.
    #[error("more than {MAX_KEYS} keys or {MAX_KEY_SET_BYTES} bytes")]
    TooLarge,
}

/// Why one key cannot be used.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum UnusableKey {
    /// `alg` names an algorithm that is not used here, or not one for this kind of key.
    #[error("its alg is none that it can serve here")]
    Algorithm,
    /// The first certificate of `x5c` is not one of this key (RFC 7517 §4.7), or cannot be read.
    #[error("the first certificate of its x5c is not one of this key")]
    CertificateMismatch,
    /// `kty` or `crv` is none that is used here, RSA shorter than 2048 or longer than 4096 bits among them.
    #[error("its type, curve or size is none that is used here")]
    Kind,
    /// A member is missing, of the wrong type or malformed, or the point is not on the curve.
    #[error("a member is missing or malformed")]
    Malformed,
    /// It comes with its private part.
    #[error("it comes with its private part")]
    Private,
    /// `use` or `key_ops` does not let it verify signatures (RFC 7517 §4.2, §4.3).
    #[error("its use or key_ops does not let it verify signatures")]
    Use,
}

/// What a public key consists of.
#[derive(Clone, PartialEq, Eq)]
pub enum KeyMaterial {
    /// A point on a NIST curve, its coordinates as long as the field.
    Ec {
        /// Which.
        curve: Curve,
        /// The x coordinate.
        x: Vec<u8>,
        /// The y coordinate.
        y: Vec<u8>,
    },
    /// An Ed25519 public key (RFC 8037 §2).
    Ed25519 {
        /// The 32 octets of RFC 8032 §5.1.2.
        x: [u8; 32],
    },
    /// An RSA public key, both numbers big-endian without leading zeros (RFC 7518 §6.3.1).
    Rsa {
        /// The modulus.
        n: Vec<u8>,
        /// The exponent.
        e: Vec<u8>,
    },
}

/// The NIST curves. Only P-256 signs here; a certificate may have a key on any of them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Curve {
    /// `P-256`
    P256,
    /// `P-384`
    P384,
    /// `P-521`
    P521,
}

/// A public key and what it may be used for.
#[derive(Clone)]
pub struct PublicKey {
    kid: Option<String>,
    material: KeyMaterial,
    algorithms: Vec<SigningAlgorithm>,
    x5c: Vec<Vec<u8>>,
    spki: Vec<u8>,
    verification: Option<Arc<VerificationKey>>,
}

impl PublicKey {
    /// The key of this material, named `kid`, good for every algorithm it can serve.
    ///
    /// # Errors
    /// [`UnusableKey::Kind`] or [`UnusableKey::Malformed`].
    pub fn new(material: KeyMaterial, kid: Option<String>) -> Result<Self, UnusableKey> {
        let spki = material.spki()?;
        // RFC 7518 §3.1, RFC 8037 §3.1: which key serves which algorithm.
        let (algorithms, verification): (&[_], _) = match &material {
            KeyMaterial::Ec { curve: Curve::P256, .. } => (&[SigningAlgorithm::ES256], VerificationKey::p256(&spki)),
            KeyMaterial::Ec { .. } => (&[], None),
            KeyMaterial::Ed25519 { .. } => {
                (&[SigningAlgorithm::EdDSA, SigningAlgorithm::Ed25519], VerificationKey::ed25519(&spki))
            }
            KeyMaterial::Rsa { .. } => (&[SigningAlgorithm::PS256], VerificationKey::rsa_pss(&spki)),
        };
        if verification.is_none() && !algorithms.is_empty() {
            return Err(UnusableKey::Malformed);
        }
        Ok(Self {
            kid,
            material,
            algorithms: algorithms.to_vec(),
            x5c: Vec::new(),
            spki,
            verification: verification.map(Arc::new),
        })
    }

    /// Reads one JWK.
    ///
    /// # Errors
    /// [`UnusableKey`] says why it cannot be used.
    pub fn from_jwk(jwk: &Map<String, Value>) -> Result<Self, UnusableKey> {
        let kid = match text(jwk, "kid")? {
            Some("") => return Err(UnusableKey::Malformed),
            kid => kid.map(str::to_owned),
        };
        let kty = text(jwk, "kty")?.ok_or(UnusableKey::Malformed)?; // RFC 7517 §4.1: MUST be present
        let private: &[&str] = match kty {
            "RSA" => &["d", "p", "q", "dp", "dq", "qi", "oth"], // RFC 7518 §6.3.2
            "EC" | "OKP" => &["d"],                             // RFC 7518 §6.2.2, RFC 8037 §2
            _ => return Err(UnusableKey::Kind),
        };
        if private.iter().any(|member| jwk.contains_key(*member)) {
            return Err(UnusableKey::Private);
        }
        let material = match (kty, text(jwk, "crv")?) {
            ("RSA", _) => KeyMaterial::Rsa { n: octets(jwk, "n")?, e: octets(jwk, "e")? },
            ("EC", Some(name)) => {
                let curve = Curve::parse(name).ok_or(UnusableKey::Kind)?;
                KeyMaterial::Ec { curve, x: octets(jwk, "x")?, y: octets(jwk, "y")? }
            }
            ("OKP", Some("Ed25519")) => {
                KeyMaterial::Ed25519 { x: octets(jwk, "x")?.try_into().map_err(|_| UnusableKey::Malformed)? }
            }
            ("OKP", Some(_)) => return Err(UnusableKey::Kind),
            _ => return Err(UnusableKey::Malformed),
        };
        let mut key = Self::new(material, kid)?;
        // RFC 7517 §4.2, §4.3
        if text(jwk, "use")?.is_some_and(|purpose| purpose != "sig") {
            return Err(UnusableKey::Use);
        }
        match jwk.get("key_ops") {
            None => {}
            Some(Value::Array(operations)) if operations.iter().any(|operation| operation == "verify") => {}
            Some(Value::Array(_)) => return Err(UnusableKey::Use),
            Some(_) => return Err(UnusableKey::Malformed),
        }
        // RFC 7517 §4.4: a key that names its algorithm serves no other.
        if let Some(name) = text(jwk, "alg")? {
            let algorithm = SigningAlgorithm::parse(name).ok_or(UnusableKey::Algorithm)?;
            key = key.restricted_to(algorithm)?;
        }
        key.x5c = certificates(jwk)?;
        if let Some(leaf) = key.x5c.first() {
            // RFC 7517 §4.7: "The key in the first certificate MUST match the public key represented by other members".
            let certified = peer::subject_public_key_info(leaf).ok_or(UnusableKey::CertificateMismatch)?;
            if certified != key.spki {
                return Err(UnusableKey::CertificateMismatch);
            }
        }
        Ok(key)
    }

    /// This key for one algorithm only.
    ///
    /// # Errors
    /// [`UnusableKey::Algorithm`] if it cannot serve it.
    pub fn restricted_to(mut self, algorithm: SigningAlgorithm) -> Result<Self, UnusableKey> {
        if !self.serves(algorithm) {
            return Err(UnusableKey::Algorithm);
        }
        self.algorithms = vec![algorithm];
        Ok(self)
    }

    /// Its name.
    pub fn kid(&self) -> Option<&str> {
        self.kid.as_deref()
    }

    /// What it consists of.
    pub const fn material(&self) -> &KeyMaterial {
        &self.material
    }

    /// The algorithms it may serve; none, if it is only there for its certificate.
    pub fn algorithms(&self) -> &[SigningAlgorithm] {
        &self.algorithms
    }

    /// Whether it may serve `algorithm`.
    pub fn serves(&self, algorithm: SigningAlgorithm) -> bool {
        self.algorithms.contains(&algorithm)
    }

    /// The certificates of `x5c` as DER, that of this key first (RFC 7517 §4.7).
    pub fn x5c(&self) -> &[Vec<u8>] {
        &self.x5c
    }

    /// The key as a DER SubjectPublicKeyInfo (RFC 5280 §4.1.2.7).
    pub fn spki(&self) -> &[u8] {
        &self.spki
    }

    /// The JWK thumbprint with SHA-256 (RFC 7638 §3), in base64url without padding.
    pub fn thumbprint(&self) -> String {
        // RFC 7638 §3.2, RFC 8037 §2: the required members alone, in lexicographic order, without white space. None of
        // the values has a character that JSON escapes.
        let input = match &self.material {
            KeyMaterial::Ec { curve, x, y } => {
                format!(r#"{{"crv":"{}","kty":"EC","x":"{}","y":"{}"}}"#, curve.as_str(), encode(x), encode(y))
            }
            KeyMaterial::Ed25519 { x } => format!(r#"{{"crv":"Ed25519","kty":"OKP","x":"{}"}}"#, encode(x)),
            KeyMaterial::Rsa { n, e } => format!(r#"{{"e":"{}","kty":"RSA","n":"{}"}}"#, encode(e), encode(n)),
        };
        encode(&Sha256::digest(input))
    }

    /// The key as a public JWK with `use: sig`, and `alg` where it serves one algorithm only.
    pub fn to_jwk(&self) -> Map<String, Value> {
        let mut jwk = Map::new();
        let mut put = |name: &str, value: String| {
            jwk.insert(name.to_owned(), Value::String(value));
        };
        match &self.material {
            KeyMaterial::Ec { curve, x, y } => {
                put("kty", "EC".to_owned());
                put("crv", curve.as_str().to_owned());
                put("x", encode(x));
                put("y", encode(y));
            }
            KeyMaterial::Ed25519 { x } => {
                put("kty", "OKP".to_owned());
                put("crv", "Ed25519".to_owned());
                put("x", encode(x));
            }
            KeyMaterial::Rsa { n, e } => {
                put("kty", "RSA".to_owned());
                put("n", encode(n));
                put("e", encode(e));
            }
        }
        put("use", "sig".to_owned());
        if let Some(kid) = &self.kid {
            put("kid", kid.clone());
        }
        if let [only] = self.algorithms[..] {
            put("alg", only.as_str().to_owned());
        }
        if !self.x5c.is_empty() {
            let chain = self.x5c.iter().map(|der| Value::String(STANDARD.encode(der))).collect();
            jwk.insert("x5c".to_owned(), Value::Array(chain));
        }
        jwk
    }

    pub(super) const fn verification(&self) -> Option<&Arc<VerificationKey>> {
        self.verification.as_ref()
    }
}

impl fmt::Debug for PublicKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PublicKey")
            .field("kid", &self.kid)
            .field("algorithms", &self.algorithms)
            .finish_non_exhaustive()
    }
}

impl PartialEq for PublicKey {
    fn eq(&self, other: &Self) -> bool {
        self.kid == other.kid
            && self.material == other.material
            && self.algorithms == other.algorithms
            && self.x5c == other.x5c
    }
}

impl Eq for PublicKey {}

impl Curve {
    /// The name of RFC 7518 §6.2.1.1.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::P256 => "P-256",
            Self::P384 => "P-384",
            Self::P521 => "P-521",
        }
    }

    fn parse(name: &str) -> Option<Self> {
        [Self::P256, Self::P384, Self::P521].into_iter().find(|curve| curve.as_str() == name)
    }

    const fn field_bytes(self) -> usize {
        match self {
            Self::P256 => 32,
            Self::P384 => 48,
            Self::P521 => 66,
        }
    }

    // The AlgorithmIdentifier of RFC 5480 §2.1.1: id-ecPublicKey and the curve, in DER.
    const fn algorithm_identifier(self) -> &'static [u8] {
        match self {
            Self::P256 => b"\x30\x13\x06\x07\x2a\x86\x48\xce\x3d\x02\x01\x06\x08\x2a\x86\x48\xce\x3d\x03\x01\x07",
            Self::P384 => b"\x30\x10\x06\x07\x2a\x86\x48\xce\x3d\x02\x01\x06\x05\x2b\x81\x04\x00\x22",
            Self::P521 => b"\x30\x10\x06\x07\x2a\x86\x48\xce\x3d\x02\x01\x06\x05\x2b\x81\x04\x00\x23",
        }
    }
}

impl KeyMaterial {
    /// The point of an uncompressed octet string on P-256 (SEC 1 §2.3.3): `04`, x, y.
    ///
    /// # Errors
    /// [`UnusableKey::Malformed`] for any other octets.
    pub fn from_p256_point(point: &[u8]) -> Result<Self, UnusableKey> {
        match point.split_first() {
            Some((4, coordinates)) if coordinates.len() == 64 => {
                let (x, y) = coordinates.split_at(32);
                Ok(Self::Ec { curve: Curve::P256, x: x.to_vec(), y: y.to_vec() })
            }
            _ => Err(UnusableKey::Malformed),
        }
    }

    fn spki(&self) -> Result<Vec<u8>, UnusableKey> {
        const RSA_ENCRYPTION: &[u8] = b"\x30\x0d\x06\x09\x2a\x86\x48\x86\xf7\x0d\x01\x01\x01\x05\x00"; // RFC 3279 §2.3.1
        const ED25519: &[u8] = b"\x30\x05\x06\x03\x2b\x65\x70"; // RFC 8410 §3
        Ok(match self {
            Self::Ec { curve, x, y } => {
                // RFC 7518 §6.2.1.2: as long as the field, leading zeros included.
                if x.len() != curve.field_bytes() || y.len() != curve.field_bytes() {
                    return Err(UnusableKey::Malformed);
                }
                der_key(curve.algorithm_identifier(), &[&[4], x.as_slice(), y.as_slice()].concat())
            }
            Self::Ed25519 { x } => der_key(ED25519, x),
            Self::Rsa { n, e } => {
                // RFC 7518 §6.3.1: Base64urlUInt has no leading zero octets. §3.5: 2048 bits or more.
                let (Some(&first), Some(&(1..))) = (n.first(), e.first()) else {
                    return Err(UnusableKey::Malformed);
                };
                if first == 0 {
                    return Err(UnusableKey::Malformed);
                }
                let bits = n.len() * 8 - first.leading_zeros() as usize;
                if !(2048..=4096).contains(&bits) {
                    return Err(UnusableKey::Kind);
                }
                // Odd, and small enough that verifying stays cheap; 1 would let anybody sign.
                if e.len() > 4 || e.last().is_none_or(|last| last % 2 == 0) || e[..] == [1] {
                    return Err(UnusableKey::Malformed);
                }
                let key = der(0x30, &[der_integer(n), der_integer(e)].concat());
                der_key(RSA_ENCRYPTION, &key)
            }
        })
    }
}

impl fmt::Debug for KeyMaterial {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Ec { curve, .. } => curve.as_str(),
            Self::Ed25519 { .. } => "Ed25519",
            Self::Rsa { .. } => "RSA",
        })
    }
}

fn text<'a>(jwk: &'a Map<String, Value>, name: &str) -> Result<Option<&'a str>, UnusableKey> {
    match jwk.get(name) {
        None => Ok(None),
        Some(Value::String(text)) => Ok(Some(text)),
        Some(_) => Err(UnusableKey::Malformed),
    }
}

fn octets(jwk: &Map<String, Value>, name: &str) -> Result<Vec<u8>, UnusableKey> {
    let text = text(jwk, name)?.ok_or(UnusableKey::Malformed)?;
    URL_SAFE_NO_PAD.decode(text).map_err(|_| UnusableKey::Malformed)
}

fn certificates(jwk: &Map<String, Value>) -> Result<Vec<Vec<u8>>, UnusableKey> {
    match jwk.get("x5c") {
        None => Ok(Vec::new()),
        // RFC 7517 §4.7: base64, not base64url, and at least one.
        Some(Value::Array(chain)) if !chain.is_empty() && chain.len() <= peer::MAX_CERTIFICATES => chain
            .iter()
            .map(|certificate| {
                let text = certificate.as_str().ok_or(UnusableKey::Malformed)?;
                STANDARD.decode(text).map_err(|_| UnusableKey::Malformed)
            })
            .collect(),
        Some(_) => Err(UnusableKey::Malformed),
    }
}

fn encode(octets: &[u8]) -> String {
    URL_SAFE_NO_PAD.encode(octets)
}

// SubjectPublicKeyInfo ::= SEQUENCE { algorithm AlgorithmIdentifier, subjectPublicKey BIT STRING }
fn der_key(algorithm_identifier: &[u8], key: &[u8]) -> Vec<u8> {
    der(0x30, &[algorithm_identifier, &der(0x03, &[&[0], key].concat())].concat())
}

fn der_integer(magnitude: &[u8]) -> Vec<u8> {
    match magnitude.first() {
        Some(0x80..) => der(0x02, &[&[0], magnitude].concat()),
        _ => der(0x02, magnitude),
    }
}

fn der(tag: u8, content: &[u8]) -> Vec<u8> {
    let length = content.len().to_be_bytes();
    let significant = &length[length.iter().take_while(|octet| **octet == 0).count()..];
    let mut encoded = vec![tag];
    match significant {
        [] => encoded.push(0),
        [short @ ..=0x7F] => encoded.push(*short),
        long => {
            encoded.push(0x80 | u8::try_from(long.len()).unwrap_or(8)); // at most the eight octets of a usize
            encoded.extend_from_slice(long);
        }
    }
    encoded.extend_from_slice(content);
    encoded
}

#[cfg(test)]
mod tests {
    use countersign_conformance::pki::{Authority, Credential, Name, Template};
    use countersign_conformance::{Key, KeyKind};
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    const NOW: i64 = 1_800_000_000;

    fn set(keys: &[Value]) -> Result<KeySet, MalformedKeySet> {
        KeySet::parse(json!({ "keys": keys }).to_string().as_bytes())
    }

    fn unusable(jwk: &Value) -> UnusableKey {
        PublicKey::from_jwk(jwk.as_object().unwrap()).unwrap_err()
    }

    fn usable(jwk: &Value) -> PublicKey {
        PublicKey::from_jwk(jwk.as_object().unwrap()).unwrap()
    }

    #[test]
    fn each_kind_serves_its_algorithms_and_is_written_as_it_was_read() {
        use SigningAlgorithm::{ES256, Ed25519, EdDSA, PS256};
        for (kind, algorithms) in [
            (KeyKind::P256, &[ES256][..]),
            (KeyKind::P384, &[]),
            (KeyKind::P521, &[]),
            (KeyKind::Ed25519, &[EdDSA, Ed25519]),
            (KeyKind::Rsa2048, &[PS256]),
        ] {
            let key = Key::generate(kind);
            let read = usable(&key.jwk());
            assert_eq!(read.algorithms(), algorithms, "{kind:?}");
            assert_eq!(read.spki(), key.spki(), "{kind:?}");
            assert_eq!(read.thumbprint(), key.jwk_thumbprint(), "{kind:?}");
            let written = Value::Object(read.to_jwk());
            assert_eq!(usable(&written).spki(), read.spki());
            assert_eq!(usable(&written).to_jwk(), read.to_jwk());
        }
    }

    #[test]
    fn the_thumbprint_of_rfc_7638() {
        let printed: Value = serde_json::from_str(include_str!("../../../tests/vectors/rfc/rfc7638.json")).unwrap();
        let mut jwk = printed["jwk"].clone();
        assert_eq!(unusable(&jwk), UnusableKey::Algorithm); // RS256 is not used here
        jwk.as_object_mut().unwrap().remove("alg");
        assert_eq!(usable(&jwk).thumbprint(), printed["thumbprint"]);
        assert_eq!(encode(&Sha256::digest(printed["hashed"].as_str().unwrap())), printed["thumbprint"]);
    }

    #[test]
    fn the_certificate_of_rfc_8705_is_of_the_key_it_is_printed_with() {
        let mut printed: Value =
            serde_json::from_str(include_str!("../../../tests/vectors/rfc/rfc8705-a.json")).unwrap();
        let key = usable(&printed["jwk"]);
        assert_eq!(key.algorithms(), [SigningAlgorithm::ES256]);
        let [certificate] = key.x5c() else { panic!("one certificate") };
        let confirmation: crate::confirmation::Confirmation = serde_json::from_value(printed["cnf"].take()).unwrap();
        assert_eq!(confirmation.x5t_s256, crate::confirmation::CertificateThumbprint::of(certificate));
        // Figure 6 is the certificate once more, as PEM.
        let pem: String = include_str!("../../../tests/vectors/rfc/rfc8705-a.pem")
            .lines()
            .filter(|line| !line.starts_with('-'))
            .collect();
        assert_eq!(printed["jwk"]["x5c"], json!([pem]));
    }

    #[test]
    fn a_key_that_names_its_algorithm_serves_no_other() {
        let mut jwk = Key::generate(KeyKind::Ed25519).jwk();
        jwk["alg"] = "EdDSA".into();
        assert_eq!(usable(&jwk).algorithms(), [SigningAlgorithm::EdDSA]);
        for wrong in ["ES256", "PS256", "HS256", "none", "RS256", "eddsa", ""] {
            jwk["alg"] = wrong.into();
            assert_eq!(unusable(&jwk), UnusableKey::Algorithm, "{wrong}");
        }
    }

    #[test]
    fn sizes_and_curves() {
        for kind in [KeyKind::Rsa1024, KeyKind::Rsa4224] {
            assert_eq!(unusable(&Key::generate(kind).jwk()), UnusableKey::Kind, "{kind:?}");
        }
        let mut jwk = Key::generate(KeyKind::P256).jwk();
        for curve in ["secp256k1", "P-224", "p-256", "Ed25519"] {
            jwk["crv"] = curve.into();
            assert_eq!(unusable(&jwk), UnusableKey::Kind, "{curve}");
        }
        let mut jwk = Key::generate(KeyKind::Ed25519).jwk();
        for curve in ["Ed448", "X25519"] {
            jwk["crv"] = curve.into();
            assert_eq!(unusable(&jwk), UnusableKey::Kind, "{curve}");
        }
        assert_eq!(unusable(&json!({ "kty": "oct", "k": "AAAA" })), UnusableKey::Kind);
    }

    #[test]
    fn malformed_members() {
        for (kind, members) in [
            (KeyKind::P256, &["x", "y", "crv"][..]),
            (KeyKind::Ed25519, &["x", "crv"]),
            (KeyKind::Rsa2048, &["n", "e"]),
        ] {
            let good = Key::generate(kind).jwk();
            for member in members {
                for wrong in [json!(null), json!(1), json!(["AQAB"]), json!({})] {
                    let mut jwk = good.clone();
                    jwk[member] = wrong;
                    assert_eq!(unusable(&jwk), UnusableKey::Malformed, "{kind:?} {member}");
                }
                let mut jwk = good.clone();
                jwk.as_object_mut().unwrap().remove(*member);
                assert_eq!(unusable(&jwk), UnusableKey::Malformed, "{kind:?} without {member}");
            }
        }
        let mut jwk = Key::generate(KeyKind::P256).jwk();
        let x = jwk["x"].as_str().unwrap().to_owned();
        for wrong in [String::new(), format!("{x}="), format!("AA{x}"), x[..42].to_owned(), x.replace(&x[..1], "+")] {
            jwk["x"] = wrong.clone().into();
            assert_eq!(unusable(&jwk), UnusableKey::Malformed, "{wrong}");
        }
        jwk["x"] = encode(&[1; 32]).into(); // not on the curve
        assert_eq!(unusable(&jwk), UnusableKey::Malformed);
        for kty in [json!("ec"), json!("RSA "), json!("")] {
            assert_eq!(unusable(&json!({ "kty": kty })), UnusableKey::Kind);
        }
        assert_eq!(unusable(&json!({})), UnusableKey::Malformed);
    }

    #[test]
    fn rsa_numbers_have_one_form() {
        let good = Key::generate(KeyKind::Rsa2048).jwk();
        let n = URL_SAFE_NO_PAD.decode(good["n"].as_str().unwrap()).unwrap();
        let with = |member: &str, octets: &[u8]| {
            let mut jwk = good.clone();
            jwk[member] = encode(octets).into();
            jwk
        };
        assert!(PublicKey::from_jwk(with("e", &[1, 0, 1]).as_object().unwrap()).is_ok());
        for wrong in [&[][..], &[0], &[1], &[2], &[0, 1, 0, 1], &[1, 0, 0], &[1, 0, 0, 0, 1]] {
            assert_eq!(unusable(&with("e", wrong)), UnusableKey::Malformed, "{wrong:?}");
        }
        assert_eq!(unusable(&with("n", &[&[0], &n[..]].concat())), UnusableKey::Malformed);
    }

    #[test]
    fn only_keys_for_verifying() {
        let mut jwk = Key::generate(KeyKind::P256).jwk();
        for wrong in ["enc", "", "SIG", "sig "] {
            jwk["use"] = wrong.into();
            assert_eq!(unusable(&jwk), UnusableKey::Use, "{wrong}");
        }
        jwk["use"] = "sig".into();
        for wrong in [json!([]), json!(["sign"]), json!(["encrypt", "wrapKey"])] {
            jwk["key_ops"] = wrong.clone();
            assert_eq!(unusable(&jwk), UnusableKey::Use, "{wrong}");
        }
        jwk["key_ops"] = "verify".into();
        assert_eq!(unusable(&jwk), UnusableKey::Malformed);
        jwk["key_ops"] = json!(["sign", "verify"]);
        usable(&jwk);
    }

    #[test]
    fn a_set_with_a_private_key_is_refused_whole() {
        let good = Key::generate(KeyKind::P256).jwk();
        for (kind, members) in [
            (KeyKind::P256, &["d"][..]),
            (KeyKind::Ed25519, &["d"]),
            (KeyKind::Rsa2048, &["d", "p", "q", "dp", "dq", "qi", "oth"]),
        ] {
            for member in members {
                let mut jwk = Key::generate(kind).jwk();
                jwk["kid"] = "leaked".into();
                jwk[member] = "AAAA".into();
                let refused = MalformedKeySet::PrivateKey { kid: Some("leaked".to_owned()) };
                assert_eq!(set(&[good.clone(), jwk]).unwrap_err(), refused, "{kind:?} {member}");
            }
        }
    }

    #[test]
    fn a_set_with_a_kid_twice_is_refused_whole() {
        let (mut one, mut two) = (Key::generate(KeyKind::P256).jwk(), Key::generate(KeyKind::Ed25519).jwk());
        one["kid"] = "same".into();
        two["kid"] = "Same".into();
        assert_eq!(set(&[one.clone(), two.clone()]).unwrap().keys().len(), 2);
        two["kid"] = "same".into();
        let refused = MalformedKeySet::KidRepeated { kid: "same".to_owned() };
        assert_eq!(set(&[one.clone(), two]).unwrap_err(), refused);
        // Also where one of them would be set aside.
        assert_eq!(set(&[one.clone(), json!({ "kty": "oct", "kid": "same" })]).unwrap_err(), refused);
        assert_eq!(KeySet::of([usable(&one), usable(&one)]).unwrap_err(), refused);
    }

    #[test]
    fn what_cannot_be_used_is_set_aside_and_stops_nothing() {
        let mut good = Key::generate(KeyKind::P256).jwk();
        good["kid"] = "good".into();
        let keys = set(&[
            json!(1),
            json!({ "kty": "oct", "kid": "o" }),
            good,
            json!({ "kty": "EC", "kid": "" }),
            json!({ "kid": 7 }),
        ])
        .unwrap();
        assert_eq!(keys.keys().len(), 1);
        assert!(keys.by_kid("good").is_some() && keys.by_kid("o").is_none() && keys.by_kid("").is_none());
        let aside: Vec<_> = keys.set_aside().iter().map(|aside| (aside.index, aside.reason)).collect();
        use UnusableKey::{Kind, Malformed};
        assert_eq!(aside, [(0, Malformed), (1, Kind), (3, Malformed), (4, Malformed)]);
    }

    #[test]
    fn a_set_is_one_object_with_an_array_of_bounded_size() {
        for wrong in
            ["", "[]", "{}", r#"{"keys":{}}"#, r#"{"keys":null}"#, r#"{"keys":[],"keys":[]}"#, r#"{"keys":[]}x"#]
        {
            assert_eq!(KeySet::parse(wrong.as_bytes()).unwrap_err(), MalformedKeySet::Json, "{wrong}");
        }
        assert!(KeySet::parse(br#"{"keys":[],"other":1}"#).unwrap().keys().is_empty());
        let many = |count: usize| set(&vec![json!({ "kty": "oct" }); count]);
        assert!(many(MAX_KEYS).is_ok());
        assert_eq!(many(MAX_KEYS + 1).unwrap_err(), MalformedKeySet::TooLarge);
        let padded = format!(r#"{{"keys":[]{}}}"#, " ".repeat(MAX_KEY_SET_BYTES));
        assert_eq!(KeySet::parse(padded.as_bytes()).unwrap_err(), MalformedKeySet::TooLarge);
    }

    #[test]
    fn the_first_certificate_is_of_this_key() {
        let now = NOW;
        for kind in [KeyKind::P256, KeyKind::P384, KeyKind::Ed25519, KeyKind::Rsa2048] {
            let credential = Credential::self_signed(&Template::client(Name::common("c"), now), kind);
            assert_eq!(usable(&credential.jwk()).x5c(), [credential.certificate().to_vec()], "{kind:?}");
        }
        let authority = Authority::root("A", now);
        let (one, other) = (authority.client("one"), authority.client("other"));
        let mut jwk = one.jwk();
        jwk["x5c"] = other.jwk()["x5c"].clone();
        assert_eq!(unusable(&jwk), UnusableKey::CertificateMismatch);
        jwk["x5c"] = json!([STANDARD.encode([one.certificate(), &[0]].concat())]);
        assert_eq!(unusable(&jwk), UnusableKey::CertificateMismatch);
        jwk["x5c"] = json!(["AAAA"]);
        assert_eq!(unusable(&jwk), UnusableKey::CertificateMismatch);
        for wrong in [json!([]), json!("AAAA"), json!([1]), json!(["A_-A"]), json!(["AAA"]), json!(vec!["AAAA"; 6])] {
            jwk["x5c"] = wrong.clone();
            assert_eq!(unusable(&jwk), UnusableKey::Malformed, "{wrong}");
        }
    }

    proptest! {
        #[test]
        fn hostile_sets_are_answered(text in prop::collection::vec(any::<u8>(), 0..100)) {
            let _answered = KeySet::parse(&text);
        }

        #[test]
        fn lengths_are_written_as_der_reads_them(length in 0_usize..70_000) {
            let encoded = der(4, &vec![0; length]);
            let (rest, object) = x509_parser::der_parser::parse_der(&encoded).unwrap();
            prop_assert!(rest.is_empty());
            prop_assert_eq!(object.as_slice().unwrap().len(), length);
        }
    }
}
