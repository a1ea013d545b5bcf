//! The certificates and the revocation list that RFCs print, from `tests/vectors/rfc/`: what is read in each, and what the server does with it.

use countersign_resource_server::time::UnixTime;
use rustls_pki_types::CertificateRevocationListDer;
use rustls_pki_types::pem::PemObject;
use serde_json::{Value, json};

use super::anchor::{UnfitAnchor, check_anchor};
use super::certificate::{Authority, KeyStrength, KeyUsage, Purposes, certificates_from};
use super::crl::{self, HeldLists, ListRefusal};
use super::scene::{Scene, anchor_id, now, presented_list};
use super::{ParsedCertificate, PeerRefusal, Standing, VerifiedPeer, Verifier};
use crate::client_auth::{jwks_of, registered_certificates};
use crate::registry::client::{ClientAuthentication, SubjectAttribute};
use crate::registry::trust_anchor::NameSpace;

const RFC_5280_CA: &str = include_str!("../../tests/vectors/rfc/rfc5280-c1-ca.pem");
const RFC_5280_END_ENTITY: &str = include_str!("../../tests/vectors/rfc/rfc5280-c2-end-entity.pem");
const RFC_5280_DSA: &str = include_str!("../../tests/vectors/rfc/rfc5280-c3-dsa.pem");
const RFC_5280_LIST: &str = include_str!("../../tests/vectors/rfc/rfc5280-c4-crl.pem");
const RFC_8705: &str = include_str!("../../tests/vectors/rfc/rfc8705-a.pem");
const RFC_9440: &str = include_str!("../../tests/vectors/rfc/rfc9440-a.pem");

fn certificates(pem: &str) -> Vec<Vec<u8>> {
    certificates_from(pem.as_bytes()).unwrap().iter().map(|der| der.to_vec()).collect()
}

fn only(pem: &str) -> Vec<u8> {
    let [der] = certificates(pem).try_into().unwrap();
    der
}

fn verify(scene: &Scene, chain: &[Vec<u8>], seconds: i64) -> Result<VerifiedPeer, PeerRefusal> {
    Verifier::new().verify_at_once(&presented_list(chain), &scene.client(), UnixTime::from_seconds(seconds))
}

fn refusal(scene: &Scene, chain: &[Vec<u8>], seconds: i64) -> Option<PeerRefusal> {
    verify(scene, chain, seconds).err()
}

/// A client registered with this certificate (RFC 8705 §2.2).
fn registered(certificate: &[u8]) -> Scene {
    Scene::new("rfc")
        .authenticating(ClientAuthentication::SelfSignedTlsClientAuth { jwks: r#"{"keys":[]}"#.to_owned() })
        .enrolled(certificate, |_| {})
}

/// A client whose participant has this certificate as its anchor.
fn under(anchor: &[u8]) -> Scene {
    Scene::new("rfc").granting(anchor, |_| {}, NameSpace { any: true, ..NameSpace::default() })
}

fn carries(certificate: &ParsedCertificate, attribute: SubjectAttribute, text: &str) -> bool {
    certificate.names().unwrap().match_rule(&super::identity::subject_rule(attribute, text).unwrap())
}

mod rfc_8705_appendix_a {
    use super::*;

    const BEGINS: i64 = 1_539_866_229; // 2018-10-18T12:37:09Z
    const ENDS: i64 = 1_651_495_029; // 2022-05-02T12:37:09Z

    #[test]
    fn what_it_says() {
        let read = ParsedCertificate::read(&only(RFC_8705)).unwrap();
        assert_eq!(read.thumbprint().to_string(), "A4DtL2JmUMhAsvJj5tKyn64SqzmuXbMrJa0n761y5v0"); // Figure 5
        assert_eq!((read.serial(), read.subject_text(), read.issuer_text()), ("02", "CN=mtls", "CN=mtls"));
        assert_eq!((read.not_before().as_seconds(), read.not_after().as_seconds()), (BEGINS, ENDS));
        assert!(!read.is_version_3());
        assert_eq!(read.key_strength(), KeyStrength::Sufficient);
        assert!(read.subject_alt_names_text().is_empty());
    }

    #[test]
    fn as_a_jwk() {
        // Figure 7. What is written here says in addition what the key is for.
        let x5c = RFC_8705.lines().filter(|line| !line.starts_with('-')).collect::<String>();
        let printed = json!({
            "kty": "EC",
            "x": "1yfLHCpXqFjxCeHHHMVDTcLscpb07KUxudBmOMn8C7Q",
            "y": "8_coZwxS7LfA4vOLS9WuneIXhbGGWvsDSb0tH6IxLm8",
            "crv": "P-256",
            "x5c": [x5c],
        });
        let mut written = printed.clone();
        written["use"] = json!("sig");
        written["alg"] = json!("ES256");
        let jwks: Value = serde_json::from_str(&jwks_of(&only(RFC_8705)).unwrap()).unwrap();
        assert_eq!(jwks, json!({ "keys": [written] }));
        let registered = registered_certificates(&json!({ "keys": [printed] }).to_string()).unwrap();
        assert_eq!(registered.len(), 1);
        assert_eq!(registered[0].thumbprint().to_string(), "A4DtL2JmUMhAsvJj5tKyn64SqzmuXbMrJa0n761y5v0");
    }

    #[test]
    fn accepted_while_in_date_where_it_is_registered_itself() {
        let chain = [only(RFC_8705)];
        let scene = registered(&chain[0]);
        assert_eq!(refusal(&scene, &chain, BEGINS - 1), Some(PeerRefusal::NotYetValid));
        assert_eq!(*verify(&scene, &chain, BEGINS).unwrap().standing(), Standing::Registered);
        assert_eq!(*verify(&scene, &chain, ENDS).unwrap().standing(), Standing::Registered);
        assert_eq!(refusal(&scene, &chain, ENDS + 1), Some(PeerRefusal::Expired));
        assert_eq!(refusal(&scene, &chain, now().as_seconds()), Some(PeerRefusal::Expired));
    }

    #[test]
    fn refused_for_its_version_through_a_chain() {
        let chain = [only(RFC_8705)];
        let scene = Scene::new("rfc").named(SubjectAttribute::TlsClientAuthSubjectDn, "CN=mtls");
        assert_eq!(refusal(&scene, &chain, BEGINS), Some(PeerRefusal::VersionUnsupported));
        assert_eq!(
            check_anchor(&chain[0], UnixTime::from_seconds(BEGINS)).map(|_| ()).unwrap_err(),
            UnfitAnchor::Version
        );
    }
}

mod rfc_9440_appendix_a {
    use super::*;

    const BEGINS: i64 = 1_579_042_533; // 2020-01-14T22:55:33Z
    const ENDS: i64 = 1_611_442_533; // 2021-01-23T22:55:33Z

    #[test]
    fn what_it_says() {
        let [leaf, intermediate, root] = certificates(RFC_9440).try_into().unwrap();
        let read = ParsedCertificate::read(&leaf).unwrap();
        assert_eq!(
            (read.serial(), read.subject_text(), read.issuer_text()),
            ("07", "CN=BC", "CN=LA Intermediate CA,O=Let's Authenticate")
        );
        assert_eq!((read.not_before().as_seconds(), read.not_after().as_seconds()), (BEGINS, ENDS));
        assert_eq!(read.subject_alt_names_text(), ["email:bdc@example.com"]);
        assert_eq!(read.key_usage(), Some(KeyUsage { digital_signature: true, key_cert_sign: false, crl_sign: false }));
        assert_eq!((read.purposes(), read.authority()), (Purposes::ClientAuth, Authority::None));
        assert!(!read.has_unknown_critical_extension()); // its subjectAltName is critical
        let authorities = [&intermediate, &root].map(|der| ParsedCertificate::read(der).unwrap().authority());
        assert_eq!(
            authorities,
            [Some(0), None].map(|path_length| Authority::Certifies { path_length, critical: true })
        );
    }

    #[test]
    fn accepted_while_in_date_under_its_root() {
        let [leaf, intermediate, root] = certificates(RFC_9440).try_into().unwrap();
        let scene = under(&root);
        let good = Standing::Chained { anchor: anchor_id(&root) };
        let without_root = [leaf.clone(), intermediate.clone()];
        assert_eq!(refusal(&scene, &without_root, BEGINS - 1), Some(PeerRefusal::NotYetValid));
        for seconds in [BEGINS, ENDS] {
            let peer = verify(&scene, &without_root, seconds).unwrap();
            assert_eq!(*peer.standing(), good);
            assert_eq!(peer.not_after().as_seconds(), ENDS);
            assert!(carries(peer.leaf(), SubjectAttribute::TlsClientAuthSubjectDn, "CN=BC"));
            assert!(carries(peer.leaf(), SubjectAttribute::TlsClientAuthSanEmail, "bdc@EXAMPLE.com"));
            assert!(!carries(peer.leaf(), SubjectAttribute::TlsClientAuthSanEmail, "BDC@example.com"));
        }
        assert_eq!(refusal(&scene, &without_root, ENDS + 1), Some(PeerRefusal::Expired));
        // As Figure 1 prints the list, with the root in it.
        let whole = [leaf.clone(), intermediate.clone(), root];
        assert_eq!(*verify(&scene, &whole, BEGINS).unwrap().standing(), good);
        assert_eq!(refusal(&scene, &[leaf], BEGINS), Some(PeerRefusal::IssuerUnknown));
        assert_eq!(refusal(&scene, &[intermediate], BEGINS), Some(PeerRefusal::IsAuthority));
    }

    #[test]
    fn accepted_under_its_intermediate_as_the_anchor() {
        let [leaf, intermediate, _] = certificates(RFC_9440).try_into().unwrap();
        let peer = verify(&under(&intermediate), &[leaf], BEGINS).unwrap();
        assert_eq!(*peer.standing(), Standing::Chained { anchor: anchor_id(&intermediate) });
    }
}

mod rfc_5280_appendix_c {
    use super::*;

    const IN_DATE: i64 = 1_100_000_000; // 2004-11-09

    #[test]
    fn what_they_say() {
        let read = |pem| ParsedCertificate::read(&only(pem)).unwrap();
        let (ca, end_entity, dsa) = (read(RFC_5280_CA), read(RFC_5280_END_ENTITY), read(RFC_5280_DSA));
        assert_eq!((ca.serial(), end_entity.serial(), dsa.serial()), ("11", "12", "0100"));
        assert_eq!(
            [&ca, &end_entity, &dsa].map(|certificate| certificate.subject_text()),
            [
                "CN=Example CA,DC=example,DC=com",
                "CN=End Entity,DC=example,DC=com",
                "CN=DSA End Entity,DC=example,DC=com"
            ]
        );
        assert_eq!(
            [&ca, &end_entity, &dsa].map(|certificate| certificate.issuer_text()),
            [
                "CN=Example CA,DC=example,DC=com",
                "CN=Example CA,DC=example,DC=com",
                "CN=Example DSA CA,DC=example,DC=com"
            ]
        );
        assert!(ca.is_self_issued() && !end_entity.is_self_issued());
        assert_eq!(ca.authority(), Authority::Certifies { path_length: None, critical: true });
        assert_eq!(ca.key_usage(), Some(KeyUsage { digital_signature: false, key_cert_sign: true, crl_sign: true }));
        assert_eq!(
            end_entity.key_usage(),
            Some(KeyUsage { digital_signature: true, key_cert_sign: false, crl_sign: false })
        );
        assert_eq!((end_entity.purposes(), end_entity.authority()), (Purposes::Unstated, Authority::None));
        assert_eq!(end_entity.subject_alt_names_text(), ["email:end.entity@example.com"]);
        assert_eq!(dsa.subject_alt_names_text(), ["URI:http://www.example.com/users/DSAendentity.html"]);
        assert_eq!(
            (end_entity.not_before().as_seconds(), end_entity.not_after().as_seconds()),
            (1_095_248_901, 1_110_887_301) // 2004-09-15T11:48:21Z, 2005-03-15T11:48:21Z
        );
        assert!(carries(&end_entity, SubjectAttribute::TlsClientAuthSubjectDn, "cn=end entity,dc=EXAMPLE,dc=com"));
        assert!(carries(&dsa, SubjectAttribute::TlsClientAuthSanUri, "http://www.example.com/users/DSAendentity.html"));
        for weak in [ca, end_entity, dsa] {
            assert_eq!(weak.key_strength(), KeyStrength::Insufficient); // RSA of 1024 bits, and DSA
        }
    }

    #[test]
    fn refused_for_their_keys() {
        let ca = only(RFC_5280_CA);
        let scene = under(&ca); // as no operator can make it: the next test
        for leaf in [RFC_5280_END_ENTITY, RFC_5280_DSA, RFC_5280_CA].map(only) {
            assert_eq!(refusal(&scene, &[leaf.clone(), ca.clone()], IN_DATE), Some(PeerRefusal::KeyTooWeak));
            assert_eq!(refusal(&registered(&leaf), &[leaf], IN_DATE), Some(PeerRefusal::KeyTooWeak));
        }
    }

    #[test]
    fn no_anchor_for_its_key() {
        let at = UnixTime::from_seconds(IN_DATE);
        assert_eq!(check_anchor(&only(RFC_5280_CA), at).map(|_| ()).unwrap_err(), UnfitAnchor::WeakKey);
        assert_eq!(check_anchor(&only(RFC_5280_END_ENTITY), at).map(|_| ()).unwrap_err(), UnfitAnchor::NotAnAuthority);
    }

    /// C.4. What stands in it is told beside its reader.
    #[test]
    fn the_list_is_not_believed_for_its_signature() {
        let list = CertificateRevocationListDer::from_pem_slice(RFC_5280_LIST.as_bytes()).unwrap();
        let in_force = UnixTime::from_seconds(1_107_604_800); // 2005-02-05T12:00:00Z
        // RSA of 1024 bits and SHA-1, neither of which is used here.
        assert_eq!(
            crl::hold(&HeldLists::default(), &only(RFC_5280_CA), &list, in_force).unwrap_err(),
            ListRefusal::SignatureInvalid
        );
        let of_another = only(RFC_5280_END_ENTITY);
        assert_eq!(
            crl::hold(&HeldLists::default(), &of_another, &list, in_force).unwrap_err(),
            ListRefusal::IssuerUnknown
        );
    }
}
