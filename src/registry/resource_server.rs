//! APIs: what tokens are for.

use countersign_resource_server::scope::Scope;
use serde::{Deserialize, Serialize};

use super::client::SubjectRule;
use super::{ParticipantId, ResourceIndicator, ResourceServerId, Thumbprint};

/// An API that accepts this server's tokens.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ResourceServer {
    /// Its id in this registry.
    pub id: ResourceServerId,
    /// The `resource` parameter (RFC 8707 §2) and the `aud` claim.
    pub resource: ResourceIndicator,
    /// Every scope it knows.
    pub scopes: Scope,
    /// Who runs it; the operator, where nobody is named.
    pub owner: Option<ParticipantId>,
    /// The longest life of a token for it, in seconds, where shorter than the default.
    pub access_token_lifetime_seconds: Option<i64>,
    /// How it authenticates where it asks this server something: by name …
    pub subject: Option<SubjectRule>,
    /// … or by one certificate.
    pub certificate: Option<Thumbprint>,
    /// Whether its tokens say where their status can be read as a list.
    #[serde(default, skip_serializing_if = "StatusClaim::is_absent")]
    pub status: StatusClaim,
    /// Whether tokens are issued for it.
    pub state: ResourceServerState,
}

/// What tokens say of their status.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum StatusClaim {
    /// Nothing: the resource server holds the revocation list.
    #[default]
    Absent,
    /// Their index in a Token Status List (draft-ietf-oauth-status-list-20 §6.2).
    StatusList,
}

impl StatusClaim {
    /// Whether they say nothing.
    #[expect(clippy::trivially_copy_pass_by_ref, reason = "serde asks so")]
    const fn is_absent(&self) -> bool {
        matches!(self, Self::Absent)
    }
}

/// The states of a resource server.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ResourceServerState {
    /// Tokens are issued for it.
    Active,
    /// No more.
    Retired,
}

impl ResourceServerState {
    /// Every state.
    pub const ALL: [Self; 2] = [Self::Active, Self::Retired];

    /// The name in stores, histories and commands.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Active => "active",
            Self::Retired => "retired",
        }
    }

    /// The table of states: whether this one may be followed by `next`. A retired API that returns is a new one.
    pub const fn can_become(self, next: Self) -> bool {
        matches!((self, next), (Self::Active, Self::Retired))
    }
}

#[cfg(test)]
mod tests {
    use super::ResourceServerState::{self, Active, Retired};

    #[test]
    fn every_edge_of_the_state_table() {
        for from in ResourceServerState::ALL {
            for to in ResourceServerState::ALL {
                assert_eq!(from.can_become(to), (from, to) == (Active, Retired), "{from:?} -> {to:?}");
            }
        }
    }
}
