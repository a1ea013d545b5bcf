//! Does an anchor's word stand behind a certificate, good now or not?
//!
//! Takes what a peer presented and a client's record, gives the anchor that signatures lead to, and the first name that is
//! outside what it may vouch for. It tells whose a certificate is, never that it is good: whoever issued it once, for an
//! instant that may be over, is all that is asked.

use std::borrow::Cow;
use std::cell::RefCell;

use countersign_resource_server::time::UnixTime;
use webpki::VerifiedPath;

use super::ParsedCertificate;
use super::anchor::{Anchors, CompiledAnchor};
use super::chain::{self, Effort, check_structure, path_of};
use super::presented::PresentedChain;
use crate::registry::trust_anchor::AnchorOwner;
use crate::registry::{AnchorId, ClientRecord};

/// An anchor whose word stands behind a certificate.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Kinship {
    /// The anchor.
    pub anchor: AnchorId,
    /// First and last second of the anchor's own certificate.
    pub anchor_dates: (UnixTime, UnixTime),
    /// The first name of the certificate that the anchor may not vouch for, for this participant; also where names cannot
    /// be read.
    pub outside: Option<String>,
    /// Whether it is a certificate of this participant, rather than of somebody who shares the anchor: the anchor is the
    /// participant's alone; or every name is inside a name space that not everybody is in; or it carries the client's own
    /// name, which under one anchor is one participant's.
    pub is_of_the_participant: bool,
}

/// The anchor that signatures lead to, at one of the instants at which the path may have been in date; where they lead to
/// several, one that tells whose the certificate is.
pub(super) fn find(
    presented: &PresentedChain,
    anchors: &Anchors,
    record: &ClientRecord,
    now: UnixTime,
) -> Option<Kinship> {
    let leaf = presented.leaf()?;
    // Now, or as near as the leaf was in date; and when the youngest of them had just been issued.
    let youngest = presented.issuer_dates().map(|(from, _)| from).fold(leaf.not_before(), UnixTime::max);
    let mut instants = vec![now.max(leaf.not_before()).min(leaf.not_after()), youngest];
    instants.dedup();
    let effort = Effort::after_reading(presented, leaf);
    instants.into_iter().find_map(|at| leads_to(presented, leaf, anchors, record, &effort, at))
}

fn leads_to(
    presented: &PresentedChain,
    leaf: &ParsedCertificate,
    anchors: &Anchors,
    record: &ClientRecord,
    effort: &Effort,
    at: UnixTime,
) -> Option<Kinship> {
    let found: RefCell<Option<Kinship>> = RefCell::new(None);
    let accept = |candidate: &VerifiedPath<'_>| {
        let path = path_of(candidate, presented, anchors).ok_or(webpki::Error::UnknownIssuer)?;
        check_structure(&path, candidate, presented).map_err(|_| webpki::Error::UnknownIssuer)?;
        let kinship = through(path.anchor, leaf, record).ok_or(webpki::Error::UnknownIssuer)?;
        let is_enough = kinship.is_of_the_participant;
        found.replace(Some(kinship));
        // Another path may tell more.
        if is_enough { Ok(()) } else { Err(webpki::Error::UnknownIssuer) }
    };
    // Whatever ended the search: what was found before counts.
    drop(chain::search(presented, leaf, anchors, effort, at, &accept));
    found.into_inner()
}

fn through(anchor: CompiledAnchor, leaf: &ParsedCertificate, record: &ClientRecord) -> Option<Kinship> {
    let granted = record.anchors.iter().find(|granted| granted.anchor.id == anchor.id)?;
    let outside = match leaf.names() {
        Ok(names) => names.first_outside(&granted.name_space).map(Cow::into_owned),
        Err(malformed) => Some(malformed.to_string()),
    };
    let names_the_client = || {
        let rule = record.client.authentication.subject();
        rule.is_some_and(|rule| leaf.names().is_ok_and(|names| names.match_rule(rule)))
    };
    let is_of_the_participant = match &granted.anchor.owner {
        AnchorOwner::Participant(owner) => *owner == record.participant.id,
        // Shared: whoever else it is granted to has certificates under it as well.
        AnchorOwner::Operator => (outside.is_none() && !granted.name_space.any) || names_the_client(),
    };
    let anchor_dates = (anchor.not_before, anchor.not_after);
    Some(Kinship { anchor: anchor.id, anchor_dates, outside, is_of_the_participant })
}

#[cfg(test)]
mod tests {
    use countersign_conformance::KeyKind;
    use countersign_conformance::pki::{Authority, Credential, Defect, Name, Template};

    use super::*;
    use crate::pki::Verifier;
    use crate::pki::scene::{NOW, Scene, anchor_id, now, presented};
    use crate::registry::trust_anchor::{AnchorState, NameSpace};

    fn kinship(scene: &Scene, credential: &Credential) -> Option<Kinship> {
        Verifier::new().kinship(&presented(credential), &scene.record, now())
    }

    fn is_told(scene: &Scene, credential: &Credential) -> bool {
        kinship(scene, credential).is_some_and(|kinship| kinship.is_of_the_participant)
    }

    fn within(suffix: &str) -> NameSpace {
        NameSpace { dn_suffixes: vec![suffix.to_owned()], ..NameSpace::default() }
    }

    #[test]
    fn whatever_is_wrong_with_its_dates_and_purposes() {
        let root = Authority::root("Partner A CA", NOW);
        let scene = Scene::new("partner-a").trusting(&root);
        let template = Template::client(Name::common("anybody"), NOW);
        for defect in [
            Defect::Expired,
            Defect::ExpiredLongAgo,
            Defect::NotYetValid,
            Defect::PurposeServerAuth,
            Defect::NoDigitalSignature,
        ] {
            let credential = root.issue(&template.clone().with(defect, NOW), KeyKind::P256);
            let kinship = kinship(&scene, &credential).unwrap_or_else(|| panic!("{defect:?}"));
            assert_eq!((kinship.anchor, kinship.outside), (anchor_id(&root.certificate), None), "{defect:?}");
        }
        let expired = Template { not_after: NOW - 1, ..Template::authority(Name::common("Issuing"), NOW) };
        let below_expired = root.intermediate_with(&expired).issue(&template, KeyKind::P256);
        assert!(is_told(&scene, &below_expired), "an intermediate that ended while the leaf goes on");
    }

    #[test]
    fn an_authority_of_that_name_is_nobody() {
        let root = Authority::root("Partner A CA", NOW);
        let scene = Scene::new("partner-a").trusting(&root);
        assert_eq!(kinship(&scene, &root.twin().client("client")), None);
        assert_eq!(kinship(&scene, &root.client("client").with_broken_signature()), None);
        let not_an_authority = Authority::pretended(Name::common("x"), &root.client("x"), NOW);
        assert_eq!(kinship(&scene, &not_an_authority.client("client")), None);
    }

    #[test]
    fn an_anchor_that_is_retired_speaks_for_nobody() {
        let root = Authority::root("Partner A CA", NOW);
        let scene = Scene::new("partner-a").granting(
            &root.certificate,
            |anchor| anchor.state = AnchorState::Retired,
            within("O=Partner A"),
        );
        assert_eq!(kinship(&scene, &root.client("client")), None);
    }

    #[test]
    fn under_a_shared_anchor_only_what_tells_participants_apart() {
        let root = Authority::root("Everybody's CA", NOW);
        let shared = |name_space| {
            Scene::new("partner-a").granting(
                &root.certificate,
                |anchor| anchor.owner = AnchorOwner::Operator,
                name_space,
            )
        };
        let named = |organisation: &str| {
            let subject = Name::of(&[("O", organisation), ("CN", "another client")]);
            root.issue(&Template::client(subject, NOW), KeyKind::P256)
        };
        let anything = NameSpace { any: true, ..NameSpace::default() };
        assert!(is_told(&shared(within("O=Partner A")), &named("Partner A")));
        assert!(!is_told(&shared(within("O=Partner A")), &named("Partner B")));
        assert!(!is_told(&shared(anything.clone()), &named("Partner A")), "everybody is inside it");
        assert!(is_told(&shared(anything), &root.client("client")), "the client's own name");
        assert!(is_told(&Scene::new("partner-a").trusting(&root), &named("Partner B")), "an anchor of its own");
    }

    #[test]
    fn an_anchor_of_another_participant_says_nothing() {
        let root = Authority::root("CA", NOW);
        let other = Scene::new("partner-b").record.participant.id;
        let scene = Scene::new("partner-a").granting(
            &root.certificate,
            |anchor| anchor.owner = AnchorOwner::Participant(other),
            within("CN=client"),
        );
        assert!(!is_told(&scene, &root.client("client")));
    }
}
