//! The one writer of a segment: hands out slots and grows the dictionary. It stores words and
//! does no I/O; who made the memory, and who copies it elsewhere, is not its business.

use super::header::{self, BadHeader, Header, MAGIC_WORD};
use super::layout::{BadLayout, ENTRY_WORDS, HEADER_BYTES};
use super::map::{Memory, WordMap};
use super::orderings::{Orderings, Point, Sound};
use super::slot::SlotWriter;
use super::{dictionary, slot};
use crate::sync::{AtomicU64, Ordering};
use crate::units::{Bytes, Seq, Slot};
use std::cell::Cell;
use std::sync::Arc;
use std::sync::atomic::AtomicU32;

/// The memory of one segment with its geometry: what its writer and, in the same process, its
/// readers share.
pub struct Segment<M = WordMap> {
    memory: Arc<M>,
    header: Header,
    entries_used: AtomicU32,
}

impl<M: Memory> Segment<M> {
    /// Writes header and description into fresh, zeroed memory.
    ///
    /// # Errors
    /// [`BadHeader`] if the header is one that no reader would take, or if it does not match
    /// memory and description.
    pub fn create(memory: Arc<M>, header: Header, description: &[u8]) -> Result<Self, BadHeader> {
        Self::create_with::<Sound>(memory, header, description)
    }

    pub(super) fn create_with<O: Orderings>(
        memory: Arc<M>,
        header: Header,
        description: &[u8],
    ) -> Result<Self, BadHeader> {
        let words = header.to_words();
        // Nothing is written that this same program would refuse to read.
        Header::from_words(&words)?;
        let place = memory.words();
        let room = Bytes(place.len() as u64 * 8);
        let refuse = |field, found: u64, expected: u64| {
            Err(BadHeader::Field(BadLayout { field, found, expected: expected.to_string() }))
        };
        if room < header.layout.file_bytes() {
            return refuse("file_bytes", room.0, header.layout.file_bytes().0);
        }
        if description.len() as u64 != header.layout.description.0 {
            return refuse(
                "description_bytes",
                header.layout.description.0,
                description.len() as u64,
            );
        }
        let check = header::description_check(description);
        if header.description_check != check {
            return refuse("description_check", header.description_check, check);
        }
        for (cell, word) in place[index(HEADER_BYTES)..].iter().zip(header::to_words(description)) {
            cell.store(word, Ordering::Relaxed);
        }
        // From the last word to the first: killed at any point before the last store, its writer
        // leaves a file that begins with zero, a ring that was never begun.
        for (cell, word) in place.iter().zip(&words).skip(1).rev() {
            cell.store(*word, Ordering::Relaxed);
        }
        // Keeps the stores above before it. Pairs with an acquire load by whoever maps the file and
        // reads its header so; our own readers get the segment from us, or `pread` it and check the
        // checksums.
        place[MAGIC_WORD].store(words[MAGIC_WORD], O::release(Point::HeaderStore));
        Ok(Segment { memory, header, entries_used: AtomicU32::new(0) })
    }

    /// What the header says.
    pub fn header(&self) -> &Header {
        &self.header
    }

    /// Whether the memory is locked.
    pub fn is_locked(&self) -> bool {
        self.memory.is_locked()
    }

    /// Whether the file turned out to be shorter than the ring: see [`WordMap::is_lost`].
    #[inline]
    pub fn is_lost(&self) -> bool {
        self.memory.is_lost()
    }

    /// The words that are not the file's: see [`WordMap::own_words`].
    pub(crate) fn own_words(&self) -> (usize, &[AtomicU64]) {
        self.memory.own_words()
    }

    /// All words.
    pub(crate) fn words(&self) -> &[AtomicU64] {
        self.memory.words()
    }

    /// The words before the dictionary: header and description.
    pub(crate) fn head(&self) -> &[AtomicU64] {
        &self.words()[..index(self.header.layout.dictionary_offset)]
    }

    /// The words of one slot.
    pub(crate) fn slot(&self, slot: Slot) -> &[AtomicU64] {
        let start = index(self.header.layout.slot_offset(slot));
        &self.words()[start..start + self.header.layout.slot.0 as usize]
    }

    /// Entries of the dictionary that were written.
    pub(crate) fn entries_used(&self) -> u32 {
        // A count for behind the run, when the writer's thread has been waited for.
        self.entries_used.load(std::sync::atomic::Ordering::Relaxed)
    }

    /// Copies one entry of the dictionary, as a reader in this process: zeros if it is unused.
    pub(crate) fn copy_entry(&self, entry: u32) -> [u64; ENTRY_WORDS] {
        self.copy_entry_with::<Sound>(entry)
    }

    pub(super) fn copy_entry_with<O: Orderings>(&self, entry: u32) -> [u64; ENTRY_WORDS] {
        dictionary::copy_with::<O>(self.entry(entry))
    }

    fn entry(&self, entry: u32) -> &[AtomicU64] {
        let start = index(self.header.layout.entry_offset(entry));
        &self.words()[start..start + ENTRY_WORDS]
    }

    /// Copies one slot, as a reader in this process; see [`slot::copy`].
    #[doc(hidden)]
    pub fn copy_slot(&self, slot: Slot, words: &mut Vec<u64>) -> bool {
        slot::copy(self.slot(slot), words)
    }
}

/// The writer's end of a [`Segment`]. There is one.
pub struct RingWriter<M = WordMap> {
    segment: Arc<Segment<M>>,
    seed: u64,
    entries_used: Cell<u32>,
}

impl<M: Memory> RingWriter<M> {
    /// The writer of a segment that was just [created](Segment::create).
    pub fn new(segment: Arc<Segment<M>>) -> Self {
        let seed = segment.header.seed();
        RingWriter { segment, seed, entries_used: Cell::new(0) }
    }

    /// The segment.
    pub fn segment(&self) -> &Arc<Segment<M>> {
        &self.segment
    }

    /// Begins record `seq`, in the place of the oldest. `None` for one before the segment.
    #[inline]
    pub fn begin(&self, seq: Seq) -> Option<SlotWriter<'_>> {
        let slot = self.segment.header.layout.slot_of(self.segment.header.first_seq, seq)?;
        Some(SlotWriter::begin(self.segment.slot(slot), seq, self.seed))
    }

    /// Adds an instance to the dictionary and returns its entry; `None` if the dictionary is full.
    pub fn add_entry(&self, source: u32, identity: u64, seq: Seq, name: &[u8]) -> Option<u32> {
        self.add_entry_with::<Sound>((source, identity, seq), name)
    }

    pub(super) fn add_entry_with<O: Orderings>(
        &self,
        about: (u32, u64, Seq),
        name: &[u8],
    ) -> Option<u32> {
        let entry = self.entries_used.get();
        if u64::from(entry) >= self.segment.header.layout.entries {
            return None;
        }
        let words = self.segment.entry(entry);
        dictionary::write_with::<O>(words, entry, self.seed, about, name);
        self.entries_used.set(entry + 1);
        // See `Segment::entries_used`.
        self.segment.entries_used.store(entry + 1, std::sync::atomic::Ordering::Relaxed);
        Some(entry)
    }
}

/// The index of the word at `offset`; every offset of a checked layout fits.
fn index(offset: Bytes) -> usize {
    offset.words().0 as usize
}
