//! The path of a question about a token, as one function (RFC 7662).
//!
//! Takes the certificate of a connection, a token and an instant, gives what was recorded: all that the token says, if it is
//! meant for the resource server that asks and good at this moment, or that it is not active, and nothing else. A client is
//! never a resource server: each proves itself by a certificate that is enrolled for it and for nobody else.

use std::sync::Arc;
use std::time::Duration;

use countersign_resource_server::error::{StatusRefusal, TokenRefusal};
use countersign_resource_server::time::UnixTime;
use countersign_resource_server::token::access_token::{LEEWAY, VerifiedToken};
use countersign_resource_server::token::claims::AccessTokenClaims;
use serde::Serialize;

use crate::admission;
use crate::app::App;
use crate::audit::{Asked, Recorded, RequestId, Trail};
use crate::error::{ErrorCode, Refusal, refusals};
use crate::pki::PresentedChain;
use crate::registry::certificate::CertificateState;
use crate::registry::resource_server::ResourceServer;
use crate::registry::{ClientId, LookupRefusal, Registry, Thumbprint};
use crate::request::{IntrospectionRequest, Parameters, RequestRefusal};

refusals! {
    /// Why a question about a token is not answered.
    pub enum IntrospectionRefusal at "introspection" {
        /// No certificate on the connection.
        NoCertificate => "resource_server_no_certificate",
        /// The certificate cannot be read.
        Malformed => "resource_server_certificate_malformed",
        /// The certificate is not valid at this moment.
        OutOfDate => "resource_server_certificate_out_of_date",
        /// The certificate is no active resource server's.
        Unknown => "resource_server_unknown",
        /// The certificate, or its key, is a client's.
        IsAClient => "resource_server_is_a_client",
        /// The certificate's key was revoked.
        KeyRevoked => "resource_server_key_revoked",
        /// What was revoked, or whose the certificate is, cannot be read just now.
        StateUnknown => "introspection_unavailable",
    }
}

impl IntrospectionRefusal {
    /// The protocol's code for it.
    pub const fn code(&self) -> ErrorCode {
        match self {
            Self::NoCertificate
            | Self::Malformed
            | Self::OutOfDate
            | Self::Unknown
            | Self::IsAClient
            | Self::KeyRevoked => ErrorCode::InvalidClient,
            Self::StateUnknown => ErrorCode::TemporarilyUnavailable,
        }
    }
}

/// In which form the answer is wanted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Form {
    /// JSON (RFC 7662 §2.2).
    Plain,
    /// Signed for whoever asks (RFC 9701).
    Signed,
}

/// What is told of a token.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Introspection {
    active: bool,
    #[serde(flatten)]
    token: Option<Box<Told>>,
}

/// All that an active token says, `cnf` with it (RFC 8705 §3.2).
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
struct Told {
    token_type: &'static str,
    #[serde(flatten)]
    claims: AccessTokenClaims,
}

impl Introspection {
    /// RFC 7662 §2.2: "SHOULD NOT include any additional information about an inactive token, including why".
    const INACTIVE: Self = Self { active: false, token: None };
}

/// An answer, in the form that was asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Answer {
    /// JSON.
    Plain(Introspection),
    /// A compact JWS.
    Signed(String),
}

/// The path of a question about a token. Every outcome is recorded before it is answered.
pub async fn introspect(
    app: &App,
    peer: &Arc<PresentedChain>,
    parameters: Result<Parameters, RequestRefusal>,
    form: Form,
    request_id: RequestId,
    now: UnixTime,
) -> Recorded<Result<Answer, Refusal>> {
    let trail = Trail::begin(peer, request_id, now);
    let asked = parameters.and_then(|parameters| IntrospectionRequest::parse(&parameters)); // RFC 7662 §2.1
    let (request, resource_server) = match asked {
        Err(refusal) => return app.audit.count_introspection(&trail, refusal.into()),
        Ok(request) => match authenticate(&app.registry, peer, now).await {
            Err(refusal) => return app.audit.count_introspection(&trail, refusal.into()),
            Ok(resource_server) => match app.rates.count_resource_server(&resource_server) {
                // Counted, not put on record one by one: it would let a resource server fill the log.
                Err(refusal) => return app.audit.count_introspection(&trail, refusal.into()),
                Ok(()) => (request, resource_server),
            },
        },
    };
    let shown = app.own_tokens.read(&request.token, now);
    let judged = match &shown {
        Err(why) => Ok(Some(why.reason())),
        Ok(token) => judge(app, &resource_server, token, now).await,
    };
    let told = judged.and_then(|inactive| {
        let asked = Asked { token: shown.as_ref().ok(), inactive };
        let introspection = match (&shown, inactive) {
            (Ok(token), None) => {
                let told = Told { token_type: "Bearer", claims: token.claims().clone() };
                Introspection { active: true, token: Some(Box::new(told)) }
            }
            _ => Introspection::INACTIVE,
        };
        let answer = match form {
            Form::Plain => Answer::Plain(introspection),
            Form::Signed => Answer::Signed(app.mint.sign_introspection(
                &introspection,
                resource_server.resource.as_str(),
                resource_server.introspection_signed_response_alg,
                now,
            )?),
        };
        Ok((asked, answer))
    });
    let told = told.as_ref().map(|(asked, answer)| (asked, answer.clone())).map_err(Clone::clone);
    app.audit.record_introspection(&trail, &resource_server.id, told).await
}

/// Which resource server asks: the one that this very certificate is enrolled for, whose key was proven in the handshake.
///
/// # Errors
/// [`IntrospectionRefusal`].
pub async fn authenticate(
    registry: &Registry,
    peer: &PresentedChain,
    now: UnixTime,
) -> Result<Arc<ResourceServer>, IntrospectionRefusal> {
    if peer.certificates().is_empty() {
        return Err(IntrospectionRefusal::NoCertificate);
    }
    let leaf = peer.leaf().ok_or(IntrospectionRefusal::Malformed)?;
    let asker = registry.asker(leaf.thumbprint(), leaf.key_hash()).await.map_err(|error| {
        tracing::error!(%error, "whose a certificate is cannot be read");
        IntrospectionRefusal::StateUnknown
    })?;
    let resource_server = asker.resource_server.clone().ok_or(IntrospectionRefusal::Unknown)?;
    // Should one have become the other by whatever way: when in doubt, neither.
    if asker.is_a_client {
        return Err(IntrospectionRefusal::IsAClient);
    }
    if asker.key_is_revoked {
        return Err(IntrospectionRefusal::KeyRevoked);
    }
    // RFC 5280 §4.1.2.5: the second of notAfter is the last that it is good in.
    let is_over = now >= leaf.not_after().after(Duration::from_secs(1));
    if now < leaf.not_before() || is_over { Err(IntrospectionRefusal::OutOfDate) } else { Ok(resource_server) }
}

/// Why the token is not active for this resource server; nothing, if it is.
async fn judge(
    app: &App,
    resource_server: &ResourceServer,
    token: &VerifiedToken,
    now: UnixTime,
) -> Result<Option<&'static str>, Refusal> {
    let claims = token.claims();
    // RFC 7662 §2.2: what it may not ask about is not active.
    if claims.aud != resource_server.resource.as_str() {
        return Ok(Some(TokenRefusal::Audience.reason()));
    }
    // RFC 7662 §4, by the clock that wrote it: without a leeway.
    if now >= UnixTime::from_seconds(claims.exp) {
        return Ok(Some(TokenRefusal::Expired.reason()));
    }
    // Other nodes write as well, and their clocks may be ahead a little.
    if now.after(LEEWAY) < UnixTime::from_seconds(claims.iat) {
        return Ok(Some(TokenRefusal::IssuedInFuture.reason()));
    }
    let list = app.status.fresh().ok_or(IntrospectionRefusal::StateUnknown)?;
    if let Some(kind) = list.mark_on(token) {
        return Ok(Some(StatusRefusal::revoked(kind).reason()));
    }
    // A mark tells of every end of admission; the records are looked at all the same.
    let Ok(client_id) = ClientId::parse(&claims.client_id) else {
        return Ok(Some(LookupRefusal::ClientUnknown.reason()));
    };
    let record = match app.registry.client(&client_id).await {
        Ok(client) => client.record,
        Err(LookupRefusal::ClientUnknown) => return Ok(Some(LookupRefusal::ClientUnknown.reason())),
        Err(LookupRefusal::RegistryUnavailable) => return Err(IntrospectionRefusal::StateUnknown.into()),
    };
    if let Err(refusal) = admission::examine_client(&record, app.config.environment) {
        return Ok(Some(refusal.reason()));
    }
    let thumbprint = Thumbprint::parse(&claims.cnf.x5t_s256.to_string()).ok();
    let certificate = thumbprint.and_then(|thumbprint| record.certificate(&thumbprint));
    // One that was superseded gets no new tokens; those of its overlap live out.
    Ok(match certificate.map(|certificate| &certificate.state) {
        Some(CertificateState::Revoked { .. }) => Some(StatusRefusal::RevokedCertificate.reason()),
        _ => None,
    })
}
