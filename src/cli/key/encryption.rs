//! The key-encryption key: making one, taking the signing keys into the store with it, going over to another.

use std::path::Path;
use std::sync::Arc;

use serde_json::json;

use crate::cli::output::Output;
use crate::cli::session::{Failure, Session};
use crate::mint::key_directory::KeyDirectory;
use crate::mint::key_encryption::{Existing, make_encryption_key};
use crate::mint::key_ring::{KeyStore, KeyWrite};
use crate::mint::shared_keys::{ChangedEncryption, SharedKeys};
use crate::registry::token::SigningKeyChange;

/// Makes a key-encryption key in a file.
///
/// # Errors
/// The file is there, or cannot be written.
pub(super) fn make(file: &Path, append: bool, output: Output) -> Result<(), Failure> {
    let existing = if append { Existing::Append } else { Existing::Refuse };
    let id = make_encryption_key(file, existing)?;
    output.done(
        &format!("Made key-encryption key {id} in {}.", file.display()),
        &json!({ "id": id, "file": file.display().to_string() }),
    )?;
    output.note(&if append {
        "Put the same file in its place on every node, then give `countersign key change-encryption-key` once.".to_owned()
    } else {
        format!(
            "Every node needs the same file, and key_encryption_key = \"{}\" in its configuration. Keep a copy apart from every backup: without it the signing keys are lost.",
            file.display()
        )
    })
}

/// Takes the keys of the directory into the store.
///
/// # Errors
/// There are keys in the store already, one of the directory cannot be read, or it could not be put on record.
pub(super) async fn move_to_store(session: &Session, why: Option<String>) -> Result<(), Failure> {
    let (shared, directory) = (shared(session)?, &session.config.keys_directory);
    let there = shared.read().await?;
    if !there.keys.is_empty() || !there.set_aside.is_empty() {
        return Err("there are signing keys in the store already: nothing was moved".into());
    }
    if !KeyDirectory::has_keys(directory) {
        return Err(format!("{}: there are no signing keys in it: nothing was moved", directory.display()).into());
    }
    let found = KeyDirectory::open(directory)?.read().await?;
    if let Some(aside) = found.set_aside.first() {
        return Err(format!("{}: {}: nothing was moved", aside.name, aside.why).into());
    }
    let kids: Vec<String> = found.keys.iter().map(|key| key.record.kid.clone()).collect();
    let writes = found.keys.into_iter().map(KeyWrite::Add).collect();
    if !shared.write(there.fingerprint, writes).await? {
        return Err("somebody else has put signing keys into the store meanwhile: nothing was moved".into());
    }
    let changes = kids.iter().map(|kid| SigningKeyChange::Moved { kid: kid.clone() }).collect();
    let recorded = session.registry.change_signing_keys(changes, session.explain(why)).await;
    session.output.done(
        &format!("Moved {} signing keys from {} into the store, encrypted.", kids.len(), directory.display()),
        &json!({ "moved": kids, "from": directory }),
    )?;
    session.output.note(&format!(
        "Start every node again with key_encryption_key, then delete {}: the keys in it are still good, and not encrypted.",
        directory.display()
    ))?;
    recorded.map(drop).map_err(|error| format!("the keys are moved, but that is not on record: {error}").into())
}

/// Encrypts the keys in the store by the newest key-encryption key.
///
/// # Errors
/// There is nothing to change, a key cannot be read, or it could not be put on record.
pub(super) async fn change(session: &Session, why: Option<String>) -> Result<(), Failure> {
    let Some(ChangedEncryption { kids, before, after }) = shared(session)?.change_encryption_key().await? else {
        return Err(
            "nothing is encrypted by another key than the last one configured: `countersign key make-encryption-key --append` makes the next"
                .into(),
        );
    };
    let change =
        |kid: &String| SigningKeyChange::Encrypted { kid: kid.clone(), before: before.clone(), after: after.clone() };
    let recorded = session.registry.change_signing_keys(kids.iter().map(change).collect(), session.explain(why)).await;
    session.output.done(
        &format!("Encrypted {} signing keys by key-encryption key {after} instead of {before}.", kids.len()),
        &json!({ "encrypted": kids, "before": before, "after": after }),
    )?;
    session.output.note(&format!(
        "{before} opens what is in backups made until now: keep it apart as long as those, and take it out of the file on every node."
    ))?;
    recorded
        .map(drop)
        .map_err(|error| format!("the keys are encrypted anew, but that is not on record: {error}").into())
}

fn shared(session: &Session) -> Result<SharedKeys, Failure> {
    let source = session.config.key_encryption_key.clone();
    let source = source.ok_or("key_encryption_key is not configured: see docs/signing-keys.md")?;
    let keys = SharedKeys::new(Arc::new(session.store().clone()), source);
    keys.map_err(|error| format!("key_encryption_key: {error}").into())
}
