//! The server's own certificate and key.
//!
//! Takes two PEM files and the names the server is reached under, gives a certificate that its users would accept:
//! checked first, then published as a snapshot, again whenever the files change. A broken new one is set aside and the
//! old one stays. It knows nothing of clients' certificates.

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use arc_swap::ArcSwap;
use countersign_resource_server::time::{Clock, UnixTime};
use rustls::crypto::aws_lc_rs::{default_provider, sign::any_supported_type};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;
use sha2::{Digest, Sha256};
use webpki::{EndEntityCert, KeyUsage, anchor_from_trusted_cert};
use x509_parser::prelude::{FromDer, X509Certificate};

use crate::config::TlsFiles;
use crate::telemetry;

/// How often the files are looked at.
pub const LOOK_EVERY: Duration = Duration::from_secs(5);

/// Why a server certificate cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum ServerCertificateError {
    /// A file is not there.
    #[error(
        "{path} does not exist: {key} names it, and the server needs a certificate before it can serve (keys/README.md makes one for development)", path = path.display()
    )]
    Missing {
        /// Which key of the configuration names it.
        key: &'static str,
        /// Which file.
        path: PathBuf,
    },
    /// A file cannot be read.
    #[error("{path} cannot be read: {error}", path = path.display())]
    Unreadable {
        /// Which.
        path: PathBuf,
        /// Why.
        error: io::Error,
    },
    /// The file holds no certificate in PEM, or something else that cannot be read.
    #[error("{path}: must hold the server's certificate and its intermediates in PEM, the server's first", path = .0.display())]
    MalformedCertificate(PathBuf),
    /// The file holds no private key in PEM.
    #[error("{path}: must hold one private key in PEM, not encrypted: PKCS#8, SEC1 or PKCS#1", path = .0.display())]
    MalformedKey(PathBuf),
    /// The key is not the certificate's.
    #[error("the key is not the key of the certificate")]
    KeyOfAnother,
    /// Users would find it expired, or not valid yet.
    #[error("the certificate is valid from {not_before} to {not_after}, which is not now")]
    OutOfDate {
        /// First second of its validity.
        not_before: UnixTime,
        /// Last second of its validity.
        not_after: UnixTime,
    },
    /// Users that go by RFC 5280, resource servers among them, take no CA's certificate for a server's.
    #[error(
        "the certificate is a CA's (basic constraints CA:TRUE, as `openssl req -x509` makes them), which resource servers refuse: have a CA issue one for the server, as keys/README.md shows"
    )]
    IsAuthority,
    /// Users would find another name in it.
    #[error("the certificate has no subject alternative name {0}, under which the server is reached")]
    NameMissing(String),
    /// The certificates behind the first do not lead from it to the last.
    #[error("the certificates of the file do not form a chain for a TLS server: {0}")]
    ChainBroken(webpki::Error),
}

/// The certificate in use. Clients get whichever was published last.
pub struct ServerCertificate {
    files: TlsFiles,
    names: Vec<String>,
    published: ArcSwap<Published>,
    /// The hash of the files that were last set aside, so that they are reported once.
    set_aside: Mutex<Option<[u8; 32]>>,
}

struct Published {
    key: Arc<CertifiedKey>,
    not_after: UnixTime,
    /// The hash of the files it is from.
    fingerprint: [u8; 32],
}

/// What looking at the files brought.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reload {
    /// New files, checked and published.
    Published,
    /// The files are the ones in use, or still the ones that were set aside.
    Unchanged,
}

impl ServerCertificate {
    /// Reads and checks `files` for a server that is reached under `names`.
    ///
    /// # Errors
    /// [`ServerCertificateError`]: the first thing a user would stumble over.
    pub fn load(files: TlsFiles, names: Vec<String>, now: UnixTime) -> Result<Arc<Self>, ServerCertificateError> {
        let (certificate, key) = read(&files)?;
        let published = check(&files, &names, &certificate, &key, now)?;
        Ok(Arc::new(Self { files, names, published: ArcSwap::from_pointee(published), set_aside: Mutex::default() }))
    }

    /// Looks at the files, and publishes what they hold if it is new and good. What was set aside is checked again each
    /// time: a certificate whose validity begins tomorrow is good tomorrow.
    ///
    /// # Errors
    /// [`ServerCertificateError`], once for each new broken state of the files; the old certificate stays in use.
    pub fn reload(&self, now: UnixTime) -> Result<Reload, ServerCertificateError> {
        let (certificate, key) = read(&self.files)?;
        let fingerprint = fingerprint(&certificate, &key);
        let mut set_aside = self.set_aside.lock().unwrap_or_else(PoisonError::into_inner);
        if self.published.load().fingerprint == fingerprint {
            *set_aside = None;
            return Ok(Reload::Unchanged);
        }
        match check(&self.files, &self.names, &certificate, &key, now) {
            Ok(published) => {
                self.published.store(Arc::new(published));
                *set_aside = None;
                Ok(Reload::Published)
            }
            Err(_) if *set_aside == Some(fingerprint) => Ok(Reload::Unchanged),
            Err(error) => {
                *set_aside = Some(fingerprint);
                Err(error)
            }
        }
    }

    /// The last second of the published certificate's validity.
    pub fn not_after(&self) -> UnixTime {
        self.published.load().not_after
    }

    /// Looks at the files every [`LOOK_EVERY`] and whenever `hurry` is notified; never ends.
    pub async fn watch(self: Arc<Self>, clock: Arc<dyn Clock>, hurry: Arc<tokio::sync::Notify>) {
        let mut unreadable_reported = false;
        loop {
            metrics::gauge!(telemetry::SERVER_CERTIFICATE_NOT_AFTER).set(self.not_after().as_seconds() as f64);
            let _ = tokio::time::timeout(LOOK_EVERY, hurry.notified()).await;
            let looking = self.clone();
            let now = clock.now();
            match tokio::task::spawn_blocking(move || looking.reload(now)).await {
                Ok(Ok(Reload::Published)) => {
                    unreadable_reported = false;
                    tracing::info!(not_after = %self.not_after(), "a new server certificate is in use");
                }
                Ok(Ok(Reload::Unchanged)) => unreadable_reported = false,
                Ok(Err(
                    error @ (ServerCertificateError::Missing { .. } | ServerCertificateError::Unreadable { .. }),
                )) => {
                    if !unreadable_reported {
                        tracing::error!(%error, "the server certificate cannot be read; the one in use stays");
                    }
                    unreadable_reported = true;
                }
                Ok(Err(error)) => {
                    metrics::counter!(telemetry::SERVER_CERTIFICATES_SET_ASIDE).increment(1);
                    tracing::error!(%error, "the new server certificate is set aside; the one in use stays");
                }
                Err(error) => tracing::error!(%error, "looking at the server certificate failed"),
            }
        }
    }
}

impl fmt::Debug for ServerCertificate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ServerCertificate")
            .field("files", &self.files)
            .field("names", &self.names)
            .finish_non_exhaustive()
    }
}

impl ResolvesServerCert for ServerCertificate {
    fn resolve(&self, _: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(self.published.load().key.clone())
    }
}

fn read(files: &TlsFiles) -> Result<(Vec<u8>, Vec<u8>), ServerCertificateError> {
    let read = |path: &Path, key| {
        std::fs::read(path).map_err(|error| match error.kind() {
            io::ErrorKind::NotFound => ServerCertificateError::Missing { key, path: path.to_owned() },
            _ => ServerCertificateError::Unreadable { path: path.to_owned(), error },
        })
    };
    Ok((read(&files.certificate, "tls.certificate")?, read(&files.key, "tls.key")?))
}

fn fingerprint(certificate: &[u8], key: &[u8]) -> [u8; 32] {
    Sha256::new().chain_update(Sha256::digest(certificate)).chain_update(Sha256::digest(key)).finalize().into()
}

fn check(
    files: &TlsFiles,
    names: &[String],
    certificate: &[u8],
    key: &[u8],
    now: UnixTime,
) -> Result<Published, ServerCertificateError> {
    let malformed = || ServerCertificateError::MalformedCertificate(files.certificate.clone());
    let chain: Vec<CertificateDer<'static>> =
        CertificateDer::pem_slice_iter(certificate).collect::<Result<_, _>>().map_err(|_| malformed())?;
    let leaf = chain.first().ok_or_else(malformed)?;
    let private_key =
        PrivateKeyDer::from_pem_slice(key).map_err(|_| ServerCertificateError::MalformedKey(files.key.clone()))?;
    let signing_key =
        any_supported_type(&private_key).map_err(|_| ServerCertificateError::MalformedKey(files.key.clone()))?;
    let certified = CertifiedKey::new(chain.clone(), signing_key);
    if certified.keys_match().is_err() {
        return Err(ServerCertificateError::KeyOfAnother);
    }
    let (_, parsed) = X509Certificate::from_der(leaf).map_err(|_| malformed())?;
    let not_before = UnixTime::from_seconds(parsed.validity().not_before.timestamp());
    let not_after = UnixTime::from_seconds(parsed.validity().not_after.timestamp());
    // RFC 5280 §4.1.2.5: both ends belong to the validity.
    if now.as_seconds() < not_before.as_seconds() || now.as_seconds() > not_after.as_seconds() {
        return Err(ServerCertificateError::OutOfDate { not_before, not_after });
    }
    // RFC 5280 §4.2.1.9, as webpki asks it of every server that it verifies.
    if parsed.is_ca() {
        return Err(ServerCertificateError::IsAuthority);
    }
    let end_entity = EndEntityCert::try_from(leaf).map_err(ServerCertificateError::ChainBroken)?;
    for name in names {
        let wanted =
            ServerName::try_from(name.as_str()).map_err(|_| ServerCertificateError::NameMissing(name.clone()))?;
        end_entity
            .verify_is_valid_for_subject_name(&wanted)
            .map_err(|_| ServerCertificateError::NameMissing(name.clone()))?;
    }
    // Which root users trust is theirs to know; that the file leads from the leaf to its own last certificate is ours.
    if let [_, intermediates @ .., last] = &chain[..] {
        let anchor = anchor_from_trusted_cert(last).map_err(ServerCertificateError::ChainBroken)?;
        let seconds = u64::try_from(now.as_seconds()).unwrap_or(0);
        let at = rustls::pki_types::UnixTime::since_unix_epoch(Duration::from_secs(seconds));
        end_entity
            .verify_for_usage(
                default_provider().signature_verification_algorithms.all,
                &[anchor],
                intermediates,
                at,
                KeyUsage::server_auth(),
                None,
                None,
            )
            .map_err(ServerCertificateError::ChainBroken)?;
    }
    Ok(Published { key: Arc::new(certified), not_after, fingerprint: fingerprint(certificate, key) })
}

#[cfg(test)]
mod tests {
    use countersign_conformance::key::KeyKind;
    use countersign_conformance::pki::{Authority, BasicConstraints, Credential, Template};

    use super::*;

    const NOW: i64 = 1_800_000_000;

    struct Files {
        directory: tempfile::TempDir,
        authority: Authority,
    }

    impl Files {
        fn new() -> Self {
            Self { directory: tempfile::tempdir().unwrap(), authority: Authority::root("Root", NOW).intermediate("CA") }
        }

        fn server(&self, names: &[&str]) -> Credential {
            self.authority.issue(&Template::server(names, NOW), KeyKind::P256)
        }

        fn write(&self, credential: &Credential) -> TlsFiles {
            self.write_pem(&credential.chain_pem(), &credential.key.to_pem())
        }

        fn write_pem(&self, certificate: &str, key: &str) -> TlsFiles {
            let path = |name| self.directory.path().join(name);
            let files = TlsFiles { certificate: path("server.pem"), key: path("server-key.pem") };
            std::fs::write(&files.certificate, certificate).unwrap();
            std::fs::write(&files.key, key).unwrap();
            files
        }

        fn load(&self, credential: &Credential) -> Result<Arc<ServerCertificate>, ServerCertificateError> {
            load(self.write(credential))
        }
    }

    fn load(files: TlsFiles) -> Result<Arc<ServerCertificate>, ServerCertificateError> {
        ServerCertificate::load(files, vec!["as.example".to_owned()], UnixTime::from_seconds(NOW))
    }

    #[test]
    fn a_new_certificate_is_published_and_a_broken_one_set_aside_once() {
        let files = Files::new();
        let first = files.server(&["as.example"]);
        let held = files.load(&first).unwrap();
        let now = UnixTime::from_seconds(NOW + 60);
        let published = || held.published.load().key.cert[0].to_vec();
        assert_eq!(held.reload(now).unwrap(), Reload::Unchanged);

        let second = files.server(&["as.example"]);
        files.write(&second);
        assert_eq!(held.reload(now).unwrap(), Reload::Published);
        assert_eq!(published(), second.certificate());

        files.write_pem(&first.chain_pem(), &second.key.to_pem());
        assert!(matches!(held.reload(now), Err(ServerCertificateError::KeyOfAnother)));
        assert_eq!(held.reload(now).unwrap(), Reload::Unchanged);
        assert_eq!(published(), second.certificate());

        std::fs::remove_file(&held.files.key).unwrap();
        assert!(matches!(held.reload(now), Err(ServerCertificateError::Missing { key: "tls.key", .. })));
        assert_eq!(published(), second.certificate());
    }

    #[test]
    fn a_certificate_that_was_laid_out_early_is_published_when_its_time_comes() {
        let files = Files::new();
        let held = files.load(&files.server(&["as.example"])).unwrap();
        let next = Template { not_before: NOW + 3600, ..Template::server(&["as.example"], NOW) };
        let next = files.authority.issue(&next, KeyKind::P256);
        files.write(&next);
        let look = |seconds| held.reload(UnixTime::from_seconds(seconds));
        assert!(matches!(look(NOW + 3598), Err(ServerCertificateError::OutOfDate { .. })));
        assert_eq!(look(NOW + 3599).unwrap(), Reload::Unchanged);
        assert_eq!(look(NOW + 3600).unwrap(), Reload::Published);
        assert_eq!(held.published.load().key.cert[0].to_vec(), next.certificate());
    }

    #[test]
    fn each_thing_a_user_would_stumble_over_is_refused() {
        let files = Files::new();
        let good = files.server(&["as.example"]);
        assert!(files.load(&good).is_ok());
        assert!(matches!(
            files.load(&files.server(&["other.example"])),
            Err(ServerCertificateError::NameMissing(name)) if name == "as.example"
        ));
        let authority = Template {
            basic_constraints: Some(BasicConstraints { ca: true, path_length: None }),
            ..Template::server(&["as.example"], NOW)
        };
        assert!(matches!(
            files.load(&Credential::self_signed(&authority, KeyKind::P256)),
            Err(ServerCertificateError::IsAuthority)
        ));
        let expired = Template { not_after: NOW - 1, ..Template::server(&["as.example"], NOW) };
        assert!(matches!(
            files.load(&files.authority.issue(&expired, KeyKind::P256)),
            Err(ServerCertificateError::OutOfDate { .. })
        ));
        let last_second = Template { not_after: NOW, ..expired };
        assert!(files.load(&files.authority.issue(&last_second, KeyKind::P256)).is_ok());
        let not_yet = Template { not_before: NOW + 1, ..Template::server(&["as.example"], NOW) };
        assert!(matches!(
            files.load(&files.authority.issue(&not_yet, KeyKind::P256)),
            Err(ServerCertificateError::OutOfDate { .. })
        ));
        let other = Files::new().server(&["as.example"]);
        let crossed = Credential { key: good.key.clone(), chain: vec![good.chain[0].clone(), other.chain[1].clone()] };
        assert!(matches!(files.load(&crossed), Err(ServerCertificateError::ChainBroken(_))));
        let for_clients =
            Template { alt_names: last_second.alt_names.clone(), ..Template::client(last_second.subject.clone(), NOW) };
        assert!(matches!(
            files.load(&files.authority.issue(&for_clients, KeyKind::P256)),
            Err(ServerCertificateError::ChainBroken(_))
        ));
        assert!(matches!(
            load(files.write_pem("", &good.key.to_pem())),
            Err(ServerCertificateError::MalformedCertificate(_))
        ));
        assert!(matches!(
            load(files.write_pem(&good.chain_pem(), &good.chain_pem())),
            Err(ServerCertificateError::MalformedKey(_))
        ));
    }

    #[test]
    fn a_certificate_that_signed_itself_is_taken() {
        let files = Files::new();
        let template = Template::server(&["as.example"], NOW);
        assert!(files.load(&Credential::self_signed(&template, KeyKind::P256)).is_ok());
    }
}
