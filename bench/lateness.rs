//! How well the sampler keeps time while every CPU is busy, by scheduling policy, nice value and
//! pinning.
//!
//! `cargo run --release -p ringstat-bench --bin lateness -- [SECONDS]` (per row; 10)

use ringstat::measure::lateness::{LatenessPlan, lateness};
use ringstat::measure::{Attendant, child_main, machine};
use ringstat::{CpuChoice, Policy, ThreadSettings};
use std::error::Error;
use std::process::ExitCode;
use std::time::Duration;

const THREADS: [(Policy, Option<i32>); 5] = [
    (Policy::Idle, None),
    (Policy::Batch, None),
    (Policy::Other, None),
    (Policy::Other, Some(-20)),
    (Policy::Other, Some(19)),
];

fn main() -> Result<ExitCode, Box<dyn Error>> {
    if let Some(status) = child_main() {
        return Ok(status);
    }
    let seconds: f64 = std::env::args().nth(1).map_or(Ok(10.0), |seconds| seconds.parse())?;
    let last_cpu = std::thread::available_parallelism()?.get() - 1;
    let threads = THREADS.iter().flat_map(|&(policy, nice)| {
        [CpuChoice::Unpinned, CpuChoice::Cpu(last_cpu)].map(|cpu| ThreadSettings {
            policy,
            nice,
            cpu,
        })
    });
    let plan = LatenessPlan {
        busy_per_cpu: vec![1, 2],
        intervals: [10, 1].map(Duration::from_millis).to_vec(),
        threads: threads.collect(),
        time: Duration::try_from_secs_f64(seconds)?,
    };
    println!("{seconds} s per row; {}", machine());
    print!("{}", lateness(&plan, &Attendant::new(|line| eprintln!("{line}")))?);
    Ok(ExitCode::SUCCESS)
}
