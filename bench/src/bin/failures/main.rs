//! Tries what several nodes promise where something fails: their database, its machine, or one of them (issue 6).
//!
//! `cut`: PostgreSQL is refused, dropped or frozen for a while, again and again.
//!
//! `failover`: the primary is killed and its standby promoted, again and again; synchronous, where nothing may be lost, or
//! asynchronous, where this program has to find what was.
//!
//! `upgrade`: one node is killed and started again as another program while the other one serves.
//!
//! `suspend`: a client under load on one node is suspended through the other.
//!
//! Takes the server's program and PostgreSQL's programs, makes everything else it needs: clusters, certificates, a registry, two
//! nodes. Says what it saw, and ends with exit code 1 where a promise was not kept. docs/failures.md has what came out.

#![expect(clippy::print_stdout, reason = "what was seen is this program's output")]
#![expect(clippy::disallowed_methods, reason = "a program that times others reads clocks")]

#[path = "../../machine.rs"]
#[expect(dead_code, reason = "the programme uses the rest of it")]
mod machine;

#[path = "../../population.rs"]
#[expect(dead_code, reason = "the programme uses the rest of it")]
mod population;

#[path = "../../registry.rs"]
mod registry;

mod cut;

mod failover;

mod upgrade;

mod suspend;

mod aftermath;

mod ledger;

mod clients;

mod operator;

mod public;

mod nodes;

mod cluster;

mod network;

mod promises;

use std::error::Error;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use clap::{Parser, Subcommand};
use tokio::signal::unix::{SignalKind, signal};

use cut::Kind;
use failover::Standby;
use promises::Promises;

type Failure = Box<dyn Error + Send + Sync>;

/// Longer than anything takes that is not measured against a promise.
const PATIENCE: Duration = Duration::from_secs(60);

#[derive(Parser)]
struct Arguments {
    /// The server's program
    #[arg(long)]
    binary: PathBuf,
    /// Where `initdb`, `postgres`, `pg_ctl` and `pg_basebackup` are
    #[arg(long)]
    postgres_bin: PathBuf,
    /// A setting of PostgreSQL beside its own defaults, NAME=VALUE; can be repeated
    #[arg(long, value_name = "NAME=VALUE")]
    postgres_setting: Vec<String>,
    /// Where to make everything, and leave it; otherwise in a temporary directory that is removed
    #[arg(long)]
    directory: Option<PathBuf>,
    #[command(subcommand)]
    measure: Measure,
}

#[derive(Subcommand)]
enum Measure {
    /// PostgreSQL is gone for a while
    Cut {
        kind: Kind,
        /// For how long
        #[arg(long, default_value_t = 60)]
        seconds: u64,
        /// How often
        #[arg(long, default_value_t = 10)]
        times: usize,
    },
    /// The machine of the primary is gone, and its standby is promoted
    Failover {
        /// Whether the primary waits for it
        #[arg(long)]
        standby: Standby,
        /// How often
        #[arg(long, default_value_t = 20)]
        times: usize,
    },
    /// One of two nodes is killed, and started again as another program
    Upgrade {
        /// How often
        #[arg(long, default_value_t = 10)]
        times: usize,
    },
    /// A client under load on one node is suspended through the other
    Suspend {
        /// How often
        #[arg(long, default_value_t = 1_000)]
        times: usize,
    },
}

/// What everything is made of.
struct Stage {
    binary: PathBuf,
    postgres: cluster::Programs,
    directory: PathBuf,
}

fn main() -> Result<ExitCode, Failure> {
    let arguments = Arguments::parse();
    let temporary = tempfile::tempdir()?;
    let directory = arguments.directory.unwrap_or_else(|| temporary.path().to_owned());
    std::fs::create_dir_all(&directory)?;
    if std::fs::read_dir(&directory)?.next().is_some() {
        return Err(format!("{} is not empty", directory.display()).into());
    }
    // PostgreSQL runs as another user, and has to come to its own directory.
    let mode = std::os::unix::fs::PermissionsExt::from_mode(0o711);
    std::fs::set_permissions(&directory, mode)?;
    let stage = Stage {
        binary: arguments.binary.canonicalize()?,
        postgres: cluster::Programs {
            directory: arguments.postgres_bin.canonicalize()?,
            settings: arguments.postgres_setting,
        },
        directory: directory.canonicalize()?,
    };
    println!("machine: {}", machine::facts()?);
    println!("load of the machine: {}", machine::load_average()?);
    let runtime = tokio::runtime::Runtime::new()?;
    let mut promises = Promises::default();
    runtime.block_on(async {
        let measured = async {
            match arguments.measure {
                Measure::Cut { kind, seconds, times } => {
                    cut::measure(&stage, kind, Duration::from_secs(seconds), times, &mut promises).await
                }
                Measure::Failover { standby, times } => failover::measure(&stage, standby, times, &mut promises).await,
                Measure::Upgrade { times } => upgrade::measure(&stage, times, &mut promises).await,
                Measure::Suspend { times } => suspend::measure(&stage, times, &mut promises).await,
            }
        };
        let mut told = signal(SignalKind::terminate())?;
        // Whichever way it ends, what it started is dropped, and ends with it.
        tokio::select! {
            measured = measured => measured,
            _ = told.recv() => Err("told to end".into()),
            _ = tokio::signal::ctrl_c() => Err("told to end".into()),
        }
    })?;
    println!("load of the machine: {}", machine::load_average()?);
    Ok(promises.end())
}
