//! Counters and clocks that do odd things, as the files show them: values are the kernel's own, what
//! happened is said, and samples taken and ticks missed are the ticks that went by.
#![allow(clippy::unwrap_used, clippy::expect_used)] // A panic is how a test fails.

mod common;

use common::json::Value;
use common::{World, format, rings, wait_until};
use rustix::process::Signal;
use std::fmt::Write as _;
use std::time::{Duration, Instant};

const HOUR_NS: u64 = 3_600_000_000_000;

fn disks(values: &[(&str, u64)]) -> String {
    let mut text = String::new();
    for (minor, (name, value)) in values.iter().enumerate() {
        writeln!(text, "   8 {minor:7} {name}{}", format!(" {value}").repeat(17)).unwrap();
    }
    text
}

fn interface(value: u64) -> String {
    let text = std::fs::read_to_string(common::fixed_proc().join("net/dev")).unwrap();
    let header: String = text.lines().take(2).flat_map(|line| [line, "\n"]).collect();
    format!("{header}  eth0:{}\n", format!(" {value}").repeat(16))
}

#[test]
fn counters_that_wrap_or_are_reset_are_written_as_they_are_and_reported() {
    let world = World::new();
    let procfs = world.own_proc();
    let all_bits = u64::from(u32::MAX);
    let before = [("wraps", all_bits), ("full", u64::MAX), ("reset", 1000), ("grows", 5)];
    let after = [("wraps", 41), ("full", 0), ("reset", 999), ("grows", u64::MAX)];
    world.write("proc/diskstats", disks(&before));
    world.write("proc/net/dev", interface(u64::MAX));
    world.write("proc/vmstat", "nr_free_pages 900\npgpgin 18446744073709551615\npgfault 7\n");
    world.write("new/diskstats", disks(&after));
    world.write("new/net/dev", interface(17));
    world.write("new/vmstat", "nr_free_pages 1\npgpgin 3\npgfault 6\n");
    let script = "cd \"$W/new\" && for f in diskstats vmstat net/dev; do cat $f > ../proc/$f; done";
    world.run_sh(&["--procfs", procfs.to_str().unwrap(), "--interval", "1h"], script).succeeds();
    let files = world.files();
    let [first, last] = files.samples() else { panic!("{}", files.samples().len()) };
    for (sample, values, rx_bytes) in [(first, before, u64::MAX), (last, after, 17)] {
        for (disk, (name, value)) in sample["diskstats"].list().iter().zip(values) {
            assert_eq!(disk["device_name"].str(), name);
            let counters = &disk.entries()[1..];
            assert_eq!(counters.len(), 17);
            assert!(counters.iter().all(|(_, counter)| counter.int() == value), "{disk:?}");
        }
        assert_eq!(sample["netdev"].list()[0]["rx_bytes"].int(), rx_bytes);
    }
    assert_eq!((first["vmstat"]["pgpgin"].int(), last["vmstat"]["pgpgin"].int()), (u64::MAX, 3));
    let found = &files.summary()["counter_decreases"];
    assert_eq!(found.keys(), ["diskstats", "vmstat", "netdev"]);
    let counts = |source: &str| {
        let of = |way: &str| found[source][way].int();
        [of("wrapped_at_32_bits"), of("wrapped_at_64_bits"), of("went_backwards")]
    };
    // Six times of a disk are kept in 32 bits, ten counters in 64; what is in flight is neither.
    assert_eq!(counts("diskstats"), [6, 16, 10 + 16]);
    assert_eq!(counts("netdev"), [0, 16, 0]);
    assert_eq!(counts("vmstat"), [0, 1, 1]);
    let one = &found["netdev"]["first"].list()[0];
    let expected = [
        ("tick", Value::Int(0)),
        ("instance", Value::Text("eth0".to_owned())),
        ("field", Value::Text("rx_bytes".to_owned())),
        ("from", Value::Int(u64::MAX.into())),
        ("to", Value::Int(17)),
        ("how", Value::Text("wrapped_at_64_bits".to_owned())),
    ];
    let expected = expected.map(|(key, value)| (key.to_owned(), value));
    assert_eq!(one.entries(), expected);
}

#[test]
fn five_seconds_in_which_it_was_stopped_are_ticks_missed_and_no_step_of_the_clock() {
    let world = World::new();
    let live = world.record(&["--interval", "10ms", "--max-samples", "20000"]).start();
    let ring = world.run_dir(&world.rings()).join("00000.ring");
    world.wait_for_samples(&ring, 3);
    live.signal(Signal::STOP);
    let stopped = Instant::now();
    wait_until("5 s to go by", || (stopped.elapsed() >= Duration::from_secs(5)).then_some(()));
    let before = world.info(&ring).unwrap()["summary"]["samples_taken"].int();
    live.signal(Signal::CONT);
    world.wait_for_samples(&ring, before + 3);
    live.signal(Signal::INT);
    live.end().has_status(0);
    let files = world.files();
    let summary = files.summary();
    format::ticks_add_up(summary, files.samples()).unwrap();
    let longest = summary["gaps"].list().iter().map(|gap| gap["ticks"].int()).max();
    assert!(longest >= Some(490), "{longest:?}");
    assert_eq!(summary["clock_steps_total"].int(), 0);
    println!("{} ticks elapsed, {longest:?} in one gap", summary["ticks_elapsed"].int());
}

#[test]
fn an_interval_much_shorter_than_a_sample_takes_misses_ticks_and_counts_them() {
    let world = World::new();
    let procfs = world.own_proc();
    let names: Vec<String> = (0..10_000).map(|minor| format!("nvme{minor}n1")).collect();
    let values: Vec<(&str, u64)> = names.iter().map(|name| (&name[..], 1_234_567_890)).collect();
    world.write("proc/diskstats", disks(&values));
    let options = ["--procfs", procfs.to_str().unwrap(), "--interval", "1ms"];
    let options = [&options[..], &["--max-samples", "3", "--keep-ring"]].concat();
    let live = world.record(&options).start();
    let dir = world.run_dir(&world.rings());
    world.wait_for_samples(&dir.join("00000.ring"), 20);
    live.signal(Signal::INT);
    live.end().has_status(0);
    let summary = &world.info(&dir.join("00000.ring")).unwrap()["summary"];
    let number = |key: &str| summary[key].int();
    assert_eq!(number("ticks_inconsistent"), 0);
    let extra = number("samples_taken") + number("ticks_missed") - number("ticks_elapsed");
    assert!(extra <= 1, "only the last sample may be an additional one: {summary:?}");
    assert!(number("ticks_missed") >= number("samples_taken"), "{summary:?}");
    println!(
        "{} taken, {} missed of {} ticks; a sample takes {:?}",
        number("samples_taken"),
        number("ticks_missed"),
        number("ticks_elapsed"),
        summary["cost"]["window_us"]
    );
}

/// A ring with these common words.
fn ring_of(world: &World, commons: &[[u64; 8]]) -> String {
    let plan = rings::Plan {
        sources: vec![rings::scalars("vmstat", &["pgpgin".to_owned()])],
        segment: 0,
        first_seq: 0,
        slots: commons.len() as u64 + 1,
        max_samples: commons.len() as u64,
        entries: 1,
        record_words: 16,
    };
    let path = world.path("made.ring");
    let ring = rings::create(&path, &plan);
    for (seq, common) in (0..).zip(commons) {
        rings::write(&ring, seq, *common, &[(1, &[seq])]);
    }
    path.to_str().unwrap().to_owned()
}

#[test]
fn a_wall_clock_that_was_set_is_said_and_moves_no_tick() {
    for (moved, says) in [(1, "+3600 s at tick 2"), (-1, "-3600 s at tick 2")] {
        let world = World::new();
        let moved_ns = |wall_ns: u64| match moved {
            1 => wall_ns + HOUR_NS,
            _ => wall_ns - HOUR_NS,
        };
        let mut commons: Vec<_> = (0..6).map(|seq| rings::common(seq, seq / 3)).collect();
        commons[2..].iter_mut().for_each(|common| common[1] = moved_ns(common[1]));
        let ring = ring_of(&world, &commons);
        world.ringstat(&["decode", &ring, "-o", "results"]).succeeds().says(&["warning", says]);
        let files = world.files();
        let summary = files.summary();
        assert_eq!((summary["ticks_elapsed"].int(), summary["ticks_missed"].int()), (7, 1));
        let step = &summary["clock_steps"].list()[0];
        assert_eq!(step["seconds"].float(), f64::from(moved) * 3600.0);
        let at = |sample: usize| files.samples()[sample]["timestamp"].str().to_owned();
        assert_eq!(at(1), "2026-01-02T03:04:05Z");
        assert_eq!(at(2), if moved == 1 { "2026-01-02T04:04:05Z" } else { "2026-01-02T02:04:05Z" });
        let seconds = files.metadata["runtime"].float();
        assert!((0.0..1.0).contains(&seconds), "the hour did not go by: {seconds}");
        let info = world.ringstat(&["info", &ring]).succeeds().stdout;
        assert!(info.contains(&format!("moved by {says}")), "{info}");
    }
}

#[test]
fn a_ring_whose_ticks_do_not_add_up_is_reported() {
    let sound: Vec<_> = (0..5).map(|seq| rings::common(seq, seq / 3)).collect();
    type Change = fn(&mut [u64; 8]);
    let changes: [(&str, Change); 5] = [
        ("a tick too many", |common| common[0] += 1),
        ("a missed tick too few", |common| common[5] -= 1),
        ("a tick that was not due", |common| common[2] += 1),
        ("a tick of a later time", |common| {
            common[0] += 7;
            common[5] += 7;
        }),
        ("an additional sample that is none", |common| common[7] |= 2),
    ];
    let report = "samples taken and ticks missed are not the ticks that went by";
    for (what, change) in changes {
        let world = World::new();
        let mut commons = sound.clone();
        change(&mut commons[4]);
        let ring = ring_of(&world, &commons);
        let info = world.ringstat(&["info", &ring]).succeeds().stdout;
        assert!(info.contains("do not add up in 1 samples"), "{what}: {info}");
        assert!(info.contains("health    damaged"), "{what}: {info}");
        let ran = world.ringstat(&["decode", &ring, "-o", "-"]).succeeds().says(&[report]);
        assert!(ran.stdout.contains("\"ticks_inconsistent\": 1"), "{what}");
    }
    let world = World::new();
    let ring = ring_of(&world, &sound);
    world.ringstat(&["decode", &ring, "-o", "-"]).succeeds().does_not_say(&[report]);
}
