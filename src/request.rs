//! What is asked: the parameters of a token request, typed.
//!
//! Takes name and value pairs as `endpoint/form.rs` read them, gives a [`TokenRequest`]. None may come twice
//! (RFC 6749 §3.2), parameters without value count as omitted, unknown ones are ignored. It knows nothing of HTTP.

use std::fmt;
use std::time::Duration;

use countersign_resource_server::token::jws;

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
        /// Nothing that is served here is among what `Accept` names: 406.
        NotAcceptable => "not_acceptable",
        /// A status list as it was at another time: what was then is not told. 501.
        HistoryNotOffered => "status_history_not_offered",
        /// The body is larger than the limit: 413.
        BodyTooLarge => "body_too_large",
        /// The bodies that one HTTP/2 connection sends at the same time are larger than the limit: 503.
        BodiesTooLarge => "bodies_too_large",
        /// The body did not arrive whole in time.
        BodyIncomplete => "body_incomplete",
        /// An HTTP/1.1 request without `Host`, with two, or with one that is no host (RFC 9112 §3.2).
        HostMalformed => "host_malformed",
        /// A query at an endpoint whose parameters travel in the body (RFC 6749 §2.3.1).
        ParameterInQuery => "parameter_in_query",
        /// A parameter in the query is not what it has to be.
        ParameterMalformed => "parameter_malformed",
        /// The body is not form-encoded UTF-8.
        BodyMalformed => "body_malformed",
        /// More requests from this address than it may make, or more questions with this certificate: 429.
        TooManyRequests { /** Until there is one again. */ retry_after: Duration } => "too_many_requests",
        /// More requests are being decided than the server takes: 503.
        Overloaded => "overloaded",
        /// No such path: 404.
        UnknownPath => "unknown_path",
        /// A parameter came twice (RFC 6749 §3.2).
        ParameterRepeated { /** Its name. */ name: String } => "parameter_repeated",
        /// No `grant_type`.
        GrantTypeMissing => "grant_type_missing",
        /// The `Authorization` header: no client here authenticates by it. 401, with a challenge.
        AuthorizationHeader => "authorization_header",
        /// Neither a `client_id` nor an assertion that names one.
        ClientIdMissing => "client_id_missing",
        /// The `client_id` cannot be one.
        ClientIdMalformed => "client_id_malformed",
        /// A `client_secret`: no client here has one, and what is sent in the clear is no secret any more.
        ClientSecretPresented => "client_secret_presented",
        /// Two ways to authenticate in one request (RFC 6749 §2.3).
        TwoAuthenticationMethods => "two_authentication_methods",
        /// `client_assertion` without `client_assertion_type`, or the other way round, or of another type.
        AssertionTypeMalformed => "assertion_type_malformed",
        /// The assertion is not a compact JWS with a `sub` that could be a client's.
        AssertionMalformed => "assertion_malformed",
        /// `client_id` and the assertion's `sub` name different clients.
        ClientIdContradicted => "client_id_contradicted",
        /// No `token` to revoke or to tell about (RFC 7009 §2.1, RFC 7662 §2.1).
        TokenMissing => "token_missing",
    }
}

impl RequestRefusal {
    /// The protocol's code for it.
    pub const fn code(&self) -> ErrorCode {
        match self {
            Self::MethodNotAllowed
            | Self::UnsupportedMediaType
            | Self::NotAcceptable
            | Self::HistoryNotOffered
            | Self::BodyTooLarge
            | Self::BodyIncomplete
            | Self::BodyMalformed
            | Self::HostMalformed
            | Self::ParameterInQuery
            | Self::ParameterMalformed
            | Self::TooManyRequests { .. }
            | Self::UnknownPath
            | Self::ParameterRepeated { .. }
            | Self::GrantTypeMissing
            | Self::ClientIdMissing
            | Self::ClientIdMalformed
            | Self::ClientSecretPresented
            | Self::TwoAuthenticationMethods
            | Self::AssertionTypeMalformed
            | Self::TokenMissing => ErrorCode::InvalidRequest,
            Self::BodiesTooLarge | Self::Overloaded => ErrorCode::TemporarilyUnavailable,
            // RFC 7521 §4.2.1: an assertion that is not valid, or not this client's, is a failed authentication.
            Self::AssertionMalformed | Self::AuthorizationHeader | Self::ClientIdContradicted => {
                ErrorCode::InvalidClient
            }
        }
    }
}

impl Parameters {
    /// RFC 6749 §3.2: "parameters MUST NOT be included more than once", with or without a value, known or not. Sorted, so
    /// that a body full of names costs no more than sorting them.
    fn none_comes_twice_but(&self, exception: &str) -> Result<(), RequestRefusal> {
        let mut names: Vec<&str> =
            self.0.iter().map(|(name, _)| name.as_str()).filter(|name| *name != exception).collect();
        names.sort_unstable();
        match names.array_windows().find(|[one, next]| one == next) {
            Some([name, _]) => Err(RequestRefusal::ParameterRepeated { name: (*name).to_owned() }),
            None => Ok(()),
        }
    }

    /// RFC 6749 §3.2: sent without a value is omitted.
    fn value(&self, name: &str) -> Option<&str> {
        self.0.iter().find(|(own, value)| own == name && !value.is_empty()).map(|(_, value)| value.as_str())
    }
}

/// What is asked of `/certificate-check`: how the certificate on the connection stands as this client's.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CheckRequest {
    /// Which client.
    pub client_id: ClientId,
}

impl CheckRequest {
    /// Reads the parameters; others than `client_id` are ignored.
    ///
    /// # Errors
    /// [`RequestRefusal`]: a parameter twice, no `client_id`, or one that cannot be one.
    pub fn parse(parameters: &Parameters) -> Result<Self, RequestRefusal> {
        parameters.none_comes_twice_but("")?;
        let client_id = parameters.value("client_id").ok_or(RequestRefusal::ClientIdMissing)?;
        let client_id = ClientId::parse(client_id).map_err(|_| RequestRefusal::ClientIdMalformed)?;
        Ok(Self { client_id })
    }
}

/// A token request, as far as it can be read without knowing the client.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TokenRequest {
    /// As asked; whether it is supported is `policy`'s business.
    pub grant_type: String,
    /// Whose record to ask: the `client_id` parameter, or else the unverified `sub` of the assertion. Found by it, no
    /// more: nothing is proven.
    pub client_id: ClientId,
    /// The `client_assertion`, by its type (RFC 7521 §4.2).
    pub client_assertion: Option<ClientAssertion>,
    /// The `scope` parameter as text: malformed is `invalid_scope`, `policy`'s business.
    pub scope: Option<String>,
    /// Every `resource` parameter (RFC 8707 §2 lets it repeat; more than one is `invalid_target` here).
    pub resources: Vec<String>,
}

/// A client assertion, by its `client_assertion_type`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ClientAssertion {
    /// RFC 7523 §2.2.
    JwtBearer(String),
    /// draft-schwenkschuster-oauth-spiffe-client-auth §3.1: one JWT-SVID.
    JwtSpiffe(String),
}

/// RFC 7523 §2.2.
const JWT_BEARER: &str = "urn:ietf:params:oauth:client-assertion-type:jwt-bearer";

/// draft-schwenkschuster-oauth-spiffe-client-auth §3.1.
pub const JWT_SPIFFE: &str = "urn:ietf:params:oauth:client-assertion-type:jwt-spiffe";

impl TokenRequest {
    /// Reads the parameters of a token request.
    ///
    /// # Errors
    /// [`RequestRefusal`]: a parameter twice, one missing, two authentication methods, an assertion that names nobody.
    pub fn parse(parameters: &Parameters) -> Result<Self, RequestRefusal> {
        let Parameters(pairs) = parameters;
        parameters.none_comes_twice_but("resource")?; // RFC 8707 §2
        let Claimant { client_id, client_assertion } = Claimant::parse(parameters)?;
        let value = |name: &str| parameters.value(name);
        Ok(Self {
            grant_type: value("grant_type").ok_or(RequestRefusal::GrantTypeMissing)?.to_owned(),
            client_id,
            client_assertion,
            scope: value("scope").map(str::to_owned),
            resources: pairs
                .iter()
                .filter(|(name, value)| name == "resource" && !value.is_empty())
                .map(|(_, value)| value.clone())
                .collect(),
        })
    }

    /// Whose record to ask.
    pub const fn client_id(&self) -> &ClientId {
        &self.client_id
    }
}

/// Who says to be asking: to be found by it, no more.
struct Claimant {
    client_id: ClientId,
    client_assertion: Option<ClientAssertion>,
}

impl Claimant {
    fn parse(parameters: &Parameters) -> Result<Self, RequestRefusal> {
        let value = |name: &str| parameters.value(name);
        // RFC 6749 §2.3: at most one authentication method in a request. The certificate on the connection is none by
        // itself: it is there in either case, and the registration says what it counts for.
        if value("client_secret").is_some() {
            return Err(match value("client_assertion").or(value("client_assertion_type")) {
                Some(_) => RequestRefusal::TwoAuthenticationMethods,
                None => RequestRefusal::ClientSecretPresented,
            });
        }
        let client_assertion = match (value("client_assertion"), value("client_assertion_type")) {
            (None, None) => None,
            (Some(assertion), Some(JWT_BEARER)) => Some(ClientAssertion::JwtBearer(assertion.to_owned())),
            (Some(assertion), Some(JWT_SPIFFE)) => Some(ClientAssertion::JwtSpiffe(assertion.to_owned())),
            (Some(_), _) | (None, Some(_)) => return Err(RequestRefusal::AssertionTypeMalformed),
        };
        let stated = value("client_id").map(ClientId::parse).transpose();
        let stated = stated.map_err(|_| RequestRefusal::ClientIdMalformed)?;
        let asserted = match (&client_assertion, &stated) {
            (Some(ClientAssertion::JwtBearer(assertion)), _) => Some(subject_of(assertion)?),
            // Its `sub` is a SPIFFE ID: the client_id only of a client that is registered under it. One that goes by
            // another name says so.
            (Some(ClientAssertion::JwtSpiffe(assertion)), None) => Some(subject_of(assertion)?),
            (Some(ClientAssertion::JwtSpiffe(_)), Some(_)) | (None, _) => None,
        };
        let client_id = match (stated, asserted) {
            // RFC 7521 §4.2: if present, client_id MUST identify the same client as the assertion.
            (Some(stated), Some(asserted)) if stated != asserted => return Err(RequestRefusal::ClientIdContradicted),
            (Some(client_id), _) | (None, Some(client_id)) => client_id,
            (None, None) => return Err(RequestRefusal::ClientIdMissing), // RFC 8705 §2: client_id is required
        };
        Ok(Self { client_id, client_assertion })
    }
}

/// A client that wants a token dead (RFC 7009 §2.1). `token_type_hint` is ignored, whatever it says (§2.2): there is one
/// type of tokens, and it is told by looking.
#[derive(Clone, PartialEq, Eq)]
pub struct RevocationRequest {
    /// Whose record to ask, as in a [`TokenRequest`].
    pub client_id: ClientId,
    /// The `client_assertion`.
    pub client_assertion: Option<ClientAssertion>,
    /// The token, whatever it is.
    pub token: String,
}

/// The token may be good: it is never printed.
impl fmt::Debug for RevocationRequest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RevocationRequest").field("client_id", &self.client_id).finish_non_exhaustive()
    }
}

impl RevocationRequest {
    /// Reads the parameters.
    ///
    /// # Errors
    /// [`RequestRefusal`]: as for a token, or no `token`.
    pub fn parse(parameters: &Parameters) -> Result<Self, RequestRefusal> {
        parameters.none_comes_twice_but("")?; // RFC 6749 §3.2
        let Claimant { client_id, client_assertion } = Claimant::parse(parameters)?;
        let token = parameters.value("token").ok_or(RequestRefusal::TokenMissing)?.to_owned();
        Ok(Self { client_id, client_assertion, token })
    }
}

/// A resource server that asks about a token (RFC 7662 §2.1). Who asks is told by the certificate alone, and
/// `token_type_hint` is ignored.
#[derive(Clone, PartialEq, Eq)]
pub struct IntrospectionRequest {
    /// The token, whatever it is.
    pub token: String,
}

/// The token may be good: it is never printed.
impl fmt::Debug for IntrospectionRequest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("IntrospectionRequest").finish_non_exhaustive()
    }
}

impl IntrospectionRequest {
    /// Reads the parameters.
    ///
    /// # Errors
    /// [`RequestRefusal`]: a parameter twice, or no `token`.
    pub fn parse(parameters: &Parameters) -> Result<Self, RequestRefusal> {
        parameters.none_comes_twice_but("")?;
        Ok(Self { token: parameters.value("token").ok_or(RequestRefusal::TokenMissing)?.to_owned() })
    }
}

/// The `sub` of an assertion, unverified (RFC 7523 §3 item 2.B: the client_id).
fn subject_of(assertion: &str) -> Result<ClientId, RequestRefusal> {
    let claims = jws::peek(assertion).and_then(|unverified| unverified.claims());
    let claims = claims.map_err(|_| RequestRefusal::AssertionMalformed)?;
    let subject = claims.get("sub").and_then(serde_json::Value::as_str).ok_or(RequestRefusal::AssertionMalformed)?;
    ClientId::parse(subject).map_err(|_| RequestRefusal::AssertionMalformed)
}

#[cfg(test)]
mod tests {
    use countersign_conformance::forge::{Members, Signature, compact};
    use proptest::prelude::*;

    use super::*;

    fn parse(pairs: &[(&str, &str)]) -> Result<TokenRequest, RequestRefusal> {
        TokenRequest::parse(&Parameters(
            pairs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect(),
        ))
    }

    fn assertion(subject: impl Into<serde_json::Value>) -> String {
        compact(r#"{"alg":"ES256"}"#, Members::new().with("sub", subject).to_json(), Signature::Octets(&[0; 64]))
    }

    const GRANT: (&str, &str) = ("grant_type", "client_credentials");
    const CLIENT: (&str, &str) = ("client_id", "client");
    const BEARER: (&str, &str) = ("client_assertion_type", JWT_BEARER);

    #[test]
    fn everything_there_is() {
        let request = parse(&[
            GRANT,
            CLIENT,
            ("scope", "a b"),
            ("resource", "https://one.example"),
            ("resource", "https://two.example"),
            ("unknown", "x"),
        ]);
        let request = request.unwrap();
        assert_eq!(request.grant_type, "client_credentials");
        assert_eq!(request.client_id().as_str(), "client");
        assert_eq!(request.scope.as_deref(), Some("a b"));
        assert_eq!(request.resources, ["https://one.example", "https://two.example"]);
        assert_eq!(request.client_assertion, None);
    }

    #[test]
    fn nothing_comes_twice() {
        for name in ["grant_type", "client_id", "scope", "client_assertion", "unknown"] {
            for values in [["x", "x"], ["x", "y"], ["x", ""], ["", ""]] {
                let pairs = [GRANT, CLIENT, (name, values[0]), ("between", "1"), (name, values[1])];
                assert_eq!(
                    parse(&pairs),
                    Err(RequestRefusal::ParameterRepeated { name: name.to_owned() }),
                    "{name} {values:?}"
                );
            }
        }
    }

    #[test]
    fn without_value_is_omitted() {
        let request = parse(&[GRANT, CLIENT, ("scope", ""), ("resource", ""), ("client_assertion", "")]).unwrap();
        assert_eq!((request.scope, request.resources.len(), request.client_assertion), (None, 0, None));
        assert_eq!(parse(&[("grant_type", ""), CLIENT]), Err(RequestRefusal::GrantTypeMissing));
        assert_eq!(parse(&[GRANT, ("client_id", "")]), Err(RequestRefusal::ClientIdMissing));
        assert_eq!(parse(&[CLIENT]), Err(RequestRefusal::GrantTypeMissing));
        assert_eq!(parse(&[GRANT]), Err(RequestRefusal::ClientIdMissing));
    }

    #[test]
    fn names_are_compared_with_case() {
        assert_eq!(parse(&[("Grant_Type", "client_credentials"), CLIENT]), Err(RequestRefusal::GrantTypeMissing));
    }

    #[test]
    fn a_client_id_that_cannot_be_one() {
        for wrong in ["a b", "é", "a\0", &"x".repeat(129)] {
            assert_eq!(parse(&[GRANT, ("client_id", wrong)]), Err(RequestRefusal::ClientIdMalformed), "{wrong:?}");
        }
    }

    #[test]
    fn a_secret_is_never_a_method_here() {
        let secret = ("client_secret", "x");
        assert_eq!(parse(&[GRANT, CLIENT, secret]), Err(RequestRefusal::ClientSecretPresented));
        let assertion = assertion("client");
        assert_eq!(
            parse(&[GRANT, secret, BEARER, ("client_assertion", &assertion)]),
            Err(RequestRefusal::TwoAuthenticationMethods)
        );
        assert!(parse(&[GRANT, CLIENT, ("client_secret", "")]).is_ok());
    }

    #[test]
    fn an_assertion_with_the_one_type() {
        let assertion = assertion("client");
        let pair = ("client_assertion", assertion.as_str());
        assert_eq!(parse(&[GRANT, BEARER, pair]).unwrap().client_id().as_str(), "client");
        let given = parse(&[GRANT, CLIENT, BEARER, pair]).unwrap().client_assertion;
        assert_eq!(given, Some(ClientAssertion::JwtBearer(pair.1.to_owned())));
        assert_eq!(parse(&[GRANT, ("client_id", "other"), BEARER, pair]), Err(RequestRefusal::ClientIdContradicted));
        assert_eq!(parse(&[GRANT, CLIENT, pair]), Err(RequestRefusal::AssertionTypeMalformed));
        assert_eq!(parse(&[GRANT, CLIENT, BEARER]), Err(RequestRefusal::AssertionTypeMalformed));
        for wrong in [
            "urn:ietf:params:oauth:client-assertion-type:saml2-bearer",
            "urn:ietf:params:oauth:client-assertion-type:JWT-bearer",
            "jwt-bearer",
        ] {
            assert_eq!(
                parse(&[GRANT, CLIENT, ("client_assertion_type", wrong), pair]),
                Err(RequestRefusal::AssertionTypeMalformed)
            );
        }
    }

    #[test]
    fn a_jwt_svid_names_its_client_where_nothing_else_does() {
        let spiffe = ("client_assertion_type", JWT_SPIFFE);
        let assertion = assertion("spiffe://a.example/client");
        let pair = ("client_assertion", assertion.as_str());
        let given = Some(ClientAssertion::JwtSpiffe(assertion.clone()));
        let by_subject = parse(&[GRANT, spiffe, pair]).unwrap();
        assert_eq!(by_subject.client_id().as_str(), "spiffe://a.example/client");
        assert_eq!(by_subject.client_assertion, given);
        let by_id = parse(&[GRANT, CLIENT, spiffe, pair]).unwrap();
        assert_eq!((by_id.client_id().as_str(), &by_id.client_assertion), ("client", &given));
        assert_eq!(parse(&[GRANT, CLIENT, spiffe]), Err(RequestRefusal::AssertionTypeMalformed));
        assert_eq!(parse(&[GRANT, spiffe, ("client_assertion", "x")]), Err(RequestRefusal::AssertionMalformed));
        // What cannot be read is the client's matter once it is known which.
        assert!(parse(&[GRANT, CLIENT, spiffe, ("client_assertion", "x")]).is_ok());
    }

    #[test]
    fn an_assertion_that_names_nobody() {
        let no_subject = compact(r#"{"alg":"ES256"}"#, "{}", Signature::Octets(&[0; 64]));
        let twice = compact(r#"{"alg":"ES256"}"#, r#"{"sub":"client","sub":"other"}"#, Signature::Octets(&[0; 64]));
        for wrong in [
            no_subject,
            twice,
            assertion(7),
            assertion("a b"),
            assertion(""),
            "x".to_owned(),
            "a.b".to_owned(),
            "....".to_owned(),
        ] {
            assert_eq!(
                parse(&[GRANT, BEARER, ("client_assertion", &wrong)]),
                Err(RequestRefusal::AssertionMalformed),
                "{wrong}"
            );
        }
    }

    proptest! {
        #[test]
        fn never_panics_and_never_takes_a_repetition(
            pairs in proptest::collection::vec(("[a-c]{0,2}|grant_type|client_id|resource", ".{0,4}"), 0..8)
        ) {
            let parsed = TokenRequest::parse(&Parameters(pairs.clone()));
            let mut names: Vec<_> = pairs.iter().map(|(name, _)| name).filter(|name| *name != "resource").collect();
            names.sort();
            let before = names.len();
            names.dedup();
            let is_repetition = matches!(parsed, Err(RequestRefusal::ParameterRepeated { .. }));
            prop_assert_eq!(is_repetition, names.len() < before);
        }
    }
}
