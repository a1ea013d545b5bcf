//! May this call be answered? The path of a resource request, as one function.
//!
//! Takes what came with the request (certificate, credentials) and what the route requires, gives an [`AuthorizedCall`]
//! or the one [`Refusal`]. Each stage consumes what only the stage before can make. It knows nothing of routes, handlers
//! or the network. Nothing waits in [`decide`]: where only the authorization server can say more, it gives the call back
//! [`Undecided`], and [`authorize`] says no.

use std::fmt;
use std::sync::Arc;

use crate::bearer::{self, Credentials};
use crate::confirmation::{self, CertificateThumbprint, ConfirmedToken};
use crate::error::{Refusal, ScopeRefusal, StatusRefusal};
use crate::peer::{self, PeerCertificate};
use crate::scope::Scope;
use crate::status::{HeldList, Introspection, LiveToken, Standing};
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
    /// Whom to ask where the list is too old to say so, if anybody is to be asked.
    pub introspection: Option<Arc<Introspection>>,
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

/// Decides on one call as of `now`, without asking anybody: where the authorization server would have to be asked, the call is
/// refused.
///
/// Its arguments are those of [`decide`].
///
/// # Errors
/// The [`Refusal`] of the first stage that refuses; [`StatusRefusal::IntrospectionUnavailable`] where [`decide`] would ask.
pub fn authorize(
    judgement: &Judgement,
    required: &Requirement,
    certificate: Option<&PeerCertificate>,
    credentials: &Credentials<'_>,
    now: UnixTime,
    shown: &mut Option<Arc<VerifiedToken>>,
) -> Result<AuthorizedCall, Refusal> {
    match decide(judgement, required, certificate, credentials, now, shown)? {
        Decision::Permitted(call) => Ok(call),
        Decision::Undecided(_) => Err(StatusRefusal::IntrospectionUnavailable.into()),
    }
}

/// Decides on one call as of `now`, or says that it is to be asked about.
///
/// The token is taken from the request before the certificate is looked at, so that a request without one is told that
/// it needs one and nothing else (RFC 6750 §3).
///
/// `shown` becomes the token that came with the call, once its signature and claims have been verified, whatever is decided
/// then: by its `jti` the decision joins the authorization server's audit log.
///
/// # Errors
/// The [`Refusal`] of the first stage that refuses.
pub fn decide(
    judgement: &Judgement,
    required: &Requirement,
    certificate: Option<&PeerCertificate>,
    credentials: &Credentials<'_>,
    now: UnixTime,
    shown: &mut Option<Arc<VerifiedToken>>,
) -> Result<Decision, Refusal> {
    let bearer = bearer::extract(credentials)?; // RFC 6750 §2.1
    let token = match required.binding {
        Binding::Required => {
            let peer = peer::judge(certificate, now)?; // RFC 5280 §4.1.2.5
            let token = judgement.tokens.verify(bearer, now)?; // RFC 9068 §4
            *shown = Some(Arc::clone(&token));
            confirmation::confirm(token, peer)? // RFC 8705 §3
        }
        Binding::DangerUnbound => {
            let token = judgement.tokens.verify(bearer, now)?;
            *shown = Some(Arc::clone(&token));
            ConfirmedToken::danger_unbound(token)
        }
    };
    let token = match required.revocation {
        Revocation::Checked => match judgement.revocations.check(token)? {
            Standing::Live(token) => token,
            Standing::Unknown(token) => {
                let introspection = judgement.introspection.clone().ok_or_else(|| {
                    // Nobody was named to be asked.
                    if judgement.revocations.version().is_some() {
                        StatusRefusal::ListStale
                    } else {
                        StatusRefusal::ListNotHeld
                    }
                })?;
                let (text, required) = (bearer.as_str().into(), required.scope.clone());
                return Ok(Decision::Undecided(Box::new(Undecided { introspection, token, text, required })));
            }
        },
        Revocation::DangerIgnored => LiveToken::danger_unchecked(token),
    };
    Ok(Decision::Permitted(permit(token, &required.scope)?))
}

/// What is decided without waiting for anybody.
#[derive(Debug)]
#[must_use = "a call that is undecided is not permitted"]
pub enum Decision {
    /// The call may be answered.
    Permitted(AuthorizedCall),
    /// Nobody here can say whether its token is still good: the list held is too old, and the authorization server is to be
    /// asked instead.
    Undecided(Box<Undecided>),
}

/// A call that waits for the authorization server's word on its token.
#[must_use = "nothing is asked until it is settled"]
pub struct Undecided {
    introspection: Arc<Introspection>,
    token: ConfirmedToken,
    text: Arc<str>,
    required: Scope,
}

impl Undecided {
    /// Asks the authorization server, and goes the rest of the path. Certificate and token have to be in date still when the
    /// answer has come.
    ///
    /// # Errors
    /// The [`Refusal`] of the stage that refuses.
    pub async fn settle(self) -> Result<AuthorizedCall, Refusal> {
        let introspection = Arc::clone(&self.introspection);
        let token = self.introspection.ask(self.token, self.text).await?; // RFC 7662 §2.2
        let now = introspection.now();
        if let Some(peer) = token.confirmed().peer() {
            peer::judge(Some(peer.certificate()), now)?; // RFC 5280 §4.1.2.5
        }
        token.confirmed().token().judge_dates(now)?; // RFC 9068 §4
        Ok(permit(token, &self.required)?)
    }
}

/// The text of a token is never printed.
impl fmt::Debug for Undecided {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Undecided").field("token", &self.token).finish_non_exhaustive()
    }
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

#[cfg(test)]
mod tests;
