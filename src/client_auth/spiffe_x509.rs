//! Is the certificate an X509-SVID of the registered SPIFFE ID? (draft-schwenkschuster-oauth-spiffe-client-auth §3.2)
//!
//! Takes the registered rule and a verified peer, gives yes or a refusal. It knows nothing of bundles: that the id is
//! vouched for by its trust domain is what a peer of standing `Svid` is.

use super::ClientAuthRefusal;
use crate::pki::{Standing, VerifiedPeer};
use crate::registry::client::SubjectRule;

/// Item 5: the id in the URI SAN is the one associated with the client.
pub(super) fn check(rule: &SubjectRule, peer: &VerifiedPeer) -> Result<(), ClientAuthRefusal> {
    match peer.standing() {
        Standing::Svid { .. } => super::tls_client_auth::check(rule, peer),
        Standing::Chained { .. } | Standing::Registered => Err(ClientAuthRefusal::NameMismatch),
    }
}
