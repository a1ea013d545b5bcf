//! What one search for a path may cost.
//!
//! Takes what may be part of a path, and stands between webpki, which looks for one, and its signature algorithms: each
//! check is paid for at the price of its key, none is made twice for one list, and none is made with an issuer whose key identifier
//! says that it is another one than is meant. When the means are used up, every further check fails. It knows nothing of
//! what makes a path good.

use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Mutex, PoisonError};

use rustls_pki_types::{AlgorithmIdentifier, InvalidSignature, SignatureVerificationAlgorithm, alg_id};

use crate::pki::PeerRefusal;
use crate::pki::anchor::Anchors;
use crate::pki::certificate::{KeyStrength, ParsedCertificate};
use crate::pki::der;
use crate::pki::outline::Outline;
use crate::pki::presented::PresentedChain;
use crate::pki::signature::SIGNATURES;

/// What reading and judging one list may still cost, and what the search ran into. Several looks at the same list share it.
#[derive(Debug)]
pub(in crate::pki) struct Effort {
    /// In microseconds, by the prices below.
    left: AtomicU32,
    exhausted: AtomicBool,
    met_weak_key: AtomicBool,
}

/// In microseconds of CPU. A hostile list is to cost a millisecond at most (issue 3); the rest is what measuring leaves
/// open: the core that the prices are from is not the slowest there is. That is enough for a leaf and four intermediates
/// with RSA 2048 or P-256 keys under the last of eight anchors of one name, none of which has a key identifier; for two
/// intermediates on P-384; for one on P-521.
const MEANS: u32 = 780;

/// What was read when the list came in, and what webpki reads again. Names cost most, and honest ones are short.
fn price_of_reading(presented: &PresentedChain, leaf: &ParsedCertificate) -> usize {
    let certificates = 1 + presented.intermediates().len();
    let octets: usize = presented.certificates().iter().map(|der| der.len()).sum();
    40 + 10 * certificates + octets / 200 + leaf.subject_der().len() / 14 + leaf.alt_name_count() * 13 / 10
}

/// How many comparisons of a name of usual length with a name constraint cost a microsecond, the longest names one
/// certificate holds a hundred of included. webpki alone would stop at 250,000.
const NAME_COMPARISONS_PER_MICROSECOND: usize = 8;

impl Effort {
    /// What is left after reading the list.
    pub(in crate::pki) fn after_reading(presented: &PresentedChain, leaf: &ParsedCertificate) -> Self {
        let reading = u32::try_from(price_of_reading(presented, leaf)).unwrap_or(u32::MAX);
        Self {
            left: AtomicU32::new(MEANS.saturating_sub(reading)),
            exhausted: AtomicBool::new(false),
            met_weak_key: AtomicBool::new(false),
        }
    }

    /// Pays, if there is enough left.
    fn pay(&self, price: u32) -> Result<(), Exhausted> {
        let paid = self.left.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |left| left.checked_sub(price));
        paid.map(|_| ()).map_err(|_| {
            self.exhausted.store(true, Ordering::Relaxed);
            Exhausted
        })
    }

    /// Why no path was found, where that was a matter of effort or of a key that was not tried.
    pub(super) fn refusal(&self) -> Option<PeerRefusal> {
        if self.exhausted.load(Ordering::Relaxed) {
            return Some(PeerRefusal::PathTooComplex);
        }
        self.met_weak_key.load(Ordering::Relaxed).then_some(PeerRefusal::IssuerKeyTooWeak)
    }
}

/// What checks of the signatures in one list came to: whoever looks at the list next, for whatever reason, pays for them
/// anew and does not make them again. What is found does so not depend on who has looked before.
#[derive(Debug, Default)]
pub(in crate::pki) struct Outcomes(Mutex<Vec<(Check, Result<(), InvalidSignature>)>>);

/// Checks that are remembered of one list: as many as one search can pay for.
const MOST_OUTCOMES: usize = 40;

/// An algorithm, the place of a certificate in the list, and a key.
type Check = (usize, usize, Vec<u8>);

impl Outcomes {
    fn known(&self, check: &Check) -> Option<Result<(), InvalidSignature>> {
        let outcomes = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        outcomes.iter().find(|(known, _)| known == check).map(|(_, outcome)| *outcome)
    }

    fn add(&self, check: Check, outcome: Result<(), InvalidSignature>) {
        let mut outcomes = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if outcomes.len() >= MOST_OUTCOMES {
            // Anchors come and go for as long as a list is shown.
            drop(outcomes.remove(0));
        }
        outcomes.push((check, outcome));
    }
}

/// There was not enough left.
#[derive(Clone, Copy, Debug)]
struct Exhausted;

/// What a search may use, as the checks meet it: by octets.
#[derive(Debug)]
pub(super) struct Candidates<'a> {
    effort: &'a Effort,
    certificates: Vec<Signed<'a>>,
    issuers: Vec<Issuer<'a>>,
    known: &'a Outcomes,
    /// What this search has paid for.
    paid: Outcomes,
}

/// A certificate whose signature may be checked.
#[derive(Debug)]
struct Signed<'a> {
    content: &'a [u8],
    signature: &'a [u8],
    issuer: &'a [u8],
    authority_key_id: Option<&'a [u8]>,
}

/// Somebody who may have signed it.
#[derive(Debug)]
struct Issuer<'a> {
    /// The contents of its subject's SEQUENCE.
    subject: &'a [u8],
    subject_key_id: Option<&'a [u8]>,
    public_key: &'a [u8],
    strength: KeyStrength,
}

impl<'a> Candidates<'a> {
    /// What `presented`, with this leaf, and `anchors` have to offer.
    ///
    /// # Errors
    /// [`PeerRefusal::PathTooComplex`] if there are more names and name constraints in it than can be paid for,
    /// [`PeerRefusal::Malformed`] for what cannot be read.
    pub(super) fn of(
        presented: &'a PresentedChain,
        leaf: &'a ParsedCertificate,
        anchors: &'a Anchors,
        effort: &'a Effort,
    ) -> Result<Self, PeerRefusal> {
        let leaf_der = presented.certificates().first().ok_or(PeerRefusal::NoCertificate)?;
        let listed = std::iter::once((&leaf_der[..], leaf))
            .chain(presented.intermediates().iter().map(|issuer| (&issuer.der[..], &issuer.facts)));
        let mut candidates = Self {
            effort,
            certificates: Vec::new(),
            issuers: Vec::new(),
            known: presented.outcomes(),
            paid: Outcomes::default(),
        };
        let (mut names, mut constraints, mut paths) = (0, 0, 1);
        for (place, (der, facts)) in listed.enumerate() {
            let outline = Outline::of(der).map_err(|der::NotDer| PeerRefusal::Malformed)?;
            candidates.certificates.push(Signed {
                content: outline.to_be_signed,
                signature: whole_octets(outline.signature).map_err(|der::NotDer| PeerRefusal::Malformed)?,
                issuer: outline.issuer.contents,
                authority_key_id: facts.authority_key_id(),
            });
            // The subject is a name too.
            names += 1 + facts.alt_name_count();
            if place > 0 {
                constraints += facts.name_constraint_count();
                // Whoever is certified twice is on twice as many paths, each of which is compared anew.
                if candidates.issuers.iter().any(|other| other.subject == outline.subject.contents) {
                    paths *= 2;
                }
                candidates.issuers.push(Issuer {
                    subject: outline.subject.contents,
                    subject_key_id: facts.subject_key_id(),
                    public_key: public_key(outline.public_key_info).map_err(|der::NotDer| PeerRefusal::Malformed)?,
                    strength: facts.key_strength(),
                });
            }
        }
        let mut of_an_anchor = 0;
        for (anchor, compiled) in anchors.for_paths.iter().zip(&anchors.compiled) {
            if !candidates.certificates.iter().any(|signed| signed.issuer == anchor.subject.as_ref()) {
                continue; // nothing in the list was issued under this name
            }
            of_an_anchor = compiled.name_constraint_count.max(of_an_anchor);
            candidates.issuers.push(Issuer {
                subject: &anchor.subject,
                subject_key_id: compiled.subject_key_id.as_deref(),
                public_key: public_key(&anchor.subject_public_key_info)
                    .map_err(|der::NotDer| PeerRefusal::IssuerUnknown)?,
                strength: KeyStrength::Sufficient, // else it would not have been compiled
            });
        }
        let comparisons = names.saturating_mul(constraints + of_an_anchor).saturating_mul(paths);
        let price = u32::try_from(comparisons / NAME_COMPARISONS_PER_MICROSECOND).unwrap_or(u32::MAX);
        effort.pay(price).map_err(|Exhausted| PeerRefusal::PathTooComplex)?;
        Ok(candidates)
    }

    /// The algorithms that a signature may be of, each check of which goes through here.
    pub(super) fn metered(&self) -> Vec<Metered<'_>> {
        (0..SIGNATURES.len()).map(|algorithm| Metered { algorithm, candidates: self }).collect()
    }

    /// RFC 5280 §4.2.1.1: the identifier of the key that signed a certificate. It proves nothing, but where somebody has
    /// the key that is meant, whoever has another one need not be tried.
    fn is_another(&self, signed: &Signed<'_>, public_key: &[u8]) -> bool {
        let Some(wanted) = signed.authority_key_id else { return false };
        let mut namesakes = self.issuers.iter().filter(|issuer| issuer.subject == signed.issuer);
        let is_meant = namesakes.clone().any(|issuer| issuer.subject_key_id == Some(wanted));
        is_meant
            && !namesakes.any(|issuer| {
                issuer.public_key == public_key && issuer.subject_key_id.is_none_or(|identifier| identifier == wanted)
            })
    }

    fn check(
        &self,
        algorithm: usize,
        public_key: &[u8],
        message: &[u8],
        signature: &[u8],
    ) -> Result<(), InvalidSignature> {
        let verifier = SIGNATURES.get(algorithm).ok_or(InvalidSignature)?;
        // webpki checks nothing but what it was given; should it ever, that is refused unpaid.
        let place = self
            .certificates
            .iter()
            .position(|signed| signed.content == message && signed.signature == signature)
            .ok_or(InvalidSignature)?;
        let key = self.issuers.iter().position(|issuer| issuer.public_key == public_key).ok_or(InvalidSignature)?;
        let check = (algorithm, place, public_key.to_owned());
        if let Some(outcome) = self.paid.known(&check) {
            return outcome;
        }
        if self.certificates.get(place).is_none_or(|signed| self.is_another(signed, public_key)) {
            return Err(InvalidSignature);
        }
        // An intermediate's key, whose size nobody has bounded yet: what is no good is not worth a check.
        if self.issuers.get(key).is_none_or(|issuer| issuer.strength == KeyStrength::Insufficient) {
            self.effort.met_weak_key.store(true, Ordering::Relaxed);
            return Err(InvalidSignature);
        }
        let price = price_of(*verifier, public_key).ok_or(InvalidSignature)?;
        self.effort.pay(price).map_err(|Exhausted| InvalidSignature)?;
        let outcome = self.known.known(&check).unwrap_or_else(|| {
            let outcome = verifier.verify_signature(public_key, message, signature);
            self.known.add(check.clone(), outcome);
            outcome
        });
        self.paid.add(check, outcome);
        outcome
    }
}

/// An algorithm each of whose checks goes through [`Candidates::check`].
#[derive(Debug)]
pub(super) struct Metered<'a> {
    algorithm: usize,
    candidates: &'a Candidates<'a>,
}

impl SignatureVerificationAlgorithm for Metered<'_> {
    fn verify_signature(&self, public_key: &[u8], message: &[u8], signature: &[u8]) -> Result<(), InvalidSignature> {
        self.candidates.check(self.algorithm, public_key, message, signature)
    }

    fn public_key_alg_id(&self) -> AlgorithmIdentifier {
        SIGNATURES[self.algorithm].public_key_alg_id()
    }

    fn signature_alg_id(&self) -> AlgorithmIdentifier {
        SIGNATURES[self.algorithm].signature_alg_id()
    }
}

/// What a check costs, in microseconds of one core of 2026: measured by `bench/src/bin/bombs.rs` and rounded up. On another
/// machine all of them are wrong by one factor, which is what its milliseconds are, too. What has no price is not checked.
fn price_of(verifier: &dyn SignatureVerificationAlgorithm, public_key: &[u8]) -> Option<u32> {
    match verifier.public_key_alg_id() {
        id if id == alg_id::ECDSA_P256 => Some(52),
        id if id == alg_id::ECDSA_P384 => Some(195),
        id if id == alg_id::ECDSA_P521 => Some(340),
        id if id == alg_id::ED25519 => Some(40),
        id if id == alg_id::RSA_ENCRYPTION => {
            // RFC 8017 §A.1.1: SEQUENCE { modulus, publicExponent }
            let (modulus, exponent) = rsa_lengths(public_key).unwrap_or((usize::MAX, usize::MAX));
            // Longer exponents than the usual 65,537 take more squarings and multiplications; aws-lc takes 33 bits at most.
            Some(match (modulus, exponent) {
                (..=257, ..=3) => 20,
                (..=385, ..=3) => 40,
                (..=513, ..=3) => 65,
                (..=257, _) => 45,
                (..=385, _) => 95,
                _ => 160,
            })
        }
        _ => None,
    }
}

fn rsa_lengths(public_key: &[u8]) -> Result<(usize, usize), der::NotDer> {
    let mut numbers = der::whole(public_key, der::SEQUENCE)?;
    let modulus = der::expect(&mut numbers, der::INTEGER)?;
    let exponent = der::expect(&mut numbers, der::INTEGER)?;
    Ok((modulus.len(), exponent.len()))
}

/// The subjectPublicKey in the contents of a SubjectPublicKeyInfo.
fn public_key(mut info: &[u8]) -> Result<&[u8], der::NotDer> {
    der::expect(&mut info, der::SEQUENCE)?;
    whole_octets(der::whole(info, der::BIT_STRING)?)
}

/// A BIT STRING of whole octets.
fn whole_octets(bits: &[u8]) -> Result<&[u8], der::NotDer> {
    match bits.split_first() {
        Some((0, octets)) => Ok(octets),
        _ => Err(der::NotDer),
    }
}

#[cfg(test)]
mod tests {
    use countersign_conformance::KeyKind;
    use countersign_conformance::pki::{AltName, Authority, Credential, Name, Template};

    use super::*;
    use crate::pki::anchor::AnchorSet;
    use crate::pki::scene::{NOW, Scene, now, presented};
    use crate::pki::{Standing, Verifier};

    const P256_SHA256: usize = 0;

    fn root(name: &str, kind: KeyKind, key_identifiers: bool) -> Authority {
        let template = Template { key_identifiers, ..Template::authority(Name::common(name), NOW) };
        Authority::root_with(template, kind, NOW)
    }

    fn leaf(key_identifiers: bool) -> Template {
        Template { key_identifiers, ..Template::client(Name::common("client"), NOW) }
    }

    fn trusting(roots: &[Authority]) -> Scene {
        roots.iter().fold(Scene::new("partner-a"), Scene::trusting)
    }

    fn judged(scene: &Scene, credential: &Credential) -> Result<Standing, PeerRefusal> {
        let verified = Verifier::new().verify_at_once(&presented(credential), &scene.client(), now());
        verified.map(|peer| peer.standing().clone())
    }

    /// Runs `look` on the candidates of `credential` under `roots`, and gives what it cost.
    fn cost(roots: &[Authority], credential: &Credential, look: impl FnOnce(&Candidates<'_>)) -> u32 {
        let scene = trusting(roots);
        let anchors = AnchorSet::compile(&scene.record.anchors).active;
        let presented = presented(credential);
        let leaf = presented.leaf().unwrap();
        let effort = Effort::after_reading(&presented, leaf);
        let candidates = Candidates::of(&presented, leaf, &anchors, &effort).unwrap();
        let before = effort.left.load(Ordering::Relaxed);
        look(&candidates);
        before - effort.left.load(Ordering::Relaxed)
    }

    fn key_of(root: &Authority) -> Vec<u8> {
        public_key(der::whole(&root.key.spki(), der::SEQUENCE).unwrap()).unwrap().to_vec()
    }

    #[test]
    fn no_check_is_made_twice() {
        let roots = [root("Root", KeyKind::P256, true), root("Root", KeyKind::P256, true)];
        let credential = roots[0].issue(&leaf(false), KeyKind::P256);
        let outline = Outline::of(credential.certificate()).unwrap();
        let signature = whole_octets(outline.signature).unwrap();
        for (root, good) in [(&roots[0], true), (&roots[1], false)] {
            let paid = cost(&roots, &credential, |candidates| {
                for _ in 0..3 {
                    let checked = candidates.check(P256_SHA256, &key_of(root), outline.to_be_signed, signature);
                    assert_eq!(checked.is_ok(), good);
                }
            });
            assert_eq!(paid, 52, "{good}");
        }
    }

    #[test]
    fn an_outcome_is_remembered_for_its_signature_alone() {
        let roots = [root("Root", KeyKind::P256, true)];
        let credential = roots[0].issue(&leaf(true), KeyKind::P256);
        let outline = Outline::of(credential.certificate()).unwrap();
        let signature = whole_octets(outline.signature).unwrap();
        let mut bent = signature.to_vec();
        *bent.last_mut().unwrap() ^= 1;
        let paid = cost(&roots, &credential, |candidates| {
            let check = |algorithm, content: &[u8], signature: &[u8]| {
                candidates.check(algorithm, &key_of(&roots[0]), content, signature).is_ok()
            };
            assert!(check(P256_SHA256, outline.to_be_signed, signature));
            assert!(!check(P256_SHA256, outline.to_be_signed, &bent));
            assert!(!check(P256_SHA256, &outline.to_be_signed[1..], signature));
            assert!(!check(P256_SHA256 + 1, outline.to_be_signed, signature)); // with SHA-384: another check
            assert!(!check(SIGNATURES.len(), outline.to_be_signed, signature));
        });
        // What is not in the list is nobody's to check.
        assert_eq!(paid, 2 * 52);
    }

    #[test]
    fn whoever_is_not_meant_is_not_tried_where_the_one_who_is_is_there() {
        let roots = [root("Root", KeyKind::P256, true), root("Root", KeyKind::P256, true)];
        let meant = roots[0].issue(&leaf(true), KeyKind::P256);
        let outline = Outline::of(meant.certificate()).unwrap();
        let signature = whole_octets(outline.signature).unwrap();
        let tried = |of: &[Authority], key: &Authority| {
            cost(of, &meant, |candidates| {
                let _ = candidates.check(P256_SHA256, &key_of(key), outline.to_be_signed, signature);
            })
        };
        assert_eq!(tried(&roots, &roots[0]), 52);
        assert_eq!(tried(&roots, &roots[1]), 0);
        // Alone, or beside one that does not say who it is, it is.
        assert_eq!(tried(&roots[1..], &roots[1]), 52);
        let silent = root("Root", KeyKind::P256, false);
        assert_eq!(tried(&[roots[0].clone(), silent.clone()], &silent), 52);
    }

    #[test]
    fn a_path_is_found_under_the_last_of_eight_anchors_of_one_name() {
        for kind in [KeyKind::P256, KeyKind::Ed25519, KeyKind::Rsa2048] {
            let roots: Vec<_> = (0..8).map(|_| root("Root", kind, false)).collect();
            let scene = trusting(&roots);
            for root in &roots {
                let mut issuer = root.clone();
                for level in 0..4 {
                    let template = Template::authority(Name::common(&format!("Level {level}")), NOW);
                    issuer = issuer.intermediate_with(&Template { key_identifiers: false, ..template });
                }
                let judged = judged(&scene, &issuer.issue(&leaf(false), KeyKind::P256));
                assert!(matches!(judged, Ok(Standing::Chained { .. })), "{kind:?}: {judged:?}");
            }
        }
    }

    #[test]
    fn how_deep_a_path_on_a_dear_curve_may_be() {
        for (kind, deepest) in [(KeyKind::P384, 2), (KeyKind::P521, 1)] {
            for (depth, expected) in [(deepest, true), (deepest + 1, false)] {
                let root = root("Root", kind, true);
                let (mut issuer, mut above) = (root.clone(), Vec::new());
                for level in 0..depth {
                    let template = Template::authority(Name::common(&format!("Level {level}")), NOW);
                    let made = issuer.issue(&template, kind);
                    above.insert(0, made.certificate().to_vec());
                    issuer = Authority::pretended(template.subject, &made, NOW);
                }
                let mut credential = issuer.issue(&leaf(true), KeyKind::P256);
                credential.chain.truncate(1);
                credential.chain.extend(above);
                let judged = judged(&trusting(std::slice::from_ref(&root)), &credential);
                assert_eq!(judged.is_ok(), expected, "{kind:?} {depth}");
                assert!(expected || judged == Err(PeerRefusal::PathTooComplex), "{kind:?} {depth}: {judged:?}");
            }
        }
    }

    /// Eight anchors of one name, and a list full of others of that name.
    fn hostile(kind: KeyKind) -> (Scene, Credential) {
        let roots: Vec<_> = (0..8).map(|_| root("Same", kind, true)).collect();
        let mut credential = root("Same", kind, true).issue(&leaf(false), KeyKind::P256);
        credential.chain.extend((0..4).map(|_| root("Same", kind, true).certificate));
        (trusting(&roots), credential)
    }

    #[test]
    fn a_hostile_list_is_refused_when_the_means_are_used_up() {
        for kind in [KeyKind::P384, KeyKind::P521] {
            let (scene, credential) = hostile(kind);
            assert_eq!(judged(&scene, &credential), Err(PeerRefusal::PathTooComplex), "{kind:?}");
        }
    }

    /// `/certificate-check` asks whose a certificate is, then whether it is good.
    #[test]
    fn two_questions_about_a_hostile_list_cost_the_checks_of_one() {
        for kind in [KeyKind::P384, KeyKind::P521] {
            let (scene, credential) = hostile(kind);
            let (verifier, client) = (Verifier::new(), scene.client());
            let made = |peer: &PresentedChain| peer.outcomes().0.lock().unwrap().len();
            let by_itself = presented(&credential);
            assert_eq!(verifier.verify_at_once(&by_itself, &client, now()).err(), Some(PeerRefusal::PathTooComplex));
            let verifier = Verifier::new();
            let asked_before = presented(&credential);
            assert_eq!(verifier.kinship(&asked_before, &scene.record, now()), None);
            let of_the_first = made(&asked_before);
            assert_eq!(verifier.verify_at_once(&asked_before, &client, now()).err(), Some(PeerRefusal::PathTooComplex));
            assert!(of_the_first > 0);
            assert_eq!((made(&asked_before), made(&by_itself)), (of_the_first, of_the_first), "{kind:?}");
        }
    }

    /// What was found before is found again, and not found instead of something else: the search itself is the same.
    #[test]
    fn a_second_look_pays_what_the_first_paid() {
        let roots = [root("Root", KeyKind::P256, true), root("Root", KeyKind::P256, true)];
        let credential = roots[0].issue(&leaf(false), KeyKind::P256);
        let outline = Outline::of(credential.certificate()).unwrap();
        let signature = whole_octets(outline.signature).unwrap();
        let anchors = AnchorSet::compile(&trusting(&roots).record.anchors).active;
        let presented = presented(&credential);
        let leaf = presented.leaf().unwrap();
        for look in ["first", "second"] {
            let effort = Effort::after_reading(&presented, leaf);
            let candidates = Candidates::of(&presented, leaf, &anchors, &effort).unwrap();
            let before = effort.left.load(Ordering::Relaxed);
            for (root, good) in [(&roots[0], true), (&roots[1], false)] {
                let checked = candidates.check(P256_SHA256, &key_of(root), outline.to_be_signed, signature);
                assert_eq!(checked.is_ok(), good, "{look}");
            }
            assert_eq!(before - effort.left.load(Ordering::Relaxed), 2 * 52, "{look}");
        }
    }

    #[test]
    fn a_key_that_is_too_weak_or_too_long_is_not_tried() {
        let root = root("Root", KeyKind::P256, true);
        let weak = root.issue(&Template::authority(Name::common("Weak"), NOW), KeyKind::Rsa4224);
        let issuer = Authority::pretended(Name::common("Weak"), &weak, NOW);
        let credential = issuer.issue(&leaf(true), KeyKind::P256);
        assert_eq!(judged(&trusting(std::slice::from_ref(&root)), &credential), Err(PeerRefusal::IssuerKeyTooWeak));
    }

    #[test]
    fn names_and_constraints_are_paid_for_before_they_are_compared() {
        let root = root("Root", KeyKind::P256, true);
        let scene = trusting(std::slice::from_ref(&root));
        let with = |subtrees: usize, names: usize| {
            let mut template = Template::authority(Name::common("Issuing"), NOW);
            template.excluded = (0..subtrees).map(|number| AltName::Dns(format!("{number}.x"))).collect();
            let alt_names = (0..names).map(|number| AltName::Dns(format!("{number}.example")));
            judged(
                &scene,
                &root.intermediate_with(&template).issue(&leaf(true).with_alt_names(alt_names), KeyKind::P256),
            )
        };
        assert!(with(60, 20).is_ok());
        assert!(with(30, 100).is_ok());
        assert_eq!(with(700, 100), Err(PeerRefusal::PathTooComplex));
    }
}
