//! The book of participants: who may take part, with which certificates, for what.
//!
//! Takes commands and questions, gives records: [`ClientRecord`] is everything one admission decision about a client
//! rests on, assembled and immutable. It knows nothing of HTTP, TLS or SQL.

pub mod participant;

pub mod trust_anchor;

pub mod client;

pub mod certificate;

pub mod resource_server;

pub mod entitlement;

pub mod history;

mod record;

mod identifier;

pub use identifier::{
    AnchorId, ClientId, EntitlementId, KeyHash, MalformedIdentifier, ParticipantId, RegistryVersion, ResourceIndicator,
    ResourceServerId, Thumbprint,
};
pub use record::{AnchorSetId, ClientRecord, GrantedAnchor, GrantedEntitlement};

use std::sync::Arc;

use crate::error::{ErrorCode, refusals};

/// A client as the registry has it: found, not yet believed.
#[derive(Clone, Debug)]
pub struct FoundClient {
    /// Its record.
    pub record: Arc<ClientRecord>,
    /// The registry version the record is known to be current at, never below `record.as_of`: what a decision resting
    /// on it is taken under.
    pub version: RegistryVersion,
}

refusals! {
    /// Why a client could not be looked up.
    pub enum LookupRefusal at "registry" {
        /// No such client.
        ClientUnknown => "client_unknown",
        /// The store did not answer, or holds a record that cannot be read.
        RegistryUnavailable => "registry_unavailable",
    }
}

impl LookupRefusal {
    /// The protocol's code for it.
    pub const fn code(&self) -> ErrorCode {
        match self {
            Self::ClientUnknown => ErrorCode::InvalidClient,
            Self::RegistryUnavailable => ErrorCode::TemporarilyUnavailable,
        }
    }
}
