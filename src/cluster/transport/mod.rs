//! How bytes get to an agent and back: a stream to its standard input and output, its standard
//! error, and how it ended. One file for each way; what the bytes mean is the protocol's business.
//!
//! Links and channels stay on the thread that made them: libssh2 holds a lock for each session
//! while it waits. Nothing here waits longer than it is told to.

pub mod program;
#[cfg(feature = "ssh")]
pub mod ssh2;

use rustix::event::{PollFd, Timespec};
use std::io;
use std::time::Instant;

/// One authenticated way to a host.
pub trait Link {
    /// Who has logged in, if that is known.
    fn user(&self) -> Option<&str> {
        None
    }

    /// Starts a command there. `command` is a line for the login shell of the user, whichever that
    /// is: `exec sh -c '...'` is understood by all.
    ///
    /// # Errors
    /// The connection's.
    fn exec<'l>(
        &'l mut self,
        command: &str,
        deadline: Instant,
    ) -> io::Result<Box<dyn Channel + 'l>>;
}

/// A command that runs on a host. None of these waits but [`wait`](Self::wait).
pub trait Channel {
    /// Sends as much of `bytes` to its standard input as goes now; how much that is.
    ///
    /// # Errors
    /// `WouldBlock` if nothing goes now; else the connection's.
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize>;

    /// Reads its standard output; 0 is the end.
    ///
    /// # Errors
    /// As [`write`](Self::write).
    fn read(&mut self, bytes: &mut [u8]) -> io::Result<usize>;

    /// Reads its standard error; 0 is the end. Whoever reads the one must read the other: they
    /// share a window, and what is not read of this one stops that one.
    ///
    /// # Errors
    /// As [`write`](Self::write).
    fn read_stderr(&mut self, bytes: &mut [u8]) -> io::Result<usize>;

    /// Ends its standard input.
    ///
    /// # Errors
    /// The connection's.
    fn end_input(&mut self) -> io::Result<()>;

    /// Waits until there may be something to read, or room to write if that is wanted, or until
    /// `deadline`.
    ///
    /// # Errors
    /// The connection's; a peer that has been silent for too long is `TimedOut`.
    fn wait(&mut self, to_write: bool, deadline: Instant) -> io::Result<()>;

    /// How it ended, as soon as both outputs have. What a program said in band counts for more:
    /// the `ssh` program's 255 may be its own.
    fn end(&mut self, deadline: Instant) -> End;
}

/// How a remote command ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum End {
    /// By itself, with this status.
    Status(i32),
    /// By a signal.
    Signal(String),
    /// The connection was gone before that was known.
    Lost(String),
}

/// Waits until one of `fds` is as wanted, or the deadline, whichever is first.
pub(super) fn poll(fds: &mut [PollFd<'_>], deadline: Instant) -> io::Result<()> {
    let left = deadline.saturating_duration_since(Instant::now());
    let left = Timespec {
        tv_sec: left.as_secs().try_into().unwrap_or(i64::MAX),
        tv_nsec: left.subsec_nanos().into(),
    };
    match rustix::event::poll(fds, Some(&left)) {
        Ok(_) | Err(rustix::io::Errno::INTR) => Ok(()),
        Err(error) => Err(error.into()),
    }
}
