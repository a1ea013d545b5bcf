//! Who is let through and who is not: each test starts from a peer that is good and breaks one thing.

use std::sync::Arc;
use std::time::Duration;

use countersign_conformance::KeyKind;
use countersign_conformance::pki::{
    AltName, Authority, BasicConstraints, Credential, Defect, KeyUsage, Name, Template, purpose,
};
use countersign_resource_server::time::UnixTime;

use super::scene::{NOW, Scene, anchor_id, now, presented, presented_list};
use super::{PeerRefusal, Standing, Verifier};
use crate::registry::client::{ClientAuthentication, SubjectAttribute};
use crate::registry::trust_anchor::{AnchorMaterial, AnchorState, EkuPolicy, NameSpace};

fn verify(scene: &Scene, credential: &Credential) -> Result<Standing, PeerRefusal> {
    verify_at(scene, credential, now())
}

fn verify_at(scene: &Scene, credential: &Credential, now: UnixTime) -> Result<Standing, PeerRefusal> {
    Verifier::new().verify_at_once(&presented(credential), &scene.client(), now).map(|peer| peer.standing().clone())
}

fn chained(authority: &Authority) -> Result<Standing, PeerRefusal> {
    Ok(Standing::Chained { anchor: anchor_id(&authority.certificate) })
}

fn dns(names: &[&str]) -> Vec<AltName> {
    names.iter().map(|name| AltName::Dns((*name).to_owned())).collect()
}

fn client() -> Template {
    Template::client(Name::common("client"), NOW)
}

#[test]
fn a_leaf_under_the_participants_anchor() {
    let root = Authority::root("Partner A CA", NOW);
    let scene = Scene::new("partner-a").trusting(&root);
    let credential = root.client("client");
    let peer = Verifier::new().verify_at_once(&presented(&credential), &scene.client(), now()).unwrap();
    assert_eq!(Ok(peer.standing().clone()), chained(&root));
    assert_eq!(peer.thumbprint().to_string(), credential.thumbprint());
    let root_key = crate::registry::KeyHash::of(&root.key.spki());
    assert_eq!(peer.issuer_key(), Some(&root_key));
}

#[test]
fn intermediates_and_the_end_of_the_path() {
    let root = Authority::root("Root", NOW);
    let mut template = Template::authority(Name::common("Issuing"), NOW);
    template.not_after = NOW + 1_000;
    let issuing = root.intermediate_with(&template);
    let scene = Scene::new("partner-a").trusting(&root);
    let peer = Verifier::new().verify_at_once(&presented(&issuing.client("client")), &scene.client(), now()).unwrap();
    // The earliest notAfter in the path, which is not the leaf's.
    assert_eq!(peer.not_after(), UnixTime::from_seconds(NOW + 1_000));
    assert_eq!(peer.issuer_key(), Some(&crate::registry::KeyHash::of(&issuing.key.spki())));
}

#[test]
fn no_certificate() {
    let scene = Scene::new("partner-a");
    assert_eq!(
        Verifier::new().verify_at_once(&presented_list(&[]), &scene.client(), now()).map(|_| ()),
        Err(PeerRefusal::NoCertificate)
    );
}

#[test]
fn another_participants_authority_issues_the_victims_name() {
    let (ours, theirs) = (Authority::root("Partner A CA", NOW), Authority::root("Partner B CA", NOW));
    let victim = Scene::new("partner-a").trusting(&ours);
    assert_eq!(verify(&victim, &theirs.client("client")), Err(PeerRefusal::IssuerUnknown));
}

#[test]
fn an_authority_of_the_same_name_with_another_key() {
    let ours = Authority::root("Shared Name CA", NOW);
    let theirs = ours.twin();
    let victim = Scene::new("partner-a").trusting(&ours);
    let attacker = Scene::new("partner-b").trusting(&theirs);
    assert_eq!(verify(&victim, &theirs.client("client")), Err(PeerRefusal::SignatureInvalid));
    assert_eq!(verify(&attacker, &theirs.client("client")), chained(&theirs));
    // Both granted to one participant: the key decides.
    let both = Scene::new("partner-c").trusting(&ours).trusting(&theirs);
    assert_eq!(verify(&both, &theirs.client("client")), chained(&theirs));
    assert_eq!(verify(&both, &ours.client("client")), chained(&ours));
}

#[test]
fn what_one_participant_may_is_not_remembered_for_another() {
    let (ours, theirs) = (Authority::root("Partner A CA", NOW), Authority::root("Partner B CA", NOW));
    let verifier = Verifier::new();
    let peer = presented(&theirs.client("client"));
    let attacker = Scene::new("partner-b").trusting(&theirs);
    assert!(verifier.verify_at_once(&peer, &attacker.client(), now()).is_ok());
    let victim = Scene::new("partner-a").trusting(&ours);
    assert_eq!(verifier.verify_at_once(&peer, &victim.client(), now()).map(|_| ()), Err(PeerRefusal::IssuerUnknown));
    // Nor where the sets have the same anchors and the name space alone differs.
    let confined = NameSpace { dn_suffixes: vec!["O=Partner C".to_owned()], ..NameSpace::default() };
    let other = Scene::new("partner-c").trusting_within(&theirs, confined);
    assert!(matches!(
        verifier.verify_at_once(&peer, &other.client(), now()).map(|_| ()),
        Err(PeerRefusal::OutsideNameSpace { .. })
    ));
}

#[test]
fn a_shared_anchor_vouches_for_each_participants_own_names_only() {
    let shared = Authority::root("Operator CA", NOW);
    let suffix =
        |organisation: &str| NameSpace { dn_suffixes: vec![format!("O={organisation},C=DE")], ..NameSpace::default() };
    let a = Scene::new("partner-a").trusting_within(&shared, suffix("Partner A"));
    let b = Scene::new("partner-b").trusting_within(&shared, suffix("Partner B"));
    let of = |organisation| {
        let subject = Name::of(&[("C", "DE"), ("O", organisation), ("CN", "client")]);
        shared.issue(&Template::client(subject, NOW), KeyKind::P256)
    };
    assert_eq!(verify(&a, &of("Partner A")), chained(&shared));
    assert_eq!(verify(&b, &of("Partner B")), chained(&shared));
    for (scene, other) in [(&a, "Partner B"), (&b, "Partner A")] {
        assert!(matches!(verify(scene, &of(other)), Err(PeerRefusal::OutsideNameSpace { .. })));
    }
}

#[test]
fn every_name_of_the_leaf_is_inside_the_name_space() {
    let root = Authority::root("Partner A CA", NOW);
    let space = NameSpace {
        any: false,
        dn_suffixes: vec!["CN=client".to_owned()],
        dns_suffixes: vec!["a.example".to_owned()],
        uri_prefixes: vec!["https://a.example/clients".to_owned()],
    };
    let scene = Scene::new("partner-a").trusting_within(&root, space);
    let with = |names: Vec<AltName>| verify(&scene, &root.issue(&client().with_alt_names(names), KeyKind::P256));
    let uri = |text: &str| vec![AltName::Uri(text.to_owned())];
    let email = |text: &str| vec![AltName::Email(text.to_owned())];
    for good in [
        dns(&["a.example"]),
        dns(&["x.A.example", "b.a.example"]),
        uri("https://a.example/clients/7"),
        uri("https://A.example/clients"),
        email("ops@mail.a.example"),
    ] {
        assert_eq!(with(good.clone()), chained(&root), "{good:?}");
    }
    for bad in [
        dns(&["a.example", "b.example"]),
        dns(&["xa.example"]),
        dns(&["a.example.evil.example"]),
        dns(&["*.a.example"]),
        dns(&["a.example."]),
        uri("https://a.example/clientsx"),
        uri("https://a.example/clients/../admin"),
        uri("https://a.example@evil.example/clients"),
        uri("https://a.example.evil/clients/7"),
        email("ops@b.example"),
        vec![AltName::Ip([192, 0, 2, 7].into())],
        vec![AltName::Other(vec![1, 3, 6, 1, 4, 1, 311, 20, 2, 3], vec![0x0C, 0x01, b'x'])],
        vec![AltName::Directory(Name::common("client"))],
    ] {
        assert!(matches!(with(bad.clone()), Err(PeerRefusal::OutsideNameSpace { .. })), "{bad:?}");
    }
}

#[test]
fn an_empty_name_space_vouches_for_nothing() {
    let root = Authority::root("Partner A CA", NOW);
    let scene = Scene::new("partner-a").trusting_within(&root, NameSpace::default());
    assert!(matches!(verify(&scene, &root.client("client")), Err(PeerRefusal::OutsideNameSpace { .. })));
    let nameless = root.issue(&Template::client(Name::default(), NOW), KeyKind::P256);
    assert!(matches!(verify(&scene, &nameless), Err(PeerRefusal::OutsideNameSpace { .. })));
}

#[test]
fn one_defect_each() {
    let root = Authority::root("Partner A CA", NOW);
    let scene = Scene::new("partner-a").trusting(&root);
    for defect in Defect::ALL {
        let expected = match defect {
            Defect::CaTrue | Defect::KeyCertSign => PeerRefusal::IsAuthority,
            Defect::DuplicateExtension => PeerRefusal::Malformed,
            Defect::Expired | Defect::ExpiredLongAgo => PeerRefusal::Expired,
            Defect::NoDigitalSignature => PeerRefusal::KeyUsageForbids,
            Defect::NotYetValid | Defect::PeriodReversed => PeerRefusal::NotYetValid,
            Defect::PurposeCodeSigning | Defect::PurposeServerAuth => PeerRefusal::PurposeMissing,
            Defect::TwoSpiffeIds => PeerRefusal::SpiffeIdAmbiguous,
            Defect::UnknownCriticalExtension => PeerRefusal::CriticalExtensionUnknown,
            Defect::Version1 | Defect::Version2 => PeerRefusal::VersionUnsupported,
        };
        let credential = root.issue(&client().with(*defect, NOW), KeyKind::P256);
        assert_eq!(verify(&scene, &credential), Err(expected), "{defect:?}");
    }
    assert_eq!(verify(&scene, &root.client("client").with_broken_signature()), Err(PeerRefusal::SignatureInvalid));
    let self_signed = Credential::self_signed(&client(), KeyKind::P256);
    assert_eq!(verify(&scene, &self_signed), Err(PeerRefusal::IssuerUnknown));
}

#[test]
fn both_edges_of_the_validity() {
    let root = Authority::root("Partner A CA", NOW);
    let scene = Scene::new("partner-a").trusting(&root);
    let mut template = client();
    (template.not_before, template.not_after) = (NOW - 100, NOW + 100);
    let credential = root.issue(&template, KeyKind::P256);
    let at =
        |seconds, millis| verify_at(&scene, &credential, UnixTime::from_millis(seconds * 1000 + millis)).map(|_| ());
    assert_eq!(at(NOW - 101, 999), Err(PeerRefusal::NotYetValid));
    assert_eq!(at(NOW - 100, 0), Ok(()));
    assert_eq!(at(NOW + 100, 999), Ok(())); // the last second belongs to it
    assert_eq!(at(NOW + 101, 0), Err(PeerRefusal::Expired));
}

#[test]
fn a_kept_connection_is_judged_at_each_request() {
    let root = Authority::root("Root", NOW);
    let mut template = Template::authority(Name::common("Issuing"), NOW);
    template.not_after = NOW + 60;
    let credential = root.intermediate_with(&template).client("client");
    let scene = Scene::new("partner-a").trusting(&root);
    let (verifier, peer) = (Verifier::new(), presented(&credential));
    assert!(verifier.verify_at_once(&peer, &scene.client(), now()).is_ok());
    let later = now().after(Duration::from_secs(61));
    assert_eq!(verifier.verify_at_once(&peer, &scene.client(), later).map(|_| ()), Err(PeerRefusal::IssuerOutOfDate));
    let much_later = now().after(Duration::from_secs(91 * 86_400));
    assert_eq!(verifier.verify_at_once(&peer, &scene.client(), much_later).map(|_| ()), Err(PeerRefusal::Expired));
    // And a clock that was set back finds it good again: a refusal is never remembered.
    assert!(verifier.verify_at_once(&peer, &scene.client(), now()).is_ok());
}

#[test]
fn a_search_that_led_nowhere_is_repeated_when_anything_could_be_different() {
    let root = Authority::root("Partner A CA", NOW);
    let credential = root.client("client");
    let verifier = Verifier::new();
    let narrow = Scene::new("partner-a").trusting_within(&root, NameSpace::default());
    let mut wide = Scene::new("partner-a").trusting(&root);
    assert_eq!(wide.record.anchor_set, narrow.record.anchor_set);
    let look = |scene: &Scene, seconds| {
        let peer = presented(&credential);
        verifier
            .verify_at_once(&peer, &scene.client(), UnixTime::from_seconds(seconds))
            .map(|peer| peer.standing().clone())
    };
    let refused = Err(PeerRefusal::OutsideNameSpace { name: "every name".to_owned() });
    assert_eq!(look(&narrow, NOW), refused);
    // No record changes under its version: whoever asks again in this second is answered without another search.
    assert_eq!(look(&wide, NOW), refused);
    assert_eq!(look(&wide, NOW + 1), chained(&root));
    wide.record.as_of = crate::registry::RegistryVersion(2);
    assert_eq!(look(&wide, NOW), chained(&root));
}

#[test]
fn a_subject_longer_than_any_name_is_not_read() {
    let root = Authority::root("Partner A CA", NOW);
    let scene = Scene::new("partner-a").trusting(&root);
    // Each attribute takes more octets in DER than as text.
    let of = |attributes: usize| {
        let subject = Name::of(&vec![("CN", "12345678"); attributes]);
        (subject.to_der().len(), verify(&scene, &root.issue(&Template::client(subject, NOW), KeyKind::P256)))
    };
    let (fits, longer) = (of(215), of(216));
    assert!(fits.0 <= 4096 && longer.0 > 4096, "{} {}", fits.0, longer.0);
    assert_eq!(fits.1, chained(&root));
    assert_eq!(longer.1, Err(PeerRefusal::NameMalformed));
}

#[test]
fn a_remembered_path_gives_way_to_another() {
    // The issuing key is certified twice; the certificate that ends first is remembered, then the other has to be found.
    let root = Authority::root("Root", NOW);
    let mut short = Template::authority(Name::common("Issuing"), NOW);
    short.not_after = NOW + 60;
    let issuing = root.intermediate_with(&short);
    let long = root.sign(&Template::authority(Name::common("Issuing"), NOW), &issuing.key.spki());
    let mut credential = issuing.client("client");
    credential.chain.push(long);
    let scene = Scene::new("partner-a").trusting(&root);
    let (verifier, peer) = (Verifier::new(), presented(&credential));
    let first = verifier.verify_at_once(&peer, &scene.client(), now()).unwrap();
    assert_eq!(first.not_after(), UnixTime::from_seconds(NOW + 60));
    let later = verifier.verify_at_once(&peer, &scene.client(), now().after(Duration::from_secs(61))).unwrap();
    assert!(later.not_after() > first.not_after());
}

#[test]
fn a_name_space_that_shrinks_counts_at_once() {
    let root = Authority::root("Partner A CA", NOW);
    let (verifier, peer) = (Verifier::new(), presented(&root.client("client")));
    let before = Scene::new("partner-a").trusting(&root);
    assert!(verifier.verify_at_once(&peer, &before.client(), now()).is_ok());
    let after = Scene::new("partner-a")
        .trusting_within(&root, NameSpace { dn_suffixes: vec!["O=Partner A".to_owned()], ..NameSpace::default() });
    assert_eq!(before.record.anchor_set, after.record.anchor_set);
    assert!(matches!(
        verifier.verify_at_once(&peer, &after.client(), now()).map(|_| ()),
        Err(PeerRefusal::OutsideNameSpace { .. })
    ));
}

#[test]
fn a_retired_anchor_vouches_no_more() {
    let root = Authority::root("Partner A CA", NOW);
    let any = NameSpace { any: true, ..NameSpace::default() };
    let retired =
        Scene::new("partner-a").granting(&root.certificate, |anchor| anchor.state = AnchorState::Retired, any);
    assert_eq!(verify(&retired, &root.client("client")), Err(PeerRefusal::AnchorRetired));
    let other = Authority::root("Another CA", NOW);
    assert_eq!(verify(&retired, &other.client("client")), Err(PeerRefusal::IssuerUnknown));
}

#[test]
fn purposes_by_the_anchors_policy() {
    let root = Authority::root("Partner A CA", NOW);
    let with = |policy, purposes: &[&[u64]]| {
        let any = NameSpace { any: true, ..NameSpace::default() };
        let scene = Scene::new("partner-a").granting(&root.certificate, |anchor| anchor.eku_policy = policy, any);
        let mut template = client();
        template.purposes = purposes.iter().map(|purpose| purpose.to_vec()).collect();
        verify(&scene, &root.issue(&template, KeyKind::P256)).is_ok()
    };
    let cases: [(&[&[u64]], [bool; 3]); 5] = [
        (&[], [true, true, false]),
        (&[purpose::CLIENT_AUTH], [true, true, true]),
        (&[purpose::SERVER_AUTH, purpose::CLIENT_AUTH], [true, true, true]),
        (&[purpose::SERVER_AUTH], [true, false, false]),
        (&[purpose::ANY], [true, false, false]),
    ];
    for (purposes, expected) in cases {
        let found = [EkuPolicy::Any, EkuPolicy::IfPresent, EkuPolicy::Required].map(|policy| with(policy, purposes));
        assert_eq!(found, expected, "{purposes:?}");
    }
}

#[test]
fn an_intermediate_for_servers_only_issues_no_clients() {
    let root = Authority::root("Root", NOW);
    let mut template = Template::authority(Name::common("Issuing"), NOW);
    template.purposes = vec![purpose::SERVER_AUTH.to_vec()];
    let scene = Scene::new("partner-a").trusting(&root);
    let credential = root.intermediate_with(&template).client("client");
    assert_eq!(verify(&scene, &credential), Err(PeerRefusal::PurposeMissing));
}

#[test]
fn keys_at_both_edges() {
    let root = Authority::root("Partner A CA", NOW);
    let scene = Scene::new("partner-a").trusting(&root);
    for kind in [KeyKind::Ed25519, KeyKind::P256, KeyKind::P384, KeyKind::P521, KeyKind::Rsa2048, KeyKind::Rsa4096] {
        assert_eq!(verify(&scene, &root.issue(&client(), kind)), chained(&root), "{kind:?}");
    }
    for kind in [KeyKind::Rsa1024, KeyKind::Rsa4224] {
        assert_eq!(verify(&scene, &root.issue(&client(), kind)), Err(PeerRefusal::KeyTooWeak), "{kind:?}");
    }
}

#[test]
fn an_intermediate_as_the_anchor() {
    let root = Authority::root("Root", NOW);
    let issuing = root.intermediate("Issuing");
    let scene = Scene::new("partner-a").trusting(&issuing);
    assert_eq!(verify(&scene, &issuing.client("client")), chained(&issuing));
    // What its issuer signs itself, or through another intermediate, is nobody's here.
    assert_eq!(verify(&scene, &root.client("client")), Err(PeerRefusal::IssuerUnknown));
    assert_eq!(verify(&scene, &root.intermediate("Other").client("client")), Err(PeerRefusal::IssuerUnknown));
}

#[test]
fn an_anchor_presented_as_the_leaf() {
    let root = Authority::root("client", NOW);
    let scene = Scene::new("partner-a").trusting(&root);
    assert_eq!(
        Verifier::new()
            .verify_at_once(&presented_list(std::slice::from_ref(&root.certificate)), &scene.client(), now())
            .map(|_| ()),
        Err(PeerRefusal::IsAuthority)
    );
}

#[test]
fn a_client_issues_a_certificate_for_the_victim() {
    let root = Authority::root("Partner A CA", NOW);
    let scene = Scene::new("partner-a").trusting(&root);
    let mut template = client();
    template.basic_constraints = None;
    let attacker = root.issue(&Template { subject: Name::common("attacker"), ..template }, KeyKind::P256);
    let mut forged = root.clone();
    (forged.name, forged.key) = (Name::common("attacker"), Arc::clone(&attacker.key));
    let mut credential = forged.client("client");
    credential.chain.extend(attacker.chain);
    assert_eq!(verify(&scene, &credential), Err(PeerRefusal::IssuerNotAuthority));
}

#[test]
fn an_intermediate_without_key_cert_sign() {
    let root = Authority::root("Root", NOW);
    let mut template = Template::authority(Name::common("Issuing"), NOW);
    template.key_usage = Some(vec![KeyUsage::CrlSign]);
    let scene = Scene::new("partner-a").trusting(&root);
    assert_eq!(
        verify(&scene, &root.intermediate_with(&template).client("client")),
        Err(PeerRefusal::IssuerNotAuthority)
    );
}

#[test]
fn path_lengths_of_intermediate_and_anchor() {
    let limited = |length| {
        let mut template = Template::authority(Name::common("Root"), NOW);
        template.basic_constraints = Some(BasicConstraints { ca: true, path_length: Some(length) });
        Authority::root_with(template, KeyKind::P256, NOW)
    };
    for (length, expected) in [(0, false), (1, true)] {
        let root = limited(length);
        let scene = Scene::new("partner-a").trusting(&root);
        let found = verify(&scene, &root.intermediate("Issuing").client("client"));
        assert_eq!(found, if expected { chained(&root) } else { Err(PeerRefusal::PathTooLong) });
    }
}

#[test]
fn name_constraints_of_an_intermediate() {
    let root = Authority::root("Root", NOW);
    let mut template = Template::authority(Name::common("Issuing"), NOW);
    template.permitted = dns(&["a.example"]);
    let issuing = root.intermediate_with(&template);
    let scene = Scene::new("partner-a").trusting(&root);
    let with = |name| verify(&scene, &issuing.issue(&client().with_alt_names(dns(&[name])), KeyKind::P256));
    assert_eq!(with("x.a.example"), chained(&root));
    assert_eq!(with("x.b.example"), Err(PeerRefusal::NameConstraintViolated));
}

#[test]
fn an_anchor_out_of_date_vouches_for_nothing() {
    let mut template = Template::authority(Name::common("Root"), NOW);
    template.not_after = NOW + 60;
    let root = Authority::root_with(template, KeyKind::P256, NOW);
    let scene = Scene::new("partner-a").trusting(&root);
    let credential = root.client("client");
    let at = |seconds| verify_at(&scene, &credential, UnixTime::from_seconds(seconds));
    assert_eq!(at(NOW + 60), chained(&root));
    assert_eq!(at(NOW + 61), Err(PeerRefusal::AnchorOutOfDate));
}

#[test]
fn a_cross_signed_leaf_is_taken_under_the_anchor_whose_name_space_it_is_in() {
    // One issuing key, certified by two anchors; only one of them may vouch for the name.
    let (one, other) = (Authority::root("One", NOW), Authority::root("Other", NOW));
    let issuing = one.intermediate("Issuing");
    let crossed = issuing.cross_signed_by(&other);
    let mut credential = issuing.client("client");
    credential.chain.extend(crossed.client("client").chain.into_iter().skip(1));
    let nothing = NameSpace { dns_suffixes: vec!["elsewhere.example".to_owned()], ..NameSpace::default() };
    let scene = Scene::new("partner-a").trusting_within(&one, nothing.clone()).trusting(&other);
    assert_eq!(verify(&scene, &credential), chained(&other));
    let neither = Scene::new("partner-a").trusting_within(&one, nothing.clone()).trusting_within(&other, nothing);
    assert!(matches!(verify(&neither, &credential), Err(PeerRefusal::OutsideNameSpace { .. })));
}

#[test]
fn a_broken_anchor_stops_no_other() {
    let root = Authority::root("Partner A CA", NOW);
    let broken = Authority::root("Broken", NOW);
    let any = NameSpace { any: true, ..NameSpace::default() };
    let scene = Scene::new("partner-a").trusting(&root).granting(
        &broken.certificate,
        |anchor| {
            let AnchorMaterial::X509 { certificate_der } = &mut anchor.material else { panic!("an X.509 anchor") };
            certificate_der.pop();
        },
        any.clone(),
    );
    assert_eq!(verify(&scene, &root.client("client")), chained(&root));
    // An anchor filed under another key's hash is not taken for that key.
    let misfiled =
        Scene::new("partner-a").granting(&broken.certificate, |anchor| anchor.id = anchor_id(&root.certificate), any);
    assert_eq!(verify(&misfiled, &broken.client("client")), Err(PeerRefusal::IssuerUnknown));
}

#[test]
fn no_octet_of_a_leaf_can_be_bent() {
    let root = Authority::root("Partner A CA", NOW);
    let (scene, verifier) = (Scene::new("partner-a").trusting(&root), Verifier::new());
    let good = root.client("client");
    for place in 0..good.certificate().len() {
        for bits in [0x01, 0x80, 0xFF] {
            let mut bent = good.chain.clone();
            bent[0][place] ^= bits;
            let verified = verifier.verify_at_once(&presented_list(&bent), &scene.client(), now());
            assert!(verified.is_err(), "octet {place} bent by {bits:#04x}");
        }
    }
}

#[test]
fn a_hostile_list_is_cut_before_paths_are_sought() {
    // Eight anchors of one name, and intermediates that all could follow each other.
    let mut scene = Scene::new("partner-a");
    let authorities: Vec<_> = (0..8).map(|_| Authority::root("Same", NOW)).collect();
    for authority in &authorities {
        scene = scene.trusting(authority);
    }
    let stranger = Authority::root("Same", NOW);
    let mut credential = stranger.client("client");
    credential.chain.extend((0..4).map(|_| stranger.twin().certificate));
    let peer = presented(&credential);
    assert_eq!(peer.intermediates().len(), 2);
    let refusal = Verifier::new().verify_at_once(&peer, &scene.client(), now()).map(|_| ()).unwrap_err();
    assert!(matches!(refusal, PeerRefusal::SignatureInvalid | PeerRefusal::PathTooComplex), "{refusal:?}");
}

mod registered {
    use super::*;
    use crate::registry::certificate::CertificateState;

    fn self_signed() -> Scene {
        Scene::new("partner-a")
            .authenticating(ClientAuthentication::SelfSignedTlsClientAuth { jwks: r#"{"keys":[]}"#.to_owned() })
    }

    #[test]
    fn a_certificate_on_record_needs_no_chain() {
        for template in [client(), client().with(Defect::CaTrue, NOW), client().with(Defect::Version1, NOW)] {
            let credential = Credential::self_signed(&template, KeyKind::P256);
            let scene = self_signed().enrolled(credential.certificate(), |_| {});
            let peer = Verifier::new().verify_at_once(&presented(&credential), &scene.client(), now()).unwrap();
            assert_eq!(*peer.standing(), Standing::Registered);
            assert_eq!((peer.anchor(), peer.issuer_key()), (None, None));
        }
    }

    #[test]
    fn its_dates_count() {
        let credential = Credential::self_signed(&client().with(Defect::Expired, NOW), KeyKind::P256);
        let scene = self_signed().enrolled(credential.certificate(), |_| {});
        assert_eq!(verify(&scene, &credential), Err(PeerRefusal::Expired));
        assert_eq!(verify_at(&scene, &credential, UnixTime::from_seconds(NOW - 1)), Ok(Standing::Registered));
    }

    #[test]
    fn a_good_chain_does_not_stand_in_for_the_record() {
        let root = Authority::root("Partner A CA", NOW);
        let scene = self_signed().trusting(&root);
        assert_eq!(verify(&scene, &root.client("client")), Err(PeerRefusal::NotRegistered));
    }

    #[test]
    fn same_key_and_name_are_not_the_same_certificate() {
        let credential = Credential::self_signed(&client(), KeyKind::P256);
        let scene = self_signed().enrolled(credential.certificate(), |_| {});
        let rewritten = credential.rewritten().unwrap();
        assert_eq!(verify(&scene, &rewritten), Err(PeerRefusal::NotRegistered));
        let other = Credential::self_signed(&client(), KeyKind::P256);
        assert_eq!(verify(&scene, &other), Err(PeerRefusal::NotRegistered));
    }

    fn private_key_jwt(name: Option<&str>) -> Scene {
        let subject = name
            .map(|name| super::super::identity::subject_rule(SubjectAttribute::TlsClientAuthSubjectDn, name).unwrap());
        Scene::new("partner-a").authenticating(ClientAuthentication::PrivateKeyJwt {
            jwks: r#"{"keys":[]}"#.to_owned(),
            signing_alg: countersign_resource_server::token::jws::SigningAlgorithm::ES256,
            subject,
        })
    }

    #[test]
    fn private_key_jwt_takes_an_enrolled_certificate_or_a_chain_under_a_registered_name() {
        let root = Authority::root("Partner A CA", NOW);
        let credential = root.client("client");
        assert_eq!(verify(&private_key_jwt(None).trusting(&root), &credential), Err(PeerRefusal::NotRegistered));
        assert_eq!(verify(&private_key_jwt(Some("CN=client")).trusting(&root), &credential), chained(&root));
        assert_eq!(verify(&private_key_jwt(Some("CN=client")), &credential), Err(PeerRefusal::IssuerUnknown));
        let enrolled = private_key_jwt(None).enrolled(credential.certificate(), |_| {});
        assert_eq!(verify(&enrolled, &credential), Ok(Standing::Registered));
    }

    #[test]
    fn what_was_enrolled_on_an_anchors_word_still_needs_it() {
        let root = Authority::root("Partner A CA", NOW);
        let credential = root.client("client");
        let seen = |certificate: &mut crate::registry::certificate::Certificate| {
            certificate.anchor = Some(anchor_id(&root.certificate));
            certificate.state = CertificateState::Active;
        };
        let scene = private_key_jwt(Some("CN=client")).enrolled(credential.certificate(), seen);
        assert_eq!(verify(&scene.clone().trusting(&root), &credential), chained(&root));
        assert_eq!(verify(&scene, &credential), Err(PeerRefusal::IssuerUnknown));
    }
}
