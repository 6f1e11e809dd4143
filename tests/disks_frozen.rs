//! A disk that stops answering for a while, as `fsfreeze` makes it and as a busy storage array does:
//! no sample waits for it, nothing that was taken is lost, and the benchmark does not notice.
#![allow(clippy::unwrap_used, clippy::expect_used)] // A panic is how a test fails.

mod common;

use common::disk::{
    LoopExt4, is_stopped_by_a_disk, kept_from_running_ns, wait_until_idle,
    wait_until_stopped_by_a_disk,
};
use common::memory::held;
use common::{Files, Live, Tmpfs, World, entries, wait_for_file, wait_until, with_own_mounts};
use ringstat::Bytes;
use ringstat::ring::WordMap;
use rustix::process::{Pid, Signal};
use rustix::time::{ClockId, clock_gettime};
use std::fs::{self, File};
use std::io::Write as _;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

/// How long a disk does not answer.
const FREEZE: Duration = Duration::from_secs(10);
const MIRROR: &str = "rs-mirror";
const SAMPLER: &str = "rs-sampler";
const INTERVAL_NS: u64 = 10_000_000;
/// Ticks that a machine which does not run any of us for a while may cost: one of a cloud's.
const STOLEN_TICKS: u64 = 10;
/// A name that a process has of its main thread.
const MAIN: &str = "ringstat";
const OFTEN: [&str; 8] = [
    "--interval",
    "10ms",
    "--max-samples",
    "3000",
    "--sources",
    "loadavg,meminfo",
    "--sync-interval",
    "100ms",
];

fn monotonic_ns() -> u64 {
    let now = clock_gettime(ClockId::Monotonic);
    now.tv_sec as u64 * 1_000_000_000 + now.tv_nsec as u64
}

/// A freeze, and how much of it the sampler was kept from running by others that did.
struct Freeze {
    from_ns: u64,
    to_ns: u64,
    /// At each look at it, how long until then.
    kept_from_running: Vec<(u64, u64)>,
}

impl Freeze {
    /// How long it was kept from running between two times, and some ms before and behind them.
    fn kept_from_running_ns(&self, from_ns: u64, to_ns: u64) -> u64 {
        let looks = &self.kept_from_running;
        let before = looks.iter().rev().find(|(at_ns, _)| *at_ns <= from_ns).unwrap_or(&looks[0]);
        let behind = looks.iter().find(|(at_ns, _)| *at_ns >= to_ns).or(looks.last()).unwrap();
        behind.1 - before.1
    }

    /// Longest time between two samples that the sampler has spent on anything but waiting for a CPU.
    fn longest_wait_ns(&self, files: &Files) -> u64 {
        let begins: Vec<u64> = files
            .samples()
            .iter()
            .map(|sample| sample["collection"]["monotonic_ns"].int())
            .collect();
        let waits = begins.windows(2).map(|pair| {
            let [from_ns, to_ns] = [0, 1].map(|it| pair[it].clamp(self.from_ns, self.to_ns));
            (to_ns - from_ns).saturating_sub(self.kept_from_running_ns(from_ns, to_ns))
        });
        waits.max().unwrap()
    }
}

/// A stretch of time and how well a recorder kept it.
struct Figures {
    ticks: u64,
    missed: u64,
    lateness_p50_us: f64,
    lateness_max_us: f64,
    /// Longest time between two samples.
    pause_max_ns: u64,
}

impl Figures {
    fn of(files: &Files, from_ns: u64, to_ns: u64) -> Figures {
        let within = |ns: u64| (from_ns..to_ns).contains(&ns);
        let samples: Vec<_> = files.samples().iter().map(|sample| &sample["collection"]).collect();
        let inside: Vec<_> =
            samples.iter().filter(|sample| within(sample["monotonic_ns"].int())).collect();
        let [first, .., last] = &inside[..] else { panic!("{} samples", inside.len()) };
        let passed = |key: &str| last[key].int() - first[key].int();
        let pauses = samples.windows(2).filter_map(|pair| {
            let [begin, end] = [0, 1].map(|index| pair[index]["monotonic_ns"].int());
            (begin < to_ns && end > from_ns).then_some(end - begin)
        });
        let mut lateness: Vec<f64> =
            inside.iter().map(|sample| sample["lateness_us"].float()).collect();
        lateness.sort_by(f64::total_cmp);
        Figures {
            ticks: passed("tick"),
            missed: passed("missed_ticks"),
            lateness_p50_us: lateness[lateness.len() / 2],
            lateness_max_us: lateness[lateness.len() - 1],
            pause_max_ns: pauses.max().unwrap(),
        }
    }

    fn print(&self, what: &str) {
        println!(
            "{what}: {} ticks, {} missed, lateness p50 {:.0} us, max {:.0} us, longest pause {} ms",
            self.ticks,
            self.missed,
            self.lateness_p50_us,
            self.lateness_max_us,
            self.pause_max_ns / 1_000_000
        );
    }
}

/// Freezes the disk for as long as is asked for. The recorder's sampler does not wait for it: not for
/// ten looks at it in a row, which a lock of the kernel's may explain.
fn freeze_for_a_while(disk: &LoopExt4, recorder: Pid, meanwhile: impl FnOnce()) -> Freeze {
    let frozen = disk.freeze();
    let from_ns = monotonic_ns();
    let look = || (monotonic_ns(), kept_from_running_ns(recorder, SAMPLER));
    let mut kept_from_running = vec![look()];
    meanwhile();
    let mut in_a_row = 0;
    while Duration::from_nanos(monotonic_ns() - from_ns) < FREEZE {
        kept_from_running.push(look());
        in_a_row = if is_stopped_by_a_disk(recorder, SAMPLER) { in_a_row + 1 } else { 0 };
        assert!(in_a_row < 10, "a sample waits for the disk");
        std::thread::sleep(Duration::from_millis(5));
    }
    let to_ns = monotonic_ns();
    kept_from_running.push(look());
    frozen.thaw();
    Freeze { from_ns, to_ns, kept_from_running }
}

/// How a recorder fared during a freeze. The machine may be busy with whatever else, which may keep any
/// thread from running: for how long, the kernel says. What is beyond that the sampler has waited, and
/// there is nothing but its ticks that it may wait for.
fn assert_no_tick_waited(files: &Files, other: &Files, freeze: &Freeze) {
    let Freeze { from_ns, to_ns, .. } = *freeze;
    let before = Figures::of(files, 0, from_ns);
    let during = Figures::of(files, from_ns, to_ns);
    let elsewhere = Figures::of(other, from_ns, to_ns);
    before.print("before the freeze");
    during.print("during the freeze");
    elsewhere.print("meanwhile, without that disk");
    let kept_ns = freeze.kept_from_running_ns(from_ns, to_ns);
    let longest_ns = freeze.longest_wait_ns(files);
    println!(
        "kept from running for {} ms, longest wait between two samples {} ms",
        kept_ns / 1_000_000,
        longest_ns / 1_000_000
    );
    let missable = kept_ns / INTERVAL_NS + elsewhere.missed + STOLEN_TICKS;
    assert!(during.missed <= missable, "{missable} ticks may be missed");
    assert!(longest_ns <= (1 + STOLEN_TICKS) * INTERVAL_NS, "a sample has waited");
    // On an idle machine both are some tens of us. Not as before the freeze: who waits for a disk is late
    // then, too.
    let usual_us = elsewhere.lateness_p50_us;
    assert!(during.lateness_p50_us <= 2.0 * usual_us + 1000.0, "samples were late");
}

/// A recorder of another world that does not know of the disk.
fn bystander(world: &World) -> Live {
    let live = world.record(&[&["--no-mirror"], &OFTEN[..6]].concat()).start();
    world.wait_for_samples(&world.run_dir(&world.rings()).join("00000.ring"), 50);
    live
}

fn files_of(world: &World, live: Live) -> Files {
    live.signal(Signal::INT);
    live.end().has_status(0);
    world.files()
}

fn taken(world: &World, ring: &Path) -> u64 {
    world.info(ring).unwrap()["summary"]["samples_taken"].int()
}

#[test]
fn no_sample_waits_for_a_frozen_mirror_and_all_are_on_the_disk_after_the_thaw() {
    with_own_mounts("freezing the mirror's disk", || {
        let (world, elsewhere) = (World::new(), World::new());
        let disk = LoopExt4::over(&world.mirrors(), "64m", &[]);
        let other = bystander(&elsewhere);
        let live = world.record(&OFTEN).start();
        let mirror = world.run_dir(&world.mirrors()).join("00000.ring");
        let ring = world.run_dir(&world.rings()).join("00000.ring");
        world.wait_for_samples(&mirror, 100);
        let freeze = freeze_for_a_while(&disk, live.pid(), || {
            wait_until_stopped_by_a_disk(live.pid(), MIRROR)
        });
        let at_thaw = taken(&world, &ring);
        world.wait_for_samples(&mirror, at_thaw);
        // It copies and syncs in one go, and has slept since.
        wait_until_idle(live.pid(), MIRROR);
        live.kill();

        let out = world.path("out");
        let id = ring.parent().unwrap().file_name().unwrap().to_str().unwrap();
        let decode = ["decode", id, "-o", out.to_str().unwrap()];
        world.looking(&decode).succeeds();
        let of_ring = Files::of(&out);
        assert_no_tick_waited(&of_ring, &files_of(&elsewhere, other), &freeze);

        // The power goes as well: the memory is lost, and what was not synced.
        fs::remove_dir_all(world.rings()).unwrap();
        let as_found = disk.after_a_power_cut(&world.path("found"));
        let dir = world.path("found").join(id);
        let results = world.results();
        let recover = ["recover", dir.to_str().unwrap(), "-o", results.to_str().unwrap()];
        world.ringstat(&recover).succeeds();
        let recovered = world.files();
        let kept = recovered.samples().len();
        println!(
            "{kept} of {} samples on the disk, {at_thaw} at the thaw",
            of_ring.samples().len()
        );
        assert!(kept as u64 >= at_thaw, "{kept} of {at_thaw} samples");
        assert_eq!(recovered.samples(), &of_ring.samples()[..kept]);
        drop(as_found);
    });
}

#[test]
fn while_a_mirror_stands_still_no_ring_is_kept_for_it_that_nobody_wants() {
    with_own_mounts("freezing the mirror's disk", || {
        let world = World::new();
        let disk = LoopExt4::over(&world.mirrors(), "64m", &[]);
        let procfs = world.own_proc();
        let options = ["--interval", "2ms", "--max-samples", "10", "--sync-interval", "20ms"];
        let live = world.record(&[&options[..], &["--procfs"]].concat()).arg(procfs).start();
        let (rings, mirrors) = (world.run_dir(&world.rings()), world.run_dir(&world.mirrors()));
        world.wait_for_samples(&mirrors.join("00000.ring"), 20);
        let frozen = disk.freeze();
        wait_until_stopped_by_a_disk(live.pid(), MIRROR);
        let mut vmstat = File::options().append(true).open(world.path("proc/vmstat")).unwrap();
        let changes = 150;
        for change in 1..=changes {
            // A counter that there was not before.
            writeln!(vmstat, "new_{change} 1").unwrap();
            let ring = rings.join(format!("{change:05}.ring"));
            wait_until("the next segment", || ring.exists().then_some(()));
            // Only then: one sample may take several segments.
            world.wait_for_samples(&ring, 1);
        }
        let newest = format!("{changes:05}.ring");
        world.wait_for_samples(&rings.join(&newest), 20);
        // The watch has its own until it hears of the next.
        let mapped = wait_until("old rings to be let go of", || {
            let mapped = held(live.pid()).0;
            (mapped < 20).then_some(mapped)
        });
        println!("{changes} changes while the disk stood still: {mapped} maps of removed rings");
        assert!(is_stopped_by_a_disk(live.pid(), MIRROR));
        frozen.thaw();
        let taken = taken(&world, &rings.join(&newest));
        world.wait_for_samples(&mirrors.join(&newest), taken);
        wait_until_idle(live.pid(), MIRROR);
        live.kill();
        // The power goes as well.
        fs::remove_dir_all(world.rings()).unwrap();
        let files = entries(&mirrors).len();
        assert!(files < 20, "{files} files in the mirror");
        world.looking(&["recover", mirrors.to_str().unwrap()]).succeeds();
        let recovered = world.files();
        assert_eq!(recovered.samples().len(), 10);
        assert!(recovered.summary()["samples_taken"].int() >= taken);
        assert_eq!(recovered.summary()["samples_lost"].int(), 0);
        drop(disk);
    });
}

/// A benchmark that runs until it is told to end, and says when it does.
const BENCHMARK: &str = "until [ -e \"$W/end\" ]; do sleep 0.01; done; touch \"$W/ended\"; exit 4";

fn end_the_benchmark(world: &World) {
    world.write("end", "");
    wait_for_file(&world.path("ended"));
}

#[test]
fn a_freeze_of_the_results_disk_in_mid_run_is_not_noticed() {
    with_own_mounts("freezing the results' disk", || {
        let (world, elsewhere) = (World::new(), World::new());
        let disk = LoopExt4::over(&world.results(), "64m", &[]);
        let other = bystander(&elsewhere);
        let live = world.run_sh(&OFTEN, BENCHMARK).start();
        let ring = world.run_dir(&world.rings()).join("00000.ring");
        world.wait_for_samples(&ring, 50);
        let freeze = freeze_for_a_while(&disk, live.pid(), || {});
        end_the_benchmark(&world);
        live.end().has_status(4);
        let files = world.files();
        assert_eq!(files.metadata["exit_status"].int(), 4);
        assert!(files.last()["collection"]["at_stop"].bool());
        assert_no_tick_waited(&files, &files_of(&elsewhere, other), &freeze);
        world.assert_no_rings();
        drop(disk);
    });
}

#[test]
fn results_whose_disk_is_frozen_at_the_end_come_with_the_thaw() {
    with_own_mounts("freezing the results' disk", || {
        let world = World::new();
        let disk = LoopExt4::over(&world.results(), "64m", &[]);
        let mut live = world.run_sh(&OFTEN, BENCHMARK).start();
        let dir = world.run_dir(&world.rings());
        world.wait_for_samples(&dir.join("00000.ring"), 50);
        let frozen = disk.freeze();
        end_the_benchmark(&world);
        wait_until("words of where the samples are", || {
            live.said().contains(dir.to_str().unwrap()).then_some(())
        });
        assert!(live.said().contains("does not answer") && live.is_running());
        let info = world.info(&dir.join("00000.ring")).unwrap();
        assert!(info["summary"]["ended_cleanly"].bool(), "the last sample is taken");
        assert_eq!(entries(&world.results()), [""; 0]);
        frozen.thaw();
        live.end().has_status(4);
        let files = world.files();
        assert_eq!(files.metadata["exit_status"].int(), 4);
        assert!(files.last()["collection"]["at_stop"].bool());
        world.assert_no_rings();
    });
}

#[test]
fn a_kill_while_the_results_disk_is_frozen_costs_nothing() {
    with_own_mounts("freezing the results' disk", || {
        let world = World::new();
        let disk = LoopExt4::over(&world.results(), "64m", &[]);
        let live = world.run_sh(&OFTEN, BENCHMARK).start();
        let dir = world.run_dir(&world.rings());
        world.wait_for_samples(&dir.join("00000.ring"), 50);
        let frozen = disk.freeze();
        end_the_benchmark(&world);
        wait_until_stopped_by_a_disk(live.pid(), MAIN);
        live.signal(Signal::KILL);
        let taken = taken(&world, &dir.join("00000.ring"));
        frozen.thaw();
        live.end().has_status(-Signal::KILL.as_raw());
        let id = dir.file_name().unwrap().to_str().unwrap();
        world.looking(&["recover", id]).succeeds();
        let files = world.files();
        assert_eq!(files.samples().len() as u64, taken);
        assert_eq!(files.metadata["exit_status"].int(), 4);
        world.assert_no_rings();
    });
}

#[test]
fn the_final_files_do_not_wait_for_a_frozen_mirror() {
    with_own_mounts("freezing the mirror's disk", || {
        let world = World::new();
        let disk = LoopExt4::over(&world.mirrors(), "64m", &[]);
        let live = world.run_sh(&OFTEN, BENCHMARK).start();
        let mirror = world.run_dir(&world.mirrors());
        world.wait_for_samples(&mirror.join("00000.ring"), 50);
        let frozen = disk.freeze();
        wait_until_stopped_by_a_disk(live.pid(), MIRROR);
        end_the_benchmark(&world);
        // Said last of all: nothing but the kernel keeps it from ending.
        wait_until("words of what stays", || {
            live.said().contains(&format!("ringstat recover {}", mirror.display())).then_some(())
        });
        let files = world.files();
        assert_eq!(files.metadata["exit_status"].int(), 4);
        assert!(files.last()["collection"]["at_stop"].bool());
        let warnings = files.metadata["ringstat"]["warnings"].list();
        assert!(warnings.iter().any(|it| it.str().contains("not answered")), "{warnings:?}");
        assert_eq!(entries(&world.rings()), [""; 0]);
        assert!(is_stopped_by_a_disk(live.pid(), MIRROR));
        frozen.thaw();
        live.end().has_status(4);
        // What it could not remove is no second pair of files.
        world.looking(&["recover"]).succeeds();
        assert_eq!(world.files().metadata, files.metadata);
        world.assert_no_rings();
    });
}

#[test]
fn a_run_begins_and_ends_though_every_disk_is_frozen() {
    with_own_mounts("freezing the mirror's and the results' disk", || {
        let world = World::new();
        let disk = LoopExt4::over(&world.path("disk"), "64m", &[]);
        let [mirrors, results] = ["disk/mirrors", "disk/results"].map(|dir| world.path(dir));
        fs::create_dir(&results).unwrap();
        let options = [mirrors.to_str().unwrap(), results.to_str().unwrap()];
        let options = ["--mirror-dir", options[0], "--results-dir", options[1]];
        let cmd = world.run_sh(&[&OFTEN[..], &options].concat(), BENCHMARK);
        let frozen = disk.freeze();
        let live = cmd.start();
        wait_until("words of what is missing", || live.said().contains("no mirror").then_some(()));
        end_the_benchmark(&world);
        let dir = world.run_dir(&world.rings());
        wait_until("words of where the samples are", || {
            live.said().contains(dir.to_str().unwrap()).then_some(())
        });
        frozen.thaw();
        live.end().has_status(4);
        let files = Files::of(&results);
        assert!(files.last()["collection"]["at_stop"].bool());
        assert_eq!(entries(&world.rings()), [""; 0]);
        assert_eq!(entries(&mirrors), [""; 0]);
    });
}

/// Why the ring is in shared memory, and its mirror written by a thread of its own.
#[test]
fn a_plain_store_to_a_mapped_file_waits_for_the_thaw() {
    with_own_mounts("freezing a disk under a mapped file", || {
        let world = World::new();
        let disk = LoopExt4::over(&world.path("disk"), "16m", &[]);
        let memory = Tmpfs::over(&world.path("memory"), "size=1m");
        let bytes = Bytes(4096);
        let [on_disk, in_memory] = ["disk", "memory"].map(|dir| {
            let path = world.path(dir).join("file");
            fs::write(&path, [1; 4096]).unwrap();
            let file = File::options().read(true).write(true).open(path).unwrap();
            let mut map = WordMap::of_file(&file, bytes).unwrap();
            let _ = map.lock();
            map.words()[0].store(2, Ordering::Relaxed);
            // Written back, the page is write-protected: the next store asks the file system.
            file.sync_all().unwrap();
            Arc::new(map)
        });
        let store = |map: Arc<WordMap>, name: &str| {
            let thread = std::thread::Builder::new().name(name.to_owned());
            thread.spawn(move || map.words()[0].store(3, Ordering::Relaxed)).unwrap()
        };
        let own = rustix::process::getpid();
        let frozen = disk.freeze();
        let waits = store(on_disk.clone(), "rs-test-store");
        wait_until_stopped_by_a_disk(own, "rs-test-store");
        store(in_memory.clone(), "rs-test-free").join().unwrap();
        assert_eq!(in_memory.words()[0].load(Ordering::Relaxed), 3, "in memory it is done");
        std::thread::sleep(FREEZE);
        assert!(is_stopped_by_a_disk(own, "rs-test-store") && !waits.is_finished());
        assert_eq!(on_disk.words()[0].load(Ordering::Relaxed), 2, "on the disk it is not");
        frozen.thaw();
        waits.join().unwrap();
        assert_eq!(on_disk.words()[0].load(Ordering::Relaxed), 3);
        drop((on_disk, in_memory, memory));
    });
}
