//! What a run has before its first sample: its directories, its manifest, and what its sampler is told.
//! What cannot be had is noted, and stops nothing.

use super::builder::{MirrorChoice, RecorderBuilder, ns};
use super::cluster::ClusterManifest;
use super::dirs::{DirError, RunDir, default_mirror_base, default_ring_base};
use super::manifest::{DATETIME, Manifest};
use super::origin::Origin;
use super::system;
use crate::description::{Description, RunFacts, SamplerFacts};
use crate::sampler::{MirrorSettings, SamplerSettings, SegmentPlan};
use crate::schema::Schema;
use crate::source::SourceDef;
use chrono::Local;
use std::path::PathBuf;
use std::time::Duration;
use uuid::Uuid;

/// What a run has before it has a sampler.
pub struct Begin {
    pub manifest: Manifest,
    pub dirs: Vec<RunDir>,
    pub notes: Vec<String>,
}

impl Begin {
    /// Makes the run's directories and its manifest, as far as they can be had.
    pub fn new(settings: &RecorderBuilder) -> Begin {
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

    /// What the sampler is told.
    pub fn sampler_settings(
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
    pub fn hosts_dir(&self) -> Option<PathBuf> {
        self.manifest.mirror_dir.clone().or_else(|| self.manifest.ring_dir.clone())
    }

    /// Saved, so that `recover` finds them.
    pub fn set_cluster(&mut self, cluster: ClusterManifest) {
        self.manifest.cluster = Some(Box::new(cluster));
        if let Err(error) = self.manifest.save() {
            self.notes.push(format!("no manifest: {error}. `recover` will not know the hosts"));
        }
    }

    /// Without waiting: what does not answer may be just this disk. A lock goes with its process,
    /// and `recover` removes what never had a sample.
    pub fn give_up(&self) {
        for dir in &self.dirs {
            let _ = dir.remove_soon(super::MANIFEST, &[]);
        }
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

/// The manifest of a run that begins now.
pub fn manifest(
    settings: &RecorderBuilder,
    run_id: Uuid,
    ring_dir: Option<PathBuf>,
    mirror_dir: Option<PathBuf>,
) -> Manifest {
    let Origin { hostname, machine_id, boot_id } = Origin::own();
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
        hostname,
        machine_id,
        boot_id,
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
            follows_clock: settings.launcher.is_some(),
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
