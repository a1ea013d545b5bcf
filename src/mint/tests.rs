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
