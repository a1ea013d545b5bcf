//! What this process has just appended to the log: the index takes it from memory, and need not read it again.
//!
//! Takes batches once they are durable, gives the terms of those that follow a place, by its number and its hash: what does not
//! follow, another past's for instance, is of no use and is dropped. Nothing is missed by what is not here, because the
//! index reads the log for that.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::sync::{Arc, Mutex, PoisonError};

use countersign_resource_server::time::UnixTime;

use crate::audit::chain::Head;
use crate::audit::index::{Named, Term};
use crate::audit::{Appended, Batch};

/// Octets of records that wait to be looked through. They are looked through ten times a second.
const MOST_WAITING: usize = 8 << 20;

/// Records whose terms are kept until the index takes them, which it does every second: each has a few of 16 octets.
const MOST_KEPT: usize = 65_536;

/// Appended and not yet indexed, as far as memory allows.
#[derive(Debug, Default)]
pub(in crate::store) struct Recent {
    waiting: Mutex<Waiting>,
    kept: Mutex<Kept>,
}

#[derive(Debug, Default)]
struct Waiting {
    batches: VecDeque<(Arc<Batch>, Appended)>,
    octets: usize,
}

#[derive(Debug, Default)]
struct Kept {
    /// By the place they follow.
    stretches: BTreeMap<i64, Stretch>,
    records: usize,
}

/// What the record of a token has.
const USUAL_TERMS: usize = 4;

/// The terms of one batch.
#[derive(Debug)]
pub(super) struct Stretch {
    after: Head,
    pub(super) last: Head,
    /// When each of its records was decided, and how many of the terms it has.
    decided: Vec<(UnixTime, usize)>,
    terms: Vec<Term>,
    pub(super) records: usize,
}

impl Recent {
    /// Notes what was appended. What has to be read to know its terms waits for [`Self::look_through`]; the rest is let go of at once.
    pub(in crate::store) fn note(&self, batch: Arc<Batch>, appended: &Appended) {
        if batch.records(&appended.replayed).all(|(.., terms)| terms.is_some()) {
            return self.keep(Stretch::of(&batch, appended));
        }
        let octets: usize = batch.entries.iter().map(|entry| entry.body.len()).sum();
        let mut waiting = self.waiting.lock().unwrap_or_else(PoisonError::into_inner);
        if waiting.octets + octets > MOST_WAITING {
            // Nobody looks at it. What follows it is of no use either, until the index has read the log up to there.
            *waiting = Waiting::default();
        }
        waiting.octets += octets;
        waiting.batches.push_back((batch, appended.clone()));
    }

    /// Looks through what has been noted, and lets go of the records.
    pub(super) fn look_through(&self) {
        let Waiting { batches, .. } = std::mem::take(&mut *self.waiting.lock().unwrap_or_else(PoisonError::into_inner));
        for (batch, appended) in batches {
            self.keep(Stretch::of(&batch, &appended));
        }
    }

    fn keep(&self, stretch: Stretch) {
        let mut kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        if kept.records + stretch.records > MOST_KEPT {
            *kept = Kept::default();
        }
        kept.records += stretch.records;
        let replaced = kept.stretches.insert(stretch.after.position.number(), stretch);
        kept.records -= replaced.map_or(0, |replaced| replaced.records);
    }

    /// What follows the record with this place and hash, as far as the log's last record, by place and hash as well. What the log
    /// does not have yet is for the next time; or for never, where it has lost it.
    pub(super) fn after(&self, (position, hash): (i64, &[u8]), (last, last_hash): (i64, &[u8])) -> Option<Stretch> {
        let mut kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        if kept.stretches.get(&position)?.last.position.number() > last {
            return None;
        }
        let stretch = kept.stretches.remove(&position)?;
        kept.records -= stretch.records;
        let is_the_logs = stretch.last.position.number() < last || stretch.last.hash.octets() == last_hash;
        (stretch.after.hash.octets() == hash && is_the_logs).then_some(stretch)
    }

    /// Lets go of what is indexed: `indexed` says how far each chain is.
    pub(super) fn forget(&self, indexed: &HashMap<i64, i64>) {
        let mut kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        let is_wanted = |stretch: &Stretch| {
            let chain = stretch.after.chain().number();
            indexed.get(&chain).is_none_or(|indexed| stretch.after.position.number() >= *indexed)
        };
        kept.stretches.retain(|_, stretch| is_wanted(stretch));
        kept.records = kept.stretches.values().map(|stretch| stretch.records).sum();
    }
}

#[cfg(test)]
impl Recent {
    pub(super) fn is_empty(&self) -> bool {
        self.waiting.lock().unwrap().batches.is_empty() && self.kept.lock().unwrap().records == 0
    }
}

impl Stretch {
    fn of(batch: &Batch, appended: &Appended) -> Self {
        let mut decided = Vec::with_capacity(batch.entries.len());
        let mut terms = Vec::with_capacity(USUAL_TERMS * batch.entries.len());
        for (at, body, known) in batch.records(&appended.replayed) {
            let before = terms.len();
            match known {
                Some(known) => terms.extend_from_slice(known),
                None => terms.extend(Named::of(body).rows(at)),
            }
            decided.push((at, terms.len() - before));
        }
        Self { after: batch.lease.head, last: appended.head, decided, terms, records: batch.entries.len() }
    }

    /// What is to be found by which term: where it is, and when it was decided.
    pub(super) fn terms(&self) -> impl Iterator<Item = (i64, UnixTime, Term)> {
        let mut left = self.terms.as_slice();
        (self.after.position.number() + 1..).zip(&self.decided).flat_map(move |(position, (at, terms))| {
            let (own, others) = left.split_at(left.len().min(*terms));
            left = others;
            own.iter().map(move |term| (position, *at, *term))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::audit::chain::{ChainId, LogId};
    use crate::audit::index::{Term, TermKind};
    use crate::audit::{AssertionUse, Entry, Lease};
    use crate::registry::RegistryVersion;
    use crate::registry::fixture::NOW;

    /// Records after `head`, each of so many octets.
    fn appended(head: Head, records: usize, octets: usize) -> (Arc<Batch>, Appended) {
        let body = format!("\"{}\"", "x".repeat(octets - 2));
        let entry = || Entry::new(NOW, body.clone());
        let entries = std::iter::repeat_with(entry).take(records).collect();
        let batch = Batch { lease: Lease { number: 1, head }, entries, given_back: Vec::new(), history: None };
        let head = batch.sealed(&[]).unwrap().last().unwrap().head;
        (Arc::new(batch), Appended { replayed: Vec::new(), version: RegistryVersion(1), head })
    }

    fn first() -> Head {
        let log = LogId::parse("0123456789abcdef0123456789abcdef").unwrap();
        Head::before_first(log, ChainId::new(1).unwrap())
    }

    fn after(recent: &Recent, head: Head) -> Option<Head> {
        let far = (i64::MAX, &[][..]);
        recent.after((head.position.number(), head.hash.octets()), far).map(|stretch| stretch.last)
    }

    #[test]
    fn what_waits_too_long_is_let_go_and_what_follows_is_kept() {
        let recent = Recent::default();
        let (batch, one) = appended(first(), 1, MOST_WAITING / 2);
        recent.note(batch, &one);
        let (batch, two) = appended(one.head, 1, MOST_WAITING / 2);
        recent.note(batch, &two);
        let (batch, three) = appended(two.head, 1, 2);
        recent.note(batch, &three);
        recent.look_through();
        assert_eq!(after(&recent, first()), None);
        assert_eq!(after(&recent, one.head), None);
        assert_eq!(after(&recent, two.head), Some(three.head));
        assert!(recent.is_empty());
    }

    #[test]
    fn of_more_than_is_kept_the_last_is_kept() {
        let recent = Recent::default();
        let (batch, one) = appended(first(), MOST_KEPT, 2);
        recent.note(batch, &one);
        recent.look_through();
        let (batch, two) = appended(one.head, 1, 2);
        recent.note(Arc::clone(&batch), &two);
        recent.look_through();
        assert_eq!(after(&recent, first()), None);
        // Noted twice it counts once.
        recent.note(batch, &two);
        recent.look_through();
        assert_eq!(after(&recent, one.head), Some(two.head));
        assert!(recent.is_empty());
    }

    #[test]
    fn what_follows_another_hash_is_another_past() {
        let recent = Recent::default();
        let (batch, one) = appended(first(), 1, 2);
        let (_, other) = appended(first(), 1, 3);
        recent.note(batch, &one);
        let (batch, two) = appended(one.head, 1, 2);
        recent.note(batch, &two);
        recent.look_through();
        assert_eq!(other.head.position, one.head.position);
        assert_eq!(after(&recent, other.head), None);
        assert_eq!(after(&recent, first()), Some(one.head));
    }

    #[test]
    fn what_the_log_does_not_end_with_is_not_taken() {
        let recent = Recent::default();
        let (batch, one) = appended(first(), 2, 2);
        let (_, other) = appended(first(), 2, 3);
        let start = first();
        let from = (start.position.number(), start.hash.octets().as_slice());
        let end = |head: &Appended| (head.head.position.number(), head.head.hash.octets().to_vec());
        recent.note(Arc::clone(&batch), &one);
        recent.look_through();
        let (last, hash) = end(&one);
        // Not there yet: kept for the next time.
        assert!(recent.after(from, (last - 1, &hash)).is_none());
        assert!(recent.after(from, (last, &hash)).is_some());
        recent.note(batch, &one);
        recent.look_through();
        // The log ends there with another.
        assert!(recent.after(from, (last, &end(&other).1)).is_none());
        assert!(recent.is_empty());
    }

    #[test]
    fn what_is_known_without_reading_is_kept_at_once_and_read_where_it_was_replayed() {
        let recent = Recent::default();
        let (batch, one) = appended(first(), 1, 2);
        recent.note(batch, &one);
        let used = AssertionUse { client_id: "c".parse().unwrap(), jti: "j".to_owned(), expires_at: NOW };
        let known = |assertion| Entry { terms: Some(vec![Term::any()]), assertion, ..Entry::new(NOW, "{}".to_owned()) };
        let replayed = "{\"kind\":\"decision\"}".to_owned();
        let entries = vec![known(None), known(Some((used, replayed)))];
        let batch =
            Batch { lease: Lease { number: 1, head: one.head }, entries, given_back: Vec::new(), history: None };
        let batch = Arc::new(batch);
        let rows_where = |replayed: Vec<usize>| {
            let head = batch.sealed(&replayed).unwrap().last().unwrap().head;
            recent.note(Arc::clone(&batch), &Appended { replayed, version: RegistryVersion(1), head });
            let found = || recent.after((one.head.position.number(), one.head.hash.octets()), (i64::MAX, &[]));
            let at_once = found();
            let kinds = |stretch: Stretch| stretch.terms().map(|(.., term)| term.kind).collect::<Vec<_>>();
            (
                at_once.is_some(),
                at_once
                    .or_else(|| {
                        recent.look_through();
                        found()
                    })
                    .map(kinds),
            )
        };
        let (any, kind) = (TermKind::Any, TermKind::Kind);
        assert_eq!(rows_where(Vec::new()), (true, Some(vec![any, any])));
        assert_eq!(rows_where(vec![1]), (false, Some(vec![any, kind])));
        assert_eq!(after(&recent, first()), Some(one.head), "what waited was looked through with it");
        assert!(recent.is_empty());
    }

    #[test]
    fn what_is_indexed_is_forgotten_and_the_rest_is_not() {
        let recent = Recent::default();
        let (batch, one) = appended(first(), 3, 2);
        recent.note(batch, &one);
        let (batch, two) = appended(one.head, 3, 2);
        recent.note(batch, &two);
        recent.look_through();
        recent.forget(&HashMap::from([(1, one.head.position.number())]));
        assert_eq!(after(&recent, first()), None);
        assert_eq!(after(&recent, one.head), Some(two.head));
    }
}
