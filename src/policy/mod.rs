//! May it have this? Grant type, resource and scope.
//!
//! Takes an [`AdmittedClient`] and what it asks for, gives an [`AuthorizedAccess`]: one resource server, the scope there,
//! and the instant no token for it may outlive. It knows nothing of keys or tokens.

mod resource;

mod scope;

use std::sync::Arc;
use std::time::Duration;

use countersign_resource_server::scope::Scope;
use countersign_resource_server::time::UnixTime;
use countersign_resource_server::token::jws::SigningAlgorithm;

use crate::admission::AdmittedClient;
use crate::client_auth::UsedAssertion;
use crate::error::{ErrorCode, refusals};
use crate::pki::VerifiedPeer;
use crate::registry::resource_server::ResourceServer;
use crate::registry::{ClientRecord, FoundClient};
use crate::request::TokenRequest;

refusals! {
    /// Why a client may not have what it asks for.
    pub enum PolicyRefusal at "policy" {
        /// Not `client_credentials`.
        GrantTypeUnsupported => "grant_type_unsupported",
        /// The client was never entitled to anything.
        NoEntitlement => "no_entitlement",
        /// The entitlement is over.
        EntitlementEnded => "entitlement_ended",
        /// The entitlement has not begun.
        EntitlementNotStarted => "entitlement_not_started",
        /// The certificate, or an issuer in its path, ends within this second: a token would be dead on arrival.
        CertificateEnding => "certificate_ending",
        /// The entitlement ends within this second.
        EntitlementEnding => "entitlement_ending",
        /// The entitlement for the resource asked for is over.
        ResourceEntitlementEnded => "resource_entitlement_ended",
        /// The entitlement for the resource asked for has not begun.
        ResourceEntitlementNotStarted => "resource_entitlement_not_started",
        /// More than one `resource`.
        ResourceSeveral => "resource_several",
        /// Unknown, or not one this client was ever entitled to.
        ResourceNotEntitled => "resource_not_entitled",
        /// The resource server takes no more tokens.
        ResourceRetired => "resource_retired",
        /// Every resource server the client is entitled to is retired.
        EveryResourceRetired => "every_resource_retired",
        /// No `resource`, and what is asked does not single one out.
        ResourceAmbiguous => "resource_ambiguous",
        /// The `scope` does not follow the grammar.
        ScopeMalformed => "scope_malformed",
        /// The scopes belong to several resource servers.
        ScopeMixed => "scope_mixed",
        /// More than the client is entitled to.
        ScopeNotEntitled => "scope_not_entitled",
    }
}

impl PolicyRefusal {
    /// The protocol's code for it.
    pub const fn code(&self) -> ErrorCode {
        match self {
            Self::GrantTypeUnsupported => ErrorCode::UnsupportedGrantType,
            Self::CertificateEnding => ErrorCode::InvalidClient,
            Self::EntitlementEnding
            | Self::NoEntitlement
            | Self::EntitlementEnded
            | Self::EntitlementNotStarted
            | Self::EveryResourceRetired => ErrorCode::UnauthorizedClient,
            Self::ResourceSeveral
            | Self::ResourceNotEntitled
            | Self::ResourceRetired
            | Self::ResourceEntitlementEnded
            | Self::ResourceEntitlementNotStarted
            | Self::ResourceAmbiguous => ErrorCode::InvalidTarget,
            Self::ScopeMalformed | Self::ScopeMixed | Self::ScopeNotEntitled => ErrorCode::InvalidScope,
        }
    }
}

/// No token lives longer, whatever any record says (design §4).
pub const LONGEST_LIFETIME: Duration = Duration::from_secs(3600);

/// How long tokens live where no record says less.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Lifetime {
    /// The default, never above [`LONGEST_LIFETIME`].
    pub default: Duration,
}

/// What a token may be issued for. Made by [`authorize`] alone.
#[derive(Debug)]
pub struct AuthorizedAccess {
    client: AdmittedClient,
    resource_server: Arc<ResourceServer>,
    scope: Scope,
    expires_no_later_than: UnixTime,
}

impl AuthorizedAccess {
    /// The client, and the registry version the decision is taken under.
    pub const fn client(&self) -> &FoundClient {
        self.client.authenticated().client()
    }

    /// The certificate on the connection.
    pub const fn peer(&self) -> &VerifiedPeer {
        self.client.authenticated().peer()
    }

    /// The assertion that has still to be used up.
    pub const fn assertion(&self) -> Option<&UsedAssertion> {
        self.client.authenticated().assertion()
    }

    /// Where the token is for.
    pub const fn resource_server(&self) -> &Arc<ResourceServer> {
        &self.resource_server
    }

    /// What it allows.
    pub const fn scope(&self) -> &Scope {
        &self.scope
    }

    /// The token is dead at this instant, at the latest.
    pub const fn expires_no_later_than(&self) -> UnixTime {
        self.expires_no_later_than
    }

    /// What the client's tokens are signed with.
    pub fn signing_alg(&self) -> SigningAlgorithm {
        self.client().record.client.access_token_signing_alg
    }
}

/// Decides what the client gets.
///
/// # Errors
/// [`PolicyRefusal`]: another grant type, no entitlement now, a resource or scope that is not the client's.
pub fn authorize(
    client: AdmittedClient,
    request: &TokenRequest,
    lifetime: Lifetime,
    now: UnixTime,
) -> Result<AuthorizedAccess, PolicyRefusal> {
    if request.grant_type != "client_credentials" {
        return Err(PolicyRefusal::GrantTypeUnsupported); // RFC 6749 §4.4.2
    }
    let asked = scope::parse(request.scope.as_deref())?;
    let entitlements = &client.authenticated().client().record.entitlements;
    let entitled = resource::single_out(entitlements, &request.resources, asked.as_ref(), now)?;
    let granted = grant(&entitled, asked, client.authenticated().peer(), now)?;
    let expires_no_later_than = [
        Some(now.after(longest_lifetime(lifetime, &client, &entitled.resource_server))),
        Some(client.authenticated().peer().not_after()),
        granted.ends_at,
    ]
    .into_iter()
    .flatten()
    .min()
    .unwrap_or(now);
    Ok(AuthorizedAccess {
        resource_server: entitled.resource_server,
        scope: granted.scope,
        expires_no_later_than,
        client,
    })
}

/// What the client could get if it asked for each API in turn and for everything there.
///
/// # Errors
/// As [`authorize`] refuses who asks without `resource` and `scope`, where there is nothing to get.
pub fn examine(record: &ClientRecord, peer: &VerifiedPeer, now: UnixTime) -> Result<Vec<Obtainable>, PolicyRefusal> {
    let mut first_refusal = None;
    let mut obtainable = Vec::new();
    for entitled in resource::every(&record.entitlements, now)? {
        match grant(&entitled, None, peer, now) {
            Ok(granted) => obtainable.push(Obtainable {
                resource_server: entitled.resource_server,
                scope: granted.scope,
                ends_at: granted.ends_at,
            }),
            Err(refusal) => drop(first_refusal.get_or_insert(refusal)),
        }
    }
    match first_refusal {
        Some(refusal) if obtainable.is_empty() => Err(refusal),
        _ => Ok(obtainable),
    }
}

/// What a client could get at one API.
#[derive(Clone, Debug)]
pub struct Obtainable {
    /// The API.
    pub resource_server: Arc<ResourceServer>,
    /// Everything it may have there.
    pub scope: Scope,
    /// When the first entitlement for it ends.
    pub ends_at: Option<UnixTime>,
}

/// The scope at one API, if a token for it would live at all.
fn grant(
    entitled: &resource::Entitled,
    asked: Option<Scope>,
    peer: &VerifiedPeer,
    now: UnixTime,
) -> Result<scope::GrantedScope, PolicyRefusal> {
    let granted = scope::grant(entitled, asked)?;
    // Tokens count in whole seconds, and are dead at their last: one that ends in this second never lived.
    let is_ending = |end: UnixTime| end.as_seconds() <= now.as_seconds();
    if is_ending(peer.not_after()) {
        return Err(PolicyRefusal::CertificateEnding);
    }
    if granted.ends_at.is_some_and(is_ending) {
        return Err(PolicyRefusal::EntitlementEnding);
    }
    Ok(granted)
}

/// The shortest of the default, the client's, the resource server's and the hard limit.
fn longest_lifetime(lifetime: Lifetime, client: &AdmittedClient, resource_server: &ResourceServer) -> Duration {
    let registered = [
        client.authenticated().client().record.client.access_token_lifetime_seconds,
        resource_server.access_token_lifetime_seconds,
    ];
    registered
        .into_iter()
        .flatten()
        // A record that says less than nothing gives nothing: the mint refuses a token that is dead on arrival.
        .map(|seconds| Duration::from_secs(u64::try_from(seconds).unwrap_or(0)))
        .chain([lifetime.default, LONGEST_LIFETIME])
        .min()
        .unwrap_or(LONGEST_LIFETIME)
}
