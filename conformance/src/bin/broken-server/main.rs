//! A small authorization server with two protected resources that does what the specifications say, until it is told what to
//! get wrong: a judge is worth something only if each of its cases can fail.
//!
//! Takes a directory and the defects by name, writes a target file for the judge into the directory and says when it is
//! ready. Everything is made anew at each start and held in memory. Where a specification leaves a choice, it chooses
//! otherwise than Countersign where that is easy: a judge that demands more than the text is caught by it too.

/// What can be broken, by name.
mod defect;

/// The parties, their keys and certificates, and what was issued.
mod world;

/// The target file.
mod target;

/// Connections: TLS and HTTP.
mod listener;

/// TLS that nobody should speak, octet by octet.
mod hello;

/// Requests and answers.
mod http;

/// Which endpoint a request is for.
mod route;

/// RFC 8414, RFC 7517 and RFC 9728.
mod metadata;

/// RFC 6749 §3.2 and §4.4.
mod token;

/// Which client is it?
mod client_auth;

/// What a certificate says, and who vouches for it.
mod certificate;

/// RFC 9068 §2.
mod mint;

/// RFC 7009.
mod revocation;

/// RFC 7662 and RFC 9701.
mod introspection;

/// RFC 6750 and RFC 8705 §3.
mod resource;

/// RFC 9068 §4.
mod access_token;

/// RFC 7515: is it signed by a key that counts?
mod jws;

/// JSON that may name something twice.
mod json;

/// Gets a document by HTTPS.
mod fetch;

use std::io::Write;
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;

use clap::Parser;
use countersign_conformance::clock;

use defect::{Broken, Defect};

/// An authorization server and its protected resources, for judging the judge.
#[derive(Debug, Parser)]
#[command(name = "broken-server")]
struct CommandLine {
    /// Where to write target.toml and what it names; made if it is not there
    #[arg(long, required_unless_present = "list", value_name = "DIR")]
    directory: Option<PathBuf>,
    /// A defect; may be given more than once
    #[arg(long = "break", value_name = "FLAG", value_parser = Defect::named)]
    broken: Vec<Defect>,
    /// End when standard input does
    #[arg(long)]
    while_input: bool,
    /// Tell the defects, one a line, and end
    #[arg(long)]
    list: bool,
}

/// A failure that ends the program.
type Failure = Box<dyn std::error::Error + Send + Sync>;

#[tokio::main]
async fn main() -> ExitCode {
    let command_line = CommandLine::parse();
    let run = match command_line.directory {
        Some(directory) if !command_line.list => serve(directory, command_line.broken, command_line.while_input).await,
        _ => list(),
    };
    match run {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            let _nobody_listens = writeln!(std::io::stderr(), "broken-server: {failure}");
            ExitCode::FAILURE
        }
    }
}

fn list() -> Result<(), Failure> {
    let mut out = std::io::stdout().lock();
    for defect in Defect::ALL {
        writeln!(out, "{:<48}{}", defect.as_str(), defect.what())?;
    }
    Ok(())
}

/// Serves until the process is ended.
async fn serve(directory: PathBuf, broken: Vec<Defect>, while_input: bool) -> Result<(), Failure> {
    let listener = listener::Listener::bind().await?;
    let (world, parties) = world::World::make(Broken::of(broken), listener.port(), clock::now())?;
    // Held, not listened on, until the judge takes it over: nobody else is given this port meanwhile.
    let kept_for_the_judge = world::reserve_port()?;
    let world = Arc::new(world.trusting_the_judge_at(kept_for_the_judge.local_addr()?.port()));
    target::write(&directory, &world, &parties)?;
    writeln!(std::io::stdout(), "ready: {}", directory.join("target.toml").display())?;
    tokio::select! {
        served = listener.serve(world) => served,
        () = input_closed(), if while_input => Ok(()),
    }
}

/// So that no server outlives the test that started it.
async fn input_closed() {
    let (closed, waits) = tokio::sync::oneshot::channel();
    std::thread::spawn(move || {
        let _read_to_its_end = std::io::copy(&mut std::io::stdin(), &mut std::io::sink());
        closed.send(())
    });
    // A sender that was dropped says the same.
    let _closed = waits.await;
}
