//! Is a key within the bounds that a handshake accepts?
//!
//! Takes a SubjectPublicKeyInfo, gives its strength. Whose key it is does not matter.

use x509_parser::x509::SubjectPublicKeyInfo;

use super::KeyStrength;
use crate::pki::der;

/// Design §3: RSA 2048 to 4096 or P-256 at least. Only the usual encoding of a key is taken, so that one key has one hash.
pub(super) fn key_strength(key: &SubjectPublicKeyInfo<'_>) -> KeyStrength {
    match strong_key(key) {
        Ok(true) => KeyStrength::Sufficient,
        Ok(false) | Err(der::NotDer) => KeyStrength::Insufficient,
    }
}

fn strong_key(key: &SubjectPublicKeyInfo<'_>) -> Result<bool, der::NotDer> {
    const RSA: &[u8] = &[0x2A, 0x86, 0x48, 0x86, 0xF7, 0x0D, 1, 1, 1];
    const EC: &[u8] = &[0x2A, 0x86, 0x48, 0xCE, 0x3D, 2, 1];
    const ED25519: &[u8] = &[0x2B, 0x65, 0x70];
    const P256: &[u8] = &[0x2A, 0x86, 0x48, 0xCE, 0x3D, 3, 1, 7];
    const P384: &[u8] = &[0x2B, 0x81, 4, 0, 0x22];
    const P521: &[u8] = &[0x2B, 0x81, 4, 0, 0x23];

    let mut contents = der::whole(key.raw, der::SEQUENCE)?;
    let mut algorithm = der::expect(&mut contents, der::SEQUENCE)?;
    let bits = der::expect(&mut contents, der::BIT_STRING)?;
    let kind = der::expect(&mut algorithm, der::OBJECT_IDENTIFIER)?;
    let (&unused, bits) = bits.split_first().ok_or(der::NotDer)?;
    if unused != 0 || !contents.is_empty() {
        return Err(der::NotDer);
    }
    Ok(match kind {
        RSA => {
            // RFC 3279 §2.3.1: the parameters are NULL.
            if algorithm != [0x05, 0x00] {
                return Err(der::NotDer);
            }
            let mut numbers = der::whole(bits, der::SEQUENCE)?;
            let modulus = der::expect(&mut numbers, der::INTEGER)?;
            let exponent = der::expect(&mut numbers, der::INTEGER)?;
            // Both positive, in the fewest octets. A modulus of whole octets has its highest bit set, hence a leading zero.
            let [0, modulus @ ..] = modulus else { return Ok(false) };
            let whole_octets = modulus.first().is_some_and(|first| first & 0x80 != 0);
            let odd = exponent.last().is_some_and(|last| last & 1 == 1);
            let positive = exponent.first().is_some_and(|first| first & 0x80 == 0);
            numbers.is_empty()
                && whole_octets
                && (2048 / 8..=4096 / 8).contains(&modulus.len())
                && odd
                && positive
                && exponent.len() <= 5
                && exponent != [1]
        }
        EC => {
            let curve = der::whole(algorithm, der::OBJECT_IDENTIFIER)?;
            let coordinate = match curve {
                P256 => 32,
                P384 => 48,
                P521 => 66,
                _ => return Ok(false),
            };
            // RFC 5480 §2.2: uncompressed, which everyone supports; a compressed point would give the key a second hash.
            bits.first() == Some(&0x04) && bits.len() == 1 + 2 * coordinate
        }
        ED25519 => algorithm.is_empty() && bits.len() == 32,
        _ => false,
    })
}
