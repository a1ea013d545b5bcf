//! What a certificate's extensions say, as far as something here depends on them (RFC 5280 §4.2).
//!
//! Takes the extensions as they stand in a certificate, gives each of them read strictly, or no certificate at all. It judges
//! nothing.

use x509_parser::certificate::X509Certificate;

use super::MalformedCertificate;
use crate::pki::anchor::UncheckedNames;
use crate::pki::der;
use crate::pki::ocsp::access;

/// The extensions that something here depends on; each at most once (RFC 5280 §4.2).
pub(super) struct Extensions<'a> {
    pub(super) alt_names: Option<&'a [u8]>,
    pub(super) authority: Authority,
    pub(super) key_usage: Option<KeyUsage>,
    pub(super) purposes: Purposes,
    pub(super) name_constraints: NameConstraints,
    pub(super) crl_points: Vec<String>,
    pub(super) name_constraint_count: usize,
    pub(super) subject_key_id: Option<&'a [u8]>,
    pub(super) authority_key_id: Option<&'a [u8]>,
    pub(super) responder_urls: Vec<String>,
    pub(super) status_signing: StatusSigning,
    pub(super) critical_unknown: bool,
    pub(super) key_usage_is_critical: bool,
    pub(super) alt_names_are_critical: bool,
    pub(super) may_serve: bool,
}

impl<'a> Extensions<'a> {
    pub(super) fn of(certificate: &X509Certificate<'a>) -> Result<Self, MalformedCertificate> {
        let mut found = Self {
            alt_names: None,
            authority: Authority::None,
            key_usage: None,
            purposes: Purposes::Unstated,
            name_constraints: NameConstraints::Absent,
            crl_points: Vec::new(),
            name_constraint_count: 0,
            subject_key_id: None,
            authority_key_id: None,
            responder_urls: Vec::new(),
            status_signing: StatusSigning::default(),
            critical_unknown: false,
            key_usage_is_critical: false,
            alt_names_are_critical: false,
            may_serve: true,
        };
        let mut seen: Vec<&[u8]> = Vec::new();
        for extension in certificate.extensions() {
            let id = extension.oid.as_bytes();
            if seen.contains(&id) || seen.len() == MOST_EXTENSIONS {
                return Err(MalformedCertificate);
            }
            seen.push(id);
            match id {
                [0x55, 0x1D, 15] => {
                    found.key_usage = Some(key_usage(extension.value)?);
                    found.key_usage_is_critical = extension.critical;
                }
                [0x55, 0x1D, 17] => {
                    found.alt_names = Some(extension.value);
                    found.alt_names_are_critical = extension.critical;
                }
                [0x55, 0x1D, 19] => found.authority = authority(extension.value, extension.critical)?,
                [0x55, 0x1D, 30] => {
                    (found.name_constraints, found.name_constraint_count) = name_constraints(extension.value)?;
                }
                [0x55, 0x1D, 37] => {
                    const SERVER_AUTH: &[u8] = &[0x2B, 6, 1, 5, 5, 7, 3, 1];
                    const OCSP_SIGNING: &[u8] = &[0x2B, 6, 1, 5, 5, 7, 3, 9];
                    found.purposes = purposes(extension.value)?;
                    found.may_serve = names_purpose(extension.value, SERVER_AUTH)?;
                    found.status_signing.delegated = names_purpose(extension.value, OCSP_SIGNING)?;
                }
                // Points that cannot be read are none: then only a list that speaks for all certificates speaks for this one.
                [0x55, 0x1D, 31] => {
                    found.crl_points = crl_points(extension.value).unwrap_or_default();
                    found.critical_unknown |= extension.critical;
                }
                // Certificate policies: none is ever asked for (RFC 5280 §6.1.1 (c): any-policy).
                [0x55, 0x1D, 32] => {}
                // Key identifiers help to find a path and decide nothing: RFC 5280 §4.2.1.1, §4.2.1.2 has them not critical,
                // and one that cannot be read is none.
                [0x55, 0x1D, 14] if !extension.critical => {
                    found.subject_key_id = der::whole(extension.value, der::OCTET_STRING).ok();
                }
                [0x55, 0x1D, 35] if !extension.critical => found.authority_key_id = key_identifier(extension.value),
                // RFC 5280 §4.2.2.1: never critical. One that cannot be read names no responder.
                AUTHORITY_INFO_ACCESS if !extension.critical => {
                    found.responder_urls = access::responder_urls(extension.value).unwrap_or_default();
                }
                // RFC 6960 §4.2.2.2.1: its value is NULL. Critical, which it should not be, it counts as not understood.
                OCSP_NO_CHECK if !extension.critical => {
                    found.status_signing.unchecked = der::whole(extension.value, der::NULL).is_ok_and(<[u8]>::is_empty);
                }
                _ => found.critical_unknown |= extension.critical,
            }
        }
        Ok(found)
    }
}

/// id-pe-authorityInfoAccess (RFC 5280 §4.2.2.1).
const AUTHORITY_INFO_ACCESS: &[u8] = &[0x2B, 6, 1, 5, 5, 7, 1, 1];

/// id-pkix-ocsp-nocheck (RFC 6960 §4.2.2.2.1).
const OCSP_NO_CHECK: &[u8] = &[0x2B, 6, 1, 5, 5, 7, 0x30, 1, 5];

/// More extensions than this are refused, so that looking for one that comes twice stays cheap.
const MOST_EXTENSIONS: usize = 64;

// RFC 5280 §4.2.1.3: KeyUsage ::= BIT STRING { digitalSignature (0), … keyCertSign (5), cRLSign (6), … }
fn key_usage(value: &[u8]) -> Result<KeyUsage, der::NotDer> {
    let bits = der::whole(value, der::BIT_STRING)?;
    let (&unused, octets) = bits.split_first().ok_or(der::NotDer)?;
    if unused > 7 || octets.len() > 2 {
        return Err(der::NotDer);
    }
    let first = octets.first().copied().unwrap_or(0);
    let bit = |mask: u8| first & mask != 0;
    Ok(KeyUsage { digital_signature: bit(0x80), key_cert_sign: bit(0x04), crl_sign: bit(0x02) })
}

// RFC 5280 §4.2.1.9: SEQUENCE { cA BOOLEAN DEFAULT FALSE, pathLenConstraint INTEGER (0..MAX) OPTIONAL }
fn authority(value: &[u8], critical: bool) -> Result<Authority, der::NotDer> {
    let mut contents = der::whole(value, der::SEQUENCE)?;
    let mut certifies = false;
    if contents.first() == Some(&der::BOOLEAN) {
        // FALSE is the default, and DER does not encode defaults; but some do, and it can be read in one way only.
        certifies = match der::expect(&mut contents, der::BOOLEAN)? {
            [0xFF] => true,
            [0x00] => false,
            _ => return Err(der::NotDer),
        };
    }
    let path_length = if contents.is_empty() {
        None
    } else {
        match der::expect(&mut contents, der::INTEGER)? {
            [octet @ 0..=0x7F] => Some(usize::from(*octet)),
            _ => return Err(der::NotDer),
        }
    };
    if !contents.is_empty() {
        return Err(der::NotDer);
    }
    Ok(if certifies { Authority::Certifies { path_length, critical } } else { Authority::None })
}

/// More distribution points than this, or longer ones, are not looked at: they are foreign text that would be kept.
const MOST_CRL_POINTS: usize = 8;
const LONGEST_CRL_POINT_BYTES: usize = 512;

// RFC 5280 §4.2.1.13: SEQUENCE OF SEQUENCE { distributionPoint [0], reasons [1], cRLIssuer [2] }, all optional
fn crl_points(value: &[u8]) -> Result<Vec<String>, der::NotDer> {
    let mut list = der::whole(value, der::SEQUENCE)?;
    let mut points = Vec::new();
    while !list.is_empty() {
        let mut point = der::expect(&mut list, der::SEQUENCE)?;
        let mut names = Vec::new();
        let mut is_plain = true;
        while !point.is_empty() {
            match der::take(&mut point)? {
                der::Element { tag: 0xA0, contents } => names = der::point_uris(contents)?,
                // Lists for some reasons only, or of another issuer, are not read here: such a point leads to none.
                der::Element { tag: 0x81 | 0xA2, .. } => is_plain = false,
                _ => return Err(der::NotDer),
            }
        }
        if is_plain {
            points.extend(names.into_iter().filter(|name| name.len() <= LONGEST_CRL_POINT_BYTES));
        }
    }
    points.truncate(MOST_CRL_POINTS);
    Ok(points)
}

fn purposes(value: &[u8]) -> Result<Purposes, der::NotDer> {
    const CLIENT_AUTH: &[u8] = &[0x2B, 6, 1, 5, 5, 7, 3, 2];
    Ok(if names_purpose(value, CLIENT_AUTH)? { Purposes::ClientAuth } else { Purposes::Others })
}

// RFC 5280 §4.2.1.12: SEQUENCE SIZE (1..MAX) OF OBJECT IDENTIFIER
fn names_purpose(value: &[u8], purpose: &[u8]) -> Result<bool, der::NotDer> {
    let mut contents = der::whole(value, der::SEQUENCE)?;
    if contents.is_empty() {
        return Err(der::NotDer);
    }
    let mut named = false;
    while !contents.is_empty() {
        named |= der::expect(&mut contents, der::OBJECT_IDENTIFIER)? == purpose;
    }
    Ok(named)
}

// RFC 5280 §4.2.1.10: SEQUENCE { permittedSubtrees [0], excludedSubtrees [1] }, each a SEQUENCE OF SEQUENCE { base, … }
fn name_constraints(value: &[u8]) -> Result<(NameConstraints, usize), der::NotDer> {
    let mut contents = der::whole(value, der::SEQUENCE)?;
    // "Conforming CAs MUST NOT issue certificates where name constraints is an empty sequence", nor are the lists empty.
    if contents.is_empty() {
        return Err(der::NotDer);
    }
    let (mut unchecked, mut count) = (UncheckedNames::default(), 0);
    while !contents.is_empty() {
        let mut subtrees = der::take(&mut contents)?.contents;
        if subtrees.is_empty() {
            return Err(der::NotDer);
        }
        while !subtrees.is_empty() {
            count += 1;
            let mut subtree = der::expect(&mut subtrees, der::SEQUENCE)?;
            // webpki compares dNSName and iPAddress. Of the others it refuses every certificate that has such a name.
            match der::take(&mut subtree)?.tag {
                0x82 | 0x87 => {}
                0x81 => unchecked.email = true,
                0x86 => unchecked.uri = true,
                0xA4 => unchecked.directory = true,
                _ => unchecked.other = true,
            }
        }
    }
    let all_checked = unchecked == UncheckedNames::default();
    Ok((if all_checked { NameConstraints::Honoured } else { NameConstraints::Unsupported(unchecked) }, count))
}

// RFC 5280 §4.2.1.1: SEQUENCE { keyIdentifier [0] OCTET STRING OPTIONAL, … }
fn key_identifier(value: &[u8]) -> Option<&[u8]> {
    let mut contents = der::whole(value, der::SEQUENCE).ok()?;
    der::expect(&mut contents, 0x80).ok()
}

/// How many elements a SEQUENCE has, up to the first that cannot be read.
pub(super) fn count_of_elements(value: &[u8]) -> usize {
    let mut contents = der::whole(value, der::SEQUENCE).unwrap_or_default();
    std::iter::from_fn(|| der::take(&mut contents).ok()).count()
}

/// The basic constraints (RFC 5280 §4.2.1.9).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::pki) enum Authority {
    /// No extension, or `cA` is false.
    None,
    /// `cA` is true.
    Certifies {
        /// How many intermediates may follow.
        path_length: Option<usize>,
        critical: bool,
    },
}

/// The bits of the key usage that matter here (RFC 5280 §4.2.1.3).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::pki) struct KeyUsage {
    pub(in crate::pki) digital_signature: bool,
    pub(in crate::pki) key_cert_sign: bool,
    pub(in crate::pki) crl_sign: bool,
}

/// The extended key usage (RFC 5280 §4.2.1.12).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::pki) enum Purposes {
    /// No extension: any purpose.
    Unstated,
    /// clientAuth is among them.
    ClientAuth,
    /// clientAuth is not. anyExtendedKeyUsage does not stand in for it: §4.2.1.12 leaves that to the application.
    Others,
}

/// What a certificate says about signing the status of others (RFC 6960 §4.2.2.2).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(in crate::pki) struct StatusSigning {
    /// Its extended key usage has OCSPSigning.
    pub(in crate::pki) delegated: bool,
    /// It has id-pkix-ocsp-nocheck: its own status need not be asked for (§4.2.2.2.1).
    pub(in crate::pki) unchecked: bool,
}

/// The name constraints (RFC 5280 §4.2.1.10), as far as the path validator's gaps go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::pki) enum NameConstraints {
    Absent,
    Honoured,
    /// On kinds of names that webpki does not compare: it refuses every certificate they concern.
    Unsupported(UncheckedNames),
}
