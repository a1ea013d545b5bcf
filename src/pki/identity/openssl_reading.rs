//! OpenSSL's own reading of the same names: what it prints is what an operator registers, what it finds equal is what others
//! find equal. Where the two differ, the difference is pinned with its reason.

use std::cell::Cell;
use std::io::Write;
use std::process::{Command, Stdio};

use countersign_conformance::KeyKind;
use countersign_conformance::pki::{AltName, Attribute, Credential, Name, Template};
use openssl::asn1::Asn1Type;
use openssl::nid::Nid;
use openssl::x509::{X509, X509Name, X509NameRef};
use proptest::prelude::*;
use proptest::test_runner::{Config, TestRunner};

use super::{Names, der, dns_name, email_address, ip_octets, subject_rule, uri};
use crate::pki::ParsedCertificate;
use crate::pki::scene::NOW;
use crate::registry::client::SubjectAttribute;

const TELETEX: u8 = 0x14;
const UNIVERSAL: u8 = 0x1C;
const BMP: u8 = 0x1E;
const VISIBLE: u8 = 0x1A;

/// Attributes of DirectoryString syntax, by number and as OpenSSL knows them.
const DIRECTORY: &[(&[u64], Nid)] = &[
    (&[2, 5, 4, 3], Nid::COMMONNAME),
    (&[2, 5, 4, 4], Nid::SURNAME),
    (&[2, 5, 4, 5], Nid::SERIALNUMBER),
    (&[2, 5, 4, 6], Nid::COUNTRYNAME),
    (&[2, 5, 4, 7], Nid::LOCALITYNAME),
    (&[2, 5, 4, 8], Nid::STATEORPROVINCENAME),
    (&[2, 5, 4, 9], Nid::STREETADDRESS),
    (&[2, 5, 4, 10], Nid::ORGANIZATIONNAME),
    (&[2, 5, 4, 11], Nid::ORGANIZATIONALUNITNAME),
    (&[2, 5, 4, 12], Nid::TITLE),
    (&[2, 5, 4, 13], Nid::DESCRIPTION),
    (&[2, 5, 4, 15], Nid::BUSINESSCATEGORY),
    (&[2, 5, 4, 17], Nid::POSTALCODE),
    (&[2, 5, 4, 42], Nid::GIVENNAME),
    (&[2, 5, 4, 43], Nid::INITIALS),
    (&[2, 5, 4, 44], Nid::GENERATIONQUALIFIER),
    (&[2, 5, 4, 46], Nid::DNQUALIFIER),
    (&[0, 9, 2342, 19_200_300, 100, 1, 1], Nid::USERID),
];

/// Attributes in IA5String.
const IA5: &[(&[u64], Nid)] = &[
    (&[0, 9, 2342, 19_200_300, 100, 1, 25], Nid::DOMAINCOMPONENT),
    (&[1, 2, 840, 113_549, 1, 9, 1], Nid::PKCS9_EMAILADDRESS),
];

/// Of no meaning to anyone: printed by number, with the value's encoding.
const UNKNOWN: &[u64] = &[1, 2, 3, 4, 5];

fn attribute(oid: &[u64], tag: u8, value: impl Into<Vec<u8>>) -> Attribute {
    Attribute { oid: oid.to_vec(), tag, value: value.into() }
}

/// Attributes in the two string types that are compared by meaning, each with the characters it may have.
fn comparable_attribute() -> impl Strategy<Value = Attribute> {
    let directory = (0..DIRECTORY.len()).prop_map(|place| DIRECTORY[place].0);
    let ia5 = (0..IA5.len()).prop_map(|place| IA5[place].0);
    prop_oneof![
        4 => (directory.clone(), "[ -~]{1,16}").prop_map(|(oid, text)| attribute(oid, der::UTF8_STRING, text)),
        4 => (directory.clone(), "[ -~À-ÿŁłĐđΑ-Ωα-ωА-я中文]{1,12}")
            .prop_map(|(oid, text)| attribute(oid, der::UTF8_STRING, text)),
        4 => (directory, "[A-Za-z0-9 '()+,./:=?-]{1,16}").prop_map(|(oid, text)| attribute(oid, der::PRINTABLE_STRING, text)),
        2 => (ia5, "[ -~]{1,16}").prop_map(|(oid, text)| attribute(oid, der::IA5_STRING, text)),
        1 => "[ -~é]{1,12}".prop_map(|text| attribute(UNKNOWN, der::UTF8_STRING, text)),
    ]
}

fn name_of(attributes: impl Strategy<Value = Attribute>) -> impl Strategy<Value = Name> {
    proptest::collection::vec(proptest::collection::vec(attributes, 1..=2), 1..=4).prop_map(Name)
}

/// A self-signed certificate for this name: its DER.
fn certificate(subject: &Name) -> Vec<u8> {
    thread_local! {
        static KEY: Credential = Credential::self_signed(&Template::client(Name::common("key"), NOW), KeyKind::Ed25519);
    }
    let authority =
        KEY.with(|key| countersign_conformance::pki::Authority::pretended(Name::common("issuer"), key, NOW));
    authority.sign(&Template::client(subject.clone(), NOW), &authority.key.spki())
}

/// The subject as `openssl x509 -subject -nameopt RFC2253` prints it; none where there is no such program.
fn printed(certificate: &[u8]) -> Option<String> {
    let mut child = Command::new("openssl")
        .args(["x509", "-inform", "DER", "-noout", "-subject", "-nameopt", "RFC2253"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .ok()?;
    child.stdin.take().unwrap().write_all(certificate).unwrap();
    let output = child.wait_with_output().unwrap();
    assert!(output.status.success());
    let line = String::from_utf8(output.stdout).unwrap();
    Some(line.strip_prefix("subject=").unwrap().trim_end_matches('\n').to_owned())
}

/// What the rule of `text` says of this subject; none if it is no rule.
fn matched(text: &str, subject: &[u8]) -> Option<bool> {
    let rule = subject_rule(SubjectAttribute::TlsClientAuthSubjectDn, text).ok()?;
    Some(Names::read(subject, None).unwrap().match_rule(&rule))
}

/// `text` with one letter or digit of a value changed to another: one before which the value has no escape, so that neither
/// a type nor an escape nor an encoding is changed.
fn with_one_letter_changed(text: &str, chance: usize) -> Option<String> {
    let octets = text.as_bytes();
    let in_value = |at: usize| {
        let equals = octets[..at].iter().rposition(|octet| *octet == b'=');
        equals.is_some_and(|equals| !octets[equals..at].iter().any(|octet| b",+\\#".contains(octet)))
    };
    let places: Vec<_> = (0..octets.len()).filter(|at| octets[*at].is_ascii_alphanumeric() && in_value(*at)).collect();
    let at = *places.get(chance % places.len().max(1))?;
    let other = if octets[at].eq_ignore_ascii_case(&b'q') { 'z' } else { 'q' };
    Some(format!("{}{other}{}", &text[..at], &text[at + 1..]))
}

#[test]
fn what_openssl_prints_matches_and_one_letter_more_does_not() {
    if Command::new("openssl").arg("version").output().is_err() {
        println!("skipped: there is no `openssl` to ask");
        return;
    }
    let mut runner = TestRunner::new(Config { cases: 120, failure_persistence: None, ..Config::default() });
    let (asked, refused, changed) = (Cell::new(0), Cell::new(0), Cell::new(0));
    runner
        .run(&(name_of(comparable_attribute()), any::<usize>()), |(name, chance)| {
            let subject = name.to_der();
            let Ok(names) = Names::read(&subject, None) else {
                refused.set(refused.get() + 1); // one attribute twice in a set
                return Ok(());
            };
            let text = printed(&certificate(&name)).unwrap();
            if name.0.iter().flatten().any(|attribute| attribute.oid != UNKNOWN && attribute.value == b"#") {
                // OpenSSL escapes a `#` that is a value's first character, but not one that is its last as well; RFC 4514
                // §2.4 wants it escaped, and `#` alone is an encoding of no octets, which nobody takes.
                prop_assert_eq!(matched(&text, &subject), None);
                return Ok(());
            }
            prop_assert_eq!(matched(&text, &subject), Some(true), "{} of {:?}", text, names);
            asked.set(asked.get() + 1);
            if let Some(other) = with_one_letter_changed(&text, chance) {
                prop_assert_ne!(matched(&other, &subject), Some(true), "{} is not {}", other, text);
                changed.set(changed.get() + 1);
            }
            Ok(())
        })
        .unwrap();
    let (asked, refused, changed) = (asked.get(), refused.get(), changed.get());
    assert!(asked > 100 && changed > 60 && refused < 20, "{asked} asked, {changed} changed, {refused} refused");
}

fn openssl_name(encoded: &[u8]) -> X509Name {
    // Taken out of a certificate: the crate reads no Name by itself.
    let name = X509Name::from_der(encoded).unwrap();
    assert_eq!(name.to_der().unwrap(), encoded);
    name
}

fn equal_to_openssl(one: &X509NameRef, other: &X509NameRef) -> bool {
    one.try_cmp(other).unwrap().is_eq()
}

fn equal_here(one: &[u8], other: &[u8]) -> bool {
    let canonical = |encoded| Names::read(encoded, None).unwrap().subject;
    canonical(one) == canonical(other)
}

/// Changes `name` in a way that may or may not make another name of it.
fn varied(mut name: Name, how: usize, place: usize) -> Name {
    let rdn = place % name.0.len();
    let attribute = (place / 7) % name.0[rdn].len();
    let rdns = name.0.len();
    let bent = &mut name.0[rdn][attribute];
    match how {
        0 => bent.value.make_ascii_uppercase(),
        1 => bent.value.make_ascii_lowercase(),
        2 => bent.value = [b"  ", &bent.value[..], b" "].concat(),
        3 => {
            bent.value =
                bent.value.iter().flat_map(|octet| if *octet == b' ' { b"  ".to_vec() } else { vec![*octet] }).collect()
        }
        4 => bent.tag = if bent.tag == der::UTF8_STRING { der::PRINTABLE_STRING } else { der::UTF8_STRING },
        5 => bent.value.push(b'x'),
        6 => bent.oid = DIRECTORY[place % DIRECTORY.len()].0.to_vec(),
        7 => name.0.reverse(),
        8 => name.0.swap(0, rdns - 1),
        9 => name.0[rdn].reverse(),
        10 => {
            let moved = name.0.remove(rdn);
            name.0.push(moved);
        }
        _ => drop(name.0.remove(rdn)),
    }
    name
}

proptest! {
    #![proptest_config(Config { failure_persistence: None, ..Config::with_cases(512) })]

    /// In ASCII, and in the two string types that are compared by meaning, there is no difference.
    #[test]
    fn what_is_equal_to_openssl_is_equal_here(
        name in name_of((0..DIRECTORY.len(), "[ -~]{1,10}", any::<bool>()).prop_map(|(place, text, printable)| {
            attribute(DIRECTORY[place].0, if printable { der::PRINTABLE_STRING } else { der::UTF8_STRING }, text)
        })),
        how in 0_usize..12,
        place in any::<usize>(),
    ) {
        let (one, other) = (name.to_der(), varied(name, how, place).to_der());
        let (Ok(_), Ok(_)) = (Names::read(&one, None), Names::read(&other, None)) else { return Ok(()) };
        let theirs = equal_to_openssl(&openssl_name(&one), &openssl_name(&other));
        prop_assert_eq!(equal_here(&one, &other), theirs);
    }

    /// Names that OpenSSL built itself are read as it prints them, attribute by attribute.
    #[test]
    fn names_that_openssl_built(
        attributes in proptest::collection::vec((0..DIRECTORY.len(), "[!-~é中]{1,12}"), 1..6),
    ) {
        let mut builder = X509Name::builder().unwrap();
        for (place, text) in &attributes {
            builder.append_entry_by_nid_with_type(DIRECTORY[*place].1, text, Asn1Type::UTF8STRING).unwrap();
        }
        let built = builder.build();
        let made = Name(attributes.iter().map(|(place, text)| vec![attribute(DIRECTORY[*place].0, der::UTF8_STRING, text.clone())]).collect());
        let encoded = built.to_der().unwrap();
        prop_assert_eq!(&encoded, &made.to_der());
        let names = Names::read(&encoded, None).unwrap();
        prop_assert_eq!(matched(names.subject_text(), &encoded), Some(true));
        for (entry, (_, text)) in built.entries().zip(&attributes) {
            prop_assert_eq!(entry.data().to_string().unwrap(), &**text);
        }
    }

    /// Alternative names: the same list, in the same order, each with the value OpenSSL finds.
    #[test]
    fn alternative_names_as_openssl_reads_them(
        names in proptest::collection::vec(
            prop_oneof![
                "[a-zA-Z0-9.*_-]{1,20}".prop_map(AltName::Dns),
                "[a-z]{2,5}://[a-zA-Z.]{1,10}/[!-~]{0,10}".prop_map(AltName::Uri),
                "[!-~]{1,8}@[a-zA-Z.]{1,10}".prop_map(AltName::Email),
                any::<[u8; 4]>().prop_map(|octets| AltName::Ip(octets.into())),
                any::<[u8; 16]>().prop_map(|octets| AltName::Ip(octets.into())),
                "[a-z]{1,8}".prop_map(|text| AltName::Directory(Name::common(&text))),
            ],
            1..8,
        ),
    ) {
        let template = Template::client(Name::common("client"), NOW).with_alt_names(names);
        let made = Credential::self_signed(&template, KeyKind::Ed25519);
        let ours = ParsedCertificate::read(made.certificate()).unwrap();
        let theirs = X509::from_der(made.certificate()).unwrap().subject_alt_names().unwrap();
        let (mut texts, mut dns, mut uris, mut emails, mut ips) = (vec![], vec![], vec![], vec![], vec![]);
        for name in &theirs {
            if let Some(name) = name.dnsname() {
                texts.push(format!("DNS:{name}"));
                dns.extend(dns_name(name));
            } else if let Some(name) = name.uri() {
                texts.push(format!("URI:{name}"));
                uris.extend(uri(name));
            } else if let Some(name) = name.email() {
                texts.push(format!("email:{name}"));
                emails.extend(email_address(name));
            } else if let Some(octets) = name.ipaddress() {
                texts.push(format!("IP:{}", ip_octets(octets).unwrap()));
                ips.extend(ip_octets(octets));
            } else {
                texts.push("directoryName".to_owned());
            }
        }
        let of = |attribute| ours.names().unwrap().of(attribute).map(str::to_owned).collect::<Vec<_>>();
        prop_assert_eq!(ours.subject_alt_names_text(), texts);
        prop_assert_eq!(of(SubjectAttribute::TlsClientAuthSanDns), dns);
        prop_assert_eq!(of(SubjectAttribute::TlsClientAuthSanUri), uris);
        prop_assert_eq!(of(SubjectAttribute::TlsClientAuthSanEmail), emails);
        prop_assert_eq!(of(SubjectAttribute::TlsClientAuthSanIp), ips);
    }
}

/// Two names of one attribute each, whether they are equal here, whether OpenSSL finds them equal, and why not the same.
type Difference = ((u8, &'static [u8]), (u8, &'static [u8]), bool, bool, &'static str);

#[test]
fn where_openssl_decides_otherwise() {
    const UTF8: u8 = der::UTF8_STRING;
    let differences: &[Difference] = &[
        ((UTF8, b"client"), (BMP, b"\0c\0l\0i\0e\0n\0t"), false, true, OTHER_TYPES),
        ((UTF8, b"client"), (TELETEX, b"client"), false, true, OTHER_TYPES),
        ((UTF8, b"client"), (UNIVERSAL, b"\0\0\0c\0\0\0l\0\0\0i\0\0\0e\0\0\0n\0\0\0t"), false, true, OTHER_TYPES),
        ((UTF8, b"client"), (der::IA5_STRING, b"client"), false, true, OTHER_TYPES),
        ((der::IA5_STRING, b"client"), (der::IA5_STRING, b"Client"), false, true, OTHER_TYPES),
        ((UTF8, "é".as_bytes()), (UTF8, "É".as_bytes()), true, false, FOLDED),
        ((UTF8, "straße".as_bytes()), (UTF8, b"strasse"), true, false, FOLDED),
        ((UTF8, "é".as_bytes()), (UTF8, "e\u{301}".as_bytes()), true, false, NORMALISED),
        ((UTF8, "\u{212B}".as_bytes()), (UTF8, "å".as_bytes()), true, false, NORMALISED),
        ((UTF8, "ｃｌｉｅｎｔ".as_bytes()), (UTF8, b"client"), true, false, NORMALISED),
        ((UTF8, "a\u{A0}b".as_bytes()), (UTF8, b"a b"), true, false, SPACES),
        ((UTF8, "a\u{3000}b".as_bytes()), (UTF8, b"a b"), true, false, SPACES),
    ];
    for ((one_tag, one), (other_tag, other), here, there, why) in differences {
        let name = |tag: u8, value: &[u8]| Name(vec![vec![attribute(&[2, 5, 4, 3], tag, value)]]).to_der();
        let (one, other) = (name(*one_tag, one), name(*other_tag, other));
        assert_eq!(equal_here(&one, &other), *here, "{why}: {}", hex::encode(&other));
        let theirs = equal_to_openssl(&openssl_name(&one), &openssl_name(&other));
        assert_eq!(theirs, *there, "{why}: {}", hex::encode(&other));
    }
    // Of a name with a VisibleString it reads nothing; here it is one of the other types.
    let visible = Name(vec![vec![attribute(&[2, 5, 4, 3], VISIBLE, "client")]]).to_der();
    assert!(X509Name::from_der(&visible).is_err());
    assert!(Names::read(&visible, None).is_ok() && !equal_here(&visible, &Name::common("client").to_der()));
    // By the attribute, not by the string type.
    let (label, mailbox) = (IA5[0].0, IA5[1].0);
    for (oid, one, other, here, there) in [
        (label, "example", "EXAMPLE", true, true),                // RFC 5280 §7.3
        (label, "a b", "a  b", false, true),                      // spaces are no part of §7.3
        (mailbox, "ops@a.example", "OPS@a.example", false, true), // RFC 5280 §8: here by octets
    ] {
        let name = |value: &str| Name(vec![vec![attribute(oid, der::IA5_STRING, value)]]).to_der();
        let (one, other) = (name(one), name(other));
        assert_eq!(equal_here(&one, &other), here, "{}", hex::encode(&one));
        assert_eq!(equal_to_openssl(&openssl_name(&one), &openssl_name(&other)), there, "{}", hex::encode(&one));
    }
}

const OTHER_TYPES: &str =
    "RFC 5280 §7.1 leaves other string types open: OpenSSL folds them all, here only octets count";
const FOLDED: &str = "RFC 5280 §7.1 folds case by RFC 3454 B.2: OpenSSL folds ASCII";
const NORMALISED: &str = "RFC 4518 §2.3 normalises: OpenSSL does not";
const SPACES: &str = "RFC 4518 §2.2 maps every separator to a space: OpenSSL knows ASCII's";

/// Names that OpenSSL prints and that are refused or matched otherwise when registered from its text.
#[test]
fn where_what_openssl_prints_is_not_the_name() {
    // It prints other string types as if they were UTF-8: the text does not say which type it was.
    for tag in [TELETEX, der::IA5_STRING] {
        let subject = Name(vec![vec![attribute(&[2, 5, 4, 3], tag, "client")]]);
        let Some(text) = printed(&certificate(&subject)) else { return };
        assert!(matches!(matched(&text, &subject.to_der()), Some(false)), "{text}");
    }
    // A domain component that is no IA5String.
    let subject = Name(vec![vec![attribute(IA5[0].0, der::UTF8_STRING, "example")]]);
    assert_eq!(printed(&certificate(&subject)).as_deref(), Some("DC=example"));
    assert_eq!(matched("DC=example", &subject.to_der()), Some(false));
    // A type OpenSSL has a name for, and RFC 4514 none.
    let subject = Name(vec![vec![attribute(&[1, 2, 840, 113_549, 1, 9, 2], der::UTF8_STRING, "client")]]);
    assert_eq!(printed(&certificate(&subject)).as_deref(), Some("unstructuredName=client"));
    assert_eq!(matched("unstructuredName=client", &subject.to_der()), None);
}
