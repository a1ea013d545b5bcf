//! So many a second or a minute for each of very many, in memory that does not grow.
//!
//! Takes whose request it is, a rate and the monotonic time, gives leave or says how long to wait. Who owes nothing need
//! not be remembered, and where there is no room it is who owes least that is forgotten: nobody is refused for want of it,
//! and nobody gets out of what he owes by it. It knows nothing of who they are.

use std::hash::{BuildHasher, Hash, RandomState};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

/// So many share a lock, and are looked through one by one.
const TOGETHER: usize = 8;

const SECOND: u64 = 1_000_000_000;

/// So many in a time, evenly; and after a pause some of them at once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Rate {
    /// Nanoseconds after which there is one more: rounded down, in favour of whoever asks.
    each: u64,
    /// Nanoseconds that may be owed at most.
    most: u64,
}

impl Rate {
    /// `count` a second, at least one; and two seconds' worth at once.
    pub(super) fn a_second(count: u32) -> Self {
        let count = u64::from(count.max(1));
        let each = (SECOND / count).max(1);
        Self { each, most: each * count * 2 }
    }

    /// `count` a minute, at least one; and as many at once.
    pub(super) fn a_minute(count: u32) -> Self {
        let count = u64::from(count.max(1));
        let each = (60 * SECOND / count).max(1);
        Self { each, most: each * count }
    }
}

/// What each owes: an allowance that is being used is owed back for a while.
#[derive(Debug)]
pub(super) struct Buckets {
    /// Its key is random and this process' own: nobody can choose whom to share a lock or a bucket with.
    hasher: RandomState,
    sets: Box<[Mutex<[Bucket; TOGETHER]>]>,
}

/// One that was never used owes nothing, whoever's it is.
#[derive(Clone, Copy, Debug, Default)]
struct Bucket {
    /// The hash of whose it is. That two of a set have one and the same does not happen: 64 bits.
    whose: u64,
    /// When the whole allowance is there again, in nanoseconds.
    whole_again: u64,
}

impl Buckets {
    /// For so many that owe something at the same time, in sets of eight.
    pub(super) fn new(count: usize) -> Self {
        let sets = count.div_ceil(TOGETHER).max(1);
        Self { hasher: RandomState::new(), sets: (0..sets).map(|_| Mutex::default()).collect() }
    }

    /// Takes one from somebody's allowance.
    ///
    /// # Errors
    /// It is used up: how long it takes until there is one again. What is refused takes nothing.
    pub(super) fn take(&self, whose: impl Hash, rate: Rate, now: Duration) -> Result<(), Duration> {
        let whose = self.hasher.hash_one(whose);
        let now = u64::try_from(now.as_nanos()).unwrap_or(u64::MAX); // 584 years
        let Some(set) = self.sets.get(at(whose, self.sets.len())) else { return Ok(()) };
        // A panic leaves what is owed as it was, or as it is.
        let mut set = set.lock().unwrap_or_else(PoisonError::into_inner);
        let own = set.iter().position(|bucket| bucket.whose == whose);
        let Some(bucket) = (match own {
            Some(own) => set.get_mut(own),
            None => set.iter_mut().min_by_key(|bucket| bucket.whole_again),
        }) else {
            return Ok(());
        };
        let before = if own.is_some() { bucket.whole_again.max(now) } else { now };
        let after = before.saturating_add(rate.each);
        match after.saturating_sub(now).checked_sub(rate.most) {
            Some(too_much) if too_much > 0 => Err(Duration::from_nanos(too_much)),
            _ => {
                *bucket = Bucket { whose, whole_again: after };
                Ok(())
            }
        }
    }

    /// Gives one back that was taken, where it is still known whose it was.
    pub(super) fn give_back(&self, whose: impl Hash, rate: Rate) {
        let whose = self.hasher.hash_one(whose);
        let Some(set) = self.sets.get(at(whose, self.sets.len())) else { return };
        let mut set = set.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(bucket) = set.iter_mut().find(|bucket| bucket.whose == whose) {
            bucket.whole_again = bucket.whole_again.saturating_sub(rate.each);
        }
    }
}

/// In which of so many sets a hash is: by its upper half, as large as the number of sets may be.
fn at(hash: u64, sets: usize) -> usize {
    usize::try_from(hash >> 32).unwrap_or_default() % sets
}

#[cfg(test)]
mod tests {
    use super::*;

    const START: Duration = Duration::from_secs(1_000);
    const NANOSECOND: Duration = Duration::from_nanos(1);

    /// How many of `asked` are let through at once.
    fn taken(buckets: &Buckets, whose: impl Hash + Copy, rate: Rate, asked: u32, now: Duration) -> u32 {
        (0..asked).map(|_| u32::from(buckets.take(whose, rate, now).is_ok())).sum()
    }

    #[test]
    fn two_seconds_worth_at_once_and_then_one_by_one() {
        for count in [1, 2, 3, 7, 10, 1_000, 20_000, 600_000, 1_000_000] {
            let (buckets, rate) = (Buckets::new(8), Rate::a_second(count));
            assert_eq!(taken(&buckets, "a", rate, 2 * count + 10, START), 2 * count, "{count}");
            let each = Duration::from_secs(1) / count;
            assert_eq!(buckets.take("a", rate, START), Err(each), "{count}: standing still there is none");
            assert_eq!(buckets.take("a", rate, START + each - NANOSECOND), Err(NANOSECOND), "{count}");
            assert_eq!(buckets.take("a", rate, START + each), Ok(()), "{count}");
            assert_eq!(buckets.take("a", rate, START + each), Err(each), "{count}: one, and no more");
        }
    }

    #[test]
    fn a_second_gives_as_many_as_it_is_for() {
        for count in [1, 3, 1_000, 20_000] {
            let (buckets, rate) = (Buckets::new(8), Rate::a_second(count));
            taken(&buckets, "a", rate, 2 * count, START);
            for second in 1..5 {
                let now = START + Duration::from_secs(second);
                assert_eq!(taken(&buckets, "a", rate, 2 * count, now), count, "{count} in second {second}");
            }
            let later = START + Duration::from_secs(3_600);
            assert_eq!(taken(&buckets, "a", rate, 3 * count, later), 2 * count, "{count}: no more for a long pause");
        }
    }

    #[test]
    fn a_minutes_worth_at_once_and_then_one_by_one() {
        let minute = Duration::from_secs(60);
        for count in [1, 2, 7, 10, 60, 1_000, 1_000_000] {
            let (buckets, rate) = (Buckets::new(8), Rate::a_minute(count));
            assert_eq!(taken(&buckets, "a", rate, count + 10, START), count, "{count}");
            let each = minute / count;
            assert_eq!(buckets.take("a", rate, START), Err(each), "{count}: standing still there is none");
            assert_eq!(buckets.take("a", rate, START + each - NANOSECOND), Err(NANOSECOND), "{count}");
            assert_eq!(buckets.take("a", rate, START + each), Ok(()), "{count}");
            assert_eq!(buckets.take("a", rate, START + each), Err(each), "{count}: one, and no more");
            let later = START + each + minute;
            assert_eq!(taken(&buckets, "a", rate, count + 10, later), count, "{count}: all of it, and no more");
        }
    }

    #[test]
    fn what_is_given_back_can_be_taken_again_and_no_more() {
        let (buckets, rate) = (Buckets::new(8), Rate::a_minute(2));
        buckets.give_back("a", rate);
        assert_eq!(taken(&buckets, "a", rate, 10, START), 2);
        buckets.give_back("b", rate);
        assert_eq!(taken(&buckets, "a", rate, 10, START), 0, "another's");
        buckets.give_back("a", rate);
        assert_eq!(taken(&buckets, "a", rate, 10, START), 1);
        // Long after it has come back by itself there is nothing more to be had by it.
        let later = START + Duration::from_secs(3_600);
        buckets.give_back("a", rate);
        assert_eq!(taken(&buckets, "a", rate, 10, later), 2);
    }

    #[test]
    fn at_the_very_start_of_the_clock_it_is_the_same() {
        let (buckets, rate) = (Buckets::new(8), Rate::a_second(5));
        assert_eq!(taken(&buckets, "a", rate, 20, Duration::ZERO), 10);
        assert_eq!(taken(&buckets, "a", rate, 20, Duration::from_millis(199)), 0);
        assert_eq!(taken(&buckets, "a", rate, 20, Duration::from_millis(200)), 1);
    }

    #[test]
    fn what_is_refused_takes_nothing() {
        let (buckets, rate) = (Buckets::new(8), Rate::a_second(10));
        taken(&buckets, "a", rate, 20, START);
        assert_eq!(taken(&buckets, "a", rate, 100_000, START), 0);
        assert_eq!(taken(&buckets, "a", rate, 20, START + Duration::from_secs(1)), 10);
    }

    #[test]
    fn another_has_an_allowance_of_its_own() {
        let (buckets, rate) = (Buckets::new(1_024), Rate::a_second(10));
        assert_eq!(taken(&buckets, "a", rate, 100, START), 20);
        assert_eq!(taken(&buckets, "b", rate, 100, START), 20);
        assert_eq!(taken(&buckets, "a", rate, 100, START), 0);
    }

    #[test]
    fn a_changed_rate_counts_at_once() {
        let buckets = Buckets::new(8);
        assert_eq!(taken(&buckets, "a", Rate::a_second(1), 100, START), 2);
        // What is owed is two seconds of time, at whatever rate.
        let second = Duration::from_secs(1);
        assert_eq!(taken(&buckets, "a", Rate::a_second(1_000), 10_000, START + second), 1_000);
        assert_eq!(taken(&buckets, "a", Rate::a_second(1), 100, START + second), 0);
        assert_eq!(taken(&buckets, "a", Rate::a_second(1), 100, START + 2 * second), 1);
    }

    #[test]
    fn a_clock_that_is_read_out_of_order_gives_nothing_away() {
        let (buckets, rate) = (Buckets::new(8), Rate::a_second(10));
        assert_eq!(taken(&buckets, "a", rate, 100, START + Duration::from_secs(1)), 20);
        assert_eq!(taken(&buckets, "a", rate, 100, START), 0);
        assert_eq!(taken(&buckets, "a", rate, 100, START + Duration::from_secs(1)), 0);
    }

    /// A million strangers, each once: nobody is refused, nothing grows, and whoever has used up his own gets out of it as
    /// little as anybody honest loses by it.
    #[test]
    fn a_million_others_flush_nobody_out_of_what_is_owed_and_hinder_nobody() {
        let (buckets, rate) = (Buckets::new(1_024), Rate::a_second(100));
        assert_eq!(taken(&buckets, "flooding", rate, 1_000, START), 200);
        let refused = (0..1_000_000_u32).filter(|other| buckets.take(other, rate, START).is_err()).count();
        assert_eq!(refused, 0, "for want of room");
        assert_eq!(taken(&buckets, "flooding", rate, 1_000, START), 0, "it owes more than any of them");
        assert_eq!(taken(&buckets, "honest", rate, 200, START), 200);
        assert_eq!(buckets.sets.len() * TOGETHER, 1_024, "as at the start");
        assert_eq!(size_of_val(&*buckets.sets), 128 * (TOGETHER * 16 + 8));
    }

    /// Even where more owe all they may than there is room for, a newcomer is let in.
    #[test]
    fn no_room_is_no_reason_to_refuse() {
        let (buckets, rate) = (Buckets::new(8), Rate::a_second(2));
        for other in 0..1_000_u32 {
            assert_eq!(taken(&buckets, other, rate, 5, START), 4);
        }
    }

    #[test]
    fn threads_share_one_allowance() {
        let (buckets, rate) = (Buckets::new(8), Rate::a_second(500));
        let all: u32 = std::thread::scope(|scope| {
            let threads: Vec<_> = (0..8).map(|_| scope.spawn(|| taken(&buckets, "a", rate, 1_000, START))).collect();
            threads.into_iter().map(|thread| thread.join().unwrap()).sum()
        });
        assert_eq!(all, 1_000);
    }
}
