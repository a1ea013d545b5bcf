//! Is it one of the registered certificates? (RFC 8705 §2.2)
//!
//! Takes the client's JWK Set and a verified peer, gives yes or a refusal. No chain is looked at, and the names in the
//! certificate mean nothing: the whole certificate is the credential.

use countersign_resource_server::token::jwks::{KeySet, MalformedKeySet};

use super::ClientAuthRefusal;
use crate::pki::VerifiedPeer;
use crate::pki::certificate::ParsedCertificate;

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

/// The certificates a JWK Set registers: each `x5c[0]` that can be read, for the records that enrolling the client makes.
///
/// # Errors
/// [`MalformedKeySet`] if the set cannot be used at all.
pub fn registered_certificates(jwks: &str) -> Result<Vec<ParsedCertificate>, MalformedKeySet> {
    let keys = KeySet::parse(jwks.as_bytes())?;
    let certificates = keys.keys().iter().filter_map(|key| key.x5c().first());
    Ok(certificates.filter_map(|der| ParsedCertificate::read(der).ok()).collect())
}
