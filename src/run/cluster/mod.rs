//! A run on several hosts, from its launcher: which of them is this machine, which agents there are, the
//! instant at which all begin, and what the manifest knows of them. What came of them is `output`'s.

mod output;

use super::builder::RecorderBuilder;
use super::manifest::Manifest;
use crate::cluster::clock::now;
use crate::cluster::collect::{MAX_HOST_BYTES, MAX_HOST_TEXT_BYTES};
use crate::cluster::hosts::HostSpec;
use crate::cluster::launch::{FIRST_HEARTBEAT, HostPlan, HostProgress, Launch, Limits};
use crate::cluster::local::{self, Locality};
use crate::cluster::machine::MachineIdentity;
use crate::cluster::protocol::{self, START_PATIENCE};
use crate::cluster::record::{Failure, FailureKind, HostRecord, HostState};
use crate::cluster::ways::{HostOptions, Ways};
use crate::place::Place;
use crate::sampler::thread::{CpuChoice, is_clock_synchronised};
use serde::{Deserialize, Serialize};
use std::collections::HashMap;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};
use uuid::Uuid;

pub(super) use output::{Here, Output, not_all_read, notes, output, still_owed};

/// The directory in a run's own in which there is one for each host.
pub(super) const HOSTS_DIR: &str = "hosts";
/// Between the last host that is ready and tick 0: the least, for each host, and the most.
const LEAST_LEAD: Duration = Duration::from_millis(100);
const LEAD_PER_HOST: Duration = Duration::from_millis(2);
const MOST_LEAD: Duration = Duration::from_secs(3);
/// How long a recorder goes on without hearing of a launcher, unless told otherwise.
const DEFAULT_ORPHAN_TIMEOUT: Duration = Duration::from_secs(12 * 3600);
/// How long conversations may take to end when all is written, and which part of the bound of the stop
/// that is at most, one of so many.
const GOODBYE: Duration = Duration::from_secs(3);
const GOODBYE_SHARE: u32 = 4;
/// How long the stop of a run waits at most for hosts that were given up.
const GIVEN_UP: Duration = Duration::from_secs(2);
/// Part of the disk that all hosts together may take, one of so many.
const FREE_SHARE: u64 = 2;

/// What a manifest knows of the hosts of a run.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ClusterManifest {
    /// How they are reached.
    pub(crate) options: HostOptions,
    /// Every host that was asked for, once, in order.
    pub(crate) hosts: Vec<HostRecord>,
    /// Where rings go on each of them, if not where they go by default.
    pub(crate) ring_base: Option<String>,
    /// And mirrors.
    pub(crate) mirror_base: Option<String>,
    /// Time between two ticks, ns.
    pub(crate) interval_ns: u64,
    /// When it began, `CLOCK_REALTIME`, ns.
    pub(crate) start_wall_ns: u64,
    /// The files that are written lack what some host still has.
    #[serde(default)]
    pub(crate) is_incomplete: bool,
}

impl ClusterManifest {
    /// How many hosts were asked for.
    pub fn host_count(&self) -> usize {
        self.hosts.len()
    }

    /// Names of the hosts that may have samples which are not here, or a recorder that nobody needs.
    pub fn owing(&self) -> Vec<String> {
        let owing = self.hosts.iter().filter(|host| host.state.is_pending());
        owing.map(|host| host.spec.name.clone()).collect()
    }
}

/// The hosts of a run that are recorded.
pub(super) struct Cluster {
    launch: Option<Launch>,
    /// Of tick 0, by `CLOCK_MONOTONIC`; 0 if that is not known any more.
    start_ns: u64,
    stop: Option<Bound>,
    remote: usize,
}

/// How long the stop of a run may wait for other hosts: first for their rings, and when those are
/// written, for the end of conversations; never longer in all than the user allows.
#[derive(Debug, Clone, Copy)]
struct Bound {
    /// For both.
    timeout: Duration,
    /// Until when rings are fetched.
    deadline: Instant,
    /// How long they were waited for.
    waited: Duration,
}

impl Bound {
    fn new(timeout: Duration, now: Instant) -> Bound {
        let goodbye = GOODBYE.min(timeout / GOODBYE_SHARE);
        Bound { timeout, deadline: now + (timeout - goodbye), waited: Duration::ZERO }
    }

    /// What is left for goodbyes.
    fn goodbye(&self) -> Duration {
        GOODBYE.min(self.timeout.saturating_sub(self.waited))
    }
}

/// A cluster of which all hosts are being set up.
pub(super) struct SettingUp {
    pub manifest: ClusterManifest,
    launch: Option<Launch>,
    deadline: Instant,
    remote: usize,
}

/// Which of the hosts is this machine: the place of its first name.
pub(super) fn here(hosts: &[HostSpec]) -> Vec<bool> {
    let places = local::locate(hosts, local::PATIENCE);
    places.into_iter().map(|place| matches!(place, Locality::Here(_))).collect()
}

/// The run of host number `index` of a run, on that host: as its launcher's, but for the last bytes.
fn host_run_id(run_id: Uuid, index: usize) -> Uuid {
    let number = u32::try_from(index).unwrap_or(u32::MAX).wrapping_add(1);
    Uuid::from_u128(run_id.as_u128() ^ u128::from(number))
}

/// Begins to set up all hosts that are not this machine. Their rings will go below `dir`; without it,
/// or without threads, none is recorded.
pub(super) fn set_up(
    settings: &RecorderBuilder,
    hosts: &[HostSpec],
    is_here: &[bool],
    manifest: &Manifest,
    dir: Option<&Path>,
) -> SettingUp {
    let base = |dir: &Option<PathBuf>| {
        dir.as_ref().and_then(|dir| dir.parent()).map(|base| base.display().to_string())
    };
    let options = settings.host_options.clone();
    let first_here = is_here.iter().position(|is_here| *is_here);
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
    let mut cluster = ClusterManifest {
        ring_base: settings.ring_base.as_ref().and_then(|_| base(&manifest.ring_dir)),
        mirror_base: settings.mirror_base().and_then(|_| base(&manifest.mirror_dir)),
        interval_ns: crate::run::builder::ns(settings.interval).unwrap_or(u64::MAX),
        start_wall_ns: now().wall_ns,
        is_incomplete: false,
        hosts: records,
        options,
    };
    let here = first_here.map(|first| (hosts[first].name.clone(), MachineIdentity::own()));
    let agents = agent_settings(settings, manifest);
    let (launch, remote) = begin(&mut cluster, dir, Some(agents), here);
    let deadline = Instant::now() + cluster.options.ssh_timeout;
    SettingUp { manifest: cluster, launch, deadline, remote }
}

/// Begins conversations with every host that may have to do with the run. Those for which that cannot
/// be have failed.
fn begin(
    cluster: &mut ClusterManifest,
    dir: Option<&Path>,
    agents: Option<protocol::Settings>,
    here: Option<(String, MachineIdentity)>,
) -> (Option<Launch>, usize) {
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
            place: protocol::Place {
                run_id: record.run_id,
                ring_base: ring_base.clone(),
                mirror_base: mirror_base.clone(),
            },
            settings: agents.clone(),
            dir: place,
            record: record.clone(),
        });
    }
    let remote = plans.len();
    if plans.is_empty() {
        return (None, 0);
    }
    let dirs: Vec<&Path> = plans.iter().map(|plan| &*plan.dir).collect();
    let limits = Limits {
        timeout: cluster.options.ssh_timeout,
        heartbeat: cluster.options.heartbeat,
        first_heartbeat: FIRST_HEARTBEAT,
        orphan_timeout: orphan_timeout(&cluster.options),
        host_bytes: host_bytes(dir, &dirs),
        // Of an earlier run nobody waits for anything else.
        given_up: if agents.is_some() { GIVEN_UP } else { Duration::MAX },
    };
    let ways = Arc::new(Ways::new(&cluster.options));
    match Launch::begin(plans, ways, limits, here) {
        Ok(launch) => (Some(launch), remote),
        Err(error) => {
            let message = format!("there can be no thread for it: {error}");
            for record in &mut cluster.hosts {
                if record.state == HostState::SettingUp {
                    record.state = HostState::Failed;
                    record.add_error(Failure::now(FailureKind::Collection, &message));
                }
            }
            (None, 0)
        }
    }
}

/// How long a host goes on without hearing of the launcher.
fn orphan_timeout(options: &HostOptions) -> Duration {
    options.orphan_timeout.or(options.max_duration).unwrap_or(DEFAULT_ORPHAN_TIMEOUT)
}

/// Where the rings of a host go; made if need be.
fn host_dir(dir: Option<&Path>, index: usize) -> io::Result<PathBuf> {
    let dir = dir.ok_or_else(|| io::Error::from(io::ErrorKind::NotFound))?;
    let name = host_dir_name(index);
    Place::open(dir)?.dir_in(HOSTS_DIR)?.dir_in(&name)?;
    Ok(dir.join(HOSTS_DIR).join(name))
}

fn host_dir_name(index: usize) -> String {
    format!("{index:05}")
}

/// What each of the hosts whose rings go to `dirs`, below `dir`, may take here. What they have already
/// counts as free: the bound is the same at each attempt.
fn host_bytes(dir: Option<&Path>, dirs: &[&Path]) -> u64 {
    let taken = dirs.iter().map(|dir| taken_by(dir)).fold(0, u64::saturating_add);
    share(free(dir).saturating_add(taken), dirs.len()).min(MAX_HOST_BYTES)
}

/// Bytes of the disk that the files in a directory take.
fn taken_by(dir: &Path) -> u64 {
    let files = std::fs::read_dir(dir).into_iter().flatten().flatten();
    let files = files.filter_map(|file| file.metadata().ok());
    // In units of 512 bytes, whatever the file system's are (stat(2)).
    files.map(|file| file.blocks().saturating_mul(512)).fold(0, u64::saturating_add)
}

/// What is free on the disk of a directory.
fn free(dir: Option<&Path>) -> u64 {
    let free = dir.and_then(|dir| rustix::fs::statvfs(dir).ok());
    free.map_or(u64::MAX, |it| it.f_bavail.saturating_mul(it.f_frsize))
}

/// The part of these bytes for one of so many hosts.
fn share(bytes: u64, hosts: usize) -> u64 {
    bytes / FREE_SHARE / (hosts.max(1) as u64)
}

/// What the samples of one of so many hosts may be as text, in files that go to that directory, which
/// need not be there yet.
fn text_bytes(results_dir: &Path, hosts: usize) -> u64 {
    let is_there = results_dir.ancestors().find(|dir| dir.is_dir());
    share(free(is_there), hosts).min(MAX_HOST_TEXT_BYTES)
}

fn agent_settings(settings: &RecorderBuilder, manifest: &Manifest) -> protocol::Settings {
    let options = &settings.host_options;
    protocol::Settings {
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

impl SettingUp {
    /// Waits until each host is ready or has failed, for no longer than the user's bound. Then all begin
    /// at one instant, of which `CLOCK_MONOTONIC` here is returned.
    pub fn go(
        mut self,
        progress: &mut dyn FnMut(&HostProgress),
    ) -> (Cluster, ClusterManifest, u64) {
        if let Some(launch) = &mut self.launch {
            launch.wait_until_set_up(self.deadline, progress);
        }
        let trip = self.launch.as_ref().map_or(0, Launch::longest_trip_ns);
        let hosts = u32::try_from(self.remote).unwrap_or(u32::MAX);
        let lead = match &self.launch {
            Some(_) => {
                let lead = LEAST_LEAD.saturating_add(Duration::from_nanos(trip).saturating_mul(3));
                lead.saturating_add(LEAD_PER_HOST.saturating_mul(hosts)).min(MOST_LEAD)
            }
            None => Duration::ZERO,
        };
        let moment = now();
        let lead_ns = u64::try_from(lead.as_nanos()).unwrap_or(0);
        let start_ns = moment.monotonic_ns.saturating_add(lead_ns);
        if let Some(launch) = &self.launch {
            launch.go(start_ns);
        }
        self.manifest.start_wall_ns = moment.wall_ns.saturating_add(lead_ns);
        let (launch, remote) = (self.launch, self.remote);
        let cluster = Cluster { launch, start_ns, stop: None, remote };
        cluster.update(&mut self.manifest);
        (cluster, self.manifest, start_ns)
    }
}

impl Cluster {
    /// Whether any host records.
    pub fn is_running(&self) -> bool {
        self.launch.is_some()
    }

    /// Waits until the hosts begin.
    pub fn wait_for_start(&self) {
        if self.launch.is_some() {
            let ahead_ns = self.start_ns.saturating_sub(now().monotonic_ns);
            std::thread::sleep(Duration::from_nanos(ahead_ns));
        }
    }

    /// Hosts that are not this machine.
    pub fn remote(&self) -> usize {
        self.remote
    }

    /// All hosts stop now, and are fetched from for no longer than that.
    pub fn stop(&mut self, timeout: Duration) {
        let bound = Bound::new(timeout, Instant::now());
        self.stop = Some(bound);
        if let Some(launch) = &mut self.launch {
            launch.stop(bound.deadline);
        }
    }

    /// Waits until all that can be had is here.
    pub fn collect(
        &mut self,
        manifest: &mut ClusterManifest,
        progress: &mut dyn FnMut(&HostProgress),
    ) {
        let since = Instant::now();
        let deadline = self.stop.map_or(since, |bound| bound.deadline);
        if let Some(launch) = &mut self.launch {
            launch.wait_until_settled(deadline, progress);
        }
        if let Some(bound) = &mut self.stop {
            bound.waited += since.elapsed();
        }
        self.update(manifest);
    }

    /// What is known of each host now.
    pub fn update(&self, manifest: &mut ClusterManifest) {
        let records = self.launch.as_ref().map(Launch::records).unwrap_or_default();
        merge(manifest, records);
    }

    /// The conversations are over. What is here of the hosts is safe, but for that of those that are
    /// `kept`, by the names of the output, and is removed there. Returns sentences on what stays there all the same.
    pub fn end(&mut self, manifest: &mut ClusterManifest, kept: &[String]) -> Vec<String> {
        let Some(launch) = self.launch.take() else { return Vec::new() };
        let kept = output::with_owners(manifest, kept);
        let goodbye = self.stop.map_or(GOODBYE, |bound| bound.goodbye());
        merge(manifest, launch.end(&kept, Instant::now() + goodbye));
        let places = [("ring-dir", &manifest.ring_base), ("mirror-dir", &manifest.mirror_base)];
        let places = places.into_iter().filter_map(|(option, dir)| {
            Some(format!(" --{option} {}", shell_words::quote(dir.as_deref()?)))
        });
        let places: String = places.collect();
        let stays = |host: &HostRecord| {
            let name = &host.spec.name;
            let is_left = host.state == HostState::Collected && !host.is_discarded;
            (is_left && !kept.contains(name)).then(|| {
                format!(
                    "{name} still has the rings of run {}, which are not needed any more; remove them \
                     with: ringstat hosts --hosts {name}{places} --clean",
                    host.run_id
                )
            })
        };
        manifest.hosts.iter().filter_map(stays).collect()
    }
}

/// This host is not recorded after all.
pub(super) fn fail_here(manifest: &mut ClusterManifest, why: &str) {
    for host in manifest.hosts.iter_mut().filter(|host| host.state == HostState::Here) {
        host.state = HostState::Failed;
        host.add_error(Failure::now(FailureKind::Collection, why));
    }
}

fn merge(manifest: &mut ClusterManifest, records: Vec<HostRecord>) {
    let mut records: HashMap<String, HostRecord> =
        records.into_iter().map(|record| (record.spec.name.clone(), record)).collect();
    for host in &mut manifest.hosts {
        if let Some(record) = records.remove(&host.spec.name)
            // All of it is here, whether or not it can be reached now.
            && (host.state != HostState::Collected || record.state == HostState::Collected)
        {
            *host = record;
        }
    }
}

/// Fetches what hosts still have of a run whose launcher is gone.
pub(super) fn fetch(
    manifest: &mut ClusterManifest,
    dir: Option<&Path>,
    progress: &mut dyn FnMut(&HostProgress),
) -> Cluster {
    for host in &mut manifest.hosts {
        if host.state.owes() || host.state == HostState::SettingUp {
            // What was in the way then need not be now.
            host.errors.retain(|error| error.kind != FailureKind::Ssh);
        }
    }
    let before = manifest.hosts.clone();
    // What is written in a file may be anything.
    manifest.options = manifest.options.clone().bounded();
    let (launch, remote) = begin(manifest, dir, None, None);
    let mut cluster = Cluster { launch, start_ns: 0, stop: None, remote };
    cluster.stop(manifest.options.stop_timeout);
    cluster.collect(manifest, progress);
    for (host, before) in manifest.hosts.iter_mut().zip(before) {
        match (&before.state, &host.state) {
            (_, HostState::Collected) => {}
            // One that was never known to be ready has nothing, as far as is known.
            (HostState::SettingUp, _) => host.state = HostState::Failed,
            // Whatever waited there for its start has ended by itself, and left nothing.
            (_, HostState::GivenUp) if was_given_up_long_ago(host) => {
                host.state = HostState::Failed
            }
            _ => {}
        }
    }
    cluster
}

fn was_given_up_long_ago(host: &HostRecord) -> bool {
    let since = host.errors.last().map_or(0, |failure| failure.time_unix_ns);
    now().wall_ns.saturating_sub(since) > 2 * START_PATIENCE.as_nanos() as u64
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    #[test]
    fn a_host_has_its_share_of_the_disk_that_the_files_go_to() {
        let dir = tempfile::tempdir().unwrap();
        let free = free(Some(dir.path()));
        let share = text_bytes(&dir.path().join("not/there/yet"), 1000);
        // Others write too.
        assert!(
            share > 0 && share <= free / 1000 && share <= MAX_HOST_TEXT_BYTES,
            "{share} of {free}"
        );
        assert!(text_bytes(dir.path(), 1) <= MAX_HOST_TEXT_BYTES);
    }

    #[test]
    fn what_is_here_of_a_host_takes_nothing_off_its_bound() {
        let dir = tempfile::Builder::new().prefix("ringstat-").tempdir_in("/dev/shm").unwrap();
        let path = dir.path();
        let dirs = [path, Path::new("/nonexistent")];
        std::fs::write(path.join("00000.ring"), vec![1; 3 << 20]).unwrap();
        // Others write too; a file of holes takes nothing.
        std::fs::File::create(path.join("00001.ring")).unwrap().set_len(1 << 40).unwrap();
        let taken = taken_by(path);
        assert!((3 << 20..4 << 20).contains(&taken), "{taken}");
        assert_eq!(taken_by(dirs[1]), 0);
        assert_eq!(share(1000, 5), 100);
        assert_eq!(host_bytes(None, &dirs), MAX_HOST_BYTES);
        assert!(host_bytes(Some(path), &dirs) <= MAX_HOST_BYTES);
    }

    #[test]
    fn what_was_given_up_long_ago_is_owed_no_more() {
        let dir = tempfile::tempdir().unwrap();
        // A port that was free a moment ago.
        let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let host = |time_unix_ns| {
            let spec = format!("ssh://127.0.0.1:{port}").parse().unwrap();
            let mut host = HostRecord::new(spec, Uuid::nil(), HostState::GivenUp);
            let message = "no answer".to_owned();
            host.add_error(Failure { kind: FailureKind::Ssh, time_unix_ns, message });
            host
        };
        for (time_unix_ns, owed) in [(now().wall_ns, 1), (now().wall_ns - 3_600_000_000_000, 0)] {
            let options = HostOptions {
                ssh_config: Some("/dev/null".into()),
                stop_timeout: Duration::from_secs(1),
                ..HostOptions::default()
            };
            let mut manifest = ClusterManifest {
                options,
                hosts: vec![host(time_unix_ns)],
                ring_base: None,
                mirror_base: None,
                interval_ns: 1,
                start_wall_ns: 1,
                is_incomplete: true,
            };
            fetch(&mut manifest, Some(dir.path()), &mut |_| {});
            assert_eq!(manifest.owing().len(), owed);
            assert_eq!(manifest.hosts[0].errors.len(), 1, "why is still known");
        }
    }

    #[test]
    fn the_stop_waits_no_longer_in_all_than_is_allowed() {
        let now = Instant::now();
        for (timeout_s, fetch_s) in [(30, 27.0), (4, 3.0), (1, 0.75), (0, 0.0)] {
            let timeout = Duration::from_secs(timeout_s);
            let mut bound = Bound::new(timeout, now);
            assert_eq!(bound.deadline - now, Duration::from_secs_f64(fetch_s));
            assert_eq!(bound.goodbye(), GOODBYE.min(timeout), "nobody was waited for");
            bound.waited = bound.deadline - now;
            assert_eq!(bound.waited + bound.goodbye(), timeout);
            // One who wakes up late does not wait again.
            bound.waited = timeout + Duration::from_millis(5);
            assert_eq!(bound.goodbye(), Duration::ZERO);
        }
    }
}
