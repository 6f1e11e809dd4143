//! How well the sampler keeps time while every CPU is busy, by scheduling policy, nice value and
//! pinning. The load is child processes at nice 0 that spin, as a benchmark's would.
//!
//! `cargo run --release -p ringstat-bench --bin lateness -- [SECONDS]` (per row; 10)
//!
//! Lateness is from the newest deadline at the wake-up to the first read of a sample that was
//! taken. Who wakes later than the next deadline has missed ticks: "gap" is the most that were
//! missed behind each other, and with the lateness says how long nothing was recorded.

use ringstat::{CpuChoice, HostSummary, Policy, Recorder, ThreadSettings};
use ringstat_bench::machine;
use std::error::Error;
use std::os::unix::process::parent_id;
use std::process::{Child, Command};
use std::time::Duration;

const INTERVALS_MS: [u64; 2] = [10, 1];
/// Busy processes for each CPU.
const LOADS: [usize; 2] = [1, 2];
const THREADS: [(Policy, Option<i32>); 5] = [
    (Policy::Idle, None),
    (Policy::Batch, None),
    (Policy::Other, None),
    (Policy::Other, Some(-20)),
    (Policy::Other, Some(19)),
];
/// First argument of the child processes.
const SPIN: &str = "--spin-while-parent-is";

fn main() -> Result<(), Box<dyn Error>> {
    let mut arguments = std::env::args().skip(1);
    let first = arguments.next();
    if first.as_deref() == Some(SPIN) {
        spin(arguments.next().ok_or("no parent")?.parse()?);
        return Ok(());
    }
    let seconds: f64 = first.map_or(Ok(10.0), |seconds| seconds.parse())?;
    let duration = Duration::try_from_secs_f64(seconds)?;
    let cpus = std::thread::available_parallelism()?.get();
    println!("{seconds} s per row; {}", machine());
    println!(
        "{:>7} {:>8} {:>6} {:>5} {:>4} {:>7} {:>7} {:>7} {:>6} {:>9} {:>9} {:>9} {:>7}",
        "busy",
        "interval",
        "policy",
        "nice",
        "cpu",
        "ticks",
        "missed",
        "%",
        "gap",
        "p50 us",
        "p99 us",
        "max us",
        "CPU us"
    );
    for load in LOADS {
        let _busy = Busy::new(load * cpus)?;
        // Until the scheduler has spread them.
        std::thread::sleep(Duration::from_millis(500));
        for interval_ms in INTERVALS_MS {
            for (policy, nice) in THREADS {
                for cpu in [CpuChoice::Unpinned, CpuChoice::Cpu(cpus - 1)] {
                    let thread = ThreadSettings { policy, nice, cpu };
                    let summary = record(interval_ms, thread, duration)?;
                    row(&format!("{load}/CPU"), interval_ms, nice, &summary);
                }
            }
        }
    }
    Ok(())
}

fn record(
    interval_ms: u64,
    thread: ThreadSettings,
    duration: Duration,
) -> Result<HostSummary, Box<dyn Error>> {
    let interval = Duration::from_millis(interval_ms);
    let dir = tempfile::tempdir_in("/dev/shm")?;
    let mut recorder = Recorder::builder()
        .interval(interval)
        .max_samples((duration.as_millis() as u64 / interval_ms) * 2 + 10)
        .no_mirror()
        .ring_dir(dir.path().join("ring"))
        .results_dir(dir.path())
        .thread(thread)
        .build()?;
    recorder.start()?;
    std::thread::sleep(duration);
    let recording = recorder.stop()?;
    let summary = recording.summary()?;
    recording.discard();
    Ok(summary)
}

fn row(busy: &str, interval_ms: u64, wanted_nice: Option<i32>, summary: &HostSummary) {
    let sampler = &summary.sampler;
    let nice = match wanted_nice {
        Some(nice) if nice != sampler.nice => "no".to_owned(),
        _ => sampler.nice.to_string(),
    };
    let cpu = sampler.cpu.map_or("-".to_owned(), |cpu| cpu.to_string());
    let gap = summary.gaps.iter().map(|gap| gap.ticks).max().unwrap_or_default();
    // Only the first gaps are listed.
    let more = if summary.gaps_total > summary.gaps.len() as u64 { "+" } else { "" };
    let percent = 100.0 * summary.ticks_missed as f64 / summary.ticks_elapsed.max(1) as f64;
    let late = summary.cost.lateness_us;
    println!(
        "{busy:>7} {:>8} {:>6} {nice:>5} {cpu:>4} {:>7} {:>7} {percent:>7.2} {:>6} {:>9.0} {:>9.0} \
         {:>9.0} {:>7.1}",
        format!("{interval_ms} ms"),
        sampler.policy,
        summary.ticks_elapsed,
        summary.ticks_missed,
        format!("{gap}{more}"),
        late.p50,
        late.p99,
        late.max,
        summary.cost.cpu_us_per_sample,
    );
}

/// Processes that keep CPUs busy until this is dropped.
struct Busy(Vec<Child>);

impl Busy {
    fn new(processes: usize) -> Result<Busy, Box<dyn Error>> {
        let mut busy = Busy(Vec::new());
        let program = std::env::current_exe()?;
        let own = std::process::id().to_string();
        for _ in 0..processes {
            busy.0.push(Command::new(&program).args([SPIN, &own]).spawn()?);
        }
        Ok(busy)
    }
}

impl Drop for Busy {
    fn drop(&mut self) {
        for child in &mut self.0 {
            // It may have ended; there is nothing else to do about it.
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

/// Spins; ends when the parent has, even if it was killed.
fn spin(parent: u32) {
    let mut word = 1_u64;
    while parent_id() == parent {
        for _ in 0..10_000_000 {
            word = std::hint::black_box(word.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1);
        }
    }
}
