//! A TLS client with its hands on every byte.
//!
//! Takes a credential and what to send, gives what came back. HTTP/1.1 is written and read here, octet by octet, because
//! no library sends a broken request; HTTP/2 goes through hyper. Sessions are kept for resumption, connections for as long
//! as the test holds them.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use countersign_conformance::pki::Credential;
use countersign_conformance::{Key, KeyKind};
use http_body_util::{BodyExt, Full};
use hyper_util::rt::{TokioExecutor, TokioIo};
use rustls::client::{ResolvesClientCert, Resumption};
use rustls::pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer, ServerName};
use rustls::sign::CertifiedKey;
use rustls::{ClientConfig, HandshakeKind, RootCertStore, SignatureAlgorithm, SignatureScheme};
use serde_json::Value;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpSocket, TcpStream};
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

/// Longer than any answer takes, shorter than anybody's patience.
const PATIENCE: Duration = Duration::from_secs(20);

/// A TLS client: a credential or none, the authority it believes, the sessions it remembers.
#[derive(Clone, Debug)]
pub(crate) struct Peer {
    config: Arc<ClientConfig>,
}

/// Which versions of TLS a peer offers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Tls {
    /// TLS 1.2 alone.
    V1_2,
    /// TLS 1.3 alone.
    V1_3,
}

impl Peer {
    /// A peer on TLS 1.3 and HTTP/1.1.
    pub(crate) fn new(server_authority: &[u8], credential: Option<&Credential>) -> Self {
        Self::with(server_authority, credential, Tls::V1_3, &[b"http/1.1"])
    }

    /// A peer with this version and these protocols.
    pub(crate) fn with(server_authority: &[u8], credential: Option<&Credential>, tls: Tls, alpn: &[&[u8]]) -> Self {
        let mut roots = RootCertStore::empty();
        roots.add(CertificateDer::from(server_authority.to_vec())).unwrap();
        let version = match tls {
            Tls::V1_2 => &rustls::version::TLS12,
            Tls::V1_3 => &rustls::version::TLS13,
        };
        let builder = ClientConfig::builder_with_provider(Arc::new(rustls::crypto::aws_lc_rs::default_provider()))
            .with_protocol_versions(&[version])
            .unwrap()
            .with_root_certificates(roots);
        let mut config = match credential {
            None => builder.with_no_client_auth(),
            Some(credential) => builder.with_client_cert_resolver(Arc::new(Presents(certified(credential)))),
        };
        config.alpn_protocols = alpn.iter().map(|protocol| protocol.to_vec()).collect();
        config.resumption = Resumption::in_memory_sessions(8);
        Self { config: Arc::new(config) }
    }

    /// The first octets of a handshake.
    pub(crate) fn client_hello(&self) -> Vec<u8> {
        let name = ServerName::try_from("localhost").unwrap();
        let mut octets = Vec::new();
        rustls::ClientConnection::new(Arc::clone(&self.config), name).unwrap().write_tls(&mut octets).unwrap();
        octets
    }

    /// A connection whose handshake is complete, as far as this side can tell.
    pub(crate) async fn connect(&self, address: SocketAddr) -> std::io::Result<Connection> {
        self.over(patiently(TcpStream::connect(address)).await?).await
    }

    async fn over(&self, stream: TcpStream) -> std::io::Result<Connection> {
        stream.set_nodelay(true)?;
        let name = ServerName::try_from("localhost").unwrap();
        let stream = patiently(TlsConnector::from(Arc::clone(&self.config)).connect(name, stream)).await?;
        Ok(Connection { stream, received: Vec::new() })
    }

    /// One request on a connection of its own.
    pub(crate) async fn ask(&self, address: SocketAddr, request: &Request) -> std::io::Result<Answer> {
        self.connect(address).await?.ask(request).await
    }

    /// The same, from this address of the machine.
    pub(crate) async fn ask_from(
        &self,
        source: Ipv4Addr,
        address: SocketAddr,
        request: &Request,
    ) -> std::io::Result<Answer> {
        self.connect_from(source, address).await?.ask(request).await
    }

    /// A connection from this address of the machine.
    pub(crate) async fn connect_from(&self, source: Ipv4Addr, address: SocketAddr) -> std::io::Result<Connection> {
        self.over(dial_from(source, address).await?).await
    }

    /// An HTTP/2 connection.
    pub(crate) async fn connect_h2(&self, address: SocketAddr) -> std::io::Result<H2> {
        let connection = self.connect(address).await?;
        assert_eq!(
            connection.stream.get_ref().1.alpn_protocol(),
            Some(&b"h2"[..]),
            "the server chose another protocol"
        );
        let (sender, driver) =
            hyper::client::conn::http2::handshake(TokioExecutor::new(), TokioIo::new(connection.stream))
                .await
                .map_err(std::io::Error::other)?;
        tokio::spawn(driver);
        Ok(H2 { sender })
    }
}

/// A connection from this address of the machine, before anything is said.
pub(crate) async fn dial_from(source: Ipv4Addr, address: SocketAddr) -> std::io::Result<TcpStream> {
    let socket = TcpSocket::new_v4()?;
    socket.bind((source, 0).into())?;
    patiently(socket.connect(address)).await
}

/// An open connection.
#[derive(Debug)]
pub(crate) struct Connection {
    stream: TlsStream<TcpStream>,
    received: Vec<u8>,
}

impl Connection {
    /// Sends a request and reads its answer.
    pub(crate) async fn ask(&mut self, request: &Request) -> std::io::Result<Answer> {
        self.send(&request.to_bytes()).await?;
        self.read_answer(request.method == "HEAD").await
    }

    /// Sends these octets, as far as the server lets them through: one that answers early may close.
    pub(crate) async fn send(&mut self, octets: &[u8]) -> std::io::Result<()> {
        let sent = async {
            self.stream.write_all(octets).await?;
            self.stream.flush().await
        };
        match patiently(sent).await {
            Err(error) if error.kind() == std::io::ErrorKind::TimedOut => Err(error),
            _ => Ok(()),
        }
    }

    /// Sends these octets; fails where the server takes no more.
    pub(crate) async fn send_or_fail(&mut self, octets: &[u8]) -> std::io::Result<()> {
        patiently(self.stream.write_all(octets)).await
    }

    /// Says that nothing more will be sent.
    pub(crate) async fn finish(&mut self) -> std::io::Result<()> {
        patiently(self.stream.shutdown()).await
    }

    /// Reads one answer. An end before its head is complete is an error of kind `UnexpectedEof`.
    pub(crate) async fn read_answer(&mut self, head_only: bool) -> std::io::Result<Answer> {
        loop {
            let head_end = loop {
                if let Some(at) = find(&self.received, b"\r\n\r\n") {
                    break at;
                }
                self.receive().await?;
            };
            let head = String::from_utf8_lossy(&self.received[..head_end]).into_owned();
            self.received.drain(..head_end + 4);
            let mut lines = head.split("\r\n");
            let status_line = lines.next().unwrap_or_default();
            let status = status_line.split(' ').nth(1).and_then(|code| code.parse().ok()).unwrap_or(0);
            let headers: Vec<(String, String)> = lines
                .filter_map(|line| line.split_once(':'))
                .map(|(name, value)| (name.to_ascii_lowercase(), value.trim().to_owned()))
                .collect();
            if status == 100 {
                continue;
            }
            let mut answer = Answer { status, headers, body: Vec::new() };
            if !head_only {
                answer.body = self.read_body(&answer).await?;
            }
            return Ok(answer);
        }
    }

    async fn read_body(&mut self, head: &Answer) -> std::io::Result<Vec<u8>> {
        if head.header("transfer-encoding").is_some() {
            let mut body = Vec::new();
            loop {
                let line_end = self.until(b"\r\n").await?;
                let size = String::from_utf8_lossy(&self.received[..line_end]).trim().to_owned();
                let size = usize::from_str_radix(&size, 16).map_err(std::io::Error::other)?;
                self.received.drain(..line_end + 2);
                while self.received.len() < size + 2 {
                    self.receive().await?;
                }
                body.extend(self.received.drain(..size));
                self.received.drain(..2);
                if size == 0 {
                    return Ok(body);
                }
            }
        }
        let length = head.header("content-length").and_then(|length| length.parse().ok()).unwrap_or(0);
        while self.received.len() < length {
            self.receive().await?;
        }
        Ok(self.received.drain(..length).collect())
    }

    /// What comes next, whatever it is; nothing at the end.
    pub(crate) async fn read_some(&mut self) -> std::io::Result<Vec<u8>> {
        if self.received.is_empty()
            && let Err(error) = self.receive().await
        {
            return if error.kind() == std::io::ErrorKind::TimedOut { Err(error) } else { Ok(Vec::new()) };
        }
        Ok(std::mem::take(&mut self.received))
    }

    async fn until(&mut self, mark: &[u8]) -> std::io::Result<usize> {
        loop {
            if let Some(at) = find(&self.received, mark) {
                return Ok(at);
            }
            self.receive().await?;
        }
    }

    async fn receive(&mut self) -> std::io::Result<()> {
        let mut octets = [0; 8192];
        match patiently(self.stream.read(&mut octets)).await? {
            0 => Err(std::io::ErrorKind::UnexpectedEof.into()),
            count => {
                self.received.extend_from_slice(&octets[..count]);
                Ok(())
            }
        }
    }

    /// Whether the handshake resumed an earlier session.
    pub(crate) fn resumed(&self) -> bool {
        self.stream.get_ref().1.handshake_kind() == Some(HandshakeKind::Resumed)
    }
}

/// An open HTTP/2 connection; clones share it.
#[derive(Clone, Debug)]
pub(crate) struct H2 {
    sender: hyper::client::conn::http2::SendRequest<Full<Bytes>>,
}

impl H2 {
    /// Sends a request on a stream of its own and reads its answer.
    pub(crate) async fn ask(&mut self, request: &Request) -> std::io::Result<Answer> {
        let mut head = hyper::Request::builder()
            .method(request.method.as_str())
            .uri(format!("https://localhost{}", request.target));
        for (name, value) in &request.headers {
            if !name.eq_ignore_ascii_case("host") {
                head = head.header(name.as_str(), value.as_str());
            }
        }
        let request = head.body(Full::from(request.body.clone())).map_err(std::io::Error::other)?;
        let answer =
            patiently(async { self.sender.send_request(request).await.map_err(std::io::Error::other) }).await?;
        let (head, body) = answer.into_parts();
        let body = patiently(async { body.collect().await.map_err(std::io::Error::other) }).await?;
        Ok(Answer {
            status: head.status.as_u16(),
            headers: head
                .headers
                .iter()
                .map(|(name, value)| (name.as_str().to_owned(), String::from_utf8_lossy(value.as_bytes()).into_owned()))
                .collect(),
            body: body.to_bytes().to_vec(),
        })
    }
}

/// A request as it goes over the wire.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Request {
    pub(crate) method: String,
    pub(crate) target: String,
    pub(crate) version: String,
    pub(crate) headers: Vec<(String, String)>,
    pub(crate) body: Vec<u8>,
    /// Whether `Content-Length` is added.
    pub(crate) length: bool,
}

impl Request {
    /// `GET` with nothing but a host.
    pub(crate) fn get(target: &str) -> Self {
        Self {
            method: "GET".to_owned(),
            target: target.to_owned(),
            version: "HTTP/1.1".to_owned(),
            headers: vec![("Host".to_owned(), "localhost".to_owned())],
            body: Vec::new(),
            length: false,
        }
    }

    /// `POST` of a form.
    pub(crate) fn form(target: &str, pairs: &[(&str, &str)]) -> Self {
        Self::post(target, encode(pairs).into_bytes())
            .with_header("Content-Type", "application/x-www-form-urlencoded")
            .with_header("Accept", "application/json")
    }

    /// `POST` of octets.
    pub(crate) fn post(target: &str, body: Vec<u8>) -> Self {
        Self { method: "POST".to_owned(), body, length: true, ..Self::get(target) }
    }

    #[must_use]
    pub(crate) fn with_header(mut self, name: &str, value: &str) -> Self {
        self.headers.push((name.to_owned(), value.to_owned()));
        self
    }

    #[must_use]
    pub(crate) fn without_header(mut self, name: &str) -> Self {
        self.headers.retain(|(own, _)| !own.eq_ignore_ascii_case(name));
        self
    }

    /// The octets of it.
    pub(crate) fn to_bytes(&self) -> Vec<u8> {
        let mut head = format!("{} {} {}\r\n", self.method, self.target, self.version);
        for (name, value) in &self.headers {
            head.push_str(&format!("{name}: {value}\r\n"));
        }
        if self.length {
            head.push_str(&format!("Content-Length: {}\r\n", self.body.len()));
        }
        head.push_str("\r\n");
        let mut octets = head.into_bytes();
        octets.extend_from_slice(&self.body);
        octets
    }
}

/// `application/x-www-form-urlencoded`, everything but letters, digits and `-._` in escapes.
pub(crate) fn encode(pairs: &[(&str, &str)]) -> String {
    let escape = |text: &str| {
        text.bytes().fold(String::new(), |mut out, byte| {
            if byte.is_ascii_alphanumeric() || b"-._".contains(&byte) {
                out.push(char::from(byte));
            } else {
                out.push_str(&format!("%{byte:02X}"));
            }
            out
        })
    };
    pairs.iter().map(|(name, value)| format!("{}={}", escape(name), escape(value))).collect::<Vec<_>>().join("&")
}

/// What came back.
#[derive(Clone, Debug)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    /// Names in lower case.
    pub(crate) headers: Vec<(String, String)>,
    pub(crate) body: Vec<u8>,
}

impl Answer {
    /// The first header of this name.
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(own, _)| own == name).map(|(_, value)| value.as_str())
    }

    /// The body as JSON; `null` where it is none.
    pub(crate) fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or(Value::Null)
    }

    /// The `error` member.
    pub(crate) fn error(&self) -> String {
        self.json()["error"].as_str().unwrap_or_default().to_owned()
    }

    /// The access token.
    pub(crate) fn token(&self) -> String {
        assert_eq!(self.status, 200, "no token: {self}");
        self.json()["access_token"].as_str().unwrap().to_owned()
    }
}

impl std::fmt::Display for Answer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} {:?} {}", self.status, self.headers, String::from_utf8_lossy(&self.body))
    }
}

/// Always presents the same certificate, whatever the server asks for.
#[derive(Debug)]
struct Presents(Arc<CertifiedKey>);

impl ResolvesClientCert for Presents {
    fn resolve(&self, _: &[&[u8]], _: &[SignatureScheme]) -> Option<Arc<CertifiedKey>> {
        Some(Arc::clone(&self.0))
    }

    fn has_certs(&self) -> bool {
        true
    }
}

fn certified(credential: &Credential) -> Arc<CertifiedKey> {
    let chain = credential.chain.iter().map(|der| CertificateDer::from(der.clone())).collect();
    let key: Arc<dyn rustls::sign::SigningKey> = match credential.key.kind() {
        KeyKind::Rsa1024 => Arc::new(WeakRsa::new(&credential.key)),
        _ => {
            let pkcs8 = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(credential.key.pkcs8().to_vec()));
            rustls::crypto::aws_lc_rs::sign::any_supported_type(&pkcs8).unwrap()
        }
    };
    Arc::new(CertifiedKey::new(chain, key))
}

/// Signs with an RSA key that aws-lc-rs rightly does not touch.
#[derive(Debug)]
struct WeakRsa(Arc<openssl::pkey::PKey<openssl::pkey::Private>>);

impl WeakRsa {
    fn new(key: &Key) -> Self {
        Self(Arc::new(openssl::pkey::PKey::private_key_from_pkcs8(key.pkcs8()).unwrap()))
    }
}

impl rustls::sign::SigningKey for WeakRsa {
    fn choose_scheme(&self, offered: &[SignatureScheme]) -> Option<Box<dyn rustls::sign::Signer>> {
        offered
            .contains(&SignatureScheme::RSA_PSS_SHA256)
            .then(|| Box::new(Self(Arc::clone(&self.0))) as Box<dyn rustls::sign::Signer>)
    }

    fn algorithm(&self) -> SignatureAlgorithm {
        SignatureAlgorithm::RSA
    }
}

impl rustls::sign::Signer for WeakRsa {
    fn sign(&self, message: &[u8]) -> Result<Vec<u8>, rustls::Error> {
        use openssl::rsa::Padding;
        use openssl::sign::{RsaPssSaltlen, Signer};
        let sign = || {
            let mut signer = Signer::new(openssl::hash::MessageDigest::sha256(), &self.0)?;
            signer.set_rsa_padding(Padding::PKCS1_PSS)?;
            signer.set_rsa_pss_saltlen(RsaPssSaltlen::DIGEST_LENGTH)?;
            signer.sign_oneshot_to_vec(message)
        };
        sign().map_err(|error: openssl::error::ErrorStack| rustls::Error::General(error.to_string()))
    }

    fn scheme(&self) -> SignatureScheme {
        SignatureScheme::RSA_PSS_SHA256
    }
}

async fn patiently<T>(work: impl Future<Output = std::io::Result<T>>) -> std::io::Result<T> {
    tokio::time::timeout(PATIENCE, work).await.unwrap_or_else(|_| Err(std::io::ErrorKind::TimedOut.into()))
}

fn find(haystack: &[u8], needle: &[u8]) -> Option<usize> {
    haystack.windows(needle.len()).position(|window| window == needle)
}
