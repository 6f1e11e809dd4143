//! The front of an agent: speaks with the launcher on standard input and output, one answer for each
//! request, and ends with the connection. What it does is start a recorder, pass on what that is told,
//! and read the rings that it has left.

use super::machine::{Machine, ThisMachine};
use super::recorder::RecorderOrder;
use super::rings::{self, RingFile};
use super::socket::{Ask, Told, ask};
use crate::cluster::clock::now;
use crate::cluster::frames::{
    CHUNK_BYTES, Frames, Marker, Message, ProtocolError, put_chunk, put_control,
};
use crate::cluster::protocol::{Hello, Place, RecorderState, Reply, Request, Settings};
use crate::run::hostname;
use crate::sampler::thread::is_clock_synchronised;
use std::io::{self, Read, Write};
use std::time::{Duration, Instant};
use xxhash_rust::xxh3::Xxh3Default;

/// How long a recorder may take to say how it is.
const ANSWER: Duration = Duration::from_secs(5);
/// How long it may take to end: longer than it waits itself for its sampler and its mirror.
const ENDING: Duration = Duration::from_secs(60);
/// Between two looks whether there is still anything to do, while nothing is heard: a server does not know
/// for hours of a connection that was lost without a word (`TCPKeepAlive`, sshd_config(5)).
const LOOK: Duration = Duration::from_secs(45);
/// How long a launcher may be silent after the recorder has ended.
const FORGOTTEN: Duration = Duration::from_secs(600);
/// Bytes read at a time.
const READ_BYTES: usize = 64 << 10;

/// Speaks with a launcher until it has said goodbye or is gone; the exit status. `nonce` is its own.
pub fn serve(nonce: &str) -> u8 {
    let mut front = Front::new(ThisMachine, io::stdout().lock());
    match front.run(nonce, &mut io::stdin().lock()) {
        Ok(()) => 0,
        Err(error) => {
            eprintln!("ringstat: the agent ends: {error}");
            1
        }
    }
}

/// Whether a question was not answered because nobody is there, or was killed before its answer.
fn is_nobody(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::NotFound
            | io::ErrorKind::ConnectionRefused
            | io::ErrorKind::ConnectionReset
            | io::ErrorKind::BrokenPipe
            | io::ErrorKind::UnexpectedEof
    )
}

/// The answer of a run's recorder; `None` if there is no recorder.
fn ask_recorder(place: &Place, question: Ask, patience: Duration) -> Result<Option<Told>, String> {
    for (dir, _) in rings::dirs(place) {
        match ask(&dir, question, patience) {
            Ok(told) => return Ok(Some(told)),
            Err(error) if is_nobody(&error) => {}
            Err(error) => return Err(format!("the recorder does not answer: {error}")),
        }
    }
    Ok(None)
}

/// What there is of a run.
fn state_of(place: &Place, question: Ask, patience: Duration) -> RecorderState {
    match ask_recorder(place, question, patience) {
        Ok(Some(Told::State(state))) => state,
        // On a host that is out of memory an answer may take longer than is waited for it.
        _ if rings::is_living(place) => RecorderState::Silent,
        _ if rings::is_there(place) => RecorderState::Ended,
        _ => RecorderState::None,
    }
}

pub(super) struct Front<M, W> {
    machine: M,
    place: Option<Place>,
    /// As they were listed last.
    files: Vec<RingFile>,
    out: Vec<u8>,
    /// Whether there was anything of the run here while it was asked for.
    has_met: bool,
    /// Where the launcher hears it.
    to: W,
}

impl<M: Machine, W: Write> Front<M, W> {
    pub fn new(machine: M, to: W) -> Front<M, W> {
        Front { machine, place: None, files: Vec::new(), out: Vec::new(), has_met: false, to }
    }

    /// Answers what comes from the launcher, until it is over.
    ///
    /// # Errors
    /// The connection's, and whatever is not the protocol.
    pub fn run(&mut self, nonce: &str, from: &mut impl Read) -> io::Result<()> {
        self.out.extend_from_slice(Marker::line(nonce).as_bytes());
        self.reply(&Reply::Hello(Box::new(Hello::here(hostname(), is_clock_synchronised()))))?;
        let mut frames = Frames::default();
        let mut buffer = vec![0; READ_BYTES];
        let mut heard = Instant::now();
        loop {
            while let Some(message) = frames.take::<Request>().map_err(io::Error::other)? {
                let Message::Control(request) = message else {
                    return Err(io::Error::other("a launcher has no rings to send"));
                };
                if !self.handle(request)? {
                    return Ok(());
                }
            }
            // What is read is more than standard input keeps: nothing waits there unseen.
            if !self.machine.hears(LOOK) {
                if self.is_forgotten(heard.elapsed()) {
                    return Ok(());
                }
                continue;
            }
            match from.read(&mut buffer) {
                Ok(0) => return Ok(()),
                Ok(count) => {
                    heard = Instant::now();
                    frames.push(&buffer[..count]);
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
    }

    /// Whether nobody will ask for anything any more, after so long a silence: another front has done all
    /// that there was to do, or the launcher has gone without a word.
    fn is_forgotten(&self, silent: Duration) -> bool {
        let Some(place) = &self.place else { return silent >= FORGOTTEN };
        // What costs least first: as a rule its recorder lives, and this is looked at in mid-run.
        let is_removed = self.has_met && rings::dirs(place).is_empty();
        let may_be = silent >= FORGOTTEN || is_removed;
        may_be && !rings::is_living(place)
    }

    /// Answers; whether the conversation goes on.
    fn handle(&mut self, request: Request) -> io::Result<bool> {
        let reply = match request {
            Request::Ping { id, beat } => {
                // First: the time is what is waited for.
                let now = now();
                let recorder = if beat { Some(self.state(Ask::Beat)) } else { None };
                Ok(Reply::Pong { id, now, recorder })
            }
            Request::Attach(place) => {
                self.place = Some(place);
                Ok(Reply::Attached(self.state(Ask::Beat)))
            }
            // Here alone: a look at others' processes may take its time.
            Request::Look { place, user } => {
                let is_own = state_of(&place, Ask::State, ANSWER) != RecorderState::None;
                let is_there =
                    || user.is_some_and(|user| self.machine.is_recorded_by(&user, place.run_id));
                Ok(Reply::Seen(is_own || is_there()))
            }
            Request::Prepare(settings) => self.prepare(*settings),
            Request::Go { start_monotonic_ns } => self.go(start_monotonic_ns),
            Request::Stop => self.stop(),
            Request::List => self.list(),
            Request::Fetch { file, from } => match self.fetch(file, from)? {
                Ok((check, unreadable)) => Ok(Reply::End { file, check, unreadable }),
                Err(what) => Err(what),
            },
            Request::Discard => self.discard(),
            Request::Bye => {
                self.reply(&Reply::Goodbye)?;
                return Ok(false);
            }
        };
        self.reply(&reply.unwrap_or_else(|what| Reply::Failed { what }))?;
        Ok(true)
    }

    fn reply(&mut self, reply: &Reply) -> io::Result<()> {
        put_control(reply, &mut self.out).map_err(io::Error::other)?;
        self.flush()
    }

    fn flush(&mut self) -> io::Result<()> {
        self.to.write_all(&self.out)?;
        self.out.clear();
        self.to.flush()
    }

    fn place(&self) -> Result<&Place, String> {
        self.place.as_ref().ok_or_else(|| "no run was named".to_owned())
    }

    /// The recorder's answer; `None` if there is no recorder.
    fn ask(&self, question: Ask, patience: Duration) -> Result<Option<Told>, String> {
        ask_recorder(self.place()?, question, patience)
    }

    fn state(&mut self, question: Ask) -> RecorderState {
        let state =
            self.place.as_ref().map_or(RecorderState::None, |it| state_of(it, question, ANSWER));
        self.has_met |= state != RecorderState::None;
        state
    }

    fn prepare(&mut self, settings: Settings) -> Result<Reply, String> {
        let place = self.place()?.clone();
        match self.state(Ask::Beat) {
            RecorderState::None => {}
            // Of an attempt whose connection was lost.
            RecorderState::Prepared => return Ok(Reply::Prepared),
            RecorderState::Running { .. } | RecorderState::Silent | RecorderState::Ended => {
                return Err(format!("run {} is on this host already", place.run_id));
            }
        }
        self.machine.start(&RecorderOrder { place, settings })?;
        self.has_met = true;
        Ok(Reply::Prepared)
    }

    fn go(&self, start_monotonic_ns: u64) -> Result<Reply, String> {
        match self.ask(Ask::Go { start_monotonic_ns }, ANSWER)? {
            Some(Told::State(_)) => Ok(Reply::Going),
            Some(Told::Failed(what)) => Err(what),
            Some(Told::Stopped) | None => Err("there is no recorder".to_owned()),
        }
    }

    fn stop(&self) -> Result<Reply, String> {
        let place = self.place()?;
        match self.ask(Ask::Stop, ENDING)? {
            Some(Told::Failed(what)) => return Err(what),
            Some(_) if rings::wait_for_the_dead(place) => {
                return Ok(Reply::Stopped { was_running: true });
            }
            None if rings::wait_for_the_dead(place) => {
                return Ok(Reply::Stopped { was_running: false });
            }
            _ => {}
        }
        Err("the recorder does not end".to_owned())
    }

    fn list(&mut self) -> Result<Reply, String> {
        let place = self.place()?;
        if rings::may_be_living(place) {
            return Err("the recorder has not ended".to_owned());
        }
        self.files = rings::files(place).map_err(|error| format!("no rings: {error}"))?;
        Ok(Reply::Files(self.files.iter().map(|file| file.entry.clone()).collect()))
    }

    /// Sends what is there of a file from `from` on, but for zeros; the checksum of all of it, and how
    /// much cannot be read.
    fn fetch(&mut self, number: u32, from: u64) -> io::Result<Result<(u64, u64), String>> {
        let Some(index) = usize::try_from(number).ok().filter(|at| *at < self.files.len()) else {
            return Ok(Err(format!("there is no file {number}")));
        };
        let length = self.files[index].entry.bytes;
        let file = match self.files[index].open() {
            Ok(file) => file,
            Err(what) => return Ok(Err(what)),
        };
        let mut check = Xxh3Default::new();
        let mut buffer = vec![0; CHUNK_BYTES];
        let (mut at, mut unreadable) = (0, 0);
        while at < length {
            let count = usize::try_from(length - at).unwrap_or(CHUNK_BYTES).min(CHUNK_BYTES);
            let bytes = &mut buffer[..count];
            unreadable += rings::read_what_can_be(&file, bytes, at);
            check.update(bytes);
            let end = at + count as u64;
            if end > from && bytes.iter().any(|byte| *byte != 0) {
                let chunk = put_chunk(number, at, bytes, &mut self.out);
                chunk.map_err(|error: ProtocolError| io::Error::other(error))?;
                self.flush()?;
            }
            at = end;
        }
        Ok(Ok((check.digest(), unreadable)))
    }

    fn discard(&mut self) -> Result<Reply, String> {
        self.files.clear();
        let place = self.place()?;
        rings::discard(place).map_err(|error| format!("the rings stay: {error}"))?;
        Ok(Reply::Discarded)
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::super::socket::Listener;
    use super::*;
    use crate::run::RunDir;
    use crate::sampler::file_name;
    use std::cell::Cell;
    use uuid::Uuid;

    /// Says nothing of itself for ever once it has been heard so often.
    struct Silent {
        words: Cell<u32>,
        looks: Cell<u32>,
        most: u32,
        /// What somebody removes meanwhile.
        removed: Option<std::path::PathBuf>,
    }

    impl Machine for Silent {
        fn hears(&self, _patience: Duration) -> bool {
            if self.words.get() > 0 {
                self.words.set(self.words.get() - 1);
                return true;
            }
            self.looks.set(self.looks.get() + 1);
            self.removed.iter().for_each(|dir| drop(std::fs::remove_dir_all(dir)));
            self.looks.get() > self.most
        }

        fn start(&mut self, _order: &RecorderOrder) -> Result<(), String> {
            Err("nobody asked for it".to_owned())
        }

        fn is_recorded_by(&self, _user: &str, _run_id: Uuid) -> bool {
            false
        }
    }

    #[test]
    fn a_front_that_is_forgotten_ends_when_there_is_nothing_of_its_run_any_more() {
        let world = tempfile::tempdir().unwrap();
        let base = world.path().join("rings");
        let [ring_base, mirror_base] =
            [&base, &world.path().join("none")].map(|base| Some(base.to_str().unwrap().to_owned()));
        let run_id = Uuid::from_u128(7);
        let mut said = Vec::new();
        let place = Place { run_id, ring_base, mirror_base };
        put_control(&Request::Attach(place), &mut said).unwrap();
        // How often it looks before it ends, or its connection does.
        let looks = |most, removed| {
            let machine = Silent { words: Cell::new(1), looks: Cell::new(0), most, removed };
            let mut front = Front::new(machine, io::sink());
            front.run("0123", &mut &*said).unwrap();
            front.machine.looks.get()
        };
        let living = RunDir::create(&base, run_id).unwrap();
        let dir = living.path().to_owned();
        std::fs::write(dir.join(file_name(0)), [0; 8]).unwrap();
        assert_eq!(looks(3, None), 4, "its recorder lives");
        drop(living);
        assert_eq!(looks(3, None), 4, "somebody may ask for its rings");
        assert_eq!(looks(3, Some(dir)), 1);
        assert_eq!(looks(3, None), 4, "it may be about to be prepared");
    }

    #[test]
    fn a_recorder_that_does_not_answer_in_time_has_not_ended() {
        let world = tempfile::tempdir().unwrap();
        let run_id = Uuid::from_u128(7);
        let base = world.path().join("rings");
        let ring_base = Some(base.to_str().unwrap().to_owned());
        let mirror_base = Some(world.path().join("none").to_str().unwrap().to_owned());
        let place = Place { run_id, ring_base, mirror_base };
        let state = || state_of(&place, Ask::Beat, Duration::from_millis(50));
        assert_eq!(state(), RecorderState::None);
        let living = RunDir::create(&base, run_id).unwrap();
        let dir = living.path().to_owned();
        std::fs::write(dir.join(file_name(0)), [0; 8]).unwrap();
        let listener = Listener::bind(&dir).unwrap();
        assert_eq!(state(), RecorderState::Silent);
        // As when it is killed.
        drop(living);
        drop(listener);
        // A process that another test starts just now has the lock as well until it is another program.
        assert!(rings::wait_for_the_dead(&place));
        assert_eq!(state(), RecorderState::Ended);
    }
}
