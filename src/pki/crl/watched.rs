//! What the keeper knows of one anchor and of one place: whose lists are taken there, and when it is looked at again.
//!
//! Takes what was found there, gives when it is due: before its lists run out, and after failures in growing steps. It
//! fetches nothing itself.

use std::collections::BTreeMap;
use std::sync::Arc;

use countersign_resource_server::time::UnixTime;
use sha2::{Digest, Sha256};
use tokio::sync::mpsc;

use super::source::{Fingerprint, Place};
use super::verification::{ListIssuer, add_issued};
use crate::pki::bundle::Bundle;
use crate::registry::AnchorId;
use crate::registry::trust_anchor::{AnchorMaterial, TrustAnchor};

/// An address is asked again after so many ticks at the latest: a list may come out of its turn.
const REFRESH_TICKS: u64 = 3_600;

/// And not before so many, however close the list's end is.
const SHORTEST_REFRESH_TICKS: u64 = 30;

/// After failures: the first wait, doubled each time, and the longest.
const RETRY_TICKS: (u64, u64) = (5, 600);

/// An address is not asked again sooner than this for somebody's sake who has just become known: whoever certifies under a
/// shared anchor can become known as often as it likes.
const LEARNT_TICKS: u64 = 5;

/// Of more lists at one place than this it is forgotten what was said of each.
const MOST_SAID: usize = 2_048;

/// Intermediates learnt from paths, for each anchor: the latest.
const MOST_LEARNT: usize = 64;

/// An anchor and a place where it, or a certificate under it, says that lists are.
pub(super) type SourceId = (AnchorId, String);

/// Held until what somebody waits for has happened; nothing is ever sent.
pub(super) type Waiting = mpsc::Sender<Never>;

/// What is never sent.
#[derive(Debug)]
pub(super) enum Never {}

/// A place that is looked at.
#[derive(Debug)]
pub(super) struct Source {
    pub(super) place: Place,
    /// Named by certificates only, and last so many ticks after the start.
    pub(super) point_since: Option<u64>,
    pub(super) due: u64,
    pub(super) failures: u32,
    pub(super) looking: bool,
    pub(super) looked: bool,
    /// Whether something there was refused this time; the earliest nextUpdate of what was not.
    pub(super) refused: bool,
    pub(super) next_update: Option<UnixTime>,
    /// Some list there is of nobody known: worth another look when somebody becomes known.
    pub(super) issuer_unknown: bool,
    pub(super) fingerprint: Option<Fingerprint>,
    pub(super) read_at: u64,
    /// The tick at which the last look began.
    pub(super) began: u64,
    /// Whom lists there are taken from has changed since then.
    pub(super) again: bool,
    /// The tick from which on it may be looked at again for that.
    soonest: u64,
    /// What was said of each list there last, so that the log says it once.
    pub(super) said: BTreeMap<String, String>,
    pub(super) waiting: Vec<Waiting>,
}

impl Source {
    pub(super) fn new(location: &str, point_since: Option<u64>) -> Self {
        Self {
            place: Place::of(location),
            point_since,
            due: 0,
            failures: 0,
            looking: false,
            looked: false,
            refused: false,
            next_update: None,
            issuer_unknown: false,
            fingerprint: None,
            read_at: 0,
            began: 0,
            again: false,
            soonest: 0,
            said: BTreeMap::new(),
            waiting: Vec::new(),
        }
    }

    /// Whether a look is to come, or under way, that may find what was not there before.
    pub(super) const fn is_awaited(&self) -> bool {
        !self.looked || self.again || (self.looking && self.issuer_unknown)
    }

    /// Whoever may sign lists was changed by an operator: everything there is judged anew, at once.
    pub(super) const fn judge_anew(&mut self) {
        (self.due, self.soonest, self.fingerprint, self.again) = (0, 0, None, true);
    }

    /// Somebody has become known whose list may be there. A file is looked at anew at once, and so is an address that was
    /// not asked for this long.
    pub(super) const fn look_for_the_learnt(&mut self) {
        let soonest = match self.place {
            // An operator's change that is to be judged waits for nothing.
            Place::Url(_) if self.looked && !(self.again && self.soonest == 0) => self.began + LEARNT_TICKS,
            _ => 0,
        };
        (self.due, self.soonest, self.fingerprint, self.again) = (soonest, soonest, None, true);
    }

    /// Whether a list there may be somebody's who has just become known. A look under way has not said yet whose lists it
    /// found, and judges them by those known when it began; an address that was looked at before is not asked anew for that
    /// alone.
    pub(super) const fn may_lack_an_issuer(&self) -> bool {
        self.issuer_unknown || (self.looking && (!self.looked || matches!(self.place, Place::Path(_))))
    }

    /// Everything there has been found: says when it is looked at again.
    pub(super) fn looked(&mut self, id: &SourceId, fingerprint: Option<Fingerprint>, tick: u64, now: UnixTime) {
        self.looking = false;
        self.looked = true;
        if fingerprint.is_none() || self.fingerprint != fingerprint {
            self.read_at = tick;
        }
        self.fingerprint = fingerprint;
        // Whoever waited looks at the lists now; unless that look had begun too early.
        let again = self.again;
        self.waiting.retain(|waiting| again && !waiting.is_closed());
        if self.said.len() > MOST_SAID {
            self.said.clear();
        }
        let ticks = if self.refused {
            self.failures += 1;
            let doubled = RETRY_TICKS.0.saturating_mul(1 << self.failures.saturating_sub(1).min(16));
            doubled.min(RETRY_TICKS.1)
        } else {
            self.failures = 0;
            // Half of what is left, so that there are tries to spare before the end.
            let left = self.next_update.map_or(0, |end| end.as_seconds().saturating_sub(now.as_seconds()) / 2);
            u64::try_from(left).unwrap_or(0).clamp(SHORTEST_REFRESH_TICKS, REFRESH_TICKS)
        };
        self.due = tick + jittered(ticks, id, tick);
        if self.again {
            (self.due, self.fingerprint) = (self.soonest, None);
        }
    }
}

/// An anchor whose lists are kept.
#[derive(Debug)]
pub(super) struct Watched {
    pub(super) anchor: TrustAnchor,
    pub(super) learnt: Vec<Vec<u8>>,
    /// The anchor first, or each authority of a trust domain, then those they certified.
    pub(super) issuers: Vec<Arc<ListIssuer>>,
    /// How many of them are the anchor's own.
    own: usize,
}

impl Watched {
    pub(super) fn new(anchor: TrustAnchor, learnt: Vec<Vec<u8>>) -> Option<Self> {
        let issuers: Vec<_> = match &anchor.material {
            AnchorMaterial::X509 { certificate_der } => ListIssuer::anchor(certificate_der).into_iter().collect(),
            AnchorMaterial::TrustDomain { trust_domain, bundle, .. } => {
                let bundle = Bundle::parse(bundle.as_bytes(), trust_domain).ok()?;
                bundle.x509_authorities.iter().filter_map(|der| ListIssuer::anchor(der)).collect()
            }
        };
        if issuers.is_empty() {
            return None;
        }
        let own = issuers.len();
        let mut watched = Self { anchor, learnt, issuers: issuers.into_iter().map(Arc::new).collect(), own };
        watched.know_issuers();
        Some(watched)
    }

    /// Takes in the certificate of an intermediate, if the anchor has certified it, directly or through others; says whether it
    /// is new.
    pub(super) fn learn(&mut self, intermediates: Vec<Vec<u8>>) -> bool {
        let known = self.issuers.len();
        let candidates: Vec<&[u8]> = intermediates.iter().map(Vec::as_slice).collect();
        add_issued(&mut self.issuers, &candidates);
        let new: Vec<Arc<ListIssuer>> = self.issuers.iter().skip(known).cloned().collect();
        // What nobody known has issued is not kept: whoever presents a certificate can present others beside it.
        self.learnt.extend(new.iter().filter_map(|issuer| issuer.chain.first().cloned()));
        if self.learnt.len() > MOST_LEARNT {
            while self.learnt.len() > MOST_LEARNT {
                let place = self.least_missed();
                self.learnt.remove(place);
            }
            self.know_issuers();
        }
        !new.is_empty()
    }

    /// The oldest of those below the subordinate that has most of them: whoever may certify under a shared anchor pushes out
    /// its own, and nobody else's.
    fn least_missed(&self) -> usize {
        let top = |der: &Vec<u8>| {
            let issuer = self.issuers.iter().find(|issuer| issuer.is(der));
            issuer.and_then(|issuer| issuer.chain.last()).map(Vec::as_slice)
        };
        let tops: Vec<Option<&[u8]>> = self.learnt.iter().map(top).collect();
        let count = |top: &Option<&[u8]>| tops.iter().filter(|other| *other == top).count();
        // Of equals the first is the oldest.
        let most = tops.iter().map(count).max().unwrap_or_default();
        tops.iter().position(|top| count(top) == most).unwrap_or_default()
    }

    pub(super) fn know_issuers(&mut self) {
        self.issuers.truncate(self.own);
        let given = self.anchor.revocation.crls.iter().filter_map(|source| source.issuer_der.as_deref());
        let candidates: Vec<&[u8]> = given.chain(self.learnt.iter().map(Vec::as_slice)).collect();
        add_issued(&mut self.issuers, &candidates);
    }
}

/// The issuers of `anchor` that are known without having seen a path: itself, and those its sources name.
pub(super) fn known_issuers(anchor: &TrustAnchor) -> Vec<Arc<ListIssuer>> {
    Watched::new(anchor.clone(), Vec::new()).map(|watched| watched.issuers).unwrap_or_default()
}

/// `ticks`, give or take a fifth: not all sources at one time, and not all nodes.
fn jittered(ticks: u64, id: &SourceId, tick: u64) -> u64 {
    let mut hash = Sha256::new();
    hash.update(id.1.as_bytes());
    hash.update(std::process::id().to_be_bytes());
    hash.update(tick.to_be_bytes());
    let octet: u64 = hash.finalize().first().copied().unwrap_or_default().into();
    (ticks * (204 + octet * 102 / 255) / 255).max(1)
}

#[cfg(test)]
mod tests {
    use countersign_conformance::pki::Authority;

    use super::*;
    use crate::pki::scene::{NOW, Scene, now};

    fn source_at(tick: u64, change: impl FnOnce(&mut Source)) -> Source {
        let mut source = Source::new("https://crl.example/1", None);
        change(&mut source);
        let id = (AnchorId::parse("anchor").unwrap(), "https://crl.example/1".to_owned());
        source.looked(&id, None, tick, now());
        source
    }

    #[test]
    fn an_address_is_asked_again_before_its_list_runs_out() {
        for (left, expected) in [(86_400, 3_600), (3_600, 1_800), (60, 30), (1, 30), (-1, 30)] {
            let end = UnixTime::from_seconds(NOW + left);
            let wait = source_at(100, |source| source.next_update = Some(end)).due - 100;
            assert!((expected * 4 / 5..=expected * 6 / 5).contains(&wait), "{left}: {wait}");
        }
    }

    #[test]
    fn failures_are_tried_again_in_growing_steps() {
        for (failures, expected) in [(0, 5), (1, 10), (2, 20), (5, 160), (7, 600), (60, 600)] {
            let source = source_at(100, |source| (source.refused, source.failures) = (true, failures));
            let wait = source.due - 100;
            assert!((expected * 4 / 5..=expected * 6 / 5).contains(&wait), "{failures}: {wait}");
        }
        assert_eq!(source_at(0, |source| source.failures = 9).failures, 0, "a success begins anew");
    }

    #[test]
    fn who_may_have_been_missed() {
        let of = |place: &str, change: fn(&mut Source)| {
            let mut source = Source::new(place, None);
            change(&mut source);
            source.may_lack_an_issuer()
        };
        let (url, path) = ("https://crl.example/1", "lists");
        for place in [url, path] {
            assert!(!of(place, |_| ()), "{place}: the next look knows");
            assert!(of(place, |source| source.looking = true), "{place}: its first look is under way");
            assert!(of(place, |source| source.issuer_unknown = true), "{place}");
        }
        assert!(!of(url, |source| (source.looking, source.looked) = (true, true)));
        assert!(of(path, |source| (source.looking, source.looked) = (true, true)));
    }

    #[test]
    fn an_address_is_not_asked_without_a_pause_however_many_become_known() {
        let began_at = |place: &str, began: u64| {
            let mut source = Source::new(place, None);
            (source.looked, source.issuer_unknown, source.began, source.due) = (true, true, began, began + 3_600);
            source.look_for_the_learnt();
            source
        };
        let (url, path) = ("https://crl.example/1", "lists");
        assert_eq!(began_at(url, 100).due, 100 + LEARNT_TICKS);
        assert!(began_at(url, 100).is_awaited(), "who waits for it waits for that look");
        assert_eq!(began_at(path, 100).due, 0);
        let mut first = Source::new(url, None);
        first.look_for_the_learnt();
        assert_eq!(first.due, 0, "its first look has not been");
        let mut under_way = began_at(url, 100);
        let id = (AnchorId::parse("anchor").unwrap(), url.to_owned());
        under_way.looked(&id, None, 102, now());
        assert_eq!(under_way.due, 100 + LEARNT_TICKS, "became known while it was asked");
        under_way.judge_anew();
        under_way.look_for_the_learnt();
        under_way.looked(&id, None, 102, now());
        assert_eq!(under_way.due, 0, "an operator's change waits for nothing");
    }

    #[test]
    fn only_what_the_anchor_has_certified_is_learnt_and_the_latest_of_it() {
        let root = Authority::root("Root", NOW);
        let scene = Scene::new("partner-a").trusting(&root);
        let anchor = scene.record.anchors.first().unwrap().anchor.as_ref().clone();
        let mut watched = Watched::new(anchor, Vec::new()).unwrap();
        let stranger = Authority::root("Root", NOW).intermediate("Issuing").certificate;
        assert!(!watched.learn(vec![stranger, root.twin().certificate, vec![0; 9]]));
        assert_eq!(watched.learnt.len(), 0);
        let policy = root.intermediate("Policy");
        let issuing = policy.intermediate("Issuing");
        assert!(watched.learn(vec![issuing.certificate.clone(), policy.certificate.clone()]));
        assert!(!watched.learn(vec![policy.certificate.clone()]), "known");
        assert_eq!((watched.learnt.len(), watched.issuers.len()), (2, 3));
        for number in 0..MOST_LEARNT {
            watched.learn(vec![root.intermediate(&format!("Issuing {number}")).certificate]);
        }
        assert_eq!((watched.learnt.len(), watched.issuers.len()), (MOST_LEARNT, 1 + MOST_LEARNT));
        assert!(!watched.issuers.iter().any(|issuer| issuer.is(&policy.certificate)), "the oldest made room");
    }

    #[test]
    fn who_certifies_much_under_a_shared_anchor_pushes_out_its_own() {
        let root = Authority::root("Shared", NOW);
        let scene = Scene::new("partner-a").trusting(&root);
        let anchor = scene.record.anchors.first().unwrap().anchor.as_ref().clone();
        let mut watched = Watched::new(anchor, Vec::new()).unwrap();
        let (ours, theirs) = (root.intermediate("Partner A"), root.intermediate("Partner B"));
        watched.learn(vec![ours.certificate.clone()]);
        watched.learn(vec![theirs.certificate.clone()]);
        for number in 0..2 * MOST_LEARNT {
            let below = theirs.intermediate(&format!("Partner B {number}"));
            watched.learn(vec![below.certificate, theirs.certificate.clone()]);
        }
        assert!(watched.issuers.iter().any(|issuer| issuer.is(&ours.certificate)));
        assert!(watched.learnt.len() <= MOST_LEARNT);
    }
}
