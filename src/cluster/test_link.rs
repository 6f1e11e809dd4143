//! A link to this machine for tests: a command is a child of the test, started by whichever shell
//! stands for the login shell, with pipes that do not wait.

use super::protocol::Settings;
use super::transport::{Channel, End, Link};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::{OFlags, fcntl_getfl, fcntl_setfl};
use std::io::{self, Read, Write};
use std::os::fd::AsFd;
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::Path;
use std::process::{Child, ChildStderr, ChildStdin, ChildStdout, Command, Stdio};
use std::time::{Duration, Instant};

/// Where the programs are that a host has.
const PATH: &str = "/usr/local/bin:/usr/bin:/bin";

/// Whether a host has this program.
pub fn is_there(program: &str) -> bool {
    PATH.split(':').any(|dir| Path::new(dir).join(program).exists())
}

/// Says where everybody sees it that something was not tested; in CI nothing may be skipped.
pub fn say_skipped(what: &str, needs: &str) {
    // Not `eprintln`, which the test harness swallows.
    let _ = writeln!(io::stderr(), "SKIPPED: {what} needs {needs}");
    assert!(std::env::var_os("CI").is_none(), "in CI nothing skips");
}

/// How a host may be to record, where that does not matter.
pub fn any_settings() -> Settings {
    Settings {
        interval: Duration::from_secs(1),
        max_samples: 10,
        sync_interval: Duration::from_secs(1),
        sources: Vec::new(),
        benchmark_type: String::new(),
        command: Vec::new(),
        policy: String::new(),
        nice: None,
        cpu: String::new(),
        procfs: String::new(),
        mirror: true,
        orphan_timeout: Duration::from_secs(600),
        max_duration: None,
        launcher: String::new(),
    }
}

/// `SHELL -c LINE`, or with words of the test's own before `-c`.
#[derive(Debug, Clone)]
pub struct TestLink {
    pub shell: Vec<String>,
    pub env: Vec<(String, String)>,
    /// Printed to standard output before the command, as by a profile.
    pub noise: String,
    /// After so many bytes of input the link is cut.
    pub cut_after: Option<u64>,
}

impl TestLink {
    /// With that login shell, at home in `home`.
    pub fn new(shell: &[&str], home: &Path) -> TestLink {
        TestLink {
            shell: shell.iter().map(|word| (*word).to_owned()).collect(),
            env: vec![("HOME".to_owned(), home.to_str().unwrap().to_owned())],
            noise: String::new(),
            cut_after: None,
        }
    }
}

impl Link for TestLink {
    fn exec<'l>(
        &'l mut self,
        command: &str,
        _deadline: Instant,
    ) -> io::Result<Box<dyn Channel + 'l>> {
        let mut child = Command::new(&self.shell[0])
            .args(&self.shell[1..])
            .args(["-c", command])
            .env_clear()
            .env("PATH", PATH)
            .envs(self.env.iter().map(|(name, value)| (name, value)))
            .process_group(0)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()?;
        let (stdin, stdout, stderr) = (
            child.stdin.take().unwrap(),
            child.stdout.take().unwrap(),
            child.stderr.take().unwrap(),
        );
        do_not_wait(&stdin)?;
        do_not_wait(&stdout)?;
        do_not_wait(&stderr)?;
        Ok(Box::new(TestChannel {
            child,
            stdin: Some(stdin),
            stdout,
            stderr,
            noise: self.noise.clone().into_bytes(),
            left: self.cut_after,
        }))
    }
}

fn do_not_wait(fd: impl AsFd) -> io::Result<()> {
    Ok(fcntl_setfl(&fd, fcntl_getfl(&fd)? | OFlags::NONBLOCK)?)
}

struct TestChannel {
    child: Child,
    stdin: Option<ChildStdin>,
    stdout: ChildStdout,
    stderr: ChildStderr,
    noise: Vec<u8>,
    left: Option<u64>,
}

impl Channel for TestChannel {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let most = self.left.map_or(bytes.len(), |left| bytes.len().min(left as usize));
        if most == 0 {
            self.stdin = None;
            return Err(io::ErrorKind::ConnectionReset.into());
        }
        let Some(stdin) = &mut self.stdin else { return Err(io::ErrorKind::BrokenPipe.into()) };
        let count = stdin.write(&bytes[..most])?;
        self.left = self.left.map(|left| left - count as u64);
        Ok(count)
    }

    fn read(&mut self, bytes: &mut [u8]) -> io::Result<usize> {
        if !self.noise.is_empty() {
            let count = bytes.len().min(self.noise.len());
            bytes[..count].copy_from_slice(&self.noise[..count]);
            self.noise.drain(..count);
            return Ok(count);
        }
        self.stdout.read(bytes)
    }

    fn read_stderr(&mut self, bytes: &mut [u8]) -> io::Result<usize> {
        self.stderr.read(bytes)
    }

    fn end_input(&mut self) -> io::Result<()> {
        self.stdin = None;
        Ok(())
    }

    fn wait(&mut self, to_write: bool, deadline: Instant) -> io::Result<()> {
        let patience = deadline.saturating_duration_since(Instant::now());
        // An output that has ended is always ready: look again soon.
        let patience = Timespec::try_from(patience.min(Duration::from_millis(20))).unwrap();
        let mut fds = vec![PollFd::new(&self.stdout, PollFlags::IN)];
        if to_write && let Some(stdin) = &self.stdin {
            fds.push(PollFd::new(stdin, PollFlags::OUT));
        }
        poll(&mut fds, Some(&patience))?;
        Ok(())
    }

    fn end(&mut self, deadline: Instant) -> End {
        loop {
            match self.child.try_wait() {
                Ok(Some(status)) => {
                    return match (status.code(), status.signal()) {
                        (Some(code), _) => End::Status(code),
                        (_, signal) => End::Signal(format!("{signal:?}")),
                    };
                }
                Ok(None) if Instant::now() < deadline => {
                    std::thread::sleep(Duration::from_millis(5));
                }
                other => return End::Lost(format!("{other:?}")),
            }
        }
    }
}

impl Drop for TestChannel {
    fn drop(&mut self) {
        // As sshd does not: the commands of a test end with it. What has let go of the pipes is
        // waited for, since its traps are part of the test.
        self.stdin = None;
        let deadline = Instant::now() + Duration::from_secs(10);
        while matches!(self.child.try_wait(), Ok(None)) {
            if Instant::now() > deadline {
                let _ = self.child.kill();
                let _ = self.child.wait();
                return;
            }
            std::thread::sleep(Duration::from_millis(2));
        }
    }
}
