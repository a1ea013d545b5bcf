//! Who takes part in the tests: two partners whose authorities bear the same name, one more whose authority may vouch for
//! anything, their clients with certificates and keys, and the APIs.
//!
//! Takes the instant all of it is made at, gives credentials and ids; `rig.rs` enrols them. It knows nothing of the server.

use std::sync::{Arc, LazyLock};

use countersign_conformance::forge::Token;
use countersign_conformance::pki::{AltName, Authority, Credential, Name, Template};
use countersign_conformance::{JwsAlgorithm, Key, KeyKind};

use crate::wire::Request;

/// An API that most clients may use.
pub(crate) const ACCOUNTS: &str = "https://accounts.example/api";

/// A second one.
pub(crate) const PAYMENTS: &str = "https://payments.example/api";

/// One that nobody is entitled to.
pub(crate) const VAULT: &str = "https://vault.example/api";

/// One that clients are still entitled to, and that is retired.
pub(crate) const LEGACY: &str = "https://legacy.example/api";

/// RFC 7523 §2.2.
pub(crate) const ASSERTION_TYPE: &str = "urn:ietf:params:oauth:client-assertion-type:jwt-bearer";

/// RSA keys take long to find: one for every world of this process.
static RSA: LazyLock<Arc<Key>> = LazyLock::new(|| Arc::new(Key::generate(KeyKind::Rsa2048)));

/// A client as its owner has it: id, certificate, and the key of its assertions.
#[derive(Clone, Debug)]
pub(crate) struct Party {
    pub(crate) id: &'static str,
    pub(crate) credential: Credential,
    pub(crate) signs: Option<(JwsAlgorithm, Arc<Key>)>,
}

impl Party {
    /// The form that gets this client a token for [`ACCOUNTS`], without an assertion.
    pub(crate) fn form(&self) -> Vec<(&'static str, String)> {
        vec![
            ("grant_type", "client_credentials".to_owned()),
            ("client_id", self.id.to_owned()),
            ("scope", "accounts:read".to_owned()),
            ("resource", ACCOUNTS.to_owned()),
        ]
    }

    /// The request that gets this client a token for [`ACCOUNTS`], without an assertion.
    pub(crate) fn request(&self) -> Request {
        form_request(&self.form())
    }

    /// A right assertion of this client, to the server of this world.
    pub(crate) fn assertion(&self, world: &World, jti: &str) -> Token<'_> {
        let (algorithm, key) = self.signs.as_ref().expect("a client that signs assertions");
        Token::assertion(self.id, &world.issuer, world.now, jti, *algorithm, key)
    }

    /// The form with this assertion.
    pub(crate) fn form_with(&self, assertion: &str) -> Vec<(&'static str, String)> {
        let mut form = self.form();
        form.push(("client_assertion_type", ASSERTION_TYPE.to_owned()));
        form.push(("client_assertion", assertion.to_owned()));
        form
    }

    /// The request with this assertion.
    pub(crate) fn request_with(&self, assertion: &str) -> Request {
        form_request(&self.form_with(assertion))
    }
}

/// `POST /token` of this form.
pub(crate) fn form_request(form: &[(&'static str, String)]) -> Request {
    let pairs: Vec<(&str, &str)> = form.iter().map(|(name, value)| (*name, value.as_str())).collect();
    Request::form("/token", &pairs)
}

/// Everybody.
#[derive(Debug)]
pub(crate) struct World {
    /// The instant it is made at, in seconds.
    pub(crate) now: i64,
    /// The issuer the server speaks as.
    pub(crate) issuer: String,
    /// Whom clients believe about the server's name.
    pub(crate) server_authority: Authority,
    pub(crate) server: Credential,

    /// Partner A's authority: vouches for `O=Partner A,C=DE`, `partner-a.example` and URIs of it.
    pub(crate) a_root: Authority,
    /// Partner B's: another key, the same name, another name space.
    pub(crate) b_root: Authority,
    /// Partner C's: vouches for any name.
    pub(crate) c_root: Authority,
    /// Nobody's.
    pub(crate) stranger_root: Authority,

    /// By subject, under an intermediate.
    pub(crate) a_dn: Party,
    pub(crate) a_dns: Party,
    pub(crate) a_uri: Party,
    pub(crate) a_email: Party,
    /// Self-signed; version 1, as in RFC 8705 appendix A.
    pub(crate) a_self: Party,
    pub(crate) a_jwt: Party,
    pub(crate) a_jwt_eddsa: Party,
    pub(crate) a_jwt_ps256: Party,
    /// Its certificates have to be enrolled beforehand, and this one is.
    pub(crate) a_required: Party,
    /// Entitled to two APIs.
    pub(crate) a_two: Party,
    pub(crate) a_suspended: Party,
    pub(crate) a_pending: Party,
    pub(crate) a_retired: Party,
    /// Enrolled for production; the server serves the sandbox.
    pub(crate) a_production: Party,
    pub(crate) a_unentitled: Party,
    pub(crate) a_ended: Party,
    pub(crate) a_not_started: Party,
    /// Its certificate is revoked.
    pub(crate) a_revoked: Party,
    /// Its certificate is superseded, and the overlap is over.
    pub(crate) a_superseded: Party,
    /// Under an authority of A's that is retired.
    pub(crate) a_orphan: Party,
    pub(crate) a_retired_root: Authority,
    pub(crate) b_dn: Party,
    pub(crate) c_ip: Party,
    /// Of a participant that is suspended, pending, withdrawn.
    pub(crate) d_dn: Party,
    pub(crate) e_dn: Party,
    pub(crate) f_dn: Party,
    pub(crate) d_root: Authority,
}

/// A subject in partner A's name space.
pub(crate) fn subject_of_a(common_name: &str) -> Name {
    Name::of(&[("C", "DE"), ("O", "Partner A"), ("CN", common_name)])
}

/// The text of that subject by RFC 4514: last relative name first.
pub(crate) fn subject_text_of_a(common_name: &str) -> String {
    format!("CN={common_name},O=Partner A,C=DE")
}

impl World {
    pub(crate) fn new(now: i64, issuer: &str) -> Self {
        let server_authority = Authority::root("Countersign Test Server Root", now);
        let server = server_authority.issue(&Template::server(&["localhost", "127.0.0.1"], now), KeyKind::P256);
        let a_root = Authority::root("Partner Root", now);
        let a_issuing = a_root.intermediate("Partner A Issuing");
        let b_root = a_root.twin();
        let c_root = Authority::root("Partner C Root", now);
        let d_root = Authority::root("Partner D Root", now);
        let a_retired_root = Authority::root("Partner Old Root", now);

        let by_subject = |id| Party {
            id,
            credential: a_issuing.issue(&Template::client(subject_of_a(id), now), KeyKind::P256),
            signs: None,
        };
        let named = |id, authority: &Authority, name: AltName| Party {
            id,
            credential: authority.issue(&Template::client(Name::default(), now).with_alt_names([name]), KeyKind::P256),
            signs: None,
        };
        let signing = |id, algorithm, kind| Party {
            signs: Some((
                algorithm,
                if kind == KeyKind::Rsa2048 { Arc::clone(&RSA) } else { Arc::new(Key::generate(kind)) },
            )),
            ..named(id, &a_root, AltName::Dns(format!("{id}.partner-a.example")))
        };
        let v1 = Template {
            version: countersign_conformance::pki::Version::V1,
            ..Template::client(Name::common("self-signed client"), now)
        };
        let under_d = |id| Party {
            id,
            credential: d_root.issue(&Template::client(Name::common(id), now), KeyKind::P256),
            signs: None,
        };
        Self {
            a_dn: by_subject("a-dn"),
            a_dns: named("a-dns", &a_root, AltName::Dns("client.partner-a.example".to_owned())),
            a_uri: named("a-uri", &a_root, AltName::Uri("https://partner-a.example/clients/one".to_owned())),
            a_email: named("a-email", &a_root, AltName::Email("Client@partner-a.example".to_owned())),
            a_self: Party { id: "a-self", credential: Credential::self_signed(&v1, KeyKind::P256), signs: None },
            a_jwt: signing("a-jwt", JwsAlgorithm::Es256, KeyKind::P256),
            a_jwt_eddsa: signing("a-jwt-eddsa", JwsAlgorithm::EdDsa, KeyKind::Ed25519),
            a_jwt_ps256: signing("a-jwt-ps256", JwsAlgorithm::Ps256, KeyKind::Rsa2048),
            a_required: by_subject("a-required"),
            a_two: by_subject("a-two"),
            a_suspended: by_subject("a-suspended"),
            a_pending: by_subject("a-pending"),
            a_retired: by_subject("a-retired"),
            a_production: by_subject("a-production"),
            a_unentitled: by_subject("a-unentitled"),
            a_ended: by_subject("a-ended"),
            a_not_started: by_subject("a-not-started"),
            a_revoked: by_subject("a-revoked"),
            a_superseded: by_subject("a-superseded"),
            a_orphan: Party {
                id: "a-orphan",
                credential: a_retired_root.issue(&Template::client(subject_of_a("a-orphan"), now), KeyKind::P256),
                signs: None,
            },
            b_dn: Party {
                id: "b-dn",
                credential: b_root.issue(
                    &Template::client(Name::of(&[("C", "FR"), ("O", "Partner B"), ("CN", "b-dn")]), now),
                    KeyKind::P256,
                ),
                signs: None,
            },
            c_ip: named("c-ip", &c_root, AltName::Ip([192, 0, 2, 7].into())),
            d_dn: under_d("d-dn"),
            e_dn: under_d("e-dn"),
            f_dn: under_d("f-dn"),
            now,
            issuer: issuer.to_owned(),
            server_authority,
            server,
            stranger_root: Authority::root("Partner Root", now),
            a_root,
            b_root,
            c_root,
            d_root,
            a_retired_root,
        }
    }

    /// Partner A's issuing authority is the one above `a_dn`'s leaf; a fresh one serves where only the anchor matters.
    pub(crate) fn a_issuing(&self) -> Authority {
        self.a_root.intermediate("Partner A Issuing 2")
    }
}
