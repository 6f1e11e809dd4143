//! OpenSSH's own program: for Kerberos, security keys, `Match`, and servers that the SSH which is
//! built in does not understand. Each command is a connection of its own.

use super::{Channel, End, Link, poll};
use crate::cluster::hosts::HostSpec;
use crate::cluster::ssh::SshOptions;
use crate::cluster::ssh::ask::{adds_new_keys, program_arguments};
use crate::cluster::ssh::error::ConnectError;
use rustix::event::{PollFd, PollFlags};
use std::ffi::OsString;
use std::io::{self, Read, Write};
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::PathBuf;
use std::process::{Child, ChildStderr, ChildStdin, ChildStdout, Command, Stdio};
use std::time::{Duration, Instant};

/// What `ssh` ends with when it is itself that failed, or a remote command ended by a signal.
const OWN_FAILURE: i32 = 255;
/// How much of the end of standard error is kept, for what it says of a failure.
const KEPT_BYTES: usize = 4096;

/// How `ssh` is to be called for one host.
pub struct ProgramLink {
    program: PathBuf,
    arguments: Vec<OsString>,
    host: String,
}

impl ProgramLink {
    /// Checks names and asks the configuration what it says of unknown keys.
    ///
    /// # Errors
    /// [`ConnectError::Configuration`], [`ConnectError::TimedOut`].
    pub fn new(
        spec: &HostSpec,
        options: &SshOptions,
        deadline: Instant,
    ) -> Result<ProgramLink, ConnectError> {
        let deadline = deadline.min(Instant::now() + options.timeout);
        let adds_new = adds_new_keys(spec, options, deadline)?;
        let mut arguments: Vec<OsString> =
            ["-T", "-x", "-a", "-e", "none"].into_iter().map(Into::into).collect();
        arguments.extend(program_arguments(spec, options));
        let third = (options.silence.as_secs() / 3).max(1);
        let mut set = vec![
            "BatchMode=yes".to_owned(),
            // With `no`, a changed key would pass.
            format!("StrictHostKeyChecking={}", if adds_new { "accept-new" } else { "yes" }),
            format!("ConnectTimeout={}", options.timeout.as_secs().max(1)),
            format!("ServerAliveInterval={third}"),
            "ServerAliveCountMax=2".into(),
            // A master of the user's would outlive this, or end in the middle.
            "ControlPath=none".into(),
            "RemoteCommand=none".into(),
            "ClearAllForwardings=yes".into(),
        ];
        if let Some(file) = &options.known_hosts {
            let file = file.display().to_string().replace('%', "%%");
            set.push(format!("UserKnownHostsFile=\"{file}\""));
        }
        for each in set {
            arguments.extend(["-o".into(), each.into()]);
        }
        let program = options.program.clone().unwrap_or_else(|| "ssh".into());
        Ok(ProgramLink { program, arguments, host: spec.host.clone() })
    }
}

impl Link for ProgramLink {
    fn exec<'l>(
        &'l mut self,
        command: &str,
        _deadline: Instant,
    ) -> io::Result<Box<dyn Channel + 'l>> {
        let mut ssh = Command::new(&self.program);
        ssh.args(&self.arguments).arg("--").arg(&self.host).arg(command);
        ssh.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        // Of its own group: an interrupt at the terminal is for this program to handle.
        let mut child = ssh.process_group(0).spawn().map_err(|error| {
            let program = self.program.display();
            io::Error::new(error.kind(), format!("{program}: {error}; install it, or name another"))
        })?;
        let channel = ProgramChannel {
            stdin: child.stdin.take(),
            stdout: child.stdout.take(),
            stderr: child.stderr.take(),
            child,
            kept: Vec::new(),
        };
        for fd in channel.fds() {
            rustix::io::ioctl_fionbio(fd, true)?;
        }
        Ok(Box::new(channel))
    }
}

struct ProgramChannel {
    child: Child,
    stdin: Option<ChildStdin>,
    /// `None` from its end on.
    stdout: Option<ChildStdout>,
    stderr: Option<ChildStderr>,
    kept: Vec<u8>,
}

impl ProgramChannel {
    fn fds(&self) -> impl Iterator<Item = BorrowedFd<'_>> {
        let stdin = self.stdin.as_ref().map(AsFd::as_fd);
        let stdout = self.stdout.as_ref().map(AsFd::as_fd);
        [stdin, stdout, self.stderr.as_ref().map(AsFd::as_fd)].into_iter().flatten()
    }

    /// What `ssh` said last.
    fn last_words(&self) -> String {
        let text = String::from_utf8_lossy(&self.kept);
        let lines: Vec<&str> =
            text.lines().map(str::trim).filter(|line| !line.is_empty()).collect();
        lines[lines.len().saturating_sub(3)..].join("; ")
    }
}

/// Reads from what may have ended; its end is remembered.
fn read_from(from: &mut Option<impl Read>, bytes: &mut [u8]) -> io::Result<usize> {
    let Some(open) = from else { return Ok(0) };
    let count = open.read(bytes)?;
    if count == 0 && !bytes.is_empty() {
        *from = None;
    }
    Ok(count)
}

impl Channel for ProgramChannel {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match &mut self.stdin {
            Some(stdin) => stdin.write(bytes),
            None => Err(io::ErrorKind::BrokenPipe.into()),
        }
    }

    fn read(&mut self, bytes: &mut [u8]) -> io::Result<usize> {
        read_from(&mut self.stdout, bytes)
    }

    fn read_stderr(&mut self, bytes: &mut [u8]) -> io::Result<usize> {
        let count = read_from(&mut self.stderr, bytes)?;
        self.kept.extend_from_slice(&bytes[..count]);
        let excess = self.kept.len().saturating_sub(KEPT_BYTES);
        self.kept.drain(..excess);
        Ok(count)
    }

    fn end_input(&mut self) -> io::Result<()> {
        self.stdin = None;
        Ok(())
    }

    fn wait(&mut self, to_write: bool, deadline: Instant) -> io::Result<()> {
        let stdout = self.stdout.as_ref().map(|fd| PollFd::new(fd, PollFlags::IN));
        let stderr = self.stderr.as_ref().map(|fd| PollFd::new(fd, PollFlags::IN));
        let stdin = self.stdin.as_ref().filter(|_| to_write);
        let stdin = stdin.map(|fd| PollFd::new(fd, PollFlags::OUT));
        let mut fds: Vec<_> = [stdout, stderr, stdin].into_iter().flatten().collect();
        if fds.is_empty() {
            return Ok(());
        }
        poll(&mut fds, deadline)
    }

    fn end(&mut self, deadline: Instant) -> End {
        self.stdin = None;
        let mut rest = [0; 4096];
        while self.stdout.is_some() || self.stderr.is_some() {
            let mut is_idle = true;
            for end in [self.read(&mut rest), self.read_stderr(&mut rest)] {
                match end {
                    Ok(0) => {}
                    Ok(_) => is_idle = false,
                    Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                    Err(error) => return End::Lost(error.to_string()),
                }
            }
            if Instant::now() >= deadline {
                return End::Lost("it has not ended in time".into());
            }
            if is_idle && let Err(error) = self.wait(false, deadline) {
                return End::Lost(error.to_string());
            }
        }
        // It has closed its outputs: its end is a matter of moments.
        let status = loop {
            match self.child.try_wait() {
                Ok(Some(status)) => break status,
                Ok(None) if Instant::now() >= deadline => {
                    return End::Lost("it has not ended in time".into());
                }
                Ok(None) => std::thread::sleep(Duration::from_millis(2)),
                Err(error) => return End::Lost(error.to_string()),
            }
        };
        match status.code() {
            Some(OWN_FAILURE) => End::Lost(format!("ssh: {}", self.last_words())),
            Some(code) => End::Status(code),
            None => End::Lost(format!("ssh ended by signal {}", status.signal().unwrap_or(0))),
        }
    }
}

impl Drop for ProgramChannel {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
