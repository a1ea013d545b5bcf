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
