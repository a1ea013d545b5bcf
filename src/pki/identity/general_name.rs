//! Alternative names: DNS names, URIs, IP addresses and e-mail addresses, each to its one canonical text.
//!
//! Takes text or octets, gives canonical text, or says what is wrong with it. It knows nothing of certificates.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use super::{LONGEST_TEXT_BYTES, MalformedName};

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

/// RFC 3986 §6.2.2.3: a path in normal form has no dot segments. §3.2.2: brackets stand around an address only.
fn check_path(rest: &str) -> Result<(), MalformedName> {
    if rest.contains(['[', ']']) {
        return Err(MalformedName("the URI has a character that RFC 3986 does not allow"));
    }
    let path = &rest[..rest.find(['?', '#']).unwrap_or(rest.len())];
    if path.split('/').any(|segment| matches!(segment, "." | "..")) {
        return Err(MalformedName("the path of the URI has a dot segment"));
    }
    Ok(())
}

/// Whether `uri` begins with `prefix`, both canonical, and the prefix ends where a part of the URI ends: the prefix
/// `https://bank.example` is not that of `https://bank.example.org/` nor of `https://bank.example@evil.example/`.
pub(super) fn uri_is_below(uri: &str, prefix: &str) -> bool {
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
pub(super) fn ip_octets(octets: &[u8]) -> Result<String, MalformedName> {
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
