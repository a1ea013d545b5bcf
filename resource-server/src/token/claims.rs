//! What a bound access token says (RFC 9068 §2.2, RFC 8705 §3.1).
//!
//! The authorization server fills [`AccessTokenClaims`] and the resource server reads it: one type, so that writer and
//! reader cannot drift. It decides nothing.

use serde::{Deserialize, Serialize};

use crate::confirmation::Confirmation;
use crate::scope::Scope;

/// The `typ` of an access token's header (RFC 9068 §2.1). On reading, `application/at+jwt` is the same.
pub const ACCESS_TOKEN_TYPE: &str = "at+jwt";

/// The claims of an access token. Dates are `NumericDate`s: whole seconds since 1970 (RFC 7519 §2).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct AccessTokenClaims {
    /// The authorization server's issuer identifier.
    pub iss: String,
    /// The client: with `client_credentials` the subject is the client itself (RFC 9068 §2.2).
    pub sub: String,
    /// The resource server the token is for: one, as a string.
    pub aud: String,
    /// The token is good before this second.
    pub exp: i64,
    /// The second it was issued in.
    pub iat: i64,
    /// Names this token in the audit log and on the revocation list.
    pub jti: String,
    /// The client (RFC 8693 §4.3).
    pub client_id: String,
    /// What it may do there.
    pub scope: Scope,
    /// The certificate it is bound to.
    pub cnf: Confirmation,
    /// The organisation the client belongs to.
    pub participant_id: String,
    /// That organisation's roles.
    pub roles: Vec<String>,
    /// `sandbox` or `production`.
    pub environment: String,
    /// The trust anchor that vouched for the certificate; absent where the certificate itself is registered.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub anchor: Option<String>,
    /// The registry version the decision was taken under: revocation marks compare with it.
    pub registry_version: i64,
    /// Where its status can be read as well, if its resource server asked for that.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub status: Option<Status>,
}

/// How the status of a token can be learned (draft-ietf-oauth-status-list-20 §6.1).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Status {
    /// In a Token Status List.
    pub status_list: StatusReference,
}

/// A place in a Token Status List (draft-ietf-oauth-status-list-20 §6.2).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct StatusReference {
    /// The index of this token's status.
    pub idx: u64,
    /// The list, and where it is.
    pub uri: String,
}
