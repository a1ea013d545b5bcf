//! What a responder may say: one defect at a time.

use std::sync::Arc;

use countersign_conformance::ocsp::{self, Entry, Responder, Status as Says};
use countersign_conformance::pki::{
    Authority, BasicConstraints, Credential, Extension, KeyUsage, Name, Template, purpose,
};
use countersign_conformance::{Key, KeyKind, der as made};

use super::{Asked, NONCE, good_until, second};
use crate::pki::ocsp::request::{CertId, NONCE_BYTES};
use crate::pki::ocsp::response::CertStatus;
use crate::pki::ocsp::{Unusable, judge};
use crate::pki::revocation::{CrlReason, Status};
use crate::pki::scene::NOW;
use crate::pki::signature::Signer;
use crate::registry::trust_anchor::NoncePolicy;

#[test]
fn the_issuer_answers_itself_by_name_or_by_key() {
    let asked = Asked::new();
    assert_eq!(asked.bent(|_| {}), good_until(3_600));
    let by_key = Responder::ByKey(asked.issuer.key.spki());
    assert_eq!(asked.bent(|response| response.responder = by_key), good_until(3_600));
    for kind in [KeyKind::P384, KeyKind::P521, KeyKind::Ed25519, KeyKind::Rsa2048] {
        let issuer = Authority::root_with(Template::authority(Name::common("Partner A CA"), NOW), kind, NOW);
        let leaf = issuer.client("client");
        let signer = Signer { name_der: issuer.name.to_der(), spki_der: issuer.key.spki() };
        let id = CertId::new(&signer, ocsp::serial_of(leaf.certificate())).unwrap();
        let asked = Asked { issuer, leaf, signer, id, ..Asked::new() };
        assert_eq!(asked.bent(|_| {}), good_until(3_600), "{kind:?}");
    }
}

#[test]
fn every_status_is_read() {
    let asked = Asked::new();
    let read = |status| asked.read(&asked.says(status).signed(&asked.issuer.key)).map(|answer| answer.status);
    assert_eq!(read(Says::Unknown), Ok(CertStatus::Unknown));
    let at = second(-100);
    let revoked = |reason| Says::Revoked { at: NOW - 100, reason };
    assert_eq!(read(revoked(None)), Ok(CertStatus::Revoked { at, reason: CrlReason::Unspecified }));
    assert_eq!(read(revoked(Some(1))), Ok(CertStatus::Revoked { at, reason: CrlReason::KeyCompromise }));
    assert_eq!(read(revoked(Some(6))), Ok(CertStatus::Revoked { at, reason: CrlReason::CertificateHold }));
    for wrong in [
        revoked(Some(7)),
        revoked(Some(8)), // removeFromCRL takes something back, and revokes nothing
        revoked(Some(11)),
        Says::Raw(vec![0x80, 1, 0]),
        Says::Raw(vec![0x82, 1, 0]),
        Says::Raw(vec![0x83, 0]),
        Says::Raw(vec![0x05, 0]),
        Says::Raw(vec![0xA1, 0]),
    ] {
        assert_eq!(read(wrong.clone()), Err(Unusable::Malformed), "{wrong:?}");
    }
}

#[test]
fn an_unsuccessful_response_says_nothing() {
    let asked = Asked::new();
    for status in [1, 2, 3, 5, 6] {
        assert_eq!(asked.read(&ocsp::unsuccessful(status)), Err(Unusable::Unsuccessful(status)), "{status}");
    }
    for status in [0, 4, 7, 255] {
        assert_eq!(asked.read(&ocsp::unsuccessful(status)), Err(Unusable::Malformed), "{status}");
    }
    // tryLater that brings a good answer along.
    let good = asked.good().signed(&asked.issuer.key);
    let (_, outer, _) = made::split(&good).unwrap();
    let (_, _, bytes) = made::split(outer).unwrap();
    let both = made::sequence([made::tlv(0x0A, [3]), bytes.to_vec()]);
    assert_eq!(asked.read(&both), Err(Unusable::Malformed));
}

#[test]
fn response_of_another_kind() {
    let asked = Asked::new();
    let kind = vec![1, 3, 6, 1, 5, 5, 7, 48, 1, 99];
    assert_eq!(asked.bent(|response| response.kind = kind), Err(Unusable::OtherKind));
}

#[test]
fn only_version_1_is_read() {
    let asked = Asked::new();
    assert_eq!(asked.bent(|response| response.version = Some(0)), good_until(3_600));
    assert_eq!(asked.bent(|response| response.version = Some(1)), Err(Unusable::Malformed));
}

#[test]
fn answer_about_another_certificate() {
    let asked = Asked::new();
    let other = asked.issuer.client("other");
    let id = ocsp::CertId::of(other.certificate(), &asked.issuer);
    let of_other = Entry { id, ..asked.entry(Says::Good) };
    assert_eq!(asked.bent(|response| response.entries = vec![of_other.clone()]), Err(Unusable::OtherCertificate));
    assert_eq!(asked.bent(|response| response.entries.clear()), Err(Unusable::OtherCertificate));
    // The same serial number of another issuer.
    let twin = asked.issuer.twin();
    let serial = ocsp::serial_of(asked.leaf.certificate());
    let id = ocsp::CertId::new(&twin.name, &twin.key.spki(), serial);
    let of_twin = Entry { id, ..asked.entry(Says::Good) };
    assert_eq!(asked.bent(|response| response.entries = vec![of_twin]), Err(Unusable::OtherCertificate));
    // Beside ours it may be there (RFC 5019 §2.2.1), in any order.
    assert_eq!(asked.bent(|response| response.entries.push(of_other.clone())), good_until(3_600));
    assert_eq!(asked.bent(|response| response.entries.insert(0, of_other)), good_until(3_600));
}

#[test]
fn answered_twice() {
    let asked = Asked::new();
    for status in [Says::Good, Says::Revoked { at: NOW, reason: None }] {
        let second = asked.entry(status);
        assert_eq!(asked.bent(|response| response.entries.push(second)), Err(Unusable::Ambiguous));
    }
}

#[test]
fn nonce_of_another_request() {
    let mut asked = Asked::new();
    for policy in [NoncePolicy::Required, NoncePolicy::IfPresent] {
        asked.nonce = policy;
        for wrong in [vec![8; NONCE_BYTES], vec![7; NONCE_BYTES - 1], vec![7; NONCE_BYTES + 1], vec![]] {
            assert_eq!(asked.bent(|response| response.nonce = Some(wrong)), Err(Unusable::OtherNonce));
        }
    }
}

#[test]
fn without_a_nonce_it_is_the_anchors_word() {
    let mut asked = Asked::new();
    assert_eq!(asked.bent(|response| response.nonce = None), Err(Unusable::NonceMissing));
    asked.nonce = NoncePolicy::IfPresent;
    assert_eq!(asked.bent(|response| response.nonce = None), good_until(3_600));
}

#[test]
fn extensions_are_known_or_not_critical_and_come_once() {
    let asked = Asked::new();
    let some = |critical| Extension { oid: vec![1, 3, 6, 1, 5, 5, 7, 48, 1, 6], critical, value: vec![5, 0] };
    let nonce = |critical| Extension { oid: ocsp::NONCE.to_vec(), critical, value: made::tlv(0x04, NONCE) };
    let unknown = Err(Unusable::CriticalExtensionUnknown);
    assert_eq!(asked.bent(|response| response.extensions.push(some(false))), good_until(3_600));
    assert_eq!(asked.bent(|response| response.extensions.push(some(true))), unknown);
    assert_eq!(asked.bent(|response| response.entries[0].extensions.push(some(false))), good_until(3_600));
    assert_eq!(asked.bent(|response| response.entries[0].extensions.push(some(true))), unknown);
    // Also where it is said of a certificate that was not asked about: the whole is not understood.
    let other = Entry {
        id: ocsp::CertId::of(asked.issuer.client("other").certificate(), &asked.issuer),
        extensions: vec![some(true)],
        ..asked.entry(Says::Good)
    };
    assert_eq!(asked.bent(|response| response.entries.push(other)), unknown);
    let twice = vec![some(false), some(false)];
    assert_eq!(asked.bent(|response| response.extensions = twice.clone()), Err(Unusable::Malformed));
    assert_eq!(asked.bent(|response| response.entries[0].extensions = twice), Err(Unusable::Malformed));
    // The nonce: understood, hence it may be critical; once, and where it belongs.
    assert_eq!(
        asked.bent(|response| (response.nonce, response.extensions) = (None, vec![nonce(true)])),
        good_until(3_600)
    );
    assert_eq!(asked.bent(|response| response.extensions.push(nonce(false))), Err(Unusable::Malformed));
    assert_eq!(asked.bent(|response| response.entries[0].extensions.push(nonce(false))), Err(Unusable::Malformed));
    // Octets that are no OCTET STRING, as old responders write it.
    let bare = Extension { value: NONCE.to_vec(), ..nonce(false) };
    assert_eq!(
        asked.bent(|response| (response.nonce, response.extensions) = (None, vec![bare])),
        Err(Unusable::Malformed)
    );
}

#[test]
fn this_update_may_be_five_minutes_ahead() {
    let asked = Asked::new();
    assert!(asked.bent(|response| response.entries[0].this_update = NOW + 300).is_ok());
    assert_eq!(asked.bent(|response| response.entries[0].this_update = NOW + 301), Err(Unusable::FromTheFuture));
}

#[test]
fn next_update_is_greater_than_now() {
    let asked = Asked::new();
    let with = |next_update| asked.bent(move |response| response.entries[0].next_update = Some(next_update));
    assert_eq!(with(NOW + 1), good_until(1));
    assert_eq!(with(NOW), Err(Unusable::Stale));
    assert_eq!(with(NOW - 1), Err(Unusable::Stale));
    assert_eq!(with(NOW - 61), Err(Unusable::Malformed), "before its thisUpdate");
}

#[test]
fn without_next_update_it_is_current_for_an_hour() {
    let asked = Asked::new();
    let said = |this_update| {
        asked.bent(move |response| {
            response.entries[0] = Entry { this_update, next_update: None, ..response.entries[0].clone() };
        })
    };
    assert_eq!(said(NOW - 3_599).map(|answer| answer.until), Ok(second(1)));
    assert_eq!(said(NOW - 3_600), Err(Unusable::Stale));
}

#[test]
fn no_answer_counts_longer_than_seven_days() {
    let asked = Asked::new();
    let week = 7 * 86_400;
    let said = |this_update| {
        asked.bent(move |response| {
            response.entries[0] =
                Entry { this_update, next_update: Some(NOW + 100 * 86_400), ..response.entries[0].clone() };
        })
    };
    assert_eq!(said(NOW).map(|answer| answer.until), Ok(second(week)));
    assert_eq!(said(NOW - week + 1).map(|answer| answer.until), Ok(second(1)));
    assert_eq!(said(NOW - week), Err(Unusable::Stale));
}

#[test]
fn a_delegate_speaks_for_its_issuer_to_the_end_of_its_certificate() {
    let asked = Asked::new();
    assert_eq!(asked.delegated(|_| {}), good_until(3_600));
    assert_eq!(asked.delegated(|delegate| delegate.not_after = NOW), good_until(1), "in its last second");
    assert_eq!(asked.delegated(|delegate| delegate.key_usage = None), good_until(3_600));
    assert_eq!(asked.delegated(|delegate| delegate.basic_constraints = None), good_until(3_600));
    // By name, and after a certificate that is nobody's.
    let delegate = asked.issuer.issue(&ocsp::delegate("Status", NOW), KeyKind::Ed25519);
    let mut response = asked.good().by_delegate(&delegate);
    response.responder = Responder::ByName(Name::common("Status"));
    response.certificates.insert(0, asked.issuer.certificate.clone());
    response.certificates.insert(0, made::sequence([[0x05, 0x00]]));
    assert_eq!(asked.read(&response.signed(&delegate.key)), good_until(3_600));
}

#[test]
fn what_makes_a_delegate_unfit() {
    let asked = Asked::new();
    let with = |change: fn(&mut Template)| asked.delegated(change);
    assert_eq!(with(|delegate| delegate.not_after = NOW - 1), Err(Unusable::SignerOutOfDate));
    assert_eq!(with(|delegate| delegate.not_before = NOW + 1), Err(Unusable::SignerOutOfDate));
    assert_eq!(with(|delegate| delegate.purposes.clear()), Err(Unusable::SignerNotDelegated));
    for purposes in [vec![purpose::CLIENT_AUTH.to_vec()], vec![purpose::ANY.to_vec()]] {
        assert_eq!(asked.delegated(|delegate| delegate.purposes = purposes), Err(Unusable::SignerNotDelegated));
    }
    assert_eq!(with(|delegate| delegate.extensions.clear()), Err(Unusable::SignerUnchecked));
    let not_null = Extension { value: vec![0x05, 0x01, 0x00], ..ocsp::no_check() };
    assert_eq!(asked.delegated(|delegate| delegate.extensions = vec![not_null]), Err(Unusable::SignerUnchecked));
    assert_eq!(with(|delegate| delegate.key_usage = Some(vec![KeyUsage::KeyAgreement])), Err(Unusable::SignerUnfit));
    assert_eq!(
        with(|delegate| delegate.basic_constraints = Some(BasicConstraints { ca: true, path_length: None })),
        Err(Unusable::SignerUnfit)
    );
    let unknown = Extension { oid: vec![1, 2, 3], critical: true, value: vec![5, 0] };
    assert_eq!(asked.delegated(|delegate| delegate.extensions.push(unknown)), Err(Unusable::SignerUnfit));
    let critical = Extension { critical: true, ..ocsp::no_check() };
    assert_eq!(asked.delegated(|delegate| delegate.extensions = vec![critical]), Err(Unusable::SignerUnchecked));
    // A key that is longer than any here may be.
    let long = Arc::new(Key::generate(KeyKind::Rsa4224));
    let delegate = asked.issuer.issue_for(&ocsp::delegate("Status", NOW), long);
    let response = asked.good().by_delegate(&delegate).signed(&asked.issuer.key);
    assert_eq!(asked.read(&response), Err(Unusable::SignerUnfit));
}

#[test]
fn a_delegate_of_another_issuer() {
    let asked = Asked::new();
    // Of the same name with another key, and of another name.
    for other in [asked.issuer.twin(), Authority::root("Partner B CA", NOW)] {
        let delegate = other.issue(&ocsp::delegate("Status", NOW), KeyKind::P256);
        let response = asked.good().by_delegate(&delegate).signed(&delegate.key);
        assert_eq!(asked.read(&response), Err(Unusable::SignerOfAnotherIssuer));
    }
    // Under an intermediate of the issuer: not directly (RFC 6960 §4.2.2.2).
    let below = asked.issuer.intermediate("Below").issue(&ocsp::delegate("Status", NOW), KeyKind::P256);
    let mut response = asked.good().by_delegate(&below);
    response.certificates = below.chain.clone();
    assert_eq!(asked.read(&response.signed(&below.key)), Err(Unusable::SignerOfAnotherIssuer));
    // Signed by the issuer's key under another issuer name.
    let named = Template { issuer: Some(Name::common("Other")), ..ocsp::delegate("Status", NOW) };
    let delegate = asked.issuer.issue(&named, KeyKind::P256);
    let response = asked.good().by_delegate(&delegate).signed(&delegate.key);
    assert_eq!(asked.read(&response), Err(Unusable::SignerOfAnotherIssuer));
    // Signed by itself.
    let own = Credential::self_signed(&ocsp::delegate("Status", NOW), KeyKind::P256);
    let response = asked.good().by_delegate(&own).signed(&own.key);
    assert_eq!(asked.read(&response), Err(Unusable::SignerOfAnotherIssuer));
}

#[test]
fn a_responder_that_nobody_knows() {
    let asked = Asked::new();
    let delegate = asked.issuer.issue(&ocsp::delegate("Status", NOW), KeyKind::P256);
    let mut response = asked.good().by_delegate(&delegate);
    response.certificates.clear();
    assert_eq!(asked.read(&response.signed(&delegate.key)), Err(Unusable::SignerUnknown));
    // Its certificate comes along, and it says it is somebody else.
    let mut response = asked.good().by_delegate(&delegate);
    response.responder = Responder::ByName(Name::common("Somebody else"));
    assert_eq!(asked.read(&response.signed(&delegate.key)), Err(Unusable::SignerUnknown));
    // The client's own certificate signs its own status.
    let own = asked.good().by_delegate(&asked.leaf).signed(&asked.leaf.key);
    assert_eq!(asked.read(&own), Err(Unusable::SignerNotDelegated));
}

#[test]
fn a_signature_that_does_not_hold() {
    let asked = Asked::new();
    // By another key of the issuer's name.
    assert_eq!(asked.read(&asked.good().signed(&asked.issuer.twin().key)), Err(Unusable::SignatureInvalid));
    // One bit of it.
    let mut broken = asked.good().signed(&asked.issuer.key);
    *broken.last_mut().unwrap() ^= 1;
    assert_eq!(asked.read(&broken), Err(Unusable::SignatureInvalid));
    // By a delegate's issuer, not by the delegate that is named.
    let delegate = asked.issuer.issue(&ocsp::delegate("Status", NOW), KeyKind::P256);
    let response = asked.good().by_delegate(&delegate).signed(&asked.issuer.key);
    assert_eq!(asked.read(&response), Err(Unusable::SignatureInvalid));
    // Under an algorithm that is not its own: ecdsa-with-SHA384, ecdsa-with-SHA1.
    for arcs in [&[1, 2, 840, 10045, 4, 3, 3][..], &[1, 2, 840, 10045, 4, 1]] {
        let response = asked.good().signed_as(&asked.issuer.key, &made::sequence([made::oid(arcs)]));
        assert_eq!(asked.read(&response), Err(Unusable::SignatureInvalid));
    }
}

#[test]
fn no_more_than_eight_certificates_are_looked_at() {
    let asked = Asked::new();
    let delegate = asked.issuer.issue(&ocsp::delegate("Status", NOW), KeyKind::P256);
    let with = |others: usize| {
        let mut response = asked.good().by_delegate(&delegate);
        let other = asked.leaf.certificate().to_vec();
        response.certificates.extend(std::iter::repeat_n(other, others));
        asked.read(&response.signed(&delegate.key))
    };
    assert_eq!(with(7), good_until(3_600));
    assert_eq!(with(8), Err(Unusable::Malformed));
}

#[test]
fn garbage_and_what_is_cut_short() {
    let asked = Asked::new();
    let delegate = asked.issuer.issue(&ocsp::delegate("Status", NOW), KeyKind::P256);
    let good = asked.good().by_delegate(&delegate).signed(&delegate.key);
    for length in 0..good.len() {
        assert_eq!(asked.read(&good[..length]), Err(Unusable::Malformed), "{length}");
    }
    assert_eq!(asked.read(&[good, vec![0]].concat()), Err(Unusable::Malformed));
    assert_eq!(asked.read(b"<html>"), Err(Unusable::Malformed));
}

#[test]
fn a_kept_answer_is_judged_without_asking() {
    let asked = Asked::new();
    let serial = hex::encode(ocsp::serial_of(asked.leaf.certificate()));
    let judge =
        |octets: &[u8], now| judge(octets, &asked.signer.name_der, &asked.signer.spki_der, &serial, second(now));
    let good = asked.good().signed(&asked.issuer.key);
    assert_eq!(judge(&good, 0), Ok(Status::Good));
    assert_eq!(judge(&good, 3_600), Err("it is out of date".to_owned()));
    assert!(judge(b"", 0).is_err());
}

/// Every octet replaced by several others, and pairs of them: nothing but the original is believed, and nothing panics.
#[test]
fn ten_thousand_mutations_are_refused_without_a_panic() {
    let asked = Asked::new();
    let delegate = asked.issuer.issue(&ocsp::delegate("Status", NOW), KeyKind::P256);
    let good = asked.good().by_delegate(&delegate).signed(&delegate.key);
    let believed = asked.read(&good).unwrap();
    let mut tried = 0;
    for place in 0..good.len() {
        for change in [0x01, 0x02, 0x04, 0x08, 0x10, 0x20, 0x40, 0x80, 0xFF, 0x7F, 0x55, 0x03] {
            let mut bent = good.clone();
            bent[place] ^= change;
            // What is outside of both signatures, the delegate's own included, may vary only where it says the same.
            if let Ok(answer) = asked.read(&bent) {
                assert_eq!(answer, believed, "octet {place} ^ {change:02x}");
            }
            let other = (place * 31 + usize::from(change)) % good.len();
            bent[other] ^= change.rotate_left(3);
            bent.truncate(good.len() - place % 3);
            let _ = asked.read(&bent);
            tried += 2;
        }
    }
    assert!(tried >= 10_000, "{tried}");
}
