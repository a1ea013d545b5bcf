//! Questions about tokens, on record.
//!
//! Takes what a resource server is told, gives [`Recorded`]: durable before the answer leaves, however often it asks. Who has
//! not proven to be one is counted with everybody else.

use countersign_resource_server::token::access_token::VerifiedToken;

use super::committer::{Item, Verdict};
use super::record::{self, Occasion};
use super::{AuditLog, AuditUnavailable, Recorded, Trail};
use crate::error::Refusal;
use crate::registry::ResourceServerId;

/// What a resource server is told of a token, and why.
#[derive(Clone, Copy, Debug)]
pub struct Asked<'a> {
    /// The token, where it is one of this server's.
    pub token: Option<&'a VerifiedToken>,
    /// Why it is said to be inactive: told to the log alone.
    pub inactive: Option<&'static str>,
}

impl AuditLog {
    /// Puts on record what a resource server is told, before `answer` leaves.
    pub async fn record_introspection<T>(
        &self,
        trail: &Trail,
        resource_server: &ResourceServerId,
        told: Result<(&Asked<'_>, T), Refusal>,
    ) -> Recorded<Result<T, Refusal>> {
        let on_record = told.as_ref().map(|(asked, _)| *asked);
        let written = record::introspection(&self.node, trail, resource_server, on_record);
        let (request_id, at) = (trail.request_id().clone(), trail.now());
        let item =
            |deadline, reply| Item { request_id, at, told: written, assertion: None, token: None, deadline, reply };
        Recorded(match self.hand_over(item).await {
            Ok(Verdict::Durable) => told.map(|(_, answer)| answer),
            Ok(Verdict::Replayed | Verdict::Stale | Verdict::Unavailable) => Err(AuditUnavailable::Unavailable.into()),
            Err(why) => Err(why.into()),
        })
    }

    /// Counts a question of somebody who has not proven to be a resource server. Never waits.
    pub fn count_introspection<T>(&self, trail: &Trail, refusal: Refusal) -> Recorded<Result<T, Refusal>> {
        self.tally.count(&self.node, trail, Occasion::Introspection, &refusal);
        Recorded(Err(refusal))
    }
}
