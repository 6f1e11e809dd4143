//! Running the program call by call (ptrace(2)): what it does to file systems is seen before and
//! after it happens, and the program can be killed in between. Linux stops one thread at a time;
//! the others go on.

use super::Cmd;
use nix::sys::ptrace::{self, Event, Options};
use nix::sys::signal::{Signal, kill};
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::Pid;
use std::collections::HashMap;
use std::io::Write;
use std::process::{Command, Stdio};

/// One system call that changes a file system.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Call {
    pub name: &'static str,
    /// Which of that name, from 0 on.
    pub nth: usize,
    /// It has been carried out; else it is about to be.
    pub done: bool,
}

/// What becomes of the program.
pub enum Then {
    GoOn,
    Kill,
}

/// How the program ended.
#[derive(Debug, PartialEq, Eq)]
pub enum End {
    /// By itself, with this status.
    Exited(i32),
    Killed,
}

/// Runs `cmd` and asks `then` at each call that changes a file system, from its very first on.
/// What the program starts is not followed.
pub fn trace(cmd: &Cmd, mut then: impl FnMut(Call) -> Then) -> End {
    let pid = held(cmd);
    let mut counts: HashMap<&'static str, usize> = HashMap::new();
    let mut within: HashMap<Pid, Call> = HashMap::new();
    let mut signal = None;
    let mut tid = pid;
    loop {
        // One that was killed meanwhile is not there to be told.
        let _ = ptrace::syscall(tid, signal.take());
        let status = wait_for_any();
        tid = match status {
            WaitStatus::Exited(tid, status) if tid == pid => return End::Exited(status),
            WaitStatus::Signaled(tid, signal, _) if tid == pid => {
                assert_eq!(signal, Signal::SIGKILL, "the program was killed by something else");
                return End::Killed;
            }
            WaitStatus::PtraceSyscall(tid) => {
                let call = match entered(tid) {
                    Some(name) => {
                        let nth = counts.entry(name).or_default();
                        let call = Call { name, nth: *nth, done: false };
                        *nth += 1;
                        within.insert(tid, call);
                        Some(call)
                    }
                    None => within.remove(&tid).map(|call| Call { done: true, ..call }),
                };
                if let Some(call) = call
                    && let Then::Kill = then(call)
                {
                    kill(pid, Signal::SIGKILL).unwrap();
                }
                tid
            }
            WaitStatus::Stopped(tid, number) => {
                signal = Some(number);
                tid
            }
            other => other.pid().unwrap(),
        };
    }
}

/// `cmd` in its last instant before it begins, and traced.
#[allow(clippy::zombie_processes)] // It is waited for with its threads, by `wait_for_any`.
fn held(cmd: &Cmd) -> Pid {
    // The shell waits until it is traced and becomes the program then.
    let mut shell = Command::new("sh");
    shell.args(["-c", r#"read -r _; exec "$@" </dev/null"#, "sh"]);
    shell.arg(cmd.command.get_program()).args(cmd.command.get_args());
    for (name, value) in cmd.command.get_envs() {
        shell.env(name, value.unwrap_or_default());
    }
    shell.current_dir(cmd.command.get_current_dir().unwrap());
    shell.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::null());
    let mut child = shell.spawn().unwrap();
    let pid = Pid::from_raw(child.id().try_into().unwrap());
    let options = Options::PTRACE_O_TRACESYSGOOD
        | Options::PTRACE_O_TRACECLONE
        | Options::PTRACE_O_TRACEEXEC
        | Options::PTRACE_O_EXITKILL;
    ptrace::seize(pid, options).unwrap();
    ptrace::interrupt(pid).unwrap();
    assert!(matches!(wait_for_any(), WaitStatus::PtraceEvent(..)));
    child.stdin.take().unwrap().write_all(b"\n").unwrap();
    loop {
        let _ = ptrace::cont(pid, None);
        match wait_for_any() {
            WaitStatus::PtraceEvent(_, _, event) if event == Event::PTRACE_EVENT_EXEC as i32 => {
                return pid;
            }
            WaitStatus::Exited(..) | WaitStatus::Signaled(..) => panic!("it was not started"),
            _ => {}
        }
    }
}

/// Of the threads that this thread traces; other tests have children too.
fn wait_for_any() -> WaitStatus {
    let flags = WaitPidFlag::__WALL | WaitPidFlag::__WNOTHREAD;
    waitpid(None, Some(flags)).unwrap()
}

/// The call that a thread is about to make, if it changes a file system; `None` also at the end of
/// a call.
fn entered(tid: Pid) -> Option<&'static str> {
    // It is gone if the program was killed.
    let info = ptrace::syscall_info(tid).ok()?;
    if info.op != libc::PTRACE_SYSCALL_INFO_ENTRY {
        return None;
    }
    // SAFETY: the kernel has filled in `entry`, and all of its bytes, for this `op`.
    let entry = unsafe { info.u.entry };
    name_of(entry.nr.try_into().ok()?, &entry.args)
}

fn name_of(number: libc::c_long, args: &[u64; 6]) -> Option<&'static str> {
    let creates = |flags: u64| flags & (libc::O_CREAT | libc::O_TRUNC) as u64 != 0;
    let is_file = |descriptor: u64| descriptor > 2;
    Some(match number {
        libc::SYS_openat if creates(args[2]) => "openat",
        libc::SYS_write if is_file(args[0]) => "write",
        libc::SYS_pwrite64 => "pwrite64",
        libc::SYS_copy_file_range => "copy_file_range",
        libc::SYS_renameat => "renameat",
        libc::SYS_renameat2 => "renameat2",
        libc::SYS_linkat => "linkat",
        libc::SYS_unlinkat => "unlinkat",
        libc::SYS_mkdirat => "mkdirat",
        libc::SYS_fsync => "fsync",
        libc::SYS_fdatasync => "fdatasync",
        libc::SYS_ftruncate => "ftruncate",
        libc::SYS_fallocate => "fallocate",
        libc::SYS_fchmod => "fchmod",
        libc::SYS_fchown => "fchown",
        other => return old_name_of(other, args),
    })
}

/// Calls that newer architectures do not have.
#[cfg(target_arch = "x86_64")]
fn old_name_of(number: libc::c_long, args: &[u64; 6]) -> Option<&'static str> {
    Some(match number {
        libc::SYS_open if args[1] & libc::O_CREAT as u64 != 0 => "open",
        libc::SYS_rename => "rename",
        libc::SYS_link => "link",
        libc::SYS_unlink => "unlink",
        libc::SYS_mkdir => "mkdir",
        libc::SYS_rmdir => "rmdir",
        _ => return None,
    })
}

#[cfg(not(target_arch = "x86_64"))]
fn old_name_of(_: libc::c_long, _: &[u64; 6]) -> Option<&'static str> {
    None
}
