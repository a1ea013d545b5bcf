//! What is this token that somebody shows us?
//!
//! Takes the text of a token, gives one of the server's own whose signature holds, by the keys that are published now and by
//! the verifier that resource servers use; or why it is none. Whether it is still good is for whoever asks to judge.

use std::sync::Arc;

use arc_swap::ArcSwapOption;
use countersign_resource_server::error::TokenRefusal;
use countersign_resource_server::time::UnixTime;
use countersign_resource_server::token::access_token::{self, VerifiedToken};
use countersign_resource_server::token::jwks::KeySet;

use crate::mint::KeyRing;
use crate::mint::key_ring::PublishedKeys;

/// Reads the server's own tokens.
#[derive(Debug)]
pub struct OwnTokens {
    issuer: Arc<str>,
    ring: Arc<KeyRing>,
    parsed: ArcSwapOption<Parsed>,
}

/// The published keys, parsed once.
#[derive(Debug)]
struct Parsed {
    of: Arc<PublishedKeys>,
    keys: KeySet,
}

impl OwnTokens {
    /// Those of `issuer`, signed by the keys of `ring`.
    pub fn new(issuer: impl Into<Arc<str>>, ring: Arc<KeyRing>) -> Self {
        Self { issuer: issuer.into(), ring, parsed: ArcSwapOption::empty() }
    }

    /// Reads `text`. A key that only published what it signed counts, one that was withdrawn does not: what it signed is
    /// dead.
    ///
    /// # Errors
    /// Every [`TokenRefusal`] but those about audience and dates.
    pub fn read(&self, text: &str, now: UnixTime) -> Result<VerifiedToken, TokenRefusal> {
        let published = self.ring.published(now);
        let parsed = match self.parsed.load_full().filter(|parsed| Arc::ptr_eq(&parsed.of, &published)) {
            Some(parsed) => parsed,
            None => {
                let keys = KeySet::parse(published.body.as_bytes()).map_err(|_| TokenRefusal::KeysNotHeld)?;
                let parsed = Arc::new(Parsed { of: published, keys });
                self.parsed.store(Some(Arc::clone(&parsed)));
                parsed
            }
        };
        access_token::read_own(text, &parsed.keys, &self.issuer)
    }
}

/// Whether no clock that a resource server may go by takes the token for good any more, by its `exp` alone.
pub fn is_over(token: &VerifiedToken, now: UnixTime) -> bool {
    // RFC 7519 §4.1.4, and the leeway that resource servers grant: until then somebody may still take it.
    now >= UnixTime::from_seconds(token.claims().exp).after(access_token::LEEWAY)
}
