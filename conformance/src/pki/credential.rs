//! A certificate with its key, and what somebody may do to it without the authority.

use std::sync::Arc;

use base64::Engine;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use super::sign;
use super::template::Template;
use crate::der::{self, tag};
use crate::key::{Key, KeyKind, pem};

/// What a TLS client presents: a certificate, what comes after it, and the key.
#[derive(Clone, Debug)]
pub struct Credential {
    /// The certificate's key pair.
    pub key: Arc<Key>,
    /// The leaf first, then what leads to the root, the root left out.
    pub chain: Vec<Vec<u8>>,
}

impl Credential {
    /// A certificate that signed itself.
    pub fn self_signed(template: &Template, kind: KeyKind) -> Self {
        let key = Arc::new(Key::generate(kind));
        let certificate = sign(&template.content(&key.spki(), &template.subject, &key), &key);
        Self { key, chain: vec![certificate] }
    }

    /// The leaf's DER.
    pub fn certificate(&self) -> &[u8] {
        self.chain.first().map_or(&[], Vec::as_slice)
    }

    /// The whole list as PEM, leaf first.
    pub fn chain_pem(&self) -> String {
        self.chain.iter().map(|certificate| pem("CERTIFICATE", certificate)).collect()
    }

    /// `x5t#S256` of the leaf (RFC 8705 §3.1).
    pub fn thumbprint(&self) -> String {
        URL_SAFE_NO_PAD.encode(Sha256::digest(self.certificate()))
    }

    /// A JWK set with the leaf in `x5c` (RFC 8705 §2.2, RFC 7517 §4.7).
    pub fn jwks(&self) -> String {
        json!({ "keys": [self.jwk()] }).to_string()
    }

    /// The key as a JWK with the leaf in `x5c`.
    pub fn jwk(&self) -> Value {
        let mut jwk = self.key.jwk();
        jwk["kid"] = self.key.jwk_thumbprint().into();
        jwk["x5c"] = json!([STANDARD.encode(self.certificate())]);
        jwk
    }

    /// The same content signed again by rewriting the ECDSA signature (r, s) to (r, n - s): a second valid DER of the same
    /// certificate, with another thumbprint. `None` where the signature is not ECDSA on P-256.
    pub fn rewritten(&self) -> Option<Self> {
        let (_, outer, _) = der::split(self.certificate())?;
        let (_, content, rest) = der::split(outer)?;
        let (_, algorithm, rest) = der::split(rest)?;
        let (_, bits, _) = der::split(rest)?;
        // ecdsa-with-SHA256, and a curve of 32 octets.
        if der::tlv(tag::SEQUENCE, algorithm) != der::sequence([der::oid(&[1, 2, 840, 10045, 4, 3, 2])]) {
            return None;
        }
        let (_, pair, _) = der::split(bits.get(1..)?)?;
        let (_, r, rest) = der::split(pair)?;
        let (_, s, _) = der::split(rest)?;
        let signature = der::sequence([der::tlv(tag::INTEGER, r), der::unsigned(&order_minus(s)?)]);
        let certificate = der::sequence([
            der::tlv(tag::SEQUENCE, content),
            der::tlv(tag::SEQUENCE, algorithm),
            der::bit_string(&signature),
        ]);
        let mut twin = self.clone();
        *twin.chain.first_mut()? = certificate;
        Some(twin)
    }

    /// With these octets behind the leaf: a second object, or none.
    #[must_use]
    pub fn with_trailing(mut self, octets: &[u8]) -> Self {
        if let Some(leaf) = self.chain.first_mut() {
            leaf.extend_from_slice(octets);
        }
        self
    }

    /// With one more length octet than DER has (X.690 §10.1) at the leaf's outermost SEQUENCE, which no signature covers:
    /// the same certificate in BER, with another thumbprint.
    #[must_use]
    pub fn with_longer_length(mut self) -> Self {
        if let Some(leaf) = self.chain.first_mut()
            && let Some((tag, content, _)) = der::split(leaf)
        {
            let length = u32::try_from(content.len()).unwrap_or(u32::MAX).to_be_bytes();
            *leaf = der::concat([&[tag, 0x83][..], &length[1..], content]);
        }
        self
    }

    /// With the leaf's outermost SEQUENCE in the indefinite form (X.690 §8.1.3.6), which DER has not.
    #[must_use]
    pub fn with_indefinite_length(mut self) -> Self {
        if let Some(leaf) = self.chain.first_mut()
            && let Some((tag, content, _)) = der::split(leaf)
        {
            *leaf = der::concat([&[tag, 0x80][..], content, &[0, 0]]);
        }
        self
    }

    /// With one bit of the leaf's signature flipped.
    #[must_use]
    pub fn with_broken_signature(mut self) -> Self {
        if let Some(last) = self.chain.first_mut().and_then(|leaf| leaf.last_mut()) {
            *last ^= 1;
        }
        self
    }
}

/// n - s on P-256 (SEC 2 §2.4.2), 32 octets.
fn order_minus(s: &[u8]) -> Option<[u8; 32]> {
    const ORDER: [u8; 32] = [
        0xFF, 0xFF, 0xFF, 0xFF, 0x00, 0x00, 0x00, 0x00, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xBC, 0xE6,
        0xFA, 0xAD, 0xA7, 0x17, 0x9E, 0x84, 0xF3, 0xB9, 0xCA, 0xC2, 0xFC, 0x63, 0x25, 0x51,
    ];
    let s = &s[usize::from(s.first() == Some(&0))..];
    let mut padded = [0; 32];
    padded.get_mut(32_usize.checked_sub(s.len())?..)?.copy_from_slice(s);
    let mut difference = [0; 32];
    let mut borrow = 0;
    for at in (0..32).rev() {
        let value = i16::from(ORDER[at]) - i16::from(padded[at]) - borrow;
        borrow = i16::from(value < 0);
        difference[at] = (value + borrow * 256) as u8;
    }
    Some(difference)
}
