//! A certificate as a stranger presents it, or as an operator hands it in.
#![no_main]

use countersign::pki::ParsedCertificate;
use countersign::pki::anchor::check_anchor;
use countersign::pki::certificate::{certificates_from, key_material};
use countersign::pki::identity::subject_rule;
use countersign::pki::presented::{Handshake, PresentedChain};
use countersign_resource_server::time::UnixTime;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|input: &[u8]| {
    if let Ok(read) = ParsedCertificate::read(input) {
        // What is proposed to an operator can be entered, and names this very certificate.
        for rule in read.proposed_rules() {
            let entered = subject_rule(rule.attribute, &rule.value).expect("a proposed rule can be entered");
            assert_eq!(entered.canonical, rule.canonical);
            assert!(read.names().is_ok_and(|names| names.match_rule(&entered)));
        }
        let _ = read.for_enrolment();
    }
    let _ = key_material(input);
    let _ = check_anchor(input, UnixTime::from_seconds(1_800_000_000));
    // As it stands in a handshake, as a leaf and as an intermediate; or in a file.
    let handshake = Handshake { remote: ([192, 0, 2, 1], 50_000).into(), protocol: "TLSv1.3", resumed: false };
    let certificates = [input, input].map(|der| der.to_vec().into()).to_vec();
    let _ = PresentedChain::new(handshake, certificates);
    let _ = certificates_from(input);
});
