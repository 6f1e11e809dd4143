//! How well the sampler keeps time, by scheduling policy, while the host is idle and while every
//! CPU is busy.
//!
//! Lateness is from the newest deadline at the wake-up to the first read of a sample that was
//! taken. Who wakes later than the next deadline has missed ticks: "gap" is the most that were
//! missed behind each other, and with the lateness says how long nothing was recorded.

use super::cold::seconds;
use super::{Attendant, Busy, MeasureError, Scratch};
use crate::decode::{HostSummary, Spread};
use crate::run::Recorder;
use crate::sampler::thread::ThreadSettings;
use serde::Serialize;
use std::fmt;
use std::time::Duration;

/// What is to be measured: every combination.
#[derive(Debug, Clone)]
pub struct LatenessPlan {
    /// Busy processes for each CPU; 0 for an idle host.
    pub busy_per_cpu: Vec<usize>,
    /// Times between two samples.
    pub intervals: Vec<Duration>,
    /// How the sampler's thread is run.
    pub threads: Vec<ThreadSettings>,
    /// How long each of them is recorded.
    pub time: Duration,
}

/// How well the sampler has kept time.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Lateness {
    /// Busy processes for each CPU.
    pub busy_per_cpu: usize,
    /// Time between two samples.
    pub interval_seconds: f64,
    /// Scheduling policy in force.
    pub policy: String,
    /// Nice value in force.
    pub nice: i32,
    /// Another nice value was asked for.
    pub nice_refused: bool,
    /// The CPU that it was pinned to.
    pub cpu: Option<usize>,
    /// Ticks that went by.
    pub ticks_elapsed: u64,
    /// Those without a sample.
    pub ticks_missed: u64,
    /// The most of these behind each other, of the gaps that are listed.
    pub longest_gap_ticks: u64,
    /// Of the samples that were taken.
    pub lateness_us: Spread,
    /// CPU time of the sampler's thread per sample.
    pub cpu_us_per_sample: f64,
    /// The same as a share of one CPU.
    pub cpu_percent: f64,
}

/// How well the sampler has kept time, row by row.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(transparent)]
pub struct LatenessTable(pub Vec<Lateness>);

impl Lateness {
    fn of(
        busy_per_cpu: usize,
        interval: Duration,
        thread: ThreadSettings,
        summary: &HostSummary,
    ) -> Lateness {
        let HostSummary { sampler, cost, gaps, .. } = summary;
        Lateness {
            busy_per_cpu,
            interval_seconds: interval.as_secs_f64(),
            policy: sampler.policy.clone(),
            nice: sampler.nice,
            nice_refused: thread.nice.is_some_and(|nice| nice != sampler.nice),
            cpu: sampler.cpu,
            ticks_elapsed: summary.ticks_elapsed,
            ticks_missed: summary.ticks_missed,
            longest_gap_ticks: gaps.iter().map(|gap| gap.ticks).max().unwrap_or_default(),
            lateness_us: cost.lateness_us,
            cpu_us_per_sample: cost.cpu_us_per_sample,
            cpu_percent: cost.cpu_percent,
        }
    }

    /// Ticks without a sample, %.
    pub fn missed_percent(&self) -> f64 {
        100.0 * self.ticks_missed as f64 / self.ticks_elapsed.max(1) as f64
    }
}

/// Measures.
///
/// # Errors
/// [`MeasureError`].
pub fn lateness(plan: &LatenessPlan, attendant: &Attendant) -> Result<LatenessTable, MeasureError> {
    let rows = plan.busy_per_cpu.len() * plan.intervals.len() * plan.threads.len();
    let cpus = std::thread::available_parallelism()?.get();
    let each = plan.time.as_secs_f64();
    attendant.tell(format_args!(
        "lateness idle and under full load: {rows} recordings, about {:.0} s",
        each * rows as f64
    ));
    let mut table = Vec::new();
    for &busy_per_cpu in &plan.busy_per_cpu {
        let _busy = Busy::new(busy_per_cpu * cpus, attendant)?;
        for &interval in &plan.intervals {
            for &thread in &plan.threads {
                let summary = record(interval, plan.time, thread, false, attendant)?;
                table.push(Lateness::of(busy_per_cpu, interval, thread, &summary));
            }
        }
    }
    Ok(LatenessTable(table))
}

/// Records for a while and throws the samples away.
pub(super) fn record(
    interval: Duration,
    time: Duration,
    thread: ThreadSettings,
    mirrored: bool,
    attendant: &Attendant,
) -> Result<HostSummary, MeasureError> {
    let scratch = Scratch::new(mirrored)?;
    let ticks = time.as_secs_f64() / interval.as_secs_f64();
    let builder = Recorder::builder()
        .interval(interval)
        // All of them, so that percentiles are those of all.
        .max_samples(ticks as u64 + ticks as u64 / 10 + 10)
        .ring_dir(scratch.ring_dir())
        .results_dir(scratch.results_dir())
        .lock_process(true)
        .thread(thread);
    let builder = match scratch.mirror_dir() {
        Some(dir) => builder.mirror_dir(dir),
        None => builder.no_mirror(),
    };
    let mut recorder = builder.build()?;
    recorder.start()?;
    let waited = attendant.interrupt.wait(time);
    let recording = recorder.stop()?;
    let summary = recording.summary();
    recording.discard();
    waited?;
    Ok(summary?)
}

impl fmt::Display for LatenessTable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(
            f,
            "{:>6} {:>8} {:>6} {:>5} {:>4} {:>6} {:>6} {:>7} {:>6} {:>9} {:>9} {:>9} {:>7}",
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
        )?;
        for row in &self.0 {
            let busy = match row.busy_per_cpu {
                0 => "idle".to_owned(),
                busy => format!("{busy}/CPU"),
            };
            let nice = if row.nice_refused { "no".to_owned() } else { row.nice.to_string() };
            writeln!(
                f,
                "{busy:>6} {:>8} {:>6} {nice:>5} {:>4} {:>6} {:>6} {:>7.2} {:>6} {:>9.0} {:>9.0} \
                 {:>9.0} {:>7.1}",
                seconds(Duration::from_secs_f64(row.interval_seconds)),
                row.policy,
                row.cpu.map_or("-".to_owned(), |cpu| cpu.to_string()),
                row.ticks_elapsed,
                row.ticks_missed,
                row.missed_percent(),
                row.longest_gap_ticks,
                row.lateness_us.p50,
                row.lateness_us.p99,
                row.lateness_us.max,
                row.cpu_us_per_sample,
            )?;
        }
        Ok(())
    }
}
