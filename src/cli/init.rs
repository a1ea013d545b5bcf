//! `countersign init`: everything a server needs before it is first started, but its certificate.

use std::io;
use std::os::unix::fs::DirBuilderExt;
use std::path::Path;
use std::sync::Arc;

use countersign_resource_server::time::SystemClock;
use serde_json::json;

use super::output::Output;
use super::session::Failure;
use crate::app::App;
use crate::config::Config;

/// Makes the data directory, the schema and the signing keys, where they are missing.
pub(super) async fn run(config: Config, output: Output) -> Result<(), Failure> {
    data_directory(&config.data_directory)?;
    let app = App::open(config, Arc::new(SystemClock::new())).await?;
    app.close().await;
    let config = &app.config;
    output.done(
        &format!("Ready: store {}, signing keys in {}.", config.store, config.keys_directory.display()),
        &json!({ "store": config.store.to_string(), "keys_directory": config.keys_directory }),
    )?;
    let missing = [("tls.certificate", &config.tls.certificate), ("tls.key", &config.tls.key)];
    for (key, path) in missing.into_iter().filter(|(_, path)| !path.exists()) {
        output.note(&format!("Before `countersign serve`: {} ({key}) does not exist yet.", path.display()))?;
    }
    Ok(())
}

/// The data directory, made if it is missing, for nobody but the user the server runs as.
///
/// # Errors
/// It can neither be found nor made.
pub(super) fn data_directory(path: &Path) -> Result<(), Failure> {
    let made = std::fs::DirBuilder::new().recursive(true).mode(0o700).create(path);
    made.map_err(|error: io::Error| format!("the data directory {} cannot be made: {error}", path.display()).into())
}
