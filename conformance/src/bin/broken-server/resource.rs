//! A protected resource: RFC 6750, bound tokens by RFC 8705 §3.

use base64::Engine;
use base64::engine::general_purpose::{STANDARD, URL_SAFE, URL_SAFE_NO_PAD};
use hyper::header::{CACHE_CONTROL, HeaderValue, WWW_AUTHENTICATE};
use serde_json::{Map, Value, json};

use crate::access_token::{self, Trust};
use crate::certificate::{self, Peer};
use crate::client_auth;
use crate::defect::Defect;
use crate::http::{Answer, Asked, Form, json_answer};
use crate::world::{SCOPE, World};

/// The resource with tokens of this server.
pub(crate) async fn accounts(world: &World, asked: &Asked, now: i64) -> Answer {
    answer(world, asked, Trust { issuer: &world.issuer, audience: &world.resource }, now).await
}

/// The resource with tokens of the issuer that the judge plays.
pub(crate) async fn forged(world: &World, asked: &Asked, now: i64) -> Answer {
    answer(world, asked, Trust { issuer: &world.forged.issuer, audience: &world.forged.resource }, now).await
}

/// Why a resource says no (RFC 6750 §3.1).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Refusal {
    NoToken,
    InvalidRequest,
    InvalidToken,
    InsufficientScope,
    /// Only by a defect: the token is another's.
    Forbidden,
    /// Only by a defect: something was not expected.
    ServerError,
}

async fn answer(world: &World, asked: &Asked, trust: Trust<'_>, now: i64) -> Answer {
    match serve(world, asked, trust, now).await {
        Ok(claims) => {
            let body = json!({ "client_id": claims.get("client_id"), "accounts": ["DE02120300000000202051"] });
            let mut answer = json_answer(200, &body);
            answer.headers_mut().insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
            answer
        }
        Err(refusal) => refused(world, asked, refusal),
    }
}

async fn serve(world: &World, asked: &Asked, trust: Trust<'_>, now: i64) -> Result<Map<String, Value>, Refusal> {
    let broken = &world.broken;
    let token = match token_of(world, asked) {
        Err(Refusal::NoToken) if broken.is(Defect::NoTokenNeeded) => return Ok(Map::new()),
        Err(Refusal::InvalidRequest) if broken.is(Defect::MalformedHeaderAsServerError) => {
            return Err(Refusal::ServerError);
        }
        token => token?,
    };
    if access_token::breaks_on(world, &token) {
        return Err(Refusal::ServerError);
    }
    let claims = match access_token::claims(world, &token, trust, now).await {
        Some(claims) => claims,
        None if broken.is(Defect::RevokedTokenStillServed) => {
            world.issued().minted.get(&token).cloned().ok_or(Refusal::InvalidToken)?
        }
        None => return Err(Refusal::InvalidToken),
    };
    // RFC 8705 §3: the certificate of this connection is the one that the token is bound to, else 401 invalid_token.
    if !is_bound_to(world, &claims, peer_of(world, asked).as_ref(), now) {
        return Err(match broken.is(Defect::BindingMismatchAsForbidden) {
            true => Refusal::Forbidden,
            false => Refusal::InvalidToken,
        });
    }
    // RFC 6750 §3.1: more than the token gives.
    let scope = claims.get("scope").and_then(Value::as_str).unwrap_or_default();
    let enough = scope.split(' ').any(|token| token == SCOPE)
        && (scope == SCOPE || !broken.is(Defect::ScopeComparedWhole))
        || broken.is(Defect::ScopeNotChecked)
        || broken.is(Defect::ScopeByPart) && (scope.contains(SCOPE) || SCOPE.starts_with(scope) && !scope.is_empty());
    if enough { Ok(claims) } else { Err(Refusal::InsufficientScope) }
}

/// RFC 6750 §2.1: in the Authorization header, once, and in no other way.
fn token_of(world: &World, asked: &Asked) -> Result<String, Refusal> {
    let broken = &world.broken;
    let in_form = |octets: &[u8]| Form::parse(octets).and_then(|form| form.get("access_token").map(str::to_owned));
    let (query, body) = (in_form(asked.query.as_bytes()), in_form(&asked.body));
    let fields: Vec<&HeaderValue> = asked.headers.get_all("authorization").iter().collect();
    let Some(field) = fields.first() else {
        return query.filter(|_| broken.is(Defect::TokenInQueryAccepted)).ok_or(Refusal::NoToken);
    };
    // RFC 6750 §2: not more than one method; §3.1: invalid_request.
    if (fields.len() > 1 || query.is_some() || body.is_some()) && !broken.is(Defect::TokenTwiceAccepted) {
        return Err(Refusal::InvalidRequest);
    }
    if let Some(token) = query.filter(|_| broken.is(Defect::TokenTwiceAccepted)) {
        return Ok(token);
    }
    let field = field.to_str().map_err(|_| Refusal::InvalidRequest)?;
    let (scheme, token) = match field.split_once(' ') {
        None if broken.is(Defect::AnySchemeAccepted) => ("", field),
        parts => parts.unwrap_or((field, "")),
    };
    // RFC 9110 §11.1: the scheme's case does not matter.
    let is_bearer = match broken.is(Defect::SchemeCaseSensitive) {
        true => scheme == "Bearer",
        false => scheme.eq_ignore_ascii_case("Bearer"),
    };
    if !is_bearer && !broken.is(Defect::AnySchemeAccepted) {
        return Err(Refusal::NoToken);
    }
    // RFC 6750 §2.1: b64token.
    let (token, padding) = token.trim_start_matches(' ').split_at(token.trim_end_matches('=').len().min(token.len()));
    let b64 = |octet: u8| octet.is_ascii_alphanumeric() || b"-._~+/".contains(&octet);
    match !token.is_empty() && token.bytes().all(b64) && padding.bytes().all(|octet| octet == b'=') {
        true => Ok(format!("{token}{padding}")),
        false => Err(Refusal::InvalidRequest),
    }
}

fn peer_of(world: &World, asked: &Asked) -> Option<Peer> {
    let header = client_auth::HEADERS
        .into_iter()
        .filter(|_| world.broken.is(Defect::HeaderBelievedAtResource))
        .find_map(|name| client_auth::certificate_in(asked.header(name)?));
    header.and_then(|certificate| Peer::of(&[certificate])).or_else(|| asked.peer.clone())
}

/// RFC 8705 §3 and §3.1: `x5t#S256` in `cnf` is the SHA-256 of this certificate, in base64url without padding.
fn is_bound_to(world: &World, claims: &Map<String, Value>, peer: Option<&Peer>, now: i64) -> bool {
    let broken = &world.broken;
    if broken.is(Defect::BindingNotChecked) {
        return true;
    }
    let Some(confirmation) = claims.get("cnf") else {
        // FAPI 2.0 §5.3.4: only sender-constrained tokens.
        return broken.is(Defect::UnboundTokenAccepted);
    };
    let Some(peer) = peer else { return broken.is(Defect::BindingOnlyWithCertificate) };
    // RFC 8705 §6.2: who vouches for the certificate is not the resource's concern.
    if broken.is(Defect::CertificateJudgedAtResource) && !certificate::is_vouched_for(peer, world, now) {
        return false;
    }
    let given = match confirmation.get("x5t#S256") {
        Some(Value::String(given)) => given.as_str(),
        Some(_) => return broken.is(Defect::ThumbprintOfAnyType),
        None if broken.is(Defect::JktTakenForBinding) && confirmation.get("jkt").is_some() => return true,
        None if broken.is(Defect::Sha1ThumbprintAccepted) => confirmation["x5t"].as_str().unwrap_or_default(),
        None => return false,
    };
    let digest = peer.digest();
    let right = URL_SAFE_NO_PAD.encode(&digest);
    let hex: String = digest.iter().map(|octet| format!("{octet:02x}")).collect();
    given == right
        || broken.is(Defect::ThumbprintByPrefix) && !given.is_empty() && right.starts_with(given)
        || broken.is(Defect::ThumbprintCaseIgnored) && given.eq_ignore_ascii_case(&right)
        || broken.is(Defect::HexThumbprintAccepted) && given.replace(':', "").eq_ignore_ascii_case(&hex)
        || broken.is(Defect::PaddedThumbprintAccepted)
            && [URL_SAFE.encode(&digest), STANDARD.encode(&digest)].contains(&given.trim().to_owned())
        || broken.is(Defect::Sha1ThumbprintAccepted) && is_sha1_of(given, peer)
}

/// Whether it is SHA-1 of the certificate, in base64 of either kind or in hex.
fn is_sha1_of(given: &str, peer: &Peer) -> bool {
    let digest = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA1_FOR_LEGACY_USE_ONLY, peer.certificate());
    let hex: String = digest.as_ref().iter().map(|octet| format!("{octet:02x}")).collect();
    [URL_SAFE_NO_PAD.encode(digest.as_ref()), STANDARD.encode(digest.as_ref()), hex].contains(&given.to_owned())
}

/// RFC 6750 §3: a challenge with each refusal; an error only where a token came.
fn refused(world: &World, asked: &Asked, refusal: Refusal) -> Answer {
    let broken = &world.broken;
    let (status, error) = match refusal {
        Refusal::NoToken => (401, None),
        Refusal::InvalidRequest => (400, Some("invalid_request")),
        Refusal::InvalidToken if broken.is(Defect::InvalidTokenAsBadRequest) => (400, Some("invalid_token")),
        Refusal::InvalidToken if broken.is(Defect::InvalidTokenAsOk) => (200, Some("invalid_token")),
        Refusal::InvalidToken => (401, Some("invalid_token")),
        Refusal::InsufficientScope if broken.is(Defect::InsufficientScopeAs401) => (401, Some("insufficient_scope")),
        Refusal::InsufficientScope => (403, Some("insufficient_scope")),
        Refusal::Forbidden => (403, Some("invalid_token")),
        Refusal::ServerError => (500, None),
    };
    let error = match refusal {
        Refusal::NoToken if broken.is(Defect::ChallengeWithErrorWithoutToken) => Some("invalid_token"),
        Refusal::NoToken => None,
        _ if broken.is(Defect::ChallengeWithoutError) => None,
        _ => error,
    };
    // RFC 9728 §5.1: where the metadata is.
    let metadata = match broken.is(Defect::ChallengeMetadataDiffers) {
        true => "https://other.example/.well-known/oauth-protected-resource".to_owned(),
        false => format!("{}/.well-known/oauth-protected-resource{}", world.issuer, asked.path),
    };
    let mut members = vec![("realm", "accounts".to_owned()), ("resource_metadata", metadata)];
    members.extend(error.map(|error| ("error", error.to_owned())));
    if refusal == Refusal::InsufficientScope {
        members.push(("scope", SCOPE.to_owned()));
    }
    let members: Vec<String> = members.iter().map(|(name, value)| format!("{name}=\"{value}\"")).collect();
    let scheme = if broken.is(Defect::ChallengeBasic) { "Basic" } else { "Bearer" };
    let mut answer = json_answer(status, &json!({ "error": error }));
    if let Ok(challenge) = HeaderValue::from_str(&format!("{scheme} {}", members.join(", ")))
        && !broken.is(Defect::ChallengeMissing)
    {
        answer.headers_mut().insert(WWW_AUTHENTICATE, challenge);
    }
    answer.headers_mut().insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    answer
}
