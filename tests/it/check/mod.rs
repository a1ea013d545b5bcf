//! `/certificate-check` and `certificate explain`: the reason is the one a token request is refused for, told to whom it
//! concerns and to nobody else.

mod audience;

mod bounds;

mod command;

mod asking;

mod same_path;

/// Rows of the table for certificates that somebody else speaks of.
mod taken_back;

use countersign::pki::{anchor, identity};
use countersign::registry::trust_anchor::{
    AnchorMaterial, AnchorOwner, AnchorState, EkuPolicy, NameSpace, RevocationSources, TrustAnchor, Unknown,
};
use countersign::registry::{AnchorId, ParticipantId};
use countersign_conformance::pki::{Authority, Credential};
use countersign_resource_server::time::UnixTime;
use serde_json::Value;

use crate::rig::{Engine, Rig, Time};
use crate::wire::{Answer, Request};

/// A server whose checks are as good as unlimited, time standing still.
async fn rig_without_bounds() -> Rig {
    rig_on(&Engine::Sqlite).await
}

async fn rig_on(engine: &Engine) -> Rig {
    Rig::configured(engine, Time::Standing, |config| {
        config.limits.certificate_checks_per_address = 1_000_000;
        config.limits.certificate_checks_per_certificate = 1_000_000;
    })
    .await
}

/// `GET /certificate-check` about this client.
fn about(client_id: &str) -> Request {
    Request::get(&format!("/certificate-check?client_id={client_id}"))
}

/// A peer with this credential asks about this client.
async fn check(rig: &Rig, credential: &Credential, client_id: &str) -> Answer {
    let answer = rig.peer(credential).ask(rig.address, &about(client_id)).await.unwrap();
    assert_eq!(answer.status, 200, "{client_id}: {answer}");
    assert_eq!(answer.header("content-type"), Some("application/json"));
    assert_eq!(answer.header("cache-control"), Some("no-store"));
    answer
}

/// Enters this authority with these sources, and grants it to partner A for names in this space; gives its id.
async fn trust(
    rig: &Rig,
    authority: &Authority,
    owner: AnchorOwner,
    revocation: RevocationSources,
    space: &NameSpace,
) -> AnchorId {
    let found = anchor::check_anchor(&authority.certificate, UnixTime::from_seconds(rig.world.now)).unwrap();
    let anchor = TrustAnchor {
        id: found.id.clone(),
        material: AnchorMaterial::X509 { certificate_der: authority.certificate.clone() },
        subject: found.subject,
        owner,
        eku_policy: EkuPolicy::Required,
        unknown_revocation: Unknown::Refuse,
        revocation,
        state: AnchorState::Active,
    };
    let registry = &rig.app.registry;
    registry.add_anchor(anchor, found.subject_der, rig.explanation()).await.unwrap();
    let space = identity::name_space(space).unwrap();
    registry.grant_anchor(partner_a(), found.id.clone(), space, rig.explanation()).await.unwrap();
    found.id
}

fn partner_a() -> ParticipantId {
    ParticipantId::parse("partner-a").unwrap()
}

/// The names of partner A.
fn names_of_a() -> NameSpace {
    NameSpace { dn_suffixes: vec!["O=Partner A,C=DE".to_owned()], ..NameSpace::default() }
}

/// The first step that was refused: stage and reason.
fn refused(answer: &Value) -> Option<(String, String)> {
    let steps = answer["steps"].as_array()?;
    let step = steps.iter().find(|step| step["outcome"] == "refused")?;
    Some((step["stage"].as_str()?.to_owned(), step["reason"].as_str()?.to_owned()))
}
