//! The whole programme: what is made first, and what is measured in which order.
//!
//! Takes the command line, makes clients, registries and servers in a directory, hands them to one part after the other, and
//! tells the figures. Each part measures its sides in turn, with the floor before and after every single measurement.

use std::num::{NonZeroU64, NonZeroUsize};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use clap::{Args, ValueEnum};
use serde_json::json;

use crate::floor::Floors;
use crate::population::Population;
use crate::report::Report;
use crate::site::Site;
use crate::{Failure, check, idle, machine, postgres, resource, sizes, starts, tokens};

/// What may be said of it.
#[derive(Args)]
pub(crate) struct Arguments {
    /// Where everything is made, and found again by a later run; otherwise in a directory that is removed
    #[arg(long)]
    directory: Option<PathBuf>,
    /// The server's program; otherwise the one beside this one
    #[arg(long)]
    server_binary: Option<PathBuf>,
    /// Everything at small sizes, in two minutes: whether it works, not how fast it is
    #[arg(long)]
    short: bool,
    /// How often each side is measured; medians are told
    #[arg(long)]
    rounds: Option<NonZeroUsize>,
    /// How long each measurement lasts
    #[arg(long)]
    seconds: Option<NonZeroU64>,
    /// Where npm's oidc-provider is installed, once; otherwise below $XDG_CACHE_HOME or ~/.cache
    #[arg(long, value_name = "DIRECTORY")]
    peer_cache: Option<PathBuf>,
    /// A PostgreSQL server where a database may be made, and is dropped again: postgres://…
    #[arg(long, env = "COUNTERSIGN_TEST_POSTGRES", hide_env_values = true, value_name = "URL")]
    postgres: Option<String>,
    /// Only these parts
    #[arg(long, value_enum, value_delimiter = ',', value_name = "PARTS")]
    only: Vec<Part>,
    /// Writes every figure and every single measurement into this file as well
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
    /// And a page with the table and the curves
    #[arg(long, value_name = "FILE")]
    html: Option<PathBuf>,
}

/// What can be measured by itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Part {
    /// Kept connections, full handshakes, resumed ones; paced; latency over load
    Tokens,
    /// Registries of several sizes
    Sizes,
    /// Start to first token
    Starts,
    /// Memory for an open connection
    Idle,
    /// An API behind the guard
    Resource,
    /// The guard's check and the mint's encoding in isolation
    Check,
    /// Two nodes on PostgreSQL
    Postgres,
}

/// What every part uses.
pub(crate) struct Stage {
    /// Where everything is made.
    pub(crate) directory: PathBuf,
    /// The server's program.
    pub(crate) program: PathBuf,
    /// Who calls.
    pub(crate) population: Population,
    /// What the cryptography costs.
    pub(crate) floors: Floors,
    /// How often each side is measured.
    pub(crate) rounds: usize,
    /// For how long.
    pub(crate) length: Duration,
    /// How many clients the registries have, in ascending order.
    pub(crate) sizes: &'static [u32],
    /// How many of them are about in one hour.
    pub(crate) working_set: u32,
    /// Where `oidc-provider` is installed.
    pub(crate) peer_cache: Option<PathBuf>,
    /// A PostgreSQL server where databases may be made.
    pub(crate) postgres: Option<String>,
    /// Whether it is only to be seen that everything works.
    pub(crate) short: bool,
    begun: Instant,
}

impl Stage {
    /// The most clients that a registry has.
    pub(crate) fn largest(&self) -> u32 {
        self.sizes.last().copied().unwrap_or_default()
    }

    /// The installation with so many clients.
    pub(crate) fn site(&self, clients: u32) -> Result<Site, Failure> {
        let directory = self.directory.join(format!("site-{clients}"));
        Site::open(&directory, &self.program, &self.population, clients)
    }

    /// Two nodes of one installation with so many clients, on the store at this URL, which is empty.
    pub(crate) fn nodes(&self, clients: u32, store: &str) -> Result<(Site, Site), Failure> {
        let directory = self.directory.join("nodes");
        if directory.exists() {
            // Of an earlier run, on a database that is gone.
            std::fs::remove_dir_all(&directory)?;
        }
        let node = |number: u8| directory.join(format!("node-{number}"));
        let first = Site::on_postgres(&node(1), &self.program, &self.population, clients, store)?;
        let second = first.another_node(&node(2), &self.population)?;
        Ok((first, second))
    }

    /// A file for what a server says.
    pub(crate) fn log(&self, name: &str) -> PathBuf {
        self.directory.join(format!("{name}.log"))
    }

    /// Tells whoever waits what is being done.
    pub(crate) fn say(&self, what: &str) {
        eprintln!("[{:>5.0} s] {what}", self.begun.elapsed().as_secs_f64());
    }
}

/// A load above this before anything runs makes figures doubtful.
const BUSY: f64 = 1.0;

/// Runs it.
pub(crate) fn run(arguments: &Arguments) -> Result<(), Failure> {
    let begun = Instant::now();
    let mut report = Report::default();
    let before = machine::load_average()?;
    if before > BUSY {
        report.remarks.push(format!(
            "the machine was busy before anything ran here (load {before}): bare figures are doubtful, ratios less so"
        ));
    }
    let made;
    let directory = match &arguments.directory {
        Some(directory) => {
            std::fs::create_dir_all(directory)?;
            directory.canonicalize()?
        }
        None => {
            made = tempfile::tempdir()?;
            made.path().to_owned()
        }
    };
    let program = server_program(arguments.server_binary.as_deref())?;
    let (rounds, seconds, sizes, working_set): (usize, u64, &[u32], u32) =
        if arguments.short { (1, 1, &[100, 1_000], 500) } else { (3, 5, &[100, 10_000, 1_000_000], 10_000) };
    let length = Duration::from_secs(arguments.seconds.map_or(seconds, NonZeroU64::get));
    let largest = sizes.last().copied().unwrap_or_default();
    eprintln!("everything is made in {}", directory.display());
    // One of each size: a short run beside a whole one makes neither anew.
    let population = Population::open(&directory.join(format!("population-{largest}")), largest)?;
    let floors = Floors::new(&population, length / 20)?;
    let rounds = arguments.rounds.map_or(rounds, NonZeroUsize::get);
    let stage = Stage {
        directory,
        program,
        population,
        floors,
        rounds,
        length,
        sizes,
        working_set,
        peer_cache: arguments.peer_cache.clone(),
        postgres: arguments.postgres.clone(),
        short: arguments.short,
        begun,
    };

    let wanted = |part| arguments.only.is_empty() || arguments.only.contains(&part);
    for (part, measure) in PARTS {
        if wanted(part) {
            measure(&stage, &mut report)?;
        }
    }

    report.facts.insert("machine".to_owned(), machine::facts()?);
    report.facts.insert("load_before".to_owned(), json!(before));
    report.facts.insert("load_after".to_owned(), json!(machine::load_average()?));
    report.facts.insert("rounds".to_owned(), json!(rounds));
    report.facts.insert("seconds".to_owned(), json!(length.as_secs_f64()));
    print!("{}", report.table());
    if let Some(file) = &arguments.json {
        std::fs::write(file, serde_json::to_vec_pretty(&report.to_json())?)?;
    }
    if let Some(file) = &arguments.html {
        std::fs::write(file, report.page())?;
    }
    Ok(())
}

type Measure = fn(&Stage, &mut Report) -> Result<(), Failure>;

/// In this order: what says most comes first.
const PARTS: [(Part, Measure); 7] = [
    (Part::Tokens, tokens::measure),
    (Part::Sizes, sizes::measure),
    (Part::Starts, starts::measure),
    (Part::Idle, idle::measure),
    (Part::Resource, resource::measure),
    (Part::Check, check::measure),
    (Part::Postgres, postgres::measure),
];

fn server_program(said: Option<&Path>) -> Result<PathBuf, Failure> {
    let program = match said {
        Some(program) => program.to_owned(),
        None => std::env::current_exe()?.with_file_name("countersign"),
    };
    let missing = |_| {
        format!(
            "there is no server at {}: build it (cargo build --release -p countersign) or name it with --server-binary",
            program.display()
        )
    };
    Ok(program.canonicalize().map_err(missing)?)
}
