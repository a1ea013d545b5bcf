//! Which index does the next token get?
//!
//! Takes what a token will name, gives a list and an index in it that no other token has. Places are had from the store a
//! block at a time, one for each grant, so that a token costs no write; a grant that uses its block up gets a larger one.
//! It knows nothing of what is dead but what it is told.

use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use countersign_resource_server::time::UnixTime;
use moka::sync::Cache;
use tokio::sync::Mutex;
use tokio::time::timeout;

use super::scatter::{SIZE, Scatter};
use super::store::{BlockFacts, NewList, Reservation, StatusListStore};
use super::{Dead, StatusListUnavailable};
use crate::mint::random_octets;
use crate::registry::RegistryVersion;

/// The first block of a grant: a client that asks for a token now and then uses little more.
pub(super) const FIRST_BLOCK: u32 = 16;

/// The largest: some hundreds of them fill a list.
pub(super) const LARGEST_BLOCK: u32 = 4_096;

/// A block that is used up is followed by one so many times as large.
const GROWTH: u32 = 4;

/// How long tokens are taken from a block, but for those that would outlive it.
const USED_FOR: Duration = Duration::from_secs(600);

/// How long a list takes blocks, however few there are: when the next one begins says nothing of how much others use, as
/// long as all of them together do not fill it.
const LIST_OPEN_FOR: Duration = Duration::from_secs(3_600);

/// How long after its last token a block still counts: what a reader's clock may be late.
const LEEWAY: Duration = Duration::from_secs(60);

/// How many grants have a block at a node. One that is pushed out leaves the rest of its block unused.
const GRANTS: u64 = 100_000;

/// How long a token waits for its index: as long as for its record.
const PATIENCE: Duration = Duration::from_secs(2);

/// The blocks of one node.
#[derive(Debug)]
pub(super) struct Allotment {
    store: Arc<dyn StatusListStore>,
    /// What is known to be dead: no token is given a place there.
    dead: Arc<ArcSwap<Dead>>,
    grants: Cache<BlockFacts, Arc<Mutex<Granted>>>,
    scatters: Cache<String, Arc<Scatter>>,
}

/// A place, as a token says it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Place {
    /// The list.
    pub(super) list: Arc<str>,
    /// Where in it.
    pub(super) index: u32,
    /// Whether it is the first that this node gives out of that list.
    pub(super) list_is_new: bool,
}

/// What one grant has.
#[derive(Debug, Default)]
struct Granted {
    block: Option<Block>,
}

#[derive(Debug)]
struct Block {
    list: Arc<str>,
    epoch: i64,
    scatter: Arc<Scatter>,
    place: u32,
    places: u32,
    used: u32,
    version: RegistryVersion,
    /// No token of it expires later.
    covers: UnixTime,
}

impl Allotment {
    pub(super) fn new(store: Arc<dyn StatusListStore>, dead: Arc<ArcSwap<Dead>>) -> Self {
        Self { store, dead, grants: Cache::new(GRANTS), scatters: Cache::new(1_024) }
    }

    /// A place for a token that names these `facts` and expires at `expires_at`. `version` is the registry version its
    /// record was read at: a mark that is about it and was made by then changed the record, so that tokens of the same
    /// version are all alive or all dead, and so is a block of it.
    ///
    /// # Errors
    /// [`StatusListUnavailable`] if a block is needed and the store does not give one in time.
    pub(super) async fn place(
        &self,
        facts: BlockFacts,
        version: RegistryVersion,
        expires_at: UnixTime,
        now: UnixTime,
    ) -> Result<Place, StatusListUnavailable> {
        let granted = self.grants.get_with_by_ref(&facts, Arc::default);
        let place = async {
            // Whoever comes while a block is being had waits for it: a grant has one at a time.
            let mut granted = granted.lock().await;
            if let Some(place) =
                granted.block.as_mut().and_then(|block| block.take(version, expires_at, &self.dead.load()))
            {
                return Ok(place);
            }
            let places = granted.next_size();
            let covers = expires_at.max(now).after(USED_FOR);
            let reservation = Reservation {
                facts,
                version,
                places,
                at: now,
                ends_at: covers.after(LEEWAY),
                begun_after: now.before(LIST_OPEN_FOR),
                new_list: new_list(),
            };
            let reserved = self.store.reserve(&reservation).await?;
            let list_is_new = reserved.list.id == reservation.new_list.id;
            let scatter =
                self.scatters.get_with_by_ref(&reserved.list.id, || Arc::new(Scatter::new(&reserved.list.scatter)));
            let mut block = Block {
                list: reserved.list.id.into(),
                epoch: reserved.list.epoch,
                scatter,
                place: reserved.place,
                places,
                used: 0,
                version,
                covers,
            };
            let index = block.next();
            let place = Place { list: Arc::clone(&block.list), index, list_is_new };
            *granted = Granted { block: Some(block) };
            Ok(place)
        };
        timeout(PATIENCE, place).await.unwrap_or(Err(StatusListUnavailable))
    }
}

/// A list that says nothing of whose it is. One that fills up earlier than others do has between half and all of its
/// places given out: nobody knows how many.
fn new_list() -> NewList {
    let blur = u32::from_be_bytes(random_octets()) % (SIZE / 2);
    NewList { id: URL_SAFE_NO_PAD.encode(random_octets::<16>()), scatter: random_octets(), capacity: SIZE / 2 + blur }
}

impl Granted {
    /// As many as before and more where all were used, else few.
    fn next_size(&self) -> u32 {
        match &self.block {
            Some(block) if block.used >= block.places => {
                block.places.saturating_mul(GROWTH).clamp(FIRST_BLOCK, LARGEST_BLOCK)
            }
            _ => FIRST_BLOCK,
        }
    }
}

impl Block {
    fn take(&mut self, version: RegistryVersion, expires_at: UnixTime, dead: &Dead) -> Option<Place> {
        let fits = self.version == version
            && self.used < self.places
            && expires_at <= self.covers
            // A restore or a fail-over: the store may not know this block any more.
            && self.epoch >= dead.epoch
            && !dead.contains(&self.list, self.place);
        fits.then(|| Place { list: Arc::clone(&self.list), index: self.next(), list_is_new: false })
    }

    fn next(&mut self) -> u32 {
        let index = self.scatter.index(self.place + self.used);
        self.used += 1;
        index
    }
}
