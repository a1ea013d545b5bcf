//! A revocation list as a partner publishes it; and one whose contents are anything at all, truly signed.
#![no_main]

use std::sync::LazyLock;

use countersign::pki::crl::{HeldLists, hold};
use countersign_conformance::pki::Authority;
use countersign_resource_server::time::UnixTime;
use libfuzzer_sys::fuzz_target;

const NOW: i64 = 1_800_000_000;

static ISSUER: LazyLock<Authority> = LazyLock::new(|| Authority::root("Root", NOW));

fuzz_target!(|input: &[u8]| {
    // Nobody signed it, so that nothing is held.
    assert!(take(input).is_err());
    // As a TBSCertList: so deep no mutation of a signed list gets.
    let list = ISSUER.sign_content(input);
    assert_eq!(take(&list), take(&list));
});

/// Verified, indexed and held, as if it had just come.
fn take(list: &[u8]) -> Result<String, String> {
    let issuer = hold(&HeldLists::default(), &ISSUER.certificate, list, UnixTime::from_seconds(NOW));
    issuer.map(|key| key.to_string()).map_err(|refusal| refusal.to_string())
}
