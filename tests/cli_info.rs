//! `ringstat info`: what a ring holds and whether anything is wrong with it, for people and as
//! JSON.
#![allow(clippy::unwrap_used, clippy::expect_used)] // A panic is how a test fails.

mod common;

use common::World;
use std::fs;
use std::path::Path;

fn header_word(ring: &[u8], number: usize) -> usize {
    u64::from_le_bytes(ring[number * 8..][..8].try_into().unwrap()) as usize
}

/// Changes one byte in the record of slot `number`.
fn damage_slot(path: &Path, number: usize) {
    let mut ring = fs::read(path).unwrap();
    let at = header_word(&ring, 7) + number * header_word(&ring, 8) * 8 + 3 * 8 + 100;
    ring[at] ^= 0x40;
    fs::write(path, ring).unwrap();
}

#[test]
fn a_complete_ring_is_called_so() {
    let world = World::new();
    let options = ["--keep-ring", "--interval", "50ms", "--max-samples", "2"];
    world.run_sh(&options, "sleep 0.3").succeeds();
    let files = world.files();
    let dir = world.run_dir(&world.rings());
    let info = world.info(&dir).unwrap();
    assert_eq!(info["health"].str(), "complete");
    assert_eq!(info["summary"], *files.summary(), "the same as in the time series");
    assert_eq!(info["run_id"].str(), dir.file_name().unwrap().to_str().unwrap());
    // With a mirror, as many spare slots as the newest samples may need from sync to sync.
    assert_eq!((info["max_samples"].int(), info["slots"].int()), (2, 14));
    assert_eq!(info["interval_seconds"].float(), 0.05);
    let rings: Vec<&str> = info["rings"].list().iter().map(|ring| ring.str()).collect();
    assert_eq!(rings[0], dir.join("00000.ring").to_str().unwrap());
    assert_eq!(rings.len(), 2, "and the mirror");
    let schema = info["description"]["schema"].list();
    let names: Vec<&str> = schema.iter().map(|source| source["name"].str()).collect();
    assert_eq!(names, common::format::SOURCES);
    let taken = info["summary"]["samples_taken"].int();
    let text = world.ringstat(&["info"]).arg(&dir).succeeds().stdout;
    for words in [
        "stopped cleanly, nothing is missing",
        &format!("2 kept of {taken} taken, {} overwritten, 0 lost, 0 torn slots", taken - 2),
        &format!("{} elapsed at 0.05 s", info["summary"]["ticks_elapsed"].int()),
        "10 instances x",
        "7 instances x",
        rings[0],
        rings[1],
    ] {
        assert!(text.contains(words), "no {words:?} in:\n{text}");
    }
}

#[test]
fn a_run_that_lives_or_was_killed_is_whole_up_to_its_end() {
    let world = World::new();
    let live = world.record(&["--interval", "5ms", "--max-samples", "1000"]).start();
    let dir = world.run_dir(&world.rings());
    world.wait_for_samples(&dir.join("00000.ring"), 3);
    let is_whole = |when: &str| {
        let info = world.info(&dir).unwrap();
        assert_eq!(info["health"].str(), "ends_without_stop", "{when}");
        assert!(!info["summary"]["ended_cleanly"].bool());
        let text = world.ringstat(&["info"]).arg(&dir).succeeds().stdout;
        assert!(text.contains("whole up to its end, but not stopped"), "{when}: {text}");
        info["summary"]["samples_kept"].int()
    };
    let alive = is_whole("alive");
    live.kill();
    assert!(is_whole("killed") >= alive);
}

#[test]
fn a_damaged_ring_says_how_many_samples_are_lost() {
    let world = World::new();
    let ring = world.kept(10, &["--no-mirror"]).join("00000.ring");
    let whole = world.info(&ring).unwrap();
    assert_eq!(whole["health"].str(), "complete");
    let taken = whole["summary"]["samples_taken"].int();
    for (lost, slot) in [(1, 1), (2, 3)] {
        damage_slot(&ring, slot);
        let info = world.info(&ring).unwrap();
        let number = |key: &str| info["summary"][key].int();
        assert_eq!(info["health"].str(), "damaged");
        assert_eq!((number("samples_lost"), number("slots_torn")), (lost, lost));
        assert_eq!((number("samples_taken"), number("samples_kept")), (taken, taken - lost));
        let text = world.ringstat(&["info"]).arg(&ring).succeeds().stdout;
        assert!(text.contains("damaged"), "{text}");
        assert!(text.contains(&format!("{lost} lost, {lost} torn slots")), "{text}");
    }
    // The decoder gives all the others, and says what is missing.
    let ran = world.ringstat(&["decode", "-o", "-"]).arg(&ring).succeeds();
    let file = common::format::timeseries(ran.stdout.trim_end()).unwrap();
    let ticks = common::format::samples(&file).len() as u64;
    assert_eq!(ticks, taken - 2);
}

#[test]
fn a_damaged_newest_slot_is_not_mistaken_for_a_shorter_whole_run() {
    let world = World::new();
    let ring = world.kept(5, &["--no-mirror"]).join("00000.ring");
    let taken = world.info(&ring).unwrap()["summary"]["samples_taken"].int();
    damage_slot(&ring, taken as usize - 1);
    let info = world.info(&ring).unwrap();
    assert_eq!(info["health"].str(), "damaged");
    assert!(!info["summary"]["ended_cleanly"].bool());
    assert_eq!(info["summary"]["slots_torn"].int(), 1);
}

#[test]
fn what_the_mirror_has_is_not_lost() {
    let world = World::new();
    let (dir, files) = world.kept_run();
    damage_slot(&dir.join("00000.ring"), 2);
    assert_eq!(world.info(&dir.join("00000.ring")).unwrap()["health"].str(), "damaged");
    let both = world.info(&dir).unwrap();
    assert_eq!(both["summary"]["samples_lost"].int(), 0);
    assert_eq!(both["summary"]["samples_kept"].int(), files.samples().len() as u64);
    assert_eq!(both["health"].str(), "complete");
}

#[test]
fn several_runs_are_shown_one_after_the_other() {
    let world = World::new();
    for _ in 0..2 {
        world.run(&["--keep-ring"], &["true"]).succeeds();
    }
    let ids = common::entries(&world.rings());
    let args = ["info", &ids[0], &ids[1]];
    let text = world.looking(&args).succeeds().stdout;
    assert!(text.find(&ids[0]).unwrap() < text.find(&ids[1]).unwrap());
    assert_eq!(text.matches("\nhealth").count(), 2);
    for name in common::entries(&world.results()) {
        assert!(name.starts_with("true_"));
    }
}
