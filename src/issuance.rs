//! The path of a token request, as one function: read this first.
//!
//! Takes the certificates of a connection, the parameters of a request and an instant, gives what was recorded: a token
//! bound to that certificate, or a refusal. It knows the order of the stages; each rule is in the stage it belongs to.

use std::sync::Arc;

use countersign_resource_server::time::UnixTime;

use crate::app::App;
use crate::audit::{AuditUnavailable, Fenced, Recorded, RequestId, Trail};
use crate::error::Refusal;
use crate::mint::{AccessToken, SignedToken};
use crate::pki::PresentedChain;
use crate::request::{Parameters, RequestRefusal, TokenRequest};
use crate::{admission, client_auth, policy};

/// How often a decision is taken again because the registry changed under it. A client whose record changes faster than
/// this is refused for now.
const ATTEMPTS: usize = 4;

/// The path of a token request. Every outcome is recorded before it is answered.
pub async fn issue(
    app: &App,
    peer: &Arc<PresentedChain>,
    parameters: Result<Parameters, RequestRefusal>,
    request_id: RequestId,
    now: UnixTime,
) -> Recorded<Result<AccessToken, Refusal>> {
    let request = parameters.and_then(|parameters| TokenRequest::parse(&parameters)); // RFC 6749 §3.2
    let mut attempts = 0;
    loop {
        let mut trail = Trail::begin(peer, request_id.clone(), now); // what each stage learned, for the record
        let mut decision = decide(app, peer, &request, attempts, now, &mut trail).await;
        attempts += 1;
        if attempts > ATTEMPTS && decision.is_ok() {
            decision = Err(AuditUnavailable::Overtaken.into());
        }
        match app.audit.record(trail, decision).await {
            // The fence: no token leaves once a change that forbids it was acknowledged.
            Fenced::Held(recorded) => return recorded,
            // Withheld, which is on record. What the decision rested on has changed: look again. If the registry cannot
            // be read now, neither can the client below, and that is the answer.
            Fenced::Stale => drop(app.registry.catch_up().await),
        }
    }
}

async fn decide(
    app: &App,
    peer: &Arc<PresentedChain>,
    request: &Result<TokenRequest, RequestRefusal>,
    attempts: usize,
    now: UnixTime,
    trail: &mut Trail,
) -> Result<SignedToken, Refusal> {
    let request = request.as_ref().map_err(Clone::clone)?;
    trail.asked(request);
    let client = app.registry.client(&request.client_id).await?; // found, not yet believed
    trail.found(&client);
    let peer = app.pki.verify(peer, &client, now).await?; // RFC 5280 §6.1
    trail.verified(peer.anchor());
    let assertion = request.client_assertion.as_ref();
    let mut authentication = app.authentication();
    authentication.rates = authentication.rates.filter(|_| attempts == 0); // counted once, however often it is decided
    let client = client_auth::authenticate(client, peer, assertion, &authentication, now).await?; // RFC 8705 §2
    trail.authenticated(client.client());
    if client.is_first_seen() {
        // A list or an answer that came before the certificate was on record had no tokens of it to end: by now it is in force.
        app.pki.verify(client.peer().presented(), client.client(), now).await?;
    }
    let client = admission::admit(client, app.config.environment, now)?;
    let access = policy::authorize(client, request, app.lifetime(), now)?; // RFC 8707 §2
    let draft = app.mint.draft(access, now)?; // RFC 9068 §2
    let status = app.status_lists.place(&draft, now).await?; // draft-ietf-oauth-status-list-20 §6.2, where the API asks for it
    Ok(draft.sign(status)?)
}
