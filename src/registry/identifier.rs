//! The registry's identifiers: newtypes, so that one cannot be handed over for another.

use std::fmt;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use sha2::{Digest, Sha256};

use crate::pki::spiffe::TrustDomain;

pub use countersign_resource_server::confirmation::CertificateThumbprint as Thumbprint;

/// The text cannot be an identifier of this kind.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{kind} must be 1 to {longest} characters out of {alphabet}")]
pub struct MalformedIdentifier {
    kind: &'static str,
    longest: usize,
    alphabet: &'static str,
}

macro_rules! identifier {
    ($(#[$doc:meta])* $name:ident, $kind:literal, $longest:literal, $allowed:ident, $alphabet:literal) => {
        $(#[$doc])*
        #[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name(String);

        impl $name {
            /// The longest, in characters.
            pub const LONGEST: usize = $longest;

            /// Reads an identifier as it comes from a peer, a command line or a store.
            ///
            /// # Errors
            /// [`MalformedIdentifier`] if it is empty, too long, or has a character outside its alphabet.
            pub fn parse(text: &str) -> Result<Self, MalformedIdentifier> {
                if text.is_empty() || text.len() > $longest || !text.bytes().all($allowed) {
                    return Err(MalformedIdentifier { kind: $kind, longest: $longest, alphabet: $alphabet });
                }
                Ok(Self(text.to_owned()))
            }

            /// The identifier as written.
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, concat!(stringify!($name), "({})"), self.0)
            }
        }

        impl std::str::FromStr for $name {
            type Err = MalformedIdentifier;

            fn from_str(text: &str) -> Result<Self, Self::Err> {
                Self::parse(text)
            }
        }

        impl Serialize for $name {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.serialize_str(&self.0)
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

const fn is_name_byte(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.' | b'~')
}

// RFC 6749 appendix A.1: client-id = *VSCHAR. Space is left out: it would make ids that look alike.
const fn is_client_id_byte(byte: u8) -> bool {
    matches!(byte, 0x21..=0x7E)
}

const fn is_uri_byte(byte: u8) -> bool {
    // RFC 3986 §2: unreserved, reserved and percent; RFC 8707 §2 rules out the fragment.
    byte.is_ascii_alphanumeric()
        || matches!(
            byte,
            b'-' | b'.'
                | b'_'
                | b'~'
                | b':'
                | b'/'
                | b'?'
                | b'['
                | b']'
                | b'@'
                | b'!'
                | b'$'
                | b'&'
                | b'\''
                | b'('
                | b')'
                | b'*'
                | b'+'
                | b','
                | b';'
                | b'='
                | b'%'
        )
}

identifier!(
    /// Names an organisation; the `participant_id` claim.
    ParticipantId, "a participant id", 64, is_name_byte, "letters, digits and - _ . ~"
);
identifier!(
    /// Names a participant's application (RFC 6749 §2.2).
    ClientId, "a client_id", 128, is_client_id_byte, "visible ASCII characters"
);
identifier!(
    /// Names a trust anchor: the SHA-256 of its SubjectPublicKeyInfo in base64url without padding, never its subject; a
    /// SPIFFE trust domain, which has many keys over time, by [`AnchorId::of_trust_domain`].
    AnchorId, "an anchor id", 64, is_name_byte, "letters, digits and - _ . ~"
);
identifier!(
    /// Names an API within the registry.
    ResourceServerId, "a resource server id", 64, is_name_byte, "letters, digits and - _ . ~"
);
identifier!(
    /// Names an entitlement.
    EntitlementId, "an entitlement id", 64, is_name_byte, "letters, digits and - _ . ~"
);
identifier!(
    /// An API as clients name it in `resource` and tokens in `aud` (RFC 8707 §2): an absolute URI without fragment.
    /// Compared as text.
    ResourceIndicator, "a resource indicator", 512, is_uri_byte, "the characters of a URI without fragment"
);

impl AnchorId {
    /// What the ids of trust domains begin with. A tilde is in neither base64url nor the name of a trust domain, so that no
    /// key and no other trust domain is named alike. (A colon, as URIs have it, is outside the alphabet.)
    pub const TRUST_DOMAIN: &str = "td~";

    /// The id of a SPIFFE trust domain: its name, where that fits, else the SHA-256 of the name behind a second tilde.
    pub fn of_trust_domain(trust_domain: &TrustDomain) -> Self {
        let name = trust_domain.as_str();
        let tag = Self::TRUST_DOMAIN;
        if tag.len() + name.len() <= Self::LONGEST {
            Self(format!("{tag}{name}"))
        } else {
            Self(format!("{tag}~{}", URL_SAFE_NO_PAD.encode(Sha256::digest(name))))
        }
    }
}

/// The SHA-256 hash of a SubjectPublicKeyInfo in DER.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct KeyHash([u8; 32]);

impl KeyHash {
    /// The hash of a whole SubjectPublicKeyInfo (RFC 5280 §4.1.2.7).
    pub fn of(spki_der: &[u8]) -> Self {
        Self(Sha256::digest(spki_der).into())
    }

    /// Reads what `Display` writes.
    pub fn parse(text: &str) -> Option<Self> {
        URL_SAFE_NO_PAD.decode(text).ok()?.try_into().ok().map(Self)
    }
}

impl fmt::Display for KeyHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&URL_SAFE_NO_PAD.encode(self.0))
    }
}

impl fmt::Debug for KeyHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "KeyHash({self})")
    }
}

impl Serialize for KeyHash {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for KeyHash {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = <std::borrow::Cow<'_, str>>::deserialize(deserializer)?;
        Self::parse(&text).ok_or_else(|| serde::de::Error::custom("not a SHA-256 hash in base64url"))
    }
}

/// How many changes the registry has seen: taken from one locked counter row, never from a sequence.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct RegistryVersion(pub i64);

impl fmt::Display for RegistryVersion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_trust_domain_is_named_like_no_key_and_no_other() {
        let of = |name: &str| AnchorId::of_trust_domain(&TrustDomain::parse(name).unwrap());
        assert_eq!(of("a.example").as_str(), "td~a.example");
        for length in 1..=255 {
            let id = of(&"a".repeat(length));
            assert_eq!(AnchorId::parse(id.as_str()), Ok(id.clone()), "{length}");
            assert_eq!(id.as_str().starts_with("td~~"), length > 61, "{length}");
            assert_eq!(KeyHash::parse(id.as_str()), None);
        }
        assert_ne!(of(&"a".repeat(62)), of(&format!("{}b", "a".repeat(61))));
    }
}
