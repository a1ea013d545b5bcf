//! Everything one admission decision about a client rests on, read in one transaction.

use std::sync::Arc;

use countersign_resource_server::time::UnixTime;
use serde::Serialize;
use sha2::{Digest, Sha256};

use super::certificate::Certificate;
use super::client::Client;
use super::entitlement::Entitlement;
use super::history::Touched;
use super::participant::Participant;
use super::resource_server::ResourceServer;
use super::trust_anchor::{NameSpace, TrustAnchor};
use super::{KeyHash, RegistryVersion, Thumbprint};

/// A client with all that a decision about it rests on. Immutable: a change makes a new one.
#[derive(Clone, Debug, Serialize)]
pub struct ClientRecord {
    /// The registry version all of it was read at.
    pub as_of: RegistryVersion,
    /// The client.
    pub client: Client,
    /// Whose it is.
    pub participant: Arc<Participant>,
    /// The anchors granted to its participant, retired ones too, so that a refusal can say so.
    pub anchors: Vec<GrantedAnchor>,
    /// Identifies the anchors' keys and policies as a set: what a remembered path was validated under.
    #[serde(skip)]
    pub anchor_set: AnchorSetId,
    /// Its certificates in every state: of those on record, the 256 that expire last, which takes in all live ones.
    pub certificates: Vec<Certificate>,
    /// Its entitlements, ended ones too, with their resource servers.
    pub entitlements: Vec<GrantedEntitlement>,
}

/// An anchor as one participant has it.
#[derive(Clone, Debug, Serialize)]
pub struct GrantedAnchor {
    /// The anchor.
    pub anchor: Arc<TrustAnchor>,
    /// What it may vouch for, for this participant.
    pub name_space: NameSpace,
}

/// An entitlement with the resource server it is for.
#[derive(Clone, Debug, Serialize)]
pub struct GrantedEntitlement {
    /// The entitlement.
    pub entitlement: Entitlement,
    /// Where it leads.
    pub resource_server: Arc<ResourceServer>,
}

/// The SHA-256 over the ids, states and material of a participant's anchors, in order of id.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct AnchorSetId(pub [u8; 32]);

impl AnchorSetId {
    /// Identifies `anchors`, which stand in order of id.
    pub fn of(anchors: &[GrantedAnchor]) -> Self {
        let mut hash = Sha256::new();
        for granted in anchors {
            let anchor = &granted.anchor;
            // Each part with its length: no two sets are written alike.
            for part in [anchor.id.as_str().as_bytes(), anchor.state.as_str().as_bytes(), anchor.material.octets()] {
                hash.update(u64::try_from(part.len()).unwrap_or(u64::MAX).to_be_bytes());
                hash.update(part);
            }
        }
        Self(hash.finalize().into())
    }
}

impl ClientRecord {
    /// The enrolled certificate with this thumbprint, in whatever state.
    pub fn certificate(&self, thumbprint: &Thumbprint) -> Option<&Certificate> {
        self.certificates.iter().find(|certificate| certificate.thumbprint == *thumbprint)
    }

    /// The enrolled certificate with this issuer key and serial: the same certificate, even where its signature was
    /// rewritten into another valid DER. One whose issuer key is not known yet counts if its own key is the same.
    pub fn certificate_by_serial(
        &self,
        issuer_key: &KeyHash,
        serial: &str,
        key_hash: &KeyHash,
    ) -> Option<&Certificate> {
        self.certificates.iter().find(|certificate| {
            certificate.serial == serial
                && certificate.issuer_key.as_ref().map_or(certificate.key_hash == *key_hash, |own| own == issuer_key)
        })
    }

    /// The same with `certificate` as it is given, new or changed.
    #[must_use]
    pub fn with_certificate(&self, certificate: Certificate) -> Self {
        let mut record = self.clone();
        record.certificates.retain(|own| own.thumbprint != certificate.thumbprint);
        record.certificates.push(certificate);
        record
    }

    /// How many of its certificates count against its limit at `now`.
    pub fn live_certificates(&self, now: UnixTime) -> usize {
        self.certificates.iter().filter(|certificate| certificate.live_until() > now).count()
    }

    /// Whether this record rests on what a change touched.
    pub fn rests_on(&self, touched: &Touched) -> bool {
        match touched {
            Touched::Anchor(id) => self.anchors.iter().any(|granted| granted.anchor.id == *id),
            Touched::Client(id) => self.client.id == *id,
            Touched::Key(key) => self.certificates.iter().any(|certificate| certificate.key_hash == *key),
            Touched::Participant(id) => self.participant.id == *id,
            Touched::ResourceServer(id) => self.entitlements.iter().any(|granted| granted.resource_server.id == *id),
        }
    }
}
