//! The signing keys that a command finds: in the store or in the directory, as the configuration says.
//!
//! For whoever reads them, or signs with them. Nothing is made here, not even a directory.

use std::path::PathBuf;
use std::sync::Arc;

use super::session::Failure;
use crate::app::AppError;
use crate::config::Config;
use crate::mint::key_directory::KeyDirectory;
use crate::mint::key_ring::{KeyStore, KeyStoreError};
use crate::mint::shared_keys::{SealedKeyStore, SharedKeys};
use crate::mint::{KeyRing, SigningKeys};
use crate::store::Store;

/// Where they are.
pub(super) enum KeysAtHand {
    /// In the directory, if it is there.
    Directory(PathBuf),
    /// In the store.
    Store(Arc<dyn KeyStore>),
    /// In the store, encrypted by this key-encryption key, and none is configured.
    Encrypted(String),
    /// In the store, and that is not at hand.
    Unreachable,
}

impl KeysAtHand {
    /// Those of `config`, whose store is `store`.
    ///
    /// # Errors
    /// The key-encryption key is not there, or the store does not answer.
    pub(super) async fn of(config: &Config, store: Option<&Store>) -> Result<Self, Failure> {
        // Those that were left in the directory when they were moved are nobody's.
        let ring = match (&config.key_encryption_key, store) {
            (None, Some(store)) => store.sealed_keys().await?.ring,
            _ => None,
        };
        if let Some(ring) = ring {
            return Ok(Self::Encrypted(ring.encrypted_by));
        }
        Ok(match (&config.key_encryption_key, store) {
            (None, _) => Self::Directory(config.keys_directory.clone()),
            (Some(_), None) => Self::Unreachable,
            (Some(source), Some(store)) => {
                let keys = SharedKeys::new(Arc::new(store.clone()), source.clone());
                Self::Store(Arc::new(keys.map_err(|error| format!("key_encryption_key: {error}"))?))
            }
        })
    }

    /// All of them; none where there is no such directory.
    ///
    /// # Errors
    /// [`KeyStoreError`] if they cannot be read.
    pub(super) async fn read(&self) -> Result<Option<SigningKeys>, KeyStoreError> {
        match self {
            Self::Directory(path) if !path.exists() => Ok(None),
            // Whoever may not read it sees that it is there.
            Self::Directory(path) => KeyRing::read(&KeyDirectory::open(path)?).await.map(Some),
            Self::Store(keys) => KeyRing::read(&**keys).await.map(Some),
            Self::Encrypted(id) => Err(KeyStoreError(AppError::KeysEncrypted(id.clone()).to_string())),
            Self::Unreachable => {
                Err(KeyStoreError("the signing keys are in the store, which is not at hand".to_owned()))
            }
        }
    }

    /// Where they are, for a sentence.
    pub(super) fn place(&self) -> String {
        match self {
            Self::Directory(path) => path.display().to_string(),
            Self::Store(_) | Self::Encrypted(_) | Self::Unreachable => "the store".to_owned(),
        }
    }
}
