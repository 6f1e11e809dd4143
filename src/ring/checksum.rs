//! XXH64 over 64-bit words, as the bytes that they are in memory (little endian). A reader in
//! another language finds it in any xxHash library; ours exists because the words are atomics
//! and the sampling path must not copy them first.
//!
//! Source: the xxHash specification, `doc/xxhash_spec.md`, XXH64.

const PRIME_1: u64 = 0x9E37_79B1_85EB_CA87;
const PRIME_2: u64 = 0xC2B2_AE3D_27D4_EB4F;
const PRIME_3: u64 = 0x1656_67B1_9E37_79F9;
const PRIME_4: u64 = 0x85EB_CA77_C2B2_AE63;
const PRIME_5: u64 = 0x27D4_EB2F_1656_67C5;

#[inline]
fn round(accumulator: u64, lane: u64) -> u64 {
    accumulator.wrapping_add(lane.wrapping_mul(PRIME_2)).rotate_left(31).wrapping_mul(PRIME_1)
}

#[inline]
fn merge(hash: u64, accumulator: u64) -> u64 {
    (hash ^ round(0, accumulator)).wrapping_mul(PRIME_1).wrapping_add(PRIME_4)
}

/// XXH64 of `words`, each turned into its value by `load`, which gets them in order.
#[inline]
pub(crate) fn xxh64<T>(seed: u64, words: &[T], mut load: impl FnMut(&T) -> u64) -> u64 {
    let mut stripes = words.chunks_exact(4);
    let mut hash = if words.len() >= 4 {
        let mut lanes = [
            seed.wrapping_add(PRIME_1).wrapping_add(PRIME_2),
            seed.wrapping_add(PRIME_2),
            seed,
            seed.wrapping_sub(PRIME_1),
        ];
        for stripe in &mut stripes {
            for (lane, word) in lanes.iter_mut().zip(stripe) {
                *lane = round(*lane, load(word));
            }
        }
        let [one, two, three, four] = lanes;
        let hash = one
            .rotate_left(1)
            .wrapping_add(two.rotate_left(7))
            .wrapping_add(three.rotate_left(12))
            .wrapping_add(four.rotate_left(18));
        lanes.into_iter().fold(hash, merge)
    } else {
        seed.wrapping_add(PRIME_5)
    };
    hash = hash.wrapping_add(words.len() as u64 * 8);
    for word in stripes.remainder() {
        hash = (hash ^ round(0, load(word)))
            .rotate_left(27)
            .wrapping_mul(PRIME_1)
            .wrapping_add(PRIME_4);
    }
    hash = (hash ^ (hash >> 33)).wrapping_mul(PRIME_2);
    hash = (hash ^ (hash >> 29)).wrapping_mul(PRIME_3);
    hash ^ (hash >> 32)
}

/// XXH64 of plain words.
pub(crate) fn of_words(seed: u64, words: &[u64]) -> u64 {
    xxh64(seed, words, |word| *word)
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn equals_the_reference_implementation(seed: u64, words in prop::collection::vec(any::<u64>(), 0..70)) {
            let bytes: Vec<u8> = words.iter().flat_map(|word| word.to_le_bytes()).collect();
            prop_assert_eq!(of_words(seed, &words), xxhash_rust::xxh64::xxh64(&bytes, seed));
        }
    }
}
