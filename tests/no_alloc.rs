//! The sampling path allocates nothing: a thousand samples of every source of this host, under an
//! allocator that counts.

#![allow(clippy::unwrap_used, clippy::expect_used)] // A panic is how a test fails.

mod common;

use common::allocations::{Counting, of_this_thread};
use ringstat::Probe;
use ringstat::source::SOURCES;
use std::path::Path;

#[global_allocator]
static COUNTING: Counting = Counting;

/// Samples taken, and what was allocated and freed meanwhile.
fn allocations(probe: &mut Probe, samples: u64) -> u64 {
    let before = of_this_thread();
    for _ in 0..samples {
        probe.sample();
    }
    of_this_thread() - before
}

#[test]
fn a_thousand_samples_of_every_source_allocate_nothing() {
    // Fewer slots than samples: the ring laps as well.
    let mut probe = Probe::new(&SOURCES, Path::new("/proc"), 100).unwrap();
    // The first sample meets every device.
    probe.sample();
    let allocations = allocations(&mut probe, 1000);
    assert_eq!(probe.samples(), 1001);
    assert_eq!((allocations, probe.segments()), (0, 1));
}

#[test]
fn neither_does_meeting_devices_that_come_and_go() {
    let dir = tempfile::tempdir().unwrap();
    let line = |minor: u64| format!("   8 {minor:7} sd{minor}{}\n", " 7".repeat(17));
    let write = |minors: &[u64]| {
        let text: String = minors.iter().map(|minor| line(*minor)).collect();
        std::fs::write(dir.path().join("diskstats"), text).unwrap();
    };
    write(&[0, 1, 2]);
    let mut probe = Probe::new(&SOURCES[..1], dir.path(), 100).unwrap();
    probe.sample();
    for minors in [&[0, 1, 2, 3][..], &[3, 1], &[], &[9, 8, 7, 6, 5], &[1, 9], &[0, 1, 2]] {
        write(minors);
        assert_eq!(allocations(&mut probe, 1), 0, "{minors:?}");
    }
    assert_eq!((probe.samples(), probe.segments()), (7, 1));
}

#[test]
fn the_counter_counts() {
    let before = of_this_thread();
    drop(std::hint::black_box(vec![0_u8; 100]));
    assert_eq!(of_this_thread() - before, 2);
}
