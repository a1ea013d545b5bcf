//! Reading access tokens: framing and signature ([`jws`]), keys ([`jwks`]), what they say ([`claims`]).

pub mod claims;

pub mod jws;

pub mod jwks;
