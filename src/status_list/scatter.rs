//! Where in its list does a place lie?
//!
//! Takes a secret and a place, gives an index: each place another one, in an order that says nothing to those who do not
//! have the secret (draft-ietf-oauth-status-list-20 §12.4, §12.5.1). It knows nothing of what is there.

use sha2::{Digest, Sha256};

/// How many places and indexes a list has. 128 KiB of bits, and 149 octets compressed while nothing in it is dead.
pub const SIZE: u32 = 1 << (2 * HALF_BITS);

/// Half the bits of an index: what one round works on.
const HALF_BITS: u32 = 10;

const HALF: usize = 1 << HALF_BITS;

/// Low half of an index.
const MASK: u32 = (1 << HALF_BITS) - 1;

/// A Feistel network of four rounds with random functions is as good as a random permutation (Luby and Rackoff) to those
/// who see a few indexes; more of them, for those who see many.
const ROUNDS: usize = 8;

/// A permutation of the indexes of one list.
#[derive(Clone)]
pub struct Scatter {
    /// The function of each round, written out.
    rounds: Vec<u16>,
}

/// Whoever logs it must not log the secret.
impl std::fmt::Debug for Scatter {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Scatter").finish_non_exhaustive()
    }
}

impl Scatter {
    /// The permutation that goes with `secret`.
    pub fn new(secret: &[u8]) -> Self {
        let mut rounds = Vec::with_capacity(ROUNDS * HALF);
        let mut counter: u32 = 0;
        while rounds.len() < ROUNDS * HALF {
            let digest = Sha256::new().chain_update(secret).chain_update(counter.to_be_bytes()).finalize();
            rounds.extend(digest.chunks_exact(2).map(|pair| u16::from_be_bytes([pair[0], pair[1]])));
            counter += 1;
        }
        Self { rounds }
    }

    /// The index of `place`, which lies below [`SIZE`].
    pub fn index(&self, place: u32) -> u32 {
        let (mut left, mut right) = ((place >> HALF_BITS) & MASK, place & MASK);
        for round in self.rounds.chunks_exact(HALF) {
            let scrambled = round.get(right as usize).copied().map_or(0, u32::from) & MASK;
            (left, right) = (right, left ^ scrambled);
        }
        left << HALF_BITS | right
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_place_has_an_index_of_its_own() {
        for secret in [&b"one"[..], b"another", b""] {
            let scatter = Scatter::new(secret);
            let mut seen = vec![false; SIZE as usize];
            for place in 0..SIZE {
                let index = scatter.index(place) as usize;
                assert!(!std::mem::replace(&mut seen[index], true), "{index} twice");
            }
            assert!(seen.iter().all(|seen| *seen));
        }
    }

    #[test]
    fn the_same_secret_scatters_alike_and_another_does_not() {
        let indexes = |secret: &[u8]| {
            let scatter = Scatter::new(secret);
            (0..64).map(|place| scatter.index(place)).collect::<Vec<_>>()
        };
        assert_eq!(indexes(b"one"), indexes(b"one"));
        assert_ne!(indexes(b"one"), indexes(b"two"));
    }

    /// Neighbouring places lie anywhere: all over the list, and no further apart one way than the other.
    #[test]
    fn an_index_says_nothing_of_the_place_before_it() {
        let scatter = Scatter::new(b"secret");
        let steps = 65_536;
        let mut sixteenths = [0_u32; 16];
        let mut upwards = 0_u32;
        for place in 0..steps {
            let (here, next) = (scatter.index(place), scatter.index(place + 1));
            sixteenths[((next.wrapping_sub(here) % SIZE) >> 16) as usize] += 1;
            upwards += u32::from(next > here);
        }
        // Expected 4,096 each and 32,768: eight standard deviations.
        assert!(sixteenths.iter().all(|count| (3_600..4_600).contains(count)), "{sixteenths:?}");
        assert!((31_700..33_800).contains(&upwards), "{upwards}");
    }
}
