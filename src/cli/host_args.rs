//! The part of the command line that is about several hosts: which, how they are reached, and what is
//! started on them.

use super::args::{Places, time};
use clap::Args;
use ringstat::HostOptions;
use std::path::PathBuf;
use std::time::Duration;

/// Which hosts are recorded, and how they are reached.
#[derive(Debug, Args)]
#[command(next_help_heading = "Several hosts")]
pub struct HostArgs {
    #[command(flatten)]
    pub ways: WayArgs,
    /// Time between two signs of life to each host while it records, at most a third of
    /// --orphan-timeout; off: one in that time alone, where the recorder would end without it
    #[arg(
        long, value_name = "TIME|off", value_parser = time_or_off, allow_hyphen_values = true,
        default_value = "5m"
    )]
    pub heartbeat: OrOff,
    /// How long a host goes on without a sign of life [default: --duration, or 12h]
    #[arg(long, value_name = "TIME", value_parser = time, allow_hyphen_values = true)]
    pub orphan_timeout: Option<Duration>,
    /// How long the end may take to fetch what the hosts have; what is missing then is for
    /// ringstat recover
    #[arg(long, value_name = "TIME", value_parser = time, allow_hyphen_values = true, default_value = "30")]
    pub stop_timeout: Duration,
}

/// A time, or none.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct OrOff(pub Option<Duration>);

fn time_or_off(text: &str) -> Result<OrOff, String> {
    if text == "off" { Ok(OrOff(None)) } else { time(text).map(|time| OrOff(Some(time))) }
}

impl HostArgs {
    /// As the library takes it.
    pub fn options(&self) -> HostOptions {
        let mut options = self.ways.options();
        options.heartbeat = self.heartbeat.0;
        options.orphan_timeout = self.orphan_timeout;
        options.stop_timeout = self.stop_timeout;
        options
    }
}

/// Hosts, how they are reached, and what runs there.
#[derive(Debug, Args)]
pub struct WayArgs {
    /// Hosts, separated by commas: names, addresses, user@name, name:slots,
    /// [fe80::1%eth0], node[001-016,020], ssh://name:port; the SSH configuration has the rest
    #[arg(long, value_name = "LIST")]
    pub hosts: Vec<String>,
    /// File with hosts, one a line, as MPI's programs take it
    #[arg(long, value_name = "FILE")]
    pub hostfile: Option<PathBuf>,
    /// SSH configuration to use instead of the user's and the system's
    #[arg(long, value_name = "FILE")]
    pub ssh_config: Option<PathBuf>,
    /// Known hosts to use instead of the user's
    #[arg(long, value_name = "FILE")]
    pub ssh_known_hosts: Option<PathBuf>,
    /// Add keys of hosts that are not known yet to the known ones; a changed key is refused all the
    /// same
    #[arg(long)]
    pub accept_new_host_keys: bool,
    /// Use this program of OpenSSH's (ssh) instead of the SSH that is built in: for Kerberos,
    /// security keys, Match and odd servers
    #[arg(long, value_name = "PROGRAM")]
    pub ssh_program: Option<PathBuf>,
    /// How long a host may take to be reached and ready
    #[arg(
        long, value_name = "TIME", value_parser = time, allow_hyphen_values = true,
        default_value = "30"
    )]
    pub ssh_timeout: Duration,
    /// Connections that are being set up at once
    #[arg(long, value_name = "N", default_value = "32")]
    pub ssh_workers: usize,
    /// ringstat as it is installed on the hosts, to be used instead of a copy of this one
    #[arg(long, value_name = "PATH")]
    pub remote_binary: Option<String>,
    /// ringstat for hosts of other architectures: x86_64=PATH,aarch64=PATH
    #[arg(long, value_name = "LIST", conflicts_with = "remote_binary")]
    pub agent_binary: Option<String>,
}

impl WayArgs {
    /// As the library takes it.
    pub fn options(&self) -> HostOptions {
        let mut options = HostOptions::default();
        options.ssh_config.clone_from(&self.ssh_config);
        options.ssh_known_hosts.clone_from(&self.ssh_known_hosts);
        options.accept_new_host_keys = self.accept_new_host_keys;
        options.ssh_program.clone_from(&self.ssh_program);
        options.ssh_timeout = self.ssh_timeout;
        options.ssh_workers = self.ssh_workers;
        options.remote_binary.clone_from(&self.remote_binary);
        options.agent_binaries.clone_from(&self.agent_binary);
        options
    }
}

#[derive(Debug, Args)]
#[command(after_help = "\
Exit status: 0 if all hosts can be recorded, and all was removed that was to be; 1 if not; 2 if ringstat
was asked for what cannot be.")]
pub struct HostsArgs {
    #[command(flatten)]
    pub ways: WayArgs,
    /// List what was left on the hosts, programs that were brought there and runs that died, and
    /// remove it once that is confirmed; what runs or is recorded stays
    #[arg(long)]
    pub clean: bool,
    /// With --clean: remove without asking
    #[arg(long, requires = "clean")]
    pub yes: bool,
    #[command(flatten)]
    pub places: Places,
}

#[derive(Debug, Args)]
pub struct AgentArgs {
    /// What its first line is to say
    #[arg(long, value_name = "TEXT", default_value = "")]
    pub nonce: String,
    /// Record, as standard input says, and do not end with the connection
    #[arg(long)]
    pub recorder: bool,
    /// The run, to be seen by people
    #[arg(long, value_name = "RUN")]
    pub run_id: Option<String>,
}
