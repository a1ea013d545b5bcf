//! `GET /.well-known/oauth-authorization-server` (RFC 8414).
//!
//! Takes the configuration, gives the document: made once, served as it is. Only registered members are in it, and only
//! what this server does.

use axum::http::HeaderValue;
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::json;
use sha2::{Digest, Sha256};

use super::path;
use super::response::Document;
use crate::config::Config;
use crate::mint::ALGORITHMS;

/// The authorization server's metadata.
pub(super) fn document(config: &Config) -> Document {
    let issuer = &config.issuer;
    // The same code authenticates a client at either endpoint.
    let methods = ["tls_client_auth", "self_signed_tls_client_auth", "private_key_jwt", "spiffe_x509", "spiffe_jwt"];
    // Of private_key_jwt; spiffe_jwt goes by ES256 and PS256, which are among them.
    let algorithms = ["PS256", "ES256", "EdDSA", "Ed25519"];
    let mut metadata = json!({
        // RFC 8414 §2, in its order.
        "issuer": issuer.as_str(),
        "token_endpoint": issuer.url_of(path::TOKEN),
        "jwks_uri": issuer.url_of(path::JWKS),
        // Required by §2 although nothing is at an authorization endpoint; §3.2 would have empty arrays left out.
        "response_types_supported": [],
        "grant_types_supported": ["client_credentials"],
        "token_endpoint_auth_methods_supported": methods,
        "token_endpoint_auth_signing_alg_values_supported": algorithms,
        // RFC 7009 §2.
        "revocation_endpoint": issuer.url_of(path::REVOKE),
        "revocation_endpoint_auth_methods_supported": methods,
        "revocation_endpoint_auth_signing_alg_values_supported": algorithms,
        // RFC 7662 §2. A resource server's certificate is enrolled itself, and nobody's word for its names is asked: of the
        // registered methods that is the one of RFC 8705 §2.2.
        "introspection_endpoint": issuer.url_of(path::INTROSPECT),
        "introspection_endpoint_auth_methods_supported": ["self_signed_tls_client_auth"],
        // RFC 9701 §7.
        "introspection_signing_alg_values_supported": ALGORITHMS,
        // RFC 8705 §3.3.
        "tls_client_certificate_bound_access_tokens": true,
        // draft-ietf-oauth-status-list-20 §9.1.
        "status_list_aggregation_endpoint": issuer.url_of(path::STATUS_LISTS),
    });
    if let Some(face) = &config.public {
        // RFC 8705 §5: the same endpoints where certificates are asked for; each is at the top level as well.
        metadata["mtls_endpoint_aliases"] = json!({
            "token_endpoint": face.mtls_url.url_of(path::TOKEN),
            "revocation_endpoint": face.mtls_url.url_of(path::REVOKE),
            "introspection_endpoint": face.mtls_url.url_of(path::INTROSPECT),
        });
    }
    let body = metadata.to_string();
    let etag = format!("\"{}\"", URL_SAFE_NO_PAD.encode(&Sha256::digest(&body)[..16]));
    Document {
        body: body.into(),
        content_type: HeaderValue::from_static("application/json"),
        content_encoding: None,
        cache_control: HeaderValue::from_static("public, max-age=300"),
        etag: HeaderValue::try_from(etag).unwrap_or(HeaderValue::from_static("\"metadata\"")),
        varies: false,
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use serde_json::Value;

    use super::*;

    fn metadata(config: &str) -> Value {
        let config = Config::read(config, Path::new(""), []).unwrap();
        serde_json::from_slice(&document(&config).body).unwrap()
    }

    #[test]
    fn one_listener_has_no_aliases() {
        let metadata = metadata("issuer = \"https://as.example/tenant\"");
        assert_eq!(metadata["issuer"], "https://as.example/tenant");
        assert_eq!(metadata["token_endpoint"], "https://as.example/tenant/token");
        assert_eq!(metadata["jwks_uri"], "https://as.example/tenant/jwks");
        assert_eq!(metadata["response_types_supported"], json!([]));
        assert_eq!(metadata["tls_client_certificate_bound_access_tokens"], true);
        let methods = metadata["token_endpoint_auth_methods_supported"].as_array().unwrap();
        assert!(methods.contains(&"spiffe_x509".into()) && methods.contains(&"spiffe_jwt".into()));
        // RFC 8414 §2: every algorithm a method goes by is listed.
        let algorithms = metadata["token_endpoint_auth_signing_alg_values_supported"].as_array().unwrap();
        assert!(crate::client_auth::JWT_SVID_ALGORITHMS.iter().all(|one| algorithms.contains(&one.as_str().into())));
        assert_eq!(metadata.get("mtls_endpoint_aliases"), None);
    }

    #[test]
    fn every_alias_is_also_at_the_top_level() {
        let metadata = metadata(
            "issuer = \"https://as.example\"\n[public]\nlisten = \"0.0.0.0:443\"\nmtls_url = \"https://mtls.as.example:8443\"",
        );
        let aliases = metadata["mtls_endpoint_aliases"].as_object().unwrap();
        assert_eq!(aliases["token_endpoint"], "https://mtls.as.example:8443/token");
        assert_eq!(aliases["introspection_endpoint"], "https://mtls.as.example:8443/introspect");
        assert_eq!(aliases["revocation_endpoint"], "https://mtls.as.example:8443/revoke");
        assert!(aliases.keys().all(|alias| metadata.get(alias).is_some()));
    }
}
