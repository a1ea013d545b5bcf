//! Token introspection: RFC 7662, signed answers by RFC 9701.

use countersign_conformance::forge::{Members, Signature, compact};
use hyper::header::{CACHE_CONTROL, HeaderValue};
use serde_json::{Map, Value, json};

use crate::access_token::{self, Trust};
use crate::client_auth;
use crate::defect::Defect;
use crate::http::{Answer, Asked, Form, Refusal, json_answer, text_answer};
use crate::mint;
use crate::world::World;

/// RFC 9701 §4 and §5.
const MEDIA_TYPE: &str = "application/token-introspection+jwt";

/// The answer to an introspection request.
pub(crate) async fn answer(world: &World, asked: &Asked, now: i64) -> Answer {
    let introspected = introspect(world, asked, now).await;
    let mut answer = introspected.unwrap_or_else(|refusal| refusal.into_answer(asked, &world.broken));
    answer.headers_mut().insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    answer
}

async fn introspect(world: &World, asked: &Asked, now: i64) -> Result<Answer, Refusal> {
    let broken = &world.broken;
    let form = Form::of(asked, broken)?;
    // RFC 7662 §2.1: whoever asks has to be authorized. A client that is no protected resource learns nothing.
    let reader = match client_auth::authenticate(world, asked, &form, now).await {
        Ok(authenticated) => authenticated.client.id,
        Err(_) if broken.is(Defect::IntrospectionWithoutAuthentication) => "nobody",
        Err(refusal) => return Err(refusal),
    };
    let may_read = world.client(reader).is_none_or(|client| client.introspects);
    let token = match form.get("token") {
        Some(token) => token,
        // RFC 7662 §2.1: REQUIRED.
        None if broken.is(Defect::IntrospectionWithoutToken) => "",
        None => return Err(Refusal::INVALID_REQUEST),
    };
    let trust = Trust { issuer: &world.issuer, audience: &world.resource };
    let mut claims = access_token::claims(world, token, trust, now).await.filter(|_| may_read);
    // RFC 7662 §2.1: a wrong hint hides nothing.
    if broken.is(Defect::IntrospectionHintBelieved)
        && form.get("token_type_hint").is_some_and(|hint| hint != "access_token")
    {
        claims = None;
    }
    if claims.is_none() && broken.is(Defect::InactiveAsError) {
        return Err(Refusal { error: "invalid_token", ..Refusal::INVALID_REQUEST });
    }
    let said = said_of(world, token, claims);
    let is_wanted_signed = asked.header("accept").is_some_and(|accepted| accepted.contains(MEDIA_TYPE));
    let is_wanted_signed = is_wanted_signed || said["active"] == false && broken.is(Defect::SignedIntrospectionAlways);
    if is_wanted_signed && !broken.is(Defect::SignedIntrospectionAsJson) {
        return Ok(signed(world, reader, said, now));
    }
    // RFC 7662 §2.2: application/json.
    Ok(match broken.is(Defect::IntrospectionAsText) {
        true => text_answer(200, "text/plain", Value::Object(said).to_string()),
        false => json_answer(200, &Value::Object(said)),
    })
}

/// RFC 7662 §2.2: what is told of a token; of one that is not active, nothing else.
fn said_of(world: &World, token: &str, claims: Option<Map<String, Value>>) -> Map<String, Value> {
    let broken = &world.broken;
    let active = claims.is_some() || broken.is(Defect::EverythingActive);
    let mut said = claims.unwrap_or_default();
    if active {
        said.insert("token_type".to_owned(), "Bearer".into());
    } else if broken.is(Defect::InactiveTellsMore) {
        said = world.issued().minted.get(token).cloned().unwrap_or_default();
        said.insert("reason".to_owned(), "not good here and now".into());
    }
    let flag = if broken.is(Defect::ActiveAsString) { json!(active.to_string()) } else { json!(active) };
    said.insert("active".to_owned(), flag);
    // RFC 8705 §3.2: cnf at the top.
    if broken.is(Defect::IntrospectionWithoutCnf) {
        said.remove("cnf");
    }
    let replaced = [
        (Defect::IntrospectionTellsOther, "client_id", json!("client-b-or-not")),
        (Defect::IntrospectionTellsOther, "sub", json!("client-b-or-not")),
        (Defect::IntrospectionTellsOther, "iss", json!("https://issuer.example")),
        (Defect::IntrospectionTellsOther, "username", json!("client")),
        (Defect::IntrospectionTypes, "exp", json!("in ten minutes")),
        (Defect::IntrospectionTypes, "iat", json!("now")),
        (Defect::IntrospectionTypes, "sub", json!(1)),
        (Defect::IntrospectionTypes, "jti", json!(2)),
        (Defect::IntrospectionTypes, "token_type", json!(["Bearer"])),
    ];
    for (_, name, value) in replaced.into_iter().filter(|(defect, ..)| active && broken.is(*defect)) {
        said.insert(name.to_owned(), value);
    }
    if broken.is(Defect::IntrospectionScopeAsArray) && active {
        let scopes: Vec<Value> =
            said.get("scope").and_then(Value::as_str).unwrap_or_default().split(' ').map(Value::from).collect();
        said.insert("scope".to_owned(), scopes.into());
    }
    said
}

/// RFC 9701 §5: a JWT for the reader alone, of a type of its own, that can be taken for no access token.
fn signed(world: &World, reader: &str, said: Map<String, Value>, now: i64) -> Answer {
    let broken = &world.broken;
    let typ = if broken.is(Defect::SignedIntrospectionTyp) { "JWT" } else { "token-introspection+jwt" };
    let header = Members::new().with("typ", typ).with("alg", "ES256").with("kid", world.signing.jwk_thumbprint());
    let issuer = if broken.is(Defect::SignedIntrospectionIss) { "https://issuer.example" } else { &world.issuer };
    let mut claims = Members::new().with("iss", issuer);
    if !broken.is(Defect::SignedIntrospectionWithoutAud) {
        claims = claims.with("aud", reader);
    }
    if !broken.is(Defect::SignedIntrospectionWithoutIat) {
        claims = claims.with("iat", now);
    }
    if broken.is(Defect::SignedIntrospectionWithSubAndExp) {
        claims = claims.with("sub", "client-a").with("exp", now + mint::LIFETIME_SECONDS);
    }
    let claims = match broken.is(Defect::SignedIntrospectionFlat) {
        true => said.into_iter().fold(claims, |claims, (name, value)| claims.with(&name, value)),
        false => claims.with("token_introspection", said),
    };
    let token = match broken.is(Defect::SignedIntrospectionUnsigned) {
        true => compact(header.with("alg", "none").to_json(), claims.to_json(), Signature::None),
        false => mint::by_this_server(world, &header, &claims),
    };
    let media_type = if broken.is(Defect::SignedIntrospectionMediaType) { "application/jwt" } else { MEDIA_TYPE };
    text_answer(200, media_type, token)
}
