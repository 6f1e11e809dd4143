//! The durable copy of a run's rings: a thread that reads the segments as any reader does, writes
//! what is new with `pwrite`, and syncs it. The sampler never waits for it and does not know how
//! far it is; when its disk stops, only this thread stops.

use super::segments::file_name;
use super::storage::check_free;
use super::thread::{CpuChoice, Policy, ThreadSettings, apply};
use crate::ring::{self, Blocks, HEADER_BYTES, Segment, SlotState, allocate, punch};
use crate::sync::{AtomicU64, Ordering};
use crate::units::{Bytes, Seq, Slot};
use crossbeam::channel::{Receiver, RecvTimeoutError, Sender, bounded, unbounded};
use std::collections::VecDeque;
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::PathBuf;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// How a mirror is kept.
#[derive(Debug, Clone)]
pub struct MirrorSettings {
    /// The run's directory on the disk; it exists.
    pub dir: PathBuf,
    /// Time between two syncs: what a power cut may cost.
    pub sync_interval: Duration,
    /// Time between two copies without a sync, if the ring is in private memory: what a crash of
    /// the recorder alone may cost.
    pub copy_interval: Duration,
    /// The newest samples that are kept.
    pub max_samples: u64,
}

/// What the mirror has come to.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct MirrorEnd {
    /// What went wrong, the first time.
    pub error: Option<String>,
    /// Whether everything was written and synced.
    pub complete: bool,
}

enum Message {
    /// The file for segment number so-and-so is to be made, of so many bytes.
    Prepare(u64, Bytes, Sender<io::Result<()>>),
    /// A segment, and whether it lies in private memory.
    Segment(Arc<Segment>, bool),
    Finish,
}

/// A running mirror.
pub struct Mirror {
    messages: Sender<Message>,
    thread: Option<JoinHandle<()>>,
    end: Receiver<MirrorEnd>,
}

/// Tells the mirror of new segments; the sampler's end.
#[derive(Clone)]
pub struct MirrorFeed(Sender<Message>);

/// How long the start of a run waits for the mirror's disk.
const PREPARE_PATIENCE: Duration = Duration::from_secs(2);

impl MirrorFeed {
    /// Makes the file for segment number `number`, before the run starts: what goes wrong with it
    /// is known then. Does not wait long for a disk that does not answer.
    ///
    /// # Errors
    /// The kernel's, `TimedOut`.
    pub fn prepare(&self, number: u64, bytes: Bytes) -> io::Result<()> {
        let (reply, made) = bounded(1);
        let _ = self.0.send(Message::Prepare(number, bytes, reply));
        match made.recv_timeout(PREPARE_PATIENCE) {
            Ok(result) => result,
            Err(_) => Err(io::Error::new(io::ErrorKind::TimedOut, "the disk does not answer")),
        }
    }

    /// A segment that is to be mirrored. One in private memory is copied more often, since its
    /// mirror is all that a crash leaves. Does not wait.
    pub fn segment(&self, segment: Arc<Segment>, is_private: bool) {
        // Fails only if the thread is gone, and then its end says why.
        let _ = self.0.send(Message::Segment(segment, is_private));
    }
}

impl Mirror {
    /// Starts the thread.
    ///
    /// # Errors
    /// The kernel's, if there can be no thread.
    pub fn start(settings: MirrorSettings) -> io::Result<Mirror> {
        let (messages, inbox) = unbounded();
        let (outbox, end) = unbounded();
        let thread = std::thread::Builder::new().name("rs-mirror".to_owned()).spawn(move || {
            // Out of the benchmark's way; not SCHED_IDLE, which under load might starve the copy.
            let policy = Policy::Batch;
            apply(&ThreadSettings { policy, nice: Some(19), cpu: CpuChoice::Unpinned });
            let _ = outbox.send(Copier::new(settings).run(&inbox));
        })?;
        Ok(Mirror { messages, thread: Some(thread), end })
    }

    /// The sampler's end.
    pub fn feed(&self) -> MirrorFeed {
        MirrorFeed(self.messages.clone())
    }

    /// Asks for the last copy and sync and waits for it, but no longer than `patience`: a disk
    /// that does not answer must not hold up whoever recorded.
    pub fn finish(mut self, patience: Duration) -> MirrorEnd {
        let _ = self.messages.send(Message::Finish);
        match self.end.recv_timeout(patience) {
            Ok(end) => {
                if let Some(thread) = self.thread.take() {
                    let _ = thread.join();
                }
                end
            }
            Err(RecvTimeoutError::Timeout) => {
                let error = format!("the mirror's disk has not answered for {patience:?}");
                MirrorEnd { error: Some(error), complete: false }
            }
            Err(RecvTimeoutError::Disconnected) => {
                let error = "the mirror's thread ended early".to_owned();
                MirrorEnd { error: Some(error), complete: false }
            }
        }
    }
}

/// The mirror of one segment.
struct Copy {
    segment: Arc<Segment>,
    file: File,
    path: PathBuf,
    /// Records before this one are in the file, or are lost.
    next: Seq,
    /// Entries of the dictionary that are in the file.
    entries: u32,
    dirty: bool,
}

struct Copier {
    settings: MirrorSettings,
    copies: Vec<Copy>,
    /// A file that was made ahead, and of which segment it is to be.
    prepared: Option<(u64, File)>,
    /// Segments whose file could not be made yet; each interval tries again.
    waiting: VecDeque<Arc<Segment>>,
    end: MirrorEnd,
}

impl Copier {
    fn new(settings: MirrorSettings) -> Self {
        Copier {
            settings,
            copies: Vec::new(),
            prepared: None,
            waiting: VecDeque::new(),
            end: MirrorEnd::default(),
        }
    }

    fn run(mut self, inbox: &Receiver<Message>) -> MirrorEnd {
        let mut interval = self.settings.sync_interval;
        let mut next_copy = Instant::now() + interval;
        let mut last_sync = Instant::now();
        loop {
            match inbox.recv_deadline(next_copy) {
                Ok(Message::Prepare(number, bytes, reply)) => {
                    self.prepare(number, bytes, &reply);
                    continue;
                }
                Ok(Message::Segment(segment, is_private)) => {
                    if is_private {
                        interval = interval.min(self.settings.copy_interval);
                        next_copy = next_copy.min(Instant::now() + interval);
                    }
                    self.copy_all();
                    self.waiting.push_back(segment);
                    self.begin_waiting();
                    continue;
                }
                Ok(Message::Finish) | Err(RecvTimeoutError::Disconnected) => {
                    self.begin_waiting();
                    self.copy_all();
                    self.sync_all();
                    let all_there = self.waiting.is_empty() && !self.copies.is_empty();
                    self.end.complete = all_there && self.end.error.is_none();
                    return self.end;
                }
                Err(RecvTimeoutError::Timeout) => {}
            }
            self.begin_waiting();
            self.copy_all();
            if last_sync.elapsed() + interval / 2 >= self.settings.sync_interval {
                self.sync_all();
                last_sync = Instant::now();
            }
            // Not "work, then sleep": but a slow disk does not make it run all the time either.
            next_copy = (next_copy + interval).max(Instant::now() + interval / 2);
        }
    }

    /// Keeps the first error; later ones follow from it as a rule.
    fn note(&mut self, result: io::Result<()>) {
        if let Err(error) = result {
            let dir = self.settings.dir.display();
            self.end.error.get_or_insert_with(|| format!("no complete mirror in {dir}: {error}"));
        }
    }

    /// Makes the first file before the run. Nobody keeps it who has given up waiting for it.
    fn prepare(&mut self, number: u64, bytes: Bytes, reply: &Sender<io::Result<()>>) {
        match self.make_file(number, bytes) {
            Ok(file) if reply.send(Ok(())).is_ok() => self.prepared = Some((number, file)),
            Ok(_) => {
                let _ = std::fs::remove_file(self.settings.dir.join(file_name(number)));
            }
            Err(error) => {
                let _ = reply.send(Err(error));
            }
        }
    }

    /// Makes the files of segments that have none yet, oldest first. Those that are not wanted any
    /// more are not waited with.
    fn begin_waiting(&mut self) {
        let newest = self.waiting.back().map_or(0, |segment| segment.header().first_seq.0);
        let oldest_wanted = newest.saturating_sub(self.settings.max_samples);
        while self.waiting.get(1).is_some_and(|next| next.header().first_seq.0 <= oldest_wanted) {
            self.waiting.pop_front();
        }
        while let Some(segment) = self.waiting.front().cloned() {
            self.drop_superseded(segment.header().first_seq);
            match self.begin(segment) {
                Ok(mut copy) => {
                    self.trim_last(copy.next);
                    // Now: the one behind it in the queue may be the last that is copied later.
                    let copied = copy.copy_records();
                    self.note(copied);
                    self.copies.push(copy);
                    self.waiting.pop_front();
                }
                Err(error) => return self.note(Err(error)),
            }
        }
    }

    fn begin(&mut self, segment: Arc<Segment>) -> io::Result<Copy> {
        let header = segment.header();
        let path = self.settings.dir.join(file_name(header.segment));
        let file = match self.prepared.take() {
            Some((number, file)) if number == header.segment => file,
            _ => self.make_file(header.segment, header.layout.file_bytes())?,
        };
        // The header last: killed in between, it is a ring that was never begun.
        let (head, description) = segment.head().split_at(HEADER_BYTES.words().0 as usize);
        let written = write_words(&file, description, HEADER_BYTES)
            .and_then(|()| write_words(&file, head, Bytes(0)))
            .and_then(|()| file.sync_all())
            .and_then(|()| File::open(&self.settings.dir)?.sync_all());
        if let Err(error) = written {
            // Its name must be free for the next attempt.
            let _ = std::fs::remove_file(&path);
            return Err(error);
        }
        let next = header.first_seq;
        Ok(Copy { segment, file, path, next, entries: 0, dirty: false })
    }

    fn make_file(&self, number: u64, bytes: Bytes) -> io::Result<File> {
        check_free(&self.settings.dir, bytes)?;
        allocate(&self.settings.dir.join(file_name(number)), bytes, Blocks::Reserved)
    }

    /// Gives back the slots that the newest segment will never use, since `next` begins another.
    fn trim_last(&self, next: Seq) {
        let Some(copy) = self.copies.last() else { return };
        let header = copy.segment.header();
        let used = next.0.saturating_sub(header.first_seq.0);
        if used < header.layout.slots {
            let from = header.layout.slot_offset(Slot(used));
            punch(&copy.file, from, header.layout.file_bytes());
        }
    }

    /// Removes segments whose records are all beyond `max_samples` when `next` begins one.
    fn drop_superseded(&mut self, next: Seq) {
        let oldest_wanted = next.0.saturating_sub(self.settings.max_samples);
        while let [_, second, ..] = &self.copies[..]
            && second.segment.header().first_seq.0 <= oldest_wanted
        {
            let _ = std::fs::remove_file(&self.copies.remove(0).path);
        }
    }

    fn copy_all(&mut self) {
        // Only the last segment grows; the one before may have had a record in flight.
        let recent = self.copies.len().saturating_sub(2);
        for index in recent..self.copies.len() {
            let result = self.copies[index].copy_records();
            self.note(result);
        }
    }

    fn sync_all(&mut self) {
        for index in 0..self.copies.len() {
            let copy = &mut self.copies[index];
            if copy.dirty {
                let result = rustix::fs::fdatasync(&copy.file).map_err(io::Error::from);
                copy.dirty = result.is_err();
                self.note(result);
            }
        }
    }
}

impl Copy {
    /// Writes the records and names that are new. One that cannot be written does not keep those
    /// behind it from being written.
    ///
    /// # Errors
    /// The first that there was.
    fn copy_records(&mut self) -> io::Result<()> {
        let layout = self.segment.header().layout;
        let first = self.segment.header().first_seq;
        let seed = self.segment.header().seed();
        let mut words = Vec::new();
        let mut result = Ok(());
        while let Some(slot) = layout.slot_of(first, self.next) {
            let stable = self.segment.copy_slot(slot, &mut words);
            // Names first: they were stored before the record that speaks of them.
            result = result.and(self.copy_names());
            match ring::judge(&words, slot.0, layout.slots, first, seed) {
                _ if !stable => {}
                SlotState::Valid(seq, used) if seq == self.next => {
                    let slot_bytes = &words[..used + ring::SLOT_HEAD_WORDS];
                    let offset = layout.slot_offset(slot).0;
                    let bytes = bytemuck::cast_slice(slot_bytes);
                    result = result.and(self.file.write_all_at(bytes, offset));
                    self.dirty = true;
                    self.next = Seq(seq.0 + 1);
                }
                // Lapped, because the disk was away for so long: go on with the oldest there is.
                SlotState::Valid(seq, _) | SlotState::Busy(seq) if seq > self.next => {
                    self.next = Seq((seq.0 + 1).saturating_sub(layout.slots));
                }
                _ => return result,
            }
        }
        result
    }

    fn copy_names(&mut self) -> io::Result<()> {
        let layout = self.segment.header().layout;
        while u64::from(self.entries) < layout.entries {
            let entry = self.segment.copy_entry(self.entries);
            if entry[0] == 0 {
                break;
            }
            let offset = layout.entry_offset(self.entries).0;
            self.file.write_all_at(bytemuck::cast_slice(&entry), offset)?;
            self.dirty = true;
            self.entries += 1;
        }
        Ok(())
    }
}

fn write_words(file: &File, words: &[AtomicU64], offset: Bytes) -> io::Result<()> {
    let words: Vec<u64> = words.iter().map(|word| word.load(Ordering::Relaxed)).collect();
    file.write_all_at(bytemuck::cast_slice(&words), offset.0)
}
