//! Why not: one [`Refusal`] variant per stage of the path, and the one table from refusals to protocol error codes.
//!
//! Two texts, two audiences: the short reason goes to audit, logs and metrics; the peer gets the fixed sentence of the
//! code. Which check of identity failed is told to no stranger. Status codes are `endpoint/response.rs`'s business.

use crate::admission::AdmissionRefusal;
use crate::audit::AuditUnavailable;
use crate::client_auth::ClientAuthRefusal;
use crate::introspection::IntrospectionRefusal;
use crate::mint::MintRefusal;
use crate::pki::PeerRefusal;
use crate::policy::PolicyRefusal;
use crate::rates::RateRefusal;
use crate::registry::{LookupRefusal, SightingRefusal};
use crate::request::RequestRefusal;
use crate::revocation::RevocationRefusal;

/// Declares a stage's enum of refusals: each variant with its stable short reason, unique across all stages.
///
/// Gives the enum `STAGE`, `REASONS` (every reason, in order), `MEANINGS` (their sentences: the doc comments) and `reason()`.
macro_rules! refusals {
    (
        $(#[$meta:meta])*
        pub enum $name:ident at $stage:literal {
            $( $(#[doc = $meaning:literal])* $variant:ident $({ $( $(#[$field_meta:meta])* $field:ident : $type:ty ),* $(,)? })? => $reason:literal ),* $(,)?
        }
    ) => {
        $(#[$meta])*
        #[derive(Clone, Debug, PartialEq, Eq)]
        pub enum $name {
            $( $(#[doc = $meaning])* $variant $({ $( $(#[$field_meta])* $field: $type ),* })? ),*
        }

        impl $name {
            /// The stage of the path that refuses so.
            pub const STAGE: &'static str = $stage;

            /// Every short reason of this stage.
            pub const REASONS: &'static [&'static str] = &[$($reason),*];

            /// What each of them means, in the same order.
            pub const MEANINGS: &'static [&'static str] = &[$(concat!($($meaning),*)),*];

            /// One of each, whatever its details.
            #[cfg(test)]
            pub(crate) fn one_of_each() -> Vec<Self> {
                vec![$( Self::$variant $({ $( $field: $crate::error::Sample::sample() ),* })? ),*]
            }

            /// The stable short reason: the same in audit, logs, metrics and tests.
            pub const fn reason(&self) -> &'static str {
                match self {
                    $( Self::$variant { .. } => $reason ),*
                }
            }

            /// What it means, in a sentence.
            pub const fn meaning(&self) -> &'static str {
                match self {
                    $( Self::$variant { .. } => concat!($($meaning),*).trim_ascii() ),*
                }
            }
        }
    };
}
pub(crate) use refusals;

/// Some value, for refusals whose details do not matter.
#[cfg(test)]
pub(crate) trait Sample {
    fn sample() -> Self;
}

#[cfg(test)]
impl Sample for String {
    fn sample() -> Self {
        "sample".to_owned()
    }
}

#[cfg(test)]
impl Sample for std::time::Duration {
    fn sample() -> Self {
        Self::from_secs(1)
    }
}

#[cfg(test)]
impl Sample for countersign_resource_server::time::UnixTime {
    fn sample() -> Self {
        Self::from_seconds(0)
    }
}

#[cfg(test)]
impl Sample for countersign_resource_server::token::jws::SigningAlgorithm {
    fn sample() -> Self {
        Self::ES256
    }
}

/// Why a request did not get what it asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// The request cannot be read, or contradicts itself.
    Request(RequestRefusal),
    /// The client could not be looked up.
    Lookup(LookupRefusal),
    /// The certificate is not good now.
    Peer(PeerRefusal),
    /// The certificate or assertion does not prove this client.
    ClientAuth(ClientAuthRefusal),
    /// The certificate proves this client, but cannot be put on record as its own.
    Sighting(SightingRefusal),
    /// It makes more requests than it may.
    Rate(RateRefusal),
    /// The client may not act now.
    Admission(AdmissionRefusal),
    /// It may not have this.
    Policy(PolicyRefusal),
    /// The token could not be made.
    Mint(MintRefusal),
    /// The token could not be revoked.
    Revocation(RevocationRefusal),
    /// The question about a token is not answered.
    Introspection(IntrospectionRefusal),
    /// The decision could not be put on record, or no longer holds.
    Audit(AuditUnavailable),
}

/// The error codes of RFC 6749 §5.2 and RFC 8707 §2, and two borrowed from RFC 6749 §4.1.2.1.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum ErrorCode {
    /// `invalid_client`
    InvalidClient,
    /// `invalid_grant`
    InvalidGrant,
    /// `invalid_request`
    InvalidRequest,
    /// `invalid_scope`
    InvalidScope,
    /// `invalid_target` (RFC 8707 §2)
    InvalidTarget,
    /// `server_error` (RFC 6749 §4.1.2.1)
    ServerError,
    /// `temporarily_unavailable` (RFC 6749 §4.1.2.1)
    TemporarilyUnavailable,
    /// `unauthorized_client`
    UnauthorizedClient,
    /// `unsupported_grant_type`
    UnsupportedGrantType,
}

impl ErrorCode {
    /// The code on the wire.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::InvalidClient => "invalid_client",
            Self::InvalidGrant => "invalid_grant",
            Self::InvalidRequest => "invalid_request",
            Self::InvalidScope => "invalid_scope",
            Self::InvalidTarget => "invalid_target",
            Self::ServerError => "server_error",
            Self::TemporarilyUnavailable => "temporarily_unavailable",
            Self::UnauthorizedClient => "unauthorized_client",
            Self::UnsupportedGrantType => "unsupported_grant_type",
        }
    }

    /// The `error_description`: one fixed ASCII sentence per code, without `"` or `\` (RFC 6749 §5.2).
    pub const fn description(self) -> &'static str {
        match self {
            Self::InvalidClient => {
                "Client authentication failed. Ask /certificate-check why, with your client_id and the same certificate; or ask the operator of this server, and give the thumbprint of the certificate."
            }
            Self::InvalidGrant => "The token was issued to another client.",
            Self::InvalidRequest => "The request is malformed, has a parameter twice, or lacks one.",
            Self::InvalidScope => "The scope is malformed, or more than this client is entitled to at this resource.",
            Self::InvalidTarget => "The resource is missing, unknown, or not one this client is entitled to.",
            Self::ServerError => "The server could not complete the request.",
            Self::TemporarilyUnavailable => "The server cannot take this request just now. Try again.",
            Self::UnauthorizedClient => "The client is entitled to nothing at present.",
            Self::UnsupportedGrantType => "The grant type is not supported: use client_credentials.",
        }
    }
}

impl Refusal {
    /// The protocol's code for it.
    pub const fn code(&self) -> ErrorCode {
        match self {
            Self::Request(refusal) => refusal.code(),
            Self::Lookup(refusal) => refusal.code(),
            Self::Sighting(refusal) => refusal.code(),
            Self::Rate(refusal) => refusal.code(),
            Self::Peer(_) | Self::ClientAuth(_) | Self::Admission(_) => ErrorCode::InvalidClient,
            Self::Policy(refusal) => refusal.code(),
            Self::Mint(refusal) => refusal.code(),
            Self::Revocation(refusal) => refusal.code(),
            Self::Introspection(refusal) => refusal.code(),
            Self::Audit(_) => ErrorCode::TemporarilyUnavailable,
        }
    }

    /// The stable short reason.
    pub const fn reason(&self) -> &'static str {
        match self {
            Self::Request(refusal) => refusal.reason(),
            Self::Lookup(refusal) => refusal.reason(),
            Self::Peer(refusal) => refusal.reason(),
            Self::ClientAuth(refusal) => refusal.reason(),
            Self::Sighting(refusal) => refusal.reason(),
            Self::Rate(refusal) => refusal.reason(),
            Self::Admission(refusal) => refusal.reason(),
            Self::Policy(refusal) => refusal.reason(),
            Self::Mint(refusal) => refusal.reason(),
            Self::Revocation(refusal) => refusal.reason(),
            Self::Introspection(refusal) => refusal.reason(),
            Self::Audit(refusal) => refusal.reason(),
        }
    }

    /// What it means, in a sentence for those who may know it.
    pub const fn meaning(&self) -> &'static str {
        match self {
            Self::Request(refusal) => refusal.meaning(),
            Self::Lookup(refusal) => refusal.meaning(),
            Self::Peer(refusal) => refusal.meaning(),
            Self::ClientAuth(refusal) => refusal.meaning(),
            Self::Sighting(refusal) => refusal.meaning(),
            Self::Rate(refusal) => refusal.meaning(),
            Self::Admission(refusal) => refusal.meaning(),
            Self::Policy(refusal) => refusal.meaning(),
            Self::Mint(refusal) => refusal.meaning(),
            Self::Revocation(refusal) => refusal.meaning(),
            Self::Introspection(refusal) => refusal.meaning(),
            Self::Audit(refusal) => refusal.meaning(),
        }
    }

    /// The stage that refused.
    pub const fn stage(&self) -> &'static str {
        match self {
            Self::Request(_) => RequestRefusal::STAGE,
            Self::Lookup(_) => LookupRefusal::STAGE,
            Self::Peer(_) => PeerRefusal::STAGE,
            Self::ClientAuth(_) => ClientAuthRefusal::STAGE,
            Self::Sighting(_) => SightingRefusal::STAGE,
            Self::Rate(_) => RateRefusal::STAGE,
            Self::Admission(_) => AdmissionRefusal::STAGE,
            Self::Policy(_) => PolicyRefusal::STAGE,
            Self::Mint(_) => MintRefusal::STAGE,
            Self::Revocation(_) => RevocationRefusal::STAGE,
            Self::Introspection(_) => IntrospectionRefusal::STAGE,
            Self::Audit(_) => AuditUnavailable::STAGE,
        }
    }
}

/// Hands the refusals of every stage behind the handshake to a macro, in the order of the path: what is published is published of all.
#[cfg(test)]
macro_rules! each_stage {
    ($then:ident) => {
        $then!(
            RequestRefusal,
            LookupRefusal,
            PeerRefusal,
            ClientAuthRefusal,
            SightingRefusal,
            RateRefusal,
            AdmissionRefusal,
            PolicyRefusal,
            MintRefusal,
            RevocationRefusal,
            IntrospectionRefusal,
            AuditUnavailable
        );
    };
}

#[cfg(test)]
pub(crate) use each_stage;

macro_rules! from_stage {
    ($($stage:ident($refusal:ident)),* $(,)?) => {
        $(impl From<$refusal> for Refusal {
            fn from(refusal: $refusal) -> Self {
                Self::$stage(refusal)
            }
        })*
    };
}
from_stage!(
    Request(RequestRefusal),
    Lookup(LookupRefusal),
    Peer(PeerRefusal),
    ClientAuth(ClientAuthRefusal),
    Sighting(SightingRefusal),
    Rate(RateRefusal),
    Admission(AdmissionRefusal),
    Policy(PolicyRefusal),
    Mint(MintRefusal),
    Revocation(RevocationRefusal),
    Introspection(IntrospectionRefusal),
    Audit(AuditUnavailable),
);
