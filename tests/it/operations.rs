//! The operations listener: plain HTTP on the loopback, health, readiness and metrics, and nothing else.

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::rig::Rig;

async fn get(rig: &Rig, path: &str) -> (u16, String) {
    let mut stream = TcpStream::connect(rig.operations).await.unwrap();
    let request = format!("GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    let status = answer.split(' ').nth(1).and_then(|code| code.parse().ok()).unwrap_or(0);
    (status, answer)
}

#[tokio::test]
async fn the_operator_sees_health_and_what_was_refused() {
    let rig = Rig::start().await;
    assert!(rig.operations.ip().is_loopback());
    assert_eq!(get(&rig, "/healthz").await.0, 200);
    assert_eq!(get(&rig, "/readyz").await.0, 200);
    assert_eq!(rig.ask(&rig.world.a_dn).await.status, 200);
    assert_eq!(rig.ask(&rig.world.a_suspended).await.status, 400);
    let (status, metrics) = get(&rig, "/metrics").await;
    assert_eq!(status, 200);
    let counted = |reason: &str| {
        metrics.lines().any(|line| {
            line.starts_with("countersign_requests_total{")
                && line.contains("endpoint=\"token\"")
                && line.contains(&format!("reason=\"{reason}\""))
        })
    };
    assert!(counted("ok") && counted("client_suspended"), "{metrics}");
    assert!(!metrics.contains("a-dn"), "no client becomes the name of a time series");
    for path in ["/token", "/jwks", "/"] {
        assert_eq!(get(&rig, path).await.0, 404, "{path}");
    }
}
