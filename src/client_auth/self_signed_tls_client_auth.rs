//! Is it one of the registered certificates? (RFC 8705 §2.2)
//!
//! Takes the client's JWK Set and a verified peer, gives yes or a refusal. No chain is looked at, and the names in the
//! certificate mean nothing: the whole certificate is the credential.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use countersign_resource_server::token::jwks::{KeySet, MalformedKeySet, PublicKey};
use serde_json::json;

use super::ClientAuthRefusal;
use crate::pki::VerifiedPeer;
use crate::pki::certificate::{ParsedCertificate, key_material};

/// RFC 8705 §2.2: "matches a certificate … registered": the whole DER, so that neither key nor name alone will do.
pub(super) fn check(keys: &KeySet, peer: &VerifiedPeer) -> Result<(), ClientAuthRefusal> {
    let presented = peer.presented().certificates().first().ok_or(ClientAuthRefusal::CertificateNotInJwks)?;
    let registered = keys.keys().iter().filter_map(|key| key.x5c().first());
    if registered.into_iter().any(|certificate| certificate[..] == presented[..]) {
        Ok(())
    } else {
        Err(ClientAuthRefusal::CertificateNotInJwks)
    }
}

/// The JWK Set that registers one certificate (RFC 8705 §2.2.2): its key, with the whole certificate as `x5c`.
///
/// # Errors
/// [`NoJwk`] if the certificate cannot be read or its key is of no kind that is taken here.
pub fn jwks_of(certificate: &[u8]) -> Result<String, NoJwk> {
    let material = key_material(certificate).ok_or(NoJwk)?;
    let mut jwk = PublicKey::new(material, None).map_err(|_| NoJwk)?.to_jwk();
    jwk.insert("x5c".to_owned(), json!([STANDARD.encode(certificate)])); // RFC 7517 §4.7: base64, not base64url
    Ok(json!({ "keys": [jwk] }).to_string())
}

/// A certificate whose key cannot be written as a JWK.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("this certificate's key cannot be registered: RSA 2048 to 4096, P-256, P-384, P-521 or Ed25519")]
pub struct NoJwk;

/// The certificates a JWK Set registers: each `x5c[0]` that can be read, for the records that enrolling the client makes.
///
/// # Errors
/// [`MalformedKeySet`] if the set cannot be used at all.
pub fn registered_certificates(jwks: &str) -> Result<Vec<ParsedCertificate>, MalformedKeySet> {
    let keys = KeySet::parse(jwks.as_bytes())?;
    let certificates = keys.keys().iter().filter_map(|key| key.x5c().first());
    Ok(certificates.filter_map(|der| ParsedCertificate::read(der).ok()).collect())
}
