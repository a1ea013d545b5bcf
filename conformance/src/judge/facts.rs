//! What the target says of itself: metadata, keys, and one token.
//!
//! Asked once, before any case, so that a case may be skipped where the target offers no such thing. Nothing here is judged.

use std::collections::BTreeMap;

use rustls::pki_types::CertificateDer;
use serde_json::Value;

use super::jws;
use super::target::Target;
use super::wire::{Address, Answer, Request, Response, send};
use crate::well_known;

/// What it said.
#[derive(Debug, Default)]
pub(crate) struct Facts {
    /// Its metadata (RFC 8414 §2), or null.
    pub(crate) metadata: Value,
    /// Its JWK set (RFC 7517 §5), or null.
    pub(crate) jwks: Value,
    /// URLs of `token`, `introspection`, `revocation`, `jwks`, `metadata`, `resource`, `resource_metadata`, `forged`.
    pub(crate) endpoints: BTreeMap<String, String>,
    /// Whether its access tokens are JWTs.
    pub(crate) access_tokens_are_jwts: bool,
    /// What went wrong on the way.
    pub(crate) troubles: Vec<String>,
}

impl Facts {
    /// Whether the target itself offers what a case needs, and the reason not to ask where it does not; nothing where the
    /// need is not one that the target could speak of.
    pub(crate) fn says(&self, need: &str) -> Option<(bool, String)> {
        if let Some(name) = need.strip_prefix("endpoint.") {
            let why = format!("neither metadata nor file name its {name} endpoint");
            return Some((self.endpoints.contains_key(name), why));
        }
        if let Some(member) = need.strip_prefix("metadata.") {
            let Some((member, value)) = member.split_once('=') else {
                return Some((!self.metadata[member].is_null(), format!("its metadata has no {member}")));
            };
            let found = &self.metadata[member];
            let among = found.as_array().is_some_and(|all| all.contains(&Value::from(value)));
            let says = among || super::template::plain(found) == value;
            return Some((says, format!("its metadata does not say {member} {value}")));
        }
        match need {
            "token.jwt" => Some((self.access_tokens_are_jwts, "its access tokens are not JWTs".to_owned())),
            "metadata" => Some((self.metadata.is_object(), "it publishes no metadata".to_owned())),
            _ => None,
        }
    }
}

/// Asks.
pub(crate) async fn gather(target: &Target) -> Facts {
    let mut facts = Facts::default();
    let mut published =
        target.metadata.clone().unwrap_or_else(|| well_known::url(&target.issuer, "oauth-authorization-server"));
    if let Some(document) = document(target, &target.roots, &published, &mut facts.troubles).await {
        facts.metadata = document;
    } else if target.metadata.is_none() {
        // OpenID Connect Discovery §4: behind the issuer, which RFC 8414 §5 lets a server keep to. Where it is there, it is
        // what the cases about metadata ask.
        let other = format!("{}/.well-known/openid-configuration", target.issuer.trim_end_matches('/'));
        if let Some(document) = document(target, &target.roots, &other, &mut facts.troubles).await {
            facts.metadata = document;
            published = other;
        }
    }
    facts.endpoints.insert("metadata".to_owned(), published);
    for name in ["token", "introspection", "revocation"] {
        let member = format!("{name}_endpoint");
        // RFC 8705 §5: the alias, where there is one, is what a client with a certificate uses.
        let said = || {
            let alias = &facts.metadata["mtls_endpoint_aliases"][&member];
            alias.as_str().or_else(|| facts.metadata[&member].as_str()).map(str::to_owned)
        };
        if let Some(url) = target.endpoints.get(name).cloned().or_else(said) {
            facts.endpoints.insert(name.to_owned(), url);
        }
    }
    if let Some(url) = facts.metadata["jwks_uri"].as_str().map(str::to_owned) {
        facts.jwks = document(target, &target.roots, &url, &mut facts.troubles).await.unwrap_or_default();
        facts.endpoints.insert("jwks".to_owned(), url);
    }
    if let Some(resource) = &target.protected_resource {
        facts.endpoints.insert("resource".to_owned(), resource.url.clone());
        // RFC 9728 §3.1: from the resource identifier, where it is known. Nobody has to publish it: what the file does not
        // name is asked about where it is there.
        let mut metadata = resource.metadata.clone();
        if metadata.is_none()
            && let Some(said) = &target.resource
        {
            let derived = well_known::url(said, "oauth-protected-resource");
            let there = answers(target, &resource.roots, &derived).await;
            metadata = there.then_some(derived);
        }
        if let Some(url) = metadata {
            facts.endpoints.insert("resource_metadata".to_owned(), url);
        }
    }
    if let Some(forged) = &target.forged {
        facts.endpoints.insert("forged".to_owned(), forged.resource.url.clone());
    }
    let token = one_token(target, &facts).await;
    facts.access_tokens_are_jwts = token.is_some_and(|token| jws::decode(&token).is_some());
    facts
}

/// A JSON object, asked for without a certificate and then, where that is refused, with one.
async fn document(
    target: &Target,
    roots: &[CertificateDer<'static>],
    url: &str,
    troubles: &mut Vec<String>,
) -> Option<Value> {
    Address::parse(url)?;
    for party in [None, target.parties.get("client")] {
        let request = Request { method: "GET".to_owned(), url: url.to_owned(), headers: Vec::new(), body: None };
        match send(&request, party, roots).await {
            Ok(Answer::Response(Response { status: 200, body, .. })) => {
                let object = serde_json::from_str::<Value>(&body).ok().filter(Value::is_object);
                if object.is_some() {
                    return object;
                }
                troubles.push(format!("{url}: not a JSON object"));
            }
            Ok(answer) => troubles.push(format!("{url}: {}", super::expectation::told(&answer))),
            Err(why) => troubles.push(format!("{url}: {why}")),
        }
    }
    None
}

/// Whether a GET is answered by 200, without a certificate or with one.
async fn answers(target: &Target, roots: &[CertificateDer<'static>], url: &str) -> bool {
    for party in [None, target.parties.get("client")] {
        let request = Request { method: "GET".to_owned(), url: url.to_owned(), headers: Vec::new(), body: None };
        if let Ok(Answer::Response(Response { status: 200, .. })) = send(&request, party, roots).await {
            return true;
        }
    }
    false
}

/// A token for `client`, if it gets one.
async fn one_token(target: &Target, facts: &Facts) -> Option<String> {
    let party = target.parties.get("client")?;
    let mut form = vec![("grant_type", "client_credentials"), ("client_id", &party.id), ("scope", &target.scope)];
    form.extend(target.resource.iter().map(|resource| ("resource", resource.as_str())));
    let request = Request {
        method: "POST".to_owned(),
        url: facts.endpoints.get("token")?.clone(),
        headers: vec![("content-type".to_owned(), super::bench::FORM.to_owned())],
        body: Some(super::bench::form(form.into_iter())),
    };
    match send(&request, Some(party), &target.roots).await {
        Ok(Answer::Response(response)) => {
            let body: Value = serde_json::from_str(&response.body).ok()?;
            body["access_token"].as_str().map(str::to_owned)
        }
        _ => None,
    }
}
