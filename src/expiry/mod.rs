//! What runs out soon, and who has to be told.
//!
//! Takes the registry's records and what else has an end (revocation lists, the server's certificate), gives what expires
//! within a window ([`Survey`]) and, on a serving node, metrics, log events and signed notices ([`Watch`]). It decides
//! nothing about any request: what is out of date is refused where it is used, whether or not anybody was told.

/// Pushing a notice to whom it concerns.
mod delivery;

/// One thing, one threshold, one notice.
mod notice;

/// What the watch asks of storage.
pub mod store;

mod watch;

pub use delivery::{Deliver, DeliveryFailure};
pub use notice::{Notice, NoticeId, Threshold};
pub use watch::{Dated, Round, Watch, WatchSettings};

use std::collections::HashMap;
use std::sync::Arc;

use countersign_resource_server::time::UnixTime;
use serde::{Deserialize, Serialize};

use crate::pki::anchor;
use crate::registry::certificate::{Certificate, CertificateState};
use crate::registry::client::ClientState;
use crate::registry::participant::{Participant, ParticipantState};
use crate::registry::trust_anchor::{AnchorOwner, AnchorState, TrustAnchor};
use crate::registry::{ClientId, Page, ParticipantId, Registry, StoreUnavailable, Thumbprint};
use store::{ExpiringIssuer, ExpiringLeaf, ExpiryStore, LeafPage, Place};

/// The kinds of what runs out.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Kind {
    /// A trust anchor's certificate.
    Anchor,
    /// A revocation list.
    Crl,
    /// An intermediate CA's certificate in the path of a client's.
    Intermediate,
    /// A client's certificate.
    Leaf,
    /// This server's own certificate.
    Server,
}

impl Kind {
    /// Every kind.
    pub const ALL: [Self; 5] = [Self::Anchor, Self::Crl, Self::Intermediate, Self::Leaf, Self::Server];

    /// The name in metrics, log events and notices.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Anchor => "anchor",
            Self::Crl => "crl",
            Self::Intermediate => "intermediate",
            Self::Leaf => "leaf",
            Self::Server => "server",
        }
    }
}

/// One thing that runs out.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Expiring {
    /// What kind of thing.
    pub kind: Kind,
    /// Which one: a leaf's thumbprint, an intermediate's issuer key and serial number, an anchor's id, a name.
    pub id: String,
    /// Its subject, for people.
    pub subject: String,
    /// The first second of its validity, where that is known.
    pub begins_at: Option<UnixTime>,
    /// The first instant at which it is out of date.
    pub expires_at: UnixTime,
    /// Whose it is, or whose clients depend on it; nobody's where it is the operator's.
    pub participant: Option<ParticipantId>,
    /// Whom to write to there.
    pub contact: Option<String>,
    /// The client whose certificate it is; for an intermediate, one of those that depend on it.
    pub client: Option<ClientId>,
    /// When it was last seen, or a certificate under it.
    pub last_seen: Option<UnixTime>,
    /// For a leaf: the certificate that is to take its place.
    pub successor: Option<Successor>,
    /// For an intermediate: how many certificates in use depend on it.
    pub certificates: Option<i64>,
    /// Where the participant is told.
    #[serde(skip)]
    pub webhook: Option<String>,
}

/// The certificate that takes a leaf's place.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "state", rename_all = "snake_case")]
pub enum Successor {
    /// Announced, and never seen: nobody knows whether it is installed.
    Announced {
        /// Which.
        thumbprint: Thumbprint,
        /// Since when.
        announced_at: Option<UnixTime>,
    },
    /// In use.
    Seen {
        /// Which.
        thumbprint: Thumbprint,
    },
}

impl Successor {
    /// The name in tables.
    pub const fn as_str(&self) -> &'static str {
        match self {
            Self::Announced { .. } => "announced, never seen",
            Self::Seen { .. } => "seen",
        }
    }
}

impl Expiring {
    /// Whether the next certificate was announced and has not been seen, while this one runs out.
    pub const fn waits_for_its_successor(&self) -> bool {
        matches!(self.successor, Some(Successor::Announced { .. }))
    }

    fn leaf(found: ExpiringLeaf) -> Option<Self> {
        let ExpiringLeaf { certificate, client, participant, later } = found;
        let in_use = matches!(certificate.state, CertificateState::Announced | CertificateState::Active);
        if !in_use || client.state == ClientState::Retired || participant.state == ParticipantState::Withdrawn {
            return None;
        }
        Some(Self {
            kind: Kind::Leaf,
            id: certificate.thumbprint.to_string(),
            subject: certificate.subject.clone(),
            begins_at: Some(certificate.not_before),
            expires_at: certificate.expires_at(),
            contact: participant.contacts.technical.or(client.contact),
            webhook: participant.contacts.webhook,
            participant: Some(participant.id),
            client: Some(client.id),
            last_seen: certificate.last_seen,
            successor: successor(&certificate, &later),
            certificates: None,
        })
    }

    fn intermediate(found: ExpiringIssuer) -> Option<Self> {
        let ExpiringIssuer { issuer_key, serial, expires_at, participant, client, certificates, last_seen } = found;
        (participant.state != ParticipantState::Withdrawn).then(|| Self {
            kind: Kind::Intermediate,
            id: format!("{issuer_key}:{serial}"),
            subject: format!("serial number {serial}"),
            begins_at: None,
            expires_at,
            contact: participant.contacts.technical,
            webhook: participant.contacts.webhook,
            participant: Some(participant.id),
            client: Some(client),
            last_seen,
            successor: None,
            certificates: Some(certificates),
        })
    }

    fn anchor(anchor: &TrustAnchor, owner: Option<Participant>) -> Option<Self> {
        let (not_before, expires_at) = anchor::validity(anchor)?;
        let contacts = owner.as_ref().map(|owner| owner.contacts.clone()).unwrap_or_default();
        Some(Self {
            kind: Kind::Anchor,
            id: anchor.id.to_string(),
            subject: anchor.subject.clone(),
            begins_at: Some(not_before),
            expires_at,
            participant: owner.map(|owner| owner.id),
            contact: contacts.technical,
            client: None,
            last_seen: None,
            successor: None,
            certificates: None,
            webhook: contacts.webhook,
        })
    }
}

/// What takes the place of `leaf` among the `later` certificates of its client, which are announced or active and expire
/// after it. The one announced for it counts before any other; then one that was announced and never seen, because nobody
/// is to be told that all is well on the strength of a certificate that another machine of the client may be using.
fn successor(leaf: &Certificate, later: &[Certificate]) -> Option<Successor> {
    let announced_for = |one: &&Certificate| one.replaces.is_some_and(|other| other.thumbprint == leaf.thumbprint);
    let for_no_other = |one: &&Certificate| one.replaces.is_none();
    let unseen = |one: &&Certificate| one.state == CertificateState::Announced;
    // What was in use before it is beside it, not after it.
    let newer = |one: &&Certificate| one.first_seen > leaf.first_seen;
    let next = later
        .iter()
        .find(announced_for)
        .or_else(|| later.iter().filter(for_no_other).find(unseen))
        .or_else(|| later.iter().find(newer))?;
    let thumbprint = next.thumbprint;
    Some(match next.state {
        CertificateState::Announced => Successor::Announced { thumbprint, announced_at: next.announced_at },
        _ => Successor::Seen { thumbprint },
    })
}

/// A span of time: after `from`, up to and with `until`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Window {
    /// What expired then or before is outside.
    pub from: UnixTime,
    /// What expires then is inside.
    pub until: UnixTime,
}

impl Window {
    const fn has(&self, at: UnixTime) -> bool {
        at.as_millis() > self.from.as_millis() && at.as_millis() <= self.until.as_millis()
    }
}

/// How many records are read at a time.
const PAGE: u32 = 500;

/// How many intermediates are looked at, soonest first: nobody has as many that run out.
const MOST_INTERMEDIATES: u32 = 10_000;

/// Reads what expires.
#[derive(Clone, Debug)]
pub struct Survey {
    registry: Arc<Registry>,
    store: Arc<dyn ExpiryStore>,
}

impl Survey {
    /// Of what `registry` and `store` hold; both are the same database.
    pub fn new(registry: Arc<Registry>, store: Arc<dyn ExpiryStore>) -> Self {
        Self { registry, store }
    }

    /// Everything in the registry that expires within `window`, soonest first.
    ///
    /// # Errors
    /// [`StoreUnavailable`].
    pub async fn within(&self, window: Window) -> Result<Vec<Expiring>, StoreUnavailable> {
        let mut all = self.intermediates(window).await?;
        all.extend(self.anchors().await?.into_iter().filter(|anchor| window.has(anchor.expires_at)));
        let mut after = None;
        loop {
            let (leaves, next) = self.leaves(window, after).await?;
            all.extend(leaves);
            after = next;
            if after.is_none() {
                break;
            }
        }
        all.sort_by(|one, other| (one.expires_at, one.kind, &one.id).cmp(&(other.expires_at, other.kind, &other.id)));
        Ok(all)
    }

    /// Clients' certificates, a page at a time, for there may be many; and where the next page begins.
    async fn leaves(
        &self,
        window: Window,
        after: Option<Place>,
    ) -> Result<(Vec<Expiring>, Option<Place>), StoreUnavailable> {
        let LeafPage { leaves, next } = self.store.leaves(window, after, PAGE).await?;
        Ok((leaves.into_iter().filter_map(Expiring::leaf).collect(), next))
    }

    /// Intermediates that certificates in use depend on, once for each participant.
    async fn intermediates(&self, window: Window) -> Result<Vec<Expiring>, StoreUnavailable> {
        let found = self.store.path_issuers(window, MOST_INTERMEDIATES).await?;
        Ok(found.into_iter().filter_map(Expiring::intermediate).collect())
    }

    /// Active anchors, all of them: there are a few to a participant, and when one ends stands in its certificate alone.
    async fn anchors(&self) -> Result<Vec<Expiring>, StoreUnavailable> {
        let mut owners: HashMap<ParticipantId, Option<Participant>> = HashMap::new();
        let mut anchors = Vec::new();
        let mut page = Page::first(PAGE);
        loop {
            let read = self.registry.anchors(page).await?;
            let Some(last) = read.last() else { return Ok(anchors) };
            page = Page::after(last.id.to_string(), PAGE);
            for anchor in read.iter().filter(|anchor| anchor.state == AnchorState::Active) {
                let owner = match &anchor.owner {
                    AnchorOwner::Operator => None,
                    AnchorOwner::Participant(id) => {
                        if !owners.contains_key(id) {
                            owners.insert(id.clone(), self.registry.participant(id).await?);
                        }
                        owners.get(id).cloned().flatten()
                    }
                };
                if owner.as_ref().is_none_or(|owner| owner.state != ParticipantState::Withdrawn) {
                    anchors.extend(Expiring::anchor(anchor, owner));
                }
            }
        }
    }
}

#[cfg(test)]
mod tests;
