//! `countersign init`: everything a server needs before it is first started, but its certificate.

use std::io;
use std::os::unix::fs::DirBuilderExt;
use std::path::Path;

use countersign_resource_server::time::{Clock, SystemClock};
use serde_json::json;

use super::output::Output;
use super::session::Failure;
use crate::app;
use crate::config::Config;
use crate::mint::KeyRing;

/// Makes the data directory, the schema and the signing keys, where they are missing.
pub(super) async fn run(config: Config, output: Output) -> Result<(), Failure> {
    data_directory(&config.data_directory)?;
    // No `App`: that is one who serves, and after a restore the first of them says how long the marks of before last.
    let store = app::open_store(&config).await?;
    let keys = match app::key_store(&config, &store).await {
        Ok(keys) => KeyRing::open(keys, SystemClock::new().now()).await.map_err(Failure::from),
        Err(error) => Err(error.into()),
    };
    store.close().await;
    keys?;
    let directory = config.key_encryption_key.is_none().then_some(&config.keys_directory);
    let place = directory.map_or_else(|| "it, encrypted".to_owned(), |directory| directory.display().to_string());
    output.done(
        &format!("Ready: store {}, signing keys in {place}.", config.store),
        &json!({ "store": config.store.to_string(), "keys_directory": directory }),
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
