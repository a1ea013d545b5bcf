//! May whoever signed this answer speak for the certificate's issuer? (RFC 6960 §4.2.2.2)
//!
//! Takes a response and the issuer of the certificate that was asked about, gives until when the signer may speak, or why it
//! may not. It knows nothing of what the response says.

use countersign_resource_server::time::UnixTime;

use super::Unusable;
use super::request::key_hash;
use super::response::{ResponderId, Response};
use crate::pki::certificate::{Authority, KeyStrength, ParsedCertificate};
use crate::pki::der;
use crate::pki::signature::Signer;

/// Until when the signer of `response` may speak for `issuer`: without end where it is the issuer itself, otherwise the end
/// of its certificate.
///
/// # Errors
/// [`Unusable`]: the signature is nobody's who may sign.
pub(super) fn authorize(response: &Response<'_>, issuer: &Signer, now: UnixTime) -> Result<Option<UnixTime>, Unusable> {
    // RFC 6960 §4.2.2.2, 2: the issuer's own key. Its certificate's key usage is not asked for digitalSignature: the text
    // does not, and what this key certifies, it may say as well.
    if is(response.responder, &issuer.name_der, &issuer.spki_der) && has_signed(issuer, response) {
        return Ok(None);
    }
    // RFC 6960 §4.2.2.2, 3: a delegate, by a certificate that comes along. The most telling failure is told.
    let mut failure = Unusable::SignerUnknown;
    for certificate in &response.certificates {
        match delegate(certificate, response, issuer, now) {
            Ok(not_after) => return Ok(Some(not_after)),
            Err(Unusable::SignerUnknown) => {}
            Err(refused) => failure = refused,
        }
    }
    // RFC 6960 §4.2.2.2, 1, a responder that is configured here by its own certificate: there is no such configuration.
    if failure == Unusable::SignerUnknown && is(response.responder, &issuer.name_der, &issuer.spki_der) {
        failure = Unusable::SignatureInvalid;
    }
    Err(failure)
}

/// Whether `responder` is the holder of this name and key.
fn is(responder: ResponderId<'_>, name: &[u8], spki: &[u8]) -> bool {
    match responder {
        ResponderId::ByName(by_name) => by_name == name,
        ResponderId::ByKey(by_key) => key_hash(spki).is_ok_and(|hash| hash == by_key),
    }
}

fn has_signed(signer: &Signer, response: &Response<'_>) -> bool {
    signer.has_signed(response.algorithm, response.signed, response.signature)
}

/// The end of a delegate's certificate, if it is the signer and may sign.
fn delegate(certificate: &[u8], response: &Response<'_>, issuer: &Signer, now: UnixTime) -> Result<UnixTime, Unusable> {
    // One that cannot be read is nobody's: responders send along what they like.
    let facts = ParsedCertificate::read_intermediate(certificate).map_err(|_| Unusable::SignerUnknown)?;
    if !is(response.responder, facts.subject_der(), facts.spki_der()) {
        return Err(Unusable::SignerUnknown);
    }
    // RFC 6960 §4.2.2.2: issued directly by the issuer of the certificate in question, with the same key.
    if !is_issued_by(certificate, issuer).unwrap_or(false) {
        return Err(Unusable::SignerOfAnotherIssuer);
    }
    // RFC 5280 §4.1.2.5: through notAfter.
    let (not_before, not_after) = (facts.not_before().as_seconds(), facts.not_after().as_seconds());
    if now.as_seconds() < not_before || now.as_seconds() > not_after {
        return Err(Unusable::SignerOutOfDate);
    }
    // RFC 6960 §4.2.2.2: delegation SHALL be designated by id-kp-OCSPSigning; anyExtendedKeyUsage does not stand in for it.
    let signing = facts.status_signing();
    if !signing.delegated {
        return Err(Unusable::SignerNotDelegated);
    }
    // RFC 6960 §4.2.2.2.1: whether the delegate itself is revoked is nowhere asked, so that its issuer has to have said that
    // it need not be. Without that word its own status would be as much of a question as the one it answers.
    if !signing.unchecked {
        return Err(Unusable::SignerUnchecked);
    }
    let signs = facts.key_usage().is_none_or(|usage| usage.digital_signature);
    let plain = facts.is_version_3() && facts.authority() == Authority::None && !facts.has_unknown_critical_extension();
    if !signs || !plain || facts.key_strength() == KeyStrength::Insufficient {
        return Err(Unusable::SignerUnfit);
    }
    if !has_signed(&Signer::of(&facts), response) {
        return Err(Unusable::SignatureInvalid);
    }
    Ok(facts.not_after())
}

/// Whether this certificate names `issuer` and is signed by it.
// RFC 5280 §4.1: SEQUENCE { tbsCertificate, signatureAlgorithm, signatureValue BIT STRING }
fn is_issued_by(certificate: &[u8], issuer: &Signer) -> Result<bool, der::NotDer> {
    let mut parts = der::whole(certificate, der::SEQUENCE)?;
    let (to_be_signed, mut fields) = der::expect_whole(&mut parts, der::SEQUENCE)?;
    let algorithm = der::expect(&mut parts, der::SEQUENCE)?;
    let signature = der::whole(parts, der::BIT_STRING)?;
    // SEQUENCE { version [0], serialNumber, signature AlgorithmIdentifier, issuer Name, … }
    der::expect(&mut fields, 0xA0)?;
    der::expect(&mut fields, der::INTEGER)?;
    // RFC 5280 §4.1.1.2: inside as outside.
    let inside = der::expect(&mut fields, der::SEQUENCE)?;
    let (name, _) = der::expect_whole(&mut fields, der::SEQUENCE)?;
    Ok(inside == algorithm && name == issuer.name_der && issuer.has_signed(algorithm, to_be_signed, signature))
}
