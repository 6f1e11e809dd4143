//! Rings of records that tell from any of their words which record it should be, for the ring's own
//! tests as well as for those of whole rings in files. Nothing here knows a source or a recorder.

use ringstat::ring::{
    Draft, Header, Layout, MIN_INTERVAL_NS, Memory, Ring, RingWriter, Segment, SlotState,
    description_check,
};
use ringstat::{Bytes, Seq, Slot, Words};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use uuid::Uuid;

pub const DESCRIPTION: &[u8] = br#"{"schema":[]}"#;
pub const ENTRIES: u64 = 8;
pub const FIRST: u64 = 40;

/// A number that looks random and is a function of `number` (SplitMix64, Steele et al. 2014).
pub fn scrambled(number: u64) -> u64 {
    let mut word = number.wrapping_add(0x9E37_79B9_7F4A_7C15);
    word = (word ^ (word >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    word = (word ^ (word >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    word ^ (word >> 31)
}

/// The words of record `seq` in a ring with room for `room`. None is 0, which is what a file that
/// was cut off reads as.
pub fn record(seq: u64, room: u64) -> impl ExactSizeIterator<Item = u64> {
    let random = scrambled(seq);
    let length = 1 + (random % room) as usize;
    (0..length).map(move |word| random.wrapping_add((word as u64) << 32) | 1)
}

/// Whether `words` are record `seq`, the whole of it and nothing else.
pub fn is_record(words: &[u64], seq: u64, room: u64) -> bool {
    words.iter().copied().eq(record(seq, room))
}

pub fn header(run: u128, segment: u64, record: u64, slots: u64) -> Header {
    let description = Bytes(DESCRIPTION.len() as u64);
    Header {
        layout: Layout::new(description, ENTRIES, Words(record), slots).unwrap(),
        description_check: description_check(DESCRIPTION),
        max_samples: slots - 1,
        run_id: Uuid::from_u128(run),
        segment,
        first_seq: Seq(FIRST),
        start_wall_ns: 1_700_000_000_000_000_000,
        start_monotonic_ns: 77,
        interval_ns: MIN_INTERVAL_NS,
        boot_id: Uuid::from_u128(5),
    }
}

/// A ring and its writer, in plain words unless a test wants a map.
pub struct Rig<M = Vec<AtomicU64>> {
    pub writer: RingWriter<M>,
    pub memory: Arc<M>,
    pub draft: Draft,
    pub next: u64,
}

impl Rig {
    pub fn new(header: Header) -> Rig {
        let words = header.layout.file_bytes().words().0;
        Rig::over(Arc::new((0..words).map(|_| AtomicU64::new(0)).collect()), header)
    }
}

impl<M: Memory> Rig<M> {
    pub fn over(memory: Arc<M>, header: Header) -> Rig<M> {
        let segment = Segment::create(Arc::clone(&memory), header, DESCRIPTION).unwrap();
        let draft = Draft::new(segment.header().layout.record());
        Rig { writer: RingWriter::new(Arc::new(segment)), memory, draft, next: FIRST }
    }

    pub fn room(&self) -> u64 {
        self.writer.segment().header().layout.record().0
    }

    pub fn write(&mut self) {
        self.commit(record(self.next, self.room()));
    }

    /// Writes the next record, as the sampler does.
    pub fn commit(&mut self, record: impl ExactSizeIterator<Item = u64>) {
        let used = record.len();
        for (cell, word) in self.draft.record().iter().zip(record) {
            cell.store(word, Ordering::Relaxed);
        }
        self.writer.begin(Seq(self.next)).unwrap().commit_draft(&self.draft, used);
        self.next += 1;
    }

    pub fn write_many(&mut self, records: u64) {
        for _ in 0..records {
            self.write();
        }
    }

    /// The file as a reader in another process finds it.
    pub fn bytes(&self) -> Vec<u8> {
        let length = self.writer.segment().header().layout.file_bytes().0 as usize;
        let words =
            self.memory.words().iter().flat_map(|w| w.load(Ordering::Relaxed).to_ne_bytes());
        words.take(length).collect()
    }
}

/// The records of all slots; each must be one of `FIRST..next`, whole and as it was written.
#[track_caller]
pub fn records_of(ring: &Ring, room: u64, next: u64) -> Vec<u64> {
    let mut words = Vec::new();
    let mut found = Vec::new();
    for slot in 0..ring.header().layout.slots {
        let state = ring.read_slot(Slot(slot), &mut words).unwrap();
        if let SlotState::Valid(seq, used) = state {
            assert!((FIRST..next).contains(&seq.0), "slot {slot}: record {seq} was never written");
            assert!(is_record(&words, seq.0, room), "slot {slot}: record {seq} is {words:x?}");
            assert_eq!(used, words.len());
            found.push(seq.0);
        }
    }
    found.sort_unstable();
    found
}
