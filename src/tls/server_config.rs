//! What is spoken: versions, suites, groups, tickets.
//!
//! Takes the server's certificate and whether clients are asked for theirs, gives the `rustls::ServerConfig` of a
//! listener, after RFC 9325. It knows nothing of connections.

use std::sync::Arc;

use rustls::crypto::CryptoProvider;
use rustls::crypto::aws_lc_rs::{self, Ticketer, cipher_suite};
use rustls::server::{NoClientAuth, NoServerSessionStorage};
use rustls::{ServerConfig, version};

use super::reload::ServerCertificate;
use super::verifier::PossessionVerifier;

/// Whether a listener asks for client certificates. It never demands one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ClientCertificates {
    /// Asked for.
    Asked,
    /// Not asked for: the public face.
    NotAsked,
}

/// The configuration of one listener. Each has ticket keys of its own, so that no session crosses from one to another;
/// a certificate that is loaded anew changes nothing here, so sessions survive it.
///
/// # Errors
/// Whatever rustls makes of its own provider; there is no input that could be wrong.
pub fn server_config(
    certificate: Arc<ServerCertificate>,
    client_certificates: ClientCertificates,
) -> Result<Arc<ServerConfig>, rustls::Error> {
    let provider = Arc::new(provider());
    let verifier: Arc<dyn rustls::server::danger::ClientCertVerifier> = match client_certificates {
        ClientCertificates::Asked => Arc::new(PossessionVerifier::new(provider.signature_verification_algorithms)),
        ClientCertificates::NotAsked => Arc::new(NoClientAuth),
    };
    let mut config = ServerConfig::builder_with_provider(provider)
        // RFC 9325 §3.1.1: TLS 1.3 and 1.2, nothing older.
        .with_protocol_versions(&[&version::TLS13, &version::TLS12])?
        .with_client_cert_verifier(verifier)
        .with_cert_resolver(certificate);
    // Half of a handshake's hashing is with the suite's hash, and only SHA-256 has instructions for it on most processors. Whoever
    // wants no other than AES-256 offers no other (RFC 8446 §9.1).
    config.ignore_client_order = true;
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    // RFC 7627 §5.2: without it a TLS 1.2 session can be spliced onto another's client certificate.
    config.require_ems = true;
    // Stateless tickets, their keys new every six hours; nothing about a peer is kept here.
    config.ticketer = Ticketer::new()?;
    config.session_storage = Arc::new(NoServerSessionStorage {});
    config.send_tls13_tickets = 1;
    // RFC 8446 §8: early data can be replayed.
    config.max_early_data_size = 0;
    config.send_half_rtt_data = false;
    // A few compressed octets must not become a megabyte of certificates (RFC 8879 §5).
    config.cert_decompressors = Vec::new();
    config.cert_compressors = Vec::new();
    Ok(Arc::new(config))
}

/// aws-lc-rs, with the TLS 1.2 suites of RFC 9325 §4.2 and no others. X25519MLKEM768 comes first of the groups by the
/// `prefer-post-quantum` feature.
fn provider() -> CryptoProvider {
    CryptoProvider {
        cipher_suites: vec![
            cipher_suite::TLS13_AES_128_GCM_SHA256,
            cipher_suite::TLS13_AES_256_GCM_SHA384,
            cipher_suite::TLS13_CHACHA20_POLY1305_SHA256,
            cipher_suite::TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256,
            cipher_suite::TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384,
            cipher_suite::TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256,
            cipher_suite::TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384,
        ],
        ..aws_lc_rs::default_provider()
    }
}
