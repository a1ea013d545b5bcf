//! How the names of a certificate miss the registered one: told to people, never decided by.
//!
//! Takes a certificate's canonical names and a rule they do not match, gives every way in which they come close. What
//! matches is `Names::match_rule`'s business alone; nothing here makes a name match.

use std::net::IpAddr;

use super::distinguished_name::{Spelling, Value, parse_name, prepare, write_name};
use super::{Names, der};
use crate::registry::client::{SubjectAttribute, SubjectRule};

/// One way in which a name comes close to the registered one and misses it.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Difference {
    /// The certificate has no name of the registered kind at all.
    #[error("the certificate has no name of this kind")]
    KindMissing,
    /// The same relative names, last first.
    #[error(
        "the distinguished name is written in the other order: RFC 4514 begins with the last relative name of the \
         certificate, and order counts"
    )]
    OrderReversed,
    /// The same relative names in some other order.
    #[error("the same relative names stand in another order, and order counts")]
    OrderOther,
    /// The same attributes, otherwise grouped into relative names.
    #[error("the same attributes are grouped into relative names otherwise (`+` is not `,`)")]
    Grouping,
    /// The same text in a string type that is matched octet by octet.
    #[error(
        "the text is the same, but in a string type that matches only the same type and octets: encode it as UTF8String \
         or PrintableString on both sides"
    )]
    StringType,
    /// Upper and lower case differ where it counts.
    #[error("only upper and lower case differ, and here they count")]
    Case,
    /// Relative names of the registered name that the certificate lacks.
    #[error("the certificate lacks {0}")]
    Lacks(String),
    /// Relative names of the certificate that the registered name does not have.
    #[error("the certificate has {0} besides")]
    Besides(String),
    /// The same text as another kind of name.
    #[error("the same text stands in the certificate as {0}, which is another kind of name")]
    OtherKind(String),
    /// An IPv4 address mapped into IPv6, or the other way round.
    #[error("the same IPv4 address is written once as IPv4 and once mapped into IPv6: four octets are not sixteen")]
    AddressMapped,
    /// A wildcard that would have covered it.
    #[error("the certificate has the wildcard {0}, and wildcards name nobody here")]
    Wildcard(String),
    /// They differ only in what stands at the end: a slash, a dot.
    #[error("they differ only in the last character")]
    LastCharacter,
}

impl Names {
    /// Every way in which these names come close to `rule` and miss it; empty where they match, or are nothing like it.
    pub fn differences(&self, rule: &SubjectRule) -> Vec<Difference> {
        if self.match_rule(rule) {
            return Vec::new();
        }
        let mut differences = Vec::new();
        let mut own = self.of(rule.attribute).peekable();
        if own.peek().is_none() {
            differences.push(Difference::KindMissing);
        }
        for name in own {
            match rule.attribute {
                SubjectAttribute::TlsClientAuthSubjectDn => subject(name, &rule.canonical, &mut differences),
                SubjectAttribute::TlsClientAuthSanIp => {
                    let canonical = |text: &str| text.parse::<IpAddr>().map(|address| address.to_canonical()).ok();
                    if canonical(name).is_some() && canonical(name) == canonical(&rule.canonical) {
                        differences.push(Difference::AddressMapped);
                    }
                }
                SubjectAttribute::TlsClientAuthSanDns
                | SubjectAttribute::TlsClientAuthSanEmail
                | SubjectAttribute::TlsClientAuthSanUri => alike(name, &rule.canonical, &mut differences),
            }
        }
        self.elsewhere(rule, &mut differences);
        differences.dedup();
        differences
    }

    /// The registered text in another place of the certificate.
    fn elsewhere(&self, rule: &SubjectRule, differences: &mut Vec<Difference>) {
        let own_label = label_of(rule.attribute);
        for text in self.subject_alt_names_text() {
            let Some((label, value)) = text.split_once(':') else { continue };
            if label != own_label && value.eq_ignore_ascii_case(&rule.canonical) {
                differences.push(Difference::OtherKind(text.clone()));
            } else if label == own_label && value.eq_ignore_ascii_case(&format!("{}.", rule.canonical)) {
                // Not canonical, so it is no name of its kind: it can only be found here.
                differences.push(Difference::LastCharacter);
            } else if let Some(suffix) = value.strip_prefix('*')
                && rule.attribute == SubjectAttribute::TlsClientAuthSanDns
                && suffix.starts_with('.')
                && rule.canonical.ends_with(&suffix.to_ascii_lowercase())
            {
                differences.push(Difference::Wildcard(value.to_owned()));
            }
        }
        if rule.attribute != SubjectAttribute::TlsClientAuthSubjectDn
            && let Some(subject) = self.of(SubjectAttribute::TlsClientAuthSubjectDn).next()
            && let Some(attribute) = attributes(subject).into_iter().find(|attribute| {
                attribute.split_once('=').is_some_and(|(_, value)| value.eq_ignore_ascii_case(&rule.canonical))
            })
        {
            differences.push(Difference::OtherKind(format!("{attribute} of the subject")));
        }
    }
}

const fn label_of(attribute: SubjectAttribute) -> &'static str {
    match attribute {
        SubjectAttribute::TlsClientAuthSubjectDn => "subject",
        SubjectAttribute::TlsClientAuthSanDns => "DNS",
        SubjectAttribute::TlsClientAuthSanUri => "URI",
        SubjectAttribute::TlsClientAuthSanIp => "IP",
        SubjectAttribute::TlsClientAuthSanEmail => "email",
    }
}

/// Texts that are compared octet by octet.
fn alike(own: &str, registered: &str, differences: &mut Vec<Difference>) {
    if own.eq_ignore_ascii_case(registered) {
        differences.push(Difference::Case);
    } else if own.strip_suffix('/') == Some(registered) || registered.strip_suffix('/') == Some(own) {
        differences.push(Difference::LastCharacter);
    }
}

/// Two canonical distinguished names that are not the same.
fn subject(own: &str, registered: &str, differences: &mut Vec<Difference>) {
    if own.to_lowercase() == registered.to_lowercase() {
        differences.push(Difference::Case); // of an e-mail address or domain component: an IA5String's octets count
        return;
    }
    // By text what is matched by octets: names that then are alike differ in the type of a string.
    let (loose, loose_registered) = (by_text(own), by_text(registered));
    let (own_parts, parts) = (relative_names(&loose), relative_names(&loose_registered));
    let sorted = |mut parts: Vec<String>| {
        parts.sort_unstable();
        parts
    };
    let reversed: Vec<String> = own_parts.iter().rev().cloned().collect();
    if own_parts != parts {
        if reversed == parts {
            differences.push(Difference::OrderReversed);
        } else if sorted(own_parts.clone()) == sorted(parts.clone()) {
            differences.push(Difference::OrderOther);
        } else if sorted(attributes(&loose)) == sorted(attributes(&loose_registered)) {
            differences.push(Difference::Grouping);
        } else {
            let missing = |from: &[String], of: &[String]| {
                of.iter().filter(|part| !from.contains(part)).cloned().collect::<Vec<_>>().join(",")
            };
            let (lacks, besides) = (missing(&own_parts, &parts), missing(&parts, &own_parts));
            if !lacks.is_empty() {
                differences.push(Difference::Lacks(lacks));
            }
            if !besides.is_empty() {
                differences.push(Difference::Besides(besides));
            }
            return;
        }
    }
    // Alike by text, and not by octets: some string is of another type, whatever the order.
    if sorted(attributes(own)) != sorted(attributes(registered)) {
        differences.push(Difference::StringType);
    }
}

/// The relative names of a canonical name: a bare `,` only separates.
fn relative_names(canonical: &str) -> Vec<String> {
    canonical.split(',').map(str::to_owned).collect()
}

/// All attributes of a canonical name, whatever relative name they are in.
fn attributes(canonical: &str) -> Vec<String> {
    canonical.split([',', '+']).map(str::to_owned).collect()
}

/// A canonical name with every string that is matched by its octets written as its text, where it has one.
fn by_text(canonical: &str) -> String {
    let Ok(mut name) = parse_name(canonical) else { return canonical.to_owned() };
    for attribute in name.iter_mut().flatten() {
        if let Value::Other { tag, contents } = &attribute.value
            && let Some(text) = text_of(*tag, contents)
            && prepare(&text).is_ok()
        {
            attribute.value = Value::Directory(text);
        }
    }
    write_name(&name, Spelling::Prepared).unwrap_or_else(|_| canonical.to_owned())
}

/// What a string of another type says.
fn text_of(tag: u8, contents: &[u8]) -> Option<String> {
    match tag {
        der::IA5_STRING | NUMERIC_STRING | VISIBLE_STRING => std::str::from_utf8(contents).ok().map(str::to_owned),
        // T.61 in theory; in practice everybody writes ISO 8859-1.
        TELETEX_STRING => Some(contents.iter().map(|&octet| char::from(octet)).collect()),
        BMP_STRING => {
            let (pairs, rest) = contents.as_chunks::<2>();
            let units: Vec<u16> = pairs.iter().map(|pair| u16::from_be_bytes(*pair)).collect();
            rest.is_empty().then(|| String::from_utf16(&units).ok()).flatten()
        }
        UNIVERSAL_STRING => {
            let (groups, rest) = contents.as_chunks::<4>();
            let characters = groups.iter().map(|group| char::from_u32(u32::from_be_bytes(*group)));
            rest.is_empty().then(|| characters.collect()).flatten()
        }
        _ => None,
    }
}

const NUMERIC_STRING: u8 = 18;
const TELETEX_STRING: u8 = 20;
const VISIBLE_STRING: u8 = 26;
const UNIVERSAL_STRING: u8 = 28;
const BMP_STRING: u8 = 30;

#[cfg(test)]
mod tests {
    use countersign_conformance::KeyKind;
    use countersign_conformance::der::tag;
    use countersign_conformance::pki::{AltName, Attribute, Authority, Name, Template};
    use proptest::prelude::*;

    use super::*;
    use crate::pki::ParsedCertificate;
    use crate::pki::identity::subject_rule;
    use crate::pki::scene::NOW;

    fn names(subject: Name, alt_names: &[AltName]) -> Names {
        let template = Template::client(subject, NOW).with_alt_names(alt_names.iter().cloned());
        let credential = Authority::root("CA", NOW).issue(&template, KeyKind::P256);
        ParsedCertificate::read(credential.certificate()).unwrap().names().unwrap().clone()
    }

    fn of_subject(subject: Name, registered: &str) -> Vec<Difference> {
        let rule = subject_rule(SubjectAttribute::TlsClientAuthSubjectDn, registered).unwrap();
        names(subject, &[]).differences(&rule)
    }

    fn of_alt_name(attribute: SubjectAttribute, registered: &str, alt_name: AltName) -> Vec<Difference> {
        let rule = subject_rule(attribute, registered).unwrap();
        names(Name::default(), &[alt_name]).differences(&rule)
    }

    const REGISTERED: &str = "CN=client,O=Partner A,C=DE";

    #[test]
    fn subjects_that_come_close() {
        let list = |attributes: &[(&str, &str)]| Name::of(attributes);
        let right = [("C", "DE"), ("O", "Partner A"), ("CN", "client")];
        assert_eq!(of_subject(list(&right), REGISTERED), []);
        let reversed = list(&[("CN", "client"), ("O", "Partner A"), ("C", "DE")]);
        assert_eq!(of_subject(reversed, REGISTERED), [Difference::OrderReversed]);
        let other = list(&[("O", "Partner A"), ("C", "DE"), ("CN", "client")]);
        assert_eq!(of_subject(other, REGISTERED), [Difference::OrderOther]);
        let mut merged = list(&[("C", "DE")]);
        merged.0.push(vec![Attribute::new("O", "Partner A"), Attribute::new("CN", "client")]);
        assert_eq!(of_subject(merged, REGISTERED), [Difference::Grouping]);
        let more = list(&[("C", "DE"), ("O", "Partner A"), ("OU", "x"), ("CN", "client")]);
        assert_eq!(of_subject(more, REGISTERED), [Difference::Besides("ou=x".to_owned())]);
        let less = list(&[("C", "DE"), ("CN", "client")]);
        assert_eq!(of_subject(less, REGISTERED), [Difference::Lacks("o=partner a".to_owned())]);
        let another = list(&[("C", "DE"), ("O", "Partner A"), ("CN", "other")]);
        assert_eq!(
            of_subject(another, REGISTERED),
            [Difference::Lacks("cn=client".to_owned()), Difference::Besides("cn=other".to_owned())]
        );
        assert_eq!(of_subject(Name::default(), REGISTERED), [Difference::KindMissing]);
    }

    #[test]
    fn strings_of_another_type() {
        let with = |attribute: Attribute| {
            let mut name = Name::of(&[("C", "DE"), ("O", "Partner A")]);
            name.0.push(vec![attribute]);
            name
        };
        let bmp = Attribute { oid: vec![2, 5, 4, 3], tag: tag::BMP_STRING, value: b"\0c\0l\0i\0e\0n\0t".to_vec() };
        for attribute in [
            Attribute::new("CN", "client").tagged(tag::TELETEX_STRING),
            Attribute::new("CN", "Client").tagged(tag::IA5_STRING),
            bmp.clone(),
        ] {
            assert_eq!(of_subject(with(attribute), REGISTERED), [Difference::StringType]);
        }
        let other = Attribute::new("CN", "other").tagged(tag::TELETEX_STRING);
        assert!(!of_subject(with(other), REGISTERED).contains(&Difference::StringType));
        let mut reversed = with(bmp);
        reversed.0.reverse();
        assert_eq!(of_subject(reversed, REGISTERED), [Difference::OrderReversed, Difference::StringType]);
    }

    #[test]
    fn alternative_names_that_come_close() {
        use SubjectAttribute::{TlsClientAuthSanDns, TlsClientAuthSanEmail, TlsClientAuthSanIp, TlsClientAuthSanUri};
        let dns = |text: &str| AltName::Dns(text.to_owned());
        let uri = |text: &str| AltName::Uri(text.to_owned());
        let mapped = AltName::Ip(std::net::Ipv4Addr::new(192, 0, 2, 7).to_ipv6_mapped().into());
        for (attribute, registered, alt_name, expected) in [
            (TlsClientAuthSanUri, "https://a.example/one", uri("https://a.example/One"), Difference::Case),
            (TlsClientAuthSanUri, "https://a.example/one", uri("https://a.example/one/"), Difference::LastCharacter),
            (TlsClientAuthSanDns, "a.example", dns("a.example."), Difference::LastCharacter),
            (TlsClientAuthSanDns, "a.example", dns("*.example"), Difference::Wildcard("*.example".to_owned())),
            (TlsClientAuthSanEmail, "Ops@a.example", AltName::Email("ops@a.example".to_owned()), Difference::Case),
            (TlsClientAuthSanIp, "192.0.2.7", mapped, Difference::AddressMapped),
        ] {
            assert!(of_alt_name(attribute, registered, alt_name).contains(&expected), "{registered}: {expected:?}");
        }
        let other_kind = of_alt_name(TlsClientAuthSanDns, "a.example", uri("a.example"));
        assert_eq!(other_kind, [Difference::KindMissing, Difference::OtherKind("URI:a.example".to_owned())]);
        let rule = subject_rule(TlsClientAuthSanDns, "a.example").unwrap();
        let common_name = names(Name::common("a.example"), &[]).differences(&rule);
        assert_eq!(
            common_name,
            [Difference::KindMissing, Difference::OtherKind("cn=a.example of the subject".to_owned())]
        );
        assert_eq!(of_alt_name(TlsClientAuthSanDns, "a.example", dns("b.example")), []);
    }

    proptest! {
        /// Whatever a certificate's authority wrote: it is looked at without panic, and told a difference only where there
        /// is one.
        #[test]
        fn any_string_of_any_type(tag in any::<u8>(), value in proptest::collection::vec(any::<u8>(), 0..40)) {
            let subject = Name(vec![vec![Attribute { oid: vec![2, 5, 4, 3], tag, value }]]);
            let rule = subject_rule(SubjectAttribute::TlsClientAuthSubjectDn, "CN=client").unwrap();
            if let Ok(names) = Names::read(&subject.to_der(), None) {
                prop_assert!(names.match_rule(&rule) == names.differences(&rule).is_empty());
            }
        }

        #[test]
        fn any_alternative_name(tag in 0x80u8..0x89, value in "[ -~]{0,40}", registered in "[a-z]{1,8}\\.example") {
            let encoded = countersign_conformance::der::sequence([countersign_conformance::der::tlv(tag, value)]);
            let rule = subject_rule(SubjectAttribute::TlsClientAuthSanDns, &registered).unwrap();
            if let Ok(names) = Names::read(&Name::default().to_der(), Some(&encoded)) {
                prop_assert!(!names.match_rule(&rule) || names.differences(&rule).is_empty());
            }
        }
    }

    #[test]
    fn nothing_that_differs_matches() {
        // Whatever comes close is still refused: the difference is told, never forgiven.
        let rule = subject_rule(SubjectAttribute::TlsClientAuthSubjectDn, REGISTERED).unwrap();
        let reversed = names(Name::of(&[("CN", "client"), ("O", "Partner A"), ("C", "DE")]), &[]);
        assert!(!reversed.match_rule(&rule) && !reversed.differences(&rule).is_empty());
    }
}
