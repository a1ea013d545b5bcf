//! Is this list its issuer's word, and newer than the one held? (RFC 5280 §6.3.3)
//!
//! Takes DER and the certificates of an anchor and of those it certified, gives a [`RevocationList`] or why it is not
//! believed. What it costs is paid once, when a list arrives. It knows nothing of where the list came from.

use std::sync::Arc;
use std::time::Duration;

use countersign_resource_server::time::UnixTime;
use sha2::{Digest, Sha256};

use super::ListRefusal;
use super::index::RevocationList;
use super::reader::CertificateList;
use crate::pki::certificate::{Authority, ParsedCertificate};
use crate::pki::signature::{Signer, is_issued_by, issuer_name};
use crate::registry::KeyHash;

/// How far ahead of this server's clock a list may begin.
const LEEWAY: Duration = Duration::from_secs(300);

/// More certificates of one name are not tried on a list: each may cost a signature over all of it.
const MOST_OF_ONE_NAME: usize = 8;

/// Beside these of those that were known first: whoever may certify others can give as many as it likes one name.
const FIRST_OF_ONE_NAME: usize = 4;

/// A certificate authority whose lists are taken: an anchor, or one that it certified, directly or through others.
#[derive(Debug)]
pub(super) struct ListIssuer {
    pub(super) key_hash: KeyHash,
    signer: Signer,
    may_certify: bool,
    may_sign_lists: bool,
    /// Its certificate and those above it, in DER, the anchor's own left out: enough to know it again after a restart.
    pub(super) chain: Vec<Vec<u8>>,
}

impl ListIssuer {
    /// The anchor with this certificate.
    pub(super) fn anchor(der: &[u8]) -> Option<Self> {
        Self::read(der, Vec::new())
    }

    /// The authority with the certificate `der`, if this one issued it.
    pub(super) fn issued(&self, der: &[u8]) -> Option<Self> {
        if !self.may_certify || !is_issued_by(der, &self.signer) {
            return None;
        }
        let mut chain = vec![der.to_owned()];
        chain.extend(self.chain.iter().cloned());
        Self::read(der, chain)
    }

    fn read(der: &[u8], chain: Vec<Vec<u8>>) -> Option<Self> {
        let facts = ParsedCertificate::read_intermediate(der).ok()?;
        let usage = facts.key_usage();
        Some(Self {
            key_hash: *facts.key_hash(),
            signer: Signer::of(&facts),
            may_certify: matches!(facts.authority(), Authority::Certifies { .. })
                && usage.is_none_or(|usage| usage.key_cert_sign),
            // RFC 5280 §6.3.3 (f): if key usage is present, cRLSign is set.
            may_sign_lists: usage.is_none_or(|usage| usage.crl_sign),
            chain,
        })
    }

    /// Whether it has this certificate.
    pub(super) fn is(&self, der: &[u8]) -> bool {
        self.chain.first().is_some_and(|own| own == der)
    }
}

/// Adds to `known`, whose first is the anchor, those of `candidates` that one of them issued, whatever order they come in.
pub(super) fn add_issued(known: &mut Vec<Arc<ListIssuer>>, candidates: &[&[u8]]) {
    let mut left: Vec<&[u8]> = candidates.to_vec();
    loop {
        let before = left.len();
        left.retain(|der| {
            if known.iter().any(|issuer| issuer.is(der)) {
                return false;
            }
            // The anchor is the first, and who comes later may have been certified by whom we met last.
            let named = issuer_name(der);
            let namesakes: Vec<_> = known.iter().filter(|issuer| Some(&*issuer.signer.name_der) == named).collect();
            let (first, others) = namesakes.split_at(namesakes.len().min(FIRST_OF_ONE_NAME));
            let mut tried = first.iter().chain(others.iter().rev().take(MOST_OF_ONE_NAME));
            let issued = tried.find_map(|issuer| issuer.issued(der));
            let is_new = issued.is_some();
            known.extend(issued.map(Arc::new));
            !is_new
        });
        if left.len() == before {
            return;
        }
    }
}

/// A list that is its issuer's word.
#[derive(Debug)]
pub(super) struct Verified {
    pub(super) list: Arc<RevocationList>,
    pub(super) issuer: Arc<ListIssuer>,
}

/// Reads and verifies the list in `der`.
///
/// # Errors
/// [`ListRefusal`].
pub(super) fn verify(der: &[u8], issuers: &[Arc<ListIssuer>], now: UnixTime) -> Result<Verified, ListRefusal> {
    let list = CertificateList::read(der)?;
    if list.this_update > now.after(LEEWAY) {
        return Err(ListRefusal::FromTheFuture);
    }
    signed(&list, der, issuers)
}

/// The same, of a list that was believed before: whether its time had come was asked when it came. A clock that is set back
/// makes nobody forget it, and take an older one in its place.
///
/// # Errors
/// [`ListRefusal`].
pub(super) fn verify_kept(der: &[u8], issuers: &[Arc<ListIssuer>]) -> Result<Verified, ListRefusal> {
    signed(&CertificateList::read(der)?, der, issuers)
}

fn signed(list: &CertificateList<'_>, der: &[u8], issuers: &[Arc<ListIssuer>]) -> Result<Verified, ListRefusal> {
    // §6.3.3 (b)(1), §5.1.2.3: the issuer's name is its certificate's subject, encoded identically.
    let candidates = issuers.iter().filter(|issuer| issuer.signer.name_der == list.issuer).take(MOST_OF_ONE_NAME);
    let mut refusal = ListRefusal::IssuerUnknown;
    for issuer in candidates {
        if !issuer.may_sign_lists {
            refusal = ListRefusal::MayNotSign;
        } else if issuer.signer.has_signed(list.algorithm, list.to_be_signed, list.signature) {
            return Ok(Verified {
                list: Arc::new(RevocationList {
                    issuer_key: issuer.key_hash,
                    entries: list.index()?,
                    number: list.number,
                    this_update: list.this_update,
                    next_update: list.next_update,
                    digest: Sha256::digest(der).into(),
                    scope: list.scope.clone(),
                    octets: der.len(),
                }),
                issuer: Arc::clone(issuer),
            });
        } else if refusal == ListRefusal::IssuerUnknown {
            refusal = ListRefusal::SignatureInvalid;
        }
    }
    Err(refusal)
}

/// Whether `list` may take the place of `held`; `false` where it is the same.
///
/// # Errors
/// It is older, or claims the same number with other content.
pub(super) fn succeeds(list: &RevocationList, held: &RevocationList) -> Result<bool, ListRefusal> {
    if list.digest == held.digest {
        return Ok(false);
    }
    // §5.2.3: numbers grow; two lists of one scope with the same number are the same.
    match list.number.cmp(&held.number) {
        std::cmp::Ordering::Less => Err(ListRefusal::Older),
        std::cmp::Ordering::Equal => Err(ListRefusal::SameNumber),
        std::cmp::Ordering::Greater if list.this_update < held.this_update => Err(ListRefusal::Older),
        std::cmp::Ordering::Greater => Ok(true),
    }
}
