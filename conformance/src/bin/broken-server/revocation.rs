//! Token revocation: RFC 7009.

use serde_json::Value;

use crate::access_token::{self, Trust};
use crate::client_auth;
use crate::defect::Defect;
use crate::http::{Answer, Asked, Form, Refusal, text_answer};
use crate::world::World;

/// The answer to a revocation request.
pub(crate) async fn answer(world: &World, asked: &Asked, now: i64) -> Answer {
    match revoke(world, asked, now).await {
        // RFC 7009 §2.2: 200, and the content of the body is ignored by the client.
        Ok(()) => text_answer(200, "text/plain", String::new()),
        Err(refusal) => refusal.into_answer(asked, &world.broken),
    }
}

async fn revoke(world: &World, asked: &Asked, now: i64) -> Result<(), Refusal> {
    let broken = &world.broken;
    let form = Form::of(asked, broken)?;
    // RFC 7009 §2.1: the client is authenticated first.
    let client = match client_auth::authenticate(world, asked, &form, now).await {
        Ok(authenticated) => Some(authenticated.client.id),
        Err(_) if broken.is(Defect::RevocationWithoutAuthentication) => None,
        Err(refusal) => return Err(refusal),
    };
    let token = match form.get("token") {
        Some(token) => token,
        // RFC 7009 §2.1: REQUIRED.
        None if broken.is(Defect::RevocationWithoutToken) => return Ok(()),
        None => return Err(Refusal::INVALID_REQUEST),
    };
    // RFC 7009 §2.1: a hint helps to find the token, and hides nothing; an unknown one is ignored.
    let hint = form.get("token_type_hint");
    let is_known = |hint: &str| matches!(hint, "access_token" | "refresh_token");
    let unknown_refused = broken.is(Defect::RevocationUnknownHintRefused);
    if hint.is_some_and(|hint| broken.is(Defect::RevocationHintRefused) || unknown_refused && !is_known(hint)) {
        return Err(Refusal { error: "unsupported_token_type", ..Refusal::INVALID_REQUEST });
    }
    if broken.is(Defect::RevocationHintBelieved) && hint == Some("refresh_token") {
        return Ok(());
    }
    let trust = Trust { issuer: &world.issuer, audience: &world.resource };
    let Some(claims) = access_token::claims(world, token, trust, now).await else {
        // RFC 7009 §2.2: an invalid token is no error.
        return match broken.is(Defect::RevocationOfUnknownRefused) {
            true => Err(Refusal { error: "invalid_token", ..Refusal::INVALID_REQUEST }),
            false => Ok(()),
        };
    };
    let text = |name: &str| claims.get(name).and_then(Value::as_str);
    // RFC 7009 §2.1: issued to the client that asks, else refused.
    let is_own = client.is_none() || text("client_id") == client || broken.is(Defect::RevocationOfOthers);
    if !is_own {
        return Err(Refusal { error: "invalid_grant", ..Refusal::INVALID_REQUEST });
    }
    if let Some(jti) = text("jti").filter(|_| !broken.is(Defect::RevokedTokenStillActive)) {
        world.issued().revoked.insert(jti.to_owned());
    }
    Ok(())
}
