//! The 32-bit Murmur 3 hash by which a raw CREATE STABLE gets its uid at the target: source uid + hash of the target
//! database's plain name (PROTOCOL 10.4).

/// The seed that TDengine uses.
pub const SEED: u32 = 0x1234_5678;

/// Murmur 3, 32 bits, x86 variant, with [`SEED`].
pub fn hash(key: &[u8]) -> u32 {
    let (blocks, tail) = key.as_chunks::<4>();
    let mut hash = SEED;
    for block in blocks {
        hash = (hash ^ mix(u32::from_le_bytes(*block))).rotate_left(13);
        hash = hash.wrapping_mul(5).wrapping_add(0xe654_6b64);
    }
    if !tail.is_empty() {
        let last = tail.iter().rev().fold(0, |word, byte| word << 8 | u32::from(*byte));
        hash ^= mix(last);
    }
    hash ^= key.len() as u32;
    hash = (hash ^ hash >> 16).wrapping_mul(0x85eb_ca6b);
    hash = (hash ^ hash >> 13).wrapping_mul(0xc2b2_ae35);
    hash ^ hash >> 16
}

fn mix(word: u32) -> u32 {
    word.wrapping_mul(0xcc9e_2d51).rotate_left(15).wrapping_mul(0x1b87_3593)
}

#[cfg(test)]
mod tests {
    #[test]
    fn the_probes_hash() {
        for (key, expect) in [("", 0xe37c_d1bc), ("a", 0x32fa_0dd1), ("abc", 0x8675_b952), ("abcdefgh", 0xdac5_e360)] {
            assert_eq!(super::hash(key.as_bytes()), expect, "{key}");
        }
    }
}
