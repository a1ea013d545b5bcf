//! Judges mutual-TLS authorization servers and resource servers from outside, and makes what that takes: certificates with
//! every defect ([`pki`], their status in [`ocsp`]) and tokens with every defect ([`forge`]).
//!
//! It links nothing of Countersign, so that it cannot share a mistake with what it judges; its factories also serve the
//! server's own tests. The factories read no clock: whoever asks says what time it is. The programs and the `judge` ask
//! [`clock`], which reads this machine's.

/// DER, right or wrong.
pub mod der;

/// Key pairs, also of kinds nobody should use.
pub mod key;

/// Certificates with every defect.
pub mod pki;

/// Certificate status with every defect.
pub mod ocsp;

/// Revocation lists with every defect.
pub mod crl;

/// Tokens with every defect.
pub mod forge;

/// What a SPIFFE trust domain issues.
pub mod spiffe;

/// Who takes part in a trial, as files.
pub mod cast;

/// Where metadata is.
pub mod well_known;

/// This machine's clock.
pub mod clock;

/// The judge: cases, what they send to a target, and what it says of the answers.
#[cfg(feature = "judge")]
pub mod judge;

pub use key::{JwsAlgorithm, Key, KeyKind};
