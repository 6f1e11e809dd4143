//! A way to `ssh-agent` that ends: libssh2 waits for an agent's answer for ever, and some wait for
//! a finger.

use crate::cluster::transport::poll;
use rustix::event::{PollFd, PollFlags};
use std::io::{self, Read, Write};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::time::Instant;
use tempfile::TempDir;

/// A socket that leads to an agent until a deadline.
pub struct Relay {
    dir: TempDir,
}

impl Relay {
    /// One to the agent that listens at `agent`, for one connection.
    ///
    /// # Errors
    /// The agent is not there, or there can be no socket.
    pub fn to(agent: &Path, deadline: Instant) -> io::Result<Relay> {
        let agent = UnixStream::connect(agent)?;
        // Private to this user, as it is made.
        let dir = tempfile::Builder::new().prefix("ringstat-").tempdir()?;
        let listener = UnixListener::bind(dir.path().join("agent"))?;
        listener.set_nonblocking(true)?;
        let carry = move || {
            let mut fds = [PollFd::new(&listener, PollFlags::IN)];
            let _ = poll(&mut fds, deadline);
            if let Ok((client, _)) = listener.accept() {
                let _ = relay(&client, &agent, deadline);
            }
        };
        std::thread::Builder::new().name("agent".into()).spawn(carry)?;
        Ok(Relay { dir })
    }

    pub fn path(&self) -> PathBuf {
        self.dir.path().join("agent")
    }
}

/// Carries bytes between both until one ends, or the deadline; then both end.
fn relay(client: &UnixStream, agent: &UnixStream, deadline: Instant) -> io::Result<()> {
    client.set_nonblocking(false)?;
    let mut bytes = [0; 4096];
    loop {
        let left = deadline.checked_duration_since(Instant::now());
        let left = left.filter(|left| !left.is_zero()).ok_or(io::ErrorKind::TimedOut)?;
        let mut fds = [client, agent].map(|stream| PollFd::new(stream, PollFlags::IN));
        poll(&mut fds, deadline)?;
        let [from_client, from_agent] = fds.map(|fd| !fd.revents().is_empty());
        for (is_ready, mut from, mut to) in
            [(from_client, client, agent), (from_agent, agent, client)]
        {
            if is_ready {
                let count = from.read(&mut bytes)?;
                if count == 0 {
                    return Ok(());
                }
                to.set_write_timeout(Some(left))?;
                to.write_all(&bytes[..count])?;
            }
        }
    }
}
