//! What of an answer can be believed, and for how long (RFC 6960 §3.2).
//!
//! Takes the octets that a responder sent, what was asked and the time, gives an [`Answer`] or why there is none. It knows
//! nothing of where the octets came from, nor of what an answer means for a request.

use std::time::Duration;

use countersign_resource_server::time::UnixTime;

use super::Unusable;
use super::request::{CertId, Nonce};
use super::response::{CertStatus, Response, Said};
use super::signer;
use crate::pki::signature::Signer;
use crate::registry::trust_anchor::NoncePolicy;

/// How far ahead of this server's clock a responder's may be.
const LEEWAY: Duration = Duration::from_secs(5 * 60);

/// RFC 6960 §4.2.2.1: without nextUpdate there is newer information at any time. So long it is still taken for current.
const FRESH_WITHOUT_NEXT_UPDATE: Duration = Duration::from_secs(60 * 60);

/// No answer counts longer than this after its thisUpdate, whatever it says.
const LONGEST_FRESH: Duration = Duration::from_secs(7 * 24 * 60 * 60);

/// A signed word about one certificate, by somebody who may give it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Answer {
    pub(super) status: CertStatus,
    pub(super) this_update: UnixTime,
    /// The first instant at which it no longer counts.
    pub(super) until: UnixTime,
}

/// Reads an answer to the question after `id`, a certificate of `issuer`, asked with `nonce`.
///
/// # Errors
/// [`Unusable`]: it says nothing that counts.
pub(super) fn read(
    octets: &[u8],
    id: &CertId,
    issuer: &Signer,
    nonce: &Nonce,
    policy: NoncePolicy,
    now: UnixTime,
) -> Result<Answer, Unusable> {
    let response = Response::read(octets, id)?; // RFC 6960 §3.2, 1
    let signer_until = signer::authorize(&response, issuer, now)?; // 2, 3 and 4
    // RFC 6960 §4.4.1, RFC 5019 §4: responders that sign beforehand cannot know it; what they say is bounded by its dates.
    match response.nonce {
        Some(answered) if answered != nonce => return Err(Unusable::OtherNonce),
        None if policy == NoncePolicy::Required => return Err(Unusable::NonceMissing),
        Some(_) | None => {}
    }
    let mut until = fresh_until(&response.said, now)?; // 5 and 6
    if let Some(not_after) = signer_until {
        // Through its last second.
        until = until.min(not_after.after(Duration::from_secs(1)));
    }
    Ok(Answer { status: response.said.status, this_update: response.said.this_update, until })
}

/// RFC 6960 §4.2.2.1: until when this is current, if it is.
fn fresh_until(said: &Said, now: UnixTime) -> Result<UnixTime, Unusable> {
    if said.this_update > now.after(LEEWAY) {
        return Err(Unusable::FromTheFuture);
    }
    let until = match said.next_update {
        // The interval is the other way round: nobody means that.
        Some(next_update) if next_update < said.this_update => return Err(Unusable::Malformed),
        Some(next_update) => next_update.min(said.this_update.after(LONGEST_FRESH)),
        None => said.this_update.after(FRESH_WITHOUT_NEXT_UPDATE),
    };
    // RFC 6960 §3.2, 6: nextUpdate is greater than the current time.
    if until > now { Ok(until) } else { Err(Unusable::Stale) }
}
