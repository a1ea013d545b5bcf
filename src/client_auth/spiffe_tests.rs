//! Who is the client by a SPIFFE ID and who is not: each test starts from a proof that holds and breaks one thing.

use countersign_conformance::forge::{Members, Signature, Token};
use countersign_conformance::pki::{AltName, Authority, Credential, Name};
use countersign_conformance::spiffe::{Domain, bundle, jwt_authority};
use countersign_conformance::{JwsAlgorithm, Key, KeyKind};
use serde_json::json;

use super::*;
use crate::pki::Verifier;
use crate::pki::identity::subject_rule;
use crate::pki::scene::{NOW, Scene, now, presented};
use crate::registry::client::SubjectAttribute;
use crate::registry::trust_anchor::NameSpace;

const ISSUER: &str = "https://as.example";

/// When the first epoch began.
const NEVER_RESTORED: UnixTime = UnixTime::from_seconds(2);
const ID: &str = "spiffe://a.example/client";

fn rule() -> SubjectRule {
    subject_rule(SubjectAttribute::TlsClientAuthSanUri, ID).unwrap()
}

fn prove_by(
    scene: &Scene,
    credential: &Credential,
    assertion: Option<ClientAssertion>,
) -> Result<Option<UsedAssertion>, ClientAuthRefusal> {
    let peer = Verifier::new().verify_at_once(&presented(credential), &scene.client(), now()).unwrap();
    let keys = RegisteredKeys::new();
    let assertion = check_assertion(&scene.record, assertion.as_ref(), ISSUER, &keys, NEVER_RESTORED, now())?;
    check_certificate(&scene.record, &peer, &keys)?;
    Ok(assertion)
}

mod x509 {
    use super::*;

    fn scene(domain: &Domain) -> Scene {
        Scene::new("partner-a")
            .trusting_domain(domain)
            .authenticating(ClientAuthentication::SpiffeX509 { subject: rule() })
    }

    #[test]
    fn the_registered_id() {
        let domain = Domain::new("a.example", NOW);
        assert_eq!(prove_by(&scene(&domain), &domain.svid("/client"), None), Ok(None));
        let by_uri = Scene::new("partner-a").trusting_domain(&domain).named(SubjectAttribute::TlsClientAuthSanUri, ID);
        assert_eq!(prove_by(&by_uri, &domain.svid("/client"), None), Ok(None));
    }

    #[test]
    fn another_workload_of_the_trust_domain() {
        let domain = Domain::new("a.example", NOW);
        for path in ["/other", "/Client", "/client/x", "/clien"] {
            assert_eq!(
                prove_by(&scene(&domain), &domain.svid(path), None),
                Err(ClientAuthRefusal::NameMismatch),
                "{path}"
            );
        }
    }

    #[test]
    fn the_same_path_in_another_trust_domain_of_the_participant() {
        let (ours, theirs) = (Domain::new("a.example", NOW), Domain::new("b.example", NOW));
        let both = scene(&ours).trusting_domain(&theirs);
        assert_eq!(prove_by(&both, &theirs.svid("/client"), None), Err(ClientAuthRefusal::NameMismatch));
    }

    /// Under a trust domain nothing but the SPIFFE ID is a name.
    #[test]
    fn names_that_a_trust_domain_does_not_vouch_for() {
        let domain = Domain::new("a.example", NOW);
        let credential = domain.svid_with("/client", |template| {
            template.subject = Name::common("client");
            template.alt_names.push(AltName::Dns("client.example".to_owned()));
            template.alt_names.push(AltName::Ip([192, 0, 2, 7].into()));
            template.alt_names.push(AltName::Email("client@a.example".to_owned()));
        });
        for (attribute, value) in [
            (SubjectAttribute::TlsClientAuthSubjectDn, "CN=client"),
            (SubjectAttribute::TlsClientAuthSanDns, "client.example"),
            (SubjectAttribute::TlsClientAuthSanIp, "192.0.2.7"),
            (SubjectAttribute::TlsClientAuthSanEmail, "client@a.example"),
        ] {
            let scene = Scene::new("partner-a").trusting_domain(&domain).named(attribute, value);
            assert_eq!(prove_by(&scene, &credential, None), Err(ClientAuthRefusal::NameMismatch), "{value}");
        }
    }

    #[test]
    fn an_assertion_gains_nothing() {
        let domain = Domain::new("a.example", NOW);
        let token = domain.jwt_svid("/client", ISSUER).compact();
        for assertion in [ClientAssertion::JwtSpiffe(token.clone()), ClientAssertion::JwtBearer(token.clone())] {
            assert_eq!(
                prove_by(&scene(&domain), &domain.svid("/client"), Some(assertion)),
                Err(ClientAuthRefusal::AssertionUnexpected)
            );
        }
    }
}

mod jwt {
    use super::*;

    struct Case {
        domain: Domain,
        scene: Scene,
        credential: Credential,
    }

    impl Case {
        fn new() -> Self {
            Self::of(Domain::new("a.example", NOW))
        }

        fn of(domain: Domain) -> Self {
            let scene = Scene::new("partner-a")
                .trusting_domain(&domain)
                .authenticating(ClientAuthentication::SpiffeJwt { subject: rule() });
            Self { credential: domain.svid("/client"), scene, domain }
        }

        fn token(&self) -> Token<'_> {
            self.domain.jwt_svid("/client", ISSUER)
        }

        fn check(&self, assertion: String) -> Result<Option<UsedAssertion>, ClientAuthRefusal> {
            prove_by(&self.scene, &self.credential, Some(ClientAssertion::JwtSpiffe(assertion)))
        }

        fn claims(&self, change: impl FnOnce(Members) -> Members) -> Result<Option<UsedAssertion>, ClientAuthRefusal> {
            self.check(self.token().claims(change).compact())
        }

        fn header(&self, change: impl FnOnce(Members) -> Members) -> Result<Option<UsedAssertion>, ClientAuthRefusal> {
            self.check(self.token().header(change).compact())
        }
    }

    /// JWT-SVID §7.1: shown again, it is as good as before.
    #[test]
    fn the_registered_id_as_often_as_it_likes() {
        let case = Case::new();
        let token = case.token().compact();
        assert_eq!(case.check(token.clone()), Ok(None));
        assert_eq!(case.check(token), Ok(None));
        assert_eq!(case.claims(|claims| claims.with("jti", "j").with("iss", "https://spire.example")), Ok(None));
    }

    /// The registered id was changed since its certificate was enrolled: that one is another workload's now.
    #[test]
    fn a_certificate_enrolled_under_an_id_that_was_registered_before() {
        let mut case = Case::new();
        case.credential = case.domain.svid("/before");
        let anchor = case.scene.record.anchors[0].anchor.id.clone();
        case.scene = case.scene.enrolled(case.credential.certificate(), |known| known.anchor = Some(anchor));
        assert_eq!(case.check(case.token().compact()), Err(ClientAuthRefusal::NameMismatch));
        // Enrolled by an operator, on nobody's word, it is this client's whatever it is called.
        case.scene.record.certificates[0].anchor = None;
        assert_eq!(case.check(case.token().compact()), Ok(None));
    }

    #[test]
    fn what_its_header_may_be() {
        let case = Case::new();
        assert_eq!(case.header(|header| header.without("typ")), Ok(None));
        for typ in ["JWT", "JOSE"] {
            assert_eq!(case.header(|header| header.with("typ", typ)), Ok(None), "{typ}");
        }
        for typ in ["at+jwt", "client-authentication+jwt", "wit+jwt", ""] {
            let refused = Err(ClientAuthRefusal::AssertionTypeWrong);
            assert_eq!(case.header(|header| header.with("typ", typ)), refused, "{typ}");
        }
        for (name, value) in [
            ("jwk", case.domain.jwt_key.jwk()),
            ("jku", json!("https://evil.example/jwks")),
            ("x5c", json!(["AAAA"])),
            ("x5t#S256", json!("AAAA")),
            ("cty", json!("JWT")),
            ("private", json!(1)),
        ] {
            let refused = Err(ClientAuthRefusal::AssertionHeaderForeign);
            assert_eq!(case.header(|header| header.with(name, value)), refused, "{name}");
        }
        assert_eq!(
            case.header(|header| header.with("crit", json!(["exp"]))),
            Err(ClientAuthRefusal::AssertionUnreadable)
        );
    }

    #[test]
    fn algorithms() {
        let key = Arc::new(Key::generate(KeyKind::Rsa2048));
        let case = Case::of(Domain { jwt_key: Arc::clone(&key), ..Domain::new("a.example", NOW) });
        let signed = |algorithm: JwsAlgorithm| {
            let mut token = case.token().header(|header| header.with("alg", algorithm.as_str()));
            token.algorithm = algorithm;
            case.check(token.compact())
        };
        assert_eq!(signed(JwsAlgorithm::Ps256), Ok(None));
        assert_eq!(signed(JwsAlgorithm::Rs256), Err(ClientAuthRefusal::AssertionAlgorithmWrong));
        let case = Case::new();
        for wrong in ["none", "HS256", "EdDSA", "Ed25519", "RS256", "ES384", "es256"] {
            assert_eq!(
                case.header(|header| header.with("alg", wrong)),
                Err(ClientAuthRefusal::AssertionAlgorithmWrong),
                "{wrong}"
            );
        }
        // JWT-SVID §2.1 has no EdDSA, though the bundle could hold such a key.
        let key = Arc::new(Key::generate(KeyKind::Ed25519));
        let case = Case::of(Domain { jwt_key: key, ..Domain::new("a.example", NOW) });
        let mut token = case.token().header(|header| header.with("alg", "EdDSA"));
        token.algorithm = JwsAlgorithm::EdDsa;
        assert_eq!(case.check(token.compact()), Err(ClientAuthRefusal::AssertionAlgorithmWrong));
    }

    #[test]
    fn keys() {
        let case = Case::new();
        let refused = Err(ClientAuthRefusal::AssertionKeyUnknown);
        assert_eq!(case.header(|header| header.without("kid")), refused);
        assert_eq!(case.header(|header| header.with("kid", "another")), refused);
        // A key that is in the bundle for certificates signs no assertion.
        let authority = &case.domain.authority.key;
        let token = Token { key: authority, ..case.token() };
        assert_eq!(case.check(token.compact()), Err(ClientAuthRefusal::AssertionSignatureInvalid));
        assert_eq!(
            case.check(token.header(|header| header.with("kid", authority.jwk_thumbprint())).compact()),
            refused
        );
        for signature in [Signature::None, Signature::Octets(&[0; 64])] {
            assert_eq!(case.check(case.token().signed(signature)), Err(ClientAuthRefusal::AssertionSignatureInvalid));
        }
    }

    /// Another trust domain of the same participant signs the victim's id, under a name of its own and under the victim's.
    #[test]
    fn an_id_of_one_trust_domain_signed_by_another() {
        let ours = Case::new();
        let theirs = Domain::new("b.example", NOW);
        let mut borrowed = jwt_authority(&theirs.jwt_key);
        borrowed["kid"] = ours.domain.jwt_key.jwk_thumbprint().into();
        let all = NameSpace { any: true, ..NameSpace::default() };
        let scene =
            ours.scene.clone().trusting_bundle("b.example", &bundle(1, &[theirs.jwt_authority(), borrowed]), all);
        let check =
            |token: Token<'_>| prove_by(&scene, &ours.credential, Some(ClientAssertion::JwtSpiffe(token.compact())));
        assert_eq!(check(ours.token()), Ok(None));
        let forged = Token { key: &theirs.jwt_key, ..ours.token() };
        assert_eq!(check(forged.clone()), Err(ClientAuthRefusal::AssertionSignatureInvalid));
        assert_eq!(
            check(forged.header(|header| header.with("kid", theirs.jwt_key.jwk_thumbprint()))),
            Err(ClientAuthRefusal::AssertionKeyUnknown)
        );
    }

    #[test]
    fn subjects() {
        let case = Case::new();
        let refused = Err(ClientAuthRefusal::AssertionSubjectWrong);
        assert_eq!(case.claims(|claims| claims.without("sub")), refused);
        for wrong in [
            json!("spiffe://a.example/other"),
            json!("spiffe://A.example/client"),
            json!("SPIFFE://a.example/client"),
            json!("spiffe://a.example/client/"),
            json!("spiffe://a.example.evil/client"),
            json!("client"),
            json!(""),
            json!([ID]),
            json!(7),
        ] {
            assert_eq!(case.claims(|claims| claims.with("sub", wrong.clone())), refused, "{wrong}");
        }
    }

    /// The draft, §3.1 item 3: "as its sole value".
    #[test]
    fn audiences() {
        let case = Case::new();
        assert_eq!(case.claims(|claims| claims.with("aud", ISSUER)), Ok(None));
        let refused = Err(ClientAuthRefusal::AssertionAudienceWrong);
        assert_eq!(case.claims(|claims| claims.without("aud")), refused);
        for wrong in [
            json!([]),
            json!([ISSUER, ISSUER]),
            json!([ISSUER, "https://other.example"]),
            json!(["https://other.example"]),
            json!("https://as.example/token"),
            json!("https://as.example/"),
            json!([[ISSUER]]),
            json!({ "0": ISSUER }),
            json!(null),
        ] {
            assert_eq!(case.claims(|claims| claims.with("aud", wrong.clone())), refused, "{wrong}");
        }
    }

    #[test]
    fn both_edges_of_the_dates() {
        let case = Case::new();
        assert_eq!(case.claims(|claims| claims.without("exp")), Err(ClientAuthRefusal::AssertionExpiryMissing));
        assert_eq!(case.claims(|claims| claims.with("exp", NOW + 1)), Ok(None));
        for over in [NOW, NOW - 1, 0] {
            let refused = Err(ClientAuthRefusal::AssertionExpired);
            assert_eq!(case.claims(|claims| claims.with("exp", over)), refused, "{over}");
        }
        assert_eq!(
            case.claims(|claims| claims.with("exp", "tomorrow")),
            Err(ClientAuthRefusal::AssertionClaimsMalformed)
        );
        // JWT-SVID §3.3 sets no upper limit.
        assert_eq!(case.claims(|claims| claims.with("exp", NOW + 365 * 86_400)), Ok(None));
        assert_eq!(case.claims(|claims| claims.without("iat")), Ok(None));
        for (name, refusal) in
            [("nbf", ClientAuthRefusal::AssertionNotYetValid), ("iat", ClientAuthRefusal::AssertionFromTheFuture)]
        {
            assert_eq!(case.claims(|claims| claims.with(name, NOW + 10)), Ok(None), "{name}");
            assert_eq!(case.claims(|claims| claims.with(name, NOW + 11)), Err(refusal), "{name}");
        }
    }

    #[test]
    fn claims_and_framing_that_cannot_be_read() {
        let case = Case::new();
        let good = case.token().compact();
        assert_eq!(case.check(format!("{good}.")), Err(ClientAuthRefusal::AssertionUnreadable));
        assert_eq!(case.check(String::new()), Err(ClientAuthRefusal::AssertionUnreadable));
        // JWT-SVID §1: never the JSON serialization.
        assert_eq!(case.check(r#"{"payload":""}"#.to_owned()), Err(ClientAuthRefusal::AssertionUnreadable));
        assert_eq!(
            case.check(case.token().claims(|claims| claims.and("sub", ID)).compact()),
            Err(ClientAuthRefusal::AssertionClaimsMalformed)
        );
    }

    /// The certificate on the connection: an enrolled one, or an SVID of the registered id. Never none of the two.
    #[test]
    fn the_certificate_beside_it() {
        let case = Case::new();
        let token = || Some(ClientAssertion::JwtSpiffe(case.token().compact()));
        assert_eq!(prove_by(&case.scene, &case.domain.svid("/other"), token()), Err(ClientAuthRefusal::NameMismatch));
        let enrolled = Authority::root("Nobody's CA", NOW).client("somebody");
        let scene = case.scene.clone().enrolled(enrolled.certificate(), |_| {});
        assert_eq!(prove_by(&scene, &enrolled, token()), Ok(None));
        let peer = presented(&enrolled);
        assert!(Verifier::new().verify_at_once(&peer, &case.scene.client(), now()).is_err());
        // Its certificate does not stand in for it.
        assert_eq!(prove_by(&case.scene, &case.credential, None), Err(ClientAuthRefusal::AssertionMissing));
    }

    #[test]
    fn assertions_of_the_other_kind() {
        let case = Case::new();
        let token = case.token().compact();
        assert_eq!(
            prove_by(&case.scene, &case.credential, Some(ClientAssertion::JwtBearer(token.clone()))),
            Err(ClientAuthRefusal::AssertionKindWrong)
        );
        let mut jwk = case.domain.jwt_key.jwk();
        jwk["kid"] = case.domain.jwt_key.jwk_thumbprint().into();
        let scene = case.scene.clone().authenticating(ClientAuthentication::PrivateKeyJwt {
            jwks: json!({ "keys": [jwk] }).to_string(),
            signing_alg: countersign_resource_server::token::jws::SigningAlgorithm::ES256,
            subject: Some(rule()),
        });
        assert_eq!(
            prove_by(&scene, &case.credential, Some(ClientAssertion::JwtSpiffe(token))),
            Err(ClientAuthRefusal::AssertionKindWrong)
        );
    }

    /// The certificate is enrolled and would do; the trust domain is what is missing.
    #[test]
    fn a_trust_domain_that_does_not_vouch() {
        let case = Case::new();
        let enrolled = Authority::root("Nobody's CA", NOW).client("somebody");
        let token = || Some(ClientAssertion::JwtSpiffe(case.token().compact()));
        let bare = Scene::new("partner-a")
            .authenticating(ClientAuthentication::SpiffeJwt { subject: rule() })
            .enrolled(enrolled.certificate(), |_| {});
        let refused = Err(ClientAuthRefusal::TrustDomainUnknown);
        assert_eq!(prove_by(&bare, &enrolled, token()), refused);
        let other = bare.clone().trusting_domain(&Domain::new("a.example.evil", NOW));
        assert_eq!(prove_by(&other, &enrolled, token()), refused);
        let confined = NameSpace { uri_prefixes: vec!["spiffe://a.example/other/".to_owned()], ..NameSpace::default() };
        let confined = bare.clone().trusting_bundle("a.example", &case.domain.bundle(1), confined);
        assert_eq!(prove_by(&confined, &enrolled, token()), refused);
        let mut retired = bare.clone().trusting_domain(&case.domain);
        let mut anchor = (*retired.record.anchors[0].anchor).clone();
        anchor.state = AnchorState::Retired;
        retired.record.anchors[0].anchor = anchor.into();
        assert_eq!(prove_by(&retired, &enrolled, token()), refused);
        let broken = bare.clone().trusting_bundle("a.example", "{", NameSpace { any: true, ..NameSpace::default() });
        assert_eq!(prove_by(&broken, &enrolled, token()), refused);
        assert_eq!(prove_by(&bare.trusting_domain(&case.domain), &enrolled, token()), Ok(None));
    }

    #[test]
    fn keys_that_were_remembered_do_not_outlive_their_bundle() {
        let case = Case::new();
        let keys = RegisteredKeys::new();
        let of = |scene: &Scene| keys.of_trust_domain(&scene.record, &rule()).unwrap();
        assert!(of(&case.scene).by_kid(&case.domain.jwt_key.jwk_thumbprint()).is_some());
        let rotated = Case::of(case.domain.rotated());
        assert!(of(&rotated.scene).by_kid(&case.domain.jwt_key.jwk_thumbprint()).is_none());
        assert!(Arc::ptr_eq(&of(&case.scene), &of(&case.scene)));
    }
}
