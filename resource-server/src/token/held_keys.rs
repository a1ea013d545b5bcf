//! Which keys does the authorization server sign with, as far as is known here?
//!
//! Takes the bodies that were fetched from its `jwks_uri`, gives the latest [`KeySet`] that could be used. It does not
//! fetch: whoever meets an unknown `kid` says so, and the follower decides when to look.

use std::sync::Arc;

use arc_swap::{ArcSwapOption, Guard};
use tokio::sync::Notify;

use super::jwks::{KeySet, MalformedKeySet};

/// The authorization server's keys, swapped whole.
#[derive(Debug, Default)]
pub struct HeldKeys {
    current: ArcSwapOption<KeySet>,
    wanted: Notify,
}

impl HeldKeys {
    /// The keys held; `None` until the first have been taken.
    pub fn current(&self) -> Guard<Option<Arc<KeySet>>> {
        self.current.load()
    }

    /// Takes a JWK Set in the place of the one held, which stays where the new one cannot be used.
    ///
    /// # Errors
    /// [`UnusableKeySet`].
    pub fn take(&self, text: &[u8]) -> Result<(), UnusableKeySet> {
        let keys = KeySet::parse(text)?;
        if keys.keys().is_empty() {
            return Err(UnusableKeySet::NoKeys);
        }
        for aside in keys.set_aside() {
            tracing::debug!(index = aside.index, kid = aside.kid, reason = %aside.reason, "key set aside");
        }
        // The same keys again stay the same allocation, so that remembered tokens find them by address.
        if self.current().as_ref().is_none_or(|held| held.keys() != keys.keys()) {
            self.current.store(Some(Arc::new(keys)));
        }
        Ok(())
    }

    /// Says that a `kid` was met which is not held.
    pub fn ask_for_news(&self) {
        self.wanted.notify_one();
    }

    /// Waits until somebody met an unknown `kid`; once for any number of them.
    pub async fn wanted(&self) {
        self.wanted.notified().await;
    }
}

/// Why a JWK Set was not taken.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum UnusableKeySet {
    /// It cannot be trusted to mean one thing.
    #[error(transparent)]
    Malformed(#[from] MalformedKeySet),
    /// It has no key that can be used here.
    #[error("no key that can be used")]
    NoKeys,
}
