//! Loom models of the ring's protocols: `RUSTFLAGS="--cfg loom" cargo test --lib --release models`.
//!
//! They run the production code over loom's words, through the interleavings of its threads and
//! all values that the memory model lets a load see. Each ordering of `orderings.rs` is then taken
//! away, and a model must fail: one that still passed would not test it. x86 forgives most of it.
//!
//! The checksum would hide a broken protocol, so the models look behind it: a copy of a slot that
//! is called stable must be one whole record, whatever its checksum says.

use super::dictionary::{self, Entry};
use super::layout::{ENTRY_WORDS, SLOT_HEAD_WORDS};
use super::orderings::{Orderings, Sound};
use super::slot::{self, BUSY, COMMIT, SlotState, SlotWriter};
use crate::sync::{AtomicU64, Ordering};
use crate::units::Seq;
use loom::sync::Arc;
use loom::thread;
use std::collections::BTreeMap;
use std::sync::Mutex;

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

fn write<O: Orderings>(slot: &[AtomicU64], seq: u64) {
    let writer = SlotWriter::begin_with::<O>(slot, Seq(seq), SEED);
    let record = record(seq);
    for (cell, word) in writer.record().iter().zip(&record) {
        cell.store(*word, Ordering::Relaxed);
    }
    writer.commit_with::<O>(record.len());
}

/// Copies slot number `nth` of `slots` once; `None` if the copy is not stable. This is where a
/// broken protocol shows.
fn read<O: Orderings>(slot: &[AtomicU64], nth: u64, slots: u64) -> Option<SlotState> {
    let mut copy = Vec::new();
    if !slot::copy_with::<O>(slot, &mut copy) {
        return None;
    }
    let state = slot::judge(&copy, nth, slots, Seq(0), SEED);
    match copy[COMMIT] {
        0 => assert_eq!(state, SlotState::Empty),
        busy if busy & BUSY != 0 => assert_eq!(state, SlotState::Busy(Seq((busy & !BUSY) - 1))),
        commit => {
            let expected = record(commit - 1);
            assert_eq!(copy[SLOT_HEAD_WORDS..], expected, "a stable copy is one whole record");
            assert_eq!(state, SlotState::Valid(Seq(commit - 1), expected.len()), "and verifies");
        }
    }
    Some(state)
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
    let mut builder = loom::model::Builder::new();
    builder.preemption_bound = preemptions;
    builder.check(model);
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

struct NoFenceInBegin;
impl Orderings for NoFenceInBegin {
    fn fence_begin() {}
}

struct RelaxedCommit;
impl Orderings for RelaxedCommit {
    const STORE_COMMIT: Ordering = Ordering::Relaxed;
}

struct RelaxedLoad;
impl Orderings for RelaxedLoad {
    const LOAD_COMMIT: Ordering = Ordering::Relaxed;
}

struct NoFenceInCopy;
impl Orderings for NoFenceInCopy {
    fn fence_copy() {}
}

#[test]
#[should_panic(expected = "a stable copy is one whole record")]
fn without_the_fence_in_begin_a_torn_record_is_accepted() {
    overwrite::<NoFenceInBegin>(2, 1, None);
}

#[test]
#[should_panic(expected = "a stable copy is one whole record")]
fn without_the_release_in_commit_a_torn_record_is_accepted() {
    overwrite::<RelaxedCommit>(2, 1, None);
}

#[test]
#[should_panic(expected = "a stable copy is one whole record")]
fn without_the_acquire_in_copy_a_torn_record_is_accepted() {
    overwrite::<RelaxedLoad>(2, 1, None);
}

#[test]
#[should_panic(expected = "a stable copy is one whole record")]
fn without_the_fence_in_copy_a_torn_record_is_accepted() {
    overwrite::<NoFenceInCopy>(2, 1, None);
}

/// Two slots, records 0 to 2: the last takes the place of the first. Whoever has record 2 also
/// finds record 1, since nothing is written over it.
fn wrap_around<O: Orderings>() -> Seen {
    let seen = Seen::default();
    let noted = seen.clone();
    explore(Some(3), move || {
        let slots = Arc::new([new_slot(), new_slot()]);
        write::<O>(&slots[0], 0);
        let (shared, noted) = (Arc::clone(&slots), noted.clone());
        let reader = thread::spawn(move || {
            let newest = read::<O>(&shared[0], 0, 2);
            let before = read::<O>(&shared[1], 1, 2);
            if newest == Some(valid(2)) {
                assert_eq!(before, Some(valid(1)), "a record that was kept is found");
            }
            noted.note(&newest);
            noted.note(&before);
        });
        write::<O>(&slots[1], 1);
        write::<O>(&slots[0], 2);
        reader.join().unwrap();
    });
    seen
}

#[test]
fn who_has_a_record_finds_those_before_it() {
    let seen = wrap_around::<Sound>();
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

struct RelaxedEntryStore;
impl Orderings for RelaxedEntryStore {
    const STORE_ENTRY: Ordering = Ordering::Relaxed;
}

struct RelaxedEntryLoad;
impl Orderings for RelaxedEntryLoad {
    const LOAD_ENTRY: Ordering = Ordering::Relaxed;
}

/// The commit word of the record carries the entry with it: on this way the entry's own ordering
/// has nothing to do, and taking it away is not seen. `see_entry` is what it is for.
#[test]
fn behind_a_record_an_entry_needs_no_ordering_of_its_own() {
    refer::<RelaxedEntryStore>(true);
    refer::<RelaxedEntryLoad>(true);
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

#[test]
#[should_panic(expected = "a published entry is whole")]
fn without_the_release_in_write_half_an_entry_is_seen() {
    see_entry::<RelaxedEntryStore>();
}

#[test]
#[should_panic(expected = "a published entry is whole")]
fn without_the_acquire_in_copy_half_an_entry_is_seen() {
    see_entry::<RelaxedEntryLoad>();
}
