//! `ringstat record`: how it is stopped, that every tick is accounted for, and that the newest
//! samples are the ones that are kept.
#![allow(clippy::unwrap_used, clippy::expect_used)] // A panic is how a test fails.

mod common;

use common::{Files, Live, World, entries, format, read_metadata, wait_until};
use rustix::process::Signal;
use std::time::{Duration, Instant};

/// The strict reader has checked it; said where it is what a test is about.
fn assert_every_tick_is_accounted_for(files: &Files) {
    format::ticks_add_up(files.summary(), files.samples()).unwrap();
}

#[test]
fn a_thousand_ticks_of_a_millisecond_are_taken_or_counted() {
    let world = World::new();
    let options = ["--interval", "1ms", "--duration", "1s", "--max-samples", "3600"];
    let ran = world.record(&options).succeeds();
    let files = world.files();
    assert_eq!(files.benchmark_type, "record");
    assert_eq!(files.metadata["command"].str(), "record");
    assert!(!files.metadata.has("executed_command") && !files.metadata.has("exit_status"));
    assert_eq!(files.timeseries["collection_interval_seconds"].float(), 0.001);
    let summary = files.summary();
    assert!(summary["ticks_elapsed"].int() >= 1000);
    assert_eq!(summary["samples_overwritten"].int(), 0, "--max-samples has room for all");
    assert_every_tick_is_accounted_for(&files);
    assert!(files.last()["collection"]["at_stop"].bool() && summary["ended_cleanly"].bool());
    ran.says(&[
        &format!("{} samples", summary["samples_kept"].int()),
        &format!("{} tick", summary["ticks_missed"].int()),
    ]);
    world.assert_no_rings();
}

#[test]
fn the_newest_samples_are_kept_and_the_others_counted() {
    let world = World::new();
    let options = ["--interval", "10ms", "--max-samples", "5"];
    let live = world.record(&options).start();
    let ring = world.run_dir(&world.rings()).join("00000.ring");
    world.wait_for_samples(&ring, 9);
    live.signal(Signal::INT);
    let ran = live.end().has_status(0);
    let files = world.files();
    let summary = files.summary();
    assert_eq!(files.samples().len(), 5);
    let overwritten = summary["samples_overwritten"].int();
    assert_eq!(overwritten, summary["samples_taken"].int() - 5);
    assert!(overwritten >= 4);
    assert_every_tick_is_accounted_for(&files);
    assert!(files.last()["collection"]["at_stop"].bool());
    ran.says(&["5 samples", &format!("{overwritten} older sample")]);
}

#[test]
fn one_sample_is_the_last_one() {
    let world = World::new();
    world.record(&["--max-samples", "1", "--interval", "5ms", "--duration", "30ms"]).succeeds();
    let files = world.files();
    assert_eq!(files.samples().len(), 1);
    assert!(files.last()["collection"]["at_stop"].bool());
    assert_every_tick_is_accounted_for(&files);
}

#[test]
fn interrupt_terminate_and_hang_up_stop_it_with_its_files_written() {
    for signal in [Signal::INT, Signal::TERM, Signal::HUP] {
        let world = World::new();
        // It must not wait for the next tick, which is an hour away.
        let live = world.record(&["--interval", "1h"]).start();
        world.wait_for_samples(&world.run_dir(&world.rings()).join("00000.ring"), 1);
        live.signal(signal);
        live.end().has_status(0).says(&["2 samples, 0 ticks missed"]);
        let files = world.files();
        assert!(files.summary()["ended_cleanly"].bool());
        assert_every_tick_is_accounted_for(&files);
        world.assert_no_rings();
    }
}

#[test]
fn ticks_that_go_by_while_it_is_stopped_are_missed_and_not_made_up_for() {
    let world = World::new();
    let options = ["--interval", "5ms", "--max-samples", "2000"];
    let live: Live = world.record(&options).start();
    let ring = world.run_dir(&world.rings()).join("00000.ring");
    world.wait_for_samples(&ring, 3);
    live.signal(Signal::STOP);
    let stopped = Instant::now();
    wait_until("some ticks to go by", || {
        (stopped.elapsed() > Duration::from_millis(300)).then_some(())
    });
    let before = world.info(&ring).unwrap()["summary"]["samples_taken"].int();
    live.signal(Signal::CONT);
    world.wait_for_samples(&ring, before + 3);
    live.signal(Signal::INT);
    live.end().has_status(0);
    let files = world.files();
    let longest = files.summary()["gaps"].list().iter().map(|gap| gap["ticks"].int()).max();
    assert!(longest >= Some(30), "{:?}", files.summary()["gaps"]);
    assert_every_tick_is_accounted_for(&files);
    // Each sample belongs to the tick that was due: at most one per tick, none of them early.
    for pair in files.samples().windows(2) {
        let [before, after] = [&pair[0]["collection"], &pair[1]["collection"]];
        let ns = after["monotonic_ns"].int() - before["monotonic_ns"].int();
        let ticks = after["tick"].int() - before["tick"].int();
        assert!(ns + 5_000_000 >= ticks * 5_000_000, "{ticks} ticks in {ns} ns");
    }
}

#[test]
fn a_duration_ends_it_at_once() {
    let world = World::new();
    world.record(&["--interval", "1h", "--duration", "20ms", "-q"]).succeeds();
    let files = world.files();
    assert_eq!(files.samples().len(), 2);
    let seconds = files.metadata["runtime"].float();
    assert!((0.02..20.0).contains(&seconds), "{seconds}");
}

#[test]
fn skipped_time_series_leave_the_metadata_alone() {
    let world = World::new();
    world.record(&["--skip-timeseries", "--duration", "10ms"]).succeeds();
    let names = entries(&world.results());
    let [name] = &names[..] else { panic!("{names:?}") };
    assert!(!read_metadata(&world.results().join(name)).has("timeseries_data"));
    assert_eq!(entries(&world.rings()), [""; 0]);
}

#[test]
fn all_of_the_real_proc_is_recorded() {
    let world = World::new();
    let options = ["--procfs", "/proc", "--interval", "5ms", "--duration", "200ms"];
    world.record(&options).succeeds();
    let files = world.files();
    assert_every_tick_is_accounted_for(&files);
    let last = files.last();
    let text = std::fs::read_to_string("/proc/vmstat").unwrap();
    let names: Vec<&str> = text.lines().map(|line| line.split(' ').next().unwrap()).collect();
    assert_eq!(last["vmstat"].keys(), names, "every line, in the kernel's order");
    let text = std::fs::read_to_string("/proc/meminfo").unwrap();
    let names: Vec<&str> = text.lines().map(|line| line.split(':').next().unwrap()).collect();
    assert_eq!(last["meminfo"].keys(), names);
    let text = std::fs::read_to_string("/proc/diskstats").unwrap();
    assert_eq!(last["diskstats"].list().len(), text.lines().count());
    assert!(last["netdev"].list().iter().any(|row| row["interface_name"].str() == "lo"));
}
