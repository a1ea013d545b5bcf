//! Who may vouch for names: a participant's trust anchors, ready for path validation.
//!
//! Takes the anchors that the registry has granted, gives an [`AnchorSet`] that is compiled once per set; and, before an
//! anchor is enrolled, says what is wrong with it ([`check_anchor`]). It knows nothing of clients.

/// What an operator should know before trusting an anchor.
mod finding;

use std::sync::Arc;

use countersign_resource_server::time::UnixTime;
use rustls_pki_types::{CertificateDer, TrustAnchor as PathAnchor};
use serde::Serialize;

use super::bundle::Bundle;
use super::certificate::{Authority, KeyStrength, MalformedCertificate, ParsedCertificate};
use super::signature::Signer;
use super::spiffe::{SpiffeId, TrustDomain};
use crate::registry::GrantedAnchor;
use crate::registry::trust_anchor::{AnchorMaterial, AnchorOwner, AnchorState, NameSpace, TrustAnchor};
use crate::registry::{AnchorId, KeyHash};

pub use finding::{AnchorFinding, UncheckedNames};

/// At most so many active anchors of one name count for one participant (design §2): a leaf may be tried with each.
pub const MOST_ANCHORS_OF_ONE_NAME: usize = 8;

/// What an anchor's certificate says, once [`check_anchor`] has found it fit.
#[derive(Clone, Debug)]
pub struct AnchorFacts {
    /// The hash of its key: its name in the registry.
    pub id: AnchorId,
    /// Its subject for people, by RFC 4514.
    pub subject: String,
    /// The subject's DER, by which anchors of one name are counted.
    pub subject_der: Vec<u8>,
    /// The first second of its validity.
    pub not_before: UnixTime,
    /// The last second of its validity.
    pub not_after: UnixTime,
    /// What the operator should know before trusting it.
    pub findings: Vec<AnchorFinding>,
}

/// Why a certificate cannot be an anchor.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum UnfitAnchor {
    /// Not a certificate.
    #[error("this is not a certificate in DER or PEM")]
    Malformed,
    /// Version 1 or 2: it cannot say that it is a CA.
    #[error("this is an X.509 version 1 certificate: it cannot say that it is a CA, so it is not taken for one")]
    Version,
    /// Not a CA.
    #[error("this is not a CA certificate: its basic constraints do not say CA:TRUE (critical)")]
    NotAnAuthority,
    /// It has a critical extension that is not understood here.
    #[error("it has a critical extension that is not understood here")]
    CriticalExtensionUnknown,
    /// Its key may not sign certificates.
    #[error("its key usage does not allow it to sign certificates")]
    NoKeyCertSign,
    /// It has no name, or none that can be read.
    #[error("it has no subject, or one that cannot be read in exactly one way")]
    Nameless,
    /// Expired.
    #[error("it has expired")]
    Expired,
    /// Weak.
    #[error("its key is too weak or of a kind that is not used here: RSA 2048 to 4096, P-256, P-384, P-521 or Ed25519")]
    WeakKey,
}

impl From<MalformedCertificate> for UnfitAnchor {
    fn from(_: MalformedCertificate) -> Self {
        Self::Malformed
    }
}

/// The first second of an anchor's validity and the first instant at which it is out of date; none where it is no
/// certificate that has such an end.
pub fn validity(anchor: &TrustAnchor) -> Option<(UnixTime, UnixTime)> {
    let facts = ParsedCertificate::read_intermediate(anchor.material.octets()).ok()?;
    // RFC 5280 §4.1.2.5: `notAfter` names the last second.
    Some((facts.not_before(), facts.not_after().after(std::time::Duration::from_secs(1))))
}

/// Whether the certificate can be an anchor: asked when it is enrolled.
///
/// # Errors
/// [`UnfitAnchor`] with the reason, in words for the operator.
pub fn check_anchor(der: &[u8], now: UnixTime) -> Result<AnchorFacts, UnfitAnchor> {
    let facts = ParsedCertificate::read(der)?;
    fit(&facts)?;
    if facts.not_after().as_seconds() < now.as_seconds() {
        return Err(UnfitAnchor::Expired);
    }
    let anchor = CertificateDer::from(der);
    webpki::anchor_from_trusted_cert(&anchor).map_err(|_| UnfitAnchor::Malformed)?;
    Ok(AnchorFacts {
        id: anchor_id(facts.key_hash()).ok_or(UnfitAnchor::Malformed)?,
        subject: facts.subject_text().to_owned(),
        subject_der: facts.subject_der().to_owned(),
        not_before: facts.not_before(),
        not_after: facts.not_after(),
        findings: finding::find(der, &facts, now),
    })
}

/// A finding, or what makes it unfit by now, for whoever looks at an anchor on record.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct AnchorNote {
    /// A short name for it.
    pub name: &'static str,
    /// What it means, in words.
    pub sentence: String,
}

/// What there is to say of an anchor on record, as of now: also that it no longer is what it was when it was enrolled.
pub fn notes(anchor: &TrustAnchor, now: UnixTime) -> Vec<AnchorNote> {
    let certificate_der = match &anchor.material {
        AnchorMaterial::X509 { certificate_der } => certificate_der,
        // What there is to say of each authority was said when the bundle came in.
        AnchorMaterial::TrustDomain { .. } => return Vec::new(),
    };
    match check_anchor(certificate_der, now) {
        Ok(facts) => facts.findings.iter().map(AnchorNote::from).collect(),
        Err(UnfitAnchor::Expired) => {
            vec![AnchorNote { name: "expired", sentence: "it has expired: it vouches for nothing any more".to_owned() }]
        }
        Err(unfit) => vec![AnchorNote { name: "unfit", sentence: format!("it vouches for nothing: {unfit}") }],
    }
}

/// What there is to say of a grant: of `anchor` beside those that the participant has already, for these names.
pub fn grant_notes(
    anchor: &TrustAnchor,
    name_space: &NameSpace,
    others: &[TrustAnchor],
    now: UnixTime,
) -> Vec<AnchorNote> {
    let subject = |anchor: &TrustAnchor| match &anchor.material {
        AnchorMaterial::X509 { certificate_der } => {
            ParsedCertificate::read(certificate_der).ok().map(|facts| facts.subject_der().to_owned())
        }
        AnchorMaterial::TrustDomain { .. } => None,
    };
    let own = subject(anchor);
    let namesakes: Vec<String> = others
        .iter()
        .filter(|other| {
            other.id != anchor.id && other.state == AnchorState::Active && own.is_some() && subject(other) == own
        })
        .map(|other| other.id.to_string())
        .collect();
    let mut notes = Vec::new();
    if name_space.any && anchor.owner == AnchorOwner::Operator {
        notes.push(AnchorNote {
            name: "any_name_shared",
            sentence:
                "it is shared, and here it may vouch for any name: whoever gets a certificate from this CA under a \
                       client's registered name passes for that client; give it a narrow name space"
                    .to_owned(),
        });
    }
    if name_space.any && self::notes(anchor, now).iter().any(|note| note.name == AnchorFinding::Public.as_str()) {
        notes.push(AnchorNote {
            name: "any_name_public",
            sentence: "a public CA may vouch for any name here: give it a narrow name space".to_owned(),
        });
    }
    if !namesakes.is_empty() {
        notes.push(AnchorNote {
            name: "same_name_other_key",
            sentence: format!(
                "the participant has {} of the same name with another key: {}; signatures tell them apart, and \
                 {MOST_ANCHORS_OF_ONE_NAME} of one name are the most; retire the old one once nothing is issued under it",
                if namesakes.len() == 1 { "an anchor" } else { "anchors" },
                namesakes.join(", ")
            ),
        });
    }
    notes
}

impl From<&AnchorFinding> for AnchorNote {
    fn from(finding: &AnchorFinding) -> Self {
        Self { name: finding.as_str(), sentence: finding.to_string() }
    }
}

/// The name of the anchor with this key.
fn anchor_id(key_hash: &KeyHash) -> Option<AnchorId> {
    AnchorId::parse(&key_hash.to_string()).ok() // always: base64url is within an id's alphabet
}

/// What holds of an anchor at any time.
pub(super) fn fit(facts: &ParsedCertificate) -> Result<(), UnfitAnchor> {
    if !facts.is_version_3() {
        return Err(UnfitAnchor::Version);
    }
    // RFC 5280 §4.2.1.9: a CA's extension MUST be there, critical, with cA TRUE.
    if !matches!(facts.authority(), Authority::Certifies { critical: true, .. }) {
        return Err(UnfitAnchor::NotAnAuthority);
    }
    if facts.key_usage().is_some_and(|usage| !usage.key_cert_sign) {
        return Err(UnfitAnchor::NoKeyCertSign);
    }
    // RFC 5280 §4.2: what is critical and not recognized makes a certificate one to reject.
    if facts.has_unknown_critical_extension() {
        return Err(UnfitAnchor::CriticalExtensionUnknown);
    }
    // RFC 5280 §4.1.2.6: a CA's subject MUST NOT be empty.
    if !facts.names().is_ok_and(|names| !names.subject_text().is_empty()) {
        return Err(UnfitAnchor::Nameless);
    }
    if facts.key_strength() == KeyStrength::Insufficient {
        return Err(UnfitAnchor::WeakKey);
    }
    Ok(())
}

/// A participant's anchors as a path validator takes them.
#[derive(Debug)]
pub(super) struct AnchorSet {
    /// Those that vouch.
    pub(super) active: Anchors,
    /// Those that no longer do, so that a refusal can say so.
    pub(super) retired: Anchors,
    /// Trust domains, each by itself: its authorities vouch for its own ids and never for another's (SPIFFE Federation §7.3).
    trust_domains: Vec<(TrustDomain, Anchors)>,
}

/// Anchors: each with what it is compiled to, at the same place in both lists.
#[derive(Debug, Default)]
pub(super) struct Anchors {
    pub(super) compiled: Vec<CompiledAnchor>,
    pub(super) for_paths: Vec<PathAnchor<'static>>,
}

/// What is asked of an anchor at the end of a path.
#[derive(Clone, Debug)]
pub(super) struct CompiledAnchor {
    pub(super) id: AnchorId,
    pub(super) key_hash: KeyHash,
    pub(super) signer: Arc<Signer>,
    pub(super) not_before: UnixTime,
    pub(super) not_after: UnixTime,
    pub(super) path_length: Option<usize>,
    pub(super) name_constraint_count: usize,
    pub(super) subject_key_id: Option<Box<[u8]>>,
    /// Whose authority it is, if it is one of a bundle.
    pub(super) trust_domain: Option<TrustDomain>,
}

impl AnchorSet {
    /// Compiles the anchors of a record. One that cannot be used is set aside with its reason in the log and stops nothing.
    pub(super) fn compile(granted: &[GrantedAnchor]) -> Self {
        let mut set = Self { active: Anchors::default(), retired: Anchors::default(), trust_domains: Vec::new() };
        for GrantedAnchor { anchor, .. } in granted {
            let target = match anchor.state {
                AnchorState::Active => &mut set.active,
                AnchorState::Retired => &mut set.retired,
            };
            match &anchor.material {
                AnchorMaterial::X509 { certificate_der } => {
                    if let Err(reason) = target.push(certificate_der, &anchor.id) {
                        tracing::warn!(anchor.id = %anchor.id, %reason, "anchor set aside");
                    }
                }
                // A retired one too: what is found under it is refused for that.
                AnchorMaterial::TrustDomain { trust_domain, bundle, .. } => {
                    set.trust_domains
                        .push((trust_domain.clone(), Anchors::of_bundle(trust_domain, bundle, &anchor.id)));
                }
            }
        }
        set
    }

    /// The authorities of this id's trust domain, if it is granted.
    pub(super) fn trust_domain_of(&self, id: &SpiffeId) -> Option<&Anchors> {
        self.trust_domains.iter().find(|(trust_domain, _)| id.is_of(trust_domain)).map(|(_, anchors)| anchors)
    }

    /// Whether any trust domain is granted.
    pub(super) const fn has_trust_domains(&self) -> bool {
        !self.trust_domains.is_empty()
    }
}

impl Anchors {
    fn push(&mut self, der: &[u8], id: &AnchorId) -> Result<(), SetAside> {
        let facts = ParsedCertificate::read(der).map_err(UnfitAnchor::from)?;
        fit(&facts)?;
        if anchor_id(facts.key_hash()).as_ref() != Some(id) {
            return Err(SetAside::Misfiled);
        }
        self.add(der, &facts, id, None)
    }

    /// The X.509 authorities of a bundle; those that last longest count, where there are too many of one name.
    pub(super) fn of_bundle(trust_domain: &TrustDomain, bundle: &str, id: &AnchorId) -> Self {
        let mut anchors = Self::default();
        let bundle = match Bundle::parse(bundle.as_bytes(), trust_domain) {
            Ok(bundle) => bundle,
            Err(reason) => {
                tracing::warn!(anchor.id = %id, %reason, "bundle set aside");
                return anchors;
            }
        };
        let mut authorities: Vec<_> = bundle
            .x509_authorities
            .iter()
            .filter_map(|der| ParsedCertificate::read(der).ok().map(|facts| (der, facts)))
            .collect();
        authorities.sort_by_key(|(_, facts)| std::cmp::Reverse(facts.not_after()));
        for (der, facts) in authorities {
            if let Err(reason) = anchors.add(der, &facts, id, Some(trust_domain)) {
                tracing::warn!(anchor.id = %id, %reason, "authority of a trust domain set aside");
            }
        }
        anchors
    }

    fn add(
        &mut self,
        der: &[u8],
        facts: &ParsedCertificate,
        id: &AnchorId,
        trust_domain: Option<&TrustDomain>,
    ) -> Result<(), SetAside> {
        let der = CertificateDer::from(der);
        let for_paths = webpki::anchor_from_trusted_cert(&der).map_err(|_| UnfitAnchor::Malformed)?;
        let of_this_name = self.for_paths.iter().filter(|other| other.subject == for_paths.subject).count();
        if of_this_name >= MOST_ANCHORS_OF_ONE_NAME {
            return Err(SetAside::TooManyOfOneName);
        }
        self.for_paths.push(for_paths.to_owned());
        self.compiled.push(CompiledAnchor {
            id: id.clone(),
            key_hash: *facts.key_hash(),
            signer: Arc::new(Signer::of(facts)),
            not_before: facts.not_before(),
            not_after: facts.not_after(),
            path_length: match facts.authority() {
                Authority::Certifies { path_length, .. } => path_length,
                Authority::None => None,
            },
            name_constraint_count: facts.name_constraint_count(),
            subject_key_id: facts.subject_key_id().map(Box::from),
            trust_domain: trust_domain.cloned(),
        });
        Ok(())
    }
}

/// Why an anchor of the registry is not used.
#[derive(Debug, thiserror::Error)]
enum SetAside {
    #[error("its id is not the hash of its key")]
    Misfiled,
    #[error("there are {MOST_ANCHORS_OF_ONE_NAME} of this name already")]
    TooManyOfOneName,
    #[error(transparent)]
    Unfit(#[from] UnfitAnchor),
}

#[cfg(test)]
mod tests {
    use countersign_conformance::KeyKind;
    use countersign_conformance::pki::{
        AltName, Attribute, Authority as Made, BasicConstraints, Defect, Extension, KeyUsage, Name, Template, purpose,
    };

    use super::*;
    use crate::pki::scene::{NOW, Scene, now};

    fn check(change: impl FnOnce(&mut Template)) -> Result<Vec<AnchorFinding>, UnfitAnchor> {
        let mut template = Template::authority(Name::common("Partner A CA"), NOW);
        change(&mut template);
        check_anchor(&Made::root_with(template, KeyKind::P256, NOW).certificate, now()).map(|facts| facts.findings)
    }

    #[test]
    fn a_root_is_named_by_its_key() {
        let root = Made::root("Partner A CA", NOW);
        let facts = check_anchor(&root.certificate, now()).unwrap();
        assert_eq!(facts.id.as_str(), KeyHash::of(&root.key.spki()).to_string());
        assert_eq!((facts.subject.as_str(), facts.findings.len()), ("CN=Partner A CA", 0));
        assert_ne!(check_anchor(&root.twin().certificate, now()).unwrap().id, facts.id);
    }

    #[test]
    fn what_makes_it_unfit() {
        let version_1 = |template: &mut Template| *template = template.clone().with(Defect::Version1, NOW);
        assert_eq!(check(version_1), Err(UnfitAnchor::Version));
        assert_eq!(check(|template| template.basic_constraints = None), Err(UnfitAnchor::NotAnAuthority));
        assert_eq!(
            check(|template| template.basic_constraints = Some(BasicConstraints { ca: false, path_length: None })),
            Err(UnfitAnchor::NotAnAuthority)
        );
        assert_eq!(
            check(|template| template.key_usage = Some(vec![KeyUsage::CrlSign])),
            Err(UnfitAnchor::NoKeyCertSign)
        );
        assert_eq!(check(|template| template.key_usage = None), Ok(vec![]));
        assert_eq!(check(|template| template.subject = Name::default()), Err(UnfitAnchor::Nameless));
        let weak = Made::root("Root", NOW).issue(&Template::authority(Name::common("Weak"), NOW), KeyKind::Rsa1024);
        assert_eq!(check_anchor(weak.certificate(), now()).map(|_| ()), Err(UnfitAnchor::WeakKey));
        let unknown = Extension { oid: vec![1, 2, 3], critical: true, value: vec![5, 0] };
        assert_eq!(check(|template| template.extensions.push(unknown)), Err(UnfitAnchor::CriticalExtensionUnknown));
        assert_eq!(check(|template| template.not_after = NOW), Ok(vec![])); // its last second
        assert_eq!(check(|template| template.not_after = NOW - 1), Err(UnfitAnchor::Expired));
        assert_eq!(check_anchor(b"text", now()).map(|_| ()), Err(UnfitAnchor::Malformed));
    }

    #[test]
    fn what_an_operator_should_know() {
        assert_eq!(check(|template| template.not_before = NOW + 1), Ok(vec![AnchorFinding::NotYetValid]));
        assert_eq!(
            check(|template| template.purposes = vec![purpose::SERVER_AUTH.to_vec()]),
            Ok(vec![AnchorFinding::PurposeMissing])
        );
        assert_eq!(check(|template| template.permitted = vec![AltName::Dns("a.example".to_owned())]), Ok(vec![]));
        assert_eq!(
            check(|template| template.permitted = vec![AltName::Directory(Name::common("x"))]),
            Ok(vec![AnchorFinding::NameConstraintsUnsupported(UncheckedNames {
                directory: true,
                ..UncheckedNames::default()
            })])
        );
        let intermediate = Made::root("Root", NOW).intermediate("Issuing");
        assert_eq!(check_anchor(&intermediate.certificate, now()).unwrap().findings, [AnchorFinding::Intermediate]);
        let limited = |template: &mut Template, length| {
            template.basic_constraints = Some(BasicConstraints { ca: true, path_length: Some(length) });
        };
        assert_eq!(check(|template| limited(template, 0)), Ok(vec![AnchorFinding::NoIntermediates]));
        assert_eq!(check(|template| limited(template, 1)), Ok(vec![]));
        const TWENTY_YEARS: i64 = 20 * 365 * 86_400;
        assert_eq!(check(|template| template.not_after = NOW + TWENTY_YEARS), Ok(vec![]));
        assert_eq!(check(|template| template.not_after = NOW + TWENTY_YEARS + 1), Ok(vec![AnchorFinding::LongLived]));
    }

    #[test]
    fn constraints_that_nobody_checks_are_told_by_kind() {
        let sentence = |names: Vec<AltName>| {
            let findings = check(|template| template.excluded = names).unwrap();
            findings.iter().map(ToString::to_string).collect::<Vec<_>>().join("; ")
        };
        assert_eq!(sentence(vec![AltName::Dns("a.example".to_owned()), AltName::Raw(0x87, vec![0; 8])]), "");
        let uri = AltName::Uri("a.example".to_owned());
        let email = AltName::Email("a.example".to_owned());
        assert_eq!(
            sentence(vec![uri.clone()]),
            "its name constraints concern URIs, which are not compared here: every certificate under it that has such a name \
             is refused, be it permitted or not"
        );
        assert!(sentence(vec![email.clone(), uri.clone()]).contains("e-mail addresses and URIs, which"));
        assert!(sentence(vec![AltName::Raw(0x88, vec![42])]).contains("names of other kinds"));
        let directory = AltName::Directory(Name::common("x"));
        assert!(
            sentence(vec![uri, directory]).ends_with(
                "directory names and URIs, which are not compared here: every certificate under it is refused"
            )
        );
    }

    #[test]
    fn a_public_ca_is_known_by_its_key_and_what_it_issued_by_its_name() {
        let public = |der: &[u8]| check_anchor(der, now()).unwrap().findings.contains(&AnchorFinding::Public);
        let signer = Made::root("Partner A CA", NOW);
        let template = Template::authority(Name::common("Whatever it calls itself"), NOW);
        for root in webpki_roots::TLS_SERVER_ROOTS {
            let key = countersign_conformance::der::tlv(0x30, &root.subject_public_key_info);
            let certificate = signer.sign(&template, &key);
            if ParsedCertificate::read(&certificate).unwrap().key_strength() == KeyStrength::Sufficient {
                assert!(public(&certificate), "{:?}", root.subject);
            }
        }
        let printable =
            |kind, value| vec![Attribute::new(kind, value).tagged(countersign_conformance::der::tag::PRINTABLE_STRING)];
        let issuer = Name(vec![
            printable("C", "US"),
            printable("O", "Internet Security Research Group"),
            printable("CN", "ISRG Root X1"),
        ]);
        let issued = Template { issuer: Some(issuer), ..template };
        assert!(public(&signer.sign(&issued, &signer.key.spki())));
        assert!(!public(&signer.certificate));
    }

    #[test]
    fn small_keys_and_old_signatures() {
        let rsa = |kind, not_after| {
            let template = Template { not_after, ..Template::authority(Name::common("RSA"), NOW) };
            Made::root_with(template, kind, NOW).certificate
        };
        let findings = |der: &[u8]| check_anchor(der, now()).unwrap().findings;
        const END_OF_2030: i64 = 1_924_991_999;
        assert_eq!(findings(&rsa(KeyKind::Rsa2048, END_OF_2030)), []);
        let small = rsa(KeyKind::Rsa2048, END_OF_2030 + 1);
        assert_eq!(findings(&small), [AnchorFinding::SmallKey]);
        assert_eq!(findings(&rsa(KeyKind::Rsa3072, END_OF_2030 + 1)), []);
        // sha256WithRSAEncryption to sha1WithRSAEncryption, inside and out.
        let mut old = small;
        let with_sha256 = [0x2A, 0x86, 0x48, 0x86, 0xF7, 0x0D, 1, 1, 11];
        for at in 0..old.len() - with_sha256.len() {
            if old[at..].starts_with(&with_sha256) {
                old[at + 8] = 5;
            }
        }
        assert_eq!(findings(&old), [AnchorFinding::SignatureOutdated, AnchorFinding::SmallKey]);
    }

    fn on_record(certificate: &[u8], owner: AnchorOwner) -> TrustAnchor {
        let any = NameSpace { any: true, ..NameSpace::default() };
        let scene = Scene::new("partner-a").granting(certificate, |anchor| anchor.owner = owner, any);
        TrustAnchor::clone(&scene.record.anchors[0].anchor)
    }

    fn names_of(notes: &[AnchorNote]) -> Vec<&'static str> {
        notes.iter().map(|note| note.name).collect()
    }

    #[test]
    fn what_there_is_to_say_of_an_anchor_on_record_is_said_as_of_now() {
        let mut template = Template::authority(Name::common("Partner A CA"), NOW);
        (template.not_before, template.not_after) = (NOW - 1, NOW + 1);
        let root = Made::root_with(template, KeyKind::P256, NOW);
        let mut anchor = on_record(&root.certificate, AnchorOwner::Operator);
        let at = |anchor: &TrustAnchor, seconds| names_of(&notes(anchor, UnixTime::from_seconds(seconds)));
        assert_eq!(at(&anchor, NOW - 2), ["not_yet_valid"]);
        assert_eq!(at(&anchor, NOW + 1), [""; 0]);
        assert_eq!(at(&anchor, NOW + 2), ["expired"]);
        let AnchorMaterial::X509 { certificate_der } = &mut anchor.material else { panic!("no certificate") };
        certificate_der.pop();
        assert_eq!(at(&anchor, NOW), ["unfit"]);
    }

    #[test]
    fn what_there_is_to_say_of_a_grant() {
        let (old, new) = (Made::root("Partner CA", NOW), Made::root("Partner CA", NOW));
        let participant = || AnchorOwner::Participant(crate::registry::ParticipantId::parse("partner-a").unwrap());
        let (shared, own) =
            (on_record(&old.certificate, AnchorOwner::Operator), on_record(&new.certificate, participant()));
        let any = NameSpace { any: true, ..NameSpace::default() };
        let narrow = NameSpace { dns_suffixes: vec!["a.example".to_owned()], ..NameSpace::default() };
        let said = |anchor: &TrustAnchor, names: &NameSpace, others: &[TrustAnchor]| {
            names_of(&grant_notes(anchor, names, others, now()))
        };
        assert_eq!(said(&shared, &any, &[]), ["any_name_shared"]);
        assert_eq!(said(&shared, &narrow, &[]), [""; 0]);
        assert_eq!(said(&own, &any, &[]), [""; 0]);
        assert_eq!(said(&own, &narrow, &[shared.clone(), own.clone()]), ["same_name_other_key"]);
        let retired = TrustAnchor { state: AnchorState::Retired, ..shared };
        let other = on_record(&Made::root("Another CA", NOW).certificate, participant());
        assert_eq!(said(&own, &narrow, &[retired, other]), [""; 0]);
        // A public CA, whoever it is said to belong to.
        let key = countersign_conformance::der::tlv(0x30, &webpki_roots::TLS_SERVER_ROOTS[0].subject_public_key_info);
        let public = old.sign(&Template::authority(Name::common("Partner CA"), NOW), &key);
        let public = on_record(&public, participant());
        assert_eq!(said(&public, &any, &[]), ["any_name_public"]);
        assert_eq!(said(&public, &narrow, &[]), [""; 0]);
    }

    #[test]
    fn at_most_eight_of_one_name() {
        let mut scene = Scene::new("partner-a").trusting(&Made::root("Another", NOW));
        for _ in 0..=MOST_ANCHORS_OF_ONE_NAME {
            scene = scene.trusting(&Made::root("Same", NOW));
        }
        let set = AnchorSet::compile(&scene.record.anchors);
        assert_eq!(set.active.compiled.len(), 1 + MOST_ANCHORS_OF_ONE_NAME);
        assert_eq!(set.active.for_paths.len(), set.active.compiled.len());
    }
}
