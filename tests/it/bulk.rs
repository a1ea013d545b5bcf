//! `countersign registry import` and `export` beside a server that goes on: all of a file or nothing, and nobody waits.

use std::fmt::Write;
use std::path::Path;
use std::process::Stdio;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use countersign::registry::ClientId;
use countersign::registry::import::ImportStore;
use countersign::store::Migrate;
use countersign_conformance::pki::{AltName, Authority, Credential, Name, Template};
use countersign_conformance::{Key, KeyKind};
use countersign_resource_server::time::{Clock, SystemClock};
use serde_json::{Value, json};
use sqlx::Connection;

use crate::rig::{Engine, Rig, Time, within};
use crate::world::Party;

/// A file of a participant with an authority of its own and so many clients, each with a certificate and an entitlement; and
/// the credential of the last.
struct File {
    lines: Vec<Value>,
    last: Credential,
}

impl File {
    fn of(clients: usize, now: i64) -> Self {
        let authority = Authority::root("Bulk CA", now);
        let key = Arc::new(Key::generate(KeyKind::P256));
        let mut lines = vec![
            json!({ "participant": { "id": "bulk", "legal_name": "Bulk BV" } }),
            json!({ "anchor": { "der": STANDARD.encode(&authority.certificate), "owner": "bulk",
                "grants": [{ "participant_id": "bulk", "any": true }] } }),
            json!({ "resource_server": { "id": "bulk-api", "resource": "https://bulk.example", "scopes": "read" } }),
        ];
        let mut last = None;
        for number in 0..clients {
            let name = format!("c{number}.bulk.example");
            let template = Template::client(Name::common(&name), now).with_alt_names([AltName::Dns(name.clone())]);
            let credential = authority.issue_for(&template, Arc::clone(&key));
            let id = format!("bulk-{number}");
            lines.push(json!({ "client": { "id": id, "participant_id": "bulk",
                "token_endpoint_auth_method": "tls_client_auth", "tls_client_auth_san_dns": name } }));
            let der = STANDARD.encode(credential.certificate());
            lines.push(json!({ "certificate": { "client_id": id, "der": der } }));
            lines.push(json!({ "entitlement": { "client_id": id, "resource_server_id": "bulk-api", "scopes": "read",
                "reason": "contract" } }));
            last = Some(credential);
        }
        Self { lines, last: last.unwrap() }
    }

    fn text(&self) -> String {
        self.lines.iter().fold(String::new(), |mut text, line| {
            writeln!(text, "{line}").unwrap();
            text
        })
    }
}

async fn import(rig: &Rig, file: &Path) -> (bool, String) {
    let output = rig.command(&["registry", "import", file.to_str().unwrap()]).await;
    (output.status.success(), String::from_utf8([output.stdout, output.stderr].concat()).unwrap())
}

/// What an export has, but for what was there before.
async fn exported(rig: &Rig, name: &str) -> String {
    let path = rig.directory().join(name);
    let output = rig.command(&["registry", "export", path.to_str().unwrap()]).await;
    assert!(output.status.success(), "{output:?}");
    std::fs::read_to_string(path).unwrap()
}

async fn is_known(rig: &Rig, client: &str) -> bool {
    rig.app.registry.client(&ClientId::parse(client).unwrap()).await.is_ok()
}

/// Imports, while a client asks for one token after another: each is issued, and none is waited for long.
async fn import_beside_an_asker(engine: &Engine, rig: &Arc<Rig>, path: &Path) -> (bool, String) {
    let stop = Arc::new(AtomicBool::new(false));
    let asking = tokio::spawn({
        let (rig, stop) = (Arc::clone(rig), Arc::clone(&stop));
        async move {
            let clock = SystemClock::new();
            let (mut asked, mut slowest) = (0, Duration::ZERO);
            while !stop.load(Ordering::Relaxed) {
                let begun = clock.monotonic();
                let answer = rig.ask(&rig.world.a_dn).await;
                assert_eq!(answer.status, 200, "{answer}");
                slowest = slowest.max(clock.monotonic() - begun);
                asked += 1;
            }
            (asked, slowest)
        }
    });
    let outcome = import(rig, path).await;
    stop.store(true, Ordering::Relaxed);
    let (asked, slowest) = asking.await.unwrap();
    println!("{engine:?}: {asked} tokens during the import, the slowest after {slowest:?}");
    assert!(asked > 0 && slowest < Duration::from_secs(5), "{asked} {slowest:?}");
    outcome
}

/// Every request is answered with a token, and none waits long, from before the first line until after the last client of the
/// file has a token itself.
#[tokio::test(flavor = "multi_thread")]
async fn a_server_issues_tokens_throughout_an_import() {
    for engine in Engine::every() {
        let rig = Arc::new(Rig::on(&engine, Time::Machine).await);
        let file = File::of(4_000, rig.world.now);
        let path = rig.file("bulk.jsonl", &file.text());
        let last = Party { id: "bulk-3999", credential: file.last.clone(), ..rig.world.a_dn.clone() };
        // Asked for in vain, and remembered as nobody.
        assert_eq!(rig.ask(&last).await.status, 400);

        let (succeeded, told) = import_beside_an_asker(&engine, &rig, &path).await;
        assert!(succeeded && told.contains("4000 clients"), "{told}");
        let form = [
            ("grant_type", "client_credentials".to_owned()),
            ("client_id", last.id.to_owned()),
            ("resource", "https://bulk.example".to_owned()),
        ];
        let request = crate::world::form_request(&form);
        let mut answered = 0;
        for _ in 0..100 {
            let answer = rig.peer(&last.credential).ask(rig.address, &request).await.unwrap();
            answered = answer.status;
            if answered == 200 {
                break;
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        assert_eq!(answered, 200, "within ten seconds");
        Arc::into_inner(rig).unwrap().stop().await;
    }
}

/// The mistake is in the last line: all that was entered is removed again, and nobody is refused on its account.
#[tokio::test(flavor = "multi_thread")]
async fn a_server_issues_tokens_while_a_failed_import_is_removed() {
    for engine in Engine::every() {
        let rig = Arc::new(Rig::on(&engine, Time::Machine).await);
        let mut file = File::of(4_000, rig.world.now);
        file.lines.push(json!({ "revoked_key": {} }));
        let path = rig.file("bulk.jsonl", &file.text());
        let (succeeded, told) = import_beside_an_asker(&engine, &rig, &path).await;
        assert!(!succeeded && told.contains("nothing was imported"), "{told}");
        let mut connection = sqlx::AnyConnection::connect(rig.store.as_str()).await.unwrap();
        assert_eq!(entered(&mut connection).await, 0, "{told}");
        Arc::into_inner(rig).unwrap().stop().await;
    }
}

#[tokio::test]
async fn one_bad_line_in_the_middle_leaves_nothing() {
    for engine in Engine::every() {
        let rig = Rig::on(&engine, Time::Machine).await;
        let before = exported(&rig, "before.jsonl").await;
        let mut file = File::of(600, rig.world.now);
        file.lines[901]["certificate"]["der"] = "AAAA".into();
        let (succeeded, told) = import(&rig, &rig.file("bad.jsonl", &file.text())).await;
        assert!(!succeeded && told.contains("line 902: "), "{told}");
        assert!(told.contains("nothing was imported"), "{told}");
        let mut connection = sqlx::AnyConnection::connect(rig.store.as_str()).await.unwrap();
        assert_eq!(entered(&mut connection).await, 0, "{told}");
        assert_eq!(exported(&rig, "after.jsonl").await, before);
        // Repaired it is taken.
        let seen = rig.app.registry.version();
        let file = File::of(600, rig.world.now);
        let (succeeded, told) = import(&rig, &rig.file("good.jsonl", &file.text())).await;
        assert!(succeeded, "{told}");
        within(Duration::from_secs(10), "the import is seen", || rig.app.registry.version() > seen).await;
        assert!(is_known(&rig, "bulk-599").await);
        rig.stop().await;
    }
}

/// Each mistake is told with its line; what is missing only because of another one is not.
#[tokio::test]
async fn every_mistake_is_told_and_none_twice() {
    let rig = Rig::on(&Engine::Sqlite, Time::Machine).await;
    let mut file = File::of(30, rig.world.now);
    // One comes twice, one has no name, one is nobody's.
    file.lines.push(file.lines[3 + 5 * 3].clone());
    file.lines[3 + 10 * 3]["client"]["tls_client_auth_san_dns"] = Value::Null;
    file.lines[3 + 20 * 3]["client"]["participant_id"] = "nobody".into();
    let (succeeded, told) = import(&rig, &rig.file("bad.jsonl", &file.text())).await;
    assert!(!succeeded, "{told}");
    for line in [34, 64, 94] {
        assert!(told.contains(&format!("line {line}: ")), "{told}");
    }
    // Their certificates and entitlements lack nothing else.
    assert_eq!(told.matches("line ").count(), 3, "{told}");
    // A file of nothing but mistakes is given up after twenty.
    let nonsense = "{\"participant\":{}}\n".repeat(1_000);
    let (succeeded, told) = import(&rig, &rig.file("nonsense.jsonl", &nonsense)).await;
    assert!(!succeeded && told.contains("there may be more"), "{told}");
    assert_eq!(told.matches("line ").count(), 20, "{told}");
    let (succeeded, told) = import(&rig, &rig.file("empty.jsonl", "\n \n")).await;
    assert!(!succeeded && told.contains("no line"), "{told}");
    let endless = format!("{{\"participant\":\"{}\"}}", "x".repeat(300 * 1024));
    let (succeeded, told) = import(&rig, &rig.file("endless.jsonl", &endless)).await;
    assert!(!succeeded && told.contains("octets"), "{told}");
    rig.stop().await;
}

/// Clients of imports that are in the store, whether or not anybody sees them.
async fn entered(connection: &mut sqlx::AnyConnection) -> i64 {
    let entered = "SELECT COUNT(*) FROM client WHERE import_id <> 0";
    sqlx::query_scalar(entered).fetch_one(connection).await.unwrap()
}

/// Waits until so many clients are in the store that nobody sees.
async fn clients_are_entered(rig: &Rig, count: i64) {
    let mut connection = sqlx::AnyConnection::connect(rig.store.as_str()).await.unwrap();
    let waited = tokio::time::timeout(Duration::from_secs(60), async {
        loop {
            if entered(&mut connection).await >= count {
                return;
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    });
    waited.await.expect("clients are entered");
}

/// One that is broken off between two records would be imported without the keys that were revoked.
#[tokio::test]
async fn an_export_that_fails_leaves_no_file() {
    for engine in Engine::every() {
        let rig = Rig::on(&engine, Time::Machine).await;
        let mut connection = sqlx::AnyConnection::connect(rig.store.as_str()).await.unwrap();
        sqlx::query("UPDATE entitlement SET record = 'torn'").execute(&mut connection).await.unwrap();
        let path = rig.directory().join("torn.jsonl");
        let output = rig.command(&["registry", "export", path.to_str().unwrap()]).await;
        assert!(!output.status.success(), "{output:?}");
        let left = std::fs::read_dir(rig.directory()).unwrap().map(|entry| entry.unwrap().file_name());
        let torn: Vec<_> = left.filter(|name| name.to_string_lossy().contains("torn")).collect();
        assert!(torn.is_empty(), "{torn:?}");
        rig.stop().await;
    }
}

/// Killed at whatever moment: nothing is visible, and the next one is taken.
#[tokio::test]
async fn a_killed_import_leaves_nothing_visible() {
    for engine in Engine::every() {
        let rig = Rig::on(&engine, Time::Machine).await;
        let before = exported(&rig, "before.jsonl").await;
        let file = File::of(1_500, rig.world.now);
        let path = rig.file("bulk.jsonl", &file.text());
        for (round, entered) in [1, 300, 700, 1_000].into_iter().enumerate() {
            let mut import_command = rig.process(&["registry", "import", path.to_str().unwrap()]);
            let mut child = import_command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
            clients_are_entered(&rig, entered).await;
            child.kill().await.unwrap();
            assert_eq!(exported(&rig, &format!("after-{round}.jsonl")).await, before, "{engine:?} {round}");
            assert!(!is_known(&rig, "bulk-0").await);
            // Whoever comes while it may be alive is told so; then it counts as given up.
            let (succeeded, told) = import(&rig, &path).await;
            assert!(!succeeded && told.contains("is under way"), "{told}");
            let store = countersign::store::open(rig.store.as_str(), Migrate::Check).await.unwrap();
            let silent = store.import_under_way().await.unwrap();
            assert!(silent.is_some() && store.sweep_imports(silent).await.unwrap());
            store.close().await;
        }
        let (succeeded, told) = import(&rig, &path).await;
        assert!(succeeded, "{told}");
        rig.app.registry.catch_up().await.unwrap();
        assert!(is_known(&rig, "bulk-1499").await);
        rig.stop().await;
    }
}

/// The input of an import makes a pause: it is alive all the same, and goes on.
#[tokio::test]
async fn an_import_that_waits_for_lines_is_alive() {
    let rig = Rig::on(&Engine::Sqlite, Time::Machine).await;
    let mut import_command = rig.process(&["registry", "import", "-"]);
    let mut child = import_command.stdin(Stdio::piped()).stdout(Stdio::null()).spawn().unwrap();
    let store = countersign::store::open(rig.store.as_str(), Migrate::Check).await.unwrap();
    let signs = tokio::time::timeout(Duration::from_secs(60), async {
        let mut first = None;
        loop {
            let seen = store.import_under_way().await.unwrap();
            match (first, seen) {
                (Some(first), Some(later)) if first != later => return,
                _ => first = first.or(seen),
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    });
    signs.await.expect("a second sign of life");
    let mut input = child.stdin.take().unwrap();
    tokio::io::AsyncWriteExt::write_all(&mut input, File::of(1, rig.world.now).text().as_bytes()).await.unwrap();
    drop(input);
    assert!(child.wait().await.unwrap().success());
    store.close().await;
    rig.stop().await;
}
