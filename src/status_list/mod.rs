//! Which issued tokens are still good, as Token Status Lists (draft-ietf-oauth-status-list-20): for resource servers that
//! do not embed the crate and ask for it in their record.
//!
//! Gives a token that is about to be signed its index ([`StatusLists::place`]), and publishes the lists, signed anew all the
//! time and at once when a mark is made. It knows nothing of HTTP.

/// Statuses, one beside the other.
pub mod array;

/// Where in its list does a place lie?
pub mod scatter;

/// What status lists ask of storage.
pub mod store;

/// Which index does the next token get?
mod allotment;

/// The lists, signed.
mod publication;

pub use publication::{Aggregation, SignedList};

use std::collections::HashSet;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;

use arc_swap::ArcSwap;
use countersign_resource_server::time::{Clock, UnixTime};
use countersign_resource_server::token::claims::{Status, StatusReference};
use tokio::sync::{Notify, watch};

use crate::mint::{Draft, KeyRing, MintRefusal};
use crate::registry::StoreUnavailable;
use crate::status::{ListUnavailable, MarkSource};
use allotment::Allotment;
use publication::Published;
use store::{BlockFacts, StatusListStore};

/// Where the lists are, below the issuer's path: the aggregation (§9), and below it each list by its id.
pub const STATUS_LISTS: &str = "/status-lists";

/// The `typ` of a Status List Token (§5.1).
pub const STATUS_LIST_TYPE: &str = "statuslist+jwt";

/// The store did not answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StatusListUnavailable;

impl From<StoreUnavailable> for StatusListUnavailable {
    fn from(error: StoreUnavailable) -> Self {
        tracing::error!(%error, "no place in a status list can be had");
        Self
    }
}

/// What was dead when the lists were drawn up last.
#[derive(Debug, Default)]
struct Dead {
    epoch: i64,
    blocks: HashSet<(String, u32)>,
}

impl Dead {
    fn contains(&self, list: &str, place: u32) -> bool {
        // Most of the time nothing is.
        !self.blocks.is_empty() && self.blocks.contains(&(list.to_owned(), place))
    }
}

/// The status lists of a running server.
#[derive(Debug)]
pub struct StatusLists {
    /// What the URIs begin with.
    base: String,
    issuer: Arc<str>,
    store: Arc<dyn StatusListStore>,
    marks: Arc<dyn MarkSource>,
    keys: Arc<KeyRing>,
    clock: Arc<dyn Clock>,
    allotment: Allotment,
    dead: Arc<ArcSwap<Dead>>,
    held: watch::Sender<Arc<Published>>,
    /// How often the store has been looked at, or begun to be.
    looks: AtomicU64,
    wanted: Arc<Notify>,
}

impl StatusLists {
    /// The lists as they stand in `store`. `marks` says when they may have changed.
    ///
    /// # Errors
    /// [`ListUnavailable`] if the store cannot be read or no key signs.
    pub async fn open(
        issuer: impl Into<Arc<str>>,
        store: Arc<dyn StatusListStore>,
        marks: Arc<dyn MarkSource>,
        keys: Arc<KeyRing>,
        clock: Arc<dyn Clock>,
    ) -> Result<Self, ListUnavailable> {
        let issuer = issuer.into();
        let dead = Arc::new(ArcSwap::from_pointee(Dead::default()));
        let lists = Self {
            base: format!("{issuer}{STATUS_LISTS}"),
            issuer,
            allotment: Allotment::new(Arc::clone(&store), Arc::clone(&dead)),
            store,
            marks,
            keys,
            clock,
            dead,
            held: watch::channel(Arc::default()).0,
            looks: AtomicU64::new(0),
            wanted: Arc::default(),
        };
        lists.renew().await?;
        Ok(lists)
    }

    /// Where the status of a token will be, if its resource server asked for that (§6.2). Nothing is written but once for a
    /// block of tokens.
    ///
    /// # Errors
    /// [`MintRefusal::StatusIndexUnavailable`]: never a token without its index.
    pub async fn place(&self, draft: &Draft, now: UnixTime) -> Result<Option<Status>, MintRefusal> {
        if !draft.has_status() {
            return Ok(None);
        }
        let claims = draft.claims();
        let facts = BlockFacts {
            audience: claims.aud.clone(),
            participant_id: claims.participant_id.clone(),
            client_id: claims.client_id.clone(),
            certificate: claims.cnf.x5t_s256.to_string(),
            key_hash: draft.key_hash().to_string(),
            anchor_id: claims.anchor.clone(),
            signing_key: draft.kid().to_owned(),
        };
        let expires_at = UnixTime::from_seconds(claims.exp);
        let place = self
            .allotment
            .place(facts, draft.record_version(), expires_at, now)
            .await
            .map_err(|_| MintRefusal::StatusIndexUnavailable)?;
        if place.list_is_new {
            // Somebody will ask for it in a moment.
            self.wanted.notify_one();
        }
        Ok(Some(Status { status_list: StatusReference { idx: place.index.into(), uri: self.uri(&place.list) } }))
    }

    /// The URI of a list: without a query, a name or anything else of those whose tokens are in it (§12.2).
    fn uri(&self, list: &str) -> String {
        format!("{}/{list}", self.base)
    }
}

#[cfg(test)]
mod tests;
