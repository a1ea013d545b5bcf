//! The lists that are held, by the key that signed them, ready to be asked on every request.
//!
//! Takes lists that were verified, gives what they say of one certificate at one instant. A question neither waits nor
//! allocates; a list is put in place whole or not at all. It knows nothing of where lists come from.

use std::collections::HashMap;
use std::fmt;
use std::sync::Arc;

use arc_swap::ArcSwap;
use countersign_resource_server::time::UnixTime;

use crate::pki::revocation::{CrlReason, UnknownStatus};
use crate::registry::KeyHash;

/// A serial number as it is compared: the value's octets, leading zeros before them.
///
/// An INTEGER that is negative, or written with more zeros than it needs, counts as the one with the same octets: that a
/// list means the one and not the other would only be somebody's slip, and this way it still revokes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Serial([u8; 20]);

impl Serial {
    /// The serial number with these content octets; none if its value has more than 20 (RFC 5280 §4.1.2.2).
    pub fn of(contents: &[u8]) -> Option<Self> {
        let zeros = contents.iter().take_while(|&&octet| octet == 0).count();
        let value = contents.get(zeros..)?;
        let mut octets = [0; 20];
        octets.get_mut(20_usize.checked_sub(value.len())?..)?.copy_from_slice(value);
        Some(Self(octets))
    }

    /// The serial number with these content octets in hexadecimal.
    pub(crate) fn of_hex(text: &str) -> Option<Self> {
        Self::of(&hex::decode(text).ok()?)
    }
}

/// In decimal; beyond what any issuer counts to, in hexadecimal.
impl fmt::Display for Serial {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            [0, 0, 0, 0, number @ ..] => u128::from_be_bytes(number).fmt(f),
            octets => write!(f, "0x{}", hex::encode(octets)),
        }
    }
}

/// One certificate that a list names. Thirty-two octets: a million of them are held at 32 MB.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Entry {
    pub(super) serial: Serial,
    pub(super) reason: CrlReason,
    /// When it was revoked, in seconds.
    pub(super) at: i64,
}

/// Which certificates of its issuer a list speaks for (RFC 5280 §5.2.5).
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct Scope {
    /// The URIs of its distribution point; without one it speaks for all, whatever point they name.
    pub(super) points: Option<Vec<String>>,
    pub(super) kind: Kind,
}

/// Of which kind they are.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u8)]
pub(super) enum Kind {
    #[default]
    All,
    /// onlyContainsUserCerts.
    Users,
    /// onlyContainsCACerts.
    Authorities,
}

impl Scope {
    /// RFC 5280 §6.3.3 (b)(2): whether the list speaks for `subject`.
    fn covers(&self, subject: &Subject<'_>) -> bool {
        let of_its_kind = match self.kind {
            Kind::All => true,
            Kind::Users => !subject.is_authority,
            Kind::Authorities => subject.is_authority,
        };
        let at_its_point = match &self.points {
            None => true,
            Some(own) => own.iter().any(|point| subject.points.contains(point)),
        };
        of_its_kind && at_its_point
    }
}

/// A certificate that lists are asked about.
#[derive(Clone, Copy, Debug)]
pub(in crate::pki) struct Subject<'a> {
    pub(in crate::pki) serial: Option<Serial>,
    pub(in crate::pki) is_authority: bool,
    /// The URIs of its CRL distribution points.
    pub(in crate::pki) points: &'a [String],
}

/// A list that was verified.
#[derive(Debug)]
pub(super) struct RevocationList {
    pub(super) issuer_key: KeyHash,
    pub(super) scope: Scope,
    /// CRLNumber (RFC 5280 §5.2.3).
    pub(super) number: Serial,
    pub(super) this_update: UnixTime,
    pub(super) next_update: UnixTime,
    /// In order of their serial numbers, each once.
    pub(super) entries: Vec<Entry>,
    /// SHA-256 of the whole list.
    pub(super) digest: [u8; 32],
    /// The length of the whole list.
    pub(super) octets: usize,
}

impl RevocationList {
    pub(super) fn find(&self, serial: Serial) -> Option<&Entry> {
        let place = self.entries.binary_search_by(|entry| entry.serial.cmp(&serial)).ok()?;
        self.entries.get(place)
    }
}

/// What lists say of a certificate.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::pki) enum ListStatus {
    /// Current lists speak for it, and none names it.
    Good,
    Revoked {
        at: UnixTime,
        reason: CrlReason,
    },
    Unknown(UnknownStatus),
}

/// All lists that are held at one time.
#[derive(Debug, Default)]
pub(in crate::pki) struct Lists {
    of_issuer: HashMap<KeyHash, Vec<Arc<RevocationList>>>,
    /// Grows with each change: what was concluded from the lists before need not hold any more.
    pub(in crate::pki) generation: u64,
    /// The one instant they are judged at, whichever is asked about; none of a server's.
    as_of: Option<UnixTime>,
}

impl Lists {
    /// RFC 5280 §6.3.3: what the lists of this issuer say of `subject` at `now`.
    pub(in crate::pki) fn status(&self, issuer_key: &KeyHash, subject: &Subject<'_>, now: UnixTime) -> ListStatus {
        let Some(lists) = self.of_issuer.get(issuer_key) else { return ListStatus::Unknown(UnknownStatus::NoList) };
        let now = self.as_of.unwrap_or(now);
        let mut status = ListStatus::Unknown(UnknownStatus::NotCovered);
        let mut on_hold = None;
        for list in lists {
            // What an issuer took back stays so, also where the list is past its time or meant for others: a serial number
            // is its issuer's only once (§4.1.2.2). That a certificate is good takes a list that is current and speaks for it.
            match subject.serial.and_then(|serial| list.find(serial)) {
                Some(&Entry { at, reason: CrlReason::CertificateHold, .. }) => {
                    on_hold = Some(ListStatus::Revoked {
                        at: UnixTime::from_seconds(at),
                        reason: CrlReason::CertificateHold,
                    });
                    continue;
                }
                Some(&Entry { at, reason, .. }) => {
                    return ListStatus::Revoked { at: UnixTime::from_seconds(at), reason };
                }
                None => {}
            }
            if subject.serial.is_none() || !list.scope.covers(subject) {
                continue;
            }
            // §5.1.2.5: by nextUpdate the next list has been issued.
            if now < list.next_update {
                status = ListStatus::Good;
            } else if status != ListStatus::Good {
                status = ListStatus::Unknown(UnknownStatus::Stale);
            }
        }
        on_hold.unwrap_or(status)
    }

    pub(super) fn all(&self) -> impl Iterator<Item = &Arc<RevocationList>> {
        self.of_issuer.values().flatten()
    }

    pub(super) fn of(&self, issuer_key: &KeyHash) -> impl Iterator<Item = &Arc<RevocationList>> {
        self.of_issuer.get(issuer_key).into_iter().flatten()
    }

    pub(super) fn held(&self, issuer_key: &KeyHash, scope: &Scope) -> Option<&Arc<RevocationList>> {
        self.of_issuer.get(issuer_key)?.iter().find(|list| list.scope == *scope)
    }
}

/// The lists, for everybody to ask and one to change.
#[derive(Debug, Default)]
pub struct HeldLists(ArcSwap<Lists>);

impl HeldLists {
    /// None yet; and what they say is always judged at this instant.
    pub fn as_of(at: UnixTime) -> Self {
        Self(ArcSwap::from_pointee(Lists { as_of: Some(at), ..Lists::default() }))
    }

    pub(in crate::pki) fn now(&self) -> arc_swap::Guard<Arc<Lists>> {
        self.0.load()
    }

    /// Whether the certificate with this serial number of this issuer is on one of the lists.
    pub fn revokes(&self, issuer_key: &KeyHash, serial: Serial, now: UnixTime) -> bool {
        let subject = Subject { serial: Some(serial), is_authority: false, points: &[] };
        matches!(self.now().status(issuer_key, &subject, now), ListStatus::Revoked { .. })
    }

    /// Puts `list` in the place of the one with its issuer and scope; gives back that one.
    pub(super) fn put(&self, list: &Arc<RevocationList>) -> Option<Arc<RevocationList>> {
        let mut replaced = None;
        self.0.rcu(|lists| {
            let mut of_issuer = lists.of_issuer.clone();
            let own = of_issuer.entry(list.issuer_key).or_default();
            replaced = own.iter().position(|other| other.scope == list.scope).map(|place| own.swap_remove(place));
            own.push(Arc::clone(list));
            Lists { of_issuer, generation: lists.generation + 1, as_of: lists.as_of }
        });
        replaced
    }

    /// Lets go of the lists that `unneeded` names.
    pub(super) fn drop_where(&self, unneeded: impl Fn(&RevocationList) -> bool) {
        if !self.now().all().any(|list| unneeded(list)) {
            return;
        }
        self.0.rcu(|lists| {
            let mut of_issuer = lists.of_issuer.clone();
            for own in of_issuer.values_mut() {
                own.retain(|list| !unneeded(list));
            }
            of_issuer.retain(|_, own| !own.is_empty());
            Lists { of_issuer, generation: lists.generation + 1, as_of: lists.as_of }
        });
    }
}
