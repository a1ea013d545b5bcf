//! `countersign certificate explain`: the operator's view, everything told.

use std::time::Duration;

use countersign::registry::trust_anchor::{
    CrlSource, NoncePolicy, OcspPolicy, RevocationSources, TrustAnchor, Unknown,
};
use countersign_conformance::KeyKind;
use countersign_conformance::crl::{RevocationList, Revoked, to_pem};
use countersign_conformance::ocsp::{self, HttpResponder, Reply, Status};
use countersign_conformance::pki::{Name, Template};
use countersign_resource_server::time::UnixTime;
use serde_json::Value;

use super::refused;
use crate::revocation_lists::anchor;
use crate::rig::{Rig, within};
use crate::world::subject_of_a;

async fn explain(rig: &Rig, file: &str, content: &str, client: &str, more: &[&str]) -> (bool, String, String) {
    let path = rig.file(file, content).display().to_string();
    let mut arguments = vec!["certificate", "explain", &path, "--client", client];
    arguments.extend(more);
    let output = rig.command(&arguments).await;
    let text = |octets: Vec<u8>| String::from_utf8(octets).unwrap();
    (output.status.success(), text(output.stdout), text(output.stderr))
}

#[tokio::test]
async fn the_operator_is_told_every_step_and_the_exit_code_says_which_way() {
    let rig = Rig::start().await;
    let world = &rig.world;
    let (good, told, _) = explain(&rig, "good.pem", &world.a_dn.credential.chain_pem(), "a-dn", &[]).await;
    assert!(good && told.contains("it would be let in"), "{told}");
    assert_eq!(rig.app.registry.client(&"a-dn".parse().unwrap()).await.unwrap().record.certificates.len(), 0);

    let reversed = Name::of(&[("CN", "a-dn"), ("O", "Partner A"), ("C", "DE")]);
    let reversed = world.a_root.issue(&Template::client(reversed, world.now), KeyKind::P256);
    let (good, told, error) = explain(&rig, "reversed.pem", &reversed.chain_pem(), "a-dn", &[]).await;
    assert!(!good && told.contains("in the other order"), "{told}");
    assert!(error.contains("it would not be let in: peer_outside_name_space"), "{error}");

    let (good, told, _) =
        explain(&rig, "x.pem", &world.stranger_root.client("x").chain_pem(), "nobody", &["--json"]).await;
    let told: Value = serde_json::from_str(&told).unwrap();
    assert_eq!((good, refused(&told).unwrap().1.as_str()), (false, "client_unknown"));
}

/// A stranger's certificate, and the operator is told how the client stands all the same.
#[tokio::test]
async fn the_operator_is_told_what_a_stranger_is_not() {
    let rig = Rig::start().await;
    let stranger = rig.world.stranger_root.issue(
        &Template { not_after: rig.world.now - 1, ..Template::client(subject_of_a("a-suspended"), rig.world.now) },
        KeyKind::P256,
    );
    let (_, told, _) = explain(&rig, "s.pem", &stranger.chain_pem(), "a-suspended", &["--json"]).await;
    let told: Value = serde_json::from_str(&told).unwrap();
    assert_eq!(refused(&told).unwrap().1, "peer_expired");
    let besides: Vec<_> =
        told["besides"].as_array().unwrap().iter().map(|finding| finding["reason"].as_str().unwrap()).collect();
    assert_eq!(besides, ["peer_issuer_unknown", "client_suspended"], "{told:#}");
}

#[tokio::test]
async fn another_instant_is_another_answer() {
    let rig = Rig::start().await;
    let world = &rig.world;
    let template = Template { not_after: 1_900_000_000, ..Template::client(subject_of_a("a-dn"), world.now) };
    let pem = world.a_root.issue(&template, KeyKind::P256).chain_pem();
    for (at, reason) in [("2030-03-17T17:46:40Z", None), ("2030-03-17T17:46:41Z", Some("peer_expired"))] {
        let (_, told, _) = explain(&rig, "dated.pem", &pem, "a-dn", &["--json", "--at", at]).await;
        let told: Value = serde_json::from_str(&told).unwrap();
        let first = refused(&told).map(|(_, reason)| reason);
        // The authority above is good for ninety days only: what is asked is the leaf's own edge.
        assert_eq!(first.as_deref() == Some("peer_expired"), reason.is_some(), "{at}: {told:#}");
    }
    let (good, _, error) = explain(&rig, "dated.pem", &pem, "a-dn", &["--at", "tomorrow"]).await;
    assert!(!good && error.contains("RFC 3339"), "{error}");
}

/// What ends a handshake is told as well: there would be no request to refuse.
#[tokio::test]
async fn what_a_handshake_would_refuse_is_told() {
    let rig = Rig::start().await;
    let world = &rig.world;
    let weak = world.a_root.issue(&Template::client(subject_of_a("a-dn"), world.now), KeyKind::Rsa1024);
    let (good, told, error) = explain(&rig, "weak.pem", &weak.chain_pem(), "a-dn", &[]).await;
    assert!(!good && told.contains("Make a new key"), "{told}");
    assert!(error.contains("handshake_key_not_accepted"), "{error}");
}

#[tokio::test]
async fn der_is_read_and_rubbish_is_not() {
    let rig = Rig::start().await;
    let path = rig.file("leaf.der", "");
    std::fs::write(&path, rig.world.a_dns.credential.certificate()).unwrap();
    let output = rig.command(&["certificate", "explain", &path.display().to_string(), "--client", "a-dns"]).await;
    assert!(output.status.success(), "{output:?}");
    let (good, _, error) = explain(&rig, "text.pem", "rubbish", "a-dn", &[]).await;
    assert!(!good && error.contains("no certificate in PEM or DER"), "{error}");
}

/// A server's view of revocation: its lists, wherever they are now, and the responder.
#[tokio::test]
async fn what_lists_say_is_said_here_as_well() {
    let rig = Rig::start().await;
    let world = &rig.world;
    let leaf = || world.a_root.issue(&Template::client(subject_of_a("a-dn"), world.now), KeyKind::P256);
    let (good, revoked) = (leaf(), leaf());
    let taken_back = Revoked::certificate(revoked.certificate(), world.now - 60).because(4);
    let list = RevocationList::new(7, world.now).revoking(taken_back).signed_by(&world.a_root);
    let file = rig.file("a.crl", &to_pem(&list));
    let location = file.display().to_string();
    let sources = |crls| RevocationSources { crls, ..RevocationSources::default() };
    let own = anchor(&rig).await;
    let listed = sources(vec![CrlSource { location, issuer_der: None }]);
    let changed = TrustAnchor { unknown_revocation: Unknown::Refuse, revocation: listed, ..own };
    rig.app.registry.change_anchor(changed, rig.explanation()).await.unwrap();

    let (is_good, told, error) = explain(&rig, "good.pem", &good.chain_pem(), "a-dn", &[]).await;
    assert!(is_good, "{told}{error}");
    let (is_good, told, error) = explain(&rig, "revoked.pem", &revoked.chain_pem(), "a-dn", &[]).await;
    assert!(!is_good && error.contains("peer_revoked"), "{told}{error}");
    assert!(told.contains("lists_held: number 7, issued "), "{told}");
    // Nothing is put on record by it.
    assert_eq!(rig.app.registry.client(&"a-dn".parse().unwrap()).await.unwrap().record.certificates.len(), 0);

    // Dates are judged then, revocation is asked now: the list has run out by then, and the certificate has not.
    let at = UnixTime::from_seconds(world.now + 2 * 86_400).to_string();
    let (is_good, told, error) = explain(&rig, "good.pem", &good.chain_pem(), "a-dn", &["--at", &at]).await;
    assert!(is_good && told.contains("whether it is revoked: as of now, "), "{told}{error}");
    let before = UnixTime::from_seconds(world.now - 600).to_string();
    let (is_good, told, _) = explain(&rig, "revoked.pem", &revoked.chain_pem(), "a-dn", &["--at", &before]).await;
    assert!(!is_good && told.contains("It was revoked at "), "{told}");

    // What the server has written down counts where the place is empty now.
    let kept = || std::fs::read_dir(rig.directory().join("crls")).is_ok_and(|files| files.count() > 0);
    within(Duration::from_secs(10), "the list is written down", kept).await;
    std::fs::remove_file(&file).unwrap();
    let (is_good, told, error) = explain(&rig, "good.pem", &good.chain_pem(), "a-dn", &[]).await;
    assert!(is_good && told.contains("not taken: it cannot be read"), "{told}{error}");
    std::fs::remove_dir_all(rig.directory().join("crls")).unwrap();
    let (is_good, told, _) = explain(&rig, "good.pem", &good.chain_pem(), "a-dn", &["--json"]).await;
    let told: Value = serde_json::from_str(&told).unwrap();
    assert_eq!((is_good, refused(&told).unwrap().1.as_str()), (false, "peer_revocation_unknown"));
    assert!(told["revocation_as_of"].is_string() && told["revocation_lists"][0]["refusal"].is_string(), "{told:#}");
    assert!(!rig.directory().join("crls").exists(), "it writes nothing");
}

#[tokio::test]
async fn the_responder_is_asked_here_as_well() {
    let rig = Rig::start().await;
    let root = rig.world.a_root.clone();
    let leaf = || root.issue(&Template::client(subject_of_a("a-dn"), rig.world.now), KeyKind::P256);
    let (good, revoked) = (leaf(), leaf());
    let (issuer, now, serial) = (root.clone(), rig.world.now, ocsp::serial_of(revoked.certificate()).to_vec());
    let responder = HttpResponder::start(move |asked| {
        let (id, nonce) = (asked.ids[0].clone(), asked.nonce.clone());
        let taken_back = Status::Revoked { at: now - 60, reason: Some(4) };
        let status = if id.serial == serial { taken_back } else { Status::Good };
        Reply::Octets(ocsp::Response::by_issuer(&issuer, id, status, nonce, now).signed(&issuer.key))
    })
    .unwrap();
    let policy = OcspPolicy {
        responder_url: Some(responder.url()),
        url_prefixes: Vec::new(),
        unknown: Unknown::Refuse,
        unreachable: Unknown::Refuse,
        nonce: NoncePolicy::IfPresent,
    };
    let revocation = RevocationSources { ocsp: Some(policy), ..RevocationSources::default() };
    let changed = TrustAnchor { revocation, ..anchor(&rig).await };
    rig.app.registry.change_anchor(changed, rig.explanation()).await.unwrap();
    let good = good.chain_pem();
    let (is_good, told, error) = explain(&rig, "good.pem", &good, "a-dn", &[]).await;
    assert!(is_good, "{told}{error}");
    let (is_good, told, error) = explain(&rig, "revoked.pem", &revoked.chain_pem(), "a-dn", &[]).await;
    assert!(!is_good && error.contains("peer_revoked"), "{told}{error}");
    assert!(told.contains(&format!("responder: {}", responder.url())), "{told}");
    let at = UnixTime::from_seconds(rig.world.now + 30 * 86_400).to_string();
    let (is_good, told, error) = explain(&rig, "good.pem", &good, "a-dn", &["--at", &at]).await;
    assert!(is_good, "{told}{error}");
    responder.reply(|_| Reply::Http(503));
    let (is_good, told, error) = explain(&rig, "good.pem", &good, "a-dn", &[]).await;
    assert!(!is_good && told.contains("no responder answered"), "{told}{error}");
}
