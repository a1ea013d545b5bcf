//! One table, both asked: what the explanation refuses first is what `POST /token` puts on record.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use countersign::admission::AdmissionRefusal;
use countersign::client_auth::ClientAuthRefusal;
use countersign::explanation::{Audience, Outcome, Standing, explain};
use countersign::pki::{Handshake, PeerRefusal, PresentedChain};
use countersign::policy::PolicyRefusal;
use countersign::registry::SightingRefusal;
use countersign::registry::certificate::Replacement;
use countersign::registry::client::{ClientAuthentication, SubjectAttribute};
use countersign::registry::trust_anchor::{AnchorOwner, RevocationSources};
use countersign::registry::{ClientId, ResourceServerId};
use countersign_conformance::KeyKind;
use countersign_conformance::pki::{Authority, Credential, Name, Template};
use countersign_resource_server::time::Clock;
use rustls::pki_types::CertificateDer;

use super::{check, names_of_a, partner_a, refused, rig_on, taken_back, trust};
use crate::negative::{self, Expected};
use crate::rig::{Engine, Rig, client_of, entitlement, facts, resource_server, rule, thumbprint};
use crate::world::{Party, form_request, subject_of_a, subject_text_of_a};

pub(super) struct Row {
    name: String,
    client_id: String,
    credential: Option<Credential>,
}

impl Row {
    pub(super) fn new(name: &str, client_id: &str, credential: &Credential) -> Self {
        Self { name: name.to_owned(), client_id: client_id.to_owned(), credential: Some(credential.clone()) }
    }

    fn of(party: &Party) -> Self {
        Self::new(party.id, party.id, &party.credential)
    }
}

/// Reasons of these stages that no certificate brings about by itself, each with why.
const BEYOND_A_CERTIFICATE: [(&str, &str); 16] = [
    ("peer_key_too_weak", "ends the handshake, where it has a reason of its own"),
    ("peer_path_too_complex", "what is presented is cut before that much can be tried"),
    ("enrolment_required", "only in a race: `certificate_not_enrolled` comes before it"),
    ("enrolment_client_unknown", "only in a race"),
    ("enrolment_registry_unavailable", "an outage"),
    ("certificate_not_on_record", "a sighting that was not believed: nothing brings it about"),
    ("anchor_retired", "only in a race: `peer_anchor_retired` comes before it"),
    ("trust_domain_unknown", "of an assertion: whose keys it would be checked with"),
    ("grant_type_unsupported", "of a token request"),
    ("resource_entitlement_ended", "of a token request's resource"),
    ("resource_entitlement_not_started", "of a token request's resource"),
    ("resource_several", "of a token request's resource"),
    ("resource_not_entitled", "of a token request's resource"),
    ("resource_retired", "of a token request's resource"),
    ("resource_ambiguous", "of a token request without resource; the explanation says to name one"),
    ("scope_mixed", "of a token request's scope"),
];
const OF_A_SCOPE: [&str; 2] = ["scope_malformed", "scope_not_entitled"];

#[tokio::test]
async fn the_first_refused_step_is_what_a_token_request_is_refused_for() {
    for engine in Engine::every() {
        let rig = rig_on(&engine).await;
        let mut rows = rows_of_the_negative_table(&rig);
        rows.extend(rows_of_states(&rig));
        rows.extend(rows_of_enrolment(&rig).await);
        rows.extend(rows_of_anchors(&rig).await);
        rows.extend(rows_of_a_replacement(&rig).await);
        rows.extend(rows_of_entitlements(&rig).await);
        let (responder, taken_back) = taken_back::rows(&rig).await;
        rows.extend(taken_back);
        rows.extend(taken_back::rows_of_trust_domains(&rig).await);
        let mut reasons = BTreeSet::new();
        let mut told = 0;
        for row in &rows {
            let explained = explained(&rig, row).await;
            let on_record = on_record(&rig, row).await;
            assert_eq!(explained.0, on_record, "{}, as {}", row.name, row.client_id);
            if let (Some(credential), true) = (&row.credential, explained.1 != Standing::Stranger) {
                let answer = check(&rig, credential, &row.client_id).await.json();
                assert_eq!(refused(&answer), on_record, "{}, over the wire: {answer}", row.name);
                told += 1;
            }
            reasons.extend(on_record.map(|(_, reason)| reason));
        }
        println!("{} rows, {told} told over the wire, {} reasons: {reasons:?}", rows.len(), reasons.len());
        let of_the_path = [
            PeerRefusal::REASONS,
            ClientAuthRefusal::REASONS,
            SightingRefusal::REASONS,
            AdmissionRefusal::REASONS,
            PolicyRefusal::REASONS,
        ];
        let beyond = BEYOND_A_CERTIFICATE.map(|(reason, _)| reason);
        // An assertion is not examined.
        for reason in of_the_path.concat().into_iter().filter(|reason| !reason.starts_with("assertion_")) {
            let is_beyond = beyond.contains(&reason) || OF_A_SCOPE.contains(&reason);
            assert_eq!(reasons.contains(reason), !is_beyond, "{reason}");
        }
        drop(responder);
    }
}

/// What the explanation refuses first: stage and reason; and whose certificate it takes it for.
async fn explained(rig: &Rig, row: &Row) -> (Option<(String, String)>, Standing) {
    let handshake = Handshake { remote: ([192, 0, 2, 1], 1).into(), protocol: "TLSv1.3", resumed: false };
    let chain = row.credential.iter().flat_map(|credential| credential.chain.clone());
    let peer = Arc::new(PresentedChain::new(handshake, chain.map(CertificateDer::from).collect()));
    let client_id = ClientId::parse(&row.client_id).unwrap();
    let explanation = explain(&rig.app.explanation(), &peer, &client_id, Audience::Peer, rig.clock.now()).await;
    let step = explanation.steps.iter().find(|step| step.outcome == Outcome::Refused);
    assert_eq!(explanation.would_be_let_in, step.is_none(), "{}", row.name);
    if let Some(step) = step {
        assert!(step.advice.is_some() && !step.says.is_empty(), "{}", row.name);
    }
    let first = step.and_then(|step| Some((step.stage?.to_owned(), step.reason?.to_owned())));
    (first, explanation.standing)
}

/// What a token request without scope and resource is refused for, as the audit log has it.
pub(super) async fn on_record(rig: &Rig, row: &Row) -> Option<(String, String)> {
    let form = form_request(&[("grant_type", "client_credentials".to_owned()), ("client_id", row.client_id.clone())]);
    let peer = row.credential.as_ref().map_or_else(|| rig.anonymous(), |credential| rig.peer(credential));
    let answer = peer.ask(rig.address, &form).await.unwrap();
    let record = rig.last_record().await;
    if answer.status == 200 {
        return None;
    }
    Some((record["stage"].as_str()?.to_owned(), record["reason"].as_str()?.to_owned()))
}

/// Every certificate with one defect of the negative tests.
fn rows_of_the_negative_table(rig: &Rig) -> Vec<Row> {
    let cases = negative::certificate::cases(&rig.world).into_iter();
    let decided = cases.filter(|case| matches!(case.expected, Expected::Refused { .. }));
    let rows = decided.map(|case| {
        let text = String::from_utf8_lossy(&case.octets).into_owned();
        let client_id = text.split("client_id=").nth(1).unwrap().split('&').next().unwrap().to_owned();
        Row { name: case.name, client_id, credential: case.credential }
    });
    rows.collect()
}

fn rows_of_states(rig: &Rig) -> Vec<Row> {
    let world = &rig.world;
    [
        &world.a_dn,
        &world.a_dns,
        &world.a_self,
        &world.a_required,
        &world.c_ip,
        &world.a_suspended,
        &world.a_pending,
        &world.a_retired,
        &world.a_production,
        &world.a_unentitled,
        &world.a_ended,
        &world.a_not_started,
        &world.a_revoked,
        &world.a_superseded,
        &world.a_orphan,
        &world.d_dn,
        &world.e_dn,
        &world.f_dn,
    ]
    .into_iter()
    .map(Row::of)
    .collect()
}

async fn rows_of_enrolment(rig: &Rig) -> Vec<Row> {
    let (world, registry) = (&rig.world, &rig.app.registry);
    let now = world.now;
    let named = |id: &str| world.a_root.issue(&Template::client(subject_of_a(id), now), KeyKind::P256);
    let add = async |id: &str, credential: &Credential| {
        let client = ClientId::parse(id).unwrap();
        registry.add_certificate(client, facts(credential), rig.explanation()).await.unwrap();
    };

    let taken = named("a-dn");
    add("a-two", &taken).await;

    let subject = rule(SubjectAttribute::TlsClientAuthSubjectDn, &subject_text_of_a("a-full"));
    let full = client_of("a-full", "partner-a", ClientAuthentication::TlsClientAuth { subject });
    registry.add_client(full, Vec::new(), rig.explanation()).await.unwrap();
    for _ in 0..16 {
        add("a-full", &named("a-full")).await;
    }

    // Two certificates under one serial number, of two clients: their CA has done that.
    let serial = |id: &str| Template { serial: Some(vec![0x11; 8]), ..Template::client(subject_of_a(id), now) };
    let first = world.a_root.issue(&serial("a-unentitled"), KeyKind::P256);
    let seen = on_record(rig, &Row::new("first", "a-unentitled", &first)).await;
    assert_eq!(seen.unwrap().1, "no_entitlement", "and its certificate is on record");
    let second = world.a_root.issue(&serial("a-dn"), KeyKind::P256);

    let own = Credential::self_signed(&Template::client(Name::common("own"), now), KeyKind::P256);
    let jwks = "{}".to_owned();
    let unusable = client_of("a-unusable", "partner-a", ClientAuthentication::SelfSignedTlsClientAuth { jwks });
    registry.add_client(unusable, vec![facts(&own)], rig.explanation()).await.unwrap();

    let other = Credential::self_signed(&Template::client(Name::common("other"), now), KeyKind::P256);
    add("a-self", &other).await;

    // As an import may have it, whose operator vouches for what a line says.
    let mistaken = named("a-dn");
    let mut with_anothers_key = facts(&mistaken);
    with_anothers_key.key_hash = facts(&named("a-dn")).key_hash;
    let client = ClientId::parse("a-dn").unwrap();
    registry.add_certificate(client, with_anothers_key, rig.explanation()).await.unwrap();
    vec![
        Row::new("on record with another key than it has", "a-dn", &mistaken),
        Row::new("a certificate enrolled for another client", "a-dn", &taken),
        Row::new("a seventeenth certificate", "a-full", &named("a-full")),
        Row::new("a serial number given twice", "a-dn", &second),
        Row::new("keys that cannot be used", "a-unusable", &own),
        Row::new("enrolled, but in no x5c", "a-self", &other),
    ]
}

/// A certificate whose place another has taken, and whose overlap is over.
async fn rows_of_a_replacement(rig: &Rig) -> Vec<Row> {
    let (world, registry) = (&rig.world, &rig.app.registry);
    let subject = rule(SubjectAttribute::TlsClientAuthSubjectDn, &subject_text_of_a("a-renewed"));
    let client = client_of("a-renewed", "partner-a", ClientAuthentication::TlsClientAuth { subject });
    registry.add_client(client, Vec::new(), rig.explanation()).await.unwrap();
    let next = || world.a_root.issue(&Template::client(subject_of_a("a-renewed"), world.now), KeyKind::P256);
    let (old, new) = (next(), next());
    let seen = async |what: &str, credential: &Credential| {
        let reason = on_record(rig, &Row::new(what, "a-renewed", credential)).await.unwrap().1;
        assert_eq!(reason, "no_entitlement", "{what}: and on record");
    };
    seen("old", &old).await;
    let replaces = Replacement { thumbprint: thumbprint(&old), overlap_seconds: 1 };
    let client = ClientId::parse("a-renewed").unwrap();
    registry.announce_replacement(client, facts(&new), replaces, rig.explanation()).await.unwrap();
    seen("new", &new).await;
    rig.clock.advance(Duration::from_secs(1));
    vec![Row::new("replaced", "a-renewed", &old), Row::new("its replacement", "a-renewed", &new)]
}

async fn rows_of_anchors(rig: &Rig) -> Vec<Row> {
    let world = &rig.world;
    let now = world.now;
    // An authority that ends in this second, asked about in the next.
    let ending = Template { not_after: now, ..Template::authority(Name::common("Ending Root"), now) };
    let ending = Authority::root_with(ending, KeyKind::P256, now);
    let owner = AnchorOwner::Participant(partner_a());
    trust(rig, &ending, owner, RevocationSources::default(), &names_of_a()).await;
    rig.clock.advance(Duration::from_secs(1));

    let leaf = Template::client(subject_of_a("a-dn"), now);
    let large = Template::authority(Name::common("Partner A Large"), now);
    let large = world.a_root.issue(&large, KeyKind::Rsa4224);
    let large = Authority::pretended(Name::common("Partner A Large"), &large, now);
    vec![
        Row::new("an authority that ended a second ago", "a-dn", &ending.issue(&leaf, KeyKind::P256)),
        Row::new("an issuer whose key is too large", "a-dn", &large.issue(&leaf, KeyKind::P256)),
        Row { name: "none".to_owned(), client_id: "a-dn".to_owned(), credential: None },
    ]
}

async fn rows_of_entitlements(rig: &Rig) -> Vec<Row> {
    let (world, registry) = (&rig.world, &rig.app.registry);
    let now = rig.clock.now();
    let mut rows = Vec::new();
    let api = resource_server("going", "https://going.example", "read");
    registry.add_resource_server(api, rig.explanation()).await.unwrap();
    for (id, api, scopes, ends_at) in [
        ("a-without-api", "going", "read", None),
        ("a-ending", "accounts", "accounts:read", Some(now.after(Duration::from_millis(500)))),
        ("a-short", "accounts", "accounts:read", None),
    ] {
        let subject = rule(SubjectAttribute::TlsClientAuthSubjectDn, &subject_text_of_a(id));
        let client = client_of(id, "partner-a", ClientAuthentication::TlsClientAuth { subject });
        registry.add_client(client, Vec::new(), rig.explanation()).await.unwrap();
        let entitlement = entitlement(id, api, scopes, now.before(Duration::from_secs(60)), ends_at);
        registry.add_entitlement(entitlement, rig.explanation()).await.unwrap();
        let not_after = if id == "a-short" { now.as_seconds() } else { now.as_seconds() + 3_600 };
        let template = Template { not_after, ..Template::client(subject_of_a(id), world.now) };
        rows.push(Row::new(id, id, &world.a_root.issue(&template, KeyKind::P256)));
    }
    registry.retire_resource_server(ResourceServerId::parse("going").unwrap(), rig.explanation()).await.unwrap();
    rows
}
