//! The guarded API once more, for being judged: it trusts an issuer that somebody else plays, who has a key for its tokens and
//! nothing else of an authorization server. It fetches that issuer's keys, and holds an empty revocation list that it made
//! itself. Nobody should serve such an API: nothing that it accepts can be revoked.
//!
//! `cargo run -p countersign-resource-server --example forged_api -- ISSUER CERTIFICATE KEY ROOTS LISTEN RESOURCE`

/// The API.
#[path = "guarded_api.rs"]
#[expect(unreachable_pub, reason = "the file is an example of its own first")]
mod guarded_api;

use std::io;
use std::sync::Arc;
use std::time::Duration;

use countersign_conformance::forge::{Members, Token};
use countersign_conformance::{JwsAlgorithm, Key, KeyKind};
use countersign_resource_server::Guard;
use countersign_resource_server::follower::{Fetcher, follow_keys};
use countersign_resource_server::status::REVOCATION_LIST_TYPE;
use countersign_resource_server::time::{Clock, SystemClock};
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use rustls::{ClientConfig, RootCertStore};
use serde_json::json;
use tokio::sync::oneshot;

use guarded_api::Settings;

/// How long it may be judged.
const DAY: Duration = Duration::from_secs(86_400);

/// Puts a key of its own into the guard, and an empty list signed by it. The issuer's keys then take that key's place.
fn without_revocations(guard: &Guard, issuer: &str) -> io::Result<()> {
    let key = Key::generate(KeyKind::P256);
    let kid = key.jwk_thumbprint();
    let mut jwk = key.jwk();
    jwk["kid"] = kid.clone().into();
    guard.keys().take(json!({ "keys": [jwk] }).to_string().as_bytes()).map_err(io::Error::other)?;
    let now = SystemClock::new().now().as_seconds();
    let list = Token {
        header: Members::new().with("typ", REVOCATION_LIST_TYPE).with("alg", "ES256").with("kid", kid),
        claims: Members::new()
            .with("iss", issuer)
            .with("iat", now)
            .with("exp", now + 86_400)
            .with("epoch", 1)
            .with("number", 1)
            .with("salt", "none")
            .with("marks", json!({})),
        algorithm: JwsAlgorithm::Es256,
        key: &key,
    };
    guard.revocations().take(&list.compact()).map_err(io::Error::other)
}

fn fetcher(roots_pem: &[u8]) -> io::Result<Fetcher> {
    let mut roots = RootCertStore::empty();
    for root in CertificateDer::pem_slice_iter(roots_pem) {
        roots.add(root.map_err(io::Error::other)?).map_err(io::Error::other)?;
    }
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let tls = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(io::Error::other)?
        .with_root_certificates(roots)
        .with_no_client_auth();
    Ok(Fetcher::new(tls))
}

#[tokio::main]
async fn main() -> io::Result<()> {
    let settings = Settings::from_arguments(std::env::args().skip(1).collect())?;
    let guard = Guard::builder(settings.issuer.clone(), settings.resource.clone())
        .scopes_supported(["accounts:read"])
        .staleness_limit(DAY)
        .idle()
        .map_err(io::Error::other)?;
    without_revocations(&guard, &settings.issuer)?;
    let jwks = format!("{}/jwks", settings.issuer.trim_end_matches('/'));
    tokio::spawn(follow_keys(fetcher(&settings.roots_pem)?, jwks, Arc::clone(guard.keys())));
    let (ready, _serving) = oneshot::channel();
    guarded_api::serve_behind(guard, settings, ready, async {
        // Without a way to hear Ctrl-C the API stops at once rather than never.
        let _pressed = tokio::signal::ctrl_c().await;
    })
    .await
}
