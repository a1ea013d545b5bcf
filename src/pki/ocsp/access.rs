//! Where a certificate says that its status can be asked for (RFC 5280 §4.2.2.1).
//!
//! Takes the value of its authority information access, gives URLs. They are what the certificate claims: whoever signed it
//! could send us anywhere, so that none of them is asked unless an operator has allowed how it begins.

use crate::pki::der;

/// More URLs than this are not kept: they are asked one after the other, within one time limit.
const MOST_URLS: usize = 4;

/// A longer URL is not kept.
const LONGEST_URL_BYTES: usize = 512;

/// The `id-ad-ocsp` URLs in `value`, in its order.
///
/// # Errors
/// [`der::NotDer`] if the extension cannot be read: then it names none.
// RFC 5280 §4.2.2.1: SEQUENCE SIZE (1..MAX) OF SEQUENCE { accessMethod OBJECT IDENTIFIER, accessLocation GeneralName }
pub(in crate::pki) fn responder_urls(value: &[u8]) -> Result<Vec<String>, der::NotDer> {
    const OCSP: &[u8] = &[0x2B, 6, 1, 5, 5, 7, 0x30, 1];
    const URI: u8 = 0x86;
    let mut descriptions = der::whole(value, der::SEQUENCE)?;
    let mut urls: Vec<String> = Vec::new();
    while !descriptions.is_empty() {
        let mut description = der::expect(&mut descriptions, der::SEQUENCE)?;
        let method = der::expect(&mut description, der::OBJECT_IDENTIFIER)?;
        let location = der::take(&mut description)?;
        if !description.is_empty() {
            return Err(der::NotDer);
        }
        let wanted = method == OCSP && location.tag == URI && location.contents.len() <= LONGEST_URL_BYTES;
        if !wanted || urls.len() == MOST_URLS {
            continue;
        }
        // IA5String: what is no visible ASCII is no URL either.
        if let Some(url) = std::str::from_utf8(location.contents).ok().filter(|url| is_visible(url))
            && !urls.iter().any(|known| known == url)
        {
            urls.push(url.to_owned());
        }
    }
    Ok(urls)
}

fn is_visible(url: &str) -> bool {
    !url.is_empty() && url.bytes().all(|octet| matches!(octet, 0x21..=0x7E))
}

#[cfg(test)]
mod tests {
    use countersign_conformance::der as made;

    use super::*;

    const OCSP: &[u64] = &[1, 3, 6, 1, 5, 5, 7, 48, 1];
    const CA_ISSUERS: &[u64] = &[1, 3, 6, 1, 5, 5, 7, 48, 2];

    fn description(method: &[u64], tag: u8, location: &str) -> Vec<u8> {
        made::sequence([made::oid(method), made::tlv(tag, location)])
    }

    fn read(descriptions: &[Vec<u8>]) -> Vec<String> {
        responder_urls(&made::sequence(descriptions)).unwrap()
    }

    #[test]
    fn only_ocsp_urls_are_kept_in_their_order() {
        let found = read(&[
            description(CA_ISSUERS, 0x86, "http://ca.example/ca.crt"),
            description(OCSP, 0x86, "http://b.example/"),
            description(OCSP, 0x82, "c.example"),
            description(OCSP, 0x86, "http://a.example/"),
            description(OCSP, 0x86, "http://b.example/"),
            description(OCSP, 0x86, "http://a b.example/"),
            description(OCSP, 0x86, "http://\u{e9}.example/"),
            description(OCSP, 0x86, ""),
        ]);
        assert_eq!(found, ["http://b.example/", "http://a.example/"]);
        assert_eq!(read(&[]), [""; 0]);
    }

    #[test]
    fn at_most_four_urls_of_at_most_512_octets() {
        let many: Vec<_> = (0..5).map(|at| description(OCSP, 0x86, &format!("http://{at}.example/"))).collect();
        assert_eq!(read(&many).len(), 4);
        let long = |length: usize| format!("http://a.example/{}", "a".repeat(length - 17));
        assert_eq!(read(&[description(OCSP, 0x86, &long(512))]).len(), 1);
        assert_eq!(read(&[description(OCSP, 0x86, &long(513))]).len(), 0);
    }

    #[test]
    fn what_cannot_be_read_names_nobody() {
        let good = made::sequence([description(OCSP, 0x86, "http://a.example/")]);
        for length in 0..good.len() {
            assert_eq!(responder_urls(&good[..length]), Err(der::NotDer), "{length}");
        }
        let third = made::sequence([made::sequence([made::oid(OCSP), made::tlv(0x86, "a"), made::tlv(0x86, "b")])]);
        assert_eq!(responder_urls(&third), Err(der::NotDer));
        assert_eq!(responder_urls(&[good, vec![0]].concat()), Err(der::NotDer));
    }
}
