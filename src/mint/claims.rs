//! What a token says: RFC 9068 §2.2, bound by RFC 8705 §3.1.
//!
//! Takes a [`Grant`], gives [`AccessTokenClaims`]: the type that the resource server reads. It decides nothing but when
//! the token expires, which is the earliest of what bounds it.

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use countersign_resource_server::confirmation::Confirmation;
use countersign_resource_server::scope::Scope;
use countersign_resource_server::time::UnixTime;
use countersign_resource_server::token::claims::AccessTokenClaims;
use countersign_resource_server::token::jws::SigningAlgorithm;

use super::{MintRefusal, random_octets};
use crate::audit::AssertionUse;
use crate::policy::{AuthorizedAccess, LONGEST_LIFETIME};
use crate::registry::resource_server::StatusClaim;
use crate::registry::{AnchorId, FoundClient, KeyHash, ResourceIndicator, Thumbprint};

/// What was authorized, as a token is made of it.
#[derive(Clone, Debug)]
pub(crate) struct Grant {
    /// Who it is for, and the registry version the decision was taken under.
    pub(crate) client: FoundClient,
    /// The certificate on the connection: what the token is bound to.
    pub(crate) thumbprint: Thumbprint,
    /// The hash of its key: what a mark can be about, and no claim.
    pub(crate) key_hash: KeyHash,
    /// The anchor that vouches for it, or did when it was enrolled; none where the certificate stands for itself.
    pub(crate) anchor: Option<AnchorId>,
    /// The API it is for.
    pub(crate) resource: ResourceIndicator,
    /// What it may be used for there.
    pub(crate) scope: Scope,
    /// The earliest of policy, the validated path's dates and the entitlement's end.
    pub(crate) expires_no_later_than: UnixTime,
    /// How it is signed.
    pub(crate) signing_alg: SigningAlgorithm,
    /// Whether the API asked for the status of its tokens as a list.
    pub(crate) status: StatusClaim,
    /// The assertion that is used up with it.
    pub(crate) assertion: Option<AssertionUse>,
}

impl From<&AuthorizedAccess> for Grant {
    fn from(access: &AuthorizedAccess) -> Self {
        Self {
            client: access.client().clone(),
            thumbprint: *access.peer().thumbprint(),
            key_hash: *access.peer().key_hash(),
            // A certificate that was enrolled on an anchor's word rests on it still, however it proved itself today.
            anchor: access.peer().anchor().cloned().or_else(|| {
                let certificate = access.client().record.certificate(access.peer().thumbprint());
                certificate.and_then(|certificate| certificate.anchor.clone())
            }),
            resource: access.resource_server().resource.clone(),
            scope: access.scope().clone(),
            expires_no_later_than: access.expires_no_later_than(),
            signing_alg: access.signing_alg(),
            status: access.resource_server().status,
            assertion: access.assertion().map(|used| AssertionUse {
                client_id: used.client_id.clone(),
                jti: used.jti.clone(),
                expires_at: used.expires_at,
            }),
        }
    }
}

/// The claims of a token for `grant`, issued `now`.
pub(super) fn write(issuer: &str, grant: &Grant, now: UnixTime) -> Result<AccessTokenClaims, MintRefusal> {
    let record = &grant.client.record;
    // RFC 7519 §2: NumericDate. Both round down: a token never outlives what bounds it, nor is it issued in the future.
    let iat = now.as_seconds();
    let exp = grant.expires_no_later_than.min(now.after(LONGEST_LIFETIME)).as_seconds();
    if exp <= iat {
        return Err(MintRefusal::NothingLeft);
    }
    let client_id = record.client.id.as_str().to_owned();
    Ok(AccessTokenClaims {
        iss: issuer.to_owned(),
        // RFC 9068 §2.2: without a resource owner, sub is an identifier of the client itself.
        sub: client_id.clone(),
        aud: grant.resource.as_str().to_owned(),
        exp,
        iat,
        jti: jti(now),
        client_id,
        scope: grant.scope.clone(),
        // RFC 8705 §3.1
        cnf: Confirmation { x5t_s256: grant.thumbprint },
        participant_id: record.participant.id.as_str().to_owned(),
        roles: record.participant.roles.clone(),
        environment: record.client.environment.as_str().to_owned(),
        anchor: grant.anchor.as_ref().map(|anchor| anchor.as_str().to_owned()),
        registry_version: grant.client.version.0,
        status: None,
    })
}

/// Twelve hexadecimal digits of milliseconds, so that ids sort by time, and 96 random bits.
fn jti(now: UnixTime) -> String {
    const TIME_BITS: i64 = (1 << 48) - 1;
    let time = now.as_millis() & TIME_BITS;
    let mut text = format!("{time:012x}");
    URL_SAFE_NO_PAD.encode_string(random_octets::<12>(), &mut text);
    text
}
