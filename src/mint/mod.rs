//! Write it down and sign it.
//!
//! Takes what was authorized, gives a [`SignedToken`]: a JWT by RFC 9068 that only the certificate on this connection
//! can use (RFC 8705 §3). It leaves the server as an [`AccessToken`], which takes the audit log's proof that the
//! decision is on record. It knows nothing of why the client may have it.

/// What a token says.
mod claims;

/// What the server tells others by itself.
mod security_event;

/// The one file of the server that names josekit.
mod signer;

/// Signing keys: which signs, which are published.
pub mod key_ring;

/// Keys as files in a directory.
pub mod key_directory;

/// Keys in the store, for all nodes.
pub mod shared_keys;

/// What those are encrypted by.
pub mod key_encryption;

pub(crate) use claims::Grant;
pub use key_ring::{KeyRing, KeyStore, SigningKeys};
pub use security_event::{INTROSPECTION_TYPE, SECURITY_EVENT_TYPE, SecurityEvent};
pub use signer::{ALGORITHMS, KeyError, Signer, random_octets};

use std::sync::Arc;

use countersign_resource_server::scope::Scope;
use countersign_resource_server::time::UnixTime;
use countersign_resource_server::token::claims::{ACCESS_TOKEN_TYPE, AccessTokenClaims, Status};
use countersign_resource_server::token::jws::SigningAlgorithm;

use crate::audit::{AssertionUse, Durable};
use crate::error::{ErrorCode, refusals};
use crate::policy::AuthorizedAccess;
use crate::registry::resource_server::StatusClaim;
use crate::registry::{FoundClient, KeyHash, RegistryVersion, ResourceIndicator};

refusals! {
    /// Why a token could not be made.
    pub enum MintRefusal at "mint" {
        /// There is no key of this algorithm to sign with.
        NoSigningKey { /** The algorithm. */ algorithm: SigningAlgorithm } => "no_signing_key",
        /// The keys are shared, and this node has not heard for a while whether they are still these.
        KeysNotConfirmed => "signing_keys_not_confirmed",
        /// What bounds the token's life has less than a second left.
        NothingLeft => "token_lifetime_exhausted",
        /// The key would not sign.
        SigningFailed => "signing_failed",
        /// The resource server wants its tokens in a status list, and no place in one could be had.
        StatusIndexUnavailable => "status_index_unavailable",
    }
}

impl MintRefusal {
    /// The protocol's code for it.
    pub const fn code(&self) -> ErrorCode {
        match self {
            Self::NoSigningKey { .. } | Self::NothingLeft | Self::SigningFailed => ErrorCode::ServerError,
            Self::KeysNotConfirmed | Self::StatusIndexUnavailable => ErrorCode::TemporarilyUnavailable,
        }
    }
}

/// Makes tokens.
#[derive(Debug)]
pub struct Mint {
    issuer: Arc<str>,
    keys: Arc<KeyRing>,
}

/// What a token will say and be signed with.
#[derive(Debug)]
pub struct Draft {
    claims: AccessTokenClaims,
    grant: Grant,
    key: Signer,
}

/// A token that is signed but not on record yet: it cannot leave like this.
#[derive(Debug)]
pub struct SignedToken {
    compact: String,
    kid: Arc<str>,
    jti: String,
    issued_at: i64,
    expires_at: i64,
    status: Option<Status>,
    scope: Scope,
    resource: ResourceIndicator,
    rests_on: FoundClient,
    assertion: Option<AssertionUse>,
}

/// A token whose decision is on record: what an answer is made of.
#[derive(Clone, PartialEq, Eq)]
pub struct AccessToken {
    /// RFC 6749 §5.1 `access_token`.
    pub access_token: String,
    /// RFC 6749 §5.1 `expires_in`: seconds from the instant of the decision.
    pub expires_in: i64,
    /// RFC 6749 §5.1 `scope`.
    pub scope: Scope,
    /// Names it in the audit log.
    pub jti: String,
}

/// Whoever logs it must not log the token.
impl std::fmt::Debug for AccessToken {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("AccessToken").field("jti", &self.jti).finish_non_exhaustive()
    }
}

impl Mint {
    /// A mint for the tokens of `issuer`.
    pub fn new(issuer: impl Into<Arc<str>>, keys: Arc<KeyRing>) -> Self {
        Self { issuer: issuer.into(), keys }
    }

    /// The keys it signs with.
    pub const fn keys(&self) -> &Arc<KeyRing> {
        &self.keys
    }

    /// Writes down a token for what was authorized.
    ///
    /// # Errors
    /// [`MintRefusal::NothingLeft`] if it would have expired already, [`MintRefusal::NoSigningKey`] if no key of the
    /// client's algorithm may sign now, [`MintRefusal::KeysNotConfirmed`] if none of a shared ring may.
    #[expect(clippy::needless_pass_by_value, reason = "what was authorized is used up: one token each time")]
    pub fn draft(&self, access: AuthorizedAccess, now: UnixTime) -> Result<Draft, MintRefusal> {
        self.draft_grant(Grant::from(&access), now)
    }

    pub(crate) fn draft_grant(&self, grant: Grant, now: UnixTime) -> Result<Draft, MintRefusal> {
        let algorithm = grant.signing_alg;
        let claims = claims::write(&self.issuer, &grant, now)?;
        if !self.keys.may_sign() {
            return Err(MintRefusal::KeysNotConfirmed);
        }
        let keys = self.keys.current();
        let key = keys.signing(algorithm, now).ok_or(MintRefusal::NoSigningKey { algorithm })?.clone();
        Ok(Draft { claims, grant, key })
    }

    /// Both at once, for tokens without a status.
    #[cfg(test)]
    pub(crate) fn sign_grant(&self, grant: Grant, now: UnixTime) -> Result<SignedToken, MintRefusal> {
        self.draft_grant(grant, now)?.sign(None)
    }
}

impl Draft {
    /// What the token will say, but for its status.
    pub const fn claims(&self) -> &AccessTokenClaims {
        &self.claims
    }

    /// What it will be signed with.
    pub fn kid(&self) -> &str {
        self.key.kid()
    }

    /// The key of the certificate that it will be bound to.
    pub const fn key_hash(&self) -> &KeyHash {
        &self.grant.key_hash
    }

    /// Whether it has to say where its status is.
    pub fn has_status(&self) -> bool {
        self.grant.status == StatusClaim::StatusList
    }

    /// The registry version through which everything that it names was looked at as one: a mark about any of it, made
    /// later and seen, would have changed the record that the decision rests on. Never later than the token's own.
    pub fn record_version(&self) -> RegistryVersion {
        self.grant.client.record.as_of.min(self.grant.client.version)
    }

    /// Signs it, with its status where it has to say one.
    ///
    /// # Errors
    /// [`MintRefusal::StatusIndexUnavailable`] if it has to and there is none, [`MintRefusal::SigningFailed`] if the library
    /// will not.
    pub fn sign(self, status: Option<Status>) -> Result<SignedToken, MintRefusal> {
        if status.is_some() != self.has_status() {
            return Err(MintRefusal::StatusIndexUnavailable);
        }
        let Self { claims, grant, key } = self;
        let claims = AccessTokenClaims { status, ..claims };
        let payload = serde_json::to_vec(&claims).map_err(|_| MintRefusal::SigningFailed)?;
        let compact = key.sign(ACCESS_TOKEN_TYPE, &payload).map_err(|_| MintRefusal::SigningFailed)?;
        Ok(SignedToken {
            compact,
            kid: Arc::clone(key.kid()),
            jti: claims.jti,
            issued_at: claims.iat,
            expires_at: claims.exp,
            status: claims.status,
            scope: grant.scope,
            resource: grant.resource,
            rests_on: grant.client,
            assertion: grant.assertion,
        })
    }
}

impl SignedToken {
    /// Names it in the audit log and on the revocation list.
    pub fn jti(&self) -> &str {
        &self.jti
    }

    /// The key it was signed with.
    pub fn kid(&self) -> &str {
        &self.kid
    }

    /// The second it expires in.
    pub const fn expires_at(&self) -> i64 {
        self.expires_at
    }

    /// Where its status is.
    pub const fn status(&self) -> Option<&Status> {
        self.status.as_ref()
    }

    /// What it lets its bearer do …
    pub const fn scope(&self) -> &Scope {
        &self.scope
    }

    /// … and where.
    pub const fn resource(&self) -> &ResourceIndicator {
        &self.resource
    }

    /// The records the decision rests on, and the registry version it was taken under.
    pub const fn rests_on(&self) -> &FoundClient {
        &self.rests_on
    }

    /// The assertion that is used up with it.
    pub const fn assertion(&self) -> Option<&AssertionUse> {
        self.assertion.as_ref()
    }

    /// The token, now that its decision is on record.
    pub fn release(self, _on_record: &Durable) -> AccessToken {
        AccessToken {
            access_token: self.compact,
            // RFC 6749 §5.1: the lifetime in seconds, counted from when the response was generated.
            expires_in: self.expires_at - self.issued_at,
            scope: self.scope,
            jti: self.jti,
        }
    }
}

/// Keys and grants for the tests of every module that needs a token.
#[cfg(test)]
pub(crate) mod fixture;

#[cfg(test)]
mod tests;
