//! Whom a check makes the server ask: about a stranger's certificate nobody, whatever that certificate says.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use countersign::registry::certificate::CertificateState;
use countersign::registry::trust_anchor::{
    AnchorOwner, BundleEndpoint, NameSpace, NoncePolicy, OcspPolicy, RevocationSources, TrustAnchor, Unknown,
};
use countersign_conformance::KeyKind;
use countersign_conformance::crl::{RevocationList, distribution_points};
use countersign_conformance::ocsp::{self, HttpResponder, Reply, Status};
use countersign_conformance::pki::{Authority, Credential, Name, Template};
use countersign_conformance::spiffe::Domain;
use countersign_resource_server::time::Clock;

use super::{about, check, partner_a, refused, rig_without_bounds, trust};
use crate::revocation_lists::publisher;
use crate::rig::{Rig, thumbprint};
use crate::spiffe::{by_x509, register, trust_as};
use crate::world::{form_request, subject_of_a};

/// An authority that the operator shares with everybody, and everybody who could be asked about its certificates.
struct Scene {
    rig: Rig,
    shared: Authority,
    responder: HttpResponder,
    point: String,
    fetched: Arc<AtomicUsize>,
}

impl Scene {
    async fn set() -> Self {
        let rig = rig_without_bounds().await;
        let shared = Authority::root("Everybody's CA", rig.world.now);
        let list = RevocationList::new(1, rig.world.now).signed_by(&shared);
        let (address, fetched) = publisher(list, Duration::ZERO).await;
        let (issuer, now) = (shared.clone(), rig.clock.now().as_seconds());
        let responder = HttpResponder::start(move |asked| {
            let (id, nonce) = (asked.ids[0].clone(), asked.nonce.clone());
            Reply::Octets(ocsp::Response::by_issuer(&issuer, id, Status::Good, nonce, now).signed(&issuer.key))
        })
        .unwrap();
        let scene = Self { rig, shared, responder, point: format!("http://{address}/lists/1.crl"), fetched };
        let anything = NameSpace { any: true, ..NameSpace::default() };
        trust(&scene.rig, &scene.shared, AnchorOwner::Operator, scene.sources(), &anything).await;
        scene
    }

    /// Whatever certificates name may be asked.
    fn sources(&self) -> RevocationSources {
        let ocsp = OcspPolicy {
            responder_url: None,
            url_prefixes: vec![self.responder.url()],
            unknown: Unknown::Refuse,
            unreachable: Unknown::Refuse,
            nonce: NoncePolicy::IfPresent,
        };
        let prefix = self.point.trim_end_matches("1.crl").to_owned();
        RevocationSources { ocsp: Some(ocsp), crl_url_prefixes: vec![prefix], ..RevocationSources::default() }
    }

    /// A certificate that says who to ask about it.
    fn issued(&self, issuer: &Authority, template: Template) -> Credential {
        let mut template = template;
        template.extensions.push(ocsp::responders(&[&self.responder.url()]));
        template.extensions.push(distribution_points(&[&self.point]));
        issuer.issue(&template, KeyKind::P256)
    }

    fn named(&self, issuer: &Authority, name: Name) -> Credential {
        self.issued(issuer, Template::client(name, self.rig.world.now))
    }

    /// How often the responder was asked, and how often a list was fetched.
    fn asked(&self) -> (usize, usize) {
        (self.responder.asked().len(), self.fetched.load(Ordering::SeqCst))
    }
}

#[tokio::test]
async fn a_strangers_certificate_makes_the_server_ask_nobody() {
    let scene = Scene::set().await;
    let (rig, world) = (&scene.rig, &scene.rig.world);
    let below = scene.shared.intermediate("Everybody's Issuing CA");
    let domain = Domain::new("shared.test", world.now);
    let id = trust_as(rig, &domain.name, &domain.bundle(1), BundleEndpoint::File, None).await;
    let held = rig.app.registry.anchor(&id).await.unwrap().unwrap();
    let changed = TrustAnchor { unknown_revocation: Unknown::Refuse, revocation: scene.sources(), ..held };
    rig.app.registry.change_anchor(changed, rig.explanation()).await.unwrap();
    let anything = NameSpace { any: true, ..NameSpace::default() };
    rig.app.registry.grant_anchor(partner_a(), id, anything, rig.explanation()).await.unwrap();
    register(rig, "by-id", by_x509(&domain.id("/a"))).await;
    let strangers = [
        ("of the shared CA", scene.named(&scene.shared, Name::common("somebody else")), "a-dn"),
        ("below the shared CA", scene.named(&below, Name::common("somebody else")), "a-dn"),
        ("of the shared trust domain", scene.issued(&domain.authority, domain.template("/b")), "by-id"),
        ("of nobody's CA", scene.named(&world.stranger_root, subject_of_a("a-dn")), "a-dn"),
        ("of a CA of the same name", scene.named(&scene.shared.twin(), subject_of_a("a-dn")), "a-dn"),
        ("of another participant", scene.named(&world.b_root, subject_of_a("a-dn")), "a-dn"),
    ];
    for (whose, credential, client_id) in &strangers {
        for client_id in [*client_id, "nobody"] {
            for _ in 0..2 {
                let answer = check(rig, credential, client_id).await.json();
                assert_eq!(answer["known_here"], false, "{whose}, about {client_id}: {answer:#}");
            }
        }
        // Whoever keeps lists goes through what it learnt every second.
        rig.clock.advance(Duration::from_secs(2));
    }
    tokio::time::sleep(Duration::from_millis(2_500)).await;
    assert_eq!(scene.asked(), (0, 0), "about strangers");
    // All of it was there to be asked: a token request with the first of them does.
    let form = form_request(&[("grant_type", "client_credentials".to_owned()), ("client_id", "a-dn".to_owned())]);
    rig.peer(&strangers[0].1).ask(rig.address, &form).await.unwrap();
    assert_eq!(rig.last_record().await["reason"], "certificate_name_mismatch");
    assert_eq!(scene.asked(), (1, 1), "at the token endpoint");
}

/// About the client's own certificate whoever a token request would ask is asked; and once for both.
#[tokio::test]
async fn the_clients_own_certificate_is_asked_after() {
    let scene = Scene::set().await;
    let rig = &scene.rig;
    let own = scene.named(&scene.shared, subject_of_a("a-dn"));
    let answer = check(rig, &own, "a-dn").await.json();
    assert_eq!(answer["would_be_let_in"], true, "{answer:#}");
    assert_eq!(scene.asked(), (1, 1));
    let answer = rig.peer(&own).ask(rig.address, &rig.world.a_dn.request()).await.unwrap();
    assert_eq!((answer.status, scene.asked()), (200, (1, 1)), "{answer}");
}

/// A revocation that a check comes upon is one: its certificate is revoked in the registry.
#[tokio::test]
async fn a_revocation_that_a_check_finds_is_put_on_record() {
    let scene = Scene::set().await;
    let rig = &scene.rig;
    let own = scene.named(&scene.shared, subject_of_a("a-dn"));
    assert_eq!(rig.peer(&own).ask(rig.address, &rig.world.a_dn.request()).await.unwrap().status, 200);
    let (issuer, now) = (scene.shared.clone(), rig.clock.now().as_seconds() + 301);
    scene.responder.reply(move |asked| {
        let (id, nonce) = (asked.ids[0].clone(), asked.nonce.clone());
        let status = Status::Revoked { at: now - 400, reason: Some(4) };
        Reply::Octets(ocsp::Response::by_issuer(&issuer, id, status, nonce, now).signed(&issuer.key))
    });
    // Renewed by itself, or by the check that finds it due.
    rig.clock.advance(Duration::from_secs(301));
    let found = tokio::time::timeout(Duration::from_secs(5), async {
        loop {
            let answer = rig.peer(&own).ask(rig.address, &about("a-dn")).await.unwrap().json();
            if let Some((_, reason)) = refused(&answer) {
                return reason;
            }
        }
    });
    assert_eq!(found.await.expect("refused"), "peer_revoked");
    let state = async || rig.app.registry.certificate(&thumbprint(&own)).await.unwrap().unwrap().state;
    let recorded = tokio::time::timeout(Duration::from_secs(5), async {
        while !matches!(state().await, CertificateState::Revoked { .. }) {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    });
    recorded.await.expect("on record");
}
