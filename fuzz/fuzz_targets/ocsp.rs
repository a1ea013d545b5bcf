//! What a responder answers; and an answer whose contents are anything at all, truly signed by who may.
#![no_main]

use std::sync::LazyLock;

use countersign::pki::ocsp::judge;
use countersign_conformance::der::{self, tag};
use countersign_conformance::ocsp::{CertId, delegate};
use countersign_conformance::pki::{Authority, Credential};
use countersign_conformance::{Key, KeyKind};
use countersign_resource_server::time::UnixTime;
use libfuzzer_sys::fuzz_target;

const NOW: i64 = 1_800_000_000;

/// The certificate that is asked about.
const SERIAL: &str = "2a";

/// Keys are new in every process. In `conformance/examples/fuzz_seeds.rs` these stand for the hashes of the issuer's and of
/// its delegate's.
const ISSUER_KEY_HASH: [u8; 20] = [0xC0; 20];
const DELEGATE_KEY_HASH: [u8; 20] = [0xC1; 20];

static ISSUER: LazyLock<Authority> = LazyLock::new(|| Authority::root("Root", NOW));
static DELEGATE: LazyLock<Credential> = LazyLock::new(|| ISSUER.issue(&delegate("Status", NOW), KeyKind::P256));

fuzz_target!(|input: &[u8]| {
    // Nobody signed it, so that it says nothing.
    assert!(what_it_says(input).is_err());
    // As a ResponseData: so deep no mutation of a signed answer gets.
    let hash = |key: &Key| CertId::new(&ISSUER.name, &key.spki(), &[]).issuer_key_hash;
    let data = replaced(input, &ISSUER_KEY_HASH, &hash(&ISSUER.key));
    let data = replaced(&data, &DELEGATE_KEY_HASH, &hash(&DELEGATE.key));
    let by_issuer = what_it_says(&answer(&data, &ISSUER, None));
    let delegate = Authority::pretended(ISSUER.name.clone(), &DELEGATE, NOW);
    let by_delegate = what_it_says(&answer(&data, &delegate, Some(DELEGATE.certificate())));
    // It names one responder, and the other one's signature is not that one's.
    assert!(by_issuer.is_err() || by_delegate.is_err());
});

fn what_it_says(octets: &[u8]) -> Result<(), String> {
    let at = UnixTime::from_seconds(NOW);
    judge(octets, &ISSUER.name.to_der(), &ISSUER.key.spki(), SERIAL, at).map(drop)
}

/// RFC 6960 §4.2.1, with this ResponseData.
fn answer(data: &[u8], signer: &Authority, certificate: Option<&[u8]>) -> Vec<u8> {
    // Signed as certificates are: contents, algorithm, signature.
    let signed = signer.sign_content(data);
    let (_, parts, _) = der::split(&signed).expect("what was just signed");
    let certificates = certificate.map(|certificate| der::tlv(0xA0, der::sequence([certificate]))).unwrap_or_default();
    let basic = der::tlv(tag::SEQUENCE, [parts, &certificates].concat());
    let kind = der::oid(&[1, 3, 6, 1, 5, 5, 7, 48, 1, 1]);
    let bytes = der::sequence([kind, der::tlv(tag::OCTET_STRING, basic)]);
    der::sequence([der::tlv(0x0A, [0]), der::tlv(0xA0, bytes)])
}

fn replaced(input: &[u8], pattern: &[u8; 20], by: &[u8]) -> Vec<u8> {
    let mut output = input.to_vec();
    let places: Vec<usize> = input.windows(20).enumerate().filter(|(_, at)| at == pattern).map(|(at, _)| at).collect();
    for place in places {
        output[place..place + 20].copy_from_slice(by);
    }
    output
}
