//! Servers that answer as they should not, and what is fetched from them all the same.

use std::net::SocketAddr;

use countersign_conformance::KeyKind;
use countersign_conformance::pki::{Authority, Credential, Name, Template};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivatePkcs8KeyDer};
use rustls::server::WebPkiClientVerifier;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;
use tokio_rustls::TlsAcceptor;

use super::*;
use crate::time::SystemClock;

/// A server that answers every request with these octets, however wrong, and then closes; `endless` repeats the last
/// part for ever.
struct Raw {
    address: SocketAddr,
    roots: rustls::RootCertStore,
    /// How many connections it still closes before a word is said.
    breaks: Arc<AtomicU32>,
}

impl Raw {
    async fn answering(octets: impl Into<Vec<u8>>, endless: impl Into<Vec<u8>>) -> Self {
        Self::closing_to_certificates(false, octets, endless).await
    }

    /// It vouches for nobody's certificate, and closes connections on which one is shown; or takes whatever is shown.
    async fn closing_to_certificates(closing: bool, octets: impl Into<Vec<u8>>, endless: impl Into<Vec<u8>>) -> Self {
        let (octets, endless) = (octets.into(), endless.into());
        let now = SystemClock::new().now().as_seconds();
        let authority = Authority::root("Server CA", now);
        let credential = authority.issue(&Template::server(&["localhost"], now), KeyKind::P256);
        let mut roots = rustls::RootCertStore::empty();
        roots.add_parsable_certificates(CertificateDer::pem_slice_iter(authority.to_pem().as_bytes()).flatten());
        let chain = credential.chain.into_iter().map(CertificateDer::from).collect();
        let key = PrivatePkcs8KeyDer::from(credential.key.pkcs8().to_vec()).into();
        let mut config = if closing {
            let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
            let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots.clone()), Arc::clone(&provider));
            let config = rustls::ServerConfig::builder_with_provider(provider);
            let config = config.with_safe_default_protocol_versions().unwrap();
            let verifier = verifier.allow_unauthenticated().build().unwrap();
            config.with_client_cert_verifier(verifier).with_single_cert(chain, key).unwrap()
        } else {
            crate::peer::server_config(chain, key).unwrap()
        };
        config.alpn_protocols = vec![b"http/1.1".to_vec()];
        let acceptor = TlsAcceptor::from(Arc::new(config));
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let breaks = Arc::new(AtomicU32::new(0));
        let left = Arc::clone(&breaks);
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                if left.fetch_update(Ordering::SeqCst, Ordering::SeqCst, |left| left.checked_sub(1)).is_ok() {
                    continue;
                }
                let Ok(mut stream) = acceptor.accept(stream).await else { continue };
                let _head = stream.read(&mut [0; 4096]).await;
                let _answered = stream.write_all(&octets).await;
                while !endless.is_empty() && stream.write_all(&endless).await.is_ok() {}
                let _closed = stream.shutdown().await;
            }
        });
        Self { address, roots, breaks }
    }

    /// One that shows a certificate which nobody vouches for.
    fn fetcher_with_certificate(&self) -> Fetcher {
        let now = SystemClock::new().now().as_seconds();
        let own = Credential::self_signed(&Template::client(Name::common("api"), now), KeyKind::P256);
        let chain = own.chain.iter().cloned().map(CertificateDer::from).collect();
        let key = PrivatePkcs8KeyDer::from(own.key.pkcs8().to_vec()).into();
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let config = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_root_certificates(self.roots.clone())
            .with_client_auth_cert(chain, key)
            .unwrap();
        Fetcher::new(config)
    }

    fn fetcher(&self) -> Fetcher {
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let config = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_root_certificates(self.roots.clone())
            .with_no_client_auth();
        Fetcher::new(config)
    }

    async fn get(&self) -> Result<Bytes, FetchError> {
        let url = format!("https://localhost:{}/jwks", self.address.port());
        self.fetcher().get(&url, 1_000, Duration::from_secs(5)).await
    }
}

async fn fetched(octets: &str) -> Result<Bytes, FetchError> {
    Raw::answering(octets, []).await.get().await
}

#[test]
fn trouble_is_told_of_once() {
    let mut outcomes = Outcomes::of("keys");
    outcomes.note(&Ok(()));
    assert_eq!(outcomes.trouble, None);
    for _ in 0..2 {
        outcomes.note(&Err("away".to_owned()));
        assert_eq!(outcomes.trouble.as_deref(), Some("away"));
    }
    outcomes.note(&Err("garbage".to_owned()));
    assert_eq!(outcomes.trouble.as_deref(), Some("garbage"));
    outcomes.note(&Ok(()));
    assert_eq!(outcomes.trouble, None);
}

#[tokio::test]
async fn a_whole_body() {
    assert_eq!(fetched("HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok").await.unwrap(), "ok");
}

#[tokio::test]
async fn a_body_cut_short() {
    let cut = fetched("HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\nok").await;
    assert_eq!(cut, Err(FetchError::Body));
    let cut = fetched("HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n2\r\nok\r\n").await;
    assert_eq!(cut, Err(FetchError::Body));
}

#[tokio::test]
async fn a_body_at_the_limit_and_over_it() {
    let body = |length: usize| format!("HTTP/1.1 200 OK\r\ncontent-length: {length}\r\n\r\n{}", "x".repeat(length));
    assert_eq!(fetched(&body(1_000)).await.unwrap().len(), 1_000);
    assert_eq!(fetched(&body(1_001)).await, Err(FetchError::Body));
}

#[tokio::test]
async fn a_body_without_end() {
    let head = "HTTP/1.1 200 OK\r\ncontent-length: 2147483648\r\n\r\n";
    assert_eq!(Raw::answering(head, [b'x'; 4096]).await.get().await, Err(FetchError::Body));
    let head = "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n";
    let chunk = format!("200\r\n{}\r\n", "x".repeat(0x200)); // 512 octets
    assert_eq!(Raw::answering(head, chunk).await.get().await, Err(FetchError::Body));
}

#[tokio::test]
async fn answers_that_are_none() {
    for status in [204, 301, 302, 304, 307, 404, 500] {
        let answer = format!("HTTP/1.1 {status} X\r\nlocation: https://localhost/\r\ncontent-length: 0\r\n\r\n");
        assert_eq!(fetched(&answer).await, Err(FetchError::Status(status)));
    }
    assert!(matches!(fetched("garbage\r\n\r\n").await, Err(FetchError::Connection(_))));
    assert!(matches!(fetched("").await, Err(FetchError::Connection(_))));
}

#[tokio::test]
async fn a_server_that_is_silent() {
    let raw = Raw::answering("HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\n", []).await;
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap(); // accepts, and never says a word
    let url = format!("https://localhost:{}/", listener.local_addr().unwrap().port());
    let silent = raw.fetcher().get(&url, 1_000, Duration::from_millis(50)).await;
    assert_eq!(silent, Err(FetchError::TimedOut));
}

/// An API that is deployed before it is enrolled, at a server that insists.
#[tokio::test]
async fn a_certificate_that_is_not_taken_costs_neither_keys_nor_list() {
    for closing in [true, false] {
        let raw = Raw::closing_to_certificates(closing, "HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok", []).await;
        let url = format!("https://localhost:{}/jwks", raw.address.port());
        let alone = raw.fetcher_with_certificate().get(&url, 1_000, PATIENCE).await;
        assert_eq!(matches!(alone, Err(FetchError::Connection(_))), closing, "{alone:?}");
        let both = raw.fetcher_with_certificate().or_else(raw.fetcher());
        let turns = || both.other.as_ref().unwrap().turns.load(Ordering::Relaxed);
        // With the certificate first, then without for a while, then with it again.
        for fetch in 0..TURNS_WITHOUT + 2 {
            assert_eq!(both.get(&url, 1_000, PATIENCE).await.unwrap(), "ok");
            let left = TURNS_WITHOUT - fetch % (TURNS_WITHOUT + 1);
            assert_eq!(turns(), if closing { left } else { 0 }, "{fetch}");
        }
        // And as soon as it fails without.
        let nowhere = both.get("https://localhost:1/", 1_000, PATIENCE).await;
        assert!(matches!(nowhere, Err(FetchError::Connection(_))));
        assert_eq!(turns(), 0);
    }
}

/// A server that is started anew, at which the API is enrolled.
#[tokio::test]
async fn one_broken_connection_says_nothing_of_the_certificate() {
    let raw = Raw::answering("HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok", []).await;
    let url = format!("https://localhost:{}/jwks", raw.address.port());
    for (broken, without) in [(0, false), (1, false), (2, true)] {
        let both = raw.fetcher_with_certificate().or_else(raw.fetcher());
        let other = both.other.as_ref().unwrap();
        raw.breaks.store(broken, Ordering::SeqCst);
        assert_eq!(both.get(&url, 1_000, 2 * PATIENCE).await.unwrap(), "ok");
        assert_eq!(raw.breaks.load(Ordering::SeqCst), 0, "{broken}");
        assert_eq!(other.turns.load(Ordering::Relaxed), if without { TURNS_WITHOUT } else { 0 }, "{broken}");
        assert_eq!(other.told.load(Ordering::Relaxed), without, "{broken}");
    }
    // With all three broken nobody knows anything of the certificate, and the next fetch begins with it.
    let both = raw.fetcher_with_certificate().or_else(raw.fetcher());
    raw.breaks.store(3, Ordering::SeqCst);
    assert!(matches!(both.get(&url, 1_000, 2 * PATIENCE).await, Err(FetchError::Connection(_))));
    assert_eq!(both.other.as_ref().unwrap().turns.load(Ordering::Relaxed), 0);
}

#[tokio::test]
async fn a_server_nobody_vouches_for() {
    let (one, other) = (Raw::answering("", []).await, Raw::answering("", []).await);
    let url = format!("https://localhost:{}/", one.address.port());
    let cause = |answer| match answer {
        Err(FetchError::Connection(cause)) => cause,
        other => panic!("{other:?}"),
    };
    // An operator who gave the wrong roots has to be told so.
    let unknown = cause(other.fetcher().get(&url, 1_000, PATIENCE).await);
    assert!(unknown.contains("UnknownIssuer") || unknown.contains("BadSignature"), "{unknown}");
    let url = format!("https://127.0.0.1:{}/", one.address.port()); // a name the certificate does not have
    let misnamed = cause(one.fetcher().get(&url, 1_000, PATIENCE).await);
    assert!(misnamed.contains("not valid for name"), "{misnamed}");
}

#[tokio::test]
async fn no_plain_http() {
    let raw = Raw::answering("", []).await;
    let url = format!("http://localhost:{}/", raw.address.port());
    assert!(matches!(raw.fetcher().get(&url, 1_000, PATIENCE).await, Err(FetchError::Connection(_))));
    assert_eq!(raw.fetcher().get("not a url", 1_000, PATIENCE).await, Err(FetchError::Address));
}
