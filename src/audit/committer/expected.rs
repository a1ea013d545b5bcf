//! Peers that are about to ask for something, as far as anybody says so; and whether it was worth waiting for such as them.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

/// Whoever was announced two of these ago, or earlier, is not expected any more: a handshake takes milliseconds, and who only
/// announces himself is soon forgotten.
const AGE: Duration = Duration::from_millis(50);

/// How many are expected.
#[derive(Clone, Debug)]
pub(in crate::audit) struct Expected {
    since: Instant,
    counted: Arc<Mutex<Counted>>,
}

#[derive(Debug, Default)]
struct Counted {
    /// Which age it is, and how many of those announced in it and in the one before have no answer yet.
    age: u64,
    now: usize,
    before: usize,
}

/// One that is expected, until this is dropped, or for two ages at most.
#[derive(Debug)]
pub struct Announced {
    expected: Expected,
    age: u64,
}

impl Default for Expected {
    fn default() -> Self {
        Self { since: Instant::now(), counted: Arc::default() }
    }
}

impl Expected {
    pub(in crate::audit) fn one_more(&self) -> Announced {
        let mut counted = self.counted();
        counted.now += 1;
        Announced { expected: self.clone(), age: counted.age }
    }

    pub(super) fn count(&self) -> usize {
        let counted = self.counted();
        counted.now + counted.before
    }

    /// As of now.
    fn counted(&self) -> MutexGuard<'_, Counted> {
        let age = u64::try_from(self.since.elapsed().as_millis() / AGE.as_millis()).unwrap_or(u64::MAX);
        let mut counted = self.counted.lock().unwrap_or_else(PoisonError::into_inner);
        match age.saturating_sub(counted.age) {
            0 => {}
            1 => *counted = Counted { age, now: 0, before: counted.now },
            _ => *counted = Counted { age, ..Counted::default() },
        }
        counted
    }
}

impl Drop for Announced {
    fn drop(&mut self) {
        let mut counted = self.expected.counted();
        if self.age == counted.age {
            counted.now -= 1;
        } else if self.age + 1 == counted.age {
            counted.before -= 1;
        }
    }
}

/// Where waiting brought nothing, it is tried ever more seldom.
#[derive(Debug, Default)]
pub(super) struct Worth {
    /// How often in a row it brought nothing.
    barren: u32,
    /// How often it is left out still.
    left_out: u32,
}

impl Worth {
    const MOST_BARREN: u32 = 8;

    /// Whether to wait this time.
    pub(super) const fn tries(&mut self) -> bool {
        match self.left_out.checked_sub(1) {
            Some(left) => {
                self.left_out = left;
                false
            }
            None => true,
        }
    }

    /// Whether it brought anything.
    pub(super) fn learn(&mut self, brought: bool) {
        self.barren = if brought { 0 } else { (self.barren + 1).min(Self::MOST_BARREN) };
        self.left_out = if brought { 0 } else { 1 << self.barren };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whoever_is_announced_is_expected_until_it_is_dropped() {
        let expected = Expected::default();
        let (one, another) = (expected.one_more(), expected.one_more());
        assert_eq!(expected.count(), 2);
        drop(one);
        assert_eq!(expected.count(), 1);
        drop(another);
        assert_eq!(expected.count(), 0);
    }

    #[test]
    fn whoever_does_not_come_is_not_expected_for_long() {
        let expected = Expected::default();
        let at = |ages: u32| Expected { since: expected.since - AGE * ages, ..expected.clone() };
        let early = expected.one_more();
        let late = at(1).one_more();
        assert_eq!(at(1).count(), 2);
        assert_eq!(at(2).count(), 1);
        assert_eq!(at(3).count(), 0);
        let later = at(3).one_more();
        drop(early);
        drop(late);
        assert_eq!(at(3).count(), 1);
        assert_eq!(at(9).count(), 0);
        drop(later);
        assert_eq!(at(9).count(), 0);
    }

    #[test]
    fn waiting_that_brings_nothing_is_tried_ever_more_seldom() {
        let mut worth = Worth::default();
        let mut gaps = Vec::new();
        for _ in 0..10 {
            assert!(worth.tries());
            worth.learn(false);
            let mut gap = 0;
            while !worth.tries() {
                gap += 1;
            }
            gaps.push(gap);
        }
        assert_eq!(gaps, [2, 4, 8, 16, 32, 64, 128, 256, 256, 256]);
        worth.learn(true);
        assert!(worth.tries());
        worth.learn(false);
        assert!(!worth.tries());
    }
}
