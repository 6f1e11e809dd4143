//! Ring memory: mapped from a file or private, seen as atomic words, or plain words that tests and
//! models bring. One of the few files with `unsafe` in it; it knows nothing of what the words mean.

use super::guard::Guarded;
use crate::sync::AtomicU64;
use crate::units::Bytes;
use memmap2::{MmapMut, MmapOptions, MmapRaw};
use std::fs::File;
use std::io;

/// What a ring is written into: the map while recording; in tests, a `Vec` of words as well.
pub trait Memory {
    /// All words; always the same ones.
    fn words(&self) -> &[AtomicU64];

    /// Whether the memory is locked.
    fn is_locked(&self) -> bool {
        false
    }

    /// Whether somebody else has cut off its file: see [`WordMap::is_lost`].
    fn is_lost(&self) -> bool {
        false
    }

    /// The words that are not a file's, and where they begin: see [`WordMap::own_words`].
    fn own_words(&self) -> (usize, &[AtomicU64]) {
        (0, self.words())
    }
}

impl Memory for Vec<AtomicU64> {
    fn words(&self) -> &[AtomicU64] {
        self
    }
}

impl Memory for WordMap {
    fn words(&self) -> &[AtomicU64] {
        WordMap::words(self)
    }

    fn is_locked(&self) -> bool {
        WordMap::is_locked(self)
    }

    fn is_lost(&self) -> bool {
        WordMap::is_lost(self)
    }

    fn own_words(&self) -> (usize, &[AtomicU64]) {
        WordMap::own_words(self)
    }
}

/// Zeroed or file-backed memory of a fixed number of words, shared by threads.
///
/// A file may be cut off by whoever has the right to. What is stored behind its new end then goes to
/// memory of this process, and [`is_lost`](Self::is_lost) says so.
pub struct WordMap {
    /// Of a file. Dropped before the map.
    guard: Option<Guarded>,
    map: MmapRaw,
    locked: bool,
}

impl WordMap {
    /// Maps the first `bytes` of a file that is at least so long, and faults the pages in.
    ///
    /// # Errors
    /// The kernel's, and `InvalidInput` if the file is shorter.
    pub fn of_file(file: &File, bytes: Bytes) -> io::Result<WordMap> {
        if file.metadata()?.len() < bytes.0 {
            return Err(io::Error::new(
                io::ErrorKind::InvalidInput,
                "the file is shorter than the ring",
            ));
        }
        let map = MmapOptions::new().len(length(bytes)?).populate().map_raw(file)?;
        let guard = Guarded::new(map.as_ptr() as usize, map.len())?;
        Ok(WordMap { guard: Some(guard), map, locked: false })
    }

    /// Private memory, lost with the process; every page of it is touched.
    ///
    /// # Errors
    /// The kernel's.
    pub fn private(bytes: Bytes) -> io::Result<WordMap> {
        let map = MmapOptions::new().len(length(bytes)?).populate().map_anon()?;
        Ok(WordMap { guard: None, map: MmapMut::into(map), locked: false })
    }

    /// Keeps the pages in memory (`mlock`), where the process may.
    pub fn lock(&mut self) -> io::Result<()> {
        self.map.lock()?;
        self.locked = true;
        Ok(())
    }

    /// Whether [`lock`](Self::lock) succeeded.
    pub fn is_locked(&self) -> bool {
        self.locked
    }

    /// Whether the file turned out to be shorter than the map when something was stored or read.
    #[inline]
    pub fn is_lost(&self) -> bool {
        self.guard.as_ref().is_some_and(Guarded::is_lost)
    }

    /// The words that are not the file's, and where they begin: all of private memory, none of a
    /// file that nobody has touched.
    pub fn own_words(&self) -> (usize, &[AtomicU64]) {
        let of_file = self.guard.as_ref().map_or(0, Guarded::bytes_of_file);
        let from = (of_file / size_of::<AtomicU64>()).min(self.words().len());
        (from, &self.words()[from..])
    }

    /// All words.
    pub fn words(&self) -> &[AtomicU64] {
        let words = self.map.len() / size_of::<AtomicU64>();
        // SAFETY: `MmapRaw` guarantees that `as_mut_ptr` points to `len` bytes that stay mapped,
        // readable and writable until it is dropped, and the slice borrows `self`. A map begins
        // at a page boundary, so it is aligned for `AtomicU64`, which has the size and, on the
        // 64-bit targets this crate is built for, the alignment of `u64`; any bits are a valid
        // value. No `&mut` to this memory is ever made, and this crate touches it only through
        // these atomics; other processes may store to it, which atomics allow for. A page that the
        // file has lost is replaced by the guard when it is touched.
        // (`std::sync::atomic::AtomicU64`: "same size and bit validity as u64";
        // `std::slice::from_raw_parts`.)
        unsafe { std::slice::from_raw_parts(self.map.as_mut_ptr().cast::<AtomicU64>(), words) }
    }
}

fn length(bytes: Bytes) -> io::Result<usize> {
    usize::try_from(bytes.0).map_err(|error| io::Error::new(io::ErrorKind::InvalidInput, error))
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;
    use std::sync::atomic::Ordering;

    #[test]
    fn words_of_a_file_are_its_bytes() {
        let file = tempfile::tempfile().unwrap();
        file.set_len(4096).unwrap();
        let map = WordMap::of_file(&file, Bytes(4096)).unwrap();
        assert_eq!(map.words().len(), 512);
        map.words()[1].store(0x0102, Ordering::Relaxed);
        let mut bytes = [0; 16];
        std::os::unix::fs::FileExt::read_exact_at(&file, &mut bytes, 0).unwrap();
        assert_eq!(bytes, [0, 0, 0, 0, 0, 0, 0, 0, 2, 1, 0, 0, 0, 0, 0, 0]);
        assert!(WordMap::of_file(&file, Bytes(4097)).is_err());
    }

    #[test]
    fn a_file_that_is_cut_off_costs_what_was_cut_off_and_no_more() {
        const PAGES: usize = 16;
        // A multiple of every size of page that Linux has.
        let page = 65536;
        let bytes = PAGES * page;
        let file = tempfile::tempfile().unwrap();
        file.set_len(bytes as u64).unwrap();
        let map = WordMap::of_file(&file, Bytes(bytes as u64)).unwrap();
        let word = |nth: usize| &map.words()[nth * page / 8];
        let fill = || (0..PAGES).for_each(|nth| word(nth).store(nth as u64 + 1, Ordering::Relaxed));
        fill();
        assert!(!map.is_lost() && map.own_words().1.is_empty());
        file.set_len(10 * page as u64).unwrap();
        let read = |nth: usize| word(nth).load(Ordering::Relaxed);
        assert_eq!((read(12), map.is_lost()), (0, true));
        assert_eq!((read(15), read(9)), (0, 10), "zeros behind the end, the file before it");
        assert_eq!(map.own_words().0, 12 * page / 8);
        word(13).store(7, Ordering::Relaxed);
        file.set_len(0).unwrap();
        // From several threads at once: what is stored once the map is lost stays.
        std::thread::scope(|scope| {
            for thread in 0..4 {
                scope.spawn(move || {
                    for nth in (thread..12).step_by(4).rev() {
                        word(nth).store(100 + nth as u64, Ordering::Relaxed);
                    }
                });
            }
        });
        assert_eq!(read(13), 7);
        assert!((0..12).all(|nth| read(nth) == 100 + nth as u64));
        assert_eq!(map.own_words().0, 0);
        assert_eq!(file.metadata().unwrap().len(), 0);
    }

    #[test]
    fn a_place_is_free_again_when_its_map_has_gone() {
        let file = tempfile::tempfile().unwrap();
        file.set_len(4096).unwrap();
        for _ in 0..5000 {
            let map = WordMap::of_file(&file, Bytes(4096)).unwrap();
            assert!(!map.is_lost());
        }
    }

    #[test]
    fn private_words_are_zero() {
        let mut map = WordMap::private(Bytes(8192)).unwrap();
        assert!(map.words().iter().all(|word| word.load(Ordering::Relaxed) == 0));
        assert!(!map.is_locked());
        assert_eq!(map.lock().is_ok(), map.is_locked());
    }
}
