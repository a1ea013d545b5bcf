//! Who is let through under a trust domain and who is not: each test starts from a good X509-SVID and breaks one thing.

use std::time::Duration;

use countersign_conformance::KeyKind;
use countersign_conformance::pki::{
    AltName, Attribute, Authority, BasicConstraints, Credential, Defect, KeyUsage, Name, Template, purpose,
};
use countersign_conformance::spiffe::{Domain, bundle, x509_key};

use super::scene::{NOW, Scene, anchor_id, now, presented};
use super::spiffe::{SpiffeId, TrustDomain};
use super::{PeerRefusal, Standing, Verifier};
use crate::registry::AnchorId;
use crate::registry::client::{ClientAuthentication, SubjectAttribute};
use crate::registry::trust_anchor::{AnchorState, NameSpace};

const ID: &str = "spiffe://a.example/client";

fn domain() -> Domain {
    Domain::new("a.example", NOW)
}

/// A client of partner A that is known by [`ID`], by the draft's method.
fn client() -> Scene {
    let subject = super::identity::subject_rule(SubjectAttribute::TlsClientAuthSanUri, ID).unwrap();
    Scene::new("partner-a").authenticating(ClientAuthentication::SpiffeX509 { subject })
}

/// The same by RFC 8705's.
fn by_uri() -> Scene {
    Scene::new("partner-a").named(SubjectAttribute::TlsClientAuthSanUri, ID)
}

fn verify(scene: &Scene, credential: &Credential) -> Result<Standing, PeerRefusal> {
    Verifier::new().verify_at_once(&presented(credential), &scene.client(), now()).map(|peer| peer.standing().clone())
}

fn svid(id: &str) -> Result<Standing, PeerRefusal> {
    let id = SpiffeId::parse(id).unwrap();
    Ok(Standing::Svid { anchor: AnchorId::of_trust_domain(&id.trust_domain()), id })
}

fn prefixes(prefixes: &[&str]) -> NameSpace {
    NameSpace { uri_prefixes: prefixes.iter().map(|prefix| (*prefix).to_owned()).collect(), ..NameSpace::default() }
}

#[test]
fn an_svid_of_the_trust_domain() {
    let domain = domain();
    for scene in [client(), by_uri()] {
        let scene = scene.trusting_domain(&domain);
        assert_eq!(verify(&scene, &domain.svid("/client")), svid(ID));
    }
    // Under an intermediate that is an SVID of the trust domain too, or none.
    for names in [vec![AltName::Uri("spiffe://a.example".to_owned())], vec![]] {
        let template = Template::authority(Name::common("Issuing"), NOW).with_alt_names(names);
        let issuing = domain.authority.intermediate_with(&template);
        let credential = issuing.issue(&domain.template("/client"), KeyKind::P256);
        assert_eq!(verify(&client().trusting_domain(&domain), &credential), svid(ID));
    }
    // What else it says of names is nobody's business (X509-SVID §2), the subject included.
    let more = domain.svid_with("/client", |template| {
        template.subject = Name::common("somebody else's name");
        template.alt_names.push(AltName::Dns("bank.example".to_owned()));
        template.alt_names.push(AltName::Ip([192, 0, 2, 7].into()));
    });
    assert_eq!(verify(&client().trusting_domain(&domain), &more), svid(ID));
}

/// X509-SVID §2 to §5: every MUST that a validator can see in a leaf.
#[test]
fn one_defect_of_a_leaf() {
    let domain = domain();
    let uri = |text: &str| AltName::Uri(text.to_owned());
    type Bend = Box<dyn Fn(&mut Template)>;
    let named = |names: Vec<AltName>| -> Bend { Box::new(move |template| template.alt_names = names.clone()) };
    let usage = |bits: Option<Vec<KeyUsage>>| -> Bend { Box::new(move |template| template.key_usage = bits.clone()) };
    let cases: Vec<(&str, Bend, PeerRefusal)> = vec![
        ("two SPIFFE IDs", named(vec![uri(ID), uri("spiffe://a.example/other")]), PeerRefusal::SpiffeIdAmbiguous),
        ("the id twice", named(vec![uri(ID), uri(ID)]), PeerRefusal::SpiffeIdAmbiguous),
        ("another URI", named(vec![uri("https://a.example/"), uri(ID)]), PeerRefusal::SpiffeIdAmbiguous),
        ("no URI", named(vec![AltName::Dns("a.example".to_owned())]), PeerRefusal::SpiffeIdMissing),
        ("no names", named(vec![]), PeerRefusal::SpiffeIdMissing),
        ("another scheme", named(vec![uri("https://a.example/client")]), PeerRefusal::SpiffeIdMissing),
        ("the scheme in upper case", named(vec![uri("SPIFFE://a.example/client")]), PeerRefusal::SpiffeIdMalformed),
        (
            "the trust domain in upper case",
            named(vec![uri("spiffe://A.example/client")]),
            PeerRefusal::SpiffeIdMalformed,
        ),
        ("no path", named(vec![uri("spiffe://a.example")]), PeerRefusal::SpiffeIdMalformed),
        ("a root path", named(vec![uri("spiffe://a.example/")]), PeerRefusal::SpiffeIdMalformed),
        ("a port", named(vec![uri("spiffe://a.example:443/client")]), PeerRefusal::SpiffeIdMalformed),
        ("a dot segment", named(vec![uri("spiffe://a.example/x/../client")]), PeerRefusal::SpiffeIdMalformed),
        ("a query", named(vec![uri("spiffe://a.example/client?x")]), PeerRefusal::SpiffeIdMalformed),
        ("the id as a DNS name", named(vec![AltName::Dns(ID.to_owned())]), PeerRefusal::SpiffeIdMissing),
        ("cA", Box::new(|template| *template = template.clone().with(Defect::CaTrue, NOW)), PeerRefusal::IsAuthority),
        ("no key usage", usage(None), PeerRefusal::SvidExtensionWrong),
        ("no digitalSignature", usage(Some(vec![KeyUsage::KeyEncipherment])), PeerRefusal::KeyUsageForbids),
        ("keyCertSign", usage(Some(vec![KeyUsage::DigitalSignature, KeyUsage::KeyCertSign])), PeerRefusal::IsAuthority),
        ("cRLSign", usage(Some(vec![KeyUsage::DigitalSignature, KeyUsage::CrlSign])), PeerRefusal::IsAuthority),
        (
            "a key usage that is not critical",
            Box::new(|template| {
                template.key_usage = None;
                template.extensions.push(countersign_conformance::pki::Extension {
                    oid: vec![2, 5, 29, 15],
                    critical: false,
                    value: countersign_conformance::der::named_bits(&[KeyUsage::DigitalSignature as u8]),
                });
            }),
            PeerRefusal::SvidExtensionWrong,
        ),
        (
            "serverAuth alone",
            Box::new(|template| template.purposes = vec![purpose::SERVER_AUTH.to_vec()]),
            PeerRefusal::PurposeMissing,
        ),
        ("expired", Box::new(|template| template.not_after = NOW - 1), PeerRefusal::Expired),
    ];
    let scene = client().trusting_domain(&domain);
    for (what, bend, refusal) in cases {
        assert_eq!(verify(&scene, &domain.svid_with("/client", bend)), Err(refusal), "{what}");
    }
    assert_eq!(verify(&scene, &domain.svid("/client").with_broken_signature()), Err(PeerRefusal::SignatureInvalid));
}

/// X509-SVID §3.1: a subject that is empty and names that are not critical cannot be made by the factory's template, which
/// writes RFC 5280 §4.2.1.6; its own extension can.
#[test]
fn names_that_are_not_critical_beside_an_empty_subject() {
    let domain = domain();
    let scene = client().trusting_domain(&domain);
    let credential = |subject: Name| {
        domain.svid_with("/client", |template| {
            template.subject = subject;
            let value = countersign_conformance::der::sequence([countersign_conformance::der::tlv(0x86, ID)]);
            template.alt_names.clear();
            template.extensions.push(countersign_conformance::pki::Extension {
                oid: vec![2, 5, 29, 17],
                critical: false,
                value,
            });
        })
    };
    assert_eq!(verify(&scene, &credential(Name::default())), Err(PeerRefusal::SvidExtensionWrong));
    assert_eq!(verify(&scene, &credential(Name(vec![vec![Attribute::new("O", "SPIRE")]]))), svid(ID));
}

/// What a leaf may say of its purposes: nothing, or clientAuth (X509-SVID §4.4 has it beside serverAuth).
#[test]
fn purposes_of_an_svid() {
    let domain = domain();
    let scene = client().trusting_domain(&domain);
    for purposes in [vec![], vec![purpose::CLIENT_AUTH.to_vec()]] {
        let credential = domain.svid_with("/client", |template| template.purposes = purposes.clone());
        assert_eq!(verify(&scene, &credential), svid(ID), "{purposes:?}");
    }
}

/// X509-SVID §3.2, §4.3.
#[test]
fn one_defect_of_an_intermediate() {
    let domain = domain();
    let scene = client().trusting_domain(&domain);
    let under = |change: &dyn Fn(&mut Template)| {
        let mut template = Template::authority(Name::common("Issuing"), NOW);
        change(&mut template);
        let issuing = domain.authority.intermediate_with(&template);
        verify(&scene, &issuing.issue(&domain.template("/client"), KeyKind::P256))
    };
    let named = |uri: &'static str| under(&move |template| template.alt_names = vec![AltName::Uri(uri.to_owned())]);
    assert_eq!(named("spiffe://a.example/issuing"), Err(PeerRefusal::IssuerSpiffeIdWrong));
    assert_eq!(named("spiffe://b.example"), Err(PeerRefusal::IssuerSpiffeIdWrong));
    assert_eq!(named("spiffe://a.example.evil"), Err(PeerRefusal::IssuerSpiffeIdWrong));
    assert_eq!(under(&|template| template.key_usage = None), Err(PeerRefusal::IssuerNotAuthority));
    assert_eq!(
        under(&|template| template.basic_constraints = Some(BasicConstraints { ca: false, path_length: None })),
        Err(PeerRefusal::IssuerNotAuthority)
    );
    assert_eq!(under(&|template| template.not_after = NOW - 1), Err(PeerRefusal::IssuerOutOfDate));
}

/// A workload that signs as if it were an authority.
#[test]
fn an_svid_issues_nothing() {
    let domain = domain();
    let pretended = Authority::pretended(Name::default(), &domain.svid("/other"), NOW);
    let credential = pretended.issue(&domain.template("/client"), KeyKind::P256);
    assert!(verify(&client().trusting_domain(&domain), &credential).is_err());
}

/// SPIFFE Federation §7.3: "the verifier must use only the bundle for the trust domain the SPIFFE ID resides in".
#[test]
fn an_id_of_one_trust_domain_signed_by_another() {
    let (ours, theirs) = (domain(), Domain::new("b.example", NOW));
    let forged = theirs.authority.issue(&ours.template("/client"), KeyKind::P256);
    for scene in [client(), by_uri()] {
        // Both granted to one participant.
        let both = scene.clone().trusting_domain(&ours).trusting_domain(&theirs);
        assert!(verify(&both, &ours.svid("/client")).is_ok());
        // Both roots are named alike, as SPIRE names them.
        assert_eq!(verify(&both, &forged), Err(PeerRefusal::SignatureInvalid));
        // Only the other is granted.
        let other = scene.trusting_domain(&theirs);
        assert_eq!(verify(&other, &ours.svid("/client")), Err(PeerRefusal::TrustDomainUnknown));
        assert_eq!(verify(&other, &forged), Err(PeerRefusal::TrustDomainUnknown));
        assert_eq!(verify(&other, &theirs.svid("/client")), svid("spiffe://b.example/client"));
    }
}

#[test]
fn trust_domains_that_look_alike() {
    let ours = domain();
    let both = client().trusting_domain(&ours);
    for name in ["a.example.evil", "a.exampl", "aa.example", "b.a.example", "a_example", "a-example"] {
        let evil = Domain::new(name, NOW);
        assert_eq!(verify(&both, &evil.svid("/client")), Err(PeerRefusal::TrustDomainUnknown), "{name}");
        let ours_says = ours.authority.issue(&evil.template("/client"), KeyKind::P256);
        assert_eq!(verify(&both, &ours_says), Err(PeerRefusal::TrustDomainUnknown), "{name}");
    }
}

#[test]
fn a_grant_confines_which_ids() {
    let domain = domain();
    let within = |space: NameSpace| {
        let scene = client().trusting_bundle("a.example", &domain.bundle(1), space);
        move |path: &str, domain: &Domain| verify(&scene, &domain.svid(path))
    };
    let outside = |path: &str| Err(PeerRefusal::OutsideNameSpace { name: format!("spiffe://a.example{path}") });
    let payments = within(prefixes(&["spiffe://a.example/payments/"]));
    assert_eq!(payments("/payments/x", &domain), svid("spiffe://a.example/payments/x"));
    for path in ["/payments", "/paymentsx/x", "/other/payments/x"] {
        assert_eq!(payments(path, &domain), outside(path));
    }
    assert_eq!(within(prefixes(&["spiffe://a.example/payments"]))("/paymentsx", &domain), outside("/paymentsx"));
    assert_eq!(within(NameSpace::default())("/client", &domain), outside("/client"));
    // Names of other kinds and prefixes of other trust domains let nothing in; `any` is all of this one.
    let others = NameSpace {
        dns_suffixes: vec!["a.example".to_owned()],
        dn_suffixes: vec!["O=Partner A".to_owned()],
        ..prefixes(&["spiffe://b.example/", "https://a.example/"])
    };
    assert_eq!(within(others)("/client", &domain), outside("/client"));
    assert_eq!(within(NameSpace { any: true, ..NameSpace::default() })("/client", &domain), svid(ID));
}

#[test]
fn a_rotation() {
    let (old, new) = (domain(), domain());
    let all = prefixes(&["spiffe://a.example/"]);
    let with = |keys: &[serde_json::Value]| client().trusting_bundle("a.example", &bundle(1, keys), all.clone());
    let before = with(&[old.x509_key()]);
    let both = with(&[old.x509_key(), new.x509_key()]);
    let after = with(&[new.x509_key()]);
    let (verifier, peer, next) = (Verifier::new(), presented(&old.svid("/client")), presented(&new.svid("/client")));
    let look =
        |peer, scene: &Scene| verifier.verify_at_once(peer, &scene.client(), now()).map(|peer| peer.standing().clone());
    assert_eq!(look(&peer, &before), svid(ID));
    assert_eq!(look(&next, &before), Err(PeerRefusal::SignatureInvalid));
    assert_eq!(look(&peer, &both), svid(ID));
    assert_eq!(look(&next, &both), svid(ID));
    // The path that was remembered does not outlive the bundle it was found under.
    assert_eq!(look(&peer, &after), Err(PeerRefusal::SignatureInvalid));
    assert_eq!(look(&next, &after), svid(ID));
    // All keys revoked (SPIFFE Trust Domain and Bundle §4.1.3).
    assert_eq!(look(&next, &with(&[])), Err(PeerRefusal::IssuerUnknown));
}

#[test]
fn a_retired_trust_domain() {
    let domain = domain();
    let mut scene = client().trusting_domain(&domain);
    let granted = &mut scene.record.anchors[0];
    let mut anchor = (*granted.anchor).clone();
    anchor.state = AnchorState::Retired;
    granted.anchor = anchor.into();
    scene.record.anchor_set = crate::registry::AnchorSetId::of(&scene.record.anchors);
    assert_eq!(verify(&scene, &domain.svid("/client")), Err(PeerRefusal::AnchorRetired));
}

#[test]
fn an_authority_that_is_out_of_date() {
    let mut template = Domain::authority_template("a.example", NOW);
    template.not_after = NOW + 60;
    let mut domain = domain();
    domain.authority = Authority::root_with(template, KeyKind::P256, NOW);
    let scene = client().trusting_domain(&domain);
    let (verifier, peer) = (Verifier::new(), presented(&domain.svid("/client")));
    let at = |seconds| {
        let now = now().after(Duration::from_secs(seconds));
        verifier.verify_at_once(&peer, &scene.client(), now).map(|peer| peer.standing().clone())
    };
    assert_eq!(at(60), svid(ID));
    assert_eq!(at(61), Err(PeerRefusal::AnchorOutOfDate));
}

/// A CA that was enrolled by itself may have been given a trust domain's URIs by name, and then by name only.
#[test]
fn a_certificate_authority_that_vouches_for_spiffe_ids() {
    let (domain, root) = (domain(), Authority::root("Partner A CA", NOW));
    let credential = root.issue(&domain.template("/client"), KeyKind::P256);
    let standing =
        |id: &str| Ok(Standing::Svid { anchor: anchor_id(&root.certificate), id: SpiffeId::parse(id).unwrap() });
    let named = client().trusting_within(&root, prefixes(&["spiffe://a.example/"]));
    assert_eq!(verify(&named, &credential), standing(ID));
    // Beside the trust domain itself, whose authorities did not sign it.
    assert_eq!(verify(&named.clone().trusting_domain(&domain), &credential), standing(ID));
    let refused = Err(PeerRefusal::OutsideNameSpace { name: ID.to_owned() });
    assert_eq!(verify(&client().trusting(&root), &credential), refused);
    // Who is known by a URI is not thereby a workload of a trust domain: there every name counts, as always.
    let chained = Ok(Standing::Chained { anchor: anchor_id(&root.certificate) });
    assert_eq!(verify(&by_uri().trusting(&root), &credential), chained);
    let both = by_uri().trusting_within(&root, prefixes(&["spiffe://a.example/"]));
    let more = root.issue(
        &domain.template("/client").with_alt_names([AltName::Uri(ID.to_owned()), AltName::Dns("x.example".to_owned())]),
        KeyKind::P256,
    );
    assert_eq!(verify(&both, &more), Err(PeerRefusal::OutsideNameSpace { name: "x.example".to_owned() }));
}

/// What one client may is not remembered for another that is known in another way.
#[test]
fn a_search_for_one_kind_of_name_is_none_for_the_other() {
    let (domain, root) = (domain(), Authority::root("Partner A CA", NOW));
    let peer = presented(&root.issue(&domain.template("/client"), KeyKind::P256));
    let verifier = Verifier::new();
    let (strict, lenient) = (client().trusting(&root), by_uri().trusting(&root));
    for _ in 0..2 {
        assert!(verifier.verify_at_once(&peer, &strict.client(), now()).is_err());
        assert!(verifier.verify_at_once(&peer, &lenient.client(), now()).is_ok());
    }
}

#[test]
fn authorities_of_one_name_beyond_the_limit_are_those_that_end_first() {
    let domains: Vec<Domain> = (0..10)
        .map(|number| {
            let mut template = Domain::authority_template("a.example", NOW);
            template.not_after = NOW + 1_000 + number;
            Domain { authority: Authority::root_with(template, KeyKind::P256, NOW), ..domain() }
        })
        .collect();
    let keys: Vec<_> = domains.iter().map(|domain| x509_key(&domain.authority)).collect();
    let scene = client().trusting_bundle("a.example", &bundle(1, &keys), prefixes(&["spiffe://a.example/"]));
    for (number, domain) in domains.iter().enumerate() {
        assert_eq!(verify(&scene, &domain.svid("/client")).is_ok(), number >= 2, "{number}");
    }
}

#[test]
fn a_trust_domain_never_vouches_for_who_is_no_workload() {
    let domain = domain();
    let scene = Scene::new("partner-a").trusting_domain(&domain);
    // The registered name is CN=client.
    let plain = domain.authority.client("client");
    assert_eq!(verify(&scene, &plain), Err(PeerRefusal::IssuerUnknown));
    assert_eq!(TrustDomain::parse("a.example").unwrap().prefix(), "spiffe://a.example/");
}
