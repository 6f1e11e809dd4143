//! The life of a recorder: built, started, stopped; each once. What a run has before its first sample
//! is made elsewhere.

use super::begin::{Begin, manifest};
use super::builder::RecorderBuilder;
use super::cluster::{self, Cluster};
use super::dirs::RunDir;
use super::finish::{FinalFiles, FinishError, Order};
use super::manifest::{Ended, Manifest};
use super::recording::Recording;
use super::system;
use crate::cluster::hosts::HostSpec;
use crate::cluster::launch::HostProgress;
use crate::decode::metadata::SystemInfo;
use crate::sampler::thread::InForce;
use crate::sampler::{PreparedSampler, Sampler, SamplerError, SegmentError, Started};
use crate::source::SourceDef;
use std::fmt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant, SystemTime};
use uuid::Uuid;

/// Why a recorder did not do what it was asked.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum RecorderError {
    /// It records.
    #[error("the recorder is already started")]
    AlreadyStarted,
    /// It has never recorded.
    #[error("the recorder is not started")]
    NotStarted,
    /// It has recorded once; build another.
    #[error("the recorder is already stopped; build a new one for another run")]
    AlreadyStopped,
    /// It cannot record.
    #[error(transparent)]
    Sampler(#[from] SamplerError),
}

impl RecorderError {
    /// The ring for the samples that are to be kept is larger than this host, or a ring, can have.
    pub fn is_too_large(&self) -> bool {
        matches!(
            self,
            RecorderError::Sampler(SamplerError::Segment(
                SegmentError::Memory(_) | SegmentError::Layout(_)
            ))
        )
    }
}

/// What a run began as.
#[derive(Debug, Clone)]
pub struct RunInfo {
    /// The run.
    pub run_id: Uuid,
    /// Its directory in the ring storage, if there is one.
    pub ring_dir: Option<PathBuf>,
    /// Its directory for the mirror, if there is one.
    pub mirror_dir: Option<PathBuf>,
    /// How the sampler's thread is run; of a run that this host is no part of, as it was asked for.
    pub thread: InForce,
    /// When it began.
    pub started: SystemTime,
    /// What could not be had, in sentences.
    pub notes: Vec<String>,
}

/// Records this host, or those that were named.
///
/// Dropped while it records, it stops cleanly and leaves its rings for
/// [`Store::runs`](crate::Store::runs) to find.
pub struct Recorder {
    settings: RecorderBuilder,
    sources: Vec<&'static SourceDef>,
    /// Those that were named; this one alone if there are none.
    hosts: Vec<HostSpec>,
    state: State,
}

enum State {
    New,
    Prepared(Box<Prepared>),
    Running(Box<Running>),
    Stopped(Recording),
}

/// All is ready for the first sample.
struct Prepared {
    sampler: PreparedSampler,
    begin: Begin,
}

struct Running {
    /// Of this host, if it is to be recorded.
    sampler: Option<Sampler>,
    cluster: Option<Cluster>,
    manifest: Manifest,
    dirs: Vec<RunDir>,
    info: RunInfo,
    since: Instant,
}

impl Recorder {
    /// Begins to describe a recorder.
    pub fn builder() -> RecorderBuilder {
        RecorderBuilder::default()
    }

    pub(super) fn new(
        settings: RecorderBuilder,
        sources: Vec<&'static SourceDef>,
        hosts: Vec<HostSpec>,
    ) -> Self {
        Recorder { settings, sources, hosts, state: State::New }
    }

    /// Starts recording; returns when the first sample has been taken.
    ///
    /// # Errors
    /// [`RecorderError`]: then nothing is left of the attempt.
    pub fn start(&mut self) -> Result<&RunInfo, RecorderError> {
        self.start_with(&mut |_| {})
    }

    /// Starts as [`start`](Self::start) does; `progress` hears how far other hosts are, if there are any.
    ///
    /// # Errors
    /// As [`start`](Self::start).
    pub fn start_with(
        &mut self,
        progress: &mut dyn FnMut(&HostProgress),
    ) -> Result<&RunInfo, RecorderError> {
        self.is_new()?;
        if !self.hosts.is_empty() {
            return self.start_all(progress);
        }
        let begin = Begin::new(&self.settings);
        let settings = begin.sampler_settings(&self.settings, &self.sources);
        let started = Sampler::start(settings).inspect_err(|_| begin.give_up())?;
        self.running(begin, Some(started), None)
    }

    /// All hosts that were named, at one instant. What cannot be had of one of them is its own failure,
    /// this one included.
    fn start_all(
        &mut self,
        progress: &mut dyn FnMut(&HostProgress),
    ) -> Result<&RunInfo, RecorderError> {
        let is_here = cluster::here(&self.hosts);
        let mut begin = Begin::new(&self.settings);
        let dir = begin.hosts_dir();
        let dir = dir.as_deref();
        let others = cluster::set_up(&self.settings, &self.hosts, &is_here, &begin.manifest, dir);
        // Before anybody records: a launcher that is killed from here on finds its hosts again.
        begin.set_cluster(others.manifest.clone());
        let own = if is_here.contains(&true) {
            let settings = begin.sampler_settings(&self.settings, &self.sources);
            Some(Sampler::prepare(settings))
        } else {
            None
        };
        let (others, mut manifest, start_ns) = others.go(progress);
        let started = own.map(|own| own.and_then(|sampler| sampler.go(start_ns))).transpose();
        let started = started.or_else(|error| {
            cluster::fail_here(&mut manifest, &error.to_string());
            begin.notes.push(format!("this host is not recorded: {error}"));
            Ok::<_, RecorderError>(None)
        })?;
        begin.notes.extend(cluster::notes(&manifest));
        begin.set_cluster(manifest);
        // Whoever waits for this has something to be observed.
        others.wait_for_start();
        self.running(begin, started, Some(others))
    }

    /// Gets everything ready that takes time, for a start at an agreed instant.
    ///
    /// # Errors
    /// [`RecorderError`]: then nothing is left of the attempt.
    pub(crate) fn prepare(&mut self) -> Result<(), RecorderError> {
        self.is_new()?;
        let begin = Begin::new(&self.settings);
        let settings = begin.sampler_settings(&self.settings, &self.sources);
        let sampler = Sampler::prepare(settings).inspect_err(|_| begin.give_up())?;
        self.state = State::Prepared(Box::new(Prepared { sampler, begin }));
        Ok(())
    }

    /// Starts what is [prepared](Self::prepare), with tick 0 at `start_ns` of `CLOCK_MONOTONIC`;
    /// returns when its sample has been taken.
    ///
    /// # Errors
    /// [`RecorderError`]: then nothing is left of the attempt.
    pub(crate) fn go(&mut self, start_ns: u64) -> Result<&RunInfo, RecorderError> {
        let prepared = match std::mem::replace(&mut self.state, State::New) {
            State::Prepared(prepared) => prepared,
            other => {
                self.state = other;
                return Err(RecorderError::NotStarted);
            }
        };
        let Prepared { sampler, begin } = *prepared;
        let started = sampler.go(start_ns).inspect_err(|_| begin.give_up())?;
        self.running(begin, Some(started), None)
    }

    /// Ticks to come are to be counted from `start_ns` of `CLOCK_MONOTONIC`, to which they are moved little
    /// by little; nothing if it does not record.
    pub(crate) fn follow(&self, start_ns: u64) {
        if let State::Running(running) = &self.state
            && let Some(sampler) = &running.sampler
        {
            sampler.follow(start_ns);
        }
    }

    /// The run's directories, once they are made.
    pub(crate) fn dirs(&self) -> Vec<PathBuf> {
        let dirs = match &self.state {
            State::Prepared(prepared) => &prepared.begin.dirs,
            State::Running(running) => &running.dirs,
            State::New | State::Stopped(_) => return Vec::new(),
        };
        dirs.iter().map(|dir| dir.path().to_owned()).collect()
    }

    fn is_new(&self) -> Result<(), RecorderError> {
        match self.state {
            State::New => Ok(()),
            State::Prepared(_) | State::Running(_) => Err(RecorderError::AlreadyStarted),
            State::Stopped(_) => Err(RecorderError::AlreadyStopped),
        }
    }

    fn running(
        &mut self,
        begin: Begin,
        started: Option<(Sampler, Started)>,
        cluster: Option<Cluster>,
    ) -> Result<&RunInfo, RecorderError> {
        let Begin { manifest, dirs, mut notes } = begin;
        let (sampler, thread, wall_ns) = match started {
            Some((sampler, Started { wall_ns, thread, notes: more, .. })) => {
                notes.extend(more);
                (Some(sampler), thread, wall_ns)
            }
            None => {
                let start_wall_ns = manifest.cluster.as_ref().map(|cluster| cluster.start_wall_ns);
                (None, as_asked(&self.settings), start_wall_ns.unwrap_or_default())
            }
        };
        let info = RunInfo {
            run_id: manifest.run_id,
            ring_dir: manifest.ring_dir.clone(),
            mirror_dir: manifest.mirror_dir.clone(),
            thread,
            started: SystemTime::UNIX_EPOCH + Duration::from_nanos(wall_ns),
            notes,
        };
        let running = Running { sampler, cluster, manifest, dirs, info, since: Instant::now() };
        self.state = State::Running(Box::new(running));
        self.info().ok_or(RecorderError::NotStarted)
    }

    /// Takes the last sample and stops. A second stop gives the same recording again.
    ///
    /// # Errors
    /// [`RecorderError::NotStarted`].
    pub fn stop(&mut self) -> Result<Recording, RecorderError> {
        match std::mem::replace(&mut self.state, State::New) {
            State::New => Err(RecorderError::NotStarted),
            State::Prepared(prepared) => {
                prepared.give_up();
                Err(RecorderError::NotStarted)
            }
            State::Running(running) => {
                let recording = running.stop(&self.settings);
                self.state = State::Stopped(recording.clone());
                Ok(recording)
            }
            State::Stopped(recording) => {
                self.state = State::Stopped(recording.clone());
                Ok(recording)
            }
        }
    }

    /// Writes the metadata of a run that nothing was recorded of: it was not to be, or could not
    /// be, and `warnings` say why.
    ///
    /// # Errors
    /// [`FinishError`].
    pub fn write_metadata_only(
        &self,
        ended: Ended,
        warnings: &[String],
    ) -> Result<FinalFiles, FinishError> {
        let mut manifest = manifest(&self.settings, Uuid::now_v7(), None, None);
        manifest.ended = Some(ended);
        manifest.warnings = warnings.to_vec();
        let order = Order {
            manifest: &mut manifest,
            save: false,
            renew: false,
            decoder: None,
            system: SystemInfo { hostname: system::hostname(), facts: system::facts() },
            recovered: false,
            deadline: None,
            progress: &mut |_, _| {},
        };
        order.carry_out()
    }

    /// Whether samples are being taken.
    pub fn is_running(&self) -> bool {
        let State::Running(running) = &self.state else { return false };
        let others = running.cluster.as_ref().is_some_and(Cluster::is_running);
        others || running.sampler.as_ref().is_some_and(Sampler::is_running)
    }

    /// Samples taken and ticks missed so far, of this host; zeros before the start.
    pub fn progress(&self) -> (u64, u64) {
        match &self.state {
            State::Running(running) => running.sampler.as_ref().map_or((0, 0), Sampler::progress),
            _ => (0, 0),
        }
    }

    /// What the run began as, while it records.
    pub fn info(&self) -> Option<&RunInfo> {
        match &self.state {
            State::Running(running) => Some(&running.info),
            _ => None,
        }
    }

    /// Time between two samples.
    pub fn interval(&self) -> Duration {
        self.settings.interval
    }

    /// The newest samples that are kept.
    pub fn max_samples(&self) -> u64 {
        self.settings.max_samples
    }

    /// The hosts that were named, each once; none if it is this one alone.
    pub fn hosts(&self) -> Vec<String> {
        self.hosts.iter().map(|host| host.name.clone()).collect()
    }

    /// Where the final files will go; absolute.
    pub fn results_dir(&self) -> &Path {
        &self.settings.results_dir
    }
}

impl fmt::Debug for Recorder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Recorder")
            .field("settings", &self.settings)
            .field("is_running", &self.is_running())
            .finish_non_exhaustive()
    }
}

impl Drop for Recorder {
    fn drop(&mut self) {
        // Only a running one has anything to stop.
        let _ = self.stop();
    }
}

impl Prepared {
    /// Ends the sampler, and removes what was made for it.
    fn give_up(self) {
        drop(self.sampler);
        self.begin.give_up();
    }
}

impl Running {
    fn stop(self, settings: &RecorderBuilder) -> Recording {
        let Running { sampler, mut cluster, mut manifest, dirs, info, since } = self;
        let runtime = since.elapsed();
        // All at once: the others first, since they are told and not waited for.
        if let Some(cluster) = &mut cluster {
            cluster.stop(settings.host_options.stop_timeout);
        }
        let end = sampler.map(Sampler::stop).unwrap_or_default();
        let notes = info.notes.into_iter().chain(end.notes.iter().cloned());
        manifest.warnings = notes.fold(Vec::new(), |mut notes, note| {
            if !notes.contains(&note) {
                notes.push(note);
            }
            notes
        });
        Recording::new(manifest, dirs, end, cluster, runtime, settings.keep_ring)
    }
}

/// How a thread is to be run, where there is none.
fn as_asked(settings: &RecorderBuilder) -> InForce {
    InForce {
        policy: settings.thread.policy,
        nice: settings.thread.nice.unwrap_or(0),
        cpu: None,
        timer_slack_ns: 0,
        notes: Vec::new(),
    }
}
