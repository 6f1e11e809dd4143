//! Loom models of the ring's protocols: `RUSTFLAGS="--cfg loom" cargo test --lib --release models`.
//!
//! They run the production code over loom's words, through the interleavings of its threads and
//! all values that the memory model lets a load see. Each ordering of `orderings.rs` is then taken
//! away, and a model must fail: one that still passed would not test it (the table is at the end).
//! x86 forgives most of it.
//!
//! The checksum would hide a broken protocol, so the models look behind it: a copy of a slot that
//! is called stable must be one whole record, whatever its checksum says.

use super::dictionary::{self, Entry};
use super::header::{Header, MAGIC_WORD, MIN_INTERVAL_NS, description_check};
use super::layout::{ENTRY_WORDS, HEADER_BYTES, Layout, SLOT_HEAD_WORDS};
use super::orderings::{Orderings, Point, Sound};
use super::slot::{self, BUSY, COMMIT, Draft, SlotState, SlotWriter};
use super::writer::{RingWriter, Segment};
use crate::sync::{AtomicU64, Ordering};
use crate::units::{Bytes, Seq, Slot, Words};
use loom::sync::Arc;
use loom::thread;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Mutex;
use std::sync::atomic::AtomicUsize;
use uuid::Uuid;

const SEED: u64 = 42;
const RECORD_WORDS: usize = 2;

/// Record `seq`: every word tells whose it is, and the length changes from one to the next.
fn record(seq: u64) -> Vec<u64> {
    (0..RECORD_WORDS as u64 - seq % 2).map(|word| 100 * (seq + 1) + word).collect()
}

fn zeros(count: usize) -> Vec<AtomicU64> {
    (0..count).map(|_| AtomicU64::new(0)).collect()
}

fn new_slot() -> Vec<AtomicU64> {
    zeros(SLOT_HEAD_WORDS + RECORD_WORDS)
}

/// Record `seq` as the sampler makes it before it has a slot, and its length.
fn draft(seq: u64) -> (Draft, usize) {
    let (draft, record) = (Draft::new(Words(RECORD_WORDS as u64)), record(seq));
    for (cell, word) in draft.record().iter().zip(&record) {
        cell.store(*word, Ordering::Relaxed);
    }
    (draft, record.len())
}

fn write<O: Orderings>(slot: &[AtomicU64], seq: u64) {
    let (draft, used) = draft(seq);
    SlotWriter::begin_with::<O>(slot, Seq(seq), SEED).commit_draft_with::<O>(&draft, used);
}

/// Copies slot number `nth` of `slots` once; `None` if the copy is not stable.
fn read<O: Orderings>(slot: &[AtomicU64], nth: u64, slots: u64) -> Option<SlotState> {
    let mut copy = Vec::new();
    slot::copy_with::<O>(slot, &mut copy).then(|| judged(&copy, nth, slots, SEED))
}

/// What a stable copy is. This is where a broken protocol shows.
fn judged(copy: &[u64], nth: u64, slots: u64, seed: u64) -> SlotState {
    let state = slot::judge(copy, nth, slots, Seq(0), seed);
    match copy[COMMIT] {
        0 => assert_eq!(state, SlotState::Empty),
        busy if busy & BUSY != 0 => assert_eq!(state, SlotState::Busy(Seq((busy & !BUSY) - 1))),
        commit => {
            let expected = record(commit - 1);
            assert_eq!(copy[SLOT_HEAD_WORDS..], expected, "a stable copy is one whole record");
            assert_eq!(state, SlotState::Valid(Seq(commit - 1), expected.len()), "and verifies");
        }
    }
    state
}

/// What the readers of all runs of a model saw, and how often: a model whose readers never meet
/// the writer shows nothing.
#[derive(Clone, Default)]
struct Seen(std::sync::Arc<Mutex<BTreeMap<String, u64>>>);

impl Seen {
    fn note(&self, what: &impl std::fmt::Debug) {
        *self.0.lock().unwrap().entry(format!("{what:?}")).or_default() += 1;
    }

    #[track_caller]
    fn assert_all(&self, what: &[impl std::fmt::Debug]) {
        let seen = self.0.lock().unwrap();
        for what in what {
            assert!(seen.contains_key(&format!("{what:?}")), "{what:?} is not among {seen:?}");
        }
    }
}

/// Runs a model: through all interleavings, or those in which a thread is stopped in favour of
/// another so many times at most. What a load sees is not bounded.
fn explore(preemptions: Option<usize>, model: impl Fn() + Send + Sync + 'static) {
    let runs = Runs(std::sync::Arc::default());
    let run = std::sync::Arc::clone(&runs.0);
    let mut builder = loom::model::Builder::new();
    builder.preemption_bound = preemptions;
    builder.check(move || {
        run.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        model();
    });
}

/// Says how many runs a model took, to its end or until it failed.
struct Runs(std::sync::Arc<AtomicUsize>);

impl Drop for Runs {
    fn drop(&mut self) {
        println!("{} runs", self.0.load(std::sync::atomic::Ordering::Relaxed));
    }
}

/// Overwrites a used slot `laps` times while each of `readers` copies it once.
fn overwrite<O: Orderings>(laps: u64, readers: usize, preemptions: Option<usize>) -> Seen {
    let seen = Seen::default();
    let noted = seen.clone();
    explore(preemptions, move || {
        let slot = Arc::new(new_slot());
        write::<O>(&slot, 0);
        let reader = || {
            let (slot, noted) = (Arc::clone(&slot), noted.clone());
            thread::spawn(move || noted.note(&read::<O>(&slot, 0, 1)))
        };
        let readers: Vec<_> = (0..readers).map(|_| reader()).collect();
        for seq in 1..=laps {
            write::<O>(&slot, seq);
        }
        for reader in readers {
            reader.join().unwrap();
        }
        assert_eq!(read::<O>(&slot, 0, 1), Some(valid(laps)), "behind the writer");
    });
    seen
}

fn valid(seq: u64) -> SlotState {
    SlotState::Valid(Seq(seq), record(seq).len())
}

fn busy(seq: u64) -> SlotState {
    SlotState::Busy(Seq(seq))
}

#[test]
fn a_stable_copy_is_one_record_that_was_written() {
    let seen = overwrite::<Sound>(2, 1, None);
    let states = [valid(0), valid(1), valid(2), busy(1), busy(2)];
    seen.assert_all(&states.map(Some));
    seen.assert_all(&[None::<SlotState>]);
}

#[test]
fn three_laps_are_as_good() {
    overwrite::<Sound>(3, 1, Some(3)).assert_all(&[Some(valid(0)), Some(valid(3)), None]);
}

#[test]
fn two_readers_do_not_disturb_each_other() {
    overwrite::<Sound>(1, 2, Some(2)).assert_all(&[Some(valid(0)), Some(valid(1)), None]);
}

/// Two slots, records 0 to 2: the last takes the place of the first. Whoever has record 2 also
/// finds record 1, since nothing is written over it.
fn wrap_around<O: Orderings>(readers: usize, preemptions: usize) -> Seen {
    let seen = Seen::default();
    let noted = seen.clone();
    explore(Some(preemptions), move || {
        let slots = Arc::new([new_slot(), new_slot()]);
        write::<O>(&slots[0], 0);
        let reader = || {
            let (shared, noted) = (Arc::clone(&slots), noted.clone());
            thread::spawn(move || {
                let newest = read::<O>(&shared[0], 0, 2);
                let before = read::<O>(&shared[1], 1, 2);
                if newest == Some(valid(2)) {
                    assert_eq!(before, Some(valid(1)), "a record that was kept is found");
                }
                noted.note(&newest);
                noted.note(&before);
            })
        };
        let readers: Vec<_> = (0..readers).map(|_| reader()).collect();
        write::<O>(&slots[1], 1);
        write::<O>(&slots[0], 2);
        for reader in readers {
            reader.join().unwrap();
        }
    });
    seen
}

#[test]
fn who_has_a_record_finds_those_before_it() {
    let seen = wrap_around::<Sound>(1, 3);
    let states = [SlotState::Empty, valid(0), valid(1), valid(2), busy(1), busy(2)];
    seen.assert_all(&states.map(Some));
    seen.assert_all(&[None::<SlotState>]);
}

#[test]
fn so_do_two_readers_of_a_ring_that_wraps_around() {
    let seen = wrap_around::<Sound>(2, 1);
    let states = [SlotState::Empty, valid(0), valid(1), valid(2), busy(1), busy(2)];
    seen.assert_all(&states.map(Some));
    seen.assert_all(&[None::<SlotState>]);
}

const NAME: &[u8] = b"nvme0n1";

fn entry() -> Entry {
    Entry { source: 1, identity: 259 << 32, first_seq: Seq(0), name: NAME.to_vec() }
}

fn write_entry<O: Orderings>(words: &[AtomicU64]) {
    dictionary::write_with::<O>(words, 0, SEED, (1, 259 << 32, Seq(0)), NAME);
}

fn read_entry<O: Orderings>(words: &[AtomicU64]) -> Option<Entry> {
    dictionary::read(&dictionary::copy_with::<O>(words), 0, SEED)
}

/// An entry and record 0, which refers to it. Who has the record must be able to read the entry.
fn refer<O: Orderings>(entry_first: bool) -> Seen {
    let seen = Seen::default();
    let noted = seen.clone();
    explore(None, move || {
        let shared = Arc::new((zeros(ENTRY_WORDS), new_slot()));
        let (ours, noted) = (Arc::clone(&shared), noted.clone());
        let reader = thread::spawn(move || {
            let state = read::<O>(&ours.1, 0, 1);
            if state == Some(valid(0)) {
                let found = read_entry::<O>(&ours.0);
                assert_eq!(found, Some(entry()), "the entry of a record is there");
            }
            noted.note(&state);
        });
        if entry_first {
            write_entry::<O>(&shared.0);
        }
        write::<O>(&shared.1, 0);
        if !entry_first {
            write_entry::<O>(&shared.0);
        }
        reader.join().unwrap();
    });
    seen
}

#[test]
fn who_has_a_record_can_read_its_entry() {
    refer::<Sound>(true).assert_all(&[Some(valid(0)), Some(SlotState::Empty)]);
}

#[test]
#[should_panic(expected = "the entry of a record is there")]
fn an_entry_written_behind_its_record_is_missed() {
    refer::<Sound>(false);
}

/// The commit word of the record carries the entry with it: on this way the entry's own ordering
/// has nothing to do, and taking it away is not seen. `see_entry` is what it is for.
#[test]
fn behind_a_record_an_entry_needs_no_ordering_of_its_own() {
    refer::<Without<ENTRY_STORE>>(true);
    refer::<Without<ENTRY_LOAD>>(true);
}

/// Reads the dictionary without having come by a record: what is published is whole.
fn see_entry<O: Orderings>() -> Seen {
    let seen = Seen::default();
    let noted = seen.clone();
    explore(None, move || {
        let words = Arc::new(zeros(ENTRY_WORDS));
        let (shared, noted) = (Arc::clone(&words), noted.clone());
        let reader = thread::spawn(move || {
            let copy = dictionary::copy_with::<O>(&shared);
            let found = dictionary::read(&copy, 0, SEED);
            if copy[0] != 0 {
                assert_eq!(found, Some(entry()), "a published entry is whole");
            }
            noted.note(&found.is_some());
        });
        write_entry::<O>(&words);
        reader.join().unwrap();
    });
    seen
}

#[test]
fn a_published_entry_is_whole() {
    see_entry::<Sound>().assert_all(&[false, true]);
}

/// Two entries, as the sampler adds them while its mirror looks for them: whoever sees the later one
/// sees the one before it, or the mirror would take that for gone (`sampler::copy::look_for_name`).
fn see_entries<O: Orderings>() -> Seen {
    let seen = Seen::default();
    let noted = seen.clone();
    explore(None, move || {
        let segment = Segment::create(ring_words(), header(), DESCRIPTION).unwrap();
        let segment = std::sync::Arc::new(segment);
        let ring = RingWriter::new(std::sync::Arc::clone(&segment));
        let noted = noted.clone();
        let reader = thread::spawn(move || {
            let [later, first] = [1, 0].map(|entry| segment.copy_entry_with::<O>(entry));
            let [later, first] = [later[0] != 0, first[0] != 0];
            assert!(first || !later, "who sees an entry sees those before it");
            noted.note(&(first, later));
        });
        for entry in [0, 1] {
            let about = (entry, 259 << 32, Seq(0));
            assert_eq!(ring.add_entry_with::<O>(about, NAME), Some(entry));
        }
        reader.join().unwrap();
    });
    seen
}

#[test]
fn who_sees_an_entry_sees_those_before_it() {
    see_entries::<Sound>().assert_all(&[(false, false), (true, false), (true, true)]);
}

#[test]
#[should_panic(expected = "who sees an entry sees those before it")]
fn without_the_release_in_write_an_entry_before_another_is_missed() {
    see_entries::<Without<ENTRY_STORE>>();
}

#[test]
#[should_panic(expected = "who sees an entry sees those before it")]
fn without_the_acquire_in_copy_an_entry_before_another_is_missed() {
    see_entries::<Without<ENTRY_LOAD>>();
}

const DESCRIPTION: &[u8] = b"{\"schema\":[]}";
const SLOTS: u64 = 2;

fn header() -> Header {
    let description = Bytes(DESCRIPTION.len() as u64);
    Header {
        layout: Layout::new(description, 3, Words(RECORD_WORDS as u64), SLOTS).unwrap(),
        description_check: description_check(DESCRIPTION),
        max_samples: SLOTS - 1,
        run_id: Uuid::from_u128(7),
        segment: 0,
        first_seq: Seq(0),
        start_wall_ns: 1,
        start_monotonic_ns: 2,
        interval_ns: MIN_INTERVAL_NS,
        boot_id: Uuid::from_u128(5),
    }
}

fn ring_words() -> std::sync::Arc<Vec<AtomicU64>> {
    std::sync::Arc::new(zeros(header().layout.file_bytes().words().0 as usize))
}

/// A segment is made while somebody who has mapped the same memory waits for its header.
fn see_header<O: Orderings>() -> Seen {
    let seen = Seen::default();
    let noted = seen.clone();
    explore(None, move || {
        let memory = ring_words();
        let (shared, noted) = (std::sync::Arc::clone(&memory), noted.clone());
        let reader = thread::spawn(move || {
            let is_there = shared[MAGIC_WORD].load(Ordering::Acquire) != 0;
            if is_there {
                let words = std::array::from_fn(|word| shared[word].load(Ordering::Relaxed));
                assert_eq!(Header::from_words(&words), Ok(header()), "a published header is whole");
                let at = HEADER_BYTES.words().0 as usize;
                let text = [at, at + 1].map(|word| shared[word].load(Ordering::Relaxed));
                let text: Vec<u8> = text.into_iter().flat_map(u64::to_le_bytes).collect();
                assert_eq!(&text[..DESCRIPTION.len()], DESCRIPTION, "so is what it speaks for");
            }
            noted.note(&is_there);
        });
        Segment::create_with::<O>(memory, header(), DESCRIPTION).unwrap();
        reader.join().unwrap();
    });
    seen
}

#[test]
fn a_published_header_is_whole() {
    see_header::<Sound>().assert_all(&[false, true]);
}

/// A whole ring, as the sampler writes it: every record has an entry of its own, and the third
/// takes the place of the first.
fn record_all(readers: usize, preemptions: usize) -> Seen {
    let seen = Seen::default();
    let noted = seen.clone();
    explore(Some(preemptions), move || {
        let segment = Segment::create(ring_words(), header(), DESCRIPTION).unwrap();
        let segment = std::sync::Arc::new(segment);
        let ring = RingWriter::new(std::sync::Arc::clone(&segment));
        let reader = || {
            let (segment, noted) = (std::sync::Arc::clone(&segment), noted.clone());
            thread::spawn(move || {
                let mut copy = Vec::new();
                for slot in 0..SLOTS {
                    let is_stable = segment.copy_slot(Slot(slot), &mut copy);
                    let seed = segment.header().seed();
                    let state = is_stable.then(|| judged(&copy, slot, SLOTS, seed));
                    if let Some(SlotState::Valid(seq, _)) = state {
                        let index = seq.0 as u32;
                        let entry = dictionary::read(&segment.copy_entry(index), index, seed);
                        let source = entry.map(|entry| entry.source);
                        assert_eq!(source, Some(index), "the entry of a record is there");
                    }
                    noted.note(&state);
                }
            })
        };
        let readers: Vec<_> = (0..readers).map(|_| reader()).collect();
        for seq in 0..3 {
            assert_eq!(ring.add_entry(seq as u32, 0, Seq(seq), NAME), Some(seq as u32));
            let (draft, used) = draft(seq);
            ring.begin(Seq(seq)).unwrap().commit_draft(&draft, used);
        }
        for reader in readers {
            reader.join().unwrap();
        }
    });
    seen
}

#[test]
fn a_ring_that_wraps_around_gives_whole_records_with_their_entries() {
    let states = [SlotState::Empty, valid(0), valid(1), valid(2), busy(0), busy(2)];
    let seen = record_all(1, 1);
    seen.assert_all(&states.map(Some));
    seen.assert_all(&[None::<SlotState>]);
}

/// All orderings but one.
struct Without<const NUMBER: usize>;

impl<const NUMBER: usize> Orderings for Without<NUMBER> {
    const WITHOUT: Option<Point> = Some(WEAKENED[NUMBER]);
}

const ENTRY_STORE: usize = 4;
const ENTRY_LOAD: usize = 5;

/// Every ordering that is taken away, in the order of the tests below.
const WEAKENED: [Point; 7] = [
    Point::BeginFence,
    Point::CommitStore,
    Point::CommitLoad,
    Point::CopyFence,
    Point::EntryStore,
    Point::EntryLoad,
    Point::HeaderStore,
];

macro_rules! weakened {
    ($($number:literal $name:ident: $model:expr => $says:literal;)*) => {
        $(
            #[test]
            #[should_panic(expected = $says)]
            fn $name() {
                let model: fn() -> Seen = $model;
                model();
            }
        )*

        #[test]
        fn every_ordering_is_taken_away_in_a_test() {
            let taken: Vec<usize> = vec![$($number),*];
            assert!(taken.into_iter().eq(0..WEAKENED.len()));
        }
    };
}

weakened! {
    0 without_the_fence_in_begin_a_torn_record_is_accepted:
        || overwrite::<Without<0>>(2, 1, None) => "a stable copy is one whole record";
    1 without_the_release_in_commit_a_torn_record_is_accepted:
        || overwrite::<Without<1>>(2, 1, None) => "a stable copy is one whole record";
    2 without_the_acquire_in_copy_a_torn_record_is_accepted:
        || overwrite::<Without<2>>(2, 1, None) => "a stable copy is one whole record";
    3 without_the_fence_in_copy_a_torn_record_is_accepted:
        || overwrite::<Without<3>>(2, 1, None) => "a stable copy is one whole record";
    4 without_the_release_in_write_half_an_entry_is_seen:
        see_entry::<Without<4>> => "a published entry is whole";
    5 without_the_acquire_in_copy_half_an_entry_is_seen:
        see_entry::<Without<5>> => "a published entry is whole";
    6 without_the_release_in_create_half_a_header_is_seen:
        see_header::<Without<6>> => "a published header is whole";
}

/// An ordering that is not in the table would have no model.
#[test]
fn there_is_no_ordering_beside_those_that_are_taken_away() {
    let files = [
        include_str!("slot.rs"),
        include_str!("dictionary.rs"),
        include_str!("writer.rs"),
        include_str!("reader.rs"),
    ];
    let mut used = BTreeSet::new();
    for text in files {
        let code = text.split("#[cfg(all(test").next().unwrap();
        for (word, may) in [("Acquire", 1), ("Release", 1), ("AcqRel", 0), ("SeqCst", 0)] {
            // A fence is of one kind, and has a point.
            let beside = code.lines().filter(|line| line.contains(&format!("Ordering::{word}")));
            for line in beside {
                assert!(may == 1 && line.contains("O::fence(Point::"), "{}", line.trim());
            }
        }
        let points = code.match_indices("(Point::").map(|(at, found)| &code[at + found.len()..]);
        for point in points {
            let name = point.split(|c: char| !c.is_alphanumeric()).next().unwrap();
            assert!(used.insert(name), "{name} is used twice: which of them would be missed?");
        }
    }
    let table: BTreeSet<String> = WEAKENED.iter().map(|point| format!("{point:?}")).collect();
    assert!(used.into_iter().eq(table.iter().map(String::as_str)), "{table:?}");
}
