//! The wrapped command: started in our process group with our terminal and standard input, so
//! that it cannot tell that ringstat is there, and waited for.

use super::open_files;
use super::signals::{self, Signal};
use super::term;
use rustix::process::{Pid, WaitId, WaitIdOptions, kill_process, waitid};
use std::ffi::OsString;
use std::io;
use std::os::unix::process::ExitStatusExt;
use std::process::{Child, Command, ExitStatus};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// The command was not found, as shells say it.
const NOT_FOUND: u8 = 127;
/// The command was found and cannot be started, as shells say it.
const NOT_STARTED: u8 = 126;

/// Listens for signals from before there is anything to lose.
pub struct Waiting {
    phase: Arc<Mutex<Phase>>,
}

/// A running command.
pub struct Wrapped {
    child: Child,
    phase: Arc<Mutex<Phase>>,
}

/// What a signal means just now.
enum Phase {
    /// There is no command yet; it will get what has been heard.
    Before(Vec<i32>),
    /// The command runs.
    Running(Pid),
    /// The command has ended with this status, and files are being written. The first signal that
    /// is heard now may be the one that ended the command.
    Writing { status: u8, heard: u32 },
}

/// Why there is no command: the exit status and the sentence.
pub struct NotStarted {
    pub status: u8,
    pub sentence: String,
}

impl Waiting {
    /// From now on no signal ends ringstat without it having put things in order.
    pub fn listen() -> Waiting {
        let phase = Arc::new(Mutex::new(Phase::Before(Vec::new())));
        let shared = phase.clone();
        let heard = move |signal| hear(&shared, signal);
        if let Err(error) = signals::listen(&signals::FORWARDED, heard) {
            term::warn(format_args!("signals sent to ringstat are not passed on: {error}"));
        }
        Waiting { phase }
    }

    /// Starts the command, unless a signal has come that would have ended it.
    pub fn start(self, command: &[OsString]) -> Result<Wrapped, NotStarted> {
        if let Phase::Before(early) = &*lock(&self.phase)
            && let Some(number) = early.iter().find(|number| signals::ENDING.contains(number))
        {
            let status = u8::try_from(128 + number).unwrap_or(u8::MAX);
            return Err(NotStarted { status, sentence: "ended before the command began".into() });
        }
        let child = spawn(command)?;
        if let Some(pid) = pid_of(&child)
            && let Phase::Before(early) = set(&self.phase, Phase::Running(pid))
        {
            early.into_iter().for_each(|number| pass_on(pid, number));
        }
        Ok(Wrapped { child, phase: self.phase })
    }
}

impl Wrapped {
    /// Waits for its end; from then on repeated signals end ringstat with this same status.
    pub fn wait(mut self) -> u8 {
        if let Some(pid) = pid_of(&self.child) {
            // Its number stays its own until it is reaped, and signals stop being passed on first.
            let options = WaitIdOptions::EXITED | WaitIdOptions::NOWAIT;
            while waitid(WaitId::Pid(pid), options).err() == Some(rustix::io::Errno::INTR) {}
        }
        let mut phase = lock(&self.phase);
        let status = self.child.wait().map_or(1, status_of);
        *phase = Phase::Writing { status, heard: 0 };
        status
    }
}

fn spawn(command: &[OsString]) -> Result<Child, NotStarted> {
    let empty = OsString::new();
    let (program, arguments) = command.split_first().unwrap_or((&empty, &[]));
    let start = |command: &mut Command| open_files::restore_in(command.args(arguments)).spawn();
    let spawned = match start(&mut Command::new(program)) {
        // A script without an interpreter line: shells, `env` and `nohup` run it, and so do we.
        Err(error) if error.raw_os_error() == Some(libc::ENOEXEC) => {
            start(Command::new("/bin/sh").arg(program))
        }
        other => other,
    };
    spawned.map_err(|error| {
        let (status, remedy) = match error.kind() {
            io::ErrorKind::NotFound => (NOT_FOUND, "; is it installed, and on PATH?"),
            _ => (NOT_STARTED, ""),
        };
        NotStarted { status, sentence: format!("cannot start {program:?}: {error}{remedy}") }
    })
}

fn pid_of(child: &Child) -> Option<Pid> {
    i32::try_from(child.id()).ok().and_then(Pid::from_raw)
}

/// 128 + n for a signal, as shells say it.
fn status_of(status: ExitStatus) -> u8 {
    let number = status.code().or(status.signal().map(|signal| 128 + signal)).unwrap_or(1);
    u8::try_from(number & 0xff).unwrap_or(1)
}

fn lock(phase: &Mutex<Phase>) -> MutexGuard<'_, Phase> {
    phase.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Returns what was before.
fn set(phase: &Mutex<Phase>, new: Phase) -> Phase {
    std::mem::replace(&mut *lock(phase), new)
}

fn hear(phase: &Mutex<Phase>, signal: Signal) {
    match &mut *lock(phase) {
        Phase::Before(early) => early.push(signal.number),
        Phase::Running(pid) if signal.for_us_alone => pass_on(*pid, signal.number),
        // The command has heard it, and what becomes of it becomes of us.
        Phase::Running(_) => {}
        Phase::Writing { heard: heard @ 0, .. } => *heard = 1,
        Phase::Writing { status, .. } => signals::leave(*status),
    }
}

fn pass_on(pid: Pid, number: i32) {
    if let Some(signal) = rustix::process::Signal::from_named_raw(number) {
        // It may just have ended; then there is nobody to tell.
        let _ = kill_process(pid, signal);
    }
}
