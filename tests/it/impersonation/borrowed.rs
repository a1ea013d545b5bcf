//! Somebody else's certificate, list, header, twin or token.

use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use countersign::registry::certificate::RevocationReason;
use countersign::registry::edit::CertificateSelector;
use countersign_conformance::KeyKind;
use countersign_conformance::pki::{Authority, Credential, Name, Template};

use super::{Attempt, Family, Method, Outcome, Victim, Wire, run, victims};
use crate::rig::{Engine, Rig, Time, thumbprint};
use crate::wire::Request;
use crate::world::{Party, World, subject_of_a};

#[tokio::test]
async fn another_clients_certificate() {
    let rig = Rig::start().await;
    run(&rig, &certificates(&rig.world)).await;
}

#[tokio::test]
async fn the_victims_certificate_behind_the_attackers() {
    let rig = Rig::start().await;
    run(&rig, &lists(&rig.world)).await;
}

#[tokio::test]
async fn the_victims_certificate_in_a_header() {
    let rig = Rig::start().await;
    run(&rig, &headers(&rig.world)).await;
}

/// The clients whose certificates are good, for themselves.
fn attackers(world: &World) -> [&Party; 10] {
    [
        &world.a_dn,
        &world.a_dns,
        &world.a_uri,
        &world.a_email,
        &world.a_jwt,
        &world.a_required,
        &world.a_two,
        &world.a_self,
        &world.b_dn,
        &world.c_ip,
    ]
}

/// Why `attacker`'s certificate is not taken for `victim`'s.
fn reason(victim: &Victim, attacker: &Party) -> Outcome {
    let of_a = victim.authority.name == Name::common("Partner Root");
    victim.refused(match attacker.id {
        "a-self" => "peer_version_unsupported",
        "b-dn" if of_a => "peer_signature_invalid",
        "b-dn" | "c-ip" => "peer_issuer_unknown",
        _ if of_a => "certificate_name_mismatch",
        _ => "peer_issuer_unknown",
    })
}

pub(super) fn certificates(world: &World) -> Family<'_> {
    let mut family = Family::of(world);
    for victim in &victims(world) {
        family.honest("its own certificate", victim, &victim.party.credential);
        for attacker in attackers(world) {
            if attacker.id != victim.party.id {
                let what = format!("the certificate of {}", attacker.id);
                family.push(&what, victim, &attacker.credential, reason(victim, attacker));
            }
        }
        for (whose, party) in
            [("a client of a suspended partner", &world.d_dn), ("a client that was revoked", &world.a_revoked)]
        {
            let of_a = victim.authority.name == Name::common("Partner Root");
            let outcome = match party.id {
                "a-revoked" if of_a => victim.refused("certificate_name_mismatch"),
                _ => victim.refused("peer_issuer_unknown"),
            };
            family.push(&format!("the certificate of {whose}"), victim, &party.credential, outcome);
        }
    }
    family
}

pub(super) fn lists(world: &World) -> Family<'_> {
    let mut family = Family::of(world);
    for victim in &victims(world) {
        family.honest("its own certificate", victim, &victim.party.credential);
        for attacker in attackers(world) {
            if attacker.id == victim.party.id {
                continue;
            }
            let mut second = attacker.credential.clone();
            second.chain.insert(1, victim.party.credential.certificate().to_vec());
            let what = format!("the certificate of {}, the victim's second", attacker.id);
            family.push(&what, victim, &second, reason(victim, attacker));
        }
        let mut last = world.a_two.credential.clone();
        last.chain.extend(victim.party.credential.chain.iter().cloned());
        let outcome = reason(victim, &world.a_two);
        family.push("the certificate of a-two, the victim's whole list behind it", victim, &last, outcome);
        let mut turned = victim.party.credential.clone();
        turned.chain.insert(0, world.a_two.credential.certificate().to_vec());
        turned.key = Arc::clone(&world.a_two.credential.key);
        // Its own issuing authority is left out there, unless the victim has the same.
        let in_front =
            if victim.party.credential.chain.len() > 1 { outcome } else { victim.refused("peer_issuer_unknown") };
        family.push("the certificate of a-two in front of the victim's list", victim, &turned, in_front);
        // The victim's list whole, and the attacker's key: possession is what a certificate is believed for.
        let stolen =
            Credential { key: Arc::clone(&world.a_two.credential.key), chain: victim.party.credential.chain.clone() };
        let unproven = Outcome::NoHandshake("handshake_possession_not_proven");
        family.push("the victim's certificate without its key", victim, &stolen, unproven);
    }
    family
}

/// Headers by which one server tells another who its client was.
const HEADERS: [&str; 9] = [
    "Client-Cert",
    "Client-Cert-Chain",
    "X-Client-Cert",
    "X-SSL-Client-Cert",
    "SSL-Client-Cert",
    "X-Forwarded-Client-Cert",
    "X-Forwarded-Tls-Client-Cert",
    "X-ARR-ClientCert",
    "X-Amzn-Mtls-Clientcert",
];

/// What such a header says of a certificate.
fn header(name: &str, credential: &Credential) -> String {
    let octets = STANDARD.encode(credential.certificate());
    match name {
        // RFC 9440 §2.1: an sf-binary.
        "Client-Cert" | "Client-Cert-Chain" => format!(":{octets}:"),
        "X-Forwarded-Client-Cert" => {
            format!("Hash={};Cert=\"{octets}\"", credential.thumbprint())
        }
        _ => octets,
    }
}

pub(super) fn headers(world: &World) -> Family<'_> {
    let mut family = Family::of(world);
    for victim in &victims(world) {
        family.honest("its own certificate", victim, &victim.party.credential);
        for name in HEADERS {
            let value = header(name, &victim.party.credential);
            let what = format!("{name} of the victim and no certificate, for {}", victim.party.id);
            let request = victim.request(world, &what).with_header(name, &value);
            let outcome = Outcome::Refused("peer_no_certificate");
            family.attempts.push(Attempt { name: what, credential: None, request, wire: Wire::Tls13, outcome });
            let attackers: [(&str, Credential, Outcome); 2] = [
                (world.a_two.id, world.a_two.credential.clone(), reason(victim, &world.a_two)),
                (world.b_dn.id, world.b_dn.credential.clone(), reason(victim, &world.b_dn)),
            ];
            for (who, credential, outcome) in attackers {
                let what = format!("{name} of the victim on a connection of {who}");
                family.push(&what, victim, &credential, outcome);
                if let Some(attempt) = family.attempts.last_mut() {
                    attempt.request = attempt.request.clone().with_header(name, &value);
                }
            }
        }
    }
    family
}

/// A second valid DER of a certificate (design §3), and a second certificate of a key.
pub(super) fn twins(world: &World) -> Family<'_> {
    let mut family = Family::of(world);
    for victim in &victims(world) {
        // This one the server comes to know here, where it did not before.
        family.honest("its own certificate", victim, &victim.party.credential);
        if let Some(twin) = victim.party.credential.rewritten() {
            let outcome = victim.refused("certificate_twin");
            family.push("its own certificate with the signature rewritten", victim, &twin, outcome);
        }
    }
    for (what, party) in
        [("the revoked certificate", &world.a_revoked), ("the superseded certificate", &world.a_superseded)]
    {
        let victim = Victim {
            party: party.clone(),
            template: Template::client(subject_of_a(party.id), world.now),
            authority: world.a_root.clone(),
            method: Method::OnFirstUse,
        };
        let outcome =
            Outcome::Refused(if party.id == "a-revoked" { "certificate_revoked" } else { "certificate_superseded" });
        family.push(what, &victim, &party.credential, outcome);
        if let Some(twin) = party.credential.rewritten() {
            let what = format!("{what} with its signature rewritten");
            family.push(&what, &victim, &twin, Outcome::Refused("certificate_twin"));
        }
    }
    // The revoked key, certified anew: for its own client, for others of the same partner and of another.
    let key = &world.a_revoked.credential.key;
    let revoked = Outcome::Refused("enrolment_key_revoked");
    let own = Victim {
        party: world.a_revoked.clone(),
        template: Template::client(subject_of_a("a-revoked"), world.now),
        authority: world.a_root.clone(),
        method: Method::OnFirstUse,
    };
    for victim in std::iter::once(&own).chain(&victims(world)).filter(|victim| victim.method == Method::OnFirstUse) {
        let credential = victim.authority.issue_for(&victim.template, Arc::clone(key));
        family.push("a new certificate for a key that was revoked", victim, &credential, revoked);
        let through = victim.authority.intermediate("Another issuing authority");
        let credential = through.issue_for(&victim.template, Arc::clone(key));
        family.push("the same through another authority", victim, &credential, revoked);
    }
    let of_b = Victim {
        party: world.b_dn.clone(),
        template: Template::client(Name::of(&[("C", "FR"), ("O", "Partner B"), ("CN", "b-dn")]), world.now),
        authority: world.b_root.clone(),
        method: Method::OnFirstUse,
    };
    family.honest("its own certificate", &of_b, &world.b_dn.credential);
    let credential = world.b_root.issue_for(&of_b.template, Arc::clone(key));
    family.push("a new certificate for another partner's revoked key", &of_b, &credential, revoked);
    // The registered certificate, issued again: the same key and name, another serial number.
    let own = victims(world).into_iter().find(|victim| victim.method == Method::SelfSigned);
    if let Some(victim) = own {
        for serial in [vec![1], vec![0x4D, 9]] {
            let template = Template { serial: Some(serial.clone()), ..victim.template.clone() };
            let mut again = Authority::pretended(template.subject.clone(), &victim.party.credential, world.now)
                .issue_for(&template, Arc::clone(&victim.party.credential.key));
            again.chain.truncate(1);
            let outcome = Outcome::Refused("peer_not_registered");
            family.push(&format!("the same key and name with serial {serial:?}"), &victim, &again, outcome);
        }
    }
    family
}

#[tokio::test]
async fn a_second_der_of_a_certificate_and_a_second_certificate_of_a_key() {
    let rig = Rig::start().await;
    run(&rig, &twins(&rig.world)).await;
}

/// After a revocation by issuer key and serial, neither DER is let in, nor can either be enrolled.
#[tokio::test]
async fn a_revocation_by_serial_counts_for_both_encodings() {
    for engine in Engine::every() {
        let rig = Rig::on(&engine, Time::Standing).await;
        let world = &rig.world;
        let party = &world.a_dn;
        let twin = party.credential.rewritten().unwrap();
        assert_eq!(rig.ask(party).await.status, 200, "the honest twin");
        let certificate = rig.app.registry.certificate(&thumbprint(&party.credential)).await.unwrap().unwrap();
        let selected =
            CertificateSelector::IssuerAndSerial(certificate.issuer_key.unwrap(), certificate.serial.clone());
        let why = rig.explanation();
        rig.app.registry.revoke_certificate(selected, RevocationReason::CessationOfOperation, why).await.unwrap();
        for (credential, reason) in [(&party.credential, "certificate_revoked"), (&twin, "certificate_twin")] {
            let answer = rig.peer(credential).ask(rig.address, &party.request()).await.unwrap();
            assert_eq!((answer.status, answer.error().as_str()), (400, "invalid_client"), "{reason}: {answer}");
            assert_eq!(rig.last_record().await["reason"], reason);
        }
        // A client that knows neither yet meets the same serial in the registry.
        let facts = crate::rig::facts(&twin);
        let client = countersign::registry::ClientId::parse("a-two").unwrap();
        let entered = rig.app.registry.add_certificate(client, facts, rig.explanation()).await;
        println!("the twin entered for another client: {entered:?}");
        let answer = rig.peer(&twin).ask(rig.address, &world.a_two.request()).await.unwrap();
        assert_eq!((answer.status, answer.error().as_str()), (400, "invalid_client"), "{answer}");
        rig.stop().await;
    }
}

/// A token is of no use to anybody but the certificate it was issued to (RFC 8705 §3).
#[tokio::test]
async fn the_victims_token_with_the_attackers_certificate() {
    let rig = Rig::on(&Engine::Sqlite, Time::Machine).await;
    let api = rig.guarded_api().await;
    let world = &rig.world;
    let mut attempts = 0;
    for victim in &victims(world) {
        let own = &victim.party.credential;
        let request = victim.request(world, "at the API");
        let token = rig.peer(own).ask(rig.address, &request).await.unwrap().token();
        let call = Request::get("/accounts").with_header("Authorization", &format!("Bearer {token}"));
        let again = rig.peer(own).ask(api.address, &call).await.unwrap();
        assert_eq!(again.status, 200, "the honest twin, {}: {again}", victim.party.id);
        let mut attackers: Vec<(String, Credential)> = attackers(world)
            .iter()
            .filter(|attacker| attacker.id != victim.party.id)
            .map(|attacker| (attacker.id.to_owned(), attacker.credential.clone()))
            .collect();
        attackers.push((
            "a new certificate for the victim's key".to_owned(),
            victim.authority.issue_for(&victim.template, Arc::clone(&own.key)),
        ));
        attackers.push(("its twin".to_owned(), own.rewritten().unwrap()));
        let mut second = world.a_two.credential.clone();
        second.chain.insert(1, own.certificate().to_vec());
        attackers.push(("a-two with the victim's certificate second".to_owned(), second));
        attackers.push(("a stranger".to_owned(), Credential::self_signed(&victim.template, KeyKind::P256)));
        for (who, credential) in attackers {
            for header_name in [None, Some("Client-Cert")] {
                let mut call = call.clone();
                if let Some(name) = header_name {
                    call = call.with_header(name, &header(name, own));
                }
                let answer = rig.peer(&credential).ask(api.address, &call).await.unwrap();
                let challenge = answer.header("www-authenticate").unwrap_or_default();
                assert_eq!(answer.status, 401, "{who} with the token of {}: {answer}", victim.party.id);
                assert!(challenge.contains("error=\"invalid_token\""), "{who}: {challenge}");
                attempts += 1;
            }
        }
        let answer =
            rig.anonymous().ask(api.address, &call.with_header("Client-Cert", &header("Client-Cert", own))).await;
        assert_eq!(answer.unwrap().status, 401, "no certificate, {}", victim.party.id);
        attempts += 1;
    }
    println!("{attempts} hostile attempts at the API");
    rig.stop().await;
}
