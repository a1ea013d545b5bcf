//! Certificates with one defect each: in the leaf, in the chain, in the name, and no certificate at all.

use std::sync::Arc;

use countersign_conformance::der::tag;
use countersign_conformance::pki::{
    AltName, Attribute, Authority, BasicConstraints, Credential, Defect, Name, Template, purpose,
};
use countersign_conformance::{Key, KeyKind};

use super::{Case, Expected, invalid_client};
use crate::world::{Party, World, subject_of_a};

pub(crate) fn cases(world: &World) -> Vec<Case> {
    let mut cases = none(world);
    cases.extend(leaves(world));
    cases.extend(keys(world));
    cases.extend(chains(world));
    cases.extend(impostors(world));
    cases.extend(subjects(world));
    cases.extend(alt_names(world));
    cases.extend(self_signed(world));
    cases.extend(bounds(world));
    cases
}

/// `party`'s good request, with this credential on the connection.
fn presenting(name: String, party: &Party, credential: &Credential, expected: Expected) -> Case {
    Case::with(name, Some(credential), &party.request(), expected)
}

fn none(world: &World) -> Vec<Case> {
    [
        &world.a_dn,
        &world.a_dns,
        &world.a_uri,
        &world.a_email,
        &world.a_self,
        &world.c_ip,
        &world.a_required,
        &world.a_suspended,
    ]
    .into_iter()
    .map(|party| {
        let name = format!("certificate: none, for {}", party.id);
        Case::with(name, None, &party.request(), invalid_client("peer_no_certificate"))
    })
    .collect()
}

/// What is wrong is in the leaf alone: the right authority signed it, the name is the registered one.
fn leaves(world: &World) -> Vec<Case> {
    let mut cases = Vec::new();
    let named: [(&Party, Template); 2] = [
        (&world.a_dn, Template::client(subject_of_a("a-dn"), world.now)),
        (
            &world.a_dns,
            Template::client(Name::default(), world.now)
                .with_alt_names([AltName::Dns("client.partner-a.example".to_owned())]),
        ),
    ];
    for (party, template) in named {
        for defect in Defect::ALL {
            let reason = match defect {
                Defect::CaTrue => "peer_is_authority",
                Defect::DuplicateExtension => "peer_malformed",
                Defect::Expired | Defect::ExpiredLongAgo => "peer_expired",
                Defect::KeyCertSign => "peer_is_authority",
                Defect::NoDigitalSignature => "peer_key_usage_forbids",
                Defect::NotYetValid | Defect::PeriodReversed => "peer_not_yet_valid",
                Defect::PurposeCodeSigning | Defect::PurposeServerAuth => "peer_purpose_missing",
                Defect::TwoSpiffeIds => "peer_spiffe_id_ambiguous",
                Defect::UnknownCriticalExtension => "peer_critical_extension_unknown",
                Defect::Version1 | Defect::Version2 => "peer_version_unsupported",
            };
            let credential = world.a_root.issue(&template.clone().with(*defect, world.now), KeyKind::P256);
            cases.push(presenting(
                format!("certificate: {} for {}", defect.as_str(), party.id),
                party,
                &credential,
                invalid_client(reason),
            ));
        }
    }
    cases
}

/// Keys nobody may use end the handshake: the bounds of the work are set there.
fn keys(world: &World) -> Vec<Case> {
    [KeyKind::Rsa1024, KeyKind::Rsa4224]
        .into_iter()
        .map(|kind| {
            let credential = world.a_root.issue(&Template::client(subject_of_a("a-dn"), world.now), kind);
            presenting(format!("certificate: key {kind:?}"), &world.a_dn, &credential, Expected::NoHandshake)
        })
        .collect()
}

fn chains(world: &World) -> Vec<Case> {
    let now = world.now;
    let party = &world.a_dn;
    let leaf = Template::client(subject_of_a("a-dn"), now);
    let issuing = Template::authority(Name::common("Partner A Issuing 3"), now);
    let under = |template: Template| world.a_root.intermediate_with(&template).issue(&leaf, KeyKind::P256);
    let mut cases = Vec::new();
    let mut push = |defect: &str, credential: &Credential, reason: &'static str| {
        cases.push(presenting(format!("chain: {defect}"), party, credential, invalid_client(reason)));
    };
    push(
        "an intermediate expired a second ago",
        &under(Template { not_after: now - 1, ..issuing.clone() }),
        "peer_issuer_out_of_date",
    );
    push(
        "an intermediate valid in a second",
        &under(Template { not_before: now + 1, ..issuing.clone() }),
        "peer_issuer_out_of_date",
    );
    push(
        "an intermediate that is no CA",
        &under(Template {
            basic_constraints: Some(BasicConstraints { ca: false, path_length: None }),
            ..issuing.clone()
        }),
        "peer_issuer_not_authority",
    );
    push(
        "an intermediate without basic constraints",
        &under(Template { basic_constraints: None, ..issuing.clone() }),
        "peer_issuer_not_authority",
    );
    push(
        "an intermediate that may not sign certificates",
        &under(Template { key_usage: Some(vec![countersign_conformance::pki::KeyUsage::CrlSign]), ..issuing.clone() }),
        "peer_issuer_not_authority",
    );
    push(
        "an intermediate for servers alone",
        &under(Template { purposes: vec![purpose::SERVER_AUTH.to_vec()], ..issuing.clone() }),
        "peer_purpose_missing",
    );
    push(
        "an intermediate of version 1",
        &under(Template { version: countersign_conformance::pki::Version::V1, ..issuing.clone() }),
        "peer_version_unsupported",
    );
    push(
        "an intermediate with an unknown critical extension",
        &under(issuing.clone().with(Defect::UnknownCriticalExtension, now)),
        "peer_critical_extension_unknown",
    );
    push(
        "an intermediate whose names exclude the leaf",
        &under(Template { excluded: vec![AltName::Directory(Name::of(&[("C", "DE")]))], ..issuing.clone() }),
        "peer_name_constraint_violated",
    );
    push(
        "an intermediate whose names permit others",
        &under(Template { permitted: vec![AltName::Directory(Name::of(&[("C", "FR")]))], ..issuing.clone() }),
        "peer_name_constraint_violated",
    );
    let no_further =
        Template { basic_constraints: Some(BasicConstraints { ca: true, path_length: Some(0) }), ..issuing.clone() };
    push(
        "an intermediate below one that allows none",
        &world.a_root.intermediate_with(&no_further).intermediate("Below").issue(&leaf, KeyKind::P256),
        "peer_path_too_long",
    );
    let mut missing = world.a_issuing().issue(&leaf, KeyKind::P256);
    missing.chain.truncate(1);
    push("the intermediate left out", &missing, "peer_issuer_unknown");
    let mut other = world.a_issuing().issue(&leaf, KeyKind::P256);
    other.chain[1] = world.a_issuing().certificate;
    push("another intermediate of that name", &other, "peer_signature_invalid");
    let client = world.a_root.client("not an authority");
    let not_an_authority = Authority::pretended(Name::common("not an authority"), &client, now);
    push("issued by a client", &not_an_authority.issue(&leaf, KeyKind::P256), "peer_issuer_not_authority");
    push(
        "a broken signature",
        &world.a_root.issue(&leaf, KeyKind::P256).with_broken_signature(),
        "peer_signature_invalid",
    );
    let mut broken_above = world.a_issuing().issue(&leaf, KeyKind::P256);
    *broken_above.chain[1].last_mut().unwrap() ^= 1;
    push("a broken signature above", &broken_above, "peer_signature_invalid");
    push(
        "an issuer of another name",
        &world.a_root.issue(&Template { issuer: Some(Name::common("Somebody")), ..leaf.clone() }, KeyKind::P256),
        "peer_issuer_unknown",
    );
    cases
}

/// The right name under the wrong authority, or the wrong certificate under the right one.
fn impostors(world: &World) -> Vec<Case> {
    let now = world.now;
    let mut cases = Vec::new();
    let names: [(&Party, Template); 4] = [
        (&world.a_dn, Template::client(subject_of_a("a-dn"), now)),
        (&world.a_dns, named(AltName::Dns("client.partner-a.example".to_owned()), now)),
        (&world.a_uri, named(AltName::Uri("https://partner-a.example/clients/one".to_owned()), now)),
        (&world.a_email, named(AltName::Email("Client@partner-a.example".to_owned()), now)),
    ];
    let authorities = [
        ("partner B's authority of the same name", &world.b_root, "peer_signature_invalid"),
        ("partner C's authority", &world.c_root, "peer_issuer_unknown"),
        ("a stranger's authority of the same name", &world.stranger_root, "peer_signature_invalid"),
        ("the server's authority", &world.server_authority, "peer_issuer_unknown"),
        ("an authority of its own that is retired", &world.a_retired_root, "peer_anchor_retired"),
    ];
    for (party, template) in &names {
        for (whose, authority, reason) in authorities {
            cases.push(presenting(
                format!("impostor: {} under {whose}", party.id),
                party,
                &authority.issue(template, KeyKind::P256),
                invalid_client(reason),
            ));
        }
        let pretending = Template { issuer: Some(world.a_root.name.clone()), ..template.clone() };
        cases.push(presenting(
            format!("impostor: {} signed by itself", party.id),
            party,
            &Credential::self_signed(&pretending, KeyKind::P256),
            invalid_client("peer_signature_invalid"),
        ));
        let mut borrowed = Credential::self_signed(&pretending, KeyKind::P256);
        borrowed.chain.push(world.a_root.certificate.clone());
        cases.push(presenting(
            format!("impostor: {} signed by itself, with the true authority behind it", party.id),
            party,
            &borrowed,
            invalid_client("peer_signature_invalid"),
        ));
        let mut true_behind = world.stranger_root.issue(template, KeyKind::P256);
        true_behind.chain.push(party.credential.certificate().to_vec());
        cases.push(presenting(
            format!("impostor: {} under a stranger, with the true certificate behind it", party.id),
            party,
            &true_behind,
            invalid_client("peer_signature_invalid"),
        ));
    }
    let party = &world.a_required;
    cases.push(presenting(
        "impostor: a new certificate where each has to be enrolled".to_owned(),
        party,
        &world.a_root.issue(&Template::client(subject_of_a("a-required"), now), KeyKind::P256),
        invalid_client("certificate_not_enrolled"),
    ));
    for (party, of) in [(&world.a_revoked, "a revoked"), (&world.a_required, "an enrolled")] {
        // A second valid DER of the same certificate (design §3).
        if let Some(twin) = party.credential.rewritten() {
            cases.push(presenting(
                format!("impostor: the rewritten signature of {of} certificate"),
                party,
                &twin,
                invalid_client("certificate_twin"),
            ));
        }
    }
    cases.push(presenting(
        "impostor: a new certificate for a revoked key".to_owned(),
        &world.a_revoked,
        &world
            .a_root
            .issue_for(&Template::client(subject_of_a("a-revoked"), now), Arc::clone(&world.a_revoked.credential.key)),
        invalid_client("enrolment_key_revoked"),
    ));
    cases.push(presenting(
        "impostor: another client's new certificate for a revoked key".to_owned(),
        &world.a_dn,
        &world
            .a_root
            .issue_for(&Template::client(subject_of_a("a-dn"), now), Arc::clone(&world.a_revoked.credential.key)),
        invalid_client("enrolment_key_revoked"),
    ));
    cases
}

fn named(name: AltName, now: i64) -> Template {
    Template::client(Name::default(), now).with_alt_names([name])
}

/// Subjects that are not the registered one, in and out of the name space (RFC 5280 §7.1, RFC 4514, design §3).
fn subjects(world: &World) -> Vec<Case> {
    let party = &world.a_dn;
    let mismatch = invalid_client("certificate_name_mismatch");
    let outside = invalid_client("peer_outside_name_space");
    let malformed = invalid_client("peer_name_malformed");
    let attributes = |list: &[(&str, &str)]| Name::of(list);
    let with_common = |attribute: Attribute| {
        let mut name = Name::of(&[("C", "DE"), ("O", "Partner A")]);
        name.0.push(vec![attribute]);
        name
    };
    let mut two_valued = subject_of_a("a-dn");
    two_valued.0[2].push(Attribute::new("serialNumber", "1"));
    let mut merged = Name::of(&[("C", "DE")]);
    merged.0.push(vec![Attribute::new("O", "Partner A"), Attribute::new("CN", "a-dn")]);
    let list: Vec<(&str, Name, Expected)> = vec![
        ("another common name", subject_of_a("a-dn2"), mismatch),
        ("a shorter common name", subject_of_a("a-d"), mismatch),
        ("a hyphen less", subject_of_a("adn"), mismatch),
        ("a Cyrillic a", subject_of_a("\u{430}-dn"), mismatch),
        ("a zero-width space", subject_of_a("a\u{200b}-dn"), malformed),
        ("a comma and more within the name", subject_of_a("a-dn,O=Partner A"), mismatch),
        ("NUL and more within the name", subject_of_a("a-dn\0.example"), malformed),
        ("an escape within the name", subject_of_a("a\\-dn"), mismatch),
        ("a wildcard", subject_of_a("*"), mismatch),
        ("no common name", attributes(&[("C", "DE"), ("O", "Partner A")]), mismatch),
        ("a unit between", attributes(&[("C", "DE"), ("O", "Partner A"), ("OU", "x"), ("CN", "a-dn")]), mismatch),
        ("a unit behind", attributes(&[("C", "DE"), ("O", "Partner A"), ("CN", "a-dn"), ("OU", "x")]), mismatch),
        ("a second common name", attributes(&[("C", "DE"), ("O", "Partner A"), ("CN", "a-dn"), ("CN", "b")]), mismatch),
        (
            "the common name twice",
            attributes(&[("C", "DE"), ("O", "Partner A"), ("CN", "a-dn"), ("CN", "a-dn")]),
            mismatch,
        ),
        ("a unit instead of the common name", attributes(&[("C", "DE"), ("O", "Partner A"), ("OU", "a-dn")]), mismatch),
        (
            "a user id instead of the common name",
            attributes(&[("C", "DE"), ("O", "Partner A"), ("UID", "a-dn")]),
            mismatch,
        ),
        ("a serial number beside the common name", two_valued, mismatch),
        (
            "the common name as TeletexString",
            with_common(Attribute::new("CN", "a-dn").tagged(tag::TELETEX_STRING)),
            mismatch,
        ),
        (
            "the common name as BMPString",
            with_common(Attribute { oid: vec![2, 5, 4, 3], tag: tag::BMP_STRING, value: b"\0a\0-\0d\0n".to_vec() }),
            mismatch,
        ),
        ("the common name as IA5String", with_common(Attribute::new("CN", "a-dn").tagged(tag::IA5_STRING)), mismatch),
        (
            "the common name as octets that are no UTF-8",
            with_common(Attribute { oid: vec![2, 5, 4, 3], tag: tag::UTF8_STRING, value: b"a-dn\xFF".to_vec() }),
            malformed,
        ),
        ("organisation and name in one", merged, outside),
        ("the order reversed", attributes(&[("CN", "a-dn"), ("O", "Partner A"), ("C", "DE")]), outside),
        ("organisation and country swapped", attributes(&[("O", "Partner A"), ("C", "DE"), ("CN", "a-dn")]), outside),
        ("another country", attributes(&[("C", "FR"), ("O", "Partner A"), ("CN", "a-dn")]), outside),
        ("another organisation", attributes(&[("C", "DE"), ("O", "Partner B"), ("CN", "a-dn")]), outside),
        ("an organisation that begins so", attributes(&[("C", "DE"), ("O", "Partner AB"), ("CN", "a-dn")]), outside),
        ("no country", attributes(&[("O", "Partner A"), ("CN", "a-dn")]), outside),
        ("no organisation", attributes(&[("C", "DE"), ("CN", "a-dn")]), outside),
        ("the common name alone", attributes(&[("CN", "a-dn")]), outside),
        ("the whole text as common name", attributes(&[("CN", "CN=a-dn,O=Partner A,C=DE")]), outside),
        ("a locality before", attributes(&[("L", "x"), ("C", "DE"), ("O", "Partner A"), ("CN", "a-dn")]), outside),
    ];
    let mut cases: Vec<Case> = list
        .into_iter()
        .map(|(defect, name, expected)| {
            let credential = world.a_root.issue(&Template::client(name, world.now), KeyKind::P256);
            presenting(format!("subject: {defect}"), party, &credential, expected)
        })
        .collect();
    let mut push = |defect: &str, template: Template, expected: Expected| {
        let credential = world.a_root.issue(&template, KeyKind::P256);
        cases.push(presenting(format!("subject: {defect}"), party, &credential, expected));
    };
    push("empty", named(AltName::Dns("a-dn.partner-a.example".to_owned()), world.now), mismatch);
    push("in the alternative names instead", named(AltName::Directory(subject_of_a("a-dn")), world.now), outside);
    push(
        "right, with a name of partner B beside it",
        Template::client(subject_of_a("a-dn"), world.now)
            .with_alt_names([AltName::Dns("client.partner-b.example".to_owned())]),
        outside,
    );
    cases
}

/// Alternative names that are not the registered one.
fn alt_names(world: &World) -> Vec<Case> {
    let mismatch = invalid_client("certificate_name_mismatch");
    let outside = invalid_client("peer_outside_name_space");
    let malformed = invalid_client("peer_name_malformed");
    let dns = |name: &str| AltName::Dns(name.to_owned());
    let uri = |name: &str| AltName::Uri(name.to_owned());
    let email = |name: &str| AltName::Email(name.to_owned());
    let list: Vec<(&Party, &str, AltName, Expected)> = vec![
        (&world.a_dns, "another host", dns("other.partner-a.example"), mismatch),
        (&world.a_dns, "a host below", dns("x.client.partner-a.example"), mismatch),
        (&world.a_dns, "the domain", dns("partner-a.example"), mismatch),
        (&world.a_dns, "a wildcard", dns("*.partner-a.example"), outside),
        (&world.a_dns, "a wildcard within", dns("cl*nt.partner-a.example"), outside),
        (&world.a_dns, "a dot behind", dns("client.partner-a.example."), outside),
        (&world.a_dns, "a dot before", dns(".client.partner-a.example"), outside),
        (&world.a_dns, "two dots within", dns("client..partner-a.example"), outside),
        (&world.a_dns, "a space behind", dns("client.partner-a.example "), outside),
        (&world.a_dns, "NUL and more", dns("client.partner-a.example\0.evil.example"), malformed),
        (&world.a_dns, "a port", dns("client.partner-a.example:443"), outside),
        (&world.a_dns, "an empty name", dns(""), outside),
        (&world.a_dns, "octets that are not ASCII", dns("cli\u{e9}nt.partner-a.example"), malformed),
        (&world.a_dns, "another partner's host", dns("client.partner-b.example"), outside),
        (&world.a_dns, "a domain that ends so", dns("client.evilpartner-a.example"), outside),
        (&world.a_dns, "a domain that begins so", dns("client.partner-a.example.evil.example"), outside),
        (&world.a_dns, "the host as URI", uri("https://client.partner-a.example"), outside),
        (&world.a_dns, "the host as e-mail", email("client@client.partner-a.example"), mismatch),
        (&world.a_dns, "the host as other name", AltName::Raw(0x88, vec![0x2A, 3, 4]), outside),
        (&world.a_uri, "another path", uri("https://partner-a.example/clients/two"), mismatch),
        (&world.a_uri, "a slash behind", uri("https://partner-a.example/clients/one/"), mismatch),
        (&world.a_uri, "a path below", uri("https://partner-a.example/clients/one/x"), mismatch),
        (&world.a_uri, "a path above", uri("https://partner-a.example/clients"), mismatch),
        (&world.a_uri, "the path in capitals", uri("https://partner-a.example/Clients/one"), mismatch),
        (&world.a_uri, "a query", uri("https://partner-a.example/clients/one?x"), mismatch),
        (&world.a_uri, "an empty query", uri("https://partner-a.example/clients/one?"), mismatch),
        (&world.a_uri, "a fragment", uri("https://partner-a.example/clients/one#x"), mismatch),
        (&world.a_uri, "an escape", uri("https://partner-a.example/clients/%6Fne"), outside),
        (&world.a_uri, "a dot segment", uri("https://partner-a.example/clients/x/../one"), outside),
        (&world.a_uri, "the default port", uri("https://partner-a.example:443/clients/one"), outside),
        (&world.a_uri, "without TLS", uri("http://partner-a.example/clients/one"), outside),
        (&world.a_uri, "another host", uri("https://partner-b.example/clients/one"), outside),
        (&world.a_uri, "a host that begins so", uri("https://partner-a.example.evil.example/clients/one"), outside),
        (&world.a_uri, "user information", uri("https://partner-a.example@evil.example/clients/one"), outside),
        (&world.a_uri, "no scheme", uri("partner-a.example/clients/one"), outside),
        (&world.a_uri, "empty", uri(""), outside),
        (&world.a_uri, "NUL and more", uri("https://partner-a.example/clients/one\0x"), malformed),
        (&world.a_uri, "a space behind", uri("https://partner-a.example/clients/one "), outside),
        (&world.a_uri, "the host as DNS name", dns("partner-a.example"), mismatch),
        (&world.a_email, "the local part in small letters", email("client@partner-a.example"), mismatch),
        (&world.a_email, "another local part", email("Other@partner-a.example"), mismatch),
        (&world.a_email, "a tag", email("Client+x@partner-a.example"), mismatch),
        (&world.a_email, "quoted", email("\"Client\"@partner-a.example"), outside),
        (&world.a_email, "a display name", email("A <Client@partner-a.example>"), outside),
        (&world.a_email, "a domain below", email("Client@x.partner-a.example"), mismatch),
        (&world.a_email, "another domain", email("Client@partner-b.example"), outside),
        (&world.a_email, "two domains", email("Client@evil.example@partner-a.example"), outside),
        (&world.a_email, "no local part", email("@partner-a.example"), outside),
        (&world.a_email, "no domain", email("Client"), outside),
        (&world.a_email, "NUL and more", email("Client@partner-a.example\0x"), malformed),
        (&world.a_email, "a space before", email(" Client@partner-a.example"), outside),
        (&world.a_email, "the domain as DNS name", dns("partner-a.example"), mismatch),
        (&world.c_ip, "another address", AltName::Ip([192, 0, 2, 8].into()), mismatch),
        (&world.c_ip, "the network", AltName::Ip([192, 0, 2, 0].into()), mismatch),
        (
            &world.c_ip,
            "mapped into IPv6",
            AltName::Ip(std::net::Ipv4Addr::new(192, 0, 2, 7).to_ipv6_mapped().into()),
            mismatch,
        ),
        (&world.c_ip, "another family", AltName::Ip("2001:db8::7".parse().unwrap()), mismatch),
        (&world.c_ip, "as DNS name", dns("192.0.2.7"), mismatch),
        (&world.c_ip, "as URI", uri("https://192.0.2.7/"), mismatch),
        (&world.c_ip, "three octets", AltName::Raw(0x87, vec![192, 0, 2]), malformed),
        (&world.c_ip, "five octets", AltName::Raw(0x87, vec![192, 0, 2, 7, 0]), malformed),
        (&world.c_ip, "address and mask", AltName::Raw(0x87, vec![192, 0, 2, 7, 255, 255, 255, 255]), malformed),
        (&world.c_ip, "no octets", AltName::Raw(0x87, Vec::new()), malformed),
    ];
    let mut cases: Vec<Case> = list
        .into_iter()
        .map(|(party, defect, name, expected)| {
            let authority = if party.id == world.c_ip.id { &world.c_root } else { &world.a_root };
            let credential = authority.issue(&named(name, world.now), KeyKind::P256);
            presenting(format!("alternative name: {}, {defect}", party.id), party, &credential, expected)
        })
        .collect();
    // The registered text, in the subject's common name instead.
    for (party, text) in [
        (&world.a_dns, "client.partner-a.example"),
        (&world.a_uri, "https://partner-a.example/clients/one"),
        (&world.a_email, "Client@partner-a.example"),
    ] {
        let credential = world.a_root.issue(&Template::client(subject_of_a(text), world.now), KeyKind::P256);
        cases.push(presenting(format!("alternative name: {}, as common name", party.id), party, &credential, mismatch));
    }
    let credential = world.c_root.client("192.0.2.7");
    cases.push(presenting("alternative name: c-ip, as common name".to_owned(), &world.c_ip, &credential, mismatch));
    cases
}

/// RFC 8705 §2.2: the registered certificate, whole, or none.
fn self_signed(world: &World) -> Vec<Case> {
    let party = &world.a_self;
    let now = world.now;
    let subject = Name::common("self-signed client");
    let template = Template::client(subject.clone(), now);
    let mut resigned = Authority::pretended(subject.clone(), &party.credential, now)
        .issue_for(&template, Arc::clone(&party.credential.key));
    resigned.chain.truncate(1);
    let not_registered = invalid_client("peer_not_registered");
    let list = [
        ("another key, the same name", Credential::self_signed(&template, KeyKind::P256)),
        ("the same key, another certificate", resigned),
        (
            "the same key under an authority of its partner",
            world.a_root.issue_for(&Template::client(subject_of_a("a-self"), now), Arc::clone(&party.credential.key)),
        ),
        ("the same name under an authority of its partner", world.a_root.issue(&template, KeyKind::P256)),
        ("a stranger's", Credential::self_signed(&Template::client(Name::common("stranger"), now), KeyKind::Ed25519)),
        ("another client's", world.a_two.credential.clone()),
    ];
    let mut cases: Vec<Case> = list
        .into_iter()
        .map(|(defect, credential)| presenting(format!("self-signed: {defect}"), party, &credential, not_registered))
        .collect();
    if let Some(twin) = party.credential.rewritten() {
        cases.push(presenting("self-signed: the signature rewritten".to_owned(), party, &twin, not_registered));
    }
    let mut behind = Credential::self_signed(&template, KeyKind::P256);
    behind.chain.push(party.credential.certificate().to_vec());
    cases.push(presenting(
        "self-signed: the registered one second in the list".to_owned(),
        party,
        &behind,
        not_registered,
    ));
    cases
}

/// What the handshake bounds: at most four intermediates, at most 16 KB.
fn bounds(world: &World) -> Vec<Case> {
    let leaf = Template::client(subject_of_a("a-dn"), world.now);
    let mut long = world.a_root.clone();
    for at in 0..5 {
        long = long.intermediate(&format!("Level {at}"));
    }
    let mut stuffed = world.a_root.issue(&leaf, KeyKind::P256);
    for at in 0..9 {
        stuffed.chain.push(world.a_root.client(&format!("filler {at}")).certificate().to_vec());
    }
    let big = Template {
        extensions: vec![countersign_conformance::pki::Extension {
            oid: vec![1, 3, 6, 1, 4, 1, 55_555, 2],
            critical: false,
            value: vec![0x04; 17_000],
        }],
        ..leaf.clone()
    };
    let rubbish = Credential { key: Arc::new(Key::generate(KeyKind::P256)), chain: vec![vec![0x30, 3, 2, 1, 1]] };
    [
        ("five intermediates", long.issue(&leaf, KeyKind::P256)),
        ("nine certificates behind the leaf", stuffed),
        ("17 KB", world.a_root.issue(&big, KeyKind::P256)),
        ("no certificate but other DER", rubbish),
    ]
    .into_iter()
    .map(|(defect, credential)| {
        presenting(format!("bounds: {defect}"), &world.a_dn, &credential, Expected::NoHandshake)
    })
    .collect()
}
