//! How much each has of what there is not enough of for everybody.
//!
//! Takes a name, gives it a [`Share`] unless it has as many as one may have, and takes it back when that is dropped.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

/// So many for each.
#[derive(Debug)]
pub(super) struct Shares {
    most: usize,
    /// Who has none is not in it.
    taken: Mutex<HashMap<Box<str>, usize>>,
}

impl Shares {
    pub(super) fn of(most: usize) -> Self {
        Self { most, taken: Mutex::new(HashMap::new()) }
    }

    /// One more for `who`, who may have no more.
    pub(super) fn take(&self, who: &str) -> Option<Share<'_>> {
        let mut taken = self.taken();
        match taken.get_mut(who) {
            Some(count) if *count >= self.most => return None,
            Some(count) => *count += 1,
            None => {
                taken.insert(who.into(), 1);
            }
        }
        drop(taken);
        Some(Share { shares: self, who: who.into() })
    }

    fn taken(&self) -> MutexGuard<'_, HashMap<Box<str>, usize>> {
        self.taken.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// One of somebody's, until it is dropped.
#[derive(Debug)]
pub(super) struct Share<'a> {
    shares: &'a Shares,
    who: Box<str>,
}

impl Drop for Share<'_> {
    fn drop(&mut self) {
        let mut taken = self.shares.taken();
        match taken.get_mut(&self.who) {
            Some(count) if *count > 1 => *count -= 1,
            _ => {
                taken.remove(&self.who);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn so_many_for_each_and_not_one_more() {
        let shares = Shares::of(2);
        let (first, second) = (shares.take("a").unwrap(), shares.take("a").unwrap());
        assert!(shares.take("a").is_none());
        let other = shares.take("b").unwrap();
        drop(first);
        let third = shares.take("a").unwrap();
        assert!(shares.take("a").is_none());
        drop((second, third, other));
        assert!(shares.taken().is_empty(), "nobody is remembered for nothing");
    }
}
