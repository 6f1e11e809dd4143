//! Looks after a segment's file, which other processes can reach: whether it still is what its name
//! leads to, as long as it was made, begins as it was begun and has its names, without which the rows of
//! all records to come could not be read. On a thread of its own, since even a look at a name may wait
//! for a disk. What is to be done about it is for others.

use super::thread::stay_behind;
use crate::place::Identity;
use crate::ring::{self, ENTRY_WORDS, HEADER_BYTES, Segment};
use crate::sync::{AtomicU64 as Word, Ordering};
use crate::units::Bytes;
use crossbeam::channel::{Receiver, RecvTimeoutError, Sender, bounded, unbounded};
use rustix::io::Errno;
use std::fs::File;
use std::io;
use std::ops::Range;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::AtomicU64;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

/// How long the end of a run waits for the last look.
const LAST_LOOK_PATIENCE: Duration = Duration::from_secs(1);

/// Words of a description that one look compares: what is read here was not in any cache, and costs
/// the host. A description of 30 kB is through after eight looks.
const PART_WORDS: usize = 512;
/// Names that one look compares: as many words.
const PART_NAMES: u32 = (PART_WORDS / ENTRY_WORDS) as u32;

/// As [`damage`] says it.
pub const CUT_OFF: &str = "was cut off by somebody else";
/// The same of a file that begins with something else.
pub const OVERWRITTEN: &str = "was overwritten by somebody else";

/// What has become of a file of `bytes` that nobody else should have touched, to be read behind its
/// name; `None` if it is as it was left, or if the kernel does not say.
pub fn damage(file: &File, path: &Path, bytes: Bytes) -> Option<&'static str> {
    let own = file.metadata().ok()?;
    match std::fs::symlink_metadata(path) {
        Ok(found) if Identity::of_metadata(&found) == Identity::of_metadata(&own) => {
            (own.len() < bytes.0).then_some(CUT_OFF)
        }
        Ok(_) => Some("was replaced by somebody else"),
        Err(error) => match error.raw_os_error().map(Errno::from_raw_os_error) {
            Some(Errno::NOENT | Errno::NOTDIR | Errno::LOOP | Errno::ACCESS) => {
                let is_deleted = own.nlink() == 0;
                let how = ["was moved away by somebody else", "was deleted by somebody else"];
                Some(how[usize::from(is_deleted)])
            }
            _ => (own.len() < bytes.0).then_some(CUT_OFF),
        },
    }
}

/// A segment's file with what it must begin with.
struct Watched {
    number: u64,
    segment: Arc<Segment>,
    head: Vec<u64>,
    /// Where in the head the next look compares a part.
    next_part: usize,
    /// The name that the next look begins with.
    next_name: u32,
    /// Names that there were at the last look. The count says nothing of whether the newest can be seen
    /// yet; one look later they can.
    named: u32,
    file: File,
    path: PathBuf,
}

impl Watched {
    /// A look at the header, at one part of the description, and at some names.
    fn damage(&mut self) -> Option<&'static str> {
        let parts =
            [0..HEADER_BYTES.words().0 as usize, self.next_part..self.next_part + PART_WORDS];
        self.next_part = if parts[1].end < self.head.len() { parts[1].end } else { 0 };
        let end = self.next_name.saturating_add(PART_NAMES).min(self.named);
        let names = self.next_name..end;
        self.next_name = if end < self.named { end } else { 0 };
        self.named = self.segment.entries_used();
        self.damage_in(&parts, names)
    }

    /// A look at all of it.
    fn damage_anywhere(&self) -> Option<&'static str> {
        self.damage_in(std::slice::from_ref(&(0..self.head.len())), 0..self.segment.entries_used())
    }

    fn damage_in(&self, parts: &[Range<usize>], names: Range<u32>) -> Option<&'static str> {
        let (head, now) = (&self.head, self.segment.head());
        let is_overwritten = parts.iter().any(|part| {
            let part = part.start.min(head.len())..part.end.min(head.len());
            let now = now[part.clone()].iter().map(|word: &Word| word.load(Ordering::Relaxed));
            !now.eq(head[part].iter().copied())
        }) || self.lacks_any_of(names);
        damage(&self.file, &self.path, self.segment.header().layout.file_bytes())
            .or(is_overwritten.then_some(OVERWRITTEN))
    }

    /// Whether one of these names does not verify any more.
    fn lacks_any_of(&self, mut names: Range<u32>) -> bool {
        let seed = self.segment.header().seed();
        names.any(|name| ring::read_entry(&self.segment.copy_entry(name), name, seed).is_none())
    }

    fn sentence(&self, what: &str) -> String {
        format!("the ring {} {what}", self.path.display())
    }
}

enum Message {
    /// One more, and the number of the oldest that its run still has.
    Segment(Box<Watched>, u64),
    /// The last look, at those of these numbers.
    Finish(Vec<u64>, Sender<Vec<String>>),
}

#[derive(Default)]
struct Findings {
    /// One more than the number of the segment that is to be written no further; 0 for none.
    spoiled: AtomicU64,
    sentence: Mutex<String>,
}

/// A running watch.
pub struct Watch {
    messages: Sender<Message>,
    findings: Arc<Findings>,
}

impl Watch {
    /// Starts the thread; `interval` is the time between two looks.
    ///
    /// # Errors
    /// The kernel's, if there can be no thread.
    pub fn start(interval: Duration) -> io::Result<Watch> {
        let (messages, inbox) = unbounded();
        let findings = Arc::new(Findings::default());
        let shared = findings.clone();
        std::thread::Builder::new().name("rs-watch".to_owned()).spawn(move || {
            ring::let_through();
            stay_behind();
            run(&inbox, &shared, interval);
        })?;
        Ok(Watch { messages, findings })
    }

    /// Looks after this segment from now on, and after those before it only once more, at the end:
    /// those before number `oldest` not at all. Their memory and files are let go of.
    ///
    /// # Errors
    /// The kernel's.
    pub fn segment(
        &self,
        segment: &Arc<Segment>,
        file: &File,
        path: &Path,
        oldest: u64,
    ) -> io::Result<()> {
        let watched = Watched {
            number: segment.header().segment,
            segment: segment.clone(),
            head: segment.head().iter().map(|word| word.load(Ordering::Relaxed)).collect(),
            next_part: 0,
            next_name: 0,
            named: 0,
            file: file.try_clone()?,
            path: path.to_owned(),
        };
        // Fails only if the thread is gone.
        let _ = self.messages.send(Message::Segment(Box::new(watched), oldest));
        Ok(())
    }

    /// Whether segment number `number` is to be written no further.
    #[inline]
    pub fn has_spoiled(&self, number: u64) -> bool {
        // Hands nothing over: the sentence has a lock of its own.
        self.findings.spoiled.load(std::sync::atomic::Ordering::Relaxed) == number + 1
    }

    /// Why.
    pub fn sentence(&self) -> String {
        self.findings.sentence.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Ends it with a last look at these segments: sentences about what was not said before.
    pub fn finish(self, numbers: Vec<u64>) -> Vec<String> {
        let (reply, last) = bounded(1);
        let _ = self.messages.send(Message::Finish(numbers, reply));
        last.recv_timeout(LAST_LOOK_PATIENCE).unwrap_or_default()
    }
}

fn run(inbox: &Receiver<Message>, findings: &Findings, interval: Duration) {
    let mut watched: Vec<Watched> = Vec::new();
    let mut said = 0;
    loop {
        match inbox.recv_timeout(interval) {
            Ok(Message::Segment(segment, oldest)) => {
                watched.retain(|watched| watched.number >= oldest);
                watched.push(*segment);
            }
            Ok(Message::Finish(mut numbers, reply)) => {
                numbers.retain(|number| number + 1 > said);
                let last = watched.iter().filter(|watched| numbers.contains(&watched.number));
                let sentences =
                    last.filter_map(|watched| Some(watched.sentence(watched.damage_anywhere()?)));
                let _ = reply.send(sentences.collect());
                return;
            }
            Err(RecvTimeoutError::Disconnected) => return,
            Err(RecvTimeoutError::Timeout) => {
                let Some(newest) = watched.last_mut().filter(|newest| newest.number + 1 > said)
                else {
                    continue;
                };
                let Some(what) = newest.damage() else { continue };
                said = newest.number + 1;
                *findings.sentence.lock().unwrap_or_else(PoisonError::into_inner) =
                    newest.sentence(what);
                findings.spoiled.store(said, std::sync::atomic::Ordering::Relaxed);
            }
        }
    }
}
