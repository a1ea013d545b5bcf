//! `countersign backup`: the whole store as one file, while servers run.

use std::path::PathBuf;

use clap::Args;
use countersign_resource_server::time::{Clock, SystemClock};
use serde::Serialize;
use serde_json::json;

use super::audit::progress::Progress;
use super::keys_at_hand::KeysAtHand;
use super::session::{Failure, Session};
use crate::audit::command::record_reading;
use crate::backup::{self, BackupStore, Header, Origins};

/// Where to.
#[derive(Debug, Args)]
pub(super) struct BackupArguments {
    /// The file: JSON lines, compressed with gzip, for its owner alone. Never one that is there
    #[arg(long, value_name = "FILE")]
    to: PathBuf,
}

#[derive(Serialize)]
struct Done<'a> {
    file: PathBuf,
    #[serde(flatten)]
    header: &'a Header,
    tables: u64,
    rows: u64,
    sha256: &'a str,
    signed: bool,
}

/// Runs the command.
///
/// # Errors
/// [`backup::BackupFailure`], as a sentence, or the record of it cannot be written: then there is no file.
pub(super) async fn run(arguments: &BackupArguments, session: &Session) -> Result<(), Failure> {
    let config = &session.config;
    let at_hand = KeysAtHand::of(config, Some(session.store())).await?;
    let keys = at_hand.read().await?;
    let origins = Origins {
        issuer: config.issuer.as_str().to_owned(),
        node: config.node.as_str().to_owned(),
        at: SystemClock::new().now(),
    };
    let progress = Progress::of("written");
    let snapshot = session.store().snapshot().await?;
    let written = backup::prepare(snapshot, &origins, keys.as_ref(), &arguments.to, progress.count()).await?;
    drop(progress);
    // Whoever has the file has read everything: no file without that on record.
    let asked = json!({
        "to": arguments.to.display().to_string(),
        "sha256": written.sha256,
        "rows": written.rows,
        "registry": written.header.registry,
    });
    let now = SystemClock::new().now();
    record_reading(session.store(), config.node.as_str(), now, session.actor(), "backup", &asked).await?;
    let (header, sha256) = (written.header.clone(), written.sha256.clone());
    let (tables, rows, signed) = (written.tables, written.rows, written.is_signed);
    let file = written.place()?;
    let checkpoint = match header.checkpoint {
        Some((number, at)) => format!("checkpoint {number} of {at}"),
        None => "no checkpoint".to_owned(),
    };
    let text = format!(
        "Backed up to {}: {rows} rows of {tables} tables, registry version {} of epoch {}, the audit log with {checkpoint}. SHA-256 of its lines: {sha256}.",
        file.display(),
        header.registry.version,
        header.registry.epoch,
    );
    session.output.done(&text, &Done { file, header: &header, tables, rows, sha256: &sha256, signed })?;
    session.output.note(&match at_hand {
        KeysAtHand::Directory(directory) => format!(
            "NOT in it: the signing keys in {}. Keep a copy of that directory, apart from this file and as well guarded as the keys themselves: without them a restored server signs with new keys, and nobody can prove the old checkpoints.",
            directory.display()
        ),
        KeysAtHand::Store(_) | KeysAtHand::Encrypted(_) | KeysAtHand::Unreachable => "NOT in it: the key-encryption key, by which the signing keys in it are encrypted. Keep a copy of that, apart from this file: without it they are lost, and this backup cannot be proven; whoever has both can issue tokens.".to_owned(),
    })?;
    if !signed {
        session.output.note(
            "It is not signed, for no signing key is at hand here: make backups where the keys are, or `restore` will ask for --danger-unproven.",
        )?;
    }
    Ok(())
}
