//! Reading access tokens: the whole check ([`access_token`]), framing and signature ([`jws`]), keys ([`jwks`] and
//! [`held_keys`]), JSON that means one thing ([`json`]), what tokens say ([`claims`]).

pub mod access_token;

pub mod claims;

pub mod jws;

pub mod jwks;

pub mod held_keys;

pub mod json;
