//! `countersign serve`: runs until it is told to stop.

use std::sync::Arc;

use countersign_resource_server::time::SystemClock;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::Notify;

use super::init::data_directory;
use super::session::Failure;
use crate::app::App;
use crate::config::Config;
use crate::{server, telemetry};

/// Serves until SIGTERM or SIGINT, then lets requests under way finish, writes what is left of the audit log and closes
/// the store; a second signal ends all that. SIGHUP has the server's certificate looked at.
pub(super) async fn run(config: Config) -> Result<(), Failure> {
    telemetry::start_log(&config.log);
    let metrics = telemetry::start_metrics();
    let upkeep = tokio::spawn(telemetry::keep_metrics(metrics.clone()));
    // Before anything is opened: a signal that comes meanwhile is not lost.
    let mut signals = Signals::listen()?;
    data_directory(&config.data_directory)?;
    let app = App::open(config, Arc::new(SystemClock::new())).await?;
    let forwarding = app.forward_audit()?;
    let running = server::serve(&app, metrics).await?;
    let watching = app.watch_expiry();
    let addresses = running.addresses();
    tracing::info!(
        issuer = %app.config.issuer,
        environment = app.config.environment.as_str(),
        listen = %addresses.mtls,
        operations = %addresses.operations,
        store = %app.config.store,
        "serving"
    );
    let name = signals.stop(&running.reload()).await;
    tracing::info!(signal = name, drain_seconds = app.config.drain.as_secs(), "stopping");
    let drain = app.config.drain;
    watching.abort();
    let stopping = async {
        running.stop(drain).await;
        forwarding.stop().await;
        app.close().await;
    };
    let again = Notify::new();
    tokio::select! {
        () = stopping => {}
        name = signals.stop(&again) => return Err(format!("ended at once by a second signal ({name})").into()),
    }
    upkeep.abort();
    tracing::info!("stopped");
    Ok(())
}

struct Signals {
    terminate: Signal,
    interrupt: Signal,
    hang_up: Signal,
}

impl Signals {
    fn listen() -> std::io::Result<Self> {
        Ok(Self {
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
            hang_up: signal(SignalKind::hangup())?,
        })
    }

    /// Waits for a signal that means stop; those that mean reload notify `reload`.
    async fn stop(&mut self, reload: &Notify) -> &'static str {
        loop {
            tokio::select! {
                _ = self.terminate.recv() => return "SIGTERM",
                _ = self.interrupt.recv() => return "SIGINT",
                _ = self.hang_up.recv() => reload.notify_one(),
            }
        }
    }
}
