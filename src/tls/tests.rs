//! Real handshakes on port 0: what the listeners take, what they refuse, what they leave on record.

use std::pin::Pin;
use std::sync::{Mutex, OnceLock};
use std::task::{Context, Poll};
use std::time::Duration;

use countersign_conformance::key::{Key, KeyKind};
use countersign_conformance::pki::{Authority, BasicConstraints, Credential, Name, Template, Version};
use countersign_resource_server::time::{Clock, SystemClock};
use rustls::client::{ResolvesClientCert, Resumption};
use rustls::crypto::CryptoProvider;
use rustls::crypto::aws_lc_rs::{cipher_suite, default_provider, sign::any_supported_type};
use rustls::pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer, ServerName};
use rustls::sign::CertifiedKey;
use rustls::{
    CipherSuite, ClientConfig, NamedGroup, ProtocolVersion, RootCertStore, SignatureScheme, SupportedProtocolVersion,
    version,
};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, ReadBuf};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use super::*;
use crate::config::{Config, Limits, PublicFace, TlsFiles};
use crate::server::{self, Running, Site};

struct Rig {
    running: Running,
    authority: Authority,
    record: Arc<Record>,
    now: i64,
    directory: tempfile::TempDir,
}

#[derive(Default)]
struct Record(Mutex<Vec<RefusedHandshake>>, tokio::sync::Notify);

impl HandshakeObserver for Record {
    fn refused(&self, handshake: &RefusedHandshake) {
        self.0.lock().unwrap().push(handshake.clone());
        self.1.notify_one();
    }
}

impl Rig {
    async fn start() -> Self {
        Self::start_with(Limits::default(), None).await
    }

    async fn start_with(limits: Limits, perimeter: Option<Arc<dyn PerimeterGuard>>) -> Self {
        let clock = Arc::new(SystemClock::new());
        let now = clock.now().as_seconds();
        let directory = tempfile::tempdir().unwrap();
        let authority = Authority::root("Server Root", now);
        let server = authority.issue(&Template::server(&["localhost"], now), KeyKind::P256);
        let files =
            TlsFiles { certificate: directory.path().join("server.pem"), key: directory.path().join("server-key.pem") };
        std::fs::write(&files.certificate, server.chain_pem()).unwrap();
        std::fs::write(&files.key, server.key.to_pem()).unwrap();
        let anywhere = "127.0.0.1:0".parse().unwrap();
        let mut config = Config::embedded(directory.path());
        let mtls_url = config.issuer.clone();
        config.public = Some(PublicFace { listen: anywhere, mtls_url });
        (config.listen, config.operations, config.limits) = (anywhere, anywhere, limits);
        let record = Arc::new(Record::default());
        let site = Site {
            public: server::served::router(),
            operations: server::served::router(),
            certificate: ServerCertificate::load(files, vec!["localhost".to_owned()], clock.now()).unwrap(),
            observer: record.clone(),
            perimeter,
            clock,
        };
        let running = server::start(&config, site).await.unwrap();
        Self { running, authority, record, now, directory }
    }

    fn credential(&self) -> Credential {
        Authority::root("Partner", self.now).client("client")
    }

    /// A client configuration that presents `chain` and signs with `key`, whatever rustls thinks of them.
    fn client(&self, presented: Option<(Vec<Vec<u8>>, &Key)>) -> ClientConfig {
        self.client_of(presented, &[&version::TLS13, &version::TLS12])
    }

    fn client_of(
        &self,
        presented: Option<(Vec<Vec<u8>>, &Key)>,
        versions: &[&'static SupportedProtocolVersion],
    ) -> ClientConfig {
        let mut roots = RootCertStore::empty();
        roots.add(CertificateDer::from(self.authority.certificate.clone())).unwrap();
        let builder = ClientConfig::builder_with_provider(Arc::new(default_provider()))
            .with_protocol_versions(versions)
            .unwrap()
            .with_root_certificates(roots);
        match presented {
            None => builder.with_no_client_auth(),
            Some((chain, key)) => builder.with_client_cert_resolver(Arc::new(Presents::new(chain, key))),
        }
    }

    async fn connect(&self, config: ClientConfig) -> std::io::Result<TlsStream<TcpStream>> {
        self.connect_to(self.running.addresses().mtls, Arc::new(config)).await
    }

    async fn connect_to(&self, to: SocketAddr, config: Arc<ClientConfig>) -> std::io::Result<TlsStream<TcpStream>> {
        let stream = TcpStream::connect(to).await?;
        TlsConnector::from(config).connect(ServerName::try_from("localhost").unwrap(), stream).await
    }

    /// What the server says of a connection made with `config`, over HTTP/1.1.
    async fn ask(&self, config: ClientConfig) -> std::io::Result<String> {
        get_who(&mut self.connect(config).await?).await
    }

    /// What the server put on record once it has refused something.
    async fn refused(&self) -> RefusedHandshake {
        loop {
            if let Some(refused) = self.record.0.lock().unwrap().pop() {
                return refused;
            }
            tokio::time::timeout(Duration::from_secs(10), self.record.1.notified()).await.unwrap();
        }
    }
}

/// One request on a kept connection; the body of its answer.
async fn get_who<S: AsyncReadExt + AsyncWriteExt + Unpin>(stream: &mut S) -> std::io::Result<String> {
    stream.write_all(b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n").await?;
    let mut answer = Vec::new();
    loop {
        let mut buffer = [0; 1024];
        let count = stream.read(&mut buffer).await?;
        if count == 0 {
            return Err(std::io::ErrorKind::UnexpectedEof.into());
        }
        answer.extend_from_slice(&buffer[..count]);
        let text = String::from_utf8_lossy(&answer);
        if let Some((head, body)) = text.split_once("\r\n\r\n") {
            let length = head.lines().find_map(|line| line.strip_prefix("content-length: ")).unwrap();
            if body.len() == length.parse::<usize>().unwrap() {
                return Ok(body.to_owned());
            }
        }
    }
}

#[derive(Debug)]
struct Presents {
    certified: Arc<CertifiedKey>,
    hints: OnceLock<usize>,
}

impl Presents {
    fn new(chain: Vec<Vec<u8>>, key: &Key) -> Self {
        let key = PrivateKeyDer::from(PrivatePkcs8KeyDer::from(key.pkcs8().to_vec()));
        let chain = chain.into_iter().map(CertificateDer::from).collect();
        Self {
            certified: Arc::new(CertifiedKey::new(chain, any_supported_type(&key).unwrap())),
            hints: OnceLock::new(),
        }
    }
}

impl ResolvesClientCert for Presents {
    fn resolve(&self, hints: &[&[u8]], _: &[SignatureScheme]) -> Option<Arc<CertifiedKey>> {
        let _ = self.hints.set(hints.len());
        Some(self.certified.clone())
    }

    fn has_certs(&self) -> bool {
        true
    }
}

fn presented(credential: &Credential) -> Option<(Vec<Vec<u8>>, &Key)> {
    Some((credential.chain.clone(), &credential.key))
}

const BOTH: [(&SupportedProtocolVersion, &str); 2] = [(&version::TLS13, "TLSv1.3"), (&version::TLS12, "TLSv1.2")];

#[tokio::test]
async fn a_certificate_is_asked_for_and_not_demanded_and_no_authority_is_named() {
    let rig = Rig::start().await;
    let credential = rig.credential();
    for (version, protocol) in BOTH {
        let without = rig.ask(rig.client_of(None, &[version])).await.unwrap();
        assert_eq!(without, format!("{protocol} resumed=false "));

        let mut config = rig.client_of(None, &[version]);
        let presents = Arc::new(Presents::new(credential.chain.clone(), &credential.key));
        config.client_auth_cert_resolver = presents.clone();
        assert_eq!(rig.ask(config).await.unwrap(), format!("{protocol} resumed=false {}", credential.thumbprint()));
        assert_eq!(presents.hints.get(), Some(&0));
    }
}

#[tokio::test]
async fn leaves_that_webpki_refuses_prove_possession_too() {
    let rig = Rig::start().await;
    let good = Template::client(Name::common("client"), rig.now);
    let v1 = Template { version: Version::V1, ..good.clone() };
    let authority =
        Template { basic_constraints: Some(BasicConstraints { ca: true, path_length: None }), ..good.clone() };
    for (name, template) in [("v1", v1), ("CA:TRUE", authority)] {
        for kind in [KeyKind::P256, KeyKind::P384, KeyKind::Ed25519, KeyKind::Rsa2048] {
            let credential = Credential::self_signed(&template, kind);
            for (version, protocol) in BOTH {
                let answer = rig.ask(rig.client_of(presented(&credential), &[version])).await;
                let expected = format!("{protocol} resumed=false {}", credential.thumbprint());
                assert_eq!(answer.unwrap(), expected, "{name} {kind:?}");
            }
        }
    }
}

#[tokio::test]
async fn a_certificate_without_its_key_is_refused_and_recorded_as_claimed() {
    let rig = Rig::start().await;
    let victim = rig.credential();
    let mine = Key::generate(KeyKind::P256);
    for (version, _) in BOTH {
        let config = rig.client_of(Some((victim.chain.clone(), &mine)), &[version]);
        assert!(rig.ask(config).await.is_err());
        let refused = rig.refused().await;
        assert_eq!(refused.refusal, HandshakeRefusal::PossessionNotProven);
        assert_eq!(refused.claimed.map(|claimed| claimed.to_string()), Some(victim.thumbprint()));
        assert!(refused.remote.ip().is_loopback());
    }
}

#[tokio::test]
async fn a_chain_beyond_the_bounds_is_refused() {
    let rig = Rig::start().await;
    let credential = rig.credential();
    let leaf = || credential.certificate().to_vec();
    for (chain, expected) in [
        (vec![leaf(); 6], HandshakeRefusal::ChainTooLong),
        (vec![leaf(), vec![0; 17 * 1024]], HandshakeRefusal::ChainTooLarge),
        (vec![vec![0x30, 0x00]], HandshakeRefusal::CertificateMalformed),
    ] {
        for (version, _) in BOTH {
            let config = rig.client_of(Some((chain.clone(), &credential.key)), &[version]);
            assert!(rig.ask(config).await.is_err());
            assert_eq!(rig.refused().await.refusal, expected);
        }
    }
    assert!(rig.ask(rig.client(Some((vec![leaf(); 5], &credential.key)))).await.is_ok());
}

#[tokio::test]
async fn older_versions_get_an_alert() {
    let rig = Rig::start().await;
    // Without `signature_algorithms`, as such clients speak, rustls says handshake_failure (40); with it, as a scanner
    // sends it, protocol_version (70).
    let signature_algorithms = [0, 10, 0, 13, 0, 6, 0, 4, 4, 3, 8, 4];
    for (minor, extensions, description) in
        [(1, &[][..], 40), (2, &[][..], 40), (1, &signature_algorithms[..], 70), (2, &signature_algorithms[..], 70)]
    {
        // A ClientHello of TLS 1.0 or 1.1: version, random, no session, one suite, no compression.
        let mut hello = vec![3, minor];
        hello.extend([7; 32]);
        hello.extend([0, 0, 2, 0xC0, 0x13, 1, 0]);
        hello.extend(extensions);
        let mut record = vec![0x16, 3, 1, 0, u8::try_from(hello.len() + 4).unwrap(), 1, 0, 0];
        record.push(u8::try_from(hello.len()).unwrap());
        record.extend(hello);
        let mut stream = TcpStream::connect(rig.running.addresses().mtls).await.unwrap();
        stream.write_all(&record).await.unwrap();
        let mut alert = Vec::new();
        stream.read_to_end(&mut alert).await.unwrap();
        // RFC 8446 §6: an alert (0x15), fatal (2).
        assert_eq!((alert[0], &alert[alert.len() - 2..]), (0x15, &[2, description][..]));
        assert_eq!(rig.refused().await.refusal, HandshakeRefusal::NoSharedVersion);
    }
}

#[tokio::test]
async fn plain_http_is_not_tls() {
    let rig = Rig::start().await;
    let mut stream = TcpStream::connect(rig.running.addresses().mtls).await.unwrap();
    stream.write_all(b"POST /token HTTP/1.1\r\nHost: localhost\r\n\r\n").await.unwrap();
    let _ = stream.read_to_end(&mut Vec::new()).await;
    assert_eq!(rig.refused().await.refusal, HandshakeRefusal::NotTls);
}

#[tokio::test]
async fn whoever_says_nothing_or_goes_away_is_on_record() {
    let limits = Limits { handshake: Duration::from_millis(20), ..Limits::default() };
    let rig = Rig::start_with(limits, None).await;
    let mut silent = TcpStream::connect(rig.running.addresses().mtls).await.unwrap();
    assert_eq!(silent.read(&mut [0]).await.unwrap_or(0), 0);
    assert_eq!(rig.refused().await.refusal, HandshakeRefusal::TimedOut);
    drop(TcpStream::connect(rig.running.addresses().mtls).await.unwrap());
    assert_eq!(rig.refused().await.refusal, HandshakeRefusal::Disconnected);
}

#[tokio::test]
async fn tls_1_2_is_spoken_with_aes_gcm_only() {
    let rig = Rig::start().await;
    let mut config = rig.client_of(None, &[&version::TLS12]);
    let mut provider = default_provider();
    provider.cipher_suites = vec![cipher_suite::TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256];
    config = ClientConfig::builder_with_provider(Arc::new(provider))
        .with_protocol_versions(&[&version::TLS12])
        .unwrap()
        .with_root_certificates(RootCertStore::empty())
        .with_client_cert_resolver(config.client_auth_cert_resolver.clone());
    assert!(rig.ask(config).await.is_err());
    assert_eq!(rig.refused().await.refusal, HandshakeRefusal::NoSharedParameters);
}

#[tokio::test]
async fn the_hybrid_group_comes_first() {
    let rig = Rig::start().await;
    let stream = rig.connect(rig.client(None)).await.unwrap();
    let connection = stream.get_ref().1;
    assert_eq!(connection.protocol_version(), Some(ProtocolVersion::TLSv1_3));
    assert_eq!(connection.negotiated_key_exchange_group().map(|group| group.name()), Some(NamedGroup::X25519MLKEM768));
}

#[tokio::test]
async fn the_suite_is_the_servers_choice_among_those_offered() {
    let rig = Rig::start().await;
    let suite = async |config| {
        let stream = rig.connect(config).await.unwrap();
        stream.get_ref().1.negotiated_cipher_suite().map(|suite| suite.suite())
    };
    let provider = default_provider();
    assert_ne!(provider.cipher_suites[0].suite(), CipherSuite::TLS13_AES_128_GCM_SHA256, "this client prefers another");
    assert_eq!(suite(rig.client(None)).await, Some(CipherSuite::TLS13_AES_128_GCM_SHA256));
    let one = vec![cipher_suite::TLS13_AES_256_GCM_SHA384];
    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from(rig.authority.certificate.clone())).unwrap();
    let strict = ClientConfig::builder_with_provider(Arc::new(CryptoProvider { cipher_suites: one, ..provider }))
        .with_protocol_versions(&[&version::TLS13])
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    assert_eq!(suite(strict).await, Some(CipherSuite::TLS13_AES_256_GCM_SHA384));
}

#[tokio::test]
async fn an_unknown_application_protocol_is_refused() {
    let rig = Rig::start().await;
    let mut config = rig.client(None);
    config.alpn_protocols = vec![b"smtp".to_vec()];
    assert!(rig.ask(config).await.is_err());
    assert_eq!(rig.refused().await.refusal, HandshakeRefusal::NoSharedParameters);
}

#[tokio::test]
async fn a_resumed_session_keeps_its_certificate() {
    let rig = Rig::start().await;
    let credential = rig.credential();
    for (version, protocol) in BOTH {
        let mut config = rig.client_of(presented(&credential), &[version]);
        config.resumption = Resumption::in_memory_sessions(8);
        for resumed in [false, true, true] {
            let answer = rig.ask(config.clone()).await.unwrap();
            assert_eq!(answer, format!("{protocol} resumed={resumed} {}", credential.thumbprint()));
        }
    }
}

#[tokio::test]
async fn a_session_does_not_cross_to_the_public_face() {
    let rig = Rig::start().await;
    let credential = rig.credential();
    let mut config = rig.client(presented(&credential));
    config.resumption = Resumption::in_memory_sessions(8);
    let config = Arc::new(config);
    let addresses = rig.running.addresses();
    for (to, thumbprint) in [(addresses.mtls, credential.thumbprint()), (addresses.public.unwrap(), String::new())] {
        let mut stream = rig.connect_to(to, config.clone()).await.unwrap();
        assert_eq!(get_who(&mut stream).await.unwrap(), format!("TLSv1.3 resumed=false {thumbprint}"));
    }
}

#[tokio::test]
async fn every_request_of_a_kept_connection_and_every_http2_stream_carries_the_peer() {
    let rig = Rig::start().await;
    let credential = rig.credential();
    let mut kept = rig.connect(rig.client(presented(&credential))).await.unwrap();
    for _ in 0..3 {
        assert!(get_who(&mut kept).await.unwrap().ends_with(&credential.thumbprint()));
    }

    let mut config = rig.client(presented(&credential));
    config.alpn_protocols = vec![b"h2".to_vec()];
    let stream = rig.connect(config).await.unwrap();
    assert_eq!(stream.get_ref().1.alpn_protocol(), Some(&b"h2"[..]));
    let executor = hyper_util::rt::TokioExecutor::new();
    let io = hyper_util::rt::TokioIo::new(stream);
    let (mut sender, connection) = hyper::client::conn::http2::handshake(executor, io).await.unwrap();
    let driving = tokio::spawn(connection);
    for _ in 0..3 {
        let request = http::Request::get("https://localhost/").body(http_body_util::Empty::<&[u8]>::new()).unwrap();
        let answer = sender.send_request(request).await.unwrap();
        let body = http_body_util::BodyExt::collect(answer.into_body()).await.unwrap().to_bytes();
        assert!(body.ends_with(credential.thumbprint().as_bytes()));
    }
    drop(sender);
    driving.await.unwrap().unwrap();
}

#[tokio::test]
async fn one_address_gets_so_many_connections() {
    let limits = Limits { connections_per_address: 1, ..Limits::default() };
    let rig = Rig::start_with(limits, None).await;
    let mut first = rig.connect(rig.client(None)).await.unwrap();
    assert!(rig.ask(rig.client(None)).await.is_err());
    assert_eq!(rig.refused().await.refusal, HandshakeRefusal::AddressLimit);
    assert!(get_who(&mut first).await.is_ok());
}

#[tokio::test]
async fn a_head_larger_than_the_limit_is_refused() {
    let rig = Rig::start().await;
    let mut stream = rig.connect(rig.client(None)).await.unwrap();
    stream.write_all(b"GET / HTTP/1.1\r\nHost: localhost\r\nX: ").await.unwrap();
    stream.write_all(&[b'x'; 17 * 1024]).await.unwrap();
    let mut answer = Vec::new();
    let _ = stream.read_to_end(&mut answer).await;
    assert!(answer.starts_with(b"HTTP/1.1 431 "), "{}", String::from_utf8_lossy(&answer));
}

#[tokio::test]
async fn a_slow_head_ends_the_connection() {
    let limits = Limits { request_head: Duration::from_millis(30), ..Limits::default() };
    let rig = Rig::start_with(limits, None).await;
    let mut stream = rig.connect(rig.client(None)).await.unwrap();
    stream.write_all(b"GET / HTTP/1.1\r\n").await.unwrap();
    let ended = tokio::time::timeout(Duration::from_secs(5), stream.read(&mut [0])).await.unwrap();
    assert_eq!(ended.unwrap_or(0), 0);
}

struct Nobody;

impl PerimeterGuard for Nobody {
    fn admits<'a>(&'a self, _: &'a Arc<PresentedChain>) -> BoxFuture<'a, bool> {
        Box::pin(std::future::ready(false))
    }
}

#[tokio::test]
async fn a_strict_perimeter_closes_on_certificates_it_does_not_know() {
    let rig = Rig::start_with(Limits::default(), Some(Arc::new(Nobody))).await;
    let credential = rig.credential();
    assert!(rig.ask(rig.client(presented(&credential))).await.is_err());
    let refused = rig.refused().await;
    assert_eq!(refused.refusal, HandshakeRefusal::PerimeterClosed);
    assert_eq!(refused.claimed.map(|claimed| claimed.to_string()), Some(credential.thumbprint()));
    assert!(rig.ask(rig.client(None)).await.is_ok());
}

struct Undecided;

impl PerimeterGuard for Undecided {
    fn admits<'a>(&'a self, _: &'a Arc<PresentedChain>) -> BoxFuture<'a, bool> {
        Box::pin(std::future::pending())
    }
}

#[tokio::test]
async fn the_server_has_finished_a_handshake_of_tls_1_2_before_anything_else_is_done() {
    let rig = Rig::start_with(Limits::default(), Some(Arc::new(Undecided))).await;
    let credential = rig.credential();
    let connecting = rig.connect(rig.client_of(presented(&credential), &[&version::TLS12]));
    let connected = tokio::time::timeout(Duration::from_secs(5), connecting).await;
    assert!(connected.expect("the server's Finished is held back").is_ok());
}

/// A client's socket that sends its Finished and its request together, and counts what comes in how many pieces.
struct Pieces {
    socket: gathered::Gathered,
    got: usize,
}

impl AsyncRead for Pieces {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<std::io::Result<()>> {
        let this = self.get_mut();
        let read = Pin::new(&mut this.socket).poll_read(cx, buf);
        this.got += usize::from(read.is_ready());
        read
    }
}

impl AsyncWrite for Pieces {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<std::io::Result<usize>> {
        Pin::new(&mut self.get_mut().socket).poll_write(cx, buf)
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        Pin::new(&mut self.get_mut().socket).poll_flush(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        Pin::new(&mut self.get_mut().socket).poll_shutdown(cx)
    }
}

#[tokio::test]
async fn a_connection_with_one_request_is_answered_in_two_pieces_its_ticket_with_the_answer() {
    let rig = Rig::start().await;
    let credential = rig.credential();
    let socket = TcpStream::connect(rig.running.addresses().mtls).await.unwrap();
    let pieces = Pieces { socket: gathered::Gathered::new(socket), got: 0 };
    let config = Arc::new(rig.client_of(presented(&credential), &[&version::TLS13]));
    let name = ServerName::try_from("localhost").unwrap();
    let mut stream = TlsConnector::from(Arc::clone(&config)).connect(name, pieces).await.unwrap();
    stream.write_all(b"POST /slow HTTP/1.1\r\nHost: localhost\r\nContent-Length: 1\r\n\r\nx").await.unwrap();
    assert!(stream.read(&mut [0; 1_024]).await.unwrap() > 0);
    assert_eq!(stream.get_ref().0.got, 2);
    let resumed = rig.connect_to(rig.running.addresses().mtls, config).await.unwrap();
    assert_eq!(resumed.get_ref().1.handshake_kind(), Some(rustls::HandshakeKind::Resumed));
}

#[tokio::test]
async fn stopping_closes_idle_connections_and_listens_no_more() {
    let rig = Rig::start().await;
    let mut kept = rig.connect(rig.client(None)).await.unwrap();
    get_who(&mut kept).await.unwrap();
    let addresses = rig.running.addresses();
    tokio::time::timeout(Duration::from_secs(5), rig.running.stop(Duration::from_secs(3))).await.unwrap();
    assert_eq!(kept.read(&mut [0]).await.unwrap_or(0), 0);
    assert!(TcpStream::connect(addresses.mtls).await.is_err());
}

#[tokio::test]
async fn the_operations_listener_is_plain_and_knows_nobody() {
    let rig = Rig::start().await;
    let mut stream = TcpStream::connect(rig.running.addresses().operations).await.unwrap();
    assert_eq!(get_who(&mut stream).await.unwrap(), "none resumed=false ");
}

#[tokio::test]
async fn a_new_certificate_is_served_without_a_restart() {
    let rig = Rig::start().await;
    let served = async || {
        let stream = rig.connect(rig.client(None)).await.unwrap();
        stream.get_ref().1.peer_certificates().unwrap()[0].to_vec()
    };
    let first = served().await;
    let second = rig.authority.issue(&Template::server(&["localhost"], rig.now), KeyKind::P256);
    assert_ne!(first, second.certificate());
    std::fs::write(rig.directory.path().join("server.pem"), second.chain_pem()).unwrap();
    std::fs::write(rig.directory.path().join("server-key.pem"), second.key.to_pem()).unwrap();
    rig.running.reload().notify_one();
    let arrived = async {
        while served().await != second.certificate() {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(Duration::from_secs(4), arrived).await.unwrap();
}
