//! The registry that the clients are in, as the lines that `countersign registry import` takes (docs/registry-import.md).
//!
//! Takes the population, writes participants, their authority, one resource server and so many clients, each with the certificate
//! it has and an entitlement. Certificates are written as a registry has them that has seen each once: whoever calls is known. It
//! knows nothing of servers.

use std::io::{self, Write};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use countersign::pki::anchor::check_anchor;
use countersign::pki::certificate::ParsedCertificate;
use countersign::registry::AnchorId;
use countersign_resource_server::time::{Clock, SystemClock, UnixTime};
use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::PemObject;
use serde_json::{Value, json};

use crate::Failure;
use crate::population::{CLIENTS_OF_ONE, Identity, Population, domain, identity, participant};

/// The one API.
pub(crate) const API: &str = "bench-api";

/// Where it is: what tokens are for.
pub(crate) const RESOURCE: &str = "https://api.bench.example";

/// What its tokens are good for.
pub(crate) const SCOPE: &str = "accounts:read";

/// Writes the first `clients` clients, entitled to call the API.
pub(crate) fn write(population: &Population, clients: u32, out: &mut impl Write) -> Result<(), Failure> {
    let now = SystemClock::new().now();
    let authority = CertificateDer::from_pem_file(population.client_authority())?;
    let anchor = check_anchor(&authority, now)?.id;
    for number in 0..clients.div_ceil(CLIENTS_OF_ONE) {
        let id = participant(number);
        line(out, &json!({ "participant": { "id": id, "legal_name": format!("{id} Ltd"), "roles": ["partner"] } }))?;
    }
    line(
        out,
        &json!({ "anchor": {
            "der": STANDARD.encode(&authority),
            "unknown_revocation": "accept",
            "grants": (0..clients.div_ceil(CLIENTS_OF_ONE)).map(|number| grant(&participant(number))).collect::<Vec<_>>(),
        } }),
    )?;
    line(out, &json!({ "resource_server": { "id": API, "resource": RESOURCE, "scopes": SCOPE } }))?;
    for number in 0..clients {
        let whose = identity(number);
        line(
            out,
            &json!({ "client": {
                "id": whose.id,
                "participant_id": whose.participant,
                "token_endpoint_auth_method": "tls_client_auth",
                "tls_client_auth_san_dns": whose.dns,
            } }),
        )?;
        line(out, &certificate(&whose, &population.certificate(number)?, &anchor, now)?)?;
        line(
            out,
            &json!({ "entitlement": {
                "client_id": whose.id,
                "resource_server_id": API,
                "scopes": SCOPE,
                "reason": "a benchmark",
            } }),
        )?;
    }
    Ok(out.flush()?)
}

fn grant(participant: &str) -> Value {
    json!({
        "participant_id": participant,
        "dn_suffixes": [format!("O={participant}")],
        "dns_suffixes": [domain(participant)],
    })
}

fn certificate(whose: &Identity, der: &CertificateDer<'_>, anchor: &AnchorId, now: UnixTime) -> Result<Value, Failure> {
    let facts = ParsedCertificate::read(der)?.for_enrolment();
    let now = now.to_string();
    Ok(json!({ "certificate": {
        "client_id": whose.id,
        "thumbprint": facts.thumbprint.to_string(),
        "key_hash": facts.key_hash.to_string(),
        // An anchor is called by the hash of its key.
        "issuer_key": anchor.as_str(),
        "serial": facts.serial,
        "subject": facts.subject,
        "subject_alt_names": facts.subject_alt_names,
        "not_before": facts.not_before.to_string(),
        "not_after": facts.not_after.to_string(),
        "anchor": anchor.as_str(),
        "state": "active",
        "first_seen": now,
        "last_seen": now,
    } }))
}

fn line(out: &mut impl Write, value: &Value) -> io::Result<()> {
    writeln!(out, "{value}")
}
