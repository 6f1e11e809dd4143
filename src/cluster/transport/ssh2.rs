//! The SSH that is built in, libssh2. All of it stays on the thread that connected.

use super::{Channel, End, Link, poll};
use crate::cluster::clock::after;
use crate::cluster::hosts::HostSpec;
use crate::cluster::ssh::SshOptions;
use crate::cluster::ssh::config::resolve;
use crate::cluster::ssh::error::{ConnectError, OTHERS_FIRST, Step};
use crate::cluster::ssh::session::Session;
use rustix::event::{PollFd, PollFlags};
use std::io::{self, Read, Write};
use std::sync::Arc;
use std::time::{Duration, Instant};

/// A session that is logged in.
pub struct Ssh2Link {
    session: Session,
    user: String,
    silence: Silence,
}

/// Connects to `spec` and logs in, as [`connect`](crate::cluster::ssh::connect) says.
///
/// # Errors
/// [`ConnectError`].
pub fn connect(
    spec: &HostSpec,
    options: &SshOptions,
    deadline: Instant,
) -> Result<Ssh2Link, ConnectError> {
    let since = Instant::now();
    let Some(turn) = options.throttle().turn(deadline) else {
        return Err(ConnectError::TimedOut {
            host: spec.name.clone(),
            step: Step::Connect,
            after: since.elapsed(),
            remedy: OTHERS_FIRST,
        });
    };
    // Whoever waited for others has all the time of one that did not.
    let deadline = deadline.min(after(options.timeout));
    let turn = Arc::new(turn);
    let target = resolve(spec, options, &turn, deadline)?;
    let mut session = Session::connect(&target, options, &turn, deadline, 0)?;
    session.is_set_up();
    // Sent by `Silence` alone, which has its own times.
    session.ssh().set_keepalive(true, 1);
    Ok(Ssh2Link { session, user: target.user, silence: Silence::new(options.silence) })
}

impl Link for Ssh2Link {
    fn user(&self) -> Option<&str> {
        Some(&self.user)
    }

    fn exec<'l>(
        &'l mut self,
        command: &str,
        deadline: Instant,
    ) -> io::Result<Box<dyn Channel + 'l>> {
        let session = &self.session;
        let opened = session.until(deadline, |ssh| ssh.channel_session());
        let mut channel = opened.map_err(|failed| failed.into_io())?;
        let started = session.until(deadline, |_| channel.exec(command));
        started.map_err(|failed| failed.into_io())?;
        let stderr = channel.stderr();
        self.silence.broken();
        Ok(Box::new(Ssh2Channel { channel, stderr, link: self }))
    }
}

struct Ssh2Channel<'l> {
    channel: ::ssh2::Channel,
    stderr: ::ssh2::Stream,
    link: &'l mut Ssh2Link,
}

impl Channel for Ssh2Channel<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.channel.write(bytes)
    }

    fn read(&mut self, bytes: &mut [u8]) -> io::Result<usize> {
        self.channel.read(bytes)
    }

    fn read_stderr(&mut self, bytes: &mut [u8]) -> io::Result<usize> {
        self.stderr.read(bytes)
    }

    fn end_input(&mut self) -> io::Result<()> {
        let deadline = Instant::now() + self.link.silence.limit;
        let sent = self.link.session.until(deadline, |_| self.channel.send_eof());
        sent.map_err(|failed| failed.into_io())
    }

    fn wait(&mut self, to_write: bool, deadline: Instant) -> io::Result<()> {
        let Ssh2Link { session, silence, .. } = &mut *self.link;
        loop {
            // Any call may have read packets of other streams from the socket: a poll would wait
            // for what is already here.
            if self.channel.read_window().available > 0 || self.channel.eof() {
                silence.broken();
                return Ok(());
            }
            let mut wanted = session.wanted() | PollFlags::IN;
            // With the window closed, the peer must speak first.
            wanted.set(
                PollFlags::OUT,
                wanted.contains(PollFlags::OUT)
                    || (to_write && self.channel.write_window().remaining > 0),
            );
            let mut fds = [PollFd::new(session.socket(), wanted)];
            poll(&mut fds, deadline.min(silence.next()))?;
            let found = fds[0].revents();
            let may_write = to_write && found.contains(PollFlags::OUT);
            if found.intersects(PollFlags::IN | PollFlags::HUP | PollFlags::ERR) {
                silence.broken();
                return Ok(());
            }
            let now = Instant::now();
            if may_write || now >= deadline {
                return Ok(());
            }
            silence.ask(now, session.ssh())?;
        }
    }

    fn end(&mut self, deadline: Instant) -> End {
        let mut rest = [0; 4096];
        // The end is only known after all that was said before it.
        loop {
            let ends = [self.channel.read(&mut rest), self.stderr.read(&mut rest)];
            let mut all_ended = true;
            let mut is_idle = true;
            for end in ends {
                match end {
                    Ok(0) => {}
                    Ok(_) => [all_ended, is_idle] = [false, false],
                    Err(error) if error.kind() == io::ErrorKind::WouldBlock => all_ended = false,
                    Err(error) => return End::Lost(error.to_string()),
                }
            }
            if all_ended {
                break;
            }
            if Instant::now() >= deadline {
                return End::Lost("it has not ended in time".into());
            }
            if is_idle && let Err(error) = self.wait(false, deadline) {
                return End::Lost(error.to_string());
            }
        }
        if let Err(failed) = self.link.session.until(deadline, |_| self.channel.wait_close()) {
            return End::Lost(failed.into_io().to_string());
        }
        // The status is 0 after a signal, too.
        match self.channel.exit_signal() {
            Ok(ssh2::ExitSignal { exit_signal: Some(signal), .. }) => End::Signal(signal),
            _ => self
                .channel
                .exit_status()
                .map_or_else(|error| End::Lost(error.to_string()), End::Status),
        }
    }
}

/// Finds out that a peer is gone: keepalives alone are sent for ever, it is their answers that do
/// not come.
struct Silence {
    limit: Duration,
    heard: Instant,
    asked: u32,
}

/// How often a silent peer is asked before it is given up.
const ASKED: u32 = 2;

impl Silence {
    fn new(limit: Duration) -> Silence {
        Silence { limit, heard: Instant::now(), asked: 0 }
    }

    fn broken(&mut self) {
        self.heard = Instant::now();
        self.asked = 0;
    }

    /// When something is to be done about it.
    fn next(&self) -> Instant {
        self.heard + self.limit / (ASKED + 1) * (self.asked + 1)
    }

    /// Asks whether the peer is there, when it is time. Time in which nobody listened does not
    /// count: only after the last question has had its time is it given up.
    fn ask(&mut self, now: Instant, session: &::ssh2::Session) -> io::Result<()> {
        if now < self.next() {
            return Ok(());
        }
        if self.asked == ASKED {
            let what = format!("the host has been silent for {:?}", now - self.heard);
            return Err(io::Error::new(io::ErrorKind::TimedOut, what));
        }
        session.keepalive_send()?;
        self.asked += 1;
        self.heard = now - self.limit / (ASKED + 1) * self.asked;
        Ok(())
    }
}
