//! What is asked: the status of one certificate (RFC 6960 §4.1).
//!
//! Takes a certificate's issuer and serial number, gives the [`CertId`] by which a responder finds it and the octets of a
//! request. It knows nothing of what is answered.

use aws_lc_rs::digest;

use crate::pki::der;
use crate::pki::signature::{Signer, split_spki};

/// The octets of a nonce: RFC 9654 §2.1 asks for 32, and responders have to take them.
pub(super) const NONCE_BYTES: usize = 32;

/// What binds an answer to its request (RFC 6960 §4.4.1).
pub(super) type Nonce = [u8; NONCE_BYTES];

/// Which certificate is meant (RFC 6960 §4.1.1), with SHA-1 for the two hashes.
///
/// Every responder takes SHA-1 here, and many take nothing else (RFC 5019 §2.1.1). The hashes find an issuer; they prove
/// nothing. Whoever makes a second issuer of the same hashes gains no word about this one: an answer counts only under the
/// signature of the issuer's whole key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct CertId {
    issuer_name_hash: [u8; 20],
    issuer_key_hash: [u8; 20],
    serial: Vec<u8>,
}

impl CertId {
    /// The certificate that `issuer` gave this serial number, by its content octets.
    ///
    /// # Errors
    /// [`der::NotDer`] if the issuer's key is none.
    pub(super) fn new(issuer: &Signer, serial: &[u8]) -> Result<Self, der::NotDer> {
        // RFC 6960 §4.1.1: the name's whole DER.
        Ok(Self {
            issuer_name_hash: sha1(&issuer.name_der),
            issuer_key_hash: key_hash(&issuer.spki_der)?,
            serial: serial.to_owned(),
        })
    }

    /// Whether these contents of a CertID mean this certificate: all four fields.
    pub(super) fn is(&self, mut contents: &[u8]) -> Result<bool, der::NotDer> {
        let mut algorithm = der::expect(&mut contents, der::SEQUENCE)?;
        let hash = der::expect(&mut algorithm, der::OBJECT_IDENTIFIER)?;
        // RFC 3279 §2.2.1 has the parameters NULL, RFC 5754 §2 has them absent: both are read, nothing else is.
        let plain = algorithm.is_empty() || algorithm == [der::NULL, 0];
        let name = der::expect(&mut contents, der::OCTET_STRING)?;
        let key = der::expect(&mut contents, der::OCTET_STRING)?;
        let serial = der::expect(&mut contents, der::INTEGER)?;
        if !contents.is_empty() {
            return Err(der::NotDer);
        }
        Ok(hash == SHA1
            && plain
            && name == self.issuer_name_hash
            && key == self.issuer_key_hash
            && serial == self.serial.as_slice())
    }

    fn to_der(&self) -> Vec<u8> {
        let algorithm = [der::element(der::OBJECT_IDENTIFIER, SHA1), der::element(der::NULL, &[])].concat();
        let fields = [
            der::element(der::SEQUENCE, &algorithm),
            der::element(der::OCTET_STRING, &self.issuer_name_hash),
            der::element(der::OCTET_STRING, &self.issuer_key_hash),
            der::element(der::INTEGER, &self.serial),
        ];
        der::element(der::SEQUENCE, &fields.concat())
    }
}

/// An OCSPRequest for this one certificate, unsigned, with this nonce.
// RFC 6960 §4.1.1: SEQUENCE { tbsRequest SEQUENCE { requestList, requestExtensions [2] EXPLICIT } }
pub(super) fn request(id: &CertId, nonce: &Nonce) -> Vec<u8> {
    let one = der::element(der::SEQUENCE, &id.to_der());
    let list = der::element(der::SEQUENCE, &one);
    // RFC 6960 §4.4.1: the extension's value is the DER of an OCTET STRING; §4.1.2: not critical.
    let value = der::element(der::OCTET_STRING, &der::element(der::OCTET_STRING, nonce));
    let extension = der::element(der::SEQUENCE, &[der::element(der::OBJECT_IDENTIFIER, NONCE), value].concat());
    let extensions = der::element(0xA2, &der::element(der::SEQUENCE, &extension));
    der::element(der::SEQUENCE, &der::element(der::SEQUENCE, &[list, extensions].concat()))
}

/// The SHA-1 of a public key (RFC 6960 §4.1.1, §4.2.1): of its BIT STRING without tag, length and the count of unused bits.
pub(super) fn key_hash(spki: &[u8]) -> Result<[u8; 20], der::NotDer> {
    split_spki(spki).map(|(_, key)| sha1(key))
}

fn sha1(octets: &[u8]) -> [u8; 20] {
    let mut hash = [0; 20];
    hash.copy_from_slice(digest::digest(&digest::SHA1_FOR_LEGACY_USE_ONLY, octets).as_ref());
    hash
}

/// id-sha1 (RFC 3279 §2.2.1).
const SHA1: &[u8] = &[0x2B, 0x0E, 3, 2, 0x1A];

/// id-pkix-ocsp-nonce (RFC 6960 §4.4.1).
pub(super) const NONCE: &[u8] = &[0x2B, 6, 1, 5, 5, 7, 0x30, 1, 2];

#[cfg(test)]
mod tests {
    use countersign_conformance::pki::Authority;
    use countersign_conformance::{der as made, ocsp};

    use super::*;
    use crate::pki::scene::NOW;

    fn signer(authority: &Authority) -> Signer {
        Signer { name_der: authority.name.to_der(), spki_der: authority.key.spki() }
    }

    #[test]
    fn a_request_asks_for_one_certificate_and_carries_the_nonce() {
        let root = Authority::root("Root", NOW);
        let id = CertId::new(&signer(&root), &[0x12, 0x34]).unwrap();
        let asked = ocsp::Asked::read(&request(&id, &[7; NONCE_BYTES])).unwrap();
        assert_eq!(asked.nonce, Some(vec![7; NONCE_BYTES]));
        assert_eq!(asked.ids, [ocsp::CertId::new(&root.name, &root.key.spki(), &[0x12, 0x34])]);
    }

    #[test]
    fn every_field_of_a_cert_id_counts() {
        let root = Authority::root("Root", NOW);
        let spki = root.key.spki();
        let id = CertId::new(&signer(&root), &[0x12, 0x34]).unwrap();
        let contents = |made: &ocsp::CertId| made::split(&made.to_der()).unwrap().1.to_owned();
        let same = ocsp::CertId::new(&root.name, &spki, &[0x12, 0x34]);
        assert_eq!(id.is(&contents(&same)), Ok(true));
        assert_eq!(id.is(&contents(&ocsp::CertId { parameters: vec![], ..same.clone() })), Ok(true));
        let twin = root.twin();
        for (defect, other) in [
            ("another name", ocsp::CertId::new(&Authority::root("Other", NOW).name, &spki, &[0x12, 0x34])),
            ("another key", ocsp::CertId::new(&root.name, &twin.key.spki(), &[0x12, 0x34])),
            ("another serial", ocsp::CertId::new(&root.name, &spki, &[0x12, 0x35])),
            ("a longer serial", ocsp::CertId::new(&root.name, &spki, &[0x00, 0x12, 0x34])),
            ("SHA-256 by name", ocsp::CertId { hash: vec![2, 16, 840, 1, 101, 3, 4, 2, 1], ..same.clone() }),
            ("parameters", ocsp::CertId { parameters: made::tlv(0x04, []), ..same.clone() }),
        ] {
            assert_eq!(id.is(&contents(&other)), Ok(false), "{defect}");
        }
        assert_eq!(id.is(&[contents(&same), vec![5, 0]].concat()), Err(der::NotDer));
    }
}
