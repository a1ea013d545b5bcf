//! Does a path lead from this leaf to one of these anchors, and is it good now? (RFC 5280 §6.1)
//!
//! Takes what a peer presented and its participant's anchors, gives a [`Path`]: which anchor, and of every certificate in
//! between what has to be asked again on each request. rustls-webpki builds and validates the path; what it leaves out is
//! added here, each rule beside its section. It knows nothing of clients.

/// What one search for a path may cost.
mod effort;

use std::cell::RefCell;
use std::sync::Arc;

use countersign_resource_server::time::UnixTime;
use rustls_pki_types::{SignatureVerificationAlgorithm, UnixTime as PathTime};
use webpki::{EndEntityCert, ExtendedKeyUsageValidator, KeyPurposeIdIter, VerifiedPath};

use super::anchor::{Anchors, CompiledAnchor};
use super::certificate::{Authority, KeyStrength, NameConstraints, ParsedCertificate, Purposes};
use super::crl::{Lists, Serial, Subject};
use super::identity::Names;
use super::presented::PresentedChain;
use super::revocation::{self, Link};
use super::signature::Signer;
use super::spiffe::CarriedId;
use super::{PeerRefusal, spiffe};
use crate::registry::trust_anchor::{AnchorState, EkuPolicy};
use crate::registry::{GrantedAnchor, KeyHash, PathIssuer};

use effort::Candidates;
pub(super) use effort::{Effort, Outcomes};

/// A path that was found good once. Signatures and structure stay good; what does not is asked by [`Path::judge`].
#[derive(Clone, Debug)]
pub(super) struct Path {
    pub(super) anchor: CompiledAnchor,
    /// Between the leaf and the anchor, in that order.
    intermediates: Vec<PathCertificate>,
}

/// What has to be asked again of an intermediate.
#[derive(Clone, Debug)]
struct PathCertificate {
    key_hash: KeyHash,
    signer: Arc<Signer>,
    serial: String,
    serial_number: Option<Serial>,
    crl_points: Vec<String>,
    responder_urls: Vec<String>,
    not_before: UnixTime,
    not_after: UnixTime,
    purposes: Purposes,
}

/// What the leaf must be whoever issued it: the checks that webpki leaves out (design §3).
///
/// # Errors
/// The first that fails.
pub(super) fn check_end_entity(leaf: &ParsedCertificate) -> Result<(), PeerRefusal> {
    defects(leaf).next().map_or(Ok(()), Err)
}

/// Each of these checks that fails, the most telling first.
pub(super) fn defects(leaf: &ParsedCertificate) -> impl Iterator<Item = PeerRefusal> {
    let usage = leaf.key_usage();
    [
        // RFC 5280 §4.1.2.1: extensions, on which all that follows rests, are version 3.
        (!leaf.is_version_3(), PeerRefusal::VersionUnsupported),
        (leaf.key_strength() == KeyStrength::Insufficient, PeerRefusal::KeyTooWeak),
        // RFC 5280 §4.1.2.4: the issuer MUST be a non-empty name.
        (leaf.issuer_is_empty(), PeerRefusal::Malformed),
        // RFC 5280 §4.1.2.2: positive, or a revocation list may mean another certificate.
        (!leaf.serial_is_positive(), PeerRefusal::Malformed),
        // RFC 5280 §4.2.1.9, §4.2.1.10: CA:TRUE and name constraints belong to authorities. §4.2.1.3: a key that signs
        // certificates is an authority's too.
        (
            leaf.authority() != Authority::None
                || leaf.name_constraints() != NameConstraints::Absent
                || usage.is_some_and(|usage| usage.key_cert_sign),
            PeerRefusal::IsAuthority,
        ),
        // RFC 5280 §4.2.1.3: a key that authenticates in TLS signs.
        (usage.is_some_and(|usage| !usage.digital_signature), PeerRefusal::KeyUsageForbids),
        (leaf.names().is_err(), PeerRefusal::NameMalformed),
        // X509-SVID §2: exactly one URI, if it is a SPIFFE ID.
        (matches!(leaf.spiffe_id(), CarriedId::Ambiguous), PeerRefusal::SpiffeIdAmbiguous),
        // X509-SVID §5.2: and then one that names a workload. A URI of this scheme has no other use.
        (
            match leaf.spiffe_id() {
                CarriedId::Malformed => true,
                CarriedId::One(id) => !id.has_path(),
                CarriedId::Absent | CarriedId::Ambiguous => false,
            },
            PeerRefusal::SpiffeIdMalformed,
        ),
    ]
    .into_iter()
    .filter_map(|(fails, refusal)| fails.then_some(refusal))
}

/// What a path has to be good by, besides its own signatures.
#[derive(Clone, Copy, Debug)]
pub(super) struct Terms<'a> {
    pub(super) naming: Naming,
    /// The anchors, as they are granted to the client's participant.
    pub(super) granted: &'a [GrantedAnchor],
    pub(super) lists: &'a Lists,
    pub(super) now: UnixTime,
}

/// By what a client's registration knows its certificate.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum Naming {
    /// By any attribute.
    Attribute,
    /// By the SPIFFE ID of an X509-SVID.
    Svid,
}

/// RFC 5280 §4.1.2.5: valid from notBefore through notAfter, both inclusive, in whole seconds.
pub(super) fn check_dates(leaf: &ParsedCertificate, now: UnixTime) -> Result<(), PeerRefusal> {
    if now.as_seconds() < leaf.not_before().as_seconds() {
        return Err(PeerRefusal::NotYetValid);
    }
    if now.as_seconds() > leaf.not_after().as_seconds() {
        return Err(PeerRefusal::Expired);
    }
    Ok(())
}

const fn is_in_date(not_before: UnixTime, not_after: UnixTime, now: UnixTime) -> bool {
    not_before.as_seconds() <= now.as_seconds() && now.as_seconds() <= not_after.as_seconds()
}

impl Path {
    /// The hash of the key that issued the leaf.
    pub(super) fn issuer_key(&self) -> KeyHash {
        self.intermediates.first().map_or(self.anchor.key_hash, |issuer| issuer.key_hash)
    }

    /// The certificates of its intermediates, which came with `presented`.
    pub(super) fn intermediates_in(&self, presented: &PresentedChain) -> Vec<Vec<u8>> {
        let is_in_path = |facts: &ParsedCertificate| {
            self.intermediates.iter().any(|own| own.key_hash == *facts.key_hash() && own.serial == facts.serial())
        };
        let own = presented.intermediates().iter().filter(|known| is_in_path(&known.facts));
        own.map(|known| known.der.to_vec()).collect()
    }

    /// The intermediates as the registry keeps them, the leaf's issuer first.
    pub(super) fn issuers(&self) -> Vec<PathIssuer> {
        let issuers = self.intermediates.iter().skip(1).map(|issuer| issuer.key_hash).chain([self.anchor.key_hash]);
        let kept = |(issuer, issuer_key): (&PathCertificate, KeyHash)| PathIssuer {
            key_hash: issuer.key_hash,
            issuer_key,
            serial: issuer.serial.clone(),
            not_after: issuer.not_after,
        };
        self.intermediates.iter().zip(issuers).map(kept).collect()
    }

    /// The earliest end of anything in the path, the leaf and the anchor included.
    pub(super) fn not_after(&self, leaf: &ParsedCertificate) -> UnixTime {
        let intermediates = self.intermediates.iter().map(|certificate| certificate.not_after);
        intermediates.chain([self.anchor.not_after]).fold(leaf.not_after(), UnixTime::min)
    }

    /// What is asked of a path on every request: dates, the anchor's standing, purposes and name space for this participant,
    /// and what `lists` say of every certificate in it.
    pub(super) fn judge(&self, leaf: &ParsedCertificate, terms: &Terms<'_>) -> Result<(), PeerRefusal> {
        let &Terms { naming, granted, lists, now } = terms;
        check_dates(leaf, now)?;
        if !self.intermediates.iter().all(|issuer| is_in_date(issuer.not_before, issuer.not_after, now)) {
            return Err(PeerRefusal::IssuerOutOfDate);
        }
        // RFC 5280 §6.2 leaves it open whether an anchor's own dates count. Here they do.
        if !is_in_date(self.anchor.not_before, self.anchor.not_after, now) {
            return Err(PeerRefusal::AnchorOutOfDate);
        }
        let granted = granted.iter().find(|granted| granted.anchor.id == self.anchor.id);
        let Some(granted) = granted else { return Err(PeerRefusal::IssuerUnknown) };
        if granted.anchor.state != AnchorState::Active {
            return Err(PeerRefusal::AnchorRetired);
        }
        self.check_purposes(leaf, granted.anchor.eku_policy)?;
        let space = &granted.name_space;
        let outside = |name: &str| PeerRefusal::OutsideNameSpace { name: name.to_owned() };
        if let Some(trust_domain) = granted.anchor.material.trust_domain() {
            // Only the SPIFFE ID is vouched for: what else the certificate says of names is passed over, here and by
            // whoever asks which client it is.
            let id = spiffe::check_svid(leaf)?;
            if !id.is_of(trust_domain) {
                return Err(PeerRefusal::IssuerUnknown); // no search leads here: an id is sought under its own trust domain
            }
            if !space.any && !Names::is_under_a_prefix(id.as_str(), space) {
                return Err(outside(id.as_str()));
            }
            return revocation::judge(self.links(leaf), &granted.anchor, lists, now);
        }
        if naming == Naming::Svid {
            // A CA that may vouch for anything was not thereby made the authority of every trust domain.
            let id = spiffe::check_svid(leaf)?;
            if !Names::is_under_a_prefix(id.as_str(), space) {
                return Err(outside(id.as_str()));
            }
        }
        let names = leaf.names().map_err(|_| PeerRefusal::NameMalformed)?;
        if let Some(name) = names.first_outside(space) {
            return Err(PeerRefusal::OutsideNameSpace { name: name.into_owned() });
        }
        revocation::judge(self.links(leaf), &granted.anchor, lists, now)
    }

    /// Every certificate of the path but the anchor, the leaf first, each with who issued it.
    pub(super) fn links<'a>(&'a self, leaf: &'a ParsedCertificate) -> impl Iterator<Item = Link<'a>> {
        let issuers = self.intermediates.iter().map(|issuer| (&issuer.key_hash, &*issuer.signer));
        let issuers = issuers.chain([(&self.anchor.key_hash, &*self.anchor.signer)]);
        let of_leaf = Subject {
            serial: leaf.serial_number(),
            is_authority: false, // or it would have been refused
            points: leaf.crl_points(),
        };
        let certificates = std::iter::once((leaf.serial(), of_leaf, leaf.responder_urls())).chain(
            self.intermediates.iter().map(|issuer| {
                let subject = Subject { serial: issuer.serial_number, is_authority: true, points: &issuer.crl_points };
                (issuer.serial.as_str(), subject, issuer.responder_urls.as_slice())
            }),
        );
        certificates.zip(issuers).map(|((serial, subject, responder_urls), (issuer_key, issuer))| Link {
            serial,
            subject,
            responder_urls,
            issuer_key,
            issuer,
        })
    }

    /// RFC 5280 §4.2.1.12, by the anchor's policy. In an intermediate the extension restricts what it issues, as
    /// everyone reads it; it is never required there.
    fn check_purposes(&self, leaf: &ParsedCertificate, policy: EkuPolicy) -> Result<(), PeerRefusal> {
        let leaf_is_good = match (policy, leaf.purposes()) {
            (EkuPolicy::Any, _) | (EkuPolicy::IfPresent | EkuPolicy::Required, Purposes::ClientAuth) => true,
            (EkuPolicy::IfPresent, Purposes::Unstated) => true,
            (EkuPolicy::Required, Purposes::Unstated)
            | (EkuPolicy::IfPresent | EkuPolicy::Required, Purposes::Others) => false,
        };
        let path_is_good =
            policy == EkuPolicy::Any || self.intermediates.iter().all(|issuer| issuer.purposes != Purposes::Others);
        if leaf_is_good && path_is_good { Ok(()) } else { Err(PeerRefusal::PurposeMissing) }
    }
}

/// Builds a path from the leaf of `presented` to one of `anchors` that is good now.
///
/// # Errors
/// The most telling failure: of a path that reached an anchor, else of the nearest attempt; [`PeerRefusal::PathTooComplex`]
/// where `effort` did not last.
pub(super) fn build(
    presented: &PresentedChain,
    leaf: &ParsedCertificate,
    anchors: &Anchors,
    effort: &Effort,
    terms: &Terms<'_>,
) -> Result<Path, PeerRefusal> {
    let reached: RefCell<Option<Path>> = RefCell::new(None);
    let failed: RefCell<Option<PeerRefusal>> = RefCell::new(None);
    // Called for every path whose signatures, dates and constraints are good: the anchor's own terms decide which of them
    // is taken, so that a leaf inside one anchor's name space is not lost to another anchor that also issued it.
    let accept = |candidate: &VerifiedPath<'_>| {
        let path = path_of(candidate, presented, anchors).ok_or(webpki::Error::UnknownIssuer)?;
        match check_structure(&path, candidate, presented).and_then(|()| path.judge(leaf, terms)) {
            Ok(()) => {
                reached.replace(Some(path));
                Ok(())
            }
            Err(refusal) => {
                failed.borrow_mut().get_or_insert(refusal);
                Err(webpki::Error::UnknownIssuer)
            }
        }
    };
    let searched = search(presented, leaf, anchors, effort, terms.now, &accept);
    match (searched, reached.into_inner(), failed.into_inner()) {
        (Ok(()), Some(path), _) => Ok(path),
        (_, _, Some(refusal)) => Err(refusal),
        (Err(refusal), ..) => Err(refusal),
        (Ok(()), None, None) => Err(PeerRefusal::IssuerUnknown), // webpki has asked `accept` if it is content
    }
}

/// Offers `accept` every path from the leaf to one of `anchors` whose signatures, dates and constraints are good at `at`,
/// until it takes one or `effort` is used up.
///
/// # Errors
/// Of the nearest attempt; [`PeerRefusal::PathTooComplex`] where `effort` did not last.
pub(super) fn search(
    presented: &PresentedChain,
    leaf: &ParsedCertificate,
    anchors: &Anchors,
    effort: &Effort,
    at: UnixTime,
    accept: &dyn Fn(&VerifiedPath<'_>) -> Result<(), webpki::Error>,
) -> Result<(), PeerRefusal> {
    let seconds = u64::try_from(at.as_seconds()).map_err(|_| PeerRefusal::NotYetValid)?;
    let der = presented.certificates().first().ok_or(PeerRefusal::NoCertificate)?;
    let end_entity = EndEntityCert::try_from(der).map_err(|error| refusal_of(&error))?;
    let intermediates: Vec<_> = presented.intermediates().iter().map(|issuer| issuer.der.clone()).collect();
    let candidates = Candidates::of(presented, leaf, anchors, effort)?;
    let metered = candidates.metered();
    let signatures: Vec<&dyn SignatureVerificationAlgorithm> =
        metered.iter().map(|algorithm| algorithm as &dyn SignatureVerificationAlgorithm).collect();
    let searched = end_entity.verify_for_usage(
        &signatures,
        &anchors.for_paths,
        &intermediates,
        PathTime::since_unix_epoch(std::time::Duration::from_secs(seconds)),
        EveryPurpose,
        None, // revocation lists are looked at in `judge`: on every request, and by each anchor's own terms
        Some(accept),
    );
    searched.map(|_| ()).map_err(|error| effort.refusal().unwrap_or_else(|| refusal_of(&error)))
}

/// What webpki's path is in our terms.
pub(super) fn path_of(candidate: &VerifiedPath<'_>, presented: &PresentedChain, anchors: &Anchors) -> Option<Path> {
    let place = anchors.for_paths.iter().position(|anchor| std::ptr::eq(anchor, candidate.anchor()))?;
    let intermediates = candidate
        .intermediate_certificates()
        .map(|issuer| {
            let facts = &presented.intermediates().iter().find(|known| known.der == issuer.der())?.facts;
            Some(PathCertificate {
                key_hash: *facts.key_hash(),
                signer: Arc::new(Signer::of(facts)),
                serial: facts.serial().to_owned(),
                serial_number: facts.serial_number(),
                crl_points: facts.crl_points().to_vec(),
                responder_urls: facts.responder_urls().to_vec(),
                not_before: facts.not_before(),
                not_after: facts.not_after(),
                purposes: facts.purposes(),
            })
        })
        .collect::<Option<Vec<_>>>()?;
    Some(Path { anchor: anchors.compiled.get(place)?.clone(), intermediates })
}

/// What webpki leaves out about the issuers in a path.
pub(super) fn check_structure(
    path: &Path,
    candidate: &VerifiedPath<'_>,
    presented: &PresentedChain,
) -> Result<(), PeerRefusal> {
    let mut below = 0;
    for issuer in candidate.intermediate_certificates() {
        let known = presented.intermediates().iter().find(|known| known.der == issuer.der());
        let facts = &known.ok_or(PeerRefusal::IssuerUnknown)?.facts;
        // RFC 5280 §4.1.2.2, as of the leaf. An anchor's own number nobody asks: roots of zero are many.
        if !facts.serial_is_positive() {
            return Err(PeerRefusal::Malformed);
        }
        // RFC 5280 §6.1.4 (n): if key usage is present, keyCertSign is set.
        if facts.key_usage().is_some_and(|usage| !usage.key_cert_sign) {
            return Err(PeerRefusal::IssuerNotAuthority);
        }
        if facts.key_strength() == KeyStrength::Insufficient {
            return Err(PeerRefusal::IssuerKeyTooWeak);
        }
        if let Some(trust_domain) = &path.anchor.trust_domain {
            spiffe::check_issuer(facts, trust_domain)?;
        }
        // RFC 5280 §6.1.4 (l): self-issued certificates do not count towards a path length.
        below += usize::from(!facts.is_self_issued());
    }
    // RFC 5280 §6.2: the anchor's certificate may limit the path too, and here its limit counts.
    if path.anchor.path_length.is_some_and(|limit| below > limit) {
        return Err(PeerRefusal::PathTooLong);
    }
    Ok(())
}

/// Purposes are judged by the anchor's policy, in [`Path::judge`].
struct EveryPurpose;

impl ExtendedKeyUsageValidator for EveryPurpose {
    fn validate(&self, _: KeyPurposeIdIter<'_, '_>) -> Result<(), webpki::Error> {
        Ok(())
    }
}

/// webpki's most telling failure in our words. The leaf's own dates were looked at before.
fn refusal_of(error: &webpki::Error) -> PeerRefusal {
    use webpki::Error;
    match error {
        Error::CertExpired { .. } | Error::CertNotValidYet { .. } | Error::InvalidCertValidity => {
            PeerRefusal::IssuerOutOfDate
        }
        Error::CaUsedAsEndEntity => PeerRefusal::IsAuthority,
        Error::EndEntityUsedAsCa => PeerRefusal::IssuerNotAuthority,
        Error::InvalidSignatureForPublicKey
        | Error::SignatureAlgorithmMismatch
        | Error::UnsupportedSignatureAlgorithmContext(_)
        | Error::UnsupportedSignatureAlgorithmForPublicKeyContext(_) => PeerRefusal::SignatureInvalid,
        Error::NameConstraintViolation | Error::MalformedNameConstraint | Error::InvalidNetworkMaskConstraint => {
            PeerRefusal::NameConstraintViolated
        }
        Error::PathLenConstraintViolated | Error::MaximumPathDepthExceeded => PeerRefusal::PathTooLong,
        Error::MaximumNameConstraintComparisonsExceeded
        | Error::MaximumPathBuildCallsExceeded
        | Error::MaximumSignatureChecksExceeded => PeerRefusal::PathTooComplex,
        Error::UnsupportedCertVersion => PeerRefusal::VersionUnsupported,
        Error::UnsupportedCriticalExtension => PeerRefusal::CriticalExtensionUnknown,
        Error::EmptyEkuExtension => PeerRefusal::PurposeMissing,
        Error::UnknownIssuer => PeerRefusal::IssuerUnknown,
        _ => PeerRefusal::Malformed,
    }
}
