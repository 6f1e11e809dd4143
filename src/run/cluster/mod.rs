//! A run on several hosts, from its launcher: the instant at which all begin, how long the stop waits for
//! them, and what is fetched. Who they are is `plan`'s, what is known of them is `manifest`'s, where their
//! rings go is `room`'s; what came of them is `output`'s.

mod manifest;
mod output;
mod plan;
mod room;

use super::builder::RecorderBuilder;
use super::manifest::Manifest;
use crate::cluster::clock::now;
use crate::cluster::hosts::HostSpec;
use crate::cluster::launch::{HostProgress, Launch};
use crate::cluster::machine::MachineIdentity;
use crate::cluster::protocol::{START_PATIENCE, Settings};
use crate::cluster::record::{Failure, FailureKind, HostRecord, HostState};
use crate::cluster::ways::Ways;
use plan::{agent_settings, asked_for, first_here, limits, plans};
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

pub use manifest::ClusterManifest;
pub(super) use output::{Here, Output, not_all_read, notes, output, still_owed};
pub(super) use plan::here;
pub(super) use room::HOSTS_DIR;

/// Between the last host that is ready and tick 0: the least, for each host, and the most.
const LEAST_LEAD: Duration = Duration::from_millis(100);
const LEAD_PER_HOST: Duration = Duration::from_millis(2);
const MOST_LEAD: Duration = Duration::from_secs(3);
/// How long conversations may take to end when all is written, and which part of the bound of the stop
/// that is at most, one of so many.
const GOODBYE: Duration = Duration::from_secs(3);
const GOODBYE_SHARE: u32 = 4;
/// How long `recover` may wait for hosts at least.
const LEAST_FETCH_TIMEOUT: Duration = Duration::from_secs(10);

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

/// Begins to set up all hosts that are not this machine. Their rings will go below `dir`; without it,
/// or without threads, none is recorded.
pub(super) fn set_up(
    settings: &RecorderBuilder,
    hosts: &[HostSpec],
    is_here: &[bool],
    manifest: &Manifest,
    dir: Option<&Path>,
) -> SettingUp {
    let mut cluster = asked_for(settings, hosts, is_here, manifest);
    let here = first_here(is_here);
    let here = here.map(|first| (hosts[first].name.clone(), MachineIdentity::own()));
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
    agents: Option<Settings>,
    here: Option<(String, MachineIdentity)>,
) -> (Option<Launch>, usize) {
    let plans = plans(cluster, dir, agents.as_ref());
    let remote = plans.len();
    if plans.is_empty() {
        return (None, 0);
    }
    let limits = limits(&cluster.options, dir, &plans, agents.is_some());
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
        manifest.learn(self.launch.as_ref().map(Launch::records).unwrap_or_default());
    }

    /// The conversations are over. What is here of the hosts is safe, but for that of those that are
    /// `kept`, by the names of the output, and is removed there. Returns sentences on what stays there all
    /// the same.
    pub fn end(&mut self, manifest: &mut ClusterManifest, kept: &[String]) -> Vec<String> {
        let Some(launch) = self.launch.take() else { return Vec::new() };
        let kept = output::with_owners(manifest, kept);
        let goodbye = self.stop.map_or(GOODBYE, |bound| bound.goodbye());
        manifest.learn(launch.end(&kept, Instant::now() + goodbye));
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

/// Fetches what hosts still have of a run whose launcher is gone.
pub(super) fn fetch(
    manifest: &mut ClusterManifest,
    dir: Option<&Path>,
    progress: &mut dyn FnMut(&HostProgress),
) -> Cluster {
    // What is written in a file may be anything.
    manifest.options = manifest.options.clone().bounded();
    fetch_within(fetch_timeout(manifest.options.stop_timeout), manifest, dir, progress)
}

/// How long `recover` may wait for hosts of a run that had this bound: so long its end might have held up
/// a benchmark, of which none waits any more.
fn fetch_timeout(stop_timeout: Duration) -> Duration {
    stop_timeout.max(LEAST_FETCH_TIMEOUT)
}

fn fetch_within(
    timeout: Duration,
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
    let (launch, remote) = begin(manifest, dir, None, None);
    let mut cluster = Cluster { launch, start_ns: 0, stop: None, remote };
    cluster.stop(timeout);
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
    use crate::cluster::ways::HostOptions;
    use uuid::Uuid;

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
            let options =
                HostOptions { ssh_config: Some("/dev/null".into()), ..HostOptions::default() };
            let mut manifest = ClusterManifest {
                options,
                hosts: vec![host(time_unix_ns)],
                ring_base: None,
                mirror_base: None,
                interval_ns: 1,
                start_wall_ns: 1,
                is_incomplete: true,
            };
            let timeout = Duration::from_secs(1);
            fetch_within(timeout, &mut manifest, Some(dir.path()), &mut |_| {});
            assert_eq!(manifest.owing().len(), owed);
            assert_eq!(manifest.hosts[0].errors.len(), 1, "why is still known");
        }
    }

    #[test]
    fn recover_has_ten_seconds_or_as_long_as_the_run_had() {
        for (stop_timeout_s, expected_s) in [(0, 10), (1, 10), (10, 10), (11, 11), (3600, 3600)] {
            let found = fetch_timeout(Duration::from_secs(stop_timeout_s));
            assert_eq!(found, Duration::from_secs(expected_s), "{stop_timeout_s}");
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
