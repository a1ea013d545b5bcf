//! Key pairs of every kind a client may hold, and of the kinds it may not.
//!
//! Takes a [`KeyKind`], gives a [`Key`]: its PKCS#8 for a TLS client, its SubjectPublicKeyInfo and JWK for a registry, its
//! signatures for certificates and tokens. It knows nothing of what it signs.

use aws_lc_rs::encoding::{AsBigEndian, AsDer, Curve25519SeedBin, EcPrivateKeyBin, Pkcs8V1Der};
use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::rsa;
use aws_lc_rs::signature::{self, EcdsaKeyPair, EcdsaSigningAlgorithm, Ed25519KeyPair, KeyPair as _};
use base64::Engine;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use serde_json::{Value, json};

use crate::der;

/// What kind of key pair.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum KeyKind {
    /// Ed25519 (RFC 8410).
    Ed25519,
    /// ECDSA on P-256.
    P256,
    /// ECDSA on P-384.
    P384,
    /// ECDSA on P-521.
    P521,
    /// RSA with 1,024 bits: too weak. A fixed key out of `keys/`: no library here makes one.
    Rsa1024,
    /// RSA with 2,048 bits.
    Rsa2048,
    /// RSA with 3,072 bits.
    Rsa3072,
    /// RSA with 4,096 bits.
    Rsa4096,
    /// RSA with 4,224 bits: more work than a server need take on. A fixed key out of `keys/`.
    Rsa4224,
}

/// How to sign a token (RFC 7518 §3.1, RFC 8037 §3.1).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum JwsAlgorithm {
    /// ECDSA on P-256 with SHA-256, r and s as 64 octets.
    Es256,
    /// ECDSA on P-384 with SHA-384, r and s as 96 octets.
    Es384,
    /// Ed25519.
    EdDsa,
    /// RSASSA-PSS with SHA-256.
    Ps256,
    /// RSASSA-PKCS1-v1_5 with SHA-256.
    Rs256,
}

impl JwsAlgorithm {
    /// The algorithm of this `alg`, if it is one of these.
    pub fn of(name: &str) -> Option<Self> {
        match name {
            "ES256" => Some(Self::Es256),
            "ES384" => Some(Self::Es384),
            "EdDSA" | "Ed25519" => Some(Self::EdDsa),
            "PS256" => Some(Self::Ps256),
            "RS256" => Some(Self::Rs256),
            _ => None,
        }
    }

    /// The `alg` on the wire.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Es256 => "ES256",
            Self::Es384 => "ES384",
            Self::EdDsa => "EdDSA",
            Self::Ps256 => "PS256",
            Self::Rs256 => "RS256",
        }
    }
}

/// A key pair.
pub struct Key {
    kind: KeyKind,
    pkcs8: Vec<u8>,
    /// The subjectPublicKey: a point, 32 octets, or an RSAPublicKey.
    public: Vec<u8>,
}

impl std::fmt::Debug for Key {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Key({:?}, {})", self.kind, self.jwk_thumbprint())
    }
}

impl Key {
    /// A fresh key pair; for the two kinds nobody should use, the one out of `keys/`.
    #[expect(clippy::expect_used, reason = "key generation fails only where the machine has no randomness or memory")]
    pub fn generate(kind: KeyKind) -> Self {
        const WHY: &str = "a fresh key pair";
        match kind {
            KeyKind::Ed25519 => {
                let pair = Ed25519KeyPair::generate().expect(WHY);
                let pkcs8 = pair.to_pkcs8v1().expect(WHY).as_ref().to_vec();
                Self { kind, pkcs8, public: pair.public_key().as_ref().to_vec() }
            }
            KeyKind::P256 | KeyKind::P384 | KeyKind::P521 => {
                let pair = EcdsaKeyPair::generate(ecdsa_for_certificates(kind)).expect(WHY);
                let pkcs8 = pair.to_pkcs8v1().expect(WHY).as_ref().to_vec();
                Self { kind, pkcs8, public: pair.public_key().as_ref().to_vec() }
            }
            KeyKind::Rsa2048 | KeyKind::Rsa3072 | KeyKind::Rsa4096 => {
                let size = match kind {
                    KeyKind::Rsa2048 => rsa::KeySize::Rsa2048,
                    KeyKind::Rsa3072 => rsa::KeySize::Rsa3072,
                    _ => rsa::KeySize::Rsa4096,
                };
                let pair = rsa::KeyPair::generate(size).expect(WHY);
                let pkcs8 = AsDer::<Pkcs8V1Der<'_>>::as_der(&pair).expect(WHY).as_ref().to_vec();
                Self { kind, pkcs8, public: pair.public_key().as_ref().to_vec() }
            }
            KeyKind::Rsa1024 => Self::fixed(kind, include_str!("../keys/rsa_1024.pem")),
            KeyKind::Rsa4224 => Self::fixed(kind, include_str!("../keys/rsa_4224.pem")),
        }
    }

    /// A private key that somebody else made: PKCS #8, the ECPrivateKey of RFC 5915, or the RSAPrivateKey of RFC 8017 §A.1.2.
    /// Nothing where it is of another kind.
    pub fn from_der(private: &[u8]) -> Option<Self> {
        if let Ok(pair) = Ed25519KeyPair::from_pkcs8_maybe_unchecked(private) {
            let pkcs8 = pair.to_pkcs8v1().ok()?.as_ref().to_vec();
            return Some(Self { kind: KeyKind::Ed25519, pkcs8, public: pair.public_key().as_ref().to_vec() });
        }
        for kind in [KeyKind::P256, KeyKind::P384, KeyKind::P521] {
            if let Ok(pair) = EcdsaKeyPair::from_private_key_der(ecdsa_for_certificates(kind), private) {
                let pkcs8 = pair.to_pkcs8v1().ok()?.as_ref().to_vec();
                return Some(Self { kind, pkcs8, public: pair.public_key().as_ref().to_vec() });
            }
        }
        let pair = rsa::KeyPair::from_pkcs8(private).or_else(|_| rsa::KeyPair::from_der(private)).ok()?;
        let kind = match pair.public_modulus_len() {
            ..=256 => KeyKind::Rsa2048,
            257..=384 => KeyKind::Rsa3072,
            _ => KeyKind::Rsa4096,
        };
        let pkcs8 = AsDer::<Pkcs8V1Der<'_>>::as_der(&pair).ok()?.as_ref().to_vec();
        Some(Self { kind, pkcs8, public: pair.public_key().as_ref().to_vec() })
    }

    /// The algorithm that a token signed with this key carries where nothing else is said.
    pub const fn jws_algorithm(&self) -> Option<JwsAlgorithm> {
        match self.kind {
            KeyKind::Ed25519 => Some(JwsAlgorithm::EdDsa),
            KeyKind::P256 => Some(JwsAlgorithm::Es256),
            KeyKind::P384 => Some(JwsAlgorithm::Es384),
            KeyKind::Rsa2048 | KeyKind::Rsa3072 | KeyKind::Rsa4096 | KeyKind::Rsa4224 => Some(JwsAlgorithm::Ps256),
            KeyKind::P521 | KeyKind::Rsa1024 => None,
        }
    }

    /// An RSA key pair out of `keys/`.
    #[expect(clippy::expect_used, reason = "the files are part of this crate, and its tests read both")]
    fn fixed(kind: KeyKind, pem: &str) -> Self {
        let body: String = pem.lines().filter(|line| !line.starts_with("--")).collect();
        let pkcs8 = STANDARD.decode(body).expect("the fixed key is PEM");
        // RFC 5208 §5: version, algorithm, and the RSAPrivateKey of RFC 8017 §A.1.2: version, n, e, …
        let elements = |content| std::iter::successors(der::split(content), |(_, _, rest)| der::split(rest));
        let (_, info, _) = der::split(&pkcs8).expect("the fixed key is PKCS #8");
        let (_, wrapped, _) = elements(info).nth(2).expect("a private key");
        let (_, rsa, _) = der::split(wrapped).expect("an RSAPrivateKey");
        let numbers: Vec<&[u8]> = elements(rsa).map(|(_, content, _)| content).collect();
        let public = der::sequence([der::unsigned(numbers[1]), der::unsigned(numbers[2])]);
        Self { kind, pkcs8, public }
    }

    /// What kind it is.
    pub const fn kind(&self) -> KeyKind {
        self.kind
    }

    /// The private key as PKCS #8 (RFC 5208).
    pub fn pkcs8(&self) -> &[u8] {
        &self.pkcs8
    }

    /// The private key as PEM (RFC 7468 §10).
    pub fn to_pem(&self) -> String {
        pem("PRIVATE KEY", &self.pkcs8)
    }

    /// The SubjectPublicKeyInfo (RFC 5280 §4.1.2.7).
    pub fn spki(&self) -> Vec<u8> {
        const EC_PUBLIC_KEY: &[u64] = &[1, 2, 840, 10045, 2, 1];
        let algorithm = match self.kind {
            KeyKind::Ed25519 => der::sequence([der::oid(&[1, 3, 101, 112])]),
            KeyKind::P256 => der::sequence([der::oid(EC_PUBLIC_KEY), der::oid(&[1, 2, 840, 10045, 3, 1, 7])]),
            KeyKind::P384 => der::sequence([der::oid(EC_PUBLIC_KEY), der::oid(&[1, 3, 132, 0, 34])]),
            KeyKind::P521 => der::sequence([der::oid(EC_PUBLIC_KEY), der::oid(&[1, 3, 132, 0, 35])]),
            KeyKind::Rsa1024 | KeyKind::Rsa2048 | KeyKind::Rsa3072 | KeyKind::Rsa4096 | KeyKind::Rsa4224 => {
                der::sequence([der::oid(&[1, 2, 840, 113_549, 1, 1, 1]), vec![0x05, 0x00]])
            }
        };
        der::sequence([algorithm, der::bit_string(&self.public)])
    }

    /// The public key as a JWK (RFC 7518 §6, RFC 8037 §2), without `kid`, `use` or `alg`.
    pub fn jwk(&self) -> Value {
        let encode = |octets: &[u8]| URL_SAFE_NO_PAD.encode(octets);
        match self.kind {
            KeyKind::Ed25519 => json!({ "kty": "OKP", "crv": "Ed25519", "x": encode(&self.public) }),
            KeyKind::P256 | KeyKind::P384 | KeyKind::P521 => {
                let curve = match self.kind {
                    KeyKind::P256 => "P-256",
                    KeyKind::P384 => "P-384",
                    _ => "P-521",
                };
                // SEC 1 §2.3.3: 0x04, x, y.
                let (x, y) = self.public[1..].split_at((self.public.len() - 1) / 2);
                json!({ "kty": "EC", "crv": curve, "x": encode(x), "y": encode(y) })
            }
            KeyKind::Rsa1024 | KeyKind::Rsa2048 | KeyKind::Rsa3072 | KeyKind::Rsa4096 | KeyKind::Rsa4224 => {
                let number = |content: &[u8]| encode(&content[usize::from(content.first() == Some(&0))..]);
                let parts = der::split(&self.public).and_then(|(_, content, _)| {
                    let (_, modulus, rest) = der::split(content)?;
                    let (_, exponent, _) = der::split(rest)?;
                    Some((number(modulus), number(exponent)))
                });
                let (modulus, exponent) = parts.unwrap_or_default();
                json!({ "kty": "RSA", "n": modulus, "e": exponent })
            }
        }
    }

    /// The private key as a JWK (RFC 7518 §6.2.2, RFC 8037 §2), without `kid`, `use` or `alg`; `None` for RSA, where it would
    /// take six numbers.
    #[expect(clippy::expect_used, reason = "the key came out of the same library")]
    pub fn private_jwk(&self) -> Option<Value> {
        const WHY: &str = "a key pair that was read before";
        let number = match self.kind {
            KeyKind::Ed25519 => {
                let pair = Ed25519KeyPair::from_pkcs8(&self.pkcs8).expect(WHY);
                let seed: Curve25519SeedBin<'_> = pair.seed().expect(WHY).as_be_bytes().expect(WHY);
                URL_SAFE_NO_PAD.encode(seed.as_ref())
            }
            KeyKind::P256 | KeyKind::P384 | KeyKind::P521 => {
                let pair = EcdsaKeyPair::from_pkcs8(ecdsa_for_certificates(self.kind), &self.pkcs8).expect(WHY);
                let number: EcPrivateKeyBin<'_> = pair.private_key().as_be_bytes().expect(WHY);
                URL_SAFE_NO_PAD.encode(number.as_ref())
            }
            KeyKind::Rsa1024 | KeyKind::Rsa2048 | KeyKind::Rsa3072 | KeyKind::Rsa4096 | KeyKind::Rsa4224 => {
                return None;
            }
        };
        let mut jwk = self.jwk();
        jwk["d"] = number.into();
        Some(jwk)
    }

    /// The thumbprint of the JWK (RFC 7638 §3).
    pub fn jwk_thumbprint(&self) -> String {
        use sha2::Digest;
        // RFC 7638 §3.2: the required members alone, which is all jwk() has, in order of name.
        let members: std::collections::BTreeMap<String, Value> =
            self.jwk().as_object().into_iter().flatten().map(|(name, value)| (name.clone(), value.clone())).collect();
        URL_SAFE_NO_PAD.encode(sha2::Sha256::digest(json!(members).to_string()))
    }

    /// The AlgorithmIdentifier a certificate signed with this key carries (RFC 8017 §A.2.4, RFC 5758 §3.2, RFC 8410 §3).
    pub(crate) fn certificate_algorithm(&self) -> Vec<u8> {
        match self.kind {
            KeyKind::Ed25519 => der::sequence([der::oid(&[1, 3, 101, 112])]),
            KeyKind::P256 => der::sequence([der::oid(&[1, 2, 840, 10045, 4, 3, 2])]),
            KeyKind::P384 => der::sequence([der::oid(&[1, 2, 840, 10045, 4, 3, 3])]),
            KeyKind::P521 => der::sequence([der::oid(&[1, 2, 840, 10045, 4, 3, 4])]),
            KeyKind::Rsa1024 | KeyKind::Rsa2048 | KeyKind::Rsa3072 | KeyKind::Rsa4096 | KeyKind::Rsa4224 => {
                der::sequence([der::oid(&[1, 2, 840, 113_549, 1, 1, 11]), vec![0x05, 0x00]])
            }
        }
    }

    /// Signs a certificate's content.
    ///
    /// # Panics
    /// For the 1,024-bit key, with which nothing here signs: it is only ever a certificate's subject.
    pub(crate) fn sign_certificate(&self, content: &[u8]) -> Vec<u8> {
        match self.kind {
            KeyKind::Ed25519 => self.sign_jws(JwsAlgorithm::EdDsa, content),
            KeyKind::P256 | KeyKind::P384 | KeyKind::P521 => {
                self.sign_ecdsa(ecdsa_for_certificates(self.kind), content)
            }
            _ => self.sign_jws(JwsAlgorithm::Rs256, content),
        }
    }

    /// Signs `input` as JWS does.
    ///
    /// # Panics
    /// Where the key is not of the algorithm's kind: a forger that wants such a token writes the header itself.
    #[expect(clippy::expect_used, reason = "documented: a test asked for the impossible")]
    pub fn sign_jws(&self, algorithm: JwsAlgorithm, input: &[u8]) -> Vec<u8> {
        match algorithm {
            JwsAlgorithm::Es256 => self.sign_ecdsa(&signature::ECDSA_P256_SHA256_FIXED_SIGNING, input),
            JwsAlgorithm::Es384 => self.sign_ecdsa(&signature::ECDSA_P384_SHA384_FIXED_SIGNING, input),
            JwsAlgorithm::EdDsa => {
                Ed25519KeyPair::from_pkcs8(&self.pkcs8).expect("an Ed25519 key").sign(input).as_ref().to_vec()
            }
            JwsAlgorithm::Ps256 => self.sign_rsa(&signature::RSA_PSS_SHA256, input),
            JwsAlgorithm::Rs256 => self.sign_rsa(&signature::RSA_PKCS1_SHA256, input),
        }
    }

    #[expect(clippy::expect_used, reason = "documented: a test asked for the impossible")]
    fn sign_ecdsa(&self, algorithm: &'static EcdsaSigningAlgorithm, input: &[u8]) -> Vec<u8> {
        let pair = EcdsaKeyPair::from_pkcs8(algorithm, &self.pkcs8).expect("a key on this curve");
        pair.sign(&SystemRandom::new(), input).expect("an ECDSA signature").as_ref().to_vec()
    }

    #[expect(clippy::expect_used, reason = "documented: a test asked for the impossible")]
    fn sign_rsa(&self, padding: &'static dyn signature::RsaEncoding, input: &[u8]) -> Vec<u8> {
        let pair = rsa::KeyPair::from_pkcs8(&self.pkcs8).expect("an RSA key of 2,048 bits or more");
        let mut out = vec![0; pair.public_modulus_len()];
        pair.sign(padding, &SystemRandom::new(), input, &mut out).expect("an RSA signature");
        out
    }
}

/// DER as PEM (RFC 7468 §2), 64 characters a line.
pub fn pem(label: &str, der: &[u8]) -> String {
    let body = STANDARD.encode(der);
    let mut out = format!("-----BEGIN {label}-----\n");
    for (at, character) in body.chars().enumerate() {
        if at > 0 && at % 64 == 0 {
            out.push('\n');
        }
        out.push(character);
    }
    out.push_str(&format!("\n-----END {label}-----\n"));
    out
}

fn ecdsa_for_certificates(kind: KeyKind) -> &'static EcdsaSigningAlgorithm {
    match kind {
        KeyKind::P384 => &signature::ECDSA_P384_SHA384_ASN1_SIGNING,
        KeyKind::P521 => &signature::ECDSA_P521_SHA512_ASN1_SIGNING,
        _ => &signature::ECDSA_P256_SHA256_ASN1_SIGNING,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_kind_that_signs_is_believed_by_its_spki_owner() {
        let cases: [(KeyKind, JwsAlgorithm, &dyn signature::VerificationAlgorithm); 5] = [
            (KeyKind::P256, JwsAlgorithm::Es256, &signature::ECDSA_P256_SHA256_FIXED),
            (KeyKind::P384, JwsAlgorithm::Es384, &signature::ECDSA_P384_SHA384_FIXED),
            (KeyKind::Ed25519, JwsAlgorithm::EdDsa, &signature::ED25519),
            (KeyKind::Rsa2048, JwsAlgorithm::Ps256, &signature::RSA_PSS_2048_8192_SHA256),
            (KeyKind::Rsa2048, JwsAlgorithm::Rs256, &signature::RSA_PKCS1_2048_8192_SHA256),
        ];
        for (kind, algorithm, verification) in cases {
            let key = Key::generate(kind);
            let signed = key.sign_jws(algorithm, b"input");
            verification.verify_sig(&key.public, b"input", &signed).unwrap();
            assert!(verification.verify_sig(&key.public, b"other", &signed).is_err());
        }
    }

    #[test]
    fn a_private_jwk_is_the_whole_key_pair() {
        for (kind, octets) in [(KeyKind::P256, 32), (KeyKind::P384, 48), (KeyKind::P521, 66), (KeyKind::Ed25519, 32)] {
            let key = Key::generate(kind);
            let private = key.private_jwk().unwrap();
            let number = URL_SAFE_NO_PAD.decode(private["d"].as_str().unwrap()).unwrap();
            assert_eq!(number.len(), octets, "{kind:?}"); // RFC 7518 §6.2.2.1: never shorter
            let public = match kind {
                KeyKind::Ed25519 => {
                    Ed25519KeyPair::from_seed_unchecked(&number).unwrap().public_key().as_ref().to_vec()
                }
                _ => EcdsaKeyPair::from_private_key_and_public_key(ecdsa_for_certificates(kind), &number, &key.public)
                    .unwrap()
                    .public_key()
                    .as_ref()
                    .to_vec(),
            };
            assert_eq!(public, key.public, "{kind:?}");
            let mut public = private;
            public.as_object_mut().unwrap().remove("d");
            assert_eq!(public, key.jwk(), "{kind:?}");
        }
        assert_eq!(Key::generate(KeyKind::Rsa2048).private_jwk(), None);
    }

    #[test]
    fn a_key_read_again_is_the_same() {
        for kind in [KeyKind::Ed25519, KeyKind::P256, KeyKind::P384, KeyKind::P521, KeyKind::Rsa2048] {
            let key = Key::generate(kind);
            let again = Key::from_der(key.pkcs8()).unwrap();
            assert_eq!((again.kind(), again.spki()), (kind, key.spki()));
        }
        assert!(Key::from_der(b"nothing").is_none());
    }

    #[test]
    fn the_fixed_keys_have_the_sizes_they_are_named_for() {
        for (kind, octets) in [(KeyKind::Rsa1024, 128), (KeyKind::Rsa4224, 528)] {
            let modulus = Key::generate(kind).jwk()["n"].as_str().unwrap().to_owned();
            assert_eq!(URL_SAFE_NO_PAD.decode(modulus).unwrap().len(), octets);
        }
    }

    #[test]
    fn jwk_thumbprint_of_rfc_7638_3_1() {
        // The example's modulus, put behind a key that cannot sign: only public parts take part.
        let modulus = URL_SAFE_NO_PAD
            .decode("0vx7agoebGcQSuuPiLJXZptN9nndrQmbXEps2aiAFbWhM78LhWx4cbbfAAtVT86zwu1RK7aPFFxuhDR1L6tSoc_BJECPebWKRXjBZCiFV4n3oknjhMstn64tZ_2W-5JsGY4Hc5n9yBXArwl93lqt7_RN5w6Cf0h4QyQ5v-65YGjQR0_FDW2QvzqY368QQMicAtaSqzs8KJZgnYb9c7d0zgdAZHzu6qMQvRL5hajrn1n91CbOpbISD08qNLyrdkt-bFTWhAI4vMQFh6WeZu0fM4lFd2NcRwr3XPksINHaQ-G_xBniIqbw0Ls1jF44-csFCur-kEgU8awapJzKnqDKgw")
            .unwrap();
        let public = der::sequence([der::unsigned(&modulus), der::unsigned(&[1, 0, 1])]);
        let key = Key { kind: KeyKind::Rsa2048, pkcs8: Vec::new(), public };
        assert_eq!(key.jwk_thumbprint(), "NzbLsXh8uDCcd-6MNwXF4W_7noWXFZAfHkxZsRGC9Xs");
    }
}
