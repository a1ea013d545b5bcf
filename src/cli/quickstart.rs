//! `countersign quickstart`: everything on one machine, nothing to prepare.

use std::path::PathBuf;

use clap::Args;

use super::session::Failure;
use crate::quickstart::Quickstart;
use crate::{quickstart, telemetry};

/// Where the quickstart keeps its files and listens.
#[derive(Debug, Args)]
pub(super) struct QuickstartArguments {
    /// End after the last step instead of staying up; non-zero if a step went wrong
    #[arg(long)]
    exit: bool,
    /// Where everything is kept
    #[arg(long, default_value = "countersign-data", value_name = "DIRECTORY")]
    data_directory: PathBuf,
    /// The authorization server's port on localhost
    #[arg(long, default_value_t = 8443)]
    port: u16,
    /// The guarded API's port on localhost
    #[arg(long, default_value_t = 8444)]
    api_port: u16,
    /// The port of health and metrics
    #[arg(long, default_value_t = 9443)]
    operations_port: u16,
}

pub(super) async fn run(arguments: QuickstartArguments) -> Result<(), Failure> {
    let QuickstartArguments { exit, data_directory, port, api_port, operations_port } = arguments;
    let metrics = telemetry::start_metrics();
    quickstart::run(Quickstart { data_directory, port, api_port, operations_port, exit }, metrics).await
}
