//! Fetching the rings of one host into one directory: what is there, each file under its name only when
//! its checksum is right, from where an earlier attempt ended, and anew where what is here is damaged.
//! Names and places are chosen here; how much may come is bounded before any of it does.

mod room;

use super::frames::{CHUNK_BYTES, Chunk, Message};
use super::protocol::{FileEntry, MAX_FILES, Reply, Request};
use super::session::{Session, SessionError, unexpected};
use crate::place::Place;
use room::Room;
use std::fs::File;
use std::io::{self, Read, Seek};
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::time::Instant;
use xxhash_rust::xxh3::Xxh3Default;

/// Most bytes that one host may take on the launcher's disk, unless less is free.
pub const MAX_HOST_BYTES: u64 = 16 << 30;
/// Most bytes that the samples of one host may be as text, which its names can make long: eight times what
/// its rings may be, unless there is less room.
pub const MAX_HOST_TEXT_BYTES: u64 = 8 * MAX_HOST_BYTES;
/// Behind the name of a file that is not yet whole.
const PART: &str = ".part";

/// Why a host's rings are not here.
#[derive(Debug, thiserror::Error)]
pub enum CollectError {
    /// The conversation.
    #[error(transparent)]
    Session(#[from] SessionError),
    /// Our disk.
    #[error("its rings cannot be stored: {0}")]
    Store(#[from] io::Error),
    /// More than it may have.
    #[error(
        "its rings are {found} bytes in {files} files, with what is here of it; at most {most} in \
         {MAX_FILES} are taken"
    )]
    TooLarge {
        /// What it says that it has, and what is here beside that.
        found: u64,
        /// In how many.
        files: usize,
        /// What it may have.
        most: u64,
    },
    /// Not what was asked for.
    #[error("it sends a piece of a ring that does not belong there: {0}")]
    Piece(&'static str),
    /// Not what it said.
    #[error("the checksum of a ring is not what it says")]
    Check,
    /// Its disk, or its memory.
    #[error(
        "{bytes} bytes of its rings cannot be read there; all else is here, and nothing is removed there"
    )]
    Unreadable {
        /// How many.
        bytes: u64,
    },
    /// It lists a ring, and does not send it.
    #[error("{what}{}; all else is here, and nothing is removed there", and_more(.more))]
    Closed {
        /// Which, and why.
        what: String,
        /// How many more there are.
        more: usize,
    },
    /// Our disk, or its bound.
    #[error(
        "{files} of its rings are not what is here of them, and there is no room for both: what is here \
         has as many samples, and stays; nothing is removed there"
    )]
    NoRoom {
        /// How many.
        files: usize,
    },
}

fn and_more(more: &usize) -> String {
    if *more == 0 { String::new() } else { format!(", and so it is with {more} more of its rings") }
}

impl CollectError {
    /// Whether another connection may do better.
    pub fn is_lost(&self) -> bool {
        matches!(self, CollectError::Session(error) if error.is_lost())
    }
}

/// What has come of a host.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Collected {
    /// Ring files.
    pub files: usize,
    /// Their bytes.
    pub bytes: u64,
}

/// Fetches all rings of a host into `dir`, of which it is the only writer, and which has at most `most`
/// bytes then, with what was there before; until a ring that is fetched again is whole, both are there.
/// `progress` hears of bytes as they come.
///
/// # Errors
/// [`CollectError`]; what has come until then is made use of by the next attempt.
pub fn collect(
    session: &mut Session<'_>,
    dir: &Path,
    most: u64,
    deadline: Instant,
    progress: &mut dyn FnMut(u64),
) -> Result<Collected, CollectError> {
    let place = Place::open(dir)?;
    let entries = match session.ask(&Request::List, deadline, "which rings there are")? {
        Reply::Files(entries) => entries,
        other => return Err(unexpected(&other, "its rings").into()),
    };
    let listed: Vec<(String, u64)> =
        entries.iter().map(|entry| (name_of(entry), entry.bytes)).collect();
    let room = Room::beside(&place, &listed, most)?;
    let mut collecting = Collecting { place, deadline, room, kept: 0, progress };
    let mut unreadable = 0_u64;
    let mut closed: Vec<String> = Vec::new();
    for (number, entry) in (0..).zip(&entries) {
        let name = name_of(entry);
        if listed.iter().filter(|(other, _)| *other == name).count() > 1 {
            return Err(CollectError::Piece("it has a ring twice"));
        }
        match collecting.obtain(session, number, entry) {
            Ok(lacks) => unreadable = unreadable.saturating_add(lacks),
            // What it has beside that ring can be had.
            Err(CollectError::Session(SessionError::Refused(what))) => closed.push(what),
            Err(error) => return Err(error),
        }
    }
    let bytes = listed.iter().map(|(_, bytes)| bytes).sum();
    let more = closed.len().saturating_sub(1);
    if let Some(what) = closed.into_iter().next() {
        return Err(CollectError::Closed { what, more });
    }
    match (unreadable, collecting.kept) {
        (0, 0) => Ok(Collected { files: listed.len(), bytes }),
        (0, files) => Err(CollectError::NoRoom { files }),
        (bytes, _) => Err(CollectError::Unreadable { bytes }),
    }
}

/// The name of a ring here; a mirror's copy has one of its own.
fn name_of(entry: &FileEntry) -> String {
    let name = format!("{:05}.ring", entry.segment);
    if entry.is_mirror { format!("mirror-{name}") } else { name }
}

/// Where the rings of a host go.
struct Collecting<'c> {
    place: Place,
    deadline: Instant,
    room: Room,
    /// Rings here that stay as they are, though the host has others.
    kept: usize,
    progress: &'c mut dyn FnMut(u64),
}

/// A ring as it was here before.
#[derive(Clone, Copy)]
struct Before {
    length: u64,
    /// Our disk gives all of it.
    is_whole: bool,
}

/// What a host says behind the last piece of a ring.
struct Sent {
    check: u64,
    unreadable: u64,
}

impl Collecting<'_> {
    /// Has a ring here as its host has it now; how many bytes of it cannot be read there. One that is
    /// here already is held against the checksum of the host's: its disk may have lost some of it.
    fn obtain(
        &mut self,
        session: &mut Session<'_>,
        number: u32,
        entry: &FileEntry,
    ) -> Result<u64, CollectError> {
        let name = name_of(entry);
        let mut before = None;
        if let Ok(mut here) = self.place.read(&name) {
            let length = here.metadata()?.len();
            let check = check_of(&mut here).ok();
            if length == entry.bytes && check.is_some() {
                // All that comes is its checksum.
                let sent = self.receive(session, &here, number, length, entry.bytes)?;
                if check == Some(sent.check) {
                    return Ok(sent.unreadable);
                }
            }
            before = Some(Before { length, is_whole: check.is_some() });
        }
        let unreadable = self.fetch(session, number, entry)?;
        let part = format!("{name}{PART}");
        match before {
            Some(before) if !self.makes_way(&name, &part, entry.bytes, before)? => {
                self.kept += 1;
                self.place.remove(&part)?;
            }
            _ => self.place.rename(&part, &name)?,
        }
        Ok(unreadable)
    }

    /// Whether a ring that is here may be replaced by the one that has come, of `bytes`: it may have what
    /// the host has lost since.
    fn makes_way(
        &mut self,
        name: &str,
        part: &str,
        bytes: u64,
        before: Before,
    ) -> io::Result<bool> {
        // One that our disk cannot read to its end cannot be moved to a better place.
        if before.is_whole
            && let Some(earlier) = self.room.keep(&self.place, name, bytes.min(before.length))?
        {
            self.place.rename(name, &earlier)?;
            return Ok(true);
        }
        let (old, new) =
            (room::samples(&self.place, name, part), room::samples(&self.place, part, name));
        Ok(new > old || (new == old && !before.is_whole))
    }

    /// Fetches a ring under the name of one that is not yet whole.
    fn fetch(
        &mut self,
        session: &mut Session<'_>,
        number: u32,
        entry: &FileEntry,
    ) -> Result<u64, CollectError> {
        let part = format!("{}{PART}", name_of(entry));
        let mut file = match self.place.append(&part) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => self.place.create(&part)?,
            Err(error) => return Err(error.into()),
        };
        // Whole chunks, so that a piece that was cut off by a kill is asked for again.
        let mut from = file.metadata()?.len() / CHUNK_BYTES as u64 * CHUNK_BYTES as u64;
        loop {
            let sent = self.receive(session, &file, number, from, entry.bytes)?;
            // What was not sent is zeros.
            file.set_len(entry.bytes)?;
            if check_of(&mut file)? == sent.check {
                return Ok(sent.unreadable);
            }
            if from == 0 {
                // Nothing of it is worth going on from.
                self.place.remove(&part)?;
                return Err(CollectError::Check);
            }
            // Nor is what an earlier attempt has left.
            file.set_len(0)?;
            from = 0;
        }
    }

    /// What a host has of a ring from `from` on.
    fn receive(
        &mut self,
        session: &mut Session<'_>,
        file: &File,
        number: u32,
        from: u64,
        end: u64,
    ) -> Result<Sent, CollectError> {
        let mut pieces = Pieces { number, next: from, end };
        session.say(&Request::Fetch { file: number, from }, self.deadline, "a ring")?;
        loop {
            match session.message(self.deadline, "a ring")? {
                Message::Chunk(chunk) => {
                    pieces.check(&chunk)?;
                    file.write_all_at(&chunk.bytes, chunk.offset)?;
                    (self.progress)(chunk.bytes.len() as u64);
                }
                Message::Control(Reply::End { file: same, check, unreadable })
                    if same == number =>
                {
                    return Ok(Sent { check, unreadable });
                }
                Message::Control(Reply::Failed { what }) => {
                    return Err(SessionError::Refused(super::session::shown(&what)).into());
                }
                Message::Control(other) => return Err(unexpected(&other, "a ring").into()),
            }
        }
    }
}

/// Where pieces of a file may lie: within it, and each behind the one before.
struct Pieces {
    number: u32,
    next: u64,
    end: u64,
}

impl Pieces {
    fn check(&mut self, chunk: &Chunk) -> Result<(), CollectError> {
        let end = chunk.offset.checked_add(chunk.bytes.len() as u64);
        match end {
            _ if chunk.file != self.number => Err(CollectError::Piece("it is of another ring")),
            _ if chunk.offset < self.next => Err(CollectError::Piece("it was there already")),
            Some(end) if end <= self.end && !chunk.bytes.is_empty() => {
                self.next = end;
                Ok(())
            }
            _ => Err(CollectError::Piece("it lies behind the end")),
        }
    }
}

fn check_of(file: &mut File) -> io::Result<u64> {
    let mut check = Xxh3Default::new();
    let mut buffer = vec![0; CHUNK_BYTES];
    file.rewind()?;
    loop {
        match file.read(&mut buffer) {
            Ok(0) => return Ok(check.digest()),
            Ok(count) => check.update(&buffer[..count]),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    #[test]
    fn pieces_lie_within_their_file_and_behind_each_other() {
        let mut pieces = Pieces { number: 1, next: 10, end: 100 };
        let chunk = |file, offset, length| Chunk { file, offset, bytes: vec![1; length] };
        assert!(pieces.check(&chunk(1, 10, 20)).is_ok());
        assert!(pieces.check(&chunk(1, 50, 20)).is_ok(), "zeros between");
        for bad in [chunk(0, 70, 1), chunk(1, 69, 2), chunk(1, 90, 11), chunk(1, u64::MAX, 2)] {
            assert!(pieces.check(&bad).is_err(), "{bad:?}");
        }
        assert!(pieces.check(&chunk(1, 80, 0)).is_err(), "nothing is no piece");
        assert!(pieces.check(&chunk(1, 80, 20)).is_ok());
    }
}
