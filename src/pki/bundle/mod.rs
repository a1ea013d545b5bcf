//! Which keys does a trust domain stand by? (SPIFFE Trust Domain and Bundle §4)
//!
//! Takes the JSON of a SPIFFE bundle and the name of the trust domain it is held for (it does not say so itself), gives a
//! [`Bundle`]: its X.509 authorities, its JWT authorities, its sequence and refresh hint. A key that cannot be used is set
//! aside with its reason and stops nothing. It knows nothing of where bundles come from.

/// The bundle endpoint that is believed by its SPIFFE ID.
mod endpoint;

/// The next bundle, from wherever it is published.
pub mod refresh;

use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use countersign_resource_server::time::UnixTime;
use countersign_resource_server::token::json;
use countersign_resource_server::token::jwks::{KeySet, MAX_KEYS as MOST_JWT_AUTHORITIES, PublicKey, UnusableKey};
use serde_json::{Map, Value};

use super::anchor::{UnfitAnchor, fit};
use super::certificate::ParsedCertificate;
use super::spiffe::{CarriedId, TrustDomain};

/// The most octets of JSON that are looked at.
pub const LARGEST_BUNDLE_BYTES: usize = 256 * 1024;

/// The most keys a bundle may have, those that are ignored among them.
pub const MOST_KEYS: usize = 256;

/// A trust domain's keys.
#[derive(Clone, Debug)]
pub struct Bundle {
    /// `spiffe_sequence`
    pub sequence: Option<u64>,
    /// `spiffe_refresh_hint`
    pub refresh_hint: Option<Duration>,
    /// The certificates, in DER, that X509-SVIDs may lead to.
    pub x509_authorities: Vec<Vec<u8>>,
    /// The keys, each with its `kid`, that may sign JWT-SVIDs.
    pub jwt_authorities: KeySet,
    /// What cannot be used, and why.
    pub set_aside: Vec<SetAside>,
}

/// A key of a bundle that is for SVIDs and cannot be used.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SetAside {
    /// Its place in `keys`, from 0.
    pub index: usize,
    /// Why.
    pub reason: UnusableAuthority,
}

/// Why one key of a bundle cannot be used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum UnusableAuthority {
    /// An X.509 authority whose certificate names another trust domain.
    #[error("its certificate is another trust domain's")]
    Foreign,
    /// The key itself.
    #[error(transparent)]
    Key(#[from] UnusableKey),
    /// A JWT authority without `kid` (JWT-SVID §6.1).
    #[error("it has no kid")]
    KidMissing,
    /// An X.509 authority without `x5c`, or with an empty one (X509-SVID §6.2).
    #[error("it has no certificate (x5c)")]
    NoCertificate,
    /// An X.509 authority whose SPIFFE ID is none, or has a path, or stands beside another URI (X509-SVID §2, §3.2).
    #[error("its certificate has a SPIFFE ID that a signing certificate must not have")]
    SpiffeId,
    /// The certificate cannot be an anchor.
    #[error("{0}")]
    Unfit(#[from] UnfitAnchor),
}

/// Why a bundle is refused as a whole.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum MalformedBundle {
    /// Not a JSON object with every member named once and an array `keys`.
    #[error("not a SPIFFE bundle: a JSON object with every member named once and an array \"keys\" is expected")]
    Json,
    /// Two JWT authorities share a `kid`.
    #[error("two keys for JWT-SVIDs have the kid {kid:?}")]
    KidRepeated {
        /// The name they share.
        kid: String,
    },
    /// `spiffe_refresh_hint` is no whole number of seconds (§4.1.2).
    #[error("spiffe_refresh_hint is not a whole number of seconds")]
    RefreshHint,
    /// `spiffe_sequence` is no integer that fits 64 bits (§4.1.1).
    #[error("spiffe_sequence is not an integer from 0 that fits 64 bits")]
    Sequence,
    /// Too many keys or octets.
    #[error(
        "more than {MOST_KEYS} keys, {MOST_JWT_AUTHORITIES} of them for JWT-SVIDs, or {LARGEST_BUNDLE_BYTES} bytes"
    )]
    TooLarge,
}

/// How a bundle stands to the one that is held.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Succession {
    /// It takes its place.
    Newer,
    /// It was superseded by the one that is held.
    Older,
    /// It is the one that is held.
    Same,
}

/// What a bundle no longer stands by, of what another one did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Lost {
    /// An X.509 authority that was still in date.
    pub x509: bool,
    /// A JWT authority.
    pub jwt: bool,
}

impl Bundle {
    /// Reads the bundle of `trust_domain`.
    ///
    /// # Errors
    /// [`MalformedBundle`] if it cannot be trusted to mean one thing.
    pub fn parse(text: &[u8], trust_domain: &TrustDomain) -> Result<Self, MalformedBundle> {
        if text.len() > LARGEST_BUNDLE_BYTES {
            return Err(MalformedBundle::TooLarge);
        }
        let mut set = json::parse_object(text).map_err(|_| MalformedBundle::Json)?;
        let sequence = match set.get("spiffe_sequence") {
            None => None,
            Some(value) => Some(value.as_u64().ok_or(MalformedBundle::Sequence)?),
        };
        let refresh_hint = match set.get("spiffe_refresh_hint") {
            None => None,
            Some(value) => Some(Duration::from_secs(value.as_u64().ok_or(MalformedBundle::RefreshHint)?)),
        };
        let Some(Value::Array(members)) = set.remove("keys") else { return Err(MalformedBundle::Json) };
        if members.len() > MOST_KEYS {
            return Err(MalformedBundle::TooLarge);
        }
        let (mut x509_authorities, mut jwt_authorities, mut set_aside) = (Vec::new(), Vec::new(), Vec::new());
        let mut kids: Vec<String> = Vec::new();
        for (index, member) in members.into_iter().enumerate() {
            // §4.2.2: without `use`, or with one that is not known, the element is ignored; values are case sensitive.
            let Value::Object(mut jwk) = member else { continue };
            let read = match jwk.remove("use").as_ref().and_then(Value::as_str) {
                Some("x509-svid") => x509_authority(jwk, trust_domain).map(|der| {
                    // The same certificate twice is one authority.
                    if !x509_authorities.contains(&der) {
                        x509_authorities.push(der);
                    }
                }),
                Some("jwt-svid") => {
                    // Two keys of one name would make the choice of key a matter of luck, usable or not.
                    if let Some(kid) = jwk.get("kid").and_then(Value::as_str) {
                        if kids.iter().any(|known| known == kid) {
                            return Err(MalformedBundle::KidRepeated { kid: kid.to_owned() });
                        }
                        kids.push(kid.to_owned());
                    }
                    jwt_authority(&jwk).map(|key| jwt_authorities.push(key))
                }
                _ => continue,
            };
            if let Err(reason) = read {
                set_aside.push(SetAside { index, reason });
            }
        }
        let jwt_authorities = KeySet::of(jwt_authorities).map_err(|_| MalformedBundle::TooLarge)?;
        Ok(Self { sequence, refresh_hint, x509_authorities, jwt_authorities, set_aside })
    }

    /// Whether no key of it can be used: then all SVIDs of its trust domain are invalid (§4.1.3).
    pub fn is_empty(&self) -> bool {
        self.x509_authorities.is_empty() && self.jwt_authorities.keys().is_empty()
    }

    /// How this bundle, just come, stands to `held`. SPIFFE Federation §4.2: by the sequence; where one of them has none,
    /// the one that came last counts.
    pub fn succession(&self, held: &Self) -> Succession {
        match (self.sequence, held.sequence) {
            (Some(came), Some(held)) if came < held => Succession::Older,
            (Some(came), Some(held)) if came == held => Succession::Same, // §4.1.1: it MUST change with the contents
            (Some(_), Some(_)) => Succession::Newer,
            (came, before) => {
                let same = came == before && self.says_what(held);
                if same { Succession::Same } else { Succession::Newer }
            }
        }
    }

    fn says_what(&self, other: &Self) -> bool {
        self.refresh_hint == other.refresh_hint
            && self.x509_authorities == other.x509_authorities
            && self.jwt_authorities.keys().len() == other.jwt_authorities.keys().len()
            && self.keeps_jwt_authorities_of(other)
    }

    fn keeps_jwt_authorities_of(&self, other: &Self) -> bool {
        other.jwt_authorities.keys().iter().all(|key| {
            let kept = key.kid().and_then(|kid| self.jwt_authorities.by_kid(kid));
            kept.is_some_and(|kept| kept.spki() == key.spki() && kept.algorithms() == key.algorithms())
        })
    }

    /// What `before` stood by at `now` and this bundle does not.
    pub fn lost(&self, before: &Self, now: UnixTime) -> Lost {
        let in_date = |der: &[u8]| {
            ParsedCertificate::read(der).is_ok_and(|facts| facts.not_after().as_seconds() >= now.as_seconds())
        };
        let gone = |der: &&Vec<u8>| !self.x509_authorities.contains(der);
        Lost {
            // No token outlives any certificate it rests on: of an authority that is out of date none is left.
            x509: before.x509_authorities.iter().filter(gone).any(|der| in_date(der)),
            jwt: !self.keeps_jwt_authorities_of(before),
        }
    }
}

/// X509-SVID §6.2.
fn x509_authority(mut jwk: Map<String, Value>, trust_domain: &TrustDomain) -> Result<Vec<u8>, UnusableAuthority> {
    // "If the x5c parameter contains multiple values, then all but the first MUST be ignored."
    let first = match jwk.remove("x5c") {
        Some(Value::Array(chain)) => chain.into_iter().next().ok_or(UnusableAuthority::NoCertificate)?,
        _ => return Err(UnusableAuthority::NoCertificate),
    };
    let text = first.as_str().ok_or(UnusableKey::Malformed)?;
    let der = STANDARD.decode(text).map_err(|_| UnusableKey::Malformed)?;
    // RFC 7517 §4.7: the certificate's key is the one that the other members are. What the key may do the certificate says.
    jwk.insert("x5c".to_owned(), Value::Array(vec![first]));
    for member in ["kid", "alg", "key_ops"] {
        jwk.remove(member);
    }
    PublicKey::from_jwk(&jwk)?;
    let facts = ParsedCertificate::read(&der).map_err(UnfitAnchor::from)?;
    fit(&facts)?;
    match facts.spiffe_id() {
        // X509-SVID §3.2: a signing certificate SHOULD be an SVID, and one of the trust domain it signs for. Of another's
        // key nothing shows that it was meant.
        CarriedId::Absent => Ok(der),
        CarriedId::One(id) if id.has_path() => Err(UnusableAuthority::SpiffeId),
        CarriedId::One(id) if id.is_of(trust_domain) => Ok(der),
        CarriedId::One(_) => Err(UnusableAuthority::Foreign),
        CarriedId::Ambiguous | CarriedId::Malformed => Err(UnusableAuthority::SpiffeId),
    }
}

/// JWT-SVID §6.1, §6.2.
fn jwt_authority(jwk: &Map<String, Value>) -> Result<PublicKey, UnusableAuthority> {
    if !jwk.contains_key("kid") {
        return Err(UnusableAuthority::KidMissing);
    }
    let key = PublicKey::from_jwk(jwk)?;
    if key.algorithms().is_empty() { Err(UnusableKey::Kind.into()) } else { Ok(key) }
}

#[cfg(test)]
mod tests;
