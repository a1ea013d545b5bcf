//! The right authority signed a name that only looks like the registered one.

use std::net::Ipv4Addr;

use countersign_conformance::KeyKind;
use countersign_conformance::der::tag;
use countersign_conformance::pki::{AltName, Attribute, Name, Template};

use super::{Family, Outcome, Victim, chained_victims, run};
use crate::rig::Rig;
use crate::world::World;

const MISMATCH: Outcome = Outcome::Refused("certificate_name_mismatch");
const OUTSIDE: Outcome = Outcome::Refused("peer_outside_name_space");
const MALFORMED: Outcome = Outcome::Refused("peer_name_malformed");

#[tokio::test]
async fn the_same_text_as_a_name_of_another_kind() {
    let rig = Rig::start().await;
    run(&rig, &kinds(&rig.world)).await;
}

#[tokio::test]
async fn a_subject_that_looks_like_the_victims() {
    let rig = Rig::start().await;
    run(&rig, &subjects(&rig.world)).await;
}

#[tokio::test]
async fn an_alternative_name_that_looks_like_the_victims() {
    let rig = Rig::start().await;
    run(&rig, &alt_names(&rig.world)).await;
}

/// The text an operator registered the victim under.
fn text_of(victim: &Victim) -> String {
    match victim.template.alt_names.first() {
        Some(AltName::Dns(text) | AltName::Email(text) | AltName::Uri(text)) => text.clone(),
        Some(AltName::Ip(address)) => address.to_string(),
        _ => format!("CN={},O=Partner A,C=DE", victim.party.id),
    }
}

/// Partner C's anchor vouches for any name: nothing is outside its name space.
fn outside(victim: &Victim) -> Outcome {
    if victim.party.id == "c-ip" { MISMATCH } else { OUTSIDE }
}

pub(super) fn kinds(world: &World) -> Family<'_> {
    let mut family = Family::of(world);
    for victim in &chained_victims(world) {
        family.honest("its own certificate", victim, &victim.party.credential);
        let text = text_of(victim);
        let own = victim.template.alt_names.first();
        let utf8 = |text: &str| [&[tag::UTF8_STRING, text.len() as u8][..], text.as_bytes()].concat();
        let principal = AltName::Other(vec![1, 3, 6, 1, 4, 1, 311, 20, 2, 3], utf8(&text));
        let mail = AltName::Other(vec![1, 3, 6, 1, 5, 5, 7, 8, 9], utf8(&text));
        let kinds = [
            ("as DNS name", AltName::Dns(text.clone())),
            ("as URI", AltName::Uri(text.clone())),
            ("as e-mail address", AltName::Email(text.clone())),
            ("as Microsoft's principal name", principal),
            ("as internationalised mail address", mail),
            ("as directory name", AltName::Directory(Name::common(&text))),
            ("as registered id", AltName::Raw(0x88, text.clone().into_bytes())),
            ("as EDI party name", AltName::Raw(0xA5, utf8(&text))),
            ("as X.400 address", AltName::Raw(0xA3, utf8(&text))),
        ];
        let nameless = Template { subject: Name::default(), ..victim.template.clone() };
        for (how, name) in kinds {
            if own == Some(&name) {
                continue;
            }
            let credential = victim.authority.issue(&nameless.clone().with_alt_names([name]), KeyKind::P256);
            family.push(&format!("the registered text {how}"), victim, &credential, outside(victim));
        }
        for attribute in ["CN", "O", "OU", "UID", "serialNumber"] {
            let mut subject = Name::of(&[("C", "DE"), ("O", "Partner A")]);
            subject.0.push(vec![Attribute::new(attribute, &text)]);
            let template = Template { subject, alt_names: Vec::new(), ..victim.template.clone() };
            let credential = victim.authority.issue(&template, KeyKind::P256);
            family.push(&format!("the registered text as {attribute}"), victim, &credential, MISMATCH);
        }
        // A kind of general name that does not exist.
        let unknown = nameless.with_alt_names([AltName::Raw(0x89, text.into_bytes())]);
        let credential = victim.authority.issue(&unknown, KeyKind::P256);
        family.push("the registered text under a tag that is none", victim, &credential, MALFORMED);
    }
    family
}

pub(super) fn subjects(world: &World) -> Family<'_> {
    let mut family = Family::of(world);
    for victim in chained_victims(world).iter().filter(|victim| victim.template.alt_names.is_empty()) {
        family.honest("its own certificate", victim, &victim.party.credential);
        let id = victim.party.id;
        let right = || vec![vec![Attribute::new("C", "DE")], vec![Attribute::new("O", "Partner A")]];
        let with = |attribute: Attribute| {
            let mut name = right();
            name.push(vec![attribute]);
            Name(name)
        };
        let wide = |text: &str| text.encode_utf16().flat_map(u16::to_be_bytes).collect::<Vec<u8>>();
        let wider =
            |text: &str| text.chars().flat_map(|character| u32::from(character).to_be_bytes()).collect::<Vec<u8>>();
        let common = |tag, value: Vec<u8>| Attribute { oid: vec![2, 5, 4, 3], tag, value };
        let organisation = |tag, value: Vec<u8>| {
            Name(vec![
                vec![Attribute::new("C", "DE")],
                vec![Attribute { oid: vec![2, 5, 4, 10], tag, value }],
                vec![Attribute::new("CN", id)],
            ])
        };
        let reversed = Name(with(Attribute::new("CN", id)).0.into_iter().rev().collect());
        let multi =
            Name(vec![vec![Attribute::new("C", "DE"), Attribute::new("O", "Partner A"), Attribute::new("CN", id)]]);
        let two_valued = Name(vec![
            vec![Attribute::new("C", "DE")],
            vec![Attribute::new("O", "Partner A"), Attribute::new("CN", id)],
        ]);
        let extra = |attribute: Attribute| {
            let mut name = right();
            name.push(vec![Attribute::new("CN", id), attribute]);
            Name(name)
        };
        let upper = id.to_uppercase();
        let mut list: Vec<(String, Name, Outcome)> = Vec::new();
        for (kind, tag) in [
            ("TeletexString", tag::TELETEX_STRING),
            ("IA5String", tag::IA5_STRING),
            ("NumericString", tag::NUMERIC_STRING),
            ("GeneralString", 0x1B),
            ("VisibleString", 0x1A),
            ("OCTET STRING", tag::OCTET_STRING),
        ] {
            list.push((format!("the common name as {kind}"), with(common(tag, id.into())), MISMATCH));
            list.push((
                format!("the common name in capitals as {kind}"),
                with(common(tag, upper.clone().into())),
                MISMATCH,
            ));
            list.push((format!("the organisation as {kind}"), organisation(tag, b"Partner A".to_vec()), OUTSIDE));
        }
        for (kind, tag, value) in [
            ("BMPString", tag::BMP_STRING, wide(id)),
            ("UniversalString", 0x1C, wider(id)),
            ("BMPString that is not", tag::BMP_STRING, id.into()),
        ] {
            list.push((format!("the common name as {kind}"), with(common(tag, value)), MISMATCH));
        }
        list.push((
            "the organisation as BMPString".to_owned(),
            organisation(tag::BMP_STRING, wide("Partner A")),
            OUTSIDE,
        ));
        let text = |list: &mut Vec<(String, Name, Outcome)>, what: &str, value: String, outcome| {
            list.push((what.to_owned(), with(Attribute::new("CN", &value)), outcome));
        };
        text(&mut list, "a space within", id.replace('-', " -"), MISMATCH);
        text(&mut list, "an underscore for the hyphen", id.replace('-', "_"), MISMATCH);
        text(&mut list, "a dash for the hyphen", id.replace('-', "\u{2010}"), MISMATCH);
        text(&mut list, "a soft hyphen within", id.replace('-', "-\u{AD}"), MALFORMED);
        text(&mut list, "a Cyrillic a", id.replacen('a', "\u{430}", 1), MISMATCH);
        text(&mut list, "a zero-width joiner within", id.replace('-', "\u{200D}-"), MALFORMED);
        text(&mut list, "a right-to-left override before", format!("\u{202E}{id}"), MALFORMED);
        text(&mut list, "NUL behind", format!("{id}\0"), MALFORMED);
        text(&mut list, "NUL and a domain behind", format!("{id}\0.evil.example"), MALFORMED);
        text(&mut list, "NUL before", format!("\0{id}"), MALFORMED);
        text(&mut list, "a line feed behind", format!("{id}\n"), MALFORMED);
        text(&mut list, "a carriage return behind", format!("{id}\r"), MALFORMED);
        text(&mut list, "a tab before", format!("\t{id}"), MALFORMED);
        text(&mut list, "an escape character behind", format!("{id}\u{1B}[0m"), MALFORMED);
        text(&mut list, "a delete behind", format!("{id}\u{7F}"), MALFORMED);
        text(&mut list, "the end of the text within", format!("{id},O=Partner A,C=DE"), MISMATCH);
        text(&mut list, "another name first, as text", format!("x,CN={id}"), MISMATCH);
        text(&mut list, "a plus and more, as text", format!("{id}+O=Partner A"), MISMATCH);
        text(&mut list, "quotes around", format!("\"{id}\""), MISMATCH);
        text(&mut list, "its hexadecimal form", format!("#0c{:02x}{}", id.len(), hex_of(id)), MISMATCH);
        text(&mut list, "a wildcard", "*".to_owned(), MISMATCH);
        text(&mut list, "nothing", String::new(), MISMATCH);
        list.push(("the order reversed".to_owned(), reversed, OUTSIDE));
        list.push(("all in one relative name".to_owned(), multi, OUTSIDE));
        list.push(("organisation and common name in one relative name".to_owned(), two_valued, OUTSIDE));
        list.push((
            "a serial number beside the common name".to_owned(),
            extra(Attribute::new("serialNumber", "1")),
            MISMATCH,
        ));
        list.push(("a second common name beside it".to_owned(), extra(Attribute::new("CN", "other")), MISMATCH));
        list.push((
            "the common name twice in one relative name".to_owned(),
            extra(Attribute::new("CN", &upper)),
            MALFORMED,
        ));
        let attributes = |list: &[(&str, &str)]| Name::of(list);
        list.push((
            "another organisation that begins so".to_owned(),
            attributes(&[("C", "DE"), ("O", "Partner A Evil"), ("CN", id)]),
            OUTSIDE,
        ));
        list.push((
            "another organisation that ends so".to_owned(),
            attributes(&[("C", "DE"), ("O", "Evil Partner A"), ("CN", id)]),
            OUTSIDE,
        ));
        list.push((
            "a unit between".to_owned(),
            attributes(&[("C", "DE"), ("O", "Partner A"), ("OU", "x"), ("CN", id)]),
            MISMATCH,
        ));
        list.push((
            "a unit behind".to_owned(),
            attributes(&[("C", "DE"), ("O", "Partner A"), ("CN", id), ("OU", "x")]),
            MISMATCH,
        ));
        list.push((
            "a component before the country".to_owned(),
            attributes(&[("DC", "evil"), ("C", "DE"), ("O", "Partner A"), ("CN", id)]),
            OUTSIDE,
        ));
        list.push(("no country".to_owned(), attributes(&[("O", "Partner A"), ("CN", id)]), OUTSIDE));
        list.push(("the common name alone".to_owned(), attributes(&[("CN", id)]), OUTSIDE));
        for (what, subject, outcome) in list {
            let credential = victim.authority.issue(&Template::client(subject, world.now), KeyKind::P256);
            family.push(&what, victim, &credential, outcome);
        }
    }
    family
}

fn hex_of(text: &str) -> String {
    text.bytes().map(|octet| format!("{octet:02x}")).collect()
}

pub(super) fn alt_names(world: &World) -> Family<'_> {
    let mut family = Family::of(world);
    let dns = |name: &str| AltName::Dns(name.to_owned());
    let uri = |name: &str| AltName::Uri(name.to_owned());
    let email = |name: &str| AltName::Email(name.to_owned());
    for victim in &chained_victims(world) {
        let names: Vec<(&str, AltName, Outcome)> = match victim.party.id {
            "a-dns" => vec![
                ("a wildcard that covers it", dns("*.partner-a.example"), OUTSIDE),
                ("a bare wildcard", dns("*"), OUTSIDE),
                ("a wildcard within", dns("c*.partner-a.example"), OUTSIDE),
                ("its address for people", dns("client.partner-a.example."), OUTSIDE),
                ("a domain that ends so", dns("client.xpartner-a.example"), OUTSIDE),
                ("NUL within", dns("client.partner-a.example\0.evil.example"), MALFORMED),
                ("a control character within", dns("client.partner-a.example\u{1}"), MALFORMED),
                ("another label in punycode", dns("xn--clint-9ua.partner-a.example"), MISMATCH),
                ("the domain", dns("partner-a.example"), MISMATCH),
            ],
            "a-uri" => vec![
                ("another path", uri("https://partner-a.example/clients/One"), MISMATCH),
                ("user information", uri("https://partner-a.example@evil.example/clients/one"), OUTSIDE),
                ("a host that ends so", uri("https://xpartner-a.example/clients/one"), OUTSIDE),
                ("a path below", uri("https://partner-a.example/clients/one/two"), MISMATCH),
                ("a dot segment", uri("https://partner-a.example/clients/two/../one"), OUTSIDE),
                ("an escaped letter", uri("https://partner-a.example/clients/%6fne"), OUTSIDE),
                ("a SPIFFE ID of that path", uri("spiffe://partner-a.example/clients/one"), MISMATCH),
                ("NUL behind", uri("https://partner-a.example/clients/one\0"), MALFORMED),
            ],
            "a-email" => vec![
                ("the local part in small letters", email("client@partner-a.example"), MISMATCH),
                ("a domain that ends so", email("Client@xpartner-a.example"), OUTSIDE),
                ("two at signs", email("Client@evil.example@partner-a.example"), OUTSIDE),
                ("a comment", email("Client(x)@partner-a.example"), OUTSIDE),
                ("NUL behind", email("Client@partner-a.example\0"), MALFORMED),
                ("a line feed behind", email("Client@partner-a.example\n"), MALFORMED),
            ],
            "c-ip" => vec![
                ("mapped into IPv6", AltName::Ip(Ipv4Addr::new(192, 0, 2, 7).to_ipv6_mapped().into()), MISMATCH),
                ("compatible with IPv6", AltName::Ip("::192.0.2.7".parse().unwrap()), MISMATCH),
                ("its network", AltName::Raw(0x87, vec![192, 0, 2, 7, 255, 255, 255, 255]), MALFORMED),
                ("octets turned round", AltName::Ip([7, 2, 0, 192].into()), MISMATCH),
                ("three octets", AltName::Raw(0x87, vec![192, 0, 2]), MALFORMED),
                ("as text in the octets", AltName::Raw(0x87, b"192.0.2.7".to_vec()), MALFORMED),
            ],
            "a-jwt" => vec![
                ("a wildcard that covers it", dns("*.partner-a.example"), OUTSIDE),
                ("another client's host", dns("client.partner-a.example"), MISMATCH),
                ("a host below", dns("x.a-jwt.partner-a.example"), MISMATCH),
            ],
            _ => continue,
        };
        family.honest("its own certificate", victim, &victim.party.credential);
        for (what, name, outcome) in names {
            let template = Template::client(Name::default(), world.now).with_alt_names([name]);
            family.push(what, victim, &victim.authority.issue(&template, KeyKind::P256), outcome);
        }
        // The right name beside one that nobody may vouch for, or that is read in two ways.
        for (what, name, outcome) in [
            ("a stranger's host beside the right name", dns("client.evil.example"), outside(victim)),
            (
                "two SPIFFE IDs beside the right name",
                uri("spiffe://partner-a.example/x"),
                Outcome::Refused("peer_spiffe_id_ambiguous"),
            ),
            ("an empty kind beside the right name", AltName::Raw(0x8A, Vec::new()), MALFORMED),
        ] {
            if victim.party.id == "c-ip" && outcome == MISMATCH {
                continue; // under `any` that is a certificate of its own
            }
            let mut template = victim.template.clone();
            template.alt_names.push(name.clone());
            if what.starts_with("two") {
                template.alt_names.push(uri("spiffe://partner-a.example/y"));
            }
            family.push(what, victim, &victim.authority.issue(&template, KeyKind::P256), outcome);
        }
    }
    family
}
