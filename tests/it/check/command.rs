//! `countersign certificate explain`: the operator's view, everything told.

use countersign_conformance::KeyKind;
use countersign_conformance::pki::{Name, Template};
use serde_json::Value;

use super::refused;
use crate::rig::Rig;
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
