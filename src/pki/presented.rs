//! What a peer presented in its handshake.
//!
//! Takes DER as TLS delivered it, gives a [`PresentedChain`]: what depends on the certificates alone is computed once
//! and kept with the connection. Possession of the leaf's key is proven by then; nothing else is.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;

use countersign_resource_server::time::UnixTime;
use rustls_pki_types::CertificateDer;
use sha2::{Digest, Sha256};

use super::certificate::{MalformedCertificate, ParsedCertificate, certificates_from};
use super::chain::Outcomes;
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
    leaf: Option<Arc<ParsedCertificate>>,
    intermediates: Vec<Intermediate>,
    list_hash: [u8; 32],
    outcomes: Outcomes,
}

/// A certificate after the leaf that could be read. Those that could not cannot be part of a path.
#[derive(Debug)]
pub(super) struct Intermediate {
    pub(super) der: CertificateDer<'static>,
    pub(super) facts: ParsedCertificate,
}

/// More certificates after the leaf than this are not looked at (design §3); the handshake has refused them already.
pub const MOST_INTERMEDIATES: usize = 4;

/// More certificates of one subject than this are not looked at: each may be tried with each anchor.
const MOST_OF_ONE_SUBJECT: usize = 2;

impl PresentedChain {
    /// What `handshake` brought.
    pub fn new(handshake: Handshake, certificates: Vec<CertificateDer<'static>>) -> Self {
        let mut hash = Sha256::new();
        for certificate in &certificates {
            hash.update((certificate.len() as u64).to_be_bytes());
            hash.update(certificate);
        }
        let mut intermediates: Vec<Intermediate> = Vec::new();
        for der in certificates.iter().skip(1).take(MOST_INTERMEDIATES) {
            let Ok(facts) = ParsedCertificate::read_intermediate(der) else { continue };
            let of_one_subject =
                intermediates.iter().filter(|other| other.facts.subject_der() == facts.subject_der()).count();
            if of_one_subject < MOST_OF_ONE_SUBJECT && !intermediates.iter().any(|other| other.der == *der) {
                intermediates.push(Intermediate { der: der.clone(), facts });
            }
        }
        Self {
            handshake,
            thumbprint: certificates.first().map(|leaf| Thumbprint::of(leaf)),
            leaf: certificates.first().and_then(|leaf| ParsedCertificate::read(leaf).ok()).map(Arc::new),
            intermediates,
            list_hash: hash.finalize().into(),
            outcomes: Outcomes::default(),
            certificates,
        }
    }

    /// A list as it stands in a file, DER or PEM, as if it had been presented: nobody is connected, and possession of
    /// nothing is proven.
    ///
    /// # Errors
    /// [`MalformedCertificate`] if there is no certificate.
    pub fn read(file: &[u8]) -> Result<Self, MalformedCertificate> {
        let nobody = Handshake { remote: (Ipv4Addr::UNSPECIFIED, 0).into(), protocol: "none", resumed: false };
        Ok(Self::new(nobody, certificates_from(file)?))
    }

    /// The thumbprint of the leaf.
    pub const fn thumbprint(&self) -> Option<&Thumbprint> {
        self.thumbprint.as_ref()
    }

    /// The certificates as they came, leaf first.
    pub fn certificates(&self) -> &[CertificateDer<'static>] {
        &self.certificates
    }

    /// What the leaf says: claimed, until a verifier has looked. Absent if there is none or it cannot be read.
    pub const fn leaf(&self) -> Option<&Arc<ParsedCertificate>> {
        self.leaf.as_ref()
    }

    /// First and last second of each certificate after the leaf that a path may use, in the order they came.
    pub fn issuer_dates(&self) -> impl Iterator<Item = (UnixTime, UnixTime)> {
        self.intermediates.iter().map(|issuer| (issuer.facts.not_before(), issuer.facts.not_after()))
    }

    /// The certificates after the leaf that a path may use.
    pub(super) fn intermediates(&self) -> &[Intermediate] {
        &self.intermediates
    }

    /// What checks of the signatures in it have come to.
    pub(super) const fn outcomes(&self) -> &Outcomes {
        &self.outcomes
    }

    /// The SHA-256 of the whole list, each certificate with its length.
    pub(super) const fn list_hash(&self) -> &[u8; 32] {
        &self.list_hash
    }
}
