//! What this crate makes, as seeds: `cargo run -p countersign-conformance --example fuzz_seeds -- fuzz/corpus`.
//!
//! The fuzz targets `crl` and `ocsp` sign what they are given, so that theirs is what stands under a signature, beside the
//! whole. Keys are new in every process: where a key's hash has to be right a placeholder stands, as the target has it.

use std::path::{Path, PathBuf};
use std::{env, fs, io};

use countersign_conformance::crl::{IssuingDistributionPoint, RevocationList, Revoked};
use countersign_conformance::ocsp::{self, CertId, Response, Status, unsuccessful};
use countersign_conformance::pki::{Authority, Extension};
use countersign_conformance::spiffe::{self, Domain};
use countersign_conformance::{Key, KeyKind, der};

const NOW: i64 = 1_800_000_000;

fn main() -> io::Result<()> {
    let corpus = env::args_os().nth(1).map_or_else(|| PathBuf::from("fuzz/corpus"), PathBuf::from);
    for (name, list) in lists() {
        write(&corpus.join("crl"), &format!("whole-{name}"), &list)?;
        write(&corpus.join("crl"), name, signed_part(&list))?;
    }
    for (name, answer) in answers() {
        write(&corpus.join("ocsp"), &format!("whole-{name}"), &answer)?;
        if let Some(basic) = basic(&answer) {
            write(&corpus.join("ocsp"), name, signed_part(basic))?;
        }
    }
    for (name, bundle) in bundles() {
        write(&corpus.join("bundle"), name, bundle.as_bytes())?;
    }
    Ok(())
}

fn write(folder: &Path, name: &str, octets: &[u8]) -> io::Result<()> {
    fs::create_dir_all(folder)?;
    fs::write(folder.join(name), octets)
}

fn lists() -> Vec<(&'static str, Vec<u8>)> {
    let issuer = Authority::root("Root", NOW);
    let list = || RevocationList::new(7, NOW);
    let revoked = |serial: u8| Revoked { serial: vec![serial], at: NOW - 60, reason: None, extensions: Vec::new() };
    let entry_extension =
        |last_arc, critical, value: &[u8]| Extension { oid: vec![2, 5, 29, last_arc], critical, value: value.to_vec() };
    let pointed = |point: IssuingDistributionPoint| RevocationList { distribution_point: Some(point), ..list() };
    let none = IssuingDistributionPoint::default;
    let invalid_since = der::tlv(der::tag::GENERALIZED_TIME, "20260101000000Z");
    [
        ("nothing-revoked", list()),
        ("empty-list", RevocationList { empty_list: true, ..list() }),
        ("reasons", (0..=10).fold(list(), |list, reason| list.revoking(revoked(reason + 1).because(reason)))),
        ("one-twice", list().revoking(revoked(3)).revoking(revoked(3).because(6))),
        ("many", (0..100).fold(list(), |list, serial| list.revoking(revoked(serial)))),
        (
            "entry-extensions",
            list().revoking(Revoked {
                extensions: vec![entry_extension(24, false, &invalid_since), entry_extension(29, true, &[0x30, 0])],
                ..revoked(3)
            }),
        ),
        ("point", pointed(IssuingDistributionPoint { uris: vec!["http://a.example/crl".to_owned()], ..none() })),
        ("users", pointed(IssuingDistributionPoint { users: true, ..none() })),
        ("authorities", pointed(IssuingDistributionPoint { authorities: true, ..none() })),
        ("some-reasons", pointed(IssuingDistributionPoint { reasons: vec![1], ..none() })),
        ("indirect", pointed(IssuingDistributionPoint { indirect: true, ..none() })),
        ("delta", RevocationList { extensions: vec![entry_extension(27, true, &[2, 1, 1])], ..list() }),
        ("far-future", RevocationList { next_update: Some(NOW + 3_000_000_000), ..list() }),
    ]
    .map(|(name, list)| (name, list.signed_by(&issuer)))
    .to_vec()
}

fn answers() -> Vec<(&'static str, Vec<u8>)> {
    let issuer = Authority::root("Root", NOW);
    // As `fuzz/fuzz_targets/ocsp.rs` has them.
    let id = || CertId { issuer_key_hash: vec![0xC0; 20], ..CertId::new(&issuer.name, &issuer.key.spki(), &[0x2A]) };
    let say = |status, nonce| Response::by_issuer(&issuer, id(), status, nonce, NOW);
    let delegate = issuer.issue(&ocsp::delegate("Status", NOW), KeyKind::P256);
    let mut unstated = say(Status::Good, None);
    unstated.entries[0].next_update = None;
    let mut several = say(Status::Good, Some(vec![7; 32]));
    several.entries.insert(0, several.entries[0].clone());
    several.entries[0].id.serial = vec![0x2B];
    let by_delegate = replaced(
        &say(Status::Good, None).by_delegate(&delegate).signed(&delegate.key),
        &CertId::new(&issuer.name, &delegate.key.spki(), &[]).issuer_key_hash,
        &[0xC1; 20],
    );
    let signed = |response: Response| response.signed(&issuer.key);
    vec![
        ("good", signed(say(Status::Good, None))),
        ("nonce", signed(say(Status::Good, Some(vec![7; 32])))),
        ("revoked", signed(say(Status::Revoked { at: NOW - 60, reason: Some(1) }, None))),
        ("held", signed(say(Status::Revoked { at: NOW - 60, reason: Some(6) }, None))),
        ("no-reason", signed(say(Status::Revoked { at: NOW - 60, reason: None }, None))),
        ("unknown", signed(say(Status::Unknown, None))),
        ("version", signed(Response { version: Some(0), ..say(Status::Good, None) })),
        ("no-next-update", signed(unstated)),
        ("several", signed(several)),
        ("delegate", by_delegate),
        ("try-later", unsuccessful(3)),
    ]
}

fn bundles() -> Vec<(&'static str, String)> {
    let (own, other) = (Domain::new("a.example", NOW), Domain::new("b.example", NOW));
    let mut no_kid = own.jwt_authority();
    no_kid.as_object_mut().map(|key| key.remove("kid"));
    let jwt = |kind| spiffe::jwt_authority(&Key::generate(kind));
    let both = [own.x509_key(), own.jwt_authority()];
    vec![
        ("usual", own.bundle(1)),
        ("rotated", spiffe::bundle(2, &[own.x509_key(), own.rotated().x509_key(), own.jwt_authority()])),
        ("foreign", other.bundle(u64::MAX)),
        ("empty", spiffe::bundle(3, &[])),
        ("twice", spiffe::bundle(4, &[both.clone(), both].concat())),
        ("kinds", spiffe::bundle(5, &[KeyKind::Rsa2048, KeyKind::P384, KeyKind::P521, KeyKind::Ed25519].map(jwt))),
        ("no-kid", spiffe::bundle(6, &[no_kid])),
        ("id", own.id("/workload")),
    ]
}

/// The first element of a SEQUENCE, whole.
fn signed_part(signed: &[u8]) -> &[u8] {
    let (_, contents, _) = der::split(signed).unwrap_or_default();
    let (_, _, rest) = der::split(contents).unwrap_or_default();
    &contents[..contents.len() - rest.len()]
}

/// The BasicOCSPResponse of a successful response.
fn basic(answer: &[u8]) -> Option<&[u8]> {
    let (_, outer, _) = der::split(answer)?;
    let (_, _, rest) = der::split(outer)?;
    let (_, explicit, _) = der::split(rest)?;
    let (_, bytes, _) = der::split(explicit)?;
    let (_, _, rest) = der::split(bytes)?;
    Some(der::split(rest)?.1)
}

fn replaced(octets: &[u8], pattern: &[u8], by: &[u8]) -> Vec<u8> {
    let place = octets.windows(pattern.len()).position(|at| at == pattern);
    let mut replaced = octets.to_vec();
    if let Some(place) = place {
        replaced[place..place + by.len()].copy_from_slice(by);
    }
    replaced
}
