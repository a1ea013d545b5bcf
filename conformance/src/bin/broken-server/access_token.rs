//! What a protected resource checks of an access token: RFC 9068 §4.
//!
//! Takes a token and whom the resource trusts, gives its claims. To which certificate it is bound is asked elsewhere.

use serde_json::{Map, Value};

use crate::defect::Defect;
use crate::jws::{self, Signed};
use crate::world::World;
use crate::{fetch, metadata};

/// Whom a resource trusts, and as what it is known.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Trust<'a> {
    /// The issuer.
    pub(crate) issuer: &'a str,
    /// The audience.
    pub(crate) audience: &'a str,
}

/// The claims of a token that is good here and now.
pub(crate) async fn claims(world: &World, token: &str, trust: Trust<'_>, now: i64) -> Option<Map<String, Value>> {
    let claims = match minted_here(world, token, trust) {
        Some(claims) => claims,
        None => signed_claims(world, token, trust).await?,
    };
    is_right(world, &claims, trust, now).then_some(claims)
}

fn minted_here(world: &World, token: &str, trust: Trust<'_>) -> Option<Map<String, Value>> {
    world.issued().minted.get(token).filter(|_| trust.issuer == world.issuer).cloned()
}

async fn signed_claims(world: &World, token: &str, trust: Trust<'_>) -> Option<Map<String, Value>> {
    let broken = &world.broken;
    let signed = Signed::read(token, broken)?;
    // RFC 9068 §4: typ at+jwt or application/at+jwt, and no other.
    let kind = signed.header.get("typ").and_then(Value::as_str).unwrap_or_default().to_ascii_lowercase();
    let is_introspection = kind == "token-introspection+jwt" && broken.is(Defect::SignedIntrospectionAsToken);
    let is_access_token = kind == "at+jwt"
        || kind == "application/at+jwt" && !broken.is(Defect::TypLongRefused)
        || kind == "jwt" && broken.is(Defect::TypJwtAccepted)
        || broken.is(Defect::TypNotChecked);
    if !is_access_token && !is_introspection {
        return None;
    }
    let mut keys = keys(world, &signed, trust).await;
    keys.extend(keys_from_afar(world, &signed).await);
    if !jws::is_signed_by_one_of(&signed, &keys, broken) {
        return None;
    }
    match signed.claims.get("token_introspection") {
        Some(Value::Object(inner)) if is_introspection => Some(inner.clone()),
        _ => Some(signed.claims),
    }
}

/// The issuer's keys: this server's own, or those of the issuer that the judge plays, fetched where kid is new.
async fn keys(world: &World, signed: &Signed, trust: Trust<'_>) -> Vec<Value> {
    if trust.issuer == world.issuer {
        return vec![metadata::published(&world.signing, "ES256"), metadata::published(&world.spare, "EdDSA")];
    }
    let held = world.issued().judge_keys.clone();
    if held.iter().any(|key| signed.header.get("kid") == key.get("kid")) {
        return held;
    }
    let fetched = fetch::keys_of(trust.issuer, &world.server_root).await.unwrap_or(held);
    world.issued().judge_keys.clone_from(&fetched);
    fetched
}

/// RFC 8725 §3.10: what a header points at is not fetched.
pub(crate) async fn keys_from_afar(world: &World, signed: &Signed) -> Vec<Value> {
    let broken = &world.broken;
    let url = |name| signed.header.get(name).and_then(Value::as_str);
    if let Some(url) = url("jku").filter(|_| broken.is(Defect::JkuFollowed)) {
        return fetch::keys_at(url, &world.server_root).await.unwrap_or_default();
    }
    if let Some(url) = url("x5u").filter(|_| broken.is(Defect::X5uFollowed)) {
        let fetched = fetch::get(url, &world.server_root).await.unwrap_or_default();
        let text: String = String::from_utf8_lossy(&fetched).lines().filter(|line| !line.starts_with("--")).collect();
        return jws::key_certified_by(&text).into_iter().collect();
    }
    Vec::new()
}

fn is_right(world: &World, claims: &Map<String, Value>, trust: Trust<'_>, now: i64) -> bool {
    let broken = &world.broken;
    // RFC 9068 §4: iss is exactly the issuer that is trusted.
    let issuer = match claims.get("iss") {
        _ if broken.is(Defect::IssNotChecked) => true,
        Some(Value::String(issuer)) => {
            issuer == trust.issuer
                || broken.is(Defect::IssPrefixMatch) && issuer.starts_with(trust.issuer)
                || broken.is(Defect::IssNormalized) && normalized(issuer) == normalized(trust.issuer)
        }
        _ => false,
    };
    // RFC 9068 §4: aud contains an identifier of this resource; RFC 7519 §4.1.3: case-sensitive, a string or an array.
    let audience = match claims.get("aud") {
        _ if broken.is(Defect::AudNotChecked) => true,
        Some(Value::Array(_)) if broken.is(Defect::AudArrayRefused) => false,
        Some(Value::Array(audiences)) => audiences.iter().any(|audience| is_own(world, audience, trust)),
        Some(audience) => is_own(world, audience, trust),
        None => false,
    };
    // RFC 9068 §4: the current time is before exp. RFC 7519 §4.1.4: a number.
    let now = now as f64;
    let not_expired = match claims.get("exp") {
        None => broken.is(Defect::ExpMissingAccepted),
        Some(Value::String(text)) if broken.is(Defect::ExpAsStringAccepted) => {
            text.parse().is_ok_and(|exp: f64| now < exp)
        }
        Some(Value::Number(exp)) => exp.as_f64().is_some_and(|exp| now < exp) || broken.is(Defect::ExpNotChecked),
        Some(_) => broken.is(Defect::MalformedTimeIgnored),
    };
    // RFC 7519 §4.1.5: not before nbf. iat says how old it is, and refuses nothing (§4.1.6).
    let begun = match claims.get("nbf") {
        None => true,
        Some(Value::Number(nbf)) => {
            nbf.as_f64().is_some_and(|nbf| nbf <= now)
                || broken.is(Defect::NbfNotChecked)
                || broken.is(Defect::TimeWraps) && nbf.as_u64().is_some_and(|nbf| nbf > u64::from(u32::MAX))
        }
        Some(_) => broken.is(Defect::MalformedTimeIgnored),
    };
    let numeric = claims.get("iat").is_none_or(|iat| iat.is_number() || broken.is(Defect::MalformedTimeIgnored));
    let known = claims.keys().all(|name| KNOWN.contains(&name.as_str())) || !broken.is(Defect::UnknownClaimRefused);
    issuer && audience && not_expired && begun && numeric && known && !is_revoked(world, claims)
}

/// The claims of RFC 9068 §2.2 and RFC 7519 §4.1.
const KNOWN: [&str; 11] =
    ["iss", "exp", "aud", "sub", "client_id", "iat", "nbf", "jti", "scope", "cnf", "token_introspection"];

/// Whether a server that is careless with what it reads would break on this token.
pub(crate) fn breaks_on(world: &World, token: &str) -> bool {
    let broken = &world.broken;
    let Some(signed) = Signed::read(token, broken) else {
        return broken.is(Defect::UnreadableTokenAsServerError);
    };
    let whole = |name: &str| signed.claims.get(name).is_some_and(|at| at.as_i64().is_some());
    let odd = !whole("exp") || !whole("iat") || !signed.claims.contains_key("jti");
    broken.is(Defect::OddNumberAsServerError) && odd
        || broken.is(Defect::UnreadableTokenAsServerError) && !signed.claims.contains_key("iss")
}

fn is_own(world: &World, audience: &Value, trust: Trust<'_>) -> bool {
    let broken = &world.broken;
    let Some(audience) = audience.as_str() else { return false };
    audience == trust.audience
        || broken.is(Defect::AudPrefixMatch) && audience.starts_with(trust.audience)
        || broken.is(Defect::AudNormalized) && normalized(audience) == normalized(trust.audience)
        || broken.is(Defect::AudPartMatch) && trust.audience.contains(audience)
}

fn normalized(url: &str) -> String {
    url.trim_end_matches('/').to_ascii_lowercase()
}

/// FAPI 2.0 §5.3.4: the revocation status too.
fn is_revoked(world: &World, claims: &Map<String, Value>) -> bool {
    let jti = claims.get("jti").and_then(Value::as_str);
    jti.is_some_and(|jti| world.issued().revoked.contains(jti))
}
