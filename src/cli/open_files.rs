//! How many files this process may have open: many hosts need more than is usual. The command that
//! is started keeps the limit that ringstat was started with: programs that use `select`, or that close
//! every number up to the limit, depend on it.

use super::term;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use std::io;
use std::os::unix::process::CommandExt;
use std::process::Command;
use std::sync::OnceLock;

/// At most for each host: a connection with the pipes of a program that makes it, a ring that is
/// fetched, and what is decoded of it later.
const PER_HOST: u64 = 8;
/// For everything else.
const FIXED: u64 = 128;

/// The limit that was there before it was raised.
static BEFORE: OnceLock<Rlimit> = OnceLock::new();

/// Raises the limit as far as `hosts` may need; says so if it cannot be raised so far.
pub fn suffice_for(hosts: usize) {
    if hosts == 0 {
        return;
    }
    let needed = FIXED.saturating_add(PER_HOST.saturating_mul(hosts as u64));
    let Rlimit { current, maximum } = getrlimit(Resource::Nofile);
    // `None` is no limit.
    let Some(soft) = current.filter(|soft| *soft < needed) else { return };
    let raised = maximum.map_or(needed, |hard| hard.min(needed));
    if raised < needed {
        term::warn(format_args!(
            "{hosts} hosts may need {needed} open files, and the hard limit is {raised}; raise it \
             (ulimit -Hn, LimitNOFILE=) if some cannot be reached"
        ));
    }
    if raised > soft
        && setrlimit(Resource::Nofile, Rlimit { current: Some(raised), maximum }).is_ok()
    {
        let _ = BEFORE.set(Rlimit { current, maximum });
    }
}

/// Gives the limit of before to what `command` will start.
pub fn restore_in(command: &mut Command) -> &mut Command {
    let Some(before) = BEFORE.get() else { return command };
    let (current, maximum) = (before.current, before.maximum);
    let restore =
        move || setrlimit(Resource::Nofile, Rlimit { current, maximum }).map_err(io::Error::from);
    // SAFETY: between fork and exec it makes one system call on values of its own: no allocation, no
    // lock, nothing that another thread may have held.
    unsafe { command.pre_exec(restore) }
}
