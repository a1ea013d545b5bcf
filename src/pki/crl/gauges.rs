//! How the lists of each anchor stand, as numbers for whoever watches the server.
//!
//! Takes the lists that are held and under which anchors they were found, gives one value of each kind for each anchor. Lists
//! come and go with what their publishers write in them; anchors only with what the operator enrols, so there are never more
//! series than that.

use std::collections::{BTreeMap, BTreeSet};

use countersign_resource_server::time::UnixTime;

use super::index::RevocationList;
use crate::registry::AnchorId;
use crate::telemetry;

/// The anchors that something was said of.
#[derive(Debug, Default)]
pub(super) struct Gauges {
    shown: BTreeSet<AnchorId>,
}

/// The lists of one anchor, all of them together.
#[derive(Clone, Copy, Debug)]
struct Summary {
    oldest_update: UnixTime,
    earliest_next_update: UnixTime,
    entries: usize,
}

impl Gauges {
    /// What of `lists`, each with an anchor it was found under, is to be seen at `now`.
    pub(super) fn show<'a>(&mut self, lists: impl Iterator<Item = (&'a AnchorId, &'a RevocationList)>, now: UnixTime) {
        let mut summaries: BTreeMap<AnchorId, Summary> = BTreeMap::new();
        for (anchor, list) in lists {
            let own = Summary {
                oldest_update: list.this_update,
                earliest_next_update: list.next_update,
                entries: list.entries.len(),
            };
            summaries.entry(anchor.clone()).and_modify(|others| others.add(own)).or_insert(own);
        }
        for (anchor, summary) in &summaries {
            let seconds = |later: UnixTime, earlier: UnixTime| (later.as_seconds() - earlier.as_seconds()) as f64;
            let age = seconds(now, summary.oldest_update);
            set(anchor, age, seconds(summary.earliest_next_update, now), summary.entries as f64);
        }
        for anchor in self.shown.iter().filter(|anchor| !summaries.contains_key(*anchor)) {
            // A series cannot be taken back; what it says can: nothing, which no alert compares with anything.
            set(anchor, f64::NAN, f64::NAN, f64::NAN);
        }
        self.shown = summaries.into_keys().collect();
    }
}

impl Summary {
    fn add(&mut self, other: Self) {
        self.oldest_update = self.oldest_update.min(other.oldest_update);
        self.earliest_next_update = self.earliest_next_update.min(other.earliest_next_update);
        self.entries += other.entries;
    }
}

fn set(anchor: &AnchorId, age: f64, left: f64, entries: f64) {
    let labels = [("anchor", anchor.to_string())];
    metrics::gauge!(telemetry::CRL_AGE, &labels).set(age);
    metrics::gauge!(telemetry::CRL_SECONDS_LEFT, &labels).set(left);
    metrics::gauge!(telemetry::CRL_ENTRIES, &labels).set(entries);
}
