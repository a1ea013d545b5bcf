//! What the OpenID Foundation's suite is told: the plans have every member that it reads, and what is in them fits together.

#![expect(clippy::unwrap_used, reason = "test code, of which clippy knows only what stands in test functions")]

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::LazyLock;

use aws_lc_rs::rsa;
use aws_lc_rs::signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, KeyPair};
use base64::Engine;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use serde_json::{Value, json};
use x509_parser::prelude::{FromDer, GeneralName, X509Certificate};

const PLANS: [&str; 2] = ["mtls", "private_key_jwt"];

/// A directory that is gone when the test is.
struct Directory(PathBuf);

impl Drop for Directory {
    fn drop(&mut self) {
        let _gone_or_not = fs::remove_dir_all(&self.0);
    }
}

fn prepared(name: &str, arguments: &[&str]) -> Directory {
    let directory = Directory(Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("openid-plan-{name}")));
    let _gone_or_not = fs::remove_dir_all(&directory.0);
    let ran = Command::new(env!("CARGO_BIN_EXE_openid-plan")).arg(&directory.0).args(arguments).status().unwrap();
    assert!(ran.success());
    directory
}

fn plan(directory: &Directory, authentication: &str) -> Value {
    serde_json::from_slice(&fs::read(directory.0.join(format!("plan-{authentication}.json"))).unwrap()).unwrap()
}

/// The DER between the one pair of these PEM headers.
fn der(pem: &Value, label: &str) -> Vec<u8> {
    let text = pem.as_str().unwrap();
    let body = text.strip_prefix(&format!("-----BEGIN {label}-----\n")).unwrap();
    let body = body.strip_suffix(&format!("\n-----END {label}-----\n")).unwrap();
    STANDARD.decode(body.replace('\n', "")).unwrap()
}

fn members(object: &Value) -> Vec<&str> {
    let mut members: Vec<&str> = object.as_object().unwrap().keys().map(String::as_str).collect();
    members.sort_unstable();
    members
}

/// What most tests look at: RSA keys take their time. It stays in the target directory until the next run.
static STANDARD_PLANS: LazyLock<Directory> = LazyLock::new(|| {
    prepared("standard", &["https://localhost:21443", "https://localhost:21444/accounts", "accounts:read", "localhost"])
});

#[test]
fn a_plan_has_the_members_that_the_suite_reads() {
    for authentication in PLANS {
        let plan = plan(&STANDARD_PLANS, authentication);
        assert_eq!(
            members(&plan),
            ["alias", "client", "client2", "description", "mtls", "mtls2", "resource", "server"],
            "{authentication}"
        );
        assert_eq!(
            plan["server"],
            json!({ "discoveryUrl": "https://localhost:21443/.well-known/oauth-authorization-server" })
        );
        assert_eq!(plan["resource"], json!({ "resourceUrl": "https://localhost:21444/accounts" }));
        for client in ["client", "client2"] {
            assert_eq!(members(&plan[client]), ["client_id", "jwks", "scope"]);
            assert_eq!(plan[client]["scope"], "accounts:read");
        }
        for tls in ["mtls", "mtls2"] {
            assert_eq!(members(&plan[tls]), ["ca", "cert", "key"]);
        }
    }
}

#[test]
fn keys_are_those_of_their_certificates_and_the_certificates_those_of_the_ca() {
    for authentication in PLANS {
        let plan = plan(&STANDARD_PLANS, authentication);
        for (client, tls) in [("client", "mtls"), ("client2", "mtls2")] {
            let (certificate, ca) = (der(&plan[tls]["cert"], "CERTIFICATE"), der(&plan[tls]["ca"], "CERTIFICATE"));
            let (_, certificate) = X509Certificate::from_der(&certificate).unwrap();
            let (_, ca) = X509Certificate::from_der(&ca).unwrap();
            assert_eq!(certificate.tbs_certificate.issuer, ca.tbs_certificate.subject);
            let key = rsa::KeyPair::from_pkcs8(&der(&plan[tls]["key"], "PRIVATE KEY")).unwrap();
            let public = &certificate.tbs_certificate.subject_pki.subject_public_key.data;
            assert_eq!(key.public_key().as_ref(), public.as_ref(), "{authentication} {tls}");
            // The name by which start.sh registers it.
            let name = format!("{}.suite.example", plan[client]["client_id"].as_str().unwrap());
            let names = certificate.subject_alternative_name().unwrap().unwrap();
            assert_eq!(names.value.general_names, [GeneralName::DNSName(&name)]);
        }
    }
}

#[test]
fn every_jwk_is_a_whole_key_pair_and_its_public_half_is_what_is_registered() {
    for authentication in PLANS {
        let plan = plan(&STANDARD_PLANS, authentication);
        for client in ["client", "client2"] {
            let [jwk] = plan[client]["jwks"]["keys"].as_array().unwrap().as_slice() else { panic!("one key") };
            assert_eq!(members(jwk), ["alg", "crv", "d", "kid", "kty", "use", "x", "y"]);
            assert_eq!((&jwk["alg"], &jwk["use"]), (&json!("ES256"), &json!("sig")));
            let number = |name: &str| URL_SAFE_NO_PAD.decode(jwk[name].as_str().unwrap()).unwrap();
            let point = [&[4], &number("x")[..], &number("y")].concat();
            EcdsaKeyPair::from_private_key_and_public_key(&ECDSA_P256_SHA256_FIXED_SIGNING, &number("d"), &point)
                .unwrap();
            let mut public = jwk.clone();
            public.as_object_mut().unwrap().remove("d");
            let file = STANDARD_PLANS.0.join(format!("{}.jwks.json", plan[client]["client_id"].as_str().unwrap()));
            let registered: Value = serde_json::from_slice(&fs::read(file).unwrap()).unwrap();
            assert_eq!(registered, json!({ "keys": [public] }), "{authentication} {client}");
        }
    }
}

#[test]
fn no_client_has_anything_of_another() {
    let mut seen = BTreeSet::new();
    for authentication in PLANS {
        let plan = plan(&STANDARD_PLANS, authentication);
        for (client, tls) in [("client", "mtls"), ("client2", "mtls2")] {
            let jwk = &plan[client]["jwks"]["keys"][0];
            for own in [&plan[client]["client_id"], &jwk["kid"], &jwk["d"], &plan[tls]["cert"], &plan[tls]["key"]] {
                assert!(seen.insert(own.as_str().unwrap().to_owned()), "{authentication} {client}: {own}");
            }
        }
    }
    assert_eq!(seen.len(), 4 * 5);
}

#[test]
fn what_is_private_is_its_owners_alone() {
    let mut private = 0;
    for entry in fs::read_dir(&STANDARD_PLANS.0).unwrap() {
        let entry = entry.unwrap();
        let text = fs::read_to_string(entry.path()).unwrap();
        if text.contains("PRIVATE KEY") || text.contains("\"d\"") {
            private += 1;
            assert_eq!(entry.metadata().unwrap().permissions().mode() & 0o077, 0, "{:?}", entry.path());
        }
    }
    assert_eq!(private, 2 + 4 + 1); // the plans, the clients' keys, the server's
}

#[test]
fn an_issuer_with_a_path_is_found_by_rfc_8414() {
    let directory = prepared("path", &["https://as.example/bank/", "https://api.example/x", "s", "as.example"]);
    let found = &plan(&directory, "mtls")["server"]["discoveryUrl"];
    assert_eq!(found, "https://as.example/.well-known/oauth-authorization-server/bank");
    let server = fs::read(directory.0.join("server.pem")).unwrap();
    let server = der(&String::from_utf8(server).unwrap().into(), "CERTIFICATE");
    let (_, server) = X509Certificate::from_der(&server).unwrap();
    let names = server.subject_alternative_name().unwrap().unwrap();
    assert!(names.value.general_names.contains(&GeneralName::DNSName("as.example")));
}

#[test]
fn what_is_no_https_issuer_is_refused() {
    let directory = Directory(Path::new(env!("CARGO_TARGET_TMPDIR")).join("openid-plan-refused"));
    for arguments in [&["http://localhost", "https://localhost/x", "s"][..], &["https://localhost"], &[]] {
        let ran = Command::new(env!("CARGO_BIN_EXE_openid-plan")).arg(&directory.0).args(arguments).output().unwrap();
        assert_eq!(ran.status.code(), Some(2), "{arguments:?}");
        assert!(!directory.0.join("plan-mtls.json").exists());
    }
}
