//! Does the certificate carry the one registered name? (RFC 8705 §2.1)
//!
//! Takes the registered rule and a verified peer, gives yes or a refusal. It knows nothing of chains: that the name is
//! vouched for by an anchor of the client's own participant is what a peer of standing `Chained` is.

use super::ClientAuthRefusal;
use crate::pki::Standing;
use crate::pki::VerifiedPeer;
use crate::registry::client::{SubjectAttribute, SubjectRule};

/// RFC 8705 §2.1.2: exactly one attribute is registered, and only that attribute is looked at.
pub(super) fn check(rule: &SubjectRule, peer: &VerifiedPeer) -> Result<(), ClientAuthRefusal> {
    match peer.standing() {
        // A name counts only together with the anchor that vouches for it.
        Standing::Chained { .. } => {}
        Standing::Registered => return Err(ClientAuthRefusal::NameMismatch),
        // A trust domain vouches for the SPIFFE ID and for nothing else that the certificate says.
        Standing::Svid { id, .. } => {
            let is_it = rule.attribute == SubjectAttribute::TlsClientAuthSanUri && rule.canonical == id.as_str();
            return if is_it { Ok(()) } else { Err(ClientAuthRefusal::NameMismatch) };
        }
    }
    let names = peer.leaf().names().map_err(|_| ClientAuthRefusal::NameMismatch)?;
    if names.match_rule(rule) { Ok(()) } else { Err(ClientAuthRefusal::NameMismatch) }
}
