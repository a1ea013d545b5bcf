//! Everything wired together.
//!
//! Takes a [`Config`] and a clock, gives an [`App`]: the one place that knows which back end runs. It decides nothing.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use countersign_resource_server::time::Clock;
use futures_util::future::BoxFuture;
use tokio::task::JoinHandle;

use crate::audit::checkpoint::{CheckpointLimits, Checkpoints};
use crate::audit::forward::{FileSink, ForwardLimits, ForwardStore, Forwarding, OtlpSink, Sink, SyslogSink};
use crate::audit::{self, AuditLimits, AuditLog};
use crate::backup::{BackupStore, Standing};
use crate::client_auth;
use crate::config::Config;
use crate::expiry::{Watch, WatchSettings};
use crate::explanation::Basis;
use crate::fetch::Fetcher;
use crate::followers::Followers;
use crate::followers::store::FollowerStore;
use crate::mint::Mint;
use crate::mint::key_directory::KeyDirectory;
use crate::mint::key_encryption::NoEncryptionKey;
use crate::mint::key_ring::{KeyRing, KeyRingError, KeyStore, KeyStoreError};
use crate::mint::shared_keys::{SealedKeyStore, SharedKeys};
use crate::pki::crl::HeldLists;
use crate::pki::crl::keeper::{self, Keeper};
use crate::pki::ocsp::{self, Responders};
use crate::pki::{self, PresentedChain, bundle};
use crate::policy::Lifetime;
use crate::presented_token::OwnTokens;
use crate::rates::Rates;
use crate::registry::{MemorySize, Registry, StoreUnavailable, import};
use crate::status::{ListUnavailable, RevocationList};
use crate::status_list::StatusLists;
use crate::store::{self, Durability, Migrate, OpenError, Store, Weakness};
use crate::tls::{self, Announcement, ClientFilesError, Dialer, HandshakeObserver, PerimeterGuard, RefusedHandshake};

/// How many names of one certificate a strict perimeter looks up, the subject first: each is a query, and strangers ask.
const MOST_NAMES: usize = 32;

/// How often a running server looks whether its signing keys have changed.
const KEYS_WATCHED_EVERY: Duration = Duration::from_millis(500);

/// A running server, but for its listeners.
#[derive(Debug)]
pub struct App {
    /// What the operator wants.
    pub config: Config,
    /// What time it is.
    pub clock: Arc<dyn Clock>,
    /// The book of participants.
    pub registry: Arc<Registry>,
    /// Is this certificate good now?
    pub pki: pki::Verifier,
    /// Writes tokens down and signs them.
    pub mint: Mint,
    /// What happened.
    pub audit: AuditLog,
    /// How far its chains are, signed.
    pub checkpoints: Arc<Checkpoints>,
    /// Which issued tokens are dead.
    pub status: Arc<RevocationList>,
    /// Reads tokens of its own that others show.
    pub own_tokens: OwnTokens,
    /// Who has taken that in.
    pub followers: Arc<Followers>,
    /// The same as Token Status Lists.
    pub status_lists: Arc<StatusLists>,
    /// Whatever others publish comes through it.
    pub fetcher: Fetcher,
    /// What runs out soon. Watched by a node that serves ([`App::watch_expiry`]).
    pub expiry: Arc<Watch>,
    /// How many requests anybody may make.
    pub rates: Rates,
    keys_of_clients: client_auth::RegisteredKeys,
    store: Store,
    background: Vec<JoinHandle<()>>,
}

/// Why a server cannot start.
#[derive(Debug, thiserror::Error)]
pub enum AppError {
    /// The database cannot be used.
    #[error(transparent)]
    Open(#[from] OpenError),
    /// The database does not answer.
    #[error(transparent)]
    Store(#[from] StoreUnavailable),
    /// It was restored, and is not all there, or not confirmed.
    #[error("{0}")]
    Restored(&'static str),
    /// A fail-over could lose what was acknowledged, and the configuration forbids that.
    #[error(
        "require_synchronous is true, and a fail-over of this database can lose an acknowledged change: {0} (docs/postgresql.md)"
    )]
    NotSynchronous(Weakness),
    /// The signing keys cannot be read.
    #[error(transparent)]
    Keys(#[from] KeyStoreError),
    /// The signing keys cannot be used.
    #[error(transparent)]
    KeyRing(#[from] KeyRingError),
    /// The key that encrypts them is not there.
    #[error("key_encryption_key: {0}")]
    NoEncryptionKey(#[from] NoEncryptionKey),
    /// They are in the store, and nobody is told by what they are encrypted.
    #[error(
        "the signing keys are in the store, encrypted by key-encryption key {0}: configure key_encryption_key (docs/signing-keys.md)"
    )]
    KeysEncrypted(String),
    /// They are in the directory, and are to be in the store.
    #[error(
        "key_encryption_key is configured, and the signing keys are still in {}: `countersign key move-to-store` takes them into the store, so that tokens stay valid; or move that directory away to begin with new keys", .0.display()
    )]
    KeysNotMoved(PathBuf),
    /// The revocation list cannot be drawn up.
    #[error(transparent)]
    List(#[from] ListUnavailable),
    /// The files of a place where the audit log is sent cannot be used.
    #[error("{key}: {problem}")]
    AuditExport {
        /// The table of the configuration.
        key: &'static str,
        /// What is wrong with them.
        problem: ClientFilesError,
    },
    /// The certificate authorities of `fetch.roots` cannot be used.
    #[error("{path}: {problem}")]
    FetchRoots {
        /// The file.
        path: String,
        /// What is wrong with it.
        problem: String,
    },
}

impl App {
    /// Opens what `config` names, creating or migrating the schema and making signing keys where they are missing, and
    /// begins to watch all of it for changes.
    ///
    /// # Errors
    /// [`AppError`]; then nothing runs.
    pub async fn open(config: Config, clock: Arc<dyn Clock>) -> Result<Arc<Self>, AppError> {
        let fetcher = fetcher(&config)?;
        let store = open_store(&config).await?;
        let registry = Registry::new(Arc::new(store.clone()), MemorySize::default(), config.node.as_str()).await?;
        let keys = KeyRing::open(key_store(&config, &store).await?, clock.now()).await?;
        keys.follow(Arc::clone(&clock)).await?;
        let keys = Arc::new(keys);
        // Before any list is drawn up: after a restore the first lease says how long the marks of before last.
        let audit = AuditLog::open(
            Arc::new(store.clone()),
            Arc::<Registry>::clone(&registry),
            config.node.as_str(),
            Arc::clone(&clock),
            AuditLimits::default(),
        )
        .await?;
        registry.learn_served_from().await?;
        let issuer = config.issuer.as_str();
        let status =
            RevocationList::open(issuer, Arc::<Registry>::clone(&registry), Arc::clone(&keys), Arc::clone(&clock))
                .await?;
        let status = Arc::new(status);
        let status_lists = StatusLists::open(
            issuer,
            Arc::new(store.clone()),
            Arc::<Registry>::clone(&registry),
            Arc::clone(&keys),
            Arc::clone(&clock),
        )
        .await?;
        let status_lists = Arc::new(status_lists);
        let checkpoints = Arc::new(Checkpoints::new(
            Arc::new(store.clone()),
            Mint::new(issuer, Arc::clone(&keys)),
            Arc::clone(&clock),
            &config.data_directory,
            CheckpointLimits::default(),
        ));
        let expiry = Watch::new(
            Arc::clone(&registry),
            Arc::new(store.clone()),
            Mint::new(issuer, Arc::clone(&keys)),
            WatchSettings { every: config.expiry.every, notice_days: config.expiry.notice_days.clone() },
            Arc::new(fetcher.clone()),
        );
        let lists = Arc::new(HeldLists::default());
        expiry.also(Arc::<HeldLists>::clone(&lists));
        let (keeper, keeping) = Keeper::open(keeper::Setup {
            registry: Arc::clone(&registry),
            fetcher: fetcher.clone(),
            clock: Arc::clone(&clock),
            lists: Arc::clone(&lists),
            directory: lists_directory(&config),
            longest_bytes: config.crl_bytes,
        })
        .await?;
        let bundles = bundle::refresh::keep(&registry, fetcher.clone(), Arc::clone(&clock), config.node.as_str());
        let responders = Arc::new(Responders::new(fetcher.clone(), Arc::clone(&clock)));
        let consequences = Arc::new(ocsp::OnRecord::new(Arc::clone(&registry), Arc::clone(&clock)));
        let followers = Arc::new(Followers::new(Arc::clone(&clock)));
        let mut background = vec![
            keeping,
            bundles,
            responders.keep_current(consequences),
            registry.keep_current(),
            keys.watch(KEYS_WATCHED_EVERY, registry.subscribe()),
            status.keep_fresh(),
            followers.keep(Arc::new(store.clone()), &status, &registry),
            status_lists.keep_fresh(),
            checkpoints.keep(),
            audit::index::keep(Arc::new(store.clone())),
            import::keep_swept(Arc::new(store.clone())),
        ];
        background.extend(store.keep_carried_over());
        let own_tokens = OwnTokens::new(issuer, Arc::clone(&keys));
        Ok(Arc::new(Self {
            pki: pki::Verifier::with_lists(lists).kept_by(keeper).asking(responders),
            mint: Mint::new(issuer, keys),
            rates: Rates::new(&config.limits, Arc::clone(&clock)),
            keys_of_clients: client_auth::RegisteredKeys::new(),
            own_tokens,
            config,
            clock,
            registry,
            audit,
            checkpoints,
            status,
            followers,
            status_lists,
            fetcher,
            expiry: Arc::new(expiry),
            store,
            background,
        }))
    }

    /// What client authentication rests on, and what counts the request.
    pub fn authentication(&self) -> client_auth::Context<'_> {
        client_auth::Context {
            issuer: self.config.issuer.as_str(),
            registry: &self.registry,
            keys: &self.keys_of_clients,
            rates: Some(&self.rates),
        }
    }

    /// What an explanation rests on.
    pub fn explanation(&self) -> Basis<'_> {
        Basis {
            registry: &self.registry,
            pki: &self.pki,
            keys: &self.keys_of_clients,
            environment: self.config.environment,
        }
    }

    /// How long tokens live where no record says less.
    pub fn lifetime(&self) -> Lifetime {
        Lifetime { default: self.config.access_token_lifetime }
    }

    /// Begins to watch what runs out, until the task is aborted: for a node that serves, not for a command that opens the
    /// same registry for a moment.
    pub fn watch_expiry(&self) -> JoinHandle<()> {
        self.expiry.keep(Arc::clone(&self.clock))
    }

    /// Begins to send the audit log to where the configuration says, until it is stopped: for a node that serves.
    ///
    /// # Errors
    /// [`AppError::AuditExport`].
    pub fn forward_audit(&self) -> Result<Forwarding, AppError> {
        let store: Arc<dyn ForwardStore> = Arc::new(self.store.clone());
        let sinks = audit_sinks(&self.config, &self.clock)?;
        Ok(Forwarding::begin(&store, sinks, self.config.node.as_str(), &self.clock, ForwardLimits::default()))
    }

    /// Writes what is left of the audit log and closes the store. For the end of the process, when no request is left.
    pub async fn close(&self) {
        for task in &self.background {
            task.abort();
        }
        // First what matters most.
        self.audit.close().await;
        self.checkpoints.close().await;
        if let Err(error) = self.registry.flush_seen().await {
            tracing::warn!(%error, "when certificates were last seen is not on record");
        }
        // Commands wait for a node that may only have fallen silent, not for one that has said good-bye.
        if let Err(error) = self.store.forget_followers(self.followers.id()).await {
            tracing::warn!(%error, "that this node hands out no list any more is not on record");
        }
        self.store.close().await;
    }
}

/// Where the server writes down the revocation lists that it holds.
pub fn lists_directory(config: &Config) -> PathBuf {
    config.data_directory.join("crls")
}

/// Opens the store, brings its schema up to date, and says plainly whether a fail-over can lose what it acknowledges. Not while it is
/// being restored.
///
/// # Errors
/// [`AppError::Open`], [`AppError::Store`], [`AppError::Restored`], [`AppError::NotSynchronous`].
pub async fn open_store(config: &Config) -> Result<Store, AppError> {
    let store = store::open_with(config.store.as_str(), Migrate::Apply, config.standby()).await?;
    match store.standing().await? {
        Standing::Served => {}
        Standing::Loading => return Err(AppError::Restored(Standing::HALF_FILLED)),
        Standing::Unconfirmed(_) => return Err(AppError::Restored(Standing::NOT_CONFIRMED)),
    }
    match store.durability().await? {
        Durability::Embedded => Ok(store),
        Durability::Synchronous(standbys) => {
            tracing::info!(%standbys, "every acknowledged change is on a standby's disk as well");
            Ok(store)
        }
        Durability::Primary(weakness) if config.require_synchronous => Err(AppError::NotSynchronous(weakness)),
        Durability::Primary(weakness) => {
            tracing::warn!(
                %weakness,
                "a fail-over of this database can lose acknowledged changes, revocations among them, and records: see docs/postgresql.md"
            );
            Ok(store)
        }
    }
}

/// Where the signing keys are: in the store, if a key-encryption key is configured, else in the directory. They are never in two
/// places: a node that made keys of its own beside those of the others would sign what nobody else knows.
///
/// # Errors
/// [`AppError::NoEncryptionKey`], [`AppError::KeysEncrypted`], [`AppError::KeysNotMoved`], [`AppError::Keys`],
/// [`AppError::Store`].
pub async fn key_store(config: &Config, store: &Store) -> Result<Arc<dyn KeyStore>, AppError> {
    let held = store.sealed_keys().await?;
    let Some(source) = &config.key_encryption_key else {
        if let Some(ring) = held.ring {
            return Err(AppError::KeysEncrypted(ring.encrypted_by));
        }
        if store.is_shared() {
            tracing::warn!(
                keys_directory = %config.keys_directory.display(),
                "the signing keys are this node's own: another node on this database needs the same directory, or all of them a key_encryption_key (docs/signing-keys.md)"
            );
        }
        return Ok(Arc::new(KeyDirectory::open(&config.keys_directory)?));
    };
    if held.ring.is_none() && KeyDirectory::has_keys(&config.keys_directory) {
        return Err(AppError::KeysNotMoved(config.keys_directory.clone()));
    }
    Ok(Arc::new(SharedKeys::new(Arc::new(store.clone()), source.clone())?))
}

/// What the server fetches with, believing over HTTPS whom `config` says.
///
/// # Errors
/// [`AppError::FetchRoots`].
pub fn fetcher(config: &Config) -> Result<Fetcher, AppError> {
    let refused = |problem: String| AppError::FetchRoots {
        path: config.fetch_roots.as_ref().map_or_else(|| "fetch.roots".to_owned(), |path| path.display().to_string()),
        problem,
    };
    let roots =
        config.fetch_roots.as_ref().map(std::fs::read).transpose().map_err(|error| refused(error.to_string()))?;
    let tls = tls::fetching_config(roots.as_deref()).map_err(|error| refused(error.to_string()))?;
    Ok(Fetcher::new(&Arc::new(tls)))
}

/// Where `config` says that the audit log is sent.
///
/// # Errors
/// [`AppError::AuditExport`].
pub fn audit_sinks(config: &Config, clock: &Arc<dyn Clock>) -> Result<Vec<Box<dyn Sink>>, AppError> {
    let refused = |key| move |problem| AppError::AuditExport { key, problem };
    let export = &config.audit_export;
    let mut sinks: Vec<Box<dyn Sink>> = Vec::new();
    if let Some(path) = &export.file {
        sinks.push(Box::new(FileSink::new(path.clone())));
    }
    if let Some(syslog) = &export.syslog {
        // Read again for each connection, but wrong files are known at the start.
        syslog.files.read().map_err(refused("audit.export.syslog"))?;
        let dialer = Dialer::new(syslog.host.clone(), syslog.port, syslog.files.clone());
        // RFC 5424 §6.2.4: a full name, above all.
        sinks.push(Box::new(SyslogSink::new(dialer, syslog.facility, config.issuer.host().to_owned())));
    }
    if let Some(otlp) = &export.otlp {
        let tls = otlp.files.read().map_err(refused("audit.export.otlp"))?;
        let fetcher = Fetcher::new(&Arc::new(tls));
        sinks.push(Box::new(OtlpSink::new(
            otlp.url.clone(),
            fetcher,
            config.node.as_str().to_owned(),
            Arc::clone(clock),
        )));
    }
    Ok(sinks)
}

impl Drop for App {
    fn drop(&mut self) {
        for task in &self.background {
            task.abort();
        }
    }
}

/// What a strict perimeter asks of a certificate: does it map to anybody?
impl PerimeterGuard for App {
    fn admits<'a>(&'a self, peer: &'a Arc<PresentedChain>) -> BoxFuture<'a, bool> {
        Box::pin(async move {
            let Some(leaf) = peer.leaf() else { return false };
            let names: Vec<_> = match leaf.names() {
                Ok(names) => names.all().take(MOST_NAMES).map(|(kind, name)| (kind, name.to_owned())).collect(),
                // Names that cannot be read in exactly one way map to nobody; the certificate itself still may.
                Err(_) => Vec::new(),
            };
            match self.registry.knows(leaf.thumbprint(), &names).await {
                Ok(known) => known,
                Err(error) => {
                    tracing::warn!(%error, "a certificate could not be looked up: its connection is closed");
                    false
                }
            }
        })
    }
}

/// Refused handshakes are records too: counted, and thinned when they flood.
impl HandshakeObserver for App {
    fn begun(&self) -> Option<Announcement> {
        Some(Box::new(self.audit.announce()))
    }

    fn refused(&self, handshake: &RefusedHandshake) {
        self.audit.refused_handshake(&crate::audit::RefusedHandshake {
            remote: handshake.remote,
            reason: handshake.refusal.reason(),
            claimed: handshake.claimed,
        });
    }
}
