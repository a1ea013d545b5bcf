//! `countersign key`: which keys sign, rotation and withdrawal.
//!
//! Takes the keys directory of the configuration and one of three commands, gives a table for people or JSON for
//! machines. A running server notices within half a second. It knows nothing of what the keys sign.

use std::path::Path;

use clap::{Args, Subcommand, ValueEnum};
use countersign_resource_server::time::UnixTime;
use countersign_resource_server::token::jws::SigningAlgorithm;
use serde::Serialize;

use super::output::{Output, json, table};
use super::session::Failure;
use crate::mint::key_directory::KeyDirectory;
use crate::mint::key_ring::{self, KeyRecord, KeyStage, KeyStore, SetAside, SigningKeys, When};
use crate::mint::{ALGORITHMS, KeyRing};

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
    },
    /// Withdraws a key: tokens it signed are refused as soon as their readers have fetched the keys again
    Retire {
        /// Which (`countersign key list` shows them)
        kid: String,
        /// At once, which is the only way there is: it has to be said
        #[arg(long, required = true)]
        now: bool,
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
/// The keys cannot be read or written, or what the ring refuses, as a sentence.
pub(super) fn run(args: &KeyArgs, directory: &Path, now: UnixTime, output: Output) -> Result<(), Failure> {
    output.text(&answer(args, directory, now, output)?)
}

/// Does what `args` say with the keys in `directory`; gives what is to be printed.
fn answer(args: &KeyArgs, directory: &Path, now: UnixTime, output: Output) -> Result<String, Failure> {
    let store = KeyDirectory::open(directory)?;
    match &args.command {
        KeyCommand::List => list(&store, now, output),
        KeyCommand::Rotate { alg, now: at_once } => {
            let algorithms = alg.map_or_else(|| ALGORITHMS.to_vec(), |algorithm| vec![algorithm.into()]);
            let when = if *at_once { When::Now } else { When::OncePublished };
            key_ring::complete(&store, now)?;
            let rotations = key_ring::rotate(&store, &algorithms, when, now)?;
            Ok(match output {
                Output::Json => json(&rotations)?,
                Output::People => {
                    let lines: Vec<String> = rotations
                        .iter()
                        .map(|key_ring::Rotation { alg, kid, signs_from, next }| {
                            let begins =
                                if *signs_from <= now { "now".to_owned() } else { format!("from {signs_from}") };
                            format!("{}: {kid} signs {begins}; next after it is {next}", alg.as_str())
                        })
                        .collect();
                    lines.join("\n")
                }
            })
        }
        KeyCommand::Retire { kid, .. } => {
            let retirement = key_ring::retire(&store, kid, now)?;
            Ok(match output {
                Output::Json => json(&retirement)?,
                Output::People => match &retirement.successor {
                    Some(successor) => format!("{kid} is withdrawn; {successor} signs in its place"),
                    None => format!("{kid} is withdrawn; it did not sign"),
                },
            })
        }
    }
}

#[derive(Serialize)]
struct Listed<'a> {
    #[serde(flatten)]
    record: &'a KeyRecord,
    stage: KeyStage,
}

fn list(store: &dyn KeyStore, now: UnixTime, output: Output) -> Result<String, Failure> {
    let keys = KeyRing::read(store)?;
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
    use crate::mint::key_ring::KeyRingError;

    #[derive(Parser)]
    struct Cli {
        #[command(flatten)]
        key: KeyArgs,
    }

    const NOW: UnixTime = UnixTime::from_seconds(1_800_000_000);

    fn key(directory: &Path, words: &[&str], now: UnixTime, output: Output) -> Result<String, Failure> {
        let cli = Cli::try_parse_from([&["key"], words].concat()).unwrap();
        answer(&cli.key, directory, now, output)
    }

    #[test]
    fn a_rotation_is_scheduled_and_listed() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("keys");
        key_ring::complete(&KeyDirectory::open(&path).unwrap(), NOW).unwrap();
        let said = key(&path, &["rotate", "--alg", "ES256"], NOW, Output::People).unwrap();
        assert!(said.starts_with("ES256: ") && said.contains("signs from 2027-01-15T08:10:00.000Z"), "{said}");
        let listed = key(&path, &["list"], NOW, Output::People).unwrap();
        assert_eq!(listed.lines().count(), 1 + 7, "{listed}");
        let listed: serde_json::Value =
            serde_json::from_str(&key(&path, &["list"], NOW, Output::Json).unwrap()).unwrap();
        let stages: Vec<_> =
            listed["keys"].as_array().unwrap().iter().map(|key| key["stage"].as_str().unwrap()).collect();
        assert_eq!(stages.iter().filter(|stage| **stage == "signing").count(), 3);
    }

    #[test]
    fn retire_wants_now_to_be_said_and_a_key_that_is_there() {
        let directory = tempfile::tempdir().unwrap();
        assert!(Cli::try_parse_from(["key", "retire", "kid"]).is_err());
        let refused =
            key(&directory.path().join("keys"), &["retire", "kid", "--now"], NOW, Output::People).unwrap_err();
        assert_eq!(refused.downcast_ref(), Some(&KeyRingError::Unknown { kid: "kid".to_owned() }));
    }
}
