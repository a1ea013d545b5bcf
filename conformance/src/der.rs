//! Writes DER, right or wrong.
//!
//! Takes content, gives tag, length and content (X.690 §8, §10). A certificate library refuses to write what a judge has
//! to show a server: version 1, a second copy of an extension, a key usage that contradicts itself. It knows nothing of
//! what it writes.

/// The tags used here (X.690 §8.1.2).
pub mod tag {
    /// INTEGER
    pub const INTEGER: u8 = 0x02;
    /// BIT STRING
    pub const BIT_STRING: u8 = 0x03;
    /// OCTET STRING
    pub const OCTET_STRING: u8 = 0x04;
    /// UTF8String
    pub const UTF8_STRING: u8 = 0x0C;
    /// NumericString
    pub const NUMERIC_STRING: u8 = 0x12;
    /// PrintableString
    pub const PRINTABLE_STRING: u8 = 0x13;
    /// TeletexString
    pub const TELETEX_STRING: u8 = 0x14;
    /// IA5String
    pub const IA5_STRING: u8 = 0x16;
    /// UTCTime
    pub const UTC_TIME: u8 = 0x17;
    /// GeneralizedTime
    pub const GENERALIZED_TIME: u8 = 0x18;
    /// BMPString
    pub const BMP_STRING: u8 = 0x1E;
    /// SEQUENCE
    pub const SEQUENCE: u8 = 0x30;
    /// SET
    pub const SET: u8 = 0x31;
}

/// Tag, length and content.
pub fn tlv(tag: u8, content: impl AsRef<[u8]>) -> Vec<u8> {
    let content = content.as_ref();
    let mut out = vec![tag];
    if let Ok(short @ 0..=0x7F) = u8::try_from(content.len()) {
        out.push(short);
    } else {
        let bytes = content.len().to_be_bytes();
        let significant = &bytes[bytes.iter().take_while(|byte| **byte == 0).count()..];
        // At most eight octets of length on any machine.
        out.push(0x80 | significant.len() as u8);
        out.extend_from_slice(significant);
    }
    out.extend_from_slice(content);
    out
}

/// A SEQUENCE of parts that are DER already.
pub fn sequence<Part: AsRef<[u8]>>(parts: impl IntoIterator<Item = Part>) -> Vec<u8> {
    tlv(tag::SEQUENCE, concat(parts))
}

/// A SET OF parts that are DER already, in the order DER demands (X.690 §11.6).
pub fn set_of(mut parts: Vec<Vec<u8>>) -> Vec<u8> {
    parts.sort();
    tlv(tag::SET, concat(parts))
}

/// A non-negative INTEGER from its big-endian octets.
pub fn unsigned(big_endian: &[u8]) -> Vec<u8> {
    let zeros = big_endian.iter().take_while(|byte| **byte == 0).count();
    let mut content = big_endian[zeros.min(big_endian.len().saturating_sub(1))..].to_vec();
    if content.first().is_none_or(|first| first & 0x80 != 0) {
        content.insert(0, 0);
    }
    tlv(tag::INTEGER, content)
}

/// A BIT STRING of whole octets.
pub fn bit_string(octets: &[u8]) -> Vec<u8> {
    let mut content = vec![0];
    content.extend_from_slice(octets);
    tlv(tag::BIT_STRING, content)
}

/// A BIT STRING of named bits, bit 0 first, trailing zeros left out (X.690 §11.2.2).
pub fn named_bits(bits: &[u8]) -> Vec<u8> {
    let Some(last) = bits.iter().max() else { return tlv(tag::BIT_STRING, [0]) };
    let mut octets = vec![0_u8; usize::from(last / 8) + 1];
    for bit in bits {
        octets[usize::from(bit / 8)] |= 0x80 >> (bit % 8);
    }
    let mut content = vec![7 - last % 8];
    content.extend(octets);
    tlv(tag::BIT_STRING, content)
}

/// An OBJECT IDENTIFIER.
pub fn oid(arcs: &[u64]) -> Vec<u8> {
    let [first, second, rest @ ..] = arcs else { return tlv(0x06, []) };
    let mut content = Vec::new();
    for arc in std::iter::once(first * 40 + second).chain(rest.iter().copied()) {
        let mut groups = vec![(arc & 0x7F) as u8];
        let mut left = arc >> 7;
        while left > 0 {
            groups.push(0x80 | (left & 0x7F) as u8);
            left >>= 7;
        }
        content.extend(groups.into_iter().rev());
    }
    tlv(0x06, content)
}

/// Parts one after the other.
pub fn concat<Part: AsRef<[u8]>>(parts: impl IntoIterator<Item = Part>) -> Vec<u8> {
    parts.into_iter().fold(Vec::new(), |mut all, part| {
        all.extend_from_slice(part.as_ref());
        all
    })
}

/// Splits the first element off `der`: its tag, its content, and what follows. Only for DER made here.
pub fn split(der: &[u8]) -> Option<(u8, &[u8], &[u8])> {
    let [tag, length, rest @ ..] = der else { return None };
    let (length, rest) = if *length < 0x80 {
        (usize::from(*length), rest)
    } else {
        let (octets, rest) = rest.split_at_checked(usize::from(length & 0x7F))?;
        (octets.iter().fold(0, |sum, octet| sum << 8 | usize::from(*octet)), rest)
    };
    let (content, rest) = rest.split_at_checked(length)?;
    Some((*tag, content, rest))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lengths_are_the_shortest() {
        assert_eq!(tlv(4, [0; 127])[..2], [4, 127]);
        assert_eq!(tlv(4, [0; 128])[..3], [4, 0x81, 128]);
        assert_eq!(tlv(4, [0; 256])[..4], [4, 0x82, 1, 0]);
    }

    #[test]
    fn oids_are_base_128() {
        assert_eq!(oid(&[1, 2, 840, 113_549, 1, 1, 11]), hex("06092a864886f70d01010b"));
        assert_eq!(oid(&[2, 5, 29, 17]), hex("0603551d11"));
    }

    #[test]
    fn integers_stay_positive_and_short() {
        assert_eq!(unsigned(&[0, 0, 0x80]), [2, 2, 0, 0x80]);
        assert_eq!(unsigned(&[0, 0x7F]), [2, 1, 0x7F]);
        assert_eq!(unsigned(&[0]), [2, 1, 0]);
    }

    #[test]
    fn named_bits_drop_trailing_zeros() {
        assert_eq!(named_bits(&[0]), [3, 2, 7, 0x80]);
        assert_eq!(named_bits(&[5, 6]), [3, 2, 1, 0x06]);
        assert_eq!(named_bits(&[8]), [3, 3, 7, 0, 0x80]);
    }

    #[test]
    fn split_undoes_tlv() {
        let written = tlv(0x30, [7; 300]);
        assert_eq!(split(&written), Some((0x30, &[7_u8; 300][..], &[][..])));
        assert_eq!(split(&written[..100]), None);
    }

    fn hex(text: &str) -> Vec<u8> {
        (0..text.len()).step_by(2).map(|at| u8::from_str_radix(&text[at..at + 2], 16).unwrap()).collect()
    }
}
