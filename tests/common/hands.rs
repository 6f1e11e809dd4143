//! What other people's hands do to a run's files, and what must hold whatever they do: no value in
//! the output is wrong, and what was taken is there or said to be lost.

use super::json::Value;
use super::{Files, World, entries, rounds, wait_until};
use std::fs::{self, File};
use std::io::Write;
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

/// Does something to a file, at random; the file may be gone by now.
pub fn meddle(path: &Path, dice: &mut Dice) -> &'static str {
    let Ok(file) = File::options().write(true).open(path) else { return "gone" };
    let length = file.metadata().unwrap().len();
    match dice.below(9) {
        0 => {
            file.set_len(0).unwrap();
            "cut off to nothing"
        }
        1 => {
            file.set_len(length / 2).unwrap();
            "cut off to half"
        }
        2 => {
            // As `cp` does over an existing file.
            file.set_len(0).unwrap();
            file.set_len(length).unwrap();
            "emptied, at its full length"
        }
        3 => {
            let garbage = dice.bytes(5000);
            for _ in 0..20 {
                file.write_all_at(&garbage, dice.below(length)).unwrap();
            }
            "overwritten here and there"
        }
        4 => {
            file.write_all_at(&dice.bytes(256), 0).unwrap();
            "overwritten at its head"
        }
        5 => {
            file.write_all_at(&[0; 8], 0).unwrap();
            "its first word zeroed"
        }
        6 => {
            file.write_all_at(&[0; 4096], 0).unwrap();
            "its first page zeroed"
        }
        7 => {
            let mut file = file;
            let garbage = dice.bytes(1 << 16);
            for _ in 0..length / (1 << 16) {
                file.write_all(&garbage).unwrap();
            }
            "overwritten"
        }
        _ => {
            fs::remove_file(path).unwrap();
            "deleted"
        }
    }
}

/// How often a test with random hands lets them at it.
pub fn meddlings() -> u64 {
    rounds(12, 600)
}
