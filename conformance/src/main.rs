//! Points the judge at a target, and shows what it asks.

#![expect(clippy::print_stderr, reason = "progress, and what went wrong")]

use std::error::Error;
use std::io::{IsTerminal, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::{Args, Parser, Subcommand};
use countersign_conformance::judge::{Catalogue, Choice, Progress, run};

/// Judges any mutual-TLS authorization server and resource server, by section of each specification.
#[derive(Parser)]
#[command(name = "countersign-conformance", version)]
struct CommandLine {
    #[command(subcommand)]
    command: Command,
    /// Cases of this directory in place of those built in
    #[arg(long, global = true, value_name = "DIRECTORY")]
    cases: Option<PathBuf>,
}

#[derive(Subcommand)]
enum Command {
    /// Judge a target: exit code 0 if every MUST holds, 1 if one failed, 2 if the target file cannot be used
    Run(Box<RunArguments>),
    /// Every case: id, level, specification and section, title
    List {
        #[command(flatten)]
        choice: ChoiceArguments,
        /// How many there are of each section, in place of the cases
        #[arg(long)]
        counts: bool,
    },
    /// What a case does, and the sentence it rests on
    Explain {
        /// Its id
        case: String,
    },
}

#[derive(Args)]
struct RunArguments {
    /// The target file
    #[arg(long, value_name = "FILE")]
    config: PathBuf,
    #[command(flatten)]
    choice: ChoiceArguments,
    /// Write the report as JSON
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
    /// Write the report as JUnit XML
    #[arg(long, value_name = "FILE")]
    junit: Option<PathBuf>,
    /// Write the report as one HTML page
    #[arg(long, value_name = "FILE")]
    html: Option<PathBuf>,
    /// Say nothing while it runs
    #[arg(long)]
    quiet: bool,
}

#[derive(Args)]
struct ChoiceArguments {
    /// `full`, or `short` for those that stand for the others
    #[arg(long, default_value = "full", value_parser = ["full", "short"])]
    profile: String,
    /// Only this case, those whose id begins so (`rfc8705-*`), or of this specification or section ("RFC 8705 3"); may be repeated
    #[arg(long, value_name = "CASE")]
    case: Vec<String>,
}

impl ChoiceArguments {
    fn choice(&self) -> Choice {
        Choice { short: self.profile == "short", only: self.case.clone() }
    }
}

fn main() -> ExitCode {
    let line = CommandLine::parse();
    match perform(&line) {
        Ok(code) => code,
        Err(failure) => {
            eprintln!("countersign-conformance: {failure}");
            ExitCode::from(2)
        }
    }
}

fn perform(line: &CommandLine) -> Result<ExitCode, Box<dyn Error>> {
    let catalogue = match &line.cases {
        Some(directory) => Catalogue::of_directory(directory)?,
        None => Catalogue::built_in()?,
    };
    match &line.command {
        Command::List { choice, counts: false } => print(&catalogue.list(&choice.choice())),
        Command::List { choice, counts: true } => print(&catalogue.counts(&choice.choice())),
        Command::Explain { case } => match catalogue.explain(case) {
            Some(text) => print(&text),
            None => return Err(format!("there is no case {case:?}: `list` shows them").into()),
        },
        Command::Run(arguments) => return judge(arguments, &catalogue),
    }
    Ok(ExitCode::SUCCESS)
}

fn judge(arguments: &RunArguments, catalogue: &Catalogue) -> Result<ExitCode, Box<dyn Error>> {
    let runtime = tokio::runtime::Runtime::new()?;
    let mut shown = Shown { terminal: std::io::stderr().is_terminal(), quiet: arguments.quiet, place: String::new() };
    let report = runtime.block_on(run(&arguments.config, catalogue, &arguments.choice.choice(), &mut shown))?;
    shown.clear();
    let written =
        |path: &Path, text: String| std::fs::write(path, text).map_err(|error| format!("{}: {error}", path.display()));
    if let Some(path) = &arguments.json {
        written(path, serde_json::to_string_pretty(&report.to_json())? + "\n")?;
    }
    if let Some(path) = &arguments.junit {
        written(path, report.to_junit())?;
    }
    if let Some(path) = &arguments.html {
        written(path, report.to_html())?;
    }
    print(&report.table());
    Ok(if report.failed() { ExitCode::FAILURE } else { ExitCode::SUCCESS })
}

/// Prints, also where whoever reads has gone: `list | head` is no failure.
fn print(text: &str) {
    let _gone = std::io::stdout().write_all(text.as_bytes());
}

/// One line on a terminal, else a line for each section and failure.
struct Shown {
    terminal: bool,
    quiet: bool,
    place: String,
}

impl Shown {
    fn clear(&self) {
        if self.terminal && !self.quiet {
            eprint!("\r\x1b[K");
        }
    }
}

impl Progress for Shown {
    fn begins(&mut self, done: usize, of: usize, id: &str) {
        if self.terminal && !self.quiet {
            eprint!("\r\x1b[K{:>4}/{of} {id}", done + 1);
        }
    }

    fn ended(&mut self, outcome: &str, place: &str, id: &str, why: &str) {
        if self.quiet {
            return;
        }
        if outcome == "fail" || outcome == "error" {
            self.clear();
            eprintln!("{outcome}: {id}: {why}");
        } else if !self.terminal && self.place != place {
            eprintln!("{place}");
        }
        place.clone_into(&mut self.place);
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
}
