//! What the output says beyond the format: per run and host, what was taken, missed and lost, how
//! the sampler ran, and what recording cost. Types alone; `survey` fills them.

use super::hosts::{HostClock, HostError};
use indexmap::IndexMap;
use serde::{Deserialize, Serialize};

/// The key `ringstat` of the time-series file.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct RunSummary {
    /// Version of the program that wrote the file.
    pub version: String,
    /// Format version of the ring that it was decoded from.
    pub ring_format: u64,
    /// The run.
    pub run_id: String,
    /// By host, as in `samples_by_host`.
    pub hosts: IndexMap<String, HostSummary>,
}

/// One host's recording.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct HostSummary {
    /// What the host calls itself.
    pub hostname: String,
    /// The host before it that is the same machine, and has the samples.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub same_as: Option<String>,
    /// The run of its rings, if that is not the run of the launcher.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub run_id: Option<String>,
    /// Samples that were taken, as far as the newest one that is left tells.
    pub samples_taken: u64,
    /// Samples in this file, but for those that only say what went wrong with the host.
    pub samples_kept: u64,
    /// Those.
    #[serde(skip_serializing_if = "is_zero")]
    pub error_samples: u64,
    /// Samples that gave way to newer ones.
    pub samples_overwritten: u64,
    /// Samples that should be there and do not verify.
    pub samples_lost: u64,
    /// Slots of the rings whose words do not verify.
    pub slots_torn: u64,
    /// Ticks from the start to the newest sample; if that is lost, at least so many.
    pub ticks_elapsed: u64,
    /// Those without a sample.
    pub ticks_missed: u64,
    /// Records whose number, tick, missed ticks and times do not add up: with every sample taken
    /// either one tick goes by or, if it is an additional one, none; all others are missed. 0
    /// unless there is a bug, or the records are not a recorder's.
    pub ticks_inconsistent: u64,
    /// How much later than by the host's own clock the last tick was, us: among many hosts ticks follow the
    /// launcher's clock.
    #[serde(skip_serializing_if = "is_nothing")]
    pub ticks_moved_us: f64,
    /// Whether the run was stopped, and did not just end.
    pub ended_cleanly: bool,
    /// How many times ticks are missing between two samples of this file.
    pub gaps_total: u64,
    /// The first of them.
    pub gaps: Vec<Gap>,
    /// How many times the wall clock was set, or the host suspended. Ticks go by the monotonic
    /// clock and are not moved by it; timestamps are.
    pub clock_steps_total: u64,
    /// The first of them.
    pub clock_steps: Vec<ClockStep>,
    /// The host's clock minus the launcher's, ms.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub clock_offset_ms: Option<f64>,
    /// How far off that may be, ms.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub clock_uncertainty_ms: Option<f64>,
    /// How much faster the host's clock runs, parts per million.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub clock_drift_ppm: Option<f64>,
    /// Whether the host's own time service says that its clock is synchronised.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub clock_synchronised: Option<bool>,
    /// Ring files that the run has had.
    pub segments: u64,
    /// Samples with an error, by source.
    pub errors: IndexMap<String, u64>,
    /// What went wrong with the host as a whole, in the order of time.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub host_errors: Vec<HostError>,
    /// Counters that became smaller from one sample to the next, by source. A difference taken
    /// across such a place is not what happened.
    pub counter_decreases: IndexMap<String, CounterDecreases>,
    /// The sampler's thread.
    pub sampler: SamplerSummary,
    /// What recording cost.
    pub cost: Cost,
    /// Devices and interfaces by source, each with the ticks between which it was there.
    pub instances: IndexMap<String, Vec<InstanceSummary>>,
    /// Those beyond the 10,000 of a source that are listed, or beyond 256 of a host of very many; one
    /// counts once for each segment that has it. Their samples are there, their counters are not compared.
    pub instances_unlisted: u64,
    /// What could not be had, and what went wrong.
    pub notes: Vec<String>,
    /// The kernel's boot id.
    pub boot_id: String,
    /// Kernel release.
    pub kernel: String,
}

impl HostSummary {
    /// Notes what is known of the clock; a number that JSON does not have is not known, and of an
    /// offset only with how far off it may be.
    pub(super) fn set_clock(&mut self, clock: Option<HostClock>) {
        let Some(clock) = clock else { return };
        let HostClock { offset_ms, uncertainty_ms, drift_ppm, synchronised } = clock;
        if offset_ms.is_finite() && uncertainty_ms.is_finite() {
            self.clock_offset_ms = Some(offset_ms);
            self.clock_uncertainty_ms = Some(uncertainty_ms);
        }
        self.clock_drift_ppm = drift_ppm.filter(|drift| drift.is_finite());
        self.clock_synchronised = synchronised;
    }
}

fn is_nothing(number: &f64) -> bool {
    *number == 0.0
}

fn is_zero(count: &u64) -> bool {
    *count == 0
}

/// Ticks without a sample.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Gap {
    /// The first one.
    pub first_tick: u64,
    /// How many.
    pub ticks: u64,
}

/// The wall clock, moved against the monotonic one.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
pub struct ClockStep {
    /// The first sample that shows it.
    pub tick: u64,
    /// Forward, or if negative, back.
    pub seconds: f64,
}

/// The counters of one source that became smaller. Every counter of every instance counts.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct CounterDecreases {
    /// See [`Decrease`].
    pub wrapped_at_32_bits: u64,
    /// See [`Decrease`].
    pub wrapped_at_64_bits: u64,
    /// See [`Decrease`].
    pub went_backwards: u64,
    /// The first of them, at most 10.
    pub first: Vec<CounterDecrease>,
}

/// A counter that became smaller.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CounterDecrease {
    /// The sample that has the smaller value.
    pub tick: u64,
    /// The device or interface, if there are several.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub instance: Option<String>,
    /// The counter.
    pub field: String,
    /// The last value before.
    pub from: u64,
    /// The value of this sample.
    pub to: u64,
    /// What happened.
    pub how: Decrease,
}

/// What a smaller value of a counter means: the shorter way there.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Decrease {
    /// One that the kernel keeps in 32 bits: the difference is right modulo 2^32.
    #[serde(rename = "wrapped_at_32_bits")]
    WrappedAt32Bits,
    /// The difference is right modulo 2^64.
    #[serde(rename = "wrapped_at_64_bits")]
    WrappedAt64Bits,
    /// Reset, replaced by another device of that name, or miscounted: there is no difference.
    WentBackwards,
}

/// How the sampler's thread was run, as it was in force.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct SamplerSummary {
    /// Scheduling policy.
    pub policy: String,
    /// Nice value.
    pub nice: i32,
    /// CPU that it was pinned to, if any.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cpu: Option<usize>,
    /// Timer slack.
    pub timer_slack_ns: u64,
    /// Whether the ring's memory was locked.
    pub memory_locked: bool,
    /// Whether the rest of the recorder's memory was locked, its code among it.
    pub process_locked: bool,
    /// What the ring lay in.
    pub storage: String,
    /// The mirror's file, if there was one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub mirror: Option<String>,
    /// Time between two syncs of the mirror.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub sync_interval_seconds: Option<f64>,
}

/// What recording cost, over the samples of this file.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Cost {
    /// CPU time of the sampler's thread between the first and the last of them.
    pub cpu_us: f64,
    /// The same per sample.
    pub cpu_us_per_sample: f64,
    /// The same as a share of one CPU, %.
    pub cpu_percent: f64,
    /// From the first read to the last of a sample.
    pub window_us: Spread,
    /// From the deadline to the first read.
    pub lateness_us: Spread,
}

/// How a figure spreads; percentiles are accurate to 1 %, the maximum is exact.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
#[allow(missing_docs)]
pub struct Spread {
    pub p50: f64,
    pub p99: f64,
    pub max: f64,
}

/// One device or interface.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct InstanceSummary {
    /// As the kernel prints it.
    pub name: String,
    /// Major number of a block device.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub major: Option<u32>,
    /// Minor number of a block device.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub minor: Option<u32>,
    /// The first tick of this file that has it.
    pub first_tick: u64,
    /// The last.
    pub last_tick: u64,
}
