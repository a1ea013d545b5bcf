//! Which bundles are taken, and which of their keys: each test starts from a good bundle and breaks one thing.

use countersign_conformance::pki::{AltName, Authority, BasicConstraints, KeyUsage, Name, Template};
use countersign_conformance::spiffe::{Domain, jwt_authority, x509_key};
use countersign_conformance::{Key, KeyKind};
use proptest::prelude::*;
use serde_json::json;

use super::*;
use crate::pki::scene::{NOW, now};

fn domain() -> Domain {
    Domain::new("a.example", NOW)
}

fn name() -> TrustDomain {
    TrustDomain::parse("a.example").unwrap()
}

fn parse(text: &str) -> Result<Bundle, MalformedBundle> {
    Bundle::parse(text.as_bytes(), &name())
}

fn of(keys: &[Value]) -> Bundle {
    parse(&countersign_conformance::spiffe::bundle(1, keys)).unwrap()
}

/// Why the one key is set aside.
fn set_aside(key: Value) -> UnusableAuthority {
    let mut bundle = of(&[key]);
    assert!(bundle.is_empty());
    bundle.set_aside.remove(0).reason
}

#[test]
fn both_kinds_of_key_with_sequence_and_hint() {
    let domain = domain();
    let bundle = parse(&domain.bundle(9)).unwrap();
    assert_eq!((bundle.sequence, bundle.refresh_hint), (Some(9), Some(Duration::from_secs(300))));
    assert_eq!(bundle.x509_authorities, std::slice::from_ref(&domain.authority.certificate));
    assert!(bundle.jwt_authorities.by_kid(&domain.jwt_key.jwk_thumbprint()).is_some());
    assert_eq!(bundle.set_aside, []);
}

/// §4.2.2: ignored without a word, values compared with case.
#[test]
fn a_use_that_is_missing_or_not_known_is_ignored() {
    let domain = domain();
    for usage in [json!(null), json!("sig"), json!("X509-SVID"), json!("wit-svid"), json!(7)] {
        let mut keys = [domain.x509_key(), domain.jwt_authority()];
        keys[0]["use"] = usage.clone();
        keys[1]["use"] = usage.clone();
        let bundle = of(&keys);
        assert!(bundle.is_empty() && bundle.set_aside.is_empty(), "{usage}");
    }
    let mut unnamed = domain.jwt_authority();
    unnamed.as_object_mut().unwrap().remove("use");
    assert!(of(&[unnamed, json!(1), json!("x")]).is_empty());
    // A key of a type nobody knows, likewise, beside good ones.
    let unknown = json!({ "kty": "AKP", "use": "jwt-svid", "kid": "pq" });
    let bundle = of(&[unknown, domain.x509_key(), domain.jwt_authority()]);
    assert_eq!((bundle.x509_authorities.len(), bundle.jwt_authorities.keys().len()), (1, 1));
}

/// §4.1.3: all previously published keys are revoked.
#[test]
fn a_bundle_may_be_empty() {
    let bundle = parse(r#"{"keys":[]}"#).unwrap();
    assert!(bundle.is_empty() && bundle.sequence.is_none() && bundle.refresh_hint.is_none());
}

#[test]
fn what_is_no_bundle() {
    for wrong in ["", "[]", "{}", r#"{"keys":{}}"#, r#"{"keys":[],"keys":[]}"#, r#"{"keys":[]} x"#, r#"{"Keys":[]}"#] {
        assert_eq!(parse(wrong).unwrap_err(), MalformedBundle::Json, "{wrong}");
    }
    for wrong in ["-1", "1.0", "1e3", "\"1\"", "null", "18446744073709551616"] {
        assert_eq!(
            parse(&format!(r#"{{"keys":[],"spiffe_sequence":{wrong}}}"#)).unwrap_err(),
            MalformedBundle::Sequence,
            "{wrong}"
        );
        assert_eq!(
            parse(&format!(r#"{{"keys":[],"spiffe_refresh_hint":{wrong}}}"#)).unwrap_err(),
            MalformedBundle::RefreshHint,
            "{wrong}"
        );
    }
    // §4.1.1: 64 bits of precision at least.
    let largest = format!(r#"{{"keys":[],"spiffe_sequence":{}}}"#, u64::MAX);
    assert_eq!(parse(&largest).unwrap().sequence, Some(u64::MAX));
}

#[test]
fn both_edges_of_the_sizes() {
    let ignored = json!({ "kty": "oct" });
    assert!(parse(&countersign_conformance::spiffe::bundle(1, &vec![ignored.clone(); MOST_KEYS])).is_ok());
    let one_more = countersign_conformance::spiffe::bundle(1, &vec![ignored; MOST_KEYS + 1]);
    assert_eq!(parse(&one_more).unwrap_err(), MalformedBundle::TooLarge);
    let padded = |length: usize| format!(r#"{{"keys":[]{}}}"#, " ".repeat(length - 11));
    assert!(parse(&padded(LARGEST_BUNDLE_BYTES)).is_ok());
    assert_eq!(parse(&padded(LARGEST_BUNDLE_BYTES + 1)).unwrap_err(), MalformedBundle::TooLarge);
    let nested = format!(r#"{{"keys":[{}{}]}}"#, "[".repeat(100), "]".repeat(100));
    assert_eq!(parse(&nested).unwrap_err(), MalformedBundle::Json);
}

/// X509-SVID §6.1, §6.2.
#[test]
fn one_defect_of_an_x509_authority() {
    let domain = domain();
    let without = |member: &str| {
        let mut key = domain.x509_key();
        key.as_object_mut().unwrap().remove(member);
        set_aside(key)
    };
    let with = |member: &str, value: Value| {
        let mut key = domain.x509_key();
        key[member] = value;
        set_aside(key)
    };
    assert_eq!(without("x5c"), UnusableAuthority::NoCertificate);
    assert_eq!(with("x5c", json!([])), UnusableAuthority::NoCertificate);
    assert_eq!(with("x5c", json!("AAAA")), UnusableAuthority::NoCertificate);
    assert_eq!(with("x5c", json!([7])), UnusableKey::Malformed.into());
    assert_eq!(with("x5c", json!(["A_-A"])), UnusableKey::Malformed.into());
    assert_eq!(with("x5c", json!(["AAAA"])), UnusableKey::CertificateMismatch.into());
    assert_eq!(without("kty"), UnusableKey::Malformed.into());
    assert_eq!(with("d", json!("AAAA")), UnusableKey::Private.into());
    assert_eq!(with("x5c", domain.rotated().x509_key()["x5c"].clone()), UnusableKey::CertificateMismatch.into());

    let certified = |change: &dyn Fn(&mut Template)| {
        let mut template = Domain::authority_template("a.example", NOW);
        change(&mut template);
        set_aside(x509_key(&Authority::root_with(template, KeyKind::P256, NOW)))
    };
    let no_ca = Some(BasicConstraints { ca: false, path_length: None });
    assert_eq!(certified(&|template| template.basic_constraints = no_ca), UnfitAnchor::NotAnAuthority.into());
    assert_eq!(
        certified(&|template| template.key_usage = Some(vec![KeyUsage::DigitalSignature])),
        UnfitAnchor::NoKeyCertSign.into()
    );
    assert_eq!(certified(&|template| template.subject = Name::default()), UnfitAnchor::Nameless.into());
    let named = |uris: &'static [&'static str]| {
        certified(&move |template| {
            template.alt_names = uris.iter().map(|uri| AltName::Uri((*uri).to_owned())).collect();
        })
    };
    assert_eq!(named(&["spiffe://b.example"]), UnusableAuthority::Foreign);
    assert_eq!(named(&["spiffe://a.example.evil"]), UnusableAuthority::Foreign);
    assert_eq!(named(&["spiffe://a.example/path"]), UnusableAuthority::SpiffeId);
    assert_eq!(named(&["spiffe://A.example"]), UnusableAuthority::SpiffeId);
    assert_eq!(named(&["spiffe://a.example", "spiffe://a.example"]), UnusableAuthority::SpiffeId);
}

#[test]
fn what_an_x509_authority_may_be() {
    let nameless = Authority::root("A plain root", NOW);
    assert_eq!(of(&[x509_key(&nameless)]).x509_authorities, std::slice::from_ref(&nameless.certificate));
    // "All but the first MUST be ignored", whatever they are.
    let (domain, mut key) = (domain(), x509_key(&nameless));
    key["x5c"].as_array_mut().unwrap().extend([json!("not base64"), domain.x509_key()["x5c"][0].clone()]);
    key["kid"] = "a name it should not have".into();
    assert_eq!(of(&[key]).x509_authorities, std::slice::from_ref(&nameless.certificate));
    // The same certificate twice is one; P-384 and RSA are good for certificates.
    assert_eq!(of(&[domain.x509_key(), domain.x509_key()]).x509_authorities.len(), 1);
    for kind in [KeyKind::P384, KeyKind::Rsa2048] {
        let root = Authority::root_with(Template::authority(Name::common("Root"), NOW), kind, NOW);
        assert_eq!(of(&[x509_key(&root)]).x509_authorities.len(), 1, "{kind:?}");
    }
}

/// JWT-SVID §6.1.
#[test]
fn one_defect_of_a_jwt_authority() {
    let domain = domain();
    let mut nameless = domain.jwt_authority();
    nameless.as_object_mut().unwrap().remove("kid");
    assert_eq!(set_aside(nameless), UnusableAuthority::KidMissing);
    let with = |member: &str, value: Value| {
        let mut key = domain.jwt_authority();
        key[member] = value;
        set_aside(key)
    };
    assert_eq!(with("kid", json!("")), UnusableKey::Malformed.into());
    assert_eq!(with("kid", json!(7)), UnusableKey::Malformed.into());
    assert_eq!(with("x", json!("AAAA")), UnusableKey::Malformed.into());
    assert_eq!(with("alg", json!("RS256")), UnusableKey::Algorithm.into());
    assert_eq!(with("d", json!("AAAA")), UnusableKey::Private.into());
    assert_eq!(set_aside(jwt_authority(&Key::generate(KeyKind::P384))), UnusableKey::Kind.into());
}

#[test]
fn two_jwt_authorities_of_one_kid() {
    let domain = domain();
    let mut other = domain.rotated().jwt_authority();
    other["kid"] = domain.jwt_key.jwk_thumbprint().into();
    let text = countersign_conformance::spiffe::bundle(1, &[domain.jwt_authority(), other]);
    assert!(matches!(parse(&text), Err(MalformedBundle::KidRepeated { .. })));
}

#[test]
fn what_comes_after_what() {
    let (one, other) = (domain(), domain());
    let bundle = |sequence: Option<u64>, domain: &Domain| {
        let mut bundle: Value = serde_json::from_str(&domain.bundle(0)).unwrap();
        match sequence {
            Some(sequence) => bundle["spiffe_sequence"] = sequence.into(),
            None => drop(bundle.as_object_mut().unwrap().remove("spiffe_sequence")),
        }
        parse(&bundle.to_string()).unwrap()
    };
    for (came, held, expected) in [
        ((Some(2), &other), (Some(1), &one), Succession::Newer),
        ((Some(1), &other), (Some(1), &one), Succession::Same), // whatever it says
        ((Some(1), &other), (Some(2), &one), Succession::Older),
        ((Some(u64::MAX), &one), (Some(u64::MAX - 1), &one), Succession::Newer),
        ((None, &one), (None, &one), Succession::Same),
        ((None, &other), (None, &one), Succession::Newer),
        ((None, &other), (Some(9), &one), Succession::Newer),
        ((Some(0), &one), (None, &one), Succession::Newer),
    ] {
        assert_eq!(bundle(came.0, came.1).succession(&bundle(held.0, held.1)), expected, "{came:?} {held:?}");
    }
}

#[test]
fn what_is_lost_from_one_bundle_to_the_next() {
    let (old, new) = (domain(), domain());
    let before = of(&[old.x509_key(), old.jwt_authority()]);
    let lost = |keys: &[Value]| of(keys).lost(&before, now());
    let (nothing, x509, jwt) = (Lost::default(), Lost { x509: true, jwt: false }, Lost { x509: false, jwt: true });
    assert_eq!(lost(&[old.x509_key(), old.jwt_authority()]), nothing);
    assert_eq!(lost(&[new.x509_key(), new.jwt_authority(), old.jwt_authority(), old.x509_key()]), nothing);
    assert_eq!(lost(&[new.x509_key(), old.jwt_authority()]), x509);
    assert_eq!(lost(&[old.x509_key(), new.jwt_authority()]), jwt);
    assert_eq!(lost(&[]), Lost { x509: true, jwt: true });
    // Another key under the same name.
    let mut renamed = new.jwt_authority();
    renamed["kid"] = old.jwt_authority()["kid"].clone();
    assert_eq!(lost(&[old.x509_key(), renamed]), jwt);
    // An authority that has expired took all its tokens with it; in its last second it has not.
    let mut template = Domain::authority_template("a.example", NOW);
    template.not_after = NOW;
    let expiring = of(&[x509_key(&Authority::root_with(template, KeyKind::P256, NOW))]);
    assert_eq!(of(&[]).lost(&expiring, now()), x509);
    assert_eq!(of(&[]).lost(&expiring, now().after(Duration::from_secs(1))), nothing);
}

proptest! {
    #[test]
    fn hostile_bundles_are_answered(text in proptest::collection::vec(any::<u8>(), 0..200)) {
        let _answered = Bundle::parse(&text, &name());
    }

    #[test]
    fn a_bent_octet_never_panics(place in 0_usize..2_000, octet in any::<u8>()) {
        let mut text = BUNDLE.with(|bundle| bundle.clone().into_bytes());
        let place = place % text.len();
        text[place] = octet;
        let _answered = Bundle::parse(&text, &name());
    }
}

thread_local! {
    static BUNDLE: String = domain().bundle(1);
}
