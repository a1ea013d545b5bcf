//! What the log is held against: the keys that sign, and checkpoints kept elsewhere.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use clap::Args;
use countersign_resource_server::time::UnixTime;
use countersign_resource_server::token::jwks::KeySet;
use countersign_resource_server::token::jws::SigningAlgorithm;
use serde_json::json;

use crate::audit::believed::BelievedKeys;
use crate::audit::checkpoint::CHECKPOINT_FILE;
use crate::cli::keys_at_hand::KeysAtHand;
use crate::cli::session::Failure;
use crate::config::Config;
use crate::mint::{Signer, SigningKeys};
use crate::store::Store;

/// Where the evidence is.
#[derive(Debug, Args)]
pub(super) struct EvidenceArguments {
    /// Checkpoints that were kept elsewhere: one a line, as the server publishes them. Can be repeated. The one in the data
    /// directory is always looked at.
    #[arg(long, value_name = "FILE")]
    checkpoint: Vec<PathBuf>,
    /// The keys that sign checkpoints, as /jwks has them; otherwise the server's own.
    #[arg(long, value_name = "FILE")]
    jwks: Option<PathBuf>,
}

/// What was found there.
#[derive(Debug)]
pub(super) struct Evidence {
    pub(super) keys: BelievedKeys,
    pub(super) copies: Vec<String>,
}

impl EvidenceArguments {
    /// Reads all of it, before anything of the log: the log is never older.
    ///
    /// # Errors
    /// A file that was named cannot be read, or the keys cannot.
    pub(super) async fn read(&self, config: Option<&Config>, store: Option<&Store>) -> Result<Evidence, Failure> {
        let mut copies = Vec::new();
        for file in &self.checkpoint {
            let text = std::fs::read_to_string(file).map_err(|error| format!("{}: {error}", file.display()))?;
            copies.extend(lines(&text));
        }
        if let Some(config) = config {
            let file = config.data_directory.join(CHECKPOINT_FILE);
            match std::fs::read_to_string(&file) {
                Ok(text) => copies.extend(lines(&text)),
                Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
                Err(error) => return Err(format!("{}: {error}", file.display()).into()),
            }
        }
        copies.sort_unstable();
        copies.dedup();
        let at_hand = match config {
            Some(config) => Some(KeysAtHand::of(config, store).await?),
            None => None,
        };
        let keys = match (&self.jwks, at_hand) {
            (Some(file), at_hand) => published(file, at_hand.as_ref()).await?,
            (None, Some(at_hand)) => own(&at_hand).await?,
            (None, None) => BelievedKeys::default(),
        };
        Ok(Evidence { keys, copies })
    }
}

fn lines(text: &str) -> impl Iterator<Item = String> {
    text.lines().map(str::trim).filter(|line| !line.is_empty()).map(str::to_owned)
}

/// The keys of a file. Which of them were withdrawn is known where the server's own are at hand.
///
/// # Errors
/// The file cannot be read, or is no JWK Set.
pub(in crate::cli) async fn published(file: &Path, at_hand: Option<&KeysAtHand>) -> Result<BelievedKeys, Failure> {
    let text = std::fs::read(file).map_err(|error| format!("{}: {error}", file.display()))?;
    let keys = KeySet::parse(&text).map_err(|error| format!("{}: {error}", file.display()))?;
    let Some(at_hand) = at_hand else { return Ok(keys.into()) };
    // Whoever may not read them sees that they are there: nothing was withdrawn is not what that means.
    Ok(match at_hand.read().await {
        Ok(Some(at_hand)) => BelievedKeys::new(keys, withdrawn(&at_hand)),
        Ok(None) => keys.into(),
        Err(error) => BelievedKeys::doubted(keys, format!("which keys were withdrawn is not known: {error}")),
    })
}

/// When keys were withdrawn, those that cannot be used included.
fn withdrawn(keys: &SigningKeys) -> BTreeMap<String, UnixTime> {
    let aside = keys.set_aside().iter().filter_map(|aside| aside.record.as_ref());
    let records = keys.all().iter().map(|key| &key.record).chain(aside);
    records.filter_map(|record| Some((record.kid.clone(), record.retired_at?))).collect()
}

/// The key that signs at `now`: what is removed from the log has to be vouched for by whoever has it.
///
/// # Errors
/// There is none that can be read.
pub(super) async fn signer(at_hand: &KeysAtHand, now: UnixTime) -> Result<Signer, Failure> {
    let place = at_hand.place();
    let advice = "that records were removed is signed with the server's own key: run the command where the keys are, as the user \
                  the server runs as";
    let keys = at_hand.read().await.map_err(|error| format!("{error}; {advice}"))?;
    let keys = keys.ok_or_else(|| format!("{place}: no such directory; {advice}"))?;
    if let Some(signer) = keys.signing(SigningAlgorithm::ES256, now) {
        return Ok(signer.clone());
    }
    let why = keys.set_aside().first().map_or_else(String::new, |aside| format!(" ({}: {})", aside.name, aside.why));
    Err(format!("{place}: no key for ES256 signs now{why}; {advice}").into())
}

/// The server's own keys, those included that are published no more: what they signed stays signed.
///
/// # Errors
/// They cannot be read.
pub(in crate::cli) async fn own(at_hand: &KeysAtHand) -> Result<BelievedKeys, Failure> {
    // A file can be looked at where nothing else is.
    let keys = if matches!(at_hand, KeysAtHand::Unreachable) { None } else { at_hand.read().await? };
    keys.map_or_else(|| Ok(BelievedKeys::default()), |keys| believed(&keys))
}

/// These keys, whatever has become of them.
///
/// # Errors
/// They make no JWK Set.
pub(in crate::cli) fn believed(keys: &SigningKeys) -> Result<BelievedKeys, Failure> {
    let public: Vec<_> = keys.all().iter().map(|key| key.signer.public_jwk()).collect();
    Ok(BelievedKeys::new(KeySet::parse(json!({ "keys": public }).to_string().as_bytes())?, withdrawn(keys)))
}
