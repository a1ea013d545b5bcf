//! What status lists ask of storage.
//!
//! Takes reservations, gives places that nobody else has and, of all that were given out, which are dead. It knows
//! nothing of indexes.

use std::fmt;

use countersign_resource_server::time::UnixTime;

use crate::registry::RegistryVersion;
use crate::registry::store::Answer;

/// What the tokens of a block name: what a mark can be about (design §6).
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct BlockFacts {
    /// `aud`: the resource server's mark, and the list's.
    pub audience: String,
    /// `participant_id`.
    pub participant_id: String,
    /// `client_id`; with the audience, the entitlement's mark too.
    pub client_id: String,
    /// `cnf.x5t#S256`.
    pub certificate: String,
    /// The hash of that certificate's key.
    pub key_hash: String,
    /// `anchor`.
    pub anchor_id: Option<String>,
    /// `kid`.
    pub signing_key: String,
}

/// Places to be had.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reservation {
    /// For which tokens.
    pub facts: BlockFacts,
    /// They are dead once a mark with a later version is about them.
    pub version: RegistryVersion,
    /// How many places.
    pub places: u32,
    /// When.
    pub at: UnixTime,
    /// When the last of those tokens has expired.
    pub ends_at: UnixTime,
    /// A list begun by then takes no more blocks.
    pub begun_after: UnixTime,
    /// The list to begin where none has room.
    pub new_list: NewList,
}

/// A list, where one has to be begun.
#[derive(Clone, PartialEq, Eq)]
pub struct NewList {
    /// Its id.
    pub id: String,
    /// The secret of its [`Scatter`](super::scatter::Scatter).
    pub scatter: [u8; 16],
    /// How many of its places are given out at most.
    pub capacity: u32,
}

/// Whoever logs it must not log the secret.
impl fmt::Debug for NewList {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("NewList").field("id", &self.id).finish_non_exhaustive()
    }
}

/// Places that nobody else has.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reserved {
    /// The list they are in.
    pub list: StoredList,
    /// The first of them; the others follow.
    pub place: u32,
}

/// A list as it is kept.
#[derive(Clone, PartialEq, Eq)]
pub struct StoredList {
    /// Its id.
    pub id: String,
    /// The epoch of the registry in which it was begun.
    pub epoch: i64,
    /// The secret of its [`Scatter`](super::scatter::Scatter).
    pub scatter: Vec<u8>,
    /// How many of its places have been given out.
    pub placed: u32,
}

/// Whoever logs it must not log the secret.
impl fmt::Debug for StoredList {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { id, epoch, placed, .. } = self;
        f.debug_struct("StoredList")
            .field("id", id)
            .field("epoch", epoch)
            .field("placed", placed)
            .finish_non_exhaustive()
    }
}

/// Consecutive places of one list that are dead.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct DeadBlock {
    /// Which list.
    pub list: String,
    /// The first of them.
    pub place: u32,
    /// How many.
    pub places: u32,
}

/// All lists, and what in them is dead.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ListsState {
    /// The epoch of the registry.
    pub epoch: i64,
    /// Every list with a token that may still be live, in order of ids.
    pub lists: Vec<StoredList>,
    /// The blocks that a mark is about, in order.
    pub dead: Vec<DeadBlock>,
    /// The indexes of single tokens that a mark is about, each with its list.
    pub dead_indexes: Vec<(String, u32)>,
}

/// Storage of status lists.
pub trait StatusListStore: fmt::Debug + Send + Sync + 'static {
    /// Gives out places: durable before they are answered, and to nobody else, whatever happens.
    fn reserve<'a>(&'a self, reservation: &'a Reservation) -> Answer<'a, Reserved>;

    /// The ids of the lists at `now`, in order.
    fn status_list_ids(&self, now: UnixTime) -> Answer<'_, Vec<String>>;

    /// The lists at `now`, and what in them is dead.
    fn status_lists(&self, now: UnixTime) -> Answer<'_, ListsState>;

    /// Removes the blocks and lists that ended before this instant, some at a time; says whether any are left.
    fn forget_status(&self, ended_before: UnixTime) -> Answer<'_, bool>;
}
