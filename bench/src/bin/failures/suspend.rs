//! A client under load on one node is suspended through the other one, and let in again.
//!
//! Promised (design §2, issue 6): no token later than a second after the operator was told; and docs/postgresql.md: none that was
//! asked for after that.
//!
//! The operator is this process, on the store of the first node by the registry's own edit path, as the command does it: a thousand
//! processes would be most of what is measured.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use countersign::registry::client::ClientState;
use countersign::registry::history::{Actor, Explanation};
use countersign::registry::{ClientId, MemorySize, Registry};
use countersign::store::{self, Migrate};
use countersign_resource_server::time::{Clock, SystemClock};
use tokio::task::JoinHandle;
use tokio::time::{sleep, timeout};

use crate::aftermath::{Aftermath, Told};
use crate::clients::{Asked, Caller, Journal, LONGEST, Outcome};
use crate::cluster::Cluster;
use crate::ledger::Change;
use crate::nodes::{Site, Wishes};
use crate::operator::Done;
use crate::population::identity;
use crate::promises::{Promises, quantiles, spread};
use crate::{Failure, Stage};

/// Clients that are suspended, each on its own, beside each other.
const CLIENTS: u32 = 4;

/// Connections of each, all to the second node.
const CONNECTIONS: usize = 4;

/// No token arrives later than this after the operator was told.
const PROMISED: Duration = Duration::from_secs(1);

/// How long is watched, and how long a client works before the next time.
const WATCHED: Duration = Duration::from_millis(1_150);
const WORK: Duration = Duration::from_millis(150);

/// How long somebody waits who was refused.
const PAUSE: Duration = Duration::from_millis(5);

/// One suspension.
struct Suspension {
    /// How long the change took.
    took: Duration,
    /// When the last token arrived, in seconds after the operator was told.
    last_arrival: f64,
    /// Tokens that were asked for after that.
    asked_after: usize,
    /// How long after it was let in again the first token came.
    back: Duration,
    /// Tokens that are dated later than the second after.
    dated_later: usize,
}

/// Suspends `times` times in all.
pub(crate) async fn measure(stage: &Stage, times: usize, promises: &mut Promises) -> Result<(), Failure> {
    let mut cluster = Cluster::make(&stage.postgres, &stage.directory.join("postgres")).await?;
    cluster.start().await?;
    let wishes = Wishes { export: true, ..Wishes::default() };
    let mut site = Site::make(&stage.directory.join("site"), &stage.binary, &cluster.url(), wishes).await?;
    site.serve().await?;
    let store = store::open(&cluster.url(), Migrate::Check).await?;
    let registry = Registry::new(Arc::new(store.clone()), MemorySize::default(), "operator").await?;
    let journal = Arc::new(Journal::default());
    let [_, node] = site.addresses();
    let each = times.div_ceil(CLIENTS as usize);
    let mut subjects = Vec::new();
    for number in 0..CLIENTS {
        let subject = Subject::begin(&site, number, node, &journal)?;
        let registry = Arc::clone(&registry);
        subjects.push(tokio::spawn(async move {
            let (mut done, mut operator, mut came) = (Vec::new(), Done::default(), Ok(()));
            for step in 0..each {
                match subject.suspend(&registry, step, &mut operator).await {
                    Ok(one) => done.push(one),
                    Err(failure) => {
                        came = Err(failure);
                        break;
                    }
                }
            }
            (done, operator, came.and(subject.end().await))
        }));
    }
    // One that fails says nothing about the others: what they saw is judged all the same.
    let (mut all, mut operator, mut came) = (Vec::new(), Done::default(), Ok(()));
    for subject in subjects {
        let (done, of_one, ended) = subject.await?;
        all.extend(done);
        operator.acknowledged.extend(of_one.acknowledged);
        operator.failed += of_one.failed;
        if let Err(failure) = &ended {
            println!("cut short: {failure}");
        }
        came = came.and(ended);
    }
    store.close().await;
    let mut arrivals: Vec<f64> = all.iter().map(|one| one.last_arrival).collect();
    let latest = arrivals.iter().copied().fold(f64::MIN, f64::max);
    let asked_after: usize = all.iter().map(|one| one.asked_after).sum();
    let dated_later: usize = all.iter().map(|one| one.dated_later).sum();
    println!("{} suspensions of {CLIENTS} clients, each with {CONNECTIONS} connections to the second node", all.len());
    println!("the change itself took          {}", spread(&all.iter().map(|one| one.took).collect::<Vec<_>>()));
    println!("the last token, after the operator was told (before: less than nought)");
    println!("                                {}", quantiles(&mut arrivals));
    println!("tokens asked for after that     {asked_after}");
    println!("let in again, the first token   {}", spread(&all.iter().map(|one| one.back).collect::<Vec<_>>()));
    promises.hold(!all.is_empty(), || "nothing was tried: nobody was suspended".to_owned());
    promises.hold(latest <= PROMISED.as_secs_f64(), || format!("a token came {latest:.3} s after the acknowledgement"));
    promises.hold(dated_later == 0, || format!("{dated_later} tokens are dated later than a second after it"));
    promises.hold(asked_after == 0, || format!("{asked_after} tokens were asked for after it"));
    let told = Told { journal: &journal, operator: &operator };
    Aftermath::default().judge(&mut site, &cluster.url(), told, promises).await?.must_be_none(promises);
    came.and(cluster.stop().await)
}

/// A token, as far as it matters here.
#[derive(Clone, Copy)]
struct Arrived {
    asked: Instant,
    at: Instant,
    issued_at: i64,
}

/// Since when each connection of a client waits for what it asked last.
type Asking = Arc<Mutex<[Option<Instant>; CONNECTIONS]>>;

/// A client at work.
struct Subject {
    id: ClientId,
    arrived: Arc<Mutex<Vec<Arrived>>>,
    asking: Asking,
    over: Arc<AtomicBool>,
    tasks: Vec<JoinHandle<()>>,
}

impl Subject {
    fn begin(site: &Site, number: u32, node: SocketAddr, journal: &Arc<Journal>) -> Result<Self, Failure> {
        let (arrived, over) = (Arc::new(Mutex::new(Vec::new())), Arc::new(AtomicBool::new(false)));
        let asking = Asking::default();
        let caller = Arc::new(Caller::new(&site.population, number)?);
        let tasks = (0..CONNECTIONS).map(|place| {
            let (caller, journal) = (Arc::clone(&caller), Arc::clone(journal));
            let (arrived, asking, over) = (Arc::clone(&arrived), Arc::clone(&asking), Arc::clone(&over));
            tokio::spawn(async move {
                let mut connection = None;
                while !over.load(Ordering::Relaxed) {
                    let asked = Instant::now();
                    if let Some(own) = asking.lock().unwrap_or_else(PoisonError::into_inner).get_mut(place) {
                        *own = Some(asked);
                    }
                    let outcome = timeout(LONGEST, async {
                        let mut open = match connection.take() {
                            Some(open) => open,
                            None => caller.connect(node).await?,
                        };
                        let outcome = caller.token(&mut open).await?;
                        connection = Some(open);
                        Ok::<_, Failure>(outcome)
                    });
                    let outcome = match outcome.await {
                        Ok(Ok(outcome)) => outcome,
                        Ok(Err(failure)) => Outcome::Failed(failure.to_string()),
                        Err(_) => Outcome::Failed("no answer".to_owned()),
                    };
                    let at = Instant::now();
                    if let Outcome::Token(token) = &outcome {
                        let mut arrived = arrived.lock().unwrap_or_else(PoisonError::into_inner);
                        arrived.push(Arrived { asked, at, issued_at: token.issued_at });
                    } else {
                        sleep(PAUSE).await;
                    }
                    journal.note(Asked {
                        node: 1,
                        at: asked,
                        took: at - asked,
                        is_new: false,
                        is_stranger: false,
                        outcome,
                    });
                }
            })
        });
        let id = ClientId::parse(&identity(number).id)?;
        Ok(Self { id, tasks: tasks.collect(), arrived, asking, over })
    }

    async fn suspend(&self, registry: &Registry, step: usize, operator: &mut Done) -> Result<Suspension, Failure> {
        self.held().clear();
        self.has_worked(Instant::now()).await?;
        sleep(WORK).await;
        let clock = SystemClock::new();
        let mut change = async |state, why: String| {
            let actor = Actor::Operator { system_user: "failures".to_owned(), stated_name: None };
            let explanation = Explanation { actor, at: clock.now(), why: Some(why.clone()) };
            let changed = registry.set_client_state(self.id.clone(), state, explanation).await;
            match &changed {
                Ok(version) => operator.acknowledged.push(Change { version: version.0, why }),
                Err(_) => operator.failed += 1,
            }
            changed
        };
        let begun = Instant::now();
        change(ClientState::Suspended, format!("{} suspended {step}", self.id)).await?;
        let (told, told_at) = (Instant::now(), clock.now().as_seconds());
        sleep(WATCHED).await;
        self.has_heard(Instant::now()).await?;
        let arrived = self.held().clone();
        let last = arrived.iter().map(|one| one.at).max().ok_or("the client had no token before it was suspended")?;
        let after = |later: Duration, earlier: Duration| later.as_secs_f64() - earlier.as_secs_f64();
        let last_arrival = after(last.saturating_duration_since(told), told.saturating_duration_since(last));
        let asked_after = arrived.iter().filter(|one| one.asked > told).count();
        let dated_later = arrived.iter().filter(|one| one.issued_at > told_at + 1).count();
        change(ClientState::Active, format!("{} let in {step}", self.id)).await?;
        let back = self.has_worked(Instant::now()).await?;
        Ok(Suspension { took: told - begun, last_arrival, asked_after, dated_later, back })
    }

    /// Waits until everything that was asked before then has come to something: a token that is late is one that is still to come.
    async fn has_heard(&self, before: Instant) -> Result<(), Failure> {
        // Each request ends within LONGEST, and the next one begins at once.
        while before.elapsed() < 2 * LONGEST {
            let asking = *self.asking.lock().unwrap_or_else(PoisonError::into_inner);
            if asking.iter().all(|asked| asked.is_some_and(|asked| asked > before)) {
                return Ok(());
            }
            sleep(Duration::from_millis(2)).await;
        }
        Err(format!("{} still waits for what it asked before", self.id).into())
    }

    /// Waits for a token that is asked for from then on: how long that took.
    async fn has_worked(&self, since: Instant) -> Result<Duration, Failure> {
        while since.elapsed() < LONGEST {
            if let Some(one) = self.held().iter().find(|one| one.asked >= since) {
                return Ok(one.at - since);
            }
            sleep(Duration::from_millis(2)).await;
        }
        Err(format!("{} has no token", self.id).into())
    }

    fn held(&self) -> std::sync::MutexGuard<'_, Vec<Arrived>> {
        self.arrived.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn end(self) -> Result<(), Failure> {
        self.over.store(true, Ordering::Relaxed);
        for task in self.tasks {
            task.await?;
        }
        Ok(())
    }
}
