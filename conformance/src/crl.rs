//! Makes certificate revocation lists (RFC 5280 §5): right ones, and with every defect.
//!
//! Takes a [`RevocationList`] (what is to be written) and an [`Authority`] (who signs), gives the DER. Every field may be
//! bent. It knows nothing of what a server ought to think of the result.

use crate::der::{self, tag};
use crate::key::{Key, pem};
use crate::pki::{Authority, Extension, Name, extension, key_identifier, time};

/// What is to be written into a list. Every field may be bent.
#[derive(Clone, Debug)]
pub struct RevocationList {
    /// The version's number on the wire; left out where absent, which means 1.
    pub version: Option<u8>,
    /// The issuer, where it is not to be the signer's name.
    pub issuer: Option<Name>,
    /// The AlgorithmIdentifier inside, where it is not to be the one outside.
    pub inner_algorithm: Option<Vec<u8>>,
    /// thisUpdate, in seconds since 1970.
    pub this_update: i64,
    /// nextUpdate, in seconds since 1970; left out where absent.
    pub next_update: Option<i64>,
    /// What is revoked.
    pub entries: Vec<Revoked>,
    /// Writes the list of entries even if it is empty (RFC 5280 §5.1.2.6 wants it absent).
    pub empty_list: bool,
    /// cRLNumber, big-endian; left out where absent.
    pub number: Option<Vec<u8>>,
    /// Whether the number is marked critical (RFC 5280 §5.2.3: it must not be).
    pub number_critical: bool,
    /// The authority key identifier.
    pub key_identifier: bool,
    /// issuingDistributionPoint; left out where absent.
    pub distribution_point: Option<IssuingDistributionPoint>,
    /// Further extensions, after the others.
    pub extensions: Vec<Extension>,
}

/// One revoked certificate.
#[derive(Clone, Debug)]
pub struct Revoked {
    /// The content octets of its serial number.
    pub serial: Vec<u8>,
    /// When, in seconds since 1970.
    pub at: i64,
    /// reasonCode; left out where absent.
    pub reason: Option<u8>,
    /// Further extensions of the entry.
    pub extensions: Vec<Extension>,
}

impl Revoked {
    /// The certificate in this DER, revoked at this second.
    ///
    /// # Panics
    /// If it is none.
    #[expect(clippy::expect_used, reason = "documented: a test gave octets that are no certificate")]
    pub fn certificate(certificate: &[u8], at: i64) -> Self {
        Self { serial: serial_of(certificate).expect("a certificate"), at, reason: None, extensions: Vec::new() }
    }

    /// For this reason.
    #[must_use]
    pub const fn because(mut self, reason: u8) -> Self {
        self.reason = Some(reason);
        self
    }

    fn to_der(&self) -> Vec<u8> {
        let mut extensions = Vec::new();
        if let Some(reason) = self.reason {
            let value = der::tlv(0x0A, [reason]);
            extensions.push(Extension { oid: vec![2, 5, 29, 21], critical: false, value });
        }
        extensions.extend(self.extensions.iter().cloned());
        let mut parts = vec![der::tlv(tag::INTEGER, &self.serial), time(self.at)];
        if !extensions.is_empty() {
            parts.push(der::sequence(extensions.iter().map(extension)));
        }
        der::sequence(parts)
    }
}

/// The content octets of a certificate's serial number.
fn serial_of(certificate: &[u8]) -> Option<Vec<u8>> {
    let (_, outer, _) = der::split(certificate)?;
    let (_, content, _) = der::split(outer)?;
    let (first, contents, rest) = der::split(content)?;
    // [0] is the version.
    let serial = if first == 0xA0 { der::split(rest)?.1 } else { contents };
    Some(serial.to_vec())
}

/// issuingDistributionPoint (RFC 5280 §5.2.5).
#[derive(Clone, Debug, Default)]
pub struct IssuingDistributionPoint {
    /// The URIs of its full name; no distributionPoint where empty.
    pub uris: Vec<String>,
    /// onlyContainsUserCerts
    pub users: bool,
    /// onlyContainsCACerts
    pub authorities: bool,
    /// The bits of onlySomeReasons; left out where empty.
    pub reasons: Vec<u8>,
    /// indirectCRL
    pub indirect: bool,
    /// onlyContainsAttributeCerts
    pub attributes: bool,
}

impl IssuingDistributionPoint {
    fn to_der(&self) -> Vec<u8> {
        let mut parts = Vec::new();
        if !self.uris.is_empty() {
            parts.push(der::tlv(0xA0, full_name(&self.uris)));
        }
        let mut flag = |tag, set: bool| {
            if set {
                parts.push(der::tlv(tag, [0xFF]));
            }
        };
        flag(0x81, self.users);
        flag(0x82, self.authorities);
        if !self.reasons.is_empty() {
            let bits = der::named_bits(&self.reasons);
            parts.push(der::tlv(0x83, &bits[2..])); // IMPLICIT: at most 9 bits, so two octets of tag and length
        }
        let mut flag = |tag, set: bool| {
            if set {
                parts.push(der::tlv(tag, [0xFF]));
            }
        };
        flag(0x84, self.indirect);
        flag(0x85, self.attributes);
        der::sequence(parts)
    }
}

fn full_name<Uri: AsRef<str>>(uris: &[Uri]) -> Vec<u8> {
    der::tlv(0xA0, der::concat(uris.iter().map(|uri| der::tlv(0x86, uri.as_ref()))))
}

/// The extension cRLDistributionPoints of a certificate (RFC 5280 §4.2.1.13): one point for each URI.
pub fn distribution_points(uris: &[&str]) -> Extension {
    let point = |uri: &&str| der::sequence([der::tlv(0xA0, full_name(&[uri]))]);
    Extension { oid: vec![2, 5, 29, 31], critical: false, value: der::sequence(uris.iter().map(point)) }
}

impl RevocationList {
    /// A list as a careful authority writes it: issued an hour before `now`, the next one a day after it, nothing revoked.
    pub fn new(number: u64, now: i64) -> Self {
        let octets = number.to_be_bytes();
        Self {
            version: Some(1),
            issuer: None,
            inner_algorithm: None,
            this_update: now - 3_600,
            next_update: Some(now + 86_400),
            entries: Vec::new(),
            empty_list: false,
            number: Some(octets.to_vec()),
            number_critical: false,
            key_identifier: true,
            distribution_point: None,
            extensions: Vec::new(),
        }
    }

    /// With this certificate revoked.
    #[must_use]
    pub fn revoking(mut self, revoked: Revoked) -> Self {
        self.entries.push(revoked);
        self
    }

    /// Signed by `authority`.
    pub fn signed_by(&self, authority: &Authority) -> Vec<u8> {
        self.signed(&authority.name, &authority.key)
    }

    /// Signed by `key`, under `name` unless the list says otherwise.
    pub fn signed(&self, name: &Name, key: &Key) -> Vec<u8> {
        let content = self.content(name, key);
        let signature = key.sign_certificate(&content);
        der::sequence([content, key.certificate_algorithm(), der::bit_string(&signature)])
    }

    /// The TBSCertList (RFC 5280 §5.1.2).
    fn content(&self, name: &Name, key: &Key) -> Vec<u8> {
        let mut parts = Vec::new();
        parts.extend(self.version.map(|version| der::unsigned(&[version])));
        parts.push(self.inner_algorithm.clone().unwrap_or_else(|| key.certificate_algorithm()));
        parts.push(self.issuer.as_ref().unwrap_or(name).to_der());
        parts.push(time(self.this_update));
        parts.extend(self.next_update.map(time));
        if self.empty_list || !self.entries.is_empty() {
            parts.push(der::sequence(self.entries.iter().map(Revoked::to_der)));
        }
        let extensions = self.extensions(key);
        if !extensions.is_empty() {
            parts.push(der::tlv(0xA0, der::sequence(extensions.iter().map(extension))));
        }
        der::sequence(parts)
    }

    fn extensions(&self, key: &Key) -> Vec<Extension> {
        let mut all = Vec::new();
        let mut push = |last_arc: u64, critical: bool, value: Vec<u8>| {
            all.push(Extension { oid: vec![2, 5, 29, last_arc], critical, value });
        };
        if self.key_identifier {
            push(35, false, der::sequence([der::tlv(0x80, key_identifier(&key.spki()))]));
        }
        if let Some(number) = &self.number {
            push(20, self.number_critical, der::unsigned(number));
        }
        if let Some(point) = &self.distribution_point {
            push(28, true, point.to_der());
        }
        all.extend(self.extensions.iter().cloned());
        all
    }
}

/// A list as PEM.
pub fn to_pem(der: &[u8]) -> String {
    pem("X509 CRL", der)
}

#[cfg(test)]
mod tests {
    use x509_parser::prelude::{CertificateRevocationList, FromDer, ParsedExtension, ReasonCode, X509Certificate};

    use super::IssuingDistributionPoint; // x509-parser's has the same name
    use super::*;

    const NOW: i64 = 1_800_000_000;

    #[test]
    fn a_list_says_what_it_was_told() {
        let root = Authority::root("Root", NOW);
        let client = root.client("client");
        let list = RevocationList {
            distribution_point: Some(IssuingDistributionPoint {
                uris: vec!["http://crl.example/1".to_owned()],
                users: true,
                ..IssuingDistributionPoint::default()
            }),
            ..RevocationList::new(7, NOW)
        };
        let der = list.revoking(Revoked::certificate(client.certificate(), NOW).because(1)).signed_by(&root);
        let (rest, read) = CertificateRevocationList::from_der(&der).unwrap();
        assert!(rest.is_empty());
        assert_eq!(read.issuer().to_string(), "CN=Root");
        assert_eq!(read.crl_number().unwrap(), &7_u32.into());
        assert_eq!(read.next_update().unwrap().timestamp(), NOW + 86_400);
        let (_, leaf) = X509Certificate::from_der(client.certificate()).unwrap();
        let revoked = read.iter_revoked_certificates().next().unwrap();
        assert_eq!(revoked.raw_serial(), leaf.raw_serial());
        assert_eq!(revoked.reason_code().unwrap().1, ReasonCode::KeyCompromise);
        let points = read.extensions().iter().find(|one| one.oid.to_id_string() == "2.5.29.28").unwrap();
        let ParsedExtension::IssuingDistributionPoint(point) = points.parsed_extension() else { panic!() };
        assert!(point.only_contains_user_certs && point.distribution_point.is_some());
        // Nothing revoked: no list at all.
        let der = RevocationList::new(8, NOW).signed_by(&root);
        let (_, read) = CertificateRevocationList::from_der(&der).unwrap();
        assert_eq!(read.iter_revoked_certificates().count(), 0);
    }
}
