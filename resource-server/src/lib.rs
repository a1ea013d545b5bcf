//! Checks certificate-bound access tokens (RFC 8705 §3) for an API: a token is good only on a connection that was made
//! with the certificate it was issued to.
//!
//! [`guard::Guard`] is where to begin; [`verification::authorize`] is what it does.

pub mod verification;

pub mod peer;

pub mod bearer;

pub mod token;

pub mod confirmation;

pub mod status;

pub mod scope;

pub mod time;

pub mod error;

pub mod layer;

pub mod guard;

pub mod follower;

#[cfg(test)]
mod double;

pub use guard::{Guard, GuardBuilder, GuardError};
pub use layer::RequireToken;
pub use peer::{PeerAcceptor, PeerCertificate};
pub use verification::AuthorizedCall;
