//! Who is the client and who is not: each test starts from a proof that holds and breaks one thing.

use std::sync::Arc;

use countersign_conformance::forge::{Members, Signature, Token};
use countersign_conformance::pki::{AltName, Authority, Credential, Defect, Name, Template};
use countersign_conformance::{JwsAlgorithm, Key, KeyKind};
use countersign_resource_server::time::UnixTime;
use countersign_resource_server::token::jws::SigningAlgorithm;
use serde_json::json;

use super::*;
use crate::pki::Verifier;
use crate::pki::identity::subject_rule;
use crate::pki::scene::{NOW, Scene, now, presented};
use crate::registry::ClientId;
use crate::registry::client::SubjectAttribute;

const ISSUER: &str = "https://as.example";

/// When the first epoch began.
const NEVER_RESTORED: UnixTime = UnixTime::from_seconds(2);

fn peer(scene: &Scene, credential: &Credential) -> VerifiedPeer {
    Verifier::new().verify_at_once(&presented(credential), &scene.client(), now()).unwrap()
}

fn prove_with(
    scene: &Scene,
    credential: &Credential,
    assertion: Option<String>,
) -> Result<Option<UsedAssertion>, ClientAuthRefusal> {
    let peer = peer(scene, credential);
    let keys = RegisteredKeys::new();
    let assertion = assertion.map(ClientAssertion::JwtBearer);
    let assertion = check_assertion(&scene.record, assertion.as_ref(), ISSUER, &keys, NEVER_RESTORED, now())?;
    check_certificate(&scene.record, &peer, &keys)?;
    Ok(assertion)
}

mod tls_client_auth {
    use super::*;

    fn credential(root: &Authority, names: &[AltName]) -> Credential {
        let subject = Name::of(&[("C", "DE"), ("O", "Partner A"), ("CN", "client")]);
        root.issue(&Template::client(subject, NOW).with_alt_names(names.iter().cloned()), KeyKind::P256)
    }

    #[test]
    fn each_attribute_by_its_own_kind() {
        let root = Authority::root("Partner A CA", NOW);
        let names = [
            AltName::Dns("Client.a.example".to_owned()),
            AltName::Uri("https://a.example/client".to_owned()),
            AltName::Ip([192, 0, 2, 7].into()),
            AltName::Email("ops@a.example".to_owned()),
        ];
        let credential = credential(&root, &names);
        for (attribute, registered, other) in [
            (SubjectAttribute::TlsClientAuthSubjectDn, "CN=Client,O=partner a,C=DE", "C=DE,O=Partner A,CN=client"),
            (SubjectAttribute::TlsClientAuthSanDns, "client.A.example", "a.example"),
            (SubjectAttribute::TlsClientAuthSanUri, "https://a.example/client", "https://a.example/Client"),
            (SubjectAttribute::TlsClientAuthSanIp, "192.0.2.7", "::ffff:192.0.2.7"),
            (SubjectAttribute::TlsClientAuthSanEmail, "ops@A.example", "Ops@a.example"),
        ] {
            let scene = Scene::new("partner-a").trusting(&root);
            assert_eq!(prove_with(&scene.clone().named(attribute, registered), &credential, None), Ok(None));
            assert_eq!(
                prove_with(&scene.named(attribute, other), &credential, None),
                Err(ClientAuthRefusal::NameMismatch),
                "{other}"
            );
        }
    }

    #[test]
    fn the_same_text_under_another_kind() {
        let root = Authority::root("Partner A CA", NOW);
        let scene =
            Scene::new("partner-a").trusting(&root).named(SubjectAttribute::TlsClientAuthSanDns, "client.example");
        for names in [
            vec![AltName::Uri("client.example".to_owned())],
            vec![AltName::Email("a@client.example".to_owned())],
            vec![AltName::Directory(Name::common("client.example"))],
            vec![AltName::Dns("*.example".to_owned())],
            vec![AltName::Dns("client.example.".to_owned())],
            vec![],
        ] {
            let credential = credential(&root, &names);
            assert_eq!(prove_with(&scene, &credential, None), Err(ClientAuthRefusal::NameMismatch), "{names:?}");
        }
        let common_name = root.client("client.example");
        assert_eq!(prove_with(&scene, &common_name, None), Err(ClientAuthRefusal::NameMismatch));
        let second = [AltName::Dns("other.example".to_owned()), AltName::Dns("client.example".to_owned())];
        assert_eq!(prove_with(&scene, &credential(&root, &second), None), Ok(None));
    }

    #[test]
    fn another_client_of_the_same_participant() {
        let root = Authority::root("Partner A CA", NOW);
        let scene = Scene::new("partner-a").trusting(&root);
        assert_eq!(prove_with(&scene, &root.client("other"), None), Err(ClientAuthRefusal::NameMismatch));
    }

    #[test]
    fn an_assertion_gains_nothing() {
        let root = Authority::root("Partner A CA", NOW);
        let scene = Scene::new("partner-a").trusting(&root);
        let credential = root.client("client");
        let assertion = Token::assertion("client", ISSUER, NOW, "j", JwsAlgorithm::Es256, &credential.key).compact();
        assert_eq!(prove_with(&scene, &credential, Some(assertion)), Err(ClientAuthRefusal::AssertionUnexpected));
    }
}

mod self_signed {
    use super::*;

    fn scene(jwks: String, credential: &Credential) -> Scene {
        Scene::new("partner-a")
            .authenticating(ClientAuthentication::SelfSignedTlsClientAuth { jwks })
            .enrolled(credential.certificate(), |_| {})
    }

    fn credential() -> Credential {
        Credential::self_signed(&Template::client(Name::common("client"), NOW), KeyKind::P256)
    }

    #[test]
    fn any_of_the_registered_certificates() {
        let (one, other) = (credential(), credential());
        let jwks = json!({ "keys": [one.jwk(), other.jwk()] }).to_string();
        for credential in [&one, &other] {
            assert_eq!(prove_with(&scene(jwks.clone(), credential), credential, None), Ok(None));
        }
        let thumbprints: Vec<_> =
            registered_certificates(&jwks).unwrap().iter().map(|parsed| parsed.thumbprint().to_string()).collect();
        assert_eq!(thumbprints, [one.thumbprint(), other.thumbprint()]);
    }

    #[test]
    fn version_1_and_ca_true() {
        for defect in [Defect::Version1, Defect::CaTrue] {
            let template = Template::client(Name::common("client"), NOW).with(defect, NOW);
            let credential = Credential::self_signed(&template, KeyKind::P256);
            assert_eq!(prove_with(&scene(credential.jwks(), &credential), &credential, None), Ok(None), "{defect:?}");
        }
    }

    #[test]
    fn on_record_but_in_no_x5c() {
        let credential = credential();
        let mut key_alone = credential.jwk();
        key_alone.as_object_mut().unwrap().remove("x5c");
        let twin = credential.rewritten().unwrap();
        for jwks in [
            json!({ "keys": [] }).to_string(),
            json!({ "keys": [key_alone] }).to_string(),
            twin.jwks(), // same content and key, another signature
            json!({ "keys": [{ "kty": "EC", "x5c": [] }] }).to_string(),
        ] {
            assert_eq!(
                prove_with(&scene(jwks.clone(), &credential), &credential, None),
                Err(ClientAuthRefusal::CertificateNotInJwks),
                "{jwks}"
            );
        }
        assert_eq!(
            prove_with(&scene("{".to_owned(), &credential), &credential, None),
            Err(ClientAuthRefusal::JwksUnusable)
        );
    }

    #[test]
    fn only_the_first_of_an_x5c_is_the_clients() {
        let (one, other) = (credential(), credential());
        let mut jwk = one.jwk();
        jwk["x5c"].as_array_mut().unwrap().push(other.jwk()["x5c"][0].clone());
        let jwks = json!({ "keys": [jwk] }).to_string();
        assert_eq!(prove_with(&scene(jwks.clone(), &one), &one, None), Ok(None));
        assert_eq!(prove_with(&scene(jwks, &other), &other, None), Err(ClientAuthRefusal::CertificateNotInJwks));
    }
}

mod private_key_jwt {
    use super::*;

    struct Case {
        scene: Scene,
        credential: Credential,
        key: Key,
    }

    impl Case {
        /// A client whose key signs with `algorithm`, on a connection with an enrolled certificate.
        fn new(kind: KeyKind, signing_alg: SigningAlgorithm) -> Self {
            let key = Key::generate(kind);
            let mut jwk = key.jwk();
            jwk["kid"] = key.jwk_thumbprint().into();
            let credential = Authority::root("Nobody's CA", NOW).client("somebody");
            let scene = Scene::new("partner-a")
                .authenticating(ClientAuthentication::PrivateKeyJwt {
                    jwks: json!({ "keys": [jwk] }).to_string(),
                    signing_alg,
                    subject: None,
                })
                .enrolled(credential.certificate(), |_| {});
            Self { scene, credential, key }
        }

        fn es256() -> Self {
            Self::new(KeyKind::P256, SigningAlgorithm::ES256)
        }

        fn token(&self) -> Token<'_> {
            Token::assertion("client", ISSUER, NOW, "j", JwsAlgorithm::Es256, &self.key)
        }

        fn check(&self, assertion: String) -> Result<Option<UsedAssertion>, ClientAuthRefusal> {
            prove_with(&self.scene, &self.credential, Some(assertion))
        }

        fn claims(&self, change: impl FnOnce(Members) -> Members) -> Result<Option<UsedAssertion>, ClientAuthRefusal> {
            self.check(self.token().claims(change).compact())
        }

        fn header(&self, change: impl FnOnce(Members) -> Members) -> Result<Option<UsedAssertion>, ClientAuthRefusal> {
            self.check(self.token().header(change).compact())
        }
    }

    fn used() -> Result<Option<UsedAssertion>, ClientAuthRefusal> {
        Ok(Some(UsedAssertion {
            client_id: ClientId::parse("client").unwrap(),
            jti: "j".to_owned(),
            expires_at: UnixTime::from_seconds(NOW + 60),
        }))
    }

    #[test]
    fn every_algorithm() {
        for (kind, registered, algorithm, name) in [
            (KeyKind::P256, SigningAlgorithm::ES256, JwsAlgorithm::Es256, "ES256"),
            (KeyKind::Rsa2048, SigningAlgorithm::PS256, JwsAlgorithm::Ps256, "PS256"),
            (KeyKind::Ed25519, SigningAlgorithm::EdDSA, JwsAlgorithm::EdDsa, "EdDSA"),
            (KeyKind::Ed25519, SigningAlgorithm::Ed25519, JwsAlgorithm::EdDsa, "Ed25519"),
        ] {
            let case = Case::new(kind, registered);
            let token = Token::assertion("client", ISSUER, NOW, "j", algorithm, &case.key)
                .header(|header| header.with("alg", name));
            assert_eq!(case.check(token.compact()), used(), "{name}");
        }
    }

    #[test]
    fn its_certificate_does_not_stand_in_for_it() {
        let case = Case::es256();
        assert_eq!(prove_with(&case.scene, &case.credential, None), Err(ClientAuthRefusal::AssertionMissing));
    }

    #[test]
    fn of_before_a_restore() {
        let case = Case::es256();
        let check = |restored: i64, change: fn(Members) -> Members| {
            let assertion = ClientAssertion::JwtBearer(case.token().claims(change).compact());
            let (keys, restored) = (RegisteredKeys::new(), UnixTime::from_seconds(restored));
            check_assertion(&case.scene.record, Some(&assertion), ISSUER, &keys, restored, now())
        };
        let refused = Err(ClientAuthRefusal::AssertionOfBeforeRestore);
        // Its `iat` is now. Before the restore one was taken whose `iat` was ten seconds ahead.
        assert_eq!(check(NOW - 10, |claims| claims), used());
        assert_eq!(check(NOW - 9, |claims| claims), refused);
        assert_eq!(check(NOW, |claims| claims), refused);
        // By `nbf` as well as by `iat`: whichever is later.
        let not_before: fn(Members) -> Members = |claims| claims.with("iat", NOW - 300).with("nbf", NOW);
        assert_eq!(check(NOW - 10, not_before), used());
        assert_eq!(check(NOW - 9, not_before), refused);
        // Dated by neither, it is good once it ends later than any that was taken then: in a minute.
        let undated: fn(Members) -> Members = |claims| claims.without("iat");
        assert_eq!(check(NOW - 540, undated), used());
        assert_eq!(check(NOW - 539, undated), refused);
        // Dated long ago, it could not have ended so late.
        let late: fn(Members) -> Members = |claims| claims.with("iat", NOW - 3_600).with("exp", NOW + 600);
        assert!(check(NOW, late).is_ok());
        assert_eq!(check(NOW + 1, late), refused);
    }

    #[test]
    fn the_header() {
        let case = Case::es256();
        for typ in ["JWT", "jwt", "client-authentication+jwt", "application/client-authentication+jwt"] {
            assert_eq!(case.header(|header| header.with("typ", typ)), used(), "{typ}");
        }
        for typ in ["at+jwt", "", "dpop+jwt"] {
            assert_eq!(
                case.header(|header| header.with("typ", typ)),
                Err(ClientAuthRefusal::AssertionTypeWrong),
                "{typ}"
            );
        }
        assert_eq!(case.header(|header| header.without("kid")), used()); // one key: nothing to choose
        assert_eq!(case.header(|header| header.with("kid", "other")), Err(ClientAuthRefusal::AssertionKeyUnknown));
        assert_eq!(case.header(|header| header.with("crit", json!([]))), Err(ClientAuthRefusal::AssertionUnreadable));
        assert_eq!(case.header(|header| header.and("alg", "none")), Err(ClientAuthRefusal::AssertionUnreadable));
        for algorithm in ["none", "RS256", "HS256", "PS256", "EdDSA", "es256"] {
            assert_eq!(
                case.header(|header| header.with("alg", algorithm)),
                Err(ClientAuthRefusal::AssertionAlgorithmWrong),
                "{algorithm}"
            );
        }
    }

    #[test]
    fn the_key_is_the_clients_own() {
        let case = Case::es256();
        let stranger = Key::generate(KeyKind::P256);
        let kid = case.key.jwk_thumbprint();
        let forged = Token::assertion("client", ISSUER, NOW, "j", JwsAlgorithm::Es256, &stranger)
            .header(|header| header.with("kid", kid).with("jwk", stranger.jwk()));
        assert_eq!(case.check(forged.compact()), Err(ClientAuthRefusal::AssertionSignatureInvalid));
        let token = case.token();
        for signature in [Signature::None, Signature::Octets(&[0; 64]), Signature::Hs256(b"secret")] {
            assert_eq!(case.check(token.signed(signature)), Err(ClientAuthRefusal::AssertionSignatureInvalid));
        }
        // Its certificate's key is not among its assertion keys.
        let with_tls_key =
            Token::assertion("client", ISSUER, NOW, "j", JwsAlgorithm::Es256, &case.credential.key).compact();
        assert_eq!(case.check(with_tls_key), Err(ClientAuthRefusal::AssertionKeyUnknown));
    }

    #[test]
    fn issuer_subject_and_audience() {
        let case = Case::es256();
        for (name, refusal) in [
            ("iss", ClientAuthRefusal::AssertionIssuerWrong),
            ("sub", ClientAuthRefusal::AssertionSubjectWrong),
            ("aud", ClientAuthRefusal::AssertionAudienceWrong),
        ] {
            assert_eq!(case.claims(|claims| claims.without(name)), Err(refusal.clone()));
            for wrong in [json!("other"), json!(""), json!(null), json!(7), json!(["client"]), json!([ISSUER])] {
                assert_eq!(
                    case.claims(|claims| claims.with(name, wrong.clone())),
                    Err(refusal.clone()),
                    "{name} {wrong}"
                );
            }
        }
        for wrong in ["https://as.example/", "https://as.example/token", "HTTPS://as.example", "https://as.example "] {
            assert_eq!(
                case.claims(|claims| claims.with("aud", wrong)),
                Err(ClientAuthRefusal::AssertionAudienceWrong),
                "{wrong}"
            );
        }
        assert_eq!(case.claims(|claims| claims.and("aud", ISSUER)), Err(ClientAuthRefusal::AssertionClaimsMalformed));
    }

    #[test]
    fn both_edges_of_every_date() {
        let case = Case::es256();
        let at = |name: &str, value: serde_json::Value| {
            case.claims(|claims| claims.with(name, value)).map(|used| used.is_some())
        };
        assert_eq!(at("exp", json!(NOW)), Err(ClientAuthRefusal::AssertionExpired));
        assert_eq!(at("exp", json!(NOW + 1)), Ok(true));
        assert_eq!(at("exp", json!(NOW + 600)), Ok(true));
        assert_eq!(at("exp", json!(NOW + 601)), Err(ClientAuthRefusal::AssertionLivesTooLong));
        assert_eq!(at("exp", json!(1e300)), Err(ClientAuthRefusal::AssertionLivesTooLong));
        assert_eq!(at("exp", json!(-1e300)), Err(ClientAuthRefusal::AssertionExpired));
        assert_eq!(at("exp", json!(NOW as f64 + 0.5)), Ok(true));
        assert_eq!(at("exp", json!(i64::MAX)), Err(ClientAuthRefusal::AssertionLivesTooLong));
        assert_eq!(at("exp", json!(u64::MAX)), Err(ClientAuthRefusal::AssertionLivesTooLong));
        assert_eq!(case.claims(|claims| claims.without("exp")), Err(ClientAuthRefusal::AssertionExpiryMissing));
        for (name, refusal) in
            [("iat", ClientAuthRefusal::AssertionFromTheFuture), ("nbf", ClientAuthRefusal::AssertionNotYetValid)]
        {
            assert_eq!(at(name, json!(NOW + 10)), Ok(true));
            assert_eq!(at(name, json!(NOW + 11)), Err(refusal));
            assert_eq!(at(name, json!(0)), Ok(true));
            assert!(case.claims(|claims| claims.without(name)).is_ok());
        }
        for name in ["exp", "iat", "nbf"] {
            for wrong in [json!("1800000060"), json!(null), json!([NOW + 60]), json!(true)] {
                assert_eq!(at(name, wrong.clone()), Err(ClientAuthRefusal::AssertionClaimsMalformed), "{name} {wrong}");
            }
        }
    }

    #[test]
    fn jti() {
        let case = Case::es256();
        let with = |jti: serde_json::Value| case.claims(|claims| claims.with("jti", jti)).map(|_| ());
        assert_eq!(case.claims(|claims| claims.without("jti")), Err(ClientAuthRefusal::AssertionJtiMissing));
        assert_eq!(with(json!("x".repeat(256))), Ok(()));
        for wrong in [json!(""), json!("x".repeat(257)), json!(7), json!(null), json!("a\0"), json!("a\n")] {
            assert_eq!(with(wrong.clone()), Err(ClientAuthRefusal::AssertionJtiMalformed), "{wrong}");
        }
    }

    #[test]
    fn a_chained_certificate_carries_the_registered_name() {
        let root = Authority::root("Partner A CA", NOW);
        let mut case = Case::es256();
        let ClientAuthentication::PrivateKeyJwt { jwks, signing_alg, .. } = case.scene.record.client.authentication
        else {
            panic!("registered so");
        };
        let subject = Some(subject_rule(SubjectAttribute::TlsClientAuthSubjectDn, "CN=client").unwrap());
        case.scene = Scene::new("partner-a").trusting(&root).authenticating(ClientAuthentication::PrivateKeyJwt {
            jwks,
            signing_alg,
            subject,
        });
        case.credential = root.client("client");
        assert_eq!(case.check(case.token().compact()), used());
        case.credential = root.client("other");
        assert_eq!(case.check(case.token().compact()), Err(ClientAuthRefusal::NameMismatch));
        // Nor where it was enrolled on the anchor's word, under a name that was registered before.
        let anchor = case.scene.record.anchors[0].anchor.id.clone();
        case.scene = case.scene.enrolled(case.credential.certificate(), |known| known.anchor = Some(anchor));
        assert_eq!(case.check(case.token().compact()), Err(ClientAuthRefusal::NameMismatch));
        let ClientAuthentication::PrivateKeyJwt { subject, .. } = &mut case.scene.record.client.authentication else {
            panic!("registered so");
        };
        *subject = None;
        assert_eq!(case.check(case.token().compact()), used(), "a client that is known by no name");
    }
}

mod enrolment_policy {
    use super::*;

    #[test]
    fn on_first_use_and_required() {
        let root = Authority::root("Partner A CA", NOW);
        let mut scene = Scene::new("partner-a").trusting(&root);
        let credential = root.client("client");
        let verified = peer(&scene, &credential);
        let sighting = enrolment(&scene.record, &verified).unwrap().unwrap();
        assert_eq!(sighting.thumbprint, *verified.thumbprint());
        assert_eq!(sighting.issuer_key.as_ref(), verified.issuer_key());
        assert_eq!(sighting.anchor.as_ref(), verified.anchor());
        assert_eq!(sighting.subject, "CN=client");
        scene.record.client.enrolment = Enrolment::Required;
        assert_eq!(enrolment(&scene.record, &verified), Err(ClientAuthRefusal::CertificateNotEnrolled));
        let announced =
            scene.clone().enrolled(credential.certificate(), |known| known.state = CertificateState::Announced);
        assert_eq!(enrolment(&announced.record, &verified).map(|sighting| sighting.is_some()), Ok(true));
        let active = scene.enrolled(credential.certificate(), |_| {});
        assert_eq!(enrolment(&active.record, &verified), Ok(None));
    }

    /// As an import may have it that was written by hand.
    #[test]
    fn on_record_with_another_key_serial_or_issuer() {
        let root = Authority::root("Partner A CA", NOW);
        let scene = Scene::new("partner-a").trusting(&root);
        let credential = root.client("client");
        let verified = peer(&scene, &credential);
        let own = verified.issuer_key().copied();
        let other = crate::registry::KeyHash::of(b"other");
        let good = scene.clone().enrolled(credential.certificate(), |known| known.issuer_key = own);
        assert_eq!(enrolment(&good.record, &verified), Ok(None));
        let wrong: [fn(&mut Certificate, crate::registry::KeyHash); 3] = [
            |known, other| known.key_hash = other,
            |known, _| known.serial = "00".to_owned(),
            |known, other| known.issuer_key = Some(other),
        ];
        for change in wrong {
            for state in [CertificateState::Active, CertificateState::Announced] {
                let scene = scene.clone().enrolled(credential.certificate(), |known| {
                    known.state = state;
                    change(known, other);
                });
                assert_eq!(enrolment(&scene.record, &verified), Err(ClientAuthRefusal::CertificateRecordWrong));
            }
        }
    }

    #[test]
    fn a_rewritten_signature_makes_no_second_certificate() {
        let root = Authority::root("Partner A CA", NOW);
        let credential = root.client("client");
        let twin = credential.rewritten().unwrap();
        let issuer = crate::registry::KeyHash::of(&root.key.spki());
        // Seen before: its issuer is known. Announced: it is not, and its own key tells.
        for issuer_key in [Some(issuer), None] {
            let scene = Scene::new("partner-a")
                .trusting(&root)
                .enrolled(credential.certificate(), |known| known.issuer_key = issuer_key);
            let verified = peer(&scene, &twin);
            assert_ne!(verified.thumbprint().to_string(), credential.thumbprint());
            assert_eq!(enrolment(&scene.record, &verified), Err(ClientAuthRefusal::CertificateTwin));
        }
    }

    #[test]
    fn the_same_serial_of_another_issuer_is_another_certificate() {
        let (one, other) = (Authority::root("One", NOW), Authority::root("Other", NOW));
        let mut template = Template::client(Name::common("client"), NOW);
        template.serial = Some(vec![7]);
        let scene = Scene::new("partner-a")
            .trusting(&one)
            .trusting(&other)
            .enrolled(one.issue(&template, KeyKind::P256).certificate(), |known| {
                known.issuer_key = Some(crate::registry::KeyHash::of(&one.key.spki()))
            });
        let verified = peer(&scene, &other.issue(&template, KeyKind::P256));
        assert!(enrolment(&scene.record, &verified).unwrap().is_some());
    }
}

#[test]
fn a_jwk_set_is_parsed_once_and_never_taken_for_another() {
    let credential = Credential::self_signed(&Template::client(Name::common("client"), NOW), KeyKind::P256);
    let mut scene = Scene::new("partner-a")
        .authenticating(ClientAuthentication::SelfSignedTlsClientAuth { jwks: credential.jwks() });
    let keys = RegisteredKeys::new();
    let first = keys.of(&scene.record).unwrap();
    assert!(Arc::ptr_eq(&first, &keys.of(&scene.record).unwrap()));
    // The same client at the same version, as another history has it.
    scene = scene.authenticating(ClientAuthentication::SelfSignedTlsClientAuth { jwks: r#"{"keys":[]}"#.to_owned() });
    assert!(keys.of(&scene.record).unwrap().keys().is_empty());
}

mod put_on_record {
    use super::*;
    use crate::pki::anchor::check_anchor;
    use crate::registry::fixture::{any_name, because, client_id, participant, participant_id, registry};
    use crate::registry::{Registry, SightingRefusal};

    /// A registry with one participant, its authority as its anchor, and one client of the name `CN=client`.
    async fn enrolled(root: &Authority, enrolment: Enrolment) -> (tempfile::TempDir, Arc<Registry>) {
        let (directory, registry) = registry().await;
        registry.add_participant(participant("partner-a"), because("test")).await.unwrap();
        let scene = Scene::new("partner-a").trusting(root);
        let facts = check_anchor(&root.certificate, now()).unwrap();
        let anchor = (*scene.record.anchors[0].anchor).clone();
        registry.add_anchor(anchor, facts.subject_der, because("test")).await.unwrap();
        registry.grant_anchor(participant_id("partner-a"), facts.id, any_name(), because("test")).await.unwrap();
        let client = crate::registry::client::Client { enrolment, ..scene.record.client };
        registry.add_client(client, Vec::new(), because("test")).await.unwrap();
        (directory, registry)
    }

    async fn authenticate_with(registry: &Registry, credential: &Credential) -> Result<AuthenticatedClient, Refusal> {
        let (verifier, keys) = (Verifier::new(), RegisteredKeys::new());
        let client = registry.client(&client_id("client")).await?;
        let peer = verifier.verify_at_once(&presented(credential), &client, now())?;
        let context = Context { issuer: ISSUER, registry, keys: &keys, rates: None };
        authenticate(client, peer, None, &context, now()).await
    }

    #[tokio::test]
    async fn on_first_use_once() {
        let root = Authority::root("Partner A CA", NOW);
        let (_directory, registry) = enrolled(&root, Enrolment::OnFirstUse).await;
        let credential = root.client("client");
        let authenticated = authenticate_with(&registry, &credential).await.unwrap();
        let record = &authenticated.client().record;
        let certificate = record.certificate(authenticated.peer().thumbprint()).unwrap();
        assert_eq!(certificate.state, CertificateState::Active);
        assert_eq!(certificate.issuer_key.as_ref(), authenticated.peer().issuer_key());
        assert_eq!(certificate.anchor.as_ref(), authenticated.peer().anchor());
        let version = record.as_of;
        let again = authenticate_with(&registry, &credential).await.unwrap();
        assert_eq!(again.client().record.as_of, version);
        let twin = authenticate_with(&registry, &credential.rewritten().unwrap()).await;
        assert_eq!(twin.map(|_| ()), Err(ClientAuthRefusal::CertificateTwin.into()));
    }

    #[tokio::test]
    async fn beforehand_where_that_is_required() {
        let root = Authority::root("Partner A CA", NOW);
        let (_directory, registry) = enrolled(&root, Enrolment::Required).await;
        let credential = root.client("client");
        let refused = authenticate_with(&registry, &credential).await.map(|_| ());
        assert_eq!(refused, Err(ClientAuthRefusal::CertificateNotEnrolled.into()));
        let facts = crate::pki::ParsedCertificate::read(credential.certificate()).unwrap().for_enrolment();
        let thumbprint = facts.thumbprint;
        registry.add_certificate(client_id("client"), facts, because("test")).await.unwrap();
        let authenticated = authenticate_with(&registry, &credential).await.unwrap();
        let state = &authenticated.client().record.certificate(&thumbprint).unwrap().state;
        assert_eq!(*state, CertificateState::Active);
    }

    #[tokio::test]
    async fn a_certificate_of_another_client() {
        let root = Authority::root("Partner A CA", NOW);
        let (_directory, registry) = enrolled(&root, Enrolment::OnFirstUse).await;
        let other = Scene::new("partner-a").named(SubjectAttribute::TlsClientAuthSanDns, "other.example").record.client;
        let other = crate::registry::client::Client { id: client_id("other"), ..other };
        let credential = root.client("client");
        let facts = crate::pki::ParsedCertificate::read(credential.certificate()).unwrap().for_enrolment();
        registry.add_client(other, vec![facts], because("test")).await.unwrap();
        let refused = authenticate_with(&registry, &credential).await.map(|_| ());
        assert_eq!(refused, Err(SightingRefusal::CertificateTaken.into()));
    }
}
