//! What was answered, taken apart (RFC 6960 §4.2.1).
//!
//! Takes the octets of an OCSPResponse and the certificate that was asked about, gives a [`Response`]: what is said of that
//! certificate, by whom, and what is signed. Nothing in it is believed yet. It is strict: what can be read in two ways, or
//! says the same thing twice, is not read.

use countersign_resource_server::time::UnixTime;

use super::Unusable;
use super::request::{CertId, NONCE};
use crate::pki::der;
use crate::pki::revocation::CrlReason;

/// A successful basic response.
#[derive(Debug)]
pub(super) struct Response<'a> {
    /// The whole DER of tbsResponseData: what the signature is over.
    pub(super) signed: &'a [u8],
    /// The AlgorithmIdentifier of the signature, without tag and length.
    pub(super) algorithm: &'a [u8],
    /// The contents of the BIT STRING, its count of unused bits first.
    pub(super) signature: &'a [u8],
    pub(super) responder: ResponderId<'a>,
    /// What is said of the certificate that was asked about.
    pub(super) said: Said,
    /// The nonce of the request it answers, if it says so.
    pub(super) nonce: Option<&'a [u8]>,
    /// The certificates that came along.
    pub(super) certificates: Vec<&'a [u8]>,
}

/// Whom a response says it is from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum ResponderId<'a> {
    /// By a Name, whole.
    ByName(&'a [u8]),
    /// By the SHA-1 of a public key.
    ByKey(&'a [u8]),
}

/// A SingleResponse.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Said {
    pub(super) status: CertStatus,
    pub(super) this_update: UnixTime,
    pub(super) next_update: Option<UnixTime>,
}

/// The status of a certificate, in the order of RFC 6960 §4.2.1.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum CertStatus {
    Good,
    Revoked { at: UnixTime, reason: CrlReason },
    Unknown,
}

/// More certificates than this beside a response are not looked at: each may cost two signature checks.
const MOST_CERTIFICATES: usize = 8;

/// More extensions than this in one place are refused, so that looking for one that comes twice stays cheap.
const MOST_EXTENSIONS: usize = 16;

// RFC 6960 §4.2.1: context-specific tags of the fields that may be left out.
const CONTEXT_0: u8 = 0xA0;
const CONTEXT_1: u8 = 0xA1;

impl<'a> Response<'a> {
    /// Takes a response apart that should be about `id`.
    ///
    /// # Errors
    /// [`Unusable`].
    // OCSPResponse ::= SEQUENCE { responseStatus ENUMERATED, responseBytes [0] EXPLICIT ResponseBytes OPTIONAL }
    pub(super) fn read(octets: &'a [u8], id: &CertId) -> Result<Self, Unusable> {
        let mut outer = der::whole(octets, der::SEQUENCE)?;
        match (der::expect(&mut outer, der::ENUMERATED)?, outer.is_empty()) {
            ([0], _) => {}
            // RFC 6960 §2.3: an error is not signed, and has no bytes.
            ([status @ (1 | 2 | 3 | 5 | 6)], true) => return Err(Unusable::Unsuccessful(*status)),
            _ => return Err(Unusable::Malformed),
        }
        let mut bytes = der::whole(der::whole(outer, CONTEXT_0)?, der::SEQUENCE)?;
        let kind = der::expect(&mut bytes, der::OBJECT_IDENTIFIER)?;
        let basic = der::whole(bytes, der::OCTET_STRING)?;
        if kind != BASIC {
            return Err(Unusable::OtherKind);
        }
        Self::read_basic(basic, id)
    }

    // SEQUENCE { tbsResponseData, signatureAlgorithm, signature BIT STRING, certs [0] EXPLICIT SEQUENCE OF OPTIONAL }
    fn read_basic(basic: &'a [u8], id: &CertId) -> Result<Self, Unusable> {
        let mut parts = der::whole(basic, der::SEQUENCE)?;
        let (signed, data) = der::expect_whole(&mut parts, der::SEQUENCE)?;
        let algorithm = der::expect(&mut parts, der::SEQUENCE)?;
        let signature = der::expect(&mut parts, der::BIT_STRING)?;
        let mut certificates = Vec::new();
        if !parts.is_empty() {
            let mut list = der::whole(der::whole(parts, CONTEXT_0)?, der::SEQUENCE)?;
            while !list.is_empty() {
                if certificates.len() == MOST_CERTIFICATES {
                    return Err(Unusable::Malformed);
                }
                certificates.push(der::expect_whole(&mut list, der::SEQUENCE)?.0);
            }
        }
        let (responder, said, nonce) = read_data(data, id)?;
        Ok(Self { signed, algorithm, signature, responder, said, nonce, certificates })
    }
}

// ResponseData ::= SEQUENCE { version [0] EXPLICIT DEFAULT v1, responderID, producedAt, responses SEQUENCE OF,
//                             responseExtensions [1] EXPLICIT OPTIONAL }
fn read_data<'a>(mut data: &'a [u8], id: &CertId) -> Result<(ResponderId<'a>, Said, Option<&'a [u8]>), Unusable> {
    if data.first() == Some(&CONTEXT_0) {
        // v1 is the default, and DER does not encode defaults; but some do, and it can be read in one way only.
        let version = der::whole(der::expect(&mut data, CONTEXT_0)?, der::INTEGER)?;
        if version != [0] {
            return Err(Unusable::Malformed); // RFC 6960 §4.2.2.3: MUST be v1
        }
    }
    let responder = match der::take(&mut data)? {
        der::Element { tag: CONTEXT_1, contents } => {
            der::whole(contents, der::SEQUENCE)?;
            ResponderId::ByName(contents)
        }
        der::Element { tag: 0xA2, contents } => ResponderId::ByKey(der::whole(contents, der::OCTET_STRING)?),
        _ => return Err(Unusable::Malformed),
    };
    instant(der::expect(&mut data, der::GENERALIZED_TIME)?)?; // producedAt: when it was signed decides nothing
    let mut list = der::expect(&mut data, der::SEQUENCE)?;
    let mut found = None;
    while !list.is_empty() {
        // RFC 6960 §4.2.2.3: others may be answered about as well. Ours is answered about once.
        let (asked, said) = read_single(der::expect(&mut list, der::SEQUENCE)?, id)?;
        if asked && found.replace(said).is_some() {
            return Err(Unusable::Ambiguous);
        }
    }
    let nonce = if data.is_empty() { None } else { read_extensions(der::whole(data, CONTEXT_1)?)? };
    let said = found.ok_or(Unusable::OtherCertificate)?;
    // RFC 9654 §2.1: the value is the DER of an OCTET STRING.
    let nonce = nonce.map(|value| der::whole(value, der::OCTET_STRING)).transpose()?;
    Ok((responder, said, nonce))
}

// SEQUENCE { certID, certStatus, thisUpdate, nextUpdate [0] EXPLICIT OPTIONAL, singleExtensions [1] EXPLICIT OPTIONAL }
fn read_single(mut single: &[u8], id: &CertId) -> Result<(bool, Said), Unusable> {
    let asked = id.is(der::expect(&mut single, der::SEQUENCE)?)?;
    let status = match der::take(&mut single)? {
        der::Element { tag: 0x80, contents: [] } => CertStatus::Good,
        // RevokedInfo ::= SEQUENCE { revocationTime, revocationReason [0] EXPLICIT CRLReason OPTIONAL }
        der::Element { tag: CONTEXT_1, contents: mut info } => {
            let at = instant(der::expect(&mut info, der::GENERALIZED_TIME)?)?;
            let reason = if info.is_empty() { CrlReason::Unspecified } else { reason(der::whole(info, CONTEXT_0)?)? };
            CertStatus::Revoked { at, reason }
        }
        der::Element { tag: 0x82, contents: [] } => CertStatus::Unknown,
        _ => return Err(Unusable::Malformed),
    };
    let this_update = instant(der::expect(&mut single, der::GENERALIZED_TIME)?)?;
    let next_update = match single.first() {
        Some(&CONTEXT_0) => Some(instant(der::whole(der::expect(&mut single, CONTEXT_0)?, der::GENERALIZED_TIME)?)?),
        _ => None,
    };
    if !single.is_empty() && read_extensions(der::whole(single, CONTEXT_1)?)?.is_some() {
        return Err(Unusable::Malformed); // a nonce belongs to the response
    }
    Ok((asked, Said { status, this_update, next_update }))
}

fn reason(explicit: &[u8]) -> Result<CrlReason, der::NotDer> {
    match der::whole(explicit, der::ENUMERATED)? {
        [number] => CrlReason::of(*number).ok_or(der::NotDer),
        _ => Err(der::NotDer),
    }
}

/// The nonce's value, if it is among these extensions. One that is critical and not understood, or comes twice, spoils all.
// RFC 5280 §4.2: SEQUENCE SIZE (1..MAX) OF SEQUENCE { extnID, critical BOOLEAN DEFAULT FALSE, extnValue OCTET STRING }
fn read_extensions(explicit: &[u8]) -> Result<Option<&[u8]>, Unusable> {
    let mut list = der::whole(explicit, der::SEQUENCE)?;
    let mut seen: Vec<&[u8]> = Vec::new();
    let mut nonce = None;
    while !list.is_empty() {
        let mut extension = der::expect(&mut list, der::SEQUENCE)?;
        let id = der::expect(&mut extension, der::OBJECT_IDENTIFIER)?;
        if seen.contains(&id) || seen.len() == MOST_EXTENSIONS {
            return Err(Unusable::Malformed);
        }
        seen.push(id);
        let critical = match extension.first() {
            // FALSE is the default; see the version above.
            Some(&der::BOOLEAN) => match der::expect(&mut extension, der::BOOLEAN)? {
                [0xFF] => true,
                [0x00] => false,
                _ => return Err(Unusable::Malformed),
            },
            _ => false,
        };
        let value = der::whole(extension, der::OCTET_STRING)?;
        if id == NONCE {
            nonce = Some(value);
        } else if critical {
            return Err(Unusable::CriticalExtensionUnknown); // RFC 6960 §4.1.2
        }
    }
    if seen.is_empty() { Err(Unusable::Malformed) } else { Ok(nonce) }
}

/// RFC 6960 §4.2.2.1, RFC 5280 §4.1.2.5.2: `YYYYMMDDHHMMSSZ`, nothing left out and no fractions.
fn instant(contents: &[u8]) -> Result<UnixTime, der::NotDer> {
    der::time(der::Element { tag: der::GENERALIZED_TIME, contents }).map(UnixTime::from_seconds)
}

/// id-pkix-ocsp-basic (RFC 6960 §4.2.1).
const BASIC: &[u8] = &[0x2B, 6, 1, 5, 5, 7, 0x30, 1, 1];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_have_all_their_digits_and_are_utc() {
        assert_eq!(instant(b"20270115080000Z"), Ok(UnixTime::from_seconds(1_800_000_000)));
        assert_eq!(instant(b"19700101000000Z"), Ok(UnixTime::from_seconds(0)));
        for wrong in [
            &b"20270115080000"[..],
            b"2027011508000Z",
            b"202701150800Z",
            b"20270115080000.5Z",
            b"20270115080000+0000",
            b"20271315080000Z",
            b"20270230080000Z",
            b"20270115240000Z",
            b"20270115086000Z",
            b"20270115080060Z",
            b"-0270115080000Z",
            b"270115080000Z",
            b"Z",
            b"",
        ] {
            assert_eq!(instant(wrong), Err(der::NotDer), "{}", String::from_utf8_lossy(wrong));
        }
    }

    #[test]
    fn a_reason_is_one_that_exists() {
        let read = |number: u8| reason(&[0x0A, 1, number]);
        assert_eq!((0..=255).filter(|number| read(*number).is_ok()).collect::<Vec<_>>(), [0, 1, 2, 3, 4, 5, 6, 9, 10]);
        assert_eq!(read(6), Ok(CrlReason::CertificateHold));
        assert_eq!(reason(&[0x0A, 2, 0, 1]), Err(der::NotDer));
    }
}
