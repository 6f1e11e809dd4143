//! What a time series says of itself: for metadata, for messages, and for whoever wants to know
//! before relying on it.

use super::facts::{ClockStep, HostSummary, RunSummary};
use std::sync::Arc;

/// What a written file says of itself, for metadata and messages.
#[derive(Debug, Clone, PartialEq)]
pub struct Written {
    /// Samples of all hosts.
    pub num_samples: u64,
    /// Time between two ticks, s.
    pub interval_seconds: f64,
    /// Hosts with data.
    pub hosts_collected: Vec<String>,
    /// The key `ringstat`.
    pub summary: Arc<RunSummary>,
}

impl Written {
    /// What a reader of the file should know before relying on it, in sentences.
    pub fn warnings(&self) -> Vec<String> {
        self.summary.hosts.values().flat_map(host_warnings).collect()
    }

    /// Samples taken but overwritten by newer ones, and ticks without a sample, of all hosts.
    pub fn overwritten_and_missed(&self) -> (u64, u64) {
        self.summary.hosts.values().fold((0, 0), |(overwritten, missed), host| {
            (overwritten + host.samples_overwritten, missed + host.ticks_missed)
        })
    }
}

fn host_warnings(host: &HostSummary) -> Vec<String> {
    let HostSummary { hostname, samples_kept: kept, ticks_inconsistent, .. } = host;
    let mut warnings = Vec::new();
    if *ticks_inconsistent > 0 {
        warnings.push(format!(
            "in {ticks_inconsistent} of {kept} samples of {hostname}, samples taken and ticks \
             missed are not the ticks that went by; please report this"
        ));
    }
    if host.samples_lost > 0 {
        warnings.push(format!(
            "{} of {} samples of {hostname} are lost: no copy of its rings has them",
            host.samples_lost, host.samples_taken
        ));
    }
    if let Some(ClockStep { tick, seconds }) = host.clock_steps.first() {
        let times = host.clock_steps_total;
        warnings.push(format!(
            "the wall clock of {hostname} was set or the host suspended, {times} times, first by \
             {seconds:+} s at tick {tick}; timestamps show it, ticks do not"
        ));
    }
    // With those that are errors and nothing else.
    let all = kept + host.error_samples;
    warnings.extend(host.errors.iter().map(|(source, count)| {
        format!("{source} has errors in {count} of {all} samples of {hostname}; each says which")
    }));
    warnings
}
