//! Backups, made under load and restored: nothing of before is handed out again, and nobody serves what nobody has
//! confirmed.

mod circle;

mod drill;

mod file;

mod shared;

pub(crate) use circle::fresh;

use std::path::{Path, PathBuf};
use std::process::Output;

use countersign::config::StoreUrl;
use countersign::mint::key_encryption::EncryptionKeySource;
use serde_json::Value;

use crate::rig::Rig;

/// The command line on a store of the test's choice, as the rig's issuer.
pub(super) async fn command(rig: &Rig, store: &StoreUrl, arguments: &[&str]) -> Output {
    let mut command = tokio::process::Command::new(env!("CARGO_BIN_EXE_countersign"));
    if let Some(EncryptionKeySource::File(path)) = &rig.app.config.key_encryption_key {
        command.env("COUNTERSIGN_KEY_ENCRYPTION_KEY", path);
    }
    command
        .args(arguments)
        .current_dir(rig.directory())
        .env("COUNTERSIGN_DATA_DIRECTORY", rig.directory())
        .env("COUNTERSIGN_STORE", store.as_str())
        .env("COUNTERSIGN_ISSUER", &rig.world.issuer)
        .kill_on_drop(true)
        .output()
        .await
        .unwrap()
}

/// What a command said, which has to succeed.
pub(super) async fn done(rig: &Rig, store: &StoreUrl, arguments: &[&str]) -> String {
    let output = command(rig, store, arguments).await;
    let (out, err) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{arguments:?}: {out}{err}");
    out.into_owned()
}

/// What a command said, which has to be refused.
pub(super) async fn refused(rig: &Rig, store: &StoreUrl, arguments: &[&str]) -> String {
    let output = command(rig, store, arguments).await;
    let (out, err) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert_eq!(output.status.code(), Some(1), "{arguments:?}: {out}{err}");
    err.into_owned()
}

/// A backup of the rig's store, and what the command said of it.
pub(super) async fn backed_up(rig: &Rig, name: &str) -> (PathBuf, Value) {
    let file = rig.directory().join(name);
    let said = done(rig, &rig.store, &["--json", "backup", "--to", &text(&file)]).await;
    (file, serde_json::from_str(&said).unwrap())
}

pub(super) fn text(path: &Path) -> String {
    path.display().to_string()
}
