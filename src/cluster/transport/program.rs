//! OpenSSH's own program: for Kerberos, security keys, `Match`, and servers that the SSH which is
//! built in does not understand. Each command is a connection of its own.

use super::{Channel, End, Link, poll};
use crate::cluster::hosts::HostSpec;
use crate::cluster::ssh::SshOptions;
use crate::cluster::ssh::ask::{Directives, adds_new, ask_ssh, jump, program_arguments};
use crate::cluster::ssh::error::{ConnectError, OTHERS_FIRST, Step};
use crate::cluster::ssh::throttle::{Place, Throttle, Turn};
use crate::cluster::ssh::tries::Tries;
use rustix::event::{PollFd, PollFlags};
use std::collections::VecDeque;
use std::ffi::OsString;
use std::io::{self, Read, Write};
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::fs::FileExt;
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::PathBuf;
use std::process::{Child, ChildStderr, ChildStdin, ChildStdout, Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};
use tempfile::NamedTempFile;

/// What `ssh` ends with when it is itself that failed, or a remote command ended by a signal.
const OWN_FAILURE: i32 = 255;
/// How much of the end of standard error is kept, for what it says of a failure.
const KEPT_BYTES: usize = 4096;

/// Most of its log that is looked at, and of what comes on standard error before it is logged in that is
/// kept for who reads it.
const MAX_EARLY_BYTES: usize = 64 << 10;
/// Between two looks into its log.
const LOOK: Duration = Duration::from_millis(20);
/// Servers that one after the other lie on the way, at most.
const MAX_HOPS: usize = 8;

/// How `ssh` is to be called for one host.
pub struct ProgramLink {
    program: PathBuf,
    arguments: Vec<OsString>,
    host: String,
    timeout: Duration,
    throttle: Arc<Throttle>,
    /// The server, and all that are jumped through.
    places: Vec<Place>,
}

impl ProgramLink {
    /// Checks names and asks the configuration what it says of unknown keys, and of the way.
    ///
    /// # Errors
    /// [`ConnectError::Configuration`], [`ConnectError::TimedOut`].
    pub fn new(
        spec: &HostSpec,
        options: &SshOptions,
        deadline: Instant,
    ) -> Result<ProgramLink, ConnectError> {
        let turn = first_turn(spec, options, deadline)?;
        let deadline = deadline.min(Instant::now() + options.timeout);
        let directives = asked(spec, options, &turn, deadline)?;
        let mut places = Vec::new();
        add_places(spec, &directives, options, &turn, deadline, &mut places)?;
        let adds_new = adds_new(&directives, options);
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
            // Its log tells how far it is.
            "LogLevel=DEBUG1".into(),
        ];
        if let Some(file) = &options.known_hosts {
            let file = file.display().to_string().replace('%', "%%");
            set.push(format!("UserKnownHostsFile=\"{file}\""));
        }
        for each in set {
            arguments.extend(["-o".into(), each.into()]);
        }
        Ok(ProgramLink {
            program: options.program.clone().unwrap_or_else(|| "ssh".into()),
            arguments,
            host: spec.host.clone(),
            timeout: options.timeout,
            throttle: options.throttle().clone(),
            places,
        })
    }

    fn spawn(&self, command: &str) -> io::Result<ProgramChannel> {
        let log = tempfile::NamedTempFile::new()?;
        let mut ssh = Command::new(&self.program);
        ssh.args(&self.arguments).arg("-E").arg(log.path());
        ssh.arg("--").arg(&self.host).arg(command);
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
            log,
            kept: Vec::new(),
            early: VecDeque::new(),
        };
        for fd in channel.fds() {
            rustix::io::ioctl_fionbio(fd, true)?;
        }
        Ok(channel)
    }
}

/// The turn to set up a connection to `spec`.
fn first_turn(
    spec: &HostSpec,
    options: &SshOptions,
    deadline: Instant,
) -> Result<Turn, ConnectError> {
    let since = Instant::now();
    options.throttle().turn(deadline).ok_or_else(|| ConnectError::TimedOut {
        host: spec.name.clone(),
        step: Step::Connect,
        after: since.elapsed(),
        remedy: OTHERS_FIRST,
    })
}

/// What the program says of `spec`, which there must be.
fn asked(
    spec: &HostSpec,
    options: &SshOptions,
    turn: &Turn,
    deadline: Instant,
) -> Result<Directives, ConnectError> {
    ask_ssh(spec, options, turn, deadline)?.ok_or_else(|| ConnectError::Configuration {
        host: spec.name.clone(),
        found: "there is no OpenSSH program".into(),
        remedy: "install openssh-client, or name the program with --ssh-program".into(),
    })
}

/// The server of `spec`, and those that it is reached through.
fn add_places(
    spec: &HostSpec,
    directives: &Directives,
    options: &SshOptions,
    turn: &Turn,
    deadline: Instant,
    places: &mut Vec<Place>,
) -> Result<(), ConnectError> {
    let one = |name: &str| directives.iter().find(|each| each.0 == name).map(|each| &*each.1);
    let host = one("hostname").unwrap_or(&spec.host).to_owned();
    let port = one("port").and_then(|port| port.parse().ok()).or(spec.port).unwrap_or(22);
    places.push((host, port));
    // What goes in a circle is for the program to say.
    let jumps = one("proxyjump").filter(|jumps| *jumps != "none" && places.len() <= MAX_HOPS);
    // So is a name that only it understands.
    for spec in jumps.map_or(Ok(Vec::new()), jump).unwrap_or_default() {
        let directives = asked(&spec, options, turn, deadline)?;
        add_places(&spec, &directives, options, turn, deadline, places)?;
    }
    Ok(())
}

impl Link for ProgramLink {
    /// Connects and logs in, as `connect` does with the SSH that is built in: by the same rules.
    fn exec<'l>(
        &'l mut self,
        command: &str,
        deadline: Instant,
    ) -> io::Result<Box<dyn Channel + 'l>> {
        let late = |why: &str| io::Error::new(io::ErrorKind::TimedOut, why.to_owned());
        let turn = self.throttle.turn(deadline).ok_or_else(|| late(OTHERS_FIRST))?;
        let permit = self.throttle.at(&self.places, &turn, deadline);
        let _permit = permit.ok_or_else(|| late("others wait for the same server"))?;
        // Whoever waited for others has all the time of one that did not.
        let deadline = deadline.min(Instant::now() + self.timeout);
        let mut tries = Tries::default();
        loop {
            let mut channel = self.spawn(command)?;
            match channel.log_in(&turn, deadline)? {
                Some(Begun::LoggedIn) => return Ok(Box::new(channel)),
                Some(Begun::Ended) => {
                    let is_dropped = channel.is_dropped();
                    if !tries.again(is_dropped, &turn, deadline) {
                        // Its end says why.
                        return Ok(Box::new(channel));
                    }
                }
                None => {
                    let words = channel.last_words();
                    return Err(late(&format!("ssh has not logged in within time: {words}")));
                }
            }
        }
    }
}

/// What became of the setting up of a connection.
enum Begun {
    LoggedIn,
    Ended,
}

struct ProgramChannel {
    child: Child,
    stdin: Option<ChildStdin>,
    /// `None` from its end on.
    stdout: Option<ChildStdout>,
    stderr: Option<ChildStderr>,
    /// What `ssh` says of itself; standard error is the host's.
    log: NamedTempFile,
    /// The end of what came on standard error.
    kept: Vec<u8>,
    /// What came before it was logged in, for who reads it.
    early: VecDeque<u8>,
}

impl ProgramChannel {
    fn fds(&self) -> impl Iterator<Item = BorrowedFd<'_>> {
        let stdin = self.stdin.as_ref().map(AsFd::as_fd);
        let stdout = self.stdout.as_ref().map(AsFd::as_fd);
        [stdin, stdout, self.stderr.as_ref().map(AsFd::as_fd)].into_iter().flatten()
    }

    /// Waits until it is logged in, or has ended; `None` at the deadline. One whose log says nothing new
    /// has no turn as long as others wait.
    fn log_in(&mut self, turn: &Turn, deadline: Instant) -> io::Result<Option<Begun>> {
        let mut logged = 0;
        loop {
            // Each time that its log has grown.
            let news = turn.watch(deadline, |until| {
                loop {
                    self.listen()?;
                    if self.is_logged_in(until.min(Instant::now() + LOOK))? {
                        return io::Result::Ok(Some(Some(Begun::LoggedIn)));
                    }
                    if self.child.try_wait()?.is_some() {
                        return Ok(Some(Some(Begun::Ended)));
                    }
                    let length = self.log.as_file().metadata()?.len();
                    if std::mem::replace(&mut logged, length) != length {
                        return Ok(Some(None));
                    }
                    if Instant::now() >= until {
                        return Ok(None);
                    }
                }
            })?;
            match news {
                Some(Some(begun)) => return Ok(Some(begun)),
                Some(None) if turn.take(deadline) => {}
                _ => return Ok(None),
            }
        }
    }

    /// Takes what it, or a program on its way, says on standard error.
    fn listen(&mut self) -> io::Result<()> {
        let mut bytes = [0; 4096];
        while self.early.len() < MAX_EARLY_BYTES {
            match read_from(&mut self.stderr, &mut bytes) {
                Ok(0) => break,
                Ok(count) => {
                    self.keep(&bytes[..count]);
                    self.early.extend(&bytes[..count]);
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    /// Whether it says so, or has something from the host; waits for that no longer than `until`.
    fn is_logged_in(&self, until: Instant) -> io::Result<bool> {
        if let Some(stdout) = &self.stdout {
            let mut fds = [PollFd::new(stdout, PollFlags::IN)];
            poll(&mut fds, until)?;
            let found = fds[0].revents();
            if found.contains(PollFlags::IN) {
                return Ok(true);
            }
            if found.contains(PollFlags::HUP) {
                // Its end is a matter of moments.
                std::thread::sleep(Duration::from_millis(2));
            }
        }
        Ok(self.logged().lines().any(|line| line.starts_with("Authenticated to ")))
    }

    /// The end of its log, but for what is of no use to users.
    fn logged(&self) -> String {
        let length = self.log.as_file().metadata().map_or(0, |it| it.len());
        let mut bytes = vec![0; MAX_EARLY_BYTES];
        let from = length.saturating_sub(bytes.len() as u64);
        let count = self.log.as_file().read_at(&mut bytes, from).unwrap_or(0);
        let text = String::from_utf8_lossy(&bytes[..count]);
        // The first one may be half a line.
        let lines = text.lines().skip(usize::from(from > 0));
        let lines = lines.filter(|line| !line.starts_with("debug1: "));
        lines.map(|line| line.trim_end().to_owned() + "\n").collect()
    }

    /// Whether the server, or one on the way, closed the connection instead of saying who it is.
    fn is_dropped(&self) -> bool {
        let has_dropped = |text: &str| {
            text.lines().any(|line| {
                line.contains("_exchange_identification: ")
                    && ["closed by remote host", "Connection reset"]
                        .into_iter()
                        .any(|how| line.contains(how))
            })
        };
        // What ends on the way looks so too: then standard error says why.
        let said = String::from_utf8_lossy(&self.kept);
        has_dropped(&self.logged()) && (said.trim().is_empty() || has_dropped(&said))
    }

    fn keep(&mut self, bytes: &[u8]) {
        self.kept.extend_from_slice(bytes);
        let excess = self.kept.len().saturating_sub(KEPT_BYTES);
        self.kept.drain(..excess);
    }

    /// What was said last.
    fn last_words(&self) -> String {
        let text = format!("{}\n{}", String::from_utf8_lossy(&self.kept), self.logged());
        let is_of_use = |line: &&str| {
            let noise = ["Authenticated to ", "Transferred: ", "Bytes per second: "];
            !line.is_empty() && !noise.into_iter().any(|noise| line.starts_with(noise))
        };
        let lines: Vec<&str> = text.lines().map(str::trim).filter(is_of_use).collect();
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
        if !self.early.is_empty() {
            return self.early.read(bytes);
        }
        let count = read_from(&mut self.stderr, bytes)?;
        self.keep(&bytes[..count]);
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
        if fds.is_empty() || !self.early.is_empty() {
            return Ok(());
        }
        poll(&mut fds, deadline)
    }

    fn end(&mut self, deadline: Instant) -> End {
        self.stdin = None;
        let mut rest = [0; 4096];
        while self.stdout.is_some() || self.stderr.is_some() || !self.early.is_empty() {
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
