//! Names: of a subject, of an issuer, and alternative ones.

use std::net::IpAddr;

use crate::der::{self, tag};

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
    pub(super) fn to_der(&self) -> Vec<u8> {
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
