//! What a command that ends something says died with it: every token that was issued and lives, and no other; and which
//! resource servers have taken that in.
//!
//! `COUNTERSIGN_TEST_LIVE_TOKENS` is how many tokens live where there are many: a few thousand unless asked for. `COUNTERSIGN_TEST_BINARY`
//! is another build of the program to measure with them.

use std::collections::BTreeSet;

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use countersign::registry::{ResourceServerId, Thumbprint};
use countersign_conformance::KeyKind;
use countersign_conformance::pki::{Credential, Name, Template};
use countersign_resource_server::Guard;
use serde_json::{Value, json};
use sqlx::{AnyConnection, Connection};
use tokio::io::copy_bidirectional;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::time::Instant;

use crate::rig::{Engine, Rig, Time, thumbprint, within};
use crate::token;
use crate::wire::Request;
use crate::world::{ACCOUNTS, PAYMENTS, Party};

async fn jti(rig: &Rig, party: &Party) -> String {
    let token = rig.ask(party).await.token();
    token::read(rig, &token).await.claims["jti"].as_str().unwrap().to_owned()
}

/// All that a command tells.
async fn told(rig: &Rig, arguments: &[&str]) -> Value {
    let output = rig.command(&[&["--json"], arguments].concat()).await;
    assert!(output.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
    serde_json::from_slice(&output.stdout).unwrap()
}

/// What died, by the command's own words, how many were dead already, and where.
async fn ended(rig: &Rig, arguments: &[&str]) -> (BTreeSet<String>, u64, Value) {
    let told = told(rig, arguments).await;
    let ended = &told["ended"];
    let jtis: BTreeSet<String> =
        ended["jtis"].as_array().unwrap().iter().map(|jti| jti.as_str().unwrap().to_owned()).collect();
    assert_eq!(ended["tokens"].as_u64().unwrap(), u64::try_from(jtis.len()).unwrap());
    assert_eq!(ended["complete"], true);
    (jtis, ended["dead_already"].as_u64().unwrap(), ended["resource_servers"].clone())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_command_that_ends_something_says_what_died() {
    for engine in Engine::every() {
        let rig = Rig::on(&engine, Time::Machine).await;
        let world = &rig.world;
        let set = |jtis: &[&String]| jtis.iter().map(|jti| (*jti).clone()).collect::<BTreeSet<String>>();
        let dn = [jti(&rig, &world.a_dn).await, jti(&rig, &world.a_dn).await, jti(&rig, &world.a_dn).await];
        let two = jti(&rig, &world.a_two).await;
        let dns = jti(&rig, &world.a_dns).await;
        let of_b = jti(&rig, &world.b_dn).await;
        let uri = jti(&rig, &world.a_uri).await;
        // A refusal is no token.
        assert_eq!(rig.ask(&world.a_suspended).await.status, 400);

        let (died, before, servers) = ended(&rig, &["client", "suspend", "a-dn"]).await;
        assert_eq!((died, before), (set(&[&dn[0], &dn[1], &dn[2]]), 0), "{engine:?}");
        assert_eq!(servers, serde_json::json!({ ACCOUNTS: 3 }));
        let two_thumbprint = thumbprint(&world.a_two.credential).to_string();
        for (reason, expected) in [("superseded", (set(&[&two]), 0)), ("key-compromise", (set(&[]), 1))] {
            let (died, before, _) = ended(&rig, &["certificate", "revoke", &two_thumbprint, "--reason", reason]).await;
            assert_eq!((died, before), expected, "{engine:?} {reason}");
        }
        let listed = rig.command(&["--json", "entitlement", "list", "--client", "a-uri"]).await;
        let listed: Value = serde_json::from_slice(&listed.stdout).unwrap();
        let entitlement = listed[0]["id"].as_str().unwrap().to_owned();
        let (died, ..) = ended(&rig, &["entitlement", "end", &entitlement]).await;
        assert_eq!(died, set(&[&uri]), "{engine:?}");
        let (died, ..) = ended(&rig, &["participant", "suspend", "partner-b"]).await;
        assert_eq!(died, set(&[&of_b]), "{engine:?}");
        // Five of its six have died one by one.
        let (died, before, _) = ended(&rig, &["participant", "suspend", "partner-a"]).await;
        assert_eq!((died, before), (set(&[&dns]), 5), "{engine:?}");
        let (died, before, servers) = ended(&rig, &["client", "suspend", "c-ip"]).await;
        assert_eq!((died.len(), before, servers), (0, 0, json!({})), "{engine:?}");

        let said = rig.command(&["client", "retire", "a-dn"]).await;
        let said = String::from_utf8(said.stdout).unwrap();
        assert!(said.contains("No token died with it") && said.contains("3 more were dead already"), "{said}");
        let readings = rig.command(&["--json", "audit", "query", "--kind", "reading"]).await;
        assert!(String::from_utf8(readings.stdout).unwrap().contains("\"receipt\""), "a look-up is on record");
        rig.stop().await;
    }
}

/// What the retirement of an anchor, an API, a key of a client and a key of the server's own ended.
#[tokio::test(flavor = "multi_thread")]
async fn whatever_ends_tokens_says_what_died() {
    for engine in Engine::every() {
        let rig = Rig::on(&engine, Time::Machine).await;
        let world = &rig.world;
        let (dns, of_b) = (jti(&rig, &world.a_dns).await, jti(&rig, &world.b_dn).await);
        let (uri, of_c) = (jti(&rig, &world.a_uri).await, jti(&rig, &world.c_ip).await);
        let set = |jtis: &[&String]| jtis.iter().map(|jti| (*jti).clone()).collect::<BTreeSet<String>>();

        let issuers = told(&rig, &["anchor", "list"]).await;
        let issuer = issuers.as_array().unwrap().iter().find(|one| one["owner"]["participant"] == "partner-b");
        let anchor = issuer.unwrap_or_else(|| panic!("{issuers}"))["id"].as_str().unwrap().to_owned();
        let (died, before, servers) = ended(&rig, &["anchor", "retire", &anchor]).await;
        assert_eq!((died, before, servers), (set(&[&of_b]), 0, json!({ ACCOUNTS: 1 })), "{engine:?}");

        let pem = rig.file("a-uri.pem", &world.a_uri.credential.chain_pem());
        let (died, ..) = ended(&rig, &["certificate", "revoke-key", pem.to_str().unwrap()]).await;
        assert_eq!(died, set(&[&uri]), "{engine:?}");

        let kid = token::read(&rig, &rig.ask(&world.a_dns).await.token()).await.header["kid"].clone();
        let is_signed_by = |compact: &str| {
            let header =
                compact.split('.').next().and_then(|header| URL_SAFE_NO_PAD.decode(header).ok()).unwrap_or_default();
            serde_json::from_slice::<serde_json::Value>(&header).is_ok_and(|header| header["kid"] == kid)
        };
        let (died, before, _) = ended(&rig, &["key", "retire", kid.as_str().unwrap(), "--now"]).await;
        assert_eq!((died.contains(&dns), died.contains(&of_c), died.len(), before), (true, true, 3, 2), "{engine:?}");

        within(Duration::from_secs(10), "another key signs", || !is_signed_by(&rig.app.status.current().compact)).await;
        let (died, before, servers) = ended(&rig, &["resource-server", "retire", "accounts"]).await;
        assert_eq!((died.len(), before, servers), (0, 5, json!({})), "{engine:?}");
        rig.stop().await;
    }
}

/// Takes connections for a server, and holds back the first of them once it is told to, without a word to either side.
struct Line {
    taken: Arc<AtomicUsize>,
    /// How many of them.
    held_back: watch::Sender<usize>,
}

impl Line {
    async fn between(here: SocketAddr, there: SocketAddr) -> Self {
        let listener = TcpListener::bind(here).await.unwrap();
        let (held_back, told) = watch::channel(0);
        let taken = Arc::new(AtomicUsize::new(0));
        let count = Arc::clone(&taken);
        tokio::spawn(async move {
            while let Ok((mut near, _)) = listener.accept().await {
                let number = count.fetch_add(1, Ordering::SeqCst);
                let mut told = told.clone();
                tokio::spawn(async move {
                    let Ok(mut far) = TcpStream::connect(there).await else { return };
                    let held_back = async { drop(told.wait_for(|held_back| number < *held_back).await) };
                    tokio::select! {
                        _ = copy_bidirectional(&mut near, &mut far) => {}
                        () = held_back => std::future::pending().await,
                    }
                });
            }
        });
        Self { taken, held_back }
    }
}

fn own_certificate(rig: &Rig, name: &str) -> Credential {
    Credential::self_signed(&Template::client(Name::common(name), rig.world.now), KeyKind::P256)
}

async fn enrol(rig: &Rig, id: &str, certificates: Vec<Thumbprint>) {
    let id = ResourceServerId::parse(id).unwrap();
    let mut record = rig.app.registry.resource_server(&id).await.unwrap().unwrap();
    record.certificates = certificates;
    rig.app.registry.change_resource_server(record, rig.explanation()).await.unwrap();
}

/// An API's guard that follows the list; with a certificate of its own, or without.
async fn guard(rig: &Rig, resource: &str, credential: Option<&Credential>) -> Guard {
    let roots = rig.world.server_authority.to_pem();
    let mut builder = Guard::builder(rig.world.issuer.clone(), resource).roots_pem(roots.as_bytes()).unwrap();
    if let Some(own) = credential {
        let (chain, key) = (own.chain_pem(), own.key.to_pem());
        builder = builder.client_certificate_pem(chain.as_bytes(), key.as_bytes()).unwrap();
    }
    let guard = builder.start().unwrap();
    within(Duration::from_secs(10), "the guard has keys and a list", || guard.is_ready()).await;
    guard
}

/// The names of those that have not.
fn behind(list: &Value) -> Vec<&str> {
    list["behind"].as_array().unwrap().iter().map(|one| one["id"].as_str().unwrap()).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_command_says_who_has_taken_it_in() {
    for engine in Engine::every() {
        let rig = Rig::configured(&engine, Time::Machine, |config| config.listen.set_port(0)).await;
        let issuer: SocketAddr = rig.world.issuer.replace("https://localhost", "127.0.0.1").parse().unwrap();
        let line = Line::between(issuer, rig.address).await;
        let (accounts, payments) = (own_certificate(&rig, "accounts"), own_certificate(&rig, "payments"));
        enrol(&rig, "accounts", vec![thumbprint(&accounts)]).await;
        enrol(&rig, "payments", vec![thumbprint(&payments)]).await;
        let first = guard(&rig, ACCOUNTS, Some(&accounts)).await;
        let cut_off = line.taken.load(Ordering::SeqCst);
        assert!(cut_off > 0);
        let _second = guard(&rig, PAYMENTS, Some(&payments)).await;
        let stranger = own_certificate(&rig, "a stranger");
        let _others = [
            guard(&rig, ACCOUNTS, None).await,
            guard(&rig, ACCOUNTS, Some(&stranger)).await,
            guard(&rig, ACCOUNTS, Some(&rig.world.a_two.credential)).await,
        ];
        jti(&rig, &rig.world.a_dn).await;

        let told = self::told(&rig, &["client", "suspend", "a-dns"]).await;
        let list = &told["revocation_list"];
        assert_eq!((&list["taken"], &list["resource_servers"]), (&json!(2), &json!(2)), "{engine:?}: {list}");
        assert_eq!((&list["nodes"], &list["others"]), (&json!(1), &json!(3)), "{engine:?}: {list}");
        assert_eq!((behind(list).len(), &list["unheard"]), (0, &json!([])), "{list}");
        assert!(list["waited_milliseconds"].as_u64().unwrap() < 2_000, "{list}");
        let held = rig.app.status.current();
        assert_eq!(list["registry_version"], held.number);
        assert_eq!(first.revocations().version(), Some((held.epoch, held.number)), "it is told once it is so");

        // One of them hears nothing any more, and does not know it.
        line.held_back.send_replace(cut_off);
        let said = rig.command(&["client", "suspend", "a-dn"]).await;
        assert!(said.status.success());
        let said = String::from_utf8(said.stdout).unwrap();
        for part in ["1 of 2 resource servers that name themselves", "Not yet: accounts (last heard of ", "3 more ask"]
        {
            assert!(said.contains(part), "{part}: {said}");
        }
        // A resource server that is none any more is not waited for, and its certificate speaks for nobody.
        let told = self::told(&rig, &["resource-server", "retire", "payments"]).await;
        let list = &told["revocation_list"];
        assert_eq!((&list["taken"], &list["resource_servers"]), (&json!(0), &json!(1)), "{engine:?}: {list}");
        assert_eq!((behind(list), &list["others"]), (vec!["accounts"], &json!(4)), "{list}");
        rig.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_api_of_which_nobody_has_heard_is_named() {
    let rig = Rig::on(&Engine::Sqlite, Time::Machine).await;
    let issued = jti(&rig, &rig.world.a_dn).await;
    let told = self::told(&rig, &["client", "suspend", "a-dn"]).await;
    assert_eq!(told["ended"]["jtis"], json!([issued]));
    let list = &told["revocation_list"];
    assert_eq!((&list["resource_servers"], &list["unheard"]), (&json!(0), &json!([ACCOUNTS])), "{list}");
    rig.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn where_nobody_serves_nobody_is_waited_for() {
    for engine in Engine::every() {
        let mut rig = Rig::on(&engine, Time::Machine).await;
        rig.go_down().await;
        let told = self::told(&rig, &["client", "suspend", "a-dn"]).await;
        let list = &told["revocation_list"];
        assert_eq!(list["nodes"], 0, "{engine:?}: {list}");
        assert!(list["waited_milliseconds"].as_u64().unwrap() < 1_000, "{list}");
        let said = rig.command(&["client", "suspend", "a-dns"]).await;
        assert!(String::from_utf8(said.stdout).unwrap().contains("No server hands out the revocation list"));
    }
}

/// It is known of every node who has taken its list, and two that hand it out are asked.
#[tokio::test(flavor = "multi_thread")]
async fn an_api_that_is_behind_at_one_node_is_behind() {
    for engine in Engine::every() {
        let rig = Rig::on(&engine, Time::Machine).await;
        let node = rig.another_node().await;
        let own = own_certificate(&rig, "accounts");
        enrol(&rig, "accounts", vec![thumbprint(&own)]).await;
        let held = rig.app.status.current();
        let question = |number: i64| Request::get(&format!("/revocations?epoch={}&number={number}", held.epoch));
        let mut connection = rig.peer(&own).connect(node.address).await.unwrap();
        assert_eq!(connection.ask(&question(held.number)).await.unwrap().status, 200);
        let told = self::told(&rig, &["client", "suspend", "a-dn"]).await;
        let list = &told["revocation_list"];
        assert_eq!((&list["nodes"], behind(list)), (&json!(2), vec!["accounts"]), "{engine:?}: {list}");
        // One that is ahead of every list there is has not taken this one, whatever it says.
        assert_eq!(connection.ask(&question(i64::MAX)).await.unwrap().status, 200);
        let told = self::told(&rig, &["client", "suspend", "a-dns"]).await;
        assert_eq!(behind(&told["revocation_list"]), ["accounts"], "{engine:?}");
        node.stop().await;
        rig.stop().await;
    }
}

/// Puts `count` more records of the token in the log, alike but for their `jti`, twenty to a millisecond. The server is down: the
/// chain is its own.
async fn multiply(rig: &Rig, engine: &Engine, jti: &str, count: usize) {
    sqlx::any::install_default_drivers();
    let mut store = AnyConnection::connect(rig.store.as_str()).await.unwrap();
    let (numbers, number, octets) = match engine {
        Engine::Sqlite => (
            format!("WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < {count})"),
            "printf('%08x', i)",
            "randomblob(32)",
        ),
        Engine::Postgres(_) => (
            format!("WITH n AS (SELECT i FROM generate_series(1, {count}) AS i)"),
            "lpad(to_hex(i), 8, '0')",
            "decode(md5(i::text) || md5(i::text), 'hex')",
        ),
    };
    let copied = format!(
        "{numbers} INSERT INTO audit_record (position, at, hash, body) \
         SELECT (SELECT MAX(position) FROM audit_record) + i, at - ({count} - i) / 20, {octets}, \
             replace(body, '{jti}', '{}' || {number}) \
         FROM n, (SELECT at, body FROM audit_record WHERE body LIKE '%\"outcome\":\"issued\"%{jti}%') AS issued",
        &jti[..20]
    );
    sqlx::query(sqlx::AssertSqlSafe(copied)).execute(&mut store).await.unwrap();
    store.close().await.unwrap();
}

/// The most memory that a process has had at once, in kB.
fn peak_memory(pid: u32) -> Option<u64> {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    status.lines().find_map(|line| line.strip_prefix("VmHWM:")?.trim().strip_suffix(" kB")?.parse().ok())
}

#[tokio::test(flavor = "multi_thread")]
async fn very_many_tokens_are_held_by_nobody() {
    let count = std::env::var("COUNTERSIGN_TEST_LIVE_TOKENS").map_or(4_100, |count| count.parse().expect("a number"));
    for engine in Engine::every() {
        let mut rig = Rig::on(&engine, Time::Machine).await;
        let one = jti(&rig, &rig.world.a_dn).await;
        rig.go_down().await;
        multiply(&rig, &engine, &one, count).await;
        // The index is kept by whoever serves, most of the time.
        assert!(rig.command(&["audit", "query", "--jti", &one]).await.status.success());
        for (arguments, is_json) in [
            (["--json", "participant", "suspend", "partner-a"].as_slice(), true),
            (&["client", "suspend", "a-dn"], false),
        ] {
            let out = rig.directory().join("out");
            let binary = std::env::var("COUNTERSIGN_TEST_BINARY");
            let mut command =
                tokio::process::Command::new(binary.as_deref().unwrap_or(env!("CARGO_BIN_EXE_countersign")));
            command
                .args(arguments)
                .current_dir(rig.directory())
                .env("COUNTERSIGN_DATA_DIRECTORY", rig.directory())
                .env("COUNTERSIGN_STORE", rig.store.as_str())
                .stdout(std::fs::File::create(&out).unwrap())
                .kill_on_drop(true);
            let began = Instant::now();
            let mut child = command.spawn().unwrap();
            let (pid, mut peak) = (child.id().unwrap(), 0);
            let status = loop {
                peak = peak.max(peak_memory(pid).unwrap_or(0));
                if let Some(status) = child.try_wait().unwrap() {
                    break status;
                }
                tokio::time::sleep(Duration::from_millis(5)).await;
            };
            println!("{engine:?}, {count} live tokens, {arguments:?}: {:.1?}, {} MB", began.elapsed(), peak / 1_000);
            assert!(status.success());
            let said = std::fs::read_to_string(&out).unwrap();
            if is_json {
                let told: Value = serde_json::from_str(&said).unwrap();
                let ended = &told["ended"];
                assert_eq!((&ended["tokens"], &ended["dead_already"]), (&json!(count + 1), &json!(0)), "{engine:?}");
                let jtis: BTreeSet<&str> = ended["jtis"].as_array().unwrap().iter().filter_map(Value::as_str).collect();
                assert_eq!((jtis.len(), jtis.contains(one.as_str())), (count + 1, true), "{engine:?}");
                assert!(rig.command(&["participant", "reinstate", "partner-a"]).await.status.success());
            } else {
                // They have died with the participant, and a reinstatement revives none.
                assert!(said.contains(&format!("{} more were dead already", count + 1)), "{said}");
            }
        }
    }
}
