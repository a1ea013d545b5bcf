//! The token endpoint: RFC 6749 §3.2, §4.4 and §5, RFC 8707 §2.

use hyper::header::{CACHE_CONTROL, HeaderValue, PRAGMA};
use serde_json::{Value, json};

use crate::client_auth::{self, Authenticated};
use crate::defect::{Broken, Defect};
use crate::http::{Answer, Asked, Form, Refusal, json_answer, text_answer};
use crate::mint::{self, Access};
use crate::world::{SCOPE, World};

/// The answer to a token request.
pub(crate) async fn answer(world: &World, asked: &Asked, now: i64) -> Answer {
    issue(world, asked, now).await.unwrap_or_else(|refusal| refusal.into_answer(asked, &world.broken))
}

async fn issue(world: &World, asked: &Asked, now: i64) -> Result<Answer, Refusal> {
    let broken = &world.broken;
    let form = Form::of(asked, broken)?;
    check_grant_type(&form, broken)?;
    let Authenticated { client, peer } = client_auth::authenticate(world, asked, &form, now).await?;
    if client.scopes.is_empty() {
        return Err(Refusal::UNAUTHORIZED_CLIENT);
    }
    let asked_scope = form.get("scope");
    let scope = granted(asked_scope, client.scopes, broken)?;
    let audience = audience(world, &form)?;
    // FAPI 2.0 §5.3.2.1: only sender-constrained access tokens. No certificate, no token.
    let bound_to = match peer {
        Some(peer) => peer.digest(),
        None if broken.is(Defect::CertificateOptional) => Vec::new(),
        None => return Err(Refusal::INVALID_REQUEST),
    };
    let token = mint::access_token(world, &Access { client: client.id, scope: &scope, audience, bound_to }, now);

    // RFC 6749 §5.1.
    let mut body = json!({ "access_token": token, "token_type": "Bearer", "expires_in": mint::LIFETIME_SECONDS });
    // RFC 6749 §5.1: needed where it is not the scope asked for. Countersign always tells it.
    if asked_scope != Some(scope.as_str()) && !broken.is(Defect::ScopeNotTold) {
        body["scope"] = scope.into();
    }
    let replaced = [
        (Defect::TokenTypeOther, "token_type", json!("mac")),
        (Defect::ScopeToldAsArray, "scope", json!([SCOPE])),
        (Defect::TokenOutsideGrammar, "access_token", json!(format!("{token} \n"))),
    ];
    for (_, name, value) in replaced.into_iter().filter(|(defect, ..)| broken.is(*defect)) {
        body[name] = value;
    }
    if broken.is(Defect::ExpiresInAsString) {
        body["expires_in"] = mint::LIFETIME_SECONDS.to_string().into();
    }
    if broken.is(Defect::RefreshTokenIssued) {
        body["refresh_token"] = mint::random(16).into();
    }
    if let Some(members) = body.as_object_mut() {
        if broken.is(Defect::AccessTokenMissing)
            && let Some(token) = members.remove("access_token")
        {
            members.insert("token".to_owned(), token);
        }
        let absent = [(Defect::TokenTypeMissing, "token_type"), (Defect::ExpiresInMissing, "expires_in")];
        for (_, name) in absent.into_iter().filter(|(defect, _)| broken.is(*defect)) {
            members.remove(name);
        }
    }
    let mut answer = json_answer(if broken.is(Defect::TokenAsCreated) { 201 } else { 200 }, &body);
    if broken.is(Defect::TokenAsForm) {
        let form = format!("access_token={token}&token_type=Bearer&expires_in={}", mint::LIFETIME_SECONDS);
        answer = text_answer(200, "application/x-www-form-urlencoded", form);
    }
    if broken.is(Defect::TokenAsHtml) {
        answer = text_answer(200, "text/html", body.to_string());
    }
    if broken.is(Defect::TokenAsJsonp) {
        answer = text_answer(200, "application/jsonp", body.to_string());
    }
    // RFC 6749 §5.1: Cache-Control and Pragma in any response with tokens.
    if !broken.is(Defect::TokenWithoutCacheControl) {
        answer.headers_mut().insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    }
    if broken.is(Defect::TokenNoStoreQuoted) {
        answer.headers_mut().insert(CACHE_CONTROL, HeaderValue::from_static("private=\"a, no-store, b\""));
    }
    if !broken.is(Defect::TokenWithoutPragma) {
        answer.headers_mut().insert(PRAGMA, HeaderValue::from_static("no-cache"));
    }
    Ok(answer)
}

/// RFC 6749 §4.4.2: needed, and this one value. §5.2: another has a code of its own.
fn check_grant_type(form: &Form, broken: &Broken) -> Result<(), Refusal> {
    match form.get("grant_type") {
        Some("client_credentials") => Ok(()),
        None if broken.is(Defect::GrantTypeOptional) => Ok(()),
        None => Err(Refusal::GRANT_TYPE_MISSING),
        Some(_) if broken.is(Defect::AnyGrantType) => Ok(()),
        Some(_) if broken.is(Defect::UnsupportedGrantTypeAsInvalidRequest) => Err(Refusal::INVALID_REQUEST),
        Some(_) => Err(Refusal::UNSUPPORTED_GRANT_TYPE),
    }
}

/// RFC 6749 §3.3: what was asked for, if the client may have all of it; without a scope, the default.
fn granted(asked: Option<&str>, may_have: &[&str], broken: &Broken) -> Result<String, Refusal> {
    let refused = match broken.is(Defect::InvalidScopeAsInvalidRequest) {
        true => Refusal::INVALID_REQUEST,
        false => Refusal::INVALID_SCOPE,
    };
    // RFC 6749 §3.3: a default, or invalid_scope.
    let Some(asked) = asked else {
        return if broken.is(Defect::ScopeNeeded) { Err(Refusal::INVALID_REQUEST) } else { Ok(SCOPE.to_owned()) };
    };
    let is_token = |token: &str| {
        // RFC 6749 §3.3: %x21 / %x23-5B / %x5D-7E, single spaces between.
        !token.is_empty() && token.bytes().all(|octet| matches!(octet, 0x21 | 0x23..=0x5B | 0x5D..=0x7E))
    };
    if broken.is(Defect::MalformedScopeGranted) && !asked.split(' ').all(is_token) {
        return Ok(asked.to_owned());
    }
    if broken.is(Defect::AnyScopeToldAnew) && asked.split(' ').all(is_token) {
        let others = asked.split(' ').rev().filter(|token| *token != SCOPE);
        return Ok(others.chain([SCOPE]).collect::<Vec<_>>().join(" "));
    }
    if broken.is(Defect::ScopeNotTold) {
        let some: Vec<&str> = asked.split(' ').filter(|token| may_have.contains(token)).collect();
        return if some.is_empty() { Err(refused) } else { Ok(some.join(" ")) };
    }
    let permitted = asked.split(' ').all(|token| {
        is_token(token)
            && (may_have.contains(&token)
                || broken.is(Defect::OtherScopeGranted) && token == crate::world::OTHER_SCOPE
                || broken.is(Defect::UnknownScopeGranted) && token != crate::world::OTHER_SCOPE)
    });
    if permitted { Ok(asked.to_owned()) } else { Err(refused) }
}

/// RFC 8707 §2: an absolute URI without fragment, and one that is known.
fn audience(world: &World, form: &Form) -> Result<Value, Refusal> {
    let broken = &world.broken;
    let refused = match broken.is(Defect::InvalidTargetAsInvalidRequest) {
        true => Refusal::INVALID_REQUEST,
        false => Refusal::INVALID_TARGET,
    };
    for resource in form.all("resource") {
        let (without_fragment, _) = resource.split_once('#').unwrap_or((resource, ""));
        let known = resource == world.resource
            || broken.is(Defect::ResourceFragmentCut) && without_fragment == world.resource
            || broken.is(Defect::ResourceByPrefix) && resource.starts_with(&world.resource) && !resource.contains('#')
            || broken.is(Defect::RelativeResourceAccepted) && !resource.contains(':')
            || broken.is(Defect::UnknownResourceAccepted) && resource.contains(':') && !resource.contains('#');
        if !known {
            return Err(refused);
        }
    }
    if broken.is(Defect::UnknownResourceAccepted) && form.get("resource").is_some() {
        return Ok(form.all("resource").collect());
    }
    Ok(world.resource.as_str().into())
}
