//! What a peer presented in its handshake.
//!
//! Takes DER as TLS delivered it, gives a [`PresentedChain`]: what depends on the certificates alone is computed once,
//! kept with the connection, and shared by those that bring the same list. Possession of the leaf's key is proven by then;
//! nothing else is.

use std::borrow::Cow;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::{Arc, OnceLock};

use countersign_resource_server::time::UnixTime;
use rustls_pki_types::CertificateDer;
use serde_json::value::RawValue;
use sha2::{Digest, Sha256};

use super::certificate::{MalformedCertificate, ParsedCertificate, certificates_from};
use super::chain::Outcomes;
use crate::registry::Thumbprint;

/// What the connection is, whoever is at the other end.
#[derive(Clone, Debug)]
pub struct Handshake {
    /// The peer's address.
    pub remote: SocketAddr,
    /// `TLSv1.2` or `TLSv1.3`.
    pub protocol: &'static str,
    /// Whether the session was resumed: then the certificate is the one of the first handshake.
    pub resumed: bool,
}

/// The certificates of a connection, leaf first; none, if the peer sent none.
#[derive(Debug)]
pub struct PresentedChain {
    /// The connection they came on.
    pub handshake: Handshake,
    list: Arc<List>,
}

/// What depends on the certificates alone.
#[derive(Debug)]
struct List {
    certificates: Vec<CertificateDer<'static>>,
    thumbprint: Option<Thumbprint>,
    leaf: Option<Arc<ParsedCertificate>>,
    intermediates: Vec<Intermediate>,
    hash: [u8; 32],
    outcomes: Outcomes,
    account: OnceLock<Box<RawValue>>,
}

/// A certificate after the leaf that could be read. Those that could not cannot be part of a path.
#[derive(Debug)]
pub(super) struct Intermediate {
    pub(super) der: CertificateDer<'static>,
    pub(super) facts: ParsedCertificate,
}

/// More certificates after the leaf than this are not looked at (design §3); the handshake has refused them already.
pub const MOST_INTERMEDIATES: usize = 4;

/// More certificates of one subject than this are not looked at: each may be tried with each anchor.
const MOST_OF_ONE_SUBJECT: usize = 2;

impl List {
    fn read(certificates: Vec<CertificateDer<'static>>, hash: [u8; 32]) -> Self {
        let mut intermediates: Vec<Intermediate> = Vec::new();
        for der in certificates.iter().skip(1).take(MOST_INTERMEDIATES) {
            let Ok(facts) = ParsedCertificate::read_intermediate(der) else { continue };
            let of_one_subject =
                intermediates.iter().filter(|other| other.facts.subject_der() == facts.subject_der()).count();
            if of_one_subject < MOST_OF_ONE_SUBJECT && !intermediates.iter().any(|other| other.der == *der) {
                intermediates.push(Intermediate { der: der.clone(), facts });
            }
        }
        Self {
            thumbprint: certificates.first().map(|leaf| Thumbprint::of(leaf)),
            leaf: certificates.first().and_then(|leaf| ParsedCertificate::read(leaf).ok()).map(Arc::new),
            intermediates,
            hash,
            outcomes: Outcomes::default(),
            account: OnceLock::new(),
            certificates,
        }
    }

    /// Some octets that it takes: each certificate as it came, and about as much again several times for what was read of it; names,
    /// which may be shorter than what holds them; and what checks of its signatures will have come to.
    fn weight(&self) -> u32 {
        let octets: usize = self.certificates.iter().map(|der| der.len()).sum();
        let names = self.leaf.as_ref().map_or(0, |leaf| leaf.alt_name_count());
        let outcomes = if self.intermediates.is_empty() { SIZE_OF_OUTCOMES / 8 } else { SIZE_OF_OUTCOMES };
        let octets = size_of::<Self>() + SIZE_OF_READ * octets + SIZE_OF_NAME * names + outcomes + MOST_OF_ACCOUNT;
        u32::try_from(octets).unwrap_or(u32::MAX)
    }
}

/// How much more a certificate takes once it is read.
const SIZE_OF_READ: usize = 4;

/// What holds a name: two texts with their heads, and as much for the allocator.
const SIZE_OF_NAME: usize = 128;

/// A public key for each outcome that is remembered, most of them short.
const SIZE_OF_OUTCOMES: usize = 4_096;

/// The longest account of a leaf that is kept, in octets. Most have half as many; a stranger's may have fifty times as many.
const MOST_OF_ACCOUNT: usize = 1_024;

/// The SHA-256 of a list, each certificate with its length.
fn hash_of(certificates: &[CertificateDer<'_>]) -> [u8; 32] {
    let mut hash = Sha256::new();
    for certificate in certificates {
        hash.update((certificate.len() as u64).to_be_bytes());
        hash.update(certificate);
    }
    hash.finalize().into()
}

/// The lists that handshakes brought lately. A partner that connects for each token brings the same one again; read and kept
/// once, it costs each connection a hash. Bounded; nothing rests on what is in it but time and memory.
#[derive(Clone, Debug)]
pub struct RecentLists {
    lists: moka::sync::Cache<[u8; 32], Arc<List>>,
}

/// Some octets.
const RECENT_BYTES: u64 = 32 << 20;

impl Default for RecentLists {
    fn default() -> Self {
        let weigher = |_: &[u8; 32], list: &Arc<List>| list.weight();
        Self { lists: moka::sync::Cache::builder().max_capacity(RECENT_BYTES).weigher(weigher).build() }
    }
}

impl RecentLists {
    /// What `handshake` brought.
    pub fn presented(&self, handshake: Handshake, certificates: &[CertificateDer<'_>]) -> PresentedChain {
        let hash = hash_of(certificates);
        let list = self.lists.get(&hash).unwrap_or_else(|| {
            let owned = certificates.iter().map(|certificate| certificate.clone().into_owned()).collect();
            let list = Arc::new(List::read(owned, hash));
            self.lists.insert(hash, Arc::clone(&list));
            list
        });
        PresentedChain { handshake, list }
    }
}

impl PresentedChain {
    /// What `handshake` brought.
    pub fn new(handshake: Handshake, certificates: Vec<CertificateDer<'static>>) -> Self {
        let hash = hash_of(&certificates);
        Self { handshake, list: Arc::new(List::read(certificates, hash)) }
    }

    /// A list as it stands in a file, DER or PEM, as if it had been presented: nobody is connected, and possession of
    /// nothing is proven.
    ///
    /// # Errors
    /// [`MalformedCertificate`] if there is no certificate.
    pub fn read(file: &[u8]) -> Result<Self, MalformedCertificate> {
        let nobody = Handshake { remote: (Ipv4Addr::UNSPECIFIED, 0).into(), protocol: "none", resumed: false };
        Ok(Self::new(nobody, certificates_from(file)?))
    }

    /// The thumbprint of the leaf.
    pub fn thumbprint(&self) -> Option<&Thumbprint> {
        self.list.thumbprint.as_ref()
    }

    /// The certificates as they came, leaf first.
    pub fn certificates(&self) -> &[CertificateDer<'static>] {
        &self.list.certificates
    }

    /// What the leaf says: claimed, until a verifier has looked. Absent if there is none or it cannot be read.
    pub fn leaf(&self) -> Option<&Arc<ParsedCertificate>> {
        self.list.leaf.as_ref()
    }

    /// The leaf as records tell of it, always the same: of one that is not long `tell` is asked once. Absent as [`Self::leaf`] is.
    pub fn account(&self, tell: impl FnOnce(&ParsedCertificate) -> Box<RawValue>) -> Option<Cow<'_, RawValue>> {
        if let Some(kept) = self.list.account.get() {
            return Some(Cow::Borrowed(kept));
        }
        let account = tell(self.leaf()?);
        if account.get().len() > MOST_OF_ACCOUNT {
            return Some(Cow::Owned(account));
        }
        Some(Cow::Borrowed(self.list.account.get_or_init(|| account)))
    }

    /// First and last second of each certificate after the leaf that a path may use, in the order they came.
    pub fn issuer_dates(&self) -> impl Iterator<Item = (UnixTime, UnixTime)> {
        self.list.intermediates.iter().map(|issuer| (issuer.facts.not_before(), issuer.facts.not_after()))
    }

    /// The certificates after the leaf that a path may use.
    pub(super) fn intermediates(&self) -> &[Intermediate] {
        &self.list.intermediates
    }

    /// What checks of the signatures in it have come to.
    pub(super) fn outcomes(&self) -> &Outcomes {
        &self.list.outcomes
    }

    /// The SHA-256 of the whole list, each certificate with its length.
    pub(super) fn list_hash(&self) -> &[u8; 32] {
        &self.list.hash
    }
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use countersign_conformance::pki::Authority;

    use super::*;

    fn handshake(port: u16) -> Handshake {
        Handshake { remote: (Ipv4Addr::LOCALHOST, port).into(), protocol: "TLSv1.3", resumed: false }
    }

    fn list(certificates: &[&'static [u8]]) -> Vec<CertificateDer<'static>> {
        certificates.iter().map(|der| CertificateDer::from(*der)).collect()
    }

    #[test]
    fn connections_that_bring_the_same_list_share_it_and_nothing_else() {
        let recent = RecentLists::default();
        let first = recent.presented(handshake(1), &list(&[b"leaf", b"issuer"]));
        let second = recent.presented(handshake(2), &list(&[b"leaf", b"issuer"]));
        assert!(Arc::ptr_eq(&first.list, &second.list));
        assert_eq!((first.handshake.remote.port(), second.handshake.remote.port()), (1, 2));
    }

    #[test]
    fn a_leaf_is_told_of_once_unless_that_is_long_and_never_where_it_cannot_be_read() {
        let chain = Authority::root("Partner", 1_800_000_000).client("client").chain;
        let chain = chain.into_iter().map(CertificateDer::from).collect();
        let presented = PresentedChain::new(handshake(1), chain);
        let asked = Cell::new(0);
        let account = |presented: &PresentedChain, octets: usize| {
            let tell = |_: &ParsedCertificate| {
                asked.set(asked.get() + 1);
                RawValue::from_string("7".repeat(octets)).unwrap()
            };
            presented.account(tell).map(|account| account.get().len())
        };
        for asked_so_far in 1..=2 {
            assert_eq!(account(&presented, MOST_OF_ACCOUNT + 1), Some(MOST_OF_ACCOUNT + 1));
            assert_eq!(asked.get(), asked_so_far);
        }
        for octets in [MOST_OF_ACCOUNT, 1] {
            assert_eq!(account(&presented, octets), Some(MOST_OF_ACCOUNT));
        }
        let unread = PresentedChain::new(handshake(1), list(&[b"leaf"]));
        assert_eq!(account(&unread, 1), None);
        assert_eq!(asked.get(), 3);
    }

    #[test]
    fn the_same_octets_otherwise_divided_are_another_list() {
        let recent = RecentLists::default();
        let each: [&[&'static [u8]]; 6] =
            [&[], &[b""], &[b"leafissuer"], &[b"leaf", b"issuer"], &[b"issuer", b"leaf"], &[b"leaf", b"issuer", b""]];
        for certificates in each.into_iter().chain(each) {
            let presented = recent.presented(handshake(1), &list(certificates));
            assert_eq!(presented.certificates(), list(certificates));
            assert_eq!(presented.thumbprint().copied(), certificates.first().map(|leaf| Thumbprint::of(leaf)));
            assert_eq!(presented.list_hash(), PresentedChain::new(handshake(1), list(certificates)).list_hash());
        }
        recent.lists.run_pending_tasks();
        assert_eq!(recent.lists.entry_count(), each.len() as u64);
    }

    #[test]
    fn lists_of_strangers_take_no_more_than_they_may() {
        let recent = RecentLists::default();
        for number in 0..20_000_u32 {
            let certificate = CertificateDer::from([number.to_be_bytes().as_slice(), &[0; 1_000]].concat());
            recent.presented(handshake(1), &[certificate]);
        }
        recent.lists.run_pending_tasks();
        assert!(recent.lists.weighted_size() <= RECENT_BYTES);
        assert!(recent.lists.entry_count() > 1_000);
    }
}
