//! `countersign key`: which keys sign, rotation and withdrawal.
//!
//! Takes the keys of the configuration, in the store or in a directory, and a command, gives a table for people or JSON for
//! machines. A running server notices within a second. What was changed is in the registry's history too; those in a
//! directory can be listed and withdrawn without a registry. It knows nothing of what the keys sign.

use std::path::PathBuf;
use std::sync::Arc;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use clap::{Args, Subcommand, ValueEnum};
use countersign_resource_server::time::UnixTime;
use countersign_resource_server::token::jws::SigningAlgorithm;
use serde::Serialize;

/// The keys in the store, and by what they are encrypted.
mod encryption;

use super::output::{Output, json, table};
use super::receipt::{self, Ended};
use super::session::{Failure, Session};
use crate::app::{self, AppError};
use crate::audit::receipt::{Concerned, EarlierMarks};
use crate::config::Config;
use crate::mint::key_directory::KeyDirectory;
use crate::mint::key_ring::{
    self, KeyRecord, KeyRingError, KeyStage, KeyStore, Retirement, Rotation, SetAside, SigningKeys, When,
};
use crate::mint::{ALGORITHMS, KeyRing};
use crate::registry::RegistryVersion;
use crate::registry::edit::RecordKind;
use crate::registry::token::SigningKeyChange;
use crate::store::{self, Migrate, Store};

/// Signing keys: list, rotate, retire.
#[derive(Args, Debug)]
pub(super) struct KeyArgs {
    #[command(subcommand)]
    command: KeyCommand,
}

#[derive(Debug, Subcommand)]
enum KeyCommand {
    /// Shows every key, what it does now and since when
    List,
    /// Lets the next key of each algorithm take over once it has been published for ten minutes, and publishes another
    Rotate {
        /// Only this algorithm
        #[arg(long)]
        alg: Option<Algorithm>,
        /// At once, or not at all where the next key has not been published for ten minutes
        #[arg(long)]
        now: bool,
        /// Why, for the history
        #[arg(long)]
        why: Option<String>,
    },
    /// Withdraws a key: it signs no more, and the tokens it signed are dead
    Retire {
        /// Which (`countersign key list` shows them)
        #[arg(allow_hyphen_values = true)]
        kid: String,
        /// At once, which is the only way there is: it has to be said
        #[arg(long, required = true)]
        now: bool,
        /// Why, for the history
        #[arg(long)]
        why: Option<String>,
    },
    /// Makes a key-encryption key, by which nodes share the signing keys in the store
    MakeEncryptionKey {
        /// Where to: for its owner alone. Never one that is there
        file: PathBuf,
        /// After the key that is in that file, to change it: `key change-encryption-key` goes over to the last one
        #[arg(long)]
        append: bool,
    },
    /// Takes the signing keys of the directory into the store, encrypted, as they are: no token is refused for it
    MoveToStore {
        /// Why, for the history
        #[arg(long)]
        why: Option<String>,
    },
    /// Encrypts the signing keys in the store by the last of the configured key-encryption keys
    ChangeEncryptionKey {
        /// Why, for the history
        #[arg(long)]
        why: Option<String>,
    },
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum Algorithm {
    #[value(name = "ES256")]
    Es256,
    #[value(name = "EdDSA")]
    EdDsa,
    #[value(name = "PS256")]
    Ps256,
}

impl From<Algorithm> for SigningAlgorithm {
    fn from(algorithm: Algorithm) -> Self {
        match algorithm {
            Algorithm::Es256 => Self::ES256,
            Algorithm::EdDsa => Self::EdDSA,
            Algorithm::Ps256 => Self::PS256,
        }
    }
}

/// Runs the command.
///
/// # Errors
/// The keys cannot be read or written, what the ring refuses, or what could not be put on record, as a sentence.
pub(super) async fn run(
    args: KeyArgs,
    config: Config,
    operator: Option<String>,
    now: UnixTime,
    output: Output,
) -> Result<(), Failure> {
    match args.command {
        KeyCommand::List => {
            let Opened { keys, store } = Opened::of(&config, output).await?;
            let listed = list(&*keys, now, output).await;
            close(store).await;
            output.text(&listed?)
        }
        KeyCommand::Rotate { alg, now: at_once, why } => {
            // There is no hurry: without a registry to put it on record, nothing is changed.
            let session = Session::open(config, operator, output).await?;
            let algorithms = alg.map_or_else(|| ALGORITHMS.to_vec(), |algorithm| vec![algorithm.into()]);
            let when = if at_once { When::Now } else { When::OncePublished };
            let rotated = rotate(&session, &algorithms, when, now, why).await;
            session.close().await;
            rotated
        }
        KeyCommand::Retire { kid, why, .. } => {
            // First of all, and whatever becomes of the rest: a key in other hands must not sign.
            let Opened { keys, store } = match Opened::of(&config, output).await {
                // The mark needs none.
                Err(lost) if matches!(lost.downcast_ref(), Some(AppError::NoEncryptionKey(_))) => {
                    return Err(mark_only(kid, &lost, true, config, operator, why, output).await);
                }
                opened => opened?,
            };
            let is_shared = keys.is_shared();
            let retired = key_ring::retire(&*keys, &kid, now).await;
            close(store).await;
            let (retirement, again) = match retired {
                Ok(retirement) => (retirement, None),
                Err(KeyRingError::AlreadyRetired { kid, at }) => (Retirement { kid, successor: None }, Some(at)),
                Err(error @ KeyRingError::Unknown { .. }) => return Err(error.into()),
                Err(unread) => {
                    return Err(mark_only(kid, &unread, is_shared, config, operator, why, output).await);
                }
            };
            match mark(&retirement, again, config, operator, why, output).await {
                Ok((session, earlier, version)) => {
                    let sentence = self::retired(&retirement, version);
                    let concerned = Concerned::SigningKey(kid);
                    let record = Retired { retirement: &retirement, registry_version: version };
                    let ended = Ended { concerned, earlier, version, sentence: &sentence };
                    let told = receipt::done(&session, ended, &record).await;
                    session.close().await;
                    told
                }
                Err(error) if again.is_some() => Err(error),
                Err(error) => Err(format!(
                    "{kid} is withdrawn from /jwks and signs no more, but resource servers may take its tokens for another minute: \
                     the mark that ends them could not be made. Give the command again. {error}"
                )
                .into()),
            }
        }
        KeyCommand::MakeEncryptionKey { file, append } => encryption::make(&file, append, output),
        KeyCommand::MoveToStore { why } => {
            let session = Session::open(config, operator, output).await?;
            let moved = encryption::move_to_store(&session, why).await;
            session.close().await;
            moved
        }
        KeyCommand::ChangeEncryptionKey { why } => {
            let session = Session::open(config, operator, output).await?;
            let changed = encryption::change(&session, why).await;
            session.close().await;
            changed
        }
    }
}

/// The keys of a configuration, and the store if it can be asked.
struct Opened {
    keys: Arc<dyn KeyStore>,
    store: Option<Store>,
}

impl Opened {
    /// Looks into the store first, whatever is configured here: keys that were moved out of a directory may still be in it, and nobody
    /// signs with those.
    async fn of(config: &Config, output: Output) -> Result<Self, Failure> {
        let opened = store::open_with(config.store.as_str(), Migrate::Check, config.standby()).await;
        let (store, why) = match opened {
            Ok(store) => match app::key_store(config, &store).await {
                Ok(keys) => return Ok(Self { keys, store: Some(store) }),
                Err(AppError::Store(error)) => (Some(store), error.to_string()),
                Err(error) => {
                    store.close().await;
                    return Err(error.into());
                }
            },
            Err(error) => (None, error.to_string()),
        };
        close(store).await;
        if config.key_encryption_key.is_some() {
            return Err(why.into());
        }
        // Those in a directory can be looked at, and withdrawn, without a registry.
        let directory = &config.keys_directory;
        let keys = KeyDirectory::open(directory)?;
        output.note(&format!(
            "The store cannot be asked ({why}), so this is about the keys in {}. If the store has signing keys, nobody signs with these: \
             configure key_encryption_key.",
            directory.display()
        ))?;
        Ok(Self { keys: Arc::new(keys), store: None })
    }
}

async fn close(store: Option<Store>) {
    if let Some(store) = store {
        store.close().await;
    }
}

async fn rotate(
    session: &Session,
    algorithms: &[SigningAlgorithm],
    when: When,
    now: UnixTime,
    why: Option<String>,
) -> Result<(), Failure> {
    let keys = app::key_store(&session.config, session.store()).await?;
    key_ring::complete(&*keys, now).await?;
    let rotations = key_ring::rotate(&*keys, algorithms, when, now).await?;
    let recorded = session.registry.change_signing_keys(changes(&rotations), session.explain(why)).await;
    session.output.text(&rotated(&rotations, now, session.output)?)?;
    recorded.map(drop).map_err(|error| format!("the keys are rotated, but that is not on record: {error}").into())
}

/// Ends what the key has signed, on record. A key that was withdrawn before may lack that.
async fn mark(
    retirement: &Retirement,
    again: Option<UnixTime>,
    config: Config,
    operator: Option<String>,
    why: Option<String>,
    output: Output,
) -> Result<(Session, EarlierMarks, RegistryVersion), Failure> {
    let session = Session::open(config, operator, output).await?;
    let (kid, successor) = (retirement.kid.clone(), retirement.successor.clone());
    let marked = async {
        if let Some(at) = again {
            let subject = RecordKind::SigningKey.subject(&kid);
            let history = session.registry.history(RegistryVersion(0), Some(subject), HISTORY).await?;
            if history.iter().any(|entry| entry.action == "signing_key.withdraw") {
                return Err(KeyRingError::AlreadyRetired { kid, at }.into());
            }
        }
        let change = SigningKeyChange::Withdrawn { kid, successor };
        Ok::<_, Failure>(session.registry.change_signing_keys(vec![change], session.explain(why)).await?)
    };
    let earlier = receipt::before(&session).await;
    match marked.await {
        Ok(version) => Ok((session, earlier, version)),
        Err(error) => {
            session.close().await;
            Err(error)
        }
    }
}

/// The mark and the history's word for it, of a key that cannot be withdrawn where it is: gives what holds of that, and what does not.
async fn mark_only(
    kid: String,
    unread: &impl std::fmt::Display,
    is_shared: bool,
    config: Config,
    operator: Option<String>,
    why: Option<String>,
    output: Output,
) -> Failure {
    if !is_thumbprint(&kid) {
        return format!("{unread}; and {kid} is not the id of a signing key: nothing was changed").into();
    }
    let retirement = Retirement { kid, successor: None };
    let marked = mark(&retirement, None, config, operator, why, output).await;
    let kid = &retirement.kid;
    match marked {
        Ok((session, _, version)) => {
            session.close().await;
            let holds = if is_shared {
                "By the history every node that reads the signing keys withdraws it, within a second, and one that cannot read them issues no token; \
                 but no key takes its place, and until one does nothing is signed by its algorithm"
            } else {
                "But it is not withdrawn: it may sign others, and is in /jwks"
            };
            format!(
                "the signing keys cannot be changed: {unread}. The mark is made, registry version {version}: whatever {kid} has signed \
                 until now is dead, if there is such a key. {holds}. Give the command again once the keys can be read."
            )
            .into()
        }
        Err(error) => {
            format!("nothing was changed: neither the signing keys ({unread}) nor the registry ({error})").into()
        }
    }
}

/// Whether it is one of RFC 7638 §3 by SHA-256, as every key's id is.
fn is_thumbprint(kid: &str) -> bool {
    URL_SAFE_NO_PAD.decode(kid).is_ok_and(|octets| octets.len() == 32)
}

/// A key takes over, is moved and is withdrawn once; with each change of the key-encryption key there is one more.
const HISTORY: u32 = 100;

fn changes(rotations: &[Rotation]) -> Vec<SigningKeyChange> {
    let change = |Rotation { alg, kid, signs_from, next }: &Rotation| SigningKeyChange::Rotated {
        kid: kid.clone(),
        alg: alg.as_str(),
        signs_from: *signs_from,
        next: next.clone(),
    };
    rotations.iter().map(change).collect()
}

fn rotated(rotations: &[Rotation], now: UnixTime, output: Output) -> Result<String, Failure> {
    Ok(match output {
        Output::Json => json(&rotations)?,
        Output::People => {
            let lines: Vec<String> = rotations
                .iter()
                .map(|Rotation { alg, kid, signs_from, next }| {
                    let begins = if *signs_from <= now { "now".to_owned() } else { format!("from {signs_from}") };
                    format!("{}: {kid} signs {begins}; next after it is {next}", alg.as_str())
                })
                .collect();
            lines.join("\n")
        }
    })
}

/// A key that was withdrawn, for machines.
#[derive(Serialize)]
struct Retired<'a> {
    #[serde(flatten)]
    retirement: &'a Retirement,
    registry_version: RegistryVersion,
}

fn retired(retirement: &Retirement, version: RegistryVersion) -> String {
    let kid = &retirement.kid;
    match &retirement.successor {
        Some(successor) => format!(
            "{kid} is withdrawn and its tokens are dead, registry version {version}; {successor} signs in its place"
        ),
        None => format!("{kid} is withdrawn and its tokens are dead, registry version {version}"),
    }
}

#[derive(Serialize)]
struct Listed<'a> {
    #[serde(flatten)]
    record: &'a KeyRecord,
    stage: KeyStage,
}

async fn list(store: &dyn KeyStore, now: UnixTime, output: Output) -> Result<String, Failure> {
    let keys = KeyRing::read(store).await?;
    let listed: Vec<Listed<'_>> =
        keys.all().iter().map(|key| Listed { record: &key.record, stage: keys.stage(&key.record, now) }).collect();
    Ok(match output {
        Output::Json => {
            let aside: Vec<_> = keys.set_aside().iter().map(|aside| (&aside.name, &aside.why)).collect();
            json(&serde_json::json!({ "keys": listed, "set_aside": aside }))?
        }
        Output::People => people(&listed, &keys),
    })
}

fn people(listed: &[Listed<'_>], keys: &SigningKeys) -> String {
    let row = |Listed { record, stage }: &Listed<'_>| {
        let stage = match stage {
            KeyStage::Next => "next",
            KeyStage::Signing => "signing",
            KeyStage::Outgoing => "outgoing",
            KeyStage::Ended => "ended",
            KeyStage::Retired => "retired",
        };
        let from = record.signs_from.map_or_else(|| "-".to_owned(), |from| from.to_string());
        vec![
            record.alg.as_str().to_owned(),
            stage.to_owned(),
            record.kid.to_string(),
            record.created_at.to_string(),
            from,
        ]
    };
    let columns = ["alg", "stage", "kid", "published since", "signs from"];
    let mut text = table(&columns, listed.iter().map(row).collect());
    for SetAside { name, why, .. } in keys.set_aside() {
        text.push_str(&format!("\nset aside: {name}: {why}"));
    }
    text
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Parser)]
    struct Cli {
        #[command(flatten)]
        key: KeyArgs,
    }

    const NOW: UnixTime = UnixTime::from_seconds(1_800_000_000);

    #[tokio::test]
    async fn a_rotation_is_scheduled_and_listed() {
        let directory = tempfile::tempdir().unwrap();
        let store = KeyDirectory::open(&directory.path().join("keys")).unwrap();
        key_ring::complete(&store, NOW).await.unwrap();
        let rotations = key_ring::rotate(&store, &[SigningAlgorithm::ES256], When::OncePublished, NOW).await.unwrap();
        let said = rotated(&rotations, NOW, Output::People).unwrap();
        assert!(said.starts_with("ES256: ") && said.contains("signs from 2027-01-15T08:10:00.000Z"), "{said}");
        let listed = list(&store, NOW, Output::People).await.unwrap();
        assert_eq!(listed.lines().count(), 1 + 7, "{listed}");
        let listed: serde_json::Value = serde_json::from_str(&list(&store, NOW, Output::Json).await.unwrap()).unwrap();
        let stages: Vec<_> =
            listed["keys"].as_array().unwrap().iter().map(|key| key["stage"].as_str().unwrap()).collect();
        assert_eq!(stages.iter().filter(|stage| **stage == "signing").count(), 3);
    }

    #[tokio::test]
    async fn retire_wants_now_to_be_said_and_a_key_that_is_there() {
        let directory = tempfile::tempdir().unwrap();
        assert!(Cli::try_parse_from(["key", "retire", "kid"]).is_err());
        let cli = Cli::try_parse_from(["key", "retire", "kid", "--now"]).unwrap();
        let config = Config::embedded(directory.path());
        let refused = run(cli.key, config, None, NOW, Output::People).await.unwrap_err();
        assert_eq!(refused.downcast_ref(), Some(&KeyRingError::Unknown { kid: "kid".to_owned() }));
    }

    #[tokio::test]
    async fn without_a_registry_nothing_is_rotated_and_a_key_is_withdrawn_all_the_same() {
        let directory = tempfile::tempdir().unwrap();
        let config = Config::embedded(directory.path());
        let store = KeyDirectory::open(&config.keys_directory).unwrap();
        key_ring::complete(&store, NOW).await.unwrap();
        let signing = async |store: &KeyDirectory| {
            let keys = KeyRing::read(store).await.unwrap();
            // A millisecond on: a successor takes over after the one that is withdrawn.
            keys.signing(SigningAlgorithm::ES256, UnixTime::from_millis(NOW.as_millis() + 1)).unwrap().kid().to_string()
        };
        let before = signing(&store).await;
        let words = |words: &[&str]| Cli::try_parse_from([&["key"], words].concat()).unwrap().key;
        let rotate = words(&["rotate", "--alg", "ES256"]);
        run(rotate, config.clone(), None, NOW, Output::People).await.unwrap_err();
        assert_eq!(list(&store, NOW, Output::People).await.unwrap().lines().count(), 1 + 6, "as it was");
        let retire = words(&["retire", "--now", &before]);
        let told = run(retire, config, None, NOW, Output::People).await.unwrap_err().to_string();
        assert!(told.contains("is withdrawn") && told.contains("Give the command again"), "{told}");
        assert_ne!(signing(&store).await, before);
    }
}
