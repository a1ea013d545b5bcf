//! Bodies, status codes, no-store: the one place that turns an answer into HTTP.
//!
//! Takes what was decided, gives responses by the table of design §8. Every failure is the JSON of RFC 6749 §5.2 with
//! the fixed sentence of its code: why something was refused is told to the audit log alone.

use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use axum::http::header::{
    CACHE_CONTROL, CONTENT_TYPE, ETAG, IF_NONE_MATCH, PRAGMA, RETRY_AFTER, VARY, WWW_AUTHENTICATE,
};
use axum::http::{HeaderMap, HeaderName, HeaderValue, Response, StatusCode};
use bytes::Bytes;
use serde::Serialize;

use super::preference::accepts_gzip;
use crate::audit::RequestId;
use crate::error::{ErrorCode, Refusal};
use crate::mint::AccessToken;
use crate::request::RequestRefusal;
use crate::revocation::RevocationRefusal;

const JSON: HeaderValue = HeaderValue::from_static("application/json");
const NO_STORE: HeaderValue = HeaderValue::from_static("no-store");
const NO_CACHE: HeaderValue = HeaderValue::from_static("no-cache");
const X_REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");

/// A token, by RFC 6749 §5.1.
pub(super) fn token(token: &AccessToken) -> Response<Body> {
    // None of the three values can hold a character that JSON escapes: base64url and dots, digits, and the scope grammar
    // of RFC 6749 §3.3, which leaves out `"` and `\`.
    let body = format!(
        r#"{{"access_token":"{}","token_type":"Bearer","expires_in":{},"scope":"{}"}}"#,
        token.access_token, token.expires_in, token.scope
    );
    never_stored(StatusCode::OK, JSON, body.into())
}

/// The token is dead, or was none (RFC 7009 §2.2): all that is to be said is in the status.
pub(super) fn revoked() -> Response<Body> {
    let mut response = never_stored(StatusCode::OK, JSON, Body::empty());
    response.headers_mut().remove(CONTENT_TYPE);
    response
}

/// A refusal.
pub(super) fn refusal(refusal: &Refusal) -> Response<Body> {
    let mut response = error(status_of(refusal), refusal.code());
    if let Some(wait) = retry_after(refusal) {
        // RFC 9110 §10.2.3: whole seconds; never earlier than that.
        let seconds = wait.as_secs() + u64::from(wait.subsec_nanos() > 0);
        response.headers_mut().insert(RETRY_AFTER, HeaderValue::from(seconds.max(1)));
    }
    response
}

/// When to come again, where that is known.
const fn retry_after(refusal: &Refusal) -> Option<Duration> {
    match refusal {
        Refusal::Request(RequestRefusal::TooManyRequests { retry_after }) => Some(*retry_after),
        Refusal::Rate(refusal) => Some(refusal.retry_after()),
        // Until some of those that were revoked have expired.
        Refusal::Revocation(RevocationRefusal::LimitReached) => Some(Duration::from_secs(60)),
        _ => None,
    }
}

/// A refusal of a client that used the `Authorization` header under this scheme: 401 with a challenge that matches it
/// (RFC 6749 §5.2, RFC 9110 §11.6.1). Nothing is accepted there; the answer says which error, not which way is open.
pub(super) fn challenge(scheme: &str) -> Response<Body> {
    let known = ["Basic", "Bearer", "DPoP", "Digest", "Negotiate"];
    let scheme = known.into_iter().find(|known| known.eq_ignore_ascii_case(scheme)).unwrap_or("Basic");
    let mut response = error(StatusCode::UNAUTHORIZED, ErrorCode::InvalidClient);
    if let Ok(challenge) = HeaderValue::try_from(format!("{scheme} realm=\"countersign\"")) {
        response.headers_mut().insert(WWW_AUTHENTICATE, challenge);
    }
    response
}

/// An answer about one request that is not a token.
pub(super) fn told(status: StatusCode, body: &impl Serialize) -> Response<Body> {
    match serde_json::to_vec(body) {
        Ok(body) => never_stored(status, JSON, body.into()),
        Err(_) => failure(), // strings, numbers and structs of them always have a JSON form
    }
}

/// An answer about a token, signed (RFC 9701 §5).
pub(super) fn signed_introspection(compact: String) -> Response<Body> {
    const TYPE: HeaderValue = HeaderValue::from_static("application/token-introspection+jwt");
    never_stored(StatusCode::OK, TYPE, compact.into())
}

/// An answer that could not be decided: this side failed.
pub(super) fn failure() -> Response<Body> {
    error(StatusCode::INTERNAL_SERVER_ERROR, ErrorCode::ServerError)
}

/// The same response under its request's id.
pub(super) fn with_request_id(mut response: Response<Body>, id: &RequestId) -> Response<Body> {
    if let Ok(id) = HeaderValue::from_str(id.as_str()) {
        response.headers_mut().insert(X_REQUEST_ID, id);
    }
    response
}

/// A public document, by the `ETag` it is known under (RFC 9110 §13.1.2): whole, or 304 if the asker holds this very one.
pub(super) fn document(asked: &HeaderMap, document: &Document) -> Response<Body> {
    let held = asked
        .get_all(IF_NONE_MATCH)
        .iter()
        .flat_map(|tags| tags.as_bytes().split(|&byte| byte == b','))
        .map(|tag| tag.trim_ascii())
        .any(|tag| tag == b"*" || tag.strip_prefix(b"W/").unwrap_or(tag) == document.etag.as_bytes());
    let mut response = Response::new(if held { Body::empty() } else { Body::from(document.body.clone()) });
    *response.status_mut() = if held { StatusCode::NOT_MODIFIED } else { StatusCode::OK };
    let headers = response.headers_mut();
    headers.insert(CACHE_CONTROL, document.cache_control.clone());
    headers.insert(ETAG, document.etag.clone());
    if let Some(coding) = &document.content_encoding {
        headers.insert(axum::http::header::CONTENT_ENCODING, coding.clone());
    }
    if document.varies {
        headers.insert(VARY, HeaderValue::from_static("accept-encoding"));
    }
    if !held {
        headers.insert(CONTENT_TYPE, document.content_type.clone());
    }
    response
}

/// A document that anybody may read.
#[derive(Clone, Debug)]
pub(super) struct Document {
    pub(super) body: Bytes,
    pub(super) content_type: HeaderValue,
    pub(super) content_encoding: Option<HeaderValue>,
    pub(super) cache_control: HeaderValue,
    pub(super) etag: HeaderValue,
    /// Whether another `Accept-Encoding` would have got another one.
    pub(super) varies: bool,
}

/// A signed text that many ask for, as it is and compressed, and its tag with the quotes.
pub(super) struct Compressed<'a> {
    pub(super) text: &'a Arc<str>,
    pub(super) gzip: &'a Arc<[u8]>,
    pub(super) etag: &'a str,
}

/// The form of it that the asker can read.
pub(super) fn compressed(
    asked: &HeaderMap,
    Compressed { text, gzip, etag }: &Compressed<'_>,
    content_type: &'static str,
    cache_control: &'static str,
) -> Response<Body> {
    let is_gzip = accepts_gzip(asked);
    // RFC 9110 §8.8.3.3: another coding is another representation, under a tag of its own.
    let etag = if is_gzip { etag.trim_end_matches('"').to_owned() + "-gzip\"" } else { (*etag).to_owned() };
    let Ok(etag) = HeaderValue::try_from(etag) else { return failure() };
    let shown = Document {
        // Shared, not copied: thousands may be told of one change at once.
        body: if is_gzip { Bytes::from_owner(Arc::clone(gzip)) } else { Bytes::from_owner(Text(Arc::clone(text))) },
        content_type: HeaderValue::from_static(content_type),
        content_encoding: is_gzip.then(|| HeaderValue::from_static("gzip")),
        cache_control: HeaderValue::from_static(cache_control),
        etag,
        varies: true,
    };
    document(asked, &shown)
}

/// Text that several answers share.
pub(super) struct Text(pub(super) Arc<str>);

impl AsRef<[u8]> for Text {
    fn as_ref(&self) -> &[u8] {
        self.0.as_bytes()
    }
}

/// A short answer in plain text, for the operator.
pub(super) fn text(status: StatusCode, body: String) -> Response<Body> {
    never_stored(status, HeaderValue::from_static("text/plain; charset=utf-8"), body.into())
}

/// A compact JWS for the operator.
pub(super) fn jwt(compact: String) -> Response<Body> {
    never_stored(StatusCode::OK, HeaderValue::from_static("application/jwt"), compact.into())
}

/// JSON for the operator.
pub(super) fn json(status: StatusCode, body: &serde_json::Value) -> Response<Body> {
    never_stored(status, JSON, body.to_string().into())
}

fn status_of(refusal: &Refusal) -> StatusCode {
    match refusal {
        Refusal::Request(RequestRefusal::MethodNotAllowed) => StatusCode::METHOD_NOT_ALLOWED,
        Refusal::Request(RequestRefusal::UnsupportedMediaType) => StatusCode::UNSUPPORTED_MEDIA_TYPE,
        Refusal::Request(RequestRefusal::NotAcceptable) => StatusCode::NOT_ACCEPTABLE,
        Refusal::Request(RequestRefusal::HistoryNotOffered) => StatusCode::NOT_IMPLEMENTED,
        Refusal::Request(RequestRefusal::BodyTooLarge) => StatusCode::PAYLOAD_TOO_LARGE,
        Refusal::Request(RequestRefusal::TooManyRequests { .. }) | Refusal::Rate(_) => StatusCode::TOO_MANY_REQUESTS,
        Refusal::Request(RequestRefusal::UnknownPath) => StatusCode::NOT_FOUND,
        // RFC 6749 §5.2: the one case of `invalid_client` that is 401; `challenge` answers it.
        Refusal::Request(RequestRefusal::AuthorizationHeader) => StatusCode::UNAUTHORIZED,
        _ => match refusal.code() {
            // RFC 6749 §5.2: 400 unless another one is said; `invalid_client` may be 401, and is only above.
            ErrorCode::InvalidClient
            | ErrorCode::InvalidGrant
            | ErrorCode::InvalidRequest
            | ErrorCode::InvalidScope
            | ErrorCode::InvalidTarget
            | ErrorCode::UnauthorizedClient
            | ErrorCode::UnsupportedGrantType => StatusCode::BAD_REQUEST,
            ErrorCode::ServerError => StatusCode::INTERNAL_SERVER_ERROR,
            ErrorCode::TemporarilyUnavailable => StatusCode::SERVICE_UNAVAILABLE,
        },
    }
}

fn error(status: StatusCode, code: ErrorCode) -> Response<Body> {
    // Codes and their sentences are fixed ASCII without `"` and `\`.
    let body = format!(r#"{{"error":"{}","error_description":"{}"}}"#, code.as_str(), code.description());
    let mut response = never_stored(status, JSON, body.into());
    if matches!(status, StatusCode::TOO_MANY_REQUESTS | StatusCode::SERVICE_UNAVAILABLE) {
        response.headers_mut().insert(RETRY_AFTER, HeaderValue::from_static("1"));
    }
    response
}

fn never_stored(status: StatusCode, content_type: HeaderValue, body: Body) -> Response<Body> {
    let mut response = Response::new(body);
    *response.status_mut() = status;
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, content_type);
    // RFC 6749 §5.1, for every answer that is about one request only.
    headers.insert(CACHE_CONTROL, NO_STORE);
    headers.insert(PRAGMA, NO_CACHE);
    response
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;
    use std::fmt::Write;

    use super::*;
    use crate::admission::AdmissionRefusal;
    use crate::audit::AuditUnavailable;
    use crate::client_auth::ClientAuthRefusal;
    use crate::error::each_stage;
    use crate::introspection::IntrospectionRefusal;
    use crate::mint::MintRefusal;
    use crate::pki::PeerRefusal;
    use crate::policy::PolicyRefusal;
    use crate::rates::RateRefusal;
    use crate::registry::{LookupRefusal, SightingRefusal};
    use crate::tls::HandshakeRefusal;

    const PUBLISHED: &str = include_str!("../../docs/refusals.md");

    struct Row {
        stage: &'static str,
        reason: &'static str,
        code: &'static str,
        status: String,
        meaning: &'static str,
    }

    fn rows<R>(
        stage: &'static str,
        each: Vec<R>,
        meanings: &[&'static str],
        refusal: impl Fn(R) -> Refusal,
    ) -> Vec<Row> {
        let row = |(one, meaning): (R, &&'static str)| {
            let refusal = refusal(one);
            let status = status_of(&refusal).as_u16().to_string();
            Row { stage, reason: refusal.reason(), code: refusal.code().as_str(), status, meaning: meaning.trim() }
        };
        each.into_iter().zip(meanings).map(row).collect()
    }

    /// Every reason there is, in the order of the path.
    fn table() -> Vec<Row> {
        let handshakes = HandshakeRefusal::one_of_each().into_iter().zip(HandshakeRefusal::MEANINGS);
        let mut table: Vec<Row> = handshakes
            .map(|(refusal, meaning)| Row {
                stage: HandshakeRefusal::STAGE,
                reason: refusal.reason(),
                code: "",
                status: "connection closed".to_owned(),
                meaning: meaning.trim(),
            })
            .collect();
        macro_rules! stages {
            ($($refusal:ident),*) => {
                $(table.extend(rows(
                    $refusal::STAGE,
                    $refusal::one_of_each(),
                    $refusal::MEANINGS,
                    Refusal::from,
                ));)*
            };
        }
        each_stage!(stages);
        table
    }

    #[test]
    fn reasons_are_unique() {
        let table = table();
        let reasons: HashSet<_> = table.iter().map(|row| row.reason).collect();
        assert_eq!(reasons.len(), table.len());
    }

    #[test]
    fn the_published_table_is_this_one() {
        let mut expected =
            String::from("| stage | reason | code | status | meaning |\n| --- | --- | --- | --- | --- |\n");
        for Row { stage, reason, code, status, meaning } in table() {
            let code = if code.is_empty() { String::new() } else { format!("`{code}`") };
            writeln!(expected, "| {stage} | `{reason}` | {code} | {status} | {meaning} |").unwrap();
        }
        assert!(PUBLISHED.contains(&expected), "docs/refusals.md lacks this table:\n{expected}");
    }

    #[test]
    fn what_goes_on_the_wire_is_what_the_grammar_allows() {
        for row in table().iter().filter(|row| !row.code.is_empty()) {
            assert!(row.code.bytes().all(|byte| byte.is_ascii_lowercase() || byte == b'_'), "{}", row.code);
        }
        // RFC 6749 appendix A.8: %x20-21 / %x23-5B / %x5D-7E.
        for code in [
            ErrorCode::InvalidClient,
            ErrorCode::InvalidGrant,
            ErrorCode::InvalidRequest,
            ErrorCode::InvalidScope,
            ErrorCode::InvalidTarget,
            ErrorCode::ServerError,
            ErrorCode::TemporarilyUnavailable,
            ErrorCode::UnauthorizedClient,
            ErrorCode::UnsupportedGrantType,
        ] {
            let allowed = |byte: u8| matches!(byte, 0x20..=0x21 | 0x23..=0x5B | 0x5D..=0x7E);
            assert!(code.description().bytes().all(allowed), "{}", code.description());
        }
    }
}
