//! Has everybody taken the list that says this?
//!
//! Takes the registry version of a change, waits while the nodes tell of resource servers that have not taken it, two seconds
//! at most, gives who has and who has not. It can speak of those alone that a node has heard from within a minute.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use countersign_resource_server::time::Clock;
use serde::Serialize;
use tokio::time::sleep;

use super::store::{Behind, FollowerStore, Heard, Row};
use crate::registry::{RegistryVersion, StoreUnavailable};

/// How long is waited for those who have not.
pub const PATIENCE: Duration = Duration::from_secs(2);

/// A node that has written nothing for so long is gone: it writes every five seconds.
pub const GONE_AFTER: Duration = Duration::from_secs(15);

/// How often is looked.
const GLANCE: Duration = Duration::from_millis(20);

/// Who has taken a list.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Spread {
    /// The list is one of this registry version, or a later one.
    pub registry_version: i64,
    /// How long that was waited for, in milliseconds.
    pub waited_milliseconds: u64,
    /// How many nodes hand lists out.
    pub nodes: usize,
    /// Those that have not said that they hand out this one.
    pub nodes_behind: Vec<String>,
    /// How many resource servers ask by their own certificate.
    pub resource_servers: usize,
    /// How many of them have taken it.
    pub taken: usize,
    /// Those that have not, as far as they are named: 64 of each node.
    pub behind: Vec<Behind>,
    /// How many others ask for the list, who do not say who they are.
    pub others: usize,
    #[serde(skip)]
    heard: BTreeSet<Heard>,
}

impl Spread {
    /// Whether everybody has taken it of whom that can be known.
    pub const fn is_complete(&self) -> bool {
        self.nodes_behind.is_empty() && self.taken == self.resource_servers
    }

    /// Whether the API with this resource identifier is one of those who say who they are.
    pub fn has_heard_from(&self, resource: &str) -> bool {
        self.heard.contains(&Heard::of(resource))
    }

    /// What these rows say of the list of `version`.
    fn of(rows: &[Row], version: RegistryVersion) -> Self {
        let mut spread = Self { registry_version: version.0, ..Self::default() };
        let mut behind: BTreeMap<&str, Behind> = BTreeMap::new();
        let mut without: BTreeSet<Heard> = BTreeSet::new();
        let mut unnamed = 0;
        for row in rows.iter().filter(|row| row.age < GONE_AFTER) {
            let summary = &row.summary;
            spread.nodes += 1;
            spread.others += summary.others;
            spread.heard.extend(&summary.heard);
            if !row.is_of_this_epoch || summary.number < version.0 {
                // Nothing is known of whoever asks there.
                spread.nodes_behind.push(row.node.clone());
                without.extend(&summary.heard);
                continue;
            }
            unnamed += summary.heard.len().saturating_sub(summary.taken + summary.behind.len());
            for one in &summary.behind {
                without.insert(Heard::of(&one.resource));
                let silent_seconds = one.silent_seconds.saturating_add(row.age.as_secs());
                let named = behind.entry(&one.id).or_insert_with(|| one.clone());
                named.silent_seconds = named.silent_seconds.max(silent_seconds);
            }
        }
        spread.resource_servers = spread.heard.len();
        spread.taken = spread.heard.len().saturating_sub(without.len() + unnamed);
        spread.behind = behind.into_values().collect();
        spread
    }
}

/// Waits until everybody has taken the list of `version`, or until there is no point in waiting.
///
/// # Errors
/// [`StoreUnavailable`].
pub async fn spread(
    store: &dyn FollowerStore,
    version: RegistryVersion,
    clock: &dyn Clock,
) -> Result<Spread, StoreUnavailable> {
    let begun = clock.monotonic();
    loop {
        let mut spread = Spread::of(&store.followers().await?, version);
        let waited = clock.monotonic().saturating_sub(begun);
        spread.waited_milliseconds = u64::try_from(waited.as_millis()).unwrap_or(u64::MAX);
        if spread.is_complete() || waited >= PATIENCE {
            return Ok(spread);
        }
        sleep(GLANCE).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::followers::store::Summary;

    const VERSION: RegistryVersion = RegistryVersion(7);

    fn behind(id: &str) -> Behind {
        Behind { id: id.to_owned(), resource: format!("https://{id}.example"), silent_seconds: 2 }
    }

    /// A node that hears `heard`, of which `not` have not taken it.
    fn row(node: &str, heard: &[&str], not: &[&str]) -> Row {
        let mut all: Vec<Heard> = heard.iter().map(|id| Heard::of(&format!("https://{id}.example"))).collect();
        all.sort_unstable();
        let summary = Summary {
            epoch: 1,
            number: 7,
            taken: heard.len() - not.len(),
            behind: not.iter().map(|id| behind(id)).collect(),
            heard: all,
            others: 1,
        };
        Row { node: node.to_owned(), age: Duration::from_secs(1), is_of_this_epoch: true, summary }
    }

    #[test]
    fn a_resource_server_has_it_that_is_behind_at_no_node() {
        let spread = Spread::of(&[row("one", &["a", "b"], &[]), row("two", &["b", "c"], &["b"])], VERSION);
        assert_eq!((spread.nodes, spread.resource_servers, spread.taken, spread.others), (2, 3, 2, 2));
        assert_eq!(spread.behind, [Behind { silent_seconds: 3, ..behind("b") }], "the row is a second old");
        assert!(!spread.is_complete());
        assert!(spread.has_heard_from("https://b.example") && !spread.has_heard_from("https://d.example"));
        assert!(Spread::of(&[row("one", &["a", "b"], &[]), row("two", &["b"], &[])], VERSION).is_complete());
    }

    #[test]
    fn nothing_is_known_at_a_node_that_has_not_come_so_far() {
        let earlier = |change: fn(&mut Row)| {
            let mut row = row("two", &["b"], &[]);
            change(&mut row);
            Spread::of(&[self::row("one", &["a", "b"], &[]), row], VERSION)
        };
        for spread in [earlier(|row| row.summary.number = 6), earlier(|row| row.is_of_this_epoch = false)] {
            assert_eq!((spread.resource_servers, spread.taken), (2, 1));
            assert_eq!(spread.nodes_behind, ["two"]);
            assert!(!spread.is_complete());
        }
        assert!(earlier(|row| row.summary.number = 8).is_complete(), "a later one says it as well");
    }

    #[test]
    fn a_node_that_is_gone_does_not_count() {
        let mut gone = row("two", &["b"], &["b"]);
        gone.age = GONE_AFTER;
        let spread = Spread::of(&[row("one", &["a"], &[]), gone.clone()], VERSION);
        assert_eq!((spread.nodes, spread.resource_servers, spread.taken), (1, 1, 1));
        gone.age = GONE_AFTER.saturating_sub(Duration::from_millis(1));
        assert_eq!(Spread::of(&[gone], VERSION).nodes, 1);
        let nobody = Spread::of(&[], VERSION);
        assert!(nobody.is_complete() && nobody.nodes == 0, "nobody is waited for");
    }

    #[test]
    fn those_that_are_not_named_have_not_taken_it_either() {
        let mut row = row("one", &["a", "b", "c"], &["a", "b"]);
        row.summary.behind.pop();
        let spread = Spread::of(&[row], VERSION);
        assert_eq!((spread.taken, spread.behind.len()), (1, 1));
    }
}
