//! Whose handshake is computed next.
//!
//! Takes handshakes as they become ready to go on, lets a few of them be computed at one time and has the others wait, each
//! address in a line of its own: so a flood of handshakes delays neither requests nor, by more than its turn, the handshake
//! of somebody else. It knows nothing of what is computed.

use std::collections::{HashMap, VecDeque};
use std::net::IpAddr;
use std::num::NonZero;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};
use std::thread::available_parallelism;

use pin_project_lite::pin_project;
use tokio::runtime::Handle;
use tokio::task::yield_now;

use super::HandshakeRefusal;
use super::connection::neighbourhood;

/// The turns of one node.
#[derive(Debug)]
pub(super) struct Turns {
    at_once: usize,
    /// The one thread computes requests too: a turn lasts until what was ready meanwhile has run.
    is_alone: bool,
    longest: usize,
    lines: Mutex<Lines>,
}

#[derive(Debug, Default)]
struct Lines {
    running: usize,
    /// How many wait for their first turn: those that have begun cannot be refused any more, nor are others for them.
    waiting: usize,
    /// Who waits, by address, those that have begun in front; no line is empty.
    of: HashMap<IpAddr, VecDeque<Arc<Waiter>>>,
    /// The addresses that have a line, in the order they have their turns.
    round: VecDeque<IpAddr>,
}

#[derive(Debug)]
struct Waiter {
    /// It has had a turn already: what was computed for it is not thrown away.
    begun: bool,
    state: Mutex<State>,
}

#[derive(Debug)]
enum State {
    Waiting(Waker),
    Called,
    Refused,
}

impl Turns {
    /// So many may wait in all.
    pub(super) fn new(longest: usize) -> Self {
        // A turn is held only while a thread computes: as many turns as threads would never be missed by anybody. One thread is
        // left for requests, and one core; where there is one in all, requests come between two turns.
        let cores = available_parallelism().map_or(1, NonZero::get);
        let workers = Handle::try_current().map_or(1, |runtime| runtime.metrics().num_workers());
        let at_once = workers.min(cores).saturating_sub(1).max(1);
        Self { is_alone: workers <= 1, ..Self::with(at_once, longest) }
    }

    fn with(at_once: usize, longest: usize) -> Self {
        Self { at_once, is_alone: false, longest, lines: Mutex::default() }
    }

    /// `work` for somebody at `address`, each step of it in its turn.
    pub(super) fn take_turns<F: Future>(self: &Arc<Self>, address: IpAddr, work: F) -> TakingTurns<F> {
        let place = Place { turns: Arc::clone(self), address: neighbourhood(address), begun: false, waiter: None };
        TakingTurns { place, work }
    }

    fn lock(&self) -> MutexGuard<'_, Lines> {
        self.lines.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A turn is over: the next one's, if somebody waits.
    fn pass_on(&self) {
        let called = {
            let mut lines = self.lock();
            match lines.next() {
                // The turn is his from here on, whether or not he takes it.
                Some(waiter) => waiter.call(State::Called),
                None => {
                    lines.running -= 1;
                    None
                }
            }
        };
        if let Some(waker) = called {
            waker.wake();
        }
    }
}

impl Lines {
    /// Takes out whose turn it is: each address one, then the next one's.
    fn next(&mut self) -> Option<Arc<Waiter>> {
        let address = self.round.pop_front()?;
        let line = self.of.get_mut(&address)?;
        let waiter = line.pop_front();
        if line.is_empty() {
            self.of.remove(&address);
        } else {
            self.round.push_back(address);
        }
        self.waiting -= usize::from(waiter.as_ref().is_some_and(|waiter| !waiter.begun));
        waiter
    }

    fn add(&mut self, address: IpAddr, waiter: &Arc<Waiter>) {
        let line = self.of.entry(address).or_default();
        if line.is_empty() {
            self.round.push_back(address);
        }
        if waiter.begun {
            line.insert(line.partition_point(|other| other.begun), Arc::clone(waiter));
        } else {
            line.push_back(Arc::clone(waiter));
            self.waiting += 1;
        }
    }

    /// Somebody who waits will not come.
    fn remove(&mut self, address: IpAddr, gone: &Arc<Waiter>) {
        let Some(line) = self.of.get_mut(&address) else { return };
        let before = not_begun(line);
        line.retain(|waiter| !Arc::ptr_eq(waiter, gone));
        self.waiting -= before - not_begun(line);
        if line.is_empty() {
            self.of.remove(&address);
            self.round.retain(|other| *other != address);
        }
    }

    /// Makes room for one of `address` at the end of the line in which most have not begun, if they are more than in its own
    /// would be then.
    fn make_room(&mut self, address: IpAddr) -> Option<Arc<Waiter>> {
        let own = self.of.get(&address).map_or(0, not_begun);
        let (longest, line) = self.of.iter().max_by_key(|(_, line)| not_begun(line))?;
        if not_begun(line) <= own + 1 {
            return None;
        }
        let last = line.back().map(Arc::clone)?;
        self.remove(*longest, &last);
        Some(last)
    }
}

/// How many of a line have not begun.
fn not_begun(line: &VecDeque<Arc<Waiter>>) -> usize {
    line.len() - line.partition_point(|waiter| waiter.begun)
}

impl Waiter {
    /// Says so, and gives whom to wake.
    fn call(&self, state: State) -> Option<Waker> {
        let mut own = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        match std::mem::replace(&mut *own, state) {
            State::Waiting(waker) => Some(waker),
            State::Called | State::Refused => None,
        }
    }
}

pin_project! {
    /// Work that is done step by step, each in its turn.
    pub(super) struct TakingTurns<F> {
        place: Place,
        #[pin]
        work: F,
    }
}

/// Where somebody stands.
struct Place {
    turns: Arc<Turns>,
    address: IpAddr,
    begun: bool,
    waiter: Option<Arc<Waiter>>,
}

impl<F: Future> Future for TakingTurns<F> {
    type Output = Result<F::Output, HandshakeRefusal>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let this = self.project();
        let turn = match this.place.poll_turn(cx) {
            Poll::Ready(Ok(turn)) => turn,
            Poll::Ready(Err(refusal)) => return Poll::Ready(Err(refusal)),
            Poll::Pending => return Poll::Pending,
        };
        let step = this.work.poll(cx);
        drop(turn);
        step.map(Ok)
    }
}

/// A turn, passed on when it is dropped: also where a step panics.
struct Turn(Arc<Turns>);

impl Drop for Turn {
    fn drop(&mut self) {
        match Handle::try_current() {
            Ok(runtime) if self.0.is_alone => {
                let turns = Arc::clone(&self.0);
                runtime.spawn(async move {
                    // Once until the sockets were looked at, once more until what was found there has run; where there is always
                    // something that can run, that is some sixty tasks later each.
                    yield_now().await;
                    yield_now().await;
                    turns.pass_on();
                });
            }
            _ => self.0.pass_on(),
        }
    }
}

impl Place {
    fn poll_turn(&mut self, cx: &Context<'_>) -> Poll<Result<Turn, HandshakeRefusal>> {
        if let Some(waiter) = &self.waiter {
            {
                let mut state = waiter.state.lock().unwrap_or_else(PoisonError::into_inner);
                match &mut *state {
                    State::Waiting(waker) => {
                        waker.clone_from(cx.waker());
                        return Poll::Pending;
                    }
                    State::Called => {}
                    State::Refused => return Poll::Ready(Err(HandshakeRefusal::NoTurn)),
                }
            }
            self.waiter = None;
            return Poll::Ready(Ok(self.turn()));
        }
        let mut lines = self.turns.lock();
        if lines.running < self.turns.at_once {
            lines.running += 1;
            drop(lines);
            return Poll::Ready(Ok(self.turn()));
        }
        let mut refused = None;
        if lines.waiting >= self.turns.longest && !self.begun {
            refused = lines.make_room(self.address);
            if refused.is_none() {
                return Poll::Ready(Err(HandshakeRefusal::NoTurn));
            }
        }
        let state = Mutex::new(State::Waiting(cx.waker().clone()));
        let waiter = Arc::new(Waiter { begun: self.begun, state });
        lines.add(self.address, &waiter);
        drop(lines);
        self.waiter = Some(waiter);
        if let Some(waker) = refused.and_then(|refused| refused.call(State::Refused)) {
            waker.wake();
        }
        Poll::Pending
    }

    fn turn(&mut self) -> Turn {
        self.begun = true;
        Turn(Arc::clone(&self.turns))
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let Some(waiter) = self.waiter.take() else { return };
        let mut lines = self.turns.lock();
        lines.remove(self.address, &waiter);
        // Called under this lock, so that it is known by now.
        let state = waiter.state.lock().unwrap_or_else(PoisonError::into_inner);
        let was_called = matches!(*state, State::Called);
        drop(state);
        drop(lines);
        if was_called {
            self.turns.pass_on();
        }
    }
}

#[cfg(test)]
mod tests {
    use std::future::poll_fn;
    use std::sync::atomic::{AtomicUsize, Ordering};

    use futures_util::FutureExt;

    use super::*;

    fn address(number: u8) -> IpAddr {
        [192, 0, 2, number].into()
    }

    /// One turn at a time, which somebody has.
    fn taken(longest: usize) -> (Arc<Turns>, Turn) {
        let turns = Arc::new(Turns::with(1, longest));
        let mut place = turns.take_turns(address(1), async {}).place;
        let Poll::Ready(Ok(turn)) = place.poll_turn(&Context::from_waker(Waker::noop())) else { panic!("no turn") };
        (turns, turn)
    }

    /// Notes its number when its turn comes.
    fn noting(
        turns: &Arc<Turns>,
        number: u8,
        noted: &Arc<Mutex<Vec<u8>>>,
    ) -> Pin<Box<TakingTurns<impl Future<Output = ()> + use<>>>> {
        let noted = Arc::clone(noted);
        Box::pin(turns.take_turns(address(number), async move { noted.lock().unwrap().push(number) }))
    }

    fn is_idle(turns: &Turns) -> bool {
        let lines = turns.lock();
        lines.running == 0 && lines.waiting == 0 && lines.of.is_empty() && lines.round.is_empty()
    }

    #[test]
    fn a_turn_that_is_free_is_had_at_once() {
        let turns = Arc::new(Turns::with(2, 0));
        assert_eq!(turns.take_turns(address(1), async { 7 }).now_or_never(), Some(Ok(7)));
        assert!(is_idle(&turns));
    }

    /// What is ready runs between two turns, though one thread computes both.
    #[tokio::test]
    async fn where_one_thread_does_all_requests_come_between_two_turns() {
        let turns = Arc::new(Turns::new(100));
        assert!(turns.is_alone);
        let noted: Arc<Mutex<Vec<u8>>> = Arc::default();
        // From a task: nothing of it runs before all of it is ready.
        let all = tokio::spawn({
            let (turns, noted) = (Arc::clone(&turns), Arc::clone(&noted));
            async move {
                let mut tasks = Vec::new();
                for _ in 0..4 {
                    let (handshake, noted) = (noting(&turns, 1, &noted), Arc::clone(&noted));
                    tasks.push(tokio::spawn(async move { handshake.await.unwrap() }));
                    tasks.push(tokio::spawn(async move { noted.lock().unwrap().push(0) }));
                }
                for task in tasks {
                    task.await.unwrap();
                }
            }
        });
        all.await.unwrap();
        while !is_idle(&turns) {
            yield_now().await;
        }
        let noted = noted.lock().unwrap();
        let requests_done = noted.iter().rposition(|number| *number == 0).unwrap();
        assert!(noted[..requests_done].iter().filter(|number| **number == 1).count() <= 1, "{noted:?}");
        assert_eq!(noted.len(), 8);
    }

    #[test]
    fn each_address_has_its_turn_however_many_wait_at_another() {
        let (turns, turn) = taken(100);
        let noted = Arc::default();
        let mut waiting: Vec<_> = [1, 1, 1, 1, 2, 2, 3].map(|number| noting(&turns, number, &noted)).into();
        for work in &mut waiting {
            assert_eq!(work.now_or_never(), None);
        }
        drop(turn);
        // Polled in any order, only the one that was called goes on.
        while !is_idle(&turns) {
            waiting.retain_mut(|work| work.now_or_never().is_none());
        }
        assert_eq!(*noted.lock().unwrap(), [1, 2, 3, 1, 2, 1, 1]);
    }

    #[test]
    fn a_network_of_ipv6_waits_in_one_line() {
        let (turns, _turn) = taken(100);
        for host in 1..=3_u16 {
            let host = IpAddr::from([0x2001, 0xdb8, 1, 2, 0, 0, 0, host]);
            let mut work = Box::pin(turns.take_turns(host, async {}));
            assert_eq!((&mut work).now_or_never(), None);
            std::mem::forget(work);
        }
        assert_eq!(turns.lock().of.len(), 1);
    }

    #[test]
    fn more_than_may_wait_are_refused_where_most_of_them_are() {
        let (turns, turn) = taken(4);
        let noted = Arc::default();
        let mut crowd: Vec<_> = [1; 4].map(|number| noting(&turns, number, &noted)).into();
        for work in &mut crowd {
            assert_eq!(work.now_or_never(), None);
        }
        let refused = Some(Err(HandshakeRefusal::NoTurn));
        assert_eq!((&mut noting(&turns, 1, &noted)).now_or_never(), refused, "one more of the crowd");
        let mut other = noting(&turns, 2, &noted);
        assert_eq!((&mut other).now_or_never(), None, "there is room for another");
        assert_eq!((&mut crowd.pop().unwrap()).now_or_never(), refused, "the newest of the crowd's");
        drop(turn);
        crowd.push(other);
        while !is_idle(&turns) {
            crowd.retain_mut(|work| work.now_or_never().is_none());
        }
        assert_eq!(*noted.lock().unwrap(), [1, 2, 1, 1]);
    }

    #[test]
    fn where_each_waits_alone_it_is_the_newcomer_who_is_refused() {
        let (turns, _turn) = taken(3);
        let noted = Arc::default();
        let mut waiting: Vec<_> = [1, 2, 3].map(|number| noting(&turns, number, &noted)).into();
        for work in &mut waiting {
            assert_eq!(work.now_or_never(), None);
        }
        assert_eq!((&mut noting(&turns, 4, &noted)).now_or_never(), Some(Err(HandshakeRefusal::NoTurn)));
        for work in &mut waiting {
            assert_eq!(work.now_or_never(), None);
        }
    }

    /// Two steps, and something to wait for between them.
    fn in_two_steps(turns: &Arc<Turns>, number: u8) -> Pin<Box<TakingTurns<impl Future<Output = ()> + use<>>>> {
        let mut steps = 0;
        let work = poll_fn(move |_| {
            steps += 1;
            if steps == 2 { Poll::Ready(()) } else { Poll::Pending }
        });
        Box::pin(turns.take_turns(address(number), work))
    }

    #[test]
    fn what_is_begun_is_neither_refused_nor_put_behind_what_is_not() {
        let turns = Arc::new(Turns::with(1, 1));
        let mut begun = in_two_steps(&turns, 1);
        assert_eq!((&mut begun).now_or_never(), None);
        assert_eq!(turns.lock().running, 0, "no turn is held while something else is waited for");
        let mut place = turns.take_turns(address(2), async {}).place;
        let Poll::Ready(Ok(turn)) = place.poll_turn(&Context::from_waker(Waker::noop())) else { panic!("no turn") };
        let noted = Arc::default();
        let mut newcomer = noting(&turns, 1, &noted);
        assert_eq!((&mut newcomer).now_or_never(), None);
        assert_eq!((&mut begun).now_or_never(), None, "though nobody else may wait");
        drop(turn);
        assert_eq!((&mut newcomer).now_or_never(), None);
        assert_eq!((&mut begun).now_or_never(), Some(Ok(())));
        assert_eq!((&mut newcomer).now_or_never(), Some(Ok(())));
        assert!(is_idle(&turns));
    }

    /// Handshakes of 192.0.2.1 that have begun and wait for their second turn, and somebody else's turn.
    fn crowd_that_has_begun(
        longest: usize,
    ) -> (Arc<Turns>, Turn, Vec<impl Future<Output = Result<(), HandshakeRefusal>> + Unpin>) {
        let turns = Arc::new(Turns::with(1, longest));
        let mut begun: Vec<_> = (0..longest + 3).map(|_| in_two_steps(&turns, 1)).collect();
        for work in &mut begun {
            assert_eq!(work.now_or_never(), None);
        }
        let mut place = turns.take_turns(address(9), async {}).place;
        let Poll::Ready(Ok(turn)) = place.poll_turn(&Context::from_waker(Waker::noop())) else { panic!("no turn") };
        for work in &mut begun {
            assert_eq!(work.now_or_never(), None);
        }
        assert_eq!(turns.lock().of[&address(1)].len(), longest + 3);
        (turns, turn, begun)
    }

    #[test]
    fn of_those_that_have_begun_whoever_waits_longest_is_first() {
        let (_turns, turn, mut begun) = crowd_that_has_begun(0);
        drop(turn);
        assert_eq!((&mut begun[2]).now_or_never(), None);
        assert_eq!((&mut begun[0]).now_or_never(), Some(Ok(())));
    }

    #[test]
    fn those_that_have_begun_take_no_room_from_those_that_have_not() {
        let (turns, turn, mut begun) = crowd_that_has_begun(2);
        let noted = Arc::default();
        let mut waiting: Vec<_> = [2, 3].map(|number| noting(&turns, number, &noted)).into();
        for work in &mut waiting {
            assert_eq!(work.now_or_never(), None);
        }
        assert_eq!((&mut noting(&turns, 4, &noted)).now_or_never(), Some(Err(HandshakeRefusal::NoTurn)));
        drop(turn);
        while !is_idle(&turns) {
            begun.retain_mut(|work| work.now_or_never().is_none());
            waiting.retain_mut(|work| work.now_or_never().is_none());
        }
        assert_eq!(*noted.lock().unwrap(), [2, 3]);
    }

    #[test]
    fn where_the_longest_line_has_begun_room_is_made_in_another() {
        let (turns, _turn, mut begun) = crowd_that_has_begun(4);
        let noted = Arc::default();
        let mut waiting: Vec<_> = [2, 3, 3, 3].map(|number| noting(&turns, number, &noted)).into();
        for work in &mut waiting {
            assert_eq!(work.now_or_never(), None);
        }
        assert_eq!((&mut noting(&turns, 4, &noted)).now_or_never(), None, "there is room for a newcomer");
        assert_eq!((&mut waiting[3]).now_or_never(), Some(Err(HandshakeRefusal::NoTurn)));
        for work in begun.iter_mut().map(|work| work.now_or_never()) {
            assert_eq!(work, None, "what has begun stays");
        }
    }

    #[test]
    fn whoever_leaves_takes_no_turn_along() {
        let (turns, turn) = taken(100);
        let noted = Arc::default();
        let mut waiting: Vec<_> = [1, 1, 2].map(|number| noting(&turns, number, &noted)).into();
        for work in &mut waiting {
            assert_eq!(work.now_or_never(), None);
        }
        drop(waiting.remove(1)); // while it waits
        drop(turn);
        drop(waiting.remove(0)); // when it has been called
        assert_eq!((&mut waiting[0]).now_or_never(), Some(Ok(())));
        assert!(is_idle(&turns));
    }

    #[test]
    fn a_step_that_panics_passes_its_turn_on() {
        let turns = Arc::new(Turns::with(1, 100));
        let work = turns.take_turns(address(1), async { panic!("on purpose") });
        std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| work.now_or_never())).unwrap_err();
        assert!(is_idle(&turns));
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn never_more_at_once_than_there_are_turns_and_nobody_is_forgotten() {
        let turns = Arc::new(Turns::with(2, 10_000));
        let running = Arc::new(AtomicUsize::new(0));
        let tasks: Vec<_> = (0..2_000_u16)
            .map(|number| {
                let (running, mut steps) = (Arc::clone(&running), 0);
                let work = poll_fn(move |cx| {
                    assert!(running.fetch_add(1, Ordering::SeqCst) < 2);
                    std::hint::black_box(&mut steps);
                    running.fetch_sub(1, Ordering::SeqCst);
                    steps += 1;
                    cx.waker().wake_by_ref();
                    if steps == 5 { Poll::Ready(()) } else { Poll::Pending }
                });
                let work = turns.take_turns(address((number % 7) as u8), work);
                let task = tokio::spawn(work);
                if number % 11 == 0 {
                    task.abort();
                }
                task
            })
            .collect();
        for task in tasks {
            match task.await {
                Ok(done) => assert_eq!(done, Ok(())),
                Err(error) => assert!(error.is_cancelled()),
            }
        }
        assert!(is_idle(&turns));
    }
}
