//! Well-formed requests for what the client is not, or may not have: ids, grant types, scopes, resources.

use super::{Case, invalid_client, invalid_request, refused};
use crate::wire::Request;
use crate::world::{ACCOUNTS, LEGACY, PAYMENTS, Party, VAULT, World, form_request};

pub(super) fn cases(world: &World) -> Vec<Case> {
    let mut cases = missing(world);
    cases.extend(client_ids(world));
    cases.extend(standings(world));
    cases.extend(grant_types(world));
    cases.extend(scopes(world));
    cases.extend(resources(world));
    cases
}

/// `party`'s good form with one value replaced.
fn with(party: &Party, name: &str, value: &str) -> Request {
    let form: Vec<_> =
        party.form().into_iter().map(|(own, good)| (own, if own == name { value.to_owned() } else { good })).collect();
    form_request(&form)
}

/// `party`'s good form without one parameter.
fn without(party: &Party, name: &str) -> Request {
    form_request(&party.form().into_iter().filter(|(own, _)| *own != name).collect::<Vec<_>>())
}

/// RFC 6749 §3.1: a parameter without a value counts as omitted.
fn missing(world: &World) -> Vec<Case> {
    let party = &world.a_dn;
    let mut cases = Vec::new();
    for (name, reason) in [("grant_type", "grant_type_missing"), ("client_id", "client_id_missing")] {
        let expected = invalid_request(400, reason);
        cases.push(Case::of(format!("parameter: no {name}"), party, &without(party, name), expected));
        cases.push(Case::of(format!("parameter: {name} empty"), party, &with(party, name, ""), expected));
    }
    cases
}

fn client_ids(world: &World) -> Vec<Case> {
    let party = &world.a_dn;
    let unknown = invalid_client("client_unknown");
    let malformed = invalid_request(400, "client_id_malformed");
    let at_most = "x".repeat(128);
    let too_long = "x".repeat(129);
    let far_too_long = "x".repeat(12_000);
    let ids = [
        ("unknown", "nobody", unknown),
        ("in capitals", "A-DN", unknown),
        ("a dot behind", "a-dn.", unknown),
        ("a slash behind", "a-dn/", unknown),
        ("cut short", "a-d", unknown),
        ("one letter more", "a-dnn", unknown),
        ("quoted", "\"a-dn\"", unknown),
        ("an SQL string", "a-dn'--", unknown),
        ("an SQL wildcard", "%", unknown),
        ("an SQL single wildcard", "a_dn", unknown),
        ("a path", "../a-dn", unknown),
        ("JSON", "{\"$ne\":null}", unknown),
        ("a number", "0", unknown),
        ("a template", "${a-dn}", unknown),
        ("128 characters", at_most.as_str(), unknown),
        ("129 characters", too_long.as_str(), malformed),
        ("12,000 characters", far_too_long.as_str(), malformed),
        ("a space behind", "a-dn ", malformed),
        ("a space before", " a-dn", malformed),
        ("a space within", "a- dn", malformed),
        ("a tab behind", "a-dn\t", malformed),
        ("a line end behind", "a-dn\n", malformed),
        ("CR and LF behind", "a-dn\r\n", malformed),
        ("NUL behind", "a-dn\0", malformed),
        ("NUL within", "a-\0dn", malformed),
        ("DEL behind", "a-dn\u{7f}", malformed),
        ("a Cyrillic a", "\u{430}-dn", malformed),
        ("a full-width hyphen", "a\u{ff0d}dn", malformed),
        ("a zero-width space", "a\u{200b}-dn", malformed),
        ("a soft hyphen", "a\u{ad}-dn", malformed),
        ("a byte order mark", "\u{feff}a-dn", malformed),
        ("right to left", "\u{202e}nd-a", malformed),
        ("an emoji", "\u{1f600}", malformed),
    ];
    let mut cases: Vec<Case> = ids
        .into_iter()
        .map(|(defect, id, expected)| {
            Case::of(format!("client_id: {defect}"), party, &with(party, "client_id", id), expected)
        })
        .collect();
    // One client's certificate, another's name: whatever the other's method, and whoever owns it.
    let others: [(&Party, &str); 9] = [
        (&world.a_two, "certificate_name_mismatch"),
        (&world.a_dns, "certificate_name_mismatch"),
        (&world.a_uri, "certificate_name_mismatch"),
        (&world.a_email, "certificate_name_mismatch"),
        (&world.a_self, "peer_not_registered"),
        (&world.a_jwt, "assertion_missing"),
        (&world.a_required, "certificate_name_mismatch"),
        (&world.b_dn, "peer_signature_invalid"),
        (&world.c_ip, "peer_issuer_unknown"),
    ];
    for (other, reason) in others {
        cases.push(Case::of(
            format!("client_id: of {}, with the certificate of {}", other.id, party.id),
            party,
            &with(party, "client_id", other.id),
            invalid_client(reason),
        ));
    }
    cases
}

/// One admission decision, one reason for each part of it (design §2).
fn standings(world: &World) -> Vec<Case> {
    let parties = [
        (&world.a_suspended, invalid_client("client_suspended")),
        (&world.a_pending, invalid_client("client_pending")),
        (&world.a_retired, invalid_client("client_retired")),
        (&world.a_production, invalid_client("environment_mismatch")),
        (&world.a_revoked, invalid_client("certificate_revoked")),
        (&world.a_superseded, invalid_client("certificate_superseded")),
        (&world.a_orphan, invalid_client("peer_anchor_retired")),
        (&world.d_dn, invalid_client("participant_suspended")),
        (&world.e_dn, invalid_client("participant_pending")),
        (&world.f_dn, invalid_client("participant_withdrawn")),
        (&world.a_unentitled, refused("unauthorized_client", "no_entitlement")),
    ];
    let mut cases: Vec<Case> = parties
        .into_iter()
        .map(|(party, expected)| Case::of(format!("standing: {}", party.id), party, &party.request(), expected))
        .collect();
    for (party, reason, named) in [
        (&world.a_ended, "entitlement_ended", "resource_entitlement_ended"),
        (&world.a_not_started, "entitlement_not_started", "resource_entitlement_not_started"),
    ] {
        cases.push(Case::of(
            format!("standing: {}, the resource named", party.id),
            party,
            &party.request(),
            refused("invalid_target", named),
        ));
        cases.push(Case::of(
            format!("standing: {}, no resource named", party.id),
            party,
            &without(party, "resource"),
            refused("unauthorized_client", reason),
        ));
    }
    cases
}

fn grant_types(world: &World) -> Vec<Case> {
    let party = &world.a_dn;
    let unsupported = refused("unsupported_grant_type", "grant_type_unsupported");
    [
        "password",
        "authorization_code",
        "refresh_token",
        "implicit",
        "none",
        "client_credential",
        "client_credentials ",
        " client_credentials",
        "client_credentials\t",
        "client_credentials\0",
        "client_credentials\r\n",
        "Client_Credentials",
        "CLIENT_CREDENTIALS",
        "client-credentials",
        "client credentials",
        "client_credentials,client_credentials",
        "client_credentials client_credentials",
        "clientcredentials",
        "cl\u{456}ent_credentials",
        "urn:ietf:params:oauth:grant-type:client_credentials",
        "urn:ietf:params:oauth:grant-type:device_code",
        "urn:ietf:params:oauth:grant-type:jwt-bearer",
        "urn:ietf:params:oauth:grant-type:saml2-bearer",
        "urn:ietf:params:oauth:grant-type:token-exchange",
        "urn:openid:params:grant-type:ciba",
        "[\"client_credentials\"]",
        "0",
        "null",
    ]
    .into_iter()
    .map(|grant_type| {
        Case::of(format!("grant_type: {grant_type:?}"), party, &with(party, "grant_type", grant_type), unsupported)
    })
    .collect()
}

fn scopes(world: &World) -> Vec<Case> {
    let party = &world.a_dn;
    let not_entitled = refused("invalid_scope", "scope_not_entitled");
    // RFC 6749 §3.3: scope-token *( SP scope-token ), scope-token = 1*( %x21 / %x23-5B / %x5D-7E ).
    let malformed = refused("invalid_scope", "scope_malformed");
    let long = "x".repeat(4_000);
    let many = (0..500).map(|at| format!("s{at}")).collect::<Vec<_>>().join(" ");
    let scopes = [
        ("unknown", "unknown", not_entitled),
        ("known there, not granted", "accounts:write", not_entitled),
        ("one granted and one not", "accounts:read accounts:write", not_entitled),
        ("one granted and one unknown", "accounts:read unknown", not_entitled),
        ("in capitals", "ACCOUNTS:READ", not_entitled),
        ("a wildcard", "*", not_entitled),
        ("a wildcard at the end", "accounts:*", not_entitled),
        ("a prefix", "accounts", not_entitled),
        ("longer", "accounts:read:all", not_entitled),
        ("a comma between", "accounts:read,accounts:write", not_entitled),
        ("a plus behind", "accounts:read+", not_entitled),
        ("openid", "openid", not_entitled),
        ("offline_access", "offline_access", not_entitled),
        ("of another API", "payments:initiate", not_entitled),
        ("JSON", "[]", not_entitled),
        ("4,000 characters", long.as_str(), not_entitled),
        ("500 tokens", many.as_str(), not_entitled),
        ("a space before", " accounts:read", malformed),
        ("a space behind", "accounts:read ", malformed),
        ("two spaces between", "accounts:read  accounts:write", malformed),
        ("a space alone", " ", malformed),
        ("a tab between", "accounts:read\taccounts:write", malformed),
        ("a tab behind", "accounts:read\t", malformed),
        ("a line end behind", "accounts:read\n", malformed),
        ("CR behind", "accounts:read\r", malformed),
        ("NUL behind", "accounts:read\0", malformed),
        ("DEL", "accounts:read\u{7f}", malformed),
        ("a quotation mark", "accounts:\"read\"", malformed),
        ("a backslash", "accounts\\read", malformed),
        ("a no-break space between", "accounts:read\u{a0}accounts:write", malformed),
        ("an e with accent", "accounts:r\u{e9}ad", malformed),
        ("a Cyrillic a", "\u{430}ccounts:read", malformed),
        ("an emoji", "\u{1f600}", malformed),
        ("an escape character", "accounts:\u{1b}[31mread", malformed),
    ];
    let mut cases: Vec<Case> = scopes
        .into_iter()
        .map(|(defect, scope, expected)| {
            Case::of(format!("scope: {defect}"), party, &with(party, "scope", scope), expected)
        })
        .collect();
    let two = &world.a_two;
    let form = |scope: &str, resource: Option<&str>| {
        let mut form = vec![
            ("grant_type", "client_credentials".to_owned()),
            ("client_id", two.id.to_owned()),
            ("scope", scope.to_owned()),
        ];
        form.extend(resource.map(|resource| ("resource", resource.to_owned())));
        form_request(&form)
    };
    cases.push(Case::of(
        "scope: of two APIs",
        two,
        &form("accounts:read payments:initiate", None),
        refused("invalid_scope", "scope_mixed"),
    ));
    cases.push(Case::of(
        "scope: of the API that is not named",
        two,
        &form("payments:initiate", Some(ACCOUNTS)),
        not_entitled,
    ));
    cases.push(Case::of(
        "scope: of two APIs, one named",
        two,
        &form("accounts:read payments:initiate", Some(PAYMENTS)),
        not_entitled,
    ));
    cases.push(Case::of("scope: of neither of two APIs", two, &form("unknown", None), not_entitled));
    cases
}

fn resources(world: &World) -> Vec<Case> {
    let party = &world.a_dn;
    let not_entitled = refused("invalid_target", "resource_not_entitled");
    let several = refused("invalid_target", "resource_several");
    let long = format!("https://accounts.example/{}", "x".repeat(8_000));
    let mut cases: Vec<Case> = [
        ("unknown", "https://unknown.example/api"),
        ("known, without entitlement", VAULT),
        ("another that others may use", PAYMENTS),
        ("a slash behind", "https://accounts.example/api/"),
        ("no path", "https://accounts.example"),
        ("a path below", "https://accounts.example/api/v1"),
        ("the path in capitals", "https://accounts.example/API"),
        ("the host in capitals", "https://ACCOUNTS.example/api"),
        ("the scheme in capitals", "HTTPS://accounts.example/api"),
        ("without TLS", "http://accounts.example/api"),
        ("the default port said", "https://accounts.example:443/api"),
        ("another port", "https://accounts.example:8443/api"),
        ("a dot behind the host", "https://accounts.example./api"),
        ("user information", "https://x@accounts.example/api"),
        ("a host before", "https://accounts.example@evil.example/api"),
        ("a subdomain", "https://x.accounts.example/api"),
        ("a query", "https://accounts.example/api?x=1"),
        ("an empty query", "https://accounts.example/api?"),
        ("a fragment", "https://accounts.example/api#x"),
        ("an empty fragment", "https://accounts.example/api#"),
        ("an escape", "https://accounts.example/%61pi"),
        ("a dot segment", "https://accounts.example/x/../api"),
        ("relative", "/api"),
        ("a name", "accounts"),
        ("a URN", "urn:example:accounts"),
        ("the issuer", world.issuer.as_str()),
        ("a space behind", "https://accounts.example/api "),
        ("NUL behind", "https://accounts.example/api\0"),
        ("a line end behind", "https://accounts.example/api\n"),
        ("a homograph", "https://\u{430}ccounts.example/api"),
        ("two in one", "https://accounts.example/api https://payments.example/api"),
        ("a wildcard", "*"),
        ("8,000 characters", long.as_str()),
    ]
    .into_iter()
    .map(|(defect, resource)| {
        Case::of(format!("resource: {defect}"), party, &with(party, "resource", resource), not_entitled)
    })
    .collect();
    cases.push(Case::of(
        "resource: retired",
        party,
        &with(party, "resource", LEGACY),
        refused("invalid_target", "resource_retired"),
    ));
    for (defect, second) in
        [("the same twice", ACCOUNTS), ("a second one", PAYMENTS), ("an unknown second one", "https://x.example")]
    {
        let mut form = party.form();
        form.push(("resource", second.to_owned()));
        cases.push(Case::of(format!("resource: {defect}"), party, &form_request(&form), several));
    }
    let two = &world.a_two;
    let none = form_request(&[("grant_type", "client_credentials".to_owned()), ("client_id", two.id.to_owned())]);
    cases.push(Case::of(
        "resource: none of two, and no scope",
        two,
        &none,
        refused("invalid_target", "resource_ambiguous"),
    ));
    cases
}
