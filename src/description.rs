//! What a ring says about its run in words: the JSON description in its header. The recorder
//! writes it, the decoder reads it; both ignore keys they do not know.

use crate::schema::Schema;
use serde::{Deserialize, Serialize};

/// Who recorded what, and how.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Description {
    /// Version of the program that wrote the ring.
    pub ringstat: String,
    /// What the host calls itself.
    pub hostname: String,
    /// The run, as its final files name it.
    pub run: RunFacts,
    /// The machine.
    #[serde(default)]
    pub system: SystemFacts,
    /// How the sampler was set up, as it is in force, not as it was asked for.
    pub sampler: SamplerFacts,
    /// Words of a record.
    pub schema: Schema,
}

/// What the run was for.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct RunFacts {
    /// First part of the final files' names.
    pub benchmark_type: String,
    /// `run` or `record`.
    pub mode: String,
    /// The command that was wrapped; empty for `record`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub command: Vec<String>,
}

/// Facts about the host that do not change during a run.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct SystemFacts {
    /// `Linux 6.1.0-13-amd64`.
    pub kernel: String,
    /// `x86_64`.
    pub architecture: String,
    /// `PRETTY_NAME` of `/etc/os-release`.
    pub distribution: String,
    /// Model of the first CPU.
    pub cpu_model: String,
    /// CPUs that are online.
    pub cpus: u64,
    /// CPUs that the process may use.
    pub cpus_allowed: u64,
    /// `MemTotal`, kB.
    pub memory_total_kb: u64,
}

/// The sampler thread and where it writes.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct SamplerFacts {
    /// `idle`, `batch` or `other`.
    pub policy: String,
    /// Nice value of the thread.
    pub nice: i32,
    /// The CPU that the thread is pinned to.
    pub cpu: Option<usize>,
    /// Timer slack of the thread, ns.
    pub timer_slack_ns: u64,
    /// Whether the ring's memory is locked.
    pub memory_locked: bool,
    /// Whether the rest of the recorder's memory is locked, its code among it.
    #[serde(default)]
    pub process_locked: bool,
    /// `shared memory`, `disk` or `private memory`.
    pub storage: String,
    /// The ring's file, if it has one.
    pub ring: Option<String>,
    /// The mirror's file, if there is one.
    pub mirror: Option<String>,
    /// Time between two syncs of the mirror, ns.
    pub sync_interval_ns: Option<u64>,
    /// Whether deadlines may be moved, to follow the clock of another host.
    #[serde(default)]
    pub follows_clock: bool,
    /// What could not be had, in sentences.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub notes: Vec<String>,
}
