//! Certificates of clients: enrolled, seen, superseded, revoked.

use countersign_resource_server::time::UnixTime;
use serde::{Deserialize, Serialize};

use super::{AnchorId, ClientId, KeyHash, Thumbprint};

/// One certificate of one client.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Certificate {
    /// SHA-256 of the DER: what tokens are bound to.
    pub thumbprint: Thumbprint,
    /// Whose it is.
    pub client_id: ClientId,
    /// SHA-256 of the SubjectPublicKeyInfo.
    pub key_hash: KeyHash,
    /// SHA-256 of the issuer's SubjectPublicKeyInfo; unknown until a path has been seen.
    pub issuer_key: Option<KeyHash>,
    /// The serial number: lower-case hexadecimal of the INTEGER's content octets.
    pub serial: String,
    /// Subject for people; never compared.
    pub subject: String,
    /// Subject alternative names for people (`DNS:…`, `URI:…`); never compared.
    pub subject_alt_names: Vec<String>,
    /// First second of its validity.
    pub not_before: UnixTime,
    /// Last second of its validity.
    pub not_after: UnixTime,
    /// The anchor its path led to when it was first seen.
    pub anchor: Option<AnchorId>,
    /// Where it is in its life.
    pub state: CertificateState,
    /// When it first authenticated.
    pub first_seen: Option<UnixTime>,
    /// When it last did, give or take a minute.
    pub last_seen: Option<UnixTime>,
}

/// The states of a certificate.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "state", rename_all = "snake_case")]
pub enum CertificateState {
    /// Enrolled, not seen yet; becomes active when first seen.
    Announced,
    /// In use.
    Active,
    /// Replaced: no new tokens from `at` on.
    Superseded {
        /// The end of its overlap.
        at: UnixTime,
    },
    /// Revoked, for good.
    Revoked {
        /// When.
        at: UnixTime,
        /// Why (RFC 5280 §5.3.1).
        reason: RevocationReason,
    },
}

/// Why a certificate was revoked (RFC 5280 §5.3.1). The milder ones leave its key alone.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RevocationReason {
    /// No longer needed; the key is not suspected.
    CessationOfOperation,
    /// The key may be in other hands. The default: revokes the key as well.
    KeyCompromise,
    /// Replaced; the key is not suspected.
    Superseded,
    /// Not said; revokes the key as well.
    Unspecified,
}

impl RevocationReason {
    /// Whether the key is revoked with the certificate, for every client.
    pub const fn revokes_key(self) -> bool {
        match self {
            Self::CessationOfOperation | Self::Superseded => false,
            Self::KeyCompromise | Self::Unspecified => true,
        }
    }
}
