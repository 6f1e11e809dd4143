//! Making a ring file: created anew, never through a symlink, with all its blocks, so that nothing
//! written later can meet a full disk.

use crate::place::Place;
use crate::units::Bytes;
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::Path;

/// Zeros written at a time.
const CHUNK_BYTES: usize = 1 << 20;

/// What is done to have all blocks of a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Blocks {
    /// Zeros are written to every one, as far as the device. A file that is mapped needs it: on file
    /// systems that only promise space, a store to a block that cannot be had is a SIGBUS.
    Written,
    /// The file system reserves them, and writes nothing. Enough for a file that is written with
    /// `pwrite`, where the worst is an error; where it cannot be had, zeros are written.
    Reserved,
}

/// Creates `path`, which must not exist, readable by its owner only, `bytes` long and all zeros.
/// On an error nothing is left.
///
/// # Errors
/// The kernel's; `StorageFull` and `FileTooLarge` among them.
pub fn allocate(path: &Path, bytes: Bytes, blocks: Blocks) -> io::Result<File> {
    let (place, name) = Place::of(path)?;
    let file = place.create(name)?;
    match fill(&file, bytes, blocks) {
        Ok(()) => Ok(file),
        Err(error) => {
            // The first error is what the user needs; a file that stays is found by `recover`.
            let _ = place.remove_if(name, &file);
            Err(error)
        }
    }
}

/// A file without a name, in memory, that is lost with the process.
///
/// # Errors
/// The kernel's; there is none before Linux 3.17.
pub fn allocate_nameless(bytes: Bytes) -> io::Result<File> {
    let file = File::from(rustix::fs::memfd_create("ringstat", rustix::fs::MemfdFlags::CLOEXEC)?);
    fill(&file, bytes, Blocks::Reserved)?;
    Ok(file)
}

/// Makes a file `bytes` long that is shorter, with all its blocks, where the file system can. What is
/// in it stays.
///
/// # Errors
/// The kernel's, `StorageFull` among them.
pub fn reserve(file: &File, bytes: Bytes) -> io::Result<()> {
    use rustix::io::Errno;
    match rustix::fs::fallocate(file, rustix::fs::FallocateFlags::empty(), 0, bytes.0) {
        Err(Errno::OPNOTSUPP | Errno::NOSYS) => file.set_len(bytes.0),
        reserved => Ok(reserved?),
    }
}

/// Gives the blocks from `from` to `end` back to the file system, where it can: they read as
/// zeros then. For the slots of a segment that no record will ever be written to.
pub fn punch(file: &File, from: Bytes, end: Bytes) {
    use rustix::fs::FallocateFlags as Flags;
    if from < end {
        // Only a courtesy: where it is not supported the blocks stay.
        let flags = Flags::PUNCH_HOLE | Flags::KEEP_SIZE;
        let _ = rustix::fs::fallocate(file, flags, from.0, end.0 - from.0);
    }
}

fn fill(file: &File, bytes: Bytes, blocks: Blocks) -> io::Result<()> {
    // Tells a full disk at once, where the file system can.
    match rustix::fs::fallocate(file, rustix::fs::FallocateFlags::empty(), 0, bytes.0) {
        Err(rustix::io::Errno::NOSPC) => return Err(io::ErrorKind::StorageFull.into()),
        Err(rustix::io::Errno::FBIG) => return Err(io::ErrorKind::FileTooLarge.into()),
        Ok(()) if blocks == Blocks::Reserved => return Ok(()),
        _ => {}
    }
    let zeros = vec![0; CHUNK_BYTES];
    let mut at = 0;
    while at < bytes.0 {
        let count = usize::try_from(bytes.0 - at).unwrap_or(CHUNK_BYTES).min(CHUNK_BYTES);
        file.write_all_at(&zeros[..count], at)?;
        at += count as u64;
    }
    // What was only promised, by a thin volume or a server, is refused now or never.
    file.sync_data()
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;
    use std::os::unix::fs::{MetadataExt, symlink};

    #[test]
    fn the_file_is_private_and_really_there() {
        let dir = tempfile::tempdir().unwrap();
        for (name, blocks) in [("written", Blocks::Written), ("reserved", Blocks::Reserved)] {
            let path = dir.path().join(name);
            allocate(&path, Bytes(3 << 20), blocks).unwrap();
            let meta = std::fs::metadata(&path).unwrap();
            assert_eq!((meta.len(), meta.mode() & 0o777), (3 << 20, 0o600));
            assert!(meta.blocks() * 512 >= 3 << 20, "{} blocks: sparse", meta.blocks());
        }
    }

    #[test]
    fn neither_an_existing_file_nor_a_symlink_is_taken() {
        let dir = tempfile::tempdir().unwrap();
        let (target, link) = (dir.path().join("target"), dir.path().join("link"));
        symlink(&target, &link).unwrap();
        assert_eq!(
            allocate(&link, Bytes(512), Blocks::Written).unwrap_err().kind(),
            io::ErrorKind::AlreadyExists
        );
        assert!(!target.exists());
        std::fs::write(&target, "mine").unwrap();
        assert!(allocate(&target, Bytes(512), Blocks::Written).is_err());
        assert_eq!(std::fs::read(&target).unwrap(), b"mine");
    }
}
