//! What a recorder does to its host once it has settled, by the kernel's own count of each of its
//! threads over ten thousand samples: it faults no page, writes to no disk, allocates nothing,
//! sleeps once for each sample, and wakes nobody else in between.
#![allow(clippy::unwrap_used, clippy::expect_used)] // A panic is how a test fails.

mod common;

use common::allocations::{Counting, of_watched_thread, watch};
use common::tasks::{Counts, Task, tasks};
use common::{Live, World, rounds, wait_until};
use ringstat::ring::{Layout, Ring};
use ringstat::{Recorder, Slot};
use rustix::process::{Pid, getpid};
use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::time::{Duration, Instant};

#[global_allocator]
static COUNTING: Counting = Counting;

const INTERVAL: Duration = Duration::from_millis(1);
/// Short enough for ten of them.
const SYNC_INTERVAL: Duration = Duration::from_secs(1);
const OPTIONS: [&str; 6] =
    ["--procfs", "/proc", "--interval=1ms", "--sync-interval=1s", "--max-samples", "4000"];
const MAX_SAMPLES: u64 = 4000;
/// Samples before those that are looked at. Far fewer than the ring has slots: it was all in
/// memory before its first lap.
const FIRST_SAMPLES: u64 = 500;

/// Sleeps beyond one for each sample. What is read takes locks in the kernel, and somebody else may
/// have one just then; that is rare, and another sleep of ours would be there for each sample.
const MORE_SLEEPS_PER_SAMPLE: f64 = 0.001;
/// The same for a thread that sleeps from one sync to the next, or all the time.
const MORE_SLEEPS: u64 = 3;

/// What is known at about the same time.
struct Moment {
    time: Instant,
    tasks: Vec<Task>,
    /// Samples taken just before and just after the tasks were looked at: more come meanwhile.
    samples: [u64; 2],
}

impl Moment {
    /// As soon as `enough` samples are taken.
    fn after(enough: u64, pid: Pid, taken: &mut impl FnMut() -> u64) -> Moment {
        let deadline = Instant::now() + Duration::from_secs(60) + 10 * INTERVAL * enough as u32;
        while taken() < enough {
            assert!(Instant::now() < deadline, "too few samples for a machine however busy");
            std::thread::sleep(Duration::from_millis(100));
        }
        let before = taken();
        let tasks = tasks(pid);
        Moment { time: Instant::now(), tasks, samples: [before, taken()] }
    }
}

/// Looks at a recorder whose threads are those that `ours` picks, from its first samples on.
fn assert_steady(pid: Pid, ours: impl Fn(&Task) -> bool, mut taken: impl FnMut() -> u64) {
    let mut begin = Moment::after(FIRST_SAMPLES, pid, &mut taken);
    let enough = begin.samples[1] + rounds(10_000, 600_000);
    let mut end = Moment::after(enough, pid, &mut taken);
    let samples = end.samples[0] - begin.samples[1]..=end.samples[1] - begin.samples[0];
    let time = end.time - begin.time;
    println!("{samples:?} samples in {time:?}");
    for moment in [&mut begin, &mut end] {
        moment.tasks.retain(|task| ours(task));
    }
    let of = |moment: &Moment, name| {
        moment.tasks.iter().filter(|task| task.name == name).map(|task| task.tid).next()
    };
    for name in ["rs-sampler", "rs-mirror", "rs-watch"] {
        assert!(of(&begin, name).is_some(), "no {name}: {:?}", begin.tasks);
    }
    assert_eq!(begin.tasks.len(), end.tasks.len(), "a thread has begun or ended");
    for (before, after) in begin.tasks.iter().zip(&end.tasks) {
        assert_eq!(before.tid, after.tid, "a thread has begun or ended");
        let counts = after.counts - before.counts;
        println!("{:<16} {counts:?}", after.name);
        let syncs = (time.as_secs_f64() / SYNC_INTERVAL.as_secs_f64()).ceil() as u64;
        let sleeps = match &after.name[..] {
            "rs-sampler" => {
                assert_silent(counts, *samples.start(), *samples.end());
                continue;
            }
            "rs-mirror" | "rs-watch" => syncs,
            // Waits for the command, for a signal, for the end.
            _ => 0,
        };
        let found = counts.voluntary_switches;
        assert!(found <= sleeps + MORE_SLEEPS, "{}: {found} sleeps in {syncs} syncs", after.name);
    }
}

/// Between `least` and `most` samples, and nothing else.
fn assert_silent(counts: Counts, least: u64, most: u64) {
    let sleeps = counts.voluntary_switches;
    let more = (most as f64 * MORE_SLEEPS_PER_SAMPLE) as u64;
    assert!(sleeps <= most + more, "{sleeps} sleeps for at most {most} samples");
    // On a busy machine a sample may begin without one: its time has come before the last one let
    // go of the CPU.
    assert!(sleeps >= least / 2, "{sleeps} sleeps for at least {least} samples");
    let silent = Counts {
        minor_faults: 0,
        major_faults: 0,
        write_calls: 0,
        disk_read_bytes: 0,
        disk_written_bytes: 0,
        voluntary_switches: sleeps,
    };
    assert_eq!(counts, silent);
}

/// Counts the samples of a ring as they come, without a look at more than a word of each: reading
/// it as a user does would keep a CPU busy.
struct Follower {
    file: File,
    layout: Layout,
    taken: u64,
}

impl Follower {
    fn of(ring: &Path) -> Follower {
        // It has its header only when all of it is there.
        let layout = wait_until("the ring", || Some(Ring::open(ring).ok()?.header().layout));
        Follower { file: File::open(ring).unwrap(), layout, taken: 0 }
    }

    fn taken(&mut self) -> u64 {
        loop {
            // A slot begins with one more than the number of its record, which is for ever below
            // the mark of one that is being written.
            let slot = self.layout.slot_offset(Slot(self.taken % self.layout.slots));
            let mut word = [0; 8];
            self.file.read_exact_at(&mut word, slot.0).unwrap();
            let taken = u64::from_ne_bytes(word);
            if taken <= self.taken || taken > u64::MAX / 2 {
                return self.taken;
            }
            self.taken = taken;
        }
    }
}

fn assert_steady_process(world: &World, live: Live) {
    let ring = world.run_dir(&world.rings()).join("00000.ring");
    let mut follower = Follower::of(&ring);
    assert_steady(live.pid(), |_| true, || follower.taken());
    live.kill();
}

// Rings and copies are in memory here: a thread that waits for a disk sleeps for that as well.

#[test]
fn a_process_that_records() {
    let world = World::in_memory();
    assert_steady_process(&world, world.record(&OPTIONS).start());
}

#[test]
fn a_process_that_runs_a_command() {
    let world = World::in_memory();
    // Gone with its parent, however the test ends.
    let command = ["sh", "-c", "while kill -0 $PPID; do sleep 1; done"];
    assert_steady_process(&world, world.run(&OPTIONS, &command).start());
}

#[test]
fn a_program_that_has_a_recorder_in_it() {
    let world = World::in_memory();
    let mut recorder = Recorder::builder()
        .interval(INTERVAL)
        .sync_interval(SYNC_INTERVAL)
        .max_samples(MAX_SAMPLES)
        .ring_dir(world.rings())
        .mirror_dir(world.mirrors())
        .results_dir(world.results())
        .build()
        .unwrap();
    recorder.start().unwrap();
    let sampler = tasks(getpid()).into_iter().find(|task| task.name == "rs-sampler").unwrap();
    // Other threads are the test's own.
    let ours = |task: &Task| ["rs-sampler", "rs-mirror", "rs-watch"].contains(&&task.name[..]);
    let mut taken = || recorder.progress().0;
    Moment::after(FIRST_SAMPLES, getpid(), &mut taken);
    watch(sampler.tid);
    assert_steady(getpid(), ours, taken);
    assert_eq!(of_watched_thread(), 0, "allocations of the sampler");
    recorder.stop().unwrap().discard();
    assert!(of_watched_thread() > 0, "it gives back memory as it ends: what it does is counted");
}
