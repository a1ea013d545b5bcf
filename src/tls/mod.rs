//! The handshake: proves possession, bounds the work, decides nothing.
//!
//! Takes TCP connections, gives TLS streams whose every request carries the [`PresentedChain`] of its connection. Trust
//! is asked later, on every request, because connections and resumed sessions outlive certificates; this module knows
//! no participant, no client and no anchor.

/// Connection permits, deadlines, failures on record.
pub mod acceptor;

/// What comes on an HTTP/2 connection, frame by frame.
mod frames;

/// The other end, for the quickstart's callers.
mod client_config;

/// Octets that are written together.
mod gathered;

/// What one connection may use up.
mod connection;

/// Connections that this server opens itself.
mod dialer;

/// The server's certificate: checked as its users check it, then published; again when its files change.
pub mod reload;

/// Versions, suites, groups, tickets.
pub mod server_config;

/// Whose handshake is computed next.
mod turns;

/// Possession and bounds, and nothing else.
mod verifier;

#[cfg(test)]
mod tests;

pub use acceptor::{PlainAcceptor, TlsAcceptor};
pub use client_config::{ClientConfigError, client_config, fetching_config, sending_config};
pub use connection::Permits;
pub(crate) use connection::{BodyHeld, BodyRoom, neighbourhood};
pub use dialer::{ClientFiles, ClientFilesError, DialedStream, Dialer};
pub use reload::{ServerCertificate, ServerCertificateError};
pub use server_config::{ClientCertificates, server_config};
pub(crate) use verifier::check_bounds;

use std::fmt;
use std::net::SocketAddr;
use std::sync::Arc;

use futures_util::future::BoxFuture;

use crate::error::refusals;
use crate::pki::PresentedChain;
use crate::registry::Thumbprint;

refusals! {
    /// Why a connection never came to a request.
    pub enum HandshakeRefusal at "tls" {
        /// Its certificate maps to no one enrolled, and the perimeter is strict.
        PerimeterClosed => "perimeter_closed",
        /// The leaf cannot be read.
        CertificateMalformed => "handshake_certificate_malformed",
        /// More than four intermediates.
        ChainTooLong => "handshake_chain_too_long",
        /// More than 16 KB of certificates.
        ChainTooLarge => "handshake_chain_too_large",
        /// The leaf's key is too weak, too large, or of a kind that is not taken.
        KeyNotAccepted => "handshake_key_not_accepted",
        /// The signature is not one by the leaf's key.
        PossessionNotProven => "handshake_possession_not_proven",
        /// TLS 1.2 and 1.3 are spoken here; the peer offers neither.
        NoSharedVersion => "handshake_no_shared_version",
        /// No cipher suite, group, signature scheme, extension or application protocol in common.
        NoSharedParameters => "handshake_no_shared_parameters",
        /// Not TLS at all: plain HTTP, perhaps.
        NotTls => "handshake_not_tls",
        /// The peer sent an alert: it does not trust this server's certificate, perhaps.
        AlertReceived => "handshake_alert_received",
        /// The peer broke the protocol's rules.
        ProtocolViolated => "handshake_protocol_violated",
        /// The peer went away.
        Disconnected => "handshake_disconnected",
        /// Not done in time.
        TimedOut => "handshake_timed_out",
        /// Too many connections from this address.
        AddressLimit => "connections_of_address_exhausted",
        /// Too many connections in all.
        ConnectionLimit => "connections_exhausted",
        /// More handshakes wait to be computed than may, most of them from this address.
        NoTurn => "handshakes_exhausted",
        /// This side failed: no randomness, no key.
        Failed => "handshake_failed",
    }
}

impl fmt::Display for HandshakeRefusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.reason())
    }
}

impl std::error::Error for HandshakeRefusal {}

/// A connection that never came to a request.
#[derive(Clone, Debug)]
pub struct RefusedHandshake {
    /// The peer's address.
    pub remote: SocketAddr,
    /// Why.
    pub refusal: HandshakeRefusal,
    /// The leaf it sent, if it came to that. Claimed only: possession was not proven, unless the perimeter refused.
    pub claimed: Option<Thumbprint>,
}

/// Says that a peer is about to ask for something. Its connection holds it from its first octet until its first request is
/// answered, or it ends.
pub type Announcement = Box<dyn fmt::Debug + Send + Sync>;

/// Who is told of handshakes. Called on the connection's task: must not block.
pub trait HandshakeObserver: Send + Sync + 'static {
    /// A handshake begins.
    fn begun(&self) -> Option<Announcement> {
        None
    }

    /// A handshake was refused.
    fn refused(&self, handshake: &RefusedHandshake);
}

/// Nobody is told.
impl HandshakeObserver for () {
    fn refused(&self, _: &RefusedHandshake) {}
}

/// Who decides, under a strict perimeter, whether a connection with a certificate may live (design §3, perimeter).
pub trait PerimeterGuard: Send + Sync + 'static {
    /// Whether the certificate maps to someone enrolled. Asked only where there is a certificate, within the handshake's
    /// time; when in doubt, the answer is no.
    fn admits<'a>(&'a self, peer: &'a Arc<PresentedChain>) -> BoxFuture<'a, bool>;
}
