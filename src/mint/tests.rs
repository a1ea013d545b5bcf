//! Tokens as the resource server's own verifier reads them.

use std::collections::HashSet;
use std::time::Duration;

use countersign_resource_server::confirmation::CertificateThumbprint;
use countersign_resource_server::token::claims::AccessTokenClaims;
use countersign_resource_server::token::jwks::KeySet;
use countersign_resource_server::token::jws::{Expectation, KeyChoice, MAX_TOKEN_BYTES, Untyped, Verified, verify};

use super::fixture::{self, ISSUER, NOW};
use super::*;
use crate::registry::RegistryVersion;

fn read(compact: &str, jwks: &str, algorithm: SigningAlgorithm) -> Verified {
    let keys = KeySet::parse(jwks.as_bytes()).unwrap();
    let expected = Expectation {
        algorithms: &[algorithm],
        types: &[ACCESS_TOKEN_TYPE],
        untyped: Untyped::Refuse,
        key: KeyChoice::ByKid,
        max_bytes: MAX_TOKEN_BYTES,
    };
    verify(compact, &keys, &expected).unwrap()
}

fn granted() -> Grant {
    fixture::grant(fixture::client("client", "partner", 7))
}

#[test]
fn what_is_signed_is_verified_under_every_algorithm() {
    let mint = fixture::mint();
    let jwks = mint.keys().published(NOW);
    for algorithm in ALGORITHMS {
        let token = mint.sign_grant(Grant { signing_alg: algorithm, ..granted() }, NOW).unwrap();
        let verified = read(&token.compact, &jwks.body, algorithm);
        assert_eq!(verified.header().kid.as_deref(), Some(token.kid()));
        assert_eq!(verified.header().typ.as_deref(), Some("at+jwt"));
        assert_eq!(verified.key().thumbprint(), token.kid(), "kid is the RFC 7638 thumbprint");
    }
}

#[test]
fn every_claim_comes_from_the_grant() {
    let mint = fixture::mint();
    let token = mint.sign_grant(granted(), NOW).unwrap();
    let verified = read(&token.compact, &mint.keys().published(NOW).body, SigningAlgorithm::ES256);
    let claims: AccessTokenClaims = verified.claims().unwrap();
    assert_eq!(
        claims,
        AccessTokenClaims {
            iss: ISSUER.to_owned(),
            sub: "client".to_owned(),
            aud: "https://api.example".to_owned(),
            exp: 1_800_000_300,
            iat: 1_800_000_000,
            jti: token.jti().to_owned(),
            client_id: "client".to_owned(),
            scope: Scope::parse("read write").unwrap(),
            cnf: countersign_resource_server::confirmation::Confirmation {
                x5t_s256: CertificateThumbprint::of(b"certificate")
            },
            participant_id: "partner".to_owned(),
            roles: vec!["payments".to_owned()],
            environment: "production".to_owned(),
            anchor: Some("anchor".to_owned()),
            registry_version: 7,
            status: None,
        }
    );
}

#[test]
fn the_version_is_the_one_the_decision_was_taken_under_not_the_one_the_record_was_read_at() {
    let mut grant = granted();
    grant.client.version = RegistryVersion(9);
    let mint = fixture::mint();
    let token = mint.sign_grant(grant, NOW).unwrap();
    let verified = read(&token.compact, &mint.keys().published(NOW).body, SigningAlgorithm::ES256);
    assert_eq!(verified.claims::<AccessTokenClaims>().unwrap().registry_version, 9);
}

fn expiry_where_no_later_than(instant: UnixTime) -> Result<i64, MintRefusal> {
    let grant = Grant { expires_no_later_than: instant, ..granted() };
    fixture::mint().sign_grant(grant, NOW).map(|token| token.expires_at())
}

#[test]
fn expiry_is_rounded_down_and_something_must_be_left() {
    // NOW is 123 ms into its second.
    let second = NOW.as_seconds();
    assert_eq!(expiry_where_no_later_than(UnixTime::from_millis(second * 1_000 + 2_999)), Ok(second + 2));
    assert_eq!(expiry_where_no_later_than(UnixTime::from_seconds(second + 1)), Ok(second + 1));
    assert_eq!(expiry_where_no_later_than(UnixTime::from_millis(second * 1_000 + 999)), Err(MintRefusal::NothingLeft));
    assert_eq!(expiry_where_no_later_than(NOW), Err(MintRefusal::NothingLeft));
    assert_eq!(expiry_where_no_later_than(UnixTime::from_seconds(0)), Err(MintRefusal::NothingLeft));
}

#[test]
fn no_token_lives_longer_than_an_hour() {
    let hour = NOW.after(Duration::from_secs(3_600)).as_seconds();
    assert_eq!(expiry_where_no_later_than(UnixTime::from_seconds(hour)), Ok(hour));
    assert_eq!(expiry_where_no_later_than(UnixTime::from_millis(i64::MAX)), Ok(hour));
}

#[test]
fn an_algorithm_without_a_key_signs_nothing() {
    let refused = fixture::mint().sign_grant(Grant { signing_alg: SigningAlgorithm::Ed25519, ..granted() }, NOW);
    assert_eq!(refused.unwrap_err(), MintRefusal::NoSigningKey { algorithm: SigningAlgorithm::Ed25519 });
}

#[test]
fn ids_sort_by_time_and_never_repeat() {
    let mint = fixture::mint();
    let jti = |now| mint.sign_grant(granted(), now).unwrap().jti().to_owned();
    let ids: Vec<String> = (0..200).map(|index| jti(NOW.after(Duration::from_millis(index)))).collect();
    assert!(ids.is_sorted());
    assert_eq!(&ids[0][..12], "01a3185c507b", "{}", ids[0]);
    assert!(ids.iter().all(|id| id.len() == 12 + 16));
    let of_one_instant: HashSet<String> = (0..200).map(|_| jti(NOW)).collect();
    assert_eq!(of_one_instant.len(), 200);
}

#[test]
fn a_token_is_not_printed() {
    let token = fixture::mint().sign_grant(granted(), NOW).unwrap();
    let access = AccessToken { access_token: token.compact.clone(), expires_in: 1, scope: token.scope, jti: token.jti };
    assert!(!format!("{access:?}").contains(&token.compact));
}

#[test]
fn keys_are_the_pkcs8_that_openssl_reads() {
    for algorithm in ALGORITHMS {
        let pem = signer::generate(algorithm).unwrap();
        let key = openssl::pkey::PKey::private_key_from_pem(pem.as_bytes()).unwrap();
        let again = String::from_utf8(key.private_key_to_pem_pkcs8().unwrap()).unwrap();
        let (ours, theirs) = (Signer::from_pem(algorithm, &pem).unwrap(), Signer::from_pem(algorithm, &again).unwrap());
        assert_eq!(ours.kid(), theirs.kid(), "and what openssl writes is read here");
    }
}

#[test]
fn a_key_of_another_kind_or_none_is_not_read() {
    let es256 = signer::generate(SigningAlgorithm::ES256).unwrap();
    for algorithm in [SigningAlgorithm::EdDSA, SigningAlgorithm::PS256] {
        assert_eq!(Signer::from_pem(algorithm, &es256).unwrap_err(), KeyError::Unreadable);
    }
    let p384 = openssl::ec::EcGroup::from_curve_name(openssl::nid::Nid::SECP384R1).unwrap();
    let p384 = openssl::pkey::PKey::from_ec_key(openssl::ec::EcKey::generate(&p384).unwrap()).unwrap();
    let p384 = String::from_utf8(p384.private_key_to_pem_pkcs8().unwrap()).unwrap();
    for wrong in
        [p384.as_str(), "", "-----BEGIN PRIVATE KEY-----\n!\n-----END PRIVATE KEY-----", &es256[..es256.len() / 2]]
    {
        assert_eq!(Signer::from_pem(SigningAlgorithm::ES256, wrong).unwrap_err(), KeyError::Unreadable);
    }
}

#[test]
fn the_public_keys_are_public_only() {
    let jwks = fixture::ring().published(NOW);
    let set: serde_json::Value = serde_json::from_str(&jwks.body).unwrap();
    let keys = set["keys"].as_array().unwrap();
    assert_eq!(keys.len(), 6, "one that signs and the next, for each algorithm");
    for key in keys {
        let mut members: Vec<&str> = key.as_object().unwrap().keys().map(String::as_str).collect();
        members.sort_unstable();
        let expected: &[&str] = match key["kty"].as_str().unwrap() {
            "EC" => &["alg", "crv", "kid", "kty", "use", "x", "y"],
            "OKP" => &["alg", "crv", "kid", "kty", "use", "x"],
            _ => &["alg", "e", "kid", "kty", "n", "use"],
        };
        assert_eq!(members, expected);
    }
}

/// RFC 8417 §4.2: a security event token is no access token, whatever it says, and an access token is no event.
#[test]
fn a_security_event_is_never_taken_for_an_access_token() {
    use countersign_resource_server::token::jws::JwsError;
    let mint = fixture::mint();
    let keys = KeySet::parse(mint.keys().published(NOW).body.as_bytes()).unwrap();
    let verified = |compact: &str, typ: &str| {
        let expected = Expectation {
            algorithms: &[SigningAlgorithm::ES256],
            types: &[typ],
            untyped: Untyped::Refuse,
            key: KeyChoice::ByKid,
            max_bytes: MAX_TOKEN_BYTES,
        };
        verify(compact, &keys, &expected).map(|_| ())
    };
    let event = SecurityEvent {
        audience: "partner".to_owned(),
        jti: "1".to_owned(),
        issued_at: NOW,
        event: format!("{ISSUER}/events/expiring"),
        body: serde_json::json!({ "kind": "leaf" }),
    };
    let event = mint.sign_security_event(&event, NOW).unwrap();
    assert_eq!(verified(&event, SECURITY_EVENT_TYPE), Ok(()));
    assert_eq!(verified(&event, ACCESS_TOKEN_TYPE), Err(JwsError::Type));

    // The claims of a token that is good to the last one, signed by the very key that signs tokens: the type alone tells.
    let token = mint.sign_grant(granted(), NOW).unwrap().compact;
    assert_eq!(verified(&token, ACCESS_TOKEN_TYPE), Ok(()));
    assert_eq!(verified(&token, SECURITY_EVENT_TYPE), Err(JwsError::Type));
    let claims: serde_json::Value =
        read(&token, &mint.keys().published(NOW).body, SigningAlgorithm::ES256).claims().unwrap();
    let ring = mint.keys().current();
    let key = ring.signing(SigningAlgorithm::ES256, NOW).unwrap();
    let disguised = |typ: &str| key.sign(typ, claims.to_string().as_bytes()).unwrap();
    assert_eq!(verified(&disguised(ACCESS_TOKEN_TYPE), ACCESS_TOKEN_TYPE), Ok(()));
    for typ in [SECURITY_EVENT_TYPE, "application/secevent+jwt", "SECEVENT+JWT"] {
        assert_eq!(verified(&disguised(typ), ACCESS_TOKEN_TYPE), Err(JwsError::Type), "{typ}");
    }
}

#[test]
fn a_security_event_has_no_claim_that_makes_an_access_token() {
    let mint = fixture::mint();
    let event = SecurityEvent {
        audience: "partner".to_owned(),
        jti: "1".to_owned(),
        issued_at: NOW,
        event: "https://as.example/events/expiring".to_owned(),
        body: serde_json::json!({}),
    };
    let compact = mint.sign_security_event(&event, NOW).unwrap();
    let payload = compact.split('.').nth(1).unwrap();
    let payload = base64::Engine::decode(&base64::engine::general_purpose::URL_SAFE_NO_PAD, payload).unwrap();
    let claims: serde_json::Map<String, serde_json::Value> = serde_json::from_slice(&payload).unwrap();
    let names: Vec<_> = claims.keys().map(String::as_str).collect();
    assert_eq!(names, ["iss", "aud", "iat", "jti", "events"]);
}
