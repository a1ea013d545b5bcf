//! `countersign key`: which keys sign, rotation and withdrawal. A running server notices within half a second.

use clap::{Subcommand, ValueEnum};
use countersign_resource_server::time::{Clock, SystemClock, UnixTime};
use countersign_resource_server::token::jws::SigningAlgorithm;
use serde::Serialize;

use super::output::Output;
use super::session::Failure;
use crate::config::Config;
use crate::mint::key_directory::KeyDirectory;
use crate::mint::key_ring::{self, KeyRecord, KeyStage, KeyStore, SetAside, SigningKeys, When};
use crate::mint::{ALGORITHMS, KeyRing};

/// Keys that sign tokens.
#[derive(Debug, Subcommand)]
pub enum KeyCommand {
    /// Show every key, what it does now and since when
    List,
    /// Let the next key of each algorithm take over once it has been published for ten minutes, and publish another
    Rotate {
        /// Only this algorithm
        #[arg(long)]
        alg: Option<Algorithm>,
        /// At once, or not at all where the next key has not been published for ten minutes
        #[arg(long)]
        now: bool,
    },
    /// Withdraw a key: it leaves /jwks and never signs again, and tokens it signed die with it
    Retire {
        /// Which: `countersign key list` shows them
        kid: String,
        /// At once. There is no other way, and it has to be said
        #[arg(long, required = true)]
        now: bool,
    },
}

/// An algorithm that has keys here.
#[derive(Clone, Copy, Debug, ValueEnum)]
pub enum Algorithm {
    /// ECDSA on P-256
    #[value(name = "ES256")]
    Es256,
    /// Ed25519
    #[value(name = "EdDSA")]
    EdDsa,
    /// RSASSA-PSS
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
/// The keys cannot be read or written, or what is asked cannot be done: one line that says what to do.
pub fn run(command: KeyCommand, config: &Config, output: Output) -> Result<(), Failure> {
    let store = KeyDirectory::open(&config.keys_directory)?;
    let now = SystemClock::new().now();
    match command {
        KeyCommand::List => list(&store, now, output),
        KeyCommand::Rotate { alg, now: at_once } => {
            let algorithms = alg.map_or_else(|| ALGORITHMS.to_vec(), |algorithm| vec![algorithm.into()]);
            let when = if at_once { When::Now } else { When::OncePublished };
            key_ring::complete(&store, now)?;
            let rotations = key_ring::rotate(&store, &algorithms, when, now)?;
            output.list(&rotations, ["alg", "kid", "signs_from", "next"], |rotation| {
                let key_ring::Rotation { alg, kid, signs_from, next } = rotation;
                [alg.to_string(), kid.clone(), signs_from.to_string(), next.clone()]
            })
        }
        KeyCommand::Retire { kid, .. } => {
            let retirement = key_ring::retire(&store, &kid, now)?;
            let sentence = match &retirement.successor {
                Some(successor) => format!("{kid} is withdrawn; {successor} signs in its place"),
                None => format!("{kid} is withdrawn; it did not sign"),
            };
            output.done(&sentence, &retirement)
        }
    }
}

#[derive(Debug, Serialize)]
struct Listed {
    #[serde(flatten)]
    record: KeyRecord,
    stage: KeyStage,
}

fn list(store: &dyn KeyStore, now: UnixTime, output: Output) -> Result<(), Failure> {
    let keys = KeyRing::read(store)?;
    output.list(&listed(&keys, now), ["alg", "stage", "kid", "published_since", "signs_from"], |key| {
        let Listed { record, stage } = key;
        let signs_from = record.signs_from.map_or_else(String::new, |from| from.to_string());
        [record.alg.to_string(), stage.to_string(), record.kid.clone(), record.created_at.to_string(), signs_from]
    })?;
    for SetAside { name, why } in keys.set_aside() {
        output.note(&format!("set aside: {name}: {why}"))?;
    }
    Ok(())
}

fn listed(keys: &SigningKeys, now: UnixTime) -> Vec<Listed> {
    let all = keys.all().iter();
    all.map(|key| Listed { record: key.record.clone(), stage: keys.stage(&key.record, now) }).collect()
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;
    use crate::mint::fixture::{MemoryKeys, NOW};

    #[derive(Debug, Parser)]
    struct Cli {
        #[command(subcommand)]
        _key: KeyCommand,
    }

    #[test]
    fn a_withdrawal_wants_now_to_be_said() {
        assert!(Cli::try_parse_from(["key", "retire", "kid"]).is_err());
        assert!(Cli::try_parse_from(["key", "retire", "kid", "--now"]).is_ok());
    }

    #[test]
    fn algorithms_are_named_as_on_the_wire() {
        for algorithm in ALGORITHMS {
            assert!(Cli::try_parse_from(["key", "rotate", "--alg", algorithm.as_str()]).is_ok());
        }
        assert!(Cli::try_parse_from(["key", "rotate", "--alg", "RS256"]).is_err());
    }

    #[test]
    fn every_key_is_listed_with_what_it_does() {
        let store = MemoryKeys::begun_with(SigningAlgorithm::ES256);
        let before = listed(&KeyRing::read(&*store).unwrap(), NOW);
        let kid = &before.iter().find(|key| key.stage == KeyStage::Signing).unwrap().record.kid;
        key_ring::retire(&*store, kid, NOW).unwrap();
        let after = listed(&KeyRing::read(&*store).unwrap(), NOW.after(std::time::Duration::from_secs(1)));
        let stage = |kid: &str| after.iter().find(|key| key.record.kid == kid).unwrap().stage;
        assert_eq!(stage(kid), KeyStage::Retired);
        let mut stages: Vec<String> = after.iter().map(|key| key.stage.to_string()).collect();
        stages.sort_unstable();
        assert_eq!(stages, ["next", "retired", "signing"]);
    }
}
