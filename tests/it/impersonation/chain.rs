//! The right authority at the end of a path that does not hold.

use countersign_conformance::KeyKind;
use countersign_conformance::pki::{
    AltName, Authority, BasicConstraints, Defect, Extension, KeyUsage, Name, Template, Version, purpose,
};

use super::{Family, Method, Outcome, chained_victims, run};
use crate::rig::Rig;
use crate::world::World;

#[tokio::test]
async fn a_path_that_does_not_hold() {
    let rig = Rig::start().await;
    run(&rig, &paths(&rig.world)).await;
}

pub(super) fn paths(world: &World) -> Family<'_> {
    let mut family = Family::of(world);
    let now = world.now;
    for victim in &chained_victims(world) {
        let root = &victim.authority;
        let under = |template: &Template| root.intermediate_with(template).issue(&victim.template, KeyKind::P256);
        let issuing = Template::authority(Name::common("Issuing"), now);
        let limited = |length| Template {
            basic_constraints: Some(BasicConstraints { ca: true, path_length: Some(length) }),
            ..issuing.clone()
        };
        family.honest("its own certificate", victim, &victim.party.credential);
        if victim.method == Method::OnFirstUse {
            family.honest("through an intermediate", victim, &under(&issuing));
            let deepest = root.intermediate_with(&limited(1)).intermediate("Below");
            family.honest("at the last length allowed", victim, &deepest.issue(&victim.template, KeyKind::P256));
        }
        let bent: [(&str, Template, &'static str); 13] = [
            ("expired a second ago", Template { not_after: now - 1, ..issuing.clone() }, "peer_issuer_out_of_date"),
            ("valid in a second", Template { not_before: now + 1, ..issuing.clone() }, "peer_issuer_out_of_date"),
            (
                "that is no CA",
                Template {
                    basic_constraints: Some(BasicConstraints { ca: false, path_length: None }),
                    ..issuing.clone()
                },
                "peer_issuer_not_authority",
            ),
            (
                "without basic constraints",
                Template { basic_constraints: None, ..issuing.clone() },
                "peer_issuer_not_authority",
            ),
            (
                "that may sign lists alone",
                Template { key_usage: Some(vec![KeyUsage::CrlSign]), ..issuing.clone() },
                "peer_issuer_not_authority",
            ),
            (
                "for servers alone",
                Template { purposes: vec![purpose::SERVER_AUTH.to_vec()], ..issuing.clone() },
                "peer_purpose_missing",
            ),
            ("of version 1", Template { version: Version::V1, ..issuing.clone() }, "peer_version_unsupported"),
            (
                "with an unknown critical extension",
                issuing.clone().with(Defect::UnknownCriticalExtension, now),
                "peer_critical_extension_unknown",
            ),
            ("with an extension twice", issuing.clone().with(Defect::DuplicateExtension, now), "peer_issuer_unknown"),
            (
                "whose constraints exclude the victim's subject",
                Template { excluded: vec![AltName::Directory(Name::of(&[("C", "DE")]))], ..issuing.clone() },
                "peer_name_constraint_violated",
            ),
            (
                "whose constraints permit other subjects",
                Template { permitted: vec![AltName::Directory(Name::of(&[("C", "FR")]))], ..issuing.clone() },
                "peer_name_constraint_violated",
            ),
            (
                "for client and server code alone",
                Template { purposes: vec![purpose::CODE_SIGNING.to_vec()], ..issuing.clone() },
                "peer_purpose_missing",
            ),
            (
                "for any purpose in name",
                Template { purposes: vec![purpose::ANY.to_vec()], ..issuing.clone() },
                "peer_purpose_missing",
            ),
        ];
        for (what, template, reason) in &bent {
            family.push(&format!("an intermediate {what}"), victim, &under(template), Outcome::Refused(reason));
        }
        for (what, name) in excluding(&victim.template) {
            let excluding = Template { excluded: vec![name], ..issuing.clone() };
            let violated = Outcome::Refused("peer_name_constraint_violated");
            family.push(&format!("an intermediate that excludes {what}"), victim, &under(&excluding), violated);
        }
        let too_deep = root.intermediate_with(&limited(0)).intermediate("Below");
        family.push(
            "an intermediate more than its issuer allows",
            victim,
            &too_deep.issue(&victim.template, KeyKind::P256),
            Outcome::Refused("peer_path_too_long"),
        );
        let too_deep = root.intermediate_with(&limited(1)).intermediate("Below").intermediate("Further");
        family.push(
            "two intermediates more than allowed below",
            victim,
            &too_deep.issue(&victim.template, KeyKind::P256),
            Outcome::Refused("peer_path_too_long"),
        );
        // A leaf that issues: another client of the same authority, and the same with keyCertSign alone.
        let client = Template { subject: Name::common("another client"), ..Template::client(Name::default(), now) };
        for (what, template, reason) in [
            ("another client's certificate", client.clone(), "peer_issuer_not_authority"),
            (
                "one with keyCertSign",
                Template { key_usage: Some(vec![KeyUsage::DigitalSignature, KeyUsage::KeyCertSign]), ..client.clone() },
                "peer_issuer_not_authority",
            ),
            (
                "one without basic constraints",
                Template { basic_constraints: None, ..client.clone() },
                "peer_issuer_not_authority",
            ),
        ] {
            let issuer = root.issue(&template, KeyKind::P256);
            let forged = Authority::pretended(template.subject.clone(), &issuer, now);
            family.push(
                &format!("issued by {what}"),
                victim,
                &forged.issue(&victim.template, KeyKind::P256),
                Outcome::Refused(reason),
            );
        }
        let own = Authority::pretended(victim.template.subject.clone(), &victim.party.credential, now);
        let claiming = Template { issuer: Some(Name::common("Issuing")), ..victim.template.clone() };
        family.push(
            "issued with the key of the victim's own certificate",
            victim,
            &own.issue(&claiming, KeyKind::P256),
            Outcome::Refused("peer_issuer_unknown"),
        );
        let mut missing = under(&issuing);
        missing.chain.truncate(1);
        family.push("the intermediate left out", victim, &missing, Outcome::Refused("peer_issuer_unknown"));
        let mut other = under(&issuing);
        other.chain[1] = root.intermediate_with(&issuing).certificate;
        family.push("another intermediate of that name", victim, &other, Outcome::Refused("peer_signature_invalid"));
        let mut broken = under(&issuing);
        *broken.chain[1].last_mut().unwrap() ^= 1;
        family.push("a broken signature above", victim, &broken, Outcome::Refused("peer_signature_invalid"));
        let mut long = root.clone();
        for level in 0..5 {
            long = long.intermediate(&format!("Level {level}"));
        }
        family.push(
            "five intermediates",
            victim,
            &long.issue(&victim.template, KeyKind::P256),
            Outcome::NoHandshake("handshake_chain_too_long"),
        );
        // What a search would have to try is bounded before there is one.
        let twin = root.twin();
        let mut hundred = twin.issue(&victim.template, KeyKind::P256);
        hundred.chain.extend(std::iter::repeat_n(twin.certificate.clone(), 100));
        let too_long = Outcome::NoHandshake("handshake_chain_too_long");
        family.push("a hundred intermediates of the anchor's name", victim, &hundred, too_long);
        let filler = Extension { oid: vec![1, 3, 6, 1, 4, 1, 55_555, 2], critical: false, value: vec![4; 14_000] };
        let large = under(&Template { extensions: vec![filler.clone()], ..issuing.clone() });
        let mut larger = large.clone();
        larger.chain.extend(std::iter::repeat_n(large.chain[1].clone(), 3));
        let too_large = Outcome::NoHandshake("handshake_chain_too_large");
        family.push("a list of 60 KB", victim, &larger, too_large);
        let weak = root.issue(&issuing, KeyKind::Rsa4224);
        let below = Authority::pretended(issuing.subject.clone(), &weak, now);
        family.push(
            "an intermediate with a key nobody takes",
            victim,
            &below.issue(&victim.template, KeyKind::P256),
            Outcome::Refused("peer_issuer_key_too_weak"),
        );
    }
    family
}

/// Constraints that forbid a name of the victim's. webpki honours those on DNS names and addresses, and refuses whatever
/// has a name of the other kinds that are constrained.
fn excluding(template: &Template) -> Vec<(&'static str, AltName)> {
    template
        .alt_names
        .iter()
        .filter_map(|name| match name {
            AltName::Dns(_) => Some(("its domain", AltName::Dns("partner-a.example".to_owned()))),
            AltName::Email(_) => Some(("its mail domain", AltName::Email("partner-a.example".to_owned()))),
            AltName::Ip(_) => Some(("its network", AltName::Raw(0x87, vec![192, 0, 2, 0, 255, 255, 255, 0]))),
            AltName::Uri(_) => Some(("its host", AltName::Uri("partner-a.example".to_owned()))),
            _ => None,
        })
        .collect()
}
