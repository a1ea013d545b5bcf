//! The audit log, sent on: to a file, to syslog over TLS and to a collector, whatever they do; the copy proves itself.

use std::collections::BTreeMap;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use countersign::audit::AuditEntry;
use countersign::audit::chain::{ChainId, Head, Position};
use countersign::audit::checkpoint::Checkpoint;
use countersign::config::{OtlpExport, SyslogExport};
use countersign::tls::ClientFiles;
use countersign_conformance::KeyKind;
use countersign_conformance::pki::{Authority, Credential, Template};
use countersign_resource_server::time::UnixTime;
use rustls::pki_types::{CertificateDer, PrivatePkcs8KeyDer};
use rustls::server::WebPkiClientVerifier;
use rustls::{RootCertStore, ServerConfig};
use serde_json::Value;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;

use crate::operations::get;
use crate::rig::{Engine, Rig, Time, within};

/// What everything here is waited for at most; nothing promises to be as slow.
const PATIENCE: Duration = Duration::from_secs(30);

/// How a receiver behaves.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Manner {
    /// Takes everything; as a collector, with this answer.
    Takes(&'static str),
    /// Ends every connection before anything was read.
    Closes,
    /// Takes one message of a connection and breaks it.
    Breaks,
    /// Talks all the time, and listens.
    Talks,
    /// Reads nothing, and keeps the connection.
    Stalls,
}

/// A TLS server that collects what it is sent.
#[derive(Clone)]
struct Receiver {
    address: SocketAddr,
    acceptor: Arc<Mutex<TlsAcceptor>>,
    manner: Arc<Mutex<Manner>>,
    /// How many connections came, and requests.
    attempts: Arc<AtomicUsize>,
    /// What came on each connection.
    received: Arc<Mutex<Vec<Vec<String>>>>,
}

fn acceptor(credential: &Credential, clients: Option<&Authority>) -> TlsAcceptor {
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let chain = credential.chain.iter().map(|der| CertificateDer::from(der.clone())).collect();
    let key = PrivatePkcs8KeyDer::from(credential.key.pkcs8().to_vec()).into();
    let builder =
        ServerConfig::builder_with_provider(Arc::clone(&provider)).with_safe_default_protocol_versions().unwrap();
    let builder = match clients {
        None => builder.with_no_client_auth(),
        Some(authority) => {
            let mut roots = RootCertStore::empty();
            roots.add(CertificateDer::from(authority.certificate.clone())).unwrap();
            let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider).build().unwrap();
            builder.with_client_cert_verifier(verifier)
        }
    };
    TlsAcceptor::from(Arc::new(builder.with_single_cert(chain, key).unwrap()))
}

impl Receiver {
    async fn start(acceptor: TlsAcceptor, manner: Manner) -> Self {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        let receiver = Self {
            address: listener.local_addr().unwrap(),
            acceptor: Arc::new(Mutex::new(acceptor)),
            manner: Arc::new(Mutex::new(manner)),
            attempts: Arc::default(),
            received: Arc::default(),
        };
        let accepting = receiver.clone();
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let receiver = accepting.clone();
                tokio::spawn(async move { receiver.serve(stream).await });
            }
        });
        receiver
    }

    async fn serve(&self, stream: TcpStream) -> Option<()> {
        self.attempts.fetch_add(1, Ordering::SeqCst);
        let (acceptor, manner) = (self.acceptor.lock().unwrap().clone(), self.manner.lock().unwrap().clone());
        if manner == Manner::Closes {
            return None;
        }
        let stream = acceptor.accept(stream).await.ok()?;
        let connection = {
            let mut received = self.received.lock().unwrap();
            received.push(Vec::new());
            received.len() - 1
        };
        let note = |text: String| self.received.lock().unwrap()[connection].push(text);
        match manner {
            Manner::Stalls => {
                tokio::time::sleep(PATIENCE * 2).await;
                drop(stream);
            }
            Manner::Talks => {
                let (mut reading, mut writing) = tokio::io::split(stream);
                tokio::spawn(async move { while writing.write_all(&[b'?'; 1024]).await.is_ok() {} });
                loop {
                    note(syslog_message(&mut reading).await?);
                }
            }
            Manner::Breaks => {
                let mut stream = stream;
                note(syslog_message(&mut stream).await?);
            }
            Manner::Takes(answer) => self.take(stream, answer, note).await?,
            Manner::Closes => {}
        }
        Some(())
    }

    async fn take(&self, mut stream: TlsStream<TcpStream>, answer: &str, note: impl Fn(String)) -> Option<()> {
        loop {
            if answer.is_empty() {
                note(syslog_message(&mut stream).await?);
            } else {
                let body = http_body(&mut stream).await?;
                self.attempts.fetch_add(1, Ordering::SeqCst);
                // By the manner of now: the connection is kept.
                let manner = self.manner.lock().unwrap().clone();
                let Manner::Takes(answer) = manner else { return None };
                if answer.starts_with("200") {
                    note(body);
                }
                let (status, text) = answer.split_once('|').unwrap();
                let answer = format!("HTTP/1.1 {status}\r\ncontent-length: {}\r\n\r\n{text}", text.len());
                stream.write_all(answer.as_bytes()).await.ok()?;
            }
        }
    }

    /// Waits for so many more attempts: where one is under way, the second is a whole one.
    async fn is_tried(&self, times: usize) {
        let before = self.attempts.load(Ordering::SeqCst);
        within(PATIENCE, "it is tried again", || self.attempts.load(Ordering::SeqCst) >= before + times).await;
    }

    fn behaves(&self, manner: Manner) {
        *self.manner.lock().unwrap() = manner;
    }

    fn connections(&self) -> Vec<Vec<String>> {
        self.received.lock().unwrap().clone()
    }

    fn messages(&self) -> Vec<String> {
        self.connections().concat()
    }
}

/// RFC 5425 §4.3: one frame, by its octets.
async fn syslog_message(stream: &mut (impl AsyncReadExt + Unpin)) -> Option<String> {
    let mut length = String::new();
    loop {
        match stream.read_u8().await.ok()? {
            b' ' => break,
            digit => length.push(char::from(digit)),
        }
    }
    let mut message = vec![0; length.parse().expect("a length")];
    stream.read_exact(&mut message).await.ok()?;
    Some(String::from_utf8(message).unwrap())
}

/// One request's body.
async fn http_body(stream: &mut TlsStream<TcpStream>) -> Option<String> {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(stream.read_u8().await.ok()?);
    }
    let head = String::from_utf8(head).unwrap().to_ascii_lowercase();
    assert!(
        head.starts_with("post /v1/logs http/1.1\r\n") && head.contains("content-type: application/json"),
        "{head}"
    );
    let length = head.split("content-length: ").nth(1).unwrap().split("\r\n").next().unwrap().parse().unwrap();
    let mut body = vec![0; length];
    stream.read_exact(&mut body).await.ok()?;
    Some(String::from_utf8(body).unwrap())
}

/// What is in the line of a record: its place, instant, hash, and text as it stands there.
fn record_of(line: &str) -> Option<(String, i64, String, String)> {
    let read: Value = serde_json::from_str(line).unwrap();
    read.get("record")?;
    let text = line.split_once(r#","record":"#).unwrap().1.strip_suffix('}').unwrap();
    Some((
        format!("{}/{}", read["chain"], read["sequence"]),
        read["at"].as_i64().unwrap(),
        read["hash"].as_str().unwrap().to_owned(),
        text.to_owned(),
    ))
}

fn json_of(message: &str) -> &str {
    message.split_once('\u{feff}').expect("a byte order mark").1
}

/// Everything in the store, by place.
async fn stored(rig: &Rig) -> BTreeMap<String, AuditEntry> {
    rig.app.audit.flush().await;
    let entries = rig.app.audit.recent(10_000).await.unwrap();
    entries.into_iter().map(|entry| (entry.position.to_string(), entry)).collect()
}

/// Waits until every record in the store, and a checkpoint, is among the lines; then compares them, and their order.
async fn has_everything(rig: &Rig, what: &str, lines: impl Fn() -> Vec<String>) {
    let waited = tokio::time::timeout(PATIENCE, async {
        loop {
            let (stored, lines) = (stored(rig).await, lines());
            let places: Vec<String> = lines.iter().filter_map(|line| record_of(line)).map(|record| record.0).collect();
            let is_stated = lines.iter().any(|line| line.starts_with(r#"{"checkpoint":"#));
            if is_stated && stored.keys().all(|place| places.contains(place)) {
                break;
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    });
    assert!(waited.await.is_ok(), "not everything within {PATIENCE:?}: {what}: {:?}", lines());
    let (stored, lines) = (stored(rig).await, lines());
    let mut last: BTreeMap<i64, i64> = BTreeMap::new();
    for (place, at, hash, text) in lines.iter().filter_map(|line| record_of(line)) {
        let entry = &stored[&place];
        assert_eq!((at, &hash, &text), (entry.at.as_millis(), &entry.hash.to_string(), &entry.body), "{what}");
        let (chain, sequence) = (entry.position.chain().number(), entry.position.sequence());
        let before = last.insert(chain, sequence).unwrap_or(0);
        assert!(sequence <= before + 1, "{what}: {place} after {before}: duplicates are allowed, gaps are not");
    }
}

/// Holds a copy against itself alone: each record follows the one before it, and the heads of each checkpoint are among them.
fn proves_itself(lines: &[String]) {
    let checkpoints: Vec<Checkpoint> = lines
        .iter()
        .map(|line| serde_json::from_str::<Value>(line).unwrap())
        .filter_map(|line| Some(Checkpoint::read(line["checkpoint"]["statement"].as_str()?).unwrap()))
        .collect();
    let log = checkpoints.first().expect("a checkpoint").log;
    let mut heads: BTreeMap<i64, Vec<Head>> = BTreeMap::new();
    for (place, at, hash, text) in lines.iter().filter_map(|line| record_of(line)) {
        let (chain, sequence) = place.split_once('/').unwrap();
        let (chain, sequence): (i64, i64) = (chain.parse().unwrap(), sequence.parse().unwrap());
        let position = Position::of(ChainId::new(chain).unwrap(), sequence).unwrap();
        let heads = heads.entry(chain).or_insert_with(|| vec![Head::before_first(log, position.chain())]);
        let before = heads[usize::try_from(sequence - 1).unwrap()];
        let head = before.followed_by(UnixTime::from_millis(at), &text).unwrap();
        assert_eq!(head.hash.to_string(), hash);
        if heads.len() == usize::try_from(sequence).unwrap() {
            heads.push(head);
        }
    }
    for head in checkpoints.iter().flat_map(|checkpoint| &checkpoint.heads) {
        let sequence = usize::try_from(head.position.sequence()).unwrap();
        let found = heads.get(&head.chain().number()).map(|heads| heads[sequence]);
        assert!(found == Some(*head) || sequence == 0, "{head:?} is not what {found:?} is");
    }
}

async fn three_tokens(rig: &Rig) {
    for _ in 0..3 {
        let answer = rig.ask(&rig.world.a_dn).await;
        assert_eq!(answer.status, 200, "{answer:?}");
    }
}

/// A server that sends to this receiver, which it believes by `authority`.
async fn rig_sending_to(engine: &Engine, receiver: &Receiver, authority: &Authority) -> (Rig, tempfile::TempDir) {
    rig_presenting_to(engine, receiver, authority, None).await
}

/// The same, with a certificate of its own.
async fn rig_presenting_to(
    engine: &Engine,
    receiver: &Receiver,
    authority: &Authority,
    own: Option<&Credential>,
) -> (Rig, tempfile::TempDir) {
    let directory = tempfile::tempdir().unwrap();
    let identity = own.map(|own| {
        let [certificate, key] = ["own.pem", "own-key.pem"].map(|name| directory.path().join(name));
        std::fs::write(&certificate, own.chain_pem()).unwrap();
        std::fs::write(&key, own.key.to_pem()).unwrap();
        (certificate, key)
    });
    let roots = directory.path().join("siem-roots.pem");
    std::fs::write(&roots, authority.to_pem()).unwrap();
    let syslog = SyslogExport {
        host: "localhost".to_owned(),
        port: receiver.address.port(),
        facility: 13,
        files: ClientFiles { roots: Some(roots), identity },
    };
    let rig = Rig::configured(engine, Time::Machine, |config| config.audit_export.syslog = Some(syslog)).await;
    (rig, directory)
}

async fn rig_posting_to(engine: &Engine, receiver: &Receiver, authority: &Authority) -> (Rig, tempfile::TempDir) {
    let directory = tempfile::tempdir().unwrap();
    let roots = directory.path().join("collector-roots.pem");
    std::fs::write(&roots, authority.to_pem()).unwrap();
    let otlp = OtlpExport {
        url: format!("https://localhost:{}/v1/logs", receiver.address.port()),
        files: ClientFiles { roots: Some(roots), identity: None },
    };
    let rig = Rig::configured(engine, Time::Machine, |config| config.audit_export.otlp = Some(otlp)).await;
    (rig, directory)
}

fn seconds() -> i64 {
    use countersign_resource_server::time::{Clock, SystemClock};
    SystemClock::new().now().as_seconds()
}

fn authority() -> Authority {
    Authority::root("The security team", seconds())
}

fn named(authority: &Authority, name: &str) -> Credential {
    authority.issue(&Template::server(&[name], seconds()), KeyKind::P256)
}

fn syslog_lines(receiver: &Receiver) -> Vec<String> {
    receiver.messages().iter().map(|message| json_of(message).to_owned()).collect()
}

const SYSLOG: Manner = Manner::Takes("");

#[tokio::test]
async fn syslog_gets_every_record_and_the_copy_proves_itself() {
    for engine in Engine::every() {
        let authority = authority();
        let receiver = Receiver::start(acceptor(&named(&authority, "localhost"), None), SYSLOG).await;
        let (rig, _directory) = rig_sending_to(&engine, &receiver, &authority).await;
        let forwarding = rig.app.forward_audit().unwrap();
        three_tokens(&rig).await;
        rig.ask(&rig.world.a_suspended).await;
        has_everything(&rig, "syslog", || syslog_lines(&receiver)).await;
        proves_itself(&syslog_lines(&receiver));
        let messages = receiver.messages();
        let of = |part: &str| messages.iter().find(|message| message.contains(part)).unwrap().as_str();
        assert!(of(r#""outcome":"issued""#).starts_with("<110>1 20"));
        assert!(of(r#""outcome":"issued""#).contains("Z localhost countersign - decision - \u{feff}{\"chain\":"));
        assert!(of(r#""outcome":"refused""#).starts_with("<109>1 20"));
        assert!(of(r#""checkpoint":"#).contains(" countersign - checkpoint - \u{feff}{\"checkpoint\":"));
        forwarding.stop().await;
        rig.stop().await;
    }
}

#[tokio::test]
async fn a_receiver_of_another_name_or_authority_gets_nothing() {
    let authority = authority();
    for wrong in [named(&authority, "elsewhere.example"), named(&self::authority(), "localhost")] {
        let receiver = Receiver::start(acceptor(&wrong, None), SYSLOG).await;
        let (rig, _directory) = rig_sending_to(&Engine::Sqlite, &receiver, &authority).await;
        let forwarding = rig.app.forward_audit().unwrap();
        three_tokens(&rig).await;
        receiver.is_tried(2).await;
        assert_eq!(receiver.messages(), [""; 0]);
        // The right one gets everything.
        *receiver.acceptor.lock().unwrap() = acceptor(&named(&authority, "localhost"), None);
        has_everything(&rig, "syslog", || syslog_lines(&receiver)).await;
        forwarding.stop().await;
        rig.stop().await;
    }
}

#[tokio::test]
async fn a_client_certificate_is_presented() {
    let authority = authority();
    let acceptor = acceptor(&named(&authority, "localhost"), Some(&authority));
    let receiver = Receiver::start(acceptor, SYSLOG).await;
    let (rig, _directory) =
        rig_presenting_to(&Engine::Sqlite, &receiver, &authority, Some(&authority.client("countersign"))).await;
    let forwarding = rig.app.forward_audit().unwrap();
    has_everything(&rig, "syslog", || syslog_lines(&receiver)).await;
    forwarding.stop().await;
    rig.stop().await;
}

#[tokio::test]
async fn a_receiver_that_is_away_delays_nobody_and_misses_nothing() {
    for manner in [Manner::Closes, Manner::Breaks, Manner::Stalls] {
        let authority = authority();
        let receiver = Receiver::start(acceptor(&named(&authority, "localhost"), None), manner.clone()).await;
        let (rig, _directory) = rig_sending_to(&Engine::Sqlite, &receiver, &authority).await;
        let forwarding = rig.app.forward_audit().unwrap();
        three_tokens(&rig).await;
        if manner == Manner::Stalls {
            // What it never reads is in its buffers, where it is taken for arrived: nothing more can be known.
            forwarding.stop().await;
        } else {
            receiver.is_tried(2).await;
            receiver.behaves(SYSLOG);
            has_everything(&rig, "syslog", || {
                // What came before on connections that broke is a duplicate.
                receiver.connections().last().into_iter().flatten().map(|message| json_of(message).to_owned()).collect()
            })
            .await;
            forwarding.stop().await;
        }
        rig.stop().await;
    }
}

#[tokio::test]
async fn a_receiver_that_talks_is_not_listened_to() {
    let authority = authority();
    let receiver = Receiver::start(acceptor(&named(&authority, "localhost"), None), Manner::Talks).await;
    let (rig, _directory) = rig_sending_to(&Engine::Sqlite, &receiver, &authority).await;
    let forwarding = rig.app.forward_audit().unwrap();
    three_tokens(&rig).await;
    has_everything(&rig, "syslog", || syslog_lines(&receiver)).await;
    forwarding.stop().await;
    rig.stop().await;
}

/// The lines that a collector's log records amount to.
fn otlp_lines(receiver: &Receiver) -> Vec<String> {
    let mut lines = Vec::new();
    for request in receiver.messages() {
        let request: Value = serde_json::from_str(&request).unwrap();
        for record in request["resourceLogs"][0]["scopeLogs"][0]["logRecords"].as_array().unwrap() {
            let attribute = |key: &str| {
                let attributes = record["attributes"].as_array().unwrap();
                let value = &attributes.iter().find(|attribute| attribute["key"] == key)?["value"];
                value["intValue"].as_str().or(value["stringValue"].as_str()).map(str::to_owned)
            };
            let body = record["body"]["stringValue"].as_str().unwrap();
            lines.push(if attribute("audit.kind").unwrap() == "checkpoint" {
                format!(r#"{{"checkpoint":{{"statement":"{body}"}}}}"#)
            } else {
                let of = |key: &str| attribute(key).unwrap();
                format!(
                    r#"{{"chain":{},"sequence":{},"at":{},"hash":"{}","record":{body}}}"#,
                    of("audit.chain"),
                    of("audit.sequence"),
                    of("audit.at"),
                    of("audit.hash")
                )
            });
        }
    }
    lines
}

#[tokio::test]
async fn a_collector_gets_every_record_whatever_it_answered_before() {
    for engine in Engine::every() {
        let authority = authority();
        let first = Manner::Takes("503 Service Unavailable\r\nretry-after: 1|busy");
        let receiver = Receiver::start(acceptor(&named(&authority, "localhost"), None), first).await;
        let (rig, _directory) = rig_posting_to(&engine, &receiver, &authority).await;
        let forwarding = rig.app.forward_audit().unwrap();
        three_tokens(&rig).await;
        for manner in [Manner::Takes("400 Bad Request|no"), Manner::Takes("302 Found\r\nlocation: https://localhost/|")]
        {
            receiver.is_tried(1).await;
            assert_eq!(receiver.messages(), [""; 0]);
            receiver.behaves(manner);
        }
        receiver.is_tried(1).await;
        assert_eq!(receiver.messages(), [""; 0]);
        receiver.behaves(Manner::Takes("200 OK|{}"));
        has_everything(&rig, "otlp", || otlp_lines(&receiver)).await;
        proves_itself(&otlp_lines(&receiver));
        // An answer of somebody else's in its place: it is sent again.
        let before = receiver.messages().len();
        receiver.behaves(Manner::Takes("200 OK|<html>please log in</html>"));
        rig.ask(&rig.world.a_dn).await;
        within(PATIENCE, "it was tried twice", || receiver.messages().len() > before + 1).await;
        receiver.behaves(Manner::Takes("200 OK|{\"partialSuccess\":{\"rejectedLogRecords\":\"1\"}}"));
        has_everything(&rig, "otlp", || otlp_lines(&receiver)).await;
        let rejected = r#"countersign_audit_export_rejected_records_total{sink="otlp"}"#;
        within_async("it was counted", async || measured(&rig, rejected).await > 0.0).await;
        forwarding.stop().await;
        rig.stop().await;
    }
}

#[tokio::test]
async fn two_nodes_write_one_file_and_a_restart_leaves_no_gap() {
    for engine in Engine::every() {
        let directory = tempfile::tempdir().unwrap();
        let path: PathBuf = directory.path().join("audit.jsonl");
        let rig = Rig::configured(&engine, Time::Machine, |config| config.audit_export.file = Some(path.clone())).await;
        let lines =
            || std::fs::read_to_string(&path).unwrap_or_default().lines().map(str::to_owned).collect::<Vec<_>>();
        let other = rig.another_node().await;
        let (one, two) = (rig.app.forward_audit().unwrap(), other.app.forward_audit().unwrap());
        three_tokens(&rig).await;
        rig.peer(&rig.world.a_dn.credential).ask(other.address, &rig.world.a_dn.request()).await.unwrap();
        other.app.audit.flush().await;
        has_everything(&rig, "file", lines).await;
        // Whichever of them has the turn, the other one goes on.
        one.stop().await;
        three_tokens(&rig).await;
        has_everything(&rig, "file", lines).await;
        two.stop().await;
        other.stop().await;
        three_tokens(&rig).await;
        let rig = rig.restarted().await;
        let forwarding = rig.app.forward_audit().unwrap();
        three_tokens(&rig).await;
        has_everything(&rig, "file", lines).await;
        proves_itself(&lines());
        let count = lines().len();
        assert_eq!(
            count,
            lines().iter().collect::<std::collections::BTreeSet<_>>().len(),
            "in good order, no duplicates"
        );
        forwarding.stop().await;
        rig.stop().await;
    }
}

#[tokio::test]
async fn a_file_that_cannot_be_written_delays_nobody() {
    let rig =
        Rig::configured(&Engine::Sqlite, Time::Machine, |config| config.audit_export.file = Some("/dev/full".into()))
            .await;
    let forwarding = rig.app.forward_audit().unwrap();
    three_tokens(&rig).await;
    let failures = r#"countersign_audit_export_failures_total{sink="file"}"#;
    within_async("it was tried", async || measured(&rig, failures).await > 0.0).await;
    let behind = r#"countersign_audit_export_behind_records{sink="file"}"#;
    within_async("it is behind", async || measured(&rig, behind).await > 0.0).await;
    three_tokens(&rig).await;
    forwarding.stop().await;
    rig.stop().await;
}

#[tokio::test]
async fn files_that_cannot_be_used_are_known_at_the_start() {
    let files = ClientFiles { roots: Some("/nowhere/roots.pem".into()), identity: None };
    let rig = Rig::configured(&Engine::Sqlite, Time::Machine, |config| {
        config.audit_export.otlp = Some(OtlpExport { url: "https://localhost/".to_owned(), files });
    })
    .await;
    let refused = rig.app.forward_audit().unwrap_err().to_string();
    assert!(refused.starts_with("audit.export.otlp: /nowhere/roots.pem: "), "{refused}");
    rig.stop().await;
}

/// The value of a metric; 0 where there is none.
async fn measured(rig: &Rig, name: &str) -> f64 {
    let (_, text) = get(rig, "/metrics").await;
    let line = text.lines().find_map(|line| line.strip_prefix(name)?.trim().parse().ok());
    line.unwrap_or(0.0)
}

async fn within_async(what: &str, mut done: impl AsyncFnMut() -> bool) {
    let waited = tokio::time::timeout(PATIENCE, async {
        while !done().await {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    });
    assert!(waited.await.is_ok(), "not within {PATIENCE:?}: {what}");
}
