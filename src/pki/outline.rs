//! Where in a certificate its parts are (RFC 5280 §4.1): what a signature is made over and by whom, octet for octet.
//!
//! Takes the DER of a certificate, gives slices of it. It reads nothing of what is in them.

use super::der::{self, NotDer};

/// The parts that are compared and checked.
#[derive(Debug)]
pub(super) struct Outline<'a> {
    /// The whole TBSCertificate: what is signed.
    pub(super) to_be_signed: &'a [u8],
    /// The contents of the AlgorithmIdentifier that is signed.
    pub(super) inside: &'a [u8],
    /// And of the one that is not.
    pub(super) outside: &'a [u8],
    /// The contents of the BIT STRING, its count of unused bits first.
    pub(super) signature: &'a [u8],
    pub(super) issuer: Name<'a>,
    pub(super) subject: Name<'a>,
    /// The contents of the SubjectPublicKeyInfo.
    pub(super) public_key_info: &'a [u8],
}

/// A name in DER.
#[derive(Clone, Copy, Debug)]
pub(super) struct Name<'a> {
    /// The whole SEQUENCE.
    pub(super) whole: &'a [u8],
    /// What is in it.
    pub(super) contents: &'a [u8],
}

impl<'a> Outline<'a> {
    pub(super) fn of(der: &'a [u8]) -> Result<Self, NotDer> {
        let mut frame = der::whole(der, der::SEQUENCE)?;
        let (to_be_signed, mut fields) = der::expect_whole(&mut frame, der::SEQUENCE)?;
        let outside = der::expect(&mut frame, der::SEQUENCE)?;
        let signature = der::expect(&mut frame, der::BIT_STRING)?;
        // [0] version, which version 1 leaves out.
        if fields.first() == Some(&0xA0) {
            der::take(&mut fields)?;
        }
        der::expect(&mut fields, der::INTEGER)?; // serialNumber
        let inside = der::expect(&mut fields, der::SEQUENCE)?;
        let issuer = Name::next(&mut fields)?;
        der::expect(&mut fields, der::SEQUENCE)?; // validity
        let subject = Name::next(&mut fields)?;
        let public_key_info = der::expect(&mut fields, der::SEQUENCE)?;
        Ok(Self { to_be_signed, inside, outside, signature, issuer, subject, public_key_info })
    }
}

impl<'a> Name<'a> {
    fn next(fields: &mut &'a [u8]) -> Result<Self, NotDer> {
        let (whole, contents) = der::expect_whole(fields, der::SEQUENCE)?;
        Ok(Self { whole, contents })
    }
}
