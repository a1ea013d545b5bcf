//! What a peer presented in its handshake.
//!
//! Takes DER as TLS delivered it, gives a [`PresentedChain`]: what depends on the certificates alone is computed once
//! and kept with the connection. Possession of the leaf's key is proven by then; nothing else is.

use std::net::SocketAddr;

use rustls_pki_types::CertificateDer;

use crate::registry::Thumbprint;

/// What the connection is, whoever is at the other end.
#[derive(Clone, Debug)]
pub struct Handshake {
    /// The peer's address.
    pub remote: SocketAddr,
    /// `TLSv1.2` or `TLSv1.3`.
    pub protocol: &'static str,
    /// Whether the session was resumed: then the certificate is the one of the first handshake.
    pub resumed: bool,
}

/// The certificates of a connection, leaf first; none, if the peer sent none.
#[derive(Debug)]
pub struct PresentedChain {
    /// The connection they came on.
    pub handshake: Handshake,
    certificates: Vec<CertificateDer<'static>>,
    thumbprint: Option<Thumbprint>,
}

impl PresentedChain {
    /// What `handshake` brought.
    pub fn new(handshake: Handshake, certificates: Vec<CertificateDer<'static>>) -> Self {
        let thumbprint = certificates.first().map(|leaf| Thumbprint::of(leaf));
        Self { handshake, certificates, thumbprint }
    }

    /// The thumbprint of the leaf.
    pub const fn thumbprint(&self) -> Option<&Thumbprint> {
        self.thumbprint.as_ref()
    }

    /// The certificates as they came, leaf first.
    pub fn certificates(&self) -> &[CertificateDer<'static>] {
        &self.certificates
    }
}
