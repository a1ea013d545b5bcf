//! The one reader of names: what a certificate, an operator or a name space calls somebody, in the form that is compared.
//!
//! Takes a subject, the contents of a subjectAltName extension, or text; gives canonical text, which is equal if and only
//! if the names match (RFC 5280 §7). It knows nothing of who is registered under a name, nor of who may vouch for it.
//!
//! | kind | canonical form |
//! | --- | --- |
//! | distinguished name | RFC 4514 text, most specific RDN first; types by short name in lower case, else dotted; the attributes of one RDN sorted; PrintableString and UTF8String prepared by RFC 4518 and written alike; domain components in lower case (RFC 5280 §7.3); every other string type as `#` and its DER, so that it matches only the same type and octets; `,` and the other special characters always as `\` and two hexadecimal digits |
//! | dNSName | lower case; letters, digits and hyphens; no wildcard, no trailing dot |
//! | URI | scheme and host in lower case, the rest as it is; what RFC 5280 §7.4 would have normalised is not taken, so that one URI has one spelling; no user information |
//! | iPAddress | four or sixteen octets, written as `std::net` does; a v4-mapped v6 address is a v6 address |
//! | rfc822Name | local part as it is, host as a dNSName (RFC 5280 §7.5) |

/// How a name misses the registered one, for people.
mod difference;

/// Distinguished names: RFC 4514 text, RFC 4518 preparation.
mod distinguished_name;

/// DNS names, URIs, IP addresses and e-mail addresses.
mod general_name;

use std::borrow::Cow;

pub use difference::Difference;
pub use distinguished_name::distinguished_name;
use distinguished_name::{Spelling, read_name, write_name};
pub use general_name::{dns_name, email_address, ip_address, uri};
use general_name::{ip_octets, uri_is_below};

use super::der;
use crate::registry::client::{SubjectAttribute, SubjectRule};
use crate::registry::trust_anchor::NameSpace;

/// The rule that an operator's `text` states for `attribute`, with its canonical form.
///
/// # Errors
/// [`MalformedName`] with what is wrong, in words for the operator.
pub fn subject_rule(attribute: SubjectAttribute, text: &str) -> Result<SubjectRule, MalformedName> {
    let canonical = match attribute {
        SubjectAttribute::TlsClientAuthSubjectDn => distinguished_name(text)?,
        SubjectAttribute::TlsClientAuthSanDns => dns_name(text)?,
        SubjectAttribute::TlsClientAuthSanUri => uri(text)?,
        SubjectAttribute::TlsClientAuthSanIp => ip_address(text)?,
        SubjectAttribute::TlsClientAuthSanEmail => email_address(text)?,
    };
    Ok(SubjectRule { attribute, value: text.to_owned(), canonical })
}

/// A name space with every entry in canonical form.
///
/// # Errors
/// [`MalformedName`] for the first entry that cannot be one.
pub fn name_space(written: &NameSpace) -> Result<NameSpace, MalformedName> {
    let all = |texts: &[String], canonical: fn(&str) -> Result<String, MalformedName>| {
        texts.iter().map(|text| canonical(text)).collect::<Result<Vec<_>, _>>()
    };
    Ok(NameSpace {
        any: written.any,
        dn_suffixes: all(&written.dn_suffixes, distinguished_name)?,
        dns_suffixes: all(&written.dns_suffixes, dns_name)?,
        uri_prefixes: all(&written.uri_prefixes, uri)?,
    })
}

/// A text that is not a name of its kind.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct MalformedName(pub(super) &'static str);

impl From<der::NotDer> for MalformedName {
    fn from(_: der::NotDer) -> Self {
        Self("the encoding is not DER")
    }
}

/// The names of one certificate, canonical.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Names {
    subject: Option<String>,
    dns: Vec<String>,
    uris: Vec<String>,
    ips: Vec<String>,
    emails: Vec<String>,
    /// The subject as it is written for people, by RFC 4514.
    subject_text: String,
    /// The alternative names as they are written for people.
    alt_texts: Vec<String>,
    /// Names that no rule can name (wildcards, other kinds): they match nothing and are inside no name space but `any`.
    unmatchable: Option<String>,
}

/// A distinguished name (a whole Name in DER) by RFC 4514, for people; empty if it is.
pub(super) fn name_text(encoded: &[u8]) -> Result<String, MalformedName> {
    write_name(&read_name(encoded)?, Spelling::Stored)
}

impl Names {
    /// Reads the subject (a whole Name in DER) and the contents of the subjectAltName extension, if there is one.
    pub(super) fn read(subject: &[u8], alt_names: Option<&[u8]>) -> Result<Self, MalformedName> {
        // Before the characters are looked at one by one: a stranger's certificate may be nothing but subject.
        if subject.len() > LONGEST_TEXT_BYTES {
            return Err(MalformedName("the distinguished name is too long"));
        }
        let name = read_name(subject)?;
        let mut names = Self { subject_text: write_name(&name, Spelling::Stored)?, ..Self::default() };
        if !name.is_empty() {
            names.subject = Some(write_name(&name, Spelling::Prepared)?);
        }
        if let Some(alt_names) = alt_names {
            names.read_alt_names(alt_names)?;
        }
        Ok(names)
    }

    /// Whether the one attribute that `rule` is about has the registered value (RFC 8705 §2.1.2).
    pub fn match_rule(&self, rule: &SubjectRule) -> bool {
        self.of(rule.attribute).any(|name| name == rule.canonical)
    }

    /// The canonical names of one kind.
    pub fn of(&self, attribute: SubjectAttribute) -> impl Iterator<Item = &str> {
        let (subject, others) = match attribute {
            SubjectAttribute::TlsClientAuthSubjectDn => (self.subject.as_deref(), &[][..]),
            SubjectAttribute::TlsClientAuthSanDns => (None, &self.dns[..]),
            SubjectAttribute::TlsClientAuthSanUri => (None, &self.uris[..]),
            SubjectAttribute::TlsClientAuthSanIp => (None, &self.ips[..]),
            SubjectAttribute::TlsClientAuthSanEmail => (None, &self.emails[..]),
        };
        subject.into_iter().chain(others.iter().map(String::as_str))
    }

    /// Every canonical name, with the kind of rule it could match: first the subject, of which there is one at most.
    pub fn all(&self) -> impl Iterator<Item = (SubjectAttribute, &str)> {
        [
            SubjectAttribute::TlsClientAuthSubjectDn,
            SubjectAttribute::TlsClientAuthSanUri,
            SubjectAttribute::TlsClientAuthSanDns,
            SubjectAttribute::TlsClientAuthSanIp,
            SubjectAttribute::TlsClientAuthSanEmail,
        ]
        .into_iter()
        .flat_map(|kind| self.of(kind).map(move |name| (kind, name)))
    }

    /// The subject by RFC 4514, for people; empty if the certificate has none.
    pub fn subject_text(&self) -> &str {
        &self.subject_text
    }

    /// The subject alternative names for people: `DNS:…`, `URI:…`, `IP:…`, `email:…`, else the kind alone.
    pub fn subject_alt_names_text(&self) -> &[String] {
        &self.alt_texts
    }

    /// Whether `space` names the URIs that `uri`, canonical, is one of: by a prefix, not by taking in everything.
    pub fn is_under_a_prefix(uri: &str, space: &NameSpace) -> bool {
        space.uri_prefixes.iter().any(|prefix| uri_is_below(uri, prefix))
    }

    /// The first name outside `space`, if there is one.
    pub fn first_outside<'a>(&'a self, space: &NameSpace) -> Option<Cow<'a, str>> {
        if space.any {
            return None;
        }
        if space.dn_suffixes.is_empty() && space.dns_suffixes.is_empty() && space.uri_prefixes.is_empty() {
            return Some(Cow::Borrowed("every name")); // an empty name space vouches for nothing, not even for namelessness
        }
        let below = |name: &str, separator: char, suffix: &String| {
            name.strip_suffix(suffix.as_str()).is_some_and(|rest| rest.is_empty() || rest.ends_with(separator))
        };
        let in_dns = |name: &str| space.dns_suffixes.iter().any(|suffix| below(name, '.', suffix));
        if let Some(subject) = &self.subject
            // RFC 5280 §7.1: within the subtree if the RDNs at the root's end match. A comma separates RDNs and nothing else.
            && !space.dn_suffixes.iter().any(|suffix| below(subject, ',', suffix))
        {
            return Some(Cow::Borrowed(subject));
        }
        let outside = self.dns.iter().find(|name| !in_dns(name));
        let outside = outside.or_else(|| {
            self.emails.iter().find(|address| !address.rsplit_once('@').is_some_and(|(_, host)| in_dns(host)))
        });
        let outside = outside.or_else(|| {
            self.uris.iter().find(|uri| !space.uri_prefixes.iter().any(|prefix| uri_is_below(uri, prefix)))
        });
        outside.or(self.ips.first()).or(self.unmatchable.as_ref()).map(|name| Cow::Borrowed(name.as_str()))
    }

    fn read_alt_names(&mut self, extension: &[u8]) -> Result<(), MalformedName> {
        // RFC 5280 §4.2.1.6: GeneralNames ::= SEQUENCE SIZE (1..MAX) OF GeneralName
        let mut rest = der::whole(extension, der::SEQUENCE)?;
        if rest.is_empty() {
            return Err(MalformedName("the subjectAltName extension is empty"));
        }
        while !rest.is_empty() {
            if self.alt_texts.len() == MOST_ALT_NAMES {
                return Err(MalformedName("there are more subject alternative names than anyone needs"));
            }
            let name = der::take(&mut rest)?;
            let (label, canonical, list) = match name.tag {
                0x81 => ("email", email_address as Canonical, &mut self.emails),
                0x82 => ("DNS", dns_name as Canonical, &mut self.dns),
                0x86 => ("URI", uri as Canonical, &mut self.uris),
                0x87 => {
                    let address = ip_octets(name.contents)?;
                    self.alt_texts.push(format!("IP:{address}"));
                    self.ips.push(address);
                    continue;
                }
                tag => {
                    let kind = unmatchable_kind(tag, name.contents)?;
                    self.alt_texts.push(kind.to_owned());
                    self.unmatchable.get_or_insert_with(|| kind.to_owned());
                    continue;
                }
            };
            // IA5String: a NUL or a control character is where two readers part (RFC 5280 §4.2.1.6).
            let text = std::str::from_utf8(name.contents)
                .ok()
                .filter(|text| text.bytes().all(|octet| matches!(octet, 0x20..=0x7E)))
                .ok_or(MalformedName("a subject alternative name has an octet that is not visible ASCII"))?;
            self.alt_texts.push(format!("{label}:{text}"));
            match canonical(text) {
                Ok(name) => list.push(name),
                Err(_) => {
                    self.unmatchable.get_or_insert_with(|| format!("{label}:{text}"));
                }
            }
        }
        Ok(())
    }
}

/// The kinds that no rule can name. What is inside them is read all the same: of an extension with something malformed in
/// it, another reader sees nothing at all.
fn unmatchable_kind(tag: u8, mut contents: &[u8]) -> Result<&'static str, MalformedName> {
    match tag {
        // OtherName ::= SEQUENCE { type-id OBJECT IDENTIFIER, value [0] EXPLICIT ANY }, the tag [0] in place of SEQUENCE's
        0xA0 => {
            der::dotted(der::expect(&mut contents, der::OBJECT_IDENTIFIER)?)?;
            let mut value = der::whole(contents, 0xA0)?;
            der::take(&mut value)?;
            if value.is_empty() { Ok("otherName") } else { Err(der::NotDer.into()) }
        }
        0xA3 => Ok("x400Address"),
        // A CHOICE, so its own tag is inside (X.680 §31.2.7).
        0xA4 => read_name(contents).map(|_| "directoryName"),
        0xA5 => Ok("ediPartyName"),
        0x88 => der::dotted(contents).map(|_| "registeredID").map_err(Into::into),
        _ => Err(MalformedName("a subject alternative name is of no known kind")),
    }
}

type Canonical = fn(&str) -> Result<String, MalformedName>;

/// More names than this in one certificate are refused: each is looked at on every request.
const MOST_ALT_NAMES: usize = 100;

/// A text longer than this is no name.
const LONGEST_TEXT_BYTES: usize = 4096;

#[cfg(test)]
mod corpus;

#[cfg(test)]
mod openssl_reading;

#[cfg(test)]
mod tests;
