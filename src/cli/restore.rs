//! `countersign restore`: an empty store from a backup, and what has to be looked at before it is served.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use clap::{Args, Subcommand};
use countersign_resource_server::time::{Clock, SystemClock, UnixTime};
use serde_json::json;

use super::audit::evidence;
use super::audit::progress::Progress;
use super::init::data_directory;
use super::keys_at_hand::KeysAtHand;
use super::output::{Output, printable};
use super::session::{Failure, Session, system_user};
use crate::audit::checkpoint::CHECKPOINT_FILE;
use crate::audit::verify::AuditReading;
use crate::backup::{self, BackupStore, Restoration, Restoring, Standing, TokensOfBefore, Unproven};
use crate::config::Config;
use crate::mint::key_directory::KeyDirectory;
use crate::mint::shared_keys::{SealedKeyStore, SharedKeys};
use crate::mint::{KeyRing, SigningKeys};
use crate::registry::history::{Actor, Explanation};
use crate::store::{self, Migrate, OpenError, Store};

/// What is restored, or what becomes of what was.
#[derive(Debug, Args)]
#[command(args_conflicts_with_subcommands = true, subcommand_negates_reqs = true)]
pub(super) struct RestoreArguments {
    #[command(subcommand)]
    command: Option<RestoreCommand>,
    /// The backup. Into the store that the configuration names, which has to be empty or not there yet
    #[arg(long, value_name = "FILE", required = true)]
    from: Option<PathBuf>,
    /// The keys that sign backups and checkpoints, as /jwks has them; otherwise the server's own
    #[arg(long, value_name = "FILE")]
    jwks: Option<PathBuf>,
    /// Restore a backup that nobody is known to have signed, or whose audit log does not verify. That is put on record
    #[arg(long)]
    danger_unproven: bool,
    /// Why, for the history
    #[arg(long, value_name = "SENTENCE")]
    why: Option<String>,
}

#[derive(Debug, Subcommand)]
enum RestoreCommand {
    /// What this store was restored from, and for which span of time revocations may be missing
    Status,
    /// Everything that was revoked since the backup has been revoked again: let servers serve this store
    Confirm {
        /// How that was made sure, for the history
        #[arg(long, value_name = "SENTENCE")]
        why: String,
        /// Let tokens of before the restore live on, but for those that are revoked here. Otherwise all of them are dead
        #[arg(long)]
        keep_tokens: bool,
    },
}

impl RestoreArguments {
    /// Whether it opens the store in a way of its own.
    pub(super) const fn is_about_an_empty_store(&self) -> bool {
        self.command.is_none()
    }
}

/// Restores a backup.
///
/// # Errors
/// [`backup::BackupFailure`], as a sentence.
pub(super) async fn run_on_empty(
    arguments: RestoreArguments,
    config: Config,
    operator: Option<String>,
    output: Output,
) -> Result<(), Failure> {
    let Some(from) = arguments.from else { return Ok(()) };
    data_directory(&config.data_directory)?;
    let in_it = signing_keys(&from, &config).await?;
    let at_hand = KeysAtHand::Directory(config.keys_directory.clone());
    let keys = match (&arguments.jwks, &in_it) {
        (Some(file), _) => evidence::published(file, Some(&at_hand)).await?,
        (None, Some(keys)) => evidence::believed(keys)?,
        (None, None) => evidence::own(&at_hand).await?,
    };
    if let Some(doubt) = keys.doubt() {
        return Err(doubt.to_owned().into());
    }
    let kept_file = config.data_directory.join(CHECKPOINT_FILE);
    let kept = match std::fs::read_to_string(&kept_file) {
        Ok(kept) => Some(kept),
        Err(error) if error.kind() == io::ErrorKind::NotFound => None,
        Err(error) => return Err(format!("{}: {error}", kept_file.display()).into()),
    };
    let unproven = if arguments.danger_unproven { Unproven::DangerAccept } else { Unproven::Refuse };

    // All of it is read before anything is made.
    let progress = Progress::of("read");
    let (count, believed) = (Arc::clone(progress.count()), keys.clone());
    let inspected = tokio::task::spawn_blocking(move || backup::inspect(&from, &believed, &count)).await??;
    drop(progress);
    inspected.doubts(unproven)?;

    let store = empty_store(config.store.as_str()).await?;
    let clock = SystemClock::new();
    // The second that it is restored in is over before anybody can restore another one.
    let now = clock.now();
    let rest = 1_000 - now.as_millis().rem_euclid(1_000);
    tokio::time::sleep(Duration::from_millis(u64::try_from(rest).unwrap_or(1_000))).await;
    let came_with_it = in_it.is_some();
    let signing = match in_it {
        Some(keys) => Arc::new(keys),
        None => KeyRing::open(Arc::new(KeyDirectory::open(&config.keys_directory)?), now).await?.current(),
    };
    let actor = Actor::Operator { system_user: system_user(), stated_name: operator };
    let by = Restoring {
        explanation: Explanation { actor, at: now, why: arguments.why },
        issuer: config.issuer.as_str(),
        signing: &signing,
        keys: &keys,
        kept,
        unproven,
    };
    let progress = Progress::of("restored");
    let target: Arc<dyn BackupStore> = Arc::new(store.clone());
    let log: Arc<dyn AuditReading> = Arc::new(store.clone());
    let restored = backup::restore(&target, &log, &inspected, by, progress.count()).await;
    drop(progress);
    store.close().await;
    let restored = restored?;
    let aside = put_aside(&kept_file, now)?;
    let of_then = came_with_it.then_some(KEYS_OF_THEN);

    output.done(
        &format!(
            "Restored {} rows from {}. The registry begins epoch {} with version {}.",
            inspected.rows,
            inspected.path.display(),
            restored.epoch,
            restored.first_version
        ),
        &restored,
    )?;
    for doubt in &restored.unproven {
        output.note(&printable(&format!("Not proven, and accepted: {doubt}.")))?;
    }
    if let Some(aside) = aside {
        output.note(&format!("The checkpoint that was kept of the lost log is in {} now.", aside.display()))?;
    }
    output.note(&told(&restored, of_then))
}

/// What a backup cannot know: which keys came into other hands after it was made.
const KEYS_OF_THEN: &str = " The signing keys are those of then: retire again each that was withdrawn since \
     (`countersign key retire KID --now`), before you confirm.";

/// The signing keys that are in the backup, encrypted; none where they were in a directory when it was made.
async fn signing_keys(backup: &Path, config: &Config) -> Result<Option<SigningKeys>, Failure> {
    let path = backup.to_owned();
    let ring = tokio::task::spawn_blocking(move || backup::signing_keys(&path)).await??;
    let Some(encrypted_by) = ring.ring.as_ref().map(|ring| &ring.encrypted_by) else { return Ok(None) };
    let Some(source) = &config.key_encryption_key else {
        return Err(format!(
            "the signing keys in it are encrypted by key-encryption key {encrypted_by}: configure key_encryption_key"
        )
        .into());
    };
    let keys = source.read().map_err(|error| format!("key_encryption_key: {error}"))?;
    Ok(Some(SigningKeys::from(SharedKeys::open_sealed(&ring, &keys)?)))
}

/// The store that is named, with its schema, made where it is missing. Nothing older is brought up to date here.
async fn empty_store(url: &str) -> Result<Store, Failure> {
    match store::open(url, Migrate::Check).await {
        Err(OpenError::Missing { .. }) => Ok(store::open(url, Migrate::Apply).await?),
        opened => Ok(opened?),
    }
}

/// Gives the checkpoint of the lost log another name, in which nobody takes it for one of this log.
fn put_aside(file: &Path, now: UnixTime) -> Result<Option<PathBuf>, Failure> {
    let aside = file.with_extension(format!("until-{}.jwt", now.to_string().replace(':', "-")));
    match std::fs::rename(file, &aside) {
        Ok(()) => Ok(Some(aside)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(format!(
            "the store is restored, but {} cannot be moved aside ({error}): move it by hand, or servers will say that the log was put back",
            file.display()
        )
        .into()),
    }
}

/// What is to be done, in a few sentences.
fn told(restoration: &Restoration, of_then: Option<&str>) -> String {
    let Restoration { at, origin, .. } = restoration;
    let changed = match origin.registry.changed_at {
        Some(changed_at) => format!("its newest change of the registry is of {changed_at}"),
        None => "no change of the registry is in it".to_owned(),
    };
    format!(
        "The backup was made at {} on {}; {changed}. Whatever was changed or revoked between then and {at} is not here: \
         give it again with the usual commands (`certificate revoke`, `client suspend`, …), which work on this store as it is. \
         Servers refuse it until `countersign restore confirm --why \"…\"`. Every token of before is dead.{}",
        origin.at,
        printable(&origin.node),
        of_then.unwrap_or_default()
    )
}

/// Runs the commands about a store that was restored.
///
/// # Errors
/// The store does not answer, or there is nothing to confirm.
pub(super) async fn run(arguments: RestoreArguments, session: &Session) -> Result<(), Failure> {
    match arguments.command {
        Some(RestoreCommand::Status) => status(session).await,
        Some(RestoreCommand::Confirm { why, keep_tokens }) => confirm(session, why, keep_tokens).await,
        None => Ok(()),
    }
}

async fn status(session: &Session) -> Result<(), Failure> {
    let of_then = session.store().sealed_keys().await?.ring.is_some().then_some(KEYS_OF_THEN);
    let standing = session.store().standing().await?;
    let restorations = session.store().restorations().await?;
    if session.output == Output::Json {
        return session
            .output
            .record(&json!({ "is_served": standing == Standing::Served, "restorations": restorations }));
    }
    if restorations.is_empty() {
        return session.output.text("This store was never restored.");
    }
    for restoration in &restorations {
        match &restoration.confirmed {
            Some(confirmed) => session.output.text(&printable(&format!(
                "Restored at {} from {}, and confirmed at {}: {}",
                restoration.at,
                restoration.origin.file,
                confirmed.at,
                confirmed.why.as_deref().unwrap_or("no word why")
            )))?,
            None => session.output.text(&format!("NOT CONFIRMED. {}", told(restoration, of_then)))?,
        }
    }
    Ok(())
}

async fn confirm(session: &Session, why: String, keep_tokens: bool) -> Result<(), Failure> {
    if why.trim().is_empty() {
        return Err("--why needs a sentence: it is what anybody will have to go by later".into());
    }
    let tokens = if keep_tokens { TokensOfBefore::Live } else { TokensOfBefore::End };
    let Standing::Unconfirmed(waiting) = session.store().standing().await? else {
        return Err("there is nothing to confirm: this store may be served as it is".into());
    };
    let version = session.store().confirm(tokens, session.explain(Some(why))).await?;
    let Some(version) = version else { return Err("somebody else has confirmed it".into()) };
    for restoration in &waiting {
        session.output.note(&format!(
            "Confirmed: what was revoked between {} and {} is revoked here.",
            restoration.origin.at, restoration.at
        ))?;
    }
    let sentence = match tokens {
        TokensOfBefore::End => "Servers may serve this store. Every token of before the restore is dead.",
        TokensOfBefore::Live => {
            "Servers may serve this store. Tokens of before the restore live on, but for those that are revoked here."
        }
    };
    session
        .output
        .done(sentence, &json!({ "version": version, "tokens_of_before": tokens, "confirmed": waiting.len() }))
}
