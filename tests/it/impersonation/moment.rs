//! What was good a moment ago, or will be in a moment, on every kind of connection that is kept or resumed.

use std::time::Duration;

use countersign::registry::certificate::RevocationReason;
use countersign::registry::edit::CertificateSelector;
use countersign_conformance::KeyKind;
use countersign_conformance::pki::{Authority, Credential, Template};

use super::{Method, Victim, chained_victims};
use crate::rig::{Engine, Rig, Time, facts, thumbprint};
use crate::wire::{Answer, Connection, H2, Peer, Tls};

/// A way to keep what a handshake once proved.
#[derive(Clone, Copy, Debug)]
enum Kept {
    Http1,
    Http2,
    Resumed(Tls),
}

const EVERY_WAY: [Kept; 4] = [Kept::Http1, Kept::Http2, Kept::Resumed(Tls::V1_2), Kept::Resumed(Tls::V1_3)];

enum Line {
    Http1(Box<Connection>),
    Http2(H2),
    Resuming(Peer),
}

impl Line {
    async fn open(rig: &Rig, credential: &Credential, kept: Kept) -> Self {
        match kept {
            Kept::Http1 => Self::Http1(Box::new(rig.peer(credential).connect(rig.address).await.unwrap())),
            Kept::Http2 => {
                let peer = rig.peer_with(credential, Tls::V1_3, &[b"h2"]);
                Self::Http2(peer.connect_h2(rig.address).await.unwrap())
            }
            Kept::Resumed(tls) => Self::Resuming(rig.peer_with(credential, tls, &[b"http/1.1"])),
        }
    }

    /// Asks in the name of `victim`; each request of a client of `private_key_jwt` has an assertion of its own.
    async fn ask(&mut self, rig: &Rig, victim: &Victim, what: &str, resumed: Option<bool>) -> Answer {
        let request = victim.request(&rig.world, what);
        match self {
            Self::Http1(connection) => connection.ask(&request).await.unwrap(),
            Self::Http2(connection) => connection.ask(&request).await.unwrap(),
            Self::Resuming(peer) => {
                let mut connection = peer.connect(rig.address).await.unwrap();
                let answer = connection.ask(&request).await.unwrap();
                if let Some(resumed) = resumed {
                    assert_eq!(connection.resumed(), resumed, "whether the session was resumed: {what}");
                }
                answer
            }
        }
    }
}

/// A certificate of the victim's own that ends or begins as `template` says, in the registry where it has to be.
async fn issued(rig: &Rig, victim: &Victim, authority: &Authority, template: &Template) -> Credential {
    let credential = authority.issue(template, KeyKind::P256);
    if victim.method == Method::Required {
        let client = countersign::registry::ClientId::parse(victim.party.id).unwrap();
        rig.app.registry.add_certificate(client, facts(&credential), rig.explanation()).await.unwrap();
    }
    credential
}

async fn refused(rig: &Rig, answer: &Answer, reason: &str, what: &str) {
    assert_eq!((answer.status, answer.error().as_str()), (400, "invalid_client"), "{what}: {answer}");
    let record = rig.last_record().await;
    assert_eq!(record["reason"], reason, "{what}");
    assert!(record["token"].is_null(), "{what}: {record}");
}

/// What ends between two requests.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Ending {
    Intermediate,
    Leaf,
}

/// What was good on a connection is refused there a second after its end.
#[tokio::test]
async fn expired_one_second_ago_on_a_kept_connection() {
    let mut attempts = 0;
    for (ending, reason) in [(Ending::Leaf, "peer_expired"), (Ending::Intermediate, "peer_issuer_out_of_date")] {
        let rig = Rig::start().await;
        let end = rig.world.now + 60;
        let mut lines = Vec::new();
        for victim in chained_victims(&rig.world) {
            let authority = match ending {
                Ending::Leaf => victim.authority.clone(),
                Ending::Intermediate => {
                    let template =
                        Template::authority(countersign_conformance::pki::Name::common("Ending"), rig.world.now);
                    victim.authority.intermediate_with(&Template { not_after: end, ..template })
                }
            };
            let leaf = match ending {
                Ending::Leaf => Template { not_after: end, ..victim.template.clone() },
                Ending::Intermediate => victim.template.clone(),
            };
            let credential = issued(&rig, &victim, &authority, &leaf).await;
            for kept in EVERY_WAY {
                let mut line = Line::open(&rig, &credential, kept).await;
                for resumed in [false, true] {
                    let what = format!("{ending:?} {kept:?} {resumed} before");
                    let answer = line.ask(&rig, &victim, &what, Some(resumed)).await;
                    assert_eq!(answer.status, 200, "{} {what}: {answer}", victim.party.id);
                }
                lines.push((victim.clone(), kept, line));
            }
        }
        // The last second but one; a token that ended with the last would never live.
        rig.clock.advance(Duration::from_secs(59));
        for (victim, kept, line) in &mut lines {
            let what = format!("{ending:?} {kept:?} in good time");
            let answer = line.ask(&rig, victim, &what, None).await;
            assert_eq!(answer.status, 200, "the honest twin, {} {what}: {answer}", victim.party.id);
        }
        rig.clock.advance(Duration::from_secs(2));
        for (victim, kept, mut line) in lines {
            let what = format!("{ending:?} {kept:?} a second later");
            let answer = line.ask(&rig, &victim, &what, None).await;
            refused(&rig, &answer, reason, &format!("{} {what}", victim.party.id)).await;
            attempts += 1;
        }
    }
    println!("{attempts} hostile attempts");
}

/// A certificate that begins in the next second is refused in this one, and nothing of that is remembered.
#[tokio::test]
async fn not_valid_until_the_next_second() {
    let rig = Rig::start().await;
    let mut lines = Vec::new();
    for victim in chained_victims(&rig.world) {
        let template = Template { not_before: rig.world.now + 1, ..victim.template.clone() };
        let credential = issued(&rig, &victim, &victim.authority, &template).await;
        for kept in EVERY_WAY {
            let mut line = Line::open(&rig, &credential, kept).await;
            let what = format!("{kept:?} a second early");
            let answer = line.ask(&rig, &victim, &what, Some(false)).await;
            refused(&rig, &answer, "peer_not_yet_valid", &format!("{} {what}", victim.party.id)).await;
            lines.push((victim.clone(), kept, line));
        }
    }
    rig.clock.advance(Duration::from_secs(1));
    for (victim, kept, mut line) in lines {
        let what = format!("{kept:?} on time");
        let answer = line.ask(&rig, &victim, &what, None).await;
        assert_eq!(answer.status, 200, "the honest twin, {} {what}: {answer}", victim.party.id);
    }
}

/// By whichever handle it is revoked, the next request is refused, and the twin of the certificate with it.
#[tokio::test]
async fn revoked_while_connections_are_kept_and_sessions_resumed() {
    let mut attempts = 0;
    for engine in Engine::every() {
        for handle in ["thumbprint", "serial", "key"] {
            let rig = Rig::on(&engine, Time::Standing).await;
            let mut lines = Vec::new();
            for victim in chained_victims(&rig.world) {
                let credential = issued(&rig, &victim, &victim.authority, &victim.template).await;
                for kept in EVERY_WAY {
                    let mut line = Line::open(&rig, &credential, kept).await;
                    for resumed in [false, true] {
                        let what = format!("{handle} {kept:?} {resumed} before");
                        let answer = line.ask(&rig, &victim, &what, Some(resumed)).await;
                        assert_eq!(answer.status, 200, "{} {what}: {answer}", victim.party.id);
                    }
                    lines.push((victim.clone(), credential.clone(), kept, line));
                }
                let registry = &rig.app.registry;
                let certificate = registry.certificate(&thumbprint(&credential)).await.unwrap().unwrap();
                let reason = RevocationReason::CessationOfOperation;
                let selected = match handle {
                    "serial" => CertificateSelector::IssuerAndSerial(
                        certificate.issuer_key.unwrap(),
                        certificate.serial.clone(),
                    ),
                    _ => CertificateSelector::Thumbprint(certificate.thumbprint),
                };
                let done = match handle {
                    "key" => registry.revoke_key(certificate.key_hash, rig.explanation()).await,
                    _ => registry.revoke_certificate(selected, reason, rig.explanation()).await,
                };
                done.unwrap();
            }
            for (victim, credential, kept, mut line) in lines {
                let what = format!("{handle} {kept:?} revoked");
                let answer = line.ask(&rig, &victim, &what, None).await;
                refused(&rig, &answer, "certificate_revoked", &format!("{} {what}", victim.party.id)).await;
                let twin = credential.rewritten().unwrap();
                let mut line = Line::open(&rig, &twin, kept).await;
                let what = format!("{handle} {kept:?} twin of the revoked");
                let answer = line.ask(&rig, &victim, &what, None).await;
                refused(&rig, &answer, "certificate_twin", &format!("{} {what}", victim.party.id)).await;
                attempts += 2;
            }
            rig.stop().await;
        }
    }
    println!("{attempts} hostile attempts");
}

/// RFC 5746, RFC 8446 §4.1.2: one handshake to a connection, so that nobody becomes somebody else in the middle of it. A
/// peer that asks for another on TLS 1.2 loses the connection.
#[tokio::test]
async fn renegotiation_is_not_offered() {
    use std::process::Stdio;
    use tokio::io::AsyncWriteExt;
    let rig = Rig::start().await;
    let party = &rig.world.a_dn;
    let certificate = rig.file("renegotiating.pem", &party.credential.chain_pem());
    let key = rig.file("renegotiating-key.pem", &party.credential.key.to_pem());
    let started = tokio::process::Command::new("openssl")
        .args(["s_client", "-tls1_2", "-connect", &rig.address.to_string()])
        .args([std::ffi::OsStr::new("-cert"), certificate.as_os_str()])
        .args([std::ffi::OsStr::new("-cert_chain"), certificate.as_os_str()])
        .args([std::ffi::OsStr::new("-key"), key.as_os_str()])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .kill_on_drop(true)
        .spawn();
    let Ok(mut client) = started else {
        println!("SKIPPED: there is no openssl on this machine to ask for a renegotiation");
        return;
    };
    let mut input = client.stdin.take().unwrap();
    // A line that begins with R asks for it.
    input.write_all(b"R\n").await.unwrap();
    let ended = tokio::time::timeout(Duration::from_secs(20), client.wait_with_output()).await;
    drop(input);
    let ended = ended.expect("the connection ends").unwrap();
    let said = [ended.stdout, ended.stderr].concat();
    let said = String::from_utf8_lossy(&said);
    assert!(said.contains("Secure Renegotiation IS supported"), "RFC 5746 §3.6: {said}");
    assert!(said.contains("RENEGOTIATING") && said.contains("no renegotiation"), "{said}");
    assert!(!ended.status.success(), "{said}");
}
