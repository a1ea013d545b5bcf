//! RFC 7523 §3, with the audience of rfc7523bis §4 and the clocks of FAPI 2.0 §5.3.2.1.

use serde_json::Value;

use crate::access_token;
use crate::defect::{Broken, Defect};
use crate::http::{Form, Refusal};
use crate::jws::{self, Signed};
use crate::world::{Client, Method, World};

/// RFC 7523 §2.2.
const ASSERTION_TYPE: &str = "urn:ietf:params:oauth:client-assertion-type:jwt-bearer";
/// FAPI 2.0 §5.3.2.1: a clock up to 10 seconds ahead is to be accepted, and one more than 60 seconds ahead is not.
const LEEWAY_SECONDS: f64 = 30.0;

/// The client that this assertion speaks for.
///
/// # Errors
/// `invalid_client`, or `invalid_request` where it is sent in another way.
pub(super) async fn authenticate<'a>(
    world: &'a World,
    form: &Form,
    assertion: &str,
    now: i64,
) -> Result<&'a Client, Refusal> {
    let broken = &world.broken;
    if form.get("client_assertion_type") != Some(ASSERTION_TYPE) && !broken.is(Defect::AssertionTypeIgnored) {
        return Err(Refusal::INVALID_REQUEST);
    }
    let unreadable = match broken.is(Defect::AssertionMalformedAsServerError) {
        true => Refusal::INVALID_CLIENT.with_status(500),
        false => Refusal::INVALID_CLIENT,
    };
    if broken.is(Defect::AccessTokenAsAssertion)
        && let Some(claims) = world.issued().minted.get(assertion)
        && let Some(client) = claims["client_id"].as_str().and_then(|id| world.client(id))
    {
        return Ok(client);
    }
    let signed = Signed::read(assertion, broken).ok_or(unreadable)?;
    let subject = signed.claims.get("sub").and_then(Value::as_str);
    // RFC 7521 §4.2: client_id is not needed; if it is there it identifies the same client.
    let named = form.get("client_id");
    if named.is_some() && broken.is(Defect::AssertionClientIdRefused) {
        return Err(Refusal::INVALID_REQUEST);
    }
    if named.is_some()
        && named != subject
        && !broken.is(Defect::AssertionClientIdNotCompared)
        && !broken.is(Defect::AssertionSubNotChecked)
    {
        return Err(Refusal::INVALID_CLIENT);
    }
    let issuer = signed.claims.get("iss").and_then(Value::as_str);
    let id = match () {
        () if broken.is(Defect::AssertionSubNotChecked) => named.or(issuer),
        () => subject,
    };
    let by_key = |client: &&Client| matches!(&client.method, Method::PrivateKeyJwt(key) if jws::holds(&signed, key));
    let client = match broken.is(Defect::AssertionClientByKey) {
        true => world.clients.iter().find(by_key),
        false => id.and_then(|id| world.client(id)),
    };
    let client = client.ok_or(Refusal::INVALID_CLIENT)?;
    let Method::PrivateKeyJwt(key) = &client.method else { return Err(Refusal::INVALID_CLIENT) };
    // RFC 8725 §3.10: what jku or x5u point at is not fetched.
    let mut keys = access_token::keys_from_afar(world, &signed).await;
    keys.push(key.clone());
    if is_of_its_kind(&signed, broken) && is_signed(world, &signed, &keys) && is_right(world, client, &signed, now) {
        return Ok(client);
    }
    Err(Refusal::INVALID_CLIENT)
}

/// RFC 8725 §3.11 and §3.12, rfc7523bis §4: a JWT, or one for this alone.
fn is_of_its_kind(signed: &Signed, broken: &Broken) -> bool {
    let kind = signed.header.get("typ").and_then(Value::as_str).map(str::to_ascii_lowercase);
    match kind.as_deref() {
        None | Some("jwt" | "application/jwt") => true,
        Some("client-authentication+jwt") => !broken.is(Defect::AssertionTypRefused),
        Some(_) => broken.is(Defect::AssertionTypNotChecked),
    }
}

/// RFC 7523 §3 (9), RFC 8725 §3.1: by the client's key, under the one algorithm registered with it.
fn is_signed(world: &World, signed: &Signed, keys: &[Value]) -> bool {
    let broken = &world.broken;
    broken.is(Defect::AssertionSignatureNotChecked) || jws::is_signed_by_one_of(signed, keys, broken)
}

fn is_right(world: &World, client: &Client, signed: &Signed, now: i64) -> bool {
    let broken = &world.broken;
    let claims = &signed.claims;
    let text = |name: &str| claims.get(name).and_then(Value::as_str);
    let now = now as f64;
    let leeway = match () {
        () if broken.is(Defect::AssertionWithoutLeeway) => 0.0,
        () => LEEWAY_SECONDS,
    };
    // RFC 7523 §3 (1), (2): iss and sub are the client.
    let by_key = broken.is(Defect::AssertionClientByKey);
    let issuer = text("iss") == Some(client.id) || by_key || broken.is(Defect::AssertionIssNotChecked);
    let subject = text("sub") == Some(client.id) || by_key || broken.is(Defect::AssertionSubNotChecked);
    // rfc7523bis §4: the issuer as the sole audience, and as a string (FAPI 2.0 §5.3.2.1).
    let own = |audience: &Value| {
        audience == world.issuer.as_str()
            || broken.is(Defect::AssertionAudTokenEndpoint) && *audience == format!("{}/token", world.issuer)
    };
    let audience = match claims.get("aud") {
        _ if broken.is(Defect::AssertionAudNotChecked) => true,
        Some(Value::Array(audiences)) => broken.is(Defect::AssertionAudArray) && audiences.iter().any(own),
        Some(audience) => own(audience),
        None => false,
    };
    // RFC 7523 §3 (4): exp is needed, and is not past.
    let not_expired = match claims.get("exp") {
        None => broken.is(Defect::AssertionWithoutExpAccepted),
        Some(Value::Number(exp)) => {
            exp.as_f64().is_some_and(|exp| now < exp) || broken.is(Defect::AssertionExpiredAccepted)
        }
        Some(_) => broken.is(Defect::AssertionMalformedTime),
    };
    // RFC 7523 §3 (5), (6): nbf and iat may be there.
    let begun = |name, ignored| match claims.get(name) {
        None => true,
        Some(Value::Number(at)) => at.as_f64().is_some_and(|at| at <= now + leeway) || broken.is(ignored),
        Some(_) => broken.is(Defect::AssertionMalformedTime),
    };
    issuer
        && subject
        && audience
        && not_expired
        && begun("nbf", Defect::AssertionNotYetValidAccepted)
        && begun("iat", Defect::AssertionIssuedInFutureAccepted)
        && is_first(world, client, text("jti"))
}

/// RFC 7523 §3 (7): jti is for telling whether an assertion came before.
fn is_first(world: &World, client: &Client, jti: Option<&str>) -> bool {
    // RFC 7523 §3 (7) leaves it to the client whether there is one.
    let Some(jti) = jti else { return true };
    world.issued().assertions.insert((client.id.to_owned(), jti.to_owned()))
        || world.broken.is(Defect::AssertionReplayed)
}
