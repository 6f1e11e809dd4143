//! Compares the file of a mirror with what was written to it before its slots: header, description
//! and names, without which no record can be read. Slots judge themselves, and are not looked at. What
//! is to be done about it is for others.

use super::copy::Original;
use super::disk::DiskFile;
use crate::ring::{self, ENTRY_WORDS, HEADER_BYTES};
use crate::units::Bytes;

/// What is read at a time; in whole entries of the dictionary.
const PART: Bytes = Bytes(64 << 10);
/// What one look compares at most of description and names: those of 1,800 devices. It takes some tens of
/// microseconds, next to a sync.
const LOOK: Bytes = Bytes(256 << 10);

/// Where what is read goes: made once, since the recorder's memory is fixed.
pub struct Buffer(Vec<u64>);

impl Buffer {
    /// An empty one.
    pub fn new() -> Buffer {
        Buffer(vec![0; PART.words().0 as usize])
    }
}

/// How much of a file is compared.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Look {
    /// The header.
    Header,
    /// That and what comes next of the rest.
    Part,
    /// All of it.
    Whole,
}

/// How far the looks at one file are.
#[derive(Debug, Clone, Copy)]
pub struct Looked(Bytes);

impl Looked {
    /// Before the first.
    pub fn none() -> Looked {
        Looked(HEADER_BYTES)
    }

    /// Whether the file does not have what was written to it: its head, and so many entries of the
    /// dictionary. What cannot be read says nothing.
    pub fn differs(
        &mut self,
        file: &impl DiskFile,
        (original, entries): (&Original, u32),
        look: Look,
        buffer: &mut Buffer,
    ) -> bool {
        let words = original.segment.header().to_words();
        let mut found = words;
        let has_header = file.read_at(bytemuck::cast_slice_mut(&mut found), Bytes(0));
        if has_header.is_ok() && found != words {
            return true;
        }
        let end = original.segment.header().layout.entry_offset(entries);
        let all = Bytes(end.0 - HEADER_BYTES.0);
        let mut left = match look {
            Look::Header => Bytes(0),
            Look::Part => all.min(LOOK),
            Look::Whole => all,
        };
        while left > Bytes(0) {
            // There may be more names than at the last look, and it is once around in any case.
            if self.0 >= end {
                *self = Looked::none();
            }
            let (at, length) = (self.0, left.min(PART).min(Bytes(end.0 - self.0.0)));
            (self.0, left) = (Bytes(at.0 + length.0), Bytes(left.0 - length.0));
            let part = &mut buffer.0[..length.words().0 as usize];
            let read = file.read_at(bytemuck::cast_slice_mut(part), at);
            let differs = has_other_text(part, at, original) || has_other_names(part, at, original);
            if read.is_ok() && differs {
                return true;
            }
        }
        false
    }
}

/// Whether what was read at `at` differs from the description, where it is that.
fn has_other_text(part: &[u64], at: Bytes, original: &Original) -> bool {
    let part: &[u8] = bytemuck::cast_slice(part);
    let text = original.description.get((at.0 - HEADER_BYTES.0) as usize..).unwrap_or_default();
    let length = text.len().min(part.len());
    part[..length] != text[..length]
}

/// The same of names. One that somebody has stored to in the ring is none to go by.
fn has_other_names(part: &[u64], at: Bytes, original: &Original) -> bool {
    let header = original.segment.header();
    let names = header.layout.dictionary_offset;
    let before = Bytes(names.0.saturating_sub(at.0)).words().0 as usize;
    let first = Bytes(at.0.saturating_sub(names.0)).words().0 as usize / ENTRY_WORDS;
    let entries = part.get(before..).unwrap_or_default().chunks_exact(ENTRY_WORDS);
    (first as u32..).zip(entries).any(|(index, found)| {
        let written = original.segment.copy_entry(index);
        written != *found && ring::read_entry(&written, index, header.seed()).is_some()
    })
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;
    use crate::ring::RingWriter;
    use crate::sampler::tests::original;
    use crate::sync::Ordering;
    use crate::units::Seq;
    use std::fs::File;
    use std::os::unix::fs::FileExt;

    /// A segment of so many names, and a file that has what is in it.
    fn copied(names: u32) -> (Original, File) {
        let original = original(vec![b'd'; 100_003], u64::from(names) + 5, 3);
        let segment = &original.segment;
        let ring = RingWriter::new(segment.clone());
        for name in 0..names {
            ring.add_entry(0, 0, Seq(0), format!("device-{name}").as_bytes()).unwrap();
        }
        let words = segment.words().iter().map(|word| word.load(Ordering::Relaxed));
        let words: Vec<u64> = words.collect();
        let file = tempfile::tempfile().unwrap();
        file.write_all_at(bytemuck::cast_slice(&words), 0).unwrap();
        (original, file)
    }

    #[test]
    fn what_others_overwrite_is_seen_wherever_it_is_after_so_many_looks() {
        let (original, file) = copied(5000);
        let (layout, mut buffer) = (original.segment.header().layout, Buffer::new());
        let mut looks = |look, most| {
            let mut looked = Looked::none();
            let mut differs = |_: &u32| looked.differs(&file, (&original, 5000), look, &mut buffer);
            (1..=most).find(|nth| differs(nth))
        };
        for look in [Look::Header, Look::Part, Look::Whole] {
            assert_eq!(looks(look, 20), None, "{look:?} of what is whole");
        }
        // Where, and after how many looks: 100 kB of description and 640 kB of names take three.
        let name = |entry| layout.entry_offset(entry).0;
        for (at, parts) in [(0, 1), (255, 1), (4096, 1), (4096 + 100_002, 1), (name(0), 1)]
            .into_iter()
            .chain([(name(1900), 2), (name(3900), 3), (name(5000) - 1, 3)])
        {
            let mut was = [0];
            file.read_exact_at(&mut was, at).unwrap();
            file.write_all_at(&[was[0] ^ 1], at).unwrap();
            assert_eq!(looks(Look::Header, 20), (at < 256).then_some(1), "at {at}");
            assert_eq!(looks(Look::Part, 20), Some(parts), "at {at}");
            assert_eq!(looks(Look::Whole, 1), Some(1), "at {at}");
            file.write_all_at(&was, at).unwrap();
        }
        // Nobody has written there yet.
        file.write_all_at(&[1], name(5000)).unwrap();
        assert_eq!(looks(Look::Whole, 1), None);
    }

    #[test]
    fn what_others_have_stored_to_a_ring_is_no_damage_of_its_mirror() {
        let (original, file) = copied(3);
        let at = |offset: Bytes| &original.segment.words()[offset.words().0 as usize];
        at(original.segment.header().layout.entry_offset(1)).store(0, Ordering::Relaxed);
        at(Bytes(original.segment.header().layout.entry_offset(2).0 + 32))
            .store(7, Ordering::Relaxed);
        at(HEADER_BYTES).store(7, Ordering::Relaxed);
        at(Bytes(0)).store(7, Ordering::Relaxed);
        let mut looked = Looked::none();
        assert!(!looked.differs(&file, (&original, 3), Look::Whole, &mut Buffer::new()));
    }
}
