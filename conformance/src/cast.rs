//! Who takes part in a trial: the server, two organisations with a CA and a client each, further clients for the other ways
//! to prove themselves, a resource server that asks about tokens.
//!
//! Takes a time, gives certificates and keys, and writes them as files that a target's script registers. It knows nothing of
//! the server that is to be judged.

use std::fs::{self, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use serde_json::json;

use crate::pki::{AltName, Authority, Credential, Name, Template};
use crate::{Key, KeyKind};

/// The parties, by the names of their files.
#[derive(Debug)]
pub struct Cast {
    /// The CA of everything that listens.
    pub servers: Authority,
    /// What listens on localhost, the judge's own listener among it: a file name and a certificate each.
    pub listeners: Vec<(&'static str, Credential)>,
    /// The CA of the first organisation. The judge is given its key, for certificates with defects.
    pub first: Authority,
    /// The CA of the second organisation.
    pub second: Authority,
    /// Those that ask: a file name and a certificate each. Their names are under `judge.example`.
    pub callers: Vec<(&'static str, Credential)>,
    /// The key of the client that signs assertions.
    pub assertion_key: Key,
}

/// The domain of the callers' names.
pub const DOMAIN: &str = "judge.example";

impl Cast {
    /// Everybody, with certificates that are good at `now`.
    pub fn at(now: i64) -> Self {
        let servers = Authority::root("Judge, servers", now);
        let first = Authority::root("Judge, first organisation", now);
        let second = Authority::root("Judge, second organisation", now);
        let listener = |name| (name, servers.issue(&Template::server(&["localhost", "127.0.0.1"], now), KeyKind::P256));
        let listeners = ["server", "api", "issuer"].map(listener).to_vec();
        let caller = |authority: &Authority, name| (name, authority.issue(&client(name, now), KeyKind::P256));
        let self_signed = Credential::self_signed(&client("client_self_signed", now), KeyKind::P256);
        let callers = vec![
            caller(&first, "client"),
            caller(&second, "client2"),
            caller(&first, "client_jwt"),
            ("client_self_signed", self_signed),
            caller(&second, "introspection"),
        ];
        Self { servers, listeners, first, second, callers, assertion_key: Key::generate(KeyKind::P256) }
    }

    /// Writes them to `directory`: `NAME.pem` and `NAME.key`, the CAs as `servers-ca.pem`, `ca.pem` with `ca.key` and
    /// `ca2.pem`, and the key sets that have to be registered as `NAME.jwks.json`.
    ///
    /// # Errors
    /// Where a file cannot be written.
    pub fn write(&self, directory: &Path) -> io::Result<()> {
        fs::create_dir_all(directory)?;
        for (name, credential) in self.listeners.iter().chain(&self.callers) {
            write_credential(directory, name, credential)?;
        }
        fs::write(directory.join("servers-ca.pem"), self.servers.to_pem())?;
        fs::write(directory.join("ca.pem"), self.first.to_pem())?;
        write_private(&directory.join("ca.key"), &self.first.key.to_pem())?;
        fs::write(directory.join("ca2.pem"), self.second.to_pem())?;
        for (name, credential) in &self.callers {
            if *name == "client_self_signed" {
                fs::write(directory.join(format!("{name}.jwks.json")), credential.jwks())?;
            }
        }
        let (kid, mut jwk) = (self.assertion_key.jwk_thumbprint(), self.assertion_key.jwk());
        jwk["kid"] = kid.clone().into();
        jwk["alg"] = "ES256".into();
        fs::write(directory.join("client_jwt.jwks.json"), json!({ "keys": [jwk] }).to_string())?;
        write_private(&directory.join("client_jwt.assertion.key"), &self.assertion_key.to_pem())?;
        fs::write(directory.join("client_jwt.kid"), kid)
    }
}

/// A caller's certificate: `CN=name,O=Judge`, and the DNS name under [`DOMAIN`].
fn client(name: &str, now: i64) -> Template {
    let host = name.replace('_', "-");
    Template::client(Name::of(&[("CN", name), ("O", "Judge")]), now)
        .with_alt_names([AltName::Dns(format!("{host}.{DOMAIN}"))])
}

/// Writes a certificate with what leads to its root, and its key, as `NAME.pem` and `NAME.key`.
///
/// # Errors
/// Where a file cannot be written.
pub fn write_credential(directory: &Path, name: &str, credential: &Credential) -> io::Result<()> {
    fs::write(directory.join(format!("{name}.pem")), credential.chain_pem())?;
    write_private(&directory.join(format!("{name}.key")), &credential.key.to_pem())
}

/// Writes a file that only its owner may read; one that is there is replaced.
///
/// # Errors
/// Where it cannot be written.
pub fn write_private(path: &Path, text: &str) -> io::Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    OpenOptions::new().write(true).create_new(true).mode(0o600).open(path)?.write_all(text.as_bytes())
}
