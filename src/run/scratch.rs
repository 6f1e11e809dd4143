//! Where rings that are still being written are copied to: a file without a name, which is gone with this
//! process however it ends. What is copied, and how, is `decode`'s.

use crate::decode::{DecodeError, snapshot_within};
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

/// Beyond a quarter more, so much may come to a ring while it is copied, part for part.
const MORE: Bytes = Bytes(128 << 10);

/// Copies a ring that is being written: a large one to a file in `dir`, or where that is to be, or, where
/// that cannot be, to one in the directory for temporary files.
///
/// # Errors
/// [`DecodeError`]; `Snapshot` says of each directory why it cannot be there.
pub(super) fn copy_of_living(path: &Path, dir: Option<&Path>) -> Result<Ring, DecodeError> {
    let temporary = std::env::var_os("TMPDIR").filter(|dir| !dir.is_empty());
    let temporary = temporary.map_or_else(|| PathBuf::from(DEFAULT_DIR), PathBuf::from);
    let dirs = dir.map(nearest).into_iter().chain([&*temporary]);
    copy_to_any(path, dirs, MOST_IN_MEMORY, file_in)
}

/// A directory that is there: this one, or the one in which it is to be made.
fn nearest(dir: &Path) -> &Path {
    match dir.ancestors().find(|it| it.is_dir() || it.as_os_str().is_empty()) {
        Some(found) if !found.as_os_str().is_empty() => found,
        _ => Path::new("."),
    }
}

fn copy_to_any<'d>(
    path: &Path,
    dirs: impl IntoIterator<Item = &'d Path>,
    most_in_memory: Bytes,
    file_in: impl Fn(&Path, Bytes) -> io::Result<File>,
) -> Result<Ring, DecodeError> {
    let failed = |source| DecodeError::Snapshot { path: path.to_owned(), source };
    let ring = Ring::open(path)?;
    let used = used_bytes(&ring, &ring.scan()?);
    let in_memory = (used <= most_in_memory).then_some(None);
    let mut said = Vec::new();
    for dir in in_memory.into_iter().chain(dirs.into_iter().map(Some)) {
        // What is written is no more than what there was to be room for.
        let (most, file) = match dir {
            None => (most_in_memory, allocate_nameless(Bytes(0))),
            Some(dir) => {
                let most = with_more(used).min(ring.header().layout.file_bytes());
                (most, file_in(dir, most))
            }
        };
        let place = dir.map_or_else(|| "memory".to_owned(), |dir| dir.display().to_string());
        match file.map_err(failed).and_then(|file| snapshot_within(path, file, most)) {
            Err(DecodeError::Snapshot { source, .. }) => said.push(format!("in {place}: {source}")),
            copied => return copied,
        }
    }
    let what = format!(
        "{}; make room, name another directory (TMPDIR), or wait until the run has ended: its ring is then \
         read where it is",
        said.join("; ")
    );
    Err(failed(io::Error::other(what)))
}

/// What a ring may have by the time when it has been copied that has so much now.
fn with_more(used: Bytes) -> Bytes {
    Bytes(used.0.saturating_add(used.0 / 4).saturating_add(MORE.0))
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
    use std::os::unix::fs::MetadataExt;

    /// What is said of the copy of a ring of seven records in five slots, and what the directory has then.
    fn copied(dirs: &[&Path], most_in_memory: u64) -> Result<u64, String> {
        copied_by(dirs, most_in_memory, file_in)
    }

    fn copied_by(
        dirs: &[&Path],
        most_in_memory: u64,
        file_in: impl Fn(&Path, Bytes) -> io::Result<File>,
    ) -> Result<u64, String> {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/v1.ring");
        let ring = copy_to_any(&path, dirs.iter().copied(), Bytes(most_in_memory), file_in);
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
    fn a_file_that_cannot_be_written_to_is_not_the_last() {
        let [first, second] = [Path::new("/first"), Path::new("/second")];
        let file_in = |dir: &Path, _| {
            if dir == first { File::open("/dev/null") } else { tempfile::tempfile() }
        };
        assert_eq!(copied_by(&[first, second], 0, file_in), Ok(4));
        let said = copied_by(&[first, first], 0, file_in).unwrap_err();
        assert_eq!(said.matches("in /first: Invalid argument").count(), 2, "{said}");
    }

    #[test]
    fn no_more_is_written_than_there_was_to_be_room_for() {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/v1.ring");
        let bytes = fs::metadata(&path).unwrap().len();
        for most in [0, 1, 100] {
            let file = allocate_nameless(Bytes(0)).unwrap();
            let copy = file.try_clone().unwrap();
            let error = snapshot_within(&path, file, Bytes(most)).err().unwrap().to_string();
            assert!(error.contains("more by now than there was to be room for"), "{error}");
            assert!(copy.metadata().unwrap().blocks() * 512 <= most.next_multiple_of(4096));
        }
        let file = allocate_nameless(Bytes(0)).unwrap();
        snapshot_within(&path, file, Bytes(bytes)).unwrap();
        // The room that is asked for has some for what comes meanwhile.
        assert_eq!(with_more(Bytes(8 << 20)), Bytes((10 << 20) + (128 << 10)));
        assert_eq!(with_more(Bytes(u64::MAX)), Bytes(u64::MAX));
    }

    #[test]
    fn a_directory_that_is_yet_to_be_made_stands_for_the_one_that_it_will_be_in() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("results/of/today");
        assert_eq!(nearest(&path), dir.path());
        fs::create_dir(dir.path().join("results")).unwrap();
        assert_eq!(nearest(&path), dir.path().join("results"));
        assert_eq!(nearest(Path::new("no-such-directory/here")), Path::new("."));
        assert_eq!(nearest(Path::new("")), Path::new("."));
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
