//! Devices that come and go while they are recorded: real ones, loop devices and veth interfaces,
//! by the thousand. The test keeps a log of what it does, and every row of every sample must be
//! of the device whose name it has. Needs root.
#![allow(clippy::unwrap_used, clippy::expect_used)] // A panic is how a test fails.

mod common;

use common::links::Links;
use common::lives::{Counts, Life, Lives, Span};
use common::loops::{Loop, MAX_SECTORS, SECTOR_BYTES};
use common::random::Random;
use common::{World, entries, rounds, seed, with_own_mounts, with_own_network};
use ringstat::ring::Ring;
use ringstat::{Recorder, TimeSeriesData, TimeSeriesSample};
use std::collections::VecDeque;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

/// Threads that make loop devices: the kernel takes some 50 ms to remove one.
const LOOP_THREADS: u64 = 6;
/// Loop devices of each that are there at a time: all together more than a page of text.
const LOOPS_AT_A_TIME: usize = 14;

/// Held by the test that makes loop devices: their numbers are those of the process, and each test
/// takes all that it finds under these for its own.
static OWN_LOOPS: Mutex<()> = Mutex::new(());

/// The numbers of this process's loop devices begin here.
fn first_loop() -> u32 {
    100_000 + std::process::id() % 4000 * 200
}

/// Adds and removes loop devices until there were `enough`, oldest first, and writes to them. A number is used again
/// as soon as its device is gone, for one with other counts.
fn churn_loops(thread: u64, enough: impl Fn(u64) -> bool, mut random: Random) -> Vec<Life> {
    let mut free: VecDeque<u32> = (0..LOOPS_AT_A_TIME as u32 + 2)
        .map(|number| first_loop() + thread as u32 * 32 + number)
        .collect();
    let mut log: Vec<Life> = Vec::new();
    let mut alive: VecDeque<(usize, u32, Loop)> = VecDeque::new();
    let write = |log: &mut Vec<Life>, at: usize, device: &mut Loop, sectors| {
        let (span, ()) = Span::of(|| device.write(sectors));
        let [writes, sectors] = device.done();
        log[at].counts.push((span, [writes, sectors, 0, 0]));
    };
    let mut is_over = false;
    for made in 1.. {
        if is_over {
            break;
        }
        is_over = enough(made);
        let number = free.pop_front().unwrap();
        let (span, mut device) = Span::of(|| Loop::add(number));
        let at = log.len();
        log.push(Life::new(Loop::name(number), span));
        if !random.once_in(8) {
            device.attach((MAX_SECTORS + random.below(1000)) * SECTOR_BYTES);
            for _ in 0..random.below(3) + 1 {
                write(&mut log, at, &mut device, random.below(MAX_SECTORS) + 1);
            }
            if let Some((at, _, device)) = alive.back_mut().filter(|(_, _, old)| old.is_attached())
            {
                write(&mut log, *at, device, random.below(MAX_SECTORS) + 1);
            }
        }
        alive.push_back((at, number, device));
        while alive.len() > LOOPS_AT_A_TIME || (is_over && !alive.is_empty()) {
            let (at, number, device) = alive.pop_front().unwrap();
            log[at].gone = Some(Span::of(|| device.remove()).0);
            free.push_back(number);
        }
    }
    log
}

/// The interfaces of one veth pair, by their places in the log.
struct Pair {
    index: u32,
    first: usize,
    names: [String; 2],
    frames: u64,
    bytes: u64,
}

/// Makes and removes veth pairs until there were `enough`, one by one and many at once, and sends
/// frames through them. Some take the names of pairs that are gone.
fn churn_links(enough: impl Fn(u64) -> bool, mut random: Random) -> Vec<Life> {
    let mut links = Links::new();
    let mut log: Vec<Life> = Vec::new();
    let mut free: Vec<[String; 2]> = Vec::new();
    let mut alive: VecDeque<(u32, Vec<Pair>)> = VecDeque::new();
    let mut made = 0;
    for group in 1.. {
        if enough(made) {
            break;
        }
        let many = if group % 12 == 5 { 60 } else { random.below(24) + 1 };
        let mut batch = Vec::new();
        for _ in 0..many {
            made += 1;
            let names = match free.is_empty() || !random.once_in(12) {
                true => [format!("a{made}"), format!("b{made}")],
                false => free.swap_remove(random.below(free.len() as u64) as usize),
            };
            let (span, index) = Span::of(|| links.add_pair(&names[0], &names[1], group));
            let first = log.len();
            log.extend(names.iter().map(|name| Life::new(name, span)));
            batch.push(Pair { index, first, names, frames: 0, bytes: 0 });
        }
        alive.push_back((group, batch));
        for pair in alive.iter_mut().flat_map(|(_, batch)| batch) {
            let (frames, bytes) = (random.below(4), random.below(1400) + 60);
            if frames > 0 {
                let (span, ()) = Span::of(|| links.send(pair.index, frames, bytes));
                pair.frames += frames;
                pair.bytes += frames * bytes;
                log[pair.first].counts.push((span, [0, 0, pair.frames, pair.bytes]));
                log[pair.first + 1].counts.push((span, [pair.frames, pair.bytes, 0, 0]));
            }
        }
        if alive.len() > 3 {
            let (group, batch) = alive.pop_front().unwrap();
            let all_at_once = batch.len() > 3;
            let (of_all, ()) = Span::of(|| {
                if all_at_once {
                    links.delete_group(group);
                }
            });
            for pair in batch {
                let span = match all_at_once {
                    true => of_all,
                    false => Span::of(|| links.delete(pair.index)).0,
                };
                log[pair.first].gone = Some(span);
                log[pair.first + 1].gone = Some(span);
                free.push(pair.names);
            }
        }
    }
    log
}

fn window(sample: &TimeSeriesSample) -> Span {
    let of = sample.collection.as_ref().unwrap();
    let window_ns = (of.window_us * 1000.0).ceil() as u64;
    Span { begin_ns: of.monotonic_ns, end_ns: of.monotonic_ns + window_ns }
}

/// This process's loop devices in a sample; there may be others on the host.
fn loops(sample: &TimeSeriesSample) -> Vec<(&str, Counts)> {
    let ours = first_loop()..first_loop() + 200;
    let number = |name: &str| name.strip_prefix("loop")?.parse::<u32>().ok();
    let disks = sample.diskstats.as_ref().unwrap().iter();
    disks
        .filter(|disk| number(&disk.device_name).is_some_and(|number| ours.contains(&number)))
        .map(|disk| {
            let counts = [disk.writes_completed, disk.sectors_written].map(|count| count as u64);
            (disk.device_name.as_str(), [counts[0], counts[1], 0, 0])
        })
        .collect()
}

fn links(sample: &TimeSeriesSample) -> Vec<(&str, Counts)> {
    let interfaces = sample.netdev.as_ref().unwrap().iter();
    interfaces
        .filter(|interface| interface.interface_name != "lo")
        .map(|of| {
            let counts = [of.rx_packets, of.rx_bytes, of.tx_packets, of.tx_bytes];
            (of.interface_name.as_str(), counts.map(|count| count as u64))
        })
        .collect()
}

/// Rings where they are by default, in memory.
fn memory() -> tempfile::TempDir {
    tempfile::Builder::new().prefix("ringstat-test-").tempdir_in("/dev/shm").unwrap()
}

/// The one time series in `dir`.
fn timeseries(dir: &Path) -> TimeSeriesData {
    let names = entries(dir);
    let name = names.iter().find(|name| name.ends_with("_timeseries.json")).unwrap();
    serde_json::from_slice(&std::fs::read(dir.join(name)).unwrap()).unwrap()
}

/// Segments of a kept run that another one has followed, which change no more, and those of them whose
/// dictionary is full: the others had no room for a record.
fn ended_segments(dir: &Path) -> (usize, usize) {
    let mut names: Vec<String> =
        entries(dir).into_iter().filter(|name| name.ends_with(".ring")).collect();
    names.sort();
    names.pop();
    let is_full = |name: &&String| {
        let ring = Ring::open(&dir.join(name)).unwrap();
        let last = ring.header().layout.entries as u32 - 1;
        ring.entry(last).unwrap().is_some()
    };
    (names.len(), names.iter().filter(is_full).count())
}

/// Whether one has ended since its dictionary was full, and one since its records were.
fn both_have_run_out((ended, full): (usize, usize)) -> bool {
    full >= 1 && ended > full
}

#[test]
fn every_value_belongs_to_the_device_that_it_is_listed_under() {
    with_own_network("making network interfaces and loop devices", || {
        let _own = OWN_LOOPS.lock().unwrap_or_else(PoisonError::into_inner);
        let world = World::new();
        let seed = seed();
        let options = ["--procfs", "/proc", "--sources", "diskstats,netdev", "--keep-ring"];
        // More than a machine takes that is not very busy; on one that is, the oldest are overwritten.
        let max_samples = rounds(4000, 12_000).to_string();
        let rings = memory();
        let pace = ["--interval", "50ms", "--max-samples", &max_samples];
        let options = [&options[..], &pace, &["--ring-dir", rings.path().to_str().unwrap()]];
        let live = world.record(&options.concat()).start();
        let dir = world.run_dir(rings.path());
        let is_over = &AtomicBool::new(false);
        let mut disks = Vec::new();
        let mut interfaces = Vec::new();
        std::thread::scope(|scope| {
            let threads: Vec<_> = (0..LOOP_THREADS)
                .map(|thread| {
                    let random = Random(seed ^ (thread + 1));
                    scope.spawn(move || churn_loops(thread, |_| is_over.load(Relaxed), random))
                })
                .collect();
            // Until, beside, a segment had no room for more names and one none for more devices.
            let enough = |made| {
                let have_run_out = || both_have_run_out(ended_segments(&dir));
                made >= rounds(3000, 16_000) && (have_run_out() || made > 30_000)
            };
            interfaces = churn_links(enough, Random(seed));
            is_over.store(true, Relaxed);
            for thread in threads {
                disks.extend(thread.join().unwrap());
            }
        });
        live.signal(rustix::process::Signal::INT);
        // Missed ticks are a matter of the machine.
        let not_said =
            ["has errors", "have errors", "please report", "cannot", "no ring", "no mirror"];
        live.end().has_status(0).does_not_say(&not_said);
        let (ended, full) = ended_segments(&dir);
        let data = timeseries(&world.results());
        let summary = data.ringstat.as_ref().unwrap().hosts.values().next().unwrap();
        assert_eq!((summary.samples_lost, summary.ticks_inconsistent), (0, 0));
        let (mut disks, mut interfaces) = (Lives::new(disks), Lives::new(interfaces));
        for sample in &data.samples_by_host[0] {
            assert_eq!(sample.errors, None);
            disks.check(window(sample), &loops(sample));
            interfaces.check(window(sample), &links(sample));
        }
        let changes = disks.changes() + interfaces.changes();
        println!(
            "{changes} changes; {} and {} names reused; {} samples, {} overwritten; {} ticks missed",
            disks.reused(),
            interfaces.reused(),
            summary.samples_taken,
            summary.samples_overwritten,
            summary.ticks_missed
        );
        println!("loop {:?}\nveth {:?}", disks.tally(), interfaces.tally());
        println!("{} segments, {full} of those before the last with a full dictionary", ended + 1);
        assert!(changes > 10_000);
        for lives in [&disks, &interfaces] {
            let tally = lives.tally();
            assert!(lives.reused() > 100 && tally.exact > 3000 && tally.seen > 300, "{tally:?}");
        }
        assert!(both_have_run_out((ended, full)), "room for records and for names has run out");
        assert!(ended < 9, "{ended} segments and one are too many to keep for so few changes");
    });
}

/// The kernel gives its list of disks page by page and counts devices to find its place again:
/// when one that is before it goes away between two pages, the next one is not in the text.
#[test]
fn a_device_is_not_left_out_because_another_one_goes() {
    with_own_mounts("making loop devices", || {
        let _own = OWN_LOOPS.lock().unwrap_or_else(PoisonError::into_inner);
        let world = World::new();
        let seed = seed();
        let rings = memory();
        let recorder = Recorder::builder()
            .interval(Duration::from_millis(1))
            .max_samples(rounds(6000, 60_000))
            .ring_dir(rings.path())
            .no_mirror()
            .results_dir(world.results())
            .sources(&["diskstats"])
            .build();
        let mut recorder = recorder.unwrap();
        recorder.start().unwrap();
        let recorder_now = &recorder;
        let mut lives = Vec::new();
        std::thread::scope(|scope| {
            let threads: Vec<_> = (0..LOOP_THREADS)
                .map(|thread| {
                    let random = Random(seed ^ (thread + 1));
                    let samples = || recorder_now.progress().0;
                    let enough =
                        move |made| made >= rounds(50, 400) && samples() >= rounds(2500, 20_000);
                    scope.spawn(move || churn_loops(thread, enough, random))
                })
                .collect();
            lives.extend(threads.into_iter().flat_map(|thread| thread.join().unwrap()));
        });
        let recording = recorder.stop().unwrap();
        let data = recording.data().unwrap();
        recording.discard();
        let mut lives = Lives::new(lives);
        for sample in &data.samples_by_host[0] {
            assert_eq!(sample.errors, None);
            lives.check(window(sample), &loops(sample));
        }
        println!("{} changes; {:?}", lives.changes(), lives.tally());
        // Each thread has made and removed so many.
        assert!(lives.changes() as u64 >= LOOP_THREADS * 2 * (rounds(50, 400) - 1));
        assert!(lives.tally().seen > 0 && lives.tally().exact > 0);
    });
}
