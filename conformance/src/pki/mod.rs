//! Makes certificates: right ones, and with every defect.
//!
//! Takes a [`Template`] (what is to be written) and an [`Authority`] (who signs), gives a [`Credential`] (what a TLS client
//! presents). All dates come from the caller's `now` in seconds, all names from the caller, every serial from the content:
//! only keys are random. It knows nothing of what a server ought to think of the result.

/// Names.
mod name;

/// What is to be written.
mod template;

/// A certificate with its key.
mod credential;

use std::sync::Arc;

use crate::der;
use crate::key::{Key, KeyKind, pem};

pub use credential::Credential;
pub use name::{AltName, Attribute, Name};
pub use template::{BasicConstraints, Defect, Extension, KeyUsage, Template, Version, purpose};

pub(crate) use template::{extension, key_identifier, time};

/// A certificate authority.
#[derive(Clone, Debug)]
pub struct Authority {
    /// Its name, as its certificates' issuer.
    pub name: Name,
    /// Its key pair.
    pub key: Arc<Key>,
    /// Its own certificate.
    pub certificate: Vec<u8>,
    /// What a client has to send above the leaf: nothing for a root.
    above: Vec<Vec<u8>>,
    now: i64,
}

impl Authority {
    /// A root, on P-256.
    pub fn root(common_name: &str, now: i64) -> Self {
        Self::root_with(Template::authority(Name::common(common_name), now), KeyKind::P256, now)
    }

    /// A root as the template says.
    pub fn root_with(template: Template, kind: KeyKind, now: i64) -> Self {
        let Credential { key, chain } = Credential::self_signed(&template, kind);
        let certificate = chain.into_iter().next().unwrap_or_default();
        Self { name: template.subject, key, certificate, above: Vec::new(), now }
    }

    /// A credential that signs as if it were an authority, whether or not it may.
    pub fn pretended(name: Name, credential: &Credential, now: i64) -> Self {
        Self {
            name,
            key: Arc::clone(&credential.key),
            certificate: credential.certificate().to_vec(),
            above: credential.chain.clone(),
            now,
        }
    }

    /// An authority whose certificate and key somebody else made: `above` is what a client has to send above the leaf.
    pub const fn of(name: Name, certificate: Vec<u8>, key: Arc<Key>, above: Vec<Vec<u8>>, now: i64) -> Self {
        Self { name, key, certificate, above, now }
    }

    /// Another authority of the same name, with a key of its own.
    pub fn twin(&self) -> Self {
        Self::root_with(Template::authority(self.name.clone(), self.now), self.key.kind(), self.now)
    }

    /// An intermediate under this one.
    pub fn intermediate(&self, common_name: &str) -> Self {
        self.intermediate_with(&Template::authority(Name::common(common_name), self.now))
    }

    /// An intermediate as the template says.
    pub fn intermediate_with(&self, template: &Template) -> Self {
        let Credential { key, chain } = self.issue(template, KeyKind::P256);
        let certificate = chain.first().cloned().unwrap_or_default();
        Self { name: template.subject.clone(), key, certificate, above: chain, now: self.now }
    }

    /// This authority's key certified by `other` under the same name: a cross certificate.
    pub fn cross_signed_by(&self, other: &Self) -> Self {
        let template = Template::authority(self.name.clone(), self.now);
        let mut above = vec![other.sign(&template, &self.key.spki())];
        above.extend(other.above.iter().cloned());
        Self { above, ..self.clone() }
    }

    /// A certificate with a fresh key.
    pub fn issue(&self, template: &Template, kind: KeyKind) -> Credential {
        self.issue_for(template, Arc::new(Key::generate(kind)))
    }

    /// A certificate for a key that exists.
    pub fn issue_for(&self, template: &Template, key: Arc<Key>) -> Credential {
        let mut chain = vec![self.sign(template, &key.spki())];
        chain.extend(self.above.iter().cloned());
        Credential { key, chain }
    }

    /// A good client certificate with a common name, on P-256.
    pub fn client(&self, common_name: &str) -> Credential {
        self.issue(&Template::client(Name::common(common_name), self.now), KeyKind::P256)
    }

    /// A certificate for the holder of this SubjectPublicKeyInfo.
    pub fn sign(&self, template: &Template, spki: &[u8]) -> Vec<u8> {
        sign(&template.content(spki, &self.name, &self.key), &self.key)
    }

    /// A certificate of these octets, whatever they are: where no template can say what is to be written.
    pub fn sign_content(&self, content: &[u8]) -> Vec<u8> {
        sign(content, &self.key)
    }

    /// Its own certificate as PEM.
    pub fn to_pem(&self) -> String {
        pem("CERTIFICATE", &self.certificate)
    }
}

/// Signs a TBSCertificate (RFC 5280 §4.1.1).
fn sign(content: &[u8], signer: &Key) -> Vec<u8> {
    der::sequence([
        content.to_vec(),
        signer.certificate_algorithm(),
        der::bit_string(&signer.sign_certificate(content)),
    ])
}

#[cfg(test)]
mod tests {
    use x509_parser::prelude::*;

    use super::template::{AGE, LIFE};
    use super::*;
    use crate::der::tag;

    const NOW: i64 = 1_800_000_000;

    #[test]
    fn a_client_certificate_says_what_its_template_says() {
        let root = Authority::root("Root", NOW);
        let template = Template::client(Name::of(&[("C", "DE"), ("O", "Ex"), ("CN", "client")]), NOW).with_alt_names([
            AltName::Dns("client.example".to_owned()),
            AltName::Uri("https://client.example/".to_owned()),
            AltName::Ip([192, 0, 2, 7].into()),
            AltName::Email("a@client.example".to_owned()),
        ]);
        let credential = root.intermediate("Issuing").issue(&template, KeyKind::P256);
        assert_eq!(credential.chain.len(), 2);
        let (rest, leaf) = X509Certificate::from_der(credential.certificate()).unwrap();
        assert!(rest.is_empty());
        assert_eq!(leaf.subject().to_string(), "C=DE, O=Ex, CN=client");
        assert_eq!(leaf.issuer().to_string(), "CN=Issuing");
        assert_eq!(leaf.validity().not_before.timestamp(), NOW - AGE);
        assert_eq!(leaf.validity().not_after.timestamp(), NOW + LIFE);
        assert!(leaf.key_usage().unwrap().unwrap().value.digital_signature());
        assert!(leaf.extended_key_usage().unwrap().unwrap().value.client_auth);
        assert!(!leaf.is_ca());
        assert_eq!(leaf.subject_alternative_name().unwrap().unwrap().value.general_names.len(), 4);
        let (_, issuing) = X509Certificate::from_der(&credential.chain[1]).unwrap();
        assert!(issuing.is_ca());
        assert!(issuing.key_usage().unwrap().unwrap().value.key_cert_sign());
    }

    #[test]
    fn every_kind_of_authority_signs_what_its_key_verifies() {
        use aws_lc_rs::signature as sig;
        let cases: [(KeyKind, &'static dyn sig::VerificationAlgorithm); 5] = [
            (KeyKind::P256, &sig::ECDSA_P256_SHA256_ASN1),
            (KeyKind::P384, &sig::ECDSA_P384_SHA384_ASN1),
            (KeyKind::P521, &sig::ECDSA_P521_SHA512_ASN1),
            (KeyKind::Ed25519, &sig::ED25519),
            (KeyKind::Rsa2048, &sig::RSA_PKCS1_2048_8192_SHA256),
        ];
        for (kind, algorithm) in cases {
            let root = Authority::root_with(Template::authority(Name::common("Root"), NOW), kind, NOW);
            let credential = root.client("client");
            assert!(signature_verifies(credential.certificate(), &root, algorithm), "{kind:?}");
            assert!(!signature_verifies(credential.certificate(), &root.twin(), algorithm), "{kind:?}");
        }
    }

    #[test]
    fn a_rewritten_signature_is_another_certificate_and_still_valid() {
        let root = Authority::root("Root", NOW);
        let credential = root.client("client");
        let twin = credential.rewritten().unwrap();
        assert_ne!(twin.thumbprint(), credential.thumbprint());
        for der in [twin.certificate(), credential.certificate()] {
            assert!(signature_verifies(der, &root, &aws_lc_rs::signature::ECDSA_P256_SHA256_ASN1));
        }
        assert_eq!(twin.rewritten().unwrap().thumbprint(), credential.thumbprint());
    }

    #[test]
    fn every_defect_changes_the_content_and_can_still_be_read_or_is_meant_not_to_be() {
        let root = Authority::root("Root", NOW);
        let key = Arc::new(Key::generate(KeyKind::P256));
        let template = Template::client(Name::common("client"), NOW);
        let good = root.issue_for(&template, Arc::clone(&key));
        for defect in Defect::ALL {
            let bent = root.issue_for(&template.clone().with(*defect, NOW), Arc::clone(&key));
            let (_, bent_content, _) = der::split(bent.certificate()).unwrap();
            let (_, good_content, _) = der::split(good.certificate()).unwrap();
            assert_ne!(der::split(bent_content).unwrap().1, der::split(good_content).unwrap().1, "{}", defect.as_str());
            let read = X509Certificate::from_der(bent.certificate());
            assert!(read.is_ok(), "{}", defect.as_str());
        }
    }

    #[test]
    fn versions_are_what_they_say() {
        for (version, expected) in [(Version::V1, X509Version::V1), (Version::V2, X509Version::V2)] {
            let template = Template { version, ..Template::client(Name::common("old"), NOW) };
            let credential = Credential::self_signed(&template, KeyKind::P256);
            let (_, leaf) = X509Certificate::from_der(credential.certificate()).unwrap();
            assert_eq!(leaf.version(), expected);
            assert!(leaf.extensions().is_empty());
        }
    }

    #[test]
    fn dates_from_2050_are_generalized() {
        assert_eq!(time(2_524_607_999), der::tlv(tag::UTC_TIME, "491231235959Z"));
        assert_eq!(time(2_524_608_000), der::tlv(tag::GENERALIZED_TIME, "20500101000000Z"));
    }

    fn signature_verifies(
        der: &[u8],
        by: &Authority,
        algorithm: &'static dyn aws_lc_rs::signature::VerificationAlgorithm,
    ) -> bool {
        let (_, certificate) = X509Certificate::from_der(der).unwrap();
        let spki = by.key.spki();
        let (_, info) = SubjectPublicKeyInfo::from_der(&spki).unwrap();
        aws_lc_rs::signature::UnparsedPublicKey::new(algorithm, info.subject_public_key.data.as_ref())
            .verify(certificate.tbs_certificate.as_ref(), &certificate.signature_value.data)
            .is_ok()
    }
}
