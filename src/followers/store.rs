//! What following asks of storage: one row for each node that hands the revocation list out.
//!
//! Takes what a node knows of those who follow its list, gives what all nodes do. Ages are by the store's own clock: the
//! hosts of nodes and commands have others.

use std::fmt;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use crate::registry::store::Answer;

/// What one node knows of its followers.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Summary {
    /// The version of the list that this is about: first part.
    pub epoch: i64,
    /// Second part.
    pub number: i64,
    /// How many resource servers have it.
    pub taken: usize,
    /// Of those that do not, as many as are worth naming; in order.
    pub behind: Vec<Behind>,
    /// All of them, whether or not they have it; in order.
    pub heard: Vec<Heard>,
    /// How many others ask.
    pub others: usize,
}

/// A resource server that does not have a list.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Behind {
    /// Its id.
    pub id: String,
    /// Its resource identifier.
    pub resource: String,
    /// For how long the one of its connections that is behind has said nothing.
    pub silent_seconds: u64,
}

/// A resource server that was heard from, as few octets.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Heard(pub [u8; Self::OCTETS]);

impl Heard {
    /// Its size.
    pub const OCTETS: usize = 8;

    /// The one with this resource identifier.
    pub fn of(resource: &str) -> Self {
        let [a, b, c, d, e, f, g, h, ..]: [u8; 32] = Sha256::digest(resource).into();
        Self([a, b, c, d, e, f, g, h])
    }
}

/// What a node wrote down last.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Row {
    /// What the node calls itself.
    pub node: String,
    /// How long ago that was.
    pub age: Duration,
    /// Whether it is about the epoch that the registry is in.
    pub is_of_this_epoch: bool,
    /// What it wrote.
    pub summary: Summary,
}

/// Storage of summaries.
pub trait FollowerStore: fmt::Debug + Send + Sync + 'static {
    /// Writes down what the run `id` of `node` knows. `heard` is left as it is where it has not changed.
    fn note_followers<'a>(
        &'a self,
        id: &'a str,
        node: &'a str,
        summary: &'a Summary,
        has_other_heard: bool,
    ) -> Answer<'a, ()>;

    /// The run `id` hands nothing out any more.
    fn forget_followers<'a>(&'a self, id: &'a str) -> Answer<'a, ()>;

    /// What every node wrote down last.
    fn followers(&self) -> Answer<'_, Vec<Row>>;
}
