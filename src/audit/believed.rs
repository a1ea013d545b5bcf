//! Whose word counts: the keys that sign, and since when some of them do no more.
//!
//! A key that is withdrawn has become known to somebody else, or may have. What it signed before is what keeps an old log
//! proven, so it goes on to vouch; but for nothing that is dated later, and not in silence where it excuses something. It
//! knows nothing of where keys are kept.

use std::collections::BTreeMap;

use countersign_resource_server::time::UnixTime;
use countersign_resource_server::token::jwks::KeySet;
use countersign_resource_server::token::jws;

use super::checkpoint::MAX_CHECKPOINT_BYTES;

/// Keys that are believed.
#[derive(Clone, Debug, Default)]
pub struct BelievedKeys {
    keys: KeySet,
    withdrawn: BTreeMap<String, UnixTime>,
    /// Why it is not known which were withdrawn, where that should be.
    doubt: Option<String>,
}

/// A key that was withdrawn.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Withdrawal {
    /// Which one.
    pub kid: String,
    /// When.
    pub at: UnixTime,
}

impl Withdrawal {
    /// Whether it was before something that is dated so: at that instant it counts no more.
    pub fn is_before(&self, dated: UnixTime) -> bool {
        dated >= self.at
    }

    /// What to say of something that it vouches for, and is dated before.
    pub fn warning(&self) -> String {
        format!(
            "vouched for by key {}, which was withdrawn at {}: whoever has come by that key could have signed it as well",
            self.kid, self.at
        )
    }
}

impl BelievedKeys {
    /// These keys, and when those of them were withdrawn that were.
    pub const fn new(keys: KeySet, withdrawn: BTreeMap<String, UnixTime>) -> Self {
        Self { keys, withdrawn, doubt: None }
    }

    /// These keys, of which some may have been withdrawn: why that cannot be said.
    pub const fn doubted(keys: KeySet, doubt: String) -> Self {
        Self { keys, withdrawn: BTreeMap::new(), doubt: Some(doubt) }
    }

    /// Why it is not known which of them were withdrawn, as a clause.
    pub fn doubt(&self) -> Option<&str> {
        self.doubt.as_deref()
    }

    /// All of them.
    pub const fn keys(&self) -> &KeySet {
        &self.keys
    }

    /// The withdrawal of the key that a statement (compact JWS) names, if there was one. Says nothing of its signature.
    pub fn withdrawal(&self, compact: &str) -> Option<Withdrawal> {
        if self.withdrawn.is_empty() {
            return None;
        }
        let kid = jws::peek_within(compact, MAX_CHECKPOINT_BYTES).ok()?.header.kid?;
        let at = *self.withdrawn.get(&kid)?;
        Some(Withdrawal { kid, at })
    }
}

impl From<KeySet> for BelievedKeys {
    /// None of them withdrawn, as far as is known.
    fn from(keys: KeySet) -> Self {
        Self::new(keys, BTreeMap::new())
    }
}
