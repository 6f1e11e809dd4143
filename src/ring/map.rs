//! Ring memory: mapped from a file or private, seen as atomic words, or plain words that tests and
//! models bring. One of the few files with `unsafe` in it; it knows nothing of what the words mean.

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
}

/// Zeroed or file-backed memory of a fixed number of words, shared by threads.
pub struct WordMap {
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
        Ok(WordMap { map, locked: false })
    }

    /// Private memory, lost with the process; every page of it is touched.
    ///
    /// # Errors
    /// The kernel's.
    pub fn private(bytes: Bytes) -> io::Result<WordMap> {
        let map = MmapOptions::new().len(length(bytes)?).populate().map_anon()?;
        Ok(WordMap { map: MmapMut::into(map), locked: false })
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

    /// All words.
    pub fn words(&self) -> &[AtomicU64] {
        let words = self.map.len() / size_of::<AtomicU64>();
        // SAFETY: `MmapRaw` guarantees that `as_mut_ptr` points to `len` bytes that stay mapped,
        // readable and writable until it is dropped, and the slice borrows `self`. A map begins
        // at a page boundary, so it is aligned for `AtomicU64`, which has the size and, on the
        // 64-bit targets this crate is built for, the alignment of `u64`; any bits are a valid
        // value. No `&mut` to this memory is ever made, and this crate touches it only through
        // these atomics; other processes may store to it, which atomics allow for.
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
    fn private_words_are_zero() {
        let mut map = WordMap::private(Bytes(8192)).unwrap();
        assert!(map.words().iter().all(|word| word.load(Ordering::Relaxed) == 0));
        assert!(!map.is_locked());
        assert_eq!(map.lock().is_ok(), map.is_locked());
    }
}
