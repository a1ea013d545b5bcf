//! A target that answers everything with what would hurt a careless judge: the judge ends, says that it failed, and writes
//! nothing of it as markup or as orders to a terminal. A target that refuses everybody, or speaks no TLS, passes nothing.

#![expect(clippy::unwrap_used, reason = "the lint's leave for tests ends at the functions marked as tests")]

use std::path::Path;
use std::sync::Arc;

use countersign_conformance::judge::{Catalogue, Choice, Progress, Report, run};
use countersign_conformance::pki::{Authority, Name, Template};
use countersign_conformance::{KeyKind, clock};
use rustls::pki_types::{CertificateDer, PrivatePkcs8KeyDer};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;
use tokio_rustls::TlsAcceptor;

/// Markup, the ends of attributes and of CDATA, a template, and orders to a terminal.
const EVIL: &str = r#"</pre></script><script>alert(1)</script>\"'><img src=x onerror=alert(1)>\u001b[2J\u0007\u0000${client.id}]]>&amp;"#;

#[derive(Default)]
struct Heard(String);

impl Progress for Heard {
    fn begins(&mut self, _: usize, _: usize, _: &str) {}

    fn ended(&mut self, _: &str, _: &str, _: &str, why: &str) {
        self.0.push_str(why);
    }
}

/// Serves the same answer to everybody, and says on which port.
async fn serve(root: &Authority, now: i64) -> u16 {
    let server = root.issue(&Template::server(&["localhost"], now), KeyKind::P256);
    let chain = server.chain.iter().map(|der| CertificateDer::from(der.clone())).collect();
    let key = PrivatePkcs8KeyDer::from(server.key.pkcs8().to_vec()).into();
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let config = rustls::ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(chain, key)
        .unwrap();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let body = format!(
        "{{\"access_token\":\"{EVIL}\",\"token_type\":\"{EVIL}\",\"issuer\":\"{EVIL}\",\"error\":\"{EVIL}\",\
         \"jwks_uri\":\"https://localhost:{port}/jwks\",\"introspection_endpoint\":\"https://localhost:{port}/i\",\
         \"revocation_endpoint\":\"https://localhost:{port}/r\",\"mtls_endpoint_aliases\":\"{EVIL}\",\"active\":1e3,\
         \"keys\":[{{\"kid\":\"{EVIL}\"}}]}}"
    );
    let answer = format!(
        "HTTP/1.1 200 OK\r\ncontent-type: text/html\r\nwww-authenticate: Bearer error=\"\\\"<script>\", Bearer realm=\"\r\n\
         content-length: {}\r\nconnection: close\r\n\r\n{body}",
        body.len()
    );
    tokio::spawn(async move {
        let acceptor = TlsAcceptor::from(Arc::new(config));
        while let Ok((stream, _)) = listener.accept().await {
            let (acceptor, answer) = (acceptor.clone(), answer.clone());
            tokio::spawn(async move {
                let Ok(mut stream) = acceptor.accept(stream).await else { return };
                let _asked = stream.read(&mut [0; 16_384]).await;
                let _gone = stream.write_all(answer.as_bytes()).await;
                let _gone = stream.shutdown().await;
            });
        }
    });
    port
}

/// Says the same octets to everybody, whatever they ask, ends the connection, and says on which port.
async fn say(octets: &'static [u8]) -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            tokio::spawn(async move {
                let _asked = stream.read(&mut [0; 16_384]).await;
                let _gone = stream.write_all(octets).await;
                let _gone = stream.shutdown().await;
            });
        }
    });
    port
}

/// Judges what listens there.
async fn judged(name: &str, root: &Authority, port: u16, now: i64, heard: &mut Heard) -> Report {
    let folder = std::env::temp_dir().join(format!("countersign-conformance-{name}-{}", std::process::id()));
    std::fs::create_dir_all(&folder).unwrap();
    write(&folder, root, port, now);
    let catalogue = Catalogue::built_in().unwrap();
    let report = run(&folder.join("target.toml"), &catalogue, &Choice::default(), heard).await.unwrap();
    std::fs::remove_dir_all(&folder).unwrap();
    report
}

fn write(folder: &Path, root: &Authority, port: u16, now: i64) {
    std::fs::write(folder.join("ca.pem"), root.to_pem()).unwrap();
    let mut target = format!(
        "issuer = \"https://localhost:{port}\"\nroots = \"ca.pem\"\nscope = \"a\"\nresource = \"https://localhost:{port}\"\n\
         token_endpoint = \"https://localhost:{port}/token\"\n"
    );
    for name in ["client", "client2", "client_self_signed", "introspection"] {
        let credential = root.issue(&Template::client(Name::common(name), now), KeyKind::P256);
        std::fs::write(folder.join(format!("{name}.pem")), credential.chain_pem()).unwrap();
        std::fs::write(folder.join(format!("{name}.key")), credential.key.to_pem()).unwrap();
        target += &format!("[{name}]\nid = \"{name}\"\ncertificate = \"{name}.pem\"\nkey = \"{name}.key\"\n");
    }
    target += &format!("[protected_resource]\nurl = \"https://localhost:{port}/api\"\n");
    std::fs::write(folder.join("target.toml"), target).unwrap();
}

#[tokio::test]
async fn nothing_that_a_target_says_becomes_markup_or_an_order() {
    let now = clock::now();
    let root = Authority::root("Root", now);
    let port = serve(&root, now).await;
    let mut heard = Heard::default();
    let report = judged("hostile", &root, port, now, &mut heard).await;

    assert!(report.failed());
    let (page, table, junit) = (report.to_html(), report.table(), report.to_junit());
    assert_eq!(page.matches("<script").count(), 1);
    assert!(page.contains("&lt;script&gt;"), "what it said is shown");
    for text in [&page, &junit] {
        assert!(!text.contains("<img") && !text.contains('\u{0}'));
    }
    for text in [&page, &table, &junit, &heard.0] {
        assert!(!text.contains('\u{1b}') && !text.contains('\u{7}'));
    }
}

#[tokio::test]
async fn who_refuses_everybody_or_speaks_no_tls_passes_nothing() {
    let now = clock::now();
    let root = Authority::root("Root", now);
    let all: [(&str, &[u8]); 3] =
        [("closed", b""), ("http", b"HTTP/1.1 400 Bad Request\r\n\r\n"), ("handshake", &[22, 3, 3, 0, 4, 11, 0, 0, 0])];
    for (name, octets) in all {
        let port = say(octets).await;
        let report = judged(name, &root, port, now, &mut Heard::default()).await;
        assert!(report.failed(), "{name}");
        assert_eq!(report.ids("pass"), Vec::<&str>::new(), "{name}");
    }
}
