//! Does the peer hold the key of the certificate it sent?
//!
//! Takes the chain and the signature of a handshake, gives yes or a [`HandshakeRefusal`]. The signature is checked with
//! the bare public key, so that X.509 v1 and CA:TRUE leaves, which webpki refuses, can be registered (RFC 8705 §2.2);
//! whether the certificate is good for anything is `pki`'s business, on every request.

use std::cell::RefCell;
use std::sync::Arc;

use rustls::client::danger::HandshakeSignatureValid;
use rustls::crypto::{WebPkiSupportedAlgorithms, verify_tls13_signature_with_raw_key};
use rustls::pki_types::{CertificateDer, SubjectPublicKeyInfoDer, UnixTime};
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::{
    CertificateError, DigitallySignedStruct, DistinguishedName, Error, OtherError, PeerMisbehaved, SignatureScheme,
};
use webpki::RawPublicKeyEntity;
use x509_parser::certificate::{X509Certificate, X509CertificateParser};
use x509_parser::nom::Parser;
use x509_parser::public_key::PublicKey;

use super::HandshakeRefusal;

/// A leaf and four intermediates (design §3).
const LONGEST_CHAIN: usize = 5;
/// All certificates of the handshake together.
const LARGEST_CHAIN_BYTES: usize = 16 * 1024;

tokio::task_local! {
    /// The leaf of the handshake under way on this task: claimed, until possession is proven.
    pub(super) static CLAIMED: RefCell<Option<CertificateDer<'static>>>;
}

/// Proves possession and bounds the work.
#[derive(Debug)]
pub(super) struct PossessionVerifier {
    algorithms: WebPkiSupportedAlgorithms,
}

impl PossessionVerifier {
    /// A verifier that takes the signatures `algorithms` names.
    pub(super) const fn new(algorithms: WebPkiSupportedAlgorithms) -> Self {
        Self { algorithms }
    }
}

impl ClientCertVerifier for PossessionVerifier {
    fn offer_client_auth(&self) -> bool {
        true
    }

    fn client_auth_mandatory(&self) -> bool {
        false
    }

    // RFC 8446 §4.2.4: certificate_authorities stays away. Participants' CAs are nobody else's business, and clients
    // with self-signed certificates would find none of theirs in it.
    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        &[]
    }

    fn verify_client_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        _now: UnixTime,
    ) -> Result<ClientCertVerified, Error> {
        // Outside an acceptor's task (a unit test of rustls' own) there is nobody to tell.
        let _ = CLAIMED.try_with(|claimed| claimed.replace(Some(end_entity.clone().into_owned())));
        check_bounds(end_entity, intermediates).map_err(refused)?;
        Ok(ClientCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        let key = public_key(cert)?;
        let key = RawPublicKeyEntity::try_from(&key).map_err(|_| CertificateError::BadEncoding)?;
        let candidates = self
            .algorithms
            .mapping
            .iter()
            .find_map(|(scheme, candidates)| (*scheme == dss.scheme).then_some(*candidates))
            .ok_or(PeerMisbehaved::SignedHandshakeWithUnadvertisedSigScheme)?;
        // In TLS 1.2 a scheme does not fix the curve (RFC 5246 §7.4.1.4.1), so each algorithm that it may mean is tried.
        for algorithm in candidates {
            match key.verify_signature(*algorithm, message, dss.signature()) {
                Ok(()) => return Ok(HandshakeSignatureValid::assertion()),
                Err(webpki::Error::UnsupportedSignatureAlgorithmForPublicKeyContext(_)) => {}
                Err(_) => break,
            }
        }
        Err(CertificateError::BadSignature.into())
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls13_signature_with_raw_key(message, &public_key(cert)?, dss, &self.algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.algorithms.supported_schemes()
    }
}

/// Whether a list of certificates is within the bounds of a handshake.
///
/// # Errors
/// The first bound that is exceeded.
pub(crate) fn check_bounds(
    leaf: &CertificateDer<'_>,
    intermediates: &[CertificateDer<'_>],
) -> Result<(), HandshakeRefusal> {
    if intermediates.len() >= LONGEST_CHAIN {
        return Err(HandshakeRefusal::ChainTooLong);
    }
    if leaf.len() + intermediates.iter().map(|certificate| certificate.len()).sum::<usize>() > LARGEST_CHAIN_BYTES {
        return Err(HandshakeRefusal::ChainTooLarge);
    }
    let certificate = parse(leaf)?;
    let strong_enough = match certificate.public_key().parsed() {
        // The modulus as a number of bits, whatever leading zeros the encoding has.
        Ok(PublicKey::RSA(key)) => (2048..=4096).contains(&bit_length(key.modulus)),
        // P-256, P-384 and P-521 are the curves there are algorithms for; on others the signature cannot be checked.
        Ok(PublicKey::EC(point)) => point.key_size() >= 256,
        // Ed25519 (RFC 8410) comes back as unknown; other keys find no algorithm either.
        Ok(_) => certificate.public_key().algorithm.algorithm == x509_parser::oid_registry::OID_SIG_ED25519,
        Err(_) => return Err(HandshakeRefusal::CertificateMalformed),
    };
    if strong_enough { Ok(()) } else { Err(HandshakeRefusal::KeyNotAccepted) }
}

fn bit_length(big_endian: &[u8]) -> usize {
    let significant = big_endian.iter().position(|&octet| octet != 0).map_or(&[][..], |first| &big_endian[first..]);
    significant.first().map_or(0, |first| significant.len() * 8 - first.leading_zeros() as usize)
}

fn parse<'a>(leaf: &'a CertificateDer<'_>) -> Result<X509Certificate<'a>, HandshakeRefusal> {
    // Only the key is wanted: extensions, which may hold thousands of names, stay unread.
    match X509CertificateParser::new().with_deep_parse_extensions(false).parse(leaf) {
        // A second object behind the certificate would be hashed into its thumbprint and read by nobody.
        Ok(([], certificate)) => Ok(certificate),
        _ => Err(HandshakeRefusal::CertificateMalformed),
    }
}

fn public_key(leaf: &CertificateDer<'_>) -> Result<SubjectPublicKeyInfoDer<'static>, Error> {
    let certificate = parse(leaf).map_err(refused)?;
    Ok(SubjectPublicKeyInfoDer::from(certificate.public_key().raw.to_vec()))
}

/// The refusal inside the error that rustls knows, so that `acceptor` finds it again.
fn refused(refusal: HandshakeRefusal) -> Error {
    Error::InvalidCertificate(CertificateError::Other(OtherError(Arc::new(refusal))))
}

#[cfg(test)]
mod tests {
    use countersign_conformance::key::KeyKind;
    use countersign_conformance::pki::{Authority, Name, Template};

    use super::*;

    fn leaf(kind: KeyKind) -> CertificateDer<'static> {
        let template = Template::client(Name::common("client"), 1_800_000_000);
        Authority::root("CA", 1_800_000_000).issue(&template, kind).certificate().to_vec().into()
    }

    #[test]
    fn keys_are_bounded_on_both_sides() {
        for kind in [
            KeyKind::Ed25519,
            KeyKind::P256,
            KeyKind::P384,
            KeyKind::P521,
            KeyKind::Rsa2048,
            KeyKind::Rsa3072,
            KeyKind::Rsa4096,
        ] {
            assert_eq!(check_bounds(&leaf(kind), &[]), Ok(()), "{kind:?}");
        }
        for kind in [KeyKind::Rsa1024, KeyKind::Rsa4224] {
            assert_eq!(check_bounds(&leaf(kind), &[]), Err(HandshakeRefusal::KeyNotAccepted), "{kind:?}");
        }
    }

    #[test]
    fn four_intermediates_are_the_most() {
        let leaf = leaf(KeyKind::P256);
        assert_eq!(check_bounds(&leaf, &vec![leaf.clone(); 4]), Ok(()));
        assert_eq!(check_bounds(&leaf, &vec![leaf.clone(); 5]), Err(HandshakeRefusal::ChainTooLong));
    }

    #[test]
    fn the_chain_is_bounded_in_bytes() {
        let leaf = leaf(KeyKind::P256);
        let rest = LARGEST_CHAIN_BYTES - leaf.len();
        assert_eq!(check_bounds(&leaf, &[vec![0; rest].into()]), Ok(()));
        assert_eq!(check_bounds(&leaf, &[vec![0; rest + 1].into()]), Err(HandshakeRefusal::ChainTooLarge));
    }

    #[test]
    fn what_is_no_certificate_is_refused() {
        let leaf = leaf(KeyKind::P256);
        let mut longer = leaf.to_vec();
        longer.push(0);
        for bytes in [Vec::new(), leaf[..leaf.len() - 1].to_vec(), longer, vec![0x30, 0x84, 0xff, 0xff, 0xff, 0xff]] {
            assert_eq!(check_bounds(&bytes.into(), &[]), Err(HandshakeRefusal::CertificateMalformed));
        }
    }

    proptest::proptest! {
        #[test]
        fn a_damaged_certificate_never_panics(at in 0usize..400, value: u8) {
            let mut bytes = LEAF.to_vec();
            let length = bytes.len();
            bytes[at % length] = value;
            let _ = check_bounds(&bytes.into(), &[]);
        }
    }

    static LEAF: std::sync::LazyLock<CertificateDer<'static>> = std::sync::LazyLock::new(|| leaf(KeyKind::P256));
}
