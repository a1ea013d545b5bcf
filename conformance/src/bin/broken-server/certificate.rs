//! What a certificate says, and who vouches for it.

use rustls_pki_types::{CertificateDer, SubjectPublicKeyInfoDer};
use sha2::{Digest, Sha256};
use webpki::RawPublicKeyEntity;
use x509_parser::prelude::{FromDer, X509Certificate};

use crate::defect::{Broken, Defect};
use crate::world::World;

/// The attributes of a name: type and value, in order (RFC 5280 §4.1.2.4), whatever string type they were written in.
pub(crate) type Subject = Vec<(String, String)>;

/// Who is at the other end of a connection: proven to hold the key of the first of these certificates.
#[derive(Clone, Debug)]
pub(crate) struct Peer {
    chain: Vec<CertificateDer<'static>>,
}

impl Peer {
    /// The holder of this chain's first certificate.
    pub(crate) fn of(chain: &[CertificateDer<'_>]) -> Option<Self> {
        (!chain.is_empty()).then(|| Self { chain: chain.iter().map(|one| one.clone().into_owned()).collect() })
    }

    /// The certificate.
    pub(crate) fn certificate(&self) -> &CertificateDer<'static> {
        &self.chain[0]
    }

    /// SHA-256 of the certificate's DER (RFC 8705 §3.1).
    pub(crate) fn digest(&self) -> Vec<u8> {
        Sha256::digest(self.certificate()).to_vec()
    }
}

/// The subject's attributes.
pub(crate) fn subject(certificate: &CertificateDer<'_>) -> Option<Subject> {
    let (_, certificate) = X509Certificate::from_der(certificate).ok()?;
    certificate
        .subject()
        .iter_attributes()
        .map(|attribute| Some((attribute.attr_type().to_id_string(), attribute.as_str().ok()?.to_owned())))
        .collect()
}

/// The certificate's SubjectPublicKeyInfo.
pub(crate) fn public_key(certificate: &[u8]) -> Option<Vec<u8>> {
    let (_, certificate) = X509Certificate::from_der(certificate).ok()?;
    Some(certificate.public_key().raw.to_vec())
}

/// Whether the chain leads to the authority that vouches for clients (RFC 8705 §2.1: a valid certificate chain).
pub(crate) fn is_vouched_for(peer: &Peer, world: &World, now: i64) -> bool {
    if world.broken.is(Defect::AcceptsAnyCertificate) {
        return true;
    }
    // RFC 5280 §4.1: one DER value, and nothing behind it.
    let read = |der| {
        let (rest, certificate) = X509Certificate::from_der(der).ok()?;
        (rest.is_empty() || world.broken.is(Defect::TrailingOctetIgnored)).then_some(certificate)
    };
    let Some(root) = read(&world.client_root) else { return false };
    let Some(mut path) = peer.chain.iter().map(|der| read(der)).collect::<Option<Vec<_>>>() else { return false };
    // A root that comes along vouches for nothing that the one held does not.
    path.retain(|certificate| certificate.as_raw() != root.as_raw());
    path.push(root);
    let Some((leaf, above)) = path.split_first() else { return false };
    may_authenticate_clients(leaf, &world.broken)
        && path.iter().all(|certificate| is_in_force(certificate, &world.broken, now))
        && above.iter().enumerate().all(|(below, certificate)| may_issue(certificate, below, &world.broken))
        && path.windows(2).all(|pair| has_issued(&pair[1], &pair[0], &world.broken))
}

/// RFC 5280 §6.1.3 (a) (1) and (4): name and signature.
fn has_issued(issuer: &X509Certificate<'_>, issued: &X509Certificate<'_>, broken: &Broken) -> bool {
    issuer.subject().as_raw() == issued.issuer().as_raw()
        && (broken.is(Defect::AcceptsTwinAuthority)
            || broken.is(Defect::CertificateSignatureNotChecked)
            || signature_holds(issuer, issued))
}

fn signature_holds(issuer: &X509Certificate<'_>, issued: &X509Certificate<'_>) -> bool {
    let key = SubjectPublicKeyInfoDer::from(issuer.public_key().raw);
    let Ok(key) = RawPublicKeyEntity::try_from(&key) else { return false };
    let (content, signature) = (issued.tbs_certificate.as_ref(), &issued.signature_value.data);
    webpki::ALL_VERIFICATION_ALGS.iter().any(|algorithm| key.verify_signature(*algorithm, content, signature).is_ok())
}

/// RFC 5280 §6.1.3 (a) (2), §6.1.4 (o): dates, and nothing critical that is not understood.
fn is_in_force(certificate: &X509Certificate<'_>, broken: &Broken, now: i64) -> bool {
    let validity = certificate.validity();
    let undated = broken.is(Defect::CertificateDatesIgnored);
    let begun = validity.not_before.timestamp() <= now || undated || broken.is(Defect::AcceptsFutureCertificate);
    let not_ended = now <= validity.not_after.timestamp() || undated || broken.is(Defect::AcceptsExpiredCertificate);
    // basicConstraints, keyUsage, extendedKeyUsage, subjectAltName. RFC 5280 §4.2: none of them twice.
    const UNDERSTOOD: &[&str] = &["2.5.29.19", "2.5.29.15", "2.5.29.37", "2.5.29.17"];
    let understood = certificate
        .extensions()
        .iter()
        .all(|extension| !extension.critical || UNDERSTOOD.contains(&extension.oid.to_id_string().as_str()))
        || broken.is(Defect::CriticalExtensionIgnored);
    let once = certificate.extensions_map().is_ok() || broken.is(Defect::ExtensionTwiceAccepted);
    begun && not_ended && understood && once
}

/// RFC 5280 §6.1.4 (k) to (n): an authority, not too far up, that may sign certificates.
fn may_issue(certificate: &X509Certificate<'_>, below: usize, broken: &Broken) -> bool {
    let constraints = certificate.basic_constraints().ok().flatten().map(|extension| extension.value);
    let is_authority = constraints.is_some_and(|constraints| {
        constraints.ca
            && constraints
                .path_len_constraint
                .is_none_or(|length| usize::try_from(length).is_ok_and(|most| below <= most))
    });
    let may_sign = certificate.key_usage().ok().flatten().is_none_or(|usage| usage.value.key_cert_sign());
    is_authority && may_sign || broken.is(Defect::AcceptsLeafAsAuthority)
}

/// RFC 5280 §4.2.1.3 and §4.2.1.12: a key that may sign, for clients; where it is said at all.
fn may_authenticate_clients(leaf: &X509Certificate<'_>, broken: &Broken) -> bool {
    let may_sign = leaf.key_usage().ok().flatten().is_none_or(|usage| usage.value.digital_signature());
    let for_clients =
        leaf.extended_key_usage().ok().flatten().is_none_or(|purpose| purpose.value.any || purpose.value.client_auth);
    (may_sign || broken.is(Defect::KeyUsageIgnored)) && (for_clients || broken.is(Defect::AcceptsServerCertificate))
}
