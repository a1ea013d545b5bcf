//! Framing and signatures of compact JWS (RFC 7515): the one file of this crate that names josekit and aws-lc-rs.

use serde::{Deserialize, Serialize};

/// A signing algorithm by its JOSE name (RFC 7518 §3.1, RFC 8037 §3.1, RFC 9864 §2.2).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum SigningAlgorithm {
    /// ECDSA on P-256 with SHA-256.
    ES256,
    /// Ed25519, by its older polymorphic name.
    EdDSA,
    /// Ed25519, fully specified (RFC 9864).
    Ed25519,
    /// RSASSA-PSS with SHA-256 and MGF1 with SHA-256.
    PS256,
}

impl SigningAlgorithm {
    /// The name on the wire.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::ES256 => "ES256",
            Self::EdDSA => "EdDSA",
            Self::Ed25519 => "Ed25519",
            Self::PS256 => "PS256",
        }
    }
}
