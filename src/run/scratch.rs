//! Where rings that are still being written are copied to: a file without a name, which is gone with this
//! process however it ends. What is copied, and how, is `decode`'s.

use crate::decode::{DecodeError, snapshot};
use crate::ring::{Ring, Scan, allocate_nameless};
use crate::sampler::{Medium, check_free, check_memory};
use crate::units::{Bytes, Slot};
use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};

/// Where the copy goes if nobody says where to, and `TMPDIR` says nothing either.
const DEFAULT_DIR: &str = "/var/tmp";
/// A copy of no more than this is memory: it troubles no disk, which may be the one that is measured, or one
/// that does not answer.
const MOST_IN_MEMORY: Bytes = Bytes(4 << 20);

/// Copies a ring that is being written: a large one to a file in `dir`, or, where that cannot be, to one in
/// the directory for temporary files.
///
/// # Errors
/// [`DecodeError`]; `Snapshot` says of each directory why it cannot be there.
pub(super) fn copy_of_living(path: &Path, dir: Option<&Path>) -> Result<Ring, DecodeError> {
    let temporary = std::env::var_os("TMPDIR").filter(|dir| !dir.is_empty());
    let temporary = temporary.map_or_else(|| PathBuf::from(DEFAULT_DIR), PathBuf::from);
    copy_to_any(path, dir.into_iter().chain([&*temporary]), MOST_IN_MEMORY)
}

fn copy_to_any<'d>(
    path: &Path,
    dirs: impl IntoIterator<Item = &'d Path>,
    most_in_memory: Bytes,
) -> Result<Ring, DecodeError> {
    let failed = |source| DecodeError::Snapshot { path: path.to_owned(), source };
    let ring = Ring::open(path)?;
    let bytes = used_bytes(&ring, &ring.scan()?);
    if bytes <= most_in_memory {
        return snapshot(path, allocate_nameless(Bytes(0)).map_err(failed)?);
    }
    let mut said = Vec::new();
    for dir in dirs {
        match file_in(dir, bytes) {
            Ok(file) => return snapshot(path, file),
            Err(error) => said.push(format!("in {}: {error}", dir.display())),
        }
    }
    let what = format!(
        "{}; make room, name another directory (TMPDIR), or wait until the run has ended: its ring is then \
         read where it is",
        said.join("; ")
    );
    Err(failed(io::Error::other(what)))
}

/// A file in `dir` that nobody else sees, and room for so much in it that as much is left to others.
fn file_in(dir: &Path, bytes: Bytes) -> io::Result<File> {
    check_free(dir, bytes)?;
    let file = tempfile::tempfile_in(dir)?;
    if Medium::of(dir) == Medium::SharedMemory {
        check_memory(bytes).map_err(io::Error::other)?;
    }
    Ok(file)
}

/// What of a ring is not empty: slots are used in turn.
fn used_bytes(ring: &Ring, scan: &Scan) -> Bytes {
    let layout = ring.header().layout;
    layout.slot_offset(Slot(layout.slots.saturating_sub(scan.empty)))
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;
    use crate::decode::Decoder;
    use std::fs;

    /// What is said of the copy of a ring of seven records in five slots, and what the directory has then.
    fn copied(dirs: &[&Path], most_in_memory: u64) -> Result<u64, String> {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/v1.ring");
        let ring = copy_to_any(&path, dirs.iter().copied(), Bytes(most_in_memory));
        let ring = ring.map_err(|error| error.to_string())?;
        assert_eq!(ring.path(), path);
        Ok(Decoder::new(vec![ring]).unwrap().summary().samples_kept)
    }

    #[test]
    fn a_small_ring_is_copied_to_memory_and_a_large_one_to_the_first_directory_that_takes_it() {
        let [dir, none] = [tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap()];
        let none = none.path().join("none");
        assert_eq!(copied(&[], 1 << 20), Ok(4));
        assert_eq!(copied(&[&none, dir.path()], 0), Ok(4));
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 0, "it has no name");
        let said = copied(&[&none, Path::new("/proc")], 0).unwrap_err();
        for part in [
            "cannot copy the live ring ",
            "v1.ring",
            &format!("in {}: No such file", none.display()),
            "; in /proc: ",
            "; make room, name another directory (TMPDIR), or wait until the run has ended",
        ] {
            assert!(said.contains(part), "{part}: {said}");
        }
    }

    #[test]
    fn only_what_is_not_empty_needs_room() {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/v1.ring");
        let ring = Ring::open(&path).unwrap();
        let layout = ring.header().layout;
        let used = |empty| used_bytes(&ring, &Scan { empty, ..Scan::default() });
        assert_eq!(used(0), layout.file_bytes());
        assert_eq!(used(layout.slots), layout.slots_offset);
        assert_eq!(used(layout.slots - 2), layout.slot_offset(Slot(2)));
    }
}
