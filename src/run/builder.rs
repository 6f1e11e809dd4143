//! What a recorder is told before it starts, every value checked, each with a sentence that says
//! what to do. Nothing is recorded yet, and nothing but the results directory is made.

use super::manifest::is_benchmark_type;
use super::patience::{PATIENCE, within};
use super::recorder::Recorder;
use crate::cluster::deploy::RemotePath;
use crate::cluster::hosts::{HostList, HostSpec, HostsError};
use crate::cluster::ways::HostOptions;
use crate::decode::Format;
use crate::ring::{MAX_INTERVAL_NS, MIN_INTERVAL_NS};
use crate::sampler::thread::{CpuChoice, Policy, ThreadSettings, can_pin};
use crate::source::{self, SOURCES, SourceDef};
use std::ffi::OsStr;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;
use uuid::Uuid;

/// Interval unless told otherwise.
pub const DEFAULT_INTERVAL: Duration = Duration::from_secs(10);
/// Samples kept unless told otherwise.
pub const DEFAULT_MAX_SAMPLES: u64 = 3600;
/// Time between two syncs of the mirror unless told otherwise.
pub const DEFAULT_SYNC_INTERVAL: Duration = Duration::from_secs(30);
/// Most samples that can be kept.
pub const MAX_MAX_SAMPLES: u64 = 1_000_000_000;
/// How the sampler's thread is run unless told otherwise: the one that kept time best under full
/// load of all CPUs, see `bench/lateness.rs`.
pub const DEFAULT_THREAD: ThreadSettings =
    ThreadSettings { policy: Policy::Other, nice: None, cpu: CpuChoice::Auto };

/// A value that cannot be used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum BuildError {
    /// Too short or too long.
    #[error("an interval of {found:?} is not possible; choose one from 1ms to 24h")]
    Interval {
        /// What was asked for.
        found: Duration,
    },
    /// Too short or too long.
    #[error("a sync interval of {found:?} is not possible; choose one from 10ms to 24h")]
    SyncInterval {
        /// What was asked for.
        found: Duration,
    },
    /// None or too many.
    #[error("{found} samples cannot be kept; choose a number from 1 to {MAX_MAX_SAMPLES}")]
    MaxSamples {
        /// What was asked for.
        found: u64,
    },
    /// Not one of ours.
    #[error("there is no source \"{found}\"; choose from {}", known_sources())]
    Source {
        /// What was asked for.
        found: String,
    },
    /// None at all.
    #[error("no source is left to record; choose from {}", known_sources())]
    NoSources,
    /// Not fit for a file name.
    #[error(
        "\"{found}\" cannot be a benchmark type; use letters, digits, \".\", \"_\" and \"-\", at \
         most 100 of them"
    )]
    BenchmarkType {
        /// What was asked for.
        found: String,
    },
    /// Not there, or not ours to use.
    #[error("CPU {found} cannot be used by this process; choose one of its CPUs, auto or none")]
    Cpu {
        /// What was asked for.
        found: usize,
    },
    /// Out of the kernel's range.
    #[error("a nice value of {found} is not possible; choose one from -20 to 19")]
    Nice {
        /// What was asked for.
        found: i32,
    },
    /// A directory that cannot be written to.
    #[error("cannot write to the {what} {}: {source}; choose another with {option}", path.display())]
    Directory {
        /// What it is for.
        what: &'static str,
        /// The option that names it.
        option: &'static str,
        /// The directory.
        path: PathBuf,
        /// What the kernel said.
        source: io::Error,
    },
    /// A host that cannot be one.
    #[error(transparent)]
    Hosts(#[from] HostsError),
    /// A program on other hosts that a shell there would not take as it stands.
    #[error("{found:?}: {why}; choose another with --remote-binary")]
    RemoteBinary {
        /// What was asked for.
        found: String,
        /// What is wrong with it.
        why: String,
    },
    /// No `/proc`.
    #[error("{} is not a directory; give one like /proc with --procfs", path.display())]
    Procfs {
        /// What was asked for.
        path: PathBuf,
    },
}

fn known_sources() -> String {
    SOURCES.map(|source| source.name).join(", ")
}

/// Where the rings' durable copy goes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum MirrorChoice {
    Default,
    Below(PathBuf),
    None,
}

/// Builds a [`Recorder`].
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
    fn specs(&self) -> Result<Vec<HostSpec>, HostsError> {
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

    /// Checks every value.
    ///
    /// # Errors
    /// [`BuildError`] for the first that cannot be used.
    pub fn build(mut self) -> Result<Recorder, BuildError> {
        if ns(self.interval).is_none_or(|ns| !(MIN_INTERVAL_NS..=MAX_INTERVAL_NS).contains(&ns)) {
            return Err(BuildError::Interval { found: self.interval });
        }
        let sync_ms = self.sync_interval.as_millis();
        if !(10..=u128::from(MAX_INTERVAL_NS / 1_000_000)).contains(&sync_ms) {
            return Err(BuildError::SyncInterval { found: self.sync_interval });
        }
        if !(1..=MAX_MAX_SAMPLES).contains(&self.max_samples) {
            return Err(BuildError::MaxSamples { found: self.max_samples });
        }
        let sources = self.known_sources()?;
        if !is_benchmark_type(&self.benchmark_type) {
            return Err(BuildError::BenchmarkType { found: self.benchmark_type });
        }
        if let Some(nice) = self.thread.nice
            && !(-20..=19).contains(&nice)
        {
            return Err(BuildError::Nice { found: nice });
        }
        if let CpuChoice::Cpu(cpu) = self.thread.cpu
            && !can_pin(cpu)
        {
            return Err(BuildError::Cpu { found: cpu });
        }
        if !self.procfs.is_dir() {
            return Err(BuildError::Procfs { path: self.procfs });
        }
        if self.launcher.is_none() {
            self.results_dir = writable("results directory", "--results-dir", &self.results_dir)?;
        } else if let Some(home) = std::env::home_dir() {
            // Where `recover` puts them if it is asked to, here.
            self.results_dir = home;
        }
        if let Some(dir) = &self.ring_base {
            self.ring_base = Some(writable("ring directory", "--ring-dir", dir)?);
        }
        if let MirrorChoice::Below(dir) = &self.mirror {
            let dir = writable("mirror directory", "--mirror-dir", dir)?;
            self.mirror = MirrorChoice::Below(dir);
        }
        if let Some(path) = &self.merge_metadata {
            self.merge_metadata = std::path::absolute(path).ok();
        }
        let hosts = self.host_names.specs()?;
        if let Some(found) = &self.host_options.remote_binary
            && let Err(why) = RemotePath::new(found)
        {
            return Err(BuildError::RemoteBinary { found: found.clone(), why });
        }
        self.host_options = self.host_options.bounded();
        for file in [&mut self.host_options.ssh_config, &mut self.host_options.ssh_known_hosts] {
            // `recover` may be called elsewhere.
            *file = file.take().map(|file| std::path::absolute(&file).unwrap_or(file));
        }
        Ok(Recorder::new(self, sources, hosts))
    }

    fn known_sources(&self) -> Result<Vec<&'static SourceDef>, BuildError> {
        for name in &self.sources {
            source::find(name).ok_or_else(|| BuildError::Source { found: name.clone() })?;
        }
        // Each once, and in the order of the output.
        let wanted =
            |def: &&SourceDef| self.sources.iter().any(|name| name == def.name || name == def.file);
        let sources: Vec<_> = SOURCES.into_iter().filter(wanted).collect();
        if sources.is_empty() { Err(BuildError::NoSources) } else { Ok(sources) }
    }
}

/// In ns, if it fits.
pub(super) fn ns(duration: Duration) -> Option<u64> {
    u64::try_from(duration.as_nanos()).ok()
}

/// The absolute path of a directory that exists now and takes files. One whose disk does not answer
/// is believed to: that is no reason not to start.
fn writable(what: &'static str, option: &'static str, dir: &Path) -> Result<PathBuf, BuildError> {
    let owned = dir.to_owned();
    let try_it = move || {
        std::fs::create_dir_all(&owned)?;
        let dir = std::fs::canonicalize(&owned)?;
        if dir.to_str().is_none() {
            // The manifest could not name it, and `recover` would not find it.
            return Err(io::Error::new(io::ErrorKind::InvalidInput, "its name is not UTF-8"));
        }
        // Without a name where that can be: nothing is left by a kill, or by a disk that answers too
        // late.
        tempfile::tempfile_in(&dir)?;
        Ok(dir)
    };
    within(PATIENCE, try_it)
        .unwrap_or_else(|| std::path::absolute(dir))
        .map_err(|source| BuildError::Directory { what, option, path: dir.to_owned(), source })
}
