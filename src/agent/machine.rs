//! What a front needs of its machine beyond the directories of a run: that a recorder is started, whether
//! another user has one, and to wait for its launcher. Apart, so that a front can be driven without.

use super::others::{self, RECORDER};
use super::recorder::{RecorderOrder, Report};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use std::io::{self, Read, Write};
use std::os::unix::process::CommandExt;
use std::process::{Command, Stdio};
use std::time::Duration;
use uuid::Uuid;

/// Longest report of a recorder that is started.
const MAX_REPORT_BYTES: u64 = 64 << 10;

/// A machine, as a front uses it.
pub trait Machine {
    /// Waits until the launcher has said something, or is gone, or for as long as that; whether it has.
    fn hears(&self, patience: Duration) -> bool;

    /// Starts a recorder, which then waits for its start.
    ///
    /// # Errors
    /// A sentence: there is none.
    fn start(&mut self, order: &RecorderOrder) -> Result<(), String>;

    /// Whether that other user has a recorder of the run here.
    fn is_recorded_by(&self, user: &str, run_id: Uuid) -> bool;
}

/// The one that this process is on.
pub struct ThisMachine;

impl Machine for ThisMachine {
    fn hears(&self, patience: Duration) -> bool {
        let stdin = rustix::stdio::stdin();
        let timeout = Timespec::try_from(patience).ok();
        let found = poll(&mut [PollFd::new(&stdin, PollFlags::IN)], timeout.as_ref());
        // Its recorder's end, say, is nothing to read; whatever else is wrong, the next read says more.
        !matches!(found, Ok(0) | Err(Errno::INTR))
    }

    fn start(&mut self, order: &RecorderOrder) -> Result<(), String> {
        let text = serde_json::to_vec(order).map_err(|error| error.to_string())?;
        let cannot = |error: io::Error| format!("the recorder cannot be started: {error}");
        let mut child = Command::new("/proc/self/exe")
            .arg0("ringstat")
            .args(RECORDER)
            .arg(order.place.run_id.to_string())
            .current_dir("/")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .map_err(cannot)?;
        if let Some(mut stdin) = child.stdin.take() {
            stdin.write_all(&text).map_err(cannot)?;
        }
        let mut text = String::new();
        if let Some(stdout) = child.stdout.take() {
            stdout.take(MAX_REPORT_BYTES).read_to_string(&mut text).map_err(cannot)?;
        }
        match serde_json::from_str(&text) {
            Ok(Report::Ready) => Ok(()),
            Ok(Report::Failed(what)) => {
                let _ = child.wait();
                Err(what)
            }
            Err(_) => match child.try_wait() {
                Ok(Some(status)) => Err(format!("the recorder ended before its start: {status}")),
                _ => Err("the recorder does not say how it began".to_owned()),
            },
        }
    }

    fn is_recorded_by(&self, user: &str, run_id: Uuid) -> bool {
        others::is_recorded_by(user, run_id)
    }
}
