//! One defect at a time: lists that are taken, lists that are not, and what those that are held mean for a request.

use std::sync::Arc;

use countersign_conformance::crl::{IssuingDistributionPoint, RevocationList as Made, Revoked, distribution_points};
use countersign_conformance::pki::{Authority, Credential, Extension, KeyUsage, Name, Template};
use countersign_conformance::{KeyKind, der as made};
use countersign_resource_server::time::UnixTime;
use rustls_pki_types::CertificateRevocationListDer;
use rustls_pki_types::pem::PemObject;

use super::index::{Entry, HeldLists, RevocationList, Scope};
use super::reader::CertificateList;
use super::source::contained;
use super::verification::{ListIssuer, add_issued, succeeds, verify};
use super::{ListRefusal, Serial};
use crate::pki::revocation::{CrlReason, UnknownStatus};
use crate::pki::scene::{NOW, Scene, now, presented};
use crate::pki::{PeerRefusal, Verifier};
use crate::registry::trust_anchor::{CrlSource, NameSpace, TrustAnchor, Unknown};

fn root() -> Authority {
    Authority::root("Root", NOW)
}

fn issuers(root: &Authority, below: &[&Authority]) -> Vec<Arc<ListIssuer>> {
    let mut known = vec![Arc::new(ListIssuer::anchor(&root.certificate).unwrap())];
    let below: Vec<&[u8]> = below.iter().map(|authority| authority.certificate.as_slice()).collect();
    add_issued(&mut known, &below);
    known
}

fn judged(der: &[u8], root: &Authority) -> Result<Arc<RevocationList>, ListRefusal> {
    verify(der, &issuers(root, &[]), now()).map(|verified| verified.list)
}

fn list() -> Made {
    Made::new(7, NOW)
}

/// What becomes of a list that was bent.
fn bent(change: impl FnOnce(&mut Made)) -> Result<(), ListRefusal> {
    let root = root();
    let mut made = list().revoking(Revoked::certificate(root.client("revoked").certificate(), NOW - 60));
    change(&mut made);
    judged(&made.signed_by(&root), &root).map(drop)
}

fn unknown(critical: bool) -> Extension {
    Extension { oid: vec![1, 3, 6, 1, 4, 1, 55_555, 1], critical, value: vec![5, 0] }
}

fn extension(last_arc: u64, critical: bool, value: Vec<u8>) -> Extension {
    Extension { oid: vec![2, 5, 29, last_arc], critical, value }
}

fn point(change: impl FnOnce(&mut IssuingDistributionPoint)) -> Option<IssuingDistributionPoint> {
    let mut point = IssuingDistributionPoint::default();
    change(&mut point);
    Some(point)
}

#[test]
fn a_right_list_is_read_as_it_is() {
    let root = root();
    let clients: Vec<Credential> = (0..20).map(|_| root.client("client")).collect();
    let mut made = list();
    for (place, client) in clients.iter().enumerate() {
        made = made.revoking(Revoked::certificate(client.certificate(), NOW - 60 - place as i64).because(1));
    }
    let read = judged(&made.signed_by(&root), &root).unwrap();
    assert_eq!(read.number.to_string(), "7");
    assert_eq!((read.this_update.as_seconds(), read.next_update.as_seconds()), (NOW - 3_600, NOW + 86_400));
    assert_eq!(read.entries.len(), 20);
    assert!(read.entries.is_sorted_by_key(|entry| entry.serial));
    for (entry, at) in made.entries.iter().map(|entry| (read.find(Serial::of(&entry.serial).unwrap()), entry.at)) {
        assert_eq!(entry.map(|entry| (entry.at, entry.reason)), Some((at, CrlReason::KeyCompromise)));
    }
    assert_eq!(size_of_val(&read.entries[0]), 32);
    assert_eq!(Serial::of(&[0xFF; 20]).unwrap().to_string(), format!("0x{}", "ff".repeat(20)));
}

#[test]
fn one_defect_each() {
    assert_eq!(bent(|_| {}), Ok(()));
    for (defect, expected) in [
        (bent(|list| list.version = None), ListRefusal::VersionUnsupported),
        (bent(|list| list.version = Some(0)), ListRefusal::VersionUnsupported),
        (bent(|list| list.version = Some(2)), ListRefusal::VersionUnsupported),
        (
            bent(|list| list.inner_algorithm = Some(made::sequence([made::oid(&[1, 2, 840, 10045, 4, 3, 3])]))),
            ListRefusal::AlgorithmsDiffer,
        ),
        (bent(|list| list.issuer = Some(Name::common("Another"))), ListRefusal::IssuerUnknown),
        (bent(|list| list.issuer = Some(Name::default())), ListRefusal::Malformed),
        (bent(|list| list.next_update = None), ListRefusal::NextUpdateMissing),
        (bent(|list| list.next_update = Some(list.this_update - 1)), ListRefusal::Malformed),
        (bent(|list| list.this_update = NOW + 301), ListRefusal::FromTheFuture),
        (bent(|list| list.number = None), ListRefusal::NumberMissing),
        (bent(|list| list.number = Some(vec![0x7F; 21])), ListRefusal::Malformed),
        (bent(|list| list.number_critical = true), ListRefusal::NumberCritical),
        (bent(|list| list.extensions.push(extension(20, false, made::unsigned(&[8])))), ListRefusal::ExtensionRepeated),
        (bent(|list| list.extensions.push(unknown(true))), ListRefusal::CriticalExtensionUnknown),
        (bent(|list| list.extensions.push(extension(27, true, made::unsigned(&[1])))), ListRefusal::Delta),
        (bent(|list| list.extensions.push(extension(27, false, made::unsigned(&[1])))), ListRefusal::Delta),
        (bent(|list| list.distribution_point = point(|point| point.indirect = true)), ListRefusal::Indirect),
        (
            bent(|list| list.distribution_point = point(|point| point.attributes = true)),
            ListRefusal::AttributeCertificates,
        ),
        (bent(|list| list.distribution_point = point(|point| point.reasons = vec![1])), ListRefusal::SomeReasons),
        (
            bent(|list| list.distribution_point = point(|point| (point.users, point.authorities) = (true, true))),
            ListRefusal::Malformed,
        ),
        (bent(|list| list.entries[0].reason = Some(8)), ListRefusal::Delta),
        (bent(|list| list.entries[0].reason = Some(7)), ListRefusal::Malformed),
        (bent(|list| list.entries[0].reason = Some(11)), ListRefusal::Malformed),
        (bent(|list| list.entries[0].serial = vec![]), ListRefusal::Malformed),
        (bent(|list| list.entries[0].serial = vec![0, 1]), ListRefusal::Malformed),
        (bent(|list| list.entries[0].serial = vec![1; 21]), ListRefusal::Malformed),
        (bent(|list| list.entries[0].extensions.push(unknown(true))), ListRefusal::EntryExtensionUnknown),
        (bent(|list| list.entries[0].extensions.push(extension(29, true, vec![0x30, 0]))), ListRefusal::Indirect),
        (
            bent(|list| list.entries[0].extensions.extend([unknown(false), unknown(false)])),
            ListRefusal::ExtensionRepeated,
        ),
    ] {
        assert_eq!(defect, Err(expected));
    }
}

#[test]
fn what_is_no_defect() {
    for good in [
        bent(|list| list.this_update = NOW + 300),
        bent(|list| list.entries.clear()),
        bent(|list| (list.entries, list.empty_list) = (Vec::new(), true)),
        bent(|list| list.next_update = Some(NOW - 1)), // out of date, and still what was revoked by then
        bent(|list| list.key_identifier = false),
        bent(|list| list.number = Some(vec![0])),
        bent(|list| list.number = Some(vec![0x7F; 20])),
        bent(|list| list.extensions.push(unknown(false))),
        bent(|list| list.entries[0].extensions.push(unknown(false))),
        bent(|list| list.entries[0].extensions.push(extension(24, false, made::tlv(0x18, "20270115080000Z")))),
        bent(|list| list.entries[0].reason = Some(0)),
        bent(|list| list.entries[0].serial = vec![0]),
        bent(|list| (list.this_update, list.next_update) = (-86_400, Some(4_102_444_800))), // 1969 to 2100
    ] {
        assert_eq!(good, Ok(()));
    }
}

#[test]
fn the_signature_is_the_issuers() {
    let root = root();
    let der = list().signed_by(&root);
    assert!(judged(&der, &root).is_ok());
    // Another key under the same name, and the same signature over other content.
    assert_eq!(judged(&der, &root.twin()).map(drop), Err(ListRefusal::SignatureInvalid));
    let mut broken = der.clone();
    *broken.last_mut().unwrap() ^= 1;
    assert_eq!(judged(&broken, &root).map(drop), Err(ListRefusal::SignatureInvalid));
    // By a client that the authority has certified, under the authority's name.
    let client = root.client("client");
    assert_eq!(judged(&list().signed(&root.name, &client.key), &root).map(drop), Err(ListRefusal::SignatureInvalid));
    for length in 0..der.len() {
        assert_eq!(judged(&der[..length], &root).map(drop), Err(ListRefusal::Malformed), "{length}");
    }
    assert_eq!(judged(&[&der[..], &[0]].concat(), &root).map(drop), Err(ListRefusal::Malformed));
}

#[test]
fn every_kind_of_key_signs() {
    for kind in [KeyKind::P256, KeyKind::P384, KeyKind::P521, KeyKind::Ed25519, KeyKind::Rsa2048] {
        let root = Authority::root_with(Template::authority(Name::common("Root"), NOW), kind, NOW);
        assert!(judged(&list().signed_by(&root), &root).is_ok(), "{kind:?}");
    }
}

#[test]
fn key_usage_of_the_issuer() {
    let with = |usage: Option<Vec<KeyUsage>>| {
        let template = Template { key_usage: usage, ..Template::authority(Name::common("Root"), NOW) };
        let root = Authority::root_with(template, KeyKind::P256, NOW);
        judged(&list().signed_by(&root), &root).map(drop)
    };
    assert_eq!(with(None), Ok(()));
    assert_eq!(with(Some(vec![KeyUsage::KeyCertSign, KeyUsage::CrlSign])), Ok(()));
    assert_eq!(with(Some(vec![KeyUsage::KeyCertSign])), Err(ListRefusal::MayNotSign));
}

#[test]
fn intermediates_are_known_by_who_issued_them() {
    let root = root();
    let policy = root.intermediate("Policy");
    let issuing = policy.intermediate("Issuing");
    let der = list().signed_by(&issuing);
    let judged = |below: &[&Authority]| verify(&der, &issuers(&root, below), now()).map(drop);
    assert_eq!(judged(&[]), Err(ListRefusal::IssuerUnknown));
    assert_eq!(judged(&[&issuing]), Err(ListRefusal::IssuerUnknown), "nobody known issued it");
    assert_eq!(judged(&[&policy, &issuing]), Ok(()));
    assert_eq!(judged(&[&issuing, &policy]), Ok(()), "in any order");
    // A stranger's of the same name, and one whose issuer is a client.
    let stranger = Authority::root("Root", NOW).intermediate("Issuing");
    assert_eq!(
        verify(&list().signed_by(&stranger), &issuers(&root, &[&stranger]), now()).map(drop),
        Err(ListRefusal::IssuerUnknown)
    );
    let client = root.client("client");
    let pretended = Authority::pretended(Name::common("client"), &client, NOW);
    let below = pretended.intermediate("Below");
    let known = issuers(&root, &[&pretended, &below]);
    assert_eq!(verify(&list().signed_by(&below), &known, now()).map(drop), Err(ListRefusal::IssuerUnknown));
}

#[test]
fn only_newer_lists_take_a_place() {
    let root = root();
    let made = |number: u64, change: i64| Made { this_update: NOW - 3_600 + change, ..Made::new(number, NOW) };
    let read = |made: &Made| judged(&made.signed_by(&root), &root).unwrap();
    let held = read(&made(7, 0));
    assert_eq!(succeeds(&held, &held), Ok(false));
    assert_eq!(succeeds(&read(&made(8, 0)), &held), Ok(true));
    assert_eq!(succeeds(&read(&made(8, 1)), &held), Ok(true));
    assert_eq!(succeeds(&read(&made(8, -1)), &held), Err(ListRefusal::Older));
    assert_eq!(succeeds(&read(&made(6, 1)), &held), Err(ListRefusal::Older));
    assert_eq!(succeeds(&read(&made(7, 1)), &held), Err(ListRefusal::SameNumber));
    // Numbers, not texts.
    assert_eq!(succeeds(&read(&made(10, 0)), &read(&made(9, 0))), Ok(true));
    assert_eq!(succeeds(&read(&made(256, 0)), &read(&made(255, 0))), Ok(true));
}

#[test]
fn a_serial_number_twice_is_revoked_by_what_is_worse() {
    let root = root();
    let entry = |reason, at| Revoked { serial: vec![5], at, reason: Some(reason), extensions: Vec::new() };
    let made = list().revoking(entry(6, NOW - 90)).revoking(entry(4, NOW - 50)).revoking(entry(1, NOW - 60));
    let read = judged(&made.signed_by(&root), &root).unwrap();
    assert_eq!(read.entries.len(), 1);
    assert_eq!((read.entries[0].reason, read.entries[0].at), (CrlReason::KeyCompromise, NOW - 60));
}

#[test]
fn a_fault_in_reading_is_an_answer() {
    let fault = contained::<()>(|| panic!("as a fault in a parser would"));
    assert_eq!(fault, Err(ListRefusal::Panicked));
}

/// Lists with one bit bent, cut, or with something put in: none ends in a fault, and none is taken, for every octet is either
/// signed or the signature.
#[test]
fn ten_thousand_mutated_lists_are_refused() {
    let root = root();
    let mut made = list();
    made.distribution_point = point(|point| point.uris = vec!["http://crl.example/1".to_owned()]);
    for place in 0..5 {
        made = made.revoking(Revoked { serial: vec![place + 1, 9], at: NOW, reason: Some(1), extensions: Vec::new() });
    }
    let der = made.signed_by(&root);
    let issuers = issuers(&root, &[]);
    let mut state = 0x9E37_79B9_7F4A_7C15_u64;
    let mut next = |below: usize| {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 33) as usize % below
    };
    for _ in 0..10_000 {
        let mut octets = der.clone();
        match next(4) {
            0 | 1 => {
                let place = next(octets.len());
                octets[place] ^= 1 << next(8);
            }
            2 => {
                let (from, to) = (next(octets.len()), next(octets.len()));
                octets.drain(from.min(to)..from.max(to).max(from.min(to) + 1).min(octets.len()));
            }
            _ => {
                let (place, length) = (next(octets.len()), next(16));
                let more: Vec<u8> = (0..=length).map(|_| next(256) as u8).collect();
                octets.splice(place..place, more);
            }
        }
        let taken = contained(|| verify(&octets, &issuers, now()));
        assert!(!matches!(taken, Err(ListRefusal::Panicked)));
        assert!(taken.is_err() || octets == der);
        // What is behind the signature, as if it held.
        if let Ok(list) = super::reader::CertificateList::read(&octets) {
            let _ = list.index();
        }
    }
}

/// A client under an intermediate under a root with lists, and a verifier that holds what a test gives it.
struct Held {
    root: Authority,
    issuing: Authority,
    client: Credential,
    lists: Arc<HeldLists>,
    verifier: Verifier,
    scene: Scene,
}

impl Held {
    fn new() -> Self {
        Self::with(|_| {}, |_| {})
    }

    fn with(anchor: impl FnOnce(&mut TrustAnchor), leaf: impl FnOnce(&mut Template)) -> Self {
        let root = root();
        let issuing = root.intermediate("Issuing");
        let mut template = Template::client(Name::common("client"), NOW);
        leaf(&mut template);
        let client = issuing.issue(&template, KeyKind::P256);
        let lists = Arc::new(HeldLists::default());
        let any = NameSpace { any: true, ..NameSpace::default() };
        let scene = Scene::new("partner-a").granting(
            &root.certificate,
            |granted| {
                granted.unknown_revocation = Unknown::Refuse;
                granted.revocation.crls = vec![CrlSource { location: "lists".to_owned(), issuer_der: None }];
                anchor(granted);
            },
            any,
        );
        Self { verifier: Verifier::with_lists(Arc::clone(&lists)), root, issuing, client, lists, scene }
    }

    fn hold(&self, made: &Made, by: &Authority) {
        let known = issuers(&self.root, &[&self.issuing]);
        self.lists.put(&verify(&made.signed_by(by), &known, now()).unwrap().list);
    }

    /// Lists of both authorities that revoke nothing.
    fn holding_nothing_revoked() -> Self {
        let held = Self::new();
        held.hold(&list(), &held.root);
        held.hold(&list(), &held.issuing);
        held
    }

    fn judge(&self) -> Result<(), PeerRefusal> {
        self.judge_at(now())
    }

    fn judge_at(&self, at: UnixTime) -> Result<(), PeerRefusal> {
        self.verifier.verify_at_once(&presented(&self.client), &self.scene.client(), at).map(drop)
    }

    fn revoked(&self, reason: u8) -> Revoked {
        Revoked::certificate(self.client.certificate(), NOW - 60).because(reason)
    }
}

const fn unknown_because(why: UnknownStatus) -> Result<(), PeerRefusal> {
    Err(PeerRefusal::RevocationUnknown { why })
}

#[test]
fn every_certificate_of_a_path_takes_a_list_that_speaks_for_it() {
    let held = Held::new();
    assert_eq!(held.judge(), unknown_because(UnknownStatus::NoList));
    held.hold(&list(), &held.issuing);
    assert_eq!(held.judge(), unknown_because(UnknownStatus::NoList), "the root's list speaks for the intermediate");
    held.hold(&list(), &held.root);
    assert_eq!(held.judge(), Ok(()), "within the same second");
}

#[test]
fn unknown_passes_where_the_anchor_says_so_and_revoked_never() {
    let held = Held::with(|anchor| anchor.unknown_revocation = Unknown::Accept, |_| {});
    assert_eq!(held.judge(), Ok(()));
    held.hold(&list().revoking(held.revoked(4)), &held.issuing);
    assert_eq!(held.judge(), Err(PeerRefusal::Revoked { at: UnixTime::from_seconds(NOW - 60) }));
}

#[test]
fn an_anchor_without_sources_does_not_ask() {
    let held = Held::with(|anchor| anchor.revocation.crls.clear(), |_| {});
    held.hold(&list().revoking(held.revoked(4)), &held.issuing);
    assert_eq!(held.judge(), Ok(()));
}

#[test]
fn a_list_in_its_last_second_and_after_it() {
    let held = Held::holding_nothing_revoked();
    let end = UnixTime::from_seconds(NOW + 86_400);
    assert_eq!(held.judge_at(end.before(std::time::Duration::from_millis(1))), Ok(()));
    assert_eq!(held.judge_at(end), unknown_because(UnknownStatus::Stale));
    assert_eq!(held.judge(), Ok(()), "nothing was remembered");
}

#[test]
fn what_a_stale_list_revokes_stays_revoked() {
    let held = Held::holding_nothing_revoked();
    held.hold(&Made { next_update: Some(NOW - 1), ..Made::new(8, NOW) }.revoking(held.revoked(1)), &held.issuing);
    assert_eq!(held.judge(), Err(PeerRefusal::Revoked { at: UnixTime::from_seconds(NOW - 60) }));
}

#[test]
fn revoked_between_two_requests_and_released_from_hold() {
    let held = Held::holding_nothing_revoked();
    assert_eq!(held.judge(), Ok(()));
    held.hold(&Made::new(8, NOW).revoking(held.revoked(6)), &held.issuing);
    assert_eq!(held.judge(), Err(PeerRefusal::OnHold));
    held.hold(&Made::new(9, NOW), &held.issuing);
    assert_eq!(held.judge(), Ok(()), "released");
    held.hold(&Made::new(10, NOW).revoking(held.revoked(1)), &held.issuing);
    assert_eq!(held.judge(), Err(PeerRefusal::Revoked { at: UnixTime::from_seconds(NOW - 60) }));
}

#[test]
fn a_revoked_intermediate_takes_what_is_below_it_along() {
    for reason in [1, 6] {
        let held = Held::holding_nothing_revoked();
        let revoked = Revoked::certificate(&held.issuing.certificate, NOW - 60).because(reason);
        held.hold(&Made::new(8, NOW).revoking(revoked), &held.root);
        assert_eq!(held.judge(), Err(PeerRefusal::IssuerRevoked));
    }
}

#[test]
fn the_same_serial_number_of_another_issuer() {
    let held = Held::holding_nothing_revoked();
    held.hold(&Made::new(8, NOW).revoking(held.revoked(1)), &held.root);
    assert_eq!(held.judge(), Ok(()));
}

#[test]
fn a_rewritten_signature_does_not_hide_a_serial_number() {
    let held = Held::holding_nothing_revoked();
    let twin = held.client.rewritten().unwrap();
    assert!(held.verifier.verify_at_once(&presented(&twin), &held.scene.client(), now()).is_ok());
    held.hold(&Made::new(8, NOW).revoking(held.revoked(1)), &held.issuing);
    let refused = held.verifier.verify_at_once(&presented(&twin), &held.scene.client(), now()).map(drop);
    assert_eq!(refused, Err(PeerRefusal::Revoked { at: UnixTime::from_seconds(NOW - 60) }));
}

#[test]
fn another_path_is_tried_where_one_is_revoked() {
    // The intermediate's key is certified twice: by a certificate that is revoked, and by one that is not.
    let held = Held::holding_nothing_revoked();
    let again = held.root.sign(&Template::authority(held.issuing.name.clone(), NOW - 5), &held.issuing.key.spki());
    let revoked = Revoked::certificate(&held.issuing.certificate, NOW - 60);
    held.hold(&Made::new(8, NOW).revoking(revoked), &held.root);
    let mut chain = held.client.chain.clone();
    assert_eq!(held.judge(), Err(PeerRefusal::IssuerRevoked));
    chain.push(again);
    let peer = crate::pki::scene::presented_list(&chain);
    assert!(held.verifier.verify_at_once(&peer, &held.scene.client(), now()).is_ok());
}

const POINT: &str = "http://crl.example/lists/1";

#[test]
fn a_partition_speaks_for_certificates_that_name_it() {
    let at = |uri: &str| Made { distribution_point: point(|point| point.uris = vec![uri.to_owned()]), ..list() };
    let naming = |points: &'static [&'static str]| {
        let held = Held::with(
            |_| {},
            |leaf| {
                if !points.is_empty() {
                    leaf.extensions.push(distribution_points(points));
                }
            },
        );
        held.hold(&list(), &held.root);
        held
    };
    let held = naming(&[POINT]);
    held.hold(&at("http://crl.example/lists/2"), &held.issuing);
    assert_eq!(held.judge(), unknown_because(UnknownStatus::NotCovered), "another point");
    held.hold(&at(POINT), &held.issuing);
    assert_eq!(held.judge(), Ok(()));
    let several = naming(&["http://crl.example/lists/3", POINT]);
    several.hold(&at(POINT), &several.issuing);
    assert_eq!(several.judge(), Ok(()), "one of its points");
    let none = naming(&[]);
    none.hold(&at(POINT), &none.issuing);
    assert_eq!(none.judge(), unknown_because(UnknownStatus::NotCovered), "it names no point");
    none.hold(&list(), &none.issuing);
    assert_eq!(none.judge(), Ok(()), "a list that speaks for all");
    // Points that cannot be read are none.
    let unreadable = Held::with(|_| {}, |leaf| leaf.extensions.push(extension(31, false, vec![0x30, 1, 0])));
    unreadable.hold(&list(), &unreadable.root);
    unreadable.hold(&at(POINT), &unreadable.issuing);
    assert_eq!(unreadable.judge(), unknown_because(UnknownStatus::NotCovered));
    // A partition and a list for all are two lists: neither takes the other's place.
    let both = naming(&[POINT]);
    both.hold(&Made::new(9, NOW).revoking(both.revoked(1)), &both.issuing);
    both.hold(&at(POINT), &both.issuing);
    assert!(matches!(both.judge(), Err(PeerRefusal::Revoked { .. })));
}

#[test]
fn lists_for_one_kind_of_certificate() {
    let users = || point(|point| point.users = true);
    let authorities = || point(|point| point.authorities = true);
    for (of_root, of_issuing, expected) in [
        (authorities(), users(), Ok(())),
        (users(), users(), unknown_because(UnknownStatus::NotCovered)),
        (authorities(), authorities(), unknown_because(UnknownStatus::NotCovered)),
    ] {
        let held = Held::new();
        held.hold(&Made { distribution_point: of_root, ..list() }, &held.root);
        held.hold(&Made { distribution_point: of_issuing, ..list() }, &held.issuing);
        assert_eq!(held.judge(), expected);
    }
}

#[test]
fn a_participants_lists_say_nothing_of_anothers_certificates() {
    // The same names throughout, other keys: partner B revokes the serial number that partner A's authority gave.
    let held = Held::holding_nothing_revoked();
    let other = held.root.twin();
    let made = Made::new(99, NOW).revoking(held.revoked(1));
    held.lists.put(&verify(&made.signed_by(&other), &issuers(&other, &[]), now()).unwrap().list);
    assert_eq!(held.judge(), Ok(()));
    assert_eq!(judged(&made.signed_by(&other), &held.root).map(drop), Err(ListRefusal::SignatureInvalid));
}

#[test]
fn names_that_are_not_uris_make_no_point() {
    let directory = made::tlv(0xA0, made::tlv(0xA0, made::tlv(0xA4, Name::common("Point").to_der())));
    let of_issuer = Extension { oid: vec![2, 5, 29, 28], critical: true, value: made::sequence([directory]) };
    let held = Held::new();
    held.hold(&list(), &held.root);
    held.hold(&Made { extensions: vec![of_issuer], ..list() }, &held.issuing);
    assert_eq!(held.judge(), unknown_because(UnknownStatus::NotCovered));
}

/// The list of RFC 5280 Appendix C.4: what is read in it. That it is not believed is told in `rfc_examples`.
#[test]
fn what_the_list_of_rfc_5280_says() {
    let pem = include_str!("../../../tests/vectors/rfc/rfc5280-c4-crl.pem");
    let der = CertificateRevocationListDer::from_pem_slice(pem.as_bytes()).unwrap();
    let list = CertificateList::read(&der).unwrap();
    assert_eq!(list.number, Serial::of(&[12]).unwrap());
    assert_eq!(
        (list.this_update.as_seconds(), list.next_update.as_seconds()),
        (1_107_604_800, 1_107_691_200) // 2005-02-05T12:00:00Z, a day later
    );
    assert_eq!(list.scope, Scope::default());
    assert_eq!(crate::pki::identity::name_text(list.issuer).unwrap(), "CN=Example CA,DC=example,DC=com");
    // The end entity of C.2: "serial number 18 … The reason for revocation was key compromise."
    let revoked = Entry { serial: Serial::of(&[0x12]).unwrap(), reason: CrlReason::KeyCompromise, at: 1_100_879_823 };
    assert_eq!(list.index().unwrap(), [revoked]); // 2004-11-19T15:57:03Z
}
