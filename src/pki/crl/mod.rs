//! Which certificates have their issuers taken back? (RFC 5280 §5, §6.3)
//!
//! Takes what anchors say about where their revocation lists are, gives [`HeldLists`]: every list verified once, when it
//! arrived, indexed, and in place before anybody asks. It knows nothing of clients; what a revoked certificate means for
//! a request is `revocation`'s to say.

/// The lists that are held.
mod index;

pub use index::{HeldLists, Serial};
pub(super) use index::{ListStatus, Lists, Subject};
