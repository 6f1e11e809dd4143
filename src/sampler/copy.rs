//! The copy of one segment: its file, how far that is, and how it is made whole again when others have
//! spoiled it. When what is written, and in which order, is for the [copier](super::copier).

use super::batch::Batch;
use super::compare::{Buffer, Look, Looked};
use super::disk::{Disk, DiskFile};
use super::watch::OVERWRITTEN;
use crate::ring::{self, ENTRY_WORDS, HEADER_BYTES, Header, Segment, SlotState};
use crate::units::{Bytes, Seq, Slot};
use std::collections::BTreeSet;
use std::io;
use std::sync::{Arc, Weak};

/// How far a copy is.
#[derive(Debug, Clone, Copy)]
pub struct Progress {
    /// Records before this one are in the file, or are lost.
    pub next: Seq,
    /// One behind it that is in the file as well: the copier was lapped, and wrote it out of turn.
    pub ahead: Option<Seq>,
    /// Behind the newest record in the file.
    pub end: Seq,
    /// Entries of the dictionary that are in the file.
    pub entries: u32,
}

impl Progress {
    fn none(segment: &Segment) -> Self {
        Progress { next: segment.header().first_seq, ahead: None, end: Seq(0), entries: 0 }
    }

    /// How far a file is that has these records and was as far as `self`. What it has is not written
    /// again: the ring may have another one for its slot by now. Nor is what nobody wants beside the
    /// newest of them, whose slot may be that one's.
    fn beside(&self, found: &BTreeSet<Seq>, first: Seq, max_samples: u64) -> Self {
        let Some(newest) = found.last().copied() else {
            return Progress { next: first, ahead: None, end: Seq(0), ..*self };
        };
        let end = Seq(newest.0 + 1);
        // Between those two there is nothing that the ring still has.
        let mut next = self.next.min(end).max(Seq(newest.0.saturating_sub(max_samples)));
        while found.contains(&next) {
            next = Seq(next.0 + 1);
        }
        Progress { next, ahead: (next < end).then_some(newest), end, ..*self }
    }
}

/// What a copy is made of.
#[derive(Clone)]
pub struct Original {
    /// The ring's memory. Others can reach it too: of what is in it, records and names judge themselves.
    pub segment: Arc<Segment>,
    /// Its description, whatever others have made of that in the ring's file.
    pub description: Arc<Vec<u8>>,
}

impl Original {
    /// The same for a queue.
    pub fn downgrade(&self) -> Queued {
        let header = self.segment.header();
        Queued {
            number: header.segment,
            first_seq: header.first_seq,
            segment: Arc::downgrade(&self.segment),
            description: Arc::downgrade(&self.description),
        }
    }
}

/// One that waits for its copy. Whoever records holds on to it as long as anything of it is wanted, and a
/// queue for a disk that stands still no longer than that.
#[derive(Clone)]
pub struct Queued {
    /// The segment's number.
    pub number: u64,
    /// The first record that it can have.
    pub first_seq: Seq,
    segment: Weak<Segment>,
    description: Weak<Vec<u8>>,
}

impl Queued {
    /// The original, if anything of it is still wanted.
    pub fn upgrade(&self) -> Option<Original> {
        let (segment, description) = (self.segment.upgrade()?, self.description.upgrade()?);
        Some(Original { segment, description })
    }
}

/// The mirror of one segment.
pub struct Copy<F> {
    pub original: Original,
    pub file: F,
    pub name: String,
    /// With what is still in the batch.
    pub written: Progress,
    pub synced: Progress,
    /// Behind the newest record that may be in the file: what was gathered, what was refused, and what
    /// a sync that failed was to make durable may be.
    pub touched: Seq,
    pub dirty: bool,
    /// A sync has failed, and what it was to make durable has not been written again since.
    behind: bool,
    /// While it is not made whole again nothing in it counts as synced, and nothing new is written
    /// to it.
    pub spoiled: Option<Spoiled>,
    /// How far it was compared with the original.
    looked: Looked,
}

/// What others have done to a file, as the beginning of a sentence, and why that still stands.
pub struct Spoiled {
    pub what: String,
    pub why: Option<io::Error>,
}

impl Spoiled {
    /// The whole sentence.
    pub fn sentence(&self) -> String {
        match &self.why {
            None => format!("{} and was made again", self.what),
            Some(error) => format!("{} and cannot be made again: {error}", self.what),
        }
    }
}

impl<F: DiskFile> Copy<F> {
    /// A copy of `original` in a new file, which is still to [begin](Self::begin).
    pub fn new(original: Original, file: F, name: String) -> Self {
        let progress = Progress::none(&original.segment);
        Copy {
            original,
            file,
            name,
            written: progress,
            synced: progress,
            touched: progress.end,
            dirty: false,
            behind: false,
            spoiled: None,
            looked: Looked::none(),
        }
    }

    /// Makes the new file one that records can be written to.
    ///
    /// # Errors
    /// The kernel's.
    pub fn begin(&self) -> io::Result<()> {
        write_head(&self.file, &self.original)?;
        self.file.sync_all()
    }

    /// What it is a copy of.
    pub fn segment(&self) -> &Segment {
        &self.original.segment
    }

    /// The first record that it can have.
    pub fn first(&self) -> Seq {
        self.segment().header().first_seq
    }

    /// What others have done to the file, as far as it is looked at, and whether it is still there.
    pub fn damage<D: Disk<File = F>>(
        &mut self,
        disk: &D,
        look: Look,
        buffer: &mut Buffer,
    ) -> Option<(&'static str, bool)> {
        let bytes = self.segment().header().layout.file_bytes();
        disk.damage(&self.name, &self.file, bytes).or_else(|| {
            let was_written = (&self.original, self.written.entries);
            let differs = self.looked.differs(&self.file, was_written, look, buffer);
            differs.then_some((OVERWRITTEN, true))
        })
    }

    /// Makes the file whole again that others have cut off or overwritten: with what the ring still
    /// has of what was in it, and what it still has itself. How far it is then, the records that it has
    /// decide.
    ///
    /// # Errors
    /// The kernel's; it is to be called again then.
    pub fn start_again(&mut self) -> io::Result<()> {
        let Header { layout, first_seq, max_samples, .. } = *self.segment().header();
        let seed = self.segment().header().seed();
        self.file.extend(layout.file_bytes())?;
        write_head(&self.file, &self.original)?;
        self.write_names_again()?;
        let (mut in_ring, mut in_file) = (Vec::new(), vec![0; layout.slot.0 as usize]);
        let mut found = BTreeSet::new();
        for slot in (0..layout.slots).map(Slot) {
            let at = layout.slot_offset(slot);
            self.file.read_at(bytemuck::cast_slice_mut(&mut in_file), at)?;
            let kept = match ring::judge(&in_file, slot.0, layout.slots, first_seq, seed) {
                SlotState::Valid(seq, used) => Some((seq, used)),
                _ => None,
            };
            let stable = self.segment().copy_slot(slot, &mut in_ring);
            let had = match ring::judge(&in_ring, slot.0, layout.slots, first_seq, seed) {
                SlotState::Valid(seq, used) if stable => Some((seq, used)),
                _ => None,
            };
            let Progress { next, ahead, .. } = self.written;
            let ((seq, used), words) = match (kept, had) {
                // Written back, since a sync that failed may have left it in memory only. Not what the
                // ring has there by now: that would take the place of what may be to be kept.
                (Some(kept), _) => (kept, &in_file),
                (None, Some(had)) if had.0 < next || ahead == Some(had.0) => (had, &in_ring),
                (None, _) => continue,
            };
            let bytes = bytemuck::cast_slice(&words[..used + ring::SLOT_HEAD_WORDS]);
            self.file.write_at(bytes, at)?;
            found.insert(seq);
        }
        // As of a new one: a power cut leaves no records without a head.
        self.file.sync_all()?;
        let entries = self.written.entries;
        self.written = Progress { entries, ..self.written.beside(&found, first_seq, max_samples) };
        (self.synced, self.touched) = (self.written, self.written.end);
        (self.dirty, self.behind) = (false, false);
        Ok(())
    }

    /// Writes to the file what was gathered for it.
    ///
    /// # Errors
    /// The first of the kernel's.
    pub fn flush(&mut self, batch: &mut Batch) -> io::Result<()> {
        let end = &mut self.written.end;
        batch.flush(&self.file, &mut |record| *end = (*end).max(end_of(record)))
    }

    /// Gathers a record, which may write what was gathered before it.
    ///
    /// # Errors
    /// The first of the kernel's.
    pub fn gather(&mut self, batch: &mut Batch, record: &[u8], slot: Slot) -> io::Result<()> {
        self.dirty = true;
        self.touched = self.touched.max(end_of(record));
        let (at, end) = (self.segment().header().layout.slot_offset(slot), &mut self.written.end);
        batch.write_at(&self.file, record, at, &mut |record| *end = (*end).max(end_of(record)))
    }

    /// The record that is in a slot of the file, by its first word.
    pub fn found_in(&self, slot: Slot) -> Option<u64> {
        let mut commit = [0; size_of::<u64>()];
        let at = self.segment().header().layout.slot_offset(slot);
        self.file.read_at(&mut commit, at).ok()?;
        u64::from_ne_bytes(commit).checked_sub(1)
    }

    /// Whether the ring has a record behind `seq`. Looks at fewer and fewer slots the farther they are,
    /// each copied to `words`.
    pub fn has_newer_than(&self, seq: Seq, words: &mut Vec<u64>) -> bool {
        let Header { layout, first_seq, .. } = *self.segment().header();
        let seed = self.segment().header().seed();
        let steps = (0..u64::BITS).map(|bit| 1 << bit).take_while(|step| *step < layout.slots);
        let mut places = steps.filter_map(|step| {
            let later = Seq(seq.0.checked_add(step)?);
            Some((later, layout.slot_of(first_seq, later)?))
        });
        places.any(|(later, slot)| {
            let stable = self.segment().copy_slot(slot, words);
            let state = ring::judge(words, slot.0, layout.slots, first_seq, seed);
            stable && matches!(state, SlotState::Valid(found, _) if found >= later)
        })
    }

    /// Makes durable what was written. If it could not be, it is to be written again: the kernel may
    /// have dropped it.
    ///
    /// # Errors
    /// The kernel's.
    pub fn sync_data(&mut self) -> io::Result<()> {
        let result = self.file.sync_data();
        match &result {
            // One that succeeds right behind one that failed has nothing of that any more.
            Ok(()) => (self.synced, self.dirty) = (self.written, self.behind),
            Err(_) => (self.written, self.behind) = (self.synced, true),
        }
        result
    }

    /// All that is not written is being written now.
    pub fn catch_up(&mut self) {
        self.behind = false;
    }

    /// The newest record that the file can hold in the slot of `seq`, before that is written there:
    /// a copier that was lapped may have written to it out of turn.
    pub fn held_before(&self, seq: Seq) -> Option<u64> {
        let Header { layout, first_seq, .. } = self.segment().header();
        let newest = self.touched.0.min(seq.0).checked_sub(1)?;
        let laps = (seq.0 - newest).div_ceil(layout.slots);
        seq.0.checked_sub(laps * layout.slots).filter(|old| *old >= first_seq.0)
    }

    /// The next record that is not in the file.
    pub fn skip_written(&mut self) -> Seq {
        let Progress { next, ahead, .. } = &mut self.written;
        if *ahead == Some(*next) {
            (*next, *ahead) = (Seq(next.0 + 1), None);
        }
        *next
    }

    /// Writes the names that the file had, from the ring or, where somebody has stored to those, as they
    /// are in the file: a sync that failed may have left them in memory only.
    ///
    /// # Errors
    /// The kernel's.
    fn write_names_again(&mut self) -> io::Result<()> {
        let Header { layout, .. } = *self.segment().header();
        let seed = self.segment().header().seed();
        for index in 0..self.written.entries {
            let (mut entry, at) = (self.segment().copy_entry(index), layout.entry_offset(index));
            if ring::read_entry(&entry, index, seed).is_none() {
                self.file.read_at(bytemuck::cast_slice_mut(&mut entry), at)?;
            }
            self.file.write_at(bytemuck::cast_slice(&entry), at)?;
        }
        self.copy_names()
    }

    /// Writes the names that are new.
    ///
    /// # Errors
    /// The kernel's.
    pub fn copy_names(&mut self) -> io::Result<()> {
        let layout = self.segment().header().layout;
        while u64::from(self.written.entries) < layout.entries {
            let copy = |entry| self.segment().copy_entry(entry);
            match look_for_name(self.written.entries, layout.entries, copy) {
                Name::NotYet => break,
                Name::Gone => {}
                Name::There(entry) => {
                    self.dirty = true;
                    let offset = layout.entry_offset(self.written.entries);
                    self.file.write_at(bytemuck::cast_slice(&entry), offset)?;
                }
            }
            self.written.entries += 1;
        }
        Ok(())
    }
}

/// What a dictionary has in one of its entries.
#[derive(Debug, PartialEq, Eq)]
enum Name {
    /// Nothing, as in those behind it.
    NotYet,
    /// Nothing, since somebody else has stored to it.
    Gone,
    /// These words.
    There([u64; ENTRY_WORDS]),
}

/// Looks at entry `entry` of as many as `entries`, each of which `copy` copies, while others may be added.
fn look_for_name(
    entry: u32,
    entries: u64,
    mut copy: impl FnMut(u32) -> [u64; ENTRY_WORDS],
) -> Name {
    let found = copy(entry);
    if found[0] != 0 {
        return Name::There(found);
    }
    let later = (0..u32::BITS).filter_map(|bit| entry.checked_add(1 << bit));
    let mut later = later.take_while(|later| u64::from(*later) < entries);
    if !later.any(|later| copy(later)[0] != 0) {
        return Name::NotYet;
    }
    // It may have been added between the two looks. They are added in order, and a copy that has one
    // sees all before it (`ring::dictionary`): what is not there now never will be.
    let found = copy(entry);
    if found[0] == 0 { Name::Gone } else { Name::There(found) }
}

/// Behind the record of these bytes, by its first word.
fn end_of(record: &[u8]) -> Seq {
    record.first_chunk().map_or(Seq(0), |commit| Seq(u64::from_ne_bytes(*commit)))
}

/// The header last: a file that has one is whole up to its records, whenever the recorder is killed.
fn write_head(file: &impl DiskFile, original: &Original) -> io::Result<()> {
    file.write_at(&original.description, HEADER_BYTES)?;
    let words = original.segment.header().to_words();
    let mut header = [0; HEADER_BYTES.0 as usize / size_of::<u64>()];
    header[..words.len()].copy_from_slice(&words);
    file.write_at(bytemuck::cast_slice(&header), Bytes(0))
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    #[test]
    fn a_name_that_is_added_between_two_looks_is_not_taken_for_one_that_is_gone() {
        let there = |index: u32| [u64::from(index) + 1; ENTRY_WORDS];
        // Of ten names so many are there at the first look, and more at each further one.
        for (had, more) in (0..10).flat_map(|had| (0..4).map(move |more| (had, more))) {
            let mut added = had;
            let copy = |index| {
                let found = if index < added { there(index) } else { [0; ENTRY_WORDS] };
                added = (added + more).min(10);
                found
            };
            let found = look_for_name(4, 10, copy);
            let is_right = found == Name::There(there(4)) || found == Name::NotYet && had <= 4;
            assert!(is_right, "{had} and {more} more at each look: {found:?}");
        }
        let spoiled = |index| if index == 4 { [0; ENTRY_WORDS] } else { there(index) };
        assert_eq!(look_for_name(4, 10, spoiled), Name::Gone);
    }
}
