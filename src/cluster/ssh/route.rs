//! The socket to a server: TCP, the two ends of a `ProxyCommand`, or a channel through other
//! servers.

use super::SshOptions;
use super::config::{Family, Route, Target, resolve};
use super::error::{ConnectError, Step};
use super::programs::Running;
use super::session::{Failed, Session};
use super::throttle::Turn;
use crate::cluster::hosts::HostSpec;
use crate::cluster::transport::poll;
use rustix::event::{PollFd, PollFlags};
use rustix::io::Errno;
use rustix::net::{AddressFamily, SocketFlags, SocketType};
use std::io::{self, Read, Seek, Write};
use std::net::{Shutdown, SocketAddr, TcpStream, ToSocketAddrs};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd};
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt;
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, mpsc};
use std::time::Instant;

/// More servers than that one after the other is a circle.
const MAX_HOPS: usize = 8;
const PUMP_BYTES: usize = 64 << 10;

/// A byte stream to a server.
#[derive(Debug)]
pub enum Socket {
    Tcp(TcpStream),
    /// Closed by a thread that carries it through other servers.
    Hop(UnixStream),
    Command(UnixStream, Proxy),
}

/// A `ProxyCommand` that runs; ended with this value.
#[derive(Debug)]
pub struct Proxy {
    child: Child,
    stderr: std::fs::File,
    _running: Arc<Running>,
}

impl Socket {
    /// Ends it both ways: whoever waits for it wakes up, and nothing that is written can wait.
    pub fn shut(&self) {
        let _ = match self {
            Socket::Tcp(stream) => stream.shutdown(Shutdown::Both),
            Socket::Hop(stream) | Socket::Command(stream, _) => stream.shutdown(Shutdown::Both),
        };
    }

    /// What a `ProxyCommand` has said on its standard error.
    pub fn said(&self) -> Option<String> {
        let Socket::Command(_, proxy) = self else { return None };
        let mut text = Vec::new();
        let mut stderr = &proxy.stderr;
        stderr.rewind().ok()?;
        stderr.take(2048).read_to_end(&mut text).ok()?;
        let text = String::from_utf8_lossy(&text).trim().to_owned();
        (!text.is_empty()).then_some(text)
    }
}

impl AsFd for Socket {
    fn as_fd(&self) -> BorrowedFd<'_> {
        match self {
            Socket::Tcp(stream) => stream.as_fd(),
            Socket::Hop(stream) | Socket::Command(stream, _) => stream.as_fd(),
        }
    }
}

impl AsRawFd for Socket {
    fn as_raw_fd(&self) -> RawFd {
        self.as_fd().as_raw_fd()
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Opens the socket to `target`. `hops` is how many servers are on the way already.
///
/// # Errors
/// [`ConnectError`].
pub fn open(
    target: &Target,
    options: &SshOptions,
    turn: &Arc<Turn>,
    deadline: Instant,
    hops: usize,
) -> Result<Socket, ConnectError> {
    match &target.route {
        Route::Direct => tcp(target, turn, deadline).map(Socket::Tcp),
        Route::Command(command) => proxy(target, command, options),
        Route::Jump(chain) => jump(target, chain, options, turn, deadline, hops).map(Socket::Hop),
    }
}

fn tcp(target: &Target, turn: &Turn, deadline: Instant) -> Result<TcpStream, ConnectError> {
    let since = Instant::now();
    let addresses = addresses(target, turn, deadline)?;
    let mut last = None;
    for (tried, address) in addresses.iter().enumerate() {
        let left = deadline.saturating_duration_since(Instant::now());
        // One that does not answer leaves time for the others.
        let share = left / (addresses.len() - tried) as u32;
        if share.is_zero() {
            break;
        }
        match connect(address, turn, Instant::now() + share) {
            Ok(stream) => {
                // Else each round trip of the handshake waits for an acknowledgement.
                let _ = stream.set_nodelay(true);
                return Ok(stream);
            }
            Err(error) => last = Some((address, error)),
        }
    }
    let timed_out = || ConnectError::TimedOut {
        host: target.name.clone(),
        step: Step::Connect,
        after: since.elapsed(),
        remedy: "check that the host is up and reachable, or give a longer --ssh-timeout",
    };
    let Some((address, error)) = last else { return Err(timed_out()) };
    if error.kind() == io::ErrorKind::TimedOut && deadline <= Instant::now() {
        return Err(timed_out());
    }
    Err(ConnectError::Connect {
        host: target.name.clone(),
        to: address.to_string(),
        found: error.to_string(),
        remedy: match error.kind() {
            io::ErrorKind::ConnectionRefused => "check that sshd runs there, and the port",
            _ => "check that the host is up and reachable",
        },
    })
}

/// One that does not answer has no turn meanwhile.
fn connect(address: &SocketAddr, turn: &Turn, deadline: Instant) -> io::Result<TcpStream> {
    let family = match address {
        SocketAddr::V4(_) => AddressFamily::INET,
        SocketAddr::V6(_) => AddressFamily::INET6,
    };
    let flags = SocketFlags::NONBLOCK | SocketFlags::CLOEXEC;
    let socket = rustix::net::socket_with(family, SocketType::STREAM, flags, None)?;
    match rustix::net::connect(&socket, address) {
        Ok(()) => {}
        Err(Errno::INPROGRESS) => {
            let answered = turn.watch(deadline, |until| {
                let mut fds = [PollFd::new(&socket, PollFlags::OUT)];
                poll(&mut fds, until)?;
                io::Result::Ok((!fds[0].revents().is_empty()).then_some(()))
            })?;
            if answered.is_none() {
                return Err(io::ErrorKind::TimedOut.into());
            }
            rustix::net::sockopt::socket_error(&socket)??;
            if !turn.take(deadline) {
                return Err(io::ErrorKind::TimedOut.into());
            }
        }
        Err(error) => return Err(error.into()),
    }
    let stream = TcpStream::from(socket);
    stream.set_nonblocking(false)?;
    Ok(stream)
}

/// The look-up may take any time: it is waited for elsewhere.
fn addresses(
    target: &Target,
    turn: &Turn,
    deadline: Instant,
) -> Result<Vec<SocketAddr>, ConnectError> {
    let (sender, receiver) = mpsc::channel();
    let asked = (target.host.clone(), target.port);
    let since = Instant::now();
    let thread = std::thread::Builder::new().name("resolve".into()).spawn(move || {
        let found = (asked.0.as_str(), asked.1).to_socket_addrs();
        let _ = sender.send(found.map(|found| found.collect::<Vec<_>>()));
    });
    let failed = |found: String| ConnectError::Resolve {
        host: target.name.clone(),
        name: target.host.clone(),
        found,
    };
    thread.map_err(|error| failed(error.to_string()))?;
    let found = turn.receive(&receiver, deadline).map_err(|_| ConnectError::TimedOut {
        host: target.name.clone(),
        step: Step::Resolve,
        after: since.elapsed(),
        remedy: "check the name service",
    })?;
    let mut found = found.map_err(|error| failed(error.to_string()))?;
    found.retain(|address| match target.family {
        Family::Any => true,
        Family::V4 => address.is_ipv4(),
        Family::V6 => address.is_ipv6(),
    });
    if found.is_empty() { Err(failed("none of the AddressFamily".into())) } else { Ok(found) }
}

fn proxy(target: &Target, command: &str, options: &SshOptions) -> Result<Socket, ConnectError> {
    let start = || -> io::Result<Socket> {
        let (ours, theirs) = UnixStream::pair()?;
        let stderr = tempfile::tempfile()?;
        let theirs = OwnedFd::from(theirs);
        let shell = std::env::var_os("SHELL").filter(|shell| !shell.is_empty());
        let mut proxy = Command::new(shell.unwrap_or_else(|| "/bin/sh".into()));
        // Of its own group: an interrupt at the terminal is for this program to handle.
        proxy.arg("-c").arg(format!("exec {command}")).process_group(0);
        proxy.stdin(Stdio::from(theirs.try_clone()?)).stdout(Stdio::from(theirs));
        let child = proxy.stderr(Stdio::from(stderr.try_clone()?)).spawn()?;
        let running = options.programs().add(&child, None);
        Ok(Socket::Command(ours, Proxy { child, stderr, _running: running }))
    };
    start().map_err(|error| ConnectError::Connect {
        host: target.name.clone(),
        to: command.to_owned(),
        found: error.to_string(),
        remedy: "check the ProxyCommand",
    })
}

/// A session and all that belongs to it stay on one thread: it connects, and then carries bytes
/// until either end is gone.
fn jump(
    target: &Target,
    chain: &[HostSpec],
    options: &SshOptions,
    turn: &Arc<Turn>,
    deadline: Instant,
    hops: usize,
) -> Result<UnixStream, ConnectError> {
    let failed = |error: io::Error| ConnectError::Connect {
        host: target.name.clone(),
        to: target.host.clone(),
        found: error.to_string(),
        remedy: "check what this machine lacks",
    };
    let (ours, theirs) = UnixStream::pair().map_err(failed)?;
    theirs.set_nonblocking(true).map_err(failed)?;
    let (sender, receiver) = mpsc::channel();
    let asked = (target.host.clone(), target.port, chain.to_vec(), options.clone());
    let turn = turn.clone();
    let carry = move || {
        let (host, port, chain, options) = asked;
        match hop(&host, port, &chain, &options, turn, deadline, hops + 1) {
            Ok((session, channel)) => {
                let _ = sender.send(Ok(()));
                let _ = pump(&session, channel, &theirs);
            }
            Err(error) => {
                let _ = sender.send(Err(error));
            }
        }
    };
    std::thread::Builder::new().name("jump".into()).spawn(carry).map_err(failed)?;
    let since = Instant::now();
    // All that the thread does ends at the deadline too, and says more.
    let left = deadline.saturating_duration_since(since) + std::time::Duration::from_secs(1);
    match receiver.recv_timeout(left) {
        Ok(done) => done.map(|()| ours),
        Err(_) => Err(ConnectError::TimedOut {
            host: target.name.clone(),
            step: Step::Connect,
            after: since.elapsed(),
            remedy: "check the hosts of its ProxyJump",
        }),
    }
}

/// A channel to `host` from the last of `chain`.
fn hop(
    host: &str,
    port: u16,
    chain: &[HostSpec],
    options: &SshOptions,
    turn: Arc<Turn>,
    deadline: Instant,
    hops: usize,
) -> Result<(Session, ssh2::Channel), ConnectError> {
    let wrong = |host: &str, found: &str| ConnectError::Configuration {
        host: host.to_owned(),
        found: found.into(),
        remedy: "check its ProxyJump".into(),
    };
    let Some((last, before)) = chain.split_last() else {
        return Err(wrong(host, "ProxyJump names no host"));
    };
    if hops > MAX_HOPS {
        return Err(wrong(&last.name, "ProxyJump goes in a circle"));
    }
    let mut target = resolve(last, options, &turn, deadline)?;
    if !before.is_empty() {
        target.route = Route::Jump(before.to_vec());
    }
    let mut session = Session::connect(&target, options, &turn, deadline, hops)?;
    let channel = session.until(deadline, |ssh| ssh.channel_direct_tcpip(host, port, None));
    let channel = channel.map_err(|failed| ConnectError::Connect {
        host: target.name.clone(),
        to: format!("{host}:{port} from there"),
        found: match failed {
            Failed::TimedOut => "no answer in time".into(),
            Failed::Ssh(error) => error.message().to_owned(),
            Failed::Io(error) => error.to_string(),
        },
        remedy: "check that the next host can be reached from there, and AllowTcpForwarding",
    })?;
    session.is_set_up();
    Ok((session, channel))
}

/// Bytes on their way from one to the other.
struct Buffer {
    bytes: Vec<u8>,
    from: usize,
    to: usize,
}

impl Buffer {
    fn new() -> Buffer {
        Buffer { bytes: vec![0; PUMP_BYTES], from: 0, to: 0 }
    }

    fn is_empty(&self) -> bool {
        self.from == self.to
    }

    /// Whether something came, or went. The end of what is read is an error.
    fn carry(&mut self, from: &mut impl Read, to: &mut impl Write) -> io::Result<bool> {
        if self.is_empty() {
            match from.read(&mut self.bytes) {
                Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
                Ok(count) => [self.from, self.to] = [0, count],
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(false),
                Err(error) => return Err(error),
            }
        }
        match to.write(&self.bytes[self.from..self.to]) {
            Ok(count) => self.from += count,
            // What was read is progress, too.
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(false),
            Err(error) => return Err(error),
        }
        Ok(true)
    }
}

/// Carries bytes between both until one has ended.
fn pump(session: &Session, mut channel: ssh2::Channel, mut stream: &UnixStream) -> io::Result<()> {
    let [mut up, mut down] = [Buffer::new(), Buffer::new()];
    loop {
        let sent = up.carry(&mut stream, &mut channel)?;
        // Last, since sending may have read packets from the socket: after this nothing is left in
        // the session that a poll of the socket would not see.
        let received = down.carry(&mut channel, &mut stream)?;
        if sent || received {
            continue;
        }
        let mut of_stream = PollFlags::empty();
        of_stream.set(PollFlags::IN, up.is_empty());
        of_stream.set(PollFlags::OUT, !down.is_empty());
        let mut of_session = session.wanted();
        of_session.set(PollFlags::IN, down.is_empty());
        let mut fds = [
            PollFd::new(session.socket(), of_session),
            PollFd::from_borrowed_fd(stream.as_fd(), of_stream),
        ];
        // The far end watches over silence, through this.
        poll(&mut fds, Instant::now() + std::time::Duration::from_secs(3600))?;
    }
}
