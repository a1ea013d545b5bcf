//! Did the client's trust domain sign this JWT-SVID, for this server, and is it still good? (JWT-SVID,
//! draft-schwenkschuster-oauth-spiffe-client-auth §3.1)
//!
//! Takes the assertion, the JWT authorities of the trust domain that the registered SPIFFE ID resides in, and that id;
//! gives yes or a refusal. Nothing is used up: a JWT-SVID need have no `jti` and is made to be shown again (§7.1). Whoever
//! copies one gets no token all the same without the certificate that the token is bound to.

use countersign_resource_server::time::UnixTime;
use countersign_resource_server::token::json;
use countersign_resource_server::token::jwks::KeySet;
use countersign_resource_server::token::jws::{
    self, Expectation, KeyChoice, MAX_TOKEN_BYTES, SigningAlgorithm, Untyped,
};
use serde_json::Value;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;

use super::ClientAuthRefusal;
use super::private_key_jwt::{LEEWAY, date, refusal_of};

/// JWT-SVID §2.1, as far as signatures are verified here: RS256 is never taken, and EdDSA is not in its table.
pub const ALGORITHMS: &[SigningAlgorithm] = &[SigningAlgorithm::ES256, SigningAlgorithm::PS256];

pub(super) fn check(
    assertion: &str,
    keys: &KeySet,
    spiffe_id: &str,
    issuer: &str,
    now: UnixTime,
) -> Result<(), ClientAuthRefusal> {
    let expected = Expectation {
        algorithms: ALGORITHMS,
        types: &["JWT", "JOSE"], // JWT-SVID §2.3
        untyped: Untyped::Accept,
        // §2.2 leaves `kid` optional. A bundle has several keys at most times: here it says which.
        key: KeyChoice::ByKid,
        max_bytes: MAX_TOKEN_BYTES,
    };
    let verified = jws::verify(assertion, keys, &expected).map_err(refusal_of)?;
    check_header(assertion)?;
    let claims = verified.members().map_err(refusal_of)?;
    // §3.1: the SPIFFE ID of the workload, which is compared as text because it has one spelling.
    if claims.get("sub").and_then(Value::as_str) != Some(spiffe_id) {
        return Err(ClientAuthRefusal::AssertionSubjectWrong);
    }
    // The draft, §3.1 item 3: the issuer identifier "as its sole value". JWT-SVIDs have it in an array mostly (§3.2).
    let sole = match claims.get("aud") {
        Some(Value::String(audience)) => Some(audience.as_str()),
        Some(Value::Array(audiences)) => match audiences.as_slice() {
            [audience] => audience.as_str(),
            _ => None,
        },
        _ => None,
    };
    if sole != Some(issuer) {
        return Err(ClientAuthRefusal::AssertionAudienceWrong);
    }
    // §3.3: required; no upper limit is set, and none here. RFC 7519 §4.1.4: "on or after" it is not taken.
    let expires_at = date(&claims, "exp")?.ok_or(ClientAuthRefusal::AssertionExpiryMissing)?;
    if now >= expires_at {
        return Err(ClientAuthRefusal::AssertionExpired);
    }
    // RFC 7519 §4.1.5, §4.1.6, where they are there.
    if date(&claims, "nbf")?.is_some_and(|not_before| not_before > now.after(LEEWAY)) {
        return Err(ClientAuthRefusal::AssertionNotYetValid);
    }
    if date(&claims, "iat")?.is_some_and(|issued_at| issued_at > now.after(LEEWAY)) {
        return Err(ClientAuthRefusal::AssertionFromTheFuture);
    }
    Ok(())
}

/// JWT-SVID §2: "Any header not described here, registered or private, MUST NOT be included".
fn check_header(assertion: &str) -> Result<(), ClientAuthRefusal> {
    let encoded = assertion.split('.').next().unwrap_or_default();
    let members = URL_SAFE_NO_PAD.decode(encoded).ok().and_then(|header| json::parse_object(&header).ok());
    let members = members.ok_or(ClientAuthRefusal::AssertionUnreadable)?;
    let described = |name: &String| matches!(name.as_str(), "alg" | "kid" | "typ");
    if members.keys().all(described) { Ok(()) } else { Err(ClientAuthRefusal::AssertionHeaderForeign) }
}
