//! What the launcher and the threads of its hosts have in common, and say to each other: how hosts are
//! reached, the plan of each, limits, commands, events, what is known of all. What a thread does with it is
//! `worker`'s, what all are told is `launch`'s; here is neither.

use super::hosts::HostSpec;
use super::machine::MachineIdentity;
use super::protocol::{Place, Settings};
use super::record::HostRecord;
use super::transport::Link;
use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::atomic::AtomicU64;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// How soon the first sign of life of a host that records comes: its clock was measured while it was busy
/// with its start, as all others were.
pub const FIRST_HEARTBEAT: Duration = Duration::from_secs(10);

/// How an agent is reached and started.
pub trait Connect: Send + Sync {
    /// Nobody waits for any connection any more: what was started for them ends.
    fn end(&self) {}

    /// An authenticated way to a host.
    ///
    /// # Errors
    /// A sentence.
    fn connect(&self, host: &HostSpec, deadline: Instant) -> Result<Box<dyn Link>, String>;

    /// The line for a login shell there that runs ringstat, which is put there if need be, with these
    /// arguments. `sent` hears of bytes as they go there.
    ///
    /// # Errors
    /// A sentence.
    fn agent_line(
        &self,
        host: &HostSpec,
        link: &mut dyn Link,
        arguments: &str,
        deadline: Instant,
        sent: &mut dyn FnMut(u64),
    ) -> Result<String, String>;
}

/// What all hosts of a run have in common.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// How long a host may take to be reached and to be ready, and to answer.
    pub timeout: Duration,
    /// Time between two signs of life; without it there are none but those without which recorders end.
    pub heartbeat: Option<Duration>,
    /// The first of those that are wanted comes no later.
    pub first_heartbeat: Duration,
    /// How long a host goes on without hearing of the launcher.
    pub orphan_timeout: Duration,
    /// Bytes that each may take here.
    pub host_bytes: u64,
    /// How long the stop waits for hosts that were given up, and have no samples.
    pub given_up: Duration,
}

/// One host that is to be recorded, or only to be fetched from.
#[derive(Debug, Clone)]
pub struct HostPlan {
    /// How it is reached.
    pub spec: HostSpec,
    /// The run there.
    pub place: Place,
    /// How it records; `None` if it has.
    pub settings: Option<Settings>,
    /// Where its rings go here; it is there and empty, or as an earlier attempt has left it.
    pub dir: PathBuf,
    /// What is known of it.
    pub record: HostRecord,
}

/// What a host has come to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Event {
    /// It is ready for its start, or it never will be: its record says which.
    SetUp,
    /// It has been fetched from, or it will not be before the deadline.
    Settled,
    /// Nothing is to be done with it any more.
    Over,
}

/// What a host is told.
#[derive(Debug, Clone, Copy)]
pub(super) enum Command {
    /// Tick 0 is at this instant of our `CLOCK_MONOTONIC`.
    Go(u64),
    /// Stop, and be fetched from until then.
    Stop(Instant),
    /// Be done. Whether what is there is not needed any more.
    End { discard: bool },
}

/// A host that says which machine it is.
#[derive(Debug, Clone)]
pub(super) struct Claim {
    pub name: String,
    /// `None` for this machine, which is recorded without an agent.
    pub remote: Option<RemoteClaim>,
}

/// One that is recorded by an agent.
#[derive(Debug, Clone)]
pub(super) struct RemoteClaim {
    /// Its number.
    pub index: usize,
    /// Its run there.
    pub place: Place,
    /// Who logs in there, if that is known.
    pub user: Option<String>,
}

/// What the threads of all hosts have in common.
pub(super) struct Shared {
    pub records: Mutex<Vec<HostRecord>>,
    /// Who was the first to say that it is this machine.
    pub machines: Mutex<HashMap<MachineIdentity, Claim>>,
    /// Bytes that have come.
    pub bytes: AtomicU64,
    /// Bytes that have gone.
    pub sent: AtomicU64,
    pub limits: Limits,
    pub connect: Arc<dyn Connect>,
}

/// What a mutex guards, whatever became of who held it.
pub(super) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // Everything in them is valid at any moment: a panic elsewhere spoils nothing.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
