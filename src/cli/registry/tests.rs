//! Lines: what is read from them, and that what is written is read again.

use countersign_conformance::KeyKind;
use countersign_conformance::pki::{Authority, Credential, Name, Template};
use countersign_resource_server::scope::Scope;
use countersign_resource_server::time::UnixTime;
use serde_json::{Value, json};

use super::reading::{Context, read};
use super::writing::line;
use crate::pki::anchor::check_anchor;
use crate::registry::certificate::{CertificateState, PathIssuer, Replacement, RevocationReason};
use crate::registry::client::{ClientAuthentication, ClientState, Environment};
use crate::registry::edit::CertificateSelector;
use crate::registry::export::ExportStore;
use crate::registry::fixture::{
    NOW, anchor, because, client, client_id, dns, entitlement, entitlement_id, facts, participant, participant_id,
    resource_server, resource_server_id, sighting,
};
use crate::registry::import::{Contents, Entry, ImportStore, Numbered, Origin};
use crate::registry::participant::ParticipantState;
use crate::registry::trust_anchor::{AnchorMaterial, CrlSource, EkuPolicy, NameSpace, Unknown};
use crate::store::Store;
use crate::store::contract::{Bench, contract};

contract!(what_was_exported_is_imported_and_exported_again,);

const CONTEXT: Context = Context { now: NOW, environment: Environment::Sandbox };

fn authority() -> Authority {
    Authority::root("Acme CA", NOW.as_seconds())
}

fn base64(octets: &[u8]) -> String {
    use base64::Engine;
    base64::engine::general_purpose::STANDARD.encode(octets)
}

/// The only entry of a line.
fn only(value: &Value) -> Entry {
    let mut entries = read(value.to_string().as_bytes(), 7, CONTEXT).unwrap();
    assert_eq!(entries.len(), 1, "{entries:?}");
    entries.remove(0)
}

fn refused(value: &Value) -> String {
    match read(value.to_string().as_bytes(), 7, CONTEXT) {
        Err(failure) => failure.to_string(),
        Ok(entries) => panic!("taken: {entries:?}"),
    }
}

/// Registers one of everything in every state, by the registry's own operations.
async fn fill(bench: &Bench) {
    let registry = &bench.registry;
    let mut acme = participant("acme");
    acme.contacts.webhook = Some("https://acme.example/hook".to_owned());
    registry.add_participant(acme, because("x")).await.unwrap();
    registry.add_participant(participant("gone"), because("x")).await.unwrap();
    let authority = authority();
    let found = check_anchor(&authority.certificate, NOW).unwrap();
    let mut ca = anchor(found.id.as_str());
    ca.material = AnchorMaterial::X509 { certificate_der: authority.certificate.clone() };
    ca.subject = found.subject;
    ca.revocation.crls =
        vec![CrlSource { location: "https://ca.example/list.crl".to_owned(), issuer_der: Some(authority.certificate) }];
    ca.unknown_revocation = Unknown::Refuse;
    registry.add_anchor(ca.clone(), found.subject_der, because("x")).await.unwrap();
    let names = NameSpace { dns_suffixes: vec!["acme.example".to_owned()], ..NameSpace::default() };
    registry.grant_anchor(participant_id("acme"), ca.id.clone(), names.clone(), because("x")).await.unwrap();
    registry.grant_anchor(participant_id("gone"), ca.id, names, because("x")).await.unwrap();
    registry.add_resource_server(resource_server("api"), because("x")).await.unwrap();
    let mut vault = resource_server("vault");
    vault.subject = Some(dns("vault.example"));
    vault.certificates = vec![facts(90).thumbprint, facts(91).thumbprint];
    registry.add_resource_server(vault, because("x")).await.unwrap();
    registry.add_resource_server(resource_server("old"), because("x")).await.unwrap();

    registry.add_client(client("acme-1", "acme"), vec![facts(1)], because("x")).await.unwrap();
    let mut jwt = client("acme-2", "acme");
    let key = Credential::self_signed(&Template::client(Name::common("jwt"), NOW.as_seconds()), KeyKind::P256);
    jwt.authentication = ClientAuthentication::PrivateKeyJwt {
        jwks: serde_json::to_string_pretty(&json!({ "keys": [key.key.jwk()] })).unwrap(),
        signing_alg: countersign_resource_server::token::jws::SigningAlgorithm::ES256,
        subject: None,
    };
    registry.add_client(jwt, vec![], because("x")).await.unwrap();
    let mut self_signed = client("acme-3", "acme");
    self_signed.authentication = ClientAuthentication::SelfSignedTlsClientAuth { jwks: key.jwks() };
    let own = crate::client_auth::registered_certificates(&key.jwks()).unwrap();
    let own = own.iter().map(|one| one.for_enrolment()).collect();
    registry.add_client(self_signed, own, because("x")).await.unwrap();
    registry.add_client(client("gone-1", "gone"), vec![], because("x")).await.unwrap();

    // One that was announced for another and seen, one enrolled on first use, one superseded, one revoked with its key.
    let replaces = Replacement { thumbprint: facts(1).thumbprint, overlap_seconds: 60 };
    registry.announce_replacement(client_id("acme-1"), facts(2), replaces, because("x")).await.unwrap();
    let proven = registry.client(&client_id("acme-1")).await.unwrap();
    let mut seen = sighting(3, "x");
    seen.issuers = vec![PathIssuer {
        key_hash: facts(77).key_hash,
        issuer_key: facts(78).key_hash,
        serial: "0a".to_owned(),
        not_after: NOW,
    }];
    registry.sighted(&proven, &seen, NOW).await.unwrap();
    registry.add_certificate(client_id("acme-1"), facts(4), because("x")).await.unwrap();
    registry.supersede_certificate(facts(4).thumbprint, NOW, because("x")).await.unwrap();
    registry.add_certificate(client_id("acme-1"), facts(5), because("x")).await.unwrap();
    let selector = CertificateSelector::Thumbprint(facts(5).thumbprint);
    registry.revoke_certificate(selector, RevocationReason::KeyCompromise, because("x")).await.unwrap();

    registry.add_entitlement(entitlement("e1", "acme-1", "api"), because("x")).await.unwrap();
    registry.add_entitlement(entitlement("e2", "acme-1", "old"), because("x")).await.unwrap();
    registry.end_entitlement(entitlement_id("e1"), because("x")).await.unwrap();
    registry.retire_resource_server(resource_server_id("old"), because("x")).await.unwrap();
    registry.set_client_state(client_id("acme-2"), ClientState::Suspended, because("x")).await.unwrap();
    let gone = participant_id("gone");
    registry.set_participant_state(gone, ParticipantState::Withdrawn, because("x")).await.unwrap();
}

async fn export(store: &Store) -> String {
    let mut look = store.look().await.unwrap();
    let mut text = String::new();
    loop {
        let entries = look.next().await.unwrap();
        if entries.is_empty() {
            return text;
        }
        for entry in entries {
            text.push_str(&serde_json::to_string(&line(entry).unwrap()).unwrap());
            text.push('\n');
        }
    }
}

async fn import(store: &Store, text: &str) {
    let later = UnixTime::from_seconds(NOW.as_seconds() + 1_000);
    let origin = Origin { actor: because("x").actor, begun_at: later, file: "-".to_owned() };
    let lease = store.begin_import(origin, later).await.unwrap();
    let mut numbered = Vec::new();
    for (line, text) in (1..).zip(text.lines()) {
        let entries = read(text.as_bytes(), line, Context { now: later, ..CONTEXT });
        let entries = entries.unwrap_or_else(|failure| panic!("{text}: {failure}"));
        numbered.extend(entries.into_iter().map(|entry| Numbered { line, entry }));
    }
    // One by one: each refers only to what comes before it.
    for one in numbered {
        let staged = store.stage(lease, vec![one], because("x"), later).await.unwrap();
        assert!(staged.refused.is_empty(), "{staged:?}");
    }
    store.publish(lease, &Contents::default(), [].into(), because("x")).await.unwrap();
}

async fn what_was_exported_is_imported_and_exported_again(bench: &Bench) {
    fill(bench).await;
    let exported = export(&bench.store).await;
    for kind in
        ["participant", "anchor", "grant", "resource_server", "client", "certificate", "entitlement", "revoked_key"]
    {
        assert!(exported.contains(&format!("{{\"{kind}\":")), "{kind}");
    }
    let other = Bench::sqlite().await;
    import(&other.store, &exported).await;
    assert_eq!(export(&other.store).await, exported);
    // The records are the same, and not only the lines.
    let registry = &other.registry;
    registry.catch_up().await.unwrap();
    for id in ["acme-1", "acme-2", "acme-3", "gone-1"] {
        let before = bench.registry.client(&client_id(id)).await.unwrap().record;
        let after = registry.client(&client_id(id)).await.unwrap().record;
        assert_eq!(after.client, before.client);
        assert_eq!(after.certificates, before.certificates);
        let grants = |record: &crate::registry::ClientRecord| {
            record.anchors.iter().map(|one| (one.anchor.clone(), one.name_space.clone())).collect::<Vec<_>>()
        };
        assert_eq!(grants(&after), grants(&before));
        assert_eq!(after.entitlements.len(), before.entitlements.len());
    }
}

#[test]
fn what_is_not_said_is_what_add_would_make_of_it() {
    let entry = only(&json!({ "client": { "id": "c", "participant_id": "p",
        "token_endpoint_auth_method": "tls_client_auth", "tls_client_auth_san_dns": "C.Example" } }));
    let Entry::Client(client, certificates) = entry else { panic!("{entry:?}") };
    assert_eq!((client.environment, client.state), (Environment::Sandbox, ClientState::Active));
    assert_eq!(client.authentication.subject().unwrap().canonical, "c.example");
    assert!(certificates.is_empty());
    let entry = only(&json!({ "entitlement": { "client_id": "c", "resource_server_id": "api", "scopes": "read",
        "reason": "contract" } }));
    let Entry::Entitlement(entitlement) = entry else { panic!("{entry:?}") };
    assert_eq!(entitlement.starts_at, NOW);
    assert_eq!(entitlement.id.as_str(), format!("import.{}.7", NOW.as_millis()));
    assert_eq!(entitlement.scopes, Scope::parse("read").unwrap());
}

#[test]
fn a_certificate_in_der_is_announced_by_the_import() {
    let credential = authority().client("one");
    let entry = only(&json!({ "certificate": { "client_id": "c", "der": base64(credential.certificate()) } }));
    let Entry::Certificate(certificate) = entry else { panic!("{entry:?}") };
    assert_eq!(certificate.thumbprint.to_string(), credential.thumbprint());
    assert_eq!((certificate.state.clone(), certificate.announced_at), (CertificateState::Announced, Some(NOW)));
}

#[test]
fn an_anchor_comes_with_its_grants() {
    let authority = authority();
    let value = json!({ "anchor": { "der": base64(&authority.certificate), "owner": "acme",
        "grants": [{ "participant_id": "acme", "dns_suffixes": ["Acme.Example"] }] } });
    let entries = read(value.to_string().as_bytes(), 1, CONTEXT).unwrap();
    let [Entry::Anchor { anchor, .. }, Entry::Grant(grant)] = entries.as_slice() else { panic!("{entries:?}") };
    assert_eq!(grant.anchor_id, anchor.id);
    assert_eq!(grant.name_space.dns_suffixes, ["acme.example"]);
    assert_eq!(anchor.unknown_revocation, Unknown::Accept);
}

#[test]
fn whether_a_purpose_is_asked_for_is_as_each_command_has_it() {
    let anchor = json!({ "anchor": { "der": base64(&authority().certificate) } });
    let bundle = json!({ "keys": [] }).to_string();
    let trust_domain = json!({ "trust_domain": { "trust_domain": "a.example", "bundle": bundle, "state": "retired" } });
    for (value, policy) in [(anchor, EkuPolicy::Required), (trust_domain, EkuPolicy::IfPresent)] {
        let Entry::Anchor { anchor, .. } = only(&value) else { panic!("{value}") };
        assert_eq!(anchor.eku_policy, policy);
    }
}

/// Each breaks one thing of a line that is good.
#[test]
fn a_line_with_one_thing_wrong_is_refused() {
    let good = json!({ "client": { "id": "c", "participant_id": "p", "token_endpoint_auth_method": "tls_client_auth",
        "tls_client_auth_san_dns": "c.example" } });
    only(&good);
    for (member, value, says) in [
        ("colour", json!("red"), "unknown field `colour`"),
        ("id", json!("two words"), "client_id"),
        ("id", json!(7), "invalid type"),
        ("tls_client_auth_san_uri", json!("https://c.example"), "one name is registered"),
        ("tls_client_auth_san_dns", Value::Null, "goes with one name"),
        ("tls_client_auth_san_dns", json!("*.example"), ""),
        ("jwks", json!({ "keys": [] }), "with no jwks"),
        ("jwks", json!(7), "a JWK Set"),
        ("spiffe_id", json!("spiffe://a.example/b"), "goes with one name"),
        ("token_endpoint_auth_method", json!("client_secret_basic"), "unknown variant"),
        ("token_endpoint_auth_signing_alg", json!("ES256"), "goes with private_key_jwt"),
        ("access_token_signing_alg", json!("RS256"), "unknown variant"),
        ("access_token_lifetime_seconds", json!(0), "from 1 to 3600"),
        ("access_token_lifetime_seconds", json!(3601), "from 1 to 3600"),
        ("requests_per_second", json!(0), "whole number"),
        ("requests_per_second", json!(1_000_001), "whole number"),
        ("renewal_overlap_seconds", json!(87_600 * 3600 + 1), "ten years"),
        ("certificates_follow", json!(true), "goes with self_signed"),
        ("state", json!("gone"), "unknown variant"),
    ] {
        let mut bad = good.clone();
        bad["client"][member] = value;
        let said = refused(&bad);
        assert!(said.contains(says), "{member}: {said}");
    }
    let mut late = good;
    late["client"]["enrolment"] = json!("required");
    only(&late);
    late["client"]["renewal_overlap_seconds"] = json!(60);
    assert!(refused(&late).contains("enrolled when first seen"));
}

#[test]
fn a_line_of_another_kind_with_one_thing_wrong_is_refused() {
    let one = authority().client("one");
    let der = base64(one.certificate());
    for (value, says) in [
        (
            json!({ "certificate": { "client_id": "c", "der": der, "replaces": { "thumbprint": facts(1).thumbprint,
                "overlap_seconds": 87_600_u64 * 3_600 + 1 } } }),
            "ten years",
        ),
        (
            json!({ "certificate": { "client_id": "c", "der": der, "replaces": { "thumbprint": one.thumbprint(),
                "overlap_seconds": 0 } } }),
            "itself",
        ),
        (
            json!({ "trust_domain": { "trust_domain": "a.example", "bundle": "{\"keys\":[]}", "state": "retired",
                "grants": [{ "participant_id": "p", "uri_prefixes": ["spiffe://b.example/"] }] } }),
            "of its own only",
        ),
        (json!({ "participant": { "id": "p", "legal_name": " " } }), "has a name"),
        (json!({ "participant": { "id": "p", "legal_name": "P", "country": "de" } }), "ISO 3166-1"),
        (
            json!({ "participant": { "id": "p", "legal_name": "P", "contacts": { "webhook": "http://p.example" } } }),
            "https",
        ),
        (json!({ "participant": { "id": "p", "legal_name": "P", "contacts": { "fax": "1" } } }), "unknown field"),
        (json!({ "resource_server": { "id": "a", "resource": "nothing", "scopes": "read" } }), "absolute URI"),
        (json!({ "resource_server": { "id": "a", "resource": "https://a.example", "scopes": "" } }), ""),
        (json!({ "anchor": { "der": der } }), ""),
        (json!({ "anchor": { "der": base64(&authority().certificate), "revocation": { "crl": [] } } }), "`crl`"),
        (
            json!({ "anchor": { "der": base64(&authority().certificate), "revocation": { "crls":
            [{ "location": "lists/" }] } } }),
            "whole path",
        ),
        (json!({ "grant": { "participant_id": "p", "anchor_id": "a", "dns_suffixes": ["-"] } }), ""),
        (json!({ "trust_domain": { "trust_domain": "a.example", "bundle": "{\"keys\":[]}" } }), "no key"),
        (json!({ "certificate": { "client_id": "c" } }), "give der"),
        (json!({ "certificate": { "client_id": "c", "der": "AAAA" } }), "certificate"),
        (json!({ "certificate": { "client_id": "c", "der": der, "serial": "01" } }), "says all"),
        (json!({ "certificate": { "client_id": "c", "der": der, "state": "revoked" } }), "state_at and reason"),
        (json!({ "certificate": { "client_id": "c", "der": der, "state_at": "2027-01-01T00:00:00Z" } }), "neither"),
        (json!({ "certificate": { "client_id": "c", "der": der, "state": "active" } }), "announced or revoked"),
        (
            json!({ "certificate": { "client_id": "c", "der": der, "state": "superseded", "state_at": "2027-01-01T00:00:00Z" } }),
            "announced or revoked",
        ),
        (
            json!({ "certificate": { "client_id": "c", "der": der, "first_seen": "2026-01-01T00:00:00Z" } }),
            "not seen yet",
        ),
        (
            json!({ "certificate": { "client_id": "c", "der": der, "last_seen": "2026-01-01T00:00:00Z" } }),
            "not seen yet",
        ),
        (json!({ "certificate": { "client_id": "c", "serial": "01" } }), "without der"),
        (json!({ "entitlement": { "client_id": "c", "resource_server_id": "a", "scopes": "read" } }), "reason"),
        (json!({ "revoked_key": { "key_hash": "AAAA" } }), "SHA-256"),
        (json!({ "user": {} }), "unknown variant"),
        (json!([]), ""),
        (json!({}), ""),
    ] {
        let said = refused(&value);
        assert!(said.contains(says), "{value}: {said}");
    }
    let twice = r#"{"participant":{"id":"p","id":"p","legal_name":"P"}}"#;
    assert!(read(twice.as_bytes(), 1, CONTEXT).unwrap_err().to_string().contains("duplicate"));
    let der = base64(&authority().certificate);
    let within = format!(r#"{{"anchor":{{"der":"{der}","revocation":{{"crls":[{{"location":"/a"}}],"crls":[]}}}}}}"#);
    assert!(read(within.as_bytes(), 1, CONTEXT).unwrap_err().to_string().contains("duplicate"));
    let endpoint = r#"{"profile":"https_web","url":"https://a.example/1","url":"https://a.example/2"}"#;
    let names = r#""trust_domain":"a.example","bundle":"{\"keys\":[]}","state":"retired""#;
    let within = format!(r#"{{"trust_domain":{{{names},"endpoint":{endpoint}}}}}"#);
    assert!(read(within.as_bytes(), 1, CONTEXT).unwrap_err().to_string().contains("duplicate"));
    let two = r#"{"participant":{"id":"p","legal_name":"P"},"client":{}}"#;
    assert!(read(two.as_bytes(), 1, CONTEXT).is_err());
    assert!(read(b"\xff{}", 1, CONTEXT).is_err());
}

/// A key that no handshake takes.
#[test]
fn a_certificate_with_a_weak_key_is_refused() {
    let template = Template::client(Name::common("weak"), NOW.as_seconds());
    let weak = authority().issue(&template, KeyKind::Rsa1024);
    let said = refused(&json!({ "certificate": { "client_id": "c", "der": base64(weak.certificate()) } }));
    assert!(said.contains("handshake"), "{said}");
}
