//! What only the benches share; what they have in common with `ringstat bench` is the library's.

pub mod trees;

use rustix::time::{ClockId, clock_gettime};

/// CPU time of the calling thread, ns.
pub fn thread_cpu_ns() -> u64 {
    let time = clock_gettime(ClockId::ThreadCPUTime);
    time.tv_sec.unsigned_abs() * 1_000_000_000 + time.tv_nsec.unsigned_abs()
}

/// The value below which `percent` of `values` lie; 0 of none. Sorts them.
pub fn percentile(values: &mut [f64], percent: usize) -> f64 {
    values.sort_by(f64::total_cmp);
    ringstat::measure::stats::quantile(values, percent as f64 / 100.0)
}
