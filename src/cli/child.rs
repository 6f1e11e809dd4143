//! The wrapped command: started in our process group with our terminal and standard input, so
//! that it cannot tell that ringstat is there, and waited for.

use super::signals::{self, Signal};
use super::term;
use rustix::process::{Pid, WaitId, WaitIdOptions, kill_process, waitid};
use std::io;
use std::os::unix::process::ExitStatusExt;
use std::process::{Child, Command, ExitStatus};
use std::sync::{Arc, Mutex, PoisonError};

/// The command was not found, as shells say it.
const NOT_FOUND: u8 = 127;
/// The command was found and cannot be started, as shells say it.
const NOT_STARTED: u8 = 126;

/// A running command.
pub struct Wrapped {
    child: Child,
    phase: Arc<Mutex<Phase>>,
}

/// What a signal means just now.
enum Phase {
    /// There is no command yet.
    Before,
    /// The command runs.
    Running(Pid),
    /// The command has ended with this status, and files are being written.
    Writing(u8),
}

/// Why there is no command: the exit status and the sentence.
pub struct NotStarted {
    pub status: u8,
    pub sentence: String,
}

impl Wrapped {
    /// Starts the command.
    pub fn start(command: &[String]) -> Result<Wrapped, NotStarted> {
        let phase = Arc::new(Mutex::new(Phase::Before));
        let shared = phase.clone();
        if let Err(error) =
            signals::listen(&signals::FORWARDED, move |signal| hear(&shared, signal))
        {
            term::warn(format_args!("signals sent to ringstat are not passed on: {error}"));
        }
        let (program, arguments) = command.split_first().unwrap_or((&EMPTY, &[]));
        let child = Command::new(program).args(arguments).spawn().map_err(|error| NotStarted {
            status: if error.kind() == io::ErrorKind::NotFound { NOT_FOUND } else { NOT_STARTED },
            sentence: format!("cannot start {program}: {error}"),
        })?;
        if let Some(pid) = pid_of(&child) {
            set(&phase, Phase::Running(pid));
        }
        Ok(Wrapped { child, phase })
    }

    /// Waits for its end; from then on a signal ends ringstat with this same status.
    pub fn wait(mut self) -> u8 {
        if let Some(pid) = pid_of(&self.child) {
            // Its number stays its own until it is reaped, and signals stop being passed on first.
            let options = WaitIdOptions::EXITED | WaitIdOptions::NOWAIT;
            while waitid(WaitId::Pid(pid), options).err() == Some(rustix::io::Errno::INTR) {}
        }
        set(&self.phase, Phase::Writing(0));
        let status = self.child.wait().map_or(1, status_of);
        set(&self.phase, Phase::Writing(status));
        status
    }
}

static EMPTY: String = String::new();

fn pid_of(child: &Child) -> Option<Pid> {
    i32::try_from(child.id()).ok().and_then(Pid::from_raw)
}

/// 128 + n for a signal, as shells say it.
fn status_of(status: ExitStatus) -> u8 {
    let number = status.code().or(status.signal().map(|signal| 128 + signal)).unwrap_or(1);
    u8::try_from(number & 0xff).unwrap_or(1)
}

fn set(phase: &Mutex<Phase>, new: Phase) {
    *phase.lock().unwrap_or_else(PoisonError::into_inner) = new;
}

fn hear(phase: &Mutex<Phase>, signal: Signal) {
    match *phase.lock().unwrap_or_else(PoisonError::into_inner) {
        Phase::Running(pid) if signal.for_us_alone => {
            if let Some(number) = rustix::process::Signal::from_named_raw(signal.number) {
                // It may just have ended; then there is nobody to tell.
                let _ = kill_process(pid, number);
            }
        }
        // The command has heard it, and what becomes of it becomes of us.
        Phase::Running(_) | Phase::Before => {}
        Phase::Writing(status) => {
            term::warn("interrupted: `ringstat recover` will write the files");
            std::process::exit(status.into());
        }
    }
}
