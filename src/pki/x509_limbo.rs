//! x509-limbo, an outside judge of path validation: <https://x509-limbo.com>, C2SP/x509-limbo at 8a2e6f41, Apache-2.0.
//!
//! The cases are made for servers; ours are generated with the two EKU identifiers swapped, so that the leaves are client
//! certificates, and the name expected of a server is taken for the name a client is registered under. Where this project decides otherwise than the case expects
//! the difference is pinned in [`OTHERWISE`] with its reason, and a changed verdict fails the test either way.

use std::collections::BTreeMap;
use std::sync::Arc;

use countersign_resource_server::time::UnixTime;
use rustls_pki_types::CertificateRevocationListDer;
use rustls_pki_types::pem::PemObject;
use serde::Deserialize;
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

use super::anchor::check_anchor;
use super::certificate::certificates_from;
use super::crl::{self, HeldLists};
use super::identity::subject_rule;
use super::presented::MOST_INTERMEDIATES;
use super::scene::{Scene, presented_list};
use super::{Standing, Verifier};
use crate::registry::client::SubjectAttribute;
use crate::registry::trust_anchor::{CrlSource, EkuPolicy, NameSpace, TrustAnchor, Unknown};

#[derive(Deserialize)]
struct Limbo {
    testcases: Vec<Case>,
}

#[derive(Deserialize)]
struct Case {
    id: String,
    trusted_certs: Vec<String>,
    untrusted_intermediates: Vec<String>,
    peer_certificate: String,
    validation_time: Option<String>,
    expected_result: String,
    expected_peer_name: Option<PeerName>,
    #[serde(default)]
    crls: Vec<String>,
}

/// The name a server would be asked for: here the name a client is registered under.
#[derive(Deserialize)]
struct PeerName {
    kind: String,
    value: String,
}

/// Cases generated without a time of their own are valid then.
const ANY_TIME: i64 = 1_704_067_200; // 2024-01-01

fn verdict(case: &Case) -> Result<(), String> {
    let now = case.validation_time.as_deref().map_or(UnixTime::from_seconds(ANY_TIME), |text| {
        let at = OffsetDateTime::parse(text, &Rfc3339).unwrap();
        UnixTime::from_millis(i64::try_from(at.unix_timestamp_nanos() / 1_000_000).unwrap())
    });
    let der = |pem: &String| certificates_from(pem.as_bytes()).unwrap()[0].to_vec();
    // What an enrolment would refuse is never an anchor.
    let mut scene = Scene::new("limbo");
    let lists = Arc::new(HeldLists::default());
    let mut refused = None;
    for pem in &case.trusted_certs {
        let anchor = der(pem);
        match check_anchor(&anchor, now) {
            Ok(_) => {
                let any = NameSpace { any: true, ..NameSpace::default() };
                let change = |granted: &mut TrustAnchor| {
                    granted.eku_policy = EkuPolicy::Required;
                    if !case.crls.is_empty() {
                        granted.unknown_revocation = Unknown::Refuse;
                        granted.revocation.crls = vec![CrlSource { location: "limbo".to_owned(), issuer_der: None }];
                    }
                };
                scene = scene.granting(&anchor, change, any);
                for pem in &case.crls {
                    // What is refused, or somebody else's, is not held.
                    let list = CertificateRevocationListDer::from_pem_slice(pem.as_bytes()).unwrap();
                    let _ = crl::hold(&lists, &anchor, &list, now);
                }
            }
            Err(unfit) => refused = Some(format!("anchor: {unfit:?}")),
        }
    }
    let chain: Vec<_> = std::iter::once(&case.peer_certificate).chain(&case.untrusted_intermediates).map(der).collect();
    let verified = Verifier::with_lists(lists).verify_at_once(&presented_list(&chain), &scene.client(), now);
    let peer = verified.map_err(|refusal| refused.unwrap_or_else(|| refusal.reason().to_owned()))?;
    assert!(matches!(peer.standing(), Standing::Chained { .. }));
    let Some(PeerName { kind, value }) = &case.expected_peer_name else { return Ok(()) };
    let attribute = match kind.as_str() {
        "DNS" => SubjectAttribute::TlsClientAuthSanDns,
        "IP" => SubjectAttribute::TlsClientAuthSanIp,
        kind => panic!("{kind}"),
    };
    let rule = subject_rule(attribute, value).map_err(|malformed| format!("no rule: {malformed}"))?;
    if peer.leaf().names().unwrap().match_rule(&rule) { Ok(()) } else { Err("another name".to_owned()) }
}

#[test]
fn every_case_as_expected_or_pinned() {
    let limbo: Limbo = serde_json::from_str(include_str!("../../tests/vectors/x509-limbo/client.json")).unwrap();
    assert_eq!(limbo.testcases.len(), 133);
    let mut pinned: BTreeMap<_, _> = OTHERWISE.iter().map(|(id, reason)| (*id, *reason)).collect();
    assert_eq!(pinned.len(), OTHERWISE.len());
    let mut wrong = Vec::new();
    for case in &limbo.testcases {
        let expected = case.expected_result == "SUCCESS";
        let found = verdict(case);
        match (found.is_ok() == expected, pinned.remove(case.id.as_str())) {
            (true, None) | (false, Some(_)) => {}
            (true, Some(_)) => wrong.push(format!("{}: pinned, and yet as expected ({found:?})", case.id)),
            (false, None) => wrong.push(format!("{}: expected {}, found {found:?}", case.id, case.expected_result)),
        }
    }
    wrong.extend(pinned.into_keys().map(|id| format!("{id}: pinned, and there is no such case")));
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn a_list_longer_than_the_handshake_takes_is_cut() {
    let limbo: Limbo = serde_json::from_str(include_str!("../../tests/vectors/x509-limbo/client.json")).unwrap();
    let longest = limbo.testcases.iter().max_by_key(|case| case.untrusted_intermediates.len()).unwrap();
    assert!(longest.untrusted_intermediates.len() > MOST_INTERMEDIATES);
    assert!(verdict(longest).is_err());
}

/// Where this project decides otherwise, and why.
const OTHERWISE: &[(&str, &str)] = &[
    ("pathlen::max-chain-depth-0-exhausted", "the depth is no parameter: the handshake takes four intermediates"),
    ("pathlen::validation-ignores-pathlen-in-leaf", "the leaf is a CA's, and a CA is no client (design §3)"),
    ("rfc5280::aki::cross-signed-root-missing-aki", IDENTIFIERS),
    ("rfc5280::aki::intermediate-missing-aki", IDENTIFIERS),
    (
        "rfc5280::nc::invalid-dnsname-leading-period",
        "webpki reads the period as `below`, which permits less than RFC 5280",
    ),
    (
        "rfc5280::nc::permitted-dn-match",
        "webpki compares no directory names: it refuses what such a constraint concerns",
    ),
    ("rfc5280::nc::permitted-dns-match-noncritical", NAME_CONSTRAINTS),
    (
        "rfc5280::pc::ica-noncritical-pc",
        "policies are not processed: none is ever asked for, and critical ones are refused",
    ),
    (
        "rfc5280::san::noncritical-with-empty-subject",
        "RFC 5280 §4.2.1.6 binds CAs; a reader that knows the extension loses nothing",
    ),
    ("rfc5280::ski::intermediate-missing-ski", IDENTIFIERS),
    ("rfc5280::ski::root-missing-ski", IDENTIFIERS),
    ("webpki::aki::root-with-aki-authoritycertissuer", IDENTIFIERS),
    ("webpki::aki::root-with-aki-authoritycertserialnumber", IDENTIFIERS),
    ("webpki::aki::root-with-aki-ski-mismatch", IDENTIFIERS),
    ("webpki::cn::case-mismatch", COMMON_NAME),
    ("webpki::cn::ipv4-hex-mismatch", COMMON_NAME),
    ("webpki::cn::ipv4-leading-zeros-mismatch", COMMON_NAME),
    ("webpki::cn::ipv6-non-rfc5952-mismatch", COMMON_NAME),
    ("webpki::cn::ipv6-uppercase-mismatch", COMMON_NAME),
    ("webpki::cn::punycode-not-in-san", COMMON_NAME),
    ("webpki::eku::ee-critical-eku", "a rule of the CA/Browser Forum; RFC 5280 §4.2.1.12 lets it be critical"),
    ("webpki::nc::nc-permits-dns-san-pattern", WILDCARD),
    ("webpki::san::leftmost-wildcard-san", WILDCARD),
];

const IDENTIFIERS: &str =
    "key identifiers help to find a path (RFC 5280 §4.2.1.1); signatures decide, so none has to be there";
const NAME_CONSTRAINTS: &str =
    "a constraint counts whether critical or not, as webpki::nc::permitted-dns-match-noncritical has it";
const COMMON_NAME: &str =
    "a rule of the CA/Browser Forum on repeating names: here one registered attribute is looked at";
const WILDCARD: &str = "a wildcard names nobody (design §3)";
