//! What changed, by whom and why; and which records a change touches.

use countersign_resource_server::time::UnixTime;
use serde::{Deserialize, Serialize};

use super::{AnchorId, ClientId, KeyHash, ParticipantId, RegistryVersion, ResourceServerId};

/// Who made a change. Until the registry API has operators of its own, whoever can open the store is the operator: the
/// system user is observed, the name is stated, neither is proven.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum Actor {
    /// A command.
    Operator {
        /// The system user the command ran as.
        system_user: String,
        /// `--operator NAME`.
        stated_name: Option<String>,
    },
    /// A serving node: enrolment of a certificate on first use, and the like.
    Server {
        /// The node's name.
        node: String,
    },
}

/// Who makes a change, when and why: goes into the history in the same transaction.
#[derive(Clone, Debug)]
pub struct Explanation {
    /// Who.
    pub actor: Actor,
    /// When.
    pub at: UnixTime,
    /// Why, in the operator's words.
    pub why: Option<String>,
}

/// A record that a change touches: what was assembled from it is no longer current.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(tag = "kind", content = "id", rename_all = "snake_case")]
pub enum Touched {
    /// Every record that rests on this anchor.
    Anchor(AnchorId),
    /// One client's record (its own row, its certificates, its entitlements).
    Client(ClientId),
    /// Every record with a certificate that has this key.
    Key(KeyHash),
    /// The records of all clients of this participant.
    Participant(ParticipantId),
    /// Every record with an entitlement for this resource server.
    ResourceServer(ResourceServerId),
}

/// One step of the registry as caches see it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Change {
    /// The version this change made.
    pub version: RegistryVersion,
    /// What it touches; several for one version are several `Change`s.
    pub touched: Touched,
}

/// One row of the history.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct HistoryEntry {
    /// The version this change made.
    pub version: RegistryVersion,
    /// When.
    pub at: UnixTime,
    /// Who.
    pub actor: Actor,
    /// What was done: `client.suspend`, `certificate.revoke`, …
    pub action: String,
    /// To which record: its kind and id.
    pub subject: String,
    /// The record before, as JSON; absent where it is new.
    pub before: Option<serde_json::Value>,
    /// The record after.
    pub after: Option<serde_json::Value>,
    /// Why.
    pub why: Option<String>,
}
