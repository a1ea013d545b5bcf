//! A certificate's life, from the announcement of its successor to the notice that it runs out, as an operator and a partner
//! see it.

use std::net::Ipv4Addr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::time::Duration;

use countersign::expiry::Round;
use countersign_conformance::KeyKind;
use countersign_conformance::pki::{Credential, Name, Template};
use countersign_resource_server::time::UnixTime;
use serde_json::Value;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

use crate::rig::{Engine, Rig, Time, within};
use crate::token;
use crate::world::{Party, subject_of_a};

const HOUR: Duration = Duration::from_secs(3_600);
const DAY: Duration = Duration::from_secs(86_400);

/// What a command said, and whether it succeeded.
async fn said(rig: &Rig, arguments: &[&str]) -> (bool, String) {
    let output = rig.command(arguments).await;
    let text = [output.stdout, output.stderr].concat();
    (output.status.success(), String::from_utf8(text).unwrap())
}

async fn done(rig: &Rig, arguments: &[&str]) -> String {
    let (succeeded, told) = said(rig, arguments).await;
    assert!(succeeded, "{arguments:?}: {told}");
    rig.app.registry.catch_up().await.unwrap();
    told
}

/// The same client with another certificate of partner A's.
fn renewed(rig: &Rig, party: &Party, serial: u8) -> Party {
    let mut template = Template::client(subject_of_a(party.id), rig.world.now);
    template.serial = Some(vec![serial]);
    Party { credential: rig.world.a_issuing().issue(&template, KeyKind::P256), ..party.clone() }
}

fn pem(rig: &Rig, name: &str, credential: &Credential) -> String {
    rig.file(name, &credential.chain_pem()).display().to_string()
}

async fn refused(rig: &Rig, party: &Party, reason: &str) {
    let answer = rig.ask(party).await;
    assert_eq!(answer.status, 400, "{answer}");
    assert_eq!(answer.json()["error"], "invalid_client");
    let record = rig.last_record().await;
    assert_eq!(record["reason"], reason, "{record}");
    assert!(record.get("token").is_none_or(Value::is_null), "{record}");
}

#[tokio::test]
async fn the_next_certificate_takes_over_when_it_is_first_seen() {
    for engine in Engine::every() {
        let rig = Rig::on(&engine, Time::Standing).await;
        let old = &rig.world.a_required;
        let next = renewed(&rig, old, 0x51);
        assert_eq!(rig.ask(old).await.status, 200);
        refused(&rig, &next, "certificate_not_enrolled").await;

        let (file, thumbprint) = (pem(&rig, "next.pem", &next.credential), old.credential.thumbprint());
        let add = ["certificate", "add", &file, "--client", old.id, "--replaces", &thumbprint, "--overlap-hours", "1"];
        let told = done(&rig, &add).await;
        assert!(told.contains(&thumbprint) && told.contains("1 hours"), "{told}");
        rig.clock.advance(DAY);
        assert_eq!(rig.ask(old).await.status, 200, "it was announced, not seen");

        assert_eq!(rig.ask(&next).await.status, 200);
        rig.clock.advance(HOUR - Duration::from_millis(1));
        assert_eq!(rig.ask(old).await.status, 200, "the last millisecond of the overlap");
        rig.clock.advance(Duration::from_millis(1));
        refused(&rig, old, "certificate_superseded").await;
        assert_eq!(rig.ask(&next).await.status, 200);

        // The new one revoked, the old one is no way back.
        done(&rig, &["certificate", "revoke", &next.credential.thumbprint(), "--reason", "superseded"]).await;
        refused(&rig, &next, "certificate_revoked").await;
        refused(&rig, old, "certificate_superseded").await;
        rig.stop().await;
    }
}

#[tokio::test]
async fn a_renewal_on_first_sight_ends_the_old_certificate_where_the_policy_says_so() {
    let rig = Rig::start().await;
    let party = &rig.world.a_dn;
    let file = pem(&rig, "renewing.pem", &renewed(&rig, party, 0x52).credential);
    let add = ["client", "add", "renewing", "--participant", "partner-a", "--certificate", &file];
    let (added, told) =
        said(&rig, &[&add[..], &["--enrolment", "required", "--renewal-overlap-hours", "1"]].concat()).await;
    assert!(!added && told.contains("certificate add --replaces"), "{told}");
    let told = done(&rig, &[&add[..], &["--renewal-overlap-hours", "1", "--json"]].concat()).await;
    assert!(told.contains("\"renewal_overlap_seconds\": 3600"), "{told}");
}

#[tokio::test]
async fn a_certificate_is_revoked_by_what_its_issuer_calls_it() {
    let rig = Rig::start().await;
    let party = &rig.world.a_dns;
    let root = rig.file("root.pem", &rig.world.a_root.to_pem()).display().to_string();
    let serial: String = {
        let parsed = countersign::pki::ParsedCertificate::read(party.credential.certificate()).unwrap();
        // As OpenSSL writes it: upper case, without the octet that keeps it from being negative.
        parsed.serial().trim_start_matches("00").to_uppercase()
    };
    let revoke = ["certificate", "revoke", "--issuer", &root, "--serial", &serial];
    let (revoked, told) = said(&rig, &revoke).await;
    assert!(!revoked && told.contains("has been seen"), "{told}");
    assert_eq!(rig.ask(party).await.status, 200);

    let other = rig.file("other.pem", &rig.world.b_root.to_pem()).display().to_string();
    let (revoked, _) = said(&rig, &["certificate", "revoke", "--issuer", &other, "--serial", &serial]).await;
    assert!(!revoked, "another issuer's certificate with this serial number");
    let (revoked, told) = said(&rig, &["certificate", "revoke", "--issuer", &root]).await;
    assert!(!revoked && told.contains("--serial"), "{told}");

    let told = done(&rig, &revoke).await;
    assert!(told.contains(&party.credential.thumbprint()), "{told}");
    refused(&rig, party, "certificate_revoked").await;
}

#[tokio::test]
async fn a_key_is_revoked_by_file_or_by_hash() {
    let rig = Rig::start().await;
    let (party, other) = (&rig.world.a_dns, &rig.world.c_ip);
    assert_eq!(rig.ask(party).await.status, 200);
    let file = pem(&rig, "party.pem", &party.credential);
    done(&rig, &["certificate", "revoke-key", &file]).await;
    refused(&rig, party, "certificate_revoked").await;

    // Before any certificate with it was seen.
    let parsed = countersign::pki::ParsedCertificate::read(other.credential.certificate()).unwrap();
    let hash = parsed.key_hash().to_string();
    done(&rig, &["certificate", "revoke-key", &hash]).await;
    refused(&rig, other, "enrolment_key_revoked").await;
    let (revoked, told) = said(&rig, &["certificate", "revoke-key", &hash]).await;
    assert!(!revoked && told.contains("revoked already"), "{told}");
    let key = rig.file("key.pem", &other.credential.key.to_pem()).display().to_string();
    let (revoked, told) = said(&rig, &["certificate", "revoke-key", &key]).await;
    assert!(!revoked && told.contains("neither a certificate nor a public key"), "{told}");
}

#[tokio::test]
async fn an_anchor_of_another_owner_is_refused_with_whom_to_ask() {
    let rig = Rig::start().await;
    let root = rig.file("root.pem", &rig.world.a_root.to_pem()).display().to_string();
    let (added, told) = said(&rig, &["anchor", "add", &root, "--owner", "partner-b", "--any-name"]).await;
    assert!(!added && told.contains("ask the operator of the registry"), "{told}");
    assert!(!told.contains("partner-a"), "{told}");
}

#[tokio::test]
async fn what_runs_out_is_listed_and_who_is_late_is_named() {
    let rig = Rig::start().await;
    let party = &rig.world.a_required;
    assert_eq!(rig.ask(party).await.status, 200);
    done(&rig, &["participant", "change", "partner-a", "--technical-contact", "ops@partner-a.example"]).await;
    let mut template = Template::client(subject_of_a(party.id), rig.world.now);
    (template.serial, template.not_after) = (Some(vec![0x53]), rig.world.now + 200 * 86_400);
    let next = rig.world.a_issuing().issue(&template, KeyKind::P256);
    let file = pem(&rig, "late.pem", &next);
    let old = party.credential.thumbprint();
    done(&rig, &["certificate", "add", &file, "--client", party.id, "--replaces", &old]).await;

    let told = done(&rig, &["certificate", "expiring"]).await;
    assert_eq!(told.trim(), "none", "nothing within thirty days");
    let told = done(&rig, &["certificate", "expiring", "--within", "91d"]).await;
    assert!(told.contains("leaf") && told.contains("intermediate") && told.contains("anchor"), "{told}");
    let called_out = format!("client {}: its next certificate {}", party.id, next.thumbprint());
    let sentence = told.lines().find(|line| line.starts_with(&called_out)).expect(&told);
    assert!(sentence.contains("never been seen") && sentence.ends_with(": ask ops@partner-a.example"), "{sentence}");
    assert_eq!(told.lines().filter(|line| line.starts_with("client ")).count(), 1, "{told}");

    let all: Value =
        serde_json::from_str(&done(&rig, &["certificate", "expiring", "--within", "91d", "--json"]).await).unwrap();
    let all = all.as_array().unwrap();
    let ends: Vec<&str> = all.iter().map(|one| one["expires_at"].as_str().unwrap()).collect();
    assert!(ends.is_sorted(), "{ends:?}");
    let leaf = all.iter().find(|one| one["id"] == old.as_str()).unwrap();
    assert_eq!(leaf["successor"]["state"], "announced");
    assert_eq!(leaf["client"], party.id);
    let issuer = all.iter().find(|one| one["kind"] == "intermediate").unwrap();
    assert_eq!((&issuer["participant"], &issuer["certificates"]), (&"partner-a".into(), &1.into()));
}

/// A partner's receiver: answers as it is told, once for each connection.
struct Receiver {
    listener: TcpListener,
    url: String,
}

impl Receiver {
    async fn listen() -> Self {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        let url = format!("http://{}/hook", listener.local_addr().unwrap());
        Self { listener, url }
    }

    /// The head and the body of the next request, answered with this.
    async fn receive(&self, answer: &str) -> (String, String) {
        let (mut stream, _) = self.listener.accept().await.unwrap();
        let request = read_request(&mut stream).await;
        let answer = format!("HTTP/1.1 {answer}\r\nContent-Length: 0\r\nConnection: close\r\n\r\n");
        stream.write_all(answer.as_bytes()).await.unwrap();
        stream.shutdown().await.unwrap();
        request
    }
}

async fn read_request(stream: &mut TcpStream) -> (String, String) {
    let (mut read, mut chunk) = (Vec::new(), [0; 4096]);
    loop {
        let count = stream.read(&mut chunk).await.unwrap();
        assert!(count > 0, "a whole request");
        read.extend_from_slice(&chunk[..count]);
        let text = String::from_utf8(read.clone()).unwrap();
        let Some((head, body)) = text.split_once("\r\n\r\n") else { continue };
        let head = head.to_lowercase();
        let length = head.lines().find_map(|line| line.strip_prefix("content-length: ")).expect("a length");
        if body.len() == length.parse::<usize>().unwrap() {
            return (head, body.to_owned());
        }
    }
}

/// The instant thirty days before partner C's certificates end, its one client seen until then.
async fn thirty_days_left(rig: &Rig, webhook: &str) -> UnixTime {
    assert_eq!(rig.ask(&rig.world.c_ip).await.status, 200);
    done(rig, &["participant", "change", "partner-c", "--webhook", webhook]).await;
    let template = Template::client(Name::default(), rig.world.now);
    UnixTime::from_seconds(template.not_after + 1).before(30 * DAY)
}

#[tokio::test]
async fn a_partner_is_told_and_verifies_it_with_the_published_keys() {
    for engine in Engine::every() {
        let rig = Rig::on(&engine, Time::Standing).await;
        let receiver = Receiver::listen().await;
        let now = thirty_days_left(&rig, &receiver.url).await;
        // Its certificate and its anchor.
        let (round, first, second) =
            tokio::join!(rig.app.expiry.tick(now), receiver.receive("202 Accepted"), receiver.receive("200 OK"));
        assert_eq!(round.unwrap(), Round { delivered: 2, failed: 0, more: false });
        let mut kinds = Vec::new();
        for (head, body) in [first, second] {
            assert!(head.starts_with("post /hook http/1.1"), "{head}");
            assert!(head.contains("content-type: application/secevent+jwt"), "RFC 8935 §2.1: {head}");
            assert!(head.contains("accept: application/json"), "RFC 8935 §2.1: {head}");
            let read = token::read(&rig, &body).await;
            assert_eq!(read.header["typ"], "secevent+jwt", "RFC 8417 §2.3");
            assert_eq!(read.claims["iss"], rig.world.issuer);
            assert_eq!(read.claims["aud"], "partner-c");
            assert!(read.claims.get("exp").is_none(), "RFC 8417 §4.2");
            let event = &read.claims["events"][format!("{}/events/expiring", rig.world.issuer)];
            assert_eq!(event["within_days"], 30, "{event}");
            kinds.push(event["kind"].as_str().unwrap().to_owned());
        }
        kinds.sort();
        assert_eq!(kinds, ["anchor", "leaf"]);
        // Nothing is told again: nobody listens.
        drop(receiver);
        let again = rig.app.expiry.tick(now).await.unwrap();
        assert_eq!(again, Round::default());
        rig.stop().await;
    }
}

#[tokio::test]
async fn a_serving_node_watches_by_itself() {
    let rig = Rig::start().await;
    let receiver = Receiver::listen().await;
    let now = thirty_days_left(&rig, &receiver.url).await;
    rig.clock.step_to(now);
    let watching = rig.app.watch_expiry();
    for _ in 0..2 {
        receiver.receive("202 Accepted").await;
    }
    watching.abort();
    rig.stop().await;
}

#[tokio::test]
async fn a_redirect_is_no_delivery_and_is_not_followed() {
    let rig = Rig::start().await;
    let (receiver, elsewhere) = (Receiver::listen().await, Receiver::listen().await);
    let now = thirty_days_left(&rig, &receiver.url).await;
    let redirect = format!("307 Temporary Redirect\r\nLocation: {}", elsewhere.url);
    let (round, _) = tokio::join!(rig.app.expiry.tick(now), receiver.receive(&redirect));
    assert_eq!(round.unwrap(), Round { delivered: 0, failed: 1, more: false });
    let followed = tokio::time::timeout(Duration::ZERO, elsewhere.listener.accept()).await;
    assert!(followed.is_err(), "nobody went there");
}

#[tokio::test]
async fn the_operator_sees_what_ends_first_and_no_partners_name() {
    let rig = Rig::start().await;
    let receiver = Receiver::listen().await;
    let now = thirty_days_left(&rig, &receiver.url).await;
    drop(receiver);
    rig.app.expiry.tick(now).await.unwrap();
    let mut stream = TcpStream::connect(rig.operations).await.unwrap();
    stream.write_all(b"GET /metrics HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n").await.unwrap();
    let mut metrics = String::new();
    stream.read_to_string(&mut metrics).await.unwrap();
    for kind in ["leaf", "intermediate", "anchor", "crl", "server"] {
        assert!(metrics.contains(&format!("countersign_expiry_soonest_seconds{{kind=\"{kind}\"}}")), "{metrics}");
        assert!(metrics.contains(&format!("countersign_expiry_within{{kind=\"{kind}\",within=\"30d\"}}")), "{metrics}");
    }
    assert!(metrics.contains("countersign_expiry_notices_total{outcome=\"failed\"}"), "{metrics}");
    assert!(!metrics.contains("partner-c") && !metrics.contains("c-ip"), "{metrics}");
}

/// The fence (design §2): once the next certificate has been seen, no node gives the replaced one a token, not even for a
/// request whose decision was under way.
#[tokio::test]
async fn no_token_leaves_for_the_replaced_certificate_once_the_next_was_seen_elsewhere() {
    for engine in Engine::every() {
        let rig = Rig::on(&engine, Time::Machine).await;
        let node = rig.another_node().await;
        let old = &rig.world.a_required;
        let next = renewed(&rig, old, 0x54);
        let (file, thumbprint) = (pem(&rig, "next.pem", &next.credential), old.credential.thumbprint());
        let add = ["certificate", "add", &file, "--client", old.id, "--replaces", &thumbprint, "--overlap-hours", "0"];
        done(&rig, &add).await;
        node.app.registry.catch_up().await.unwrap();

        let seen = Arc::new(AtomicBool::new(false));
        let granted = Arc::new(AtomicU32::new(0));
        let mut callers = Vec::new();
        for _ in 0..4 {
            let mut connection = rig.peer(&old.credential).connect(rig.address).await.unwrap();
            let (request, seen, granted) = (old.request(), Arc::clone(&seen), Arc::clone(&granted));
            callers.push(tokio::spawn(async move {
                let mut after = 0;
                while after < 20 {
                    // Looked at before the request leaves: what was seen by then binds the answer.
                    let over = seen.load(Ordering::SeqCst);
                    let status = connection.ask(&request).await.unwrap().status;
                    assert!(status == 400 || (status == 200 && !over), "{status} after the next one was seen");
                    after += u32::from(over);
                    granted.fetch_add(u32::from(status == 200), Ordering::SeqCst);
                }
            }));
        }
        within(Duration::from_secs(20), "some tokens before", || granted.load(Ordering::SeqCst) >= 40).await;
        let answer = rig.peer(&next.credential).ask(node.address, &next.request()).await.unwrap();
        assert_eq!(answer.status, 200, "{answer}");
        seen.store(true, Ordering::SeqCst);
        for caller in callers {
            caller.await.unwrap();
        }
        refused(&rig, old, "certificate_superseded").await;
        node.stop().await;
        rig.stop().await;
    }
}
