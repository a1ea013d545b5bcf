//! Makes what a SPIFFE trust domain issues: X509-SVIDs, JWT-SVIDs and bundles, right ones and bent ones.
//!
//! Takes a trust domain's name and an instant, gives a [`Domain`] with an authority and a signing key of its own. It knows
//! nothing of what a server ought to think of the result.

use std::sync::Arc;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};

use crate::forge::{Members, Token};
use crate::key::{JwsAlgorithm, Key, KeyKind};
use crate::pki::{AltName, Authority, Credential, Name, Template, purpose};

/// A trust domain.
#[derive(Clone, Debug)]
pub struct Domain {
    /// Its name.
    pub name: String,
    /// What signs its X509-SVIDs.
    pub authority: Authority,
    /// What signs its JWT-SVIDs.
    pub jwt_key: Arc<Key>,
    /// The instant it issues at, in seconds.
    pub now: i64,
}

impl Domain {
    /// A trust domain of this name, its authority a root that is an SVID itself (X509-SVID §3.2).
    pub fn new(name: &str, now: i64) -> Self {
        let template = Self::authority_template(name, now);
        let authority = Authority::root_with(template, KeyKind::P256, now);
        Self { name: name.to_owned(), authority, jwt_key: Arc::new(Key::generate(KeyKind::P256)), now }
    }

    /// The certificate of a signing authority of this trust domain, as SPIRE names it.
    pub fn authority_template(name: &str, now: i64) -> Template {
        Template::authority(Name::of(&[("C", "US"), ("O", "SPIFFE")]), now)
            .with_alt_names([AltName::Uri(format!("spiffe://{name}"))])
    }

    /// The same trust domain with new keys: what comes after a rotation.
    #[must_use]
    pub fn rotated(&self) -> Self {
        Self::new(&self.name, self.now)
    }

    /// The SPIFFE ID at this path, which begins with a slash.
    pub fn id(&self, path: &str) -> String {
        format!("spiffe://{}{path}", self.name)
    }

    /// What stands in the X509-SVID of the workload at this path (X509-SVID §2 to §4).
    pub fn template(&self, path: &str) -> Template {
        let mut template = Template::client(Name::default(), self.now).with_alt_names([AltName::Uri(self.id(path))]);
        template.purposes = vec![purpose::SERVER_AUTH.to_vec(), purpose::CLIENT_AUTH.to_vec()];
        template
    }

    /// The X509-SVID of the workload at this path.
    pub fn svid(&self, path: &str) -> Credential {
        self.authority.issue(&self.template(path), KeyKind::P256)
    }

    /// The X509-SVID with the template changed.
    pub fn svid_with(&self, path: &str, change: impl FnOnce(&mut Template)) -> Credential {
        let mut template = self.template(path);
        change(&mut template);
        self.authority.issue(&template, KeyKind::P256)
    }

    /// The bundle's element for the X.509 authority (X509-SVID §6.1).
    pub fn x509_key(&self) -> Value {
        x509_key(&self.authority)
    }

    /// The bundle's element for the JWT authority (JWT-SVID §6.1).
    pub fn jwt_authority(&self) -> Value {
        jwt_authority(&self.jwt_key)
    }

    /// Its bundle.
    pub fn bundle(&self, sequence: u64) -> String {
        bundle(sequence, &[self.x509_key(), self.jwt_authority()])
    }

    /// The JWT-SVID of the workload at this path for one audience (JWT-SVID §2, §3).
    pub fn jwt_svid(&self, path: &str, audience: &str) -> Token<'_> {
        Token {
            header: Members::new()
                .with("alg", JwsAlgorithm::Es256.as_str())
                .with("kid", self.jwt_key.jwk_thumbprint())
                .with("typ", "JWT"),
            claims: Members::new()
                .with("aud", json!([audience]))
                .with("exp", self.now + 300)
                .with("iat", self.now)
                .with("sub", self.id(path)),
            algorithm: JwsAlgorithm::Es256,
            key: &self.jwt_key,
        }
    }
}

/// The bundle's element for an X.509 authority.
pub fn x509_key(authority: &Authority) -> Value {
    let mut jwk = authority.key.jwk();
    jwk["use"] = "x509-svid".into();
    jwk["x5c"] = json!([STANDARD.encode(&authority.certificate)]);
    jwk
}

/// The bundle's element for a JWT authority.
pub fn jwt_authority(key: &Key) -> Value {
    let mut jwk = key.jwk();
    jwk["use"] = "jwt-svid".into();
    jwk["kid"] = key.jwk_thumbprint().into();
    jwk
}

/// A bundle of these elements (SPIFFE Trust Domain and Bundle §4).
pub fn bundle(sequence: u64, keys: &[Value]) -> String {
    json!({ "spiffe_sequence": sequence, "spiffe_refresh_hint": 300, "keys": keys }).to_string()
}

#[cfg(test)]
mod tests {
    use x509_parser::prelude::*;

    use super::*;

    const NOW: i64 = 1_800_000_000;

    #[test]
    fn an_svid_says_what_the_specification_wants() {
        let domain = Domain::new("a.example", NOW);
        let svid = domain.svid("/x");
        let (_, leaf) = X509Certificate::from_der(svid.certificate()).unwrap();
        let names = leaf.subject_alternative_name().unwrap().unwrap();
        assert!(names.critical);
        assert!(matches!(names.value.general_names[..], [GeneralName::URI("spiffe://a.example/x")]));
        let usage = leaf.key_usage().unwrap().unwrap();
        assert!(usage.critical && usage.value.digital_signature() && !usage.value.key_cert_sign());
        let purposes = leaf.extended_key_usage().unwrap().unwrap().value;
        assert!(purposes.client_auth && purposes.server_auth);
        assert!(!leaf.is_ca());
    }

    #[test]
    fn a_bundle_holds_both_kinds_of_key() {
        let domain = Domain::new("a.example", NOW);
        let bundle: Value = serde_json::from_str(&domain.bundle(7)).unwrap();
        assert_eq!(bundle["spiffe_sequence"], 7);
        assert_eq!(bundle["keys"][0]["use"], "x509-svid");
        assert_eq!(bundle["keys"][1]["kid"], domain.jwt_key.jwk_thumbprint());
    }
}
