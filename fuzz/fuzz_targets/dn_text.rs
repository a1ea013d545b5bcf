//! A name as an operator types it, of every kind.
#![no_main]

use countersign::pki::identity::{distinguished_name, dns_name, email_address, ip_address, uri};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|text: &str| {
    for canonical in [distinguished_name, dns_name, uri, ip_address, email_address] {
        if let Ok(once) = canonical(text) {
            // What is stored can be entered again, and is the same then.
            assert_eq!(canonical(&once).as_ref(), Ok(&once));
        }
    }
});
