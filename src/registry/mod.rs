//! The book of participants: who may take part, with which certificates, for what.
//!
//! Takes commands and questions, gives records: [`ClientRecord`] is everything one admission decision about a client
//! rests on, assembled and immutable. It knows nothing of HTTP, TLS or SQL.

pub mod participant;

pub mod trust_anchor;

pub mod client;

pub mod certificate;

pub mod resource_server;

pub mod entitlement;

pub mod token;

pub mod history;

pub mod edit;

pub mod import;

pub mod export;

pub mod store;

mod record;

mod memory;

mod identifier;

#[cfg(test)]
pub(crate) mod fixture;

pub use certificate::{CertificateFacts, PathIssuer, Replacement, Sighting};
pub use edit::EditRefusal;
pub use identifier::{
    AnchorId, ClientId, EntitlementId, KeyHash, MalformedIdentifier, ParticipantId, RegistryVersion, ResourceIndicator,
    ResourceServerId, Thumbprint,
};
pub use memory::{MemorySize, Stand};
pub use record::{AnchorSetId, ClientRecord, GrantedAnchor, GrantedEntitlement};
pub use store::StoreUnavailable;

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::Duration;

use countersign_resource_server::status::MarkKind;
use countersign_resource_server::time::UnixTime;
use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::sync::watch;
use tokio::task::JoinHandle;

use crate::error::{ErrorCode, refusals};
use crate::pki::bundle::Bundle;
use crate::pki::spiffe::TrustDomain;
use certificate::{Certificate, CertificateState, RevocationReason};
use client::{Client, ClientState, SubjectAttribute};
use edit::{Applied, CertificateSelector, Edit, Lost};
use entitlement::Entitlement;
use history::{Actor, Change, Explanation, HistoryEntry};
use memory::{Memory, Missing, Remembered};
use participant::{Participant, ParticipantState};
use resource_server::{Asker, ResourceServer};
use store::{Document, RegistryStore, Since};
use token::{SigningKeyChange, TokenRevocation};
use trust_anchor::{AnchorGrant, AnchorMaterial, NameSpace, TrustAnchor};

/// How wrong a clock may be that says when an authority is out of date: by hours rather than days.
const WRONG_CLOCK: Duration = Duration::from_secs(86_400);

/// A client as the registry has it: found, not yet believed.
#[derive(Clone, Debug)]
pub struct FoundClient {
    /// Its record.
    pub record: Arc<ClientRecord>,
    /// The registry version the record is known to be current at: what a decision resting on it is taken under. Below
    /// `record.as_of` only where what was proven rests on an older record ([`Registry::sighted`]).
    pub version: RegistryVersion,
}

refusals! {
    /// Why a client could not be looked up.
    pub enum LookupRefusal at "registry" {
        /// No such client.
        ClientUnknown => "client_unknown",
        /// The store did not answer, or holds a record that cannot be read.
        RegistryUnavailable => "registry_unavailable",
    }
}

impl LookupRefusal {
    /// The protocol's code for it.
    pub const fn code(&self) -> ErrorCode {
        match self {
            Self::ClientUnknown => ErrorCode::InvalidClient,
            Self::RegistryUnavailable => ErrorCode::TemporarilyUnavailable,
        }
    }
}

refusals! {
    /// Why a certificate that authenticated could not be put on record as its client's.
    pub enum SightingRefusal at "registry" {
        /// It is enrolled for another client, or for a resource server.
        CertificateTaken => "enrolment_certificate_taken",
        /// The client has as many live certificates as it may.
        LimitReached => "enrolment_limit_reached",
        /// The client's certificates are enrolled beforehand, and this one is not.
        Required => "enrolment_required",
        /// Its key was revoked.
        KeyRevoked => "enrolment_key_revoked",
        /// Another DER with its issuer key and serial number is on record.
        SerialTaken => "enrolment_serial_taken",
        /// The client is gone.
        ClientUnknown => "enrolment_client_unknown",
        /// The store did not answer.
        RegistryUnavailable => "enrolment_registry_unavailable",
    }
}

impl SightingRefusal {
    /// The protocol's code for it.
    pub const fn code(&self) -> ErrorCode {
        match self {
            Self::CertificateTaken
            | Self::LimitReached
            | Self::Required
            | Self::KeyRevoked
            | Self::SerialTaken
            | Self::ClientUnknown => ErrorCode::InvalidClient,
            Self::RegistryUnavailable => ErrorCode::TemporarilyUnavailable,
        }
    }
}

/// What has been revoked and may still have live tokens.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RevocationState {
    /// Grows with a restore or a fail-over.
    pub epoch: i64,
    /// The registry version it was read at.
    pub version: RegistryVersion,
    /// The marks.
    pub marks: Vec<Mark>,
}

/// "Tokens that name this and carry a registry version below `version` are dead."
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub struct Mark {
    /// What it is about.
    pub kind: MarkKind,
    /// Which one.
    pub id: String,
    /// The first version whose tokens are not concerned.
    pub version: RegistryVersion,
}

/// A part of a list, in order of ids.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Page {
    /// The last id of the page before; none for the first page.
    pub after: Option<String>,
    /// How many at most.
    pub limit: u32,
}

impl Page {
    /// The first `limit` records.
    pub const fn first(limit: u32) -> Self {
        Self { after: None, limit }
    }

    /// The `limit` records after the one with this id.
    pub fn after(id: impl Into<String>, limit: u32) -> Self {
        Self { after: Some(id.into()), limit }
    }
}

/// The book of participants, with the records of clients in memory.
#[derive(Debug)]
pub struct Registry {
    store: Arc<dyn RegistryStore>,
    memory: Memory,
    node: String,
    versions: watch::Sender<RegistryVersion>,
    /// The history that was last announced: in another one the same version says something else.
    announced: AtomicU64,
    last_seen: Mutex<HashMap<Thumbprint, UnixTime>>,
    /// An epoch that begins later than it is here, and when that was first seen.
    begun_ahead: Mutex<Option<(i64, UnixTime)>>,
    /// The epoch that a node is known to have served since then.
    served_from: Mutex<Option<(i64, UnixTime)>>,
}

/// The epoch that begins with no restore.
const FIRST_EPOCH: i64 = 1;

/// How many certificates' last sightings are kept until they are written down.
const LAST_SEEN_LIMIT: usize = 10_000;

/// How many of them are written in one transaction: others wait to write meanwhile.
const LAST_SEEN_BATCH: usize = 200;

/// How often they are.
const LAST_SEEN_EVERY: Duration = Duration::from_secs(30);

/// Reading.
impl Registry {
    /// The registry in `store`, seen from the node of this name.
    ///
    /// # Errors
    /// [`StoreUnavailable`] if the store does not say where the registry stands.
    pub async fn new(
        store: Arc<dyn RegistryStore>,
        size: MemorySize,
        node: impl Into<String>,
    ) -> Result<Arc<Self>, StoreUnavailable> {
        let head = store.head().await?;
        let (versions, _) = watch::channel(head.version);
        Ok(Arc::new(Self {
            store,
            memory: Memory::new(size, head),
            node: node.into(),
            versions,
            announced: AtomicU64::new(0),
            last_seen: Mutex::default(),
            begun_ahead: Mutex::default(),
            served_from: Mutex::default(),
        }))
    }

    /// The client with this id, from memory where it is there and current; a miss costs one indexed query.
    ///
    /// # Errors
    /// [`LookupRefusal`].
    pub async fn client(&self, id: &ClientId) -> Result<FoundClient, LookupRefusal> {
        match self.memory.client(id, self.store.as_ref()).await {
            Ok(Remembered { record, version }) => Ok(FoundClient { record, version }),
            Err(Missing::Unknown) => Err(LookupRefusal::ClientUnknown),
            Err(Missing::Unavailable(error)) => {
                tracing::error!(client.id = %id, %error, "client record not available");
                Err(LookupRefusal::RegistryUnavailable)
            }
        }
    }

    /// What this node calls itself in the history.
    pub fn node(&self) -> &str {
        &self.node
    }

    /// Where the registry stands, as this node knows it: for whoever keeps what rests on it.
    pub fn stand(&self) -> Stand {
        self.memory.stand()
    }

    /// The last change this node knows of.
    pub fn version(&self) -> RegistryVersion {
        self.memory.seen()
    }

    /// When whatever was before this epoch had ended for sure: an epoch is the second that the store was restored in (docs/backup.md),
    /// and the first is 1. Where that clock was behind, it is when a node has first served since.
    pub fn epoch_begun(&self, now: UnixTime) -> UnixTime {
        let epoch = self.memory.epoch();
        let mut ahead = self.begun_ahead.lock().unwrap_or_else(PoisonError::into_inner);
        // Also once it is later here than the epoch says: it has not begun a second time.
        if let Some((_, seen)) = ahead.filter(|(of, _)| *of == epoch) {
            return seen;
        }
        let begun = UnixTime::from_seconds(epoch.saturating_add(1));
        let begun = self.known_served_from(epoch).map_or(begun, |served| served.max(begun));
        if begun <= now {
            return begun;
        }
        // The clock was ahead where it was restored, or first served. This node serves what was restored already.
        ahead.insert((epoch, now)).1
    }

    fn known_served_from(&self, epoch: i64) -> Option<UnixTime> {
        let known = self.served_from.lock().unwrap_or_else(PoisonError::into_inner);
        known.filter(|(of, _)| *of == epoch).map(|(_, served)| served)
    }

    /// Learns from when a node has served this epoch: to be called once this one may, and with every look until it is known.
    ///
    /// # Errors
    /// [`StoreUnavailable`].
    pub async fn learn_served_from(&self) -> Result<(), StoreUnavailable> {
        let epoch = self.memory.epoch();
        if epoch == FIRST_EPOCH || self.known_served_from(epoch).is_some() {
            return Ok(());
        }
        if let Some(served) = self.store.served_from(epoch).await? {
            *self.served_from.lock().unwrap_or_else(PoisonError::into_inner) = Some((epoch, served));
        }
        Ok(())
    }

    /// Follows [`Registry::version`].
    pub fn subscribe(&self) -> watch::Receiver<RegistryVersion> {
        self.versions.subscribe()
    }

    /// Every change after `version`, in order, from the store and not from what this node has noticed.
    ///
    /// # Errors
    /// [`StoreUnavailable`], also where the store has another history than this node knows of.
    pub async fn changes_since(&self, version: RegistryVersion) -> Result<Vec<Change>, StoreUnavailable> {
        let mut changes = Vec::new();
        let mut from = version;
        loop {
            let Since { head, changes: page, .. } = self.store.changes_since(from, memory::REACH).await?;
            if head.past != self.memory.past() {
                // Another history, in which `from` is another version.
                return Err(gap_after(from));
            }
            let (Some(first), Some(last)) = (page.first(), page.last()) else {
                return if from >= head.version { Ok(changes) } else { Err(gap_after(from)) };
            };
            if first.version.0 != from.0 + 1 {
                return Err(gap_after(from));
            }
            from = last.version;
            changes.extend(page);
            if from >= head.version {
                return Ok(changes);
            }
        }
    }

    /// Every change since the registry stood there.
    ///
    /// # Errors
    /// [`StoreUnavailable`], also where it has another history since.
    pub async fn changes_after(&self, stand: Stand) -> Result<Vec<Change>, StoreUnavailable> {
        if stand.history != self.memory.stand().history {
            return Err(gap_after(stand.version));
        }
        self.changes_since(stand.version).await
    }

    /// Looks now what has changed, without waiting for the watcher. Records known to rest on a change are gone from
    /// memory when this returns.
    ///
    /// # Errors
    /// [`StoreUnavailable`].
    pub async fn catch_up(&self) -> Result<RegistryVersion, StoreUnavailable> {
        loop {
            let seen = self.memory.seen();
            let look = self.store.changes_since(seen, memory::REACH).await?;
            let newest = look.head.version;
            self.memory.absorb(seen, look);
            self.announce();
            if self.memory.seen() >= newest {
                self.learn_served_from().await?;
                return Ok(self.memory.seen());
            }
        }
    }

    /// Keeps this node up to date until the registry is dropped: looks whenever the store hints that somebody may have
    /// changed it. An outage is waited out, and logged once. Writes down last sightings as well.
    pub fn keep_current(self: &Arc<Self>) -> JoinHandle<()> {
        let (registry, watch) = (Arc::downgrade(self), self.store.watch());
        tokio::spawn(async move {
            tokio::join!(follow(Weak::clone(&registry), watch), write_down_sightings(registry));
        })
    }

    /// What has been revoked and may still have live tokens at `now`, as the store has it.
    ///
    /// # Errors
    /// [`StoreUnavailable`].
    pub async fn marks(&self, now: UnixTime) -> Result<RevocationState, StoreUnavailable> {
        self.store.marks(now).await
    }

    /// Whose the certificate with this thumbprint and this key is, where somebody asks about a token with it.
    ///
    /// # Errors
    /// [`StoreUnavailable`].
    pub async fn asker(&self, thumbprint: &Thumbprint, key: &KeyHash) -> Result<Arc<Asker>, StoreUnavailable> {
        self.memory.asker(thumbprint, key, self.store.as_ref()).await
    }

    /// How many tokens `client` has had revoked that would be live otherwise.
    ///
    /// # Errors
    /// [`StoreUnavailable`].
    pub async fn revoked_tokens(&self, client: &ClientId, now: UnixTime) -> Result<usize, StoreUnavailable> {
        self.store.revoked_tokens(client, now).await
    }

    /// The history after `since`, oldest first, at most `limit` entries; `subject` as [`edit::RecordKind::subject`] writes it.
    ///
    /// # Errors
    /// [`StoreUnavailable`].
    pub async fn history(
        &self,
        since: RegistryVersion,
        subject: Option<String>,
        limit: u32,
    ) -> Result<Vec<HistoryEntry>, StoreUnavailable> {
        self.store.history(since, subject, limit).await
    }

    /// Whether a certificate maps to anybody (design §3, perimeter): enrolled and not revoked itself, a resource server's,
    /// or one of its canonical names is the rule of an active resource server or of an active client that enrols on first
    /// use. Asks the store: for handshakes under a strict perimeter, not for requests.
    ///
    /// # Errors
    /// [`StoreUnavailable`].
    pub async fn knows(
        &self,
        thumbprint: &Thumbprint,
        names: &[(SubjectAttribute, String)],
    ) -> Result<bool, StoreUnavailable> {
        self.store.knows(thumbprint, names).await
    }

    fn announce(&self) {
        self.versions.send_if_modified(|version| {
            // Read under the channel's lock: of two who announce, the later says the later version.
            let stand = self.memory.stand();
            let is_another = self.announced.swap(stand.history, Ordering::Relaxed) != stand.history;
            let changed = *version != stand.version;
            *version = stand.version;
            changed || is_another
        });
    }
}

/// Which records a list has.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Selection {
    /// The anchor with this id.
    Anchor(AnchorId),
    /// All anchors.
    Anchors,
    /// The certificate with this thumbprint.
    Certificate(Thumbprint),
    /// Certificates, of one client or of all.
    Certificates(Option<ClientId>),
    /// Certificates with this serial number, whoever issued them.
    CertificatesBySerial(String),
    /// Certificates whose path led to this anchor.
    CertificatesUnder(AnchorId),
    /// Clients, of one participant or of all.
    Clients(Option<ParticipantId>),
    /// The entitlement with this id.
    Entitlement(EntitlementId),
    /// Entitlements, of one client or of all.
    Entitlements(Option<ClientId>),
    /// The anchors granted to one participant.
    Grants(ParticipantId),
    /// The participant with this id.
    Participant(ParticipantId),
    /// All participants.
    Participants,
    /// The resource server with this id.
    ResourceServer(ResourceServerId),
    /// All resource servers.
    ResourceServers,
    /// The anchors that are trust domains.
    TrustDomains,
}

/// Showing and listing, straight from the store.
impl Registry {
    /// The participant with this id.
    ///
    /// # Errors
    /// [`StoreUnavailable`], here and below.
    pub async fn participant(&self, id: &ParticipantId) -> Result<Option<Participant>, StoreUnavailable> {
        self.one(Selection::Participant(id.clone())).await
    }

    /// Participants.
    ///
    /// # Errors
    /// [`StoreUnavailable`].
    pub async fn participants(&self, page: Page) -> Result<Vec<Participant>, StoreUnavailable> {
        self.list(Selection::Participants, page).await
    }

    /// The trust anchor with this id.
    ///
    /// # Errors
    /// [`StoreUnavailable`].
    pub async fn anchor(&self, id: &AnchorId) -> Result<Option<TrustAnchor>, StoreUnavailable> {
        self.one(Selection::Anchor(id.clone())).await
    }

    /// Trust anchors.
    ///
    /// # Errors
    /// [`StoreUnavailable`].
    pub async fn anchors(&self, page: Page) -> Result<Vec<TrustAnchor>, StoreUnavailable> {
        self.list(Selection::Anchors, page).await
    }

    /// The trust anchors that are SPIFFE trust domains.
    ///
    /// # Errors
    /// [`StoreUnavailable`].
    pub async fn trust_domains(&self, page: Page) -> Result<Vec<TrustAnchor>, StoreUnavailable> {
        self.list(Selection::TrustDomains, page).await
    }

    /// The anchors granted to a participant, by anchor id.
    ///
    /// # Errors
    /// [`StoreUnavailable`].
    pub async fn grants(&self, participant: &ParticipantId, page: Page) -> Result<Vec<AnchorGrant>, StoreUnavailable> {
        self.list(Selection::Grants(participant.clone()), page).await
    }

    /// Clients, of one participant or of all.
    ///
    /// # Errors
    /// [`StoreUnavailable`].
    pub async fn clients(
        &self,
        participant: Option<&ParticipantId>,
        page: Page,
    ) -> Result<Vec<Client>, StoreUnavailable> {
        self.list(Selection::Clients(participant.cloned()), page).await
    }

    /// The certificate with this thumbprint.
    ///
    /// # Errors
    /// [`StoreUnavailable`].
    pub async fn certificate(&self, thumbprint: &Thumbprint) -> Result<Option<Certificate>, StoreUnavailable> {
        self.one(Selection::Certificate(*thumbprint)).await
    }

    /// Certificates, of one client or of all, by thumbprint.
    ///
    /// # Errors
    /// [`StoreUnavailable`].
    pub async fn certificates(
        &self,
        client: Option<&ClientId>,
        page: Page,
    ) -> Result<Vec<Certificate>, StoreUnavailable> {
        self.list(Selection::Certificates(client.cloned()), page).await
    }

    /// Certificates with this serial number, whoever issued them, by thumbprint.
    ///
    /// # Errors
    /// [`StoreUnavailable`].
    pub async fn certificates_by_serial(
        &self,
        serial: String,
        page: Page,
    ) -> Result<Vec<Certificate>, StoreUnavailable> {
        self.list(Selection::CertificatesBySerial(serial), page).await
    }

    /// Certificates whose path led to this anchor when they were first seen, by thumbprint.
    ///
    /// # Errors
    /// [`StoreUnavailable`].
    pub async fn certificates_under(
        &self,
        anchor: &AnchorId,
        page: Page,
    ) -> Result<Vec<Certificate>, StoreUnavailable> {
        self.list(Selection::CertificatesUnder(anchor.clone()), page).await
    }

    /// Certificates that this key issued and that are not revoked: thumbprint and serial number, in order of the latter,
    /// after the one with serial number `after`.
    ///
    /// # Errors
    /// [`StoreUnavailable`].
    pub async fn live_serials(
        &self,
        issuer_key: &KeyHash,
        after: Option<String>,
        limit: u32,
    ) -> Result<Vec<(Thumbprint, String)>, StoreUnavailable> {
        self.store.live_serials(issuer_key, after.unwrap_or_default(), limit).await
    }

    /// The certificate on record that this key issued under this serial number.
    ///
    /// # Errors
    /// [`StoreUnavailable`].
    pub async fn certificate_of(
        &self,
        issuer_key: &KeyHash,
        serial: &str,
    ) -> Result<Option<Thumbprint>, StoreUnavailable> {
        self.store.certificate_of(issuer_key, serial).await
    }

    /// The resource server with this id.
    ///
    /// # Errors
    /// [`StoreUnavailable`].
    pub async fn resource_server(&self, id: &ResourceServerId) -> Result<Option<ResourceServer>, StoreUnavailable> {
        self.one(Selection::ResourceServer(id.clone())).await
    }

    /// Resource servers.
    ///
    /// # Errors
    /// [`StoreUnavailable`].
    pub async fn resource_servers(&self, page: Page) -> Result<Vec<ResourceServer>, StoreUnavailable> {
        self.list(Selection::ResourceServers, page).await
    }

    /// The entitlement with this id.
    ///
    /// # Errors
    /// [`StoreUnavailable`].
    pub async fn entitlement(&self, id: &EntitlementId) -> Result<Option<Entitlement>, StoreUnavailable> {
        self.one(Selection::Entitlement(id.clone())).await
    }

    /// Entitlements, of one client or of all.
    ///
    /// # Errors
    /// [`StoreUnavailable`].
    pub async fn entitlements(
        &self,
        client: Option<&ClientId>,
        page: Page,
    ) -> Result<Vec<Entitlement>, StoreUnavailable> {
        self.list(Selection::Entitlements(client.cloned()), page).await
    }

    async fn one<R: Record>(&self, selection: Selection) -> Result<Option<R>, StoreUnavailable> {
        Ok(self.list(selection, Page::first(1)).await?.pop())
    }

    async fn list<R: Record>(&self, selection: Selection, page: Page) -> Result<Vec<R>, StoreUnavailable> {
        self.store.list(selection, page).await?.iter().map(R::read).collect()
    }
}

/// Whether a certificate has still to be put on record, as far as the record in memory tells.
fn store_has_to_be_asked(record: &ClientRecord, sighting: &Sighting, now: UnixTime) -> Result<bool, SightingRefusal> {
    match record.certificate(&sighting.thumbprint) {
        Some(known) => Ok(known.state == CertificateState::Announced),
        // Whoever may not enrol shall not be able to keep the store busy.
        None if !record.client.enrols_on_first_use() => Err(SightingRefusal::Required),
        None if record.live_certificates(now) >= edit::LIVE_CERTIFICATES => Err(SightingRefusal::LimitReached),
        None => Ok(true),
    }
}

fn read_bundle(bundle: &str, trust_domain: &TrustDomain) -> Result<Bundle, EditRefusal> {
    Bundle::parse(bundle.as_bytes(), trust_domain).map_err(|reason| EditRefusal::Malformed(reason.to_string()))
}

fn gap_after(version: RegistryVersion) -> StoreUnavailable {
    StoreUnavailable::because(format_args!("the changes after version {version} are not on record"))
}

/// What a document in the store can be read as.
pub(crate) trait Record: DeserializeOwned {
    /// Reads it.
    fn read(document: &Document) -> Result<Self, StoreUnavailable> {
        serde_json::from_str(&document.record)
            .map_err(|error| StoreUnavailable::because(format_args!("a record cannot be read: {error}")))
    }
}

impl Record for Participant {}
impl Record for TrustAnchor {}
impl Record for AnchorGrant {}
impl Record for Client {}
impl Record for ResourceServer {}
impl Record for Entitlement {}
impl Record for Certificate {
    fn read(document: &Document) -> Result<Self, StoreUnavailable> {
        let mut certificate: Self = serde_json::from_str(&document.record)
            .map_err(|error| StoreUnavailable::because(format_args!("a certificate record cannot be read: {error}")))?;
        certificate.last_seen = certificate.last_seen.max(document.last_seen);
        Ok(certificate)
    }
}

/// Changing. Each is one transaction: rows, history, version, what it touches and what it revokes, or nothing at all.
/// In force on this node when it returns.
impl Registry {
    /// Enters an organisation, pending or active.
    ///
    /// # Errors
    /// [`EditRefusal`], here and below.
    pub async fn add_participant(
        &self,
        participant: Participant,
        explanation: Explanation,
    ) -> Result<RegistryVersion, EditRefusal> {
        self.apply(Edit::AddParticipant(participant), explanation).await
    }

    /// Changes everything about a participant but its id and state.
    ///
    /// # Errors
    /// [`EditRefusal`].
    pub async fn change_participant(
        &self,
        participant: Participant,
        explanation: Explanation,
    ) -> Result<RegistryVersion, EditRefusal> {
        self.apply(Edit::ChangeParticipant(participant), explanation).await
    }

    /// Activates, suspends, reinstates or withdraws a participant.
    ///
    /// # Errors
    /// [`EditRefusal`].
    pub async fn set_participant_state(
        &self,
        id: ParticipantId,
        to: ParticipantState,
        explanation: Explanation,
    ) -> Result<RegistryVersion, EditRefusal> {
        self.apply(Edit::SetParticipantState { id, to }, explanation).await
    }

    /// Enters a trust anchor. It vouches for nothing until it is granted.
    ///
    /// # Errors
    /// [`EditRefusal`].
    pub async fn add_anchor(
        &self,
        anchor: TrustAnchor,
        subject_der: Vec<u8>,
        explanation: Explanation,
    ) -> Result<RegistryVersion, EditRefusal> {
        if let AnchorMaterial::TrustDomain { trust_domain, bundle, .. } = &anchor.material {
            read_bundle(bundle, trust_domain)?;
        }
        self.apply(Edit::AddAnchor { anchor, subject_der }, explanation).await
    }

    /// Lets an anchor vouch for a participant's names, or replaces which names it vouches for.
    ///
    /// # Errors
    /// [`EditRefusal`].
    pub async fn grant_anchor(
        &self,
        participant: ParticipantId,
        anchor: AnchorId,
        name_space: NameSpace,
        explanation: Explanation,
    ) -> Result<RegistryVersion, EditRefusal> {
        self.apply(Edit::GrantAnchor { participant, anchor, name_space }, explanation).await
    }

    /// Takes an anchor away from a participant.
    ///
    /// # Errors
    /// [`EditRefusal`].
    pub async fn withdraw_anchor(
        &self,
        participant: ParticipantId,
        anchor: AnchorId,
        explanation: Explanation,
    ) -> Result<RegistryVersion, EditRefusal> {
        self.apply(Edit::WithdrawAnchor { participant, anchor }, explanation).await
    }

    /// Changes everything about an anchor but its id, owner and state. Where that could refuse what was accepted before, the
    /// tokens it vouched for end.
    ///
    /// # Errors
    /// [`EditRefusal`].
    pub async fn change_anchor(
        &self,
        anchor: TrustAnchor,
        explanation: Explanation,
    ) -> Result<RegistryVersion, EditRefusal> {
        self.apply(Edit::ChangeAnchor(anchor), explanation).await
    }

    /// Retires an anchor, for good and for everybody.
    ///
    /// # Errors
    /// [`EditRefusal`].
    pub async fn retire_anchor(
        &self,
        anchor: AnchorId,
        explanation: Explanation,
    ) -> Result<RegistryVersion, EditRefusal> {
        self.apply(Edit::RetireAnchor(anchor), explanation).await
    }

    /// Replaces the bundle of a trust domain, if `held` is still the one that it has.
    ///
    /// # Errors
    /// [`EditRefusal`].
    pub async fn replace_bundle(
        &self,
        anchor: AnchorId,
        held: String,
        bundle: String,
        explanation: Explanation,
    ) -> Result<RegistryVersion, EditRefusal> {
        // Judged of `held`, whatever the trust domain has by now: the store goes on only if it is still that.
        let lost = match self.anchor(&anchor).await?.as_ref().and_then(|anchor| anchor.material.trust_domain()) {
            Some(trust_domain) => {
                let next = read_bundle(&bundle, trust_domain)?;
                // A bundle that cannot be read vouched for nobody; and a clock that is wrong makes no authority out of date.
                let surely = explanation.at.before(WRONG_CLOCK);
                Bundle::parse(held.as_bytes(), trust_domain)
                    .map_or(Lost::default(), |before| next.lost(&before, surely))
            }
            // The store will say what is wrong with that; should it have appeared since, nothing of it is known to be kept.
            None => Lost { x509: true, jwt: true },
        };
        self.apply(Edit::ReplaceBundle { anchor, held, bundle, lost }, explanation).await
    }

    /// Enters a client, pending or active, with the certificates it is known by from the start.
    ///
    /// # Errors
    /// [`EditRefusal`].
    pub async fn add_client(
        &self,
        client: Client,
        certificates: Vec<CertificateFacts>,
        explanation: Explanation,
    ) -> Result<RegistryVersion, EditRefusal> {
        self.apply(Edit::AddClient { client, certificates }, explanation).await
    }

    /// Changes everything about a client but its id, participant, environment and state.
    ///
    /// # Errors
    /// [`EditRefusal`].
    pub async fn change_client(
        &self,
        client: Client,
        certificates: Vec<CertificateFacts>,
        explanation: Explanation,
    ) -> Result<RegistryVersion, EditRefusal> {
        self.apply(Edit::ChangeClient { client, certificates }, explanation).await
    }

    /// Activates, suspends, reinstates or retires a client.
    ///
    /// # Errors
    /// [`EditRefusal`].
    pub async fn set_client_state(
        &self,
        id: ClientId,
        to: ClientState,
        explanation: Explanation,
    ) -> Result<RegistryVersion, EditRefusal> {
        self.apply(Edit::SetClientState { id, to }, explanation).await
    }

    /// Enrols a certificate before it is first seen.
    ///
    /// # Errors
    /// [`EditRefusal`].
    pub async fn add_certificate(
        &self,
        client: ClientId,
        certificate: CertificateFacts,
        explanation: Explanation,
    ) -> Result<RegistryVersion, EditRefusal> {
        self.apply(Edit::AddCertificate { client, certificate, replaces: None }, explanation).await
    }

    /// Enrols the next certificate beside the one it replaces: when it is first seen the other one's overlap begins.
    ///
    /// # Errors
    /// [`EditRefusal`].
    pub async fn announce_replacement(
        &self,
        client: ClientId,
        certificate: CertificateFacts,
        replaces: Replacement,
        explanation: Explanation,
    ) -> Result<RegistryVersion, EditRefusal> {
        let replaces = Some(replaces);
        self.apply(Edit::AddCertificate { client, certificate, replaces }, explanation).await
    }

    /// Sets the end of a certificate's overlap with the one that replaces it: no new tokens from `at` on.
    ///
    /// # Errors
    /// [`EditRefusal`].
    pub async fn supersede_certificate(
        &self,
        thumbprint: Thumbprint,
        at: UnixTime,
        explanation: Explanation,
    ) -> Result<RegistryVersion, EditRefusal> {
        self.apply(Edit::SupersedeCertificate { thumbprint, at }, explanation).await
    }

    /// Revokes a certificate and, unless the reason is mild, its key for every client.
    ///
    /// # Errors
    /// [`EditRefusal`].
    pub async fn revoke_certificate(
        &self,
        certificate: CertificateSelector,
        reason: RevocationReason,
        explanation: Explanation,
    ) -> Result<RegistryVersion, EditRefusal> {
        self.apply(Edit::RevokeCertificate { certificate, reason }, explanation).await
    }

    /// Revokes certificates because their issuer has, each for the reason it gave. Those that are revoked already, or not on
    /// record, are passed over.
    ///
    /// # Errors
    /// [`EditRefusal`].
    pub async fn revoke_by_issuer(
        &self,
        certificates: Vec<(Thumbprint, RevocationReason)>,
        explanation: Explanation,
    ) -> Result<RegistryVersion, EditRefusal> {
        self.apply(Edit::RevokeByIssuer(certificates), explanation).await
    }

    /// Ends the tokens bound to these certificates, and leaves the certificates as they are. Those that are not on record
    /// are passed over.
    ///
    /// # Errors
    /// [`EditRefusal`].
    pub async fn end_tokens(
        &self,
        certificates: Vec<Thumbprint>,
        explanation: Explanation,
    ) -> Result<RegistryVersion, EditRefusal> {
        self.apply(Edit::EndTokens(certificates), explanation).await
    }

    /// Revokes a key for every client, whether or not a certificate with it is enrolled.
    ///
    /// # Errors
    /// [`EditRefusal`].
    pub async fn revoke_key(&self, key: KeyHash, explanation: Explanation) -> Result<RegistryVersion, EditRefusal> {
        self.apply(Edit::RevokeKey(key), explanation).await
    }

    /// Enters an API.
    ///
    /// # Errors
    /// [`EditRefusal`].
    pub async fn add_resource_server(
        &self,
        resource_server: ResourceServer,
        explanation: Explanation,
    ) -> Result<RegistryVersion, EditRefusal> {
        self.apply(Edit::AddResourceServer(resource_server), explanation).await
    }

    /// Changes owner, lifetime and own identity of an API, and adds scopes; none is taken away.
    ///
    /// # Errors
    /// [`EditRefusal`].
    pub async fn change_resource_server(
        &self,
        resource_server: ResourceServer,
        explanation: Explanation,
    ) -> Result<RegistryVersion, EditRefusal> {
        self.apply(Edit::ChangeResourceServer(resource_server), explanation).await
    }

    /// Retires an API, for good.
    ///
    /// # Errors
    /// [`EditRefusal`].
    pub async fn retire_resource_server(
        &self,
        id: ResourceServerId,
        explanation: Explanation,
    ) -> Result<RegistryVersion, EditRefusal> {
        self.apply(Edit::RetireResourceServer(id), explanation).await
    }

    /// Entitles a client to an API.
    ///
    /// # Errors
    /// [`EditRefusal`].
    pub async fn add_entitlement(
        &self,
        entitlement: Entitlement,
        explanation: Explanation,
    ) -> Result<RegistryVersion, EditRefusal> {
        self.apply(Edit::AddEntitlement(entitlement), explanation).await
    }

    /// Changes scopes, dates and reason of an entitlement that has not ended. What it no longer allows ends at once.
    ///
    /// # Errors
    /// [`EditRefusal`].
    pub async fn change_entitlement(
        &self,
        entitlement: Entitlement,
        explanation: Explanation,
    ) -> Result<RegistryVersion, EditRefusal> {
        self.apply(Edit::ChangeEntitlement(entitlement), explanation).await
    }

    /// Ends an entitlement, for good.
    ///
    /// # Errors
    /// [`EditRefusal`].
    pub async fn end_entitlement(
        &self,
        id: EntitlementId,
        explanation: Explanation,
    ) -> Result<RegistryVersion, EditRefusal> {
        self.apply(Edit::EndEntitlement(id), explanation).await
    }

    /// Revokes a token. One that has been revoked already is refused as such.
    ///
    /// # Errors
    /// [`EditRefusal`].
    pub async fn revoke_token(
        &self,
        revocation: TokenRevocation,
        explanation: Explanation,
    ) -> Result<RegistryVersion, EditRefusal> {
        self.apply(Edit::RevokeToken(revocation), explanation).await
    }

    /// Puts on record what happened to signing keys; what a withdrawn one has signed is dead.
    ///
    /// # Errors
    /// [`EditRefusal`].
    pub async fn change_signing_keys(
        &self,
        changes: Vec<SigningKeyChange>,
        explanation: Explanation,
    ) -> Result<RegistryVersion, EditRefusal> {
        self.apply(Edit::ChangeSigningKeys(changes), explanation).await
    }

    /// Puts a certificate that just authenticated as `proven` on record: announced becomes active, and one never seen
    /// before is enrolled where the client's policy lets it. Costs nothing where it is on record already; what its state
    /// means is for admission to say.
    ///
    /// What comes back carries the version the proof was given under where anything but this sighting has touched the
    /// record since: the fence then has the decision taken again.
    ///
    /// # Errors
    /// [`SightingRefusal`].
    pub async fn sighted(
        &self,
        proven: &FoundClient,
        sighting: &Sighting,
        now: UnixTime,
    ) -> Result<FoundClient, SightingRefusal> {
        let client = &proven.record.client.id;
        let found = self.client(client).await.map_err(SightingRefusal::from)?;
        if !store_has_to_be_asked(&found.record, sighting, now)? {
            return Ok(self.resting_on(proven, found, None));
        }
        let explanation = Explanation { actor: Actor::Server { node: self.node.clone() }, at: now, why: None };
        let applied = self.store.sighted(client, sighting, explanation).await.map_err(|refusal| {
            tracing::info!(client.id = %client, certificate.thumbprint = %sighting.thumbprint, %refusal, "certificate not enrolled");
            SightingRefusal::from(refusal)
        })?;
        let made = applied.version;
        if made.is_some() {
            self.take_in(applied).await;
        } else if let Err(error) = self.catch_up().await {
            // Another connection has just put it on record, and the record in memory may be the one of before.
            tracing::warn!(%error, client.id = %client, "what was enrolled elsewhere cannot be read");
            return Err(SightingRefusal::RegistryUnavailable);
        }
        let found = self.client(client).await.map_err(SightingRefusal::from)?;
        Ok(self.resting_on(proven, found, made))
    }

    /// The record as [`Registry::sighted`] would leave it, without putting anything on record: for a question, never for a
    /// decision. It asks the store what that would, under no lock.
    ///
    /// # Errors
    /// [`SightingRefusal`], as [`Registry::sighted`] gives it.
    pub async fn would_be_sighted(
        &self,
        client: &ClientId,
        sighting: &Sighting,
        now: UnixTime,
    ) -> Result<Arc<ClientRecord>, SightingRefusal> {
        let found = self.client(client).await.map_err(SightingRefusal::from)?;
        if !store_has_to_be_asked(&found.record, sighting, now)? {
            return Ok(found.record);
        }
        match self.store.would_be_sighted(client, sighting, now).await.map_err(SightingRefusal::from)? {
            None => Ok(found.record),
            Some(certificate) => Ok(Arc::new(found.record.with_certificate(certificate))),
        }
    }

    /// Notes that the certificate was seen at `now`; written down with others in a while. Never waits: a sighting that
    /// comes while another is being noted is left to the next.
    pub fn note_seen(&self, thumbprint: Thumbprint, now: UnixTime) {
        if let Ok(mut seen) = self.last_seen.try_lock()
            && (seen.len() < LAST_SEEN_LIMIT || seen.contains_key(&thumbprint))
        {
            seen.insert(thumbprint, now);
        }
    }

    /// Writes down what [`Registry::note_seen`] noted.
    ///
    /// # Errors
    /// [`StoreUnavailable`]; what was noted is then lost.
    pub async fn flush_seen(&self) -> Result<(), StoreUnavailable> {
        let seen = std::mem::take(&mut *self.last_seen.lock().unwrap_or_else(PoisonError::into_inner));
        let mut seen: Vec<(Thumbprint, UnixTime)> = seen.into_iter().collect();
        while !seen.is_empty() {
            let rest = seen.split_off(seen.len().min(LAST_SEEN_BATCH));
            self.store.touch_last_seen(std::mem::replace(&mut seen, rest)).await?;
        }
        Ok(())
    }

    /// `found` under the version of `proven`, if anything but the change `made` has touched the record in between.
    fn resting_on(&self, proven: &FoundClient, found: FoundClient, made: Option<RegistryVersion>) -> FoundClient {
        if Arc::ptr_eq(&proven.record, &found.record)
            || self.memory.touched_only_by(made, &proven.record, proven.version, found.version)
        {
            return found;
        }
        FoundClient { version: proven.version, ..found }
    }

    async fn apply(&self, edit: Edit, explanation: Explanation) -> Result<RegistryVersion, EditRefusal> {
        let applied = self.store.apply(edit, explanation).await?;
        let version = applied.version;
        self.take_in(applied).await;
        Ok(version.unwrap_or_else(|| self.version()))
    }

    /// What this node changed is in force here at once.
    async fn take_in(&self, applied: Applied) {
        let Some(version) = applied.version else { return };
        if self.memory.absorb_next(version, applied.changes) {
            self.announce();
        } else if let Err(error) = self.catch_up().await {
            // The change is durable; the watcher brings it as soon as the store answers.
            tracing::warn!(%error, registry.version = %version, "a change made here waits for the watcher");
        }
    }
}

impl From<LookupRefusal> for SightingRefusal {
    fn from(refusal: LookupRefusal) -> Self {
        match refusal {
            LookupRefusal::ClientUnknown => Self::ClientUnknown,
            LookupRefusal::RegistryUnavailable => Self::RegistryUnavailable,
        }
    }
}

impl From<EditRefusal> for SightingRefusal {
    fn from(refusal: EditRefusal) -> Self {
        match refusal {
            EditRefusal::CertificateTaken => Self::CertificateTaken,
            EditRefusal::CertificateLimit { .. } => Self::LimitReached,
            EditRefusal::EnrolmentRequired { .. } => Self::Required,
            EditRefusal::KeyRevoked => Self::KeyRevoked,
            EditRefusal::SerialTaken => Self::SerialTaken,
            EditRefusal::NotFound { .. } => Self::ClientUnknown,
            EditRefusal::AlreadyExists { .. }
            | EditRefusal::AnchorKeyTaken
            | EditRefusal::AnchorLimit { .. }
            | EditRefusal::AnchorOfAnother
            | EditRefusal::BeingImported { .. }
            | EditRefusal::BundleOvertaken
            | EditRefusal::IdentityTaken { .. }
            | EditRefusal::Malformed(_)
            | EditRefusal::NothingToReplace { .. }
            | EditRefusal::StateForbids { .. }
            | EditRefusal::TokenLimit { .. }
            | EditRefusal::TrustDomainTaken { .. }
            | EditRefusal::Unavailable(_) => Self::RegistryUnavailable,
        }
    }
}

async fn follow(registry: Weak<Registry>, mut watch: Box<dyn store::Watch>) {
    let mut failing = false;
    loop {
        let hint = watch.changed().await;
        let Some(registry) = registry.upgrade() else { return };
        let looked = match hint {
            Ok(()) => registry.catch_up().await.map(drop),
            Err(error) => Err(error),
        };
        drop(registry);
        match looked {
            Ok(()) if failing => {
                failing = false;
                tracing::info!("the registry can be followed again");
            }
            Ok(()) => {}
            Err(error) => {
                if !failing {
                    failing = true;
                    tracing::error!(%error, "the registry cannot be followed: changes made elsewhere are not in force here");
                }
                tokio::time::sleep(memory::RETRY).await;
            }
        }
    }
}

async fn write_down_sightings(registry: Weak<Registry>) {
    loop {
        tokio::time::sleep(LAST_SEEN_EVERY).await;
        let Some(registry) = registry.upgrade() else { return };
        if let Err(error) = registry.flush_seen().await {
            tracing::debug!(%error, "when certificates were last seen could not be written down");
        }
    }
}
