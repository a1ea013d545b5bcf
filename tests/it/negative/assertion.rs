//! Client assertions with one defect each (RFC 7523 §3 with the audience rules of rfc7523bis, RFC 8725, design §3).

use base64::Engine;
use base64::engine::general_purpose::{STANDARD, URL_SAFE, URL_SAFE_NO_PAD};
use countersign_conformance::forge::{Signature, Token, compact, compact_of_encoded};
use countersign_conformance::{JwsAlgorithm, Key, KeyKind};
use serde_json::{Value, json};

use super::{Case, Expected, invalid_client, invalid_request};
use crate::world::{ASSERTION_TYPE, Party, World, form_request};

pub(super) fn cases(world: &World) -> Vec<Case> {
    let mut cases = claims(world);
    cases.extend(headers(world));
    cases.extend(signatures(world));
    cases.extend(framing(world));
    cases.extend(parameters(world));
    cases.extend(parties(world));
    cases
}

/// A right assertion, its `jti` the case's name: nothing may be refused as replayed that is refused for another reason.
fn right<'a>(world: &World, party: &'a Party, name: &str) -> Token<'a> {
    party.assertion(world, name)
}

fn case(world: &World, name: String, expected: Expected, bend: impl FnOnce(Token<'_>) -> String) -> Case {
    let assertion = bend(right(world, &world.a_jwt, &name));
    Case::of(name, &world.a_jwt, &world.a_jwt.request_with(&assertion), expected)
}

fn claims(world: &World) -> Vec<Case> {
    let now = world.now;
    let issuer = world.issuer.as_str();
    let mut cases = Vec::new();
    let mut push = |defect: String, reason: &'static str, bend: &dyn Fn(Token<'_>) -> String| {
        cases.push(case(world, format!("assertion: {defect}"), invalid_client(reason), bend));
    };
    for (claim, reason) in [
        ("iss", "assertion_issuer_wrong"),
        ("aud", "assertion_audience_wrong"),
        ("exp", "assertion_expiry_missing"),
        ("jti", "assertion_jti_missing"),
    ] {
        push(format!("no {claim}"), reason, &|token| token.claims(|claims| claims.without(claim)).compact());
    }
    // Without `sub` the assertion names nobody; the client_id still does.
    push("no sub".to_owned(), "assertion_malformed", &|token| token.claims(|claims| claims.without("sub")).compact());
    let other_types: [(&str, Value); 6] = [
        ("null", Value::Null),
        ("a boolean", json!(true)),
        ("an array", json!([])),
        ("an object", json!({})),
        ("a number", json!(7)),
        ("an empty string", json!("")),
    ];
    for (claim, reason) in [
        ("iss", "assertion_issuer_wrong"),
        ("sub", "assertion_malformed"),
        ("aud", "assertion_audience_wrong"),
        ("jti", "assertion_jti_malformed"),
    ] {
        for (kind, value) in &other_types {
            push(format!("{claim} is {kind}"), reason, &|token| {
                token.claims(|claims| claims.with(claim, value.clone())).compact()
            });
        }
    }
    for (claim, beyond) in
        [("exp", "assertion_lives_too_long"), ("iat", "assertion_from_the_future"), ("nbf", "assertion_not_yet_valid")]
    {
        let claims_malformed = "assertion_claims_malformed";
        for (kind, value, reason) in [
            ("null", "null".to_owned(), claims_malformed),
            ("a boolean", "true".to_owned(), claims_malformed),
            ("an array", format!("[{now}]"), claims_malformed),
            ("an object", "{}".to_owned(), claims_malformed),
            ("a string", format!("\"{}\"", now + 60), claims_malformed),
            ("beyond 64 bits", "18446744073709551616".to_owned(), beyond),
            ("2^63", "9223372036854775808".to_owned(), beyond),
            ("an exponent without end", "1e400".to_owned(), "assertion_malformed"),
        ] {
            push(format!("{claim} is {kind}"), reason, &|token| {
                token.claims(|claims| claims.with_raw(claim, &value)).compact()
            });
        }
    }
    for (defect, claim, value, reason) in [
        ("exp now", "exp", now, "assertion_expired"),
        ("exp a second ago", "exp", now - 1, "assertion_expired"),
        ("exp an hour ago", "exp", now - 3_600, "assertion_expired"),
        ("exp zero", "exp", 0, "assertion_expired"),
        ("exp negative", "exp", -1, "assertion_expired"),
        ("exp in milliseconds", "exp", (now + 60) * 1_000, "assertion_lives_too_long"),
        ("exp 601 seconds ahead", "exp", now + 601, "assertion_lives_too_long"),
        ("exp a day ahead", "exp", now + 86_400, "assertion_lives_too_long"),
        ("exp at the end of 64 bits", "exp", i64::MAX, "assertion_lives_too_long"),
        ("iat 11 seconds ahead", "iat", now + 11, "assertion_from_the_future"),
        ("iat an hour ahead", "iat", now + 3_600, "assertion_from_the_future"),
        ("iat in milliseconds", "iat", now * 1_000, "assertion_from_the_future"),
        ("nbf 11 seconds ahead", "nbf", now + 11, "assertion_not_yet_valid"),
        ("nbf an hour ahead", "nbf", now + 3_600, "assertion_not_yet_valid"),
    ] {
        push(defect.to_owned(), reason, &|token| token.claims(|claims| claims.with(claim, value)).compact());
    }
    // rfc7523bis §4: the issuer identifier as the sole value, as a string.
    for (defect, audience) in [
        ("aud the token endpoint", json!(format!("{issuer}/token"))),
        ("aud with a slash behind", json!(format!("{issuer}/"))),
        ("aud in an array", json!([issuer])),
        ("aud among others", json!([issuer, "https://other.example"])),
        ("aud twice in an array", json!([issuer, issuer])),
        ("aud another server", json!("https://other.example")),
        ("aud in capitals", json!(issuer.to_uppercase())),
        ("aud without TLS", json!(issuer.replace("https", "http"))),
        ("aud another port", json!("https://localhost:8444")),
        ("aud without port", json!("https://localhost")),
        ("aud a space behind", json!(format!("{issuer} "))),
        ("aud two in one", json!(format!("{issuer} https://other.example"))),
        ("aud the client", json!("a-jwt")),
        ("aud the jwks", json!(format!("{issuer}/jwks"))),
        ("aud the metadata", json!(format!("{issuer}/.well-known/oauth-authorization-server"))),
        ("aud with a fragment", json!(format!("{issuer}#"))),
        ("aud a prefix", json!(&issuer[..issuer.len() - 1])),
    ] {
        push(defect.to_owned(), "assertion_audience_wrong", &|token| {
            token.claims(|claims| claims.with("aud", audience.clone())).compact()
        });
    }
    for (defect, issuer) in [
        ("iss another client", "a-jwt-eddsa"),
        ("iss in capitals", "A-JWT"),
        ("iss the server", issuer),
        ("iss a space behind", "a-jwt "),
    ] {
        push(defect.to_owned(), "assertion_issuer_wrong", &|token| {
            token.claims(|claims| claims.with("iss", issuer)).compact()
        });
    }
    for (defect, jti) in [("jti of 257 characters", "j".repeat(257)), ("jti of 4,000 characters", "j".repeat(4_000))] {
        push(defect.to_owned(), "assertion_jti_malformed", &|token| {
            token.claims(|claims| claims.with("jti", jti.as_str())).compact()
        });
    }
    for claim in ["iss", "sub", "aud", "exp", "iat", "jti"] {
        push(format!("{claim} twice, the first of another"), "assertion_malformed", &|token| {
            token.claims(|claims| claims.preceded_by(claim, "other")).compact()
        });
        push(format!("{claim} twice, the second of another"), "assertion_malformed", &|token| {
            token.claims(|claims| claims.and(claim, "other")).compact()
        });
    }
    push("a member twice within a claim".to_owned(), "assertion_malformed", &|token| {
        token.claims(|claims| claims.with_raw("note", r#"{"a":1,"a":2}"#)).compact()
    });
    cases
}

fn headers(world: &World) -> Vec<Case> {
    let mut cases = Vec::new();
    let mut push = |defect: &str, reason: &'static str, bend: &dyn Fn(Token<'_>) -> String| {
        cases.push(case(world, format!("assertion header: {defect}"), invalid_client(reason), bend));
    };
    for alg in [
        "none", "None", "NONE", "nOnE", "", "es256", "ES256 ", "HS256", "RS256", "PS256", "ES384", "ES256K", "EdDSA",
        "Ed25519", "RSA-OAEP", "dir",
    ] {
        push(&format!("alg {alg:?}"), "assertion_algorithm_wrong", &|token| {
            token.header(|header| header.with("alg", alg)).compact()
        });
    }
    for (kind, value) in
        [("null", Value::Null), ("a number", json!(256)), ("an array", json!(["ES256"])), ("an object", json!({}))]
    {
        push(&format!("alg is {kind}"), "assertion_malformed", &|token| {
            token.header(|header| header.with("alg", value.clone())).compact()
        });
        push(&format!("kid is {kind}"), "assertion_malformed", &|token| {
            token.header(|header| header.with("kid", value.clone())).compact()
        });
        push(&format!("typ is {kind}"), "assertion_malformed", &|token| {
            token.header(|header| header.with("typ", value.clone())).compact()
        });
    }
    push("no alg", "assertion_malformed", &|token| token.header(|header| header.without("alg")).compact());
    for kid in ["", "unknown", "../../etc/passwd", "' OR 1=1 --", "/dev/null", "0"] {
        push(&format!("kid {kid:?}"), "assertion_key_unknown", &|token| {
            token.header(|header| header.with("kid", kid)).compact()
        });
    }
    let other = world.a_jwt_eddsa.signs.as_ref().unwrap().1.jwk_thumbprint();
    push("kid of another client", "assertion_key_unknown", &|token| {
        token.header(|header| header.with("kid", other.as_str())).compact()
    });
    for typ in [
        "at+jwt",
        "application/at+jwt",
        "dpop+jwt",
        "logout+jwt",
        "secevent+jwt",
        "token-introspection+jwt",
        "countersign-revocations+jwt",
        "JOSE",
        "JWT2",
        "",
    ] {
        push(&format!("typ {typ:?}"), "assertion_type_wrong", &|token| {
            token.header(|header| header.with("typ", typ)).compact()
        });
    }
    for (defect, name, value) in [
        ("crit of exp", "crit", json!(["exp"])),
        ("crit empty", "crit", json!([])),
        ("crit null", "crit", Value::Null),
        ("crit of an unknown", "crit", json!(["https://example/x"])),
        ("b64 false", "b64", json!(false)),
        ("b64 true", "b64", json!(true)),
    ] {
        push(defect, "assertion_malformed", &|token| token.header(|header| header.with(name, value.clone())).compact());
    }
    push("b64 false and critical", "assertion_malformed", &|token| {
        token.header(|header| header.with("b64", false).with("crit", json!(["b64"]))).compact()
    });
    for name in ["alg", "kid", "typ"] {
        push(&format!("{name} twice"), "assertion_malformed", &|token| {
            token.header(|header| header.with("typ", "JWT").and(name, "none")).compact()
        });
        push(&format!("{name} twice, none first"), "assertion_malformed", &|token| {
            token.header(|header| header.with("typ", "JWT").preceded_by(name, "none")).compact()
        });
    }
    // RFC 8725 §3.10: what an assertion says about its own key is never followed.
    let attacker = Key::generate(KeyKind::P256);
    let jwk = attacker.jwk();
    push("jwk of an attacker", "assertion_signature_invalid", &|token| {
        token.header(|header| header.with("jwk", jwk.clone())).signed(Signature::By(JwsAlgorithm::Es256, &attacker))
    });
    for (name, value) in [
        ("jku", json!("https://evil.example/jwks")),
        ("x5u", json!("https://evil.example/cert.pem")),
        ("x5c", json!([STANDARD.encode(world.a_jwt.credential.certificate())])),
    ] {
        push(&format!("{name} of an attacker"), "assertion_signature_invalid", &|token| {
            token
                .header(|header| header.with(name, value.clone()))
                .signed(Signature::By(JwsAlgorithm::Es256, &attacker))
        });
    }
    cases
}

fn signatures(world: &World) -> Vec<Case> {
    let key = &world.a_jwt.signs.as_ref().unwrap().1;
    let mut cases = Vec::new();
    let mut push = |defect: &str, reason: &'static str, bend: &dyn Fn(Token<'_>) -> String| {
        cases.push(case(world, format!("assertion signature: {defect}"), invalid_client(reason), bend));
    };
    let attacker = Key::generate(KeyKind::P256);
    push("by another key", "assertion_signature_invalid", &|token| {
        token.signed(Signature::By(JwsAlgorithm::Es256, &attacker))
    });
    push("by the certificate's key", "assertion_signature_invalid", &|token| {
        token.signed(Signature::By(JwsAlgorithm::Es256, &world.a_jwt.credential.key))
    });
    push("none", "assertion_signature_invalid", &|token| token.signed(Signature::None));
    for (defect, octets) in [
        ("zeros", vec![0_u8; 64]),
        ("ones", vec![0xFF; 64]),
        ("63 octets", vec![7; 63]),
        ("65 octets", vec![7; 65]),
        ("one octet", vec![7]),
        ("of RSA's length", vec![7; 256]),
    ] {
        push(defect, "assertion_signature_invalid", &|token| token.signed(Signature::Octets(&octets)));
    }
    push("in DER", "assertion_signature_invalid", &|token| {
        let fixed = URL_SAFE_NO_PAD.decode(token.compact().rsplit('.').next().unwrap()).unwrap();
        let (r, s) = fixed.split_at(32);
        use countersign_conformance::der;
        token.signed(Signature::Octets(&der::sequence([der::unsigned(r), der::unsigned(s)])))
    });
    push("s and r swapped", "assertion_signature_invalid", &|token| {
        let fixed = URL_SAFE_NO_PAD.decode(token.compact().rsplit('.').next().unwrap()).unwrap();
        token.signed(Signature::Octets(&[&fixed[32..], &fixed[..32]].concat()))
    });
    push("of other claims", "assertion_signature_invalid", &|token| {
        let signed = token.compact();
        let other = token.claims(|claims| claims.with("note", "other")).compact();
        let signature = signed.rsplit('.').next().unwrap();
        format!("{}.{signature}", other.rsplit_once('.').unwrap().0)
    });
    // RFC 8725 §2.1: a public key is no secret.
    let spki = key.spki();
    let spki_pem = countersign_conformance::key::pem("PUBLIC KEY", &spki);
    let jwk = key.jwk().to_string();
    for (defect, secret) in [
        ("HMAC under the key in DER", spki.as_slice()),
        ("HMAC under the key in PEM", spki_pem.as_bytes()),
        ("HMAC under the JWK", jwk.as_bytes()),
        ("HMAC under nothing", b"".as_slice()),
    ] {
        push(defect, "assertion_algorithm_wrong", &|token| {
            token.header(|header| header.with("alg", "HS256")).signed(Signature::Hs256(secret))
        });
    }
    let rsa = world.a_jwt_ps256.signs.as_ref().unwrap().1.clone();
    push("RS256 by an RSA key", "assertion_algorithm_wrong", &|token| {
        token.header(|header| header.with("alg", "RS256")).signed(Signature::By(JwsAlgorithm::Rs256, &rsa))
    });
    cases
}

fn framing(world: &World) -> Vec<Case> {
    let mut cases = Vec::new();
    let malformed = "assertion_malformed";
    let mut push = |defect: &str, bend: &dyn Fn(Token<'_>) -> String| {
        cases.push(case(world, format!("assertion framing: {defect}"), invalid_client(malformed), bend));
    };
    push("one part", &|token| token.compact().split('.').next().unwrap().to_owned());
    push("two parts", &|token| token.compact().rsplit_once('.').unwrap().0.to_owned());
    push("four parts", &|token| format!("{}.x", token.compact()));
    push("five parts", &|token| format!("{}.x.y", token.compact()));
    push("a dot before", &|token| format!(".{}", token.compact()));
    push("a dot behind", &|token| format!("{}.", token.compact()));
    push("no header", &|token| format!(".{}", token.compact().split_once('.').unwrap().1));
    push("only dots", &|_| "..".to_owned());
    push("a word", &|_| "assertion".to_owned());
    push("a space behind", &|token| format!("{} ", token.compact()));
    push("a line end behind", &|token| format!("{}\n", token.compact()));
    push("a space within", &|token| token.compact().replacen('.', ". ", 1));
    push("a quotation mark around", &|token| format!("\"{}\"", token.compact()));
    push("padding behind the signature", &|token| format!("{}==", token.compact()));
    push("stray bits in the signature", &|token| {
        // 64 octets leave four bits over in the last character: set one of them.
        let mut text = token.compact();
        let last = text.pop().unwrap();
        let alphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
        let at = alphabet.find(last).unwrap();
        text.push(alphabet.as_bytes()[at | 1].into());
        text
    });
    let of_encoded = |header: String, token: &Token<'_>, payload: String| {
        compact_of_encoded(&header, &payload, (token.algorithm, token.key))
    };
    push("a padded header", &|token| {
        of_encoded(
            URL_SAFE.encode(format!("{} ", token.header.to_json().trim_end())).trim_end_matches('=').to_owned() + "=",
            &token,
            URL_SAFE_NO_PAD.encode(token.claims.to_json()),
        )
    });
    push("a padded payload", &|token| {
        of_encoded(
            URL_SAFE_NO_PAD.encode(token.header.to_json()),
            &token,
            URL_SAFE_NO_PAD.encode(token.claims.to_json()) + "==",
        )
    });
    push("standard base64", &|token| {
        // '?' and '~' make + and / certain in the encoding.
        let claims = token.claims.clone().with("note", "~~~???>>>~~~???");
        of_encoded(
            URL_SAFE_NO_PAD.encode(token.header.to_json()),
            &token,
            STANDARD.encode(claims.to_json()).trim_end_matches('=').to_owned(),
        )
    });
    push("a payload that is no base64", &|token| {
        of_encoded(URL_SAFE_NO_PAD.encode(token.header.to_json()), &token, "!!!!".to_owned())
    });
    let bodies: [(&str, Vec<u8>); 9] = [
        ("empty", Vec::new()),
        ("an array", b"[]".to_vec()),
        ("a string", b"\"a-jwt\"".to_vec()),
        ("a number", b"1".to_vec()),
        ("null", b"null".to_vec()),
        ("no JSON", b"sub=a-jwt".to_vec()),
        ("cut short", b"{\"sub\":\"a-jwt\"".to_vec()),
        ("not UTF-8", b"{\"sub\":\"a-jwt\xFF\"}".to_vec()),
        ("deep", format!("{{\"sub\":\"a-jwt\",\"a\":{}{}}}", "[".repeat(2_000), "]".repeat(2_000)).into_bytes()),
    ];
    for (kind, octets) in &bodies {
        push(&format!("a payload that is {kind}"), &|token| {
            compact(token.header.to_json(), octets, Signature::By(token.algorithm, token.key))
        });
        push(&format!("a header that is {kind}"), &|token| {
            compact(octets, token.claims.to_json(), Signature::By(token.algorithm, token.key))
        });
    }
    for (kind, before, behind) in
        [("a byte order mark before", "\u{feff}", ""), ("a second object behind", "", "{}"), ("NUL behind", "", "\0")]
    {
        push(&format!("a payload with {kind}"), &|token| {
            let payload = format!("{before}{}{behind}", token.claims.to_json());
            compact(token.header.to_json(), payload, Signature::By(token.algorithm, token.key))
        });
        push(&format!("a header with {kind}"), &|token| {
            let header = format!("{before}{}{behind}", token.header.to_json());
            compact(header, token.claims.to_json(), Signature::By(token.algorithm, token.key))
        });
    }
    push("JSON serialization", &|token| {
        let text = token.compact();
        let parts: Vec<&str> = text.split('.').collect();
        json!({ "protected": parts[0], "payload": parts[1], "signature": parts[2] }).to_string()
    });
    cases
}

fn parameters(world: &World) -> Vec<Case> {
    let party = &world.a_jwt;
    let right = |name: &str| right(world, party, name).compact();
    let malformed = invalid_request(400, "assertion_type_malformed");
    let mut cases = Vec::new();
    for kind in [
        "",
        "jwt-bearer",
        "urn:ietf:params:oauth:client-assertion-type:saml2-bearer",
        "urn:ietf:params:oauth:client-assertion-type:JWT-bearer",
        "urn:ietf:params:oauth:grant-type:jwt-bearer",
        "urn:ietf:params:oauth:client-assertion-type:jwt-bearer ",
        "URN:ietf:params:oauth:client-assertion-type:jwt-bearer",
    ] {
        let name = format!("assertion parameters: type {kind:?}");
        let mut form = party.form();
        form.push(("client_assertion_type", kind.to_owned()));
        form.push(("client_assertion", right(&name)));
        cases.push(Case::of(name, party, &form_request(&form), malformed));
    }
    let mut no_type = party.form();
    no_type.push(("client_assertion", right("assertion parameters: no type")));
    cases.push(Case::of("assertion parameters: no type", party, &form_request(&no_type), malformed));
    let mut no_assertion = party.form();
    no_assertion.push(("client_assertion_type", ASSERTION_TYPE.to_owned()));
    cases.push(Case::of("assertion parameters: type alone", party, &form_request(&no_assertion), malformed));
    let mut empty = no_assertion.clone();
    empty.push(("client_assertion", String::new()));
    cases.push(Case::of("assertion parameters: empty assertion", party, &form_request(&empty), malformed));
    for name in ["client_assertion", "client_assertion_type"] {
        let title = format!("assertion parameters: {name} twice");
        let mut form = party.form_with(&right(&title));
        let value = form.iter().find(|(own, _)| *own == name).unwrap().1.clone();
        form.push((name, value));
        cases.push(Case::of(title, party, &form_request(&form), invalid_request(400, "parameter_repeated")));
    }
    let title = "assertion parameters: a client_secret beside it";
    let mut secret = party.form_with(&right(title));
    secret.push(("client_secret", "secret".to_owned()));
    cases.push(Case::of(title, party, &form_request(&secret), invalid_request(400, "two_authentication_methods")));
    let title = "assertion parameters: an Authorization header beside it";
    let request = party.request_with(&right(title)).with_header("Authorization", "Basic YS1qd3Q6eA==");
    cases.push(Case::of(title, party, &request, invalid_request(400, "two_authentication_methods")));
    // The assertion's `sub` and the `client_id` are one client, or it is nobody.
    for (defect, id) in [("another client's", "a-jwt-eddsa"), ("an unknown", "nobody"), ("in capitals", "A-JWT")] {
        let title = format!("assertion parameters: client_id {defect}");
        let form: Vec<_> = party
            .form_with(&right(&title))
            .into_iter()
            .map(|(name, value)| (name, if name == "client_id" { id.to_owned() } else { value }))
            .collect();
        cases.push(Case::of(title, party, &form_request(&form), invalid_client("client_id_contradicted")));
    }
    cases
}

/// Who signs and who presents: method from the registration only, and the token is bound all the same.
fn parties(world: &World) -> Vec<Case> {
    let mut cases = Vec::new();
    for (party, defect) in [(&world.a_jwt, "ES256"), (&world.a_jwt_eddsa, "EdDSA"), (&world.a_jwt_ps256, "PS256")] {
        // No fall-back to the certificate.
        let title = format!("assertion parties: a client of {defect} without an assertion");
        cases.push(Case::of(title, party, &party.request(), invalid_client("assertion_missing")));
        let title = format!("assertion parties: a client of {defect} without a certificate");
        let request = party.request_with(&right(world, party, &title).compact());
        cases.push(Case::with(title, None, &request, invalid_client("peer_no_certificate")));
        let title = format!("assertion parties: a client of {defect} with a stranger's certificate");
        let request = party.request_with(&right(world, party, &title).compact());
        let stranger = world.stranger_root.client("stranger");
        cases.push(Case::with(title, Some(&stranger), &request, invalid_client("peer_signature_invalid")));
        let title = format!("assertion parties: a client of {defect} with another client's certificate");
        let request = party.request_with(&right(world, party, &title).compact());
        cases.push(Case::of(title, &world.a_dn, &request, invalid_client("certificate_name_mismatch")));
    }
    // A client that proves itself by certificate may not come with an assertion, whoever signed it.
    let key = &world.a_jwt.signs.as_ref().unwrap().1;
    for party in [&world.a_dn, &world.a_dns, &world.a_self, &world.c_ip] {
        let title = format!("assertion parties: an assertion for {}", party.id);
        let token = Token::assertion(party.id, &world.issuer, world.now, &title, JwsAlgorithm::Es256, key);
        cases.push(Case::of(
            title,
            party,
            &party.request_with(&token.compact()),
            invalid_client("assertion_unexpected"),
        ));
    }
    let title = "assertion parties: of another client under its own key";
    let other =
        world.a_jwt_eddsa.assertion(world, title).claims(|claims| claims.with("iss", "a-jwt").with("sub", "a-jwt"));
    cases.push(Case::of(
        title,
        &world.a_jwt,
        &world.a_jwt.request_with(&other.compact()),
        invalid_client("assertion_algorithm_wrong"),
    ));
    cases
}
