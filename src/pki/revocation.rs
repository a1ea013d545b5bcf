//! Has its issuer taken this certificate back?
//!
//! Takes a path that is good in every other respect, gives leave or a refusal: what revocation lists say, found on every
//! request without waiting, together with what a [`StatusSource`] answers. It reads no list and asks nobody itself.

use std::fmt;
use std::sync::Arc;

use countersign_resource_server::time::UnixTime;
use futures_util::future::BoxFuture;

use super::PeerRefusal;
use super::crl::{ListStatus, Lists, Subject};
use super::signature::Signer;
use crate::registry::trust_anchor::{OcspPolicy, RevocationSources, TrustAnchor, Unknown};
use crate::registry::{AnchorId, KeyHash};

/// Somebody who can be asked whether a certificate is still good (RFC 6960). Asked about every certificate of a path, on
/// every request under an anchor with an [`OcspPolicy`]: what it remembers, for how long, and how long it makes a request
/// wait is its own to bound.
pub trait StatusSource: fmt::Debug + Send + Sync + 'static {
    /// The status of one certificate at `now`.
    fn status<'a>(&'a self, question: Question<'a>, policy: &'a OcspPolicy, now: UnixTime) -> BoxFuture<'a, Status>;
}

/// A source that is asked for the status at one instant, whichever is asked about: responders know of no other than now.
#[derive(Debug)]
pub struct AsOf {
    /// Who is asked.
    pub source: Arc<dyn StatusSource>,
    /// The instant.
    pub at: UnixTime,
}

impl StatusSource for AsOf {
    fn status<'a>(&'a self, question: Question<'a>, policy: &'a OcspPolicy, _: UnixTime) -> BoxFuture<'a, Status> {
        self.source.status(question, policy, self.at)
    }
}

/// One certificate, named as its issuer knows it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Question<'a> {
    /// Under which anchor the path ends.
    pub anchor: &'a AnchorId,
    /// Lower-case hexadecimal of the serial number's content octets.
    pub serial: &'a str,
    /// Whether it is an intermediate's.
    pub is_authority: bool,
    /// The issuer's name, the whole DER (RFC 6960 §4.1.1: issuerNameHash is made of it).
    pub issuer_name_der: &'a [u8],
    /// The issuer's SubjectPublicKeyInfo, the whole DER.
    pub issuer_spki_der: &'a [u8],
    /// The SHA-256 of it.
    pub issuer_key: &'a KeyHash,
    /// Where the certificate itself says to ask: foreign text, allowed or not.
    pub responder_urls: &'a [String],
}

/// What is known of a certificate's status.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Status {
    /// Not revoked.
    Good,
    /// Taken back.
    Revoked {
        /// When, as its issuer says.
        at: UnixTime,
        /// Why, as its issuer says.
        reason: CrlReason,
    },
    /// Whoever was asked does not know.
    Unknown,
    /// Nobody answered in time, or in a way that can be believed.
    Unreachable,
}

/// Why a certificate was revoked (RFC 5280 §5.3.1), with its number there. `removeFromCRL` (8) takes something back and is no
/// reason.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u8)]
pub enum CrlReason {
    /// Not said.
    #[default]
    Unspecified = 0,
    /// The key may be in other hands.
    KeyCompromise = 1,
    /// The issuer's key may be.
    CaCompromise = 2,
    /// The subject's name or what else is said of it has changed.
    AffiliationChanged = 3,
    /// Replaced.
    Superseded = 4,
    /// No longer needed.
    CessationOfOperation = 5,
    /// On hold: not good for now.
    CertificateHold = 6,
    /// What it allowed was withdrawn.
    PrivilegeWithdrawn = 9,
    /// The attribute authority's key may be in other hands.
    AaCompromise = 10,
}

impl CrlReason {
    /// The reason with this number, if there is one.
    pub const fn of(number: u8) -> Option<Self> {
        Some(match number {
            0 => Self::Unspecified,
            1 => Self::KeyCompromise,
            2 => Self::CaCompromise,
            3 => Self::AffiliationChanged,
            4 => Self::Superseded,
            5 => Self::CessationOfOperation,
            6 => Self::CertificateHold,
            9 => Self::PrivilegeWithdrawn,
            10 => Self::AaCompromise,
            _ => return None,
        })
    }
}

/// Why revocation lists do not say whether a certificate is still good.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum UnknownStatus {
    /// No list of its issuer is held.
    NoList,
    /// Lists of its issuer are held, and none speaks for it.
    NotCovered,
    /// The list that speaks for it is past its time.
    Stale,
    /// Lists are not asked, and the responder does not know.
    NotKnown,
    /// Lists are not asked, and the responder did not answer.
    Unreachable,
}

impl UnknownStatus {
    /// In words, for whoever explains a refusal.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::NoList => "no revocation list of its issuer is held",
            Self::NotCovered => "no revocation list of its issuer speaks for it",
            Self::Stale => "the revocation list of its issuer is out of date",
            Self::NotKnown => "the responder does not know it",
            Self::Unreachable => "no responder answered",
        }
    }
}

#[cfg(test)]
impl crate::error::Sample for UnknownStatus {
    fn sample() -> Self {
        Self::NoList
    }
}

/// One certificate of a path, as its issuer knows it.
#[derive(Clone, Copy, Debug)]
pub(super) struct Link<'a> {
    /// Lower-case hexadecimal of the serial number's content octets.
    pub(super) serial: &'a str,
    pub(super) subject: Subject<'a>,
    pub(super) responder_urls: &'a [String],
    pub(super) issuer_key: &'a KeyHash,
    pub(super) issuer: &'a Signer,
}

/// What lists say of every certificate of a path, as far as it can be said without asking anybody: so that another path can
/// be tried where this one is refused. Costs nothing under an anchor that names no source.
///
/// # Errors
/// One of them is revoked, or must not be unknown and is.
pub(super) fn judge<'a>(
    links: impl Iterator<Item = Link<'a>>,
    anchor: &TrustAnchor,
    lists: &Lists,
    now: UnixTime,
) -> Result<(), PeerRefusal> {
    if anchor.revocation.is_empty() {
        return Ok(());
    }
    for link in links {
        match lists.status(link.issuer_key, &link.subject, now) {
            ListStatus::Good => {}
            ListStatus::Revoked { at, reason } => return Err(revoked(&link, at, reason)),
            ListStatus::Unknown(why) if may_become_known(&anchor.revocation) => {
                tracing::trace!(
                    certificate.serial = link.serial,
                    why = why.as_str(),
                    "revocation status not known yet"
                );
            }
            ListStatus::Unknown(why) => decide(&link, anchor, ListStatus::Unknown(why), None)?,
        }
    }
    Ok(())
}

/// Whether somebody can be asked yet.
pub(super) const fn may_become_known(sources: &RevocationSources) -> bool {
    sources.ocsp.is_some() || !sources.crl_url_prefixes.is_empty()
}

/// What all that is known of one certificate means: revoked by either refuses, good by one passes, and otherwise it is the
/// anchor's word for each that was asked.
///
/// # Errors
/// It is revoked, or must not be unknown and is.
pub(super) fn decide(
    link: &Link<'_>,
    anchor: &TrustAnchor,
    listed: ListStatus,
    answered: Option<Status>,
) -> Result<(), PeerRefusal> {
    match (listed, answered) {
        (ListStatus::Revoked { at, reason }, _) | (_, Some(Status::Revoked { at, reason })) => {
            return Err(revoked(link, at, reason));
        }
        (ListStatus::Good, _) | (_, Some(Status::Good)) => return Ok(()),
        (ListStatus::Unknown(_), Some(Status::Unknown | Status::Unreachable) | None) => {}
    }
    let ListStatus::Unknown(why) = listed else { return Ok(()) };
    if uses_lists(&anchor.revocation) && anchor.unknown_revocation == Unknown::Refuse {
        return Err(PeerRefusal::RevocationUnknown { why });
    }
    match (answered, &anchor.revocation.ocsp) {
        (Some(Status::Unknown), Some(policy)) if policy.unknown == Unknown::Refuse => {
            Err(PeerRefusal::RevocationUnknown { why: UnknownStatus::NotKnown })
        }
        (Some(Status::Unreachable) | None, Some(policy)) if policy.unreachable == Unknown::Refuse => {
            Err(PeerRefusal::RevocationUnknown { why: UnknownStatus::Unreachable })
        }
        _ => Ok(()),
    }
}

/// Whether the anchor says where lists are.
pub const fn uses_lists(sources: &RevocationSources) -> bool {
    !sources.crls.is_empty() || !sources.crl_url_prefixes.is_empty()
}

fn revoked(link: &Link<'_>, at: UnixTime, reason: CrlReason) -> PeerRefusal {
    match (link.subject.is_authority, reason) {
        (true, _) => PeerRefusal::IssuerRevoked,
        (false, CrlReason::CertificateHold) => PeerRefusal::OnHold,
        (false, _) => PeerRefusal::Revoked { at },
    }
}
