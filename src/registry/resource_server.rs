//! APIs: what tokens are for.

use std::sync::Arc;

use countersign_resource_server::scope::Scope;
use countersign_resource_server::token::jws::SigningAlgorithm;
use serde::{Deserialize, Deserializer, Serialize};

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
    /// … or by one of these certificates: several, so that the next is there before the last is gone.
    // An earlier release had one, under the other name.
    #[serde(default, alias = "certificate", deserialize_with = "one_or_many")]
    pub certificates: Vec<Thumbprint>,
    /// How signed answers to its questions are signed (RFC 9701).
    #[serde(default = "es256")]
    pub introspection_signed_response_alg: SigningAlgorithm,
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

/// How many certificates of its own a resource server may have.
pub const CERTIFICATES: usize = 8;

/// Whose a certificate is that was shown with a question about a token.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Asker {
    /// The active resource server that has it.
    pub resource_server: Option<Arc<ResourceServer>>,
    /// Whether a client has it as well, or has been seen with its key.
    pub is_a_client: bool,
    /// Whether its key was revoked.
    pub key_is_revoked: bool,
}

const fn es256() -> SigningAlgorithm {
    SigningAlgorithm::ES256
}

fn one_or_many<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<Thumbprint>, D::Error> {
    #[derive(Deserialize)]
    #[serde(untagged)]
    enum OneOrMany {
        One(Thumbprint),
        Many(Vec<Thumbprint>),
    }
    Ok(match Option::deserialize(deserializer)? {
        None => Vec::new(),
        Some(OneOrMany::One(thumbprint)) => vec![thumbprint],
        Some(OneOrMany::Many(thumbprints)) => thumbprints,
    })
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

    /// As an earlier release wrote them.
    #[test]
    fn a_record_with_one_certificate_or_none_is_read() {
        let record = |certificate: &str| -> super::ResourceServer {
            serde_json::from_str(&format!(
                r#"{{"id":"api","resource":"https://api.example/","scopes":"read","owner":null,
                    "access_token_lifetime_seconds":null,"subject":null,{certificate}"state":"active"}}"#
            ))
            .unwrap()
        };
        let hash = "9h47DEQpj8HBSa-_TImW-5JCeuQeRkm5NMpJWZG3hQY";
        let thumbprint = super::Thumbprint::parse(hash).unwrap();
        assert_eq!(record("").certificates, []);
        assert_eq!(record(r#""certificate":null,"#).certificates, []);
        assert_eq!(record(&format!(r#""certificate":"{hash}","#)).certificates, [thumbprint]);
        let now = record(&format!(r#""certificates":["{hash}"],"introspection_signed_response_alg":"PS256","#));
        assert_eq!(serde_json::from_str::<super::ResourceServer>(&serde_json::to_string(&now).unwrap()).unwrap(), now);
    }

    #[test]
    fn every_edge_of_the_state_table() {
        for from in ResourceServerState::ALL {
            for to in ResourceServerState::ALL {
                assert_eq!(from.can_become(to), (from, to) == (Active, Retired), "{from:?} -> {to:?}");
            }
        }
    }
}
