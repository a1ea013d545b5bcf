//! Restoring: a new epoch on what a backup has, which nobody serves before it is confirmed.
//!
//! Takes a backup that was read to its end and an empty store; gives a store in which no registry version, no lease and no
//! epoch can be one that the lost store has given out, and in which every token of before is dead. `docs/backup.md` says
//! why each of that is so.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use countersign_resource_server::time::UnixTime;
use serde::{Deserialize, Serialize};
use tokio::sync::mpsc;

use super::BackupFailure;
use super::format::RegistryAt;
use super::reading::{Inspected, Lines};
use super::store::{BackupStore, Part};
use super::writing::sign;
use crate::audit::believed::BelievedKeys;
use crate::audit::chain::ChainId;
use crate::audit::checkpoint::{Checkpoint, statement_hash};
use crate::audit::restored::{Lost, LostChain, RESTORED_TYPE, RestoredLog};
use crate::audit::verify::{self, AuditReading};
use crate::mint::SigningKeys;
use crate::registry::StoreUnavailable;
use crate::registry::history::{Actor, Explanation};

/// Versions of a restored registry begin with the second it was restored in, times this: the store that was lost would have
/// had to make a million changes in each second since it began to come this far.
const VERSIONS_EACH_SECOND: i64 = 1 << 20;

/// The first second that a version cannot begin with: they stay exact wherever JSON numbers are floating point (RFC 8259
/// §6), until the year 2242.
const SECONDS_END: i64 = 1 << 33;

/// How much of a backup is read ahead of the store.
const PARTS_AHEAD: usize = 4;

/// What a store was restored from, and how it stands.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Restoration {
    /// The epoch it began.
    pub epoch: i64,
    /// The first registry version of that epoch.
    pub first_version: i64,
    /// When.
    pub at: UnixTime,
    /// By whom.
    pub actor: Actor,
    /// From what.
    pub origin: Origin,
    /// What could not be proven of it and was accepted.
    pub unproven: Vec<String>,
    /// What is known of the log that was lost.
    pub lost: Option<Lost>,
    /// Who has let it be served; none while it waits for that.
    pub confirmed: Option<Confirmed>,
    /// When a node first took a lease of it, by that node's clock.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub served_from: Option<UnixTime>,
}

/// A backup, as it is remembered.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Origin {
    /// The file's name.
    pub file: String,
    /// The hash of its lines.
    pub sha256: String,
    /// When it was made.
    pub at: UnixTime,
    /// Where.
    pub node: String,
    /// How far the registry was.
    pub registry: RegistryAt,
}

/// How a restoration was confirmed.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Confirmed {
    /// When.
    pub at: UnixTime,
    /// By whom.
    pub actor: Actor,
    /// In whose words.
    pub why: Option<String>,
    /// What becomes of tokens of before.
    pub tokens: TokensOfBefore,
}

/// What becomes of the tokens that were issued before a restore.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum TokensOfBefore {
    /// They are dead.
    End,
    /// They live on, but for those that a mark names.
    Live,
}

/// Whether what is in a store may be served.
#[derive(Clone, Debug, PartialEq)]
pub enum Standing {
    /// It is half filled.
    Loading,
    /// It may.
    Served,
    /// Not before these are confirmed.
    Unconfirmed(Vec<Restoration>),
}

impl Standing {
    /// Why a store that is half filled is not opened.
    pub const HALF_FILLED: &str =
        "a restore into this store was begun and did not come to its end: run `countersign restore --from FILE` again";

    /// Why a store that was restored is not served.
    pub const NOT_CONFIRMED: &str = "this store was restored from a backup, and nobody has confirmed what was revoked since that was made: \
        look at `countersign restore status`, revoke again what is missing, and run `countersign restore confirm --why \"…\"`";
}

/// What to do where nobody can say that a backup is what was written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unproven {
    /// Restore it, and put that on record.
    DangerAccept,
    /// Restore nothing.
    Refuse,
}

/// Who restores, when, and with what at hand.
#[derive(Debug)]
pub struct Restoring<'a> {
    /// Who, when and why.
    pub explanation: Explanation,
    /// Whose registry it is to be.
    pub issuer: &'a str,
    /// The keys that sign here.
    pub signing: &'a SigningKeys,
    /// The keys that are believed.
    pub keys: &'a BelievedKeys,
    /// The newest checkpoint that was kept outside of the lost store.
    pub kept: Option<String>,
    /// What to do with doubts.
    pub unproven: Unproven,
}

/// Fills the store with a backup. All or nothing: a store that was half filled is known as that.
///
/// # Errors
/// [`BackupFailure`].
pub async fn restore(
    store: &Arc<dyn BackupStore>,
    log: &Arc<dyn AuditReading>,
    backup: &Inspected,
    by: Restoring<'_>,
    progress: &Arc<AtomicU64>,
) -> Result<Restoration, BackupFailure> {
    let mut restoration = planned(store.schema(), backup, &by)?;
    store.begin_to_load(&restoration).await?;
    fill(store, backup, &restoration, progress).await?;

    let kept = by.kept.as_deref().map(str::trim);
    let kept = kept.and_then(|statement| Some((Checkpoint::read(statement).ok()?, statement)));
    // What is later than the backup was lost; what is not has to be in it, as it was kept.
    let (later, copies) = match kept {
        Some((checkpoint, statement)) if is_later(&checkpoint, backup) => (Some((checkpoint, statement)), Vec::new()),
        Some((_, statement)) => (None, vec![statement.to_owned()]),
        None => (None, Vec::new()),
    };
    let report = verify::verify(log, by.keys, &copies, &Arc::default()).await?;
    if let Some(first) = report.findings.first() {
        let what = format!(
            "{} {}: {} ({} findings in all)",
            first.kind.as_str(),
            first.place(),
            first.explanation,
            report.findings.len()
        );
        if by.unproven == Unproven::Refuse {
            store.clear().await?;
            return Err(BackupFailure::Refused(what));
        }
        restoration.unproven.push(format!("the audit log does not verify: {what}"));
    }
    restoration.lost = match later {
        Some((checkpoint, statement)) if Checkpoint::verify(statement, by.keys.keys()).is_ok() => {
            Some(lost(log, &checkpoint, statement).await?)
        }
        Some(_) | None => None,
    };
    let restored = RestoredLog {
        iss: by.issuer.to_owned(),
        log: backup.header.log.clone(),
        at: restoration.at,
        by: named(&restoration.actor),
        epoch: restoration.epoch,
        version: restoration.first_version,
        checkpoint: backup.header.checkpoint.map(|(number, _)| number),
        lost: restoration.lost.clone(),
        withdrawal: None,
    };
    let statement = sign(by.signing, RESTORED_TYPE, &restored, restoration.at);
    store.finish(&restoration, statement, by.explanation).await?;
    Ok(restoration)
}

impl Inspected {
    /// What cannot be proven of it.
    ///
    /// # Errors
    /// [`BackupFailure::Unproven`], where nothing of that kind is accepted.
    pub fn doubts(&self, unproven: Unproven) -> Result<Vec<String>, BackupFailure> {
        match (&self.doubt, unproven) {
            (None, _) => Ok(Vec::new()),
            (Some(doubt), Unproven::DangerAccept) => Ok(vec![doubt.clone()]),
            (Some(doubt), Unproven::Refuse) => Err(BackupFailure::Unproven(doubt.clone())),
        }
    }
}

/// What is to be begun, if that can come after all there was.
fn planned(schema: i64, backup: &Inspected, by: &Restoring<'_>) -> Result<Restoration, BackupFailure> {
    let header = &backup.header;
    if header.schema != schema {
        return Err(BackupFailure::Schema { found: header.schema, known: schema });
    }
    if header.issuer != by.issuer {
        return Err(BackupFailure::Refused(format!(
            "it is of issuer {}, and the configuration says {}",
            header.issuer, by.issuer
        )));
    }
    let mut unproven = backup.doubts(by.unproven)?;
    unproven.extend(backup.warning.clone());
    if let Some(doubt) = by.kept.as_deref().and_then(|kept| cannot_be_held_against_it(kept, by.keys)) {
        match by.unproven {
            Unproven::Refuse => return Err(BackupFailure::Unproven(doubt)),
            Unproven::DangerAccept => unproven.push(doubt),
        }
    }
    let at = by.explanation.at;
    if at < header.at {
        return Err(BackupFailure::Clock(format!("it is {at} here, and the backup was made at {}", header.at)));
    }
    let kept = by.kept.as_deref().and_then(|kept| Checkpoint::read(kept.trim()).ok());
    if let Some(kept) = kept.filter(|kept| at < kept.at) {
        return Err(BackupFailure::Clock(format!("it is {at} here, and the last checkpoint kept is of {}", kept.at)));
    }
    let seconds = at.as_seconds();
    if !(1..SECONDS_END).contains(&seconds) {
        return Err(BackupFailure::Clock(format!("it is {at} here")));
    }
    let RegistryAt { epoch, version, .. } = header.registry;
    let after = |number: i64| number.checked_add(1).ok_or_else(|| out_of_range(number));
    // Nobody knows how far the lost store has come, nor whether this very backup was restored before. Only time has gone
    // on for sure.
    let epoch = seconds.max(after(epoch)?);
    let next = after(version.div_euclid(VERSIONS_EACH_SECOND))?;
    let next = next.checked_mul(VERSIONS_EACH_SECOND).ok_or_else(|| out_of_range(version))?;
    let first_version = next.max(seconds * VERSIONS_EACH_SECOND);
    Ok(Restoration {
        epoch,
        first_version,
        at,
        actor: by.explanation.actor.clone(),
        origin: Origin {
            file: file_name(&backup.path),
            sha256: backup.sha256.clone(),
            at: header.at,
            node: header.node.clone(),
            registry: header.registry,
        },
        unproven,
        lost: None,
        confirmed: None,
        served_from: None,
    })
}

fn out_of_range(number: i64) -> BackupFailure {
    BackupFailure::Refused(format!("{number} is no epoch or version that anything can follow"))
}

fn file_name(path: &Path) -> String {
    path.file_name().unwrap_or_default().to_string_lossy().into_owned()
}

fn named(actor: &Actor) -> String {
    match actor {
        Actor::Operator { system_user, stated_name: Some(name) } => format!("{name} ({system_user})"),
        Actor::Operator { system_user, stated_name: None } => system_user.clone(),
        Actor::Server { node } => format!("server {node}"),
    }
}

/// Reads the file once more, into the store.
async fn fill(
    store: &Arc<dyn BackupStore>,
    backup: &Inspected,
    restoration: &Restoration,
    progress: &Arc<AtomicU64>,
) -> Result<(), BackupFailure> {
    let (parts, mut read) = mpsc::channel(PARTS_AHEAD);
    let again = backup.clone();
    let reading = tokio::task::spawn_blocking(move || read_again(&again, &parts));
    let mut loading = store.load().await?;
    while let Some(part) = read.recv().await {
        if let Part::Rows(rows) = &part {
            progress.fetch_add(u64::try_from(rows.len()).unwrap_or(0), Ordering::Relaxed);
        }
        loading.take(part).await?;
    }
    reading.await.map_err(StoreUnavailable::because)??;
    loading.commit(restoration).await
}

fn read_again(backup: &Inspected, parts: &mpsc::Sender<Part>) -> Result<(), BackupFailure> {
    let mut lines = Lines::open(&backup.path)?;
    let header = lines.header()?;
    while let Some(part) = lines.next()? {
        if parts.blocking_send(part).is_err() {
            // The store has refused one, and says why.
            return Ok(());
        }
    }
    if header != backup.header || lines.sha256() != Some(&backup.sha256) {
        return Err(BackupFailure::Refused("the file was changed while it was read".to_owned()));
    }
    Ok(())
}

/// Why what was kept of the lost log says nothing for or against a backup, if that is so.
fn cannot_be_held_against_it(kept: &str, keys: &BelievedKeys) -> Option<String> {
    let why = match Checkpoint::verify(kept.trim(), keys.keys()) {
        Ok(kept_at) => {
            let key = keys.withdrawal(kept.trim()).filter(|key| key.is_before(kept_at.at))?;
            format!("it is signed with key {}, which had been withdrawn at {}", key.kid, key.at)
        }
        Err(error) => error.to_string(),
    };
    Some(format!("the checkpoint kept of the lost log (audit-checkpoint.jwt) cannot be held against it, {why}"))
}

/// Whether a checkpoint is of the backup's log, and from after the backup.
fn is_later(kept: &Checkpoint, backup: &Inspected) -> bool {
    let newest = backup.header.checkpoint.map_or(0, |(number, _)| number);
    kept.log.to_string() == backup.header.log && kept.number > newest
}

/// The records that a checkpoint knows and the restored store has not.
async fn lost(log: &Arc<dyn AuditReading>, kept: &Checkpoint, statement: &str) -> Result<Lost, StoreUnavailable> {
    let outline = log.outline().await?;
    let mut chains = Vec::new();
    for head in &kept.heads {
        let has = match log.last(head.chain()).await? {
            Some(last) => last.sequence(),
            None => outline
                .cuts
                .iter()
                .find(|cut| ChainId::new(cut.0) == Some(head.chain()))
                .map_or(0, |(_, sequence, _)| *sequence),
        };
        if head.position.sequence() > has {
            let (chain, first, last) = (head.chain().number(), has + 1, head.position.sequence());
            chains.push(LostChain { chain, first, last });
        }
    }
    let hash = statement_hash(statement).to_string();
    Ok(Lost { checkpoint: kept.number, at: kept.at, hash, chains })
}
