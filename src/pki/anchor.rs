//! Who may vouch for names: a participant's trust anchors, ready for path validation.
//!
//! Takes the anchors that the registry has granted, gives an [`AnchorSet`] that is compiled once per set; and, before an
//! anchor is enrolled, says what is wrong with it ([`check_anchor`]). It knows nothing of clients.

use std::sync::Arc;

use countersign_resource_server::time::UnixTime;
use rustls_pki_types::{CertificateDer, TrustAnchor as PathAnchor};

use super::bundle::Bundle;
use super::certificate::{Authority, KeyStrength, MalformedCertificate, NameConstraints, ParsedCertificate, Purposes};
use super::signature::Signer;
use super::spiffe::{SpiffeId, TrustDomain};
use crate::registry::GrantedAnchor;
use crate::registry::trust_anchor::{AnchorMaterial, AnchorState};
use crate::registry::{AnchorId, KeyHash};

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

/// What does not stop an anchor from vouching but may surprise.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AnchorFinding {
    /// It has name constraints that cannot be checked.
    #[error(
        "its name constraints concern directory names, URIs or e-mail addresses: certificates with such names are refused, \
         with directory names all of them"
    )]
    NameConstraintsUnsupported,
    /// It is not yet valid.
    #[error("it is not valid yet: until then it vouches for nothing")]
    NotYetValid,
    /// Its extended key usage leaves clientAuth out.
    #[error("its extended key usage leaves clientAuth out")]
    PurposeMissing,
    /// The certificate was issued by somebody else: the path ends here all the same, and its issuer's word does not count.
    #[error("it is an intermediate: paths end at it, and whether its own issuer still stands by it is not asked")]
    Intermediate,
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
    let mut findings = Vec::new();
    if facts.name_constraints() == NameConstraints::Unsupported {
        findings.push(AnchorFinding::NameConstraintsUnsupported);
    }
    if facts.not_before() > now {
        findings.push(AnchorFinding::NotYetValid);
    }
    if facts.purposes() == Purposes::Others {
        findings.push(AnchorFinding::PurposeMissing);
    }
    if !facts.is_self_issued() {
        findings.push(AnchorFinding::Intermediate);
    }
    Ok(AnchorFacts {
        id: anchor_id(facts.key_hash()).ok_or(UnfitAnchor::Malformed)?,
        subject: facts.subject_text().to_owned(),
        subject_der: facts.subject_der().to_owned(),
        not_before: facts.not_before(),
        not_after: facts.not_after(),
        findings,
    })
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
        AltName, Authority as Made, BasicConstraints, Defect, Extension, KeyUsage, Name, Template, purpose,
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
            Ok(vec![AnchorFinding::NameConstraintsUnsupported])
        );
        let intermediate = Made::root("Root", NOW).intermediate("Issuing");
        assert_eq!(check_anchor(&intermediate.certificate, now()).unwrap().findings, [AnchorFinding::Intermediate]);
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
