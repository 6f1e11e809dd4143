//! What other people's hands do to a run's files, and what must hold whatever they do: no value in
//! the output is wrong, and what was taken is there or said to be lost.

use super::json::Value;
use super::{Files, World, entries, rounds, wait_until};
use ringstat::ring::Ring;
use std::fs::{self, File};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

/// Everything of a sample but when it was taken: the fixed `/proc` never changes.
fn values(sample: &Value) -> Vec<(String, Value)> {
    let is_value = |(key, _): &&(String, Value)| key != "timestamp" && key != "collection";
    sample.entries().iter().filter(is_value).cloned().collect()
}

/// Fails unless every sample has the values of the fixed `/proc`, but for rows whose names are
/// said to be missing, and all that was taken is there or counted as lost.
pub fn assert_true_and_accounted(world: &World, files: &Files) {
    let reference = reference(world);
    let mut last = None;
    for sample in files.samples() {
        let at = sample["collection"]["monotonic_ns"].int();
        assert!(last < Some(at), "out of order");
        last = Some(at);
        if !sample.has("errors") {
            assert_eq!(values(sample), reference, "a value that was never there");
        }
    }
    let summary = files.summary();
    let count = |key: &str| summary[key].int();
    let [taken, kept] = [count("samples_taken"), count("samples_kept")];
    assert_eq!(taken, kept + count("samples_lost") + count("samples_overwritten"));
    assert_eq!(count("ticks_inconsistent"), 0);
    assert_eq!(kept, files.samples().len() as u64);
}

/// Samples that a ring, or a run's directory, says were taken: what they are worth is seen when somebody
/// has had his hands on them.
pub fn taken(world: &World, ring: &Path) -> u64 {
    world.info(ring).expect("a ring that can be read")["summary"]["samples_taken"].int()
}

/// Fails if samples are gone and nobody says so, of which so many were taken `before` somebody had his
/// hands on `ring`: they are there or counted, or a sentence names the file.
pub fn assert_none_is_lost_silently(files: &Files, before: u64, ring: &Path, said: &str) {
    let count = |key: &str| files.summary()[key].int();
    // Of slots that do not verify nobody knows whose they were.
    let known = count("samples_taken") + count("slots_torn");
    let name = ring.to_str().unwrap();
    assert!(known >= before || said.contains(name), "{known} of {before} and not a word: {said}");
}

/// What the fixed `/proc` says, by a run that nobody touches.
fn reference(world: &World) -> Vec<(String, Value)> {
    let dir = world.path("reference");
    let options = ["--ring-dir", "--results-dir"].map(|option| (option, dir.join(option)));
    let mut cmd = world.ringstat(&["run", "--no-mirror", "--max-samples", "10", "--procfs"]);
    cmd = cmd.arg(super::fixed_proc());
    for (option, dir) in options {
        cmd = cmd.arg(option).arg(dir);
    }
    cmd.args(&["--", "true"]).succeeds();
    let files = Files::of(&dir.join("--results-dir"));
    let reference = values(files.last());
    fs::remove_dir_all(dir).unwrap();
    reference
}

/// A run at 10 ms, its directory and its ring, once `samples` are in it and some of them in its mirror.
pub fn watched(world: &World, samples: u64) -> (super::Live, PathBuf, PathBuf) {
    let options = ["--interval", "10ms", "--max-samples", "300", "--sync-interval", "50ms"];
    let live = world.record(&options).start();
    let dir = world.run_dir(&world.rings());
    let mirror = world.run_dir(&world.mirrors());
    world.wait_for_samples(&dir.join("00000.ring"), samples);
    world.wait_for_samples(&mirror.join("00000.ring"), samples);
    (live, dir, mirror)
}

/// Waits until a ring that did not begin the run has samples: in the directory for rings or, if that
/// one is gone, in the mirror's.
pub fn wait_for_next_segment(world: &World, dirs: &[&Path]) {
    wait_until("a new segment with samples", || {
        let later = |dir: &&Path| entries(dir).into_iter().filter(|name| name != "00000.ring");
        dirs.iter().find_map(|dir| {
            later(dir).filter(|name| name.ends_with(".ring")).find_map(|name| {
                let info = world.info(&dir.join(name))?;
                (info["summary"]["samples_kept"].int() >= 3).then_some(())
            })
        })
    });
}

/// Opens a file to be written to, as it is.
pub fn writable(path: &Path) -> File {
    File::options().write(true).open(path).unwrap()
}

/// Where in a ring its slots begin, and how long one is.
pub fn slots(ring: &Path) -> (u64, u64) {
    let file = File::open(ring).unwrap();
    let word = |nth: u64| {
        let mut bytes = [0; 8];
        file.read_exact_at(&mut bytes, nth * 8).unwrap();
        u64::from_ne_bytes(bytes)
    };
    (word(7), word(8) * 8)
}

/// Numbers that look random, from a seed.
pub struct Dice(pub u64);

impl Dice {
    pub fn below(&mut self, limit: u64) -> u64 {
        self.0 =
            self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % limit.max(1)
    }

    pub fn bytes(&mut self, count: usize) -> Vec<u8> {
        (0..count).map(|_| self.below(256) as u8).collect()
    }
}

/// A file that somebody has his hands on.
struct Victim<'a> {
    file: File,
    path: &'a Path,
    length: u64,
    /// Of a ring with its head: where its slots begin, and how long one is.
    slots: Option<(u64, u64)>,
}

impl Victim<'_> {
    fn cut_off(&self, length: u64) {
        self.file.set_len(length).unwrap();
    }

    fn write(&self, bytes: &[u8], at: u64) {
        self.file.write_all_at(bytes, at).unwrap();
    }

    /// Overwrites all from an offset on.
    fn overwrite(&self, from: u64, dice: &mut Dice) {
        let garbage = dice.bytes(1 << 16);
        for at in (from..self.length).step_by(garbage.len()) {
            let bytes = usize::try_from(self.length - at).unwrap().min(garbage.len());
            self.write(&garbage[..bytes], at);
        }
    }
}

/// What is done to it.
type Hand = fn(&Victim, &mut Dice);

/// All ways to meddle, and whether the file must be a ring with its head for that.
const HANDS: [(&str, bool, Hand); 11] = [
    ("cut off to nothing", false, |it, _| it.cut_off(0)),
    ("cut off to half", false, |it, _| it.cut_off(it.length / 2)),
    ("cut off in its first slot", true, |it, dice| {
        let (first, slot) = it.slots.unwrap();
        it.cut_off(first + 8 + dice.below(slot - 8));
    }),
    // As `cp` does over an existing file.
    ("emptied, at its full length", false, |it, _| {
        it.cut_off(0);
        it.cut_off(it.length);
    }),
    ("overwritten here and there", false, |it, dice| {
        let garbage = dice.bytes(5000);
        (0..20).for_each(|_| it.write(&garbage, dice.below(it.length)));
    }),
    ("overwritten at its head", false, |it, dice| it.write(&dice.bytes(256), 0)),
    ("its first word zeroed", false, |it, _| it.write(&[0; 8], 0)),
    ("its first page zeroed", false, |it, _| it.write(&[0; 4096], 0)),
    ("overwritten", false, |it, dice| it.overwrite(0, dice)),
    ("all its slots overwritten", true, |it, dice| it.overwrite(it.slots.unwrap().0, dice)),
    ("deleted", false, |it, _| fs::remove_file(it.path).unwrap()),
];

/// Somebody who does all that to files, in any order, each as often as the others.
#[derive(Default)]
pub struct Meddler {
    to_come: Vec<usize>,
    drawn: [u64; HANDS.len()],
}

impl Meddler {
    /// Does something to a file, and says what; the file may be gone by now. What cannot be done to it is
    /// done to a later one.
    pub fn meddle(&mut self, path: &Path, dice: &mut Dice) -> &'static str {
        let Ok(file) = File::options().write(true).open(path) else { return "gone" };
        if self.to_come.is_empty() {
            self.to_come.extend(0..HANDS.len());
        }
        let layout = Ring::open(path).ok().map(|ring| ring.header().layout);
        let slots = layout.map(|layout| (layout.slots_offset.0, layout.slot.bytes().0));
        let length = file.metadata().unwrap().len();
        let victim = Victim { file, path, length, slots };
        let fits = |(_, hand): &(usize, &usize)| slots.is_some() || !HANDS[**hand].1;
        let fitting: Vec<usize> =
            self.to_come.iter().enumerate().filter(fits).map(|(at, _)| at).collect();
        let hand = match fitting.len() {
            // Those that are left wait for a ring that has its head.
            0 => 0,
            choices => {
                let chosen = fitting[dice.below(choices as u64) as usize];
                self.to_come.swap_remove(chosen)
            }
        };
        let (what, _, with) = HANDS[hand];
        with(&victim, dice);
        self.drawn[hand] += 1;
        what
    }

    /// Whether there is nothing that it has not done yet.
    pub fn has_done_all(&self) -> bool {
        self.drawn.iter().all(|count| *count > 0)
    }
}

/// How often a test with random hands lets them at it.
pub fn meddlings() -> u64 {
    rounds(16, 600)
}
