//! The other end of the handshake: for the quickstart's callers, and for what the server fetches.

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
    /// PEM, perhaps, but nobody to trust in it.
    #[error("there is no certificate in it")]
    NoCertificate,
    /// Not for TLS.
    #[error("a certificate or key cannot be used: {0}")]
    Tls(#[from] rustls::Error),
}

/// A TLS client that presents no certificate and trusts `roots`, in PEM; where there are none, what the system trusts.
///
/// # Errors
/// [`ClientConfigError`].
pub fn fetching_config(roots: Option<&[u8]>) -> Result<ClientConfig, ClientConfigError> {
    sending_config(roots, None)
}

/// The same, presenting a certificate, with its key, where there is one; all in PEM.
///
/// # Errors
/// [`ClientConfigError`].
pub fn sending_config(
    roots: Option<&[u8]>,
    identity: Option<(&[u8], &[u8])>,
) -> Result<ClientConfig, ClientConfigError> {
    let mut store = RootCertStore::empty();
    match roots {
        Some(pem) => {
            for root in CertificateDer::pem_slice_iter(pem) {
                store.add(root?)?;
            }
            if store.is_empty() {
                return Err(ClientConfigError::NoCertificate);
            }
        }
        None => {
            let found = rustls_native_certs::load_native_certs();
            let (_, unusable) = store.add_parsable_certificates(found.certs);
            if store.is_empty() {
                // Plain HTTP still works, which is what revocation lists mostly come by.
                tracing::warn!(unusable, "the system trusts no certificate authority: nothing is fetched over HTTPS");
            }
        }
    }
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let builder = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()?
        .with_root_certificates(store);
    let Some((certificate, key)) = identity else { return Ok(builder.with_no_client_auth()) };
    let chain = CertificateDer::pem_slice_iter(certificate).collect::<Result<Vec<_>, _>>()?;
    if chain.is_empty() {
        return Err(ClientConfigError::NoCertificate);
    }
    Ok(builder.with_client_auth_cert(chain, PrivateKeyDer::from_pem_slice(key)?)?)
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
