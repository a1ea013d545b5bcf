//! Reading access tokens: framing and signature ([`jws`]), keys ([`jwks`]), JSON that means one thing ([`json`]), what
//! they say ([`claims`]).

pub mod claims;

pub mod jws;

pub mod jwks;

pub mod json;
