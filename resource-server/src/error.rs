//! Why a call is refused, and what the caller is told (RFC 6750 §3).
//!
//! Takes a stage's refusal, gives its stable short reason (for logs, metrics and tests) and an [`Answer`]: status,
//! challenge and body. One text per code goes on the wire; which check failed is told to no stranger. It knows nothing
//! of HTTP libraries.

use crate::scope::Scope;
use crate::status::MarkKind;

/// Declares a stage's enum of refusals: each variant with its stable short reason, unique across all stages.
///
/// Gives the enum `STAGE`, `ALL`, `REASONS` (every reason, in order), `MEANINGS` (their sentences: the doc comments) and
/// `reason()`.
macro_rules! refusals {
    (
        $(#[$meta:meta])*
        pub enum $name:ident at $stage:literal {
            $( $(#[doc = $meaning:literal])* $variant:ident => $reason:literal ),* $(,)?
        }
    ) => {
        $(#[$meta])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub enum $name {
            $( $(#[doc = $meaning])* $variant ),*
        }

        impl $name {
            /// The stage of the path that refuses so.
            pub const STAGE: &'static str = $stage;

            /// Every one of them.
            pub const ALL: &'static [Self] = &[$(Self::$variant),*];

            /// Every short reason of this stage.
            pub const REASONS: &'static [&'static str] = &[$($reason),*];

            /// What each of them means, in the same order.
            pub const MEANINGS: &'static [&'static str] = &[$(concat!($($meaning),*)),*];

            /// The stable short reason: the same in logs, metrics and tests.
            pub const fn reason(self) -> &'static str {
                match self {
                    $( Self::$variant => $reason ),*
                }
            }
        }
    };
}

refusals! {
    /// Why no token was taken from the request.
    pub enum BearerRefusal at "bearer" {
        /// The token is in the query string (RFC 6750 §2.3), where logs and histories keep it.
        InQuery => "bearer_in_query",
        /// The `Authorization` header is not `Bearer` and a token by the grammar of RFC 6750 §2.1.
        Malformed => "bearer_malformed",
        /// No `Authorization` header.
        Missing => "bearer_missing",
        /// An `Authorization` header of another scheme.
        OtherScheme => "bearer_other_scheme",
        /// More than one `Authorization` header.
        Repeated => "bearer_repeated",
    }
}

refusals! {
    /// Why the certificate of the connection is not good now.
    pub enum PeerRefusal at "peer" {
        /// It is past its `notAfter`.
        Expired => "connection_certificate_expired",
        /// The connection has none.
        NoCertificate => "connection_no_certificate",
        /// It is before its `notBefore`.
        NotYetValid => "connection_certificate_not_yet_valid",
    }
}

refusals! {
    /// Why a token is not one of ours, not for us, or not good now (RFC 9068 §4).
    pub enum TokenRefusal at "token" {
        /// Signed with an algorithm that is not allowed here.
        Algorithm => "token_algorithm",
        /// For another resource server, or for several.
        Audience => "token_audience",
        /// A claim is missing or of the wrong type, or the claims are no JSON object with every member named once.
        Claims => "token_claims",
        /// `cnf` has a member that is not known, or a thumbprint that is none.
        ConfirmationMalformed => "token_cnf_malformed",
        /// No `cnf`: the token is bound to nobody.
        ConfirmationMissing => "token_cnf_missing",
        /// `crit` or `b64`: no extension is understood here.
        Critical => "token_critical",
        /// At or past its `exp`.
        Expired => "token_expired",
        /// The header cannot be read, or names a member twice.
        Header => "token_header",
        /// `iat` lies in the future.
        IssuedInFuture => "token_issued_in_future",
        /// Issued by somebody else.
        Issuer => "token_issuer",
        /// The key named is not one for the algorithm named.
        KeyMismatch => "token_key_mismatch",
        /// The header names no key.
        KidMissing => "token_kid_missing",
        /// The key named is not among the authorization server's.
        KidUnknown => "token_kid_unknown",
        /// The authorization server's keys have not been fetched yet.
        KeysNotHeld => "token_keys_not_held",
        /// Not a compact JWS, or too long.
        Malformed => "token_malformed",
        /// Before its `nbf`.
        NotYetValid => "token_not_yet_valid",
        /// The signature does not hold.
        Signature => "token_signature",
        /// Signed by the authorization server, but no access token.
        Type => "token_type",
    }
}

refusals! {
    /// Why a token is not this caller's.
    pub enum ConfirmationRefusal at "confirmation" {
        /// It is bound to another certificate (RFC 8705 §3).
        Mismatch => "confirmation_mismatch",
    }
}

refusals! {
    /// Why a token that was good is not good any more, or why nobody can say.
    pub enum StatusRefusal at "status" {
        /// The revocation list held is older than the limit, and the authorization server, which was asked, says that the token
        /// is not active.
        IntrospectionInactive => "introspection_inactive",
        /// The revocation list held is older than the limit, and the authorization server, which was asked, told of another
        /// token.
        IntrospectionOfAnotherToken => "introspection_of_another_token",
        /// The revocation list held is older than the limit, and the authorization server was not to be asked, or gave no
        /// answer.
        IntrospectionUnavailable => "introspection_unavailable",
        /// No revocation list has been taken yet.
        ListNotHeld => "revocation_list_not_held",
        /// The revocation list held is older than the limit, and the latest ones were signed at another time than this
        /// machine's: one of the two clocks is wrong, or somebody sends an old copy.
        ListOfAnotherTime => "revocation_list_of_another_time",
        /// The revocation list held is older than the limit.
        ListStale => "revocation_list_stale",
        /// The trust anchor was withdrawn.
        RevokedAnchor => "revoked_anchor",
        /// The certificate was revoked.
        RevokedCertificate => "revoked_certificate",
        /// The client was suspended or retired.
        RevokedClient => "revoked_client",
        /// The client's entitlement to this resource server ended.
        RevokedEntitlement => "revoked_entitlement",
        /// The authorization server's registry was restored since, and this token is of before.
        RevokedIssuer => "revoked_issuer",
        /// This very token was revoked.
        RevokedJti => "revoked_jti",
        /// The certificate's key was revoked.
        RevokedKey => "revoked_key",
        /// The participant was suspended or withdrew.
        RevokedParticipant => "revoked_participant",
        /// This resource server was retired.
        RevokedResourceServer => "revoked_resource_server",
        /// The key that signed the token was withdrawn.
        RevokedSigningKey => "revoked_signing_key",
    }
}

refusals! {
    /// Why a good token does not suffice here.
    pub enum ScopeRefusal at "scope" {
        /// It lacks a scope token that this route needs.
        Insufficient => "insufficient_scope",
    }
}

impl StatusRefusal {
    /// The refusal of a token that a mark of this kind concerns.
    pub const fn revoked(kind: MarkKind) -> Self {
        match kind {
            MarkKind::Anchor => Self::RevokedAnchor,
            MarkKind::Certificate => Self::RevokedCertificate,
            MarkKind::Client => Self::RevokedClient,
            MarkKind::Entitlement => Self::RevokedEntitlement,
            MarkKind::Issuer => Self::RevokedIssuer,
            MarkKind::Jti => Self::RevokedJti,
            MarkKind::Key => Self::RevokedKey,
            MarkKind::Participant => Self::RevokedParticipant,
            MarkKind::ResourceServer => Self::RevokedResourceServer,
            MarkKind::SigningKey => Self::RevokedSigningKey,
        }
    }
}

/// Why a call is refused: one variant per stage of the path.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{}", self.reason())]
pub enum Refusal {
    /// No token could be taken from the request.
    Bearer(BearerRefusal),
    /// The certificate is not good now.
    Peer(PeerRefusal),
    /// The token is not good now.
    Token(TokenRefusal),
    /// The token is another certificate's.
    Confirmation(ConfirmationRefusal),
    /// The token was revoked.
    Status(StatusRefusal),
    /// The token does not suffice.
    Scope(ScopeRefusal),
}

impl Refusal {
    /// The stable short reason.
    pub const fn reason(self) -> &'static str {
        match self {
            Self::Bearer(refusal) => refusal.reason(),
            Self::Peer(refusal) => refusal.reason(),
            Self::Token(refusal) => refusal.reason(),
            Self::Confirmation(refusal) => refusal.reason(),
            Self::Status(refusal) => refusal.reason(),
            Self::Scope(refusal) => refusal.reason(),
        }
    }

    /// The stage that refused.
    pub const fn stage(self) -> &'static str {
        match self {
            Self::Bearer(_) => BearerRefusal::STAGE,
            Self::Peer(_) => PeerRefusal::STAGE,
            Self::Token(_) => TokenRefusal::STAGE,
            Self::Confirmation(_) => ConfirmationRefusal::STAGE,
            Self::Status(_) => StatusRefusal::STAGE,
            Self::Scope(_) => ScopeRefusal::STAGE,
        }
    }

    /// The protocol's code for it.
    pub const fn code(self) -> ErrorCode {
        match self {
            // RFC 6750 §3: a request without a token, or with an unsupported scheme, is told no error at all.
            Self::Bearer(BearerRefusal::Missing | BearerRefusal::OtherScheme) => ErrorCode::TokenNeeded,
            // RFC 6750 §3.1: more than one method, or otherwise malformed.
            Self::Bearer(BearerRefusal::InQuery | BearerRefusal::Malformed | BearerRefusal::Repeated) => {
                ErrorCode::InvalidRequest
            }
            // Nothing is wrong with the token as far as anybody can say: it is this side that cannot judge it.
            Self::Token(TokenRefusal::KeysNotHeld)
            | Self::Status(
                StatusRefusal::IntrospectionOfAnotherToken
                | StatusRefusal::IntrospectionUnavailable
                | StatusRefusal::ListNotHeld
                | StatusRefusal::ListOfAnotherTime
                | StatusRefusal::ListStale,
            ) => ErrorCode::TemporarilyUnavailable,
            // RFC 8705 §3: a certificate that does not match is invalid_token, 401.
            Self::Peer(_) | Self::Token(_) | Self::Confirmation(_) | Self::Status(_) => ErrorCode::InvalidToken,
            Self::Scope(ScopeRefusal::Insufficient) => ErrorCode::InsufficientScope,
        }
    }

    /// What the caller is told. `resource_metadata` is the address of this resource's metadata, `required` the scope of
    /// the route.
    pub fn answer(self, resource_metadata: &str, required: &Scope) -> Answer {
        let code = self.code();
        let mut parameters = Vec::new();
        if let (Some(error), Some(description)) = (code.as_str(), code.description())
            && code != ErrorCode::TemporarilyUnavailable
        {
            parameters.push(format!(r#"error="{error}""#));
            parameters.push(format!(r#"error_description="{description}""#));
        }
        // RFC 6750 §3.1: the scope necessary to access the resource. Its grammar has neither `"` nor `\`.
        if code == ErrorCode::InsufficientScope && !required.is_empty() {
            parameters.push(format!(r#"scope="{required}""#));
        }
        parameters.push(format!(r#"resource_metadata="{resource_metadata}""#)); // RFC 9728 §5.1
        let body = match (code.as_str(), code.description()) {
            (Some(error), Some(description)) => {
                format!(r#"{{"error":"{error}","error_description":"{description}"}}"#)
            }
            _ => "{}".to_owned(),
        };
        Answer {
            status: code.status(),
            // RFC 6750 §3: with every refusal for want of a good token. A server that cannot judge asks for no other.
            www_authenticate: (code != ErrorCode::TemporarilyUnavailable)
                .then(|| format!("Bearer {}", parameters.join(", "))),
            retry_after_seconds: (code == ErrorCode::TemporarilyUnavailable).then_some(RETRY_AFTER_SECONDS),
            body,
        }
    }
}

macro_rules! from_stage {
    ($($stage:ident($refusal:ident)),* $(,)?) => {
        $(impl From<$refusal> for Refusal {
            fn from(refusal: $refusal) -> Self {
                Self::$stage(refusal)
            }
        })*
    };
}
from_stage!(
    Bearer(BearerRefusal),
    Peer(PeerRefusal),
    Token(TokenRefusal),
    Confirmation(ConfirmationRefusal),
    Status(StatusRefusal),
    Scope(ScopeRefusal),
);

/// The error codes of RFC 6750 §3.1, the case that has none, and one borrowed from RFC 6749 §4.1.2.1.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ErrorCode {
    /// `insufficient_scope`
    InsufficientScope,
    /// `invalid_request`
    InvalidRequest,
    /// `invalid_token`
    InvalidToken,
    /// `temporarily_unavailable`: this side cannot judge the token just now.
    TemporarilyUnavailable,
    /// No token came, so no error is told.
    TokenNeeded,
}

impl ErrorCode {
    /// The code on the wire.
    pub const fn as_str(self) -> Option<&'static str> {
        match self {
            Self::InsufficientScope => Some("insufficient_scope"),
            Self::InvalidRequest => Some("invalid_request"),
            Self::InvalidToken => Some("invalid_token"),
            Self::TemporarilyUnavailable => Some("temporarily_unavailable"),
            Self::TokenNeeded => None,
        }
    }

    /// The `error_description`: one fixed ASCII sentence per code, without `"` or `\` (RFC 6750 §3).
    pub const fn description(self) -> Option<&'static str> {
        match self {
            Self::InsufficientScope => Some("The access token does not carry the scope this needs."),
            Self::InvalidRequest => Some("Send one access token, in the Authorization header, as Bearer."),
            Self::InvalidToken => Some("The access token is not good for this call, on this connection, now."),
            Self::TemporarilyUnavailable => Some("Access tokens cannot be judged just now. Try again."),
            Self::TokenNeeded => None,
        }
    }

    /// The status code (RFC 6750 §3.1).
    pub const fn status(self) -> u16 {
        match self {
            Self::InvalidRequest => 400,
            Self::InvalidToken | Self::TokenNeeded => 401,
            Self::InsufficientScope => 403,
            Self::TemporarilyUnavailable => 503,
        }
    }
}

/// What the caller is told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answer {
    /// The status code.
    pub status: u16,
    /// The value of `WWW-Authenticate`, if there is one.
    pub www_authenticate: Option<String>,
    /// The value of `Retry-After`, if there is one.
    pub retry_after_seconds: Option<u32>,
    /// The body, JSON.
    pub body: String,
}

const RETRY_AFTER_SECONDS: u32 = 1;

#[cfg(test)]
mod tests {
    use std::collections::HashSet;
    use std::fmt::Write;

    use super::*;

    const METADATA: &str = "https://api.example/.well-known/oauth-protected-resource";

    const PUBLISHED: &str = include_str!("../../docs/refusals.md");

    /// Every refusal there is with what it means, in the order of the path.
    fn every_refusal() -> Vec<(Refusal, &'static str)> {
        macro_rules! stages {
            ($($stage:ident),*) => {
                [$($stage::ALL.iter().map(|&one| Refusal::from(one)).zip($stage::MEANINGS.iter().copied()).collect()),*]
            };
        }
        let stages: [Vec<_>; 6] =
            stages!(BearerRefusal, PeerRefusal, TokenRefusal, ConfirmationRefusal, StatusRefusal, ScopeRefusal);
        stages.concat()
    }

    #[test]
    fn reasons_are_unique() {
        let all = every_refusal();
        let reasons: HashSet<_> = all.iter().map(|(refusal, _)| refusal.reason()).collect();
        assert_eq!(reasons.len(), all.len());
        assert!(reasons.iter().all(|reason| reason.bytes().all(|byte| byte.is_ascii_lowercase() || byte == b'_')));
    }

    #[test]
    fn the_published_table_is_this_one() {
        let mut expected =
            String::from("| stage | reason | code | status | meaning |\n| --- | --- | --- | --- | --- |\n");
        for (refusal, meaning) in every_refusal() {
            let (stage, reason, code) = (refusal.stage(), refusal.reason(), refusal.code());
            let named = code.as_str().map(|code| format!("`{code}`")).unwrap_or_default();
            writeln!(expected, "| {stage} | `{reason}` | {named} | {} | {} |", code.status(), meaning.trim()).unwrap();
        }
        assert!(PUBLISHED.contains(&expected), "docs/refusals.md lacks this table:\n{expected}");
    }

    #[test]
    fn descriptions_keep_to_the_grammar() {
        // RFC 6750 §3: %x20-21 / %x23-5B / %x5D-7E
        for code in [
            ErrorCode::InsufficientScope,
            ErrorCode::InvalidRequest,
            ErrorCode::InvalidToken,
            ErrorCode::TemporarilyUnavailable,
        ] {
            let text = code.description().unwrap();
            assert!(text.bytes().all(|byte| matches!(byte, 0x20 | 0x21 | 0x23..=0x5B | 0x5D..=0x7E)), "{text}");
        }
    }

    #[test]
    fn no_token_no_error() {
        for refusal in [BearerRefusal::Missing, BearerRefusal::OtherScheme] {
            let answer = Refusal::from(refusal).answer(METADATA, &Scope::default());
            assert_eq!(answer.status, 401);
            assert_eq!(answer.www_authenticate.unwrap(), format!("Bearer resource_metadata=\"{METADATA}\""));
            assert_eq!(answer.body, "{}");
        }
    }

    #[test]
    fn a_bad_token_is_told_nothing_but_the_code() {
        let expected = Refusal::from(TokenRefusal::Expired).answer(METADATA, &Scope::default());
        assert_eq!(expected.status, 401);
        assert!(expected.www_authenticate.as_deref().unwrap().starts_with(r#"Bearer error="invalid_token", "#));
        for refusal in [
            Refusal::from(TokenRefusal::Signature),
            Refusal::from(ConfirmationRefusal::Mismatch),
            Refusal::from(StatusRefusal::RevokedClient),
            Refusal::from(StatusRefusal::IntrospectionInactive),
            Refusal::from(PeerRefusal::NoCertificate),
        ] {
            assert_eq!(refusal.answer(METADATA, &Scope::default()), expected, "{refusal}");
        }
    }

    #[test]
    fn insufficient_scope_says_which() {
        let answer = Refusal::from(ScopeRefusal::Insufficient).answer(METADATA, &Scope::parse("a:b c").unwrap());
        assert_eq!(answer.status, 403);
        assert!(answer.www_authenticate.unwrap().contains(r#"scope="a:b c""#));
    }

    #[test]
    fn what_this_side_cannot_judge_is_not_the_tokens_fault() {
        for refusal in [
            Refusal::from(StatusRefusal::IntrospectionOfAnotherToken),
            Refusal::from(StatusRefusal::IntrospectionUnavailable),
            Refusal::from(StatusRefusal::ListOfAnotherTime),
            Refusal::from(StatusRefusal::ListStale),
            Refusal::from(StatusRefusal::ListNotHeld),
            Refusal::from(TokenRefusal::KeysNotHeld),
        ] {
            let answer = refusal.answer(METADATA, &Scope::default());
            assert_eq!((answer.status, answer.www_authenticate, answer.retry_after_seconds), (503, None, Some(1)));
        }
    }
}
