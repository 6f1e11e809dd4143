//! The programs that connections need (`ssh`, `ssh -G`, a `ProxyCommand`), so that none outlives the run
//! that started it: whoever waits for one is not there any more when the launcher ends meanwhile.

use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::process::Child;
use std::sync::{Arc, Mutex, PoisonError, Weak};

/// Those that may run.
#[derive(Debug, Default)]
pub struct Programs {
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    is_over: bool,
    running: Vec<Weak<Running>>,
}

/// One of them, as long as its owner keeps this.
#[derive(Debug)]
pub struct Running {
    /// Of that process alone, whoever has its number later; `None` where the kernel has no such thing.
    process: Option<OwnedFd>,
    /// A file that goes with it.
    file: Option<PathBuf>,
}

impl Programs {
    /// Notes one that has just been started, and a file of its own. It is ended at once if that is
    /// [over](Self::end).
    pub fn add(&self, child: &Child, file: Option<&Path>) -> Arc<Running> {
        let process = pidfd_open(Pid::from_child(child), PidfdFlags::empty()).ok();
        let running = Arc::new(Running { process, file: file.map(Path::to_owned) });
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        if state.is_over {
            running.end();
        }
        state.running.retain(|other| other.strong_count() > 0);
        state.running.push(Arc::downgrade(&running));
        running
    }

    /// Ends all of them, and those that are still to come.
    pub fn end(&self) {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        state.is_over = true;
        state.running.drain(..).filter_map(|each| each.upgrade()).for_each(|each| each.end());
    }
}

impl Running {
    fn end(&self) {
        if let Some(process) = &self.process {
            // It may have ended.
            let _ = pidfd_send_signal(process, Signal::KILL);
        }
        if let Some(file) = &self.file {
            let _ = std::fs::remove_file(file);
        }
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;
    use std::os::unix::process::ExitStatusExt;
    use std::process::Command;

    #[test]
    fn no_program_outlives_the_end_and_no_file_of_one() {
        let programs = Programs::default();
        let start = || Command::new("sleep").arg("600").spawn().unwrap();
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("log");
        std::fs::write(&file, "").unwrap();
        let mut child = start();
        let running = programs.add(&child, Some(&file));
        // Its owner is done with it.
        let mut other = start();
        drop(programs.add(&other, None));
        programs.end();
        assert_eq!(child.wait().unwrap().signal(), Some(libc::SIGKILL));
        assert!(!file.exists());
        assert!(other.try_wait().unwrap().is_none());
        other.kill().unwrap();
        other.wait().unwrap();
        let mut late = start();
        let _late = programs.add(&late, None);
        assert_eq!(late.wait().unwrap().signal(), Some(libc::SIGKILL));
        drop(running);
    }
}
