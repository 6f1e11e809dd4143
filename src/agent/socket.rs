//! The socket between a host's recorder and its fronts: one question and one answer for each
//! connection, each a line of JSON. It lies in the run's directory, which is its owner's alone, and who
//! is at the other end is asked of the kernel.

use crate::cluster::protocol::RecorderState;
use crate::place::Place;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::geteuid;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use std::io::{self, BufRead, BufReader, Read, Write};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;
use std::time::{Duration, Instant};

/// Its name in the run's directory.
const NAME: &str = "agent.sock";
/// Longest line.
const MAX_LINE_BYTES: u64 = 64 << 10;
/// How long either side waits for a line that is no work.
const PATIENCE: Duration = Duration::from_secs(5);

/// What a front asks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Ask {
    /// How are you?
    State,
    /// Somebody still wants you; how are you?
    Beat,
    /// Tick 0 is then. Of one that records already: ticks to come are to be counted from then.
    Go {
        /// `CLOCK_MONOTONIC`, ns.
        start_monotonic_ns: u64,
    },
    /// Take the last sample, and end.
    Stop,
}

/// What the recorder answers.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Told {
    /// To all but [`Ask::Stop`].
    State(RecorderState),
    /// To [`Ask::Stop`], when everything is in the rings.
    Stopped,
    /// That cannot be.
    Failed(String),
}

/// Asks the recorder whose directory this is. `ConnectionRefused` and `NotFound` say that there is none.
pub fn ask(dir: &Path, ask: Ask, patience: Duration) -> io::Result<Told> {
    let place = Place::open(dir)?;
    let stream = UnixStream::connect(place.short_path(NAME))?;
    check_peer(&stream)?;
    stream.set_write_timeout(Some(PATIENCE))?;
    stream.set_read_timeout(Some(patience))?;
    say(&stream, &ask)?;
    hear(&stream)
}

/// The recorder's end.
pub struct Listener {
    listener: UnixListener,
    place: Place,
}

impl Listener {
    /// Makes the socket.
    ///
    /// # Errors
    /// The kernel's.
    pub fn bind(dir: &Path) -> io::Result<Listener> {
        let place = Place::open(dir)?;
        let listener = UnixListener::bind(place.short_path(NAME))?;
        listener.set_nonblocking(true)?;
        Ok(Listener { listener, place })
    }

    /// The next question and where its answer goes, if one comes before `deadline`. One that cannot
    /// be understood, or is somebody else's, is not answered.
    pub fn next(&self, deadline: Instant) -> Option<(Ask, UnixStream)> {
        loop {
            let left = deadline.checked_duration_since(Instant::now())?;
            let timeout = Timespec::try_from(left).ok();
            let mut fds = [PollFd::new(&self.listener, PollFlags::IN)];
            // Whatever it says, the next line tries.
            let _ = poll(&mut fds, timeout.as_ref());
            let Ok((stream, _)) = self.listener.accept() else { continue };
            if let Ok(ask) = question(&stream) {
                return Some((ask, stream));
            }
        }
    }

    /// Removes the socket.
    pub fn close(self) {
        let _ = self.place.remove(NAME);
    }
}

/// Answers.
pub fn answer(stream: &UnixStream, told: &Told) {
    // Who does not wait for it does not need it.
    let _ = say(stream, told);
}

fn question(stream: &UnixStream) -> io::Result<Ask> {
    check_peer(stream)?;
    stream.set_nonblocking(false)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.set_write_timeout(Some(PATIENCE))?;
    hear(stream)
}

fn check_peer(stream: &UnixStream) -> io::Result<()> {
    let peer = rustix::net::sockopt::socket_peercred(stream)?;
    if peer.uid == geteuid() {
        return Ok(());
    }
    Err(io::Error::new(io::ErrorKind::PermissionDenied, "the socket is another user's"))
}

fn say(mut stream: &UnixStream, words: &impl Serialize) -> io::Result<()> {
    let mut line = serde_json::to_vec(words)?;
    line.push(b'\n');
    stream.write_all(&line)
}

fn hear<T: DeserializeOwned>(stream: &UnixStream) -> io::Result<T> {
    let mut line = String::new();
    BufReader::new(stream.take(MAX_LINE_BYTES)).read_line(&mut line)?;
    Ok(serde_json::from_str(&line)?)
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    #[test]
    fn questions_are_answered_and_nonsense_is_not() {
        let dir = tempfile::tempdir().unwrap();
        let long = dir.path().join("x".repeat(150));
        std::fs::create_dir(&long).unwrap();
        let nobody = ask(&long, Ask::State, PATIENCE).unwrap_err();
        assert_eq!(nobody.kind(), io::ErrorKind::NotFound);
        let listener = Listener::bind(&long).unwrap();
        let far = Instant::now() + Duration::from_secs(60);
        std::thread::scope(|scope| {
            let asker = scope.spawn(|| {
                let place = Place::open(&long).unwrap();
                let mut nonsense = UnixStream::connect(place.short_path(NAME)).unwrap();
                nonsense.write_all(b"{}\n").unwrap();
                ask(&long, Ask::Go { start_monotonic_ns: 7 }, PATIENCE).unwrap()
            });
            let (asked, stream) = listener.next(far).unwrap();
            assert_eq!(asked, Ask::Go { start_monotonic_ns: 7 });
            answer(&stream, &Told::Failed("no".into()));
            assert_eq!(asker.join().unwrap(), Told::Failed("no".into()));
        });
        assert!(listener.next(Instant::now()).is_none());
        listener.close();
        assert_eq!(std::fs::read_dir(&long).unwrap().count(), 0);
    }
}
