//! Subject and alternative names as a certificate carries them, put where they stand in a certificate that is good otherwise.
#![no_main]

use countersign::pki::ParsedCertificate;
use countersign::pki::identity::subject_rule;
use countersign_conformance::der;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|input: &[u8]| {
    // Two octets say how long the subject is; the rest are the alternative names.
    let Some((length, rest)) = input.split_first_chunk() else { return };
    let (subject, alt_names) = rest.split_at(usize::from(u16::from_be_bytes(*length)).min(rest.len()));
    let Ok(read) = ParsedCertificate::read(&certificate(subject, alt_names)) else { return };
    let Ok(names) = read.names() else {
        assert!(read.proposed_rules().is_empty());
        return;
    };
    for rule in read.proposed_rules() {
        let entered = subject_rule(rule.attribute, &rule.value).expect("a proposed rule can be entered");
        assert_eq!(entered.canonical, rule.canonical);
        assert!(names.match_rule(&entered));
    }
});

/// A certificate that is good but for its names and its signature, which no reader of names looks at.
fn certificate(subject: &[u8], alt_names: &[u8]) -> Vec<u8> {
    let algorithm = der::sequence([der::oid(&[1, 2, 840, 10_045, 4, 3, 2])]);
    let key_kind = der::sequence([der::oid(&[1, 2, 840, 10_045, 2, 1]), der::oid(&[1, 2, 840, 10_045, 3, 1, 7])]);
    let point = [&[4][..], &[7; 64]].concat();
    let extension = der::sequence([der::oid(&[2, 5, 29, 17]), der::tlv(der::tag::OCTET_STRING, alt_names)]);
    let content = der::sequence([
        der::tlv(0xA0, der::unsigned(&[2])),
        der::unsigned(&[7]),
        algorithm.clone(),
        der::sequence([[0_u8; 0]; 0]),
        der::sequence([der::tlv(der::tag::UTC_TIME, "260101000000Z"), der::tlv(der::tag::UTC_TIME, "270101000000Z")]),
        subject.to_vec(),
        der::sequence([key_kind, der::bit_string(&point)]),
        der::tlv(0xA3, der::sequence([extension])),
    ]);
    der::sequence([content, algorithm, der::bit_string(&[0; 8])])
}
