//! Whose certificate a connection carries: a party of the target file, or one minted for a case.
//!
//! Takes what a case says of a certificate, gives a [`Party`]. The certificates themselves are `pki`'s.

use std::sync::Arc;

use base64::Engine;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use rustls::pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer};
use serde::Deserialize;
use serde_json::Value;
use sha2::{Digest, Sha256};

use crate::der;
use crate::key::{JwsAlgorithm, Key, KeyKind};
use crate::pki::{AltName, Attribute, Authority, Credential, Defect, Name, Template};

/// A key that signs tokens, under the name it goes by.
#[derive(Clone, Debug)]
pub(crate) struct Identity {
    pub(crate) key: Arc<Key>,
    pub(crate) kid: String,
    /// As it stands in the header.
    pub(crate) alg: String,
    pub(crate) algorithm: JwsAlgorithm,
}

/// Who is on the connection.
#[derive(Debug)]
pub(crate) struct Party {
    /// Its `client_id`; empty for a minted certificate.
    pub(crate) id: String,
    /// Leaf first.
    pub(crate) chain: Vec<Vec<u8>>,
    pub(crate) key: PrivateKeyDer<'static>,
    /// What it signs assertions with.
    pub(crate) assertions: Option<Identity>,
}

impl Party {
    /// The leaf's DER.
    pub(crate) fn certificate(&self) -> &[u8] {
        self.chain.first().map_or(&[], Vec::as_slice)
    }

    /// What a case may know of it.
    pub(crate) fn value(&self, member: &str) -> Option<Value> {
        Some(match member {
            "id" => self.id.as_str().into(),
            // RFC 8705 §3.1
            "thumbprint" => URL_SAFE_NO_PAD.encode(Sha256::digest(self.certificate())).into(),
            "certificate" => STANDARD.encode(self.certificate()).into(),
            "kid" => self.assertions.as_ref()?.kid.as_str().into(),
            "alg" => self.assertions.as_ref()?.alg.as_str().into(),
            "jwk" => self.assertions.as_ref()?.key.jwk(),
            _ => return None,
        })
    }

    fn minted(credential: Credential) -> Self {
        let key = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(credential.key.pkcs8().to_vec()));
        Self { id: String::new(), chain: credential.chain, key, assertions: None }
    }
}

/// What a case says of a certificate.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Mint {
    pub(crate) by: String,
    #[serde(default = "client")]
    pub(crate) name: String,
    pub(crate) defect: Option<String>,
    #[serde(default = "p256")]
    pub(crate) key: String,
    pub(crate) of: Option<String>,
    pub(crate) through: Option<String>,
}

impl Mint {
    /// In words.
    pub(crate) fn told(&self) -> String {
        let mut parts = vec![format!("by {}", self.by), format!("named like {}", self.name)];
        parts.extend(self.of.as_ref().map(|of| format!("with the key of {of}")));
        parts.extend(self.through.as_ref().map(|through| format!("through one more certificate: {through}")));
        parts.extend(self.defect.as_ref().map(|defect| format!("with the defect {defect}")));
        parts.join(", ")
    }
}

fn client() -> String {
    "client".to_owned()
}

fn p256() -> String {
    "p256".to_owned()
}

/// Mints it.
pub(crate) fn mint<'a>(
    wanted: &Mint,
    ca: Option<&Authority>,
    party: &dyn Fn(&str) -> Option<&'a Party>,
    now: i64,
) -> Result<Party, String> {
    let known = |name: &str| party(name).ok_or_else(|| format!("the target has no {name}"));
    let named = match wanted.name.as_str() {
        "nobody" => Names { subject: Name::common("nobody.judge.invalid"), alternative: Vec::new() },
        "empty" => Names::default(),
        other => Names::of(known(other)?.certificate()).ok_or("the certificate could not be read")?,
    };
    let alternative = named.alternative;
    let mut template = Template::client(named.subject, now).with_alt_names(alternative);
    match wanted.defect.as_deref() {
        None | Some("broken_signature" | "trailing_octet") => {}
        Some(defect) => {
            let known = Defect::ALL.iter().find(|known| known.as_str() == defect);
            // Days and not seconds: the target's clock is its own.
            let at = match known {
                Some(Defect::NotYetValid) => now + 86_400,
                Some(Defect::Expired) => now - 86_400,
                _ => now,
            };
            template = template.with(*known.ok_or_else(|| format!("no defect {defect:?}"))?, at);
        }
    }
    let key = match &wanted.of {
        Some(of) => Key::from_der(known(of)?.key.secret_der()).ok_or("a key of a kind that cannot be read")?,
        None => Key::generate(match wanted.key.as_str() {
            "p256" => KeyKind::P256,
            "p384" => KeyKind::P384,
            "ed25519" => KeyKind::Ed25519,
            "rsa_2048" => KeyKind::Rsa2048,
            other => return Err(format!("no kind of key {other:?}")),
        }),
    };
    let theirs = || ca.cloned().ok_or_else(|| "the target file has no [ca]".to_owned());
    let mut authority = match wanted.by.as_str() {
        "ca" => theirs()?,
        "twin" => theirs()?.twin(),
        "stranger" | "self" => Authority::root("An authority nobody knows", now),
        other => {
            let party = known(other)?;
            let key = Key::from_der(party.key.secret_der()).ok_or("a key of a kind that cannot be read")?;
            let name = Names::of(party.certificate()).ok_or("the certificate could not be read")?.subject;
            Authority::pretended(name, &Credential { key: key.into(), chain: party.chain.clone() }, now)
        }
    };
    match wanted.through.as_deref() {
        None => {}
        Some("leaf") => {
            let name = Name::common("leaf.judge.invalid");
            let leaf = authority.issue(&Template::client(name.clone(), now), KeyKind::P256);
            authority = Authority::pretended(name, &leaf, now);
        }
        Some("authority") => authority = authority.intermediate("An intermediate of the judge"),
        Some(other) => return Err(format!("nothing to go through is called {other:?}")),
    }
    let mut credential = if wanted.by == "self" {
        let key = Arc::new(key);
        let own = Authority::of(template.subject.clone(), Vec::new(), Arc::clone(&key), Vec::new(), now);
        own.issue_for(&template, key)
    } else {
        authority.issue_for(&template, key.into())
    };
    match wanted.defect.as_deref() {
        Some("broken_signature") => credential = credential.with_broken_signature(),
        Some("trailing_octet") => credential = credential.with_trailing(&[0]),
        _ => {}
    }
    Ok(Party::minted(credential))
}

/// An authority whose certificate and key somebody else made; `above` leads from it to a root.
pub(crate) fn authority(certificate: Vec<u8>, key: Key, above: Vec<Vec<u8>>, now: i64) -> Option<Authority> {
    let name = Names::of(&certificate)?.subject;
    Some(Authority::of(name, certificate, key.into(), above, now))
}

/// The names in a certificate.
#[derive(Debug, Default)]
struct Names {
    subject: Name,
    alternative: Vec<AltName>,
}

impl Names {
    /// RFC 5280 §4.1: reads as far as the subject, then the extensions.
    fn of(certificate: &[u8]) -> Option<Self> {
        let (_, outer, _) = der::split(certificate)?;
        let (_, content, _) = der::split(outer)?;
        let parts: Vec<(u8, &[u8])> = elements(content).collect();
        let versioned = usize::from(parts.first()?.0 == 0xA0);
        let (_, subject) = parts.get(versioned + 4)?;
        let extensions = parts.iter().find(|(tag, _)| *tag == 0xA3).map_or(&[][..], |(_, content)| content);
        let mut alternative = Vec::new();
        for (_, extension) in elements(extensions).flat_map(|(_, list)| elements(list)) {
            let fields: Vec<(u8, &[u8])> = elements(extension).collect();
            // RFC 5280 §4.2.1.6: id-ce-subjectAltName is 2.5.29.17.
            if fields.first()?.1 == [0x55, 0x1D, 0x11] {
                let (_, names, _) = der::split(fields.last()?.1)?;
                alternative.extend(elements(names).map(|(tag, octets)| AltName::Raw(tag, octets.to_vec())));
            }
        }
        let relative = elements(subject).map(|(_, set)| {
            elements(set)
                .filter_map(|(_, pair)| {
                    let mut pair = elements(pair);
                    let ((_, oid), (tag, value)) = (pair.next()?, pair.next()?);
                    Some(Attribute { oid: arcs(oid), tag, value: value.to_vec() })
                })
                .collect()
        });
        Some(Self { subject: Name(relative.collect()), alternative })
    }
}

fn elements(content: &[u8]) -> impl Iterator<Item = (u8, &[u8])> {
    std::iter::successors(der::split(content), |(_, _, rest)| der::split(rest)).map(|(tag, content, _)| (tag, content))
}

/// X.690 §8.19: base 128, the first two arcs in one.
fn arcs(octets: &[u8]) -> Vec<u64> {
    let mut all = Vec::new();
    let mut arc = 0_u64;
    for octet in octets {
        arc = arc.wrapping_shl(7) | u64::from(octet & 0x7F);
        if octet & 0x80 == 0 {
            if all.is_empty() {
                let first = (arc / 40).min(2);
                all.extend([first, arc - first * 40]);
            } else {
                all.push(arc);
            }
            arc = 0;
        }
    }
    all
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: i64 = 1_800_000_000;

    #[test]
    fn names_read_from_a_certificate_are_written_the_same() {
        let subject = Name::of(&[("C", "DE"), ("UID", "7"), ("CN", "client")]);
        let names = [AltName::Dns("client.example".to_owned()), AltName::Uri("https://client.example/".to_owned())];
        let root = Authority::root("Root", NOW);
        let credential = root.issue(&Template::client(subject.clone(), NOW).with_alt_names(names), KeyKind::P256);
        let read = Names::of(credential.certificate()).unwrap();
        assert_eq!(read.subject, subject);
        assert_eq!(
            read.alternative,
            [AltName::Raw(0x82, b"client.example".to_vec()), AltName::Raw(0x86, b"https://client.example/".to_vec())]
        );
        assert!(Names::of(&credential.certificate()[..40]).is_none());
    }
}
