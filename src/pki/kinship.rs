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
use super::anchor::{AnchorSet, Anchors, CompiledAnchor};
use super::chain::{self, Effort, check_structure, path_of};
use super::identity::Names;
use super::presented::PresentedChain;
use crate::registry::client::SubjectAttribute;
use crate::registry::trust_anchor::AnchorOwner;
use crate::registry::{AnchorId, ClientRecord, GrantedAnchor, KeyHash};

/// An anchor whose word stands behind a certificate.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Kinship {
    /// The anchor.
    pub anchor: AnchorId,
    /// The hash of the key that signatures lead to: one of several, of a trust domain.
    pub anchor_key: KeyHash,
    /// First and last second of the anchor's own certificate.
    pub anchor_dates: (UnixTime, UnixTime),
    /// The first name of the certificate that the anchor may not vouch for, for this participant; also where names cannot
    /// be read.
    pub outside: Option<String>,
    /// Whether it is a certificate of this participant, rather than of somebody who shares the anchor: the anchor is the
    /// participant's alone; or every name is inside a name space that not everybody is in; or it carries the client's own
    /// name, which under one anchor is one participant's.
    pub is_of_the_participant: bool,
    /// Whether it carries the client's registered name, and as one that the anchor speaks of at all: a trust domain speaks
    /// of SPIFFE IDs alone.
    pub names_the_client: bool,
}

/// The anchor that signatures lead to, at one of the instants at which the path may have been in date; where they lead to
/// several, one that tells whose the certificate is.
pub(super) fn find(
    presented: &PresentedChain,
    anchors: &AnchorSet,
    record: &ClientRecord,
    now: UnixTime,
) -> Option<Kinship> {
    let leaf = presented.leaf()?;
    // Now, or as near as the leaf was in date; and when the youngest of them had just been issued.
    let youngest = presented.issuer_dates().map(|(from, _)| from).fold(leaf.not_before(), UnixTime::max);
    let mut instants = vec![now.max(leaf.not_before()).min(leaf.not_after()), youngest];
    instants.dedup();
    let effort = Effort::after_reading(presented, leaf);
    // As a path is sought: the trust domain is chosen by the id, and a CA may have been given its names as well.
    let of_its_id = leaf.spiffe_id().id().and_then(|id| anchors.trust_domain_of(id));
    let among: Vec<&Anchors> = of_its_id.into_iter().chain([&anchors.active]).collect();
    let mut found = None;
    for at in instants {
        for anchors in &among {
            match leads_to(presented, leaf, anchors, record, &effort, at) {
                Some(kinship) if kinship.is_of_the_participant => return Some(kinship),
                other => found = found.or(other),
            }
        }
    }
    found
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
    let is_trust_domain = granted.anchor.material.trust_domain().is_some();
    let (outside, names_the_client) =
        if is_trust_domain { by_its_id(leaf, granted, record) } else { by_its_names(leaf, granted, record) };
    // What has no name at all is inside every name space, everybody's.
    let has_a_name = leaf.names().is_ok_and(|names| names.all().next().is_some());
    let is_told_apart = has_a_name && outside.is_none() && !granted.name_space.any;
    let is_of_the_participant = match &granted.anchor.owner {
        AnchorOwner::Participant(owner) => *owner == record.participant.id,
        // Shared: whoever else it is granted to has certificates under it as well. An id is the participant's by its prefix:
        // one outside is another's, also where a client was registered under it by mistake.
        AnchorOwner::Operator => is_told_apart || (names_the_client && (outside.is_none() || !is_trust_domain)),
    };
    let (anchor_key, anchor_dates) = (anchor.key_hash, (anchor.not_before, anchor.not_after));
    Some(Kinship { anchor: anchor.id, anchor_key, anchor_dates, outside, is_of_the_participant, names_the_client })
}

/// The first name outside, and whether the client's is among them: every name that the certificate has.
fn by_its_names(leaf: &ParsedCertificate, granted: &GrantedAnchor, record: &ClientRecord) -> (Option<String>, bool) {
    let rule = record.client.authentication.subject();
    match leaf.names() {
        Ok(names) => (
            names.first_outside(&granted.name_space).map(Cow::into_owned),
            rule.is_some_and(|rule| names.match_rule(rule)),
        ),
        Err(malformed) => (Some(malformed.to_string()), false),
    }
}

/// The same under a trust domain, which vouches for the SPIFFE ID and for nothing else that the certificate says.
fn by_its_id(leaf: &ParsedCertificate, granted: &GrantedAnchor, record: &ClientRecord) -> (Option<String>, bool) {
    let Some(id) = leaf.spiffe_id().id() else { return (Some("no SPIFFE ID".to_owned()), false) };
    let space = &granted.name_space;
    let is_inside = space.any || Names::is_under_a_prefix(id.as_str(), space);
    let names_the_client =
        record.client.authentication.subject().is_some_and(|rule| {
            rule.attribute == SubjectAttribute::TlsClientAuthSanUri && rule.canonical == id.as_str()
        });
    ((!is_inside).then(|| id.to_string()), names_the_client)
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use countersign_conformance::KeyKind;
    use countersign_conformance::pki::{AltName, Authority, Credential, Defect, Name, Template};
    use countersign_conformance::spiffe::Domain;

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
        let nameless = root.issue(&Template::client(Name::of(&[]), NOW), KeyKind::P256);
        assert!(!is_told(&shared(within("O=Partner A")), &nameless), "so is a certificate without any name");
        assert!(!is_told(&shared(anything.clone()), &named("Partner A")), "everybody is inside it");
        assert!(is_told(&shared(anything), &root.client("client")), "the client's own name");
        assert!(is_told(&Scene::new("partner-a").trusting(&root), &named("Partner B")), "an anchor of its own");
    }

    #[test]
    fn an_anchor_of_another_participant_says_nothing() {
        let root = Authority::root("CA", NOW);
        let other = Scene::new("partner-b").record.participant.id.clone();
        let scene = Scene::new("partner-a").granting(
            &root.certificate,
            |anchor| anchor.owner = AnchorOwner::Participant(other),
            within("CN=client"),
        );
        assert!(!is_told(&scene, &root.client("client")));
    }

    fn in_domain(domain: &Domain, prefix: &str, owner: fn(&Scene) -> AnchorOwner) -> Scene {
        let space = NameSpace { uri_prefixes: vec![domain.id(prefix)], ..NameSpace::default() };
        let scene = Scene::new("partner-a").trusting_bundle(&domain.name, &domain.bundle(1), space);
        let owner = owner(&scene);
        let mut scene = scene.named(SubjectAttribute::TlsClientAuthSanUri, &domain.id("/a/client"));
        for granted in &mut scene.record.anchors {
            Arc::make_mut(&mut granted.anchor).owner = owner.clone();
        }
        scene
    }

    #[test]
    fn an_svid_is_of_whoever_its_trust_domain_speaks_for() {
        let domain = Domain::new("a.test", NOW);
        let own = in_domain(&domain, "/a/", |scene| AnchorOwner::Participant(scene.record.participant.id.clone()));
        let found = kinship(&own, &domain.svid("/a/client")).unwrap();
        assert!(found.is_of_the_participant && found.names_the_client && found.outside.is_none(), "{found:?}");
        let found = kinship(&own, &domain.svid("/a/other")).unwrap();
        assert!(found.is_of_the_participant && !found.names_the_client, "{found:?}");
        // Its own word, also where it is too wide.
        let found = kinship(&own, &domain.svid("/b/other")).unwrap();
        assert_eq!((found.outside, found.is_of_the_participant), (Some(domain.id("/b/other")), true));
        let expired = domain.svid_with("/a/client", |template| template.not_after = NOW - 1);
        assert!(is_told(&own, &expired), "good now or not");
        assert_eq!(kinship(&own, &domain.rotated().svid("/a/client")), None, "another key of the same name");
        // Another trust domain's id under this one's key.
        let foreign = Domain { name: "b.test".to_owned(), ..domain };
        assert_eq!(kinship(&own, &foreign.svid("/a/client")), None);
    }

    #[test]
    fn under_a_shared_trust_domain_only_what_is_below_the_participants_prefixes() {
        let domain = Domain::new("shared.test", NOW);
        let shared = in_domain(&domain, "/a/", |_| AnchorOwner::Operator);
        assert!(is_told(&shared, &domain.svid("/a/other")));
        for outside in ["/b/client", "/ab", "/a"] {
            assert!(!is_told(&shared, &domain.svid(outside)), "{outside}");
        }
        // Registered by mistake under an id of somebody else's: that one is not told.
        let astray = shared.clone().named(SubjectAttribute::TlsClientAuthSanUri, &domain.id("/b/client"));
        assert!(!is_told(&astray, &domain.svid("/b/client")));
        // A name that the trust domain does not speak of is not the client's.
        let by_dns = shared.named(SubjectAttribute::TlsClientAuthSanDns, "client.example");
        let two = |template: &mut Template| template.alt_names.push(AltName::Dns("client.example".to_owned()));
        let found = kinship(&by_dns, &domain.svid_with("/a/x", two)).unwrap();
        assert!(found.is_of_the_participant && !found.names_the_client, "{found:?}");
        assert!(!is_told(&by_dns, &domain.svid_with("/b/x", two)));
    }
}
