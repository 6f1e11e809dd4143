//! Copies the segments of a run to a disk: reads them as any reader does, writes what is new, and
//! syncs. Keeps the mirror's promise, that a power cut leaves the newest `max_samples` as of the
//! last sync: a slot with one of those is not written to before newer ones are synced. It has no
//! thread, and does not know what time it is.

use super::batch::Batch;
use super::compare::{Buffer, Look};
use super::copy::{Copy, Original, Queued, Spoiled};
use super::disk::{Disk, DiskFile};
use super::mirror::MirrorEnd;
use super::segments::file_name;
use crate::ring::{self, SlotState};
use crate::units::{Bytes, Seq, Slot};
use std::collections::VecDeque;
use std::io;

/// The mirror of a run.
pub struct Copier<D: Disk> {
    disk: D,
    max_samples: u64,
    copies: Vec<Copy<D::File>>,
    /// Of the copy that is being written to; empty between two.
    batch: Batch,
    /// What a slot of the ring has; with room for one of each segment when that is begun.
    words: Vec<u64>,
    /// A file that was made ahead, and of which segment it is to be.
    prepared: Option<(u64, D::File)>,
    /// Segments whose file could not be made yet, oldest first; each copy tries again.
    waiting: VecDeque<Queued>,
    /// The newest of those whose memory was gone before they had a file.
    gone: Option<Queued>,
    /// For what is read of a file to be compared.
    buffer: Buffer,
    /// How often the files were looked at.
    looks: usize,
    /// What went wrong, the first time.
    error: Option<String>,
    /// What others have done to the files.
    notes: Vec<String>,
}

/// What others do to the mirror is said so many times.
const MAX_NOTES: usize = 100;

impl<D: Disk> Copier<D> {
    /// A mirror on `disk`, without segments.
    pub fn new(disk: D, max_samples: u64) -> Self {
        let (copies, waiting) = (Vec::new(), VecDeque::new());
        Copier {
            disk,
            max_samples,
            copies,
            batch: Batch::new(),
            words: Vec::new(),
            prepared: None,
            waiting,
            gone: None,
            buffer: Buffer::new(),
            looks: 0,
            error: None,
            notes: Vec::new(),
        }
    }

    /// Makes the file for segment number `number` ahead.
    ///
    /// # Errors
    /// The kernel's.
    pub fn prepare(&mut self, number: u64, bytes: Bytes) -> io::Result<()> {
        self.prepared = Some((number, self.disk.create(&file_name(number), bytes)?));
        Ok(())
    }

    /// Removes the file that was made ahead.
    pub fn drop_prepared(&mut self) {
        if let Some((number, file)) = self.prepared.take() {
            self.disk.remove(&file_name(number), &file);
        }
    }

    /// The run goes on in this segment, whose file the next copy makes: whether anything of it is wanted
    /// is known when all are known.
    pub fn add(&mut self, queued: Queued) {
        self.waiting.push_back(queued);
    }

    /// Writes what is new.
    pub fn copy(&mut self) {
        // First: what is the newest now may not be among the last two afterwards.
        self.copy_recent();
        self.begin_waiting();
    }

    /// Makes durable what was written.
    pub fn sync(&mut self) {
        let synced = self.sync_copies();
        self.note(synced);
    }

    /// What it has come to.
    pub fn finish(mut self) -> MirrorEnd {
        let lost = self.lost();
        self.note(lost);
        let spoiled: Vec<Spoiled> =
            self.copies.iter_mut().filter_map(|copy| copy.spoiled.take()).collect();
        let all_there = self.waiting.is_empty() && !self.copies.is_empty() && spoiled.is_empty();
        spoiled.iter().for_each(|spoiled| self.say(spoiled.sentence()));
        MirrorEnd {
            complete: all_there && self.error.is_none(),
            error: self.error,
            notes: self.notes,
            ..MirrorEnd::default()
        }
    }

    /// Keeps the first error; later ones follow from it as a rule.
    fn note(&mut self, result: io::Result<()>) {
        if let Err(error) = result {
            let dir = self.disk.shown();
            self.error.get_or_insert_with(|| format!("no complete mirror in {dir}: {error}"));
        }
    }

    /// Whether the memory of a segment was gone before it was copied though something of it was wanted.
    fn lost(&self) -> io::Result<()> {
        let Some(gone) = &self.gone else { return Ok(()) };
        let begun = self.copies.iter().map(Copy::first);
        let firsts = begun.chain(self.waiting.iter().map(|queued| queued.first_seq));
        let firsts = firsts.filter(|first| *first > gone.first_seq);
        let newest = firsts.clone().max().map_or(0, |first| first.0);
        let oldest_wanted = newest.saturating_sub(self.max_samples);
        if firsts.min().is_some_and(|next| next.0 <= oldest_wanted) {
            return Ok(());
        }
        let (file, Seq(first)) = (file_name(gone.number), gone.first_seq);
        Err(io::Error::other(format!(
            "the memory of {file} was gone before it could be copied, with the samples from number \
             {first} on; please report this"
        )))
    }

    /// Says what others have done, once.
    fn say(&mut self, sentence: String) {
        if !self.notes.contains(&sentence) && self.notes.len() < MAX_NOTES {
            self.notes.push(sentence);
        }
    }

    /// Behind the newest record that is synced.
    fn synced_end(&self) -> u64 {
        let whole = self.copies.iter().filter(|copy| copy.spoiled.is_none());
        whole.map(|copy| copy.synced.end.0).max().unwrap_or(0)
    }

    /// Makes the files of segments that have none yet, oldest first. Those that are not wanted any
    /// more are not waited with.
    fn begin_waiting(&mut self) {
        let newest = self.waiting.back().map_or(0, |queued| queued.first_seq.0);
        let oldest_wanted = newest.saturating_sub(self.max_samples);
        while self.waiting.get(1).is_some_and(|next| next.first_seq.0 <= oldest_wanted) {
            self.waiting.pop_front();
        }
        let mut index = 0;
        while let Some(queued) = self.waiting.get(index) {
            let Some(original) = queued.upgrade() else {
                // Let go of since nothing of it is wanted, as a rule: the segment for which that is so
                // may not be known here yet.
                let gone = self.waiting.remove(index);
                self.gone = self.gone.take().into_iter().chain(gone).max_by_key(|it| it.number);
                continue;
            };
            self.drop_superseded(original.segment.header().first_seq);
            match self.begin(original) {
                Ok(copy) => {
                    self.waiting.remove(index);
                    self.insert(copy);
                }
                // Others have put something of theirs there. What is behind it has names of its own.
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
                    self.note(Err(error));
                    index += 1;
                }
                Err(error) => return self.note(Err(error)),
            }
        }
    }

    /// Takes in a copy that was just begun, which may have waited longer than newer ones.
    fn insert(&mut self, copy: Copy<D::File>) {
        let number = copy.segment().header().segment;
        let index = self.copies.partition_point(|it| it.segment().header().segment < number);
        self.copies.insert(index, copy);
        self.trim(index.saturating_sub(1));
        // Now: the one behind it in the queue may be the last that is copied later.
        self.copy_one(index);
        self.trim(index);
    }

    fn begin(&mut self, original: Original) -> io::Result<Copy<D::File>> {
        let header = original.segment.header();
        // Touched now: the recorder's memory does not grow once it is under way.
        self.words.clear();
        self.words.resize(header.layout.slot.0 as usize, 0);
        let name = file_name(header.segment);
        let file = match self.prepared.take() {
            Some((number, file)) if number == header.segment => file,
            _ => self.disk.create(&name, header.layout.file_bytes())?,
        };
        let copy = Copy::new(original, file, name);
        match copy.begin().and_then(|()| self.disk.sync()) {
            Ok(()) => Ok(copy),
            Err(error) => {
                // Its name must be free for the next attempt.
                self.disk.remove(&copy.name, &copy.file);
                Err(error)
            }
        }
    }

    /// Gives back the slots that a segment will never use, since another has begun behind it.
    fn trim(&self, index: usize) {
        let [Some(copy), Some(next)] = [index, index + 1].map(|at| self.copies.get(at)) else {
            return;
        };
        let header = copy.segment().header();
        let used = next.first().0.saturating_sub(header.first_seq.0);
        if used < header.layout.slots {
            let from = header.layout.slot_offset(Slot(used));
            copy.file.punch(from, header.layout.file_bytes());
        }
    }

    /// Removes segments whose records are all beyond `max_samples` when `next` begins one, and are
    /// so after a power cut, too.
    fn drop_superseded(&mut self, next: Seq) {
        if self.is_superseded(next.0) {
            self.sync();
        }
        while self.is_superseded(self.synced_end()) {
            let Copy { name, file, .. } = self.copies.remove(0);
            self.disk.remove(&name, &file);
        }
    }

    /// Whether the oldest segment has nothing to keep when `end` is behind the newest record.
    fn is_superseded(&self, end: u64) -> bool {
        let oldest_wanted = end.saturating_sub(self.max_samples);
        self.copies.get(1).is_some_and(|second| second.first().0 <= oldest_wanted)
    }

    /// Only the last segment grows; the one before may have had a record in flight. What is not synced
    /// of others may have to be written again.
    fn copy_recent(&mut self) {
        let recent = self.copies.len().saturating_sub(2);
        for index in 0..self.copies.len() {
            if index >= recent || self.copies[index].dirty {
                self.copy_one(index);
            }
        }
    }

    /// Makes files again that others have deleted, cut off or overwritten, from what the rings
    /// have. What is in the files is looked at a part at a time: in the newest, and in one of the others.
    pub fn mend(&mut self) {
        let newest = self.copies.len().saturating_sub(1);
        let in_turn = self.looks % newest.max(1);
        self.looks = self.looks.wrapping_add(1);
        self.mend_where(|index| match index {
            index if index == newest || index == in_turn => Look::Part,
            _ => Look::Header,
        });
    }

    /// The same, but that all of the files is looked at: nobody does so afterwards.
    pub fn mend_wholly(&mut self) {
        self.mend_where(|_| Look::Whole);
    }

    fn mend_where(&mut self, look: impl Fn(usize) -> Look) {
        for index in 0..self.copies.len() {
            let copy = &mut self.copies[index];
            let mut spoiled = copy.spoiled.take();
            let damage = copy.damage(&self.disk, look(index), &mut self.buffer);
            let is_there = damage.is_none_or(|(_, is_there)| is_there);
            if let Some((what, _)) = damage {
                let what = format!("the mirror {}/{} {what}", self.disk.shown(), copy.name);
                spoiled = Some(Spoiled { what, why: None });
            }
            let Some(mut spoiled) = spoiled else { continue };
            let mended = if is_there {
                copy.start_again()
            } else {
                let original = copy.original.clone();
                self.begin(original).map(|new| self.copies[index] = new)
            };
            spoiled.why = mended.err();
            if spoiled.why.is_none() {
                self.say(spoiled.sentence());
                // It may be one that no copy looks at any more.
                self.copy_one(index);
            } else {
                self.copies[index].spoiled = Some(spoiled);
            }
        }
    }

    fn copy_one(&mut self, index: usize) {
        let mut words = std::mem::take(&mut self.words);
        let copied = self.copy_records(index, &mut words);
        self.words = words;
        let flushed = self.flush(index);
        self.note(copied.and(flushed));
    }

    /// Writes what was gathered.
    fn flush(&mut self, index: usize) -> io::Result<()> {
        self.copies[index].flush(&mut self.batch)
    }

    /// Writes the records and names that are new. One that cannot be written does not keep those
    /// behind it from being written.
    ///
    /// # Errors
    /// The first that there was.
    fn copy_records(&mut self, index: usize, words: &mut Vec<u64>) -> io::Result<()> {
        if self.copies[index].spoiled.is_some() {
            return Ok(());
        }
        self.copies[index].catch_up();
        let header = self.copies[index].segment().header().clone();
        let (layout, first, seed) = (header.layout, header.first_seq, header.seed());
        let (mut result, mut has_newer_than) = (Ok(()), None);
        self.batch.begin(layout.slot.bytes());
        loop {
            let next = self.copies[index].skip_written();
            let Some(slot) = layout.slot_of(first, next) else { return result };
            let stable = self.copies[index].segment().copy_slot(slot, words);
            // Names first: they were stored before the record that speaks of them.
            result = result.and(self.copies[index].copy_names());
            match ring::judge(words, slot.0, layout.slots, first, seed) {
                _ if !stable => {}
                SlotState::Valid(seq, used) if seq >= next => {
                    // A record that is to be kept is overwritten only when as many newer ones are
                    // safe.
                    let old = self.copies[index].held_before(seq);
                    if self.is_to_be_kept(old) {
                        result = result.and(self.flush(index));
                        self.sync_copies()?;
                        // What should have taken its place may have been refused, or dropped by a
                        // sync that failed. Then this goes where nothing is lost for it, or nowhere.
                        let found = self.copies[index].found_in(slot);
                        let synced = found.filter(|seq| *seq < self.synced_end());
                        if self.is_to_be_kept(synced) {
                            self.copies[index].written.next = Seq(next.0 + 1);
                            continue;
                        }
                    }
                    let bytes = bytemuck::cast_slice(&words[..used + ring::SLOT_HEAD_WORDS]);
                    let copy = &mut self.copies[index];
                    result = result.and(copy.gather(&mut self.batch, bytes, slot));
                    if seq != next {
                        copy.written.ahead = Some(seq);
                    }
                    // Lapped, if it is not the one that was looked for: this is the one slot that
                    // may be written to. The oldest that is to be kept comes next.
                    let oldest_wanted = seq.0.saturating_sub(header.max_samples);
                    copy.written.next = Seq(oldest_wanted.max(next.0) + u64::from(seq == next));
                }
                // Lapped just now. The slot behind this one may be written to as well.
                SlotState::Busy(seq) if seq > next => {
                    self.copies[index].written.next = Seq(next.0 + 1);
                }
                // Somebody else has stored to the slot. What is behind it is not lost for that.
                SlotState::Torn | SlotState::Empty if has_newer_than == Some(next) => {
                    self.copies[index].written.next = Seq(next.0 + 1);
                }
                // Or it was written since the look at it: only another one behind this can tell.
                SlotState::Torn | SlotState::Empty
                    if self.copies[index].has_newer_than(next, words) =>
                {
                    has_newer_than = Some(next);
                }
                _ => return result,
            }
        }
    }

    /// Whether a record is among the newest that a power cut must leave now.
    fn is_to_be_kept(&self, seq: Option<u64>) -> bool {
        seq.is_some_and(|seq| seq >= self.synced_end().saturating_sub(self.max_samples))
    }

    /// Syncs every copy that was written to.
    ///
    /// # Errors
    /// The first that there was.
    fn sync_copies(&mut self) -> io::Result<()> {
        let mut result = Ok(());
        let whole = self.copies.iter_mut().filter(|copy| copy.spoiled.is_none());
        for copy in whole.filter(|copy| copy.dirty) {
            result = result.and(copy.sync_data());
        }
        result
    }
}
