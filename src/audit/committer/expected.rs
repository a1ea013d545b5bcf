//! Peers that are about to ask for something, as far as anybody says so; and whether it was worth waiting for such as them.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

/// How many are expected.
#[derive(Clone, Debug, Default)]
pub(in crate::audit) struct Expected(Arc<AtomicUsize>);

/// One that is expected, until this is dropped.
#[derive(Debug)]
pub struct Announced(Expected);

impl Expected {
    pub(in crate::audit) fn one_more(&self) -> Announced {
        self.0.fetch_add(1, Ordering::Relaxed);
        Announced(self.clone())
    }

    pub(super) fn count(&self) -> usize {
        self.0.load(Ordering::Relaxed)
    }
}

impl Drop for Announced {
    fn drop(&mut self) {
        self.0.0.fetch_sub(1, Ordering::Relaxed);
    }
}

/// Where waiting brought nothing, it is tried ever more seldom: whoever only announces himself keeps nobody waiting.
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
    pub(super) const fn is_tried(&mut self) -> bool {
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
    fn waiting_that_brings_nothing_is_tried_ever_more_seldom() {
        let mut worth = Worth::default();
        let mut gaps = Vec::new();
        for _ in 0..10 {
            assert!(worth.is_tried());
            worth.learn(false);
            let mut gap = 0;
            while !worth.is_tried() {
                gap += 1;
            }
            gaps.push(gap);
        }
        assert_eq!(gaps, [2, 4, 8, 16, 32, 64, 128, 256, 256, 256]);
        worth.learn(true);
        assert!(worth.is_tried());
        worth.learn(false);
        assert!(!worth.is_tried());
    }
}
