//! Is this certificate good now?
//!
//! Takes the chain a peer presented and the client it claims to be, gives a [`VerifiedPeer`]: proof that the certificate
//! is in date, strong, and either registered itself or vouched for by an anchor of that client's participant, inside
//! that anchor's name space. It knows nothing of OAuth.

use crate::error::refusals;

/// The one reader of names: subject DN and SANs.
pub mod identity;

/// What a peer presented in its handshake, leaf first, parsed once per connection.
pub mod presented;

pub use presented::{Handshake, PresentedChain};

refusals! {
    /// Why a certificate is not good now.
    pub enum PeerRefusal at "pki" {
        /// No certificate on the connection.
        NoCertificate => "peer_no_certificate",
    }
}
