//! DER as names and extensions need it, strictly: what X.690 §10 forbids is refused, and nothing is left over unread.
//!
//! Takes octets, gives the elements in them. `x509-parser` reads the frame of a certificate but passes over what it
//! cannot read at the end of a SEQUENCE; where a name is decided, that would show one name to us and another to others.

/// One element: its identifier octet and its contents.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Element<'a> {
    pub(super) tag: u8,
    pub(super) contents: &'a [u8],
}

/// The octets are not DER, or not what was expected there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct NotDer;

pub(super) const BOOLEAN: u8 = 0x01;
pub(super) const INTEGER: u8 = 0x02;
pub(super) const BIT_STRING: u8 = 0x03;
pub(super) const OCTET_STRING: u8 = 0x04;
pub(super) const NULL: u8 = 0x05;
pub(super) const OBJECT_IDENTIFIER: u8 = 0x06;
pub(super) const ENUMERATED: u8 = 0x0A;
pub(super) const UTF8_STRING: u8 = 0x0C;
pub(super) const PRINTABLE_STRING: u8 = 0x13;
pub(super) const IA5_STRING: u8 = 0x16;
pub(super) const UTC_TIME: u8 = 0x17;
pub(super) const GENERALIZED_TIME: u8 = 0x18;
pub(super) const SEQUENCE: u8 = 0x30;
pub(super) const SET: u8 = 0x31;

/// Takes the first element off `input`.
pub(super) fn take<'a>(input: &mut &'a [u8]) -> Result<Element<'a>, NotDer> {
    let (&tag, rest) = input.split_first().ok_or(NotDer)?;
    if tag & 0x1F == 0x1F {
        return Err(NotDer); // tags above 30 occur nowhere in a certificate
    }
    let (&first, rest) = rest.split_first().ok_or(NotDer)?;
    let (length, rest) = match first {
        0..=0x7F => (usize::from(first), rest),
        // X.690 §10.1: the definite form, in the fewest octets. Five length octets are more than any limit here lets in.
        0x81 => match rest.split_first().ok_or(NotDer)? {
            (&length, rest) if length >= 0x80 => (usize::from(length), rest),
            _ => return Err(NotDer),
        },
        0x82 => match rest.split_at_checked(2).ok_or(NotDer)? {
            (&[high, low], rest) if high > 0 => (usize::from(u16::from_be_bytes([high, low])), rest),
            _ => return Err(NotDer),
        },
        0x83 => match rest.split_at_checked(3).ok_or(NotDer)? {
            (&[high, middle, low], rest) if high > 0 => {
                (usize::try_from(u32::from_be_bytes([0, high, middle, low])).map_err(|_| NotDer)?, rest)
            }
            _ => return Err(NotDer),
        },
        0x84 => match rest.split_at_checked(4).ok_or(NotDer)? {
            (&[first, second, third, fourth], rest) if first > 0 => {
                (usize::try_from(u32::from_be_bytes([first, second, third, fourth])).map_err(|_| NotDer)?, rest)
            }
            _ => return Err(NotDer),
        },
        _ => return Err(NotDer),
    };
    let (contents, rest) = rest.split_at_checked(length).ok_or(NotDer)?;
    *input = rest;
    Ok(Element { tag, contents })
}

/// Takes the first element off `input`, which must be of this kind.
pub(super) fn expect<'a>(input: &mut &'a [u8], tag: u8) -> Result<&'a [u8], NotDer> {
    let element = take(input)?;
    if element.tag == tag { Ok(element.contents) } else { Err(NotDer) }
}

/// Takes the first element off `input`, which must be of this kind: all of it, and its contents.
pub(super) fn expect_whole<'a>(input: &mut &'a [u8], tag: u8) -> Result<(&'a [u8], &'a [u8]), NotDer> {
    let before = *input;
    let contents = expect(input, tag)?;
    let (whole, _) = before.split_at_checked(before.len() - input.len()).ok_or(NotDer)?;
    Ok((whole, contents))
}

/// The contents of `input`, which must be one element of this kind and nothing else.
pub(super) fn whole(mut input: &[u8], tag: u8) -> Result<&[u8], NotDer> {
    let contents = expect(&mut input, tag)?;
    if input.is_empty() { Ok(contents) } else { Err(NotDer) }
}

/// The URIs of a DistributionPointName (RFC 5280 §4.2.1.13): fullName is a list of general names; a name relative to the
/// issuer's is none that could be fetched or compared here.
pub(super) fn point_uris(mut name: &[u8]) -> Result<Vec<String>, NotDer> {
    let Element { tag, contents: mut names } = take(&mut name)?;
    if !name.is_empty() || !matches!(tag, 0xA0 | 0xA1) {
        return Err(NotDer);
    }
    let mut uris = Vec::new();
    while tag == 0xA0 && !names.is_empty() {
        let name = take(&mut names)?;
        if name.tag == 0x86 {
            let uri = std::str::from_utf8(name.contents).map_err(|_| NotDer)?;
            uris.push(uri.to_owned());
        }
    }
    Ok(uris)
}

/// `contents` under `tag` with its length.
pub(super) fn element(tag: u8, contents: &[u8]) -> Vec<u8> {
    let mut out = vec![tag];
    match contents.len() {
        length @ 0..=0x7F => out.push(length as u8),
        length @ 0x80..=0xFF => out.extend([0x81, length as u8]),
        length => {
            out.push(0x82);
            out.extend((length as u16).to_be_bytes());
        }
    }
    out.extend(contents);
    out
}

/// An object identifier's contents in dotted form (X.690 §8.19), arcs as wide as they come.
pub(super) fn dotted(contents: &[u8]) -> Result<String, NotDer> {
    let mut arcs = Vec::new();
    let mut arc: u128 = 0;
    let mut started = false;
    for &octet in contents {
        if !started && octet == 0x80 {
            return Err(NotDer); // X.690 §8.19.2: the fewest octets
        }
        started = true;
        if arc >> 121 != 0 {
            return Err(NotDer); // wider than a UUID's 128 bits: no registered attribute is
        }
        arc = (arc << 7) | u128::from(octet & 0x7F);
        if octet & 0x80 == 0 {
            arcs.push(arc);
            arc = 0;
            started = false;
        }
    }
    let (&first, others) = arcs.split_first().ok_or(NotDer)?;
    if started {
        return Err(NotDer);
    }
    let root = (first / 40).min(2);
    let mut text = format!("{root}.{}", first - root * 40);
    for arc in others {
        text.push('.');
        text.push_str(&arc.to_string());
    }
    Ok(text)
}

/// RFC 5280 §4.1.2.5: UTCTime or GeneralizedTime, in whole seconds and Z; RFC 6960 §4.2.2.1 has the latter alone. Seconds
/// since 1970.
pub(super) fn time(Element { tag, contents }: Element<'_>) -> Result<i64, NotDer> {
    let (century, rest) = match (tag, contents.len()) {
        // §4.1.2.5.1: 50 and above is 19YY.
        (UTC_TIME, 13) => (if contents.first() >= Some(&b'5') { 19 } else { 20 }, contents),
        (GENERALIZED_TIME, 15) => {
            let (century, rest) = contents.split_at_checked(2).ok_or(NotDer)?;
            (two_digits(century)?, rest)
        }
        _ => return Err(NotDer),
    };
    let mut pairs = rest.chunks_exact(2);
    if pairs.remainder() != b"Z" {
        return Err(NotDer);
    }
    let mut next = || two_digits(pairs.next().ok_or(NotDer)?);
    let (year, month, day) = (century * 100 + next()?, next()?, next()?);
    let (hour, minute, second) = (next()?, next()?, next()?);
    let is_leap = (year % 4 == 0 && year % 100 != 0) || year % 400 == 0;
    let days = match month {
        1 | 3 | 5 | 7 | 8 | 10 | 12 => 31,
        4 | 6 | 9 | 11 => 30,
        2 => 28 + i64::from(is_leap),
        _ => return Err(NotDer),
    };
    if !(1..=days).contains(&day) || hour > 23 || minute > 59 || second > 59 {
        return Err(NotDer);
    }
    // Days since 1970-01-01 in the Gregorian calendar, years beginning in March.
    let (year, month) = if month > 2 { (year, month - 3) } else { (year - 1, month + 9) };
    let (era, of_era) = (year.div_euclid(400), year.rem_euclid(400));
    let of_year = (153 * month + 2) / 5 + day - 1;
    let days = era * 146_097 + of_era * 365 + of_era / 4 - of_era / 100 + of_year - 719_468;
    Ok(days * 86_400 + hour * 3_600 + minute * 60 + second)
}

fn two_digits(octets: &[u8]) -> Result<i64, NotDer> {
    match octets {
        [tens @ b'0'..=b'9', ones @ b'0'..=b'9'] => Ok(i64::from((tens - b'0') * 10 + (ones - b'0'))),
        _ => Err(NotDer),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn times_are_read_as_everyone_reads_them() {
        let read = |tag, text: &str| time(Element { tag, contents: text.as_bytes() });
        for text in
            ["500101000000Z", "700101000000Z", "991231235959Z", "000229120000Z", "491231235959Z", "270115080000Z"]
        {
            let format = time::macros::format_description!("[year][month][day][hour][minute][second]Z");
            let century = if text.as_bytes()[0] >= b'5' { "19" } else { "20" };
            let expected = time::PrimitiveDateTime::parse(&format!("{century}{text}"), &format).unwrap();
            let expected = expected.assume_utc().unix_timestamp();
            assert_eq!(read(UTC_TIME, text), Ok(expected), "{text}");
            assert_eq!(read(GENERALIZED_TIME, &format!("{century}{text}")), Ok(expected), "{text}");
        }
        assert_eq!(read(GENERALIZED_TIME, "99991231235959Z"), Ok(253_402_300_799));
        for wrong in [
            "",
            "2701150800Z",
            "270115080000",
            "270115080000+0100",
            "270115080000.5Z",
            "270115080060Z",
            "270115086000Z",
            "270115240000Z",
            "270229000000Z",
            "271301000000Z",
            "270001000000Z",
            "270100000000Z",
            "27011508000aZ",
            "2701150800 0Z",
        ] {
            assert_eq!(read(UTC_TIME, wrong), Err(NotDer), "{wrong}");
            assert_eq!(read(GENERALIZED_TIME, &format!("20{wrong}")), Err(NotDer), "{wrong}");
        }
        assert_eq!(read(0x16, "270115080000Z"), Err(NotDer));
    }

    #[test]
    fn lengths_take_the_fewest_octets() {
        for wrong in [
            &[0x0C, 0x81, 0x01, b'a'][..],
            &[0x0C, 0x82, 0x00, 0x80],
            &[0x0C, 0x83, 0x00, 0x80, 0x00],
            &[0x0C, 0x84, 0x00, 0x80, 0x00, 0x00],
            &[0x0C, 0x84, 0xFF, 0xFF, 0xFF, 0xFF],
            &[0x0C, 0x85, 0x01, 0x00, 0x00, 0x00, 0x00],
            &[0x0C, 0x80, 0x00, 0x00],
            &[0x0C, 0x02, b'a'],
            &[0x1F, 0x81, 0x00],
            &[0x0C],
            &[],
        ] {
            assert_eq!(take(&mut &*wrong), Err(NotDer), "{wrong:02x?}");
        }
        assert_eq!(whole(&[0x0C, 0x01, b'a', 0x00], UTF8_STRING), Err(NotDer));
    }

    #[test]
    fn object_identifiers_are_dotted() {
        assert_eq!(dotted(&[0x55, 0x04, 0x03]).unwrap(), "2.5.4.3");
        assert_eq!(
            dotted(&[0x09, 0x92, 0x26, 0x89, 0x93, 0xF2, 0x2C, 0x64, 0x01, 0x19]).unwrap(),
            "0.9.2342.19200300.100.1.25"
        );
        assert_eq!(dotted(&[0x88, 0x37]).unwrap(), "2.999");
        for wrong in [&[][..], &[0x80, 0x01], &[0x55, 0x84], &[0x55, 0x80, 0x01]] {
            assert_eq!(dotted(wrong), Err(NotDer), "{wrong:02x?}");
        }
    }

    proptest! {
        #[test]
        fn what_is_written_is_read_back(tag in 0_u8..0x1F, contents in proptest::collection::vec(any::<u8>(), 0..400)) {
            let octets = element(tag, &contents);
            let mut input = &octets[..];
            prop_assert_eq!(take(&mut input), Ok(Element { tag, contents: &contents }));
            prop_assert!(input.is_empty());
        }

        #[test]
        fn foreign_octets_never_panic(octets in proptest::collection::vec(any::<u8>(), 0..64)) {
            let mut input = &octets[..];
            while take(&mut input).is_ok() {}
            let _ = dotted(&octets);
        }
    }
}
