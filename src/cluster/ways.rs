//! How agents are reached and started, as the user has it: SSH's options, and which program is run there.

use super::clock::LONGEST;
use super::deploy::{Program, RemotePath, Step, deploy};
use super::hosts::HostSpec;
use super::shared::Connect;
use super::ssh::{self, SshOptions};
use super::transport::Link;
use serde::{Deserialize, Serialize};
use std::path::PathBuf;
use std::time::{Duration, Instant};

/// How several hosts are recorded.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default)]
#[non_exhaustive]
pub struct HostOptions {
    /// Instead of `~/.ssh/config` and the system's.
    pub ssh_config: Option<PathBuf>,
    /// Instead of the user's `known_hosts`.
    pub ssh_known_hosts: Option<PathBuf>,
    /// Keys of hosts that are on no file are added to it. A changed key is refused all the same.
    pub accept_new_host_keys: bool,
    /// OpenSSH's program, instead of the SSH that is built in.
    pub ssh_program: Option<PathBuf>,
    /// How long a host may take to be reached and to be ready; 30 s unless set.
    pub ssh_timeout: Duration,
    /// Connections that are being set up at once; 32 unless set.
    pub ssh_workers: usize,
    /// ringstat as it is installed on the hosts, instead of a copy of this one.
    pub remote_binary: Option<String>,
    /// Programs for hosts of other architectures: `x86_64=PATH,aarch64=PATH`.
    pub agent_binaries: Option<String>,
    /// Time between two signs of life during the run, or a third of `orphan_timeout` if that is less; 5
    /// minutes unless set: each costs a host as much as some samples. Without it there are only those that
    /// keep recorders from ending, one in a third of `orphan_timeout`, and none if `max_duration` is no
    /// longer than that.
    pub heartbeat: Option<Duration>,
    /// How long a host goes on without hearing of the launcher: `max_duration` or 12 h unless set.
    pub orphan_timeout: Option<Duration>,
    /// How long the end of a run may take to fetch what the hosts have; 30 s unless set.
    pub stop_timeout: Duration,
    /// How long a host records at most, whoever asks.
    pub max_duration: Option<Duration>,
}

impl Default for HostOptions {
    fn default() -> Self {
        HostOptions {
            ssh_config: None,
            ssh_known_hosts: None,
            accept_new_host_keys: false,
            ssh_program: None,
            ssh_timeout: Duration::from_secs(30),
            ssh_workers: 32,
            remote_binary: None,
            agent_binaries: None,
            heartbeat: Some(Duration::from_secs(300)),
            orphan_timeout: None,
            stop_timeout: Duration::from_secs(30),
            max_duration: None,
        }
    }
}

impl HostOptions {
    /// With times from which deadlines can be made: longer ones are as good as without an end.
    pub(crate) fn bounded(mut self) -> HostOptions {
        let HostOptions {
            ssh_timeout, stop_timeout, heartbeat, orphan_timeout, max_duration, ..
        } = &mut self;
        let may_be = [heartbeat, orphan_timeout, max_duration].into_iter().flatten();
        for time in may_be.chain([ssh_timeout, stop_timeout]) {
            *time = (*time).min(LONGEST);
        }
        self
    }

    /// How hosts are reached.
    pub(crate) fn ssh(&self) -> SshOptions {
        let mut ssh = SshOptions::new(self.ssh_workers.max(1));
        ssh.config.clone_from(&self.ssh_config);
        ssh.known_hosts.clone_from(&self.ssh_known_hosts);
        ssh.accept_new = self.accept_new_host_keys;
        ssh.timeout = self.ssh_timeout;
        ssh.program.clone_from(&self.ssh_program);
        ssh
    }

    /// What runs there, or why there is nothing to run.
    pub(crate) fn program(&self) -> Result<Program, String> {
        match &self.remote_binary {
            Some(path) => RemotePath::new(path).map(Program::Installed),
            None => {
                Program::upload(self.agent_binaries.as_deref()).map_err(|error| error.to_string())
            }
        }
    }
}

/// Reaches hosts by SSH.
pub struct Ways {
    ssh: SshOptions,
    /// Or why there is none.
    program: Result<Program, String>,
}

impl Ways {
    /// As the options say.
    pub fn new(options: &HostOptions) -> Ways {
        Ways { ssh: options.ssh(), program: options.program() }
    }
}

impl Connect for Ways {
    fn end(&self) {
        self.ssh.programs().end();
    }

    fn connect(&self, host: &HostSpec, deadline: Instant) -> Result<Box<dyn Link>, String> {
        ssh::connect(host, &self.ssh, deadline).map_err(|error| error.to_string())
    }

    fn agent_line(
        &self,
        host: &HostSpec,
        link: &mut dyn Link,
        arguments: &str,
        deadline: Instant,
        sent: &mut dyn FnMut(u64),
    ) -> Result<String, String> {
        let program = self.program.as_ref().map_err(String::clone)?;
        let mut before = 0;
        let mut progress = |step| {
            if let Step::Uploading { sent_bytes, .. } = step {
                sent(sent_bytes.saturating_sub(before));
                before = sent_bytes;
            }
        };
        let deployed = deploy(link, &host.name, program, deadline, &mut progress)
            .map_err(|error| error.to_string())?;
        deployed.line(arguments).map_err(|error| error.to_string())
    }
}
