//! One of two nodes is killed and started again as another program, while the other one serves.
//!
//! Promised (design §2): nodes have no state of their own that matters. A client that asks the other node once, where one gives no
//! token, sees no failure.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use tokio::task::JoinSet;
use tokio::time::{MissedTickBehavior, interval, sleep};

use crate::aftermath::{Aftermath, Told};
use crate::clients::{Asked, Journal, Outcome, Pool, callers};
use crate::cluster::Cluster;
use crate::nodes::{Site, Wishes};
use crate::operator::Operator;
use crate::promises::{Promises, spread};
use crate::{Failure, Stage};

/// Requests a second in all, in turn at each node first.
const RATE: u32 = 200;

/// Each so many-th is made on a new connection, of those that ask one node first.
const NEW: u32 = 10;

/// How long both serve before one is killed, and how long it stays away.
const SERVED: Duration = Duration::from_secs(2);
const AWAY: Duration = Duration::from_secs(1);

/// What clients saw that ask twice.
#[derive(Default)]
struct Seen {
    /// How long the whole took, where one node was not enough.
    asked_twice: Vec<Duration>,
    failed: Vec<String>,
    asked: usize,
}

/// Tries it `times` times, the nodes in turn.
pub(crate) async fn measure(stage: &Stage, times: usize, promises: &mut Promises) -> Result<(), Failure> {
    let mut cluster = Cluster::make(&stage.postgres, &stage.directory.join("postgres")).await?;
    cluster.start().await?;
    let wishes = Wishes { export: true, ..Wishes::default() };
    let mut site = Site::make(&stage.directory.join("site"), &stage.binary, &cluster.url(), wishes).await?;
    let programs: [PathBuf; 2] = ["old", "new"].map(|name| stage.directory.join(name));
    for program in &programs {
        std::fs::copy(&stage.binary, program)?;
    }
    site.serve().await?;
    let pools = {
        let callers = callers(&site.population)?;
        site.addresses().map(|address| Pool::to(address, &callers))
    };
    let (journal, over) = (Arc::new(Journal::default()), Arc::new(AtomicBool::new(false)));
    let load = tokio::spawn(go_on(pools, Arc::clone(&journal), Arc::clone(&over)));
    let operator = Operator::begin(&site);
    let (mut aftermath, mut starts) = (Aftermath::default(), Vec::new());
    for number in 0..times {
        sleep(SERVED).await;
        aftermath.keep(&site).await?;
        let [first, second] = &mut site.nodes;
        let node = if number % 2 == 0 { first } else { second };
        node.kill().await?;
        sleep(AWAY).await;
        let [old, new] = &programs;
        node.upgrade(if number / 2 % 2 == 0 { new.clone() } else { old.clone() });
        let begun = Instant::now();
        node.start()?;
        node.ready().await?;
        starts.push(begun.elapsed());
    }
    sleep(SERVED).await;
    over.store(true, Ordering::Relaxed);
    let (seen, operator) = (load.await?, operator.end().await?);
    println!("killed and started again {times} times; ready after {}", spread(&starts));
    println!(
        "clients asked {} times; {} had to ask the other node, and had a token after {}; {} had none",
        seen.asked,
        seen.asked_twice.len(),
        spread(&seen.asked_twice),
        seen.failed.len()
    );
    promises.hold(!seen.asked_twice.is_empty(), || "nobody had to ask twice: nothing was tried".to_owned());
    promises.hold(seen.failed.is_empty(), || {
        format!("{} clients had no token of either node: {:?}", seen.failed.len(), seen.failed.first())
    });
    let told = Told { journal: &journal, operator: &operator };
    aftermath.judge(&mut site, &cluster.url(), told, promises).await?.must_be_none(promises);
    cluster.stop().await
}

async fn go_on(pools: [Pool; 2], journal: Arc<Journal>, over: Arc<AtomicBool>) -> Seen {
    let mut ticks = interval(Duration::from_secs(1) / RATE);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Skip);
    let (mut seen, mut under_way, mut next) = (Seen::default(), JoinSet::new(), 0);
    while !over.load(Ordering::Relaxed) {
        ticks.tick().await;
        while let Some(done) = under_way.try_join_next() {
            seen.take(done);
        }
        under_way.spawn(one(pools.clone(), next, Arc::clone(&journal)));
        next += 1;
    }
    while let Some(done) = under_way.join_next().await {
        seen.take(done);
    }
    seen
}

impl Seen {
    fn take(&mut self, done: Result<Ended, tokio::task::JoinError>) {
        self.asked += 1;
        match done {
            Ok(Ended::Failed(why)) => self.failed.push(why),
            Ok(Ended::Twice(took)) => self.asked_twice.push(took),
            Ok(Ended::Once) => {}
            Err(error) => self.failed.push(error.to_string()),
        }
    }
}

/// How one request ended.
enum Ended {
    Failed(String),
    Once,
    Twice(Duration),
}

/// Asks one node, and the other one once where that gave no token.
async fn one(pools: [Pool; 2], count: u32, journal: Arc<Journal>) -> Ended {
    let at = Instant::now();
    let [first, second] = &pools;
    let in_turn = if count.is_multiple_of(2) { [(0, first), (1, second)] } else { [(1, second), (0, first)] };
    let mut told = Vec::new();
    for (node, pool) in in_turn {
        let (is_new, outcome) = pool.ask(count / 2, (count / 2).is_multiple_of(NEW)).await;
        let has_token = matches!(outcome, Outcome::Token(_));
        let may_ask_again = matches!(outcome, Outcome::Failed(_) | Outcome::Refused(503));
        told.push(format!("{outcome:?}"));
        journal.note(Asked { node, at, took: at.elapsed(), is_new, is_stranger: false, outcome });
        if has_token {
            return if told.len() == 1 { Ended::Once } else { Ended::Twice(at.elapsed()) };
        }
        if !may_ask_again {
            break;
        }
    }
    Ended::Failed(told.join(", then "))
}
