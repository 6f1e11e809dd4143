//! A ring that is read while its writer laps it: no reader ever accepts a record that was not
//! written. The models in `models.rs` show that for all interleavings of a few words; this shows
//! it for the machine at hand, and for `pread`, which they cannot model.

use super::*;
use crate::ring::layout::SLOT_HEAD_WORDS;
use crate::ring::{ReadAt, SlotState, allocate, judge};
use std::fs::File;
use std::io;
use std::sync::Barrier;
use std::sync::atomic::AtomicBool;
use std::thread;
use std::time::{Duration, Instant};

const SLOTS: u64 = 4;
const LAPS: u64 = 20_000;
const READERS: usize = 2;

/// What one reader met.
#[derive(Debug, Default)]
struct Met {
    good: u64,
    busy: u64,
    torn: u64,
    unstable: u64,
    wrong: u64,
}

impl Met {
    fn add(&mut self, other: &Met) {
        self.good += other.good;
        self.busy += other.busy;
        self.torn += other.torn;
        self.unstable += other.unstable;
        self.wrong += other.wrong;
    }

    fn count(&mut self, state: SlotState, record: &[u64], room: u64) {
        match state {
            SlotState::Empty => {}
            SlotState::Busy(_) => self.busy += 1,
            SlotState::Torn => self.torn += 1,
            SlotState::Valid(seq, _) if is_record(record, seq.0, room) => self.good += 1,
            SlotState::Valid(..) => self.wrong += 1,
        }
    }
}

/// Laps the ring while `READERS` threads run `look` over one slot after the other. Goes on, but
/// not for ever, until one has met all that is `wanted`: on one CPU, the writer can be through
/// before a reader has begun.
fn lap(rig: &mut Rig, wanted: fn(&Met) -> bool, look: impl Fn(Slot, &mut Met) + Sync) -> Met {
    let (start, done) = (Barrier::new(READERS + 1), AtomicBool::new(false));
    let enough = AtomicBool::new(false);
    let mut all = Met::default();
    thread::scope(|scope| {
        let read = || {
            let mut met = Met::default();
            start.wait();
            while !done.load(Ordering::Relaxed) {
                (0..SLOTS).for_each(|slot| look(Slot(slot), &mut met));
                if wanted(&met) {
                    enough.store(true, Ordering::Relaxed);
                }
            }
            met
        };
        let readers: Vec<_> = (0..READERS).map(|_| scope.spawn(read)).collect();
        start.wait();
        let began = Instant::now();
        rig.write_many(SLOTS * LAPS);
        while !enough.load(Ordering::Relaxed) && began.elapsed() < Duration::from_secs(2) {
            rig.write_many(SLOTS);
        }
        done.store(true, Ordering::Relaxed);
        readers.into_iter().for_each(|reader| all.add(&reader.join().unwrap()));
    });
    eprintln!("{} records, {READERS} readers: {all:?}", rig.next - FIRST);
    assert_eq!(all.wrong, 0, "{all:?}");
    assert!(enough.load(Ordering::Relaxed), "the readers did not meet the writer: {all:?}");
    all
}

/// Laps a ring in a file, which `read_at` makes readable.
fn lap_file<R: ReadAt + 'static>(wanted: fn(&Met) -> bool, read_at: impl Fn(File) -> R) {
    let shm = Path::new("/dev/shm");
    let dir = if shm.is_dir() { tempfile::tempdir_in(shm) } else { tempfile::tempdir() }.unwrap();
    let path = dir.path().join("ring");
    let header = header(1, 0, 61, SLOTS);
    let bytes = header.layout.file_bytes();
    let file = allocate(&path, bytes, crate::ring::Blocks::Written).unwrap();
    let mut rig = Rig::over(Arc::new(WordMap::of_file(&file, bytes).unwrap()), header);
    let ring = Ring::new(Box::new(read_at(File::open(&path).unwrap())), &path).unwrap();
    let room = rig.room();
    lap(&mut rig, wanted, |slot, met| {
        let mut words = Vec::new();
        let state = ring.read_slot(slot, &mut words).unwrap();
        met.count(state, &words, room);
    });
    let last: Vec<u64> = (rig.next - SLOTS..rig.next).collect();
    assert_eq!(records_of(&Ring::open(&path).unwrap(), room, rig.next), last);
}

#[test]
fn a_reader_of_the_file_accepts_no_wrong_record() {
    lap_file(|met| met.good > 0 && met.busy + met.torn > 0, |file| file);
}

/// Reads eight words at a time. Nothing promises that a `pread` is any better, but it mostly is,
/// and then the checksum has little to do.
struct InPieces(File);

impl ReadAt for InPieces {
    fn read_at(&self, bytes: &mut [u8], offset: u64) -> io::Result<usize> {
        let mut done = 0;
        for piece in bytes.chunks_mut(64) {
            done += ReadAt::read_at(&self.0, piece, offset + done as u64)?;
        }
        Ok(done)
    }

    fn len_bytes(&self) -> io::Result<u64> {
        self.0.len_bytes()
    }
}

#[test]
fn a_reader_that_is_overtaken_accepts_no_wrong_record() {
    lap_file(|met| met.good > 0 && met.torn > 0, InPieces);
}

#[test]
fn a_reader_in_the_process_never_even_sees_a_torn_one() {
    let mut rig = Rig::new(header(1, 0, 61, SLOTS));
    let (segment, room) = (Arc::clone(rig.writer.segment()), rig.room());
    let (first, seed) = (segment.header().first_seq, segment.header().seed());
    let wanted = |met: &Met| met.good > 0 && met.busy > 0 && met.unstable > 0;
    let met = lap(&mut rig, wanted, |slot, met| {
        let mut words = Vec::new();
        if segment.copy_slot(slot, &mut words) {
            let state = judge(&words, slot.0, SLOTS, first, seed);
            met.count(state, &words[SLOT_HEAD_WORDS..], room);
        } else {
            met.unstable += 1;
        }
    });
    assert_eq!(met.torn, 0, "a stable copy needs no checksum: {met:?}");
}
