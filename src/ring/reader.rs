//! Reading a ring: live in another process, dead, cut off, or any bytes at all. Reads with
//! `pread`, so that a file that shrinks is an error and not a signal, never writes, and trusts
//! nothing that has not verified.

use super::dictionary::{self, Entry};
use super::header::{self, BadHeader, Header};
use super::layout::{ENTRY_WORDS, HEADER_BYTES, HEADER_WORDS, SLOT_HEAD_WORDS};
use super::slot::{self, SlotState};
use super::writer::Segment;
use crate::sync::Ordering;
use crate::units::{Seq, Slot};
use std::fs::File;
use std::io;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// Where the bytes of a ring come from.
pub trait ReadAt: Send + Sync {
    /// Fills `bytes` from `offset` on; returns how many there were.
    ///
    /// # Errors
    /// The device's.
    fn read_at(&self, bytes: &mut [u8], offset: u64) -> io::Result<usize>;

    /// How many bytes there are now, whatever the ring's header says.
    ///
    /// # Errors
    /// The device's.
    fn len_bytes(&self) -> io::Result<u64>;
}

impl ReadAt for File {
    fn read_at(&self, bytes: &mut [u8], offset: u64) -> io::Result<usize> {
        let mut done = 0;
        while done < bytes.len() {
            match FileExt::read_at(self, &mut bytes[done..], offset + done as u64) {
                Ok(0) => break,
                Ok(count) => done += count,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(done)
    }

    fn len_bytes(&self) -> io::Result<u64> {
        Ok(self.metadata()?.len())
    }
}

impl ReadAt for Vec<u8> {
    fn read_at(&self, bytes: &mut [u8], offset: u64) -> io::Result<usize> {
        let start = usize::try_from(offset).unwrap_or(usize::MAX).min(self.len());
        let count = bytes.len().min(self.len() - start);
        bytes[..count].copy_from_slice(&self[start..start + count]);
        Ok(count)
    }

    fn len_bytes(&self) -> io::Result<u64> {
        Ok(self.len() as u64)
    }
}

/// A segment in the memory of this process; offsets and lengths are of whole words.
impl ReadAt for Arc<Segment> {
    fn read_at(&self, bytes: &mut [u8], offset: u64) -> io::Result<usize> {
        let start = usize::try_from(offset / 8).unwrap_or(usize::MAX);
        let words = self.words().get(start..).unwrap_or_default();
        let (chunks, rest) = bytes.as_chunks_mut::<8>();
        let mut done = 0;
        for (chunk, word) in chunks.iter_mut().zip(words) {
            *chunk = word.load(Ordering::Relaxed).to_ne_bytes();
            done += 8;
        }
        if let Some(word) = words.get(done / 8) {
            rest.copy_from_slice(&word.load(Ordering::Relaxed).to_ne_bytes()[..rest.len()]);
            done += rest.len();
        }
        Ok(done)
    }

    fn len_bytes(&self) -> io::Result<u64> {
        Ok(size_of_val(self.words()) as u64)
    }
}

/// The part of a segment that its file has lost and that is memory of this process; all else of it
/// reads as zeros, and is in the file or nowhere.
pub(crate) struct OwnWords(pub Arc<Segment>);

impl ReadAt for OwnWords {
    fn read_at(&self, bytes: &mut [u8], offset: u64) -> io::Result<usize> {
        let (first, words) = self.0.own_words();
        let length = self.len_bytes()?;
        let mut done = 0;
        for (chunk, at) in bytes.chunks_mut(8).zip((offset..length).step_by(8)) {
            let index = usize::try_from(at / 8).unwrap_or(usize::MAX);
            let word = index.checked_sub(first).and_then(|index| words.get(index));
            let word = word.map_or(0, |word| word.load(Ordering::Relaxed));
            chunk.copy_from_slice(&word.to_ne_bytes()[..chunk.len()]);
            done += chunk.len();
        }
        Ok(done)
    }

    fn len_bytes(&self) -> io::Result<u64> {
        self.0.len_bytes()
    }
}

/// Why a ring could not be read.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum RingError {
    /// The file system refused.
    #[error("cannot read the ring {}: {source}", path.display())]
    Io {
        /// The ring.
        path: PathBuf,
        /// What the kernel said.
        source: io::Error,
    },
    /// The bytes are not a ring, or not one that this program reads.
    #[error("cannot read {} as a ring: {source}", path.display())]
    Header {
        /// The file.
        path: PathBuf,
        /// What was expected and found.
        source: BadHeader,
    },
    /// The file ends before its records begin.
    #[error(
        "cannot read {} as a ring: it ends after {found} bytes, in its header, which has {expected}; it \
         was cut off. Try the mirror",
        path.display()
    )]
    Short {
        /// The file.
        path: PathBuf,
        /// Its length.
        found: u64,
        /// The bytes of its head: of the description as well, if the header says how long that is.
        expected: u64,
    },
    /// The description does not verify or cannot be understood.
    #[error("cannot read the description in the ring {}: {what}; try the mirror", path.display())]
    Description {
        /// The ring.
        path: PathBuf,
        /// What is wrong with it.
        what: String,
    },
}

/// Opens a plain file, and waits for the other end of nothing else.
pub(crate) fn open(path: &Path) -> Result<File, RingError> {
    let io = |source| RingError::Io { path: path.to_owned(), source };
    let file = File::options()
        .read(true)
        .custom_flags(libc::O_NONBLOCK | libc::O_CLOEXEC)
        .open(path)
        .map_err(io)?;
    if !file.metadata().map_err(io)?.is_file() {
        return Err(io(io::Error::new(io::ErrorKind::InvalidInput, "not a regular file")));
    }
    Ok(file)
}

/// A ring opened for reading.
pub struct Ring {
    bytes: Box<dyn ReadAt>,
    path: PathBuf,
    header: Header,
    /// The description, if it is not to be read.
    known_description: Option<Vec<u8>>,
    seed: u64,
}

/// What a scan over all slots found.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Scan {
    /// The newest record that verifies.
    pub newest: Option<Seq>,
    /// The oldest record that verifies.
    pub oldest: Option<Seq>,
    /// Slots with a record that verifies.
    pub valid: u64,
    /// Slots that were never used, or that the file no longer has.
    pub empty: u64,
    /// Slots with an unfinished record.
    pub busy: u64,
    /// Slots whose words do not verify.
    pub torn: u64,
    /// Slots that the device would not give; they count as torn too.
    pub unreadable: u64,
}

impl Ring {
    /// Opens a ring file. Neither blocks on a pipe nor follows anything but plain files.
    ///
    /// # Errors
    /// [`RingError`] names the file and what is wrong with it.
    pub fn open(path: &Path) -> Result<Ring, RingError> {
        Self::new(Box::new(open(path)?), path)
    }

    /// Reads a ring from anything that has its bytes; `path` is for messages.
    ///
    /// # Errors
    /// As [`open`](Self::open).
    pub fn new(bytes: Box<dyn ReadAt>, path: &Path) -> Result<Ring, RingError> {
        let path = path.to_owned();
        let read = |offset: u64, buffer: &mut [u8]| match bytes.read_at(buffer, offset) {
            Ok(count) if count == buffer.len() => Ok(()),
            Ok(count) => Err(RingError::Short {
                path: path.clone(),
                found: offset + count as u64,
                expected: HEADER_BYTES.0,
            }),
            Err(source) => Err(RingError::Io { path: path.clone(), source }),
        };
        // The whole page, so that a file that ends in it is found to be as long as it is.
        let mut page = [0_u64; HEADER_BYTES.0 as usize / 8];
        // What is not a ring is called so, even if it is short as well.
        let head_result = read(0, bytemuck::cast_slice_mut(&mut page));
        let mut words = [0; HEADER_WORDS];
        words.copy_from_slice(&page[..HEADER_WORDS]);
        let header = match (Header::from_words(&words), head_result) {
            (_, Err(error @ RingError::Io { .. })) => return Err(error),
            (Err(BadHeader::Check { .. }), Err(short)) | (Ok(_), Err(short)) => return Err(short),
            (Err(source), _) => return Err(RingError::Header { path, source }),
            (Ok(header), Ok(())) => header,
        };
        // Bounded by the header's check to 2 MiB, and by what there is: a page of bytes does not
        // take more memory than that.
        let length =
            bytes.len_bytes().map_err(|source| RingError::Io { path: path.clone(), source })?;
        let expected = header.description_range().end;
        if length < expected {
            return Err(RingError::Short { path, found: length, expected });
        }
        let seed = header.seed();
        let ring = Ring { bytes, path, header, known_description: None, seed };
        ring.description()?;
        Ok(ring)
    }

    /// A ring of which only names and slots are to be believed: what its bytes have in the place of
    /// `header` and `description` is not looked at. For one that was damaged there, when these are
    /// known from elsewhere.
    pub fn with_head(
        bytes: Box<dyn ReadAt>,
        path: &Path,
        header: Header,
        description: Vec<u8>,
    ) -> Ring {
        let seed = header.seed();
        let known_description = Some(description);
        Ring { bytes, path: path.to_owned(), header, known_description, seed }
    }

    /// Opens a ring file with the head of another copy of it.
    ///
    /// # Errors
    /// [`RingError`].
    pub fn open_with_head_of(path: &Path, copy: &Ring) -> Result<Ring, RingError> {
        let file = open(path)?;
        Ok(Self::with_head(Box::new(file), path, copy.header.clone(), copy.description()?))
    }

    /// The file's name, for messages.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// What the header says.
    pub fn header(&self) -> &Header {
        &self.header
    }

    /// Reads the description: JSON, verified but not yet understood. It is not kept: a run may
    /// have hundreds of segments.
    ///
    /// # Errors
    /// [`RingError`].
    pub fn description(&self) -> Result<Vec<u8>, RingError> {
        if let Some(known) = &self.known_description {
            return Ok(known.clone());
        }
        let path = || self.path.clone();
        let mut description = vec![0; self.header.layout.description.0 as usize];
        let count = self
            .bytes
            .read_at(&mut description, HEADER_BYTES.0)
            .map_err(|source| RingError::Io { path: path(), source })?;
        if count < description.len() {
            return Err(RingError::Short {
                path: path(),
                found: HEADER_BYTES.0 + count as u64,
                expected: self.header.description_range().end,
            });
        }
        let check = header::description_check(&description);
        if check != self.header.description_check {
            let what = format!(
                "description_check is {:#018x}, expected {check:#018x} (of description_bytes = {})",
                self.header.description_check,
                description.len()
            );
            return Err(RingError::Description { path: path(), what });
        }
        Ok(description)
    }

    /// Reads one slot into `words`: on [`SlotState::Valid`] they are the record alone.
    ///
    /// # Errors
    /// [`RingError::Io`].
    pub fn read_slot(&self, slot: Slot, words: &mut Vec<u64>) -> Result<SlotState, RingError> {
        let layout = &self.header.layout;
        words.clear();
        words.resize(layout.slot.0 as usize, 0);
        self.read_words(layout.slot_offset(slot).0, words)?;
        let state = slot::judge(words, slot.0, layout.slots, self.header.first_seq, self.seed);
        if let SlotState::Valid(_, used) = state {
            words.truncate(SLOT_HEAD_WORDS + used);
            words.drain(..SLOT_HEAD_WORDS);
        }
        Ok(state)
    }

    /// Reads record `seq` into `words`; `false` if the ring does not have it.
    ///
    /// # Errors
    /// [`RingError::Io`].
    pub fn read(&self, seq: Seq, words: &mut Vec<u64>) -> Result<bool, RingError> {
        let Some(slot) = self.header.layout.slot_of(self.header.first_seq, seq) else {
            return Ok(false);
        };
        Ok(matches!(self.read_slot(slot, words)?, SlotState::Valid(found, _) if found == seq))
    }

    /// Slots of which the bytes have at least a part now: those behind them are empty. What the
    /// header says is only bounded: a file of a few pages may claim 2^32 of them.
    ///
    /// # Errors
    /// [`RingError::Io`].
    pub fn slots_present(&self) -> Result<u64, RingError> {
        let length = self
            .bytes
            .len_bytes()
            .map_err(|source| RingError::Io { path: self.path.clone(), source })?;
        let layout = &self.header.layout;
        let behind = length.saturating_sub(layout.slots_offset.0);
        Ok(behind.div_ceil(layout.slot.bytes().0).min(layout.slots))
    }

    /// Looks at every slot that there is.
    ///
    /// # Errors
    /// [`RingError::Io`].
    pub fn scan(&self) -> Result<Scan, RingError> {
        let present = self.slots_present()?;
        let mut scan = Scan { empty: self.header.layout.slots - present, ..Scan::default() };
        let mut words = Vec::new();
        for slot in 0..present {
            match self.read_slot(Slot(slot), &mut words) {
                // A bad block costs what lies on it, and nothing else.
                Err(_) => {
                    scan.torn += 1;
                    scan.unreadable += 1;
                }
                Ok(SlotState::Empty) => scan.empty += 1,
                Ok(SlotState::Busy(_)) => scan.busy += 1,
                Ok(SlotState::Torn) => scan.torn += 1,
                Ok(SlotState::Valid(seq, _)) => {
                    scan.valid += 1;
                    scan.newest = scan.newest.max(Some(seq));
                    scan.oldest = Some(scan.oldest.map_or(seq, |oldest| oldest.min(seq)));
                }
            }
        }
        Ok(scan)
    }

    /// Reads entry `entry` of the dictionary; `None` if it is unused or does not verify.
    ///
    /// # Errors
    /// [`RingError::Io`].
    pub fn entry(&self, entry: u32) -> Result<Option<Entry>, RingError> {
        if u64::from(entry) >= self.header.layout.entries {
            return Ok(None);
        }
        let mut words = [0; ENTRY_WORDS];
        self.read_words(self.header.layout.entry_offset(entry).0, &mut words)?;
        Ok(dictionary::read(&words, entry, self.seed))
    }

    /// Fills `words` from `offset`; what the file no longer has is 0.
    fn read_words(&self, offset: u64, words: &mut [u64]) -> Result<(), RingError> {
        words.fill(0);
        self.bytes
            .read_at(bytemuck::cast_slice_mut(words), offset)
            .map_err(|source| RingError::Io { path: self.path.clone(), source })?;
        Ok(())
    }
}
