//! Prepares what the OpenID Foundation's suite is told of an authorization server: two clients for each way to prove
//! themselves, their certificates and keys, and a plan's configuration for each (`conformance/openid/README.md`).
//!
//! `openid-plan DIRECTORY ISSUER RESOURCE SCOPE [HOST]` writes them to DIRECTORY: what the server is to register, what its
//! listeners on HOST need, and `plan-mtls.json` and `plan-private_key_jwt.json`.

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::{env, fs, io};

use countersign_conformance::cast::{write_credential, write_private};
use countersign_conformance::pki::{AltName, Authority, Credential, Name, Template};
use countersign_conformance::{Key, KeyKind, clock, well_known};
use serde_json::{Value, json};

/// What the plans are written for.
struct Target {
    issuer: String,
    resource: String,
    scope: String,
}

/// A client of a plan.
struct Client {
    id: String,
    certificate: Credential,
    signing: Key,
}

impl Client {
    fn new(id: &str, authority: &Authority, now: i64) -> Self {
        let template = Template::client(Name::of(&[("O", "Suite"), ("CN", id)]), now)
            .with_alt_names([AltName::Dns(format!("{id}.suite.example"))]);
        // RSA, because releases of the suite differ in which other keys they take for TLS.
        let certificate = authority.issue(&template, KeyKind::Rsa2048);
        Self { id: id.to_owned(), certificate, signing: Key::generate(KeyKind::P256) }
    }

    /// The key that signs assertions, with or without its private part. The suite wants `kid` and `alg`.
    fn jwks(&self, jwk: Value) -> Value {
        let mut jwk = jwk;
        jwk["kid"] = self.signing.jwk_thumbprint().into();
        jwk["alg"] = "ES256".into();
        jwk["use"] = "sig".into();
        json!({ "keys": [jwk] })
    }

    fn in_plan(&self, scope: &str) -> Option<Value> {
        let jwks = self.jwks(self.signing.private_jwk()?);
        Some(json!({ "client_id": self.id, "scope": scope, "jwks": jwks }))
    }

    fn tls_in_plan(&self, authority: &Authority) -> Value {
        json!({
            "cert": self.certificate.chain_pem(),
            "key": self.certificate.key.to_pem(),
            "ca": authority.to_pem(),
        })
    }

    fn write(&self, directory: &Path) -> io::Result<()> {
        write_credential(directory, &self.id, &self.certificate)?;
        fs::write(directory.join(format!("{}.jwks.json", self.id)), self.jwks(self.signing.jwk()).to_string())
    }
}

/// RFC 8414 §2: an issuer is an https URL.
fn discovery_url(issuer: &str) -> Option<String> {
    issuer.starts_with("https://").then(|| well_known::url(issuer, "oauth-authorization-server"))
}

fn plan(target: &Target, authentication: &str, clients: &[Client; 2], authority: &Authority) -> Option<Value> {
    let [one, two] = clients;
    Some(json!({
        "alias": format!("countersign-{}", authentication.replace('_', "-")),
        "description": format!("Countersign: client credentials, {authentication}, certificate-bound tokens"),
        "server": { "discoveryUrl": discovery_url(&target.issuer)? },
        "client": one.in_plan(&target.scope)?,
        "client2": two.in_plan(&target.scope)?,
        "mtls": one.tls_in_plan(authority),
        "mtls2": two.tls_in_plan(authority),
        "resource": { "resourceUrl": target.resource },
    }))
}

fn prepare(directory: &Path, target: &Target, host: &str, now: i64) -> io::Result<()> {
    fs::create_dir_all(directory)?;
    let servers = Authority::root("Suite, servers", now);
    let hosts = if host == "localhost" { vec!["localhost", "127.0.0.1"] } else { vec![host, "localhost", "127.0.0.1"] };
    write_credential(directory, "server", &servers.issue(&Template::server(&hosts, now), KeyKind::P256))?;
    fs::write(directory.join("servers-ca.pem"), servers.to_pem())?;
    let authority = Authority::root("Suite, clients", now);
    fs::write(directory.join("clients-ca.pem"), authority.to_pem())?;
    for authentication in ["mtls", "private_key_jwt"] {
        let stem = authentication.replace('_', "-");
        let clients = [1, 2].map(|number| Client::new(&format!("suite-{stem}-{number}"), &authority, now));
        let plan = plan(target, authentication, &clients, &authority)
            .ok_or_else(|| io::Error::other("the issuer is no https URL"))?;
        for client in &clients {
            client.write(directory)?;
        }
        // It has the clients' private keys.
        write_private(&directory.join(format!("plan-{authentication}.json")), &format!("{plan:#}\n"))?;
    }
    Ok(())
}

#[expect(clippy::print_stderr, reason = "it is where a command line complains")]
fn main() -> ExitCode {
    let arguments: Vec<String> = env::args().skip(1).collect();
    let (four, host) = match arguments.as_slice() {
        [four @ .., host] if four.len() == 4 => (four, host.as_str()),
        four => (four, "localhost"),
    };
    let [directory, issuer, resource, scope] = four else {
        eprintln!("usage: openid-plan DIRECTORY ISSUER RESOURCE SCOPE [HOST]");
        return ExitCode::from(2);
    };
    let target = Target { issuer: issuer.clone(), resource: resource.clone(), scope: scope.clone() };
    match prepare(&PathBuf::from(directory), &target, host, clock::now()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{directory}: {error}");
            ExitCode::from(2)
        }
    }
}
