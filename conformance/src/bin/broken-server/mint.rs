//! Access tokens: RFC 9068 §2, bound as RFC 8705 §3.1 says.

use aws_lc_rs::rand;
use base64::Engine;
use base64::engine::general_purpose::{URL_SAFE, URL_SAFE_NO_PAD};
use countersign_conformance::JwsAlgorithm;
use countersign_conformance::forge::{Members, Signature, compact};
use serde_json::{Map, Value, json};
use sha2::{Digest, Sha256};

use crate::certificate::public_key;
use crate::defect::{Broken, Defect};
use crate::world::World;

/// How long a token is good for.
pub(crate) const LIFETIME_SECONDS: i64 = 600;

/// What a token says.
pub(crate) struct Access<'a> {
    pub(crate) client: &'a str,
    pub(crate) scope: &'a str,
    /// A string, or an array of several.
    pub(crate) audience: Value,
    /// SHA-256 of the client's certificate.
    pub(crate) bound_to: Vec<u8>,
}

/// A token, signed. What it ought to say is remembered, so that a token which says it wrongly still works here.
pub(crate) fn access_token(world: &World, access: &Access<'_>, now: i64) -> String {
    let broken = &world.broken;
    if broken.is(Defect::TokenRepeated)
        && let Some(token) = last_of(world, access)
    {
        return token;
    }
    let jti = random(16);
    // RFC 9068 §2.2, in the order of the text; §2.2.3: scope; RFC 8705 §3.1: cnf.
    let claims = Members::new()
        .with("iss", world.issuer.as_str())
        .with("exp", now + LIFETIME_SECONDS)
        .with("aud", access.audience.clone())
        .with("sub", access.client)
        .with("client_id", access.client)
        .with("iat", now)
        .with("jti", jti)
        .with("scope", access.scope)
        .with("cnf", json!({ "x5t#S256": URL_SAFE_NO_PAD.encode(&access.bound_to) }));
    // RFC 9068 §2.1: typ at+jwt; signed, never none.
    let header = Members::new().with("typ", "at+jwt").with("alg", "ES256").with("kid", world.signing.jwk_thumbprint());
    let token = signed(world, &bent_header(header, broken), &bent_claims(world, access, claims.clone(), now));
    if let Ok(Value::Object(claims)) = serde_json::from_str(&claims.to_json()) {
        world.issued().minted.insert(token.clone(), claims);
    }
    token
}

/// A token that this client got before for the same scope and certificate.
fn last_of(world: &World, access: &Access<'_>) -> Option<String> {
    let cnf = json!({ "x5t#S256": URL_SAFE_NO_PAD.encode(&access.bound_to) });
    let is_same = |claims: &Map<String, Value>| {
        claims["client_id"] == access.client && claims["scope"] == access.scope && claims["cnf"] == cnf
    };
    let issued = world.issued();
    let is_revoked =
        |claims: &Map<String, Value>| claims["jti"].as_str().is_some_and(|jti| issued.revoked.contains(jti));
    let mut same = issued.minted.iter().filter(|(_, claims)| is_same(claims) && !is_revoked(claims));
    same.next().map(|(token, _)| token.clone())
}

fn signed(world: &World, header: &Members, claims: &Members) -> String {
    let broken = &world.broken;
    match () {
        () if broken.is(Defect::TokenUnsigned) => {
            compact(header.clone().with("alg", "none").to_json(), claims.to_json(), Signature::None)
        }
        () if broken.is(Defect::TokenHs256) => {
            compact(header.clone().with("alg", "HS256").to_json(), claims.to_json(), Signature::Hs256(b"secret"))
        }
        () => by_this_server(world, header, claims),
    }
}

/// Signed with the server's key.
pub(crate) fn by_this_server(world: &World, header: &Members, claims: &Members) -> String {
    compact(header.to_json(), claims.to_json(), Signature::By(JwsAlgorithm::Es256, &world.signing))
}

fn bent_header(header: Members, broken: &Broken) -> Members {
    match () {
        () if broken.is(Defect::TypJwt) => header.with("typ", "JWT"),
        () if broken.is(Defect::TypMissing) => header.without("typ"),
        () if broken.is(Defect::TokenWithJku) => {
            header.with("jku", "https://keys.example/jwks").with("x5u", "https://keys.example/certificate")
        }
        () if broken.is(Defect::TokenWithoutKid) => header.without("kid"),
        () => header,
    }
}

fn bent_claims(world: &World, access: &Access<'_>, mut claims: Members, now: i64) -> Members {
    let broken = &world.broken;
    let absent = [
        (Defect::IssMissing, "iss"),
        (Defect::ExpMissing, "exp"),
        (Defect::AudMissing, "aud"),
        (Defect::SubMissing, "sub"),
        (Defect::ClientIdClaimMissing, "client_id"),
        (Defect::IatMissing, "iat"),
        (Defect::JtiMissing, "jti"),
        (Defect::ScopeClaimMissing, "scope"),
        (Defect::CnfMissing, "cnf"),
    ];
    for (_, name) in absent.into_iter().filter(|(defect, _)| broken.is(*defect)) {
        claims = claims.without(name);
    }
    let scopes: Vec<&str> = access.scope.split(' ').collect();
    let replaced = [
        (Defect::IssDiffers, "iss", json!("https://issuer.example")),
        (Defect::ExpString, "exp", json!((now + LIFETIME_SECONDS).to_string())),
        (Defect::AudIsClient, "aud", json!(access.client)),
        (Defect::AudDiffers, "aud", json!("https://default.example")),
        (Defect::SubDiffers, "sub", json!("client-b-or-not")),
        (Defect::ClientIdClaimDiffers, "client_id", json!("client-b-or-not")),
        (Defect::JtiRepeated, "jti", json!("AAAAAAAAAAAAAAAAAAAAAA")),
        (Defect::ScopeClaimAsArray, "scope", json!(scopes)),
    ];
    for (_, name, value) in replaced.into_iter().filter(|(defect, ..)| broken.is(*defect)) {
        claims = claims.with(name, value);
    }
    match bent_thumbprint(world, &access.bound_to) {
        Some(thumbprint) => claims.with("cnf", json!({ "x5t#S256": thumbprint })),
        None => claims,
    }
}

/// RFC 8705 §3.1: base64url, not padded, of the SHA-256 of the certificate; or not.
fn bent_thumbprint(world: &World, digest: &[u8]) -> Option<String> {
    let broken = &world.broken;
    let hex = || digest.iter().map(|octet| format!("{octet:02x}")).collect();
    match () {
        () if broken.is(Defect::CnfOfOtherCertificate) => Some(world.server.thumbprint()),
        () if broken.is(Defect::CnfOfKey) => {
            Some(URL_SAFE_NO_PAD.encode(Sha256::digest(public_key(world.server.certificate())?)))
        }
        () if broken.is(Defect::CnfHex) => Some(hex()),
        () if broken.is(Defect::CnfPadded) => Some(URL_SAFE.encode(digest)),
        // As long as a SHA-1, which is what a case can see of it.
        () if broken.is(Defect::CnfSha1) => Some(URL_SAFE_NO_PAD.encode(&digest[..digest.len().min(20)])),
        () => None,
    }
}

/// So many random octets, in base64url.
#[expect(clippy::expect_used, reason = "the system has randomness, or there would be no keys")]
pub(crate) fn random(octets: usize) -> String {
    let mut out = vec![0; octets];
    rand::fill(&mut out).expect("randomness");
    URL_SAFE_NO_PAD.encode(out)
}
