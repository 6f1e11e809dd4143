//! The sampler as a whole, on fake `/proc` trees and a clock that the test drives: which samples
//! are taken, and that nothing is lost or misattributed whatever becomes of the host.

mod agreement;
mod changes;
mod clocks;
mod hotplug;
mod meanwhile;
mod neighbours;
mod power;
mod standstill;

use super::SamplerSettings;
use super::clock::{Clock, Control, Wake};
use super::copy::Original;
use super::mirror::{Mirror, MirrorSettings};
use super::plan::SegmentPlan;
use super::segments::{Kept, file_name};
use super::sleeper::Sleeper;
use super::storage::Medium;
use super::thread::{CpuChoice, Policy, ThreadSettings};
use crate::decode::{Decoder, TimeSeriesData, TimeSeriesSample};
use crate::ring::{Header, Layout, MIN_INTERVAL_NS, Ring, Segment, WordMap, description_check};
use crate::source::SOURCES;
use crate::units::{Bytes, Seq, Words};
use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;
use uuid::Uuid;

const START_NS: u64 = 5_000_000_000;
const INTERVAL_NS: u64 = 1_000_000_000;
/// 2026-01-02T03:04:05Z.
const WALL_NS: u64 = 1_767_323_045_000_000_000;

/// Wakes when and as late as the test says, and lets it change the host before each wake-up.
struct FakeClock<F> {
    now_ns: Arc<AtomicU64>,
    wakes: u64,
    /// Gets the number of the wake-up, from 1; returns how late it is, or `None` to stop.
    script: F,
}

impl<F: FnMut(u64) -> Option<u64> + Send> Clock for FakeClock<F> {
    fn monotonic_ns(&self) -> u64 {
        self.now_ns.load(Ordering::Relaxed)
    }

    fn realtime_ns(&self) -> u64 {
        self.monotonic_ns() - START_NS + WALL_NS
    }

    fn thread_cpu_ns(&self) -> u64 {
        self.wakes * 1000
    }

    fn wait_until(&mut self, deadline_ns: u64) -> Wake {
        self.wakes += 1;
        match (self.script)(self.wakes) {
            Some(late_ns) => {
                self.now_ns.store(deadline_ns + late_ns, Ordering::Relaxed);
                Wake::Deadline
            }
            None => Wake::Stop,
        }
    }
}

/// A host that the test makes up.
struct Host {
    dir: tempfile::TempDir,
}

impl Host {
    fn new() -> Host {
        let host = Host { dir: tempfile::tempdir().unwrap() };
        host.write("vmstat", "nr_free_pages 10\npgpgin 20\n");
        host.write("meminfo", "MemTotal:       1000 kB\nHugePages_Total:       3\n");
        host.write("loadavg", "0.52 1.00 10.05 2/345 678\n");
        host.disks(&[(8, 0, "sda", 1)]);
        host.interfaces(&[("lo", 7)]);
        host
    }

    fn path(&self) -> &Path {
        self.dir.path()
    }

    fn write(&self, file: &str, text: &str) {
        let path = self.path().join(file);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }

    /// Major, minor, name, and what all its counters say.
    fn disks(&self, disks: &[(u32, u32, &str, u64)]) {
        let mut text = String::new();
        for (major, minor, name, value) in disks {
            let values = format!(" {value}").repeat(17);
            writeln!(text, "{major:4} {minor:7} {name}{values}").unwrap();
        }
        self.write("diskstats", &text);
    }

    fn interfaces(&self, interfaces: &[(&str, u64)]) {
        let mut text = String::from(
            "Inter-|   Receive                                                |  Transmit\n \
             face |bytes    packets errs drop fifo frame compressed multicast|bytes    packets errs \
             drop fifo colls carrier compressed\n",
        );
        for (name, value) in interfaces {
            let values = format!(" {value}").repeat(16);
            writeln!(text, "{name:>6}:{values}").unwrap();
        }
        self.write("net/dev", &text);
    }

    fn settings(&self, max_samples: u64) -> SamplerSettings {
        SamplerSettings {
            sources: SOURCES.to_vec(),
            procfs: self.path().to_owned(),
            thread: ThreadSettings { policy: Policy::Other, nice: None, cpu: CpuChoice::Unpinned },
            lock_process: false,
            plan: plan(max_samples),
            mirror: None,
        }
    }

    /// Records in private memory by `script`, and what is then left.
    fn record(&self, max_samples: u64, script: impl FnMut(u64) -> Option<u64> + Send) -> Vec<Kept> {
        record(self.settings(max_samples), script)
    }
}

/// A segment that has nothing yet, with room for records of ten words.
pub fn original(description: Vec<u8>, entries: u64, slots: u64) -> Original {
    let length = Bytes(description.len() as u64);
    let layout = Layout::new(length, entries, Words(10), slots).unwrap();
    let header = Header {
        layout,
        description_check: description_check(&description),
        max_samples: slots - 1,
        run_id: Uuid::from_u128(7),
        segment: 0,
        first_seq: Seq(0),
        start_wall_ns: 1,
        start_monotonic_ns: 1,
        interval_ns: MIN_INTERVAL_NS,
        boot_id: Uuid::nil(),
    };
    let map = WordMap::private(layout.file_bytes()).unwrap();
    let segment = Segment::create(Arc::new(map), header, &description).unwrap();
    Original { segment: Arc::new(segment), description: Arc::new(description) }
}

fn plan(max_samples: u64) -> SegmentPlan {
    let mut plan = SegmentPlan::in_memory();
    plan.run_id = Uuid::from_u128(0x0123_4567_89ab_cdef);
    plan.interval_ns = INTERVAL_NS;
    plan.max_samples = max_samples;
    plan.description.hostname = "fake".to_owned();
    plan
}

fn record(settings: SamplerSettings, script: impl FnMut(u64) -> Option<u64> + Send) -> Vec<Kept> {
    let now_ns = Arc::new(AtomicU64::new(START_NS));
    let clock = FakeClock { now_ns, wakes: 0, script };
    let (sleeper, _) = Sleeper::begin(settings, clock, Control::default(), None, None).unwrap();
    let end = sleeper.run();
    assert_eq!(end.notes, Vec::<String>::new());
    end.segments
}

fn decoder(segments: &[Kept]) -> Decoder {
    let rings = segments
        .iter()
        .map(|kept| Ring::new(Box::new(kept.segment.clone()), Path::new("memory")).unwrap());
    Decoder::new(rings.collect()).unwrap()
}

fn data(segments: &[Kept]) -> TimeSeriesData {
    let mut decoder = decoder(segments);
    assert_eq!(decoder.summary().samples_lost, 0);
    assert_eq!(decoder.summary().ticks_inconsistent, 0);
    decoder.data().unwrap()
}

fn samples(segments: &[Kept]) -> Vec<TimeSeriesSample> {
    data(segments).samples_by_host.swap_remove("fake").unwrap()
}

/// Name and one counter of every disk.
fn disks(sample: &TimeSeriesSample) -> Vec<(&str, i128)> {
    let disks = sample.diskstats.as_ref().unwrap();
    disks.iter().map(|disk| (disk.device_name.as_str(), disk.time_flushing_ms.unwrap())).collect()
}

/// So many wake-ups in time, then the stop.
fn on_time(ticks: u64) -> impl FnMut(u64) -> Option<u64> + Send {
    move |wake| (wake <= ticks).then_some(0)
}

#[test]
fn every_tick_and_the_stop_have_a_sample_with_exact_times() {
    let host = Host::new();
    let segments = host.record(100, |wake| match wake {
        1 => Some(250_000),
        2 => Some(3 * INTERVAL_NS + 1000),
        3 => Some(0),
        _ => None,
    });
    let data = data(&segments);
    assert_eq!((data.start_time.as_str(), data.num_samples), ("2026-01-02T03:04:05Z", 5));
    let samples = &data.samples_by_host["fake"];
    let collected: Vec<_> = samples
        .iter()
        .map(|sample| {
            let of = sample.collection.as_ref().unwrap();
            (of.tick, of.lateness_us, of.missed_ticks, of.at_stop, of.extra)
        })
        .collect();
    assert_eq!(
        collected,
        [
            (0, 0.0, 0, false, false),
            (1, 250.0, 0, false, false),
            // Due at 2, awake at 5: ticks 2, 3 and 4 are missed, and not made up for.
            (5, 1.0, 3, false, false),
            (6, 0.0, 3, false, false),
            (6, 0.0, 3, true, true),
        ]
    );
    let summary = decoder(&segments).summary().clone();
    assert_eq!((summary.samples_taken, summary.ticks_elapsed, summary.ticks_missed), (5, 7, 3));
    assert!(summary.ended_cleanly);
    assert_eq!(summary.gaps.len(), 1);
    assert_eq!((summary.gaps[0].first_tick, summary.gaps[0].ticks), (2, 3));
    assert_eq!(samples[2].timestamp, "2026-01-02T03:04:10Z");
    let sample = &samples[0];
    assert_eq!(sample.vmstat.as_ref().unwrap()["pgpgin"], 20);
    assert_eq!(sample.meminfo.as_ref().unwrap()["HugePages_Total"], 3);
    assert_eq!(sample.loadavg.as_ref().unwrap().load_15min, 10.05);
    assert_eq!(disks(sample), [("sda", 1)]);
    assert_eq!(sample.netdev.as_ref().unwrap()[0].tx_compressed, 7);
    assert_eq!(sample.errors, None);
}

#[test]
fn the_newest_samples_are_kept_and_the_others_counted() {
    let host = Host::new();
    let segments = host.record(4, on_time(20));
    let summary = decoder(&segments).summary().clone();
    assert_eq!((summary.samples_taken, summary.samples_kept), (22, 4));
    assert_eq!((summary.samples_overwritten, summary.samples_lost), (18, 0));
    let ticks: Vec<u64> =
        samples(&segments).iter().map(|sample| sample.collection.as_ref().unwrap().tick).collect();
    assert_eq!(ticks, [18, 19, 20, 20]);
}

#[test]
fn the_mirror_has_what_the_ring_has() {
    let host = Host::new();
    let mirror_dir = tempfile::tempdir().unwrap();
    let mut settings = host.settings(50);
    settings.plan.mirror_dir = Some(mirror_dir.path().to_owned());
    let mirror = Mirror::start(MirrorSettings {
        dir: mirror_dir.path().to_owned(),
        interval: Duration::from_nanos(INTERVAL_NS),
        sync_interval: Duration::from_millis(10),
        copy_interval: Duration::from_millis(10),
        max_samples: 50,
    })
    .unwrap();
    let now_ns = Arc::new(AtomicU64::new(START_NS));
    let script = |wake: u64| {
        host.disks(&[(8, 0, "sda", wake), (253, wake as u32, &format!("dm-{wake}"), wake)]);
        if wake == 40 {
            host.write("vmstat", "another 1\n");
        }
        (wake <= 200).then_some(0)
    };
    let clock = FakeClock { now_ns, wakes: 0, script };
    let (sleeper, _) =
        Sleeper::begin(settings, clock, Control::default(), Some(mirror.feed()), None).unwrap();
    let end = sleeper.run();
    let mirrored = mirror.finish(Duration::from_secs(20));
    assert_eq!((mirrored.error, mirrored.complete), (None, true));
    let rings =
        (0..2).map(|number| Ring::open(&mirror_dir.path().join(file_name(number))).unwrap());
    let mut copy = Decoder::new(rings.collect()).unwrap();
    let copied = copy.data().unwrap();
    let recorded = data(&end.segments);
    assert_eq!(copied.samples_by_host, recorded.samples_by_host);
    assert_eq!(recorded.num_samples, 50);
}

#[test]
fn a_ring_without_a_place_is_kept_in_private_memory_with_a_note() {
    let host = Host::new();
    let mut settings = host.settings(5);
    settings.plan.ring_dir = Some(PathBuf::from("/proc/nowhere"));
    let now_ns = Arc::new(AtomicU64::new(START_NS));
    let clock = FakeClock { now_ns, wakes: 0, script: on_time(2) };
    let (sleeper, started) =
        Sleeper::begin(settings, clock, Control::default(), None, None).unwrap();
    assert_eq!(started.notes.len(), 1);
    assert!(started.notes[0].contains("private memory"), "{:?}", started.notes);
    let end = sleeper.run();
    let decoder = decoder(&end.segments);
    assert_eq!(decoder.summary().samples_kept, 4);
    assert_eq!(decoder.summary().sampler.storage, Medium::PrivateMemory.name());
}

/// Writes `tests/golden/v1.ring`, once for each version of the format; `tests/golden.rs` reads it.
#[test]
#[ignore = "writes a file that is kept for ever"]
fn write_the_golden_ring() {
    let host = Host::new();
    let golden = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden");
    let dir = tempfile::tempdir().unwrap();
    let mut settings = host.settings(4);
    settings.procfs = host.path().to_owned();
    settings.plan.ring_dir = Some(dir.path().to_owned());
    settings.plan.boot_id = Uuid::from_u128(0xb007);
    settings.plan.description.run.benchmark_type = "training".to_owned();
    settings.plan.description.run.mode = "run".to_owned();
    settings.plan.description.run.command = vec!["fio".to_owned(), "a job".to_owned()];
    record(settings, |wake| {
        match wake {
            2 => host.disks(&[(8, 0, "sda", 2), (8, 1, "sda1", 3)]),
            3 => host.write("loadavg", "broken\n"),
            4 => host.interfaces(&[("lo", 8), ("eth0:1", u64::MAX)]),
            _ => {}
        }
        (wake <= 5).then_some(wake * 1000)
    });
    fs::create_dir_all(&golden).unwrap();
    fs::copy(dir.path().join(file_name(0)), golden.join("v1.ring")).unwrap();
}
