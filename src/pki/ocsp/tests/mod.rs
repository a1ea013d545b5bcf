//! What the tests of answers and of questions start from: an issuer, its client, and what it says of it.

use countersign_conformance::KeyKind;
use countersign_conformance::ocsp::{self, Entry, Response as Made, Status as Says};
use countersign_conformance::pki::{Authority, Credential, Template};
use countersign_resource_server::time::UnixTime;

use super::Unusable;
use super::answer::{self, Answer};
use super::request::{CertId, NONCE_BYTES, Nonce};
use super::response::CertStatus;
use crate::pki::scene::NOW;
use crate::pki::signature::Signer;
use crate::registry::trust_anchor::NoncePolicy;

mod answers;

mod interop;

mod questions;

const NONCE: Nonce = [7; NONCE_BYTES];

/// An issuer, one of its certificates, and what is asked about that.
struct Asked {
    issuer: Authority,
    leaf: Credential,
    signer: Signer,
    id: CertId,
    now: UnixTime,
    nonce: NoncePolicy,
}

impl Asked {
    fn new() -> Self {
        let issuer = Authority::root("Partner A CA", NOW);
        let leaf = issuer.client("client");
        let signer = Signer { name_der: issuer.name.to_der(), spki_der: issuer.key.spki() };
        let id = CertId::new(&signer, ocsp::serial_of(leaf.certificate())).unwrap();
        Self { issuer, leaf, signer, id, now: UnixTime::from_seconds(NOW), nonce: NoncePolicy::Required }
    }

    /// What the issuer says itself.
    fn says(&self, status: Says) -> Made {
        let id = ocsp::CertId::of(self.leaf.certificate(), &self.issuer);
        Made::by_issuer(&self.issuer, id, status, Some(NONCE.to_vec()), NOW)
    }

    fn good(&self) -> Made {
        self.says(Says::Good)
    }

    /// A good answer, bent, and signed by the issuer.
    fn bent(&self, change: impl FnOnce(&mut Made)) -> Result<Answer, Unusable> {
        let mut response = self.good();
        change(&mut response);
        self.read(&response.signed(&self.issuer.key))
    }

    /// A good answer by a delegate with this certificate.
    fn delegated(&self, change: impl FnOnce(&mut Template)) -> Result<Answer, Unusable> {
        let mut template = ocsp::delegate("Status", NOW);
        change(&mut template);
        let delegate = self.issuer.issue(&template, KeyKind::P256);
        self.read(&self.good().by_delegate(&delegate).signed(&delegate.key))
    }

    fn read(&self, octets: &[u8]) -> Result<Answer, Unusable> {
        answer::read(octets, &self.id, &self.signer, &NONCE, self.nonce, self.now)
    }

    fn entry(&self, status: Says) -> Entry {
        self.says(status).entries.remove(0)
    }
}

const fn second(seconds: i64) -> UnixTime {
    UnixTime::from_seconds(NOW + seconds)
}

const fn good_until(seconds: i64) -> Result<Answer, Unusable> {
    Ok(Answer { status: CertStatus::Good, this_update: second(-60), until: second(seconds) })
}
