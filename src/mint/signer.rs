//! Keys that sign, and randomness: the one file of the server that names josekit.
//!
//! Takes PKCS#8, gives a [`Signer`] and the public JWK that goes with it. josekit frames the JWS and writes the JWK,
//! aws-lc-rs signs and generates. It knows nothing of when a key may sign.

use std::fmt;
use std::sync::Arc;

use aws_lc_rs::encoding::{AsDer, Pkcs8V1Der};
use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::rsa::KeySize;
use aws_lc_rs::signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, Ed25519KeyPair, RSA_PSS_SHA256, RsaKeyPair};
use base64::Engine;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use countersign_resource_server::token::jws::SigningAlgorithm;
use josekit::JoseError;
use josekit::jwk::Jwk;
use josekit::jwk::KeyPair as _;
use josekit::jwk::alg::ec::{EcCurve, EcKeyPair};
use josekit::jwk::alg::ed::EdKeyPair;
use josekit::jwk::alg::rsa::RsaKeyPair as JoseRsaKeyPair;
use josekit::jws::{JwsAlgorithm, JwsContext, JwsHeader, JwsSigner};
use sha2::{Digest, Sha256};
use zeroize::Zeroizing;

/// `N` octets from the system's generator.
///
/// # Panics
/// If the system has no randomness to give, which aws-lc treats as fatal itself: nothing that needs a secret could go on.
#[expect(clippy::expect_used, reason = "without randomness there is no id, no key and no signature to go on with")]
pub fn random_octets<const N: usize>() -> [u8; N] {
    let mut octets = [0; N];
    aws_lc_rs::rand::fill(&mut octets).expect("the system's random generator works");
    octets
}

/// The key cannot be made, read or used.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum KeyError {
    /// Nobody signs with this algorithm here.
    #[error("tokens are not signed with this algorithm")]
    AlgorithmUnsupported,
    /// The library would not generate or sign.
    #[error("the cryptographic library refused")]
    Refused,
    /// Not a PKCS#8 PEM file with a key of this algorithm.
    #[error("not a private key of this algorithm in PKCS#8 PEM")]
    Unreadable,
}

/// The algorithms that sign tokens here, each with keys of its own. Ed25519 by its older name only: `/jwks` gives each
/// key one `alg`.
pub const ALGORITHMS: [SigningAlgorithm; 3] =
    [SigningAlgorithm::ES256, SigningAlgorithm::EdDSA, SigningAlgorithm::PS256];

/// A new private key, in PKCS#8 PEM (RFC 7468 §10).
///
/// # Errors
/// [`KeyError`] if the algorithm is not one of [`ALGORITHMS`] or the library refuses.
pub(super) fn generate(algorithm: SigningAlgorithm) -> Result<Zeroizing<String>, KeyError> {
    let random = SystemRandom::new();
    let der = match algorithm {
        SigningAlgorithm::ES256 => {
            let document = EcdsaKeyPair::generate_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, &random);
            Zeroizing::new(document.map_err(|_| KeyError::Refused)?.as_ref().to_vec())
        }
        SigningAlgorithm::EdDSA => {
            // Version 1, without the public key: what OpenSSL reads as well.
            let document = Ed25519KeyPair::generate_pkcs8v1(&random).map_err(|_| KeyError::Refused)?;
            Zeroizing::new(document.as_ref().to_vec())
        }
        SigningAlgorithm::PS256 => {
            let pair = RsaKeyPair::generate(KeySize::Rsa2048).map_err(|_| KeyError::Refused)?;
            let document: Pkcs8V1Der<'_> = pair.as_der().map_err(|_| KeyError::Refused)?;
            Zeroizing::new(document.as_ref().to_vec())
        }
        SigningAlgorithm::Ed25519 => return Err(KeyError::AlgorithmUnsupported),
    };
    let text = Zeroizing::new(STANDARD.encode(der.as_slice()));
    let mut pem = Zeroizing::new(String::with_capacity(text.len() * 66 / 64 + 64));
    pem.push_str(BEGIN);
    pem.push('\n');
    for line in text.as_bytes().chunks(64) {
        pem.extend(line.iter().map(|byte| char::from(*byte)));
        pem.push('\n');
    }
    pem.push_str(END);
    pem.push('\n');
    Ok(pem)
}

const BEGIN: &str = "-----BEGIN PRIVATE KEY-----";
const END: &str = "-----END PRIVATE KEY-----";

/// A private key ready to sign compact JWS, with its public half.
#[derive(Clone)]
pub struct Signer {
    kid: Arc<str>,
    algorithm: SigningAlgorithm,
    key: Arc<PrivateKey>,
    public_jwk: Arc<serde_json::Value>,
}

impl fmt::Debug for Signer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Signer").field("kid", &self.kid).field("algorithm", &self.algorithm).finish_non_exhaustive()
    }
}

enum PrivateKey {
    Es256(EcdsaKeyPair),
    EdDsa(Ed25519KeyPair),
    Ps256(RsaKeyPair),
}

impl Signer {
    /// Reads what [`generate`] writes.
    ///
    /// # Errors
    /// [`KeyError::Unreadable`] if it is anything else, another kind of key included.
    pub fn from_pem(algorithm: SigningAlgorithm, pem: &str) -> Result<Self, KeyError> {
        let der = pkcs8(pem).ok_or(KeyError::Unreadable)?;
        let unreadable = |_| KeyError::Unreadable;
        let key = match algorithm {
            SigningAlgorithm::ES256 => {
                PrivateKey::Es256(EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, &der).map_err(unreadable)?)
            }
            SigningAlgorithm::EdDSA => {
                PrivateKey::EdDsa(Ed25519KeyPair::from_pkcs8_maybe_unchecked(&der).map_err(unreadable)?)
            }
            SigningAlgorithm::PS256 => PrivateKey::Ps256(RsaKeyPair::from_pkcs8(&der).map_err(unreadable)?),
            SigningAlgorithm::Ed25519 => return Err(KeyError::AlgorithmUnsupported),
        };
        let jwk = public_jwk(algorithm, &der).ok_or(KeyError::Unreadable)?;
        let kid: Arc<str> = thumbprint(&jwk).ok_or(KeyError::Unreadable)?.into();
        let mut public_jwk = serde_json::Value::Object(jwk.into());
        public_jwk["kid"] = kid.as_ref().into();
        public_jwk["alg"] = algorithm.as_str().into();
        // RFC 7517 §4.2
        public_jwk["use"] = "sig".into();
        Ok(Self { kid, algorithm, key: Arc::new(key), public_jwk: Arc::new(public_jwk) })
    }

    /// The RFC 7638 thumbprint of the public key.
    pub const fn kid(&self) -> &Arc<str> {
        &self.kid
    }

    /// How it signs.
    pub const fn algorithm(&self) -> SigningAlgorithm {
        self.algorithm
    }

    /// The public key as it is published (RFC 7517 §4).
    pub fn public_jwk(&self) -> &serde_json::Value {
        &self.public_jwk
    }

    /// Signs `payload` as a compact JWS (RFC 7515 §7.1) with this `typ`.
    ///
    /// josekit writes the header anew each time; it has no way to take prepared octets. That costs about a microsecond.
    ///
    /// # Errors
    /// [`KeyError::Refused`] if the library refuses.
    pub fn sign(&self, typ: &str, payload: &[u8]) -> Result<String, KeyError> {
        let mut header = JwsHeader::new();
        header.set_token_type(typ);
        JwsContext::new().serialize_compact(payload, &header, self).map_err(|_| KeyError::Refused)
    }
}

fn pkcs8(pem: &str) -> Option<Zeroizing<Vec<u8>>> {
    let body = pem.trim().strip_prefix(BEGIN)?.strip_suffix(END)?;
    let text: Zeroizing<String> = Zeroizing::new(body.split_ascii_whitespace().collect());
    STANDARD.decode(text.as_bytes()).ok().map(Zeroizing::new)
}

fn public_jwk(algorithm: SigningAlgorithm, pkcs8: &[u8]) -> Option<Jwk> {
    match algorithm {
        SigningAlgorithm::ES256 => Some(EcKeyPair::from_der(pkcs8, Some(EcCurve::P256)).ok()?.to_jwk_public_key()),
        SigningAlgorithm::EdDSA => Some(EdKeyPair::from_der(pkcs8).ok()?.to_jwk_public_key()),
        SigningAlgorithm::PS256 => Some(JoseRsaKeyPair::from_der(pkcs8).ok()?.to_jwk_public_key()),
        SigningAlgorithm::Ed25519 => None,
    }
}

/// RFC 7638 §3: the hash of the required members only, in lexicographic order, without white space.
fn thumbprint(jwk: &Jwk) -> Option<String> {
    let member = |name: &str| jwk.parameter(name).and_then(|value| value.as_str());
    // Every value is base64url or a registered name: nothing that JSON would escape.
    let text = match jwk.key_type() {
        "EC" => format!(r#"{{"crv":"{}","kty":"EC","x":"{}","y":"{}"}}"#, member("crv")?, member("x")?, member("y")?),
        // RFC 8037 §2
        "OKP" => format!(r#"{{"crv":"{}","kty":"OKP","x":"{}"}}"#, member("crv")?, member("x")?),
        "RSA" => format!(r#"{{"e":"{}","kty":"RSA","n":"{}"}}"#, member("e")?, member("n")?),
        _ => return None,
    };
    Some(URL_SAFE_NO_PAD.encode(Sha256::digest(text)))
}

impl PrivateKey {
    fn sign(&self, message: &[u8]) -> Result<Vec<u8>, aws_lc_rs::error::Unspecified> {
        let random = SystemRandom::new();
        match self {
            // RFC 7518 §3.4: R and S, 32 octets each.
            Self::Es256(key) => Ok(key.sign(&random, message)?.as_ref().to_vec()),
            // RFC 8037 §3.1
            Self::EdDsa(key) => Ok(key.sign(message).as_ref().to_vec()),
            Self::Ps256(key) => {
                // RFC 7518 §3.5: a salt as long as the hash, which is what aws-lc-rs uses.
                let mut signature = vec![0; key.public_modulus_len()];
                key.sign(&RSA_PSS_SHA256, &random, message, &mut signature)?;
                Ok(signature)
            }
        }
    }
}

impl JwsSigner for Signer {
    fn algorithm(&self) -> &dyn JwsAlgorithm {
        &self.algorithm
    }

    fn key_id(&self) -> Option<&str> {
        Some(&self.kid)
    }

    fn signature_len(&self) -> usize {
        match &*self.key {
            PrivateKey::Es256(_) | PrivateKey::EdDsa(_) => 64,
            PrivateKey::Ps256(key) => key.public_modulus_len(),
        }
    }

    fn sign(&self, message: &[u8]) -> Result<Vec<u8>, JoseError> {
        self.key.sign(message).map_err(|refused| JoseError::InvalidSignature(refused.into()))
    }

    fn box_clone(&self) -> Box<dyn JwsSigner> {
        Box::new(self.clone())
    }
}
