//! The right authority signed, and the leaf is not what it should be: no twin of these may pass for the victim.

use std::sync::Arc;

use countersign_conformance::pki::{AltName, BasicConstraints, Defect, Extension, KeyUsage, Template, purpose};
use countersign_conformance::{Key, KeyKind, der};

use super::{Family, Method, Outcome, chained_victims, run};
use crate::rig::Rig;
use crate::world::World;

#[tokio::test]
async fn a_leaf_with_a_defect() {
    let rig = Rig::start().await;
    run(&rig, &defects(&rig.world)).await;
}

#[tokio::test]
async fn a_leaf_in_another_encoding() {
    let rig = Rig::start().await;
    run(&rig, &encodings(&rig.world)).await;
}

pub(super) fn defects(world: &World) -> Family<'_> {
    let mut family = Family::of(world);
    for victim in &chained_victims(world) {
        family.honest("its own certificate", victim, &victim.party.credential);
        let good = &victim.template;
        let with = |extension: Extension| Template { extensions: vec![extension], ..good.clone() };
        let mut bent: Vec<(String, Template, &'static str)> = Defect::ALL
            .iter()
            .map(|defect| {
                let reason = match defect {
                    Defect::CaTrue | Defect::KeyCertSign => "peer_is_authority",
                    Defect::DuplicateExtension => "peer_malformed",
                    Defect::Expired | Defect::ExpiredLongAgo => "peer_expired",
                    Defect::NoDigitalSignature => "peer_key_usage_forbids",
                    Defect::NotYetValid | Defect::PeriodReversed => "peer_not_yet_valid",
                    Defect::PurposeCodeSigning | Defect::PurposeServerAuth => "peer_purpose_missing",
                    Defect::TwoSpiffeIds => "peer_spiffe_id_ambiguous",
                    Defect::UnknownCriticalExtension => "peer_critical_extension_unknown",
                    Defect::Version1 | Defect::Version2 => "peer_version_unsupported",
                };
                (defect.as_str().to_owned(), good.clone().with(*defect, world.now), reason)
            })
            .collect();
        let mut push = |what: &str, template: Template, reason| bent.push((what.to_owned(), template, reason));
        push("no extended key usage", Template { purposes: Vec::new(), ..good.clone() }, "peer_purpose_missing");
        push(
            "any extended key usage",
            Template { purposes: vec![purpose::ANY.to_vec()], ..good.clone() },
            "peer_purpose_missing",
        );
        push(
            "key usage without a bit",
            Template { key_usage: Some(Vec::new()), ..good.clone() },
            "peer_key_usage_forbids",
        );
        push(
            "key usage of a signer of lists",
            Template { key_usage: Some(vec![KeyUsage::CrlSign]), ..good.clone() },
            "peer_key_usage_forbids",
        );
        push(
            "CA:TRUE and a path length",
            Template { basic_constraints: Some(BasicConstraints { ca: true, path_length: Some(0) }), ..good.clone() },
            "peer_is_authority",
        );
        push(
            "name constraints",
            Template { permitted: vec![AltName::Dns("partner-a.example".to_owned())], ..good.clone() },
            "peer_is_authority",
        );
        // The victim's name in one extension, another's in a second one of the same kind: which would be read?
        let other = der::sequence([der::tlv(0x82, "other.partner-a.example")]);
        let first = Template { alt_names: vec![AltName::Dns("client.partner-a.example".to_owned())], ..good.clone() };
        push(
            "two extensions of alternative names",
            Template {
                extensions: vec![Extension { oid: vec![2, 5, 29, 17], critical: false, value: other }],
                ..first
            },
            "peer_malformed",
        );
        push(
            "two of basic constraints",
            with(Extension { oid: vec![2, 5, 29, 19], critical: true, value: der::sequence::<Vec<u8>>([]) }),
            "peer_malformed",
        );
        push(
            "two of extended key usage",
            with(Extension {
                oid: vec![2, 5, 29, 37],
                critical: false,
                value: der::sequence([der::oid(purpose::CLIENT_AUTH)]),
            }),
            "peer_malformed",
        );
        push("a serial number of no octets", Template { serial: Some(Vec::new()), ..good.clone() }, "peer_malformed");
        push(
            "a serial number of 22 octets",
            Template { serial: Some(vec![0x11; 22]), ..good.clone() },
            "peer_malformed",
        );
        for (what, template, reason) in bent {
            let credential = victim.authority.issue(&template, KeyKind::P256);
            family.push(&what, victim, &credential, Outcome::Refused(reason));
        }
        let broken = victim.authority.issue(good, KeyKind::P256).with_broken_signature();
        family.push("a signature with a bit flipped", victim, &broken, Outcome::Refused("peer_signature_invalid"));
    }
    family
}

pub(super) fn encodings(world: &World) -> Family<'_> {
    let mut family = Family::of(world);
    for victim in &chained_victims(world) {
        family.honest("its own certificate", victim, &victim.party.credential);
        let issue = || victim.authority.issue(&victim.template, KeyKind::P256);
        let malformed = Outcome::NoHandshake("handshake_certificate_malformed");
        for (what, octets) in
            [("a NUL", &[0][..]), ("a second object", &[0x05, 0x00][..]), ("an end of contents", &[0, 0][..])]
        {
            family.push(&format!("{what} behind the DER"), victim, &issue().with_trailing(octets), malformed);
        }
        let longer = Outcome::Refused("peer_malformed");
        family.push("a length in more octets than DER has", victim, &issue().with_longer_length(), longer);
        family.push("a length in the indefinite form", victim, &issue().with_indefinite_length(), malformed);
        // The victim's very certificate, under another thumbprint.
        family.push(
            "its own certificate with a longer length",
            victim,
            &victim.party.credential.clone().with_longer_length(),
            longer,
        );
        for kind in [KeyKind::Rsa1024, KeyKind::Rsa4224] {
            let weak = victim.authority.issue_for(&victim.template, Arc::new(Key::generate(kind)));
            family.push(
                &format!("a key of {kind:?}"),
                victim,
                &weak,
                Outcome::NoHandshake("handshake_key_not_accepted"),
            );
        }
        if victim.method == Method::Required {
            family.push(
                "a certificate nobody enrolled",
                victim,
                &issue(),
                Outcome::Refused("certificate_not_enrolled"),
            );
        }
    }
    family
}
