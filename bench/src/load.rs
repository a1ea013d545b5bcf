//! Clients that ask for tokens, as many at once as is said.
//!
//! Takes who asks whom, how and how fast; gives how many tokens came, what they cost the server in CPU time, and how long each
//! was waited for. One thread is one client at a time. It knows nothing of what would be a good figure.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use rustls::client::Resumption;
use rustls::{ClientConfig, HandshakeKind};

use crate::Failure;
use crate::machine::Process;
use crate::population::{Population, identity};
use crate::session::Tickets;
use crate::wire::Line;

/// Whom to ask.
#[derive(Clone, Debug)]
pub(crate) struct Target {
    /// What it is called in a report.
    pub(crate) name: &'static str,
    /// Its nodes, used in turn.
    pub(crate) addresses: Vec<SocketAddr>,
    /// Their processes: what they use is counted together.
    pub(crate) processes: Vec<Process>,
    /// What works for them beside them, with its children: their database.
    pub(crate) beside: Option<Process>,
    /// The path of the token endpoint.
    pub(crate) path: &'static str,
    /// What a request says besides its grant type and client.
    pub(crate) parameters: &'static str,
    /// Whether a resumed handshake brings the ticket for the next.
    pub(crate) renews_tickets: bool,
}

impl Target {
    /// A whole request of the client with this number.
    pub(crate) fn request(&self, client: u32) -> Vec<u8> {
        let body = format!("grant_type=client_credentials&client_id={}{}", identity(client).id, self.parameters);
        format!(
            "POST {} HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/x-www-form-urlencoded\r\n\
             Content-Length: {}\r\n\r\n{body}",
            self.path,
            body.len()
        )
        .into_bytes()
    }

    fn cpu_time_beside(&self) -> Result<Duration, Failure> {
        self.beside.map_or(Ok(Duration::ZERO), Process::cpu_time_of_family)
    }

    /// User and system time of all its processes.
    pub(crate) fn cpu_time(&self) -> Result<Duration, Failure> {
        self.processes.iter().map(|process| process.cpu_time()).sum()
    }
}

/// How clients come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Manner {
    /// On connections that stay open, each client on its own.
    Kept,
    /// On a new connection for each token, with a full handshake; each time another client, drawn from all of them.
    Fresh,
    /// On a new connection for each token that resumes the one before.
    Resumed,
}

/// How fast.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Pace {
    /// Each asks again as soon as it is answered.
    Saturated,
    /// So many requests a second in all, at instants that do not depend on when anything is answered.
    PerSecond(f64),
}

/// A load.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Load {
    /// How clients come.
    pub(crate) manner: Manner,
    /// How fast.
    pub(crate) pace: Pace,
    /// How many ask at once.
    pub(crate) at_once: u32,
    /// How many clients take part: the first of the population.
    pub(crate) clients: u32,
    /// For how long.
    pub(crate) length: Duration,
}

/// What came of it.
#[derive(Clone, Debug)]
pub(crate) struct Measured {
    /// How long it took.
    pub(crate) wall: Duration,
    /// What it cost the server.
    pub(crate) cpu: Duration,
    /// What it cost what works beside the server.
    pub(crate) cpu_beside: Duration,
    /// How long each token was waited for, in ascending order; from the instant it was meant to be asked for.
    pub(crate) latencies: Vec<Duration>,
}

impl Measured {
    /// How many tokens came.
    pub(crate) fn tokens(&self) -> usize {
        self.latencies.len()
    }

    /// Tokens a second.
    pub(crate) fn rate(&self) -> f64 {
        self.tokens() as f64 / self.wall.as_secs_f64()
    }

    /// What a token cost the server.
    pub(crate) fn cpu_of_one(&self) -> f64 {
        self.cpu.as_secs_f64() / self.tokens() as f64
    }

    /// The latency that this share of the tokens was within.
    pub(crate) fn quantile(&self, share: f64) -> Duration {
        let last = self.latencies.len().saturating_sub(1);
        self.latencies.get((last as f64 * share) as usize).copied().unwrap_or_default()
    }
}

impl Load {
    /// Runs it.
    pub(crate) fn run(&self, target: &Target, population: &Population) -> Result<Measured, Failure> {
        let asking: Vec<Asking<'_>> = std::thread::scope(|scope| {
            let opening: Vec<_> = (0..self.at_once)
                .map(|worker| scope.spawn(move || Asking::open(self, target, population, worker)))
                .collect();
            opening.into_iter().map(|worker| worker.join().map_err(|_| PANICKED)?).collect::<Result<_, Failure>>()
        })?;
        let (cpu_before, beside_before) = (target.cpu_time()?, target.cpu_time_beside()?);
        let start = Instant::now();
        let mut latencies: Vec<Duration> = std::thread::scope(|scope| {
            let working: Vec<_> = asking.into_iter().map(|worker| scope.spawn(move || worker.run(start))).collect();
            let mut all = Vec::new();
            for worker in working {
                all.extend(worker.join().map_err(|_| PANICKED)??);
            }
            Ok::<_, Failure>(all)
        })?;
        let (wall, cpu) = (start.elapsed(), target.cpu_time()?.saturating_sub(cpu_before));
        let cpu_beside = target.cpu_time_beside()?.saturating_sub(beside_before);
        latencies.sort_unstable();
        if latencies.is_empty() {
            return Err("no token came".into());
        }
        Ok(Measured { wall, cpu, cpu_beside, latencies })
    }

    /// How many tickets each of those who resume has to have before it begins.
    fn tickets(&self, target: &Target) -> usize {
        if target.renews_tickets {
            1
        } else {
            (MOST_RESUMED * self.length.as_secs_f64() / f64::from(self.at_once)).ceil() as usize
        }
    }

    /// Every client once, on a connection of its own: nothing is measured.
    pub(crate) fn each_once(&self, target: &Target, population: &Population) -> Result<(), Failure> {
        std::thread::scope(|scope| {
            let asking: Vec<_> = (0..self.at_once)
                .map(|worker| {
                    scope.spawn(move || {
                        let fresh = Self { manner: Manner::Fresh, ..*self };
                        let asking = Asking::open(&fresh, target, population, worker)?;
                        (worker..self.clients)
                            .step_by(self.at_once as usize)
                            .try_for_each(|client| asking.fresh(client))
                    })
                })
                .collect();
            asking.into_iter().try_for_each(|worker| worker.join().map_err(|_| PANICKED)?)
        })
    }
}

/// More handshakes a second than a server is resumed with that renews no tickets.
const MOST_RESUMED: f64 = 1_200.0;

const PANICKED: &str = "a worker panicked";

/// One of those who ask at the same time.
struct Asking<'a> {
    load: &'a Load,
    target: &'a Target,
    population: &'a Population,
    worker: u32,
    /// Whose turn it is is drawn.
    random: u64,
    /// Connections that stay open, with what is asked on them.
    open: Vec<(Line, Vec<u8>)>,
    /// Settings of a client that comes back, and the tickets it has.
    returning: Option<(Arc<ClientConfig>, Arc<Tickets>)>,
}

impl<'a> Asking<'a> {
    fn open(load: &'a Load, target: &'a Target, population: &'a Population, worker: u32) -> Result<Self, Failure> {
        let random = u64::from(worker).wrapping_mul(0x9E37_79B9_7F4A_7C15) ^ u64::from(load.clients);
        let mut asking = Self { load, target, population, worker, random, open: Vec::new(), returning: None };
        match load.manner {
            Manner::Kept => {
                for client in (worker..load.clients.max(load.at_once)).step_by(load.at_once as usize) {
                    let client = client % load.clients;
                    let config = population.caller(client, Resumption::disabled())?;
                    let mut line = asking.connect(client, Arc::new(config))?;
                    let request = target.request(client);
                    good(&mut line, &request)?;
                    asking.open.push((line, request));
                }
            }
            Manner::Fresh => {}
            Manner::Resumed => {
                let client = worker % load.clients;
                let tickets = Arc::new(Tickets::default());
                let store = Resumption::store(Arc::<Tickets>::clone(&tickets));
                let config = Arc::new(population.caller(client, store)?);
                while tickets.count() < load.tickets(target) {
                    let before = tickets.count();
                    let mut line = asking.connect(client, Arc::clone(&config))?;
                    good(&mut line, &target.request(client))?;
                    line.close();
                    if tickets.count() == before {
                        return Err(format!("{} gives no tickets", target.name).into());
                    }
                }
                tickets.use_them();
                asking.returning = Some((config, tickets));
            }
        }
        Ok(asking)
    }

    fn run(mut self, start: Instant) -> Result<Vec<Duration>, Failure> {
        let end = start + self.load.length;
        let mut latencies = Vec::with_capacity(65_536);
        match self.load.pace {
            Pace::Saturated => {
                let mut now = Instant::now();
                while now < end && !self.has_run_out() {
                    self.ask()?;
                    let answered = Instant::now();
                    latencies.push(answered - now);
                    now = answered;
                }
            }
            Pace::PerSecond(rate) => {
                let every = Duration::from_secs_f64(f64::from(self.load.at_once) / rate);
                let mut meant = start + every.mul_f64(f64::from(self.worker) / f64::from(self.load.at_once));
                while meant < end {
                    if let Some(early) = meant.checked_duration_since(Instant::now()) {
                        std::thread::sleep(early);
                    }
                    self.ask()?;
                    // From when it was meant to be asked for: whoever waits behind another waits too.
                    latencies.push(meant.elapsed());
                    meant += every;
                }
            }
        }
        for (line, _) in self.open {
            line.close();
        }
        Ok(latencies)
    }

    /// Whether no tickets are left that were gathered beforehand. Where each answer brings one there is no such end: the
    /// next handshake is then a full one, and `ask` says so.
    fn has_run_out(&self) -> bool {
        !self.target.renews_tickets && self.returning.as_ref().is_some_and(|(_, tickets)| tickets.count() == 0)
    }

    fn ask(&mut self) -> Result<(), Failure> {
        match self.load.manner {
            Manner::Kept => {
                let at = self.draw(self.open.len() as u64) as usize;
                let (line, request) = self.open.get_mut(at).ok_or("no connection is open")?;
                good(line, request)
            }
            Manner::Fresh => {
                let client = self.draw(u64::from(self.load.clients)) as u32;
                self.fresh(client)
            }
            Manner::Resumed => {
                let client = self.worker % self.load.clients;
                let (config, _) = self.returning.as_ref().ok_or("no session to resume")?;
                let config = Arc::clone(config);
                let mut line = self.connect(client, config)?;
                good(&mut line, &self.target.request(client))?;
                if line.kind() != Some(HandshakeKind::Resumed) {
                    return Err(format!("{} did not resume a session: {:?}", self.target.name, line.kind()).into());
                }
                line.close();
                Ok(())
            }
        }
    }

    fn fresh(&self, client: u32) -> Result<(), Failure> {
        let config = Arc::new(self.population.caller(client, Resumption::disabled())?);
        let mut line = self.connect(client, config)?;
        good(&mut line, &self.target.request(client))?;
        line.close();
        Ok(())
    }

    fn connect(&self, client: u32, config: Arc<ClientConfig>) -> Result<Line, Failure> {
        let nodes = self.target.addresses.len();
        let address = self.target.addresses.get(client as usize % nodes).ok_or("a target without an address")?;
        Line::open(*address, config)
    }

    /// One of so many, by splitmix64.
    fn draw(&mut self, of: u64) -> u64 {
        self.random = self.random.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut mixed = self.random;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        (mixed ^ (mixed >> 31)) % of.max(1)
    }
}

/// Asks, and refuses any answer but a token.
fn good(line: &mut Line, request: &[u8]) -> Result<(), Failure> {
    let answer = line.ask(request)?;
    if answer.status == 200 {
        Ok(())
    } else {
        Err(format!("{}: {}", answer.status, String::from_utf8_lossy(answer.body)).into())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantiles_of_few() {
        let of = |count: u64| Measured {
            wall: Duration::from_secs(1),
            cpu: Duration::from_secs(1),
            cpu_beside: Duration::ZERO,
            latencies: (1..=count).map(Duration::from_millis).collect(),
        };
        assert_eq!(of(0).quantile(0.99), Duration::ZERO);
        assert_eq!(of(1).quantile(0.99), Duration::from_millis(1));
        assert_eq!(of(1_000).quantile(0.5), Duration::from_millis(500));
        assert_eq!(of(1_000).quantile(0.99), Duration::from_millis(990));
        assert_eq!(of(1_000).quantile(1.0), Duration::from_millis(1_000));
    }
}
