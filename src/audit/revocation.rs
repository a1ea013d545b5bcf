//! Revocations by clients, on record.
//!
//! Takes what was found of a token and the work that kills it, gives [`Recorded`]: the record is durable before the work
//! begins. Where the work then fails, what the record says was not answered, and a `withheld` record follows it.

use countersign_resource_server::token::access_token::VerifiedToken;
use tokio::sync::oneshot;
use tokio::time::Instant;

use super::committer::{Item, Reply, Verdict};
use super::record::{self, Occasion, Told};
use super::{AssertionUse, AuditLog, AuditUnavailable, Recorded, Trail};
use crate::client_auth::{ClientAuthRefusal, UsedAssertion};
use crate::error::Refusal;
use crate::revocation::RevocationRefusal;

/// What was found of a token that somebody showed.
#[derive(Clone, Copy, Debug)]
pub struct Finding<'a> {
    /// What becomes of it, in a word.
    pub outcome: &'static str,
    /// Why nothing does.
    pub reason: Option<&'static str>,
    /// The token, where it is one of this server's.
    pub token: Option<&'a VerifiedToken>,
}

impl AuditLog {
    /// Puts on record what becomes of a client's token, then does `work`.
    pub async fn record_revocation(
        &self,
        trail: &Trail,
        finding: &Finding<'_>,
        used: Option<&UsedAssertion>,
        work: impl Future<Output = Result<(), Refusal>>,
    ) -> Recorded<Result<(), Refusal>> {
        let told = record::revocation(&self.node, trail, finding, used);
        let assertion = used.map(|used| {
            let used =
                AssertionUse { client_id: used.client_id.clone(), jti: used.jti.clone(), expires_at: used.expires_at };
            (used, record::replayed_to_revoke(&self.node, trail))
        });
        let item = |deadline, reply| item(trail, told, assertion, deadline, reply);
        let reply = match self.deliver(item).await {
            Ok(reply) => reply,
            Err(why) => return Recorded(Err(why.into())),
        };
        match reply.verdict() {
            Verdict::Durable => {}
            Verdict::Replayed => {
                reply.accept();
                return Recorded(Err(ClientAuthRefusal::AssertionReplayed.into()));
            }
            Verdict::Stale | Verdict::Unavailable => return Recorded(Err(AuditUnavailable::Unavailable.into())),
        }
        match work.await {
            Ok(()) => {
                reply.accept();
                Recorded(Ok(()))
            }
            Err(refusal) => {
                // Not accepted: a `withheld` record follows.
                drop(reply);
                match refusal {
                    Refusal::Revocation(RevocationRefusal::MarkUnavailable) => Recorded(Err(refusal)),
                    refusal => self.record_not_revoked(trail, refusal, finding.token).await,
                }
            }
        }
    }

    /// Puts on record that nothing was revoked, and of which token, where it is one of this server's. What nobody has
    /// authenticated for is counted, and never waits.
    pub async fn record_not_revoked(
        &self,
        trail: &Trail,
        refusal: Refusal,
        token: Option<&VerifiedToken>,
    ) -> Recorded<Result<(), Refusal>> {
        if !trail.is_authenticated() {
            self.tally.count(&self.node, trail, Occasion::Revocation, &refusal);
            return Recorded(Err(refusal));
        }
        let told = record::not_revoked(&self.node, trail, &refusal, token);
        Recorded(Err(match self.hand_over(|deadline, reply| item(trail, told, None, deadline, reply)).await {
            Ok(Verdict::Durable) => refusal,
            Ok(Verdict::Replayed | Verdict::Stale | Verdict::Unavailable) => AuditUnavailable::Unavailable.into(),
            Err(why) => why.into(),
        }))
    }
}

fn item(
    trail: &Trail,
    told: Told,
    assertion: Option<(AssertionUse, String)>,
    deadline: Instant,
    reply: oneshot::Sender<Reply>,
) -> Item {
    Item { request_id: trail.request_id().clone(), at: trail.now(), told, assertion, token: None, deadline, reply }
}
