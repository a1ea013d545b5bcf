//! Bodies that are no forms, forms that say a thing twice, media types that are not a form's.

use super::{Case, Expected, invalid_request};
use crate::wire::{Request, encode};
use crate::world::World;

pub(super) fn cases(world: &World) -> Vec<Case> {
    let mut cases = malformed(world);
    cases.extend(repeated(world));
    cases.extend(media_types(world));
    cases.extend(sizes(world));
    cases
}

const MALFORMED: Expected = invalid_request(400, "body_malformed");

/// WHATWG URL §5.1 forgives broken escapes and broken UTF-8; RFC 6749 appendix B asks for UTF-8, and what is forgiven here
/// would be read differently elsewhere.
fn malformed(world: &World) -> Vec<Case> {
    const BROKEN: &[(&str, &[u8])] = &[
        ("escape without digits", b"%"),
        ("escape with one digit", b"%4"),
        ("escape of letters that are no digits", b"%zz"),
        ("escape with a sign", b"%+1"),
        ("escape with a space", b"% 1"),
        ("escape by code point", b"%u0041"),
        ("UTF-8 cut short", b"%C3"),
        ("UTF-8 cut short by a letter", b"%C3%28"),
        ("UTF-8 continuation alone", b"%80"),
        ("UTF-8 overlong slash", b"%C0%AF"),
        ("UTF-8 overlong of three octets", b"%E0%80%AF"),
        ("UTF-8 surrogate", b"%ED%A0%80"),
        ("UTF-8 beyond the last code point", b"%F4%90%80%80"),
        ("octet FE", b"%FE"),
        ("raw octet FF", b"\xFF"),
        ("raw Latin-1", b"caf\xE9"),
    ];
    let party = &world.a_dn;
    let mut cases = Vec::new();
    for (defect, octets) in BROKEN {
        for place in ["grant_type", "client_id", "scope", "resource", "unknown", "name"] {
            let mut body = Vec::new();
            for (name, value) in party.form() {
                if !body.is_empty() {
                    body.push(b'&');
                }
                body.extend(encode(&[(name, &value)]).into_bytes());
                if name == place {
                    body.extend_from_slice(octets);
                }
            }
            if place == "unknown" {
                body.extend_from_slice(b"&note=");
                body.extend_from_slice(octets);
            }
            if place == "name" {
                body.extend_from_slice(b"&note");
                body.extend_from_slice(octets);
                body.extend_from_slice(b"=1");
            }
            cases.push(Case::of(format!("form: {defect} in {place}"), party, &form(body), MALFORMED));
        }
    }
    cases
}

fn repeated(world: &World) -> Vec<Case> {
    const TWICE: Expected = invalid_request(400, "parameter_repeated");
    let party = &world.a_dn;
    let good = encode(&party.form().iter().map(|(name, value)| (*name, value.as_str())).collect::<Vec<_>>());
    let mut cases = Vec::new();
    for (name, value) in
        [("grant_type", "client_credentials"), ("client_id", party.id), ("scope", "accounts:read"), ("note", "1")]
    {
        // An unknown parameter is in the good form not at all.
        let first = if name == "note" { format!("{good}&note=1") } else { good.clone() };
        let bodies = [
            ("twice with the same value", format!("{first}&{}", encode(&[(name, value)]))),
            ("twice with another value", format!("{first}&{}", encode(&[(name, "other")]))),
            ("twice, the second empty", format!("{first}&{name}=")),
            ("twice, the second without a sign", format!("{first}&{name}")),
            ("twice, the first empty", format!("{name}=&{first}")),
            (
                "twice, the second name in escapes",
                format!(
                    "{first}&%{:02X}{}={}",
                    name.as_bytes()[0],
                    &name[1..],
                    encode(&[("", value)]).trim_start_matches('=')
                ),
            ),
            ("three times", format!("{first}&{name}=a&{name}=b")),
        ];
        for (defect, body) in bodies {
            cases.push(Case::of(format!("form: {name} {defect}"), party, &form(body.into_bytes()), TWICE));
        }
    }
    cases
}

fn media_types(world: &World) -> Vec<Case> {
    const UNSUPPORTED: Expected = invalid_request(415, "unsupported_media_type");
    const TYPES: &[&str] = &[
        "",
        "text/plain",
        "text/html",
        "text/xml",
        "application/json",
        "application/jwt",
        "application/octet-stream",
        "application/xml",
        "application/x-www-form",
        "application/x-www-form-urlencoded2",
        "application/x-www-form-urlencodedcharset=utf-8",
        "application/x-www-form-urlencoded, application/json",
        "application/json, application/x-www-form-urlencoded",
        "application/x-www-form-urlencoded; charset=iso-8859-1",
        "application/x-www-form-urlencoded; charset=us-ascii",
        "application/x-www-form-urlencoded; charset=utf-16",
        "application/x-www-form-urlencoded; charset=utf-7",
        "application/x-www-form-urlencoded; charset=utf-8; charset=utf-7",
        "application/x-www-form-urlencoded; charset=",
        "application /x-www-form-urlencoded",
        "x-www-form-urlencoded",
        "multipart/form-data",
        "multipart/form-data; boundary=x",
        "*/*",
        "form",
    ];
    let party = &world.a_dn;
    let bare = party.request().without_header("Content-Type");
    let mut cases: Vec<Case> = TYPES
        .iter()
        .map(|media_type| {
            Case::of(
                format!("media type: {media_type:?}"),
                party,
                &bare.clone().with_header("Content-Type", media_type),
                UNSUPPORTED,
            )
        })
        .collect();
    cases.push(Case::of("media type: none", party, &bare, UNSUPPORTED));
    cases.push(Case::of(
        "media type: a second one",
        party,
        &party.request().with_header("Content-Type", "application/json"),
        UNSUPPORTED,
    ));
    for coding in ["gzip", "deflate", "br", "compress"] {
        cases.push(Case::of(
            format!("media type: content coding {coding}"),
            party,
            &party.request().with_header("Content-Encoding", coding),
            UNSUPPORTED,
        ));
    }
    cases
}

/// 16 KB is the limit of a body (design §8).
fn sizes(world: &World) -> Vec<Case> {
    const LIMIT: usize = 16 * 1024;
    const TOO_LARGE: Expected = invalid_request(413, "body_too_large");
    let party = &world.a_dn;
    let good = encode(&party.form().iter().map(|(name, value)| (*name, value.as_str())).collect::<Vec<_>>());
    let padded =
        |length: usize| format!("{good}&note={}", "x".repeat(length - good.len() - "&note=".len())).into_bytes();
    let chunked = |body: &[u8], size: usize| {
        let mut octets = Vec::new();
        for chunk in body.chunks(size) {
            octets.extend(format!("{:x}\r\n", chunk.len()).into_bytes());
            octets.extend_from_slice(chunk);
            octets.extend_from_slice(b"\r\n");
        }
        octets.extend_from_slice(b"0\r\n\r\n");
        Request { length: false, ..form(octets) }.with_header("Transfer-Encoding", "chunked")
    };
    let many = format!("{good}{}", (0..2_000).map(|at| format!("&p{at}=12345")).collect::<String>());
    let mut cases = vec![
        Case::of("size: one octet too many", party, &form(padded(LIMIT + 1)), TOO_LARGE),
        Case::of("size: twice the limit", party, &form(padded(2 * LIMIT)), TOO_LARGE),
        Case::of("size: a megabyte", party, &form(padded(1 << 20)), TOO_LARGE),
        Case::of("size: many parameters", party, &form(many.into_bytes()), TOO_LARGE),
        Case::of("size: one octet too many in chunks", party, &chunked(&padded(LIMIT + 1), 1_000), TOO_LARGE),
        Case::of("size: a megabyte in one chunk", party, &chunked(&padded(1 << 20), 1 << 20), TOO_LARGE),
    ];
    for (name, length, expected) in
        [("a gigabyte", "1073741824", TOO_LARGE), ("all that fits", "18446744073709551615", Expected::Unreadable)]
    {
        let request = Request { length: false, ..party.request() }.with_header("Content-Length", length);
        cases.push(Case::of(format!("size: {name} announced"), party, &request, expected));
    }
    cases
}

fn form(body: Vec<u8>) -> Request {
    Request::post("/token", body)
        .with_header("Content-Type", "application/x-www-form-urlencoded")
        .with_header("Accept", "application/json")
}
