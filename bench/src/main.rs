//! Measures the server from outside, beside what the cryptography alone costs on the same machine in the same minutes, so
//! that every figure is also a ratio. `docs/benchmark.md` says what each figure means.
//!
//! Without a subcommand it makes everything it needs, clients, registries and servers, and runs the whole programme.

#![expect(clippy::disallowed_methods, reason = "a benchmark reads clocks")]
#![expect(
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "the figures are this program's output, and its progress"
)]

mod programme;

mod tokens;

mod curve;

mod sizes;

mod starts;

mod idle;

mod resource;

mod check;

mod postgres;

mod report;

mod plot;

mod load;

mod wire;

mod session;

mod floor;

mod site;

mod registry;

mod population;

mod bare;

mod guarded;

mod peer;

mod drive;

mod machine;

use std::error::Error;
use std::process::ExitCode;

use clap::{Parser, Subcommand};
use tikv_jemallocator::Jemalloc;

/// As the server has it, so that the bare server beside it is not measured with another allocator.
#[global_allocator]
static ALLOCATOR: Jemalloc = Jemalloc;

type Failure = Box<dyn Error + Send + Sync>;

/// What a token costs, and what it could cost at least.
#[derive(Parser)]
#[command(name = "countersign-bench", version, args_conflicts_with_subcommands = true)]
struct CommandLine {
    #[command(subcommand)]
    command: Option<Command>,
    #[command(flatten)]
    all: programme::Arguments,
}

#[derive(Subcommand)]
enum Command {
    /// The whole programme: what is run where nothing is said
    All(programme::Arguments),
    /// A server that runs already
    Drive(drive::Arguments),
    #[command(hide = true)]
    Bare(bare::Arguments),
    #[command(hide = true)]
    Guarded(guarded::Arguments),
}

fn main() -> ExitCode {
    let line = CommandLine::parse();
    let outcome = match line.command {
        None => programme::run(&line.all),
        Some(Command::All(arguments)) => programme::run(&arguments),
        Some(Command::Drive(arguments)) => drive::run(arguments),
        Some(Command::Bare(arguments)) => bare::run(arguments),
        Some(Command::Guarded(arguments)) => guarded::run(arguments),
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            eprintln!("countersign-bench: {failure}");
            ExitCode::FAILURE
        }
    }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn the_command_line_is_sound() {
        CommandLine::command().debug_assert();
    }

    #[test]
    fn without_a_subcommand_it_is_the_whole_programme() {
        let said = |words: &[&str]| CommandLine::try_parse_from([&["bench"], words].concat()).is_ok();
        assert!(said(&[]) && said(&["--short"]) && said(&["all", "--short", "--only", "tokens,check"]));
        assert!(!said(&["--rounds", "0"]) && !said(&["--seconds", "0"]));
        assert!(!said(&["--short", "drive"]) && !said(&["all", "--only", "everything"]));
    }
}
