//! Requests and answers, as far as the endpoints have to know them.

use http_body_util::Full;
use hyper::body::Bytes;
use hyper::header::{self, HeaderMap, HeaderValue};
use hyper::{Method, Response, StatusCode};
use serde_json::{Value, json};

use crate::certificate::Peer;
use crate::defect::{Broken, Defect};

/// What an endpoint gives.
pub(crate) type Answer = Response<Full<Bytes>>;

/// A request, read to its end.
#[derive(Debug)]
pub(crate) struct Asked {
    /// How.
    pub(crate) method: Method,
    /// For what, without the query.
    pub(crate) path: String,
    /// The query, as it came.
    pub(crate) query: String,
    /// The headers.
    pub(crate) headers: HeaderMap,
    /// The body.
    pub(crate) body: Bytes,
    /// Who is at the other end, as far as TLS knows.
    pub(crate) peer: Option<Peer>,
}

impl Asked {
    /// The one header of this name; nothing where it came more than once.
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        let mut values = self.headers.get_all(name).iter();
        match (values.next(), values.next()) {
            (Some(value), None) => value.to_str().ok(),
            _ => None,
        }
    }

    /// Whether the body says it is a form (RFC 6749 appendix B); RFC 9110 §8.3.1: in any case, with any parameters.
    fn has_form(&self, broken: &Broken) -> bool {
        if broken.is(Defect::ContentTypeComparedAsText) {
            return self.header("content-type") == Some("application/x-www-form-urlencoded");
        }
        let media_type = self.header("content-type").unwrap_or_default().split(';').next().unwrap_or_default();
        media_type.trim().eq_ignore_ascii_case("application/x-www-form-urlencoded")
    }
}

/// The parameters of a form, none twice, those without a value left out.
#[derive(Debug, Default)]
pub(crate) struct Form(Vec<(String, String)>);

impl Form {
    /// The form in the body of a request to the token, revocation or introspection endpoint.
    ///
    /// # Errors
    /// Where it is none, or names a parameter twice.
    pub(crate) fn of(asked: &Asked, broken: &Broken) -> Result<Self, Refusal> {
        // RFC 6749 §4.4.2, RFC 7009 §2.1, RFC 7662 §2.1: in the body, as application/x-www-form-urlencoded.
        if !asked.has_form(broken) && !broken.is(Defect::ContentTypeIgnored) && asked.query.is_empty() {
            return Err(Refusal::INVALID_REQUEST.with_status(415));
        }
        let in_query = asked.method == Method::GET && asked.body.is_empty();
        let body = if in_query { asked.query.as_bytes() } else { &asked.body };
        let mut form = Self::of_any_type(body, broken).ok_or(Refusal::INVALID_REQUEST)?;
        if broken.is(Defect::QueryReadAtToken) {
            form.0.extend(Self::parse(asked.query.as_bytes()).unwrap_or_default().0);
        }
        // RFC 6749 §3.2: unrecognized parameters are ignored.
        if broken.is(Defect::UnknownParameterRefused) && form.0.iter().any(|(name, _)| !KNOWN.contains(&name.as_str()))
        {
            return Err(Refusal::INVALID_REQUEST);
        }
        // RFC 6749 §3.2: parameters sent without a value are treated as omitted.
        if broken.is(Defect::EmptyParameterNotOmitted) && form.0.iter().any(|(_, value)| value.is_empty()) {
            return Err(Refusal::INVALID_REQUEST);
        }
        form.0.retain(|(_, value)| !value.is_empty());
        // RFC 6749 §3.2: not more than once, but resource (RFC 8707 §2).
        let twice = form
            .0
            .iter()
            .enumerate()
            .any(|(at, (name, _))| name != "resource" && form.0[..at].iter().any(|(earlier, _)| earlier == name));
        if twice && !broken.is(Defect::DuplicateParametersAccepted) {
            return Err(Refusal::INVALID_REQUEST);
        }
        Ok(form)
    }

    /// A form; by a defect also JSON, or the parts of a multipart body.
    fn of_any_type(body: &[u8], broken: &Broken) -> Option<Self> {
        if !broken.is(Defect::ContentTypeIgnored) {
            return Self::parse(body);
        }
        let text = std::str::from_utf8(body).ok()?;
        if let Ok(Value::Object(members)) = serde_json::from_str(text) {
            let pair = |(name, value): (String, Value)| Some((name, value.as_str()?.to_owned()));
            return Some(Self(members.into_iter().filter_map(pair).collect()));
        }
        let part = |part: &str| {
            let (name, rest) = part.split_once("\"\r\n\r\n")?;
            Some((name.to_owned(), rest.split("\r\n").next()?.to_owned()))
        };
        match text.split_once("name=\"") {
            Some((_, parts)) => Some(Self(parts.split("name=\"").filter_map(part).collect())),
            None => Self::parse(body),
        }
    }

    /// Pairs of percent-encoded names and values; nothing where one is not UTF-8.
    pub(crate) fn parse(octets: &[u8]) -> Option<Self> {
        let text = std::str::from_utf8(octets).ok()?;
        let pairs = text.split('&').filter(|pair| !pair.is_empty()).map(|pair| {
            let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
            Some((percent_decoded(name)?, percent_decoded(value)?))
        });
        Some(Self(pairs.collect::<Option<_>>()?))
    }

    /// The value of this parameter.
    pub(crate) fn get(&self, name: &str) -> Option<&str> {
        self.0.iter().find(|(own, _)| own == name).map(|(_, value)| value.as_str())
    }

    /// All its values.
    pub(crate) fn all<'a>(&'a self, name: &'a str) -> impl Iterator<Item = &'a str> {
        self.0.iter().filter(move |(own, _)| own == name).map(|(_, value)| value.as_str())
    }
}

/// The parameters that mean something at one of the endpoints.
const KNOWN: [&str; 11] = [
    "grant_type",
    "client_id",
    "client_secret",
    "client_assertion",
    "client_assertion_type",
    "scope",
    "resource",
    "token",
    "token_type_hint",
    "code",
    "refresh_token",
];

/// Percent-encoded octets and `+` for a space, as UTF-8.
pub(crate) fn percent_decoded(text: &str) -> Option<String> {
    let mut octets = Vec::with_capacity(text.len());
    let mut rest = text.bytes();
    while let Some(octet) = rest.next() {
        octets.push(match octet {
            b'+' => b' ',
            b'%' => {
                let digits = [rest.next()?, rest.next()?];
                u8::from_str_radix(std::str::from_utf8(&digits).ok()?, 16).ok()?
            }
            other => other,
        });
    }
    String::from_utf8(octets).ok()
}

/// Why an endpoint says no (RFC 6749 §5.2).
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Refusal {
    /// The status.
    pub(crate) status: u16,
    /// The code.
    pub(crate) error: &'static str,
    /// What is wrong, for whoever reads it.
    pub(crate) about: Option<&'static str>,
    /// A challenge, where the Authorization header was used.
    pub(crate) challenge: Option<&'static str>,
}

impl Refusal {
    pub(crate) const INVALID_REQUEST: Self = Self::of(400, "invalid_request");
    pub(crate) const GRANT_TYPE_MISSING: Self =
        Self { about: Some("grant_type is missing"), ..Self::of(400, "invalid_request") };
    // RFC 6749 §5.2: 401 is a choice where no Authorization header came. Countersign says 400.
    pub(crate) const INVALID_CLIENT: Self = Self::of(401, "invalid_client");
    pub(crate) const CLIENT_UNKNOWN: Self =
        Self { about: Some("the client is not known"), ..Self::of(401, "invalid_client") };
    pub(crate) const INVALID_SCOPE: Self = Self::of(400, "invalid_scope");
    pub(crate) const INVALID_TARGET: Self = Self::of(400, "invalid_target");
    pub(crate) const UNSUPPORTED_GRANT_TYPE: Self = Self::of(400, "unsupported_grant_type");
    pub(crate) const UNAUTHORIZED_CLIENT: Self = Self::of(400, "unauthorized_client");

    const fn of(status: u16, error: &'static str) -> Self {
        Self { status, error, about: None, challenge: None }
    }

    /// With another status.
    pub(crate) const fn with_status(mut self, status: u16) -> Self {
        self.status = status;
        self
    }

    /// The answer.
    pub(crate) fn into_answer(self, asked: &Asked, broken: &Broken) -> Answer {
        // What is wrong with errors in general is wrong with this one alone, so that other cases can be judged.
        let broken_here = |defect| broken.is(defect) && self == Self::GRANT_TYPE_MISSING;
        let status = match self.status {
            _ if broken_here(Defect::ErrorAsOk) => 200,
            _ if broken_here(Defect::ErrorAsServerError) => 500,
            status => status,
        };
        let error = if broken_here(Defect::ErrorCodeUnknown) { "something_went_wrong" } else { self.error };
        let mut body = json!({ "error": error });
        if let Some(about) = self.about {
            body["error_description"] = about.into();
        }
        if broken_here(Defect::ErrorCodeMissing) {
            body = json!({ "code": 17, "error_description": "no" });
        }
        if broken.is(Defect::ErrorDescriptionOutsideGrammar) && self == Self::UNSUPPORTED_GRANT_TYPE {
            body["error_description"] = "the \"grant\" is not zulässig".into();
        }
        if broken.is(Defect::ErrorTellsRequest) {
            let form = Form::parse(&asked.body).unwrap_or_default();
            body["error_description"] = form.0.into_iter().map(|(_, value)| value).collect::<Vec<_>>().join(" ").into();
        }
        let mut answer = json_answer(status, &body);
        if broken_here(Defect::ErrorWithoutJson) {
            answer = text_answer(status, "application/json", error.to_owned());
        }
        if broken.is(Defect::UnknownClientAsText) && self == Self::CLIENT_UNKNOWN {
            answer = text_answer(status, "text/plain", "no such client".to_owned());
        }
        if broken_here(Defect::ErrorAsHtml) {
            answer = text_answer(status, "text/html", body.to_string());
        }
        answer.headers_mut().insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
        if let Some(challenge) = self.challenge {
            answer.headers_mut().insert(header::WWW_AUTHENTICATE, HeaderValue::from_static(challenge));
        }
        answer
    }
}

/// A JSON body.
pub(crate) fn json_answer(status: u16, body: &Value) -> Answer {
    text_answer(status, "application/json", body.to_string())
}

/// A body of this media type.
pub(crate) fn text_answer(status: u16, media_type: &'static str, body: String) -> Answer {
    let mut answer = Response::new(Full::new(Bytes::from(body)));
    *answer.status_mut() = StatusCode::from_u16(status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    answer.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static(media_type));
    answer
}

/// 405, with the methods there are (RFC 9110 §15.5.6).
pub(crate) fn wrong_method(asked: &Asked, broken: &Broken, allowed: &'static str) -> Answer {
    let mut answer = Refusal::INVALID_REQUEST.with_status(405).into_answer(asked, broken);
    answer.headers_mut().insert(header::ALLOW, HeaderValue::from_static(allowed));
    answer
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_form_is_decoded() {
        let form = Form::parse(b"a=1+2&b=%C3%A4&c&a=3").unwrap();
        assert_eq!(form.all("a").collect::<Vec<_>>(), ["1 2", "3"]);
        assert_eq!(form.get("b"), Some("ä"));
        assert_eq!(form.get("c"), Some(""));
        assert!(Form::parse(b"a=%4").is_none());
        assert!(Form::parse(b"a=%FF").is_none());
    }
}
