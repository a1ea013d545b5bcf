//! Certificates for one machine: an authority kept in files, and leaves under it.
//!
//! Takes a directory and a `now`, gives PEM files. Nothing here protects anything: the authority's key lies beside its
//! certificate. It knows nothing of the registry.

use std::fs;
use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use countersign_resource_server::time::UnixTime;
use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    KeyUsagePurpose, SanType,
};
use time::OffsetDateTime;

const AUTHORITY_LIFETIME: Duration = Duration::from_secs(3650 * 86_400);
const LEAF_LIFETIME: Duration = Duration::from_secs(90 * 86_400);
/// Clocks of one machine agree, but a certificate valid from this very second looks early to whoever rounds down.
const BACKDATED: Duration = Duration::from_secs(300);

/// A certificate and its key could not be made or kept.
#[derive(Debug, thiserror::Error)]
pub(super) enum DevelopmentPkiError {
    /// A file could not be read or written.
    #[error("{path}: {source}")]
    File {
        /// Which.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// A key or certificate could not be made or read.
    #[error("development certificate: {0}")]
    Certificate(#[from] rcgen::Error),
    /// The calendar has no such date.
    #[error("development certificate: the date is out of range")]
    Date(#[from] time::error::ComponentRange),
}

/// A development certification authority.
pub(super) struct DevelopmentAuthority {
    issuer: Issuer<'static, KeyPair>,
    /// Where its certificate is.
    pub(super) certificate_path: PathBuf,
    /// Its certificate.
    pub(super) certificate_pem: String,
}

/// Where a leaf and its key were put.
#[derive(Clone, Debug)]
pub(super) struct LeafFiles {
    /// The certificate.
    pub(super) certificate: PathBuf,
    /// Its private key, mode 0600.
    pub(super) key: PathBuf,
}

impl LeafFiles {
    /// `NAME.pem` and `NAME.key` in `directory`.
    pub(super) fn named(directory: &Path, name: &str) -> Self {
        Self { certificate: directory.join(format!("{name}.pem")), key: directory.join(format!("{name}.key")) }
    }

    /// Whether both are there.
    pub(super) fn exist(&self) -> bool {
        self.certificate.exists() && self.key.exists()
    }
}

impl DevelopmentAuthority {
    /// The authority kept under `name` in `directory`; made where it is missing.
    ///
    /// # Errors
    /// [`DevelopmentPkiError`] if a file cannot be read or written, or its key is not one.
    pub(super) fn open(
        directory: &Path,
        name: &str,
        organisation: &str,
        now: UnixTime,
    ) -> Result<Self, DevelopmentPkiError> {
        let files = LeafFiles::named(directory, name);
        let mut params = CertificateParams::default();
        params.distinguished_name = distinguished_name(organisation, "Development CA");
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        let (key, certificate_pem) = if files.exist() {
            (KeyPair::from_pem(&read(&files.key)?)?, read(&files.certificate)?)
        } else {
            let key = KeyPair::generate()?;
            validity(&mut params, now, AUTHORITY_LIFETIME)?;
            let pem = params.self_signed(&key)?.pem();
            write_private(&files.key, &key.serialize_pem())?;
            write(&files.certificate, &pem)?;
            (key, pem)
        };
        Ok(Self { issuer: Issuer::new(params, key), certificate_path: files.certificate, certificate_pem })
    }

    /// A server certificate for `localhost` and the loopback addresses.
    ///
    /// # Errors
    /// [`DevelopmentPkiError`] if it cannot be made or written.
    pub(super) fn server_leaf(&self, files: &LeafFiles, now: UnixTime) -> Result<(), DevelopmentPkiError> {
        let mut params =
            CertificateParams::new(vec!["localhost".to_owned(), "127.0.0.1".to_owned(), "::1".to_owned()])?;
        params.distinguished_name = distinguished_name("Countersign quickstart", "localhost");
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
        self.leaf(params, files, now)
    }

    /// A client certificate that carries `dns_name`.
    ///
    /// # Errors
    /// [`DevelopmentPkiError`] if it cannot be made or written.
    pub(super) fn client_leaf(
        &self,
        organisation: &str,
        dns_name: &str,
        files: &LeafFiles,
        now: UnixTime,
    ) -> Result<(), DevelopmentPkiError> {
        let mut params = CertificateParams::default();
        params.subject_alt_names = vec![SanType::DnsName(dns_name.try_into()?)];
        params.distinguished_name = distinguished_name(organisation, dns_name);
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
        self.leaf(params, files, now)
    }

    fn leaf(&self, mut params: CertificateParams, files: &LeafFiles, now: UnixTime) -> Result<(), DevelopmentPkiError> {
        params.is_ca = IsCa::ExplicitNoCa;
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.use_authority_key_identifier_extension = true;
        validity(&mut params, now, LEAF_LIFETIME)?;
        let key = KeyPair::generate()?;
        let certificate = params.signed_by(&key, &self.issuer)?;
        write_private(&files.key, &key.serialize_pem())?;
        write(&files.certificate, &certificate.pem())
    }
}

fn distinguished_name(organisation: &str, common_name: &str) -> DistinguishedName {
    let mut name = DistinguishedName::new();
    name.push(DnType::OrganizationName, organisation);
    name.push(DnType::CommonName, common_name);
    name
}

fn validity(params: &mut CertificateParams, now: UnixTime, lifetime: Duration) -> Result<(), DevelopmentPkiError> {
    params.not_before = OffsetDateTime::from_unix_timestamp(now.before(BACKDATED).as_seconds())?;
    params.not_after = OffsetDateTime::from_unix_timestamp(now.after(lifetime).as_seconds())?;
    Ok(())
}

fn read(path: &Path) -> Result<String, DevelopmentPkiError> {
    fs::read_to_string(path).map_err(|source| DevelopmentPkiError::File { path: path.to_owned(), source })
}

fn write(path: &Path, text: &str) -> Result<(), DevelopmentPkiError> {
    fs::write(path, text).map_err(|source| DevelopmentPkiError::File { path: path.to_owned(), source })
}

fn write_private(path: &Path, text: &str) -> Result<(), DevelopmentPkiError> {
    let failed = |source| DevelopmentPkiError::File { path: path.to_owned(), source };
    match fs::remove_file(path) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => return Err(failed(error)),
        _ => {}
    }
    let mut file = fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(path).map_err(failed)?;
    file.write_all(text.as_bytes()).map_err(failed)
}
