//! Is this the certificate the token was issued to? (RFC 8705 §3.1)
//!
//! Takes a certificate's DER or the text of a `cnf` claim, gives a [`CertificateThumbprint`] that can only be compared;
//! takes a verified token and the peer of the connection, gives a [`ConfirmedToken`]. It knows nothing of who the
//! certificate belongs to.

use std::fmt;
use std::sync::Arc;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde::de::{self, MapAccess, Visitor};
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use sha2::{Digest, Sha256};
use subtle::ConstantTimeEq;

use crate::error::ConfirmationRefusal;
use crate::peer::CurrentPeer;
use crate::token::access_token::VerifiedToken;

/// The SHA-256 hash of a certificate's DER encoding, written as base64url without padding (RFC 8705 §3.1).
#[derive(Clone, Copy)]
pub struct CertificateThumbprint([u8; 32]);

impl CertificateThumbprint {
    /// The thumbprint of the certificate whose whole DER encoding is `der`.
    pub fn of(der: &[u8]) -> Self {
        Self(Sha256::digest(der).into())
    }

    /// The thumbprint with these 32 octets.
    pub const fn from_octets(octets: [u8; 32]) -> Self {
        Self(octets)
    }

    /// The 32 octets of the hash.
    pub const fn octets(&self) -> &[u8; 32] {
        &self.0
    }

    /// Reads what `Display` writes.
    ///
    /// # Errors
    /// [`MalformedThumbprint`] for anything but exactly 43 base64url characters in their one canonical form: padding,
    /// hexadecimal, SHA-1 and stray bits in the last character are all refused.
    pub fn parse(text: &str) -> Result<Self, MalformedThumbprint> {
        // RFC 8705 §3.1: base64url-encoded, "all trailing pad '=' characters omitted".
        let octets = URL_SAFE_NO_PAD.decode(text).map_err(|_| MalformedThumbprint)?;
        octets.try_into().map(Self).map_err(|_| MalformedThumbprint)
    }
}

impl PartialEq for CertificateThumbprint {
    fn eq(&self, other: &Self) -> bool {
        self.0.ct_eq(&other.0).into()
    }
}

impl Eq for CertificateThumbprint {}

impl Ord for CertificateThumbprint {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        self.0.cmp(&other.0)
    }
}

impl PartialOrd for CertificateThumbprint {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl std::hash::Hash for CertificateThumbprint {
    fn hash<H: std::hash::Hasher>(&self, state: &mut H) {
        self.0.hash(state);
    }
}

impl fmt::Display for CertificateThumbprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&URL_SAFE_NO_PAD.encode(self.0))
    }
}

impl fmt::Debug for CertificateThumbprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "CertificateThumbprint({self})")
    }
}

impl Serialize for CertificateThumbprint {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for CertificateThumbprint {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = <std::borrow::Cow<'_, str>>::deserialize(deserializer)?;
        Self::parse(&text).map_err(serde::de::Error::custom)
    }
}

/// The text is not a SHA-256 certificate thumbprint in base64url without padding.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("not a SHA-256 thumbprint in base64url without padding")]
pub struct MalformedThumbprint;

/// The `cnf` claim (RFC 7800 §3.1) with the one member this project binds by (RFC 8705 §3.1).
///
/// A member that is not known is refused rather than ignored: it would name a second binding nobody checks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Confirmation {
    /// The thumbprint of the certificate the token is bound to.
    #[serde(rename = "x5t#S256")]
    pub x5t_s256: CertificateThumbprint,
}

/// By hand, because what serde derives also takes an array for a structure.
impl<'de> Deserialize<'de> for Confirmation {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Members;

        impl<'de> Visitor<'de> for Members {
            type Value = Confirmation;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object with the member x5t#S256 and no other")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut members: A) -> Result<Confirmation, A::Error> {
                let mut confirmation = None;
                while let Some(name) = members.next_key::<String>()? {
                    if name != X5T_S256 || confirmation.is_some() {
                        return Err(de::Error::custom("a member that is not known, or twice"));
                    }
                    confirmation = Some(Confirmation { x5t_s256: members.next_value()? });
                }
                confirmation.ok_or_else(|| de::Error::missing_field(X5T_S256))
            }
        }

        deserializer.deserialize_map(Members)
    }
}

const X5T_S256: &str = "x5t#S256";

/// A verified token on a connection with the certificate it is bound to, or one that was not asked for its certificate.
#[derive(Clone, Debug)]
pub struct ConfirmedToken {
    token: Arc<VerifiedToken>,
    peer: Option<CurrentPeer>,
}

impl ConfirmedToken {
    /// The token.
    pub const fn token(&self) -> &Arc<VerifiedToken> {
        &self.token
    }

    /// The certificate it was found to be bound to; `None` where the route opted out.
    pub const fn peer(&self) -> Option<&CurrentPeer> {
        self.peer.as_ref()
    }

    /// A token whose binding nobody asked about: it is good for whoever holds it.
    pub(crate) const fn danger_unbound(token: Arc<VerifiedToken>) -> Self {
        Self { token, peer: None }
    }
}

/// Asks whether the token is bound to the certificate of this connection.
///
/// # Errors
/// [`ConfirmationRefusal::Mismatch`]
pub fn confirm(token: Arc<VerifiedToken>, peer: CurrentPeer) -> Result<ConfirmedToken, ConfirmationRefusal> {
    // RFC 8705 §3: the protected resource MUST verify that the certificate matches the one of the token.
    if token.claims().cnf.x5t_s256 == *peer.certificate().thumbprint() {
        Ok(ConfirmedToken { token, peer: Some(peer) })
    } else {
        Err(ConfirmationRefusal::Mismatch)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    // The example of RFC 8705 §3.1.
    const PUBLISHED: &str = "bwcK0esc3ACC3DB2Y5_lESsXE8o9ltc05O89jdN-dg2";

    #[test]
    fn what_is_written_is_read_back() {
        let thumbprint = CertificateThumbprint::of(b"certificate");
        assert_eq!(CertificateThumbprint::parse(&thumbprint.to_string()), Ok(thumbprint));
        assert_eq!(thumbprint.to_string().len(), 43);
    }

    #[test]
    fn the_published_example_ends_in_stray_bits_and_is_refused() {
        // 43 characters carry 258 bits; RFC 4648 §3.5 lets a decoder refuse where the last two are not zero. The text
        // in RFC 8705 §3.1 is such a one ("...dg2"), so it is an illustration, not a hash anybody can have computed.
        assert_eq!(CertificateThumbprint::parse(PUBLISHED), Err(MalformedThumbprint));
        assert!(CertificateThumbprint::parse("bwcK0esc3ACC3DB2Y5_lESsXE8o9ltc05O89jdN-dg0").is_ok());
    }

    #[test]
    fn other_spellings_are_refused() {
        let octets = CertificateThumbprint::of(b"certificate");
        let text = octets.to_string();
        for wrong in [
            format!("{text}="),
            hex(octets.octets()),
            text[..42].to_owned(),
            format!("{text}A"),
            String::new(),
            text.replace(['-', '_'], "+"),
            format!(" {text}"),
            "2jmj7l5rSw0yVb_vlWAYkK_YBwk".to_owned(), // 20 octets: SHA-1
        ] {
            if wrong != text {
                assert_eq!(CertificateThumbprint::parse(&wrong), Err(MalformedThumbprint), "{wrong}");
            }
        }
    }

    #[test]
    fn a_second_member_in_cnf_is_refused() {
        let thumbprint = CertificateThumbprint::of(b"certificate");
        let one = format!(r#"{{"x5t#S256":"{thumbprint}"}}"#);
        assert_eq!(serde_json::from_str::<Confirmation>(&one).unwrap(), Confirmation { x5t_s256: thumbprint });
        let two = format!(r#"{{"x5t#S256":"{thumbprint}","jkt":"x"}}"#);
        assert!(serde_json::from_str::<Confirmation>(&two).is_err());
        let doubled = format!(r#"{{"x5t#S256":"{thumbprint}","x5t#S256":"{thumbprint}"}}"#);
        assert!(serde_json::from_str::<Confirmation>(&doubled).is_err());
        for wrong in [format!("[\"{thumbprint}\"]"), format!("\"{thumbprint}\""), "{}".to_owned(), "null".to_owned()] {
            assert!(serde_json::from_str::<Confirmation>(&wrong).is_err(), "{wrong}");
        }
    }

    fn hex(octets: &[u8]) -> String {
        octets.iter().map(|octet| format!("{octet:02x}")).collect()
    }
}
