//! The right name, vouched for by nobody whose word counts for the victim.

use std::sync::Arc;

use countersign_conformance::KeyKind;
use countersign_conformance::pki::{Authority, Credential, Name, Template};

use super::{Family, Method, Victim, run, victims};
use crate::rig::Rig;
use crate::world::World;

#[tokio::test]
async fn the_victims_name_under_the_wrong_authority() {
    let rig = Rig::start().await;
    run(&rig, &wrong(&rig.world)).await;
}

#[tokio::test]
async fn the_victims_name_signed_by_itself() {
    let rig = Rig::start().await;
    run(&rig, &self_signed(&rig.world)).await;
}

/// The victim's own certificate, and a new one under the right authority where the registration takes it.
fn honest(family: &mut Family<'_>, victim: &Victim) {
    family.honest("its own certificate", victim, &victim.party.credential);
    if victim.method == Method::OnFirstUse {
        family.honest("a new certificate", victim, &victim.authority.issue(&victim.template, KeyKind::P256));
    }
}

pub(super) fn wrong(world: &World) -> Family<'_> {
    let mut family = Family::of(world);
    for victim in &victims(world) {
        honest(&mut family, victim);
        let twin = victim.authority.twin();
        let others = [
            ("under the anchor's name with another key", &twin),
            ("under partner B's authority", &world.b_root),
            ("under partner C's authority", &world.c_root),
            ("under partner A's authority", &world.a_root),
            ("under a suspended partner's authority", &world.d_root),
            ("under a stranger's authority", &world.stranger_root),
            ("under the authority of the server's certificate", &world.server_authority),
            ("under a retired authority of partner A's", &world.a_retired_root),
        ];
        for (whose, authority) in others {
            if authority.certificate == victim.authority.certificate {
                continue;
            }
            let reason = if authority.name == victim.authority.name {
                "peer_signature_invalid"
            } else if authority.name == world.a_retired_root.name && victim.authority.name == world.a_root.name {
                "peer_anchor_retired"
            } else {
                "peer_issuer_unknown"
            };
            let plain = authority.issue(&victim.template, KeyKind::P256);
            family.push(whose, victim, &plain, victim.refused(reason));
            let mut rooted = plain.clone();
            rooted.chain.push(authority.certificate.clone());
            family.push(&format!("{whose}, its root in the list"), victim, &rooted, victim.refused(reason));
            // An intermediate that calls itself as the victim's anchor does.
            let pretender = authority.intermediate_with(&Template::authority(victim.authority.name.clone(), world.now));
            let below = pretender.issue(&victim.template, KeyKind::P256);
            let reason = if authority.name == victim.authority.name { reason } else { "peer_signature_invalid" };
            family.push(
                &format!("{whose}, through an intermediate of the anchor's name"),
                victim,
                &below,
                victim.refused(reason),
            );
        }
        let impostor = twin.issue(&victim.template, KeyKind::P256);
        let mut with_anchor = impostor.clone();
        with_anchor.chain.push(victim.authority.certificate.clone());
        family.push(
            "under the anchor's name with another key, the true anchor behind it",
            victim,
            &with_anchor,
            victim.refused("peer_signature_invalid"),
        );
        let mut with_true = impostor.clone();
        with_true.chain.extend(victim.party.credential.chain.iter().cloned());
        family.push(
            "under the anchor's name with another key, the victim's list behind it",
            victim,
            &with_true,
            victim.refused("peer_signature_invalid"),
        );
        let issuing = twin.intermediate("Partner A Issuing").issue(&victim.template, KeyKind::P256);
        family.push(
            "through an intermediate of the issuing authority's name",
            victim,
            &issuing,
            victim.refused("peer_signature_invalid"),
        );
        let claiming = Template { issuer: Some(victim.authority.name.clone()), ..victim.template.clone() };
        family.push(
            "by a stranger who writes the anchor's name as issuer",
            victim,
            &world.server_authority.issue(&claiming, KeyKind::P256),
            victim.refused("peer_signature_invalid"),
        );
    }
    family
}

pub(super) fn self_signed(world: &World) -> Family<'_> {
    let mut family = Family::of(world);
    for victim in &victims(world) {
        honest(&mut family, victim);
        // RFC 5280 §4.1.2.4: an issuer without a name is none.
        let reason = if victim.template.subject == Name::default() { "peer_malformed" } else { "peer_issuer_unknown" };
        let own = Credential::self_signed(&victim.template, KeyKind::P256);
        family.push("signed by itself", victim, &own, victim.refused(reason));
        let mut behind = own.clone();
        behind.chain.extend(victim.party.credential.chain.iter().cloned());
        // Where the victim has a subject, its certificate looks like the issuer, which it may not be.
        let as_issuer = if reason == "peer_malformed" { reason } else { "peer_issuer_not_authority" };
        family.push("signed by itself, the victim's list behind it", victim, &behind, victim.refused(as_issuer));
        let mut twin = Authority::pretended(victim.template.subject.clone(), &victim.party.credential, world.now)
            .issue_for(&victim.template, Arc::clone(&victim.party.credential.key));
        twin.chain.truncate(1);
        family.push("signed by itself with the victim's own key", victim, &twin, victim.refused(reason));
        let later = Template { serial: Some(vec![0x4D, 7]), ..victim.template.clone() };
        let mut twin = Authority::pretended(victim.template.subject.clone(), &victim.party.credential, world.now)
            .issue_for(&later, Arc::clone(&victim.party.credential.key));
        twin.chain.truncate(1);
        family.push("signed by itself with the victim's key, another serial", victim, &twin, victim.refused(reason));
        let pretending = Template { issuer: Some(victim.authority.name.clone()), ..victim.template.clone() };
        let pretended = Credential::self_signed(&pretending, KeyKind::P256);
        family.push(
            "signed by itself under the anchor's name",
            victim,
            &pretended,
            victim.refused("peer_signature_invalid"),
        );
        let mut borrowed = pretended.clone();
        borrowed.chain.push(victim.authority.certificate.clone());
        family.push(
            "signed by itself under the anchor's name, the anchor behind it",
            victim,
            &borrowed,
            victim.refused("peer_signature_invalid"),
        );
        for kind in [KeyKind::Ed25519, KeyKind::P384] {
            let other = Credential::self_signed(&pretending, kind);
            family.push(
                &format!("signed by itself under the anchor's name with a key of {kind:?}"),
                victim,
                &other,
                victim.refused("peer_signature_invalid"),
            );
        }
        let authority =
            Template { subject: victim.template.subject.clone(), ..Template::authority(Name::default(), world.now) };
        let ca = Credential::self_signed(
            &Template { alt_names: victim.template.alt_names.clone(), ..authority },
            KeyKind::P256,
        );
        let reason = if victim.template.subject == Name::default() { "peer_malformed" } else { "peer_is_authority" };
        family.push("signed by itself as a CA", victim, &ca, victim.refused(reason));
    }
    family
}
