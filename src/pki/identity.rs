//! The one reader of names: what a certificate, an operator or a name space calls somebody, in the form that is compared.
//!
//! Takes a subject, the contents of a subjectAltName extension, or text; gives canonical text, which is equal if and only
//! if the names match (RFC 5280 §7). It knows nothing of who is registered under a name, nor of who may vouch for it.
//!
//! | kind | canonical form |
//! | --- | --- |
//! | distinguished name | RFC 4514 text, most specific RDN first; types by short name in lower case, else dotted; the attributes of one RDN sorted; PrintableString and UTF8String prepared by RFC 4518 and written alike; every other string type as `#` and its DER, so that it matches only the same type and octets; `,` and the other special characters always as `\` and two hexadecimal digits |
//! | dNSName | lower case; letters, digits and hyphens; no wildcard, no trailing dot |
//! | URI | scheme and host in lower case, the rest as it is; what RFC 5280 §7.4 would have normalised is not taken, so that one URI has one spelling; no user information |
//! | iPAddress | four or sixteen octets, written as `std::net` does; a v4-mapped v6 address is a v6 address |
//! | rfc822Name | local part as it is, host as a dNSName (RFC 5280 §7.5) |

use std::borrow::Cow;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use stringprep::tables;
use unicode_normalization::UnicodeNormalization;

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
    uri_count: usize,
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

    /// Whether one of several URIs is a SPIFFE ID: X.509-SVID §2 wants exactly one URI then.
    pub(super) fn spiffe_id_is_ambiguous(&self) -> bool {
        // Counted over all URIs, those that no rule can name too.
        self.uri_count > 1
            && self
                .alt_texts
                .iter()
                .any(|text| text.get(..11).is_some_and(|start| start.eq_ignore_ascii_case("URI:spiffe:")))
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
                    let kind = match tag {
                        0xA0 => "otherName",
                        0xA3 => "x400Address",
                        0xA4 => "directoryName",
                        0xA5 => "ediPartyName",
                        0x88 => "registeredID",
                        _ => return Err(MalformedName("a subject alternative name is of no known kind")),
                    };
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
            self.uri_count += usize::from(name.tag == 0x86);
        }
        Ok(())
    }
}

type Canonical = fn(&str) -> Result<String, MalformedName>;

/// More names than this in one certificate are refused: each is looked at on every request.
const MOST_ALT_NAMES: usize = 100;

/// A text longer than this is no name.
const LONGEST_TEXT_BYTES: usize = 4096;

// ---- distinguished names ------------------------------------------------------------------------------------------

/// A Name, in the order it is encoded: from the root to the most specific RDN.
type Name = Vec<Vec<Attribute>>;

#[derive(Clone, Debug, PartialEq, Eq)]
struct Attribute {
    /// The type in dotted form.
    kind: String,
    value: Value,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Value {
    /// A PrintableString or UTF8String, as stored.
    Directory(String),
    /// Anything else: matched by type and octets.
    Other { tag: u8, contents: Vec<u8> },
}

/// How an attribute's value is written as text.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Syntax {
    Directory,
    Ia5,
}

/// The short names: the nine every implementation knows (RFC 4514 §3), others of RFC 4519 §2, and three that certificates use.
const ATTRIBUTE_TYPES: &[(&str, &str, Syntax)] = &[
    ("C", "2.5.4.6", Syntax::Directory),
    ("CN", "2.5.4.3", Syntax::Directory),
    ("DC", "0.9.2342.19200300.100.1.25", Syntax::Ia5),
    ("L", "2.5.4.7", Syntax::Directory),
    ("O", "2.5.4.10", Syntax::Directory),
    ("OU", "2.5.4.11", Syntax::Directory),
    ("ST", "2.5.4.8", Syntax::Directory),
    ("STREET", "2.5.4.9", Syntax::Directory),
    ("UID", "0.9.2342.19200300.100.1.1", Syntax::Directory),
    ("businessCategory", "2.5.4.15", Syntax::Directory),
    ("description", "2.5.4.13", Syntax::Directory),
    ("dnQualifier", "2.5.4.46", Syntax::Directory),
    ("emailAddress", "1.2.840.113549.1.9.1", Syntax::Ia5),
    ("generationQualifier", "2.5.4.44", Syntax::Directory),
    ("givenName", "2.5.4.42", Syntax::Directory),
    ("initials", "2.5.4.43", Syntax::Directory),
    ("organizationIdentifier", "2.5.4.97", Syntax::Directory),
    ("postalCode", "2.5.4.17", Syntax::Directory),
    ("serialNumber", "2.5.4.5", Syntax::Directory),
    ("sn", "2.5.4.4", Syntax::Directory),
    ("title", "2.5.4.12", Syntax::Directory),
];

/// The canonical form of a distinguished name written by RFC 4514, strictly.
///
/// # Errors
/// [`MalformedName`] with what is wrong.
pub fn distinguished_name(text: &str) -> Result<String, MalformedName> {
    write_name(&parse_name(text)?, Spelling::Prepared)
}

fn read_name(encoded: &[u8]) -> Result<Name, MalformedName> {
    let mut rest = der::whole(encoded, der::SEQUENCE)?;
    let mut name = Vec::new();
    while !rest.is_empty() {
        let mut set = der::expect(&mut rest, der::SET)?;
        let mut rdn = Vec::new();
        while !set.is_empty() {
            let mut attribute = der::expect(&mut set, der::SEQUENCE)?;
            let kind = der::dotted(der::expect(&mut attribute, der::OBJECT_IDENTIFIER)?)?;
            let value = Value::from_element(der::take(&mut attribute)?)?;
            if !attribute.is_empty() {
                return Err(der::NotDer.into());
            }
            rdn.push(Attribute { kind, value });
        }
        if rdn.is_empty() {
            return Err(MalformedName("a relative distinguished name is empty"));
        }
        name.push(rdn);
    }
    Ok(name)
}

impl Value {
    fn from_element(element: der::Element<'_>) -> Result<Self, MalformedName> {
        let text = || std::str::from_utf8(element.contents);
        Ok(match element.tag {
            der::UTF8_STRING => {
                Self::Directory(text().map_err(|_| MalformedName("a UTF8String is not UTF-8"))?.to_owned())
            }
            // Characters outside PrintableString's set (`*`, `@`, `_`) occur; ASCII they must be.
            der::PRINTABLE_STRING => Self::Directory(
                text()
                    .ok()
                    .filter(|text| text.is_ascii())
                    .ok_or(MalformedName("a PrintableString is not ASCII"))?
                    .to_owned(),
            ),
            der::IA5_STRING if !element.contents.iter().all(|octet| matches!(octet, 0x20..=0x7E)) => {
                return Err(MalformedName("an IA5String has an octet that is not visible ASCII"));
            }
            tag => Self::Other { tag, contents: element.contents.to_owned() },
        })
    }
}

/// As stored, for people; or prepared, for comparison.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Spelling {
    Prepared,
    Stored,
}

fn write_name(name: &Name, spelling: Spelling) -> Result<String, MalformedName> {
    let mut rdns = Vec::with_capacity(name.len());
    // RFC 4514 §2.1: starting with the last element of the sequence and moving backwards toward the first.
    for rdn in name.iter().rev() {
        let mut attributes =
            rdn.iter().map(|attribute| write_attribute(attribute, spelling)).collect::<Result<Vec<_>, _>>()?;
        if spelling == Spelling::Prepared {
            attributes.sort_unstable(); // a SET: RFC 5280 §7.1 asks for a match of each, in no order
            if attributes.windows(2).any(|pair| pair[0] == pair[1]) {
                return Err(MalformedName("a relative distinguished name has one attribute twice"));
            }
        }
        rdns.push(attributes.join("+"));
    }
    let text = rdns.join(",");
    // What is kept with a connection has a bound.
    if text.len() > LONGEST_TEXT_BYTES {
        return Err(MalformedName("the distinguished name is too long"));
    }
    Ok(text)
}

fn write_attribute(attribute: &Attribute, spelling: Spelling) -> Result<String, MalformedName> {
    let known = ATTRIBUTE_TYPES.iter().find(|(_, dotted, _)| *dotted == attribute.kind);
    let kind = match (known, spelling) {
        (Some((short, ..)), Spelling::Prepared) => short.to_ascii_lowercase(),
        (Some((short, ..)), Spelling::Stored) => (*short).to_owned(),
        (None, _) => attribute.kind.clone(),
    };
    let hexadecimal = |tag, contents: &[u8]| format!("#{}", hex::encode(der::element(tag, contents)));
    let value = match (&attribute.value, known.map(|(.., syntax)| *syntax)) {
        (Value::Directory(stored), syntax) => {
            let text = match spelling {
                Spelling::Prepared => prepare(stored)?,
                Spelling::Stored => stored.clone(),
            };
            match syntax {
                Some(Syntax::Directory) => escape(&text),
                _ => hexadecimal(der::UTF8_STRING, text.as_bytes()),
            }
        }
        (Value::Other { tag: der::IA5_STRING, contents }, Some(Syntax::Ia5)) => {
            escape(&String::from_utf8_lossy(contents)) // ASCII: `Value::from_element` has seen to it
        }
        (Value::Other { tag, contents }, _) => hexadecimal(*tag, contents),
    };
    Ok(format!("{kind}={value}"))
}

/// RFC 4514 §2.4. What has to be escaped is escaped as `\` and hexadecimal digits, so that a bare `,` or `+` only separates.
fn escape(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let last = text.len().saturating_sub(1);
    for (index, character) in text.char_indices() {
        let edge_space = character == ' ' && (index == 0 || index == last);
        let leading_sharp = character == '#' && index == 0;
        if edge_space
            || leading_sharp
            || character.is_control()
            || matches!(character, '"' | '+' | ',' | ';' | '<' | '=' | '>' | '\\')
        {
            for octet in character.encode_utf8(&mut [0; 4]).bytes() {
                out.push_str(&format!("\\{octet:02x}"));
            }
        } else {
            out.push(character);
        }
    }
    out
}

/// RFC 4514 §3, without the latitude of older texts: no spaces around separators, no quoted values, no `OID.`.
fn parse_name(text: &str) -> Result<Name, MalformedName> {
    if text.is_empty() {
        return Err(MalformedName("an empty distinguished name names nobody"));
    }
    if text.len() > LONGEST_TEXT_BYTES {
        return Err(MalformedName("the distinguished name is too long"));
    }
    let mut name = vec![Vec::new()];
    let mut rest = text;
    loop {
        let (kind, after) = rest
            .split_once('=')
            .ok_or(MalformedName("expected TYPE=value, separated by `,` without spaces (RFC 4514)"))?;
        let (kind, syntax) = attribute_type(kind)?;
        let (value, after) = attribute_value(after, syntax)?;
        if let Some(rdn) = name.last_mut() {
            rdn.push(Attribute { kind, value });
        }
        match after.split_at_checked(1) {
            None => break,
            Some((",", after)) => {
                name.push(Vec::new());
                rest = after;
            }
            Some((_, after)) => rest = after, // `+`: `attribute_value` stops at nothing else
        }
    }
    name.reverse();
    Ok(name)
}

fn attribute_type(text: &str) -> Result<(String, Option<Syntax>), MalformedName> {
    let known = ATTRIBUTE_TYPES.iter().find(|(short, dotted, _)| *dotted == text || short.eq_ignore_ascii_case(text));
    if let Some((_, dotted, syntax)) = known {
        return Ok(((*dotted).to_owned(), Some(*syntax)));
    }
    // RFC 4512 §1.4: numericoid = number 1*( DOT number ), a number without leading zeros.
    let is_number = |part: &str| {
        part.bytes().all(|octet| octet.is_ascii_digit())
            && !part.is_empty()
            && (part == "0" || !part.starts_with('0'))
            && part.len() <= 36
    };
    let mut parts = text.split('.');
    let root = parts.next().filter(|root| matches!(*root, "0" | "1" | "2"));
    let second = parts.next().filter(|second| {
        is_number(second) && (root == Some("2") || second.parse::<u8>().is_ok_and(|second| second < 40))
    });
    if root.is_none() || second.is_none() || !parts.all(is_number) {
        return Err(MalformedName("an attribute type is neither a known short name nor a dotted object identifier"));
    }
    Ok((text.to_owned(), None))
}

/// Reads a value up to an unescaped `,` or `+`, gives it and the rest from there.
fn attribute_value(text: &str, syntax: Option<Syntax>) -> Result<(Value, &str), MalformedName> {
    if let Some(digits) = text.strip_prefix('#') {
        let end = digits.find([',', '+']).unwrap_or(digits.len());
        let octets = hex::decode(&digits[..end]).map_err(|_| MalformedName("`#` is followed by hexadecimal digits"))?;
        let mut input = &octets[..];
        let value = Value::from_element(der::take(&mut input)?)?;
        if !input.is_empty() {
            return Err(MalformedName("`#` is followed by more than one value"));
        }
        return Ok((value, &digits[end..]));
    }
    let mut octets = Vec::new();
    let mut significant = 0; // how many octets stand up to the last that is not a bare space
    let bytes = text.as_bytes();
    let mut at = 0;
    while let Some(&octet) = bytes.get(at) {
        match octet {
            b',' | b'+' => break,
            0 | b'"' | b';' | b'<' | b'>' => {
                return Err(MalformedName("one of the characters \" ; < > stands without a backslash"));
            }
            b'\\' => {
                let pair = bytes.get(at + 1..).unwrap_or_default();
                match pair {
                    [special @ (b'"' | b'+' | b',' | b';' | b'<' | b'>' | b' ' | b'#' | b'=' | b'\\'), ..] => {
                        octets.push(*special);
                        at += 2;
                    }
                    [high, low, ..] => {
                        let decoded = hex::decode([*high, *low]);
                        let decoded = decoded.map_err(|_| MalformedName("a backslash escapes nothing"))?;
                        octets.extend(decoded);
                        at += 3;
                    }
                    _ => return Err(MalformedName("a backslash escapes nothing")),
                }
                significant = octets.len();
            }
            b' ' => {
                if octets.is_empty() {
                    return Err(MalformedName("a value begins with a space: no spaces belong around `=` and `,`"));
                }
                octets.push(octet);
                at += 1;
            }
            _ => {
                octets.push(octet);
                at += 1;
                significant = octets.len();
            }
        }
    }
    if significant < octets.len() {
        return Err(MalformedName("a value ends with a space: no spaces belong around `=` and `,`"));
    }
    let value = match syntax {
        Some(Syntax::Directory) => {
            Value::Directory(String::from_utf8(octets).map_err(|_| MalformedName("a value is not UTF-8"))?)
        }
        Some(Syntax::Ia5) => Value::from_element(der::Element { tag: der::IA5_STRING, contents: &octets })?,
        // Its syntax is not known here, so text would be a guess (RFC 4514 §2.4 writes such values as `#` and DER).
        None => return Err(MalformedName("the value of a dotted attribute type is written as `#` and its DER")),
    };
    Ok((value, &text[at..]))
}

/// RFC 4518 §2 as RFC 5280 §7.1 takes it, except that what would be mapped to nothing is refused: it can only deceive.
fn prepare(stored: &str) -> Result<String, MalformedName> {
    let mut text = prepare_once(stored)?;
    // NFKC can bring forth what case folding would have folded. A second look settles it, or the name is left alone.
    for _ in 0..3 {
        if text.is_ascii() {
            return Ok(text);
        }
        let again = prepare_once(&text)?;
        if again == text {
            return Ok(text);
        }
        text = again;
    }
    Err(MalformedName("a string has no stable prepared form"))
}

fn prepare_once(stored: &str) -> Result<String, MalformedName> {
    let mut mapped = String::with_capacity(stored.len());
    for character in stored.chars() {
        // §2.2, Map: controls and invisible characters, all refused; separators are spaces; case is folded.
        if is_invisible(character) {
            return Err(MalformedName("a string has a control or invisible character"));
        }
        if tables::x520_mapped_to_space(character) {
            mapped.push(' ');
        } else {
            mapped.extend(tables::case_fold_for_nfkc(character));
        }
    }
    // §2.3, Normalize. ASCII is its own normal form.
    // A ligature can grow to eighteen characters: what then is too long for a name is not looked at any further.
    let normal = if mapped.is_ascii() { mapped } else { mapped.nfkc().take(LONGEST_TEXT_BYTES + 1).collect() };
    if normal.len() > LONGEST_TEXT_BYTES {
        return Err(MalformedName("the distinguished name is too long"));
    }
    // §2.4, Prohibit.
    if !normal.is_ascii()
        && normal.chars().any(|character| {
            is_invisible(character)
                || tables::unassigned_code_point(character)
                || tables::private_use(character)
                || tables::non_character_code_point(character)
        })
    {
        return Err(MalformedName("a string has a character that RFC 4518 prohibits"));
    }
    // §2.6.1: spaces at the ends do not count, nor how many stand together. One where the RFC writes two, none at the ends.
    let mut out = String::with_capacity(normal.len());
    for word in normal.split(' ').filter(|word| !word.is_empty()) {
        if !out.is_empty() {
            out.push(' ');
        }
        out.push_str(word);
    }
    Ok(out)
}

fn is_invisible(character: char) -> bool {
    if character.is_ascii() {
        return character.is_ascii_control();
    }
    character.is_control()
        || tables::commonly_mapped_to_nothing(character)
        || tables::x520_mapped_to_nothing(character)
        || tables::change_display_properties_or_deprecated(character)
        || tables::tagging_character(character)
        || matches!(character,
            '\u{06DD}' | '\u{070F}' | '\u{180E}' | '\u{200B}'..='\u{200F}' | '\u{2060}'..='\u{2063}' | '\u{FFF9}'..='\u{FFFD}'
            | '\u{1D173}'..='\u{1D17A}')
}

// ---- alternative names --------------------------------------------------------------------------------------------

/// The canonical form of a DNS name (RFC 5280 §4.2.1.6: the preferred syntax of RFC 1034 §3.5).
///
/// # Errors
/// [`MalformedName`] with what is wrong.
pub fn dns_name(text: &str) -> Result<String, MalformedName> {
    if text.is_empty() || text.len() > 253 {
        return Err(MalformedName("a DNS name has 1 to 253 characters"));
    }
    for label in text.split('.') {
        if label.is_empty() || label.len() > 63 {
            return Err(MalformedName("the labels of a DNS name have 1 to 63 characters; no dot at the ends"));
        }
        if !label.bytes().all(|octet| octet.is_ascii_alphanumeric() || octet == b'-') {
            return Err(MalformedName(
                "a DNS name has letters, digits and hyphens only (A-labels for others, and no wildcard)",
            ));
        }
        if label.starts_with('-') || label.ends_with('-') {
            return Err(MalformedName("a label of a DNS name has a hyphen at its end"));
        }
    }
    if text.rsplit('.').next().is_some_and(|last| last.bytes().all(|octet| octet.is_ascii_digit())) {
        return Err(MalformedName("this is an IP address, not a DNS name"));
    }
    Ok(text.to_ascii_lowercase())
}

/// The canonical form of a URI (RFC 5280 §7.4, RFC 3986 §6).
///
/// # Errors
/// [`MalformedName`] with what is wrong; also where the text is not in normal form already.
pub fn uri(text: &str) -> Result<String, MalformedName> {
    if text.len() > LONGEST_TEXT_BYTES {
        return Err(MalformedName("the URI is too long"));
    }
    let (scheme, rest) = text.split_once(':').ok_or(MalformedName("a URI begins with its scheme and a colon"))?;
    // RFC 3986 §3.1
    if !scheme.starts_with(|first: char| first.is_ascii_alphabetic())
        || !scheme.bytes().all(|octet| octet.is_ascii_alphanumeric() || matches!(octet, b'+' | b'-' | b'.'))
    {
        return Err(MalformedName("a URI begins with its scheme and a colon"));
    }
    let scheme = scheme.to_ascii_lowercase();
    check_uri_characters(rest)?;
    let Some(hierarchical) = rest.strip_prefix("//") else {
        if rest.is_empty() || matches!(scheme.as_str(), "http" | "https" | "ftp" | "ldap" | "spiffe") {
            return Err(MalformedName("the URI has no host"));
        }
        check_path(rest)?;
        return Ok(format!("{scheme}:{rest}"));
    };
    let end = hierarchical.find(['/', '?', '#']).unwrap_or(hierarchical.len());
    let (authority, path) = hierarchical.split_at(end);
    if authority.contains('@') {
        return Err(MalformedName("a URI that names somebody has no user information before its host"));
    }
    if authority.contains('%') {
        return Err(MalformedName("the host of a URI is written without percent signs"));
    }
    let (host, port) = split_port(authority)?;
    if host.is_empty() {
        return Err(MalformedName("the URI has no host"));
    }
    let default_port = match scheme.as_str() {
        "http" => Some("80"),
        "https" => Some("443"),
        "ftp" => Some("21"),
        "ldap" => Some("389"),
        _ => None,
    };
    if let Some(port) = port
        && (port.is_empty()
            || port.starts_with('0')
            || !port.bytes().all(|octet| octet.is_ascii_digit())
            || Some(port) == default_port)
    {
        return Err(MalformedName("the URI states its scheme's default port, or one that is not a number"));
    }
    check_path(path)?;
    let slash = if default_port.is_some() && !path.starts_with('/') { "/" } else { "" };
    Ok(format!("{scheme}://{}{slash}{path}", authority.to_ascii_lowercase()))
}

fn split_port(authority: &str) -> Result<(&str, Option<&str>), MalformedName> {
    if let Some(literal) = authority.strip_prefix('[') {
        let (address, after) = literal.split_once(']').ok_or(MalformedName("the host of the URI is malformed"))?;
        address.parse::<Ipv6Addr>().map_err(|_| MalformedName("the host of the URI is malformed"))?;
        return match after.strip_prefix(':') {
            _ if after.is_empty() => Ok((address, None)),
            Some(port) => Ok((address, Some(port))),
            None => Err(MalformedName("the host of the URI is malformed")),
        };
    }
    if authority.contains(['[', ']']) {
        return Err(MalformedName("the host of the URI is malformed"));
    }
    Ok(authority.split_once(':').map_or((authority, None), |(host, port)| (host, Some(port))))
}

/// RFC 3986 §2, and §6.2.2: percent-encoding in upper case, and never of a character that needs none.
fn check_uri_characters(text: &str) -> Result<(), MalformedName> {
    let mut octets = text.bytes();
    let mut fragments = 0;
    while let Some(octet) = octets.next() {
        match octet {
            b'%' => {
                let (high, low) = (octets.next(), octets.next());
                let digit = |octet: Option<u8>| match octet {
                    Some(octet @ b'0'..=b'9') => Some(octet - b'0'),
                    Some(octet @ b'A'..=b'F') => Some(octet - b'A' + 10),
                    _ => None,
                };
                let (Some(high), Some(low)) = (digit(high), digit(low)) else {
                    return Err(MalformedName("a percent sign is followed by two hexadecimal digits in upper case"));
                };
                let encoded = high << 4 | low;
                if encoded.is_ascii_alphanumeric() || matches!(encoded, b'-' | b'.' | b'_' | b'~') {
                    return Err(MalformedName("the URI encodes a character that needs no encoding"));
                }
            }
            b'#' => fragments += 1,
            _ if octet.is_ascii_alphanumeric() || b"-._~:/?[]@!$&'()*+,;=".contains(&octet) => {}
            _ => return Err(MalformedName("the URI has a character that RFC 3986 does not allow")),
        }
    }
    if fragments > 1 { Err(MalformedName("the URI has two fragments")) } else { Ok(()) }
}

/// RFC 3986 §6.2.2.3: a path in normal form has no dot segments.
fn check_path(rest: &str) -> Result<(), MalformedName> {
    let path = &rest[..rest.find(['?', '#']).unwrap_or(rest.len())];
    if path.split('/').any(|segment| matches!(segment, "." | "..")) {
        return Err(MalformedName("the path of the URI has a dot segment"));
    }
    Ok(())
}

/// Whether `uri` begins with `prefix`, both canonical, and the prefix ends where a part of the URI ends: the prefix
/// `https://bank.example` is not that of `https://bank.example.org/` nor of `https://bank.example@evil.example/`.
fn uri_is_below(uri: &str, prefix: &str) -> bool {
    let Some(rest) = uri.strip_prefix(prefix) else { return false };
    let separators: &[char] = if prefix.contains("://") { &['/', '?', '#'] } else { &[':', '/', '?', '#'] };
    rest.is_empty() || prefix.ends_with(separators) || rest.starts_with(separators)
}

/// The canonical form of an IP address: never a zone, never leading zeros.
///
/// # Errors
/// [`MalformedName`] if it is none.
pub fn ip_address(text: &str) -> Result<String, MalformedName> {
    text.parse::<IpAddr>().map(|address| address.to_string()).map_err(|_| MalformedName("this is not an IP address"))
}

// RFC 5280 §4.2.1.6: four octets or sixteen, in network byte order. Another length is no address at all.
fn ip_octets(octets: &[u8]) -> Result<String, MalformedName> {
    if let Ok(octets) = <[u8; 4]>::try_from(octets) {
        return Ok(Ipv4Addr::from(octets).to_string());
    }
    <[u8; 16]>::try_from(octets)
        .map(|octets| Ipv6Addr::from(octets).to_string())
        .map_err(|_| MalformedName("an iPAddress has neither 4 nor 16 octets"))
}

/// The canonical form of an e-mail address (RFC 5280 §7.5): RFC 5321 §4.1.2 without quoted local parts.
///
/// # Errors
/// [`MalformedName`] with what is wrong.
pub fn email_address(text: &str) -> Result<String, MalformedName> {
    let (local, host) = text.rsplit_once('@').ok_or(MalformedName("an e-mail address has an @"))?;
    let is_atom = |atom: &str| {
        !atom.is_empty()
            && atom.bytes().all(|octet| octet.is_ascii_alphanumeric() || b"!#$%&'*+-/=?^_`{|}~".contains(&octet))
    };
    if local.len() > 64 || !local.split('.').all(is_atom) {
        return Err(MalformedName("the local part of the e-mail address is malformed"));
    }
    Ok(format!("{local}@{}", dns_name(host)?))
}

#[cfg(test)]
mod tests {
    use countersign_conformance::pki::{AltName, Attribute as Made, Name as MadeName};
    use proptest::prelude::*;

    use super::*;

    fn dn(text: &str) -> String {
        distinguished_name(text).unwrap()
    }

    fn subject(name: &MadeName) -> Result<Names, MalformedName> {
        Names::read(&name.to_der(), None)
    }

    fn canonical(name: &MadeName) -> String {
        subject(name).unwrap().subject.unwrap()
    }

    fn with_alt_names(names: &[AltName]) -> Result<Names, MalformedName> {
        // The extension's contents as the factory writes them, taken out of a certificate.
        let template = countersign_conformance::pki::Template::client(MadeName::common("client"), 0)
            .with_alt_names(names.iter().cloned());
        let made =
            countersign_conformance::pki::Credential::self_signed(&template, countersign_conformance::KeyKind::P256);
        super::super::ParsedCertificate::read(made.certificate()).unwrap().names().cloned()
    }

    #[test]
    fn text_and_encoding_of_one_name_are_one() {
        let name =
            MadeName::of(&[("C", "DE"), ("O", "Example, Inc."), ("OU", "#1 \"A+B\" <x>;\\="), ("CN", "client 7")]);
        let text = r#"CN=client 7,OU=\#1 \"A\+B\" \<x\>\;\\=,O=Example\, Inc.,C=DE"#;
        assert_eq!(canonical(&name), dn(text));
        assert_eq!(dn(text), r"cn=client 7,ou=\231 \22a\2bb\22 \3cx\3e\3b\5c\3d,o=example\2c inc.,c=de");
        // The examples of RFC 4514 §4 that name known types.
        for (text, expected) in [
            ("UID=jsmith,DC=example,DC=net", "uid=jsmith,dc=example,dc=net"),
            ("OU=Sales+CN=J.  Smith,DC=example,DC=net", "cn=j. smith+ou=sales,dc=example,dc=net"),
            (r#"CN=James \"Jim\" Smith\, III,DC=example,DC=net"#, r"cn=james \22jim\22 smith\2c iii,dc=example,dc=net"),
            (r"CN=Lu\C4\8Di\C4\87", "cn=lučić"),
            ("1.3.6.1.4.1.1466.0=#04024869", "1.3.6.1.4.1.1466.0=#04024869"),
        ] {
            assert_eq!(dn(text), expected);
        }
        // RFC 4514 §4: "Before\0dAfter" has a control character, which is nobody's name here.
        assert!(distinguished_name(r"CN=Before\0dAfter,DC=example,DC=net").is_err());
    }

    #[test]
    fn what_matches() {
        let same = |one: &str, other: &str| assert_eq!(dn(one), dn(other), "{one} and {other}");
        same("CN=Client", "cn=cLIENT"); // case
        same("CN=a  b", "CN=a b"); // spaces in a row
        same(r"CN=\ a\ ", "CN=a"); // spaces at the ends
        same("O=x+OU=y", "OU=y+O=x"); // one RDN is a set
        same("2.5.4.3=#0c0161", "CN=a"); // dotted type and encoded value
        same("CN=#130161", "CN=a"); // PrintableString and UTF8String
        same("CN=STRASSE", "CN=straße"); // case folding by RFC 3454 B.2
        same("CN=\u{212B}", "CN=\u{E5}"); // Angstrom sign, a with ring: NFKC
        same("CN=e\u{301}", "CN=\u{E9}"); // combining and composed
        same("CN=a\u{A0}b", "CN=a b"); // any separator is a space
    }

    #[test]
    fn what_does_not_match() {
        let names = [
            "CN=client",
            "O=client",
            "CN=client,O=client",
            "O=client,CN=client", // order
            "CN=client+O=client", // one RDN or two
            "CN=client,O=client,C=DE",
            "CN=cliemt",
            r"CN=client\,O\=client",
            "CN=#1606636c69656e74",             // IA5String
            "CN=#1406636c69656e74",             // TeletexString
            "CN=#1e0c0063006c00690065006e0074", // BMPString
            "CN=#1206636c69656e74",             // NumericString, of all things
            "DC=client",
            "DC=Client", // IA5String: identical octets
            "DC=#0c06636c69656e74",
            "emailAddress=client@a.example",
            "emailAddress=client@A.example",
            "1.2.3.4=#0c06636c69656e74",
            "1.2.3.5=#0c06636c69656e74",
        ];
        for (index, one) in names.iter().enumerate() {
            for other in &names[index + 1..] {
                assert_ne!(dn(one), dn(other), "{one} and {other}");
            }
        }
    }

    #[test]
    fn what_is_not_rfc_4514() {
        for wrong in [
            "",
            "client",
            "CN = client",
            "CN=client, O=x",
            "CN=client ,O=x",
            " CN=client",
            "/CN=client/O=x",
            "CN=client;O=x",
            "CN=\"client\"",
            "CN=client,",
            ",CN=client",
            "CN=client+",
            "CN=a\\",
            "CN=a\\g0",
            "CN=a\\0",
            "CN=a<b",
            "CN=#",
            "CN=#0",
            "CN=#0c0161ff",
            "CN=#0c810161",
            "CN=#0c01ff",
            "OID.2.5.4.3=x",
            "2.5.4.03=#0c0161",
            "2.50.1=#0c0161x",
            "1.40.1=#0c0161",
            "3.1.1=#0c0161",
            "1=#0c0161",
            "1.2.3=text",
            "unknown=x",
            "CN=\0",
            r"CN=\00",
            "CN=a\u{200B}b",
            "CN=a\u{202E}b",
            "CN=a\u{AD}b",
            "CN=a\u{E000}",
            "CN=\u{FFFD}",
            "CN=a+CN=A",
            r"CN=\ff",
        ] {
            assert!(distinguished_name(wrong).is_err(), "{wrong:?}");
        }
    }

    #[test]
    fn names_in_certificates_that_two_readers_could_read_differently() {
        let bent = |tag, value: &[u8]| {
            let mut attribute = Made::new("CN", "").tagged(tag);
            attribute.value = value.to_vec();
            subject(&MadeName(vec![vec![attribute]]))
        };
        assert!(bent(der::UTF8_STRING, b"client\0evil").is_err());
        assert!(bent(der::UTF8_STRING, b"client\xff").is_err());
        assert!(bent(der::PRINTABLE_STRING, b"client\0").is_err());
        assert!(bent(der::PRINTABLE_STRING, "clienté".as_bytes()).is_err());
        assert!(bent(der::IA5_STRING, b"client\0").is_err());
        assert!(bent(der::IA5_STRING, b"client\x80").is_err());
        assert!(bent(der::UTF8_STRING, b"client").is_ok());
        assert!(subject(&MadeName(vec![vec![]])).is_err());
        let twice = MadeName(vec![vec![Made::new("CN", "a"), Made::new("CN", "A")]]);
        assert!(subject(&twice).is_err());
        // A Name with something after its last RDN that is not one.
        let mut trailing = MadeName::common("client").to_der();
        trailing[1] += 1;
        trailing.push(0);
        assert!(Names::read(&trailing, None).is_err());
    }

    #[test]
    fn a_name_that_grows_beyond_measure() {
        let grows = "\u{FDFA}".repeat(300); // 900 octets as stored, ten thousand when prepared
        assert!(subject(&MadeName::of(&[("CN", &grows)])).is_err());
        assert!(subject(&MadeName::of(&[("CN", &"\u{FDFA}".repeat(10))])).is_ok());
    }

    #[test]
    fn the_string_type_of_a_certificate_counts_only_where_it_is_neither_printable_nor_utf8() {
        let of = |tag| canonical(&MadeName(vec![vec![Made::new("CN", "Client").tagged(tag)]]));
        assert_eq!(of(der::UTF8_STRING), "cn=client");
        assert_eq!(of(der::PRINTABLE_STRING), "cn=client");
        assert_eq!(of(der::IA5_STRING), "cn=#1606436c69656e74");
        assert_eq!(of(0x14), "cn=#1406436c69656e74");
    }

    #[test]
    fn dns_names() {
        for (text, expected) in
            [("Client.A.example", "client.a.example"), ("xn--bcher-kva.example", "xn--bcher-kva.example"), ("a", "a")]
        {
            assert_eq!(dns_name(text).unwrap(), expected);
        }
        for wrong in [
            "",
            ".",
            "a.",
            ".a",
            "a..b",
            "*.a",
            "a_b.example",
            "-a.b",
            "a-.b",
            "a b",
            "bücher.example",
            "192.0.2.7",
            "a.1",
            "a\0.b",
            &"a".repeat(64),
            &"a.".repeat(127),
        ] {
            assert!(dns_name(wrong).is_err(), "{wrong:?}");
        }
    }

    #[test]
    fn uris() {
        for (text, expected) in [
            ("HTTPS://A.Example/Path?Q#F", "https://a.example/Path?Q#F"),
            ("https://a.example", "https://a.example/"),
            ("https://a.example:8443/x", "https://a.example:8443/x"),
            ("https://[2001:DB8::1]/", "https://[2001:db8::1]/"),
            ("spiffe://Domain.example/Client", "spiffe://domain.example/Client"),
            ("urn:example:Client:7", "urn:example:Client:7"),
            ("https://a.example/%C3%A9", "https://a.example/%C3%A9"),
        ] {
            assert_eq!(uri(text).unwrap(), expected);
            assert_eq!(uri(expected).unwrap(), expected);
        }
        for wrong in [
            "",
            "a.example",
            "//a.example",
            "1a:b",
            "a:",
            "https:",
            "https:a",
            "https://",
            "https:///x",
            "spiffe:a",
            "https://user@a.example/",
            "https://a.example:443/",
            "https://a.example:/",
            "https://a.example:0443/",
            "https://a.example:x/",
            "https://a.example/%c3",
            "https://a.example/%41",
            "https://a.example/%",
            "https://a.example/%2E%2E/",
            "https://a.example/a/../b",
            "https://a.example/.",
            "https://a%2Eexample/",
            "https://a.example/ x",
            "https://a.example/\"",
            "https://a.example/é",
            "https://a.example/#a#b",
            "https://[::1/",
            "https://[::1]x/",
            "https://[x]/",
            "https://a[b]/",
        ] {
            assert!(uri(wrong).is_err(), "{wrong:?}");
        }
    }

    #[test]
    fn ip_addresses_are_octets() {
        assert_eq!(ip_address("2001:DB8:0:0::1").unwrap(), "2001:db8::1");
        assert_ne!(ip_address("192.0.2.7").unwrap(), ip_address("::ffff:192.0.2.7").unwrap());
        assert_eq!(ip_octets(&[192, 0, 2, 7]).unwrap(), "192.0.2.7");
        let mapped = [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xFF, 0xFF, 192, 0, 2, 7];
        assert_eq!(ip_octets(&mapped).unwrap(), ip_address("::ffff:192.0.2.7").unwrap());
        for wrong in ["192.0.2.07", "192.0.2", "fe80::1%eth0", "[::1]", "0x7f000001", ""] {
            assert!(ip_address(wrong).is_err(), "{wrong:?}");
        }
        for length in [0, 1, 3, 5, 8, 15, 17, 32] {
            assert!(ip_octets(&vec![1; length]).is_err(), "{length}");
        }
    }

    #[test]
    fn email_addresses() {
        assert_eq!(email_address("Ops.Team+x@Mail.Example").unwrap(), "Ops.Team+x@mail.example");
        assert_ne!(email_address("Ops@a.example").unwrap(), email_address("ops@a.example").unwrap());
        for wrong in [
            "",
            "a",
            "@a.example",
            "a@",
            "a@b@c.example",
            ".a@b",
            "a.@b",
            "a..b@c",
            "\"a\"@b",
            "a b@c",
            "a@[192.0.2.1]",
        ] {
            assert!(email_address(wrong).is_err(), "{wrong:?}");
        }
    }

    #[test]
    fn one_text_under_another_kind_is_another_name() {
        let names =
            with_alt_names(&[AltName::Dns("client.example".to_owned()), AltName::Uri("a:192.0.2.7".to_owned())])
                .unwrap();
        let rule = |attribute, text| names.match_rule(&subject_rule(attribute, text).unwrap());
        assert!(rule(SubjectAttribute::TlsClientAuthSanDns, "CLIENT.example"));
        assert!(!rule(SubjectAttribute::TlsClientAuthSubjectDn, "CN=client.example"));
        assert!(!rule(SubjectAttribute::TlsClientAuthSanUri, "a:client.example"));
        assert!(!rule(SubjectAttribute::TlsClientAuthSanIp, "192.0.2.7"));
        assert!(rule(SubjectAttribute::TlsClientAuthSubjectDn, "CN=client"));
    }

    #[test]
    fn alternative_names_that_two_readers_could_read_differently() {
        for tag in [0x81, 0x82, 0x86] {
            for octets in [&b"a.example\0.evil.example"[..], b"a.ex\xC3\xA9mple", b"a.example\n", b"\x7F"] {
                assert!(with_alt_names(&[AltName::Raw(tag, octets.to_vec())]).is_err(), "{tag:#x} {octets:?}");
            }
        }
        for octets in [vec![], vec![1; 5], vec![1; 17]] {
            assert!(with_alt_names(&[AltName::Raw(0x87, octets)]).is_err());
        }
        assert!(with_alt_names(&[AltName::Raw(0x89, vec![])]).is_err());
        assert!(with_alt_names(&vec![AltName::Dns("a.example".to_owned()); MOST_ALT_NAMES]).is_ok());
        assert!(with_alt_names(&vec![AltName::Dns("a.example".to_owned()); MOST_ALT_NAMES + 1]).is_err());
        // Legal, and yet no rule can name them.
        let names = with_alt_names(&[AltName::Dns("*.a.example".to_owned()), AltName::Email("a".to_owned())]).unwrap();
        assert_eq!((names.dns.len(), names.emails.len()), (0, 0));
        assert_eq!(names.unmatchable.as_deref(), Some("DNS:*.a.example"));
    }

    #[test]
    fn a_prefix_ends_where_a_part_of_the_uri_ends() {
        let below = |name: &str, prefix: &str| uri_is_below(&uri(name).unwrap(), &uri(prefix).unwrap());
        assert!(below("https://a.example/x", "https://a.example"));
        assert!(below("spiffe://a.example/x", "spiffe://a.example"));
        assert!(below("spiffe://a.example/ns/x", "spiffe://a.example/ns"));
        assert!(below("spiffe://a.example", "spiffe://a.example"));
        assert!(below("urn:example:a:1", "urn:example:a"));
        assert!(!below("urn:example:ab", "urn:example:a"));
        assert!(!below("spiffe://a.example.org/x", "spiffe://a.example"));
        assert!(!below("spiffe://a.example:1/x", "spiffe://a.example"));
        assert!(!below("spiffe://a.example/nsx", "spiffe://a.example/ns"));
        assert!(!below("http://a.example/x", "https://a.example"));
    }

    proptest! {
        #[test]
        fn a_canonical_name_is_its_own_canonical_form(
            values in proptest::collection::vec(proptest::collection::vec((0..ATTRIBUTE_TYPES.len(), ".{0,12}"), 1..3), 1..4)
        ) {
            let name: Name = values
                .iter()
                .map(|rdn| {
                    rdn.iter()
                        .map(|(kind, value)| Attribute {
                            kind: ATTRIBUTE_TYPES[*kind].1.to_owned(),
                            value: Value::Directory(value.clone()),
                        })
                        .collect()
                })
                .collect();
            if let Ok(canonical) = write_name(&name, Spelling::Prepared) {
                prop_assert_eq!(distinguished_name(&canonical), Ok(canonical));
            }
        }

        #[test]
        fn what_is_stored_is_read_back_from_text(
            values in proptest::collection::vec((0..ATTRIBUTE_TYPES.len(), "[ -~é]{1,12}"), 1..4)
        ) {
            let name: Name = values
                .iter()
                .map(|(kind, value)| {
                    let (_, dotted, syntax) = ATTRIBUTE_TYPES[*kind];
                    let value = match syntax {
                        Syntax::Ia5 if value.is_ascii() => {
                            Value::Other { tag: der::IA5_STRING, contents: value.as_bytes().to_vec() }
                        }
                        Syntax::Directory | Syntax::Ia5 => Value::Directory(value.clone()),
                    };
                    vec![Attribute { kind: dotted.to_owned(), value }]
                })
                .collect();
            let text = write_name(&name, Spelling::Stored).unwrap();
            prop_assert_eq!(parse_name(&text), Ok(name));
        }

        #[test]
        fn preparing_twice_changes_nothing(text in ".{0,20}") {
            if let Ok(prepared) = prepare(&text) {
                prop_assert_eq!(prepare(&prepared), Ok(prepared));
            }
        }

        #[test]
        fn other_canonical_forms_are_their_own(text in "[a-zA-Z0-9:/?#@.%_~+-]{0,24}") {
            for canonical in [dns_name, uri, ip_address, email_address] {
                if let Ok(once) = canonical(&text) {
                    prop_assert_eq!(canonical(&once), Ok(once));
                }
            }
        }

        #[test]
        fn foreign_octets_never_panic(octets in proptest::collection::vec(any::<u8>(), 0..64), text in ".{0,64}") {
            let _ = Names::read(&octets, Some(&octets));
            let _ = distinguished_name(&text);
            let _ = uri(&text);
        }
    }
}
