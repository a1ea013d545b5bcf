//! Several nodes on one PostgreSQL, with nothing between them but that: keys, changes, and one that is cut off.

use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use countersign::app::App;
use countersign::config::{Config, StoreUrl};
use countersign::mint::key_encryption::{EncryptionKeySource, Existing, make_encryption_key};
use countersign::mint::key_ring::{self, When};
use countersign::mint::shared_keys::SharedKeys;
use countersign::registry::ClientId;
use countersign::registry::client::ClientState;
use countersign::store::{self, Migrate};
use countersign_resource_server::time::Clock;
use countersign_resource_server::token::jws::SigningAlgorithm;
use serde_json::Value;
use sqlx::{Connection, Executor};
use tempfile::TempDir;
use tokio::sync::watch;
use tokio::time::{sleep, timeout};

use crate::crash::site::readiness;
use crate::relay::{Network, Relay};
use crate::rig::{Engine, Node, Rig, Time, within};
use crate::token;
use crate::wire::{Answer, Request};

/// Design §2: a change is in force on every node within this time.
const PROMISED: Duration = Duration::from_secs(1);

/// Design §4, and issue 6: a node without its database says so within two seconds. What the machine takes beside that.
const ANSWERED: Duration = Duration::from_millis(2_500);

/// Issue 6: and it is back within this time after the database is.
const BACK: Duration = Duration::from_secs(5);

const PATIENCE: Duration = Duration::from_secs(10);

/// A node, another one with directories of its own, and the network between that one and the database.
struct Nodes {
    rig: Rig,
    other: Node,
    relay: Relay,
    _directory: TempDir,
}

/// A key-encryption key of a server's own.
pub(crate) fn encrypted(config: &mut Config) {
    let path = config.data_directory.join("kek");
    make_encryption_key(&path, Existing::Refuse).unwrap();
    config.key_encryption_key = Some(EncryptionKeySource::File(path));
}

impl Nodes {
    /// None where there is no PostgreSQL.
    async fn start(time: Time) -> Option<Self> {
        Self::configured(time, |_, _| {}).await
    }

    /// The same, with the other node's configuration changed; it has a directory of its own.
    async fn configured(time: Time, change: impl FnOnce(&mut Config, &Path)) -> Option<Self> {
        let engine = Engine::every().into_iter().find(|engine| *engine != Engine::Sqlite)?;
        let rig = Rig::configured(&engine, time, encrypted).await;
        let relay = Relay::to(&rig.store).await;
        let directory = tempfile::tempdir().unwrap();
        let store = relay.url(&rig.store);
        let other = rig
            .node_with(|config| {
                elsewhere(config, &directory, store);
                change(config, directory.path());
            })
            .await;
        Some(Self { rig, other, relay, _directory: directory })
    }

    async fn jwks(&self) -> [Value; 2] {
        let of = async |address| self.rig.anonymous().ask(address, &Request::get("/jwks")).await.unwrap().json();
        [of(self.rig.address).await, of(self.other.address).await]
    }

    async fn ask_other(&self) -> Answer {
        let party = &self.rig.world.a_dn;
        self.rig.peer(&party.credential).ask(self.other.address, &party.request()).await.unwrap()
    }

    /// Until the other node issues a token.
    async fn token_of_other(&self) -> String {
        loop {
            let answer = self.ask_other().await;
            if answer.status == 200 {
                return answer.token();
            }
            assert_eq!((answer.status, answer.error().as_str()), (503, "temporarily_unavailable"), "{answer}");
            sleep(Duration::from_millis(20)).await;
        }
    }

    async fn done(&self, arguments: &[&str]) {
        let output = self.rig.command(arguments).await;
        assert!(output.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
    }

    async fn stop(self) {
        self.other.stop().await;
        self.rig.stop().await;
    }
}

/// Nothing of this node is the other's but the database and the key-encryption key.
fn elsewhere(config: &mut Config, directory: &TempDir, store: StoreUrl) {
    config.data_directory = directory.path().to_owned();
    config.keys_directory = directory.path().join("keys");
    config.operations = (std::net::Ipv4Addr::LOCALHOST, 0).into();
    config.store = store;
}

/// By which key a token is signed.
pub(crate) fn kid(compact: &str) -> String {
    let header = URL_SAFE_NO_PAD.decode(compact.split('.').next().unwrap()).unwrap();
    serde_json::from_slice::<Value>(&header).unwrap()["kid"].as_str().unwrap().to_owned()
}

fn signing(app: &App) -> String {
    let signer = app.mint.keys().current();
    signer.signing(SigningAlgorithm::ES256, app.clock.now()).unwrap().kid().to_string()
}

/// What a command does to the keys, by the clock of the test.
async fn keys(rig: &Rig) -> SharedKeys {
    let store = store::open(rig.store.as_str(), Migrate::Check).await.unwrap();
    SharedKeys::new(Arc::new(store), rig.app.config.key_encryption_key.clone().unwrap()).unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn all_nodes_publish_and_sign_with_the_same_keys() {
    let Some(nodes) = Nodes::start(Time::Machine).await else { return };
    let [one, other] = nodes.jwks().await;
    assert_eq!((one.clone(), one["keys"].as_array().unwrap().len()), (other, 6));
    assert!(!nodes.other.app.config.keys_directory.exists() && !nodes.rig.app.config.keys_directory.exists());
    let of_one = nodes.rig.ask(&nodes.rig.world.a_dn).await.token();
    let of_other = nodes.token_of_other().await;
    assert_eq!(kid(&of_one), kid(&of_other));
    token::read(&nodes.rig, &of_other).await;

    // Scheduled by a command: the key that comes after it is published by both.
    nodes.done(&["key", "rotate", "--alg", "ES256"]).await;
    let is_published = |app: &App| app.mint.keys().current().all().len() == 7;
    within(PROMISED, "both have the next key", || {
        [&nodes.rig.app, &nodes.other.app].into_iter().all(|app| is_published(app))
    })
    .await;
    let [one, other] = nodes.jwks().await;
    assert_eq!((one["keys"].as_array().unwrap().len(), &one), (7, &other));

    // Withdrawn by a command: neither signs with it or publishes it.
    let gone = kid(&of_one);
    nodes.done(&["key", "retire", "--now", &gone]).await;
    within(PROMISED, "neither has it", || {
        [&nodes.rig.app, &nodes.other.app].into_iter().all(|app| signing(app) != gone)
    })
    .await;
    let [one, other] = nodes.jwks().await;
    assert_eq!(one, other);
    assert!(!one.to_string().contains(&gone));
    let new = nodes.rig.ask(&nodes.rig.world.a_dn).await.token();
    assert_eq!(kid(&new), kid(&nodes.token_of_other().await));
    assert_ne!(kid(&new), gone);
    nodes.stop().await;
}

/// The poll is what is left where no notification comes.
#[tokio::test(flavor = "multi_thread")]
async fn a_change_whose_notification_is_lost_is_in_force_on_every_node_all_the_same() {
    let Some(nodes) = Nodes::start(Time::Machine).await else { return };
    let client = ClientId::parse("a-dn").unwrap();
    let mut connection = sqlx::PgConnection::connect(nodes.rig.store.as_str()).await.unwrap();
    // Whoever connects from here on tells nobody anything: a function of that name is found first.
    connection
        .execute(
            "CREATE SCHEMA mute; \
             CREATE FUNCTION mute.pg_notify(text, text) RETURNS void LANGUAGE sql AS 'SELECT NULL::void'; \
             DO $$ BEGIN EXECUTE format('ALTER DATABASE %I SET search_path = public, mute, pg_catalog', current_database()); END $$",
        )
        .await
        .unwrap();
    nodes.done(&["client", "suspend", "a-dn", "--why", "unpaid"]).await;
    in_force(&nodes, 400).await;
    nodes.done(&["client", "reinstate", "a-dn", "--why", "paid"]).await;
    in_force(&nodes, 200).await;

    // The connections on which the others listen are gone in that very moment.
    for (state, status) in [(ClientState::Suspended, 400), (ClientState::Active, 200)] {
        connection
            .execute(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity \
                 WHERE datname = current_database() AND query ILIKE 'LISTEN %'",
            )
            .await
            .unwrap();
        nodes.rig.app.registry.set_client_state(client.clone(), state, nodes.rig.explanation()).await.unwrap();
        in_force(&nodes, status).await;
    }
    nodes.stop().await;
}

async fn in_force(nodes: &Nodes, status: u16) {
    let noticed = timeout(PROMISED, async {
        while nodes.ask_other().await.status != status {
            sleep(Duration::from_millis(5)).await;
        }
    });
    assert!(noticed.await.is_ok(), "not {status} within {PROMISED:?}");
    let version = || [nodes.rig.app.registry.version(), nodes.other.app.registry.version()];
    within(PROMISED, "both know of the same change", || version()[0] == version()[1]).await;
}

/// A client asks the other node on several connections, at once again, while it is suspended and let in again on this one: what
/// it asks for after the suspension is there is refused, and no token of before comes later than within the second.
#[tokio::test(flavor = "multi_thread")]
async fn a_suspension_on_one_node_ends_what_the_other_gives_under_load() {
    const CONNECTIONS: usize = 4;
    let Some(nodes) = Nodes::start(Time::Machine).await else { return };
    let (party, clock) = (nodes.rig.world.a_dn.clone(), Arc::clone(&nodes.rig.app.clock));
    let client = ClientId::parse(party.id).unwrap();
    let set = |state| nodes.rig.app.registry.set_client_state(client.clone(), state, nodes.rig.explanation());
    let (at_work, _) = watch::channel(true);
    let answers: Arc<Mutex<Vec<(Duration, Duration, u16)>>> = Arc::default();
    let mut callers = Vec::new();
    for _ in 0..CONNECTIONS {
        let mut connection = nodes.rig.peer(&party.credential).connect(nodes.other.address).await.unwrap();
        let (request, clock) = (party.request(), Arc::clone(&clock));
        let (answers, at_work) = (Arc::clone(&answers), at_work.subscribe());
        callers.push(tokio::spawn(async move {
            while *at_work.borrow() {
                let asked = clock.monotonic();
                let status = connection.ask(&request).await.unwrap().status;
                answers.lock().unwrap().push((asked, clock.monotonic(), status));
            }
        }));
    }
    for _ in 0..10 {
        within(PATIENCE, "the client has tokens", || answers.lock().unwrap().iter().any(|answer| answer.2 == 200))
            .await;
        set(ClientState::Suspended).await.unwrap();
        let told = clock.monotonic();
        let since = || answers.lock().unwrap().iter().filter(|(asked, ..)| *asked > told).count();
        within(PATIENCE, "everybody has asked again", || since() >= 4 * CONNECTIONS).await;
        for (asked, answered, status) in answers.lock().unwrap().drain(..) {
            // 503 where the machine is too busy to put it on record in time: no token either.
            assert!([200, 400, 503].contains(&status), "{status}");
            assert!(
                status != 200 || asked <= told,
                "a token that was asked for {:?} after the suspension",
                asked - told
            );
            assert!(status != 200 || answered <= told + PROMISED, "a token {:?} after it", answered - told);
        }
        set(ClientState::Active).await.unwrap();
    }
    at_work.send_replace(false);
    for caller in callers {
        caller.await.unwrap();
    }
    nodes.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_whose_connections_break_says_so_and_comes_back() {
    cut_off(Network::Broken).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_that_hears_nothing_any_more_says_so_and_comes_back() {
    cut_off(Network::Silent).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_whose_connections_are_forgotten_says_so_and_comes_back() {
    cut_off(Network::Forgetful).await;
}

/// All connections with which it reads are in use when they are forgotten: each of them waits for an answer that never comes.
#[tokio::test(flavor = "multi_thread")]
async fn a_node_whose_connections_are_forgotten_in_use_comes_back() {
    let Some(nodes) = Nodes::start(Time::Machine).await else { return };
    nodes.token_of_other().await;
    let mut blocking = sqlx::PgConnection::connect(nodes.rig.store.as_str()).await.unwrap();
    let mut looking = sqlx::PgConnection::connect(nodes.rig.store.as_str()).await.unwrap();
    blocking.execute("BEGIN; LOCK TABLE registry_state IN ACCESS EXCLUSIVE MODE").await.unwrap();
    let world = &nodes.rig.world;
    // Of clients that it has not in memory.
    let asking = [&world.a_dns, &world.a_uri, &world.a_self, &world.b_dn, &world.a_email, &world.c_ip].map(|party| {
        let (peer, request, address) = (nodes.rig.peer(&party.credential), party.request(), nodes.other.address);
        tokio::spawn(async move { peer.ask(address, &request).await.unwrap().status })
    });
    let waiting =
        "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'";
    let waited = timeout(PATIENCE, async {
        while sqlx::query_scalar::<_, i64>(waiting).fetch_one(&mut looking).await.unwrap() < 6 {
            sleep(Duration::from_millis(5)).await;
        }
    });
    assert!(waited.await.is_ok(), "nobody waits");
    nodes.relay.set(Network::Forgetful);
    blocking.execute("ROLLBACK").await.unwrap();
    for asked in asking {
        assert_eq!(asked.await.unwrap(), 503);
    }
    nodes.relay.set(Network::Open);
    // Ten seconds may pass for connections that are forgotten, and more on a machine in use.
    timeout(3 * PATIENCE, nodes.token_of_other()).await.expect("it issues tokens again");
    nodes.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_whose_connections_are_forgotten_in_use_goes_on_sending_its_log() {
    let sink = |config: &mut Config, directory: &Path| config.audit_export.file = Some(directory.join("audit.jsonl"));
    let Some(nodes) = Nodes::configured(Time::Machine, sink).await else { return };
    let forwarding = nodes.other.app.forward_audit().unwrap();
    let path = nodes.other.app.config.audit_export.file.clone().unwrap();
    // What the first node gave, which has its database all the time.
    let sent = async || {
        let answer = nodes.rig.ask(&nodes.rig.world.a_dn).await;
        let id = answer.header("x-request-id").unwrap().to_owned();
        let there = async {
            while !std::fs::read_to_string(&path).unwrap_or_default().contains(&id) {
                sleep(Duration::from_millis(20)).await;
            }
        };
        timeout(3 * PATIENCE, there).await
    };
    sent().await.expect("the log is sent");
    let mut blocking = sqlx::PgConnection::connect(nodes.rig.store.as_str()).await.unwrap();
    let mut looking = sqlx::PgConnection::connect(nodes.rig.store.as_str()).await.unwrap();
    blocking.execute("BEGIN; LOCK TABLE audit_forward IN ACCESS EXCLUSIVE MODE").await.unwrap();
    nodes.rig.ask(&nodes.rig.world.a_dn).await;
    let waiting =
        "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'";
    let waited = timeout(PATIENCE, async {
        while sqlx::query_scalar::<_, i64>(waiting).fetch_one(&mut looking).await.unwrap() < 1 {
            sleep(Duration::from_millis(5)).await;
        }
    });
    assert!(waited.await.is_ok(), "nobody waits");
    nodes.relay.set(Network::Forgetful);
    blocking.execute("ROLLBACK").await.unwrap();
    assert_eq!(nodes.ask_other().await.status, 503, "everything is forgotten");
    nodes.relay.set(Network::Open);
    sent().await.expect("the log is sent again");
    forwarding.stop().await;
    nodes.stop().await;
}

async fn cut_off(network: Network) {
    let Some(nodes) = Nodes::start(Time::Machine).await else { return };
    let (party, clock) = (nodes.rig.world.a_dn.clone(), &nodes.rig.app.clock);
    let mut connection = nodes.rig.peer(&party.credential).connect(nodes.other.address).await.unwrap();
    let mut tokens = vec![connection.ask(&party.request()).await.unwrap().token()];
    let [before, _] = nodes.jwks().await;
    let anonymous = nodes.rig.anonymous();
    for _ in 0..2 {
        nodes.relay.set(network);
        let cut = clock.now();
        for _ in 0..3 {
            let asked = clock.monotonic();
            let answer = timeout(PATIENCE, connection.ask(&party.request())).await.expect("it answers").unwrap();
            let took = clock.monotonic() - asked;
            assert_eq!((answer.status, answer.error().as_str()), (503, "temporarily_unavailable"), "{answer}");
            assert!(took <= ANSWERED, "answered after {took:?}");
        }
        // What needs no database goes on.
        for path in ["/.well-known/oauth-authorization-server", "/jwks"] {
            assert_eq!(anonymous.ask(nodes.other.address, &Request::get(path)).await.unwrap().status, 200, "{path}");
        }
        assert_eq!(nodes.jwks().await[1], before);
        let list = anonymous.ask(nodes.other.address, &Request::get("/revocations")).await.unwrap();
        assert_eq!(list.status, 200);
        let signed = nodes.other.app.status.current().signed_at;
        assert!(signed <= cut.after(Duration::from_secs(1)), "its age shows: {signed} of a list held since {cut}");
        within_reach(&nodes, Some(503)).await;
        // The node that has its database is not concerned.
        assert_eq!(nodes.rig.ask(&party).await.status, 200);

        let returned = clock.monotonic();
        nodes.relay.set(Network::Open);
        tokens.push(timeout(PATIENCE, nodes.token_of_other()).await.expect("it issues tokens again"));
        let took = clock.monotonic() - returned;
        // Each connection that is forgotten has to be found out: on an idle machine that takes four of the five seconds.
        let promised = if network == Network::Forgetful { PATIENCE } else { BACK };
        assert!(took <= promised, "back after {took:?}");
        println!("{network:?}: back after {took:?}");
        within_reach(&nodes, Some(200)).await;
    }
    nodes.other.app.audit.flush().await;
    let records = nodes.rig.records(500).await;
    for compact in &tokens {
        let claims = token::read(&nodes.rig, compact).await.claims;
        assert!(records.iter().any(|record| record["token"]["jti"] == claims["jti"]), "a token without its record");
    }
    nodes.stop().await;
}

async fn within_reach(nodes: &Nodes, status: Option<u16>) {
    let waited = timeout(PATIENCE, async {
        while readiness(nodes.other.operations).await != status {
            sleep(Duration::from_millis(20)).await;
        }
    });
    assert!(waited.await.is_ok(), "/readyz does not become {status:?}");
}

/// Cut off for longer than a key is published before it signs: meanwhile a key it has never heard of signs, and one that it has was
/// withdrawn. It reads that before it signs anything; so does a node that is started in that moment.
#[tokio::test(flavor = "multi_thread")]
async fn a_node_that_missed_rotations_reads_the_keys_before_it_signs() {
    for network in [Network::Broken, Network::Silent] {
        let Some(nodes) = Nodes::start(Time::Standing).await else { return };
        let first = kid(&nodes.token_of_other().await);
        nodes.relay.set(network);
        assert_eq!(nodes.ask_other().await.status, 503);
        let (shared, clock) = (keys(&nodes.rig).await, &nodes.rig.clock);
        for _ in 0..2 {
            clock.advance(Duration::from_secs(601));
            key_ring::rotate(&shared, &[SigningAlgorithm::ES256], When::Now, clock.now()).await.unwrap();
        }
        key_ring::retire(&shared, &first, clock.now()).await.unwrap();
        let is_read = || {
            let keys = nodes.rig.app.mint.keys().current();
            keys.all().iter().any(|key| key.record.kid == first && key.record.retired_at.is_some())
        };
        within(PATIENCE, "the node that reads its keys has them", is_read).await;
        let newest = signing(&nodes.rig.app);
        assert!(nodes.jwks().await[1]["keys"].as_array().unwrap().iter().all(|key| key["kid"] != newest.as_str()));

        let directory = tempfile::tempdir().unwrap();
        let store = nodes.rig.store.clone();
        let started = nodes.rig.node_with(|config| elsewhere(config, &directory, store)).await;
        assert_eq!(signing(&started.app), newest);
        let published = |app: &App| app.mint.keys().published(clock.now()).body.clone();
        assert_eq!(published(&started.app), published(&nodes.rig.app));

        nodes.relay.set(Network::Open);
        let token = timeout(PATIENCE, nodes.token_of_other()).await.expect("it issues tokens again");
        assert_eq!(kid(&token), newest);
        assert_eq!(published(&nodes.other.app), published(&nodes.rig.app));
        assert!(!published(&nodes.other.app).contains(&first));
        started.stop().await;
        nodes.stop().await;
    }
}
