//! Answers about certificate status (RFC 6960): right ones, and with every defect.
//!
//! Takes what a client asked ([`Asked`]) or what a test wants said ([`Response`]), gives the octets that a responder sends.
//! All dates come from the caller. It knows nothing of what a client ought to think of the result.

use aws_lc_rs::digest;

use crate::der::{self, tag};
use crate::key::Key;
use crate::pki::{Authority, Credential, Extension, Name, Template};

/// A responder on the loopback interface.
mod responder;

pub use responder::{Reply, Responder as HttpResponder};

/// id-kp-OCSPSigning (§4.2.2.2).
pub const OCSP_SIGNING: &[u64] = &[1, 3, 6, 1, 5, 5, 7, 3, 9];

/// id-pkix-ocsp-nonce (§4.4.1).
pub const NONCE: &[u64] = &[1, 3, 6, 1, 5, 5, 7, 48, 1, 2];

/// The extension id-pkix-ocsp-nocheck (§4.2.2.2.1).
pub fn no_check() -> Extension {
    Extension { oid: vec![1, 3, 6, 1, 5, 5, 7, 48, 1, 5], critical: false, value: vec![0x05, 0x00] }
}

/// The extension authorityInfoAccess with these OCSP responders (RFC 5280 §4.2.2.1).
pub fn responders(urls: &[&str]) -> Extension {
    let method = der::oid(&[1, 3, 6, 1, 5, 5, 7, 48, 1]);
    let descriptions = urls.iter().map(|url| der::sequence([method.clone(), der::tlv(0x86, url)]));
    Extension { oid: vec![1, 3, 6, 1, 5, 5, 7, 1, 1], critical: false, value: der::sequence(descriptions) }
}

/// A certificate that may sign status in its issuer's stead, as a careful authority writes it.
pub fn delegate(name: &str, now: i64) -> Template {
    Template {
        purposes: vec![OCSP_SIGNING.to_vec()],
        extensions: vec![no_check()],
        ..Template::client(Name::common(name), now)
    }
}

/// Which certificate is meant (§4.1.1).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CertId {
    /// The hash algorithm.
    pub hash: Vec<u64>,
    /// Its parameters, in DER.
    pub parameters: Vec<u8>,
    /// The hash of the issuer's name.
    pub issuer_name_hash: Vec<u8>,
    /// The hash of the issuer's key.
    pub issuer_key_hash: Vec<u8>,
    /// The serial number's content octets.
    pub serial: Vec<u8>,
}

impl CertId {
    /// With SHA-1, as everyone asks.
    pub fn new(issuer: &Name, issuer_spki: &[u8], serial: &[u8]) -> Self {
        Self {
            hash: vec![1, 3, 14, 3, 2, 26],
            parameters: vec![0x05, 0x00],
            issuer_name_hash: sha1(&issuer.to_der()),
            issuer_key_hash: sha1(key_bits(issuer_spki)),
            serial: serial.to_vec(),
        }
    }

    /// Of this certificate, issued by `issuer`.
    pub fn of(certificate: &[u8], issuer: &Authority) -> Self {
        Self::new(&issuer.name, &issuer.key.spki(), serial_of(certificate))
    }

    /// Its DER.
    pub fn to_der(&self) -> Vec<u8> {
        der::sequence([
            der::sequence([der::oid(&self.hash), self.parameters.clone()]),
            der::tlv(tag::OCTET_STRING, &self.issuer_name_hash),
            der::tlv(tag::OCTET_STRING, &self.issuer_key_hash),
            der::tlv(tag::INTEGER, &self.serial),
        ])
    }
}

/// What a client asked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Asked {
    /// The certificates, with SHA-1 hashes.
    pub ids: Vec<CertId>,
    /// The nonce.
    pub nonce: Option<Vec<u8>>,
}

impl Asked {
    /// Reads an unsigned OCSPRequest that asks with SHA-1; of extensions only the nonce.
    pub fn read(request: &[u8]) -> Option<Self> {
        let (tag::SEQUENCE, outer, []) = der::split(request)? else { return None };
        let (tag::SEQUENCE, to_be_signed, []) = der::split(outer)? else { return None };
        let (tag::SEQUENCE, mut list, rest) = der::split(to_be_signed)? else { return None };
        let mut asked = Self { ids: Vec::new(), nonce: None };
        while !list.is_empty() {
            let (tag::SEQUENCE, one, others) = der::split(list)? else { return None };
            list = others;
            let (tag::SEQUENCE, fields, []) = der::split(one)? else { return None };
            let (_, algorithm, fields) = der::split(fields)?;
            let (_, _, parameters) = der::split(algorithm)?;
            let (_, name, fields) = der::split(fields)?;
            let (_, key, fields) = der::split(fields)?;
            let (_, serial, _) = der::split(fields)?;
            asked.ids.push(CertId {
                hash: vec![1, 3, 14, 3, 2, 26],
                parameters: parameters.to_vec(),
                issuer_name_hash: name.to_vec(),
                issuer_key_hash: key.to_vec(),
                serial: serial.to_vec(),
            });
        }
        if let Some((0xA2, extensions, _)) = der::split(rest) {
            let (_, mut list, _) = der::split(extensions)?;
            while !list.is_empty() {
                let (_, extension, others) = der::split(list)?;
                list = others;
                let (_, oid, value) = der::split(extension)?;
                if der::tlv(0x06, oid) == der::oid(NONCE) {
                    let (_, wrapped, _) = der::split(value)?;
                    asked.nonce = Some(der::split(wrapped)?.1.to_vec());
                }
            }
        }
        Some(asked)
    }
}

/// What is said of a certificate (§4.2.1).
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Status {
    /// good
    Good,
    /// revoked
    Revoked {
        /// revocationTime, in seconds since 1970.
        at: i64,
        /// revocationReason, a CRLReason (RFC 5280 §5.3.1).
        reason: Option<u8>,
    },
    /// unknown
    Unknown,
    /// Whatever octets.
    Raw(Vec<u8>),
}

/// One SingleResponse (§4.2.1). Every field may be bent.
#[derive(Clone, Debug)]
pub struct Entry {
    /// certID
    pub id: CertId,
    /// certStatus
    pub status: Status,
    /// thisUpdate, in seconds since 1970.
    pub this_update: i64,
    /// nextUpdate
    pub next_update: Option<i64>,
    /// singleExtensions
    pub extensions: Vec<Extension>,
}

/// Whom a response says it is from (§4.2.1).
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Responder {
    /// byKey, of this SubjectPublicKeyInfo.
    ByKey(Vec<u8>),
    /// byName
    ByName(Name),
}

/// A successful response before it is signed. Every field may be bent.
#[derive(Clone, Debug)]
pub struct Response {
    /// responseType
    pub kind: Vec<u64>,
    /// The version's number, left out where absent.
    pub version: Option<u8>,
    /// responderID
    pub responder: Responder,
    /// producedAt, in seconds since 1970.
    pub produced_at: i64,
    /// responses
    pub entries: Vec<Entry>,
    /// The nonce, left out where absent.
    pub nonce: Option<Vec<u8>>,
    /// Further responseExtensions.
    pub extensions: Vec<Extension>,
    /// certs
    pub certificates: Vec<Vec<u8>>,
}

impl Response {
    /// What `issuer` says itself about one certificate: new this minute, good for an hour.
    pub fn by_issuer(issuer: &Authority, id: CertId, status: Status, nonce: Option<Vec<u8>>, now: i64) -> Self {
        Self {
            kind: vec![1, 3, 6, 1, 5, 5, 7, 48, 1, 1],
            version: None,
            responder: Responder::ByName(issuer.name.clone()),
            produced_at: now,
            entries: vec![Entry {
                id,
                status,
                this_update: now - 60,
                next_update: Some(now + 3_600),
                extensions: vec![],
            }],
            nonce,
            extensions: Vec::new(),
            certificates: Vec::new(),
        }
    }

    /// The same, from a delegate whose certificate goes with it.
    #[must_use]
    pub fn by_delegate(mut self, delegate: &Credential) -> Self {
        self.responder = Responder::ByKey(delegate.key.spki());
        self.certificates = vec![delegate.certificate().to_vec()];
        self
    }

    /// The OCSPResponse, signed.
    pub fn signed(&self, key: &Key) -> Vec<u8> {
        self.signed_as(key, &key.certificate_algorithm())
    }

    /// The OCSPResponse, signed, under a signatureAlgorithm that may be another one's.
    pub fn signed_as(&self, key: &Key, algorithm: &[u8]) -> Vec<u8> {
        let data = self.data();
        let mut parts = vec![data.clone(), algorithm.to_vec(), der::bit_string(&key.sign_certificate(&data))];
        if !self.certificates.is_empty() {
            parts.push(der::tlv(0xA0, der::sequence(&self.certificates)));
        }
        let basic = der::sequence(parts);
        let bytes = der::sequence([der::oid(&self.kind), der::tlv(tag::OCTET_STRING, basic)]);
        der::sequence([der::tlv(0x0A, [0]), der::tlv(0xA0, bytes)])
    }

    /// The ResponseData (§4.2.1).
    fn data(&self) -> Vec<u8> {
        let mut parts = Vec::new();
        if let Some(version) = self.version {
            parts.push(der::tlv(0xA0, der::unsigned(&[version])));
        }
        parts.push(match &self.responder {
            Responder::ByName(name) => der::tlv(0xA1, name.to_der()),
            Responder::ByKey(spki) => der::tlv(0xA2, der::tlv(tag::OCTET_STRING, sha1(key_bits(spki)))),
        });
        parts.push(generalized(self.produced_at));
        parts.push(der::sequence(self.entries.iter().map(Entry::to_der)));
        let nonce = self.nonce.iter().map(|nonce| Extension {
            oid: NONCE.to_vec(),
            critical: false,
            value: der::tlv(tag::OCTET_STRING, nonce),
        });
        let all: Vec<_> = nonce.chain(self.extensions.iter().cloned()).collect();
        if !all.is_empty() {
            parts.push(der::tlv(0xA1, extensions(&all)));
        }
        der::sequence(parts)
    }
}

impl Entry {
    fn to_der(&self) -> Vec<u8> {
        let mut parts = vec![self.id.to_der(), self.status.to_der(), generalized(self.this_update)];
        if let Some(next_update) = self.next_update {
            parts.push(der::tlv(0xA0, generalized(next_update)));
        }
        if !self.extensions.is_empty() {
            parts.push(der::tlv(0xA1, extensions(&self.extensions)));
        }
        der::sequence(parts)
    }
}

impl Status {
    fn to_der(&self) -> Vec<u8> {
        match self {
            Self::Good => vec![0x80, 0],
            Self::Revoked { at, reason } => {
                let reason = reason.map(|reason| der::tlv(0xA0, der::tlv(0x0A, [reason]))).unwrap_or_default();
                der::tlv(0xA1, der::concat([generalized(*at), reason]))
            }
            Self::Unknown => vec![0x82, 0],
            Self::Raw(octets) => octets.clone(),
        }
    }
}

/// A response that is none: malformedRequest (1), internalError (2), tryLater (3), sigRequired (5), unauthorized (6), or a
/// number that means nothing.
pub fn unsuccessful(status: u8) -> Vec<u8> {
    der::sequence([der::tlv(0x0A, [status])])
}

/// The serial number's content octets of a certificate made here; empty for anything else.
pub fn serial_of(certificate: &[u8]) -> &[u8] {
    fn find(certificate: &[u8]) -> Option<&[u8]> {
        let (_, outer, _) = der::split(certificate)?;
        let (_, content, _) = der::split(outer)?;
        match der::split(content)? {
            (0xA0, _, rest) => Some(der::split(rest)?.1),
            (_, serial, _) => Some(serial),
        }
    }
    find(certificate).unwrap_or_default()
}

fn extensions(all: &[Extension]) -> Vec<u8> {
    der::sequence(all.iter().map(crate::pki::extension))
}

/// The subjectPublicKey of a SubjectPublicKeyInfo made here, without tag, length and the count of unused bits.
fn key_bits(spki: &[u8]) -> &[u8] {
    fn find(spki: &[u8]) -> Option<&[u8]> {
        let (_, contents, _) = der::split(spki)?;
        let (_, _, rest) = der::split(contents)?;
        der::split(rest)?.1.get(1..)
    }
    find(spki).unwrap_or_default()
}

fn sha1(octets: &[u8]) -> Vec<u8> {
    digest::digest(&digest::SHA1_FOR_LEGACY_USE_ONLY, octets).as_ref().to_vec()
}

/// RFC 5280 §4.1.2.5.2.
fn generalized(seconds: i64) -> Vec<u8> {
    let at = time::OffsetDateTime::from_unix_timestamp(seconds).unwrap_or(time::OffsetDateTime::UNIX_EPOCH);
    let text = format!(
        "{:04}{:02}{:02}{:02}{:02}{:02}Z",
        at.year(),
        u8::from(at.month()),
        at.day(),
        at.hour(),
        at.minute(),
        at.second()
    );
    der::tlv(tag::GENERALIZED_TIME, text)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::KeyKind;

    const NOW: i64 = 1_800_000_000;

    #[test]
    fn a_serial_is_found_in_every_version() {
        let root = Authority::root("Root", NOW);
        for version in [crate::pki::Version::V1, crate::pki::Version::V3] {
            let serial = Some(vec![0x12, 0x34]);
            let template = Template { version, serial, ..Template::client(Name::common("client"), NOW) };
            let credential = root.issue(&template, KeyKind::P256);
            assert_eq!(serial_of(credential.certificate()), [0x12, 0x34]);
        }
        assert_eq!(serial_of(b"text"), [0_u8; 0]);
    }

    #[test]
    fn times_are_generalized() {
        assert_eq!(generalized(NOW), der::tlv(tag::GENERALIZED_TIME, "20270115080000Z"));
    }
}
