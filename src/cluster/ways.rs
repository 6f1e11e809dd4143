//! How agents are reached and started, as the user has it: SSH's options, and which program is run there.

use super::hosts::HostSpec;
use super::launch::Connect;
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
    /// Time between two signs of life during the run; none without it. 10 s unless set.
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
            heartbeat: Some(Duration::from_secs(10)),
            orphan_timeout: None,
            stop_timeout: Duration::from_secs(30),
            max_duration: None,
        }
    }
}

/// Whether a path can be a word of a shell's as it stands, whichever shell.
pub fn is_plain_path(path: &str) -> bool {
    let is_plain = |c: char| c.is_ascii_alphanumeric() || "/._-+@%,:".contains(c);
    !path.is_empty() && !path.starts_with('-') && path.chars().all(is_plain)
}

/// Reaches hosts by SSH.
pub struct Ways {
    ssh: SshOptions,
    remote_binary: Option<String>,
}

impl Ways {
    /// As the options say.
    pub fn new(options: &HostOptions) -> Ways {
        let mut ssh = SshOptions::new(options.ssh_workers);
        ssh.config.clone_from(&options.ssh_config);
        ssh.known_hosts.clone_from(&options.ssh_known_hosts);
        ssh.accept_new = options.accept_new_host_keys;
        ssh.timeout = options.ssh_timeout;
        ssh.program.clone_from(&options.ssh_program);
        Ways { ssh, remote_binary: options.remote_binary.clone() }
    }
}

impl Connect for Ways {
    fn connect(&self, host: &HostSpec, deadline: Instant) -> Result<Box<dyn Link>, String> {
        ssh::connect(host, &self.ssh, deadline).map_err(|error| error.to_string())
    }

    fn program(&self, _link: &mut dyn Link, _deadline: Instant) -> Result<String, String> {
        match &self.remote_binary {
            Some(path) if is_plain_path(path) => Ok(path.clone()),
            Some(path) => Err(format!("{path:?} cannot be a path of a program there")),
            None => Ok("ringstat".to_owned()),
        }
    }
}
