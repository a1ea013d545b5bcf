//! SPIFFE IDs and trust domain names, and which one a certificate carries (SPIFFE-ID, X509-SVID §2).
//!
//! Takes text or the contents of a subjectAltName extension, gives [`SpiffeId`] and [`TrustDomain`]. An id has one
//! spelling here, so that it is compared as text: SPIFFE-ID §2.1 wants the trust domain in lower case, §2.4 would have
//! readers pass over case; what is not written as §2.1 says is no SPIFFE ID. It knows nothing of who vouches for an id.

use std::fmt;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::certificate::ParsedCertificate;
use super::{PeerRefusal, der};

/// What every SPIFFE ID begins with.
const SCHEME: &str = "spiffe://";

/// SPIFFE-ID §2.3: longer ones nobody has to support.
const LONGEST_ID_BYTES: usize = 2048;

/// SPIFFE-ID §2.3, after RFC 3986 §3.2.2.
const LONGEST_TRUST_DOMAIN_BYTES: usize = 255;

/// The name of a trust domain (SPIFFE-ID §2.1). It may look like a DNS name or an IPv4 address and is neither.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TrustDomain(String);

/// The name of a workload: a trust domain and a path (SPIFFE-ID §2), or the trust domain itself, without one.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SpiffeId {
    text: String,
    /// Where the path begins, if there is one.
    path_from: usize,
}

/// The text is no SPIFFE ID, or no trust domain's name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct MalformedSpiffeId(&'static str);

impl TrustDomain {
    /// Reads a name, without scheme.
    ///
    /// # Errors
    /// [`MalformedSpiffeId`] with what is wrong.
    pub fn parse(text: &str) -> Result<Self, MalformedSpiffeId> {
        if text.is_empty() || text.len() > LONGEST_TRUST_DOMAIN_BYTES {
            return Err(MalformedSpiffeId("a trust domain has 1 to 255 characters"));
        }
        // SPIFFE-ID §2.1: neither user information nor port nor percent signs; a name is not read as DNS or IP would be.
        if !text.bytes().all(|octet| matches!(octet, b'a'..=b'z' | b'0'..=b'9' | b'.' | b'-' | b'_')) {
            return Err(MalformedSpiffeId("a trust domain has lower-case letters, digits and . - _ only, and no port"));
        }
        Ok(Self(text.to_owned()))
    }

    /// The name.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// What every id in it begins with.
    pub fn prefix(&self) -> String {
        format!("{SCHEME}{}/", self.0)
    }
}

impl SpiffeId {
    /// Reads an id.
    ///
    /// # Errors
    /// [`MalformedSpiffeId`] with what is wrong.
    pub fn parse(text: &str) -> Result<Self, MalformedSpiffeId> {
        if text.len() > LONGEST_ID_BYTES {
            return Err(MalformedSpiffeId("a SPIFFE ID has at most 2048 characters"));
        }
        let rest = text.strip_prefix(SCHEME).ok_or(MalformedSpiffeId("a SPIFFE ID begins with spiffe://"))?;
        let name = &rest[..rest.find('/').unwrap_or(rest.len())];
        TrustDomain::parse(name)?;
        let path_from = SCHEME.len() + name.len();
        // SPIFFE-ID §2.2: no empty and no dot segments, hence no slash at the end; no percent signs. §2: neither query nor
        // fragment, whose characters are not among those of a segment.
        for segment in text[path_from..].split('/').skip(1) {
            if matches!(segment, "" | "." | "..") {
                return Err(MalformedSpiffeId(
                    "the path of a SPIFFE ID has an empty or a dot segment, or ends in a slash",
                ));
            }
            if !segment.bytes().all(|octet| octet.is_ascii_alphanumeric() || matches!(octet, b'.' | b'-' | b'_')) {
                return Err(MalformedSpiffeId("the path of a SPIFFE ID has letters, digits and . - _ only"));
            }
        }
        Ok(Self { text: text.to_owned(), path_from })
    }

    /// The id as written.
    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// Whose it is.
    pub fn trust_domain(&self) -> TrustDomain {
        TrustDomain(self.text[SCHEME.len()..self.path_from].to_owned())
    }

    /// Whether it resides in this trust domain.
    pub fn is_of(&self, trust_domain: &TrustDomain) -> bool {
        self.text[SCHEME.len()..self.path_from] == trust_domain.0
    }

    /// Whether it names a workload: one without a path names the trust domain itself (X509-SVID §3.1, §3.2).
    pub fn has_path(&self) -> bool {
        self.path_from < self.text.len()
    }
}

macro_rules! written_as_text {
    ($name:ident) => {
        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(self.as_str())
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, concat!(stringify!($name), "({})"), self.as_str())
            }
        }

        impl std::str::FromStr for $name {
            type Err = MalformedSpiffeId;

            fn from_str(text: &str) -> Result<Self, Self::Err> {
                Self::parse(text)
            }
        }

        impl Serialize for $name {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.serialize_str(self.as_str())
            }
        }

        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                let text = <std::borrow::Cow<'_, str>>::deserialize(deserializer)?;
                Self::parse(&text).map_err(serde::de::Error::custom)
            }
        }
    };
}
written_as_text!(TrustDomain);
written_as_text!(SpiffeId);

/// Which SPIFFE ID a certificate carries in its alternative names.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum CarriedId {
    /// None: no URI of that scheme.
    Absent,
    /// This one, and no other URI.
    One(SpiffeId),
    /// A URI of that scheme, and another URI beside it (X509-SVID §2: exactly one).
    Ambiguous,
    /// A URI of that scheme that is no SPIFFE ID.
    Malformed,
}

impl CarriedId {
    /// Reads the contents of a subjectAltName extension, if there is one. What cannot be read at all carries no id:
    /// its certificate is refused for its names.
    pub(super) fn read(alt_names: Option<&[u8]>) -> Self {
        const URI: u8 = 0x86;
        let Some(mut rest) = alt_names.and_then(|contents| der::whole(contents, der::SEQUENCE).ok()) else {
            return Self::Absent;
        };
        let (mut uris, mut found) = (0, None);
        while let Ok(name) = der::take(&mut rest) {
            if name.tag == URI {
                uris += 1;
                if name.contents.get(..7).is_some_and(|start| start.eq_ignore_ascii_case(b"spiffe:")) {
                    found = Some(name.contents);
                }
            }
        }
        match (found, uris) {
            (None, _) => Self::Absent,
            (Some(id), 1) => {
                let id = std::str::from_utf8(id).ok().and_then(|text| SpiffeId::parse(text).ok());
                id.map_or(Self::Malformed, Self::One)
            }
            (Some(_), _) => Self::Ambiguous,
        }
    }

    /// The id, where there is exactly one.
    pub(super) const fn id(&self) -> Option<&SpiffeId> {
        match self {
            Self::One(id) => Some(id),
            Self::Absent | Self::Ambiguous | Self::Malformed => None,
        }
    }
}

/// Whether `leaf` is an X509-SVID of a workload, and which one's (X509-SVID §5.2, and what §2 to §4 have its issuer do).
/// That it is no authority's, by `cA` and keyCertSign, was looked at before. clientAuth is asked by the anchor's policy, and
/// only where the extended key usage is there; that §4.4 wants serverAuth beside it is of no concern to a server.
///
/// # Errors
/// The first that fails.
pub(super) fn check_svid(leaf: &ParsedCertificate) -> Result<&SpiffeId, PeerRefusal> {
    let id = match leaf.spiffe_id() {
        CarriedId::One(id) if id.has_path() => id, // §3.1, §5.2: "a non-root path component"
        CarriedId::One(_) | CarriedId::Malformed => return Err(PeerRefusal::SpiffeIdMalformed),
        CarriedId::Ambiguous => return Err(PeerRefusal::SpiffeIdAmbiguous),
        CarriedId::Absent => return Err(PeerRefusal::SpiffeIdMissing),
    };
    // §4.3: set on all SVIDs and critical; digitalSignature in a leaf, neither keyCertSign nor cRLSign.
    let usage = leaf.key_usage().filter(|_| leaf.key_usage_is_critical()).ok_or(PeerRefusal::SvidExtensionWrong)?;
    if usage.key_cert_sign || usage.crl_sign {
        return Err(PeerRefusal::IsAuthority);
    }
    if !usage.digital_signature {
        return Err(PeerRefusal::KeyUsageForbids);
    }
    // §3.1: without a subject, the names are critical (RFC 5280 §4.2.1.6).
    let nameless = leaf.names().map_err(|_| PeerRefusal::NameMalformed)?.subject_text().is_empty();
    if nameless && !leaf.alt_names_are_critical() {
        return Err(PeerRefusal::SvidExtensionWrong);
    }
    Ok(id)
}

/// Whether an intermediate may stand between an SVID and an authority of `trust_domain`: with keyCertSign (§4.3), and with
/// no SPIFFE ID or that of the trust domain itself (§3.2; that it is the leaf's is a SHOULD there, and asked here).
///
/// # Errors
/// [`PeerRefusal::IssuerNotAuthority`], [`PeerRefusal::IssuerSpiffeIdWrong`].
pub(super) fn check_issuer(issuer: &ParsedCertificate, trust_domain: &TrustDomain) -> Result<(), PeerRefusal> {
    if !issuer.key_usage().is_some_and(|usage| usage.key_cert_sign) {
        return Err(PeerRefusal::IssuerNotAuthority);
    }
    match issuer.spiffe_id() {
        CarriedId::Absent => Ok(()),
        CarriedId::One(id) if !id.has_path() && id.is_of(trust_domain) => Ok(()),
        CarriedId::One(_) | CarriedId::Ambiguous | CarriedId::Malformed => Err(PeerRefusal::IssuerSpiffeIdWrong),
    }
}

#[cfg(test)]
mod tests {
    use countersign_conformance::der as made;
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn the_examples_of_the_specification() {
        for (text, domain) in [
            ("spiffe://staging.example.com/payments/mysql", "staging.example.com"),
            ("spiffe://k8s-west.example.com/ns/staging/sa/default", "k8s-west.example.com"),
            ("spiffe://example.com/9eebccd2-12bf-40a6-b262-65fe0487d453", "example.com"),
            ("spiffe://trust_domain_name.example.com", "trust_domain_name.example.com"),
            ("spiffe://192.0.2.1/x", "192.0.2.1"),
            ("spiffe://-._/...", "-._"),
        ] {
            let id = SpiffeId::parse(text).unwrap();
            assert_eq!((id.as_str(), id.trust_domain().as_str()), (text, domain));
            assert_eq!(id.has_path(), text != "spiffe://trust_domain_name.example.com");
            assert!(id.is_of(&id.trust_domain()));
        }
    }

    #[test]
    fn every_ascii_character_in_a_trust_domain() {
        for octet in 0..=0x7F_u8 {
            let allowed = octet.is_ascii_lowercase() || octet.is_ascii_digit() || b".-_".contains(&octet);
            let name = format!("a{}b", char::from(octet));
            assert_eq!(TrustDomain::parse(&name).is_ok(), allowed, "{name:?}");
            let id = SpiffeId::parse(&format!("spiffe://{name}/x"));
            // A slash ends the name: spiffe://a/b/x is another id.
            assert_eq!(id.is_ok(), allowed || octet == b'/', "{name:?}");
            assert_eq!(id.is_ok_and(|id| id.trust_domain().as_str() == name), allowed, "{name:?}");
        }
    }

    #[test]
    fn every_ascii_character_in_a_path() {
        for octet in 0..=0x7F_u8 {
            let allowed = octet.is_ascii_alphanumeric() || b".-_/".contains(&octet);
            let text = format!("spiffe://a.example/b{}c", char::from(octet));
            assert_eq!(SpiffeId::parse(&text).is_ok(), allowed, "{text:?}");
        }
    }

    #[test]
    fn what_is_no_spiffe_id() {
        for wrong in [
            "",
            "a.example/x",
            "spiffe:",
            "spiffe:a.example/x",
            "spiffe:/a.example/x",
            "spiffe://",
            "spiffe:///x",
            "SPIFFE://a.example/x",
            "Spiffe://a.example/x",
            "https://a.example/x",
            " spiffe://a.example/x",
            "spiffe://a.example/x ",
            "spiffe://A.example/x",
            "spiffe://a.example:8080/x",
            "spiffe://a.example:/x",
            "spiffe://user@a.example/x",
            "spiffe://@a.example/x",
            "spiffe://[::1]/x",
            "spiffe://a%2eexample/x",
            "spiffe://a.example?x",
            "spiffe://a.example#x",
            "spiffe://a.example/",
            "spiffe://a.example//",
            "spiffe://a.example//x",
            "spiffe://a.example/x/",
            "spiffe://a.example/x//y",
            "spiffe://a.example/.",
            "spiffe://a.example/..",
            "spiffe://a.example/x/./y",
            "spiffe://a.example/x/../y",
            "spiffe://a.example/%41",
            "spiffe://a.example/x?y=z",
            "spiffe://a.example/x#y",
            "spiffe://a.example/ü",
            "spiffe://ü.example/x",
            "spiffe://a.example\\x",
            "spiffe://a.example/x\0",
        ] {
            assert!(SpiffeId::parse(wrong).is_err(), "{wrong:?}");
        }
    }

    #[test]
    fn both_edges_of_the_lengths() {
        assert!(TrustDomain::parse(&"a".repeat(255)).is_ok());
        assert!(TrustDomain::parse(&"a".repeat(256)).is_err());
        let of_length = |length: usize| SpiffeId::parse(&format!("spiffe://a/{}", "x".repeat(length - 11)));
        assert_eq!(of_length(2048).unwrap().as_str().len(), 2048);
        assert!(of_length(2049).is_err());
    }

    #[test]
    fn a_trust_domain_that_looks_alike_is_another() {
        let ours = TrustDomain::parse("a.example").unwrap();
        for other in
            ["spiffe://a.example.evil/x", "spiffe://a.exampl/e", "spiffe://a.examplex/x", "spiffe://b.a.example/x"]
        {
            assert!(!SpiffeId::parse(other).unwrap().is_of(&ours), "{other}");
        }
    }

    #[test]
    fn which_id_a_certificate_carries() {
        let read = |names: &[(u8, &str)]| {
            let list = made::sequence(names.iter().map(|(tag, text)| made::tlv(*tag, text)));
            CarriedId::read(Some(&list))
        };
        const DNS: u8 = 0x82;
        const URI: u8 = 0x86;
        let id = "spiffe://a.example/x";
        let one = CarriedId::One(SpiffeId::parse(id).unwrap());
        assert_eq!(read(&[(URI, id)]), one);
        assert_eq!(read(&[(DNS, "a.example"), (URI, id), (DNS, "b.example")]), one);
        assert_eq!(read(&[(URI, id), (URI, "https://a.example/")]), CarriedId::Ambiguous);
        assert_eq!(read(&[(URI, "urn:a:b"), (URI, id)]), CarriedId::Ambiguous);
        assert_eq!(read(&[(URI, id), (URI, id)]), CarriedId::Ambiguous);
        for malformed in ["spiffe:a", "SPIFFE://a.example/x", "spiffe://A/x", "spiffe://a.example/x/"] {
            assert_eq!(read(&[(URI, malformed)]), CarriedId::Malformed, "{malformed}");
        }
        for absent in [&[(DNS, id)][..], &[(URI, "https://a.example/")], &[(URI, "xspiffe://a.example/x")], &[]] {
            assert_eq!(read(absent), CarriedId::Absent);
        }
        assert_eq!(CarriedId::read(None), CarriedId::Absent);
        assert_eq!(CarriedId::read(Some(b"x")), CarriedId::Absent);
    }

    proptest! {
        #[test]
        fn what_is_taken_is_a_canonical_uri_already(text in "spiffe://[a-zA-Z0-9._%:@-]{0,12}(/[a-zA-Z0-9._%-]{0,4}){0,4}[?#/]?") {
            if let Ok(id) = SpiffeId::parse(&text) {
                prop_assert_eq!(super::super::identity::uri(&text).unwrap(), id.as_str());
                prop_assert!(id.as_str().starts_with(&id.trust_domain().prefix()) == id.has_path());
            }
        }

        #[test]
        fn foreign_octets_never_panic(octets in proptest::collection::vec(any::<u8>(), 0..80)) {
            let _ = CarriedId::read(Some(&octets));
        }
    }
}
