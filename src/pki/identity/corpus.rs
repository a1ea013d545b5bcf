//! The published corpus of `tests/vectors/names/`: each rule against a certificate with exactly these octets.

use std::collections::BTreeMap;

use countersign_conformance::pki::{Authority, Extension, Name, Template};
use countersign_conformance::{Key, KeyKind, der as made};
use serde::Deserialize;

use super::{Difference, Names, subject_rule};
use crate::pki::scene::{NOW, Scene, now, presented_list};
use crate::pki::{PeerRefusal, Verifier};
use crate::registry::client::SubjectAttribute;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(in crate::pki) struct Case {
    pub(in crate::pki) id: String,
    attribute: SubjectAttribute,
    registered: String,
    /// A Name in DER, as hexadecimal digits.
    subject: String,
    /// The contents of a subjectAltName extension likewise.
    alt_names: Option<String>,
    verdict: Verdict,
    /// What an explanation of the difference has to name.
    pub(in crate::pki) explained: Option<Explained>,
    why: String,
    section: String,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Verdict {
    Match,
    NoMatch,
    MalformedRule,
    MalformedName,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(in crate::pki) enum Explained {
    AddressMapped,
    Case,
    GroupedOtherwise,
    LastCharacter,
    OtherKind,
    Reordered,
    Reversed,
    StringType,
    Wildcard,
}

/// Every case, file by file.
pub(in crate::pki) fn cases() -> Vec<Case> {
    [
        include_str!("../../../tests/vectors/names/distinguished_name.json"),
        include_str!("../../../tests/vectors/names/dns.json"),
        include_str!("../../../tests/vectors/names/ip.json"),
        include_str!("../../../tests/vectors/names/uri.json"),
        include_str!("../../../tests/vectors/names/email.json"),
        include_str!("../../../tests/vectors/names/kind.json"),
    ]
    .into_iter()
    .flat_map(|file| serde_json::from_str::<Vec<Case>>(file).unwrap())
    .collect()
}

/// A client's certificate of `root` in which these octets stand for the subject and the alternative names.
fn certificate(root: &Authority, key: &Key, subject: &[u8], alt_names: Option<&[u8]>) -> Vec<u8> {
    let mut template = Template::client(Name::common("placeholder"), NOW);
    template.extensions.extend(alt_names.map(|value| Extension {
        oid: vec![2, 5, 29, 17],
        critical: false,
        value: value.to_vec(),
    }));
    let issued = root.sign(&template, &key.spki());
    let (_, outer, _) = made::split(&issued).unwrap();
    let (_, mut rest, _) = made::split(outer).unwrap();
    // RFC 5280 §4.1: version, serialNumber, signature, issuer, validity, subject.
    let mut content = Vec::new();
    for place in 0.. {
        let Some((tag, contents, after)) = made::split(rest) else { break };
        content.push(if place == 5 { subject.to_vec() } else { made::tlv(tag, contents) });
        rest = after;
    }
    root.sign_content(&made::sequence(content))
}

fn verdict(case: &Case, root: &Authority, key: &Key) -> Verdict {
    let Ok(rule) = subject_rule(case.attribute, &case.registered) else { return Verdict::MalformedRule };
    let octets = |digits: &String| hex::decode(digits).unwrap();
    let der = certificate(root, key, &octets(&case.subject), case.alt_names.as_ref().map(octets).as_deref());
    let scene = Scene::new("names").trusting(root).named(case.attribute, &case.registered);
    match Verifier::new().verify_at_once(&presented_list(&[der]), &scene.client(), now()) {
        Ok(peer) if peer.leaf().names().unwrap().match_rule(&rule) => Verdict::Match,
        Ok(_) => Verdict::NoMatch,
        // Which of the two depends on how far the frame can be read.
        Err(PeerRefusal::NameMalformed | PeerRefusal::Malformed) => Verdict::MalformedName,
        Err(refusal) => panic!("{}: {refusal:?}", case.id),
    }
}

#[test]
fn every_case_as_published() {
    let cases = cases();
    let root = Authority::root("Names CA", NOW);
    let key = Key::generate(KeyKind::P256);
    let mut found = BTreeMap::<_, usize>::new();
    let mut wrong = Vec::new();
    for case in &cases {
        assert!(!case.why.is_empty() && !case.section.is_empty(), "{}: without its reason", case.id);
        assert!(case.explained.is_none() || case.verdict == Verdict::NoMatch, "{}: nothing to explain", case.id);
        let verdict = verdict(case, &root, &key);
        *found.entry(verdict).or_default() += 1;
        if verdict != case.verdict {
            wrong.push(format!("{}: {verdict:?}, not {:?} ({}; {})", case.id, case.verdict, case.why, case.section));
        }
    }
    assert!(wrong.is_empty(), "{} of {}:\n{}", wrong.len(), cases.len(), wrong.join("\n"));
    assert!(cases.len() >= 650 && found.values().all(|count| *count >= 80), "{found:?}");
}

#[test]
fn no_case_comes_twice() {
    let mut ids: Vec<_> = cases().into_iter().map(|case| case.id).collect();
    let count = ids.len();
    ids.sort_unstable();
    ids.dedup();
    assert_eq!(ids.len(), count);
}

#[test]
fn every_explanation_names_what_it_has_to() {
    let mut wrong = Vec::new();
    for case in cases() {
        let Some(explained) = case.explained else { continue };
        let octets = |digits: &String| hex::decode(digits).unwrap();
        let alt_names = case.alt_names.as_ref().map(octets);
        let names = Names::read(&octets(&case.subject), alt_names.as_deref()).unwrap();
        let differences = names.differences(&subject_rule(case.attribute, &case.registered).unwrap());
        let named = differences.iter().any(|difference| match explained {
            Explained::AddressMapped => *difference == Difference::AddressMapped,
            Explained::Case => *difference == Difference::Case,
            Explained::GroupedOtherwise => *difference == Difference::Grouping,
            Explained::LastCharacter => *difference == Difference::LastCharacter,
            Explained::OtherKind => matches!(difference, Difference::OtherKind(_)),
            Explained::Reordered => *difference == Difference::OrderOther,
            Explained::Reversed => *difference == Difference::OrderReversed,
            Explained::StringType => *difference == Difference::StringType,
            Explained::Wildcard => matches!(difference, Difference::Wildcard(_)),
        });
        if !named {
            wrong.push(format!("{}: {explained:?} is not among {differences:?}", case.id));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}
