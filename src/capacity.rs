//! How much a node takes on at one time.
//!
//! Takes requests as they come in and how long each of them took, gives a place or a refusal, at once: what could only be
//! answered late is refused while that is still cheap. It knows nothing of what is asked.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

use crate::config::Limits;
use crate::request::RequestRefusal;
use crate::telemetry;

/// A decision that takes longer has waited in a queue; where a commit alone takes that long, three commits' time.
const LATE: Duration = Duration::from_millis(100);

/// And longer than this it is late however slow the disk is.
const LATEST: Duration = Duration::from_millis(500);

/// How long is looked back. What is over sooner is a burst, and is served.
const WINDOW: Duration = Duration::from_millis(100);

/// There are always so many places: they fit into one commit, so that even a slow disk serves all of them together. With
/// fewer, what waits for the processor behind a flood of refusals would be less, and no sooner done.
const FEWEST: usize = 512;

/// So many refusals in a window are answered at once. Reading the next request only to refuse it as well costs a fifth of
/// what deciding it would: unbounded, refusing is all that a node does.
const REFUSED_AT_ONCE: usize = 200;

/// How long the others wait for theirs, at least and at most: apart, so that they do not all come again together.
const PUSHED_BACK: (u64, u64) = (250, 500);

/// So many at one time, and no more: each is a request that is held in memory.
const MOST_PUSHED_BACK: usize = 8_192;

/// Places for requests that are being decided. A request under way has one from the moment its body is there until it is
/// answered.
///
/// Their number follows what the node gets done. Where more than half of the decisions of a window came late there is a queue
/// that does not go away by itself, so as many places are left as were answered in half the time that is not late yet. From
/// there on their number grows by a quarter with each window that was good.
#[derive(Debug)]
pub struct Places {
    most: usize,
    open: AtomicUsize,
    under_way: AtomicUsize,
    /// Monotonic nanoseconds: since when is counted.
    counted_since: AtomicU64,
    decided: AtomicUsize,
    late: AtomicUsize,
    refused: AtomicUsize,
    pushed_back: AtomicUsize,
    /// When something was decided last, or began while nothing was under way.
    moved: AtomicU64,
}

impl Places {
    /// So many at most.
    pub fn new(limits: &Limits) -> Arc<Self> {
        let most = limits.requests;
        Arc::new(Self {
            most,
            open: AtomicUsize::new(most),
            under_way: AtomicUsize::new(0),
            counted_since: AtomicU64::new(0),
            decided: AtomicUsize::new(0),
            late: AtomicUsize::new(0),
            refused: AtomicUsize::new(0),
            pushed_back: AtomicUsize::new(0),
            moved: AtomicU64::new(0),
        })
    }

    /// Whether there is one, before anything is read of the request. `commit` is what a commit takes at present.
    ///
    /// # Errors
    /// [`RequestRefusal::Overloaded`].
    pub fn look(&self, now: Duration, commit: Duration) -> Result<(), RequestRefusal> {
        self.follow(now, commit);
        if self.under_way.load(Ordering::Relaxed) < self.open.load(Ordering::Relaxed) {
            Ok(())
        } else {
            Err(RequestRefusal::Overloaded)
        }
    }

    /// One of them, given back when it is dropped.
    ///
    /// # Errors
    /// [`RequestRefusal::Overloaded`].
    pub fn take(self: &Arc<Self>, now: Duration) -> Result<Place, RequestRefusal> {
        let others = self.under_way.fetch_add(1, Ordering::Relaxed);
        let place = Place { places: Arc::clone(self), since: now };
        if others >= self.open.load(Ordering::Relaxed) {
            return Err(RequestRefusal::Overloaded); // and the place is given back
        }
        if others == 0 {
            self.moved.store(nanos(now), Ordering::Relaxed);
        }
        Ok(place)
    }

    /// Counts a refusal for want of a place, and says whether it is to be kept back, and for how long. On HTTP/1.1 the peer's
    /// connection is not read meanwhile; on HTTP/2 its other streams go on.
    pub fn push_back(self: &Arc<Self>) -> Option<PushedBack> {
        let before = self.refused.fetch_add(1, Ordering::Relaxed);
        if before < REFUSED_AT_ONCE {
            return None;
        }
        let (least, most) = PUSHED_BACK;
        let wait = Duration::from_millis(least + before as u64 % (most - least));
        let others = self.pushed_back.fetch_add(1, Ordering::Relaxed);
        let pushed_back = PushedBack { places: Arc::clone(self), wait };
        (others < MOST_PUSHED_BACK).then_some(pushed_back)
    }

    /// Adapts the number of places, once in a window.
    fn follow(&self, now: Duration, commit: Duration) {
        let (since, now) = (self.counted_since.load(Ordering::Relaxed), nanos(now));
        let passed = now.saturating_sub(since);
        if passed < nanos(WINDOW) {
            return;
        }
        // Whoever is first counts for all.
        if self.counted_since.compare_exchange(since, now, Ordering::Relaxed, Ordering::Relaxed).is_err() {
            return;
        }
        let decided = self.decided.swap(0, Ordering::Relaxed);
        let late = self.late.swap(0, Ordering::Relaxed);
        self.refused.store(0, Ordering::Relaxed);
        let open = self.open.load(Ordering::Relaxed);
        let patience = late_after(commit);
        // Fewer may all be waiting for somebody else's responder, which says nothing of this node.
        let stands_still = self.under_way.load(Ordering::Relaxed) >= FEWEST
            && now.saturating_sub(self.moved.load(Ordering::Relaxed)) >= nanos(patience);
        let next = if late * 2 > decided {
            let in_time = decided as u128 * patience.as_nanos() / 2 / u128::from(passed);
            usize::try_from(in_time).unwrap_or(usize::MAX).max(FEWEST).min(open)
        } else if stands_still {
            FEWEST
        } else {
            open.saturating_add(open / 4)
        };
        let next = next.min(self.most);
        self.open.store(next, Ordering::Relaxed);
        metrics::gauge!(telemetry::PLACES).set(next as f64);
    }
}

/// A refusal that is kept back, until it is dropped.
#[derive(Debug)]
pub struct PushedBack {
    places: Arc<Places>,
    wait: Duration,
}

impl PushedBack {
    /// For how long.
    pub const fn wait(&self) -> Duration {
        self.wait
    }
}

impl Drop for PushedBack {
    fn drop(&mut self) {
        self.places.pushed_back.fetch_sub(1, Ordering::Relaxed);
    }
}

/// One request's place.
#[derive(Debug)]
pub struct Place {
    places: Arc<Places>,
    since: Duration,
}

impl Place {
    /// Gives it back, for what was asked has been granted and put on record, or could not be: that took as long as it takes at
    /// present. What is refused otherwise is not timed: a flood of it must not hide a queue.
    pub fn decided(self, now: Duration, commit: Duration) {
        let places = &self.places;
        places.decided.fetch_add(1, Ordering::Relaxed);
        if now.saturating_sub(self.since) >= late_after(commit) {
            places.late.fetch_add(1, Ordering::Relaxed);
        }
        places.moved.store(nanos(now), Ordering::Relaxed);
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.places.under_way.fetch_sub(1, Ordering::Relaxed);
    }
}

/// A decision waits for the commit under way, then for its own: twice a commit's time is no queue.
fn late_after(commit: Duration) -> Duration {
    (commit * 3).clamp(LATE, LATEST)
}

fn nanos(time: Duration) -> u64 {
    u64::try_from(time.as_nanos()).unwrap_or(u64::MAX) // 584 years
}

#[cfg(test)]
mod tests {
    use super::*;

    const FAST: Duration = Duration::from_millis(1);
    const NANOSECOND: Duration = Duration::from_nanos(1);
    const START: Duration = Duration::from_secs(1_000);

    fn places(most: usize) -> Arc<Places> {
        let places = Places::new(&Limits { requests: most, ..Limits::default() });
        places.look(START, FAST).unwrap();
        places
    }

    fn millis(count: u64) -> Duration {
        Duration::from_millis(count)
    }

    /// What has a place, oldest first, and a node that decides so many in each millisecond.
    struct Node {
        places: Arc<Places>,
        under_way: std::collections::VecDeque<Place>,
        now: Duration,
        commit: Duration,
        longest: Duration,
        decided: usize,
        refused: usize,
    }

    impl Node {
        fn new(most: usize, commit: Duration) -> Self {
            Self {
                places: places(most),
                under_way: std::collections::VecDeque::new(),
                now: START,
                commit,
                longest: Duration::ZERO,
                decided: 0,
                refused: 0,
            }
        }

        fn ask(&mut self, count: usize) {
            for _ in 0..count {
                match self.places.look(self.now, self.commit).and_then(|()| self.places.take(self.now)) {
                    Ok(place) => self.under_way.push_back(place),
                    Err(_) => self.refused += 1,
                }
            }
        }

        fn decide(&mut self, count: usize) {
            for place in self.under_way.drain(..count.min(self.under_way.len())) {
                self.longest = self.longest.max(self.now - place.since);
                self.decided += 1;
                place.decided(self.now, self.commit);
            }
        }

        /// So many milliseconds with so many requests and decisions in each.
        fn run(&mut self, milliseconds: usize, asked: usize, decided: usize) {
            (self.longest, self.decided, self.refused) = (Duration::ZERO, 0, 0);
            for _ in 0..milliseconds {
                self.ask(asked);
                self.now += millis(1);
                self.decide(decided);
            }
        }
    }

    #[test]
    fn at_five_times_what_it_gets_done_a_node_does_all_it_can_and_is_late_with_nothing() {
        let mut node = Node::new(4_096, FAST);
        node.run(1_000, 40, 8); // until it has found out
        node.run(10_000, 40, 8);
        assert_eq!(node.decided, 80_000, "all that it can");
        assert!(node.refused >= 319_000, "{}", node.refused);
        assert!(node.longest <= millis(200), "{:?}", node.longest);
        // And when it is over, nobody is refused any more.
        node.run(1_000, 4, 8);
        node.run(10_000, 4, 8);
        assert_eq!((node.refused, node.decided), (0, 40_000));
    }

    #[test]
    fn even_until_it_has_found_out_there_is_a_bound() {
        let mut node = Node::new(4_096, FAST);
        node.run(10_000, 40, 8);
        assert!(node.longest <= millis(4_096 / 8), "{:?}", node.longest);
    }

    #[test]
    fn no_more_than_so_many_are_kept_back() {
        let places = Places::new(&Limits::default());
        for _ in 0..REFUSED_AT_ONCE {
            assert!(places.push_back().is_none());
        }
        let mut kept: Vec<_> = (0..MOST_PUSHED_BACK).map(|_| places.push_back().unwrap()).collect();
        assert!(kept.iter().all(|kept| (250..500).contains(&kept.wait().as_millis())));
        assert!(places.push_back().is_none(), "answered at once");
        kept.pop();
        assert!(places.push_back().is_some());
        assert_eq!(places.pushed_back.load(Ordering::Relaxed), MOST_PUSHED_BACK - 1, "each gives its own back");
    }

    #[test]
    fn a_burst_that_is_absorbed_in_time_is_never_refused() {
        let mut node = Node::new(4_096, FAST);
        for _ in 0..100 {
            node.ask(800);
            node.run(500, 0, 8);
        }
        assert_eq!(node.refused, 0);
        assert!(node.under_way.is_empty());
    }

    #[test]
    fn half_of_the_decisions_may_be_late() {
        let late_by = |late: u64| {
            let places = places(1_000);
            for at in 0..10 {
                let place = places.take(START).unwrap();
                place.decided(if at < late { START + LATE } else { START + LATE - NANOSECOND }, FAST);
            }
            places.look(START + LATE, FAST).unwrap();
            places.open.load(Ordering::Relaxed)
        };
        assert_eq!(late_by(5), 1_000);
        assert_eq!(late_by(6), FEWEST);
    }

    #[test]
    fn nothing_is_looked_at_before_the_window_is_over() {
        let places = places(1_000);
        places.take(START).unwrap().decided(START + LATE, FAST);
        places.look(START + WINDOW - NANOSECOND, FAST).unwrap();
        assert_eq!(places.open.load(Ordering::Relaxed), 1_000);
        places.look(START + WINDOW, FAST).unwrap();
        assert_eq!(places.open.load(Ordering::Relaxed), FEWEST);
    }

    /// Each commit takes a fifth of a second and all that wait share it: that is no queue, and fewer places would only mean
    /// fewer tokens.
    #[test]
    fn a_slow_disk_is_no_queue() {
        let commit = millis(150);
        let mut node = Node::new(512, commit);
        for _ in 0..100 {
            // Whoever came just behind a commit waits for two.
            let waiting = node.under_way.len();
            node.ask(256);
            node.now += commit;
            node.decide(waiting);
        }
        assert_eq!((node.refused, node.longest), (0, commit * 2));
    }

    #[test]
    fn however_slow_the_disk_is_half_a_second_is_late() {
        assert_eq!(late_after(Duration::ZERO), LATE);
        assert_eq!(late_after(millis(33)), LATE);
        assert_eq!(late_after(millis(40)), millis(120));
        assert_eq!(late_after(Duration::from_secs(5)), LATEST);
    }

    /// The store has stopped: the first few wait for it as long as a request may, everybody else is told at once.
    #[test]
    fn a_store_that_answers_nothing_leaves_the_fewest() {
        let mut node = Node::new(4_096, FAST);
        node.run(1_000, 4, 4);
        node.run(500, 4, 0);
        assert!(node.under_way.len() <= 4 * 201, "{}", node.under_way.len());
        assert!(node.refused >= 4 * 299, "{}", node.refused);
        // It answers again, and what waited is late; a second later nobody is refused.
        node.run(1_000, 4, 8);
        node.run(1_000, 4, 8);
        assert_eq!(node.refused, 0);
    }

    /// They may wait for whoever is asked about their certificates; fewer places would only turn away the next burst.
    #[test]
    fn few_requests_that_wait_are_no_standstill() {
        let open_beside = |waiting: usize| {
            let places = places(4_096);
            let _waiting: Vec<_> = (0..waiting).map(|_| places.take(START).unwrap()).collect();
            places.look(START + LATE, FAST).unwrap_or_default();
            places.open.load(Ordering::Relaxed)
        };
        assert_eq!(open_beside(FEWEST - 1), 4_096);
        assert_eq!(open_beside(FEWEST), FEWEST);
    }

    #[test]
    fn few_requests_are_served_however_slowly() {
        let mut node = Node::new(4_096, FAST);
        for _ in 0..100 {
            node.ask(FEWEST);
            node.now += Duration::from_secs(2);
            node.decide(FEWEST);
        }
        assert_eq!(node.refused, 0);
    }

    #[test]
    fn after_a_long_pause_a_burst_is_no_standstill() {
        let places = places(4_096);
        let later = START + Duration::from_secs(3_600);
        places.take(START).unwrap().decided(START, FAST);
        let _first = places.look(later, FAST).and_then(|()| places.take(later)).unwrap();
        places.look(later + LATE - NANOSECOND, FAST).unwrap();
        assert_eq!(places.open.load(Ordering::Relaxed), 4_096);
    }

    #[test]
    fn what_is_refused_before_it_is_recorded_hides_no_queue() {
        let places = places(1_000);
        for _ in 0..100 {
            drop(places.take(START).unwrap());
        }
        places.take(START).unwrap().decided(START + LATE, FAST);
        places.look(START + LATE, FAST).unwrap();
        assert_eq!(places.open.load(Ordering::Relaxed), FEWEST);
    }

    #[test]
    fn there_are_no_more_than_were_configured_even_if_that_is_few() {
        for most in [0, 1, 2, FEWEST, 100] {
            let places = places(most.max(1));
            let places = if most == 0 { Places::new(&Limits { requests: 0, ..Limits::default() }) } else { places };
            let taken: Vec<_> = (0..most).map(|_| places.take(START).unwrap()).collect();
            assert_eq!(places.look(START, FAST), Err(RequestRefusal::Overloaded));
            assert_eq!(places.take(START).unwrap_err(), RequestRefusal::Overloaded);
            drop(taken);
            assert_eq!(places.under_way.load(Ordering::Relaxed), 0, "what was refused holds nothing");
        }
    }

    #[test]
    fn so_many_refusals_in_a_window_are_answered_at_once_and_the_others_later() {
        let places = places(1);
        for _ in 0..2 {
            assert!((0..REFUSED_AT_ONCE).all(|_| places.push_back().is_none()));
            for _ in 0..10_000 {
                let wait = places.push_back().unwrap().wait();
                assert!(wait >= millis(PUSHED_BACK.0) && wait < millis(PUSHED_BACK.1), "{wait:?}");
            }
            let now = Duration::from_nanos(places.counted_since.load(Ordering::Relaxed)) + WINDOW;
            places.look(now, FAST).unwrap();
        }
    }

    #[test]
    fn threads_neither_lose_places_nor_make_any() {
        let places = places(8);
        std::thread::scope(|scope| {
            for _ in 0..8 {
                scope.spawn(|| {
                    for at in 0..10_000_u64 {
                        let now = START + Duration::from_micros(at * 50);
                        if let Ok(place) = places.look(now, FAST).and_then(|()| places.take(now)) {
                            assert!(places.under_way.load(Ordering::Relaxed) <= 16);
                            place.decided(now, FAST);
                        }
                    }
                });
            }
        });
        assert_eq!(places.under_way.load(Ordering::Relaxed), 0);
        assert_eq!(places.open.load(Ordering::Relaxed), 8);
    }

    #[test]
    fn a_clock_that_is_read_out_of_order_breaks_nothing() {
        let places = places(100);
        let place = places.take(START + LATE).unwrap();
        places.look(START - LATE, FAST).unwrap();
        place.decided(START, FAST);
        places.look(START + WINDOW, FAST).unwrap();
        assert_eq!(places.open.load(Ordering::Relaxed), 100);
    }
}
