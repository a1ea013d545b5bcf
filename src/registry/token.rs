//! Single tokens and the server's own keys, as far as the registry knows of them: that they are dead.
//!
//! Tokens are nobody's records: what is written down of one is a mark, until it would have expired anyway, and a row of
//! the history.

use countersign_resource_server::time::UnixTime;
use countersign_resource_server::token::claims::StatusReference;
use serde::Serialize;

use super::{ClientId, ParticipantId, ResourceIndicator};

/// How many tokens a client may have revoked that would be live otherwise. Beyond that an operator can suspend it, which
/// is one mark.
pub const REVOKED_TOKENS: usize = 1_000;

/// How many the clients of one participant may together: nobody's clients take from others what all of them have.
pub const REVOKED_TOKENS_OF_PARTICIPANT: usize = 10_000;

/// How many all clients together may: a resource server takes a list of 8 MiB, which is some 190,000 marks, and no crowd of
/// clients may fill it.
pub const REVOKED_TOKENS_OF_ALL: usize = 100_000;

/// One token that is to be dead from now on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TokenRevocation {
    /// Its `jti`.
    pub jti: String,
    /// What is known of it; an operator may know no more than its `jti`.
    pub token: Option<KnownToken>,
    /// Who wants it dead.
    pub asked_by: AskedBy,
}

/// Who wants a token dead.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum AskedBy {
    /// The client it was issued to (RFC 7009). Counts towards its [`REVOKED_TOKENS`].
    Client,
    /// An operator.
    Operator,
}

/// What is known of a token.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct KnownToken {
    /// The client it was issued to.
    pub client_id: ClientId,
    /// The organisation that client belongs to.
    pub participant_id: ParticipantId,
    /// The API it is for.
    pub aud: ResourceIndicator,
    /// When it expires.
    pub expires_at: UnixTime,
    /// Its place in a status list, if its API asked for that.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub status_list: Option<StatusReference>,
}

/// What happened to one of the server's signing keys: for the history, which names no private part of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SigningKeyChange {
    /// It is encrypted by another key-encryption key.
    Encrypted {
        /// The key's id.
        kid: String,
        /// The id of the key-encryption key before.
        before: String,
        /// And after.
        after: String,
    },
    /// It was taken from a directory into the store.
    Moved {
        /// The key's id.
        kid: String,
    },
    /// It is to sign from an instant on, or does already.
    Rotated {
        /// The key's id.
        kid: String,
        /// Its algorithm.
        alg: &'static str,
        /// From when on it signs.
        signs_from: UnixTime,
        /// The key that was made to follow it.
        next: String,
    },
    /// It signs nothing any more, and what it signed is dead.
    Withdrawn {
        /// The key's id.
        kid: String,
        /// The key that signs in its place; none where it did not sign.
        successor: Option<String>,
    },
}

impl SigningKeyChange {
    /// The key's id.
    pub fn kid(&self) -> &str {
        match self {
            Self::Encrypted { kid, .. }
            | Self::Moved { kid }
            | Self::Rotated { kid, .. }
            | Self::Withdrawn { kid, .. } => kid,
        }
    }
}
