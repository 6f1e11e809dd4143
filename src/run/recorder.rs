//! The life of a recorder: built, started, stopped; each once. It makes the run's directories and
//! manifest and sets the sampler going.

use super::builder::{MirrorChoice, RecorderBuilder, ns};
use super::cluster::{self, Cluster, ClusterManifest};
use super::dirs::{DirError, RunDir, default_mirror_base, default_ring_base};
use super::finish::{FinalFiles, FinishError, Order};
use super::manifest::{DATETIME, Ended, Manifest};
use super::recording::Recording;
use super::system;
use crate::cluster::hosts::HostSpec;
use crate::decode::metadata::SystemInfo;
use crate::description::{Description, RunFacts, SamplerFacts};
use crate::sampler::thread::InForce;
use crate::sampler::{
    MirrorSettings, PreparedSampler, Sampler, SamplerError, SamplerSettings, SegmentError,
    SegmentPlan, Started,
};
use crate::schema::Schema;
use crate::source::SourceDef;
use chrono::Local;
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

/// What a run has before it has a sampler.
struct Begin {
    manifest: Manifest,
    dirs: Vec<RunDir>,
    notes: Vec<String>,
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
        self.is_new()?;
        if !self.hosts.is_empty() {
            return self.start_all();
        }
        let begin = Begin::new(&self.settings);
        let settings = begin.sampler_settings(&self.settings, &self.sources);
        let started = Sampler::start(settings).inspect_err(|_| begin.give_up())?;
        self.running(begin, Some(started), None)
    }

    /// All hosts that were named, at one instant. What cannot be had of one of them is its own failure,
    /// this one included.
    fn start_all(&mut self) -> Result<&RunInfo, RecorderError> {
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
        let (others, mut manifest, start_ns) = others.go();
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

impl Begin {
    /// Makes the run's directories and its manifest, as far as they can be had.
    fn new(settings: &RecorderBuilder) -> Begin {
        let run_id = settings.run_id.unwrap_or_else(Uuid::now_v7);
        let mut notes = Vec::new();
        let mirror = mirror_dir(settings, run_id).unwrap_or_else(|error| {
            notes.push(format!("no mirror: {error}. A crash of the host loses the samples"));
            None
        });
        let ring = ring_dir(settings, run_id)
            .map_err(|error| {
                let meanwhile = match mirror {
                    Some(_) => {
                        "and copied to the mirror every second: a crash loses what came since"
                    }
                    None => "alone: a crash loses them all",
                };
                notes.push(format!(
                    "no ring: {error}. Samples are kept in private memory {meanwhile}"
                ));
            })
            .ok();
        let path = |dir: &Option<RunDir>| dir.as_ref().map(|dir| dir.path().to_owned());
        let manifest = manifest(settings, run_id, path(&ring), path(&mirror));
        if let Err(error) = manifest.save() {
            notes.push(format!("no manifest: {error}. `recover` will not know the command"));
        }
        Begin { manifest, dirs: ring.into_iter().chain(mirror).collect(), notes }
    }

    fn sampler_settings(
        &self,
        settings: &RecorderBuilder,
        sources: &[&'static SourceDef],
    ) -> SamplerSettings {
        let mirror = self.manifest.mirror_dir.clone().map(|dir| mirror_settings(settings, dir));
        SamplerSettings {
            sources: sources.to_vec(),
            procfs: settings.procfs.clone(),
            thread: settings.thread,
            lock_process: settings.lock_process,
            plan: plan(settings, &self.manifest, mirror.as_ref(), &self.notes),
            mirror,
        }
    }

    /// Where there can be a directory for the rings of other hosts: on a disk, if there is one.
    fn hosts_dir(&self) -> Option<PathBuf> {
        self.manifest.mirror_dir.clone().or_else(|| self.manifest.ring_dir.clone())
    }

    /// Saved, so that `recover` finds them.
    fn set_cluster(&mut self, cluster: ClusterManifest) {
        self.manifest.cluster = Some(Box::new(cluster));
        if let Err(error) = self.manifest.save() {
            self.notes.push(format!("no manifest: {error}. `recover` will not know the hosts"));
        }
    }

    /// Without waiting: what does not answer may be just this disk. A lock goes with its process,
    /// and `recover` removes what never had a sample.
    fn give_up(&self) {
        for dir in &self.dirs {
            let _ = dir.remove_soon(super::MANIFEST);
        }
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

fn ring_dir(settings: &RecorderBuilder, run_id: Uuid) -> Result<RunDir, DirError> {
    match &settings.ring_base {
        Some(base) => RunDir::create_patiently(base, run_id),
        None => RunDir::create_private(&default_ring_base(), run_id),
    }
}

fn mirror_dir(settings: &RecorderBuilder, run_id: Uuid) -> Result<Option<RunDir>, DirError> {
    match &settings.mirror {
        MirrorChoice::None => Ok(None),
        MirrorChoice::Below(base) => RunDir::create_patiently(base, run_id).map(Some),
        MirrorChoice::Default => {
            RunDir::create_private_patiently(&default_mirror_base(), run_id).map(Some)
        }
    }
}

fn manifest(
    settings: &RecorderBuilder,
    run_id: Uuid,
    ring_dir: Option<PathBuf>,
    mirror_dir: Option<PathBuf>,
) -> Manifest {
    Manifest {
        version: 1,
        run_id,
        benchmark_type: settings.benchmark_type.clone(),
        mode: settings.mode.clone(),
        command: settings.command.clone(),
        results_dir: settings.results_dir.clone(),
        format: settings.format.name.to_owned(),
        merge_metadata: settings.merge_metadata.clone(),
        datetime: Local::now().format(DATETIME).to_string(),
        hostname: system::hostname(),
        pid: std::process::id(),
        ring_dir,
        mirror_dir,
        ended: None,
        final_datetime: None,
        launcher: settings.launcher.clone(),
        cluster: None,
        done: false,
        warnings: Vec::new(),
    }
}

fn plan(
    settings: &RecorderBuilder,
    manifest: &Manifest,
    mirror: Option<&MirrorSettings>,
    notes: &[String],
) -> SegmentPlan {
    let description = Description {
        ringstat: env!("CARGO_PKG_VERSION").to_owned(),
        hostname: manifest.hostname.clone(),
        run: RunFacts {
            benchmark_type: manifest.benchmark_type.clone(),
            mode: manifest.mode.clone(),
            command: manifest.command.clone(),
        },
        system: system::facts(),
        sampler: SamplerFacts {
            sync_interval_ns: manifest.mirror_dir.as_ref().and(ns(settings.sync_interval)),
            notes: notes.to_vec(),
            ..SamplerFacts::default()
        },
        schema: Schema::default(),
    };
    SegmentPlan {
        run_id: manifest.run_id,
        boot_id: system::boot_id(),
        interval_ns: ns(settings.interval).unwrap_or(u64::MAX),
        max_samples: settings.max_samples,
        spare_slots: mirror.map_or(1, MirrorSettings::spare_slots),
        look_interval: settings.sync_interval.max(settings.interval),
        ring_dir: manifest.ring_dir.clone(),
        mirror_dir: manifest.mirror_dir.clone(),
        description,
    }
}

fn mirror_settings(settings: &RecorderBuilder, dir: PathBuf) -> MirrorSettings {
    MirrorSettings {
        dir,
        interval: settings.interval,
        sync_interval: settings.sync_interval,
        copy_interval: settings.interval.max(Duration::from_secs(1)),
        max_samples: settings.max_samples,
    }
}
