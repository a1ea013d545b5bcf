//! Which client may use which API for what, from when until when, and why.

use countersign_resource_server::scope::Scope;
use countersign_resource_server::time::UnixTime;
use serde::{Deserialize, Serialize};

use super::{ClientId, EntitlementId, ResourceServerId};

/// Client x resource server x scopes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Entitlement {
    /// Its id in this registry.
    pub id: EntitlementId,
    /// Who may.
    pub client_id: ClientId,
    /// Where.
    pub resource_server_id: ResourceServerId,
    /// What: never more than the resource server knows.
    pub scopes: Scope,
    /// From when on.
    pub starts_at: UnixTime,
    /// Until when: not at or after this instant.
    pub ends_at: Option<UnixTime>,
    /// Why it was given.
    pub reason: String,
    /// When it was ended by hand, for good.
    pub ended_at: Option<UnixTime>,
}

impl Entitlement {
    /// Whether all that `other` allows is allowed by this one too.
    pub fn covers(&self, other: &Self) -> bool {
        self.scopes.includes(&other.scopes)
            && self.starts_at <= other.starts_at
            && self.end().is_none_or(|end| other.end().is_some_and(|others| others <= end))
    }

    /// Whether it holds at `now`.
    pub fn holds_at(&self, now: UnixTime) -> bool {
        self.starts_at <= now && self.end().is_none_or(|end| now < end)
    }

    /// When it ends, by date or by hand, whichever is earlier.
    pub fn end(&self) -> Option<UnixTime> {
        match (self.ends_at, self.ended_at) {
            (Some(date), Some(hand)) => Some(date.min(hand)),
            (date, hand) => date.or(hand),
        }
    }
}
