//! What one certificate says, read once.
//!
//! Takes DER or PEM from anywhere, gives [`ParsedCertificate`]: dates, key, names, purposes, as the rules of this module's
//! neighbours need them. It judges nothing and believes nothing: no signature is looked at.

/// What its extensions say.
mod extensions;

/// How strong its key is.
mod key;

use countersign_resource_server::time::UnixTime;
use countersign_resource_server::token::jwks::{self, Curve, KeyMaterial};
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, SubjectPublicKeyInfoDer};
use x509_parser::certificate::{X509Certificate, X509CertificateParser};
use x509_parser::nom::Parser;
use x509_parser::prelude::FromDer;
use x509_parser::public_key::PublicKey;
use x509_parser::x509::{SubjectPublicKeyInfo, X509Version};

pub(super) use extensions::{Authority, KeyUsage, NameConstraints, Purposes, StatusSigning};
use extensions::{Extensions, count_of_elements};
use key::key_strength;

use super::PeerRefusal;
use super::chain;
use super::crl::Serial;
use super::der;
use super::identity::{self, MalformedName, Names};
use super::spiffe::CarriedId;
use crate::registry::client::{SubjectAttribute, SubjectRule};
use crate::registry::{CertificateFacts, KeyHash, Thumbprint};

/// Longer certificates are not read: the whole list of a handshake has 16 KB at most.
pub const LONGEST_CERTIFICATE_BYTES: usize = 16 * 1024;

/// What one certificate says.
#[derive(Clone, Debug)]
pub struct ParsedCertificate {
    thumbprint: Thumbprint,
    key_hash: KeyHash,
    serial: String,
    /// The same, as revocation lists are asked for it.
    serial_number: Option<Serial>,
    serial_is_positive: bool,
    not_before: UnixTime,
    not_after: UnixTime,
    names: Result<Names, MalformedName>,
    issuer_text: String,
    issuer_is_empty: bool,
    self_issued: bool,
    /// The subject's whole DER: anchors of one name are counted by it.
    subject: Vec<u8>,
    /// The whole SubjectPublicKeyInfo: what it signed is verified by it.
    spki: Vec<u8>,
    /// Where it says that its revocation list is (RFC 5280 §4.2.1.13).
    crl_points: Vec<String>,
    /// Where it says that its status can be asked for (RFC 5280 §4.2.2.1).
    responder_urls: Vec<String>,
    version_3: bool,
    key_strength: KeyStrength,
    authority: Authority,
    key_usage: Option<KeyUsage>,
    purposes: Purposes,
    name_constraints: NameConstraints,
    critical_extension_unknown: bool,
    /// How many subtrees its name constraints have, and how many alternative names it has: what comparing them costs.
    name_constraint_count: usize,
    alt_name_count: usize,
    subject_key_id: Option<Box<[u8]>>,
    authority_key_id: Option<Box<[u8]>>,
    status_signing: StatusSigning,
    spiffe_id: CarriedId,
    /// X509-SVID §3.1, §4.3: what an SVID marks critical, whatever else it is.
    key_usage_is_critical: bool,
    alt_names_are_critical: bool,
    may_serve: bool,
}

/// Whether a key is within the bounds that a handshake accepts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum KeyStrength {
    /// RSA of 2048 to 4096 bits, P-256, P-384, P-521 or Ed25519.
    Sufficient,
    /// Anything else, or an encoding of a good key that is not the usual one.
    Insufficient,
}

/// The octets are not a certificate that can be read in exactly one way.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not a certificate in DER, or one that can be read in more than one way")]
pub struct MalformedCertificate;

impl From<der::NotDer> for MalformedCertificate {
    fn from(_: der::NotDer) -> Self {
        Self
    }
}

/// Every certificate in `input`: one in DER, or any number in PEM (other sections are passed over).
///
/// # Errors
/// [`MalformedCertificate`] if there is none.
pub fn certificates_from(input: &[u8]) -> Result<Vec<CertificateDer<'static>>, MalformedCertificate> {
    if input.first() == Some(&der::SEQUENCE) {
        ParsedCertificate::read(input)?;
        return Ok(vec![CertificateDer::from(input.to_owned())]);
    }
    let found: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(input).collect();
    found.ok().filter(|found| !found.is_empty()).ok_or(MalformedCertificate)
}

/// The hash of the one public key in `input`: of the first certificate, or a SubjectPublicKeyInfo, in PEM or DER.
///
/// # Errors
/// [`MalformedCertificate`] if it is neither.
pub fn key_hash_from(input: &[u8]) -> Result<KeyHash, MalformedCertificate> {
    if let Ok(certificates) = certificates_from(input) {
        let first = certificates.first().ok_or(MalformedCertificate)?;
        return Ok(*ParsedCertificate::read(first)?.key_hash());
    }
    let key = match input.first() {
        Some(&der::SEQUENCE) => input.to_owned(),
        _ => SubjectPublicKeyInfoDer::from_pem_slice(input).map_err(|_| MalformedCertificate)?.to_vec(),
    };
    let (rest, _) = SubjectPublicKeyInfo::from_der(&key).map_err(|_| MalformedCertificate)?;
    if rest.is_empty() { Ok(KeyHash::of(&key)) } else { Err(MalformedCertificate) }
}

/// What the public key of a certificate consists of, for writing it as a JWK; none if it is of no kind that is taken here.
pub fn key_material(der: &[u8]) -> Option<KeyMaterial> {
    let (_, certificate) = X509CertificateParser::new().with_deep_parse_extensions(false).parse(der).ok()?;
    let key = certificate.public_key();
    let octets = key.subject_public_key.data.as_ref();
    let without_sign = |number: &[u8]| number.strip_prefix(&[0]).unwrap_or(number).to_owned();
    // The SPKI is the proof: a material counts only if it is written as exactly these octets.
    let candidate = match (key.parsed().ok()?, octets.split_first()) {
        (PublicKey::RSA(rsa), _) => KeyMaterial::Rsa { n: without_sign(rsa.modulus), e: without_sign(rsa.exponent) },
        (PublicKey::EC(_), Some((4, point))) => {
            let curve = match point.len() {
                64 => Curve::P256,
                96 => Curve::P384,
                132 => Curve::P521,
                _ => return None,
            };
            let (x, y) = point.split_at(point.len() / 2);
            KeyMaterial::Ec { curve, x: x.to_owned(), y: y.to_owned() }
        }
        _ => KeyMaterial::Ed25519 { x: octets.try_into().ok()? },
    };
    let written = jwks::PublicKey::new(candidate.clone(), None).ok()?;
    (written.spki() == key.raw).then_some(candidate)
}

impl ParsedCertificate {
    /// Reads one certificate.
    ///
    /// # Errors
    /// [`MalformedCertificate`] if it is none.
    pub fn read(der: &[u8]) -> Result<Self, MalformedCertificate> {
        Self::read_with(der, Names::read)
    }

    /// Reads an intermediate's certificate, whose names nobody compares: to prepare them (RFC 4518) is work for nothing.
    ///
    /// # Errors
    /// [`MalformedCertificate`] if it is none.
    pub(super) fn read_intermediate(der: &[u8]) -> Result<Self, MalformedCertificate> {
        Self::read_with(der, |_, _| Err(MalformedName("the names of an intermediate are not read")))
    }

    fn read_with(
        der: &[u8],
        names: impl FnOnce(&[u8], Option<&[u8]>) -> Result<Names, MalformedName>,
    ) -> Result<Self, MalformedCertificate> {
        if der.len() > LONGEST_CERTIFICATE_BYTES {
            return Err(MalformedCertificate);
        }
        // The frame: exactly these octets, one SEQUENCE of three.
        let mut frame = der::whole(der, der::SEQUENCE)?;
        let to_be_signed = der::expect(&mut frame, der::SEQUENCE)?;
        der::expect(&mut frame, der::SEQUENCE)?;
        der::expect(&mut frame, der::BIT_STRING)?;
        if !frame.is_empty() {
            return Err(MalformedCertificate);
        }
        let (rest, certificate) = X509CertificateParser::new()
            .with_deep_parse_extensions(false)
            .parse(der)
            .map_err(|_| MalformedCertificate)?;
        if !rest.is_empty() || !covers(to_be_signed, &certificate) {
            return Err(MalformedCertificate);
        }
        let extensions = Extensions::of(&certificate)?;
        let key = certificate.public_key();
        der::whole(key.raw, der::SEQUENCE)?;
        let (subject, issuer) = (certificate.subject().as_raw(), certificate.issuer().as_raw());
        let serial = certificate.raw_serial();
        // RFC 5280 §4.1.2.2: no more than 20 octets, and one for a sign.
        if serial.is_empty() || serial.len() > 21 {
            return Err(MalformedCertificate);
        }
        let instant = |seconds| UnixTime::from_seconds(seconds);
        Ok(Self {
            thumbprint: Thumbprint::of(der),
            key_hash: KeyHash::of(key.raw),
            serial: hex::encode(serial),
            serial_number: Serial::of(serial),
            serial_is_positive: is_positive(serial),
            not_before: instant(certificate.validity().not_before.timestamp()),
            not_after: instant(certificate.validity().not_after.timestamp()),
            names: names(subject, extensions.alt_names),
            self_issued: issuer == subject,
            // Nothing is decided by the issuer's name, only by its key: one that cannot be read is merely not told.
            issuer_text: identity::name_text(issuer).unwrap_or_default(),
            issuer_is_empty: der::whole(issuer, der::SEQUENCE)?.is_empty(),
            subject: subject.to_owned(),
            spki: key.raw.to_owned(),
            crl_points: extensions.crl_points,
            responder_urls: extensions.responder_urls,
            version_3: certificate.version() == X509Version::V3,
            key_strength: key_strength(key),
            authority: extensions.authority,
            key_usage: extensions.key_usage,
            purposes: extensions.purposes,
            name_constraints: extensions.name_constraints,
            critical_extension_unknown: extensions.critical_unknown,
            name_constraint_count: extensions.name_constraint_count,
            alt_name_count: extensions.alt_names.map_or(0, count_of_elements),
            subject_key_id: extensions.subject_key_id.map(Box::from),
            authority_key_id: extensions.authority_key_id.map(Box::from),
            status_signing: extensions.status_signing,
            spiffe_id: CarriedId::read(extensions.alt_names),
            key_usage_is_critical: extensions.key_usage_is_critical,
            alt_names_are_critical: extensions.alt_names_are_critical,
            may_serve: extensions.may_serve,
        })
    }

    /// SHA-256 of the DER: what tokens are bound to.
    pub const fn thumbprint(&self) -> &Thumbprint {
        &self.thumbprint
    }

    /// SHA-256 of the SubjectPublicKeyInfo.
    pub const fn key_hash(&self) -> &KeyHash {
        &self.key_hash
    }

    /// Lower-case hexadecimal of the serial number's content octets.
    pub fn serial(&self) -> &str {
        &self.serial
    }

    /// The first second of its validity.
    pub const fn not_before(&self) -> UnixTime {
        self.not_before
    }

    /// The last second of its validity, all of it included (RFC 5280 §4.1.2.5).
    pub const fn not_after(&self) -> UnixTime {
        self.not_after
    }

    /// Its names in canonical form.
    ///
    /// # Errors
    /// [`MalformedName`] if one of them cannot be read in exactly one way: then it has none.
    pub const fn names(&self) -> Result<&Names, MalformedName> {
        match &self.names {
            Ok(names) => Ok(names),
            Err(malformed) => Err(*malformed),
        }
    }

    /// The subject by RFC 4514, for people; empty if it has none or cannot be read.
    pub fn subject_text(&self) -> &str {
        self.names.as_ref().map_or("", Names::subject_text)
    }

    /// The issuer by RFC 4514, for people; empty if it has none or cannot be read.
    pub fn issuer_text(&self) -> &str {
        &self.issuer_text
    }

    /// The subject alternative names for people.
    pub fn subject_alt_names_text(&self) -> &[String] {
        self.names.as_ref().map_or(&[], Names::subject_alt_names_text)
    }

    /// Whether its key is within bounds.
    pub const fn key_strength(&self) -> KeyStrength {
        self.key_strength
    }

    /// Every rule that would name this certificate, for an operator to choose from: alternative names first.
    pub fn proposed_rules(&self) -> Vec<SubjectRule> {
        let Ok(names) = self.names() else { return Vec::new() };
        let rule = |attribute, canonical: &str| SubjectRule {
            attribute,
            value: match attribute {
                SubjectAttribute::TlsClientAuthSubjectDn => names.subject_text().to_owned(),
                _ => canonical.to_owned(),
            },
            canonical: canonical.to_owned(),
        };
        [
            SubjectAttribute::TlsClientAuthSanUri,
            SubjectAttribute::TlsClientAuthSanDns,
            SubjectAttribute::TlsClientAuthSanIp,
            SubjectAttribute::TlsClientAuthSanEmail,
            SubjectAttribute::TlsClientAuthSubjectDn,
        ]
        .into_iter()
        .flat_map(|attribute| names.of(attribute).map(move |canonical| rule(attribute, canonical)))
        .collect()
    }

    /// What the registry keeps of it when an operator enrols it. The issuer's key and the anchor are learnt when it is seen.
    pub fn for_enrolment(&self) -> CertificateFacts {
        CertificateFacts {
            thumbprint: self.thumbprint,
            key_hash: self.key_hash,
            issuer_key: None,
            serial: self.serial.clone(),
            subject: self.subject_text().to_owned(),
            subject_alt_names: self.subject_alt_names_text().to_vec(),
            not_before: self.not_before,
            not_after: self.not_after,
            anchor: None,
        }
    }

    /// Everything about it alone that keeps a certificate from leading to an anchor at `now`, whoever issued it.
    pub fn defects(&self, now: UnixTime) -> Vec<PeerRefusal> {
        chain::defects(self).chain(chain::check_dates(self, now).err()).collect()
    }

    /// What its extended key usage says, for people.
    pub const fn purposes_text(&self) -> &'static str {
        match self.purposes {
            Purposes::Unstated => "not stated (no extended key usage)",
            Purposes::ClientAuth => "clientAuth",
            Purposes::Others => "others than clientAuth",
        }
    }

    pub(super) const fn authority(&self) -> Authority {
        self.authority
    }

    pub(super) const fn key_usage(&self) -> Option<KeyUsage> {
        self.key_usage
    }

    pub(super) const fn purposes(&self) -> Purposes {
        self.purposes
    }

    pub(super) const fn name_constraints(&self) -> NameConstraints {
        self.name_constraints
    }

    /// How many subtrees its name constraints have.
    pub(super) const fn name_constraint_count(&self) -> usize {
        self.name_constraint_count
    }

    /// How many alternative names it has, whatever they are.
    pub(super) const fn alt_name_count(&self) -> usize {
        self.alt_name_count
    }

    /// RFC 5280 §4.2.1.2: what its key calls itself.
    pub(super) fn subject_key_id(&self) -> Option<&[u8]> {
        self.subject_key_id.as_deref()
    }

    /// RFC 5280 §4.2.1.1: what the key is called that signed it.
    pub(super) fn authority_key_id(&self) -> Option<&[u8]> {
        self.authority_key_id.as_deref()
    }

    pub(super) const fn has_unknown_critical_extension(&self) -> bool {
        self.critical_extension_unknown
    }

    /// The SPIFFE ID it carries, whoever issued it.
    pub(super) const fn spiffe_id(&self) -> &CarriedId {
        &self.spiffe_id
    }

    pub(super) const fn key_usage_is_critical(&self) -> bool {
        self.key_usage_is_critical
    }

    pub(super) const fn alt_names_are_critical(&self) -> bool {
        self.alt_names_are_critical
    }

    /// Whether its extended key usage leaves serverAuth to it.
    pub(super) const fn may_serve(&self) -> bool {
        self.may_serve
    }

    pub(super) const fn is_version_3(&self) -> bool {
        self.version_3
    }

    pub(super) const fn issuer_is_empty(&self) -> bool {
        self.issuer_is_empty
    }

    /// RFC 5280 §3.2: issuer and subject are the same name.
    pub(super) const fn is_self_issued(&self) -> bool {
        self.self_issued
    }

    pub(super) fn subject_der(&self) -> &[u8] {
        &self.subject
    }

    pub(super) fn spki_der(&self) -> &[u8] {
        &self.spki
    }

    /// RFC 5280 §4.1.2.2: whether its serial number is positive and of 20 octets at most, as DER writes it.
    pub(super) const fn serial_is_positive(&self) -> bool {
        self.serial_is_positive
    }

    pub(super) const fn serial_number(&self) -> Option<Serial> {
        self.serial_number
    }

    /// The URIs of its CRL distribution points: foreign text.
    pub(super) fn crl_points(&self) -> &[String] {
        &self.crl_points
    }

    /// Where it says that its status can be asked for: foreign text.
    pub(super) fn responder_urls(&self) -> &[String] {
        &self.responder_urls
    }

    pub(super) const fn status_signing(&self) -> StatusSigning {
        self.status_signing
    }
}

/// Whether `x509-parser`, which passes over what it cannot read at the end of a SEQUENCE, has seen all of the
/// to-be-signed part: its last field ends where that part ends.
fn covers(to_be_signed: &[u8], certificate: &X509Certificate<'_>) -> bool {
    let mut rest = to_be_signed;
    let mut last = None;
    while !rest.is_empty() {
        match der::take(&mut rest) {
            Ok(element) => last = Some(element),
            Err(der::NotDer) => return false,
        }
    }
    match last {
        // [3] EXPLICIT Extensions: one SEQUENCE of as many extensions as were read.
        Some(der::Element { tag: 0xA3, contents }) => {
            let Ok(mut list) = der::whole(contents, der::SEQUENCE) else { return false };
            let mut count = 0;
            while !list.is_empty() {
                if der::expect(&mut list, der::SEQUENCE).is_err() {
                    return false;
                }
                count += 1;
            }
            count == certificate.extensions().len()
        }
        Some(_) => certificate.extensions().is_empty(),
        None => false,
    }
}

/// Whether these are the contents of a positive INTEGER of at most 20 octets, in the fewest (X.690 §8.3.2).
const fn is_positive(contents: &[u8]) -> bool {
    match contents {
        [] | [0] | [0, 0..=0x7F, ..] | [0x80..=0xFF, ..] => false,
        [0, value @ ..] | value => value.len() <= 20,
    }
}

#[cfg(test)]
mod tests {
    use countersign_conformance::pki::{AltName, Authority, Name, Template};
    use countersign_conformance::{KeyKind, der as made};
    use proptest::prelude::*;

    use super::{Authority as ReadAuthority, *};

    const NOW: i64 = 1_800_000_000;

    fn certificate() -> Vec<u8> {
        let template = Template::client(Name::of(&[("C", "DE"), ("O", "Partner A"), ("CN", "Client")]), NOW)
            .with_alt_names([
                AltName::Dns("Client.a.example".to_owned()),
                AltName::Uri("spiffe://a.example/c".to_owned()),
            ]);
        Authority::root("Root", NOW).issue(&template, KeyKind::P256).certificate().to_vec()
    }

    #[test]
    fn what_a_certificate_says() {
        let parsed = ParsedCertificate::read(&certificate()).unwrap();
        assert_eq!(parsed.subject_text(), "CN=Client,O=Partner A,C=DE");
        assert_eq!(parsed.issuer_text(), "CN=Root");
        assert_eq!(parsed.subject_alt_names_text(), ["DNS:Client.a.example", "URI:spiffe://a.example/c"]);
        assert_eq!(parsed.purposes(), Purposes::ClientAuth);
        assert_eq!(
            parsed.key_usage(),
            Some(KeyUsage { digital_signature: true, key_cert_sign: false, crl_sign: false })
        );
        assert_eq!(parsed.authority(), ReadAuthority::None);
        let proposed = parsed.proposed_rules();
        let canonical: Vec<_> =
            proposed.iter().map(|rule| (rule.attribute.as_str(), rule.canonical.as_str())).collect();
        assert_eq!(
            canonical,
            [
                ("tls_client_auth_san_uri", "spiffe://a.example/c"),
                ("tls_client_auth_san_dns", "client.a.example"),
                ("tls_client_auth_subject_dn", "cn=client,o=partner a,c=de"),
            ]
        );
        for rule in &proposed {
            let again = super::super::identity::subject_rule(rule.attribute, &rule.value).unwrap();
            assert_eq!(again.canonical, rule.canonical);
        }
    }

    #[test]
    fn pem_and_der_and_neither() {
        let der = certificate();
        let pem = countersign_conformance::key::pem("CERTIFICATE", &der);
        assert_eq!(certificates_from(&der).unwrap()[0].as_ref(), &der[..]);
        assert_eq!(certificates_from(format!("text\n{pem}{pem}").as_bytes()).unwrap().len(), 2);
        for wrong in [&b""[..], b"text", &der[..der.len() - 1]] {
            assert_eq!(certificates_from(wrong), Err(MalformedCertificate));
        }
    }

    #[test]
    fn octets_after_or_missing_anywhere_in_the_frame() {
        let der = certificate();
        let mut trailing = der.clone();
        trailing.push(0);
        assert!(ParsedCertificate::read(&trailing).is_err());
        let (_, outer, _) = made::split(&der).unwrap();
        // A fourth element.
        let fourth = made::tlv(0x30, [outer, &[0x05, 0x00]].concat());
        assert!(ParsedCertificate::read(&fourth).is_err());
        // Something after the extensions, and something in the extensions that is none.
        let (_, content, rest) = made::split(outer).unwrap();
        let after = made::tlv(0x30, [&made::tlv(0x30, [content, &[0x05, 0x00]].concat()), rest].concat());
        assert!(ParsedCertificate::read(&after).is_err());
        for length in 0..der.len() {
            assert!(ParsedCertificate::read(&der[..length]).is_err());
        }
    }

    #[test]
    fn what_it_says_of_ocsp() {
        use countersign_conformance::pki::Extension;
        use countersign_conformance::{ocsp, pki::purpose};
        let read = |change: &dyn Fn(&mut Template)| {
            let mut template = Template::client(Name::common("client"), NOW);
            change(&mut template);
            let parsed =
                ParsedCertificate::read(Authority::root("Root", NOW).issue(&template, KeyKind::P256).certificate());
            parsed.unwrap()
        };
        let plain = read(&|_| {});
        assert_eq!((plain.responder_urls().len(), plain.status_signing()), (0, StatusSigning::default()));
        let aia = ocsp::responders(&["http://a.example/", "http://b.example/"]);
        let named = read(&|template| template.extensions.push(aia.clone()));
        assert_eq!(named.responder_urls(), ["http://a.example/", "http://b.example/"]);
        // Never critical (RFC 5280 §4.2.2.1); and one that cannot be read names nobody.
        let critical = read(&|template| template.extensions.push(Extension { critical: true, ..aia.clone() }));
        assert!(critical.has_unknown_critical_extension() && critical.responder_urls().is_empty());
        let broken = read(&|template| template.extensions.push(Extension { value: vec![0x30, 1], ..aia.clone() }));
        assert!(!broken.has_unknown_critical_extension() && broken.responder_urls().is_empty());
        let delegate = read(&|template| *template = ocsp::delegate("Status", NOW));
        assert_eq!(delegate.status_signing(), StatusSigning { delegated: true, unchecked: true });
        assert_eq!(delegate.purposes(), Purposes::Others, "signing status is not authenticating");
        let both =
            read(&|template| template.purposes = vec![ocsp::OCSP_SIGNING.to_vec(), purpose::CLIENT_AUTH.to_vec()]);
        assert_eq!((both.status_signing().delegated, both.purposes()), (true, Purposes::ClientAuth));
    }

    proptest! {
        #[test]
        fn a_bent_octet_never_panics(place in 0_usize..400, octet in any::<u8>()) {
            let mut der = CERTIFICATE.with(Clone::clone);
            let place = place % der.len();
            der[place] = octet;
            if let Ok(parsed) = ParsedCertificate::read(&der) {
                let _ = parsed.names();
                let _ = parsed.proposed_rules();
            }
        }

        #[test]
        fn foreign_octets_never_panic(octets in proptest::collection::vec(any::<u8>(), 0..200)) {
            prop_assert!(ParsedCertificate::read(&octets).is_err());
        }
    }

    thread_local! {
        static CERTIFICATE: Vec<u8> = certificate();
    }
}
