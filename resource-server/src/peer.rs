//! Which certificate is at the other end of this connection?
//!
//! Takes a TLS connection whose handshake has proven possession of a key, gives a [`PeerCertificate`]: computed once per
//! connection, handed to every request of it. It does not ask who issued the certificate: a bound token names the one
//! certificate it is good with (RFC 8705 §3).

use x509_parser::prelude::{FromDer, X509Certificate};

/// The most certificates a peer may send: a leaf and four intermediates.
pub const MAX_CERTIFICATES: usize = 5;

/// The SubjectPublicKeyInfo of a certificate, as encoded in it; `None` if `der` is not exactly one certificate.
pub fn subject_public_key_info(der: &[u8]) -> Option<&[u8]> {
    match X509Certificate::from_der(der) {
        Ok(([], certificate)) => Some(certificate.tbs_certificate.subject_pki.raw),
        _ => None,
    }
}
