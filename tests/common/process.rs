//! Starting the program and waiting for it. When it does not do as expected, the test says which
//! command it was, where, how it ended, and all that it said.

use super::{DEADLINE, wait_until};
use rustix::process::{Pid, Signal, kill_process};
use std::ffi::OsStr;
use std::fs::File;
use std::io::{Read, Seek, Write};
use std::os::unix::fs::FileExt;
use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::Instant;

/// A command that is not started yet. It has no standard input unless told otherwise, and `$W` is
/// the test's own directory.
pub struct Cmd {
    pub command: Command,
}

impl Cmd {
    pub fn new(program: impl AsRef<OsStr>, world: &Path) -> Cmd {
        let mut command = Command::new(program);
        command.current_dir(world).env("W", world).env("TZ", "UTC").stdin(Stdio::null());
        Cmd { command }
    }

    pub fn arg(mut self, arg: impl AsRef<OsStr>) -> Cmd {
        self.command.arg(arg);
        self
    }

    pub fn args(mut self, args: &[&str]) -> Cmd {
        self.command.args(args);
        self
    }

    pub fn env(mut self, name: &str, value: impl AsRef<OsStr>) -> Cmd {
        self.command.env(name, value);
        self
    }

    /// The same with `program ARGS` before it.
    pub fn behind(self, program: &str, args: &[&str]) -> Cmd {
        let mut command = Command::new(program);
        command.args(args).arg(self.command.get_program()).args(self.command.get_args());
        command.current_dir(self.command.get_current_dir().unwrap_or(Path::new(".")));
        for (name, value) in self.command.get_envs() {
            value.map(|value| command.env(name, value));
        }
        command.stdin(Stdio::null());
        Cmd { command }
    }

    pub fn dir(mut self, dir: &Path) -> Cmd {
        self.command.current_dir(dir);
        self
    }

    pub fn input(mut self, text: &str) -> Cmd {
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(text.as_bytes()).unwrap();
        file.rewind().unwrap();
        self.command.stdin(file);
        self
    }

    /// Starts it; output goes to files without a name.
    pub fn start(mut self) -> Live {
        let [stdout, stderr] = [(); 2].map(|()| tempfile::tempfile().unwrap());
        self.command.stdout(stdout.try_clone().unwrap()).stderr(stderr.try_clone().unwrap());
        self.spawn(stdout, stderr)
    }

    /// Starts it with output where `self.command` has it go; `stdout` and `stderr` are shown when
    /// something is wrong.
    pub fn spawn(mut self, stdout: File, stderr: File) -> Live {
        let dir = self.command.get_current_dir().unwrap_or(Path::new("?")).display();
        let shown = format!("{:?}\nin {dir}", self.command);
        let child = self.command.spawn().unwrap_or_else(|error| panic!("{shown}: {error}"));
        Live { child, stdout, stderr, shown }
    }

    /// Runs it to its end.
    pub fn output(self) -> Ran {
        self.start().end()
    }

    /// Runs it and fails unless it ends with `status`.
    pub fn ends_with(self, status: i32) -> Ran {
        self.output().has_status(status)
    }

    /// Runs it and fails unless all is well.
    pub fn succeeds(self) -> Ran {
        self.ends_with(0)
    }
}

/// A running command; killed if the test ends before it does.
pub struct Live {
    child: Child,
    stdout: File,
    stderr: File,
    shown: String,
}

impl Live {
    pub fn pid(&self) -> Pid {
        Pid::from_child(&self.child)
    }

    pub fn signal(&self, signal: Signal) {
        kill_process(self.pid(), signal).unwrap();
    }

    /// Whether it still runs.
    pub fn is_running(&mut self) -> bool {
        self.child.try_wait().unwrap().is_none()
    }

    /// What it has said on standard error so far.
    pub fn said(&self) -> String {
        let mut bytes = vec![0; 1 << 16];
        // Its own place in the file stays where it is.
        let count = self.stderr.read_at(&mut bytes, 0).unwrap();
        String::from_utf8_lossy(&bytes[..count]).into_owned()
    }

    /// Ends it as nothing can be prepared for.
    pub fn kill(mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    /// Waits for its end.
    pub fn end(mut self) -> Ran {
        let since = Instant::now();
        let status = wait_until("the end of a command", || match self.child.try_wait().unwrap() {
            None if since.elapsed() > DEADLINE - DEADLINE / 10 => {
                self.ran(None).fail("it does not end");
            }
            status => status,
        });
        self.ran(Some(status))
    }

    /// Waits for the end of what takes its time, however long.
    pub fn end_within_minutes(mut self) -> Ran {
        let status = self.child.wait().unwrap();
        self.ran(Some(status))
    }

    fn ran(&mut self, status: Option<ExitStatus>) -> Ran {
        let text = |file: &mut File| {
            let mut bytes = Vec::new();
            // A terminal cannot be rewound, and has been read by the test.
            if file.rewind().is_ok() {
                file.read_to_end(&mut bytes).unwrap();
            }
            String::from_utf8_lossy(&bytes).into_owned()
        };
        let number =
            |status: ExitStatus| status.code().or(status.signal().map(|signal| -signal)).unwrap();
        Ran {
            status: status.map_or(i32::MIN, number),
            stdout: text(&mut self.stdout),
            stderr: text(&mut self.stderr),
            shown: self.shown.clone(),
        }
    }
}

impl Drop for Live {
    fn drop(&mut self) {
        // Does nothing to one that has been waited for.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A command that has ended.
pub struct Ran {
    /// Its exit status, or minus the signal that ended it.
    pub status: i32,
    pub stdout: String,
    pub stderr: String,
    shown: String,
}

impl Ran {
    pub fn has_status(self, status: i32) -> Ran {
        if self.status != status {
            self.fail(&format!("expected status {status}"));
        }
        self
    }

    /// Fails unless standard error has all of these.
    pub fn says(self, words: &[&str]) -> Ran {
        for word in words {
            if !self.stderr.contains(word) {
                self.fail(&format!("expected {word:?} on standard error"));
            }
        }
        self
    }

    /// Fails if standard error has any of these.
    pub fn does_not_say(self, words: &[&str]) -> Ran {
        for word in words {
            if self.stderr.contains(word) {
                self.fail(&format!("did not expect {word:?} on standard error"));
            }
        }
        self
    }

    /// Fails the test with all there is to know.
    pub fn fail(&self, why: &str) -> ! {
        let line = "=".repeat(79);
        panic!(
            "\n{line}\n{why}\n\ncommand: {}\nstatus: {}\n\nstdout: {}\n\nstderr: {}\n{line}\n",
            self.shown, self.status, self.stdout, self.stderr
        );
    }
}
