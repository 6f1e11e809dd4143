//! Rings that were cut off, overwritten, mixed up or never rings at all: nothing is accepted that
//! was not written, and what is whole is still found.

use super::*;
use crate::ring::checksum::of_words;
use crate::ring::header::HEADER_CHECK;
use crate::ring::layout::{ENTRY_WORDS, HEADER_BYTES, HEADER_WORDS, MAGIC, SLOT_HEAD_WORDS};
use crate::ring::slot::{BUSY, CHECK, COMMIT, LENGTH};
use crate::ring::{FIELDS, RingError, SlotState};
use proptest::prelude::*;

const SLOTS: u64 = 4;
const NAMES: [&[u8]; 2] = [b"sda", b"nvme0n1p17"];

/// Four slots, records 43 to 46 of 7, two names.
fn small() -> Rig {
    let mut rig = Rig::new(header(1, 0, 60, SLOTS));
    for name in NAMES {
        rig.writer.add_entry(3, 4, Seq(FIRST), name).unwrap();
    }
    rig.write_many(7);
    rig
}

fn kept(rig: &Rig) -> Vec<u64> {
    Vec::from_iter(rig.next - SLOTS..rig.next)
}

/// The entries that are read; each must be one that was written, in its place.
#[track_caller]
fn entries_of(ring: &Ring) -> usize {
    let entries = (0..ENTRIES as u32).filter_map(|index| {
        let entry = ring.entry(index).unwrap()?;
        assert_eq!((entry.source, entry.identity, entry.first_seq), (3, 4, Seq(FIRST)));
        assert_eq!(Some(&&entry.name[..]), NAMES.get(index as usize));
        Some(entry)
    });
    entries.count()
}

fn fix_header_check(bytes: &mut [u8]) {
    let words: Vec<u64> = (0..HEADER_CHECK).map(|word| word_at(bytes, word)).collect();
    set_word(bytes, HEADER_CHECK, of_words(0, &words));
}

#[test]
fn a_file_cut_off_anywhere_gives_what_it_still_has() {
    let rig = small();
    let (bytes, layout) = (rig.bytes(), rig.writer.segment().header().layout);
    let head_end = HEADER_BYTES.0 as usize + DESCRIPTION.len();
    // Where each kept record ends; what follows it in its slot means nothing.
    let end_of = |seq: u64| {
        let slot = layout.slot_offset(layout.slot_of(Seq(FIRST), Seq(seq)).unwrap());
        slot.0 as usize + 8 * (SLOT_HEAD_WORDS + record(seq, rig.room()).len())
    };
    let odd = (0..bytes.len()).step_by(997).flat_map(|at| [at + 1, at + 3]);
    for cut in (0..=bytes.len()).step_by(8).chain(odd).chain([head_end]) {
        let ring = match open(bytes[..cut.min(bytes.len())].to_vec()) {
            Ok(ring) => ring,
            Err(error) => {
                assert!(cut < head_end, "cut at {cut}: {error}");
                continue;
            }
        };
        assert!(cut >= head_end, "cut at {cut}: accepted");
        let whole: Vec<u64> = kept(&rig).into_iter().filter(|seq| end_of(*seq) <= cut).collect();
        assert_eq!(records_of(&ring, rig.room(), rig.next), whole, "cut at {cut}");
        entries_of(&ring);
    }
}

#[test]
fn what_is_cut_off_in_its_head_says_so() {
    let bytes = small().bytes();
    for cut in [8, 16, 255, 256, 4096, 4100] {
        let error = open(bytes[..cut].to_vec()).err().unwrap();
        assert!(matches!(error, RingError::Short { .. } | RingError::Header { .. }), "{error}");
        if cut >= 16 {
            assert!(error.to_string().contains(&format!("ends after {cut} bytes")), "{error}");
        }
    }
}

/// Values that a header's word is patched to, and its name.
fn header_patches() -> impl Iterator<Item = (usize, &'static str, u64)> {
    (0..HEADER_WORDS).flat_map(|word| {
        let name = FIELDS.get(word).copied().unwrap_or("header_check");
        let random = (0..20).map(move |nth| {
            let value = scrambled(word as u64 * 100 + nth);
            // Small ones, too: most fields are.
            if nth % 2 == 0 { value } else { value >> (64 - 3 * nth as u32) }
        });
        [0, 1, 2, u64::MAX].into_iter().chain(random).map(move |value| (word, name, value))
    })
}

#[test]
fn a_changed_header_is_refused() {
    let good = small().bytes();
    for (word, name, value) in header_patches() {
        if word_at(&good, word) == value {
            continue;
        }
        let mut bytes = good.clone();
        set_word(&mut bytes, word, value);
        let Err(RingError::Header { .. }) = open(bytes) else {
            panic!("{name}, word {word}: {value} was accepted");
        };
    }
}

#[test]
fn a_changed_header_with_a_right_checksum_is_harmless_or_named() {
    let (rig, mut refused) = (small(), 0);
    for (word, name, value) in header_patches().filter(|(word, ..)| *word < HEADER_CHECK) {
        let mut bytes = rig.bytes();
        set_word(&mut bytes, word, value);
        fix_header_check(&mut bytes);
        match open(bytes) {
            Ok(ring) => {
                records_of(&ring, rig.room(), rig.next);
                entries_of(&ring);
            }
            Err(error) => {
                // Two fields that do not match: both are named.
                let said = error.to_string();
                assert!(said.contains(name), "{name} = {value}: {said}");
                refused += 1;
            }
        }
    }
    assert!(refused > 10 * 20, "only {refused} were refused");
}

#[test]
fn slots_that_the_file_does_not_have_are_counted_and_not_looked_at() {
    let rig = small();
    let header = Header {
        layout: Layout { slots: 1 << 32, ..rig.writer.segment().header().layout },
        ..rig.writer.segment().header().clone()
    };
    let mut bytes = rig.bytes();
    for (index, word) in header.to_words().into_iter().enumerate() {
        set_word(&mut bytes, index, word);
    }
    for (cut, present) in [(0, SLOTS), (1, SLOTS), (512, SLOTS - 1), (3 * 512 + 8, 1)] {
        let ring = open(bytes[..bytes.len() - cut].to_vec()).unwrap();
        assert_eq!(ring.slots_present().unwrap(), present, "{cut} bytes less");
        // Only record 43, in the last of the four, lies where it would in a ring of so many.
        let scan = ring.scan().unwrap();
        assert_eq!(scan.empty, (1 << 32) - present);
        assert_eq!(scan.newest, (scan.valid == 1).then_some(Seq(FIRST + SLOTS - 1)));
        assert!(cut > 0 || scan.valid == 1);
        assert_eq!(scan.valid + scan.torn, present);
    }
    let head_end = header.description_range().end as usize;
    assert_eq!(open(bytes[..head_end].to_vec()).unwrap().slots_present().unwrap(), 0);
}

#[test]
fn a_flipped_word_costs_at_most_what_it_is_part_of() {
    let rig = small();
    let (good, layout) = (rig.bytes(), rig.writer.segment().header().layout);
    let slots_at = layout.slots_offset.words().0 as usize;
    let dictionary_at = layout.dictionary_offset.words().0 as usize;
    let head = (0..HEADER_WORDS).chain([HEADER_BYTES.words().0 as usize]);
    let head: Vec<usize> = head.chain([HEADER_BYTES.words().0 as usize + 1]).collect();
    for word in 0..good.len() / 8 {
        for flip in [u64::MAX, 1 << (word % 64), 1, BUSY] {
            let mut bytes = good.clone();
            set_word(&mut bytes, word, word_at(&good, word) ^ flip);
            let Ok(ring) = open(bytes) else {
                assert!(head.contains(&word), "word {word}: one word costs the whole ring");
                continue;
            };
            let seqs = records_of(&ring, rig.room(), rig.next);
            let hit = word.checked_sub(slots_at).map(|at| (at / layout.slot.0 as usize) as u64);
            let others = |seq: &u64| Some((seq - FIRST) % SLOTS) != hit;
            let mut expected: Vec<u64> = kept(&rig);
            let lost = expected.iter().copied().find(|seq| !others(seq)).filter(|seq| {
                let at = (word - slots_at) % layout.slot.0 as usize;
                at < SLOT_HEAD_WORDS + record(*seq, rig.room()).len()
            });
            expected.retain(|seq| Some(*seq) != lost);
            assert_eq!(seqs, expected, "word {word} ^ {flip:#x}");
            let entry = word.checked_sub(dictionary_at).map(|at| at / ENTRY_WORDS);
            let entries = NAMES.len() - usize::from(entry.is_some_and(|nth| nth < NAMES.len()));
            assert_eq!(entries_of(&ring), entries, "word {word} ^ {flip:#x}");
        }
    }
}

/// Takes slots and dictionary of `from` into `into`.
fn graft(into: &Rig, from: &Rig) -> Ring {
    let (mut bytes, other) = (into.bytes(), from.bytes());
    let at = into.writer.segment().header().layout.dictionary_offset.0 as usize;
    bytes[at..].copy_from_slice(&other[at..]);
    open(bytes).unwrap()
}

#[test]
fn slots_of_another_run_or_segment_are_not_accepted() {
    let rig = small();
    assert_eq!(records_of(&graft(&rig, &small()), rig.room(), rig.next), kept(&rig), "the same");
    for (run, segment) in [(2, 0), (1 << 64 | 1, 0), (1, 1)] {
        let mut other = Rig::new(header(run, segment, 60, SLOTS));
        for name in NAMES {
            other.writer.add_entry(3, 4, Seq(FIRST), name).unwrap();
        }
        other.write_many(7);
        for ring in [graft(&rig, &other), graft(&other, &rig)] {
            let scan = ring.scan().unwrap();
            assert_eq!((scan.valid, scan.torn), (0, SLOTS), "run {run:#x} segment {segment}");
            assert_eq!(entries_of(&ring), 0, "run {run:#x} segment {segment}");
        }
    }
}

#[test]
fn a_slot_or_entry_in_anothers_place_is_not_accepted() {
    let rig = small();
    let layout = rig.writer.segment().header().layout;
    let mut bytes = rig.bytes();
    let (at, length) = (layout.slots_offset.0 as usize, layout.slot.bytes().0 as usize);
    let (first, second) = bytes[at..].split_at_mut(length);
    first.swap_with_slice(&mut second[..length]);
    let at = layout.dictionary_offset.0 as usize;
    let (first, second) = bytes[at..].split_at_mut(ENTRY_WORDS * 8);
    first.swap_with_slice(&mut second[..ENTRY_WORDS * 8]);
    let ring = open(bytes).unwrap();
    let scan = ring.scan().unwrap();
    assert_eq!((scan.valid, scan.torn), (SLOTS - 2, 2));
    assert_eq!(entries_of(&ring), 0);
}

#[test]
fn a_busy_mark_without_a_record_is_torn() {
    // A number so large could not be counted on from.
    let mut bytes = small().bytes();
    let slots_at = small().writer.segment().header().layout.slots_offset.words().0 as usize;
    for slot in 0..SLOTS as usize {
        set_word(&mut bytes, slots_at + 64 * slot + COMMIT, BUSY);
    }
    let scan = open(bytes).unwrap().scan().unwrap();
    assert_eq!((scan.busy, scan.torn), (0, SLOTS));
}

/// A ring file with a right header over anything: its slots are drawn word by word, heads from
/// what a writer could have left and from what would overflow.
fn any_ring() -> impl Strategy<Value = Vec<u8>> {
    let edge = prop_oneof![
        0..70_u64,
        Just(BUSY),
        (0..70_u64).prop_map(|word| BUSY | word),
        (0..4_u64).prop_map(|less| u64::MAX - less),
        any::<u64>(),
    ];
    let slot = (edge.clone(), any::<u64>(), edge.clone(), any::<bool>());
    let slots = prop::collection::vec(slot, 2..6);
    let fields = (any::<u128>(), 0..1_u64 << 16, edge, 0..100_u64, 0..4_u64);
    (slots, fields, prop::collection::vec(any::<u8>(), 1..10_000)).prop_map(
        |(slots, (run, segment, first, record, cut), noise)| {
            let mut header = header(run, segment, record, slots.len() as u64);
            header.first_seq = Seq(first & ((1 << 62) - 1));
            let mut bytes: Vec<u8> =
                noise.into_iter().cycle().take(header.layout.file_bytes().0 as usize).collect();
            bytes[HEADER_BYTES.0 as usize..][..DESCRIPTION.len()].copy_from_slice(DESCRIPTION);
            for (index, word) in header.to_words().into_iter().enumerate() {
                set_word(&mut bytes, index, word);
            }
            for (nth, (commit, check, length, right)) in slots.into_iter().enumerate() {
                let at = header.layout.slot_offset(Slot(nth as u64)).words().0 as usize;
                set_word(&mut bytes, at + COMMIT, commit);
                set_word(&mut bytes, at + LENGTH, length);
                let room = header.layout.slot.0 - SLOT_HEAD_WORDS as u64;
                let end = at + SLOT_HEAD_WORDS + length.min(room) as usize;
                let words: Vec<u64> = (at + LENGTH..end).map(|at| word_at(&bytes, at)).collect();
                let seed = header.seed().wrapping_add(commit.wrapping_sub(1));
                set_word(
                    &mut bytes,
                    at + CHECK,
                    if right { of_words(seed, &words) } else { check },
                );
            }
            let length = bytes.len() - cut as usize * 999;
            bytes.truncate(length);
            bytes
        },
    )
}

/// Reads everything that there is to read.
fn read_all(ring: &Ring) {
    let (layout, mut words) = (ring.header().layout, Vec::new());
    for slot in 0..layout.slots {
        if let SlotState::Valid(seq, used) = ring.read_slot(Slot(slot), &mut words).unwrap() {
            assert_eq!(words.len(), used);
            assert!(used as u64 <= layout.record().0);
            assert!(ring.read(seq, &mut words).unwrap());
        }
    }
    let scan = ring.scan().unwrap();
    assert_eq!(scan.valid + scan.empty + scan.busy + scan.torn, layout.slots);
    for entry in (0..=layout.entries as u32).chain([u32::MAX]) {
        let _ = ring.entry(entry).unwrap();
    }
}

proptest! {
    #[test]
    fn no_bytes_make_a_reader_panic(bytes in prop::collection::vec(any::<u8>(), 0..9000)) {
        prop_assert!(open(bytes.clone()).is_err());
        let mut named = MAGIC.to_ne_bytes().to_vec();
        named.extend(1_u64.to_ne_bytes());
        named.extend(bytes);
        prop_assert!(open(named).is_err());
    }

    #[test]
    fn no_slots_make_a_reader_panic(bytes in any_ring()) {
        read_all(&open(bytes).unwrap());
    }

    #[test]
    fn no_header_makes_a_reader_panic(
        patches in prop::collection::vec((0..HEADER_CHECK, any::<u64>(), 0..64_u32), 1..4),
    ) {
        let mut bytes = small().bytes();
        for (word, value, shift) in patches {
            set_word(&mut bytes, word, value >> shift);
        }
        fix_header_check(&mut bytes);
        if let Ok(ring) = open(bytes) {
            read_all(&ring);
        }
    }
}
