//! A script of ours on a host, whatever the user's login shell is and says: one line that all shells
//! read alike, a marker behind the noise of profiles, and answers as `KEY=value` lines.
//!
//! What a script may contain is what `sh`, `csh` and `fish` understand in the same way between single
//! quotes: no single quote, no `!` (history, csh), no line end (csh), no two backslashes (fish).

use super::transport::{Channel, End, Link};
use indexmap::IndexMap;
use std::io::{self, Read};
use std::time::Instant;
use uuid::Uuid;

/// Longest line: a word of BSD csh has 4 KiB.
const MAX_LINE_BYTES: usize = 4000;
/// What profiles may print before the script begins.
const MAX_NOISE_BYTES: usize = 1 << 20;
/// What a script may answer.
const MAX_ANSWER_BYTES: usize = 256 << 10;
/// How much of what was said instead of an answer is kept: its end.
const MAX_SAID_BYTES: usize = 1024;
/// How much is sent at a time.
const CHUNK_BYTES: usize = 64 << 10;

/// Why a script has no answer.
#[derive(Debug, thiserror::Error)]
pub enum ScriptError {
    /// The connection failed.
    #[error("the connection failed: {0}")]
    Link(io::Error),
    /// What was to be sent could not be read here.
    #[error("cannot read what is to be sent: {0}")]
    Input(io::Error),
    /// It took too long.
    #[error("it did not answer in time{}", with(.said))]
    Late {
        /// What was said until then.
        said: String,
    },
    /// It ended, or never began.
    #[error("the shell there did not run a script of ours ({end}){}", with(.said))]
    NoAnswer {
        /// How it ended.
        end: String,
        /// What was said instead.
        said: String,
    },
    /// It says more than it could.
    #[error("it says more than {0} bytes")]
    TooMuch(usize),
}

fn with(said: &str) -> String {
    if said.is_empty() { String::new() } else { format!(": {said}") }
}

/// The line for a login shell that runs `script` in `sh`.
///
/// # Errors
/// `InvalidInput` for a script that not every shell would take as it is.
pub fn line(script: &str) -> io::Result<String> {
    let line = format!("exec sh -c '{script}'");
    let is_odd = |c: char| matches!(c, '\'' | '!') || c.is_control();
    if script.contains(is_odd) || script.contains(r"\\") || line.len() > MAX_LINE_BYTES {
        let what = format!("not a script for every shell ({} bytes): {script:?}", line.len());
        return Err(io::Error::new(io::ErrorKind::InvalidInput, what));
    }
    Ok(line)
}

/// What a script answered.
#[derive(Debug, Default)]
pub struct Answers(IndexMap<String, String>);

impl Answers {
    /// The first answer of that name; empty if there is none.
    pub fn get(&self, key: &str) -> &str {
        self.0.get(key).map_or("", String::as_str)
    }

    /// All answers whose name begins so, without that.
    pub fn all(&self, prefix: &str) -> impl Iterator<Item = (&str, &str)> {
        self.0
            .iter()
            .filter_map(move |(key, value)| Some((key.strip_prefix(prefix)?, value.as_str())))
    }
}

/// Runs `body` in `sh` with `input` as its standard input. It answers with `p KEY VALUE`, and may
/// `exit` whenever it likes. `sent` hears how many bytes have gone.
///
/// # Errors
/// [`ScriptError`]. Past `deadline` it is left as it is.
pub fn run(
    link: &mut dyn Link,
    body: &str,
    input: &mut dyn Read,
    deadline: Instant,
    sent: &mut dyn FnMut(u64),
) -> Result<Answers, ScriptError> {
    let nonce = Uuid::now_v7().simple().to_string();
    // The marker is put together there: a shell that echoes the line does not show it. What is
    // started by a profile and keeps the output open is not waited for.
    let script = format!(
        r#"m={nonce}; p() {{ printf "%s=%s\n" "$1" "$2"; }}; echo; echo "ringstat-$m-begin"; ( {body} ); echo "ringstat-$m-end""#
    );
    let line = line(&script).map_err(ScriptError::Link)?;
    let mut channel = link.exec(&line, deadline).map_err(ScriptError::Link)?;
    let mut talk = Talk::new(&nonce);
    let mut outbox = Outbox::default();
    loop {
        let mut moved = outbox.send(channel.as_mut(), input, sent)?;
        moved |= talk.hear(channel.as_mut())?;
        if talk.is_over {
            return Ok(talk.answers());
        }
        if talk.has_ended() {
            let end = match channel.end(deadline) {
                End::Status(status) => format!("status {status}"),
                End::Signal(signal) => format!("signal {signal}"),
                End::Lost(why) => return Err(ScriptError::Link(io::Error::other(why))),
            };
            return Err(ScriptError::NoAnswer { end, said: talk.said() });
        }
        if Instant::now() >= deadline {
            return Err(ScriptError::Late { said: talk.said() });
        }
        if !moved {
            channel.wait(outbox.is_open, deadline).map_err(ScriptError::Link)?;
        }
    }
}

/// What goes to a command.
struct Outbox {
    chunk: Vec<u8>,
    at: usize,
    sent_bytes: u64,
    is_open: bool,
}

impl Default for Outbox {
    fn default() -> Outbox {
        Outbox { chunk: Vec::new(), at: 0, sent_bytes: 0, is_open: true }
    }
}

impl Outbox {
    /// Sends what goes now; whether anything did.
    fn send(
        &mut self,
        channel: &mut dyn Channel,
        input: &mut dyn Read,
        sent: &mut dyn FnMut(u64),
    ) -> Result<bool, ScriptError> {
        if !self.is_open {
            return Ok(false);
        }
        if self.at == self.chunk.len() {
            self.chunk.resize(CHUNK_BYTES, 0);
            let count = input.read(&mut self.chunk).map_err(ScriptError::Input)?;
            self.chunk.truncate(count);
            self.at = 0;
            if count == 0 {
                self.is_open = false;
                channel.end_input().map_err(ScriptError::Link)?;
                return Ok(true);
            }
        }
        match channel.write(&self.chunk[self.at..]) {
            Ok(count) => {
                self.at += count;
                self.sent_bytes += count as u64;
                sent(self.sent_bytes);
                Ok(count > 0)
            }
            Err(error) if is_later(&error) => Ok(false),
            // The script does not want the rest, and says why.
            Err(_) => {
                self.is_open = false;
                Ok(true)
            }
        }
    }
}

fn is_later(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted)
}

/// What comes from a command.
struct Talk {
    begin: Vec<u8>,
    end: Vec<u8>,
    /// The line that is not complete yet.
    line: Vec<u8>,
    answers: IndexMap<String, String>,
    has_begun: bool,
    is_over: bool,
    bytes: usize,
    outputs_open: [bool; 2],
    /// The end of what was no answer.
    noise: Vec<u8>,
}

impl Talk {
    fn new(nonce: &str) -> Talk {
        Talk {
            begin: format!("ringstat-{nonce}-begin").into_bytes(),
            end: format!("ringstat-{nonce}-end").into_bytes(),
            line: Vec::new(),
            answers: IndexMap::new(),
            has_begun: false,
            is_over: false,
            bytes: 0,
            outputs_open: [true; 2],
            noise: Vec::new(),
        }
    }

    fn hear(&mut self, channel: &mut dyn Channel) -> Result<bool, ScriptError> {
        let mut bytes = [0; 16 << 10];
        let mut moved = false;
        for output in 0..2 {
            if !self.outputs_open[output] {
                continue;
            }
            let result = match output {
                0 => channel.read(&mut bytes),
                _ => channel.read_stderr(&mut bytes),
            };
            match result {
                Ok(0) => self.outputs_open[output] = false,
                Ok(count) if output == 0 => self.take(&bytes[..count])?,
                Ok(count) => self.keep(&bytes[..count]),
                Err(error) if is_later(&error) => continue,
                Err(error) => return Err(ScriptError::Link(error)),
            }
            moved = true;
        }
        Ok(moved)
    }

    fn take(&mut self, bytes: &[u8]) -> Result<(), ScriptError> {
        self.bytes += bytes.len();
        let most = if self.has_begun { MAX_ANSWER_BYTES } else { MAX_NOISE_BYTES };
        if self.bytes > most {
            return Err(ScriptError::TooMuch(most));
        }
        for piece in bytes.split_inclusive(|byte| *byte == b'\n') {
            self.line.extend_from_slice(piece);
            if self.line.ends_with(b"\n") {
                let line = std::mem::take(&mut self.line);
                self.take_line(line.trim_ascii_end());
            }
        }
        Ok(())
    }

    fn take_line(&mut self, line: &[u8]) {
        if !self.has_begun {
            if line == self.begin {
                self.has_begun = true;
                self.bytes = 0;
                self.noise.clear();
            } else {
                self.keep(line);
                self.keep(b"\n");
            }
        } else if line == self.end {
            self.is_over = true;
        } else if !self.is_over
            && let Ok(line) = std::str::from_utf8(line)
            && let Some((key, value)) = line.split_once('=')
        {
            self.answers.entry(key.to_owned()).or_insert_with(|| value.trim().to_owned());
        }
    }

    /// Keeps the end of it.
    fn keep(&mut self, bytes: &[u8]) {
        self.noise.extend_from_slice(bytes);
        let over = self.noise.len().saturating_sub(MAX_SAID_BYTES);
        self.noise.drain(..over);
    }

    fn has_ended(&self) -> bool {
        self.outputs_open == [false; 2]
    }

    fn said(&self) -> String {
        clean(&String::from_utf8_lossy(&self.noise))
    }

    fn answers(self) -> Answers {
        Answers(self.answers)
    }
}

/// Text of a host as one line that does no harm to a terminal.
pub fn clean(text: &str) -> String {
    let words: Vec<&str> = text.split_whitespace().collect();
    let shown: String = words.join(" ").chars().take(MAX_SAID_BYTES).collect();
    shown.chars().map(|c| if c.is_control() { '?' } else { c }).collect()
}
