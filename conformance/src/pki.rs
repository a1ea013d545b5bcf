//! Makes certificates: right ones, and with every defect.
//!
//! Takes a [`Template`] (what is to be written) and an [`Authority`] (who signs), gives a [`Credential`] (what a TLS client
//! presents). All dates come from the caller's `now` in seconds, all names from the caller, every serial from the content:
//! only keys are random. It knows nothing of what a server ought to think of the result.

use std::net::IpAddr;
use std::sync::Arc;

use base64::Engine;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use crate::der::{self, tag};
use crate::key::{Key, KeyKind, pem};

/// One attribute of a name: type, string type and octets as they go into the DER.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Attribute {
    /// The attribute's type.
    pub oid: Vec<u64>,
    /// The ASN.1 string type.
    pub tag: u8,
    /// The octets.
    pub value: Vec<u8>,
}

impl Attribute {
    /// An attribute by its short name (`C`, `O`, `OU`, `CN`, `L`, `ST`, `UID`, `DC`, `serialNumber`, `organizationIdentifier`)
    /// in the string type most authorities use for it.
    ///
    /// # Panics
    /// For another short name.
    #[expect(clippy::panic, reason = "documented: a test asked for an attribute this factory does not know")]
    pub fn new(short_name: &str, value: &str) -> Self {
        let (oid, tag): (&[u64], u8) = match short_name {
            "CN" => (&[2, 5, 4, 3], tag::UTF8_STRING),
            "serialNumber" => (&[2, 5, 4, 5], tag::PRINTABLE_STRING),
            "C" => (&[2, 5, 4, 6], tag::PRINTABLE_STRING),
            "L" => (&[2, 5, 4, 7], tag::UTF8_STRING),
            "ST" => (&[2, 5, 4, 8], tag::UTF8_STRING),
            "O" => (&[2, 5, 4, 10], tag::UTF8_STRING),
            "OU" => (&[2, 5, 4, 11], tag::UTF8_STRING),
            "organizationIdentifier" => (&[2, 5, 4, 97], tag::UTF8_STRING),
            "UID" => (&[0, 9, 2342, 19_200_300, 100, 1, 1], tag::UTF8_STRING),
            "DC" => (&[0, 9, 2342, 19_200_300, 100, 1, 25], tag::IA5_STRING),
            other => panic!("no attribute {other}"),
        };
        Self { oid: oid.to_vec(), tag, value: value.as_bytes().to_vec() }
    }

    /// The same attribute in another string type.
    #[must_use]
    pub const fn tagged(mut self, tag: u8) -> Self {
        self.tag = tag;
        self
    }
}

/// A distinguished name: relative distinguished names in the order of the DER, each a set of attributes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Name(pub Vec<Vec<Attribute>>);

impl Name {
    /// A name with one attribute each: `Name::of(&[("C", "DE"), ("O", "Example"), ("CN", "client")])`.
    pub fn of(attributes: &[(&str, &str)]) -> Self {
        Self(attributes.iter().map(|(short_name, value)| vec![Attribute::new(short_name, value)]).collect())
    }

    /// A name with a common name alone.
    pub fn common(name: &str) -> Self {
        Self::of(&[("CN", name)])
    }

    /// The DER of the Name (RFC 5280 §4.1.2.4).
    pub fn to_der(&self) -> Vec<u8> {
        der::sequence(self.0.iter().map(|relative| {
            der::set_of(
                relative
                    .iter()
                    .map(|attribute| {
                        der::sequence([der::oid(&attribute.oid), der::tlv(attribute.tag, &attribute.value)])
                    })
                    .collect(),
            )
        }))
    }
}

/// A subject alternative name (RFC 5280 §4.2.1.6).
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum AltName {
    /// directoryName
    Directory(Name),
    /// dNSName, octets as given
    Dns(String),
    /// rfc822Name, octets as given
    Email(String),
    /// iPAddress
    Ip(IpAddr),
    /// otherName: type and the DER of its value
    Other(Vec<u64>, Vec<u8>),
    /// A general name of any tag, octets as given
    Raw(u8, Vec<u8>),
    /// uniformResourceIdentifier, octets as given
    Uri(String),
}

impl AltName {
    fn to_der(&self) -> Vec<u8> {
        match self {
            Self::Directory(name) => der::tlv(0xA4, name.to_der()),
            Self::Dns(name) => der::tlv(0x82, name),
            Self::Email(address) => der::tlv(0x81, address),
            Self::Ip(IpAddr::V4(address)) => der::tlv(0x87, address.octets()),
            Self::Ip(IpAddr::V6(address)) => der::tlv(0x87, address.octets()),
            Self::Other(oid, value) => der::tlv(0xA0, der::concat([der::oid(oid), der::tlv(0xA0, value)])),
            Self::Raw(tag, octets) => der::tlv(*tag, octets),
            Self::Uri(uri) => der::tlv(0x86, uri),
        }
    }
}

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
const AGE: i64 = 3_600;

/// How long after `now` certificates end, in seconds.
const LIFE: i64 = 90 * 86_400;

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
    fn content(&self, spki: &[u8], issuer: &Name, signer: &Key) -> Vec<u8> {
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

/// Signs a TBSCertificate (RFC 5280 §4.1.1).
fn sign(content: &[u8], signer: &Key) -> Vec<u8> {
    der::sequence([
        content.to_vec(),
        signer.certificate_algorithm(),
        der::bit_string(&signer.sign_certificate(content)),
    ])
}

/// What a TLS client presents: a certificate, what comes after it, and the key.
#[derive(Clone, Debug)]
pub struct Credential {
    /// The certificate's key pair.
    pub key: Arc<Key>,
    /// The leaf first, then what leads to the root, the root left out.
    pub chain: Vec<Vec<u8>>,
}

impl Credential {
    /// A certificate that signed itself.
    pub fn self_signed(template: &Template, kind: KeyKind) -> Self {
        let key = Arc::new(Key::generate(kind));
        let certificate = sign(&template.content(&key.spki(), &template.subject, &key), &key);
        Self { key, chain: vec![certificate] }
    }

    /// The leaf's DER.
    pub fn certificate(&self) -> &[u8] {
        self.chain.first().map_or(&[], Vec::as_slice)
    }

    /// The whole list as PEM, leaf first.
    pub fn chain_pem(&self) -> String {
        self.chain.iter().map(|certificate| pem("CERTIFICATE", certificate)).collect()
    }

    /// `x5t#S256` of the leaf (RFC 8705 §3.1).
    pub fn thumbprint(&self) -> String {
        URL_SAFE_NO_PAD.encode(Sha256::digest(self.certificate()))
    }

    /// A JWK set with the leaf in `x5c` (RFC 8705 §2.2, RFC 7517 §4.7).
    pub fn jwks(&self) -> String {
        json!({ "keys": [self.jwk()] }).to_string()
    }

    /// The key as a JWK with the leaf in `x5c`.
    pub fn jwk(&self) -> Value {
        let mut jwk = self.key.jwk();
        jwk["kid"] = self.key.jwk_thumbprint().into();
        jwk["x5c"] = json!([STANDARD.encode(self.certificate())]);
        jwk
    }

    /// The same content signed again by rewriting the ECDSA signature (r, s) to (r, n - s): a second valid DER of the same
    /// certificate, with another thumbprint. `None` where the signature is not ECDSA on P-256.
    pub fn rewritten(&self) -> Option<Self> {
        let (_, outer, _) = der::split(self.certificate())?;
        let (_, content, rest) = der::split(outer)?;
        let (_, algorithm, rest) = der::split(rest)?;
        let (_, bits, _) = der::split(rest)?;
        // ecdsa-with-SHA256, and a curve of 32 octets.
        if der::tlv(tag::SEQUENCE, algorithm) != der::sequence([der::oid(&[1, 2, 840, 10045, 4, 3, 2])]) {
            return None;
        }
        let (_, pair, _) = der::split(bits.get(1..)?)?;
        let (_, r, rest) = der::split(pair)?;
        let (_, s, _) = der::split(rest)?;
        let signature = der::sequence([der::tlv(tag::INTEGER, r), der::unsigned(&order_minus(s)?)]);
        let certificate = der::sequence([
            der::tlv(tag::SEQUENCE, content),
            der::tlv(tag::SEQUENCE, algorithm),
            der::bit_string(&signature),
        ]);
        let mut twin = self.clone();
        *twin.chain.first_mut()? = certificate;
        Some(twin)
    }

    /// With these octets behind the leaf: a second object, or none.
    #[must_use]
    pub fn with_trailing(mut self, octets: &[u8]) -> Self {
        if let Some(leaf) = self.chain.first_mut() {
            leaf.extend_from_slice(octets);
        }
        self
    }

    /// With one more length octet than DER has (X.690 §10.1) at the leaf's outermost SEQUENCE, which no signature covers:
    /// the same certificate in BER, with another thumbprint.
    #[must_use]
    pub fn with_longer_length(mut self) -> Self {
        if let Some(leaf) = self.chain.first_mut()
            && let Some((tag, content, _)) = der::split(leaf)
        {
            let length = u32::try_from(content.len()).unwrap_or(u32::MAX).to_be_bytes();
            *leaf = der::concat([&[tag, 0x83][..], &length[1..], content]);
        }
        self
    }

    /// With the leaf's outermost SEQUENCE in the indefinite form (X.690 §8.1.3.6), which DER has not.
    #[must_use]
    pub fn with_indefinite_length(mut self) -> Self {
        if let Some(leaf) = self.chain.first_mut()
            && let Some((tag, content, _)) = der::split(leaf)
        {
            *leaf = der::concat([&[tag, 0x80][..], content, &[0, 0]]);
        }
        self
    }

    /// With one bit of the leaf's signature flipped.
    #[must_use]
    pub fn with_broken_signature(mut self) -> Self {
        if let Some(last) = self.chain.first_mut().and_then(|leaf| leaf.last_mut()) {
            *last ^= 1;
        }
        self
    }
}

/// n - s on P-256 (SEC 2 §2.4.2), 32 octets.
fn order_minus(s: &[u8]) -> Option<[u8; 32]> {
    const ORDER: [u8; 32] = [
        0xFF, 0xFF, 0xFF, 0xFF, 0x00, 0x00, 0x00, 0x00, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xBC, 0xE6,
        0xFA, 0xAD, 0xA7, 0x17, 0x9E, 0x84, 0xF3, 0xB9, 0xCA, 0xC2, 0xFC, 0x63, 0x25, 0x51,
    ];
    let s = &s[usize::from(s.first() == Some(&0))..];
    let mut padded = [0; 32];
    padded.get_mut(32_usize.checked_sub(s.len())?..)?.copy_from_slice(s);
    let mut difference = [0; 32];
    let mut borrow = 0;
    for at in (0..32).rev() {
        let value = i16::from(ORDER[at]) - i16::from(padded[at]) - borrow;
        borrow = i16::from(value < 0);
        difference[at] = (value + borrow * 256) as u8;
    }
    Some(difference)
}

/// A certificate authority.
#[derive(Clone, Debug)]
pub struct Authority {
    /// Its name, as its certificates' issuer.
    pub name: Name,
    /// Its key pair.
    pub key: Arc<Key>,
    /// Its own certificate.
    pub certificate: Vec<u8>,
    /// What a client has to send above the leaf: nothing for a root.
    above: Vec<Vec<u8>>,
    now: i64,
}

impl Authority {
    /// A root, on P-256.
    pub fn root(common_name: &str, now: i64) -> Self {
        Self::root_with(Template::authority(Name::common(common_name), now), KeyKind::P256, now)
    }

    /// A root as the template says.
    pub fn root_with(template: Template, kind: KeyKind, now: i64) -> Self {
        let Credential { key, chain } = Credential::self_signed(&template, kind);
        let certificate = chain.into_iter().next().unwrap_or_default();
        Self { name: template.subject, key, certificate, above: Vec::new(), now }
    }

    /// A credential that signs as if it were an authority, whether or not it may.
    pub fn pretended(name: Name, credential: &Credential, now: i64) -> Self {
        Self {
            name,
            key: Arc::clone(&credential.key),
            certificate: credential.certificate().to_vec(),
            above: credential.chain.clone(),
            now,
        }
    }

    /// An authority whose certificate and key somebody else made: `above` is what a client has to send above the leaf.
    pub const fn of(name: Name, certificate: Vec<u8>, key: Arc<Key>, above: Vec<Vec<u8>>, now: i64) -> Self {
        Self { name, key, certificate, above, now }
    }

    /// Another authority of the same name, with a key of its own.
    pub fn twin(&self) -> Self {
        Self::root_with(Template::authority(self.name.clone(), self.now), self.key.kind(), self.now)
    }

    /// An intermediate under this one.
    pub fn intermediate(&self, common_name: &str) -> Self {
        self.intermediate_with(&Template::authority(Name::common(common_name), self.now))
    }

    /// An intermediate as the template says.
    pub fn intermediate_with(&self, template: &Template) -> Self {
        let Credential { key, chain } = self.issue(template, KeyKind::P256);
        let certificate = chain.first().cloned().unwrap_or_default();
        Self { name: template.subject.clone(), key, certificate, above: chain, now: self.now }
    }

    /// This authority's key certified by `other` under the same name: a cross certificate.
    pub fn cross_signed_by(&self, other: &Self) -> Self {
        let template = Template::authority(self.name.clone(), self.now);
        let mut above = vec![other.sign(&template, &self.key.spki())];
        above.extend(other.above.iter().cloned());
        Self { above, ..self.clone() }
    }

    /// A certificate with a fresh key.
    pub fn issue(&self, template: &Template, kind: KeyKind) -> Credential {
        self.issue_for(template, Arc::new(Key::generate(kind)))
    }

    /// A certificate for a key that exists.
    pub fn issue_for(&self, template: &Template, key: Arc<Key>) -> Credential {
        let mut chain = vec![self.sign(template, &key.spki())];
        chain.extend(self.above.iter().cloned());
        Credential { key, chain }
    }

    /// A good client certificate with a common name, on P-256.
    pub fn client(&self, common_name: &str) -> Credential {
        self.issue(&Template::client(Name::common(common_name), self.now), KeyKind::P256)
    }

    /// A certificate for the holder of this SubjectPublicKeyInfo.
    pub fn sign(&self, template: &Template, spki: &[u8]) -> Vec<u8> {
        sign(&template.content(spki, &self.name, &self.key), &self.key)
    }

    /// A certificate of these octets, whatever they are: where no template can say what is to be written.
    pub fn sign_content(&self, content: &[u8]) -> Vec<u8> {
        sign(content, &self.key)
    }

    /// Its own certificate as PEM.
    pub fn to_pem(&self) -> String {
        pem("CERTIFICATE", &self.certificate)
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

#[cfg(test)]
mod tests {
    use x509_parser::prelude::*;

    use super::*;

    const NOW: i64 = 1_800_000_000;

    #[test]
    fn a_client_certificate_says_what_its_template_says() {
        let root = Authority::root("Root", NOW);
        let template = Template::client(Name::of(&[("C", "DE"), ("O", "Ex"), ("CN", "client")]), NOW).with_alt_names([
            AltName::Dns("client.example".to_owned()),
            AltName::Uri("https://client.example/".to_owned()),
            AltName::Ip([192, 0, 2, 7].into()),
            AltName::Email("a@client.example".to_owned()),
        ]);
        let credential = root.intermediate("Issuing").issue(&template, KeyKind::P256);
        assert_eq!(credential.chain.len(), 2);
        let (rest, leaf) = X509Certificate::from_der(credential.certificate()).unwrap();
        assert!(rest.is_empty());
        assert_eq!(leaf.subject().to_string(), "C=DE, O=Ex, CN=client");
        assert_eq!(leaf.issuer().to_string(), "CN=Issuing");
        assert_eq!(leaf.validity().not_before.timestamp(), NOW - AGE);
        assert_eq!(leaf.validity().not_after.timestamp(), NOW + LIFE);
        assert!(leaf.key_usage().unwrap().unwrap().value.digital_signature());
        assert!(leaf.extended_key_usage().unwrap().unwrap().value.client_auth);
        assert!(!leaf.is_ca());
        assert_eq!(leaf.subject_alternative_name().unwrap().unwrap().value.general_names.len(), 4);
        let (_, issuing) = X509Certificate::from_der(&credential.chain[1]).unwrap();
        assert!(issuing.is_ca());
        assert!(issuing.key_usage().unwrap().unwrap().value.key_cert_sign());
    }

    #[test]
    fn every_kind_of_authority_signs_what_its_key_verifies() {
        use aws_lc_rs::signature as sig;
        let cases: [(KeyKind, &'static dyn sig::VerificationAlgorithm); 5] = [
            (KeyKind::P256, &sig::ECDSA_P256_SHA256_ASN1),
            (KeyKind::P384, &sig::ECDSA_P384_SHA384_ASN1),
            (KeyKind::P521, &sig::ECDSA_P521_SHA512_ASN1),
            (KeyKind::Ed25519, &sig::ED25519),
            (KeyKind::Rsa2048, &sig::RSA_PKCS1_2048_8192_SHA256),
        ];
        for (kind, algorithm) in cases {
            let root = Authority::root_with(Template::authority(Name::common("Root"), NOW), kind, NOW);
            let credential = root.client("client");
            assert!(signature_verifies(credential.certificate(), &root, algorithm), "{kind:?}");
            assert!(!signature_verifies(credential.certificate(), &root.twin(), algorithm), "{kind:?}");
        }
    }

    #[test]
    fn a_rewritten_signature_is_another_certificate_and_still_valid() {
        let root = Authority::root("Root", NOW);
        let credential = root.client("client");
        let twin = credential.rewritten().unwrap();
        assert_ne!(twin.thumbprint(), credential.thumbprint());
        for der in [twin.certificate(), credential.certificate()] {
            assert!(signature_verifies(der, &root, &aws_lc_rs::signature::ECDSA_P256_SHA256_ASN1));
        }
        assert_eq!(twin.rewritten().unwrap().thumbprint(), credential.thumbprint());
    }

    #[test]
    fn every_defect_changes_the_content_and_can_still_be_read_or_is_meant_not_to_be() {
        let root = Authority::root("Root", NOW);
        let key = Arc::new(Key::generate(KeyKind::P256));
        let template = Template::client(Name::common("client"), NOW);
        let good = root.issue_for(&template, Arc::clone(&key));
        for defect in Defect::ALL {
            let bent = root.issue_for(&template.clone().with(*defect, NOW), Arc::clone(&key));
            let (_, bent_content, _) = der::split(bent.certificate()).unwrap();
            let (_, good_content, _) = der::split(good.certificate()).unwrap();
            assert_ne!(der::split(bent_content).unwrap().1, der::split(good_content).unwrap().1, "{}", defect.as_str());
            let read = X509Certificate::from_der(bent.certificate());
            assert!(read.is_ok(), "{}", defect.as_str());
        }
    }

    #[test]
    fn versions_are_what_they_say() {
        for (version, expected) in [(Version::V1, X509Version::V1), (Version::V2, X509Version::V2)] {
            let template = Template { version, ..Template::client(Name::common("old"), NOW) };
            let credential = Credential::self_signed(&template, KeyKind::P256);
            let (_, leaf) = X509Certificate::from_der(credential.certificate()).unwrap();
            assert_eq!(leaf.version(), expected);
            assert!(leaf.extensions().is_empty());
        }
    }

    #[test]
    fn dates_from_2050_are_generalized() {
        assert_eq!(time(2_524_607_999), der::tlv(tag::UTC_TIME, "491231235959Z"));
        assert_eq!(time(2_524_608_000), der::tlv(tag::GENERALIZED_TIME, "20500101000000Z"));
    }

    fn signature_verifies(
        der: &[u8],
        by: &Authority,
        algorithm: &'static dyn aws_lc_rs::signature::VerificationAlgorithm,
    ) -> bool {
        let (_, certificate) = X509Certificate::from_der(der).unwrap();
        let spki = by.key.spki();
        let (_, info) = SubjectPublicKeyInfo::from_der(&spki).unwrap();
        aws_lc_rs::signature::UnparsedPublicKey::new(algorithm, info.subject_public_key.data.as_ref())
            .verify(certificate.tbs_certificate.as_ref(), &certificate.signature_value.data)
            .is_ok()
    }
}
