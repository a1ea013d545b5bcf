//! A whole server in the test's process: its own store, its own signing keys, real listeners on port 0, everybody of
//! [`World`] enrolled through the registry's own operations.
//!
//! Takes an engine and a clock, gives addresses, peers, tokens and the audit log. It knows nothing of what is tested.

use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use countersign::app::{App, AppError};
use countersign::audit::AuditEntry;
use countersign::config::{Config, Issuer, NodeName, StoreUrl, TlsFiles};
use countersign::mint::key_directory::KeyDirectory;
use countersign::mint::key_encryption::EncryptionKeySource;
use countersign::mint::key_ring::KeyRing;
use countersign::pki::certificate::ParsedCertificate;
use countersign::pki::{anchor, identity};
use countersign::registry::certificate::{CertificateFacts, RevocationReason};
use countersign::registry::client::{
    Client, ClientAuthentication, ClientState, Enrolment, Environment, SubjectAttribute, SubjectRule,
};
use countersign::registry::edit::CertificateSelector;
use countersign::registry::entitlement::Entitlement;
use countersign::registry::history::{Actor, Explanation};
use countersign::registry::participant::{Contacts, Participant, ParticipantState};
use countersign::registry::resource_server::{ResourceServer, ResourceServerState, StatusClaim};
use countersign::registry::trust_anchor::{
    AnchorMaterial, AnchorOwner, AnchorState, EkuPolicy, NameSpace, RevocationSources, TrustAnchor, Unknown,
};
use countersign::registry::{
    AnchorId, ClientId, EntitlementId, ParticipantId, Registry, ResourceIndicator, ResourceServerId, Thumbprint,
};
use countersign::server::{self, Running};
use countersign::telemetry;
use countersign_conformance::JwsAlgorithm;
use countersign_conformance::pki::{Authority, Credential};
use countersign_resource_server::Guard;
use countersign_resource_server::scope::Scope;
use countersign_resource_server::time::{Clock, ManualClock, SystemClock, UnixTime};
use countersign_resource_server::token::jws::SigningAlgorithm;
use serde_json::{Value, json};
use tokio::sync::{OnceCell, oneshot};

use crate::wire::{Answer, Peer, Tls};
use crate::world::{ACCOUNTS, LEGACY, PAYMENTS, Party, VAULT, World, subject_text_of_a};

#[expect(unreachable_pub, reason = "the example is written to be read by itself")]
#[path = "../../resource-server/examples/guarded_api.rs"]
mod guarded_api;

/// Where the store is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Engine {
    /// A database of its own on this PostgreSQL.
    Postgres(String),
    /// A file in the rig's directory.
    Sqlite,
}

impl Engine {
    /// Every engine there is on this machine. Says which is left out, and why.
    pub(crate) fn every() -> Vec<Self> {
        match std::env::var("COUNTERSIGN_TEST_POSTGRES") {
            Ok(url) => vec![Self::Sqlite, Self::Postgres(url)],
            Err(_) => {
                println!("SKIPPED on PostgreSQL: COUNTERSIGN_TEST_POSTGRES names none (.ci/run starts one)");
                vec![Self::Sqlite]
            }
        }
    }

    /// The URL of a fresh database.
    pub(crate) async fn fresh(&self, directory: &Path) -> StoreUrl {
        match self {
            Self::Sqlite => StoreUrl::sqlite(&directory.join("countersign.db")),
            Self::Postgres(url) => {
                use sqlx::{Connection, Executor};
                let unique = countersign::audit::RequestId::random(SystemClock::new().now());
                let name = format!("countersign_it_{unique}");
                let mut connection = sqlx::PgConnection::connect(url).await.unwrap();
                connection.execute(sqlx::AssertSqlSafe(format!("CREATE DATABASE {name}"))).await.unwrap();
                let (base, query) = url.split_once('?').unwrap_or((url, ""));
                let base = base.rsplit_once('/').unwrap().0;
                StoreUrl::parse(&format!("{base}/{name}?{query}")).unwrap()
            }
        }
    }
}

/// Which time the server goes by.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Time {
    /// The machine's: for peers that have no other, and for how long something takes.
    Machine,
    /// It stands still until the test moves it.
    Standing,
}

/// A server under test.
#[derive(Debug)]
pub(crate) struct Rig {
    pub(crate) world: Arc<World>,
    pub(crate) app: Arc<App>,
    /// The clock of a rig whose time stands still; another one moves nothing.
    pub(crate) clock: Arc<ManualClock>,
    pub(crate) address: SocketAddr,
    pub(crate) operations: SocketAddr,
    pub(crate) store: StoreUrl,
    directory: tempfile::TempDir,
    running: Option<Running>,
}

impl Rig {
    /// On SQLite, time standing still.
    pub(crate) async fn start() -> Self {
        Self::on(&Engine::Sqlite, Time::Standing).await
    }

    /// On this engine, by this time.
    pub(crate) async fn on(engine: &Engine, time: Time) -> Self {
        Self::configured(engine, time, |_| {}).await
    }

    /// With the configuration changed.
    pub(crate) async fn configured(engine: &Engine, time: Time, change: impl FnOnce(&mut Config)) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let address = free_address();
        let issuer = format!("https://localhost:{}", address.port());
        let now = SystemClock::new().now();
        let world = Arc::new(World::new(now.as_seconds(), &issuer));

        let mut config = Config::embedded(directory.path());
        config.issuer = Issuer::parse(&issuer).unwrap();
        config.store = engine.fresh(directory.path()).await;
        config.listen = address;
        config.operations = (Ipv4Addr::LOCALHOST, 0).into();
        config.tls = TlsFiles {
            certificate: write(directory.path(), "server.pem", &world.server.chain_pem()),
            key: write(directory.path(), "server-key.pem", &world.server.key.to_pem()),
        };
        change(&mut config);

        let standing = Arc::new(ManualClock::at(UnixTime::from_seconds(now.as_seconds())));
        let clock: Arc<dyn Clock> = match time {
            Time::Machine => Arc::new(SystemClock::new()),
            Time::Standing => Arc::<ManualClock>::clone(&standing),
        };
        let store = config.store.clone();
        if config.key_encryption_key.is_none() {
            signing_keys(&config.keys_directory).await;
        }
        let app = opened(config, clock).await;
        enrol(&app.registry, &world).await;

        let running = server::serve(&app, telemetry::start_metrics()).await.unwrap();
        let addresses = running.addresses();
        Self {
            world,
            app,
            clock: standing,
            address: addresses.mtls,
            operations: addresses.operations,
            store,
            directory,
            running: Some(running),
        }
    }

    /// The command line, on this server's store.
    pub(crate) async fn command(&self, arguments: &[&str]) -> std::process::Output {
        self.process(arguments).output().await.unwrap()
    }

    /// The same, not begun yet.
    pub(crate) fn process(&self, arguments: &[&str]) -> tokio::process::Command {
        let mut command = tokio::process::Command::new(env!("CARGO_BIN_EXE_countersign"));
        if let Some(roots) = &self.app.config.fetch_roots {
            command.env("COUNTERSIGN_FETCH__ROOTS", roots);
        }
        if let Some(EncryptionKeySource::File(path)) = &self.app.config.key_encryption_key {
            command.env("COUNTERSIGN_KEY_ENCRYPTION_KEY", path);
        }
        command
            .args(arguments)
            .current_dir(self.directory.path())
            .env("COUNTERSIGN_DATA_DIRECTORY", self.directory.path())
            .env("COUNTERSIGN_STORE", self.store.as_str())
            .kill_on_drop(true);
        command
    }

    /// A peer with this credential on TLS 1.3 and HTTP/1.1.
    pub(crate) fn peer(&self, credential: &Credential) -> Peer {
        Peer::new(&self.world.server_authority.certificate, Some(credential))
    }

    /// A peer without a certificate.
    pub(crate) fn anonymous(&self) -> Peer {
        Peer::new(&self.world.server_authority.certificate, None)
    }

    /// A peer with this credential, version and protocol.
    pub(crate) fn peer_with(&self, credential: &Credential, tls: Tls, alpn: &[&[u8]]) -> Peer {
        Peer::with(&self.world.server_authority.certificate, Some(credential), tls, alpn)
    }

    /// `party` asks for a token for [`ACCOUNTS`], on a connection of its own.
    pub(crate) async fn ask(&self, party: &Party) -> Answer {
        self.peer(&party.credential).ask(self.address, &party.request()).await.unwrap()
    }

    /// Why and by whom a test changes something.
    pub(crate) fn explanation(&self) -> Explanation {
        explanation(UnixTime::from_seconds(self.world.now))
    }

    /// The newest record, after everything that waits is written.
    pub(crate) async fn last_record(&self) -> Value {
        self.records(1).await.pop().expect("a record")
    }

    /// The newest records, oldest first.
    pub(crate) async fn records(&self, limit: u32) -> Vec<Value> {
        self.entries(limit).await.iter().map(|entry| serde_json::from_str(&entry.body).unwrap()).collect()
    }

    /// The newest entries of the log about what was asked, oldest first: not what the rig itself changed, nor that chains
    /// were opened.
    pub(crate) async fn entries(&self, limit: u32) -> Vec<AuditEntry> {
        self.app.audit.flush().await;
        let wanted = usize::try_from(limit).unwrap();
        let is_asked = |entry: &AuditEntry| {
            // A command that ended something has looked up what died with it.
            let is_receipt = entry.body.contains("\"command\":\"receipt\"");
            !is_receipt
                && !["opened", "change"].iter().any(|kind| entry.body.starts_with(&format!("{{\"kind\":\"{kind}\"")))
        };
        let mut looked_at = limit + 8;
        loop {
            let all = self.app.audit.recent(looked_at).await.unwrap();
            let is_all = all.len() < usize::try_from(looked_at).unwrap();
            let mut asked: Vec<AuditEntry> = all.into_iter().filter(is_asked).take(wanted).collect();
            if is_all || asked.len() == wanted {
                asked.reverse();
                return asked;
            }
            looked_at *= 4;
        }
    }

    /// Writes a file into the rig's directory.
    pub(crate) fn file(&self, name: &str, content: &str) -> PathBuf {
        write(self.directory.path(), name, content)
    }

    /// Where its files are.
    pub(crate) fn directory(&self) -> &Path {
        self.directory.path()
    }

    /// The guarded API of the examples, believing this server, as [`ACCOUNTS`].
    pub(crate) async fn guarded_api(&self) -> GuardedApi {
        let (ready, told) = oneshot::channel();
        let (stop, stopped) = oneshot::channel::<()>();
        let settings = guarded_api::Settings {
            listen: (Ipv4Addr::LOCALHOST, 0).into(),
            issuer: self.world.issuer.clone(),
            resource: ACCOUNTS.to_owned(),
            certificate_pem: self.world.server.chain_pem().into_bytes(),
            key_pem: self.world.server.key.to_pem().into_bytes(),
            roots_pem: self.world.server_authority.to_pem().into_bytes(),
        };
        tokio::spawn(guarded_api::serve(settings, ready, async {
            // Dropped or told, the API stops either way.
            drop(stopped.await);
        }));
        let (address, guard) = told.await.expect("the guarded API starts");
        within(Duration::from_secs(10), "the guarded API has keys and a list", || guard.is_ready()).await;
        GuardedApi { address, _stop: stop }
    }

    /// Another node of the same cluster: the same store and keys, listeners of its own.
    pub(crate) async fn another_node(&self) -> Node {
        self.node_with(|_| {}).await
    }

    /// The same, with its configuration changed.
    pub(crate) async fn node_with(&self, change: impl FnOnce(&mut Config)) -> Node {
        let mut config = self.app.config.clone();
        config.node = NodeName::parse("another").unwrap();
        config.listen = (Ipv4Addr::LOCALHOST, 0).into();
        change(&mut config);
        let app = App::open(config, Arc::clone(&self.app.clock)).await.unwrap();
        let running = server::serve(&app, telemetry::start_metrics()).await.unwrap();
        let addresses = running.addresses();
        Node { address: addresses.mtls, operations: addresses.operations, app, running }
    }

    /// Stops the server in good order and starts it again on what it left behind.
    pub(crate) async fn restarted(self) -> Self {
        self.restarted_with(|_| {}).await
    }

    /// The same, with its configuration changed.
    pub(crate) async fn restarted_with(mut self, change: impl FnOnce(&mut Config)) -> Self {
        if let Some(running) = self.running.take() {
            running.stop(Duration::from_secs(1)).await;
        }
        self.app.close().await;
        let mut config = self.app.config.clone();
        config.listen = (Ipv4Addr::LOCALHOST, 0).into();
        change(&mut config);
        self.app = App::open(config, Arc::clone(&self.app.clock)).await.unwrap();
        let running = server::serve(&self.app, telemetry::start_metrics()).await.unwrap();
        (self.address, self.operations) = (running.addresses().mtls, running.addresses().operations);
        self.running = Some(running);
        self
    }

    /// Stops listening and writes what is left, to be started again.
    pub(crate) async fn go_down(&mut self) {
        if let Some(running) = self.running.take() {
            running.stop(Duration::from_secs(1)).await;
        }
        self.app.close().await;
    }

    /// Starts again where it was, on another store.
    pub(crate) async fn come_up_on(&mut self, store: StoreUrl) {
        let mut config = self.app.config.clone();
        config.listen = self.address;
        config.store = store.clone();
        self.store = store;
        self.app = App::open(config, Arc::clone(&self.app.clock)).await.unwrap();
        let running = server::serve(&self.app, telemetry::start_metrics()).await.unwrap();
        self.operations = running.addresses().operations;
        self.running = Some(running);
    }

    /// Stops listening and writes what is left.
    pub(crate) async fn stop(mut self) {
        if let Some(running) = self.running.take() {
            running.stop(Duration::from_secs(1)).await;
        }
        self.app.close().await;
    }
}

/// A second node beside the rig's own.
#[derive(Debug)]
pub(crate) struct Node {
    pub(crate) address: SocketAddr,
    pub(crate) operations: SocketAddr,
    pub(crate) app: Arc<App>,
    running: Running,
}

impl Node {
    /// Stops listening and writes what is left.
    pub(crate) async fn stop(self) {
        self.running.stop(Duration::from_secs(1)).await;
        self.app.close().await;
    }
}

/// The API of the examples, serving until dropped.
#[derive(Debug)]
pub(crate) struct GuardedApi {
    pub(crate) address: SocketAddr,
    _stop: oneshot::Sender<()>,
}

/// The routes of the examples' API behind this guard.
pub(crate) fn guarded_routes(guard: &Guard) -> axum::Router {
    guarded_api::routes(guard).unwrap()
}

/// Waits for something that others do in the background, looking every few milliseconds.
pub(crate) async fn within(patience: Duration, what: &str, mut done: impl FnMut() -> bool) {
    let waited = tokio::time::timeout(patience, async {
        while !done() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    });
    assert!(waited.await.is_ok(), "not within {patience:?}: {what}");
}

/// Gives a server the signing keys that this process made once: RSA keys take long to find.
pub(crate) async fn signing_keys(directory: &Path) {
    static MADE: OnceCell<tempfile::TempDir> = OnceCell::const_new();
    let make = async || {
        let directory = tempfile::tempdir().unwrap();
        let keys = KeyDirectory::open(&directory.path().join("keys")).unwrap();
        KeyRing::open(Arc::new(keys), SystemClock::new().now()).await.unwrap();
        directory
    };
    let made = MADE.get_or_init(make).await;
    KeyDirectory::open(directory).unwrap();
    for entry in std::fs::read_dir(made.path().join("keys")).unwrap() {
        let entry = entry.unwrap();
        // The mode comes along.
        std::fs::copy(entry.path(), directory.join(entry.file_name())).unwrap();
    }
}

fn free_address() -> SocketAddr {
    let listener = std::net::TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    listener.local_addr().unwrap()
}

/// Writes a file that only its owner may read.
pub(crate) fn write(directory: &Path, name: &str, content: &str) -> PathBuf {
    use std::os::unix::fs::PermissionsExt;
    let path = directory.join(name);
    std::fs::write(&path, content).unwrap();
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o600)).unwrap();
    path
}

pub(crate) fn explanation(at: UnixTime) -> Explanation {
    let actor = Actor::Operator { system_user: "test".to_owned(), stated_name: None };
    Explanation { actor, at, why: Some("an integration test".to_owned()) }
}

/// Enrols everybody.
pub(crate) async fn enrol(registry: &Registry, world: &World) {
    let enrolment = Enrolling { registry, world };
    for id in ["partner-a", "partner-b", "partner-c", "partner-d", "partner-f"] {
        enrolment.participant(id, ParticipantState::Active).await;
    }
    enrolment.participant("partner-e", ParticipantState::Pending).await;

    let of_a = NameSpace {
        any: false,
        dn_suffixes: vec!["O=Partner A,C=DE".to_owned()],
        dns_suffixes: vec!["partner-a.example".to_owned()],
        uri_prefixes: vec!["https://partner-a.example/".to_owned(), "spiffe://partner-a.example/".to_owned()],
    };
    let of_b = NameSpace {
        any: false,
        dn_suffixes: vec!["O=Partner B,C=FR".to_owned()],
        dns_suffixes: vec!["partner-b.example".to_owned()],
        uri_prefixes: Vec::new(),
    };
    let anything = NameSpace { any: true, ..NameSpace::default() };
    enrolment.anchor(&world.a_root, Some("partner-a"), &[("partner-a", of_a.clone())]).await;
    let retired = enrolment.anchor(&world.a_retired_root, Some("partner-a"), &[("partner-a", of_a)]).await;
    enrolment.anchor(&world.b_root, Some("partner-b"), &[("partner-b", of_b)]).await;
    enrolment.anchor(&world.c_root, Some("partner-c"), &[("partner-c", anything.clone())]).await;
    let shared = ["partner-d", "partner-e", "partner-f"].map(|participant| (participant, anything.clone()));
    enrolment.anchor(&world.d_root, None, &shared).await;

    for (id, resource, scopes) in [
        ("accounts", ACCOUNTS, "accounts:read accounts:write"),
        ("payments", PAYMENTS, "payments:initiate"),
        ("vault", VAULT, "vault:open"),
        ("legacy", LEGACY, "accounts:read"),
    ] {
        enrolment.resource_server(id, resource, scopes).await;
    }

    let dn = |id: &str| rule(SubjectAttribute::TlsClientAuthSubjectDn, &subject_text_of_a(id));
    for party in [
        &world.a_dn,
        &world.a_two,
        &world.a_suspended,
        &world.a_pending,
        &world.a_retired,
        &world.a_production,
        &world.a_unentitled,
        &world.a_ended,
        &world.a_not_started,
        &world.a_revoked,
        &world.a_superseded,
        &world.a_orphan,
        &world.a_required,
    ] {
        let mut client = tls_client(party, "partner-a", dn(party.id));
        match party.id {
            "a-pending" => client.state = ClientState::Pending,
            "a-production" => client.environment = Environment::Production,
            "a-required" => client.enrolment = Enrolment::Required,
            _ => {}
        }
        enrolment.client(client, Vec::new()).await;
    }
    for (party, attribute, value) in [
        (&world.a_dns, SubjectAttribute::TlsClientAuthSanDns, "client.partner-a.example"),
        (&world.a_uri, SubjectAttribute::TlsClientAuthSanUri, "https://partner-a.example/clients/one"),
        (&world.a_email, SubjectAttribute::TlsClientAuthSanEmail, "Client@partner-a.example"),
    ] {
        enrolment.client(tls_client(party, "partner-a", rule(attribute, value)), Vec::new()).await;
    }
    let b_dn = rule(SubjectAttribute::TlsClientAuthSubjectDn, "CN=b-dn,O=Partner B,C=FR");
    enrolment.client(tls_client(&world.b_dn, "partner-b", b_dn), Vec::new()).await;
    let c_ip = rule(SubjectAttribute::TlsClientAuthSanIp, "192.0.2.7");
    enrolment.client(tls_client(&world.c_ip, "partner-c", c_ip), Vec::new()).await;
    for (party, participant) in [(&world.d_dn, "partner-d"), (&world.e_dn, "partner-e"), (&world.f_dn, "partner-f")] {
        let subject = rule(SubjectAttribute::TlsClientAuthSubjectDn, &format!("CN={}", party.id));
        enrolment.client(tls_client(party, participant, subject), Vec::new()).await;
    }

    let jwks = world.a_self.credential.jwks();
    let mut own = tls_client(&world.a_self, "partner-a", dn("unused"));
    own.authentication = ClientAuthentication::SelfSignedTlsClientAuth { jwks };
    own.enrolment = Enrolment::Required;
    enrolment.client(own, vec![facts(&world.a_self.credential)]).await;
    for party in [&world.a_jwt, &world.a_jwt_eddsa, &world.a_jwt_ps256] {
        let (algorithm, key) = party.signs.as_ref().unwrap();
        let signing_alg = match algorithm {
            JwsAlgorithm::EdDsa => SigningAlgorithm::EdDSA,
            JwsAlgorithm::Ps256 => SigningAlgorithm::PS256,
            _ => SigningAlgorithm::ES256,
        };
        let mut jwk = key.jwk();
        jwk["kid"] = key.jwk_thumbprint().into();
        let subject = rule(SubjectAttribute::TlsClientAuthSanDns, &format!("{}.partner-a.example", party.id));
        let mut client = tls_client(party, "partner-a", dn("unused"));
        client.authentication = ClientAuthentication::PrivateKeyJwt {
            jwks: json!({ "keys": [jwk] }).to_string(),
            signing_alg,
            subject: Some(subject),
        };
        client.access_token_signing_alg = signing_alg;
        enrolment.client(client, Vec::new()).await;
    }

    for party in [&world.a_required, &world.a_revoked, &world.a_superseded] {
        enrolment.certificate(party).await;
    }
    enrolment.entitlements().await;
    enrolment.states(&retired).await;
}

/// Enters records, each by the operation that an operator would use.
pub(crate) struct Enrolling<'a> {
    pub(crate) registry: &'a Registry,
    pub(crate) world: &'a World,
}

impl Enrolling<'_> {
    fn at(&self) -> UnixTime {
        UnixTime::from_seconds(self.world.now)
    }

    fn explanation(&self) -> Explanation {
        explanation(self.at())
    }

    pub(crate) async fn participant(&self, id: &str, state: ParticipantState) {
        let participant = Participant {
            id: ParticipantId::parse(id).unwrap(),
            legal_name: format!("{id} Ltd"),
            registration_number: None,
            country: None,
            roles: vec!["data_consumer".to_owned()],
            contacts: Contacts::default(),
            state,
        };
        self.registry.add_participant(participant, self.explanation()).await.unwrap();
    }

    pub(crate) async fn anchor(
        &self,
        authority: &Authority,
        owner: Option<&str>,
        grants: &[(&str, NameSpace)],
    ) -> AnchorId {
        let facts = anchor::check_anchor(&authority.certificate, self.at()).unwrap();
        let owner =
            owner.map_or(AnchorOwner::Operator, |id| AnchorOwner::Participant(ParticipantId::parse(id).unwrap()));
        let anchor = TrustAnchor {
            id: facts.id.clone(),
            material: AnchorMaterial::X509 { certificate_der: authority.certificate.clone() },
            subject: facts.subject,
            owner,
            eku_policy: EkuPolicy::Required,
            unknown_revocation: Unknown::Accept,
            revocation: RevocationSources::default(),
            state: AnchorState::Active,
        };
        self.registry.add_anchor(anchor, facts.subject_der, self.explanation()).await.unwrap();
        for (participant, name_space) in grants {
            let participant = ParticipantId::parse(participant).unwrap();
            let name_space = identity::name_space(name_space).unwrap();
            self.registry.grant_anchor(participant, facts.id.clone(), name_space, self.explanation()).await.unwrap();
        }
        facts.id
    }

    async fn resource_server(&self, id: &str, resource: &str, scopes: &str) {
        let resource_server = resource_server(id, resource, scopes);
        self.registry.add_resource_server(resource_server, self.explanation()).await.unwrap();
    }

    pub(crate) async fn client(&self, client: Client, certificates: Vec<CertificateFacts>) {
        self.registry.add_client(client, certificates, self.explanation()).await.unwrap();
    }

    pub(crate) async fn certificate(&self, party: &Party) {
        let client = ClientId::parse(party.id).unwrap();
        self.registry.add_certificate(client, facts(&party.credential), self.explanation()).await.unwrap();
    }

    async fn entitlements(&self) {
        let at = self.at();
        let day = Duration::from_secs(86_400);
        let world = self.world;
        for party in [
            &world.a_dn,
            &world.a_dns,
            &world.a_uri,
            &world.a_email,
            &world.a_self,
            &world.a_jwt,
            &world.a_jwt_eddsa,
            &world.a_jwt_ps256,
            &world.a_required,
            &world.a_two,
            &world.a_suspended,
            &world.a_pending,
            &world.a_retired,
            &world.a_production,
            &world.a_revoked,
            &world.a_superseded,
            &world.a_orphan,
            &world.b_dn,
            &world.c_ip,
            &world.d_dn,
            &world.e_dn,
            &world.f_dn,
        ] {
            self.entitle(party, "accounts", "accounts:read", at.before(day), None).await;
        }
        self.entitle(&world.a_two, "payments", "payments:initiate", at.before(day), None).await;
        self.entitle(&world.a_dn, "legacy", "accounts:read", at.before(day), None).await;
        self.entitle(&world.a_ended, "accounts", "accounts:read", at.before(2 * day), Some(at)).await;
        self.entitle(&world.a_not_started, "accounts", "accounts:read", at.after(day), None).await;
    }

    pub(crate) async fn entitle(
        &self,
        party: &Party,
        to: &str,
        scopes: &str,
        starts_at: UnixTime,
        ends_at: Option<UnixTime>,
    ) {
        let entitlement = entitlement(party.id, to, scopes, starts_at, ends_at);
        self.registry.add_entitlement(entitlement, self.explanation()).await.unwrap();
    }

    /// What ends last, once everything is in place.
    async fn states(&self, retired: &AnchorId) {
        let registry = self.registry;
        for (id, to) in [("a-suspended", ClientState::Suspended), ("a-retired", ClientState::Retired)] {
            registry.set_client_state(ClientId::parse(id).unwrap(), to, self.explanation()).await.unwrap();
        }
        for (id, to) in [("partner-d", ParticipantState::Suspended), ("partner-f", ParticipantState::Withdrawn)] {
            registry.set_participant_state(ParticipantId::parse(id).unwrap(), to, self.explanation()).await.unwrap();
        }
        registry.retire_anchor(retired.clone(), self.explanation()).await.unwrap();
        registry.retire_resource_server(ResourceServerId::parse("legacy").unwrap(), self.explanation()).await.unwrap();
        let revoked = CertificateSelector::Thumbprint(thumbprint(&self.world.a_revoked.credential));
        registry.revoke_certificate(revoked, RevocationReason::KeyCompromise, self.explanation()).await.unwrap();
        let superseded = thumbprint(&self.world.a_superseded.credential);
        registry.supersede_certificate(superseded, self.at(), self.explanation()).await.unwrap();
    }
}

/// The thumbprint as the registry has it.
pub(crate) fn thumbprint(credential: &Credential) -> Thumbprint {
    Thumbprint::of(credential.certificate())
}

/// What an operator enrols of a certificate.
pub(crate) fn facts(credential: &Credential) -> CertificateFacts {
    ParsedCertificate::read(credential.certificate()).unwrap().for_enrolment()
}

/// The server, as whoever supervises it would have it: begun again where a PostgreSQL database, just made and beside all the
/// others', takes longer than its time-outs allow.
async fn opened(config: Config, clock: Arc<dyn Clock>) -> Arc<App> {
    let mut last = None;
    for _ in 0..10 {
        match App::open(config.clone(), Arc::clone(&clock)).await {
            Err(error @ AppError::Store(_)) if config.store.as_str().starts_with("postgres") => {
                println!("begun again: {error}");
                last = Some(error);
            }
            opened => return opened.unwrap(),
        }
    }
    panic!("the database does not answer: {last:?}")
}

/// A subject rule as an operator writes it.
pub(crate) fn rule(attribute: SubjectAttribute, value: &str) -> SubjectRule {
    identity::subject_rule(attribute, value).unwrap()
}

/// A client that authenticates by its certificate's name.
pub(crate) fn tls_client(party: &Party, participant: &str, subject: SubjectRule) -> Client {
    client_of(party.id, participant, ClientAuthentication::TlsClientAuth { subject })
}

/// A client of the sandbox that enrols on first use.
pub(crate) fn client_of(id: &str, participant: &str, authentication: ClientAuthentication) -> Client {
    Client {
        id: ClientId::parse(id).unwrap(),
        participant_id: ParticipantId::parse(participant).unwrap(),
        environment: Environment::Sandbox,
        contact: None,
        authentication,
        access_token_signing_alg: SigningAlgorithm::ES256,
        access_token_lifetime_seconds: None,
        enrolment: Enrolment::OnFirstUse,
        renewal_overlap_seconds: None,
        requests_per_second: None,
        software_id: None,
        state: ClientState::Active,
    }
}

/// A resource server that is nobody's own.
pub(crate) fn resource_server(id: &str, resource: &str, scopes: &str) -> ResourceServer {
    ResourceServer {
        id: ResourceServerId::parse(id).unwrap(),
        resource: ResourceIndicator::parse(resource).unwrap(),
        scopes: Scope::parse(scopes).unwrap(),
        owner: None,
        access_token_lifetime_seconds: None,
        subject: None,
        status: StatusClaim::Absent,
        certificates: Vec::new(),
        introspection_signed_response_alg: SigningAlgorithm::ES256,
        state: ResourceServerState::Active,
    }
}

/// What this client may at this resource server.
pub(crate) fn entitlement(
    client: &str,
    to: &str,
    scopes: &str,
    starts_at: UnixTime,
    ends_at: Option<UnixTime>,
) -> Entitlement {
    Entitlement {
        id: EntitlementId::parse(&format!("{}-{to}", client.replace([':', '/'], "_"))).unwrap(),
        client_id: ClientId::parse(client).unwrap(),
        resource_server_id: ResourceServerId::parse(to).unwrap(),
        scopes: Scope::parse(scopes).unwrap(),
        starts_at,
        ends_at,
        reason: "an integration test".to_owned(),
        ended_at: None,
    }
}
