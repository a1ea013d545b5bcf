//! May this call be answered? The path of a resource request, as one function.
//!
//! Takes what came with the request (certificate, credentials) and what the route requires, gives an [`AuthorizedCall`]
//! or the one [`Refusal`]. Each stage consumes what only the stage before can make. It knows nothing of routes, handlers
//! or the network: nothing here waits.

use std::sync::Arc;

use crate::bearer::{self, Credentials};
use crate::confirmation::{self, CertificateThumbprint, ConfirmedToken};
use crate::error::{Refusal, ScopeRefusal};
use crate::peer::{self, PeerCertificate};
use crate::scope::Scope;
use crate::status::{HeldList, LiveToken};
use crate::time::UnixTime;
use crate::token::access_token::{AccessTokens, VerifiedToken};
use crate::token::claims::AccessTokenClaims;

/// What calls are judged by, the same for every route.
#[derive(Debug)]
pub struct Judgement {
    /// Which tokens are good.
    pub tokens: AccessTokens,
    /// Which of them are not good any more.
    pub revocations: Arc<HeldList>,
}

/// What one route requires.
#[derive(Clone, Debug)]
pub struct Requirement {
    /// Every scope token the access token has to carry.
    pub scope: Scope,
    /// Whether the token has to be the caller's own.
    pub binding: Binding,
    /// Whether the token may have been revoked.
    pub revocation: Revocation,
}

/// Whether the token has to be the caller's own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Binding {
    /// The connection must have the certificate that the token is bound to.
    Required,
    /// Danger: whoever holds the token may use it, from any connection.
    DangerUnbound,
}

/// Whether the token may have been revoked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Revocation {
    /// A fresh revocation list has to say nothing against it.
    Checked,
    /// Danger: a revoked token stays good until it expires.
    DangerIgnored,
}

/// Decides on one call as of `now`.
///
/// The token is taken from the request before the certificate is looked at, so that a request without one is told that
/// it needs one and nothing else (RFC 6750 §3).
///
/// # Errors
/// The [`Refusal`] of the first stage that refuses.
pub fn authorize(
    judgement: &Judgement,
    required: &Requirement,
    certificate: Option<&PeerCertificate>,
    credentials: &Credentials<'_>,
    now: UnixTime,
) -> Result<AuthorizedCall, Refusal> {
    let bearer = bearer::extract(credentials)?; // RFC 6750 §2.1
    let token = match required.binding {
        Binding::Required => {
            let peer = peer::judge(certificate, now)?; // RFC 5280 §4.1.2.5
            let token = judgement.tokens.verify(bearer, now)?; // RFC 9068 §4
            confirmation::confirm(token, peer)? // RFC 8705 §3
        }
        Binding::DangerUnbound => ConfirmedToken::danger_unbound(judgement.tokens.verify(bearer, now)?),
    };
    let token = match required.revocation {
        Revocation::Checked => judgement.revocations.check(token)?,
        Revocation::DangerIgnored => LiveToken::danger_unchecked(token),
    };
    permit(token, &required.scope).map_err(Refusal::from)
}

// RFC 6750 §3.1: insufficient_scope
fn permit(token: LiveToken, required: &Scope) -> Result<AuthorizedCall, ScopeRefusal> {
    if token.confirmed().token().claims().scope.includes(required) {
        Ok(AuthorizedCall { token: Arc::clone(token.confirmed().token()) })
    } else {
        Err(ScopeRefusal::Insufficient)
    }
}

/// A call that may be answered, and who makes it. Cheap to clone.
#[derive(Clone, Debug)]
pub struct AuthorizedCall {
    token: Arc<VerifiedToken>,
}

impl AuthorizedCall {
    /// Everything the token says.
    pub fn claims(&self) -> &AccessTokenClaims {
        self.token.claims()
    }

    /// The client that calls.
    pub fn client_id(&self) -> &str {
        &self.claims().client_id
    }

    /// The organisation it belongs to.
    pub fn participant_id(&self) -> &str {
        &self.claims().participant_id
    }

    /// What it may do here.
    pub fn scope(&self) -> &Scope {
        &self.claims().scope
    }

    /// The certificate that the token is bound to.
    pub fn certificate_thumbprint(&self) -> &CertificateThumbprint {
        &self.claims().cnf.x5t_s256
    }
}
