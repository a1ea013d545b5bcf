//! The other end of the handshake, for the quickstart's callers.

use std::sync::Arc;

use rustls::{ClientConfig, RootCertStore};
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};

/// Why a client's PEM files cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum ClientConfigError {
    /// Not PEM.
    #[error("a certificate or key cannot be read: {0}")]
    Pem(#[from] rustls_pki_types::pem::Error),
    /// Not for TLS.
    #[error("a certificate or key cannot be used: {0}")]
    Tls(#[from] rustls::Error),
}

/// A TLS client that trusts `roots` and presents `certificate`, all in PEM.
///
/// # Errors
/// [`ClientConfigError`].
pub fn client_config(roots: &[u8], certificate: &[u8], key: &[u8]) -> Result<ClientConfig, ClientConfigError> {
    let mut store = RootCertStore::empty();
    for root in CertificateDer::pem_slice_iter(roots) {
        store.add(root?)?;
    }
    let chain = CertificateDer::pem_slice_iter(certificate).collect::<Result<Vec<_>, _>>()?;
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()?
        .with_root_certificates(store)
        .with_client_auth_cert(chain, PrivateKeyDer::from_pem_slice(key)?)?;
    Ok(config)
}
