//! The lists, signed: what is at their URIs.
//!
//! Takes blocks and marks as the store has them, gives a Status List Token for each list (draft-ietf-oauth-status-list-20
//! §5.1) and the aggregation of all (§9). Every node draws the same bits; each signs its own. What is held stays where the
//! store does not answer, and ages.

use std::collections::{BTreeMap, HashMap};
use std::io::{self, Write};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use countersign_resource_server::time::UnixTime;
use countersign_resource_server::token::jws::SigningAlgorithm;
use flate2::Compression;
use flate2::write::GzEncoder;
use serde::Serialize;
use sha2::{Digest, Sha256};
use tokio::task::spawn_blocking;
use tokio::time::{Instant, MissedTickBehavior, interval, sleep, sleep_until, timeout};

use super::array::{StatusArray, Width};
use super::scatter::{SIZE, Scatter};
use super::store::{ListsState, StoredList};
use super::{Dead, STATUS_LIST_TYPE, StatusListUnavailable, StatusLists};
use crate::mint::Signer;
use crate::registry::StoreUnavailable;
use crate::status::{ListUnavailable, SIGNED_EVERY};

/// How long a reader may keep a list before it asks again (§5.1 `ttl`): as long as one is good until the next is signed.
const TTL_SECONDS: i64 = 5;

/// How long a list may be relied upon after it was signed (§5.1 `exp`).
const LIFETIME_SECONDS: i64 = 60;

/// `INVALID` (§7.1): the one status but `VALID` that is told. What is suspended here is not told apart (§12.8).
const INVALID: u8 = 0x01;

/// Changes that come within this time share one drawing.
const SETTLE: Duration = Duration::from_millis(20);

/// How long to wait where the store did not answer.
const RETRY: Duration = Duration::from_millis(500);

/// How often strangers can make the server look for a list that it does not know.
const LOOKED_FOR_EVERY: Duration = Duration::from_millis(200);

/// How long somebody waits for such a look.
const LOOK_PATIENCE: Duration = Duration::from_secs(2);

/// How often ended lists are removed.
const FORGOTTEN_EVERY: Duration = Duration::from_secs(60);

/// How long they stay in the store: a calendar may be wrong, by minutes rather than hours.
const KEPT_LONGER: Duration = Duration::from_secs(3_600);

/// The length of an id: 16 octets in base64url.
const ID_LENGTH: usize = 22;

/// A Status List Token, ready to be sent.
#[derive(Debug)]
pub struct SignedList {
    /// The compact JWS: `application/statuslist+jwt`.
    pub compact: Arc<str>,
    /// The same, gzipped.
    pub gzip: Arc<[u8]>,
    /// A strong entity tag, with its quotes.
    pub etag: Arc<str>,
    /// What it says, before and after it is encoded.
    dead: DeadPlaces,
    lst: Arc<str>,
}

/// The URIs of all lists (§9.3).
#[derive(Debug, Default)]
pub struct Aggregation {
    /// `application/json`.
    pub json: Arc<str>,
    /// A strong entity tag, with its quotes.
    pub etag: Arc<str>,
}

/// Everything that is published, of one look into the store.
#[derive(Debug, Default)]
pub(super) struct Published {
    /// Which look.
    look: u64,
    lists: BTreeMap<String, Arc<SignedList>>,
    aggregation: Arc<Aggregation>,
}

/// What is dead in one list.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct DeadPlaces {
    /// The first of consecutive places, and how many.
    blocks: Vec<(u32, u32)>,
    /// Of single tokens.
    indexes: Vec<u32>,
}

/// §5.1, §4.2.
#[derive(Serialize)]
struct Claims<'a> {
    iss: &'a str,
    sub: &'a str,
    iat: i64,
    exp: i64,
    ttl: i64,
    status_list: StatusList<'a>,
}

#[derive(Serialize)]
struct StatusList<'a> {
    bits: u8,
    lst: &'a str,
    aggregation_uri: &'a str,
}

impl StatusLists {
    /// The list with this id; none, where no token that is still live has a place in it.
    ///
    /// # Errors
    /// [`StatusListUnavailable`] if that cannot be told: the store does not answer.
    pub async fn list(&self, id: &str) -> Result<Option<Arc<SignedList>>, StatusListUnavailable> {
        let find = |published: &Published| published.lists.get(id).map(Arc::clone);
        if let Some(list) = find(&self.held.borrow()) {
            return Ok(Some(list));
        }
        if id.len() != ID_LENGTH || !id.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_'))
        {
            return Ok(None);
        }
        // Another node may have begun it a moment ago. One look answers all who asked before it began.
        let mut held = self.held.subscribe();
        let asked_at = self.looks.load(Ordering::Acquire);
        self.wanted.notify_one();
        let looked = held.wait_for(|published| published.look > asked_at || published.lists.contains_key(id));
        match timeout(LOOK_PATIENCE, looked).await {
            Ok(Ok(published)) => Ok(find(&published)),
            Ok(Err(_)) | Err(_) => Err(StatusListUnavailable),
        }
    }

    /// The URIs of all lists (§9).
    pub fn aggregation(&self) -> Arc<Aggregation> {
        Arc::clone(&self.held.borrow().aggregation)
    }

    /// Draws every list up anew. What is held stays where that fails, and ages.
    ///
    /// # Errors
    /// [`ListUnavailable`].
    pub async fn renew(&self) -> Result<(), ListUnavailable> {
        let look = self.looks.fetch_add(1, Ordering::AcqRel) + 1;
        let now = self.clock.now();
        let state = self.store.status_lists(now).await?;
        let dead = Dead {
            epoch: state.epoch,
            blocks: state.dead.iter().map(|block| (block.list.clone(), block.place)).collect(),
        };
        self.dead.store(Arc::new(dead));
        let before = Arc::clone(&self.held.borrow());
        let published = self.draw_up(look, state, &before, now).await?;
        self.held.send_replace(Arc::new(published));
        Ok(())
    }

    /// Looks for lists that others have begun, and draws up all only where there is one: strangers can ask for any id.
    async fn look_for_new(&self) -> Result<(), ListUnavailable> {
        let look = self.looks.fetch_add(1, Ordering::AcqRel) + 1;
        let ids = self.store.status_list_ids(self.clock.now()).await?;
        let before = Arc::clone(&self.held.borrow());
        if !ids.iter().all(|id| before.lists.contains_key(id)) {
            return self.renew().await;
        }
        let (lists, aggregation) = (before.lists.clone(), Arc::clone(&before.aggregation));
        self.held.send_replace(Arc::new(Published { look, lists, aggregation }));
        Ok(())
    }

    async fn draw_up(
        &self,
        look: u64,
        state: ListsState,
        before: &Published,
        now: UnixTime,
    ) -> Result<Published, ListUnavailable> {
        let mut dead = dead_places(&state);
        let mut drawn = Vec::with_capacity(state.lists.len());
        for list in state.lists {
            let dead = dead.remove(&list.id).unwrap_or_default();
            let same = before.lists.get(&list.id).filter(|before| before.dead == dead);
            let (id, dead, lst) = match same {
                Some(same) => (list.id, dead, Arc::clone(&same.lst)),
                // A large list with much in it takes some milliseconds: others run meanwhile.
                None => {
                    let encoding = spawn_blocking(move || encode(&list, &dead).map(|lst| (list.id, dead, lst.into())));
                    encoding.await.map_err(StoreUnavailable::because)?.map_err(StoreUnavailable::because)?
                }
            };
            drawn.push((id, dead, lst));
        }
        // The key that signs once all is drawn: one that was withdrawn meanwhile signs none of it.
        let keys = self.keys.current();
        let signer = keys.signing(SigningAlgorithm::ES256, now).ok_or(ListUnavailable::NoSigningKey)?;
        let mut lists = BTreeMap::new();
        for (id, dead, lst) in drawn {
            let signed = self.sign(&id, dead, lst, signer, now)?;
            lists.insert(id, Arc::new(signed));
        }
        let aggregation = if lists.keys().eq(before.lists.keys()) && !before.aggregation.json.is_empty() {
            Arc::clone(&before.aggregation)
        } else {
            Arc::new(self.aggregate(lists.keys()))
        };
        Ok(Published { look, lists, aggregation })
    }

    fn sign(
        &self,
        id: &str,
        dead: DeadPlaces,
        lst: Arc<str>,
        signer: &Signer,
        now: UnixTime,
    ) -> Result<SignedList, ListUnavailable> {
        let iat = now.as_seconds();
        let claims = Claims {
            iss: &self.issuer,
            sub: &self.uri(id),
            iat,
            exp: iat.saturating_add(LIFETIME_SECONDS),
            ttl: TTL_SECONDS,
            status_list: StatusList { bits: Width::One.bits(), lst: &lst, aggregation_uri: &self.base },
        };
        let payload = serde_json::to_vec(&claims).map_err(StoreUnavailable::because)?;
        let compact = signer.sign(STATUS_LIST_TYPE, &payload).map_err(|_| ListUnavailable::NoSigningKey)?;
        let gzip = gzipped(&compact).map_err(StoreUnavailable::because)?;
        Ok(SignedList { etag: etag_of(&compact), compact: compact.into(), gzip: gzip.into(), dead, lst })
    }

    fn aggregate<'a>(&self, ids: impl Iterator<Item = &'a String>) -> Aggregation {
        let uris: Vec<String> = ids.map(|id| self.uri(id)).collect();
        let json = serde_json::json!({ "status_lists": uris }).to_string();
        Aggregation { etag: etag_of(&json), json: json.into() }
    }

    /// Keeps the lists fresh until they are dropped by everybody else, and removes those that have ended.
    pub fn keep_fresh(self: &Arc<Self>) -> tokio::task::JoinHandle<()> {
        let (lists, wanted) = (Arc::downgrade(self), Arc::clone(&self.wanted));
        let mut changes = self.marks.subscribe();
        let mut keys = self.keys.subscribe();
        tokio::spawn(async move {
            let mut ticks = interval(SIGNED_EVERY);
            ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
            let mut failing = false;
            let mut forgotten = Instant::now();
            let mut looked = Instant::now();
            loop {
                let mut all = true;
                tokio::select! {
                    _ = ticks.tick() => {}
                    changed = changes.changed() => {
                        if changed.is_err() {
                            return;
                        }
                        sleep(SETTLE).await;
                        changes.mark_unchanged();
                    }
                    // A key that was withdrawn signs nothing any more.
                    changed = keys.changed() => if changed.is_err() { return },
                    () = wanted.notified() => {
                        sleep_until(looked + LOOKED_FOR_EVERY).await;
                        all = false;
                    }
                }
                looked = Instant::now();
                let Some(held) = lists.upgrade() else { return };
                match if all { held.renew().await } else { held.look_for_new().await } {
                    Ok(()) => failing = false,
                    Err(error) => {
                        if !std::mem::replace(&mut failing, true) {
                            tracing::error!(%error, "the status lists cannot be renewed: those held age");
                        }
                        ticks.reset_after(RETRY);
                    }
                }
                if forgotten.elapsed() >= FORGOTTEN_EVERY {
                    forgotten = Instant::now();
                    held.forget().await;
                }
            }
        })
    }

    async fn forget(&self) {
        let before = self.clock.now().before(KEPT_LONGER);
        loop {
            match self.store.forget_status(before).await {
                Ok(true) => {}
                Ok(false) => return,
                Err(error) => {
                    tracing::warn!(%error, "status lists that have ended cannot be removed");
                    return;
                }
            }
        }
    }
}

/// What is dead, by list.
fn dead_places(state: &ListsState) -> HashMap<String, DeadPlaces> {
    let mut dead: HashMap<String, DeadPlaces> = HashMap::new();
    for block in &state.dead {
        dead.entry(block.list.clone()).or_default().blocks.push((block.place, block.places));
    }
    for (list, index) in &state.dead_indexes {
        dead.entry(list.clone()).or_default().indexes.push(*index);
    }
    // After a restore or a fail-over, places may have been given out that the store has forgotten: of a list that was begun
    // before, whatever is not known to have been given out is dead.
    for list in state.lists.iter().filter(|list| list.epoch < state.epoch) {
        dead.entry(list.id.clone()).or_default().blocks.push((list.placed, SIZE - list.placed));
    }
    dead
}

/// The `lst` of a list.
fn encode(list: &StoredList, dead: &DeadPlaces) -> io::Result<String> {
    let mut array = StatusArray::new(Width::One, SIZE as usize);
    if !dead.blocks.is_empty() {
        let scatter = Scatter::new(&list.scatter);
        for &(first, places) in &dead.blocks {
            for place in first..first.saturating_add(places).min(SIZE) {
                array.set(scatter.index(place) as usize, INVALID);
            }
        }
    }
    for index in &dead.indexes {
        array.set(*index as usize, INVALID);
    }
    array.lst()
}

fn gzipped(text: &str) -> io::Result<Vec<u8>> {
    let mut gzip = GzEncoder::new(Vec::new(), Compression::default());
    gzip.write_all(text.as_bytes())?;
    gzip.finish()
}

fn etag_of(text: &str) -> Arc<str> {
    format!("\"{}\"", URL_SAFE_NO_PAD.encode(&Sha256::digest(text)[..16])).into()
}
