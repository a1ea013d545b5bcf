//! The operations listener: plain HTTP on the loopback, health, readiness and metrics, and nothing else.

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use countersign_conformance::KeyKind;
use countersign_conformance::crl::{RevocationList, to_pem};
use countersign_conformance::pki::{AltName, Name, Template};
use serde_json::Value;

use crate::revocation_lists::anchor;
use crate::rig::{Rig, thumbprint};

pub(crate) async fn get(rig: &Rig, path: &str) -> (u16, String) {
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

/// What a command said, on either stream, and whether it succeeded.
pub(crate) async fn said(rig: &Rig, arguments: &[&str]) -> (bool, String) {
    let output = rig.command(arguments).await;
    let text = [output.stdout, output.stderr].concat();
    (output.status.success(), String::from_utf8(text).unwrap())
}

/// Whoever reads the JSON of a command need not know which of its numbers is a date, and in which unit.
#[tokio::test]
async fn no_command_prints_a_date_as_a_number() {
    let rig = Rig::start().await;
    assert_eq!(rig.ask(&rig.world.a_dn).await.status, 200);
    let list = RevocationList::new(1, rig.world.now).signed_by(&rig.world.a_root);
    let list = rig.file("list.pem", &to_pem(&list)).display().to_string();
    let file = rig.file("a-dn.pem", &rig.world.a_dn.credential.chain_pem()).display().to_string();
    let anchor = anchor(&rig).await.id.to_string();
    let thumbprint = thumbprint(&rig.world.a_dn.credential).to_string();
    let (mut dates, mut numbers) = (0, Vec::new());
    for arguments in [
        vec!["anchor", "change", &anchor, "--crl", &list],
        vec!["anchor", "check-revocation", &anchor],
        vec!["anchor", "list"],
        vec!["certificate", "expiring", "--within", "500w"],
        vec!["certificate", "explain", &file, "--client", "a-dn"],
        vec!["certificate", "list", "--client", "a-dn"],
        vec!["certificate", "show", &thumbprint],
        vec!["client", "show", "a-dn"],
        vec!["entitlement", "list"],
        vec!["history"],
        vec!["key", "list"],
        vec!["key", "rotate", "--alg", "ES256"],
        vec!["participant", "list"],
        vec!["resource-server", "list"],
        vec!["trust-domain", "list"],
    ] {
        let output = rig.command(&[&["--json"], &arguments[..]].concat()).await;
        // Whatever it says of them: `explain` finds no list of the intermediate.
        let told: Value = serde_json::from_slice(&output.stdout)
            .unwrap_or_else(|_| panic!("{arguments:?}: {}", String::from_utf8_lossy(&output.stderr)));
        let mut rest = vec![&told];
        while let Some(value) = rest.pop() {
            match value {
                Value::Array(items) => rest.extend(items),
                Value::Object(members) => rest.extend(members.values()),
                // Later than 2001, in seconds already.
                Value::Number(number) if number.as_f64().unwrap() >= 1e9 => {
                    numbers.push(format!("{number} of {arguments:?}"));
                }
                Value::String(text) if text.ends_with("Z") && text.len() == "2026-11-27T00:00:00.000Z".len() => {
                    dates += 1;
                }
                _ => {}
            }
        }
    }
    assert!(numbers.is_empty() && dates > 100, "{dates} dates; {numbers:?}");
}

#[tokio::test]
async fn a_new_client_that_could_get_no_token_is_told_why() {
    let rig = Rig::start().await;
    let issued = |file: &str, host: &str| {
        let template =
            Template::client(Name::common("new"), rig.world.now).with_alt_names([AltName::Dns(host.to_owned())]);
        let credential = rig.world.stranger_root.issue(&template, KeyKind::P256);
        rig.file(file, &credential.chain_pem()).display().to_string()
    };
    let participant = ["participant", "add", "newcomer", "--legal-name", "Newcomer Ltd"];
    assert!(said(&rig, &participant).await.0);
    let add = async |id: &str, certificate: &str, more: &[&str]| {
        let fixed = ["client", "add", id, "--participant", "newcomer", "--certificate", certificate];
        said(&rig, &[&fixed, more].concat()).await
    };
    let inside = issued("inside.pem", "a.newcomer.example");
    let (done, told) = add("one", &inside, &[]).await;
    assert!(done && told.contains("newcomer has no trust anchor"), "{told}");

    let root = rig.file("root.pem", &rig.world.stranger_root.to_pem()).display().to_string();
    let names = ["--dns-suffix", "newcomer.example", "--dn-suffix", "CN=new"];
    let anchor = [&["anchor", "add", &root, "--owner", "newcomer"][..], &names].concat();
    let (done, told) = said(&rig, &anchor).await;
    assert!(done, "{told}");
    let (done, told) = add("two", &issued("outside.pem", "a.elsewhere.example"), &[]).await;
    assert!(done && told.contains("not for a.elsewhere.example"), "{told}");
    let (done, told) = add("three", &issued("also-inside.pem", "b.newcomer.example"), &[]).await;
    assert!(done && !told.contains("note:"), "{told}");

    let (done, told) =
        add("four", &issued("other.pem", "c.newcomer.example"), &["--san-dns", "d.newcomer.example"]).await;
    assert!(!done && told.contains("does not carry this name: d.newcomer.example"), "{told}");

    let (done, told) = said(&rig, &["certificate", "list", "--client", "nobody"]).await;
    assert!(!done && told.contains("there is no client nobody"), "{told}");
    let (done, told) = said(&rig, &["participant", "reinstate", "newcomer"]).await;
    assert!(!done && told.contains("is active already"), "{told}");
}
