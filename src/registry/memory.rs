//! The records of clients in memory: which are remembered, and which are still true?
//!
//! Takes loaded records and the changes seen since, gives records that no change known to this node has touched. An
//! entry says through which version it has been checked; a look-up compares that with the last change seen and, only
//! where they differ, walks the few changes between. It knows nothing of what is in a record but what it rests on.

use std::collections::VecDeque;
use std::hash::Hash;
use std::sync::atomic::{AtomicI64, Ordering};
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use arc_swap::ArcSwap;
use moka::future::Cache;
use moka::ops::compute::Op;

use super::history::{Change, Touched};
use super::participant::Participant;
use super::resource_server::{Asker, ResourceServer};
use super::store::{Head, Origin, Past, RegistryStore, Since, StoreUnavailable};
use super::trust_anchor::TrustAnchor;
use super::{AnchorId, ClientId, ClientRecord, KeyHash, ParticipantId, RegistryVersion, ResourceServerId, Thumbprint};

/// How many versions back a record can be checked without asking the store.
pub(super) const REACH: u32 = 8_192;

/// How long to wait before a store that did not answer is asked again.
pub(super) const RETRY: Duration = Duration::from_millis(500);

/// How often a record is loaded again because a change overtook the load.
const OVERTAKEN_LIMIT: usize = 4;

/// How many anchors, participants and resource servers are shared between the records that have them, of each kind.
const SHARED: u64 = 4_096;

/// Certificates and entitlements that a record has before it counts for two.
const PARTS_OF_ONE: usize = 4;

/// What a record counts for at most. The cache lets one in whose frequency, which ends at 15, is above that of all whose place it
/// takes: a heavier one, however busy, might never be let in.
const HEAVIEST: u32 = 8;

/// Octets of a client's keys that count like a certificate.
const JWKS_BYTES_OF_ONE: usize = 512;

/// How many certificates are remembered as resource servers'.
const ASKERS: u64 = 16_384;

/// How much is remembered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MemorySize {
    /// Records of clients: so many where each has a certificate and an entitlement or two. One with more counts for several.
    pub clients: u64,
    /// Ids that are no client's.
    pub unknown_clients: u64,
    /// For how long an unknown id is remembered.
    pub unknown_for: Duration,
}

impl Default for MemorySize {
    fn default() -> Self {
        Self { clients: 100_000, unknown_clients: 10_000, unknown_for: Duration::from_secs(2) }
    }
}

/// A record that is current.
#[derive(Clone, Debug)]
pub(super) struct Remembered {
    pub(super) record: Arc<ClientRecord>,
    /// The version through which it is known to be.
    pub(super) version: RegistryVersion,
}

/// Why there is no record.
#[derive(Clone, Debug)]
pub(super) enum Missing {
    Unknown,
    Unavailable(StoreUnavailable),
}

#[derive(Debug)]
pub(super) struct Memory {
    known: Cache<ClientId, Arc<Entry>>,
    unknown: Cache<ClientId, Arc<Entry>>,
    shared: Shared,
    /// Whose a certificate is that asks about tokens, and where the registry stood before this was read.
    askers: moka::sync::Cache<(Thumbprint, KeyHash), (Stand, Arc<Asker>)>,
    /// The last change this node knows of; written under the lock of `recent`, after the change is in it.
    seen: AtomicI64,
    past: ArcSwap<Past>,
    recent: RwLock<Recent>,
}

/// Where the registry stands, as this node knows it: no two are alike between which there was a change.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stand {
    /// How many histories came before, by restores and fail-overs: in another one the same version has another content.
    pub history: u64,
    /// The last change.
    pub version: RegistryVersion,
}

/// The changes after version `floor`, without a gap.
#[derive(Debug)]
struct Recent {
    history: u64,
    /// What made the version that was the newest when the store was last asked.
    newest: Option<(RegistryVersion, Origin)>,
    floor: i64,
    changes: VecDeque<Change>,
}

/// What the records last loaded have in common: all that have one share it, a trust domain's whole bundle among them.
#[derive(Debug)]
struct Shared {
    anchors: moka::sync::Cache<AnchorId, Arc<TrustAnchor>>,
    participants: moka::sync::Cache<ParticipantId, Arc<Participant>>,
    resource_servers: moka::sync::Cache<ResourceServerId, Arc<ResourceServer>>,
}

impl Shared {
    fn new() -> Self {
        Self {
            anchors: moka::sync::Cache::new(SHARED),
            participants: moka::sync::Cache::new(SHARED),
            resource_servers: moka::sync::Cache::new(SHARED),
        }
    }

    /// Puts what other records have as well in the place of what is the same in this one.
    fn share(&self, record: &mut ClientRecord) {
        for granted in &mut record.anchors {
            share(&self.anchors, |anchor| &anchor.id, &mut granted.anchor);
        }
        share(&self.participants, |participant| &participant.id, &mut record.participant);
        for granted in &mut record.entitlements {
            share(&self.resource_servers, |resource_server| &resource_server.id, &mut granted.resource_server);
        }
    }
}

fn share<K, V>(cache: &moka::sync::Cache<K, Arc<V>>, id: impl FnOnce(&V) -> &K, own: &mut Arc<V>)
where
    K: Clone + Eq + Hash + Send + Sync + 'static,
    V: PartialEq + Send + Sync + 'static,
{
    let id = id(own);
    match cache.get(id) {
        Some(shared) if shared == *own => *own = shared,
        // The first, or changed since. What others were loaded with they keep until the change is noticed.
        Some(_) | None => cache.insert(id.clone(), Arc::clone(own)),
    }
}

/// What the store said about a client: its record, or that there is none.
#[derive(Debug)]
struct Entry {
    record: Option<Arc<ClientRecord>>,
    past: Past,
    checked_through: AtomicI64,
}

impl Entry {
    /// For how many records it counts: what it takes is for the most part its certificates, its entitlements and its keys.
    fn weight(&self) -> u32 {
        let Some(record) = &self.record else { return 1 };
        let keys = record.client.authentication.jwks().map_or(0, str::len) / JWKS_BYTES_OF_ONE;
        let parts = record.certificates.len() + record.entitlements.len() + keys;
        u32::try_from(parts / PARTS_OF_ONE).unwrap_or(u32::MAX).clamp(1, HEAVIEST)
    }

    fn rests_on(&self, id: &ClientId, touched: &Touched) -> bool {
        match &self.record {
            Some(record) => record.rests_on(touched),
            // An import enters clients by the thousand, and names a participant.
            None => match touched {
                Touched::Client(client) => client == id,
                Touched::Participant(_) => true,
                Touched::Anchor(_) | Touched::Key(_) | Touched::ResourceServer(_) => false,
            },
        }
    }
}

impl Memory {
    pub(super) fn new(size: MemorySize, head: Head) -> Self {
        Self {
            known: Cache::builder().weigher(|_, entry: &Arc<Entry>| entry.weight()).max_capacity(size.clients).build(),
            unknown: Cache::builder().max_capacity(size.unknown_clients).time_to_live(size.unknown_for).build(),
            shared: Shared::new(),
            askers: moka::sync::Cache::new(ASKERS),
            seen: AtomicI64::new(head.version.0),
            past: ArcSwap::from_pointee(head.past),
            recent: RwLock::new(Recent { history: 0, newest: None, floor: head.version.0, changes: VecDeque::new() }),
        }
    }

    /// The last change this node knows of.
    pub(super) fn seen(&self) -> RegistryVersion {
        RegistryVersion(self.seen.load(Ordering::Acquire))
    }

    /// The epoch it knows of.
    pub(super) fn epoch(&self) -> i64 {
        self.past.load().epoch
    }

    /// The past it knows of.
    pub(super) fn past(&self) -> Past {
        **self.past.load()
    }

    /// The record of the client with this id; loaded by one of those who ask for it at the same time.
    pub(super) async fn client(&self, id: &ClientId, store: &dyn RegistryStore) -> Result<Remembered, Missing> {
        if let Some(entry) = self.known.get(id).await {
            match (self.current_through(id, &entry), &entry.record) {
                (Some(version), Some(record)) => return Ok(Remembered { record: Arc::clone(record), version }),
                _ => forget(&self.known, id, &entry).await,
            }
        }
        if let Some(entry) = self.unknown.get(id).await {
            match self.current_through(id, &entry) {
                Some(_) => return Err(Missing::Unknown),
                None => forget(&self.unknown, id, &entry).await,
            }
        }
        let mut overtaken = 0;
        loop {
            let loaded = self.known.try_get_with_by_ref(id, load(id, store, &self.shared)).await;
            let entry = match loaded {
                Ok(entry) => entry,
                Err(failure) => match Arc::unwrap_or_clone(failure) {
                    Failure::Unavailable(error) => return Err(Missing::Unavailable(error)),
                    Failure::Unknown(entry) => {
                        self.unknown.insert(id.clone(), entry).await;
                        return Err(Missing::Unknown);
                    }
                },
            };
            let Some(record) = &entry.record else { return Err(Missing::Unknown) };
            if let Some(version) = self.current_through(id, &entry) {
                return Ok(Remembered { record: Arc::clone(record), version });
            }
            // A change overtook the load.
            forget(&self.known, id, &entry).await;
            overtaken += 1;
            if overtaken == OVERTAKEN_LIMIT {
                // It says truly what it was read at: a decision resting on it is caught by the fence.
                return Ok(Remembered { record: Arc::clone(record), version: record.as_of });
            }
        }
    }

    /// Whose the certificate with this thumbprint and this key is. A resource server's is remembered until the registry
    /// changes in whatever way: few certificates ask, and often.
    pub(super) async fn asker(
        &self,
        thumbprint: &Thumbprint,
        key: &KeyHash,
        store: &dyn RegistryStore,
    ) -> Result<Arc<Asker>, StoreUnavailable> {
        let certificate = (*thumbprint, *key);
        // Before the store is asked: what it says then is of this moment or a later one.
        let stand = self.stand();
        if let Some((of, asker)) = self.askers.get(&certificate)
            && of == stand
        {
            return Ok(asker);
        }
        let asker = Arc::new(store.asker(thumbprint, key).await?);
        // What is nobody's takes no room of those that are somebody's.
        if asker.resource_server.is_some() {
            self.askers.insert(certificate, (stand, Arc::clone(&asker)));
        }
        Ok(asker)
    }

    pub(super) fn stand(&self) -> Stand {
        // Under the lock, `seen` is the last change in the ring.
        let recent = self.recent.read().unwrap_or_else(PoisonError::into_inner);
        Stand { history: recent.history, version: self.seen() }
    }

    /// Takes in what the store says has happened after version `since`.
    pub(super) fn absorb(&self, since: RegistryVersion, look: Since) {
        let Since { head, since: origin, newest, changes } = look;
        let mut recent = self.recent.write().unwrap_or_else(PoisonError::into_inner);
        let seen = self.seen.load(Ordering::Acquire);
        // A fail-over that lost changes may have made as many others before this node looks again.
        let is_made_otherwise = recent.newest.as_ref().is_some_and(|(of, known)| *of == since && *known != origin);
        if head.past != self.past() || head.version.0 < since.0 || is_made_otherwise {
            // Another history: nothing that is remembered can be compared with it.
            self.past.store(Arc::new(head.past));
            recent.history += 1;
            self.known.invalidate_all();
            self.unknown.invalidate_all();
            recent.begin_at(head.version.0);
            recent.newest = Some((head.version, newest));
            self.seen.store(head.version.0, Ordering::Release);
            return;
        }
        if head.version.0 >= seen {
            recent.newest = Some((head.version, newest));
        }
        if changes.is_empty() && head.version.0 > seen {
            // Versions without a change on record: nothing older can be checked.
            recent.begin_at(head.version.0);
            self.seen.store(head.version.0, Ordering::Release);
            return;
        }
        let mut last = seen;
        for change in changes {
            let version = change.version.0;
            if version <= seen {
                continue;
            }
            if version > last + 1 {
                // A gap: what is older cannot be checked any more.
                recent.begin_at(version - 1);
            }
            last = version;
            recent.push(change);
        }
        self.seen.store(last, Ordering::Release);
    }

    /// Takes in a change made here, if it follows on the last one seen; says whether it has been seen now.
    pub(super) fn absorb_next(&self, version: RegistryVersion, changes: Vec<Change>) -> bool {
        let mut recent = self.recent.write().unwrap_or_else(PoisonError::into_inner);
        let seen = self.seen.load(Ordering::Acquire);
        if version.0 == seen + 1 {
            changes.into_iter().for_each(|change| recent.push(change));
            self.seen.store(version.0, Ordering::Release);
        }
        version.0 <= seen + 1
    }

    /// Whether, of all changes after version `from` up to `through`, none but `made` touched what `record` rests on. No,
    /// where that cannot be told.
    pub(super) fn touched_only_by(
        &self,
        made: Option<RegistryVersion>,
        record: &ClientRecord,
        from: RegistryVersion,
        through: RegistryVersion,
    ) -> bool {
        let recent = self.recent.read().unwrap_or_else(PoisonError::into_inner);
        if from.0 < recent.floor || through.0 > self.seen.load(Ordering::Acquire) {
            return false;
        }
        let first = recent.changes.partition_point(|change| change.version <= from);
        let mut between = recent.changes.range(first..).take_while(|change| change.version <= through);
        between.all(|change| Some(change.version) == made || !record.rests_on(&change.touched))
    }

    /// The version through which `entry` is known to be true, or nothing if it is not known to be true now.
    fn current_through(&self, id: &ClientId, entry: &Entry) -> Option<RegistryVersion> {
        if entry.past != self.past() {
            return None;
        }
        let checked = entry.checked_through.load(Ordering::Acquire);
        if checked >= self.seen.load(Ordering::Acquire) {
            return Some(RegistryVersion(checked));
        }
        let recent = self.recent.read().unwrap_or_else(PoisonError::into_inner);
        if checked < recent.floor {
            return None;
        }
        let first = recent.changes.partition_point(|change| change.version.0 <= checked);
        if recent.changes.range(first..).any(|change| entry.rests_on(id, &change.touched)) {
            return None;
        }
        // Under the lock, `seen` is the last change in the ring.
        let seen = self.seen.load(Ordering::Acquire);
        let checked = entry.checked_through.fetch_max(seen, Ordering::AcqRel).max(seen);
        Some(RegistryVersion(checked))
    }
}

impl Recent {
    fn begin_at(&mut self, version: i64) {
        self.floor = version;
        self.changes.clear();
    }

    fn push(&mut self, change: Change) {
        // All changes of one version go together.
        while self.changes.len() >= REACH as usize {
            let Some(oldest) = self.changes.pop_front() else { break };
            self.floor = oldest.version.0;
        }
        self.changes.push_back(change);
        while self.changes.front().is_some_and(|oldest| oldest.version.0 <= self.floor) {
            self.changes.pop_front();
        }
    }
}

#[derive(Clone, Debug)]
enum Failure {
    Unknown(Arc<Entry>),
    Unavailable(StoreUnavailable),
}

async fn load(id: &ClientId, store: &dyn RegistryStore, shared: &Shared) -> Result<Arc<Entry>, Failure> {
    let (head, mut record) = store.client_record(id).await.map_err(Failure::Unavailable)?;
    let known = record.is_some();
    if let Some(record) = &mut record {
        shared.share(record);
    }
    let entry = Arc::new(Entry {
        record: record.map(Arc::new),
        past: head.past,
        checked_through: AtomicI64::new(head.version.0),
    });
    if known { Ok(entry) } else { Err(Failure::Unknown(entry)) }
}

/// Forgets `entry`, but not one that has taken its place.
async fn forget(cache: &Cache<ClientId, Arc<Entry>>, id: &ClientId, entry: &Arc<Entry>) {
    cache
        .entry_by_ref(id)
        .and_compute_with(|present| {
            let op = match present {
                Some(present) if Arc::ptr_eq(present.value(), entry) => Op::Remove,
                _ => Op::Nop,
            };
            std::future::ready(op)
        })
        .await;
}

#[cfg(test)]
mod tests {
    use super::*;
    use countersign_resource_server::scope::Scope;

    use crate::registry::client::ClientAuthentication;
    use crate::registry::fixture::{
        NOW, anchor, any_name, because, client, client_id, entitlement, facts, participant, registry, resource_server,
    };

    const PAST: Past = Past { epoch: 1, server: 1 };
    const HEAD: Head = Head { past: PAST, version: RegistryVersion(10) };

    fn entry(checked_through: i64) -> Entry {
        Entry { record: None, past: PAST, checked_through: AtomicI64::new(checked_through) }
    }

    fn change(version: i64, id: &str) -> Change {
        Change { version: RegistryVersion(version), touched: Touched::Client(client_id(id)) }
    }

    fn absorb(memory: &Memory, changes: Vec<Change>) {
        let version = changes.last().unwrap().version;
        memory.absorb(memory.seen(), look(1, version.0, ["", ""], changes));
    }

    fn look(epoch: i64, version: i64, [since, newest]: [&str; 2], changes: Vec<Change>) -> Since {
        let head = Head { past: Past { epoch, ..PAST }, version: RegistryVersion(version) };
        Since { head, since: Origin(since.to_owned()), newest: Origin(newest.to_owned()), changes }
    }

    #[test]
    fn an_entry_no_change_touched_is_checked_once() {
        let memory = Memory::new(MemorySize::default(), HEAD);
        let entry = entry(10);
        absorb(&memory, vec![change(11, "other"), change(12, "another")]);
        assert_eq!(memory.current_through(&client_id("this"), &entry), Some(RegistryVersion(12)));
        assert_eq!(entry.checked_through.load(Ordering::SeqCst), 12);
    }

    #[test]
    fn an_entry_a_change_touched_is_not_current() {
        let memory = Memory::new(MemorySize::default(), HEAD);
        absorb(&memory, vec![change(11, "other"), change(12, "this"), change(13, "other")]);
        assert_eq!(memory.current_through(&client_id("this"), &entry(11)), None);
        assert_eq!(memory.current_through(&client_id("this"), &entry(12)), Some(RegistryVersion(13)));
    }

    #[test]
    fn what_another_server_says_leaves_nothing_current_and_is_not_current_before_it_is_looked_at() {
        let memory = Memory::new(MemorySize::default(), HEAD);
        let past = Past { server: 2, ..PAST };
        let loaded = Entry { past, ..entry(12) };
        assert_eq!(memory.current_through(&client_id("this"), &loaded), None);
        let head = Head { past, version: RegistryVersion(12) };
        let look = look(1, 12, ["", ""], vec![change(11, "other"), change(12, "another")]);
        memory.absorb(memory.seen(), Since { head, ..look });
        assert_eq!(memory.current_through(&client_id("this"), &entry(10)), None);
        assert_eq!(memory.current_through(&client_id("this"), &loaded), Some(RegistryVersion(12)));
        assert_eq!(memory.stand(), Stand { history: 1, version: RegistryVersion(12) });
    }

    #[test]
    fn an_entry_newer_than_the_last_change_seen_is_current() {
        let memory = Memory::new(MemorySize::default(), HEAD);
        assert_eq!(memory.current_through(&client_id("this"), &entry(14)), Some(RegistryVersion(14)));
        // What it was loaded after does not touch it when this node sees it at last.
        absorb(&memory, (11..=14).map(|version| change(version, "this")).collect());
        assert_eq!(memory.current_through(&client_id("this"), &entry(14)), Some(RegistryVersion(14)));
    }

    #[test]
    fn an_entry_older_than_what_is_remembered_of_changes_is_not_current() {
        let memory = Memory::new(MemorySize::default(), HEAD);
        let last = 11 + i64::from(REACH);
        absorb(&memory, (11..=last).map(|version| change(version, "other")).collect());
        assert_eq!(memory.current_through(&client_id("this"), &entry(10)), None);
        assert_eq!(memory.current_through(&client_id("this"), &entry(11)), Some(RegistryVersion(last)));
    }

    #[test]
    fn a_version_with_more_changes_than_are_remembered_leaves_nothing_current() {
        let memory = Memory::new(MemorySize::default(), HEAD);
        absorb(&memory, (0..=REACH).map(|_| change(11, "other")).collect());
        assert_eq!(memory.current_through(&client_id("this"), &entry(10)), None);
        assert_eq!(memory.current_through(&client_id("this"), &entry(11)), Some(RegistryVersion(11)));
    }

    #[test]
    fn a_change_made_here_is_taken_in_only_if_none_is_missing_before_it() {
        let memory = Memory::new(MemorySize::default(), HEAD);
        assert!(!memory.absorb_next(RegistryVersion(12), vec![change(12, "this")]));
        assert_eq!(memory.seen(), RegistryVersion(10));
        assert!(memory.absorb_next(RegistryVersion(11), vec![change(11, "this")]));
        assert_eq!(memory.seen(), RegistryVersion(11));
        // The watcher was faster.
        assert!(memory.absorb_next(RegistryVersion(11), vec![change(11, "this")]));
        assert_eq!(memory.seen(), RegistryVersion(11));
    }

    #[test]
    fn a_gap_leaves_nothing_current_that_is_older() {
        let memory = Memory::new(MemorySize::default(), HEAD);
        absorb(&memory, vec![change(11, "other"), change(13, "other")]);
        assert_eq!(memory.current_through(&client_id("this"), &entry(11)), None);
        assert_eq!(memory.current_through(&client_id("this"), &entry(12)), Some(RegistryVersion(13)));
    }

    #[test]
    fn a_registry_that_went_back_leaves_nothing_current() {
        let memory = Memory::new(MemorySize::default(), HEAD);
        memory.absorb(RegistryVersion(10), look(2, 7, ["", ""], vec![]));
        assert_eq!(memory.seen(), RegistryVersion(7));
        assert_eq!(memory.current_through(&client_id("this"), &entry(10)), None);
    }

    #[test]
    fn a_registry_whose_newest_version_was_made_otherwise_leaves_nothing_current() {
        let memory = Memory::new(MemorySize::default(), HEAD);
        memory.absorb(RegistryVersion(10), look(1, 10, ["made", "made"], vec![]));
        // The same again, and one more.
        memory.absorb(RegistryVersion(10), look(1, 11, ["made", "then"], vec![change(11, "other")]));
        assert_eq!(memory.current_through(&client_id("this"), &entry(10)), Some(RegistryVersion(11)));
        // Version 11 was lost, others have come, and what was changed in its place is not among them.
        memory.absorb(RegistryVersion(11), look(1, 12, ["otherwise", "newer"], vec![change(12, "other")]));
        assert_eq!(memory.seen(), RegistryVersion(12));
        assert_eq!(memory.current_through(&client_id("this"), &entry(11)), None);
        memory.absorb(RegistryVersion(12), look(1, 13, ["newer", "newest"], vec![change(13, "other")]));
        assert_eq!(memory.current_through(&client_id("this"), &entry(12)), Some(RegistryVersion(13)));
    }

    #[tokio::test]
    async fn unknown_ids_are_remembered_within_bounds() {
        let (_directory, registry) = registry().await;
        let memory = Memory::new(MemorySize { unknown_clients: 16, ..MemorySize::default() }, HEAD);
        for number in 0..200 {
            let id = client_id(&format!("nobody-{number}"));
            assert!(matches!(memory.client(&id, registry.store.as_ref()).await, Err(Missing::Unknown)));
        }
        memory.unknown.run_pending_tasks().await;
        assert!(memory.unknown.entry_count() <= 16);
        assert_eq!(memory.known.entry_count(), 0);
    }

    #[tokio::test]
    async fn records_share_their_anchors() {
        let (_directory, registry) = registry().await;
        registry.add_participant(participant("acme"), because("x")).await.unwrap();
        registry.add_anchor(anchor("ca"), b"ca".to_vec(), because("x")).await.unwrap();
        let id = participant("acme").id;
        registry.grant_anchor(id, anchor("ca").id, any_name(), because("x")).await.unwrap();
        for name in ["one", "other"] {
            registry.add_client(client(name, "acme"), vec![], because("x")).await.unwrap();
        }
        let anchor_of =
            async |name: &str| Arc::clone(&registry.client(&client_id(name)).await.unwrap().record.anchors[0].anchor);
        let before = anchor_of("one").await;
        assert!(Arc::ptr_eq(&before, &anchor_of("other").await));
        let mut changed = anchor("ca");
        changed.subject = "CN=changed".to_owned();
        registry.change_anchor(changed.clone(), because("x")).await.unwrap();
        let after = anchor_of("one").await;
        assert_eq!(*after, changed);
        assert!(Arc::ptr_eq(&after, &anchor_of("other").await));
    }

    #[tokio::test]
    async fn records_share_their_participant_and_their_resource_servers() {
        let (_directory, registry) = registry().await;
        registry.add_participant(participant("acme"), because("x")).await.unwrap();
        registry.add_resource_server(resource_server("api"), because("x")).await.unwrap();
        for name in ["one", "other"] {
            registry.add_client(client(name, "acme"), vec![], because("x")).await.unwrap();
            registry.add_entitlement(entitlement(name, name, "api"), because("x")).await.unwrap();
        }
        let record = async |name: &str| registry.client(&client_id(name)).await.unwrap().record;
        let (one, other) = (record("one").await, record("other").await);
        assert!(Arc::ptr_eq(&one.participant, &other.participant));
        let server_of = |record: &ClientRecord| Arc::clone(&record.entitlements[0].resource_server);
        assert!(Arc::ptr_eq(&server_of(&one), &server_of(&other)));

        // What was changed is not shared with what was read before.
        let mut renamed = participant("acme");
        renamed.legal_name = "Renamed".to_owned();
        registry.change_participant(renamed.clone(), because("x")).await.unwrap();
        let mut changed = resource_server("api");
        changed.scopes = Scope::parse("read write more").unwrap();
        registry.change_resource_server(changed.clone(), because("x")).await.unwrap();
        let (one, other) = (record("one").await, record("other").await);
        assert_eq!((one.participant.as_ref(), server_of(&one).as_ref()), (&renamed, &changed));
        assert!(Arc::ptr_eq(&one.participant, &other.participant));
        assert!(Arc::ptr_eq(&server_of(&one), &server_of(&other)));
    }

    #[tokio::test]
    async fn a_record_with_many_certificates_counts_for_several() {
        let (_directory, registry) = registry().await;
        registry.add_participant(participant("acme"), because("x")).await.unwrap();
        registry.add_client(client("acme-1", "acme"), vec![], because("x")).await.unwrap();
        let plain = registry.client(&client_id("acme-1")).await.unwrap().record;
        let weight = |certificates: u32, jwks: usize| {
            let mut record = ClientRecord::clone(&plain);
            record.certificates = (0..certificates).map(|n| facts(n).announced(client_id("acme-1"), NOW)).collect();
            if jwks > 0 {
                record.client.authentication = ClientAuthentication::SelfSignedTlsClientAuth { jwks: "x".repeat(jwks) };
            }
            Entry { record: Some(Arc::new(record)), past: PAST, checked_through: AtomicI64::new(10) }.weight()
        };
        assert_eq!([0, 1, 7, 8, 256].map(|certificates| weight(certificates, 0)), [1, 1, 1, 2, 8]);
        assert_eq!([1, 8 * JWKS_BYTES_OF_ONE].map(|jwks| weight(0, jwks)), [1, 2]);
        assert_eq!(entry(10).weight(), 1);
    }

    #[tokio::test]
    async fn records_are_remembered_within_bounds() {
        let (_directory, registry) = registry().await;
        registry.add_participant(participant("acme"), because("x")).await.unwrap();
        let memory =
            Memory::new(MemorySize { clients: 8, ..MemorySize::default() }, registry.store.head().await.unwrap());
        for number in 0..40 {
            let id = format!("acme-{number}");
            registry.add_client(client(&id, "acme"), vec![], because("x")).await.unwrap();
            let found = memory.client(&client_id(&id), registry.store.as_ref()).await.unwrap();
            assert_eq!(found.record.client.id, client_id(&id));
        }
        memory.known.run_pending_tasks().await;
        assert!(memory.known.entry_count() <= 8);
    }
}
