//! Methods, paths, heads and headers: what HTTP lets a peer say besides a form.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use countersign_conformance::key::pem;

use super::{Case, Expected, invalid_client, invalid_request, undecided};
use crate::wire::{Request, encode};
use crate::world::World;

pub(super) fn cases(world: &World) -> Vec<Case> {
    let mut cases = methods(world);
    cases.extend(paths(world));
    cases.extend(queries(world));
    cases.extend(authorization(world));
    cases.extend(certificates_in_headers(world));
    cases.extend(hosts(world));
    cases.extend(unreadable(world));
    cases
}

fn methods(world: &World) -> Vec<Case> {
    const NOT_ALLOWED: Expected = undecided(405);
    let party = &world.a_dn;
    let mut cases = Vec::new();
    for method in ["GET", "HEAD", "PUT", "DELETE", "PATCH", "OPTIONS", "TRACE", "QUERY", "PROPFIND", "post", "FROB"] {
        let request = Request { method: method.to_owned(), ..party.request() };
        cases.push(Case::of(format!("method: {method} /token"), party, &request, NOT_ALLOWED));
    }
    for path in ["/jwks", "/revocations", "/.well-known/oauth-authorization-server"] {
        for method in ["POST", "PUT", "DELETE", "PATCH", "TRACE"] {
            let request = Request { method: method.to_owned(), target: path.to_owned(), ..party.request() };
            cases.push(Case::of(format!("method: {method} {path}"), party, &request, NOT_ALLOWED));
        }
    }
    for header in ["X-HTTP-Method-Override", "X-HTTP-Method", "X-Method-Override"] {
        let request = Request { method: "GET".to_owned(), ..party.request() }.with_header(header, "POST");
        cases.push(Case::of(format!("method: GET with {header}"), party, &request, NOT_ALLOWED));
    }
    cases
}

fn paths(world: &World) -> Vec<Case> {
    let party = &world.a_dn;
    [
        "/",
        "//token",
        "/TOKEN",
        "/Token",
        "/token/",
        "/token/x",
        "/token;x=1",
        "/token.json",
        "/token%00",
        "/token%20",
        "/token%2F",
        "/%2Ftoken",
        "/./token",
        "/../token",
        "/x/../token",
        "/oauth/token",
        "/oauth2/token",
        "/as/token.oauth2",
        "/introspect/",
        "/revoke/",
        "/authorize",
        "/register",
        "/admin",
        "/metrics",
        "/healthz",
        "/readyz",
        "/.well-known/",
        "/.well-known/openid-configuration",
        "/.env",
        "/token\u{e9}",
    ]
    .iter()
    .map(|path| {
        let request = Request { target: (*path).to_owned(), ..party.request() };
        Case::of(format!("path: {path}"), party, &request, undecided(404))
    })
    .collect()
}

/// RFC 6749 §2.3.1, §3.2: parameters go in the body, never in the URI.
fn queries(world: &World) -> Vec<Case> {
    let party = &world.a_dn;
    let form = party.form();
    let all = encode(&form.iter().map(|(name, value)| (*name, value.as_str())).collect::<Vec<_>>());
    let in_the_uri = invalid_request(400, "parameter_in_query");
    let mut cases = Vec::new();
    for moved in ["grant_type", "client_id", "scope", "resource"] {
        let rest: Vec<_> = form.iter().filter(|(name, _)| *name != moved).cloned().collect();
        let value = &form.iter().find(|(name, _)| *name == moved).unwrap().1;
        let mut request = crate::world::form_request(&rest);
        request.target = format!("/token?{}", encode(&[(moved, value)]));
        cases.push(Case::of(format!("query: {moved} in the URI"), party, &request, in_the_uri));
    }
    let mut empty = Request::form("/token", &[]);
    empty.target = format!("/token?{all}");
    cases.push(Case::of("query: everything in the URI", party, &empty, in_the_uri));
    for (defect, query) in [
        ("everything twice", all.as_str()),
        ("a token", "access_token=abc"),
        ("an assertion", "client_assertion=abc"),
        ("a note", "x=1"),
    ] {
        let request = Request { target: format!("/token?{query}"), ..party.request() };
        cases.push(Case::of(format!("query: {defect} in the URI"), party, &request, in_the_uri));
    }
    cases.push(Case::of(
        "query: nothing anywhere",
        party,
        &Request::form("/token", &[]),
        invalid_request(400, "client_id_missing"),
    ));
    cases
}

/// No method here uses the `Authorization` header: whoever comes with one used a second method, or one there is not.
fn authorization(world: &World) -> Vec<Case> {
    let party = &world.a_dn;
    let basic = |text: &str| format!("Basic {}", STANDARD.encode(text));
    let values = [
        basic("a-dn:secret"),
        basic("a-dn:"),
        basic(":"),
        basic("other:secret"),
        basic("no colon"),
        "Basic".to_owned(),
        "Basic ".to_owned(),
        "Basic !!!!".to_owned(),
        basic("a-dn:secret").replacen("Basic", "bAsIc", 1),
        "Bearer abc".to_owned(),
        "Bearer".to_owned(),
        "DPoP abc".to_owned(),
        "Digest username=\"a-dn\"".to_owned(),
        "Negotiate YII=".to_owned(),
        "HOBA result=\"x\"".to_owned(),
        "Mutual".to_owned(),
        "a-dn:secret".to_owned(),
        "=".to_owned(),
    ];
    let mut cases: Vec<Case> = values
        .iter()
        .map(|value| {
            Case::of(
                format!("authorization: {value:?}"),
                party,
                &party.request().with_header("Authorization", value),
                // RFC 6749 §5.2: 401 where the client used the header.
                Expected::Refused { status: 401, error: "invalid_client", reason: Some("authorization_header") },
            )
        })
        .collect();
    cases.push(Case::of(
        "authorization: two headers",
        party,
        &party.request().with_header("Authorization", &basic("a-dn:x")).with_header("Authorization", "Bearer abc"),
        Expected::Refused { status: 401, error: "invalid_client", reason: Some("authorization_header") },
    ));
    cases
}

/// Design §3: a certificate in a header gains a request nothing. `Request` has the header, the connection has no
/// certificate, or that of another client.
fn certificates_in_headers(world: &World) -> Vec<Case> {
    let victim = &world.a_dn;
    let leaf = victim.credential.certificate();
    let base64 = STANDARD.encode(leaf);
    let escaped = encode(&[("", &pem("CERTIFICATE", leaf))]).trim_start_matches('=').to_owned();
    let one_line = pem("CERTIFICATE", leaf).replace('\n', " ");
    let headers: [(&str, String); 22] = [
        ("Client-Cert", format!(":{base64}:")),
        ("Client-Cert-Chain", format!(":{base64}:")),
        ("X-Client-Cert", escaped.clone()),
        ("X-Client-Certificate", base64.clone()),
        ("X-Forwarded-Client-Cert", format!("Hash={};Cert=\"{escaped}\";Subject=\"CN=a-dn\"", "0".repeat(64))),
        ("X-Forwarded-Tls-Client-Cert", base64.clone()),
        ("X-Forwarded-Tls-Client-Cert-Info", "Subject=\"CN=a-dn,O=Partner A,C=DE\"".to_owned()),
        ("X-SSL-Cert", escaped.clone()),
        ("X-SSL-Client-Cert", escaped.clone()),
        ("X-SSL-Client-S-DN", "CN=a-dn,O=Partner A,C=DE".to_owned()),
        ("X-SSL-Client-Verify", "SUCCESS".to_owned()),
        ("X-SSL-Client-SHA1", "0000".to_owned()),
        ("SSL_CLIENT_CERT", one_line.clone()),
        ("SSL-Client-Cert", one_line.clone()),
        ("SSL_CLIENT_VERIFY", "SUCCESS".to_owned()),
        ("X-ARR-ClientCert", base64.clone()),
        ("X-Amzn-Mtls-Clientcert", escaped.clone()),
        ("X-Amzn-Mtls-Clientcert-Leaf", escaped.clone()),
        ("X-Goog-Client-Cert-Leaf", base64.clone()),
        ("Cf-Client-Cert-Der-Base64", base64.clone()),
        ("X-Client-Dn", "CN=a-dn,O=Partner A,C=DE".to_owned()),
        ("Forwarded", "for=192.0.2.1;proto=https".to_owned()),
    ];
    let mut cases = Vec::new();
    for (header, value) in headers {
        let request = victim.request().with_header(header, &value);
        cases.push(Case::with(
            format!("header certificate: {header}, none on the connection"),
            None,
            &request,
            invalid_client("peer_no_certificate"),
        ));
        cases.push(Case::of(
            format!("header certificate: {header}, another client's on the connection"),
            &world.a_two,
            &request,
            invalid_client("certificate_name_mismatch"),
        ));
    }
    cases
}

/// RFC 9112 §3.2: one `Host`, and one that is a host.
fn hosts(world: &World) -> Vec<Case> {
    let party = &world.a_dn;
    let malformed = invalid_request(400, "host_malformed");
    let bare = party.request().without_header("Host");
    let mut cases = vec![
        Case::of("host: none", party, &bare, malformed),
        Case::of("host: two", party, &party.request().with_header("Host", "evil.example"), malformed),
        Case::of("host: the same twice", party, &party.request().with_header("Host", "localhost"), malformed),
    ];
    for host in ["", "a b", "user@localhost", "https://localhost", "localhost/token", "local\"host", "[::1"] {
        cases.push(Case::of(format!("host: {host:?}"), party, &bare.clone().with_header("Host", host), malformed));
    }
    cases
}

/// What the HTTP library cannot read gets its bare 4xx or the end of the connection, and in no case a token.
fn unreadable(world: &World) -> Vec<Case> {
    let party = &world.a_dn;
    let good = String::from_utf8(party.request().to_bytes()).unwrap();
    let (head, body) = good.split_once("\r\n\r\n").unwrap();
    let line = |from: &str, to: &str| good.replacen(from, to, 1);
    let length = format!("Content-Length: {}", body.len());
    let long = |octets: usize| format!("{head}\r\nX-Long: {}\r\n\r\n{body}", "x".repeat(octets));
    let many = |count: usize| {
        let lines: String = (0..count).map(|at| format!("\r\nX-Header-{at}: {at}")).collect();
        format!("{head}{lines}\r\n\r\n{body}")
    };
    let bent: Vec<(&str, String)> = vec![
        ("version 0.9", format!("POST /token\r\n\r\n{body}")),
        ("version 2.0", line("HTTP/1.1", "HTTP/2.0")),
        ("version 1.2", line("HTTP/1.1", "HTTP/1.2")),
        ("version in lower case", line("HTTP/1.1", "http/1.1")),
        ("version missing its minor", line("HTTP/1.1", "HTTP/1")),
        ("no target", line("/token ", "")),
        ("a space in the target", line("/token", "/to ken")),
        ("a control character in the target", line("/token", "/to\u{1}ken")),
        ("no method", line("POST ", " ")),
        ("a method with a separator", line("POST", "PO(ST")),
        ("a space before the colon", line("Host:", "Host :")),
        ("a folded header", line("Accept: application/json", "Accept:\r\n application/json")),
        ("a header without a colon", line("Accept: application/json", "Accept application/json")),
        ("a header without a name", line("Accept: application/json", ": application/json")),
        ("a control character in a header name", line("Accept:", "Acc\u{1}ept:")),
        ("NUL in a header value", line("application/json", "application/\0json")),
        ("a bare CR in a header value", line("application/json", "application/\rjson")),
        ("a separator in a header name", line("Accept:", "Acc(ept:")),
        ("a length that is no number", line(&length, "Content-Length: ten")),
        ("a negative length", line(&length, "Content-Length: -1")),
        ("a length with a sign", line(&length, &length.replace(": ", ": +"))),
        ("a length in hexadecimal", line(&length, "Content-Length: 0x10")),
        ("an empty length", line(&length, "Content-Length:")),
        ("a length beyond 64 bits", line(&length, "Content-Length: 184467440737095516160")),
        ("two lengths that differ", line(&length, &format!("{length}\r\nContent-Length: 1"))),
        ("a list of lengths that differ", line(&length, &format!("{length}, 1"))),
        ("a transfer coding that is not chunked last", line(&length, "Transfer-Encoding: chunked, gzip")),
        ("an unknown transfer coding", line(&length, "Transfer-Encoding: xchunked")),
        ("identity as transfer coding", line(&length, "Transfer-Encoding: identity")),
        (
            "a transfer coding in HTTP/1.0",
            format!(
                "{}\r\n\r\n{:x}\r\n{body}\r\n0\r\n\r\n",
                head.replace(&length, "Transfer-Encoding: chunked").replace("HTTP/1.1", "HTTP/1.0"),
                body.len()
            ),
        ),
        (
            "a chunk size that is no number",
            format!("{}\r\n\r\nzz\r\n{body}\r\n0\r\n\r\n", head.replace(&length, "Transfer-Encoding: chunked")),
        ),
        (
            "a chunk size beyond 64 bits",
            format!(
                "{}\r\n\r\n{}\r\n{body}\r\n0\r\n\r\n",
                head.replace(&length, "Transfer-Encoding: chunked"),
                "f".repeat(17)
            ),
        ),
        (
            "a chunk shorter than it says",
            format!(
                "{}\r\n\r\n{:x}\r\n{body}\r\n0\r\n\r\n",
                head.replace(&length, "Transfer-Encoding: chunked"),
                body.len() + 9
            ),
        ),
        (
            "a chunk longer than it says",
            format!(
                "{}\r\n\r\n{:x}\r\n{body}\r\n0\r\n\r\n",
                head.replace(&length, "Transfer-Encoding: chunked"),
                body.len() - 9
            ),
        ),
        (
            "a negative chunk size",
            format!("{}\r\n\r\n-1\r\n{body}\r\n0\r\n\r\n", head.replace(&length, "Transfer-Encoding: chunked")),
        ),
        ("a header of 20 KB", long(20 * 1024)),
        ("a header of 1 MB", long(1 << 20)),
        ("a target of 20 KB", line("/token", &format!("/token?{}", "x".repeat(20 * 1024)))),
        ("1,000 headers", many(1_000)),
        ("TLS within TLS", "\u{16}\u{3}\u{1}\u{2}\u{0}\u{1}".to_owned()),
        ("nothing but line ends", "\r\n\r\n\r\n\r\n".repeat(8)),
        ("the preface of HTTP/2 without it", "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\nrubbish that is no frame".to_owned()),
    ];
    bent.into_iter()
        .map(|(defect, text)| Case {
            name: format!("head: {defect}"),
            credential: Some(party.credential.clone()),
            octets: text.into_bytes(),
            head_only: false,
            expected: Expected::Unreadable,
        })
        .collect()
}
