//! Did this key sign that?
//!
//! Takes a signer's SubjectPublicKeyInfo, an AlgorithmIdentifier, the octets and the signature, gives yes or no, by the
//! algorithms that paths are validated with and no other. It knows nothing of what was signed.

use rustls_pki_types::SignatureVerificationAlgorithm;

use super::certificate::ParsedCertificate;
use super::der;
use super::outline::Outline;

/// A certificate authority as what it signed names it: its subject and its key, each in DER.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Signer {
    /// The subject (RFC 5280 §4.1.2.6), the whole SEQUENCE.
    pub(super) name_der: Vec<u8>,
    /// The SubjectPublicKeyInfo, the whole SEQUENCE.
    pub(super) spki_der: Vec<u8>,
}

impl Signer {
    pub(super) fn of(facts: &ParsedCertificate) -> Self {
        Self { name_der: facts.subject_der().to_owned(), spki_der: facts.spki_der().to_owned() }
    }

    /// Whether this key made `signature` over `message`. `algorithm` is the contents of the AlgorithmIdentifier's SEQUENCE;
    /// `signature` is the contents of a BIT STRING, its count of unused bits first.
    pub(super) fn has_signed(&self, algorithm: &[u8], message: &[u8], signature: &[u8]) -> bool {
        let Ok((key_algorithm, key)) = split_spki(&self.spki_der) else { return false };
        let [0, signature @ ..] = signature else { return false };
        SIGNATURES
            .iter()
            .filter(|candidate| {
                candidate.signature_alg_id().as_ref() == algorithm
                    && candidate.public_key_alg_id().as_ref() == key_algorithm
            })
            .any(|candidate| candidate.verify_signature(key, message, signature).is_ok())
    }
}

/// The contents of the AlgorithmIdentifier, and the key.
pub(super) fn split_spki(spki: &[u8]) -> Result<(&[u8], &[u8]), der::NotDer> {
    let mut contents = der::whole(spki, der::SEQUENCE)?;
    let algorithm = der::expect(&mut contents, der::SEQUENCE)?;
    match der::expect(&mut contents, der::BIT_STRING)? {
        [0, key @ ..] if contents.is_empty() => Ok((algorithm, key)),
        _ => Err(der::NotDer),
    }
}

/// Whether the certificate in `der` names `issuer` as its issuer (RFC 5280 §6.1.3 (a)(4), octet for octet) and carries its
/// signature.
pub(super) fn is_issued_by(der: &[u8], issuer: &Signer) -> bool {
    matches!(issued_by(der, issuer), Ok(true))
}

/// The issuer that the certificate in `der` names, the whole SEQUENCE.
pub(super) fn issuer_name(der: &[u8]) -> Option<&[u8]> {
    Outline::of(der).ok().map(|outline| outline.issuer.whole)
}

fn issued_by(der: &[u8], issuer: &Signer) -> Result<bool, der::NotDer> {
    let Outline { to_be_signed, inside, outside, signature, issuer: name, .. } = Outline::of(der)?;
    // RFC 5280 §4.1.1.2: the same algorithm inside and outside.
    Ok(inside == outside && name.whole == issuer.name_der && issuer.has_signed(outside, to_be_signed, signature))
}

/// How certificates, and what their issuers publish, may be signed. SHA-1 is not among them, nor RSA below 2048 bits.
pub(super) const SIGNATURES: &[&dyn SignatureVerificationAlgorithm] = &[
    webpki::aws_lc_rs::ECDSA_P256_SHA256,
    webpki::aws_lc_rs::ECDSA_P256_SHA384,
    webpki::aws_lc_rs::ECDSA_P256_SHA512,
    webpki::aws_lc_rs::ECDSA_P384_SHA256,
    webpki::aws_lc_rs::ECDSA_P384_SHA384,
    webpki::aws_lc_rs::ECDSA_P384_SHA512,
    webpki::aws_lc_rs::ECDSA_P521_SHA256,
    webpki::aws_lc_rs::ECDSA_P521_SHA384,
    webpki::aws_lc_rs::ECDSA_P521_SHA512,
    webpki::aws_lc_rs::ED25519,
    webpki::aws_lc_rs::RSA_PKCS1_2048_8192_SHA256,
    webpki::aws_lc_rs::RSA_PKCS1_2048_8192_SHA384,
    webpki::aws_lc_rs::RSA_PKCS1_2048_8192_SHA512,
    webpki::aws_lc_rs::RSA_PSS_2048_8192_SHA256_LEGACY_KEY,
    webpki::aws_lc_rs::RSA_PSS_2048_8192_SHA384_LEGACY_KEY,
    webpki::aws_lc_rs::RSA_PSS_2048_8192_SHA512_LEGACY_KEY,
];
