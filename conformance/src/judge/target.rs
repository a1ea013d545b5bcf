//! The target file: who is judged, and what it lends the judge.
//!
//! Takes TOML, gives a [`Target`] with every file it names already read, or all mistakes at once. It asks nobody: what the
//! target says of itself is in `facts`.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use serde::{Deserialize, Serialize};

use crate::judge::certificate::{self, Identity, Party};
use crate::judge::report::printable;
use crate::key::{JwsAlgorithm, Key};
use crate::pki::Authority;

/// The file as it is written.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Written {
    /// What the report calls it.
    name: Option<String>,
    issuer: String,
    roots: PathBuf,
    scope: String,
    other_scope: Option<String>,
    resource: Option<String>,
    metadata: Option<String>,
    token_endpoint: Option<String>,
    introspection_endpoint: Option<String>,
    revocation_endpoint: Option<String>,
    client: WrittenClient,
    client2: WrittenClient,
    client_jwt: Option<WrittenJwtClient>,
    client_self_signed: Option<WrittenClient>,
    introspection: Option<WrittenClient>,
    ca: Option<WrittenAuthority>,
    protected_resource: Option<WrittenResource>,
    forged: Option<WrittenForged>,
    #[serde(default)]
    except: BTreeMap<String, String>,
    /// A JSON file: `[{"name": …, "version": …}]`.
    real_clients: Option<PathBuf>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct WrittenClient {
    id: String,
    certificate: PathBuf,
    key: PathBuf,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct WrittenJwtClient {
    id: String,
    /// The key of its assertions.
    key: PathBuf,
    kid: Option<String>,
    alg: Option<String>,
    /// The certificate of its connection.
    certificate: PathBuf,
    certificate_key: PathBuf,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct WrittenAuthority {
    certificate: PathBuf,
    key: PathBuf,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct WrittenResource {
    url: String,
    #[serde(default = "get")]
    method: String,
    roots: Option<PathBuf>,
    metadata: Option<String>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct WrittenForged {
    url: String,
    #[serde(default = "get")]
    method: String,
    roots: Option<PathBuf>,
    audience: String,
    scope: String,
    listen: std::net::SocketAddr,
    issuer: String,
    certificate: PathBuf,
    key: PathBuf,
    #[serde(default = "ninety")]
    wait_seconds: u64,
    #[serde(default)]
    claims: serde_json::Map<String, serde_json::Value>,
}

fn get() -> String {
    "GET".to_owned()
}

const fn ninety() -> u64 {
    90
}

/// Who is judged.
#[derive(Debug)]
pub(crate) struct Target {
    /// What the report calls it.
    pub(crate) name: Option<String>,
    pub(crate) issuer: String,
    pub(crate) roots: Vec<CertificateDer<'static>>,
    pub(crate) scope: String,
    pub(crate) other_scope: Option<String>,
    pub(crate) resource: Option<String>,
    /// Where its metadata is, if not where RFC 8414 §3.1 puts it.
    pub(crate) metadata: Option<String>,
    /// Endpoints by name that the metadata need not say.
    pub(crate) endpoints: BTreeMap<&'static str, String>,
    /// `client`, `client2`, and those of `client_jwt`, `client_self_signed`, `introspection` that there are.
    pub(crate) parties: BTreeMap<String, Party>,
    pub(crate) ca: Option<Authority>,
    pub(crate) protected_resource: Option<Resource>,
    pub(crate) forged: Option<Forged>,
    /// Case ids with the reason why they do not count.
    pub(crate) except: BTreeMap<String, String>,
    /// Real clients that were tried against it elsewhere, for the report.
    pub(crate) clients: Vec<RealClient>,
}

/// A client library or program that somebody else wrote.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub struct RealClient {
    /// What it is called.
    pub name: String,
    /// Which version was tried.
    pub version: String,
}

/// An API behind the target's tokens.
#[derive(Debug)]
pub(crate) struct Resource {
    pub(crate) url: String,
    pub(crate) method: String,
    pub(crate) roots: Vec<CertificateDer<'static>>,
    pub(crate) metadata: Option<String>,
}

/// An API that trusts an issuer which the judge plays.
#[derive(Debug)]
pub(crate) struct Forged {
    pub(crate) resource: Resource,
    pub(crate) audience: String,
    pub(crate) scope: String,
    pub(crate) listen: std::net::SocketAddr,
    pub(crate) issuer: String,
    pub(crate) chain: Vec<CertificateDer<'static>>,
    pub(crate) key: PrivateKeyDer<'static>,
    /// How long the API may take until it has fetched the judge's keys.
    pub(crate) wait_seconds: u64,
    /// Claims that this API demands beyond those of RFC 9068.
    pub(crate) claims: serde_json::Map<String, serde_json::Value>,
}

/// What is wrong with a target file: every mistake.
#[derive(Debug)]
pub struct TargetError(pub(crate) Vec<String>);

impl std::fmt::Display for TargetError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        // Some of it may be what a target said, and it goes to a terminal.
        let lines = self.0.iter().flat_map(|mistake| mistake.lines()).map(printable);
        f.write_str(&lines.collect::<Vec<_>>().join("\n"))
    }
}

impl std::error::Error for TargetError {}

impl Target {
    /// Reads the file and everything it names.
    pub(crate) fn read(path: &Path, now: i64) -> Result<Self, TargetError> {
        let text =
            std::fs::read_to_string(path).map_err(|error| TargetError(vec![format!("{}: {error}", path.display())]))?;
        let written: Written =
            toml::from_str(&text).map_err(|error| TargetError(vec![format!("{}: {error}", path.display())]))?;
        let folder = path.parent().unwrap_or(Path::new("."));
        let mut reading = Reading { folder, mistakes: Vec::new(), now };
        let target = reading.target(written);
        match target {
            Some(target) if reading.mistakes.is_empty() => Ok(target),
            _ => Err(TargetError(reading.mistakes)),
        }
    }
}

/// Files being read, and the mistakes found on the way.
struct Reading<'a> {
    folder: &'a Path,
    mistakes: Vec<String>,
    now: i64,
}

impl Reading<'_> {
    fn target(&mut self, written: Written) -> Option<Target> {
        let roots = self.certificates(&written.roots);
        let mut parties = BTreeMap::new();
        let plain = [
            ("client", Some(&written.client)),
            ("client2", Some(&written.client2)),
            ("client_self_signed", written.client_self_signed.as_ref()),
            ("introspection", written.introspection.as_ref()),
        ];
        for (name, client) in plain {
            let Some(client) = client else { continue };
            if let Some(party) = self.party(&client.id, &client.certificate, &client.key) {
                parties.insert(name.to_owned(), party);
            }
        }
        if let Some(client) = &written.client_jwt {
            let party = self.party(&client.id, &client.certificate, &client.certificate_key);
            let key = self.key(&client.key);
            if let (Some(mut party), Some(key)) = (party, key) {
                let named = client.alg.as_deref().map(JwsAlgorithm::of);
                match named.unwrap_or_else(|| key.jws_algorithm()) {
                    Some(algorithm) => {
                        let kid = client.kid.clone().unwrap_or_else(|| key.jwk_thumbprint());
                        let alg = client.alg.clone().unwrap_or_else(|| algorithm.as_str().to_owned());
                        party.assertions = Some(Identity { key: key.into(), kid, alg, algorithm });
                        parties.insert("client_jwt".to_owned(), party);
                    }
                    None => self.mistakes.push("client_jwt.alg: one of ES256, ES384, EdDSA, PS256, RS256".to_owned()),
                }
            }
        }
        if let (Some(one), Some(other)) = (parties.get("client"), parties.get("client2"))
            && one.certificate() == other.certificate()
        {
            self.mistakes.push("client and client2 have the same certificate: they have to be two parties".to_owned());
        }
        let ca = written.ca.and_then(|ca| {
            let certificates = self.certificates(&ca.certificate);
            let key = self.key(&ca.key)?;
            let chain: Vec<Vec<u8>> = certificates.iter().map(|der| der.to_vec()).collect();
            // A file with one certificate is a root's; an intermediate comes with what is above it, and is sent itself.
            let above = if chain.len() > 1 { chain.clone() } else { Vec::new() };
            let authority = certificate::authority(chain.into_iter().next()?, key, above, self.now);
            if authority.is_none() {
                self.mistakes.push(format!("{}: not a certificate", ca.certificate.display()));
            }
            authority
        });
        let protected_resource = written.protected_resource.map(|resource| Resource {
            roots: resource.roots.as_ref().map_or_else(|| roots.clone(), |path| self.certificates(path)),
            url: resource.url,
            method: resource.method,
            metadata: resource.metadata,
        });
        let forged = written.forged.and_then(|forged| {
            Some(Forged {
                resource: Resource {
                    roots: forged.roots.as_ref().map_or_else(|| roots.clone(), |path| self.certificates(path)),
                    url: forged.url,
                    method: forged.method,
                    metadata: None,
                },
                audience: forged.audience,
                scope: forged.scope,
                listen: forged.listen,
                issuer: forged.issuer,
                chain: self.certificates(&forged.certificate),
                key: self.private_key(&forged.key)?,
                wait_seconds: forged.wait_seconds,
                claims: forged.claims,
            })
        });
        let mut addresses = vec![("issuer", Some(&written.issuer)), ("metadata", written.metadata.as_ref())];
        addresses.push(("protected_resource.url", protected_resource.as_ref().map(|resource| &resource.url)));
        addresses.push(("forged.url", forged.as_ref().map(|forged| &forged.resource.url)));
        let named = [
            ("token", "token_endpoint", written.token_endpoint),
            ("introspection", "introspection_endpoint", written.introspection_endpoint),
            ("revocation", "revocation_endpoint", written.revocation_endpoint),
        ];
        addresses.extend(named.iter().map(|(_, member, url)| (*member, url.as_ref())));
        for (member, url) in addresses {
            if url.is_some_and(|url| crate::judge::wire::Address::parse(url).is_none()) {
                self.mistakes.push(format!("{member}: not an https URL"));
            }
        }
        let clients = written.real_clients.map_or_else(Vec::new, |path| self.clients(&path));
        let endpoints = named.into_iter().filter_map(|(name, _, url)| Some((name, url?))).collect();
        Some(Target {
            name: written.name,
            issuer: written.issuer,
            roots,
            scope: written.scope,
            other_scope: written.other_scope,
            resource: written.resource,
            metadata: written.metadata,
            endpoints,
            parties,
            ca,
            protected_resource,
            forged,
            except: written.except,
            clients,
        })
    }

    fn party(&mut self, id: &str, certificate: &Path, key: &Path) -> Option<Party> {
        let chain: Vec<Vec<u8>> = self.certificates(certificate).into_iter().map(|der| der.to_vec()).collect();
        let key = self.private_key(key)?;
        (!chain.is_empty()).then(|| Party { id: id.to_owned(), chain, key, assertions: None })
    }

    fn certificates(&mut self, path: &Path) -> Vec<CertificateDer<'static>> {
        let file = self.folder.join(path);
        match CertificateDer::pem_file_iter(&file).and_then(Iterator::collect::<Result<Vec<_>, _>>) {
            Ok(certificates) if !certificates.is_empty() => certificates,
            Ok(_) => {
                self.mistakes.push(format!("{}: no certificate in it", file.display()));
                Vec::new()
            }
            Err(error) => {
                self.mistakes.push(format!("{}: {error}", file.display()));
                Vec::new()
            }
        }
    }

    fn clients(&mut self, path: &Path) -> Vec<RealClient> {
        let file = self.folder.join(path);
        let read = std::fs::read_to_string(&file).map_err(|error| error.to_string());
        let parsed = read.and_then(|text| serde_json::from_str(&text).map_err(|error| error.to_string()));
        parsed.unwrap_or_else(|error| {
            self.mistakes.push(format!("{}: {error}", file.display()));
            Vec::new()
        })
    }

    fn private_key(&mut self, path: &Path) -> Option<PrivateKeyDer<'static>> {
        let file = self.folder.join(path);
        PrivateKeyDer::from_pem_file(&file)
            .map_err(|error| self.mistakes.push(format!("{}: {error}", file.display())))
            .ok()
    }

    fn key(&mut self, path: &Path) -> Option<Key> {
        let key = Key::from_der(self.private_key(path)?.secret_der());
        if key.is_none() {
            self.mistakes.push(format!("{}: a key of a kind that the judge cannot sign with", path.display()));
        }
        key
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::key::KeyKind;
    use crate::pki::{Name, Template};

    const NOW: i64 = 1_800_000_000;

    const GOOD: &str = "issuer = \"https://as.example\"\nroots = \"ca.pem\"\nscope = \"a\"\n\
        [client]\nid = \"one\"\ncertificate = \"one.pem\"\nkey = \"one.key\"\n\
        [client2]\nid = \"two\"\ncertificate = \"two.pem\"\nkey = \"two.key\"\n";

    /// What is said of this text, beside the files that it names.
    fn read(text: &str) -> Result<Target, String> {
        use std::sync::atomic::{AtomicUsize, Ordering};
        static NEXT: AtomicUsize = AtomicUsize::new(0);
        let number = NEXT.fetch_add(1, Ordering::SeqCst);
        let folder = std::env::temp_dir().join(format!("countersign-conformance-{}-{number}", std::process::id()));
        std::fs::create_dir_all(&folder).unwrap();
        let root = Authority::root("Root", NOW);
        std::fs::write(folder.join("ca.pem"), root.to_pem()).unwrap();
        std::fs::write(folder.join("ca.key"), root.key.to_pem()).unwrap();
        for name in ["one", "two"] {
            let credential = root.issue(&Template::client(Name::common(name), NOW), KeyKind::P256);
            std::fs::write(folder.join(format!("{name}.pem")), credential.chain_pem()).unwrap();
            std::fs::write(folder.join(format!("{name}.key")), credential.key.to_pem()).unwrap();
        }
        std::fs::write(folder.join("target.toml"), text).unwrap();
        let target = Target::read(&folder.join("target.toml"), NOW).map_err(|error| error.to_string());
        std::fs::remove_dir_all(&folder).unwrap();
        target
    }

    #[test]
    fn a_file_with_two_clients_is_enough() {
        let target = read(GOOD).unwrap();
        assert_eq!(target.parties.keys().collect::<Vec<_>>(), ["client", "client2"]);
        assert!(target.ca.is_none() && target.forged.is_none());
        let whole = format!("{GOOD}[ca]\ncertificate = \"ca.pem\"\nkey = \"ca.key\"\n[except]\nx = \"y\"\n");
        let target = read(&whole).unwrap();
        assert_eq!(target.ca.unwrap().name, Name::common("Root"));
        assert_eq!(target.except["x"], "y");
    }

    #[test]
    fn every_mistake_is_told_at_once() {
        let bad = GOOD.replace("one.pem", "gone.pem").replace("two.key", "two.pem").replace("https://as", "http://as");
        let told = read(&bad).unwrap_err();
        assert_eq!(told.lines().count(), 3, "{told}");
        assert!(told.contains("gone.pem") && told.contains("issuer: not an https URL"), "{told}");
    }

    #[test]
    fn a_mistake_gives_no_orders_to_a_terminal() {
        let told = TargetError(vec!["a\u{9b}2J\u{202e}b\nc".to_owned(), "d\u{1b}[2J".to_owned()]).to_string();
        assert_eq!(told, "a 2Jb\nc\nd [2J");
    }

    #[test]
    fn what_cannot_be_judged_is_refused() {
        let jwt = "[client_jwt]\nid = \"j\"\nkey = \"one.key\"\nalg = \"HS256\"\ncertificate = \"one.pem\"\n\
            certificate_key = \"one.key\"\n";
        for (text, word) in [
            ("issuer = 1".to_owned(), "issuer"),
            (GOOD.replace("scope", "scopes"), "unknown field"),
            (GOOD.replace("two.pem", "one.pem").replace("two.key", "one.key"), "have to be two parties"),
            (GOOD.replace("[client2]", "[client3]"), "client3"),
            (format!("token_endpoint = \"as.example/token\"\n{GOOD}"), "token_endpoint"),
            (format!("{GOOD}{jwt}"), "client_jwt.alg"),
        ] {
            let told = read(&text).unwrap_err();
            assert!(told.contains(word), "{word}: {told}");
        }
    }
}
