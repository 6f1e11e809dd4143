//! Copies of rings that their recorder may be writing: two passes over one must find the same.

use super::error::DecodeError;
use crate::ring::{self, ReadAt, Ring};
use crate::units::Bytes;
use std::fs::File;
use std::io;
use std::ops::Range;
use std::os::unix::fs::FileExt;
use std::path::Path;

/// Opens a ring file that its recorder may be writing: what it holds now is copied to `copy`, an empty file
/// that nobody else writes to, and that is what is decoded. It is as long as the ring, and takes no room for
/// slots that are empty.
///
/// Each slot of the copy judges itself, as those of the ring do: one that was written meanwhile does not
/// verify, or is the record of before.
///
/// # Errors
/// [`DecodeError`].
pub fn snapshot(path: &Path, copy: File) -> Result<Ring, DecodeError> {
    snapshot_within(path, copy, Bytes(u64::MAX))
}

/// As [`snapshot`], with no more than `most` bytes written, for which there is room.
///
/// # Errors
/// [`DecodeError`]; `Snapshot` if there is more by now.
pub(crate) fn snapshot_within(path: &Path, copy: File, most: Bytes) -> Result<Ring, DecodeError> {
    let live = ring::open(path)?;
    let failed = |source| DecodeError::Snapshot { path: path.to_owned(), source };
    let layout = Ring::new(Box::new(live.try_clone().map_err(failed)?), path)?.header().layout;
    let slots_offset = layout.slots_offset.0;
    let copied = || {
        // No more than the ring: somebody may have made the file longer.
        let length = live.metadata()?.len().min(layout.file_bytes().0);
        copy.set_len(length)?;
        let mut room = most;
        // Records first: the names that they speak of were there before them.
        copy_range(&live, &copy, slots_offset..length, &mut room)?;
        copy_range(&live, &copy, 0..slots_offset, &mut room)
    };
    copied().map_err(failed)?;
    Ok(Ring::new(Box::new(copy), path)?)
}

/// Copies a part of a file, but for what is zero, as long as there is room for it.
fn copy_range(from: &File, to: &File, range: Range<u64>, room: &mut Bytes) -> io::Result<()> {
    let mut chunk = vec![0; 64 << 10];
    let mut at = range.start;
    while at < range.end {
        let wanted = chunk.len().min(usize::try_from(range.end - at).unwrap_or(usize::MAX));
        let count = ReadAt::read_at(from, &mut chunk[..wanted], at)?;
        if count == 0 {
            break;
        }
        if chunk[..count].iter().any(|byte| *byte != 0) {
            let left = room.0.checked_sub(count as u64);
            room.0 = left.ok_or_else(|| {
                let what = "the ring has more by now than there was to be room for";
                io::Error::new(io::ErrorKind::FileTooLarge, what)
            })?;
            to.write_all_at(&chunk[..count], at)?;
        }
        at += count as u64;
    }
    Ok(())
}
