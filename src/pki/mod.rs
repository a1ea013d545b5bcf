//! Is this certificate good now?
//!
//! Takes the chain a peer presented and the client it claims to be, gives a [`VerifiedPeer`]: proof that the certificate
//! is in date, strong, and either registered itself or vouched for by an anchor of that client's participant, inside
//! that anchor's name space. It knows nothing of OAuth beyond which of these a client's registration asks for.

use std::sync::{Arc, OnceLock};
use std::task::Poll;

use countersign_resource_server::time::UnixTime;

use crate::error::refusals;
use crate::fetch::is_allowed;
use crate::registry::client::ClientAuthentication;
use crate::registry::trust_anchor::TrustAnchor;
use crate::registry::{
    AnchorId, AnchorSetId, ClientRecord, FoundClient, KeyHash, ParticipantId, PathIssuer, RegistryVersion, Thumbprint,
};

/// What a peer presented in its handshake, leaf first, parsed once per connection.
pub mod presented;

/// What one certificate says, read once.
pub mod certificate;

/// The one reader of names: subject DN and SANs.
pub mod identity;

/// SPIFFE IDs and trust domain names.
pub mod spiffe;

/// A trust domain's keys (SPIFFE bundle).
pub mod bundle;

/// Trust anchors by participant; what is checked before one is enrolled.
pub mod anchor;

/// Path validation (RFC 5280 §6.1).
mod chain;

/// Which certificates have their issuers taken back? (RFC 5280 §5, §6.3)
pub mod crl;

/// Is it still good, as its issuer's responder says? (RFC 6960)
pub mod ocsp;

/// Has its issuer taken this one back?
pub mod revocation;

/// How many requests wait for somebody else?
mod waits;

/// Where in a certificate its parts are.
mod outline;

/// Did this key sign that?
mod signature;

/// Does an anchor's word stand behind a certificate, good now or not?
mod kinship;

/// DER, strictly.
mod der;

/// Records and connections for tests.
#[cfg(test)]
pub(crate) mod scene;

#[cfg(test)]
mod tests;

#[cfg(test)]
mod rfc_examples;

#[cfg(test)]
mod mutations;

#[cfg(test)]
mod profile_tests;

#[cfg(test)]
mod svid_tests;

#[cfg(test)]
mod x509_limbo;

pub use certificate::ParsedCertificate;
pub use kinship::Kinship;
pub use presented::{Handshake, PresentedChain, RecentLists};

use anchor::{AnchorSet, Anchors};
use chain::{Effort, Naming, Path, Terms};
use crl::keeper::Keeper;
use crl::{HeldLists, ListStatus};
use revocation::{Link, Question, Status, StatusSource, UnknownStatus};
use spiffe::{CarriedId, SpiffeId};
use waits::Waits;

refusals! {
    /// Why a certificate is not good now.
    pub enum PeerRefusal at "pki" {
        /// No certificate on the connection.
        NoCertificate => "peer_no_certificate",
        /// The certificate cannot be read, or in more than one way.
        Malformed => "peer_malformed",
        /// It is an X.509 version 1 or 2 certificate that is not registered itself.
        VersionUnsupported => "peer_version_unsupported",
        /// Its key is too short, or of a kind or encoding that is not used here.
        KeyTooWeak => "peer_key_too_weak",
        /// It is a CA's, by its basic constraints, name constraints or key usage.
        IsAuthority => "peer_is_authority",
        /// Its key usage does not allow it to sign, hence not to authenticate.
        KeyUsageForbids => "peer_key_usage_forbids",
        /// It is not for client authentication, or one of its issuers is not.
        PurposeMissing => "peer_purpose_missing",
        /// It, or an issuer, has a critical extension that is not understood.
        CriticalExtensionUnknown => "peer_critical_extension_unknown",
        /// One of its names cannot be read in exactly one way.
        NameMalformed => "peer_name_malformed",
        /// It has a SPIFFE ID beside another URI.
        SpiffeIdAmbiguous => "peer_spiffe_id_ambiguous",
        /// Its validity has not begun.
        NotYetValid => "peer_not_yet_valid",
        /// Its validity is over.
        Expired => "peer_expired",
        /// It is registered with this client neither by itself nor by name.
        NotRegistered => "peer_not_registered",
        /// No path leads to an anchor of this client's participant.
        IssuerUnknown => "peer_issuer_unknown",
        /// A path would lead to an anchor that no longer vouches.
        AnchorRetired => "peer_anchor_retired",
        /// The anchor's own certificate is not in date.
        AnchorOutOfDate => "peer_anchor_out_of_date",
        /// An intermediate is not in date.
        IssuerOutOfDate => "peer_issuer_out_of_date",
        /// An intermediate is not a CA.
        IssuerNotAuthority => "peer_issuer_not_authority",
        /// An intermediate's key is too weak.
        IssuerKeyTooWeak => "peer_issuer_key_too_weak",
        /// A signature in the path does not hold, or is of a kind that is not used here.
        SignatureInvalid => "peer_signature_invalid",
        /// A name constraint of an issuer forbids one of its names.
        NameConstraintViolated => "peer_name_constraint_violated",
        /// It has a name that the anchor may not vouch for, for this participant.
        OutsideNameSpace { /** The first such name. */ name: String } => "peer_outside_name_space",
        /// The path is longer than an issuer allows.
        PathTooLong => "peer_path_too_long",
        /// Looking for a path took more than it may.
        PathTooComplex => "peer_path_too_complex",
        /// Its issuer has revoked it.
        Revoked { /** When, as the issuer says. */ at: UnixTime } => "peer_revoked",
        /// An intermediate in its path is revoked, or on hold.
        IssuerRevoked => "peer_issuer_revoked",
        /// Its issuer has put it on hold.
        OnHold => "peer_on_hold",
        /// Whether it, or an intermediate, was revoked is not known, and its anchor says that it has to be.
        RevocationUnknown { /** What is missing. */ why: UnknownStatus } => "peer_revocation_unknown",
        /// It has no SPIFFE ID, and its client is known by one.
        SpiffeIdMissing => "peer_spiffe_id_missing",
        /// It has a URI that begins like a SPIFFE ID and is none, or is one without a path.
        SpiffeIdMalformed => "peer_spiffe_id_malformed",
        /// It is no X509-SVID: no critical key usage, or no subject and alternative names that are not critical.
        SvidExtensionWrong => "peer_svid_extension_wrong",
        /// The trust domain of its SPIFFE ID does not vouch for this client's participant.
        TrustDomainUnknown => "peer_trust_domain_unknown",
        /// An intermediate has the SPIFFE ID of a workload, or of another trust domain.
        IssuerSpiffeIdWrong => "peer_issuer_spiffe_id_wrong",
    }
}

/// A peer whose certificate is good now. Made by [`Verifier::verify`] alone.
#[derive(Clone, Debug)]
pub struct VerifiedPeer {
    presented: Arc<PresentedChain>,
    leaf: Arc<ParsedCertificate>,
    issuer_key: Option<KeyHash>,
    path: Option<Arc<Path>>,
    not_after: UnixTime,
    standing: Standing,
}

/// What makes a certificate good.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Standing {
    /// A path leads to an anchor of the client's participant, and every name is inside its name space.
    Chained {
        /// The anchor.
        anchor: AnchorId,
    },
    /// This very certificate is on record for the client.
    Registered,
    /// It is an X509-SVID: a path leads to an authority of its SPIFFE ID's trust domain, or to an anchor that may vouch for
    /// that trust domain's URIs by name. The id is its only name.
    Svid {
        /// The anchor.
        anchor: AnchorId,
        /// Who it is.
        id: SpiffeId,
    },
}

impl VerifiedPeer {
    /// SHA-256 of the certificate: what the token will be bound to.
    pub fn thumbprint(&self) -> &Thumbprint {
        self.leaf.thumbprint()
    }

    /// SHA-256 of its public key.
    pub fn key_hash(&self) -> &KeyHash {
        self.leaf.key_hash()
    }

    /// Its serial number in lower-case hexadecimal.
    pub fn serial(&self) -> &str {
        self.leaf.serial()
    }

    /// SHA-256 of the key that issued it; known if a path was validated.
    pub const fn issuer_key(&self) -> Option<&KeyHash> {
        self.issuer_key.as_ref()
    }

    /// The intermediates of the path that was validated, its issuer first.
    pub fn issuers(&self) -> Vec<PathIssuer> {
        self.path.as_ref().map(|path| path.issuers()).unwrap_or_default()
    }

    /// What it says.
    pub const fn leaf(&self) -> &Arc<ParsedCertificate> {
        &self.leaf
    }

    /// The list it came in, and the connection.
    pub const fn presented(&self) -> &Arc<PresentedChain> {
        &self.presented
    }

    /// The earliest end of anything it rests on: no token outlives it.
    pub const fn not_after(&self) -> UnixTime {
        self.not_after
    }

    /// What makes it good.
    pub const fn standing(&self) -> &Standing {
        &self.standing
    }

    /// The anchor that vouches for it, unless it is registered itself.
    pub const fn anchor(&self) -> Option<&AnchorId> {
        match &self.standing {
            Standing::Chained { anchor } | Standing::Svid { anchor, .. } => Some(anchor),
            Standing::Registered => None,
        }
    }
}

/// Verifies certificates. Remembers compiled anchors and paths that were good in bounded caches; a refusal no longer than
/// it could not be another.
#[derive(Debug)]
pub struct Verifier {
    anchors: moka::sync::Cache<AnchorSetId, Arc<AnchorSet>>,
    paths: moka::sync::Cache<PathKey, Arc<Path>>,
    /// Searches that led nowhere. A stranger's list of look-alike issuers can cost a millisecond, a request on a connection
    /// that is open next to nothing: within the second, the record and the lists it was judged by, once is enough.
    dead_ends: moka::sync::Cache<(PathKey, Naming, RegistryVersion, i64, u64), PeerRefusal>,
    /// The revocation lists that are held.
    lists: Arc<HeldLists>,
    /// Who gets them, and is told what paths show.
    keeper: Option<Arc<Keeper>>,
    /// Who is asked for the status of certificates, where somebody is.
    status: Option<Arc<dyn StatusSource>>,
    /// Requests that wait for others.
    waits: Waits,
}

/// Whether others may be asked about a certificate: a responder after its status, a distribution point for a list.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Asks {
    /// Whoever the anchor says.
    Others,
    /// Nobody: what a stranger shows must not make this server ask anything.
    Nobody,
}

/// Under which a good path is remembered: for whom, under which anchors, for exactly which list of certificates.
type PathKey = (ParticipantId, AnchorSetId, [u8; 32]);

/// Compiled anchor sets: a few kilobytes each.
const REMEMBERED_ANCHOR_SETS: u64 = 1024;

/// Paths: a few hundred octets each.
const REMEMBERED_PATHS: u64 = 16 * 1024;

/// Searches that led nowhere: most of them a few octets, with a name outside the name space up to some thousand.
const REMEMBERED_DEAD_ENDS: u64 = 1024;

impl Verifier {
    /// A verifier that remembers nothing yet and holds no revocation lists.
    pub fn new() -> Self {
        Self::with_lists(Arc::default())
    }

    /// A verifier that remembers nothing yet, and goes by these revocation lists.
    pub fn with_lists(lists: Arc<HeldLists>) -> Self {
        Self {
            anchors: moka::sync::Cache::new(REMEMBERED_ANCHOR_SETS),
            paths: moka::sync::Cache::new(REMEMBERED_PATHS),
            dead_ends: moka::sync::Cache::builder()
                .max_capacity(REMEMBERED_DEAD_ENDS)
                .eviction_policy(moka::policy::EvictionPolicy::lru())
                .build(),
            lists,
            keeper: None,
            status: None,
            waits: Waits::default(),
        }
    }

    /// Has `keeper` told what paths show of where lists are.
    #[must_use]
    pub fn kept_by(self, keeper: Arc<Keeper>) -> Self {
        Self { keeper: Some(keeper), ..self }
    }

    /// Asks `source` for the status of certificates under anchors that want it.
    #[must_use]
    pub fn asking(self, source: Arc<dyn StatusSource>) -> Self {
        Self { status: Some(source), ..self }
    }

    /// Whether the certificate of `peer` is good now for `client`. What has to be true follows from the client's
    /// registration, never from what is on the wire.
    ///
    /// # Errors
    /// The most telling [`PeerRefusal`].
    pub async fn verify(
        &self,
        peer: &Arc<PresentedChain>,
        client: &FoundClient,
        now: UnixTime,
    ) -> Result<VerifiedPeer, PeerRefusal> {
        self.verify_asking(peer, client, Asks::Others, now).await
    }

    /// [`Verifier::verify`], asking whom `asks` allows. Where that is nobody, what is not known at this moment counts as not
    /// known, and nobody learns of the certificate: it lets nobody in.
    ///
    /// # Errors
    /// The most telling [`PeerRefusal`].
    pub async fn verify_asking(
        &self,
        peer: &Arc<PresentedChain>,
        client: &FoundClient,
        asks: Asks,
        now: UnixTime,
    ) -> Result<VerifiedPeer, PeerRefusal> {
        if peer.certificates().is_empty() {
            return Err(PeerRefusal::NoCertificate);
        }
        let leaf = peer.leaf().ok_or(PeerRefusal::Malformed)?;
        let record = &*client.record;
        let on_record = record.certificate(leaf.thumbprint());
        match &record.client.authentication {
            // RFC 8705 §2.1: the subject of a certificate whose chain is validated.
            ClientAuthentication::TlsClientAuth { .. } => {
                self.chained(peer, leaf, Naming::Attribute, record, asks, now).await
            }
            // RFC 8705 §2.2: not validated using a chain. Version 1 and CA:TRUE are allowed (its appendix A has such a
            // one), so webpki, which takes neither, is not asked.
            ClientAuthentication::SelfSignedTlsClientAuth { .. } => match on_record {
                Some(_) => registered(peer, leaf, now),
                None => Err(PeerRefusal::NotRegistered),
            },
            // Design §3: an enrolled certificate, or one that leads to an anchor and carries the registered name. One
            // that was enrolled on an anchor's word still needs that word.
            ClientAuthentication::PrivateKeyJwt { subject, .. } => match (on_record, subject) {
                (Some(certificate), _) if certificate.anchor.is_none() => registered(peer, leaf, now),
                (Some(_), _) | (None, Some(_)) => self.chained(peer, leaf, Naming::Attribute, record, asks, now).await,
                (None, None) => Err(PeerRefusal::NotRegistered),
            },
            // draft-schwenkschuster-oauth-spiffe-client-auth §3.2.
            ClientAuthentication::SpiffeX509 { .. } => self.chained(peer, leaf, Naming::Svid, record, asks, now).await,
            // The certificate beside a JWT-SVID, by the rule of design §3 for assertions: an enrolled one, or an SVID.
            ClientAuthentication::SpiffeJwt { .. } => match on_record {
                Some(certificate) if certificate.anchor.is_none() => registered(peer, leaf, now),
                Some(_) | None => self.chained(peer, leaf, Naming::Svid, record, asks, now).await,
            },
        }
    }

    /// Which anchor's word stands behind the certificate of `peer`, whether or not that certificate is good now: dates,
    /// purposes, states and name spaces are not asked. For whoever has to know whose certificate it is before saying what
    /// is wrong with it; it lets nobody in.
    pub fn kinship(&self, peer: &PresentedChain, record: &ClientRecord, now: UnixTime) -> Option<Kinship> {
        kinship::find(peer, &self.anchors_of(record), record, now)
    }

    /// What revocation of the certificate of `peer` is judged by, in words: the lists that are held of whoever may have issued it
    /// under the anchor of `kinship`, and who else can be asked.
    pub fn revocation_sources(
        &self,
        peer: &PresentedChain,
        record: &ClientRecord,
        kinship: &Kinship,
        now: UnixTime,
    ) -> Vec<(&'static str, Vec<String>)> {
        let granted = record.anchors.iter().find(|granted| granted.anchor.id == kinship.anchor);
        let Some(granted) = granted else { return Vec::new() };
        crl::check::sources_in_words(peer, &granted.anchor, &kinship.anchor_key, &self.lists.now(), now)
    }

    async fn chained(
        &self,
        peer: &Arc<PresentedChain>,
        leaf: &Arc<ParsedCertificate>,
        naming: Naming,
        record: &ClientRecord,
        asks: Asks,
        now: UnixTime,
    ) -> Result<VerifiedPeer, PeerRefusal> {
        chain::check_end_entity(leaf)?;
        if naming == Naming::Svid {
            spiffe::check_svid(leaf)?;
        }
        chain::check_dates(leaf, now)?;
        let path = match self.path(peer, leaf, naming, record, asks, now) {
            // One that waited may know more.
            Err(PeerRefusal::RevocationUnknown { .. })
                if asks == Asks::Others && self.learn_from_unknown(peer, record).await =>
            {
                self.path(peer, leaf, naming, record, asks, now)?
            }
            found => found?,
        };
        self.settle(&path, leaf, record, asks, now).await?;
        let anchor = path.anchor.id.clone();
        let is_svid = naming == Naming::Svid || path.anchor.trust_domain.is_some();
        Ok(VerifiedPeer {
            presented: Arc::clone(peer),
            leaf: Arc::clone(leaf),
            issuer_key: Some(path.issuer_key()),
            not_after: path.not_after(leaf),
            path: Some(path),
            standing: match leaf.spiffe_id() {
                CarriedId::One(id) if is_svid => Standing::Svid { anchor, id: id.clone() },
                _ => Standing::Chained { anchor },
            },
        })
    }

    /// A path that is good now as far as that can be said without asking anybody.
    fn path(
        &self,
        peer: &PresentedChain,
        leaf: &ParsedCertificate,
        naming: Naming,
        record: &ClientRecord,
        asks: Asks,
        now: UnixTime,
    ) -> Result<Arc<Path>, PeerRefusal> {
        let lists = self.lists.now();
        let terms = Terms { naming, granted: &record.anchors, lists: &lists, now };
        let key = (record.participant.id.clone(), record.anchor_set, *peer.list_hash());
        match self.paths.get(&key) {
            Some(path) if path.judge(leaf, &terms).is_ok() => Ok(path),
            // Not seen before; or no longer good, and then another path may be.
            Some(_) | None => {
                // All that a search depends on: the list, by what it is known, the anchors with what this record grants them,
                // the second, and which revocation lists are held.
                let search = (key, naming, record.as_of, now.as_seconds(), lists.generation);
                if let Some(refusal) = self.dead_ends.get(&search) {
                    return Err(refusal);
                }
                match self.build(peer, leaf, record, &terms) {
                    // Remembered together with what was learnt from it, or not at all.
                    Ok(path) if asks == Asks::Nobody => Ok(Arc::new(path)),
                    Err(refusal @ PeerRefusal::RevocationUnknown { .. }) if asks == Asks::Nobody => Err(refusal),
                    Ok(path) => {
                        let path = Arc::new(path);
                        self.learn(&path, peer, leaf, record);
                        self.paths.insert(search.0, Arc::clone(&path));
                        Ok(path)
                    }
                    Err(refusal) => {
                        self.dead_ends.insert(search, refusal.clone());
                        Err(refusal)
                    }
                }
            }
        }
    }

    /// What a new path shows of where revocation lists are, for whoever keeps them.
    fn learn(&self, path: &Path, peer: &PresentedChain, leaf: &ParsedCertificate, record: &ClientRecord) {
        let Some(keeper) = &self.keeper else { return };
        let Some(anchor) = granted(path, record) else { return };
        if revocation::uses_lists(&anchor.revocation) {
            let points = path.links(leaf).flat_map(|link| allowed_points(&link, anchor)).collect();
            keeper.learn(&anchor.id, path.intermediates_in(peer), points);
        }
    }

    /// Where a path was refused because a list is missing, its intermediates may be what is missing to know that list by. Whoever
    /// keeps lists takes those that an anchor has certified, and no others; what that brings is waited for, though not long and
    /// not by too many. Says whether anybody was told.
    async fn learn_from_unknown(&self, peer: &PresentedChain, record: &ClientRecord) -> bool {
        let Some(keeper) = &self.keeper else { return false };
        let intermediates: Vec<Vec<u8>> = peer.intermediates().iter().map(|issuer| issuer.der.to_vec()).collect();
        let with_lists = record.anchors.iter().filter(|granted| revocation::uses_lists(&granted.anchor.revocation));
        let who_may_wait = with_lists.filter_map(|granted| Some((granted, self.waits.begin(&granted.anchor.id)?)));
        let told = who_may_wait.map(async |(granted, _wait)| {
            keeper.wait_to_learn(&granted.anchor.id, intermediates.clone()).await;
        });
        !futures_util::future::join_all(told).await.is_empty()
    }

    /// What is left to ask about a path: lists at a distribution point that nobody has asked yet, and the status of a
    /// certificate where the anchor wants it asked for.
    async fn settle(
        &self,
        path: &Path,
        leaf: &ParsedCertificate,
        record: &ClientRecord,
        asks: Asks,
        now: UnixTime,
    ) -> Result<(), PeerRefusal> {
        let anchor = granted(path, record).ok_or(PeerRefusal::IssuerUnknown)?; // always: the path was judged by it
        if !revocation::may_become_known(&anchor.revocation) {
            return Ok(());
        }
        // One for all the certificates of the path, taken where somebody has to be waited for.
        let wait = OnceLock::new();
        let may_wait = || wait.get_or_init(|| self.waits.begin(&anchor.id)).is_some();
        let asked = path.links(leaf).map(async |link| {
            let question = Question {
                anchor: &anchor.id,
                serial: link.serial,
                is_authority: link.subject.is_authority,
                issuer_name_der: &link.issuer.name_der,
                issuer_spki_der: &link.issuer.spki_der,
                issuer_key: link.issuer_key,
                responder_urls: link.responder_urls,
            };
            let status = || self.lists.now().status(link.issuer_key, &link.subject, now);
            let (keeper, source) = match asks {
                Asks::Others => (self.keeper.as_ref(), self.status.as_ref()),
                Asks::Nobody => (None, None),
            };
            if let (ListStatus::Unknown(_), Some(keeper)) = (status(), keeper) {
                let points = allowed_points(&link, anchor);
                if !points.is_empty() && may_wait() {
                    keeper.wait_for(&anchor.id, points).await;
                }
            }
            let answered = match (&anchor.revocation.ocsp, source) {
                (Some(policy), Some(source)) => {
                    let mut asking = source.status(question, policy, now);
                    // What is remembered is there at once. Whoever may not wait has had the question begun: its answer is there
                    // for a later request, and a revocation has its consequences.
                    Some(match futures_util::poll!(&mut asking) {
                        Poll::Ready(status) => status,
                        Poll::Pending if may_wait() => asking.await,
                        Poll::Pending => Status::Unreachable,
                    })
                }
                (Some(_), None) => Some(Status::Unreachable),
                (None, _) => None,
            };
            // Looked at last: a list may have come meanwhile.
            revocation::decide(&link, anchor, status(), answered)
        });
        // All at the same time: each may take as long as the source lets it.
        futures_util::future::try_join_all(asked).await.map(drop)
    }

    fn anchors_of(&self, record: &ClientRecord) -> Arc<AnchorSet> {
        match self.anchors.get(&record.anchor_set) {
            Some(anchors) => anchors,
            None => {
                let anchors = Arc::new(AnchorSet::compile(&record.anchors));
                self.anchors.insert(record.anchor_set, Arc::clone(&anchors));
                anchors
            }
        }
    }

    fn build(
        &self,
        peer: &PresentedChain,
        leaf: &ParsedCertificate,
        record: &ClientRecord,
        terms: &Terms<'_>,
    ) -> Result<Path, PeerRefusal> {
        let anchors = self.anchors_of(record);
        let effort = Effort::after_reading(peer, leaf);
        let build = |among: &Anchors| chain::build(peer, leaf, among, &effort, terms);
        // The trust domain is chosen by the id (SPIFFE Federation §7.3); a CA may have been given its names as well.
        let id = leaf.spiffe_id().id();
        let refused_by_its_own = match id.and_then(|id| anchors.trust_domain_of(id)).map(build) {
            Some(Ok(path)) => return Ok(path),
            Some(Err(refusal)) => Some(refusal),
            None => None,
        };
        match (build(&anchors.active), refused_by_its_own) {
            (Ok(path), _) => Ok(path),
            (Err(_), Some(refusal)) if refusal != PeerRefusal::IssuerUnknown => Err(refusal),
            (Err(PeerRefusal::IssuerUnknown), own) => {
                // Would a retired anchor have vouched? Then that is the reason to tell.
                let retired = (!anchors.retired.compiled.is_empty()).then(|| build(&anchors.retired).err()).flatten();
                Err(match retired {
                    Some(PeerRefusal::AnchorRetired) => PeerRefusal::AnchorRetired,
                    _ if own.is_none()
                        && id.is_some()
                        && (terms.naming == Naming::Svid || anchors.has_trust_domains()) =>
                    {
                        PeerRefusal::TrustDomainUnknown
                    }
                    _ => PeerRefusal::IssuerUnknown,
                })
            }
            (Err(refusal), _) => Err(refusal),
        }
    }
}

impl Default for Verifier {
    fn default() -> Self {
        Self::new()
    }
}

/// The anchor at the end of `path`, as `record` has it.
fn granted<'a>(path: &Path, record: &'a ClientRecord) -> Option<&'a TrustAnchor> {
    record.anchors.iter().find(|granted| granted.anchor.id == path.anchor.id).map(|granted| &*granted.anchor)
}

/// The distribution points of a certificate that its anchor lets be asked.
fn allowed_points(link: &Link<'_>, anchor: &TrustAnchor) -> Vec<String> {
    let prefixes = &anchor.revocation.crl_url_prefixes;
    link.subject.points.iter().filter(|point| is_allowed(point, prefixes)).cloned().collect()
}

/// A certificate that is on record itself: in date and strong is all it has to be. Who issued it does not count.
fn registered(
    peer: &Arc<PresentedChain>,
    leaf: &Arc<ParsedCertificate>,
    now: UnixTime,
) -> Result<VerifiedPeer, PeerRefusal> {
    if leaf.key_strength() == certificate::KeyStrength::Insufficient {
        return Err(PeerRefusal::KeyTooWeak);
    }
    chain::check_dates(leaf, now)?;
    Ok(VerifiedPeer {
        presented: Arc::clone(peer),
        leaf: Arc::clone(leaf),
        issuer_key: None,
        path: None,
        not_after: leaf.not_after(),
        standing: Standing::Registered,
    })
}
