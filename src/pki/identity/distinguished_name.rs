//! Distinguished names: from their encoding and from RFC 4514 text to one canonical text.
//!
//! Takes a Name in DER or text, gives RFC 4514 text: as stored, for people, or prepared by RFC 4518, for comparing
//! (RFC 5280 §7.1). It knows nothing of certificates.

use stringprep::tables;
use unicode_normalization::UnicodeNormalization;
use unicode_normalization::char::is_combining_mark;

use super::{LONGEST_TEXT_BYTES, MalformedName};
use crate::pki::der;

/// A Name, in the order it is encoded: from the root to the most specific RDN.
pub(super) type Name = Vec<Vec<Attribute>>;

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Attribute {
    /// The type in dotted form.
    pub(super) kind: String,
    pub(super) value: Value,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Value {
    /// A PrintableString or UTF8String, as stored.
    Directory(String),
    /// Anything else: matched by type and octets.
    Other { tag: u8, contents: Vec<u8> },
}

/// How an attribute's value is written as text.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Syntax {
    Directory,
    /// One label of a domain in an IA5String, compared without case (RFC 5280 §7.3).
    DomainLabel,
    Ia5,
}

/// The short names: the nine every implementation knows (RFC 4514 §3), others of RFC 4519 §2, and three that certificates use.
pub(super) const ATTRIBUTE_TYPES: &[(&str, &str, Syntax)] = &[
    ("C", "2.5.4.6", Syntax::Directory),
    ("CN", "2.5.4.3", Syntax::Directory),
    ("DC", "0.9.2342.19200300.100.1.25", Syntax::DomainLabel),
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

/// Further names that are understood where an operator writes one, never written here: those that RFC 4519 §4 registers
/// for the types above, X.520's own, and those that OpenSSL prints for attributes certificates have. What has no syntax
/// here is written as `#` and its DER all the same.
const OTHER_NAMES: &[(&str, &str, Option<Syntax>)] = &[
    ("commonName", "2.5.4.3", Some(Syntax::Directory)),
    ("countryName", "2.5.4.6", Some(Syntax::Directory)),
    ("domainComponent", "0.9.2342.19200300.100.1.25", Some(Syntax::DomainLabel)),
    ("GN", "2.5.4.42", Some(Syntax::Directory)),
    ("jurisdictionC", "1.3.6.1.4.1.311.60.2.1.3", Some(Syntax::Directory)),
    ("jurisdictionL", "1.3.6.1.4.1.311.60.2.1.1", Some(Syntax::Directory)),
    ("jurisdictionST", "1.3.6.1.4.1.311.60.2.1.2", Some(Syntax::Directory)),
    ("localityName", "2.5.4.7", Some(Syntax::Directory)),
    ("name", "2.5.4.41", Some(Syntax::Directory)),
    ("organizationName", "2.5.4.10", Some(Syntax::Directory)),
    ("organizationalUnitName", "2.5.4.11", Some(Syntax::Directory)),
    ("pseudonym", "2.5.4.65", Some(Syntax::Directory)),
    ("stateOrProvinceName", "2.5.4.8", Some(Syntax::Directory)),
    ("streetAddress", "2.5.4.9", Some(Syntax::Directory)),
    ("surname", "2.5.4.4", Some(Syntax::Directory)),
    ("userid", "0.9.2342.19200300.100.1.1", Some(Syntax::Directory)),
    ("x500UniqueIdentifier", "2.5.4.45", None),
];

/// The canonical form of a distinguished name written by RFC 4514, strictly.
///
/// # Errors
/// [`MalformedName`] with what is wrong.
pub fn distinguished_name(text: &str) -> Result<String, MalformedName> {
    write_name(&parse_name(text)?, Spelling::Prepared)
}

pub(super) fn read_name(encoded: &[u8]) -> Result<Name, MalformedName> {
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
            // No attribute is defined by a tag of its own class: OpenSSL reads nothing of a name with one.
            tag if tag & 0xC0 != 0 => return Err(MalformedName("an attribute's value is of no universal type")),
            // X.690 §10.2: strings are primitive. A reader of BER would put the pieces together.
            tag if tag & 0x20 != 0 && !matches!(tag, der::SEQUENCE | der::SET) => return Err(der::NotDer.into()),
            tag => Self::Other { tag, contents: element.contents.to_owned() },
        })
    }
}

/// As stored, for people; or prepared, for comparison.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Spelling {
    Prepared,
    Stored,
}

pub(super) fn write_name(name: &Name, spelling: Spelling) -> Result<String, MalformedName> {
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
        (Value::Other { tag: der::IA5_STRING, contents }, Some(syntax @ (Syntax::DomainLabel | Syntax::Ia5))) => {
            let text = String::from_utf8_lossy(contents); // ASCII: `Value::from_element` has seen to it
            match (syntax, spelling) {
                (Syntax::DomainLabel, Spelling::Prepared) => escape(&text.to_ascii_lowercase()),
                // RFC 5280 §7.1 leaves it open to support a matching rule of its own; §8 tells what emailAddress's confuses.
                _ => escape(&text),
            }
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
pub(super) fn parse_name(text: &str) -> Result<Name, MalformedName> {
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
    if let Some((_, dotted, syntax)) = OTHER_NAMES.iter().find(|(name, ..)| name.eq_ignore_ascii_case(text)) {
        return Ok(((*dotted).to_owned(), *syntax));
    }
    // RFC 4512 §1.4: numericoid = number 1*( DOT number ), a number without leading zeros. As wide as `der::dotted` reads.
    let is_number = |part: &str| {
        part.bytes().all(|octet| octet.is_ascii_digit())
            && !part.is_empty()
            && (part == "0" || !part.starts_with('0'))
            && part.parse::<u128>().is_ok()
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
        Some(Syntax::DomainLabel | Syntax::Ia5) => {
            Value::from_element(der::Element { tag: der::IA5_STRING, contents: &octets })?
        }
        // Its syntax is not known here, so text would be a guess (RFC 4514 §2.4 writes such values as `#` and DER).
        None => return Err(MalformedName("the value of a dotted attribute type is written as `#` and its DER")),
    };
    Ok((value, &text[at..]))
}

const PROHIBITED: &str = "a string has a character that RFC 4518 prohibits";

/// RFC 4518 §2 as RFC 5280 §7.1 takes it, except that what would be mapped to nothing is refused: it can only deceive.
pub(super) fn prepare(stored: &str) -> Result<String, MalformedName> {
    let mut text = prepare_once(stored)?;
    if stored.is_ascii() {
        return Ok(text);
    }
    // NFKC can bring forth what case folding would have folded. A second look settles it, or the name is left alone.
    for _ in 0..3 {
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
        // §2.4, by the tables of Unicode 3.2. A character that is younger is prohibited before a younger NFKC turns it into
        // older ones, whose case nobody has folded: U+213B is "FAX".
        if !character.is_ascii() && tables::unassigned_code_point(character) {
            return Err(MalformedName(PROHIBITED));
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
        return Err(MalformedName(PROHIBITED));
    }
    // §2.6.1: spaces at the ends do not count, nor how many stand together. One where the RFC writes two, none at the ends.
    // One that carries a combining mark is no space: an accent of its own is such a pair once normalised.
    let mut out = String::with_capacity(normal.len());
    let mut after_space = false;
    let mut characters = normal.chars().peekable();
    while let Some(character) = characters.next() {
        if character == ' ' && !characters.peek().is_some_and(|next| is_combining_mark(*next)) {
            after_space = true;
            continue;
        }
        if after_space && !out.is_empty() {
            out.push(' ');
        }
        after_space = false;
        out.push(character);
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
