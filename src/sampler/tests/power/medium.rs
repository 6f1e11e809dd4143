//! A disk that forgets: it logs what the mirror's copier does to it, and makes what a power cut
//! may leave. What was written before the last completed sync of its file is there. Of what was
//! written since, each sector of 512 bytes, or each page of 4096, has any of its versions.

use super::Rng;
use crate::ring::Layout;
use crate::sampler::disk::{Disk, DiskFile};
use crate::sampler::watch;
use crate::units::Bytes;
use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;
use std::sync::{Arc, Mutex};
use std::{fmt, io};

pub const SECTOR: usize = 512;
const PAGE_SECTORS: usize = 8;

/// What was asked of the disk, in order, and the time by the sampler's clock.
#[derive(Debug, Clone)]
pub enum Event {
    Create(String, u64),
    Write(String, u64, Vec<u8>),
    SyncData(String),
    SyncAll(String),
    /// One of the two failed, and what was to be synced counts as clean, as Linux does it.
    FailedSync(String),
    SyncDir,
    Remove(String),
    Punch(String, u64, u64),
    /// Somebody else has cut the file off to so many bytes, which is on the disk at once.
    CutOff(String, u64),
    /// Somebody else has overwritten these bytes of a file of this layout: on the disk at once.
    Overwrite(String, Range<u64>, Layout),
    /// Somebody else has deleted the file: on the disk at once.
    Delete(String),
    Time(u64),
    /// Nothing fails any more, and the copier has come to its end: all records before this one that are
    /// to be kept are durable.
    Settled(u64),
}

impl Event {
    /// Whether other bytes or files than before are durable after it.
    pub fn changes_what_is_durable(&self) -> bool {
        use Event::{Remove, SyncAll, SyncData, SyncDir};
        matches!(self, SyncData(_) | SyncAll(_) | SyncDir | Remove(_)) || self.spoils().is_some()
    }

    /// The file that somebody else has spoiled.
    pub fn spoils(&self) -> Option<&String> {
        match self {
            Event::CutOff(name, _) | Event::Overwrite(name, ..) | Event::Delete(name) => Some(name),
            _ => None,
        }
    }
}

/// Without the bytes; of a record there is the number that it has in its slot.
impl fmt::Display for Event {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Event::Write(name, offset, bytes) => {
                let first: [u8; 8] = bytes[..8].try_into().unwrap();
                let (len, first) = (bytes.len(), u64::from_le_bytes(first));
                write!(f, "Write {name} {offset}+{len}, first word {first}")
            }
            other => write!(f, "{other:?}"),
        }
    }
}

/// The disk that the copier works on.
#[derive(Clone, Default)]
pub struct Medium(Arc<Mutex<Inner>>);

#[derive(Default)]
struct Inner {
    log: Vec<Event>,
    next_sync_fails: bool,
    next_create_fails: bool,
    /// Names under which others have put something of theirs.
    taken: BTreeSet<String>,
    /// So many that come next are refused.
    refused_writes: u64,
    /// What is in the files, each with a number of its own.
    contents: BTreeMap<String, (u64, Vec<u8>)>,
    created: u64,
    /// What others have done to files: deleted until there is a new one, else until it was looked at.
    damage: BTreeMap<String, &'static str>,
}

const DELETED: &str = "was deleted by somebody else";

impl Medium {
    pub fn log(&self, event: Event) {
        self.0.lock().unwrap().log.push(event);
    }

    pub fn fail_next_sync(&self) {
        self.0.lock().unwrap().next_sync_fails = true;
    }

    pub fn fail_next_create(&self) {
        self.0.lock().unwrap().next_create_fails = true;
    }

    /// Somebody else puts something of theirs under this name, which no file has yet.
    pub fn take(&self, name: String) {
        self.0.lock().unwrap().taken.insert(name);
    }

    /// Removes all of that again.
    pub fn take_no_more(&self) {
        self.0.lock().unwrap().taken.clear();
    }

    pub fn refuse_writes(&self, count: u64) {
        self.0.lock().unwrap().refused_writes = count;
    }

    pub fn fail_no_more(&self) {
        let mut inner = self.0.lock().unwrap();
        (inner.next_sync_fails, inner.next_create_fails, inner.refused_writes) = (false, false, 0);
        inner.taken.clear();
    }

    /// How long a file is; `None` if there is none.
    pub fn len(&self, name: &str) -> Option<u64> {
        self.0.lock().unwrap().contents.get(name).map(|(_, bytes)| bytes.len() as u64)
    }

    pub fn cut_off(&self, name: String, len: u64) {
        let mut inner = self.0.lock().unwrap();
        inner.contents.get_mut(&name).unwrap().1[len as usize..].fill(0);
        inner.damage.insert(name.clone(), watch::CUT_OFF);
        inner.log.push(Event::CutOff(name, len));
    }

    /// With zeros. What is in a file is read by whoever wants to know.
    pub fn overwrite(&self, name: String, bytes: Range<u64>, layout: Layout) {
        let mut inner = self.0.lock().unwrap();
        let content = &mut inner.contents.get_mut(&name).unwrap().1;
        content[bytes.start as usize..bytes.end as usize].fill(0);
        inner.log.push(Event::Overwrite(name, bytes, layout));
    }

    pub fn delete(&self, name: String) {
        let mut inner = self.0.lock().unwrap();
        inner.contents.remove(&name);
        inner.damage.insert(name.clone(), DELETED);
        inner.log.push(Event::Delete(name));
    }

    /// Whether this sync succeeds.
    fn sync_file(&self, name: &str, event: fn(String) -> Event) -> io::Result<()> {
        if std::mem::take(&mut self.0.lock().unwrap().next_sync_fails) {
            self.log(Event::FailedSync(name.to_owned()));
            return Err(io::Error::from_raw_os_error(libc::EIO));
        }
        self.log(event(name.to_owned()));
        Ok(())
    }

    pub fn take_log(&self) -> Vec<Event> {
        std::mem::take(&mut self.0.lock().unwrap().log)
    }
}

/// What is done to one that has lost its name is of no consequence.
pub struct LoggedFile {
    medium: Medium,
    name: String,
    number: u64,
}

impl LoggedFile {
    /// What is in it, as long as its name leads to it, and the log.
    fn with<T>(&self, act: impl FnOnce(&mut [u8], &mut Vec<Event>) -> T) -> Option<T> {
        let mut inner = self.medium.0.lock().unwrap();
        let Inner { log, contents, .. } = &mut *inner;
        let (_, bytes) = contents.get_mut(&self.name).filter(|(it, _)| *it == self.number)?;
        Some(act(bytes, log))
    }

    fn sync(&self, event: fn(String) -> Event) -> io::Result<()> {
        let is_there = self.with(|_, _| ()).is_some();
        if is_there { self.medium.sync_file(&self.name, event) } else { Ok(()) }
    }
}

impl Disk for Medium {
    type File = LoggedFile;

    fn create(&self, name: &str, bytes: Bytes) -> io::Result<LoggedFile> {
        let mut inner = self.0.lock().unwrap();
        if std::mem::take(&mut inner.next_create_fails) {
            return Err(io::ErrorKind::StorageFull.into());
        }
        if inner.contents.contains_key(name) || inner.taken.contains(name) {
            return Err(io::ErrorKind::AlreadyExists.into());
        }
        inner.damage.remove(name);
        inner.created += 1;
        let number = inner.created;
        inner.contents.insert(name.to_owned(), (number, vec![0; bytes.0 as usize]));
        inner.log.push(Event::Create(name.to_owned(), bytes.0));
        Ok(LoggedFile { medium: self.clone(), name: name.to_owned(), number })
    }

    fn remove(&self, name: &str, file: &LoggedFile) {
        let mut inner = self.0.lock().unwrap();
        if inner.contents.get(name).is_none_or(|(number, _)| *number != file.number) {
            return;
        }
        inner.contents.remove(name);
        inner.log.push(Event::Remove(name.to_owned()));
    }

    fn damage(&self, name: &str, _: &LoggedFile, _: Bytes) -> Option<(&'static str, bool)> {
        let mut inner = self.0.lock().unwrap();
        if !inner.contents.contains_key(name) {
            return Some((DELETED, false));
        }
        inner.damage.remove(name).map(|what| (what, true))
    }

    fn sync(&self) -> io::Result<()> {
        if std::mem::take(&mut self.0.lock().unwrap().next_sync_fails) {
            return Err(io::Error::from_raw_os_error(libc::EIO));
        }
        self.log(Event::SyncDir);
        Ok(())
    }

    fn shown(&self) -> String {
        "the model".to_owned()
    }
}

impl DiskFile for LoggedFile {
    fn write_at(&self, bytes: &[u8], offset: Bytes) -> io::Result<()> {
        let mut inner = self.medium.0.lock().unwrap();
        if let Some(left) = inner.refused_writes.checked_sub(1) {
            inner.refused_writes = left;
            return Err(io::ErrorKind::StorageFull.into());
        }
        drop(inner);
        self.with(|content, log| {
            content[offset.0 as usize..][..bytes.len()].copy_from_slice(bytes);
            log.push(Event::Write(self.name.clone(), offset.0, bytes.to_vec()));
        });
        Ok(())
    }

    fn read_at(&self, bytes: &mut [u8], offset: Bytes) -> io::Result<()> {
        let read = self.with(|content, _| {
            bytes.copy_from_slice(&content[offset.0 as usize..][..bytes.len()]);
        });
        read.ok_or_else(|| io::ErrorKind::NotFound.into())
    }

    fn sync_data(&self) -> io::Result<()> {
        self.sync(Event::SyncData)
    }

    fn sync_all(&self) -> io::Result<()> {
        self.sync(Event::SyncAll)
    }

    fn extend(&self, _: Bytes) -> io::Result<()> {
        Ok(())
    }

    fn punch(&self, from: Bytes, end: Bytes) {
        self.with(|content, log| {
            content[from.0 as usize..end.0 as usize].fill(0);
            log.push(Event::Punch(self.name.clone(), from.0, end.0));
        });
    }
}

/// A file as it is at one moment: what is safe, and what may be there as well.
#[derive(Clone)]
pub struct Content {
    pub durable: Vec<u8>,
    cache: Vec<u8>,
    /// By sector, what it has been since the last sync.
    versions: BTreeMap<usize, Vec<[u8; SECTOR]>>,
    dirty_pages: BTreeSet<usize>,
    /// So long the file is, whatever happens.
    durable_len: usize,
    head_is_spoiled: bool,
    /// Whether others have overwritten names, and it was not made whole again since.
    pub lacks_names: bool,
    /// Sectors of slots that others have overwritten and that were not written since.
    untold: BTreeSet<usize>,
    /// Behind the newest record that others have overwritten, for all that the copier knows synced since.
    pub taken_end: u64,
    /// The same of those that no sync has followed yet.
    unsynced_taken_end: u64,
    name_is_durable: bool,
    is_removed: bool,
}

impl Content {
    fn new(bytes: u64) -> Content {
        let zeros = vec![0; bytes as usize];
        Content {
            durable: zeros.clone(),
            cache: zeros,
            versions: BTreeMap::new(),
            dirty_pages: BTreeSet::new(),
            durable_len: 0,
            head_is_spoiled: false,
            lacks_names: false,
            untold: BTreeSet::new(),
            taken_end: 0,
            unsynced_taken_end: 0,
            name_is_durable: false,
            is_removed: false,
        }
    }

    /// Whether the file is there, whatever happens, and was begun.
    pub fn is_there(&self) -> bool {
        self.is_begun() || self.head_is_spoiled && self.name_is_durable && !self.is_removed
    }

    /// Whether it is there with its header and its whole length.
    pub fn is_begun(&self) -> bool {
        let is_whole = self.durable_len == self.cache.len() && !self.head_is_spoiled;
        is_whole && self.name_is_durable && !self.is_removed
    }

    pub fn pending_sectors(&self) -> usize {
        self.versions.len()
    }

    fn write(&mut self, offset: usize, bytes: &[u8]) {
        self.cache[offset..offset + bytes.len()].copy_from_slice(bytes);
        for sector in offset / SECTOR..(offset + bytes.len()).div_ceil(SECTOR) {
            let now = self.cache[sector * SECTOR..][..SECTOR].try_into().unwrap();
            self.versions.entry(sector).or_default().push(now);
            self.untold.remove(&sector);
            self.dirty_pages.insert(sector / PAGE_SECTORS);
        }
    }

    /// Somebody else has overwritten these bytes: head, names or slots. Where there were zeros before
    /// they are what they were.
    fn overwrite(&mut self, bytes: Range<usize>, layout: &Layout) {
        let ends = [layout.dictionary_offset, layout.slots_offset].map(|end| end.0 as usize);
        let is_other = |from: usize, end: usize| {
            let changed = self.cache.get(bytes.start.max(from)..bytes.end.min(end));
            changed.is_some_and(|bytes| bytes.iter().any(|byte| *byte != 0))
        };
        self.head_is_spoiled |= is_other(0, ends[0]);
        self.lacks_names |= is_other(ends[0], ends[1]);
        let slots =
            (0..layout.slots).map(|slot| layout.slot_offset(crate::units::Slot(slot)).0 as usize);
        let slot_bytes = layout.slot.bytes().0 as usize;
        for at in slots.filter(|at| at + slot_bytes > bytes.start && *at < bytes.end) {
            let commit = self.cache[at..].first_chunk().map_or(0, |word| u64::from_le_bytes(*word));
            self.unsynced_taken_end = self.unsynced_taken_end.max(commit);
        }
        if bytes.end > ends[1] {
            self.untold.extend(bytes.start.max(ends[1]) / SECTOR..bytes.end.div_ceil(SECTOR));
        }
        self.spoil(bytes);
    }

    /// Whether others have overwritten some of these bytes, of a slot, and nothing is there since: that
    /// is seen by whoever reads the record.
    pub fn is_untold(&self, bytes: &Range<usize>) -> bool {
        let sectors = bytes.start / SECTOR..bytes.end.div_ceil(SECTOR);
        self.untold.range(sectors).next().is_some()
    }

    /// These bytes are zeros, at once.
    fn spoil(&mut self, bytes: Range<usize>) {
        for content in [&mut self.cache, &mut self.durable] {
            content[bytes.clone()].fill(0);
        }
        let sectors = bytes.start / SECTOR..bytes.end.div_ceil(SECTOR);
        self.versions.retain(|sector, _| !sectors.contains(sector));
    }

    fn sync(&mut self) {
        let taken = std::mem::take(&mut self.unsynced_taken_end);
        self.taken_end = self.taken_end.max(taken);
        for page in std::mem::take(&mut self.dirty_pages) {
            let at = page * PAGE_SECTORS * SECTOR;
            let end = (at + PAGE_SECTORS * SECTOR).min(self.cache.len());
            self.durable[at..end].copy_from_slice(&self.cache[at..end]);
            for sector in page * PAGE_SECTORS..(page + 1) * PAGE_SECTORS {
                self.versions.remove(&sector);
            }
        }
    }

    /// Whether a power cut may leave anything else in these bytes than what is durable.
    pub fn is_at_risk(&self, bytes: &Range<usize>) -> bool {
        let sectors = bytes.start / SECTOR..bytes.end.div_ceil(SECTOR);
        self.versions.range(sectors).any(|(sector, versions)| {
            let begin = sector * SECTOR;
            let from = bytes.start.max(begin);
            let end = bytes.end.min(begin + SECTOR);
            let is_other =
                |it: &[u8; SECTOR]| it[from - begin..end - begin] != self.durable[from..end];
            versions.iter().any(is_other)
        })
    }

    /// What the file may be after a power cut; `None` if it is not there.
    pub fn image(&self, rng: &mut Rng) -> Option<Vec<u8>> {
        let may_be_gone = !self.name_is_durable || self.is_removed;
        if may_be_gone && rng.one_in(2) {
            return None;
        }
        let mut bytes = self.durable.clone();
        let by_page = rng.one_in(3);
        // All kinds of cuts: nearly nothing, nearly everything, anything.
        let percent = [0, 3, 25, 50, 75, 97, 100][rng.below(7) as usize];
        let mut choice = (usize::MAX, 0, false);
        for (sector, versions) in &self.versions {
            let page = sector / PAGE_SECTORS;
            if !by_page || choice.0 != page {
                choice = (page, rng.next(), rng.below(100) < percent);
            }
            if choice.2 {
                // Mostly the last, as a page that was written once has no other.
                let back = if choice.1 & 1 == 0 { 0 } else { (choice.1 >> 1) as usize };
                let version = versions.len() - 1 - back % versions.len();
                bytes[sector * SECTOR..][..SECTOR].copy_from_slice(&versions[version]);
            }
        }
        if self.durable_len < bytes.len() && rng.one_in(2) {
            let more = rng.below((bytes.len() - self.durable_len) as u64) as usize;
            let sizes = [self.durable_len, self.durable_len + more / SECTOR * SECTOR];
            bytes.truncate(sizes[rng.below(2) as usize]);
        }
        Some(bytes)
    }
}

/// The files of the disk, event by event.
#[derive(Default)]
pub struct Replay {
    pub files: BTreeMap<String, Content>,
    pub now_ns: u64,
}

impl Replay {
    pub fn step(&mut self, event: &Event) {
        match event {
            Event::Create(name, bytes) => {
                self.files.insert(name.clone(), Content::new(*bytes));
            }
            Event::Write(name, offset, bytes) => self.file(name).write(*offset as usize, bytes),
            Event::SyncData(name) => self.file(name).sync(),
            Event::SyncAll(name) => {
                let file = self.file(name);
                file.sync();
                // The head was written before, whenever the copier does this.
                (file.durable_len, file.head_is_spoiled) = (file.cache.len(), false);
                file.lacks_names = false;
                file.untold.clear();
            }
            Event::FailedSync(name) => {
                // What was taken of that is written again.
                let file = self.file(name);
                file.dirty_pages.clear();
                file.unsynced_taken_end = 0;
            }
            Event::SyncDir => self.files.values_mut().for_each(|file| file.name_is_durable = true),
            Event::Remove(name) => {
                // Somebody else may have been there before.
                if let Some(file) = self.files.get_mut(name) {
                    file.is_removed = true;
                }
            }
            Event::Punch(name, from, end) => {
                let zeros = vec![0; (end - from) as usize];
                self.file(name).write(*from as usize, &zeros);
            }
            Event::CutOff(name, len) => {
                let file = self.file(name);
                file.durable_len = file.durable_len.min(*len as usize);
                file.head_is_spoiled = true;
                file.spoil(*len as usize..file.cache.len());
            }
            Event::Overwrite(name, bytes, layout) => {
                self.file(name).overwrite(bytes.start as usize..bytes.end as usize, layout);
            }
            Event::Delete(name) => drop(self.files.remove(name)),
            Event::Time(now_ns) => self.now_ns = *now_ns,
            Event::Settled(_) => {}
        }
    }

    fn file(&mut self, name: &str) -> &mut Content {
        self.files.get_mut(name).unwrap()
    }
}
