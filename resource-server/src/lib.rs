//! Checks certificate-bound access tokens (RFC 8705 §3) for an API: a token is good only on a connection that was made
//! with the certificate it was issued to.

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
