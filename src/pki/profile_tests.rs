//! What RFC 5280 forbids in a certificate, one thing at a time, in the leaf and in an issuer: the cases that outside judges
//! have beside those of `x509_limbo`, and the decision on each. What is refused though it need not be is in here as well.

use countersign_conformance::pki::{
    AltName, Authority, BasicConstraints, Extension, KeyUsage, Name, Template, purpose,
};
use countersign_conformance::{Key, KeyKind, der as made};

use super::anchor::check_anchor;
use super::scene::{NOW, Scene, now, presented_list};
use super::{ParsedCertificate, PeerRefusal, Verifier};
use crate::registry::client::SubjectAttribute;
use crate::registry::trust_anchor::NameSpace;

type Verdict = Result<(), PeerRefusal>;

fn client() -> Template {
    Template::client(Name::common("client"), NOW).with_alt_names([AltName::Dns("client.a.example".to_owned())])
}

fn authority() -> Template {
    Template::authority(Name::common("Issuing"), NOW)
}

fn verdict(root: &Authority, chain: &[Vec<u8>]) -> Verdict {
    let scene = Scene::new("profile").trusting(root);
    Verifier::new().verify_at_once(&presented_list(chain), &scene.client(), now()).map(drop)
}

/// A client's certificate that was bent.
fn leaf(bend: impl FnOnce(&mut Template)) -> Verdict {
    let root = Authority::root("Root", NOW);
    let mut template = client();
    bend(&mut template);
    verdict(&root, &root.issue(&template, KeyKind::P256).chain)
}

/// A good client's certificate under an intermediate that was bent.
fn issuer(bend: impl FnOnce(&mut Template)) -> Verdict {
    let root = Authority::root("Root", NOW);
    let mut template = authority();
    bend(&mut template);
    verdict(&root, &root.intermediate_with(&template).issue(&client(), KeyKind::P256).chain)
}

/// A good client's certificate under a root that was bent, if such a one can be an anchor at all.
fn under_root(bend: impl FnOnce(&mut Template)) -> Option<Verdict> {
    let mut template = Template::authority(Name::common("Root"), NOW);
    bend(&mut template);
    let root = Authority::root_with(template, KeyKind::P256, NOW);
    check_anchor(&root.certificate, now()).ok()?;
    Some(verdict(&root, &root.issue(&client(), KeyKind::P256).chain))
}

fn extension(last_arc: u64, critical: bool, value: &[u8]) -> Extension {
    Extension { oid: vec![2, 5, 29, last_arc], critical, value: value.to_vec() }
}

/// Under an intermediate whose name constraints are these octets.
fn constrained(critical: bool, value: &[u8], leaf: &Template) -> Verdict {
    let root = Authority::root("Root", NOW);
    let mut template = authority();
    template.extensions.push(extension(30, critical, value));
    verdict(&root, &root.intermediate_with(&template).issue(leaf, KeyKind::P256).chain)
}

/// permittedSubtrees (0xA0) or excludedSubtrees (0xA1) of one name, and what comes after its base.
fn subtree(kind: u8, tag: u8, base: &[u8], after: &[u8]) -> Vec<u8> {
    made::sequence([made::tlv(kind, made::sequence([made::tlv(tag, base), after.to_vec()]))])
}

/// A client's certificate whose TBSCertificate has other elements than usual.
fn rewritten(bend: impl FnOnce(&mut Vec<Vec<u8>>)) -> Verdict {
    let root = Authority::root("Root", NOW);
    let issued = root.sign(&client(), &Key::generate(KeyKind::P256).spki());
    let (_, outer, _) = made::split(&issued).unwrap();
    let (_, mut rest, _) = made::split(outer).unwrap();
    let mut elements = Vec::new();
    while let Some((tag, contents, after)) = made::split(rest) {
        elements.push(made::tlv(tag, contents));
        rest = after;
    }
    bend(&mut elements);
    verdict(&root, &[root.sign_content(&made::sequence(elements))])
}

const MALFORMED: Verdict = Err(PeerRefusal::Malformed);
const CRITICAL: Verdict = Err(PeerRefusal::CriticalExtensionUnknown);
const CONSTRAINED: Verdict = Err(PeerRefusal::NameConstraintViolated);

/// RFC 5280 §4.1.2.2: "a positive integer", of 20 octets at most. X.690 §8.3.2: in the fewest octets.
#[test]
fn serial_numbers() {
    let longest = [&[0x7F][..], &[0xFF; 19]].concat();
    let highest = [&[0][..], &[0xFF; 20]].concat();
    for good in [&[1][..], &[0, 0x80], &longest, &highest] {
        assert_eq!(leaf(|template| template.serial = Some(good.to_vec())), Ok(()), "{good:02x?}");
        assert_eq!(issuer(|template| template.serial = Some(good.to_vec())), Ok(()), "{good:02x?}");
    }
    for wrong in [&[][..], &[0], &[0xFF], &[0x80, 1], &[0, 0], &[0, 1], &[1; 21], &[0x80; 21], &[1; 22]] {
        let bend = |template: &mut Template| template.serial = Some(wrong.to_vec());
        assert_eq!(leaf(bend), MALFORMED, "{wrong:02x?}");
        assert!(issuer(bend).is_err(), "{wrong:02x?}");
    }
    // Roots of zero are many: what an anchor is numbered by nobody asks.
    assert_eq!(under_root(|template| template.serial = Some(vec![0])), Some(Ok(())));
}

/// RFC 5280 §4.2.1.1, §4.2.1.2: "MUST mark this extension as non-critical".
#[test]
fn critical_key_identifiers() {
    let identifiers =
        [extension(35, true, &made::sequence([made::tlv(0x80, [7; 20])])), extension(14, true, &[4, 1, 7])];
    for identifier in identifiers {
        let bend = |template: &mut Template| {
            template.key_identifiers = false;
            template.extensions.push(identifier.clone());
        };
        assert_eq!(leaf(bend), CRITICAL);
        assert_eq!(issuer(bend), CRITICAL);
        assert_eq!(under_root(bend), None);
    }
}

/// Pinned in `x509_limbo`: identifiers help to find a path, and decide nothing.
#[test]
fn key_identifiers_that_lead_nowhere() {
    let none = |template: &mut Template| template.key_identifiers = false;
    let mismatched = |template: &mut Template| {
        template.key_identifiers = false;
        template.extensions.push(extension(35, false, &made::sequence([made::tlv(0x80, [7; 20])])));
    };
    let unreadable = |template: &mut Template| {
        template.key_identifiers = false;
        template.extensions.push(extension(35, false, &[0x30, 9]));
    };
    assert_eq!((leaf(none), issuer(none), under_root(none)), (Ok(()), Ok(()), Some(Ok(()))));
    assert_eq!((leaf(mismatched), issuer(mismatched), under_root(mismatched)), (Ok(()), Ok(()), Some(Ok(()))));
    assert_eq!((leaf(unreadable), issuer(unreadable), under_root(unreadable)), (Ok(()), Ok(()), Some(Ok(()))));
}

/// RFC 5280 §4.1.2.1, §4.1.2.8.
#[test]
fn versions_and_unique_identifiers() {
    use countersign_conformance::pki::Version;
    for version in [Version::V1, Version::V2] {
        assert_eq!(leaf(|template| template.version = version), Err(PeerRefusal::VersionUnsupported));
        assert!(issuer(|template| template.version = version).is_err());
        assert_eq!(under_root(|template| template.version = version), None);
    }
    assert_eq!(rewritten(|_| {}), Ok(()));
    for tag in [0x81, 0x82] {
        // "CAs conforming to this profile MUST NOT generate certificates with unique identifiers."
        assert!(rewritten(|elements| elements.insert(7, made::tlv(tag, [0, 7]))).is_err());
    }
    // A version that there is not.
    assert!(rewritten(|elements| elements[0] = made::tlv(0xA0, made::unsigned(&[3]))).is_err());
}

/// RFC 5280 §4.1.2.5: UTCTime through 2049 and GeneralizedTime after, both with seconds and Z. Which of them a CA chose is
/// not asked, as everyone reads either; what has fractions, offsets or no seconds is.
#[test]
fn validity_in_other_writings() {
    let written = |begin: (u8, &str), end: (u8, &str)| {
        rewritten(|elements| elements[4] = made::sequence([made::tlv(begin.0, begin.1), made::tlv(end.0, end.1)]))
    };
    let (utc, general) = (0x17, 0x18);
    let end = (utc, "300101000000Z");
    assert_eq!(written((utc, "260101000000Z"), end), Ok(()));
    assert_eq!(written((general, "20260101000000Z"), end), Ok(()));
    assert_eq!(written((utc, "260101000000Z"), (general, "99991231235959Z")), Ok(()));
    for wrong in [
        (utc, "2601010000Z"),
        (utc, "260101000000"),
        (utc, "260101000000+0000"),
        (utc, "20260101000000Z"),
        (utc, "261301000000Z"),
        (utc, "260230000000Z"),
        (general, "20260101000000.5Z"),
        (general, "202601010000Z"),
        (general, "20260101000000"),
        (general, "260101000000Z"),
        (0x16, "260101000000Z"),
    ] {
        assert!(written(wrong, end).is_err(), "{wrong:?}");
    }
    // Over before it begins: in an issuer as well.
    assert!(leaf(|template| template.not_after = template.not_before - 1).is_err());
    assert!(issuer(|template| template.not_after = template.not_before - 1).is_err());
}

/// RFC 5280 §4.1.2.4, §4.1.2.6.
#[test]
fn empty_names() {
    let nameless = |template: &mut Template| template.subject = Name::default();
    // §4.2.1.6 binds the CA to mark its alternative names critical then; who reads them loses nothing either way.
    assert_eq!(leaf(nameless), Ok(()));
    let not_critical = |template: &mut Template| {
        nameless(template);
        template.alt_names.clear();
        template.extensions.push(extension(17, false, &made::sequence([made::tlv(0x82, "client.a.example")])));
    };
    assert_eq!(leaf(not_critical), Ok(()));
    // Nothing at all: no rule names it, and nothing but a name is let in.
    assert!(leaf(|template| template.issuer = Some(Name::default())).is_err());
    // A CA's subject MUST NOT be empty, and so is the issuer of what it issues.
    assert!(issuer(nameless).is_err());
    assert_eq!(under_root(nameless), None);
}

/// RFC 5280 §4.2.1.6.
#[test]
fn alternative_names_that_are_none() {
    let with = |value: &[u8]| {
        leaf(|template| {
            template.alt_names.clear();
            template.extensions.push(extension(17, false, value));
        })
    };
    let one = |tag, value: &str| with(&made::sequence([made::tlv(tag, value)]));
    assert_eq!(one(0x82, "client.a.example"), Ok(()));
    let refused = [
        // "the sequence MUST contain at least one entry"
        with(&[0x30, 0]),
        with(&[]),
        with(&[0x30, 1]),
        // four or sixteen octets
        one(0x87, "12345"),
        one(0x87, ""),
        // a tag that there is not
        one(0x89, "client"),
    ];
    for (place, verdict) in refused.into_iter().enumerate() {
        assert!(verdict.is_err(), "{place}");
    }
    // "The string " " MUST NOT be used", nor a relative URI: such a name is nobody's, and outside every name space.
    for (tag, value) in [(0x82, " "), (0x82, ""), (0x81, ""), (0x86, ""), (0x86, "/client")] {
        let root = Authority::root("Root", NOW);
        let mut template = client();
        template.alt_names.clear();
        template.extensions.push(extension(17, false, &made::sequence([made::tlv(tag, value)])));
        let issued = root.issue(&template, KeyKind::P256);
        let names = ParsedCertificate::read(issued.certificate()).unwrap();
        let names = names.names().unwrap();
        let kinds: Vec<_> = names.all().map(|(attribute, _)| attribute).collect();
        assert_eq!(kinds, [SubjectAttribute::TlsClientAuthSubjectDn], "{value:?}");
        let own = NameSpace { dn_suffixes: vec!["cn=client".to_owned()], ..NameSpace::default() };
        assert!(names.first_outside(&own).is_some(), "{value:?}");
    }
}

/// RFC 5280 §4.2.1.9, §4.2.1.3.
#[test]
fn authorities_that_are_none() {
    let constraints = |ca, path_length| Some(BasicConstraints { ca, path_length });
    assert!(issuer(|template| template.basic_constraints = None).is_err());
    assert!(issuer(|template| template.basic_constraints = constraints(false, None)).is_err());
    assert!(issuer(|template| template.key_usage = Some(vec![KeyUsage::CrlSign])).is_err());
    assert!(issuer(|template| template.key_usage = Some(vec![])).is_err());
    // Of these the text binds the CA alone; §6.1.4 (k), (n) ask for no more than is there.
    assert_eq!(issuer(|template| template.key_usage = None), Ok(()));
    let not_critical = |template: &mut Template| {
        template.basic_constraints = None;
        template.extensions.push(extension(19, false, &[0x30, 3, 1, 1, 0xFF]));
    };
    assert_eq!(issuer(not_critical), Ok(()));
    assert_eq!(under_root(not_critical), None);
    // A path length where there is no authority limits nobody, and is common.
    assert_eq!(leaf(|template| template.basic_constraints = constraints(false, Some(0))), Ok(()));
    // Negative, or of nine octets.
    for length in [&[2, 1, 0xFF][..], &[2, 9, 1, 0, 0, 0, 0, 0, 0, 0, 0]] {
        let value = made::sequence([&[1, 1, 0xFF][..], length]);
        let bend = |template: &mut Template| {
            template.basic_constraints = None;
            template.extensions.push(extension(19, true, &value));
        };
        assert!(issuer(bend).is_err());
    }
}

/// RFC 5280 §4.2.1.12.
#[test]
fn purposes_that_are_others() {
    let only = |oid: &'static [u64]| move |template: &mut Template| template.purposes = vec![oid.to_vec()];
    let missing = Err(PeerRefusal::PurposeMissing);
    assert_eq!(leaf(only(purpose::ANY)), missing);
    assert_eq!(issuer(only(purpose::ANY)), missing);
    assert_eq!(issuer(only(purpose::SERVER_AUTH)), missing);
    let empty = |template: &mut Template| {
        template.purposes.clear();
        template.extensions.push(extension(37, false, &[0x30, 0]));
    };
    assert!(leaf(empty).is_err() && issuer(empty).is_err());
    // An anchor's own purposes are an operator's affair.
    assert_eq!(under_root(only(purpose::CLIENT_AUTH)), Some(Ok(())));
}

/// RFC 5280 §4.2.1.4, §4.2.1.5, §4.2.1.11, §4.2.1.14: no policies are processed. Critical, they are not understood.
#[test]
fn policies() {
    let policies = [
        extension(32, true, &made::sequence([made::sequence([made::oid(&[2, 5, 29, 32, 0])])])),
        extension(33, true, &made::sequence([made::sequence([made::oid(&[1, 2, 3]), made::oid(&[1, 2, 4])])])),
        extension(36, true, &made::sequence([[0x80, 1, 0]])),
        extension(54, true, &[2, 1, 0]),
    ];
    for policy in policies {
        let plain = Extension { critical: false, ..policy.clone() };
        assert_eq!(issuer(|template| template.extensions.push(policy.clone())), CRITICAL, "{policy:?}");
        assert_eq!(issuer(|template| template.extensions.push(plain)), Ok(()), "{policy:?}");
    }
}

/// RFC 5280 §4.2.1.10: of what a constraint concerns that is not compared here, everything is refused.
#[test]
fn name_constraints_of_every_kind() {
    let (permitted, excluded) = (0xA0, 0xA1);
    let with = |name: AltName| client().with_alt_names([name]);
    let (dns, email, uri) = (0x82, 0x81, 0x86);
    let own = client();
    assert_eq!(constrained(true, &subtree(permitted, dns, b"a.example", &[]), &own), Ok(()));
    assert_eq!(constrained(false, &subtree(permitted, dns, b"b.example", &[]), &own), CONSTRAINED);
    assert_eq!(constrained(false, &subtree(excluded, dns, b"a.example", &[]), &own), CONSTRAINED);
    // "minimum MUST be zero, and maximum MUST be absent"; and DER does not write a default.
    for after in [&[0x80, 1, 0][..], &[0x80, 1, 1], &[0x81, 1, 0]] {
        assert!(constrained(true, &subtree(permitted, dns, b"a.example", after), &own).is_err(), "{after:?}");
    }
    let mail = with(AltName::Email("a@a.example".to_owned()));
    let identifier = with(AltName::Uri("https://a.example/".to_owned()));
    for kind in [permitted, excluded] {
        assert!(constrained(true, &subtree(kind, email, b"a.example", &[]), &mail).is_err());
        assert!(constrained(true, &subtree(kind, uri, b"a.example", &[]), &identifier).is_err());
        // What it does not concern it does not stop.
        assert_eq!(constrained(true, &subtree(kind, email, b"b.example", &[]), &own), Ok(()));
        assert_eq!(constrained(true, &subtree(kind, uri, b"b.example", &[]), &own), Ok(()));
        // A directory name concerns every subject.
        let directory = Name::common("client").to_der();
        assert!(constrained(true, &subtree(kind, 0xA4, &directory, &[]), &own).is_err());
        let alone = with(AltName::Directory(Name::common("client")));
        assert!(constrained(true, &subtree(kind, 0xA4, &directory, &[]), &alone).is_err());
    }
    // Neither subtree, an empty one, one that is no name.
    for wrong in [&[0x30, 0][..], &[0x30, 2, 0xA0, 0], &[0x30, 4, 0xA0, 2, 0x30, 0], &[], &[0x30, 2, 0xA2, 0]] {
        assert!(constrained(true, wrong, &own).is_err(), "{wrong:02x?}");
    }
    // The anchor's own count too.
    let bend = |template: &mut Template| template.permitted = vec![AltName::Dns("b.example".to_owned())];
    assert_eq!(under_root(bend), Some(CONSTRAINED));
    // §4.2.1.10 spares self-issued intermediates, and never the leaf.
    let root = Authority::root_with(
        Template {
            excluded: vec![AltName::Dns("a.example".to_owned())],
            ..Template::authority(Name::common("Root"), NOW)
        },
        KeyKind::P256,
        NOW,
    );
    let self_issued = Template { subject: Name::common("Root"), ..client() };
    assert!(verdict(&root, &root.issue(&self_issued, KeyKind::P256).chain).is_err());
}

/// RFC 5280 §4.2: what is critical and not known; and what is there twice.
#[test]
fn extensions_unknown_and_repeated() {
    let unknown = Extension { oid: vec![1, 3, 6, 1, 4, 1, 55_555, 1], critical: true, value: vec![5, 0] };
    let push = |extension: &Extension| {
        let extension = extension.clone();
        move |template: &mut Template| template.extensions.push(extension)
    };
    assert_eq!((leaf(push(&unknown)), issuer(push(&unknown)), under_root(push(&unknown))), (CRITICAL, CRITICAL, None));
    let plain = Extension { critical: false, ..unknown };
    assert_eq!((leaf(push(&plain)), issuer(push(&plain)), under_root(push(&plain))), (Ok(()), Ok(()), Some(Ok(()))));
    let twice = |template: &mut Template| template.extensions.extend([plain.clone(), plain.clone()]);
    assert_eq!(leaf(twice), MALFORMED);
    assert!(issuer(twice).is_err());
    assert_eq!(under_root(twice), None);
}
