//! Reads access tokens with nothing of the server's own: framing by hand, signatures by aws-lc-rs, keys from `/jwks`.

use aws_lc_rs::signature::{self, UnparsedPublicKey};
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::Value;

use crate::rig::Rig;
use crate::wire::Request;

/// A token whose signature holds.
#[derive(Debug)]
pub(crate) struct Read {
    pub(crate) header: Value,
    pub(crate) claims: Value,
}

/// Reads `compact` with the keys the server publishes now.
pub(crate) async fn read(rig: &Rig, compact: &str) -> Read {
    let jwks = rig.anonymous().ask(rig.address, &Request::get("/jwks")).await.unwrap().json();
    let parts: Vec<&str> = compact.split('.').collect();
    assert_eq!(parts.len(), 3, "a compact JWS has three parts");
    let octets = |text: &str| URL_SAFE_NO_PAD.decode(text).unwrap();
    let header: Value = serde_json::from_slice(&octets(parts[0])).unwrap();
    let claims: Value = serde_json::from_slice(&octets(parts[1])).unwrap();
    let key = jwks["keys"].as_array().unwrap().iter().find(|key| key["kid"] == header["kid"]).expect("a published key");
    let member = |name: &str| octets(key[name].as_str().unwrap());
    let input = format!("{}.{}", parts[0], parts[1]);
    let (input, signed) = (input.as_bytes(), octets(parts[2]));
    let holds = match (header["alg"].as_str().unwrap(), key["kty"].as_str().unwrap()) {
        ("ES256", "EC") => {
            let point = [&[4][..], &member("x"), &member("y")].concat();
            UnparsedPublicKey::new(&signature::ECDSA_P256_SHA256_FIXED, point).verify(input, &signed)
        }
        ("EdDSA" | "Ed25519", "OKP") => UnparsedPublicKey::new(&signature::ED25519, member("x")).verify(input, &signed),
        ("PS256", "RSA") => signature::RsaPublicKeyComponents { n: member("n"), e: member("e") }.verify(
            &signature::RSA_PSS_2048_8192_SHA256,
            input,
            &signed,
        ),
        other => panic!("an algorithm and a key that do not go together: {other:?}"),
    };
    assert!(holds.is_ok(), "the signature does not hold");
    Read { header, claims }
}
