//! A ring that is read while its writer laps it: no reader ever accepts a record that was not
//! written. The models of the ring show that for all interleavings of a few words; this shows
//! it for the machine at hand, and for `pread`, which they cannot model. Two million looks in all, ten
//! million if it is optimised, and ten million of each kind if RINGSTAT_LONG is set.
#![cfg(not(loom))]
#![allow(clippy::unwrap_used)] // A panic is how a test fails.

#[path = "common/rig.rs"]
#[allow(dead_code)] // Some of it is for the ring's own tests.
mod rig;

use rig::{Rig, header, is_record, records_of};
use ringstat::Slot;
use ringstat::ring::{Blocks, ReadAt, Ring, SLOT_HEAD_WORDS, SlotState, WordMap, allocate, judge};
use std::fs::File;
use std::io;
use std::path::Path;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

const SLOTS: u64 = 4;
const READERS: usize = 2;
/// Looks of each kind of reader when there is time.
const LONG: u64 = 10_000_000;
/// How long the readers may take to meet the writer behind their last look: on a busy CPU, one
/// runs while the other waits.
const DEADLINE: Duration = Duration::from_secs(600);
/// Looks are so many times as many in an optimised build.
const OPTIMISED: u64 = if cfg!(debug_assertions) { 1 } else { 5 };

/// What readers met.
#[derive(Debug, Default)]
struct Met {
    good: u64,
    empty: u64,
    busy: u64,
    /// Copies that do not verify.
    torn: u64,
    /// Copies of a slot that changed meanwhile.
    unstable: u64,
    /// Accepted, and not what was written.
    wrong: u64,
}

impl Met {
    fn looks(&self) -> u64 {
        self.good + self.empty + self.busy + self.torn + self.unstable + self.wrong
    }

    fn add(&mut self, other: &Met) {
        self.good += other.good;
        self.empty += other.empty;
        self.busy += other.busy;
        self.torn += other.torn;
        self.unstable += other.unstable;
        self.wrong += other.wrong;
    }

    fn count(&mut self, state: SlotState, record: &[u64], room: u64) {
        match state {
            SlotState::Empty => self.empty += 1,
            SlotState::Busy(_) => self.busy += 1,
            SlotState::Torn => self.torn += 1,
            SlotState::Valid(seq, _) if is_record(record, seq.0, room) => self.good += 1,
            SlotState::Valid(..) => self.wrong += 1,
        }
    }
}

/// What one test does.
struct Plan {
    readers: &'static str,
    looks: u64,
    /// What the readers must have met, or the test has tested nothing.
    wanted: fn(&Met) -> bool,
}

impl Plan {
    fn new(readers: &'static str, looks: u64, wanted: fn(&Met) -> bool) -> Plan {
        let looks =
            if std::env::var_os("RINGSTAT_LONG").is_some() { LONG } else { looks * OPTIMISED };
        Plan { readers, looks, wanted }
    }
}

/// `READERS` threads run `look` over one slot after the other, while `write` is called again and
/// again, until they have looked often enough and met all that is wanted.
fn lap(plan: &Plan, mut write: impl FnMut(), look: impl Fn(Slot, &mut Met) + Sync) -> Met {
    let done = AtomicBool::new(false);
    // By reader.
    let enough: Vec<AtomicBool> = (0..READERS).map(|_| AtomicBool::new(false)).collect();
    let mut all = Met::default();
    let read = |enough: &AtomicBool| {
        let mut met = Met::default();
        while !done.load(Ordering::Relaxed) {
            (0..SLOTS).for_each(|slot| look(Slot(slot), &mut met));
            let is_enough = met.looks() >= plan.looks / READERS as u64 && (plan.wanted)(&met);
            enough.store(is_enough, Ordering::Relaxed);
        }
        met
    };
    thread::scope(|scope| {
        let read = &read;
        let readers: Vec<_> =
            enough.iter().map(|enough| scope.spawn(move || read(enough))).collect();
        let began = Instant::now();
        let is_waiting = || !enough.iter().all(|enough| enough.load(Ordering::Relaxed));
        while is_waiting() && began.elapsed() < 2 * DEADLINE {
            write();
        }
        done.store(true, Ordering::Relaxed);
        readers.into_iter().for_each(|reader| all.add(&reader.join().unwrap()));
    });
    println!("{}, {READERS} of them: {} looks, {all:?}", plan.readers, all.looks());
    assert_eq!(all.wrong, 0, "{all:?}");
    assert!(
        all.looks() >= plan.looks && (plan.wanted)(&all),
        "the readers did not meet the writer: {all:?}"
    );
    all
}

/// A directory for a ring where recorders have theirs.
fn shm_dir() -> tempfile::TempDir {
    let shm = Path::new("/dev/shm");
    if shm.is_dir() { tempfile::tempdir_in(shm) } else { tempfile::tempdir() }.unwrap()
}

/// A ring in a file that there was not before.
fn rig_of_file(path: &Path) -> Rig<WordMap> {
    let header = header(1, 0, 61, SLOTS);
    let bytes = header.layout.file_bytes();
    let file = allocate(path, bytes, Blocks::Written).unwrap();
    Rig::over(Arc::new(WordMap::of_file(&file, bytes).unwrap()), header)
}

/// Looks at a slot of a file.
fn look_at(ring: &Ring, slot: Slot, met: &mut Met) {
    let mut words = Vec::new();
    let state = ring.read_slot(slot, &mut words).unwrap();
    met.count(state, &words, ring.header().layout.record().0);
}

/// Laps a ring in a file, which `read_at` makes readable.
fn lap_file<R: ReadAt + 'static>(plan: &Plan, read_at: impl Fn(File) -> R) {
    let dir = shm_dir();
    let path = dir.path().join("ring");
    let mut rig = rig_of_file(&path);
    let ring = Ring::new(Box::new(read_at(File::open(&path).unwrap())), &path).unwrap();
    lap(plan, || rig.write_many(SLOTS * 100), |slot, met| look_at(&ring, slot, met));
    let last: Vec<u64> = (rig.next - SLOTS..rig.next).collect();
    assert_eq!(records_of(&Ring::open(&path).unwrap(), rig.room(), rig.next), last);
}

#[test]
fn a_reader_of_the_file_accepts_no_wrong_record() {
    let wanted = |met: &Met| met.good > 0 && met.busy + met.torn > 0;
    lap_file(&Plan::new("readers of the file", 500_000, wanted), |file| file);
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
    let wanted = |met: &Met| met.good > 0 && met.torn > 0;
    lap_file(&Plan::new("readers of the file, in pieces", 200_000, wanted), InPieces);
}

#[test]
fn a_reader_in_the_process_never_even_sees_a_torn_one() {
    let mut rig = Rig::new(header(1, 0, 61, SLOTS));
    let (segment, room) = (Arc::clone(rig.writer.segment()), rig.room());
    let (first, seed) = (segment.header().first_seq, segment.header().seed());
    let wanted = |met: &Met| met.good > 0 && met.busy > 0 && met.unstable > 0;
    let plan = Plan::new("readers in the process", 1_000_000, wanted);
    let look = |slot: Slot, met: &mut Met| {
        let mut words = Vec::new();
        if segment.copy_slot(slot, &mut words) {
            let state = judge(&words, slot.0, SLOTS, first, seed);
            met.count(state, &words[SLOT_HEAD_WORDS..], room);
        } else {
            met.unstable += 1;
        }
    };
    let met = lap(&plan, || rig.write_many(SLOTS * 100), look);
    assert_eq!(met.torn, 0, "a stable copy needs no checksum: {met:?}");
}

/// Names the ring that another process is to lap.
const LAPPED: &str = "RINGSTAT_TEST_LAPPED_RING";

/// Not a test, but the other process of the next one: laps a ring until it is killed.
#[test]
fn the_writer_of_another_process() {
    let Some(path) = std::env::var_os(LAPPED) else { return };
    let mut rig = rig_of_file(Path::new(&path));
    let parent = std::os::unix::process::parent_id();
    while std::os::unix::process::parent_id() == parent {
        rig.write_many(SLOTS * 1000);
    }
}

#[test]
fn a_reader_of_another_process_accepts_no_wrong_record() {
    let dir = shm_dir();
    let path = dir.path().join("ring");
    let mut writer = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "the_writer_of_another_process"])
        .env(LAPPED, &path)
        .spawn()
        .unwrap();
    let began = Instant::now();
    let ring = loop {
        match File::open(&path)
            .map_err(drop)
            .and_then(|file| Ring::new(Box::new(InPieces(file)), &path).map_err(drop))
        {
            Ok(ring) => break ring,
            Err(()) => assert!(began.elapsed() < DEADLINE, "no ring"),
        }
        thread::sleep(Duration::from_millis(2));
    };
    let wanted = |met: &Met| met.good > 0 && met.torn > 0;
    let plan = Plan::new("readers of another process", 300_000, wanted);
    let pause = || thread::sleep(Duration::from_millis(2));
    lap(&plan, pause, |slot, met| look_at(&ring, slot, met));
    writer.kill().unwrap();
    writer.wait().unwrap();
    // Killed in the middle of a record: that one is not there, and the one before it is gone.
    let kept = records_of(&Ring::open(&path).unwrap(), ring.header().layout.record().0, u64::MAX);
    assert!(kept.len() as u64 >= SLOTS - 1, "{kept:?}");
    assert_eq!(kept.last().unwrap() - kept[0], kept.len() as u64 - 1, "{kept:?}");
}
