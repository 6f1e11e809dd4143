//! One command of OpenSSH's program: how far it is with logging in, as its log tells, its streams, and
//! how it ended.

use crate::cluster::ssh::programs::Running;
use crate::cluster::ssh::throttle::{PlacePermit, Turn};
use crate::cluster::transport::{Channel, End, poll};
use rustix::event::{PollFd, PollFlags};
use std::collections::VecDeque;
use std::fs::File;
use std::io::{self, Read, Write};
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::fs::FileExt;
use std::os::unix::process::ExitStatusExt;
use std::process::{Child, ChildStderr, ChildStdin, ChildStdout};
use std::sync::Arc;
use std::time::{Duration, Instant};
use tempfile::{NamedTempFile, TempPath};

/// What `ssh` ends with when it is itself that failed, or a remote command ended by a signal.
const OWN_FAILURE: i32 = 255;
/// How much of the end of standard error is kept, for what it says of a failure.
const KEPT_BYTES: usize = 4096;
/// Most of its log that is looked at, and of what comes on standard error before it is logged in that is
/// kept for who reads it.
const MAX_EARLY_BYTES: usize = 64 << 10;
/// Beyond that its log is emptied.
const MAX_LOG_FILE_BYTES: u64 = 1 << 20;
/// Between two looks into its log.
const LOOK: Duration = Duration::from_millis(20);

/// What became of the setting up of a connection.
pub enum Begun {
    LoggedIn,
    Ended,
}

pub struct ProgramChannel {
    child: Child,
    _running: Arc<Running>,
    stdin: Option<ChildStdin>,
    /// `None` from its end on.
    stdout: Option<ChildStdout>,
    stderr: Option<ChildStderr>,
    /// What `ssh` says of itself; standard error is the host's.
    log: File,
    /// Its name, which nobody needs once the program has opened it.
    log_path: Option<TempPath>,
    /// The end of what came on standard error.
    kept: Vec<u8>,
    /// What came before it was logged in, for who reads it.
    early: VecDeque<u8>,
}

impl ProgramChannel {
    /// Of an `ssh` that has just been started, with the file that it logs to.
    pub fn new(
        mut child: Child,
        log: NamedTempFile,
        running: Arc<Running>,
    ) -> io::Result<ProgramChannel> {
        let (log, log_path) = log.into_parts();
        let channel = ProgramChannel {
            stdin: child.stdin.take(),
            stdout: child.stdout.take(),
            stderr: child.stderr.take(),
            child,
            _running: running,
            log,
            log_path: Some(log_path),
            kept: Vec::new(),
            early: VecDeque::new(),
        };
        for fd in channel.fds() {
            rustix::io::ioctl_fionbio(fd, true)?;
        }
        Ok(channel)
    }

    fn fds(&self) -> impl Iterator<Item = BorrowedFd<'_>> {
        let stdin = self.stdin.as_ref().map(AsFd::as_fd);
        let stdout = self.stdout.as_ref().map(AsFd::as_fd);
        [stdin, stdout, self.stderr.as_ref().map(AsFd::as_fd)].into_iter().flatten()
    }

    /// Waits until it is logged in, or has ended; `None` at the deadline. One whose log says nothing new
    /// has no turn as long as others wait.
    pub fn log_in(
        &mut self,
        turn: &Turn,
        permit: &mut Option<PlacePermit>,
        deadline: Instant,
    ) -> io::Result<Option<Begun>> {
        let (mut logged, mut heard) = (0, Instant::now());
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
                    self.bound_log()?;
                    let length = self.log.metadata()?.len();
                    if heard.elapsed() >= turn.longest_silence() {
                        // Silent hosts keep nobody from the bastion that all are behind.
                        permit.take();
                    }
                    if std::mem::replace(&mut logged, length) != length {
                        heard = Instant::now();
                        return Ok(Some(None));
                    }
                    if Instant::now() >= until {
                        return Ok(None);
                    }
                }
            })?;
            match news {
                Some(Some(begun)) => {
                    self.log_path = None;
                    return Ok(Some(begun));
                }
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

    /// A server can make it log without end. The program appends, wherever the end is.
    fn bound_log(&self) -> io::Result<()> {
        if self.log.metadata()?.len() > MAX_LOG_FILE_BYTES { self.log.set_len(0) } else { Ok(()) }
    }

    /// The end of its log, but for what is of no use to users.
    fn logged(&self) -> String {
        let length = self.log.metadata().map_or(0, |it| it.len());
        let mut bytes = vec![0; MAX_EARLY_BYTES];
        let from = length.saturating_sub(bytes.len() as u64);
        let count = self.log.read_at(&mut bytes, from).unwrap_or(0);
        let text = String::from_utf8_lossy(&bytes[..count]);
        // The first one may be half a line.
        let lines = text.lines().skip(usize::from(from > 0));
        let lines = lines.filter(|line| !line.starts_with("debug1: "));
        lines.map(|line| line.trim_end().to_owned() + "\n").collect()
    }

    /// Whether the server, or one on the way, closed the connection instead of saying who it is.
    pub fn is_dropped(&self) -> bool {
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
    pub fn last_words(&self) -> String {
        let text = format!("{}\n{}", String::from_utf8_lossy(&self.kept), self.logged());
        let is_of_use = |line: &&str| {
            let noise = ["Authenticated to ", "Transferred: ", "Bytes per second: "];
            !line.is_empty() && !noise.into_iter().any(|noise| line.starts_with(noise))
        };
        let lines: Vec<&str> = text.lines().map(str::trim).filter(is_of_use).collect();
        lines[lines.len().saturating_sub(3)..].join("; ")
    }
}

/// Whether one of these lines says that a peer went away before it said who it is; one that did so on the
/// way may be found out when our own words do not get through.
fn has_dropped(text: &str) -> bool {
    let when = ["_exchange_identification: ", "banner exchange: "];
    let how = ["closed by remote host", "Connection reset", "Broken pipe"];
    let has = |line: &str, words: &[&str]| words.iter().any(|words| line.contains(words));
    text.lines().any(|line| has(line, &when) && has(line, &how))
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
        poll(&mut fds, deadline)?;
        self.bound_log()
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_dropped_before_it_says_who_it_is_is_told_from_what_is_refused() {
        for dropped in [
            "kex_exchange_identification: Connection closed by remote host",
            "kex_exchange_identification: read: Connection reset by peer",
            "banner exchange: Connection to UNKNOWN port 65535: Broken pipe",
        ] {
            assert!(
                has_dropped(&format!("hello\n{dropped}\nConnection closed by ::1\n")),
                "{dropped}"
            );
        }
        for other in [
            "",
            "Connection closed by 127.0.0.1 port 22",
            "Connection timed out during banner exchange",
            "banner exchange: Connection to 127.0.0.1 port 22: invalid format",
            "client_loop: send disconnect: Broken pipe",
            "root@127.0.0.1: Permission denied (publickey).",
        ] {
            assert!(!has_dropped(other), "{other}");
        }
    }
}
