//! The sampling path allocates nothing: a thousand samples of every source of this host, under an
//! allocator that counts.

use ringstat::Probe;
use ringstat::source::SOURCES;
use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;
use std::path::Path;

thread_local! {
    static ALLOCATIONS: Cell<u64> = const { Cell::new(0) };
}

/// The system's allocator, counting by thread.
struct Counting;

fn count() {
    // A thread that is just ending may have no counter any more.
    let _ = ALLOCATIONS.try_with(|count| count.set(count.get() + 1));
}

// SAFETY: every call is passed on unchanged to `System`, which keeps the contract of
// `GlobalAlloc`; counting touches no memory but a thread-local `Cell` without a destructor, which
// allocates nothing.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        count();
        // SAFETY: the caller's promises are the ones that `System` asks for.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        count();
        // SAFETY: as in `alloc`.
        unsafe { System.dealloc(pointer, layout) }
    }

    unsafe fn realloc(&self, pointer: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        count();
        // SAFETY: as in `alloc`.
        unsafe { System.realloc(pointer, layout, size) }
    }
}

#[global_allocator]
static COUNTING: Counting = Counting;

/// Samples taken, and what was allocated and freed meanwhile.
fn allocations(probe: &mut Probe, samples: u64) -> u64 {
    let before = ALLOCATIONS.get();
    for _ in 0..samples {
        probe.sample();
    }
    ALLOCATIONS.get() - before
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
    let before = ALLOCATIONS.get();
    drop(std::hint::black_box(vec![0_u8; 100]));
    assert_eq!(ALLOCATIONS.get() - before, 2);
}
