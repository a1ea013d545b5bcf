//! OpenSSL's responder answers our requests, and we read its answers; OpenSSL reads what the conformance crate makes.
//!
//! Where there is no `openssl` command, the tests say so and are skipped. It goes by the machine's time, and so do they.

use std::path::Path;
use std::process::Command;

use countersign_conformance::KeyKind;
use countersign_conformance::key::pem;
use countersign_conformance::ocsp::{self, Status as Says};
use countersign_conformance::pki::{Authority, Credential, Template};
use countersign_resource_server::time::{Clock, SystemClock, UnixTime};

use crate::pki::ocsp::Unusable;
use crate::pki::ocsp::answer::{self, Answer};
use crate::pki::ocsp::request::{self, CertId, NONCE_BYTES};
use crate::pki::ocsp::response::CertStatus;
use crate::pki::revocation::CrlReason;
use crate::pki::signature::Signer;
use crate::registry::trust_anchor::NoncePolicy;

/// An authority as `openssl ocsp` has it: a directory with its certificate, key and index.
struct Stage {
    directory: tempfile::TempDir,
    issuer: Authority,
    now: UnixTime,
}

impl Stage {
    /// None where there is no OpenSSL.
    fn set(kind: KeyKind) -> Option<Self> {
        if !Command::new("openssl").arg("version").output().is_ok_and(|done| done.status.success()) {
            println!("SKIPPED: there is no openssl command on this machine");
            return None;
        }
        let now = SystemClock::new().now();
        let template = Template::authority(countersign_conformance::pki::Name::common("CA"), now.as_seconds());
        let issuer = Authority::root_with(template, kind, now.as_seconds());
        let stage = Self { directory: tempfile::tempdir().unwrap(), issuer, now };
        stage.write("ca.pem", stage.issuer.to_pem());
        stage.write("ca-key.pem", stage.issuer.key.to_pem());
        Some(stage)
    }

    fn path(&self) -> &Path {
        self.directory.path()
    }

    fn write(&self, name: &str, octets: impl AsRef<[u8]>) {
        std::fs::write(self.path().join(name), octets).unwrap();
    }

    fn openssl(&self, arguments: &str) -> std::process::Output {
        let mut command = Command::new("openssl");
        command.args(arguments.split_whitespace()).current_dir(self.path()).output().unwrap()
    }

    /// What OpenSSL answers to our request after this certificate, as we read it.
    fn answer(&self, leaf: &Credential, arguments: &str) -> Result<Answer, Unusable> {
        let signer = Signer { name_der: self.issuer.name.to_der(), spki_der: self.issuer.key.spki() };
        let id = CertId::new(&signer, ocsp::serial_of(leaf.certificate())).unwrap();
        let nonce = [7; NONCE_BYTES];
        self.write("request.der", request::request(&id, &nonce));
        let done = self.openssl(&format!(
            "ocsp -index index.txt -CA ca.pem {arguments} -reqin request.der -respout response.der -nmin 60"
        ));
        assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
        let octets = std::fs::read(self.path().join("response.der")).unwrap();
        answer::read(&octets, &id, &signer, &nonce, NoncePolicy::Required, SystemClock::new().now())
    }
}

/// The line of `index.txt` for a certificate that is good, or revoked for a reason.
fn entry(leaf: &Credential, revoked: Option<&str>) -> String {
    let serial = hex::encode_upper(ocsp::serial_of(leaf.certificate()));
    let (state, revoked) = match revoked {
        Some(reason) => ("R", format!("200102030405Z,{reason}")),
        None => ("V", String::new()),
    };
    format!("{state}\t491231235959Z\t{revoked}\t{serial}\tunknown\t/CN=client\n")
}

#[test]
fn openssl_answers_our_requests() {
    for kind in [KeyKind::P256, KeyKind::P384, KeyKind::Rsa2048] {
        let Some(stage) = Stage::set(kind) else { return };
        let delegate = stage.issuer.issue(&ocsp::delegate("Status", stage.now.as_seconds()), KeyKind::P256);
        stage.write("delegate.pem", delegate.chain_pem());
        stage.write("delegate-key.pem", delegate.key.to_pem());
        let [good, compromised, held, unknown] =
            ["good", "compromised", "held", "unknown"].map(|name| stage.issuer.client(name));
        let lines =
            [entry(&good, None), entry(&compromised, Some("keyCompromise")), entry(&held, Some("certificateHold"))];
        stage.write("index.txt", lines.concat());
        let at = UnixTime::from_seconds(1_577_934_245); // 2020-01-02 03:04:05
        for signs in [
            "-rsigner ca.pem -rkey ca-key.pem",
            "-rsigner delegate.pem -rkey delegate-key.pem",
            "-rsigner delegate.pem -rkey delegate-key.pem -resp_key_id",
        ] {
            let status = |leaf| stage.answer(leaf, signs).map(|answer| answer.status);
            assert_eq!(status(&good), Ok(CertStatus::Good), "{kind:?} {signs}");
            let reason = CrlReason::KeyCompromise;
            assert_eq!(status(&compromised), Ok(CertStatus::Revoked { at, reason }), "{kind:?} {signs}");
            let reason = CrlReason::CertificateHold;
            assert_eq!(status(&held), Ok(CertStatus::Revoked { at, reason }), "{kind:?} {signs}");
            assert_eq!(status(&unknown), Ok(CertStatus::Unknown), "{kind:?} {signs}");
        }
        // A delegate that its issuer has not delegated.
        let own = stage.issuer.client("own");
        stage.write("delegate.pem", own.chain_pem());
        stage.write("delegate-key.pem", own.key.to_pem());
        let answered = stage.answer(&good, "-rsigner delegate.pem -rkey delegate-key.pem");
        assert_eq!(answered, Err(Unusable::SignerNotDelegated));
    }
}

#[test]
fn openssl_reads_what_the_conformance_crate_makes() {
    let Some(stage) = Stage::set(KeyKind::P256) else { return };
    let (leaf, now) = (stage.issuer.client("client"), stage.now.as_seconds());
    let delegate = stage.issuer.issue(&ocsp::delegate("Status", now), KeyKind::P256);
    stage.write("leaf.pem", pem("CERTIFICATE", leaf.certificate()));
    for (says, expected) in [
        (Says::Good, "leaf.pem: good"),
        (Says::Revoked { at: now - 100, reason: Some(1) }, "leaf.pem: revoked"),
        (Says::Unknown, "leaf.pem: unknown"),
    ] {
        let id = ocsp::CertId::of(leaf.certificate(), &stage.issuer);
        let own = ocsp::Response::by_issuer(&stage.issuer, id, says, None, now);
        let delegated = own.clone().by_delegate(&delegate);
        for octets in [own.signed(&stage.issuer.key), delegated.signed(&delegate.key)] {
            stage.write("response.der", octets);
            let read = stage.openssl(
                "ocsp -issuer ca.pem -cert leaf.pem -respin response.der -CAfile ca.pem -no_nonce -verify_other ca.pem",
            );
            let told = format!("{}{}", String::from_utf8_lossy(&read.stdout), String::from_utf8_lossy(&read.stderr));
            assert!(told.contains(expected) && told.contains("Response verify OK"), "{told}");
        }
    }
}
