//! What a manifest knows of the hosts of a run: how they are reached, and each as far as it has come.

use crate::cluster::record::{HostRecord, HostState};
use crate::cluster::ways::HostOptions;
use serde::{Deserialize, Serialize};
use std::collections::HashMap;

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

    /// What is known of each host now.
    pub(super) fn learn(&mut self, records: Vec<HostRecord>) {
        let mut records: HashMap<String, HostRecord> =
            records.into_iter().map(|record| (record.spec.name.clone(), record)).collect();
        for host in &mut self.hosts {
            if let Some(record) = records.remove(&host.spec.name)
            // All of it is here, whether or not it can be reached now.
            && (host.state != HostState::Collected || record.state == HostState::Collected)
            {
                *host = record;
            }
        }
    }
}
