//! Who calls: a server's certificate, and clients with one each, as many as a registry has.
//!
//! Takes a directory and a number, makes keys and certificates there once, gives the TLS settings of any client. What is
//! held in memory does not grow with the number: the certificates are in one file, and 256 keys go round among them. It
//! knows nothing of the registry.

use std::fs::{self, File, OpenOptions};
use std::io::Write;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use countersign_conformance::KeyKind;
use countersign_conformance::key::Key;
use countersign_conformance::pki::{AltName, Authority, Name, Template};
use countersign_resource_server::time::{Clock, SystemClock};
use rustls::client::{ResolvesClientCert, Resumption};
use rustls::crypto::aws_lc_rs;
use rustls::sign::{CertifiedKey, SigningKey};
use rustls::{ClientConfig, RootCertStore, SignatureScheme};
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};

use crate::Failure;

/// Clients of one participant.
pub(crate) const CLIENTS_OF_ONE: u32 = 1_000;

/// Keys that go round among the clients. A key may be in several certificates: what is revoked of it is the registry's.
const KEYS: u32 = 256;

/// Octets of the file for each certificate: two for its length, then it.
const SLOT: usize = 640;

/// Certificates that are made before they are written.
const PAGE: u32 = 1_024;

/// One client, as everybody knows it.
#[derive(Clone, Debug)]
pub(crate) struct Identity {
    /// Its `client_id`.
    pub(crate) id: String,
    /// Whose it is.
    pub(crate) participant: String,
    /// The name in its certificate, and in the registry.
    pub(crate) dns: String,
}

/// The client with this number.
pub(crate) fn identity(number: u32) -> Identity {
    let participant = participant(number / CLIENTS_OF_ONE);
    Identity { id: format!("bench-{number}"), dns: format!("c{number}.{}", domain(&participant)), participant }
}

/// The participant with this number.
pub(crate) fn participant(number: u32) -> String {
    format!("partner-{number}")
}

/// Where a participant's names are.
pub(crate) fn domain(participant: &str) -> String {
    format!("{participant}.bench.example")
}

/// Everybody's keys and certificates, in a directory.
pub(crate) struct Population {
    directory: PathBuf,
    size: u32,
    certificates: File,
    keys: Vec<Arc<dyn SigningKey>>,
    base: ClientConfig,
}

impl Population {
    /// The `size` clients in this directory; made where they are not there.
    pub(crate) fn open(directory: &Path, size: u32) -> Result<Self, Failure> {
        let size_file = directory.join(SIZE_FILE);
        let there = fs::read_to_string(&size_file).ok().and_then(|text| text.trim().parse::<u32>().ok());
        if there != Some(size) {
            make(directory, size)?;
            // Written last: what was cut short is made anew.
            fs::write(&size_file, size.to_string())?;
        }
        let mut keys = Vec::new();
        for key in PrivateKeyDer::pem_file_iter(directory.join(CLIENT_KEYS))? {
            keys.push(aws_lc_rs::sign::any_ecdsa_type(&key?)?);
        }
        let roots = roots(&directory.join(SERVER_CA))?;
        let provider = Arc::new(aws_lc_rs::default_provider());
        let base = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()?
            .with_root_certificates(roots)
            .with_no_client_auth();
        let certificates = File::open(directory.join(CERTIFICATES))?;
        Ok(Self { directory: directory.to_owned(), size, certificates, keys, base })
    }

    /// Where they are.
    pub(crate) fn directory(&self) -> &Path {
        &self.directory
    }

    /// How many clients there are.
    pub(crate) const fn size(&self) -> u32 {
        self.size
    }

    /// The certificate of the client with this number.
    pub(crate) fn certificate(&self, client: u32) -> Result<CertificateDer<'static>, Failure> {
        let mut slot = [0; SLOT];
        self.certificates.read_exact_at(&mut slot, u64::from(client) * SLOT as u64)?;
        let (length, rest) = slot.split_at(2);
        let length = usize::from(length[0]) << 8 | usize::from(length[1]);
        Ok(CertificateDer::from(rest.get(..length).ok_or("a certificate is damaged")?.to_vec()))
    }

    /// The TLS settings of the client with this number.
    pub(crate) fn caller(&self, client: u32, resumption: Resumption) -> Result<ClientConfig, Failure> {
        let key = self.keys.get((client % KEYS) as usize).ok_or("a key is missing")?;
        let certified = CertifiedKey::new(vec![self.certificate(client)?], Arc::clone(key));
        let mut config = self.base.clone();
        config.client_auth_cert_resolver = Arc::new(Presented(Arc::new(certified)));
        config.resumption = resumption;
        Ok(config)
    }

    /// The TLS settings of somebody without a certificate.
    pub(crate) fn stranger(&self) -> ClientConfig {
        let mut config = self.base.clone();
        config.resumption = Resumption::disabled();
        config
    }

    /// What the clients' certificates lead to.
    pub(crate) fn client_roots(&self) -> Result<RootCertStore, Failure> {
        roots(&self.client_authority())
    }

    /// The certificate of the clients' authority, in PEM.
    pub(crate) fn client_authority(&self) -> PathBuf {
        self.directory.join(CLIENT_CA)
    }

    /// The servers' certificate, in PEM.
    pub(crate) fn server_certificate(&self) -> PathBuf {
        self.directory.join(SERVER_CERTIFICATE)
    }

    /// Its key, in PEM.
    pub(crate) fn server_key(&self) -> PathBuf {
        self.directory.join(SERVER_KEY)
    }
}

const SIZE_FILE: &str = "size";
const SERVER_CA: &str = "server-ca.pem";
const SERVER_CERTIFICATE: &str = "server.pem";
const SERVER_KEY: &str = "server.key";
const CLIENT_CA: &str = "clients-ca.pem";
const CLIENT_KEYS: &str = "clients.keys";
const CERTIFICATES: &str = "clients.certificates";

fn roots(path: &Path) -> Result<RootCertStore, Failure> {
    let mut roots = RootCertStore::empty();
    for root in CertificateDer::pem_file_iter(path)? {
        roots.add(root?)?;
    }
    Ok(roots)
}

fn make(directory: &Path, size: u32) -> Result<(), Failure> {
    fs::create_dir_all(directory)?;
    let now = SystemClock::new().now().as_seconds();
    let servers = Authority::root("Countersign bench servers", now);
    let server = servers.issue(&Template::server(&["localhost", "127.0.0.1"], now), KeyKind::P256);
    let clients = Authority::root("Countersign bench clients", now);
    fs::write(directory.join(SERVER_CA), servers.to_pem())?;
    fs::write(directory.join(SERVER_CERTIFICATE), server.chain_pem())?;
    fs::write(directory.join(CLIENT_CA), clients.to_pem())?;
    write_private(&directory.join(SERVER_KEY), &server.key.to_pem())?;
    let keys: Vec<Arc<Key>> = (0..KEYS).map(|_| Arc::new(Key::generate(KeyKind::P256))).collect();
    write_private(&directory.join(CLIENT_KEYS), &keys.iter().map(|key| key.to_pem()).collect::<String>())?;

    let file = File::create(directory.join(CERTIFICATES))?;
    let workers = u32::try_from(std::thread::available_parallelism()?.get())?;
    std::thread::scope(|scope| {
        let making: Vec<_> = (0..workers)
            .map(|worker| {
                let (file, clients, keys) = (&file, &clients, keys.as_slice());
                // Every worker takes each so many-th page.
                scope.spawn(move || {
                    (worker * PAGE..size)
                        .step_by((workers * PAGE) as usize)
                        .try_for_each(|first| make_page(file, clients, keys, first..size.min(first + PAGE), now))
                })
            })
            .collect();
        making.into_iter().try_for_each(|worker| worker.join().map_err(|_| "a worker panicked")?)
    })
}

fn make_page(
    file: &File,
    authority: &Authority,
    keys: &[Arc<Key>],
    clients: std::ops::Range<u32>,
    now: i64,
) -> Result<(), Failure> {
    let at = u64::from(clients.start) * SLOT as u64;
    let mut page = Vec::new();
    for number in clients {
        let Identity { participant, dns, .. } = identity(number);
        let subject = Name::of(&[("O", &participant), ("CN", &dns)]);
        let template = Template::client(subject, now).with_alt_names([AltName::Dns(dns)]);
        let key = keys.get((number % KEYS) as usize).ok_or("a key is missing")?;
        let certificate = authority.sign(&template, &key.spki());
        let mut slot = u16::try_from(certificate.len())?.to_be_bytes().to_vec();
        slot.extend(certificate);
        if slot.len() > SLOT {
            return Err("a certificate is longer than its slot".into());
        }
        slot.resize(SLOT, 0);
        page.extend(slot);
    }
    Ok(file.write_all_at(&page, at)?)
}

/// A file that only its owner may read.
pub(crate) fn write_private(path: &Path, text: &str) -> Result<(), Failure> {
    let mut file = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(path)?;
    Ok(file.write_all(text.as_bytes())?)
}

/// A client that presents its one certificate.
#[derive(Debug)]
struct Presented(Arc<CertifiedKey>);

impl ResolvesClientCert for Presented {
    fn resolve(&self, _root_hint_subjects: &[&[u8]], _schemes: &[SignatureScheme]) -> Option<Arc<CertifiedKey>> {
        Some(Arc::clone(&self.0))
    }

    fn has_certs(&self) -> bool {
        true
    }
}

#[cfg(test)]
mod tests {
    use countersign::pki::certificate::ParsedCertificate;

    use super::*;

    fn names(population: &Population, client: u32) -> Vec<String> {
        let certificate = population.certificate(client).unwrap();
        ParsedCertificate::read(&certificate).unwrap().for_enrolment().subject_alt_names
    }

    #[test]
    fn every_client_has_the_certificate_of_its_name() {
        let directory = tempfile::tempdir().unwrap();
        // More than a page, and not a whole number of them.
        let size = PAGE + 3;
        let population = Population::open(directory.path(), size).unwrap();
        for client in [0, 1, KEYS, CLIENTS_OF_ONE - 1, CLIENTS_OF_ONE, PAGE - 1, PAGE, size - 1] {
            assert_eq!(names(&population, client), [format!("DNS:{}", identity(client).dns)]);
        }
        population.certificate(size).unwrap_err();
    }

    #[test]
    fn what_is_there_is_found_again_and_another_number_is_made_anew() {
        let directory = tempfile::tempdir().unwrap();
        let certificate = |size| Population::open(directory.path(), size).unwrap().certificate(1).unwrap();
        let first = certificate(2);
        assert_eq!(certificate(2), first);
        assert_ne!(certificate(3), first);
    }

    #[test]
    fn what_was_cut_short_is_made_anew() {
        let directory = tempfile::tempdir().unwrap();
        let certificate = || Population::open(directory.path(), 2).unwrap().certificate(1).unwrap();
        let first = certificate();
        fs::remove_file(directory.path().join(SIZE_FILE)).unwrap();
        assert_ne!(certificate(), first);
    }
}
