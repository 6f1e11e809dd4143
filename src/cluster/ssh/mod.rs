//! Hosts by SSH: how one is reached, whether it is the right one, who logs in. What is said to it
//! afterwards goes through [`transport`](crate::cluster::transport).

#[cfg(feature = "ssh")]
mod agent;
pub mod ask;
#[cfg(feature = "ssh")]
mod auth;
#[cfg(feature = "ssh")]
pub mod config;
// OpenSSH's program alone meets only some of them.
#[cfg_attr(not(feature = "ssh"), allow(dead_code))]
pub mod error;
#[cfg(feature = "known-hosts")]
#[cfg_attr(not(feature = "ssh"), allow(dead_code))]
pub mod known_hosts;
#[cfg(feature = "known-hosts")]
mod pattern;
#[cfg(feature = "ssh")]
mod plain;
pub mod programs;
#[cfg(feature = "ssh")]
pub mod route;
#[cfg(feature = "ssh")]
pub mod session;
pub mod throttle;
pub mod tries;

use crate::cluster::hosts::HostSpec;
use crate::cluster::transport::{Link, program};
use error::ConnectError;
use programs::Programs;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};
use throttle::{LONGEST_SILENCE, Throttle};

/// How hosts are connected to. Clones count their connections together, and their programs.
#[derive(Debug, Clone)]
pub struct SshOptions {
    /// Instead of `~/.ssh/config` and the system's.
    pub config: Option<PathBuf>,
    /// Instead of the user's `known_hosts`.
    pub known_hosts: Option<PathBuf>,
    /// Keys of hosts that are on no file are added to it. A changed key is refused all the same.
    pub accept_new: bool,
    /// For a connection to be set up, from its name to the end of authentication.
    pub timeout: Duration,
    /// A peer that is silent for so long is gone.
    pub silence: Duration,
    /// OpenSSH's program, instead of the SSH that is built in.
    pub program: Option<PathBuf>,
    throttle: Arc<Throttle>,
    programs: Arc<Programs>,
}

impl SshOptions {
    /// With at most `workers` connections being set up at once; `--ssh-workers` is 32 by default.
    pub fn new(workers: usize) -> SshOptions {
        SshOptions::patient(workers, LONGEST_SILENCE)
    }

    /// The same, where a peer makes room for others only when it has been silent for so long: on a machine
    /// that is busy enough, one may be silent for longer than usual though all is well.
    pub fn patient(workers: usize, longest_silence: Duration) -> SshOptions {
        SshOptions {
            config: None,
            known_hosts: None,
            accept_new: false,
            timeout: Duration::from_secs(15),
            silence: Duration::from_secs(30),
            program: None,
            throttle: Arc::new(Throttle::new(workers, longest_silence)),
            programs: Arc::default(),
        }
    }

    /// How many connections are being set up.
    pub fn throttle(&self) -> &Arc<Throttle> {
        &self.throttle
    }

    /// What was started for connections.
    pub fn programs(&self) -> &Arc<Programs> {
        &self.programs
    }
}

/// Connects to a host and logs in, at the latest by `deadline`, and within the options' timeout
/// from when its turn has come. With OpenSSH's program that happens with each command: then this
/// checks names alone.
///
/// # Errors
/// [`ConnectError`].
pub fn connect(
    spec: &HostSpec,
    options: &SshOptions,
    deadline: Instant,
) -> Result<Box<dyn Link>, ConnectError> {
    #[cfg(feature = "ssh")]
    if options.program.is_none() {
        let link = crate::cluster::transport::ssh2::connect(spec, options, deadline)?;
        return Ok(Box::new(link));
    }
    Ok(Box::new(program::ProgramLink::new(spec, options, deadline)?))
}
