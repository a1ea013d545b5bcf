//! Calls with a good token and a good certificate, and what becomes of them with one thing bent.

use countersign_conformance::Key;
use countersign_conformance::KeyKind;
use countersign_conformance::forge::Signature;
use countersign_conformance::pki::{Authority, Name, Template};
use serde_json::json;

use super::*;
use crate::double::{Double, ISSUER, KID, NOW, RESOURCE};
use crate::time::Clock;

#[test]
fn a_good_token_on_its_own_connection() {
    let double = Double::new();
    let call = double.call(&double.token().compact()).unwrap();
    assert_eq!((call.client_id(), call.participant_id()), ("client-1", "participant-1"));
    assert_eq!(call.certificate_thumbprint(), double.peer.thumbprint());
    assert!(call.scope().contains("accounts:write"));
    assert_eq!(call.claims().registry_version, 41);
}

#[test]
fn a_remembered_token_is_the_same_token() {
    let double = Double::new();
    let token = double.token().compact();
    let (first, again) = (double.call(&token).unwrap(), double.call(&token).unwrap());
    assert!(Arc::ptr_eq(&first.token, &again.token));
}

#[test]
fn remembered_is_the_whole_token() {
    let double = Double::new();
    let token = double.token().compact();
    double.call(&token).unwrap();
    let (signed, _) = token.rsplit_once('.').unwrap();
    assert_eq!(double.reason(&format!("{signed}.{}", "A".repeat(86))), "token_signature");
    let claims = double.token().claims(|claims| claims.with("scope", "accounts:admin")).compact();
    let [header, _, signature] = token.split('.').collect::<Vec<_>>().try_into().unwrap();
    let payload = claims.split('.').nth(1).unwrap();
    assert_eq!(double.reason(&format!("{header}.{payload}.{signature}")), "token_signature");
}

#[test]
fn no_certificate_on_the_connection() {
    let double = Double::new();
    let refusal = double.call_from(None, &double.token().compact(), &double.required("accounts:read")).unwrap_err();
    assert_eq!((refusal.reason(), refusal.code().status()), ("connection_no_certificate", 401));
}

#[test]
fn the_token_of_another_certificate() {
    let double = Double::new();
    let token = double.token().compact();
    double.call(&token).unwrap(); // remembered, and still not the stranger's
    let refusal = double.call_from(Some(&Double::stranger()), &token, &double.required("accounts:read")).unwrap_err();
    assert_eq!((refusal.reason(), refusal.code().status()), ("confirmation_mismatch", 401));
}

#[test]
fn the_token_is_known_by_its_jti_whatever_is_decided() {
    let double = Double::new();
    let (token, required) = (double.token().compact(), double.required("accounts:read"));
    let stranger = Double::stranger();
    for (peer, accepted) in [(&double.peer, true), (&stranger, false)] {
        let mut shown = None;
        let decided = double.call_showing(Some(peer), &token, &required, &mut shown);
        assert_eq!((decided.is_ok(), shown.unwrap().claims().jti.as_str()), (accepted, "jti-1"));
    }
    // What is not signed says nothing.
    let mut shown = None;
    let forged = format!("{token}A");
    double.call_showing(Some(&double.peer), &forged, &required, &mut shown).unwrap_err();
    assert!(shown.is_none());
}

#[test]
fn the_same_key_in_another_certificate() {
    let double = Double::new();
    let twin = Authority::root("Other CA", NOW)
        .issue_for(&Template::client(Name::common("client"), NOW), Arc::clone(&double.credential.key));
    let twin = PeerCertificate::parse(twin.certificate()).unwrap();
    assert_eq!(twin.key_hash(), double.peer.key_hash());
    let refusal = double.call_from(Some(&twin), &double.token().compact(), &double.required("accounts:read"));
    assert_eq!(refusal.unwrap_err().reason(), "confirmation_mismatch");
}

#[test]
fn the_same_certificate_with_its_signature_rewritten() {
    let double = Double::new();
    let twin = PeerCertificate::parse(double.credential.rewritten().unwrap().certificate()).unwrap();
    let refusal = double.call_from(Some(&twin), &double.token().compact(), &double.required("accounts:read"));
    assert_eq!(refusal.unwrap_err().reason(), "confirmation_mismatch");
}

#[test]
fn the_certificate_is_judged_at_the_time_of_the_call() {
    let double = Double::new();
    let now = NOW;
    let credential = |from: i64, until: i64| {
        let template = Template { not_before: from, not_after: until, ..Template::client(Name::common("c"), now) };
        Authority::root("CA", now).issue(&template, KeyKind::P256)
    };
    for (from, until, reason) in [
        (now, now, None),
        (now - 10, now - 1, Some("connection_certificate_expired")),
        (now + 1, now + 10, Some("connection_certificate_not_yet_valid")),
    ] {
        let credential = credential(from, until);
        let peer = PeerCertificate::parse(credential.certificate()).unwrap();
        let token = double.claiming(|claims| claims.with("cnf", json!({ "x5t#S256": credential.thumbprint() })));
        let verdict = double.call_from(Some(&peer), &token, &double.required("accounts:read"));
        assert_eq!(verdict.err().map(Refusal::reason), reason);
    }
}

#[test]
fn cnf_that_is_none() {
    let double = Double::new();
    let thumbprint = double.credential.thumbprint();
    let hexadecimal: String = double.peer.thumbprint().octets().iter().map(|octet| format!("{octet:02x}")).collect();
    for (cnf, reason) in [
        (json!({}), "token_cnf_malformed"),
        (json!(null), "token_cnf_malformed"),
        (json!(thumbprint), "token_cnf_malformed"),
        (json!([thumbprint]), "token_cnf_malformed"),
        (json!({ "x5t#S256": [thumbprint] }), "token_cnf_malformed"),
        (json!({ "x5t#S256": null }), "token_cnf_malformed"),
        (json!({ "x5t#S256": "" }), "token_cnf_malformed"),
        (json!({ "x5t#S256": hexadecimal }), "token_cnf_malformed"),
        (json!({ "x5t#S256": format!("{thumbprint}=") }), "token_cnf_malformed"),
        (json!({ "x5t#S256": thumbprint[..27] }), "token_cnf_malformed"),
        (json!({ "x5t": "2jmj7l5rSw0yVb_vlWAYkK_YBwk" }), "token_cnf_malformed"),
        (json!({ "x5t#s256": thumbprint }), "token_cnf_malformed"),
        (json!({ "jkt": "0ZcOCORZNYy-DWpqq30jZyJGHTN0d2HglBV3uiguA4I" }), "token_cnf_malformed"),
        (
            json!({ "x5t#S256": thumbprint, "jkt": "0ZcOCORZNYy-DWpqq30jZyJGHTN0d2HglBV3uiguA4I" }),
            "token_cnf_malformed",
        ),
        (json!({ "x5t#S256": thumbprint, "kid": "k" }), "token_cnf_malformed"),
        (json!({ "x5t#S256": "A".repeat(43) }), "confirmation_mismatch"),
        (
            json!({ "x5t#S256": crate::confirmation::CertificateThumbprint::of(thumbprint.as_bytes()) }),
            "confirmation_mismatch",
        ),
    ] {
        assert_eq!(double.reason(&double.claiming(|claims| claims.with("cnf", cnf.clone()))), reason, "{cnf}");
    }
    assert_eq!(double.reason(&double.claiming(|claims| claims.without("cnf"))), "token_cnf_missing");
}

#[test]
fn issuers_that_are_nearly_ours() {
    let double = Double::new();
    for issuer in [
        json!("https://as.example/"),
        json!("https://AS.example"),
        json!("http://as.example"),
        json!("https://as.example:443"),
        json!("https://as.example.evil"),
        json!(""),
        json!(null),
        json!([ISSUER]),
    ] {
        let token = double.claiming(|claims| claims.with("iss", issuer.clone()));
        assert_eq!(double.reason(&token), "token_issuer", "{issuer}");
    }
    assert_eq!(double.reason(&double.claiming(|claims| claims.without("iss"))), "token_issuer");
}

#[test]
fn audiences_that_are_nearly_ours() {
    let double = Double::new();
    for audience in [
        json!("https://api.example/bank/"),
        json!("https://api.example"),
        json!("https://API.example/bank"),
        json!([RESOURCE, "https://other.example"]),
        json!([RESOURCE, RESOURCE]),
        json!([[RESOURCE]]),
        json!([null]),
        json!(["https://api.example"]),
        json!([]),
        json!(null),
        json!(""),
        json!({}),
    ] {
        let token = double.claiming(|claims| claims.with("aud", audience.clone()));
        assert_eq!(double.reason(&token), "token_audience", "{audience}");
    }
    assert_eq!(double.reason(&double.claiming(|claims| claims.without("aud"))), "token_audience");
}

/// RFC 7519 §4.1.3.
#[test]
fn an_array_of_one_audience_is_that_audience() {
    let double = Double::new();
    let call = double.call(&double.claiming(|claims| claims.with("aud", json!([RESOURCE])))).unwrap();
    assert_eq!(call.claims().aud, RESOURCE);
}

#[test]
fn dates_to_the_second() {
    let double = Double::new();
    let token = double.claiming(|claims| claims.with("nbf", NOW));
    // exp = NOW + 300, iat = nbf = NOW, leeway 10 s: good from NOW - 10 and before NOW + 310.
    for remembered in [false, true] {
        if remembered {
            double.at(NOW).call(&token).unwrap();
        }
        assert!(double.at(NOW - 10).call(&token).is_ok());
        assert!(double.at(NOW + 309).call(&token).is_ok());
        assert_eq!(double.at(NOW + 310).reason(&token), "token_expired");
        assert_eq!(double.at(NOW - 11).reason(&token), "token_not_yet_valid");
    }
    let token = double.token().compact();
    assert_eq!(double.at(NOW - 11).reason(&token), "token_issued_in_future");
    assert!(double.at(NOW - 10).call(&token).is_ok());
}

#[test]
fn claims_of_the_wrong_type() {
    let double = Double::new();
    let mut tokens = Vec::new();
    for name in ["exp", "iat", "registry_version"] {
        for wrong in
            ["1800000300.0", "1.8e9", "\"1800000300\"", "9223372036854775808", "1e400", "null", "true", "[1]", "-1e-9"]
        {
            tokens.push((name, wrong, double.claiming(|claims| claims.with_raw(name, wrong))));
        }
    }
    for wrong in ["1800000000.5", "\"1800000000\"", "9223372036854775808", "null"] {
        tokens.push(("nbf", wrong, double.claiming(|claims| claims.with_raw("nbf", wrong))));
    }
    for name in ["sub", "jti", "client_id", "participant_id", "environment", "scope", "roles"] {
        for wrong in ["1", "null", "{}", "[1]"] {
            tokens.push((name, wrong, double.claiming(|claims| claims.with_raw(name, wrong))));
        }
    }
    for (name, wrong) in [("anchor", "1"), ("scope", "\"\""), ("scope", "\"a  b\""), ("scope", "\"a\\\"b\"")] {
        tokens.push((name, wrong, double.claiming(|claims| claims.with_raw(name, wrong))));
    }
    for (name, wrong, token) in tokens {
        assert_eq!(double.reason(&token), "token_claims", "{name}: {wrong}");
    }
}

#[test]
fn claims_that_are_missing() {
    let double = Double::new();
    for name in
        ["sub", "exp", "iat", "jti", "client_id", "scope", "participant_id", "roles", "environment", "registry_version"]
    {
        assert_eq!(double.reason(&double.claiming(|claims| claims.without(name))), "token_claims", "{name}");
    }
    assert!(double.call(&double.claiming(|claims| claims.without("anchor"))).is_ok());
}

#[test]
fn claims_named_twice() {
    let double = Double::new();
    for name in ["iss", "aud", "exp", "cnf", "scope", "jti", "x"] {
        let token = double.claiming(|claims| claims.and("x", 1).and(name, 1));
        assert_eq!(double.reason(&token), "token_claims", "{name}");
        let token = double.claiming(|claims| claims.and("x", 1).preceded_by(name, 1));
        assert_eq!(double.reason(&token), "token_claims", "{name}");
    }
}

#[test]
fn dates_at_the_ends_of_the_range() {
    let double = Double::new();
    assert!(double.call(&double.claiming(|claims| claims.with("exp", i64::MAX))).is_ok());
    assert_eq!(double.reason(&double.claiming(|claims| claims.with("exp", i64::MIN))), "token_expired");
    assert_eq!(double.reason(&double.claiming(|claims| claims.with("iat", i64::MAX))), "token_issued_in_future");
    assert_eq!(double.reason(&double.claiming(|claims| claims.with("nbf", i64::MAX))), "token_not_yet_valid");
}

#[test]
fn headers_that_are_not_an_access_tokens() {
    let double = Double::new();
    for (name, value, reason) in [
        ("alg", json!("none"), "token_algorithm"),
        ("alg", json!("RS256"), "token_algorithm"),
        ("alg", json!("HS256"), "token_algorithm"),
        ("alg", json!("EdDSA"), "token_key_mismatch"),
        ("typ", json!("JWT"), "token_type"),
        ("typ", json!("client-authentication+jwt"), "token_type"),
        ("typ", json!(crate::status::REVOCATION_LIST_TYPE), "token_type"),
        ("typ", json!("token-introspection+jwt"), "token_type"),
        ("kid", json!("k2"), "token_kid_unknown"),
        ("kid", json!(1), "token_header"),
        ("crit", json!([]), "token_critical"),
        ("crit", json!(["exp"]), "token_critical"),
        ("b64", json!(false), "token_critical"),
    ] {
        let token = double.token().header(|header| header.with(name, value.clone())).compact();
        assert_eq!(double.reason(&token), reason, "{name}: {value}");
    }
    for (name, reason) in [("alg", "token_header"), ("typ", "token_type"), ("kid", "token_kid_missing")] {
        assert_eq!(double.reason(&double.token().header(|header| header.without(name)).compact()), reason);
    }
    let token = double.token().header(|header| header.preceded_by("alg", "none")).compact();
    assert_eq!(double.reason(&token), "token_header");
}

#[test]
fn signatures_of_others() {
    let double = Double::new();
    let thief = Key::generate(KeyKind::P256);
    let token = countersign_conformance::forge::Token { key: &thief, ..double.token() };
    assert_eq!(double.reason(&token.compact()), "token_signature");
    assert_eq!(double.reason(&double.token().signed(Signature::None)), "token_signature");
    let confused = double.token().header(|header| header.with("alg", "HS256"));
    assert_eq!(double.reason(&confused.signed(Signature::Hs256(&double.key.spki()))), "token_algorithm");
    assert_eq!(double.reason("a.b"), "token_malformed");
}

#[test]
fn a_key_that_was_withdrawn_takes_its_remembered_tokens_along() {
    let double = Double::new();
    let token = double.token().compact();
    double.call(&token).unwrap();
    double.guard.keys().take(double.jwks("k2").as_bytes()).unwrap();
    assert_eq!(double.reason(&token), "token_kid_unknown");
    double.guard.keys().take(double.jwks(KID).as_bytes()).unwrap();
    assert!(double.call(&token).is_ok());
}

#[test]
fn another_key_under_the_same_name() {
    let double = Double::new();
    let token = double.token().compact();
    double.call(&token).unwrap();
    let other = Double::new();
    double.guard.keys().take(other.jwks(KID).as_bytes()).unwrap();
    assert_eq!(double.reason(&token), "token_signature");
}

#[test]
fn keys_that_cannot_be_used_leave_those_held() {
    let double = Double::new();
    let twice = format!(r#"{{"keys":[{0},{0}]}}"#, r#"{"kty":"oct","kid":"a"}"#);
    for garbage in ["", "garbage", "{}", r#"{"keys":[]}"#, r#"{"keys":[{"kty":"oct"}]}"#, &twice] {
        assert!(double.guard.keys().take(garbage.as_bytes()).is_err(), "{garbage}");
    }
    assert!(double.call(&double.token().compact()).is_ok());
}

#[test]
fn no_keys_yet() {
    let double = Double::new();
    let judgement = &crate::Guard::builder(ISSUER, RESOURCE).idle().unwrap().judgement;
    let mut headers = http::HeaderMap::new();
    let field = format!("Bearer {}", double.token().compact());
    headers.insert("authorization", field.parse().unwrap());
    let target = http::Uri::from_static("/");
    let credentials = Credentials::of(&headers, &target);
    let now = UnixTime::from_seconds(NOW);
    let required = double.required("a");
    let refusal = authorize(judgement, &required, Some(&double.peer), &credentials, now, &mut None).unwrap_err();
    assert_eq!((refusal.reason(), refusal.code().status()), ("token_keys_not_held", 503));
}

#[test]
fn nobody_to_ask_says_whether_a_list_was_held() {
    let double = Double::new();
    for held in [false, true] {
        let keys = Arc::clone(double.guard.keys());
        let clock = Arc::clone(&double.clock) as Arc<dyn Clock>;
        let limit = std::time::Duration::from_secs(30);
        let list = HeldList::new(ISSUER.to_owned(), limit, Arc::clone(&keys), clock);
        let revocations = Arc::new(list.when_stale(crate::status::WhenStale::Introspect));
        if held {
            revocations.take(&double.list().compact()).unwrap();
            double.wait(limit + std::time::Duration::from_millis(1));
        }
        let tokens = AccessTokens::new(ISSUER.to_owned(), RESOURCE.to_owned(), keys, 1_000_000);
        let judgement = Judgement { tokens, revocations, introspection: None };
        let token = double.token().compact();
        let mut headers = http::HeaderMap::new();
        headers.insert(http::header::AUTHORIZATION, format!("Bearer {token}").try_into().unwrap());
        let target = http::Uri::from_static("/accounts");
        let (credentials, now) = (Credentials::of(&headers, &target), double.clock.now());
        let required = double.required("accounts:read");
        let refusal = decide(&judgement, &required, Some(&double.peer), &credentials, now, &mut None).unwrap_err();
        let expected = if held { "revocation_list_stale" } else { "revocation_list_not_held" };
        assert_eq!(refusal.reason(), expected);
    }
}

#[test]
fn scope() {
    let double = Double::new();
    let token = double.token().compact();
    for enough in ["accounts:read", "accounts:write accounts:read"] {
        assert!(double.call_from(Some(&double.peer), &token, &double.required(enough)).is_ok(), "{enough}");
    }
    for more in ["accounts:admin", "accounts:read accounts:admin", "accounts", "ACCOUNTS:READ"] {
        let refusal = double.call_from(Some(&double.peer), &token, &double.required(more)).unwrap_err();
        assert_eq!((refusal.reason(), refusal.code().status()), ("insufficient_scope", 403), "{more}");
    }
}

#[test]
fn opting_out_of_the_binding_opts_out_of_nothing_else() {
    let double = Double::new();
    let token = double.token().compact();
    let required = Requirement { binding: Binding::DangerUnbound, ..double.required("accounts:read") };
    for peer in [None, Some(&Double::stranger()), Some(&double.peer)] {
        assert!(double.call_from(peer, &token, &required).is_ok());
    }
    let marked = double.marking(&[(crate::status::MarkKind::Jti, "jti-1", 42)]);
    double.take(&marked);
    assert_eq!(double.call_from(None, &token, &required).unwrap_err().reason(), "revoked_jti");
    let unbound = double.claiming(|claims| claims.without("cnf"));
    assert_eq!(double.call_from(None, &unbound, &required).unwrap_err().reason(), "token_cnf_missing");
}

#[test]
fn opting_out_of_revocation_opts_out_of_nothing_else() {
    let double = Double::new();
    let token = double.token().compact();
    let required = Requirement { revocation: Revocation::DangerIgnored, ..double.required("accounts:read") };
    double.take(&double.marking(&[(crate::status::MarkKind::Jti, "jti-1", 42)]));
    double.wait(std::time::Duration::from_secs(100));
    assert!(double.call_from(Some(&double.peer), &token, &required).is_ok());
    assert!(double.call_from(None, &token, &required).is_err());
}
