//! Checks certificate-bound access tokens (RFC 8705 §3) for an API: a token is good only on a connection that was made
//! with the certificate it was issued to.
//!
//! Takes requests over mutual TLS, gives handlers only those with a token that is the caller's own, fresh and good; it
//! fetches the authorization server's keys and revocation list in the background, and asks it nothing per request as long as
//! the list is fresh.
//! [`Guard`] is where to begin, [`verification::decide`] is what it does, and the README shows both.

pub mod verification;

pub mod peer;

pub mod connection;

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

/// The README's examples are compiled.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
pub struct Readme;

pub use guard::{Guard, GuardBuilder, GuardError};
pub use layer::RequireToken;
pub use peer::{PeerAcceptor, PeerCertificate};
pub use verification::AuthorizedCall;
