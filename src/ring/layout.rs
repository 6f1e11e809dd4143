//! Where everything lies in a ring file: constants, offsets and the bounds that a geometry read
//! from an untrusted header must keep. No I/O and no words are moved here.

use crate::units::{Bytes, Seq, Slot, Words};

/// The first eight bytes of every ring, `RINGSTAT`, as a little-endian word.
pub const MAGIC: u64 = u64::from_le_bytes(*b"RINGSTAT");
/// The format that this code writes, and the only one that it reads.
pub const FORMAT_VERSION: u64 = 1;

/// Bytes before the description.
pub const HEADER_BYTES: Bytes = Bytes(4096);
/// Words of the header that carry something.
pub const HEADER_WORDS: usize = 32;
/// Slots begin at a multiple of this, and are a multiple of [`SECTOR_BYTES`] long.
pub const PAGE_BYTES: u64 = 4096;
/// No two slots share one: a sector that a power cut tears belongs to one record.
pub const SECTOR_BYTES: u64 = 512;

/// Words of a slot before its record.
pub const SLOT_HEAD_WORDS: usize = 3;
/// Words of a dictionary entry.
pub const ENTRY_WORDS: usize = 16;
/// Words of an entry before its name.
pub const ENTRY_HEAD_WORDS: usize = 4;
/// Longest name in an entry.
pub const ENTRY_NAME_BYTES: usize = (ENTRY_WORDS - ENTRY_HEAD_WORDS) * 8;

/// Largest description that is written or read.
pub const MAX_DESCRIPTION_BYTES: u64 = 2 << 20;
/// Most entries of a dictionary.
pub const MAX_ENTRIES: u64 = 1 << 20;
/// Largest slot.
pub const MAX_SLOT_WORDS: u64 = 1 << 22;
/// Most slots.
pub const MAX_SLOTS: u64 = 1 << 32;
/// Largest ring file.
pub const MAX_FILE_BYTES: u64 = 1 << 46;

const _: () = assert!(ENTRY_NAME_BYTES == crate::fault::MAX_NAME_BYTES);
const _: () = assert!(HEADER_WORDS as u64 * 8 <= HEADER_BYTES.0);
const _: () =
    assert!((ENTRY_WORDS as u64 * 8).is_multiple_of(64) && PAGE_BYTES.is_multiple_of(SECTOR_BYTES));

/// Holds a field against what others say that it is; `how` names those.
pub(super) fn exactly(
    field: &'static str,
    found: u64,
    expected: u64,
    how: &str,
) -> Result<(), BadLayout> {
    if found == expected {
        return Ok(());
    }
    Err(BadLayout { field, found, expected: format!("{expected} ({how})") })
}

/// The geometry of one ring.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Layout {
    /// Length of the description, which begins behind the header.
    pub description: Bytes,
    /// Where the dictionary begins.
    pub dictionary_offset: Bytes,
    /// How many entries it can hold.
    pub entries: u64,
    /// Where the slots begin.
    pub slots_offset: Bytes,
    /// Length of one slot, its head included.
    pub slot: Words,
    /// How many slots there are.
    pub slots: u64,
}

/// A geometry that no ring may have: the field, what it was, and what it may be.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{field} is {found}, expected {expected}")]
pub struct BadLayout {
    /// Name of the header's field.
    pub field: &'static str,
    /// Its value.
    pub found: u64,
    /// What would have been right.
    pub expected: String,
}

impl Layout {
    /// The geometry of a ring with room for records of `record` words.
    ///
    /// # Errors
    /// [`BadLayout`] if a part of it is larger than a ring may have.
    pub fn new(
        description: Bytes,
        entries: u64,
        record: Words,
        slots: u64,
    ) -> Result<Self, BadLayout> {
        let dictionary_offset =
            Bytes(HEADER_BYTES.0.saturating_add(description.0)).round_up(PAGE_BYTES);
        let dictionary = Words(entries.saturating_mul(ENTRY_WORDS as u64)).bytes();
        let slots_offset =
            Bytes(dictionary_offset.0.saturating_add(dictionary.0)).round_up(PAGE_BYTES);
        let slot =
            Words(record.0.saturating_add(SLOT_HEAD_WORDS as u64)).bytes().round_up(SECTOR_BYTES);
        let layout = Layout {
            description,
            dictionary_offset,
            entries,
            slots_offset,
            slot: slot.words(),
            slots,
        };
        layout.check()?;
        Ok(layout)
    }

    /// Holds every field against its bounds and against the fields before it.
    ///
    /// # Errors
    /// [`BadLayout`] for the first field that is out of them.
    pub fn check(&self) -> Result<(), BadLayout> {
        let within = |field, found: u64, least: u64, most: u64| {
            if (least..=most).contains(&found) {
                return Ok(());
            }
            Err(BadLayout { field, found, expected: format!("{least} to {most}") })
        };
        within("description_bytes", self.description.0, 1, MAX_DESCRIPTION_BYTES)?;
        let dictionary_offset = Bytes(HEADER_BYTES.0 + self.description.0).round_up(PAGE_BYTES);
        let follows = "behind description_bytes, at a page";
        exactly("dictionary_offset", self.dictionary_offset.0, dictionary_offset.0, follows)?;
        within("dictionary_entries", self.entries, 1, MAX_ENTRIES)?;
        let dictionary = Words(self.entries * ENTRY_WORDS as u64).bytes();
        let slots_offset = Bytes(dictionary_offset.0 + dictionary.0).round_up(PAGE_BYTES);
        let follows = "behind dictionary_entries, at a page";
        exactly("slots_offset", self.slots_offset.0, slots_offset.0, follows)?;
        let sector_words = Bytes(SECTOR_BYTES).words().0;
        within("slot_words", self.slot.0, sector_words, MAX_SLOT_WORDS)?;
        if !self.slot.0.is_multiple_of(sector_words) {
            let expected = format!("a multiple of {sector_words}");
            return Err(BadLayout { field: "slot_words", found: self.slot.0, expected });
        }
        let room = (MAX_FILE_BYTES - slots_offset.0) / self.slot.bytes().0;
        within("slots", self.slots, 2, room.min(MAX_SLOTS))
    }

    /// Length of the whole file.
    pub fn file_bytes(&self) -> Bytes {
        Bytes(self.slots_offset.0 + self.slots * self.slot.bytes().0)
    }

    /// Room for a record in one slot.
    pub fn record(&self) -> Words {
        Words(self.slot.0 - SLOT_HEAD_WORDS as u64)
    }

    /// Where slot `slot` begins.
    pub fn slot_offset(&self, slot: Slot) -> Bytes {
        Bytes(self.slots_offset.0 + slot.0 * self.slot.bytes().0)
    }

    /// Where entry `entry` of the dictionary begins.
    pub fn entry_offset(&self, entry: u32) -> Bytes {
        Bytes(self.dictionary_offset.0 + Words(u64::from(entry) * ENTRY_WORDS as u64).bytes().0)
    }

    /// The slot of record `seq` in a segment whose first record is `first`; `None` before it.
    pub fn slot_of(&self, first: Seq, seq: Seq) -> Option<Slot> {
        Some(Slot(seq.0.checked_sub(first.0)? % self.slots))
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    fn layout() -> Layout {
        Layout::new(Bytes(5000), 100, Words(500), 10).unwrap()
    }

    #[test]
    fn parts_follow_each_other_without_overlap() {
        let layout = layout();
        assert_eq!(layout.dictionary_offset, Bytes(12288), "4096 + 5000 rounded up to a page");
        assert_eq!(layout.slots_offset, Bytes(12288 + 16384), "12,800 bytes of entries, in pages");
        assert_eq!(layout.slot, Words(512), "503 words in whole sectors");
        assert_eq!(layout.file_bytes(), Bytes(28672 + 10 * 4096));
        assert_eq!(layout.slot_offset(Slot(3)), Bytes(28672 + 3 * 4096));
        assert_eq!(layout.entry_offset(2), Bytes(12288 + 256));
        assert_eq!(layout.slot_of(Seq(5), Seq(17)), Some(Slot(2)));
        assert_eq!(layout.slot_of(Seq(5), Seq(4)), None);
    }

    #[test]
    fn every_field_out_of_bounds_is_named() {
        type Patch = fn(&mut Layout, u64);
        let fields: [(&str, Patch); 6] = [
            ("description_bytes", |layout, value| layout.description = Bytes(value)),
            ("dictionary_offset", |layout, value| layout.dictionary_offset = Bytes(value)),
            ("dictionary_entries", |layout, value| layout.entries = value),
            ("slots_offset", |layout, value| layout.slots_offset = Bytes(value)),
            ("slot_words", |layout, value| layout.slot = Words(value)),
            ("slots", |layout, value| layout.slots = value),
        ];
        for (field, patch) in fields {
            for value in [0, u64::MAX, u64::MAX / 8] {
                let mut bad = layout();
                patch(&mut bad, value);
                assert_eq!(bad.check().unwrap_err().field, field, "{value}");
            }
        }
        assert_eq!(Layout::new(Bytes(1), 1, Words(1), 1).unwrap_err().field, "slots");
        assert!(Layout::new(Bytes(u64::MAX), 1, Words(1), 2).is_err());
        assert!(Layout::new(Bytes(1), u64::MAX, Words(1), 2).is_err());
        assert!(Layout::new(Bytes(1), 1, Words(u64::MAX), 2).is_err());
    }
}
