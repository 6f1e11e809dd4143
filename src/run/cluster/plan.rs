//! What is to become of each host of a run: which of them is this machine, what run each has, how its agent
//! is to record, and the limits of all. Nothing is begun here.

use super::manifest::ClusterManifest;
use super::room::{host_bytes, host_dir};
use crate::cluster::clock::now;
use crate::cluster::hosts::HostSpec;
use crate::cluster::local::{self, Locality};
use crate::cluster::protocol::{Place, Settings};
use crate::cluster::record::{Failure, FailureKind, HostRecord, HostState};
use crate::cluster::shared::{FIRST_HEARTBEAT, HostPlan, Limits};
use crate::cluster::ways::HostOptions;
use crate::run::builder::{RecorderBuilder, ns};
use crate::run::manifest::Manifest;
use crate::sampler::thread::{CpuChoice, is_clock_synchronised};
use std::path::{Path, PathBuf};
use std::time::Duration;
use uuid::Uuid;

/// How long a recorder goes on without hearing of a launcher, unless told otherwise.
const DEFAULT_ORPHAN_TIMEOUT: Duration = Duration::from_secs(12 * 3600);
/// How long the stop of a run waits at most for hosts that were given up.
const GIVEN_UP: Duration = Duration::from_secs(2);

/// Which of the hosts is this machine: the place of its first name.
pub(in crate::run) fn here(hosts: &[HostSpec]) -> Vec<bool> {
    let places = local::locate(hosts, local::PATIENCE);
    places.into_iter().map(|place| matches!(place, Locality::Here(_))).collect()
}

/// The place of the one that it is recorded as.
pub(super) fn first_here(is_here: &[bool]) -> Option<usize> {
    is_here.iter().position(|is_here| *is_here)
}

/// The run of host number `index` of a run, on that host: as its launcher's, but for the last bytes.
fn host_run_id(run_id: Uuid, index: usize) -> Uuid {
    let number = u32::try_from(index).unwrap_or(u32::MAX).wrapping_add(1);
    Uuid::from_u128(run_id.as_u128() ^ u128::from(number))
}

/// All hosts of a run that begins now: those that are this machine are recorded here, once, and the others
/// are to be set up.
pub(super) fn asked_for(
    settings: &RecorderBuilder,
    hosts: &[HostSpec],
    is_here: &[bool],
    manifest: &Manifest,
) -> ClusterManifest {
    let base = |dir: &Option<PathBuf>| {
        dir.as_ref().and_then(|dir| dir.parent()).map(|base| base.display().to_string())
    };
    let options = settings.host_options.clone();
    let first_here = first_here(is_here);
    let mut records: Vec<HostRecord> = Vec::with_capacity(hosts.len());
    for (index, spec) in hosts.iter().enumerate() {
        let is_here = is_here.get(index).copied().unwrap_or(false);
        let (run_id, state) = match first_here {
            Some(first) if first == index => (manifest.run_id, HostState::Here),
            Some(first) if is_here => {
                (manifest.run_id, HostState::SameAs(hosts[first].name.clone()))
            }
            _ => (host_run_id(manifest.run_id, index), HostState::SettingUp),
        };
        let mut record = HostRecord::new(spec.clone(), run_id, state);
        if is_here {
            record.hostname.clone_from(&manifest.hostname);
            record.clock_synchronised = is_clock_synchronised();
        }
        records.push(record);
    }
    ClusterManifest {
        ring_base: settings.ring_base.as_ref().and_then(|_| base(&manifest.ring_dir)),
        mirror_base: settings.mirror_base().and_then(|_| base(&manifest.mirror_dir)),
        interval_ns: ns(settings.interval).unwrap_or(u64::MAX),
        start_wall_ns: now().wall_ns,
        is_incomplete: false,
        hosts: records,
        options,
    }
}

/// Every host that may have to do with the run: those that `agents` are to record, or without, those that
/// may still have something. What comes from them goes below `dir`; those for which that cannot be have
/// failed.
pub(super) fn plans(
    cluster: &mut ClusterManifest,
    dir: Option<&Path>,
    agents: Option<&Settings>,
) -> Vec<HostPlan> {
    let mut plans = Vec::new();
    let (ring_base, mirror_base) = (cluster.ring_base.clone(), cluster.mirror_base.clone());
    for (index, record) in cluster.hosts.iter_mut().enumerate() {
        let is_wanted = match &agents {
            Some(_) => record.state == HostState::SettingUp,
            // What is here already is there to be removed.
            None => {
                let is_left = record.state == HostState::Collected && !record.is_discarded;
                record.state == HostState::SettingUp || record.state.is_pending() || is_left
            }
        };
        if !is_wanted {
            continue;
        }
        let place = match host_dir(dir, index) {
            Ok(place) => place,
            Err(error) => {
                record.state = HostState::Failed;
                let message = format!("there is no directory for its rings here: {error}");
                record.add_error(Failure::now(FailureKind::Collection, &message));
                continue;
            }
        };
        plans.push(HostPlan {
            spec: record.spec.clone(),
            place: Place {
                run_id: record.run_id,
                ring_base: ring_base.clone(),
                mirror_base: mirror_base.clone(),
            },
            settings: agents.cloned(),
            dir: place,
            record: record.clone(),
        });
    }
    plans
}

/// The limits of all hosts of these plans, which are to be recorded if that `is_recorded`, and else only
/// fetched from.
pub(super) fn limits(
    options: &HostOptions,
    dir: Option<&Path>,
    plans: &[HostPlan],
    is_recorded: bool,
) -> Limits {
    let dirs: Vec<&Path> = plans.iter().map(|plan| &*plan.dir).collect();
    Limits {
        timeout: options.ssh_timeout,
        heartbeat: options.heartbeat,
        first_heartbeat: FIRST_HEARTBEAT,
        orphan_timeout: orphan_timeout(options),
        host_bytes: host_bytes(dir, &dirs),
        // Of an earlier run nobody waits for anything else.
        given_up: if is_recorded { GIVEN_UP } else { Duration::MAX },
    }
}

/// How long a host goes on without hearing of the launcher.
fn orphan_timeout(options: &HostOptions) -> Duration {
    options.orphan_timeout.or(options.max_duration).unwrap_or(DEFAULT_ORPHAN_TIMEOUT)
}

/// How each of them is to record.
pub(super) fn agent_settings(settings: &RecorderBuilder, manifest: &Manifest) -> Settings {
    let options = &settings.host_options;
    Settings {
        interval: settings.interval,
        max_samples: settings.max_samples,
        sync_interval: settings.sync_interval,
        sources: settings.sources.clone(),
        benchmark_type: settings.benchmark_type.clone(),
        command: settings.command.clone(),
        policy: settings.thread.policy.name().to_owned(),
        nice: settings.thread.nice,
        cpu: match settings.thread.cpu {
            CpuChoice::Auto => "auto".to_owned(),
            CpuChoice::Unpinned => "none".to_owned(),
            CpuChoice::Cpu(cpu) => cpu.to_string(),
        },
        procfs: settings.procfs.display().to_string(),
        mirror: settings.has_mirror(),
        orphan_timeout: orphan_timeout(options),
        max_duration: options.max_duration,
        launcher: manifest.hostname.clone(),
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    #[test]
    fn limits_are_what_was_asked_for() {
        let second = Duration::from_secs(1);
        let options = HostOptions {
            ssh_timeout: 7 * second,
            heartbeat: Some(300 * second),
            max_duration: Some(9 * second),
            ..HostOptions::default()
        };
        let found = limits(&options, None, &[], true);
        assert_eq!((found.timeout, found.heartbeat), (7 * second, Some(300 * second)));
        assert_eq!((found.first_heartbeat, found.given_up), (10 * second, 2 * second));
        assert_eq!(found.orphan_timeout, 9 * second, "as long as it records");
        let found = limits(&HostOptions::default(), None, &[], false);
        assert_eq!(found.orphan_timeout, 43_200 * second);
        assert_eq!(found.given_up, Duration::MAX, "there is nothing else to be waited for");
    }
}
