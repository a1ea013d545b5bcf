//! Which certificates have their issuers taken back? (RFC 5280 §5, §6.3)
//!
//! Takes what anchors say about where their revocation lists are, gives [`HeldLists`]: every list verified once, when it
//! arrived, indexed, and in place before anybody asks. It knows nothing of clients; what a revoked certificate means for
//! a request is `revocation`'s to say.

/// The keeper: fetches lists in the background, for as long as the server runs.
pub mod keeper;

/// The lists that are held.
mod index;

/// DER to a list.
mod reader;

/// A list to one that is believed.
mod verification;

/// What is known of an anchor and of a place.
mod watched;

/// Where lists come from.
mod source;

/// The lists of before a restart.
mod cache;

/// When lists are out of date, for the watch over what runs out.
mod ends;

/// How lists stand, in metrics.
mod gauges;

/// What a list means for certificates on record.
mod marks;

/// What an operator sees of an anchor's sources.
pub mod check;

#[cfg(test)]
mod tests;

pub use index::{HeldLists, Serial};
pub(super) use index::{ListStatus, Lists, Subject};
pub(super) use marks::revoke;

use countersign_resource_server::time::UnixTime;

use crate::fetch::FetchError;
use crate::registry::KeyHash;

/// Verifies one list by the anchor with this certificate alone, and holds it: how a list is measured and tested without a
/// registry. A server's lists come through its [`keeper`].
///
/// # Errors
/// [`ListRefusal`].
pub fn hold(lists: &HeldLists, anchor_der: &[u8], list_der: &[u8], now: UnixTime) -> Result<KeyHash, ListRefusal> {
    let anchor = verification::ListIssuer::anchor(anchor_der).ok_or(ListRefusal::IssuerUnknown)?;
    let list = verification::verify(list_der, &[anchor.into()], now)?.list;
    lists.put(&list);
    Ok(list.issuer_key)
}

/// Why a list is not taken. What was held before stays, and ages.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ListRefusal {
    /// The algorithm inside is not the one outside (RFC 5280 §5.1.2.2).
    #[error("the signature algorithm inside the list is not the one outside")]
    AlgorithmsDiffer,
    /// For attribute certificates alone.
    #[error("it speaks for attribute certificates only")]
    AttributeCertificates,
    /// A critical extension.
    #[error("it has a critical extension that is not understood here")]
    CriticalExtensionUnknown,
    /// A delta.
    #[error("it is a delta: only whole lists are read here")]
    Delta,
    /// A critical extension of an entry.
    #[error("one of its entries has a critical extension that is not understood here")]
    EntryExtensionUnknown,
    /// An extension twice.
    #[error("it has the same extension twice")]
    ExtensionRepeated,
    /// It could not be fetched.
    #[error("it could not be fetched: {0}")]
    Fetch(#[from] FetchError),
    /// thisUpdate lies ahead.
    #[error("it was issued in the future: is the clock right?")]
    FromTheFuture,
    /// Of other issuers' certificates.
    #[error("it is indirect: lists of other issuers' certificates are not read here")]
    Indirect,
    /// Nobody known issued it.
    #[error("its issuer is neither the anchor nor known to be certified by it")]
    IssuerUnknown,
    /// Not DER, or not as RFC 5280 §5 has it.
    #[error("it is not a revocation list, or one that can be read in more than one way")]
    Malformed,
    /// Its issuer's key usage.
    #[error("its issuer's key usage does not allow it to sign revocation lists (cRLSign)")]
    MayNotSign,
    /// No nextUpdate.
    #[error("it does not say when the next one comes (nextUpdate)")]
    NextUpdateMissing,
    /// Nothing there.
    #[error("there is no revocation list there")]
    Nothing,
    /// A critical number.
    #[error("its number is marked critical, which it must not be")]
    NumberCritical,
    /// No number.
    #[error("it has no number (CRLNumber)")]
    NumberMissing,
    /// An older one.
    #[error("it is older than the one held")]
    Older,
    /// Reading it ended in a fault of this program.
    #[error("reading it ended in a fault of this program")]
    Panicked,
    /// Another one of the same number.
    #[error("it has the number of the one held and says something else")]
    SameNumber,
    /// The signature.
    #[error("its signature does not hold, or is of a kind that is not used here")]
    SignatureInvalid,
    /// For some reasons alone.
    #[error("it speaks for some reasons only")]
    SomeReasons,
    /// Too long.
    #[error("it is longer than revocation.crl_bytes")]
    TooLong,
    /// Too many.
    #[error("there are too many lists there, or too many certificates on the lists of this anchor")]
    TooMany,
    /// The file.
    #[error("it cannot be read: {0}")]
    Unreadable(String),
    /// The version.
    #[error("it is not a revocation list of version 2")]
    VersionUnsupported,
}

impl ListRefusal {
    /// A short name, for metrics.
    pub const fn reason(&self) -> &'static str {
        match self {
            Self::AlgorithmsDiffer => "algorithms_differ",
            Self::AttributeCertificates => "attribute_certificates",
            Self::CriticalExtensionUnknown => "critical_extension_unknown",
            Self::Delta => "delta",
            Self::EntryExtensionUnknown => "entry_extension_unknown",
            Self::ExtensionRepeated => "extension_repeated",
            Self::Fetch(_) => "fetch",
            Self::FromTheFuture => "from_the_future",
            Self::Indirect => "indirect",
            Self::IssuerUnknown => "issuer_unknown",
            Self::Malformed => "malformed",
            Self::MayNotSign => "may_not_sign",
            Self::NextUpdateMissing => "next_update_missing",
            Self::Nothing => "nothing",
            Self::NumberCritical => "number_critical",
            Self::NumberMissing => "number_missing",
            Self::Older => "older",
            Self::Panicked => "panicked",
            Self::SameNumber => "same_number",
            Self::SignatureInvalid => "signature_invalid",
            Self::SomeReasons => "some_reasons",
            Self::TooLong => "too_long",
            Self::TooMany => "too_many",
            Self::Unreadable(_) => "unreadable",
            Self::VersionUnsupported => "version_unsupported",
        }
    }
}
