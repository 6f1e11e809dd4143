//! What a recorder is told before it starts, and what holds where it is told nothing. Whether that can be is
//! for `checks` to say.

use crate::cluster::hosts::{HostList, HostSpec, HostsError};
use crate::cluster::ways::HostOptions;
use crate::decode::Format;
use crate::sampler::thread::{CpuChoice, Policy, ThreadSettings};
use crate::source::SOURCES;
use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::time::Duration;
use uuid::Uuid;

/// Interval unless told otherwise.
pub const DEFAULT_INTERVAL: Duration = Duration::from_secs(10);
/// Samples kept unless told otherwise.
pub const DEFAULT_MAX_SAMPLES: u64 = 3600;
/// Time between two syncs of the mirror unless told otherwise.
pub const DEFAULT_SYNC_INTERVAL: Duration = Duration::from_secs(30);
/// How the sampler's thread is run unless told otherwise: the one that kept time best under full
/// load of all CPUs, see `bench/lateness.rs`.
pub const DEFAULT_THREAD: ThreadSettings =
    ThreadSettings { policy: Policy::Other, nice: None, cpu: CpuChoice::Auto };

/// Where the rings' durable copy goes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum MirrorChoice {
    Default,
    Below(PathBuf),
    None,
}

/// Builds a [`Recorder`](super::Recorder).
#[derive(Debug, Clone)]
#[must_use]
pub struct RecorderBuilder {
    pub(super) sources: Vec<String>,
    pub(super) procfs: PathBuf,
    pub(super) interval: Duration,
    pub(super) max_samples: u64,
    pub(super) benchmark_type: String,
    pub(super) mode: String,
    pub(super) command: Vec<String>,
    pub(super) results_dir: PathBuf,
    pub(super) format: &'static Format,
    pub(super) merge_metadata: Option<PathBuf>,
    pub(super) ring_base: Option<PathBuf>,
    pub(super) mirror: MirrorChoice,
    pub(super) sync_interval: Duration,
    pub(super) thread: ThreadSettings,
    pub(super) keep_ring: bool,
    pub(super) lock_process: bool,
    /// Chosen by somebody else.
    pub(super) run_id: Option<Uuid>,
    /// The host that writes the files, if that is another one.
    pub(super) launcher: Option<String>,
    /// The hosts to record, as they were named; this one alone if there are none.
    pub(super) host_names: HostNames,
    pub(super) host_options: HostOptions,
}

/// What was named.
#[derive(Debug, Clone, Default, PartialEq)]
pub(super) struct HostNames {
    lists: Vec<String>,
    file: Option<PathBuf>,
}

impl HostNames {
    pub(super) fn specs(&self) -> Result<Vec<HostSpec>, HostsError> {
        let mut list = HostList::new();
        for text in &self.lists {
            list.add(text, "--hosts")?;
        }
        if let Some(file) = &self.file {
            list.add_file(file)?;
        }
        Ok(list.into_hosts())
    }
}

impl Default for RecorderBuilder {
    fn default() -> Self {
        RecorderBuilder {
            sources: SOURCES.iter().map(|source| source.name.to_owned()).collect(),
            procfs: PathBuf::from("/proc"),
            interval: DEFAULT_INTERVAL,
            max_samples: DEFAULT_MAX_SAMPLES,
            benchmark_type: "record".to_owned(),
            mode: "record".to_owned(),
            command: Vec::new(),
            results_dir: PathBuf::from("."),
            format: <&Format>::default(),
            merge_metadata: None,
            ring_base: None,
            mirror: MirrorChoice::Default,
            sync_interval: DEFAULT_SYNC_INTERVAL,
            thread: DEFAULT_THREAD,
            keep_ring: false,
            lock_process: false,
            run_id: None,
            launcher: None,
            host_names: HostNames::default(),
            host_options: HostOptions::default(),
        }
    }
}

impl RecorderBuilder {
    /// Time between two samples, 1 ms to 24 h; 10 s unless set.
    pub fn interval(mut self, interval: Duration) -> Self {
        self.interval = interval;
        self
    }

    /// The newest samples that are kept; 3600 unless set.
    pub fn max_samples(mut self, max_samples: u64) -> Self {
        self.max_samples = max_samples;
        self
    }

    /// First part of the final files' names; `vectordb` and `kvcache` become `vector_database`
    /// and `kv_cache`. `record` unless set.
    pub fn benchmark_type(mut self, name: &str) -> Self {
        self.benchmark_type = match name {
            "vectordb" => "vector_database".to_owned(),
            "kvcache" => "kv_cache".to_owned(),
            other => other.to_owned(),
        };
        self
    }

    /// The command that is recorded, for the metadata; it is not started. What is not UTF-8 in it
    /// is replaced.
    pub fn command<S: AsRef<OsStr>>(mut self, command: &[S]) -> Self {
        let shown = |word: &S| word.as_ref().to_string_lossy().into_owned();
        self.command = command.iter().map(shown).collect();
        self.mode = if command.is_empty() { "record" } else { "run" }.to_owned();
        self
    }

    /// Where the final files go; the current directory unless set. Made if need be.
    pub fn results_dir(mut self, dir: impl Into<PathBuf>) -> Self {
        self.results_dir = dir.into();
        self
    }

    /// How the time series is written; indented JSON unless set.
    pub fn format(mut self, format: &'static Format) -> Self {
        self.format = format;
        self
    }

    /// Put `timeseries_data` into this metadata file, which the benchmark writes, and write none.
    pub fn merge_metadata(mut self, file: impl Into<PathBuf>) -> Self {
        self.merge_metadata = Some(file.into());
        self
    }

    /// The directory below which the ring goes; `/dev/shm/ringstat-UID` unless set. On a disk a
    /// sample may wait for that disk.
    pub fn ring_dir(mut self, dir: impl Into<PathBuf>) -> Self {
        self.ring_base = Some(dir.into());
        self
    }

    /// The directory below which the ring's durable copy goes; `/var/tmp/ringstat-UID` unless set.
    pub fn mirror_dir(mut self, dir: impl Into<PathBuf>) -> Self {
        self.mirror = MirrorChoice::Below(dir.into());
        self
    }

    /// No durable copy: a crash of the host costs all samples.
    pub fn no_mirror(mut self) -> Self {
        self.mirror = MirrorChoice::None;
        self
    }

    /// Time between two syncs of the mirror; 30 s unless set. What a power cut may cost.
    pub fn sync_interval(mut self, interval: Duration) -> Self {
        self.sync_interval = interval;
        self
    }

    /// How the sampler's thread is run.
    pub fn thread(mut self, thread: ThreadSettings) -> Self {
        self.thread = thread;
        self
    }

    /// Sources to record, by name; all unless set.
    pub fn sources<S: AsRef<str>>(mut self, sources: &[S]) -> Self {
        self.sources = sources.iter().map(|name| name.as_ref().to_owned()).collect();
        self
    }

    /// Another `/proc`.
    pub fn procfs(mut self, dir: impl Into<PathBuf>) -> Self {
        self.procfs = dir.into();
        self
    }

    /// Leave the rings where they are when the final files are written.
    pub fn keep_ring(mut self, keep: bool) -> Self {
        self.keep_ring = keep;
        self
    }

    /// Lock all memory that this process has when it starts recording, if it may, so that the
    /// sampler's code and tables stay there when a benchmark fills the page cache. For programs
    /// that do little else; the ring is locked in any case.
    pub fn lock_process(mut self, lock: bool) -> Self {
        self.lock_process = lock;
        self
    }

    /// Hosts to record, each a name or a list of them as `--hosts` takes it: `node1`, `node[2-4]:8`,
    /// `user@node5`. Slot counts are left away, and so is what was named before. This host alone unless
    /// set.
    pub fn hosts<S: AsRef<str>>(mut self, hosts: &[S]) -> Self {
        self.host_names.lists.extend(hosts.iter().map(|host| host.as_ref().to_owned()));
        self
    }

    /// A file that names hosts to record, as MPI's programs take them.
    pub fn hostfile(mut self, file: impl Into<PathBuf>) -> Self {
        self.host_names.file = Some(file.into());
        self
    }

    /// How several hosts are recorded.
    pub fn host_options(mut self, options: HostOptions) -> Self {
        self.host_options = options;
        self
    }

    /// Whether there is to be a durable copy.
    pub(super) fn has_mirror(&self) -> bool {
        self.mirror != MirrorChoice::None
    }

    /// Where it goes, if that was chosen.
    pub(super) fn mirror_base(&self) -> Option<&Path> {
        match &self.mirror {
            MirrorChoice::Below(dir) => Some(dir),
            MirrorChoice::Default | MirrorChoice::None => None,
        }
    }

    /// For a run of which another host, `launcher`, writes the files: under the id that it has chosen,
    /// and without a results directory.
    pub(crate) fn for_agent(mut self, run_id: Uuid, launcher: &str) -> Self {
        self.run_id = Some(run_id);
        self.launcher = Some(launcher.to_owned());
        self
    }
}

/// In ns, if it fits.
pub(super) fn ns(duration: Duration) -> Option<u64> {
    u64::try_from(duration.as_nanos()).ok()
}
