//! Reads a CertificateList (RFC 5280 §5.1), strictly and without keeping anything of an entry but what is asked later.
//!
//! Takes DER of any length, gives [`CertificateList`], and from its entries the index. Lists that can be read in more than one
//! way are refused, and so are those that say something this server would have to understand and does not: lists of other
//! issuers' certificates, deltas, lists for some reasons only. It believes nothing: no signature is looked at.

use countersign_resource_server::time::UnixTime;

use super::ListRefusal;
use super::index::{Entry, Kind, Scope, Serial};
use crate::pki::der::{self, Element, NotDer};
use crate::pki::revocation::CrlReason;

/// More extensions than this are refused, so that looking for one that comes twice stays cheap.
const MOST_EXTENSIONS: usize = 32;

/// What a list says, its entries not yet read.
#[derive(Clone, Debug)]
pub(super) struct CertificateList<'a> {
    /// What is signed: the whole TBSCertList.
    pub(super) to_be_signed: &'a [u8],
    /// The contents of the signature's AlgorithmIdentifier.
    pub(super) algorithm: &'a [u8],
    /// The contents of the signature's BIT STRING.
    pub(super) signature: &'a [u8],
    /// The issuer's name, the whole SEQUENCE.
    pub(super) issuer: &'a [u8],
    pub(super) this_update: UnixTime,
    pub(super) next_update: UnixTime,
    /// CRLNumber.
    pub(super) number: Serial,
    pub(super) scope: Scope,
    entries: &'a [u8],
}

impl<'a> CertificateList<'a> {
    /// Reads everything but the entries.
    ///
    /// # Errors
    /// [`ListRefusal`].
    pub(super) fn read(der: &'a [u8]) -> Result<Self, ListRefusal> {
        // §5.1.1: exactly these octets, one SEQUENCE of three.
        let mut frame = der::whole(der, der::SEQUENCE)?;
        let (to_be_signed, mut fields) = der::expect_whole(&mut frame, der::SEQUENCE)?;
        let algorithm = der::expect(&mut frame, der::SEQUENCE)?;
        let signature = der::expect(&mut frame, der::BIT_STRING)?;
        if !frame.is_empty() {
            return Err(ListRefusal::Malformed);
        }
        // §5.1.2.1: version 2 where there are extensions, and one (the number) has to be there.
        if fields.first() != Some(&der::INTEGER) || der::expect(&mut fields, der::INTEGER)? != [1] {
            return Err(ListRefusal::VersionUnsupported);
        }
        // §5.1.2.2: the same algorithm inside and outside.
        if der::expect(&mut fields, der::SEQUENCE)? != algorithm {
            return Err(ListRefusal::AlgorithmsDiffer);
        }
        let (issuer, name) = der::expect_whole(&mut fields, der::SEQUENCE)?;
        // §5.1.2.3: a non-empty name.
        if name.is_empty() {
            return Err(ListRefusal::Malformed);
        }
        let this_update = der::time(der::take(&mut fields)?)?;
        // §5.1.2.5: nextUpdate has to be there.
        let next_update = match fields.first() {
            Some(&(der::UTC_TIME | der::GENERALIZED_TIME)) => der::time(der::take(&mut fields)?)?,
            _ => return Err(ListRefusal::NextUpdateMissing),
        };
        if next_update < this_update {
            return Err(ListRefusal::Malformed);
        }
        // §5.1.2.6: absent where nothing is revoked. Some write an empty list, which can be read in one way only.
        let entries = match fields.first() {
            Some(&der::SEQUENCE) => der::expect(&mut fields, der::SEQUENCE)?,
            _ => &[],
        };
        let extensions = match fields.first() {
            Some(0xA0) => Extensions::read(der::expect(&mut fields, 0xA0)?)?,
            _ => Extensions::default(),
        };
        if !fields.is_empty() {
            return Err(ListRefusal::Malformed);
        }
        Ok(Self {
            to_be_signed,
            algorithm,
            signature,
            issuer,
            this_update: UnixTime::from_seconds(this_update),
            next_update: UnixTime::from_seconds(next_update),
            number: extensions.number.ok_or(ListRefusal::NumberMissing)?,
            scope: extensions.scope,
            entries,
        })
    }

    /// Reads the entries: in order of their serial numbers, each once.
    ///
    /// # Errors
    /// [`ListRefusal`] if one of them cannot be read, or says what is not understood.
    pub(super) fn index(&self) -> Result<Vec<Entry>, ListRefusal> {
        // Counted first: a vector that grows holds everything twice for a while.
        let (mut rest, mut count) = (self.entries, 0);
        while !rest.is_empty() {
            der::take(&mut rest)?;
            count += 1;
        }
        let mut index = Vec::with_capacity(count);
        let mut rest = self.entries;
        while !rest.is_empty() {
            index.push(entry(der::expect(&mut rest, der::SEQUENCE)?)?);
        }
        // A serial number that comes twice is revoked by whatever is worse, and since the earlier time.
        let order = |entry: &Entry| (entry.serial, entry.reason == CrlReason::CertificateHold, entry.at);
        if !index.is_sorted_by_key(order) {
            index.sort_unstable_by_key(order);
        }
        index.dedup_by_key(|entry| entry.serial);
        Ok(index)
    }
}

impl From<NotDer> for ListRefusal {
    fn from(_: NotDer) -> Self {
        Self::Malformed
    }
}

// §5.1: SEQUENCE { userCertificate CertificateSerialNumber, revocationDate Time, crlEntryExtensions Extensions OPTIONAL }
fn entry(mut contents: &[u8]) -> Result<Entry, ListRefusal> {
    let serial = integer(der::expect(&mut contents, der::INTEGER)?)?;
    let at = der::time(der::take(&mut contents)?)?;
    let mut reason = CrlReason::default();
    if !contents.is_empty() {
        let mut seen = Seen::default();
        let mut extensions = der::expect(&mut contents, der::SEQUENCE)?;
        if extensions.is_empty() || !contents.is_empty() {
            return Err(ListRefusal::Malformed);
        }
        while !extensions.is_empty() {
            let extension = seen.next(&mut extensions)?;
            match extension.id {
                [0x55, 0x1D, 21] => reason = reason_code(extension.value)?,
                // invalidityDate: since when the key was not to be trusted. Revoked is revoked.
                [0x55, 0x1D, 24] => {}
                // certificateIssuer: an entry of an indirect list.
                [0x55, 0x1D, 29] => return Err(ListRefusal::Indirect),
                // §5.3: a critical entry extension that is not understood makes the whole list one not to be used.
                _ if extension.critical => return Err(ListRefusal::EntryExtensionUnknown),
                _ => {}
            }
        }
    }
    Ok(Entry { serial, reason, at })
}

// §5.3.1: ENUMERATED { unspecified (0), … }
fn reason_code(value: &[u8]) -> Result<CrlReason, ListRefusal> {
    match der::whole(value, der::ENUMERATED)? {
        // removeFromCRL: in deltas only.
        [8] => Err(ListRefusal::Delta),
        [number] => CrlReason::of(*number).ok_or(ListRefusal::Malformed),
        _ => Err(ListRefusal::Malformed),
    }
}

/// An INTEGER of at most 20 octets (§4.1.2.2, §5.2.3), in the fewest (X.690 §8.3.2).
fn integer(contents: &[u8]) -> Result<Serial, ListRefusal> {
    match contents {
        [] | [0, 0..=0x7F, ..] | [0xFF, 0x80..=0xFF, ..] => Err(ListRefusal::Malformed),
        contents => Serial::of(contents).ok_or(ListRefusal::Malformed),
    }
}

/// The extensions that matter; each at most once (§5.2).
#[derive(Default)]
struct Extensions {
    number: Option<Serial>,
    scope: Scope,
}

impl Extensions {
    fn read(contents: &[u8]) -> Result<Self, ListRefusal> {
        let mut found = Self::default();
        let mut seen = Seen::default();
        let mut list = der::whole(contents, der::SEQUENCE)?;
        if list.is_empty() {
            return Err(ListRefusal::Malformed);
        }
        while !list.is_empty() {
            let extension = seen.next(&mut list)?;
            match extension.id {
                // §5.2.3: MUST NOT be critical, and is not negative.
                [0x55, 0x1D, 20] if extension.critical => return Err(ListRefusal::NumberCritical),
                [0x55, 0x1D, 20] => {
                    let number = der::whole(extension.value, der::INTEGER)?;
                    if number.first().is_some_and(|first| first & 0x80 != 0) {
                        return Err(ListRefusal::Malformed);
                    }
                    found.number = Some(integer(number)?);
                }
                // §5.2.4: base lists only. A delta says nothing of what it leaves out.
                [0x55, 0x1D, 27] => return Err(ListRefusal::Delta),
                [0x55, 0x1D, 28] => found.scope = issuing_distribution_point(extension.value)?,
                // §5.2.1: helps to find the key; the signature says which it is. It has to be readable.
                [0x55, 0x1D, 35] => {
                    der::whole(extension.value, der::SEQUENCE)?;
                }
                // §5.2: what is critical and not understood makes a list one not to be used.
                _ if extension.critical => return Err(ListRefusal::CriticalExtensionUnknown),
                _ => {}
            }
        }
        Ok(found)
    }
}

// §5.2.5: SEQUENCE { distributionPoint [0], onlyContainsUserCerts [1], onlyContainsCACerts [2], onlySomeReasons [3],
// indirectCRL [4], onlyContainsAttributeCerts [5] }
fn issuing_distribution_point(value: &[u8]) -> Result<Scope, ListRefusal> {
    let mut contents = der::whole(value, der::SEQUENCE)?;
    let mut scope = Scope::default();
    let mut last = None;
    while !contents.is_empty() {
        let Element { tag, contents: value } = der::take(&mut contents)?;
        // Each at most once, in order.
        if last.is_some_and(|last| tag & 0x1F <= last) {
            return Err(ListRefusal::Malformed);
        }
        last = Some(tag & 0x1F);
        // FALSE is the default, and DER does not encode defaults; but some do, and it can be read in one way only.
        let is_set = || match value {
            [0xFF] => Ok(true),
            [0x00] => Ok(false),
            _ => Err(ListRefusal::Malformed),
        };
        match tag {
            0xA0 => {
                let mut points = der::point_uris(value)?;
                points.sort();
                points.dedup();
                scope.points = Some(points);
            }
            0x81 if is_set()? => scope.kind = Kind::Users,
            0x82 if is_set()? => match scope.kind {
                Kind::All => scope.kind = Kind::Authorities,
                Kind::Users | Kind::Authorities => return Err(ListRefusal::Malformed),
            },
            // Whoever is revoked for another reason is not on it: it is not authoritative.
            0x83 => return Err(ListRefusal::SomeReasons),
            0x84 if is_set()? => return Err(ListRefusal::Indirect),
            0x85 if is_set()? => return Err(ListRefusal::AttributeCertificates),
            0x81 | 0x82 | 0x84 | 0x85 => {}
            _ => return Err(ListRefusal::Malformed),
        }
    }
    Ok(scope)
}

/// An extension (§4.2).
struct Extension<'a> {
    id: &'a [u8],
    critical: bool,
    value: &'a [u8],
}

/// The extensions there have been: none comes twice.
#[derive(Default)]
struct Seen<'a> {
    ids: [&'a [u8]; MOST_EXTENSIONS],
    count: usize,
}

impl<'a> Seen<'a> {
    fn next(&mut self, list: &mut &'a [u8]) -> Result<Extension<'a>, ListRefusal> {
        let mut contents = der::expect(list, der::SEQUENCE)?;
        let id = der::expect(&mut contents, der::OBJECT_IDENTIFIER)?;
        let critical = match contents.first() {
            Some(&der::BOOLEAN) => match der::expect(&mut contents, der::BOOLEAN)? {
                [0xFF] => true,
                [0x00] => false,
                _ => return Err(ListRefusal::Malformed),
            },
            _ => false,
        };
        let value = der::expect(&mut contents, der::OCTET_STRING)?;
        if !contents.is_empty() {
            return Err(ListRefusal::Malformed);
        }
        if self.ids.iter().take(self.count).any(|&seen| seen == id) {
            return Err(ListRefusal::ExtensionRepeated);
        }
        *self.ids.get_mut(self.count).ok_or(ListRefusal::Malformed)? = id;
        self.count += 1;
        Ok(Extension { id, critical, value })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_in_the_fewest_octets() {
        assert!(integer(&[0]).is_ok() && integer(&[0, 0x80]).is_ok() && integer(&[0x80]).is_ok());
        assert_eq!(integer(&[0, 0x80]), Ok(Serial::of(&[0x80]).unwrap()));
        assert!(integer(&[0x7F; 20]).is_ok() && integer(&[&[0][..], &[0x80; 20]].concat()).is_ok());
        for wrong in [&[][..], &[0, 0], &[0, 0x7F], &[0xFF, 0x80], &[0x7F; 21]] {
            assert_eq!(integer(wrong), Err(ListRefusal::Malformed), "{wrong:02x?}");
        }
    }
}
