//! What names are, held against encodings made by hand and against properties.

use countersign_conformance::pki::{AltName, Attribute as Made, Name as MadeName};
use proptest::prelude::*;

use super::distinguished_name::{ATTRIBUTE_TYPES, Attribute, Name, Syntax, Value, parse_name, prepare};
use super::*;

fn dn(text: &str) -> String {
    distinguished_name(text).unwrap()
}

fn subject(name: &MadeName) -> Result<Names, MalformedName> {
    Names::read(&name.to_der(), None)
}

fn canonical(name: &MadeName) -> String {
    subject(name).unwrap().subject.unwrap()
}

fn with_alt_names(names: &[AltName]) -> Result<Names, MalformedName> {
    // The extension's contents as the factory writes them, taken out of a certificate.
    let template = countersign_conformance::pki::Template::client(MadeName::common("client"), 0)
        .with_alt_names(names.iter().cloned());
    let made = countersign_conformance::pki::Credential::self_signed(&template, countersign_conformance::KeyKind::P256);
    crate::pki::ParsedCertificate::read(made.certificate()).unwrap().names().cloned()
}

#[test]
fn text_and_encoding_of_one_name_are_one() {
    let name = MadeName::of(&[("C", "DE"), ("O", "Example, Inc."), ("OU", "#1 \"A+B\" <x>;\\="), ("CN", "client 7")]);
    let text = r#"CN=client 7,OU=\#1 \"A\+B\" \<x\>\;\\=,O=Example\, Inc.,C=DE"#;
    assert_eq!(canonical(&name), dn(text));
    assert_eq!(dn(text), r"cn=client 7,ou=\231 \22a\2bb\22 \3cx\3e\3b\5c\3d,o=example\2c inc.,c=de");
    // The examples of RFC 4514 §4 that name known types.
    for (text, expected) in [
        ("UID=jsmith,DC=example,DC=net", "uid=jsmith,dc=example,dc=net"),
        ("OU=Sales+CN=J.  Smith,DC=example,DC=net", "cn=j. smith+ou=sales,dc=example,dc=net"),
        (r#"CN=James \"Jim\" Smith\, III,DC=example,DC=net"#, r"cn=james \22jim\22 smith\2c iii,dc=example,dc=net"),
        (r"CN=Lu\C4\8Di\C4\87", "cn=lučić"),
        ("1.3.6.1.4.1.1466.0=#04024869", "1.3.6.1.4.1.1466.0=#04024869"),
    ] {
        assert_eq!(dn(text), expected);
    }
    // Younger than Unicode 3.2, and FAX in capital letters for a younger NFKC. Found by fuzzing.
    assert!(distinguished_name("CN=cli\u{213B}nt").is_err());
    // RFC 4514 §4: "Before\0dAfter" has a control character, which is nobody's name here.
    assert!(distinguished_name(r"CN=Before\0dAfter,DC=example,DC=net").is_err());
}

#[test]
fn what_matches() {
    let same = |one: &str, other: &str| assert_eq!(dn(one), dn(other), "{one} and {other}");
    same("CN=Client", "cn=cLIENT"); // case
    same("CN=a  b", "CN=a b"); // spaces in a row
    same(r"CN=\ a\ ", "CN=a"); // spaces at the ends
    same("O=x+OU=y", "OU=y+O=x"); // one RDN is a set
    same("2.5.4.3=#0c0161", "CN=a"); // dotted type and encoded value
    same("CN=#130161", "CN=a"); // PrintableString and UTF8String
    same("CN=STRASSE", "CN=straße"); // case folding by RFC 3454 B.2
    same("CN=\u{212B}", "CN=\u{E5}"); // Angstrom sign, a with ring: NFKC
    same("CN=e\u{301}", "CN=\u{E9}"); // combining and composed
    same("CN=a\u{A0}b", "CN=a b"); // any separator is a space
    same("DC=Example", "dc=EXAMPLE"); // domain components have no case (RFC 5280 §7.3)
}

#[test]
fn what_does_not_match() {
    let names = [
        "CN=client",
        "O=client",
        "CN=client,O=client",
        "O=client,CN=client", // order
        "CN=client+O=client", // one RDN or two
        "CN=client,O=client,C=DE",
        "CN=cliemt",
        r"CN=client\,O\=client",
        "CN=#1606636c69656e74",             // IA5String
        "CN=#1406636c69656e74",             // TeletexString
        "CN=#1e0c0063006c00690065006e0074", // BMPString
        "CN=#1206636c69656e74",             // NumericString, of all things
        "DC=client",
        "DC=#0c06636c69656e74",
        "emailAddress=client@a.example",
        "emailAddress=client@A.example", // IA5String: identical octets
        "CN=a\u{B4}",
        "CN=a \u{B4}", // a space that carries an accent is none that could be left out (RFC 4518 §2.6.1)
        "CN=\u{B4}a",
        "CN=\u{301}a",
        "1.2.3.4=#0c06636c69656e74",
        "1.2.3.5=#0c06636c69656e74",
    ];
    for (index, one) in names.iter().enumerate() {
        for other in &names[index + 1..] {
            assert_ne!(dn(one), dn(other), "{one} and {other}");
        }
    }
}

#[test]
fn what_is_not_rfc_4514() {
    for wrong in [
        "",
        "client",
        "CN = client",
        "CN=client, O=x",
        "CN=client ,O=x",
        " CN=client",
        "/CN=client/O=x",
        "CN=client;O=x",
        "CN=\"client\"",
        "CN=client,",
        ",CN=client",
        "CN=client+",
        "CN=a\\",
        "CN=a\\g0",
        "CN=a\\0",
        "CN=a<b",
        "CN=#",
        "CN=#0",
        "CN=#0c0161ff",
        "CN=#0c810161",
        "CN=#0c01ff",
        "OID.2.5.4.3=x",
        "2.5.4.03=#0c0161",
        "2.50.1=#0c0161x",
        "1.40.1=#0c0161",
        "3.1.1=#0c0161",
        "1=#0c0161",
        "1.2.3=text",
        "unknown=x",
        "CN=\0",
        r"CN=\00",
        "CN=a\u{200B}b",
        "CN=a\u{202E}b",
        "CN=a\u{AD}b",
        "CN=a\u{E000}",
        "CN=\u{FFFD}",
        "CN=a+CN=A",
        r"CN=\ff",
    ] {
        assert!(distinguished_name(wrong).is_err(), "{wrong:?}");
    }
}

#[test]
fn names_in_certificates_that_two_readers_could_read_differently() {
    let bent = |tag, value: &[u8]| {
        let mut attribute = Made::new("CN", "").tagged(tag);
        attribute.value = value.to_vec();
        subject(&MadeName(vec![vec![attribute]]))
    };
    assert!(bent(der::UTF8_STRING, b"client\0evil").is_err());
    assert!(bent(der::UTF8_STRING, b"client\xff").is_err());
    assert!(bent(der::PRINTABLE_STRING, b"client\0").is_err());
    assert!(bent(der::PRINTABLE_STRING, "clienté".as_bytes()).is_err());
    assert!(bent(der::IA5_STRING, b"client\0").is_err());
    assert!(bent(der::IA5_STRING, b"client\x80").is_err());
    assert!(bent(der::UTF8_STRING, b"client").is_ok());
    assert!(subject(&MadeName(vec![vec![]])).is_err());
    let twice = MadeName(vec![vec![Made::new("CN", "a"), Made::new("CN", "A")]]);
    assert!(subject(&twice).is_err());
    // A Name with something after its last RDN that is not one.
    let mut trailing = MadeName::common("client").to_der();
    trailing[1] += 1;
    trailing.push(0);
    assert!(Names::read(&trailing, None).is_err());
}

#[test]
fn a_name_that_grows_beyond_measure() {
    let grows = "\u{FDFA}".repeat(300); // 900 octets as stored, ten thousand when prepared
    assert!(subject(&MadeName::of(&[("CN", &grows)])).is_err());
    assert!(subject(&MadeName::of(&[("CN", &"\u{FDFA}".repeat(10))])).is_ok());
}

#[test]
fn the_string_type_of_a_certificate_counts_only_where_it_is_neither_printable_nor_utf8() {
    let of = |tag| canonical(&MadeName(vec![vec![Made::new("CN", "Client").tagged(tag)]]));
    assert_eq!(of(der::UTF8_STRING), "cn=client");
    assert_eq!(of(der::PRINTABLE_STRING), "cn=client");
    assert_eq!(of(der::IA5_STRING), "cn=#1606436c69656e74");
    assert_eq!(of(0x14), "cn=#1406436c69656e74");
}

#[test]
fn dns_names() {
    for (text, expected) in
        [("Client.A.example", "client.a.example"), ("xn--bcher-kva.example", "xn--bcher-kva.example"), ("a", "a")]
    {
        assert_eq!(dns_name(text).unwrap(), expected);
    }
    for wrong in [
        "",
        ".",
        "a.",
        ".a",
        "a..b",
        "*.a",
        "a_b.example",
        "-a.b",
        "a-.b",
        "a b",
        "bücher.example",
        "192.0.2.7",
        "a.1",
        "a\0.b",
        &"a".repeat(64),
        &"a.".repeat(127),
    ] {
        assert!(dns_name(wrong).is_err(), "{wrong:?}");
    }
}

#[test]
fn uris() {
    for (text, expected) in [
        ("HTTPS://A.Example/Path?Q#F", "https://a.example/Path?Q#F"),
        ("https://a.example", "https://a.example/"),
        ("https://a.example:8443/x", "https://a.example:8443/x"),
        ("https://[2001:DB8::1]/", "https://[2001:db8::1]/"),
        ("spiffe://Domain.example/Client", "spiffe://domain.example/Client"),
        ("urn:example:Client:7", "urn:example:Client:7"),
        ("https://a.example/%C3%A9", "https://a.example/%C3%A9"),
    ] {
        assert_eq!(uri(text).unwrap(), expected);
        assert_eq!(uri(expected).unwrap(), expected);
    }
    for wrong in [
        "",
        "a.example",
        "//a.example",
        "1a:b",
        "a:",
        "https:",
        "https:a",
        "https://",
        "https:///x",
        "spiffe:a",
        "https://user@a.example/",
        "https://a.example:443/",
        "https://a.example:/",
        "https://a.example:0443/",
        "https://a.example:x/",
        "https://a.example/%c3",
        "https://a.example/%41",
        "https://a.example/%",
        "https://a.example/%2E%2E/",
        "https://a.example/a/../b",
        "https://a.example/.",
        "https://a%2Eexample/",
        "https://a.example/ x",
        "https://a.example/\"",
        "https://a.example/é",
        "https://a.example/#a#b",
        "https://[::1/",
        "https://[::1]x/",
        "https://[x]/",
        "https://a[b]/",
    ] {
        assert!(uri(wrong).is_err(), "{wrong:?}");
    }
}

#[test]
fn ip_addresses_are_octets() {
    assert_eq!(ip_address("2001:DB8:0:0::1").unwrap(), "2001:db8::1");
    assert_ne!(ip_address("192.0.2.7").unwrap(), ip_address("::ffff:192.0.2.7").unwrap());
    assert_eq!(ip_octets(&[192, 0, 2, 7]).unwrap(), "192.0.2.7");
    let mapped = [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xFF, 0xFF, 192, 0, 2, 7];
    assert_eq!(ip_octets(&mapped).unwrap(), ip_address("::ffff:192.0.2.7").unwrap());
    for wrong in ["192.0.2.07", "192.0.2", "fe80::1%eth0", "[::1]", "0x7f000001", ""] {
        assert!(ip_address(wrong).is_err(), "{wrong:?}");
    }
    for length in [0, 1, 3, 5, 8, 15, 17, 32] {
        assert!(ip_octets(&vec![1; length]).is_err(), "{length}");
    }
}

#[test]
fn email_addresses() {
    assert_eq!(email_address("Ops.Team+x@Mail.Example").unwrap(), "Ops.Team+x@mail.example");
    assert_ne!(email_address("Ops@a.example").unwrap(), email_address("ops@a.example").unwrap());
    for wrong in
        ["", "a", "@a.example", "a@", "a@b@c.example", ".a@b", "a.@b", "a..b@c", "\"a\"@b", "a b@c", "a@[192.0.2.1]"]
    {
        assert!(email_address(wrong).is_err(), "{wrong:?}");
    }
}

#[test]
fn one_text_under_another_kind_is_another_name() {
    let names =
        with_alt_names(&[AltName::Dns("client.example".to_owned()), AltName::Uri("a:192.0.2.7".to_owned())]).unwrap();
    let rule = |attribute, text| names.match_rule(&subject_rule(attribute, text).unwrap());
    assert!(rule(SubjectAttribute::TlsClientAuthSanDns, "CLIENT.example"));
    assert!(!rule(SubjectAttribute::TlsClientAuthSubjectDn, "CN=client.example"));
    assert!(!rule(SubjectAttribute::TlsClientAuthSanUri, "a:client.example"));
    assert!(!rule(SubjectAttribute::TlsClientAuthSanIp, "192.0.2.7"));
    assert!(rule(SubjectAttribute::TlsClientAuthSubjectDn, "CN=client"));
}

#[test]
fn alternative_names_that_two_readers_could_read_differently() {
    for tag in [0x81, 0x82, 0x86] {
        for octets in [&b"a.example\0.evil.example"[..], b"a.ex\xC3\xA9mple", b"a.example\n", b"\x7F"] {
            assert!(with_alt_names(&[AltName::Raw(tag, octets.to_vec())]).is_err(), "{tag:#x} {octets:?}");
        }
    }
    for octets in [vec![], vec![1; 5], vec![1; 17]] {
        assert!(with_alt_names(&[AltName::Raw(0x87, octets)]).is_err());
    }
    assert!(with_alt_names(&[AltName::Raw(0x89, vec![])]).is_err());
    assert!(with_alt_names(&vec![AltName::Dns("a.example".to_owned()); MOST_ALT_NAMES]).is_ok());
    assert!(with_alt_names(&vec![AltName::Dns("a.example".to_owned()); MOST_ALT_NAMES + 1]).is_err());
    // Legal, and yet no rule can name them.
    let names = with_alt_names(&[AltName::Dns("*.a.example".to_owned()), AltName::Email("a".to_owned())]).unwrap();
    assert_eq!((names.dns.len(), names.emails.len()), (0, 0));
    assert_eq!(names.unmatchable.as_deref(), Some("DNS:*.a.example"));
}

#[test]
fn a_prefix_ends_where_a_part_of_the_uri_ends() {
    let below = |name: &str, prefix: &str| uri_is_below(&uri(name).unwrap(), &uri(prefix).unwrap());
    assert!(below("https://a.example/x", "https://a.example"));
    assert!(below("spiffe://a.example/x", "spiffe://a.example"));
    assert!(below("spiffe://a.example/ns/x", "spiffe://a.example/ns"));
    assert!(below("spiffe://a.example", "spiffe://a.example"));
    assert!(below("urn:example:a:1", "urn:example:a"));
    assert!(!below("urn:example:ab", "urn:example:a"));
    assert!(!below("spiffe://a.example.org/x", "spiffe://a.example"));
    assert!(!below("spiffe://a.example:1/x", "spiffe://a.example"));
    assert!(!below("spiffe://a.example/nsx", "spiffe://a.example/ns"));
    assert!(!below("http://a.example/x", "https://a.example"));
}

proptest! {
    #[test]
    fn a_canonical_name_is_its_own_canonical_form(
        values in proptest::collection::vec(proptest::collection::vec((0..ATTRIBUTE_TYPES.len(), ".{0,12}"), 1..3), 1..4)
    ) {
        let name: Name = values
            .iter()
            .map(|rdn| {
                rdn.iter()
                    .map(|(kind, value)| Attribute {
                        kind: ATTRIBUTE_TYPES[*kind].1.to_owned(),
                        value: Value::Directory(value.clone()),
                    })
                    .collect()
            })
            .collect();
        if let Ok(canonical) = write_name(&name, Spelling::Prepared) {
            prop_assert_eq!(distinguished_name(&canonical), Ok(canonical));
        }
    }

    #[test]
    fn what_is_stored_is_read_back_from_text(
        values in proptest::collection::vec((0..ATTRIBUTE_TYPES.len(), "[ -~é]{1,12}"), 1..4)
    ) {
        let name: Name = values
            .iter()
            .map(|(kind, value)| {
                let (_, dotted, syntax) = ATTRIBUTE_TYPES[*kind];
                let value = match syntax {
                    Syntax::DomainLabel | Syntax::Ia5 if value.is_ascii() => {
                        Value::Other { tag: der::IA5_STRING, contents: value.as_bytes().to_vec() }
                    }
                    Syntax::Directory | Syntax::DomainLabel | Syntax::Ia5 => Value::Directory(value.clone()),
                };
                vec![Attribute { kind: dotted.to_owned(), value }]
            })
            .collect();
        let text = write_name(&name, Spelling::Stored).unwrap();
        prop_assert_eq!(parse_name(&text), Ok(name));
    }

    #[test]
    fn preparing_twice_changes_nothing(text in ".{0,20}") {
        if let Ok(prepared) = prepare(&text) {
            prop_assert_eq!(prepare(&prepared), Ok(prepared));
        }
    }

    #[test]
    fn other_canonical_forms_are_their_own(text in "[a-zA-Z0-9:/?#@.%_~+-]{0,24}") {
        for canonical in [dns_name, uri, ip_address, email_address] {
            if let Ok(once) = canonical(&text) {
                prop_assert_eq!(canonical(&once), Ok(once));
            }
        }
    }

    #[test]
    fn foreign_octets_never_panic(octets in proptest::collection::vec(any::<u8>(), 0..64), text in ".{0,64}") {
        let _ = Names::read(&octets, Some(&octets));
        let _ = distinguished_name(&text);
        let _ = uri(&text);
    }
}
