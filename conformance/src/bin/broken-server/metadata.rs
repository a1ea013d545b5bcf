//! What this server tells about itself: RFC 8414, RFC 7517 §5 and RFC 9728.

use countersign_conformance::{Key, KeyKind};
use hyper::header::{CONTENT_TYPE, HeaderValue};
use serde_json::{Value, json};

use crate::defect::Defect;
use crate::http::{Answer, json_answer};
use crate::world::{OTHER_SCOPE, SCOPE, SECOND_SCOPE, World};

/// The algorithms an assertion may be signed with (FAPI 2.0 §5.4.1).
const ALGORITHMS: [&str; 3] = ["PS256", "ES256", "EdDSA"];
/// RFC 8705 §2.1.1 and §2.2.1, RFC 7523.
const METHODS: [&str; 3] = ["tls_client_auth", "self_signed_tls_client_auth", "private_key_jwt"];

/// RFC 8414 §3.2.
pub(crate) fn of_server(world: &World) -> Answer {
    let (issuer, broken) = (&world.issuer, &world.broken);
    let mut metadata = json!({
        // RFC 8414 §3.3: identical to the issuer that the URL was made of.
        "issuer": issuer,
        "token_endpoint": format!("{issuer}/token"),
        "jwks_uri": format!("{issuer}/jwks"),
        "revocation_endpoint": format!("{issuer}/revoke"),
        "introspection_endpoint": format!("{issuer}/introspect"),
        // RFC 8414 §2: REQUIRED. There is no authorization endpoint that any of them would work at.
        "response_types_supported": ["none"],
        "grant_types_supported": ["client_credentials"],
        "scopes_supported": [SCOPE, SECOND_SCOPE, OTHER_SCOPE],
        // RFC 8705 §3.3.
        "tls_client_certificate_bound_access_tokens": true,
        "introspection_signing_alg_values_supported": ["ES256"],
        // RFC 8705 §5: where a client with a certificate asks. The same place, here.
        "mtls_endpoint_aliases": {
            "token_endpoint": format!("{issuer}/token"),
            "revocation_endpoint": format!("{issuer}/revoke"),
            "introspection_endpoint": format!("{issuer}/introspect"),
        },
        "protected_resources": [world.resource],
    });
    for endpoint in ["token", "revocation", "introspection"] {
        metadata[format!("{endpoint}_endpoint_auth_methods_supported")] = json!(METHODS);
        // RFC 8414 §2: needed where private_key_jwt is among the methods; never none.
        metadata[format!("{endpoint}_endpoint_auth_signing_alg_values_supported")] = json!(ALGORITHMS);
    }
    let members = metadata.as_object_mut().into_iter();
    for members in members {
        let mut remove = |defect, names: &[&str]| {
            if broken.is(defect) {
                members.retain(|name, _| !names.contains(&name.as_str()));
            }
        };
        remove(Defect::MetadataWithoutTokenEndpoint, &["token_endpoint"]);
        remove(Defect::MetadataWithoutJwksUri, &["jwks_uri"]);
        remove(Defect::MetadataWithoutResponseTypes, &["response_types_supported"]);
        remove(Defect::MetadataWithoutGrantTypes, &["grant_types_supported"]);
        remove(Defect::MetadataWithoutMethods, &["token_endpoint_auth_methods_supported"]);
        remove(
            Defect::MetadataWithoutSigningAlgorithms,
            &[
                "token_endpoint_auth_signing_alg_values_supported",
                "introspection_endpoint_auth_signing_alg_values_supported",
                "revocation_endpoint_auth_signing_alg_values_supported",
            ],
        );
        remove(Defect::MetadataWithoutBoundFlag, &["tls_client_certificate_bound_access_tokens"]);
    }
    let replaced = [
        (Defect::MetadataIssuerDiffers, "issuer", json!("https://issuer.example")),
        (Defect::MetadataIssuerWithSlash, "issuer", json!(format!("{issuer}/"))),
        (Defect::MetadataIssuerWithoutTls, "issuer", json!(issuer.replace("https:", "http:"))),
        (Defect::MetadataGrantTypesAsString, "grant_types_supported", json!("client_credentials")),
        (Defect::MetadataJwksUriWithoutTls, "jwks_uri", json!(format!("{issuer}/jwks").replace("https:", "http:"))),
        (Defect::MetadataEndpointsWithoutTls, "introspection_endpoint", json!("http://localhost/introspect")),
        (Defect::MetadataEndpointsWithoutTls, "revocation_endpoint", json!("http://localhost/revoke")),
        (Defect::MetadataWithPasswordGrant, "grant_types_supported", json!(["client_credentials", "password"])),
        (Defect::MetadataWithImplicitGrant, "grant_types_supported", json!(["client_credentials", "implicit"])),
        (Defect::MetadataWithImplicitGrant, "response_types_supported", json!(["token"])),
        (Defect::MetadataIntrospectionNone, "introspection_signing_alg_values_supported", json!(["ES256", "none"])),
        (Defect::TokenEndpointWithFragment, "token_endpoint", json!(format!("{issuer}/token#here"))),
    ];
    for (_, name, value) in replaced.into_iter().filter(|(defect, ..)| broken.is(*defect)) {
        metadata[name] = value;
    }
    if broken.is(Defect::MetadataWithEmptyMember) {
        for name in ["scopes", "grant_types", "code_challenge_methods"] {
            metadata[format!("{name}_supported")] = json!([]);
        }
        for endpoint in ["token", "revocation", "introspection"] {
            metadata[format!("{endpoint}_endpoint_auth_methods_supported")] = json!([]);
            metadata[format!("{endpoint}_endpoint_auth_signing_alg_values_supported")] = json!([]);
        }
    }
    if broken.is(Defect::AliasWithoutTls) {
        metadata["mtls_endpoint_aliases"]["revocation_endpoint"] = "http://localhost/revoke".into();
    }
    if broken.is(Defect::MetadataWithAlgorithmNone) {
        metadata["token_endpoint_auth_signing_alg_values_supported"] = json!(["ES256", "none"]);
    }
    // RFC 8414 §3.2: application/json.
    with_media_type(json_answer(200, &metadata), broken.is(Defect::MetadataAsText))
}

/// RFC 7517 §5: public keys alone, each with a kid of its own.
pub(crate) fn keys(world: &World) -> Answer {
    let broken = &world.broken;
    let mut signing = published(&world.signing, "ES256");
    let mut spare = published(&world.spare, "EdDSA");
    if broken.is(Defect::JwksWithPrivateMembers) {
        for name in ["d", "p", "q", "dp", "dq", "qi"] {
            spare[name] = "nWGxne_9WmC6hEr0kuwsxERJxWl7MmkZcDusAxyuf2A".into();
        }
        spare["oth"] = json!([]);
    }
    if broken.is(Defect::JwksWithDuplicateKids) {
        spare["kid"] = signing["kid"].clone();
    }
    if broken.is(Defect::JwksCoordinateCut) {
        signing["x"] = signing["x"].as_str().unwrap_or_default().get(..42).into();
    }
    let mut keys = vec![signing, spare];
    if broken.is(Defect::SigningKeyNotPublished) {
        keys.remove(0);
    }
    if broken.is(Defect::JwksWithSymmetricKey) {
        keys.push(json!({ "kty": "oct", "k": "c2VjcmV0", "kid": "secret", "use": "sig", "alg": "HS256" }));
    }
    if broken.is(Defect::JwksWithWeakKey) {
        keys.push(published(&Key::generate(KeyKind::Rsa1024), "PS256"));
    }
    if broken.is(Defect::JwksMemberTypes) {
        let mut key = published(&Key::generate(KeyKind::P256), "ES256");
        (key["kid"], key["use"]) = (json!(1), json!(["sig"]));
        keys.push(key);
    }
    if broken.is(Defect::JwksWithAlgorithmNone) {
        keys.push(published(&Key::generate(KeyKind::P256), "none"));
    }
    if broken.is(Defect::JwksWithWeakCurve) {
        let mut key = published(&Key::generate(KeyKind::P256), "ES256");
        key["crv"] = "P-192".into();
        for coordinate in ["x", "y"] {
            // 24 octets in base64url.
            key[coordinate] = "A".repeat(32).into();
        }
        keys.push(key);
    }
    if broken.is(Defect::JwksPadded) {
        for (kind, algorithm) in [(KeyKind::P256, "ES256"), (KeyKind::Rsa4224, "PS256")] {
            let mut key = published(&Key::generate(kind), algorithm);
            for name in ["x", "y", "e"] {
                if let Some(number) = key[name].as_str().map(str::to_owned) {
                    key[name] = format!("{number}=").into();
                }
            }
            keys.push(key);
        }
    }
    for key in keys.iter_mut().filter_map(Value::as_object_mut) {
        let absent = [(Defect::JwksWithoutKid, "kid"), (Defect::JwksWithoutKty, "kty")];
        for (_, name) in absent.into_iter().filter(|(defect, _)| broken.is(*defect)) {
            key.remove(name);
        }
    }
    match broken.is(Defect::JwksAsArray) {
        true => json_answer(200, &keys.into()),
        false => json_answer(200, &json!({ "keys": keys })),
    }
}

/// A key as it is published.
pub(crate) fn published(key: &Key, algorithm: &str) -> Value {
    let mut jwk = key.jwk();
    jwk["kid"] = key.jwk_thumbprint().into();
    jwk["use"] = "sig".into();
    jwk["alg"] = algorithm.into();
    jwk
}

/// RFC 9728 §3.2.
pub(crate) fn of_resource(world: &World, resource: &str) -> Answer {
    let broken = &world.broken;
    let issuer = if resource == world.resource { &world.issuer } else { &world.forged.issuer };
    let mut metadata = json!({
        // RFC 9728 §3.3: identical to the resource that the URL was made of.
        "resource": resource,
        "authorization_servers": [issuer],
        "scopes_supported": [SCOPE],
        "bearer_methods_supported": ["header"],
        "tls_client_certificate_bound_access_tokens": true,
    });
    let replaced = [
        (Defect::ResourceMetadataDiffers, "resource", json!("https://other.example")),
        (Defect::ResourceMetadataWithQuery, "bearer_methods_supported", json!(["query"])),
        (Defect::ResourceMetadataOtherIssuer, "authorization_servers", json!(["https://issuer.example"])),
        (Defect::ResourceMetadataWithoutBoundFlag, "tls_client_certificate_bound_access_tokens", json!(false)),
        (Defect::ResourceMetadataWithEmptyMember, "scopes_supported", json!([])),
        (Defect::ResourceMetadataJwksWithoutTls, "jwks_uri", json!("http://localhost/jwks")),
        (Defect::ResourceMetadataWithAlgorithmNone, "resource_signing_alg_values_supported", json!(["none"])),
    ];
    for (_, name, value) in replaced.into_iter().filter(|(defect, ..)| broken.is(*defect)) {
        metadata[name] = value;
    }
    with_media_type(json_answer(200, &metadata), broken.is(Defect::ResourceMetadataAsText))
}

fn with_media_type(mut answer: Answer, as_text: bool) -> Answer {
    if as_text {
        answer.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("text/plain"));
    }
    answer
}
