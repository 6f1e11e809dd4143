//! The header of a ring: written once, before the first record, and never changed. Turning it
//! into words and back, with every field checked.

use super::checksum;
use super::layout::{self, BadLayout, FORMAT_VERSION, HEADER_BYTES, HEADER_WORDS, Layout, MAGIC};
use crate::units::{Bytes, Seq, Words};
use uuid::Uuid;

/// Fields of the header in order, one word each; `src/ring/FORMAT.md` has the same table. Words
/// between the last of them and `header_check` are zero.
pub const FIELDS: [&str; 20] = [
    "magic",
    "version",
    "file_bytes",
    "description_bytes",
    "description_check",
    "dictionary_offset",
    "dictionary_entries",
    "slots_offset",
    "slot_words",
    "slots",
    "max_samples",
    "run_id_high",
    "run_id_low",
    "segment",
    "first_seq",
    "start_wall_ns",
    "start_monotonic_ns",
    "interval_ns",
    "boot_id_high",
    "boot_id_low",
];
/// Index of the word that tells a ring that was begun.
pub const MAGIC_WORD: usize = 0;
/// Index of the header's own checksum, its last word.
pub const HEADER_CHECK: usize = HEADER_WORDS - 1;

/// Shortest interval, 1 ms; see [`MAX_INTERVAL_NS`].
pub const MIN_INTERVAL_NS: u64 = 1_000_000;
/// Longest interval, one day.
pub const MAX_INTERVAL_NS: u64 = 86_400_000_000_000;
/// Most segments that one run may have.
pub const MAX_SEGMENTS: u64 = 1 << 16;

/// What the fixed part of a ring says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Header {
    /// Where things lie.
    pub layout: Layout,
    /// XXH64 of the description, padded with zeros to whole words.
    pub description_check: u64,
    /// The newest so many records are what the user asked to keep.
    pub max_samples: u64,
    /// The run, the same in all its segments and in its mirror.
    pub run_id: Uuid,
    /// Number of this segment in its run, from 0.
    pub segment: u64,
    /// The first record of this segment.
    pub first_seq: Seq,
    /// `CLOCK_REALTIME` at tick 0, ns.
    pub start_wall_ns: u64,
    /// `CLOCK_MONOTONIC` at tick 0, ns.
    pub start_monotonic_ns: u64,
    /// Time between two ticks, ns.
    pub interval_ns: u64,
    /// The kernel's boot id: monotonic times compare only within one boot.
    pub boot_id: Uuid,
}

/// Why some words are not a header.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum BadHeader {
    /// The file begins with zeros: its recorder has not come to write the header, or it was lost.
    #[error(
        "it has no header, its magic is 0; no sample was recorded in it, or its disk has lost it"
    )]
    Zero,
    /// The file begins with something else.
    #[error("its magic is {0:#018x}, not \"RINGSTAT\": it is not a ring")]
    Magic(u64),
    /// Written on a machine of the other byte order.
    #[error("it was written on a machine of the other byte order; decode it there")]
    ByteOrder,
    /// Written by a later version.
    #[error(
        "its format is version {0}, this program reads version {FORMAT_VERSION}; use a newer ringstat"
    )]
    Version(u64),
    /// The words are not those that were written.
    #[error(
        "its header is damaged: header_check is {found:#018x}, expected {expected:#018x}{}; try the \
         mirror",
        and(suspect)
    )]
    Check {
        /// The checksum in the header.
        found: u64,
        /// The checksum of the words.
        expected: u64,
        /// The first field that no recorder writes so, if there is one.
        suspect: Option<BadLayout>,
    },
    /// A field that no recorder writes so.
    #[error("its header is not a recorder's: {0}")]
    Field(#[from] BadLayout),
}

impl Header {
    /// The header as it is written.
    pub fn to_words(&self) -> [u64; HEADER_WORDS] {
        let (run_high, run_low) = self.run_id.as_u64_pair();
        let (boot_high, boot_low) = self.boot_id.as_u64_pair();
        let fields: [u64; FIELDS.len()] = [
            MAGIC,
            FORMAT_VERSION,
            self.layout.file_bytes().0,
            self.layout.description.0,
            self.description_check,
            self.layout.dictionary_offset.0,
            self.layout.entries,
            self.layout.slots_offset.0,
            self.layout.slot.0,
            self.layout.slots,
            self.max_samples,
            run_high,
            run_low,
            self.segment,
            self.first_seq.0,
            self.start_wall_ns,
            self.start_monotonic_ns,
            self.interval_ns,
            boot_high,
            boot_low,
        ];
        let mut words = [0; HEADER_WORDS];
        words[..FIELDS.len()].copy_from_slice(&fields);
        words[HEADER_CHECK] = checksum::of_words(0, &words[..HEADER_CHECK]);
        words
    }

    /// Reads a header.
    ///
    /// # Errors
    /// [`BadHeader`] names what is wrong with the first thing that is.
    pub fn from_words(words: &[u64; HEADER_WORDS]) -> Result<Header, BadHeader> {
        let [magic, version, ..] = *words;
        match magic {
            MAGIC => {}
            0 => return Err(BadHeader::Zero),
            swapped if swapped == MAGIC.swap_bytes() => return Err(BadHeader::ByteOrder),
            other => return Err(BadHeader::Magic(other)),
        }
        if version != FORMAT_VERSION {
            return Err(BadHeader::Version(version));
        }
        let expected = checksum::of_words(0, &words[..HEADER_CHECK]);
        if words[HEADER_CHECK] != expected {
            let suspect = Self::from_fields(words).err();
            return Err(BadHeader::Check { found: words[HEADER_CHECK], expected, suspect });
        }
        Ok(Self::from_fields(words)?)
    }

    /// Holds each field behind the version against what it may be.
    fn from_fields(words: &[u64; HEADER_WORDS]) -> Result<Header, BadLayout> {
        let [_, _, file_bytes, description, description_check, rest @ ..] = *words;
        let [dictionary_offset, entries, slots_offset, slot, slots, max_samples, rest @ ..] = rest;
        let [run_high, run_low, segment, first_seq, start_wall_ns, start_monotonic_ns, rest @ ..] =
            rest;
        let [interval_ns, boot_high, boot_low, ..] = rest;
        let layout = Layout {
            description: Bytes(description),
            dictionary_offset: Bytes(dictionary_offset),
            entries,
            slots_offset: Bytes(slots_offset),
            slot: Words(slot),
            slots,
        };
        layout.check()?;
        layout::exactly("file_bytes", file_bytes, layout.file_bytes().0, END)?;
        bound("max_samples", max_samples, 1, layout.slots - 1)?;
        bound("segment", segment, 0, MAX_SEGMENTS)?;
        // Sequence numbers stay far from the top bit, which marks a slot as busy.
        bound("first_seq", first_seq, 0, 1 << 62)?;
        bound("interval_ns", interval_ns, MIN_INTERVAL_NS, MAX_INTERVAL_NS)?;
        Ok(Header {
            layout,
            description_check,
            max_samples,
            run_id: Uuid::from_u64_pair(run_high, run_low),
            segment,
            first_seq: Seq(first_seq),
            start_wall_ns,
            start_monotonic_ns,
            interval_ns,
            boot_id: Uuid::from_u64_pair(boot_high, boot_low),
        })
    }

    /// Seed of the checksums of this segment's slots and entries: those of another run, or of
    /// another segment, do not verify.
    pub fn seed(&self) -> u64 {
        let (high, low) = self.run_id.as_u64_pair();
        checksum::of_words(0, &[high, low, self.segment])
    }

    /// Where the description lies.
    pub fn description_range(&self) -> std::ops::Range<u64> {
        HEADER_BYTES.0..HEADER_BYTES.0 + self.layout.description.0
    }
}

/// XXH64 of a description, padded with zeros to whole words.
pub fn description_check(description: &[u8]) -> u64 {
    checksum::of_words(0, &to_words(description))
}

/// Bytes as words, the last one padded with zeros.
pub(super) fn to_words(bytes: &[u8]) -> Vec<u64> {
    bytes
        .chunks(8)
        .map(|chunk| {
            let mut word = [0; 8];
            word[..chunk.len()].copy_from_slice(chunk);
            u64::from_le_bytes(word)
        })
        .collect()
}

/// How the length of the file follows from the other fields.
const END: &str = "slots_offset + 8 x slot_words x slots";

fn and(suspect: &Option<BadLayout>) -> String {
    suspect.as_ref().map_or(String::new(), |bad| format!(", and {bad}"))
}

fn bound(field: &'static str, found: u64, least: u64, most: u64) -> Result<(), BadLayout> {
    if (least..=most).contains(&found) {
        return Ok(());
    }
    Err(BadLayout { field, found, expected: format!("{least} to {most}") })
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    pub(crate) fn header() -> Header {
        Header {
            layout: Layout::new(Bytes(100), 8, Words(40), 4).unwrap(),
            description_check: 77,
            max_samples: 3,
            run_id: Uuid::from_u128(0x0102_0304_0506_0708_090a_0b0c_0d0e_0f10),
            segment: 2,
            first_seq: Seq(9),
            start_wall_ns: 1,
            start_monotonic_ns: 2,
            interval_ns: MIN_INTERVAL_NS,
            boot_id: Uuid::from_u128(5),
        }
    }

    #[test]
    fn words_and_back() {
        assert_eq!(Header::from_words(&header().to_words()), Ok(header()));
    }

    #[test]
    fn any_changed_bit_is_seen() {
        let good = header().to_words();
        for word in 0..HEADER_WORDS {
            for bit in [0, 31, 63] {
                let mut bad = good;
                bad[word] ^= 1 << bit;
                assert!(Header::from_words(&bad).is_err(), "word {word} bit {bit}");
            }
        }
        let mut swapped = good;
        swapped[0] = MAGIC.swap_bytes();
        assert_eq!(Header::from_words(&swapped), Err(BadHeader::ByteOrder));
    }

    #[test]
    fn a_bounded_field_is_named_even_under_a_right_checksum() {
        let free = ["description_check", "run_id_high", "run_id_low", "start_wall_ns"];
        let free = [&free[..], &["start_monotonic_ns", "boot_id_high", "boot_id_low"]].concat();
        for (index, field) in FIELDS.iter().enumerate().skip(2) {
            let mut words = header().to_words();
            words[index] = u64::MAX;
            words[HEADER_CHECK] = checksum::of_words(0, &words[..HEADER_CHECK]);
            match Header::from_words(&words) {
                Ok(_) => assert!(free.contains(field), "{field}"),
                Err(error) => assert!(error.to_string().contains(field), "{field}: {error}"),
            }
        }
    }
}
