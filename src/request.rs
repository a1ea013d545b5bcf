//! What is asked: the parameters of a token request, typed.
//!
//! Takes name and value pairs as `endpoint/form.rs` read them, gives a [`TokenRequest`]. None may come twice
//! (RFC 6749 §3.2), parameters without value count as omitted, unknown ones are ignored. It knows nothing of HTTP.

use crate::error::{ErrorCode, refusals};
use crate::registry::ClientId;

/// Name and value pairs in the order they came, decoded. Values may be empty.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Parameters(pub Vec<(String, String)>);

refusals! {
    /// Why a request cannot be read. The first few come from the endpoint, before there are parameters.
    pub enum RequestRefusal at "request" {
        /// The path exists, the method does not: 405.
        MethodNotAllowed => "method_not_allowed",
        /// The body is not `application/x-www-form-urlencoded`: 415.
        UnsupportedMediaType => "unsupported_media_type",
        /// The body is larger than the limit: 413.
        BodyTooLarge => "body_too_large",
        /// The body did not arrive whole in time.
        BodyIncomplete => "body_incomplete",
        /// The body is not form-encoded UTF-8.
        BodyMalformed => "body_malformed",
        /// Too many requests from this address or client: 429.
        TooManyRequests => "too_many_requests",
        /// No such path: 404.
        UnknownPath => "unknown_path",
        /// A parameter came twice (RFC 6749 §3.2).
        ParameterRepeated { /** Its name. */ name: String } => "parameter_repeated",
        /// No `grant_type`.
        GrantTypeMissing => "grant_type_missing",
        /// Neither a `client_id` nor an assertion that names one.
        ClientIdMissing => "client_id_missing",
        /// The `client_id` cannot be one.
        ClientIdMalformed => "client_id_malformed",
        /// Two ways to authenticate in one request (RFC 6749 §2.3).
        TwoAuthenticationMethods => "two_authentication_methods",
        /// `client_assertion` without `client_assertion_type`, or the other way round, or of another type.
        AssertionTypeMalformed => "assertion_type_malformed",
        /// The assertion is not a compact JWS with a `sub`.
        AssertionMalformed => "assertion_malformed",
    }
}

impl RequestRefusal {
    /// The protocol's code for it.
    pub const fn code(&self) -> ErrorCode {
        match self {
            Self::MethodNotAllowed
            | Self::UnsupportedMediaType
            | Self::BodyTooLarge
            | Self::BodyIncomplete
            | Self::BodyMalformed
            | Self::TooManyRequests
            | Self::UnknownPath
            | Self::ParameterRepeated { .. }
            | Self::GrantTypeMissing
            | Self::ClientIdMissing
            | Self::ClientIdMalformed
            | Self::TwoAuthenticationMethods
            | Self::AssertionTypeMalformed => ErrorCode::InvalidRequest,
            // RFC 7521 §4.2.1: an assertion that is not valid is a failed authentication.
            Self::AssertionMalformed => ErrorCode::InvalidClient,
        }
    }
}

/// A token request, as far as it can be read without knowing the client.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TokenRequest {
    /// As asked; whether it is supported is `policy`'s business.
    pub grant_type: String,
    /// The `client_id` parameter.
    pub client_id: Option<ClientId>,
    /// The `client_assertion`, with the right type (RFC 7523 §2.2).
    pub client_assertion: Option<String>,
    /// The `scope` parameter as text: malformed is `invalid_scope`, `policy`'s business.
    pub scope: Option<String>,
    /// Every `resource` parameter (RFC 8707 §2 lets it repeat; more than one is `invalid_target` here).
    pub resources: Vec<String>,
}
