//! What does not stop an anchor from vouching but may surprise whoever enrols it.
//!
//! Takes a CA's certificate that is fit to be an anchor, gives findings in words. It knows nothing of what else is granted.

use std::fmt;

use countersign_resource_server::time::UnixTime;
use countersign_resource_server::token::jwks::KeyMaterial;

use crate::pki::certificate::{Authority, NameConstraints, ParsedCertificate, Purposes, key_material};
use crate::pki::der;

/// Something the operator should know before trusting an anchor.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AnchorFinding {
    /// The certificate was issued by somebody else: the path ends here all the same, and its issuer's word does not count.
    #[error("it is an intermediate: paths end at it, and whether its own issuer still stands by it is not asked")]
    Intermediate,
    /// Its validity ends in a long time.
    #[error("it is valid for more than twenty years from now: nobody will be reminded that its key is old")]
    LongLived,
    /// It has name constraints that cannot be checked.
    #[error("its name constraints concern {0}")]
    NameConstraintsUnsupported(UncheckedNames),
    /// It may have no intermediates below it.
    #[error(
        "its path length is zero: clients' certificates have to be issued by it directly, an intermediate below it is refused"
    )]
    NoIntermediates,
    /// It is not yet valid.
    #[error("it is not valid yet: until then it vouches for nothing")]
    NotYetValid,
    /// It, or whoever issued it, is among the CAs that browsers trust.
    #[error(
        "this is a public CA of browsers, or was issued by one: it vouches for anyone who pays, and such CAs no longer \
         issue certificates for client authentication; share it only with a narrow name space, and never with any name"
    )]
    Public,
    /// Its extended key usage leaves clientAuth out.
    #[error(
        "its extended key usage leaves clientAuth out: it says of itself that it issues certificates for something else"
    )]
    PurposeMissing,
    /// It is signed with SHA-1 or MD5.
    #[error(
        "it is signed with SHA-1 or MD5: of an anchor nobody checks that, but certificates it signs the same way are refused"
    )]
    SignatureOutdated,
    /// Its RSA key is of a size that will not be thought enough for as long as it is valid.
    #[error(
        "its RSA key has fewer than 3072 bits, which is thought enough until 2030 (NIST SP 800-57), and it is valid for longer"
    )]
    SmallKey,
}

impl AnchorFinding {
    /// Its name in lists and for machines.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Intermediate => "intermediate",
            Self::LongLived => "long_lived",
            Self::NameConstraintsUnsupported(_) => "name_constraints_unsupported",
            Self::NoIntermediates => "no_intermediates",
            Self::NotYetValid => "not_yet_valid",
            Self::Public => "public",
            Self::PurposeMissing => "purpose_missing",
            Self::SignatureOutdated => "signature_outdated",
            Self::SmallKey => "small_key",
        }
    }
}

/// Kinds of names that name constraints can concern and nothing here compares.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct UncheckedNames {
    /// directoryName
    pub directory: bool,
    /// rfc822Name
    pub email: bool,
    /// Any other but dNSName and iPAddress.
    pub other: bool,
    /// uniformResourceIdentifier
    pub uri: bool,
}

impl fmt::Display for UncheckedNames {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let kinds: Vec<&str> = [
            (self.directory, "directory names"),
            (self.email, "e-mail addresses"),
            (self.uri, "URIs"),
            (self.other, "names of other kinds"),
        ]
        .into_iter()
        .filter_map(|(concerned, kind)| concerned.then_some(kind))
        .collect();
        write!(f, "{}, which are not compared here: ", kinds.join(" and "))?;
        // Every certificate has a subject, hence a directory name.
        f.write_str(if self.directory {
            "every certificate under it is refused"
        } else {
            "every certificate under it that has such a name is refused, be it permitted or not"
        })
    }
}

/// Twenty years.
const LONG_SECONDS: i64 = 20 * 365 * 86_400;

/// 2031-01-01: until the end of 2030 an RSA key of 2048 bits is thought enough (NIST SP 800-57 part 1, table 4).
const END_OF_SMALL_KEYS: i64 = 1_924_992_000;

/// What there is to say of this certificate now.
pub(super) fn find(der: &[u8], facts: &ParsedCertificate, now: UnixTime) -> Vec<AnchorFinding> {
    let is_small = matches!(key_material(der), Some(KeyMaterial::Rsa { n, .. }) if n.len() < 3072 / 8);
    let ends = facts.not_after().as_seconds();
    let unchecked = match facts.name_constraints() {
        NameConstraints::Unsupported(names) => Some(AnchorFinding::NameConstraintsUnsupported(names)),
        NameConstraints::Absent | NameConstraints::Honoured => None,
    };
    let when = |holds: bool, finding| holds.then_some(finding);
    [
        when(is_public(der), AnchorFinding::Public),
        unchecked,
        when(facts.not_before() > now, AnchorFinding::NotYetValid),
        when(facts.purposes() == Purposes::Others, AnchorFinding::PurposeMissing),
        when(!facts.is_self_issued(), AnchorFinding::Intermediate),
        when(
            matches!(facts.authority(), Authority::Certifies { path_length: Some(0), .. }),
            AnchorFinding::NoIntermediates,
        ),
        when(is_signed_by_old_means(der), AnchorFinding::SignatureOutdated),
        when(is_small && ends >= END_OF_SMALL_KEYS, AnchorFinding::SmallKey),
        when(ends - now.as_seconds() > LONG_SECONDS, AnchorFinding::LongLived),
    ]
    .into_iter()
    .flatten()
    .collect()
}

/// The parts of a certificate that tell whose it is (RFC 5280 §4.1): the contents of the issuer's SEQUENCE, of the
/// SubjectPublicKeyInfo's, and of the AlgorithmIdentifier of its signature.
struct Origin<'a> {
    issuer: &'a [u8],
    key: &'a [u8],
    algorithm: &'a [u8],
}

impl<'a> Origin<'a> {
    fn of(der: &'a [u8]) -> Result<Self, der::NotDer> {
        let mut frame = der::whole(der, der::SEQUENCE)?;
        let mut fields = der::expect(&mut frame, der::SEQUENCE)?;
        let algorithm = der::expect(&mut frame, der::SEQUENCE)?;
        if fields.first() == Some(&0xA0) {
            der::take(&mut fields)?; // version
        }
        der::expect(&mut fields, der::INTEGER)?;
        der::expect(&mut fields, der::SEQUENCE)?; // signature
        let issuer = der::expect(&mut fields, der::SEQUENCE)?;
        der::expect(&mut fields, der::SEQUENCE)?; // validity
        der::expect(&mut fields, der::SEQUENCE)?; // subject
        let key = der::expect(&mut fields, der::SEQUENCE)?;
        Ok(Self { issuer, key, algorithm })
    }
}

/// Whether its key is that of a CA in Mozilla's list, or its issuer has the name of one: whoever takes the trouble to
/// imitate such a name is warned of in the same words.
fn is_public(der: &[u8]) -> bool {
    let Ok(origin) = Origin::of(der) else { return false };
    webpki_roots::TLS_SERVER_ROOTS
        .iter()
        .any(|root| root.subject_public_key_info.as_ref() == origin.key || root.subject.as_ref() == origin.issuer)
}

fn is_signed_by_old_means(der: &[u8]) -> bool {
    const OLD: [&[u8]; 4] = [
        &[0x2A, 0x86, 0x48, 0x86, 0xF7, 0x0D, 1, 1, 4], // md5WithRSAEncryption
        &[0x2A, 0x86, 0x48, 0x86, 0xF7, 0x0D, 1, 1, 5], // sha1WithRSAEncryption
        &[0x2A, 0x86, 0x48, 0xCE, 0x3D, 4, 1],          // ecdsa-with-SHA1
        &[0x2B, 0x0E, 3, 2, 29],                        // sha1WithRSA, of OIW
    ];
    let Ok(Origin { mut algorithm, .. }) = Origin::of(der) else { return false };
    der::expect(&mut algorithm, der::OBJECT_IDENTIFIER).is_ok_and(|kind| OLD.contains(&kind))
}
