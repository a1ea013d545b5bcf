//! Keeps the lists of every anchor at hand, for as long as the server runs.
//!
//! Takes the registry's anchors and looks where they say their lists are: files every second, addresses before their lists
//! run out, distribution points when a certificate first names one. What cannot be used changes nothing: what is held
//! stays, and ages. No request waits for it, but for the first fetch of a distribution point, and then not for long.

use std::collections::{BTreeSet, HashMap, HashSet};
use std::fmt;
use std::panic::AssertUnwindSafe;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use countersign_resource_server::time::Clock;
use futures_util::FutureExt;
use tokio::sync::{Semaphore, mpsc};
use tokio::task::JoinHandle;

use super::ListRefusal;
use super::cache::{self, Cache};
use super::gauges::Gauges;
use super::index::{HeldLists, RevocationList, Scope};
use super::marks::{self, Swapped};
use super::source::{self, Fingerprint, Found, Judging, MOST_LISTS, Place};
use super::verification::{ListIssuer, Verified, add_issued, succeeds, verify_kept};
use super::watched::{Never, Source, SourceId, Waiting, Watched};
use crate::fetch::{Fetcher, is_allowed};
use crate::pki::revocation::uses_lists;
use crate::registry::history::Touched;
use crate::registry::trust_anchor::{AnchorState, TrustAnchor};
use crate::registry::{AnchorId, KeyHash, Page, Registry, Stand, StoreUnavailable};
use crate::telemetry;

/// How long a request may wait for the first fetch of a distribution point.
const PATIENCE: Duration = Duration::from_secs(2);

/// How often files are looked at, and everything else is looked after. What is due is counted in such ticks: a calendar that
/// jumps makes nobody ask too often.
const TICK: Duration = Duration::from_secs(1);

/// A file is read again after so many ticks even if it looks the same.
const REREAD_TICKS: u64 = 600;

/// Distribution points learnt from certificates, for each anchor.
const MOST_POINTS: usize = 256;

/// A distribution point that no certificate named for so long makes room for another.
const POINT_TICKS: u64 = 7 * 86_400;

/// Addresses that are asked at the same time.
const FETCHES: usize = 8;

/// And of one anchor: somebody's slow publisher keeps nobody else's lists waiting.
const FETCHES_OF_ONE_ANCHOR: usize = 2;

/// Certificates that the lists of one anchor may name, all of them together: 160 MB.
const MOST_ENTRIES: usize = 5_000_000;

/// And as many times the longest list may all of them together be long: that much is written down, and read at every start.
const MOST_LONGEST_LISTS: usize = 8;

/// What it takes to keep lists.
#[derive(Debug)]
pub struct Setup {
    /// Where anchors are.
    pub registry: Arc<Registry>,
    /// What lists are fetched with.
    pub fetcher: Fetcher,
    /// What time it is.
    pub clock: Arc<dyn Clock>,
    /// Where lists are held.
    pub lists: Arc<HeldLists>,
    /// Where they are written down.
    pub directory: PathBuf,
    /// The longest list, in octets.
    pub longest_bytes: usize,
}

/// How requests reach whoever keeps the lists.
#[derive(Debug)]
pub struct Keeper {
    events: mpsc::Sender<Event>,
}

impl Keeper {
    /// Loads the lists of before a restart and begins to keep them current.
    ///
    /// # Errors
    /// [`StoreUnavailable`] if the anchors cannot be read.
    pub async fn open(setup: Setup) -> Result<(Arc<Self>, JoinHandle<()>), StoreUnavailable> {
        let (events, incoming) = mpsc::channel(64);
        let mut keeping = Keeping::new(setup, events.clone());
        keeping.look_at_all_anchors().await?;
        keeping.load_cache().await;
        Ok((Arc::new(Self { events }), tokio::spawn(keeping.run(incoming))))
    }

    /// Notes what a path that was just validated under `anchor` has shown: intermediates, and where their lists are. Never
    /// waits; what is not noted now will be with another path.
    pub(in crate::pki) fn learn(&self, anchor: &AnchorId, intermediates: Vec<Vec<u8>>, points: Vec<String>) {
        if !(intermediates.is_empty() && points.is_empty()) {
            // Full: others are being noted.
            let _ = self.events.try_send(Event::Learnt { anchor: anchor.clone(), intermediates, points });
        }
    }

    /// Notes the intermediates of a path that was refused for want of a list. Resolves when every place has been looked at where
    /// that list may be: at once if they are known, or after two seconds.
    pub(in crate::pki) async fn wait_to_learn(&self, anchor: &AnchorId, intermediates: Vec<Vec<u8>>) {
        self.wait(|done| Event::Shown { anchor: anchor.clone(), intermediates, done }).await;
    }

    /// Resolves when each of these distribution points has been asked at least once, or after two seconds. Where others wait
    /// for the same, it is the same fetch.
    pub(in crate::pki) async fn wait_for(&self, anchor: &AnchorId, points: Vec<String>) {
        self.wait(|done| Event::Wanted { anchor: anchor.clone(), points, done }).await;
    }

    async fn wait(&self, wanted: impl FnOnce(Waiting) -> Event) {
        let (done, asked) = mpsc::channel(1);
        let waiting = async {
            let mut asked = asked;
            if self.events.send(wanted(done)).await.is_ok() {
                // Nothing is ever sent: it ends when nobody holds the other end any more.
                let _: Option<Never> = asked.recv().await;
            }
        };
        // Whether it came in time is seen in the lists.
        let _ = tokio::time::timeout(PATIENCE, waiting).await;
    }
}

/// What the keeper is told.
enum Event {
    Learnt { anchor: AnchorId, intermediates: Vec<Vec<u8>>, points: Vec<String> },
    Shown { anchor: AnchorId, intermediates: Vec<Vec<u8>>, done: Waiting },
    Wanted { anchor: AnchorId, points: Vec<String>, done: Waiting },
    Found { source: SourceId, origin: String, found: Result<Found, ListRefusal> },
    Looked { source: SourceId, fingerprint: Option<Fingerprint> },
}

impl fmt::Debug for Event {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Event")
    }
}

/// Everything the keeper knows.
#[derive(Debug)]
struct Keeping {
    setup: Setup,
    cache: Option<Cache>,
    events: mpsc::Sender<Event>,
    swapped: mpsc::UnboundedSender<Swapped>,
    marking: JoinHandle<()>,
    written: mpsc::Sender<(Arc<RevocationList>, Bytes, Vec<Vec<u8>>)>,
    writing: JoinHandle<()>,
    fetches: Arc<Semaphore>,
    /// Lists are read one at a time: each may take as much memory as its limit allows.
    reading: Arc<Semaphore>,
    /// How far the registry has been followed: not at all, at first and where it has to be begun anew.
    seen: Option<Stand>,
    tick: u64,
    anchors: HashMap<AnchorId, Watched>,
    sources: HashMap<SourceId, Source>,
    /// Under which anchors each list was found.
    suppliers: HashMap<(KeyHash, Scope), BTreeSet<AnchorId>>,
    said_stale: HashSet<[u8; 32]>,
    gauges: Gauges,
}

impl Drop for Keeping {
    fn drop(&mut self) {
        self.marking.abort();
        self.writing.abort();
    }
}

impl Keeping {
    fn new(setup: Setup, events: mpsc::Sender<Event>) -> Self {
        let cache = Cache::open(setup.directory.clone())
            .inspect_err(|error| {
                tracing::warn!(directory = %setup.directory.display(), %error, "revocation lists are not kept over a restart");
            })
            .ok();
        let (swapped, swaps) = mpsc::unbounded_channel();
        let marking = tokio::spawn(marks::keep_marking(Arc::clone(&setup.registry), Arc::clone(&setup.clock), swaps));
        let (written, writes) = mpsc::channel(2);
        let writing = tokio::spawn(write_down(cache.clone(), writes));
        Self {
            setup,
            cache,
            events,
            swapped,
            marking,
            written,
            writing,
            fetches: Arc::new(Semaphore::new(FETCHES)),
            reading: Arc::new(Semaphore::new(1)),
            seen: None,
            tick: 0,
            anchors: HashMap::new(),
            sources: HashMap::new(),
            suppliers: HashMap::new(),
            said_stale: HashSet::new(),
            gauges: Gauges::default(),
        }
    }

    async fn run(mut self, mut incoming: mpsc::Receiver<Event>) {
        let mut versions = self.setup.registry.subscribe();
        let mut ticks = tokio::time::interval(TICK);
        ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            // A fault of this program in one step is on record through the panic itself, and ends that step alone: otherwise
            // lists would silently grow old, everybody's.
            let step = async {
                tokio::select! {
                    event = incoming.recv() => self.hear(event?).await,
                    changed = versions.changed() => {
                        changed.ok()?;
                        self.follow_registry().await;
                    }
                    _ = ticks.tick() => {
                        self.tick += 1;
                        self.catch_up().await;
                        self.look_at_sources();
                        self.measure();
                    }
                }
                Some(())
            };
            match AssertUnwindSafe(step).catch_unwind().await {
                Ok(Some(())) => {}
                Ok(None) => return,
                // What it was about may be half done: with the next tick every anchor is looked at anew.
                Err(_) => self.seen = None,
            }
        }
    }
}

/// Anchors.
impl Keeping {
    /// What a change asked for that could not be read when it was told, or was told to nobody.
    async fn catch_up(&mut self) {
        let stand = self.setup.registry.stand();
        if self.seen.is_none_or(|seen| seen.history != stand.history || seen.version < stand.version) {
            self.follow_registry().await;
        }
    }

    async fn follow_registry(&mut self) {
        let registry = Arc::clone(&self.setup.registry);
        let changes = match self.seen {
            Some(seen) => registry.changes_after(seen).await.ok().map(|changes| (seen, changes)),
            None => None,
        };
        let followed = match changes {
            Some((seen, changes)) => {
                let touched: BTreeSet<AnchorId> = changes
                    .iter()
                    .filter_map(|change| match &change.touched {
                        Touched::Anchor(id) => Some(id.clone()),
                        _ => None,
                    })
                    .collect();
                let last = changes.last().map_or(seen.version, |change| change.version);
                let mut read = Ok(());
                for id in touched {
                    read = read.and(match self.setup.registry.anchor(&id).await {
                        Ok(anchor) => {
                            self.look_at_anchor(&id, anchor);
                            Ok(())
                        }
                        Err(error) => Err(error),
                    });
                }
                read.map(|()| self.seen = Some(Stand { version: last, ..seen }))
            }
            // Another history, or more has happened than is kept: everything is looked at.
            None => self.look_at_all_anchors().await,
        };
        match followed {
            Ok(()) => self.look_at_sources(),
            Err(error) => tracing::warn!(%error, "anchors cannot be read: where their revocation lists are may be old"),
        }
    }

    async fn look_at_all_anchors(&mut self) -> Result<(), StoreUnavailable> {
        let seen = self.setup.registry.stand();
        let mut page = Page::first(500);
        let mut there = HashSet::new();
        loop {
            let anchors = self.setup.registry.anchors(page).await?;
            let Some(last) = anchors.last() else { break };
            page = Page::after(last.id.to_string(), 500);
            for anchor in anchors {
                there.insert(anchor.id.clone());
                self.look_at_anchor(&anchor.id.clone(), Some(anchor));
            }
        }
        let gone: Vec<AnchorId> = self.anchors.keys().filter(|id| !there.contains(*id)).cloned().collect();
        for id in gone {
            self.look_at_anchor(&id, None);
        }
        self.seen = Some(seen);
        Ok(())
    }

    fn look_at_anchor(&mut self, id: &AnchorId, anchor: Option<TrustAnchor>) {
        let known = self.anchors.remove(id);
        let wanted = anchor.filter(|anchor| anchor.state == AnchorState::Active && uses_lists(&anchor.revocation));
        let Some(watched) = wanted.and_then(|anchor| {
            if known.as_ref().is_some_and(|known| known.anchor == anchor) {
                return known;
            }
            Watched::new(anchor, known.map(|known| known.learnt).unwrap_or_default())
        }) else {
            self.forget(id);
            return;
        };
        let sources = &watched.anchor.revocation;
        self.sources.retain(|(of, location), source| {
            of != id
                || sources.crls.iter().any(|own| own.location == *location)
                || (source.point_since.is_some() && is_allowed(location, &sources.crl_url_prefixes))
        });
        for own in &sources.crls {
            let source = self
                .sources
                .entry((id.clone(), own.location.clone()))
                .or_insert_with(|| Source::new(&own.location, None));
            source.point_since = None;
            source.judge_anew();
        }
        self.anchors.insert(id.clone(), watched);
    }

    /// Nobody asks for this anchor's lists any more.
    fn forget(&mut self, id: &AnchorId) {
        self.sources.retain(|(of, _), _| of != id);
        self.suppliers.retain(|_, anchors| {
            anchors.remove(id);
            !anchors.is_empty()
        });
        let suppliers = &self.suppliers;
        self.setup.lists.drop_where(|list| !suppliers.contains_key(&(list.issuer_key, list.scope.clone())));
    }
}

/// Lists.
impl Keeping {
    /// The lists of before a restart, each verified again.
    async fn load_cache(&mut self) {
        let Some(cache) = self.cache.clone() else { return };
        let longest = self.setup.longest_bytes;
        let anchors: Vec<(AnchorId, Vec<Arc<ListIssuer>>)> =
            self.anchors.iter().map(|(id, watched)| (id.clone(), watched.issuers.clone())).collect();
        let load = move || {
            let mut loaded: Vec<(AnchorId, Verified)> = Vec::new();
            for kept in cache.read(longest) {
                let chain: Vec<&[u8]> = kept.chain.iter().map(Vec::as_slice).collect();
                let before = loaded.len();
                for (id, issuers) in &anchors {
                    let mut issuers = issuers.clone();
                    add_issued(&mut issuers, &chain);
                    if let Ok(verified) = source::contained(|| verify_kept(&kept.list, &issuers)) {
                        loaded.push((id.clone(), verified));
                    }
                }
                if loaded.len() == before {
                    Cache::remove(&kept.path);
                }
            }
            loaded
        };
        for (id, verified) in tokio::task::spawn_blocking(load).await.unwrap_or_default() {
            if let Some(watched) = self.anchors.get_mut(&id) {
                watched.learn(verified.issuer.chain.clone());
            }
            // Of two anchors with one list, the second finds it held.
            let _ = self.take(&id, verified, None);
        }
    }

    /// Puts a list in place, if it is newer than the one held.
    fn take(&mut self, anchor: &AnchorId, verified: Verified, der: Option<Bytes>) -> Result<bool, ListRefusal> {
        let Verified { list, issuer } = verified;
        let held = self.setup.lists.now().held(&list.issuer_key, &list.scope).cloned();
        let is_new = match &held {
            Some(held) => succeeds(&list, held)?,
            None => true,
        };
        if is_new && !self.has_room_for(&list, anchor) {
            return Err(ListRefusal::TooMany);
        }
        self.suppliers.entry((list.issuer_key, list.scope.clone())).or_default().insert(anchor.clone());
        if !is_new {
            return Ok(false);
        }
        let previous = self.setup.lists.put(&list);
        tracing::info!(
            anchor.id = %anchor,
            list.id = cache::short_name(&list.issuer_key, &list.scope, 8),
            list.number = %list.number,
            list.entries = list.entries.len(),
            list.next_update = list.next_update.as_seconds(),
            "revocation list held"
        );
        let is_kept = der.is_none();
        if let Some(der) = der
            && self.written.try_send((Arc::clone(&list), der, issuer.chain.clone())).is_err()
        {
            tracing::warn!("a revocation list is not kept over a restart: others are still being written");
        }
        let under = self
            .anchors
            .iter()
            .filter(|(_, watched)| watched.issuers.iter().any(|known| known.key_hash == list.issuer_key));
        let anchors = under.map(|(id, _)| id.clone()).collect();
        // Ends with this task.
        let _ = self.swapped.send(Swapped { list, previous, anchors, is_kept });
        Ok(true)
    }

    /// Whether the lists of `anchor`, with `list` among them, are few and short enough: what one of them asks for is lost to all
    /// others.
    fn has_room_for(&self, list: &RevocationList, anchor: &AnchorId) -> bool {
        let is_own = |other: &RevocationList| {
            let key = (other.issuer_key, other.scope.clone());
            key != (list.issuer_key, list.scope.clone())
                && self.suppliers.get(&key).is_some_and(|anchors| anchors.contains(anchor))
        };
        let lists = self.setup.lists.now();
        let (mut count, mut entries, mut octets) = (1, list.entries.len(), list.octets);
        for other in lists.all().filter(|other| is_own(other)) {
            count += 1;
            entries += other.entries.len();
            octets += other.octets;
        }
        let longest = self.setup.longest_bytes.saturating_mul(MOST_LONGEST_LISTS);
        count <= MOST_LISTS && entries <= MOST_ENTRIES && octets <= longest
    }

    /// Says how old the lists are, to whoever reads metrics, and once in the log when one is out of date.
    fn measure(&mut self) {
        let now = self.setup.clock.now();
        let lists = self.setup.lists.now();
        let by_anchor = self.suppliers.iter().flat_map(|((issuer_key, scope), anchors)| {
            let held = lists.held(issuer_key, scope).map(AsRef::as_ref);
            held.into_iter().flat_map(move |list| anchors.iter().map(move |anchor| (anchor, list)))
        });
        self.gauges.show(by_anchor, now);
        let stale: Vec<_> = lists.all().filter(|list| now >= list.next_update).collect();
        for list in stale.iter().filter(|list| !self.said_stale.contains(&list.digest)) {
            let id = cache::short_name(&list.issuer_key, &list.scope, 8);
            tracing::warn!(list.id = id, list.number = %list.number, "revocation list is out of date: what it speaks for is unknown");
        }
        self.said_stale = stale.iter().map(|list| list.digest).collect();
    }
}

/// Sources.
impl Keeping {
    async fn hear(&mut self, event: Event) {
        match event {
            Event::Learnt { anchor, intermediates, points } => self.learn(&anchor, intermediates, points),
            Event::Shown { anchor, intermediates, done } => {
                self.learn(&anchor, intermediates, Vec::new());
                let own = self.sources.iter_mut().filter(|((of, _), source)| *of == anchor && source.is_awaited());
                own.for_each(|(_, source)| source.waiting.push(done.clone()));
            }
            Event::Wanted { anchor, points, done } => self.want(&anchor, points, done),
            Event::Found { source, origin, found } => self.found(&source, origin, found),
            Event::Looked { source, fingerprint } => self.looked(&source, fingerprint),
        }
    }

    fn learn(&mut self, anchor: &AnchorId, intermediates: Vec<Vec<u8>>, points: Vec<String>) {
        let Some(watched) = self.anchors.get_mut(anchor) else { return };
        if watched.learn(intermediates) {
            let own = self.sources.iter_mut().filter(|((of, _), source)| of == anchor && source.may_lack_an_issuer());
            own.for_each(|(_, source)| source.look_for_the_learnt());
        }
        for point in points {
            self.point(anchor, &point);
        }
        self.look_at_sources();
    }

    fn want(&mut self, anchor: &AnchorId, points: Vec<String>, done: Waiting) {
        for point in points {
            if let Some(source) = self.point(anchor, &point)
                && source.is_awaited()
            {
                source.waiting.push(done.clone());
            }
        }
        // Dropped here where there is nothing to wait for, which the other side sees.
        drop(done);
        self.look_at_sources();
    }

    /// The source for a distribution point, if it may be asked and there is room.
    fn point(&mut self, anchor: &AnchorId, point: &str) -> Option<&mut Source> {
        let watched = self.anchors.get(anchor)?;
        if !is_allowed(point, &watched.anchor.revocation.crl_url_prefixes) {
            return None;
        }
        let id = (anchor.clone(), point.to_owned());
        if !self.sources.contains_key(&id) {
            let points =
                || self.sources.iter().filter(|((of, _), source)| of == anchor && source.point_since.is_some());
            if points().count() >= MOST_POINTS {
                let oldest = points().min_by_key(|(_, source)| source.point_since)?;
                if oldest.1.point_since? + POINT_TICKS > self.tick {
                    return None;
                }
                let oldest = oldest.0.clone();
                self.sources.remove(&oldest);
            }
            self.sources.insert(id.clone(), Source::new(point, Some(self.tick)));
        }
        let source = self.sources.get_mut(&id)?;
        source.point_since = source.point_since.map(|_| self.tick);
        Some(source)
    }

    fn look_at_sources(&mut self) {
        let held: Arc<HashSet<[u8; 32]>> = Arc::new(self.setup.lists.now().all().map(|list| list.digest).collect());
        let is_fetched = |source: &Source| source.looking && matches!(source.place, Place::Url(_));
        let mut fetched: HashMap<AnchorId, usize> = HashMap::new();
        for ((anchor, _), _) in self.sources.iter().filter(|(_, source)| is_fetched(source)) {
            *fetched.entry(anchor.clone()).or_default() += 1;
        }
        for (id, source) in &mut self.sources {
            let is_due = match source.place {
                Place::Url(_) => source.due <= self.tick,
                // A look costs next to nothing where nothing changed.
                Place::Path(_) => true,
            };
            let Some(watched) = self.anchors.get(&id.0) else { continue };
            if !is_due || source.looking {
                continue;
            }
            if matches!(source.place, Place::Url(_)) {
                let fetched = fetched.entry(id.0.clone()).or_default();
                if *fetched >= FETCHES_OF_ONE_ANCHOR {
                    continue;
                }
                *fetched += 1;
            }
            if source.read_at + REREAD_TICKS <= self.tick {
                source.fingerprint = None;
            }
            (source.looking, source.refused, source.next_update) = (true, false, None);
            (source.began, source.again) = (self.tick, false);
            let judging = Judging {
                issuers: watched.issuers.clone(),
                held: Arc::clone(&held),
                longest_bytes: self.setup.longest_bytes,
                now: self.setup.clock.now(),
            };
            let look = Look {
                source: id.clone(),
                place: source.place.clone(),
                before: source.fingerprint,
                fetcher: self.setup.fetcher.clone(),
                judging,
                events: self.events.clone(),
                fetches: Arc::clone(&self.fetches),
                reading: Arc::clone(&self.reading),
            };
            tokio::spawn(look.run());
        }
    }

    fn found(&mut self, id: &SourceId, origin: String, found: Result<Found, ListRefusal>) {
        let taken = match found {
            Ok(Found::Held(digest)) => {
                let held = self.setup.lists.now().all().find(|list| list.digest == digest).cloned();
                let is_issuer = |list: &RevocationList| {
                    let watched = self.anchors.get(&id.0);
                    watched.is_some_and(|own| own.issuers.iter().any(|issuer| issuer.key_hash == list.issuer_key))
                };
                if let Some(list) = held.as_ref().filter(|list| is_issuer(list)) {
                    let key = (list.issuer_key, list.scope.clone());
                    self.suppliers.entry(key).or_default().insert(id.0.clone());
                }
                Ok(held)
            }
            Ok(Found::New { verified, der }) if self.anchors.contains_key(&id.0) => {
                let list = Arc::clone(&verified.list);
                self.take(&id.0, verified, Some(der)).map(|_| Some(list))
            }
            Ok(Found::New { .. }) => Ok(None),
            Err(refusal) => Err(refusal),
        };
        let Some(source) = self.sources.get_mut(id) else { return };
        let said = match &taken {
            Ok(list) => {
                let next_update = list.as_ref().map(|list| list.next_update);
                source.next_update = [source.next_update, next_update].into_iter().flatten().min();
                String::new()
            }
            Err(refusal) => {
                source.refused = true;
                source.issuer_unknown |= *refusal == ListRefusal::IssuerUnknown;
                metrics::counter!(telemetry::CRLS_REFUSED, "reason" => refusal.reason()).increment(1);
                refusal.to_string()
            }
        };
        if source.said.get(&origin) != Some(&said) {
            match &taken {
                Ok(_) => tracing::debug!(anchor.id = %id.0, place = origin, "revocation list read"),
                Err(refusal) => {
                    tracing::warn!(anchor.id = %id.0, place = origin, %refusal, "revocation list not taken: what is held stays");
                }
            }
            source.said.insert(origin, said);
        }
    }

    fn looked(&mut self, id: &SourceId, fingerprint: Option<Fingerprint>) {
        let now = self.setup.clock.now();
        if let Some(source) = self.sources.get_mut(id) {
            source.looked(id, fingerprint, self.tick, now);
            if source.again {
                self.look_at_sources(); // somebody may be waiting for it
            }
        }
    }
}

/// One look at one source.
struct Look {
    source: SourceId,
    place: Place,
    before: Option<Fingerprint>,
    fetcher: Fetcher,
    judging: Judging,
    events: mpsc::Sender<Event>,
    fetches: Arc<Semaphore>,
    reading: Arc<Semaphore>,
}

impl Look {
    async fn run(self) {
        // Never closed while the keeper runs.
        let _fetch = match self.place {
            Place::Url(_) => self.fetches.acquire_owned().await.ok(),
            Place::Path(_) => None,
        };
        let (events, id) = (self.events.clone(), self.source.clone());
        // On a thread where waiting is allowed: one list after the other, as the keeper takes them.
        let sink = move |origin: &str, found: Result<Found, ListRefusal>| {
            let _ = events.blocking_send(Event::Found { source: id.clone(), origin: origin.to_owned(), found });
        };
        let look = source::look(self.place, self.before, &self.fetcher, &self.reading, self.judging, sink);
        // Whatever happens there, the source is looked at again.
        let fingerprint = AssertUnwindSafe(look).catch_unwind().await.ok().flatten();
        let _ = self.events.send(Event::Looked { source: self.source, fingerprint }).await;
    }
}

async fn write_down(cache: Option<Cache>, mut writes: mpsc::Receiver<(Arc<RevocationList>, Bytes, Vec<Vec<u8>>)>) {
    while let Some((list, der, chain)) = writes.recv().await {
        let Some(cache) = cache.clone() else { continue };
        let write = move || cache.write(&cache::name_of(&list), &der, &chain);
        match tokio::task::spawn_blocking(write).await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => tracing::warn!(%error, "a revocation list is not kept over a restart"),
            Err(error) => tracing::warn!(%error, "a revocation list is not kept over a restart"),
        }
    }
}

#[cfg(test)]
mod tests;
