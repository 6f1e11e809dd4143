//! The rings of a recorder that has stopped, while its process still has them: read where they are whole,
//! from every copy there is where they are not, and saved where they would be gone with the process. What
//! is written of them is for others.

use super::dirs::{RunDir, default_mirror_base, default_ring_base};
use super::manifest::MANIFEST;
use crate::place::Place;
use crate::ring::{self, HEADER_BYTES, OwnWords, ReadAt, Ring, RingError, Segment};
use crate::sampler::{Kept, damage, file_name};
use crate::sync::{AtomicU64, Ordering};
use crate::units::Slot;
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use uuid::Uuid;

/// Words that are copied at a time.
const SAVED_WORDS: usize = 8 << 10;

/// All of them, oldest first.
pub struct LastRings {
    pub kept: Vec<Kept>,
    /// Where their mirrors are, if its disk has answered to the end.
    pub mirror_dir: Option<PathBuf>,
}

impl LastRings {
    /// Copies the rings to a run's directory, each under its name only when it is whole.
    fn save_into(&self, dir: &Path) -> io::Result<()> {
        let save = || {
            ring::let_through();
            let place = Place::open(dir)?;
            for kept in &self.kept {
                let name = file_name(kept.segment.header().segment);
                place.replace(&name, MANIFEST, |file| save(kept, file))?;
            }
            Ok(())
        };
        // A thread of our own may have the signal that tells of a ring that was cut off.
        std::thread::scope(|scope| scope.spawn(save).join())
            .unwrap_or_else(|_| Err(io::Error::other("the thread that saves them panicked")))
    }

    /// Whether others have done something to a ring: its file may not be where its name says, or
    /// not have everything.
    pub fn is_damaged(&self) -> bool {
        let is_gone = |kept: &Kept| {
            let (Some(file), Some(path)) = (&kept.file, &kept.path) else { return false };
            kept.segment.is_lost()
                || damage(file, path, kept.segment.header().layout.file_bytes()).is_some()
                || !has_its_head(kept, file)
        };
        self.kept.iter().any(is_gone)
    }

    /// Whether the file of one turned out to be shorter than its ring.
    pub fn is_cut_off(&self) -> bool {
        self.kept.iter().any(|kept| kept.segment.is_lost())
    }

    /// The rings as they were written, if they have all names that were written to them.
    pub fn with_their_names(&self) -> Result<Option<Vec<Ring>>, RingError> {
        let rings = self.kept.iter().map(ring_of).collect::<Result<Vec<Ring>, RingError>>()?;
        let has_names = rings.iter().zip(&self.kept).all(|(ring, kept)| has_names(ring, kept));
        Ok(has_names.then_some(rings))
    }

    /// The rings, if they are whole, or all copies that there are.
    pub fn whole_copies(&self) -> Result<Vec<Ring>, RingError> {
        if self.is_cut_off() || self.is_damaged() {
            return self.all_copies();
        }
        self.with_their_names()?.map_or_else(|| self.all_copies(), Ok)
    }

    /// All copies of the rings that there are, for when those that were written are not whole.
    pub fn all_copies(&self) -> Result<Vec<Ring>, RingError> {
        let mut rings = Vec::new();
        for kept in &self.kept {
            rings.push(ring_of(kept)?);
            if kept.segment.is_lost() {
                rings.push(with_head(kept, Box::new(OwnWords(kept.segment.clone()))));
            }
            let name = file_name(kept.segment.header().segment);
            let copy = self.mirror_dir.as_ref().map(|dir| Place::open(dir)?.read(&name));
            if let Some(Ok(file)) = copy {
                rings.push(with_head(kept, Box::new(file)));
            }
        }
        Ok(rings)
    }

    /// A directory of this run that has the rings now: the one for its ring, if there is one and it
    /// has room for what was really written, or a new one. Not the mirror's: its disk has refused.
    pub fn save_somewhere(
        &self,
        run_id: Uuid,
        own: Option<&Path>,
        dirs: &mut Vec<RunDir>,
    ) -> Option<PathBuf> {
        if let Some(own) = own.filter(|own| self.save_into(own).is_ok()) {
            return Some(own.to_owned());
        }
        let places = [
            RunDir::create_private(&default_ring_base(), run_id),
            RunDir::create_private_patiently(&default_mirror_base(), run_id),
            RunDir::create(&std::env::temp_dir(), run_id),
        ];
        for dir in places.into_iter().flatten() {
            if self.save_into(dir.path()).is_ok() {
                let path = dir.path().to_owned();
                dirs.push(dir);
                return Some(path);
            }
            let _ = dir.remove(MANIFEST);
        }
        None
    }
}

/// Whether a ring's file still begins as it was begun. Read and not looked at in the map, which may
/// have been cut off by now.
fn has_its_head(kept: &Kept, file: &File) -> bool {
    let header = kept.segment.header().to_words();
    let parts = [(bytemuck::cast_slice(&header), 0), (&kept.description[..], HEADER_BYTES.0)];
    parts.into_iter().all(|(expected, at)| {
        let mut found = vec![0; expected.len()];
        // A file that cannot be read now says nothing.
        file.read_exact_at(&mut found, at).is_err() || found == expected
    })
}

/// Writes all words of a ring, but for what was never written.
fn save(kept: &Kept, file: &mut File) -> io::Result<()> {
    let words = kept.segment.words();
    file.set_len(used_bytes(&kept.segment))?;
    for (index, chunk) in words.chunks(SAVED_WORDS).enumerate() {
        let plain: Vec<u64> = chunk.iter().map(|word| word.load(Ordering::Relaxed)).collect();
        if plain.iter().any(|word| *word != 0) {
            let offset = (index * SAVED_WORDS * size_of::<u64>()) as u64;
            file.write_all_at(bytemuck::cast_slice(&plain), offset)?;
        }
    }
    // Somebody may have overwritten it.
    let head = kept.segment.header().to_words();
    file.write_all_at(bytemuck::cast_slice(&head), 0)?;
    file.write_all_at(&kept.description, HEADER_BYTES.0)
}

/// Up to the last slot that was ever written: a limit on the size of files may allow no more, and
/// to readers what the file no longer has is empty.
fn used_bytes(segment: &Segment) -> u64 {
    let words = segment.words();
    let layout = segment.header().layout;
    let is_used = |word: &AtomicU64| word.load(Ordering::Relaxed) != 0;
    let end = words.iter().rposition(is_used).map_or(0, |last| (last as u64 + 1) * 8);
    let slots = end.saturating_sub(layout.slots_offset.0).div_ceil(layout.slot.bytes().0);
    layout.slot_offset(Slot(slots)).0.min(size_of_val(words) as u64)
}

/// The ring's open file, whatever became of its name and its head, or the memory itself.
fn ring_of(kept: &Kept) -> Result<Ring, RingError> {
    let Some(file) = &kept.file else { return Ok(with_head(kept, Box::new(kept.segment.clone()))) };
    let io = |source| RingError::Io { path: name_of(kept).to_owned(), source };
    Ok(with_head(kept, Box::new(file.try_clone().map_err(io)?)))
}

fn with_head(kept: &Kept, bytes: Box<dyn ReadAt>) -> Ring {
    Ring::with_head(bytes, name_of(kept), kept.segment.header().clone(), kept.description.to_vec())
}

fn name_of(kept: &Kept) -> &Path {
    kept.path.as_deref().unwrap_or(Path::new("(private memory)"))
}

/// Whether a ring has all names that were written to it.
fn has_names(ring: &Ring, kept: &Kept) -> bool {
    (0..kept.segment.entries_used()).all(|entry| matches!(ring.entry(entry), Ok(Some(_))))
}
