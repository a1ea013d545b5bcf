//! Certificates of clients: enrolled, seen, superseded, revoked.

use std::time::Duration;

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
    /// The intermediates of that path, the leaf's issuer first.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub issuers: Vec<PathIssuer>,
    /// Where it is in its life.
    pub state: CertificateState,
    /// When it first authenticated.
    pub first_seen: Option<UnixTime>,
    /// When it last did, give or take a minute.
    pub last_seen: Option<UnixTime>,
}

/// An intermediate CA's certificate in the path of a certificate that authenticated.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PathIssuer {
    /// SHA-256 of its own SubjectPublicKeyInfo.
    pub key_hash: KeyHash,
    /// SHA-256 of its issuer's SubjectPublicKeyInfo.
    pub issuer_key: KeyHash,
    /// Its serial number: lower-case hexadecimal of the INTEGER's content octets.
    pub serial: String,
    /// Last second of its validity.
    pub not_after: UnixTime,
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
    /// An attribute authority's key may be in other hands. Said by issuers only, as are the other three that operators do not
    /// choose from.
    AaCompromise,
    /// The subject's name, or what else is said of it, has changed.
    AffiliationChanged,
    /// The issuer's key may be in other hands.
    CaCompromise,
    /// No longer needed; the key is not suspected.
    CessationOfOperation,
    /// The key may be in other hands. The default: revokes the key as well.
    KeyCompromise,
    /// What it allowed was withdrawn.
    PrivilegeWithdrawn,
    /// Replaced; the key is not suspected.
    Superseded,
    /// Not said; revokes the key as well.
    Unspecified,
}

impl RevocationReason {
    /// Whether the key is revoked with the certificate, for every client.
    pub const fn revokes_key(self) -> bool {
        match self {
            Self::AaCompromise
            | Self::AffiliationChanged
            | Self::CaCompromise
            | Self::CessationOfOperation
            | Self::PrivilegeWithdrawn
            | Self::Superseded => false,
            Self::KeyCompromise | Self::Unspecified => true,
        }
    }
}

/// What is known of a certificate when it is enrolled. `pki` reads it; the registry parses no X.509.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CertificateFacts {
    /// SHA-256 of the DER.
    pub thumbprint: Thumbprint,
    /// SHA-256 of the SubjectPublicKeyInfo.
    pub key_hash: KeyHash,
    /// SHA-256 of the issuer's SubjectPublicKeyInfo, where its path is known.
    pub issuer_key: Option<KeyHash>,
    /// The serial number: lower-case hexadecimal of the INTEGER's content octets.
    pub serial: String,
    /// Subject for people.
    pub subject: String,
    /// Subject alternative names for people.
    pub subject_alt_names: Vec<String>,
    /// First second of its validity.
    pub not_before: UnixTime,
    /// Last second of its validity.
    pub not_after: UnixTime,
    /// The anchor its path leads to.
    pub anchor: Option<AnchorId>,
}

/// A certificate that just authenticated: the facts of it, with the path it was verified by.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sighting {
    /// SHA-256 of the DER.
    pub thumbprint: Thumbprint,
    /// SHA-256 of the SubjectPublicKeyInfo.
    pub key_hash: KeyHash,
    /// SHA-256 of the issuer's SubjectPublicKeyInfo; its own, where it is self-signed.
    pub issuer_key: KeyHash,
    /// The serial number: lower-case hexadecimal of the INTEGER's content octets.
    pub serial: String,
    /// Subject for people.
    pub subject: String,
    /// Subject alternative names for people.
    pub subject_alt_names: Vec<String>,
    /// First second of its validity.
    pub not_before: UnixTime,
    /// Last second of its validity.
    pub not_after: UnixTime,
    /// The anchor its path led to; none for a certificate that is registered itself.
    pub anchor: Option<AnchorId>,
    /// The intermediates of that path, the leaf's issuer first.
    pub issuers: Vec<PathIssuer>,
}

impl CertificateFacts {
    /// The record of it as `client`'s, announced.
    pub fn announced(self, client: ClientId) -> Certificate {
        Certificate {
            thumbprint: self.thumbprint,
            client_id: client,
            key_hash: self.key_hash,
            issuer_key: self.issuer_key,
            serial: self.serial,
            subject: self.subject,
            subject_alt_names: self.subject_alt_names,
            not_before: self.not_before,
            not_after: self.not_after,
            anchor: self.anchor,
            issuers: Vec::new(),
            state: CertificateState::Announced,
            first_seen: None,
            last_seen: None,
        }
    }
}

impl Sighting {
    /// The record of it as `client`'s, active and first seen at `now`.
    pub fn enrolled(&self, client: ClientId, now: UnixTime) -> Certificate {
        Certificate {
            thumbprint: self.thumbprint,
            client_id: client,
            key_hash: self.key_hash,
            issuer_key: Some(self.issuer_key),
            serial: self.serial.clone(),
            subject: self.subject.clone(),
            subject_alt_names: self.subject_alt_names.clone(),
            not_before: self.not_before,
            not_after: self.not_after,
            anchor: self.anchor.clone(),
            issuers: self.issuers.clone(),
            state: CertificateState::Active,
            first_seen: Some(now),
            last_seen: Some(now),
        }
    }
}

impl Certificate {
    /// The first instant at which it is out of date: `notAfter` names its last second (RFC 5280 §4.1.2.5).
    pub fn expires_at(&self) -> UnixTime {
        self.not_after.after(Duration::from_secs(1))
    }

    /// The first instant at which it no longer counts against its client's limit.
    pub fn live_until(&self) -> UnixTime {
        match self.state {
            CertificateState::Announced | CertificateState::Active => self.expires_at(),
            CertificateState::Superseded { at } => at.min(self.expires_at()),
            CertificateState::Revoked { at, .. } => at.min(self.expires_at()),
        }
    }
}

impl CertificateState {
    /// The name in stores, histories and commands.
    pub const fn as_str(&self) -> &'static str {
        match self {
            Self::Announced => "announced",
            Self::Active => "active",
            Self::Superseded { .. } => "superseded",
            Self::Revoked { .. } => "revoked",
        }
    }

    /// The table of states: whether this one may be followed by `next`.
    pub const fn can_become(&self, next: &Self) -> bool {
        match self {
            Self::Announced => !matches!(next, Self::Announced),
            Self::Active => matches!(next, Self::Superseded { .. } | Self::Revoked { .. }),
            Self::Superseded { .. } => matches!(next, Self::Revoked { .. }),
            Self::Revoked { .. } => false,
        }
    }
}

impl RevocationReason {
    /// The name in stores, histories and commands.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::AaCompromise => "aa_compromise",
            Self::AffiliationChanged => "affiliation_changed",
            Self::CaCompromise => "ca_compromise",
            Self::CessationOfOperation => "cessation_of_operation",
            Self::KeyCompromise => "key_compromise",
            Self::PrivilegeWithdrawn => "privilege_withdrawn",
            Self::Superseded => "superseded",
            Self::Unspecified => "unspecified",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_edge_of_the_state_table() {
        let at = UnixTime::from_seconds(1);
        let states = [
            CertificateState::Announced,
            CertificateState::Active,
            CertificateState::Superseded { at },
            CertificateState::Revoked { at, reason: RevocationReason::Unspecified },
        ];
        let edges = [(0, 1), (0, 2), (0, 3), (1, 2), (1, 3), (2, 3)];
        for (from_index, from) in states.iter().enumerate() {
            for (to_index, to) in states.iter().enumerate() {
                assert_eq!(from.can_become(to), edges.contains(&(from_index, to_index)), "{from:?} -> {to:?}");
            }
        }
    }
}
