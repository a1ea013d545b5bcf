//! What storage of trust domains is: one owner each, bundles that replace each other in order, and what that ends.

use countersign_conformance::spiffe::{Domain, bundle};
use countersign_resource_server::status::MarkKind;
use serde_json::Value;

use super::Bench;
use crate::pki::spiffe::TrustDomain;
use crate::registry::client::{ClientAuthentication, SubjectAttribute, SubjectRule};
use crate::registry::edit::EditRefusal;
use crate::registry::fixture::{NOW, anchor, anchor_id, any_name, because, client, participant_id};
use crate::registry::trust_anchor::{AnchorMaterial, AnchorOwner, BundleEndpoint, NameSpace, TrustAnchor};
use crate::registry::{AnchorId, Page, RegistryVersion};

contract!(
    a_trust_domain_has_one_owner,
    a_trust_domain_goes_by_its_name,
    a_bundle_is_replaced_only_where_it_is_the_one_held,
    what_a_bundle_loses_ends,
    what_ends_a_trust_domain_ends_its_jwt_svids,
    everything_but_the_bundle_of_a_trust_domain_is_changed_like_an_anchor,
    a_spiffe_id_is_one_participants_whatever_the_method,
    trust_domains_are_listed_by_themselves,
);

const NAME: &str = "a.example";

fn domain() -> Domain {
    Domain::new(NAME, NOW.as_seconds())
}

fn trust_domain(name: &str, bundle: &str) -> TrustAnchor {
    let name = TrustDomain::parse(name).unwrap();
    TrustAnchor {
        id: AnchorId::of_trust_domain(&name),
        subject: format!("spiffe://{name}"),
        material: AnchorMaterial::TrustDomain {
            trust_domain: name,
            endpoint: BundleEndpoint::File,
            bundle: bundle.to_owned(),
        },
        ..anchor("unused")
    }
}

fn spiffe(id: &str) -> SubjectRule {
    SubjectRule { attribute: SubjectAttribute::TlsClientAuthSanUri, value: id.to_owned(), canonical: id.to_owned() }
}

/// Participant `acme` with [`NAME`] as `domain` has it, and clients of every method.
async fn populate(bench: &Bench, domain: &Domain) -> AnchorId {
    bench.populate().await;
    let anchor = trust_domain(NAME, &domain.bundle(1));
    let id = anchor.id.clone();
    bench.registry.add_anchor(anchor, b"a.example".to_vec(), because("their SPIRE")).await.unwrap();
    bench.registry.grant_anchor(participant_id("acme"), id.clone(), any_name(), because("theirs")).await.unwrap();
    for (name, authentication) in [
        ("by-jwt", ClientAuthentication::SpiffeJwt { subject: spiffe("spiffe://a.example/jwt") }),
        ("by-x509", ClientAuthentication::SpiffeX509 { subject: spiffe("spiffe://a.example/x509") }),
        ("by-uri", ClientAuthentication::TlsClientAuth { subject: spiffe("spiffe://a.example/uri") }),
        // Not of this trust domain, though alike to whoever takes a dot or an underscore for any character.
        ("other-jwt", ClientAuthentication::SpiffeJwt { subject: spiffe("spiffe://a_example/jwt") }),
        ("longer-jwt", ClientAuthentication::SpiffeJwt { subject: spiffe("spiffe://a.example.evil/jwt") }),
    ] {
        let mut made = client(name, "acme");
        made.authentication = authentication;
        bench.registry.add_client(made, vec![], because("new client")).await.unwrap();
    }
    id
}

async fn replace(bench: &Bench, held: &str, next: &str) -> Result<RegistryVersion, EditRefusal> {
    let id = AnchorId::of_trust_domain(&TrustDomain::parse(NAME).unwrap());
    bench.registry.replace_bundle(id, held.to_owned(), next.to_owned(), because("rotation")).await
}

async fn a_trust_domain_has_one_owner(bench: &Bench) {
    bench.populate().await;
    let mut own = trust_domain(NAME, &domain().bundle(1));
    own.owner = AnchorOwner::Participant(participant_id("acme"));
    let id = own.id.clone();
    bench.registry.add_anchor(own, b"x".to_vec(), because("their SPIRE")).await.unwrap();
    bench.join("bolt", &[], "ca").await;
    // Brought by another, with other keys: the sentence says whom to ask, not who has it.
    let again = || async {
        let mut theirs = trust_domain(NAME, &domain().bundle(1));
        theirs.owner = AnchorOwner::Participant(participant_id("bolt"));
        bench.registry.add_anchor(theirs, b"x".to_vec(), because("mine")).await.unwrap_err()
    };
    let refused = again().await;
    assert!(matches!(refused, EditRefusal::TrustDomainTaken { .. }), "{refused:?}");
    assert!(refused.to_string().contains("ask the operator") && !refused.to_string().contains("acme"), "{refused}");
    let grant = bench.registry.grant_anchor(participant_id("bolt"), id.clone(), any_name(), because("share")).await;
    assert!(matches!(grant, Err(EditRefusal::AnchorOfAnother)));
    bench.registry.retire_anchor(id, because("over")).await.unwrap();
    assert!(matches!(again().await, EditRefusal::TrustDomainTaken { .. }));
}

async fn a_trust_domain_goes_by_its_name(bench: &Bench) {
    bench.populate().await;
    let broken = bench.registry.add_anchor(trust_domain(NAME, "{"), b"x".to_vec(), because("x")).await;
    assert!(matches!(broken, Err(EditRefusal::Malformed(_))), "{broken:?}");
    for id in ["td~b.example", "a.example"] {
        let misnamed = TrustAnchor { id: anchor_id(id), ..trust_domain(NAME, &domain().bundle(1)) };
        let refused = bench.registry.add_anchor(misnamed, b"x".to_vec(), because("x")).await;
        assert!(matches!(refused, Err(EditRefusal::Malformed(_))), "{id}: {refused:?}");
    }
}

async fn a_bundle_is_replaced_only_where_it_is_the_one_held(bench: &Bench) {
    let (old, new) = (domain(), domain());
    let id = populate(bench, &old).await;
    let (first, second) = (old.bundle(1), new.bundle(2));
    let before = bench.record("by-x509").await;
    let version = replace(bench, &first, &second).await.unwrap();
    // Another node saw the same first bundle.
    let late = replace(bench, &first, &domain().bundle(3)).await;
    assert!(matches!(late, Err(EditRefusal::BundleOvertaken)), "{late:?}");
    let after = bench.record("by-x509").await;
    assert!(after.as_of >= version && after.anchor_set != before.anchor_set);
    let entry = bench.registry.history(RegistryVersion(version.0 - 1), None, 1).await.unwrap().remove(0);
    assert_eq!((entry.action.as_str(), entry.subject), ("anchor.replace_bundle", format!("anchor:{id}")));
    let bundle_of = |record: Option<Value>| record.unwrap()["bundle"].as_str().unwrap().to_owned();
    assert_eq!((bundle_of(entry.before), bundle_of(entry.after)), (first.clone(), second.clone()));
    // What is none is refused, and leaves the one that is held.
    assert!(matches!(replace(bench, &second, "{").await, Err(EditRefusal::Malformed(_))));
    assert_eq!(bench.registry.anchor(&id).await.unwrap().unwrap().material.octets(), second.as_bytes());
    let none = bench.registry.replace_bundle(anchor_id("ca"), String::new(), second.clone(), because("x")).await;
    assert!(matches!(none, Err(EditRefusal::Malformed(_))), "{none:?}");
    let nowhere = bench.registry.replace_bundle(anchor_id("td~b.example"), first, second.clone(), because("x")).await;
    assert!(matches!(nowhere, Err(EditRefusal::NotFound { .. })), "{nowhere:?}");
    bench.registry.retire_anchor(id, because("over")).await.unwrap();
    assert!(matches!(replace(bench, &second, &old.bundle(4)).await, Err(EditRefusal::StateForbids { .. })));
}

async fn what_a_bundle_loses_ends(bench: &Bench) {
    let (old, new) = (domain(), domain());
    let id = populate(bench, &old).await;
    let anchor_mark = || bench.mark_of(MarkKind::Anchor, id.as_str());
    let client_mark = async |name: &str| bench.mark_of(MarkKind::Client, name).await;
    let first = old.bundle(1);
    let both = bundle(2, &[old.x509_key(), old.jwt_authority(), new.x509_key(), new.jwt_authority()]);
    replace(bench, &first, &both).await.unwrap();
    assert_eq!((anchor_mark().await, client_mark("by-jwt").await), (None, None));
    let no_old_jwt = bundle(3, &[old.x509_key(), new.x509_key(), new.jwt_authority()]);
    let version = replace(bench, &both, &no_old_jwt).await.unwrap();
    assert_eq!((anchor_mark().await, client_mark("by-jwt").await), (None, Some(version)));
    for name in ["by-x509", "by-uri", "other-jwt", "longer-jwt", "acme-1"] {
        assert_eq!(client_mark(name).await, None, "{name}");
    }
    let later = replace(bench, &no_old_jwt, &new.bundle(4)).await.unwrap();
    assert_eq!((anchor_mark().await, client_mark("by-jwt").await), (Some(later), Some(version)));
}

async fn what_ends_a_trust_domain_ends_its_jwt_svids(bench: &Bench) {
    let id = populate(bench, &domain()).await;
    let mark = || bench.mark_of(MarkKind::Client, "by-jwt");
    let narrow = NameSpace { uri_prefixes: vec!["spiffe://a.example/x".to_owned()], ..NameSpace::default() };
    let acme = || participant_id("acme");
    let narrowed = bench.registry.grant_anchor(acme(), id.clone(), narrow, because("x")).await.unwrap();
    assert_eq!(mark().await, Some(narrowed));
    let withdrawn = bench.registry.withdraw_anchor(acme(), id.clone(), because("x")).await.unwrap();
    assert_eq!(mark().await, Some(withdrawn));
    bench.registry.grant_anchor(acme(), id.clone(), any_name(), because("x")).await.unwrap();
    assert_eq!(mark().await, Some(withdrawn));
    let retired = bench.registry.retire_anchor(id, because("x")).await.unwrap();
    assert_eq!(mark().await, Some(retired));
    assert_eq!(bench.mark_of(MarkKind::Client, "other-jwt").await, None);
}

async fn everything_but_the_bundle_of_a_trust_domain_is_changed_like_an_anchor(bench: &Bench) {
    let id = populate(bench, &domain()).await;
    let stored = bench.registry.anchor(&id).await.unwrap().unwrap();
    let with = |endpoint: BundleEndpoint, bundle: Option<String>, name: &str| {
        let mut changed = stored.clone();
        let AnchorMaterial::TrustDomain { bundle: held, .. } = &stored.material else { panic!("a trust domain") };
        changed.material = AnchorMaterial::TrustDomain {
            trust_domain: TrustDomain::parse(name).unwrap(),
            endpoint,
            bundle: bundle.unwrap_or_else(|| held.clone()),
        };
        bench.registry.change_anchor(changed, because("x"))
    };
    // Where it comes from: no token rests on that.
    let web = BundleEndpoint::HttpsWeb { url: "https://a.example/bundle".to_owned() };
    with(web.clone(), None, NAME).await.unwrap();
    assert_eq!(bench.mark_of(MarkKind::Anchor, id.as_str()).await, None);
    let stored_endpoint = bench.registry.anchor(&id).await.unwrap().unwrap();
    assert!(matches!(stored_endpoint.material, AnchorMaterial::TrustDomain { endpoint, .. } if endpoint == web));
    for refused in [
        with(web.clone(), Some(domain().bundle(2)), NAME).await,
        with(web, None, "b.example").await,
        bench
            .registry
            .change_anchor(TrustAnchor { material: anchor("ca").material, ..stored.clone() }, because("x"))
            .await,
    ] {
        assert!(matches!(refused, Err(EditRefusal::Malformed(_))), "{refused:?}");
    }
}

/// One (anchor, attribute, canonical value) is one participant's, whichever method names it.
async fn a_spiffe_id_is_one_participants_whatever_the_method(bench: &Bench) {
    let id = populate(bench, &domain()).await;
    bench.join("bolt", &[], "other-ca").await;
    bench.registry.grant_anchor(participant_id("bolt"), id, any_name(), because("shared")).await.unwrap();
    for taken in ["spiffe://a.example/jwt", "spiffe://a.example/x509", "spiffe://a.example/uri"] {
        for authentication in [
            ClientAuthentication::SpiffeJwt { subject: spiffe(taken) },
            ClientAuthentication::SpiffeX509 { subject: spiffe(taken) },
            ClientAuthentication::TlsClientAuth { subject: spiffe(taken) },
        ] {
            let mut twin = client("bolt-1", "bolt");
            twin.authentication = authentication;
            let refused = bench.registry.add_client(twin, vec![], because("twin")).await;
            assert!(matches!(refused, Err(EditRefusal::IdentityTaken { .. })), "{taken}: {refused:?}");
        }
    }
    let mut free = client("bolt-1", "bolt");
    free.authentication = ClientAuthentication::SpiffeJwt { subject: spiffe("spiffe://a.example/free") };
    bench.registry.add_client(free, vec![], because("new client")).await.unwrap();
}

async fn trust_domains_are_listed_by_themselves(bench: &Bench) {
    populate(bench, &domain()).await;
    for name in ["z.example", "b.example"] {
        let more = trust_domain(name, &Domain::new(name, NOW.as_seconds()).bundle(1));
        bench.registry.add_anchor(more, name.into(), because("x")).await.unwrap();
    }
    let listed = |page| async move {
        let all = bench.registry.trust_domains(page).await.unwrap();
        all.iter().map(|anchor| anchor.id.to_string()).collect::<Vec<_>>()
    };
    assert_eq!(listed(Page::first(2)).await, ["td~a.example", "td~b.example"]);
    assert_eq!(listed(Page::after("td~b.example", 2)).await, ["td~z.example"]);
    assert_eq!(bench.registry.anchors(Page::first(10)).await.unwrap().len(), 4);
}
