//! The example API of the resource-server crate, as a process of its own.
//!
//! Takes the population and the server's issuer, serves `GET /accounts` behind the guard. It is the very source file that the
//! crate's `examples/` shows.

#[path = "../../resource-server/examples/guarded_api.rs"]
#[expect(unreachable_pub, reason = "the file is an example of another crate first")]
mod guarded_api;

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Command;

use clap::Args;
use tokio::sync::oneshot;

use crate::Failure;
use crate::machine::free_address;
use crate::population::Population;
use crate::registry::RESOURCE;
use crate::site::{Probe, Server};

/// Serves the example API; the programme starts it.
#[derive(Args)]
pub(crate) struct Arguments {
    /// Where the population is.
    #[arg(long)]
    population: PathBuf,
    /// The authorization server.
    #[arg(long)]
    issuer: String,
    /// Where to listen.
    #[arg(long)]
    listen: SocketAddr,
}

/// Starts it beside the programme.
pub(crate) fn start(population: &Population, issuer: &str, log: &Path) -> Result<(Server, SocketAddr), Failure> {
    let address = free_address()?;
    let mut command = Command::new(std::env::current_exe()?);
    command.arg("guarded").arg("--population").arg(population.directory());
    command.args(["--issuer", issuer, "--listen", &address.to_string()]);
    let mut server = Server::start(command, log.to_owned(), Probe::Listens(address))?;
    server.ready()?;
    Ok((server, address))
}

/// Serves until it is killed.
#[tokio::main]
pub(crate) async fn run(arguments: Arguments) -> Result<(), Failure> {
    let population = |name: &str| std::fs::read(arguments.population.join(name));
    let settings = guarded_api::Settings {
        listen: arguments.listen,
        issuer: arguments.issuer,
        resource: RESOURCE.to_owned(),
        certificate_pem: population("server.pem")?,
        key_pem: population("server.key")?,
        roots_pem: population("server-ca.pem")?,
    };
    // Nobody waits for it in this process.
    let (ready, _told) = oneshot::channel();
    guarded_api::serve(settings, ready, std::future::pending()).await?;
    Ok(())
}
