//! Recording at the ends of what it is made for: a tick every millisecond for a minute, and a run
//! of ten hours.

use super::cold::{StartRecorder, seconds};
use super::lateness::record;
use super::process::{Process, Scratch};
use super::usage::UsageSource;
use super::{Attendant, MeasureError};
use crate::decode::Spread;
use crate::sampler::thread::ThreadSettings;
use nix::sys::resource::{Usage as Used, UsageWho, getrusage};
use nix::sys::time::TimeValLike;
use serde::Serialize;
use std::fmt;
use std::time::Duration;

/// What came of a high rate.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct HighRate {
    /// Time between two ticks.
    pub interval_seconds: f64,
    /// Ticks that went by.
    pub ticks_elapsed: u64,
    /// Those that a sample was taken at.
    pub ticks_taken: u64,
    /// Of these.
    pub lateness_us: Spread,
    /// CPU time of the sampler's thread per sample.
    pub cpu_us_per_sample: f64,
    /// The same as a share of one CPU.
    pub sampler_cpu_percent: f64,
    /// Share of one CPU of the whole process, with the durable copy.
    pub process_cpu_percent: f64,
    /// The load over the last minute of it.
    pub load_1m: f64,
}

/// Records so many ticks, with a durable copy.
///
/// # Errors
/// [`MeasureError`].
pub fn high_rate(
    interval: Duration,
    ticks: u32,
    thread: ThreadSettings,
    attendant: &Attendant,
) -> Result<HighRate, MeasureError> {
    let time = interval * ticks;
    let time_s = time.as_secs_f64();
    attendant.tell(format_args!("{ticks} ticks of {}: {time_s:.0} s", seconds(interval)));
    let before_us = own_cpu_us()?;
    let summary = record(interval, time, thread, true, attendant)?;
    let used_us = own_cpu_us()? - before_us;
    Ok(HighRate {
        interval_seconds: interval.as_secs_f64(),
        ticks_elapsed: summary.ticks_elapsed,
        ticks_taken: summary.ticks_elapsed - summary.ticks_missed.min(summary.ticks_elapsed),
        lateness_us: summary.cost.lateness_us,
        cpu_us_per_sample: summary.cost.cpu_us_per_sample,
        sampler_cpu_percent: summary.cost.cpu_percent,
        process_cpu_percent: used_us / 1e6 / time_s * 100.0,
        load_1m: super::machine().load_1m,
    })
}

/// CPU time of all threads of this process, us.
fn own_cpu_us() -> Result<f64, MeasureError> {
    getrusage(UsageWho::RUSAGE_SELF).map(cpu_us).map_err(|errno| MeasureError::Usage(errno.into()))
}

/// User and system time, us.
pub(super) fn cpu_us(used: Used) -> f64 {
    (used.user_time().num_microseconds() + used.system_time().num_microseconds()) as f64
}

/// What a long run costs.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct LongRun {
    /// Time between two samples.
    pub interval_seconds: f64,
    /// How long it was measured.
    pub measured_seconds: f64,
    /// Where CPU times are from.
    pub usage_from: UsageSource,
    /// CPU time of the whole process while it was measured, without its start.
    pub measured_cpu_seconds: f64,
    /// CPU time from the start to the first sample and a little longer.
    pub start_cpu_seconds: f64,
    /// How long the run is that the rest is about.
    pub extrapolated_to_hours: f64,
    /// What it would cost: the start, and what was measured, so many times.
    pub extrapolated_cpu_seconds: f64,
    /// The same as a share of one CPU.
    pub extrapolated_cpu_percent: f64,
    /// The load over the last minute of it.
    pub load_1m: f64,
}

/// Hours that a long run is taken to last.
const HOURS: f64 = 10.0;

/// Records for `time` as a process of its own, and says what ten hours of that are.
///
/// # Errors
/// [`MeasureError`].
pub fn long_run(
    interval: Duration,
    time: Duration,
    recorder: StartRecorder<'_>,
    attendant: &Attendant,
) -> Result<LongRun, MeasureError> {
    let measured_seconds = time.as_secs_f64();
    attendant.tell(format_args!("a sample every {}: {measured_seconds:.0} s", seconds(interval)));
    let scratch = Scratch::new(true)?;
    let mut process = Process::start(recorder(interval, &scratch)?, "ringstat")?;
    // Between two samples, and all that a start brings with it is over.
    attendant.interrupt.wait((interval / 2).max(Duration::from_millis(500)))?;
    let start_us = process.cpu_us()?;
    attendant.interrupt.wait(time)?;
    let measured_us = process.cpu_us()? - start_us;
    let seconds = HOURS * 3600.0;
    let whole_us = start_us + measured_us * seconds / measured_seconds;
    Ok(LongRun {
        interval_seconds: interval.as_secs_f64(),
        measured_seconds,
        usage_from: process.usage().source(),
        measured_cpu_seconds: measured_us / 1e6,
        start_cpu_seconds: start_us / 1e6,
        extrapolated_to_hours: HOURS,
        extrapolated_cpu_seconds: whole_us / 1e6,
        extrapolated_cpu_percent: whole_us / 1e6 / seconds * 100.0,
        load_1m: super::machine().load_1m,
    })
}

impl fmt::Display for HighRate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let late = self.lateness_us;
        writeln!(
            f,
            "{} ticks of {}: {} taken ({:.2} %), lateness p50 {:.0}, p99 {:.0}, max {:.0} us; {:.1} us \
             of CPU time per sample, {:.2} % of one CPU, {:.2} % for the whole process (load {:.2})",
            self.ticks_elapsed,
            seconds(Duration::from_secs_f64(self.interval_seconds)),
            self.ticks_taken,
            100.0 * self.ticks_taken as f64 / self.ticks_elapsed.max(1) as f64,
            late.p50,
            late.p99,
            late.max,
            self.cpu_us_per_sample,
            self.sampler_cpu_percent,
            self.process_cpu_percent,
            self.load_1m,
        )
    }
}

impl fmt::Display for LongRun {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(
            f,
            "a sample every {}, {} s of it measured (load {:.2}; {}): {:.1} ms of CPU time, and {:.1} \
             ms for the start.\nExtrapolated from that to {} hours: {:.2} s of CPU time, {:.5} % of \
             one CPU",
            seconds(Duration::from_secs_f64(self.interval_seconds)),
            self.measured_seconds,
            self.load_1m,
            self.usage_from.name(),
            self.measured_cpu_seconds * 1e3,
            self.start_cpu_seconds * 1e3,
            self.extrapolated_to_hours,
            self.extrapolated_cpu_seconds,
            self.extrapolated_cpu_percent,
        )
    }
}
