//! RFC 7515: is it signed by a key that counts?
//!
//! Takes a compact JWS and the keys that count, gives its header and claims, and yes or no. What the claims say is others'
//! business.

use aws_lc_rs::hmac;
use aws_lc_rs::signature::{self, RsaPublicKeyComponents, UnparsedPublicKey};
use base64::Engine;
use base64::alphabet;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};
use countersign_conformance::der;
use countersign_conformance::key::pem;
use serde_json::{Map, Value};

use crate::certificate::public_key;
use crate::defect::{Broken, Defect};
use crate::json::{self, Twice};

/// A compact JWS, taken apart; not believed yet.
#[derive(Debug)]
pub(crate) struct Signed {
    /// The header.
    pub(crate) header: Map<String, Value>,
    /// The claims.
    pub(crate) claims: Map<String, Value>,
    /// What the signature is over.
    input: String,
    signature: Vec<u8>,
}

impl Signed {
    /// Out of its compact form (RFC 7515 §7.1).
    pub(crate) fn read(compact: &str, broken: &Broken) -> Option<Self> {
        let parts: Vec<&str> = compact.split('.').collect();
        let (header, claims, signature) = match parts[..] {
            [header, claims, signature] => (header, claims, signature),
            [header, claims, signature, ..] if broken.is(Defect::FurtherPartsIgnored) => (header, claims, signature),
            [header, claims] if broken.is(Defect::SignatureStrippedAccepted) => (header, claims, ""),
            _ => return None,
        };
        let twice = if broken.is(Defect::DuplicateMembersFirstWins) { Twice::First } else { Twice::Last };
        Some(Self {
            header: json::object(&decoded(header, broken)?, twice)?,
            claims: claims_of(&decoded(claims, broken)?, twice, broken)?,
            input: format!("{header}.{claims}"),
            signature: decoded(signature, broken)?,
        })
    }

    fn algorithm(&self) -> &str {
        self.header.get("alg").and_then(Value::as_str).unwrap_or_default()
    }

    fn kid(&self) -> Option<&str> {
        self.header.get("kid").and_then(Value::as_str)
    }
}

/// RFC 7519 §7.2: a JSON object.
fn claims_of(octets: &[u8], twice: Twice, broken: &Broken) -> Option<Map<String, Value>> {
    if broken.is(Defect::LenientJson) {
        let text = std::str::from_utf8(octets).ok()?;
        let odd = ["NaN", "Infinity", "0x7FFFFFFF"];
        return json::object(odd.iter().fold(text.to_owned(), |text, odd| text.replace(odd, "4e9")).as_bytes(), twice);
    }
    json::object(octets, twice)
}

/// RFC 7515 §2: base64url, without padding, line breaks or anything else.
fn decoded(text: &str, broken: &Broken) -> Option<Vec<u8>> {
    if broken.is(Defect::LenientBase64) {
        let lenient = GeneralPurposeConfig::new()
            .with_decode_padding_mode(DecodePaddingMode::Indifferent)
            .with_decode_allow_trailing_bits(true);
        let text: String = text.chars().filter(|character| !character.is_whitespace()).collect();
        let text = text.replace('+', "-").replace('/', "_");
        return GeneralPurpose::new(&alphabet::URL_SAFE, lenient).decode(text).ok();
    }
    URL_SAFE_NO_PAD.decode(text).ok()
}

/// Whether it is signed by one of these, under an algorithm that is that key's (RFC 8725 §3.1).
pub(crate) fn is_signed_by_one_of(signed: &Signed, keys: &[Value], broken: &Broken) -> bool {
    // RFC 7515 §4.1.11: crit is a non-empty list, and names what has to be understood; nothing is, here.
    let critical = signed.header.get("crit").is_some_and(|crit| match crit.as_array().map(Vec::len) {
        Some(0) => !broken.is(Defect::EmptyCritIgnored) && !broken.is(Defect::CritIgnored),
        _ => !broken.is(Defect::CritIgnored),
    });
    if critical {
        return false;
    }
    if broken.is(Defect::SignatureNotChecked) || is_forged_as_broken(signed, keys, broken) {
        return true;
    }
    keys.iter().filter(|key| is_meant(signed, key)).any(|key| holds(signed, key))
}

/// RFC 8725 §3.1: under the algorithm of the key; RFC 7515 §4.1.4: the key that kid names, where it names one.
fn is_meant(signed: &Signed, key: &Value) -> bool {
    let registered = key["alg"].as_str().is_none_or(|algorithm| algorithm == signed.algorithm());
    registered && signed.header.get("kid").is_none_or(|kid| *kid == key["kid"])
}

/// Whether the signature is this key's.
pub(crate) fn holds(signed: &Signed, jwk: &Value) -> bool {
    let part = |name: &str| jwk[name].as_str().and_then(|text| URL_SAFE_NO_PAD.decode(text).ok()).unwrap_or_default();
    let verified = |algorithm: &'static dyn signature::VerificationAlgorithm, public: &[u8]| {
        UnparsedPublicKey::new(algorithm, public).verify(signed.input.as_bytes(), &signed.signature).is_ok()
    };
    // FAPI 2.0 §5.4.1: PS256, ES256, EdDSA. RFC 8725 §3.2: never none.
    match (signed.algorithm(), jwk["kty"].as_str(), jwk["crv"].as_str()) {
        ("ES256", Some("EC"), Some("P-256")) => {
            verified(&signature::ECDSA_P256_SHA256_FIXED, &point(&part("x"), &part("y")))
        }
        ("EdDSA" | "Ed25519", Some("OKP"), Some("Ed25519")) => verified(&signature::ED25519, &part("x")),
        ("PS256", Some("RSA"), _) => RsaPublicKeyComponents { n: part("n"), e: part("e") }
            .verify(&signature::RSA_PSS_2048_8192_SHA256, signed.input.as_bytes(), &signed.signature)
            .is_ok(),
        _ => false,
    }
}

/// SEC 1 §2.3.3.
fn point(x: &[u8], y: &[u8]) -> Vec<u8> {
    [&[4], x, y].concat()
}

/// The ways in which forgers got through elsewhere (RFC 8725 §2), each where it is asked for.
fn is_forged_as_broken(signed: &Signed, keys: &[Value], broken: &Broken) -> bool {
    let header = &signed.header;
    let algorithm = signed.algorithm();
    let none = broken.is(Defect::AlgNoneAccepted) && algorithm == "none"
        || broken.is(Defect::AlgNoneByCase) && algorithm != "none" && algorithm.eq_ignore_ascii_case("none");
    let stripped = broken.is(Defect::SignatureStrippedAccepted) && signed.signature.is_empty() && algorithm != "none";
    // RFC 8725 §2.1: the public key, taken for a shared secret.
    let confused = broken.is(Defect::Hs256WithPublicKey)
        && algorithm == "HS256"
        && (is_mac(signed, b"") || keys.iter().flat_map(secrets_of).any(|secret| is_mac(signed, &secret)));
    // RFC 8725 §3.10: kid as the name of a file, such as one that is empty; or as part of a query.
    let kid = signed.kid().unwrap_or_default();
    let path = broken.is(Defect::KidPath)
        && algorithm == "HS256"
        && kid.contains('/')
        && (is_mac(signed, b"") || is_mac(signed, b"\0"));
    // Whatever key the forger made the query give is the forger's.
    let query = broken.is(Defect::KidInQuery) && kid.contains('\'');
    let embedded = broken.is(Defect::EmbeddedJwkUsed) && header.get("jwk").is_some_and(|jwk| holds(signed, jwk));
    let certified = broken.is(Defect::EmbeddedX5cUsed)
        && header
            .get("x5c")
            .and_then(|chain| chain[0].as_str())
            .and_then(key_certified_by)
            .is_some_and(|jwk| holds(signed, &jwk));
    let any_padding = broken.is(Defect::Rs256ByAnyRsaKey)
        && algorithm == "RS256"
        && keys.iter().any(|key| {
            let part = |name: &str| URL_SAFE_NO_PAD.decode(key[name].as_str().unwrap_or_default()).unwrap_or_default();
            RsaPublicKeyComponents { n: part("n"), e: part("e") }
                .verify(&signature::RSA_PKCS1_2048_8192_SHA256, signed.input.as_bytes(), &signed.signature)
                .is_ok()
        });
    any_padding || none || stripped || confused || path || query || embedded || certified
}

fn is_mac(signed: &Signed, secret: &[u8]) -> bool {
    let key = hmac::Key::new(hmac::HMAC_SHA256, secret);
    hmac::verify(&key, signed.input.as_bytes(), &signed.signature).is_ok()
}

/// The ways to write a public key that were taken for a secret.
fn secrets_of(jwk: &Value) -> Vec<Vec<u8>> {
    let Some(spki) = spki_of(jwk) else { return Vec::new() };
    let pem = pem("PUBLIC KEY", &spki);
    let mut bare = jwk.clone();
    for name in ["kid", "use", "alg"] {
        bare.as_object_mut().map(|members| members.remove(name));
    }
    let x = jwk["x"].as_str().and_then(|x| URL_SAFE_NO_PAD.decode(x).ok()).unwrap_or_default();
    vec![
        x,
        pem.trim_end().as_bytes().to_vec(),
        pem.into_bytes(),
        spki,
        jwk.to_string().into_bytes(),
        bare.to_string().into_bytes(),
    ]
}

/// RFC 5480 §2.1.1, for P-256, and RFC 8410 §3.
fn spki_of(jwk: &Value) -> Option<Vec<u8>> {
    let part = |name: &str| URL_SAFE_NO_PAD.decode(jwk[name].as_str()?).ok();
    if jwk["kty"] == "RSA" {
        // RFC 8017 appendix A.1.1, RFC 3279 §2.3.1.
        let algorithm = [der::oid(&[1, 2, 840, 113_549, 1, 1, 1]), vec![0x05, 0x00]];
        let numbers = der::sequence([der::unsigned(&part("n")?), der::unsigned(&part("e")?)]);
        return Some(der::sequence([der::sequence(algorithm), der::bit_string(&numbers)]));
    }
    match (jwk["crv"].as_str()?, part("x")?) {
        ("P-256", x) => {
            let algorithm = [der::oid(&[1, 2, 840, 10045, 2, 1]), der::oid(&[1, 2, 840, 10045, 3, 1, 7])];
            Some(der::sequence([der::sequence(algorithm), der::bit_string(&point(&x, &part("y")?))]))
        }
        ("Ed25519", x) => Some(der::sequence([der::sequence([der::oid(&[1, 3, 101, 112])]), der::bit_string(&x)])),
        _ => None,
    }
}

/// The P-256 key of a certificate in `x5c`, as a JWK.
pub(crate) fn key_certified_by(certificate: &str) -> Option<Value> {
    let spki = public_key(&STANDARD.decode(certificate).ok()?)?;
    let (x, y) = spki.get(spki.len().checked_sub(64)?..)?.split_at(32);
    let encode = |octets: &[u8]| URL_SAFE_NO_PAD.encode(octets);
    Some(serde_json::json!({ "kty": "EC", "crv": "P-256", "x": encode(x), "y": encode(y) }))
}
