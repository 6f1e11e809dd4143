//! What is known of the machine that a figure holds for.

use serde::Serialize;
use std::fmt;

/// The machine, as far as a figure depends on it.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Machine {
    /// CPUs that this process may use.
    pub cpus: usize,
    /// What the first of them calls itself.
    pub cpu_model: String,
    /// Kernel release.
    pub kernel: String,
    /// The load over the last minute, when the measuring began.
    pub load_1m: f64,
}

/// This one, now. What cannot be read is left empty.
pub fn machine() -> Machine {
    let read = |path: &str| std::fs::read_to_string(path).unwrap_or_default();
    let cpuinfo = read("/proc/cpuinfo");
    let model = cpuinfo.lines().find_map(|line| line.strip_prefix("model name")?.split_once(": "));
    let load = read("/proc/loadavg");
    Machine {
        cpus: std::thread::available_parallelism().map_or(0, usize::from),
        cpu_model: model.map_or("unknown CPU", |(_, model)| model).to_owned(),
        kernel: read("/proc/sys/kernel/osrelease").trim().to_owned(),
        load_1m: load.split(' ').next().and_then(|load| load.parse().ok()).unwrap_or_default(),
    }
}

impl fmt::Display for Machine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{} CPUs ({}), Linux {}, load {:.2} at the start",
            self.cpus, self.cpu_model, self.kernel, self.load_1m
        )
    }
}
