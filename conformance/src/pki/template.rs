//! What is to be written into a certificate, and what may be wrong with it.

use sha2::{Digest, Sha256};

use super::name::{AltName, Name};
use crate::der::{self, tag};
use crate::key::Key;

/// An extension (RFC 5280 §4.2).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Extension {
    /// Its type.
    pub oid: Vec<u64>,
    /// Whether whoever does not know it has to refuse.
    pub critical: bool,
    /// The DER of its value.
    pub value: Vec<u8>,
}

/// The bits of key usage (RFC 5280 §4.2.1.3).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u8)]
pub enum KeyUsage {
    /// digitalSignature
    DigitalSignature = 0,
    /// nonRepudiation, or contentCommitment
    NonRepudiation = 1,
    /// keyEncipherment
    KeyEncipherment = 2,
    /// keyAgreement
    KeyAgreement = 4,
    /// keyCertSign
    KeyCertSign = 5,
    /// cRLSign
    CrlSign = 6,
}

/// Extended key usages (RFC 5280 §4.2.1.12).
pub mod purpose {
    /// anyExtendedKeyUsage
    pub const ANY: &[u64] = &[2, 5, 29, 37, 0];
    /// id-kp-serverAuth
    pub const SERVER_AUTH: &[u64] = &[1, 3, 6, 1, 5, 5, 7, 3, 1];
    /// id-kp-clientAuth
    pub const CLIENT_AUTH: &[u64] = &[1, 3, 6, 1, 5, 5, 7, 3, 2];
    /// id-kp-codeSigning
    pub const CODE_SIGNING: &[u64] = &[1, 3, 6, 1, 5, 5, 7, 3, 3];
}

/// basicConstraints (RFC 5280 §4.2.1.9).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BasicConstraints {
    /// cA
    pub ca: bool,
    /// pathLenConstraint
    pub path_length: Option<u8>,
}

/// The version of a certificate (RFC 5280 §4.1.2.1).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Version {
    /// 1: nothing written, no extensions.
    V1,
    /// 2: no extensions.
    V2,
    /// 3
    V3,
}

/// What is to be written into a certificate. Every field may be bent.
#[derive(Clone, Debug)]
pub struct Template {
    /// The version.
    pub version: Version,
    /// The content octets of the serial number; from the rest of the content where absent.
    pub serial: Option<Vec<u8>>,
    /// The issuer, where it is not to be the signer's name.
    pub issuer: Option<Name>,
    /// notBefore, in seconds since 1970.
    pub not_before: i64,
    /// notAfter, in seconds since 1970.
    pub not_after: i64,
    /// The subject.
    pub subject: Name,
    /// subjectAltName; left out where empty.
    pub alt_names: Vec<AltName>,
    /// keyUsage; left out where absent.
    pub key_usage: Option<Vec<KeyUsage>>,
    /// extendedKeyUsage; left out where empty.
    pub purposes: Vec<Vec<u64>>,
    /// basicConstraints; left out where absent.
    pub basic_constraints: Option<BasicConstraints>,
    /// permittedSubtrees of nameConstraints; left out where both are empty.
    pub permitted: Vec<AltName>,
    /// excludedSubtrees of nameConstraints.
    pub excluded: Vec<AltName>,
    /// subjectKeyIdentifier and authorityKeyIdentifier.
    pub key_identifiers: bool,
    /// Further extensions, after the others.
    pub extensions: Vec<Extension>,
}

/// How long before `now` certificates begin, in seconds.
pub(super) const AGE: i64 = 3_600;

/// How long after `now` certificates end, in seconds.
pub(super) const LIFE: i64 = 90 * 86_400;

impl Template {
    /// A client's certificate as a careful authority writes it, good from an hour ago for ninety days.
    pub fn client(subject: Name, now: i64) -> Self {
        Self {
            version: Version::V3,
            serial: None,
            issuer: None,
            not_before: now - AGE,
            not_after: now + LIFE,
            subject,
            alt_names: Vec::new(),
            key_usage: Some(vec![KeyUsage::DigitalSignature]),
            purposes: vec![purpose::CLIENT_AUTH.to_vec()],
            basic_constraints: Some(BasicConstraints { ca: false, path_length: None }),
            permitted: Vec::new(),
            excluded: Vec::new(),
            key_identifiers: true,
            extensions: Vec::new(),
        }
    }

    /// A server's certificate for these host names or addresses.
    pub fn server(hosts: &[&str], now: i64) -> Self {
        let alt_names = hosts.iter().map(|host| match host.parse() {
            Ok(address) => AltName::Ip(address),
            Err(_) => AltName::Dns((*host).to_owned()),
        });
        Self {
            alt_names: alt_names.collect(),
            purposes: vec![purpose::SERVER_AUTH.to_vec()],
            ..Self::client(Name::common(hosts.first().copied().unwrap_or("server")), now)
        }
    }

    /// A certificate authority's certificate.
    pub fn authority(subject: Name, now: i64) -> Self {
        Self {
            key_usage: Some(vec![KeyUsage::KeyCertSign, KeyUsage::CrlSign]),
            purposes: Vec::new(),
            basic_constraints: Some(BasicConstraints { ca: true, path_length: None }),
            ..Self::client(subject, now)
        }
    }

    /// With these subject alternative names.
    #[must_use]
    pub fn with_alt_names(mut self, names: impl IntoIterator<Item = AltName>) -> Self {
        self.alt_names = names.into_iter().collect();
        self
    }

    /// With a defect.
    #[must_use]
    pub fn with(self, defect: Defect, now: i64) -> Self {
        defect.bend(self, now)
    }

    /// The TBSCertificate (RFC 5280 §4.1.2).
    pub(super) fn content(&self, spki: &[u8], issuer: &Name, signer: &Key) -> Vec<u8> {
        let issuer = self.issuer.as_ref().unwrap_or(issuer);
        let validity = der::sequence([time(self.not_before), time(self.not_after)]);
        let mut parts = match self.version {
            Version::V1 => Vec::new(),
            Version::V2 => vec![der::tlv(0xA0, der::unsigned(&[1]))],
            Version::V3 => vec![der::tlv(0xA0, der::unsigned(&[2]))],
        };
        let rest = [signer.certificate_algorithm(), issuer.to_der(), validity, self.subject.to_der(), spki.to_vec()];
        let serial = self.serial.clone().unwrap_or_else(|| {
            // Positive, 16 octets, the same for the same content.
            let mut octets = Sha256::digest(der::concat(&rest))[..16].to_vec();
            octets[0] = octets[0] & 0x3F | 0x40;
            octets
        });
        parts.push(der::tlv(tag::INTEGER, serial));
        parts.extend(rest);
        if self.version == Version::V3 {
            let extensions = self.extensions(spki, signer);
            if !extensions.is_empty() {
                parts.push(der::tlv(0xA3, der::sequence(extensions.iter().map(extension))));
            }
        }
        der::sequence(parts)
    }

    fn extensions(&self, spki: &[u8], signer: &Key) -> Vec<Extension> {
        let mut all = Vec::new();
        let mut push = |last_arc: u64, critical: bool, value: Vec<u8>| {
            all.push(Extension { oid: vec![2, 5, 29, last_arc], critical, value });
        };
        if let Some(constraints) = &self.basic_constraints {
            let mut parts = Vec::new();
            if constraints.ca {
                parts.push(der::tlv(0x01, [0xFF]));
            }
            if let Some(length) = constraints.path_length {
                parts.push(der::unsigned(&[length]));
            }
            push(19, true, der::sequence(parts));
        }
        if let Some(usage) = &self.key_usage {
            push(15, true, der::named_bits(&usage.iter().map(|bit| *bit as u8).collect::<Vec<_>>()));
        }
        if !self.purposes.is_empty() {
            push(37, false, der::sequence(self.purposes.iter().map(|oid| der::oid(oid))));
        }
        if !self.alt_names.is_empty() {
            // RFC 5280 §4.2.1.6: critical where the subject is empty.
            push(17, self.subject.0.is_empty(), der::sequence(self.alt_names.iter().map(AltName::to_der)));
        }
        if !self.permitted.is_empty() || !self.excluded.is_empty() {
            let subtrees = |tag, names: &[AltName]| match names {
                [] => Vec::new(),
                names => der::tlv(tag, der::concat(names.iter().map(|name| der::sequence([name.to_der()])))),
            };
            push(30, true, der::sequence([subtrees(0xA0, &self.permitted), subtrees(0xA1, &self.excluded)]));
        }
        if self.key_identifiers {
            push(14, false, der::tlv(tag::OCTET_STRING, key_identifier(spki)));
            push(35, false, der::sequence([der::tlv(0x80, key_identifier(&signer.spki()))]));
        }
        all.extend(self.extensions.iter().cloned());
        all
    }
}

pub(crate) fn extension(extension: &Extension) -> Vec<u8> {
    let mut parts = vec![der::oid(&extension.oid)];
    if extension.critical {
        parts.push(der::tlv(0x01, [0xFF]));
    }
    parts.push(der::tlv(tag::OCTET_STRING, &extension.value));
    der::sequence(parts)
}

/// RFC 7093 §2: the leftmost 160 bits of the SHA-256.
pub(crate) fn key_identifier(spki: &[u8]) -> [u8; 20] {
    let mut identifier = [0; 20];
    identifier.copy_from_slice(&Sha256::digest(spki)[..20]);
    identifier
}

/// RFC 5280 §4.1.2.5: UTCTime through 2049, GeneralizedTime from 2050.
pub(crate) fn time(seconds: i64) -> Vec<u8> {
    let at = time::OffsetDateTime::from_unix_timestamp(seconds).unwrap_or(time::OffsetDateTime::UNIX_EPOCH);
    let (date, clock) = (at.date(), at.time());
    let rest = format!(
        "{:02}{:02}{:02}{:02}{:02}Z",
        u8::from(date.month()),
        date.day(),
        clock.hour(),
        clock.minute(),
        clock.second()
    );
    if (1950..2050).contains(&date.year()) {
        der::tlv(tag::UTC_TIME, format!("{:02}{rest}", date.year() % 100))
    } else {
        der::tlv(tag::GENERALIZED_TIME, format!("{:04}{rest}", date.year()))
    }
}

/// What may be wrong with a leaf's content. Signatures and chains are broken with [`Authority`] and [`Credential`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Defect {
    /// basicConstraints says cA.
    CaTrue,
    /// The same extension twice (RFC 5280 §4.2).
    DuplicateExtension,
    /// Ended one second ago.
    Expired,
    /// Ended decades ago.
    ExpiredLongAgo,
    /// keyUsage with keyCertSign.
    KeyCertSign,
    /// keyUsage without digitalSignature.
    NoDigitalSignature,
    /// Begins in one second.
    NotYetValid,
    /// notAfter before notBefore, both around now.
    PeriodReversed,
    /// extendedKeyUsage of a code signer.
    PurposeCodeSigning,
    /// extendedKeyUsage of a server alone.
    PurposeServerAuth,
    /// Two SPIFFE ids.
    TwoSpiffeIds,
    /// A critical extension nobody knows.
    UnknownCriticalExtension,
    /// Version 1: no extensions at all.
    Version1,
    /// Version 2: no extensions at all.
    Version2,
}

impl Defect {
    /// Every one.
    pub const ALL: &'static [Self] = &[
        Self::CaTrue,
        Self::DuplicateExtension,
        Self::Expired,
        Self::ExpiredLongAgo,
        Self::KeyCertSign,
        Self::NoDigitalSignature,
        Self::NotYetValid,
        Self::PeriodReversed,
        Self::PurposeCodeSigning,
        Self::PurposeServerAuth,
        Self::TwoSpiffeIds,
        Self::UnknownCriticalExtension,
        Self::Version1,
        Self::Version2,
    ];

    /// Its name in reports and case files.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::CaTrue => "ca_true",
            Self::DuplicateExtension => "duplicate_extension",
            Self::Expired => "expired",
            Self::ExpiredLongAgo => "expired_long_ago",
            Self::KeyCertSign => "key_cert_sign",
            Self::NoDigitalSignature => "no_digital_signature",
            Self::NotYetValid => "not_yet_valid",
            Self::PeriodReversed => "period_reversed",
            Self::PurposeCodeSigning => "purpose_code_signing",
            Self::PurposeServerAuth => "purpose_server_auth",
            Self::TwoSpiffeIds => "two_spiffe_ids",
            Self::UnknownCriticalExtension => "unknown_critical_extension",
            Self::Version1 => "version_1",
            Self::Version2 => "version_2",
        }
    }

    fn bend(self, mut template: Template, now: i64) -> Template {
        match self {
            Self::CaTrue => template.basic_constraints = Some(BasicConstraints { ca: true, path_length: None }),
            Self::DuplicateExtension => template.extensions.push(Extension {
                oid: vec![2, 5, 29, 15],
                critical: true,
                value: der::named_bits(&[KeyUsage::DigitalSignature as u8]),
            }),
            Self::Expired => template.not_after = now - 1,
            Self::ExpiredLongAgo => (template.not_before, template.not_after) = (0, 86_400),
            Self::KeyCertSign => template.key_usage = Some(vec![KeyUsage::DigitalSignature, KeyUsage::KeyCertSign]),
            Self::NoDigitalSignature => template.key_usage = Some(vec![KeyUsage::KeyAgreement]),
            Self::NotYetValid => template.not_before = now + 1,
            Self::PeriodReversed => (template.not_before, template.not_after) = (now + AGE, now - AGE),
            Self::PurposeCodeSigning => template.purposes = vec![purpose::CODE_SIGNING.to_vec()],
            Self::PurposeServerAuth => template.purposes = vec![purpose::SERVER_AUTH.to_vec()],
            Self::TwoSpiffeIds => template.alt_names.extend([
                AltName::Uri("spiffe://partner-a.example/client".to_owned()),
                AltName::Uri("spiffe://partner-a.example/other".to_owned()),
            ]),
            Self::UnknownCriticalExtension => template.extensions.push(Extension {
                oid: vec![1, 3, 6, 1, 4, 1, 55_555, 1],
                critical: true,
                value: vec![0x05, 0x00],
            }),
            Self::Version1 => template.version = Version::V1,
            Self::Version2 => template.version = Version::V2,
        }
        template
    }
}
