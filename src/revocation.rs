//! The path of a revocation request, as one function (RFC 7009).
//!
//! Takes the certificates of a connection, the parameters of a request and an instant, gives what was recorded: that a token
//! of the client's own is dead, here and on the list that every resource server follows, or that there was none to kill, or
//! a refusal. The record comes first, then the mark, then the answer.

use std::sync::Arc;
use std::time::Duration;

use countersign_resource_server::error::{StatusRefusal, TokenRefusal};
use countersign_resource_server::time::UnixTime;
use countersign_resource_server::token::access_token::VerifiedToken;
use tokio::time::timeout;

use crate::admission::{self, AdmittedClient};
use crate::app::App;
use crate::audit::{Finding, Recorded, RequestId, Trail};
use crate::client_auth;
use crate::error::{ErrorCode, Refusal, refusals};
use crate::pki::PresentedChain;
use crate::presented_token::is_over;
use crate::registry::edit::EditRefusal;
use crate::registry::history::{Actor, Explanation};
use crate::registry::token::{AskedBy, KnownToken, REVOKED_TOKENS, TokenRevocation};
use crate::registry::{ClientId, ParticipantId, RegistryVersion, ResourceIndicator};
use crate::request::{Parameters, RequestRefusal, RevocationRequest};

refusals! {
    /// Why a token was not revoked.
    pub enum RevocationRefusal at "revocation" {
        /// It was issued to another client (RFC 7009 §2.1).
        TokenOfAnother => "token_of_another_client",
        /// The client has had as many live tokens revoked as it may.
        LimitReached => "revocation_limit_reached",
        /// The mark could not be made, or this node's list does not have it in time.
        MarkUnavailable => "revocation_unavailable",
    }
}

impl RevocationRefusal {
    /// The protocol's code for it.
    pub const fn code(&self) -> ErrorCode {
        match self {
            // RFC 6749 §5.2, which RFC 7009 §2.2.1 refers to: the one registered code for what "was issued to another client".
            Self::TokenOfAnother => ErrorCode::InvalidGrant,
            // RFC 7009 §2.2.1: 503 says that the token still exists, and that it may be tried again.
            Self::LimitReached | Self::MarkUnavailable => ErrorCode::TemporarilyUnavailable,
        }
    }
}

/// How long the mark may take to become durable, and as long again to be on this node's list.
const PATIENCE: Duration = Duration::from_secs(2);

/// What was found of the token.
#[derive(Debug)]
enum Shown {
    /// The client's own, and good so far.
    Live(VerifiedToken),
    /// The client's own, and dead already.
    Dead(VerifiedToken, StatusRefusal),
    /// The client's own, and past its time.
    Over(VerifiedToken),
    /// No token of this server's that could be live: RFC 7009 §2.2 has it answered like one that is revoked.
    NotOurs(TokenRefusal),
}

impl Shown {
    fn finding(&self) -> Finding<'_> {
        match self {
            Self::Live(token) => Finding { outcome: "revoked", reason: None, token: Some(token) },
            Self::Dead(token, why) => {
                Finding { outcome: "already_dead", reason: Some(why.reason()), token: Some(token) }
            }
            Self::Over(token) => Finding {
                outcome: "nothing_to_revoke",
                reason: Some(TokenRefusal::Expired.reason()),
                token: Some(token),
            },
            Self::NotOurs(why) => Finding { outcome: "nothing_to_revoke", reason: Some(why.reason()), token: None },
        }
    }
}

/// The path of a revocation request. Every outcome is recorded before it is answered.
pub async fn revoke(
    app: &App,
    peer: &Arc<PresentedChain>,
    parameters: Result<Parameters, RequestRefusal>,
    request_id: RequestId,
    now: UnixTime,
) -> Recorded<Result<(), Refusal>> {
    let request = parameters.and_then(|parameters| RevocationRequest::parse(&parameters)); // RFC 7009 §2.1
    let mut trail = Trail::begin(peer, request_id, now);
    let mut token = None;
    match judge(app, peer, &request, now, &mut trail, &mut token).await {
        Err(refusal) => app.audit.record_not_revoked(&trail, refusal, token.as_ref()).await,
        Ok((client, shown)) => {
            let used = client.authenticated().assertion();
            let kill = async {
                match &shown {
                    Shown::Live(token) => kill(app, token, now).await,
                    Shown::Dead(..) | Shown::Over(_) | Shown::NotOurs(_) => Ok(()),
                }
            };
            app.audit.record_revocation(&trail, &shown.finding(), used, kill).await
        }
    }
}

async fn judge(
    app: &App,
    peer: &Arc<PresentedChain>,
    request: &Result<RevocationRequest, RequestRefusal>,
    now: UnixTime,
    trail: &mut Trail,
    foreign: &mut Option<VerifiedToken>,
) -> Result<(AdmittedClient, Shown), Refusal> {
    let request = request.as_ref().map_err(Clone::clone)?;
    trail.asked_to_revoke(request);
    // The client as at the token endpoint: RFC 7009 §2.1, "its authentication credentials as described in Section 2.3 of
    // [RFC6749]". Which of its certificates a token is bound to does not matter: whoever is the client may end what is its own.
    let client = app.registry.client(&request.client_id).await?;
    trail.found(&client);
    let peer = app.pki.verify(peer, &client, now).await?;
    trail.verified(peer.anchor());
    let assertion = request.client_assertion.as_ref();
    // Counted in there, of the same allowance as its token requests.
    let client = client_auth::authenticate(client, peer, assertion, &app.authentication(), now).await?;
    trail.authenticated(client.client());
    let client = admission::admit(client, app.config.environment, now)?;
    let own = &client.authenticated().client().record.client.id;
    // A mark is made only of what this server has signed: nobody can fill the list with inventions.
    let token = match app.own_tokens.read(&request.token, now) {
        Ok(token) => token,
        Err(why) => return Ok((client, Shown::NotOurs(why))),
    };
    if token.claims().client_id != own.as_str() {
        *foreign = Some(token);
        return Err(RevocationRefusal::TokenOfAnother.into());
    }
    if is_over(&token, now) {
        return Ok((client, Shown::Over(token)));
    }
    // By this node's list, so that what it says is on the list.
    if let Some(kind) = app.status.current().mark_on(&token) {
        return Ok((client, Shown::Dead(token, StatusRefusal::revoked(kind))));
    }
    let live = app.registry.revoked_tokens(own, now).await.map_err(|_| RevocationRefusal::MarkUnavailable)?;
    if live >= REVOKED_TOKENS {
        return Err(RevocationRefusal::LimitReached.into());
    }
    Ok((client, Shown::Live(token)))
}

/// Makes the mark and waits until this node's list has it.
async fn kill(app: &App, token: &VerifiedToken, now: UnixTime) -> Result<(), Refusal> {
    let revocation = of(token).ok_or(RevocationRefusal::MarkUnavailable)?;
    let actor = Actor::Server { node: app.registry.node().to_owned() };
    let marking = app.registry.revoke_token(revocation, Explanation { actor, at: now, why: None });
    let version: RegistryVersion = match timeout(PATIENCE, marking).await {
        Ok(Ok(version)) => version,
        // Somebody else has done it just now, perhaps on another node: this one has to learn of it.
        Ok(Err(EditRefusal::StateForbids { .. })) => {
            let caught_up = timeout(PATIENCE, app.registry.catch_up()).await;
            caught_up.ok().and_then(Result::ok).ok_or(RevocationRefusal::MarkUnavailable)?
        }
        Ok(Err(EditRefusal::TokenLimit { .. })) => return Err(RevocationRefusal::LimitReached.into()),
        Ok(Err(error)) => {
            tracing::error!(%error, "a token could not be revoked");
            return Err(RevocationRefusal::MarkUnavailable.into());
        }
        Err(_elapsed) => return Err(RevocationRefusal::MarkUnavailable.into()),
    };
    // The list says it, or nobody is told that it is so: a mark may be over by the calendar of whoever made it.
    if app.status.has_come_to(version, PATIENCE).await && app.status.current().mark_on(token).is_some() {
        Ok(())
    } else {
        Err(RevocationRefusal::MarkUnavailable.into())
    }
}

/// What the registry keeps of a token; every one that this server signs has it all.
fn of(token: &VerifiedToken) -> Option<TokenRevocation> {
    let claims = token.claims();
    Some(TokenRevocation {
        jti: claims.jti.clone(),
        token: Some(KnownToken {
            client_id: ClientId::parse(&claims.client_id).ok()?,
            participant_id: ParticipantId::parse(&claims.participant_id).ok()?,
            aud: ResourceIndicator::parse(&claims.aud).ok()?,
            expires_at: UnixTime::from_seconds(claims.exp),
            status_list: claims.status.as_ref().map(|status| status.status_list.clone()),
        }),
        asked_by: AskedBy::Client,
    })
}
