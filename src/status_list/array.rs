//! Statuses, one beside the other (draft-ietf-oauth-status-list-20 §4).
//!
//! Takes indexes and statuses, gives the `lst` of a list. It knows nothing of what a status means or whose it is.

use std::io::{self, Write};

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use flate2::Compression;
use flate2::write::ZlibEncoder;

/// How many bits may be set for the best compression: below 10 ms on one core.
const SET_AT_BEST: u32 = 1_024;

/// How many bits a status has (§4.1): nothing but these.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Width {
    /// Two statuses.
    One,
    /// Four.
    Two,
    /// Sixteen.
    Four,
    /// All of them.
    Eight,
}

impl Width {
    /// The member `bits` (§4.2).
    pub const fn bits(self) -> u8 {
        match self {
            Self::One => 1,
            Self::Two => 2,
            Self::Four => 4,
            Self::Eight => 8,
        }
    }

    const fn mask(self) -> u8 {
        u8::MAX >> (8 - self.bits())
    }
}

/// The byte array of a list, before it is compressed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StatusArray {
    width: Width,
    octets: Vec<u8>,
}

impl StatusArray {
    /// Room for `entries` statuses, all of them `0x00` (§13.3: what most tokens are).
    pub fn new(width: Width, entries: usize) -> Self {
        let bits = entries.saturating_mul(usize::from(width.bits()));
        Self { width, octets: vec![0; bits.div_ceil(8)] }
    }

    /// Gives `index` this status, of which only the lowest bits count; none, where there is no such index.
    pub fn set(&mut self, index: usize, status: u8) -> Option<()> {
        let (octet, shift) = self.place(index);
        let mask = self.width.mask();
        let octet = self.octets.get_mut(octet)?;
        *octet = (*octet & !(mask << shift)) | ((status & mask) << shift);
        Some(())
    }

    /// The status at `index`, if there is one.
    pub fn get(&self, index: usize) -> Option<u8> {
        let (octet, shift) = self.place(index);
        self.octets.get(octet).map(|octet| (octet >> shift) & self.width.mask())
    }

    /// §4.1: packed into each byte from the least significant bit.
    fn place(&self, index: usize) -> (usize, usize) {
        let width = usize::from(self.width.bits());
        let in_octet = 8 / width;
        (index / in_octet, index % in_octet * width)
    }

    /// §4.1 step 4: DEFLATE in the ZLIB format. At the highest level there is, as is recommended, while little is set; where
    /// much is, that takes ten times as long for a tenth less, and readers wait for it.
    fn compressed(&self) -> io::Result<Vec<u8>> {
        let set: u32 = self.octets.iter().map(|octet| octet.count_ones()).sum();
        let level = if set <= SET_AT_BEST { Compression::best() } else { Compression::default() };
        let mut zlib = ZlibEncoder::new(Vec::new(), level);
        zlib.write_all(&self.octets)?;
        zlib.finish()
    }

    /// Reads what a list says, as a resource server does.
    #[cfg(test)]
    pub(crate) fn read(width: Width, lst: &str) -> Self {
        use std::io::Read;
        let mut octets = Vec::new();
        let compressed = URL_SAFE_NO_PAD.decode(lst).unwrap();
        flate2::read::ZlibDecoder::new(&*compressed).read_to_end(&mut octets).unwrap();
        Self { width, octets }
    }

    /// The member `lst` (§4.2).
    ///
    /// # Errors
    /// What the compressor says; it writes to memory.
    pub fn lst(&self) -> io::Result<String> {
        Ok(URL_SAFE_NO_PAD.encode(self.compressed()?))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Appendix C, as the draft prints it.
    const VECTORS: &str = include_str!("../../tests/vectors/status_list/draft-ietf-oauth-status-list-20.json");

    fn inflated(lst: &str) -> Vec<u8> {
        StatusArray::read(Width::Eight, lst).octets
    }

    fn width(bits: u64) -> Width {
        [Width::One, Width::Two, Width::Four, Width::Eight]
            .into_iter()
            .find(|width| u64::from(width.bits()) == bits)
            .unwrap()
    }

    fn of(width: Width, statuses: &[u8]) -> StatusArray {
        let mut array = StatusArray::new(width, statuses.len());
        for (index, status) in statuses.iter().enumerate() {
            array.set(index, *status).unwrap();
        }
        array
    }

    /// §4.1 and §4.2.
    #[test]
    fn the_examples_of_the_text() {
        let one = of(Width::One, &[1, 0, 0, 1, 1, 1, 0, 1, 1, 1, 0, 0, 0, 1, 0, 1]);
        assert_eq!(one.octets, [0xB9, 0xA3]);
        assert_eq!(inflated("eNrbuRgAAhcBXQ"), one.octets);
        assert_eq!(hex::decode("78dadbb918000217015d").unwrap(), one.compressed().unwrap());
        assert_eq!(one.lst().unwrap(), "eNrbuRgAAhcBXQ");

        let two = of(Width::Two, &[1, 2, 0, 3, 0, 1, 0, 1, 1, 2, 3, 3]);
        assert_eq!(two.octets, [0xC9, 0x44, 0xF9]);
        assert_eq!(inflated("eNo76fITAAPfAgc"), two.octets);
        assert_eq!(two.lst().unwrap(), "eNo76fITAAPfAgc");
    }

    #[test]
    fn the_vectors_of_appendix_c() {
        let vectors: serde_json::Value = serde_json::from_str(VECTORS).unwrap();
        let vectors = vectors["vectors"].as_array().unwrap();
        assert_eq!(vectors.len(), 4);
        for vector in vectors {
            let width = width(vector["bits"].as_u64().unwrap());
            let mut array = StatusArray::new(width, 1 << 20);
            let statuses = vector["status"].as_object().unwrap();
            for (index, status) in statuses {
                array.set(index.parse().unwrap(), u8::try_from(status.as_u64().unwrap()).unwrap()).unwrap();
            }
            let published = inflated(vector["lst"].as_str().unwrap());
            assert_eq!(published, array.octets, "{width:?}");
            // How well it is compressed is each implementation's own business; that it is the same again is not.
            assert_eq!(inflated(&array.lst().unwrap()), published, "{width:?}");
            for (index, status) in statuses {
                assert_eq!(array.get(index.parse().unwrap()).map(u64::from), status.as_u64(), "{width:?} {index}");
            }
        }
    }

    #[test]
    fn what_is_set_in_plenty_is_read_back() {
        for set in [1_024, 1_025, 100_000] {
            let mut array = StatusArray::new(Width::One, 1 << 20);
            for index in 0..set {
                array.set(index * 7 % (1 << 20), 1).unwrap();
            }
            assert_eq!(StatusArray::read(Width::One, &array.lst().unwrap()), array, "{set}");
        }
    }

    #[test]
    fn there_is_nothing_beyond_the_last_index() {
        let mut array = StatusArray::new(Width::One, 16);
        assert_eq!((array.set(15, 1), array.get(15)), (Some(()), Some(1)));
        assert_eq!((array.set(16, 1), array.get(16)), (None, None));
    }

    #[test]
    fn a_status_leaves_its_neighbours_alone() {
        let mut array = of(Width::Two, &[3, 3, 3, 3]);
        array.set(1, 0b100).unwrap();
        assert_eq!((0..4).map(|index| array.get(index).unwrap()).collect::<Vec<_>>(), [3, 0, 3, 3]);
    }

    proptest! {
        #[test]
        fn what_is_set_is_read_back(bits in 0..4_u32, statuses in proptest::collection::vec(any::<u8>(), 0..100)) {
            let width = width(1 << bits);
            let array = of(width, &statuses);
            for (index, status) in statuses.iter().enumerate() {
                prop_assert_eq!(array.get(index), Some(status & width.mask()));
            }
            prop_assert_eq!(inflated(&array.lst().unwrap()), array.octets);
        }
    }
}
