//! Reads a compact JWS and says whether one of a set of keys made it.
//!
//! It is the judge's own reader, shared with nothing it judges (RFC 7515 §5.2, RFC 7518 §3).

use aws_lc_rs::signature as sig;
use aws_lc_rs::signature::{UnparsedPublicKey, VerificationAlgorithm};
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::Value;

use crate::der;

/// Header and claims, if it is a JWT at all.
pub(crate) fn decode(token: &str) -> Option<(Value, Value)> {
    let parts: Vec<&str> = token.split('.').collect();
    let [header, claims, _] = parts[..] else { return None };
    let object = |part: &str| {
        let value: Value = serde_json::from_slice(&URL_SAFE_NO_PAD.decode(part).ok()?).ok()?;
        value.is_object().then_some(value)
    };
    Some((object(header)?, object(claims)?))
}

/// Whether a key of the set made it.
///
/// # Errors
/// In words, why not.
pub(crate) fn verify(token: &str, jwks: &Value) -> Result<(), String> {
    let (header, _) = decode(token).ok_or("not a JWT")?;
    let (input, signature) = token.rsplit_once('.').ok_or("not a JWT")?;
    let signature = URL_SAFE_NO_PAD.decode(signature).map_err(|_| "its signature is not base64url")?;
    let alg = header["alg"].as_str().ok_or("its header has no alg")?;
    let keys = jwks["keys"].as_array().ok_or("the JWK set has no keys")?;
    let kid = &header["kid"];
    let candidates: Vec<&Value> = keys.iter().filter(|key| kid.is_null() || key["kid"] == *kid).collect();
    if candidates.is_empty() {
        return Err(format!("no key of the JWK set has its kid {kid}"));
    }
    let believed = candidates.iter().any(|jwk| {
        algorithm(alg, jwk).is_some_and(|(algorithm, public)| {
            UnparsedPublicKey::new(algorithm, public).verify(input.as_bytes(), &signature).is_ok()
        })
    });
    if believed { Ok(()) } else { Err(format!("no key of the JWK set with its kid made its {alg} signature")) }
}

fn algorithm(alg: &str, jwk: &Value) -> Option<(&'static dyn VerificationAlgorithm, Vec<u8>)> {
    let algorithm: &'static dyn VerificationAlgorithm = match (alg, jwk["kty"].as_str()?, jwk["crv"].as_str()) {
        ("ES256", "EC", Some("P-256")) => &sig::ECDSA_P256_SHA256_FIXED,
        ("ES384", "EC", Some("P-384")) => &sig::ECDSA_P384_SHA384_FIXED,
        ("ES512", "EC", Some("P-521")) => &sig::ECDSA_P521_SHA512_FIXED,
        ("EdDSA" | "Ed25519", "OKP", Some("Ed25519")) => &sig::ED25519,
        ("PS256", "RSA", _) => &sig::RSA_PSS_2048_8192_SHA256,
        ("PS384", "RSA", _) => &sig::RSA_PSS_2048_8192_SHA384,
        ("PS512", "RSA", _) => &sig::RSA_PSS_2048_8192_SHA512,
        ("RS256", "RSA", _) => &sig::RSA_PKCS1_2048_8192_SHA256,
        ("RS384", "RSA", _) => &sig::RSA_PKCS1_2048_8192_SHA384,
        ("RS512", "RSA", _) => &sig::RSA_PKCS1_2048_8192_SHA512,
        _ => return None,
    };
    Some((algorithm, public(jwk)?))
}

/// The subjectPublicKey: a point, 32 octets, or an RSAPublicKey (RFC 7518 §6, RFC 8037 §2).
fn public(jwk: &Value) -> Option<Vec<u8>> {
    let octets = |member: &str| URL_SAFE_NO_PAD.decode(jwk[member].as_str()?).ok();
    match jwk["kty"].as_str()? {
        "EC" => Some([vec![4], octets("x")?, octets("y")?].concat()),
        "OKP" => octets("x"),
        "RSA" => Some(der::sequence([der::unsigned(&octets("n")?), der::unsigned(&octets("e")?)])),
        _ => None,
    }
}

/// The SubjectPublicKeyInfo of a JWK (RFC 5280 §4.1.2.7).
pub(crate) fn spki(jwk: &Value) -> Option<Vec<u8>> {
    let curve: &[u64] = match jwk["crv"].as_str() {
        Some("P-256") => &[1, 2, 840, 10045, 3, 1, 7],
        Some("P-384") => &[1, 3, 132, 0, 34],
        Some("P-521") => &[1, 3, 132, 0, 35],
        _ => &[],
    };
    let algorithm = match jwk["kty"].as_str()? {
        "EC" => der::sequence([der::oid(&[1, 2, 840, 10045, 2, 1]), der::oid(curve)]),
        "OKP" => der::sequence([der::oid(&[1, 3, 101, 112])]),
        _ => der::sequence([der::oid(&[1, 2, 840, 113_549, 1, 1, 1]), vec![5, 0]]),
    };
    Some(der::sequence([algorithm, der::bit_string(&public(jwk)?)]))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::forge::{Signature, compact};
    use crate::key::{JwsAlgorithm, Key, KeyKind};

    #[test]
    fn what_a_key_signed_verifies_under_it_and_under_no_other() {
        let cases = [
            (KeyKind::P256, JwsAlgorithm::Es256),
            (KeyKind::P384, JwsAlgorithm::Es384),
            (KeyKind::Ed25519, JwsAlgorithm::EdDsa),
            (KeyKind::Rsa2048, JwsAlgorithm::Ps256),
            (KeyKind::Rsa2048, JwsAlgorithm::Rs256),
        ];
        for (kind, algorithm) in cases {
            let key = Key::generate(kind);
            assert_eq!(spki(&key.jwk()), Some(key.spki()));
            let mut jwk = key.jwk();
            jwk["kid"] = "k".into();
            let header = json!({ "alg": algorithm.as_str(), "kid": "k" }).to_string();
            let token = compact(&header, "{}", Signature::By(algorithm, &key));
            assert_eq!(verify(&token, &json!({ "keys": [jwk] })), Ok(()), "{kind:?}");
            let mut other = Key::generate(kind).jwk();
            other["kid"] = "k".into();
            assert!(verify(&token, &json!({ "keys": [other] })).is_err());
            jwk["kid"] = "l".into();
            assert!(verify(&token, &json!({ "keys": [jwk] })).is_err());
        }
        assert!(verify("a.b.c", &json!({ "keys": [] })).is_err());
    }
}
