//! What may vouch for names: trust anchors, by key and per participant.

use serde::{Deserialize, Serialize};

use super::{AnchorId, ParticipantId};
use crate::pki::spiffe::{SpiffeId, TrustDomain};

/// What may vouch for the names of participants it is granted to.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TrustAnchor {
    /// The hash of its key, or the name of its trust domain.
    pub id: AnchorId,
    /// What it vouches with.
    #[serde(flatten)]
    pub material: AnchorMaterial,
    /// Its subject for people; never compared.
    pub subject: String,
    /// Who brought it.
    pub owner: AnchorOwner,
    /// What its leaves must say about their purpose.
    pub eku_policy: EkuPolicy,
    /// What a certificate of unknown revocation status means, where `revocation` names a source (RFC 5280 §6.3).
    pub unknown_revocation: Unknown,
    /// Where it and those it certified say which certificates they take back. Without a source, the registry's own
    /// revocations are all that counts.
    #[serde(default, skip_serializing_if = "RevocationSources::is_empty")]
    pub revocation: RevocationSources,
    /// Whether it vouches at all.
    pub state: AnchorState,
}

impl TrustAnchor {
    /// Whether `after` could refuse what this one accepts.
    pub fn is_narrowed_by(&self, after: &Self) -> bool {
        self.material.octets() != after.material.octets()
            || after.eku_policy > self.eku_policy
            || after.unknown_revocation > self.unknown_revocation
            || (self.revocation != after.revocation && !after.revocation.is_empty())
    }
}

/// What an anchor vouches with.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum AnchorMaterial {
    /// An X.509 CA, root or intermediate.
    X509 {
        /// The certificate it was enrolled with, in DER.
        #[serde(with = "super::trust_anchor::base64_der")]
        certificate_der: Vec<u8>,
    },
    /// A SPIFFE trust domain.
    TrustDomain {
        /// Its name.
        trust_domain: TrustDomain,
        /// Where its bundle is fetched from, again and again.
        endpoint: BundleEndpoint,
        /// Its bundle, as it came: in the record, so that every node has the same one, a restart keeps it, and each change
        /// is in the history.
        bundle: String,
    },
}

/// Where a trust domain's bundle comes from (SPIFFE Federation §5.1, §5.2).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "profile", rename_all = "snake_case")]
pub enum BundleEndpoint {
    /// The operator brings it, and brings the next one.
    File,
    /// An HTTPS server that is believed by the certificate authorities the system trusts.
    HttpsWeb {
        /// The bundle's URL.
        url: String,
    },
    /// An HTTPS server that is believed by its X509-SVID.
    HttpsSpiffe {
        /// The bundle's URL.
        url: String,
        /// Which SPIFFE ID the server has: of this trust domain, or of another whose bundle is held.
        endpoint_spiffe_id: SpiffeId,
    },
}

impl BundleEndpoint {
    /// The bundle's URL, where there is one.
    pub fn url(&self) -> Option<&str> {
        match self {
            Self::File => None,
            Self::HttpsWeb { url } | Self::HttpsSpiffe { url, .. } => Some(url),
        }
    }

    /// The name of the profile.
    pub const fn profile(&self) -> &'static str {
        match self {
            Self::File => "file",
            Self::HttpsWeb { .. } => "https_web",
            Self::HttpsSpiffe { .. } => "https_spiffe",
        }
    }
}

impl AnchorMaterial {
    /// All of it as octets, the same for the same material and for no other: what a remembered path was validated under.
    pub fn octets(&self) -> &[u8] {
        match self {
            Self::X509 { certificate_der } => certificate_der,
            Self::TrustDomain { bundle, .. } => bundle.as_bytes(),
        }
    }

    /// The trust domain's name, if it is one's.
    pub const fn trust_domain(&self) -> Option<&TrustDomain> {
        match self {
            Self::X509 { .. } => None,
            Self::TrustDomain { trust_domain, .. } => Some(trust_domain),
        }
    }
}

/// Where an anchor's revocations are published.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct RevocationSources {
    /// Revocation lists (RFC 5280 §5).
    pub crls: Vec<CrlSource>,
    /// How the URLs begin that a certificate's CRL distribution points may be fetched from; none are without.
    pub crl_url_prefixes: Vec<String>,
    /// Whether and how its certificates' status is asked for (RFC 6960).
    pub ocsp: Option<OcspPolicy>,
}

impl RevocationSources {
    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }
}

/// One place where revocation lists come from.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CrlSource {
    /// A file, a directory of files, or an `http`, `https` URL.
    pub location: String,
    /// The CA certificate, in DER, whose key signs these lists, where it is not the anchor's own: an intermediate that
    /// the anchor has certified.
    #[serde(default, skip_serializing_if = "Option::is_none", with = "super::trust_anchor::optional_base64_der")]
    pub issuer_der: Option<Vec<u8>>,
}

/// How certificate status is asked for.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct OcspPolicy {
    /// The responder for every certificate under this anchor; otherwise the one a certificate names, if allowed.
    pub responder_url: Option<String>,
    /// How the URLs begin that a certificate's authority information access may send us to; none do without.
    pub url_prefixes: Vec<String>,
    /// What the answer `unknown` means.
    pub unknown: Unknown,
    /// What it means that no good answer came in time.
    pub unreachable: Unknown,
    /// What it means that an answer does not say which request it answers.
    #[serde(default)]
    pub nonce: NoncePolicy,
}

/// Whether a status answer has to repeat the nonce of its request (RFC 6960 §4.4.1). One that repeats another is never taken.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum NoncePolicy {
    /// It may leave it out, as responders do that sign beforehand (RFC 5019 §4): then its dates bound how old it can be.
    #[default]
    IfPresent,
    /// It must repeat it.
    Required,
}

/// Who an anchor belongs to: exactly one participant, or the operator, who may share it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum AnchorOwner {
    /// The operator of this server.
    Operator,
    /// One participant.
    Participant(ParticipantId),
}

/// Whether a leaf must carry the extended key usage clientAuth (RFC 5280 §4.2.1.12).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum EkuPolicy {
    /// Any purpose will do.
    Any,
    /// If the extension is there, it must say clientAuth.
    IfPresent,
    /// The extension must be there and say clientAuth. The default.
    Required,
}

/// What to do when revocation status is not known.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Unknown {
    /// Let it pass: the registry's own revocations are all that counts.
    Accept,
    /// Refuse.
    Refuse,
}

/// The states of a trust anchor.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum AnchorState {
    /// Vouches.
    Active,
    /// Vouches for nothing any more.
    Retired,
}

impl AnchorState {
    /// Every state.
    pub const ALL: [Self; 2] = [Self::Active, Self::Retired];

    /// The name in stores, histories and commands.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Active => "active",
            Self::Retired => "retired",
        }
    }

    /// The table of states: whether this one may be followed by `next`.
    pub const fn can_become(self, next: Self) -> bool {
        matches!((self, next), (Self::Active, Self::Retired))
    }
}

/// An anchor as it is granted to one participant.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct AnchorGrant {
    /// Whose names it vouches for.
    pub participant_id: ParticipantId,
    /// The anchor.
    pub anchor_id: AnchorId,
    /// Which names.
    pub name_space: NameSpace,
}

/// The names an anchor may vouch for, for one participant. Empty vouches for nothing; `any` has to be said.
///
/// Texts are canonical: `pki::identity` reads and writes them.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct NameSpace {
    /// Every name of every kind.
    pub any: bool,
    /// Subject DNs that end (on the side of the root) in one of these, written by RFC 4514.
    pub dn_suffixes: Vec<String>,
    /// DNS names equal to or below one of these, and e-mail addresses at such a name.
    pub dns_suffixes: Vec<String>,
    /// URIs that begin with one of these.
    pub uri_prefixes: Vec<String>,
}

impl NameSpace {
    /// Whether every name inside `other` is, for all that the two texts say, inside this one too.
    ///
    /// Errs on the side of no: a suffix counts as covered only by the same suffix.
    pub fn covers(&self, other: &Self) -> bool {
        let all_of = |own: &[String], others: &[String]| others.iter().all(|text| own.contains(text));
        self.any
            || (!other.any
                && all_of(&self.dn_suffixes, &other.dn_suffixes)
                && all_of(&self.dns_suffixes, &other.dns_suffixes)
                && all_of(&self.uri_prefixes, &other.uri_prefixes))
    }
}

/// DER as standard base64 in JSON.
pub(crate) mod base64_der {
    use base64::Engine;
    use base64::engine::general_purpose::STANDARD;
    use serde::{Deserialize, Deserializer, Serializer};

    pub(crate) fn serialize<S: Serializer>(der: &[u8], serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&STANDARD.encode(der))
    }

    pub(crate) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<u8>, D::Error> {
        let text = <std::borrow::Cow<'_, str>>::deserialize(deserializer)?;
        STANDARD.decode(text.as_bytes()).map_err(serde::de::Error::custom)
    }
}

/// The same, where there may be none.
pub(crate) mod optional_base64_der {
    use serde::{Deserialize, Deserializer, Serializer};

    pub(crate) fn serialize<S: Serializer>(der: &Option<Vec<u8>>, serializer: S) -> Result<S::Ok, S::Error> {
        match der {
            Some(der) => super::base64_der::serialize(der, serializer),
            None => serializer.serialize_none(),
        }
    }

    pub(crate) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Vec<u8>>, D::Error> {
        #[derive(Deserialize)]
        struct Der(#[serde(with = "super::base64_der")] Vec<u8>);
        Ok(Option::<Der>::deserialize(deserializer)?.map(|Der(der)| der))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_edge_of_the_state_table() {
        for from in AnchorState::ALL {
            for to in AnchorState::ALL {
                let edge = from == AnchorState::Active && to == AnchorState::Retired;
                assert_eq!(from.can_become(to), edge, "{from:?} -> {to:?}");
            }
        }
    }

    #[test]
    fn a_name_space_covers_what_it_lists_and_no_more() {
        let dns = |suffixes: &[&str]| NameSpace {
            dns_suffixes: suffixes.iter().map(|&suffix| suffix.to_owned()).collect(),
            ..NameSpace::default()
        };
        let any = NameSpace { any: true, ..NameSpace::default() };
        assert!(any.covers(&dns(&["a.example"])));
        assert!(!dns(&["a.example"]).covers(&any));
        assert!(dns(&["a.example", "b.example"]).covers(&dns(&["a.example"])));
        assert!(!dns(&["a.example"]).covers(&dns(&["a.example", "b.example"])));
        assert!(dns(&["a.example"]).covers(&NameSpace::default()));
    }
}
