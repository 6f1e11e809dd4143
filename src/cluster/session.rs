//! The launcher's side of one conversation with an agent: frames over a channel, an answer for each
//! request, every wait bounded. What an agent says is checked here for its form, and never believed for
//! more than its own host.

use super::clock::{self, Offset, RoundTrip, now};
use super::frames::{
    Frames, MAX_FRAME_BYTES, MAX_STDERR_BYTES, Marker, Message, ProtocolError, put_control,
};
use super::protocol::{Hello, RecorderState, Reply, Request, VERSION};
use super::transport::{Channel, End};
use std::io;
use std::time::{Duration, Instant};

/// Bytes of standard error that are kept: the last ones say why.
const KEPT_STDERR_BYTES: usize = 4 << 10;
/// Bytes of it that are read before there is a look at anything else.
const STDERR_BYTES_AT_ONCE: usize = 64 << 10;
/// Characters of anything an agent says that are shown.
const SHOWN_CHARS: usize = 500;
/// Bytes read at a time.
const READ_BYTES: usize = 64 << 10;
/// Between two looks whether an answer is still waited for.
const LOOK: Duration = Duration::from_millis(100);
/// How long is waited for how a command ended, when its output has.
const ENDING: Duration = Duration::from_secs(2);

/// Why a conversation ended before its time.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SessionError {
    /// The connection, or the agent, is gone: it may be tried again.
    #[error("the connection ended: {0}")]
    Lost(String),
    /// The agent's shell or the agent itself ended before its first word.
    #[error("the agent does not start: {0}")]
    NotStarted(String),
    /// Nothing was heard in time.
    #[error("no answer in time ({0})")]
    TimedOut(&'static str),
    /// It is no agent, or a broken one.
    #[error("the agent speaks wrongly: {0}")]
    Protocol(#[from] ProtocolError),
    /// Another version of ringstat.
    #[error(
        "the agent there (ringstat {ringstat}) speaks version {found} of the protocol, expected \
         {VERSION}; install this version there, or leave --remote-binary away"
    )]
    Version {
        /// Version of the program.
        ringstat: String,
        /// What it speaks.
        found: u32,
    },
    /// The agent cannot do it.
    #[error("{0}")]
    Refused(String),
    /// It says what was not asked.
    #[error("the agent answers {found}, expected {expected}")]
    Unexpected {
        /// What it says.
        found: String,
        /// What was asked for.
        expected: &'static str,
    },
}

impl SessionError {
    /// Whether another connection may do better.
    pub fn is_lost(&self) -> bool {
        matches!(self, SessionError::Lost(_) | SessionError::TimedOut(_))
    }
}

/// Text of somebody else's, fit for terminals and files.
pub fn shown(text: &str) -> String {
    let clean: String = text.chars().map(|c| if c.is_control() { ' ' } else { c }).collect();
    let clean = clean.trim();
    let mut shown: String = clean.chars().take(SHOWN_CHARS).collect();
    if clean.chars().nth(SHOWN_CHARS).is_some() {
        shown.push_str(" ...");
    }
    shown
}

/// A conversation.
pub struct Session<'l> {
    channel: Box<dyn Channel + 'l>,
    frames: Frames,
    out: Vec<u8>,
    stderr: Vec<u8>,
    /// All that came there.
    stderr_bytes: usize,
    buffer: Vec<u8>,
    pings: u64,
}

impl<'l> Session<'l> {
    /// Waits for the agent's first words, behind whatever a shell's profile says. `nonce` is what the
    /// agent was told to say.
    ///
    /// # Errors
    /// [`SessionError`].
    pub fn begin(
        channel: Box<dyn Channel + 'l>,
        nonce: &str,
        deadline: Instant,
    ) -> Result<(Session<'l>, Hello), SessionError> {
        let mut session = Session {
            channel,
            frames: Frames::default(),
            out: Vec::new(),
            stderr: Vec::new(),
            stderr_bytes: 0,
            buffer: vec![0; READ_BYTES],
            pings: 0,
        };
        let mut marker = Marker::new(nonce);
        loop {
            let count = match session.read(deadline, "the agent's start") {
                Err(SessionError::Lost(why)) => return Err(SessionError::NotStarted(why)),
                other => other?,
            };
            if let Some(behind) = marker.push(&session.buffer[..count])? {
                session.frames.push(&behind);
                break;
            }
        }
        match session.reply(deadline, "the agent's first words")? {
            Reply::Hello(hello) if hello.version == VERSION => {
                let clean = Hello {
                    ringstat: shown(&hello.ringstat),
                    hostname: shown(&hello.hostname),
                    ..*hello
                };
                Ok((session, clean))
            }
            Reply::Hello(hello) => Err(SessionError::Version {
                ringstat: shown(&hello.ringstat),
                found: hello.version,
            }),
            other => Err(unexpected(&other, "its first words")),
        }
    }

    /// Asks, and waits for the answer; an agent that says that it cannot is an error.
    ///
    /// # Errors
    /// [`SessionError`].
    pub fn ask(
        &mut self,
        request: &Request,
        deadline: Instant,
        what: &'static str,
    ) -> Result<Reply, SessionError> {
        self.say(request, deadline, what)?;
        self.reply(deadline, what)
    }

    /// As [`ask`](Self::ask); `until` is asked again and again how long the answer may take.
    ///
    /// # Errors
    /// [`SessionError`].
    pub fn ask_until(
        &mut self,
        request: &Request,
        until: &mut dyn FnMut() -> Instant,
        what: &'static str,
    ) -> Result<Reply, SessionError> {
        self.say(request, until(), what)?;
        loop {
            let deadline = until();
            match self.reply(deadline.min(Instant::now() + LOOK), what) {
                Err(SessionError::TimedOut(_)) if Instant::now() < deadline => {}
                other => return other,
            }
        }
    }

    /// What `trips` questions say of the host's clocks, each waited for as [here](Self::ask_until).
    ///
    /// # Errors
    /// [`SessionError`].
    pub fn clock(
        &mut self,
        trips: usize,
        until: &mut dyn FnMut() -> Instant,
    ) -> Result<Offset, SessionError> {
        let mut found = Vec::with_capacity(trips);
        for _ in 0..trips.max(1) {
            found.push(self.ping(false, until)?.0);
        }
        Ok(clock::best(&found).unwrap_or_default())
    }

    /// As [`clock`](Self::clock) by one question, which the recorder hears of, and how that is. `until`
    /// is asked again and again how long the answer may take.
    ///
    /// # Errors
    /// [`SessionError`].
    pub fn beat(
        &mut self,
        until: &mut dyn FnMut() -> Instant,
    ) -> Result<(Offset, RecorderState), SessionError> {
        let (trip, state) = self.ping(true, until)?;
        Ok((clock::best(&[trip]).unwrap_or_default(), state))
    }

    fn ping(
        &mut self,
        beat: bool,
        until: &mut dyn FnMut() -> Instant,
    ) -> Result<(RoundTrip, RecorderState), SessionError> {
        const WHAT: &str = "what time it is";
        self.pings += 1;
        let id = self.pings;
        let asked = now();
        match self.ask_until(&Request::Ping { id, beat }, until, WHAT)? {
            Reply::Pong { id: same, now: answer, recorder } if same == id => {
                Ok((RoundTrip { asked, answer, heard: now() }, recorder.unwrap_or_default()))
            }
            other => Err(unexpected(&other, "the time")),
        }
    }

    /// Looks whether anything has come, without waiting: the library under it answers what the server
    /// asks. An agent says nothing of itself, and what it says all the same is not kept.
    ///
    /// # Errors
    /// [`SessionError::Lost`], [`SessionError::Protocol`].
    pub fn listen(&mut self) -> Result<(), SessionError> {
        self.drain_stderr()?;
        if !self.frames.is_empty() {
            return Err(ProtocolError::Unasked.into());
        }
        match self.channel.read(&mut self.buffer) {
            Ok(0) => Err(self.ended()),
            Ok(_) => Err(ProtocolError::Unasked.into()),
            Err(error) if is_for_later(&error) => Ok(()),
            Err(error) => Err(self.lost(&error.to_string())),
        }
    }

    /// The next message.
    ///
    /// # Errors
    /// [`SessionError`].
    pub fn message(
        &mut self,
        deadline: Instant,
        what: &'static str,
    ) -> Result<Message<Reply>, SessionError> {
        loop {
            if let Some(message) = self.frames.take()? {
                return Ok(message);
            }
            let count = self.read(deadline, what)?;
            self.frames.push(&self.buffer[..count]);
        }
    }

    /// Sends a request.
    ///
    /// # Errors
    /// [`SessionError`].
    pub fn say(
        &mut self,
        request: &Request,
        deadline: Instant,
        what: &'static str,
    ) -> Result<(), SessionError> {
        put_control(request, &mut self.out)?;
        while !self.out.is_empty() {
            match self.channel.write(&self.out) {
                Ok(count) => drop(self.out.drain(..count)),
                Err(error) if is_for_later(&error) => {
                    self.drain_stderr()?;
                    self.wait(true, deadline, what)?;
                }
                Err(error) => return Err(self.lost(&error.to_string())),
            }
        }
        Ok(())
    }

    fn reply(&mut self, deadline: Instant, what: &'static str) -> Result<Reply, SessionError> {
        match self.message(deadline, what)? {
            Message::Control(Reply::Failed { what }) => Err(SessionError::Refused(shown(&what))),
            Message::Control(reply) => Ok(reply),
            Message::Chunk(_) => {
                Err(SessionError::Unexpected { found: "with a ring".to_owned(), expected: what })
            }
        }
    }

    /// Some bytes of its output, in `self.buffer`.
    fn read(&mut self, deadline: Instant, what: &'static str) -> Result<usize, SessionError> {
        loop {
            // Before each look: what is not read of this one stops the other.
            self.drain_stderr()?;
            match self.channel.read(&mut self.buffer) {
                Ok(0) => return Err(self.ended()),
                Ok(count) => return Ok(count),
                Err(error) if is_for_later(&error) => self.wait(false, deadline, what)?,
                Err(error) => return Err(self.lost(&error.to_string())),
            }
        }
    }

    fn wait(
        &mut self,
        to_write: bool,
        deadline: Instant,
        what: &'static str,
    ) -> Result<(), SessionError> {
        if Instant::now() >= deadline {
            return Err(SessionError::TimedOut(what));
        }
        match self.channel.wait(to_write, deadline) {
            Ok(()) => Ok(()),
            Err(error) => Err(self.lost(&error.to_string())),
        }
    }

    /// What is there of standard error now, but not without end: whoever waits looks again.
    fn drain_stderr(&mut self) -> Result<(), SessionError> {
        let mut bytes = [0; 4096];
        let most = self.stderr_bytes.saturating_add(STDERR_BYTES_AT_ONCE);
        while self.stderr_bytes < most
            // However it ends, the other stream says so too.
            && let Ok(count @ 1..) = self.channel.read_stderr(&mut bytes)
        {
            self.stderr.extend_from_slice(&bytes[..count]);
            let surplus = self.stderr.len().saturating_sub(KEPT_STDERR_BYTES);
            self.stderr.drain(..surplus);
            self.stderr_bytes += count;
            if self.stderr_bytes > MAX_STDERR_BYTES {
                return Err(ProtocolError::Stderr.into());
            }
        }
        Ok(())
    }

    fn lost(&mut self, why: &str) -> SessionError {
        // What it has said is shown, however much there is more.
        let _ = self.drain_stderr();
        let said = shown(&String::from_utf8_lossy(&self.stderr));
        SessionError::Lost(if said.is_empty() {
            shown(why)
        } else {
            format!("{}: {said}", shown(why))
        })
    }

    fn ended(&mut self) -> SessionError {
        let why = match self.channel.end(Instant::now() + ENDING) {
            End::Status(status) => format!("it ended with status {status}"),
            End::Signal(signal) => format!("signal {signal} ended it"),
            End::Lost(why) => why,
        };
        self.lost(&why)
    }
}

/// Any answer but the one that was asked for.
pub fn unexpected(found: &Reply, expected: &'static str) -> SessionError {
    SessionError::Unexpected { found: shown(&format!("{found:?}")), expected }
}

fn is_for_later(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted)
}

const _: () = assert!(READ_BYTES <= MAX_FRAME_BYTES);
