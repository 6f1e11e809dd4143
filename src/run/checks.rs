//! Whether a recorder can be as it was told to be: every value checked, each with a sentence that says what
//! to do. Nothing is recorded yet, and nothing but the directories that were named is made.

use super::builder::{MirrorChoice, RecorderBuilder, ns};
use super::manifest::is_benchmark_type;
use super::patience::{PATIENCE, within};
use super::recorder::Recorder;
use crate::cluster::deploy::RemotePath;
use crate::cluster::hosts::HostsError;
use crate::ring::{MAX_INTERVAL_NS, MIN_INTERVAL_NS};
use crate::sampler::thread::{CpuChoice, can_pin};
use crate::source::{self, SOURCES, SourceDef};
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// Most samples that can be kept.
pub const MAX_MAX_SAMPLES: u64 = 1_000_000_000;

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

impl RecorderBuilder {
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
