//! The rings of a recorder that has stopped, while its process still has them: read where they are whole,
//! from every copy there is where they are not, and saved where they would be gone with the process. What
//! is written of them is for others.

use super::dirs::{RunDir, default_mirror_base, default_ring_base};
use super::manifest::MANIFEST;
use super::removal::{Made, identities};
use crate::place::Place;
use crate::ring::{self, HEADER_BYTES, OwnWords, ReadAt, Ring, RingError, Segment};
use crate::sampler::{Kept, damage, file_name};
use crate::sync::{AtomicU64, Ordering};
use crate::units::Slot;
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use uuid::Uuid;

/// Words that are copied at a time.
const SAVED_WORDS: usize = 8 << 10;

/// All of them, oldest first.
pub struct LastRings {
    pub kept: Vec<Kept>,
    /// Where their mirrors are, if its disk has answered to the end.
    pub mirror_dir: Option<PathBuf>,
    /// Which files they were saved to.
    saved: Mutex<Vec<Made>>,
}

impl LastRings {
    pub fn new(kept: Vec<Kept>, mirror_dir: Option<PathBuf>) -> LastRings {
        LastRings { kept, mirror_dir, saved: Mutex::default() }
    }

    /// Copies the rings to a run's directory, each under its name only when it is whole. What others have put
    /// under that name has another one then.
    fn save_into(&self, dir: &Path) -> io::Result<()> {
        let save = || {
            ring::let_through();
            let place = Place::open(dir)?;
            for kept in &self.kept {
                let name = file_name(kept.segment.header().segment);
                let path = dir.join(&name);
                place.set_aside(&name, &identities(&self.made(), &path))?;
                let file = Arc::new(place.replace(&name, MANIFEST, |file| save(kept, file))?);
                self.saved().push(Made { path, file });
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

    /// Which files they are, whatever has become of their names.
    pub fn made(&self) -> Vec<Made> {
        let made = |kept: &Kept| {
            let file = Arc::new(kept.file.as_ref()?.try_clone().ok()?);
            Some(Made { path: kept.path.clone()?, file })
        };
        let saved = self.saved().clone();
        self.kept.iter().filter_map(made).chain(saved).collect()
    }

    fn saved(&self) -> MutexGuard<'_, Vec<Made>> {
        self.saved.lock().unwrap_or_else(PoisonError::into_inner)
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
/// to readers what the file no longer has is empty. The commit word of the slot behind it tells them that
/// nobody has cut the file off: it is of a slot that was not used.
fn used_bytes(segment: &Segment) -> u64 {
    let words = segment.words();
    let layout = segment.header().layout;
    let is_used = |word: &AtomicU64| word.load(Ordering::Relaxed) != 0;
    let end = words.iter().rposition(is_used).map_or(0, |last| (last as u64 + 1) * 8);
    let slots = end.saturating_sub(layout.slots_offset.0).div_ceil(layout.slot.bytes().0);
    (layout.slot_offset(Slot(slots)).0 + 8).min(layout.file_bytes().0)
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

#[cfg(all(test, not(loom)))]
mod tests {
    use super::super::copies::Copies;
    use super::*;
    use crate::ring::{
        Draft, Header, Layout, MIN_INTERVAL_NS, RingWriter, WordMap, description_check,
    };
    use crate::units::{Bytes, Seq, Words};
    use std::ops::Range;
    use std::sync::Arc;

    const SLOTS: u64 = 200;

    /// A segment in private memory with these records.
    fn segment(number: u64, records: Range<u64>) -> Kept {
        let description = b"{}".to_vec();
        let header = Header {
            layout: Layout::new(Bytes(2), 4, Words(100), SLOTS).unwrap(),
            description_check: description_check(&description),
            max_samples: SLOTS - 1,
            run_id: Uuid::from_u128(7),
            segment: number,
            first_seq: Seq(records.start),
            start_wall_ns: 0,
            start_monotonic_ns: 0,
            interval_ns: MIN_INTERVAL_NS,
            boot_id: Uuid::from_u128(5),
        };
        let map = Arc::new(WordMap::private(header.layout.file_bytes()).unwrap());
        let segment = Arc::new(Segment::create(map, header, &description).unwrap());
        let writer = RingWriter::new(segment.clone());
        let draft = Draft::new(Words(100));
        draft.record().iter().for_each(|word| word.store(7, Ordering::Relaxed));
        records.for_each(|seq| writer.begin(Seq(seq)).unwrap().commit_draft(&draft, 100));
        Kept { segment, file: None, path: None, description: Arc::new(description) }
    }

    /// What is said of rings that were saved, the last of which is then cut off if `length` says so.
    fn said_of(kept: Vec<Kept>, length: impl Fn(&Layout) -> Option<u64>) -> Vec<String> {
        let dir = tempfile::tempdir().unwrap();
        let paths: Vec<PathBuf> =
            kept.iter().map(|it| dir.path().join(file_name(it.segment.header().segment))).collect();
        let layout = kept[0].segment.header().layout;
        LastRings::new(kept, None).save_into(dir.path()).unwrap();
        let last = File::options().write(true).open(paths.last().unwrap()).unwrap();
        if let Some(length) = length(&layout) {
            assert!(length < last.metadata().unwrap().len(), "it is made shorter");
            last.set_len(length).unwrap();
        }
        let copies = Copies { paths: &paths, run_id: Uuid::from_u128(7), open: ring::open };
        let (rings, refused) = copies.open_each();
        assert!(refused.is_empty());
        copies.cut_off(&rings)
    }

    #[test]
    fn a_ring_that_was_saved_is_not_taken_for_one_that_was_cut_off() {
        for records in [0..0, 0..1, 0..20, 0..SLOTS - 1, 0..SLOTS, 0..SLOTS + 20] {
            let said = said_of(vec![segment(0, records.clone())], |_| None);
            assert_eq!(said, [""; 0], "{records:?}");
        }
        // A layout that changed twice in one tick leaves a segment without a record.
        let kept = vec![segment(0, 0..20), segment(1, 20..20), segment(2, 20..50)];
        assert_eq!(said_of(kept, |_| None), [""; 0]);
    }

    #[test]
    fn one_that_was_cut_off_in_its_slots_is_named_unless_it_has_all() {
        let slot = |layout: &Layout, slot| Some(layout.slot_offset(Slot(slot)).0);
        let whole = segment(0, 0..0).segment.header().layout.file_bytes().0;
        // Which records there were, how long the file is in slots and bytes more, and the slot that is
        // the first to be missing.
        for (records, slots, more, missing) in [
            (0..20, 20, 0, Some(20)),
            (0..20, 20, 8, None),
            (0..20, 19, 8, Some(19)),
            (0..20, 0, 8, Some(0)),
            (0..SLOTS, SLOTS - 1, 512, Some(SLOTS - 1)),
            // All but what no record has.
            (0..SLOTS, SLOTS - 1, 103 * 8, None),
            // The newest record is there, and some of those before it are not.
            (0..SLOTS + 20, 50, 0, Some(50)),
            (0..SLOTS + 20, 10, 0, Some(10)),
        ] {
            let case = format!("{records:?}, {slots} slots and {more} bytes");
            let kept = vec![segment(0, records)];
            let said = said_of(kept, |layout| Some(slot(layout, slots)? + more));
            let ends = missing.map(|missing| {
                format!(
                    " of {whole} bytes, and its slots from {missing} on are not there; there is"
                )
            });
            match (&said[..], ends) {
                ([], None) => {}
                ([said], Some(ends)) => assert!(said.contains(&ends), "{case}: {said}"),
                (said, _) => panic!("{case}: {said:?}"),
            }
        }
    }
}
