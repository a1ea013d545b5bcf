//! A SPIFFE bundle as another trust domain publishes it.
#![no_main]

use std::sync::LazyLock;

use countersign::pki::ParsedCertificate;
use countersign::pki::bundle::{Bundle, Succession};
use countersign::pki::spiffe::{SpiffeId, TrustDomain};
use countersign_resource_server::time::UnixTime;
use libfuzzer_sys::fuzz_target;

static DOMAIN: LazyLock<TrustDomain> = LazyLock::new(|| TrustDomain::parse("a.example").expect("a trust domain"));

fuzz_target!(|input: &[u8]| {
    if let Ok(text) = str::from_utf8(input)
        && let Ok(id) = SpiffeId::parse(text)
    {
        // One spelling, and of its own trust domain.
        assert_eq!(id.as_str(), text);
        assert!(id.is_of(&id.trust_domain()));
    }
    let Ok(bundle) = Bundle::parse(input, &DOMAIN) else { return };
    assert!(bundle.x509_authorities.iter().all(|der| ParsedCertificate::read(der).is_ok()));
    assert!(bundle.jwt_authorities.keys().iter().all(|key| key.kid().is_some()));
    // It is itself, and loses nothing of itself.
    assert_eq!(bundle.succession(&bundle), Succession::Same);
    let lost = bundle.lost(&bundle, UnixTime::from_seconds(1_800_000_000));
    assert!(!lost.x509 && !lost.jwt);
});
