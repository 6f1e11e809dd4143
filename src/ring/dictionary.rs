//! The dictionary of a segment: names of the instances that its records speak of. It only grows,
//! and each entry judges itself, as slots do.
//!
//! An entry is `| check | kind | identity | first_seq | name ... |`: `kind` has the number of the
//! source in its low half and the length of the name in its high half.

use super::checksum::of_words;
use super::layout::{ENTRY_HEAD_WORDS, ENTRY_NAME_BYTES, ENTRY_WORDS};
use super::orderings::{Orderings, Point};
use crate::sync::{AtomicU64, Ordering};
use crate::units::Seq;

/// One instance of one source.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// Number of the source in the schema.
    pub source: u32,
    /// What tells two instances of one name apart (major and minor number of a disk); 0 if the
    /// kernel's file has nothing of the kind.
    pub identity: u64,
    /// The record that spoke of it first.
    pub first_seq: Seq,
    /// As the kernel prints it; any bytes.
    pub name: Vec<u8>,
}

/// Writes entry number `index` into its words and publishes it.
///
/// Names of more than [`ENTRY_NAME_BYTES`] bytes are for the caller to refuse; they are cut.
pub(super) fn write_with<O: Orderings>(
    words: &[AtomicU64],
    index: u32,
    seed: u64,
    (source, identity, first_seq): (u32, u64, Seq),
    name: &[u8],
) {
    let name = &name[..name.len().min(ENTRY_NAME_BYTES)];
    let mut plain = [0_u64; ENTRY_WORDS];
    plain[1] = u64::from(source) | (name.len() as u64) << 32;
    plain[2] = identity;
    plain[3] = first_seq.0;
    for (word, chunk) in plain[ENTRY_HEAD_WORDS..].iter_mut().zip(name.chunks(8)) {
        let mut bytes = [0; 8];
        bytes[..chunk.len()].copy_from_slice(chunk);
        *word = u64::from_le_bytes(bytes);
    }
    plain[0] = check(&plain, index, seed);
    for (cell, word) in words.iter().zip(plain).skip(1) {
        cell.store(word, Ordering::Relaxed);
    }
    // Publishes the entry. Pairs with the acquire load in `copy_with`.
    words[0].store(plain[0], O::release(Point::EntryStore));
}

/// Copies the words of an entry that may be written at the same time; zeros before it is published.
pub(super) fn copy_with<O: Orderings>(words: &[AtomicU64]) -> [u64; ENTRY_WORDS] {
    let mut copy = [0; ENTRY_WORDS];
    // Pairs with the release store in `write_with`.
    copy[0] = words[0].load(O::acquire(Point::EntryLoad));
    if copy[0] == 0 {
        return copy;
    }
    for (word, cell) in copy.iter_mut().zip(words).skip(1) {
        *word = cell.load(Ordering::Relaxed);
    }
    copy
}

/// Reads a copy of entry number `index`; `None` if it is unused or does not verify.
pub fn read(copy: &[u64; ENTRY_WORDS], index: u32, seed: u64) -> Option<Entry> {
    if copy[0] == 0 || copy[0] != check(copy, index, seed) {
        return None;
    }
    let length = usize::try_from(copy[1] >> 32).ok()?;
    let bytes: Vec<u8> =
        copy[ENTRY_HEAD_WORDS..].iter().flat_map(|word| word.to_le_bytes()).collect();
    Some(Entry {
        source: copy[1] as u32,
        identity: copy[2],
        first_seq: Seq(copy[3]),
        name: bytes.get(..length)?.to_vec(),
    })
}

/// Never 0, which marks an unused entry.
fn check(entry: &[u64; ENTRY_WORDS], index: u32, seed: u64) -> u64 {
    of_words(seed.wrapping_add(u64::from(index)), &entry[1..]).max(1)
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::super::orderings::Sound;
    use super::*;

    #[test]
    fn an_entry_is_read_back_and_verifies_only_in_its_place() {
        let words: Vec<AtomicU64> = (0..ENTRY_WORDS).map(|_| AtomicU64::new(0)).collect();
        assert_eq!(read(&copy_with::<Sound>(&words), 3, 1), None);
        let name = [b'n'; ENTRY_NAME_BYTES];
        write_with::<Sound>(&words, 3, 1, (2, 0xfd_0001, Seq(9)), &name);
        let good = copy_with::<Sound>(&words);
        let entry =
            Entry { source: 2, identity: 0xfd_0001, first_seq: Seq(9), name: name.to_vec() };
        assert_eq!(read(&good, 3, 1), Some(entry));
        assert_eq!(read(&good, 2, 1), None, "another index");
        assert_eq!(read(&good, 3, 2), None, "another run");
        for word in 0..ENTRY_WORDS {
            let mut bad = good;
            bad[word] ^= 1 << 40;
            assert_eq!(read(&bad, 3, 1), None, "word {word}");
        }
    }
}
