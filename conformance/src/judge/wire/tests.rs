use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;
use tokio_rustls::TlsAcceptor;

use super::*;
use crate::key::KeyKind;
use crate::pki::{Authority, Template};

const SHORT: Limits = Limits {
    handshake: Duration::from_millis(500),
    answer: Duration::from_millis(500),
    head_bytes: 16_384,
    body_bytes: 1_000,
};

#[test]
fn addresses_are_https_urls() {
    let address = Address::parse("https://as.example/token?a=b").unwrap();
    assert_eq!((address.host.as_str(), address.port, address.path.as_str()), ("as.example", 443, "/token?a=b"));
    assert_eq!(Address::parse("https://as.example:8443").unwrap().path, "/");
    assert_eq!(Address::parse("https://[::1]:8443/x").unwrap().host, "[::1]");
    for other in ["http://as.example/", "as.example", "https:///x", "", "https://as.example/#a", "https://a b/"] {
        assert_eq!(Address::parse(other), None, "{other}");
    }
}

#[test]
fn a_field_sent_twice_reads_as_one_list() {
    let headers = vec![("Vary".to_owned(), "a".to_owned()), ("vary".to_owned(), "b".to_owned())];
    let response = Response { headers, ..Response::default() };
    assert_eq!(response.header("VARY").as_deref(), Some("a, b"));
    assert_eq!(response.header("accept"), None);
}

/// What a server of this certificate that writes these octets over and over, or none, is said to have answered.
async fn answer_of(octets: &'static [u8], times: usize, tls: bool) -> Answer {
    let now = crate::clock::now();
    let root = Authority::root("Root", now);
    let server = root.issue(&Template::server(&["localhost"], now), KeyKind::P256);
    let chain = server.chain.iter().map(|der| CertificateDer::from(der.clone())).collect();
    let key = rustls::pki_types::PrivatePkcs8KeyDer::from(server.key.pkcs8().to_vec()).into();
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let config = rustls::ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(chain, key)
        .unwrap();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    tokio::spawn(async move {
        let (mut stream, _) = listener.accept().await.unwrap();
        if !tls {
            for _ in 0..times {
                stream.write_all(octets).await.unwrap();
            }
            let _gone = stream.read(&mut [0; 1]).await;
            return tokio::time::sleep(Duration::from_secs(60)).await;
        }
        let mut stream = TlsAcceptor::from(Arc::new(config)).accept(stream).await.unwrap();
        let _asked = stream.read(&mut [0; 4_096]).await;
        for _ in 0..times {
            if stream.write_all(octets).await.is_err() || stream.flush().await.is_err() {
                return;
            }
        }
        tokio::time::sleep(Duration::from_secs(60)).await;
    });
    let request = Request {
        method: "GET".to_owned(),
        url: format!("https://localhost:{port}/"),
        headers: Vec::new(),
        body: None,
    };
    let roots = [CertificateDer::from(root.certificate)];
    send_within(&request, None, &roots, SHORT).await.unwrap()
}

#[tokio::test]
async fn a_good_answer_is_read_before_the_connection_ends() {
    let answer = answer_of(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\n{}", 1, true).await;
    assert!(matches!(answer, Answer::Response(Response { status: 200, ref body, .. }) if body == "{}"), "{answer:?}");
}

#[tokio::test]
async fn a_target_that_says_nothing_is_not_waited_for_and_has_not_refused() {
    for (octets, times, tls) in [
        (&b""[..], 0, true),
        (b"", 0, false),
        (b"HTTP/1.1 200 OK\r\n", 1, true),
        (b"HTTP/1.1 200 OK\r\ncontent-length: 900\r\n\r\n{", 1, true),
    ] {
        let answer = answer_of(octets, times, tls).await;
        assert!(matches!(answer, Answer::Unfit(_)), "{answer:?}");
    }
}

#[tokio::test]
async fn an_answer_without_end_is_cut() {
    const HEAD: &[u8] = b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n10\r\n0123456789abcdef\r\n";
    let answer = answer_of(HEAD, 1, true).await;
    assert!(matches!(answer, Answer::Unfit(_)), "{answer:?}");
    const LONG: &[u8] = &[b'a'; 4_096];
    let answer = answer_of(LONG, 1_000, true).await;
    assert!(matches!(answer, Answer::Unfit(_)), "{answer:?}");
}

#[tokio::test]
async fn what_is_not_tls_or_not_http_is_neither_an_answer_nor_a_refusal() {
    for (octets, tls) in [(&b"HTTP/1.1 400 Bad Request\r\n\r\n"[..], false), (b"\0\x01\x02 nonsense\r\n\r\n", true)] {
        let answer = answer_of(octets, 1, tls).await;
        assert!(matches!(answer, Answer::Unfit(_)), "{answer:?}");
    }
}
