//! Certificates that a list, a responder or a trust domain speaks of: rows of the table in [`super::same_path`].

use std::time::Duration;

use countersign::registry::trust_anchor::{
    AnchorOwner, BundleEndpoint, CrlSource, NoncePolicy, OcspPolicy, RevocationSources, Unknown,
};
use countersign_conformance::KeyKind;
use countersign_conformance::crl::{IssuingDistributionPoint, RevocationList, Revoked};
use countersign_conformance::ocsp::{self, HttpResponder, Reply, Status};
use countersign_conformance::pki::{AltName, Authority, Credential, Name, Template};
use countersign_conformance::spiffe::Domain;
use countersign_resource_server::time::Clock;

use super::same_path::{Row, on_record};
use super::{check, names_of_a, partner_a, refused, trust};
use crate::rig::Rig;
use crate::spiffe::{by_jwt, by_x509, register, trust_domain};
use crate::world::subject_of_a;

/// An authority of partner A, whose word on its certificates is looked for there.
async fn authority(rig: &Rig, name: &str, revocation: impl FnOnce(&Authority) -> RevocationSources) -> Authority {
    let authority = Authority::root(name, rig.world.now);
    let revocation = revocation(&authority);
    trust(rig, &authority, AnchorOwner::Participant(partner_a()), revocation, &names_of_a()).await;
    authority
}

fn leaf(rig: &Rig, issuer: &Authority) -> Credential {
    issuer.issue(&Template::client(subject_of_a("a-dn"), rig.world.now), KeyKind::P256)
}

/// Every way to be taken back, and every way not to be known of. The responder goes on for as long as it is held.
pub(super) async fn rows(rig: &Rig) -> (HttpResponder, Vec<Row>) {
    let mut rows = rows_of_lists(rig).await;
    let (responder, asked) = rows_of_a_responder(rig).await;
    rows.extend(asked);
    (responder, rows)
}

async fn rows_of_lists(rig: &Rig) -> Vec<Row> {
    let now = rig.world.now;
    let directory = rig.directory().join("lists-of-a");
    std::fs::create_dir(&directory).unwrap();
    let root = Authority::root("Listed Root", now);
    let [taken_back, stale, narrow, silent] =
        ["Taken Back", "Stale", "Narrow", "Silent"].map(|name| root.intermediate(name));
    let location = directory.display().to_string();
    let from =
        |issuer: &Authority| CrlSource { location: location.clone(), issuer_der: Some(issuer.certificate.clone()) };
    let (good, revoked, held) = (leaf(rig, &root), leaf(rig, &root), leaf(rig, &root));
    let list = || RevocationList::new(1, now);
    let of = |credential: &Credential, reason| Revoked::certificate(credential.certificate(), now - 60).because(reason);
    let users_of_authorities = IssuingDistributionPoint { authorities: true, ..IssuingDistributionPoint::default() };
    let of_root = list()
        .revoking(of(&revoked, 4))
        .revoking(of(&held, 6))
        .revoking(Revoked::certificate(&taken_back.certificate, now - 60));
    for (name, list, issuer) in [
        ("root", of_root, &root),
        ("taken-back", list(), &taken_back),
        ("stale", RevocationList { next_update: Some(now), ..list() }, &stale),
        ("narrow", RevocationList { distribution_point: Some(users_of_authorities), ..list() }, &narrow),
    ] {
        std::fs::write(directory.join(name), list.signed_by(issuer)).unwrap();
    }
    // One location, and whoever signs lists there.
    let crls = [&taken_back, &stale, &narrow].map(from).to_vec();
    let sources = RevocationSources { crls, ..RevocationSources::default() };
    trust(rig, &root, AnchorOwner::Participant(partner_a()), sources, &names_of_a()).await;
    let row = Row::new("not on the list", "a-dn", &good);
    let held_by_now = tokio::time::timeout(Duration::from_secs(10), async {
        while on_record(rig, &row).await.is_some() {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    });
    held_by_now.await.expect("the lists are held");
    let mut rows = vec![
        row,
        Row::new("on the list", "a-dn", &revoked),
        Row::new("on hold", "a-dn", &held),
        Row::new("its issuer on the list", "a-dn", &leaf(rig, &taken_back)),
    ];
    for (issuer, missing) in [
        (&silent, "no revocation list of its issuer is held"),
        (&stale, "the revocation list of its issuer is out of date"),
        (&narrow, "no revocation list of its issuer speaks for it"),
    ] {
        let credential = leaf(rig, issuer);
        let answer = check(rig, &credential, "a-dn").await.json();
        assert_eq!(refused(&answer).unwrap().1, "peer_revocation_unknown", "{missing}: {answer:#}");
        assert!(answer.to_string().contains(missing), "{missing}: {answer:#}");
        rows.push(Row::new(missing, "a-dn", &credential));
    }
    // What was looked at is told to whom it concerns.
    let answer = check(rig, &revoked, "a-dn").await.json();
    let step = answer["steps"].as_array().unwrap().iter().find(|step| step["outcome"] == "refused").unwrap();
    let lists = step["facts"]["lists_held"].as_str().unwrap_or_default();
    assert!(lists.contains("number 1, issued ") && lists.contains("for all certificates of its issuer"), "{step}");
    let answer = check(rig, &revoked, "a-two").await.json();
    assert_eq!(refused(&answer).unwrap().1, "peer_revoked", "{answer:#}");
    assert!(!answer.to_string().contains("lists_held"), "of another client: {answer:#}");
    rows
}

async fn rows_of_a_responder(rig: &Rig) -> (HttpResponder, Vec<Row>) {
    let responder = HttpResponder::start(|_| Reply::Http(503)).unwrap();
    let url = responder.url();
    let policy = |url: String| OcspPolicy {
        responder_url: Some(url),
        url_prefixes: Vec::new(),
        unknown: Unknown::Refuse,
        unreachable: Unknown::Refuse,
        nonce: NoncePolicy::IfPresent,
    };
    let sources = |url: String| RevocationSources { ocsp: Some(policy(url)), ..RevocationSources::default() };
    let asked = authority(rig, "Asked Root", |_| sources(url.clone())).await;
    let silent = authority(rig, "Silent Root", |_| sources(format!("{url}silent"))).await;
    let [good, revoked, held, unknown] = [(); 4].map(|()| leaf(rig, &asked));
    let serial = |credential: &Credential| ocsp::serial_of(credential.certificate()).to_vec();
    let (now, at) = (rig.clock.now().as_seconds(), rig.world.now - 60);
    let says = [
        (serial(&revoked), Status::Revoked { at, reason: Some(4) }),
        (serial(&held), Status::Revoked { at, reason: Some(6) }),
        (serial(&unknown), Status::Unknown),
    ];
    let issuer = asked.clone();
    responder.reply(move |request| {
        let id = request.ids[0].clone();
        if ocsp::CertId::new(&issuer.name, &issuer.key.spki(), &id.serial) != id {
            return Reply::Http(503);
        }
        let own = says.iter().find(|(serial, _)| *serial == id.serial);
        let status = own.map_or(Status::Good, |(_, status)| status.clone());
        Reply::Octets(ocsp::Response::by_issuer(&issuer, id, status, request.nonce.clone(), now).signed(&issuer.key))
    });
    let rows = [
        ("good, says the responder", &good),
        ("revoked, says the responder", &revoked),
        ("on hold, says the responder", &held),
        ("the responder does not know", &unknown),
        ("the responder does not answer", &leaf(rig, &silent)),
    ];
    let rows = rows.map(|(what, credential)| Row::new(what, "a-dn", credential)).into();
    (responder, rows)
}

/// Whatever a trust domain says of an SVID, for both methods that know a client by its id.
pub(super) async fn rows_of_trust_domains(rig: &Rig) -> Vec<Row> {
    let now = rig.world.now;
    let domain = Domain::new("same-path.test", now);
    trust_domain(rig, &domain, BundleEndpoint::File).await;
    register(rig, "by-x509", by_x509(&domain.id("/x"))).await;
    register(rig, "by-jwt", by_jwt(&domain.id("/x"))).await;
    let malformed = |template: &mut Template| {
        template.alt_names = vec![AltName::Uri("spiffe://same-path.test/a//b".to_owned())];
    };
    let workload = Template::authority(Name::common("A workload"), now).with_alt_names([AltName::Uri(domain.id("/y"))]);
    let below_a_workload = domain.authority.intermediate_with(&workload).issue(&domain.template("/x"), KeyKind::P256);
    let defects = [
        ("no SPIFFE ID", rig.world.a_dn.credential.clone()),
        ("a SPIFFE ID that is none", domain.svid_with("/x", malformed)),
        ("a trust domain that is not known", Domain::new("other.test", now).svid("/x")),
        ("another key of the same trust domain", domain.rotated().svid("/x")),
        ("no key usage", domain.svid_with("/x", |template| template.key_usage = None)),
        ("below a workload", below_a_workload),
        ("expired", domain.svid_with("/x", |template| template.not_after = now - 1)),
    ];
    let mut rows = vec![
        Row::new("an SVID", "by-x509", &domain.svid("/x")),
        Row::new("another workload's", "by-x509", &domain.svid("/another")),
    ];
    for (what, credential) in &defects {
        rows.extend(["by-x509", "by-jwt"].map(|client| Row::new(what, client, credential)));
    }
    rows
}
